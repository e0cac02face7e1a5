//! What the console asks of the rest of the program. The app implements it; tests have one that writes down what it is told.
//!
//! The console checks first whatever can be checked from [`Operator::config`], [`Operator::state`] and [`Operator::database`]; the
//! methods that change something only need to report what goes wrong on the way.

use std::future::Future;
use std::sync::Arc;

use super::error::CommandError;
use super::rows::{
    CertificateRow, DatabaseRow, DnsHostRow, DnsZoneRow, Lists, PeerPoolRow, Reloads, UserRow,
};
use crate::config::Config;
use crate::metrics::{Limit, Measures};
use crate::types::PoolKey;
use crate::worker::report::{ClientView, PoolRow, QueueView, SocketRow};

/// How the program is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownMode {
    /// At once; sockets just close.
    Immediate,
    /// When the servers are released; no client gets a new one.
    WaitForServers,
    /// When all clients have left.
    WaitForClients,
    /// When all clients have been closed where they lose nothing, or at `drain_deadline`.
    Drain,
}

/// What holds for the whole program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GlobalState {
    /// Everything is paused: by PAUSE, a signal, or SHUTDOWN WAIT_FOR_SERVERS.
    pub paused: bool,
    /// The end has been asked for.
    pub shutting_down: bool,
    /// The end that has been asked for is a drain.
    pub draining: bool,
}

/// What holds for one database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatabaseState {
    /// Paused by name (PAUSE db, KILL).
    pub paused: bool,
    /// Refuses new clients.
    pub disabled: bool,
}

/// What a SET did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetOutcome {
    /// The new value is in force.
    Applied,
    /// The value is set, but TLS could not be set up with it and goes on as before.
    OldTlsKept,
}

/// The rest of the program, as the console sees it.
///
/// `None` for a database means all of them.
///
/// The futures of [`pause`](Operator::pause) and [`wait_close`](Operator::wait_close) are dropped when the console's client leaves
/// or cancels: that gives up the waiting only, and what was begun stays in force. The others are awaited to their end, unless the
/// console itself is killed: what must not be done by half must not be done in the future itself.
pub trait Operator {
    /// The configuration in force, values from SET included.
    fn config(&self) -> Arc<Config>;
    /// The state of the whole program.
    fn state(&self) -> GlobalState;
    /// The state of one database: `None` if there is none and none can be made from `*`. Never asked for the console's own.
    fn database(&self, name: &str) -> Option<DatabaseState>;

    /// Every pool: one row per pool and worker, in any order.
    fn pools(&self) -> impl Future<Output = Vec<PoolRow>>;
    /// Everything that was measured, merged over the workers.
    fn measures(&self) -> impl Future<Output = Measures>;
    /// What is known of one client; `None` if no worker has it.
    fn view(&self, id: u64) -> impl Future<Output = Option<ClientView>>;
    /// Who waits for servers of a pool, and who holds those that count against this limit.
    fn queue(&self, pool: &PoolKey, limit: Limit) -> impl Future<Output = QueueView>;
    /// Every logged-in client, in any order.
    fn clients(&self) -> impl Future<Output = Vec<SocketRow>>;
    /// Every client that is still logging in, in any order.
    fn arrivals(&self) -> Vec<SocketRow>;
    /// Every server connection, in any order.
    fn servers(&self) -> impl Future<Output = Vec<SocketRow>>;
    /// Every database, in any order.
    fn databases(&self) -> impl Future<Output = Vec<DatabaseRow>>;
    /// Every known user, in any order.
    fn users(&self) -> impl Future<Output = Vec<UserRow>>;
    /// The rest of SHOW LISTS, beside these rows of [`Operator::pools`].
    fn lists(&self, pools: &[PoolRow]) -> Lists;
    /// Every peer with its connections, in any order.
    fn peer_pools(&self) -> impl Future<Output = Vec<PeerPoolRow>>;
    /// Every remembered host name, in any order.
    fn dns_hosts(&self) -> impl Future<Output = Vec<DnsHostRow>>;
    /// Every zone whose serial is watched, in any order.
    fn dns_zones(&self) -> impl Future<Output = Vec<DnsZoneRow>>;

    /// How reloads have gone.
    fn reloads(&self) -> Reloads;
    /// The files of certificates in force, with their ends.
    fn certificates(&self) -> Vec<CertificateRow>;
    /// How many lines of the log were held back as repeats since the start.
    fn suppressed_lines(&self) -> u64;

    /// Reads the configuration again. What is wrong with it is logged.
    fn reload(&self) -> impl Future<Output = Result<(), CommandError>>;
    /// Gives a setting a value. Name and value have been checked, and that it can change without a restart.
    fn set(&self, key: &str, value: &str)
    -> impl Future<Output = Result<SetOutcome, CommandError>>;
    /// Pauses, and resolves when no server is in use any more; [`CommandError::PauseEnded`] if a RESUME comes first.
    fn pause(&self, database: Option<&str>) -> impl Future<Output = Result<(), CommandError>>;
    /// Ends a pause. Without a database, databases paused by name stay so.
    fn resume(&self, database: Option<&str>) -> impl Future<Output = Result<(), CommandError>>;
    /// Refuses new clients of the database.
    fn disable(&self, database: &str) -> impl Future<Output = Result<(), CommandError>>;
    /// Accepts them again.
    fn enable(&self, database: &str) -> impl Future<Output = Result<(), CommandError>>;
    /// Has every server connection closed as soon as it is free.
    fn reconnect(&self, database: Option<&str>) -> impl Future<Output = Result<(), CommandError>>;
    /// Pauses the database by name and drops its clients and servers; without a name, every database.
    fn kill(&self, database: Option<&str>) -> impl Future<Output = Result<(), CommandError>>;
    /// Disconnects the client with this id (*admin forced disconnect*); false if there is none. Never asked for a console.
    fn kill_client(&self, id: u64) -> impl Future<Output = bool>;
    /// Resolves when no server connection is left that is to be closed when free.
    fn wait_close(&self, database: Option<&str>) -> impl Future<Output = Result<(), CommandError>>;
    /// Begins the end. For [`ShutdownMode::Immediate`] the console says nothing more.
    fn shutdown(&self, mode: ShutdownMode) -> impl Future<Output = ()>;
}
