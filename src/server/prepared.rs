//! Prepared statements on the server side: one name per distinct statement, and which of them a connection has.
//!
//! Clients name their statements as they like; the same text from any client is prepared once per server connection, under a
//! name of the pooler's own. [`StatementCache`] gives the names, [`PreparedSet`] remembers what one connection has, [`Note`] is
//! what has to be taken back when a request turns out to have failed.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;

use super::lexer;

/// A distinct statement: its text, its parameter types and the pooler's name for it.
#[derive(Debug)]
pub struct Statement {
    /// Number of the statement; unique in this process.
    pub id: u64,
    /// The name under which servers know it: `PGWEIR_<id>`.
    pub name: Box<[u8]>,
    /// Text and parameter types, as they stand in a Parse message behind the name.
    pub source: Box<[u8]>,
    /// Executing it may drop prepared statements; see [`may_drop_statements`].
    pub may_drop: bool,
    /// Changes when a server says that its copy has become useless: so have those on other servers, in all likelihood.
    edition: AtomicU32,
}

/// What every name given by the pooler begins with.
pub const NAME_PREFIX: &str = "PGWEIR_";

/// A statement without text, which is prepared just to be dropped in place of one that the client calls by a name of its own:
/// preparing it can't fail, whatever the state of the transaction, and so the reply is PostgreSQL's. No [`Statement`] has this
/// name.
pub const DUMMY_NAME: &str = "PGWEIR_0";

/// The number in the first of the pooler's names that a text contains: which statement an error message speaks of.
pub fn named_in(text: &[u8]) -> Option<u64> {
    let prefix = NAME_PREFIX.as_bytes();
    let at = text.windows(prefix.len()).position(|part| part == prefix)?;
    let behind = &text[at + prefix.len()..];
    let end = behind.iter().position(|byte| !byte.is_ascii_digit());
    let digits = &behind[..end.unwrap_or(behind.len())];
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// What PostgreSQL compares of a statement's name: 63 bytes.
pub fn key_of(name: &[u8]) -> &[u8] {
    &name[..name.len().min(63)]
}

/// The number of a statement by the pooler's name for it.
pub fn id_of(name: &[u8]) -> Option<u64> {
    let digits = name.strip_prefix(NAME_PREFIX.as_bytes())?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// True if a query text may drop prepared statements: it contains the word DEALLOCATE or DISCARD.
///
/// Only the beginning of a long text is looked at, and what functions do is not seen: a statement that is dropped unnoticed is
/// missed when it is used next, with an error that names it, and prepared again after that.
pub fn may_drop_statements(text: &[u8]) -> bool {
    let text = &text[..text.len().min(LOOKED_AT_MAX)];
    let mut at = 0;
    while let Some(n) = text[at..].iter().position(|byte| byte | 0x20 == b'd') {
        at += n;
        if (at == 0 || !in_word(text[at - 1])) && begins_dropping(&text[at..]) {
            return true;
        }
        at += 1;
    }
    false
}

/// Bytes of a text that [`may_drop_statements`] looks at.
pub const LOOKED_AT_MAX: usize = 4096;

fn begins_dropping(text: &[u8]) -> bool {
    [&b"DEALLOCATE"[..], b"DISCARD"].iter().any(|word| {
        let head = text.get(..word.len());
        let next = text.get(word.len()).copied().unwrap_or(b' ');
        head.is_some_and(|head| head.eq_ignore_ascii_case(word)) && !in_word(next)
    })
}

fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..)
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
    /// Bytes of their texts.
    bytes: usize,
    /// Number at which unused statements are looked for.
    sweep_at: usize,
    /// Bytes at which unused statements are looked for.
    sweep_at_bytes: usize,
}

/// Unused statements are not looked for below this number, unless their texts are long.
const SWEEP_MIN: usize = 1024;
/// Unused statements are not looked for below this number of bytes, unless there are many.
const SWEEP_BYTES_MIN: usize = 4 << 20;

