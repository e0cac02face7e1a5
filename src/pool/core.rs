//! Who gets which server, and when: one worker's shard of a pool, pure.
//!
//! It is told events and the time, and answers with what to do. It holds the servers that are at rest and the queue of waiting
//! clients; servers on loan it only counts. How a server is reached, tested or closed is not known here, nor how many the
//! whole process may have: before a connection is opened, [`super::budget`] is asked.
//!
//! After every event: nobody waits while a server rests that it may use, and what was lent comes back exactly once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What the core must know about a server.
pub trait Member {
    /// When it was connected.
    fn born(&self) -> Instant;
    /// Which generation of the pool's settings it was connected under; an older one is closed when it comes free.
    fn epoch(&self) -> u64;
}

/// The settings that decide here. Durations of zero have PgBouncer's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreRules {
    /// `server_round_robin`: use the server that rested longest, instead of the one used last.
    pub round_robin: bool,
    /// `server_lifetime`; zero: every connection is used once.
    pub lifetime: Duration,
    /// Time between two closings for age: `server_lifetime` / `pool_size`.
    pub lifetime_spacing: Duration,
    /// `server_idle_timeout`; zero: never.
    pub idle_timeout: Duration,
    /// `server_check_delay`: after resting that long a server is tested before use.
    pub check_delay: Duration,
    /// A check query is configured.
    pub checks: bool,
}

/// Why a resting server is closed, in PgBouncer's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// `server_lifetime` is over.
    Lifetime,
    /// `server_idle_timeout` is over.
    IdleTimeout,
    /// The settings it was connected under have changed, or RECONNECT.
    Stale,
    /// The pool is paused.
    Pause,
    /// Another pool of the same database or user needs the connection.
    Evicted,
    /// The pool has more connections than it may have.
    TooMany,
    /// The pool is no more.
    Dropped,
}

impl Reason {
    /// As the log says it.
    pub fn text(self) -> &'static str {
        match self {
            Reason::Lifetime => "server lifetime over",
            Reason::IdleTimeout => "server idle timeout",
            Reason::Stale => "database configuration changed",
            Reason::Pause => "pause mode",
            Reason::Evicted => "evicted",
            Reason::TooMany => "too many servers in the pool",
            Reason::Dropped => "database removed",
        }
    }
}

/// What becomes of a server that has come free.
#[derive(Debug, PartialEq, Eq)]
pub enum Placed<S, W> {
    /// It goes to the client that has waited longest.
    Handed(W, S),
    /// It rests here.
    Resting,
    /// It has to be closed.
    Close(S, Reason),
}

/// The answer to a client that needs a server.
#[derive(Debug, PartialEq, Eq)]
pub enum Checkout<S> {
    /// Here it is.
    Granted(S),
    /// The client stands in the queue.
    Queued,
}

#[derive(Debug)]
struct Resting<S> {
    server: S,
    since: Instant,
}

#[derive(Debug)]
struct Waiter<W> {
    who: W,
    since: Instant,
}

/// One worker's shard of a pool. `S` is a server, `W` names a client.
#[derive(Debug)]
pub struct PoolCore<S, W> {
    rules: CoreRules,
    /// Servers ready for use; the next one to be used is at the front.
    idle: VecDeque<Resting<S>>,
    /// Servers that have to be tested before use.
    used: VecDeque<Resting<S>>,
    waiters: VecDeque<Waiter<W>>,
    lent: usize,
    testing: usize,
    dialing: usize,
    paused: bool,
    epoch: u64,
    last_lifetime_close: Option<Instant>,
}

impl<S: Member, W: PartialEq> PoolCore<S, W> {
    /// An empty shard.
    pub fn new(rules: CoreRules, epoch: u64, paused: bool) -> Self {
        PoolCore {
            rules,
            idle: VecDeque::new(),
            used: VecDeque::new(),
            waiters: VecDeque::new(),
            lent: 0,
            testing: 0,
            dialing: 0,
            paused,
            epoch,
            last_lifetime_close: None,
        }
    }

    /// Applies changed settings.
    pub fn set_rules(&mut self, rules: CoreRules) {
        self.rules = rules;
    }

    /// Servers on loan to clients.
    pub fn lent(&self) -> usize {
        self.lent
    }

    /// Servers that run a check or reset query.
    pub fn testing(&self) -> usize {
        self.testing
    }

    /// Connections being opened.
    pub fn dialing(&self) -> usize {
        self.dialing
    }

    /// Servers ready for use.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Servers that have to be tested before use.
    pub fn used(&self) -> usize {
        self.used.len()
    }

