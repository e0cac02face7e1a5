//! What a configuration is turned into: TLS, secrets, socket options.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::InForce;
use crate::auth::hba::Hba;
use crate::auth::scram::MockSeed;
use crate::auth::{AuthFile, LdapOptions};
use crate::client::login::ldap::Directory;
use crate::client::login::pam::Pam;
use crate::client::login::{Desk, Referees};
use crate::config::{AuthType, Config, LdapText, LogFormat, Settings};
use crate::logs::{Facility, LogOptions, SyslogOptions};
use crate::net::dns::{Resolver, Rules};
use crate::net::listen::ListenOptions;
use crate::net::options::TcpOptions;
use crate::net::tls::{ClientTls, Expiry, ServerTls, SslMode, TlsSettings};
use crate::pool::recipe::Blueprint;
use crate::server::params::Tracked;

/// What stays the same over reloads.
pub struct Constants {
    /// Names of the tracked parameters.
    pub tracked: Arc<Tracked>,
    /// From which unknown users' exchanges are made up.
    pub mock: Arc<MockSeed>,
    /// Who knows the addresses of host names.
    pub dns: Resolver,
}

/// How long what is known of host names is good.
pub fn dns_rules(settings: &Settings) -> Rules {
    Rules {
        max_ttl: settings.dns_max_ttl,
        nxdomain_ttl: settings.dns_nxdomain_ttl,
        zone_check_period: settings.dns_zone_check_period,
    }
}

/// Options of TCP sockets.
pub fn tcp_options(settings: &Settings) -> TcpOptions {
    TcpOptions {
        keepalive: settings.tcp_keepalive,
        keepalive_count: settings.tcp_keepcnt,
        keepalive_idle: settings.tcp_keepidle,
        keepalive_interval: settings.tcp_keepintvl,
        user_timeout: settings.tcp_user_timeout,
        socket_buffer_bytes: settings.tcp_socket_buffer as usize,
        defer_accept: settings.tcp_defer_accept,
    }
}

/// Options of listening TCP sockets.
pub fn listen_options(settings: &Settings) -> ListenOptions {
    ListenOptions {
        backlog: settings.listen_backlog,
        reuse_port: settings.so_reuseport,
        tcp: tcp_options(settings),
    }
}

/// Where the log goes. `-q`, `-d` and `-v` win over the file.
pub fn log_options(settings: &Settings, run: &crate::cli::Run) -> LogOptions {
    let ident = settings.syslog_ident.clone();
    let facility = Facility::from_word(&settings.syslog_facility);
    LogOptions {
        quiet: run.quiet || run.daemon,
        logfile: settings.logfile.clone(),
        verbose: run
            .verbose
            .max(u8::try_from(settings.verbose).unwrap_or(u8::MAX)),
        syslog: settings.syslog.then(|| SyslogOptions::new(ident, facility)),
        json: wants_json(settings),
    }
}

/// Whether the log is to be made of JSON objects.
pub fn wants_json(settings: &Settings) -> bool {
    settings.log_format == LogFormat::Json
}

fn tls_settings(settings: &Settings, side: &str) -> TlsSettings {
    let text = |name: &str| {
        settings
            .get_text(&format!("{side}_tls_{name}"))
            .flatten()
            .unwrap_or_default()
    };
    TlsSettings {
        mode: SslMode::from_str(&text("sslmode")).unwrap_or_default(),
        key_file: text("key_file").into(),
        cert_file: text("cert_file").into(),
        ca_file: text("ca_file").into(),
        protocols: text("protocols"),
        ciphers: text("ciphers"),
        tls13_ciphers: text("tls13_ciphers"),
        ecdh_curve: text("ecdhcurve"),
    }
}

/// TLS towards clients, and what of the settings can't be followed.
pub fn client_tls(settings: &Settings) -> Result<Option<ClientTls>, String> {
    let tls =
        ClientTls::load(&tls_settings(settings, "client")).map_err(|error| error.to_string())?;
    warn_of(tls.as_ref().map(ClientTls::remarks));
    warn_of_expiry(tls.as_ref().map(ClientTls::expiries));
    Ok(tls)
}

/// TLS towards servers, and what of the settings can't be followed.
pub fn server_tls(settings: &Settings) -> Result<Option<ServerTls>, String> {
    let tls =
        ServerTls::load(&tls_settings(settings, "server")).map_err(|error| error.to_string())?;
    warn_of(tls.as_ref().map(ServerTls::remarks));
    warn_of_expiry(tls.as_ref().map(ServerTls::expiries));
    Ok(tls)
}

