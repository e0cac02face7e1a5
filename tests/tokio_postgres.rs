//! tokio-postgres through the pooler: typed and prepared statements, pipelining by many futures, portals, COPY, cancel,
//! notifications. One of the driver tests: `tests/drivers/run.sh` starts PostgreSQL and the pooler and sets `PGWEIR_DSN`.
//! Alone, every test here is ignored, or skipped in so many words. The modules say in which pool modes their tests are valid; the
//! runner picks them by name.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client, IsolationLevel, NoTls, SimpleQueryMessage};

/// The longest any one check may take.
const CHECK_TIME_MAX: Duration = Duration::from_secs(60);

/// Runs `body` if the pooler under test is there.
fn check<F: Future<Output = ()>>(body: impl FnOnce(String) -> F) {
    let Ok(dsn) = std::env::var("PGWEIR_DSN") else {
        eprintln!("skipped: PGWEIR_DSN is not set; tests/drivers/run.sh sets it");
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime
        .block_on(async { timeout(CHECK_TIME_MAX, body(dsn)).await })
        .expect("the check takes too long");
}

/// A client whose connection runs in a task of its own.
async fn connect(dsn: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls)
        .await
        .expect("the pooler lets us in");
    tokio::spawn(connection);
    client
}

async fn number(client: &Client, sql: &str, value: i32) -> i32 {
    let row = client.query_one(sql, &[&value]).await.expect("one row");
    row.get(0)
}

/// Makes a table anew; each check has its own.
async fn table(client: &Client, name: &str, columns: &str) {
    client
        .batch_execute(&format!("DROP TABLE IF EXISTS {name}"))
        .await
        .expect("dropped");
    client
        .batch_execute(&format!("CREATE TABLE {name} ({columns})"))
        .await
        .expect("created");
}

fn sqlstate(error: &tokio_postgres::Error) -> &SqlState {
    error
        .code()
        .unwrap_or_else(|| panic!("no SQLSTATE: {error}"))
}

/// Valid in session, transaction and statement mode.
mod every_mode {
    use super::*;

    #[test]
    #[ignore = "tests/drivers/run.sh starts what it needs"]
    fn values_come_back_as_sent() {
        check(|dsn| async move {
            let client = connect(&dsn).await;
            for turn in 0..3_i64 {
                let bytes = vec![0_u8, 1, 255, 13];
                let array = vec![Some(1_i32), None, Some(3)];
                let row = client
                .query_one(
                    "SELECT $1::int8, $2::text, $3::bytea, $4::float8, $5::int4[], $6::text, $7::bool",
                    &[&turn, &"naïve 漢字", &bytes, &1.1_f64, &array, &None::<String>, &true],
                )
                .await
                .expect("one row");
                assert_eq!(row.get::<_, i64>(0), turn);
                assert_eq!(row.get::<_, &str>(1), "naïve 漢字");
                assert_eq!(row.get::<_, Vec<u8>>(2), bytes);
                assert_eq!(row.get::<_, f64>(3), 1.1);
                assert_eq!(row.get::<_, Vec<Option<i32>>>(4), array);
                assert_eq!(row.get::<_, Option<String>>(5), None);
                assert!(row.get::<_, bool>(6));
            }
        });
    }

    #[test]
    #[ignore = "tests/drivers/run.sh starts what it needs"]
    fn prepared_statements_of_many_clients() {
        check(|dsn| async move {
            let mut clients = Vec::new();
            for which in 0..3 {
                let client = connect(&dsn).await;
                // tokio-postgres counts its statement names per process: s0, s1, ….
                let first = client
                    .prepare(&format!("SELECT $1::int * 10 + {which}"))
                    .await
                    .expect("prepared");
                let second = client
                    .prepare_typed(&format!("SELECT $1 - {which}"), &[Type::INT4])
                    .await
                    .expect("prepared");
                clients.push((which, client, first, second));
            }
            for turn in 0..30_i32 {
                for (which, client, first, second) in &clients {
                    let row = client.query_one(first, &[&turn]).await.expect("one row");
                    assert_eq!(row.get::<_, i32>(0), turn * 10 + which);
                    let row = client.query_one(second, &[&turn]).await.expect("one row");
                    assert_eq!(row.get::<_, i32>(0), turn - which);
                }
            }
        });
    }

