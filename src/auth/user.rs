//! A name with its secret, and what was derived from the secret so far.
//!
//! One comes from a line of `auth_file`, a row of `auth_query`, or a `password=` key. What is derived lives and dies
//! with it: a reload that changes the secret makes a new `User`, one that does not keeps this one
//! ([`AuthFile::keep_unchanged`](super::AuthFile::keep_unchanged)).

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

use super::scram::{DerivedKeys, SALT_BYTES, ScramKeys, ScramVerifier};
use super::secret::Secret;

/// The longest user name, in bytes, as in PgBouncer.
pub const USER_BYTES_MAX: usize = 127;

/// A user who may log in, or as whom we log in.
pub struct User {
    name: Arc<[u8]>,
    secret: Secret,
    /// Derived from a plain secret when a client first needs it.
    verifier: OnceLock<Arc<ScramVerifier>>,
    /// Behind a SCRAM secret, once a client has proved that it knows them.
    keys: OnceLock<ScramKeys>,
    /// Derived from a plain secret for the first server that asked.
    server_keys: OnceLock<DerivedKeys>,
}

impl User {
    /// A user of this name; `name` may be in any encoding.
    pub fn new(name: &[u8], secret: Secret) -> User {
        User {
            name: name.into(),
            secret,
            verifier: OnceLock::new(),
            keys: OnceLock::new(),
            server_keys: OnceLock::new(),
        }
    }

    /// The name as it stands in messages.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The name for people.
    pub fn display_name(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.name)
    }

    /// The secret.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The SCRAM verifier to check clients against; `None` if the secret is no use for SCRAM (none, or md5), or if the
    /// system has no random numbers for a salt.
    ///
    /// Slow when a plain secret meets its first client: it is derived then, with these `iterations` and a random salt,
    /// and kept. Later calls give the same one, whatever iterations they ask for, as PgBouncer does.
    pub fn verifier(&self, iterations: u32) -> Option<Arc<ScramVerifier>> {
        match &self.secret {
            Secret::Scram(verifier) => Some(verifier.clone()),
            Secret::Plain(password) => self.derived_verifier(password, iterations),
            Secret::Md5(_) | Secret::None => None,
        }
    }

    /// Would [`User::verifier`] be slow now?
    pub fn is_slow_to_verify(&self) -> bool {
        matches!(self.secret, Secret::Plain(_)) && self.verifier.get().is_none()
    }

    fn derived_verifier(&self, password: &[u8], iterations: u32) -> Option<Arc<ScramVerifier>> {
        if let Some(verifier) = self.verifier.get() {
            return Some(verifier.clone());
        }
        let mut salt = [0u8; SALT_BYTES];
        getrandom::fill(&mut salt).ok()?;
        let derive = || Arc::new(ScramVerifier::derive(password, &salt, iterations));
        Some(self.verifier.get_or_init(derive).clone())
    }

    /// Keeps what a client's proof revealed, for pass-through. Does nothing unless the secret is SCRAM and these are the
    /// keys behind it; since there is only one such pair, the first to come is as good as the last.
    pub fn keep_keys(&self, keys: ScramKeys) {
        if let Secret::Scram(verifier) = &self.secret
            && bool::from(keys.fits(verifier))
        {
            self.keys.get_or_init(|| keys);
        }
    }

    /// The keys behind a SCRAM secret, if a client has proved them.
    pub fn keys(&self) -> Option<&ScramKeys> {
        self.keys.get()
    }

    /// Whether both have one name and one password: then the one of whom more has been derived already is as good. Users who
    /// log in with a password of their own (LDAP, PAM) are made anew at every login.
    pub fn is_twin_of(&self, other: &User) -> bool {
        let plain = matches!(self.secret, Secret::Plain(_));
        plain && self.name == other.name && self.secret.same_as(&other.secret)
    }

    /// Keeps what a login into a server derived from a plain secret. Servers that share a role have one salt for it, so
    /// the first is kept.
    pub(super) fn keep_server_keys(&self, derived: DerivedKeys) {
        self.server_keys.get_or_init(|| derived);
    }

    /// What an earlier login into a server derived.
    pub(super) fn server_keys(&self) -> Option<&DerivedKeys> {
        self.server_keys.get()
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User({:?}, {:?})", self.display_name(), self.secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_secret_is_derived_once() {
        let user = User::new(b"ann", Secret::parse(b"pencil"));
        assert!(user.is_slow_to_verify());
        let first = user.verifier(2).unwrap();
        let again = user.verifier(3).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(again.iterations(), 2);
        assert!(!user.is_slow_to_verify());
        assert!(first.matches_password(b"pencil"));
    }

    #[test]
    fn two_users_with_one_password_have_two_salts() {
        let verifier = || {
            User::new(b"ann", Secret::parse(b"pencil"))
                .verifier(1)
                .unwrap()
        };
        assert_ne!(verifier(), verifier());
    }

    #[test]
    fn a_scram_secret_is_used_as_it_stands() {
        let stored = ScramVerifier::derive(b"pencil", b"salt", 5);
        let user = User::new(b"ann", Secret::parse(stored.to_string().as_bytes()));
        assert_eq!(*user.verifier(9).unwrap(), stored);
    }

    #[test]
    fn other_secrets_have_no_verifier() {
        for stored in ["", "md5c2a8cc1e0e8e2cdf0a0b0b0b0b0b0b0b"] {
            let user = User::new(b"ann", Secret::parse(stored.as_bytes()));
            assert_eq!(user.verifier(1), None);
        }
    }

    #[test]
    fn only_the_keys_behind_the_secret_are_kept() {
        let stored = ScramVerifier::derive(b"pencil", b"salt", 1).to_string();
        let user = User::new(b"ann", Secret::parse(stored.as_bytes()));
        user.keep_keys(ScramKeys::derive(b"pen", b"salt", 1));
        assert!(user.keys().is_none());
        let keys = ScramKeys::derive(b"pencil", b"salt", 1);
        user.keep_keys(keys.clone());
        assert_eq!(user.keys(), Some(&keys));

        let plain = User::new(b"ann", Secret::parse(b"pencil"));
        plain.keep_keys(keys);
        assert!(plain.keys().is_none());
    }

    #[test]
    fn twins_have_name_and_password_in_common() {
        let user = |name: &str, secret| User::new(name.as_bytes(), secret);
        let ann = user("ann", Secret::plain(b"pencil"));
        assert!(ann.is_twin_of(&user("ann", Secret::plain(b"pencil"))));
        assert!(!ann.is_twin_of(&user("ann", Secret::plain(b"pen"))));
        assert!(!ann.is_twin_of(&user("bob", Secret::plain(b"pencil"))));
        assert!(!user("ann", Secret::None).is_twin_of(&user("ann", Secret::None)));
    }

    #[test]
    fn debug_shows_name_but_no_secret() {
        let user = User::new(b"ann", Secret::parse(b"pencil"));
        assert_eq!(format!("{user:?}"), "User(\"ann\", Secret::Plain(..))");
    }
}
