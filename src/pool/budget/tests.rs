//! Limits, wake-ups and the sight of others: by random events in one thread, and by real threads that race.

use std::sync::Barrier;
use std::sync::mpsc;

use proptest::prelude::*;

use super::*;
use crate::config::{Config, Database};

fn settings(pool: u32, database: u32, user: u32) -> PoolSettings {
    PoolSettings {
        pool_size: pool,
        max_db_connections: database,
        max_user_connections: user,
        ..Config::default().pool_settings(&Database::new("d"), "u")
    }
}

fn key(database: &str, user: &str) -> PoolKey {
    PoolKey {
        database: database.to_owned(),
        user: user.to_owned(),
    }
}

fn silent() -> Poke {
    Arc::new(|_| {})
}

/// A budget, and the workers that were poked.
fn poked(workers: usize) -> (Budget, Arc<Mutex<Vec<WorkerId>>>) {
    let poked = Arc::new(Mutex::new(Vec::new()));
    let list = poked.clone();
    let poke = move |worker| list.lock().push(worker);
    (Budget::new(workers, Arc::new(poke)), poked)
}

#[derive(Clone, Debug)]
enum Step {
    Open(usize, WorkerId, bool),
    Grow(usize, usize),
    Close(usize),
    Shrink(usize, usize),
    Limit(usize, u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4usize, 0..3usize, any::<bool>()).prop_map(|(pool, worker, reserve)| Step::Open(pool, worker, reserve)),
        1 => (0..4usize, 0..4usize).prop_map(|(pool, floor)| Step::Grow(pool, floor)),
        5 => (0..16usize).prop_map(Step::Close),
        1 => (0..16usize, 0..3usize).prop_map(|(at, floor)| Step::Shrink(at, floor)),
        1 => (0..4usize, 1..4u32).prop_map(|(pool, size)| Step::Limit(pool, size)),
    ]
}

/// Two databases and two users, so four pools that share limits.
struct Model {
    budget: Budget,
    poked: Arc<Mutex<Vec<WorkerId>>>,
    pools: Vec<Arc<PoolShare>>,
    sizes: Vec<usize>,
    open: Vec<(usize, Slot)>,
    /// Who was refused, and has not been poked since.
    refused: Vec<(usize, WorkerId, bool)>,
}

const MAX_DB: usize = 4;
const MAX_USER: usize = 5;
const RESERVE: usize = 1;

impl Model {
    fn settings(size: u32) -> PoolSettings {
        PoolSettings {
            reserve_pool_size: RESERVE as u32,
            ..settings(size, MAX_DB as u32, MAX_USER as u32)
        }
    }

    fn new() -> Model {
        let (budget, poked) = poked(3);
        let keys = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")];
        let pools =
            keys.map(|(database, user)| budget.pool(&key(database, user), &Model::settings(2)));
        Model {
            budget,
            poked,
            pools: pools.to_vec(),
            sizes: vec![2; 4],
            open: Vec::new(),
            refused: Vec::new(),
        }
    }

    fn count(&self, which: impl Fn(usize) -> bool) -> usize {
        self.open.iter().filter(|(pool, _)| which(*pool)).count()
    }

    fn limits(&self, pool: usize) -> [(Denied, usize, usize); 3] {
        [
            (Denied::Pool, self.count(|at| at == pool), self.sizes[pool]),
            (
                Denied::Database,
                self.count(|at| at / 2 == pool / 2),
                MAX_DB,
            ),
            (Denied::User, self.count(|at| at % 2 == pool % 2), MAX_USER),
        ]
    }

