//! The server's role: judge a client's proof.
//!
//! [`ServerExchange`] takes the client's first message, [`ServerAwaitingProof`] its final one. Whose secret is checked was
//! decided before the first byte and cannot change (CVE-2026-107350); the user name inside SCRAM is ignored.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::Choice;

use super::message::{Attributes, Malformed, decode_key};
use super::nonce::is_valid;
use super::{
    MESSAGE_BYTES_MAX, MockSeed, NONCE_BYTES_MAX, Nonce, ScramKeys, ScramVerifier, crypto,
};

/// What a client did wrong. For the log: the client is told
/// [`SASL_FAILED`](crate::auth::text::SASL_FAILED) whatever it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientError {
    /// Not a SCRAM message, or longer than [`MESSAGE_BYTES_MAX`].
    Malformed,
    /// It asks for channel binding, which was not offered.
    ChannelBindingRequested,
    /// It wants to act for somebody else (an authzid).
    AuthorizationId,
    /// It insists on an extension (`m=`); none exists.
    MandatoryExtension,
    /// Its nonce is empty, too long or not printable.
    Nonce,
    /// Its final message is about another nonce.
    NonceMismatch,
    /// Its final message repeats another gs2 header than it began with.
    ChannelBindingMismatch,
    /// The proof is wrong: another password, or nobody's.
    Proof,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClientError::Malformed => "malformed SCRAM message",
            ClientError::ChannelBindingRequested => {
                "client wants channel binding, which was not offered"
            }
            ClientError::AuthorizationId => "client uses an authorization identity",
            ClientError::MandatoryExtension => "client requires an unknown SCRAM extension",
            ClientError::Nonce => "client nonce is empty, too long or not printable",
            ClientError::NonceMismatch => "SCRAM nonce does not match",
            ClientError::ChannelBindingMismatch => "SCRAM channel binding check failed",
            ClientError::Proof => "SCRAM proof is wrong",
        })
    }
}

impl std::error::Error for ClientError {}

impl From<Malformed> for ClientError {
    fn from(_: Malformed) -> ClientError {
        ClientError::Malformed
    }
}

/// What the proof is checked against.
#[derive(Clone, Debug)]
pub struct ServerSecret {
    verifier: Arc<ScramVerifier>,
    /// False for a mock, which accepts nothing.
    genuine: bool,
}

impl ServerSecret {
    /// The verifier of a user.
    pub fn known(verifier: Arc<ScramVerifier>) -> ServerSecret {
        ServerSecret {
            verifier,
            genuine: true,
        }
    }

    /// For users who are unknown or have no secret that SCRAM could use: the same messages, and always a wrong proof.
    pub fn mock(user: &[u8], seed: &MockSeed, iterations: u32) -> ServerSecret {
        ServerSecret {
            verifier: Arc::new(seed.verifier(user, iterations)),
            genuine: false,
        }
    }
}

/// The gs2 header without channel binding, in its two spellings.
#[derive(Clone, Copy)]
enum Gs2Header {
    /// `n,,`: the client knows no channel binding.
    Unsupported,
    /// `y,,`: it does, and saw that we do not.
    NotOffered,
}

impl Gs2Header {
    /// Bytes of either spelling.
    const BYTES: usize = 3;

    fn of(message: &[u8]) -> Result<Gs2Header, ClientError> {
        match message {
            [b'n', b',', b',', ..] => Ok(Gs2Header::Unsupported),
            [b'y', b',', b',', ..] => Ok(Gs2Header::NotOffered),
            [b'n' | b'y', b',', b'a', b'=', ..] => Err(ClientError::AuthorizationId),
            [b'p', b'=', ..] => Err(ClientError::ChannelBindingRequested),
            _ => Err(ClientError::Malformed),
        }
    }

    /// What the final message must repeat in `c=`.
    fn base64(self) -> &'static [u8] {
        match self {
            Gs2Header::Unsupported => b"biws",
            Gs2Header::NotOffered => b"eSws",
        }
    }
}

impl fmt::Debug for Gs2Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Gs2Header::Unsupported => "n,,",
            Gs2Header::NotOffered => "y,,",
        })
    }
}

/// Waiting for client-first-message.
#[derive(Debug)]
pub struct ServerExchange {
    secret: ServerSecret,
    nonce: Nonce,
}

impl ServerExchange {
    /// Begins an exchange; `nonce` must be fresh.
    pub fn new(secret: ServerSecret, nonce: Nonce) -> ServerExchange {
        ServerExchange { secret, nonce }
    }

