//! One connection to PostgreSQL, logged in: its socket, its protocol state, and what the operator sees of it.
//!
//! A [`Server`] is a plain value. It rests in a pool, is on loan to a client, or runs a query of the pooler's own
//! ([`Server::command`], [`Server::inquire`]); it moves between workers as a [`TravelingServer`]. How it is connected is in [`super::connect`].

mod inquire;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Instant, SystemTime};

pub use self::inquire::InquiryError;
use super::link::ServerLink;
use super::owed::{Kind, Origin};
use super::params::{Interner, ParamSet, Tracked};
use super::prepared::PreparedSet;
use super::reply_length::{Pace, ReplyLength};
use super::sql::SqlHeld;
use crate::error::ClientError;
use crate::metrics::ErrorKind;
use crate::net::buffer::Backlog;
use crate::net::dial::Target;
use crate::net::dns::Site;
use crate::net::stream::{DetachedStream, Readable, Stream};
use crate::types::{BackendKey, ConnId};
use crate::wire::frame::{self, HEADER_LEN};
use crate::wire::tag::from_server as tag;
use crate::wire::{build, read};

/// The tracked parameters of this process and the sets of values in use on this worker.
#[derive(Debug)]
pub struct ParamSpace {
    /// Their names.
    pub tracked: Arc<Tracked>,
    /// The sets in use.
    pub interner: RefCell<Interner>,
}

impl ParamSpace {
    /// The tracked ones among what a server has reported, and a bit for each of them.
    pub fn read(&self, parameters: &[(Vec<u8>, Vec<u8>)]) -> (ParamSet, u32) {
        let (mut set, mut reported) = (ParamSet::default(), 0);
        for (name, value) in parameters {
            if let Some(index) = self.tracked.index(name) {
                set.set(index, Some(value));
                reported |= 1 << index;
            }
        }
        (set, reported)
    }
}

/// What a server connection does, as `SHOW SERVERS` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// Linked to a client.
    Active,
    /// Ready for use.
    Idle,
    /// To be tested before use.
    Used,
    /// Running a check or reset query.
    Tested,
    /// Free, but a cancel request aimed at it is on its way.
    BeingCanceled,
}

impl ServerState {
    /// PgBouncer's word.
    pub fn word(self) -> &'static str {
        match self {
            ServerState::Active => "active",
            ServerState::Idle => "idle",
            ServerState::Used => "used",
            ServerState::Tested => "tested",
            ServerState::BeingCanceled => "being_canceled",
        }
    }
}

/// What is shown of a server connection, and what a cancel request needs, wherever the connection itself is.
#[derive(Debug)]
pub struct ServerCard {
    /// Number of the connection.
    pub id: ConnId,
    /// What it does.
    pub state: Cell<ServerState>,
    /// The client it is linked with.
    pub linked: Cell<Option<ConnId>>,
    /// Cancel requests aimed at it that are not finished: until then nobody else may use it.
    pub cancels: Cell<u32>,
    /// A statement is running, so a cancel request has an aim.
    pub running: Cell<bool>,
    /// When its last request began.
    pub request_time: Cell<Instant>,
    /// It will be closed as soon as it is free.
    pub close_needed: Cell<bool>,
    /// Statements prepared on it.
    pub prepared: Cell<usize>,
    /// Its tracked parameters.
    pub params: RefCell<Rc<ParamSet>>,
    /// What does not change.
    pub facts: Arc<ServerFacts>,
}

/// What does not change about a server connection.
#[derive(Debug)]
pub struct ServerFacts {
    /// The key that cancels its queries.
    pub key: BackendKey,
    /// Where it is connected to.
    pub target: Target,
    /// Its host name's address, where it was found by name.
    pub site: Option<Arc<Site>>,
    /// Remote address; `unix` for a Unix socket.
    pub addr: String,
    /// Remote port.
    pub port: u16,
    /// Local address.
    pub local_addr: String,
    /// Local port.
    pub local_port: u16,
    /// `TLSv1.3/…`
    pub tls: Option<&'static str>,
    /// When it was connected, by the wall clock.
    pub connect_time: SystemTime,
}

impl ServerFacts {
    /// The host's name does not lead there any more.
    pub fn is_misplaced(&self) -> bool {
        self.site.as_ref().is_some_and(|site| site.is_gone())
    }
}

/// A connection to PostgreSQL, logged in.
#[derive(Debug)]
pub struct Server {
    /// Its socket.
    pub stream: Stream,
    /// Its protocol state.
    pub link: ServerLink,
    /// When it was connected.
    pub born: Instant,
    /// The generation of its pool that it was connected for.
    pub epoch: u64,
    /// The beginning of a message of the server's that can't be understood yet.
    pub held: Vec<u8>,
    /// Bytes for the server that its socket would not take.
    pub backlog: Backlog,
    /// Of what it says at present.
    reply: ReplyLength,
    /// What is shown of it.
    pub card: Rc<ServerCard>,
}

