//! [`Config`], and what follows from it for one pool or one client: all precedences are decided here, once.
//!
//! Precedence is "the more specific wins": user, then database, then global. Which user counts depends on the setting:
//! for what concerns server connections it is the server-side user (the forced user, where there is one), for what
//! concerns a client it is the user who logged in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::entry::{Database, Peer, UserSettings, check_database_name};
use super::secret::Secret;
use super::settings::Settings;
use super::words::{LoadBalanceHosts, PoolMode};

/// The value of `server_check_query` that asks for an empty query.
const EMPTY_QUERY: &str = "<empty>";

/// A whole configuration, checked. It does not change: a reload makes a new one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The main section.
    pub settings: Settings,
    /// The entries of `[databases]` by name, without `*`.
    pub databases: BTreeMap<String, Arc<Database>>,
    /// The `*` entry: a model for databases that have none of their own.
    pub autodb: Option<Arc<Database>>,
    /// The entries of `[users]` by name.
    pub users: BTreeMap<String, UserSettings>,
    /// The entries of `[peers]` by id.
    pub peers: BTreeMap<u16, Peer>,
    /// Lines of users beside those of `auth_file`, from a configuration without a file.
    pub userlist: Option<Secret>,
    /// The file that was read.
    pub path: PathBuf,
}

/// What holds for a pool: a database together with a server-side user. A limit of 0 means "unlimited" and a timeout
/// of 0 "off", unless the field says otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSettings {
    /// When a server connection goes back to the pool.
    pub pool_mode: PoolMode,
    /// Most server connections of the pool.
    pub pool_size: u32,
    /// Server connections to keep open; never more than `pool_size`. 0 = none.
    pub min_pool_size: u32,
    /// Server connections beyond `pool_size`. 0 = none.
    pub reserve_pool_size: u32,
    /// Wait after which a client may use the reserve. 0 = the reserve is off.
    pub reserve_pool_timeout: Duration,
    /// Most server connections of the database.
    pub max_db_connections: u32,
    /// Most server connections of the server-side user.
    pub max_user_connections: u32,
    /// Age at which an unused server connection is closed. 0 = each is used once.
    pub server_lifetime: Duration,
    /// Idle time after which a server connection is closed.
    pub server_idle_timeout: Duration,
    /// Longest connect and login.
    pub server_connect_timeout: Duration,
    /// Pause after a failed connect or login.
    pub server_login_retry: Duration,
    /// Query that tells whether a server connection is alive: `None` = no check, empty = an empty query.
    pub server_check_query: Option<Arc<str>>,
    /// Idle time after which a connection is checked before use. 0 = always.
    pub server_check_delay: Duration,
    /// Query that cleans a server connection; `None` = none.
    pub server_reset_query: Option<Arc<str>>,
    /// Clean in every pool mode, not only in session mode.
    pub server_reset_query_always: bool,
    /// Session mode: close connections marked for closing between transactions.
    pub server_fast_close: bool,
    /// Use connections in turn, instead of the last used first.
    pub server_round_robin: bool,
    /// Which of several hosts is next.
    pub load_balance_hosts: LoadBalanceHosts,
    /// Longest query.
    pub query_timeout: Duration,
    /// Longest idle time inside a transaction.
    pub idle_transaction_timeout: Duration,
    /// Longest transaction.
    pub transaction_timeout: Duration,
    /// Longest wait of a cancel request.
    pub cancel_wait_timeout: Duration,
    /// Time after which an empty pool is forgotten.
    pub pool_idle_timeout: Duration,
    /// Prepared statements kept on a server connection. 0 = not tracked.
    pub max_prepared_statements: u32,
}

/// What holds for a client of a database. A limit of 0 means "unlimited", a time of 0 "never".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientLimits {
    /// Idle time after which it is closed.
    pub client_idle_timeout: Duration,
    /// Wait for a server connection after which it is closed.
    pub query_wait_timeout: Duration,
    /// Wait after which it is told that it waits.
    pub query_wait_notify: Duration,
    /// Most clients of the user.
    pub max_user_client_connections: u32,
    /// Most clients of the database.
    pub max_db_client_connections: u32,
}

