//! Clients that are hostile, broken or gone. Each costs a bounded amount of time and memory, gets a clear answer if it can read one, and
//! disturbs nobody else.

mod flood;
mod security;
mod startup;
mod vanish;

use crate::fixture::*;
use crate::proto::{Conn, msg};

/// A pooler in front of a new database `p`.
async fn stage(settings: &[(&str, &str)]) -> (String, Pooler) {
    let cluster = Cluster::shared();
    let db = cluster.fresh_db().await;
    let mut ini = Ini::with_database(cluster, &db);
    for (key, value) in settings {
        ini.set(key, value);
    }
    (db, ini.start().await)
}

/// The pooler still does its work.
async fn still_serves(pooler: &Pooler) {
    let mut client = Conn::login(pooler.port, "u_plain", "p", Some("u_plain_pw")).await;
    assert_eq!(client.ok("SELECT 'still here'").await.value(), "still here");
    client.close().await;
}

/// Sends first bytes and gives the error with which the connection is closed, or nothing if it is closed in silence.
async fn answer_to(pooler: &Pooler, bytes: &[u8]) -> Option<String> {
    let mut conn = pooler.raw().await;
    conn.send(bytes).await;
    let frames = conn.until_closed().await;
    frames.last().map(|f| f.error_text())
}

/// As [`answer_to`], with the client's writing side closed after the bytes.
async fn answer_to_all_of(pooler: &Pooler, bytes: &[u8]) -> Option<String> {
    let mut conn = pooler.raw().await;
    conn.send(bytes).await;
    conn.shut_down_writing().await;
    conn.until_closed_anyhow()
        .await
        .0
        .last()
        .map(|f| f.error_text())
}