    /// Clients in the queue.
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Nothing is paused here, or nothing is on loan and nothing is being tested any more.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// When the oldest waiting client began to wait.
    pub fn oldest_wait(&self) -> Option<Instant> {
        Some(self.waiters.front()?.since)
    }

    /// The waiting clients, in order.
    pub fn waiters(&self) -> impl Iterator<Item = &W> {
        self.waiters.iter().map(|waiter| &waiter.who)
    }

    /// The generation that servers have to be of.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A client needs a server. Whoever waits already comes first.
    pub fn checkout(&mut self, who: W, now: Instant) -> Checkout<S> {
        if self.waiters.is_empty()
            && let Some(server) = self.take_idle()
        {
            self.lent += 1;
            return Checkout::Granted(server);
        }
        self.waiters.push_back(Waiter { who, since: now });
        Checkout::Queued
    }

    fn take_idle(&mut self) -> Option<S> {
        if self.paused {
            return None;
        }
        Some(self.idle.pop_front()?.server)
    }

    /// A client does not wait any more; false if it didn't.
    pub fn leave(&mut self, who: &W) -> bool {
        let at = self.waiters.iter().position(|waiter| waiter.who == *who);
        at.and_then(|at| self.waiters.remove(at)).is_some()
    }

    /// The client that has waited longest, taken out of the queue.
    pub fn dismiss(&mut self) -> Option<W> {
        Some(self.waiters.pop_front()?.who)
    }

    /// A server on loan comes back fit for use.
    pub fn checkin(&mut self, server: S, now: Instant) -> Placed<S, W> {
        self.lent -= 1;
        self.place(server, now, true)
    }

    /// A server that was never here is on loan at once: one that a client has to itself.
    pub fn lend_new(&mut self) {
        self.lent += 1;
    }

    /// A server on loan will not come back: it is closed, or goes to another shard.
    pub fn forget_lent(&mut self) {
        self.lent -= 1;
    }

    /// A server on loan, or a resting one, is going to run a check or reset query.
    pub fn lent_to_test(&mut self) {
        self.lent -= 1;
        self.testing += 1;
    }

    /// A tested server turns out fit for use.
    pub fn tested(&mut self, server: S, now: Instant) -> Placed<S, W> {
        self.testing -= 1;
        self.place(server, now, false)
    }

    /// A tested server will not come back.
    pub fn forget_tested(&mut self) {
        self.testing -= 1;
    }

    /// A connection is being opened.
    pub fn dial_began(&mut self) {
        self.dialing += 1;
    }

    /// The connection is there.
    pub fn dialed(&mut self, server: S, now: Instant) -> Placed<S, W> {
        self.dialing -= 1;
        self.place(server, now, false)
    }

    /// The connection could not be opened.
    pub fn dial_failed(&mut self) {
        self.dialing -= 1;
    }

    /// A server comes from another shard, or has been kept back and is free now.
    pub fn receive(&mut self, server: S, now: Instant) -> Placed<S, W> {
        self.place(server, now, false)
    }

    fn place(&mut self, server: S, now: Instant, worn: bool) -> Placed<S, W> {
        if let Some(reason) = self.unfit(&server, now, worn) {
            return Placed::Close(server, reason);
        }
        if let Some(waiter) = self.waiters.pop_front() {
            self.lent += 1;
            return Placed::Handed(waiter.who, server);
        }
        let resting = Resting { server, since: now };
        if self.rules.checks && self.rules.check_delay.is_zero() && worn {
            self.used.push_front(resting);
        } else if self.rules.round_robin {
            self.idle.push_back(resting);
        } else {
            self.idle.push_front(resting);
        }
        Placed::Resting
    }

    fn unfit(&mut self, server: &S, now: Instant, worn: bool) -> Option<Reason> {
        if server.epoch() != self.epoch {
            return Some(Reason::Stale);
        }
        if self.paused {
            return Some(Reason::Pause);
        }
        // A new connection serves at least once, however short the lifetime is.
        (worn && self.outlived(server, now)).then_some(Reason::Lifetime)
    }

    /// Over its lifetime; the closings are spaced so that not all servers go at once.
    fn outlived(&mut self, server: &S, now: Instant) -> bool {
        if now.duration_since(server.born()) < self.rules.lifetime {
            return false;
        }
        let spaced = self
            .last_lifetime_close
            .is_none_or(|last| now.duration_since(last) >= self.rules.lifetime_spacing);
        if spaced {
            self.last_lifetime_close = Some(now);
        }
        spaced
    }

