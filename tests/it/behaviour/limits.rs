//! How many of everything: pool sizes, reserve, limits per database, user and process. Counted by PostgreSQL itself where it can be.

use super::*;
use crate::fixture::*;
use crate::proto::{Conn, msg};

async fn waiting(pooler: &Pooler, user: &str) -> usize {
    pooler
        .pool("p", user)
        .await
        .map_or(0, |p| p.clients_waiting)
}

async fn wait_waiting(pooler: &Pooler, user: &str, count: usize) {
    wait_until(&format!("{count} clients of {user} to wait"), || async {
        waiting(pooler, user).await == count
    })
    .await;
}

/// Sends a query and makes sure that it waits for a server.
async fn enqueue(pooler: &Pooler, user: &str, sql: &str) -> Conn {
    let before = waiting(pooler, user).await;
    let mut conn = pooler.client(user, "p").await;
    conn.send(&msg::query(sql)).await;
    wait_waiting(pooler, user, before + 1).await;
    conn
}

#[tokio::test]
async fn pool_size_is_kept_and_the_queue_moves_on() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 2).start().await;
        let mut first = pooler.client("u_trust", "p").await;
        let mut second = pooler.client("u_trust", "p").await;
        let pids = [
            hold_server(&mut first).await,
            hold_server(&mut second).await,
        ];
        assert_ne!(pids[0], pids[1]);
        let mut third = enqueue(&pooler, "u_trust", "SELECT pg_backend_pid()").await;
        assert_eq!(cluster.sessions(&db).await, 2);
        let counts = pooler.pool("p", "u_trust").await.unwrap();
        assert_eq!(
            (
                counts.clients_active,
                counts.clients_waiting,
                counts.servers_active
            ),
            (2, 1, 2)
        );
        second.ok("COMMIT").await;
        assert_eq!(third.until_ready().await.value(), pids[1]);
        assert_eq!(cluster.sessions(&db).await, 2);
    })
    .await;
}

#[tokio::test]
async fn waiters_are_served_in_order() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini
            .set("default_pool_size", 1)
            .set_ours("workers", 1)
            .start()
            .await;
        let mut holder = pooler.client("u_trust", "p").await;
        holder
            .ok("CREATE SEQUENCE turn; GRANT ALL ON turn TO PUBLIC")
            .await;
        hold_server(&mut holder).await;
        let mut queue = Vec::new();
        for _ in 0..6 {
            queue.push(enqueue(&pooler, "u_trust", "SELECT nextval('turn')").await);
        }
        holder.ok("COMMIT").await;
        for (i, conn) in queue.iter_mut().enumerate() {
            assert_eq!(conn.until_ready().await.value(), (i + 1).to_string());
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_gives_up_holds_nobody_up() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).start().await;
        let mut holder = pooler.client("u_trust", "p").await;
        hold_server(&mut holder).await;
        let gone = enqueue(&pooler, "u_trust", "SELECT 'never'").await;
        let mut stays = enqueue(&pooler, "u_trust", "SELECT 'served'").await;
        drop(gone);
        holder.ok("COMMIT").await;
        assert_eq!(stays.until_ready().await.value(), "served");
        holder.close().await;
        stays.close().await;
        pooler.wait_pool_quiet("p", "u_trust").await;
    })
    .await;
}

#[tokio::test]
async fn pool_size_zero_means_no_limit() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 0).start().await;
        let mut holders = Vec::new();
        for _ in 0..25 {
            let mut conn = pooler.client("u_trust", "p").await;
            hold_server(&mut conn).await;
            holders.push(conn);
        }
        assert_eq!(cluster.sessions(&db).await, 25);
    })
    .await;
}

