//! Statements prepared by SQL (PREPARE, EXECUTE, DEALLOCATE) in transaction and statement mode: they belong to the client too.

use super::*;
use crate::fixture::*;
use crate::proto::{Conn, Reply, msg};

const MISSING: &str = "ERROR 26000 prepared statement \"q\" does not exist";

async fn extended(conn: &mut Conn, sql: &str) -> Reply {
    let batch = [
        msg::parse("", sql, &[]),
        msg::bind("", "", &[]),
        msg::execute("", 0),
        msg::sync(),
    ];
    conn.send(&batch.concat()).await;
    conn.until_ready().await
}

/// Runs `sql` on every server of a pool of three.
async fn everywhere(pooler: &Pooler, client: &mut Conn, sql: &str, expected: &str) {
    let mut holders = Vec::new();
    for _ in 0..3 {
        assert_eq!(client.ok(sql).await.value(), expected);
        if holders.len() < 2 {
            let mut holder = pooler.client("u_trust", "p").await;
            hold_server(&mut holder).await;
            holders.push(holder);
        }
    }
    for mut holder in holders {
        holder.ok("ROLLBACK").await;
    }
}

#[tokio::test]
async fn follow_the_client_to_any_server() {
    not_in_pgbouncer!("they stay on the server");
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        for mode in ["transaction", "statement"] {
            ini.set("pool_mode", mode);
            let pooler = ini.set("default_pool_size", 3).start().await;
            let mut client = pooler.client("u_trust", "p").await;
            assert_eq!(client.ok("PREPARE q AS SELECT 'mine'").await.tags(), "CZ");
            if mode == "transaction" {
                everywhere(&pooler, &mut client, "EXECUTE q", "mine").await;
            } else {
                assert_eq!(client.ok("EXECUTE q").await.value(), "mine");
            }
            client.ok("DEALLOCATE q").await;
            let gone = client.query("EXECUTE q").await;
            assert_eq!(gone.error_text().as_deref(), Some(MISSING));
        }
    })
    .await;
}

/// The worst that could happen: another client's statement of the same name is executed.
#[tokio::test]
async fn are_nobody_elses() {
    not_in_pgbouncer!("they stay on the server");
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        let mut a = pooler.client("u_trust", "p").await;
        let mut b = pooler.client("u_trust", "p").await;
        a.ok("PREPARE q AS SELECT 'a'").await;
        let stranger = b.query("EXECUTE q").await;
        assert_eq!(stranger.error_text().as_deref(), Some(MISSING));
        b.ok("PREPARE q AS SELECT 'b'").await;
        for _ in 0..3 {
            assert_eq!(a.ok("EXECUTE q").await.value(), "a");
            assert_eq!(b.ok("EXECUTE q").await.value(), "b");
        }
        a.ok("DEALLOCATE q").await;
        assert_eq!(b.ok("EXECUTE q").await.value(), "b");
        let twice = b.query("PREPARE q AS SELECT 'again'").await;
        let text = "ERROR 42P05 prepared statement \"q\" already exists";
        assert_eq!(twice.error_text().as_deref(), Some(text));
        // A third one, who has none, sees none; what the owner has is there again when it comes back.
        let mut c = pooler.client("u_trust", "p").await;
        let count = "SELECT count(*) FROM pg_prepared_statements WHERE from_sql";
        assert_eq!(c.ok(count).await.value(), "0");
        assert_eq!(b.ok(count).await.value(), "1");
        // Of one that has gone, nothing is left.
        b.close().await;
        assert_eq!(c.ok(count).await.value(), "0");
    })
    .await;
}

