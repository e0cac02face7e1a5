//! One worker's part of a pool: the [`PoolCore`] with real servers in it.
//!
//! The core decides; this folder does what it says. Here servers are handed out and come home; [`dial`] opens connections within
//! the budget, [`trade`] sends servers to the shards of other workers, [`clean`] tests and resets them, [`dedicated`] is about those
//! that one client has to itself, [`care`] about time and the operator. Everything happens on the worker's thread; no borrow of the
//! core is held while a client is woken or a message is sent.

mod care;
mod clean;
mod dedicated;
mod dial;
#[cfg(test)]
mod tests;
mod trade;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Instant, SystemTime};

use self::dedicated::Dedicated;
use super::budget::{Attempt, Denied, Journey, PoolShare, Slot};
use super::core::{CoreRules, Placed, PoolCore, Reason, Wear};
use super::lease::{Lease, Pooled};
use super::recipe::Recipe;
use super::ticket::{Grant, Ticket};
use super::why::Standing;
use crate::config::{PoolMode, PoolSettings};
use crate::error::ClientError;
use crate::metrics::{
    ErrorCounts, ErrorKind, PinReason, PoolGauges, PoolMeasures, Stats, Trades, WaitReason,
};
use crate::net::dial::Target;
use crate::server::conn::{ParamSpace, ServerCard, ServerState, TravelingServer};
use crate::server::connect::{ConnectError, Fresh};
use crate::types::{ConnId, LocalTask, PoolKey, WorkerId};

pub use self::clean::CLEAN_TIMEOUT;
pub use self::dedicated::EVICTED_FOR_POOL_SIZE;
pub use self::dial::{ABANDONED_CANCELS_MAX, DIALS_MAX};
pub use self::trade::TRADE_SLACK;

/// Why a server is closed that was found to be dead.
const DEAD: &str = "server conn crashed?";

/// A message between the shards of one pool, or from a connection attempt.
pub enum PoolMail {
    /// A connection attempt has ended.
    Dialed(Box<Dialed>),
    /// A server from another worker.
    Gift(PoolKey, Box<TravelingServer>, Slot, Journey),
    /// Another worker has waiting clients and no server: it would like one that rests.
    Ask(PoolKey, WorkerId),
    /// Look after those who wait: a limit has room again, connecting has succeeded, or a server that was counted on does not come.
    Retry,
    /// A connection was refused because of this limit: close a resting server that counts against it. Begun by this worker.
    MakeRoom(PoolKey, Denied, WorkerId),
    /// A login failed in a way that waiting clients are told.
    LoginFailed(PoolKey, ClientError),
    /// A cancel request aimed at this server is finished.
    CancelDone(PoolKey, ConnId),
}

/// The end of a connection attempt.
pub struct Dialed {
    /// The pool that it was for.
    pub key: PoolKey,
    /// Number of the connection.
    pub id: ConnId,
    /// The generation that it was for.
    pub epoch: u64,
    /// The right to it.
    pub slot: Slot,
    /// Where it was connected to.
    pub target: Target,
    /// The attempt itself.
    pub attempt: Attempt,
    /// The client whose own server it is (replication).
    pub dedicated: Option<ConnId>,
    /// The connection, or why there is none.
    pub result: Result<Fresh, ConnectError>,
}

/// A connection that is being opened, as it is shown.
#[derive(Clone, Debug)]
pub struct Dialing {
    /// Where to.
    pub target: Target,
    /// Since when.
    pub since: SystemTime,
    /// The same, for measuring.
    pub begun: Instant,
    /// The client whose own server it will be (replication).
    pub dedicated: Option<ConnId>,
}

/// Sends a message to a worker.
pub type Post = Arc<dyn Fn(WorkerId, PoolMail) + Send + Sync>;

