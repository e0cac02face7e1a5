//! A client's prepared statements: its own names for statements that servers know under the pooler's names.
//!
//! Pure. [`Rewriter`] turns one Parse, Bind, Describe or Close of a client into what the linked server has to be sent; what it
//! assumes goes along as a [`Note`], and [`settle`] takes it back when the replies tell that it did not come true.
//!
//! What a message means is only decided when it is certain. Within a batch it is: if a request fails, so does all that builds upon
//! it, up to the Sync. Behind the Sync it is not, so a message that depends on what an earlier, unanswered batch assumes waits
//! for the answer ([`Step::Busy`]). And a Parse that the pooler could answer itself is sent all the same while an unanswered batch
//! may yet leave the transaction failed, since PostgreSQL would refuse it then.

mod deallocate;
mod outcome;

use std::sync::Arc;

use self::deallocate::Drops;
pub use self::outcome::{forget_all, settle};
use super::names::{NAMES_BYTES_MAX, NAMES_MAX, Names};
use crate::error::ClientError;
use crate::metrics::ErrorKind;
use crate::server::link::ServerLink;
use crate::server::owed::{About, Kind, Origin};
use crate::server::prepared::{
    LOOKED_AT_MAX, NAME_PREFIX, Note, Presence, Statement, StatementCache, key_of,
    may_drop_statements,
};
use crate::server::sql::SqlNames;
use crate::types::TxStatus;
use crate::wire::frame::HEADER_LEN;
use crate::wire::splice::Splice;
use crate::wire::tag::from_client as tag;
use crate::wire::{build, read};

/// The largest Parse message of a named statement: it has to be held whole.
pub const PARSE_LEN_MAX: u64 = 64 << 20;
/// The most bytes of a message in which its names must end.
pub const NAMES_LEN_MAX: usize = 16 << 10;

/// What one client has prepared, by the protocol and by SQL.
#[derive(Debug, Default)]
pub struct Statements {
    /// Its names and the statements they stand for.
    pub names: Names,
    /// What the client has prepared by SQL.
    pub sql: SqlNames,
    /// A DEALLOCATE that the client has parsed and not executed yet.
    drops: Option<Box<Drops>>,
}

impl Statements {
    /// True if an Execute may be that of a DEALLOCATE.
    pub fn may_drop(&self) -> bool {
        self.drops.is_some()
    }

    /// A Query: the unnamed statement is gone.
    pub fn note_query(&mut self) {
        self.drops = None;
    }
}

/// Counts for the statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Named Parse messages from the client.
    pub client_parses: u64,
    /// Parse messages of named statements sent to the server.
    pub server_parses: u64,
    /// Bind messages of named statements.
    pub binds: u64,
    /// Uses of named statements that the server had already.
    pub hits: u64,
}

/// What one message needs in order to be rewritten.
pub struct Rewriter<'a> {
    /// The client's names.
    pub statements: &'a mut Statements,
    /// The server that the client is linked with.
    pub link: &'a mut ServerLink,
    /// All statements in use.
    pub cache: &'a StatementCache,
    /// `max_prepared_statements`
    pub max: usize,
    /// What was counted.
    pub counts: &'a mut Counts,
}

/// What a rewriting step needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The message has been dealt with.
    Done,
    /// It can't be decided before this many bytes of it are there.
    NeedBytes(usize),
    /// It can't be decided before the server has answered something that it was sent earlier.
    Busy,
}

