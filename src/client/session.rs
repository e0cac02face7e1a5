//! One logged-in client: the shell around the two pure walks of [`super::forward`] and [`super::deliver`].
//!
//! A session is one state at a time ([`State`]); the state that needs a server contains it. Nothing here waits in the middle of
//! something: [`Session::poll`] moves bytes as far as they go and says what it waits for. Bytes are read into the worker's scratch
//! buffer and leave from there; only what can't leave or can't be understood yet is kept, in buffers that are empty otherwise.
//!
//! Here: what a session is, its sockets, and its life without a server. A server is made to suit in [`suit`], serves it in
//! [`relay`]; [`ending`] takes a session apart.

mod ending;
mod relay;
mod suit;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

pub use self::ending::Ending;
use super::card::{ClientCard, ClientState, Order};
use super::forward::{self, Rules};
use super::greeting::Greeting;
use super::statements::Statements;
use crate::error::ClientError;
use crate::metrics::ErrorKind;
use crate::net::buffer::Backlog;
use crate::net::stream::Stream;
use crate::pool::lease::Lease;
use crate::pool::shard::Shard;
use crate::pool::ticket::{Grant, Ticket};
use crate::server::align::Listed;
use crate::server::conn::{Outcome, ParamSpace, ServerLost};
use crate::server::params::ParamSet;
use crate::server::prepared::StatementCache;
use crate::wire::build::{self, Severity};
use crate::wire::frame;
use crate::wire::tag::from_client;

/// Bytes read at once: large enough for large results, shared by all clients of a worker.
pub const SCRATCH_LEN: usize = 64 << 10;
/// Bytes that a client may send ahead while it waits for a server; beyond that it is not read.
pub const AHEAD_MAX: usize = 64 << 10;

/// The worker's buffers. Borrowed while a session is polled, never while anything waits.
pub struct Scratch {
    read: Box<[u8]>,
    out: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch {
            read: vec![0; SCRATCH_LEN].into(),
            out: Vec::new(),
        }
    }
}

/// What all sessions of a worker share.
pub struct Surroundings {
    /// Buffers.
    pub scratch: RefCell<Scratch>,
    /// All prepared statements in use.
    pub cache: Arc<StatementCache>,
    /// Tracked parameters.
    pub space: Rc<ParamSpace>,
    /// The pooler shuts down as soon as the servers are free: whoever has to wait is disconnected.
    pub shutting_down: std::cell::Cell<bool>,
}

/// Where a session stands.
enum State {
    /// Not greeted yet; perhaps queued for a server that tells what to greet with.
    Greeting {
        greeting: Box<Greeting>,
        queued: bool,
    },
    /// No server is needed.
    Idle,
    /// In the queue for a server; what the client said is held.
    Waiting,
    /// The server's parameters and statements are being brought into line.
    Aligning(Work<Outcome>),
    /// Linked with a server.
    Attached(Lease),
    /// The server, which is free, is asked which statements the client has prepared by SQL.
    Listing(Work<Listed>),
}

/// A server that does something for its next or last client.
type Work<T> = Pin<Box<dyn Future<Output = (Lease, Result<T, ServerLost>)>>>;

/// Why a session ends.
#[derive(Debug)]
pub enum End {
    /// The client said good-bye.
    Goodbye,
    /// The client is gone.
    Gone,
    /// For this reason, of which the client can't be told: it is in the middle of a message.
    Cut(Box<ClientError>),
    /// The client is told why. (Boxed: every step returns one of these or, nearly always, none.)
    Told(Box<ClientError>),
}

impl End {
    fn told(error: ClientError) -> End {
        End::Told(Box::new(error))
    }
}

/// What the steps of one poll have at hand. The buffer that is read into goes beside it, where something is read.
struct Turn<'a, 'w> {
    cx: &'a mut Context<'w>,
    /// When the poll began.
    now: Instant,
    /// For what can't leave from where it was read.
    out: &'a mut Vec<u8>,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// Something moved: look again.
    Again,
    /// Nothing more can be done before something happens.
    Wait,
}

/// A logged-in client.
pub struct Session {
    /// `None` once the session has ended.
    stream: Option<Stream>,
    card: Rc<ClientCard>,
    shard: Rc<Shard>,
    ticket: Rc<Ticket>,
    around: Rc<Surroundings>,
    state: State,
    rules: Rules,
    statements: Statements,
    params: Rc<ParamSet>,
    /// What the client said and nobody could act upon yet.
    held: Vec<u8>,
    /// Bytes of `held` that are needed before looking again; a message has fewer than 4 GB.
    need: u32,
    /// `held` can't be acted upon before the server has answered something.
    busy: bool,
    /// What the client's socket would not take.
    backlog: Backlog,
}