/// What a shard needs from its surroundings.
pub struct Surroundings {
    /// The worker that it belongs to.
    pub worker: WorkerId,
    /// How many workers there are.
    pub workers: usize,
    /// The way to other workers.
    pub post: Post,
    /// The runtime on which logins run.
    pub logins: tokio::runtime::Handle,
    /// What goes wrong is counted there.
    pub errors: Arc<ErrorCounts>,
    /// Tracked parameters.
    pub space: Rc<ParamSpace>,
    /// What shards of this worker that are no more had counted.
    pub gone: Cell<(Stats, Trades)>,
    /// Starts a task on this worker.
    pub spawn: Box<dyn Fn(LocalTask)>,
    /// The prefix of log lines about a client of this worker, if there is one with this number.
    pub who: Box<dyn Fn(ConnId) -> Option<String>>,
}

/// What every link of a client with a server depends on: of the settings, the few that each transaction asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkRules {
    /// When a server goes back to the pool.
    pub pool_mode: PoolMode,
    /// `max_prepared_statements`
    pub max_prepared: usize,
    /// A server is cleaned after every use: `server_reset_query_always`, and there is such a query.
    pub cleans_always: bool,
}

impl LinkRules {
    fn of(settings: &PoolSettings) -> LinkRules {
        LinkRules {
            pool_mode: settings.pool_mode,
            max_prepared: settings.max_prepared_statements as usize,
            cleans_always: settings.server_reset_query_always
                && settings.server_reset_query.is_some(),
        }
    }
}

/// One worker's part of a pool.
pub struct Shard {
    share: Arc<PoolShare>,
    settings: RefCell<Rc<PoolSettings>>,
    link_rules: Cell<LinkRules>,
    recipe: RefCell<Rc<Recipe>>,
    core: RefCell<PoolCore<Box<Pooled>, Rc<Ticket>>>,
    cards: RefCell<Vec<Rc<ServerCard>>>,
    /// Connections that are being opened.
    dials: RefCell<HashMap<ConnId, Dialing>>,
    /// Servers that are free but held back until the cancel requests aimed at them are finished.
    held_back: RefCell<Vec<HeldBack>>,
    stats: Cell<Stats>,
    gauges: PoolGauges,
    around: Rc<Surroundings>,
    /// Clients of this worker that belong to the pool.
    pub clients: Cell<usize>,
    /// Cancel requests being delivered.
    pub cancels: Cell<usize>,
    /// Clients that wait for a server of their own, or have not read its greeting yet.
    dedicated: RefCell<HashMap<ConnId, Dedicated>>,
}

/// A server that may not be used before the cancel requests aimed at it are finished: they could hit the wrong query.
struct HeldBack {
    pooled: Box<Pooled>,
    wear: Wear,
    /// To be run on it before its next use.
    queries: Vec<Vec<u8>>,
}

/// How a server comes home: it decides which count it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Lent(Wear),
    Tested(Wear),
    Dialed,
    Received,
}

/// The others shall not count on what is no more.
impl Drop for Shard {
    fn drop(&mut self) {
        let worker = self.around.worker;
        self.share.show_resting(worker, 0);
        self.share.show_waiting(worker, None);
        self.share.show_balance(worker, 0);
        self.share.retire(&self.measures());
        let (mut stats, mut trades) = self.around.gone.get();
        stats += self.stats();
        trades += self.gauges.trades();
        self.around.gone.set((stats, trades));
    }
}

impl Shard {
    /// An empty shard.
    pub fn new(
        share: Arc<PoolShare>,
        settings: PoolSettings,
        recipe: Recipe,
        around: Rc<Surroundings>,
        paused: bool,
    ) -> Rc<Shard> {
        let core = PoolCore::new(
            core_rules(&settings),
            share.epoch(),
            paused,
            share.closings.clone(),
        );
        Rc::new(Shard {
            share,
            link_rules: Cell::new(LinkRules::of(&settings)),
            settings: RefCell::new(Rc::new(settings)),
            recipe: RefCell::new(Rc::new(recipe)),
            core: RefCell::new(core),
            cards: RefCell::default(),
            dials: RefCell::default(),
            held_back: RefCell::default(),
            stats: Cell::default(),
            gauges: PoolGauges::default(),
            around,
            clients: Cell::new(0),
            cancels: Cell::new(0),
            dedicated: RefCell::default(),
        })
    }

    /// The pool's name.
    pub fn key(&self) -> &PoolKey {
        &self.share.key
    }

