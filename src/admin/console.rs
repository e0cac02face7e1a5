//! One console connection, from its login burst to its end: reads messages, runs commands, answers.
//!
//! The client has proved who it is, and nothing has been sent since. The simple protocol works as in PgBouncer; the extended one,
//! which PgBouncer's console refuses, works for commands as far as it makes sense. What goes wrong is logged before the client can
//! see it.

mod link;

use std::fmt;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::COMPATIBLE_VERSION;
use super::command::{self, Command};
use super::desk::{ConsoleUser, Desk, Seat};
use super::error::CommandError;
use super::execute::{self, Done, Reply};
use super::extended::{Bound, Extended, ExtendedError, Portal, Rest};
use super::operator::Operator;
use super::request::{self, Request, Target};
use super::table::{self, Formats};
use crate::wire::build::{self, Severity};
use crate::wire::frame;
use crate::wire::tag::from_server;
use link::Link;

/// Longest message, by its length field. A longer one ends the connection.
pub const MESSAGE_MAX: u32 = 64 * 1024;
/// Bytes of answers after which they are sent without waiting for the client to ask for them.
const UNSENT_MAX: usize = 64 * 1024;
/// How long the last message to a client that does not read may take.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Errors without a SQLSTATE of their own have PgBouncer's.
const PROTOCOL_VIOLATION: &str = "08P01";

/// Why a console connection ended. Prints as the reason in PgBouncer's `closing because: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It said so.
    Terminated,
    /// It just left.
    Left,
    /// It sent what cannot be answered; the text is what it was told.
    Fatal(String),
    /// KILL_CLIENT.
    Killed,
    /// SHUTDOWN: the program ends.
    Exit,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ending::Terminated => "client close request",
            Ending::Left => "client unexpected eof",
            Ending::Fatal(text) => text,
            Ending::Killed => KILLED,
            Ending::Exit => "shutdown",
        })
    }
}

const KILLED: &str = "admin forced disconnect";

/// Serves one console until it ends. To be called when the user has proved who it is, instead of greeting it otherwise.
///
/// Dropping the future closes the console; what its command has begun stays in force.
pub async fn serve<S, O>(stream: S, operator: &O, desk: &Desk, user: ConsoleUser) -> Ending
where
    S: AsyncRead + AsyncWrite + Unpin,
    O: Operator,
{
    let seat = desk.enter(&user);
    let mut console = Console {
        link: Link::new(stream),
        operator,
        desk,
        seat: &seat,
        user: &user,
        extended: Extended::default(),
        skipping: false,
    };
    let ended = select! {
        biased;
        () = seat.killed() => None,
        ended = console.run() => Some(ended),
    };
    match ended {
        Some(Err(ending)) => ending,
        Some(Ok(never)) => match never {},
        None => console.kick().await,
    }
}

/// Never: a console runs until something ends it.
enum Never {}

/// How a step failed.
enum Failed {
    /// The command; the client has been told.
    Command,
    /// The connection.
    Ended(Ending),
}

impl From<Ending> for Failed {
    fn from(ending: Ending) -> Self {
        Failed::Ended(ending)
    }
}

