//! Prepared statements of the protocol in transaction mode: the names belong to the client, wherever its queries run.

use super::*;
use crate::fixture::*;
use crate::proto::{Conn, Reply, msg};

async fn batch(conn: &mut Conn, messages: &[Vec<u8>]) -> Reply {
    conn.send(&messages.concat()).await;
    conn.send(&msg::sync()).await;
    conn.until_ready().await
}

async fn run(conn: &mut Conn, name: &str) -> Reply {
    batch(conn, &[msg::bind("", name, &[]), msg::execute("", 0)]).await
}

async fn parse(conn: &mut Conn, name: &str, sql: &str) -> Reply {
    batch(conn, &[msg::parse(name, sql, &[])]).await
}

#[tokio::test]
async fn follow_the_client_to_any_server() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 3).start().await;
        let mut client = pooler.client("u_trust", "p").await;
        assert_eq!(
            parse(&mut client, "s", "SELECT pg_backend_pid()")
                .await
                .tags(),
            "1Z"
        );
        let first = run(&mut client, "s").await.value();
        let mut holders = Vec::new();
        let mut seen = std::collections::HashSet::from([first]);
        for _ in 0..2 {
            let mut holder = pooler.client("u_trust", "p").await;
            hold_server(&mut holder).await;
            holders.push(holder);
            let reply = run(&mut client, "s").await;
            assert_eq!(reply.tags(), "2DCZ", "a Parse on the way is not shown");
            seen.insert(reply.value());
        }
        assert!(seen.len() > 1);
    })
    .await;
}

#[tokio::test]
async fn names_of_two_clients_do_not_meet() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        let mut a = pooler.client("u_trust", "p").await;
        let mut b = pooler.client("u_trust", "p").await;
        parse(&mut a, "s", "SELECT 'a'").await;
        parse(&mut b, "s", "SELECT 'b'").await;
        for _ in 0..3 {
            assert_eq!(run(&mut a, "s").await.value(), "a");
            assert_eq!(run(&mut b, "s").await.value(), "b");
        }
        assert_eq!(batch(&mut a, &[msg::close(b'S', "s")]).await.tags(), "3Z");
        assert_eq!(run(&mut b, "s").await.value(), "b");
        assert_eq!(parse(&mut a, "s", "SELECT 'again'").await.tags(), "1Z");
        assert_eq!(run(&mut a, "s").await.value(), "again");
    })
    .await;
}

#[tokio::test]
async fn one_text_is_prepared_once_per_server() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        for i in 0..5 {
            let mut client = pooler.client("u_trust", "p").await;
            assert_eq!(
                parse(
                    &mut client,
                    &format!("name{i}"),
                    "SELECT count(*) FROM pg_prepared_statements"
                )
                .await
                .tags(),
                "1Z"
            );
            assert_eq!(run(&mut client, &format!("name{i}")).await.value(), "1");
        }
        let stats = pooler.show("STATS_TOTALS").await;
        assert_eq!(stats.value("database", "p", "client_parse_count"), "5");
        assert_eq!(stats.value("database", "p", "server_parse_count"), "1");
        assert_eq!(stats.value("database", "p", "bind_count"), "5");
    })
    .await;
}

#[tokio::test]
async fn are_limited_per_server() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini
            .set("default_pool_size", 1)
            .set("max_prepared_statements", 3)
            .start()
            .await;
        let mut client = pooler.client("u_trust", "p").await;
        for i in 0..10 {
            parse(&mut client, &format!("s{i}"), &format!("SELECT {i}")).await;
        }
        for _ in 0..2 {
            for i in 0..10 {
                assert_eq!(
                    run(&mut client, &format!("s{i}")).await.value(),
                    i.to_string()
                );
            }
        }
        let count: usize = client
            .ok("SELECT count(*) FROM pg_prepared_statements")
            .await
            .value()
            .parse()
            .unwrap();
        assert!(count <= 3, "{count} on the server");
    })
    .await;
}