/// What of the TLS settings can't be followed here, with the setting of each side to which it belongs.
pub fn tls_remarks(settings: &Settings) -> Vec<(&'static str, String)> {
    let of = |side, place| {
        let remarks = crate::net::tls::remarks(&tls_settings(settings, side));
        remarks.into_iter().map(move |remark| (place, remark))
    };
    of("client", "client_tls_sslmode")
        .chain(of("server", "server_tls_sslmode"))
        .collect()
}

fn warn_of(remarks: Option<&[impl Display]>) {
    for remark in remarks.unwrap_or_default() {
        tracing::warn!("{remark}");
    }
}

/// Certificates that expire within this time are told of.
const EXPIRY_WARNING_S: i64 = 7 * 24 * 3600;

fn warn_of_expiry(expiries: Option<&[Expiry]>) {
    let now = Timestamp::now().as_second();
    for expiry in expiries.unwrap_or_default() {
        if let Some(warning) = expiry_warning(expiry, now) {
            tracing::warn!("{warning}");
        }
    }
}

/// What is to be said of a certificate at `now`, in seconds since the epoch.
fn expiry_warning(expiry: &Expiry, now: i64) -> Option<String> {
    let verb = match expiry.not_after - now {
        ..=0 => "has expired on",
        1..EXPIRY_WARNING_S => "expires on",
        _ => return None,
    };
    let file = expiry.file.display();
    // A certificate may name a year that no calendar has.
    let date = Timestamp::from_second(expiry.not_after).unwrap_or(Timestamp::MIN);
    Some(format!("TLS certificate {file} {verb} {date}"))
}

/// Reads `auth_file`, and lines of the configuration's own.
pub fn users(config: &Config, before: Option<&AuthFile>) -> Result<AuthFile, String> {
    let settings = &config.settings;
    let mut users = AuthFile::default();
    // With PAM it is not even looked at, as in PgBouncer.
    if matches!(settings.auth_type, AuthType::Any | AuthType::Pam) {
        return Ok(users);
    }
    if let Some(path) = &settings.auth_file {
        let bytes = std::fs::read(path).map(Zeroizing::new);
        let bytes = bytes
            .map_err(|error| format!("could not open auth_file {}: {error}", path.display()))?;
        users.add(users_of(&bytes, path)?);
    }
    if let Some(lines) = &config.userlist {
        users.add(users_of(lines.expose().as_bytes(), &config.path)?);
    }
    if let Some(before) = before {
        users.keep_unchanged(before);
    }
    Ok(users)
}

/// Every line must be good: half a file would lock people out, or let somebody in under an old secret.
fn users_of(lines: &[u8], path: &Path) -> Result<AuthFile, String> {
    let (users, problems) = AuthFile::parse(lines);
    for problem in &problems {
        tracing::error!("{} ({}:{})", problem.text, path.display(), problem.line);
    }
    match problems.is_empty() {
        true => Ok(users),
        false => Err("broken auth file".to_owned()),
    }
}

/// Who else is asked about passwords. A mistake in `auth_ldap_options`, or a missing libpam, is found here and not by a client.
fn referees(
    settings: &Settings,
    rules: &Hba,
    dns: &Resolver,
    before: Option<&Referees>,
) -> Result<Referees, String> {
    match settings.auth_type {
        AuthType::Ldap => {
            let options = ldap_options(settings)?;
            let directory = directory(options.wants_tls(), dns, before)?;
            Ok(Referees {
                ldap: Some(Arc::new(options)),
                directory: Some(Arc::new(directory)),
                pam: None,
            })
        }
        AuthType::Hba => {
            let options = || rules.rules().iter().filter_map(|rule| rule.ldap_options());
            if options().next().is_none() {
                return Ok(Referees::default());
            }
            let wants_tls = options().any(LdapOptions::wants_tls);
            Ok(Referees {
                directory: Some(Arc::new(directory(wants_tls, dns, before)?)),
                ..Referees::default()
            })
        }
        AuthType::Pam => {
            let before = before.and_then(|before| before.pam.as_deref());
            let pam = Pam::load(before).map_err(|error| error.to_string())?;
            Ok(Referees {
                pam: Some(Arc::new(pam)),
                ..Referees::default()
            })
        }
        _ => Ok(Referees::default()),
    }
}

/// `auth_ldap_options`, understood.
///
/// # Errors
/// There is a mistake in it.
pub(super) fn ldap_options(settings: &Settings) -> Result<LdapOptions, String> {
    let text = settings.auth_ldap_options.as_ref();
    let options = LdapOptions::parse(text.map_or("", LdapText::expose));
    options.map_err(|error| format!("auth_ldap_options: {error}"))
}