    /// How many more connections would help: waiting clients for whom nothing is under way yet.
    pub fn wanted(&self) -> usize {
        if self.paused {
            return 0;
        }
        self.waiters
            .len()
            .saturating_sub(self.dialing + self.testing)
    }

    /// A server that has to be tested because a client waits for it; it counts as being tested from now on.
    pub fn next_test(&mut self) -> Option<S> {
        if self.wanted() == 0 {
            return None;
        }
        let resting = self.used.pop_front()?;
        self.testing += 1;
        Some(resting.server)
    }

    /// A resting server that another shard, or nobody, shall have: the one that has rested longest. Not while clients wait here.
    pub fn give_up(&mut self) -> Option<S> {
        if !self.waiters.is_empty() {
            return None;
        }
        let idle_first = match (self.idle.back(), self.used.back()) {
            (Some(idle), Some(used)) => idle.since <= used.since,
            (idle, _) => idle.is_some(),
        };
        let resting = if idle_first {
            self.idle.pop_back()
        } else {
            self.used.pop_back()
        };
        resting.map(|resting| resting.server)
    }

    /// A ready server for another shard: unlike [`PoolCore::give_up`] the one that was used last, and never an untested one.
    pub fn lend(&mut self) -> Option<S> {
        if self.waiters.is_empty() {
            self.take_idle()
        } else {
            None
        }
    }

    /// Since when the server that [`PoolCore::give_up`] would give has rested.
    pub fn longest_rest(&self) -> Option<Instant> {
        let (idle, used) = (self.idle.back(), self.used.back());
        idle.into_iter()
            .chain(used)
            .map(|resting| resting.since)
            .min()
    }

    /// The settings that servers are connected with have changed: every server of before is closed, resting ones now.
    pub fn renew(&mut self, epoch: u64) -> Vec<S> {
        self.epoch = epoch;
        self.drain_resting()
    }

    /// Pauses or resumes; the servers to be closed.
    pub fn pause(&mut self, paused: bool) -> Vec<S> {
        self.paused = paused;
        if paused {
            self.drain_resting()
        } else {
            Vec::new()
        }
    }

    /// Every resting server, and whether it has to be tested before use.
    pub fn resting(&self) -> impl Iterator<Item = (&S, bool)> {
        let idle = self.idle.iter().map(|resting| (&resting.server, false));
        idle.chain(self.used.iter().map(|resting| (&resting.server, true)))
    }

    /// Every resting server, taken out.
    pub fn drain_resting(&mut self) -> Vec<S> {
        let (idle, used) = (self.idle.drain(..), self.used.drain(..));
        idle.chain(used).map(|resting| resting.server).collect()
    }

    /// Removes resting servers that `bad` finds to be dead.
    pub fn remove_resting(&mut self, mut bad: impl FnMut(&mut S) -> bool) -> Vec<S> {
        let mut removed = Vec::new();
        for list in [&mut self.idle, &mut self.used] {
            for _ in 0..list.len() {
                let Some(mut resting) = list.pop_front() else {
                    break;
                };
                if bad(&mut resting.server) {
                    removed.push(resting.server);
                } else {
                    list.push_back(resting);
                }
            }
        }
        removed
    }

    /// Time passes: servers to be closed for age or idleness (at most `spare` for idleness), and others become `used`.
    pub fn tick(&mut self, now: Instant, mut spare: usize) -> Vec<(S, Reason)> {
        let mut closing = Vec::new();
        for from_used in [true, false] {
            let list = std::mem::take(if from_used {
                &mut self.used
            } else {
                &mut self.idle
            });
            for resting in list {
                match self.judge(&resting, now, &mut spare) {
                    Some(reason) => closing.push((resting.server, reason)),
                    None if from_used || self.needs_test(&resting, now) => {
                        self.used.push_back(resting)
                    }
                    None => self.idle.push_back(resting),
                }
            }
        }
        closing
    }

    fn judge(&mut self, resting: &Resting<S>, now: Instant, spare: &mut usize) -> Option<Reason> {
        let timeout = self.rules.idle_timeout;
        if !timeout.is_zero() && *spare > 0 && now.duration_since(resting.since) >= timeout {
            *spare -= 1;
            return Some(Reason::IdleTimeout);
        }
        self.outlived(&resting.server, now)
            .then_some(Reason::Lifetime)
    }

    fn needs_test(&self, resting: &Resting<S>, now: Instant) -> bool {
        self.rules.checks && now.duration_since(resting.since) >= self.rules.check_delay
    }
}
