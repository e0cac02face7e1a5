//! How many server connections the whole process may have: the only pool state that workers share.
//!
//! A shard opens a connection only with a [`Slot`] in its hand, granted against the limits of the pool, the database and the user
//! at once; the slot goes wherever the connection goes and is given back when it is dropped. So the limits hold exactly, over all
//! workers. Everything here is atomic counters; the maps are locked only when a pool is looked up by name.
//!
//! A worker that was refused is remembered, and poked when a slot comes free. The order that closes the race between "refused,
//! now remember me" and "free, whom do I tell" is: remember first, then try once more. In the same way a worker first shows that
//! it waits, then looks for servers elsewhere that rest, or are being opened and to spare; and one whose server comes to rest, or that
//! has fewer to spare, first shows it, then looks who waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicIsize, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst,
};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::turn::{Turn, moment, stamp};
use crate::auth::{Secret, User};
use crate::config::PoolSettings;
use crate::error::ClientError;
use crate::metrics::{Limit, PoolLimits, PoolMeasures};
use crate::types::{PoolKey, WorkerId};

/// Tells a worker to look at its waiting clients again.
pub type Poke = Arc<dyn Fn(WorkerId) + Send + Sync>;

/// A counter with a limit, and the workers that were refused because of it.
#[derive(Debug, Default)]
pub struct Tally {
    count: AtomicUsize,
    /// Zero: no limit.
    limit: AtomicUsize,
    /// A bit for each worker that was refused.
    hungry: AtomicU64,
}

impl Tally {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.count.load(SeqCst)
    }

    /// Changes the limit; zero is none.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, SeqCst);
    }

    /// As many as may be.
    fn is_full(&self) -> bool {
        let limit = self.limit.load(SeqCst);
        limit != 0 && self.count() >= limit
    }

    fn try_take(&self, allowance: usize) -> bool {
        match self.limit.load(SeqCst) {
            0 => self.take_below(usize::MAX),
            limit => self.take_below(limit + allowance),
        }
    }

    fn take_below(&self, ceiling: usize) -> bool {
        self.count
            .fetch_update(SeqCst, SeqCst, |count| {
                (count < ceiling).then_some(count + 1)
            })
            .is_ok()
    }

    fn drop_above(&self, floor: usize) -> bool {
        self.count
            .fetch_update(SeqCst, SeqCst, |count| (count > floor).then(|| count - 1))
            .is_ok()
    }

    fn give_back(&self, poke: &Poke) {
        self.count.fetch_sub(1, SeqCst);
        self.wake(poke);
    }

    /// Pokes everybody who was refused.
    #[inline]
    fn wake(&self, poke: &Poke) {
        if self.hungry.load(SeqCst) != 0 {
            self.wake_hungry(poke);
        }
    }

    fn wake_hungry(&self, poke: &Poke) {
        poke_all(self.hungry.swap(0, SeqCst), poke);
    }

    fn remember(&self, worker: WorkerId) {
        self.hungry.fetch_or(1 << worker, SeqCst);
    }

    fn remembers(&self, worker: WorkerId) -> bool {
        self.hungry.load(SeqCst) & (1 << worker) != 0
    }
}

/// Pokes the workers that have a bit.
fn poke_all(mut workers: u64, poke: &Poke) {
    while workers != 0 {
        poke(workers.trailing_zeros() as WorkerId);
        workers &= workers - 1;
    }
}

/// Which limit refused a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// `pool_size` (and the reserve, if it was allowed).
    Pool,
    /// `max_db_connections`
    Database,
    /// `max_user_connections`
    User,
}

impl From<Denied> for Limit {
    fn from(denied: Denied) -> Limit {
        match denied {
            Denied::Pool => Limit::Pool,
            Denied::Database => Limit::Database,
            Denied::User => Limit::User,
        }
    }
}

/// What a worker shows the others of its shard of one pool. On a cache line of its own: it is written with every query, and read
/// by others only when they are short of servers.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Face {
    /// Servers that rest there, those to be tested first included.
    resting: AtomicUsize,
    /// Clients that belong to it.
    clients: AtomicUsize,
}