#[tokio::test]
async fn however_they_were_prepared() {
    not_in_pgbouncer!("they stay on the server");
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        let mut client = pooler.client("u_trust", "p").await;
        let mut other = pooler.client("u_trust", "p").await;
        client
            .ok("SELECT 1; PREPARE one (int) AS SELECT $1 + 1; SELECT ';'")
            .await;
        assert_eq!(
            extended(&mut client, "PREPARE two AS SELECT E'it''s \\'2\\''")
                .await
                .tags(),
            "12CZ"
        );
        let pipelined = [
            msg::query("BEGIN"),
            msg::query("PREPARE \"T h\" AS SELECT 'three'"),
            msg::query("COMMIT"),
            msg::query("EXECUTE \"T h\""),
        ];
        client.send(&pipelined.concat()).await;
        for _ in 0..3 {
            client.until_ready().await;
        }
        assert_eq!(client.until_ready().await.value(), "three");
        // Not undone with the transaction, as in PostgreSQL.
        client
            .ok("BEGIN; PREPARE four AS SELECT '4'; ROLLBACK")
            .await;
        client.ok("BEGIN").await;
        client.ok("PREPARE five AS SELECT '5'").await;
        client.query("SELECT 1/0").await;
        client.ok("ROLLBACK").await;
        for _ in 0..2 {
            other.ok("SELECT 1").await;
            assert_eq!(client.ok("EXECUTE one (1)").await.value(), "2");
            assert_eq!(client.ok("EXECUTE two").await.value(), "it's '2'");
            assert_eq!(client.ok("EXECUTE \"T h\"").await.value(), "three");
            assert_eq!(client.ok("EXECUTE four").await.value(), "4");
            assert_eq!(extended(&mut client, "EXECUTE five").await.value(), "5");
        }
        // Which of two it was can't be told: it is gone rather than wrong.
        client
            .ok("PREPARE q AS SELECT 1; DEALLOCATE q; PREPARE q AS SELECT 2")
            .await;
        other.ok("SELECT 1").await;
        let unclear = client.query("EXECUTE q").await;
        assert_eq!(unclear.error_text().as_deref(), Some(MISSING));
        assert_eq!(client.ok("EXECUTE four").await.value(), "4");
        client.ok("DISCARD ALL").await;
        assert!(client.query("EXECUTE four").await.error_text().is_some());
        other.ok("SELECT 1").await;
        assert!(client.query("EXECUTE four").await.error_text().is_some());
    })
    .await;
}

#[tokio::test]
async fn of_a_dropped_table_do_no_harm() {
    not_in_pgbouncer!("they stay on the server");
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        let mut client = pooler.client("u_trust", "p").await;
        let mut other = pooler.client("u_trust", "p").await;
        client.ok("CREATE TABLE gone AS SELECT 7 AS n").await;
        client.ok("PREPARE kept AS SELECT 1").await;
        client.ok("PREPARE q AS SELECT n FROM gone").await;
        other.ok("DROP TABLE gone").await;
        for _ in 0..2 {
            other.ok("SELECT 1").await;
            assert_eq!(client.ok("EXECUTE kept").await.value(), "1");
        }
        // The very error that PostgreSQL gives where it was prepared.
        let gone = "ERROR 42P01 relation \"gone\" does not exist";
        let missing = client.query("EXECUTE q").await;
        assert_eq!(missing.error_text().as_deref(), Some(gone));
        client.ok("PREPARE more AS SELECT 2").await;
        let missing = client.query("EXECUTE q").await;
        assert_eq!(missing.error_text().as_deref(), Some(gone));
        let stranger = other.query("EXECUTE q").await;
        assert_eq!(stranger.error_text().as_deref(), Some(MISSING));
        // Back with the table.
        other
            .ok("CREATE TABLE gone AS SELECT 8 AS n; GRANT ALL ON gone TO PUBLIC")
            .await;
        assert_eq!(client.ok("EXECUTE q").await.value(), "8");
        assert_eq!(client.ok("EXECUTE more").await.value(), "2");
    })
    .await;
}

#[tokio::test]
async fn of_the_connect_query_are_everybodys() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        ini.database(
            "p",
            format!(
                "{} dbname={db} connect_query='PREPARE all_have AS SELECT ''shared'''",
                cluster.address()
            ),
        );
        let pooler = ini.set("default_pool_size", 1).start().await;
        let mut a = pooler.client("u_trust", "p").await;
        let mut b = pooler.client("u_trust", "p").await;
        a.ok("PREPARE q AS SELECT 'a'").await;
        for _ in 0..2 {
            assert_eq!(b.ok("EXECUTE all_have").await.value(), "shared");
            assert_eq!(a.ok("EXECUTE all_have").await.value(), "shared");
            assert_eq!(a.ok("EXECUTE q").await.value(), "a");
        }
    })
    .await;
}

