//! `shutdown_mode = drain`: SIGTERM, or `SHUTDOWN DRAIN`, closes every client where it loses nothing. What a rolling restart makes of
//! it is in [`super::drain_rolling`].

use nix::sys::signal::Signal;
use tokio::net::TcpStream;

use super::tls::{client_config, over_tls, use_tls};
use super::*;
use crate::fixture::tls::Authority;
use crate::fixture::*;
use crate::proto::{Conn, backend, msg};

const GOODBYE: &str = "FATAL 57P01 terminating connection due to administrator command";
const NOT_LISTENING: &str = "draining: not listening any more";

/// A configuration that drains, with so many workers, a short wait before the listeners close, and a late deadline.
async fn setup_drain(workers: usize) -> (&'static Cluster, String, Ini) {
    let (cluster, db, mut ini) = setup().await;
    drains(&mut ini, workers);
    (cluster, db, ini)
}

fn drains(ini: &mut Ini, workers: usize) {
    ini.set("workers", workers)
        .set("shutdown_mode", "drain")
        .set("drain_lame_duck", "0.2")
        .set("drain_deadline", 40);
}

/// Begins the drain, and waits until clients are being closed.
async fn drain(pooler: &Pooler) {
    pooler.signal(Signal::SIGTERM);
    pooler.wait_log(NOT_LISTENING).await;
}

/// A drain has reached its clients when one that is idle has been closed.
async fn drain_until_closed(pooler: &Pooler, mut idle: Conn) {
    drain(pooler).await;
    assert_eq!(idle.fatal().await, GOODBYE);
}

async fn ended(pooler: &mut Pooler) {
    assert_eq!(pooler.wait_exit().await, Exit::Code(0), "{}", pooler.log());
    let log = pooler.log();
    assert!(log.contains("LOG drained in "), "{log}");
    assert!(!log.contains("drain_deadline is over"), "{log}");
    assert!(!log.contains("pooler error"), "{log}");
}

async fn with_workers<F: Future<Output = ()>>(body: impl Fn(usize) -> F) {
    not_in_pgbouncer!("it cannot drain");
    for workers in [1, 2] {
        bounded(90, body(workers)).await;
    }
}

async fn clients_waiting(pooler: &Pooler, number: usize) {
    wait_until("clients to wait", || async {
        pooler.pool("p", "u_trust").await.unwrap().clients_waiting == number
    })
    .await;
}

/// As long as a load balancer may not know, everybody is served, and nobody is closed: whoever was would come back.
#[tokio::test]
async fn a_lame_duck_serves() {
    with_workers(|workers| async move {
        let (_, _, mut ini) = setup_drain(workers).await;
        let mut pooler = ini.set("drain_lame_duck", 4).start().await;
        let mut old = pooler.client("u_trust", "p").await;
        assert_eq!(pooler.show("STATE").await.rows.len(), 2);
        pooler.signal(Signal::SIGTERM);
        pooler
            .wait_log("draining: listening for 4s more, ending after 40s at the latest")
            .await;
        let mut new = pooler.client("u_trust", "p").await;
        assert_eq!(new.ok("SELECT 'new'").await.value(), "new");
        let mut local = Conn::unix(&pooler.socket()).await;
        local.log_in("u_trust", "p", None).await;
        assert_eq!(local.ok("SELECT 'local'").await.value(), "local");
        let state = pooler.show("STATE").await;
        assert_eq!(state.value("key", "draining", "value"), "yes");
        assert_eq!(state.value("key", "active", "value"), "yes");
        assert_eq!(old.ok("SELECT 'old'").await.value(), "old");
        assert!(!pooler.log().contains(NOT_LISTENING), "{}", pooler.log());
        for conn in [&mut old, &mut new, &mut local] {
            assert_eq!(conn.fatal().await, GOODBYE);
        }
        assert!(pooler.log().contains(NOT_LISTENING));
        let refused = TcpStream::connect(("127.0.0.1", pooler.port)).await;
        assert!(refused.is_err(), "the port is closed");
        ended(&mut pooler).await;
    })
    .await;
}

