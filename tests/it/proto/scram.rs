//! SCRAM-SHA-256 (RFC 5802, 7677) from both sides: the client's answers, and stored secrets for an `auth_file`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// The client's half of one exchange.
pub struct Client {
    password: String,
    nonce: String,
    first_bare: String,
    server_signature: Vec<u8>,
}

impl Client {
    pub fn new(password: &str) -> Client {
        let nonce = STANDARD.encode(std::array::from_fn::<u8, 18, _>(|_| fastrand()));
        let first_bare = format!("n=,r={nonce}");
        Client {
            password: password.to_string(),
            nonce,
            first_bare,
            server_signature: Vec::new(),
        }
    }

    /// client-first-message
    pub fn first(&self) -> String {
        format!("n,,{}", self.first_bare)
    }

    /// client-final-message, in answer to the server's first.
    pub fn last(&mut self, server_first: &str) -> String {
        let field = |key: &str| {
            server_first
                .split(',')
                .find_map(|f| f.strip_prefix(key))
                .expect("a complete server-first-message")
        };
        assert!(
            field("r=").starts_with(&self.nonce) && field("r=").len() > self.nonce.len(),
            "the server's nonce"
        );
        let salt = STANDARD.decode(field("s=")).expect("base64");
        let iterations = field("i=").parse().expect("a number");
        let keys = Keys::derive(&self.password, &salt, iterations);
        let without_proof = format!("c=biws,r={}", field("r="));
        let auth_message = format!("{},{server_first},{without_proof}", self.first_bare);
        let signature = hmac(&Sha256::digest(&keys.client), auth_message.as_bytes());
        let proof: Vec<u8> = keys
            .client
            .iter()
            .zip(&signature)
            .map(|(k, s)| k ^ s)
            .collect();
        self.server_signature = hmac(&keys.server, auth_message.as_bytes());
        format!("{without_proof},p={}", STANDARD.encode(proof))
    }

    /// Is this server-final-message the right one?
    pub fn verifies(&self, server_final: &str) -> bool {
        server_final == format!("v={}", STANDARD.encode(&self.server_signature))
    }
}

struct Keys {
    client: Vec<u8>,
    server: Vec<u8>,
}

impl Keys {
    fn derive(password: &str, salt: &[u8], iterations: u32) -> Keys {
        let salted: [u8; 32] =
            pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), salt, iterations);
        Keys {
            client: hmac(&salted, b"Client Key"),
            server: hmac(&salted, b"Server Key"),
        }
    }
}

/// A stored secret, as PostgreSQL and PgBouncer write it.
pub fn secret(password: &str, salt: &[u8], iterations: u32) -> String {
    let keys = Keys::derive(password, salt, iterations);
    let stored = STANDARD.encode(Sha256::digest(&keys.client));
    format!(
        "SCRAM-SHA-256${iterations}:{}${stored}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(keys.server)
    )
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

/// A byte that differs from call to call; nonces in tests need no more.
fn fastrand() -> u8 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0u8) as u8
}