/// Servers less clients that wait for them: see [`PoolShare::show_balance`]. On a cache line of its own: where clients queue it is
/// written with every query, and read only when one more connection is thought of.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Balance(AtomicIsize);

/// A client that counts as belonging to a worker's shard, until dropped.
#[derive(Debug)]
pub struct Seat {
    share: Arc<PoolShare>,
    worker: WorkerId,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.share.faces[self.worker].clients.fetch_sub(1, SeqCst);
    }
}

/// What is known from the last attempts to connect.
#[derive(Debug, Default)]
struct Attempts {
    failed: Option<(Instant, ClientError)>,
}

/// A moment's [`stamp`] since [`Budget::start`]; zero is none.
#[derive(Debug, Default)]
struct Stamp(AtomicU64);

impl Stamp {
    fn get(&self) -> u64 {
        self.0.load(SeqCst)
    }

    /// Writes only what is new, so that the others' caches keep it.
    fn show(&self, stamp: u64) {
        if self.get() != stamp {
            self.0.store(stamp, SeqCst);
        }
    }
}

/// What clients of a pool are greeted with, captured from one of its servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Welcome {
    /// Names and values in the order in which the server reported them.
    pub parameters: Vec<(Vec<u8>, Vec<u8>)>,
}

/// One pool, as all workers share it.
pub struct PoolShare {
    /// Database entry and server-side user.
    pub key: PoolKey,
    servers: Tally,
    reserve: AtomicU32,
    database: Arc<Tally>,
    user: Arc<Tally>,
    /// Connections that carry cancel requests.
    pub cancels: AtomicUsize,
    /// Replication clients for whose own servers there was no room yet.
    wishes: AtomicUsize,
    faces: Box<[Face]>,
    /// For each worker: when its oldest waiting client began to wait. Apart from the faces and close together, since everybody
    /// reads all of them with every query, and they hardly change while servers suffice.
    waiting: Box<[Stamp]>,
    /// One for each worker, and last the connections between workers.
    balances: Box<[Balance]>,
    /// A bit for each worker that counts on a server that others have to spare.
    counting: AtomicU64,
    /// Connections being opened.
    dialing: AtomicUsize,
    attempts: Mutex<Attempts>,
    /// The last attempt failed; spares the query path the lock of `attempts`.
    attempts_fail: AtomicBool,
    /// Taken to close a server for its age.
    pub closings: Arc<Turn>,
    /// Since when there are neither clients nor servers.
    unused_since: Stamp,
    /// What shards that are no more had measured. Locked when one ends, and when somebody reads.
    retired: Mutex<PoolMeasures>,
    welcome: RwLock<Option<Arc<Welcome>>>,
    /// The next server's greeting replaces it.
    welcome_outdated: AtomicBool,
    /// As whom servers are logged in to. Locked when one is connected, and when a client has logged in.
    credentials: RwLock<Arc<User>>,
    epoch: AtomicU64,
    next_host: AtomicUsize,
    start: Instant,
    poke: Poke,
}

impl std::fmt::Debug for PoolShare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PoolShare({}, {:?})", self.key, self.servers)
    }
}

/// The right to one server connection; dropping it gives the right back.
#[derive(Debug)]
pub struct Slot {
    share: Arc<PoolShare>,
    /// It still counts in the pool.
    counted: bool,
}

impl Slot {
    /// The pool that it belongs to.
    pub fn share(&self) -> &Arc<PoolShare> {
        &self.share
    }

    /// Takes it out of the pool's count if more than `floor` are in it: then its connection must be closed now. So several workers
    /// that shrink a pool at once never shrink it further than meant.
    pub fn leave_above(&mut self, floor: usize) -> bool {
        if self.counted && self.share.servers.drop_above(floor) {
            self.counted = false;
        }
        !self.counted
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let share = &self.share;
        share.user.give_back(&share.poke);
        share.database.give_back(&share.poke);
        if self.counted {
            share.servers.give_back(&share.poke);
        } else {
            share.servers.wake(&share.poke);
        }
    }
}

/// A client waits for a server of its own, until dropped: those who only borrow servers leave room for it.
#[derive(Debug)]
pub struct Wish {
    share: Arc<PoolShare>,
}