struct Console<'a, S, O> {
    link: Link<S>,
    operator: &'a O,
    desk: &'a Desk,
    seat: &'a Seat<'a>,
    user: &'a ConsoleUser,
    extended: Extended,
    /// After an error in the extended protocol everything is skipped up to the next Sync.
    skipping: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin, O: Operator> Console<'_, S, O> {
    async fn run(&mut self) -> Result<Never, Ending> {
        self.greet();
        self.link.send().await?;
        loop {
            let request = self.next_request().await?;
            self.seat.touch(SystemTime::now());
            let _answering = self.desk.begin_answer();
            self.handle(request).await?;
            self.relieve().await?;
        }
    }

    /// Sends answers before there are too many of them. A client that does not read them is not served further.
    async fn relieve(&mut self) -> Result<(), Ending> {
        if self.link.out.len() > UNSENT_MAX {
            self.link.send().await?;
        }
        Ok(())
    }

    /// The login burst, up to the first ReadyForQuery.
    fn greet(&mut self) {
        let config = self.operator.config();
        let out = &mut self.link.out;
        build::authentication_ok(out);
        let bouncer = format!("{COMPATIBLE_VERSION}/bouncer");
        for (name, value) in [
            ("pgbouncer.version", COMPATIBLE_VERSION),
            ("server_version", bouncer.as_str()),
            ("client_encoding", "UTF8"),
            ("server_encoding", "UTF8"),
            ("DateStyle", "ISO"),
            ("TimeZone", "GMT"),
            ("standard_conforming_strings", "on"),
            ("is_superuser", "on"),
        ] {
            build::parameter_status(out, name.as_bytes(), value.as_bytes());
        }
        for (name, value) in &self.user.parameters {
            build::parameter_status(out, name, value);
        }
        build::backend_key_data(out, self.user.key);
        let message = &config.settings.login_notify_message;
        if !message.is_empty() {
            build::error(out, Severity::Notice, "00000", message.as_bytes());
        }
        build::ready_for_query(out, b'I');
    }

    async fn next_request(&mut self) -> Result<Request, Ending> {
        loop {
            let bytes = self.link.unhandled();
            let head = match frame::header(bytes, MESSAGE_MAX) {
                Ok(head) => head,
                Err(_) => return Err(self.fatal("bad packet header").await),
            };
            // The length was checked against MESSAGE_MAX, so it fits.
            let whole = head.and_then(|head| Some((head, bytes.get(..head.total as usize)?)));
            let Some((head, message)) = whole else {
                self.link.read().await?;
                continue;
            };
            let request = request::read(head.tag, &message[frame::HEADER_LEN..]);
            self.link.consume(head.total as usize);
            return match request {
                Ok(request) => Ok(request),
                Err(bad) => Err(self.fatal(&bad.to_string()).await),
            };
        }
    }

    async fn handle(&mut self, request: Request) -> Result<(), Ending> {
        match request {
            Request::Terminate => return Err(Ending::Terminated),
            Request::Sync => {
                self.skipping = false;
                self.extended.end_transaction();
                return self.ready().await;
            }
            _ if self.skipping => return Ok(()),
            Request::Query(text) => return self.query(&text).await,
            Request::Flush => return self.link.send().await,
            _ => {}
        }
        match self.extended(request).await {
            Ok(()) => Ok(()),
            Err(Failed::Ended(ending)) => Err(ending),
            Err(Failed::Command) => {
                self.skipping = true;
                Ok(())
            }
        }
    }

    /// The simple protocol: any number of commands, of which an error skips the rest.
    async fn query(&mut self, text: &str) -> Result<(), Ending> {
        if self.operator.config().settings.disable_pqexec {
            return Err(self.fatal("PQexec disallowed").await);
        }
        self.extended.end_transaction();
        self.extended.close_statement(b"");
        match self.commands(text).await {
            Ok(()) | Err(Failed::Command) => self.ready().await,
            Err(Failed::Ended(ending)) => Err(ending),
        }
    }

    async fn commands(&mut self, text: &str) -> Result<(), Failed> {
        let commands = command::parse(text).map_err(|error| self.failed(&error))?;
        if commands.is_empty() {
            build::bare(&mut self.link.out, from_server::EMPTY_QUERY_RESPONSE);
        }
        for command in commands {
            let formats = Formats::default();
            let reply = self.execute(&command, formats.clone()).await?;
            self.notice(&reply);
            let out = &mut self.link.out;
            if let Some(rows) = reply.rows {
                table::describe(out, rows.columns(), &formats);
                out.append(&mut rows.into_messages());
            }
            build::command_complete(out, &reply.tag);
            self.relieve().await?;
        }
        Ok(())
    }

    /// The extended protocol, but for Sync and Flush.
    async fn extended(&mut self, request: Request) -> Result<(), Failed> {
        match request {
            Request::Parse { name, text } => {
                let parsed = self.extended.parse(name, &text);
                self.answer(parsed, from_server::PARSE_COMPLETE)
            }
            Request::Bind {
                portal,
                statement,
                parameters,
                results,
            } => {
                let bound = self.extended.bind(portal, &statement, parameters, results);
                self.answer(bound, from_server::BIND_COMPLETE)
            }
            Request::Describe(target, name) => self.describe(target, &name),
            Request::Execute { portal, max_rows } => self.execute_portal(&portal, max_rows).await,
            Request::Close(Target::Statement, name) => {
                self.extended.close_statement(&name);
                self.answer(Ok(()), from_server::CLOSE_COMPLETE)
            }
            Request::Close(Target::Portal, name) => {
                self.extended.close_portal(&name);
                self.answer(Ok(()), from_server::CLOSE_COMPLETE)
            }
            Request::Query(_) | Request::Sync | Request::Flush | Request::Terminate => Ok(()),
        }
    }

    fn answer(&mut self, done: Result<(), ExtendedError>, tag: u8) -> Result<(), Failed> {
        done.map_err(|error| self.failed_extended(&error))?;
        build::bare(&mut self.link.out, tag);
        Ok(())
    }

    fn describe(&mut self, target: Target, name: &[u8]) -> Result<(), Failed> {
        let described = match target {
            Target::Statement => self
                .extended
                .describe_statement(name)
                .map(|columns| (columns, Formats::default())),
            Target::Portal => self
                .extended
                .describe_portal(name)
                .map(|bound| (bound.columns(), bound.formats.clone())),
        };
        let (columns, formats) = described.map_err(|error| self.failed_extended(&error))?;
        let out = &mut self.link.out;
        if target == Target::Statement {
            build::message(out, from_server::PARAMETER_DESCRIPTION, |out| {
                out.extend(0u16.to_be_bytes())
            });
        }
        match columns {
            Some(columns) => table::describe(out, columns, &formats),
            None => build::bare(out, from_server::NO_DATA),
        }
        Ok(())
    }

    async fn execute_portal(&mut self, name: &[u8], max_rows: usize) -> Result<(), Failed> {
        let taken = self
            .extended
            .take(name)
            .map_err(|error| self.failed_extended(&error))?;
        let (bound, tag, rest) = match taken {
            Portal::Suspended(bound, rest) => (bound, "SHOW".into(), rest),
            Portal::Ready(bound) | Portal::Done(bound) => {
                let Some(command) = &bound.command else {
                    build::bare(&mut self.link.out, from_server::EMPTY_QUERY_RESPONSE);
                    return Ok(());
                };
                let reply = self.execute(command, bound.formats.clone()).await?;
                self.notice(&reply);
                let messages = reply.rows.map(table::Table::into_messages);
                (bound, reply.tag, Rest::new(messages.unwrap_or_default()))
            }
        };
        self.send_rows(name, bound, rest, max_rows, &tag);
        Ok(())
    }

    fn send_rows(&mut self, name: &[u8], bound: Bound, mut rest: Rest, max_rows: usize, tag: &str) {
        let out = &mut self.link.out;
        let (rows, are_left) = rest.next(max_rows);
        out.extend_from_slice(rows);
        if are_left {
            build::bare(out, from_server::PORTAL_SUSPENDED);
            self.extended.put(name, Portal::Suspended(bound, rest));
        } else {
            build::command_complete(out, tag);
        }
    }

    async fn execute(&mut self, command: &Command, formats: Formats) -> Result<Reply, Failed> {
        let done = match command.waits() {
            true => self.wait(command, formats).await?,
            false => self.run_command(command, formats).await,
        };
        match done {
            Ok(Done::Reply(reply)) => Ok(reply),
            Ok(Done::Exit) => Err(Ending::Exit.into()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    async fn run_command(&self, command: &Command, formats: Formats) -> Result<Done, CommandError> {
        let role = self.user.role;
        execute::run(self.operator, self.desk, role, command, formats).await
    }

    /// Runs a command that may wait for long, and meanwhile watches for the client's leaving and its CancelRequest.
    async fn wait(
        &mut self,
        command: &Command,
        formats: Formats,
    ) -> Result<Result<Done, CommandError>, Failed> {
        // The client should see what came before.
        self.link.send().await?;
        let role = self.user.role;
        let undo = execute::undo_of(self.operator, role, command);
        select! {
            biased;
            () = self.seat.canceled() => {
                self.undo(command, undo).await;
                Ok(Err(CommandError::Canceled))
            }
            done = execute::run(self.operator, self.desk, role, command, formats) => Ok(done),
            ending = self.link.until_left() => Err(ending.into()),
        }
    }

    async fn undo(&self, command: &Command, undo: Option<Command>) {
        if let Some(Command::Resume(db)) = undo {
            info!(who = %self.user.who, "{} canceled, doing RESUME", command.verb());
            // If it has been resumed by somebody else, all the better.
            let _ = self.operator.resume(db.as_deref()).await;
        }
    }

    fn notice(&mut self, reply: &Reply) {
        if let Some((text, detail)) = &reply.notice {
            let detail = detail.as_ref().map(String::as_bytes);
            build::error_with_detail(
                &mut self.link.out,
                Severity::Notice,
                "00000",
                text.as_bytes(),
                detail,
            );
        }
    }

    async fn ready(&mut self) -> Result<(), Ending> {
        build::ready_for_query(&mut self.link.out, b'I');
        self.link.send().await
    }

    fn failed(&mut self, error: &CommandError) -> Failed {
        self.report(Severity::Error, error.sqlstate(), &error.to_string());
        Failed::Command
    }

    fn failed_extended(&mut self, error: &ExtendedError) -> Failed {
        self.report(Severity::Error, error.sqlstate(), &error.to_string());
        Failed::Command
    }

    /// Logs an error, then adds it to the answers.
    fn report(&mut self, severity: Severity, sqlstate: &str, text: &str) {
        error!("{text}");
        if self.operator.config().settings.log_pooler_errors {
            warn!(who = %self.user.who, "pooler error: {text}");
        }
        build::error(&mut self.link.out, severity, sqlstate, text.as_bytes());
    }

    /// Says why the connection ends, if the client still listens.
    async fn fatal(&mut self, text: &str) -> Ending {
        self.report(Severity::Fatal, PROTOCOL_VIOLATION, text);
        // Whether it arrives makes no difference.
        let _ = timeout(LAST_WORDS, self.link.send()).await;
        Ending::Fatal(text.to_owned())
    }

    /// KILL_CLIENT: the client is told, unless it is in the middle of another message.
    async fn kick(&mut self) -> Ending {
        if !self.link.is_sending {
            self.fatal(KILLED).await;
        }
        Ending::Killed
    }
}

#[cfg(test)]
mod tests;
