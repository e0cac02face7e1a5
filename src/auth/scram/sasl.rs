//! The message bodies around SCRAM: AuthenticationSASL and SASLInitialResponse.
//!
//! Bodies only, without tag and length; which message arrived is the caller's knowledge.

use std::fmt;

use super::MESSAGE_BYTES_MAX;
use crate::auth::text;

/// The only mechanism we know, in either role.
pub const MECHANISM: &str = "SCRAM-SHA-256";
/// The most bytes of mechanism names in one AuthenticationSASL. PostgreSQL sends at most 35.
pub const OFFER_BYTES_MAX: usize = 1024;
/// The longest SASLInitialResponse body: a mechanism name of any sense, a length, and a SCRAM message.
pub const INITIAL_RESPONSE_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 64;

/// A body that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslError {
    /// Not laid out as the protocol says, or too long.
    Malformed,
    /// The client chose a mechanism that was not offered.
    Mechanism,
}

impl SaslError {
    /// What the client is told.
    pub fn client_text(self) -> &'static str {
        match self {
            SaslError::Malformed => text::SASL_FAILED,
            SaslError::Mechanism => text::SASL_MECHANISM,
        }
    }
}

impl fmt::Display for SaslError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SaslError::Malformed => "malformed SASL message",
            SaslError::Mechanism => text::SASL_MECHANISM,
        })
    }
}

impl std::error::Error for SaslError {}

/// The mechanisms we offer to clients, as the list in AuthenticationSASL.
pub const OFFER: &[u8] = b"SCRAM-SHA-256\0\0";

/// Whether a server's list of mechanisms contains ours. The list is zero-terminated names and an empty one at the end.
///
/// # Errors
/// [`SaslError::Malformed`] for a list longer than [`OFFER_BYTES_MAX`], without its end, or with something behind it.
pub fn offers_scram(list: &[u8]) -> Result<bool, SaslError> {
    if list.len() > OFFER_BYTES_MAX {
        return Err(SaslError::Malformed);
    }
    let mut found = false;
    let mut rest = list;
    loop {
        let (name, after) = zero_terminated(rest)?;
        if name.is_empty() {
            return if after.is_empty() {
                Ok(found)
            } else {
                Err(SaslError::Malformed)
            };
        }
        found |= name == MECHANISM.as_bytes();
        rest = after;
    }
}

/// The client-first-message in a SASLInitialResponse: mechanism name, length, and that many bytes.
///
/// # Errors
/// [`SaslError::Mechanism`] when the client chose another one. [`SaslError::Malformed`] when the body is too long, when
/// the length does not agree with it, or when it has no message (length −1): SCRAM begins with the client's.
pub fn client_first(body: &[u8]) -> Result<&[u8], SaslError> {
    if body.len() > INITIAL_RESPONSE_BYTES_MAX {
        return Err(SaslError::Malformed);
    }
    let (mechanism, rest) = zero_terminated(body)?;
    if mechanism != MECHANISM.as_bytes() {
        return Err(SaslError::Mechanism);
    }
    let (length, message) = rest.split_first_chunk::<4>().ok_or(SaslError::Malformed)?;
    match usize::try_from(i32::from_be_bytes(*length)) {
        Ok(length) if length == message.len() => Ok(message),
        _ => Err(SaslError::Malformed),
    }
}

/// The body of our SASLInitialResponse to a server.
pub fn initial_response(client_first: &[u8]) -> Vec<u8> {
    // A message of ours is far below 2 GB.
    let length = (client_first.len() as u32).to_be_bytes();
    [MECHANISM.as_bytes(), b"\0", &length, client_first].concat()
}

/// The bytes before the first zero, and those after it.
fn zero_terminated(bytes: &[u8]) -> Result<(&[u8], &[u8]), SaslError> {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .ok_or(SaslError::Malformed)?;
    Ok((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_mechanism_is_found_among_others() {
        let lists: [(&[u8], Result<bool, SaslError>); 9] = [
            (OFFER, Ok(true)),
            (b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0", Ok(true)),
            (b"SCRAM-SHA-256-PLUS\0OAUTHBEARER\0\0", Ok(false)),
            (b"\0", Ok(false)),
            (b"", Err(SaslError::Malformed)),
            (b"SCRAM-SHA-256", Err(SaslError::Malformed)),
            (b"SCRAM-SHA-256\0", Err(SaslError::Malformed)),
            (b"SCRAM-SHA-256\0\0x", Err(SaslError::Malformed)),
            (&[b'x'; OFFER_BYTES_MAX + 1], Err(SaslError::Malformed)),
        ];
        for (list, expected) in lists {
            assert_eq!(
                offers_scram(list),
                expected,
                "{}",
                String::from_utf8_lossy(list)
            );
        }
    }

    #[test]
    fn initial_responses_are_read_back() {
        assert_eq!(
            client_first(&initial_response(b"n,,n=,r=x")),
            Ok(&b"n,,n=,r=x"[..])
        );
        assert_eq!(client_first(&initial_response(b"")), Ok(&b""[..]));
    }

    #[test]
    fn another_mechanism_is_named_to_the_client() {
        for mechanism in ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1", "scram-sha-256", ""] {
            let body = [mechanism.as_bytes(), b"\0\0\0\0\x01x"].concat();
            let error = client_first(&body).unwrap_err();
            assert_eq!(
                (error, error.client_text()),
                (SaslError::Mechanism, text::SASL_MECHANISM)
            );
        }
    }

    fn with_length(length: u32, message: &[u8]) -> Vec<u8> {
        [b"SCRAM-SHA-256\0", &length.to_be_bytes()[..], message].concat()
    }

    #[test]
    fn cve_2026_107348_declared_lengths_near_2_gib_are_refused() {
        for length in [
            u32::MAX,
            u32::MAX - 1,
            1 << 31,
            (1 << 31) - 1,
            (1 << 31) + 1,
            6,
            4,
        ] {
            assert_eq!(
                client_first(&with_length(length, b"n,,n=")),
                Err(SaslError::Malformed),
                "{length}"
            );
        }
    }

    #[test]
    fn a_truncated_body_is_malformed() {
        let whole = with_length(5, b"n,,n=");
        assert!(client_first(&whole).is_ok());
        for end in 0..whole.len() {
            assert_eq!(client_first(&whole[..end]), Err(SaslError::Malformed));
        }
        assert_eq!(
            client_first(&vec![b'x'; INITIAL_RESPONSE_BYTES_MAX + 1]),
            Err(SaslError::Malformed)
        );
    }
}
