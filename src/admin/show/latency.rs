//! SHOW LATENCY, WAITS, COUNTERS, ERRORS, WORKERS and TOP: what PgBouncer has no SHOW for.

use std::time::Duration;

use crate::admin::averages::PoolFigures;
use crate::admin::table::{Cell, Table};
use crate::metrics::{Histogram, Label, Measures, PoolMeasures, Stats, WorkerMeasures};

/// Pools that SHOW TOP shows at most.
pub const TOP_MAX: usize = 20;

fn micros(time: Duration) -> Cell<'static> {
    Cell::Int(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

/// One row per pool and kind of time that something was counted of.
pub(super) fn latency(to: &mut Table, pools: &[PoolMeasures]) {
    for pool in pools {
        let times = [
            ("wait", &pool.wait),
            ("query", &pool.query),
            ("transaction", &pool.transaction),
            ("login", &pool.login),
            ("connect", &pool.server_connect),
        ];
        for (what, times) in times {
            percentiles(to, pool, what, times);
        }
    }
}

fn percentiles(to: &mut Table, pool: &PoolMeasures, what: &'static str, times: &Histogram) {
    let count = times.count();
    if count == 0 {
        return;
    }
    let average = times.sum().as_micros() as u64 / count;
    to.push([
        (&pool.database).into(),
        (&pool.user).into(),
        what.into(),
        count.into(),
        average.into(),
        micros(times.percentile(0.5)),
        micros(times.percentile(0.9)),
        micros(times.percentile(0.99)),
        micros(times.percentile(0.999)),
        micros(times.max()),
    ]);
}

/// One row per pool and reason for which somebody has waited, or waits.
pub(super) fn waits(to: &mut Table, pools: &[PoolMeasures]) {
    for pool in pools {
        for (reason, waits) in pool.waits.iter() {
            let waiting = pool.waiting.get(reason);
            if waits + waiting > 0 {
                to.push([
                    (&pool.database).into(),
                    (&pool.user).into(),
                    reason.word().into(),
                    waits.into(),
                    waiting.into(),
                    pool.longest.get(reason).into(),
                ]);
            }
        }
    }
}

/// What is counted of each pool and has no SHOW of its own; zeros are left out.
pub(super) fn counters(to: &mut Table, pools: &[PoolMeasures]) {
    for pool in pools {
        let (bytes, trades) = (&pool.bytes, &pool.trades);
        let pins = pool.pins.iter();
        let pins = pins.map(|(reason, n)| ("pins", reason.word(), n));
        let denied = pool.denied.iter();
        let denied = denied.map(|(limit, n)| ("connections_denied", limit.word(), n));
        let others = [
            ("bytes", "client_in", bytes.client_in),
            ("bytes", "client_out", bytes.client_out),
            ("bytes", "server_in", bytes.server_in),
            ("bytes", "server_out", bytes.server_out),
            ("prepared_statements", "hits", pool.prepared_hits),
            ("prepared_statements", "misses", pool.prepared_misses),
            ("servers_traded", "given", trades.given),
            ("servers_traded", "taken", trades.taken),
        ];
        let counted = others.into_iter().chain(pins).chain(denied);
        for (what, of, count) in counted.filter(|(.., count)| *count > 0) {
            let (database, user) = (&pool.database, &pool.user);
            to.push([
                database.into(),
                user.into(),
                what.into(),
                of.into(),
                count.into(),
            ]);
        }
    }
}

/// Every kind of error.
pub(super) fn errors(to: &mut Table, measures: &Measures) {
    for (kind, count) in measures.errors.iter() {
        to.push([kind.word().into(), kind.side().word().into(), count.into()]);
    }
}

/// One row per worker, and one for each other kind of thread, of which only the time on the CPUs is known.
pub(super) fn workers(to: &mut Table, measures: &Measures) {
    let cpu_of = |name: &str| {
        let mut threads = measures.threads.iter();
        threads
            .find(|thread| thread.name == name)
            .map_or(
                Cell::Null,
                |thread| Cell::Int(thread.cpu.as_millis() as u64),
            )
    };
    for worker in &measures.workers {
        let name = format!("worker-{}", worker.worker);
        let cpu = cpu_of(&name);
        to.push(worker_row(worker, &name, cpu));
    }
    let is_worker = |name: &str| name.starts_with("worker-");
    for thread in measures
        .threads
        .iter()
        .filter(|thread| !is_worker(&thread.name))
    {
        let mut cells = vec![Cell::from(&thread.name), cpu_of(&thread.name)];
        cells.resize(to.columns().len(), Cell::Null);
        to.push_row(&cells);
    }
}

fn worker_row<'a>(worker: &WorkerMeasures, name: &'a str, cpu: Cell<'a>) -> [Cell<'a>; 12] {
    let (stats, trades) = (&worker.stats, &worker.trades);
    [
        name.into(),
        cpu,
        worker.clients.into(),
        worker.waiting.into(),
        worker.servers.into(),
        worker.servers_active.into(),
        stats.query_count.into(),
        stats.xact_count.into(),
        stats.bytes_received.into(),
        stats.bytes_sent.into(),
        trades.given.into(),
        trades.taken.into(),
    ]
}

/// The pools whose clients have used servers for longest during the last periods, the busiest first.
pub(super) fn top(to: &mut Table, mut pools: Vec<PoolFigures>) {
    let sum = |of: fn(&PoolFigures) -> u64| pools.iter().map(of).sum::<u64>();
    let (recently, ever) = (sum(|p| busy(&p.recent)), sum(|p| busy(&p.total)));
    pools.sort_by_key(|pool| {
        let busy = (busy(&pool.recent), busy(&pool.total));
        std::cmp::Reverse((busy, pool.total.query_count))
    });
    for pool in pools.iter().take(TOP_MAX) {
        let (average, total) = (&pool.average, &pool.total);
        to.push([
            (&pool.database).into(),
            (&pool.user).into(),
            percent(busy(&pool.recent), recently).into(),
            average.query_count.into(),
            average.xact_count.into(),
            average.query_time.into(),
            average.xact_time.into(),
            average.wait_time.into(),
            average.bytes_received.into(),
            average.bytes_sent.into(),
            percent(busy(total), ever).into(),
            total.query_count.into(),
            total
                .query_time
                .checked_div(total.query_count)
                .unwrap_or(0)
                .into(),
        ]);
    }
}

/// For how long servers were in transactions: from a transaction's time, what it waited for its server is taken off. In µs.
fn busy(stats: &Stats) -> u64 {
    stats.xact_time.saturating_sub(stats.wait_time)
}

fn percent(part: u64, all: u64) -> u64 {
    (u128::from(part) * 100)
        .checked_div(u128::from(all))
        .unwrap_or(0) as u64
}
