//! Who gets which server, and when: one worker's shard of a pool, pure.
//!
//! It is told events and the time, and answers with what to do. It holds the servers that are at rest and the queue of waiting
//! clients; servers on loan it only counts. How a server is reached, tested or closed is not known here, nor how many the
//! whole process may have: before a connection is opened, [`super::budget`] is asked. All that shards share here is the [`Turn`] to
//! close a server for its age.
//!
//! After every event: nobody waits while a server rests that it may use, and what was lent comes back exactly once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::turn::Turn;

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

/// What a server that has come free was used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wear {
    /// Nothing yet, or nothing since it was judged last: a new connection serves at least once, however short its lifetime is.
    Unworn,
    /// A client has used it.
    Worn,
    /// A client has used it, and queries of the pooler's own have cleaned it since: it has given a sign of life.
    Cleaned,
}

/// What becomes of a server that has come free.
#[derive(Debug, PartialEq, Eq)]
pub enum Placed<S, W> {
    /// It goes to the client that has waited longest.
    Handed(W, S),
    /// It rests here. Clients may wait nevertheless, if it has to be tested first: see [`PoolCore::next_test`].
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
    /// Whose turn it is to close a server for its age, among all shards of the pool.
    closings: Arc<Turn>,
}

impl<S: Member, W: PartialEq> PoolCore<S, W> {
    /// An empty shard. All shards of a pool take the same turn for their `closings`.
    pub fn new(rules: CoreRules, epoch: u64, paused: bool, closings: Arc<Turn>) -> Self {
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
            closings,
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

    /// The pool is paused: nobody gets a server.
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

    /// The waiting clients, in order, and since when each has waited.
    pub fn queue_of(&self) -> impl Iterator<Item = (&W, Instant)> {
        let waiters = self.waiters.iter();
        waiters.map(|waiter| (&waiter.who, waiter.since))
    }

    /// The generation that servers have to be of.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A client needs a server. Whoever waits already comes first.
    pub fn checkout(&mut self, who: W, now: Instant) -> Checkout<S> {
        match self.grant() {
            Some(server) => Checkout::Granted(server),
            None => {
                self.queue(who, now);
                Checkout::Queued
            }
        }
    }

    /// The first half of [`PoolCore::checkout`]: a server, if one can be had at once.
    #[inline]
    pub fn grant(&mut self) -> Option<S> {
        if !self.waiters.is_empty() {
            return None;
        }
        let server = self.take_idle()?;
        self.lent += 1;
        Some(server)
    }

    /// The second half of [`PoolCore::checkout`]: [`PoolCore::grant`] has had nothing to give, so the client has to wait.
    pub fn queue(&mut self, who: W, now: Instant) {
        self.waiters.push_back(Waiter { who, since: now });
    }

    #[inline]
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
    pub fn checkin(&mut self, server: S, now: Instant, wear: Wear) -> Placed<S, W> {
        self.lent -= 1;
        self.place(server, now, wear)
    }

    /// A server that was not here is on loan at once: one that a client has to itself, or that was held back.
    pub fn lend_new(&mut self) {
        self.lent += 1;
    }

    /// A server on loan will not come back: it is closed, or goes to another shard.
    pub fn forget_lent(&mut self) {
        self.lent -= 1;
    }

    /// A server on loan is going to run a reset query.
    pub fn lent_to_test(&mut self) {
        self.lent -= 1;
        self.testing += 1;
    }

    /// A tested server turns out fit for use.
    pub fn tested(&mut self, server: S, now: Instant, wear: Wear) -> Placed<S, W> {
        self.testing -= 1;
        self.place(server, now, wear)
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
        self.place(server, now, Wear::Unworn)
    }

    /// The connection could not be opened.
    pub fn dial_failed(&mut self) {
        self.dialing -= 1;
    }

    /// A server comes from another shard, where it was found fit.
    pub fn receive(&mut self, server: S, now: Instant) -> Placed<S, W> {
        self.place(server, now, Wear::Unworn)
    }

    #[inline]
    fn place(&mut self, server: S, now: Instant, wear: Wear) -> Placed<S, W> {
        if let Some(reason) = self.unfit(&server, now, wear) {
            return Placed::Close(server, reason);
        }
        let resting = Resting { server, since: now };
        if self.tests_always(wear) {
            // A client that waits doesn't get it yet.
            self.used.push_front(resting);
            return Placed::Resting;
        }
        if let Some(waiter) = self.waiters.pop_front() {
            self.lent += 1;
            return Placed::Handed(waiter.who, resting.server);
        }
        if self.rules.round_robin {
            self.idle.push_back(resting);
        } else {
            self.idle.push_front(resting);
        }
        Placed::Resting
    }

    fn unfit(&self, server: &S, now: Instant, wear: Wear) -> Option<Reason> {
        if server.epoch() != self.epoch {
            return Some(Reason::Stale);
        }
        if self.paused {
            return Some(Reason::Pause);
        }
        (wear != Wear::Unworn && self.outlived(server, now)).then_some(Reason::Lifetime)
    }

    /// Over its lifetime, and its turn to be closed for that.
    fn outlived(&self, server: &S, now: Instant) -> bool {
        self.is_old(server, now) && self.closings.take(now, self.rules.lifetime_spacing)
    }

    /// Over its lifetime; the closings are spaced so that not all servers go at once.
    fn is_due(&self, server: &S, now: Instant) -> bool {
        self.is_old(server, now) && self.closings.is_free(now, self.rules.lifetime_spacing)
    }

    /// Over its lifetime. (Asked for every transaction: an addition costs less than a difference.)
    #[inline]
    pub fn is_old(&self, server: &S, now: Instant) -> bool {
        let end = server.born().checked_add(self.rules.lifetime);
        end.is_some_and(|end| now >= end)
    }

    /// A server that has come free could serve a client of another shard as it is: it has not to be closed or tested first.
    pub fn may_travel(&self, server: &S, now: Instant, wear: Wear) -> bool {
        let stays = server.epoch() != self.epoch
            || self.paused
            || wear != Wear::Unworn && self.is_due(server, now)
            || self.tests_always(wear);
        !stays
    }

    /// `server_check_delay` is zero: what a client has used is tested before the next one gets it.
    fn tests_always(&self, wear: Wear) -> bool {
        wear == Wear::Worn && self.rules.checks && self.rules.check_delay.is_zero()
    }

    /// How many more connections would help, as far as this shard knows: waiting clients for whom nothing is under way here yet.
    pub fn wanted(&self) -> usize {
        self.balance().min(0).unsigned_abs()
    }

    /// Servers that are on their way here (being opened, or tested) less the clients that wait. Above zero there are some to spare.
    #[inline]
    pub fn balance(&self) -> isize {
        if self.paused {
            return 0;
        }
        (self.dialing + self.testing) as isize - self.waiters.len() as isize
    }

    /// Somebody waits for whom a server that is at hand would be of use, even if a connection is being opened already.
    #[inline]
    pub fn is_short(&self) -> bool {
        !self.paused && self.waiters.len() > self.testing
    }

    /// A server that has to be tested because a client waits for it; it counts as being tested from now on.
    pub fn next_test(&mut self) -> Option<S> {
        if self.is_short() {
            self.lend_for_test()
        } else {
            None
        }
    }

    /// As [`PoolCore::next_test`], for a client of another shard.
    pub fn lend_for_test(&mut self) -> Option<S> {
        let resting = self.used.pop_front()?;
        self.testing += 1;
        Some(resting.server)
    }

    /// A resting server that nobody shall have any more: the one that has rested longest. Not while clients wait here.
    pub fn give_up(&mut self) -> Option<S> {
        self.give_up_if(|_| true)
    }

    /// As [`PoolCore::give_up`], if `may` agrees.
    pub fn give_up_if(&mut self, may: impl FnOnce(&mut S) -> bool) -> Option<S> {
        if !self.waiters.is_empty() {
            return None;
        }
        let (oldest, of_used) = match (oldest(&self.idle), oldest(&self.used)) {
            (Some(idle), Some(used)) if used.0 < idle.0 => (used, true),
            (None, Some(used)) => (used, true),
            (idle, _) => (idle?, false),
        };
        let list = if of_used {
            &mut self.used
        } else {
            &mut self.idle
        };
        if !may(&mut list[oldest.1].server) {
            return None;
        }
        Some(list.remove(oldest.1)?.server)
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
        if !self.waiters.is_empty() {
            return None;
        }
        let all = self.idle.iter().chain(&self.used);
        all.map(|resting| resting.since).min()
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

    /// Time passes: servers to be closed for age or idleness (those for idleness only if `spare` agrees), and others become `used`.
    pub fn tick(
        &mut self,
        now: Instant,
        mut spare: impl FnMut(&mut S) -> bool,
    ) -> Vec<(S, Reason)> {
        let mut closing = Vec::new();
        let (idle, used) = (
            std::mem::take(&mut self.idle),
            std::mem::take(&mut self.used),
        );
        // What has just become `used` rested last, and so stands before what was `used` already.
        let marked = idle.into_iter().map(|resting| (resting, false));
        for (mut resting, was_used) in marked.chain(used.into_iter().map(|resting| (resting, true)))
        {
            match self.judge(&mut resting, now, &mut spare) {
                Some(reason) => closing.push((resting.server, reason)),
                None if was_used || self.needs_test(&resting, now) => self.used.push_back(resting),
                None => self.idle.push_back(resting),
            }
        }
        closing
    }

    fn judge(
        &self,
        resting: &mut Resting<S>,
        now: Instant,
        spare: &mut impl FnMut(&mut S) -> bool,
    ) -> Option<Reason> {
        let timeout = self.rules.idle_timeout;
        let timed_out = !timeout.is_zero() && now.duration_since(resting.since) >= timeout;
        if timed_out && spare(&mut resting.server) {
            return Some(Reason::IdleTimeout);
        }
        self.outlived(&resting.server, now)
            .then_some(Reason::Lifetime)
    }

    fn needs_test(&self, resting: &Resting<S>, now: Instant) -> bool {
        self.rules.checks && now.duration_since(resting.since) >= self.rules.check_delay
    }
}

/// Of these servers the one that has rested longest: since when, and its place. Whatever the order of use, and even if that has
/// changed meanwhile.
fn oldest<S>(list: &VecDeque<Resting<S>>) -> Option<(Instant, usize)> {
    let times = list
        .iter()
        .enumerate()
        .map(|(at, resting)| (resting.since, at));
    times.min()
}

#[cfg(test)]
mod tests;