    /// What all workers share of the pool.
    pub fn share(&self) -> &Arc<PoolShare> {
        &self.share
    }

    /// The settings in force.
    pub fn settings(&self) -> Rc<PoolSettings> {
        self.settings.borrow().clone()
    }

    /// The settings in force that every link of a client with a server depends on.
    #[inline]
    pub fn link_rules(&self) -> LinkRules {
        self.link_rules.get()
    }

    /// How servers are connected.
    pub fn recipe(&self) -> Rc<Recipe> {
        self.recipe.borrow().clone()
    }

    /// The tracked parameters.
    pub fn space(&self) -> &Rc<ParamSpace> {
        &self.around.space
    }

    /// Counts something. The change should be known already: what is worked out meanwhile keeps the counts from being changed in
    /// place.
    #[inline]
    pub fn count(&self, change: impl FnOnce(&mut Stats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        self.stats.get()
    }

    /// What is measured besides.
    #[inline]
    pub fn gauges(&self) -> &PoolGauges {
        &self.gauges
    }

    /// What was measured here of the pool.
    pub fn measures(&self) -> PoolMeasures {
        let mut measures = PoolMeasures {
            stats: self.stats(),
            ..PoolMeasures::of(self.key())
        };
        self.gauges.read(&mut measures);
        measures
    }
}

// Getting a server.
impl Shard {
    /// A client needs a server: it gets one at once, or stands in the queue with its ticket.
    pub fn checkout(self: &Rc<Self>, ticket: &Rc<Ticket>, now: Instant) -> Option<Lease> {
        loop {
            let granted = self.core.borrow_mut().grant();
            let Some(mut pooled) = granted else {
                self.core.borrow_mut().queue(ticket.clone(), now);
                self.show();
                self.pump(now);
                let place = self.core.borrow().waiting().saturating_sub(1);
                self.gauges.wait_began(self.standing().reason(place));
                return None;
            };
            if self.is_sound(&mut pooled) {
                self.show();
                return Some(self.lease(pooled, ticket));
            }
            self.core.borrow_mut().forget_lent();
            self.close(pooled, DEAD);
        }
    }

    /// What a client is told that has come in vain: no server is there, logging in to one has failed, and
    /// `server_login_retry` has not passed yet.
    #[inline]
    pub fn failing(&self, now: Instant) -> Option<ClientError> {
        if self.share.attempts_fail() {
            self.failing_error(now)
        } else {
            None
        }
    }

    fn failing_error(&self, now: Instant) -> Option<ClientError> {
        let error = self
            .share
            .failing(now, self.settings.borrow().server_login_retry)?;
        Some(
            ClientError::with(format!(
                "server login has been failing, cached error: {error} (server_login_retry)"
            ))
            .as_kind(ErrorKind::ServerUnavailable),
        )
    }

    /// How the pool stands, for those who wait.
    pub fn standing(&self) -> Standing {
        let core = self.core.borrow();
        Standing {
            paused: core.is_paused(),
            failing: self.share.attempts_fail(),
            has_servers: self.share.has_servers(),
            full: self.share.full_limit(),
            coming: core.dialing() + core.testing(),
        }
    }

    /// Who waits in the queue, in order: who it is, if that is known, since when, and why.
    pub fn queue(&self) -> Vec<(Option<ConnId>, Instant, WaitReason)> {
        let standing = self.standing();
        let core = self.core.borrow();
        let waiters = core.queue_of().zip(0..);
        waiters
            .map(|((ticket, since), place)| (ticket.client(), since, standing.reason(place)))
            .collect()
    }

    /// A client does not wait any more.
    pub fn leave(&self, ticket: &Rc<Ticket>) {
        self.core.borrow_mut().leave(ticket);
        self.show();
    }

    /// False if a server can't be used: it has said so, or is gone. Usually it has said nothing.
    #[inline]
    fn is_sound(&self, pooled: &mut Pooled) -> bool {
        pooled.server.stream.is_silent() || self.absorbs(pooled)
    }