impl Drop for Wish {
    fn drop(&mut self) {
        self.share.wishes.fetch_sub(1, SeqCst);
    }
}

/// A connection between two workers, counted until dropped: when its new shard has shown that it is there, or when it is lost.
#[derive(Debug)]
pub struct Journey {
    share: Arc<PoolShare>,
}

impl Drop for Journey {
    fn drop(&mut self) {
        self.share.between_workers().fetch_sub(1, SeqCst);
        self.share.poke_counting();
    }
}

/// An attempt to connect, counted until dropped.
#[derive(Debug)]
pub struct Attempt {
    share: Arc<PoolShare>,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.share.dialing.fetch_sub(1, SeqCst);
    }
}

impl PoolShare {
    /// Takes a slot, if all limits allow it. `reserve` lets the pool exceed `pool_size` by its reserve. A worker that is refused is
    /// poked when it may be worth another try.
    pub fn try_open(self: &Arc<Self>, worker: WorkerId, reserve: bool) -> Result<Slot, Denied> {
        let mut remembered = [None; 3];
        loop {
            let Err(denied) = self.try_take(reserve) else {
                return Ok(self.slot());
            };
            if remembered.contains(&Some(denied)) {
                return Err(denied);
            }
            // Whichever limit refuses, the worker has to be in its books before the last try.
            match denied {
                Denied::Pool => self.servers.remember(worker),
                Denied::Database => self.database.remember(worker),
                Denied::User => self.user.remember(worker),
            }
            remembered[denied as usize] = Some(denied);
        }
    }

    /// Takes a slot if the pool has fewer than `floor` (`min_pool_size`) and all limits allow it. Nobody is remembered.
    pub fn try_grow(self: &Arc<Self>, floor: usize) -> Option<Slot> {
        let ceiling = match self.servers.limit.load(SeqCst) {
            0 => floor,
            limit => limit.min(floor),
        };
        let taken = self.servers.take_below(ceiling) && self.try_take_rest().is_ok();
        taken.then(|| self.slot())
    }

    fn slot(self: &Arc<Self>) -> Slot {
        Slot {
            share: self.clone(),
            counted: true,
        }
    }

    fn try_take(&self, reserve: bool) -> Result<(), Denied> {
        if !self
            .servers
            .try_take(if reserve { self.reserve() } else { 0 })
        {
            return Err(Denied::Pool);
        }
        self.try_take_rest()
    }

    /// The pool's own count has been taken: now the others', or none.
    fn try_take_rest(&self) -> Result<(), Denied> {
        if !self.database.try_take(0) {
            self.servers.give_back(&self.poke);
            return Err(Denied::Database);
        }
        if !self.user.try_take(0) {
            self.database.give_back(&self.poke);
            self.servers.give_back(&self.poke);
            return Err(Denied::User);
        }
        Ok(())
    }

    /// The worker has been refused, will be poked, and nothing has come free since: it need not try again. Reads only.
    pub fn stays_full(&self, worker: WorkerId) -> bool {
        self.servers.remembers(worker) && self.servers.is_full()
    }

    /// The pool has as many connections as it may, without the reserve.
    pub fn is_full(&self) -> bool {
        self.servers.is_full()
    }

    /// The first limit that leaves no room, of those that a connection would count against.
    pub fn full_limit(&self) -> Option<Denied> {
        let limits = [
            (&self.servers, Denied::Pool),
            (&*self.database, Denied::Database),
            (&*self.user, Denied::User),
        ];
        let full = limits.into_iter().find(|(tally, _)| tally.is_full());
        full.map(|(_, denied)| denied)
    }

    /// A limit that other pools share is reached, and somebody was refused because of it who has not been poked since.
    pub fn is_crowded(&self) -> bool {
        let refuses = |tally: &Tally| tally.is_full() && tally.hungry.load(SeqCst) != 0;
        refuses(&self.database) || refuses(&self.user)
    }

    /// A client begins to wait for a server of its own.
    pub fn wish(self: &Arc<Self>) -> Wish {
        self.wishes.fetch_add(1, SeqCst);
        Wish {
            share: self.clone(),
        }
    }

