//! Why a benchmark stopped: one line for whoever started it. Nothing is retried; the stage is taken down and the program ends.

use std::fmt;

/// What went wrong.
#[derive(Debug)]
pub enum Failure {
    /// Something could not be done; the text says what and why.
    Failed(String),
    /// A signal asked for the end.
    Interrupted,
}

pub type Result<T> = std::result::Result<T, Failure>;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Failed(what) => f.write_str(what),
            Failure::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for Failure {}

/// A failure with this text.
pub fn failed<T>(what: impl Into<String>) -> Result<T> {
    Err(Failure::Failed(what.into()))
}

/// Names what was being done when another library failed.
pub trait Doing<T> {
    fn doing(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Failure::Failed(format!("{what}: {error}")))
    }
}
