//! The layouts of PgBouncer 1.26, and of what is pgweir's own: which columns, in which order, of which type.
//!
//! Tools declare these column lists and look columns up by name, so that not even an additional one is harmless: what PgBouncer does
//! not show belongs into a SHOW of its own.

use crate::admin::command::Show;
use crate::admin::table::{Column, int4, int8, numeric, text};

/// The columns of a SHOW; none for SHOW HELP, which answers with a notice.
pub fn columns(show: Show) -> &'static [Column] {
    match show {
        Show::Help => &[],
        Show::Version => const { &[text("version")] },
        Show::PgweirVersion => const { &[text("pgweir_version")] },
        Show::Parameter(index) => PARAMETERS.get(index).map_or(&[], |column| column),
        Show::Config => {
            const {
                &[
                    text("key"),
                    text("value"),
                    text("default"),
                    text("changeable"),
                ]
            }
        }
        Show::State => const { &[text("key"), text("value")] },
        Show::Lists => const { &[text("list"), int4("items")] },
        Show::Databases => &DATABASES,
        Show::Users => &USERS,
        Show::Pools => &POOLS,
        Show::Peers => {
            const {
                &[
                    int4("peer_id"),
                    text("host"),
                    int4("port"),
                    int4("pool_size"),
                ]
            }
        }
        Show::PeerPools => &PEER_POOLS,
        Show::Clients | Show::Servers => CONNECTIONS,
        Show::Sockets | Show::ActiveSockets => &SOCKETS,
        Show::Stats => &STATS,
        Show::StatsTotals => &STATS_TOTALS,
        Show::StatsAverages => &STATS_AVERAGES,
        Show::Totals => const { &[text("name"), numeric("value")] },
        Show::Mem => &MEM,
        Show::DnsHosts => const { &[text("hostname"), int8("ttl"), text("addrs")] },
        Show::Counters => &COUNTERS,
        Show::Errors => const { &[text("kind"), text("side"), numeric("count")] },
        Show::ExplainClient(_) => &EXPLAIN,
        Show::Latency => &LATENCY,
        Show::Top => &TOP,
        Show::Waits => &WAITS,
        Show::Workers => &WORKERS,
        Show::DnsZones => const { &[text("zonename"), int8("serial"), int4("count")] },
    }
}

/// One column each, in the order of [`crate::admin::command::PARAMETERS`].
static PARAMETERS: [[Column; 1]; 6] = [
    [text("client_encoding")],
    [text("default_transaction_isolation")],
    [text("standard_conforming_strings")],
    [text("datestyle")],
    [text("timezone")],
    [text("extra_float_digits")],
];

static DATABASES: [Column; 17] = [
    text("name"),
    text("host"),
    int4("port"),
    text("database"),
    text("force_user"),
    int4("pool_size"),
    int4("min_pool_size"),
    int4("reserve_pool_size"),
    int4("server_lifetime"),
    text("pool_mode"),
    text("load_balance_hosts"),
    int4("max_connections"),
    int4("current_connections"),
    int4("max_client_connections"),
    int4("current_client_connections"),
    int4("paused"),
    int4("disabled"),
];

static USERS: [Column; 8] = [
    text("name"),
    text("pool_size"),
    text("reserve_pool_size"),
    text("pool_mode"),
    int4("max_user_connections"),
    int4("current_connections"),
    int4("max_user_client_connections"),
    int4("current_client_connections"),
];

static POOLS: [Column; 17] = [
    text("database"),
    text("user"),
    int4("cl_active"),
    int4("cl_waiting"),
    int4("cl_active_cancel_req"),
    int4("cl_waiting_cancel_req"),
    int4("sv_active"),
    int4("sv_active_cancel"),
    int4("sv_being_canceled"),
    int4("sv_idle"),
    int4("sv_used"),
    int4("sv_tested"),
    int4("sv_login"),
    int4("maxwait"),
    int4("maxwait_us"),
    text("pool_mode"),
    text("load_balance_hosts"),
];

static COUNTERS: [Column; 5] = [
    text("database"),
    text("user"),
    text("what"),
    text("of"),
    numeric("count"),
];

static EXPLAIN: [Column; 8] = [
    int8("id"),
    text("database"),
    text("user"),
    text("state"),
    int8("for_us"),
    int4("place"),
    text("reason"),
    text("hint"),
];

static LATENCY: [Column; 10] = [
    text("database"),
    text("user"),
    text("what"),
    numeric("count"),
    int8("avg_us"),
    int8("p50_us"),
    int8("p90_us"),
    int8("p99_us"),
    int8("p999_us"),
    int8("max_us"),
];

static TOP: [Column; 13] = [
    text("database"),
    text("user"),
    int4("time_percent"),
    int8("queries_per_s"),
    int8("xacts_per_s"),
    int8("avg_query_us"),
    int8("avg_xact_us"),
    int8("avg_wait_us"),
    int8("bytes_in_per_s"),
    int8("bytes_out_per_s"),
    int4("total_time_percent"),
    numeric("total_queries"),
    int8("total_avg_query_us"),
];

