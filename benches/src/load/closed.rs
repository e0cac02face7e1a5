//! `closed`: clients that each ask again as soon as they are answered. Throughput, and latencies as the clients see them: when the
//! other side stalls, they wait with it, and what would have been asked meanwhile is not counted. See [`super::open`] for that.

use clap::Args;
use serde::Serialize;

use super::cycle;
use super::error::LoadError;
use super::options::{Crowd, Peer};
use super::outcome::per_second;
use super::tally::Percentiles;

/// Its command line.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    peer: Peer,
    #[command(flatten)]
    crowd: Crowd,
}

#[derive(Serialize)]
struct Figures {
    /// Queries answered within the time.
    queries: u64,
    per_second: f64,
    latency_us: Percentiles,
}

/// Runs it.
///
/// # Errors
/// Logins before it, and queries within it, that failed.
pub fn run(options: &Options) -> Result<(), LoadError> {
    let outcome = cycle::run("closed", &options.peer, &options.crowd, |seen, length| {
        let queries = seen.answered.iter().sum();
        Figures {
            queries,
            per_second: per_second(queries, length),
            latency_us: seen.latencies.percentiles(),
        }
    });
    outcome?.print("queries")
}
