//! A client's prepared statements: its own names for statements that servers know under the pooler's names.
//!
//! Pure. [`Rewriter`] turns one Parse, Bind, Describe or Close of a client into what the linked server has to be sent; what it
//! assumes goes along as a [`Note`], and [`settle`] confirms it or takes it back when the replies tell.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::error::ClientError;
use crate::server::link::ServerLink;
use crate::server::owed::{Event, Kind, Origin};
use crate::server::prepared::{Note, Statement, StatementCache};
use crate::types::TxStatus;
use crate::wire::frame::HEADER_LEN;
use crate::wire::splice::Splice;
use crate::wire::tag::from_client as tag;
use crate::wire::{build, read};

/// The most names that one client may have in use.
pub const NAMES_MAX: usize = 65_536;
/// The largest Parse message of a named statement: it has to be held whole.
pub const PARSE_LEN_MAX: u64 = 64 << 20;
/// The most bytes of a message in which its names must end.
pub const NAMES_LEN_MAX: usize = 16 << 10;

/// The client's names and the statements they stand for. An empty map allocates nothing.
#[derive(Debug, Default)]
pub struct Statements {
    by_name: HashMap<Box<[u8]>, Arc<Statement>>,
}

impl Statements {
    /// How many names are in use.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// True if no name is in use.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
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
}