#[tokio::test]
async fn pool_size_of_user_beats_database_beats_default() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        ini.database(
            "p",
            format!("{} dbname={db} pool_size=2", cluster.address()),
        );
        let pooler = ini
            .user("u_other", "pool_size=3")
            .set("default_pool_size", 1)
            .start()
            .await;
        for (user, size) in [("u_trust", 2), ("u_other", 3)] {
            let mut holders = Vec::new();
            for _ in 0..size {
                let mut conn = pooler.client(user, "p").await;
                hold_server(&mut conn).await;
                holders.push(conn);
            }
            enqueue(&pooler, user, "SELECT 1").await;
            assert_eq!(
                pooler.pool("p", user).await.unwrap().servers_active,
                size,
                "{user}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn reserve_helps_those_who_waited_long_enough() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        ini.set("default_pool_size", 1)
            .set("reserve_pool_size", 1)
            .set("reserve_pool_timeout", 1);
        let pooler = ini.start().await;
        let mut holder = pooler.client("u_trust", "p").await;
        hold_server(&mut holder).await;
        let started = std::time::Instant::now();
        let mut lucky = enqueue(&pooler, "u_trust", "BEGIN").await;
        lucky.until_ready().await;
        assert!(
            started.elapsed().as_millis() >= 950,
            "the reserve was opened after only {:?}",
            started.elapsed()
        );
        assert_eq!(cluster.sessions(&db).await, 2);
        assert!(
            pooler.log().contains("taking connection from reserve_pool"),
            "{}",
            pooler.log()
        );
        let _third = enqueue(&pooler, "u_trust", "SELECT 'must wait'").await;
        sleep_ms(1500).await;
        assert_eq!(
            (
                waiting(&pooler, "u_trust").await,
                cluster.sessions(&db).await
            ),
            (1, 2)
        );
    })
    .await;
}

#[tokio::test]
async fn max_db_connections_evicts_idle_servers_of_other_users() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        let pooler = ini.set("max_db_connections", 2).start().await;
        let mut first = pooler.client("u_trust", "p").await;
        let mut second = pooler.client("u_trust", "p").await;
        hold_server(&mut first).await;
        hold_server(&mut second).await;
        // The welcome of a new pool needs a server, so not even the login is finished.
        let mut other = pooler.raw().await;
        other
            .send(&msg::startup(&[("user", "u_other"), ("database", "p")]))
            .await;
        wait_waiting(&pooler, "u_other", 1).await;
        sleep_ms(500).await;
        assert_eq!(cluster.sessions(&db).await, 2);
        first.ok("COMMIT").await;
        other.authenticate("u_other", None).await.unwrap();
        other.welcome().await.unwrap();
        assert_eq!(other.ok("SELECT current_user").await.value(), "u_other");
        assert!(cluster.sessions(&db).await <= 2);
        assert_eq!(
            second.ok("SELECT 'undisturbed'").await.value(),
            "undisturbed"
        );
        assert!(pooler.log().contains("evicted"), "{}", pooler.log());
    })
    .await;
}

#[tokio::test]
async fn max_user_connections_counts_over_databases() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        ini.database("q", format!("{} dbname={db}", cluster.address()));
        let pooler = ini.user("u_trust", "max_user_connections=1").start().await;
        let mut first = pooler.client("u_trust", "p").await;
        hold_server(&mut first).await;
        let mut second = pooler.raw().await;
        second
            .send(&msg::startup(&[("user", "u_trust"), ("database", "q")]))
            .await;
        let queued = || async {
            pooler
                .pool("q", "u_trust")
                .await
                .is_some_and(|p| p.clients_waiting == 1)
        };
        wait_until("the second to wait", queued).await;
        sleep_ms(500).await;
        assert_eq!(cluster.sessions(&db).await, 1);
        first.ok("COMMIT").await;
        second.authenticate("u_trust", None).await.unwrap();
        second.welcome().await.unwrap();
        assert_eq!(second.ok("SELECT 2").await.value(), "2");
        assert_eq!(cluster.sessions(&db).await, 1);
        // and back again
        assert_eq!(first.ok("SELECT 3").await.value(), "3");
        let mut free = pooler.client("u_other", "p").await;
        assert_eq!(free.ok("SELECT 4").await.value(), "4");
    })
    .await;
}

