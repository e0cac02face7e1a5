//! The names that a client has given to prepared statements by the protocol. Pure; a bounded map and nothing else.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::server::prepared::{Statement, key_of};

/// The most names that one client may have in use.
pub const NAMES_MAX: usize = 65_536;
/// The most bytes of names and texts that one client may have in use.
pub const NAMES_BYTES_MAX: usize = 128 << 20;

/// Names and what they stand for. As in PostgreSQL, two names are the same if their first 63 bytes are. An empty map is a pointer
/// and allocates nothing: most clients that do nothing have none.
#[derive(Debug, Default)]
pub struct Names(Option<Box<InUse>>);

#[derive(Debug, Default)]
struct InUse {
    by_key: HashMap<Box<[u8]>, Arc<Statement>>,
    bytes: usize,
}

impl Names {
    /// How many names are in use.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |names| names.by_key.len())
    }

    /// True if no name is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if there is room for one more name for this statement.
    pub fn has_room_for(&self, name: &[u8], statement: &Statement) -> bool {
        let used = self.0.as_ref().map_or(0, |names| names.bytes);
        self.len() < NAMES_MAX && used + bytes(name, statement) <= NAMES_BYTES_MAX
    }

    /// What a name stands for, and a number that means this name as long as it is in use: the address of our copy, which is only
    /// ever compared.
    pub fn find(&self, name: &[u8]) -> Option<(usize, &Arc<Statement>)> {
        let (name, statement) = self.0.as_ref()?.by_key.get_key_value(key_of(name))?;
        Some((name.as_ptr().addr(), statement))
    }

    /// What a name stands for.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        self.0.as_ref()?.by_key.get(key_of(name))
    }

    /// True if the name is in use.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.get(name).is_some()
    }

    /// The name stands for this statement.
    pub fn insert(&mut self, name: &[u8], statement: Arc<Statement>) {
        let names = self.0.get_or_insert_default();
        names.bytes += bytes(name, &statement);
        if let Some(was) = names.by_key.insert(key_of(name).into(), statement) {
            names.bytes -= bytes(name, &was);
        }
    }

    /// The name is free again; what it stood for.
    pub fn remove(&mut self, name: &[u8]) -> Option<Arc<Statement>> {
        let names = self.0.as_mut()?;
        let was = names.by_key.remove(key_of(name))?;
        names.bytes -= bytes(name, &was);
        Some(was)
    }

    /// All names are free again.
    pub fn clear(&mut self) {
        self.0 = None;
    }

    /// The name that [`Names::find`] has found for the statement with this number, if it is still in use.
    pub fn found(&self, id: u64, found: usize) -> Option<&[u8]> {
        let mut all = self.of_statement(id);
        all.find(|name| name.as_ptr().addr() == found)
    }

    /// The names of the statement with this number.
    pub fn of_statement(&self, id: u64) -> impl Iterator<Item = &[u8]> {
        let of_it = self.entries().filter(move |(_, of)| of.id == id);
        of_it.map(|(name, _)| name)
    }

    fn entries(&self) -> impl Iterator<Item = (&[u8], &Arc<Statement>)> {
        let all = self.0.iter().flat_map(|names| &names.by_key);
        all.map(|(name, statement)| (&name[..], statement))
    }

    /// The names and what they stand for.
    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Arc<Statement>)> {
        self.entries()
    }
}

fn bytes(name: &[u8], statement: &Statement) -> usize {
    key_of(name).len() + statement.source.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::prepared::StatementCache;

    #[test]
    fn long_names_are_cut_as_postgresql_cuts_them() {
        let (cache, mut names) = (StatementCache::default(), Names::default());
        let long = "n".repeat(70);
        names.insert(long.as_bytes(), cache.statement(b"a"));
        assert!(names.contains(&long.as_bytes()[..63]));
        assert!(!names.contains(&long.as_bytes()[..62]));
        assert!(names.remove(format!("{long}x").as_bytes()).is_some());
        assert!(names.is_empty());
    }

    #[test]
    fn bytes_are_bounded() {
        let (cache, mut names) = (StatementCache::default(), Names::default());
        let large = cache.statement(&vec![b'x'; NAMES_BYTES_MAX / 2 - 1]);
        for name in [b"a", b"b"] {
            assert!(names.has_room_for(name, &large));
            names.insert(name, large.clone());
            names.insert(name, large.clone());
        }
        let small = cache.statement(b"");
        assert!(!names.has_room_for(b"c", &small));
        names.remove(b"a");
        assert!(names.has_room_for(b"c", &small));
        names.clear();
        assert!(names.is_empty() && names.has_room_for(b"c", &large));
    }
}