    /// The limit that must refuse a connection, if one does.
    fn denial(&self, pool: usize, reserve: bool) -> Option<Denied> {
        let limits = self.limits(pool);
        let extra = |denied| {
            if reserve && denied == Denied::Pool {
                RESERVE
            } else {
                0
            }
        };
        let full = limits
            .iter()
            .find(|(denied, count, limit)| *count >= limit + extra(*denied));
        full.map(|(denied, ..)| *denied)
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Open(pool, worker, reserve) => {
                let expected = self.denial(pool, reserve);
                let stays_full = self.pools[pool].stays_full(worker);
                assert!(!stays_full || self.denial(pool, false) == Some(Denied::Pool));
                match self.pools[pool].try_open(worker, reserve) {
                    Ok(slot) => {
                        assert_eq!(expected, None);
                        self.open.push((pool, slot));
                    }
                    Err(denied) => {
                        assert_eq!(expected, Some(denied));
                        self.refused.push((pool, worker, reserve));
                    }
                }
            }
            Step::Grow(pool, floor) => {
                let room =
                    self.count(|at| at == pool) < floor && self.denial(pool, false).is_none();
                let slot = self.pools[pool].try_grow(floor);
                assert_eq!(slot.is_some(), room);
                self.open.extend(slot.map(|slot| (pool, slot)));
            }
            Step::Close(at) if at < self.open.len() => drop(self.open.swap_remove(at)),
            Step::Shrink(at, floor) if at < self.open.len() => {
                let pool = self.open[at].0;
                let more = self.count(|at| at == pool) > floor;
                assert_eq!(self.open[at].1.leave_above(floor), more);
                if more {
                    drop(self.open.swap_remove(at));
                }
            }
            Step::Close(_) | Step::Shrink(..) => {}
            Step::Limit(pool, size) => {
                self.sizes[pool] = size as usize;
                self.pools[pool].set_limits(&Model::settings(size));
            }
        }
    }

    fn check(&mut self) {
        for (at, pool) in self.pools.iter().enumerate() {
            assert_eq!(pool.servers(), self.count(|of| of == at));
            let counts = self.budget.servers_of(&pool.key.database, &pool.key.user);
            let same = (
                self.count(|of| of / 2 == at / 2),
                self.count(|of| of % 2 == at % 2),
            );
            assert_eq!(counts, same);
            assert!(same.0 <= MAX_DB && same.1 <= MAX_USER);
        }
        let poked = std::mem::take(&mut *self.poked.lock());
        self.refused
            .retain(|(_, worker, _)| !poked.contains(worker));
        for (pool, worker, reserve) in &self.refused {
            assert!(
                self.denial(*pool, *reserve).is_some(),
                "worker {worker} was refused, there is room in pool {pool} now, and nobody told it"
            );
        }
    }
}

proptest! {
    /// Limits are exact whatever is opened and closed, and whoever was refused is told when there is room.
    #[test]
    fn limits_hold_and_no_wake_up_is_lost(steps in prop::collection::vec(step(), 1..150)) {
        let mut model = Model::new();
        for step in steps {
            model.apply(step);
            model.check();
        }
        model.open.clear();
        model.check();
        for pool in &model.pools {
            prop_assert_eq!((pool.servers(), pool.database_servers()), (0, 0));
        }
    }
}

