//! Settings whose value is one of a few words, and the words.
//!
//! Words are matched in upper and lower case alike, and printed as PgBouncer prints them.

use std::fmt;
use std::str::FromStr;

use super::value::{Hint, Kind, Raw, Value};

/// A word that is none of those a setting knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    /// The words it could have been.
    pub known: &'static [&'static str],
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one of {}", self.known.join(", "))
    }
}

impl std::error::Error for UnknownWord {}

/// Writes an enum together with its words, `Display`, `FromStr` and [`Value`].
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $name {
            /// All the words, as PgBouncer writes them.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word for this value.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                $(if text.eq_ignore_ascii_case($word) { return Ok(Self::$variant); })+
                Err(UnknownWord { known: Self::WORDS })
            }
        }
    };
}

/// Makes the enum readable as a setting, with nothing to check beyond the word.
macro_rules! plain_value {
    ($($name:ident),+) => {$(
        impl Value for $name {
            fn read(raw: &Raw, _kind: Kind) -> Result<Self, Hint> {
                raw.text()?.parse().map_err(|unknown: UnknownWord| unknown.to_string().into())
            }

            fn write(&self, _kind: Kind) -> Option<String> {
                Some(self.to_string())
            }
        }
    )+};
}

words! {
    /// When a server connection goes back to the pool.
    PoolMode {
        /// When the client disconnects.
        #[default]
        Session = "session",
        /// When the transaction ends.
        Transaction = "transaction",
        /// When the statement ends; transactions of several statements are refused.
        Statement = "statement",
    }
}

words! {
    /// How much TLS is asked for. On the server side `allow` behaves like `prefer`.
    SslMode {
        /// Never.
        #[default]
        Disable = "disable",
        /// If the client asks for it.
        Allow = "allow",
        /// If the other end can.
        Prefer = "prefer",
        /// Always; certificates are not checked on the server side.
        Require = "require",
        /// Always, and the certificate must lead to a known authority.
        VerifyCa = "verify-ca",
        /// Always, and the certificate must also fit the name.
        VerifyFull = "verify-full",
    }
}

words! {
    /// What lines of the log look like.
    LogFormat {
        /// As PgBouncer's.
        #[default]
        Pgbouncer = "pgbouncer",
        /// A JSON object each.
        Json = "json",
    }
}

words! {
    /// How clients prove who they are.
    AuthType {
        /// No proof, no name: every database needs a `user=`.
        Any = "any",
        /// No proof, but the user must be known.
        Trust = "trust",
        /// The password in clear.
        Plain = "plain",
        /// An md5 exchange, or SCRAM for users with a SCRAM secret.
        #[default]
        Md5 = "md5",
        /// A TLS client certificate.
        Cert = "cert",
        /// What the rules of `auth_hba_file` say.
        Hba = "hba",
        /// An LDAP server is asked.
        Ldap = "ldap",
        /// PAM is asked.
        Pam = "pam",
        /// SCRAM-SHA-256.
        ScramSha256 = "scram-sha-256",
    }
}

words! {
    /// Which of several hosts the next server connection goes to.
    LoadBalanceHosts {
        /// The next in the list.
        #[default]
        RoundRobin = "round-robin",
        /// The same one until a connect fails.
        Disable = "disable",
    }
}

words! {
    /// What SIGTERM means.
    OnTerm {
        /// What it means to PgBouncer: wait until the clients leave by themselves, however long that takes.
        #[default]
        Pgbouncer = "pgbouncer",
        /// Drain: go on for a moment, then close clients where they lose nothing, within a deadline.
        Drain = "drain",
    }
}

plain_value!(
    AuthType,
    LogFormat,
    PoolMode,
    SslMode,
    LoadBalanceHosts,
    OnTerm
);

/// The TLS versions that a side may use, from a list such as `secure`, `tlsv1.2,tlsv1.3` or `all:!tlsv1.0`.
///
/// Only 1.2 and 1.3 exist here; the older two are read, so that old files load, and are never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsProtocols {
    /// TLS 1.0 is listed.
    pub tls10: bool,
    /// TLS 1.1 is listed.
    pub tls11: bool,
    /// TLS 1.2 may be used.
    pub tls12: bool,
    /// TLS 1.3 may be used.
    pub tls13: bool,
}

impl TlsProtocols {
    const NONE: Self = Self {
        tls10: false,
        tls11: false,
        tls12: false,
        tls13: false,
    };
    const ALL: Self = Self {
        tls10: true,
        tls11: true,
        tls12: true,
        tls13: true,
    };
    const SECURE: Self = Self {
        tls10: false,
        tls11: false,
        tls12: true,
        tls13: true,
    };

