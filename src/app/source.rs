//! A connection string as psql takes it, `host=… user=…` or `postgresql://user@host/db?sslmode=…`, turned into a plan to connect.
//!
//! For one server and what its commands need; not a libpq. Unknown keys are errors: one that is ignored could have meant safety.

use std::fmt;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::parts;
use crate::auth::{Secret, User};
use crate::config::{Settings, connstr, url};
use crate::net::unix::SocketPath;
use crate::net::{Resolver, Target};
use crate::server::connect::ConnectPlan;

/// Where PostgreSQL's packages have the socket, for a string without `host`.
const SOCKET_DIR: &str = "/var/run/postgresql";
/// How long connecting, logging in and asking may take without `connect_timeout`.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server, and as whom to log in.
#[derive(Debug)]
pub struct Source {
    host: String,
    port: u16,
    user: String,
    dbname: String,
    password: Option<Zeroizing<String>>,
    settings: Settings,
    patience: Duration,
}

/// A connection string that can't be followed. Never quotes a value: it may be a password.
#[derive(Debug, PartialEq, Eq)]
pub enum SourceError {
    /// Neither form.
    Syntax,
    /// A key that means nothing here.
    Unknown(String),
    /// A value that its key can't have.
    Value(String),
    /// Nothing says as whom to log in.
    NoUser,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceError::Syntax => f.write_str("syntax error in the connection string"),
            SourceError::Unknown(key) => {
                write!(f, "the connection string has an unknown key: {key}")
            }
            SourceError::Value(key) => {
                write!(f, "the connection string has a bad value for {key}")
            }
            SourceError::NoUser => f.write_str("the connection string names no user"),
        }
    }
}

impl std::error::Error for SourceError {}

impl Source {
    /// Reads a connection string; `password` is for one that has none.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub fn parse(text: &str, password: Option<Zeroizing<String>>) -> Result<Source, SourceError> {
        let pairs: Vec<url::Pair> = match url::is_url(text) {
            true => url::parse(text).map_err(|_| SourceError::Syntax)?,
            false => {
                let pairs = connstr::parse(text).map_err(|_| SourceError::Syntax)?;
                let own = |(key, value): connstr::Pair<'_>| (key.to_owned(), value);
                pairs.into_iter().map(own).collect()
            }
        };
        let mut source = Source {
            host: SOCKET_DIR.to_owned(),
            port: crate::config::entry::SERVER_PORT,
            user: String::new(),
            dbname: String::new(),
            password,
            settings: Settings::default(),
            patience: PATIENCE,
        };
        for (key, value) in pairs {
            source.set(&key, value)?;
        }
        if source.user.is_empty() {
            return Err(SourceError::NoUser);
        }
        if source.dbname.is_empty() {
            "postgres".clone_into(&mut source.dbname);
        }
        Ok(source)
    }

    fn set(&mut self, key: &str, value: Zeroizing<String>) -> Result<(), SourceError> {
        let bad = || SourceError::Value(key.to_owned());
        match key {
            "host" if value.contains(',') => return Err(bad()),
            "host" | "hostaddr" => self.host = value.to_string(),
            "port" => self.port = value.parse().map_err(|_| bad())?,
            "user" => self.user = value.to_string(),
            "dbname" => self.dbname = value.to_string(),
            "password" => self.password = Some(value),
            "connect_timeout" => {
                let seconds = u64::from_str(&value).map_err(|_| bad())?;
                if seconds > 0 {
                    self.patience = Duration::from_secs(seconds);
                }
            }
            "application_name" => {}
            "sslmode" | "sslrootcert" | "sslcert" | "sslkey" => {
                let setting = match key {
                    "sslmode" => "server_tls_sslmode",
                    "sslrootcert" => "server_tls_ca_file",
                    "sslcert" => "server_tls_cert_file",
                    _ => "server_tls_key_file",
                };
                self.settings.set_text(setting, &value).map_err(|_| bad())?;
            }
            _ => return Err(SourceError::Unknown(key.to_owned())),
        }
        Ok(())
    }

    /// How long everything together may take.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// How to connect.
    ///
    /// # Errors
    /// What of TLS can't be had, in words.
    pub fn plan(&self) -> Result<ConnectPlan, String> {
        let (host, port) = (self.host.clone(), self.port);
        let target = if host.starts_with(['/', '@']) {
            let path = SocketPath::new(&host, port);
            Target::Unix { path }
        } else {
            Target::Tcp { host, port }
        };
        let secret = match &self.password {
            Some(password) => Secret::plain(password.as_bytes()),
            None => Secret::None,
        };
        let startup = [
            ("user", &self.user[..]),
            ("database", &self.dbname),
            ("application_name", "pgweir userlist"),
        ];
        let bytes = |(name, value): (&str, &str)| (name.into(), value.into());
        Ok(ConnectPlan {
            target,
            dns: Resolver::default(),
            tcp: parts::tcp_options(&self.settings),
            tls: parts::server_tls(&self.settings)?.map(Arc::new),
            timeout: self.patience,
            startup: startup.map(bytes).into(),
            user: Arc::new(User::new(self.user.as_bytes(), secret)),
            connect_query: None,
            who: String::new(),
            log_connections: false,
            log_disconnections: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> Result<String, SourceError> {
        let source = Source::parse(text, Some(Zeroizing::new("env".to_owned())))?;
        let Source {
            host,
            port,
            user,
            dbname,
            password,
            settings,
            ..
        } = source;
        let password = password.unwrap();
        let mode = settings.server_tls_sslmode;
        Ok(format!(
            "{user}:{}@{host}:{port}/{dbname} {mode}",
            *password
        ))
    }

    #[test]
    fn both_forms() {
        for (text, expected) in [
            ("user=a", "a:env@/var/run/postgresql:5432/postgres prefer"),
            (
                "host=h port=1 user=a dbname=d password='p w' sslmode=require",
                "a:p w@h:1/d require",
            ),
            ("postgres://a@h", "a:env@h:5432/postgres prefer"),
            (
                "postgresql://a%40b:p%3aw@[::1]:7/d?sslmode=disable&connect_timeout=3",
                "a@b:p:w@::1:7/d disable",
            ),
            (
                "postgresql:///d?host=/run/pg&user=a",
                "a:env@/run/pg:5432/d prefer",
            ),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn mistakes() {
        let value = |key: &str| SourceError::Value(key.to_owned());
        for (text, expected) in [
            ("", SourceError::NoUser),
            ("user", SourceError::Syntax),
            ("postgres://h", SourceError::NoUser),
            ("postgres://a@[h", SourceError::Syntax),
            ("postgres://a@h?x", SourceError::Syntax),
            ("postgres://a%4@h", SourceError::Syntax),
            ("user=a port=x", value("port")),
            ("user=a sslmode=strict", value("sslmode")),
            ("user=a host=a,b", value("host")),
            ("user=a targe=x", SourceError::Unknown("targe".to_owned())),
        ] {
            assert_eq!(shown(text), Err(expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "postgres://\\PC*|\\PC*") {
            let _ = shown(&text);
        }
    }
}
