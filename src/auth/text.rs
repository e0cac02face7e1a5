//! What clients are told when a login fails, in PgBouncer's words.
//!
//! All of these are FATAL and carry [`SQLSTATE`]. They say as little as possible; the reason goes to the log, from the
//! error values of the neighbouring files.

/// The code of every login failure: PgBouncer sends `protocol_violation` where PostgreSQL would say 28P01 or 28000.
pub const SQLSTATE: &str = "08P01";

/// A wrong answer to a cleartext or md5 request, or an unknown user who met one.
pub const PASSWORD_FAILED: &str = "password authentication failed";
/// Anything that went wrong within SCRAM.
pub const SASL_FAILED: &str = "SASL authentication failed";
/// The client chose another mechanism than the one on offer.
pub const SASL_MECHANISM: &str = "client selected an invalid SASL authentication mechanism";
/// A password message without a password.
pub const EMPTY_PASSWORD: &str = "empty password returned by client";
/// `trust`, and nobody knows this user.
pub const TRUST_FAILED: &str = "\"trust\" authentication failed";
/// No certificate, or one for somebody else, or an unknown user.
pub const CERTIFICATE_FAILED: &str = "certificate authentication failed";
/// `peer`, and the process at the other end belongs to somebody else, or to an unknown user.
pub const PEER_FAILED: &str = "unix socket login rejected";
/// The LDAP server did not accept name and password, or there is none that answers.
pub const LDAP_FAILED: &str = "LDAP authentication failed";
/// PAM did not accept name and password.
pub const PAM_FAILED: &str = "PAM authentication failed";
/// An HBA line says `reject`.
pub const REJECTED: &str = "login rejected";
/// `auth_query` found nobody.
pub const NO_SUCH_USER: &str = "no such user";
/// No HBA line matches.
pub const NO_METHOD: &str = "no authentication method is found";
/// The user name in the start-up packet exceeds [`USER_BYTES_MAX`](crate::auth::user::USER_BYTES_MAX).
pub const USER_TOO_LONG: &str = "username too long";