    /// Takes client-first-message; gives server-first-message and the next step.
    ///
    /// # Errors
    /// When the message is malformed or asks for what we do not do.
    pub fn on_client_first(
        self,
        message: &[u8],
    ) -> Result<(Vec<u8>, ServerAwaitingProof), ClientError> {
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(ClientError::Malformed);
        }
        let gs2 = Gs2Header::of(message)?;
        let bare = &message[Gs2Header::BYTES..];
        let nonce = [client_nonce(bare)?, self.nonce.as_str().as_bytes()].concat();
        let reply = server_first(&nonce, &self.secret.verifier);
        let said = [bare, &reply].join(&b',');
        Ok((
            reply,
            ServerAwaitingProof {
                secret: self.secret,
                gs2,
                nonce,
                said,
            },
        ))
    }
}

/// The nonce in client-first-message-bare.
fn client_nonce(bare: &[u8]) -> Result<&[u8], ClientError> {
    let mut attributes = Attributes::of(bare)?;
    if attributes.peek() == Some(b'm') {
        return Err(ClientError::MandatoryExtension);
    }
    attributes.value_of(b'n')?;
    let nonce = attributes.value_of(b'r')?;
    attributes.skip_extensions()?;
    match is_valid(nonce, NONCE_BYTES_MAX) {
        true => Ok(nonce),
        false => Err(ClientError::Nonce),
    }
}

fn server_first(nonce: &[u8], verifier: &ScramVerifier) -> Vec<u8> {
    let cost = format!(
        ",s={},i={}",
        STANDARD.encode(&verifier.salt),
        verifier.iterations
    );
    [b"r=", nonce, cost.as_bytes()].concat()
}

/// Waiting for client-final-message.
#[derive(Debug)]
pub struct ServerAwaitingProof {
    secret: ServerSecret,
    gs2: Gs2Header,
    /// Of both sides together.
    nonce: Vec<u8>,
    /// AuthMessage so far: client-first-message-bare and server-first-message.
    said: Vec<u8>,
}

impl ServerAwaitingProof {
    /// Takes client-final-message; gives server-final-message, and the keys that the proof has revealed. With a stored
    /// SCRAM secret, those log into a server which has the same one.
    ///
    /// # Errors
    /// [`ClientError::Proof`] for a wrong password, others when the message is not what it must be.
    pub fn on_client_final(self, message: &[u8]) -> Result<(Vec<u8>, ScramKeys), ClientError> {
        let (without_proof, proof) = self.read_final(message)?;
        let auth_message: [&[u8]; 3] = [&self.said, b",", without_proof];
        let verifier = &self.secret.verifier;
        let signature = crypto::hmac(&verifier.stored_key, &auth_message);
        let keys = ScramKeys {
            client_key: crypto::xor(&proof, &signature),
            server_key: verifier.server_key,
        };
        if !bool::from(keys.fits(verifier) & Choice::from(u8::from(self.secret.genuine))) {
            return Err(ClientError::Proof);
        }
        let signature = crypto::hmac(&verifier.server_key, &auth_message);
        Ok((
            format!("v={}", STANDARD.encode(signature)).into_bytes(),
            keys,
        ))
    }

    /// client-final-message-without-proof, and the proof.
    fn read_final<'a>(&self, message: &'a [u8]) -> Result<(&'a [u8], crypto::Key), ClientError> {
        let mut attributes = Attributes::of(message)?;
        let binding = attributes.value_of(b'c')?;
        let nonce = attributes.value_of(b'r')?;
        while attributes.peek() != Some(b'p') {
            attributes.next()?;
        }
        let without_proof = attributes.before();
        let proof = decode_key(attributes.value_of(b'p')?)?;
        match () {
            _ if !attributes.is_done() => Err(ClientError::Malformed),
            _ if binding != self.gs2.base64() => Err(ClientError::ChannelBindingMismatch),
            _ if nonce != self.nonce => Err(ClientError::NonceMismatch),
            _ => Ok((without_proof, proof)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ClientExchange;
    use super::*;

    /// Nobody can know the keys behind a mock's random bytes. This one has real ones, and refuses all the same.
    #[test]
    fn a_mock_refuses_a_correct_proof() {
        for (genuine, accepted) in [(true, true), (false, false)] {
            let verifier = Arc::new(ScramVerifier::derive(b"pencil", b"salt", 1));
            let secret = ServerSecret { verifier, genuine };
            let nonce = |text| Nonce::parse(text).unwrap();
            let client = ClientExchange::from_password(b"pencil", nonce("client"));
            let server = ServerExchange::new(secret, nonce("server"));
            let (first, server) = server.on_client_first(&client.first()).unwrap();
            let (proof, _) = client.on_server_first(&first).unwrap();
            assert_eq!(server.on_client_final(&proof).is_ok(), accepted);
        }
    }
}
