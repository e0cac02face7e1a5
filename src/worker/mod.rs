//! A thread that is a small, complete pooler: its runtime, its clients, its shards of the pools.
//!
//! Nothing in a worker is locked. A client becomes a session here, or is only asked about ([`inquiry`]). It is told things by [`mail`], looks at the clock in [`Worker::tick`], and tells about itself in
//! rows ([`report`]). What workers share is the budget of `pool`, and nothing else.

mod census;
mod client;
pub mod drain;
pub mod executor;
pub mod inquiry;
pub mod mail;
pub mod measures;
pub mod report;
mod rows;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::client::card::{CardFacts, ClientCard, Order};
use crate::client::login::Replication;
use crate::client::profile::Profiles;
use crate::client::session::{self, Ending, Parts, Scratch, Session};
use crate::config::{ClientLimits, PoolSettings};
use crate::error::ClientError;
use crate::metrics::{ErrorCounts, ErrorKind};
use crate::pool::budget::{Denied, PoolShare};
use crate::pool::core::Reason;
use crate::pool::recipe::{Blueprint, Recipe};
use crate::pool::shard::{self, EVICTED_FOR_POOL_SIZE, PoolMail, Post, Shard};
use crate::server::conn::ParamSpace;
use crate::server::params::{Interner, ParamSet, Tracked};
use crate::server::prepared::StatementCache;
use crate::types::{ConnId, PoolKey, WorkerId};
use client::{Entry, Roster, Service};
use executor::{Executor, Spawner};
use mail::{
    CancelAim, CancelAnswer, CancelGuard, Control, Mail, Newcomer, Scope, in_scope, pool_of,
};

/// How often the clock is looked at for timeouts, ages and minimum sizes; the same as PgBouncer's.
pub const TICK: Duration = Duration::from_millis(333);
/// How many ticks pass between two sweeps of what nobody uses any more.
const TICKS_PER_SWEEP: u32 = 90;

/// What a new worker needs.
pub struct Outfit {
    /// Its number.
    pub id: WorkerId,
    /// How many there are.
    pub workers: usize,
    /// The way to all of them.
    pub post: Post,
    /// The runtime on which logins run.
    pub logins: tokio::runtime::Handle,
    /// Names of the tracked parameters.
    pub tracked: Arc<Tracked>,
    /// All prepared statements in use.
    pub cache: Arc<StatementCache>,
    /// The configuration.
    pub blueprint: Arc<Blueprint>,
    /// What goes wrong is counted there.
    pub errors: Arc<ErrorCounts>,
}

/// Runs a worker on this thread until it is told to stop.
///
/// # Errors
/// The system has no descriptors for it, or its reactor fails.
pub fn run(outfit: Outfit, mail: mpsc::UnboundedReceiver<Mail>) -> std::io::Result<()> {
    // Timeouts are rare here, and kept by the login runtime.
    let timers = outfit.logins.clone();
    let _timers = timers.enter();
    let mut executor = Executor::enter(TICK)?;
    let worker = Worker::new(outfit, executor.spawner());
    let stopped = Rc::new(Cell::new(false));
    let (serving, stop) = (worker.clone(), stopped.clone());
    executor.spawner().spawn(Box::pin(async move {
        serving.serve(mail).await;
        stop.set(true);
    }));
    executor.run(|beat| {
        if beat {
            worker.tick(Instant::now());
        }
        stopped.get()
    })
}

struct Worker {
    around: Rc<shard::Surroundings>,
    sessions: Rc<session::Surroundings>,
    shards: RefCell<HashMap<PoolKey, Rc<Shard>>>,
    roster: Rc<RefCell<Roster>>,
    /// What the clients have in common.
    profiles: RefCell<Profiles>,
    blueprint: RefCell<Arc<Blueprint>>,
    /// Databases paused one by one; `None` stands for all.
    paused: RefCell<Vec<Scope>>,
    ticks: Cell<u32>,
    /// Former clients that are still being told why they are none any more.
    partings: Cell<usize>,
}

