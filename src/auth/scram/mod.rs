//! SCRAM-SHA-256 (RFC 5802, RFC 7677) in both roles, as PostgreSQL and PgBouncer speak it.
//!
//! [`ServerExchange`] judges a client, [`ClientExchange`] logs into a server, [`sasl`] reads and writes the message bodies
//! around them. A step consumes its exchange and returns the next, so no step can be taken twice or out of order.
//! Not here: channel binding (`SCRAM-SHA-256-PLUS` is never offered nor accepted), authorization identities, framing.
//!
//! Cost: deriving keys from a password takes `iterations` rounds, one to two milliseconds at 4096, and happens in
//! [`ScramVerifier::derive`] and [`ClientExchange::on_server_first`]. Everything else takes microseconds.

mod client;
mod crypto;
mod message;
mod mock;
mod nonce;
pub mod sasl;
mod server;
mod verifier;

pub use client::{ClientExchange, ClientProof, DerivedKeys, ServerError};
pub use mock::MockSeed;
pub use nonce::Nonce;
pub use server::{ClientError, ServerAwaitingProof, ServerExchange, ServerSecret};
pub use verifier::{ScramKeys, ScramVerifier};

/// The longest message of an exchange, either way. Honest ones stay below 400 bytes.
pub const MESSAGE_BYTES_MAX: usize = 4096;
/// The longest nonce one side may contribute. libpq, JDBC and PostgreSQL use 24 bytes.
pub const NONCE_BYTES_MAX: usize = 512;
/// The longest nonce of both sides together.
pub const NONCE_PAIR_BYTES_MAX: usize = 2 * NONCE_BYTES_MAX;
/// The longest salt, decoded. PostgreSQL uses 16 bytes.
pub const SALT_BYTES_MAX: usize = 1024;
/// The most rounds that we are willing to compute, for a server (CVE-2026-6669) or for a verifier which its owner may
/// have made up. About half a second.
pub const ITERATIONS_MAX: u32 = 1_000_000;
/// The salt of our own verifiers, in bytes, as in PostgreSQL.
pub const SALT_BYTES: usize = 16;

#[cfg(test)]
mod tests;