#[tokio::test]
async fn max_client_conn_spares_the_console() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("max_client_conn", 3).start().await;
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(pooler.client("u_trust", "p").await);
        }
        let mut late = pooler.raw().await;
        late.send(&msg::startup(&[("user", "u_trust"), ("database", "p")]))
            .await;
        assert_eq!(
            late.fatal().await,
            "FATAL 08P01 no more connections allowed (max_client_conn)"
        );
        assert_eq!(
            pooler
                .show("LISTS")
                .await
                .value("list", "databases", "items"),
            "2"
        );
        clients.pop().unwrap().close().await;
        wait_until("room for one more", || async {
            Conn::try_login(pooler.port, "u_trust", "p", None)
                .await
                .is_ok()
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn max_db_client_connections() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        ini.database(
            "p",
            format!(
                "{} dbname={db} max_db_client_connections=2",
                cluster.address()
            ),
        );
        ini.database("q", format!("{} dbname={db}", cluster.address()));
        let pooler = ini.start().await;
        let _first = pooler.client("u_trust", "p").await;
        let second = pooler.client("u_other", "p").await;
        let mut late = pooler.raw().await;
        late.send(&msg::startup(&[("user", "u_trust"), ("database", "p")]))
            .await;
        assert_eq!(
            late.fatal().await,
            "FATAL 08P01 client connections exceeded (max_db_client_connections)"
        );
        let _elsewhere = pooler.client("u_trust", "q").await;
        assert_eq!(
            pooler
                .show("DATABASES")
                .await
                .value("name", "p", "current_client_connections"),
            "2"
        );
        second.close().await;
        wait_until("room for one more", || async {
            Conn::try_login(pooler.port, "u_trust", "p", None)
                .await
                .is_ok()
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn max_user_client_connections() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        ini.user("u_trust", "max_user_client_connections=1")
            .set("max_user_client_connections", 2);
        let pooler = ini.start().await;
        let only = pooler.client("u_trust", "p").await;
        let _others = [
            pooler.client("u_other", "p").await,
            pooler.client("u_other", "p").await,
        ];
        for user in ["u_trust", "u_other"] {
            let mut late = pooler.raw().await;
            late.send(&msg::startup(&[("user", user), ("database", "p")]))
                .await;
            assert_eq!(
                late.fatal().await,
                "FATAL 08P01 client connections exceeded (max_user_client_connections)"
            );
        }
        let mut consoles = Vec::new();
        for _ in 0..4 {
            consoles.push(pooler.admin().await);
        }
        only.close().await;
        wait_until("room for one more", || async {
            Conn::try_login(pooler.port, "u_trust", "p", None)
                .await
                .is_ok()
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn min_pool_size_is_filled_and_idle_servers_leave() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        let pooler = ini
            .set("min_pool_size", 3)
            .set("server_idle_timeout", 1)
            .start()
            .await;
        let mut clients = Vec::new();
        for _ in 0..5 {
            let mut conn = pooler.client("u_trust", "p").await;
            hold_server(&mut conn).await;
            clients.push(conn);
        }
        assert_eq!(cluster.sessions(&db).await, 5);
        for conn in &mut clients {
            conn.ok("COMMIT").await;
        }
        wait_until("the pool to shrink to its minimum", || async {
            cluster.sessions(&db).await == 3
        })
        .await;
        sleep_ms(1500).await;
        assert_eq!(cluster.sessions(&db).await, 3);
    })
    .await;
}

#[tokio::test]
async fn old_servers_are_replaced() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("server_lifetime", 1).start().await;
        let mut client = pooler.client("u_trust", "p").await;
        let before = backend(&mut client).await;
        wait_until("another server", || async {
            pooler.log().contains("server lifetime over")
        })
        .await;
        assert_ne!(backend(&mut client).await, before);
        client.ok("BEGIN").await;
        let held = backend(&mut client).await;
        sleep_ms(1800).await;
        assert_eq!(
            backend(&mut client).await,
            held,
            "a server in use is not closed"
        );
        client.ok("COMMIT").await;
    })
    .await;
}
