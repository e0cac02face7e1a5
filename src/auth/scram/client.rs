//! The client's role: log into a server, and make sure that it knows us too.
//!
//! [`ClientExchange`] takes the server's first message, [`ClientProof`] its final one. A server is trusted no more than a
//! client: its nonce, salt, iterations and the length of its messages are bounded.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::message::{Attributes, Malformed, decode, decode_iterations, decode_key};
use super::nonce::is_valid;
use super::{ITERATIONS_MAX, NONCE_PAIR_BYTES_MAX, Nonce, SALT_BYTES_MAX, ScramKeys, crypto};

/// The most characters of a server's `e=` that we repeat in a log.
const REFUSAL_CHARS_MAX: usize = 64;

/// What a server did wrong, or said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerError {
    /// Not a SCRAM message, or longer than [`MESSAGE_BYTES_MAX`](super::MESSAGE_BYTES_MAX).
    Malformed,
    /// It insists on an extension (`m=`); none exists.
    MandatoryExtension,
    /// Its nonce does not extend ours, is too long (CVE-2026-6665) or not printable.
    Nonce,
    /// Its salt is empty, longer than [`SALT_BYTES_MAX`] or not base64.
    Salt,
    /// Its iteration count is not from 1 to [`ITERATIONS_MAX`] (CVE-2026-6669).
    Iterations,
    /// It says `e=`: this much of it, printable.
    Refused(String),
    /// It does not know our secret: an impostor, or other keys than ours.
    Signature,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerError::Malformed => f.write_str("malformed SCRAM message from server"),
            ServerError::MandatoryExtension => {
                f.write_str("server requires an unknown SCRAM extension")
            }
            ServerError::Nonce => f.write_str("invalid SCRAM nonce from server"),
            ServerError::Salt => f.write_str("invalid SCRAM salt from server"),
            ServerError::Iterations => {
                write!(
                    f,
                    "SCRAM iteration count from server is not between 1 and {ITERATIONS_MAX}"
                )
            }
            ServerError::Refused(reason) => write!(f, "server refused SCRAM: {reason}"),
            ServerError::Signature => f.write_str("invalid server signature"),
        }
    }
}

impl std::error::Error for ServerError {}

impl From<Malformed> for ServerError {
    fn from(_: Malformed) -> ServerError {
        ServerError::Malformed
    }
}

/// Keys with the salt and iterations they belong to, so that a later login of the same user need not derive them again.
/// Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct DerivedKeys {
    salt: Box<[u8]>,
    iterations: u32,
    keys: ScramKeys,
}

impl fmt::Debug for DerivedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DerivedKeys(..)")
    }
}

/// What the exchange proves knowledge of.
enum Credential {
    Password {
        password: Zeroizing<Box<[u8]>>,
        derived: Option<DerivedKeys>,
    },
    Keys(ScramKeys),
}

impl Credential {
    /// The keys for a server's salt and iterations. Slow, unless they are known already.
    fn keys(self, salt: &[u8], iterations: u32) -> ScramKeys {
        match self {
            Credential::Keys(keys) => keys,
            Credential::Password {
                derived: Some(known),
                ..
            } if *known.salt == *salt && known.iterations == iterations => known.keys,
            Credential::Password { password, .. } => ScramKeys::derive(&password, salt, iterations),
        }
    }
}

/// Waiting for server-first-message.
pub struct ClientExchange {
    credential: Credential,
    nonce: Nonce,
}

impl ClientExchange {
    /// Logs in with a password; `nonce` must be fresh.
    pub fn from_password(password: &[u8], nonce: Nonce) -> ClientExchange {
        let password = Zeroizing::new(password.into());
        ClientExchange {
            credential: Credential::Password {
                password,
                derived: None,
            },
            nonce,
        }
    }

    /// Logs in with the keys that a client's proof revealed (pass-through); `nonce` must be fresh. Succeeds where the
    /// server's verifier is the one the client was checked against.
    pub fn from_keys(keys: ScramKeys, nonce: Nonce) -> ClientExchange {
        ClientExchange {
            credential: Credential::Keys(keys),
            nonce,
        }
    }

    /// Uses what an earlier login with the same password derived, if the server still has the same salt and iterations.
    pub fn reusing(mut self, known: DerivedKeys) -> ClientExchange {
        if let Credential::Password { derived, .. } = &mut self.credential {
            *derived = Some(known);
        }
        self
    }

    /// client-first-message. The user name is left empty, as in libpq: PostgreSQL knows it from the start-up packet.
    pub fn first(&self) -> Vec<u8> {
        format!("n,,{}", self.first_bare()).into_bytes()
    }

