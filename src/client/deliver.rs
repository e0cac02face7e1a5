//! From the server to its client: which bytes are the client's, and what they change. Pure.

use std::rc::Rc;

use super::statements::{self, Statements};
use crate::server::conn::drops_all_statements;
use crate::server::link::ServerLink;
use crate::server::owed::{Event, Fate, Kind};
use crate::server::params::{Interner, ParamSet, Tracked};
use crate::server::prepared::{self, Note};
use crate::types::TxStatus;
use crate::wire::frame::{self, HEADER_LEN, Header};
use crate::wire::splice::Splice;
use crate::wire::tag::from_server as tag;
use crate::wire::{build, read};

/// The largest message of a server that is held whole in order to be understood. Longer ones of these kinds pass unread.
pub const UNDERSTOOD_LEN_MAX: u64 = 64 << 10;

/// Bytes of a ReadyForQuery.
const READY_LEN: u64 = 6;

/// The routine that says that the result of a statement has changed its type since it was prepared. That copy is of no use any
/// more, and PostgreSQL would say so for ever.
const CANNOT_REPLAN: &[u8] = b"RevalidateCachedQuery";

/// Behind PostgreSQL's own word that a statement does not exist.
const OF_PROTOCOL: &[u8] =
    b"It was prepared by the protocol, and the pooler keeps it under another name: execute it by the protocol too, or use \
pool_mode=session.";

/// What a server did that ends the connection with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerFault {
    /// A length that no message can have.
    BadHeader,
    /// A reply to nothing that was asked.
    Unexpected(u8),
}

/// What a walk found besides the bytes to deliver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Transaction status of the last ReadyForQuery that was delivered.
    pub ready: Option<TxStatus>,
    /// ReadyForQuery left the server inside a transaction block (statement pooling does not allow it).
    pub in_block: bool,
    /// A tracked parameter may have changed.
    pub parameters: bool,
    /// The server wants this many bytes to be there before its message can be understood.
    pub need: usize,
}

/// One walk over bytes of a server that is linked with a client.
pub struct Deliver<'a> {
    /// The server.
    pub link: &'a mut ServerLink,
    /// The client's names for statements.
    pub statements: &'a mut Statements,
    /// The client's tracked parameters.
    pub params: &'a mut Rc<ParamSet>,
    /// The tracked parameters' names.
    pub tracked: &'a Tracked,
    /// The sets in use on this worker.
    pub interner: &'a mut Interner,
    /// `max_packet_size`: a longer message ends the connection.
    pub max_packet_size: u32,
}

