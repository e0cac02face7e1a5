//! A conversation as a value: what a client sends, in which pieces, and how far it reads before it goes on. Nothing here depends on what a
//! pooler is; the same value is played to PostgreSQL and through the pooler.

use std::fmt;

use crate::proto::msg;

/// How long a client keeps state on its server: a conversation of a mode is valid in that mode and in those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    Session,
    Transaction,
    Statement,
}

impl Mode {
    pub const ALL: [Mode; 3] = [Mode::Session, Mode::Transaction, Mode::Statement];

    pub fn word(self) -> &'static str {
        match self {
            Mode::Session => "session",
            Mode::Transaction => "transaction",
            Mode::Statement => "statement",
        }
    }
}

/// One message, and how to show it to a person.
#[derive(Clone)]
pub struct Message {
    label: String,
    pub bytes: Vec<u8>,
}

impl Message {
    fn new(label: String, bytes: Vec<u8>) -> Message {
        Message { label, bytes }
    }

    pub fn query(sql: &str) -> Message {
        Message::new(format!("Query {}", short(sql)), msg::query(sql))
    }

    pub fn query_bytes(sql: &[u8]) -> Message {
        Message::new(
            format!("Query b{}", short(&sql.escape_ascii().to_string())),
            msg::query_bytes(sql),
        )
    }

    pub fn parse(name: &str, sql: &str, types: &[u32]) -> Message {
        Message::new(
            format!("Parse {name:?} {} {types:?}", short(sql)),
            msg::parse(name, sql, types),
        )
    }

    pub fn bind(
        portal: &str,
        statement: &str,
        formats: &[i16],
        values: &[Option<Vec<u8>>],
        results: &[i16],
    ) -> Message {
        let shown: Vec<String> = values
            .iter()
            .map(|v| {
                v.as_ref()
                    .map_or("NULL".into(), |v| short(&v.escape_ascii().to_string()))
            })
            .collect();
        let values: Vec<Option<&[u8]>> = values.iter().map(Option::as_deref).collect();
        let label = format!(
            "Bind portal {portal:?} of {statement:?} {shown:?} formats {formats:?} results {results:?}"
        );
        Message::new(
            label,
            msg::bind_formats(portal, statement, formats, &values, results),
        )
    }

    pub fn describe(kind: u8, name: &str) -> Message {
        Message::new(
            format!("Describe {} {name:?}", char::from(kind)),
            msg::describe(kind, name),
        )
    }

    pub fn close(kind: u8, name: &str) -> Message {
        Message::new(
            format!("Close {} {name:?}", char::from(kind)),
            msg::close(kind, name),
        )
    }

    pub fn execute(portal: &str, max_rows: i32) -> Message {
        Message::new(
            format!("Execute {portal:?} {max_rows}"),
            msg::execute(portal, max_rows),
        )
    }

    pub fn sync() -> Message {
        Message::new("Sync".into(), msg::sync())
    }

    pub fn flush() -> Message {
        Message::new("Flush".into(), msg::flush())
    }

    pub fn copy_data(data: &[u8]) -> Message {
        Message::new(
            format!("CopyData {}", short(&data.escape_ascii().to_string())),
            msg::copy_data(data),
        )
    }

    pub fn copy_done() -> Message {
        Message::new("CopyDone".into(), msg::copy_done())
    }

    pub fn copy_fail(reason: &str) -> Message {
        Message::new(format!("CopyFail {reason:?}"), msg::copy_fail(reason))
    }

    pub fn function_call(oid: u32, args: &[&str]) -> Message {
        Message::new(
            format!("FunctionCall {oid} {args:?}"),
            msg::function_call(oid, args),
        )
    }

    pub fn is_sync(&self) -> bool {
        self.bytes[0] == b'S'
    }

    pub fn is_flush(&self) -> bool {
        self.bytes[0] == b'H'
    }

    pub fn is_unnamed_parse(&self) -> bool {
        self.bytes[0] == b'P' && self.bytes[5] == 0
    }

    /// Does the server answer this one in extended protocol, before any Sync?
    pub fn is_extended(&self) -> bool {
        matches!(self.bytes[0], b'P' | b'B' | b'D' | b'E' | b'C')
    }
}

fn short(text: &str) -> String {
    if text.len() <= 160 {
        return format!("{text:?}");
    }
    let end = (0..=120)
        .rev()
        .find(|i| text.is_char_boundary(*i))
        .unwrap_or(0);
    format!("{:?}… ({} bytes)", &text[..end], text.len())
}

/// When a step's replies are complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// This many ReadyForQuery came.
    Ready(usize),
    /// After a Flush: this many messages are answered, or one failed (then the rest is silence until Sync).
    Answers(usize),
    /// The server asks for COPY data, or is ready because the COPY was refused.
    CopyOrReady,
    /// The same after a Flush: a refused COPY gives an error and then silence until Sync.
    CopyOrError,
}

/// What is written without waiting in between, and how far to read then.
#[derive(Clone)]
pub struct Step {
    pub messages: Vec<Message>,
    pub until: Until,
    /// What to do instead when the step before ended without COPY mode.
    pub unless_copying: Option<(Vec<Message>, usize)>,
}

impl Step {
    pub fn ready(messages: Vec<Message>, count: usize) -> Step {
        Step {
            messages,
            until: Until::Ready(count),
            unless_copying: None,
        }
    }

    pub fn query(sql: &str) -> Step {
        Step::ready(vec![Message::query(sql)], 1)
    }
}

/// Steps that only make sense together.
pub type Part = Vec<Step>;

/// A piece of a conversation that leaves nothing behind which a later unit needs.
#[derive(Clone)]
pub struct Unit {
    pub what: &'static str,
    pub parts: Vec<Part>,
    /// The first and the last part must stay, as BEGIN and COMMIT.
    pub framed: bool,
}

/// How the client leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Terminate,
    Drop,
    /// Closes its socket in the middle of the last step, its replies unread; never compared, but a bad neighbour.
    Vanish,
}

/// How each step's bytes are cut into writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunks {
    Whole,
    /// A few cuts anywhere.
    Some,
    /// Pieces of one to seven bytes, for steps that are not too long.
    Tiny,
}

#[derive(Clone)]
pub struct Conversation {
    pub seed: u64,
    pub mode: Mode,
    /// Start-up parameters beside user and database.
    pub startup: Vec<(&'static str, String)>,
    pub units: Vec<Unit>,
    pub ending: Ending,
    pub chunks: Chunks,
}

impl Conversation {
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.units.iter().flat_map(|u| u.parts.iter().flatten())
    }
}

impl fmt::Display for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "conversation {} ({:?}), startup {:?}, {:?} writes, ends by {:?}",
            self.seed, self.mode, self.startup, self.chunks, self.ending
        )?;
        let mut number = 0;
        for unit in &self.units {
            writeln!(f, "  {}", unit.what)?;
            for step in unit.parts.iter().flatten() {
                writeln!(f, "    step {number}, until {:?}", step.until)?;
                number += 1;
                for message in &step.messages {
                    writeln!(f, "      {}", message.label)?;
                }
                if let Some((messages, count)) = &step.unless_copying {
                    let labels: Vec<&str> = messages.iter().map(|m| m.label.as_str()).collect();
                    writeln!(f, "      unless copying: {labels:?} until Ready({count})")?;
                }
            }
        }
        Ok(())
    }
}
