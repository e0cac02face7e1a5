//! What is worth knowing about a configuration that loads: sums that do not add up, and settings that cannot work as
//! they seem to be meant.
//!
//! A pure function of the configuration; what depends on the machine (files, limits of the process) is in
//! [`mod@super::check`].

use std::collections::BTreeMap;

use super::draft::Places;
use super::effective::{Config, PoolSettings};
use super::entry::Database;
use super::problem::{Note, Place};
use super::words::{AuthType, SslMode};

/// The user that stands for "anybody without an entry of its own" where a pool's settings are asked for.
const ANYBODY: &str = "";

/// The facilities that syslog knows.
const SYSLOG_FACILITIES: &[&str] = &[
    "auth", "authpriv", "daemon", "user", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

/// All that is worth knowing, general things first.
pub fn advise(config: &Config, places: &Places) -> Vec<Note> {
    let mut advice = Advice {
        config,
        places,
        notes: Vec::new(),
    };
    advice.logins();
    advice.listening();
    advice.peers();
    advice.global_sums();
    advice.timeouts();
    advice.databases();
    advice.shared_users();
    advice.notes
}

/// The most file descriptors that the connections of a configuration can need, as far as it says: databases whose
/// pools are unlimited or as many as there are users count with one pool of the default size.
pub fn connections_max(config: &Config) -> u64 {
    let servers = all_databases(config).map(|db| {
        let pool = config.pool_settings(db, db.user.as_deref().unwrap_or(ANYBODY));
        let size = u64::from(pool.pool_size) + u64::from(pool.reserve_pool_size);
        match pool.max_db_connections {
            0 => size,
            limit => size.min(limit.into()),
        }
    });
    u64::from(config.settings.max_client_conn) + servers.sum::<u64>()
}

fn all_databases(config: &Config) -> impl Iterator<Item = &Database> {
    config
        .databases
        .values()
        .chain(&config.autodb)
        .map(AsRef::as_ref)
}

struct Advice<'a> {
    config: &'a Config,
    places: &'a Places,
    notes: Vec<Note>,
}

