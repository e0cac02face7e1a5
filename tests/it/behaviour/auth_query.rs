//! Users whom `auth_file` does not know, looked up in PostgreSQL.

use super::*;
use crate::fixture::*;
use crate::proto::{msg, scram};

const SASL_FAILED: &str = "FATAL 08P01 SASL authentication failed";
const PASSWORD_FAILED: &str = "FATAL 08P01 password authentication failed";
const CONFIG_ERROR: &str = "FATAL 08P01 bouncer config error";

/// A configuration that asks as superuser, and knows nobody of those who log in.
async fn asking(auth_type: &str) -> (&'static Cluster, String, Ini) {
    let (cluster, db, mut ini) = setup().await;
    ini.set("auth_user", "postgres")
        .set("auth_type", auth_type)
        .set("client_login_timeout", 20);
    for user in [
        "u_scram", "u_scram2", "u_md5", "u_plain", "u_trust", "u_other",
    ] {
        ini.no_secret(user);
    }
    (cluster, db, ini)
}

/// An entry `p` of its own, with more keys.
fn entry(cluster: &Cluster, db: &str, more: &str) -> String {
    format!("{} dbname={db} {more}", cluster.address())
}

/// A query whose answer takes a while, and lets everybody in by this secret.
fn slow_query(seconds: &str, secret: &str) -> String {
    format!("auth_query='select $1::text, ''{secret}''::text from pg_sleep({seconds})'")
}

/// The error of a login to `p`, or "ok".
async fn outcome(pooler: &Pooler, user: &str, password: &str) -> String {
    outcome_in(pooler, "p", user, password).await
}

async fn outcome_in(pooler: &Pooler, database: &str, user: &str, password: &str) -> String {
    match Conn::try_login(pooler.port, user, database, Some(password)).await {
        Ok(mut conn) => {
            let name = conn.ok("SELECT current_user").await.value();
            format!("ok as {name}")
        }
        Err(error) => error.error_text(),
    }
}

/// A client that has begun to log in to `p`.
async fn knock(pooler: &Pooler, user: &str) -> Conn {
    let mut conn = pooler.raw().await;
    conn.send(&msg::startup(&[("user", user), ("database", "p")]))
        .await;
    conn
}

/// Waits until so many logins wait for a server that they can ask.
async fn wait_waiting(pooler: &Pooler, count: usize) {
    wait_until("logins to wait", || async {
        let pool = pooler.pool("p", "postgres").await;
        pool.is_some_and(|pool| pool.clients_waiting == count)
    })
    .await;
}

/// Waits until a login's query runs.
async fn wait_running(pooler: &Pooler) {
    wait_until("auth_query to run", || async {
        let pool = pooler.pool("p", "postgres").await;
        pool.is_some_and(|pool| pool.servers_active == 1)
    })
    .await;
}

#[tokio::test]
async fn a_scram_secret_of_the_servers_own_lets_clients_in_and_through() {
    bounded(120, async {
        for workers in [1, 2] {
            let (_, _, mut ini) = asking("scram-sha-256").await;
            let pooler = ini.set_ours("workers", workers).start().await;
            let mut clients = Vec::new();
            for _ in 0..4 {
                let login = Conn::login(pooler.port, "u_scram", "p", Some("u_scram_pw"));
                let mut client = login.await;
                client.ok("BEGIN").await;
                assert_eq!(client.ok("SELECT current_user").await.value(), "u_scram");
                clients.push(client);
            }
            assert_eq!(
                outcome(&pooler, "u_scram2", "u_scram2_pw").await,
                "ok as u_scram2"
            );
            assert_eq!(
                outcome(&pooler, "u_scram", "u_scram2_pw").await,
                SASL_FAILED
            );
            assert_eq!(outcome(&pooler, "u_scram", "").await, SASL_FAILED);
        }
    })
    .await;
}

