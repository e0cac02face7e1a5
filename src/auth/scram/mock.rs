//! What unknown users meet: an exchange of the same shape, which fails where a wrong password fails.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::SALT_BYTES;
use super::crypto;
use super::verifier::ScramVerifier;

/// Random bytes of this process, from which the salts of unknown users are made, so that a user who asks twice sees the
/// same salt, as a real one would.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MockSeed([u8; 32]);

impl MockSeed {
    /// A fresh one; one per process.
    ///
    /// # Errors
    /// When the system has no random numbers to give.
    pub fn random() -> Result<MockSeed, getrandom::Error> {
        let mut seed = [0u8; 32];
        getrandom::fill(&mut seed)?;
        Ok(MockSeed(seed))
    }

    /// A given one, for tests.
    pub fn from_bytes(seed: [u8; 32]) -> MockSeed {
        MockSeed(seed)
    }

    /// A verifier for a user who has none: salt = first 16 bytes of SHA-256(user ‖ seed). Nobody knows a password for it,
    /// and [`ServerSecret`](super::ServerSecret) refuses it even if somebody did.
    pub(super) fn verifier(&self, user: &[u8], iterations: u32) -> ScramVerifier {
        let salt = crypto::hash(&[user, &self.0]);
        ScramVerifier {
            iterations: iterations.max(1),
            salt: salt[..SALT_BYTES].into(),
            stored_key: crypto::hash(&[b"stored key", user, &self.0]),
            server_key: crypto::hash(&[b"server key", user, &self.0]),
        }
    }
}

impl fmt::Debug for MockSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MockSeed(..)")
    }
}