impl Advice<'_> {
    /// A warning about a setting of the main section.
    fn warn(&mut self, setting: &str, text: impl Into<String>) {
        self.notes
            .push(Note::warning(&self.places.setting(setting), text));
    }

    /// A remark about a setting of the main section.
    fn inform(&mut self, setting: &str, text: impl Into<String>) {
        self.notes
            .push(Note::info(&self.places.setting(setting), text));
    }

    fn logins(&mut self) {
        let settings = &self.config.settings;
        let mut entries = self.config.databases.values().chain(&self.config.autodb);
        let asks = settings.auth_user.is_some() || entries.any(|db| db.auth_user.is_some());
        let needs_file = !matches!(
            settings.auth_type,
            AuthType::Any | AuthType::Ldap | AuthType::Pam
        );
        if needs_file && settings.auth_file.is_none() && self.config.userlist.is_none() && !asks {
            let method = settings.auth_type;
            self.warn(
                "auth_type",
                format!("auth_type={method} without auth_file: nobody can log in"),
            );
        }
        let method = settings.auth_type;
        let in_clear = matches!(method, AuthType::Plain | AuthType::Ldap | AuthType::Pam);
        if in_clear && settings.client_tls_sslmode < SslMode::Require {
            self.warn(
                "auth_type",
                format!("auth_type={method} without TLS: passwords cross the network in clear"),
            );
        }
        if let Some(name) = &settings.auth_dbname
            && self.config.database(name).is_none()
        {
            self.warn(
                "auth_dbname",
                format!("auth_dbname: there is no database \"{name}\""),
            );
        }
        if settings.admin_users.is_empty() && settings.auth_type != AuthType::Any {
            self.inform("admin_users", "admin_users is empty: only our own system user gets into the console, by the unix socket");
        }
    }

    fn listening(&mut self) {
        let settings = &self.config.settings;
        if settings.listen_addr.is_empty() && settings.unix_socket_dir.is_none() {
            self.warn(
                "listen_addr",
                "nowhere to listen on: neither listen_addr nor unix_socket_dir is set",
            );
        }
        if settings.server_tls_key_file.is_some() != settings.server_tls_cert_file.is_some() {
            let text =
                "server_tls_key_file and server_tls_cert_file have no effect without each other";
            self.warn("server_tls_key_file", text);
        }
        let facility = settings.syslog_facility.to_ascii_lowercase();
        if !SYSLOG_FACILITIES.contains(&facility.as_str()) {
            let text = format!("syslog_facility: \"{facility}\" is unknown, daemon is used");
            self.warn("syslog_facility", text);
        }
        if self.config.databases.is_empty() && self.config.autodb.is_none() {
            self.notes.push(Note::warning(
                &Place::none(),
                "there is no database to connect to",
            ));
        }
    }

    fn peers(&mut self) {
        let own = self.config.settings.peer_id;
        let has_others = self.config.peers.keys().any(|id| *id != own);
        match own {
            0 if has_others => self.warn(
                "peer_id",
                "[peers] has no effect without peer_id: cancel requests are not forwarded",
            ),
            0 if self.config.settings.so_reuseport => self.inform(
                "so_reuseport",
                "so_reuseport without peer_id and [peers]: a cancel request that comes to another process than its client's is lost",
            ),
            0 => {}
            _ if !has_others => self.inform(
                "peer_id",
                "peer_id is set, but [peers] names no other process to forward cancel requests to",
            ),
            _ => {}
        }
    }

    fn global_sums(&mut self) {
        let settings = &self.config.settings;
        if settings.max_client_conn == 0 {
            self.warn("max_client_conn", "max_client_conn=0: no client gets in");
        }
        if settings.reserve_pool_size > 0 && settings.reserve_pool_timeout.is_zero() {
            self.warn(
                "reserve_pool_size",
                "reserve_pool_size has no effect while reserve_pool_timeout is 0",
            );
        }
        if is_less(
            settings.max_user_client_connections,
            settings.max_user_connections,
        ) {
            let text = "max_user_client_connections is less than max_user_connections: \
                        a user's server connections can never all be used";
            self.warn("max_user_client_connections", text);
        }
        if settings.min_pool_size > 0 && all_databases(self.config).any(|db| db.user.is_none()) {
            let text = "min_pool_size: pools of databases without user= are filled only while a client is connected";
            self.inform("min_pool_size", text);
        }
    }

    fn timeouts(&mut self) {
        let settings = &self.config.settings;
        let (reserve, wait) = (settings.reserve_pool_timeout, settings.query_wait_timeout);
        if settings.reserve_pool_size > 0 && !wait.is_zero() && reserve >= wait {
            self.warn(
                "reserve_pool_timeout",
                "reserve_pool_timeout is not less than query_wait_timeout: \
                       clients are dropped before they could use the reserve",
            );
        }
        let (whole, idle) = (
            settings.transaction_timeout,
            settings.idle_transaction_timeout,
        );
        if !whole.is_zero() && idle >= whole {
            let text = "idle_transaction_timeout has no effect: transaction_timeout comes first";
            self.inform("idle_transaction_timeout", text);
        }
        if !whole.is_zero() && settings.query_timeout >= whole {
            self.inform(
                "query_timeout",
                "query_timeout has no effect: transaction_timeout comes first",
            );
        }
        let (listening, whole) = (settings.drain_lame_duck, settings.drain_deadline);
        if !whole.is_zero() && listening >= whole {
            let text = "drain_lame_duck is not less than drain_deadline: a drain has no time left for its clients";
            self.warn("drain_lame_duck", text);
        }
    }

    fn databases(&mut self) {
        let config = self.config;
        for db in all_databases(config) {
            let place = self.places.database(&db.name);
            let user = db.user.as_deref().unwrap_or(ANYBODY);
            let pool = config.pool_settings(db, user);
            for text in pool_sums(config, db, &pool) {
                self.notes.push(Note::warning(
                    &place,
                    format!("database \"{}\": {text}", db.name),
                ));
            }
            if db.min_pool_size.unwrap_or(0) > 0 && db.user.is_none() {
                let text = format!(
                    "database \"{}\": without user= min_pool_size is filled only while a client is connected",
                    db.name
                );
                self.notes.push(Note::info(&place, text));
            }
        }
    }

    /// Databases that log in to servers as the same user share that user's limit.
    fn shared_users(&mut self) {
        let mut sums: BTreeMap<&str, (u64, Vec<&str>)> = BTreeMap::new();
        for db in all_databases(self.config) {
            let Some(user) = &db.user else { continue };
            let pool = self.config.pool_settings(db, user);
            let (sum, names) = sums.entry(user).or_default();
            *sum += u64::from(pool.pool_size);
            names.push(&db.name);
        }
        for (user, (sum, names)) in sums {
            let settings = &self.config.settings;
            let limit = self
                .config
                .user(user)
                .max_user_connections
                .unwrap_or(settings.max_user_connections);
            if limit > 0 && sum > limit.into() {
                let place = match self.places.users.contains_key(user) {
                    true => self.places.user(user),
                    false => self.places.setting("max_user_connections"),
                };
                let text = format!(
                    "user \"{user}\": the pools of {} add up to {sum} server connections, \
                     but max_user_connections allows {limit}",
                    names.join(", ")
                );
                self.notes.push(Note::warning(&place, text));
            }
        }
    }
}

