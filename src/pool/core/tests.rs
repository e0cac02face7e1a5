//! The core over plain numbers: random events against a model that knows where every server is.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Num {
    id: u32,
    born: Instant,
    epoch: u64,
}

impl Member for Num {
    fn born(&self) -> Instant {
        self.born
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }
}

type Core = PoolCore<Num, u32>;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const RULES: CoreRules = CoreRules {
    round_robin: false,
    lifetime: Duration::from_secs(3600),
    lifetime_spacing: Duration::from_secs(180),
    idle_timeout: Duration::from_secs(600),
    check_delay: Duration::from_secs(30),
    checks: true,
};

/// Where a server is, by the model. Resting: since when, and the how-manieth to come to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Resting(Instant, u32),
    Lent,
    Testing,
}

#[derive(Clone, Debug)]
enum Step {
    Checkout,
    Leave(usize),
    Dismiss,
    Checkin(usize, Wear),
    CloseLent(usize),
    LendNew,
    Clean(usize),
    Tested(usize, Wear),
    TestFailed(usize),
    DialBegins,
    Dialed,
    DialedLate,
    DialFailed,
    Lend,
    LendForTest,
    Receive(bool),
    GiveUp(bool),
    RemoveDead(u32),
    Tick(usize),
    Later(u64),
    Pause(bool),
    Renew,
    Drain,
    Rules(CoreRules),
}

fn wear() -> impl Strategy<Value = Wear> {
    prop_oneof![
        Just(Wear::Worn),
        Just(Wear::Worn),
        Just(Wear::Cleaned),
        Just(Wear::Unworn)
    ]
}

