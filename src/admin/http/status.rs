//! `/status.json`: what the status page shows. Counters as they are; the page makes rates of them.

use std::time::Instant;

use serde::Serialize;

use super::health::Verdict;
use super::pgbouncer::key_of;
use super::recent::{Percentiles, Recent};
use super::snapshot::Snapshot;
use crate::admin::{COMPATIBLE_VERSION, CONSOLE};
use crate::metrics::{Label as _, Stats};
use crate::worker::report::{EVERYBODY_ELSE, PoolRow};

/// Pools that are listed: those with most clients waiting, and then with most clients. The others are added up.
pub const POOLS_MAX: usize = 200;

/// The whole answer.
#[derive(Debug, Serialize)]
pub struct Status {
    version: &'static str,
    compatible_version: &'static str,
    /// Seconds since the start.
    uptime: f64,
    /// Seconds since the start at which everything here was counted: rates are differences by this.
    at: f64,
    state: &'static str,
    /// Why it is not ready, and what else is worth knowing.
    notes: Vec<String>,
    workers: Vec<Worker>,
    clients: u64,
    logging_in: u64,
    /// Connections that ended with an error or did not come about.
    errors: u64,
    servers: u64,
    max_client_conn: u32,
    totals: Counters,
    pools: Vec<Pool>,
    /// Pools that are not listed.
    pools_not_shown: usize,
}

/// What only grows. Times in seconds.
#[derive(Debug, Default, Serialize)]
struct Counters {
    queries: u64,
    transactions: u64,
    query_time: f64,
    wait_time: f64,
    assignments: u64,
    received: u64,
    sent: u64,
}

#[derive(Debug, Serialize)]
struct Worker {
    worker: usize,
    clients: u64,
    waiting: u64,
    servers: u64,
    servers_active: u64,
    queries: u64,
    /// Seconds on a CPU.
    cpu: f64,
}

