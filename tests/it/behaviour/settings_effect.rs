//! That settings do what they say, where no other file here asks: changed by SET on a running pooler, where that is allowed.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use super::*;
use crate::fixture::tls::Authority;
use crate::fixture::*;
use crate::proto::{Conn, msg};

/// A SET that must succeed; gives the notices that came with it.
async fn set(pooler: &Pooler, key: &str, value: &str) -> Vec<String> {
    let reply = pooler.console(&format!("SET {key} = '{value}'")).await;
    assert_eq!(reply.error_text(), None, "SET {key} = '{value}'");
    reply.notices()
}

async fn waiting(pooler: &Pooler) -> usize {
    let pool = pooler.pool("p", "u_trust").await;
    pool.map_or(0, |pool| pool.clients_waiting)
}

#[tokio::test]
async fn what_is_logged_is_switched_while_it_runs() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        for key in ["log_connections", "log_disconnections", "log_pooler_errors"] {
            set(&pooler, key, "0").await;
        }
        let refused = || async {
            let mut conn = pooler.raw().await;
            conn.send(&msg::startup(&[
                ("user", "u_trust"),
                ("database", "nowhere"),
            ]))
            .await;
            assert_eq!(conn.fatal().await, "FATAL 08P01 no such database: nowhere");
        };
        let quiet = pooler.log().len();
        pooler.client("u_trust", "p").await.close().await;
        refused().await;
        pooler.wait_pool_quiet("p", "u_trust").await;
        let log = pooler.log();
        for text in [
            "login attempt",
            "new connection to server",
            "closing because",
            "pooler error",
        ] {
            assert!(!log[quiet..].contains(text), "{text}: {}", &log[quiet..]);
        }
        for key in ["log_connections", "log_disconnections", "log_pooler_errors"] {
            set(&pooler, key, "1").await;
        }
        pooler.client("u_other", "p").await.close().await;
        refused().await;
        for text in [
            "login attempt: db=p user=u_other",
            "/u_other@127.0.0.1:",
            "closing because: client close request",
            "pooler error: no such database: nowhere",
        ] {
            pooler.wait_log(text).await;
        }
    })
    .await;
}

#[tokio::test]
async fn statistics_are_logged_every_stats_period() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("stats_period", 1).start().await;
        pooler.wait_log("LOG stats: 0 xacts/s, 0 queries/s, 0 client parses/s, 0 server parses/s, 0 binds/s, ").await;
        let lines = || pooler.log().matches(" LOG stats: ").count();
        set(&pooler, "log_stats", "0").await;
        let before = lines();
        sleep_ms(2500).await;
        assert!(lines() <= before + 1);
        set(&pooler, "log_stats", "1").await;
        let before = lines();
        wait_until("the next line", || async { lines() > before }).await;
    })
    .await;
}

/// PgBouncer says that it can be changed, and goes on as before.
#[tokio::test]
async fn a_new_stats_period_holds_at_once() {
    not_in_pgbouncer!("a known mistake");
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        set(&pooler, "stats_period", "1").await;
        pooler.wait_log(" LOG stats: ").await;
        let lines = || pooler.log().matches(" LOG stats: ").count();
        wait_until("several lines", || async { lines() >= 3 }).await;
        set(&pooler, "stats_period", "60").await;
        let before = lines();
        sleep_ms(2500).await;
        assert!(lines() <= before + 1);
    })
    .await;
}

#[tokio::test]
async fn the_unix_socket_has_its_mode_and_group() {
    bounded(30, async {
        let (_, _, mut ini) = setup().await;
        let own = std::fs::metadata(ini.dir()).expect("our folder").gid();
        ini.set("unix_socket_mode", "0750")
            .set("unix_socket_group", own);
        let pooler = ini.start().await;
        let socket = std::fs::metadata(pooler.socket()).expect("the pooler listens");
        assert_eq!(
            (socket.permissions().mode() & 0o777, socket.gid()),
            (0o750, own)
        );
        assert_eq!(
            pooler
                .show("CONFIG")
                .await
                .value("key", "unix_socket_mode", "value"),
            "488"
        );
    })
    .await;
}

