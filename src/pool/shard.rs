//! One worker's part of a pool: the [`PoolCore`] with real servers in it.
//!
//! The core decides; this file does what it says: dials within the budget, hands servers to waiting clients, tests, cleans and
//! closes them, and trades with the shards of other workers. Everything happens on the worker's thread; no borrow of the core is
//! held while a client is woken or a message is sent.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::{Attempt, Denied, Face, PoolShare, Slot, Welcome};
use super::core::{Checkout, CoreRules, Placed, PoolCore, Reason};
use super::lease::{Lease, Pooled};
use super::recipe::Recipe;
use super::ticket::{Grant, Ticket};
use crate::auth::User;
use crate::config::PoolSettings;
use crate::error::ClientError;
use crate::metrics::Stats;
use crate::net::dial::Target;
use crate::server::conn::{
    Outcome, ParamSpace, Server, ServerCard, ServerLost, ServerState, TravelingServer,
};
use crate::server::connect::{ConnectError, Fresh};
use crate::server::link::ServerLink;
use crate::server::params::ParamSet;
use crate::types::{ConnId, PoolKey, WorkerId};

/// How much longer than its own a client of another worker must have waited before it is served first.
pub const TRADE_SLACK: Duration = Duration::from_millis(5);
/// How long cleaning a server may take before it is closed instead.
pub const CLEAN_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections of one shard that may be under way at once.
pub const DIALS_MAX: usize = 8;

/// A message between the shards of one pool, or from a connection attempt.
pub enum PoolMail {
    /// A connection attempt has ended.
    Dialed(Box<Dialed>),
    /// A server from another worker.
    Gift(PoolKey, Box<TravelingServer>, Slot),
    /// Another worker has waiting clients and no server: it would like one that rests.
    Ask(PoolKey, WorkerId),
    /// A limit that refused a connection has room again.
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
    /// Tracked parameters.
    pub space: Rc<ParamSpace>,
}

/// One worker's part of a pool.
pub struct Shard {
    share: Arc<PoolShare>,
    settings: RefCell<Rc<PoolSettings>>,
    recipe: RefCell<Rc<Recipe>>,
    core: RefCell<PoolCore<Box<Pooled>, Rc<Ticket>>>,
    cards: RefCell<Vec<Rc<ServerCard>>>,
    /// Servers that are free but held back until the cancel requests aimed at them are finished.
    held_back: RefCell<Vec<Box<Pooled>>>,
    stats: Cell<Stats>,
    around: Rc<Surroundings>,
    /// Clients of this worker that belong to the pool.
    pub clients: Cell<usize>,
    /// Cancel requests being delivered.
    pub cancels: Cell<usize>,
    /// Clients that wait for a server of their own, or have not read its greeting yet.
    dedicated: RefCell<HashMap<ConnId, Dedicated>>,
}

