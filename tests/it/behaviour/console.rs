//! The console's language and the exact layout of its answers, which monitoring tools take apart by position.

use super::*;
use crate::fixture::*;
use crate::proto::{Conn, msg};

const TEXT: u32 = 25;
const INT4: u32 = 23;
const NUMERIC: u32 = 1700;

/// `name` is text, `name:i` int4, `name:n` numeric.
fn layout(spec: &str) -> Vec<(String, u32)> {
    let column = |word: &str| match word.split_once(':') {
        Some((name, "i")) => (name.to_string(), INT4),
        Some((name, _)) => (name.to_string(), NUMERIC),
        None => (word.to_string(), TEXT),
    };
    spec.split_whitespace().map(column).collect()
}

const SOCKETS: &str = "type user database replication state addr port:i local_addr local_port:i connect_time request_time wait:i wait_us:i \
                       close_needed:i ptr link remote_pid:i tls application_name prepared_statements:i id:i";

const LAYOUTS: &[(&str, &str)] = &[
    (
        "DATABASES",
        "name host port:i database force_user pool_size:i min_pool_size:i reserve_pool_size:i server_lifetime:i pool_mode \
         load_balance_hosts max_connections:i current_connections:i max_client_connections:i current_client_connections:i paused:i \
         disabled:i",
    ),
    (
        "POOLS",
        "database user cl_active:i cl_waiting:i cl_active_cancel_req:i cl_waiting_cancel_req:i sv_active:i sv_active_cancel:i \
         sv_being_canceled:i sv_idle:i sv_used:i sv_tested:i sv_login:i maxwait:i maxwait_us:i pool_mode load_balance_hosts",
    ),
    ("CLIENTS", SOCKETS),
    ("SERVERS", SOCKETS),
    (
        "STATS",
        "database total_server_assignment_count:n total_xact_count:n total_query_count:n total_received:n total_sent:n \
         total_xact_time:n total_query_time:n total_wait_time:n total_client_parse_count:n total_server_parse_count:n total_bind_count:n \
         total_client_login_count:n avg_server_assignment_count:n avg_xact_count:n avg_query_count:n avg_recv:n avg_sent:n \
         avg_xact_time:n avg_query_time:n avg_wait_time:n avg_client_parse_count:n avg_server_parse_count:n avg_bind_count:n \
         avg_client_login_count:n",
    ),
    (
        "STATS_TOTALS",
        "database server_assignment_count:n xact_count:n query_count:n bytes_received:n bytes_sent:n xact_time:n query_time:n \
         wait_time:n client_parse_count:n server_parse_count:n bind_count:n client_login_count:n",
    ),
    (
        "STATS_AVERAGES",
        "database server_assignment_count:n xact_count:n query_count:n bytes_received:n bytes_sent:n xact_time:n query_time:n \
         wait_time:n avg_client_parse_count:n avg_server_parse_count:n avg_bind_count:n avg_client_login_count:n",
    ),
    ("TOTALS", "name value:n"),
    (
        "USERS",
        "name pool_size reserve_pool_size pool_mode max_user_connections:i current_connections:i max_user_client_connections:i \
         current_client_connections:i",
    ),
    ("LISTS", "list items:i"),
    ("CONFIG", "key value default changeable"),
    ("VERSION", "version"),
    ("STATE", "key value"),
];

#[tokio::test]
async fn every_show_has_its_columns() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        hold_server(&mut client).await;
        for (what, columns) in LAYOUTS {
            let reply = pooler.console(&format!("SHOW {what}")).await;
            assert_eq!(reply.error_text(), None, "SHOW {what}");
            assert_eq!(reply.columns(), layout(columns), "SHOW {what}");
            assert_eq!(reply.completions(), ["SHOW"]);
            assert!(!reply.rows().is_empty(), "SHOW {what} has rows");
        }
    })
    .await;
}