impl Rewriter<'_> {
    /// A Parse of `total` bytes begins at the cursor.
    pub fn parse(&mut self, total: u64, splice: &mut Splice) -> Result<Step, ClientError> {
        let rest = splice.rest();
        if rest.len() == HEADER_LEN && total > HEADER_LEN as u64 {
            return Ok(Step::NeedBytes(HEADER_LEN + 1));
        }
        if rest.get(HEADER_LEN) == Some(&0) {
            return Ok(self.parse_unnamed(total, splice));
        }
        if total > PARSE_LEN_MAX {
            return Err(
                ClientError::new("prepared statement is too large").as_kind(ErrorKind::NotAllowed)
            );
        }
        let total = total as usize;
        let Some(body) = rest.get(HEADER_LEN..total) else {
            return Ok(Step::NeedBytes(total));
        };
        let (name, source) = read::parse(body).ok_or(ClientError::new("broken Parse packet"))?;
        if self.link.sql.holds(key_of(name)) {
            return Ok(self.parse_taken(total as u64, splice));
        }
        let known = self.statements.names.get(name).cloned();
        let new = self.cache.statement(source);
        let on_server = known.as_ref().unwrap_or(&new);
        if self.must_wait(name, Some(on_server.id)) {
            return Ok(self.wait(splice));
        }
        self.counts.client_parses += 1;
        match known {
            Some(known) => self.parse_again(name, known, new, splice),
            None => self.parse_new(name, new, splice)?,
        }
        splice.skip(total);
        Ok(Step::Done)
    }

    /// The name is that of a statement prepared by SQL: the server knows how to refuse it. If anything that is not answered yet
    /// drops it, that has to be known first; but a COPY is not answered before the client has said more.
    fn parse_taken(&mut self, total: u64, splice: &mut Splice) -> Step {
        let owed = &self.link.owed;
        if !owed.is_answered() && !owed.is_copying_in() {
            return self.wait(splice);
        }
        self.sent(Kind::Parse, Origin::Client, Some(Note::Taken));
        splice.pass(self.link.to_server.begin(total, splice.rest().len()));
        Step::Done
    }

    fn parse_new(
        &mut self,
        name: &[u8],
        statement: Arc<Statement>,
        splice: &mut Splice,
    ) -> Result<(), ClientError> {
        if !self.statements.names.has_room_for(name, &statement) {
            let text = format!(
                "too many prepared statements: a client may have {NAMES_MAX} of them, and {} megabytes of text (use Close or \
                 DEALLOCATE)",
                NAMES_BYTES_MAX >> 20
            );
            return Err(ClientError::with(text).as_kind(ErrorKind::NotAllowed));
        }
        self.statements.names.insert(name, statement.clone());
        let known = self.link.prepared.touch(statement.id);
        let sent = known != Presence::Ready || !self.can_answer_parse();
        if sent && known != Presence::Missing {
            self.close_hidden(&statement, splice);
        }
        let note = Note::Named {
            name: name.into(),
            now: statement.clone(),
            sent,
        };
        if sent {
            self.counts.server_parses += 1;
            build::parse_raw(splice.insert(), &statement.name, &statement.source);
            let id = statement.id;
            self.link.prepared.insert(statement);
            self.sent(Kind::Parse, Origin::Client, Some(note));
            self.evict(id, splice);
        } else {
            self.counts.hits += 1;
            self.sent(Kind::Parse, Origin::Absorbed, Some(note));
        }
        Ok(())
    }

    /// In a failed transaction the server has to refuse a Parse itself, so it must be asked; also if the transaction may have
    /// failed by the time the request arrives.
    fn can_answer_parse(&self) -> bool {
        self.link.owed.knows_status() && self.link.owed.status() != TxStatus::Failed
    }

    /// The name is taken. PostgreSQL would look at the new text first and then refuse the name, so that is what it is asked to do,
    /// under the name that it knows.
    fn parse_again(
        &mut self,
        name: &[u8],
        known: Arc<Statement>,
        new: Arc<Statement>,
        splice: &mut Splice,
    ) {
        self.ensure(&known, splice);
        build::parse_raw(splice.insert(), &known.name, &new.source);
        let note = Note::Duplicate {
            name: name.into(),
            statement: known,
            new,
        };
        self.sent(Kind::Parse, Origin::Client, Some(note));
    }

    /// A Bind of `total` bytes begins at the cursor.
    pub fn bind(&mut self, total: u64, splice: &mut Splice) -> Result<Step, ClientError> {
        let rest = splice.rest();
        let body = &rest[HEADER_LEN..rest.len().min(total as usize)];
        let Some((portal, name, behind)) = read::bind(body) else {
            return names_missing(total, rest.len(), "broken Bind packet");
        };
        if let Some(drops) = &mut self.statements.drops {
            drops.note_bind(portal, name);
        }
        if name.is_empty() {
            return Ok(self.pass(Kind::Bind, total, splice));
        }
        let known = self.statements.names.find(name);
        if self.must_wait(name, known.map(|(_, known)| known.id)) {
            return Ok(self.wait(splice));
        }
        self.counts.binds += 1;
        let Some((found, mut statement)) = known else {
            return Ok(self.pass(Kind::Bind, total, splice)); // the server knows how to refuse it
        };
        self.link.may_drop |= statement.may_drop;
        // Our own hold on the statement is only needed if more is to be done than to name it.
        let held;
        if self.link.prepared.touch(statement.id) != Presence::Ready {
            held = statement.clone();
            statement = &held;
            self.ensure(statement, splice);
        } else {
            self.counts.hits += 1;
        }
        let head = body.len() - behind.len();
        let len = total - 1 - name.len() as u64 + statement.name.len() as u64;
        let out = splice.insert();
        out.push(tag::BIND);
        out.extend_from_slice(&(len as u32).to_be_bytes());
        build::cstr(out, portal);
        build::cstr(out, &statement.name);
        let about = About {
            statement: statement.id,
            name: found,
        };
        self.link.sent_about(Kind::Bind, about);
        settle(self.link, Some(self.statements));
        splice.skip(HEADER_LEN + head);
        let left = total - (HEADER_LEN + head) as u64;
        splice.pass(self.link.to_server.begin(left, splice.rest().len()));
        Ok(Step::Done)
    }

    /// A Describe or Close of `total` bytes begins at the cursor.
    pub fn describe_or_close(
        &mut self,
        kind: Kind,
        total: u64,
        splice: &mut Splice,
    ) -> Result<Step, ClientError> {
        let rest = splice.rest();
        if rest.get(HEADER_LEN).is_some_and(|what| *what != b'S')
            || rest.get(HEADER_LEN + 1) == Some(&0)
        {
            return Ok(self.pass(kind, total, splice)); // a portal, or the unnamed statement
        }
        let broken = if kind == Kind::Close {
            "broken Close packet"
        } else {
            "broken Describe packet"
        };
        if total > NAMES_LEN_MAX as u64 {
            return Err(ClientError::new(broken));
        }
        let total = total as usize;
        let Some(body) = rest.get(HEADER_LEN..total) else {
            return Ok(Step::NeedBytes(total));
        };
        let (_, name) = read::target(body).ok_or(ClientError::new(broken))?;
        let known = self.statements.names.get(name).cloned();
        let needed = known.as_ref().filter(|_| kind == Kind::Describe);
        if self.must_wait(name, needed.map(|known| known.id)) {
            return Ok(self.wait(splice));
        }
        let Some(statement) = known else {
            return Ok(self.unknown(kind, name, total, splice));
        };
        if kind == Kind::Close {
            self.statements.names.remove(name);
            let note = Note::Unnamed {
                name: name.into(),
                was: statement,
            };
            self.sent(Kind::Close, Origin::Absorbed, Some(note));
        } else {
            self.ensure(&statement, splice);
            build::message(splice.insert(), tag::DESCRIBE, |out| {
                out.push(b'S');
                build::cstr(out, &statement.name);
            });
            self.sent(Kind::Describe, Origin::Client, None);
        }
        splice.skip(total);
        Ok(Step::Done)
    }

    fn pass(&mut self, kind: Kind, total: u64, splice: &mut Splice) -> Step {
        self.sent(kind, Origin::Client, None);
        splice.pass(self.link.to_server.begin(total, splice.rest().len()));
        Step::Done
    }

    /// Describe or Close of a name that the client has not given: the server knows what to say. But it must not close one of the
    /// pooler's own, whoever guesses its name.
    fn unknown(&mut self, kind: Kind, name: &[u8], total: usize, splice: &mut Splice) -> Step {
        if kind == Kind::Close && name.starts_with(NAME_PREFIX.as_bytes()) {
            self.sent(Kind::Close, Origin::Absorbed, None);
            splice.skip(total);
            return Step::Done;
        }
        if kind == Kind::Close && self.link.sql.holds(key_of(name)) {
            self.link.sql.note_changed();
        }
        self.pass(kind, total as u64, splice)
    }

    /// True if it is not certain yet what the client's name means, or whether the server has the statement that is needed; also if
    /// there is no room for it yet.
    fn must_wait(&self, name: &[u8], id: Option<u64>) -> bool {
        let owed = &self.link.owed;
        owed.earlier_notes().any(|note| note.concerns(name, id))
            || self.link.may_drop && owed.notes().any(|note| matches!(note, Note::Suspect))
            || id.is_some_and(|id| owed.is_pipelined() && self.is_crowded(id))
    }

    /// True if a statement is one too many and none can be told to go.
    fn is_crowded(&self, id: u64) -> bool {
        let prepared = &self.link.prepared;
        !prepared.contains(id)
            && prepared.len() >= self.max()
            && !prepared.ids().any(|id| self.may_go(id))
    }

    /// A statement whose fate an earlier batch decides stays: whether it is there can't be told, so its end could not be taken back.
    fn may_go(&self, id: u64) -> bool {
        let mut notes = self.link.owed.earlier_notes();
        !notes.any(|note| note.concerns(b"", Some(id)))
    }

    fn max(&self) -> usize {
        self.max.max(1)
    }

    /// Lets the message wait. In a batch that is still open, the server has to be asked for the replies so far.
    fn wait(&mut self, splice: &mut Splice) -> Step {
        if !self.link.owed.is_pipelined() {
            build::flush(splice.insert());
        }
        Step::Busy
    }

    /// True if there is anything that could be dropped.
    fn watches(&self) -> bool {
        !(self.link.prepared.is_empty() && self.statements.names.is_empty())
    }

    /// Makes sure that the server has the statement when the next message reaches it.
    fn ensure(&mut self, statement: &Arc<Statement>, splice: &mut Splice) {
        match self.link.prepared.touch(statement.id) {
            Presence::Ready => {
                self.counts.hits += 1;
                return;
            }
            Presence::Outdated => self.close_hidden(statement, splice),
            Presence::Missing => {}
        }
        self.counts.server_parses += 1;
        build::parse_raw(splice.insert(), &statement.name, &statement.source);
        self.link.prepared.insert(statement.clone());
        self.sent(
            Kind::Parse,
            Origin::Hidden,
            Some(Note::OnServer(statement.clone())),
        );
        self.evict(statement.id, splice);
    }

    /// Makes room after `newest` has been added.
    fn evict(&mut self, newest: u64, splice: &mut Splice) {
        while self.link.prepared.len() > self.max() {
            let may_go = |id| id != newest && self.may_go(id);
            let Some(oldest) = self.link.prepared.oldest(may_go) else {
                return;
            };
            self.close_hidden(&oldest, splice);
        }
    }

    /// Closing a statement that is not there is no error.
    fn close_hidden(&mut self, statement: &Arc<Statement>, splice: &mut Splice) {
        self.link.prepared.remove(statement.id);
        build::close_statement(splice.insert(), &statement.name);
        self.sent(
            Kind::Close,
            Origin::Hidden,
            Some(Note::OffServer(statement.clone())),
        );
    }

    fn sent(&mut self, kind: Kind, origin: Origin, note: Option<Note>) {
        self.link.sent(kind, origin, note);
        settle(self.link, Some(self.statements));
    }
}

/// True if the text of a query may drop statements, or if too little of it is there to tell. `total` is the length of its
/// message.
pub fn text_may_drop(there: &[u8], total: u64) -> bool {
    let cut = there.len() < LOOKED_AT_MAX && there.len() + HEADER_LEN + 1 < total as usize;
    cut || may_drop_statements(there)
}

fn names_missing(total: u64, there: usize, broken: &'static str) -> Result<Step, ClientError> {
    if there as u64 >= total || there >= NAMES_LEN_MAX {
        return Err(ClientError::new(broken));
    }
    Ok(Step::NeedBytes((total as usize).min(NAMES_LEN_MAX)))
}
