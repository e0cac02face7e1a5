//! Host lists: in turn or one and the same, and hosts that are dead. The cluster has two addresses: TCP and its Unix socket.

use super::*;
use crate::fixture::*;
use crate::proto::Conn;

/// Nobody listens there.
const DEAD: &str = "127.0.0.9";

async fn setup_hosts(hosts: &str, more: &str) -> Ini {
    let (cluster, db, mut ini) = setup().await;
    let hosts = hosts.replace("unix", &cluster.dir.display().to_string());
    let entry = format!("host={hosts} port={} dbname={db} {more}", cluster.port);
    ini.database("p", entry).set_ours("workers", 2);
    ini
}

/// Opens four servers and gives the addresses that they were connected to.
async fn four_servers(pooler: &Pooler) -> Vec<String> {
    let mut clients: Vec<Conn> = Vec::new();
    let mut addresses = Vec::new();
    for _ in 0..4 {
        let mut client = pooler.client("postgres", "p").await;
        client.ok("BEGIN").await;
        let address = client
            .ok("SELECT coalesce(host(inet_server_addr()), 'unix')")
            .await;
        addresses.push(address.value());
        clients.push(client);
    }
    for mut client in clients {
        client.ok("COMMIT").await;
    }
    addresses
}

#[tokio::test]
async fn hosts_take_turns() {
    bounded(60, async {
        let pooler = setup_hosts("127.0.0.1,unix", "").await.start().await;
        let mut addresses = four_servers(&pooler).await;
        assert_ne!(addresses[0], addresses[1]);
        addresses.sort();
        assert_eq!(addresses, ["127.0.0.1", "127.0.0.1", "unix", "unix"]);
        let table = pooler.show("POOLS").await;
        assert_eq!(
            table.value("database", "p", "load_balance_hosts"),
            "round-robin"
        );
        let shown = pooler.show("DATABASES").await.value("name", "p", "host");
        assert!(shown.starts_with("127.0.0.1,/"), "{shown}");
    })
    .await;
}

#[tokio::test]
async fn one_host_is_kept_where_there_is_no_balance() {
    bounded(60, async {
        let ini = setup_hosts("unix,127.0.0.1", "load_balance_hosts=disable").await;
        let pooler = ini.start().await;
        assert_eq!(four_servers(&pooler).await, ["unix"; 4]);
        let table = pooler.show("DATABASES").await;
        assert_eq!(table.value("name", "p", "load_balance_hosts"), "disable");
    })
    .await;
}

#[tokio::test]
async fn a_dead_host_is_left_where_there_is_no_balance() {
    bounded(60, async {
        let hosts = format!("{DEAD},127.0.0.1");
        let ini = setup_hosts(&hosts, "load_balance_hosts=disable").await;
        let pooler = ini.start().await;
        assert_eq!(four_servers(&pooler).await, ["127.0.0.1"; 4]);
        let failures = pooler.log().matches("connect failed").count();
        assert_eq!(failures, 1, "{}", pooler.log());
    })
    .await;
}

/// Its turn comes, fails, and passes.
#[tokio::test]
async fn a_dead_host_costs_its_turn() {
    bounded(60, async {
        let hosts = format!("{DEAD},127.0.0.1,unix");
        let pooler = setup_hosts(&hosts, "").await.start().await;
        let mut addresses = four_servers(&pooler).await;
        addresses.sort();
        assert_eq!(addresses, ["127.0.0.1", "127.0.0.1", "unix", "unix"]);
    })
    .await;
}