#[tokio::test]
async fn show_version_is_a_1_x_of_pgbouncer() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let version = pooler.console("SHOW VERSION").await.value();
        assert!(version.starts_with("PgBouncer 1."), "{version}");
        let admin = pooler.admin().await;
        let server_version = admin.login.parameter("server_version").expect("reported");
        assert!(
            server_version.starts_with("1.") && server_version.ends_with("/bouncer"),
            "{server_version}"
        );
        for (name, value) in [
            ("client_encoding", "UTF8"),
            ("server_encoding", "UTF8"),
            ("DateStyle", "ISO"),
            ("TimeZone", "GMT"),
            ("standard_conforming_strings", "on"),
            ("is_superuser", "on"),
        ] {
            assert_eq!(admin.login.parameter(name), Some(value), "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn rows_of_lists_totals_and_state() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let keys = |table: &Table| table.rows.iter().map(|r| r[0].clone().unwrap()).collect::<Vec<_>>().join(" ");
        let lists = "databases users peers pools peer_pools free_clients used_clients login_clients free_servers used_servers dns_names \
                     dns_zones dns_queries dns_pending";
        assert_eq!(keys(&pooler.show("LISTS").await), lists);
        let names = "server_assignment_count xact_count query_count client_bytes server_bytes xact_time query_time wait_time \
                     ps_client_parse_count ps_server_parse_count ps_bind_count client_login_count";
        let both: Vec<String> = ["total_", "avg_"].iter().flat_map(|p| names.split(' ').map(move |n| format!("{p}{n}"))).collect();
        assert_eq!(keys(&pooler.show("TOTALS").await), both.join(" "));
        let state = pooler.show("STATE").await;
        assert_eq!(keys(&state), "active paused");
        assert_eq!(state.value("key", "active", "value"), "yes");
        assert_eq!(state.value("key", "paused", "value"), "no");
    })
    .await;
}

#[tokio::test]
async fn show_config_has_the_settings_in_order() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("query_wait_timeout", "1.5").start().await;
        let config = pooler.show("CONFIG").await;
        assert_eq!(config.value("key", "query_wait_timeout", "value"), "1.5");
        assert_eq!(config.value("key", "query_wait_timeout", "default"), "120");
        assert_eq!(config.value("key", "query_wait_timeout", "changeable"), "yes");
        assert_eq!(config.value("key", "listen_port", "changeable"), "no");
        assert_eq!(config.value("key", "listen_port", "value"), pooler.port.to_string());
        assert_eq!(config.value("key", "unix_socket_mode", "value"), "511");
        assert_eq!(config.value("key", "auth_type", "default"), "md5");
        assert_eq!(config.value("key", "pool_mode", "value"), "transaction");
        let known = "admin_users application_name_add_host auth_dbname auth_file auth_hba_file auth_ident_file auth_query auth_type \
                     auth_user autodb_idle_timeout cancel_wait_timeout client_idle_timeout client_login_timeout client_tls_ca_file \
                     client_tls_cert_file client_tls_ciphers client_tls_key_file client_tls_protocols client_tls_sslmode conffile \
                     default_pool_size disable_pqexec dns_max_ttl dns_nxdomain_ttl idle_transaction_timeout ignore_startup_parameters \
                     listen_addr listen_backlog listen_port log_connections log_disconnections log_pooler_errors log_stats logfile \
                     login_notify_message max_client_conn max_db_client_connections max_db_connections max_packet_size \
                     max_prepared_statements max_user_client_connections max_user_connections min_pool_size peer_id pidfile pkt_buf \
                     pool_mode pool_idle_timeout query_timeout query_wait_notify query_wait_timeout reserve_pool_size \
                     reserve_pool_timeout resolv_conf sbuf_loopcnt scram_iterations server_check_delay server_check_query \
                     server_connect_timeout server_fast_close server_idle_timeout server_lifetime server_login_retry \
                     server_reset_query server_reset_query_always server_round_robin server_tls_ca_file server_tls_cert_file \
                     server_tls_ciphers server_tls_key_file server_tls_protocols server_tls_sslmode so_reuseport stats_period \
                     stats_users syslog syslog_facility syslog_ident tcp_defer_accept tcp_keepalive tcp_keepcnt \
                     tcp_keepidle tcp_keepintvl tcp_socket_buffer tcp_user_timeout track_extra_parameters transaction_timeout \
                     unix_socket_dir unix_socket_group unix_socket_mode user verbose";
        let keys: Vec<String> = config.rows.iter().map(|r| r[0].clone().unwrap()).collect();
        let missing: Vec<&str> = known.split_whitespace().filter(|k| !keys.iter().any(|have| have == k)).collect();
        assert_eq!(missing, Vec::<&str>::new());
    })
    .await;
}

#[tokio::test]
async fn commands_are_read_as_pgbouncer_reads_them() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut admin = pooler.admin().await;
        for good in [
            "show version",
            "SHOW VERSION;",
            "  Show\tVersion ; ",
            "SELECT version",
            "show \"version\"",
        ] {
            let reply = admin.query(good).await;
            assert_eq!(
                (reply.error_text(), reply.rows().len()),
                (None, 1),
                "{good:?}"
            );
        }
        for bad in [
            "show nonsense",
            "nonsense",
            "show version version",
            "RELOAD p",
            "SHUTDOWN now",
            "SUSPEND",
            "SHOW FDS",
            "select version()",
        ] {
            let reply = admin.query(bad).await;
            assert_eq!(
                reply.error_text(),
                Some(format!(
                    "ERROR 08P01 invalid command '{bad}', use SHOW HELP;"
                ))
            );
            assert_eq!(reply.status(), 'I');
        }
        let help = admin.query("SHOW HELP").await;
        assert_eq!(
            (help.notices(), help.completions()),
            (vec!["Console usage".to_string()], vec!["SHOW".to_string()])
        );
        for (name, value) in [
            ("client_encoding", "UTF-8"),
            ("default_transaction_isolation", "read committed"),
            ("standard_conforming_strings", "on"),
            ("datestyle", "ISO"),
            ("timezone", "GMT"),
        ] {
            let reply = admin.query(&format!("SHOW {name}")).await;
            assert_eq!(
                (reply.columns(), reply.value()),
                (vec![(name.to_string(), TEXT)], value.to_string())
            );
        }
    })
    .await;
}