impl StatementCache {
    /// The statement with this text and these types (see [`Statement::source`]).
    ///
    /// An EXECUTE is shared with nobody: what it returns depends on what its client has prepared by SQL.
    pub fn statement(&self, source: &[u8]) -> Arc<Statement> {
        let mut known = self.known.lock();
        if let Some(found) = known.statements.get(source) {
            return found.0.clone();
        }
        known.last_id += 1;
        let id = known.last_id;
        let statement = Arc::new(Statement {
            id,
            name: format!("{NAME_PREFIX}{id}").into_bytes().into(),
            source: source.into(),
            may_drop: may_drop_statements(source),
            edition: AtomicU32::new(0),
        });
        if lexer::is_execute(source) {
            return statement;
        }
        known.bytes += source.len();
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
        if self.statements.len() < self.sweep_at.max(SWEEP_MIN)
            && self.bytes < self.sweep_at_bytes.max(SWEEP_BYTES_MIN)
        {
            return;
        }
        self.statements
            .retain(|statement| Arc::strong_count(&statement.0) > 1);
        let lens = self.statements.iter().map(|known| known.0.source.len());
        self.bytes = lens.sum();
        self.sweep_at = self.statements.len() * 2;
        self.sweep_at_bytes = self.bytes * 2;
    }
}

/// The statements that one server connection has, as far as requests already sent will make it so.
#[derive(Debug, Default)]
pub struct PreparedSet {
    statements: HashMap<u64, Held>,
    clock: u64,
}

#[derive(Debug)]
struct Held {
    statement: Arc<Statement>,
    last_use: u64,
    /// As it was when the connection got it.
    edition: u32,
}

/// Whether a connection has a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It does not.
    Missing,
    /// It has a copy that has to be prepared anew before use.
    Outdated,
    /// It has.
    Ready,
}

impl PreparedSet {
    /// Does the connection have the statement? Counts as a use.
    pub fn touch(&mut self, id: u64) -> Presence {
        self.clock += 1;
        match self.statements.get_mut(&id) {
            Some(held) => {
                held.last_use = self.clock;
                if held.edition == held.statement.edition.load(Relaxed) {
                    Presence::Ready
                } else {
                    Presence::Outdated
                }
            }
            None => Presence::Missing,
        }
    }

    /// The connection is going to have the statement.
    pub fn insert(&mut self, statement: Arc<Statement>) {
        let edition = statement.edition.load(Relaxed);
        self.hold(statement, edition);
    }

    /// The connection has the statement after all, in whatever edition.
    pub fn restore(&mut self, statement: Arc<Statement>) {
        let edition = statement.edition.load(Relaxed).wrapping_sub(1);
        self.hold(statement, edition);
    }

    fn hold(&mut self, statement: Arc<Statement>, edition: u32) {
        self.clock += 1;
        let held = Held {
            last_use: self.clock,
            edition,
            statement,
        };
        self.statements.insert(held.statement.id, held);
    }

    /// The connection's copy has turned out to be useless: the statement is prepared anew before its next use, here and on
    /// every other connection.
    pub fn outdate(&self, id: u64) {
        if let Some(held) = self.statements.get(&id) {
            held.statement
                .edition
                .store(held.edition.wrapping_add(1), Relaxed);
        }
    }

    /// The connection does not have the statement any more.
    pub fn remove(&mut self, id: u64) {
        self.statements.remove(&id);
    }

    /// The statement that was not used for longest, of those that may go.
    pub fn oldest(&self, may_go: impl Fn(u64) -> bool) -> Option<Arc<Statement>> {
        let all = self.statements.values();
        let candidates = all.filter(|held| may_go(held.statement.id));
        let oldest = candidates.min_by_key(|held| held.last_use)?;
        Some(oldest.statement.clone())
    }

    /// True if the connection has the statement; does not count as a use.
    pub fn contains(&self, id: u64) -> bool {
        self.statements.contains_key(&id)
    }

    /// The numbers of the statements that the connection has.
    pub fn ids(&self) -> impl Iterator<Item = u64> {
        self.statements.keys().copied()
    }

    /// The connection has at most the statements with these numbers.
    pub fn keep_only(&mut self, ids: &HashSet<u64>) {
        self.statements.retain(|id, _| ids.contains(id));
    }

    /// The connection has dropped all its statements.
    pub fn clear(&mut self) {
        self.statements.clear();
    }

    /// The statements that the connection has.
    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Statement>> {
        self.statements.values().map(|held| &held.statement)
    }

    /// How many statements the connection has.
    pub fn len(&self) -> usize {
        self.statements.len()
    }