impl Worker {
    fn new(outfit: Outfit, spawner: Spawner) -> Rc<Worker> {
        let space = Rc::new(ParamSpace {
            tracked: outfit.tracked,
            interner: RefCell::new(Interner::default()),
        });
        let roster = Rc::new(RefCell::new(Roster::default()));
        let (known, listen_port) = (roster.clone(), outfit.blueprint.config.settings.listen_port);
        let who = move |client: ConnId| {
            let roster = known.borrow();
            Some(roster.get(&client)?.0.who(listen_port))
        };
        Rc::new(Worker {
            around: Rc::new(shard::Surroundings {
                who: Box::new(who),
                spawn: Box::new(move |work| spawner.spawn(work)),
                worker: outfit.id,
                workers: outfit.workers,
                post: outfit.post,
                logins: outfit.logins,
                errors: outfit.errors,
                gone: Cell::default(),
                space: space.clone(),
            }),
            sessions: Rc::new(session::Surroundings {
                scratch: RefCell::new(Scratch::default()),
                cache: outfit.cache,
                space,
                shutting_down: Cell::new(false),
            }),
            shards: RefCell::default(),
            roster,
            profiles: RefCell::default(),
            blueprint: RefCell::new(outfit.blueprint),
            paused: RefCell::default(),
            ticks: Cell::new(0),
            partings: Cell::new(0),
        })
    }

    async fn serve(self: Rc<Self>, mut mail: mpsc::UnboundedReceiver<Mail>) {
        while let Some(message) = mail.recv().await {
            if matches!(message, Mail::Control(Control::Stop)) {
                return;
            }
            self.receive(message);
        }
    }

    fn receive(self: &Rc<Self>, message: Mail) {
        match message {
            Mail::Client(newcomer) => self.admit(*newcomer),
            Mail::Inquiry(inquiry) => self.inquire(*inquiry),
            Mail::Pool(mail) => self.pool_mail(mail, Instant::now()),
            Mail::Cancel(client, reply) => drop(reply.send(self.aim_cancel(client))),
            Mail::Control(control) => self.control(control, Instant::now()),
        }
    }

    fn each_shard(&self) -> Vec<Rc<Shard>> {
        self.shards.borrow().values().cloned().collect()
    }

    fn shard(&self, share: &Arc<PoolShare>, settings: &PoolSettings, recipe: &Recipe) -> Rc<Shard> {
        let mut shards = self.shards.borrow_mut();
        let known = shards
            .get(&share.key)
            .filter(|shard| Arc::ptr_eq(shard.share(), share));
        if let Some(shard) = known {
            return shard.clone();
        }
        let paused = self.is_paused(&share.key.database);
        let shard = Shard::new(
            share.clone(),
            settings.clone(),
            recipe.clone(),
            self.around.clone(),
            paused,
        );
        shards.insert(share.key.clone(), shard.clone());
        shard
    }

    fn is_paused(&self, database: &str) -> bool {
        self.paused
            .borrow()
            .iter()
            .any(|scope| in_scope(scope, database))
    }
}

// Clients.
impl Worker {
    /// A client that has proved its identity becomes a session.
    fn admit(self: &Rc<Self>, newcomer: Newcomer) {
        let shard = self.shard(&newcomer.share, &newcomer.settings, &newcomer.recipe);
        let Ok(stream) = newcomer.stream.attach() else {
            return;
        };
        let facts = CardFacts {
            id: newcomer.id,
            database: newcomer.share.key.database.clone(),
            user: newcomer.login_user,
            peer: newcomer.peer,
            local: newcomer.local,
            replication: newcomer.replication,
            connected: newcomer.connected,
            connect_time: newcomer.connect_time,
            tls: newcomer.tls,
        };
        let params = self
            .sessions
            .space
            .interner
            .borrow_mut()
            .intern(newcomer.params);
        let card = self.card(facts, newcomer.limits, params.clone());
        let entry = Entry::new(self, &card, &shard, newcomer.seat, Some(newcomer.presence));
        let session = Session::new(Parts {
            stream,
            card,
            shard,
            around: self.sessions.clone(),
            rules: newcomer.rules,
            params,
            leftover: newcomer.leftover,
            greeting: newcomer.greeting,
        });
        (self.around.spawn)(Box::pin(Service::Serving { session, entry }));
    }

