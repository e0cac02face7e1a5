//! Two workers, few servers, two hundred clients: all are served, and PostgreSQL never sees more sessions than allowed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::fixture::*;

const CLIENTS: usize = 200;

struct Report {
    served: usize,
    longest: Duration,
}

async fn work(port: u16, until: Instant) -> Report {
    let mut conn = crate::proto::Conn::login(port, "u_trust", "p", None).await;
    let mut report = Report {
        served: 0,
        longest: Duration::ZERO,
    };
    while Instant::now() < until {
        let started = Instant::now();
        conn.ok("SELECT 1").await;
        report.longest = report.longest.max(started.elapsed());
        report.served += 1;
    }
    conn.close().await;
    report
}

async fn crowd(pool_size: usize) {
    let (cluster, db, mut ini) = setup().await;
    ini.set("default_pool_size", pool_size)
        .set("max_client_conn", 1000)
        .set_ours("workers", 2);
    let pooler = ini.start().await;
    let over = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn({
        let over = over.clone();
        async move {
            let mut most = 0;
            let mut admin = cluster.admin("postgres").await;
            let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{db}'");
            while !over.load(Ordering::Relaxed) {
                most = most.max(
                    admin
                        .ok(&sql)
                        .await
                        .value()
                        .parse::<usize>()
                        .expect("a number"),
                );
                sleep_ms(5).await;
            }
            most
        }
    });
    let until = Instant::now() + Duration::from_secs(4);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| tokio::spawn(work(pooler.port, until)))
        .collect();
    let mut reports = Vec::new();
    for client in clients {
        reports.push(client.await.expect("no client fails"));
    }
    over.store(true, Ordering::Relaxed);
    let most = watcher.await.expect("the watcher watches");
    assert!(
        most <= pool_size,
        "{most} sessions with pool_size {pool_size}"
    );
    assert!(most >= 1);
    let least = reports.iter().map(|r| r.served).min().unwrap_or(0);
    let total: usize = reports.iter().map(|r| r.served).sum();
    let longest = reports.iter().map(|r| r.longest).max().unwrap_or_default();
    println!(
        "pool_size {pool_size}: {total} queries, the slowest client {least}, the longest wait {longest:?}"
    );
    assert!(
        least * 10 >= total / CLIENTS,
        "a client starves: {least} of {total}"
    );
    pooler.wait_pool_quiet("p", "u_trust").await;
}

#[tokio::test]
async fn one_server_for_two_hundred_clients() {
    bounded(90, crowd(1)).await;
}

#[tokio::test]
async fn two_servers_for_two_hundred_clients() {
    bounded(90, crowd(2)).await;
}

#[tokio::test]
async fn twenty_servers_for_two_hundred_clients() {
    bounded(90, crowd(20)).await;
}

/// Long transactions on one worker's clients must not keep the only server from the other's for ever.
#[tokio::test]
async fn turns_are_taken_between_long_transactions() {
    bounded(90, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini
            .set("default_pool_size", 1)
            .set_ours("workers", 2)
            .start()
            .await;
        let until = Instant::now() + Duration::from_secs(4);
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let port = pooler.port;
                tokio::spawn(async move {
                    let mut conn = crate::proto::Conn::login(port, "u_trust", "p", None).await;
                    let mut turns = 0;
                    while Instant::now() < until {
                        conn.ok("BEGIN").await;
                        conn.ok("SELECT pg_sleep(0.02)").await;
                        conn.ok("COMMIT").await;
                        turns += 1;
                    }
                    turns
                })
            })
            .collect();
        let mut turns: Vec<usize> = Vec::new();
        for task in tasks {
            turns.push(task.await.expect("no client fails"));
        }
        let (least, most) = (turns.iter().min().unwrap(), turns.iter().max().unwrap());
        assert!(*least > 0 && *least * 3 + 3 >= *most, "{turns:?}");
    })
    .await;
}
