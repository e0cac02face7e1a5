//! Signals, exit codes, the pidfile, and mistakes at the start.

use nix::sys::signal::Signal;

use super::*;
use crate::fixture::*;
use crate::proto::msg;

#[tokio::test]
async fn sighup_reloads_and_reopens_the_log() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let log = ini.file("pooler.log", "");
        let pooler = ini.set("logfile", &log).start().await;
        let moved = format!("{log}.1");
        std::fs::rename(&log, &moved).unwrap();
        ini.set("query_wait_timeout", 33).write();
        pooler.signal(Signal::SIGHUP);
        pooler.wait_log("got SIGHUP, re-reading config").await;
        let value = || async {
            pooler
                .show("CONFIG")
                .await
                .value("key", "query_wait_timeout", "value")
        };
        wait_until("the new value", || async { value().await == "33" }).await;
        pooler.client("u_trust", "p").await.close().await;
        let written = || async {
            std::fs::read_to_string(&log)
                .is_ok_and(|t| t.contains("login attempt: db=p user=u_trust"))
        };
        wait_until("the new log file", written).await;
        assert!(
            std::fs::read_to_string(&moved)
                .unwrap()
                .contains("listening on")
        );
    })
    .await;
}

#[tokio::test]
async fn sigterm_waits_for_clients() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pidfile = ini.dir().join("pooler.pid");
        let mut pooler = ini.set("pidfile", pidfile.display()).start().await;
        let pid = format!("{}\n", pooler.pid());
        let written = || async { std::fs::read_to_string(&pidfile).is_ok_and(|text| text == pid) };
        wait_until("the pidfile", written).await;
        let mut client = pooler.client("u_trust", "p").await;
        pooler.signal(Signal::SIGTERM);
        pooler
            .wait_log("got SIGTERM, shutting down, waiting for all clients disconnect")
            .await;
        assert_eq!(client.ok("SELECT 1").await.value(), "1");
        client.close().await;
        assert_eq!(pooler.wait_exit().await, Exit::Code(0));
        assert!(!pidfile.exists());
        assert!(!pooler.socket().exists());
    })
    .await;
}

#[tokio::test]
async fn a_second_sigterm_does_not_wait() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let mut pooler = ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        pooler.signal(Signal::SIGTERM);
        pooler.wait_log("got SIGTERM, shutting down").await;
        pooler.signal(Signal::SIGTERM);
        assert_eq!(pooler.wait_exit().await, Exit::Code(0));
        assert!(
            pooler
                .log()
                .contains("got SIGTERM while shutting down, fast exit")
        );
        assert_eq!(client.until_closed().await, vec![]);
    })
    .await;
}

#[tokio::test]
async fn sigint_waits_for_servers() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let mut pooler = ini.start().await;
        let mut busy = pooler.client("u_trust", "p").await;
        let _idle = pooler.client("u_trust", "p").await;
        hold_server(&mut busy).await;
        pooler.signal(Signal::SIGINT);
        pooler
            .wait_log(
                "got SIGINT, shutting down, waiting for all servers connections to be released",
            )
            .await;
        busy.ok("SELECT 1").await;
        assert!(pooler.is_running());
        busy.send(&msg::query("COMMIT")).await;
        assert_eq!(busy.until_ready().await.completions(), ["COMMIT"]);
        assert_eq!(pooler.wait_exit().await, Exit::Code(0));
    })
    .await;
}

#[tokio::test]
async fn sigquit_leaves_at_once() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let mut pooler = ini.start().await;
        let mut busy = pooler.client("u_trust", "p").await;
        hold_server(&mut busy).await;
        pooler.signal(Signal::SIGQUIT);
        assert_eq!(pooler.wait_exit().await, Exit::Code(0));
        assert!(pooler.log().contains("got SIGQUIT, fast exit"));
        assert_eq!(busy.until_closed().await, vec![]);
    })
    .await;
}