    /// The pool is full and a client waits for a server of its own, which cannot be lent to it: one that comes free is to be closed.
    #[inline]
    pub fn wants_room(&self) -> bool {
        self.wishes.load(SeqCst) > 0 && self.servers.is_full()
    }

    /// What room there is left is for clients that wait for servers of their own. They are served first: in a pool that is always
    /// busy no server would ever rest, and they would never get one.
    pub fn keeps_room(&self) -> bool {
        let wishes = self.wishes.load(SeqCst);
        let limit = self.servers.limit.load(SeqCst);
        wishes > 0 && limit != 0 && self.servers.count() + wishes >= limit
    }

    /// A server has come to rest: whoever was refused because of a limit that others share may want it closed.
    #[inline]
    pub fn nudge(&self) {
        self.database.wake(&self.poke);
        self.user.wake(&self.poke);
    }

    /// Server connections of the pool, those being opened included.
    pub fn servers(&self) -> usize {
        self.servers.count()
    }

    /// Server connections of the database.
    pub fn database_servers(&self) -> usize {
        self.database.count()
    }

    /// A worker shows how many servers rest in its shard, those to be tested first included.
    pub fn show_resting(&self, worker: WorkerId, resting: usize) {
        let shown = &self.faces[worker].resting;
        if shown.load(SeqCst) != resting {
            shown.store(resting, SeqCst);
        }
    }

    /// A worker shows how many servers are being opened or tested in its shard, less the clients that wait there.
    pub fn show_balance(&self, worker: WorkerId, balance: isize) {
        let shown = &self.balances[worker].0;
        let before = shown.load(SeqCst);
        if before == balance {
            return;
        }
        shown.store(balance, SeqCst);
        if balance < before && before > 0 {
            self.poke_counting();
        }
    }

    /// Over all workers: servers that are being opened or tested, or are between workers, less the clients that wait. Below zero more
    /// connections would help; else somebody has one to spare for each who waits, and gives it away when it is there.
    pub fn balance(&self) -> isize {
        // Those between workers first. One that sets out or arrives meanwhile may be counted twice: whose balance was above zero
        // without it, and the end of its journey, poke those who relied on that. Or it is missed, and one connection more is opened.
        let balances = self.balances.iter().rev();
        balances.map(|balance| balance.0.load(SeqCst)).sum()
    }

    /// A connection sets out for another worker.
    pub fn set_out(self: &Arc<Self>) -> Journey {
        self.between_workers().fetch_add(1, SeqCst);
        Journey {
            share: self.clone(),
        }
    }

    fn between_workers(&self) -> &AtomicIsize {
        &self.balances[self.faces.len()].0
    }

    /// The other workers have, or soon will have, a server to spare for each client that waits on this one: it need not open any, and
    /// is poked if one does not come.
    pub fn provides_for(&self, worker: WorkerId) -> bool {
        if self.balance() < 0 {
            return false;
        }
        self.counting.fetch_or(1 << worker, SeqCst);
        self.balance() >= 0
    }

    /// Fewer servers are to spare than before: if that is too few, those who counted on one look again.
    fn poke_counting(&self) {
        if self.counting.load(SeqCst) != 0 && self.balance() < 0 {
            poke_all(self.counting.swap(0, SeqCst), &self.poke);
        }
    }

    /// A worker shows since when somebody waits in its shard.
    pub fn show_waiting(&self, worker: WorkerId, since: Option<Instant>) {
        self.waiting[worker].show(since.map_or(0, |since| stamp(self.start, since)));
    }

    /// Counts a client as belonging to the worker that has fewest of this pool.
    pub fn seat(self: &Arc<Self>) -> (WorkerId, Seat) {
        let fewest = self
            .faces
            .iter()
            .enumerate()
            .min_by_key(|(_, face)| face.clients.load(SeqCst));
        let worker = fewest.map_or(0, |(worker, _)| worker);
        self.faces[worker].clients.fetch_add(1, SeqCst);
        self.unused_since.show(0);
        (
            worker,
            Seat {
                share: self.clone(),
                worker,
            },
        )
    }

