//! What a scrape says: every name with its type and labels, the bound on series, and that the tables of families are complete.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::families::{Families, Spec};
use super::pgbouncer::{self, KINDS_MAX, POOLS_MAX, Shown};
use super::pgweir;
use super::recent::Recent;
use super::snapshot::Snapshot;
use super::vitals::Condition;
use super::{health, status};
use crate::admin::averages::Averages;
use crate::admin::rows::{CertificateRow, DatabaseRow, Reloads};
use crate::admin::show::{Counts, pools};
use crate::config::{Config, Database};
use crate::metrics::{
    ErrorKind, Limit, Measures, PinReason, PoolMeasures, Stats, ThreadCpu, WaitReason,
    WorkerMeasures,
};
use crate::worker::report::{CensusRow, PoolRow};

/// Every family: name, type, labels. Dashboards and alerts are written for these.
const EXPECTED: &str = "
pgbouncer_cached_dns_names gauge
pgbouncer_cached_dns_zones gauge
pgbouncer_client_connections gauge database user application_name state
pgbouncer_config_max_client_connections gauge
pgbouncer_config_max_user_connections gauge
pgbouncer_databases gauge
pgbouncer_databases_current_connections gauge name host port database force_user pool_mode
pgbouncer_databases_disabled gauge name host port database force_user pool_mode
pgbouncer_databases_max_connections gauge name host port database force_user pool_mode
pgbouncer_databases_paused gauge name host port database force_user pool_mode
pgbouncer_databases_pool_size gauge name host port database force_user pool_mode
pgbouncer_databases_reserve_pool gauge name host port database force_user pool_mode
pgbouncer_free_clients gauge
pgbouncer_free_servers gauge
pgbouncer_in_flight_dns_queries gauge
pgbouncer_login_clients gauge
pgbouncer_pools gauge
pgbouncer_pools_client_active_cancel_connections gauge database user
pgbouncer_pools_client_active_connections gauge database user
pgbouncer_pools_client_maxwait_seconds gauge database user
pgbouncer_pools_client_waiting_cancel_connections gauge database user
pgbouncer_pools_client_waiting_connections gauge database user
pgbouncer_pools_server_active_cancel_connections gauge database user
pgbouncer_pools_server_active_connections gauge database user
pgbouncer_pools_server_being_canceled_connections gauge database user
pgbouncer_pools_server_idle_connections gauge database user
pgbouncer_pools_server_login_connections gauge database user
pgbouncer_pools_server_testing_connections gauge database user
pgbouncer_pools_server_used_connections gauge database user
pgbouncer_stats_binds_total counter database
pgbouncer_stats_client_parses_total counter database
pgbouncer_stats_client_wait_seconds_total counter database
pgbouncer_stats_queries_duration_seconds_total counter database
pgbouncer_stats_queries_pooled_total counter database
pgbouncer_stats_received_bytes_total counter database
pgbouncer_stats_sent_bytes_total counter database
pgbouncer_stats_server_assignments_total counter database
pgbouncer_stats_server_in_transaction_seconds_total counter database
pgbouncer_stats_server_parses_total counter database
pgbouncer_stats_sql_transactions_pooled_total counter database
pgbouncer_stats_totals_binds_total counter database
pgbouncer_stats_totals_client_parses_total counter database
pgbouncer_stats_totals_client_wait_seconds_total counter database
pgbouncer_stats_totals_queries_duration_seconds_total counter database
pgbouncer_stats_totals_queries_pooled_total counter database
pgbouncer_stats_totals_received_bytes_total counter database
pgbouncer_stats_totals_sent_bytes_total counter database
pgbouncer_stats_totals_server_assignments_total counter database
pgbouncer_stats_totals_server_in_transaction_seconds_total counter database
pgbouncer_stats_totals_server_parses_total counter database
pgbouncer_stats_totals_sql_transactions_pooled_total counter database
pgbouncer_up gauge
pgbouncer_used_clients gauge
pgbouncer_used_servers gauge
pgbouncer_users gauge
pgbouncer_version_info gauge version
pgweir_budget_denied_total counter database user limit
pgweir_build_info gauge version compatible_version
pgweir_bytes_total counter database user side direction
pgweir_config_last_reload_success_timestamp_seconds gauge
pgweir_config_last_reload_successful gauge
pgweir_config_reloads_total counter result
pgweir_draining gauge
pgweir_errors_total counter kind side
pgweir_log_suppressed_total counter
pgweir_login_seconds histogram database user
pgweir_pins_total counter database user reason
pgweir_pool_connections gauge database user
pgweir_pool_connections_max gauge database user
pgweir_pools_not_shown gauge
pgweir_prepared_statement_hits_total counter database user
pgweir_prepared_statement_misses_total counter database user
pgweir_query_seconds histogram database user
pgweir_ready gauge
pgweir_server_connect_seconds histogram database user
pgweir_thread_cpu_seconds_total counter thread
pgweir_tls_certificate_expiry_timestamp_seconds gauge side file
pgweir_trades_total counter database user direction
pgweir_transaction_seconds histogram database user
pgweir_wait_seconds histogram database user
pgweir_waiting_clients gauge database user reason
pgweir_waits_total counter database user reason
pgweir_worker_clients gauge worker
pgweir_worker_servers gauge worker
";

