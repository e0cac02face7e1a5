//! The small types that everybody shares: identities and protocol words.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Number of a client or server connection; unique over both and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

impl ConnId {
    /// The next number of this process.
    pub fn next() -> ConnId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        ConnId(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The opaque number that stands in logs and in the `ptr` column, where PgBouncer shows an address.
    pub fn ptr(self) -> u64 {
        0x7000_0000_0000 + self.0 * 0x40
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.ptr())
    }
}

/// Number of a worker thread, from zero.
pub type WorkerId = usize;

/// The most workers that one process can have: one bit each in the masks of [`crate::pool::budget`].
pub const WORKERS_MAX: usize = 64;

/// The key with which a client may cancel its query: what the pooler sent it as BackendKeyData.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CancelKey(pub [u8; 8]);

/// The key with which the pooler may cancel a server's query: the server's own BackendKeyData.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendKey(pub [u8; 8]);

impl BackendKey {
    /// The server process' id.
    pub fn pid(self) -> u32 {
        u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
}

/// A pool's name: the database entry and the server-side user.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolKey {
    /// Name of the database entry.
    pub database: String,
    /// The user that its servers are logged in as.
    pub user: String,
}

impl fmt::Display for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.database, self.user)
    }
}

/// Transaction status, as ReadyForQuery tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TxStatus {
    /// Not in a transaction block.
    #[default]
    Idle,
    /// In a transaction block.
    InBlock,
    /// In a failed transaction block.
    Failed,
}

impl TxStatus {
    /// From the body of ReadyForQuery.
    pub fn from_byte(byte: u8) -> Option<TxStatus> {
        match byte {
            b'I' => Some(TxStatus::Idle),
            b'T' => Some(TxStatus::InBlock),
            b'E' => Some(TxStatus::Failed),
            _ => None,
        }
    }
}
