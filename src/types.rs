//! The small types that everybody shares: identities and protocol words.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a worker does besides: a task that stays on its thread.
pub type LocalTask = Pin<Box<dyn Future<Output = ()>>>;

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

/// The bits of a key's last byte that count how often a request may still be forwarded.
const CANCEL_TTL_BITS: u8 = 0b11;

/// What a key of a peer group says besides its 45 random bits, in PgBouncer's layout: bytes 1 and 2 are the number of the process
/// that gave it out, lower byte first; the lowest two bits of byte 7 are full at first, and count the forwardings down.
impl CancelKey {
    /// A key made of random bytes, its sign bit (as seen by clients that read a process number in it) clear. `peer_id` 0: this
    /// process is in no group, and the rest stays random.
    pub fn new(mut random: [u8; 8], peer_id: u16) -> CancelKey {
        random[0] &= 0x7f;
        if peer_id > 0 {
            random[1..3].copy_from_slice(&peer_id.to_le_bytes());
            random[7] |= CANCEL_TTL_BITS;
        }
        CancelKey(random)
    }

    /// The process that gave it out, if it was one of a group.
    pub fn peer_id(self) -> u16 {
        u16::from_le_bytes([self.0[1], self.0[2]])
    }

    /// As it was when it was given out by a process of a group, however often it has been forwarded since.
    pub fn as_given_out(self) -> CancelKey {
        let mut bytes = self.0;
        bytes[7] |= CANCEL_TTL_BITS;
        CancelKey(bytes)
    }

    /// As it goes to the next process; `None` if it has come far enough.
    pub fn forwarded(self) -> Option<CancelKey> {
        let mut bytes = self.0;
        if bytes[7] & CANCEL_TTL_BITS == 0 {
            return None;
        }
        bytes[7] -= 1;
        Some(CancelKey(bytes))
    }
}

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

/// A shared value, or none, that can be exchanged: a `RefCell<Option<Rc<T>>>` in half the room, which can't be borrowed.
pub struct RcCell<T>(Cell<Option<Rc<T>>>);

impl<T> RcCell<T> {
    /// Holds `value`.
    pub fn new(value: Rc<T>) -> RcCell<T> {
        RcCell(Cell::new(Some(value)))
    }

    /// What it holds.
    pub fn get(&self) -> Option<Rc<T>> {
        let value = self.0.take();
        self.0.set(value.clone());
        value
    }

    /// Holds `value` from now on.
    pub fn set(&self, value: Option<Rc<T>>) {
        self.0.set(value);
    }

    /// Does it hold anything?
    pub fn is_some(&self) -> bool {
        let value = self.0.take();
        let is_some = value.is_some();
        self.0.set(value);
        is_some
    }
}

impl<T> Default for RcCell<T> {
    fn default() -> Self {
        RcCell(Cell::new(None))
    }
}

impl<T: fmt::Debug> fmt::Debug for RcCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RcCell").field(&self.get()).finish()
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_of_a_group_is_laid_out_as_pgbouncers() {
        let key = CancelKey::new([0xff; 8], 0x0102);
        assert_eq!(key.0, [0x7f, 2, 1, 0xff, 0xff, 0xff, 0xff, 0xff]);
        let alone = CancelKey::new([0xf0; 8], 0);
        assert_eq!(alone.0, [0x70, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0]);
    }

    proptest! {
        #[test]
        fn a_key_is_forwarded_three_times_and_known_at_home_all_the_while(random: [u8; 8], id in 1u16..) {
            let given = CancelKey::new(random, id);
            let mut key = given;
            for _ in 0..3 {
                key = key.forwarded().unwrap();
                prop_assert_eq!((key.peer_id(), key.as_given_out()), (id, given));
                prop_assert_ne!(key, given);
            }
            prop_assert_eq!(key.forwarded(), None);
        }
    }
}
