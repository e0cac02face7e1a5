//! The workloads: each is one declaration in [`table`]; [`drive`] says how each kind is put on a pooler, and gives a [`Sample`].

pub mod copy;
pub mod drive;
pub mod pgbench;
pub mod table;

use std::collections::BTreeMap;

use crate::stage::pooler::Door;

pub use drive::Drive;

/// What one run of one peer gave, by the names in [`measure`].
pub type Sample = BTreeMap<&'static str, f64>;

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
}

/// Who takes part. The names are those of the report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    Pgweir,
    /// pgweir with that many workers instead of one per core.
    PgweirWorkers(u8),
    PgBouncer,
    Forwarder,
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