    fn first_bare(&self) -> String {
        format!("n=,r={}", self.nonce.as_str())
    }

    /// Takes server-first-message; gives client-final-message and the next step. Slow when it starts from a password.
    ///
    /// # Errors
    /// When the message is malformed or exceeds a limit; nothing was derived then.
    pub fn on_server_first(self, message: &[u8]) -> Result<(Vec<u8>, ClientProof), ServerError> {
        let ServerFirst {
            nonce,
            salt,
            iterations,
        } = ServerFirst::parse(message, &self.nonce)?;
        let without_proof = [b"c=biws,r=", nonce].concat();
        let auth_message = [self.first_bare().as_bytes(), message, &without_proof].join(&b',');
        let keys = self.credential.keys(&salt, iterations);
        let proof = proof(&keys, &auth_message);
        let reply = [
            &without_proof,
            b",p=".as_slice(),
            STANDARD.encode(proof).as_bytes(),
        ]
        .concat();
        let signature = crypto::hmac(&keys.server_key, &[&auth_message]);
        Ok((
            reply,
            ClientProof {
                signature,
                derived: DerivedKeys {
                    salt,
                    iterations,
                    keys,
                },
            },
        ))
    }
}

impl fmt::Debug for ClientExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientExchange(..)")
    }
}

/// ClientProof of RFC 5802.
fn proof(keys: &ScramKeys, auth_message: &[u8]) -> crypto::Key {
    let stored_key = crypto::hash(&[&keys.client_key]);
    crypto::xor(
        &keys.client_key,
        &crypto::hmac(&stored_key, &[auth_message]),
    )
}

/// server-first-message, checked.
struct ServerFirst<'a> {
    nonce: &'a [u8],
    salt: Box<[u8]>,
    iterations: u32,
}

impl<'a> ServerFirst<'a> {
    fn parse(message: &'a [u8], ours: &Nonce) -> Result<Self, ServerError> {
        let mut attributes = Attributes::of(message)?;
        if attributes.peek() == Some(b'm') {
            return Err(ServerError::MandatoryExtension);
        }
        let nonce = attributes.value_of(b'r')?;
        let salt = attributes.value_of(b's')?;
        let iterations = attributes.value_of(b'i')?;
        attributes.skip_extensions()?;
        if !extends(nonce, ours) {
            return Err(ServerError::Nonce);
        }
        let salt = decode(salt, SALT_BYTES_MAX).map_err(|_| ServerError::Salt)?;
        if salt.is_empty() {
            return Err(ServerError::Salt);
        }
        let iterations =
            decode_iterations(iterations, ITERATIONS_MAX).map_err(|_| ServerError::Iterations)?;
        Ok(ServerFirst {
            nonce,
            salt: salt.into(),
            iterations,
        })
    }
}

/// Whether the server has added something of its own to our nonce, and not too much.
fn extends(nonce: &[u8], ours: &Nonce) -> bool {
    let theirs = nonce
        .strip_prefix(ours.as_str().as_bytes())
        .unwrap_or_default();
    !theirs.is_empty() && is_valid(nonce, NONCE_PAIR_BYTES_MAX)
}

/// Waiting for server-final-message.
pub struct ClientProof {
    /// What a server that knows our secret will send.
    signature: crypto::Key,
    derived: DerivedKeys,
}

impl ClientProof {
    /// Takes server-final-message and checks that the server knows our secret; gives the keys for
    /// [`ClientExchange::reusing`].
    ///
    /// # Errors
    /// [`ServerError::Refused`] if the server says so, [`ServerError::Signature`] if it does not know our secret.
    pub fn on_server_final(self, message: &[u8]) -> Result<DerivedKeys, ServerError> {
        let mut attributes = Attributes::of(message)?;
        let signature = match attributes.next()? {
            (b'v', value) => decode_key(value)?,
            (b'e', reason) => return Err(ServerError::Refused(printable(reason))),
            _ => return Err(ServerError::Malformed),
        };
        attributes.skip_extensions()?;
        match bool::from(signature.ct_eq(&self.signature)) {
            true => Ok(self.derived),
            false => Err(ServerError::Signature),
        }
    }
}

impl fmt::Debug for ClientProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientProof(..)")
    }
}

/// A server's words, safe for a log.
fn printable(reason: &[u8]) -> String {
    let shown = |byte: &u8| {
        if byte.is_ascii_graphic() {
            char::from(*byte)
        } else {
            '?'
        }
    };
    reason.iter().take(REFUSAL_CHARS_MAX).map(shown).collect()
}