/// What a new session consists of.
pub struct Parts {
    /// The client's socket.
    pub stream: Stream,
    /// What is shown of it.
    pub card: Rc<ClientCard>,
    /// Its pool.
    pub shard: Rc<Shard>,
    /// What all sessions share.
    pub around: Rc<Surroundings>,
    /// How its messages are treated.
    pub rules: Rules,
    /// Its tracked parameters.
    pub params: Rc<ParamSet>,
    /// What it has sent ahead.
    pub leftover: Vec<u8>,
    /// How it will be greeted.
    pub greeting: Greeting,
}

impl Session {
    /// A client that has proved its identity and is to be greeted.
    pub fn new(parts: Parts) -> Session {
        Session {
            stream: Some(parts.stream),
            ticket: Rc::new(Ticket::of(parts.card.id)),
            card: parts.card,
            shard: parts.shard,
            around: parts.around,
            state: State::Greeting {
                greeting: Box::new(parts.greeting),
                queued: false,
            },
            rules: parts.rules,
            statements: Statements::default(),
            params: parts.params,
            held: parts.leftover,
            need: 0,
            busy: false,
            backlog: Backlog::new(),
        }
    }

    /// Serves the client as far as that is possible now; why the session ends, once it does: then [`Session::end`] is all that is
    /// left to do.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let now = Instant::now();
        self.card.watch(cx.waker());
        if let Some(order) = self.card.order()
            && let Err(end) = self.obey(order)
        {
            return Poll::Ready(end);
        }
        let around = self.around.clone();
        let Scratch { read, out } = &mut *around.scratch.borrow_mut();
        let mut turn = Turn { cx, now, out };
        loop {
            match self.step(&mut turn, read) {
                Ok(Flow::Again) => {}
                Ok(Flow::Wait) => return Poll::Pending,
                Err(end) => return Poll::Ready(end),
            }
        }
    }

    fn obey(&mut self, order: Order) -> Result<(), End> {
        match order {
            Order::Disconnect(error) => Err(End::told(error)),
            Order::NotifyWaiting => {
                let text =
                    b"No server connection available in postgres backend, client being queued";
                let mut notice = Vec::new();
                build::error(&mut notice, Severity::Notice, "00000", text);
                // It goes out with the next flush; between messages, since a waiting client is owed nothing.
                let _ = self.backlog.push(&notice, usize::MAX);
                Ok(())
            }
        }
    }

    fn step(&mut self, turn: &mut Turn<'_, '_>, read: &mut [u8]) -> Result<Flow, End> {
        match self.state {
            State::Greeting { .. } => self.greet(turn, read),
            State::Idle => self.idle(turn, read),
            State::Waiting => self.wait(turn, read),
            State::Aligning(_) => self.align(turn, read),
            State::Attached(_) => self.relay(turn, read),
            State::Listing(_) => self.list(turn),
        }
    }

    /// The one door through which a session changes its state.
    #[inline]
    fn enter(&mut self, state: State) {
        let shown = match state {
            State::Greeting { .. } => ClientState::Login,
            State::Idle => ClientState::Idle,
            State::Waiting => ClientState::Waiting,
            State::Aligning(_) | State::Attached(_) | State::Listing(_) => ClientState::Active,
        };
        self.card.state.set(shown);
        match std::mem::replace(&mut self.state, state) {
            State::Idle | State::Waiting => {} // usually, and nothing to be dropped
            left => drop(left),
        }
    }
}

// Sockets.
impl Session {
    fn stream(&mut self) -> Result<&mut Stream, End> {
        self.stream.as_mut().ok_or(End::Gone)
    }

    /// Reads from the client; zero bytes are its end.
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Result<Option<usize>, End> {
        match self.stream()?.poll_read(cx, buf) {
            Poll::Pending => Ok(None),
            Poll::Ready(Ok(n)) if n > 0 => Ok(Some(n)),
            Poll::Ready(_) => Err(End::Gone),
        }
    }

    /// True if nothing waits for the client any more.
    #[inline]
    fn flush(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if self.is_flushed() {
            Ok(true)
        } else {
            self.flush_backlog(cx)
        }
    }

    #[inline]
    fn is_flushed(&self) -> bool {
        let stream = self.stream.as_ref();
        self.backlog.is_empty() && stream.is_some_and(|stream| !stream.wants_flush())
    }

