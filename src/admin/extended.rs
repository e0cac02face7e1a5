//! Prepared statements and portals of one console: pure bookkeeping of the extended protocol.
//!
//! Commands take no parameters, so a statement is little more than its parsed text. A portal runs its command at most once; what a
//! limited Execute leaves is kept for the next.

use std::collections::HashMap;
use std::fmt;

use super::command::{self, Command};
use super::error::CommandError;
use super::show::layout;
use super::table::{Column, Format, Formats};
use crate::wire::frame;

/// Prepared statements and portals that a console may have open, each.
const OPEN_MAX: usize = 100;

/// What went wrong with a statement or portal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtendedError {
    /// The text is no command.
    Command(CommandError),
    /// A prepared statement is one command.
    SeveralCommands,
    /// As many are open as may be.
    TooMany,
    /// A statement of this name exists.
    StatementExists(String),
    /// A portal of this name exists.
    PortalExists(String),
    /// No statement has this name.
    NoStatement(String),
    /// No portal has this name.
    NoPortal(String),
    /// Bind came with parameters.
    Parameters(usize),
    /// The number of result formats fits no result.
    Formats {
        /// Formats given.
        given: usize,
        /// Columns there are.
        columns: usize,
    },
    /// The portal has run already.
    PortalDone(String),
}

impl ExtendedError {
    /// The SQLSTATE that the client is told: PostgreSQL's.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            ExtendedError::Command(error) => error.sqlstate(),
            ExtendedError::SeveralCommands => "42601",
            ExtendedError::TooMany => "54000",
            ExtendedError::StatementExists(_) => "42P05",
            ExtendedError::PortalExists(_) => "42P03",
            ExtendedError::NoStatement(_) => "26000",
            ExtendedError::NoPortal(_) => "34000",
            ExtendedError::Parameters(_) | ExtendedError::Formats { .. } => "08P01",
            ExtendedError::PortalDone(_) => "55000",
        }
    }
}

impl fmt::Display for ExtendedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExtendedError::Command(error) => error.fmt(f),
            ExtendedError::SeveralCommands => {
                f.write_str("cannot insert multiple commands into a prepared statement")
            }
            ExtendedError::TooMany => {
                write!(f, "more than {OPEN_MAX} prepared statements or portals")
            }
            ExtendedError::StatementExists(name) => {
                write!(f, "prepared statement \"{name}\" already exists")
            }
            ExtendedError::PortalExists(name) => write!(f, "portal \"{name}\" already exists"),
            ExtendedError::NoStatement(name) => {
                write!(f, "prepared statement \"{name}\" does not exist")
            }
            ExtendedError::NoPortal(name) => write!(f, "portal \"{name}\" does not exist"),
            ExtendedError::Parameters(given) => {
                write!(
                    f,
                    "bind message supplies {given} parameters, but console commands take none"
                )
            }
            ExtendedError::Formats { given, columns } => {
                write!(
                    f,
                    "bind message has {given} result formats but the result has {columns} columns"
                )
            }
            ExtendedError::PortalDone(name) => write!(f, "portal \"{name}\" cannot be run again"),
        }
    }
}

impl std::error::Error for ExtendedError {}

/// A command and how its result is to be sent; no command for an empty text.
#[derive(Clone, Debug)]
pub struct Bound {
    /// What to run.
    pub command: Option<Command>,
    /// How to encode its rows.
    pub formats: Formats,
}

impl Bound {
    /// The columns of the result: `None` if there are no rows to expect.
    pub fn columns(&self) -> Option<&'static [Column]> {
        result_columns(self.command.as_ref())
    }
}

fn result_columns(command: Option<&Command>) -> Option<&'static [Column]> {
    let Some(Command::Show(show)) = command else {
        return None;
    };
    Some(layout::columns(*show)).filter(|columns| !columns.is_empty())
}

/// Rows that are still to be sent, as DataRow messages.
#[derive(Clone, Debug, Default)]
pub struct Rest {
    messages: Vec<u8>,
    at: usize,
}

impl Rest {
    /// Of these messages.
    pub fn new(messages: Vec<u8>) -> Self {
        Rest { messages, at: 0 }
    }

    /// The next `max_rows` rows, 0 for all; the flag says whether any are left.
    pub fn next(&mut self, max_rows: usize) -> (&[u8], bool) {
        let start = self.at;
        self.at = self.messages.len();
        if max_rows > 0 {
            self.at = end_of_rows(&self.messages, start, max_rows);
        }
        (
            &self.messages[start..self.at],
            self.at < self.messages.len(),
        )
    }
}