static WAITS: [Column; 6] = [
    text("database"),
    text("user"),
    text("reason"),
    numeric("waits"),
    int4("waiting"),
    int8("longest_us"),
];

static WORKERS: [Column; 12] = [
    text("thread"),
    int8("cpu_ms"),
    int4("clients"),
    int4("waiting"),
    int4("servers"),
    int4("servers_active"),
    numeric("queries"),
    numeric("xacts"),
    numeric("bytes_in"),
    numeric("bytes_out"),
    numeric("servers_given"),
    numeric("servers_taken"),
];

static PEER_POOLS: [Column; 5] = [
    int4("peer_id"),
    int4("cl_active_cancel_req"),
    int4("cl_waiting_cancel_req"),
    int4("sv_active_cancel"),
    int4("sv_login"),
];

/// How many columns of SHOW SOCKETS SHOW CLIENTS and SHOW SERVERS have.
const CONNECTION_COLUMNS: usize = 21;
static CONNECTIONS: &[Column] = SOCKETS.split_at(CONNECTION_COLUMNS).0;

static SOCKETS: [Column; 28] = [
    text("type"),
    text("user"),
    text("database"),
    text("replication"),
    text("state"),
    text("addr"),
    int4("port"),
    text("local_addr"),
    int4("local_port"),
    text("connect_time"),
    text("request_time"),
    int4("wait"),
    int4("wait_us"),
    int4("close_needed"),
    text("ptr"),
    text("link"),
    int4("remote_pid"),
    text("tls"),
    text("application_name"),
    int4("prepared_statements"),
    int4("id"),
    int4("recv_pos"),
    int4("pkt_pos"),
    int4("pkt_remain"),
    int4("send_pos"),
    int4("send_remain"),
    int4("pkt_avail"),
    int4("send_avail"),
];

static STATS: [Column; 25] = [
    text("database"),
    numeric("total_server_assignment_count"),
    numeric("total_xact_count"),
    numeric("total_query_count"),
    numeric("total_received"),
    numeric("total_sent"),
    numeric("total_xact_time"),
    numeric("total_query_time"),
    numeric("total_wait_time"),
    numeric("total_client_parse_count"),
    numeric("total_server_parse_count"),
    numeric("total_bind_count"),
    numeric("total_client_login_count"),
    numeric("avg_server_assignment_count"),
    numeric("avg_xact_count"),
    numeric("avg_query_count"),
    numeric("avg_recv"),
    numeric("avg_sent"),
    numeric("avg_xact_time"),
    numeric("avg_query_time"),
    numeric("avg_wait_time"),
    numeric("avg_client_parse_count"),
    numeric("avg_server_parse_count"),
    numeric("avg_bind_count"),
    numeric("avg_client_login_count"),
];

static STATS_TOTALS: [Column; 13] = [
    text("database"),
    numeric("server_assignment_count"),
    numeric("xact_count"),
    numeric("query_count"),
    numeric("bytes_received"),
    numeric("bytes_sent"),
    numeric("xact_time"),
    numeric("query_time"),
    numeric("wait_time"),
    numeric("client_parse_count"),
    numeric("server_parse_count"),
    numeric("bind_count"),
    numeric("client_login_count"),
];

/// The mixed names are PgBouncer's.
static STATS_AVERAGES: [Column; 13] = [
    text("database"),
    numeric("server_assignment_count"),
    numeric("xact_count"),
    numeric("query_count"),
    numeric("bytes_received"),
    numeric("bytes_sent"),
    numeric("xact_time"),
    numeric("query_time"),
    numeric("wait_time"),
    numeric("avg_client_parse_count"),
    numeric("avg_server_parse_count"),
    numeric("avg_bind_count"),
    numeric("avg_client_login_count"),
];

