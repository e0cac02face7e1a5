//! When queries are to begin in an open loop. Pure: numbers of arrivals and times since the beginning.

use std::time::Duration;

/// Arrivals at a constant rate, of which one thread has every `threads`th.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// Nanoseconds between two arrivals of this thread.
    gap_ns: f64,
    /// When the first comes.
    first_ns: f64,
}

impl Schedule {
    /// The arrivals of thread `thread` of `threads`, which together make `per_second`.
    pub fn new(per_second: f64, thread: usize, threads: usize) -> Schedule {
        let gap_ns = 1e9 / per_second;
        Schedule {
            gap_ns: gap_ns * threads as f64,
            first_ns: gap_ns * thread as f64,
        }
    }

    /// When the arrival of this number, from 0, is to begin.
    pub fn intended(&self, number: u64) -> Duration {
        Duration::from_nanos((self.first_ns + self.gap_ns * number as f64) as u64)
    }

    /// How many are due before `end`.
    pub fn due_before(&self, end: Duration) -> u64 {
        let mut due = ((end.as_nanos() as f64 - self.first_ns) / self.gap_ns).ceil() as u64;
        // What rounding made wrong: the two functions must agree exactly, or an arrival would begin before its time.
        while due > 0 && self.intended(due - 1) >= end {
            due -= 1;
        }
        while self.intended(due) < end {
            due += 1;
        }
        due
    }

    /// Time between two arrivals.
    pub fn gap(&self) -> Duration {
        Duration::from_nanos(self.gap_ns as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_threads_together_make_the_rate() {
        for (rate, threads) in [(1.0, 1), (1000.0, 3), (33_333.3, 2), (7.0, 8)] {
            let due = |end| -> u64 {
                let of = |thread| Schedule::new(rate, thread, threads).due_before(end);
                (0..threads).map(of).sum()
            };
            let expected = (rate * 10.0).ceil() as i64;
            assert!((due(10 * SECOND) as i64 - expected).abs() <= 1, "{rate}");
        }
    }

    #[test]
    fn threads_take_turns() {
        let (a, b) = (Schedule::new(1000.0, 0, 2), Schedule::new(1000.0, 1, 2));
        let times = [a.intended(0), b.intended(0), a.intended(1), b.intended(1)];
        let ms: Vec<u128> = times.iter().map(Duration::as_millis).collect();
        assert_eq!(ms, [0, 1, 2, 3]);
    }

    #[test]
    fn what_is_due_agrees_with_when_it_is_intended() {
        for rate in [3.0, 997.0, 33_333.3, 123_456.7] {
            let schedule = Schedule::new(rate, 1, 3);
            for ns in (0..3_000_000_000).step_by(9_999_991) {
                let end = Duration::from_nanos(ns);
                let due = schedule.due_before(end);
                assert!(schedule.intended(due) >= end, "{rate} {end:?}");
                assert!(due == 0 || schedule.intended(due - 1) < end);
            }
        }
    }

    #[test]
    fn nothing_is_due_at_the_beginning() {
        assert_eq!(Schedule::new(10.0, 0, 1).due_before(Duration::ZERO), 0);
        assert_eq!(
            Schedule::new(10.0, 0, 1).due_before(Duration::from_nanos(1)),
            1
        );
    }
}
