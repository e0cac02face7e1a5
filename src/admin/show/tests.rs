//! Every SHOW from rows to what the client reads.

use std::sync::Arc;
use std::time::Duration;

use crate::admin::command::{Show, parse};
use crate::admin::desk::Desk;
use crate::admin::fake::{Client, Fake, socket, user};
use crate::admin::rights::Role;
use crate::admin::rows::{DatabaseRow, DnsHostRow, DnsZoneRow, Lists, PeerPoolRow, UserRow};
use crate::admin::table::Formats;
use crate::config::{Config, Database, Peer, PoolMode, UserSettings};
use crate::metrics::{
    Counts, ErrorKind, Measures, PoolMeasures, Stats, ThreadCpu, Trades, WorkerMeasures,
};
use crate::worker::report::{PoolRow, SocketRow};

/// The rows of a SHOW, for one open console of the user `adm`.
async fn rows(fake: &Fake, show: &str) -> Vec<String> {
    let desk = Desk::new(std::time::Instant::now() - Duration::from_secs(1000));
    let console = user(Role::Admin, 7);
    let seat = desk.enter(&console);
    seat.touch(console.row.request_time);
    let [command] = &parse(&format!("SHOW {show}")).unwrap()[..] else {
        panic!("{show} is one command");
    };
    let crate::admin::command::Command::Show(show) = command else {
        panic!("{command:?} is a SHOW");
    };
    print(super::run(*show, fake, &desk, Formats::default()).await).await
}

/// Rows as a client reads them.
async fn print(table: super::Table) -> Vec<String> {
    let messages = table.into_messages();
    let (ours, mut theirs) = tokio::io::duplex(messages.len() + 1);
    tokio::io::AsyncWriteExt::write_all(&mut theirs, &messages)
        .await
        .unwrap();
    drop(theirs);
    let mut client = Client::new(ours);
    let mut rows = Vec::new();
    while let Some(row) = client.message().await {
        rows.push(row.strip_prefix("D ").unwrap_or(&row).to_owned());
    }
    rows
}

fn entry(name: &str, set: impl FnOnce(&mut Database)) -> Arc<Database> {
    let mut db = Database::new(name);
    set(&mut db);
    Arc::new(db)
}

/// A program with some of everything; the values are those that the real PgBouncer was run with for comparison.
fn example() -> Fake {
    let entries = [
        entry("one", |db| {
            db.hosts = vec!["127.0.0.1".to_owned()];
            db.port = 5999;
            db.dbname = Some("x".to_owned());
        }),
        entry("two", |db| {
            db.hosts = vec!["127.0.0.1".to_owned(), "127.0.0.2".to_owned()];
            db.port = 5998;
            db.user = Some("fu".to_owned());
            db.pool_size = Some(7);
            db.pool_mode = Some(PoolMode::Transaction);
            db.max_db_connections = Some(3);
        }),
        entry("a", |_| ()),
    ];
    let mut config = Config::default();
    config.settings.listen_port = 6777;
    config.settings.max_user_connections = 5;
    config.databases = entries
        .iter()
        .map(|db| (db.name.clone(), Arc::clone(db)))
        .collect();
    let joe = UserSettings {
        pool_size: Some(4),
        max_user_connections: Some(9),
        pool_mode: Some(PoolMode::Session),
        ..UserSettings::default()
    };
    config.users = [("joe".to_owned(), joe)].into();
    let peer = Peer {
        host: "127.0.0.3".to_owned(),
        ..Peer::new()
    };
    config.peers = [(2, peer)].into();
    let database = |entry: &Arc<Database>| DatabaseRow {
        entry: Arc::clone(entry),
        current_connections: 1,
        current_client_connections: 2,
        paused: entry.name == "a",
        disabled: entry.name == "two",
    };
    Fake {
        config: parking_lot::Mutex::new(Arc::new(config)),
        databases: entries.iter().map(database).rev().collect(),
        ..Fake::default()
    }
}

