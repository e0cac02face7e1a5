//! The table of settings: every setting of the main section once, with type, default, range, when it can change,
//! where else it may stand, and a line of help.
//!
//! From it come [`Settings`], both file readers, the `PGWEIR_…` variables, SHOW CONFIG, SET and `pgweir check`. Names
//! and defaults are PgBouncer 1.26's, in the order of its SHOW CONFIG; our own are additions. What a row means is in
//! [`super::row`]; the keys of `[databases]`, `[users]` and `[peers]` entries are in [`super::entry`].

use std::path::PathBuf;
use std::time::Duration;

use super::row::{Remark, Scope, Setting, settings};
use super::secret::LdapText;
use super::value::{Kind, Value};
use super::words::{AuthType, LogFormat, OnTerm, PoolMode, SslMode, TlsProtocols};

/// A number of things, 0 or more.
const COUNT: Kind = Kind::Int {
    min: 0,
    max: i32::MAX as u32,
};
/// A TCP port; 0 lets the system choose one.
const PORT: Kind = Kind::Int {
    min: 0,
    max: u16::MAX as u32,
};
/// Our own SCRAM iterations; the same bound that we put on servers.
const ITERATIONS: Kind = Kind::Int {
    min: 1,
    max: 1_000_000,
};
/// Whole seconds; 0 is off or the system's own.
const SECONDS: Kind = Kind::Seconds { min: 0 };
/// A period in whole seconds.
const PERIOD: Kind = Kind::Seconds { min: 1 };
/// A buffer; 0 is the system's own.
const BUFFER: Kind = Kind::Bytes {
    min: 0,
    max: i32::MAX as u32,
};
/// The length of a message.
const PACKET: Kind = Kind::Bytes {
    min: 1,
    max: u32::MAX,
};
/// More threads than this help nobody.
const WORKERS: Kind = Kind::Int { min: 0, max: 1024 };

const POOL_MODES: Kind = Kind::Word(PoolMode::WORDS);
const AUTH_TYPES: Kind = Kind::Word(AuthType::WORDS);
const LOG_FORMATS: Kind = Kind::Word(LogFormat::WORDS);
const SHUTDOWN_MODES: Kind = Kind::Word(OnTerm::WORDS);
const SSL_MODES: Kind = Kind::Word(SslMode::WORDS);

const DEFER_ACCEPT: &str = if cfg!(target_os = "linux") { "1" } else { "0" };
const AUTH_QUERY: &str = "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END \
                          FROM pg_authid WHERE rolname=$1 AND rolcanlogin";

