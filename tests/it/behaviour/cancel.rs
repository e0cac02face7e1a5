//! CancelRequest: it reaches the server that runs the query, and nobody else, ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::fixture::*;
use crate::proto::{Conn, msg};

pub(super) const CANCELLED: &str = "ERROR 57014 canceling statement due to user request";

/// Sends a CancelRequest and waits until the pooler closes the connection, which it does without a word.
pub(super) async fn cancel(port: u16, key: &[u8]) {
    let mut conn = Conn::tcp(port).await;
    conn.send(&msg::cancel(key)).await;
    assert_eq!(conn.until_closed().await, vec![]);
}

/// Waits until PostgreSQL runs a query that contains a text. A request that overtakes the query which it is meant for cancels nothing.
pub(super) async fn wait_running(cluster: &Cluster, db: &str, text: &str) {
    wait_until(&format!("{text} to run"), || async {
        !cluster.running(db, text).await.is_empty()
    })
    .await;
}

#[tokio::test]
async fn reaches_the_right_server() {
    bounded(60, async {
        let (cluster, db, ini) = setup().await;
        let pooler = ini.start().await;
        let mut target = pooler.client("u_trust", "p").await;
        let mut bystander = pooler.client("u_trust", "p").await;
        target
            .send(&msg::query("SELECT pg_sleep(60) /* target */"))
            .await;
        bystander
            .send(&msg::query("SELECT pg_sleep(1.5) /* bystander */"))
            .await;
        wait_running(cluster, &db, "target").await;
        wait_running(cluster, &db, "bystander").await;
        cancel(pooler.port, &target.login.key.clone()).await;
        assert_eq!(
            target.until_ready().await.error_text().as_deref(),
            Some(CANCELLED)
        );
        assert_eq!(bystander.until_ready().await.error_text(), None);
        assert_eq!(target.ok("SELECT 1").await.value(), "1");
    })
    .await;
}

#[tokio::test]
async fn works_when_the_pool_is_full() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        let pooler = ini
            .set("default_pool_size", 1)
            .set("max_db_connections", 1)
            .start()
            .await;
        let mut target = pooler.client("u_trust", "p").await;
        target
            .send(&msg::query("SELECT pg_sleep(60) /* full */"))
            .await;
        wait_running(cluster, &db, "full").await;
        cancel(pooler.port, &target.login.key.clone()).await;
        assert_eq!(
            target.until_ready().await.error_text().as_deref(),
            Some(CANCELLED)
        );
        pooler.wait_pool_quiet("p", "nobody").await;
    })
    .await;
}

#[tokio::test]
async fn leaves_the_transaction_open_but_failed() {
    bounded(60, async {
        let (cluster, db, ini) = setup().await;
        let pooler = ini.start().await;
        let mut target = pooler.client("u_trust", "p").await;
        target.ok("BEGIN").await;
        target
            .send(&msg::query("SELECT pg_sleep(60) /* in block */"))
            .await;
        wait_running(cluster, &db, "in block").await;
        cancel(pooler.port, &target.login.key.clone()).await;
        let reply = target.until_ready().await;
        assert_eq!(
            (reply.error_text().as_deref(), reply.status()),
            (Some(CANCELLED), 'E')
        );
        assert_eq!(target.ok("ROLLBACK").await.status(), 'I');
    })
    .await;
}

#[tokio::test]
async fn of_an_idle_client_touches_nobody() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        let mut idle = pooler.client("u_trust", "p").await;
        idle.ok("SELECT 1").await;
        let mut busy = pooler.client("u_trust", "p").await;
        busy.send(&msg::query("SELECT pg_sleep(0.7) /* busy */"))
            .await;
        wait_running(cluster, &db, "busy").await;
        cancel(pooler.port, &idle.login.key.clone()).await;
        assert_eq!(busy.until_ready().await.error_text(), None);
    })
    .await;
}

