//! What was seen: latencies, and what failed.

use std::fmt::Display;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies above this count as this.
const LATENCY_MAX: Duration = Duration::from_secs(600);
/// Latencies are told apart to this many nanoseconds, or a thousandth of them.
const RESOLUTION_NS: u64 = 64;
const SIGNIFICANT_DIGITS: u8 = 3;

/// A histogram of latencies (HDR: constant relative precision, constant memory).
pub struct Latencies(Histogram<u64>);

/// A histogram's figures, in microseconds.
#[derive(Serialize, Debug, PartialEq)]
pub struct Percentiles {
    /// Number of values.
    pub count: u64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    /// 99.9 %
    pub p999: f64,
    pub max: f64,
}

impl Default for Latencies {
    fn default() -> Latencies {
        let max = LATENCY_MAX.as_nanos() as u64;
        let histogram = Histogram::new_with_bounds(RESOLUTION_NS, max, SIGNIFICANT_DIGITS);
        Latencies(histogram.expect("these bounds are constants, and legal ones"))
    }
}

impl Latencies {
    /// Adds one.
    pub fn note(&mut self, latency: Duration) {
        self.0.saturating_record(latency.as_nanos() as u64);
    }

    /// Adds those of another histogram.
    pub fn add(&mut self, other: &Latencies) {
        // Equal bounds: can't fail.
        let _ = self.0.add(&other.0);
    }

    /// The figures.
    pub fn percentiles(&self) -> Percentiles {
        let at = |percent| micros(self.0.value_at_percentile(percent) as f64);
        Percentiles {
            count: self.0.len(),
            mean: micros(self.0.mean()),
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p999: at(99.9),
            max: at(100.0),
        }
    }
}

/// Nanoseconds to microseconds, with one decimal.
fn micros(ns: f64) -> f64 {
    (ns / 100.0).round() / 10.0
}

/// What failed.
#[derive(Default)]
pub struct Failures {
    /// How many.
    pub count: u64,
    first: Option<(Instant, String)>,
}

impl Failures {
    /// Adds one, which came now.
    pub fn note(&mut self, error: &impl Display) {
        self.count += 1;
        self.first
            .get_or_insert_with(|| (Instant::now(), error.to_string()));
    }

    /// Adds those of another.
    pub fn add(&mut self, other: Failures) {
        self.count += other.count;
        let earliest = |a: (Instant, String), b: (Instant, String)| if b.0 < a.0 { b } else { a };
        self.first = match (self.first.take(), other.first) {
            (Some(a), Some(b)) => Some(earliest(a, b)),
            (a, b) => a.or(b),
        };
    }

    /// The first of them.
    pub fn first(&self) -> Option<&str> {
        self.first.as_ref().map(|(_, text)| text.as_str())
    }
}

/// Jain's index of fairness: 1 when all have the same, 1/n when one has it all.
pub fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    if squares == 0.0 {
        return 1.0;
    }
    sum * sum / (shares.len() as f64 * squares)
}

/// The smallest, the middle one, and the largest; zeros of nothing.
pub fn spread(shares: &mut [f64]) -> (f64, f64, f64) {
    shares.sort_by(f64::total_cmp);
    match &*shares {
        [] => (0.0, 0.0, 0.0),
        [first, .., last] => (*first, shares[shares.len() / 2], *last),
        [one] => (*one, *one, *one),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= b * 0.002
    }

    #[test]
    fn percentiles_of_a_thousand_values() {
        let mut latencies = Latencies::default();
        for us in 1..=1000 {
            latencies.note(Duration::from_micros(us));
        }
        let seen = latencies.percentiles();
        assert_eq!(seen.count, 1000);
        assert!(near(seen.p50, 500.0), "{seen:?}");
        assert!(near(seen.p90, 900.0), "{seen:?}");
        assert!(near(seen.p99, 990.0), "{seen:?}");
        assert!(near(seen.p999, 999.0), "{seen:?}");
        assert!(near(seen.max, 1000.0), "{seen:?}");
        assert!(near(seen.mean, 500.5), "{seen:?}");
    }

    #[test]
    fn two_histograms_added_are_one() {
        let (mut a, mut b, mut both) = <(Latencies, Latencies, Latencies)>::default();
        for us in 1..100 {
            let latency = Duration::from_micros(us * us);
            if us % 3 == 0 { &mut a } else { &mut b }.note(latency);
            both.note(latency);
        }
        a.add(&b);
        assert_eq!(a.percentiles(), both.percentiles());
    }

    #[test]
    fn no_values_and_huge_ones() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentiles().max, 0.0);
        latencies.note(Duration::from_secs(100_000));
        assert!(latencies.percentiles().max >= 600e6);
    }

    #[test]
    fn the_first_failure_of_all_is_told() {
        let (mut a, mut b) = (Failures::default(), Failures::default());
        b.note(&"first");
        a.note(&"second");
        b.note(&"third");
        a.add(b);
        assert_eq!((a.count, a.first()), (3, Some("first")));
    }

    #[test]
    fn fairness() {
        assert_eq!(jain(&[5.0; 4]), 1.0);
        assert_eq!(jain(&[8.0, 0.0, 0.0, 0.0]), 0.25);
        assert_eq!(jain(&[0.0, 0.0]), 1.0);
        assert_eq!(spread(&mut [3.0, 1.0, 2.0]), (1.0, 2.0, 3.0));
        assert_eq!(spread(&mut [3.0]), (3.0, 3.0, 3.0));
        assert_eq!(spread(&mut []), (0.0, 0.0, 0.0));
    }
}
