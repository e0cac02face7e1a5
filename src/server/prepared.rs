//! Prepared statements on the server side: one name per distinct statement, and which of them a connection has.
//!
//! Clients name their statements as they like; the same text from any client is prepared once per server connection, under a
//! name of the pooler's own. [`StatementCache`] gives the names, [`PreparedSet`] remembers what one connection has, [`Note`] is
//! what has to be taken back when a request turns out to have failed.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;

/// A distinct statement: its text, its parameter types and the pooler's name for it.
#[derive(Debug)]
pub struct Statement {
    /// Number of the statement; unique in this process.
    pub id: u64,
    /// The name under which servers know it: `PGWEIR_<id>`.
    pub name: Box<[u8]>,
    /// Text and parameter types, as they stand in a Parse message behind the name.
    pub source: Box<[u8]>,
}

/// A [`Statement`] that is found by its source.
struct BySource(Arc<Statement>);

impl Borrow<[u8]> for BySource {
    fn borrow(&self) -> &[u8] {
        &self.0.source
    }
}

impl Hash for BySource {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.source.hash(state);
    }
}

impl PartialEq for BySource {
    fn eq(&self, other: &Self) -> bool {
        self.0.source == other.0.source
    }
}

impl Eq for BySource {}

/// Every statement in use, over all workers: a server connection that moves between workers keeps its statements.
///
/// The lock is held for one look-up, and taken only when a client names a statement, never when it uses one.
#[derive(Default)]
pub struct StatementCache {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    statements: HashSet<BySource>,
    last_id: u64,
    /// Size at which unused statements are looked for.
    sweep_at: usize,
}

/// Unused statements are not looked for below this number.
const SWEEP_MIN: usize = 1024;

impl StatementCache {
    /// The statement with this text and these types (see [`Statement::source`]).
    pub fn statement(&self, source: &[u8]) -> Arc<Statement> {
        let mut known = self.known.lock();
        if let Some(found) = known.statements.get(source) {
            return found.0.clone();
        }
        known.last_id += 1;
        let id = known.last_id;
        let statement = Arc::new(Statement {
            id,
            name: format!("PGWEIR_{id}").into_bytes().into(),
            source: source.into(),
        });
        known.statements.insert(BySource(statement.clone()));
        known.sweep();
        statement
    }

    /// How many statements are known.
    pub fn len(&self) -> usize {
        self.known.lock().statements.len()
    }

    /// True before the first statement.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Known {
    /// Forgets statements that no client and no server has any more; amortised over the growth since the last time.
    fn sweep(&mut self) {
        if self.statements.len() < self.sweep_at.max(SWEEP_MIN) {
            return;
        }
        self.statements
            .retain(|statement| Arc::strong_count(&statement.0) > 1);
        self.sweep_at = self.statements.len() * 2;
    }
}

/// The statements that one server connection has, as far as requests already sent will make it so.
#[derive(Debug, Default)]
pub struct PreparedSet {
    statements: HashMap<u64, Held>,
    clock: u64,
    /// Requests in flight that may drop statements behind our back (`DEALLOCATE`, `DISCARD`).
    suspects: u32,
}

#[derive(Debug)]
struct Held {
    statement: Arc<Statement>,
    last_use: u64,
}

impl PreparedSet {
    /// True if the connection has the statement; counts as a use.
    pub fn touch(&mut self, id: u64) -> bool {
        self.clock += 1;
        match self.statements.get_mut(&id) {
            Some(held) => {
                held.last_use = self.clock;
                true
            }
            None => false,
        }
    }

    /// The connection is going to have the statement.
    pub fn insert(&mut self, statement: Arc<Statement>) {
        self.clock += 1;
        let last_use = self.clock;
        self.statements.insert(
            statement.id,
            Held {
                statement,
                last_use,
            },
        );
    }

    /// The connection does not have the statement any more.
    pub fn remove(&mut self, id: u64) {
        self.statements.remove(&id);
    }

    /// Takes out the statement that was not used for longest, if there are more than `max`.
    pub fn evict(&mut self, max: usize) -> Option<Arc<Statement>> {
        if self.statements.len() <= max {
            return None;
        }
        let oldest = self
            .statements
            .values()
            .min_by_key(|held| held.last_use)?
            .statement
            .id;
        self.statements.remove(&oldest).map(|held| held.statement)
    }

    /// The connection has dropped all its statements.
    pub fn clear(&mut self) {
        self.statements.clear();
    }

    /// How many statements the connection has.
    pub fn len(&self) -> usize {
        self.statements.len()
    }

    /// True if it has none.
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// True while it can't be known whether the connection still has what it had.
    pub fn is_suspect(&self) -> bool {
        self.suspects > 0
    }

    /// A request that may drop statements has been sent ([`Note::Suspect`]), or has been answered.
    pub fn suspect(&mut self, in_flight: bool) {
        self.suspects = if in_flight {
            self.suspects + 1
        } else {
            self.suspects.saturating_sub(1)
        };
    }
}

/// What was assumed when a request was sent, to be confirmed or taken back when it is answered.
#[derive(Debug, PartialEq)]
pub enum Note {
    /// A Parse of the client: its name now means `now` (it meant nothing before), and the server is going to have it if `sent`.
    Named {
        /// The client's name for it.
        name: Box<[u8]>,
        /// The statement.
        now: Arc<Statement>,
        /// It was sent to the server, not answered by the pooler.
        sent: bool,
    },
    /// A Parse of a name that the client already uses: it is going to fail, and the error shall speak of the client's name.
    Duplicate {
        /// The client's name.
        name: Box<[u8]>,
        /// The statement that has the name.
        statement: Arc<Statement>,
    },
    /// A Close of the client: its name meant `was`.
    Unnamed {
        /// The client's name.
        name: Box<[u8]>,
        /// The statement that had the name.
        was: Arc<Statement>,
    },
    /// A hidden Parse: the server is going to have the statement.
    OnServer(Arc<Statement>),
    /// A hidden Close: the server had the statement.
    OffServer(Arc<Statement>),
    /// A statement that may drop prepared statements.
    Suspect,
}

impl PartialEq for Statement {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_source_has_one_name() {
        let cache = StatementCache::default();
        let (a, b, c) = (
            cache.statement(b"a"),
            cache.statement(b"b"),
            cache.statement(b"a"),
        );
        assert!(Arc::ptr_eq(&a, &c) && a.id != b.id);
        assert_eq!(&a.name[..], b"PGWEIR_1");
    }

    #[test]
    fn unused_statements_are_forgotten() {
        let cache = StatementCache::default();
        let kept = cache.statement(b"kept");
        for n in 0..10 * SWEEP_MIN as u32 {
            cache.statement(&n.to_be_bytes());
        }
        assert!(cache.len() <= 2 * SWEEP_MIN, "{}", cache.len());
        assert!(Arc::ptr_eq(&kept, &cache.statement(b"kept")));
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let (cache, mut set) = (StatementCache::default(), PreparedSet::default());
        let all: Vec<_> = (0..3u32)
            .map(|n| cache.statement(&n.to_be_bytes()))
            .collect();
        all.iter()
            .for_each(|statement| set.insert(statement.clone()));
        assert!(set.touch(all[0].id) && !set.touch(99));
        assert_eq!(set.evict(3), None);
        assert_eq!(set.evict(2), Some(all[1].clone()));
        assert_eq!(set.evict(1), Some(all[2].clone()));
        assert_eq!(set.len(), 1);
    }
}
