//! The cleartext exchange: the client sends its password, we hold it against whatever is stored.
//!
//! Also reads the PasswordMessage body, for cleartext and md5 alike.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::secret::{SECRET_BYTES_MAX, Secret};
use super::{md5, text};

/// A PasswordMessage that holds no password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordError {
    /// Nothing before the zero byte.
    Empty,
    /// No zero byte at the end, one before it, or longer than [`SECRET_BYTES_MAX`].
    Malformed,
}

impl PasswordError {
    /// What the client is told.
    pub fn client_text(self) -> &'static str {
        match self {
            PasswordError::Empty => text::EMPTY_PASSWORD,
            PasswordError::Malformed => text::PASSWORD_FAILED,
        }
    }
}

impl fmt::Display for PasswordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PasswordError::Empty => text::EMPTY_PASSWORD,
            PasswordError::Malformed => "malformed password message",
        })
    }
}

impl std::error::Error for PasswordError {}

/// The password, or md5 answer, in a PasswordMessage body.
///
/// # Errors
/// When there is none; PgBouncer and PostgreSQL refuse empty ones too.
pub fn password(body: &[u8]) -> Result<&[u8], PasswordError> {
    match body.split_last() {
        Some((0, [])) => Err(PasswordError::Empty),
        Some((0, password)) if password.len() <= SECRET_BYTES_MAX && !password.contains(&0) => {
            Ok(password)
        }
        _ => Err(PasswordError::Malformed),
    }
}

/// Whether `password` is the one behind the secret, in constant time. Slow for a SCRAM secret, in proportion to its
/// iterations.
pub fn verify(user: &[u8], secret: &Secret, password: &[u8]) -> bool {
    // HMAC pads its key with zeros, so SCRAM could not tell "pencil" from "pencil\0".
    if password.is_empty() || password.contains(&0) {
        return false;
    }
    match secret {
        Secret::None => false,
        Secret::Plain(stored) => equal(stored, password),
        Secret::Md5(stored) => stored
            .digits()
            .ct_eq(md5::hash(user, password).digits())
            .into(),
        Secret::Scram(verifier) => verifier.matches_password(password),
    }
}

/// Compares digests, so that not even the length of what is stored shows.
fn equal(stored: &[u8], given: &[u8]) -> bool {
    Sha256::digest(stored).ct_eq(&Sha256::digest(given)).into()
}

#[cfg(test)]
mod tests {
    use super::super::scram::{ITERATIONS_MAX, ScramVerifier};
    use super::*;

    fn stored_forms(password: &[u8]) -> [Secret; 3] {
        let scram = ScramVerifier::derive(password, b"salt", 2).to_string();
        [
            Secret::plain(password),
            Secret::Md5(md5::hash(b"ann", password)),
            Secret::parse(scram.as_bytes()),
        ]
    }

    #[test]
    fn the_password_matches_each_stored_form() {
        for secret in stored_forms(b"pencil") {
            assert!(verify(b"ann", &secret, b"pencil"), "{secret:?}");
            for wrong in ["", "Pencil", "pencil ", "pencil\0", "pen"] {
                assert!(
                    !verify(b"ann", &secret, wrong.as_bytes()),
                    "{secret:?} {wrong:?}"
                );
            }
        }
    }

    #[test]
    fn the_stored_hash_is_not_a_password() {
        let hash = md5::hash(b"ann", b"pencil").stored();
        assert!(!verify(b"ann", &Secret::parse(&hash), &hash));
        let scram = ScramVerifier::derive(b"pencil", b"salt", 2).to_string();
        assert!(!verify(
            b"ann",
            &Secret::parse(scram.as_bytes()),
            scram.as_bytes()
        ));
    }

    #[test]
    fn an_empty_password_matches_nothing_not_even_its_own_hash() {
        assert!(!verify(b"ann", &Secret::None, b""));
        for secret in stored_forms(b"") {
            assert!(!verify(b"ann", &secret, b""), "{secret:?}");
        }
    }

    #[test]
    fn a_verifier_that_would_keep_us_busy_matches_nothing() {
        let honest = ScramVerifier::derive(b"pencil", b"salt", 1).to_string();
        for iterations in [ITERATIONS_MAX + 1, i32::MAX as u32] {
            let stored = honest.replace("$1:", &format!("${iterations}:"));
            let secret = Secret::parse(stored.as_bytes());
            assert!(matches!(secret, Secret::Scram(_)));
            assert!(!verify(b"ann", &secret, b"pencil"));
        }
    }

    #[test]
    fn password_bodies() {
        assert_eq!(password(b"pencil\0"), Ok(&b"pencil"[..]));
        assert_eq!(password(b"\0"), Err(PasswordError::Empty));
        for malformed in ["", "pencil", "pen\0cil\0", "\0\0"] {
            assert_eq!(
                password(malformed.as_bytes()),
                Err(PasswordError::Malformed),
                "{malformed:?}"
            );
        }
        let mut longest = vec![b'x'; SECRET_BYTES_MAX];
        longest.push(0);
        assert!(password(&longest).is_ok());
        longest.insert(0, b'x');
        assert_eq!(password(&longest), Err(PasswordError::Malformed));
        assert_eq!(
            PasswordError::Empty.client_text(),
            "empty password returned by client"
        );
    }
}