#[tokio::test]
async fn md5_and_cleartext_too() {
    bounded(60, async {
        let (_, _, ini) = asking("md5").await;
        let pooler = ini.start().await;
        assert_eq!(outcome(&pooler, "u_md5", "u_md5_pw").await, "ok as u_md5");
        assert_eq!(outcome(&pooler, "u_md5", "wrong").await, PASSWORD_FAILED);
        // The stored secret is a SCRAM one, so the exchange is.
        assert_eq!(
            outcome(&pooler, "u_scram", "u_scram_pw").await,
            "ok as u_scram"
        );

        let (_, _, ini) = asking("plain").await;
        let pooler = ini.start().await;
        assert_eq!(outcome(&pooler, "u_md5", "u_md5_pw").await, "ok as u_md5");
        assert_eq!(outcome(&pooler, "u_md5", "wrong").await, PASSWORD_FAILED);
    })
    .await;
}

#[tokio::test]
async fn a_function_that_may_see_more_than_its_caller() {
    bounded(60, async {
        let (cluster, db, mut ini) = asking("scram-sha-256").await;
        let sql = "CREATE SCHEMA pgbouncer;
            CREATE FUNCTION pgbouncer.get_auth(who text) RETURNS TABLE (name text, secret text)
                LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog
                AS 'SELECT rolname::text, rolpassword::text FROM pg_authid WHERE rolname = who';
            REVOKE ALL ON FUNCTION pgbouncer.get_auth(text) FROM PUBLIC;
            GRANT USAGE ON SCHEMA pgbouncer TO u_plain;
            GRANT EXECUTE ON FUNCTION pgbouncer.get_auth(text) TO u_plain";
        cluster.sql(&db, sql).await;
        ini.set("auth_user", "u_plain")
            .secret("u_plain", "u_plain_pw")
            .set("auth_query", "SELECT * FROM pgbouncer.get_auth($1)");
        let pooler = ini.start().await;
        assert_eq!(
            outcome(&pooler, "u_scram", "u_scram_pw").await,
            "ok as u_scram"
        );
        assert_eq!(outcome(&pooler, "u_other", "").await, SASL_FAILED);
    })
    .await;
}

#[tokio::test]
async fn who_is_not_found_cannot_tell() {
    bounded(60, async {
        not_in_pgbouncer!("it says: no such user");
        let (_, _, ini) = asking("scram-sha-256").await;
        let pooler = ini.start().await;
        assert_eq!(outcome(&pooler, "stranger", "x").await, SASL_FAILED);
        // Without a password in PostgreSQL.
        assert_eq!(outcome(&pooler, "u_other", "x").await, SASL_FAILED);
        pooler.wait_log("no such user: stranger").await;
        assert!(!pooler.log().contains("no such user: u_other"));
    })
    .await;
}

#[tokio::test]
async fn trust_lets_in_who_exists() {
    bounded(60, async {
        let (_, _, ini) = asking("trust").await;
        let pooler = ini.start().await;
        let mut client = pooler.client("u_other", "p").await;
        assert_eq!(client.ok("SELECT current_user").await.value(), "u_other");
        let mut stranger = knock(&pooler, "stranger").await;
        assert_eq!(stranger.fatal().await, "FATAL 08P01 no such user");
    })
    .await;
}

/// A table of users that the test changes.
const USERS: &str = "CREATE TABLE users (n serial, asked text, name text, secret text);
    GRANT SELECT ON users TO PUBLIC;
    INSERT INTO users (asked, name, secret) VALUES
        ('changing', 'changing', 'first'), ('nothing', 'nothing', NULL), ('empty', 'empty', ''),
        ('nobody', NULL, 'x'), ('twice', 'twice', 'first'), ('twice', 'twice', 'last'),
        ('alias', 'u_trust', 'alias_pw')";

async fn with_table(auth_type: &str) -> (&'static Cluster, String, Ini) {
    let (cluster, db, mut ini) = asking(auth_type).await;
    cluster.sql(&db, USERS).await;
    let query = "SELECT name, secret FROM users WHERE asked = $1 ORDER BY n";
    // Every user of the table is u_trust in PostgreSQL.
    ini.set("auth_query", query).set("auth_dbname", "asked");
    ini.database("asked", entry(cluster, &db, ""));
    ini.database("p", entry(cluster, &db, "user=u_trust"));
    ini.database("own", entry(cluster, &db, ""));
    (cluster, db, ini)
}