#[derive(Debug, Serialize)]
struct Pool {
    database: String,
    user: String,
    mode: &'static str,
    clients_active: u64,
    clients_waiting: u64,
    servers_active: u64,
    servers_idle: u64,
    servers_login: u64,
    /// Connections, those being opened and cleaned included.
    servers: u64,
    /// 0 is no limit.
    size: u64,
    /// Seconds that the client that has waited longest has waited.
    longest_wait: f64,
    paused: bool,
    /// Why the last attempt to connect failed.
    failure: Option<String>,
    /// Clients that wait, by the reason that holds now; only those that there are.
    waiting: Vec<(&'static str, u64)>,
    /// Of the last seconds.
    wait: Percentiles,
    query: Percentiles,
    counters: Counters,
}

impl From<&Stats> for Counters {
    fn from(stats: &Stats) -> Counters {
        Counters {
            queries: stats.query_count,
            transactions: stats.xact_count,
            query_time: stats.query_time as f64 / 1e6,
            wait_time: stats.wait_time as f64 / 1e6,
            assignments: stats.server_assignment_count,
            received: stats.bytes_received,
            sent: stats.bytes_sent,
        }
    }
}

/// The answer, from what was gathered and what `/readyz` says.
pub fn status(snapshot: &Snapshot, recent: &Recent, ready: &Verdict, now: Instant) -> Status {
    let condition = &snapshot.condition;
    let lists = &snapshot.counts.lists;
    let seconds = |at: Instant| at.saturating_duration_since(condition.since).as_secs_f64();
    let (pools, pools_not_shown) = pools(snapshot, recent);
    Status {
        version: env!("CARGO_PKG_VERSION"),
        compatible_version: COMPATIBLE_VERSION,
        uptime: seconds(now),
        at: seconds(snapshot.at),
        state: match ready.is_well {
            _ if condition.draining => "draining",
            _ if condition.shutting_down => "shutting down",
            _ if condition.paused => "paused",
            true => "ready",
            false => "not ready",
        },
        notes: ready.lines.iter().skip(1).cloned().collect(),
        workers: workers(snapshot),
        clients: lists.used_clients + snapshot.consoles,
        logging_in: lists.login_clients,
        errors: snapshot.measures.errors.total(),
        servers: lists.used_servers,
        max_client_conn: snapshot.config.settings.max_client_conn,
        totals: (&snapshot.report.all.total).into(),
        pools,
        pools_not_shown,
    }
}

fn workers(snapshot: &Snapshot) -> Vec<Worker> {
    let measures = &snapshot.measures;
    let cpu = |worker: usize| {
        let name = format!("worker-{worker}");
        let mut threads = measures.threads.iter();
        threads.find(|kind| kind.name == name)
    };
    let workers = measures.workers.iter();
    let workers = workers.map(|worker| Worker {
        worker: worker.worker,
        clients: worker.clients,
        waiting: worker.waiting,
        servers: worker.servers,
        servers_active: worker.servers_active,
        queries: worker.stats.query_count,
        cpu: cpu(worker.worker).map_or(0.0, |kind| kind.cpu.as_secs_f64()),
    });
    workers.collect()
}

/// The pools that are listed, and how many are not.
fn pools(snapshot: &Snapshot, recent: &Recent) -> (Vec<Pool>, usize) {
    let rows = snapshot.pools.iter();
    let mut rows: Vec<&PoolRow> = rows.filter(|row| row.database != CONSOLE).collect();
    rows.sort_by_key(|row| {
        std::cmp::Reverse((row.cl_waiting, row.cl_active, row.stats.query_count))
    });
    let rest = rows.split_off(rows.len().min(POOLS_MAX));
    let mut pools: Vec<Pool> = rows.iter().map(|row| pool(snapshot, recent, row)).collect();
    pools.sort_by(|a, b| (&a.database, &a.user).cmp(&(&b.database, &b.user)));
    let not_shown = rest.len();
    if let Some(sum) = sum(&rest) {
        pools.push(pool(snapshot, recent, &sum));
    }
    (pools, not_shown)
}

/// The rows added up, under no name.
fn sum(rows: &[&PoolRow]) -> Option<PoolRow> {
    let nameless = rows.iter().map(|row| PoolRow {
        database: EVERYBODY_ELSE.to_owned(),
        user: EVERYBODY_ELSE.to_owned(),
        ..PoolRow::clone(row)
    });
    let mut merged = crate::admin::show::pools::merge(nameless.collect());
    merged.pop()
}

fn pool(snapshot: &Snapshot, recent: &Recent, row: &PoolRow) -> Pool {
    let key = key_of(row);
    let mut health = snapshot.condition.pools.iter();
    let health = health.find(|pool| pool.database == key.database && pool.user == key.user);
    let mut measures = snapshot.measures.pools.iter();
    let measures = measures.find(|pool| pool.database == key.database && pool.user == key.user);
    let (wait, query) = measures.map(|pool| recent.of(pool)).unwrap_or_default();
    let waiting = measures
        .map(|pool| pool.waiting.clone())
        .unwrap_or_default();
    let waiting = waiting.iter().filter(|(_, clients)| *clients > 0);
    let config = &snapshot.config;
    let mode = config.database(&key.database).map(|database| {
        config
            .pool_settings(&database, &key.user)
            .pool_mode
            .as_str()
    });
    let mut paused = snapshot.databases.iter();
    let paused = paused.any(|row| row.paused && row.entry.name == key.database);
    Pool {
        clients_active: row.cl_active,
        clients_waiting: row.cl_waiting,
        servers_active: row.sv_active,
        servers_idle: row.sv_idle + row.sv_used,
        servers_login: row.sv_login,
        servers: row.sv_active
            + row.sv_idle
            + row.sv_used
            + row.sv_tested
            + row.sv_login
            + row.sv_being_canceled,
        size: health.map_or(0, |pool| pool.connections_max),
        longest_wait: row.maxwait.as_secs_f64(),
        paused,
        wait,
        query,
        waiting: waiting
            .map(|(reason, clients)| (reason.word(), clients))
            .collect(),
        mode: mode.unwrap_or_default(),
        failure: health.and_then(|pool| Some(pool.failure.as_ref()?.text.clone())),
        counters: (&row.stats).into(),
        database: key.database,
        user: key.user,
    }
}