impl Config {
    /// The database that a client gets who asks for `name`: its entry, or one made from `*`. `None` if there is
    /// neither, or if the name can be no database's (the console's, empty, or too long).
    pub fn database(&self, name: &str) -> Option<Arc<Database>> {
        if let Some(entry) = self.databases.get(name) {
            return Some(Arc::clone(entry));
        }
        check_database_name(name).ok()?;
        self.autodb
            .as_ref()
            .map(|model| Arc::new(model.for_name(name)))
    }

    /// What `[users]` says of a user; nothing, for most.
    pub fn user(&self, name: &str) -> UserSettings {
        self.users.get(name).cloned().unwrap_or_default()
    }

    /// What holds for the pool of `db` and the server-side user `server_user` (the forced user if `db` has one,
    /// else the user who logged in).
    pub fn pool_settings(&self, db: &Database, server_user: &str) -> PoolSettings {
        let global = &self.settings;
        let user = self.user(server_user);
        let pool_size = user
            .pool_size
            .or(db.pool_size)
            .unwrap_or(global.default_pool_size);
        PoolSettings {
            pool_mode: user.pool_mode.or(db.pool_mode).unwrap_or(global.pool_mode),
            pool_size,
            min_pool_size: capped(db.min_pool_size.unwrap_or(global.min_pool_size), pool_size),
            reserve_pool_size: user
                .reserve_pool_size
                .or(db.reserve_pool_size)
                .unwrap_or(global.reserve_pool_size),
            reserve_pool_timeout: global.reserve_pool_timeout,
            max_db_connections: db.max_db_connections.unwrap_or(global.max_db_connections),
            max_user_connections: user
                .max_user_connections
                .unwrap_or(global.max_user_connections),
            server_lifetime: db.server_lifetime.unwrap_or(global.server_lifetime),
            server_idle_timeout: global.server_idle_timeout,
            server_connect_timeout: global.server_connect_timeout,
            server_login_retry: global.server_login_retry,
            server_check_query: check_query(&global.server_check_query),
            server_check_delay: global.server_check_delay,
            server_reset_query: some_query(&global.server_reset_query),
            server_reset_query_always: global.server_reset_query_always,
            server_fast_close: global.server_fast_close,
            server_round_robin: global.server_round_robin,
            load_balance_hosts: db.load_balance_hosts,
            query_timeout: user.query_timeout.unwrap_or(global.query_timeout),
            idle_transaction_timeout: user
                .idle_transaction_timeout
                .unwrap_or(global.idle_transaction_timeout),
            transaction_timeout: user
                .transaction_timeout
                .unwrap_or(global.transaction_timeout),
            cancel_wait_timeout: global.cancel_wait_timeout,
            pool_idle_timeout: global.pool_idle_timeout,
            max_prepared_statements: global.max_prepared_statements,
        }
    }

    /// What holds for a client of `db` that logged in as `login_user`.
    pub fn client_limits(&self, db: &Database, login_user: &str) -> ClientLimits {
        let global = &self.settings;
        let user = self.user(login_user);
        ClientLimits {
            client_idle_timeout: user
                .client_idle_timeout
                .unwrap_or(global.client_idle_timeout),
            query_wait_timeout: user
                .query_wait_timeout
                .or(db.query_wait_timeout)
                .unwrap_or(global.query_wait_timeout),
            query_wait_notify: global.query_wait_notify,
            max_user_client_connections: user
                .max_user_client_connections
                .unwrap_or(global.max_user_client_connections),
            max_db_client_connections: db
                .max_db_client_connections
                .unwrap_or(global.max_db_client_connections),
        }
    }
}

/// At most `limit`, where 0 is no limit.
fn capped(number: u32, limit: u32) -> u32 {
    if limit == 0 {
        number
    } else {
        number.min(limit)
    }
}

fn some_query(text: &str) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| text.into())
}