    /// Deals with what a server said while nobody listened; false if it can't be used. Not within tokio's budget for one turn of a
    /// task: once that is used up every socket seems to be silent, and a dead server alive.
    fn absorbs(&self, pooled: &mut Pooled) -> bool {
        let absorbed = async { pooled.server.absorb(self.space()).is_ok() };
        let unhurried = std::pin::pin!(tokio::task::unconstrained(absorbed));
        unhurried.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(true)
    }

    fn lease(self: &Rc<Self>, pooled: Box<Pooled>, ticket: &Ticket) -> Lease {
        pooled.server.card.state.set(ServerState::Active);
        let wear = if ticket.login.get() {
            Wear::Unworn
        } else {
            Wear::Worn
        };
        Lease::new(pooled, self.clone(), wear)
    }

    /// Does what can be done for the clients that wait: test servers, open connections, ask other workers.
    pub fn pump(self: &Rc<Self>, now: Instant) {
        self.test_wanted();
        self.pump_dedicated(now);
        self.open_wanted(now);
        self.ask();
    }

    fn test_wanted(self: &Rc<Self>) {
        loop {
            let next = self.core.borrow_mut().next_test();
            let Some(pooled) = next else { break };
            self.test(pooled);
        }
    }

    /// Disconnects everybody who waits.
    pub fn refuse_waiters(&self, error: &ClientError) {
        loop {
            let waiter = self.core.borrow_mut().dismiss();
            let Some(ticket) = waiter else { break };
            ticket.give(Grant::Refused(Box::new(error.clone())));
        }
        self.refuse_dedicated(error);
        self.show();
    }
}

// Giving a server back.
impl Shard {
    pub(super) fn checkin(self: &Rc<Self>, pooled: Box<Pooled>, now: Instant, wear: Wear) {
        if let Some(pooled) = self.come_free(pooled, Vec::new(), wear) {
            self.come_home(pooled, now, Way::Lent(wear));
        }
    }

    /// A server on loan is free; `None` if it is held back or had to be closed.
    fn come_free(
        self: &Rc<Self>,
        pooled: Box<Pooled>,
        queries: Vec<Vec<u8>>,
        wear: Wear,
    ) -> Option<Box<Pooled>> {
        let card = &pooled.server.card;
        card.linked.set(None);
        pooled.server.update_card();
        if card.cancels.get() > 0 {
            if self.link_rules().pool_mode != PoolMode::Session {
                self.gauges.pinned(PinReason::Cancel);
            }
            self.core.borrow_mut().forget_lent();
            card.state.set(ServerState::BeingCanceled);
            self.held_back.borrow_mut().push(HeldBack {
                pooled,
                wear,
                queries,
            });
            return None;
        }
        if card.close_needed.get() {
            self.close_lent(pooled, Reason::Stale.text());
            return None;
        }
        Some(pooled)
    }

    /// A server may be used again: by the client that has waited longest, here or elsewhere.
    fn come_home(self: &Rc<Self>, mut pooled: Box<Pooled>, now: Instant, way: Way) {
        if self.share.wants_room() {
            self.leave_count(way);
            self.close(pooled, EVICTED_FOR_POOL_SIZE);
            return self.pump(now);
        }
        // Whoever is handed a server must be able to use it.
        let awaited = self.core.borrow().waiting() > 0;
        if awaited && !self.is_sound(&mut pooled) {
            self.leave_count(way);
            self.close(pooled, DEAD);
            return self.pump(now);
        }
        let Some(pooled) = self.trade(pooled, now, way) else {
            return;
        };
        let mut core = self.core.borrow_mut();
        let placed = match way {
            Way::Lent(wear) => core.checkin(pooled, now, wear),
            Way::Tested(wear) => core.tested(pooled, now, wear),
            Way::Dialed => core.dialed(pooled, now),
            Way::Received => core.receive(pooled, now),
        };
        drop(core);
        self.settle(placed, now);
    }

    /// A server that was to come home this way will not.
    fn leave_count(&self, way: Way) {
        let mut core = self.core.borrow_mut();
        match way {
            Way::Lent(_) => core.forget_lent(),
            Way::Tested(_) => core.forget_tested(),
            Way::Dialed => core.dial_failed(),
            Way::Received => {}
        }
    }