impl Deliver<'_> {
    /// Walks as far as the bytes go. A rest that was not consumed is the beginning of a message.
    pub fn run(&mut self, splice: &mut Splice) -> Result<Findings, ServerFault> {
        let mut findings = Findings::default();
        if !self.link.from_server.at_boundary() || !self.link.events.is_empty() {
            self.continue_message(splice);
        }
        while self.link.from_server.at_boundary() {
            let rest = splice.rest();
            let Some(header) =
                frame::header(rest, self.max_packet_size).map_err(|_| ServerFault::BadHeader)?
            else {
                break;
            };
            if let Some(fate) = self.link.owed.row(header.tag) {
                self.begin_message(header, fate, splice);
                continue;
            }
            if header.tag == tag::READY_FOR_QUERY && header.total != READY_LEN {
                return Err(ServerFault::BadHeader);
            }
            if header.total > rest.len() as u64 && must_be_whole(header) {
                findings.need = header.total as usize;
                break;
            }
            self.message(header, splice, &mut findings)?;
        }
        Ok(findings)
    }

    #[inline]
    fn begin_message(&mut self, header: Header, fate: Fate, splice: &mut Splice) {
        self.link.swallowing = fate == Fate::Swallow;
        self.link.from_server.begin(header.total, 0);
        self.continue_message(splice);
    }

    /// Passes on, or drops, what is there of the message. Behind its end is the place for what the pooler answers itself.
    #[inline(always)] // once per row; left alone, the compiler makes it a call
    fn continue_message(&mut self, splice: &mut Splice) {
        let n = self.link.from_server.advance(splice.rest().len());
        if self.link.swallowing {
            splice.skip(n)
        } else {
            splice.pass(n)
        }
        if !self.link.events.is_empty() && self.link.from_server.at_boundary() {
            settle(self.link, self.statements, splice.insert());
        }
    }

    fn message(
        &mut self,
        header: Header,
        splice: &mut Splice,
        findings: &mut Findings,
    ) -> Result<(), ServerFault> {
        let rest = splice.rest();
        let body = &rest[HEADER_LEN..rest.len().min(header.total as usize)];
        let whole = body.len() as u64 == header.body_len();
        let mut fate = Fate::Deliver;
        match header.tag {
            tag::PARAMETER_STATUS if whole => {
                findings.parameters = true;
                self.parameter_status(body)
            }
            tag::COMMAND_COMPLETE if whole => self.command_complete(body),
            tag::ERROR_RESPONSE if whole => fate = self.error(body, splice),
            _ => {}
        }
        let status = body.first().copied().unwrap_or(0);
        let owed = self
            .link
            .owed
            .reply(header.tag, status, &mut self.link.events);
        let owed = owed.map_err(|unexpected| ServerFault::Unexpected(unexpected.tag))?;
        statements::settle(self.link, Some(self.statements));
        if header.tag == tag::READY_FOR_QUERY {
            findings.in_block |= self.link.owed.status() != TxStatus::Idle;
            if owed == Fate::Deliver {
                findings.ready = Some(self.link.owed.status());
            }
        }
        if owed == Fate::Swallow {
            fate = Fate::Swallow;
        }
        self.begin_message(header, fate, splice);
        Ok(())
    }

    fn parameter_status(&mut self, body: &[u8]) {
        let Some((name, value)) = read::parameter_status(body) else {
            return;
        };
        let Some(index) = self.tracked.index(name) else {
            return;
        };
        self.link.reported |= 1 << index;
        self.link.params = self.interner.with(&self.link.params, index, value);
        *self.params = self.interner.with(self.params, index, value);
    }

    fn command_complete(&mut self, body: &[u8]) {
        match body {
            b"PREPARE\0" => self.link.sql.note_changed(),
            b"DEALLOCATE\0" => match self.link.owed.head_note() {
                Some(Note::Dropped { name }) => drop(self.statements.names.remove(name)),
                Some(Note::Unnamed { .. }) => {}
                _ => self.link.sql.note_changed(),
            },
            _ if drops_all_statements(body) => statements::forget_all(self.statements, self.link),
            _ => {}
        }
    }

    /// An error may speak of a statement by the pooler's name: the client shall read its own. A statement that is not there, or
    /// that the server can't use any more, will be prepared again.
    fn error(&mut self, body: &[u8], splice: &mut Splice) -> Fate {
        let fields = read::error_fields(body);
        let about = self.link.owed.head_about();
        let names = match (fields.sqlstate, self.link.owed.head_note()) {
            (
                Some(b"42P05"),
                Some(Note::Duplicate {
                    name, statement, ..
                }),
            ) => Some((statement.name.clone(), &name[..])),
            (Some(b"42P05"), Some(Note::Named { .. } | Note::OnServer(_))) => {
                self.link.tainted = true; // it has what nobody gave it
                None
            }
            (Some(b"0A000"), _) if fields.routine == Some(CANNOT_REPLAN) => {
                self.link.prepared.outdate(about.statement);
                None
            }
            (Some(b"08P01"), _) if about.statement != 0 => {
                self.names_of(about.statement, about.name)
            }
            (Some(b"26000"), _) if self.executes() => {
                return self.nothing_to_execute(body, fields.message, splice);
            }
            (Some(b"26000"), _) => self.missing(fields.message),
            _ => None,
        };
        let Some((servers, clients)) = names else {
            return Fate::Deliver;
        };
        build::message(splice.insert(), tag::ERROR_RESPONSE, |out| {
            replace(body, &servers, clients, out)
        });
        Fate::Swallow
    }

    /// The pooler's name of a statement, and a client's name of it.
    fn names_of(&self, id: u64, found: usize) -> Option<(Box<[u8]>, &[u8])> {
        let name = format!("{}{id}", prepared::NAME_PREFIX).into_bytes();
        let names = &self.statements.names;
        let exact = names.found(id, found).or_else(|| self.unnamed(id));
        Some((name.into(), exact.or(names.of_statement(id).next())?))
    }

    /// The client's name of a statement until a request that is not answered yet.
    fn unnamed(&self, id: u64) -> Option<&[u8]> {
        let mut notes = self.link.owed.notes();
        notes.find_map(|note| match note {
            Note::Unnamed { name, was } if was.id == id => Some(&name[..]),
            _ => None,
        })
    }

    /// True if the server answers something that may be an EXECUTE.
    fn executes(&self) -> bool {
        let head = self.link.owed.head_kind();
        matches!(head, Some(Kind::Query | Kind::Execute))
    }

    /// The server has no statement of the name that stands in an EXECUTE: either it could not be prepared here, and what the
    /// server said then is the better answer; or it was prepared by the protocol, and the client is told what to do.
    fn nothing_to_execute(
        &mut self,
        body: &[u8],
        message: Option<&[u8]>,
        splice: &mut Splice,
    ) -> Fate {
        let Some(name) = message.and_then(quoted) else {
            return Fate::Deliver;
        };
        let mut notes = self.link.owed.notes();
        let is_certain = !notes.any(|note| note.concerns(name, None));
        drop(notes);
        if let Some(fault) = self.link.sql.fault_of(name) {
            build::message(splice.insert(), tag::ERROR_RESPONSE, |out| {
                out.extend_from_slice(fault)
            });
        } else if is_certain && self.statements.names.contains(name) {
            build::message(splice.insert(), tag::ERROR_RESPONSE, |out| {
                with_hint(body, OF_PROTOCOL, out)
            });
        } else {
            return Fate::Deliver;
        }
        Fate::Swallow
    }

    /// The pooler's and the client's name of a statement that the server says it does not have.
    fn missing(&mut self, message: Option<&[u8]>) -> Option<(Box<[u8]>, &[u8])> {
        let id = prepared::named_in(message?)?;
        let about = self.link.owed.head_about();
        let mut notes = self.link.owed.notes();
        if !notes.any(|note| note.concerns(b"", Some(id))) {
            drop(notes);
            self.link.prepared.remove(id);
        }
        self.names_of(id, about.name)
    }
}