    /// Whether versions are listed that this program never uses.
    pub fn has_old(self) -> bool {
        self.tls10 || self.tls11
    }

    fn apply(&mut self, word: &str, on: bool) -> bool {
        let set = match word.to_ascii_lowercase().as_str() {
            "all" | "tlsv1" => Self::ALL,
            "secure" | "default" => Self::SECURE,
            "tlsv1.0" => Self {
                tls10: true,
                ..Self::NONE
            },
            "tlsv1.1" => Self {
                tls11: true,
                ..Self::NONE
            },
            "tlsv1.2" => Self {
                tls12: true,
                ..Self::NONE
            },
            "tlsv1.3" => Self {
                tls13: true,
                ..Self::NONE
            },
            _ => return false,
        };
        let choose = |old: bool, listed: bool| if listed { on } else { old };
        *self = Self {
            tls10: choose(self.tls10, set.tls10),
            tls11: choose(self.tls11, set.tls11),
            tls12: choose(self.tls12, set.tls12),
            tls13: choose(self.tls13, set.tls13),
        };
        true
    }
}

impl Default for TlsProtocols {
    fn default() -> Self {
        Self::SECURE
    }
}

impl fmt::Display for TlsProtocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::SECURE => return f.write_str("secure"),
            Self::ALL => return f.write_str("all"),
            _ => {}
        }
        let listed = [
            (self.tls10, "tlsv1.0"),
            (self.tls11, "tlsv1.1"),
            (self.tls12, "tlsv1.2"),
            (self.tls13, "tlsv1.3"),
        ];
        let names: Vec<&str> = listed
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, name)| *name)
            .collect();
        f.write_str(&names.join(","))
    }
}

impl Value for TlsProtocols {
    fn read(raw: &Raw, _kind: Kind) -> Result<Self, Hint> {
        let items = raw.items_between(|c| c == ',' || c == ':' || c.is_whitespace())?;
        // A list that begins with "not this one" means all the others.
        let mut protocols = match items.first() {
            Some(first) if first.starts_with('!') => Self::ALL,
            _ => Self::NONE,
        };
        for item in &items {
            let (word, on) = match item.strip_prefix('!') {
                Some(rest) => (rest.trim_start(), false),
                None => (item.as_str(), true),
            };
            if !protocols.apply(word, on) {
                return Err("a list of tlsv1.0, tlsv1.1, tlsv1.2, tlsv1.3, or all, secure".into());
            }
        }
        match protocols.tls12 || protocols.tls13 {
            true => Ok(protocols),
            false => Err("neither tlsv1.2 nor tlsv1.3, and nothing older is available".into()),
        }
    }

    fn write(&self, _kind: Kind) -> Option<String> {
        Some(self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocols(text: &str) -> Option<String> {
        let read = TlsProtocols::read(&Raw::plain(text), Kind::Word(&[]));
        read.ok().map(|protocols| protocols.to_string())
    }

    #[test]
    fn words_read_in_any_case_and_print_as_pgbouncer() {
        assert_eq!("TRANSACTION".parse(), Ok(PoolMode::Transaction));
        assert_eq!(SslMode::VerifyFull.to_string(), "verify-full");
        assert_eq!("Round-Robin".parse(), Ok(LoadBalanceHosts::RoundRobin));
        let unknown = "sessions".parse::<PoolMode>().map_err(|e| e.to_string());
        assert_eq!(
            unknown,
            Err("one of session, transaction, statement".to_owned())
        );
    }

    #[test]
    fn every_word_reads_back() {
        for word in AuthType::WORDS {
            assert_eq!(word.parse::<AuthType>().map(AuthType::as_str), Ok(*word));
        }
    }

    #[test]
    fn lists_of_tls_versions() {
        for (text, expected) in [
            ("secure", Some("secure")),
            ("default", Some("secure")),
            ("tlsv1.3:tlsv1.2", Some("secure")),
            ("tlsv1", Some("all")),
            ("tlsv1.2", Some("tlsv1.2")),
            ("all, !tlsv1.0", Some("tlsv1.1,tlsv1.2,tlsv1.3")),
            ("!tlsv1.0:!tlsv1.1", Some("secure")),
            ("secure,!tlsv1.2", Some("tlsv1.3")),
            ("tlsv1.1", None),
            ("legacy", None),
            ("", None),
        ] {
            assert_eq!(protocols(text).as_deref(), expected, "{text:?}");
        }
    }
}