fn end_of_rows(messages: &[u8], start: usize, rows: usize) -> usize {
    let mut at = start;
    for _ in 0..rows {
        match frame::header(&messages[at..], u32::MAX) {
            Ok(Some(header)) => at += header.total as usize,
            // The end; these messages are our own, so they are whole.
            _ => break,
        }
    }
    at.min(messages.len())
}

/// How far a portal is.
#[derive(Clone, Debug)]
pub enum Portal {
    /// It has not run.
    Ready(Bound),
    /// Rows are left.
    Suspended(Bound, Rest),
    /// It has run to its end.
    Done(Bound),
}

impl Portal {
    /// What it runs or ran.
    pub fn bound(&self) -> &Bound {
        match self {
            Portal::Ready(bound) | Portal::Suspended(bound, _) | Portal::Done(bound) => bound,
        }
    }
}

/// The open statements and portals.
#[derive(Clone, Debug, Default)]
pub struct Extended {
    statements: HashMap<Vec<u8>, Option<Command>>,
    portals: HashMap<Vec<u8>, Portal>,
}

impl Extended {
    /// Parse: the unnamed statement is replaced, others must be new.
    pub fn parse(&mut self, name: Vec<u8>, text: &str) -> Result<(), ExtendedError> {
        if !name.is_empty() && self.statements.contains_key(&name) {
            return Err(ExtendedError::StatementExists(shown(&name)));
        }
        let mut commands = command::parse(text).map_err(ExtendedError::Command)?;
        let command = commands.pop();
        if !commands.is_empty() {
            return Err(ExtendedError::SeveralCommands);
        }
        insert(&mut self.statements, name, command)
    }

    /// Bind, likewise.
    pub fn bind(
        &mut self,
        portal: Vec<u8>,
        statement: &[u8],
        parameters: usize,
        results: Vec<Format>,
    ) -> Result<(), ExtendedError> {
        let command = self.statement(statement)?.cloned();
        if !portal.is_empty() && self.portals.contains_key(&portal) {
            return Err(ExtendedError::PortalExists(shown(&portal)));
        }
        if parameters > 0 {
            return Err(ExtendedError::Parameters(parameters));
        }
        let (given, columns) = (
            results.len(),
            result_columns(command.as_ref()).map_or(0, <[_]>::len),
        );
        if given > 1 && given != columns {
            return Err(ExtendedError::Formats { given, columns });
        }
        let formats = Formats(results);
        insert(
            &mut self.portals,
            portal,
            Portal::Ready(Bound { command, formats }),
        )
    }

    /// The columns of a statement's result: `None` if there are no rows to expect.
    pub fn describe_statement(
        &self,
        name: &[u8],
    ) -> Result<Option<&'static [Column]>, ExtendedError> {
        Ok(result_columns(self.statement(name)?))
    }

    /// What a portal will run or has run.
    pub fn describe_portal(&self, name: &[u8]) -> Result<&Bound, ExtendedError> {
        let portal = self.portals.get(name).map(Portal::bound);
        portal.ok_or_else(|| ExtendedError::NoPortal(shown(name)))
    }

    /// Takes a portal to execute it; whoever takes it puts it back with [`Extended::put`]. Until then it counts as done, so that a
    /// command that fails, or is given up, is not run again.
    pub fn take(&mut self, name: &[u8]) -> Result<Portal, ExtendedError> {
        let Some(portal) = self.portals.get_mut(name) else {
            return Err(ExtendedError::NoPortal(shown(name)));
        };
        if let Portal::Done(_) = portal {
            return Err(ExtendedError::PortalDone(shown(name)));
        }
        let done = Portal::Done(portal.bound().clone());
        Ok(std::mem::replace(portal, done))
    }

    /// Puts back a portal of which rows are left.
    pub fn put(&mut self, name: &[u8], portal: Portal) {
        if let Some(place) = self.portals.get_mut(name) {
            *place = portal;
        }
    }

    /// Close of a statement; that there is none is no error.
    pub fn close_statement(&mut self, name: &[u8]) {
        self.statements.remove(name);
    }

    /// Close of a portal, likewise.
    pub fn close_portal(&mut self, name: &[u8]) {
        self.portals.remove(name);
    }

    /// The end of a transaction, which every Sync and every simple Query is here: no portal outlives it.
    pub fn end_transaction(&mut self) {
        self.portals.clear();
    }

    fn statement(&self, name: &[u8]) -> Result<Option<&Command>, ExtendedError> {
        let statement = self.statements.get(name).map(Option::as_ref);
        statement.ok_or_else(|| ExtendedError::NoStatement(shown(name)))
    }
}

