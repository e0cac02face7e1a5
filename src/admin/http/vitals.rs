//! What metrics and health ask of the rest of the program, besides what the console asks.

use std::future::Future;
use std::time::{Duration, Instant};

use crate::admin::desk::Desk;
use crate::admin::operator::Operator;
use crate::admin::rows::Reloads;
use crate::worker::report::CensusRow;

/// One pool, as far as it matters for readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolHealth {
    /// Name of the database entry.
    pub database: String,
    /// Server-side user.
    pub user: String,
    /// A server is connected.
    pub has_servers: bool,
    /// Why the last attempt to connect failed, if none has succeeded since and none is connected.
    pub failure: Option<Failure>,
    /// Connections, those being opened included.
    pub connections: u64,
    /// The most connections that it may have; 0 is no limit.
    pub connections_max: u64,
}

/// An attempt to connect to a server that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// As waiting clients are told.
    pub text: String,
    /// The server was there and refused this user or this database: others may be served.
    pub is_refusal: bool,
    /// It is so recent that no other attempt has been made.
    pub is_recent: bool,
}

/// Whether a server could be connected to, by TCP or a Unix socket, just now or some seconds ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostHealth {
    /// `host:port` or the path of the socket.
    pub host: String,
    /// Why not.
    pub error: Option<String>,
}

/// How the whole program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// It has opened its listeners and put its configuration in force.
    pub started: bool,
    /// The end has been asked for, in whatever way.
    pub shutting_down: bool,
    /// The end has been asked for, and those who are being served are waited for.
    pub draining: bool,
    /// Everything is paused.
    pub paused: bool,
    /// When it began.
    pub since: Instant,
    /// How reloads went.
    pub reloads: Reloads,
    /// Every pool.
    pub pools: Vec<PoolHealth>,
}

/// The rest of the program, as metrics and health see it.
pub trait Vitals: Operator {
    /// The consoles and the book of statistics.
    fn desk(&self) -> &Desk;
    /// How it is.
    fn condition(&self) -> Condition;
    /// The threads that do not answer within `limit`, by name.
    fn silent(&self, limit: Duration) -> impl Future<Output = Vec<String>>;
    /// How many clients of each kind the workers have: at most about `most` rows from each of them.
    fn census(&self, most: usize) -> impl Future<Output = Vec<CensusRow>>;
    /// Tries to connect to the servers that are configured, or remembers how that went some seconds ago.
    fn hosts(&self) -> impl Future<Output = Vec<HostHealth>>;
}
