//! DEALLOCATE of what was prepared by the protocol: PostgreSQL keeps both kinds of prepared statements in one name space.
//!
//! A server does not know the client's name, so a DEALLOCATE of one drops [`DUMMY_NAME`] instead, which is prepared for that: the
//! reply is PostgreSQL's own, whatever the state of the transaction.

use super::{NAMES_LEN_MAX, Rewriter, Step, names_missing, text_may_drop};
use crate::error::ClientError;
use crate::server::lexer;
use crate::server::owed::{Kind, Origin};
use crate::server::prepared::{DUMMY_NAME, Note};
use crate::wire::frame::HEADER_LEN;
use crate::wire::splice::Splice;
use crate::wire::startup::split_cstr;
use crate::wire::{build, read};

/// What executing the unnamed statement, or the portal made of it, drops: a statement prepared by the protocol.
#[derive(Debug, Default)]
pub(super) struct Drops {
    unnamed: Option<Box<[u8]>>,
    portal: Option<DroppingPortal>,
}

#[derive(Debug)]
struct DroppingPortal {
    name: Box<[u8]>,
    dropped: Box<[u8]>,
}

impl Drops {
    /// A portal is made of a statement, or what had its name is gone.
    pub(super) fn note_bind(&mut self, portal: &[u8], statement: &[u8]) {
        if let Some(dropped) = self.unnamed.as_ref().filter(|_| statement.is_empty()) {
            self.portal = Some(DroppingPortal {
                name: portal.into(),
                dropped: dropped.clone(),
            });
        } else if self
            .portal
            .as_ref()
            .is_some_and(|known| *known.name == *portal)
        {
            self.portal = None;
        }
    }

    fn of_portal(&self, portal: &[u8]) -> Option<&[u8]> {
        let known = self.portal.as_ref()?;
        (*known.name == *portal).then_some(&known.dropped)
    }
}

impl Rewriter<'_> {
    /// A Query of `total` bytes begins at the cursor whose text may drop statements. `None` if it is nothing special.
    pub fn query(&mut self, total: u64, splice: &mut Splice) -> Option<Step> {
        let rest = splice.rest();
        if total > NAMES_LEN_MAX as u64 || self.link.owed.is_copying_in() {
            return None;
        }
        let Some(body) = rest.get(HEADER_LEN..total as usize) else {
            return Some(Step::NeedBytes(total as usize));
        };
        let (text, _) = split_cstr(body)?;
        let name = lexer::deallocated(text)?;
        if self.must_wait(&name, None) {
            return Some(self.wait(splice));
        }
        if !self.statements.names.contains(&name) {
            return None;
        }
        self.statements.note_query();
        self.prepare_dummy(splice);
        build::query(splice.insert(), deallocate_dummy().as_bytes());
        let note = Note::Dropped { name: name.into() };
        self.sent(Kind::Query, Origin::Client, Some(note));
        splice.skip(total as usize);
        Some(Step::Done)
    }

    /// Its Close is no error, and neither is its Parse then.
    fn prepare_dummy(&mut self, splice: &mut Splice) {
        let out = splice.insert();
        build::close_statement(out, DUMMY_NAME.as_bytes());
        build::parse_raw(out, DUMMY_NAME.as_bytes(), b"\0\0\0");
        self.sent(Kind::Close, Origin::Hidden, None);
        self.sent(Kind::Parse, Origin::Hidden, None);
    }

    pub(super) fn parse_unnamed(&mut self, total: u64, splice: &mut Splice) -> Step {
        let rest = splice.rest();
        let body = &rest[HEADER_LEN..rest.len().min(total as usize)];
        if let Some(drops) = &mut self.statements.drops {
            drops.unnamed = None;
        }
        if !self.watches() || !text_may_drop(&body[1..], total) {
            return self.pass(Kind::Parse, total, splice);
        }
        self.link.may_drop = true;
        if total > NAMES_LEN_MAX as u64 || self.link.owed.is_copying_in() {
            return self.pass(Kind::Parse, total, splice);
        }
        if (body.len() as u64) < total - HEADER_LEN as u64 {
            return Step::NeedBytes(total as usize);
        }
        let parsed = read::parse(body).and_then(|(_, source)| split_cstr(source));
        let dropped = parsed.and_then(|(text, types)| Some((lexer::deallocated(text)?, types)));
        let Some((name, types)) = dropped else {
            return self.pass(Kind::Parse, total, splice);
        };
        if self.must_wait(&name, None) {
            return self.wait(splice);
        }
        if !self.statements.names.contains(&name) {
            return self.pass(Kind::Parse, total, splice);
        }
        let source = [deallocate_dummy().as_bytes(), b"\0", types].concat();
        build::parse_raw(splice.insert(), b"", &source);
        self.sent(Kind::Parse, Origin::Client, None);
        splice.skip(total as usize);
        let drops = self.statements.drops.get_or_insert_default();
        drops.unnamed = Some(name.into());
        Step::Done
    }

    /// An Execute of `total` bytes begins at the cursor, and it may be that of a DEALLOCATE.
    pub fn execute(&mut self, total: u64, splice: &mut Splice) -> Result<Step, ClientError> {
        let rest = splice.rest();
        let body = &rest[HEADER_LEN..rest.len().min(total as usize)];
        let Some((portal, _)) = split_cstr(body) else {
            return names_missing(total, rest.len(), "broken Execute packet");
        };
        let drops = self.statements.drops.as_ref();
        let dropped = drops.and_then(|drops| drops.of_portal(portal));
        let dropped: Option<Box<[u8]>> = dropped.map(Box::from);
        if dropped
            .as_ref()
            .is_some_and(|name| self.must_wait(name, None))
        {
            return Ok(self.wait(splice));
        }
        let names = &mut self.statements.names;
        let was = dropped.and_then(|name| Some((names.remove(&name)?, name)));
        let note = match was {
            // If it fails, so does all that follows up to the Sync: there the name is free until then.
            Some((was, name)) => {
                self.prepare_dummy(splice);
                Some(Note::Unnamed { name, was })
            }
            None => self.link.may_drop.then_some(Note::Suspect),
        };
        self.sent(Kind::Execute, Origin::Client, note);
        splice.pass(self.link.to_server.begin(total, splice.rest().len()));
        Ok(Step::Done)
    }
}

fn deallocate_dummy() -> String {
    format!("DEALLOCATE \"{DUMMY_NAME}\"")
}