fn specs() -> impl Iterator<Item = Spec> {
    pgbouncer::specs().chain(pgweir::specs())
}

/// A program with these pools, each with `n` of nearly everything, counted from 1.
fn snapshot(names: &[(&str, &str)]) -> Snapshot {
    let (mut rows, mut measures, mut census) = (Vec::new(), Measures::default(), Vec::new());
    let mut config = Config::default();
    for ((database, user), n) in names.iter().zip(1u64..) {
        let stats = Stats {
            query_count: n,
            query_time: 1_500_000 * n,
            bytes_received: 10 * n,
            ..Stats::default()
        };
        let entry = Arc::new(Database::new(database));
        config.databases.insert((*database).to_owned(), entry);
        rows.push(PoolRow {
            database: (*database).to_owned(),
            user: (*user).to_owned(),
            cl_active: n,
            cl_waiting: 2 * n,
            maxwait: Duration::from_millis(n),
            stats,
            ..PoolRow::default()
        });
        let mut pool = PoolMeasures {
            database: (*database).to_owned(),
            user: (*user).to_owned(),
            connections: n,
            prepared_hits: n,
            stats,
            ..PoolMeasures::default()
        };
        (0..n).for_each(|_| pool.wait.record(1000));
        pool.waits.add(WaitReason::PoolFull, n);
        pool.pins.add(PinReason::Pipeline, n);
        pool.denied.add(Limit::User, n);
        pool.limits.pool = 20;
        measures.pools.push(pool);
        census.push(CensusRow {
            database: (*database).to_owned(),
            user: (*user).to_owned(),
            application_name: "app".to_owned(),
            state: "idle",
            clients: n,
        });
    }
    measures.errors.add(ErrorKind::AuthFailed, 3);
    measures.workers.push(WorkerMeasures {
        clients: 7,
        ..WorkerMeasures::default()
    });
    measures.threads.push(ThreadCpu {
        name: "worker-0".to_owned(),
        threads: 1,
        cpu: Duration::from_millis(1500),
    });
    let databases = config.databases.values().map(|entry| DatabaseRow {
        entry: entry.clone(),
        current_connections: 1,
        current_client_connections: 1,
        paused: false,
        disabled: true,
    });
    let now = Instant::now();
    Snapshot {
        at: now,
        databases: databases.collect(),
        config: Arc::new(config),
        condition: Condition {
            started: true,
            shutting_down: false,
            draining: false,
            paused: false,
            since: now,
            reloads: Reloads::begin(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)),
            pools: Vec::new(),
        },
        report: Averages::new(now).report(now, &rows),
        pools: pools::merge(rows),
        counts: Counts::default(),
        consoles: 1,
        measures,
        certificates: vec![CertificateRow {
            side: "client",
            file: "/etc/c.pem".into(),
            not_after: 1_900_000_000,
        }],
        suppressed_lines: 4,
        census,
    }
}

