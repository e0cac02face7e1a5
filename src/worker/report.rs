//! What a worker tells the operator's side about itself: plain rows, copied when asked for, so that a `SHOW` never takes a lock
//! that a query needs.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use crate::metrics::{Stats, WaitReason};
use crate::net::PeerAddr;
use crate::types::{ConnId, PoolKey};

/// One pool as one worker sees it (its shard); the operator's side adds up the rows of all workers with the same key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolRow {
    /// Name of the database entry.
    pub database: String,
    /// Server-side user.
    pub user: String,
    /// Logged-in clients that are not waiting, idle ones included.
    pub cl_active: u64,
    /// Clients waiting for a server.
    pub cl_waiting: u64,
    /// Cancel requests that are being delivered.
    pub cl_active_cancel_req: u64,
    /// Cancel requests that wait for a connection.
    pub cl_waiting_cancel_req: u64,
    /// Servers linked to a client.
    pub sv_active: u64,
    /// Connections that carry a cancel request.
    pub sv_active_cancel: u64,
    /// Servers kept back until the cancel requests aimed at them are finished.
    pub sv_being_canceled: u64,
    /// Servers ready for use.
    pub sv_idle: u64,
    /// Servers idle so long that they are tested before use.
    pub sv_used: u64,
    /// Servers running a check or reset query.
    pub sv_tested: u64,
    /// Servers connecting or logging in.
    pub sv_login: u64,
    /// How long the oldest waiting client has waited; zero for one that has not sent a query yet.
    pub maxwait: Duration,
    /// What was counted for this pool so far.
    pub stats: Stats,
}

/// So many clients of one kind: what `SHOW CLIENTS` would tell, counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CensusRow {
    /// Name of the database entry; [`EVERYBODY_ELSE`] if not told apart.
    pub database: String,
    /// Login user; [`EVERYBODY_ELSE`] if not told apart.
    pub user: String,
    /// Last known application_name; [`EVERYBODY_ELSE`] if not told apart.
    pub application_name: String,
    /// The state's word, as PgBouncer has it.
    pub state: &'static str,
    /// How many.
    pub clients: u64,
}

/// What stands for a name where those that are left over are counted together.
pub const EVERYBODY_ELSE: &str = "*";

/// One client or server connection: a row of `SHOW CLIENTS` or `SHOW SERVERS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketRow {
    /// Login user of a client, server-side user of a server.
    pub user: String,
    /// Name of the database entry.
    pub database: String,
    /// `none`, `logical` or `physical`.
    pub replication: &'static str,
    /// The state's word, as PgBouncer has it.
    pub state: &'static str,
    /// Remote address; `unix` for a Unix socket.
    pub addr: String,
    /// Remote port; the listening port for a Unix socket.
    pub port: u16,
    /// Local address; `unix` for a Unix socket.
    pub local_addr: String,
    /// Local port.
    pub local_port: u16,
    /// When the connection began.
    pub connect_time: SystemTime,
    /// When its last request began.
    pub request_time: SystemTime,
    /// Time since the start of the current wait; zero when nothing waits.
    pub wait: Duration,
    /// The connection will be closed as soon as it is free.
    pub close_needed: bool,
    /// Opaque connection number, also the `C-0x…`/`S-0x…` of the log.
    pub ptr: u64,
    /// [`SocketRow::ptr`] of the connection it is linked with.
    pub link: Option<u64>,
    /// Process id of a Unix socket's peer, or of the server process.
    pub remote_pid: u32,
    /// `TLSv1.3/…`, or empty.
    pub tls: String,
    /// The connection's last known application_name.
    pub application_name: String,
    /// Prepared statements known on this connection.
    pub prepared_statements: u64,
    /// Unique over clients and servers, never reused.
    pub id: u64,
    /// Bytes that it has sent and that are held until they can be acted upon.
    pub held: u64,
    /// Bytes for it that its socket would not take yet.
    pub unsent: u64,
}

impl SocketRow {
    /// A connection of which nothing is known but when it began.
    pub fn new(id: ConnId, since: SystemTime) -> SocketRow {
        SocketRow {
            user: String::new(),
            database: String::new(),
            replication: "none",
            state: "",
            addr: String::new(),
            port: 0,
            local_addr: String::new(),
            local_port: 0,
            connect_time: since,
            request_time: since,
            wait: Duration::ZERO,
            close_needed: false,
            ptr: id.ptr(),
            link: None,
            remote_pid: 0,
            tls: String::new(),
            application_name: String::new(),
            prepared_statements: 0,
            id: id.0,
            held: 0,
            unsent: 0,
        }
    }

    /// A client of which nothing is known but its socket; `local` is `None` for a Unix socket.
    pub fn of_client(
        id: ConnId,
        since: SystemTime,
        peer: PeerAddr,
        local: Option<SocketAddr>,
        listen_port: u16,
    ) -> SocketRow {
        let (addr, port, remote_pid) = match peer {
            PeerAddr::Tcp(addr) => (addr.ip().to_string(), addr.port(), 0),
            PeerAddr::Unix { pid, .. } => ("unix".to_owned(), listen_port, pid.unwrap_or(0)),
        };
        SocketRow {
            addr,
            port,
            local_addr: local.map_or_else(|| "unix".to_owned(), |addr| addr.ip().to_string()),
            local_port: local.map_or(listen_port, |addr| addr.port()),
            remote_pid: remote_pid as u32,
            ..SocketRow::new(id, since)
        }
    }
}

/// What one client does, in more detail than `SHOW CLIENTS` has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientDoes {
    /// Has proved who it is, and is not greeted yet.
    AwaitsGreeting,
    /// Logs in, and `auth_query` runs about it.
    IsAskedAbout,
    /// Nothing, and holds no server.
    Nothing,
    /// Waits for a server.
    Waits,
    /// Has a query running on its server.
    Queries,
    /// Holds a server in a transaction, and asks it nothing.
    IdlesInTransaction,
    /// Holds a server outside any transaction: session pooling, or replication.
    KeepsServer,
}

/// A wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// Since when: that decides who comes first.
    pub since: Instant,
    /// For how long by now.
    pub waited: Duration,
    /// Why, as things are now.
    pub reason: WaitReason,
}

/// What is known of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientView {
    /// Its number, as in `SHOW CLIENTS`.
    pub id: u64,
    /// The pool that it uses.
    pub pool: PoolKey,
    /// The database that it is logged in to.
    pub database: String,
    /// The user that it is logged in as.
    pub user: String,
    /// What it does.
    pub does: ClientDoes,
    /// Its wait for a server, if it waits.
    pub waits: Option<Waits>,
    /// For how long its query has run, waiting included.
    pub query: Option<Duration>,
    /// For how long its transaction has lasted.
    pub transaction: Option<Duration>,
    /// For how long neither it nor its server has said anything.
    pub quiet: Duration,
    /// The process of its server; 0 if it holds none.
    pub server_pid: u32,
}

/// Who holds a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The client.
    pub client: u64,
    /// What it does with it.
    pub does: ClientDoes,
    /// For how long its transaction has lasted; outside a transaction, for how long it has said nothing.
    pub lasts: Duration,
}

/// The queue for one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueView {
    /// Since when each waiting client has waited.
    pub waits: Vec<Instant>,
    /// Servers of the pool that clients use.
    pub in_use: u64,
    /// Why the last attempt to connect a server has failed, if it has.
    pub failure: Option<String>,
    /// Of all who hold servers that count against the limit that is asked about, the one whose transaction has lasted longest.
    pub oldest: Option<Holder>,
}
