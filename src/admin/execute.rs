//! One command: what can be checked beforehand, its line in the log, its effect, its answer.
//!
//! Rights are checked here first ([`super::rights`]), so that no way to a command leads around them.

use std::borrow::Cow;

use tracing::{error, info};

use super::CONSOLE;
use super::command::{Command, SHOWS, Show};
use super::desk::Desk;
use super::error::CommandError;
use super::operator::{Operator, SetOutcome, ShutdownMode};
use super::rights::{self, Role};
use super::show;
use super::table::{Formats, Table};
use crate::config::{SETTINGS, Settings};

/// What the client is told when a command has succeeded.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// Before everything else: message and detail.
    pub notice: Option<(&'static str, Option<String>)>,
    /// The result, for a SHOW that has one.
    pub rows: Option<Table>,
    /// The completion tag.
    pub tag: Cow<'static, str>,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub enum Done {
    /// With an answer.
    Reply(Reply),
    /// The program is ending at once, and the client is told nothing.
    Exit,
}

impl Done {
    /// Nothing but a completion tag.
    fn tag(tag: &'static str) -> Self {
        Done::Reply(Reply {
            tag: tag.into(),
            ..Reply::default()
        })
    }
}

/// Runs a command in the name of a user with this role.
///
/// # Errors
/// The right is missing, a check fails, or the program reports that it could not.
pub async fn run<O: Operator>(
    operator: &O,
    desk: &Desk,
    role: Role,
    command: &Command,
    formats: Formats,
) -> Result<Done, CommandError> {
    if !rights::may(role, command) {
        return Err(CommandError::AdminNeeded);
    }
    // As in PgBouncer, where RESUME alone leaves its line before anything is looked at.
    let is_resume = matches!(command, Command::Resume(_));
    if is_resume {
        log(command);
    }
    check(operator, command)?;
    if !is_resume {
        log(command);
    }
    match command {
        Command::Show(Show::ExplainClient(id)) => {
            let explained = show::explain::run(*id, operator, desk, formats).await?;
            return Ok(Done::Reply(shown(explained)));
        }
        Command::Show(show) => {
            return Ok(Done::Reply(answer(*show, operator, desk, formats).await));
        }
        Command::SetIgnored => return Ok(set_ignored()),
        Command::Set { key, value } => return set(operator, key, value).await,
        Command::KillClient(id) => kill_client(operator, desk, id.as_deref()).await?,
        Command::Shutdown(mode) => {
            operator.shutdown(*mode).await;
            if *mode == ShutdownMode::Immediate {
                return Ok(Done::Exit);
            }
        }
        Command::Reload => operator.reload().await?,
        Command::Pause(db) => operator.pause(db.as_deref()).await?,
        Command::Resume(db) => operator.resume(db.as_deref()).await?,
        Command::Disable(db) => operator.disable(required(db)?).await?,
        Command::Enable(db) => operator.enable(required(db)?).await?,
        Command::Reconnect(db) => operator.reconnect(db.as_deref()).await?,
        Command::Kill(db) => operator.kill(db.as_deref()).await?,
        Command::WaitClose(db) => operator.wait_close(db.as_deref()).await?,
    }
    Ok(Done::tag(command.verb()))
}

/// What is to be run when the client cancels this command while it waits: a PAUSE that is not complete is taken back. Must be asked
/// before the command runs. A database that was paused before stays so.
pub fn undo_of<O: Operator>(operator: &O, role: Role, command: &Command) -> Option<Command> {
    if !rights::may(role, command) {
        return None;
    }
    match command {
        Command::Pause(None) if !operator.state().paused => Some(Command::Resume(None)),
        Command::Pause(Some(name)) => {
            let was_paused = operator.database(name).is_some_and(|db| db.paused);
            (!was_paused).then(|| Command::Resume(Some(name.clone())))
        }
        _ => None,
    }
}

async fn answer<O: Operator>(show: Show, operator: &O, desk: &Desk, formats: Formats) -> Reply {
    let rows = match show {
        Show::Help => None,
        _ => Some(show::run(show, operator, desk, formats).await),
    };
    Reply {
        notice: rows.is_none().then(|| ("Console usage", Some(help()))),
        rows,
        tag: "SHOW".into(),
    }
}

fn shown(rows: Table) -> Reply {
    Reply {
        rows: Some(rows),
        tag: "SHOW".into(),
        ..Reply::default()
    }
}

fn help() -> String {
    let names: Vec<String> = SHOWS
        .iter()
        .map(|(name, _)| name.to_ascii_uppercase())
        .collect();
    let shows = names
        .chunks(HELP_NAMES_PER_LINE)
        .map(|names| format!("SHOW {}", names.join("|")));
    let commands = COMMANDS.iter().map(|line| (*line).to_owned());
    shows
        .chain(commands)
        .map(|line| format!("\n\t{line}"))
        .collect()
}

/// SHOW names on one line of SHOW HELP.
const HELP_NAMES_PER_LINE: usize = 7;

