//! Cancel requests that come to another process than the one that runs the query: `[peers]` and `peer_id`, among ourselves and
//! together with PgBouncer.

use super::cancel::{CANCELLED, cancel, wait_running};
use crate::fixture::*;
use crate::proto::{Conn, msg};

/// Two configurations that name each other: 1 is reached by TCP, 2 by its Unix socket.
fn pair(cluster: &Cluster, db: &str) -> (Ini, Ini) {
    let mut first = Ini::with_database(cluster, db);
    let mut second = Ini::with_database(cluster, db);
    let by_tcp = format!("host=127.0.0.1 port={}", first.port);
    let by_unix = format!("host={} port={}", second.dir().display(), second.port);
    for (ini, id) in [(&mut first, 1), (&mut second, 2)] {
        ini.set("peer_id", id).peer(1, &by_tcp).peer(2, &by_unix);
    }
    (first, second)
}

/// A query of the client's, known by its mark, is cancelled by a request to this port.
async fn cancel_running(cluster: &Cluster, db: &str, client: &mut Conn, port: u16, mark: &str) {
    let query = format!("SELECT pg_sleep(60) /* {mark} */");
    client.send(&msg::query(&query)).await;
    wait_running(cluster, db, mark).await;
    cancel(port, &client.login.key.clone()).await;
    assert_eq!(
        client.until_ready().await.error_text().as_deref(),
        Some(CANCELLED)
    );
}

/// A query of `owner`'s is cancelled by a request to another process.
async fn cancel_from_afar(cluster: &Cluster, db: &str, owner: &Pooler, other: &Pooler, mark: &str) {
    let mut client = owner.client("u_trust", "p").await;
    cancel_running(cluster, db, &mut client, other.port, mark).await;
    assert_eq!(client.ok("SELECT 1").await.value(), "1");
}

#[tokio::test]
async fn a_request_finds_its_query_in_the_other_process() {
    bounded(60, async {
        let cluster = Cluster::shared();
        let db = cluster.fresh_db().await;
        let (mut first, mut second) = pair(cluster, &db);
        first.set_ours("workers", 2);
        second.set_ours("workers", 2);
        let (first, second) = (first.start().await, second.start().await);
        cancel_from_afar(cluster, &db, &first, &second, "first").await;
        cancel_from_afar(cluster, &db, &second, &first, "second").await;
        cancel_from_afar(cluster, &db, &first, &first, "at home").await;
        let done = "closing because: successfully sent cancel request (age=0s)";
        for line in ["C-0x", "peer-1@127.0.0.1:", done] {
            second.wait_log(line).await;
        }
        first
            .wait_log(&format!("peer-2@unix:{}", second.port))
            .await;
        let peers = first.show("PEERS").await;
        assert_eq!(peers.value("peer_id", "1", "host"), "127.0.0.1");
        assert_eq!(peers.value("peer_id", "2", "port"), second.port.to_string());
        let pools = first.show("PEER_POOLS").await;
        for column in [
            "cl_active_cancel_req",
            "cl_waiting_cancel_req",
            "sv_active_cancel",
            "sv_login",
        ] {
            assert_eq!(pools.value("peer_id", "2", column), "0");
        }
    })
    .await;
}

/// A group in which both kinds work, as during a migration.
#[tokio::test]
async fn together_with_pgbouncer() {
    let Some(program) = pgbouncer() else { return };
    bounded(60, async {
        let cluster = Cluster::shared();
        let db = cluster.fresh_db().await;
        for ours_is_first in [true, false] {
            let (mut first, mut second) = pair(cluster, &db);
            if ours_is_first {
                second.program(program);
            } else {
                first.program(program);
            }
            let (first, second) = (first.start().await, second.start().await);
            cancel_from_afar(cluster, &db, &first, &second, "mixed one").await;
            cancel_from_afar(cluster, &db, &second, &first, "mixed two").await;
        }
    })
    .await;
}

/// What is forwarded is what came, less one; the count ends loops; strangers' numbers lead nowhere.
#[tokio::test]
async fn requests_travel_three_times_at_most() {
    bounded(60, async {
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let log = seen.clone();
        let script = Script::start(move |mut peer| {
            let log = log.clone();
            async move {
                let packet = peer.bytes(16).await?;
                log.lock().unwrap().push(packet);
                Some(())
            }
        })
        .await;
        let mut ini = Ini::new();
        ini.set("peer_id", 1)
            .peer(2, format!("host=127.0.0.1 port={}", script.port))
            .database("p", "host=127.0.0.1 port=1");
        let pooler = ini.start().await;
        let key = |id: u8, last: u8| [0x11, id, 0, 0x22, 0x33, 0x44, 0x55, last];
        for hops in (0..4).rev() {
            cancel(pooler.port, &key(2, 0xf0 | hops)).await;
        }
        let sent = [2, 1, 0].map(|hops| msg::cancel(&key(2, 0xf0 | hops)));
        assert_eq!(*seen.lock().unwrap(), sent);
        cancel(pooler.port, &key(9, 0xff)).await;
        cancel(pooler.port, &key(1, 0xff)).await;
        for reason in [
            "failed to forward cancel request because its TTL was exhausted",
            "could not find peer to forward request to",
            "(nodb)/(nouser)@127.0.0.1:",
            "closing because: failed cancel request",
        ] {
            pooler.wait_log(reason).await;
        }
    })
    .await;
}