/// Between two messages: answers of absorbed requests whose turn has come are appended to `out`.
pub fn settle(link: &mut ServerLink, names: &mut Statements, out: &mut Vec<u8>) {
    statements::settle(link, Some(names));
    for event in link.events.drain(..) {
        if let Event::Answer(kind, _) = event {
            answer(kind, out);
        }
    }
}

/// Appends the reply to a request that the pooler answers itself.
fn answer(kind: Kind, out: &mut Vec<u8>) {
    match kind {
        Kind::Close => build::bare(out, tag::CLOSE_COMPLETE),
        _ => build::bare(out, tag::PARSE_COMPLETE),
    }
}

/// Small messages that are understood, and so have to be whole.
fn must_be_whole(header: Header) -> bool {
    match header.tag {
        tag::READY_FOR_QUERY => true,
        tag::PARAMETER_STATUS | tag::COMMAND_COMPLETE | tag::ERROR_RESPONSE => {
            header.total <= UNDERSTOOD_LEN_MAX
        }
        _ => false,
    }
}

/// What stands between the first and the last double quote.
fn quoted(message: &[u8]) -> Option<&[u8]> {
    let from = message.iter().position(|byte| *byte == b'"')?;
    let to = message.iter().rposition(|byte| *byte == b'"')?;
    message.get(from + 1..to)
}

/// An ErrorResponse's body with one more field.
fn with_hint(body: &[u8], hint: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(body.strip_suffix(b"\0").unwrap_or(body));
    out.push(b'H');
    build::cstr(out, hint);
    out.push(0);
}

fn replace(text: &[u8], what: &[u8], with: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = rest.windows(what.len()).position(|part| part == what) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(with);
        rest = &rest[at + what.len()..];
    }
    out.extend_from_slice(rest);
}