/// Idle, whatever that looks like: never asked anything, between two queries, over TLS or a Unix socket, after an error.
#[tokio::test]
async fn idle_clients_are_told() {
    with_workers(|workers| async move {
        let (_, _, mut ini) = setup_drain(workers).await;
        let authority = Authority::shared();
        use_tls(&mut ini, authority, "allow");
        let mut pooler = ini.start().await;
        let mut conns = vec![];
        for _ in 0..8 {
            conns.push(pooler.client("u_trust", "p").await);
        }
        for conn in &mut conns[3..] {
            conn.ok("SELECT 1").await;
        }
        conns[3].query("SELECT 1/0").await;
        let mut over = over_tls(&pooler, client_config(authority, None, &[]))
            .await
            .unwrap();
        over.log_in("u_trust", "p", None).await;
        over.ok("SELECT 1").await;
        conns.push(over);
        let mut local = Conn::unix(&pooler.socket()).await;
        local.log_in("u_trust", "p", None).await;
        conns.push(local);
        drain(&pooler).await;
        for conn in &mut conns {
            assert_eq!(conn.fatal().await, GOODBYE);
        }
        drop(conns);
        ended(&mut pooler).await;
    })
    .await;
}

/// In session pooling a client keeps its server, but outside a transaction it is as idle as any.
#[tokio::test]
async fn sessions_end_between_transactions() {
    with_workers(|workers| async move {
        let (_, _, mut ini) = setup_drain(workers).await;
        let mut pooler = ini.set("pool_mode", "session").start().await;
        let mut idle = pooler.client("u_trust", "p").await;
        idle.ok("CREATE TEMP TABLE mine (a int)").await;
        let mut busy = pooler.client("u_trust", "p").await;
        hold_server(&mut busy).await;
        drain_until_closed(&pooler, idle).await;
        busy.ok("SELECT 1").await;
        busy.send(&msg::query("COMMIT")).await;
        assert_eq!(busy.until_ready().await.completions(), ["COMMIT"]);
        assert_eq!(busy.fatal().await, GOODBYE);
        drop(busy);
        ended(&mut pooler).await;
    })
    .await;
}

#[tokio::test]
async fn transactions_finish() {
    with_workers(|workers| async move {
        let (cluster, db, ini) = setup_drain(workers).await;
        cluster.sql(&db, "CREATE TABLE t (a int)").await;
        cluster.sql(&db, "GRANT ALL ON t TO public").await;
        let mut pooler = ini.start().await;
        let idle = pooler.client("u_trust", "p").await;
        let mut busy = pooler.client("u_trust", "p").await;
        let mut failed = pooler.client("u_trust", "p").await;
        hold_server(&mut busy).await;
        hold_server(&mut failed).await;
        failed.query("SELECT 1/0").await;
        drain_until_closed(&pooler, idle).await;
        for n in 0..5 {
            busy.ok(&format!("INSERT INTO t VALUES ({n})")).await;
        }
        busy.ok("COMMIT").await;
        assert_eq!(busy.fatal().await, GOODBYE);
        failed.ok("ROLLBACK").await;
        assert_eq!(failed.fatal().await, GOODBYE);
        drop((busy, failed));
        ended(&mut pooler).await;
        let count = cluster.sql(&db, "SELECT count(*) FROM t").await;
        assert_eq!(count.value(), "5");
    })
    .await;
}