    #[test]
    #[ignore = "tests/drivers/run.sh starts what it needs"]
    fn more_statements_than_the_pooler_keeps() {
        check(|dsn| async move {
            let client = connect(&dsn).await;
            let mut statements = Vec::new();
            for which in 0..150_i32 {
                let sql = format!("SELECT $1::int + {which}");
                statements.push((which, client.prepare(&sql).await.expect("prepared")));
            }
            for turn in 0..2_i32 {
                for (which, statement) in &statements {
                    let row = client
                        .query_one(statement, &[&turn])
                        .await
                        .expect("one row");
                    assert_eq!(row.get::<_, i32>(0), turn + which);
                }
            }
        });
    }

    #[test]
    #[ignore = "tests/drivers/run.sh starts what it needs"]
    fn pipelined_queries_are_answered_in_order() {
        check(|dsn| async move {
            let client = connect(&dsn).await;
            let statement = client
                .prepare("SELECT $1::int, repeat('x', $1 % 50 * 100)")
                .await
                .expect("prepared");
            for _ in 0..5 {
                let numbers: Vec<i32> = (0..200).collect();
                let queries = numbers
                    .iter()
                    .map(|n| async { (*n, client.query_one(&statement, &[n]).await) });
                for (n, row) in join_all(queries).await {
                    let row = row.expect("one row");
                    assert_eq!(row.get::<_, i32>(0), n);
                    assert_eq!(row.get::<_, &str>(1).len() as i32, n % 50 * 100);
                }
            }
        });
    }

    #[test]
    #[ignore = "tests/drivers/run.sh starts what it needs"]
    fn pipelined_errors_hit_their_own_query() {
        check(|dsn| async move {
            let client = connect(&dsn).await;
            let statement = client
                .prepare("SELECT 100 / $1::int")
                .await
                .expect("prepared");
            let divisors: Vec<i32> = (0..100).map(|n| n % 5).collect();
            let queries = divisors
                .iter()
                .map(|n| async { (*n, client.query_one(&statement, &[n]).await) });
            for (n, row) in join_all(queries).await {
                match row {
                    Ok(row) => assert_eq!(row.get::<_, i32>(0), 100 / n),
                    Err(error) => {
                        assert_eq!(n, 0);
                        assert_eq!(*sqlstate(&error), SqlState::DIVISION_BY_ZERO);
                    }
                }
            }
        });
    }

    #[test]
    #[ignore = "tests/drivers/run.sh starts what it needs"]
    fn errors_leave_the_connection_usable() {
        check(|dsn| async move {
            let client = connect(&dsn).await;
            for turn in 0..10 {
                let error = client
                    .query("SELECT 1 / $1::int", &[&0_i32])
                    .await
                    .expect_err("by zero");
                assert_eq!(*sqlstate(&error), SqlState::DIVISION_BY_ZERO);
                let error = client.prepare("SELEC 1").await.expect_err("no such word");
                assert_eq!(*sqlstate(&error), SqlState::SYNTAX_ERROR);
                let error = client
                    .batch_execute("SELECT 1; SELECT 1/0; SELECT 2")
                    .await
                    .expect_err("by zero");
                assert_eq!(*sqlstate(&error), SqlState::DIVISION_BY_ZERO);
                assert_eq!(number(&client, "SELECT $1::int", turn).await, turn);
            }
        });
    }

    #[test]
    #[ignore = "tests/drivers/run.sh starts what it needs"]
    fn simple_queries_of_several_statements() {
        check(|dsn| async move {
            let client = connect(&dsn).await;
            let messages = client
            .simple_query("SELECT 1 AS a; SELECT 'x', NULL; CREATE TEMP TABLE t (n int); DROP TABLE t; ; SELECT 3")
            .await
            .expect("replies");
            let rows: Vec<Option<&str>> = messages
                .iter()
                .filter_map(|message| match message {
                    SimpleQueryMessage::Row(row) => Some(row.get(0)),
                    _ => None,
                })
                .collect();
            assert_eq!(rows, [Some("1"), Some("x"), Some("3")]);
        });
    }

