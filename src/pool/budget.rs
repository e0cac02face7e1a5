//! How many server connections the whole process may have: the only pool state that workers share.
//!
//! A shard opens a connection only with a [`Slot`] in its hand, granted against the limits of the pool, the database and the user
//! at once; the slot goes wherever the connection goes and is given back when it is dropped. So the limits hold exactly, over all
//! workers. Everything here is atomic counters; the maps are locked only when a pool is looked up by name.
//!
//! A worker that was refused is remembered, and poked when a slot comes free. The order that closes the race between "refused,
//! now remember me" and "free, whom do I tell" is: remember first, then try once more.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use crate::config::PoolSettings;
use crate::error::ClientError;
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

    fn try_take(&self, allowance: usize) -> bool {
        let limit = self.limit.load(SeqCst);
        let room = |count: usize| limit == 0 || count < limit + allowance;
        self.count
            .try_update(SeqCst, SeqCst, |count| room(count).then_some(count + 1))
            .is_ok()
    }

    fn give_back(&self, poke: &Poke) {
        self.count.fetch_sub(1, SeqCst);
        let mut hungry = self.hungry.swap(0, SeqCst);
        while hungry != 0 {
            poke(hungry.trailing_zeros() as WorkerId);
            hungry &= hungry - 1;
        }
    }

    fn remember(&self, worker: WorkerId) {
        self.hungry.fetch_or(1 << worker, SeqCst);
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

/// What a worker shows the others of its shard of one pool.
#[derive(Debug, Default)]
pub struct Face {
    /// When its oldest waiting client began to wait, in µs since [`Budget::start`], plus one; zero when nobody waits.
    waiting_since: AtomicU64,
    /// Servers that rest there, ready for use.
    idle: AtomicUsize,
    /// Clients that belong to it.
    clients: AtomicUsize,
}

impl Face {
    /// Shows since when somebody waits here.
    pub fn show_waiting(&self, since: Option<Duration>) {
        let stamp = since.map_or(0, |since| since.as_micros() as u64 + 1);
        if self.waiting_since.load(SeqCst) != stamp {
            self.waiting_since.store(stamp, SeqCst);
        }
    }

    /// Shows how many servers rest here.
    pub fn show_idle(&self, idle: usize) {
        if self.idle.load(SeqCst) != idle {
            self.idle.store(idle, SeqCst);
        }
    }

    /// How many servers rest there.
    pub fn idle(&self) -> usize {
        self.idle.load(SeqCst)
    }
}

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
    faces: Box<[Face]>,
    /// Connections being opened.
    dialing: AtomicUsize,
    attempts: Mutex<Attempts>,
    welcome: RwLock<Option<Arc<Welcome>>>,
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
}

impl Slot {
    /// The pool that it belongs to.
    pub fn share(&self) -> &Arc<PoolShare> {
        &self.share
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let share = &self.share;
        share.user.give_back(&share.poke);
        share.database.give_back(&share.poke);
        share.servers.give_back(&share.poke);
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
        self.try_take(reserve).or_else(|denied| {
            let tally = match denied {
                Denied::Pool => &self.servers,
                Denied::Database => &*self.database,
                Denied::User => &*self.user,
            };
            tally.remember(worker);
            self.try_take(reserve)
        })
    }

    fn try_take(self: &Arc<Self>, reserve: bool) -> Result<Slot, Denied> {
        let allowance = if reserve {
            self.reserve.load(SeqCst) as usize
        } else {
            0
        };
        if !self.servers.try_take(allowance) {
            return Err(Denied::Pool);
        }
        if !self.database.try_take(0) {
            self.servers.give_back(&self.poke);
            return Err(Denied::Database);
        }
        if !self.user.try_take(0) {
            self.database.give_back(&self.poke);
            self.servers.give_back(&self.poke);
            return Err(Denied::User);
        }
        Ok(Slot {
            share: self.clone(),
        })
    }

    /// Server connections of the pool, those being opened included.
    pub fn servers(&self) -> usize {
        self.servers.count()
    }

    /// Server connections of the database.
    pub fn database_servers(&self) -> usize {
        self.database.count()
    }

    /// What a worker shows of its shard.
    pub fn face(&self, worker: WorkerId) -> &Face {
        &self.faces[worker]
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
        let others = self
            .faces
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != worker);
        let waiting = others.map(|(other, face)| (face.waiting_since.load(SeqCst), other));
        let (stamp, other) = waiting.filter(|(stamp, _)| *stamp != 0).min()?;
        Some((other, self.start + Duration::from_micros(stamp - 1)))
    }

    /// Another worker with a server at rest.
    pub fn richest_other(&self, worker: WorkerId) -> Option<WorkerId> {
        let others = self
            .faces
            .iter()
            .enumerate()
            .filter(|(other, face)| *other != worker && face.idle() > 0);
        others
            .max_by_key(|(_, face)| face.idle())
            .map(|(other, _)| other)
    }

    /// Time since the start of the process' clock, as [`Face::show_waiting`] wants it.
    pub fn since_start(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.start)
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
        self.attempts.lock().failed = Some((now, error));
    }

    /// The last attempt succeeded.
    pub fn attempt_succeeded(&self) {
        self.attempts.lock().failed = None;
    }

    /// The error of the last attempt, if no server is there, and the next attempt may not begin yet.
    pub fn failing(&self, now: Instant, retry: Duration) -> Option<ClientError> {
        let attempts = self.attempts.lock();
        let (failed, error) = attempts.failed.as_ref()?;
        (!self.has_servers() && now.saturating_duration_since(*failed) < retry)
            .then(|| error.clone())
    }

    /// True if a server is connected, not counting those being opened.
    pub fn has_servers(&self) -> bool {
        self.servers.count() > self.dialing.load(SeqCst)
    }

    /// What clients are greeted with, if a server has told it.
    pub fn welcome(&self) -> Option<Arc<Welcome>> {
        self.welcome.read().clone()
    }

    /// A server of generation `epoch` has told what clients are greeted with.
    pub fn capture_welcome(&self, epoch: u64, welcome: impl FnOnce() -> Welcome) {
        let mut captured = self.welcome.write();
        if captured.is_none() && epoch == self.epoch() {
            *captured = Some(Arc::new(welcome()));
        }
    }

    /// The generation that servers must be of.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(SeqCst)
    }

    /// Begins a new generation: what was captured is forgotten. The workers have to be told.
    pub fn renew(&self) {
        let mut captured = self.welcome.write();
        self.epoch.fetch_add(1, SeqCst);
        *captured = None;
    }

    /// The number of the next connection, for taking hosts in turn.
    pub fn next_host(&self) -> usize {
        self.next_host.fetch_add(1, SeqCst)
    }

    /// The number that the last [`PoolShare::next_host`] gave plus one, for staying with a host.
    pub fn current_host(&self) -> usize {
        self.next_host.load(SeqCst)
    }

    /// Applies changed limits.
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
    }

    /// `reserve_pool_size`, if the reserve is in use at all.
    pub fn reserve(&self) -> usize {
        self.reserve.load(SeqCst) as usize
    }
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

    /// The beginning of the time that [`Face`] counts in.
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
            faces: (0..self.workers).map(|_| Face::default()).collect(),
            dialing: AtomicUsize::new(0),
            attempts: Mutex::default(),
            welcome: RwLock::default(),
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
