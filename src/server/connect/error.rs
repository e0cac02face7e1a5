//! Why a server connection did not come about: what the log says, and what waiting clients are told.

use std::fmt;

use crate::error::ClientError;
use crate::metrics::ErrorKind;
use crate::wire::read::ErrorFields;

/// SQLSTATE cannot_connect_now: the server is starting up, shutting down or recovering, and another try is sensible.
pub const CANNOT_CONNECT_NOW: &[u8] = b"57P03";
/// The most bytes of a server's error message that are kept.
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// Reason: the TCP or Unix connection was refused, or is impossible.
pub const CONNECT_FAILED: &str = "connect failed";
/// Reason: connecting and logging in took too long.
pub const CONNECT_TIMEOUT: &str = "connect timeout";
/// Reason: the host name has no address.
pub const DNS_FAILED: &str = "server DNS lookup failed";
/// Reason: the settings insist on TLS, and the server does not have it.
pub const TLS_REFUSED: &str = "server refused SSL";
/// Reason: the connection broke, or the TLS handshake failed.
pub const CRASHED: &str = "server conn crashed?";

/// Why a server connection did not come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// The server said no. Every field of its ErrorResponse was optional.
    Refused {
        /// The SQLSTATE as sent, if one was.
        sqlstate: Option<Vec<u8>>,
        /// `FATAL` if none was sent.
        severity: Vec<u8>,
        /// The primary message, in the server's encoding.
        message: Vec<u8>,
        /// 57P03: it will take connections later.
        starting_up: bool,
    },
    /// The login could not go on for a reason of ours: wrong kind of secret, unknown method, bad signature.
    Login(String),
    /// There is no connection, or no longer. One of the texts of this file, PgBouncer's.
    Network(&'static str),
    /// The server broke the protocol.
    Protocol(&'static str),
}

impl ConnectError {
    /// From the server's ErrorResponse.
    pub fn refused(fields: ErrorFields<'_>) -> ConnectError {
        let kept = |bytes: &[u8]| bytes[..bytes.len().min(MESSAGE_BYTES_MAX)].to_vec();
        ConnectError::Refused {
            sqlstate: fields.sqlstate.map(kept),
            severity: kept(fields.severity.unwrap_or(b"FATAL")),
            message: kept(fields.message.unwrap_or(b"server login failed")),
            starting_up: fields.sqlstate == Some(CANNOT_CONNECT_NOW),
        }
    }

    /// What a waiting client is told when it is disconnected for this.
    pub fn client_error(&self) -> ClientError {
        match self {
            ConnectError::Refused {
                sqlstate, message, ..
            } => ClientError::relayed(sqlstate.as_deref(), message),
            ConnectError::Login(text) => ClientError::with(text.clone()),
            ConnectError::Network(text) | ConnectError::Protocol(text) => ClientError::new(text),
        }
        .as_kind(ErrorKind::ServerUnavailable)
    }

    /// What the failed attempt is counted as.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ConnectError::Refused { .. } | ConnectError::Login(_) => ErrorKind::ServerLoginFailed,
            ConnectError::Network(_) => ErrorKind::ServerConnectFailed,
            ConnectError::Protocol(_) => ErrorKind::ServerProtocol,
        }
    }

    /// The reason behind `closing because:`, and of a cached login failure.
    pub fn log_reason(&self) -> String {
        match self {
            ConnectError::Refused { message, .. } => String::from_utf8_lossy(message).into_owned(),
            ConnectError::Login(text) => text.clone(),
            ConnectError::Network(text) | ConnectError::Protocol(text) => (*text).to_owned(),
        }
    }

    /// Whether waiting clients are disconnected with it (if the pool has no usable server). Otherwise they keep waiting,
    /// and the next attempt may succeed.
    pub fn is_relayed(&self) -> bool {
        match self {
            ConnectError::Refused { starting_up, .. } => !starting_up,
            ConnectError::Login(_) => true,
            ConnectError::Network(_) | ConnectError::Protocol(_) => false,
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.log_reason())
    }
}

impl std::error::Error for ConnectError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::read::error_fields;

    fn refused(body: &[u8]) -> ConnectError {
        ConnectError::refused(error_fields(body))
    }

    #[test]
    fn a_servers_error_is_relayed_with_its_sqlstate() {
        let error = refused(b"SFATAL\0C28P01\0Mno\0\0");
        assert!(error.is_relayed());
        assert_eq!(error.log_reason(), "no");
        let told = error.client_error();
        assert_eq!((&*told.sqlstate, &*told.text), ("28P01", &b"no"[..]));
    }

    #[test]
    fn a_server_that_starts_up_disconnects_nobody() {
        assert!(!refused(b"SFATAL\0C57P03\0Mlater\0\0").is_relayed());
    }

    #[test]
    fn cve_2026_6666_every_field_may_be_missing() {
        for body in [&b""[..], b"\0", b"M", b"SFATAL\0\0"] {
            let error = refused(body);
            assert_eq!(error.client_error().sqlstate, "08P01");
            assert_eq!(error.log_reason(), "server login failed");
        }
    }

    #[test]
    fn a_long_message_is_cut() {
        let body = [b"M", &vec![b'x'; 60_000][..], b"\0\0"].concat();
        assert_eq!(refused(&body).log_reason().len(), MESSAGE_BYTES_MAX);
    }
}
