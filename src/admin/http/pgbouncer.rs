//! The families that PgBouncer's exporter for Prometheus has, so that dashboards and alerts made for it keep working. Pure.
//!
//! Names, labels, types and units are the exporter's; the values are those of the SHOW that it reads. The counters of the statistics
//! are there twice, since the exporter's versions disagree about their prefix.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::chosen::Chosen;
use super::families::{Families, Kind, Samples, Spec, label};
use super::snapshot::Snapshot;
use crate::admin::rows::DatabaseRow;
use crate::admin::show::Counts;
use crate::admin::show::entries::CONSOLE_POOL_SIZE;
use crate::admin::{COMPATIBLE_VERSION, CONSOLE};
use crate::config::{Config, PoolMode};
use crate::metrics::Stats;
use crate::types::PoolKey;
use crate::worker::report::{CensusRow, EVERYBODY_ELSE, PoolRow};

/// Pools, and databases, with series of their own. The others are counted together.
pub const POOLS_MAX: usize = 500;
/// Kinds of clients (database, user, application_name) with series of their own: any client can choose its application_name.
pub const KINDS_MAX: usize = 100;
/// How long a name that is gone keeps its place. New names can come at most so often as places are given up.
const STAY: Duration = Duration::from_secs(3600);

/// Who has series of their own, from scrape to scrape.
#[derive(Debug)]
pub struct Shown {
    /// Pools.
    pub pools: Chosen<PoolKey>,
    /// Databases.
    pub databases: Chosen<String>,
    kinds: Chosen<[String; 3]>,
}

impl Default for Shown {
    fn default() -> Self {
        Shown {
            pools: Chosen::new(POOLS_MAX, STAY),
            databases: Chosen::new(POOLS_MAX, STAY),
            kinds: Chosen::new(KINDS_MAX, STAY),
        }
    }
}

impl Shown {
    /// Takes note of who is there. What the configuration names comes before what clients have made up.
    pub fn renew(&mut self, snapshot: &Snapshot) {
        let (at, config) = (snapshot.at, &snapshot.config);
        let mut pools: Vec<PoolKey> = snapshot.pools.iter().map(key_of).collect();
        pools.sort_by_key(|key| !is_configured(config, &key.database));
        self.pools.renew(&pools, at);
        let of_report = snapshot.report.databases.iter().map(|(name, _)| name);
        let of_rows = snapshot.databases.iter().map(|row| &row.entry.name);
        let mut databases: Vec<&String> = of_report.chain(of_rows).collect();
        databases.sort_by_key(|name| (!is_configured(config, name), *name));
        self.databases.renew(databases, at);
        self.renew_kinds(&snapshot.census, at);
    }

    fn renew_kinds(&mut self, census: &[CensusRow], at: Instant) {
        let mut clients: BTreeMap<[String; 3], u64> = BTreeMap::new();
        for row in census {
            *clients.entry(kind_of(row)).or_default() += row.clients;
        }
        let mut kinds: Vec<_> = clients.into_iter().collect();
        kinds.sort_by_key(|(_, clients)| std::cmp::Reverse(*clients));
        self.kinds.renew(kinds.iter().map(|(kind, _)| kind), at);
    }

    /// The labels `database` and `user` of a pool.
    pub fn pool_labels(&self, key: &PoolKey) -> Vec<String> {
        match self.pools.contains(key) {
            true => vec![label(&key.database), label(&key.user)],
            false => vec![EVERYBODY_ELSE.to_owned(); 2],
        }
    }

    fn database_label(&self, name: &String) -> String {
        match self.databases.contains(name) {
            true => label(name),
            false => EVERYBODY_ELSE.to_owned(),
        }
    }

    fn client_labels(&self, row: &CensusRow) -> Vec<String> {
        let kind = kind_of(row);
        let [database, user, name] = match self.kinds.contains(&kind) {
            true => kind,
            false => std::array::from_fn(|_| EVERYBODY_ELSE.to_owned()),
        };
        vec![database, user, name, row.state.to_owned()]
    }
}

/// The pool of a row.
pub fn key_of(row: &PoolRow) -> PoolKey {
    PoolKey {
        database: row.database.clone(),
        user: row.user.clone(),
    }
}

fn kind_of(row: &CensusRow) -> [String; 3] {
    [&row.database, &row.user, &row.application_name].map(|text| label(text))
}

fn is_configured(config: &Config, database: &str) -> bool {
    database == CONSOLE || config.databases.contains_key(database)
}

/// A family of which every row has one sample.
type Row<T> = (Spec, fn(&T) -> f64);

pub(super) const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Spec {
    Spec {
        name,
        help,
        kind: Kind::Gauge,
        labels,
    }
}