    /// The other worker whose client has waited longest, and since when.
    pub fn hungriest_other(&self, worker: WorkerId) -> Option<(WorkerId, Instant)> {
        let stamps = self.waiting.iter().map(Stamp::get).zip(0..);
        let others = stamps.filter(|(stamp, other)| *stamp != 0 && *other != worker);
        let (stamp, other) = others.min()?;
        Some((other, moment(self.start, stamp)?))
    }

    /// True if a client waits on that worker.
    pub fn is_waiting(&self, worker: WorkerId) -> bool {
        self.waiting[worker].get() != 0
    }

    /// The other worker with most servers at rest, if there is any.
    pub fn richest_other(&self, worker: WorkerId) -> Option<WorkerId> {
        let resting = self.faces.iter().map(|face| face.resting.load(SeqCst));
        let others = resting
            .zip(0..)
            .filter(|(resting, other)| *other != worker && *resting > 0);
        others.max().map(|(_, other)| other)
    }

    /// For how long the pool has had neither clients nor servers, as far as was noticed: this has to be asked from time to time.
    pub fn unused_for(&self, now: Instant) -> Option<Duration> {
        if self.is_used() {
            self.unused_since.show(0);
            return None;
        }
        let now_stamp = stamp(self.start, now);
        let known = self
            .unused_since
            .0
            .compare_exchange(0, now_stamp, SeqCst, SeqCst);
        let since = moment(self.start, known.err().unwrap_or(now_stamp))?;
        Some(now.saturating_duration_since(since))
    }

    fn is_used(&self) -> bool {
        let clients = |face: &Face| face.clients.load(SeqCst) > 0;
        self.servers() > 0 || self.cancels.load(SeqCst) > 0 || self.faces.iter().any(clients)
    }

    /// Counts an attempt to connect, if one may begin now: after a failure not before `retry` has passed, and only one at a time
    /// until one succeeds.
    pub fn begin_attempt(self: &Arc<Self>, now: Instant, retry: Duration) -> Option<Attempt> {
        let attempts = self.attempts.lock();
        if let Some((failed, _)) = &attempts.failed
            && (now.saturating_duration_since(*failed) < retry || self.dialing.load(SeqCst) > 0)
        {
            return None;
        }
        self.dialing.fetch_add(1, SeqCst);
        Some(Attempt {
            share: self.clone(),
        })
    }

    /// When the next attempt may begin, if the last one failed.
    pub fn next_attempt(&self, retry: Duration) -> Option<Instant> {
        let attempts = self.attempts.lock();
        attempts.failed.as_ref().map(|(failed, _)| *failed + retry)
    }

    /// The last attempt failed.
    pub fn attempt_failed(&self, now: Instant, error: ClientError) {
        let mut attempts = self.attempts.lock();
        attempts.failed = Some((now, error));
        self.attempts_fail.store(true, SeqCst);
    }

    /// The last attempt succeeded. If the one before did not, all workers may try again now.
    pub fn attempt_succeeded(&self) {
        if self.forget_failure() {
            (0..self.faces.len()).for_each(|worker| (self.poke)(worker));
        }
    }

    fn forget_failure(&self) -> bool {
        if !self.attempts_fail.load(SeqCst) {
            return false;
        }
        let mut attempts = self.attempts.lock();
        self.attempts_fail.store(false, SeqCst);
        attempts.failed.take().is_some()
    }

    /// The last attempt has failed: [`PoolShare::failing`] may have something to say. Reads only.
    #[inline]
    pub fn attempts_fail(&self) -> bool {
        self.attempts_fail.load(SeqCst)
    }

    /// The error of the last attempt, if no server is there, and the next attempt may not begin yet.
    pub fn failing(&self, now: Instant, retry: Duration) -> Option<ClientError> {
        if !self.attempts_fail() {
            return None;
        }
        let attempts = self.attempts.lock();
        let (failed, error) = attempts.failed.as_ref()?;
        (!self.has_servers() && now.saturating_duration_since(*failed) < retry)
            .then(|| error.clone())
    }

