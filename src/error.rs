//! Why a connection ends, and what its peer is told: one value from which SQLSTATE, message, log line and count come.

use std::borrow::Cow;
use std::fmt;

use crate::metrics::ErrorKind;

/// SQLSTATE of nearly every error that PgBouncer raises: protocol_violation.
pub const PROTOCOL_VIOLATION: &str = "08P01";
/// SQLSTATE query_canceled.
pub const QUERY_CANCELED: &str = "57014";

/// SQLSTATE admin_shutdown: drivers know that they have to connect anew, and poolers of their own that what was not answered may be
/// tried again.
pub const ADMIN_SHUTDOWN: &str = "57P01";

/// An error meant for a client: it is shown to the client as FATAL, and logged as `pooler error: …`.
#[derive(Clone, Debug)]
pub struct ClientError {
    /// Five characters.
    pub sqlstate: Cow<'static, str>,
    /// The message; bytes, since a server's text may be in any encoding.
    pub text: Cow<'static, [u8]>,
    /// What it is counted as.
    pub kind: ErrorKind,
}

/// Equal if the client is told the same.
impl PartialEq for ClientError {
    fn eq(&self, other: &ClientError) -> bool {
        (&self.sqlstate, &self.text) == (&other.sqlstate, &other.text)
    }
}

impl Eq for ClientError {}

impl ClientError {
    /// An error of the pooler's own, with PgBouncer's SQLSTATE for everything. It counts as one of the client's protocol until
    /// [`ClientError::as_kind`] says better.
    pub const fn new(text: &'static str) -> ClientError {
        ClientError {
            sqlstate: Cow::Borrowed(PROTOCOL_VIOLATION),
            text: Cow::Borrowed(text.as_bytes()),
            kind: ErrorKind::Protocol,
        }
    }

    /// The process ends. In PostgreSQL's words, which drivers know.
    pub const fn shutdown() -> ClientError {
        ClientError {
            sqlstate: Cow::Borrowed(ADMIN_SHUTDOWN),
            text: Cow::Borrowed(b"terminating connection due to administrator command"),
            kind: ErrorKind::PoolerShutdown,
        }
    }

    /// Whether it is [`ClientError::shutdown`], and not a server's error in the same words.
    pub fn is_shutdown(&self) -> bool {
        self.kind == ErrorKind::PoolerShutdown && self.sqlstate == ADMIN_SHUTDOWN
    }

    /// As [`ClientError::new`] with a text made at run time.
    pub fn with(text: impl Into<String>) -> ClientError {
        ClientError {
            sqlstate: Cow::Borrowed(PROTOCOL_VIOLATION),
            text: Cow::Owned(text.into().into_bytes()),
            kind: ErrorKind::Protocol,
        }
    }

    /// A server's error, passed on with its own SQLSTATE; a missing or odd SQLSTATE becomes 08P01.
    pub fn relayed(sqlstate: Option<&[u8]>, text: &[u8]) -> ClientError {
        let sqlstate = sqlstate
            .filter(|code| code.len() == 5 && code.iter().all(u8::is_ascii_alphanumeric))
            .map(|code| Cow::Owned(String::from_utf8_lossy(code).into_owned()));
        ClientError {
            sqlstate: sqlstate.unwrap_or(Cow::Borrowed(PROTOCOL_VIOLATION)),
            text: Cow::Owned(text.to_vec()),
            kind: ErrorKind::ServerUnavailable,
        }
    }

    /// Counted as this.
    #[must_use]
    pub fn as_kind(mut self, kind: ErrorKind) -> ClientError {
        self.kind = kind;
        self
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.text))
    }
}

impl std::error::Error for ClientError {}
