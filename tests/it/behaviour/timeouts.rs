//! Every timeout: its text, whom it hits, and whom it leaves alone. Limits are one second, so these tests wait for real time.

use std::time::{Duration, Instant};

use super::*;
use crate::fixture::*;
use crate::proto::{Conn, msg};

/// Asserts that something took its time: at least `low` milliseconds, and not absurdly more.
fn took(started: Instant, low: u64) {
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(low), "too early: {took:?}");
    assert!(
        took < Duration::from_millis(low + 10_000),
        "too late: {took:?}"
    );
}

#[tokio::test]
async fn query_timeout_of_a_running_query() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("query_timeout", 1).start().await;
        let mut slow = pooler.client("u_trust", "p").await;
        let mut quick = pooler.client("u_trust", "p").await;
        let started = Instant::now();
        slow.send(&msg::query("SELECT pg_sleep(60)")).await;
        assert_eq!(slow.fatal().await, "FATAL 08P01 query timeout");
        took(started, 950);
        assert_eq!(quick.ok("SELECT 1").await.value(), "1");
        // An idle transaction is no running query.
        quick.ok("BEGIN").await;
        sleep_ms(1700).await;
        quick.ok("COMMIT").await;
        drop(slow);
        quick.close().await;
        pooler.wait_pool_quiet("p", "u_trust").await;
    })
    .await;
}

#[tokio::test]
async fn query_timeout_of_a_user() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.user("u_other", "query_timeout=1").start().await;
        let mut limited = pooler.client("u_other", "p").await;
        let mut free = pooler.client("u_trust", "p").await;
        limited.send(&msg::query("SELECT pg_sleep(60)")).await;
        free.send(&msg::query("SELECT pg_sleep(2)")).await;
        assert_eq!(limited.fatal().await, "FATAL 08P01 query timeout");
        assert_eq!(free.until_ready().await.error_text(), None);
    })
    .await;
}

#[tokio::test]
async fn query_wait_timeout() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini
            .set("query_wait_timeout", 1)
            .set("default_pool_size", 1)
            .start()
            .await;
        let mut holder = pooler.client("u_trust", "p").await;
        hold_server(&mut holder).await;
        let mut waiting = pooler.client("u_trust", "p").await;
        let started = Instant::now();
        waiting.send(&msg::query("SELECT 1")).await;
        assert_eq!(waiting.fatal().await, "FATAL 08P01 query_wait_timeout");
        took(started, 950);
        assert_eq!(holder.ok("SELECT 'still here'").await.value(), "still here");
        assert_eq!(
            pooler.pool("p", "u_trust").await.unwrap().clients_waiting,
            0
        );
    })
    .await;
}

#[tokio::test]
async fn query_wait_timeout_of_user_beats_database_beats_global() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        ini.database(
            "p",
            format!(
                "{} dbname={db} pool_size=1 query_wait_timeout=1",
                cluster.address()
            ),
        );
        ini.user("u_other", "query_wait_timeout=0");
        let pooler = ini.set("query_wait_timeout", 60).start().await;
        let mut holders = [
            pooler.client("u_trust", "p").await,
            pooler.client("u_other", "p").await,
        ];
        for holder in &mut holders {
            hold_server(holder).await;
        }
        let mut limited = pooler.client("u_trust", "p").await;
        let mut patient = pooler.client("u_other", "p").await;
        limited.send(&msg::query("SELECT 1")).await;
        patient.send(&msg::query("SELECT 'in the end'")).await;
        assert_eq!(limited.fatal().await, "FATAL 08P01 query_wait_timeout");
        sleep_ms(700).await;
        holders[1].ok("COMMIT").await;
        assert_eq!(patient.until_ready().await.value(), "in the end");
    })
    .await;
}

/// PgBouncer ignores a user's limit when nothing global is set.
#[tokio::test]
async fn query_wait_timeout_of_a_user_alone() {
    not_in_pgbouncer!("it ignores a user's query_wait_timeout when the global timeouts are 0");
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        ini.set("query_wait_timeout", 0)
            .set("default_pool_size", 1)
            .user("u_trust", "query_wait_timeout=1");
        let pooler = ini.start().await;
        let mut holder = pooler.client("u_trust", "p").await;
        hold_server(&mut holder).await;
        let mut waiting = pooler.client("u_trust", "p").await;
        waiting.send(&msg::query("SELECT 1")).await;
        assert_eq!(waiting.fatal().await, "FATAL 08P01 query_wait_timeout");
    })
    .await;
}

#[tokio::test]
async fn query_timeout_of_a_queued_query() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini
            .set("query_timeout", 1)
            .set("query_wait_timeout", 0)
            .set("default_pool_size", 1)
            .start()
            .await;
        let mut holder = pooler.client("u_trust", "p").await;
        hold_server(&mut holder).await;
        let mut waiting = pooler.client("u_trust", "p").await;
        waiting.send(&msg::query("SELECT 1")).await;
        assert_eq!(waiting.fatal().await, "FATAL 08P01 query_timeout");
    })
    .await;
}