    /// True if it has none.
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
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
        /// The statement that shall not get it.
        new: Arc<Statement>,
    },
    /// A Close of the client, or the Execute of a DEALLOCATE: its name meant `was`.
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
    /// A Parse of a name that is taken by a statement prepared by SQL: it is going to fail. If it does not, the server has a
    /// statement that is nobody's.
    Taken,
    /// A Query that deallocates a statement which the client has prepared by the protocol: see [`DUMMY_NAME`].
    Dropped {
        /// The client's name.
        name: Box<[u8]>,
    },
    /// A request that may drop prepared statements: until it is answered, nobody knows which there are.
    Suspect,
}

impl Note {
    /// True if the meaning of the client's `name`, or whether the server has statement `id`, depends on what becomes of the request.
    pub fn concerns(&self, of_client: &[u8], id: Option<u64>) -> bool {
        match self {
            Note::Named {
                name,
                now: statement,
                sent: true,
            }
            | Note::Duplicate {
                name, statement, ..
            } => is_same(name, of_client) || Some(statement.id) == id,
            Note::Named { name, .. } | Note::Unnamed { name, .. } | Note::Dropped { name } => {
                is_same(name, of_client)
            }
            Note::OnServer(statement) | Note::OffServer(statement) => Some(statement.id) == id,
            Note::Suspect => true,
            Note::Taken => false,
        }
    }
}

fn is_same(name: &[u8], other: &[u8]) -> bool {
    key_of(name) == key_of(other)
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
    fn an_execute_is_not_shared() {
        let cache = StatementCache::default();
        let execute = || cache.statement(b" /* x */ Execute q\0\0\0");
        assert_ne!(execute().id, execute().id);
        assert!(cache.is_empty());
    }

    #[test]
    fn unused_statements_are_forgotten() {
        let cache = StatementCache::default();
        let kept = cache.statement(b"kept");
        for n in 0..10 * SWEEP_MIN as u32 {
            cache.statement(&n.to_be_bytes());
        }
        assert!(cache.len() <= 2 * SWEEP_MIN, "{}", cache.len());
        for n in 0..10u8 {
            cache.statement(&vec![n; SWEEP_BYTES_MIN / 2]);
        }
        assert!(cache.len() <= 4, "long ones sooner: {}", cache.len());
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
        assert_eq!(set.touch(all[0].id), Presence::Ready);
        assert_eq!(set.touch(99), Presence::Missing);
        assert_eq!(set.oldest(|_| true), Some(all[1].clone()));
        set.remove(all[1].id);
        assert_eq!(set.oldest(|id| id != all[2].id), Some(all[0].clone()));
        assert_eq!(set.oldest(|_| false), None);
        set.remove(all[2].id);
        assert_eq!(set.len(), 1);
    }

    #[test]
    fn one_error_outdates_every_copy() {
        let cache = StatementCache::default();
        let statement = cache.statement(b"a");
        let (mut here, mut there) = (PreparedSet::default(), PreparedSet::default());
        let of = |set: &mut PreparedSet| set.touch(statement.id);
        for set in [&mut here, &mut there] {
            set.insert(statement.clone());
        }
        here.outdate(statement.id);
        assert_eq!(of(&mut here), Presence::Outdated);
        assert_eq!(of(&mut there), Presence::Outdated);
        here.insert(statement.clone());
        assert_eq!(of(&mut here), Presence::Ready);
        // Another copy of the old edition says no more.
        there.outdate(statement.id);
        assert_eq!(of(&mut here), Presence::Ready);
        there.restore(statement.clone());
        assert_eq!(of(&mut there), Presence::Outdated);
    }

    #[test]
    fn dropping_is_a_word() {
        for text in [
            "DISCARD ALL",
            " /**/ deallocate x",
            "select 1;Deallocate all",
            "do 'begin discard'",
        ] {
            assert!(may_drop_statements(text.as_bytes()), "{text}");
        }
        for text in [
            "",
            "d",
            "discarded",
            "select is_discard",
            "discard_1",
            "deal",
        ] {
            assert!(!may_drop_statements(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn names_are_found_in_texts() {
        assert_eq!(named_in(b"statement \"PGWEIR_17\" is"), Some(17));
        for text in ["", "PGWEIR_", "PGWEIR_x", "PGWEIR_99999999999999999999"] {
            assert_eq!(named_in(text.as_bytes()), None, "{text}");
        }
    }
}
