//! What the console is told about the program, as far as [`crate::worker::report`] does not say it already.
//!
//! Plain values, gathered by the app when a `SHOW` asks for them. The console itself is in none of them: it adds its own database,
//! user, pool and clients ([`super::desk`]).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::Database;

/// A database that exists: an entry of the configuration, or one made from `*`.
#[derive(Clone, Debug, PartialEq)]
pub struct DatabaseRow {
    /// What is written about it.
    pub entry: Arc<Database>,
    /// Its server connections, over all workers and users.
    pub current_connections: u64,
    /// Its clients.
    pub current_client_connections: u64,
    /// Paused by name (PAUSE db, KILL).
    pub paused: bool,
    /// Refuses new clients.
    pub disabled: bool,
}

/// A user that is known: from auth_file, `[users]`, auth_query, or as a database's forced user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserRow {
    /// The name.
    pub name: String,
    /// Server connections that were made in this name.
    pub current_connections: u64,
    /// Clients logged in by this name, consoles not counted.
    pub current_client_connections: u64,
}

/// Numbers that only SHOW LISTS has. What it can count from other rows is not here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// Clients, those still logging in included, consoles not.
    pub used_clients: u64,
    /// Clients that are logging in.
    pub login_clients: u64,
    /// Server connections.
    pub used_servers: u64,
    /// Lookups of host names under way.
    pub dns_queries: u64,
    /// Worker threads; SHOW MEM has them.
    pub workers: u64,
}

/// Connections to a peer, which carry only cancel requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerPoolRow {
    /// The peer's id.
    pub peer_id: u16,
    /// Cancel requests being delivered.
    pub cl_active_cancel_req: u64,
    /// Cancel requests waiting for a connection.
    pub cl_waiting_cancel_req: u64,
    /// Connections carrying a cancel request.
    pub sv_active_cancel: u64,
    /// Connections being made.
    pub sv_login: u64,
}

/// A zone that host names are in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsZoneRow {
    /// The zone: its names' part after the first dot.
    pub zonename: String,
    /// The serial seen last; 0 if none was, or nobody looks (`dns_zone_check_period`).
    pub serial: u32,
    /// Remembered names in it.
    pub count: u64,
}

/// A host name whose addresses are remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsHostRow {
    /// The name.
    pub hostname: String,
    /// Seconds until it is looked up again; 0 if that is due.
    pub ttl_s: u64,
    /// Its addresses; none if the lookup failed.
    pub addresses: Vec<std::net::IpAddr>,
}

/// How reading the configuration again has gone, whoever asked for it: a signal, RELOAD, or files that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reloads {
    /// The last one was applied, or there has been none.
    pub last_successful: bool,
    /// When a configuration was last loaded; at first, when the program started.
    pub last_success: SystemTime,
    /// How many were applied.
    pub applied: u64,
    /// How many were refused; each left in force what was.
    pub refused: u64,
}

impl Reloads {
    /// At the start, which has just loaded the configuration.
    pub fn begin(now: SystemTime) -> Reloads {
        Reloads {
            last_successful: true,
            last_success: now,
            applied: 0,
            refused: 0,
        }
    }

    /// One more has ended.
    pub fn note(&mut self, applied: bool, now: SystemTime) {
        self.last_successful = applied;
        match applied {
            true => {
                self.applied += 1;
                self.last_success = now;
            }
            false => self.refused += 1,
        }
    }
}

/// A file of certificates in force, and until when it is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRow {
    /// `client` or `server`: towards whom it is used.
    pub side: &'static str,
    /// As configured.
    pub file: PathBuf,
    /// In seconds since the epoch, UTC. For a certificate of our own the first to expire of it and its chain; for authorities
    /// the last, after which nobody is trusted.
    pub not_after: i64,
}