/// Whoever waits for a server has sent a query, and gets its reply.
#[tokio::test]
async fn the_queue_is_served() {
    with_workers(|workers| async move {
        let (_, _, mut ini) = setup_drain(workers).await;
        let mut pooler = ini.set("default_pool_size", 1).start().await;
        let mut holder = pooler.client("u_trust", "p").await;
        hold_server(&mut holder).await;
        let mut queue = vec![];
        for n in 0..5 {
            let mut conn = pooler.client("u_trust", "p").await;
            conn.send(&msg::query(&format!("SELECT {n}"))).await;
            queue.push(conn);
        }
        clients_waiting(&pooler, 5).await;
        let idle = pooler.client("u_trust", "p").await;
        drain_until_closed(&pooler, idle).await;
        holder.ok("COMMIT").await;
        for (n, conn) in queue.iter_mut().enumerate() {
            assert_eq!(conn.until_ready().await.value(), n.to_string());
            assert_eq!(conn.fatal().await, GOODBYE);
        }
        assert_eq!(holder.fatal().await, GOODBYE);
        drop((holder, queue));
        ended(&mut pooler).await;
    })
    .await;
}

/// Behind a pause too: RESUME is allowed in a drain, and whoever waited for it is served.
#[tokio::test]
async fn a_pause_can_end() {
    with_workers(|workers| async move {
        let (_, _, ini) = setup_drain(workers).await;
        let mut pooler = ini.start().await;
        let mut waiting = pooler.client("u_trust", "p").await;
        let idle = pooler.client("u_trust", "p").await;
        pooler.console("PAUSE").await;
        waiting.send(&msg::query("SELECT 'patience'")).await;
        clients_waiting(&pooler, 1).await;
        drain_until_closed(&pooler, idle).await;
        assert!(pooler.is_running());
        let resumed = pooler.console("RESUME").await;
        assert_eq!(resumed.completions(), ["RESUME"]);
        assert_eq!(waiting.until_ready().await.value(), "patience");
        assert_eq!(waiting.fatal().await, GOODBYE);
        drop(waiting);
        ended(&mut pooler).await;
    })
    .await;
}

#[tokio::test]
async fn a_copy_finishes() {
    with_workers(|workers| async move {
        let (cluster, db, ini) = setup_drain(workers).await;
        cluster.sql(&db, "CREATE TABLE t (a int)").await;
        cluster.sql(&db, "GRANT ALL ON t TO public").await;
        let mut pooler = ini.start().await;
        let mut copying = pooler.client("u_trust", "p").await;
        copying.send(&msg::query("COPY t FROM STDIN")).await;
        assert!(copying.frame().await.is(b'G'));
        copying.send(&msg::copy_data(b"1\n")).await;
        let idle = pooler.client("u_trust", "p").await;
        drain_until_closed(&pooler, idle).await;
        copying.send(&msg::copy_data(b"2\n")).await;
        copying.send(&msg::copy_done()).await;
        assert_eq!(copying.until_ready().await.completions(), ["COPY 2"]);
        assert_eq!(copying.fatal().await, GOODBYE);
        drop(copying);
        ended(&mut pooler).await;
        let count = cluster.sql(&db, "SELECT count(*) FROM t").await;
        assert_eq!(count.value(), "2");
    })
    .await;
}

/// What was sent together is answered together: queries in one write, and messages that still wait for their Sync.
#[tokio::test]
async fn pipelines_are_answered() {
    with_workers(|workers| async move {
        let (_, _, ini) = setup_drain(workers).await;
        let mut pooler = ini.start().await;
        let idle = pooler.client("u_trust", "p").await;
        let mut locked = pooler.client("u_trust", "p").await;
        locked.ok("BEGIN").await;
        locked.ok("SELECT pg_advisory_xact_lock(1)").await;
        let mut pipeline = pooler.client("u_trust", "p").await;
        let queries = [
            "SELECT pg_advisory_xact_lock(1)",
            "SELECT 'two'",
            "SELECT 'three'",
        ];
        pipeline.send(&queries.map(msg::query).concat()).await;
        let mut unsynced = pooler.client("u_trust", "p").await;
        let extended = [
            msg::parse("", "SELECT 'unsynced'", &[]),
            msg::bind("", "", &[]),
            msg::execute("", 0),
            msg::flush(),
        ];
        unsynced.send(&extended.concat()).await;
        for tag in *b"12DC" {
            assert!(unsynced.frame().await.is(tag));
        }
        drain_until_closed(&pooler, idle).await;
        locked.ok("COMMIT").await;
        assert_eq!(pipeline.until_ready().await.rows().len(), 1);
        assert_eq!(pipeline.until_ready().await.value(), "two");
        assert_eq!(pipeline.until_ready().await.value(), "three");
        unsynced.send(&msg::sync()).await;
        assert!(unsynced.frame().await.is(b'Z'));
        for conn in [&mut pipeline, &mut unsynced, &mut locked] {
            assert_eq!(conn.fatal().await, GOODBYE);
        }
        drop((pipeline, unsynced, locked));
        ended(&mut pooler).await;
    })
    .await;
}