/// A server connection between two workers, at rest.
#[derive(Debug)]
pub struct TravelingServer {
    stream: DetachedStream,
    params: ParamSet,
    reported: u32,
    prepared: PreparedSet,
    sql: SqlHeld,
    born: Instant,
    epoch: u64,
    id: ConnId,
    facts: Arc<ServerFacts>,
}

/// Why a server connection can't be used any more.
#[derive(Debug)]
pub enum ServerLost {
    /// The socket failed or was closed.
    Gone,
    /// It sent what makes no sense.
    Nonsense,
    /// It would not say which statements it has, or take those of its next client.
    Unclear,
}

impl ServerLost {
    /// As the log and the client are told.
    pub fn reason(&self) -> &'static str {
        match self {
            ServerLost::Gone | ServerLost::Nonsense => "server conn crashed?",
            ServerLost::Unclear => "could not bring prepared statements into line",
        }
    }

    /// What its client is told.
    pub fn client_error(&self) -> ClientError {
        ClientError::new(self.reason()).as_kind(match self {
            ServerLost::Gone => ErrorKind::ServerLost,
            ServerLost::Nonsense | ServerLost::Unclear => ErrorKind::ServerProtocol,
        })
    }
}

impl From<io::Error> for ServerLost {
    fn from(_: io::Error) -> Self {
        ServerLost::Gone
    }
}

/// How a query of the pooler's own ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Without an error.
    Ok,
    /// With this message.
    Failed(Vec<u8>),
}

/// The largest message that is read in answer to a query of the pooler's own.
const COMMAND_REPLY_LEN_MAX: u32 = 1 << 20;

impl Server {
    /// A connection that has just logged in, or arrives from elsewhere.
    pub fn new(
        stream: Stream,
        link: ServerLink,
        born: Instant,
        epoch: u64,
        id: ConnId,
        facts: Arc<ServerFacts>,
    ) -> Server {
        let card = Rc::new(ServerCard {
            id,
            state: Cell::new(ServerState::Idle),
            linked: Cell::new(None),
            cancels: Cell::new(0),
            running: Cell::new(false),
            request_time: Cell::new(born),
            close_needed: Cell::new(false),
            prepared: Cell::new(link.prepared.len()),
            params: RefCell::new(link.params.clone()),
            facts,
        });
        Server {
            stream,
            link,
            born,
            epoch,
            held: Vec::new(),
            backlog: Backlog::new(),
            reply: ReplyLength::default(),
            card,
        }
    }

    /// So many bytes of a reply have come; `ended` if it has nothing more to say now. The pieces of a large one may gather until it ends
    /// or pauses.
    ///
    /// # Errors
    /// The connection is of no use any more.
    #[inline]
    pub fn note_streamed(&mut self, received: usize, ended: bool) -> io::Result<()> {
        match self.reply.note(received, ended, || self.stream.is_lazy()) {
            Pace::AsBefore => Ok(()),
            Pace::AtOnce => self.stream.set_lazy(None),
            Pace::Gather(nap_max) => self.stream.set_lazy(Some(nap_max)),
        }
    }

    /// Takes the connection off its worker. It must be settled.
    pub fn detach(self) -> io::Result<TravelingServer> {
        Ok(TravelingServer {
            stream: self.stream.detach()?,
            params: ParamSet::clone(&self.link.params),
            reported: self.link.reported,
            prepared: self.link.prepared,
            sql: self.link.sql,
            born: self.born,
            epoch: self.epoch,
            id: self.card.id,
            facts: self.card.facts.clone(),
        })
    }

    /// Settled, and every byte has been passed on: another client may use it.
    pub fn is_free(&self) -> bool {
        self.link.is_free() && self.held.is_empty() && self.backlog.is_empty()
    }

    /// Shows on the card what may have changed while a client used the connection.
    pub fn update_card(&self) {
        self.card.prepared.set(self.link.prepared.len());
        if self.link.tainted {
            self.card.close_needed.set(true);
        }
        if !Rc::ptr_eq(&self.card.params.borrow(), &self.link.params) {
            self.card.params.replace(self.link.params.clone());
        }
    }

    /// Deals with what the server said while it was at rest: changed parameters are noted, notices and notifications dropped. No
    /// system call if it said nothing. An error means that it can't be used.
    #[inline]
    pub fn absorb(&mut self, space: &ParamSpace) -> Result<(), ServerLost> {
        if self.stream.is_silent() {
            return Ok(());
        }
        self.absorb_input(space)
    }

