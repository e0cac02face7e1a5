//! The settings as logins see them: one immutable snapshot, made anew at every reload. A login uses the one that it began with.

use std::sync::Arc;

use super::ldap::Directory;
use super::pam::Pam;
use crate::auth::hba::Hba;
use crate::auth::scram::MockSeed;
use crate::auth::{AuthFile, LdapOptions, Method, ServerUsers};
use crate::config::{AuthType, Config};
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
    /// As whom servers are logged in to.
    pub server_users: Arc<ServerUsers>,
    /// Who else can tell whether a password is right.
    pub referees: Referees,
}

/// Those outside who know users and passwords, as far as the configuration asks them.
#[derive(Debug, Default, Clone)]
pub struct Referees {
    /// `auth_ldap_options`, under `auth_type=ldap`.
    pub ldap: Option<Arc<LdapOptions>>,
    /// The way to LDAP servers.
    pub directory: Option<Arc<Directory>>,
    /// PAM.
    pub pam: Option<Arc<Pam>>,
}

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
        let server_users = Arc::new(ServerUsers::new(&config, users.clone()));
        Desk {
            config,
            users,
            rules: Arc::default(),
            tls,
            tracked,
            mock,
            console_uid,
            server_users,
            referees: Referees::default(),
        }
    }

    /// The same, with somebody to ask about passwords.
    pub fn asking(self, referees: Referees) -> Desk {
        Desk { referees, ..self }
    }

    /// After a reload: what was derived for users whose secrets have not changed is kept.
    pub fn keep_unchanged(&mut self, before: &Desk) {
        if let Some(users) = Arc::get_mut(&mut self.server_users) {
            users.keep_unchanged(&before.server_users);
        }
    }

    /// The same, with these rules.
    pub fn with_rules(self, rules: Hba) -> Desk {
        let rules = Arc::new(rules);
        Desk { rules, ..self }
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
            AuthType::Ldap => match &self.referees.ldap {
                Some(options) => Method::Ldap(options.clone()),
                None => Method::Reject,
            },
            AuthType::Pam => Method::Pam,
            AuthType::Cert => Method::Cert,
            // What the rules say is only known when a client comes: see `gate`.
            AuthType::Hba => Method::Reject,
        }
    }
}
