//! One stored secret, as found in `auth_file`, in an `auth_query` row or in a `password=` key.
//!
//! Not a place for rules about who may use which: those are in [`method`](crate::auth::method).

use std::fmt;
use std::sync::Arc;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::scram::ScramVerifier;

/// The longest secret, in bytes. PgBouncer 1.26 has the same limit.
pub const SECRET_BYTES_MAX: usize = 65_535;

/// What a stored md5 secret begins with.
const MD5_PREFIX: &[u8] = b"md5";

/// A stored secret. Never shown by `Debug`, wiped when dropped.
#[derive(Clone, Default)]
pub enum Secret {
    /// No secret, or an empty one: matches nothing, by any method, and cannot log in anywhere.
    #[default]
    None,
    /// The password itself, without zero bytes and not empty.
    Plain(Zeroizing<Box<[u8]>>),
    /// md5 of password and user name.
    Md5(Md5Hash),
    /// A SCRAM-SHA-256 verifier. Shared, because each exchange keeps the one that it began with.
    Scram(Arc<ScramVerifier>),
}

/// md5 of password and user name as 32 lower-case hexadecimal digits, without the leading `md5`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Md5Hash([u8; 32]);

impl Secret {
    /// Recognises the two hashed forms PostgreSQL stores, `md5` with 32 lower-case digits and
    /// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`; anything not exactly of these forms is a plain password.
    ///
    /// An empty secret becomes [`Secret::None`], as does one that no peer could ever send: with a zero byte, or longer
    /// than [`SECRET_BYTES_MAX`].
    pub fn parse(stored: &[u8]) -> Secret {
        if stored.is_empty() || stored.len() > SECRET_BYTES_MAX || stored.contains(&0) {
            return Secret::None;
        }
        if let Some(hash) = Md5Hash::parse(stored) {
            return Secret::Md5(hash);
        }
        match ScramVerifier::parse(stored) {
            Some(verifier) => Secret::Scram(Arc::new(verifier)),
            None => Secret::Plain(Zeroizing::new(stored.into())),
        }
    }

    /// A password received from a user, who may well have chosen one that looks like a hash: PAM and LDAP logins keep
    /// theirs for logging into servers.
    pub fn plain(password: &[u8]) -> Secret {
        match password {
            [] => Secret::None,
            _ if password.len() > SECRET_BYTES_MAX || password.contains(&0) => Secret::None,
            _ => Secret::Plain(Zeroizing::new(password.into())),
        }
    }

    /// Whether there is nothing to match.
    pub fn is_none(&self) -> bool {
        matches!(self, Secret::None)
    }

    /// Whether both were made from the same stored bytes. For finding out what a reload changed; not for proofs.
    pub fn same_as(&self, other: &Secret) -> bool {
        match (self, other) {
            (Secret::None, Secret::None) => true,
            (Secret::Plain(a), Secret::Plain(b)) => a == b,
            (Secret::Md5(a), Secret::Md5(b)) => a.0 == b.0,
            (Secret::Scram(a), Secret::Scram(b)) => a == b,
            _ => false,
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Secret::None => "Secret::None",
            Secret::Plain(_) => "Secret::Plain(..)",
            Secret::Md5(_) => "Secret::Md5(..)",
            Secret::Scram(_) => "Secret::Scram(..)",
        })
    }
}

impl Md5Hash {
    /// From `md5` and exactly 32 lower-case hexadecimal digits.
    pub fn parse(stored: &[u8]) -> Option<Md5Hash> {
        let digits: [u8; 32] = stored.strip_prefix(MD5_PREFIX)?.try_into().ok()?;
        let lower_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        digits.iter().all(lower_hex).then_some(Md5Hash(digits))
    }

    /// From digits that were just computed.
    pub(super) fn from_digits(digits: [u8; 32]) -> Md5Hash {
        Md5Hash(digits)
    }

    /// The 32 digits.
    pub(super) fn digits(&self) -> &[u8; 32] {
        &self.0
    }

    /// The stored form, `md5` and the digits.
    pub(super) fn stored(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([MD5_PREFIX, &self.0].concat())
    }
}

impl fmt::Debug for Md5Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5Hash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRAM: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==\
        $WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    fn kind(stored: &[u8]) -> String {
        format!("{:?}", Secret::parse(stored))
    }

    #[test]
    fn the_three_forms_are_told_apart() {
        assert_eq!(kind(b""), "Secret::None");
        assert_eq!(kind(b"hunter2"), "Secret::Plain(..)");
        assert_eq!(
            kind(b"md5c2a8cc1e0e8e2cdf0a0b0b0b0b0b0b0b"),
            "Secret::Md5(..)"
        );
        assert_eq!(kind(SCRAM.as_bytes()), "Secret::Scram(..)");
    }

    #[test]
    fn almost_a_hash_is_a_plain_password() {
        let almost = [
            "md5",
            "md5c2a8cc1e0e8e2cdf0a0b0b0b0b0b0b0",
            "md5c2a8cc1e0e8e2cdf0a0b0b0b0b0b0b0b0",
            "md5C2A8CC1E0E8E2CDF0A0B0B0B0B0B0B0B",
            "md5c2a8cc1e0e8e2cdf0a0b0b0b0b0b0b0g",
            "MD5c2a8cc1e0e8e2cdf0a0b0b0b0b0b0b0b",
            "SCRAM-SHA-256",
            "SCRAM-SHA-256$",
            &SCRAM[..SCRAM.len() - 1],
            &SCRAM.replace("4096", "0"),
            &SCRAM.replace("4096", "+4096"),
            &format!("{SCRAM} "),
        ];
        for stored in almost {
            assert_eq!(kind(stored.as_bytes()), "Secret::Plain(..)", "{stored}");
        }
    }

    #[test]
    fn what_nobody_could_send_is_no_secret() {
        assert!(Secret::parse(b"a\0b").is_none());
        assert!(Secret::parse(&vec![b'x'; SECRET_BYTES_MAX + 1]).is_none());
        assert!(!Secret::parse(&vec![b'x'; SECRET_BYTES_MAX]).is_none());
        assert!(Secret::plain(b"").is_none());
    }

    #[test]
    fn a_typed_password_stays_plain_whatever_it_looks_like() {
        assert!(matches!(Secret::plain(SCRAM.as_bytes()), Secret::Plain(_)));
    }

    #[test]
    fn debug_shows_no_secret() {
        for stored in ["hunter2", SCRAM, "md5c2a8cc1e0e8e2cdf0a0b0b0b0b0b0b0b"] {
            let shown = format!("{:?}", Secret::parse(stored.as_bytes()));
            assert!(shown.len() < 20, "{shown}");
        }
    }

    #[test]
    fn same_as_compares_what_was_stored() {
        let forms = [
            "",
            "hunter2",
            "hunter3",
            SCRAM,
            "md5c2a8cc1e0e8e2cdf0a0b0b0b0b0b0b0b",
        ];
        for (i, a) in forms.iter().enumerate() {
            for (j, b) in forms.iter().enumerate() {
                let same = Secret::parse(a.as_bytes()).same_as(&Secret::parse(b.as_bytes()));
                assert_eq!(same, i == j, "{a} {b}");
            }
        }
    }
}
