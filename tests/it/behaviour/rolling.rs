//! Rolling restart: two processes share a TCP port (`so_reuseport`) and form a group of peers; they are replaced one at a time while
//! clients come and go, and nobody notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::fixture::*;
use crate::proto::{Conn, msg};

const CANCELLED: &str = "ERROR 57014 canceling statement due to user request";

/// Two configurations for one port, told apart by their folders.
fn twins(cluster: &Cluster, db: &str) -> [Ini; 2] {
    let mut first = Ini::with_database(cluster, db);
    let mut second = Ini::with_database(cluster, db);
    let port = first.port;
    second.set("listen_port", port);
    second.port = port;
    let socket = |ini: &Ini| format!("host={} port={port}", ini.dir().display());
    let peers = [socket(&first), socket(&second)];
    for (ini, id) in [(&mut first, 1), (&mut second, 2)] {
        let pidfile = ini.dir().join("pooler.pid");
        ini.set("peer_id", id)
            .set("so_reuseport", 1)
            .set("pidfile", pidfile.display())
            .set("max_client_conn", 500)
            .set_ours("workers", 2)
            .peer(1, &peers[0])
            .peer(2, &peers[1]);
    }
    [first, second]
}

/// The load: how much of it has gone well, and when it is to end.
#[derive(Default)]
struct Load {
    done: AtomicBool,
    transactions: AtomicUsize,
    logins: AtomicUsize,
    cancels: AtomicUsize,
}

impl Load {
    fn goes_on(&self) -> bool {
        !self.done.load(Relaxed)
    }
}

/// Logs in, runs a few transactions, leaves, and begins anew. Anything but success is a panic.
async fn customer(port: u16, load: Arc<Load>) {
    while load.goes_on() {
        let mut conn = Conn::login(port, "u_trust", "p", None).await;
        load.logins.fetch_add(1, Relaxed);
        for _ in 0..4 {
            conn.ok("BEGIN").await;
            assert_eq!(conn.ok("SELECT 40 + 2").await.value(), "42");
            conn.ok("COMMIT").await;
            load.transactions.fetch_add(1, Relaxed);
        }
        conn.close().await;
    }
}

/// Runs a query that would take for ever, and cancels it by a connection of which nobody knows to which process it goes.
async fn canceller(port: u16, load: Arc<Load>) {
    while load.goes_on() {
        let mut conn = Conn::login(port, "u_trust", "p", None).await;
        conn.send(&msg::query("SELECT pg_sleep(100)")).await;
        let mut requests = 0;
        loop {
            // The request may come before the query runs, and then has no effect, so it is repeated.
            let mut request = Conn::tcp(port).await;
            request.send(&msg::cancel(&conn.login.key)).await;
            request.until_closed().await;
            requests += 1;
            let answered = tokio::time::timeout(Duration::from_millis(200), conn.has_input());
            if answered.await.is_ok() {
                break;
            }
            assert!(requests < 50, "no request reaches the query");
        }
        assert_eq!(
            conn.until_ready().await.error_text().as_deref(),
            Some(CANCELLED)
        );
        conn.close().await;
        load.cancels.fetch_add(1, Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices() {
    bounded(180, async {
        let cluster = Cluster::own();
        let db = cluster.fresh_db().await;
        let inis = twins(&cluster, &db);
        let port = inis[0].port;
        let mut poolers = Vec::new();
        for ini in &inis {
            poolers.push(ini.start().await);
        }
        let load = Arc::new(Load::default());
        let mut crowd = JoinSet::new();
        for _ in 0..24 {
            crowd.spawn(customer(port, load.clone()));
        }
        for _ in 0..3 {
            crowd.spawn(canceller(port, load.clone()));
        }
        let progress = async || {
            let goal = load.transactions.load(Relaxed) + 100;
            wait_until("transactions", || async {
                load.transactions.load(Relaxed) > goal
            })
            .await;
        };
        for round in 0..6 {
            progress().await;
            let turn = round % 2;
            let old = &mut poolers[turn];
            if round < 3 {
                old.signal(Signal::SIGTERM);
            } else {
                old.console("SHUTDOWN WAIT_FOR_CLIENTS").await;
            }
            let exit = old.wait_exit().await;
            assert_eq!(exit, Exit::Code(0), "{}", old.log());
            assert!(old.log().contains("client connections dropped, exiting"));
            poolers[turn] = inis[turn].start().await;
        }
        progress().await;
        load.done.store(true, Relaxed);
        while let Some(ended) = crowd.join_next().await {
            ended.expect("no client has failed");
        }
        let count = |count: &AtomicUsize| count.load(Relaxed);
        let (logins, cancels) = (count(&load.logins), count(&load.cancels));
        eprintln!("{logins} logins, {cancels} cancels, none failed");
        assert!(
            logins > 200 && cancels > 10,
            "{logins} logins, {cancels} cancels"
        );
    })
    .await;
}

/// Clients that connected before the end began and say what they want only later are served to their end, by the process that has
/// their connection; whoever comes after that by the Unix socket is not.
#[tokio::test]
async fn who_is_there_is_served() {
    not_in_pgbouncer!("it closes its listener with all who wait there");
    bounded(60, async {
        let cluster = Cluster::shared();
        let db = cluster.fresh_db().await;
        let [mut ini, _] = twins(cluster, &db);
        ini.set("tcp_defer_accept", 0);
        let mut pooler = ini.start().await;
        let mut silent = Vec::new();
        for _ in 0..20 {
            silent.push(pooler.raw().await);
        }
        pooler.signal(Signal::SIGTERM);
        pooler.wait_log("got SIGTERM").await;
        let mut late = Conn::unix(&pooler.socket()).await;
        late.send(&msg::startup(&[("user", "u_trust"), ("database", "p")]))
            .await;
        assert_eq!(late.fatal().await, "FATAL 08P01 pooler is shutting down");
        for mut conn in silent {
            conn.log_in("u_trust", "p", None).await;
            assert_eq!(conn.ok("SELECT 1").await.value(), "1");
            conn.close().await;
        }
        assert_eq!(pooler.wait_exit().await, Exit::Code(0));
    })
    .await;
}

/// Without `so_reuseport` nobody else listens: the port is closed at once, but who waits in its queue is served.
#[tokio::test]
async fn alone_the_port_is_closed_at_once() {
    bounded(60, async {
        let cluster = Cluster::shared();
        let ini = Ini::with_database(cluster, "postgres");
        let mut pooler = ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        pooler.signal(Signal::SIGTERM);
        wait_until("the port to be closed", || async {
            TcpStream::connect(("127.0.0.1", ini.port)).await.is_err()
        })
        .await;
        assert_eq!(client.ok("SELECT 1").await.value(), "1");
        client.close().await;
        assert_eq!(pooler.wait_exit().await, Exit::Code(0));
    })
    .await;
}
