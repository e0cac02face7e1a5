//! The three pool modes, the ways to choose one, and what database entries can ask for.

use super::*;
use crate::fixture::*;
use crate::proto::{Conn, Reply, msg};

#[tokio::test]
async fn session_mode_keeps_the_server_and_resets_it_afterwards() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini
            .set("pool_mode", "session")
            .set("default_pool_size", 1)
            .start()
            .await;
        let mut first = pooler.client("u_trust", "p").await;
        let pid = backend(&mut first).await;
        first.ok("SET work_mem = '1234kB'").await;
        first.ok("CREATE TEMP TABLE mine (a int)").await;
        first.ok("PREPARE mine AS SELECT 1").await;
        let mut second = pooler.client("u_trust", "p").await;
        second.send(&msg::query("SHOW work_mem")).await;
        wait_until("the second to wait", || async {
            pooler.pool("p", "u_trust").await.unwrap().clients_waiting == 1
        })
        .await;
        assert_eq!(first.ok("SHOW work_mem").await.value(), "1234kB");
        first.close().await;
        assert_eq!(second.until_ready().await.value(), "4MB");
        assert_eq!(backend(&mut second).await, pid);
        let gone = second.query("SELECT * FROM mine").await;
        assert_eq!(
            gone.error_text().as_deref(),
            Some("ERROR 42P01 relation \"mine\" does not exist")
        );
        assert!(second.query("EXECUTE mine").await.error_text().is_some());
    })
    .await;
}

#[tokio::test]
async fn session_mode_delivers_notifications_while_idle() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("pool_mode", "session").start().await;
        let mut listener = pooler.client("u_trust", "p").await;
        let mut speaker = pooler.client("u_trust", "p").await;
        listener.ok("LISTEN news").await;
        speaker.ok("NOTIFY news, 'hello'").await;
        let frame = listener.frame().await;
        assert!(frame.is(b'A'), "{frame:?}");
        assert_eq!(frame.body[4..], *b"news\0hello\0");
        assert_eq!(listener.ok("SELECT 1").await.value(), "1");
    })
    .await;
}

#[tokio::test]
async fn reset_query_is_for_session_mode_unless_always() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        ini.set("default_pool_size", 1)
            .set("server_reset_query", "SET work_mem = '2222kB'");
        let pooler = ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        client.ok("SET work_mem = '1111kB'").await;
        assert_eq!(client.ok("SHOW work_mem").await.value(), "1111kB");
        ini.set("server_reset_query_always", 1).write();
        assert_eq!(pooler.console("RELOAD").await.error_text(), None);
        client.ok("SET work_mem = '1111kB'").await;
        assert_eq!(client.ok("SHOW work_mem").await.value(), "2222kB");
        client.ok("BEGIN").await;
        client.ok("SET work_mem = '1111kB'").await;
        assert_eq!(client.ok("SHOW work_mem").await.value(), "1111kB");
        client.ok("COMMIT").await;
        assert_eq!(client.ok("SHOW work_mem").await.value(), "2222kB");
    })
    .await;
}

#[tokio::test]
async fn transaction_mode_shares_one_server() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        let mut clients = Vec::new();
        for _ in 0..10 {
            clients.push(pooler.client("u_trust", "p").await);
        }
        let pid = backend(&mut clients[0]).await;
        for _ in 0..3 {
            for client in &mut clients {
                assert_eq!(hold_server(client).await, pid);
                assert_eq!(client.ok("COMMIT").await.status(), 'I');
            }
        }
        let counts = pooler.pool("p", "u_trust").await.unwrap();
        assert_eq!(
            (
                counts.clients_active,
                counts.servers_active,
                counts.servers_idle
            ),
            (10, 0, 1)
        );
    })
    .await;
}

#[tokio::test]
async fn transaction_mode_holds_the_server_while_a_block_has_failed() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        let mut first = pooler.client("u_trust", "p").await;
        hold_server(&mut first).await;
        assert_eq!(first.query("SELECT 1/0").await.status(), 'E');
        let mut second = pooler.client("u_trust", "p").await;
        second.send(&msg::query("SELECT 2")).await;
        wait_until("the second to wait", || async {
            pooler.pool("p", "u_trust").await.unwrap().clients_waiting == 1
        })
        .await;
        assert_eq!(
            first
                .query("SELECT 1")
                .await
                .error_text()
                .as_deref()
                .map(|e| &e[..11]),
            Some("ERROR 25P02")
        );
        first.ok("ROLLBACK").await;
        assert_eq!(second.until_ready().await.value(), "2");
    })
    .await;
}

const BLOCKS_REFUSED: &str = "FATAL 08P01 transaction blocks not allowed in statement pooling mode";

