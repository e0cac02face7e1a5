//! The entries of `[databases]`, `[users]` and `[peers]`, and the table of their keys.
//!
//! An entry says only what was written; what follows from it together with the global settings is in
//! [`super::effective`]. Connect strings are cut into pairs by [`super::connstr`].

use std::time::Duration;

use super::row::Remark;
use super::secret::Secret;
use super::value::{CONSOLE_DATABASE, Hint, Kind, Raw, Value};
use super::words::{LoadBalanceHosts, PoolMode, UnknownWord};

/// Longest name of a database, in bytes.
pub const DATABASE_NAME_MAX: usize = 63;
/// Longest name of a user, in bytes.
pub const USER_NAME_MAX: usize = 127;
/// Port of a database entry that names none.
pub const SERVER_PORT: u16 = 5432;
/// Port of a peer entry that names none.
pub const PEER_PORT: u16 = 6432;

/// One entry of `[databases]`. `None` means "as the global setting says".
#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    /// The name that clients ask for; `*` for the fallback entry.
    pub name: String,
    /// Whether it was made from the `*` entry for a name that has none of its own.
    pub auto: bool,
    /// The database on the server; `None` = the same name. See [`Database::server_dbname`].
    pub dbname: Option<String>,
    /// Names, addresses or socket directories; empty = the unix socket in `unix_socket_dir`.
    pub hosts: Vec<String>,
    /// One port for all hosts.
    pub port: u16,
    /// The user of every server connection (the "forced user"); `None` = the client's.
    pub user: Option<String>,
    /// The forced user's password; `None` = the one in `auth_file`.
    pub password: Option<Secret>,
    /// User who runs auth_query.
    pub auth_user: Option<String>,
    /// Query that looks up secrets.
    pub auth_query: Option<String>,
    /// Entry in which auth_query runs.
    pub auth_dbname: Option<String>,
    /// Most server connections per pool; 0 = unlimited.
    pub pool_size: Option<u32>,
    /// Server connections that a pool in use keeps open.
    pub min_pool_size: Option<u32>,
    /// Server connections beyond the pool size.
    pub reserve_pool_size: Option<u32>,
    /// When a server connection goes back to the pool.
    pub pool_mode: Option<PoolMode>,
    /// Most server connections of the database; never 0.
    pub max_db_connections: Option<u32>,
    /// Most clients of the database; never 0.
    pub max_db_client_connections: Option<u32>,
    /// Age at which unused server connections are closed; never zero.
    pub server_lifetime: Option<Duration>,
    /// Longest wait for a server connection; zero = for ever.
    pub query_wait_timeout: Option<Duration>,
    /// Query run on every new server connection.
    pub connect_query: Option<String>,
    /// Which of several hosts is next.
    pub load_balance_hosts: LoadBalanceHosts,
    /// Start-up parameter of server connections.
    pub client_encoding: Option<String>,
    /// Start-up parameter of server connections.
    pub datestyle: Option<String>,
    /// Start-up parameter of server connections.
    pub timezone: Option<String>,
    /// Start-up parameter of server connections.
    pub application_name: Option<String>,
}

impl Database {
    /// The entry `name =`, with nothing said.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            auto: false,
            dbname: None,
            hosts: Vec::new(),
            port: SERVER_PORT,
            user: None,
            password: None,
            auth_user: None,
            auth_query: None,
            auth_dbname: None,
            pool_size: None,
            min_pool_size: None,
            reserve_pool_size: None,
            pool_mode: None,
            max_db_connections: None,
            max_db_client_connections: None,
            server_lifetime: None,
            query_wait_timeout: None,
            connect_query: None,
            load_balance_hosts: LoadBalanceHosts::default(),
            client_encoding: None,
            datestyle: None,
            timezone: None,
            application_name: None,
        }
    }

    /// The database to ask the server for.
    pub fn server_dbname(&self) -> &str {
        self.dbname.as_deref().unwrap_or(&self.name)
    }

    /// The database that a client gets who asks for `name` and meets this `*` entry.
    pub fn for_name(&self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            auto: true,
            ..self.clone()
        }
    }

    /// Whether server connections made for `other` are of no use for this entry, so that a reload closes them.
    /// Unlike in PgBouncer a new password counts: the old one may have been withdrawn.
    pub fn connect_differs(&self, other: &Self) -> bool {
        self.server_dbname() != other.server_dbname()
            || self.hosts != other.hosts
            || self.port != other.port
            || self.user != other.user
            || self.password != other.password
            || self.connect_query != other.connect_query
            || self.auth_dbname != other.auth_dbname
            || self.auth_query != other.auth_query
            || self.load_balance_hosts != other.load_balance_hosts
    }
}

