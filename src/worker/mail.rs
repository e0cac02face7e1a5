//! What workers are told: by each other, by the front, by the operator's side.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot};

use super::arrivals::Doorman;
use super::drain::{Attendance, DrainPlan};
use super::inquiry::Found;
use super::report::{CensusRow, ClientView, PoolRow, QueueView, SocketRow};
use crate::client::admission::Presence;
use crate::client::card::CardFacts;
use crate::client::forward::Rules;
use crate::client::greeting::Greeting;
use crate::client::login::Replication;
use crate::config::{ClientLimits, PoolSettings};
use crate::error::ClientError;
use crate::metrics::{Limit, WorkerMeasures};
use crate::net::dial::Target;
use crate::net::options::TcpOptions;
use crate::net::stream::PeerAddr;
use crate::net::tls::ServerTls;
use crate::pool::budget::{PoolShare, Seat};
use crate::pool::recipe::{Blueprint, Recipe};
use crate::pool::shard::{PoolMail, Post};
use crate::server::inbox::Line;
use crate::server::params::ParamSet;
use crate::types::{BackendKey, ConnId, PoolKey, WorkerId};

/// A message to a worker.
pub enum Mail {
    /// Between shards, or from a connection attempt.
    Pool(PoolMail),
    /// Clients are to be let in.
    Doorman(Box<Doorman>),
    /// A client has proved its identity.
    Client(Box<Newcomer>),
    /// A login asks `auth_query` who a user is.
    Inquiry(Box<Inquiry>),
    /// Somebody wants to cancel this client's query.
    Cancel(ConnId, oneshot::Sender<CancelAnswer>),
    /// From the operator's side.
    Control(Control),
}

/// The way to a worker's mailbox.
pub type Mailbox = mpsc::UnboundedSender<Mail>;

/// A client that has proved its identity, on its way to its worker.
pub struct Newcomer {
    /// Its socket: of no reactor, or of the worker's that it is on the way to.
    pub stream: Line,
    /// What it has sent ahead.
    pub leftover: Vec<u8>,
    /// Number of the connection.
    pub id: ConnId,
    /// The user who logged in.
    pub login_user: String,
    /// Where it comes from.
    pub peer: PeerAddr,
    /// Our end of its socket; `None` for a Unix socket.
    pub local: Option<SocketAddr>,
    /// When it connected.
    pub connected: Instant,
    /// The same by the wall clock.
    pub connect_time: SystemTime,
    /// `TLSv1.3/…`
    pub tls: Option<&'static str>,
    /// Whether it replicates.
    pub replication: Replication,
    /// Tracked parameters that it gave.
    pub params: ParamSet,
    /// Its pool.
    pub share: Arc<PoolShare>,
    /// The pool's settings.
    pub settings: PoolSettings,
    /// How the pool's servers are connected.
    pub recipe: Recipe,
    /// Timeouts of its own.
    pub limits: ClientLimits,
    /// How its messages are treated.
    pub rules: Rules,
    /// How it will be greeted.
    pub greeting: Greeting,
    /// What is given back when it has gone: its places in the counts, its cancel key.
    pub presence: Presence,
    /// Its place on the worker.
    pub seat: Seat,
}

/// A login that asks a pool who a user is.
pub struct Inquiry {
    /// The pool of the database that is asked, and `auth_user`.
    pub share: Arc<PoolShare>,
    /// The pool's settings.
    pub settings: PoolSettings,
    /// How the pool's servers are connected.
    pub recipe: Recipe,
    /// `auth_query`
    pub query: String,
    /// The name that is asked for.
    pub name: Vec<u8>,
    /// Who wants to log in.
    pub client: CardFacts,
    /// Timeouts of that client.
    pub limits: ClientLimits,
    /// Its place on the worker.
    pub seat: Seat,
    /// Where the answer goes; a closed one means that the client has gone.
    pub reply: oneshot::Sender<Found>,
}

/// What becomes of a cancel request.
pub enum CancelAnswer {
    /// There is nothing to cancel.
    Nothing,
    /// Too many are on their way already: try again later.
    Busy,
    /// Deliver it there.
    Aim(CancelAim),
}