/// A replication client that gets a server of its own.
struct Dedicated {
    ticket: Rc<Ticket>,
    /// What the server is started with, besides what the pool's servers are started with.
    startup: Vec<(Vec<u8>, Vec<u8>)>,
    /// The attempt is under way, or has succeeded.
    begun: bool,
    welcome: Welcome,
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
        let core = PoolCore::new(core_rules(&settings), share.epoch(), paused);
        Rc::new(Shard {
            share,
            settings: RefCell::new(Rc::new(settings)),
            recipe: RefCell::new(Rc::new(recipe)),
            core: RefCell::new(core),
            cards: RefCell::default(),
            held_back: RefCell::default(),
            stats: Cell::default(),
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

    /// How servers are connected.
    pub fn recipe(&self) -> Rc<Recipe> {
        self.recipe.borrow().clone()
    }

    /// The tracked parameters.
    pub fn space(&self) -> &Rc<ParamSpace> {
        &self.around.space
    }

    /// Counts something.
    pub fn count(&self, change: impl FnOnce(&mut Stats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        self.stats.get()
    }

    fn face(&self) -> &Face {
        self.share.face(self.around.worker)
    }
}

// Getting a server.
impl Shard {
    /// A client needs a server: it gets one at once, or stands in the queue with its ticket.
    pub fn checkout(self: &Rc<Self>, ticket: &Rc<Ticket>, now: Instant) -> Option<Lease> {
        loop {
            let checkout = self.core.borrow_mut().checkout(ticket.clone(), now);
            match checkout {
                Checkout::Granted(mut pooled) => {
                    if pooled.server.absorb(self.space()).is_err() {
                        self.close_lent(pooled, "server conn crashed?");
                        continue;
                    }
                    self.show();
                    return Some(self.lease(pooled));
                }
                Checkout::Queued => {
                    self.show();
                    self.pump(now);
                    return None;
                }
            }
        }
    }

    /// A client does not wait any more.
    pub fn leave(&self, ticket: &Rc<Ticket>) {
        self.core.borrow_mut().leave(ticket);
        self.show();
    }

    fn lease(self: &Rc<Self>, pooled: Box<Pooled>) -> Lease {
        pooled.server.card.state.set(ServerState::Active);
        Lease::new(pooled, self.clone())
    }

    /// Does what can be done for the clients that wait: test servers, open connections, ask other workers.
    pub fn pump(self: &Rc<Self>, now: Instant) {
        loop {
            let next = self.core.borrow_mut().next_test();
            let Some(pooled) = next else { break };
            self.test(pooled);
        }
        while self.wants_dial() {
            if !self.try_dial(now, self.reserve_due(now)) {
                break;
            }
        }
        if self.core.borrow().wanted() > 0
            && let Some(other) = self.share.richest_other(self.around.worker)
        {
            (self.around.post)(other, PoolMail::Ask(self.key().clone(), self.around.worker));
        }
    }

    fn wants_dial(&self) -> bool {
        let core = self.core.borrow();
        core.wanted() > 0 && core.dialing() < DIALS_MAX
    }

    /// The reserve may be used when the oldest client has waited for `reserve_pool_timeout`.
    fn reserve_due(&self, now: Instant) -> bool {
        let timeout = self.settings.borrow().reserve_pool_timeout;
        let oldest = self.core.borrow().oldest_wait();
        self.share.reserve() > 0
            && oldest.is_some_and(|since| now.saturating_duration_since(since) > timeout)
    }

    /// Opens a connection if the budget allows it; false if nothing more can be done now.
    fn try_dial(self: &Rc<Self>, now: Instant, reserve: bool) -> bool {
        let retry = self.settings.borrow().server_login_retry;
        let Some(attempt) = self.share.begin_attempt(now, retry) else {
            return false;
        };
        match self.share.try_open(self.around.worker, reserve) {
            Ok(slot) => {
                if reserve && self.share.servers() > self.settings.borrow().pool_size as usize {
                    tracing::warn!(who = %self.key(), "taking connection from reserve_pool");
                }
                self.dial(slot, attempt);
                true
            }
            Err(denied) => {
                drop(attempt);
                self.make_room(denied)
            }
        }
    }

    fn dial(self: &Rc<Self>, slot: Slot, attempt: Attempt) {
        self.core.borrow_mut().dial_began();
        self.dial_for(slot, attempt, None, &[]);
    }

    fn dial_for(
        &self,
        slot: Slot,
        attempt: Attempt,
        dedicated: Option<ConnId>,
        extra: &[(Vec<u8>, Vec<u8>)],
    ) {
        let id = ConnId::next();
        let epoch = self.core.borrow().epoch();
        let (mut plan, target) =
            self.recipe
                .borrow()
                .plan(id, &self.share, &self.settings.borrow());
        plan.startup.extend_from_slice(extra);
        let (post, worker, key) = (
            self.around.post.clone(),
            self.around.worker,
            self.key().clone(),
        );
        self.around.logins.spawn(async move {
            let result = crate::server::connect::connect(plan).await;
            let dialed = Dialed {
                key,
                id,
                epoch,
                slot,
                target,
                attempt,
                dedicated,
                result,
            };
            post(worker, PoolMail::Dialed(Box::new(dialed)));
        });
    }

    /// A limit of the database or the user is reached: a resting server of another pool may have to go. The worker finds it, who
    /// knows all its shards.
    fn make_room(&self, denied: Denied) -> bool {
        if denied != Denied::Pool {
            (self.around.post)(
                self.around.worker,
                PoolMail::MakeRoom(self.key().clone(), denied, self.around.worker),
            );
        }
        false
    }

    /// A connection attempt has ended.
    pub fn dialed(self: &Rc<Self>, dialed: Dialed, now: Instant) {
        let Dialed {
            id,
            epoch,
            slot,
            target,
            attempt,
            dedicated,
            result,
            ..
        } = dialed;
        drop(attempt);
        if let Some(client) = dedicated {
            return self.dialed_dedicated(client, id, epoch, slot, target, result, now);
        }
        match result {
            Ok(fresh) => self.connected(id, epoch, slot, target, fresh, now),
            Err(error) => {
                drop(slot);
                self.dial_failed(&error, now);
            }
        }
    }

    fn connected(
        self: &Rc<Self>,
        id: ConnId,
        epoch: u64,
        slot: Slot,
        target: Target,
        fresh: Fresh,
        now: Instant,
    ) {
        self.share.attempt_succeeded();
        self.share.capture_welcome(epoch, || Welcome {
            parameters: fresh.parameters.clone(),
        });
        let Some(pooled) = self.install(id, epoch, slot, target, fresh, now) else {
            self.core.borrow_mut().dial_failed();
            return self.pump(now);
        };
        let placed = self.core.borrow_mut().dialed(pooled, now);
        self.settle(placed, now);
        self.pump(now);
    }

    /// Makes a server of a fresh connection; `None` if its socket is no more.
    fn install(
        &self,
        id: ConnId,
        epoch: u64,
        slot: Slot,
        target: Target,
        fresh: Fresh,
        now: Instant,
    ) -> Option<Box<Pooled>> {
        let (params, reported) = self.server_params(&fresh.parameters);
        let facts = super::recipe::facts(&fresh, target);
        let stream = fresh.stream.attach().ok()?;
        let server = Server::new(
            stream,
            ServerLink::new(params, reported),
            now,
            epoch,
            id,
            Arc::new(facts),
        );
        self.cards.borrow_mut().push(server.card.clone());
        Some(Box::new(Pooled { server, slot }))
    }

    fn server_params(&self, parameters: &[(Vec<u8>, Vec<u8>)]) -> (Rc<ParamSet>, u32) {
        let space = self.space();
        let (mut set, mut reported) = (ParamSet::default(), 0);
        for (name, value) in parameters {
            if let Some(index) = space.tracked.index(name) {
                set.set(index, Some(value));
                reported |= 1 << index;
            }
        }
        (space.interner.borrow_mut().intern(set), reported)
    }

    fn dial_failed(self: &Rc<Self>, error: &ConnectError, now: Instant) {
        self.core.borrow_mut().dial_failed();
        let told = error.client_error();
        self.share.attempt_failed(now, told.clone());
        if error.is_relayed() && !self.share.has_servers() {
            for other in (0..self.around.workers).filter(|other| *other != self.around.worker) {
                (self.around.post)(
                    other,
                    PoolMail::LoginFailed(self.key().clone(), told.clone()),
                );
            }
            self.refuse_waiters(&told);
        }
    }

    /// Disconnects everybody who waits.
    pub fn refuse_waiters(&self, error: &ClientError) {
        loop {
            let waiter = self.core.borrow_mut().dismiss();
            let Some(ticket) = waiter else { break };
            ticket.give(Grant::Refused(error.clone()));
        }
        self.show();
    }
}

// Servers of their own for replication clients.
impl Shard {
    /// A client needs a server of its own, started with `startup` besides what the pool says.
    pub fn dial_dedicated(
        self: &Rc<Self>,
        client: ConnId,
        ticket: &Rc<Ticket>,
        startup: Vec<(Vec<u8>, Vec<u8>)>,
        now: Instant,
    ) {
        let waiting = Dedicated {
            ticket: ticket.clone(),
            startup,
            begun: false,
            welcome: Welcome::default(),
        };
        self.dedicated.borrow_mut().insert(client, waiting);
        self.pump_dedicated(now);
    }

    /// Opens connections for those that have none under way; a resting server of the pool makes room.
    fn pump_dedicated(self: &Rc<Self>, now: Instant) {
        if self.dedicated.borrow().is_empty() {
            return;
        }
        let retry = self.settings.borrow().server_login_retry;
        let mut waiting = self.dedicated.borrow_mut();
        for (client, dedicated) in waiting.iter_mut().filter(|(_, dedicated)| !dedicated.begun) {
            let Some(attempt) = self.share.begin_attempt(now, retry) else {
                return;
            };
            let slot = self
                .share
                .try_open(self.around.worker, false)
                .or_else(|denied| {
                    self.evict("evicted for pool_size");
                    self.share
                        .try_open(self.around.worker, false)
                        .map_err(|_| denied)
                });
            match slot {
                Ok(slot) => {
                    dedicated.begun = true;
                    self.dial_for(slot, attempt, Some(*client), &dedicated.startup);
                }
                Err(denied) => {
                    self.make_room(denied);
                    return;
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // the parts of one message, taken apart
    fn dialed_dedicated(
        self: &Rc<Self>,
        client: ConnId,
        id: ConnId,
        epoch: u64,
        slot: Slot,
        target: Target,
        result: Result<Fresh, ConnectError>,
        now: Instant,
    ) {
        let waiting = self
            .dedicated
            .borrow_mut()
            .get_mut(&client)
            .map(|dedicated| dedicated.ticket.clone());
        let Some(ticket) = waiting else { return }; // the client has left
        let fresh = match result {
            Ok(fresh) => fresh,
            Err(error) => {
                self.dedicated.borrow_mut().remove(&client);
                return ticket.give(Grant::Refused(error.client_error()));
            }
        };
        self.share.attempt_succeeded();
        if let Some(dedicated) = self.dedicated.borrow_mut().get_mut(&client) {
            dedicated.welcome = Welcome {
                parameters: fresh.parameters.clone(),
            };
        }
        match self.install(id, epoch, slot, target, fresh, now) {
            Some(pooled) => {
                self.core.borrow_mut().lend_new();
                ticket.give(Grant::Server(self.lease(pooled)));
            }
            None => ticket.give(Grant::Refused(ClientError::new("server conn crashed?"))),
        }
    }

    /// What the client's own server has told at its login.
    pub fn take_dedicated_welcome(&self, client: ConnId) -> Welcome {
        let taken = self.dedicated.borrow_mut().remove(&client);
        taken.map(|dedicated| dedicated.welcome).unwrap_or_default()
    }

    /// The client does not wait for a server of its own any more.
    pub fn forget_dedicated(&self, client: ConnId) {
        self.dedicated.borrow_mut().remove(&client);
    }
}

// Giving a server back.
impl Shard {
    pub(super) fn checkin(self: &Rc<Self>, mut pooled: Box<Pooled>, now: Instant) {
        pooled.server.card.linked.set(None);
        pooled.server.update_card();
        if pooled.server.card.cancels.get() > 0 {
            return self.hold_back(pooled);
        }
        if pooled.server.card.close_needed.get() {
            return self.close_lent(pooled, Reason::Stale.text());
        }
        if self.around.workers > 1 {
            match self.trade(pooled, now) {
                Some(kept) => pooled = kept,
                None => return,
            }
        }
        let placed = self.core.borrow_mut().checkin(pooled, now);
        self.settle(placed, now);
    }

    /// Sends the server to another worker if clients there have waited longer; returns it if not.
    fn trade(self: &Rc<Self>, pooled: Box<Pooled>, now: Instant) -> Option<Box<Pooled>> {
        let Some((other, since)) = self.share.hungriest_other(self.around.worker) else {
            return Some(pooled);
        };
        let own = self.core.borrow().oldest_wait();
        if own.is_some_and(|own| since + TRADE_SLACK >= own) {
            return Some(pooled);
        }
        let fit =
            pooled.server.epoch == self.core.borrow().epoch() && !self.core.borrow().is_paused();
        let old = now.duration_since(pooled.server.born) >= self.settings.borrow().server_lifetime;
        if !fit || old {
            return Some(pooled);
        }
        self.core.borrow_mut().forget_lent();
        self.send_away(other, pooled);
        None
    }

    fn send_away(&self, other: WorkerId, pooled: Box<Pooled>) {
        let Pooled { server, slot } = *pooled;
        self.drop_card(server.card.id);
        match server.detach() {
            Ok(travelling) => (self.around.post)(
                other,
                PoolMail::Gift(self.key().clone(), Box::new(travelling), slot),
            ),
            Err(error) => {
                tracing::warn!(who = %self.key(), %error, "lost a server between workers")
            }
        }
    }

    /// Another worker's clients wait and none of ours do: it gets a server that rests here.
    pub fn asked(self: &Rc<Self>, other: WorkerId) {
        let lent = self.core.borrow_mut().lend();
        self.show();
        if let Some(pooled) = lent {
            self.send_away(other, pooled);
        }
    }

    /// A server comes from another worker.
    pub fn receive(self: &Rc<Self>, server: TravelingServer, slot: Slot, now: Instant) {
        let Ok(server) = server.attach(self.space()) else {
            return self.pump(now);
        };
        self.cards.borrow_mut().push(server.card.clone());
        let placed = self
            .core
            .borrow_mut()
            .receive(Box::new(Pooled { server, slot }), now);
        self.settle(placed, now);
        self.pass_on();
    }

    /// A gift that nobody here needs any more goes to whoever does.
    fn pass_on(self: &Rc<Self>) {
        if let Some((other, _)) = self.share.hungriest_other(self.around.worker) {
            self.asked(other);
        }
    }

    /// Does what the core has decided about a server.
    fn settle(self: &Rc<Self>, placed: Placed<Box<Pooled>, Rc<Ticket>>, now: Instant) {
        match placed {
            Placed::Handed(ticket, mut pooled) => {
                if pooled.server.absorb(self.space()).is_err() {
                    self.core.borrow_mut().forget_lent();
                    self.close(pooled, "server conn crashed?");
                    return self.hand_back(ticket, now);
                }
                let lease = self.lease(pooled);
                self.show();
                ticket.give(Grant::Server(lease));
            }
            Placed::Resting => self.show(),
            Placed::Close(pooled, reason) => {
                self.close(pooled, reason.text());
                self.pump(now);
            }
        }
        self.show_resting();
    }

    /// The server meant for this client turned out dead: the client waits on. It loses its place, which is the lesser evil.
    fn hand_back(self: &Rc<Self>, ticket: Rc<Ticket>, now: Instant) {
        if let Some(lease) = self.checkout(&ticket, now) {
            ticket.give(Grant::Server(lease));
        }
    }

    /// After a server has come to rest, a client of another worker may be waiting that did not see it.
    fn show_resting(self: &Rc<Self>) {
        if self.around.workers > 1 && self.core.borrow().idle() > 0 {
            self.pass_on();
        }
    }

    fn hold_back(self: &Rc<Self>, pooled: Box<Pooled>) {
        self.core.borrow_mut().forget_lent();
        pooled.server.card.state.set(ServerState::BeingCanceled);
        self.held_back.borrow_mut().push(pooled);
    }

    /// A cancel request aimed at one of our servers is finished.
    pub fn cancel_done(self: &Rc<Self>, id: ConnId, now: Instant) {
        self.cancels.set(self.cancels.get().saturating_sub(1));
        let card = self
            .cards
            .borrow()
            .iter()
            .find(|card| card.id == id)
            .cloned();
        let Some(card) = card else { return };
        card.cancels.set(card.cancels.get().saturating_sub(1));
        if card.cancels.get() > 0 {
            return;
        }
        let at = self
            .held_back
            .borrow()
            .iter()
            .position(|pooled| pooled.server.card.id == id);
        if let Some(at) = at {
            let pooled = self.held_back.borrow_mut().swap_remove(at);
            let placed = self.core.borrow_mut().receive(pooled, now);
            self.settle(placed, now);
        }
    }

    pub(super) fn close_lent(self: &Rc<Self>, pooled: Box<Pooled>, reason: &str) {
        self.core.borrow_mut().forget_lent();
        self.close(pooled, reason);
        self.pump(Instant::now());
    }

    fn close(&self, pooled: Box<Pooled>, reason: &str) {
        let Pooled { server, slot } = *pooled;
        let recipe = self.recipe.borrow();
        if recipe.log_disconnections {
            let age = server.born.elapsed().as_secs();
            let who = recipe.who(server.card.id, self.key(), &server.card.facts);
            tracing::info!(who, "closing because: {reason} (age={age}s)");
        }
        self.drop_card(server.card.id);
        server.terminate();
        drop(slot);
        self.show();
    }

    fn drop_card(&self, id: ConnId) {
        self.cards.borrow_mut().retain(|card| card.id != id);
    }

    /// Shows the other workers how this shard stands, and updates the cards of resting servers when asked for.
    fn show(&self) {
        if self.around.workers == 1 {
            return;
        }
        let core = self.core.borrow();
        self.face().show_idle(core.idle());
        self.face().show_waiting(
            core.oldest_wait()
                .map(|since| self.share.since_start(since)),
        );
    }
}

// Testing and cleaning.
impl Shard {
    fn test(self: &Rc<Self>, pooled: Box<Pooled>) {
        let query = self
            .settings
            .borrow()
            .server_check_query
            .clone()
            .unwrap_or_default();
        Shard::run(self, pooled, vec![query.as_bytes().to_vec()], true);
    }

    /// Runs queries on a server that was on loan before it is used again.
    pub(super) fn clean(shard: &Rc<Shard>, pooled: Box<Pooled>, queries: Vec<Vec<u8>>) {
        shard.core.borrow_mut().lent_to_test();
        Shard::run(shard, pooled, queries, false);
    }

    /// Any answer to a check query counts as a sign of life; a cleaning query must succeed.
    fn run(shard: &Rc<Shard>, mut pooled: Box<Pooled>, queries: Vec<Vec<u8>>, any_outcome: bool) {
        let card = &pooled.server.card;
        card.linked.set(None);
        card.state.set(ServerState::Tested);
        let shard = shard.clone();
        tokio::task::spawn_local(async move {
            let space = shard.space().clone();
            let work = async {
                pooled.server.absorb(&space)?;
                for query in &queries {
                    if let Outcome::Failed(message) = pooled.server.command(query, &space).await?
                        && !any_outcome
                    {
                        return Ok(Some(message));
                    }
                }
                Ok::<_, ServerLost>(None)
            };
            let result = tokio::time::timeout(CLEAN_TIMEOUT, work).await;
            let free = pooled.server.is_free();
            let verdict = match result {
                Ok(Ok(None)) if free => None,
                Ok(Ok(Some(message))) => Some(format!(
                    "reset query failed: {}",
                    String::from_utf8_lossy(&message)
                )),
                Ok(Ok(None)) => Some("reset query left the server in a transaction".to_owned()),
                Ok(Err(_)) => Some("test failed".to_owned()),
                Err(_) => Some("test timeout".to_owned()),
            };
            shard.tested(pooled, verdict);
        });
    }

    fn tested(self: &Rc<Self>, pooled: Box<Pooled>, fault: Option<String>) {
        let now = Instant::now();
        if let Some(reason) = fault {
            self.core.borrow_mut().forget_tested();
            self.close(pooled, &reason);
            return self.pump(now);
        }
        pooled.server.update_card();
        if pooled.server.card.cancels.get() > 0 {
            self.core.borrow_mut().forget_tested();
            pooled.server.card.state.set(ServerState::BeingCanceled);
            self.held_back.borrow_mut().push(pooled);
            return;
        }
        let placed = self.core.borrow_mut().tested(pooled, now);
        self.settle(placed, now);
    }
}

// What time and the operator do.
impl Shard {
    /// Time passes: called by the worker's janitor.
    pub fn tick(self: &Rc<Self>, now: Instant) {
        self.drop_dead(now);
        let settings = self.settings();
        let spare = self
            .share
            .servers()
            .saturating_sub(settings.min_pool_size as usize);
        let closing = self.core.borrow_mut().tick(now, spare);
        for (pooled, reason) in closing {
            self.close(pooled, reason.text());
        }
        self.shrink(&settings);
        self.pump(now);
        self.pump_dedicated(now);
        self.grow(&settings, now);
        self.show();
    }

    /// Resting servers that PostgreSQL has closed, or that said something.
    fn drop_dead(self: &Rc<Self>, _now: Instant) {
        let space = self.space().clone();
        let dead = self
            .core
            .borrow_mut()
            .remove_resting(|pooled| pooled.server.absorb(&space).is_err());
        for pooled in dead {
            self.close(pooled, "server conn crashed?");
        }
    }

    /// The pool has become smaller than it is.
    fn shrink(&self, settings: &PoolSettings) {
        let limit = settings.pool_size as usize + self.share.reserve();
        while settings.pool_size > 0 && self.share.servers() > limit {
            let surplus = self.core.borrow_mut().give_up();
            let Some(pooled) = surplus else { break };
            self.close(pooled, Reason::TooMany.text());
        }
    }

    /// `min_pool_size`: one connection a tick, while the pool has clients or the database a forced user.
    fn grow(self: &Rc<Self>, settings: &PoolSettings, now: Instant) {
        let wanted = self.share.servers() < settings.min_pool_size as usize;
        let in_use = self.clients.get() > 0 || self.recipe.borrow().forced_user;
        let core = self.core.borrow();
        let quiet = core.dialing() == 0 && !core.is_paused();
        drop(core);
        if wanted && in_use && quiet {
            let retry = settings.server_login_retry;
            if let Some(attempt) = self.share.begin_attempt(now, retry)
                && let Ok(slot) = self.share.try_open(self.around.worker, false)
            {
                self.dial(slot, attempt);
            }
        }
    }

    /// New settings, and how servers are connected from now on.
    pub fn configure(self: &Rc<Self>, settings: PoolSettings, recipe: Recipe) {
        self.core.borrow_mut().set_rules(core_rules(&settings));
        self.settings.replace(Rc::new(settings));
        self.recipe.replace(Rc::new(recipe));
    }

    /// A new generation began: resting servers are closed, busy ones when they come free.
    pub fn renew(self: &Rc<Self>, now: Instant) {
        let old = self.core.borrow_mut().renew(self.share.epoch());
        self.close_all(old, Reason::Stale);
        for card in self.cards.borrow().iter() {
            card.close_needed.set(true);
        }
        self.pump(now);
    }

    /// Pauses or resumes.
    pub fn pause(self: &Rc<Self>, paused: bool, now: Instant) {
        let closing = self.core.borrow_mut().pause(paused);
        self.close_all(closing, Reason::Pause);
        self.pump(now);
    }

    /// Paused, and nothing is in use any more.
    pub fn is_quiet(&self) -> bool {
        let core = self.core.borrow();
        core.lent() + core.testing() == 0 && self.held_back.borrow().is_empty()
    }

    /// Closes every resting server.
    pub fn drop_resting(self: &Rc<Self>, reason: Reason) {
        let all = self.core.borrow_mut().drain_resting();
        self.close_all(all, reason);
    }

    /// Closes the server that has rested longest, to make room for another pool.
    pub fn evict(self: &Rc<Self>, reason: &str) -> bool {
        let evicted = self.core.borrow_mut().give_up();
        match evicted {
            Some(pooled) => {
                self.close(pooled, reason);
                true
            }
            None => false,
        }
    }

    /// Since when the server that [`Shard::evict`] would close has rested.
    pub fn longest_rest(&self) -> Option<Instant> {
        let core = self.core.borrow();
        if core.waiting() > 0 {
            None
        } else {
            core.longest_rest()
        }
    }

    fn close_all(self: &Rc<Self>, servers: Vec<Box<Pooled>>, reason: Reason) {
        for pooled in servers {
            self.close(pooled, reason.text());
        }
    }

    /// Resting servers say so on their cards.
    pub fn mark_resting(&self) {
        let core = self.core.borrow();
        for (pooled, tested) in core.resting() {
            pooled.server.card.state.set(if tested {
                ServerState::Used
            } else {
                ServerState::Idle
            });
        }
    }

    /// Servers on loan are closed when they come back.
    pub fn retire(&self) {
        for card in self.cards.borrow().iter() {
            card.close_needed.set(true);
        }
    }

    /// A client has shown the secret that servers are to be logged in with.
    pub fn show_credentials(&self, user: &Arc<User>) {
        if !Arc::ptr_eq(&self.recipe.borrow().user, user) {
            let mut recipe = Recipe::clone(&self.recipe.borrow());
            recipe.user = user.clone();
            self.recipe.replace(Rc::new(recipe));
        }
    }

    /// Nothing is here any more: no client, no server, no attempt.
    pub fn is_empty(&self) -> bool {
        let core = self.core.borrow();
        self.clients.get() == 0 && core.dialing() == 0 && self.cards.borrow().is_empty()
    }

    /// Servers marked to be closed.
    pub fn closing(&self) -> usize {
        self.cards
            .borrow()
            .iter()
            .filter(|card| card.close_needed.get())
            .count()
    }

    /// What is shown of the servers.
    pub fn cards(&self) -> Vec<Rc<ServerCard>> {
        self.cards.borrow().clone()
    }

    /// Reads the core's counts.
    pub fn with_core<T>(&self, read: impl FnOnce(&PoolCore<Box<Pooled>, Rc<Ticket>>) -> T) -> T {
        read(&self.core.borrow())
    }

    /// Servers held back because of cancel requests.
    pub fn held_back(&self) -> usize {
        self.held_back.borrow().len()
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