    /// When and why the last attempt failed, if it did.
    pub fn last_failure(&self) -> Option<(Instant, ClientError)> {
        let attempts = self.attempts_fail().then(|| self.attempts.lock())?;
        attempts.failed.clone()
    }

    /// True if a server is connected, not counting those being opened.
    pub fn has_servers(&self) -> bool {
        self.servers.count() > self.dialing.load(SeqCst)
    }

    /// A shard ends: what it had measured is kept, so that no count ever goes down.
    pub fn retire(&self, measures: &PoolMeasures) {
        self.retired.lock().merge(measures);
    }

    /// What shards that are no more had measured.
    pub fn retired(&self) -> PoolMeasures {
        self.retired.lock().clone()
    }

    /// The limits of its connections.
    pub fn limits(&self) -> PoolLimits {
        let limit = |tally: &Tally| tally.limit.load(SeqCst) as u64;
        PoolLimits {
            pool: limit(&self.servers),
            reserve: self.reserve() as u64,
            database: limit(&self.database),
            user: limit(&self.user),
        }
    }

    /// What clients are greeted with, if a server has told it.
    pub fn welcome(&self) -> Option<Arc<Welcome>> {
        self.welcome.read().clone()
    }

    /// A server of generation `epoch` has told what clients are greeted with.
    pub fn capture_welcome(&self, epoch: u64, welcome: impl FnOnce() -> Welcome) {
        let mut captured = self.welcome.write();
        let wanted = captured.is_none() || self.welcome_outdated.load(SeqCst);
        if wanted && epoch == self.epoch() {
            *captured = Some(Arc::new(welcome()));
            self.welcome_outdated.store(false, SeqCst);
        }
    }

    /// Some servers are not where they should be: what the next one tells replaces what clients are greeted with. Until then they
    /// are greeted as before, since others may still rest in the pool, and no new one be needed.
    pub fn outdate_welcome(&self) {
        self.welcome_outdated.store(true, SeqCst);
    }

    /// As whom, and with which secret, servers are logged in to from now on.
    pub fn credentials(&self) -> Arc<User> {
        self.credentials.read().clone()
    }

    /// A client has shown the secret that servers are to be logged in to with.
    pub fn show_credentials(&self, user: &Arc<User>) {
        let is_known = {
            let known = self.credentials.read();
            Arc::ptr_eq(&known, user) || known.is_twin_of(user)
        };
        if !is_known {
            *self.credentials.write() = user.clone();
        }
    }

    /// What the configuration knows of the user; if that is no secret, one that a client has shown stays.
    pub fn offer_credentials(&self, user: &Arc<User>) {
        if !user.secret().is_none() {
            self.show_credentials(user);
        }
    }

    /// The generation that servers must be of.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(SeqCst)
    }

    /// Begins a new generation: what was captured is forgotten, and that connecting failed, since it will be done differently. The
    /// workers have to be told.
    pub fn renew(&self) {
        let mut captured = self.welcome.write();
        self.epoch.fetch_add(1, SeqCst);
        *captured = None;
        self.forget_failure();
    }

    /// The number of the next connection, for taking hosts in turn.
    pub fn next_host(&self) -> usize {
        self.next_host.fetch_add(1, SeqCst)
    }

    /// The number of the next connection without counting it, for staying with a host.
    pub fn current_host(&self) -> usize {
        self.next_host.load(SeqCst)
    }

    /// Goes on to the next host, unless somebody has left this one already.
    pub fn leave_host(&self, turn: usize) {
        let next = turn.wrapping_add(1);
        let _ = self.next_host.compare_exchange(turn, next, SeqCst, SeqCst);
    }

    /// Applies changed limits. Whoever was refused may try again.
    pub fn set_limits(&self, settings: &PoolSettings) {
        self.servers.set_limit(settings.pool_size as usize);
        let usable = !settings.reserve_pool_timeout.is_zero();
        self.reserve.store(
            if usable {
                settings.reserve_pool_size
            } else {
                0
            },
            SeqCst,
        );
        self.database
            .set_limit(settings.max_db_connections as usize);
        self.user.set_limit(settings.max_user_connections as usize);
        for tally in [&self.servers, &*self.database, &*self.user] {
            tally.wake(&self.poke);
        }
    }

    /// `reserve_pool_size`, if the reserve is in use at all.
    pub fn reserve(&self) -> usize {
        self.reserve.load(SeqCst) as usize
    }
}