/// Both name the other as the owner of a key that nobody has.
#[tokio::test]
async fn a_loop_ends() {
    bounded(60, async {
        let cluster = Cluster::shared();
        let mut first = Ini::with_database(cluster, "postgres");
        let mut second = Ini::with_database(cluster, "postgres");
        first
            .set("peer_id", 1)
            .peer(3, format!("host=127.0.0.1 port={}", second.port));
        second
            .set("peer_id", 2)
            .peer(3, format!("host=127.0.0.1 port={}", first.port));
        let (first, second) = (first.start().await, second.start().await);
        cancel(first.port, &[1, 3, 0, 1, 1, 1, 1, 0xff]).await;
        second.wait_log("its TTL was exhausted").await;
        let hops = |pooler: &Pooler| pooler.log().matches("new connection to server").count();
        assert_eq!((hops(&first), hops(&second)), (2, 1));
    })
    .await;
}

#[tokio::test]
async fn a_reload_changes_the_group_and_keys_stay_good() {
    bounded(60, async {
        let cluster = Cluster::shared();
        let db = cluster.fresh_db().await;
        let (mut first, second) = pair(cluster, &db);
        let mut lone = first.clone();
        lone.set("peer_id", 0);
        let pooler = lone.start().await;
        let other = second.start().await;
        let mut before = pooler.client("u_trust", "p").await;
        // Some keys of a process without a group would pass for forwarded ones: enough of them are made to meet one.
        let mut alone = Vec::new();
        for _ in 0..8 {
            alone.push(pooler.client("u_trust", "p").await);
        }
        first.set("peer_id", 1).write();
        pooler.console("RELOAD").await;
        cancel_from_afar(cluster, &db, &pooler, &other, "joined").await;
        for client in alone.iter_mut().chain([&mut before]) {
            cancel_running(cluster, &db, client, pooler.port, "old key").await;
        }
        // Back in no group: a key from the time in it works at home, and nothing is forwarded.
        let mut member = pooler.client("u_trust", "p").await;
        lone.write();
        pooler.console("RELOAD").await;
        assert_eq!(pooler.show("PEERS").await.rows.len(), 2);
        cancel_running(cluster, &db, &mut member, pooler.port, "back home").await;
        cancel(pooler.port, &[1, 2, 0, 1, 1, 1, 1, 0xff]).await;
        assert!(!other.log().contains("failed cancel request"));
    })
    .await;
}

/// A flood of requests for a peer that takes them and never ends: queries go on, the file descriptors stay bounded, and a query of our
/// own is cancelled meanwhile.
#[tokio::test]
async fn a_flood_for_a_deaf_peer_hurts_nobody() {
    bounded(90, async {
        let script = Script::start(|mut peer| async move { peer.hang().await }).await;
        let cluster = Cluster::shared();
        let db = cluster.fresh_db().await;
        let mut ini = Ini::with_database(cluster, &db);
        ini.set("peer_id", 1)
            .set("cancel_wait_timeout", 3)
            .set("max_client_conn", 50)
            .peer(
                2,
                format!("host=127.0.0.1 port={} pool_size=4", script.port),
            );
        let pooler = ini.start().await;
        let mut flood = Vec::new();
        for _ in 0..1500 {
            let mut conn = pooler.raw().await;
            conn.send(&msg::cancel(&[1, 2, 0, 1, 1, 1, 1, 0xff])).await;
            flood.push(conn);
        }
        let pools = || async { pooler.show("PEER_POOLS").await };
        wait_until("four connections to the peer", || async {
            pools().await.value("peer_id", "2", "sv_active_cancel") == "4"
        })
        .await;
        let waiting: usize = pools()
            .await
            .value("peer_id", "2", "cl_waiting_cancel_req")
            .parse()
            .unwrap();
        assert!(waiting <= 1020, "{waiting}");
        assert!(script.connections() >= 4);
        let mut client = pooler.client("u_trust", "p").await;
        assert_eq!(client.ok("SELECT 1").await.value(), "1");
        cancel_from_afar(cluster, &db, &pooler, &pooler, "in the flood").await;
        for mut conn in flood {
            assert_eq!(conn.until_closed().await, vec![]);
        }
        pooler
            .wait_log("closing because: cancel_wait_timeout (age=3s)")
            .await;
        assert_eq!(pools().await.value("peer_id", "2", "sv_active_cancel"), "0");
        assert!(pooler.open_files() < 100, "{}", pooler.open_files());
    })
    .await;
}