settings! {
    /// The settings of the main section, one typed field each, named as in the file.
    ///
    /// A time of 0 means "off" or "for ever", as PgBouncer documents it for the setting; a limit of 0 means
    /// "unlimited".
    Settings,
    /// Every setting, in the order of SHOW CONFIG.
    SETTINGS:

    /// Users who may log in to the console and run every command.
    admin_users: Vec<String>, Kind::List, "", live;
    /// Append the client's address to application_name at connect.
    application_name_add_host: bool, Kind::Flag, "0", live;
    /// Database entry in which auth_query runs.
    auth_dbname: Option<String>, Kind::DatabaseName, unset, live;
    /// File of users and their secrets.
    auth_file: Option<PathBuf>, Kind::Path, unset, live;
    /// Rules for auth_type=hba.
    auth_hba_file: Option<PathBuf>, Kind::Path, "", live;
    /// Maps from system users to database users, for auth_type=hba.
    auth_ident_file: Option<PathBuf>, Kind::Path, unset, live;
    /// Connection options for auth_type=ldap.
    auth_ldap_options: Option<LdapText>, Kind::Text, unset, live;
    /// Query that looks up the secret of a user who is not in auth_file.
    auth_query: String, Kind::Text, AUTH_QUERY, live;
    /// How clients prove who they are.
    auth_type: AuthType, AUTH_TYPES, "md5", live;
    /// User who runs auth_query.
    auth_user: Option<String>, Kind::Text, unset, live;
    /// Forget databases made from `*` when unused this long; 0 = never.
    autodb_idle_timeout: Duration, Kind::Time, "3600", live;
    /// Longest wait of a cancel request for a server connection; 0 = for ever.
    cancel_wait_timeout: Duration, Kind::Time, "10", live;
    /// Close clients that are idle this long; 0 = never.
    client_idle_timeout: Duration, Kind::Time, "0", live, in [User];
    /// Longest login of a client; 0 = for ever.
    client_login_timeout: Duration, Kind::Time, "60", live;
    /// TLS 1.3 cipher suites for clients.
    client_tls13_ciphers: Option<String>, Kind::Text, unset, live,
        remark Differs("suites that are not strong do not exist here: they are left out, and named in the log and by check");
    /// Authorities that client certificates are checked against.
    client_tls_ca_file: Option<PathBuf>, Kind::Path, "", live;
    /// Certificate shown to clients.
    client_tls_cert_file: Option<PathBuf>, Kind::Path, "", live;
    /// TLS 1.2 ciphers for clients, in OpenSSL's words.
    client_tls_ciphers: String, Kind::Text, "default", live,
        remark Differs("suites that are not strong do not exist here: they are left out, and named in the log and by check");
    /// DHE parameters: none or auto.
    client_tls_dheparams: String, Kind::Word(&["none", "auto"]), "auto", live,
        remark Ignored("key exchange is always over elliptic curves");
    /// Curve for ECDH key exchange: none, auto, or a name.
    client_tls_ecdhcurve: String, Kind::Text, "auto", live,
        remark Differs("there are X25519, P-256 and P-384; for any other name all three are offered, and the log and check say so");
    /// Key of the certificate shown to clients.
    client_tls_key_file: Option<PathBuf>, Kind::Path, "", live;
    /// TLS versions for clients.
    client_tls_protocols: TlsProtocols, Kind::Protocols, "secure", live;
    /// TLS with clients.
    client_tls_sslmode: SslMode, SSL_MODES, "disable", live;
    /// Configuration file that the next reload reads.
    conffile: Option<PathBuf>, Kind::Path, unset, live;
    /// Most server connections of a pool; 0 = unlimited.
    default_pool_size: u32, COUNT, "20", live;
    /// Refuse the simple query protocol.
    disable_pqexec: bool, Kind::Flag, "0", start;
    /// How long a resolved name is kept at most; its record's own time counts if it is shorter.
    dns_max_ttl: Duration, Kind::Time, "15", live;
    /// How long a failed lookup is kept.
    dns_nxdomain_ttl: Duration, Kind::Time, "15", live;
    /// Period of looking at zone serials; 0 = off.
    dns_zone_check_period: Duration, Kind::Time, "0", live;
    /// Longest drain, from the order to its end; 0 = as long as clients have transactions to finish.
    drain_deadline: Duration, Kind::Time, "25", live;
    /// How long a drain goes on listening, for load balancers that have not noticed yet.
    drain_lame_duck: Duration, Kind::Time, "5", live;
    /// Close clients that are idle inside a transaction this long; 0 = never.
    idle_transaction_timeout: Duration, Kind::Time, "0", live, in [User];
    /// Start-up parameters of clients that are swallowed.
    ignore_startup_parameters: Vec<String>, Kind::List, "", live;
    /// Name of the Windows service.
    job_name: String, Kind::Text, "pgbouncer", start,
        remark Ignored("it names a Windows service");
    /// Addresses to listen on; `*` = all, empty = no TCP.
    listen_addr: Vec<String>, Kind::List, "", start;
    /// Connections that the kernel queues for us.
    listen_backlog: u32, COUNT, "128", start;
    /// Port to listen on, also in the name of the unix socket.
    listen_port: u16, PORT, "6432", start;
    /// Log logins.
    log_connections: bool, Kind::Flag, "1", live;
    /// Log disconnections with their reasons.
    log_disconnections: bool, Kind::Flag, "1", live;
    /// What lines of the log look like: pgbouncer, or json.
    log_format: LogFormat, LOG_FORMATS, "pgbouncer", live;
    /// Log errors sent to clients.
    log_pooler_errors: bool, Kind::Flag, "1", live;
    /// Log statistics every stats_period.
    log_stats: bool, Kind::Flag, "1", live;
    /// File to append the log to.
    logfile: Option<PathBuf>, Kind::Path, "", live;
    /// Notice sent to every client after login.
    login_notify_message: String, Kind::Text, "", live;
    /// Most client connections, those still logging in included.
    max_client_conn: u32, COUNT, "100", live;
    /// Most clients of a database; 0 = unlimited.
    max_db_client_connections: u32, COUNT, "0", live, in [Database];
    /// Most server connections of a database; 0 = unlimited.
    max_db_connections: u32, COUNT, "0", live, in [Database];
    /// Longest message let through.
    max_packet_size: u32, PACKET, "2147483647", live;
    /// Prepared statements kept on a server connection; 0 = not tracked.
    max_prepared_statements: u32, COUNT, "200", live;
    /// Most clients of a user; 0 = unlimited.
    max_user_client_connections: u32, COUNT, "0", live, in [User];
    /// Most server connections of a user; 0 = unlimited.
    max_user_connections: u32, COUNT, "0", live, in [User];
    /// Addresses to serve metrics, health and the status page on; `*` = all.
    metrics_addr: Vec<String>, Kind::List, "127.0.0.1", live;
    /// Port for metrics, health and the status page; 0 = off.
    metrics_port: u16, PORT, "0", live;
    /// Server connections that a pool in use keeps open.
    min_pool_size: u32, COUNT, "0", live, in [Database];
    /// Number of this process in a group of peers; 0 = none.
    peer_id: u16, PORT, "0", live;
    /// File for the process id.
    pidfile: Option<PathBuf>, Kind::Path, "", start;
    /// Size of stream buffers.
    pkt_buf: u32, BUFFER, "4096", start,
        remark Ignored("buffers belong to the worker threads and have a size of their own");
    /// Forget pools that are empty this long; 0 = never.
    pool_idle_timeout: Duration, Kind::Time, "0", live;
    /// When a server connection goes back to the pool.
    pool_mode: PoolMode, POOL_MODES, "session", live, in [Database, User];
    /// Longest query; 0 = unlimited.
    query_timeout: Duration, Kind::Time, "0", live, in [User];
    /// Tell a client that waits for a server connection this long; 0 = never.
    query_wait_notify: Duration, SECONDS, "5", live;
    /// Longest wait for a server connection; 0 = for ever.
    query_wait_timeout: Duration, Kind::Time, "120", live, in [Database, User];
    /// Period of looking whether any file that a reload reads has changed, and reloading then; 0 = off.
    reload_watch: Duration, Kind::Time, "0", live;
    /// Server connections beyond the pool size, for clients that waited reserve_pool_timeout.
    reserve_pool_size: u32, COUNT, "0", live, in [Database, User];
    /// Wait after which a client may use the reserve; 0 = reserve off.
    reserve_pool_timeout: Duration, Kind::Time, "5", live;
    /// Resolver configuration instead of the system's.
    resolv_conf: Option<PathBuf>, Kind::Path, "", start;
    /// Reads of a socket before others get their turn.
    sbuf_loopcnt: u32, COUNT, "5", live,
        remark Ignored("the worker threads share time between connections by themselves");
    /// Iterations of SCRAM secrets made from plain passwords.
    scram_iterations: u32, ITERATIONS, "4096", live;
    /// Check server connections that were idle longer than this; 0 = always.
    server_check_delay: Duration, Kind::Time, "30", live;
    /// Query for that check; `<empty>` = an empty query, nothing = no check.
    server_check_query: String, Kind::Text, "<empty>", live;
    /// Longest connect and login to a server.
    server_connect_timeout: Duration, Kind::Time, "15", live;
    /// Session mode: close servers marked for closing between transactions.
    server_fast_close: bool, Kind::Flag, "0", live;
    /// Close server connections that are idle this long; 0 = never.
    server_idle_timeout: Duration, Kind::Time, "600", live;
    /// Close unused server connections that are this old; 0 = use once.
    server_lifetime: Duration, Kind::Time, "3600", live, in [Database];
    /// Pause after a failed connect or login to a server.
    server_login_retry: Duration, Kind::Time, "15", live;
    /// Query that cleans a server connection when its session ends; empty = none.
    server_reset_query: String, Kind::Text, "DISCARD ALL", live;
    /// Run server_reset_query in every pool mode.
    server_reset_query_always: bool, Kind::Flag, "0", live;
    /// Use server connections in turn, instead of the last used first.
    server_round_robin: bool, Kind::Flag, "0", live;
    /// TLS 1.3 cipher suites for servers.
    server_tls13_ciphers: Option<String>, Kind::Text, unset, live,
        remark Differs("suites that are not strong do not exist here: they are left out, and named in the log and by check");
    /// Authorities that server certificates are checked against; empty = the system's.
    server_tls_ca_file: Option<PathBuf>, Kind::Path, "", live;
    /// Certificate shown to servers.
    server_tls_cert_file: Option<PathBuf>, Kind::Path, "", live;
    /// TLS 1.2 ciphers for servers, in OpenSSL's words.
    server_tls_ciphers: String, Kind::Text, "default", live,
        remark Differs("suites that are not strong do not exist here: they are left out, and named in the log and by check");
    /// Key of the certificate shown to servers.
    server_tls_key_file: Option<PathBuf>, Kind::Path, "", live;
    /// TLS versions for servers.
    server_tls_protocols: TlsProtocols, Kind::Protocols, "secure", live;
    /// TLS with servers.
    server_tls_sslmode: SslMode, SSL_MODES, "prefer", live;
    /// What SIGTERM does: wait for the clients to leave (pgbouncer), or drain.
    shutdown_mode: OnTerm, SHUTDOWN_MODES, "pgbouncer", live;
    /// Let other processes listen on the same port.
    so_reuseport: bool, Kind::Flag, "0", start;
    /// Period of averages and of the statistics in the log.
    stats_period: Duration, PERIOD, "60", live;
    /// Users who may log in to the console and run SHOW.
    stats_users: Vec<String>, Kind::List, "", live;
    /// Log to syslog.
    syslog: bool, Kind::Flag, "0", live;
    /// Syslog facility: auth, authpriv, daemon, user, local0 to local7.
    syslog_facility: String, Kind::Text, "daemon", live;
    /// Name in syslog.
    syslog_ident: String, Kind::Text, "pgbouncer", live;
    /// Let the kernel wait for a client's first bytes.
    tcp_defer_accept: bool, Kind::Flag, DEFER_ACCEPT, live;
    /// Keep-alive probes on TCP connections.
    tcp_keepalive: bool, Kind::Flag, "1", live;
    /// Probes before a connection counts as dead; 0 = the system's default.
    tcp_keepcnt: u32, COUNT, "0", live;
    /// Idle time before the first probe; 0 = the system's default.
    tcp_keepidle: Duration, SECONDS, "0", live;
    /// Time between probes; 0 = the system's default.
    tcp_keepintvl: Duration, SECONDS, "0", live;
    /// Send and receive buffer of sockets; 0 = the system's default.
    tcp_socket_buffer: u32, BUFFER, "0", live;
    /// Longest time that sent data may stay unacknowledged; 0 = the system's default.
    tcp_user_timeout: Duration, Kind::Millis, "0", live;
    /// Parameters restored on server connections besides those that PostgreSQL reports.
    track_extra_parameters: Vec<String>, Kind::List, "", start;
    /// Longest transaction; 0 = unlimited.
    transaction_timeout: Duration, Kind::Time, "0", live, in [User];
    /// Directory of the unix socket, also for servers without a host; `@` = abstract, empty = none.
    unix_socket_dir: Option<PathBuf>, Kind::Path, "/tmp", start;
    /// Group of the unix socket.
    unix_socket_group: Option<String>, Kind::Text, "", start;
    /// Mode of the unix socket.
    unix_socket_mode: u32, Kind::Mode, "0777", start;
    /// System user to become after start.
    user: Option<String>, Kind::Text, unset, start;
    /// More messages in the log: 1 = debug, 2 and up = everything.
    verbose: u32, COUNT, unset, live;
    /// Worker threads; 0 = as many as the cores that this process may use.
    workers: u32, WORKERS, "0", start;
}