#[tokio::test]
async fn set_changes_settings_until_reload() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut admin = pooler.admin().await;
        for (set, tag, key, value) in [
            (
                "SET query_timeout = 7",
                "SET query_timeout=7",
                "query_timeout",
                "7",
            ),
            (
                "set query_timeout to '1.5'",
                "SET query_timeout=1.5",
                "query_timeout",
                "1.5",
            ),
            (
                "SET pool_mode=session",
                "SET pool_mode=session",
                "pool_mode",
                "session",
            ),
            (
                "SET server_reset_query = ''",
                "SET server_reset_query=",
                "server_reset_query",
                "",
            ),
        ] {
            let reply = admin.query(set).await;
            assert_eq!(
                (reply.error_text(), reply.completions()),
                (None, vec![tag.to_string()]),
                "{set}"
            );
            assert_eq!(
                pooler.show("CONFIG").await.value("key", key, "value"),
                value
            );
        }
        for bad in [
            "SET query_timeout = 'x'",
            "SET nonsense = 1",
            "SET POOL_MODE = session",
        ] {
            assert_eq!(
                admin.query(bad).await.error_text().as_deref(),
                Some("ERROR 08P01 SET failed"),
                "{bad}"
            );
        }
        for fake in [
            "client_encoding",
            "default_transaction_isolation",
            "standard_conforming_strings",
            "datestyle",
            "timezone",
            "extra_float_digits",
        ] {
            let reply = admin.query(&format!("SET {fake} = 'x'")).await;
            assert_eq!(
                (reply.notices(), reply.completions()),
                (vec!["SET ignored".to_string()], vec!["SET".to_string()]),
                "{fake}"
            );
        }
        assert_eq!(admin.query("RELOAD").await.completions(), ["RELOAD"]);
        assert_eq!(
            pooler
                .show("CONFIG")
                .await
                .value("key", "query_timeout", "value"),
            "0"
        );
    })
    .await;
}

#[tokio::test]
async fn a_set_takes_effect_at_once() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        assert_eq!(
            pooler.console("SET query_timeout = 1").await.error_text(),
            None
        );
        client.send(&msg::query("SELECT pg_sleep(60)")).await;
        assert_eq!(client.fatal().await, "FATAL 08P01 query timeout");
    })
    .await;
}

/// PgBouncer's console refuses the extended protocol, empty queries, comments and several commands at once; drivers use all of them.
#[tokio::test]
async fn drivers_are_understood() {
    not_in_pgbouncer!("it understands one simple command at a time");
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut admin = pooler.admin().await;
        let batch = [
            msg::parse("", "SHOW VERSION", &[]),
            msg::bind("", "", &[]),
            msg::describe(b'P', ""),
            msg::execute("", 0),
            msg::sync(),
        ];
        admin.send(&batch.concat()).await;
        let reply = admin.until_ready().await;
        assert_eq!(reply.tags(), "12TDCZ");
        assert!(reply.value().starts_with("PgBouncer 1."));
        for ping in ["", ";", "-- ping"] {
            assert_eq!(admin.query(ping).await.tags(), "IZ", "{ping:?}");
        }
        assert_eq!(
            admin
                .query("SHOW VERSION; SHOW STATE /* both */")
                .await
                .completions(),
            ["SHOW", "SHOW"]
        );
        admin
            .send(
                &[
                    msg::parse("", "NONSENSE", &[]),
                    msg::bind("", "", &[]),
                    msg::execute("", 0),
                    msg::sync(),
                ]
                .concat(),
            )
            .await;
        let reply = admin.until_ready().await;
        assert_eq!(reply.tags(), "EZ");
        assert!(
            admin
                .query("SHOW VERSION")
                .await
                .value()
                .starts_with("PgBouncer")
        );
    })
    .await;
}

