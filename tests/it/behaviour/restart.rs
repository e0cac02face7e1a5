//! PostgreSQL goes away and comes back, while clients work. Each test has a cluster of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::signal::Signal;

use super::*;
use crate::fixture::*;
use crate::proto::{Conn, Frame, msg};

/// What clients may be told while the server is away. PostgreSQL's own words first, then the pooler's.
const EXPECTED: &[&str] = &[
    "FATAL 57P01 terminating connection",
    "WARNING 57P02",
    "FATAL 57P02",
    "FATAL 57P03",
    "FATAL 57P05",
    "FATAL 08P01 server conn crashed?",
    "FATAL 08P01 server login has been failing",
    "FATAL 08P01 query_wait_timeout",
    "FATAL 08P01 client_login_timeout",
];

/// Logs in and works until told to stop; comes back after each error, which must be one of the expected.
async fn worker(port: u16, done: Arc<AtomicBool>, served: Arc<AtomicUsize>) {
    while !done.load(Ordering::Relaxed) {
        let Err(last) = work(port, &done, &served).await else {
            return;
        };
        let error = last.map_or("closed without a word".to_string(), |f| f.error_text());
        assert!(
            EXPECTED.iter().any(|e| error.starts_with(e)),
            "a client was told: {error}"
        );
        sleep_ms(20).await;
    }
}

/// Queries and transactions on one connection; gives the frame that ended it.
async fn work(port: u16, done: &AtomicBool, served: &AtomicUsize) -> Result<(), Option<Frame>> {
    let mut conn = Conn::try_login(port, "u_trust", "p", None)
        .await
        .map_err(Some)?;
    while !done.load(Ordering::Relaxed) {
        for sql in ["SELECT 1", "BEGIN; SELECT pg_sleep(0.001)", "COMMIT"] {
            conn.send(&msg::query(sql)).await;
            loop {
                let frame = conn.next_frame().await.ok_or(None)?;
                match frame.tag {
                    b'E' => return Err(Some(frame)),
                    b'Z' => break,
                    _ => {}
                }
            }
            served.fetch_add(1, Ordering::Relaxed);
        }
        sleep_ms(1).await;
    }
    conn.close().await;
    Ok(())
}

async fn outage(stop: Signal) {
    let cluster = Cluster::own();
    let db = cluster.fresh_db().await;
    let mut ini = Ini::with_database(&cluster, &db);
    ini.set("default_pool_size", 5)
        .set("query_wait_timeout", 5)
        .set("client_login_timeout", 5)
        .set("max_client_conn", 500);
    let pooler = ini.set_ours("workers", 2).start().await;
    let done = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..20)
        .map(|_| tokio::spawn(worker(pooler.port, done.clone(), served.clone())))
        .collect();
    let progress = async |what: &str| {
        let goal = served.load(Ordering::Relaxed) + 200;
        wait_until_within(40, what, || async {
            served.load(Ordering::Relaxed) >= goal
        })
        .await;
    };
    progress("queries before the outage").await;
    for _ in 0..2 {
        cluster.stop(stop);
        sleep_ms(500).await;
        cluster.wait_for_orphans().await;
        cluster.start();
        progress("queries after the outage").await;
    }
    done.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.expect("every error was an expected one");
    }
    pooler.wait_pool_quiet("p", "u_trust").await;
    assert!(cluster.sessions(&db).await <= 5);
    // Full size can be reached again: no slot leaked.
    let mut holders = Vec::new();
    for _ in 0..5 {
        let mut conn = pooler.client("u_trust", "p").await;
        hold_server(&mut conn).await;
        holders.push(conn);
    }
    assert_eq!(pooler.pool("p", "u_trust").await.unwrap().servers_active, 5);
}

#[tokio::test]
async fn a_restart_under_load() {
    bounded(180, outage(Signal::SIGQUIT)).await;
}

#[tokio::test]
async fn a_crash_under_load() {
    bounded(180, outage(Signal::SIGKILL)).await;
}

#[tokio::test]
async fn a_killed_server_is_told_to_its_client_alone() {
    bounded(60, async {
        let (cluster, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut victim = pooler.client("u_trust", "p").await;
        let mut other = pooler.client("u_trust", "p").await;
        let pid = hold_server(&mut victim).await;
        hold_server(&mut other).await;
        cluster
            .sql("postgres", &format!("SELECT pg_terminate_backend({pid})"))
            .await;
        let frames = victim.until_closed().await;
        let errors: Vec<String> = frames.iter().map(Frame::error_text).collect();
        let expected = [
            "FATAL 57P01 terminating connection due to administrator command",
            "FATAL 08P01 server conn crashed?",
        ];
        assert_eq!(errors, expected);
        other.ok("COMMIT").await;
        // An idle server that dies is nobody's concern.
        let idle = backend(&mut other).await;
        cluster
            .sql("postgres", &format!("SELECT pg_terminate_backend({idle})"))
            .await;
        let listed = || async {
            pooler
                .show("SERVERS")
                .await
                .find(&[("remote_pid", &idle)])
                .is_some()
        };
        wait_until("the pooler to notice", || async { !listed().await }).await;
        assert_ne!(backend(&mut other).await, idle);
    })
    .await;
}
