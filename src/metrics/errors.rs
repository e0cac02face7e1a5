//! Errors of the whole process: rare, so they are counted in one place that everybody shares.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::labels::{Counts, ErrorKind, Label};

/// How often what has gone wrong.
#[derive(Debug)]
pub struct ErrorCounts([AtomicU64; ErrorKind::COUNT]);

impl Default for ErrorCounts {
    fn default() -> Self {
        ErrorCounts(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl ErrorCounts {
    /// Counts one.
    pub fn count(&self, kind: ErrorKind) {
        self.0[kind.index()].fetch_add(1, Relaxed);
    }

    /// What was counted so far.
    pub fn read(&self) -> Counts<ErrorKind> {
        Counts::new(self.0.iter().map(|count| count.load(Relaxed)))
    }
}