pub(super) const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Spec {
    Spec {
        name,
        help,
        kind: Kind::Counter,
        labels,
    }
}

fn seconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1e6
}

/// A counter of the statistics under both of its names.
macro_rules! statistics {
    ($($name:literal, $help:literal, $value:expr;)+) => {
        /// The statistics of a database. SHOW STATS_TOTALS.
        const STATS: &[Row<Stats>] = &[
            $((counter(concat!("pgbouncer_stats_", $name), &["database"], $help), $value),)+
            $((counter(concat!("pgbouncer_stats_totals_", $name), &["database"], $help), $value),)+
        ];
    };
}

statistics! {
    "queries_pooled_total", "Queries.", |s| s.query_count as f64;
    "queries_duration_seconds_total", "Time from a query to the end of its reply, waiting for a server included.",
        |s| seconds(s.query_time);
    "received_bytes_total", "Bytes that clients have sent.", |s| s.bytes_received as f64;
    "sent_bytes_total", "Bytes that servers have sent.", |s| s.bytes_sent as f64;
    "client_wait_seconds_total", "Time that clients have waited for a server.", |s| seconds(s.wait_time);
    "sql_transactions_pooled_total", "Transactions.", |s| s.xact_count as f64;
    "server_in_transaction_seconds_total", "Time in transactions.", |s| seconds(s.xact_time);
    "client_parses_total", "Named statements that clients have prepared.", |s| s.client_parse_count as f64;
    "server_parses_total", "Named statements that were prepared on servers.", |s| s.server_parse_count as f64;
    "binds_total", "Uses of named statements.", |s| s.bind_count as f64;
    "server_assignments_total", "Links of a client with a server.", |s| s.server_assignment_count as f64;
}

const POOL: &[&str] = &["database", "user"];

/// SHOW POOLS.
const POOLS: &[Row<PoolRow>] = &[
    (
        gauge(
            "pgbouncer_pools_client_active_connections",
            POOL,
            "Clients that do not wait, idle ones included.",
        ),
        |p| p.cl_active as f64,
    ),
    (
        gauge(
            "pgbouncer_pools_client_waiting_connections",
            POOL,
            "Clients that wait for a server.",
        ),
        |p| p.cl_waiting as f64,
    ),
    (
        gauge(
            "pgbouncer_pools_client_active_cancel_connections",
            POOL,
            "Cancel requests that are being delivered.",
        ),
        |p| p.cl_active_cancel_req as f64,
    ),
    (
        gauge(
            "pgbouncer_pools_client_waiting_cancel_connections",
            POOL,
            "Cancel requests that wait to be delivered.",
        ),
        |p| p.cl_waiting_cancel_req as f64,
    ),
    (
        gauge(
            "pgbouncer_pools_server_active_connections",
            POOL,
            "Servers that are linked with a client.",
        ),
        |p| p.sv_active as f64,
    ),
    (
        gauge(
            "pgbouncer_pools_server_active_cancel_connections",
            POOL,
            "Connections that carry a cancel request.",
        ),
        |p| p.sv_active_cancel as f64,
    ),
    (
        gauge(
            "pgbouncer_pools_server_being_canceled_connections",
            POOL,
            "Servers kept back until cancel requests aimed at them are finished.",
        ),
        |p| p.sv_being_canceled as f64,
    ),
    (
        gauge(
            "pgbouncer_pools_server_idle_connections",
            POOL,
            "Servers that are free.",
        ),
        |p| p.sv_idle as f64,
    ),
    (
        gauge(
            "pgbouncer_pools_server_used_connections",
            POOL,
            "Servers that have been free so long that they are tested before use.",
        ),
        |p| p.sv_used as f64,
    ),
    (
        gauge(
            "pgbouncer_pools_server_testing_connections",
            POOL,
            "Servers that run server_reset_query or server_check_query.",
        ),
        |p| p.sv_tested as f64,
    ),
    (
        gauge(
            "pgbouncer_pools_server_login_connections",
            POOL,
            "Servers that are being connected or logged in to.",
        ),
        |p| p.sv_login as f64,
    ),
    (
        gauge(
            "pgbouncer_pools_client_maxwait_seconds",
            POOL,
            "How long the client that has waited longest has waited.",
        ),
        |p| p.maxwait.as_secs_f64(),
    ),
];

const DATABASE: &[&str] = &[
    "name",
    "host",
    "port",
    "database",
    "force_user",
    "pool_mode",
];

