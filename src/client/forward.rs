//! From the client to its server: which bytes go out, and what the server owes for them. Pure.

use super::statements::{self, Counts, Rewriter, Statements, Step};
use crate::error::ClientError;
use crate::metrics::ErrorKind;
use crate::server::link::ServerLink;
use crate::server::owed::{Kind, Origin};
use crate::server::prepared::{Note, StatementCache};
use crate::wire::frame::{self, HEADER_LEN, Header};
use crate::wire::splice::Splice;
use crate::wire::tag::from_client as tag;

/// What the walk over a client's bytes depends on.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Named statements are rewritten: transaction or statement pooling with `max_prepared_statements` above zero.
    pub rewrite: bool,
    /// `max_prepared_statements`
    pub max_prepared: usize,
    /// `max_packet_size`
    pub max_packet_size: u32,
    /// `disable_pqexec`
    pub refuse_simple: bool,
}

/// Why a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Everything that can be decided has been; a rest that was not consumed is the beginning of a message.
    Input,
    /// The message at the cursor can't be decided before this many bytes of it are there.
    NeedBytes(usize),
    /// The message at the cursor can't be decided before the server has answered something: walk again when it has.
    Busy,
    /// The client says good-bye.
    Terminate,
}

/// One walk over bytes of a client that is linked with a server.
pub struct Forward<'a> {
    /// What it depends on.
    pub rules: Rules,
    /// The client's names for statements.
    pub statements: &'a mut Statements,
    /// The server.
    pub link: &'a mut ServerLink,
    /// All statements in use.
    pub cache: &'a StatementCache,
    /// What was counted.
    pub counts: &'a mut Counts,
}

impl Forward<'_> {
    /// Walks as far as the bytes go.
    pub fn run(&mut self, splice: &mut Splice) -> Result<Stop, ClientError> {
        if self.link.may_drop && self.link.is_free() {
            self.link.may_drop = false; // no portal is left that could be executed
        }
        loop {
            splice.pass(self.link.to_server.advance(splice.rest().len()));
            if !self.link.to_server.at_boundary() {
                return Ok(Stop::Input);
            }
            let header = match frame::header(splice.rest(), self.rules.max_packet_size) {
                Ok(Some(header)) => header,
                Ok(None) => return Ok(Stop::Input),
                Err(_) => return Err(bad_header(splice.rest())),
            };
            if header.tag == tag::TERMINATE {
                return Ok(Stop::Terminate);
            }
            match self.message(header, splice)? {
                Step::Done => {}
                Step::NeedBytes(n) => return Ok(Stop::NeedBytes(n)),
                Step::Busy => return Ok(Stop::Busy),
            }
        }
    }

    fn message(&mut self, header: Header, splice: &mut Splice) -> Result<Step, ClientError> {
        // What the server is going to skip needs no rewriting, and changes nothing.
        let rewrite = self.rules.rewrite && !self.link.owed.is_skipping();
        let total = header.total;
        let kind = match header.tag {
            tag::QUERY => return self.query(header, splice),
            tag::PARSE if rewrite => return self.rewriter().parse(total, splice),
            tag::BIND if rewrite => return self.rewriter().bind(total, splice),
            tag::DESCRIBE if rewrite => {
                return self
                    .rewriter()
                    .describe_or_close(Kind::Describe, total, splice);
            }
            tag::CLOSE if rewrite => {
                return self
                    .rewriter()
                    .describe_or_close(Kind::Close, total, splice);
            }
            tag::EXECUTE if rewrite && self.statements.may_drop() => {
                return self.rewriter().execute(total, splice);
            }
            tag::PARSE => Some(Kind::Parse),
            tag::BIND => Some(Kind::Bind),
            tag::DESCRIBE => Some(Kind::Describe),
            tag::CLOSE => Some(Kind::Close),
            tag::EXECUTE => Some(Kind::Execute),
            tag::SYNC => Some(Kind::Sync),
            tag::FUNCTION_CALL => Some(Kind::FunctionCall),
            tag::COPY_DONE | tag::COPY_FAIL => Some(Kind::CopyEnd),
            tag::COPY_DATA | tag::FLUSH => None,
            _ => return Err(ClientError::new("unknown pkt")),
        };
        if let Some(kind) = kind {
            let suspect = kind == Kind::Execute && self.link.may_drop;
            self.sent(kind, suspect);
        }
        self.pass(header.total, splice);
        Ok(Step::Done)
    }

    fn query(&mut self, header: Header, splice: &mut Splice) -> Result<Step, ClientError> {
        if self.rules.refuse_simple {
            return Err(ClientError::new("PQexec disallowed").as_kind(ErrorKind::NotAllowed));
        }
        let watched = self.rules.rewrite
            && !(self.link.prepared.is_empty() && self.statements.names.is_empty());
        let suspect = watched && {
            let rest = splice.rest();
            let text = &rest[HEADER_LEN..rest.len().min(header.total as usize)];
            statements::text_may_drop(text, header.total)
        };
        if suspect
            && !self.link.owed.is_skipping()
            && let Some(step) = self.rewriter().query(header.total, splice)
        {
            return Ok(step);
        }
        self.statements.note_query();
        self.link.may_drop |= suspect;
        self.sent(Kind::Query, suspect);
        self.pass(header.total, splice);
        Ok(Step::Done)
    }

    fn sent(&mut self, kind: Kind, suspect: bool) {
        self.link
            .sent(kind, Origin::Client, suspect.then_some(Note::Suspect));
        statements::settle(self.link, Some(self.statements));
    }

    fn pass(&mut self, total: u64, splice: &mut Splice) {
        splice.pass(self.link.to_server.begin(total, splice.rest().len()));
    }

    fn rewriter(&mut self) -> Rewriter<'_> {
        Rewriter {
            statements: self.statements,
            link: self.link,
            cache: self.cache,
            max: self.rules.max_prepared,
            counts: self.counts,
        }
    }
}

/// PgBouncer shows the first bytes of a packet whose header makes no sense.
pub fn bad_header(bytes: &[u8]) -> ClientError {
    const SHOWN: usize = 8;
    let hex: String = bytes
        .iter()
        .take(SHOWN)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    ClientError::with(format!("bad packet header: '{hex}'"))
}
