//! What is read: plain values, one per pool and per worker, and how they add up.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use super::histogram::Histogram;
use super::labels::{Counts, ErrorKind, Limit, PinReason, WaitReason};
use super::stats::Stats;
use super::threads::ThreadCpu;
use crate::types::{PoolKey, WorkerId};

/// Bytes that passed, without logins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// From clients.
    pub client_in: u64,
    /// To clients.
    pub client_out: u64,
    /// From servers.
    pub server_in: u64,
    /// To servers.
    pub server_out: u64,
}

impl AddAssign for Trades {
    fn add_assign(&mut self, other: Trades) {
        self.given += other.given;
        self.taken += other.taken;
    }
}

/// Servers that went from worker to worker. Over all workers both are equal, but for those under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trades {
    /// To another worker.
    pub given: u64,
    /// From another worker.
    pub taken: u64,
}

/// How many server connections there may be at once; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolLimits {
    /// `pool_size`
    pub pool: u64,
    /// `reserve_pool_size`, if it may be used at all.
    pub reserve: u64,
    /// `max_db_connections`, for all pools of the database.
    pub database: u64,
    /// `max_user_connections`, for all pools of the user.
    pub user: u64,
}

/// What was measured of one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolMeasures {
    /// Name of the database entry.
    pub database: String,
    /// Server-side user.
    pub user: String,
    /// Waiting for a server; those who got one at once are counted with no time.
    pub wait: Histogram,
    /// From a client's message to the last owed reply; includes the waiting.
    pub query: Histogram,
    /// Transactions, from their first message to their end; includes the waiting.
    pub transaction: Histogram,
    /// Clients, from their connection to their greeting.
    pub login: Histogram,
    /// Connecting and logging in to servers, successfully.
    pub server_connect: Histogram,
    /// Waits by the reason that held when they began.
    pub waits: Counts<WaitReason>,
    /// Clients that wait now, by the reason that holds now.
    pub waiting: Counts<WaitReason>,
    /// For each reason, how long the one of them that has waited longest has, µs.
    pub longest: Counts<WaitReason>,
    /// Servers kept beyond the end of a transaction.
    pub pins: Counts<PinReason>,
    /// Bytes.
    pub bytes: Bytes,
    /// Uses of prepared statements that the server had already.
    pub prepared_hits: u64,
    /// Uses of prepared statements that had to be prepared on the server first.
    pub prepared_misses: u64,
    /// Connections that were wanted and refused.
    pub denied: Counts<Limit>,
    /// Servers traded between workers.
    pub trades: Trades,
    /// What `SHOW STATS` counts.
    pub stats: Stats,
    /// Clients now, waiting ones included.
    pub clients: u64,
    /// Server connections now, those being opened included.
    pub connections: u64,
    /// How many there may be.
    pub limits: PoolLimits,
}

impl PoolMeasures {
    /// A pool of which nothing was measured yet.
    pub fn of(key: &PoolKey) -> PoolMeasures {
        PoolMeasures {
            database: key.database.clone(),
            user: key.user.clone(),
            ..PoolMeasures::default()
        }
    }

    /// Adds what another worker has measured of the same pool, or what was measured of another pool. Connections and limits are
    /// the whole process' and stay: they are not added up.
    pub fn merge(&mut self, other: &PoolMeasures) {
        self.wait.merge(&other.wait);
        self.query.merge(&other.query);
        self.transaction.merge(&other.transaction);
        self.login.merge(&other.login);
        self.server_connect.merge(&other.server_connect);
        self.waits += &other.waits;
        self.waiting += &other.waiting;
        self.longest.raise(&other.longest);
        self.pins += &other.pins;
        self.bytes.client_in += other.bytes.client_in;
        self.bytes.client_out += other.bytes.client_out;
        self.bytes.server_in += other.bytes.server_in;
        self.bytes.server_out += other.bytes.server_out;
        self.prepared_hits += other.prepared_hits;
        self.prepared_misses += other.prepared_misses;
        self.denied += &other.denied;
        self.trades += other.trades;
        self.stats += other.stats;
        self.clients += other.clients;
    }
}

/// What was measured of one worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerMeasures {
    /// Its number.
    pub worker: WorkerId,
    /// Clients on it, those included that ask `auth_query` for their login.
    pub clients: u64,
    /// Of these, clients that wait for a server.
    pub waiting: u64,
    /// Servers on it, without those being opened.
    pub servers: u64,
    /// Of these, servers linked to a client.
    pub servers_active: u64,
    /// What `SHOW STATS` counts.
    pub stats: Stats,
    /// Servers traded with other workers.
    pub trades: Trades,
    /// Its part of each pool.
    pub pools: Vec<PoolMeasures>,
}

/// Everything that was measured, merged over the workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// The pools, sorted by database and user.
    pub pools: Vec<PoolMeasures>,
    /// The workers, sorted by number; [`WorkerMeasures::pools`] is empty, since they are merged into [`Measures::pools`].
    pub workers: Vec<WorkerMeasures>,
    /// Errors of the whole process.
    pub errors: Counts<ErrorKind>,
    /// What the threads have used of the CPUs, sorted by name.
    pub threads: Vec<ThreadCpu>,
}

/// Makes one pool of all parts of it; sorted.
pub fn merge_pools(parts: impl IntoIterator<Item = PoolMeasures>) -> Vec<PoolMeasures> {
    let mut merged: BTreeMap<(String, String), PoolMeasures> = BTreeMap::new();
    for part in parts {
        let key = (part.database.clone(), part.user.clone());
        match merged.get_mut(&key) {
            Some(sum) => sum.merge(&part),
            None => drop(merged.insert(key, part)),
        }
    }
    merged.into_values().collect()
}