/// The numbers of a row of SHOW DATABASES.
#[derive(Clone, Copy, Debug, Default)]
struct Sizes {
    pool_size: f64,
    reserve_pool: f64,
    max_connections: f64,
    current_connections: f64,
    paused: f64,
    disabled: f64,
}

/// SHOW DATABASES.
const DATABASES: &[Row<Sizes>] = &[
    (
        gauge(
            "pgbouncer_databases_pool_size",
            DATABASE,
            "Most server connections of each of the database's pools.",
        ),
        |d| d.pool_size,
    ),
    (
        gauge(
            "pgbouncer_databases_reserve_pool",
            DATABASE,
            "Server connections beyond pool_size for clients that have waited long.",
        ),
        |d| d.reserve_pool,
    ),
    (
        gauge(
            "pgbouncer_databases_max_connections",
            DATABASE,
            "Most server connections of the database; 0 is no limit.",
        ),
        |d| d.max_connections,
    ),
    (
        gauge(
            "pgbouncer_databases_current_connections",
            DATABASE,
            "Server connections of the database.",
        ),
        |d| d.current_connections,
    ),
    (
        gauge(
            "pgbouncer_databases_paused",
            DATABASE,
            "1 if the database is paused by name.",
        ),
        |d| d.paused,
    ),
    (
        gauge(
            "pgbouncer_databases_disabled",
            DATABASE,
            "1 if the database refuses new clients.",
        ),
        |d| d.disabled,
    ),
];

/// SHOW LISTS.
const LISTS: &[Row<Counts>] = &[
    (
        gauge(
            "pgbouncer_databases",
            &[],
            "Databases, the console among them.",
        ),
        |c| c.databases as f64,
    ),
    (
        gauge("pgbouncer_users", &[], "Users that are known."),
        |c| c.users as f64,
    ),
    (
        gauge("pgbouncer_pools", &[], "Pools, the console's among them."),
        |c| c.pools as f64,
    ),
    (
        gauge(
            "pgbouncer_free_clients",
            &[],
            "Always 0: PgBouncer's slots kept for later clients.",
        ),
        |_| 0.0,
    ),
    (
        gauge(
            "pgbouncer_used_clients",
            &[],
            "Clients, those that are logging in and consoles included.",
        ),
        |c| (c.lists.used_clients + c.consoles as u64) as f64,
    ),
    (
        gauge(
            "pgbouncer_login_clients",
            &[],
            "Clients that are logging in.",
        ),
        |c| c.lists.login_clients as f64,
    ),
    (
        gauge(
            "pgbouncer_free_servers",
            &[],
            "Always 0: PgBouncer's slots kept for later servers.",
        ),
        |_| 0.0,
    ),
    (
        gauge(
            "pgbouncer_used_servers",
            &[],
            "Server connections, those being opened included.",
        ),
        |c| c.lists.used_servers as f64,
    ),
    (
        gauge(
            "pgbouncer_cached_dns_names",
            &[],
            "Host names that are remembered.",
        ),
        |c| c.dns_names as f64,
    ),
    (
        gauge(
            "pgbouncer_cached_dns_zones",
            &[],
            "Zones that remembered host names are in.",
        ),
        |c| c.dns_zones as f64,
    ),
    (
        gauge(
            "pgbouncer_in_flight_dns_queries",
            &[],
            "Lookups of host names under way.",
        ),
        |c| c.lists.dns_queries as f64,
    ),
];

/// SHOW CONFIG.
const CONFIG: &[Row<Config>] = &[
    (
        gauge(
            "pgbouncer_config_max_client_connections",
            &[],
            "max_client_conn: the most clients.",
        ),
        |c| f64::from(c.settings.max_client_conn),
    ),
    (
        gauge(
            "pgbouncer_config_max_user_connections",
            &[],
            "max_user_connections: the most server connections of a user; 0 is no limit.",
        ),
        |c| f64::from(c.settings.max_user_connections),
    ),
];

const VERSION: Spec = gauge(
    "pgbouncer_version_info",
    &["version"],
    "1; the label tells the PgBouncer version whose behaviour is followed.",
);
const UP: Spec = gauge("pgbouncer_up", &[], "1 if the pooler could be asked.");
const CLIENTS: Spec = gauge(
    "pgbouncer_client_connections",
    &["database", "user", "application_name", "state"],
    "Clients by their state, as SHOW CLIENTS has it.",
);

/// Every family of this file.
pub fn specs() -> impl Iterator<Item = Spec> {
    let stats = STATS.iter().map(|row| row.0);
    let pools = POOLS.iter().map(|row| row.0);
    let databases = DATABASES.iter().map(|row| row.0);
    let lists = LISTS.iter().map(|row| row.0);
    let config = CONFIG.iter().map(|row| row.0);
    let rest = [VERSION, UP, CLIENTS];
    stats
        .chain(pools)
        .chain(databases)
        .chain(lists)
        .chain(config)
        .chain(rest)
}