    fn flush_backlog(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let stream = self.stream.as_mut().ok_or(End::Gone)?;
        let flushed = self.backlog.poll_flush(stream, cx);
        let unsent = u32::try_from(self.backlog.len()).unwrap_or(u32::MAX);
        self.card.unsent.set(unsent);
        match flushed {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(_)) => Err(End::Gone),
        }
    }

    /// Writes to the client what its socket takes, and keeps the rest.
    fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<(), End> {
        let stream = self.stream.as_mut().ok_or(End::Gone)?;
        write_or_keep(stream, &mut self.backlog, cx, bytes).map_err(|_| End::Gone)
    }

    /// Reads more of what the client says while nothing can be done with it, so that its end is noticed.
    fn read_ahead(&mut self, turn: &mut Turn<'_, '_>, read: &mut [u8]) -> Result<Flow, End> {
        while self.held.len() < AHEAD_MAX {
            let Some(n) = self.poll_read(turn.cx, read)? else {
                break;
            };
            self.card.last_input.set(turn.now);
            self.held.extend_from_slice(&read[..n]);
            self.card.held.set(self.held.len() as u32);
        }
        Ok(Flow::Wait)
    }
}

/// Writes what the socket takes and keeps the rest, behind what is kept already.
fn write_or_keep(
    stream: &mut Stream,
    backlog: &mut Backlog,
    cx: &mut Context<'_>,
    mut bytes: &[u8],
) -> io::Result<()> {
    while backlog.is_empty() && !bytes.is_empty() {
        match stream.poll_write(cx, bytes) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(n)) => bytes = &bytes[n..],
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => break,
        }
    }
    if !bytes.is_empty() {
        backlog.push(bytes, usize::MAX).map_err(io::Error::other)?;
    }
    if backlog.is_empty()
        && stream.wants_flush()
        && let Poll::Ready(Err(error)) = stream.poll_flush(cx)
    {
        return Err(error);
    }
    Ok(())
}

// Without a server.
impl Session {
    fn greet(&mut self, turn: &mut Turn<'_, '_>, read: &mut [u8]) -> Result<Flow, End> {
        let now = turn.now;
        let State::Greeting { greeting, queued } = &mut self.state else {
            return Ok(Flow::Again);
        };
        if *queued {
            match self.ticket.take(turn.cx.waker()) {
                None => return self.read_ahead(turn, read),
                Some(Grant::Refused(error)) => return Err(End::Told(error)),
                Some(Grant::Server(lease)) => {
                    *queued = false;
                    if greeting.dedicated() {
                        return self.greet_dedicated(turn, lease);
                    }
                    lease.give_back(now);
                }
            }
        }
        let State::Greeting { greeting, queued } = &mut self.state else {
            return Ok(Flow::Again);
        };
        if !greeting.dedicated()
            && let Some(welcome) = self.shard.share().welcome()
        {
            let (bytes, params) = greeting.compose(&welcome, &self.params, &self.around.space);
            return self.greeted(turn, &bytes, params);
        }
        self.ticket.login.set(true);
        self.card.begin_waiting(now);
        *queued = true;
        if greeting.dedicated() {
            let startup = greeting.startup(&self.params, &self.around.space);
            self.shard
                .dial_dedicated(self.card.id, &self.ticket, startup, now);
        } else if let Some(lease) = self.shard.checkout(&self.ticket, now) {
            *queued = false;
            lease.give_back(now);
        }
        Ok(Flow::Again)
    }

    fn greeted(
        &mut self,
        turn: &mut Turn<'_, '_>,
        bytes: &[u8],
        params: Rc<ParamSet>,
    ) -> Result<Flow, End> {
        self.set_params(params);
        self.card.end_waiting(turn.now);
        self.card.last_input.set(turn.now);
        let took = turn.now.saturating_duration_since(self.card.connected);
        self.shard.gauges().logged_in(took.as_micros() as u64);
        self.shard.count(|stats| stats.client_login_count += 1);
        self.write(turn.cx, bytes)?;
        self.enter(State::Idle);
        Ok(Flow::Again)
    }

    /// A replication client is greeted with its own server's words and keeps that server.
    fn greet_dedicated(&mut self, turn: &mut Turn<'_, '_>, lease: Lease) -> Result<Flow, End> {
        let State::Greeting { greeting, .. } = &mut self.state else {
            return Ok(Flow::Again);
        };
        let welcome = greeting.take_dedicated_welcome(&self.shard, self.card.id);
        // Its own parameters are in the server's words already.
        let own = ParamSet::default();
        let (bytes, _) = greeting.compose(&welcome, &own, &self.around.space);
        let params = lease.link.params.clone();
        self.greeted(turn, &bytes, params)?;
        self.link_with(lease);
        Ok(Flow::Again)
    }

    fn set_params(&mut self, params: Rc<ParamSet>) {
        if !Rc::ptr_eq(&self.params, &params) {
            self.card.set_params(params.clone());
            self.params = params;
        }
    }