fn insert<T>(map: &mut HashMap<Vec<u8>, T>, name: Vec<u8>, value: T) -> Result<(), ExtendedError> {
    if map.len() >= OPEN_MAX && !map.contains_key(&name) {
        return Err(ExtendedError::TooMany);
    }
    map.insert(name, value);
    Ok(())
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_statement(text: &str) -> Extended {
        let mut extended = Extended::default();
        assert_eq!(extended.parse(Vec::new(), text), Ok(()));
        extended
    }

    #[test]
    fn names_are_unique_but_for_the_unnamed() {
        let mut extended = with_statement("SHOW STATE");
        assert_eq!(extended.parse(Vec::new(), "RELOAD"), Ok(()));
        assert_eq!(extended.parse(b"s".to_vec(), "RELOAD"), Ok(()));
        let exists = ExtendedError::StatementExists("s".to_owned());
        assert_eq!(extended.parse(b"s".to_vec(), "RELOAD"), Err(exists));
        for _ in 0..2 {
            assert_eq!(extended.bind(Vec::new(), b"", 0, Vec::new()), Ok(()));
        }
        assert_eq!(extended.bind(b"p".to_vec(), b"s", 0, Vec::new()), Ok(()));
        let exists = ExtendedError::PortalExists("p".to_owned());
        assert_eq!(
            extended.bind(b"p".to_vec(), b"s", 0, Vec::new()),
            Err(exists)
        );
    }

    #[test]
    fn there_is_a_limit() {
        let mut extended = with_statement("RELOAD");
        let names = |n: usize| n.to_string().into_bytes();
        for n in 1..OPEN_MAX {
            assert_eq!(extended.parse(names(n), "RELOAD"), Ok(()));
        }
        assert_eq!(
            extended.parse(names(0), "RELOAD"),
            Err(ExtendedError::TooMany)
        );
        assert_eq!(extended.parse(Vec::new(), "RELOAD"), Ok(()));
        extended.close_statement(&names(1));
        assert_eq!(extended.parse(names(0), "RELOAD"), Ok(()));
        for n in 0..OPEN_MAX {
            assert_eq!(extended.bind(names(n), b"", 0, Vec::new()), Ok(()));
        }
        assert_eq!(
            extended.bind(Vec::new(), b"", 0, Vec::new()),
            Err(ExtendedError::TooMany)
        );
    }

    #[test]
    fn a_statement_is_one_command_without_parameters() {
        let mut extended = Extended::default();
        let several = extended.parse(Vec::new(), "RELOAD; RELOAD");
        assert_eq!(several, Err(ExtendedError::SeveralCommands));
        let missing = ExtendedError::NoStatement(String::new());
        assert_eq!(extended.bind(Vec::new(), b"", 0, Vec::new()), Err(missing));
        let mut extended = with_statement("RELOAD;;");
        let parameters = extended.bind(Vec::new(), b"", 2, Vec::new());
        assert_eq!(parameters, Err(ExtendedError::Parameters(2)));
    }

    #[test]
    fn formats_must_fit_the_columns() {
        let mut extended = with_statement("SHOW STATE");
        for (given, fits) in [(0, true), (1, true), (2, true), (3, false)] {
            let bound = extended.bind(Vec::new(), b"", 0, vec![Format::Binary; given]);
            let expected = ExtendedError::Formats { given, columns: 2 };
            assert_eq!(bound, if fits { Ok(()) } else { Err(expected) });
        }
    }

    #[test]
    fn rows_in_portions() {
        let mut rest = Rest::new(b"D\0\0\0\x04D\0\0\0\x05xD\0\0\0\x04".to_vec());
        assert_eq!(rest.next(1), (&b"D\0\0\0\x04"[..], true));
        assert_eq!(rest.next(1), (&b"D\0\0\0\x05x"[..], true));
        assert_eq!(rest.next(5), (&b"D\0\0\0\x04"[..], false));
        assert_eq!(rest.next(0), (&b""[..], false));
    }
}