#[tokio::test]
async fn statement_mode_refuses_transaction_blocks() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini
            .set("pool_mode", "statement")
            .set("default_pool_size", 1)
            .start()
            .await;
        let mut client = pooler.client("u_trust", "p").await;
        client.send(&msg::query("BEGIN")).await;
        let frames = client.until_closed().await;
        assert_eq!(
            frames.len(),
            1,
            "the completion of BEGIN is not shown: {frames:?}"
        );
        assert_eq!(frames[0].error_text(), BLOCKS_REFUSED);
        let mut extended = pooler.client("u_trust", "p").await;
        let begin = [
            msg::parse("", "BEGIN", &[]),
            msg::bind("", "", &[]),
            msg::execute("", 0),
            msg::sync(),
        ]
        .concat();
        extended.send(&begin).await;
        assert_eq!(extended.fatal().await, BLOCKS_REFUSED);
        // What ends within one query, or one batch, is fine.
        let mut client = pooler.client("u_trust", "p").await;
        assert_eq!(client.ok("BEGIN; SELECT 1; COMMIT").await.status(), 'I');
        let batch = [
            msg::parse("", "SELECT 5", &[]),
            msg::bind("", "", &[]),
            msg::execute("", 0),
            msg::sync(),
        ]
        .concat();
        client.send(&batch).await;
        assert_eq!(client.until_ready().await.tags(), "12DCZ");
        client.close().await;
        pooler.wait_pool_quiet("p", "u_trust").await;
    })
    .await;
}

#[tokio::test]
async fn mode_of_user_beats_database_beats_global() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        ini.database(
            "p",
            format!("{} dbname={db} pool_mode=session", cluster.address()),
        );
        ini.database("q", format!("{} dbname={db}", cluster.address()));
        ini.user("u_other", "pool_mode=statement");
        let pooler = ini.set("pool_mode", "transaction").start().await;
        let mut clients = Vec::new();
        for (user, database, mode) in [
            ("u_trust", "p", "session"),
            ("u_trust", "q", "transaction"),
            ("u_other", "p", "statement"),
            ("u_other", "q", "statement"),
        ] {
            let mut client = pooler.client(user, database).await;
            client.ok("SELECT 1").await;
            assert_eq!(
                client.login.parameter("pgbouncer.pool_mode"),
                Some(mode),
                "{user} in {database}"
            );
            clients.push(client);
            let pools = pooler.show("POOLS").await;
            let row = pools
                .find(&[("database", database), ("user", user)])
                .expect("the pool exists");
            assert_eq!(pools.get(row, "pool_mode"), mode, "{user} in {database}");
            assert_eq!(
                pools.get(row, "sv_active"),
                if mode == "session" { "1" } else { "0" }
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_forced_user_has_one_pool_for_all() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        ini.database(
            "p",
            format!(
                "{} dbname={db} user=u_scram password=u_scram_pw pool_size=1",
                cluster.address()
            ),
        );
        let pooler = ini.start().await;
        let mut pids = Vec::new();
        for user in ["u_trust", "u_other"] {
            let mut client = pooler.client(user, "p").await;
            assert_eq!(client.ok("SELECT current_user").await.value(), "u_scram");
            pids.push(backend(&mut client).await);
        }
        assert_eq!(pids[0], pids[1]);
        assert!(pooler.pool("p", "u_scram").await.is_some());
        assert!(pooler.pool("p", "u_trust").await.is_none());
    })
    .await;
}

#[tokio::test]
async fn a_star_entry_serves_every_database() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        let other = cluster.fresh_db().await;
        ini.database("*", cluster.address());
        let pooler = ini.start().await;
        for name in [&db, &other] {
            let mut client = pooler.client("u_trust", name).await;
            assert_eq!(client.ok("SELECT current_database()").await.value(), **name);
        }
        assert!(
            pooler
                .log()
                .contains(&format!("registered new auto-database: {other}")),
            "{}",
            pooler.log()
        );
        assert_eq!(
            pooler
                .show("DATABASES")
                .await
                .value("name", &other, "database"),
            other
        );
    })
    .await;
}

#[tokio::test]
async fn database_entries_prepare_their_servers() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        let settings = "connect_query='SET work_mem = ''3333kB''' application_name=entry datestyle=German timezone=Asia/Kolkata";
        ini.database("p", format!("{} dbname={db} {settings}", cluster.address()));
        let pooler = ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        assert_eq!(client.ok("SHOW work_mem").await.value(), "3333kB");
        assert_eq!(client.ok("SHOW application_name").await.value(), "entry");
        assert_eq!(client.ok("SHOW DateStyle").await.value(), "German, DMY");
        assert_eq!(client.login.parameter("TimeZone"), Some("Asia/Kolkata"));
    })
    .await;
}

#[tokio::test]
async fn servers_over_a_unix_socket() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        ini.database(
            "p",
            format!(
                "host={} port={} dbname={db}",
                cluster.dir.display(),
                cluster.port
            ),
        );
        let pooler = ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        assert_eq!(
            client.ok("SELECT inet_client_addr() IS NULL").await.value(),
            "t"
        );
    })
    .await;
}