    #[test]
    #[ignore = "tests/drivers/run.sh starts what it needs"]
    fn copy_in_and_out() {
        check(|dsn| async move {
            let client = connect(&dsn).await;
            table(&client, "tokio_copy", "n int, t text").await;
            let lines: String = (0..20_000).map(|n| format!("{n}\tline {n}\n")).collect();
            {
                let mut sink = pin!(
                    client
                        .copy_in::<_, Bytes>("COPY tokio_copy FROM STDIN")
                        .await
                        .expect("copy in")
                );
                for chunk in lines.as_bytes().chunks(10_000) {
                    sink.send(Bytes::copy_from_slice(chunk))
                        .await
                        .expect("sent");
                }
                assert_eq!(sink.finish().await.expect("finished"), 20_000);
            }
            let out = client
                .copy_out("COPY (SELECT * FROM tokio_copy ORDER BY n) TO STDOUT")
                .await
                .expect("copy out");
            let chunks: Vec<Bytes> = out.try_collect().await.expect("all of it");
            assert!(
                chunks.concat() == lines.as_bytes(),
                "what comes out differs"
            );
            client
                .batch_execute("DROP TABLE tokio_copy")
                .await
                .expect("dropped");
        });
    }

    #[test]
    #[ignore = "tests/drivers/run.sh starts what it needs"]
    fn copy_that_fails() {
        check(|dsn| async move {
            let client = connect(&dsn).await;
            table(&client, "tokio_badcopy", "n int, t text").await;
            let bad_lines = Bytes::from("not a number\tx\n".repeat(500));
            for turn in 0..3 {
                {
                    // The server refuses the first line; everything after it arrives late.
                    let mut sink = pin!(
                        client
                            .copy_in("COPY tokio_badcopy FROM STDIN")
                            .await
                            .expect("copy in")
                    );
                    let mut lines = stream::iter(0..200).map(|_| Ok(bad_lines.clone()));
                    let sent = sink.send_all(&mut lines).await;
                    let finished = sink.finish().await;
                    assert!(
                        sent.is_err() || finished.is_err(),
                        "bad lines were accepted"
                    );
                }
                assert_eq!(number(&client, "SELECT $1::int", turn).await, turn);
                {
                    // Dropped half way, therefore failed by the client.
                    let mut sink = pin!(
                        client
                            .copy_in("COPY tokio_badcopy FROM STDIN")
                            .await
                            .expect("copy in")
                    );
                    sink.send(Bytes::from_static(b"1\tx\n"))
                        .await
                        .expect("sent");
                }
                let row = client
                    .query_one("SELECT count(*) FROM tokio_badcopy", &[])
                    .await
                    .expect("one row");
                assert_eq!(row.get::<_, i64>(0), 0);
            }
            client
                .batch_execute("DROP TABLE tokio_badcopy")
                .await
                .expect("dropped");
        });
    }

    #[test]
    #[ignore = "tests/drivers/run.sh starts what it needs"]
    fn cancel_hits_its_own_query_only() {
        check(|dsn| async move {
            let client = connect(&dsn).await;
            let neighbour = connect(&dsn).await;
            for turn in 0..5 {
                let cancel = client.cancel_token();
                let sleep = client.query("SELECT pg_sleep(30)", &[]);
                let cancelling = async {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    cancel.cancel_query(NoTls).await.expect("cancel sent");
                };
                let (slept, ()) = tokio::join!(sleep, cancelling);
                let error = slept.expect_err("cancelled");
                assert_eq!(*sqlstate(&error), SqlState::QUERY_CANCELED);
                assert_eq!(number(&client, "SELECT $1::int", turn).await, turn);
                assert_eq!(
                    number(&neighbour, "SELECT $1::int FROM pg_sleep(0.1)", turn).await,
                    turn
                );
            }
        });
    }

