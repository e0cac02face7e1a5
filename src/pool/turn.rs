//! Moments that workers share without a lock; and whose turn it is: what they together do once at a time, with a pause in between.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// A moment as a number for an atomic: nanoseconds since `start`, plus one; zero is left for none. What was before `start` counts as
/// `start`.
pub fn stamp(start: Instant, at: Instant) -> u64 {
    at.saturating_duration_since(start).as_nanos() as u64 + 1
}

/// The moment that a [`stamp`] stands for; `None` for zero.
pub fn moment(start: Instant, stamp: u64) -> Option<Instant> {
    Some(start + Duration::from_nanos(stamp.checked_sub(1)?))
}

/// Taken by one of many at a time. Whoever has taken it need not give it back: it comes free when time has passed.
#[derive(Debug)]
pub struct Turn {
    start: Instant,
    /// The [`stamp`] of when it was last taken; zero is never.
    taken: AtomicU64,
}

impl Turn {
    /// Nobody has taken it yet.
    pub fn new(start: Instant) -> Turn {
        Turn {
            start,
            taken: AtomicU64::new(0),
        }
    }

    /// Nobody has taken it for as long as `pause`.
    pub fn is_free(&self, now: Instant, pause: Duration) -> bool {
        is_over(self.taken.load(SeqCst), stamp(self.start, now), pause)
    }

    /// Takes it, if it is free. Of several who try at the same time one succeeds, unless there is no pause.
    pub fn take(&self, now: Instant, pause: Duration) -> bool {
        let now = stamp(self.start, now);
        let take = |last| is_over(last, now, pause).then_some(now.max(last));
        self.taken.fetch_update(SeqCst, SeqCst, take).is_ok()
    }
}

fn is_over(last: u64, now: u64, pause: Duration) -> bool {
    last == 0 || u128::from(now.saturating_sub(last)) >= pause.as_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(10);

    #[test]
    fn a_stamp_stands_for_its_moment() {
        let start = Instant::now();
        let later = start + Duration::from_nanos(1_234_567_891);
        assert_eq!(moment(start, stamp(start, later)), Some(later));
        assert_eq!(moment(later, stamp(later, start)), Some(later));
        assert_eq!((stamp(start, start), moment(start, 0)), (1, None));
    }

    #[test]
    fn it_comes_free_when_the_pause_is_over() {
        let start = Instant::now();
        let turn = Turn::new(start);
        assert!(turn.take(start, PAUSE));
        let early = start + PAUSE - Duration::from_nanos(1);
        assert!(!turn.is_free(early, PAUSE) && !turn.take(early, PAUSE));
        assert!(turn.is_free(start + PAUSE, PAUSE) && turn.take(start + PAUSE, PAUSE));
        assert!(!turn.take(start + PAUSE, PAUSE));
        // A clock that was read before the others' is no way around it, and takes nothing back.
        assert!(!turn.take(start, PAUSE));
        assert!(turn.take(start, Duration::ZERO));
        assert!(!turn.is_free(start + PAUSE, PAUSE));
    }

    #[test]
    fn of_many_at_the_same_time_one_takes_it() {
        let start = Instant::now();
        let turn = Turn::new(start);
        for round in 0..100 {
            let now = start + PAUSE * round;
            let gate = std::sync::Barrier::new(4);
            let taken = std::thread::scope(|scope| {
                let tries = [(); 4].map(|()| {
                    scope.spawn(|| {
                        gate.wait();
                        turn.take(now, PAUSE)
                    })
                });
                let taken = tries.map(|one| one.join().expect("no thread panics"));
                taken.iter().filter(|taken| **taken).count()
            });
            assert_eq!(taken, 1, "round {round}");
        }
    }
}
