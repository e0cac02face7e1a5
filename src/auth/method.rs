//! Which exchange a client meets: a decision over the configured method and the user's stored secret.
//!
//! Not here: finding the rule ([`hba`](super::hba)) and the user (file, query), checking certificates and peer ids, asking LDAP
//! servers and PAM.

use std::fmt;
use std::sync::Arc;

use super::ldap::LdapOptions;
use super::scram::{MockSeed, ServerSecret};
use super::secret::Secret;
use super::text;
use super::user::User;

/// The method in force for this client: `auth_type`, or what an HBA line says.
#[derive(Clone, PartialEq, Eq)]
pub enum Method {
    /// Everybody, whoever they say they are.
    Any,
    /// Every known user.
    Trust,
    /// Known users whose certificate the caller has compared with their name.
    Cert,
    /// Known users whose uid the caller has compared with their name.
    Peer,
    /// `plain`, or `password` in HBA: ask for the password itself.
    Plain,
    /// An md5 exchange, or SCRAM for users whose stored secret is SCRAM.
    Md5,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// Whoever can log in to an LDAP server.
    Ldap(Arc<LdapOptions>),
    /// Whoever PAM lets in.
    Pam,
    /// Nobody (HBA only).
    Reject,
}

/// The word for it in HBA files, without options.
impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::Any => "any",
            Method::Trust => "trust",
            Method::Cert => "cert",
            Method::Peer => "peer",
            Method::Plain => "password",
            Method::Md5 => "md5",
            Method::ScramSha256 => "scram-sha-256",
            Method::Ldap(_) => "ldap",
            Method::Pam => "pam",
            Method::Reject => "reject",
        })
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What happens next with the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchange {
    /// AuthenticationOk at once.
    Accept,
    /// AuthenticationCleartextPassword, then [`cleartext::verify`](super::cleartext::verify).
    Cleartext,
    /// AuthenticationMD5Password, then [`md5::verify`](super::md5::verify).
    Md5,
    /// AuthenticationSASL with [`OFFER`](super::scram::sasl::OFFER), then a
    /// [`ServerExchange`](super::scram::ServerExchange) with [`scram_secret`].
    Scram,
    /// AuthenticationCleartextPassword, then the LDAP server is asked.
    Ldap,
    /// AuthenticationCleartextPassword, then PAM is asked.
    Pam,
    /// The client is told this and closed.
    Reject(&'static str),
}

impl Method {
    /// Somebody else knows the users and their passwords: neither `auth_file` nor `auth_query` is asked for them.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self, Method::Ldap(_) | Method::Pam)
    }
}

impl Exchange {
    /// What to tell a client that fails it.
    pub fn failure_text(self) -> &'static str {
        match self {
            Exchange::Scram => text::SASL_FAILED,
            Exchange::Ldap => text::LDAP_FAILED,
            Exchange::Pam => text::PAM_FAILED,
            Exchange::Reject(reason) => reason,
            Exchange::Accept | Exchange::Cleartext | Exchange::Md5 => text::PASSWORD_FAILED,
        }
    }
}

/// Chooses. An unknown user (`None`) meets what a user with a plain secret would; see [`secret_of`] and [`scram_secret`]
/// for what to check the answer against.
pub fn decide(method: &Method, user: Option<&User>) -> Exchange {
    let has_scram = user.is_some_and(|user| matches!(user.secret(), Secret::Scram(_)));
    match method {
        Method::Any => Exchange::Accept,
        Method::Trust => accept_known(user, text::TRUST_FAILED),
        Method::Cert => accept_known(user, text::CERTIFICATE_FAILED),
        Method::Peer => accept_known(user, text::PEER_FAILED),
        Method::Plain => Exchange::Cleartext,
        Method::Md5 if has_scram => Exchange::Scram,
        Method::Md5 => Exchange::Md5,
        Method::ScramSha256 => Exchange::Scram,
        Method::Ldap(_) => Exchange::Ldap,
        Method::Pam => Exchange::Pam,
        Method::Reject => Exchange::Reject(text::REJECTED),
    }
}

fn accept_known(user: Option<&User>, otherwise: &'static str) -> Exchange {
    match user {
        Some(_) => Exchange::Accept,
        None => Exchange::Reject(otherwise),
    }
}