    #[test]
    #[ignore = "tests/drivers/run.sh starts what it needs"]
    fn a_late_cancel_hits_nobody() {
        check(|dsn| async move {
            let idler = connect(&dsn).await;
            let worker = connect(&dsn).await;
            number(&idler, "SELECT $1::int", 1).await;
            let cancel = idler.cancel_token();
            let cancelling = tokio::spawn(async move {
                for _ in 0..100 {
                    cancel.cancel_query(NoTls).await.expect("cancel sent");
                }
            });
            let mut turn = 0;
            while !cancelling.is_finished() || turn < 50 {
                assert_eq!(
                    number(&worker, "SELECT $1::int FROM pg_sleep(0.003)", turn).await,
                    turn
                );
                turn += 1;
            }
            cancelling.await.expect("no cancel failed");
            assert_eq!(number(&idler, "SELECT $1::int", 2).await, 2);
        });
    }

    #[test]
    #[ignore = "tests/drivers/run.sh starts what it needs"]
    fn large_values_both_ways() {
        check(|dsn| async move {
            let client = connect(&dsn).await;
            let value: Vec<u8> = (0..10_000_000_u32)
                .map(|n| (n.wrapping_mul(31) >> 3) as u8)
                .collect();
            for _ in 0..2 {
                let row = client
                    .query_one("SELECT $1::bytea", &[&value])
                    .await
                    .expect("one row");
                assert!(row.get::<_, &[u8]>(0) == value, "10 MB came back changed");
            }
        });
    }

    #[test]
    #[ignore = "tests/drivers/run.sh starts what it needs"]
    fn fifty_clients_on_few_servers() {
        check(|dsn| async move {
            let mut clients = JoinSet::new();
            for which in 0..50 {
                let dsn = dsn.clone();
                clients.spawn(async move {
                    let client = connect(&dsn).await;
                    let statement = client
                        .prepare("SELECT $1::int * 1000 + $2::int")
                        .await
                        .expect("prepared");
                    for turn in 0..20_i32 {
                        let row = client
                            .query_one(&statement, &[&which, &turn])
                            .await
                            .expect("one row");
                        assert_eq!(row.get::<_, i32>(0), which * 1000 + turn);
                    }
                });
            }
            while let Some(done) = clients.join_next().await {
                done.expect("a client's replies were right");
            }
        });
    }
}

/// Valid where transaction blocks are: session and transaction mode.
mod with_transactions {
    use super::*;

    #[test]
    #[ignore = "tests/drivers/run.sh starts what it needs"]
    fn transactions_and_savepoints() {
        check(|dsn| async move {
            let mut client = connect(&dsn).await;
            table(&client, "tokio_tx", "n int").await;
            for turn in 0..5_i64 {
                let mut outer = client
                    .build_transaction()
                    .isolation_level(IsolationLevel::RepeatableRead)
                    .start()
                    .await
                    .expect("begun");
                outer
                    .execute("INSERT INTO tokio_tx VALUES (1)", &[])
                    .await
                    .expect("inserted");
                let inner = outer.savepoint("nested").await.expect("savepoint");
                inner
                    .execute("INSERT INTO tokio_tx VALUES (2)", &[])
                    .await
                    .expect("inserted");
                inner.query("SELECT 1/0", &[]).await.expect_err("by zero");
                inner.rollback().await.expect("rolled back");
                outer.commit().await.expect("committed");
                // Dropped, therefore rolled back.
                let lost = client.transaction().await.expect("begun");
                lost.execute("INSERT INTO tokio_tx VALUES (3)", &[])
                    .await
                    .expect("inserted");
                drop(lost);
                let row = client
                    .query_one("SELECT count(*), sum(n) FROM tokio_tx", &[])
                    .await
                    .expect("one row");
                assert_eq!(
                    (row.get::<_, i64>(0), row.get::<_, i64>(1)),
                    (turn + 1, turn + 1)
                );
            }
            client
                .batch_execute("DROP TABLE tokio_tx")
                .await
                .expect("dropped");
        });
    }

