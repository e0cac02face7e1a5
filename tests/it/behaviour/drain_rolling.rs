//! A rolling restart behind a load balancer: two instances that drain are replaced in turn, again and again, under load, and no transaction
//! is lost. The balancer, which is written here, sends new connections to instances that are ready, and learns of that with a delay.
//!
//! Two loads. pgbench connects anew for every transaction and gives up at the first error: it must never meet one. Clients that
//! stay connected are closed some time or other, and may then repeat what they had begun: that must have left no trace.

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use nix::sys::signal::Signal;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, NoTls, Statement};

use super::http::try_get;
use crate::fixture::*;

/// How often the balancer asks whether an instance is ready.
const PROBE: Duration = Duration::from_millis(200);
/// The longest that anything here may take.
const TEST_SECS: u64 = 300;

/// One place behind the balancer, which one instance after the other takes.
struct Place {
    port: u16,
    metrics_port: u16,
    ready: AtomicBool,
}

/// Sends connections to the places in turn, as long as they are ready.
struct Balancer {
    places: [Place; 2],
    next: AtomicUsize,
    /// Connections that nobody took: a client would have seen an error.
    failed: AtomicUsize,
}

impl Balancer {
    fn new(ports: [(u16, u16); 2]) -> Arc<Balancer> {
        Arc::new(Balancer {
            places: ports.map(|(port, metrics_port)| Place {
                port,
                metrics_port,
                ready: AtomicBool::new(false),
            }),
            next: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
        })
    }

    /// Listens; gives the port.
    async fn listen(self: &Arc<Self>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let balancer = self.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(balancer.clone().serve(client));
            }
        });
        port
    }

    /// No second try at another instance: one that is ready, or was a moment ago, has to take it.
    async fn serve(self: Arc<Self>, mut client: TcpStream) {
        let turn = self.next.fetch_add(1, SeqCst);
        let places = [turn, turn + 1].map(|n| &self.places[n % 2]);
        let place = places.into_iter().find(|place| place.ready.load(SeqCst));
        let server = match place {
            Some(place) => TcpStream::connect(("127.0.0.1", place.port)).await.ok(),
            None => None,
        };
        let Some(mut server) = server else {
            self.failed.fetch_add(1, SeqCst);
            return;
        };
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    }
}

/// What the clients know of their transactions.
#[derive(Default)]
struct Ledger {
    done: AtomicBool,
    next_id: AtomicI64,
    /// Ids whose insertion has been acknowledged.
    acknowledged: Mutex<Vec<i64>>,
    /// How often a client was closed and connected anew.
    goodbyes: AtomicUsize,
    /// How many of those had just sent something.
    crossed: AtomicUsize,
}

/// How a client does its transactions.
#[derive(Clone, Copy)]
enum Habit {
    /// One statement, by itself.
    Single,
    /// Several in a block.
    Block,
    /// Two statements that are sent together, each a transaction.
    Together,
    /// One statement, and a long rest.
    Rare,
}

/// A connected client, and what its connection will have ended with.
struct Session {
    client: Client,
    connection: tokio::task::JoinHandle<Result<(), Error>>,
    /// Prepared once: the driver drops a statement by a message whose answer it ignores, were it a goodbye.
    insert: Option<Statement>,
}

async fn connect(port: u16) -> Session {
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(port)
        .user("u_trust")
        .dbname("p");
    let (client, connection) = config.connect(NoTls).await.expect("somebody is ready");
    Session {
        client,
        connection: tokio::spawn(connection),
        insert: None,
    }
}

impl Session {
    /// The connection has ended, which nothing but a goodbye may have done: it was the answer to a statement that crossed it (and what was
    /// sent behind that was only told that the connection is no more), or it came when nothing was asked.
    async fn after_goodbye(self, met: Option<Error>) {
        drop(self.client);
        let ended = self.connection.await.unwrap().err();
        let is_goodbye = |error: &Error| error.code() == Some(&SqlState::ADMIN_SHUTDOWN);
        let errors: Vec<Error> = met.into_iter().chain(ended).collect();
        assert!(errors.iter().any(is_goodbye), "{errors:?}");
        let harmless = |error: &Error| is_goodbye(error) || error.is_closed();
        assert!(errors.iter().all(harmless), "{errors:?}");
    }
}

