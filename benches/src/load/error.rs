//! Why a query, a login or a whole load failed.

use std::fmt;
use std::io;

use pgweir::auth::server_login::LoginError;

use super::reply::BadReply;

/// What went wrong.
#[derive(Debug)]
pub enum LoadError {
    /// The socket, or something else of the system, failed at this step.
    Io(&'static str, io::Error),
    /// The other side answered a query with an error; the connection goes on.
    Query(String),
    /// The other side answered with an error and closed the connection.
    Refused(String),
    /// The other side closed the connection and gave no reason.
    Closed,
    /// Something that is no reply, or none that is expected here.
    Reply(BadReply),
    /// TLS was wanted and the other side has none.
    NoTls,
    /// The login can't go on.
    Login(LoginError),
    /// Not done within this many seconds.
    Late(&'static str, u64),
    /// So many of so many failed, this first.
    Some {
        /// What was to be done.
        what: &'static str,
        /// How many were not.
        failed: u64,
        /// The first error.
        first: String,
    },
    /// The command line asks for the impossible.
    Options(String),
}

impl LoadError {
    /// Whether nothing more can be asked on this connection.
    pub fn ends_connection(&self) -> bool {
        !matches!(self, LoadError::Query(_))
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Io(step, error) => write!(f, "{step}: {error}"),
            LoadError::Query(text) => f.write_str(text),
            LoadError::Refused(text) => write!(f, "{text} (and the connection was closed)"),
            LoadError::Closed => f.write_str("the connection was closed without a reason"),
            LoadError::Reply(bad) => bad.fmt(f),
            LoadError::NoTls => f.write_str("TLS is wanted, and the other side has none"),
            LoadError::Login(error) => f.write_str(&error.log_text()),
            LoadError::Late(what, seconds) => write!(f, "no {what} within {seconds} s"),
            LoadError::Some {
                what,
                failed,
                first,
            } => write!(f, "{failed} {what} failed; the first: {first}"),
            LoadError::Options(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for LoadError {}

impl From<BadReply> for LoadError {
    fn from(bad: BadReply) -> LoadError {
        LoadError::Reply(bad)
    }
}

impl From<LoginError> for LoadError {
    fn from(error: LoginError) -> LoadError {
        LoadError::Login(error)
    }
}