fn scrape(shown: &mut Shown, snapshot: &Snapshot) -> String {
    shown.renew(snapshot);
    let mut families = Families::default();
    pgbouncer::add(&mut families, snapshot, shown);
    pgweir::add(&mut families, snapshot, shown, true);
    String::from_utf8(families.encode()).unwrap()
}

#[track_caller]
fn check(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(
            text.lines().any(|found| found == *line),
            "{line} is not in:\n{text}"
        );
    }
}

#[test]
fn the_names_are_these() {
    let mut found: Vec<String> = specs()
        .map(|spec| {
            let words = [spec.name, spec.kind.word()];
            [&words[..], spec.labels].concat().join(" ")
        })
        .collect();
    found.sort();
    let expected: Vec<&str> = EXPECTED.trim().lines().collect();
    assert_eq!(found, expected);
}

#[test]
fn everything_in_the_tables_is_said_and_nothing_else() {
    let text = scrape(&mut Shown::default(), &snapshot(&[("d", "u")]));
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut types: Vec<String> = types.map(str::to_owned).collect();
    types.sort();
    let mut expected: Vec<String> = specs()
        .map(|spec| format!("{} {}", spec.name, spec.kind.word()))
        .collect();
    expected.sort();
    assert_eq!(types, expected);
    for spec in specs() {
        let help = format!("# HELP {} {}", spec.name, spec.help);
        assert!(
            spec.help.ends_with('.') && text.contains(&help),
            "{}",
            spec.name
        );
        let sample = text
            .lines()
            .find(|line| line.starts_with(&format!("{}{{", spec.name)));
        for label in spec.labels {
            let is_there = |line: &str| line.contains(&format!("{label}=\""));
            assert!(sample.is_none_or(is_there), "{} {label}", spec.name);
        }
    }
}

#[test]
fn values_are_in_seconds_and_bytes() {
    let text = scrape(&mut Shown::default(), &snapshot(&[("d", "u")]));
    check(
        &text,
        &[
            "pgbouncer_stats_queries_pooled_total{database=\"d\"} 1",
            "pgbouncer_stats_queries_duration_seconds_total{database=\"d\"} 1.5",
            "pgbouncer_stats_totals_queries_duration_seconds_total{database=\"d\"} 1.5",
            "pgbouncer_pools_client_waiting_connections{database=\"d\",user=\"u\"} 2",
            "pgbouncer_pools_client_maxwait_seconds{database=\"d\",user=\"u\"} 0.001",
            "pgbouncer_databases_disabled{name=\"d\",host=\"\",port=\"5432\",database=\"d\",force_user=\"\",pool_mode=\"\"} 1",
            "pgbouncer_databases_pool_size{name=\"pgbouncer\",host=\"\",port=\"6432\",database=\"pgbouncer\",force_user=\"pgbouncer\",pool_mode=\"statement\"} 2",
            "pgbouncer_client_connections{database=\"d\",user=\"u\",application_name=\"app\",state=\"idle\"} 1",
            "pgbouncer_version_info{version=\"1.26.1\"} 1",
            "pgweir_waits_total{database=\"d\",user=\"u\",reason=\"pool_full\"} 1",
            "pgweir_wait_seconds_bucket{database=\"d\",user=\"u\",le=\"0.001024\"} 1",
            "pgweir_wait_seconds_sum{database=\"d\",user=\"u\"} 0.001",
            "pgweir_pool_connections_max{database=\"d\",user=\"u\"} 20",
            "pgweir_errors_total{kind=\"auth_failed\",side=\"client\"} 3",
            "pgweir_thread_cpu_seconds_total{thread=\"worker-0\"} 1.5",
            "pgweir_config_last_reload_success_timestamp_seconds 1800000000",
            "pgweir_config_reloads_total{result=\"refused\"} 0",
            "pgweir_tls_certificate_expiry_timestamp_seconds{side=\"client\",file=\"/etc/c.pem\"} 1900000000",
            "pgweir_log_suppressed_total 4",
        ],
    );
}