/// Adds the families of this file.
pub fn add(to: &mut Families, snapshot: &Snapshot, shown: &Shown) {
    let version = Samples::from([(vec![COMPATIBLE_VERSION.to_owned()], 1.0)]);
    to.add(&VERSION, version);
    to.add_one(&UP, 1.0);
    add_statistics(to, snapshot, shown);
    add_pools(to, snapshot, shown);
    add_databases(to, snapshot, shown);
    for (spec, value) in LISTS {
        to.add_one(spec, value(&snapshot.counts));
    }
    for (spec, value) in CONFIG {
        to.add_one(spec, value(&snapshot.config));
    }
    let mut clients = Samples::new();
    for row in &snapshot.census {
        *clients.entry(shown.client_labels(row)).or_default() += row.clients as f64;
    }
    to.add(&CLIENTS, clients);
}

fn add_statistics(to: &mut Families, snapshot: &Snapshot, shown: &Shown) {
    let mut totals: BTreeMap<String, Stats> = BTreeMap::new();
    for (name, figures) in &snapshot.report.databases {
        *totals.entry(shown.database_label(name)).or_default() += figures.total;
    }
    for (spec, value) in STATS {
        let samples = totals.iter();
        let samples = samples.map(|(name, stats)| (vec![name.clone()], value(stats)));
        to.add(spec, samples.collect());
    }
}

fn add_pools(to: &mut Families, snapshot: &Snapshot, shown: &Shown) {
    let rows = snapshot.pools.iter();
    let rows: Vec<_> = rows
        .map(|row| (shown.pool_labels(&key_of(row)), row))
        .collect();
    let is_time = |spec: &Spec| spec.name.ends_with("_seconds");
    for (spec, value) in POOLS {
        let mut samples = Samples::new();
        for (labels, row) in &rows {
            let sample = samples.entry(labels.clone()).or_default();
            // The longest of several waits, but the sum of several counts.
            *sample = match is_time(spec) {
                true => f64::max(*sample, value(row)),
                false => *sample + value(row),
            };
        }
        to.add(spec, samples);
    }
}

fn add_databases(to: &mut Families, snapshot: &Snapshot, shown: &Shown) {
    let rows = snapshot.databases.iter();
    let mut rows: Vec<_> = rows
        .map(|row| described(&snapshot.config, row, shown))
        .collect();
    rows.push(console(snapshot));
    for (spec, value) in DATABASES {
        let mut samples = Samples::new();
        for (labels, sizes) in &rows {
            *samples.entry(labels.clone()).or_default() += value(sizes);
        }
        to.add(spec, samples);
    }
}

/// The labels and numbers of a database.
fn described(config: &Config, row: &DatabaseRow, shown: &Shown) -> (Vec<String>, Sizes) {
    let (db, global) = (&row.entry, &config.settings);
    let sizes = Sizes {
        pool_size: db.pool_size.unwrap_or(global.default_pool_size).into(),
        reserve_pool: db
            .reserve_pool_size
            .unwrap_or(global.reserve_pool_size)
            .into(),
        max_connections: db
            .max_db_connections
            .unwrap_or(global.max_db_connections)
            .into(),
        current_connections: row.current_connections as f64,
        paused: f64::from(u8::from(row.paused)),
        disabled: f64::from(u8::from(row.disabled)),
    };
    if !shown.databases.contains(&db.name) {
        let mut labels = vec![String::new(); DATABASE.len()];
        labels[0] = EVERYBODY_ELSE.to_owned();
        return (labels, sizes);
    }
    let labels = vec![
        label(&db.name),
        label(&db.hosts.join(",")),
        db.port.to_string(),
        label(db.server_dbname()),
        label(db.user.as_deref().unwrap_or_default()),
        db.pool_mode
            .map_or_else(String::new, |mode| mode.to_string()),
    ];
    (labels, sizes)
}

/// The console's row, as SHOW DATABASES has it.
fn console(snapshot: &Snapshot) -> (Vec<String>, Sizes) {
    let global = &snapshot.config.settings;
    let sizes = Sizes {
        pool_size: CONSOLE_POOL_SIZE.into(),
        max_connections: global.max_db_connections.into(),
        ..Sizes::default()
    };
    let labels = [
        CONSOLE,
        "",
        &global.listen_port.to_string(),
        CONSOLE,
        CONSOLE,
        PoolMode::Statement.as_str(),
    ];
    (labels.map(str::to_owned).to_vec(), sizes)
}
