//! What an operator does to a running pooler: pause, resume, kill, disable, reconnect, reload, shut down.

use super::*;
use crate::fixture::*;
use crate::proto::{Conn, msg};

async fn ok(pooler: &Pooler, command: &str) {
    let reply = pooler.console(command).await;
    assert_eq!(reply.error_text(), None, "{command}");
    assert_eq!(
        reply.completions(),
        [command.split(' ').next().unwrap()],
        "{command}"
    );
}

async fn refused(pooler: &Pooler, command: &str, error: &str) {
    let reply = pooler.console(command).await;
    assert_eq!(
        reply.error_text(),
        Some(format!("ERROR 08P01 {error}")),
        "{command}"
    );
}

async fn clients_waiting(pooler: &Pooler, count: usize) {
    let waiting = || async {
        pooler
            .pool("p", "u_trust")
            .await
            .map_or(0, |p| p.clients_waiting)
    };
    wait_until(&format!("{count} clients to wait"), || async {
        waiting().await == count
    })
    .await;
}

#[tokio::test]
async fn pause_waits_for_transactions_and_holds_queries() {
    bounded(60, async {
        let (cluster, db, ini) = setup().await;
        let pooler = ini.start().await;
        let mut busy = pooler.client("u_trust", "p").await;
        let mut next = pooler.client("u_trust", "p").await;
        hold_server(&mut busy).await;
        let mut admin = pooler.admin().await;
        admin.send(&msg::query("PAUSE")).await;
        wait_until("the pause", || async {
            pooler.show("STATE").await.value("key", "paused", "value") == "yes"
        })
        .await;
        next.send(&msg::query("SELECT 'held'")).await;
        clients_waiting(&pooler, 1).await;
        assert_eq!(busy.ok("SELECT 'goes on'").await.value(), "goes on");
        sleep_ms(400).await;
        assert!(admin.unread().is_empty());
        busy.ok("COMMIT").await;
        assert_eq!(admin.until_ready().await.completions(), ["PAUSE"]);
        wait_until("servers to be closed", || async {
            cluster.sessions(&db).await == 0
        })
        .await;
        refused(&pooler, "PAUSE", "already paused").await;
        ok(&pooler, "RESUME").await;
        assert_eq!(next.until_ready().await.value(), "held");
        refused(&pooler, "RESUME", "pooler is not paused").await;
    })
    .await;
}

#[tokio::test]
async fn one_database_is_paused_alone() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        ini.database("q", format!("{} dbname={db}", cluster.address()));
        let pooler = ini.start().await;
        let mut p = pooler.client("u_trust", "p").await;
        let mut q = pooler.client("u_trust", "q").await;
        p.ok("SELECT 1").await;
        ok(&pooler, "PAUSE p").await;
        assert_eq!(
            pooler.show("DATABASES").await.value("name", "p", "paused"),
            "1"
        );
        p.send(&msg::query("SELECT 'held'")).await;
        clients_waiting(&pooler, 1).await;
        assert_eq!(q.ok("SELECT 'free'").await.value(), "free");
        ok(&pooler, "RESUME p").await;
        assert_eq!(p.until_ready().await.value(), "held");
        refused(&pooler, "RESUME p", "database p is not paused").await;
        refused(&pooler, "PAUSE nowhere", "no such database: nowhere").await;
        refused(
            &pooler,
            "PAUSE pgbouncer",
            "cannot pause admin db: pgbouncer",
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn kill_cuts_all_clients_of_a_database() {
    bounded(60, async {
        let (cluster, db, ini) = setup().await;
        let pooler = ini.start().await;
        let mut idle = pooler.client("u_trust", "p").await;
        let mut busy = pooler.client("u_trust", "p").await;
        hold_server(&mut busy).await;
        ok(&pooler, "KILL p").await;
        for client in [&mut idle, &mut busy] {
            assert_eq!(client.fatal().await, "FATAL 08P01 database removed");
        }
        wait_until("servers to be closed", || async {
            cluster.sessions(&db).await == 0
        })
        .await;
        // A newcomer waits, with its login or with its first query.
        let port = pooler.port;
        let late = tokio::spawn(async move {
            let mut late = Conn::login(port, "u_trust", "p", None).await;
            late.ok("SELECT 1").await.value()
        });
        sleep_ms(500).await;
        assert!(!late.is_finished());
        ok(&pooler, "RESUME p").await;
        assert_eq!(late.await.expect("served"), "1");
        refused(&pooler, "KILL nowhere", "no such database: nowhere").await;
    })
    .await;
}

#[tokio::test]
async fn kill_client() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut victim = pooler.client("u_trust", "p").await;
        hold_server(&mut victim).await;
        let mut other = pooler.client("u_other", "p").await;
        let clients = pooler.show("CLIENTS").await;
        let id = clients
            .get(clients.find(&[("user", "u_trust")]).unwrap(), "id")
            .to_string();
        ok(&pooler, &format!("KILL_CLIENT {id}")).await;
        assert_eq!(victim.fatal().await, "FATAL 08P01 admin forced disconnect");
        assert_eq!(other.ok("SELECT 1").await.value(), "1");
        refused(&pooler, &format!("KILL_CLIENT {id}"), "client not found").await;
        refused(
            &pooler,
            "KILL_CLIENT xyz",
            "invalid client pointer supplied",
        )
        .await;
        pooler.wait_pool_quiet("p", "u_trust").await;
    })
    .await;
}