#[tokio::test]
async fn clients_over_a_unix_socket() {
    bounded(60, async {
        let (_, db, ini) = setup().await;
        let pooler = ini.start().await;
        let mut client = Conn::unix(&pooler.socket()).await;
        client.log_in("u_trust", "p", None).await;
        assert_eq!(client.ok("SELECT current_database()").await.value(), db);
        let clients = pooler.show("CLIENTS").await;
        let row = clients.find(&[("user", "u_trust")]).expect("it is listed");
        assert_eq!(clients.get(row, "addr"), "unix");
    })
    .await;
}

#[tokio::test]
async fn the_check_query_runs_before_reuse() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        cluster
            .sql(
                &db,
                "CREATE TABLE checked (a int); GRANT ALL ON checked TO PUBLIC",
            )
            .await;
        ini.set("server_check_delay", 0)
            .set("server_check_query", "INSERT INTO checked VALUES (1)")
            .set("default_pool_size", 1);
        let pooler = ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        for _ in 0..3 {
            client.ok("SELECT 1").await;
        }
        let checks: usize = cluster
            .sql(&db, "SELECT count(*) FROM checked")
            .await
            .value()
            .parse()
            .unwrap();
        assert!(checks >= 2, "{checks} checks");
    })
    .await;
}

#[tokio::test]
async fn round_robin_or_the_last_one_first() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        for (round_robin, expected) in [(0, 1), (1, 3)] {
            let pooler = ini
                .set("server_round_robin", round_robin)
                .set_ours("workers", 1)
                .start()
                .await;
            let mut clients = Vec::new();
            for _ in 0..3 {
                let mut client = pooler.client("u_trust", "p").await;
                hold_server(&mut client).await;
                clients.push(client);
            }
            for client in &mut clients {
                client.ok("COMMIT").await;
            }
            let mut seen = std::collections::HashSet::new();
            for _ in 0..6 {
                seen.insert(backend(&mut clients[0]).await);
            }
            assert_eq!(seen.len(), expected, "server_round_robin = {round_robin}");
        }
    })
    .await;
}

#[tokio::test]
async fn simple_queries_can_be_refused() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("disable_pqexec", 1).start().await;
        let mut client = pooler.client("u_trust", "p").await;
        client
            .send(
                &[
                    msg::parse("", "SELECT 1", &[]),
                    msg::bind("", "", &[]),
                    msg::execute("", 0),
                    msg::sync(),
                ]
                .concat(),
            )
            .await;
        let reply: Reply = client.until_ready().await;
        assert_eq!(reply.error_text(), None);
        client.send(&msg::query("SELECT 1")).await;
        assert_eq!(client.fatal().await, "FATAL 08P01 PQexec disallowed");
    })
    .await;
}

#[tokio::test]
async fn a_login_notice_and_the_host_in_the_application_name() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        ini.set("login_notify_message", "be welcome")
            .set("application_name_add_host", 1);
        let pooler = ini.start().await;
        let mut client = pooler.raw().await;
        client
            .log_in_with(
                &[
                    ("user", "u_trust"),
                    ("database", "p"),
                    ("application_name", "me"),
                ],
                None,
            )
            .await;
        let notices: Vec<_> = client
            .login
            .notices
            .iter()
            .filter_map(|n| n.field(b'M'))
            .collect();
        assert_eq!(notices, ["be welcome"]);
        let expected = format!("me - 127.0.0.1:{}", client.local_port());
        assert_eq!(client.ok("SHOW application_name").await.value(), expected);
    })
    .await;
}

/// Very large replies whose pieces gather on the way, with pauses in them, side by side: nothing is lost, mixed up or left behind.
#[tokio::test]
async fn large_replies_with_pauses_arrive_whole() {
    bounded(120, async {
        let (_, _, mut ini) = setup().await;
        for workers in [1, 2] {
            let pooler = ini.set("workers", workers).start().await;
            let copying = (0..3).map(|number| {
                let pooler = &pooler;
                async move {
                    let mut client = pooler.client("u_trust", "p").await;
                    for _ in 0..2 {
                        let rows = "SELECT i, repeat(chr(97 + i % 26), 500) FROM generate_series(1, 12000) AS i \
                                    WHERE i % 3000 > 0 OR pg_sleep(0.02) IS NOT NULL";
                        let reply = client.ok(rows).await;
                        assert_eq!(reply.rows().len(), 12_000, "client {number}");
                        for (row, i) in reply.rows().iter().zip(1_u32..) {
                            let letter = char::from(b'a' + (i % 26) as u8).to_string();
                            assert_eq!(row[0].as_deref(), Some(&*i.to_string()));
                            assert_eq!(row[1].as_deref(), Some(&*letter.repeat(500)));
                        }
                        assert_eq!(client.ok("SELECT 1").await.value(), "1");
                    }
                    client.close().await;
                }
            });
            futures_util::future::join_all(copying).await;
        }
    })
    .await;
}
