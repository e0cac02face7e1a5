//! What pgweir measures about itself, made to happen and read in the console: why clients wait, what goes wrong, how long things
//! take, and what SHOW EXPLAIN CLIENT says about it.

use nix::sys::signal::Signal;

use super::*;
use crate::fixture::*;
use crate::proto::{Conn, msg};

/// A client logs in and waits at rest.
async fn idle(pooler: &Pooler, user: &str, database: &str) -> Conn {
    let mut conn = pooler.client(user, database).await;
    conn.ok("SELECT 1").await;
    conn
}

/// What SHOW WAITS says of a pool and a reason: waits so far, clients that wait now.
async fn waits(pooler: &Pooler, database: &str, user: &str, reason: &str) -> (u64, u64) {
    let table = pooler.show("WAITS").await;
    let wanted = [("database", database), ("user", user), ("reason", reason)];
    let number = |row: &[Option<String>], column| table.get(row, column).parse().expect("a number");
    table
        .find(&wanted)
        .map_or((0, 0), |row| (number(row, "waits"), number(row, "waiting")))
}

async fn until_waits(pooler: &Pooler, pool: (&str, &str), reason: &str, expected: (u64, u64)) {
    let (database, user) = pool;
    let what = format!("{database}/{user} to have waited for {reason} {expected:?}");
    wait_until(&what, || async {
        waits(pooler, database, user, reason).await == expected
    })
    .await;
}

/// The row of SHOW EXPLAIN CLIENT for the only client of this user in this state.
async fn explain(pooler: &Pooler, user: &str, state: &str) -> (String, String, String) {
    let clients = pooler.show("CLIENTS").await;
    let row = clients.find(&[("user", user), ("state", state)]);
    let id = clients.get(row.expect("such a client"), "id").to_owned();
    let table = pooler.show(&format!("EXPLAIN CLIENT {id}")).await;
    let cell = |column| table.get(&table.rows[0], column).to_owned();
    (cell("state"), cell("reason"), cell("hint"))
}

/// The places that clients in the queue are told, in order.
async fn places(pooler: &Pooler) -> Vec<String> {
    let clients = pooler.show("CLIENTS").await;
    let mut places = Vec::new();
    for row in &clients.rows {
        if clients.get(row, "state") == "waiting" {
            let id = clients.get(row, "id");
            let table = pooler.show(&format!("EXPLAIN CLIENT {id}")).await;
            places.push(table.get(&table.rows[0], "place").to_owned());
        }
    }
    places.sort();
    places
}

/// How many errors of this kind were counted.
async fn errors(pooler: &Pooler, kind: &str) -> u64 {
    let count = pooler.show("ERRORS").await.value("kind", kind, "count");
    count.parse().expect("a number")
}

async fn until_errors(pooler: &Pooler, kind: &str, expected: u64) {
    wait_until(&format!("{expected} errors of kind {kind}"), || async {
        errors(pooler, kind).await == expected
    })
    .await;
}

/// A count of SHOW COUNTERS for `p/u_trust`.
async fn counter(pooler: &Pooler, what: &str, of: &str) -> u64 {
    let table = pooler.show("COUNTERS").await;
    let wanted = [
        ("database", "p"),
        ("user", "u_trust"),
        ("what", what),
        ("of", of),
    ];
    let row = table.find(&wanted);
    row.map_or(0, |row| table.get(row, "count").parse().expect("a number"))
}

/// How many of these times of `p/u_trust` were counted.
async fn counted(pooler: &Pooler, what: &str) -> u64 {
    let table = pooler.show("LATENCY").await;
    let row = table.find(&[("database", "p"), ("user", "u_trust"), ("what", what)]);
    row.map_or(0, |row| table.get(row, "count").parse().expect("a number"))
}