/// The way to LDAP servers. Their certificates are always checked, with their names, against the authorities that OpenLDAP's
/// configuration names, else those of the system.
fn directory(tls: bool, dns: &Resolver, before: Option<&Referees>) -> Result<Directory, String> {
    let ca_file = ldap_ca_file(std::env::var_os(LDAP_CA_VARIABLE), &LDAP_CONF_FILES);
    let tls = TlsSettings {
        mode: if tls {
            SslMode::VerifyFull
        } else {
            SslMode::Disable
        },
        ca_file: ca_file.unwrap_or_default(),
        ..TlsSettings::default()
    };
    let tls = ServerTls::load(&tls).map_err(|error| format!("TLS for LDAP: {error}"))?;
    let before = before.and_then(|before| before.directory.as_deref());
    Ok(Directory::new(tls, dns.clone(), before))
}

/// Where OpenLDAP's library, and so PgBouncer, looks for authorities: first in this variable, then in the system's `ldap.conf`.
const LDAP_CA_VARIABLE: &str = "LDAPTLS_CACERT";
const LDAP_CONF_FILES: [&str; 2] = ["/etc/ldap/ldap.conf", "/etc/openldap/ldap.conf"];

fn ldap_ca_file(variable: Option<OsString>, files: &[&str]) -> Option<PathBuf> {
    if let Some(path) = variable.filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let text = files
        .iter()
        .find_map(|file| std::fs::read_to_string(file).ok())?;
    let named = text.lines().find_map(|line| {
        let (key, value) = line.split_once(char::is_whitespace)?;
        key.eq_ignore_ascii_case("TLS_CACERT")
            .then(|| PathBuf::from(value.trim()))
    });
    // Debian names its list of authorities even where that package is not installed.
    named.filter(|path| path.is_file())
}

/// Everything that follows from a configuration, or the first reason why it can't be put in force. `keep_tls`: what was loaded for
/// TLS before goes on, whatever the settings say of it now.
pub fn put_together(
    config: Config,
    constants: &Constants,
    before: Option<&InForce>,
    keep_tls: bool,
) -> Result<InForce, String> {
    let settings = &config.settings;
    let (client_tls, server_tls) = match before.filter(|_| keep_tls) {
        Some(before) => (before.desk.tls.clone(), before.blueprint.tls.clone()),
        None => (
            client_tls(settings)?.map(Arc::new),
            server_tls(settings)?.map(Arc::new),
        ),
    };
    let users = Arc::new(users(
        &config,
        before.map(|before| &*before.blueprint.users),
    )?);
    let rules = super::rules::load_or_log(settings)?;
    let referees_before = before.map(|before| &before.desk.referees);
    let referees = referees(settings, &rules, &constants.dns, referees_before)?;
    let tcp = tcp_options(settings);
    let config = Arc::new(config);
    let uid = nix::unistd::geteuid().as_raw();
    let (tracked, mock) = (constants.tracked.clone(), constants.mock.clone());
    let desk = Desk::new(
        config.clone(),
        users.clone(),
        client_tls,
        tracked,
        mock,
        uid,
    );
    let mut desk = desk.asking(referees);
    if let Some(before) = before {
        desk.keep_unchanged(&before.desk);
    }
    Ok(InForce {
        blueprint: Arc::new(Blueprint {
            config,
            users,
            server_users: desk.server_users.clone(),
            tls: server_tls,
            dns: constants.dns.clone(),
            tcp,
        }),
        desk: Arc::new(desk.with_rules(rules)),
    })
}

/// True if servers have to be connected anew because of changed TLS settings or files.
pub fn server_tls_differs(old: &Settings, new: &Settings) -> bool {
    tls_settings(old, "server") != tls_settings(new, "server")
}

/// What a configuration says, without a word about it; `None` if it has mistakes.
pub fn preview(path: &Path, variables: &[(String, String)]) -> Option<Settings> {
    let loaded = crate::config::load(path, variables.iter().cloned()).ok()?;
    Some(loaded.config.settings)
}

/// Reads a configuration and logs what is wrong or worth a word.
pub fn load(path: &Path, variables: &[(String, String)]) -> Result<Config, PathBuf> {
    match crate::config::load(path, variables.iter().cloned()) {
        Ok(loaded) => {
            for note in &loaded.notes {
                tracing::warn!("{note}");
            }
            Ok(loaded.config)
        }
        Err(problems) => {
            for problem in problems {
                tracing::error!("{problem}");
            }
            Err(path.to_owned())
        }
    }
}
