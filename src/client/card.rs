//! What is shown of a client, wherever its session is, and the way to tell the session to end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime};

use crate::config::{ClientLimits, PoolSettings};
use crate::error::ClientError;
use crate::net::stream::PeerAddr;
use crate::server::conn::ServerCard;
use crate::server::params::ParamSet;
use crate::types::{ConnId, TxStatus};

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

/// One client, as its worker knows it.
#[derive(Debug)]
pub struct ClientCard {
    /// Number of the connection.
    pub id: ConnId,
    /// Database entry and login user.
    pub database: String,
    /// The user who logged in.
    pub user: String,
    /// Where it comes from.
    pub peer: PeerAddr,
    /// Its end of the socket that is ours.
    pub local: Option<std::net::SocketAddr>,
    /// `none`, `logical` or `physical`.
    pub replication: &'static str,
    /// When it connected.
    pub connected: Instant,
    /// The same by the wall clock.
    pub connect_time: SystemTime,
    /// `TLSv1.3/…`
    pub tls: Option<&'static str>,
    /// What it does.
    pub state: Cell<ClientState>,
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
    /// Transaction status of its server.
    pub status: Cell<TxStatus>,
    /// The server that it is linked with.
    pub linked: RefCell<Option<Rc<ServerCard>>>,
    /// Its tracked parameters.
    pub params: RefCell<Rc<ParamSet>>,
    /// Statements that it has prepared.
    pub prepared: Cell<usize>,
    /// Bytes that it has said and that nobody could act upon, while it waits.
    pub held: Cell<usize>,
    /// Bytes for it that its socket would not take. Kept up to date off the fast path, where there are none.
    pub unsent: Cell<usize>,
    /// Timeouts of its own.
    pub limits: Cell<ClientLimits>,
    notified: Cell<bool>,
    order: RefCell<Option<Order>>,
    waker: RefCell<Option<Waker>>,
}

/// What a new card needs to know.
pub struct CardFacts {
    /// See [`ClientCard`].
    pub id: ConnId,
    /// See [`ClientCard`].
    pub database: String,
    /// See [`ClientCard`].
    pub user: String,
    /// See [`ClientCard`].
    pub peer: PeerAddr,
    /// See [`ClientCard`].
    pub local: Option<std::net::SocketAddr>,
    /// See [`ClientCard`].
    pub replication: &'static str,
    /// See [`ClientCard`].
    pub connected: Instant,
    /// See [`ClientCard`].
    pub connect_time: SystemTime,
    /// See [`ClientCard`].
    pub tls: Option<&'static str>,
}

impl ClientCard {
    /// A client that has proved its identity.
    pub fn new(facts: CardFacts, limits: ClientLimits, params: Rc<ParamSet>) -> ClientCard {
        let now = Instant::now();
        ClientCard {
            id: facts.id,
            database: facts.database,
            user: facts.user,
            peer: facts.peer,
            local: facts.local,
            replication: facts.replication,
            connected: facts.connected,
            connect_time: facts.connect_time,
            tls: facts.tls,
            state: Cell::new(ClientState::Login),
            wait_start: Cell::new(None),
            query_start: Cell::new(None),
            xact_start: Cell::new(None),
            request_time: Cell::new(now),
            last_input: Cell::new(now),
            last_reply: Cell::new(now),
            status: Cell::new(TxStatus::Idle),
            linked: RefCell::new(None),
            params: RefCell::new(params),
            prepared: Cell::new(0),
            held: Cell::new(0),
            unsent: Cell::new(0),
            limits: Cell::new(limits),
            notified: Cell::new(false),
            order: RefCell::new(None),
            waker: RefCell::new(None),
        }
    }

    /// Tells the session something; of several orders the first to disconnect stands.
    pub fn tell(&self, order: Order) {
        let mut told = self.order.borrow_mut();
        if !matches!(*told, Some(Order::Disconnect(_))) {
            *told = Some(order);
        }
        drop(told);
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// What the session has been told, if anything.
    #[inline]
    pub fn order(&self) -> Option<Order> {
        self.order.borrow().as_ref()?;
        self.order.take()
    }

    /// `waker` is woken by [`ClientCard::tell`].
    pub fn watch(&self, waker: &Waker) {
        let mut watched = self.waker.borrow_mut();
        if !watched.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *watched = Some(waker.clone());
        }
    }

    /// The client begins to wait for a server.
    pub fn begin_waiting(&self, now: Instant) {
        self.wait_start.set(Some(now));
        self.notified.set(false);
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
        let limits = self.limits.get();
        let text = match self.state.get() {
            ClientState::Login if over(Some(self.connected), login_timeout) => {
                "client_login_timeout (server down)"
            }
            ClientState::Login if over(self.wait_start.get(), limits.query_wait_timeout) => {
                "query_wait_timeout"
            }
            ClientState::Waiting if over(self.query_start.get(), settings.query_timeout) => {
                "query_timeout"
            }
            ClientState::Waiting if over(self.wait_start.get(), limits.query_wait_timeout) => {
                "query_wait_timeout"
            }
            ClientState::Waiting
                if !self.notified.get()
                    && over(self.wait_start.get(), limits.query_wait_notify) =>
            {
                self.notified.set(true);
                return Some(Order::NotifyWaiting);
            }
            ClientState::Active | ClientState::Inquiring
                if over(self.query_start.get(), settings.query_timeout) =>
            {
                "query timeout"
            }
            ClientState::Active if over(self.xact_start.get(), settings.transaction_timeout) => {
                "transaction timeout"
            }
            ClientState::Active
                if self.idles_in_transaction()
                    && over(self.idle_since(), settings.idle_transaction_timeout) =>
            {
                "idle transaction timeout"
            }
            ClientState::Idle if over(Some(self.last_input.get()), limits.client_idle_timeout) => {
                "client_idle_timeout"
            }
            ClientState::Active
                if self.idles_linked() && over(self.idle_since(), limits.client_idle_timeout) =>
            {
                "client_idle_timeout"
            }
            _ => return None,
        };
        Some(Order::Disconnect(ClientError::new(text)))
    }

    /// How long a query of it has waited for a server; `None` for one that waits for its greeting, or not at all.
    pub fn query_wait(&self, now: Instant) -> Option<Duration> {
        let since = self
            .wait_start
            .get()
            .filter(|_| self.state.get() == ClientState::Waiting)?;
        Some(now.saturating_duration_since(since))
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
        let (id, db, user) = (self.id, &self.database, &self.user);
        match self.peer {
            PeerAddr::Tcp(addr) => format!("C-{id}: {db}/{user}@{addr}"),
            unix @ PeerAddr::Unix { .. } => format!("C-{id}: {db}/{user}@{unix}:{listen_port}"),
        }
    }
}
