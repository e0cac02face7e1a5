//! SHOW of statistics: STATS, STATS_TOTALS, STATS_AVERAGES, TOTALS.

use crate::admin::averages::{Figures, Report};
use crate::admin::command::Show;
use crate::admin::table::{Cell, Table};
use crate::metrics::Stats;

/// The rows of SHOW TOTALS, behind `total_` or `avg_`. Unlike in SHOW STATS.
const TOTALS: [&str; 12] = [
    "server_assignment_count",
    "xact_count",
    "query_count",
    "client_bytes",
    "server_bytes",
    "xact_time",
    "query_time",
    "wait_time",
    "ps_client_parse_count",
    "ps_server_parse_count",
    "ps_bind_count",
    "client_login_count",
];

/// Any of the four; `show` says which.
pub(super) fn stats(to: &mut Table, show: Show, report: &Report) {
    if show == Show::Totals {
        return totals(to, &report.all);
    }
    for (database, figures) in &report.databases {
        let (total, average) = (values(&figures.total), values(&figures.average));
        let numbers = match show {
            Show::StatsTotals => total.to_vec(),
            Show::StatsAverages => average.to_vec(),
            _ => [total, average].concat(),
        };
        let mut cells: Vec<Cell<'_>> = vec![database.into()];
        cells.extend(numbers.into_iter().map(Cell::Int));
        to.push_row(&cells);
    }
}

fn totals(to: &mut Table, all: &Figures) {
    for (prefix, stats) in [("total_", &all.total), ("avg_", &all.average)] {
        for (name, value) in TOTALS.iter().zip(values(stats)) {
            to.push([format!("{prefix}{name}").into(), value.into()]);
        }
    }
}

/// The counters in the order of all layouts.
fn values(stats: &Stats) -> [u64; 12] {
    [
        stats.server_assignment_count,
        stats.xact_count,
        stats.query_count,
        stats.bytes_received,
        stats.bytes_sent,
        stats.xact_time,
        stats.query_time,
        stats.wait_time,
        stats.client_parse_count,
        stats.server_parse_count,
        stats.bind_count,
        stats.client_login_count,
    ]
}
