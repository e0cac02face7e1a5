//! Clients that leave without a word, at the worst moments. What they had is undone, what they held comes back.

use super::*;

/// After the vanishing: the only server slot is free, nothing of the transaction is left, no lock is held.
async fn clean(db: &str, pooler: &Pooler) {
    pooler.wait_pool_quiet("p", "u_trust").await;
    let mut next = pooler.client("u_trust", "p").await;
    let reply = next.ok("SELECT count(*) FROM kept").await;
    assert_eq!((reply.value().as_str(), reply.status()), ("0", 'I'));
    next.ok("BEGIN; LOCK TABLE kept; COMMIT").await;
    // PostgreSQL notices only at the end of a query that its client has gone.
    wait_until("the old session to end", || async {
        Cluster::shared().sessions(db).await <= 1
    })
    .await;
    next.close().await;
}

async fn one_server() -> (String, Pooler) {
    let (db, pooler) = stage(&[("default_pool_size", "1")]).await;
    Cluster::shared()
        .sql(
            &db,
            "CREATE TABLE kept (a int); GRANT ALL ON kept TO PUBLIC",
        )
        .await;
    (db, pooler)
}

#[tokio::test]
async fn in_a_transaction() {
    bounded(60, async {
        let (db, pooler) = one_server().await;
        for politely in [false, true] {
            let mut client = pooler.client("u_trust", "p").await;
            client.ok("BEGIN").await;
            client.ok("INSERT INTO kept VALUES (1)").await;
            if politely {
                client.drop_politely().await
            } else {
                drop(client)
            }
            clean(&db, &pooler).await;
        }
    })
    .await;
}

#[tokio::test]
async fn during_a_query() {
    bounded(60, async {
        let (db, pooler) = one_server().await;
        let mut client = pooler.client("u_trust", "p").await;
        client.send(&msg::query("SELECT pg_sleep(1)")).await;
        let running = || async { pooler.pool("p", "u_trust").await.unwrap().servers_active == 1 };
        wait_until("the query to run", running).await;
        drop(client);
        clean(&db, &pooler).await;
    })
    .await;
}

#[tokio::test]
async fn during_copy_in() {
    bounded(60, async {
        let (db, pooler) = one_server().await;
        for politely in [false, true] {
            let mut client = pooler.client("u_trust", "p").await;
            client.send(&msg::query("COPY kept FROM STDIN")).await;
            assert!(client.frame().await.is(b'G'));
            client.send(&msg::copy_data(b"1\n2\n3\n")).await;
            if politely {
                client.drop_politely().await
            } else {
                drop(client)
            }
            clean(&db, &pooler).await;
        }
    })
    .await;
}

#[tokio::test]
async fn during_a_large_result() {
    bounded(60, async {
        let (db, pooler) = one_server().await;
        for sql in [
            "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)",
            "COPY (SELECT generate_series(1, 10000000)) TO STDOUT",
        ] {
            let mut client = pooler.client("u_trust", "p").await;
            client.send(&msg::query(sql)).await;
            client.frame().await;
            drop(client);
            clean(&db, &pooler).await;
        }
    })
    .await;
}

/// The first part of a message, of every kind and cut at every place that matters: the next client's server must not see any of it.
#[tokio::test]
async fn inside_a_message() {
    not_in_pgbouncer!("the first half of a FunctionCall reaches the next client's server");
    bounded(120, async {
        let (db, pooler) = one_server().await;
        let long = "y".repeat(50_000);
        let messages = [
            msg::query(&format!("SELECT '{long}'")),
            msg::query("SELECT 1"),
            msg::parse("name", &format!("SELECT '{long}'"), &[]),
            msg::bind("", "name", &[Some(long.as_bytes())]),
            msg::function_call(871, &[&long]),
            msg::function_call(871, &["short"]),
            msg::copy_data(long.as_bytes()),
            msg::sync(),
        ];
        for message in messages {
            for cut in [1, 4, 5, 7, message.len() / 2, message.len() - 1] {
                if cut >= message.len() {
                    continue;
                }
                let mut client = pooler.client("u_trust", "p").await;
                client.send(&message[..cut]).await;
                drop(client);
                let mut next = pooler.client("u_trust", "p").await;
                let reply = next.query("SELECT 'mine'").await;
                assert_eq!(
                    (reply.tags().as_str(), reply.value().as_str()),
                    ("TDCZ", "mine"),
                    "{} cut at {cut}",
                    char::from(message[0])
                );
                next.drop_politely().await;
            }
        }
        clean(&db, &pooler).await;
    })
    .await;
}

