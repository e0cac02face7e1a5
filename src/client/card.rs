//! What is shown of a client, wherever its session is, and the way to tell the session to end.

use std::cell::Cell;
use std::fmt;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime};

use super::login::Replication;
use super::profile::{Profile, Profiles};
use crate::config::{ClientLimits, PoolSettings};
use crate::error::ClientError;
use crate::metrics::ErrorKind;
use crate::net::stream::PeerAddr;
use crate::server::conn::ServerCard;
use crate::server::params::ParamSet;
use crate::types::{ConnId, RcCell, TxStatus};

/// What a client does, as far as others care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// Waits to be greeted, or for a server that `auth_query` can be asked of.
    Login,
    /// Not logged in yet: `auth_query` is asked about it.
    Inquiring,
    /// Logged in, nothing to do.
    Idle,
    /// Waits for a server.
    Waiting,
    /// Linked to a server.
    Active,
}

/// What the session is told from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// End with this error; a linked server is closed for the same reason.
    Disconnect(ClientError),
    /// Tell the client that it waits for a server.
    NotifyWaiting,
}

/// One client, as its worker knows it. There is one for each of many thousand clients that do nothing: what they can share is in
/// [`Profile`], and what is rare is in a box.
pub struct ClientCard {
    /// Number of the connection.
    pub id: ConnId,
    /// Where it comes from.
    peer: Origin,
    /// When it connected.
    pub connected: Instant,
    /// The same by the wall clock.
    pub connect_time: SystemTime,
    /// Since when it waits for a server.
    pub wait_start: Cell<Option<Instant>>,
    /// When its current query round began.
    pub query_start: Cell<Option<Instant>>,
    /// When its current transaction began.
    pub xact_start: Cell<Option<Instant>>,
    /// When its last request began.
    pub request_time: Cell<Instant>,
    /// When it was last heard of.
    pub last_input: Cell<Instant>,
    /// When its server was last heard of.
    pub last_reply: Cell<Instant>,
    /// The server that it is linked with.
    pub linked: RcCell<ServerCard>,
    /// Its tracked parameters.
    params: RcCell<ParamSet>,
    /// What it has in common with others.
    profile: RcCell<Profile>,
    order: Cell<Option<Box<Order>>>,
    waker: Cell<Option<Waker>>,
    /// Statements that it has prepared.
    pub prepared: Cell<u32>,
    /// Bytes that it has said and that nobody could act upon, while it waits.
    pub held: Cell<u32>,
    /// Bytes for it that its socket would not take. Kept up to date off the fast path, where there are none.
    pub unsent: Cell<u32>,
    /// What it does.
    pub state: Cell<ClientState>,
    /// Transaction status of its server.
    pub status: Cell<TxStatus>,
    /// Whether it replicates.
    pub replication: Replication,
    /// [`NOTIFIED`] and [`LEAVING`]; two fields would make every card longer.
    marks: Cell<u8>,
}

/// It has been told that it waits.
const NOTIFIED: u8 = 1;
/// It has been asked to leave.
const LEAVING: u8 = 2;

impl fmt::Debug for ClientCard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientCard({})", self.id)
    }
}

/// A [`PeerAddr`] in half the room, if it is not one of IPv6.
#[derive(Debug)]
enum Origin {
    V4(SocketAddrV4),
    V6(Box<SocketAddrV6>),
    Unix { pid: Option<i32>, uid: u32 },
}

impl From<PeerAddr> for Origin {
    fn from(peer: PeerAddr) -> Origin {
        match peer {
            PeerAddr::Tcp(SocketAddr::V4(addr)) => Origin::V4(addr),
            PeerAddr::Tcp(SocketAddr::V6(addr)) => Origin::V6(Box::new(addr)),
            PeerAddr::Unix { pid, uid } => Origin::Unix { pid, uid },
        }
    }
}

/// What a new card needs to know.
pub struct CardFacts {
    /// See [`ClientCard`].
    pub id: ConnId,
    /// See [`Profile`].
    pub database: String,
    /// See [`Profile`].
    pub user: String,
    /// See [`ClientCard`].
    pub peer: PeerAddr,
    /// See [`Profile`].
    pub local: Option<SocketAddr>,
    /// See [`ClientCard`].
    pub replication: Replication,
    /// See [`ClientCard`].
    pub connected: Instant,
    /// See [`ClientCard`].
    pub connect_time: SystemTime,
    /// See [`Profile`].
    pub tls: Option<&'static str>,
}

