//! A nonce of ours: printable, without a comma, of bounded length by construction.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::NONCE_BYTES_MAX;

/// Random bytes in a nonce, before base64. PostgreSQL and libpq use as many.
const RAW_BYTES: usize = 18;

/// Our half of an exchange's nonce.
#[derive(Clone, PartialEq, Eq)]
pub struct Nonce(Box<str>);

impl Nonce {
    /// A fresh one from the system's random numbers.
    ///
    /// # Errors
    /// When the system has none to give; the login must then fail.
    pub fn random() -> Result<Nonce, getrandom::Error> {
        let mut raw = [0u8; RAW_BYTES];
        getrandom::fill(&mut raw)?;
        Ok(Nonce(STANDARD.encode(raw).into()))
    }

    /// A given one, if it is valid. For tests and replays.
    pub fn parse(text: &str) -> Option<Nonce> {
        let valid = is_valid(text.as_bytes(), NONCE_BYTES_MAX);
        valid.then(|| Nonce(text.into()))
    }

    /// Its characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nonce({})", self.0)
    }
}

/// Not empty, not longer than `bytes_max`, printable ASCII without blank and comma (RFC 5802, section 7).
pub(super) fn is_valid(nonce: &[u8], bytes_max: usize) -> bool {
    let printable = |byte: &u8| byte.is_ascii_graphic() && *byte != b',';
    !nonce.is_empty() && nonce.len() <= bytes_max && nonce.iter().all(printable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ones_are_valid_and_differ() {
        let (a, b) = (Nonce::random().unwrap(), Nonce::random().unwrap());
        assert_eq!(a.as_str().len(), 24);
        assert_ne!(a, b);
        assert_eq!(Nonce::parse(a.as_str()), Some(a));
    }

    #[test]
    fn invalid_ones_are_refused() {
        for text in [
            "",
            "a,b",
            "a b",
            "a\tb",
            "é",
            "a\0",
            &"x".repeat(NONCE_BYTES_MAX + 1),
        ] {
            assert_eq!(Nonce::parse(text), None, "{text:?}");
        }
        assert!(Nonce::parse(&"x".repeat(NONCE_BYTES_MAX)).is_some());
    }
}