#[tokio::test]
async fn idle_transaction_timeout() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        let pooler = ini.set("idle_transaction_timeout", 1).start().await;
        let mut forgetful = pooler.client("u_trust", "p").await;
        let mut busy = pooler.client("u_trust", "p").await;
        let started = Instant::now();
        hold_server(&mut forgetful).await;
        busy.ok("BEGIN").await;
        assert_eq!(
            busy.ok("SELECT pg_sleep(1.7)").await.error_text(),
            None,
            "a running query is not idle"
        );
        busy.ok("COMMIT").await;
        assert_eq!(
            forgetful.fatal().await,
            "FATAL 08P01 idle transaction timeout"
        );
        took(started, 950);
        wait_until("its server to go", || async {
            cluster.sessions(&db).await == 1
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn transaction_timeout() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("transaction_timeout", 1).start().await;
        let mut long = pooler.client("u_trust", "p").await;
        let mut short = pooler.client("u_trust", "p").await;
        let started = Instant::now();
        long.ok("BEGIN").await;
        loop {
            short.ok("BEGIN; SELECT 1; COMMIT").await;
            long.send(&msg::query("SELECT pg_sleep(0.05)")).await;
            match long.next_frame().await {
                Some(frame) if frame.is(b'E') => {
                    assert_eq!(frame.error_text(), "FATAL 08P01 transaction timeout");
                    break;
                }
                Some(_) => assert!(long.until_ready().await.error_text().is_none()),
                None => panic!("closed without a word"),
            }
            assert!(started.elapsed() < Duration::from_secs(20));
        }
        took(started, 950);
        assert_eq!(short.ok("SELECT 1").await.value(), "1");
    })
    .await;
}

#[tokio::test]
async fn client_idle_timeout_spares_transactions() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("client_idle_timeout", 1).start().await;
        let mut in_block = pooler.client("u_trust", "p").await;
        hold_server(&mut in_block).await;
        let mut idle = pooler.client("u_trust", "p").await;
        idle.ok("SELECT 1").await;
        let started = Instant::now();
        assert_eq!(idle.fatal().await, "FATAL 08P01 client_idle_timeout");
        took(started, 900);
        in_block.ok("COMMIT").await;
    })
    .await;
}

#[tokio::test]
async fn client_idle_timeout_of_one_user_spares_the_others() {
    not_in_pgbouncer!("it disconnects everybody");
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.user("u_other", "client_idle_timeout=1").start().await;
        let mut limited = pooler.client("u_other", "p").await;
        let mut free = pooler.client("u_trust", "p").await;
        assert_eq!(limited.fatal().await, "FATAL 08P01 client_idle_timeout");
        sleep_ms(1000).await;
        assert_eq!(free.ok("SELECT 1").await.value(), "1");
    })
    .await;
}

#[tokio::test]
async fn client_login_timeout() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini
            .set("client_login_timeout", 1)
            .set("auth_type", "plain")
            .start()
            .await;
        let startup = msg::startup(&[("user", "u_plain"), ("database", "p")]);
        let mut half = pooler.raw().await;
        half.send(&startup[..startup.len() - 3]).await;
        let mut asked = pooler.raw().await;
        asked.send(&startup).await;
        assert!(asked.frame().await.is(b'R'));
        let mut drip = pooler.raw().await;
        let started = Instant::now();
        for byte in &startup {
            if drip.try_send(&[*byte]).await.is_err() {
                break;
            }
            sleep_ms(60).await;
        }
        assert_eq!(half.fatal().await, "FATAL 08P01 client_login_timeout");
        assert_eq!(asked.fatal().await, "FATAL 08P01 client_login_timeout");
        drip.until_closed().await;
        took(started, 900);
        let mut client = Conn::login(pooler.port, "u_plain", "p", Some("u_plain_pw")).await;
        sleep_ms(1700).await;
        assert_eq!(client.ok("SELECT 1").await.value(), "1");
    })
    .await;
}

#[tokio::test]
async fn client_login_timeout_while_the_server_is_down() {
    bounded(60, async {
        let mut ini = Ini::new();
        ini.database("p", format!("host=127.0.0.1 port={} dbname=x", free_port()));
        let pooler = ini
            .set("client_login_timeout", 1)
            .set("query_wait_timeout", 0)
            .start()
            .await;
        let mut client = pooler.raw().await;
        client
            .send(&msg::startup(&[("user", "u_trust"), ("database", "p")]))
            .await;
        assert_eq!(
            client.fatal().await,
            "FATAL 08P01 client_login_timeout (server down)"
        );
        pooler.wait_pool_quiet("p", "u_trust").await;
    })
    .await;
}

#[tokio::test]
async fn waiting_clients_are_told() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini
            .set("query_wait_notify", 1)
            .set("default_pool_size", 1)
            .start()
            .await;
        let mut holder = pooler.client("u_trust", "p").await;
        hold_server(&mut holder).await;
        let mut waiting = pooler.client("u_trust", "p").await;
        let started = Instant::now();
        waiting.send(&msg::query("SELECT 'at last'")).await;
        let notice = waiting.frame().await;
        took(started, 1000);
        assert!(notice.is(b'N'));
        let text = "No server connection available in postgres backend, client being queued";
        assert_eq!(notice.field(b'M').as_deref(), Some(text));
        holder.ok("COMMIT").await;
        let reply = waiting.until_ready().await;
        assert_eq!(
            (reply.value().as_str(), reply.notices().len()),
            ("at last", 0)
        );
    })
    .await;
}