#[tokio::test]
async fn every_login_asks_anew() {
    bounded(60, async {
        for workers in [1, 2] {
            let (cluster, db, mut ini) = with_table("scram-sha-256").await;
            let pooler = ini.set_ours("workers", workers).start().await;
            assert_eq!(outcome(&pooler, "changing", "first").await, "ok as u_trust");
            let change = "UPDATE users SET secret = 'second' WHERE name = 'changing'";
            cluster.sql(&db, change).await;
            assert_eq!(outcome(&pooler, "changing", "first").await, SASL_FAILED);
            assert_eq!(
                outcome(&pooler, "changing", "second").await,
                "ok as u_trust"
            );
            let change = "UPDATE users SET secret = NULL WHERE name = 'changing'";
            cluster.sql(&db, change).await;
            assert_eq!(outcome(&pooler, "changing", "second").await, SASL_FAILED);
            cluster
                .sql(&db, "DELETE FROM users WHERE name = 'changing'")
                .await;
            let gone = outcome(&pooler, "changing", "second").await;
            assert!(gone.starts_with("FATAL 08P01 "), "{gone}");
        }
    })
    .await;
}

#[tokio::test]
async fn rows_of_every_kind() {
    bounded(60, async {
        for (auth_type, failure) in [("scram-sha-256", SASL_FAILED), ("plain", PASSWORD_FAILED)] {
            let (_, _, ini) = with_table(auth_type).await;
            let pooler = ini.start().await;
            for user in ["nothing", "empty"] {
                assert_eq!(outcome(&pooler, user, "x").await, failure, "{user}");
            }
            assert_eq!(outcome(&pooler, "twice", "last").await, "ok as u_trust");
            assert_eq!(outcome(&pooler, "twice", "first").await, failure);
            if !like_pgbouncer() {
                assert_eq!(outcome(&pooler, "nobody", "x").await, failure);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn the_name_that_comes_back_is_who_logs_in() {
    bounded(60, async {
        let (_, _, mut ini) = with_table("plain").await;
        let pooler = ini
            .user("u_trust", "max_user_client_connections=1")
            .start()
            .await;
        let mut client = Conn::login(pooler.port, "alias", "own", Some("alias_pw")).await;
        assert_eq!(client.ok("SELECT current_user").await.value(), "u_trust");
        let clients = pooler.show("CLIENTS").await;
        assert!(
            clients
                .find(&[("database", "own"), ("user", "u_trust")])
                .is_some()
        );
        let full = "FATAL 08P01 client connections exceeded (max_user_client_connections)";
        let mut second = pooler.raw().await;
        second
            .send(&msg::startup(&[("user", "alias"), ("database", "own")]))
            .await;
        assert_eq!(second.fatal().await, full);
    })
    .await;
}

#[tokio::test]
async fn new_servers_are_logged_in_to_with_the_secret_of_the_last_login() {
    bounded(60, async {
        for workers in [1, 2] {
            let (_, _, mut ini) = asking("plain").await;
            // PostgreSQL wants the password of this one.
            let own = Cluster::own();
            own.sql(
                "postgres",
                "CREATE TABLE secrets AS SELECT 'one'::text AS secret",
            )
            .await;
            own.sql("postgres", "ALTER ROLE u_plain PASSWORD 'one'")
                .await;
            ini.database("p", entry(&own, "postgres", "auth_dbname=asked"));
            ini.database("asked", entry(&own, "postgres", ""));
            ini.set("auth_query", "SELECT $1::text, secret FROM secrets");
            let pooler = ini.set_ours("workers", workers).start().await;
            let mut before = Conn::login(pooler.port, "u_plain", "p", Some("one")).await;
            before.ok("SELECT 1").await;
            own.sql("postgres", "UPDATE secrets SET secret = 'two'")
                .await;
            own.sql("postgres", "ALTER ROLE u_plain PASSWORD 'two'")
                .await;
            let mut after = Conn::login(pooler.port, "u_plain", "p", Some("two")).await;
            pooler.console("RECONNECT p").await;
            // Whichever worker serves them: the old client's next server is logged in to with the new secret too.
            before.ok("BEGIN").await;
            after.ok("BEGIN").await;
            assert_eq!(before.ok("SELECT current_user").await.value(), "u_plain");
            assert_eq!(after.ok("SELECT current_user").await.value(), "u_plain");
        }
    })
    .await;
}

#[tokio::test]
async fn wrong_answers_are_the_configurations_fault() {
    bounded(60, async {
        let (cluster, db, mut ini) = asking("plain").await;
        for (name, query) in [
            ("one", "select $1::text"),
            ("three", "select $1::text, 1, 2"),
            ("error", "select $1::text, 1/0"),
            ("syntax", "select"),
            ("none", "insert into nowhere values ($1)"),
        ] {
            let key = format!("auth_query='{query}'");
            ini.database(name, entry(cluster, &db, &key));
        }
        ini.database("unknown", entry(cluster, &db, "auth_dbname=gone"));
        ini.database("closed", entry(cluster, &db, "auth_dbname=p"));
        let pooler = ini.start().await;
        for (name, logged) in [
            (
                "one",
                "closing because: expected 2 columns from auth_query, not 1",
            ),
            (
                "three",
                "closing because: expected 2 columns from auth_query, not 3",
            ),
            ("error", "error in auth_query: ERROR: division by zero"),
            (
                "syntax",
                "error in auth_query: ERROR: bind message supplies 1 parameters",
            ),
            (
                "none",
                "error in auth_query: ERROR: relation \"nowhere\" does not exist",
            ),
            (
                "unknown",
                "authentication database \"gone\" is not configured.",
            ),
        ] {
            assert_eq!(
                outcome_in(&pooler, name, "u_trust", "x").await,
                CONFIG_ERROR
            );
            pooler.wait_log(logged).await;
        }
        pooler.console("DISABLE p").await;
        let disabled = "FATAL 08P01 authentication database \"p\" is disabled";
        assert_eq!(
            outcome_in(&pooler, "closed", "u_trust", "x").await,
            disabled
        );
        pooler.console("ENABLE p").await;
        assert_eq!(
            outcome_in(&pooler, "closed", "u_md5", "u_md5_pw").await,
            "ok as u_md5"
        );
    })
    .await;
}

#[tokio::test]
async fn the_console_asks_too() {
    bounded(60, async {
        let (cluster, db, mut ini) = asking("scram-sha-256").await;
        ini.set("admin_users", "admin,u_scram");
        let pooler = ini.start().await;
        let refused = outcome_in(&pooler, "pgbouncer", "u_scram", "u_scram_pw").await;
        assert_eq!(refused, CONFIG_ERROR);
        let logged = "cannot use the reserved \"pgbouncer\" database as an auth_dbname";
        pooler.wait_log(logged).await;

        drop(pooler);
        ini.database("asked", entry(cluster, &db, ""))
            .set("auth_dbname", "asked");
        let pooler = ini.start().await;
        let login = Conn::login(pooler.port, "u_scram", "pgbouncer", Some("u_scram_pw"));
        let mut console = login.await;
        assert_eq!(console.query("RELOAD").await.error_text(), None);
        let refused = outcome_in(&pooler, "pgbouncer", "u_scram2", "u_scram2_pw").await;
        assert_eq!(refused, "FATAL 08P01 not allowed");
    })
    .await;
}

#[tokio::test]
async fn logins_wait_for_a_server_like_everybody() {
    bounded(60, async {
        let (cluster, db, mut ini) = asking("trust").await;
        let key = format!("pool_size=1 {}", slow_query("0.5", "x"));
        ini.database("p", entry(cluster, &db, &key));
        let pooler = ini.start().await;
        let mut first = knock(&pooler, "u_trust").await;
        wait_running(&pooler).await;
        let mut second = knock(&pooler, "u_other").await;
        wait_waiting(&pooler, 1).await;
        let clients = pooler.show("CLIENTS").await;
        let waiting = clients.find(&[("database", "p"), ("state", "waiting")]);
        assert!(waiting.is_some(), "{clients:?}");
        for client in [&mut first, &mut second] {
            assert!(client.authenticate("", None).await.is_ok());
            assert!(client.welcome().await.is_ok());
        }
        let stats = pooler.show("STATS_TOTALS").await;
        assert_eq!(stats.value("database", "p", "query_count"), "0");
        assert_eq!(stats.value("database", "p", "xact_count"), "0");
        assert_eq!(stats.value("database", "p", "client_login_count"), "2");
        let wait: u64 = stats.value("database", "p", "wait_time").parse().unwrap();
        assert!(wait > 100_000, "{wait}");
        let assigned = stats.value("database", "p", "server_assignment_count");
        assert_eq!(assigned, "2");
    })
    .await;
}

#[tokio::test]
async fn waits_have_an_end() {
    bounded(60, async {
        let (cluster, db, mut ini) = asking("trust").await;
        let key = format!("pool_size=1 query_wait_timeout=1 {}", slow_query("8", "x"));
        ini.database("p", entry(cluster, &db, &key));
        let pooler = ini.start().await;
        let _first = knock(&pooler, "u_trust").await;
        wait_running(&pooler).await;
        let mut second = knock(&pooler, "u_other").await;
        assert_eq!(second.fatal().await, "FATAL 08P01 query_wait_timeout");

        let mut third = knock(&pooler, "u_other").await;
        wait_waiting(&pooler, 1).await;
        let clients = pooler.show("CLIENTS").await;
        let row = clients
            .find(&[("database", "p"), ("state", "waiting")])
            .expect("it waits");
        let id = clients.get(row, "id");
        let killed = pooler.console(&format!("KILL_CLIENT {id}")).await;
        assert_eq!(killed.error_text(), None);
        assert_eq!(third.fatal().await, "FATAL 08P01 admin forced disconnect");
    })
    .await;
}

/// Nobody waits for the answer any more: the query is cancelled.
async fn wait_abandoned(cluster: &Cluster, db: &str) {
    wait_until("the query to be abandoned", || async {
        cluster.running(db, "").await.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_query_that_takes_too_long() {
    bounded(60, async {
        let (cluster, db, mut ini) = asking("trust").await;
        ini.database("p", entry(cluster, &db, &slow_query("30", "x")));
        let pooler = ini.set("query_timeout", 1).start().await;
        let mut client = knock(&pooler, "u_trust").await;
        assert_eq!(client.fatal().await, "FATAL 08P01 query timeout");
        wait_abandoned(cluster, &db).await;

        drop(pooler);
        let pooler = ini
            .set("query_timeout", 0)
            .set("client_login_timeout", 1)
            .start()
            .await;
        let mut client = knock(&pooler, "u_trust").await;
        let told = client.fatal().await;
        assert_eq!(told, "FATAL 08P01 client_login_timeout (server down)");
        wait_abandoned(cluster, &db).await;
        pooler.wait_pool_quiet("p", "postgres").await;
    })
    .await;
}

#[tokio::test]
async fn a_time_limit_for_transactions_is_not_for_logins() {
    bounded(60, async {
        not_in_pgbouncer!("its transaction_timeout kills every auth_query at once");
        let (cluster, db, mut ini) = asking("trust").await;
        ini.database("p", entry(cluster, &db, &slow_query("2", "x")));
        let pooler = ini.set("transaction_timeout", 1).start().await;
        let mut client = pooler.client("u_trust", "p").await;
        assert_eq!(client.ok("SELECT 1").await.value(), "1");
    })
    .await;
}

#[tokio::test]
async fn a_pause_holds_logins_back() {
    bounded(60, async {
        let (_, _, ini) = asking("scram-sha-256").await;
        let pooler = ini.start().await;
        pooler.console("PAUSE p").await;
        let mut client = knock(&pooler, "u_scram").await;
        wait_waiting(&pooler, 1).await;
        pooler.console("RESUME p").await;
        let let_in = client.authenticate("u_scram", Some("u_scram_pw")).await;
        assert!(let_in.is_ok(), "{let_in:?}");

        pooler.console("PAUSE p").await;
        let mut client = knock(&pooler, "u_scram").await;
        wait_waiting(&pooler, 1).await;
        pooler.console("KILL p").await;
        assert_eq!(client.fatal().await, "FATAL 08P01 database removed");
    })
    .await;
}

#[tokio::test]
async fn who_vanishes_costs_no_server() {
    bounded(60, async {
        for workers in [1, 2] {
            let (cluster, db, mut ini) = asking("trust").await;
            let key = format!("pool_size=1 {}", slow_query("0.6", "x"));
            ini.database("p", entry(cluster, &db, &key));
            let pooler = ini.set_ours("workers", workers).start().await;
            let running = knock(&pooler, "u_trust").await;
            wait_running(&pooler).await;
            let waiting = knock(&pooler, "u_trust").await;
            wait_waiting(&pooler, 1).await;
            let backends = async || cluster.backends(&db, "usename = 'postgres'").await;
            let before = backends().await;
            drop((running, waiting));
            pooler.wait_pool_quiet("p", "postgres").await;
            let mut client = pooler.client("u_trust", "p").await;
            assert_eq!(client.ok("SELECT 1").await.value(), "1");
            assert_eq!(backends().await, before);
            let clients = pooler.show("CLIENTS").await;
            let of_p = clients
                .rows
                .iter()
                .filter(|row| clients.get(row, "database") == "p");
            assert_eq!(of_p.count(), 1, "{clients:?}");
        }
    })
    .await;
}

/// CVE-2025-12819, and the same by way of a server that another client has used.
#[tokio::test]
async fn no_clients_parameters_reach_it() {
    bounded(60, async {
        let (cluster, db, mut ini) = asking("plain").await;
        // The secret is what the query sees.
        let query = "select $1::text, current_setting(''search_path'') || current_setting(''application_name'')";
        let key = format!("pool_size=1 auth_query='{query}'");
        ini.database("p", entry(cluster, &db, &key));
        ini.set("track_extra_parameters", "search_path").secret("postgres", "own");
        let pooler = ini.start().await;
        let own = "\"$user\", public";
        let evil = [
            ("user", "u_trust"),
            ("database", "p"),
            ("search_path", "evil"),
            ("application_name", "evil"),
        ];
        let mut client = pooler.raw().await;
        client.log_in_with(&evil, Some(own)).await;
        assert_eq!(client.ok("SHOW search_path").await.value(), "evil");

        // Somebody who knows the password of auth_user uses the very same server.
        let mut client = pooler.raw().await;
        let evil = [&[("user", "postgres")], &evil[1..]].concat();
        client.log_in_with(&evil, Some("own")).await;
        assert_eq!(client.ok("SHOW search_path").await.value(), "evil");
        if !like_pgbouncer() {
            assert_eq!(outcome(&pooler, "u_trust", own).await, "ok as u_trust");
        }
    })
    .await;
}

#[tokio::test]
async fn many_at_once() {
    bounded(120, async {
        for workers in [1, 2] {
            let (cluster, db, mut ini) = asking("scram-sha-256").await;
            ini.set("default_pool_size", 2).set_ours("workers", workers);
            let pooler = ini.start().await;
            let mut logins = tokio::task::JoinSet::new();
            for number in 0..40 {
                let port = pooler.port;
                logins.spawn(async move {
                    let user = ["u_scram", "u_scram2", "stranger"][number % 3];
                    let password = format!("{user}_pw");
                    match Conn::try_login(port, user, "p", Some(&password)).await {
                        Ok(mut conn) => conn.ok("SELECT current_user").await.value() == user,
                        Err(_) => user == "stranger",
                    }
                });
            }
            while let Some(went_well) = logins.join_next().await {
                assert!(went_well.unwrap());
            }
            pooler.wait_pool_quiet("p", "postgres").await;
            let sessions = cluster.backends(&db, "usename = 'postgres'").await;
            assert!(sessions.len() <= 2, "{sessions:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_stored_secret_need_not_be_the_servers_own() {
    bounded(60, async {
        let (cluster, db, mut ini) = asking("scram-sha-256").await;
        let secret = scram::secret("elsewhere", b"0123456789abcdef", 4096);
        let key = format!("user=u_plain auth_query='select $1::text, ''{secret}''::text'");
        ini.secret("u_plain", "u_plain_pw")
            .database("p", entry(cluster, &db, &key));
        let pooler = ini.start().await;
        assert_eq!(
            outcome(&pooler, "whoever", "elsewhere").await,
            "ok as u_plain"
        );
        assert_eq!(outcome(&pooler, "whoever", "wrong").await, SASL_FAILED);
    })
    .await;
}
