//! What the pooler measures about itself: plain counters and histograms, pure.
//!
//! | file | what |
//! |---|---|
//! | [`stats`] | what `SHOW STATS` counts, as PgBouncer does |
//! | [`histogram`] | how often something took how long |
//! | [`labels`] | the few words that things are counted under: reasons of waiting, kinds of errors |
//! | [`gauges`] | what a worker adds to while it works: cells, no lock |
//! | [`measures`] | what is read: plain values, merged over the workers |
//! | [`errors`] | errors of the whole process |
//! | [`threads`] | what the threads have used of the CPUs |
//!
//! A worker adds to its own counters without a lock; whoever wants to see them asks every worker for a copy and adds these up. So
//! reading costs the query path nothing.

pub mod errors;
pub mod gauges;
pub mod histogram;
pub mod labels;
pub mod measures;
pub mod stats;
pub mod threads;

pub use self::errors::ErrorCounts;
pub use self::gauges::PoolGauges;
pub use self::histogram::Histogram;
pub use self::labels::{Counts, ErrorKind, Label, Limit, PinReason, Side, WaitReason};
pub use self::measures::{Bytes, Measures, PoolLimits, PoolMeasures, Trades, WorkerMeasures};
pub use self::stats::Stats;
pub use self::threads::ThreadCpu;
