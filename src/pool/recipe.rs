//! How the servers of a pool are connected: where to, and with which parameters. With which secret, the pool's
//! [`PoolShare::credentials`] says, which all workers share.

use std::sync::Arc;
use std::time::SystemTime;

use super::budget::PoolShare;
use crate::auth::{AuthFile, ServerUsers};
use crate::config::{Config, Database, LoadBalanceHosts, PoolSettings};
use crate::net::dial::Target;
use crate::net::dns::Resolver;
use crate::net::options::TcpOptions;
use crate::net::tls::ServerTls;
use crate::net::unix::SocketPath;
use crate::server::conn::ServerFacts;
use crate::server::connect::{ConnectPlan, Fresh};
use crate::types::{ConnId, PoolKey};

/// What every connection of a pool has in common.
#[derive(Clone)]
pub struct Recipe {
    /// The database entry.
    pub database: Arc<Database>,
    /// The database entry forces this user.
    pub forced_user: bool,
    /// TLS towards servers; none if it is disabled.
    pub tls: Option<Arc<ServerTls>>,
    /// Who knows the addresses of host names.
    pub dns: Resolver,
    /// Options of TCP sockets.
    pub tcp: TcpOptions,
    /// Directory of Unix sockets for entries without a host.
    pub unix_socket_dir: String,
    /// `log_connections`
    pub log_connections: bool,
    /// `log_disconnections`
    pub log_disconnections: bool,
}

impl Recipe {
    /// A plan for one connection; takes the entry's hosts in turn.
    pub fn plan(
        &self,
        id: ConnId,
        share: &PoolShare,
        settings: &PoolSettings,
    ) -> (ConnectPlan, Target) {
        let target = self.target(share);
        let plan = ConnectPlan {
            target: target.clone(),
            dns: self.dns.clone(),
            tcp: self.tcp.clone(),
            tls: self.tls.clone(),
            timeout: settings.server_connect_timeout,
            startup: self.startup(&share.key),
            user: share.credentials(),
            connect_query: self.database.connect_query.clone(),
            who: self.who_of(id, &share.key, &target),
            log_connections: self.log_connections,
            log_disconnections: self.log_disconnections,
        };
        (plan, target)
    }

    /// Every place that connections go to.
    pub fn targets(&self) -> Vec<Target> {
        let hosts = self.database.hosts.len().max(1);
        (0..hosts).map(|turn| self.target_in_turn(turn)).collect()
    }

    fn target(&self, share: &PoolShare) -> Target {
        self.target_in_turn(match self.database.load_balance_hosts {
            LoadBalanceHosts::RoundRobin => share.next_host(),
            LoadBalanceHosts::Disable => share.current_host(),
        })
    }

    /// A connection to this target could not be opened. `load_balance_hosts = disable`: the next one goes to the next host, but
    /// of several connections that fail at once only one moves on.
    pub(super) fn note_failure(&self, share: &PoolShare, target: &Target) {
        let turn = share.current_host();
        if self.database.load_balance_hosts == LoadBalanceHosts::Disable
            && self.target_in_turn(turn) == *target
        {
            share.leave_host(turn);
        }
    }

    fn target_in_turn(&self, turn: usize) -> Target {
        let (hosts, port) = (&self.database.hosts, self.database.port);
        match hosts.get(turn % hosts.len().max(1)) {
            None => Target::Unix {
                path: SocketPath::new(&self.unix_socket_dir, port),
            },
            Some(dir) if dir.starts_with(['/', '@']) => Target::Unix {
                path: SocketPath::new(dir, port),
            },
            Some(host) => Target::Tcp {
                host: host.clone(),
                port,
            },
        }
    }

    fn startup(&self, key: &PoolKey) -> Vec<(Vec<u8>, Vec<u8>)> {
        let db = &self.database;
        let optional = [
            ("client_encoding", &db.client_encoding),
            ("datestyle", &db.datestyle),
            ("timezone", &db.timezone),
            ("application_name", &db.application_name),
        ];
        let mut startup = vec![(b"database".to_vec(), db.server_dbname().as_bytes().to_vec())];
        for (name, value) in optional {
            if let Some(value) = value {
                startup.push((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
            }
        }
        startup.push((b"user".to_vec(), key.user.as_bytes().to_vec()));
        startup
    }

    /// The prefix of log lines about a connection.
    pub fn who(&self, id: ConnId, key: &PoolKey, facts: &ServerFacts) -> String {
        match (&facts.target, &facts.site) {
            (Target::Tcp { port, .. }, Some(site)) => {
                let host = site.ip.to_string();
                self.who_of(id, key, &Target::Tcp { host, port: *port })
            }
            _ => self.who_of(id, key, &facts.target),
        }
    }

    fn who_of(&self, id: ConnId, key: &PoolKey, target: &Target) -> String {
        let (db, user) = (&key.database, &key.user);
        match target {
            Target::Tcp { host, port } if host.contains(':') => {
                format!("S-{id}: {db}/{user}@[{host}]:{port}")
            }
            Target::Tcp { host, port } => format!("S-{id}: {db}/{user}@{host}:{port}"),
            Target::Unix { .. } => format!("S-{id}: {db}/{user}@unix:{}", self.database.port),
        }
    }
}

/// What is shown of a new connection.
pub(super) fn facts(fresh: &Fresh, target: Target) -> ServerFacts {
    ServerFacts {
        key: fresh.key,
        target,
        site: fresh.site.clone(),
        addr: fresh.addr.clone(),
        port: fresh.port,
        local_addr: fresh.local_addr.clone(),
        local_port: fresh.local_port,
        tls: fresh.tls,
        connect_time: SystemTime::now(),
    }
}

/// What recipes are made from: one value per configuration in force.
#[derive(Clone)]
pub struct Blueprint {
    /// The configuration.
    pub config: Arc<Config>,
    /// The secrets of `auth_file`.
    pub users: Arc<AuthFile>,
    /// As whom servers are logged in to, when no client has shown a secret of its own.
    pub server_users: Arc<ServerUsers>,
    /// TLS towards servers; none if it is disabled.
    pub tls: Option<Arc<ServerTls>>,
    /// Who knows the addresses of host names: the same for every configuration.
    pub dns: Resolver,
    /// Options of TCP sockets.
    pub tcp: TcpOptions,
}

impl Blueprint {
    /// The recipe for the pools of a database.
    pub fn recipe(&self, database: &Arc<Database>) -> Recipe {
        let settings = &self.config.settings;
        Recipe {
            database: database.clone(),
            forced_user: database.user.is_some(),
            tls: self.tls.clone(),
            dns: self.dns.clone(),
            tcp: self.tcp.clone(),
            unix_socket_dir: settings
                .unix_socket_dir
                .as_ref()
                .map_or_else(String::new, |dir| dir.display().to_string()),
            log_connections: settings.log_connections,
            log_disconnections: settings.log_disconnections,
        }
    }
}