#[tokio::test]
async fn databases() {
    let expected = [
        "a|~|5432|a|~|20|0|0|3600|~|~|0|1|0|2|1|0",
        "one|127.0.0.1|5999|x|~|20|0|0|3600|~|~|0|1|0|2|0|0",
        "pgbouncer|~|6777|pgbouncer|pgbouncer|2|0|0|3600|statement|~|0|0|0|1|0|0",
        "two|127.0.0.1,127.0.0.2|5998|two|fu|7|0|0|3600|transaction|round-robin|3|1|0|2|0|1",
    ];
    assert_eq!(rows(&example(), "databases").await, expected);
}

#[tokio::test]
async fn users() {
    let row = |name: &str, connections, clients| UserRow {
        name: name.to_owned(),
        current_connections: connections,
        current_client_connections: clients,
    };
    let mut fake = example();
    fake.users = vec![row("joe", 3, 4), row("adm", 0, 2), row("zoe", 0, 0)];
    // Alignment and empty texts as PgBouncer sends them. The open console is one of adm's clients.
    let expected = [
        "adm|||~|5|0|0|3",
        "joe|        4||session|9|3|0|4",
        "pgbouncer|||~|5|0|0|0",
        "zoe|||~|5|0|0|0",
    ];
    assert_eq!(rows(&fake, "users").await, expected);
}

#[tokio::test]
async fn pools_of_all_workers_and_the_consoles_own() {
    let row = |database: &str, user: &str, maxwait_ms| PoolRow {
        database: database.to_owned(),
        user: user.to_owned(),
        cl_active: 1,
        cl_waiting: 2,
        cl_active_cancel_req: 3,
        cl_waiting_cancel_req: 4,
        sv_active: 5,
        sv_active_cancel: 6,
        sv_being_canceled: 7,
        sv_idle: 8,
        sv_used: 9,
        sv_tested: 10,
        sv_login: 11,
        maxwait: Duration::from_millis(maxwait_ms),
        ..PoolRow::default()
    };
    let mut fake = example();
    fake.pools = vec![
        row("two", "fu", 0),
        row("two", "fu", 1500),
        row("one", "joe", 1),
        row("gone", "u", 0),
    ];
    let expected = [
        "gone|u|1|2|3|4|5|6|7|8|9|10|11|0|0|session|~",
        "one|joe|1|2|3|4|5|6|7|8|9|10|11|0|1000|session|~",
        "pgbouncer|pgbouncer|1|0|0|0|0|0|0|0|0|0|0|0|0|statement|~",
        "two|fu|2|4|6|8|10|12|14|16|18|20|22|1|500000|transaction|round-robin",
    ];
    assert_eq!(rows(&fake, "pools").await, expected);
}

#[tokio::test]
async fn peers() {
    let mut fake = example();
    let row = |peer_id| PeerPoolRow {
        peer_id,
        cl_active_cancel_req: 1,
        cl_waiting_cancel_req: 2,
        sv_active_cancel: 3,
        sv_login: 4,
    };
    fake.peer_pools = vec![row(3), row(2)];
    assert_eq!(rows(&fake, "peers").await, ["2|127.0.0.3|6432|20"]);
    assert_eq!(rows(&fake, "peer_pools").await, ["2|1|2|3|4", "3|1|2|3|4"]);
}

fn connection() -> SocketRow {
    SocketRow {
        database: "one".to_owned(),
        replication: "logical",
        state: "active",
        addr: "unix".to_owned(),
        wait: Duration::from_micros(2_000_003),
        close_needed: true,
        link: Some(0xabc),
        remote_pid: 12,
        tls: "TLSv1.3/TLS_AES_256_GCM_SHA384".to_owned(),
        prepared_statements: 4,
        ..socket("joe", 9)
    }
}

/// `YYYY-MM-DD HH:MM:SS TZ` of the connections here, in whatever zone this machine is.
fn at() -> String {
    let zone = jiff::tz::TimeZone::system();
    let at = jiff::Timestamp::from_second(1_795_219_580).unwrap();
    at.to_zoned(zone).strftime("%F %T %Z").to_string()
}