/// Works until the end of the test, with one connection after the other.
async fn customer(port: u16, habit: Habit, ledger: Arc<Ledger>) {
    let mut session = connect(port).await;
    let mut ids = Vec::new();
    while !ledger.done.load(SeqCst) {
        // What has not been acknowledged is tried again, under the same id.
        while ids.len() < 2 {
            ids.push(ledger.next_id.fetch_add(1, SeqCst));
        }
        let met = work(&mut session, habit, &mut ids, &ledger).await.err();
        if met.is_some() || session.client.is_closed() {
            let crossed = met.as_ref().is_some_and(|error| !error.is_closed());
            ledger.crossed.fetch_add(usize::from(crossed), SeqCst);
            ledger.goodbyes.fetch_add(1, SeqCst);
            session.after_goodbye(met).await;
            session = connect(port).await;
        }
    }
}

/// Inserts the ids, and strikes out those that have been acknowledged. The error is one of a statement that begins a transaction.
async fn work(
    session: &mut Session,
    habit: Habit,
    ids: &mut Vec<i64>,
    ledger: &Ledger,
) -> Result<(), Error> {
    let client = &session.client;
    if session.insert.is_none() {
        session.insert = Some(client.prepare("INSERT INTO t VALUES ($1)").await?);
    }
    let insert = session.insert.as_ref().expect("just prepared");
    let acknowledge = |id: i64| ledger.acknowledged.lock().push(id);
    match habit {
        Habit::Single | Habit::Rare => {
            client.execute(insert, &[&ids[0]]).await?;
            acknowledge(ids.remove(0));
            let pause = if matches!(habit, Habit::Rare) {
                1500
            } else {
                5
            };
            sleep_ms(pause).await;
        }
        Habit::Block => {
            client.batch_execute("BEGIN").await?;
            // From here on nothing may go wrong.
            for id in ids.iter() {
                client
                    .execute(insert, &[id])
                    .await
                    .expect("in a transaction");
                sleep_ms(3).await;
            }
            client.batch_execute("COMMIT").await.expect("at its end");
            ids.drain(..).for_each(acknowledge);
        }
        Habit::Together => {
            let texts = [ids[0], ids[1]].map(|id| format!("INSERT INTO t VALUES ({id})"));
            let (first, second) = tokio::join!(
                client.batch_execute(&texts[0]),
                client.batch_execute(&texts[1])
            );
            if second.is_ok() {
                acknowledge(ids.remove(1));
            }
            if first.is_ok() {
                acknowledge(ids.remove(0));
            }
            first.and(second)?;
            sleep_ms(2).await;
        }
    }
    Ok(())
}

/// Runs pgbench, which connects for every transaction, again and again; gives how many transactions there were.
fn bench(port: u16, script: String, ledger: Arc<Ledger>) -> std::thread::JoinHandle<usize> {
    const CLIENTS: usize = 4;
    const EACH: usize = 25;
    std::thread::spawn(move || {
        let mut transactions = 0;
        while !ledger.done.load(SeqCst) {
            let mut command = Command::new(postgres_bin("pgbench"));
            become_unprivileged(&mut command)
                .args([
                    "-n",
                    "-C",
                    "-h",
                    "127.0.0.1",
                    "-U",
                    "u_trust",
                    "-f",
                    &script,
                ])
                .args(["-p", &port.to_string()])
                .args(["-c", &CLIENTS.to_string(), "-t", &EACH.to_string()])
                .arg("p")
                .stdin(Stdio::null());
            let output = command.output().expect("pgbench runs");
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            assert!(output.status.success(), "{text}");
            assert!(
                !text.contains("abort") && !text.contains("error:"),
                "{text}"
            );
            transactions += CLIENTS * EACH;
        }
        transactions
    })
}

/// Whether the instance at a place says that it is ready, as a probe asks it.
async fn is_ready(place: &Place) -> bool {
    let answer = try_get(place.metrics_port, "/readyz").await;
    answer.is_some_and(|answer| answer.status == 200)
}

/// The balancer learns what an instance says of itself, some time later.
async fn learn(place: &Place, ready: bool) {
    while is_ready(place).await != ready {
        tokio::time::sleep(PROBE).await;
    }
    tokio::time::sleep(PROBE).await;
    place.ready.store(ready, SeqCst);
}