fn rules() -> impl Strategy<Value = CoreRules> {
    let time = |at: u64| prop_oneof![Just(secs(0)), Just(secs(at)), Just(secs(at * 3))];
    (time(60), time(5), time(20), time(10), any::<bool>()).prop_map(
        |(lifetime, spacing, idle, delay, checks)| CoreRules {
            round_robin: false,
            lifetime,
            lifetime_spacing: spacing,
            idle_timeout: idle,
            check_delay: delay,
            checks,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let n = || 0..8usize;
    prop_oneof![
        8 => Just(Step::Checkout),
        2 => n().prop_map(Step::Leave),
        1 => Just(Step::Dismiss),
        8 => (n(), wear()).prop_map(|(at, wear)| Step::Checkin(at, wear)),
        2 => n().prop_map(Step::CloseLent),
        1 => Just(Step::LendNew),
        2 => n().prop_map(Step::Clean),
        4 => (n(), wear()).prop_map(|(at, wear)| Step::Tested(at, wear)),
        1 => n().prop_map(Step::TestFailed),
        4 => Just(Step::DialBegins),
        4 => Just(Step::Dialed),
        1 => Just(Step::DialedLate),
        1 => Just(Step::DialFailed),
        2 => Just(Step::Lend),
        1 => Just(Step::LendForTest),
        2 => any::<bool>().prop_map(Step::Receive),
        1 => any::<bool>().prop_map(Step::GiveUp),
        1 => (1..4u32).prop_map(Step::RemoveDead),
        3 => (0..4usize).prop_map(Step::Tick),
        4 => (0..40u64).prop_map(Step::Later),
        1 => any::<bool>().prop_map(Step::Pause),
        1 => Just(Step::Renew),
        1 => Just(Step::Drain),
        1 => rules().prop_map(Step::Rules),
    ]
}

/// The core, and what should be true of it.
struct Model {
    core: Core,
    rules: CoreRules,
    now: Instant,
    places: HashMap<u32, (Num, Place)>,
    waiters: VecDeque<u32>,
    dialing: usize,
    paused: bool,
    next: u32,
    rested: u32,
    last_lifetime_close: Option<Instant>,
}

impl Model {
    fn new(rules: CoreRules) -> Model {
        Model {
            core: lone(rules),
            rules,
            now: Instant::now(),
            places: HashMap::new(),
            waiters: VecDeque::new(),
            dialing: 0,
            paused: false,
            next: 0,
            rested: 0,
            last_lifetime_close: None,
        }
    }

    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn new_server(&mut self, epoch: u64) -> Num {
        Num {
            id: self.number(),
            born: self.now,
            epoch,
        }
    }

    fn servers(&self, wanted: impl Fn(Place) -> bool) -> Vec<Num> {
        let mut all: Vec<_> = self.places.values().collect();
        all.retain(|(_, place)| wanted(*place));
        let mut all: Vec<_> = all.into_iter().map(|(num, _)| *num).collect();
        all.sort_by_key(|num| num.id);
        all
    }

    fn pick(&self, at: usize, wanted: Place) -> Option<Num> {
        let all = self.servers(|place| place == wanted);
        all.get(at % all.len().max(1)).copied()
    }

    fn take(&mut self, num: Num, from: impl Fn(Place) -> bool) {
        let (known, place) = self
            .places
            .remove(&num.id)
            .expect("a server out of nowhere");
        assert!(known == num && from(place), "{num:?} was {place:?}");
    }

    fn take_resting(&mut self, num: Num) {
        self.take(num, |place| matches!(place, Place::Resting(..)));
    }

    fn put(&mut self, num: Num, place: Place) {
        assert!(self.places.insert(num.id, (num, place)).is_none());
    }

    /// What the core has decided about `server` must be what the rules say.
    fn placed(&mut self, server: Num, wear: Wear, placed: Placed<Num, u32>) {
        let stale = server.epoch != self.core.epoch();
        let due = self.is_due(server) && wear != Wear::Unworn;
        let tested_first =
            self.rules.checks && self.rules.check_delay.is_zero() && wear == Wear::Worn;
        match placed {
            Placed::Close(closed, reason) => {
                assert_eq!(closed, server);
                assert!(stale || self.paused || due);
                if reason == Reason::Lifetime {
                    self.closed_for_age(server);
                }
            }
            _ if stale || self.paused || due => panic!("{server:?} should have been closed"),
            Placed::Handed(client, handed) => {
                assert!(!tested_first && handed == server);
                assert_eq!(Some(client), self.waiters.pop_front(), "out of order");
                self.put(server, Place::Lent);
            }
            Placed::Resting => {
                assert!(tested_first || self.waiters.is_empty());
                self.rested += 1;
                self.put(server, Place::Resting(self.now, self.rested));
            }
        }
    }

    fn is_due(&self, server: Num) -> bool {
        self.now - server.born >= self.rules.lifetime
            && self
                .last_lifetime_close
                .is_none_or(|last| self.now - last >= self.rules.lifetime_spacing)
    }

    fn closed_for_age(&mut self, server: Num) {
        assert!(self.is_due(server), "closed too early");
        self.last_lifetime_close = Some(self.now);
    }

    /// The ready servers, in the order in which they came to rest.
    fn idle(&self) -> Vec<Num> {
        let ready = self
            .core
            .resting()
            .filter(|(_, tested)| !tested)
            .map(|(num, _)| *num);
        let mut ready: Vec<_> = ready.collect();
        ready.sort_by_key(|num| match self.places[&num.id].1 {
            Place::Resting(_, at) => at,
            other => panic!("{num:?} rests and is {other:?}"),
        });
        ready
    }

    fn next_ready(&self) -> Option<Num> {
        let ready = self.idle();
        let next = if self.rules.round_robin {
            ready.first()
        } else {
            ready.last()
        };
        next.copied()
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Checkout => self.checkout(),
            Step::Leave(at) => {
                let who = self.waiters.get(at).copied().unwrap_or(u32::MAX);
                assert_eq!(self.core.leave(&who), at < self.waiters.len());
                self.waiters.retain(|waiter| *waiter != who);
            }
            Step::Dismiss => assert_eq!(self.core.dismiss(), self.waiters.pop_front()),
            Step::Checkin(at, wear) => {
                if let Some(num) = self.pick(at, Place::Lent) {
                    self.take(num, |_| true);
                    let placed = self.core.checkin(num, self.now, wear);
                    self.placed(num, wear, placed);
                }
            }
            Step::CloseLent(at) => {
                if let Some(num) = self.pick(at, Place::Lent) {
                    self.take(num, |_| true);
                    self.core.forget_lent();
                }
            }
            Step::LendNew => {
                let num = self.new_server(self.core.epoch());
                self.core.lend_new();
                self.put(num, Place::Lent);
            }
            Step::Clean(at) => {
                if let Some(num) = self.pick(at, Place::Lent) {
                    self.core.lent_to_test();
                    self.take(num, |_| true);
                    self.put(num, Place::Testing);
                }
            }
            Step::Tested(at, wear) => {
                // What comes from a test is never in need of one.
                let wear = match wear {
                    Wear::Worn => Wear::Cleaned,
                    wear => wear,
                };
                if let Some(num) = self.pick(at, Place::Testing) {
                    self.take(num, |_| true);
                    let placed = self.core.tested(num, self.now, wear);
                    self.placed(num, wear, placed);
                }
            }
            Step::TestFailed(at) => {
                if let Some(num) = self.pick(at, Place::Testing) {
                    self.take(num, |_| true);
                    self.core.forget_tested();
                }
            }
            Step::DialBegins => {
                self.core.dial_began();
                self.dialing += 1;
            }
            Step::Dialed => self.dialed(self.core.epoch()),
            Step::DialedLate => self.dialed(self.core.epoch().wrapping_sub(1)),
            Step::DialFailed if self.dialing > 0 => {
                self.core.dial_failed();
                self.dialing -= 1;
            }
            Step::DialFailed => {}
            step => self.apply_rare(step),
        }
    }

    fn checkout(&mut self) {
        let who = self.number();
        let (next, queue) = (self.next_ready(), !self.waiters.is_empty());
        match self.core.checkout(who, self.now) {
            Checkout::Granted(num) => {
                assert!(!self.paused && !queue);
                assert_eq!(Some(num), next, "not the one whose turn it is");
                self.take_resting(num);
                self.put(num, Place::Lent);
            }
            Checkout::Queued => {
                assert!(queue || next.is_none());
                self.waiters.push_back(who);
            }
        }
    }

    fn dialed(&mut self, epoch: u64) {
        if self.dialing > 0 {
            self.dialing -= 1;
            let num = self.new_server(epoch);
            let placed = self.core.dialed(num, self.now);
            self.placed(num, Wear::Unworn, placed);
        }
    }

    fn apply_rare(&mut self, step: Step) {
        match step {
            Step::Lend => {
                let next = self.next_ready().filter(|_| self.waiters.is_empty());
                let lent = self.core.lend();
                assert_eq!(lent, next);
                lent.into_iter().for_each(|num| self.take_resting(num));
            }
            Step::LendForTest => {
                if let Some(num) = self.core.lend_for_test() {
                    self.take_resting(num);
                    self.put(num, Place::Testing);
                }
            }
            Step::Receive(fresh) => {
                let epoch = self.core.epoch().wrapping_sub(u64::from(!fresh));
                let num = self.new_server(epoch);
                let placed = self.core.receive(num, self.now);
                self.placed(num, Wear::Unworn, placed);
            }
            Step::GiveUp(may) => self.give_up(may),
            Step::RemoveDead(every) => {
                for num in self.core.remove_resting(|num| num.id % every == 0) {
                    assert_eq!(num.id % every, 0);
                    self.take_resting(num);
                }
            }
            Step::Tick(spare) => self.tick(spare),
            Step::Later(seconds) => self.now += secs(seconds),
            Step::Pause(paused) => {
                self.paused = paused;
                let closed = self.core.pause(paused);
                assert!(paused || closed.is_empty());
                closed.into_iter().for_each(|num| self.take_resting(num));
            }
            Step::Renew => {
                let closed = self.core.renew(self.core.epoch() + 1);
                closed.into_iter().for_each(|num| self.take_resting(num));
            }
            Step::Drain => {
                let closed = self.core.drain_resting();
                closed.into_iter().for_each(|num| self.take_resting(num));
            }
            Step::Rules(rules) => {
                // The order of use stays, so that it can be checked.
                self.rules = CoreRules {
                    round_robin: self.rules.round_robin,
                    ..rules
                };
                self.core.set_rules(self.rules);
            }
            step => unreachable!("{step:?}"),
        }
    }

    fn rest_of(&self, num: Num) -> Option<Instant> {
        match self.places.get(&num.id)?.1 {
            Place::Resting(since, _) => Some(since),
            _ => None,
        }
    }

    fn give_up(&mut self, may: bool) {
        let all = self.servers(|place| matches!(place, Place::Resting(..)));
        let oldest = all.iter().filter_map(|num| self.rest_of(*num)).min();
        let oldest = oldest.filter(|_| self.waiters.is_empty());
        assert_eq!(self.core.longest_rest(), oldest);
        let given = self.core.give_up_if(|_| may);
        let since = given.and_then(|num| self.rest_of(num));
        assert_eq!(since, oldest.filter(|_| may));
        given.into_iter().for_each(|num| self.take_resting(num));
    }

    fn tick(&mut self, spare: usize) {
        let (mut left, now, rules) = (spare, self.now, self.rules);
        let closed = self.core.tick(now, |_| {
            let more = left > 0;
            left -= usize::from(more);
            more
        });
        let timeout = rules.idle_timeout;
        for (num, reason) in closed {
            let rest = now - self.rest_of(num).expect("closed while not resting");
            match reason {
                Reason::IdleTimeout => assert!(!timeout.is_zero() && rest >= timeout),
                Reason::Lifetime => self.closed_for_age(num),
                reason => panic!("closed for {reason:?}"),
            }
            self.take_resting(num);
        }
        for (num, tested) in self.core.resting() {
            let rest = now - self.rest_of(*num).expect("not resting");
            assert!(timeout.is_zero() || rest < timeout || left == 0);
            assert!(tested || !rules.checks || rest < rules.check_delay);
        }
        assert!(
            self.core.resting().all(|(num, _)| !self.is_due(*num)),
            "an old one is kept"
        );
    }

    /// Those who wait are served as the shell does it: by tests.
    fn pump(&mut self) {
        while let Some(num) = self.core.next_test() {
            assert!(!self.paused && self.core.waiting() >= self.core.testing());
            self.take_resting(num);
            self.put(num, Place::Testing);
        }
    }

    fn check(&self) {
        let core = &self.core;
        let count = |wanted: Place| self.servers(|place| place == wanted).len();
        assert_eq!(core.lent(), count(Place::Lent));
        assert_eq!(core.testing(), count(Place::Testing));
        assert_eq!(core.dialing(), self.dialing);
        assert!(core.waiters().eq(&self.waiters), "the queue's order");
        let mut resting: Vec<_> = core.resting().map(|(num, _)| *num).collect();
        resting.sort_by_key(|num| num.id);
        assert_eq!(
            resting,
            self.servers(|place| matches!(place, Place::Resting(..)))
        );
        assert_eq!(resting.len(), core.idle() + core.used());
        assert!(resting.iter().all(|num| num.epoch == core.epoch()));
        assert!(!self.paused || resting.is_empty(), "rests in a paused pool");
        let waits = core.waiting() > 0 && !self.paused;
        assert!(!waits || core.idle() == 0, "waits beside a ready server");
        assert!(
            core.waiting() <= core.testing() || core.used() == 0 || self.paused,
            "waits beside a server that could be tested"
        );
        let under_way = self.dialing + core.testing();
        let wanted = match self.paused {
            true => 0,
            false => core.waiting().saturating_sub(under_way),
        };
        assert_eq!(core.wanted(), wanted);
        assert_eq!(core.oldest_wait().is_some(), core.waiting() > 0);
    }

    /// Everybody goes home.
    fn finish(mut self) {
        self.apply_rare(Step::Pause(false));
        while !self.waiters.is_empty() {
            self.apply(Step::Leave(0));
        }
        for _ in 0..self.places.len() {
            self.apply(Step::Checkin(0, Wear::Unworn));
            self.apply(Step::Tested(0, Wear::Unworn));
        }
        while self.dialing > 0 {
            self.apply(Step::Dialed);
        }
        self.check();
        self.apply_rare(Step::Drain);
        assert!(self.places.is_empty(), "lost servers");
        let core = &self.core;
        let counts = core.lent() + core.testing() + core.dialing() + core.idle() + core.used();
        assert_eq!(counts + core.waiting(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever happens: all counts are exact, nobody waits beside a server of use, and every server is in exactly one place.
    #[test]
    fn nobody_waits_beside_a_server_and_none_is_lost(
        rules in rules(),
        round_robin in any::<bool>(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut model = Model::new(CoreRules { round_robin, ..rules });
        for step in steps {
            model.apply(step);
            model.pump();
            model.check();
        }
        model.finish();
    }
}

fn server(id: u32, born: Instant) -> Num {
    Num { id, born, epoch: 0 }
}

/// A core that shares its turn with no other.
fn lone(rules: CoreRules) -> Core {
    PoolCore::new(rules, 0, false, Arc::new(Turn::new(Instant::now())))
}

/// A core whose servers with these numbers have come to rest one second after another.
fn rested(rules: CoreRules, ids: &[u32], start: Instant) -> Core {
    let mut core = lone(rules);
    for (second, id) in (0..).zip(ids) {
        let at = start + secs(second);
        core.dial_began();
        assert_eq!(core.dialed(server(*id, start), at), Placed::Resting);
    }
    core
}

#[test]
fn check_delay_zero_tests_even_when_somebody_waits() {
    let now = Instant::now();
    let rules = CoreRules {
        check_delay: Duration::ZERO,
        ..RULES
    };
    let mut core = rested(rules, &[1], now);
    let Checkout::Granted(first) = core.checkout(10, now) else {
        panic!("nothing was ready")
    };
    assert_eq!(core.checkout(11, now), Checkout::Queued);
    assert_eq!(core.checkin(first, now, Wear::Worn), Placed::Resting);
    assert_eq!(core.next_test(), Some(first));
    assert_eq!(
        core.tested(first, now, Wear::Unworn),
        Placed::Handed(11, first)
    );
}

#[test]
fn a_single_use_server_is_closed_after_its_cleaning_too() {
    let now = Instant::now();
    let rules = CoreRules {
        lifetime: Duration::ZERO,
        lifetime_spacing: Duration::ZERO,
        ..RULES
    };
    let mut core = rested(rules, &[1], now);
    let Checkout::Granted(first) = core.checkout(10, now) else {
        panic!("a new server serves once")
    };
    core.lent_to_test();
    assert_eq!(
        core.tested(first, now, Wear::Cleaned),
        Placed::Close(first, Reason::Lifetime)
    );
}

#[test]
fn the_longest_resting_goes_first_in_round_robin_too() {
    let start = Instant::now();
    for round_robin in [false, true] {
        let mut core = rested(
            CoreRules {
                round_robin,
                ..RULES
            },
            &[1, 2, 3],
            start,
        );
        assert_eq!(core.longest_rest(), Some(start));
        assert_eq!(core.give_up().map(|num| num.id), Some(1));
        assert_eq!(core.give_up().map(|num| num.id), Some(2));
    }
}

#[test]
fn of_servers_to_be_tested_the_last_used_is_first() {
    let start = Instant::now();
    let mut core = rested(RULES, &[1, 2, 3], start);
    // 1 and 2 become `used` first, 3 in a later tick.
    assert!(core.tick(start + secs(31), |_| true).is_empty());
    assert!(core.tick(start + secs(33), |_| true).is_empty());
    assert_eq!((core.idle(), core.used()), (0, 3));
    assert_eq!(core.give_up().map(|num| num.id), Some(1));
    core.checkout(10, start);
    core.checkout(11, start);
    assert_eq!(core.next_test().map(|num| num.id), Some(3));
    assert_eq!(core.next_test().map(|num| num.id), Some(2));
}

#[test]
fn a_test_is_begun_even_while_a_connection_is_opened() {
    let start = Instant::now();
    let mut core = rested(RULES, &[1], start);
    core.tick(start + secs(31), |_| true);
    core.dial_began();
    core.checkout(10, start);
    assert_eq!((core.wanted(), core.is_short()), (0, true));
    assert_eq!(core.next_test().map(|num| num.id), Some(1));
}

#[test]
fn closings_for_age_are_spaced_with_those_of_other_shards() {
    let start = Instant::now();
    let mut core = rested(RULES, &[1, 2, 3], start);
    let old = start + secs(3600);
    assert!(core.closings.take(old - secs(100), RULES.lifetime_spacing));
    assert!(core.tick(old, |_| false).is_empty());
    assert_eq!(core.tick(old + secs(80), |_| false).len(), 1);
    assert!(core.tick(old + secs(90), |_| false).is_empty());
    // At the very same time it is one shard's turn.
    let mut other = rested(RULES, &[4], start);
    other.closings = core.closings.clone();
    let closed = [&mut core, &mut other].map(|core| core.tick(old + secs(300), |_| false).len());
    assert_eq!(closed, [1, 0]);
}