    /// Does what the core has decided about a server.
    fn settle(self: &Rc<Self>, mut placed: Placed<Box<Pooled>, Rc<Ticket>>, now: Instant) {
        loop {
            match placed {
                // The session is gone without a word (it has panicked): nobody would ever give the server back.
                Placed::Handed(ticket, pooled) if Rc::strong_count(&ticket) == 1 => {
                    placed = self.core.borrow_mut().checkin(pooled, now, Wear::Unworn);
                }
                Placed::Handed(ticket, pooled) => {
                    self.show();
                    let lease = self.lease(pooled, &ticket);
                    return ticket.give(Grant::Server(lease));
                }
                Placed::Resting => return self.came_to_rest(now),
                Placed::Close(pooled, reason) => {
                    self.close(pooled, reason.text());
                    return self.pump(now);
                }
            }
        }
    }

    fn came_to_rest(self: &Rc<Self>, now: Instant) {
        self.show();
        if self.core.borrow().is_short() {
            self.pump(now); // it has to be tested first
        }
        self.pass_on();
        self.share.nudge();
    }

    /// A cancel request aimed at one of our servers is finished.
    pub fn cancel_done(self: &Rc<Self>, id: ConnId, now: Instant) {
        self.cancels.set(self.cancels.get().saturating_sub(1));
        let cards = self.cards.borrow();
        let Some(card) = cards.iter().find(|card| card.id == id) else {
            return; // the server is no more
        };
        card.cancels.set(card.cancels.get().saturating_sub(1));
        let finished = card.cancels.get() == 0;
        drop(cards);
        if !finished {
            return;
        }
        if let Some(held) = self.take_held_back(id) {
            self.core.borrow_mut().lend_new();
            if held.queries.is_empty() {
                self.checkin(held.pooled, now, held.wear);
            } else {
                Shard::clean(self, held.pooled, held.queries);
            }
        }
    }

    fn take_held_back(&self, id: ConnId) -> Option<HeldBack> {
        let mut held_back = self.held_back.borrow_mut();
        let at = held_back
            .iter()
            .position(|held| held.pooled.server.card.id == id)?;
        Some(held_back.swap_remove(at))
    }

    pub(super) fn close_lent(self: &Rc<Self>, pooled: Box<Pooled>, reason: &str) {
        self.core.borrow_mut().forget_lent();
        self.close(pooled, reason);
        self.pump(Instant::now());
    }

    fn close(&self, pooled: Box<Pooled>, reason: &str) {
        let Pooled { mut server, slot } = *pooled;
        if reason == DEAD {
            self.around.errors.count(ErrorKind::ServerLost);
        }
        let recipe = self.recipe();
        if recipe.log_disconnections {
            let age = server.born.elapsed().as_secs();
            let who = recipe.who(server.card.id, self.key(), &server.card.facts);
            tracing::info!(who, "closing because: {reason} (age={age}s)");
        }
        self.cancel_abandoned(&mut server);
        self.drop_card(server.card.id);
        server.terminate();
        self.show();
        drop(slot);
    }

    fn drop_card(&self, id: ConnId) {
        self.cards.borrow_mut().retain(|card| card.id != id);
    }

    /// Shows the other workers how this shard stands. Whoever waits in a paused shard can't be helped.
    #[inline]
    fn show(&self) {
        if self.around.workers > 1 {
            self.show_others();
        }
    }

    fn show_others(&self) {
        let (core, worker) = (self.core.borrow(), self.around.worker);
        let (resting, balance) = (core.idle() + core.used(), core.balance());
        let waiting = core.oldest_wait().filter(|_| !core.is_paused());
        drop(core);
        self.share.show_resting(worker, resting);
        self.share.show_waiting(worker, waiting);
        self.share.show_balance(worker, balance);
    }
}

fn core_rules(settings: &PoolSettings) -> CoreRules {
    CoreRules {
        round_robin: settings.server_round_robin,
        lifetime: settings.server_lifetime,
        lifetime_spacing: settings.server_lifetime / settings.pool_size.max(1),
        idle_timeout: settings.server_idle_timeout,
        check_delay: settings.server_check_delay,
        checks: settings.server_check_query.is_some(),
    }
}