/// Where a cancel request goes. Until this is dropped, the server serves nobody else.
pub struct CancelAim {
    /// Where the server is connected to.
    pub target: Target,
    /// The very address, since a name may have several; `None` for a Unix socket.
    pub addr: Option<IpAddr>,
    /// Its key.
    pub key: BackendKey,
    /// TLS towards it.
    pub tls: Option<Arc<ServerTls>>,
    /// Options of TCP sockets.
    pub tcp: TcpOptions,
    /// How long connecting may take.
    pub timeout: Duration,
    /// Tells the worker when it is over.
    pub guard: CancelGuard,
}

/// Tells the server's worker that a cancel request is finished, when dropped.
pub struct CancelGuard {
    pub(super) share: Arc<PoolShare>,
    pub(super) worker: WorkerId,
    pub(super) server: ConnId,
    pub(super) post: Post,
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        self.share
            .cancels
            .fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
        (self.post)(
            self.worker,
            PoolMail::CancelDone(self.share.key.clone(), self.server),
        );
    }
}

/// Which databases a command is about: one, or all.
pub type Scope = Option<String>;

/// True if `database` is meant.
pub fn in_scope(scope: &Scope, database: &str) -> bool {
    scope.as_deref().is_none_or(|one| one == database)
}

/// A message from the operator's side. Replies that nobody waits for any more are dropped.
pub enum Control {
    /// A new configuration.
    Apply(Arc<Blueprint>),
    /// The generation of these pools has changed ([`PoolShare::renew`]).
    Renew(Scope),
    /// Addresses of host names have gone: servers there are to be closed.
    RetireMisplaced,
    /// Pause or resume.
    Pause(Scope, bool),
    /// Nothing is in use any more in these databases?
    IsQuiet(Scope, oneshot::Sender<bool>),
    /// How many servers are marked to be closed?
    Closing(Scope, oneshot::Sender<usize>),
    /// Disconnect these databases' clients and close their servers.
    Kill(Scope, ClientError),
    /// Disconnect one client; false if it isn't here.
    KillClient(ConnId, ClientError, oneshot::Sender<bool>),
    /// Clients that have to wait are disconnected from now on, and those that wait already.
    RefuseWaiting(ClientError),
    /// Ask clients to leave, a few at a time.
    Drain(DrainPlan),
    /// Who is there?
    Attendance(oneshot::Sender<Attendance>),
    /// Make sure that this pool exists, so that it can grow to its minimum.
    Ensure(Box<(Arc<PoolShare>, PoolSettings, Recipe)>),
    /// The rows of `SHOW POOLS`.
    Pools(oneshot::Sender<Vec<PoolRow>>),
    /// The rows of `SHOW CLIENTS`.
    Clients(oneshot::Sender<Vec<SocketRow>>),
    /// The rows of `SHOW SERVERS`.
    Servers(oneshot::Sender<Vec<SocketRow>>),
    /// How many clients there are of each kind; at most so many rows, of which the last may be about all other clients.
    Census(usize, oneshot::Sender<Vec<CensusRow>>),
    /// Is anybody there?
    Ping(oneshot::Sender<()>),
    /// What is known of one client; nothing if it isn't here.
    View(ConnId, oneshot::Sender<Option<ClientView>>),
    /// Who waits for servers of this pool, and who holds those that count against this limit.
    Queue(PoolKey, Limit, oneshot::Sender<QueueView>),
    /// What was measured.
    Measures(oneshot::Sender<WorkerMeasures>),
    /// Close everything and end.
    Stop,
}

/// The pool that a message is about.
pub(super) fn pool_of(mail: &PoolMail) -> Option<&PoolKey> {
    match mail {
        PoolMail::Dialed(dialed) => Some(&dialed.key),
        PoolMail::Gift(key, ..)
        | PoolMail::Ask(key, _)
        | PoolMail::MakeRoom(key, ..)
        | PoolMail::LoginFailed(key, _)
        | PoolMail::CancelDone(key, _) => Some(key),
        PoolMail::Retry => None,
    }
}