    #[test]
    #[ignore = "tests/drivers/run.sh starts what it needs"]
    fn portals_fetch_in_steps() {
        check(|dsn| async move {
            let mut client = connect(&dsn).await;
            let transaction = client.transaction().await.expect("begun");
            let portal = transaction
                .bind("SELECT n FROM generate_series(1, 1000) n", &[])
                .await
                .expect("bound");
            let mut expected = 1;
            loop {
                let rows = transaction.query_portal(&portal, 70).await.expect("rows");
                if rows.is_empty() {
                    break;
                }
                for row in rows {
                    assert_eq!(row.get::<_, i32>(0), expected);
                    expected += 1;
                }
            }
            assert_eq!(expected, 1001);
            transaction.commit().await.expect("committed");
        });
    }

    #[test]
    #[ignore = "tests/drivers/run.sh starts what it needs"]
    fn clients_with_transactions_share_few_servers() {
        check(|dsn| async move {
            let client = connect(&dsn).await;
            table(&client, "tokio_counter", "id int primary key, n int").await;
            client
                .batch_execute("INSERT INTO tokio_counter SELECT i, 0 FROM generate_series(0, 9) i")
                .await
                .expect("inserted");
            // In session mode this one would hold a server from the others.
            drop(client);
            let mut clients = JoinSet::new();
            for which in 0..30 {
                let dsn = dsn.clone();
                clients.spawn(async move {
                    let mut client = connect(&dsn).await;
                    for turn in 0..10 {
                        count_up(&mut client, which, (which + turn) % 10).await;
                    }
                });
            }
            while let Some(done) = clients.join_next().await {
                done.expect("a client's replies were right");
            }
            let client = connect(&dsn).await;
            let row = client
                .query_one("SELECT sum(n) FROM tokio_counter", &[])
                .await
                .expect("one row");
            assert_eq!(row.get::<_, i64>(0), 300);
            client
                .batch_execute("DROP TABLE tokio_counter")
                .await
                .expect("dropped");
        });
    }

    /// One transaction that must find its own `SET LOCAL` again.
    async fn count_up(client: &mut Client, which: i32, id: i32) {
        let transaction = client.transaction().await.expect("begun");
        transaction
            .batch_execute(&format!("SET LOCAL pgweir.mark = '{which}'"))
            .await
            .expect("marked");
        let updated = transaction
            .execute("UPDATE tokio_counter SET n = n + 1 WHERE id = $1", &[&id])
            .await
            .expect("updated");
        assert_eq!(updated, 1);
        let row = transaction
            .query_one("SHOW pgweir.mark", &[])
            .await
            .expect("one row");
        assert_eq!(row.get::<_, String>(0), which.to_string());
        transaction.commit().await.expect("committed");
    }
}

/// Valid where the server stays with the client.
mod session_only {
    use super::*;

    #[test]
    #[ignore = "tests/drivers/run.sh starts what it needs"]
    fn notifications_and_notices() {
        check(|dsn| async move {
            let (listener, mut connection) = tokio_postgres::connect(&dsn, NoTls)
                .await
                .expect("the pooler lets us in");
            let (tell, mut heard) = mpsc::unbounded_channel();
            tokio::spawn(async move {
                let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
                while let Some(Ok(message)) = messages.next().await {
                    let text = match message {
                        AsyncMessage::Notification(notification) => {
                            notification.payload().to_owned()
                        }
                        AsyncMessage::Notice(notice) => notice.message().to_owned(),
                        _ => continue,
                    };
                    if tell.send(text).is_err() {
                        return;
                    }
                }
            });
            let speaker = connect(&dsn).await;
            listener
                .batch_execute("LISTEN tokio_news")
                .await
                .expect("listening");
            for n in 0..20 {
                speaker
                    .batch_execute(&format!("NOTIFY tokio_news, 'number {n}'"))
                    .await
                    .expect("notified");
                assert_eq!(heard.recv().await, Some(format!("number {n}")));
            }
            listener
                .batch_execute("DO $$ BEGIN RAISE NOTICE 'a notice'; END $$")
                .await
                .expect("done");
            assert_eq!(heard.recv().await.as_deref(), Some("a notice"));
        });
    }
}