    fn absorb_input(&mut self, space: &ParamSpace) -> Result<(), ServerLost> {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match self.stream.poll_readable(&mut cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(Readable::Bytes)) => {}
                Poll::Ready(_) => return Err(ServerLost::Gone),
            }
            let mut chunk = [0; 1024];
            match self.stream.poll_read(&mut cx, &mut chunk) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(n)) if n > 0 => self.held.extend_from_slice(&chunk[..n]),
                Poll::Ready(_) => return Err(ServerLost::Gone),
            }
            while let Some((tag, body)) = self.take_message()? {
                match tag {
                    tag::PARAMETER_STATUS => self.note_parameter(&body, space),
                    tag::NOTICE_RESPONSE | tag::NOTIFICATION_RESPONSE => {}
                    _ => return Err(ServerLost::Gone),
                }
            }
        }
    }

    /// Takes a whole message off the bytes held.
    fn take_message(&mut self) -> Result<Option<(u8, Vec<u8>)>, ServerLost> {
        let header =
            frame::header(&self.held, COMMAND_REPLY_LEN_MAX).map_err(|_| ServerLost::Nonsense)?;
        let Some(header) = header.filter(|header| header.total <= self.held.len() as u64) else {
            return Ok(None);
        };
        let mut message: Vec<u8> = self.held.drain(..header.total as usize).collect();
        Ok(Some((header.tag, message.split_off(HEADER_LEN))))
    }

    fn note_parameter(&mut self, body: &[u8], space: &ParamSpace) {
        if let Some((name, value)) = read::parameter_status(body)
            && let Some(index) = space.tracked.index(name)
        {
            self.link.reported |= 1 << index;
            self.link.params = space
                .interner
                .borrow_mut()
                .with(&self.link.params, index, value);
        }
    }

    /// Runs a simple query of the pooler's own to its end; rows are dropped. The connection must be settled.
    pub async fn command(&mut self, sql: &[u8], space: &ParamSpace) -> Result<Outcome, ServerLost> {
        self.ask(sql, space, |_| {}).await
    }

    /// As [`Server::command`]; the body of each DataRow goes to `row`.
    pub async fn ask(
        &mut self,
        sql: &[u8],
        space: &ParamSpace,
        mut row: impl FnMut(&[u8]),
    ) -> Result<Outcome, ServerLost> {
        let mut out = Vec::new();
        build::query(&mut out, sql);
        self.link.sent(Kind::Query, Origin::Hidden, None);
        let mut outcome = Outcome::Ok;
        let mut prepares = false;
        self.converse(&out, space, |tag, body| match tag {
            tag::ERROR_RESPONSE => outcome = Outcome::Failed(message_of(body)),
            tag::DATA_ROW => row(body),
            tag::COMMAND_COMPLETE => prepares |= body == b"PREPARE\0",
            _ => {}
        })
        .await?;
        if prepares {
            self.link.sql.note_shared();
        }
        Ok(outcome)
    }

    /// Writes requests of the pooler's own, which are in the ledger already, and reads until they are answered. Every message of
    /// the server is shown to `see`.
    pub(super) async fn converse(
        &mut self,
        requests: &[u8],
        space: &ParamSpace,
        mut see: impl FnMut(u8, &[u8]),
    ) -> Result<(), ServerLost> {
        self.stream.write_all(requests).await?;
        loop {
            while let Some((tag, body)) = self.take_message()? {
                let status = body.first().copied().unwrap_or(0);
                let owed = self.link.owed.reply(tag, status, &mut self.link.events);
                owed.map_err(|_| ServerLost::Nonsense)?;
                match tag {
                    tag::PARAMETER_STATUS => self.note_parameter(&body, space),
                    tag::COMMAND_COMPLETE if drops_all_statements(&body) => {
                        self.link.prepared.clear();
                        self.link.sql.clear();
                    }
                    tag::COPY_IN_RESPONSE => return Err(ServerLost::Nonsense),
                    _ => {}
                }
                see(tag, &body);
            }
            if self.link.owed.is_settled() {
                return Ok(());
            }
            let at = self.held.len();
            self.held.resize(at + 4096, 0);
            let got = self.stream.read_some(&mut self.held[at..]).await;
            self.held.truncate(at + *got.as_ref().unwrap_or(&0));
            if got? == 0 {
                return Err(ServerLost::Gone);
            }
        }
    }

    /// Says good-bye as far as that goes without waiting, and closes.
    pub fn terminate(mut self) {
        if self.backlog.is_empty() && self.link.to_server.at_boundary() {
            let mut out = Vec::new();
            build::terminate(&mut out);
            let mut cx = Context::from_waker(Waker::noop());
            let _ = self.stream.poll_write(&mut cx, &out);
            let _ = self.stream.poll_flush(&mut cx);
        }
    }
}

/// The message of an ErrorResponse.
pub(super) fn message_of(body: &[u8]) -> Vec<u8> {
    let message = read::error_fields(body).message;
    message.unwrap_or(b"unknown error").to_vec()
}

/// True for the completion tag of a command that drops all prepared statements, however they were prepared.
pub fn drops_all_statements(completion: &[u8]) -> bool {
    matches!(completion, b"DEALLOCATE ALL\0" | b"DISCARD ALL\0")
}

impl TravelingServer {
    /// Puts the connection onto the worker that calls.
    pub fn attach(self, space: &ParamSpace) -> io::Result<Server> {
        let params = space.interner.borrow_mut().intern(self.params);
        let mut link = ServerLink::new(params, self.reported);
        link.prepared = self.prepared;
        link.sql = self.sql;
        Ok(Server::new(
            self.stream.attach()?,
            link,
            self.born,
            self.epoch,
            self.id,
            self.facts,
        ))
    }
}