#[tokio::test]
async fn disable_refuses_new_logins_only() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut there = pooler.client("u_trust", "p").await;
        ok(&pooler, "DISABLE p").await;
        assert_eq!(
            pooler
                .show("DATABASES")
                .await
                .value("name", "p", "disabled"),
            "1"
        );
        let error = Conn::try_login(pooler.port, "u_trust", "p", None)
            .await
            .err()
            .expect("refused");
        assert_eq!(error.error_text(), "FATAL 08P01 database \"p\" is disabled");
        assert_eq!(there.ok("SELECT 1").await.value(), "1");
        ok(&pooler, "ENABLE p").await;
        pooler.client("u_trust", "p").await.ok("SELECT 1").await;
        refused(&pooler, "DISABLE", "a database is required").await;
        refused(&pooler, "DISABLE nowhere", "no such database: nowhere").await;
        refused(
            &pooler,
            "DISABLE pgbouncer",
            "cannot disable admin db: pgbouncer",
        )
        .await;
        refused(
            &pooler,
            "ENABLE pgbouncer",
            "cannot enable admin db: pgbouncer",
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn reconnect_replaces_servers_between_transactions() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut idle = pooler.client("u_trust", "p").await;
        let before = backend(&mut idle).await;
        let mut busy = pooler.client("u_trust", "p").await;
        let held = hold_server(&mut busy).await;
        ok(&pooler, "RECONNECT").await;
        assert_eq!(
            backend(&mut busy).await,
            held,
            "the transaction goes on where it is"
        );
        let mut waiter = pooler.admin().await;
        waiter.send(&msg::query("WAIT_CLOSE p")).await;
        sleep_ms(400).await;
        assert!(waiter.unread().is_empty());
        busy.ok("COMMIT").await;
        assert_eq!(waiter.until_ready().await.completions(), ["WAIT_CLOSE"]);
        let after = [backend(&mut idle).await, backend(&mut busy).await];
        assert!(
            !after.contains(&before) && !after.contains(&held),
            "{before} {held} {after:?}"
        );
        refused(&pooler, "RECONNECT nowhere", "no such database: nowhere").await;
    })
    .await;
}

#[tokio::test]
async fn reconnect_leaves_sessions_alone_unless_fast() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("pool_mode", "session").start().await;
        let mut client = pooler.client("u_trust", "p").await;
        let before = backend(&mut client).await;
        ok(&pooler, "RECONNECT").await;
        sleep_ms(700).await;
        assert_eq!(backend(&mut client).await, before);
        assert_eq!(
            pooler
                .console("SET server_fast_close = 1")
                .await
                .error_text(),
            None
        );
        client.send(&msg::query("SELECT 1")).await;
        let frames = client.until_closed().await;
        assert_eq!(
            frames.last().map(|f| f.error_text()).as_deref(),
            Some("FATAL 08P01 database configuration changed")
        );
    })
    .await;
}

#[tokio::test]
async fn reload_adds_changes_and_removes_databases() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        ini.database("old", format!("{} dbname={db}", cluster.address()));
        let pooler = ini.start().await;
        let mut stays = pooler.client("u_trust", "p").await;
        let mut goes = pooler.client("u_trust", "old").await;
        goes.ok("SELECT 1").await;
        stays.ok("SELECT 1").await;
        let other = cluster.fresh_db().await;
        ini.no_database("old")
            .database("new", format!("{} dbname={db}", cluster.address()));
        ini.database("p", format!("{} dbname={other}", cluster.address()))
            .write();
        ok(&pooler, "RELOAD").await;
        assert_eq!(goes.fatal().await, "FATAL 08P01 database removed");
        assert_eq!(
            stays.ok("SELECT current_database()").await.value(),
            other,
            "a changed entry leads elsewhere"
        );
        let mut new = pooler.client("u_trust", "new").await;
        assert_eq!(new.ok("SELECT current_database()").await.value(), db);
        let error = Conn::try_login(pooler.port, "u_trust", "old", None)
            .await
            .err()
            .expect("refused");
        assert_eq!(error.error_text(), "FATAL 08P01 no such database: old");
    })
    .await;
}

