//! Shards of several workers in one thread, with real connections to a server that speaks just enough of the protocol. What workers
//! say to each other lies in one heap and is delivered in any order.

mod regressions;
mod sim;
mod trading;

use std::collections::HashMap;
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::LocalSet;

use super::*;
use crate::config::{Config, Database};
use crate::net::options::TcpOptions;
use crate::pool::budget::Budget;
use crate::server::params::{Interner, Tracked};
use crate::wire::build;

/// What the server does and has seen.
#[derive(Default)]
struct Postgres {
    /// Logins are refused with this SQLSTATE.
    refuse: RefCell<Option<&'static str>>,
    /// Connections are closed at once.
    crash: Cell<bool>,
    /// Connections that are logged in, by their process id: setting one to true closes it.
    backends: RefCell<HashMap<u32, Rc<tokio::sync::Notify>>>,
    logins: Cell<u32>,
    cancelled: RefCell<Vec<u32>>,
    queries: RefCell<Vec<Vec<u8>>>,
}

impl Postgres {
    fn listen(path: std::path::PathBuf) -> Rc<Postgres> {
        let postgres = Rc::new(Postgres::default());
        let listener = UnixListener::bind(path).unwrap();
        let served = postgres.clone();
        tokio::task::spawn_local(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::task::spawn_local(served.clone().serve(socket));
            }
        });
        postgres
    }

    async fn serve(self: Rc<Self>, socket: UnixStream) {
        let pid = self.logins.get() + 1;
        self.logins.set(pid);
        let gone = Rc::new(tokio::sync::Notify::new());
        tokio::select! {
            _ = self.clone().talk(socket, pid, gone.clone()) => {}
            () = gone.notified() => {}
        }
        self.backends.borrow_mut().remove(&pid);
    }

    async fn talk(
        self: Rc<Self>,
        mut socket: UnixStream,
        pid: u32,
        gone: Rc<tokio::sync::Notify>,
    ) -> std::io::Result<()> {
        if self.crash.get() {
            return Ok(());
        }
        let len = socket.read_u32().await?;
        let mut packet = vec![0; len as usize - 4];
        socket.read_exact(&mut packet).await?;
        if packet[..4] == 80_877_102u32.to_be_bytes() {
            let aim = u32::from_be_bytes(packet[4..8].try_into().unwrap());
            self.cancelled.borrow_mut().push(aim);
            return Ok(());
        }
        let mut out = Vec::new();
        let refuse = *self.refuse.borrow();
        if let Some(sqlstate) = refuse {
            build::error(&mut out, build::Severity::Fatal, sqlstate, b"go away");
            return socket.write_all(&out).await;
        }
        build::authentication_ok(&mut out);
        build::parameter_status(&mut out, b"server_version", b"17.1");
        let mut key = [7; 8];
        key[..4].copy_from_slice(&pid.to_be_bytes());
        build::backend_key_data(&mut out, key);
        build::ready_for_query(&mut out, b'I');
        socket.write_all(&out).await?;
        self.backends.borrow_mut().insert(pid, gone);
        loop {
            let tag = socket.read_u8().await?;
            let len = socket.read_u32().await?;
            let mut body = vec![0; len as usize - 4];
            socket.read_exact(&mut body).await?;
            if tag != b'Q' {
                return Ok(());
            }
            out.clear();
            build::command_complete(&mut out, "SELECT 1");
            build::ready_for_query(&mut out, b'I');
            self.queries.borrow_mut().push(body);
            socket.write_all(&out).await?;
        }
    }

    fn kill(&self, pid: u32) {
        if let Some(gone) = self.backends.borrow().get(&pid) {
            gone.notify_one();
        }
    }

    /// Closes all connections, and waits until the other side can see it.
    async fn kill_all(&self) {
        for gone in self.backends.borrow().values() {
            gone.notify_one();
        }
        while !self.backends.borrow().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

type Heap = Arc<Mutex<Vec<(WorkerId, PoolMail)>>>;

/// A worker without clients: its shards, and what it does with mail.
struct Desk {
    around: Rc<Surroundings>,
    shards: HashMap<PoolKey, Rc<Shard>>,
}

/// Several workers, and what lies between them.
struct House {
    budget: Budget,
    desks: Vec<Desk>,
    heap: Heap,
    postgres: Rc<Postgres>,
    dir: TempDir,
    /// For the order of delivery.
    dice: u64,
}

/// Settings under which nothing happens by itself.
fn settings(pool_size: u32) -> PoolSettings {
    let config = Config::default();
    PoolSettings {
        pool_size,
        ..config.pool_settings(&Database::new("d"), "u")
    }
}

fn key(database: &str, user: &str) -> PoolKey {
    PoolKey {
        database: database.to_owned(),
        user: user.to_owned(),
    }
}

/// Runs a test with a house of this many workers.
fn in_house<T>(workers: usize, dice: u64, test: impl AsyncFnOnce(&mut House) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = LocalSet::new();
    runtime.block_on(local.run_until(async {
        let mut house = House::new(workers, dice);
        let limit = Duration::from_secs(60);
        let tested = tokio::time::timeout(limit, test(&mut house)).await;
        tested.expect("the test hangs")
    }))
}

impl House {
    fn new(workers: usize, dice: u64) -> House {
        let dir = tempfile::tempdir().unwrap();
        let postgres = Postgres::listen(dir.path().join(".s.PGSQL.5432"));
        let heap = Heap::default();
        let (posted, poked) = (heap.clone(), heap.clone());
        let post: Post = Arc::new(move |worker, mail| posted.lock().push((worker, mail)));
        let poke = move |worker| poked.lock().push((worker, PoolMail::Retry));
        let desk = |worker| Desk {
            around: Rc::new(Surroundings {
                who: Box::new(|_| None),
                spawn: Box::new(|work| drop(tokio::task::spawn_local(work))),
                worker,
                workers,
                post: post.clone(),
                logins: tokio::runtime::Handle::current(),
                errors: Arc::default(),
                gone: Cell::default(),
                space: Rc::new(ParamSpace {
                    tracked: Arc::new(Tracked::new(&[])),
                    interner: RefCell::new(Interner::default()),
                }),
            }),
            shards: HashMap::new(),
        };
        House {
            budget: Budget::new(workers, Arc::new(poke)),
            desks: (0..workers).map(desk).collect(),
            heap,
            postgres,
            dir,
            dice,
        }
    }

    fn recipe(&self, key: &PoolKey) -> Recipe {
        Recipe {
            database: Arc::new(Database::new(&key.database)),
            forced_user: false,
            tls: None,
            dns: Default::default(),
            tcp: TcpOptions::default(),
            unix_socket_dir: self.dir.path().display().to_string(),
            log_connections: false,
            log_disconnections: false,
        }
    }

    /// A shard of this pool on every worker.
    fn pool(&mut self, key: &PoolKey, settings: &PoolSettings) -> Vec<Rc<Shard>> {
        let recipe = self.recipe(key);
        self.pool_by(key, settings, &recipe)
    }

    fn pool_by(
        &mut self,
        key: &PoolKey,
        settings: &PoolSettings,
        recipe: &Recipe,
    ) -> Vec<Rc<Shard>> {
        let share = self.budget.pool(key, settings);
        let mut shards = Vec::new();
        for desk in &mut self.desks {
            let (settings, recipe) = (settings.clone(), recipe.clone());
            let shard = Shard::new(share.clone(), settings, recipe, desk.around.clone(), false);
            desk.shards.insert(key.clone(), shard.clone());
            shards.push(shard);
        }
        shards
    }

    fn all_shards(&self) -> Vec<Rc<Shard>> {
        let desks = self.desks.iter();
        desks
            .flat_map(|desk| desk.shards.values().cloned())
            .collect()
    }

    fn roll(&mut self, sides: usize) -> usize {
        self.dice = self
            .dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) as usize % sides
    }

    /// Delivers one letter, whichever; false if there is none.
    fn deliver_one(&mut self, now: Instant) -> bool {
        let letters = self.heap.lock().len();
        if letters == 0 {
            return false;
        }
        let at = self.roll(letters);
        let (worker, mail) = self.heap.lock().swap_remove(at);
        self.deliver(worker, mail, now);
        true
    }

    fn deliver(&mut self, worker: WorkerId, mail: PoolMail, now: Instant) {
        let desk = &self.desks[worker];
        let shard = |key: &PoolKey| desk.shards[key].clone();
        match mail {
            PoolMail::Dialed(dialed) => shard(&dialed.key).dialed(*dialed, now),
            PoolMail::Gift(key, server, slot, journey) => {
                shard(&key).receive(*server, slot, journey, now);
            }
            PoolMail::Ask(key, other) => shard(&key).asked(other, now),
            PoolMail::Retry => desk.shards.values().for_each(|shard| shard.pump(now)),
            PoolMail::MakeRoom(key, denied, begun_by) => {
                self.make_room(worker, key, denied, begun_by)
            }
            PoolMail::LoginFailed(key, error) => shard(&key).refuse_waiters(&error),
            PoolMail::CancelDone(key, id) => shard(&key).cancel_done(id, now),
        }
    }

    /// As a worker does it.
    fn make_room(&self, worker: WorkerId, key: PoolKey, denied: Denied, begun_by: WorkerId) {
        let counts = |of: &PoolKey| match denied {
            Denied::Database => of.database == key.database,
            Denied::User => of.user == key.user,
            Denied::Pool => *of == key,
        };
        let shards = self.desks[worker].shards.values();
        let resting = shards
            .filter(|shard| counts(shard.key()))
            .filter_map(|shard| Some((shard.longest_rest()?, shard)));
        let evicted = resting
            .min_by_key(|(since, _)| *since)
            .is_some_and(|(_, shard)| shard.evict(denied, "evicted"));
        let next = (worker + 1) % self.desks.len();
        if !evicted && next != begun_by {
            self.heap
                .lock()
                .push((next, PoolMail::MakeRoom(key, denied, begun_by)));
        }
    }

    /// Lets everything happen that happens by itself, without a look at the clock.
    async fn quiet(&mut self, now: Instant) {
        let mut letters = 0;
        loop {
            while self.deliver_one(now) {
                letters += 1;
                assert!(letters < 20_000, "the workers write to each other for ever");
            }
            let busy = self.all_shards().iter().any(|shard| {
                let core = shard.core.borrow();
                core.dialing() + core.testing() > 0
                    || shard.dedicated_under_way() > 0
                    || shard
                        .share
                        .cancels
                        .load(std::sync::atomic::Ordering::SeqCst)
                        > 0
            });
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
            if self.heap.lock().is_empty() {
                if !busy {
                    return;
                }
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
        }
    }
}

impl Shard {
    fn dedicated_under_way(&self) -> usize {
        self.dedicated.borrow().len()
    }
}

/// A client as the shard knows it.
#[derive(Default)]
struct Client {
    ticket: Rc<Ticket>,
    lease: Option<Lease>,
    waits: bool,
    /// What it was told, if it was disconnected.
    refused: Option<ClientError>,
}

impl Client {
    fn checkout(&mut self, shard: &Rc<Shard>, now: Instant) {
        self.lease = shard.checkout(&self.ticket, now);
        self.waits = self.lease.is_none();
    }

    /// Takes what was left for it; true if it has a server.
    fn look(&mut self) -> bool {
        match self.ticket.take(Waker::noop()) {
            None => {}
            Some(grant) => {
                assert!(self.waits, "granted without asking");
                self.waits = false;
                match grant {
                    Grant::Server(lease) => self.lease = Some(lease),
                    Grant::Refused(error) => self.refused = Some(*error),
                }
            }
        }
        self.lease.is_some()
    }

    fn give_back(&mut self, now: Instant) {
        self.lease.take().expect("no lease").give_back(now);
    }

    fn pid(&self) -> u32 {
        self.lease.as_ref().expect("no lease").card.facts.key.pid()
    }
}
