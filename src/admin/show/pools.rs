//! SHOW POOLS and SHOW PEER_POOLS. A pool is spread over the workers; here its rows become one.

use std::collections::{BTreeMap, HashSet};

use crate::admin::CONSOLE;
use crate::admin::rows::PeerPoolRow;
use crate::admin::show::entries;
use crate::admin::table::{Cell, Table};
use crate::config::{Config, PoolMode};
use crate::worker::report::PoolRow;

/// Adds up the rows of the same database and user, and sorts by these. The longest wait of all is the pool's.
pub fn merge(rows: Vec<PoolRow>) -> Vec<PoolRow> {
    let mut merged: BTreeMap<(String, String), PoolRow> = BTreeMap::new();
    for row in rows {
        let key = (row.database.clone(), row.user.clone());
        match merged.get_mut(&key) {
            Some(sum) => add(sum, &row),
            None => {
                merged.insert(key, row);
            }
        }
    }
    merged.into_values().collect()
}

/// How many pools these rows are about.
pub(super) fn count(rows: &[PoolRow]) -> usize {
    let keys = rows.iter().map(|row| (&row.database, &row.user));
    keys.collect::<HashSet<_>>().len()
}

fn add(sum: &mut PoolRow, row: &PoolRow) {
    sum.cl_active += row.cl_active;
    sum.cl_waiting += row.cl_waiting;
    sum.cl_active_cancel_req += row.cl_active_cancel_req;
    sum.cl_waiting_cancel_req += row.cl_waiting_cancel_req;
    sum.sv_active += row.sv_active;
    sum.sv_active_cancel += row.sv_active_cancel;
    sum.sv_being_canceled += row.sv_being_canceled;
    sum.sv_idle += row.sv_idle;
    sum.sv_used += row.sv_used;
    sum.sv_tested += row.sv_tested;
    sum.sv_login += row.sv_login;
    sum.maxwait = sum.maxwait.max(row.maxwait);
    sum.stats += row.stats;
}

pub(super) fn pools(to: &mut Table, config: &Config, mut rows: Vec<PoolRow>, console: PoolRow) {
    rows.push(console);
    for row in merge(rows) {
        let (mode, hosts) = described(config, &row);
        to.push([
            (&row.database).into(),
            (&row.user).into(),
            row.cl_active.into(),
            row.cl_waiting.into(),
            row.cl_active_cancel_req.into(),
            row.cl_waiting_cancel_req.into(),
            row.sv_active.into(),
            row.sv_active_cancel.into(),
            row.sv_being_canceled.into(),
            row.sv_idle.into(),
            row.sv_used.into(),
            row.sv_tested.into(),
            row.sv_login.into(),
            row.maxwait.as_secs().into(),
            row.maxwait.subsec_micros().into(),
            mode.as_str().into(),
            hosts,
        ]);
    }
}

/// A pool's mode and its load_balance_hosts, the latter only where there is more than one host.
fn described(config: &Config, row: &PoolRow) -> (PoolMode, Cell<'static>) {
    if row.database == CONSOLE {
        return (PoolMode::Statement, Cell::Null);
    }
    match config.database(&row.database) {
        Some(db) => (
            config.pool_settings(&db, &row.user).pool_mode,
            entries::load_balance_hosts(&db),
        ),
        // Its database was removed, and it has not ended yet.
        None => (config.settings.pool_mode, Cell::Null),
    }
}

pub(super) fn peer_pools(to: &mut Table, mut rows: Vec<PeerPoolRow>) {
    rows.sort_by_key(|row| row.peer_id);
    for row in &rows {
        to.push([
            row.peer_id.into(),
            row.cl_active_cancel_req.into(),
            row.cl_waiting_cancel_req.into(),
            row.sv_active_cancel.into(),
            row.sv_login.into(),
        ]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Stats;
    use std::time::Duration;

    fn row(database: &str, user: &str, n: u64) -> PoolRow {
        PoolRow {
            database: database.to_owned(),
            user: user.to_owned(),
            cl_active: n,
            cl_waiting: n,
            cl_active_cancel_req: n,
            cl_waiting_cancel_req: n,
            sv_active: n,
            sv_active_cancel: n,
            sv_being_canceled: n,
            sv_idle: n,
            sv_used: n,
            sv_tested: n,
            sv_login: n,
            maxwait: Duration::from_secs(n),
            stats: Stats {
                query_count: n,
                ..Stats::default()
            },
        }
    }

    #[test]
    fn rows_of_one_pool_are_added_up_and_sorted() {
        let merged = merge(vec![
            row("b", "u", 1),
            row("a", "v", 5),
            row("b", "u", 2),
            row("a", "u", 9),
        ]);
        let sum = PoolRow {
            maxwait: Duration::from_secs(2),
            ..row("b", "u", 3)
        };
        assert_eq!(merged, [row("a", "u", 9), row("a", "v", 5), sum]);
    }
}
