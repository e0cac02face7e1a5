//! The fuzz targets: each hands untrusted bytes to one entrance of the library.
//!
//! Included by the binaries in `fuzz_targets/` and by `tests/fuzz_corpus.rs`, which replays the corpus. A target may assert
//! what must hold; anything else that goes wrong is a panic or a time-out.

// Each binary includes all targets and calls one.
#![allow(dead_code)]

use pgweir::auth::scram::{
    ClientExchange, Nonce, ScramVerifier, ServerExchange, ServerSecret, sasl,
};
use pgweir::auth::{AuthFile, Secret};

/// A target, by name.
pub type Target = (&'static str, fn(&[u8]));

/// All targets, for replaying.
pub const ALL: &[Target] = &[
    ("scram_client_first", scram_client_first),
    ("scram_server_first", scram_server_first),
    ("auth_file", auth_file),
];

/// A client's SASLInitialResponse body, then (after a line feed) its final message. No such client may get in.
pub fn scram_client_first(data: &[u8]) {
    let (initial, last) = split(data);
    let message = sasl::client_first(initial).unwrap_or(initial);
    let secret = ServerSecret::known(ScramVerifier::derive(b"pencil", b"salt", 1).into());
    let server = ServerExchange::new(secret, nonce("server"));
    if let Ok((_, server)) = server.on_client_first(message) {
        assert!(server.on_client_final(last).is_err());
    }
}

/// A server's first message, then (after a line feed) its final one. No such server may be believed.
pub fn scram_server_first(data: &[u8]) {
    let (first, last) = split(data);
    let _ = sasl::offers_scram(first);
    // Keys, not a password: a fuzzer should not spend its time on a million rounds.
    let keys = pgweir::auth::scram::ScramKeys::derive(b"pencil", b"salt", 1);
    let client = ClientExchange::from_keys(keys, nonce("client"));
    if let Ok((_, client)) = client.on_server_first(first) {
        assert!(client.on_server_final(last).is_err());
    }
}

/// An auth_file; each line is also read as a secret.
pub fn auth_file(data: &[u8]) {
    let (file, problems) = AuthFile::parse(data);
    let lines = data.split(|byte| *byte == b'\n').count();
    assert!(file.len() + problems.len() <= lines);
    for line in data.split(|byte| *byte == b'\n') {
        Secret::parse(line);
    }
}

fn nonce(text: &str) -> Nonce {
    Nonce::parse(text).expect("a valid nonce")
}

/// Both sides of the first line feed.
fn split(data: &[u8]) -> (&[u8], &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n');
    end.map_or((data, &[]), |at| (&data[..at], &data[at + 1..]))
}