static MEM: [Column; 5] = [
    text("name"),
    int4("size"),
    int4("used"),
    int4("free"),
    int4("memtotal"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::command::{PARAMETERS, SHOWS};

    #[test]
    fn parameters_have_the_same_order_as_their_names() {
        for (index, (name, _)) in PARAMETERS.iter().enumerate() {
            assert_eq!(columns(Show::Parameter(index)), &[text(name)]);
        }
    }

    /// Names and type numbers as PgBouncer 1.26.1 sends them.
    const PGBOUNCER: [(&str, &str); 19] = [
        (
            "clients",
            "type:25 user:25 database:25 replication:25 state:25 addr:25 port:23 local_addr:25 local_port:23 \
             connect_time:25 request_time:25 wait:23 wait_us:23 close_needed:23 ptr:25 link:25 remote_pid:23 \
             tls:25 application_name:25 prepared_statements:23 id:23",
        ),
        ("config", "key:25 value:25 default:25 changeable:25"),
        (
            "databases",
            "name:25 host:25 port:23 database:25 force_user:25 pool_size:23 min_pool_size:23 reserve_pool_size:23 \
             server_lifetime:23 pool_mode:25 load_balance_hosts:25 max_connections:23 current_connections:23 \
             max_client_connections:23 current_client_connections:23 paused:23 disabled:23",
        ),
        ("dns_hosts", "hostname:25 ttl:20 addrs:25"),
        ("dns_zones", "zonename:25 serial:20 count:23"),
        ("lists", "list:25 items:23"),
        ("mem", "name:25 size:23 used:23 free:23 memtotal:23"),
        ("peers", "peer_id:23 host:25 port:23 pool_size:23"),
        (
            "peer_pools",
            "peer_id:23 cl_active_cancel_req:23 cl_waiting_cancel_req:23 sv_active_cancel:23 sv_login:23",
        ),
        (
            "pools",
            "database:25 user:25 cl_active:23 cl_waiting:23 cl_active_cancel_req:23 cl_waiting_cancel_req:23 \
             sv_active:23 sv_active_cancel:23 sv_being_canceled:23 sv_idle:23 sv_used:23 sv_tested:23 sv_login:23 \
             maxwait:23 maxwait_us:23 pool_mode:25 load_balance_hosts:25",
        ),
        (
            "servers",
            "type:25 user:25 database:25 replication:25 state:25 addr:25 port:23 local_addr:25 local_port:23 \
             connect_time:25 request_time:25 wait:23 wait_us:23 close_needed:23 ptr:25 link:25 remote_pid:23 \
             tls:25 application_name:25 prepared_statements:23 id:23",
        ),
        (
            "sockets",
            "type:25 user:25 database:25 replication:25 state:25 addr:25 port:23 local_addr:25 local_port:23 \
             connect_time:25 request_time:25 wait:23 wait_us:23 close_needed:23 ptr:25 link:25 remote_pid:23 \
             tls:25 application_name:25 prepared_statements:23 id:23 recv_pos:23 pkt_pos:23 pkt_remain:23 \
             send_pos:23 send_remain:23 pkt_avail:23 send_avail:23",
        ),
        ("state", "key:25 value:25"),
        (
            "stats",
            "database:25 total_server_assignment_count:1700 total_xact_count:1700 total_query_count:1700 \
             total_received:1700 total_sent:1700 total_xact_time:1700 total_query_time:1700 total_wait_time:1700 \
             total_client_parse_count:1700 total_server_parse_count:1700 total_bind_count:1700 \
             total_client_login_count:1700 avg_server_assignment_count:1700 avg_xact_count:1700 \
             avg_query_count:1700 avg_recv:1700 avg_sent:1700 avg_xact_time:1700 avg_query_time:1700 \
             avg_wait_time:1700 avg_client_parse_count:1700 avg_server_parse_count:1700 avg_bind_count:1700 \
             avg_client_login_count:1700",
        ),
        (
            "stats_averages",
            "database:25 server_assignment_count:1700 xact_count:1700 query_count:1700 bytes_received:1700 \
             bytes_sent:1700 xact_time:1700 query_time:1700 wait_time:1700 avg_client_parse_count:1700 \
             avg_server_parse_count:1700 avg_bind_count:1700 avg_client_login_count:1700",
        ),
        (
            "stats_totals",
            "database:25 server_assignment_count:1700 xact_count:1700 query_count:1700 bytes_received:1700 \
             bytes_sent:1700 xact_time:1700 query_time:1700 wait_time:1700 client_parse_count:1700 \
             server_parse_count:1700 bind_count:1700 client_login_count:1700",
        ),
        ("totals", "name:25 value:1700"),
        (
            "users",
            "name:25 pool_size:25 reserve_pool_size:25 pool_mode:25 max_user_connections:23 \
             current_connections:23 max_user_client_connections:23 current_client_connections:23",
        ),
        ("version", "version:25"),
    ];

    /// What PgBouncer does not have, or without columns.
    const OWN: [&str; 8] = [
        "help",
        "pgweir_version",
        "counters",
        "errors",
        "latency",
        "top",
        "waits",
        "workers",
    ];

    #[test]
    fn layouts_are_those_of_pgbouncer() {
        for (name, show) in SHOWS {
            let ours: Vec<String> = columns(show)
                .iter()
                .map(|c| format!("{}:{}", c.name, c.kind as u32))
                .collect();
            match PGBOUNCER.iter().find(|(theirs, _)| *theirs == name) {
                Some((_, theirs)) => assert_eq!(ours.join(" "), *theirs, "{name}"),
                None if name == "active_sockets" => {
                    assert_eq!(columns(show).len(), SOCKETS.len())
                }
                None => assert!(OWN.contains(&name), "{name}"),
            }
        }
    }
}
