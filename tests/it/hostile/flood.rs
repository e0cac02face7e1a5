//! Too much of something: the pooler's memory stays bounded and the others are served.

use std::time::{Duration, Instant};

use super::*;

const BOUND: u64 = 32 << 20;

/// Watches the pooler's memory for a while; gives the most it grew by.
async fn growth(pooler: &Pooler, before: u64, ms: u64) -> u64 {
    let until = Instant::now() + Duration::from_millis(ms);
    let mut most = 0;
    while Instant::now() < until {
        most = most.max(pooler.resident_bytes().saturating_sub(before));
        sleep_ms(20).await;
    }
    most
}

#[tokio::test]
async fn a_client_that_never_reads_its_result() {
    bounded(60, async {
        let (db, pooler) = stage(&[]).await;
        still_serves(&pooler).await;
        let before = pooler.resident_bytes();
        let queries = [
            "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)",
            "SELECT repeat('x', 100000000)",
            "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 1000000)) TO STDOUT",
        ];
        let mut deaf = Vec::new();
        for sql in queries {
            let mut client = pooler.client("u_trust", "p").await;
            client.send(&msg::query(sql)).await;
            deaf.push(client);
        }
        let most = growth(&pooler, before, 3_000).await;
        assert!(most < BOUND, "{most} bytes for clients that do not read");
        still_serves(&pooler).await;
        let cluster = Cluster::shared();
        wait_until("all of them to run", async || {
            cluster.running(&db, "").await.len() == queries.len()
        })
        .await;
        let theirs = cluster.running(&db, "").await;
        drop(deaf);
        pooler.wait_pool_quiet("p", "u_trust").await;
        wait_until("their servers to end", async || {
            let left = cluster.backends(&db, "true").await;
            !left.iter().any(|pid| theirs.contains(pid))
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn large_messages_pass_without_being_kept() {
    bounded(120, async {
        let (_, pooler) = stage(&[]).await;
        let mut client = pooler.client("u_trust", "p").await;
        client.ok("SELECT 1").await;
        let before = pooler.resident_bytes();
        let size = 40 << 20;
        let text = "y".repeat(size);
        let watch = growth(&pooler, before, 2_000);
        let work = async {
            assert_eq!(
                client
                    .query(&format!("SELECT length('{text}')"))
                    .await
                    .value(),
                size.to_string()
            );
            let sql = "SELECT length($1::text)";
            for name in ["", "named"] {
                let bind = msg::bind("", name, &[Some(text.as_bytes())]);
                client
                    .send(
                        &[
                            msg::parse(name, sql, &[]),
                            bind,
                            msg::execute("", 0),
                            msg::sync(),
                        ]
                        .concat(),
                    )
                    .await;
                let reply = client.until_ready().await;
                assert_eq!(
                    (reply.tags().as_str(), reply.value()),
                    ("12DCZ", size.to_string())
                );
            }
            assert_eq!(
                client
                    .query(&format!("SELECT repeat('z', {size})"))
                    .await
                    .value()
                    .len(),
                size
            );
        };
        let (most, ()) = tokio::join!(watch, work);
        assert!(most < BOUND, "{most} bytes for messages of {size}");
        client.close().await;
        pooler.wait_pool_quiet("p", "u_trust").await;
    })
    .await;
}

#[tokio::test]
async fn many_half_open_logins() {
    bounded(60, async {
        let (_, pooler) =
            stage(&[("client_login_timeout", "3"), ("max_client_conn", "2000")]).await;
        still_serves(&pooler).await;
        let before = pooler.resident_bytes();
        let startup = msg::startup(&[("user", "u_trust"), ("database", "p")]);
        let mut crowd = Vec::new();
        for i in 0..1000 {
            let mut conn = pooler.raw().await;
            conn.send(&startup[..i % startup.len()]).await;
            crowd.push(conn);
        }
        still_serves(&pooler).await;
        let most = growth(&pooler, before, 500).await;
        assert!(most < BOUND, "{most} bytes for a thousand beginnings");
        for mut conn in crowd {
            conn.until_closed().await;
        }
        still_serves(&pooler).await;
    })
    .await;
}

#[tokio::test]
async fn a_pipeline_without_end() {
    bounded(120, async {
        let (_, pooler) = stage(&[]).await;
        let mut client = pooler.client("u_trust", "p").await;
        client.ok("SELECT 1").await;
        let before = pooler.resident_bytes();
        // 50,000 requests in flight, whose replies are read only afterwards.
        let round = [
            msg::parse("", "SELECT 1", &[]),
            msg::bind("", "", &[]),
            msg::execute("", 0),
            msg::sync(),
        ]
        .concat();
        let all = round.repeat(50_000);
        let mut ready = 0;
        let watch = growth(&pooler, before, 1_500);
        let chunks = [all.as_slice()];
        let work = client.exchange(&chunks, false, |frame| {
            ready += usize::from(frame.is(b'Z'));
            ready == 50_000
        });
        let (most, (frames, _)) = tokio::join!(watch, work);
        assert_eq!(frames.len(), 250_000);
        assert!(most < BOUND, "{most} bytes for a long pipeline");
        client.close().await;
        pooler.wait_pool_quiet("p", "u_trust").await;
    })
    .await;
}

#[tokio::test]
async fn a_client_with_thousands_of_statements() {
    bounded(120, async {
        let (_, pooler) = stage(&[
            ("max_prepared_statements", "20"),
            ("default_pool_size", "1"),
        ])
        .await;
        let mut client = pooler.client("u_trust", "p").await;
        client.ok("SELECT 1").await;
        let before = pooler.resident_bytes();
        for chunk in 0..20 {
            let parses: Vec<u8> = (0..250)
                .flat_map(|i| {
                    msg::parse(
                        &format!("s{chunk}_{i}"),
                        &format!("SELECT {}", chunk * 250 + i),
                        &[],
                    )
                })
                .collect();
            client.send(&[parses, msg::sync()].concat()).await;
            assert_eq!(client.until_ready().await.tags().len(), 251);
        }
        let count: usize = client
            .ok("SELECT count(*) FROM pg_prepared_statements")
            .await
            .value()
            .parse()
            .unwrap();
        assert!(count <= 20, "{count} statements on the server");
        let most = growth(&pooler, before, 200).await;
        assert!(most < BOUND, "{most} bytes for 5000 statements");
        client
            .send(&[msg::bind("", "s0_0", &[]), msg::execute("", 0), msg::sync()].concat())
            .await;
        assert_eq!(client.until_ready().await.value(), "0");
    })
    .await;
}

#[tokio::test]
async fn logins_that_come_and_go() {
    bounded(60, async {
        let (_, pooler) = stage(&[("auth_type", "scram-sha-256")]).await;
        still_serves(&pooler).await;
        let (files, before) = (pooler.open_files(), pooler.resident_bytes());
        for round in 0..300 {
            let mut conn = pooler.raw().await;
            conn.send(&msg::startup(&[("user", "u_scram"), ("database", "p")]))
                .await;
            match round % 3 {
                0 => {}
                1 => drop(conn.frame().await),
                _ => {
                    conn.frame().await;
                    conn.send(&msg::sasl_initial("SCRAM-SHA-256", "n,,n=,r=abcdefgh"))
                        .await;
                }
            }
        }
        wait_until("their sockets to be closed", || async {
            pooler.open_files() <= files + 1
        })
        .await;
        assert!(pooler.resident_bytes().saturating_sub(before) < BOUND);
        still_serves(&pooler).await;
    })
    .await;
}
