//! One logged-in client: the shell around the two pure walks of [`super::forward`] and [`super::deliver`].
//!
//! A session is one state at a time ([`State`]); the state that needs a server contains it. Nothing here waits in the middle of
//! something: [`Session::poll`] moves bytes as far as they go and says what it waits for. Bytes are read into the worker's scratch
//! buffer and leave from there; only what can't leave or can't be understood yet is kept, in buffers that are empty otherwise.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::card::{ClientCard, ClientState, Order};
use super::deliver::{self, Deliver, ServerFault};
use super::forward::{self, Forward, Rules, Stop};
use super::greeting::Greeting;
use super::statements::{Counts, Statements};
use crate::config::PoolMode;
use crate::error::ClientError;
use crate::net::buffer::Backlog;
use crate::net::stream::Stream;
use crate::pool::lease::Lease;
use crate::pool::shard::Shard;
use crate::pool::ticket::{Grant, Ticket};
use crate::server::align::Listed;
use crate::server::conn::{Outcome, ParamSpace, ServerLost};
use crate::server::params::{self, ParamSet};
use crate::server::prepared::StatementCache;
use crate::types::TxStatus;
use crate::wire::build::{self, Severity};
use crate::wire::frame;
use crate::wire::splice::Splice;
use crate::wire::tag::from_client;

/// Bytes read at once: large enough for large results, shared by all clients of a worker.
pub const SCRATCH_LEN: usize = 64 << 10;
/// Bytes that a client may send ahead while it waits for a server; beyond that it is not read.
pub const AHEAD_MAX: usize = 64 << 10;

/// The worker's buffers. Borrowed only within one step, never while anything waits.
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

/// How long a server may take to tell which statements were prepared.
pub const LISTING_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a session ends.
#[derive(Debug)]
pub enum End {
    /// The client said good-bye.
    Goodbye,
    /// The client is gone.
    Gone,
    /// The client is told why.
    Told(ClientError),
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
    /// Bytes of `held` that are needed before looking again.
    need: usize,
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

    /// Serves the client until it ends; then what is left to be told to it.
    pub async fn run(mut self) -> Ending {
        let end = std::future::poll_fn(|cx| self.poll(cx)).await;
        self.end(end)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let now = Instant::now();
        self.card.watch(cx.waker());
        if let Some(order) = self.card.order()
            && let Err(end) = self.obey(order)
        {
            return Poll::Ready(end);
        }
        loop {
            match self.step(cx, now) {
                Ok(Flow::Again) => {}
                Ok(Flow::Wait) => return Poll::Pending,
                Err(end) => return Poll::Ready(end),
            }
        }
    }

