//! Host names: how long what is known of them counts, several addresses, addresses that change under open connections, name servers
//! that are slow, silent or lying.

use super::*;
use crate::fixture::*;
use std::time::{Duration, Instant};

const NAME: &str = "db.test.example";

/// A name server, PostgreSQL at 127.0.0.1 to 127.0.0.4, and a configuration whose database `p` is at [`NAME`].
struct World {
    cluster: &'static Cluster,
    names: NameServer,
    relay: Relay,
    db: String,
    ini: Ini,
}

async fn world() -> World {
    let (cluster, db, mut ini) = setup().await;
    let names = NameServer::start().await;
    let relay = Relay::start(cluster.port, "127.0.0.1 127.0.0.2 127.0.0.3 127.0.0.4").await;
    names.set(NAME, "127.0.0.1");
    let resolv_conf = ini.file("resolv.conf", names.line());
    ini.set("resolv_conf", resolv_conf);
    ini.database("p", format!("host={NAME} port={} dbname={db}", relay.port));
    World {
        cluster,
        names,
        relay,
        db,
        ini,
    }
}

/// Address, and whether it will be closed, of every server.
async fn servers(pooler: &Pooler) -> Vec<String> {
    let table = pooler.show("SERVERS").await;
    let row = |row: &Vec<Option<String>>| {
        let closing = table.get(row, "close_needed") == "1";
        format!(
            "{}{}",
            table.get(row, "addr"),
            if closing { " closing" } else { "" }
        )
    };
    let mut servers: Vec<String> = table.rows.iter().map(row).collect();
    servers.sort();
    servers
}

async fn wait_servers(pooler: &Pooler, expected: &[&str]) {
    wait_until(&format!("servers {expected:?}"), || async {
        servers(pooler).await == expected
    })
    .await;
}

/// Clients that each hold a server.
async fn holders(pooler: &Pooler, count: usize) -> Vec<Conn> {
    let mut holders = Vec::new();
    for _ in 0..count {
        let mut client = pooler.client("u_trust", "p").await;
        hold_server(&mut client).await;
        holders.push(client);
    }
    holders
}

async fn list(pooler: &Pooler, item: &str) -> String {
    pooler.show("LISTS").await.value("list", item, "items")
}

#[tokio::test]
async fn a_name_is_looked_up_once_for_many_connections() {
    bounded(60, async {
        let mut world = world().await;
        world.ini.set("dns_max_ttl", 300);
        let pooler = world.ini.start().await;
        assert!(pooler.show("DNS_HOSTS").await.rows.is_empty());
        let _held = holders(&pooler, 4).await;
        assert_eq!(world.names.asked(NAME), 1);
        let hosts = pooler.show("DNS_HOSTS").await;
        let ttl: u64 = hosts.value("hostname", NAME, "ttl").parse().unwrap();
        assert!((250..=300).contains(&ttl), "{ttl}");
        assert_eq!(hosts.value("hostname", NAME, "addrs"), "127.0.0.1:0");
        assert_eq!(list(&pooler, "dns_names").await, "1");
        // Known, though nobody looks at it.
        assert_eq!(list(&pooler, "dns_zones").await, "1");
        let zones = pooler.show("DNS_ZONES").await;
        assert_eq!(
            zones.rows,
            [["test.example", "0", "1"].map(|cell| Some(cell.to_owned()))]
        );
        let port = world.relay.port;
        assert!(pooler.log().contains(&format!(
            ": p/u_trust@127.0.0.1:{port} new connection to server"
        )));
    })
    .await;
}