/// Threads that open and close under three limits at once, and sleep when refused: each must be woken, and none exceed a limit.
#[test]
fn racing_workers_are_always_woken_and_never_too_many() {
    const WORKERS: usize = 4;
    const ROUNDS: usize = 3000;
    let (senders, mails): (Vec<_>, Vec<_>) = (0..WORKERS).map(|_| mpsc::channel::<()>()).unzip();
    let poke: Poke = Arc::new(move |worker: WorkerId| {
        let _ = senders[worker].send(());
    });
    let budget = Budget::new(WORKERS, poke);
    let pools = [("a", "x"), ("a", "y"), ("b", "x")]
        .map(|(database, user)| budget.pool(&key(database, user), &settings(2, 2, 2)));
    // Connections of database `a`, and of user `x`: each may have two.
    let live = [AtomicUsize::new(0), AtomicUsize::new(0)];
    std::thread::scope(|scope| {
        for (worker, mail) in mails.into_iter().enumerate() {
            let (pools, live) = (&pools, &live);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let pool = &pools[(round + worker) % pools.len()];
                    let slot = loop {
                        match pool.try_open(worker, false) {
                            Ok(slot) => break slot,
                            Err(_) => mail
                                .recv_timeout(Duration::from_secs(20))
                                .expect("a wake-up was lost"),
                        }
                    };
                    let counts = live
                        .iter()
                        .zip([&*pool.key.database == "a", &*pool.key.user == "x"]);
                    let counted: Vec<_> = counts.filter(|(_, counts)| *counts).collect();
                    for (count, _) in &counted {
                        assert!(count.fetch_add(1, SeqCst) < 2, "a limit was exceeded");
                    }
                    std::thread::yield_now();
                    for (count, _) in &counted {
                        count.fetch_sub(1, SeqCst);
                    }
                    drop(slot);
                }
            });
        }
    });
    assert!(pools.iter().all(|pool| pool.servers() == 0));
}

/// One shows that it waits and looks for servers at rest, the other shows one and looks who waits: never do both see nothing.
#[test]
fn who_shows_first_and_looks_then_is_seen_or_sees() {
    const ROUNDS: usize = 4000;
    let budget = Budget::new(2, silent());
    let share = budget.pool(&key("d", "u"), &settings(1, 0, 0));
    let (barrier, now) = (Barrier::new(2), Instant::now());
    let mut blind = 0;
    let saw = [AtomicBool::new(false), AtomicBool::new(false)];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                barrier.wait();
                share.show_waiting(0, Some(now));
                saw[0].store(share.richest_other(0) == Some(1), SeqCst);
                barrier.wait();
                barrier.wait();
            }
        });
        for _ in 0..ROUNDS {
            barrier.wait();
            share.show_resting(1, 1);
            saw[1].store(share.hungriest_other(1).is_some(), SeqCst);
            barrier.wait();
            blind += usize::from(!saw[0].load(SeqCst) && !saw[1].load(SeqCst));
            share.show_resting(1, 0);
            share.show_waiting(0, None);
            barrier.wait();
        }
    });
    assert_eq!(blind, 0, "both saw nothing");
}

/// One waits and counts on what the other has to spare, which comes to nothing: it has seen that, or is poked.
#[test]
fn who_counts_on_a_spare_server_is_poked_when_it_is_none() {
    const ROUNDS: usize = 4000;
    let (budget, poked) = poked(2);
    let share = budget.pool(&key("d", "u"), &settings(1, 0, 0));
    let (barrier, now) = (Barrier::new(2), Instant::now());
    let counts_on_it = AtomicBool::new(false);
    let (mut counted, mut in_vain) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                barrier.wait();
                share.show_waiting(0, Some(now));
                share.show_balance(0, -1);
                counts_on_it.store(share.provides_for(0), SeqCst);
                barrier.wait();
                barrier.wait();
            }
        });
        for round in 0..ROUNDS {
            // Being opened there, or on its way.
            let journey = (round % 2 == 0).then(|| share.set_out());
            share.show_balance(1, isize::from(journey.is_none()));
            barrier.wait();
            drop(journey);
            share.show_balance(1, 0);
            barrier.wait();
            let was_poked = !std::mem::take(&mut *poked.lock()).is_empty();
            let counts = counts_on_it.load(SeqCst);
            counted += usize::from(counts);
            in_vain += usize::from(counts && !was_poked);
            share.show_waiting(0, None);
            share.show_balance(0, 0);
            barrier.wait();
        }
    });
    assert_eq!(in_vain, 0, "of {counted}");
    assert!(counted > 0, "it never came to that");
}