#[tokio::test]
async fn connections() {
    let mut fake = example();
    fake.clients = vec![SocketRow {
        held: 17,
        unsent: 5,
        ..connection()
    }];
    fake.servers = vec![SocketRow {
        link: None,
        ..connection()
    }];
    let at = at();
    let middle = format!("41964|127.0.0.1|6432|{at}|{at}|");
    let rest = "|12|TLSv1.3/TLS_AES_256_GCM_SHA384|psql|4|9";
    let client = format!("C|joe|one|logical|active|unix|{middle}2|3|1|0x5555|0xabc{rest}");
    let console = format!("C|adm|pgbouncer|none|idle|127.0.0.1|{middle}0|0|0|0x5555||0||psql|0|7");
    assert_eq!(
        rows(&fake, "clients").await,
        [client.clone(), console.clone()]
    );
    let server = format!("S|joe|one|logical|active|unix|{middle}2|3|1|0x5555|{rest}");
    assert_eq!(rows(&fake, "servers").await, std::slice::from_ref(&server));
    let socket = |row: &str, from: &str, to: &str, buffers: &str| {
        format!("{}|{buffers}", row.replacen(from, to, 1))
    };
    let expected = [
        socket(&client, "|active|", "|cl_active|", "17|0|0|0|5|17|5"),
        socket(&console, "|idle|", "|cl_active|", "0|0|0|0|0|0|0"),
        socket(&server, "|active|", "|sv_active|", "0|0|0|0|0|0|0"),
    ];
    assert_eq!(rows(&fake, "sockets").await, expected);
    assert_eq!(rows(&fake, "active_sockets").await, &expected[..1]);
}

fn counted() -> Fake {
    let stats = Stats {
        server_assignment_count: 10_400,
        xact_count: 20_400,
        query_count: 30_400,
        bytes_received: 40_400,
        bytes_sent: 50_400,
        xact_time: 3 * 20_400,
        query_time: 2 * 30_400,
        wait_time: 5 * 10_400,
        client_parse_count: 60_400,
        server_parse_count: 70_400,
        bind_count: 80_400,
        client_login_count: 90_400,
    };
    let pool = |database: &str| PoolRow {
        database: database.to_owned(),
        user: "u".to_owned(),
        stats,
        ..PoolRow::default()
    };
    Fake {
        pools: vec![pool("z"), pool("a")],
        ..Fake::default()
    }
}

const COUNTED: &str = "10400|20400|30400|40400|50400|61200|60800|52000|60400|70400|80400|90400";
/// Over the thousand seconds (and a bit) that these tests begin with.
const AVERAGED: &str = "10|20|30|40|50|3|2|5|60|70|80|90";

#[tokio::test]
async fn statistics_per_database() {
    let fake = counted();
    let console = "0|1|1|0|0|0|0|0|0|0|0|1";
    let zeros = "0|0|0|0|0|0|0|0|0|0|0|0";
    let expected = |a: &str, console: &str| {
        [
            format!("a|{a}"),
            format!("pgbouncer|{console}"),
            format!("z|{a}"),
        ]
    };
    let both = format!("{COUNTED}|{AVERAGED}");
    let expected_stats = expected(&both, &format!("{console}|{zeros}"));
    assert_eq!(rows(&fake, "stats").await, expected_stats);
    assert_eq!(
        rows(&fake, "stats_totals").await,
        expected(COUNTED, console)
    );
    assert_eq!(
        rows(&fake, "stats_averages").await,
        expected(AVERAGED, zeros)
    );
}

#[tokio::test]
async fn statistics_of_all() {
    let expected = [
        "total_server_assignment_count|20800",
        "total_xact_count|40801",
        "total_query_count|60801",
        "total_client_bytes|80800",
        "total_server_bytes|100800",
        "total_xact_time|122400",
        "total_query_time|121600",
        "total_wait_time|104000",
        "total_ps_client_parse_count|120800",
        "total_ps_server_parse_count|140800",
        "total_ps_bind_count|160800",
        "total_client_login_count|180801",
        "avg_server_assignment_count|20",
        "avg_xact_count|40",
        "avg_query_count|60",
        "avg_client_bytes|80",
        "avg_server_bytes|100",
        "avg_xact_time|2",
        "avg_query_time|1",
        "avg_wait_time|5",
        "avg_ps_client_parse_count|120",
        "avg_ps_server_parse_count|140",
        "avg_ps_bind_count|160",
        "avg_client_login_count|180",
    ];
    assert_eq!(rows(&counted(), "totals").await, expected);
}