#[tokio::test]
async fn deallocate_all_and_discard_all_forget_them() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        for forget in ["DEALLOCATE ALL", "DISCARD ALL"] {
            let mut client = pooler.client("u_trust", "p").await;
            let mut other = pooler.client("u_trust", "p").await;
            parse(&mut client, "s", "SELECT 'first'").await;
            parse(&mut other, "s", "SELECT 'other'").await;
            client.ok(forget).await;
            assert_eq!(
                parse(&mut client, "s", "SELECT 'second'").await.tags(),
                "1Z",
                "{forget}"
            );
            assert_eq!(run(&mut client, "s").await.value(), "second", "{forget}");
            assert_eq!(
                run(&mut other, "s").await.value(),
                "other",
                "{forget} of another client"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn wrong_names_are_errors_not_the_end() {
    not_in_pgbouncer!("it closes the connection");
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        let unknown = run(&mut client, "nobody").await;
        assert_eq!(
            unknown.error_text().as_deref(),
            Some("ERROR 26000 prepared statement \"nobody\" does not exist")
        );
        assert_eq!(unknown.tags(), "EZ");
        parse(&mut client, "s", "SELECT 1").await;
        let twice = parse(&mut client, "s", "SELECT 2").await;
        assert_eq!(
            twice.error_text().as_deref(),
            Some("ERROR 42P05 prepared statement \"s\" already exists")
        );
        assert_eq!(run(&mut client, "s").await.value(), "1");
    })
    .await;
}

#[tokio::test]
async fn a_name_whose_parse_failed_is_free() {
    not_in_pgbouncer!("it keeps the name");
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        assert!(
            parse(&mut client, "s", "SELECT nonsense")
                .await
                .error_text()
                .is_some()
        );
        assert_eq!(parse(&mut client, "s", "SELECT 3").await.tags(), "1Z");
        assert_eq!(run(&mut client, "s").await.value(), "3");
        // Skipped by an error before it: the same.
        let skipped = batch(
            &mut client,
            &[
                msg::parse("", "SELEC", &[]),
                msg::parse("t", "SELECT 4", &[]),
            ],
        )
        .await;
        assert_eq!(skipped.tags(), "EZ");
        assert_eq!(parse(&mut client, "t", "SELECT 5").await.tags(), "1Z");
        assert_eq!(run(&mut client, "t").await.value(), "5");
    })
    .await;
}

#[tokio::test]
async fn come_back_after_reconnect() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        let mut client = pooler.client("u_trust", "p").await;
        parse(&mut client, "s", "SELECT pg_backend_pid()").await;
        let before = run(&mut client, "s").await.value();
        assert_eq!(pooler.console("RECONNECT").await.error_text(), None);
        wait_until("another server", || async {
            pooler
                .log()
                .contains("closing because: database configuration changed")
        })
        .await;
        assert_ne!(run(&mut client, "s").await.value(), before);
    })
    .await;
}

#[tokio::test]
async fn a_shared_statement_in_a_failed_block_is_not_faked() {
    not_in_pgbouncer!("it answers ParseComplete by itself");
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        let mut a = pooler.client("u_trust", "p").await;
        parse(&mut a, "s", "SELECT 1").await;
        let mut b = pooler.client("u_trust", "p").await;
        b.ok("BEGIN").await;
        b.query("SELECT 1/0").await;
        let reply = parse(&mut b, "s", "SELECT 1").await;
        assert_eq!((reply.tags().as_str(), reply.status()), ("EZ", 'E'));
        b.ok("ROLLBACK").await;
        assert_eq!(parse(&mut b, "s", "SELECT 1").await.tags(), "1Z");
        assert_eq!(run(&mut b, "s").await.value(), "1");
    })
    .await;
}