#[tokio::test]
async fn long_packets_are_refused() {
    bounded(30, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("max_packet_size", 2000).start().await;
        let mut client = pooler.client("u_trust", "p").await;
        client.ok(&format!("SELECT '{}'", "x".repeat(1500))).await;
        client
            .send(&msg::query(&format!("SELECT '{}'", "x".repeat(3000))))
            .await;
        assert!(
            client
                .fatal()
                .await
                .starts_with("FATAL 08P01 bad packet header")
        );
        // What servers send is meant too: a message, not a whole answer.
        let mut client = pooler.client("u_trust", "p").await;
        let rows = "SELECT repeat('x', 1500) FROM generate_series(1, 50)";
        assert_eq!(client.ok(rows).await.rows().len(), 50);
        client.send(&msg::query("SELECT repeat('x', 5000)")).await;
        let told = client.until_closed().await;
        let last = told.last().expect("not closed without a word").error_text();
        assert_eq!(last, "FATAL 08P01 bad pkt header");
    })
    .await;
}

/// When a line of the log was written: `2026-11-21 01:02:03.456 UTC [123] LOG …`
fn time_of_day(line: &str) -> Duration {
    let time = line.split(' ').nth(1).expect("a time");
    let parts = time.split([':', '.']).map(|part| part.parse::<u64>());
    let parts: Vec<u64> = parts.collect::<Result<_, _>>().expect("numbers");
    let &[hours, minutes, seconds, millis] = parts.as_slice() else {
        panic!("{line}");
    };
    Duration::from_millis(((hours * 60 + minutes) * 60 + seconds) * 1000 + millis)
}

/// A server is closed for its age not sooner than lifetime / pool_size after the last that was.
#[tokio::test]
async fn old_servers_are_closed_one_after_the_other() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        ini.set("server_lifetime", 3)
            .set("default_pool_size", 2)
            .set("pool_mode", "session");
        let pooler = ini.start().await;
        let mut clients = Vec::new();
        for _ in 0..2 {
            let mut client = pooler.client("u_trust", "p").await;
            client.ok("SELECT 1").await;
            clients.push(client);
        }
        for client in clients {
            client.close().await;
        }
        let closings = || -> Vec<Duration> {
            let log = pooler.log();
            let lines = log.lines();
            lines
                .filter(|line| line.contains("closing because: server lifetime over"))
                .map(time_of_day)
                .collect()
        };
        wait_until_within(20, "both to be closed", || async {
            closings().len() == 2 && cluster.sessions(&db).await == 0
        })
        .await;
        let closings = closings();
        let midnight = Duration::from_secs(86400);
        let pause = (closings[1] + midnight - closings[0]).as_millis() % midnight.as_millis();
        assert!((1000..20_000).contains(&pause), "{closings:?}");
    })
    .await;
}

#[tokio::test]
async fn what_nobody_uses_is_forgotten() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        ini.database("*", cluster.address());
        ini.set("server_idle_timeout", 1)
            .set("pool_idle_timeout", 1)
            .set("autodb_idle_timeout", 1);
        let pooler = ini.start().await;
        for database in ["p", &db] {
            let mut client = pooler.client("u_trust", database).await;
            client.ok("SELECT 1").await;
            client.close().await;
        }
        assert!(
            pooler
                .show("DATABASES")
                .await
                .find(&[("name", &db)])
                .is_some()
        );
        wait_until_within(30, "the pools to be forgotten", || async {
            pooler.pool("p", "u_trust").await.is_none()
                && pooler.pool(&db, "u_trust").await.is_none()
        })
        .await;
        wait_until_within(30, "the automatic database to be forgotten", || async {
            pooler
                .show("DATABASES")
                .await
                .find(&[("name", &db)])
                .is_none()
        })
        .await;
        pooler
            .wait_log(
                "cleaning up idle pool for user u_trust on db p because: pool idle timeout (age= ",
            )
            .await;
        pooler
            .wait_log(&format!(
                "dropping database '{db}' as it does not exist anymore or inactive auto-database"
            ))
            .await;
        // And made again when somebody comes.
        let mut client = pooler.client("u_trust", &db).await;
        client.ok("SELECT 1").await;
    })
    .await;
}