    fn card(&self, facts: CardFacts, limits: ClientLimits, params: Rc<ParamSet>) -> Rc<ClientCard> {
        let profiles = &mut *self.profiles.borrow_mut();
        Rc::new(ClientCard::new(facts, limits, params, profiles))
    }

    /// Counts and logs the end of a client, before the client can see it.
    fn take_leave(&self, card: &ClientCard, ending: &Ending) {
        // A lost server has been counted when it was closed.
        if let Some(kind) = ending.kind.filter(|kind| *kind != ErrorKind::ServerLost) {
            self.around.errors.count(kind);
        }
        let blueprint = self.blueprint.borrow().clone();
        let settings = &blueprint.config.settings;
        let who = card.who(settings.listen_port);
        if settings.log_disconnections {
            let age = card.connected.elapsed().as_secs();
            tracing::info!(who, "closing because: {} (age={age}s)", ending.reason);
        }
        // That the process ends is no error of the client's.
        let told = ending.told.as_ref().filter(|told| !told.is_shutdown());
        if let Some(error) = told.filter(|_| settings.log_pooler_errors) {
            tracing::warn!(who, "pooler error: {error}");
        }
    }

    /// Finds out where a cancel request for a client of ours has to go.
    fn aim_cancel(&self, client: ConnId) -> CancelAnswer {
        let Some((card, shard)) = self.roster.borrow().get(&client).cloned() else {
            return CancelAnswer::Nothing;
        };
        let Some(server) = card.linked.get().filter(|server| server.running.get()) else {
            return CancelAnswer::Nothing;
        };
        let (share, settings, recipe) = (shard.share(), shard.settings(), shard.recipe());
        let limit = 2 * settings.pool_size as usize;
        if limit > 0
            && share.servers() + share.cancels.load(SeqCst) >= limit.max(share.servers() + 1)
        {
            return CancelAnswer::Busy;
        }
        share.cancels.fetch_add(1, SeqCst);
        server.cancels.set(server.cancels.get() + 1);
        shard.cancels.set(shard.cancels.get() + 1);
        let guard = CancelGuard {
            share: share.clone(),
            worker: self.around.worker,
            server: server.id,
            post: self.around.post.clone(),
        };
        CancelAnswer::Aim(CancelAim {
            target: server.facts.target.clone(),
            addr: server.facts.addr.parse().ok(),
            key: server.facts.key,
            tls: recipe.tls.clone(),
            tcp: recipe.tcp.clone(),
            timeout: settings.server_connect_timeout,
            guard,
        })
    }
}

// Pools.
impl Worker {
    fn pool_mail(self: &Rc<Self>, mail: PoolMail, now: Instant) {
        let shard = pool_of(&mail).and_then(|key| self.shards.borrow().get(key).cloned());
        match (mail, shard) {
            (PoolMail::Dialed(dialed), Some(shard)) => shard.dialed(*dialed, now),
            (PoolMail::Gift(_, server, slot, journey), Some(shard)) => {
                shard.receive(*server, slot, journey, now);
            }
            (PoolMail::Ask(_, other), Some(shard)) => shard.asked(other, now),
            (PoolMail::LoginFailed(_, error), Some(shard)) => shard.refuse_waiters(&error),
            (PoolMail::CancelDone(_, server), Some(shard)) => shard.cancel_done(server, now),
            (PoolMail::MakeRoom(key, denied, begun_by), _) => self.make_room(key, denied, begun_by),
            (PoolMail::Retry, _) => self.each_shard().iter().for_each(|shard| shard.pump(now)),
            // The shard is no more: dropping what came for it closes it and gives its place back.
            (_, None) => {}
        }
    }