#[tokio::test]
async fn of_a_waiting_client_touches_nobody() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        let mut busy = pooler.client("u_trust", "p").await;
        hold_server(&mut busy).await;
        let mut waiting = pooler.client("u_trust", "p").await;
        waiting.send(&msg::query("SELECT 'queued'")).await;
        wait_until("one to wait", || async {
            pooler.pool("p", "u_trust").await.unwrap().clients_waiting == 1
        })
        .await;
        cancel(pooler.port, &waiting.login.key.clone()).await;
        assert_eq!(busy.ok("SELECT pg_sleep(0.3)").await.error_text(), None);
        busy.ok("COMMIT").await;
        let mut next = pooler.client("u_trust", "p").await;
        assert_eq!(next.ok("SELECT 1").await.value(), "1");
    })
    .await;
}

#[tokio::test]
async fn with_an_unknown_or_odd_key_is_closed_in_silence() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        assert_eq!(client.login.key.len(), 8);
        for key in [&[7u8; 8][..], &[1; 4], &[1; 12], &[0; 32], &[]] {
            cancel(pooler.port, key).await;
        }
        let mut nearly = client.login.key.clone();
        nearly[7] ^= 1;
        cancel(pooler.port, &nearly).await;
        assert_eq!(client.ok("SELECT 1").await.value(), "1");
    })
    .await;
}

/// One client's queries are cancelled at every possible moment while another uses the same single server: no cancel may hit the other.
#[tokio::test]
async fn never_hits_the_next_user_of_the_server() {
    bounded(120, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini
            .set("default_pool_size", 1)
            .set_ours("workers", 2)
            .start()
            .await;
        let port = pooler.port;
        let mut target = pooler.client("u_trust", "p").await;
        let key = target.login.key.clone();
        let mut neighbour = pooler.client("u_trust", "p").await;
        let over = Arc::new(AtomicBool::new(false));
        let neighbour = tokio::spawn({
            let over = over.clone();
            async move {
                let mut rounds = 0;
                while rounds < 150 || !over.load(Ordering::Relaxed) {
                    let reply = neighbour.query("SELECT pg_sleep(0.002)").await;
                    assert_eq!(
                        reply.error_text(),
                        None,
                        "the neighbour was hit in round {rounds}"
                    );
                    rounds += 1;
                }
            }
        });
        let (mut round, mut hits) = (0u64, 0);
        while round < 150 || hits == 0 && round < 900 {
            // Where every cancel has come too late so far, the queries take longer.
            let ms = 3 << (round / 150);
            let sql = format!("SELECT pg_sleep({ms} * 0.001)");
            target.send(&msg::query(&sql)).await;
            tokio::time::sleep(std::time::Duration::from_micros(round * 97 % 9_000)).await;
            let cancelling = tokio::spawn({
                let key = key.clone();
                async move { cancel(port, &key).await }
            });
            let reply = target.until_ready().await;
            hits += usize::from(reply.error_text().is_some());
            cancelling.await.expect("the cancel ends");
            round += 1;
        }
        over.store(true, Ordering::Relaxed);
        neighbour.await.expect("the neighbour is never hit");
        assert!(hits > 0, "no cancel ever hit its target");
        pooler.wait_pool_quiet("p", "nobody").await;
    })
    .await;
}

#[tokio::test]
async fn a_crowd_of_cancels_for_one_query_is_no_harm() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 2).start().await;
        let mut target = pooler.client("u_trust", "p").await;
        target
            .send(&msg::query("SELECT pg_sleep(60) /* crowd */"))
            .await;
        wait_running(cluster, &db, "crowd").await;
        let mut cancels = Vec::new();
        for _ in 0..20 {
            let mut conn = pooler.raw().await;
            conn.send(&msg::cancel(&target.login.key)).await;
            cancels.push(conn);
        }
        assert_eq!(
            target.until_ready().await.error_text().as_deref(),
            Some(CANCELLED)
        );
        for mut conn in cancels {
            assert_eq!(conn.until_closed().await, vec![]);
        }
        for _ in 0..5 {
            let mut other = pooler.client("u_trust", "p").await;
            assert_eq!(
                other.query("SELECT pg_sleep(0.01)").await.error_text(),
                None
            );
        }
        let counts = || async { pooler.pool("p", "u_trust").await.unwrap().servers_other };
        wait_until("the cancels to be gone", || async { counts().await == 0 }).await;
    })
    .await;
}
