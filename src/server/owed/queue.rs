//! The requests that are not answered yet, in order, with two counts that make the usual questions cheap.

use std::collections::VecDeque;

use super::{About, Kind, Origin};

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Entry<N> {
    pub kind: Kind,
    pub origin: Origin,
    pub note: Option<N>,
    /// What it is about, for whoever sent it; the ledger does not care.
    pub about: About,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Queue<N> {
    entries: VecDeque<Entry<N>>,
    /// Entries with a note.
    noted: usize,
    /// Entries that end with ReadyForQuery.
    ends: usize,
}

impl<N> Default for Queue<N> {
    fn default() -> Self {
        Queue {
            entries: VecDeque::new(),
            noted: 0,
            ends: 0,
        }
    }
}

impl<N> Queue<N> {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn front(&self) -> Option<&Entry<N>> {
        self.entries.front()
    }

    pub fn get(&self, at: usize) -> Option<&Entry<N>> {
        self.entries.get(at)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Entry<N>> {
        self.entries.iter()
    }

    /// True if a Query, FunctionCall or Sync is not answered yet.
    pub fn has_batch_end(&self) -> bool {
        self.ends > 0
    }

    pub fn notes(&self) -> impl Iterator<Item = &N> {
        self.entries
            .iter()
            .filter_map(|entry| entry.note.as_ref())
            .take(self.noted)
    }

    /// The notes in front of, and at, the last request that ends a batch.
    pub fn earlier_notes(&self) -> impl Iterator<Item = &N> {
        let end = if self.noted == 0 || self.ends == 0 {
            None
        } else {
            self.entries.iter().rposition(|e| e.kind.ends_with_ready())
        };
        let earlier = self.entries.range(..end.map_or(0, |at| at + 1));
        earlier
            .filter_map(|entry| entry.note.as_ref())
            .take(self.noted)
    }

    pub fn push_back(&mut self, entry: Entry<N>) {
        self.noted += usize::from(entry.note.is_some());
        self.ends += usize::from(entry.kind.ends_with_ready());
        self.entries.push_back(entry);
    }

    #[inline]
    pub fn pop_front(&mut self) -> Option<Entry<N>> {
        let entry = self.entries.pop_front()?;
        self.uncount(&entry);
        Some(entry)
    }

    /// True if the server does not answer the entry at the front.
    #[inline]
    pub fn is_front_unanswered(&self) -> bool {
        self.entries
            .front()
            .is_some_and(|front| front.origin == Origin::Absorbed || front.kind == Kind::CopyEnd)
    }

    pub fn remove(&mut self, at: usize) -> Option<Entry<N>> {
        let entry = self.entries.remove(at)?;
        self.uncount(&entry);
        Some(entry)
    }

    fn uncount(&mut self, entry: &Entry<N>) {
        self.noted -= usize::from(entry.note.is_some());
        self.ends -= usize::from(entry.kind.ends_with_ready());
    }

    /// True if something other than the end of COPY data stands between the head and the next Sync.
    pub fn has_blind(&self) -> bool {
        let behind = self.entries.iter().skip(1);
        behind
            .take_while(|entry| entry.kind != Kind::Sync)
            .any(|entry| entry.kind != Kind::CopyEnd)
    }

    /// Drops everything in front of the first Sync and hands its notes over, newest first. False, and everything is dropped, if
    /// there is no Sync.
    pub fn drain_to_sync(&mut self, undone: impl FnMut(N)) -> bool {
        let sync = self.entries.iter().position(|e| e.kind == Kind::Sync);
        self.drain(sync.unwrap_or(self.entries.len()), undone);
        sync.is_some()
    }

    pub fn drain_all(&mut self, undone: impl FnMut(N)) {
        self.drain(self.entries.len(), undone);
    }

    fn drain(&mut self, end: usize, mut undone: impl FnMut(N)) {
        for entry in self.entries.drain(..end).rev() {
            self.noted -= usize::from(entry.note.is_some());
            self.ends -= usize::from(entry.kind.ends_with_ready());
            if let Some(note) = entry.note {
                undone(note);
            }
        }
    }
}