    /// Closes the resting server of this database or user that has rested longest; where there is none, the next worker looks.
    fn make_room(&self, key: PoolKey, denied: Denied, begun_by: WorkerId) {
        let counts = |shard: &&Rc<Shard>| match denied {
            Denied::Database => shard.key().database == key.database,
            Denied::User => shard.key().user == key.user,
            Denied::Pool => *shard.key() == key,
        };
        let shards = self.each_shard();
        let resting = shards
            .iter()
            .filter(counts)
            .filter_map(|shard| Some((shard.longest_rest()?, shard)));
        let reason = match denied {
            Denied::Pool => EVICTED_FOR_POOL_SIZE,
            Denied::Database => "evicted for max_db_connections",
            Denied::User => "evicted for max_user_connections",
        };
        let evicted = resting
            .min_by_key(|(since, _)| *since)
            .is_some_and(|(_, shard)| shard.evict(denied, reason));
        let next = (self.around.worker + 1) % self.around.workers;
        if !evicted && next != begun_by {
            (self.around.post)(next, PoolMail::MakeRoom(key, denied, begun_by));
        }
    }

    /// Time passes.
    fn tick(self: &Rc<Self>, now: Instant) {
        for shard in self.each_shard() {
            shard.tick(now);
        }
        let login_timeout = self.blueprint.borrow().config.settings.client_login_timeout;
        let roster: Vec<_> = self.roster.borrow().values().cloned().collect();
        for (card, shard) in roster {
            if let Some(order) = card.due(now, &shard.settings(), login_timeout) {
                card.tell(order);
            } else if shard.settings().server_fast_close {
                self.fast_close(&card);
            }
        }
        self.forget_unused(now);
        self.ticks.set(self.ticks.get().wrapping_add(1));
        if self.ticks.get().is_multiple_of(TICKS_PER_SWEEP) {
            self.sessions.space.interner.borrow_mut().sweep();
            self.profiles.borrow_mut().sweep();
        }
    }

    /// Drops shards that nobody has used for `pool_idle_timeout`, or `autodb_idle_timeout` for databases made from `*`.
    fn forget_unused(&self, now: Instant) {
        let autodb_limit = self.blueprint.borrow().config.settings.autodb_idle_timeout;
        self.shards.borrow_mut().retain(|key, shard| {
            let auto = shard.recipe().database.auto;
            let limit = if auto { autodb_limit } else { shard.settings().pool_idle_timeout };
            let unused = shard.unused_for(now).filter(|unused| !limit.is_zero() && *unused >= limit);
            if let Some(unused) = unused {
                let age = unused.as_secs();
                let (user, database) = (&key.user, &key.database);
                tracing::info!("cleaning up idle pool for user {user} on db {database} because: pool idle timeout (age= {age}s)");
            }
            unused.is_none()
        });
    }

    /// `server_fast_close`: a client that keeps a server which shall be closed is disconnected between transactions.
    fn fast_close(&self, card: &ClientCard) {
        let closing = card
            .linked
            .get()
            .is_some_and(|server| server.close_needed.get());
        if closing && card.xact_start.get().is_none() {
            card.tell(Order::Disconnect(
                ClientError::new(Reason::Stale.text()).as_kind(ErrorKind::Reconfigured),
            ));
        }
    }
}

// What the operator's side says.
impl Worker {
    fn control(self: &Rc<Self>, control: Control, now: Instant) {
        match control {
            Control::Apply(blueprint) => self.apply(blueprint, now),
            Control::Renew(scope) => self
                .in_scope(&scope)
                .iter()
                .for_each(|shard| self.renew(shard, now)),
            Control::RetireMisplaced => self
                .each_shard()
                .iter()
                .for_each(|shard| shard.retire_misplaced(now)),
            Control::Pause(scope, paused) => self.pause(scope, paused, now),
            Control::IsQuiet(scope, reply) => {
                let _ = reply.send(self.in_scope(&scope).iter().all(|shard| shard.is_quiet()));
            }
            Control::Closing(scope, reply) => drop(
                reply.send(
                    self.in_scope(&scope)
                        .iter()
                        .map(|shard| shard.closing())
                        .sum(),
                ),
            ),
            Control::Kill(scope, error) => self.kill(&scope, &error),
            Control::KillClient(id, error, reply) => drop(reply.send(self.kill_client(id, error))),
            Control::RefuseWaiting(error) => self.refuse_waiting(&error),
            Control::Drain(plan) => self.drain(plan),
            Control::Attendance(reply) => drop(reply.send(self.attendance())),
            Control::Ensure(pool) => drop(self.shard(&pool.0, &pool.1, &pool.2)),
            // Nobody waits for it any more: a worker that was held up has better things to do.
            Control::Pools(reply) if reply.is_closed() => {}
            Control::Census(_, reply) if reply.is_closed() => {}
            Control::Pools(reply) => drop(reply.send(self.pool_rows(now))),
            Control::Census(most, reply) => drop(reply.send(self.census(most))),
            Control::Ping(reply) => drop(reply.send(())),
            Control::Clients(reply) => drop(reply.send(self.client_rows(now))),
            Control::Servers(reply) => drop(reply.send(self.server_rows(now))),
            Control::View(id, reply) => drop(reply.send(self.view(id, now))),
            Control::Queue(pool, limit, reply) => {
                drop(reply.send(self.queue_view(&pool, limit, now)));
            }
            Control::Measures(reply) => drop(reply.send(self.measures(now))),
            Control::Stop => {}
        }
    }