    fn obey(&mut self, order: Order) -> Result<(), End> {
        match order {
            Order::Disconnect(error) => Err(End::Told(error)),
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

    fn step(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Flow, End> {
        match self.state {
            State::Greeting { .. } => self.greet(cx, now),
            State::Idle => self.idle(cx, now),
            State::Waiting => self.wait(cx, now),
            State::Aligning(_) => self.align(cx, now),
            State::Attached(_) => self.relay(cx, now),
            State::Listing(_) => self.list(cx, now),
        }
    }

    /// The one door through which a session changes its state.
    fn enter(&mut self, state: State) {
        let shown = match state {
            State::Greeting { .. } => ClientState::Login,
            State::Idle => ClientState::Idle,
            State::Waiting => ClientState::Waiting,
            State::Aligning(_) | State::Attached(_) | State::Listing(_) => ClientState::Active,
        };
        self.card.state.set(shown);
        self.state = state;
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
    fn flush(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let stream = self.stream.as_mut().ok_or(End::Gone)?;
        if self.backlog.is_empty() && !stream.wants_flush() {
            return Ok(true);
        }
        let flushed = self.backlog.poll_flush(stream, cx);
        self.card.unsent.set(self.backlog.as_slice().len());
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
    fn read_ahead(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Flow, End> {
        if self.held.len() >= AHEAD_MAX {
            return Ok(Flow::Wait);
        }
        let around = self.around.clone();
        let scratch = &mut *around.scratch.borrow_mut();
        while self.held.len() < AHEAD_MAX {
            let Some(n) = self.poll_read(cx, &mut scratch.read)? else {
                break;
            };
            self.card.last_input.set(now);
            self.held.extend_from_slice(&scratch.read[..n]);
            self.card.held.set(self.held.len());
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
    backlog.push(bytes, usize::MAX).map_err(io::Error::other)?;
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
    fn greet(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Flow, End> {
        let State::Greeting { greeting, queued } = &mut self.state else {
            return Ok(Flow::Again);
        };
        if *queued {
            match self.ticket.take(cx.waker()) {
                None => return self.read_ahead(cx, now),
                Some(Grant::Refused(error)) => return Err(End::Told(error)),
                Some(Grant::Server(lease)) => {
                    *queued = false;
                    if greeting.dedicated() {
                        return self.greet_dedicated(cx, lease);
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
            return self.greeted(cx, now, &bytes, params);
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
        cx: &mut Context<'_>,
        now: Instant,
        bytes: &[u8],
        params: Rc<ParamSet>,
    ) -> Result<Flow, End> {
        self.set_params(params);
        self.card.end_waiting(now);
        self.card.last_input.set(now);
        self.shard.count(|stats| stats.client_login_count += 1);
        self.write(cx, bytes)?;
        self.enter(State::Idle);
        Ok(Flow::Again)
    }

    /// A replication client is greeted with its own server's words and keeps that server.
    fn greet_dedicated(&mut self, cx: &mut Context<'_>, lease: Lease) -> Result<Flow, End> {
        let State::Greeting { greeting, .. } = &mut self.state else {
            return Ok(Flow::Again);
        };
        let welcome = greeting.take_dedicated_welcome(&self.shard, self.card.id);
        // Its own parameters are in the server's words already.
        let own = ParamSet::default();
        let (bytes, _) = greeting.compose(&welcome, &own, &self.around.space);
        let params = lease.link.params.clone();
        self.greeted(cx, Instant::now(), &bytes, params)?;
        self.link_with(lease);
        Ok(Flow::Again)
    }

    fn set_params(&mut self, params: Rc<ParamSet>) {
        if !Rc::ptr_eq(&self.params, &params) {
            self.card.params.replace(params.clone());
            self.params = params;
        }
    }

    fn idle(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Flow, End> {
        if !self.flush(cx)? {
            return Ok(Flow::Wait);
        }
        if !self.held.is_empty() && self.held.len() >= self.need {
            let input = std::mem::take(&mut self.held);
            return self.begin(cx, now, &input);
        }
        let around = self.around.clone();
        let scratch = &mut *around.scratch.borrow_mut();
        let Some(n) = self.poll_read(cx, &mut scratch.read)? else {
            return Ok(Flow::Wait);
        };
        self.card.last_input.set(now);
        if self.held.is_empty() {
            return self.begin_with(cx, now, &scratch.read[..n], &mut scratch.out);
        }
        self.held.extend_from_slice(&scratch.read[..n]);
        Ok(Flow::Again)
    }

    fn begin(&mut self, cx: &mut Context<'_>, now: Instant, input: &[u8]) -> Result<Flow, End> {
        let around = self.around.clone();
        let scratch = &mut *around.scratch.borrow_mut();
        self.begin_with(cx, now, input, &mut scratch.out)
    }

    /// The client says something and has no server.
    fn begin_with(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Flow, End> {
        let late = late_copy_len(input, self.rules.max_packet_size)?;
        let input = &input[late.min(input.len())..];
        self.need = 0;
        if late > 0 && input.is_empty() {
            return Ok(Flow::Again);
        }
        if input.len() < frame::HEADER_LEN && input.first() != Some(&from_client::TERMINATE) {
            self.keep(input, frame::HEADER_LEN);
            return Ok(Flow::Again);
        }
        if input[0] == from_client::TERMINATE {
            return Err(End::Goodbye);
        }
        self.note_request(now);
        match self.checkout(now)? {
            Some(lease) => self.attach(cx, now, lease, input, out),
            None => {
                self.keep(input, 0);
                self.card.begin_waiting(now);
                self.enter(State::Waiting);
                Ok(Flow::Again)
            }
        }
    }

    fn keep(&mut self, input: &[u8], need: usize) {
        self.held.extend_from_slice(input);
        self.card.held.set(self.held.len());
        self.need = need;
    }

    fn checkout(&mut self, now: Instant) -> Result<Option<Lease>, End> {
        if let Some(error) = self.shard.failing(now) {
            return Err(End::Told(error));
        }
        self.ticket.login.set(false);
        let lease = self.shard.checkout(&self.ticket, now);
        if lease.is_none() && self.around.shutting_down.get() {
            self.shard.leave(&self.ticket);
            return Err(End::Told(ClientError::new("server shutting down")));
        }
        Ok(lease)
    }

    fn wait(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Flow, End> {
        self.flush(cx)?;
        match self.ticket.take(cx.waker()) {
            None => self.read_ahead(cx, now),
            Some(Grant::Refused(error)) => Err(End::Told(error)),
            Some(Grant::Server(lease)) => {
                let waited = self.card.end_waiting(now);
                self.shard
                    .count(|stats| stats.wait_time += waited.as_micros() as u64);
                let input = std::mem::take(&mut self.held);
                let around = self.around.clone();
                let scratch = &mut *around.scratch.borrow_mut();
                self.attach(cx, now, lease, &input, &mut scratch.out)
            }
        }
    }

    /// A server is there: its parameters are brought into line, then it gets what the client said.
    fn attach(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        mut lease: Lease,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Flow, End> {
        self.shard.count(|stats| stats.server_assignment_count += 1);
        self.follow_settings();
        lease.card.request_time.set(now);
        self.card.last_reply.set(now);
        if !self.suits(&mut lease) {
            self.keep(input, 0);
            self.begin_aligning(lease);
            return Ok(Flow::Again);
        }
        self.link_with(lease);
        self.forward(cx, now, input, out)?;
        Ok(Flow::Again)
    }

    /// `max_prepared_statements` may have changed. Whoever has names that servers do not know keeps having them translated.
    fn follow_settings(&mut self) {
        let settings = self.shard.settings();
        let max = settings.max_prepared_statements as usize;
        let pooled = settings.pool_mode != PoolMode::Session;
        self.rules.max_prepared = max;
        self.rules.rewrite = pooled && max > 0 || !self.statements.names.is_empty();
    }

    /// True if the server can be used as it is.
    fn suits(&self, lease: &mut Lease) -> bool {
        let link = &mut lease.link;
        if !link.sql.agrees(&self.statements.sql) {
            let by_session = self.shard.settings().pool_mode == PoolMode::Session;
            if !by_session || self.statements.sql.is_some() {
                return false;
            }
            link.sql.clear(); // whatever was left there is the reset query's business
        }
        let tracked = &self.around.space.tracked;
        params::agree(&self.params, &link.params, link.reported)
            || params::alignment(tracked, &self.params, &link.params, link.reported).is_none()
    }

    fn link_with(&mut self, lease: Lease) {
        lease.card.linked.set(Some(self.card.id));
        self.card.linked.replace(Some(lease.card.clone()));
        self.enter(State::Attached(lease));
    }

    fn begin_aligning(&mut self, mut lease: Lease) {
        lease.card.linked.set(Some(self.card.id));
        let space = self.around.space.clone();
        let (params, sql) = (self.params.clone(), self.statements.sql.clone());
        self.enter(State::Aligning(Box::pin(async move {
            let outcome = lease.suit(&params, &sql, &space).await;
            (lease, outcome)
        })));
    }

    fn align(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Flow, End> {
        let State::Aligning(work) = &mut self.state else {
            return Ok(Flow::Again);
        };
        let Poll::Ready((mut lease, outcome)) = work.as_mut().poll(cx) else {
            return Ok(Flow::Wait);
        };
        match outcome {
            Ok(Outcome::Ok) => {}
            Ok(Outcome::Failed(message)) => {
                let message = String::from_utf8_lossy(&message);
                tracing::warn!("varcache_apply failed: {message}");
                self.enter(State::Idle);
                lease.give_back(now);
                return Err(End::Told(ClientError::new("invalid server parameter")));
            }
            Err(lost) => {
                self.enter(State::Idle);
                lease.close(lost.reason());
                return Err(End::Told(ClientError::new(lost.reason())));
            }
        }
        let space = &self.around.space;
        let (client, server) = params::aligned(
            &space.tracked,
            &self.params,
            &lease.link.params,
            lease.link.reported,
        );
        lease.link.params = space.interner.borrow_mut().intern(server);
        let client = space.interner.borrow_mut().intern(client);
        self.set_params(client);
        self.link_with(lease);
        let input = std::mem::take(&mut self.held);
        let around = self.around.clone();
        let scratch = &mut *around.scratch.borrow_mut();
        self.forward(cx, now, &input, &mut scratch.out)?;
        Ok(Flow::Again)
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
        .map_err(|_| End::Told(forward::bad_header(&input[at..])))?
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

// With a server.
impl Session {
    fn relay(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Flow, End> {
        // Both directions in turn: one that never rests must not starve the other.
        let flushed = self.flush(cx)?;
        let from_server = if flushed {
            self.pump_server(cx, now)?
        } else {
            Flow::Wait
        };
        let from_client = self.pump_client(cx, now)?;
        let moved = from_server == Flow::Again || from_client == Flow::Again;
        Ok(if moved { Flow::Again } else { Flow::Wait })
    }

    /// From the server to the client.
    fn pump_server(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Flow, End> {
        let around = self.around.clone();
        let Scratch { read, out } = &mut *around.scratch.borrow_mut();
        let State::Attached(lease) = &mut self.state else {
            return Ok(Flow::Again);
        };
        let n = match lease.stream.poll_read(cx, read) {
            Poll::Pending => return Ok(Flow::Wait),
            Poll::Ready(Ok(n)) if n > 0 => n,
            Poll::Ready(_) => return Err(self.server_lost("server conn crashed?")),
        };
        self.card.last_reply.set(now);
        self.shard.count(|stats| stats.bytes_sent += n as u64);
        if lease.held.is_empty() {
            self.deliver(cx, now, &read[..n], out)?;
        } else {
            let mut input = std::mem::take(&mut lease.held);
            input.extend_from_slice(&read[..n]);
            self.deliver(cx, now, &input, out)?;
        }
        if self.busy && matches!(self.state, State::Attached(_)) {
            let input = std::mem::take(&mut self.held);
            self.forward(cx, now, &input, out)?;
        }
        Ok(Flow::Again)
    }

    fn deliver(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), End> {
        let State::Attached(lease) = &mut self.state else {
            return Ok(());
        };
        let params = self.params.clone();
        let space = self.around.space.clone();
        out.clear();
        let mut splice = Splice::new(input, out);
        let mut walk = Deliver {
            link: &mut lease.link,
            statements: &mut self.statements,
            params: &mut self.params,
            tracked: &space.tracked,
            interner: &mut space.interner.borrow_mut(),
            max_packet_size: self.rules.max_packet_size,
        };
        let findings = walk.run(&mut splice);
        let (bytes, consumed) = splice.finish();
        let findings = match findings {
            Ok(findings) => findings,
            Err(fault) => {
                self.write(cx, bytes)?;
                return Err(self.server_faulty(fault));
            }
        };
        lease.held.extend_from_slice(&input[consumed..]);
        if findings.in_block && self.shard.settings().pool_mode == PoolMode::Statement {
            return Err(self.refuse_transaction());
        }
        self.write(cx, bytes)?;
        if !Rc::ptr_eq(&params, &self.params) {
            self.card.params.replace(self.params.clone());
        }
        if findings.ready.is_some() {
            self.note_ready(now);
        }
        Ok(())
    }

    /// ReadyForQuery has been passed on: statistics, and perhaps the server goes home.
    fn note_ready(&mut self, now: Instant) {
        let State::Attached(lease) = &self.state else {
            return;
        };
        let status = lease.link.owed.status();
        self.card.status.set(status);
        if !lease.link.is_settled() {
            return;
        }
        lease.card.running.set(false);
        let free = lease.is_free();
        let query = self.card.query_start.take();
        let xact = if status == TxStatus::Idle {
            self.card.xact_start.take()
        } else {
            None
        };
        let micros = |since: Option<Instant>| {
            since.map_or(0, |since| {
                now.saturating_duration_since(since).as_micros() as u64
            })
        };
        self.shard.count(|stats| {
            stats.query_time += micros(query);
            stats.xact_time += micros(xact);
        });
        if free {
            self.release(now);
        }
    }

    /// The server is free: unless the client keeps it, it goes home.
    fn release(&mut self, now: Instant) {
        let settings = self.shard.settings();
        if settings.pool_mode == PoolMode::Session || self.card.replication != "none" {
            return;
        }
        let State::Attached(lease) = std::mem::replace(&mut self.state, State::Idle) else {
            return;
        };
        if !lease.link.sql.is_known() {
            return self.begin_listing(lease);
        }
        self.enter(State::Idle);
        self.unlink();
        self.send_home(lease, now);
    }

    fn send_home(&self, lease: Lease, now: Instant) {
        let settings = self.shard.settings();
        match &settings.server_reset_query {
            Some(query) if settings.server_reset_query_always => {
                lease.clean(vec![query.as_bytes().to_vec()])
            }
            _ => lease.give_back(now),
        }
    }

    /// The client has prepared or dropped statements by SQL: which it has now, only the server can tell.
    fn begin_listing(&mut self, mut lease: Lease) {
        let space = self.around.space.clone();
        let before = self.statements.sql.clone();
        self.enter(State::Listing(Box::pin(async move {
            let work = lease.list_statements(&before, &space);
            let listed = tokio::time::timeout(LISTING_TIMEOUT, work).await;
            (lease, listed.unwrap_or(Err(ServerLost::Unclear)))
        })));
    }

    fn list(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Flow, End> {
        self.flush(cx)?;
        let State::Listing(work) = &mut self.state else {
            return Ok(Flow::Again);
        };
        let Poll::Ready((lease, listed)) = work.as_mut().poll(cx) else {
            return Ok(Flow::Wait);
        };
        self.enter(State::Idle);
        self.unlink();
        let (reason, error) = match listed {
            Ok(Listed::Ok(names)) => {
                self.statements.sql = names;
                self.send_home(lease, now);
                return Ok(Flow::Again);
            }
            Ok(Listed::TooMany(many)) => {
                ("too many statements", ClientError::with(many.to_string()))
            }
            Ok(Listed::Failed(message)) => {
                let message = String::from_utf8_lossy(&message);
                tracing::warn!("could not list prepared statements: {message}");
                let reason = ServerLost::Unclear.reason();
                (reason, ClientError::new(reason))
            }
            Err(lost) => (lost.reason(), ClientError::new(lost.reason())),
        };
        lease.close(reason);
        Err(End::Told(error))
    }

    fn unlink(&mut self) {
        self.card.linked.replace(None);
        self.card.status.set(TxStatus::Idle);
    }

    /// From the client to the server.
    fn pump_client(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Flow, End> {
        let around = self.around.clone();
        let Scratch { read, out } = &mut *around.scratch.borrow_mut();
        let State::Attached(lease) = &mut self.state else {
            return Ok(Flow::Again);
        };
        if !flush_server(lease, cx)
            .map_err(|_| End::Told(ClientError::new("server conn crashed?")))?
        {
            return Ok(Flow::Wait);
        }
        if self.busy && self.held.len() >= AHEAD_MAX {
            return Ok(Flow::Wait);
        }
        let Some(n) = self.poll_read(cx, read)? else {
            return Ok(Flow::Wait);
        };
        self.card.last_input.set(now);
        self.note_request(now);
        if self.held.is_empty() {
            self.forward(cx, now, &read[..n], out)?;
            return Ok(Flow::Again);
        }
        self.held.extend_from_slice(&read[..n]);
        if self.held.len() >= self.need {
            let input = std::mem::take(&mut self.held);
            self.forward(cx, now, &input, out)?;
        }
        Ok(Flow::Again)
    }

    fn forward(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), End> {
        let State::Attached(lease) = &mut self.state else {
            return Ok(());
        };
        out.clear();
        let mut counts = Counts::default();
        let mut splice = Splice::new(input, out);
        let mut walk = Forward {
            rules: self.rules,
            statements: &mut self.statements,
            link: &mut lease.link,
            cache: &self.around.cache,
            counts: &mut counts,
        };
        let stop = walk.run(&mut splice);
        let (bytes, consumed) = splice.finish();
        let lease_server = &mut **lease;
        let written = write_or_keep(
            &mut lease_server.stream,
            &mut lease_server.backlog,
            cx,
            bytes,
        );
        lease.card.running.set(lease.link.owed.is_running());
        self.shard.count(|stats| {
            stats.bytes_received += consumed as u64;
            stats.client_parse_count += counts.client_parses;
            stats.server_parse_count += counts.server_parses;
            stats.bind_count += counts.binds;
        });
        if written.is_err() {
            return self.server_hung_up(cx, now, out);
        }
        self.answer_absorbed(cx, out)?;
        self.note_nothing_asked();
        self.need = 0;
        self.busy = false;
        match stop.map_err(End::Told)? {
            Stop::Input => {}
            Stop::Busy => self.busy = true,
            Stop::NeedBytes(need) => self.need = need,
            Stop::Terminate => return Err(End::Goodbye),
        }
        self.held.extend_from_slice(&input[consumed..]);
        Ok(())
    }

    /// What the client sent may ask for nothing (the late end of a failed COPY, a Flush): then no request has begun, and no timeout
    /// must wait for its end.
    fn note_nothing_asked(&mut self) {
        let State::Attached(lease) = &self.state else {
            return;
        };
        if lease.link.is_settled() {
            self.card.query_start.set(None);
            if lease.link.owed.status() == TxStatus::Idle {
                self.card.xact_start.set(None);
            }
        }
    }

    /// Replies of the pooler's own whose turn is now.
    fn answer_absorbed(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Result<(), End> {
        let State::Attached(lease) = &mut self.state else {
            return Ok(());
        };
        self.card.prepared.set(self.statements.names.len());
        if lease.link.events.is_empty() || !lease.link.from_server.at_boundary() {
            return Ok(());
        }
        out.clear();
        deliver::settle(&mut lease.link, &mut self.statements, out);
        let bytes = std::mem::take(out);
        let written = self.write(cx, &bytes);
        *out = bytes;
        written
    }

    /// The server takes nothing any more; perhaps it has said why.
    fn server_hung_up(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), End> {
        let State::Attached(lease) = &mut self.state else {
            return Ok(());
        };
        let mut input = std::mem::take(&mut lease.held);
        let mut chunk = [0; 4096];
        if let Poll::Ready(Ok(n)) = lease.stream.poll_read(cx, &mut chunk) {
            input.extend_from_slice(&chunk[..n]);
            self.deliver(cx, now, &input, out)?;
        }
        Err(self.server_lost("server conn crashed?"))
    }
}

fn flush_server(lease: &mut Lease, cx: &mut Context<'_>) -> io::Result<bool> {
    let server = &mut **lease;
    if server.backlog.is_empty() && !server.stream.wants_flush() {
        return Ok(true);
    }
    match server.backlog.poll_flush(&mut server.stream, cx) {
        Poll::Pending => Ok(false),
        Poll::Ready(result) => result.map(|()| true),
    }
}

// The end.
impl Session {
    /// The linked server can't be used any more.
    fn server_lost(&mut self, reason: &'static str) -> End {
        if let State::Attached(lease) = std::mem::replace(&mut self.state, State::Idle) {
            let clean = lease.link.from_server.at_boundary();
            self.unlink();
            lease.close(reason);
            if !clean {
                return End::Gone; // in the middle of a message nothing can be said
            }
        }
        End::Told(ClientError::new(reason))
    }

    fn server_faulty(&mut self, fault: ServerFault) -> End {
        self.server_lost(match fault {
            ServerFault::BadHeader => "bad pkt header",
            ServerFault::Unexpected(_) => "unknown pkt",
        })
    }

    fn refuse_transaction(&mut self) -> End {
        self.server_lost("transaction blocks not allowed in statement pooling mode")
    }

    /// Takes the session apart: the server gets its verdict, the queue place is left; what remains is to be told to the client.
    fn end(mut self, end: End) -> Ending {
        let now = Instant::now();
        self.card.end_waiting(now);
        let mut mid_message = false;
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Attached(lease) => {
                mid_message = !lease.link.from_server.at_boundary();
                self.part(lease, &end, now);
            }
            State::Waiting | State::Greeting { queued: true, .. } => self.leave_queue(now),
            State::Aligning(work) => drop(work),
            State::Listing(work) => drop(work),
            _ => {}
        }
        self.card.linked.replace(None);
        let mut farewell = self.backlog.as_slice().to_vec();
        let told = match &end {
            End::Told(error) if !mid_message => Some(error.clone()),
            _ => None,
        };
        if let Some(error) = &told {
            build::error(&mut farewell, Severity::Fatal, &error.sqlstate, &error.text);
        }
        let reason = match &end {
            End::Goodbye => "client close request".to_owned(),
            End::Gone => "client unexpected eof".to_owned(),
            End::Told(error) => error.to_string(),
        };
        Ending {
            stream: self.stream.take(),
            farewell,
            told,
            reason,
        }
    }

    fn leave_queue(&mut self, now: Instant) {
        self.shard.leave(&self.ticket);
        self.shard.forget_dedicated(self.card.id);
        if let Some(Grant::Server(lease)) = self.ticket.take(std::task::Waker::noop()) {
            lease.give_back(now);
        }
    }

    /// Verdict over the server of a client that ends.
    fn part(&mut self, lease: Lease, end: &End, now: Instant) {
        if self.card.replication != "none" {
            return lease.close("replication client was closed");
        }
        if let End::Told(error) = end
            && !lease.is_free()
        {
            return lease.close(&error.to_string());
        }
        let settled = lease.link.is_settled() && lease.held.is_empty() && lease.backlog.is_empty();
        if !settled {
            let running = lease.link.owed.is_running();
            let reason = if running {
                "client disconnected with query in progress"
            } else {
                "client disconnect while server was not ready"
            };
            return lease.close(reason);
        }
        let settings = self.shard.settings();
        let mut queries = Vec::new();
        if lease.link.owed.status() != TxStatus::Idle {
            queries.push(b"ROLLBACK".to_vec());
        }
        let resets = settings.pool_mode == PoolMode::Session || settings.server_reset_query_always;
        if let Some(query) = settings.server_reset_query.as_ref().filter(|_| resets) {
            queries.push(query.as_bytes().to_vec());
        }
        if queries.is_empty() {
            lease.give_back(now)
        } else {
            lease.clean(queries)
        }
    }
}

/// What is left of a session: a socket, and what to tell before it is closed.
pub struct Ending {
    /// The client's socket.
    pub stream: Option<Stream>,
    /// The last bytes for it.
    pub farewell: Vec<u8>,
    /// The error among them.
    pub told: Option<ClientError>,
    /// As the log says it.
    pub reason: String,
}
