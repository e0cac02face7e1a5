//! What clients have in common: whoever logs in to the same database as the same user, in the same way, shares one [`Profile`].
//!
//! Thousands of idle clients are mostly clients of few applications; so their names, limits and the like are kept once per worker
//! and not once per client. A profile never changes: a reload that changes limits gives the clients another one.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::config::ClientLimits;

/// What a client has in common with others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Profile {
    /// Name of the database entry.
    pub database: String,
    /// The user who logged in.
    pub user: String,
    /// Our end of the socket; `None` for a Unix socket.
    pub local: Option<SocketAddr>,
    /// Protocol and cipher, `TLSv1.3/…`.
    pub tls: Option<&'static str>,
    /// Timeouts.
    pub limits: ClientLimits,
}

/// The profiles in use on one worker, each kept once.
#[derive(Debug, Default)]
pub struct Profiles {
    profiles: HashSet<Rc<Profile>>,
}

impl Profiles {
    /// The shared copy of `profile`.
    pub fn share(&mut self, profile: Profile) -> Rc<Profile> {
        if let Some(known) = self.profiles.get(&profile) {
            return known.clone();
        }
        let shared = Rc::new(profile);
        self.profiles.insert(shared.clone());
        shared
    }

    /// The profile with these limits instead of its own.
    pub fn with_limits(&mut self, profile: &Rc<Profile>, limits: ClientLimits) -> Rc<Profile> {
        if profile.limits == limits {
            return profile.clone();
        }
        let changed = Profile {
            limits,
            ..Profile::clone(profile)
        };
        self.share(changed)
    }

    /// Forgets the profiles that nobody has any more.
    pub fn sweep(&mut self) {
        self.profiles
            .retain(|profile| Rc::strong_count(profile) > 1);
        if self.profiles.len() < self.profiles.capacity() / 4 {
            self.profiles.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn profile(user: &str) -> Profile {
        Profile {
            database: "d".to_owned(),
            user: user.to_owned(),
            local: Some(([127, 0, 0, 1], 6432).into()),
            tls: None,
            limits: ClientLimits {
                client_idle_timeout: Duration::ZERO,
                query_wait_timeout: Duration::from_secs(120),
                query_wait_notify: Duration::from_secs(5),
                max_user_client_connections: 0,
                max_db_client_connections: 0,
            },
        }
    }

    #[test]
    fn equal_clients_share_one() {
        let mut profiles = Profiles::default();
        let (one, two) = (profiles.share(profile("u")), profiles.share(profile("u")));
        assert!(Rc::ptr_eq(&one, &two));
        assert!(!Rc::ptr_eq(&one, &profiles.share(profile("v"))));
        drop((one, two));
        profiles.sweep();
        assert!(profiles.profiles.is_empty());
    }

    #[test]
    fn a_reload_gives_another_one_and_leaves_the_first_alone() {
        let mut profiles = Profiles::default();
        let one = profiles.share(profile("u"));
        let limits = ClientLimits {
            client_idle_timeout: Duration::from_secs(1),
            ..one.limits
        };
        assert!(Rc::ptr_eq(&profiles.with_limits(&one, one.limits), &one));
        let other = profiles.with_limits(&one, limits);
        assert!(Rc::ptr_eq(&profiles.with_limits(&one, limits), &other));
        assert_eq!((&other.limits, &other.user), (&limits, &one.user));
        assert_ne!(one.limits, limits);
    }
}