    fn idle(&mut self, turn: &mut Turn<'_, '_>, read: &mut [u8]) -> Result<Flow, End> {
        if !self.flush(turn.cx)? {
            return Ok(Flow::Wait);
        }
        if !self.held.is_empty() && self.held.len() >= self.need as usize {
            let input = std::mem::take(&mut self.held);
            return self.begin(turn, &input);
        }
        let Some(n) = self.poll_read(turn.cx, read)? else {
            return self.rest();
        };
        self.card.last_input.set(turn.now);
        if self.held.is_empty() {
            return self.begin(turn, &read[..n]);
        }
        self.held.extend_from_slice(&read[..n]);
        Ok(Flow::Again)
    }

    /// The client says something and has no server.
    fn begin(&mut self, turn: &mut Turn<'_, '_>, input: &[u8]) -> Result<Flow, End> {
        let late = late_copy_len(input, self.rules.max_packet_size)?;
        let input = &input[late.min(input.len())..];
        self.need = 0;
        if late > 0 && input.is_empty() {
            return Ok(Flow::Again);
        }
        if input.len() < frame::HEADER_LEN && input.first() != Some(&from_client::TERMINATE) {
            self.keep(input, frame::HEADER_LEN as u32);
            return Ok(Flow::Again);
        }
        if input[0] == from_client::TERMINATE {
            return Err(End::Goodbye);
        }
        self.note_request(turn.now);
        match self.checkout(turn.now)? {
            Some(lease) => self.attach(turn, lease, input),
            None => {
                self.keep(input, 0);
                self.card.begin_waiting(turn.now);
                self.enter(State::Waiting);
                Ok(Flow::Again)
            }
        }
    }

    fn keep(&mut self, input: &[u8], need: u32) {
        self.held.extend_from_slice(input);
        self.card.held.set(self.held.len() as u32);
        self.need = need;
    }

    fn checkout(&mut self, now: Instant) -> Result<Option<Lease>, End> {
        if let Some(error) = self.shard.failing(now) {
            return Err(End::told(error));
        }
        self.ticket.login.set(false);
        let lease = self.shard.checkout(&self.ticket, now);
        if lease.is_none() && self.around.shutting_down.get() {
            self.shard.leave(&self.ticket);
            return Err(End::told(
                ClientError::new("server shutting down").as_kind(ErrorKind::PoolerShutdown),
            ));
        }
        Ok(lease)
    }

    fn wait(&mut self, turn: &mut Turn<'_, '_>, read: &mut [u8]) -> Result<Flow, End> {
        self.flush(turn.cx)?;
        match self.ticket.take(turn.cx.waker()) {
            None => self.read_ahead(turn, read),
            Some(Grant::Refused(error)) => Err(End::Told(error)),
            Some(Grant::Server(lease)) => {
                let waited = self.card.end_waiting(turn.now);
                let waited = waited.as_micros() as u64;
                self.shard.gauges().waited(waited, true);
                self.shard.count(|stats| stats.wait_time += waited);
                let input = std::mem::take(&mut self.held);
                self.attach(turn, lease, &input)
            }
        }
    }

    #[inline]
    fn link_with(&mut self, lease: Lease) {
        lease.card.linked.set(Some(self.card.id));
        self.card.linked.set(Some(lease.card.clone()));
        self.enter(State::Attached(lease));
    }

    /// A request begins, for the statistics and the timeouts.
    fn note_request(&mut self, now: Instant) {
        if self.card.query_start.get().is_some() {
            return;
        }
        self.card.query_start.set(Some(now));
        self.card.request_time.set(now);
        let new_xact = self.card.xact_start.get().is_none();
        if new_xact {
            self.card.xact_start.set(Some(now));
        }
        self.shard.count(|stats| {
            stats.query_count += 1;
            stats.xact_count += u64::from(new_xact);
        });
    }
}

/// How many bytes at the front are late CopyData, CopyDone or CopyFail (or Flush): PostgreSQL ignores them outside a COPY, so
/// they need no server. A part of such a message that is not here yet counts too, up to what is there.
fn late_copy_len(input: &[u8], limit: u32) -> Result<usize, End> {
    let mut at = 0;
    while let Some(header) = frame::header(&input[at..], limit)
        .map_err(|_| End::told(forward::bad_header(&input[at..])))?
    {
        let late = matches!(
            header.tag,
            from_client::COPY_DATA
                | from_client::COPY_DONE
                | from_client::COPY_FAIL
                | from_client::FLUSH
        );
        if !late || header.total > (input.len() - at) as u64 {
            break;
        }
        at += header.total as usize;
    }
    Ok(at)
}