    fn in_scope(&self, scope: &Scope) -> Vec<Rc<Shard>> {
        let mut shards = self.each_shard();
        shards.retain(|shard| in_scope(scope, &shard.key().database));
        shards
    }

    fn apply(self: &Rc<Self>, blueprint: Arc<Blueprint>, now: Instant) {
        self.blueprint.replace(blueprint.clone());
        for shard in self.each_shard() {
            let key = shard.key();
            let Some(database) = blueprint.config.database(&key.database) else {
                self.kill(
                    &Some(key.database.clone()),
                    &ClientError::new("database removed").as_kind(ErrorKind::Killed),
                );
                self.shards.borrow_mut().remove(key);
                continue;
            };
            let settings = blueprint.config.pool_settings(&database, &key.user);
            shard.configure(settings, blueprint.recipe(&database));
            if shard.with_core(|core| core.epoch()) != shard.share().epoch() {
                self.renew(&shard, now);
            }
        }
        let profiles = &mut *self.profiles.borrow_mut();
        for (card, _) in self.roster.borrow().values() {
            let profile = card.profile();
            if let Some(database) = blueprint.config.database(&profile.database) {
                let limits = blueprint.config.client_limits(&database, &profile.user);
                card.set_limits(limits, profiles);
            }
        }
    }

    /// A new generation of servers. Those that replication clients have to themselves would never come free: they end at once, and
    /// their clients with them.
    fn renew(&self, shard: &Rc<Shard>, now: Instant) {
        shard.renew(now);
        for (card, of) in self.roster.borrow().values() {
            if Rc::ptr_eq(of, shard)
                && card.replication != Replication::None
                && card.linked.is_some()
            {
                card.tell(Order::Disconnect(
                    ClientError::new(Reason::Stale.text()).as_kind(ErrorKind::Reconfigured),
                ));
            }
        }
    }

    fn pause(self: &Rc<Self>, scope: Scope, paused: bool, now: Instant) {
        let mut scopes = self.paused.borrow_mut();
        scopes.retain(|known| *known != scope);
        if paused {
            scopes.push(scope.clone());
        }
        drop(scopes);
        for shard in self.in_scope(&scope) {
            shard.pause(self.is_paused(&shard.key().database), now);
        }
    }

    fn kill(&self, scope: &Scope, error: &ClientError) {
        for (card, shard) in self.roster.borrow().values() {
            // A login may use another database than its own: the one that auth_query asks.
            if in_scope(scope, &card.profile().database) || in_scope(scope, &shard.key().database) {
                card.tell(Order::Disconnect(error.clone()));
            }
        }
        for shard in self.in_scope(scope) {
            shard.drop_resting(Reason::Dropped);
            shard.renew(Instant::now());
        }
    }

    fn kill_client(&self, id: ConnId, error: ClientError) -> bool {
        let card = self.roster.borrow().get(&id).map(|(card, _)| card.clone());
        let found = card.is_some();
        if let Some(card) = card {
            card.tell(Order::Disconnect(error));
        }
        found
    }

    fn refuse_waiting(&self, error: &ClientError) {
        self.sessions.shutting_down.set(true);
        for shard in self.each_shard() {
            shard.refuse_waiters(error);
        }
    }
}