#[test]
fn only_who_counted_on_a_server_is_poked_and_only_if_it_is_missed() {
    let (budget, poked) = poked(3);
    let share = budget.pool(&key("d", "u"), &settings(1, 0, 0));
    let taken = || -> Vec<WorkerId> { std::mem::take(&mut *poked.lock()) };
    // What worker 2 waits for, nobody has.
    share.show_balance(2, -1);
    assert!(!share.provides_for(2));
    share.show_balance(2, 0);
    share.show_balance(0, 2);
    share.show_balance(1, -1);
    assert!(share.provides_for(1));
    // One goes from worker 0 to worker 1, and arrives.
    let journey = share.set_out();
    share.show_balance(0, 1);
    share.show_balance(1, 0);
    drop(journey);
    assert_eq!((share.balance(), taken()), (1, vec![]));
    // The other sets out and gets lost.
    share.show_balance(1, -1);
    let journey = share.set_out();
    share.show_balance(0, 0);
    assert_eq!((share.balance(), taken()), (0, vec![]));
    drop(journey);
    assert_eq!((share.balance(), taken()), (-1, vec![1]));
    drop(share.set_out());
    assert!(taken().is_empty(), "once is enough");
}

#[test]
fn the_oldest_wait_of_the_others_is_found() {
    let budget = Budget::new(3, silent());
    let share = budget.pool(&key("d", "u"), &settings(1, 0, 0));
    let at = |millis| budget.start() + Duration::from_millis(millis);
    assert_eq!(share.hungriest_other(0), None);
    share.show_waiting(0, Some(at(1)));
    share.show_waiting(1, Some(at(7)));
    share.show_waiting(2, Some(at(3)));
    assert_eq!(share.hungriest_other(0), Some((2, at(3))));
    assert_eq!(share.hungriest_other(2), Some((0, at(1))));
}

#[test]
fn a_failure_is_remembered_until_success_or_new_settings() {
    let (budget, poked) = poked(2);
    let share = budget.pool(&key("d", "u"), &settings(1, 0, 0));
    let (now, retry) = (Instant::now(), Duration::from_secs(15));
    let error = ClientError::new("connect failed");
    share.attempt_failed(now, error.clone());
    assert_eq!(share.failing(now, retry), Some(error.clone()));
    assert!(share.begin_attempt(now, retry).is_none());
    let first = share
        .begin_attempt(now + retry, retry)
        .expect("the time is over");
    assert!(
        share.begin_attempt(now + retry, retry).is_none(),
        "one at a time"
    );
    drop(first);
    share.attempt_succeeded();
    assert_eq!(*poked.lock(), [0, 1], "everybody may go on");
    assert_eq!(share.failing(now, retry), None);
    share.attempt_failed(now, error);
    share.renew();
    assert_eq!(share.failing(now, retry), None);
    assert!(share.begin_attempt(now, retry).is_some());
}

#[test]
fn only_what_nobody_holds_is_forgotten() {
    let budget = Budget::new(1, silent());
    let share = budget.pool(&key("d", "u"), &settings(1, 1, 1));
    let slot = share.try_open(0, false).expect("the first");
    let now = Instant::now();
    assert_eq!(share.unused_for(now), None);
    assert!(budget.sweep().is_empty());
    drop(share);
    assert!(budget.sweep().is_empty(), "a connection is left");
    let share = slot.share().clone();
    drop(slot);
    assert!(share.unused_for(now) < Some(Duration::from_millis(1)));
    assert!(share.unused_for(now).is_some());
    let later = now + Duration::from_secs(9);
    assert!(share.unused_for(later) >= Some(Duration::from_secs(8)));
    drop(share.seat());
    assert_eq!(
        share.unused_for(later).map(|since| since.as_millis()),
        Some(0),
        "a client was there"
    );
    drop(share);
    assert!(budget.knows_database("d"));
    assert_eq!(budget.sweep(), [key("d", "u")]);
    assert!(!budget.knows_database("d"));
    let known = budget.known.lock();
    assert!(known.databases.is_empty() && known.users.is_empty());
}
