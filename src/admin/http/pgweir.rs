//! The families that PgBouncer's exporter does not have: why clients wait, how long everything takes, what goes wrong. Pure.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use super::families::{Families, Kind, Samples, Spec, label};
use super::pgbouncer::{Shown, counter, gauge};
use super::snapshot::Snapshot;
use crate::COMPATIBLE_VERSION;
use crate::metrics::{Histogram, Label as _, PoolMeasures};
use crate::types::PoolKey;

const POOL: &[&str] = &["database", "user"];
const POOL_REASON: &[&str] = &["database", "user", "reason"];

/// A time of every pool.
type Time = (Spec, fn(&PoolMeasures) -> &Histogram);

const fn histogram(name: &'static str, help: &'static str) -> Spec {
    Spec {
        name,
        help,
        kind: Kind::Histogram,
        labels: POOL,
    }
}

const TIMES: &[Time] = &[
    (
        histogram(
            "pgweir_wait_seconds",
            "How long clients waited for a server; those who got one at once are counted with no time.",
        ),
        |pool| &pool.wait,
    ),
    (
        histogram(
            "pgweir_query_seconds",
            "From a client's message to the last reply owed to it, waiting included.",
        ),
        |pool| &pool.query,
    ),
    (
        histogram(
            "pgweir_transaction_seconds",
            "Transactions, from their first message to their end, waiting included.",
        ),
        |pool| &pool.transaction,
    ),
    (
        histogram(
            "pgweir_login_seconds",
            "Logins of clients, from their connection to their greeting.",
        ),
        |pool| &pool.login,
    ),
    (
        histogram(
            "pgweir_server_connect_seconds",
            "Connecting and logging in to servers, successfully.",
        ),
        |pool| &pool.server_connect,
    ),
];