impl Rewriter<'_> {
    /// A Parse of `total` bytes begins at the cursor.
    pub fn parse(&mut self, total: u64, splice: &mut Splice) -> Result<Step, ClientError> {
        let rest = splice.rest();
        if rest.len() == HEADER_LEN && total > HEADER_LEN as u64 {
            return Ok(Step::NeedBytes(HEADER_LEN + 1));
        }
        if rest.get(HEADER_LEN) == Some(&0) {
            return Ok(self.pass(Kind::Parse, total, splice)); // the unnamed statement
        }
        if total > PARSE_LEN_MAX {
            return Err(ClientError::new("prepared statement is too large"));
        }
        let total = total as usize;
        let Some(body) = rest.get(HEADER_LEN..total) else {
            return Ok(Step::NeedBytes(total));
        };
        let (name, source) = read::parse(body).ok_or(ClientError::new("broken Parse packet"))?;
        self.counts.client_parses += 1;
        if let Some(known) = self.statements.by_name.get(name).cloned() {
            self.parse_again(name, known, source, splice);
        } else {
            self.parse_new(name, source, splice)?;
        }
        splice.skip(total);
        Ok(Step::Done)
    }

    fn parse_new(
        &mut self,
        name: &[u8],
        source: &[u8],
        splice: &mut Splice,
    ) -> Result<(), ClientError> {
        if self.statements.by_name.len() >= NAMES_MAX {
            return Err(ClientError::new("too many prepared statements"));
        }
        let statement = self.cache.statement(source);
        self.statements
            .by_name
            .insert(name.into(), statement.clone());
        // In a failed transaction the server has to say no itself, so it must be asked.
        let failed = self.link.owed.status() == TxStatus::Failed;
        let known = self.link.prepared.touch(statement.id);
        let sent = !known || failed || self.link.prepared.is_suspect();
        if known && sent {
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
            self.link.prepared.insert(statement);
            self.sent(Kind::Parse, Origin::Client, Some(note));
            self.evict(splice);
        } else {
            self.sent(Kind::Parse, Origin::Absorbed, Some(note));
        }
        Ok(())
    }

    /// The name is taken. PostgreSQL would look at the new text first and then refuse the name, so that is what it is asked to do,
    /// under the name that it knows.
    fn parse_again(
        &mut self,
        name: &[u8],
        known: Arc<Statement>,
        source: &[u8],
        splice: &mut Splice,
    ) {
        self.ensure(&known, splice);
        build::parse_raw(splice.insert(), &known.name, source);
        let note = Note::Duplicate {
            name: name.into(),
            statement: known,
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
        if name.is_empty() {
            return Ok(self.pass(Kind::Bind, total, splice));
        }
        self.counts.binds += 1;
        let Some(statement) = self.statements.by_name.get(name).cloned() else {
            return Ok(self.pass(Kind::Bind, total, splice)); // the server knows how to refuse it
        };
        self.ensure(&statement, splice);
        let head = body.len() - behind.len();
        let len = total - 1 - name.len() as u64 + statement.name.len() as u64;
        let out = splice.insert();
        out.push(tag::BIND);
        out.extend_from_slice(&(len as u32).to_be_bytes());
        build::cstr(out, portal);
        build::cstr(out, &statement.name);
        self.sent(Kind::Bind, Origin::Client, None);
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
        let Some(statement) = self.statements.by_name.get(name).cloned() else {
            return Ok(self.pass(kind, total as u64, splice));
        };
        if kind == Kind::Close {
            self.statements.by_name.remove(name);
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

    /// Makes sure that the server has the statement when the next message reaches it.
    fn ensure(&mut self, statement: &Arc<Statement>, splice: &mut Splice) {
        let known = self.link.prepared.touch(statement.id);
        if known && !self.link.prepared.is_suspect() {
            return;
        }
        if known {
            self.close_hidden(statement, splice);
        }
        self.counts.server_parses += 1;
        build::parse_raw(splice.insert(), &statement.name, &statement.source);
        self.link.prepared.insert(statement.clone());
        self.sent(
            Kind::Parse,
            Origin::Hidden,
            Some(Note::OnServer(statement.clone())),
        );
        self.evict(splice);
    }

    fn evict(&mut self, splice: &mut Splice) {
        while let Some(oldest) = self.link.prepared.evict(self.max.max(1)) {
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
    }
}

fn names_missing(total: u64, there: usize, broken: &'static str) -> Result<Step, ClientError> {
    if there as u64 >= total || there >= NAMES_LEN_MAX {
        return Err(ClientError::new(broken));
    }
    Ok(Step::NeedBytes((total as usize).min(NAMES_LEN_MAX)))
}

/// Takes note of what became of a request. The names are missing when the client is gone.
pub fn settle(event: &Event<Note>, names: Option<&mut Statements>, link: &mut ServerLink) {
    match event {
        Event::Done(note) | Event::Answer(_, Some(note)) => {
            if let Note::Suspect = note {
                link.prepared.suspect(false);
            }
        }
        Event::Undone(note) => take_back(note, names, link),
        Event::Answer(_, None) => {}
    }
}

fn take_back(note: &Note, names: Option<&mut Statements>, link: &mut ServerLink) {
    match note {
        Note::Named { name, now, sent } => {
            if let Some(names) = names {
                names.by_name.remove(name);
            }
            if *sent {
                link.prepared.remove(now.id);
            }
        }
        Note::Unnamed { name, was } => {
            if let Some(names) = names {
                names.by_name.insert(name.clone(), was.clone());
            }
        }
        Note::OnServer(statement) => link.prepared.remove(statement.id),
        Note::OffServer(statement) => link.prepared.insert(statement.clone()),
        Note::Suspect => link.prepared.suspect(false),
        Note::Duplicate { .. } => {}
    }
}

/// The server has dropped all its statements at the client's demand: only those named by requests still in flight remain.
pub fn forget_all(names: &mut Statements, link: &mut ServerLink) {
    names.by_name.clear();
    link.prepared.clear();
    for note in link.owed.notes() {
        match note {
            Note::Named { name, now, sent } => {
                names.by_name.insert(name.clone(), now.clone());
                if *sent {
                    link.prepared.insert(now.clone());
                }
            }
            Note::Unnamed { name, .. } => {
                names.by_name.remove(name);
            }
            Note::OnServer(statement) => link.prepared.insert(statement.clone()),
            Note::OffServer(statement) => link.prepared.remove(statement.id),
            Note::Duplicate { .. } | Note::Suspect => {}
        }
    }
}

/// True if a simple query may drop prepared statements: it contains a word that such a statement begins with.
///
/// Only the beginning of a long text is looked at; a statement hidden further behind merely costs an error that PostgreSQL itself
/// would raise.
pub fn may_drop_statements(text: &[u8]) -> bool {
    const LOOKED_AT: usize = 4096;
    let text = &text[..text.len().min(LOOKED_AT)];
    text.windows(7)
        .any(|word| word.eq_ignore_ascii_case(b"DISCARD"))
        || text
            .windows(10)
            .any(|word| word.eq_ignore_ascii_case(b"DEALLOCATE"))
}