#[tokio::test]
async fn a_larger_pool_serves_who_waits() {
    bounded(30, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        let mut holder = pooler.client("u_trust", "p").await;
        hold_server(&mut holder).await;
        let mut waiter = pooler.client("u_trust", "p").await;
        waiter.send(&msg::query("SELECT 42")).await;
        wait_until("a client to wait", || async { waiting(&pooler).await == 1 }).await;
        set(&pooler, "default_pool_size", "2").await;
        assert_eq!(waiter.until_ready().await.value(), "42");
    })
    .await;
}

#[tokio::test]
async fn a_smaller_pool_closes_what_is_too_much() {
    bounded(30, async {
        let (cluster, db, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 3).start().await;
        let mut clients = Vec::new();
        for _ in 0..3 {
            let mut client = pooler.client("u_trust", "p").await;
            hold_server(&mut client).await;
            clients.push(client);
        }
        set(&pooler, "default_pool_size", "1").await;
        for client in &mut clients {
            client.ok("COMMIT").await;
        }
        wait_until("the others to be closed", || async {
            cluster.sessions(&db).await == 1
        })
        .await;
        pooler
            .wait_log("closing because: too many servers in the pool")
            .await;
        for client in &mut clients {
            client.ok("SELECT 1").await;
        }
    })
    .await;
}

/// The mode decides at every release, for clients that are connected too.
#[tokio::test]
async fn the_pool_mode_changes_under_a_client() {
    bounded(30, async {
        let (_, _, mut ini) = setup().await;
        ini.set("pool_mode", "session").set("default_pool_size", 1);
        let pooler = ini.start().await;
        let mut first = pooler.client("u_trust", "p").await;
        first.ok("SELECT 1").await;
        let mut second = pooler.client("u_trust", "p").await;
        second.send(&msg::query("SELECT 2")).await;
        wait_until("a client to wait", || async { waiting(&pooler).await == 1 }).await;
        set(&pooler, "pool_mode", "transaction").await;
        first.ok("SELECT 1").await;
        assert_eq!(second.until_ready().await.value(), "2");
        first.ok("SELECT 1").await;
    })
    .await;
}

/// One by one, as an operator would: nothing breaks on the way, and at the end TLS is there.
#[tokio::test]
async fn tls_is_set_up_on_a_running_pooler() {
    bounded(30, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let pair = Authority::new("set").server_cert();
        let (cert, key) = (
            ini.file("c.crt", &pair.cert_pem),
            ini.file("c.key", &pair.key_pem),
        );
        let offers_tls = || async {
            let mut conn = pooler.raw().await;
            conn.send(&msg::ssl_request()).await;
            conn.byte().await == Some(b'S')
        };
        let old = ["TLS settings could not be applied, still using old configuration"];
        assert_eq!(set(&pooler, "client_tls_sslmode", "allow").await, old);
        assert!(!offers_tls().await);
        // Other settings do not suffer from what does not fit yet.
        assert!(set(&pooler, "query_timeout", "77").await.is_empty());
        set(&pooler, "client_tls_key_file", &key).await;
        assert!(!offers_tls().await);
        assert!(set(&pooler, "client_tls_cert_file", &cert).await.is_empty());
        assert!(offers_tls().await);
        assert_eq!(
            set(&pooler, "client_tls_cert_file", "/not/there").await,
            old
        );
        assert!(offers_tls().await);
        let config = pooler.show("CONFIG").await;
        assert_eq!(
            config.value("key", "client_tls_cert_file", "value"),
            "/not/there"
        );
        assert_eq!(config.value("key", "query_timeout", "value"), "77");
    })
    .await;
}

#[tokio::test]
async fn another_file_is_read_by_the_next_reload() {
    bounded(30, async {
        let (cluster, db, ini) = setup().await;
        let pooler = ini.start().await;
        let text = std::fs::read_to_string(pooler.dir.join("pooler.ini")).expect("written before");
        let included = ini.file("more.ini", "query_wait_notify = 9\n");
        let text = text.replace(
            "[pgbouncer]\n",
            // The first section of this name is forgotten when the second begins.
            &format!(
                "q = {} dbname={db}\n[pgbouncer]\nquery_timeout = 5\n[pgbouncer]\n%include {included}\n",
                cluster.address()
            ),
        );
        let text = text.replace("[users]\n", "").replace("q = ", "[databases]\nq = ");
        let other = ini.file("other.ini", text);
        set(&pooler, "conffile", &other).await;
        set(&pooler, "query_timeout", "99").await;
        assert_eq!(pooler.console("RELOAD").await.error_text(), None);
        let config = pooler.show("CONFIG").await;
        assert_eq!(config.value("key", "query_wait_notify", "value"), "9");
        assert_eq!(config.value("key", "query_timeout", "value"), "0");
        assert_eq!(config.value("key", "conffile", "value"), other);
        pooler.client("u_trust", "q").await.ok("SELECT 1").await;
    })
    .await;
}