impl ClientCard {
    /// A client that has proved its identity.
    pub fn new(
        facts: CardFacts,
        limits: ClientLimits,
        params: Rc<ParamSet>,
        profiles: &mut Profiles,
    ) -> ClientCard {
        let now = Instant::now();
        let profile = profiles.share(Profile {
            database: facts.database,
            user: facts.user,
            local: facts.local,
            tls: facts.tls,
            limits,
        });
        ClientCard {
            id: facts.id,
            peer: facts.peer.into(),
            connected: facts.connected,
            connect_time: facts.connect_time,
            wait_start: Cell::new(None),
            query_start: Cell::new(None),
            xact_start: Cell::new(None),
            request_time: Cell::new(now),
            last_input: Cell::new(now),
            last_reply: Cell::new(now),
            linked: RcCell::default(),
            params: RcCell::new(params),
            profile: RcCell::new(profile),
            order: Cell::new(None),
            waker: Cell::new(None),
            prepared: Cell::new(0),
            held: Cell::new(0),
            unsent: Cell::new(0),
            state: Cell::new(ClientState::Login),
            status: Cell::new(TxStatus::Idle),
            replication: facts.replication,
            marks: Cell::new(0),
        }
    }

    /// Where it comes from.
    pub fn peer(&self) -> PeerAddr {
        match self.peer {
            Origin::V4(addr) => PeerAddr::Tcp(SocketAddr::V4(addr)),
            Origin::V6(ref addr) => PeerAddr::Tcp(SocketAddr::V6(**addr)),
            Origin::Unix { pid, uid } => PeerAddr::Unix { pid, uid },
        }
    }

    /// What it has in common with others: names, limits.
    pub fn profile(&self) -> Rc<Profile> {
        // It is made with one, and only ever gets another.
        self.profile.get().expect("a card without profile")
    }

    /// A reload has changed what it may do.
    pub fn set_limits(&self, limits: ClientLimits, profiles: &mut Profiles) {
        let changed = profiles.with_limits(&self.profile(), limits);
        self.profile.set(Some(changed));
    }

    /// Its tracked parameters.
    pub fn params(&self) -> Rc<ParamSet> {
        self.params.get().unwrap_or_default()
    }

    /// Its tracked parameters have changed.
    pub fn set_params(&self, params: Rc<ParamSet>) {
        self.params.set(Some(params));
    }

    /// Tells the session something; of several orders the first to disconnect stands.
    pub fn tell(&self, order: Order) {
        let told = self.order.take();
        let stands = matches!(told.as_deref(), Some(Order::Disconnect(_)));
        self.order
            .set(told.filter(|_| stands).or_else(|| Some(Box::new(order))));
        self.wake();
    }

    /// Asks the session to end as soon as its client loses nothing by that.
    pub fn ask_to_leave(&self) {
        self.marks.set(self.marks.get() | LEAVING);
        self.wake();
    }

    /// Whether it has been asked to.
    #[inline]
    pub fn is_leaving(&self) -> bool {
        self.marks.get() & LEAVING != 0
    }

    fn wake(&self) {
        let waker = self.waker.take();
        if let Some(waker) = &waker {
            waker.wake_by_ref();
        }
        self.waker.set(waker);
    }

    /// What the session has been told, if anything.
    #[inline]
    pub fn order(&self) -> Option<Order> {
        Some(*self.order.take()?)
    }

    /// `waker` is woken by [`ClientCard::tell`].
    #[inline]
    pub fn watch(&self, waker: &Waker) {
        let known = self.waker.take();
        let known = known.filter(|known| known.will_wake(waker));
        self.waker.set(known.or_else(|| Some(waker.clone())));
    }

    /// The client begins to wait for a server.
    pub fn begin_waiting(&self, now: Instant) {
        self.wait_start.set(Some(now));
        self.marks.set(self.marks.get() & !NOTIFIED);
    }