#[tokio::test]
async fn waits_for_a_full_pool_and_for_a_login() {
    not_in_pgbouncer!("its console has none of this");
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini
            .set("default_pool_size", 1)
            .set("workers", 1)
            .start()
            .await;
        let mut holder = pooler.client("u_trust", "p").await;
        // The first client waits for the server that it is greeted with.
        until_waits(&pooler, ("p", "u_trust"), "logging_in", (1, 0)).await;
        hold_server(&mut holder).await;
        let mut queued = Vec::new();
        for n in 1..=2 {
            let mut conn = pooler.client("u_trust", "p").await;
            conn.send(&msg::query("SELECT 'served'")).await;
            until_waits(&pooler, ("p", "u_trust"), "pool_full", (n, n)).await;
            queued.push(conn);
        }
        assert!(counter(&pooler, "connections_denied", "pool").await > 0);
        let (state, reason, hint) = explain(&pooler, "u_trust", "waiting").await;
        assert_eq!(state, "waiting");
        assert_eq!(places(&pooler).await, ["1", "2"]);
        assert!(
            reason.contains("the pool p/u_trust has all 1 of 1 servers, and 1 of them are in use"),
            "{reason}"
        );
        assert!(reason.contains("idle in transaction"), "{reason}");
        assert!(hint.contains("pool_size"), "{hint}");
        let (state, reason, _) = explain(&pooler, "u_trust", "active").await;
        assert_eq!(state, "idle in transaction", "{reason}");
        holder.ok("COMMIT").await;
        for conn in &mut queued {
            assert_eq!(conn.until_ready().await.value(), "served");
        }
        until_waits(&pooler, ("p", "u_trust"), "pool_full", (2, 0)).await;
        let (state, reason, _) = explain(&pooler, "u_trust", "idle").await;
        assert_eq!(state, "idle", "{reason}");
    })
    .await;
}

#[tokio::test]
async fn waits_for_the_limit_of_a_database() {
    not_in_pgbouncer!("its console has none of this");
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("max_db_connections", 1).start().await;
        let mut waits = idle(&pooler, "u_other", "p").await;
        let mut holder = idle(&pooler, "u_trust", "p").await;
        hold_server(&mut holder).await;
        waits.send(&msg::query("SELECT 'served'")).await;
        until_waits(&pooler, ("p", "u_other"), "database_limit", (1, 1)).await;
        let (_, reason, _) = explain(&pooler, "u_other", "waiting").await;
        assert!(reason.contains("max_db_connections"), "{reason}");
        assert!(reason.contains("idle in transaction"), "{reason}");
        holder.ok("COMMIT").await;
        assert_eq!(waits.until_ready().await.value(), "served");
    })
    .await;
}

#[tokio::test]
async fn waits_for_the_limit_of_a_user() {
    not_in_pgbouncer!("its console has none of this");
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        ini.database("q", format!("{} dbname={db}", cluster.address()));
        let pooler = ini.set("max_user_connections", 1).start().await;
        let mut waits = idle(&pooler, "u_trust", "q").await;
        let mut holder = idle(&pooler, "u_trust", "p").await;
        hold_server(&mut holder).await;
        waits.send(&msg::query("SELECT 'served'")).await;
        until_waits(&pooler, ("q", "u_trust"), "user_limit", (1, 1)).await;
        let (_, reason, _) = explain(&pooler, "u_trust", "waiting").await;
        assert!(reason.contains("max_user_connections"), "{reason}");
        holder.ok("COMMIT").await;
        assert_eq!(waits.until_ready().await.value(), "served");
    })
    .await;
}

#[tokio::test]
async fn waits_for_the_end_of_a_pause() {
    not_in_pgbouncer!("its console has none of this");
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut client = idle(&pooler, "u_trust", "p").await;
        pooler.console("PAUSE p").await;
        client.send(&msg::query("SELECT 'served'")).await;
        until_waits(&pooler, ("p", "u_trust"), "paused", (1, 1)).await;
        let (_, reason, hint) = explain(&pooler, "u_trust", "waiting").await;
        assert!(reason.contains("is paused"), "{reason}");
        assert!(hint.contains("RESUME"), "{hint}");
        pooler.console("RESUME p").await;
        assert_eq!(client.until_ready().await.value(), "served");
        until_waits(&pooler, ("p", "u_trust"), "paused", (1, 0)).await;
    })
    .await;
}

