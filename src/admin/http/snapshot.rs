//! Everything that a scrape or the status page shows, gathered at one moment.

use std::sync::Arc;
use std::time::Instant;

use super::vitals::{Condition, Vitals};
use crate::admin::averages::Report;
use crate::admin::rows::{CertificateRow, DatabaseRow};
use crate::admin::show::{self, Counts, pools};
use crate::config::Config;
use crate::metrics::Measures;
use crate::worker::report::{CensusRow, PoolRow};

/// Kinds of clients that a worker tells apart at most. What is shown of them is fewer still ([`super::chosen`]).
const KINDS_MAX: usize = 1000;

/// The program at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When.
    pub at: Instant,
    /// The configuration in force.
    pub config: Arc<Config>,
    /// What holds for the whole program.
    pub condition: Condition,
    /// The rows of SHOW POOLS: one a pool, sorted, the console's own among them.
    pub pools: Vec<PoolRow>,
    /// SHOW STATS.
    pub report: Report,
    /// The rows of SHOW DATABASES, without the console's own.
    pub databases: Vec<DatabaseRow>,
    /// SHOW LISTS.
    pub(in crate::admin) counts: Counts,
    /// Consoles that are open.
    pub consoles: u64,
    /// What was measured.
    pub measures: Measures,
    /// Until when the certificates in force are good.
    pub certificates: Vec<CertificateRow>,
    /// Lines of the log that were held back as repeats.
    pub suppressed_lines: u64,
    /// SHOW CLIENTS, counted.
    pub census: Vec<CensusRow>,
}

/// Asks for everything. Takes as long as the slowest worker takes to answer.
pub async fn gather<P: Vitals>(program: &P) -> Snapshot {
    let (at, desk) = (Instant::now(), program.desk());
    let turn = desk.turn().await;
    let mut rows = program.pools().await;
    let report = turn.stats(Instant::now(), rows.clone());
    drop(turn);
    let counts = show::count(program, desk, &rows).await;
    let mut census = program.census(KINDS_MAX).await;
    let consoles = desk.rows();
    census.extend(consoles.iter().map(|row| CensusRow {
        database: row.database.clone(),
        user: row.user.clone(),
        application_name: row.application_name.clone(),
        state: row.state,
        clients: 1,
    }));
    rows.push(desk.pool_row());
    Snapshot {
        at,
        config: program.config(),
        condition: program.condition(),
        pools: pools::merge(rows),
        report,
        databases: program.databases().await,
        counts,
        consoles: consoles.len() as u64,
        measures: program.measures().await,
        certificates: program.certificates(),
        suppressed_lines: program.suppressed_lines(),
        census,
    }
}
