//! Draining a worker: its clients are asked to leave, a few at a time, each where it loses nothing.
//!
//! Who is asked has two parts. As long as there is time, only clients that are quiet: the connections that a driver's pool keeps in
//! reserve, and whose end it notices before it uses them again. Then all the others, who leave when their transaction has ended and
//! its reply has been sent; for them a query may cross our farewell, which is why they come last. Either way they are spread evenly
//! over the time that the plan gives, so that they don't all connect elsewhere in the same moment. When exactly a client can leave is the
//! business of its session ([`crate::client::session`]).

use std::cmp::Reverse;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Worker;
use crate::client::card::{ClientCard, ClientState};

/// How often some are asked.
const STEP: Duration = Duration::from_millis(100);
/// Who has said nothing for so long is quiet, where there is time enough.
const QUIET: Duration = Duration::from_secs(1);

/// Who is asked to leave, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainPlan {
    /// Until then only clients are asked that are quiet.
    quiet_until: Instant,
    /// By then everybody has been asked; what is left of the time belongs to transactions that run.
    all_by: Instant,
    /// How long a client must have said nothing to be quiet.
    quiet: Duration,
}

/// Who is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attendance {
    /// Clients, those included that wait for their greeting.
    pub clients: usize,
    /// Those among them that use a server.
    pub active: usize,
    /// Those among them that wait for a server.
    pub waiting: usize,
    /// Former clients that are still being told why they are none any more.
    pub partings: usize,
}

impl std::iter::Sum for Attendance {
    fn sum<I: Iterator<Item = Attendance>>(rows: I) -> Attendance {
        rows.fold(Attendance::default(), |sum, row| Attendance {
            clients: sum.clients + row.clients,
            active: sum.active + row.active,
            waiting: sum.waiting + row.waiting,
            partings: sum.partings + row.partings,
        })
    }
}

impl DrainPlan {
    /// For a drain that has so much time: half of it for quiet clients, a quarter for the others, a quarter for their transactions.
    pub fn new(now: Instant, time: Duration) -> DrainPlan {
        DrainPlan {
            quiet_until: now + time / 2,
            all_by: now + time / 4 * 3,
            quiet: QUIET.min(time / 8),
        }
    }

    /// How many of so many clients are asked in this step.
    fn portion(&self, now: Instant, clients: usize) -> usize {
        let end = if now < self.quiet_until {
            self.quiet_until
        } else {
            self.all_by
        };
        let left = end.saturating_duration_since(now).as_millis();
        let steps = left.div_ceil(STEP.as_millis()).max(1);
        clients.div_ceil(usize::try_from(steps).unwrap_or(usize::MAX))
    }

    /// Whether a client may be asked that has been quiet since then.
    fn allows(&self, now: Instant, quiet_since: Option<Instant>) -> bool {
        let is_quiet = |since| now.saturating_duration_since(since) >= self.quiet;
        now >= self.quiet_until || quiet_since.is_some_and(is_quiet)
    }
}

impl Worker {
    /// Asks the clients to leave, those included that come while it lasts.
    pub(super) fn drain(self: &Rc<Self>, plan: DrainPlan) {
        let worker = self.clone();
        (self.around.spawn)(Box::pin(async move {
            loop {
                worker.ask_some_to_leave(&plan, Instant::now());
                tokio::time::sleep(STEP).await;
            }
        }));
    }

    fn ask_some_to_leave(&self, plan: &DrainPlan, now: Instant) {
        let roster = self.roster.borrow();
        let cards = roster.values().map(|(card, _)| card);
        let staying = cards.filter(|card| !card.is_leaving() && is_here(card));
        let mut staying: Vec<_> = staying.map(|card| (card.quiet_since(), card)).collect();
        let portion = plan.portion(now, staying.len());
        staying.retain(|(quiet_since, _)| plan.allows(now, *quiet_since));
        if portion < staying.len() {
            // Those who have been quiet longest come first, and last those who are not.
            staying.select_nth_unstable_by_key(portion, |(since, _)| Reverse(since.map(Reverse)));
        }
        for (_, card) in staying.into_iter().take(portion) {
            card.ask_to_leave();
        }
    }

    /// Who is there.
    pub(super) fn attendance(&self) -> Attendance {
        let roster = self.roster.borrow();
        let mut attendance = Attendance {
            clients: roster.len(),
            partings: self.partings.get(),
            ..Attendance::default()
        };
        for (card, _) in roster.values() {
            match card.state.get() {
                ClientState::Active => attendance.active += 1,
                ClientState::Waiting => attendance.waiting += 1,
                ClientState::Login | ClientState::Inquiring | ClientState::Idle => {}
            }
        }
        attendance
    }
}

/// Not one who is only asked about.
fn is_here(card: &ClientCard) -> bool {
    card.state.get() != ClientState::Inquiring
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(20);

    /// Runs a plan over clients that leave as soon as they are asked; gives how many were asked in each step.
    fn play(quiet: usize, busy: usize) -> Vec<usize> {
        let begin = Instant::now();
        let plan = DrainPlan::new(begin, TIME);
        let long_ago = begin.checked_sub(QUIET).unwrap();
        let mut staying = vec![Some(long_ago); quiet];
        staying.extend(vec![None; busy]);
        let mut asked = Vec::new();
        for step in 0..(TIME.as_millis() / STEP.as_millis()) as u32 {
            let now = begin + STEP * step;
            let portion = plan.portion(now, staying.len());
            let before = staying.len();
            let mut left = portion;
            staying.retain(|since| {
                let goes = left > 0 && plan.allows(now, *since);
                left -= usize::from(goes);
                !goes
            });
            asked.push(before - staying.len());
        }
        assert!(staying.is_empty());
        asked
    }

    #[test]
    fn many_are_spread_evenly_over_half_of_the_time() {
        let asked = play(10_000, 0);
        assert!(asked[..100].iter().all(|&n| n == 100), "{asked:?}");
    }

    #[test]
    fn few_need_not_last_so_long() {
        assert_eq!(play(3, 0)[..4], [1, 1, 1, 0]);
    }

    #[test]
    fn the_busy_come_after_the_quiet_and_leave_time_for_transactions() {
        let asked = play(100, 500);
        assert_eq!(asked[..100].iter().sum::<usize>(), 100);
        assert!(asked[100..150].iter().all(|&n| n == 10), "{asked:?}");
        assert_eq!(asked[150..].iter().sum::<usize>(), 0);
    }

    #[test]
    fn who_comes_late_is_asked_too() {
        let begin = Instant::now();
        let plan = DrainPlan::new(begin, TIME);
        for late in [15, 20, 30] {
            let now = begin + Duration::from_secs(late);
            assert_eq!(plan.portion(now, 7), 7);
            assert!(plan.allows(now, None));
        }
    }

    /// A plan without time asks everybody at once.
    #[test]
    fn no_time_at_all() {
        let now = Instant::now();
        let plan = DrainPlan::new(now, Duration::ZERO);
        assert_eq!(plan.portion(now, 1000), 1000);
        assert!(plan.allows(now, None));
    }

    #[test]
    fn quiet_means_said_nothing_for_a_second() {
        let begin = Instant::now();
        let plan = DrainPlan::new(begin, TIME);
        assert!(!plan.allows(begin, Some(begin)) && !plan.allows(begin, None));
        assert!(plan.allows(begin + QUIET, Some(begin)));
    }
}