/// Settings that PgBouncer once had, and when they went.
pub const RETIRED: &[(&str, &str)] =
    &[("suspend_timeout", "removed in PgBouncer 1.26, with SUSPEND")];

/// The row of a setting; names are case-sensitive.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS
        .binary_search_by(|row| row.name.cmp(name))
        .ok()
        .map(|at| &SETTINGS[at])
}

#[cfg(test)]
mod tests {
    use super::super::value::Raw;
    use super::*;

    #[test]
    fn names_are_unique_and_sorted_as_in_show_config() {
        assert!(SETTINGS.windows(2).all(|pair| pair[0].name < pair[1].name));
    }

    #[test]
    fn every_name_is_found() {
        for row in SETTINGS {
            assert_eq!(find(row.name).map(|found| found.name), Some(row.name));
        }
        assert!(find("POOL_MODE").is_none());
        assert!(find("suspend_timeout").is_none());
    }

    #[test]
    fn every_default_reads_and_is_the_value_of_fresh_settings() {
        let fresh = Settings::default();
        for row in SETTINGS {
            let mut settings = Settings::default();
            if let Some(default) = row.default {
                assert_eq!(
                    row.read(&mut settings, &Raw::plain(default)),
                    Ok(()),
                    "{}",
                    row.name
                );
            }
            assert_eq!(settings, fresh, "{}", row.name);
        }
    }