#[tokio::test]
async fn waits_for_a_server_that_is_down() {
    not_in_pgbouncer!("its console has none of this");
    let cluster = std::thread::spawn(Cluster::own).join().expect("a cluster");
    bounded(90, async {
        let db = cluster.fresh_db().await;
        let mut ini = Ini::with_database(&cluster, &db);
        let pooler = ini
            .set("server_login_retry", 0)
            .set("workers", 1)
            .start()
            .await;
        let mut first = idle(&pooler, "u_trust", "p").await;
        let mut second = idle(&pooler, "u_trust", "p").await;
        cluster.stop(Signal::SIGQUIT);
        wait_until("the pool to be empty", || async {
            pooler.console("RECONNECT p").await;
            let servers = pooler.show("SERVERS").await;
            servers.find(&[("database", "p")]).is_none()
        })
        .await;
        first.send(&msg::query("SELECT 'served'")).await;
        // It began to wait when nothing was known; as soon as an attempt has failed, that is the reason.
        wait_until("the reason to be that no server can be had", || async {
            waits(&pooler, "p", "u_trust", "server_down").await.1 == 1
        })
        .await;
        second.send(&msg::query("SELECT 'served'")).await;
        wait_until("a wait that began for that reason", || async {
            waits(&pooler, "p", "u_trust", "server_down").await == (1, 2)
        })
        .await;
        let (_, reason, hint) = explain(&pooler, "u_trust", "waiting").await;
        assert!(reason.contains("no server can be connected"), "{reason}");
        assert!(hint.contains("PostgreSQL"), "{hint}");
        assert!(errors(&pooler, "server_connect_failed").await > 0);
    })
    .await;
}

#[tokio::test]
async fn explaining_nobody_is_an_error() {
    not_in_pgbouncer!("its console has none of this");
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        for (command, text) in [
            (
                "SHOW EXPLAIN CLIENT 987654321",
                "client not found: 987654321",
            ),
            ("SHOW EXPLAIN CLIENT joe", "needs a client's number"),
            ("SHOW EXPLAIN CLIENT", "needs a client's number"),
            ("SHOW EXPLAIN SERVER 1", "invalid command"),
        ] {
            let reply = pooler.console(command).await;
            let error = reply.error_text().expect("an error");
            assert!(error.contains(text), "{command}: {error}");
        }
        let admin = pooler.admin().await;
        let clients = pooler.show("CLIENTS").await;
        let row = clients.find(&[("user", "admin")]).expect("the console");
        let id = clients.get(row, "id").to_owned();
        let explained = pooler.show(&format!("EXPLAIN CLIENT {id}")).await;
        assert_eq!(explained.get(&explained.rows[0], "state"), "console");
        drop(admin);
    })
    .await;
}

#[tokio::test]
async fn errors_of_logins() {
    not_in_pgbouncer!("its console has none of this");
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        ini.database("q", format!("{} dbname={db}", cluster.address()));
        ini.database(
            "small",
            format!(
                "{} dbname={db} max_db_client_connections=1",
                cluster.address()
            ),
        );
        let pooler = ini.set("client_login_timeout", 1).start().await;
        let port = pooler.port;

        assert!(
            Conn::try_login(port, "u_trust", "pgbouncer", None)
                .await
                .is_err()
        );
        until_errors(&pooler, "auth_failed", 1).await;
        assert!(
            Conn::try_login(port, "u_trust", "no_such", None)
                .await
                .is_err()
        );
        until_errors(&pooler, "login_refused", 1).await;
        pooler.console("DISABLE q").await;
        assert!(Conn::try_login(port, "u_trust", "q", None).await.is_err());
        until_errors(&pooler, "closed", 1).await;
        let first = pooler.client("u_trust", "small").await;
        assert!(
            Conn::try_login(port, "u_trust", "small", None)
                .await
                .is_err()
        );
        until_errors(&pooler, "too_many_clients", 1).await;
        first.close().await;
        // One that says only half of what it wants.
        let mut slow = pooler.raw().await;
        slow.send(&[0, 0, 0, 100, 0, 3, 0, 0]).await;
        slow.until_closed().await;
        until_errors(&pooler, "login_timeout", 1).await;
        let mut lost = pooler.raw().await;
        lost.send(&[0, 0, 0, 100, 0, 3, 0, 0]).await;
        drop(lost);
        until_errors(&pooler, "client_lost", 1).await;
        let mut confused = pooler.raw().await;
        confused.send(b"GET / HTTP/1.1\r\n\r\n").await;
        confused.until_closed().await;
        until_errors(&pooler, "protocol", 1).await;
    })
    .await;
}