#[tokio::test]
async fn of_the_protocol_are_not_lost_with_them() {
    not_in_pgbouncer!("they stay on the server");
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        let mut a = pooler.client("u_trust", "p").await;
        let mut b = pooler.client("u_trust", "p").await;
        let named = [msg::parse("s", "SELECT 'protocol'", &[]), msg::sync()].concat();
        let run = [msg::bind("", "s", &[]), msg::execute("", 0), msg::sync()].concat();
        a.send(&named).await;
        assert_eq!(a.until_ready().await.tags(), "1Z");
        a.ok("PREPARE q AS SELECT 'sql'").await;
        for _ in 0..2 {
            b.ok("SELECT 1").await;
            a.send(&run).await;
            assert_eq!(a.until_ready().await.value(), "protocol");
            assert_eq!(a.ok("EXECUTE q").await.value(), "sql");
            // One name space: a statement prepared by SQL can be bound, and its name is taken.
            let bound = [msg::bind("", "q", &[]), msg::execute("", 0), msg::sync()].concat();
            a.send(&bound).await;
            assert_eq!(a.until_ready().await.value(), "sql");
            a.send(&[msg::parse("q", "SELECT 'other'", &[]), msg::sync()].concat())
                .await;
            let text = "ERROR 42P05 prepared statement \"q\" already exists";
            assert_eq!(a.until_ready().await.error_text().as_deref(), Some(text));
        }
        a.send(&[msg::close(b'S', "q"), msg::sync()].concat()).await;
        assert_eq!(a.until_ready().await.tags(), "3Z");
        b.ok("SELECT 1").await;
        let gone = a.query("EXECUTE q").await;
        assert_eq!(gone.error_text().as_deref(), Some(MISSING));
    })
    .await;
}

/// The text is replayed in a way that executes one PREPARE and nothing else.
#[tokio::test]
async fn are_replayed_without_their_neighbours() {
    not_in_pgbouncer!("they stay on the server");
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        let mut a = pooler.client("u_trust", "p").await;
        let mut b = pooler.client("u_trust", "p").await;
        a.ok("CREATE TABLE counted (n int)").await;
        a.ok("INSERT INTO counted VALUES (1); PREPARE q AS SELECT count(*) FROM counted; INSERT INTO counted VALUES (2)")
            .await;
        for _ in 0..3 {
            b.ok("SELECT 1").await;
            assert_eq!(a.ok("EXECUTE q").await.value(), "2");
        }
    })
    .await;
}

#[tokio::test]
async fn are_limited_per_client() {
    not_in_pgbouncer!("they stay on the server");
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        let mut client = pooler.client("u_trust", "p").await;
        let many: String = (0..1001)
            .map(|n| format!("PREPARE q{n} AS SELECT {n};"))
            .collect();
        client.ok(&many).await;
        let told = client.fatal().await;
        assert!(
            told.contains("too many statements prepared with PREPARE"),
            "{told}"
        );
        let mut other = pooler.client("u_trust", "p").await;
        let count = "SELECT count(*) FROM pg_prepared_statements";
        assert_eq!(other.ok(count).await.value(), "0");
    })
    .await;
}

/// Names and texts are read in the encoding of the client that they belong to.
#[tokio::test]
async fn keep_their_meaning_in_any_encoding() {
    not_in_pgbouncer!("they stay on the server");
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        let mut a = pooler.client("u_trust", "p").await;
        let mut b = pooler.client("u_trust", "p").await;
        a.ok("PREPARE \"né\" AS SELECT 'caf\u{e9}'").await;
        b.ok("SET client_encoding = 'LATIN1'").await;
        let count = "SELECT count(*) FROM pg_prepared_statements";
        assert_eq!(b.ok(count).await.value(), "0");
        assert_eq!(a.ok("EXECUTE \"né\"").await.value(), "café");
        a.ok("SET client_encoding = 'LATIN1'").await;
        assert_eq!(b.ok(count).await.value(), "0");
        assert_eq!(
            a.ok("SELECT count(*) FROM pg_prepared_statements")
                .await
                .value(),
            "1"
        );
        a.ok("SET client_encoding = 'UTF8'").await;
        assert_eq!(a.ok("EXECUTE \"né\"").await.value(), "café");
    })
    .await;
}