/// Whose settings count: those of the user whom servers are logged in as, or of the one who came.
#[tokio::test]
async fn each_side_has_the_settings_of_its_own_user() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        ini.database(
            "f",
            format!(
                "{} dbname={db} user=u_scram password=u_scram_pw",
                cluster.address()
            ),
        );
        ini.user(
            "u_scram",
            "query_timeout=1 pool_size=3 max_user_client_connections=1",
        );
        ini.user(
            "u_other",
            "query_timeout=50 pool_size=9 max_user_client_connections=2",
        );
        let pooler = ini.start().await;
        let mut one = pooler.client("u_other", "f").await;
        let _two = pooler.client("u_other", "f").await;
        let third = Conn::try_login(pooler.port, "u_other", "f", None).await;
        let told = third.err().expect("two are enough").error_text();
        assert_eq!(
            told,
            "FATAL 08P01 client connections exceeded (max_user_client_connections)"
        );
        one.send(&msg::query("SELECT pg_sleep(30)")).await;
        assert_eq!(one.fatal().await, "FATAL 08P01 query timeout");
        let users = pooler.show("USERS").await;
        assert_eq!(users.value("name", "u_scram", "pool_size").trim(), "3");
        assert_eq!(
            users.value("name", "u_other", "max_user_client_connections"),
            "2"
        );
    })
    .await;
}

/// No console is idle for too long.
#[tokio::test]
async fn consoles_may_be_idle() {
    bounded(30, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("client_idle_timeout", 1).start().await;
        let mut admin = pooler.admin().await;
        let mut client = pooler.client("u_trust", "p").await;
        assert_eq!(client.fatal().await, "FATAL 08P01 client_idle_timeout");
        assert_eq!(admin.query("SHOW VERSION").await.error_text(), None);
    })
    .await;
}

#[tokio::test]
async fn the_reserve_is_taken_in_the_name_of_who_waits() {
    bounded(30, async {
        let (_, _, mut ini) = setup().await;
        ini.set("default_pool_size", 1)
            .set("reserve_pool_size", 1)
            .set("reserve_pool_timeout", "0.1");
        let pooler = ini.start().await;
        let mut holder = pooler.client("u_trust", "p").await;
        hold_server(&mut holder).await;
        let mut waiter = pooler.client("u_trust", "p").await;
        waiter.ok("SELECT 1").await;
        let text = format!(
            ": p/u_trust@127.0.0.1:{} taking connection from reserve_pool",
            waiter.local_port()
        );
        pooler.wait_log(&text).await;
    })
    .await;
}

/// What is held of a waiting client, and what another does not take, is to be seen.
#[tokio::test]
async fn kept_bytes_are_shown() {
    not_in_pgbouncer!("its buffers are others");
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        let mut slow = pooler.client("u_trust", "p").await;
        slow.send(&msg::query("SELECT repeat('x', 100000000)"))
            .await;
        let unsent = |table: &Table| -> u64 {
            let of =
                |row: &Vec<Option<String>>| table.get(row, "send_remain").parse::<u64>().unwrap();
            table.rows.iter().map(of).sum()
        };
        wait_until("bytes to be kept", || async {
            unsent(&pooler.show("ACTIVE_SOCKETS").await) > 0
        })
        .await;
        let mut waiter = pooler.client("u_trust", "p").await;
        let query = msg::query("SELECT 1");
        waiter.send(&query).await;
        let held = query.len().to_string();
        wait_until("the query to be held", || async {
            let table = pooler.show("ACTIVE_SOCKETS").await;
            table
                .find(&[("state", "cl_waiting"), ("pkt_avail", &held)])
                .is_some()
        })
        .await;
        slow.until_ready().await;
        waiter.until_ready().await;
        wait_until("nothing to be kept", || async {
            pooler.show("ACTIVE_SOCKETS").await.rows.is_empty()
        })
        .await;
    })
    .await;
}