#[test]
fn pools_beyond_the_bound_are_added_up() {
    let names: Vec<String> = (0..POOLS_MAX + 3).map(|n| format!("d{n:04}")).collect();
    let pools: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "u")).collect();
    let mut shown = Shown::default();
    let text = scrape(&mut shown, &snapshot(&pools));
    // The last three, with 501, 502 and 503 of everything.
    let rest = 501 + 502 + 503;
    check(
        &text,
        &[
            "pgweir_pools_not_shown 3",
            &format!(
                "pgbouncer_pools_client_active_connections{{database=\"*\",user=\"*\"}} {rest}"
            ),
            "pgbouncer_pools_client_maxwait_seconds{database=\"*\",user=\"*\"} 0.503",
            &format!("pgbouncer_stats_queries_pooled_total{{database=\"*\"}} {rest}"),
            &format!("pgweir_pool_connections{{database=\"*\",user=\"*\"}} {rest}"),
            &format!("pgweir_wait_seconds_count{{database=\"*\",user=\"*\"}} {rest}"),
            "pgbouncer_databases_disabled{name=\"*\",host=\"\",port=\"\",database=\"\",force_user=\"\",pool_mode=\"\"} 3",
        ],
    );
    // Who is shown stays shown, whoever else comes.
    let mut later = snapshot(&[("aaaa", "u"), ("d0000", "u")]);
    later.config = Arc::default();
    let text = scrape(&mut shown, &later);
    check(
        &text,
        &[
            "pgbouncer_pools_client_active_connections{database=\"*\",user=\"*\"} 1",
            "pgbouncer_pools_client_active_connections{database=\"d0000\",user=\"u\"} 2",
        ],
    );
}

#[test]
fn clients_choose_names_within_a_bound() {
    let mut snapshot = snapshot(&[("d", "u")]);
    let long = "x".repeat(200);
    snapshot.census = (0..1000u64)
        .map(|n| CensusRow {
            database: "d".to_owned(),
            user: "u".to_owned(),
            application_name: format!("{n}-{long}"),
            state: "active",
            clients: if n == 999 { 5 } else { 1 },
        })
        .collect();
    let text = scrape(&mut Shown::default(), &snapshot);
    let series = text
        .lines()
        .filter(|line| line.starts_with("pgbouncer_client_connections{"));
    let series: BTreeMap<&str, u64> = series
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name, value.parse().unwrap()))
        .collect();
    assert_eq!(series.len(), KINDS_MAX + 1);
    assert_eq!(series.values().sum::<u64>(), 1004);
    assert!(series.keys().all(|name| name.len() < 250));
    // The largest kind has a place.
    assert!(
        series
            .iter()
            .any(|(name, clients)| name.contains("999-x") && *clients == 5)
    );
}

#[test]
fn names_that_are_shown_alike_are_one_series() {
    let (one, other) = (
        format!("{}1", "d".repeat(128)),
        format!("{}2", "d".repeat(128)),
    );
    let text = scrape(
        &mut Shown::default(),
        &snapshot(&[(&one, "u"), (&other, "u")]),
    );
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let names: std::collections::BTreeSet<&str> = lines
        .iter()
        .map(|line| line.rsplit_once(' ').unwrap().0)
        .collect();
    assert_eq!(names.len(), lines.len());
    let both = format!(
        "pgweir_pool_connections{{database=\"{}\",user=\"u\"}} 3",
        "d".repeat(128)
    );
    check(&text, &[&both]);
}

#[test]
fn the_page_gets_its_numbers() {
    let snapshot = snapshot(&[("<b>", "u"), ("d", "u")]);
    let ready = health::ready(&snapshot.condition, &[]);
    let now = snapshot.at + Duration::from_secs(5);
    let status = status::status(&snapshot, &Recent::default(), &ready, now);
    let status = serde_json::to_value(&status).unwrap();
    assert_eq!(status["state"], "ready");
    assert_eq!(status["uptime"], 5.0);
    assert_eq!(status["pools"][0]["database"], "<b>");
    assert_eq!(status["pools"][1]["clients_waiting"], 4);
    assert_eq!(status["pools"][1]["counters"]["queries"], 2);
    assert!(status["pools"][1]["wait"]["p99"].as_f64() >= Some(0.001));
    assert_eq!(status["pools"][1]["query"]["p99"], serde_json::Value::Null);
    assert_eq!(status["workers"][0]["cpu"], 1.5);
}