#[tokio::test]
async fn errors_of_clients() {
    not_in_pgbouncer!("its console has none of this");
    bounded(90, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        let lost = idle(&pooler, "u_trust", "p").await;
        drop(lost);
        until_errors(&pooler, "client_lost", 1).await;
        let mut confused = idle(&pooler, "u_trust", "p").await;
        confused.send(b"z\0\0\0\x04").await;
        confused.until_closed().await;
        until_errors(&pooler, "protocol", 1).await;
        let killed = idle(&pooler, "u_trust", "p").await;
        // Who was told good-bye may be on the way out still.
        wait_until("it to be the only one", || async {
            let clients = pooler.show("CLIENTS").await;
            let of_pool = |row: &&Vec<_>| clients.get(row, "user") == "u_trust";
            clients.rows.iter().filter(of_pool).count() == 1
        })
        .await;
        let clients = pooler.show("CLIENTS").await;
        let row = clients.find(&[("user", "u_trust")]).expect("the client");
        pooler
            .console(&format!("KILL_CLIENT {}", clients.get(row, "id")))
            .await;
        until_errors(&pooler, "killed", 1).await;
        drop(killed);
        let mut holder = idle(&pooler, "u_trust", "p").await;
        hold_server(&mut holder).await;
        let mut waits = pooler.client("u_trust", "p").await;
        waits.send(&msg::query("SELECT 1")).await;
        until_waits(&pooler, ("p", "u_trust"), "pool_full", (1, 1)).await;
        pooler.console("SHUTDOWN WAIT_FOR_SERVERS").await;
        waits.fatal().await;
        until_errors(&pooler, "pooler_shutdown", 1).await;
        // Who says good-bye is no error, and neither is a console.
        assert_eq!(errors(&pooler, "client_lost").await, 1);
    })
    .await;
}

/// Each with a limit of one second.
#[tokio::test]
async fn errors_of_timeouts() {
    not_in_pgbouncer!("its console has none of this");
    bounded(90, async {
        for (setting, kind) in [
            ("query_timeout", "query_timeout"),
            ("query_wait_timeout", "query_wait_timeout"),
            ("idle_transaction_timeout", "idle_transaction_timeout"),
            ("transaction_timeout", "transaction_timeout"),
            ("client_idle_timeout", "client_idle_timeout"),
        ] {
            let (_, _, mut ini) = setup().await;
            ini.set(setting, 1).set("default_pool_size", 1);
            let pooler = ini.start().await;
            let mut client = idle(&pooler, "u_trust", "p").await;
            let mut other = pooler.client("u_trust", "p").await;
            match setting {
                "query_timeout" => client.send(&msg::query("SELECT pg_sleep(60)")).await,
                "client_idle_timeout" => {}
                "query_wait_timeout" => {
                    hold_server(&mut client).await;
                    other.send(&msg::query("SELECT 1")).await;
                    std::mem::swap(&mut client, &mut other);
                }
                _ => drop(hold_server(&mut client).await),
            }
            client.fatal().await;
            wait_until(&format!("{kind} to be counted"), || async {
                errors(&pooler, kind).await > 0
            })
            .await;
        }
    })
    .await;
}

#[tokio::test]
async fn errors_of_what_is_not_allowed_and_of_changed_servers() {
    not_in_pgbouncer!("its console has none of this");
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        ini.database(
            "s",
            format!("{} dbname={db} pool_mode=statement", cluster.address()),
        );
        ini.database(
            "k",
            format!("{} dbname={db} pool_mode=session", cluster.address()),
        );
        let pooler = ini.set("server_fast_close", 1).start().await;
        let mut client = idle(&pooler, "u_trust", "s").await;
        client.send(&msg::query("BEGIN")).await;
        client.until_closed().await;
        until_errors(&pooler, "not_allowed", 1).await;
        let mut keeper = idle(&pooler, "u_trust", "k").await;
        pooler.console("RECONNECT k").await;
        keeper.until_closed().await;
        until_errors(&pooler, "reconfigured", 1).await;
    })
    .await;
}

#[tokio::test]
async fn errors_of_servers() {
    not_in_pgbouncer!("its console has none of this");
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        ini.database(
            "missing",
            format!("{} dbname=no_such_db", cluster.address()),
        );
        let confused = Script::start(|mut peer: Peer| async move {
            peer.log_in().await?;
            peer.query().await?;
            peer.send(msg::typed(b'~', b"?")).await?;
            peer.hang().await
        })
        .await;
        ini.database("confused", confused.entry());
        let pooler = ini.start().await;
        let refused = Conn::try_login(pooler.port, "u_trust", "missing", None).await;
        assert!(refused.is_err());
        until_errors(&pooler, "server_login_failed", 1).await;
        until_errors(&pooler, "server_unavailable", 1).await;
        let mut client = idle(&pooler, "u_trust", "p").await;
        let pid = hold_server(&mut client).await;
        client.send(&msg::query("SELECT pg_sleep(60)")).await;
        cluster
            .sql(&db, &format!("SELECT pg_terminate_backend({pid})"))
            .await;
        client.until_closed().await;
        until_errors(&pooler, "server_lost", 1).await;
        let mut client = pooler.client("u_trust", "confused").await;
        client.send(&msg::query("SELECT 1")).await;
        client.until_closed().await;
        until_errors(&pooler, "server_protocol", 1).await;
        assert_eq!(errors(&pooler, "client_lost").await, 0);
    })
    .await;
}