#[tokio::test]
async fn sigusr1_pauses_and_sigusr2_resumes() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        client.ok("SELECT 1").await;
        pooler.signal(Signal::SIGUSR1);
        pooler.wait_log("got SIGUSR1, pausing all activity").await;
        client.send(&msg::query("SELECT 'held'")).await;
        wait_until("it to wait", || async {
            pooler.pool("p", "u_trust").await.unwrap().clients_waiting == 1
        })
        .await;
        pooler.signal(Signal::SIGUSR1);
        pooler.wait_log("got SIGUSR1, but already paused").await;
        pooler.signal(Signal::SIGUSR2);
        pooler.wait_log("got SIGUSR2, continuing from PAUSE").await;
        assert_eq!(client.until_ready().await.value(), "held");
        pooler.signal(Signal::SIGUSR2);
        pooler.wait_log("got SIGUSR2, but not paused").await;
    })
    .await;
}

#[tokio::test]
async fn it_does_not_start_with_mistakes() {
    bounded(60, async {
        let cases: [fn(&mut Ini); 4] = [
            |ini| _ = ini.set("nonsense", 1),
            |ini| _ = ini.set("pool_mode", "sometimes"),
            |ini| _ = ini.set("query_timeout", "10 parsecs"),
            |ini| _ = ini.database("p", "host=127.0.0.1 nonsense=1"),
        ];
        for spoil in cases {
            let (_, _, mut ini) = setup().await;
            spoil(&mut ini);
            let mut pooler = ini.spawn();
            assert_eq!(pooler.wait_exit().await, Exit::Code(1), "{}", pooler.log());
            assert!(!pooler.log().is_empty());
        }
    })
    .await;
}

#[tokio::test]
async fn a_taken_port_or_a_live_pidfile_is_an_error() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pidfile = ini.dir().join("pooler.pid").display().to_string();
        let _first = ini.set("pidfile", &pidfile).start().await;
        let (_, _, mut other) = setup().await;
        let mut second = other.set("pidfile", &pidfile).spawn();
        assert_eq!(second.wait_exit().await, Exit::Code(1));
        assert!(
            second.log().contains("another instance running"),
            "{}",
            second.log()
        );
        let mut third = other
            .unset("pidfile")
            .set("listen_port", ini.port)
            .unset("unix_socket_dir")
            .set("unix_socket_dir", "")
            .spawn();
        assert_eq!(third.wait_exit().await, Exit::Code(1));
        assert!(third.log().contains("cannot listen on"), "{}", third.log());
    })
    .await;
}

#[tokio::test]
async fn the_log_has_pgbouncers_lines() {
    bounded(60, async {
        let (cluster, db, ini) = setup().await;
        let mut pooler = ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        let port = client.local_port();
        client.ok("SELECT 1").await;
        client.close().await;
        let mut rude = pooler.client("u_trust", "p").await;
        hold_server(&mut rude).await;
        drop(rude);
        pooler.wait_log("closing because: client unexpected eof").await;
        pooler.signal(Signal::SIGQUIT);
        pooler.wait_exit().await;
        let log = pooler.log();
        for line in log.lines().filter(|l| !l.starts_with('\t')) {
            // 2026-11-21 01:02:03.456 UTC [123] LOG …
            let words: Vec<&str> = line.splitn(6, ' ').collect();
            let looks_right = words.len() == 6
                && words[0].len() == 10
                && words[1].len() == 12
                && words[2] == "UTC"
                && words[3] == format!("[{}]", pooler.pid())
                && ["LOG", "WARNING", "ERROR", "FATAL"].contains(&words[4]);
            assert!(looks_right, "{line}");
        }
        for expected in [
            format!("LOG listening on 127.0.0.1:{}", pooler.port),
            format!("LOG listening on unix:{}", pooler.socket().display()),
            "LOG process up: PgBouncer 1.".into(),
            format!(": p/u_trust@127.0.0.1:{port} login attempt: db=p user=u_trust tls=no replication=no"),
            format!(": p/u_trust@127.0.0.1:{} new connection to server (from 127.0.0.1:", cluster.port),
            format!(": p/u_trust@127.0.0.1:{port} closing because: client close request (age="),
            "closing because: client unexpected eof (age=".into(),
        ] {
            assert!(log.contains(&expected), "no {expected:?} in the log of {db}:\n{log}");
        }
    })
    .await;
}
