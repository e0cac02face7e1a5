//! The settings as logins see them: one immutable snapshot, made anew at every reload. A login uses the one that it began with.

use std::collections::HashMap;
use std::sync::Arc;

use crate::auth::hba::Hba;
use crate::auth::scram::MockSeed;
use crate::auth::{AuthFile, Method, Secret, User};
use crate::config::{AuthType, Config, Database};
use crate::net::tls::ClientTls;
use crate::server::params::Tracked;

/// What a console user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleRole {
    /// In `admin_users`, or our own uid on the Unix socket.
    Admin,
    /// In `stats_users`, or anybody under `auth_type=any`.
    Stats,
}

/// All that a login has to know.
#[derive(Debug)]
pub struct Desk {
    /// The configuration.
    pub config: Arc<Config>,
    /// The users of `auth_file`.
    pub users: Arc<AuthFile>,
    /// The rules of `auth_hba_file`; none, which lets nobody in, unless `auth_type=hba`.
    pub rules: Arc<Hba>,
    /// TLS for clients; `None` for `client_tls_sslmode=disable`.
    pub tls: Option<Arc<ClientTls>>,
    /// The parameters that follow a client.
    pub tracked: Arc<Tracked>,
    /// From which unknown users' exchanges are made up; the same for the life of the process.
    pub mock: Arc<MockSeed>,
    /// The uid that gets into the console over the Unix socket without a proof: our own.
    pub console_uid: u32,
    /// Forced users with a password of the entry's own, by name of the entry. Kept here, so that what logins into servers
    /// derive from a password is derived once.
    forced: HashMap<String, Arc<User>>,
}

/// The name of the entry that is the model for the others.
const AUTODB: &str = "*";

impl Desk {
    /// A desk for this configuration and these users.
    pub fn new(
        config: Arc<Config>,
        users: Arc<AuthFile>,
        tls: Option<Arc<ClientTls>>,
        tracked: Arc<Tracked>,
        mock: Arc<MockSeed>,
        console_uid: u32,
    ) -> Desk {
        let entries = config.databases.values().chain(&config.autodb);
        let forced = entries.filter_map(|entry| {
            let password = entry.password.as_ref()?.expose();
            let secret = Secret::parse(password.as_bytes());
            let user = User::new(entry.user.as_deref()?.as_bytes(), secret);
            Some((entry.name.clone(), Arc::new(user)))
        });
        let forced = forced.collect();
        Desk {
            config,
            users,
            rules: Arc::default(),
            tls,
            tracked,
            mock,
            console_uid,
            forced,
        }
    }

    /// The same, with these rules.
    pub fn with_rules(self, rules: Hba) -> Desk {
        let rules = Arc::new(rules);
        Desk { rules, ..self }
    }

    /// The forced user of an entry, with the entry's password, else that of `auth_file`, else none. `None` for an entry
    /// without `user=`.
    pub fn forced_user(&self, database: &Database) -> Option<Arc<User>> {
        let name = database.user.as_deref()?;
        let entry = if database.auto {
            AUTODB
        } else {
            &database.name
        };
        let known = self.forced.get(entry).or_else(|| self.users.lookup(name));
        let unknown = || Arc::new(User::new(name.as_bytes(), Secret::None));
        Some(known.cloned().unwrap_or_else(unknown))
    }

    /// What a user may do on the console; `None` for users who may not get in.
    pub fn console_role(&self, user: &[u8]) -> Option<ConsoleRole> {
        let settings = &self.config.settings;
        let listed = |list: &[String]| list.iter().any(|name| name.as_bytes() == user);
        if listed(&settings.admin_users) {
            Some(ConsoleRole::Admin)
        } else if listed(&settings.stats_users) || settings.auth_type == AuthType::Any {
            Some(ConsoleRole::Stats)
        } else {
            None
        }
    }

    /// The method of `auth_type`. One that is not available lets nobody in.
    pub fn method(&self) -> Method {
        match self.config.settings.auth_type {
            AuthType::Any => Method::Any,
            AuthType::Trust => Method::Trust,
            AuthType::Plain => Method::Plain,
            AuthType::Md5 => Method::Md5,
            AuthType::ScramSha256 => Method::ScramSha256,
            AuthType::Cert => Method::Cert,
            // What the rules say is only known when a client comes: see `gate`.
            AuthType::Hba | AuthType::Ldap | AuthType::Pam => Method::Reject,
        }
    }
}