/// A client that has begun to say something is not idle: it is heard to the end, and answered.
#[tokio::test]
async fn half_a_message_is_heard_out() {
    with_workers(|workers| async move {
        let (_, _, ini) = setup_drain(workers).await;
        let mut pooler = ini.start().await;
        let message = msg::query("SELECT 'the whole of it'");
        let mut conns = vec![];
        for cut in [1, 4, 12] {
            let mut conn = pooler.client("u_trust", "p").await;
            conn.send(&message[..cut]).await;
            conns.push((cut, conn));
        }
        let idle = pooler.client("u_trust", "p").await;
        drain_until_closed(&pooler, idle).await;
        for (cut, conn) in &mut conns {
            conn.send(&message[*cut..]).await;
            assert_eq!(conn.until_ready().await.value(), "the whole of it");
            assert_eq!(conn.fatal().await, GOODBYE);
        }
        drop(conns);
        ended(&mut pooler).await;
    })
    .await;
}

/// Whoever says something after the goodbye reads the goodbye, not a reset, however much it said; and nothing of it is executed.
#[tokio::test]
async fn what_comes_too_late_is_not_executed() {
    with_workers(|workers| async move {
        let (cluster, db, ini) = setup_drain(workers).await;
        cluster.sql(&db, "CREATE TABLE t (a text)").await;
        cluster.sql(&db, "GRANT ALL ON t TO public").await;
        let mut pooler = ini.start().await;
        let mut late = pooler.client("u_trust", "p").await;
        let mut large = pooler.client("u_trust", "p").await;
        drain(&pooler).await;
        late.has_input().await;
        large.has_input().await;
        late.send(&msg::query("INSERT INTO t VALUES ('late')"))
            .await;
        let text = "x".repeat(500_000);
        large
            .send(&msg::query(&format!("INSERT INTO t VALUES ('{text}')")))
            .await;
        assert_eq!(late.fatal().await, GOODBYE);
        assert_eq!(large.fatal().await, GOODBYE);
        drop((late, large));
        ended(&mut pooler).await;
        let count = cluster.sql(&db, "SELECT count(*) FROM t").await;
        assert_eq!(count.value(), "0");
    })
    .await;
}

/// A reply that the client is slow to read is sent to its end before the goodbye.
#[tokio::test]
async fn a_slow_reader_gets_all_of_its_reply() {
    with_workers(|workers| async move {
        let (_, _, ini) = setup_drain(workers).await;
        let mut pooler = ini.start().await;
        let mut slow = pooler.client("u_trust", "p").await;
        let rows = "SELECT repeat('x', 1000) FROM generate_series(1, 20000)";
        slow.send(&msg::query(rows)).await;
        slow.has_input().await;
        let idle = pooler.client("u_trust", "p").await;
        drain_until_closed(&pooler, idle).await;
        assert_eq!(slow.until_ready().await.rows().len(), 20_000);
        assert_eq!(slow.fatal().await, GOODBYE);
        drop(slow);
        ended(&mut pooler).await;
    })
    .await;
}