/// PostgreSQL keeps statements of the protocol and of SQL in one name space; some drivers drop theirs by SQL.
#[tokio::test]
async fn can_be_deallocated_by_sql() {
    not_in_pgbouncer!("it knows nothing of DEALLOCATE with a name");
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        let mut client = pooler.client("u_trust", "p").await;
        let mut other = pooler.client("u_trust", "p").await;
        parse(&mut other, "theirs", "SELECT 'a'").await;
        for sql in [
            "DEALLOCATE s",
            "deallocate prepare \"s\" ;",
            " /* x */DEALLOCATE S",
        ] {
            assert_eq!(parse(&mut client, "s", "SELECT 'a'").await.tags(), "1Z");
            let reply = client.ok(sql).await;
            assert_eq!(reply.tags(), "CZ", "{sql}");
            assert_eq!(reply.frames[0].body, b"DEALLOCATE\0");
            let gone = run(&mut client, "s").await;
            let text = "ERROR 26000 prepared statement \"s\" does not exist";
            assert_eq!(gone.error_text().as_deref(), Some(text));
            assert_eq!(client.query(sql).await.error_text().as_deref(), Some(text));
            assert_eq!(run(&mut other, "theirs").await.value(), "a");
        }
        // By the extended protocol, and its name is free at once.
        parse(&mut client, "s", "SELECT 'a'").await;
        let drop = [
            msg::parse("", "DEALLOCATE s", &[]),
            msg::bind("p", "", &[]),
            msg::describe(b'P', "p"),
            msg::execute("p", 0),
        ];
        let again = [
            msg::parse("s", "SELECT 'b'", &[]),
            msg::bind("", "s", &[]),
            msg::execute("", 0),
        ];
        assert_eq!(
            batch(&mut client, &[&drop[..], &again].concat())
                .await
                .tags(),
            "12nC12DCZ"
        );
        // In pipelines.
        let pipeline = [
            &msg::query("DEALLOCATE s")[..],
            &msg::parse("s", "SELECT 'c'", &[]),
            &msg::sync(),
            &msg::query("DEALLOCATE s"),
            &msg::bind("", "s", &[]),
            &msg::sync(),
            &msg::query("SELECT 1"),
        ];
        client.send(&pipeline.concat()).await;
        for tags in ["CZ", "1Z", "CZ", "EZ", "TDCZ"] {
            assert_eq!(client.until_ready().await.tags(), tags);
        }
        // In a failed block it is refused, and the name stays.
        parse(&mut client, "s", "SELECT 'd'").await;
        client.ok("BEGIN").await;
        client.query("SELECT 1/0").await;
        let refused = client.query("DEALLOCATE s").await;
        assert_eq!(
            refused.error_text().as_deref().map(|e| &e[..11]),
            Some("ERROR 25P02")
        );
        client.ok("ROLLBACK").await;
        assert_eq!(run(&mut client, "s").await.value(), "d");
        client.ok("BEGIN").await;
        client.ok("DEALLOCATE s").await;
        client.ok("ROLLBACK").await;
        assert!(
            run(&mut client, "s").await.error_text().is_some(),
            "not undone"
        );
    })
    .await;
}

#[tokio::test]
async fn cannot_be_executed_by_sql_and_the_error_says_what_to_do() {
    not_in_pgbouncer!("it passes PostgreSQL's error as it is");
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        parse(&mut client, "s", "SELECT 1").await;
        let reply = client.query("EXECUTE s").await;
        let text = "ERROR 26000 prepared statement \"s\" does not exist";
        assert_eq!(reply.error_text().as_deref(), Some(text));
        let hint = reply.frames[0].field(b'H').unwrap_or_default();
        assert!(
            hint.starts_with("It was prepared by the protocol"),
            "{hint}"
        );
        let reply = client.query("EXECUTE t").await;
        assert_eq!(reply.frames[0].field(b'H'), None);
    })
    .await;
}

