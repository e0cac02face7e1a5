//! Under a service manager: what it is told, the sockets it passes, its journal; with our own sockets in its place. And the unit
//! files, where systemd can look at them.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::*;
use crate::fixture::*;

/// The manager's end.
struct Manager {
    socket: UnixDatagram,
    path: String,
}

impl Manager {
    fn new(ini: &Ini) -> Manager {
        let path = ini.dir().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Manager {
            socket,
            path: path.display().to_string(),
        }
    }

    /// The next thing that is told, without what is told all the time.
    fn heard(&self) -> String {
        loop {
            let text = self.next();
            if !text.starts_with("STATUS=") {
                return text;
            }
        }
    }

    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let len = self.socket.recv(&mut buffer).expect("something is told");
        String::from_utf8_lossy(&buffer[..len])
            .trim_end()
            .to_owned()
    }

    fn status(&self) -> String {
        loop {
            let text = self.next();
            if text.starts_with("STATUS=") {
                return text;
            }
        }
    }
}

#[tokio::test]
async fn the_manager_is_told() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let manager = Manager::new(&ini);
        ini.set("stats_period", 1);
        let mut pooler = ini.spawn_changed(|command| {
            command.env("NOTIFY_SOCKET", &manager.path);
        });
        assert_eq!(manager.heard(), "READY=1");
        let mut client = pooler.client("u_trust", "p").await;
        let status = manager.status();
        assert!(
            status.starts_with("STATUS=stats: ") && status.contains(" xacts/s, "),
            "{status}"
        );
        pooler.signal(Signal::SIGHUP);
        let reloading = manager.heard();
        let usec = reloading
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .expect("a reload");
        assert!(usec.parse::<u64>().is_ok(), "{usec}");
        assert_eq!(manager.heard(), "READY=1");
        // A file with mistakes is a reload that has ended, too.
        ini.set("pool_mode", "nonsense").write();
        pooler.signal(Signal::SIGHUP);
        assert!(manager.heard().starts_with("RELOADING=1\n"));
        assert_eq!(manager.heard(), "READY=1");
        pooler.signal(Signal::SIGTERM);
        assert_eq!(manager.heard(), "STOPPING=1");
        assert_eq!(client.ok("SELECT 1").await.value(), "1");
        client.close().await;
        assert_eq!(pooler.wait_exit().await, Exit::Code(0));
    })
    .await;
}

/// A drain is an end too, whoever orders it.
#[tokio::test]
async fn it_is_told_of_a_drain() {
    not_in_pgbouncer!("it cannot drain");
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let manager = Manager::new(&ini);
        ini.set("shutdown_mode", "drain").set("drain_lame_duck", 0);
        for by_signal in [true, false] {
            let mut pooler = ini.spawn_changed(|command| {
                command.env("NOTIFY_SOCKET", &manager.path);
            });
            assert_eq!(manager.heard(), "READY=1");
            if by_signal {
                pooler.signal(Signal::SIGTERM);
            } else {
                pooler.console("SHUTDOWN DRAIN").await;
            }
            assert_eq!(manager.heard(), "STOPPING=1");
            assert_eq!(pooler.wait_exit().await, Exit::Code(0));
        }
    })
    .await;
}

/// Passes two sockets as descriptors 3 and 4, as a service manager would.
const PASS: &str =
    "exec 3<&0 4<&1 </dev/null >/dev/null; LISTEN_PID=$$ LISTEN_FDS=2 exec \"$0\" \"$1\"";

#[tokio::test]
async fn passed_sockets_replace_our_own_and_outlive_us() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        ini.set("listen_addr", "127.0.0.3");
        let tcp = TcpListener::bind(("127.0.0.1", ini.port)).unwrap();
        let path = ini.dir().join(format!(".s.PGSQL.{}", ini.port));
        let unix = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        let start = || {
            let (tcp, unix) = (tcp.try_clone().unwrap(), unix.try_clone().unwrap());
            ini.spawn_through(PASS, |command| {
                command.stdin(Stdio::from(OwnedFd::from(tcp)));
                command.stdout(Stdio::from(OwnedFd::from(unix)));
            })
        };
        let mut pooler = start();
        for line in [
            "WARNING sockets passed from service manager, cf_listen_addr ignored",
            "WARNING sockets passed from service manager, cf_unix_socket_dir ignored",
            "LOG socket passed from service manager (fd 4)",
            &format!("listening on 127.0.0.1:{}", ini.port),
            &format!("listening on unix:{}", path.display()),
        ] {
            pooler.wait_log(line).await;
        }
        let mut client = pooler.client("u_trust", "p").await;
        assert_eq!(client.ok("SELECT 1").await.value(), "1");
        assert_eq!(pooler.show("VERSION").await.rows.len(), 1);
        pooler.signal(Signal::SIGTERM);
        pooler.wait_log("got SIGTERM").await;
        client.close().await;
        assert_eq!(pooler.wait_exit().await, Exit::Code(0));
        // Who comes between two processes waits for the second.
        assert!(path.exists());
        let port = ini.port;
        let early = tokio::spawn(async move {
            let mut conn = crate::proto::Conn::login(port, "u_trust", "p", None).await;
            conn.ok("SELECT 'early'").await.value()
        });
        let pooler = start();
        assert_eq!(early.await.unwrap(), "early");
        drop(pooler);
    })
    .await;
}

#[tokio::test]
async fn sockets_that_are_none_end_the_start() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let script = "exec 3</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$1\"";
        let mut pooler = ini.spawn_through(script, |_| {});
        assert_eq!(pooler.wait_exit().await, Exit::Code(1));
        let log = pooler.log();
        assert!(
            log.contains("failed to set up socket passed from service manager (fd 3)"),
            "{log}"
        );
    })
    .await;
}

/// The journal adds time, process and level itself.
#[tokio::test]
async fn the_journal_gets_priorities() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let mut pooler = ini.spawn_through(
            "JOURNAL_STREAM=$(stat -L -c %d:%i /dev/stderr) exec \"$0\" \"$1\"",
            |_| {},
        );
        pooler.wait_log("process up").await;
        let log = pooler.log();
        assert!(
            log.lines()
                .all(|line| line.starts_with("<6>") || line.starts_with("<4>")),
            "{log}"
        );
        assert!(log.contains("\n<6>process up: PgBouncer "), "{log}");
        pooler.signal(Signal::SIGINT);
        assert_eq!(pooler.wait_exit().await, Exit::Code(0));
    })
    .await;
}

#[test]
fn the_unit_files_are_good() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/systemd");
    let own = tempfile::tempdir().unwrap();
    let mut copies = Vec::new();
    for name in ["pgweir.service", "pgweir.socket"] {
        let text = std::fs::read_to_string(dir.join(name)).unwrap();
        assert!(std::fs::metadata(dir.join(name)).unwrap().mode() & 0o111 == 0);
        // Where the program will be is the operator's business.
        let text = text.replace("/usr/bin/pgweir", "/bin/true");
        let copy = own.path().join(name);
        std::fs::write(&copy, text).unwrap();
        copies.push(copy);
    }
    let verified = Command::new("systemd-analyze")
        .arg("verify")
        .args(&copies)
        .output();
    let Ok(verified) = verified else {
        eprintln!("left out: there is no systemd-analyze");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
}