fn check_query(text: &str) -> Option<Arc<str>> {
    match text {
        EMPTY_QUERY => Some("".into()),
        _ => some_query(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn config(databases: &[Database], users: &[(&str, UserSettings)]) -> Config {
        Config {
            databases: databases
                .iter()
                .map(|db| (db.name.clone(), Arc::new(db.clone())))
                .collect(),
            users: users
                .iter()
                .map(|(name, user)| ((*name).to_owned(), user.clone()))
                .collect(),
            ..Config::default()
        }
    }

    #[test]
    fn the_more_specific_wins() {
        let user = UserSettings {
            pool_mode: Some(PoolMode::Statement),
            pool_size: Some(0),
            reserve_pool_size: Some(9),
            ..UserSettings::default()
        };
        let db = Database {
            pool_mode: Some(PoolMode::Transaction),
            pool_size: Some(5),
            min_pool_size: Some(7),
            reserve_pool_size: Some(2),
            ..Database::new("app")
        };
        let config = config(&[], &[("u", user)]);
        let sizes = |user: &str, db: &Database| {
            let pool = config.pool_settings(db, user);
            (
                pool.pool_mode,
                pool.pool_size,
                pool.min_pool_size,
                pool.reserve_pool_size,
            )
        };
        assert_eq!(sizes("u", &db), (PoolMode::Statement, 0, 7, 9));
        assert_eq!(sizes("other", &db), (PoolMode::Transaction, 5, 5, 2));
        assert_eq!(
            sizes("other", &Database::new("x")),
            (PoolMode::Session, 20, 0, 0)
        );
    }

    #[test]
    fn limits_and_times_of_servers() {
        let user = UserSettings {
            max_user_connections: Some(3),
            query_timeout: Some(SECOND),
            ..UserSettings::default()
        };
        let db = Database {
            max_db_connections: Some(4),
            server_lifetime: Some(SECOND),
            ..Database::new("app")
        };
        let mut config = config(&[], &[("u", user)]);
        config.settings.max_db_connections = 8;
        config.settings.transaction_timeout = 2 * SECOND;
        let pool = config.pool_settings(&db, "u");
        assert_eq!((pool.max_db_connections, pool.max_user_connections), (4, 3));
        assert_eq!((pool.server_lifetime, pool.query_timeout), (SECOND, SECOND));
        assert_eq!(pool.transaction_timeout, 2 * SECOND);
        let pool = config.pool_settings(&Database::new("x"), "other");
        assert_eq!((pool.max_db_connections, pool.max_user_connections), (8, 0));
        assert_eq!(pool.server_lifetime, 3600 * SECOND);
    }

    #[test]
    fn what_a_login_user_has_of_its_own_touches_nobody_else() {
        let user = UserSettings {
            client_idle_timeout: Some(SECOND),
            query_wait_timeout: Some(Duration::ZERO),
            ..UserSettings::default()
        };
        let db = Database {
            query_wait_timeout: Some(SECOND),
            ..Database::new("app")
        };
        let config = config(&[], &[("u", user)]);
        let times = |user: &str, db: &Database| {
            let limits = config.client_limits(db, user);
            (limits.client_idle_timeout, limits.query_wait_timeout)
        };
        assert_eq!(times("u", &db), (SECOND, Duration::ZERO));
        assert_eq!(times("other", &db), (Duration::ZERO, SECOND));
        assert_eq!(
            times("other", &Database::new("x")),
            (Duration::ZERO, 120 * SECOND)
        );
    }

    #[test]
    fn the_words_for_queries() {
        let mut config = Config::default();
        let queries = |config: &Config| {
            let pool = config.pool_settings(&Database::new("x"), "u");
            (pool.server_check_query, pool.server_reset_query)
        };
        assert_eq!(
            queries(&config),
            (Some("".into()), Some("DISCARD ALL".into()))
        );
        config.settings.server_check_query = String::new();
        config.settings.server_reset_query = String::new();
        assert_eq!(queries(&config), (None, None));
        config.settings.server_check_query = "select 1".to_owned();
        assert_eq!(queries(&config).0, Some("select 1".into()));
    }

    #[test]
    fn a_database_is_found_or_made() {
        let mut config = config(&[Database::new("app")], &[]);
        assert!(config.database("other").is_none());
        config.autodb = Some(Arc::new(Database {
            port: 7,
            ..Database::new("*")
        }));
        let app = config.database("app").unwrap();
        assert_eq!((app.port, app.auto), (5432, false));
        let made = config.database("other").unwrap();
        assert_eq!(
            (made.server_dbname(), made.port, made.auto),
            ("other", 7, true)
        );
        for impossible in ["pgbouncer", "", &"x".repeat(64)] {
            assert!(config.database(impossible).is_none(), "{impossible}");
        }
    }
}