/// Whether a limit is below a number, where 0 is no limit and no number.
fn is_less(limit: u32, number: u32) -> bool {
    limit > 0 && limit < number
}

fn pool_sums(config: &Config, db: &Database, pool: &PoolSettings) -> Vec<String> {
    let mut found = Vec::new();
    let whole = pool.pool_size.saturating_add(pool.reserve_pool_size);
    if pool.pool_size > 0 && is_less(pool.max_db_connections, whole) {
        found.push(format!(
            "pool_size and reserve add up to {whole}, but max_db_connections allows {}",
            pool.max_db_connections
        ));
    }
    if db.user.is_some() && pool.pool_size > 0 && is_less(pool.max_user_connections, pool.pool_size)
    {
        let limit = pool.max_user_connections;
        found.push(format!(
            "pool_size is {}, but max_user_connections allows {limit}",
            pool.pool_size
        ));
    }
    let min_pool_size = db.min_pool_size.unwrap_or(config.settings.min_pool_size);
    if min_pool_size > pool.min_pool_size {
        found.push(format!(
            "min_pool_size {min_pool_size} is cut to pool_size, {}",
            pool.pool_size
        ));
    }
    let clients = db
        .max_db_client_connections
        .unwrap_or(config.settings.max_db_client_connections);
    if is_less(clients, pool.max_db_connections) {
        found.push("max_db_client_connections is less than max_db_connections".to_owned());
    }
    if db.reserve_pool_size.unwrap_or(0) > 0 && pool.reserve_pool_timeout.is_zero() {
        found.push("reserve_pool_size has no effect while reserve_pool_timeout is 0".to_owned());
    }
    if config.settings.auth_type == AuthType::Any && db.user.is_none() {
        found.push("auth_type=any needs user=; without it nobody can log in".to_owned());
    }
    if let Some(name) = &db.auth_dbname
        && config.database(name).is_none()
    {
        found.push(format!("auth_dbname: there is no database \"{name}\""));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::entry::UserSettings;
    use std::sync::Arc;
    use std::time::Duration;

    /// A configuration about which there is nothing to say.
    fn quiet() -> Config {
        let mut config = Config::default();
        config.settings.auth_file = Some("users.txt".into());
        config.settings.admin_users = vec!["admin".to_owned()];
        add(&mut config, Database::new("app"));
        config
    }

    fn add(config: &mut Config, db: Database) {
        config.databases.insert(db.name.clone(), Arc::new(db));
    }

    fn check(change: impl FnOnce(&mut Config), expected: &[&str]) {
        let mut config = quiet();
        change(&mut config);
        let notes = advise(&config, &Places::default());
        let texts: Vec<&str> = notes.iter().map(|note| note.text.as_str()).collect();
        assert_eq!(texts.len(), expected.len(), "{texts:?} / {expected:?}");
        for (text, expected) in texts.iter().zip(expected) {
            assert!(text.contains(expected), "{text} / {expected}");
        }
    }

    #[test]
    fn a_drain_needs_time() {
        let lame_duck = |secs| {
            move |config: &mut Config| {
                config.settings.drain_lame_duck = std::time::Duration::from_secs(secs);
            }
        };
        check(lame_duck(25), &["drain_lame_duck is not less"]);
        check(lame_duck(24), &[]);
    }

    #[test]
    fn nothing_to_say() {
        check(|_| {}, &[]);
    }

    #[test]
    fn about_logins() {
        check(|c| c.settings.auth_file = None, &["nobody can log in"]);
        check(
            |c| c.settings.auth_type = AuthType::Any,
            &["auth_type=any needs user="],
        );
        check(|c| c.settings.auth_type = AuthType::Plain, &["in clear"]);
        check(
            |c| c.settings.auth_dbname = Some("gone".into()),
            &["no database \"gone\""],
        );
        check(
            |c| c.settings.admin_users.clear(),
            &["admin_users is empty"],
        );
    }

    #[test]
    fn about_listening() {
        check(
            |c| c.settings.unix_socket_dir = None,
            &["nowhere to listen on"],
        );
        check(
            |c| c.settings.server_tls_key_file = Some("k".into()),
            &["without each other"],
        );
        check(
            |c| c.settings.syslog_facility = "mail".into(),
            &["\"mail\" is unknown"],
        );
        check(|c| c.databases.clear(), &["no database to connect to"]);
    }

    #[test]
    fn about_sums() {
        check(|c| c.settings.max_client_conn = 0, &["no client gets in"]);
        check(
            |c| c.settings.max_db_connections = 19,
            &["add up to 20, but max_db_connections allows 19"],
        );
        check(|c| c.settings.max_db_connections = 20, &[]);
        check(
            |c| {
                add(
                    c,
                    Database {
                        min_pool_size: Some(30),
                        user: Some("u".into()),
                        ..Database::new("app")
                    },
                )
            },
            &["min_pool_size 30 is cut to pool_size, 20"],
        );
        check(
            |c| c.settings.min_pool_size = 1,
            &["only while a client is connected"],
        );
        check(
            |c| {
                c.settings.max_db_connections = 20;
                c.settings.max_db_client_connections = 10;
            },
            &["max_db_client_connections is less"],
        );
    }

    #[test]
    fn about_the_reserve() {
        check(
            |c| {
                c.settings.reserve_pool_size = 5;
                c.settings.reserve_pool_timeout = Duration::ZERO;
            },
            &["no effect while reserve_pool_timeout is 0"],
        );
        check(
            |c| {
                c.settings.reserve_pool_size = 5;
                c.settings.query_wait_timeout = Duration::from_secs(5);
            },
            &["dropped before they could use the reserve"],
        );
    }

    #[test]
    fn about_users_shared_by_databases() {
        let forced = |name: &str| Database {
            user: Some("joe".into()),
            ..Database::new(name)
        };
        check(
            |c| {
                add(c, forced("app"));
                add(c, forced("web"));
                let joe = UserSettings {
                    max_user_connections: Some(30),
                    ..UserSettings::default()
                };
                c.users.insert("joe".to_owned(), joe);
            },
            &[
                "the pools of app, web add up to 40 server connections, but max_user_connections allows 30",
            ],
        );
    }

    #[test]
    fn connections_are_added_up() {
        let mut config = quiet();
        assert_eq!(connections_max(&config), 120);
        add(
            &mut config,
            Database {
                max_db_connections: Some(3),
                ..Database::new("b")
            },
        );
        assert_eq!(connections_max(&config), 123);
    }
}