/// The commands besides plain SHOW, as SHOW HELP lists them.
const COMMANDS: [&str; 13] = [
    "SHOW EXPLAIN CLIENT id",
    "SET setting = value",
    "RELOAD",
    "PAUSE [database]",
    "RESUME [database]",
    "DISABLE database",
    "ENABLE database",
    "RECONNECT [database]",
    "WAIT_CLOSE [database]",
    "KILL [database]",
    "KILL_CLIENT id",
    "SHUTDOWN",
    "SHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS|DRAIN",
];

/// Says in the log what is about to be done. Looking and SET leave no line, as in PgBouncer.
fn log(command: &Command) {
    let verb = command.verb();
    match (command, command.object()) {
        (Command::Show(_) | Command::Set { .. } | Command::SetIgnored, _) => {}
        (_, Some(object)) => info!("{verb} '{object}' command issued"),
        (Command::Shutdown(ShutdownMode::WaitForServers), None) => {
            info!("SHUTDOWN WAIT_FOR_SERVERS command issued");
        }
        (Command::Shutdown(ShutdownMode::WaitForClients), None) => {
            info!("SHUTDOWN WAIT_FOR_CLIENTS command issued");
        }
        (Command::Shutdown(ShutdownMode::Drain), None) => info!("SHUTDOWN DRAIN command issued"),
        (_, None) => info!("{verb} command issued"),
    }
}

/// Whether the command can be carried out as things are.
fn check<O: Operator>(operator: &O, command: &Command) -> Result<(), CommandError> {
    match command {
        Command::Pause(_) | Command::Kill(_) if operator.state().paused => {
            Err(CommandError::AlreadyPaused)
        }
        Command::Pause(Some(db)) => exists(operator, db, "pause"),
        Command::Kill(Some(db)) => exists(operator, db, "kill"),
        Command::Reconnect(Some(db)) => exists(operator, db, "reconnect"),
        Command::WaitClose(Some(db)) => exists(operator, db, "wait in"),
        Command::Disable(db) => exists(operator, required(db)?, "disable"),
        Command::Enable(db) => exists(operator, required(db)?, "enable"),
        Command::Resume(db) => can_resume(operator, db.as_deref()),
        _ => Ok(()),
    }
}

fn required(db: &Option<String>) -> Result<&str, CommandError> {
    db.as_deref().ok_or(CommandError::DatabaseRequired)
}

/// Whether there is such a database, and it is not the console's.
fn exists<O: Operator>(operator: &O, db: &str, verb: &'static str) -> Result<(), CommandError> {
    if db == CONSOLE {
        return Err(CommandError::AdminDatabase(verb));
    }
    let found = operator.database(db).map(|_| ());
    found.ok_or_else(|| CommandError::NoSuchDatabase(db.to_owned()))
}

fn can_resume<O: Operator>(operator: &O, db: Option<&str>) -> Result<(), CommandError> {
    let state = operator.state();
    match db {
        // A drain serves whoever waits, also behind a pause.
        None if state.shutting_down && !state.draining => Err(CommandError::ShuttingDown),
        None if !state.paused => Err(CommandError::NotPaused),
        None => Ok(()),
        Some(CONSOLE) => Err(CommandError::DatabaseNotPaused(CONSOLE.to_owned())),
        Some(name) => match operator.database(name) {
            None => Err(CommandError::NoSuchDatabase(name.to_owned())),
            Some(db) if !db.paused => Err(CommandError::DatabaseNotPaused(name.to_owned())),
            Some(_) => Ok(()),
        },
    }
}

async fn set<O: Operator>(operator: &O, key: &str, value: &str) -> Result<Done, CommandError> {
    let mut outcome = SetOutcome::Applied;
    if can_change_now(&operator.config().settings, key, value)? {
        outcome = operator.set(key, value).await?;
    }
    let old_tls = "TLS settings could not be applied, still using old configuration";
    Ok(Done::Reply(Reply {
        notice: (outcome == SetOutcome::OldTlsKept).then_some((old_tls, None)),
        tag: format!("SET {key}={value}").into(),
        ..Reply::default()
    }))
}

/// Whether a SET has an effect before a restart. One that has none succeeds all the same, as in PgBouncer.
fn can_change_now(settings: &Settings, key: &str, value: &str) -> Result<bool, CommandError> {
    settings.clone().set_text(key, value).map_err(|reason| {
        error!("{reason}");
        CommandError::SetFailed
    })?;
    Ok(SETTINGS.iter().any(|row| row.name == key && row.changeable))
}

fn set_ignored() -> Done {
    Done::Reply(Reply {
        notice: Some(("SET ignored", None)),
        tag: "SET".into(),
        ..Reply::default()
    })
}

async fn kill_client<O: Operator>(
    operator: &O,
    desk: &Desk,
    id: Option<&str>,
) -> Result<(), CommandError> {
    let digits = id.filter(|id| id.bytes().all(|b| b.is_ascii_digit()));
    let digits = digits.ok_or(CommandError::BadClientId)?;
    // A number too large for an id is no client's.
    let id = digits
        .parse::<u64>()
        .map_err(|_| CommandError::ClientNotFound)?;
    if desk.kill(id) || operator.kill_client(id).await {
        return Ok(());
    }
    Err(CommandError::ClientNotFound)
}