    /// The client does not wait any more; how long it did.
    pub fn end_waiting(&self, now: Instant) -> Duration {
        let since = self.wait_start.take();
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Looks at the clock for this client: the order that is due, if one is.
    pub fn due(
        &self,
        now: Instant,
        settings: &PoolSettings,
        login_timeout: Duration,
    ) -> Option<Order> {
        let over = |since: Option<Instant>, limit: Duration| {
            !limit.is_zero()
                && since.is_some_and(|since| now.saturating_duration_since(since) > limit)
        };
        let limits = self.profile().limits;
        let (text, kind) = match self.state.get() {
            ClientState::Login if over(Some(self.connected), login_timeout) => (
                "client_login_timeout (server down)",
                ErrorKind::ServerUnavailable,
            ),
            ClientState::Login if over(self.wait_start.get(), limits.query_wait_timeout) => {
                ("query_wait_timeout", ErrorKind::QueryWaitTimeout)
            }
            ClientState::Waiting if over(self.query_start.get(), settings.query_timeout) => {
                ("query_timeout", ErrorKind::QueryTimeout)
            }
            ClientState::Waiting if over(self.wait_start.get(), limits.query_wait_timeout) => {
                ("query_wait_timeout", ErrorKind::QueryWaitTimeout)
            }
            ClientState::Waiting
                if self.marks.get() & NOTIFIED == 0
                    && over(self.wait_start.get(), limits.query_wait_notify) =>
            {
                self.marks.set(self.marks.get() | NOTIFIED);
                return Some(Order::NotifyWaiting);
            }
            ClientState::Active | ClientState::Inquiring
                if over(self.query_start.get(), settings.query_timeout) =>
            {
                ("query timeout", ErrorKind::QueryTimeout)
            }
            ClientState::Active if over(self.xact_start.get(), settings.transaction_timeout) => {
                ("transaction timeout", ErrorKind::TransactionTimeout)
            }
            ClientState::Active
                if self.idles_in_transaction()
                    && over(self.idle_since(), settings.idle_transaction_timeout) =>
            {
                (
                    "idle transaction timeout",
                    ErrorKind::IdleTransactionTimeout,
                )
            }
            ClientState::Idle if over(Some(self.last_input.get()), limits.client_idle_timeout) => {
                ("client_idle_timeout", ErrorKind::ClientIdleTimeout)
            }
            ClientState::Active
                if self.idles_linked() && over(self.idle_since(), limits.client_idle_timeout) =>
            {
                ("client_idle_timeout", ErrorKind::ClientIdleTimeout)
            }
            _ => return None,
        };
        Some(Order::Disconnect(ClientError::new(text).as_kind(kind)))
    }

    /// How long a query of it has waited for a server; `None` for one that waits for its greeting, or not at all.
    pub fn query_wait(&self, now: Instant) -> Option<Duration> {
        let since = self
            .wait_start
            .get()
            .filter(|_| self.state.get() == ClientState::Waiting)?;
        Some(now.saturating_duration_since(since))
    }

    /// Since when nothing has happened here, neither in a transaction nor outside; `None` while something does, or is waited for.
    pub fn quiet_since(&self) -> Option<Instant> {
        match self.state.get() {
            ClientState::Idle => self.idle_since(),
            ClientState::Active if self.idles_linked() => self.idle_since(),
            _ => None,
        }
    }

    fn idles_in_transaction(&self) -> bool {
        self.query_start.get().is_none() && self.status.get() != TxStatus::Idle
    }

    /// Session pooling: it keeps its server, but does not use it.
    fn idles_linked(&self) -> bool {
        self.query_start.get().is_none() && self.status.get() == TxStatus::Idle
    }

    fn idle_since(&self) -> Option<Instant> {
        Some(self.last_reply.get().max(self.last_input.get()))
    }

    /// The prefix of log lines about it.
    pub fn who(&self, listen_port: u16) -> String {
        let profile = self.profile();
        let (id, db, user) = (self.id, &profile.database, &profile.user);
        match self.peer() {
            PeerAddr::Tcp(addr) => format!("C-{id}: {db}/{user}@{addr}"),
            unix @ PeerAddr::Unix { .. } => format!("C-{id}: {db}/{user}@{unix}:{listen_port}"),
        }
    }
}