/// The deadline is for everybody: who is in a transaction, in the middle of a message, in the queue, or has not logged in yet.
#[tokio::test]
async fn the_deadline_ends_it() {
    with_workers(|workers| async move {
        let (cluster, db, mut ini) = setup_drain(workers).await;
        cluster.sql(&db, "CREATE TABLE t (a int)").await;
        cluster.sql(&db, "GRANT ALL ON t TO public").await;
        ini.set("drain_deadline", 2)
            .set("default_pool_size", 1)
            .set("tcp_defer_accept", 0);
        let mut pooler = ini.start().await;
        let mut busy = pooler.client("u_trust", "p").await;
        hold_server(&mut busy).await;
        busy.ok("INSERT INTO t VALUES (1)").await;
        let mut half = pooler.client("u_trust", "p").await;
        half.send(&msg::query("SELECT 1")[..3]).await;
        let mut queued = pooler.client("u_trust", "p").await;
        queued
            .send(&msg::query("INSERT INTO t VALUES (2)"))
            .await;
        clients_waiting(&pooler, 1).await;
        let mut silent = pooler.raw().await;
        drain(&pooler).await;
        for conn in [&mut busy, &mut half, &mut queued] {
            assert_eq!(conn.fatal().await, GOODBYE);
        }
        drop((busy, half, queued));
        assert_eq!(silent.until_closed().await, []);
        assert_eq!(pooler.wait_exit().await, Exit::Code(0));
        let log = pooler.log();
        let over = "WARNING draining: drain_deadline is over, closing 3 clients left (1 with a server, 1 waiting for one)";
        assert!(log.contains(over), "{log}");
        assert!(log.contains("LOG drained in "), "{log}");
        let count = cluster.sql(&db, "SELECT count(*) FROM t").await;
        assert_eq!(count.value(), "0");
    })
    .await;
}

#[tokio::test]
async fn a_second_signal_does_not_wait() {
    not_in_pgbouncer!("it cannot drain");
    for (signal, line) in [
        (
            Signal::SIGTERM,
            "got SIGTERM while shutting down, fast exit",
        ),
        (Signal::SIGINT, "got SIGINT while shutting down, fast exit"),
        (Signal::SIGQUIT, "got SIGQUIT, fast exit"),
    ] {
        bounded(60, async {
            let (_, _, ini) = setup_drain(1).await;
            let mut pooler = ini.start().await;
            let mut busy = pooler.client("u_trust", "p").await;
            hold_server(&mut busy).await;
            drain(&pooler).await;
            pooler.signal(signal);
            assert_eq!(pooler.wait_exit().await, Exit::Code(0));
            assert!(pooler.log().contains(line), "{}", pooler.log());
            assert_eq!(busy.until_closed().await, vec![]);
        })
        .await;
    }
}

/// The console can order it too, whatever `shutdown_mode` says. The signal that usually follows does not cut it short; a second one does.
#[tokio::test]
async fn by_the_console() {
    with_workers(|workers| async move {
        let (_, _, mut ini) = setup_drain(workers).await;
        let mut pooler = ini.set("shutdown_mode", "pgbouncer").start().await;
        let idle = pooler.client("u_trust", "p").await;
        let mut busy = pooler.client("u_trust", "p").await;
        hold_server(&mut busy).await;
        let mut admin = pooler.admin().await;
        let ordered = admin.query("SHUTDOWN DRAIN").await;
        assert_eq!(ordered.completions(), ["SHUTDOWN"]);
        pooler.wait_log("SHUTDOWN DRAIN command issued").await;
        drain_until_closed(&pooler, idle).await;
        pooler
            .wait_log("got SIGTERM while shutting down, draining")
            .await;
        // Another graceful order changes nothing.
        admin.query("SHUTDOWN WAIT_FOR_SERVERS").await;
        let state = Table::new(&admin.query("SHOW STATE").await);
        assert_eq!(state.value("key", "draining", "value"), "yes");
        assert_eq!(state.value("key", "paused", "value"), "no");
        busy.ok("COMMIT").await;
        assert_eq!(busy.fatal().await, GOODBYE);
        drop(busy);
        // A console is no client: nobody waits for it.
        ended(&mut pooler).await;
        assert_eq!(admin.until_closed().await, vec![]);
    })
    .await;
}

