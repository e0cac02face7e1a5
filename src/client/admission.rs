//! Who may come in: the counts of clients, and the doors that an operator has closed.
//!
//! Shared by all logins and sessions of a process. Used when a client comes and when it goes, never between. A count is
//! raised by entering and lowered by dropping the guard that entering gave.

use std::borrow::Borrow;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};

use crate::metrics::ErrorCounts;
use crate::net::PeerAddr;
use crate::types::{CancelKey, ConnId};

/// The counts and the closed doors. A clone is another handle on the same ones.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    shared: Arc<Shared>,
    errors: Arc<ErrorCounts>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Client sockets of any kind, from accept on.
    sockets: AtomicUsize,
    databases: Counts,
    users: Counts,
    /// Clients that are logging in. Never held across an `await`, nor together with another.
    arrivals: Mutex<HashMap<ConnId, Arriving>>,
    /// The cancel keys of all clients. Never held across an `await`, nor together with another.
    keys: Mutex<HashMap<CancelKey, KeyHolder>>,
    /// Who may still come in, an [`Entrance`].
    entrance: AtomicU8,
    /// Names of the databases that DISABLE has closed. Never held across an `await`.
    disabled: RwLock<HashSet<String>>,
}

/// A client that is logging in, for those who look who is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arriving {
    /// What it calls itself, if it has said so.
    pub user: Option<String>,
    /// The database that it is about to enter.
    pub database: Option<String>,
    /// Its address.
    pub peer: PeerAddr,
    /// Our end of its socket; `None` for a Unix socket.
    pub local: Option<SocketAddr>,
    /// When it connected.
    pub connected_at: SystemTime,
}

/// Who is let in. The console is always open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Entrance {
    /// Everybody.
    #[default]
    Open,
    /// The end has begun, but clients are waited for: those who came by TCP, since they were there before the listener closed. The
    /// Unix socket stays open to the end, for the console only.
    Arrived,
    /// Nobody.
    Closed,
}

/// How many are in, by name. Names nobody is in are not kept, so made-up ones do not pile up. The lock is never held across an
/// `await`, nor together with another.
#[derive(Debug, Default)]
struct Counts(Mutex<HashMap<Name, u32>>);

/// A name that clients are counted under: a thin pointer, since each of them has one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Name(Arc<Box<str>>);

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Whose query a cancel key cancels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyHolder {
    /// A client of this worker. (Narrow, since each of many clients has an entry.)
    Client(u32, ConnId),
    /// A user of the console.
    Console,
}

/// A limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// `max_db_client_connections`
    Database,
    /// `max_user_client_connections`
    User,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Full::Database => "client connections exceeded (max_db_client_connections)",
            Full::User => "client connections exceeded (max_user_client_connections)",
        })
    }
}

impl std::error::Error for Full {}

impl Admission {
    /// Nobody is in, and every door is open.
    pub fn new() -> Admission {
        Admission::default()
    }

    /// What has gone wrong in the whole process, counted: here too for those who are not let in.
    pub fn errors(&self) -> &Arc<ErrorCounts> {
        &self.errors
    }

    /// Counts a client socket, until the guard is dropped. It is for the caller to compare [`Admission::sockets`] with
    /// `max_client_conn`, once it knows that the client does not want the console.
    pub fn enter_socket(&self) -> SocketGuard {
        self.shared.sockets.fetch_add(1, Ordering::Relaxed);
        SocketGuard {
            shared: self.shared.clone(),
            counts: true,
        }
    }

    /// Counts a client of a database, until the guard is dropped. A `max` of 0 is no limit.
    ///
    /// # Errors
    /// As many as `max` are in.
    pub fn enter_database(&self, name: &str, max: u32) -> Result<DatabaseGuard, Full> {
        let name = self.shared.databases.enter(name, max);
        Ok(DatabaseGuard {
            shared: self.shared.clone(),
            name: Some(name.ok_or(Full::Database)?),
        })
    }

    /// Counts a client of a login user, until the guard is dropped. A `max` of 0 is no limit.
    ///
    /// # Errors
    /// As many as `max` are in.
    pub fn enter_user(&self, name: &str, max: u32) -> Result<UserGuard, Full> {
        let name = self.shared.users.enter(name, max);
        Ok(UserGuard {
            shared: self.shared.clone(),
            name: Some(name.ok_or(Full::User)?),
        })
    }

    /// Lists a client that is logging in, until the guard is dropped.
    pub fn list(&self, id: ConnId, arriving: Arriving) -> Listed {
        self.shared.arrivals.lock().insert(id, arriving);
        Listed {
            shared: self.shared.clone(),
            id,
        }
    }