/// The user of a pool whose secret nobody has shown yet.
fn nobody(key: &PoolKey) -> Arc<User> {
    Arc::new(User::new(key.user.as_bytes(), Secret::None))
}

/// Every pool's shared part, and the counters that pools have in common.
pub struct Budget {
    workers: usize,
    start: Instant,
    poke: Poke,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    pools: HashMap<PoolKey, Arc<PoolShare>>,
    databases: HashMap<String, Arc<Tally>>,
    users: HashMap<String, Arc<Tally>>,
}

impl Budget {
    /// No pools yet. `poke` makes a worker look at its waiting clients again.
    pub fn new(workers: usize, poke: Poke) -> Budget {
        Budget {
            workers,
            start: Instant::now(),
            poke,
            known: Mutex::default(),
        }
    }

    /// The beginning of the time that is counted in.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// The pool with this name, made if there is none.
    pub fn pool(&self, key: &PoolKey, settings: &PoolSettings) -> Arc<PoolShare> {
        let mut known = self.known.lock();
        if let Some(share) = known.pools.get(key) {
            return share.clone();
        }
        let share = Arc::new(PoolShare {
            key: key.clone(),
            servers: Tally::default(),
            reserve: AtomicU32::new(0),
            database: known
                .databases
                .entry(key.database.clone())
                .or_default()
                .clone(),
            user: known.users.entry(key.user.clone()).or_default().clone(),
            cancels: AtomicUsize::new(0),
            wishes: AtomicUsize::new(0),
            faces: (0..self.workers).map(|_| Face::default()).collect(),
            waiting: (0..self.workers).map(|_| Stamp::default()).collect(),
            balances: (0..=self.workers).map(|_| Balance::default()).collect(),
            counting: AtomicU64::new(0),
            dialing: AtomicUsize::new(0),
            attempts: Mutex::default(),
            attempts_fail: AtomicBool::new(false),
            closings: Arc::new(Turn::new(self.start)),
            unused_since: Stamp::default(),
            retired: Mutex::new(PoolMeasures::of(key)),
            welcome: RwLock::default(),
            welcome_outdated: AtomicBool::new(false),
            credentials: RwLock::new(nobody(key)),
            epoch: AtomicU64::new(0),
            next_host: AtomicUsize::new(0),
            start: self.start,
            poke: self.poke.clone(),
        });
        share.set_limits(settings);
        known.pools.insert(key.clone(), share.clone());
        share
    }

    /// Every pool.
    pub fn pools(&self) -> Vec<Arc<PoolShare>> {
        self.known.lock().pools.values().cloned().collect()
    }

    /// Forgets a pool; whoever still holds a part of it counts on.
    pub fn forget(&self, key: &PoolKey) {
        self.known.lock().pools.remove(key);
    }

    /// Forgets every pool that nobody holds any part of (no worker, no client, no connection), and tells which.
    pub fn sweep(&self) -> Vec<PoolKey> {
        let mut known = self.known.lock();
        // The map's own is the only one left, and nobody can get another while the map is locked.
        let gone = known
            .pools
            .extract_if(|_, share| Arc::strong_count(share) == 1);
        let gone = gone.map(|(key, _)| key).collect();
        known
            .databases
            .retain(|_, tally| Arc::strong_count(tally) > 1);
        known.users.retain(|_, tally| Arc::strong_count(tally) > 1);
        gone
    }

    /// True if some pool of this database is known.
    pub fn knows_database(&self, database: &str) -> bool {
        let known = self.known.lock();
        known.pools.keys().any(|key| key.database == database)
    }

    /// Server connections of a database, and of a user.
    pub fn servers_of(&self, database: &str, user: &str) -> (usize, usize) {
        let known = self.known.lock();
        let count = |tally: Option<&Arc<Tally>>| tally.map_or(0, |tally| tally.count());
        (
            count(known.databases.get(database)),
            count(known.users.get(user)),
        )
    }
}

#[cfg(test)]
mod tests;
