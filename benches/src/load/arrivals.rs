//! When the next query or login begins: when it is due, or as soon as somebody is free. Shared by the tasks of one thread.
//!
//! Arrivals in order and at a constant rate need no queue: how many are due, and how many were taken, says which is next.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::crew::Window;
use super::schedule::Schedule;
use super::tally::Latencies;
use super::ticker::Ticker;

/// Ticks are no closer than this: what is due between two ticks begins with the second, so that much is the floor of the latencies
/// at high rates. Closer ones would cost the generator more than they tell.
const TICK_MIN: Duration = Duration::from_micros(100);

/// The arrivals of one thread, without the taking of which nothing begins.
pub struct Arrivals {
    window: Window,
    schedule: Option<Schedule>,
    due: Cell<u64>,
    taken: Cell<u64>,
    over: Cell<bool>,
    more: Notify,
}

impl Arrivals {
    /// Without a schedule, something is due at any time.
    pub fn new(window: Window, schedule: Option<Schedule>) -> Arrivals {
        Arrivals {
            window,
            schedule,
            due: Cell::new(0),
            taken: Cell::new(0),
            over: Cell::new(false),
            more: Notify::new(),
        }
    }

    /// Waits for the next to be due, and takes it: the moment when it should have begun. `None` after the window's end. Those who
    /// wait are served in turn.
    pub async fn next(&self) -> Option<Instant> {
        let Some(schedule) = &self.schedule else {
            let now = Instant::now();
            return (now < self.window.end).then_some(now);
        };
        loop {
            if self.over.get() {
                return None;
            }
            let taken = self.taken.get();
            if taken < self.due.get() {
                self.taken.set(taken + 1);
                return Some(self.window.begin + schedule.intended(taken));
            }
            self.more.notified().await;
        }
    }

    /// Makes arrivals due, up to the window's end. `takers` is how many tasks there are.
    ///
    /// # Errors
    /// Those of the [`Ticker`].
    pub async fn drive(&self, takers: usize) -> io::Result<()> {
        let Some(schedule) = &self.schedule else {
            return Ok(());
        };
        let ticker = Ticker::new(schedule.gap().max(TICK_MIN))?;
        loop {
            let now = Instant::now().min(self.window.end);
            let due = schedule.due_before(now - self.window.begin);
            let new = due - self.due.replace(due);
            if now >= self.window.start {
                self.forget_warm_up(schedule);
            }
            for _ in 0..new.min(takers as u64) {
                self.more.notify_one();
            }
            if now == self.window.end {
                break;
            }
            ticker.tick().await?;
        }
        self.over.set(true);
        self.more.notify_waiters();
        Ok(())
    }

    /// What the warm-up has left is not begun any more: while the pooler opens its servers much comes due, and with little to spare
    /// behind the rate it would be in front of all that counts for long.
    fn forget_warm_up(&self, schedule: &Schedule) {
        let before = schedule.due_before(self.window.start - self.window.begin);
        self.taken.set(self.taken.get().max(before));
    }

    /// After the end: how many were due and never begun. Each is noted with the time that it had waited at the end, a lower bound of
    /// its latency; left out, an overload would look better the more it refused to serve.
    pub fn left(&self, latencies: &mut Latencies) -> u64 {
        let Some(schedule) = &self.schedule else {
            return 0;
        };
        let intended = |number| self.window.begin + schedule.intended(number);
        let left = (self.taken.get()..self.due.get()).map(intended);
        let counted = left.filter(|&begin| begin >= self.window.start);
        counted
            .map(|begin| latencies.note(self.window.end - begin))
            .count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(ms: u64) -> Window {
        let begin = Instant::now();
        Window {
            begin,
            start: begin,
            end: begin + Duration::from_millis(ms),
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn all_that_is_due_is_taken_in_order_and_never_early() {
        let window = window(50);
        let arrivals = Arrivals::new(window, Some(Schedule::new(2000.0, 0, 1)));
        let taker = async {
            let mut taken = Vec::new();
            while let Some(intended) = arrivals.next().await {
                assert!(Instant::now() >= intended);
                taken.push(intended);
            }
            taken
        };
        let (taken, driven) = block_on(async { tokio::join!(taker, arrivals.drive(1)) });
        driven.unwrap();
        let left = arrivals.left(&mut Latencies::default());
        assert_eq!(taken.len() as u64 + left, 100);
        assert!(taken.is_sorted());
    }

    #[test]
    fn what_nobody_took_is_counted_with_its_age() {
        let arrivals = Arrivals::new(window(50), Some(Schedule::new(1000.0, 0, 1)));
        block_on(arrivals.drive(1)).unwrap();
        let mut latencies = Latencies::default();
        assert_eq!(arrivals.left(&mut latencies), 50);
        let seen = latencies.percentiles();
        assert!((49_900.0..50_200.0).contains(&seen.max), "{seen:?}");
        assert_eq!(block_on(arrivals.next()), None);
    }

    #[test]
    fn what_the_warm_up_left_is_forgotten() {
        let mut window = window(60);
        window.start = window.begin + Duration::from_millis(40);
        let arrivals = Arrivals::new(window, Some(Schedule::new(1000.0, 0, 1)));
        block_on(arrivals.drive(1)).unwrap();
        assert_eq!(arrivals.taken.get(), 40);
        assert_eq!(arrivals.left(&mut Latencies::default()), 20);
    }

    #[test]
    fn without_a_schedule_something_is_always_due_until_the_end() {
        assert!(block_on(Arrivals::new(window(10_000), None).next()).is_some());
        assert!(block_on(Arrivals::new(window(0), None).next()).is_none());
    }
}