    #[test]
    fn every_value_shown_reads_back_as_itself() {
        let fresh = Settings::default();
        for row in SETTINGS {
            let mut settings = Settings::default();
            if let Some(text) = row.text(&fresh) {
                assert_eq!(
                    row.read(&mut settings, &Raw::plain(&text)),
                    Ok(()),
                    "{}",
                    row.name
                );
            }
            assert_eq!(settings, fresh, "{}", row.name);
        }
    }

    #[test]
    fn every_row_has_one_line_of_help() {
        for row in SETTINGS {
            assert!(
                !row.help().is_empty() && row.help().len() < 100,
                "{}",
                row.name
            );
            assert!(row.help().ends_with('.'), "{}", row.name);
            assert!(!row.kind.describe().is_empty());
        }
    }

    #[test]
    fn values_are_shown_as_by_pgbouncer() {
        let fresh = Settings::default();
        let shown = |name: &str| find(name).and_then(|row| row.text(&fresh));
        for (name, expected) in [
            ("server_lifetime", Some("3600")),
            ("unix_socket_mode", Some("511")),
            ("auth_file", None),
            ("auth_hba_file", Some("")),
            ("verbose", Some("0")),
            ("conffile", None),
            ("user", None),
            ("pool_mode", Some("session")),
            ("server_check_query", Some("<empty>")),
            ("tcp_keepalive", Some("1")),
        ] {
            assert_eq!(shown(name).as_deref(), expected, "{name}");
        }
    }
}
