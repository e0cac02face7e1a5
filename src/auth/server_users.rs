//! As whom servers are logged in to: the users that database entries force, with the entry's password or that of `auth_file`, and
//! everybody else as `auth_file` knows them.
//!
//! Not here: users who log in with a secret of their own (from `auth_query`, or typed for PAM or LDAP); theirs goes with the client.

use std::collections::HashMap;
use std::sync::Arc;

use super::{AuthFile, Secret, User};
use crate::config::{Config, Database};

/// The name of the entry that is the model for the others.
const AUTODB: &str = "*";

/// Users for logging into servers, one value per configuration in force. What is derived from their secrets is derived once.
#[derive(Debug, Default)]
pub struct ServerUsers {
    file: Arc<AuthFile>,
    /// Forced users with a password of the entry's own, by name of the entry.
    forced: HashMap<String, Arc<User>>,
}

impl ServerUsers {
    /// The users of this configuration and this file.
    pub fn new(config: &Config, file: Arc<AuthFile>) -> ServerUsers {
        let entries = config.databases.values().chain(&config.autodb);
        let forced = entries.filter_map(|entry| {
            let password = entry.password.as_ref()?.expose();
            let secret = Secret::parse(password.as_bytes());
            let user = User::new(entry.user.as_deref()?.as_bytes(), secret);
            Some((entry.name.clone(), Arc::new(user)))
        });
        let forced = forced.collect();
        ServerUsers { file, forced }
    }

    /// After a reload: forced users whose name and password have not changed stay the values they were, with all that was derived
    /// for them. The file does the same for its own ([`AuthFile::keep_unchanged`]).
    pub fn keep_unchanged(&mut self, before: &ServerUsers) {
        for (entry, user) in &mut self.forced {
            if let Some(known) = before.forced.get(entry)
                && known.name() == user.name()
                && known.secret().same_as(user.secret())
            {
                *user = known.clone();
            }
        }
    }

    /// The user of this name in servers of this entry: with the entry's password if the entry forces that very user, else with that
    /// of `auth_file`, else without.
    pub fn of(&self, database: &Database, name: &str) -> Arc<User> {
        let entry = match database.auto {
            true => AUTODB,
            false => &database.name,
        };
        let forced = self.forced.get(entry);
        let forced = forced.filter(|user| user.name() == name.as_bytes());
        let known = forced.or_else(|| self.file.lookup(name));
        let unknown = || Arc::new(User::new(name.as_bytes(), Secret::None));
        known.cloned().unwrap_or_else(unknown)
    }

    /// The user that an entry forces; `None` for an entry without `user=`.
    pub fn forced(&self, database: &Database) -> Option<Arc<User>> {
        let name = database.user.as_deref()?;
        Some(self.of(database, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn entry(name: &str, user: Option<&str>, password: Option<&str>) -> Database {
        Database {
            user: user.map(str::to_owned),
            password: password.map(config::Secret::from),
            ..Database::new(name)
        }
    }

    fn users(entries: &[Database]) -> ServerUsers {
        let mut config = Config::default();
        for entry in entries {
            match &entry.name[..] {
                AUTODB => config.autodb = Some(Arc::new(entry.clone())),
                name => drop(
                    config
                        .databases
                        .insert(name.to_owned(), Arc::new(entry.clone())),
                ),
            }
        }
        let (file, problems) = AuthFile::parse(b"\"ann\" \"pencil\"\n\"bob\" \"pen\"");
        assert_eq!(problems, []);
        ServerUsers::new(&config, Arc::new(file))
    }

    #[track_caller]
    fn check(user: &User, name: &str, secret: &str) {
        assert_eq!(user.display_name(), name);
        assert!(
            user.secret().same_as(&Secret::parse(secret.as_bytes())),
            "{user:?}"
        );
    }

    #[test]
    fn a_password_of_the_entry_is_only_for_the_user_that_it_forces() {
        let db = entry("db", Some("ann"), Some("entry's"));
        let users = users(std::slice::from_ref(&db));
        check(&users.forced(&db).unwrap(), "ann", "entry's");
        check(&users.of(&db, "ann"), "ann", "entry's");
        check(&users.of(&db, "bob"), "bob", "pen");
        check(&users.of(&db, "eve"), "eve", "");
    }

    #[test]
    fn without_one_the_file_knows() {
        let db = entry("db", Some("bob"), None);
        let other = entry("other", None, None);
        let users = users(&[db.clone(), other.clone()]);
        check(&users.forced(&db).unwrap(), "bob", "pen");
        assert!(users.forced(&other).is_none());
        check(&users.of(&other, "ann"), "ann", "pencil");
    }

    #[test]
    fn databases_made_from_the_model_have_its_password() {
        let model = entry("*", Some("ann"), Some("model's"));
        let users = users(std::slice::from_ref(&model));
        check(
            &users.forced(&model.for_name("made up")).unwrap(),
            "ann",
            "model's",
        );
    }

    #[test]
    fn what_did_not_change_is_kept_over_a_reload() {
        let db = |password| entry("db", Some("ann"), Some(password));
        let before = users(&[db("1")]);
        for (password, same) in [("1", true), ("2", false)] {
            let mut after = users(&[db(password)]);
            after.keep_unchanged(&before);
            let (old, new) = (before.of(&db("1"), "ann"), after.of(&db(password), "ann"));
            assert_eq!(Arc::ptr_eq(&old, &new), same);
            check(&new, "ann", password);
        }
    }
}
