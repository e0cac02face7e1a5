//! `auth_type=pam` with the system's PAM. Its service file has a fixed place: these tests need to be root, and the only ones to want it.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use crate::fixture::*;
use crate::proto::Conn;

const SERVICE_FILE: &str = "/etc/pam.d/pgbouncer";
const FAILED: &str = "FATAL 08P01 PAM authentication failed";

/// The service file, ours for as long as this lives.
struct Service;

impl Service {
    /// `None`, with a word of explanation, where it cannot be had.
    fn take() -> Option<Service> {
        match File::create_new(SERVICE_FILE) {
            Ok(_) => {
                remove_at_end(Path::new(SERVICE_FILE));
                Some(Service)
            }
            Err(error) => {
                eprintln!("left out, the tests cannot make {SERVICE_FILE}: {error}");
                None
            }
        }
    }

    fn set(&self, lines: &str) {
        let mut file = File::create(SERVICE_FILE).expect("ours");
        file.write_all(lines.as_bytes()).expect("a small file");
        file.set_permissions(Permissions::from_mode(0o644))
            .expect("ours");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(SERVICE_FILE);
    }
}

async fn outcome(pooler: &Pooler, database: &str, user: &str, password: &str) -> String {
    match Conn::try_login(pooler.port, user, database, Some(password)).await {
        Ok(mut conn) => {
            conn.ok("SELECT 1").await;
            "ok".into()
        }
        Err(error) => error.error_text(),
    }
}

/// Everything in one test, because there is one service file.
#[tokio::test]
async fn pam() {
    bounded(180, async {
        let Some(service) = Service::take() else { return };
        let (cluster, db, mut ini) = setup().await;
        let address = cluster.address();
        ini.database("f", format!("{address} dbname={db} user=u_trust"))
            .database("q", format!("{address} dbname={db} auth_user=u_other"))
            .set("auth_type", "pam");
        let script = ini.file("check.sh", "#!/bin/sh\necho \"$PAM_USER $PAM_RHOST $PAM_SERVICE\" >>\"${0%/*}/asked\"\ntest \"$(cat)\" = \"${PAM_USER}_pw\"\n");
        std::fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("our file");
        let checking = format!("auth required pam_exec.so quiet expose_authtok {script}\n");
        let open = "account required pam_permit.so\n";
        service.set(&format!("{checking}{open}"));
        let pooler = ini.start().await;
        passwords_are_checked(&pooler).await;
        let asked = std::fs::read_to_string(pooler.dir.join("asked")).unwrap_or_default();
        assert!(asked.starts_with("u_scram 127.0.0.1 pgbouncer\n"), "{asked}");

        service.set(&format!("{checking}account required pam_deny.so\n"));
        assert_eq!(outcome(&pooler, "f", "ann", "ann_pw").await, FAILED);
        pooler.wait_log("pam_acct_mgmt() failed").await;
        service.set(&format!("auth required pam_deny.so\n{open}"));
        assert_eq!(outcome(&pooler, "f", "ann", "ann_pw").await, FAILED);
        service.set(&format!("auth required pam_no_such_module.so\n{open}"));
        assert_eq!(outcome(&pooler, "f", "ann", "ann_pw").await, FAILED);
        service.set(&format!("auth required pam_permit.so\n{open}"));
        assert_eq!(outcome(&pooler, "f", "ann", "whatever").await, "ok");
        let empty = "FATAL 08P01 empty password returned by client";
        assert_eq!(outcome(&pooler, "f", "ann", "").await, empty);

        let hanging = ini.file("hang.sh", "#!/bin/sh\nexec sleep 60\n");
        std::fs::set_permissions(&hanging, Permissions::from_mode(0o755)).expect("our file");
        drop(pooler);
        let pooler = ini.set("client_login_timeout", 2).start().await;
        let mut inside = Conn::login(pooler.port, "ann", "f", Some("x")).await;
        service.set(&format!(
            "auth required pam_exec.so quiet expose_authtok {hanging}\n{open}"
        ));
        a_hanging_module_stops_nobody_else(&mut ini, pooler, &mut inside).await;
    })
    .await;
}

async fn passwords_are_checked(pooler: &Pooler) {
    // The password that PAM has accepted logs in to PostgreSQL.
    for user in ["u_scram", "u_plain"] {
        let password = format!("{user}_pw");
        let mut client = Conn::login(pooler.port, user, "p", Some(&password)).await;
        assert_eq!(client.ok("SELECT current_user").await.value(), user);
    }
    assert_eq!(outcome(pooler, "f", "ann", "ann_pw").await, "ok");
    for password in ["wrong", "ann_pw2", "ann_p"] {
        assert_eq!(outcome(pooler, "f", "ann", password).await, FAILED);
    }
    pooler.wait_log("pam_authenticate() failed").await;
    assert!(!pooler.log().contains("wrong"));
    let long = "x".repeat(60_000);
    assert_eq!(outcome(pooler, "f", "ann", &long).await, FAILED);
    let config_error = "FATAL 08P01 bouncer config error";
    assert_eq!(outcome(pooler, "q", "ann", "ann_pw").await, config_error);
    pooler
        .wait_log("PAM can't be used together with database authentication")
        .await;
    let mut local = Conn::unix(&pooler.socket()).await;
    local.log_in("ann", "f", Some("ann_pw")).await;
    let asked = std::fs::read_to_string(pooler.dir.join("asked")).unwrap_or_default();
    assert!(asked.contains("ann unix pgbouncer\n"), "{asked}");
}

async fn a_hanging_module_stops_nobody_else(ini: &mut Ini, mut pooler: Pooler, inside: &mut Conn) {
    // More than may ask at once.
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let port = pooler.port;
        waiting.spawn(async move {
            let ended = Conn::try_login(port, "ann", "f", Some("x")).await;
            ended.err().expect("nobody gets in").error_text()
        });
    }
    while let Some(ended) = waiting.join_next().await {
        assert_eq!(ended.unwrap(), "FATAL 08P01 client_login_timeout");
        inside.ok("SELECT 1").await;
    }
    // Other kinds of logins go on.
    ini.set("auth_type", "plain").write();
    pooler.signal(nix::sys::signal::Signal::SIGHUP);
    wait_until("other passwords", || async {
        outcome(&pooler, "p", "u_plain", "u_plain_pw").await == "ok"
    })
    .await;
    let began = Instant::now();
    pooler.signal(nix::sys::signal::Signal::SIGQUIT);
    wait_until("the end", || std::future::ready(!pooler.is_running())).await;
    assert!(began.elapsed() < Duration::from_secs(20));
}