#[tokio::test]
async fn lists() {
    let mut fake = example();
    fake.users = vec![UserRow::default()];
    fake.pools = vec![PoolRow::default(), PoolRow::default()];
    fake.peer_pools = vec![PeerPoolRow::default()];
    fake.dns_hosts = vec![DnsHostRow::default()];
    fake.dns_zones = vec![DnsZoneRow::default(); 2];
    fake.lists = Lists {
        used_clients: 5,
        login_clients: 6,
        used_servers: 7,
        dns_queries: 8,
        workers: 2,
    };
    let expected = [
        "databases|4",
        "users|2",
        "peers|1",
        "pools|2",
        "peer_pools|1",
        "free_clients|0",
        "used_clients|6",
        "login_clients|6",
        "free_servers|0",
        "used_servers|7",
        "dns_names|1",
        "dns_zones|2",
        "dns_queries|8",
        "dns_pending|0",
    ];
    assert_eq!(rows(&fake, "lists").await, expected);
}

#[tokio::test]
async fn settings() {
    let rows = rows(&example(), "config").await;
    assert_eq!(rows.len(), crate::config::SETTINGS.len());
    for expected in [
        "listen_port|6777|6432|no",
        "auth_file|~|~|yes",
        "admin_users|||yes",
        "max_client_conn|100|100|yes",
        "unix_socket_mode|511|0777|no",
        "pool_mode|session|session|yes",
    ] {
        assert!(rows.iter().any(|row| row == expected), "{expected}");
    }
}

#[tokio::test]
async fn small_ones() {
    let mut fake = example();
    assert_eq!(rows(&fake, "version").await, ["PgBouncer 1.26.1"]);
    assert_eq!(
        rows(&fake, "pgweir_version").await,
        [env!("CARGO_PKG_VERSION")]
    );
    assert_eq!(rows(&fake, "state").await, ["active|yes", "paused|no"]);
    fake.state.lock().paused = true;
    assert_eq!(rows(&fake, "state").await, ["active|no", "paused|yes"]);
    fake.state.lock().draining = true;
    let draining = ["active|no", "paused|yes", "draining|yes"];
    assert_eq!(rows(&fake, "state").await, draining);
    let name = |hostname: &str, addresses: &[[u8; 4]]| DnsHostRow {
        hostname: hostname.to_owned(),
        ttl_s: 14,
        addresses: addresses.iter().map(|ip| (*ip).into()).collect(),
    };
    fake.dns_hosts = vec![
        name("db2", &[]),
        name("db1", &[[10, 0, 0, 1], [10, 0, 0, 2]]),
    ];
    assert_eq!(
        rows(&fake, "dns_hosts").await,
        ["db1|14|10.0.0.1:0,10.0.0.2:0", "db2|14|"]
    );
    fake.dns_hosts = vec![DnsHostRow {
        addresses: vec![std::net::Ipv6Addr::LOCALHOST.into()],
        ..name("db3", &[])
    }];
    assert_eq!(rows(&fake, "dns_hosts").await, ["db3|14|[::1]:0"]);
    let zone = |zonename: &str, serial: u32| DnsZoneRow {
        zonename: zonename.to_owned(),
        serial,
        count: 2,
    };
    fake.dns_zones = vec![zone("b.example", u32::MAX), zone("a.example", 0)];
    assert_eq!(
        rows(&fake, "dns_zones").await,
        ["a.example|0|2", "b.example|4294967295|2"]
    );
    let mem = rows(&fake, "mem").await;
    assert_eq!(mem.len(), 12);
    assert!(mem.iter().all(|row| row.contains("_cache|")), "{mem:?}");
}