/// One entry of `[users]`. `None` means "as the database or the global setting says".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserSettings {
    /// When a server connection goes back to the pool.
    pub pool_mode: Option<PoolMode>,
    /// Most server connections per pool; 0 = unlimited.
    pub pool_size: Option<u32>,
    /// Server connections beyond the pool size.
    pub reserve_pool_size: Option<u32>,
    /// Most server connections of the user; never 0.
    pub max_user_connections: Option<u32>,
    /// Most clients of the user; never 0.
    pub max_user_client_connections: Option<u32>,
    /// Longest query; never zero.
    pub query_timeout: Option<Duration>,
    /// Longest wait for a server connection; zero = for ever.
    pub query_wait_timeout: Option<Duration>,
    /// Longest idle time inside a transaction; never zero.
    pub idle_transaction_timeout: Option<Duration>,
    /// Longest transaction; never zero.
    pub transaction_timeout: Option<Duration>,
    /// Longest idle time of a client; never zero.
    pub client_idle_timeout: Option<Duration>,
}

/// One entry of `[peers]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peer {
    /// Name, address or socket directory.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Most cancel requests under way; `None` = default_pool_size.
    pub pool_size: Option<u32>,
}

impl Peer {
    /// An entry with nothing said yet.
    pub fn new() -> Self {
        Self {
            port: PEER_PORT,
            ..Self::default()
        }
    }
}

/// One key of an entry of type `E`.
pub struct Key<E: 'static> {
    /// The key, as it is written in files.
    pub name: &'static str,
    /// Another name that PgBouncer takes for the same.
    pub alias: Option<&'static str>,
    /// What is to be known about it when coming from PgBouncer.
    pub remark: Option<Remark>,
    /// One line for people.
    pub help: &'static str,
    pub(super) set: fn(&mut E, &Raw) -> Result<(), Hint>,
}