/// The rows of a table that begin with what a test has told to be there: how often each is.
async fn rows(cluster: &Cluster, db: &str) -> HashMap<i64, usize> {
    let table = cluster
        .sql(db, "SELECT id, count(*) FROM t GROUP BY id")
        .await;
    let number = |text: &Option<String>| text.as_ref().unwrap().parse::<i64>().unwrap();
    let rows = table.rows();
    rows.iter()
        .map(|row| (number(&row[0]), number(&row[1]) as usize))
        .collect()
}

async fn no_transaction_is_lost(mode: &str, workers: usize, restarts: usize) {
    let cluster = Cluster::own();
    let db = cluster.fresh_db().await;
    cluster
        .sql(
            &db,
            "CREATE TABLE t (id bigint); CREATE TABLE bench (a int); GRANT ALL ON t, bench TO public",
        )
        .await;
    let mut inis = [0, 1].map(|_| Ini::with_database(&cluster, &db));
    let metrics_ports = [free_port(), free_port()];
    for (ini, port) in inis.iter_mut().zip(metrics_ports) {
        ini.set("workers", workers)
            .set("metrics_port", port)
            .set("pool_mode", mode)
            .set("default_pool_size", if mode == "session" { 60 } else { 8 })
            .set("max_client_conn", 500)
            .set("shutdown_mode", "drain")
            .set("drain_lame_duck", 2)
            .set("drain_deadline", 14);
    }
    let balancer = Balancer::new([0, 1].map(|at| (inis[at].port, metrics_ports[at])));
    let places = &balancer.places;
    let mut poolers = Vec::new();
    for (ini, place) in inis.iter().zip(places) {
        poolers.push(ini.start().await);
        learn(place, true).await;
    }
    let port = balancer.listen().await;
    let ledger = Arc::new(Ledger::default());
    let script = inis[0].file(
        "bench.sql",
        "BEGIN;\nINSERT INTO bench VALUES (1);\nSELECT 1;\nCOMMIT;\n",
    );
    let bench = bench(port, script, ledger.clone());
    let mut crowd = JoinSet::new();
    let habits = [Habit::Single, Habit::Block, Habit::Together, Habit::Rare];
    for n in 0..32 {
        crowd.spawn(customer(port, habits[n % 4], ledger.clone()));
    }
    for restart in 0..restarts {
        let at = restart % 2;
        let goal = ledger.acknowledged.lock().len() + 200;
        wait_until("transactions", || async {
            ledger.acknowledged.lock().len() > goal
        })
        .await;
        let old = &mut poolers[at];
        old.signal(Signal::SIGTERM);
        learn(&places[at], false).await;
        assert_eq!(old.wait_exit().await, Exit::Code(0), "{}", old.log());
        let log = old.log();
        assert!(
            log.contains("LOG drained in ") && !log.contains("is over"),
            "{log}"
        );
        poolers[at] = inis[at].start().await;
        learn(&places[at], true).await;
    }
    ledger.done.store(true, SeqCst);
    while let Some(ended) = crowd.join_next().await {
        ended.expect("no client has failed");
    }
    let benched = tokio::task::spawn_blocking(|| bench.join().expect("pgbench has met no error"));
    let benched = benched.await.unwrap();
    assert_eq!(balancer.failed.load(SeqCst), 0);

    let acknowledged = ledger.acknowledged.lock().clone();
    let mut there = rows(&cluster, &db).await;
    for id in &acknowledged {
        assert_eq!(there.remove(id), Some(1), "of the acknowledged id {id}");
    }
    assert!(there.is_empty(), "never acknowledged: {there:?}");
    let rows = cluster.sql(&db, "SELECT count(*) FROM bench").await.value();
    assert_eq!(rows, benched.to_string());
    let (goodbyes, crossed) = (ledger.goodbyes.load(SeqCst), ledger.crossed.load(SeqCst));
    eprintln!(
        "{} transactions and {benched} of pgbench, {goodbyes} goodbyes, {crossed} of which crossed a query",
        acknowledged.len()
    );
    assert!(goodbyes >= restarts && benched > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_two_workers() {
    not_in_pgbouncer!("it cannot drain");
    bounded(TEST_SECS, no_transaction_is_lost("transaction", 2, 4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_worker() {
    not_in_pgbouncer!("it cannot drain");
    bounded(TEST_SECS, no_transaction_is_lost("transaction", 1, 4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_session_mode() {
    not_in_pgbouncer!("it cannot drain");
    bounded(TEST_SECS, no_transaction_is_lost("session", 2, 2)).await;
}