#[tokio::test]
async fn parameters() {
    for (name, value) in [
        ("client_encoding", "UTF-8"),
        ("default_transaction_isolation", "read committed"),
        ("standard_conforming_strings", "on"),
        ("datestyle", "ISO"),
        ("timezone", "GMT"),
        ("extra_float_digits", "2"),
    ] {
        assert_eq!(rows(&Fake::default(), name).await, [value]);
    }
    assert!(super::layout::columns(Show::Parameter(99)).is_empty());
}

/// A pool of which something of everything was measured, and one of which nothing was.
fn measured() -> Fake {
    let mut pool = PoolMeasures {
        database: "one".to_owned(),
        user: "u".to_owned(),
        waits: Counts::new([3, 0, 0, 1]),
        waiting: Counts::new([2]),
        longest: Counts::new([1500]),
        pins: Counts::new([0, 4]),
        denied: Counts::new([0, 0, 5]),
        prepared_hits: 6,
        trades: Trades { given: 7, taken: 0 },
        ..PoolMeasures::default()
    };
    for micros in [100, 100, 1000] {
        pool.query.record(micros);
    }
    pool.wait.record_none(9);
    let worker = WorkerMeasures {
        worker: 0,
        clients: 5,
        waiting: 2,
        servers: 3,
        servers_active: 1,
        ..WorkerMeasures::default()
    };
    let thread = |name: &str, ms| ThreadCpu {
        name: name.to_owned(),
        threads: 1,
        cpu: Duration::from_millis(ms),
    };
    Fake {
        measures: Measures {
            pools: vec![pool, PoolMeasures::default()],
            workers: vec![worker],
            errors: Counts::new([8]),
            threads: vec![thread("login", 4), thread("worker-0", 12)],
        },
        ..Fake::default()
    }
}

#[tokio::test]
async fn what_was_measured() {
    let fake = measured();
    let expected = ["one|u|pool_full|3|2|1500", "one|u|paused|1|0|0"];
    assert_eq!(rows(&fake, "waits").await, expected);
    let expected = [
        "one|u|wait|9|0|0|0|0|0|0",
        "one|u|query|3|400|111|1000|1000|1000|1000",
    ];
    assert_eq!(rows(&fake, "latency").await, expected);
    let expected = [
        "one|u|prepared_statements|hits|6",
        "one|u|servers_traded|given|7",
        "one|u|pins|partial_message|4",
        "one|u|connections_denied|user|5",
    ];
    assert_eq!(rows(&fake, "counters").await, expected);
    let expected = [
        "worker-0|12|5|2|3|1|0|0|0|0|0|0",
        "login|4|~|~|~|~|~|~|~|~|~|~",
    ];
    assert_eq!(rows(&fake, "workers").await, expected);
    let errors = rows(&fake, "errors").await;
    assert_eq!(errors.len(), ErrorKind::COUNT);
    assert_eq!(
        errors[..2],
        ["auth_failed|client|8", "login_refused|client|0"]
    );
}

#[tokio::test]
async fn the_busiest_pools() {
    let pool = |database: &str, busy: u64| PoolRow {
        database: database.to_owned(),
        user: "u".to_owned(),
        stats: Stats {
            query_count: 2050,
            query_time: busy + 500,
            xact_time: busy + 500,
            wait_time: 500,
            ..Stats::default()
        },
        ..PoolRow::default()
    };
    let fake = Fake {
        pools: vec![
            pool("idle", 0),
            pool("a", 3000),
            pool("b", 4500),
            pool("b", 1500),
        ],
        ..Fake::default()
    };
    // Two workers have parts of `b`; the console is none of them.
    let expected = [
        "b|u|66|4|0|1|0|0|0|0|66|4100|1",
        "a|u|33|2|0|1|0|0|0|0|33|2050|1",
        "idle|u|0|2|0|0|0|0|0|0|0|2050|0",
    ];
    assert_eq!(rows(&fake, "top").await, expected);
}
