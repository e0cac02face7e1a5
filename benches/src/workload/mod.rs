//! The workloads: each is one declaration in [`table`]; [`drive`] says how each kind is put on a pooler, and gives a [`Sample`].

pub mod copy;
pub mod drive;
pub mod loads;
pub mod pgbench;
mod scraper;
pub mod table;

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::stage::pooler::Door;

pub use drive::Drive;

/// What one run of one peer gave, by the names in [`measure`].
pub type Sample = BTreeMap<Cow<'static, str>, f64>;

/// The names of what is measured. `*_us` are microseconds, `*_bytes` bytes.
pub mod measure {
    /// Transactions, logins or megabytes per second: the workload's unit.
    pub const PER_SECOND: &str = "per_second";
    /// CPU of the pooler per unit, and its two parts.
    pub const CPU_US: &str = "cpu_us";
    pub const USER_US: &str = "user_us";
    pub const SYSTEM_US: &str = "system_us";
    pub const SWITCHES: &str = "switches";
    pub const CALLS: &str = "calls";
    pub const P50_US: &str = "p50_us";
    pub const P99_US: &str = "p99_us";
    pub const P999_US: &str = "p999_us";
    /// p99 / p50 of one run.
    pub const SPREAD: &str = "spread";
    /// Per idle client, after its login: in memory, and that with shared pages counted by share; and in memory after one query of each.
    pub const RESIDENT_BYTES: &str = "resident_bytes";
    pub const PROPORTIONAL_BYTES: &str = "proportional_bytes";
    pub const QUERIED_BYTES: &str = "queried_bytes";
    /// All of the pooler, before the clients came.
    pub const MEGABYTES_EMPTY: &str = "megabytes_empty";
    /// p99 of queries while nobody logs in, and how many times that it is while many do.
    pub const QUIET_P99_US: &str = "quiet_p99_us";
    pub const STORM: &str = "storm";
    /// Logins per second in that storm.
    pub const STORM_LOGINS: &str = "storm_logins";
    /// Cores that the pooler kept busy meanwhile.
    pub const CORES: &str = "cores";
    /// Longest over median wait for a server.
    pub const WAIT: &str = "wait";
    /// Scrapes of metrics meanwhile, and how long one took.
    pub const SCRAPES: &str = "scrapes";
    pub const SCRAPE_US: &str = "scrape_us";
}

/// Who takes part. The names are those of the report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    Pgweir,
    /// pgweir with that many workers instead of one per core.
    PgweirWorkers(u8),
    /// pgweir whose metrics are read once a second.
    PgweirScraped,
    PgBouncer,
    Forwarder,
    /// The forwarder over io_uring.
    #[cfg(feature = "io-uring")]
    UringForwarder,
    /// No pooler.
    Direct,
    /// All that were given by --other.
    Others,
}

/// One workload.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    pub name: &'static str,
    pub about: &'static str,
    /// What is counted, in the singular.
    pub unit: &'static str,
    pub door: Door,
    pub peers: &'static [Peer],
    pub drive: Drive,
}
