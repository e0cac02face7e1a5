//! How long things have taken lately: histograms only grow, so this remembers what they were some seconds ago. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::snapshot::Snapshot;
use crate::metrics::histogram::{BUCKETS, bucket_end};
use crate::metrics::{Histogram, PoolMeasures};
use crate::types::PoolKey;

/// How far apart the marks are. What is told reaches back to the last mark but one.
pub const MARK_EVERY: Duration = Duration::from_secs(5);

/// Times that half of all, and ninety-nine of a hundred, did not exceed, in seconds; `None` if there were none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half.
    pub p50: Option<f64>,
    /// Ninety-nine of a hundred.
    pub p99: Option<f64>,
}

/// Cumulative counts at the ends of the buckets, and of all.
type Counts = Vec<u64>;

/// What was counted of a pool.
#[derive(Clone, Debug, Default)]
struct Counted {
    wait: Counts,
    query: Counts,
}

#[derive(Clone, Debug)]
struct Mark {
    at: Instant,
    pools: BTreeMap<PoolKey, Counted>,
}

/// What was counted some seconds ago.
#[derive(Debug, Default)]
pub struct Recent {
    last: Option<Mark>,
    last_but_one: Option<Mark>,
}

impl Recent {
    /// Takes note of what is counted now, if that is worth a mark.
    pub fn note(&mut self, snapshot: &Snapshot) {
        let is_due = self
            .last
            .as_ref()
            .is_none_or(|last| snapshot.at.saturating_duration_since(last.at) >= MARK_EVERY);
        if is_due {
            let pools = snapshot.measures.pools.iter();
            let mark = Mark {
                at: snapshot.at,
                pools: pools.map(|pool| (key_of(pool), counted(pool))).collect(),
            };
            self.last_but_one = self.last.replace(mark);
        }
    }

    /// Waits and queries of a pool: since the last mark but one, or of all so far where there is none.
    pub fn of(&self, pool: &PoolMeasures) -> (Percentiles, Percentiles) {
        let now = counted(pool);
        let mark = self.last_but_one.as_ref();
        let before = mark.and_then(|mark| mark.pools.get(&key_of(pool)));
        let nothing = Counted::default();
        let before = before.unwrap_or(&nothing);
        (
            percentiles(&now.wait, &before.wait),
            percentiles(&now.query, &before.query),
        )
    }
}

fn key_of(pool: &PoolMeasures) -> PoolKey {
    PoolKey {
        database: pool.database.clone(),
        user: pool.user.clone(),
    }
}

fn counted(pool: &PoolMeasures) -> Counted {
    Counted {
        wait: counts(&pool.wait),
        query: counts(&pool.query),
    }
}

/// Ends of the buckets but the last, which has none.
fn ends() -> Vec<Duration> {
    let ends = (0..BUCKETS).filter_map(bucket_end);
    ends.map(Duration::from_micros).collect()
}

fn counts(histogram: &Histogram) -> Counts {
    let mut counts: Counts = histogram.cumulative(&ends()).collect();
    counts.push(histogram.count());
    counts
}

fn percentiles(now: &[u64], before: &[u64]) -> Percentiles {
    let before = before.iter().chain(std::iter::repeat(&0));
    // A pool that was forgotten and came back has counted less than before.
    let counts: Counts = now
        .iter()
        .zip(before)
        .map(|(now, was)| now.saturating_sub(*was))
        .collect();
    Percentiles {
        p50: percentile(&counts, 0.5),
        p99: percentile(&counts, 0.99),
    }
}

fn percentile(counts: &[u64], share: f64) -> Option<f64> {
    let all = counts.last().copied().filter(|all| *all > 0)?;
    let wanted = (share * all as f64).ceil() as u64;
    let bucket = counts.iter().position(|count| *count >= wanted)?;
    let micros = match bucket {
        0 => 0,
        // What the last bucket holds took at least as long as the end of the one before it.
        bucket => bucket_end(bucket).or_else(|| bucket_end(bucket - 1))?,
    };
    Some(micros as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(times: &[u64]) -> PoolMeasures {
        let mut pool = PoolMeasures::default();
        times.iter().for_each(|micros| pool.query.record(*micros));
        pool
    }

    #[test]
    fn only_what_is_recent_counts() {
        let old = pool(&[1_000_000; 100]);
        let before = counted(&old);
        let mut new = old.clone();
        (0..100).for_each(|_| new.query.record(1000));
        let all = percentiles(&counts(&new.query), &[]);
        assert!(all.p99 > Some(0.9), "{all:?}");
        let recent = percentiles(&counts(&new.query), &before.query);
        assert!(
            recent.p99 >= Some(0.001) && recent.p99 < Some(0.0013),
            "{recent:?}"
        );
        let none = percentiles(&counts(&old.query), &before.query);
        assert_eq!(none, Percentiles::default());
    }

    #[test]
    fn the_ends_of_the_scale() {
        let of = |times: &[u64]| percentiles(&counts(&pool(times).query), &[]);
        assert_eq!(of(&[0, 0, 0]).p50, Some(0.0));
        assert!(of(&[u64::MAX >> 1]).p50 > Some(60.0));
    }
}
