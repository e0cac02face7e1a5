//! What proves a password without being it: PostgreSQL's stored verifier, and the two keys behind it.
//!
//! A [`ScramVerifier`] can check clients. [`ScramKeys`] can also log in: they are what a client's proof gives away, and
//! what pass-through keeps.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::{Choice, ConstantTimeEq};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::crypto::{self, Key};
use super::message::{decode, decode_iterations, decode_key};
use super::{ITERATIONS_MAX, SALT_BYTES_MAX};

/// What a stored verifier begins with.
const PREFIX: &[u8] = b"SCRAM-SHA-256$";
/// The most iterations PostgreSQL can be configured to store.
const STORED_ITERATIONS_MAX: u32 = i32::MAX as u32;

/// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`. Wiped when dropped; `Debug` shows only the iterations.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct ScramVerifier {
    pub(super) iterations: u32,
    pub(super) salt: Box<[u8]>,
    pub(super) stored_key: Key,
    pub(super) server_key: Key,
}

impl ScramVerifier {
    /// Reads the form in which PostgreSQL stores it. `None` for anything else, including a salt that is empty or longer
    /// than [`SALT_BYTES_MAX`].
    pub fn parse(stored: &[u8]) -> Option<ScramVerifier> {
        let (cost, keys) = split_once(stored.strip_prefix(PREFIX)?, b'$')?;
        let (iterations, salt) = split_once(cost, b':')?;
        let (stored_key, server_key) = split_once(keys, b':')?;
        let salt = decode(salt, SALT_BYTES_MAX)
            .ok()
            .filter(|salt| !salt.is_empty())?;
        Some(ScramVerifier {
            iterations: decode_iterations(iterations, STORED_ITERATIONS_MAX).ok()?,
            salt: salt.into(),
            stored_key: decode_key(stored_key).ok()?,
            server_key: decode_key(server_key).ok()?,
        })
    }

    /// Makes one from a password. Slow, in proportion to `iterations` (which below 1 count as 1).
    pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> ScramVerifier {
        ScramKeys::derive(password, salt, iterations).verifier(salt, iterations)
    }

    /// Whether it was made from this password. Slow, and false for verifiers that want more than [`ITERATIONS_MAX`]
    /// rounds: PostgreSQL lets users store a verifier of their own making, so the number may be an attack.
    pub fn matches_password(&self, password: &[u8]) -> bool {
        if self.iterations > ITERATIONS_MAX {
            return false;
        }
        let keys = ScramKeys::derive(password, &self.salt, self.iterations);
        keys.fits(self).into()
    }

    /// How often the password was hashed.
    pub fn iterations(&self) -> u32 {
        self.iterations
    }
}

impl fmt::Display for ScramVerifier {
    /// The stored form. It is a secret: for files, not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored, server] =
            [&*self.salt, &self.stored_key, &self.server_key].map(|bytes| STANDARD.encode(bytes));
        write!(
            f,
            "SCRAM-SHA-256${}:{salt}${stored}:{server}",
            self.iterations
        )
    }
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScramVerifier {{ iterations: {}, .. }}", self.iterations)
    }
}

/// ClientKey and ServerKey: all that a login needs besides the exchange itself. Wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct ScramKeys {
    pub(super) client_key: Key,
    pub(super) server_key: Key,
}

impl ScramKeys {
    /// From a password. Slow, in proportion to `iterations` (which below 1 count as 1).
    pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> ScramKeys {
        let salted = crypto::salted_password(password, salt, iterations);
        ScramKeys {
            client_key: crypto::hmac(&salted, &[b"Client Key"]),
            server_key: crypto::hmac(&salted, &[b"Server Key"]),
        }
    }

    /// Whether these are the keys behind `verifier`, in constant time.
    pub fn fits(&self, verifier: &ScramVerifier) -> Choice {
        let stored_key = crypto::hash(&[&self.client_key]);
        stored_key.ct_eq(&verifier.stored_key) & self.server_key.ct_eq(&verifier.server_key)
    }

    fn verifier(&self, salt: &[u8], iterations: u32) -> ScramVerifier {
        ScramVerifier {
            iterations: iterations.max(1),
            salt: salt.into(),
            stored_key: crypto::hash(&[&self.client_key]),
            server_key: self.server_key,
        }
    }
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramKeys(..)")
    }
}

/// Both sides of the first `at`.
fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let index = bytes.iter().position(|byte| *byte == at)?;
    Some((&bytes[..index], &bytes[index + 1..]))
}