/// The secret for a cleartext or md5 exchange: that of an unknown user matches nothing.
pub fn secret_of(user: Option<&User>) -> &Secret {
    user.map_or(&Secret::None, User::secret)
}

/// The secret for a SCRAM exchange, fixed from here on. Users who are unknown, or whose secret SCRAM cannot use (none or
/// md5), get a mock; PgBouncer gives the latter away by hanging up early.
///
/// `iterations` is the setting `scram_iterations`. Slow when a plain secret meets its first client
/// ([`User::verifier`]).
pub fn scram_secret(
    name: &[u8],
    user: Option<&User>,
    seed: &MockSeed,
    iterations: u32,
) -> ServerSecret {
    match user.and_then(|user| user.verifier(iterations)) {
        Some(verifier) => ServerSecret::known(verifier),
        None => ServerSecret::mock(name, seed, iterations),
    }
}

#[cfg(test)]
mod tests {
    use super::super::scram::ScramVerifier;
    use super::*;

    fn ldap() -> Method {
        let options = "ldapserver=h ldapbasedn=x ldapbindpasswd=hush";
        Method::Ldap(Arc::new(LdapOptions::parse(options).unwrap()))
    }

    fn methods() -> [Method; 10] {
        [
            Method::Any,
            Method::Trust,
            Method::Cert,
            Method::Peer,
            Method::Plain,
            Method::Md5,
            Method::ScramSha256,
            ldap(),
            Method::Pam,
            Method::Reject,
        ]
    }

    fn user(stored: &str) -> User {
        User::new(b"ann", Secret::parse(stored.as_bytes()))
    }

    #[test]
    fn the_table() {
        use Exchange::{Accept, Cleartext, Ldap, Md5, Pam, Reject, Scram};
        let scram = ScramVerifier::derive(b"pencil", b"salt", 1).to_string();
        let users = [
            None,
            Some(user("")),
            Some(user("x")),
            Some(user("md5c2a8cc1e0e8e2cdf0a0b0b0b0b0b0b0b")),
            Some(user(&scram)),
        ];
        let nobody = |reason| Reject(reason);
        let expected = [
            // unknown, empty, plain, md5, SCRAM
            [Accept; 5],
            [nobody(text::TRUST_FAILED), Accept, Accept, Accept, Accept],
            [
                nobody(text::CERTIFICATE_FAILED),
                Accept,
                Accept,
                Accept,
                Accept,
            ],
            [nobody(text::PEER_FAILED), Accept, Accept, Accept, Accept],
            [Cleartext; 5],
            [Md5, Md5, Md5, Md5, Scram],
            [Scram; 5],
            [Ldap; 5],
            [Pam; 5],
            [Reject(text::REJECTED); 5],
        ];
        for (method, row) in methods().into_iter().zip(expected) {
            for (user, exchange) in users.iter().zip(row) {
                assert_eq!(
                    decide(&method, user.as_ref()),
                    exchange,
                    "{method:?} {user:?}"
                );
            }
        }
    }

    #[test]
    fn failures_speak_pgbouncers_words() {
        assert_eq!(
            Exchange::Cleartext.failure_text(),
            "password authentication failed"
        );
        assert_eq!(
            Exchange::Md5.failure_text(),
            "password authentication failed"
        );
        assert_eq!(Exchange::Scram.failure_text(), "SASL authentication failed");
        assert_eq!(Exchange::Pam.failure_text(), "PAM authentication failed");
        assert_eq!(Exchange::Ldap.failure_text(), "LDAP authentication failed");
        let unknown = decide(&Method::Trust, None).failure_text();
        assert_eq!(unknown, "\"trust\" authentication failed");
    }

    #[test]
    fn ldap_options_are_not_printed() {
        let method = ldap();
        assert_eq!(format!("{method} {method:?}"), "ldap ldap");
        assert!(method.is_elsewhere() && Method::Pam.is_elsewhere());
    }

    #[test]
    fn an_unknown_user_has_no_secret() {
        assert!(secret_of(None).is_none());
        assert!(!secret_of(Some(&user("x"))).is_none());
    }
}