    /// Enters a cancel key, until [`Admission::forget_key`] or the end of the [`Presence`] that it is given to; false if somebody
    /// has it already.
    pub fn enter_key(&self, key: CancelKey, holder: KeyHolder) -> bool {
        match self.shared.keys.lock().entry(key) {
            Entry::Vacant(free) => {
                free.insert(holder);
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// Whom a cancel key belongs to.
    pub fn key_holder(&self, key: CancelKey) -> Option<KeyHolder> {
        self.shared.keys.lock().get(&key).copied()
    }

    /// The key is nobody's any more.
    pub fn forget_key(&self, key: CancelKey) {
        self.shared.keys.lock().remove(&key);
    }

    /// The clients that are logging in, in any order.
    pub fn arrivals(&self) -> Vec<(ConnId, Arriving)> {
        let arrivals = self.shared.arrivals.lock();
        arrivals
            .iter()
            .map(|(id, who)| (*id, who.clone()))
            .collect()
    }

    /// Client sockets, those still logging in and consoles included.
    pub fn sockets(&self) -> usize {
        self.shared.sockets.load(Ordering::Relaxed)
    }

    /// Clients of a database, those still logging in included.
    pub fn database_clients(&self, name: &str) -> u32 {
        self.shared.databases.get(name)
    }

    /// Clients of a login user, those still logging in included.
    pub fn user_clients(&self, name: &str) -> u32 {
        self.shared.users.get(name)
    }

    /// Closes the pooler to new clients, more or less.
    pub fn set_entrance(&self, entrance: Entrance) {
        self.shared
            .entrance
            .store(entrance as u8, Ordering::Release);
    }

    /// Whether a new client is let in that came over the Unix socket, or by TCP.
    pub fn lets_in(&self, is_unix: bool) -> bool {
        let entrance = self.shared.entrance.load(Ordering::Acquire);
        entrance == Entrance::Open as u8 || (entrance == Entrance::Arrived as u8 && !is_unix)
    }

    /// Closes a database to new clients (DISABLE), or opens it again (ENABLE). Returns what it was before.
    pub fn set_disabled(&self, database: &str, on: bool) -> bool {
        let mut disabled = self.shared.disabled.write();
        match on {
            true => !disabled.insert(database.to_owned()),
            false => disabled.remove(database),
        }
    }

    /// Whether a database is closed to new clients.
    pub fn is_disabled(&self, database: &str) -> bool {
        self.shared.disabled.read().contains(database)
    }
}

impl Counts {
    fn enter(&self, name: &str, max: u32) -> Option<Name> {
        let mut counts = self.0.lock();
        let inside = counts.get(name).copied().unwrap_or_default();
        if max > 0 && inside >= max {
            return None;
        }
        let shared_name = match counts.get_key_value(name) {
            Some((known, _)) => known.clone(),
            None => Name(Arc::new(name.into())),
        };
        counts.insert(shared_name.clone(), inside + 1);
        Some(shared_name)
    }

    fn leave(&self, name: &Option<Name>) {
        let Some(name) = name else { return };
        let mut counts = self.0.lock();
        match counts.get_mut(name) {
            Some(inside) if *inside > 1 => *inside -= 1,
            _ => {
                counts.remove(name);
            }
        }
    }

    fn get(&self, name: &str) -> u32 {
        self.0.lock().get(name).copied().unwrap_or_default()
    }
}

/// Lists a client that is logging in until it is dropped.
#[derive(Debug)]
pub struct Listed {
    shared: Arc<Shared>,
    id: ConnId,
}

impl Listed {
    /// More is known about it.
    pub fn name(&self, user: Option<&str>, database: Option<&str>) {
        if let Some(arriving) = self.shared.arrivals.lock().get_mut(&self.id) {
            arriving.user = user.map(str::to_owned);
            arriving.database = database.map(str::to_owned);
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.shared.arrivals.lock().remove(&self.id);
    }
}

/// Counts a client socket until it is dropped.
#[derive(Debug)]
pub struct SocketGuard {
    shared: Arc<Shared>,
    /// False once a [`Presence`] counts it.
    counts: bool,
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        if self.counts {
            self.shared.sockets.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Counts a client of a database until it is dropped.
#[derive(Debug)]
pub struct DatabaseGuard {
    shared: Arc<Shared>,
    /// `None` once a [`Presence`] counts it.
    name: Option<Name>,
}

impl Drop for DatabaseGuard {
    fn drop(&mut self) {
        self.shared.databases.leave(&self.name);
    }
}

/// Counts a client of a login user until it is dropped.
#[derive(Debug)]
pub struct UserGuard {
    shared: Arc<Shared>,
    /// `None` once a [`Presence`] counts it.
    name: Option<Name>,
}

impl Drop for UserGuard {
    fn drop(&mut self) {
        self.shared.users.leave(&self.name);
    }
}

/// Everything that a client is counted in. Dropping it is leaving.
#[derive(Debug)]
pub struct Guards {
    /// Among all clients.
    pub socket: SocketGuard,
    /// Among those of its database; none for the same-uid console.
    pub database: Option<DatabaseGuard>,
    /// Among those of its login user; none for the same-uid console.
    pub user: Option<UserGuard>,
}

/// What a client has as long as it is connected: its places in the counts, and its cancel key. The same as [`Guards`] and a key in
/// a third of the room, for the many clients that do nothing. Dropping it is leaving.
#[derive(Debug)]
pub struct Presence {
    shared: Arc<Shared>,
    database: Option<Name>,
    user: Option<Name>,
    key: CancelKey,
}

impl Presence {
    /// Of a client that has been let in, with a key that [`Admission::enter_key`] has entered.
    pub fn new(guards: Guards, key: CancelKey) -> Presence {
        let Guards {
            mut socket,
            database,
            user,
        } = guards;
        socket.counts = false;
        Presence {
            shared: socket.shared.clone(),
            database: database.and_then(|mut guard| guard.name.take()),
            user: user.and_then(|mut guard| guard.name.take()),
            key,
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.shared.sockets.fetch_sub(1, Ordering::Relaxed);
        self.shared.databases.leave(&self.database);
        self.shared.users.leave(&self.user);
        self.shared.keys.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn limits_are_exact_and_zero_is_none() {
        let admission = Admission::new();
        let first = admission.enter_database("a", 2).unwrap();
        let _second = admission.enter_database("a", 2).unwrap();
        assert_eq!(admission.enter_database("a", 2).err(), Some(Full::Database));
        assert!(admission.enter_database("b", 2).is_ok());
        assert!(admission.enter_database("a", 0).is_ok());
        drop(first);
        assert!(admission.enter_database("a", 2).is_ok());
        let _user = admission.enter_user("a", 1).unwrap();
        assert_eq!(admission.enter_user("a", 1).err(), Some(Full::User));
    }

    #[test]
    fn who_is_logging_in() {
        let admission = Admission::new();
        let arriving = Arriving {
            user: None,
            database: None,
            peer: PeerAddr::Tcp(([127, 0, 0, 1], 7).into()),
            local: None,
            connected_at: SystemTime::UNIX_EPOCH,
        };
        let listed = admission.list(ConnId(3), arriving.clone());
        assert_eq!(admission.arrivals(), [(ConnId(3), arriving.clone())]);
        listed.name(Some("u"), Some("d"));
        let named = Arriving {
            user: Some("u".to_owned()),
            database: Some("d".to_owned()),
            ..arriving
        };
        assert_eq!(admission.arrivals(), [(ConnId(3), named)]);
        drop(listed);
        assert_eq!(admission.arrivals(), []);
    }

    #[test]
    fn nothing_is_kept_of_those_who_left() {
        let admission = Admission::new();
        let guards = Guards {
            socket: admission.enter_socket(),
            database: admission.enter_database("d", 0).ok(),
            user: admission.enter_user("u", 0).ok(),
        };
        let counts = || {
            let clients = (admission.database_clients("d"), admission.user_clients("u"));
            (admission.sockets(), clients)
        };
        assert_eq!(counts(), (1, (1, 1)));
        let (key, holder) = (CancelKey([7; 8]), KeyHolder::Client(1, ConnId(2)));
        assert!(admission.enter_key(key, holder) && !admission.enter_key(key, holder));
        let presence = Presence::new(guards, key);
        assert_eq!(counts(), (1, (1, 1)));
        assert_eq!(admission.key_holder(key), Some(holder));
        drop(presence);
        assert_eq!(admission.key_holder(key), None);
        assert_eq!(counts(), (0, (0, 0)));
        assert!(admission.shared.databases.0.lock().is_empty());
        assert!(admission.shared.users.0.lock().is_empty());
    }

    #[test]
    fn doors_close_and_open() {
        let admission = Admission::new();
        assert!(!admission.set_disabled("a", true));
        assert!(admission.set_disabled("a", true));
        assert!(admission.clone().is_disabled("a") && !admission.is_disabled("b"));
        assert!(admission.set_disabled("a", false));
        assert!(!admission.is_disabled("a"));
        let (tcp, unix) = (false, true);
        assert!(admission.lets_in(tcp) && admission.lets_in(unix));
        admission.set_entrance(Entrance::Arrived);
        assert!(admission.lets_in(tcp) && !admission.clone().lets_in(unix));
        admission.set_entrance(Entrance::Closed);
        assert!(!admission.lets_in(tcp) && !admission.lets_in(unix));
    }

    proptest! {
        /// Whoever comes and goes in whatever order: counts are those inside, and never above the limit.
        #[test]
        fn counts_are_those_inside(steps in prop::collection::vec((0usize..3, any::<bool>()), 0..60)) {
            let admission = Admission::new();
            let mut inside: [Vec<UserGuard>; 3] = Default::default();
            for (user, comes) in steps {
                let name = ["a", "b", "c"][user];
                if !comes {
                    inside[user].pop();
                } else if let Ok(guard) = admission.enter_user(name, 4) {
                    inside[user].push(guard);
                } else {
                    prop_assert_eq!(inside[user].len(), 4);
                }
                prop_assert_eq!(admission.user_clients(name) as usize, inside[user].len());
            }
        }
    }
}