/// An end that might take for ever can be made a drain: by the console, and by the signal.
#[tokio::test]
async fn in_place_of_a_wait() {
    not_in_pgbouncer!("it cannot drain");
    for by_signal in [false, true] {
        bounded(60, async {
            let (_, _, ini) = setup_drain(1).await;
            let mut pooler = ini.start().await;
            let mut idle = pooler.client("u_trust", "p").await;
            let mut admin = pooler.admin().await;
            admin.query("SHUTDOWN WAIT_FOR_CLIENTS").await;
            assert_eq!(idle.ok("SELECT 'still here'").await.value(), "still here");
            if by_signal {
                pooler.signal(Signal::SIGTERM);
            } else {
                admin.query("SHUTDOWN DRAIN").await;
            }
            pooler
                .wait_log("draining: not listening any more, ending")
                .await;
            assert_eq!(idle.fatal().await, GOODBYE);
            drop(idle);
            ended(&mut pooler).await;
        })
        .await;
    }
}

/// SHUTDOWN, and a reload, work as ever.
#[tokio::test]
async fn a_shutdown_is_still_at_once() {
    not_in_pgbouncer!("it cannot drain");
    bounded(60, async {
        let (_, _, mut ini) = setup_drain(1).await;
        let mut pooler = ini.set("shutdown_mode", "pgbouncer").start().await;
        ini.set("shutdown_mode", "drain").write();
        pooler.console("RELOAD").await;
        let mut busy = pooler.client("u_trust", "p").await;
        hold_server(&mut busy).await;
        drain(&pooler).await;
        let mut admin = pooler.admin().await;
        admin.send(&msg::query("SHUTDOWN")).await;
        assert_eq!(pooler.wait_exit().await, Exit::Code(0));
    })
    .await;
}

/// Nothing is executed whose reply is not delivered: clients ask and ask while they are being closed, and the server counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_is_answered_or_never_executed() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    not_in_pgbouncer!("it cannot drain");
    for workers in [1, 2] {
        bounded(90, async {
            let executed = Arc::new(AtomicUsize::new(0));
            let count = executed.clone();
            let script = Script::start(move |mut peer| {
                let count = count.clone();
                async move {
                    peer.log_in().await?;
                    loop {
                        let text = peer.query().await?;
                        count.fetch_add(1, SeqCst);
                        peer.send(backend::value(&text)).await?;
                    }
                }
            })
            .await;
            let mut ini = Ini::new();
            drains(&mut ini, workers);
            ini.database("p", script.entry())
                .set("max_client_conn", 300)
                .set("drain_deadline", 8);
            let mut pooler = ini.start().await;
            let mut clients = tokio::task::JoinSet::new();
            for n in 0..60_u64 {
                let mut conn = pooler.client("u_trust", "p").await;
                clients.spawn(async move {
                    let mut answered = 0;
                    loop {
                        conn.send(&msg::query("count me")).await;
                        let frame = conn.next_frame().await.expect("an answer or a goodbye");
                        if frame.is(b'E') {
                            assert_eq!(frame.error_text(), GOODBYE);
                            return answered;
                        }
                        conn.until_ready().await;
                        answered += 1;
                        sleep_ms(n % 7).await;
                    }
                });
            }
            drain(&pooler).await;
            let mut answered = 0;
            while let Some(ended) = clients.join_next().await {
                answered += ended.expect("no client fails otherwise");
            }
            ended(&mut pooler).await;
            assert_eq!(executed.load(SeqCst), answered);
        })
        .await;
    }
}