#[tokio::test]
async fn times_and_bytes_are_counted() {
    not_in_pgbouncer!("its console has none of this");
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("workers", 2).start().await;
        let mut client = pooler.client("u_trust", "p").await;
        for what in ["login", "connect"] {
            wait_until(&format!("a {what}"), || async {
                counted(&pooler, what).await == 1
            })
            .await;
        }
        client.ok("SELECT pg_sleep(0.2)").await;
        client.ok("BEGIN").await;
        client.ok("COMMIT").await;
        for (what, count) in [("query", 3), ("transaction", 2), ("wait", 2)] {
            wait_until(&format!("{count} times of {what}"), || async {
                counted(&pooler, what).await == count
            })
            .await;
        }
        let table = pooler.show("LATENCY").await;
        let row = table
            .find(&[("database", "p"), ("what", "query")])
            .expect("queries");
        let number = |column| table.get(row, column).parse::<u64>().expect("a number");
        assert!(number("max_us") >= 200_000 && number("p999_us") == number("max_us"));
        assert!(number("p50_us") < 200_000 && number("avg_us") >= 200_000 / 3);
        // Nothing is rewritten here: what comes in on one side goes out on the other.
        for (one, other) in [("client_in", "server_out"), ("server_in", "client_out")] {
            let bytes = counter(&pooler, "bytes", one).await;
            assert!(bytes > 0 && bytes == counter(&pooler, "bytes", other).await);
        }
        let workers = pooler.show("WORKERS").await;
        let names: Vec<&str> = workers
            .rows
            .iter()
            .map(|row| workers.get(row, "thread"))
            .collect();
        assert_eq!(names[..2], ["worker-0", "worker-1"]);
        assert!(
            names.contains(&"login") && names.contains(&"main"),
            "{names:?}"
        );
        let sum = |column| -> u64 {
            let cells = workers.rows.iter().map(|row| workers.get(row, column));
            cells.filter_map(|cell| cell.parse::<u64>().ok()).sum()
        };
        assert_eq!((sum("clients"), sum("servers"), sum("queries")), (1, 1, 3));
        let top = pooler.show("TOP").await;
        assert_eq!(top.value("database", "p", "total_queries"), "3");
        assert_eq!(top.value("database", "p", "time_percent"), "100");
    })
    .await;
}

#[tokio::test]
async fn pins_and_prepared_statements_are_counted() {
    not_in_pgbouncer!("its console has none of this");
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("workers", 1).start().await;
        let mut client = idle(&pooler, "u_trust", "p").await;
        let run = [msg::bind("", "s", &[]), msg::execute("", 0), msg::sync()].concat();
        client
            .send(&[&msg::parse("s", "SELECT 1", &[])[..], &run].concat())
            .await;
        client.until_ready().await;
        client.send(&run).await;
        client.until_ready().await;
        wait_until("the uses of the statement", || async {
            let hits = counter(&pooler, "prepared_statements", "hits").await;
            (
                hits,
                counter(&pooler, "prepared_statements", "misses").await,
            ) == (2, 1)
        })
        .await;
        assert_eq!(counter(&pooler, "pins", "sql_prepared").await, 0);
        client.ok("PREPARE by_sql AS SELECT 2").await;
        wait_until("the server to be asked for statements", || async {
            counter(&pooler, "pins", "sql_prepared").await == 1
        })
        .await;
        // The first query ends a transaction while the second, sent with it, still runs.
        let both = [msg::query("SELECT 1"), msg::query("SELECT pg_sleep(0.3)")].concat();
        client.send(&both).await;
        client.until_ready().await;
        client.until_ready().await;
        wait_until("a pin by a pipeline", || async {
            counter(&pooler, "pins", "pipeline").await > 0
        })
        .await;
    })
    .await;
}
