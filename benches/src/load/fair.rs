//! `fair`: more equal clients than the pool has servers, each asking again as soon as it is answered: how evenly are they served?
//!
//! A latency here is mostly time in the pooler's queue. With a query as short as `SELECT 1` the longest of hundreds of thousands is
//! whatever the machine did to one of them; a query of some milliseconds, such as `SELECT pg_sleep(0.005)`, shows the queue.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::cycle::{self, Seen};
use super::error::LoadError;
use super::options::{Crowd, Peer};
use super::outcome::per_second;
use super::tally::{Percentiles, jain, spread};

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
    /// Longest latency / median latency.
    longest_over_median: f64,
    /// The same with the 99.9 % percentile, which a single hiccup of the machine doesn't move.
    p999_over_median: f64,
    /// Queries per second of one client.
    per_client: PerClient,
    /// Jain's index of the clients' throughputs: 1 is even.
    jain: f64,
}

#[derive(Serialize)]
struct PerClient {
    min: f64,
    median: f64,
    max: f64,
}

/// Runs it.
///
/// # Errors
/// Logins before it, and queries within it, that failed.
pub fn run(options: &Options) -> Result<(), LoadError> {
    cycle::run("fair", &options.peer, &options.crowd, figures)?.print("queries")
}

fn figures(seen: &Seen, length: Duration) -> Figures {
    let latency_us = seen.latencies.percentiles();
    let queries = seen.answered.iter().sum();
    let rate = |&count: &u64| count as f64 / length.as_secs_f64();
    let mut rates: Vec<f64> = seen.answered.iter().map(rate).collect();
    let (min, median, max) = spread(&mut rates);
    let over_median = |us: f64| match latency_us.p50 {
        0.0 => 0.0,
        p50 => (us / p50 * 1000.0).round() / 1000.0,
    };
    Figures {
        queries,
        per_second: per_second(queries, length),
        longest_over_median: over_median(latency_us.max),
        p999_over_median: over_median(latency_us.p999),
        latency_us,
        per_client: PerClient { min, median, max },
        jain: jain(&rates),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_that_waits_longer_shows() {
        let mut seen = Seen::default();
        for ms in [10; 99].into_iter().chain([50]) {
            seen.latencies.note(Duration::from_millis(ms));
        }
        seen.answered = vec![40, 40, 20];
        let figures = figures(&seen, Duration::from_secs(2));
        assert!((figures.longest_over_median - 5.0).abs() < 0.02);
        let PerClient { min, median, max } = figures.per_client;
        assert_eq!((min, median, max), (10.0, 20.0, 20.0));
        assert!(figures.jain > 0.9 && figures.jain < 1.0);
        assert_eq!(figures.queries, 100);
    }
}