/// PostgreSQL refuses such a statement for as long as it is prepared, and PgBouncer until RECONNECT.
#[tokio::test]
async fn recover_when_their_result_changes_its_type() {
    not_in_pgbouncer!("it passes the error until RECONNECT");
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 2).start().await;
        let mut client = pooler.client("u_trust", "p").await;
        let mut holder = pooler.client("u_trust", "p").await;
        client.ok("CREATE TABLE changing AS SELECT 1 AS n").await;
        parse(&mut client, "s", "SELECT * FROM changing").await;
        parse(&mut client, "t", "SELECT n FROM changing").await;
        // On both servers.
        for _ in 0..2 {
            assert_eq!(run(&mut client, "s").await.value(), "1");
            hold_server(&mut holder).await;
            assert_eq!(run(&mut client, "s").await.value(), "1");
            client.ok("BEGIN").await;
            holder.ok("COMMIT").await;
            client.ok("COMMIT").await;
        }
        client
            .ok("ALTER TABLE changing ADD m text DEFAULT 'new'")
            .await;
        let failed = run(&mut client, "s").await;
        let text = "ERROR 0A000 cached plan must not change result type";
        assert_eq!(failed.error_text().as_deref(), Some(text));
        // Never again, on whichever server.
        assert_eq!(run(&mut client, "s").await.rows()[0].len(), 2);
        hold_server(&mut holder).await;
        assert_eq!(run(&mut client, "s").await.rows()[0].len(), 2);
        holder.ok("COMMIT").await;
        assert_eq!(run(&mut client, "t").await.value(), "1");
        // In a transaction block the block fails, and then it works.
        client.ok("ALTER TABLE changing DROP m").await;
        client.ok("BEGIN").await;
        assert_eq!(run(&mut client, "s").await.status(), 'E');
        client.ok("ROLLBACK").await;
        client.ok("BEGIN").await;
        assert_eq!(run(&mut client, "s").await.rows()[0].len(), 1);
        client.ok("COMMIT").await;
    })
    .await;
}

#[tokio::test]
async fn errors_speak_of_the_clients_names() {
    not_in_pgbouncer!("they speak of its own");
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        parse(&mut client, "mine", "SELECT $1::int").await;
        let reply = run(&mut client, "mine").await;
        let text = "ERROR 08P01 bind message supplies 0 parameters, but prepared statement \"mine\" requires 1";
        assert_eq!(reply.error_text().as_deref(), Some(text));
    })
    .await;
}

#[tokio::test]
async fn their_limit_can_be_changed_while_running() {
    not_in_pgbouncer!("it forwards the raw names once the limit is 0");
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini
            .set("default_pool_size", 1)
            .set("max_prepared_statements", 10)
            .start()
            .await;
        let mut client = pooler.client("u_trust", "p").await;
        for i in 0..8 {
            parse(&mut client, &format!("s{i}"), &format!("SELECT {i}")).await;
        }
        let count = "SELECT count(*) FROM pg_prepared_statements";
        assert_eq!(client.ok(count).await.value(), "8");
        ini.set("max_prepared_statements", 3).write();
        assert_eq!(pooler.console("RELOAD").await.error_text(), None);
        parse(&mut client, "s8", "SELECT 8").await;
        assert_eq!(client.ok(count).await.value(), "3");
        ini.set("max_prepared_statements", 0).write();
        assert_eq!(pooler.console("RELOAD").await.error_text(), None);
        for i in 0..9 {
            let value = run(&mut client, &format!("s{i}")).await.value();
            assert_eq!(value, i.to_string());
        }
        // Names of new clients pass as they are.
        let mut raw = pooler.client("u_trust", "p").await;
        parse(&mut raw, "untouched", "SELECT 1").await;
        let names = "SELECT count(*) FROM pg_prepared_statements WHERE name = 'untouched'";
        assert_eq!(raw.ok(names).await.value(), "1");
    })
    .await;
}

#[tokio::test]
async fn names_are_compared_by_their_first_63_bytes() {
    not_in_pgbouncer!("it compares all of it");
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        let long = "n".repeat(63);
        assert_eq!(
            parse(&mut client, &format!("{long}x"), "SELECT 1")
                .await
                .tags(),
            "1Z"
        );
        assert_eq!(run(&mut client, &format!("{long}y")).await.value(), "1");
        let twice = parse(&mut client, &format!("{long}z"), "SELECT 2").await;
        let text = format!("ERROR 42P05 prepared statement \"{long}z\" already exists");
        assert_eq!(twice.error_text(), Some(text));
        assert_eq!(
            batch(&mut client, &[msg::close(b'S', &long)]).await.tags(),
            "3Z"
        );
        assert!(run(&mut client, &long).await.error_text().is_some());
    })
    .await;
}
