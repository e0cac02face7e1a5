//! Why a command was not carried out, in the console's words.

use std::fmt;

/// Bytes of a command that an error repeats at most.
const SHOWN_TEXT_MAX: usize = 200;

/// Why a command failed. The texts are PgBouncer's where it has one, since scripts look for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// Not a command of the console; holds as much of the text as is shown.
    Invalid(String),
    /// A stats user asked for what only admins may do.
    AdminNeeded,
    /// The command needs the name of a database.
    DatabaseRequired,
    /// No entry of this name, and none could be made.
    NoSuchDatabase(String),
    /// The console's own database cannot be the object of this verb (`pause`, `wait in`, …).
    AdminDatabase(&'static str),
    /// Everything is paused already.
    AlreadyPaused,
    /// RESUME, but nothing is paused.
    NotPaused,
    /// RESUME of a database that is not paused.
    DatabaseNotPaused(String),
    /// RESUME while the program waits for its end.
    ShuttingDown,
    /// The argument of KILL_CLIENT is no number.
    BadClientId,
    /// No client has this id.
    ClientNotFound,
    /// What is to be explained is no number.
    ClientIdNeeded,
    /// No client with this id is here to be explained.
    NoSuchClient(u64),
    /// SET with an unknown name or a bad value; the log says which.
    SetFailed,
    /// The configuration could not be read again; the log says why.
    ReloadFailed,
    /// A waiting command was cancelled by its client.
    Canceled,
    /// What was waited for will not come: somebody resumed what this PAUSE waits for.
    PauseEnded,
}

impl CommandError {
    /// The error for a text that is no command.
    pub fn invalid(text: &str) -> Self {
        if text.len() <= SHOWN_TEXT_MAX {
            return CommandError::Invalid(text.to_owned());
        }
        let boundary = (0..=SHOWN_TEXT_MAX)
            .rev()
            .find(|at| text.is_char_boundary(*at));
        let shown = &text[..boundary.unwrap_or_default()];
        CommandError::Invalid(format!("{shown}..."))
    }

    /// The SQLSTATE that the client is told.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            CommandError::ReloadFailed => "F0000",
            CommandError::Canceled | CommandError::PauseEnded => "57014",
            _ => "08P01",
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::Invalid(text) => write!(f, "invalid command '{text}', use SHOW HELP;"),
            CommandError::AdminNeeded => f.write_str("admin access needed"),
            CommandError::DatabaseRequired => f.write_str("a database is required"),
            CommandError::NoSuchDatabase(name) => write!(f, "no such database: {name}"),
            CommandError::AdminDatabase(verb) => {
                write!(f, "cannot {verb} admin db: {}", super::CONSOLE)
            }
            CommandError::AlreadyPaused => f.write_str("already paused"),
            CommandError::NotPaused => f.write_str("pooler is not paused"),
            CommandError::DatabaseNotPaused(name) => write!(f, "database {name} is not paused"),
            CommandError::ShuttingDown => f.write_str("pooler is shutting down"),
            CommandError::BadClientId => f.write_str("invalid client pointer supplied"),
            CommandError::ClientNotFound => f.write_str("client not found"),
            CommandError::ClientIdNeeded => f.write_str(
                "SHOW EXPLAIN CLIENT needs a client's number: the column id of SHOW CLIENTS",
            ),
            CommandError::NoSuchClient(id) => write!(
                f,
                "client not found: {id} (its number is the column id of SHOW CLIENTS)"
            ),
            CommandError::SetFailed => f.write_str("SET failed"),
            CommandError::ReloadFailed => {
                f.write_str("RELOAD failed, see logs for additional details")
            }
            CommandError::Canceled => f.write_str("canceling command due to user request"),
            CommandError::PauseEnded => f.write_str("pause was ended before it was complete"),
        }
    }
}

impl std::error::Error for CommandError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_command_is_cut_between_characters() {
        let text = format!("{}é{}", "x".repeat(SHOWN_TEXT_MAX - 1), "y".repeat(500));
        let shown = format!("{}...", "x".repeat(SHOWN_TEXT_MAX - 1));
        assert_eq!(CommandError::invalid(&text), CommandError::Invalid(shown));
    }
}