#[tokio::test]
async fn a_short_record_is_followed_without_new_connections_and_a_long_one_is_cut() {
    not_in_pgbouncer!("it ignores the record's time and looks up only for new connections");
    bounded(60, async {
        let mut world = world().await;
        world.ini.set("dns_max_ttl", 300);
        world.names.ttl(1);
        let pooler = world.ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        client.ok("SELECT 1").await;
        wait_until("the name to be looked up again", || async {
            world.names.asked(NAME) >= 3
        })
        .await;
        world.names.ttl(3600);
        wait_until("the longer time", || async {
            let ttl = pooler
                .show("DNS_HOSTS")
                .await
                .value("hostname", NAME, "ttl");
            (250..=300).contains(&ttl.parse::<u64>().unwrap())
        })
        .await;
        // A reload shortens what is known already.
        world.ini.set("dns_max_ttl", 1).write();
        let asked = world.names.asked(NAME);
        pooler.console("RELOAD").await;
        wait_until("the shorter time", || async {
            world.names.asked(NAME) > asked + 1
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_asked_for_now_and_then() {
    bounded(60, async {
        let mut world = world().await;
        world
            .ini
            .set("dns_nxdomain_ttl", 2)
            .set("query_wait_timeout", 30);
        world.names.remove(NAME);
        let pooler = world.ini.start().await;
        let mut client = pooler.raw().await;
        client
            .send(&crate::proto::msg::startup(&[
                ("user", "u_trust"),
                ("database", "p"),
            ]))
            .await;
        pooler
            .wait_log(&format!("DNS lookup failed: {NAME}: result="))
            .await;
        pooler
            .wait_log("closing because: server DNS lookup failed (age=")
            .await;
        let began = Instant::now();
        wait_until("another try", || async { world.names.asked(NAME) >= 2 }).await;
        assert!(
            began.elapsed() > Duration::from_millis(1000),
            "{:?}",
            began.elapsed()
        );
        let hosts = pooler.show("DNS_HOSTS").await;
        assert_eq!(hosts.value("hostname", NAME, "addrs"), "");
        world.names.set(NAME, "127.0.0.1");
        client.authenticate("u_trust", None).await.unwrap();
        client.welcome().await.unwrap();
        assert_eq!(client.ok("SELECT 'here'").await.value(), "here");
    })
    .await;
}

#[tokio::test]
async fn connections_go_round_the_addresses() {
    bounded(60, async {
        let world = world().await;
        world.names.set(NAME, "127.0.0.1 127.0.0.2 127.0.0.3");
        let pooler = world.ini.start().await;
        let _held = holders(&pooler, 6).await;
        let expected = [
            "127.0.0.1",
            "127.0.0.1",
            "127.0.0.2",
            "127.0.0.2",
            "127.0.0.3",
            "127.0.0.3",
        ];
        assert_eq!(servers(&pooler).await, expected);
    })
    .await;
}

#[tokio::test]
async fn a_dead_address_is_passed_over() {
    not_in_pgbouncer!("the connection attempt fails");
    bounded(60, async {
        let mut world = world().await;
        world.ini.set("server_login_retry", 30);
        // Nobody listens on the second; the third takes nobody in.
        world.names.set(NAME, "127.0.0.1 127.0.0.9 127.0.0.8");
        let full = tokio::net::TcpSocket::new_v4().unwrap();
        full.bind(format!("127.0.0.8:{}", world.relay.port).parse().unwrap())
            .unwrap();
        let full = full.listen(1).unwrap();
        let mut crowd = Vec::new();
        for _ in 0..4 {
            let port = world.relay.port;
            crowd.push(tokio::spawn(tokio::net::TcpStream::connect((
                "127.0.0.8",
                port,
            ))));
        }
        world.ini.set("server_connect_timeout", 4);
        let pooler = world.ini.start().await;
        let began = Instant::now();
        let _held = holders(&pooler, 4).await;
        assert_eq!(servers(&pooler).await, ["127.0.0.1"; 4]);
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{:?}",
            began.elapsed()
        );
        drop((full, crowd));
    })
    .await;
}

/// A server at rest and a busy one move from 127.0.0.1 to 127.0.0.2 when the name does, and no new connection asked for it.
async fn servers_follow(world: World) {
    world.names.ttl(1);
    let pooler = world.ini.start().await;
    let mut held = holders(&pooler, 2).await;
    held[1].ok("COMMIT").await;
    assert_eq!(servers(&pooler).await, ["127.0.0.1", "127.0.0.1"]);
    world.names.set(NAME, "127.0.0.2");
    wait_servers(&pooler, &["127.0.0.1 closing"]).await;
    assert_eq!(
        held[0].ok("SELECT 'undisturbed'").await.value(),
        "undisturbed"
    );
    held[0].ok("COMMIT").await;
    wait_servers(&pooler, &[]).await;
    held[0].ok("BEGIN").await;
    wait_servers(&pooler, &["127.0.0.2"]).await;
    let hosts = pooler.show("DNS_HOSTS").await;
    assert_eq!(hosts.value("hostname", NAME, "addrs"), "127.0.0.2:0");
    assert!(
        pooler
            .log()
            .contains("closing because: database configuration changed (age=")
    );
}

#[tokio::test]
async fn servers_follow_their_name() {
    not_in_pgbouncer!("it notices only when a new connection is wanted");
    bounded(60, async { servers_follow(world().await).await }).await;
}

#[tokio::test]
async fn servers_follow_a_name_inside_a_list() {
    not_in_pgbouncer!("it leaves those of lists alone");
    bounded(60, async {
        let mut world = world().await;
        let (port, db) = (world.relay.port, world.db.clone());
        let address = format!("host={NAME},{NAME} port={port} dbname={db}");
        world.ini.database("p", address);
        servers_follow(world).await;
    })
    .await;
}

#[tokio::test]
async fn servers_at_addresses_that_stay_are_left_alone() {
    not_in_pgbouncer!("it notices only when a new connection is wanted");
    bounded(60, async {
        let world = world().await;
        world.names.ttl(1);
        world.names.set(NAME, "127.0.0.1 127.0.0.2");
        let pooler = world.ini.start().await;
        let mut held = holders(&pooler, 2).await;
        let stays = backend(&mut held[0]).await;
        assert_eq!(servers(&pooler).await, ["127.0.0.1", "127.0.0.2"]);
        world.names.set(NAME, "127.0.0.3 127.0.0.1");
        wait_servers(&pooler, &["127.0.0.1", "127.0.0.2 closing"]).await;
        assert_eq!(backend(&mut held[0]).await, stays);
        assert!(world.cluster.sessions(&world.db).await >= 2);
    })
    .await;
}

#[tokio::test]
async fn session_clients_keep_their_server_until_they_leave() {
    not_in_pgbouncer!("it notices only when a new connection is wanted");
    bounded(60, async {
        let mut world = world().await;
        world.ini.set("pool_mode", "session");
        world.names.ttl(1);
        let pooler = world.ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        client.ok("SELECT 1").await;
        world.names.set(NAME, "127.0.0.2");
        wait_servers(&pooler, &["127.0.0.1 closing"]).await;
        client.ok("SELECT 1").await;
        client.close().await;
        wait_servers(&pooler, &[]).await;
    })
    .await;
}

#[tokio::test]
async fn an_outage_of_name_servers_stops_nobody() {
    not_in_pgbouncer!("new connections fail there");
    bounded(90, async {
        let mut world = world().await;
        world.ini.set("dns_max_ttl", 1).set("dns_nxdomain_ttl", 1);
        let pooler = world.ini.start().await;
        let mut held = holders(&pooler, 1).await;
        for manner in [Manner::Failing, Manner::Nonsense, Manner::Silent] {
            world.names.behave(manner);
            let asked = world.names.asked(NAME);
            wait_until("the name to be looked up in vain", || async {
                world.names.asked(NAME) > asked + 1
            })
            .await;
            let count = held.len();
            held.extend(holders(&pooler, 1).await);
            assert_eq!(
                servers(&pooler).await,
                vec!["127.0.0.1"; count + 1],
                "{manner:?}"
            );
        }
        assert!(
            pooler
                .log()
                .contains(&format!("DNS lookup failed: {NAME}: result=-3"))
        );
        // It ends, and all is well.
        world.names.behave(Manner::Well);
        world.names.set(NAME, "127.0.0.2");
        wait_servers(&pooler, &["127.0.0.1 closing"; 4]).await;
    })
    .await;
}

#[tokio::test]
async fn a_name_that_vanishes_closes_nothing() {
    bounded(60, async {
        let mut world = world().await;
        world.ini.set("dns_max_ttl", 1).set("dns_nxdomain_ttl", 1);
        let pooler = world.ini.start().await;
        let mut held = holders(&pooler, 1).await;
        world.names.remove(NAME);
        let mut newcomer = pooler.client("u_trust", "p").await;
        newcomer
            .send(&crate::proto::msg::query("SELECT 'waited'"))
            .await;
        if !like_pgbouncer() {
            pooler
                .wait_log(&format!("DNS lookup failed: {NAME}: result=-2"))
                .await;
        }
        assert_eq!(held[0].ok("SELECT 'goes on'").await.value(), "goes on");
        world.names.set(NAME, "127.0.0.1");
        assert_eq!(newcomer.until_ready().await.value(), "waited");
        held[0].ok("COMMIT").await;
    })
    .await;
}

#[tokio::test]
async fn a_slow_name_server_is_waited_for() {
    bounded(60, async {
        let world = world().await;
        world
            .names
            .behave(Manner::Slow(Duration::from_millis(2500)));
        let pooler = world.ini.start().await;
        // Both wait for the same lookup, which is shown meanwhile.
        let login = || Conn::login(pooler.port, "u_trust", "p", None);
        let seen = wait_until("the lookup to be shown", || async {
            like_pgbouncer() || list(&pooler, "dns_queries").await == "1"
        });
        let (mut a, mut b, ()) = tokio::join!(login(), login(), seen);
        hold_server(&mut a).await;
        hold_server(&mut b).await;
        assert_eq!(list(&pooler, "dns_pending").await, "0");
    })
    .await;
}

#[tokio::test]
async fn the_second_name_server_is_asked_when_the_first_is_silent() {
    bounded(60, async {
        let world = world().await;
        let silent = NameServer::start().await;
        silent.behave(Manner::Silent);
        world.ini.file(
            "resolv.conf",
            format!("{}{}", silent.line(), world.names.line()),
        );
        let pooler = world.ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        client.ok("SELECT 1").await;
        assert!(silent.asked(NAME) > 0);
    })
    .await;
}

#[tokio::test]
async fn the_first_name_server_has_the_say() {
    bounded(60, async {
        let world = world().await;
        let outside = NameServer::start().await;
        outside.set(NAME, "127.0.0.9");
        world.ini.file(
            "resolv.conf",
            format!("{}{}", world.names.line(), outside.line()),
        );
        let pooler = world.ini.start().await;
        let _held = holders(&pooler, 2).await;
        assert_eq!(servers(&pooler).await, ["127.0.0.1", "127.0.0.1"]);
        assert_eq!(outside.asked(NAME), 0);
    })
    .await;
}

#[tokio::test]
async fn answers_that_are_truncated_or_come_after_lies() {
    not_in_pgbouncer!("nonsense ends the lookup");
    bounded(90, async {
        for manner in [Manner::Truncated, Manner::AfterLies] {
            let world = world().await;
            world.names.behave(manner);
            let pooler = world.ini.start().await;
            let _held = holders(&pooler, 1).await;
            assert_eq!(servers(&pooler).await, ["127.0.0.1"], "{manner:?}");
            assert_eq!(world.names.by_tcp() > 0, manner == Manner::Truncated);
        }
    })
    .await;
}

#[tokio::test]
async fn a_huge_answer_is_no_harm() {
    not_in_pgbouncer!("the connection attempt fails at the first address");
    bounded(60, async {
        let mut world = world().await;
        world.ini.set("server_connect_timeout", 10);
        world.names.behave(Manner::Truncated);
        let many: Vec<String> = (0..2000)
            .map(|n| format!("127.1.{}.{}", n / 250, n % 250))
            .collect();
        world
            .names
            .set(NAME, &format!("127.0.0.1 {}", many.join(" ")));
        let pooler = world.ini.start().await;
        let _held = holders(&pooler, 3).await;
        assert_eq!(servers(&pooler).await, ["127.0.0.1"; 3]);
        let hosts = pooler.show("DNS_HOSTS").await;
        assert_eq!(
            hosts.value("hostname", NAME, "addrs").split(',').count(),
            64
        );
    })
    .await;
}

#[tokio::test]
async fn other_names_are_followed_and_loops_end() {
    bounded(60, async {
        let mut world = world().await;
        let address = format!("port={} dbname={}", world.relay.port, world.db);
        world
            .ini
            .database("alias", format!("host=a.test.example {address}"));
        world
            .ini
            .database("loop", format!("host=x.test.example {address}"));
        world.names.alias("a.test.example", "b.test.example");
        world.names.alias("b.test.example", NAME);
        world.names.alias("x.test.example", "y.test.example");
        world.names.alias("y.test.example", "x.test.example");
        let pooler = world.ini.start().await;
        let mut client = pooler.client("u_trust", "alias").await;
        client.ok("SELECT 1").await;
        let mut lost = pooler.raw().await;
        lost.send(&crate::proto::msg::startup(&[
            ("user", "u_trust"),
            ("database", "loop"),
        ]))
        .await;
        pooler
            .wait_log("DNS lookup failed: x.test.example: result=")
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_new_serial_has_the_names_of_its_zone_looked_up() {
    not_in_pgbouncer!("its own cache hides the change");
    bounded(60, async {
        let mut world = world().await;
        world
            .ini
            .set("dns_max_ttl", 3600)
            .set("dns_zone_check_period", 1);
        world.names.serial("test.example", 41);
        let pooler = world.ini.start().await;
        let _held = holders(&pooler, 1).await;
        wait_until("the zone", || async {
            let zones = pooler.show("DNS_ZONES").await;
            zones.rows == [["test.example", "41", "1"].map(|cell| Some(cell.to_owned()))]
        })
        .await;
        assert_eq!(list(&pooler, "dns_zones").await, "1");
        assert_eq!(world.names.asked(NAME), 1);
        world.names.set(NAME, "127.0.0.3");
        world.names.serial("test.example", 42);
        wait_servers(&pooler, &["127.0.0.1 closing"]).await;
        assert_eq!(
            pooler
                .show("DNS_ZONES")
                .await
                .value("zonename", "test.example", "serial"),
            "42"
        );
    })
    .await;
}

#[tokio::test]
async fn localhost_needs_no_name_server() {
    not_in_pgbouncer!("it tries one address, which may be the one where nobody listens");
    bounded(60, async {
        let mut world = world().await;
        world.names.behave(Manner::Silent);
        world.ini.database(
            "p",
            format!(
                "host=localhost port={} dbname={}",
                world.cluster.port, world.db
            ),
        );
        let pooler = world.ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        client.ok("SELECT 1").await;
        assert_eq!(world.names.asked("localhost"), 0);
        let hosts = pooler.show("DNS_HOSTS").await;
        assert!(
            hosts
                .value("hostname", "localhost", "addrs")
                .contains("127.0.0.1:0")
        );
    })
    .await;
}

#[tokio::test]
async fn search_domains_complete_a_name() {
    bounded(60, async {
        let mut world = world().await;
        world.ini.file(
            "resolv.conf",
            format!(
                "search nowhere.example test.example\noptions ndots:5\n{}",
                world.names.line()
            ),
        );
        let address = format!("port={} dbname={}", world.relay.port, world.db);
        world.ini.database("p", format!("host=db {address}"));
        let pooler = world.ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        client.ok("SELECT 1").await;
        assert_eq!(world.names.asked("db.nowhere.example"), 1);
        assert_eq!(world.names.asked("db"), 0);
    })
    .await;
}

#[tokio::test]
async fn a_changed_or_missing_resolv_conf_is_no_reason_to_stop() {
    not_in_pgbouncer!("it reads the file at the start only");
    bounded(60, async {
        let mut world = world().await;
        world.ini.set("dns_nxdomain_ttl", 1);
        let path = world.ini.dir().join("resolv.conf");
        std::fs::remove_file(&path).unwrap();
        let pooler = world.ini.start().await;
        let mut client = pooler.raw().await;
        client
            .send(&crate::proto::msg::startup(&[
                ("user", "u_trust"),
                ("database", "p"),
            ]))
            .await;
        pooler
            .wait_log("host names are looked up by the system's resolver")
            .await;
        world.ini.file("resolv.conf", world.names.line());
        client.authenticate("u_trust", None).await.unwrap();
        client.welcome().await.unwrap();
        assert_eq!(client.ok("SELECT 1").await.value(), "1");
    })
    .await;
}

#[tokio::test]
async fn a_connection_overtaken_by_its_name_is_not_used() {
    not_in_pgbouncer!("it notices only when a new connection is wanted");
    bounded(60, async {
        let mut world = world().await;
        world.names.ttl(1);
        let address = format!("host={NAME} port={} dbname={}", world.relay.port, world.db);
        world
            .ini
            .database("p", format!("{address} connect_query='SELECT pg_sleep(3)'"));
        let pooler = world.ini.start().await;
        let login = Conn::login(pooler.port, "u_trust", "p", None);
        let moved = async {
            pooler.wait_log("p/u_trust@127.0.0.1:").await;
            world.names.set(NAME, "127.0.0.2");
        };
        let (mut client, ()) = tokio::join!(login, moved);
        client.ok("BEGIN").await;
        assert_eq!(servers(&pooler).await, ["127.0.0.2"]);
    })
    .await;
}
