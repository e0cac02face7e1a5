//! The users that `auth_query` has found. Nobody is let in because of it: every login asks anew. It is there so that a user
//! whose secret has not changed stays the same value, with what was derived from the secret or learned from a proof.

use std::collections::HashMap;
use std::sync::Arc;

use super::user::User;

/// The most users that are remembered; then those who have not logged in for longest are forgotten.
pub const ACQUAINTANCES_MAX: usize = 10_000;

/// Users by the database that they were found in, and their name.
#[derive(Debug)]
pub struct Acquaintances {
    known: HashMap<Key, Known>,
    max: usize,
    /// Counts the meetings.
    turn: u64,
}

type Key = (Box<str>, Box<[u8]>);

#[derive(Debug)]
struct Known {
    user: Arc<User>,
    last_met: u64,
}

impl Default for Acquaintances {
    fn default() -> Self {
        Acquaintances::with_room(ACQUAINTANCES_MAX)
    }
}

impl Acquaintances {
    fn with_room(max: usize) -> Acquaintances {
        Acquaintances {
            known: HashMap::new(),
            max,
            turn: 0,
        }
    }

    /// A user was found in this database: the value known before if its secret is still the same, else this one.
    pub fn meet(&mut self, database: &str, found: User) -> Arc<User> {
        self.turn += 1;
        let last_met = self.turn;
        let key: Key = (database.into(), found.name().into());
        if let Some(known) = self.known.get_mut(&key) {
            if !known.user.secret().same_as(found.secret()) {
                known.user = Arc::new(found);
            }
            known.last_met = last_met;
            return known.user.clone();
        }
        self.make_room();
        let user = Arc::new(found);
        let known = Known {
            user: user.clone(),
            last_met,
        };
        self.known.insert(key, known);
        user
    }

    /// Nobody of this name is in this database any more.
    pub fn forget(&mut self, database: &str, name: &[u8]) {
        self.known.remove(&(database.into(), name.into()));
    }

    /// Forgets the half that was met longest ago: looking for the very oldest every time would cost more.
    fn make_room(&mut self) {
        if self.known.len() < self.max {
            return;
        }
        let mut turns: Vec<u64> = self.known.values().map(|known| known.last_met).collect();
        let half = turns.len() / 2;
        let (_, middle, _) = turns.select_nth_unstable(half);
        let middle = *middle;
        self.known.retain(|_, known| known.last_met > middle);
    }
}

#[cfg(test)]
mod tests {
    use super::super::secret::Secret;
    use super::*;

    fn user(name: &str, secret: &str) -> User {
        User::new(name.as_bytes(), Secret::parse(secret.as_bytes()))
    }

    #[test]
    fn who_has_not_changed_stays_the_same_value() {
        let mut known = Acquaintances::default();
        let first = known.meet("db", user("ann", "pencil"));
        assert!(Arc::ptr_eq(
            &first,
            &known.meet("db", user("ann", "pencil"))
        ));
        for (database, name, secret) in [
            ("other", "ann", "pencil"),
            ("db", "bob", "pencil"),
            ("db", "ann", "changed"),
        ] {
            let other = known.meet(database, user(name, secret));
            assert!(!Arc::ptr_eq(&first, &other), "{database} {name} {secret}");
            assert!(other.secret().same_as(&Secret::parse(secret.as_bytes())));
        }
        assert!(!Arc::ptr_eq(
            &first,
            &known.meet("db", user("ann", "pencil"))
        ));
    }

    #[test]
    fn a_secret_taken_away_is_gone() {
        let mut known = Acquaintances::default();
        known.meet("db", user("ann", "pencil"));
        assert!(known.meet("db", user("ann", "")).secret().is_none());
    }

    #[test]
    fn who_is_removed_is_forgotten() {
        let mut known = Acquaintances::default();
        let first = known.meet("db", user("ann", "pencil"));
        known.forget("db", b"ann");
        assert!(known.known.is_empty());
        assert!(!Arc::ptr_eq(
            &first,
            &known.meet("db", user("ann", "pencil"))
        ));
    }

    #[test]
    fn who_came_lately_is_remembered_longest() {
        let mut known = Acquaintances::with_room(4);
        let names = ["a", "b", "c", "d"];
        let met = names.map(|name| known.meet("db", user(name, "x")));
        known.meet("db", user("a", "x"));
        known.meet("db", user("e", "x"));
        assert!(known.known.len() <= 4);
        assert!(Arc::ptr_eq(&met[0], &known.meet("db", user("a", "x"))));
        assert!(!Arc::ptr_eq(&met[1], &known.meet("db", user("b", "x"))));
    }

    #[test]
    fn it_never_grows_beyond_its_room() {
        for max in 1..5 {
            let mut known = Acquaintances::with_room(max);
            for number in 0..50 {
                known.meet("db", user(&number.to_string(), "x"));
                assert!(known.known.len() <= max);
            }
        }
    }
}