/// Words and numbers of a pool, one sample each; the words are the values of the labels behind `database` and `user`.
type Numbers = fn(&PoolMeasures) -> Vec<(Vec<&'static str>, u64)>;

const NUMBERS: &[(Spec, Numbers)] = &[
    (
        counter(
            "pgweir_waits_total",
            POOL_REASON,
            "Waits for a server, by the reason that held when they began.",
        ),
        |pool| words(&pool.waits),
    ),
    (
        gauge(
            "pgweir_waiting_clients",
            POOL_REASON,
            "Clients that wait for a server, by the reason that holds now.",
        ),
        |pool| words(&pool.waiting),
    ),
    (
        counter(
            "pgweir_pins_total",
            POOL_REASON,
            "Servers that a client kept beyond the end of a transaction, in transaction or statement pooling.",
        ),
        |pool| words(&pool.pins),
    ),
    (
        counter(
            "pgweir_bytes_total",
            &["database", "user", "side", "direction"],
            "Bytes from (in) and to (out) clients and servers, without logins.",
        ),
        |pool| {
            let bytes = &pool.bytes;
            vec![
                (vec!["client", "in"], bytes.client_in),
                (vec!["client", "out"], bytes.client_out),
                (vec!["server", "in"], bytes.server_in),
                (vec!["server", "out"], bytes.server_out),
            ]
        },
    ),
    (
        counter(
            "pgweir_prepared_statement_hits_total",
            POOL,
            "Uses of prepared statements that the server had already.",
        ),
        |pool| vec![(vec![], pool.prepared_hits)],
    ),
    (
        counter(
            "pgweir_prepared_statement_misses_total",
            POOL,
            "Uses of prepared statements that had to be prepared on the server first.",
        ),
        |pool| vec![(vec![], pool.prepared_misses)],
    ),
    (
        gauge(
            "pgweir_pool_connections",
            POOL,
            "Server connections of the pool, those being opened included.",
        ),
        |pool| vec![(vec![], pool.connections)],
    ),
    (
        gauge(
            "pgweir_pool_connections_max",
            POOL,
            "Most server connections of the pool without its reserve; 0 is no limit.",
        ),
        |pool| vec![(vec![], pool.limits.pool)],
    ),
    (
        counter(
            "pgweir_budget_denied_total",
            &["database", "user", "limit"],
            "Server connections that were wanted and refused, by the limit that refused them.",
        ),
        |pool| words(&pool.denied),
    ),
    (
        counter(
            "pgweir_trades_total",
            &["database", "user", "direction"],
            "Servers that went from worker to worker.",
        ),
        |pool| {
            let trades = &pool.trades;
            vec![(vec!["given"], trades.given), (vec!["taken"], trades.taken)]
        },
    ),
];

fn words<L: crate::metrics::Label>(
    counts: &crate::metrics::Counts<L>,
) -> Vec<(Vec<&'static str>, u64)> {
    let words = counts.iter();
    words
        .map(|(label, count)| (vec![label.word()], count))
        .collect()
}

const BUILD: Spec = gauge(
    "pgweir_build_info",
    &["version", "compatible_version"],
    "1; the labels tell pgweir's version and the PgBouncer version whose behaviour is followed.",
);
const ERRORS: Spec = counter(
    "pgweir_errors_total",
    &["kind", "side"],
    "Connections that ended with an error or did not come about; side is where to look first.",
);
const WORKER_CLIENTS: Spec = gauge(
    "pgweir_worker_clients",
    &["worker"],
    "Clients of a worker thread.",
);
const WORKER_SERVERS: Spec = gauge(
    "pgweir_worker_servers",
    &["worker"],
    "Server connections of a worker thread.",
);
const THREAD_CPU: Spec = counter(
    "pgweir_thread_cpu_seconds_total",
    &["thread"],
    "Time on a CPU, per worker thread, and for the other threads by kind.",
);
const RELOAD_SUCCESSFUL: Spec = gauge(
    "pgweir_config_last_reload_successful",
    &[],
    "0 if the last reload was refused and the configuration before it is in force.",
);
const RELOAD_TIMESTAMP: Spec = gauge(
    "pgweir_config_last_reload_success_timestamp_seconds",
    &[],
    "When a configuration was put in force last, in seconds since 1970.",
);
const RELOADS: Spec = counter(
    "pgweir_config_reloads_total",
    &["result"],
    "Reloads of the configuration.",
);
const CERTIFICATES: Spec = gauge(
    "pgweir_tls_certificate_expiry_timestamp_seconds",
    &["side", "file"],
    "When a file of certificates in force expires, in seconds since 1970: the first certificate of a chain, the last authority.",
);
const SUPPRESSED: Spec = counter(
    "pgweir_log_suppressed_total",
    &[],
    "Lines of the log that were left out as repeats.",
);
const READY: Spec = gauge("pgweir_ready", &[], "1 if /readyz would answer 200.");
const DRAINING: Spec = gauge(
    "pgweir_draining",
    &[],
    "1 if the end has been asked for and those who are being served are waited for.",
);
const NOT_SHOWN: Spec = gauge(
    "pgweir_pools_not_shown",
    &[],
    "Pools beyond the bound on series: their counts are added up under database=\"*\", user=\"*\".",
);

/// Every family of this file.
pub fn specs() -> impl Iterator<Item = Spec> {
    let times = TIMES.iter().map(|time| time.0);
    let numbers = NUMBERS.iter().map(|numbers| numbers.0);
    let rest = [
        BUILD,
        ERRORS,
        WORKER_CLIENTS,
        WORKER_SERVERS,
        THREAD_CPU,
        RELOAD_SUCCESSFUL,
        RELOAD_TIMESTAMP,
        RELOADS,
        CERTIFICATES,
        SUPPRESSED,
        READY,
        DRAINING,
        NOT_SHOWN,
    ];
    times.chain(numbers).chain(rest)
}

fn flag(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

/// Adds the families of this file; `ready`: `/readyz` would answer 200.
pub fn add(to: &mut Families, snapshot: &Snapshot, shown: &Shown, ready: bool) {
    let versions = [env!("CARGO_PKG_VERSION"), COMPATIBLE_VERSION].map(str::to_owned);
    to.add(&BUILD, Samples::from([(versions.to_vec(), 1.0)]));
    to.add_one(&READY, flag(ready));
    to.add_one(&DRAINING, flag(snapshot.condition.draining));
    add_pools(to, snapshot, shown);
    add_process(to, snapshot);
    add_reloads(to, snapshot);
    let mut expiries = Samples::new();
    for row in &snapshot.certificates {
        let labels = vec![row.side.to_owned(), label(&row.file.to_string_lossy())];
        let expiry = expiries.entry(labels).or_insert(f64::INFINITY);
        *expiry = f64::min(*expiry, row.not_after as f64);
    }
    to.add(&CERTIFICATES, expiries);
    to.add_one(&SUPPRESSED, snapshot.suppressed_lines as f64);
}

/// Pools with series of their own, and the sum of the others under their labels.
fn add_pools(to: &mut Families, snapshot: &Snapshot, shown: &Shown) {
    let mut pools: BTreeMap<Vec<String>, PoolMeasures> = BTreeMap::new();
    let mut not_shown = 0;
    for pool in &snapshot.measures.pools {
        let key = PoolKey {
            database: pool.database.clone(),
            user: pool.user.clone(),
        };
        if !shown.pools.contains(&key) {
            not_shown += 1;
        }
        match pools.get_mut(&shown.pool_labels(&key)) {
            None => drop(pools.insert(shown.pool_labels(&key), pool.clone())),
            Some(sum) => {
                sum.merge(pool);
                // These stay with a pool when its parts are merged, and add up over several.
                sum.connections += pool.connections;
                sum.limits.pool += pool.limits.pool;
            }
        }
    }
    to.add_one(&NOT_SHOWN, f64::from(not_shown));
    for (spec, time) in TIMES {
        let samples = pools
            .iter()
            .map(|(labels, pool)| (labels.clone(), time(pool)));
        to.add_histograms(spec, samples.collect());
    }
    for (spec, numbers) in NUMBERS {
        let mut samples = Samples::new();
        for (labels, pool) in &pools {
            for (words, number) in numbers(pool) {
                let words = words.iter().map(|word| (*word).to_owned());
                let labels = labels.iter().cloned().chain(words).collect();
                samples.insert(labels, number as f64);
            }
        }
        to.add(spec, samples);
    }
}

fn add_process(to: &mut Families, snapshot: &Snapshot) {
    let measures = &snapshot.measures;
    let errors = measures.errors.iter().map(|(kind, count)| {
        let labels = [kind.word(), kind.side().word()].map(str::to_owned);
        (labels.to_vec(), count as f64)
    });
    to.add(&ERRORS, errors.collect());
    let worker = |number: fn(&crate::metrics::WorkerMeasures) -> u64| -> Samples {
        let workers = measures.workers.iter();
        workers
            .map(|worker| (vec![worker.worker.to_string()], number(worker) as f64))
            .collect()
    };
    to.add(&WORKER_CLIENTS, worker(|worker| worker.clients));
    to.add(&WORKER_SERVERS, worker(|worker| worker.servers));
    let threads = measures.threads.iter();
    let threads = threads.map(|kind| (vec![kind.name.clone()], kind.cpu.as_secs_f64()));
    to.add(&THREAD_CPU, threads.collect());
}

fn add_reloads(to: &mut Families, snapshot: &Snapshot) {
    let reloads = &snapshot.condition.reloads;
    to.add_one(&RELOAD_SUCCESSFUL, flag(reloads.last_successful));
    let success = reloads.last_success.duration_since(UNIX_EPOCH);
    to.add_one(&RELOAD_TIMESTAMP, success.unwrap_or_default().as_secs_f64());
    let results = [("applied", reloads.applied), ("refused", reloads.refused)];
    let results = results.map(|(result, count)| (vec![result.to_owned()], count as f64));
    to.add(&RELOADS, Samples::from(results));
}