#[tokio::test]
async fn other_messages_are_refused() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        for (message, number) in [(msg::function_call(1, &[]), 70)] {
            let mut admin = pooler.admin().await;
            admin.send(&message).await;
            let frames = admin.until_closed().await;
            let first = frames.first().and_then(|f| f.field(b'M'));
            assert_eq!(
                first,
                Some(format!(
                    "unsupported packet type for admin console: {number}"
                ))
            );
        }
        assert_eq!(pooler.console("SHOW VERSION").await.rows().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn long_commands_are_errors() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut admin = pooler.admin().await;
        let reply = admin.query(&format!("SHOW {}", "x".repeat(100))).await;
        assert!(reply.error_text().is_some());
        let mut admin = pooler.admin().await;
        admin.send(&msg::query(&"y".repeat(100_000))).await;
        let first = admin.next_frame().await;
        assert!(first.is_none_or(|f| f.is(b'E')));
        assert_eq!(pooler.console("SHOW VERSION").await.rows().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn clients_and_servers_are_shown_with_their_links() {
    bounded(60, async {
        let (_, db, ini) = setup().await;
        let pooler = ini.start().await;
        let mut active = pooler.raw().await;
        active
            .log_in_with(
                &[
                    ("user", "u_trust"),
                    ("database", "p"),
                    ("application_name", "shown"),
                ],
                None,
            )
            .await;
        let pid = hold_server(&mut active).await;
        let _idle = pooler.client("u_trust", "p").await;
        let clients = pooler.show("CLIENTS").await;
        let row = clients
            .find(&[("user", "u_trust"), ("state", "active")])
            .expect("the active one");
        assert!(
            clients
                .find(&[("user", "u_trust"), ("state", "idle")])
                .is_some()
        );
        for (column, value) in [
            ("type", "C"),
            ("database", "p"),
            ("replication", "none"),
            ("addr", "127.0.0.1"),
            ("local_addr", "127.0.0.1"),
            ("tls", ""),
            ("application_name", "shown"),
            ("close_needed", "0"),
        ] {
            assert_eq!(clients.get(row, column), value, "{column}");
        }
        assert_eq!(clients.get(row, "port"), active.local_port().to_string());
        assert_eq!(clients.get(row, "local_port"), pooler.port.to_string());
        assert!(clients.get(row, "ptr").starts_with("0x"));
        let servers = pooler.show("SERVERS").await;
        let server = servers
            .find(&[("database", "p"), ("state", "active")])
            .expect("its server");
        assert_eq!(servers.get(server, "link"), clients.get(row, "ptr"));
        assert_eq!(clients.get(row, "link"), servers.get(server, "ptr"));
        assert_eq!(servers.get(server, "remote_pid"), pid);
        assert_eq!(servers.get(server, "user"), "u_trust");
        assert_eq!(
            servers.get(server, "port"),
            Cluster::shared().port.to_string()
        );
        let times = clients.get(row, "connect_time");
        assert!(times.len() > 20 && times.ends_with("UTC"), "{times}");
        assert_eq!(
            pooler
                .show("DATABASES")
                .await
                .value("name", "p", "database"),
            db
        );
    })
    .await;
}

#[tokio::test]
async fn statistics_count() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        for _ in 0..5 {
            client.ok("SELECT 1").await;
        }
        client.ok("BEGIN").await;
        client.ok("SELECT 2").await;
        client.ok("COMMIT").await;
        let stats = pooler.show("STATS_TOTALS").await;
        let n = |column: &str| {
            stats
                .value("database", "p", column)
                .parse::<u64>()
                .expect("a number")
        };
        assert_eq!(
            (
                n("xact_count"),
                n("query_count"),
                n("server_assignment_count"),
                n("client_login_count")
            ),
            (6, 8, 6, 1)
        );
        assert!(n("bytes_received") > 100 && n("bytes_sent") > 200);
        assert!(n("query_time") > 0 && n("xact_time") >= n("query_time"));
    })
    .await;
}

#[tokio::test]
async fn the_same_user_is_admin_on_the_unix_socket() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("auth_type", "plain").start().await;
        let mut psql = std::process::Command::new("psql");
        become_unprivileged(&mut psql);
        psql.args(["-X", "-A", "-t", "-h"]).arg(&pooler.dir).args([
            "-p",
            &pooler.port.to_string(),
            "-U",
            "pgbouncer",
        ]);
        let out = psql
            .args(["-d", "pgbouncer", "-c", "RELOAD", "-c", "SHOW VERSION"])
            .output()
            .expect("psql is installed");
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(
            text.contains("PgBouncer 1."),
            "{text} {}",
            String::from_utf8_lossy(&out.stderr)
        );
        assert!(pooler.log().contains("pgbouncer access from unix socket"));
        let error = Conn::try_login(pooler.port, "pgbouncer", "pgbouncer", Some("x"))
            .await
            .err()
            .expect("refused");
        assert!(error.error_text().starts_with("FATAL 08P01"), "{error:?}");
    })
    .await;
}