#[tokio::test]
async fn with_a_pipeline_in_flight() {
    bounded(60, async {
        let (db, pooler) = one_server().await;
        let insert = [
            msg::parse("", "SELECT pg_sleep(0.01)", &[]),
            msg::bind("", "", &[]),
            msg::execute("", 0),
            msg::sync(),
        ]
        .concat();
        for take in [0, 3, 10] {
            let mut client = pooler.client("u_trust", "p").await;
            client.send(&insert.repeat(30)).await;
            for _ in 0..take {
                client.frame().await;
            }
            drop(client);
            clean(&db, &pooler).await;
        }
        // Without a Sync: nothing would ever end it.
        let mut client = pooler.client("u_trust", "p").await;
        client
            .send(
                &[
                    msg::parse("", "INSERT INTO kept VALUES (1)", &[]),
                    msg::bind("", "", &[]),
                    msg::execute("", 0),
                    msg::flush(),
                ]
                .concat(),
            )
            .await;
        for _ in 0..3 {
            client.frame().await;
        }
        drop(client);
        clean(&db, &pooler).await;
    })
    .await;
}

#[tokio::test]
async fn while_queued() {
    bounded(60, async {
        let (db, pooler) = one_server().await;
        let mut holder = pooler.client("u_trust", "p").await;
        holder.ok("BEGIN").await;
        for _ in 0..20 {
            let mut client = pooler.client("u_trust", "p").await;
            client.send(&msg::query("SELECT 'nobody reads this'")).await;
        }
        holder.ok("COMMIT").await;
        assert_eq!(holder.ok("SELECT 'mine'").await.value(), "mine");
        holder.close().await;
        clean(&db, &pooler).await;
    })
    .await;
}

#[tokio::test]
async fn during_a_login_that_waits_for_a_server() {
    bounded(60, async {
        let (db, pooler) = one_server().await;
        let mut other = pooler.client("u_other", "p").await;
        other.ok("SELECT 1").await;
        for _ in 0..20 {
            let mut conn = pooler.raw().await;
            conn.send(&msg::startup(&[("user", "u_trust"), ("database", "p")]))
                .await;
        }
        other.close().await;
        pooler.wait_pool_quiet("p", "u_trust").await;
        let mut next = pooler.client("u_trust", "p").await;
        assert_eq!(next.ok("SELECT 'served'").await.value(), "served");
        assert!(Cluster::shared().sessions(&db).await <= 2);
    })
    .await;
}

#[tokio::test]
async fn after_taking_a_lock_in_session_mode() {
    bounded(60, async {
        let (db, pooler) = stage(&[("pool_mode", "session"), ("default_pool_size", "1")]).await;
        let mut client = pooler.client("u_trust", "p").await;
        client.ok("SELECT pg_advisory_lock(1)").await;
        client.ok("SET work_mem = '1234kB'").await;
        drop(client);
        let mut next = pooler.client("u_trust", "p").await;
        assert_eq!(next.ok("SELECT pg_try_advisory_lock(1)").await.value(), "t");
        assert_eq!(next.ok("SHOW work_mem").await.value(), "4MB");
        assert_eq!(Cluster::shared().sessions(&db).await, 1);
    })
    .await;
}