/// The row of a key.
pub fn find_key<E>(keys: &'static [Key<E>], name: &str) -> Option<&'static Key<E>> {
    keys.iter()
        .find(|key| key.name == name || key.alias == Some(name))
}

/// A row: key, field, how it is read, help, and what else there is to say.
macro_rules! key {
    ($name:literal, $field:ident, $read:path, $help:literal $(, $extra:ident: $value:expr)?) => {
        Key {
            name: $name,
            help: $help,
            set: |entry, raw| {
                entry.$field = $read(raw)?;
                Ok(())
            },
            alias: key!(@alias $($extra: $value)?),
            remark: key!(@remark $($extra: $value)?),
        }
    };
    (@alias alias: $value:expr) => { Some($value) };
    (@alias $($other:tt)*) => { None };
    (@remark remark: $value:expr) => { Some($value) };
    (@remark $($other:tt)*) => { None };
}

/// The keys of `[databases]` entries.
pub static DATABASE_KEYS: &[Key<Database>] = &[
    key!("dbname", dbname, text, "Database on the server."),
    key!(
        "host",
        hosts,
        hosts,
        "Where the servers are: names, addresses or socket directories."
    ),
    key!("port", port, port, "Port of the servers."),
    key!("user", user, text, "User of all server connections."),
    key!("password", password, secret, "Password of that user."),
    key!("auth_user", auth_user, text, "User who runs auth_query."),
    key!(
        "auth_query",
        auth_query,
        text,
        "Query that looks up secrets."
    ),
    key!(
        "auth_dbname",
        auth_dbname,
        auth_dbname,
        "Entry in which auth_query runs."
    ),
    key!(
        "pool_size",
        pool_size,
        size,
        "Most server connections per pool; 0 = unlimited."
    ),
    key!(
        "min_pool_size",
        min_pool_size,
        size,
        "Server connections that a pool in use keeps open."
    ),
    key!("reserve_pool_size", reserve_pool_size, size, "Server connections beyond the pool size.", alias: "reserve_pool"),
    key!(
        "pool_mode",
        pool_mode,
        pool_mode,
        "When a server connection goes back to the pool."
    ),
    key!(
        "max_db_connections",
        max_db_connections,
        limit,
        "Most server connections of the database."
    ),
    key!(
        "max_db_client_connections",
        max_db_client_connections,
        limit,
        "Most clients of the database."
    ),
    key!(
        "server_lifetime",
        server_lifetime,
        timeout,
        "Close unused server connections that are this old."
    ),
    key!(
        "query_wait_timeout",
        query_wait_timeout,
        wait,
        "Longest wait for a server connection; 0 = for ever."
    ),
    key!(
        "connect_query",
        connect_query,
        text,
        "Query run on every new server connection."
    ),
    key!(
        "load_balance_hosts",
        load_balance_hosts,
        balance,
        "Which of several hosts is next."
    ),
    key!(
        "client_encoding",
        client_encoding,
        text,
        "Start-up parameter of server connections."
    ),
    key!(
        "datestyle",
        datestyle,
        text,
        "Start-up parameter of server connections."
    ),
    key!(
        "timezone",
        timezone,
        text,
        "Start-up parameter of server connections."
    ),
    key!(
        "application_name",
        application_name,
        text,
        "Start-up parameter of server connections."
    ),
];

/// The keys of `[users]` entries.
pub static USER_KEYS: &[Key<UserSettings>] = &[
    key!(
        "pool_mode",
        pool_mode,
        pool_mode,
        "When a server connection goes back to the pool."
    ),
    key!(
        "pool_size",
        pool_size,
        size,
        "Most server connections per pool; 0 = unlimited."
    ),
    key!(
        "reserve_pool_size",
        reserve_pool_size,
        size,
        "Server connections beyond the pool size."
    ),
    key!(
        "max_user_connections",
        max_user_connections,
        limit,
        "Most server connections of the user."
    ),
    key!(
        "max_user_client_connections",
        max_user_client_connections,
        limit,
        "Most clients of the user."
    ),
    key!("query_timeout", query_timeout, timeout, "Longest query."),
    key!(
        "query_wait_timeout",
        query_wait_timeout,
        wait,
        "Longest wait for a server connection; 0 = for ever."
    ),
    key!(
        "idle_transaction_timeout",
        idle_transaction_timeout,
        timeout,
        "Longest idle time inside a transaction."
    ),
    key!(
        "transaction_timeout",
        transaction_timeout,
        timeout,
        "Longest transaction."
    ),
    key!(
        "client_idle_timeout",
        client_idle_timeout,
        timeout,
        "Longest idle time of a client."
    ),
];

/// The keys of `[peers]` entries.
pub static PEER_KEYS: &[Key<Peer>] = &[
    key!("host", host, one_host, "Where the peer is."),
    key!("port", port, port, "Port of the peer."),
    key!(
        "pool_size",
        pool_size,
        size,
        "Most cancel requests under way."
    ),
];

/// Text that is there: an empty value would look like "not set" and mean something else.
fn some_text(raw: &Raw) -> Result<&str, Hint> {
    match raw.text()? {
        "" => Err("an empty value; leave the key out".into()),
        text => Ok(text),
    }
}

fn text(raw: &Raw) -> Result<Option<String>, Hint> {
    some_text(raw).map(|text| Some(text.to_owned()))
}

fn secret(raw: &Raw) -> Result<Option<Secret>, Hint> {
    some_text(raw).map(|text| Some(Secret::from(text)))
}

fn auth_dbname(raw: &Raw) -> Result<Option<String>, Hint> {
    Value::read(raw, Kind::DatabaseName)
}

fn hosts(raw: &Raw) -> Result<Vec<String>, Hint> {
    let names: Vec<String> = match raw {
        Raw::List(items) => items.clone(),
        _ => some_text(raw)?
            .split(',')
            .map(|name| name.trim().to_owned())
            .collect(),
    };
    match names.iter().any(String::is_empty) {
        true => Err("an empty name in the list of hosts".into()),
        false => Ok(names),
    }
}

fn one_host(raw: &Raw) -> Result<String, Hint> {
    some_text(raw).map(str::to_owned)
}

fn port(raw: &Raw) -> Result<u16, Hint> {
    match raw.decimal().map(u16::try_from) {
        Ok(Ok(port)) if port > 0 => Ok(port),
        _ => Err("1 to 65535 is expected".into()),
    }
}

fn pool_mode(raw: &Raw) -> Result<Option<PoolMode>, Hint> {
    Value::read(raw, Kind::Word(PoolMode::WORDS)).map(Some)
}

fn balance(raw: &Raw) -> Result<LoadBalanceHosts, Hint> {
    raw.text()?
        .parse()
        .map_err(|unknown: UnknownWord| unknown.to_string().into())
}

/// A number in which anything below 0 means "not set".
fn size(raw: &Raw) -> Result<Option<u32>, Hint> {
    let number = raw.decimal()?;
    if number < 0 {
        return Ok(None);
    }
    match i32::try_from(number) {
        Ok(number) => Ok(Some(number.unsigned_abs())),
        Err(_) => Err(format!("0 to {} is expected", i32::MAX).into()),
    }
}

/// A number in which 0 and anything below mean "not set".
fn limit(raw: &Raw) -> Result<Option<u32>, Hint> {
    Ok(size(raw)?.filter(|&number| number > 0))
}

/// A time in which 0 means "not set".
fn timeout(raw: &Raw) -> Result<Option<Duration>, Hint> {
    Ok(wait(raw)?.filter(|time| !time.is_zero()))
}

/// A time in which 0 means "for ever" and -1 "not set".
fn wait(raw: &Raw) -> Result<Option<Duration>, Hint> {
    if raw.decimal() == Ok(-1) {
        return Ok(None);
    }
    raw.time().map(Some)
}

/// Whether `name` can be the name of a database entry, or of a database that a client asks for.
///
/// # Errors
/// The reason for which it cannot, in PgBouncer's words.
pub fn check_database_name(name: &str) -> Result<(), String> {
    if name == CONSOLE_DATABASE {
        return Err(format!("database name \"{name}\" is reserved"));
    }
    if name.len() > DATABASE_NAME_MAX {
        return Err(format!("too long db name: {name}"));
    }
    if name.is_empty() {
        return Err("empty database name".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry from `key=value` pairs, each refused key reported by name.
    fn database(pairs: &[(&'static str, &str)]) -> Result<Database, &'static str> {
        let mut entry = Database::new("app");
        for (name, value) in pairs {
            let key = find_key(DATABASE_KEYS, name).ok_or(*name)?;
            (key.set)(&mut entry, &Raw::plain(value)).map_err(|_| *name)?;
        }
        Ok(entry)
    }

    #[test]
    fn keys_are_unique() {
        fn names<E>(keys: &[Key<E>]) -> Vec<&str> {
            keys.iter()
                .flat_map(|key| std::iter::once(key.name).chain(key.alias))
                .collect()
        }
        for mut list in [names(DATABASE_KEYS), names(USER_KEYS), names(PEER_KEYS)] {
            let count = list.len();
            list.sort_unstable();
            list.dedup();
            assert_eq!(list.len(), count);
        }
    }

    #[test]
    fn a_full_entry() {
        let entry = database(&[
            ("host", "a, b"),
            ("port", "5433"),
            ("reserve_pool", "3"),
            ("pool_mode", "Transaction"),
            ("password", "p"),
            ("query_wait_timeout", "0"),
        ])
        .unwrap();
        assert_eq!(entry.hosts, ["a", "b"]);
        assert_eq!((entry.port, entry.reserve_pool_size), (5433, Some(3)));
        assert_eq!(entry.pool_mode, Some(PoolMode::Transaction));
        assert_eq!(entry.password, Some(Secret::from("p")));
        assert_eq!(entry.query_wait_timeout, Some(Duration::ZERO));
        assert!(!format!("{entry:?}").contains("\"p\""));
    }

    #[test]
    fn not_set_is_written_in_several_ways() {
        for (key, value) in [
            ("pool_size", "-1"),
            ("max_db_connections", "0"),
            ("max_db_connections", "-1"),
            ("server_lifetime", "0"),
            ("query_wait_timeout", "-1"),
        ] {
            assert_eq!(
                database(&[(key, value)]),
                Ok(Database::new("app")),
                "{key}={value}"
            );
        }
        assert_eq!(
            database(&[("pool_size", "0")]).map(|e| e.pool_size),
            Ok(Some(0))
        );
    }

    #[test]
    fn garbage_is_refused_where_pgbouncer_takes_it_for_zero() {
        for (key, value) in [
            ("port", "0"),
            ("port", "99999"),
            ("port", "x"),
            ("pool_size", "2O"),
            ("pool_size", "99999999999"),
            ("host", "a,,b"),
            ("pool_mode", "sess"),
            ("load_balance_hosts", "random"),
            ("auth_dbname", "pgbouncer"),
            ("query_wait_timeout", "-2"),
            ("user", ""),
        ] {
            assert_eq!(database(&[(key, value)]), Err(key), "{key}={value}");
        }
    }

    #[test]
    fn only_what_reaches_the_server_recycles_connections() {
        let entry = database(&[("host", "a")]).unwrap();
        let differs =
            |pairs: &[(&'static str, &str)]| entry.connect_differs(&database(pairs).unwrap());
        assert!(!differs(&[
            ("host", "a"),
            ("pool_size", "5"),
            ("timezone", "UTC"),
            ("pool_mode", "session")
        ]));
        assert!(!differs(&[("host", "a"), ("dbname", "app")]));
        for changed in [
            ("dbname", "x"),
            ("port", "1"),
            ("user", "u"),
            ("password", "p"),
            ("load_balance_hosts", "disable"),
        ] {
            assert!(differs(&[("host", "a"), changed]), "{changed:?}");
        }
        assert!(differs(&[("host", "b")]));
    }

    #[test]
    fn names_of_databases() {
        assert!(check_database_name("pgbouncer").is_err());
        assert!(check_database_name("").is_err());
        assert!(check_database_name(&"x".repeat(63)).is_ok());
        assert!(check_database_name(&"x".repeat(64)).is_err());
    }
}