#[tokio::test]
async fn reload_changes_settings_of_running_clients() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        let mut first = pooler.client("u_trust", "p").await;
        hold_server(&mut first).await;
        let mut second = pooler.client("u_trust", "p").await;
        second.send(&msg::query("SELECT 'second'")).await;
        clients_waiting(&pooler, 1).await;
        ini.set("default_pool_size", 2).write();
        ok(&pooler, "RELOAD").await;
        assert_eq!(second.until_ready().await.value(), "second");
        assert_eq!(
            pooler
                .show("CONFIG")
                .await
                .value("key", "default_pool_size", "value"),
            "2"
        );
    })
    .await;
}

#[tokio::test]
async fn a_bad_file_changes_nothing() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.start().await;
        ini.set("query_wait_timeout", 77).set("nonsense", 1).write();
        let reply = pooler.console("RELOAD").await;
        assert_eq!(
            reply.error_text().as_deref(),
            Some("ERROR F0000 RELOAD failed, see logs for additional details")
        );
        if !like_pgbouncer() {
            assert_eq!(
                pooler
                    .show("CONFIG")
                    .await
                    .value("key", "query_wait_timeout", "value"),
                "120",
                "half a file was loaded"
            );
        }
        assert_eq!(
            pooler
                .client("u_trust", "p")
                .await
                .ok("SELECT 1")
                .await
                .value(),
            "1"
        );
        ini.unset("nonsense").write();
        ok(&pooler, "RELOAD").await;
        assert_eq!(
            pooler
                .show("CONFIG")
                .await
                .value("key", "query_wait_timeout", "value"),
            "77"
        );
    })
    .await;
}

#[tokio::test]
async fn shutdown_at_once() {
    bounded(60, async {
        let (cluster, db, ini) = setup().await;
        let mut pooler = ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        hold_server(&mut client).await;
        let mut admin = pooler.admin().await;
        admin.send(&msg::query("SHUTDOWN")).await;
        assert_eq!(admin.until_closed().await, vec![]);
        assert_eq!(client.until_closed().await, vec![], "sockets just close");
        assert_eq!(pooler.wait_exit().await, Exit::Code(0));
        wait_until("servers to be closed", || async {
            cluster.sessions(&db).await == 0
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn shutdown_wait_for_servers() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let mut pooler = ini.set("default_pool_size", 1).start().await;
        let mut busy = pooler.client("u_trust", "p").await;
        let mut queued = pooler.client("u_trust", "p").await;
        hold_server(&mut busy).await;
        queued.send(&msg::query("SELECT 1")).await;
        clients_waiting(&pooler, 1).await;
        let mut admin = pooler.admin().await;
        assert_eq!(
            admin.query("SHUTDOWN WAIT_FOR_SERVERS").await.completions(),
            ["SHUTDOWN"]
        );
        assert_eq!(queued.fatal().await, "FATAL 08P01 server shutting down");
        refused_on(&mut admin, "RESUME", "pooler is shutting down").await;
        assert!(
            tokio::net::TcpStream::connect(("127.0.0.1", pooler.port))
                .await
                .is_err(),
            "TCP listeners are closed"
        );
        let mut late = Conn::unix(&pooler.socket()).await;
        late.send(&msg::startup(&[("user", "u_trust"), ("database", "p")]))
            .await;
        assert_eq!(late.fatal().await, "FATAL 08P01 pooler is shutting down");
        assert_eq!(busy.ok("SELECT 'may finish'").await.value(), "may finish");
        busy.send(&msg::query("COMMIT")).await;
        assert_eq!(busy.until_ready().await.completions(), ["COMMIT"]);
        assert_eq!(pooler.wait_exit().await, Exit::Code(0));
        assert!(pooler.log().contains("server connections dropped, exiting"));
    })
    .await;
}

#[tokio::test]
async fn shutdown_wait_for_clients() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let mut pooler = ini.start().await;
        let mut first = pooler.client("u_trust", "p").await;
        let mut second = pooler.client("u_trust", "p").await;
        let mut admin = pooler.admin().await;
        assert_eq!(
            admin.query("SHUTDOWN WAIT_FOR_CLIENTS").await.completions(),
            ["SHUTDOWN"]
        );
        assert_eq!(first.ok("SELECT 'as usual'").await.value(), "as usual");
        hold_server(&mut second).await;
        second.ok("COMMIT").await;
        let mut console = pooler.admin().await;
        assert_eq!(
            console.query("SHOW VERSION").await.rows().len(),
            1,
            "the console stays reachable"
        );
        first.close().await;
        second.close().await;
        sleep_ms(500).await;
        assert!(pooler.is_running(), "consoles are clients, too");
        console.close().await;
        drop(admin);
        assert_eq!(pooler.wait_exit().await, Exit::Code(0));
        assert!(pooler.log().contains("client connections dropped, exiting"));
        assert!(!pooler.socket().exists());
    })
    .await;
}

async fn refused_on(admin: &mut Conn, command: &str, error: &str) {
    assert_eq!(
        admin.query(command).await.error_text(),
        Some(format!("ERROR 08P01 {error}")),
        "{command}"
    );
}
