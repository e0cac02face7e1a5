//! A server on loan. However the borrower ends, a lease ends in exactly one verdict: given back, to be cleaned first, or closed.

use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::time::Instant;

use super::budget::Slot;
use super::core::{Member, Wear};
use super::shard::Shard;
use crate::server::conn::Server;

/// A generation that no pool ever reaches.
const EPOCH_NONE: u64 = u64::MAX;

/// A server connection together with its place in the budget.
#[derive(Debug)]
pub struct Pooled {
    /// The connection.
    pub server: Server,
    /// The right to it.
    pub slot: Slot,
}

impl Member for Box<Pooled> {
    fn born(&self) -> Instant {
        self.server.born
    }

    /// A server at an address that its host's name has no more is of no generation.
    fn epoch(&self) -> u64 {
        if self.server.card.facts.is_misplaced() {
            return EPOCH_NONE;
        }
        self.server.epoch
    }
}

/// A server on loan to a client.
pub struct Lease {
    /// Taken out by the verdict.
    pooled: Option<Box<Pooled>>,
    shard: Rc<Shard>,
    /// What giving it back means for its age: a client that only waits for its greeting does not use it.
    wear: Wear,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({:?})", self.shard.key())
    }
}

impl Lease {
    pub(super) fn new(pooled: Box<Pooled>, shard: Rc<Shard>, wear: Wear) -> Lease {
        Lease {
            pooled: Some(pooled),
            shard,
            wear,
        }
    }

    /// The pool that it is from.
    pub fn shard(&self) -> &Rc<Shard> {
        &self.shard
    }

    /// Verdict: fit for the next client.
    pub fn give_back(mut self, now: Instant) {
        if let Some(pooled) = self.pooled.take() {
            self.shard.checkin(pooled, now, self.wear);
        }
    }

    /// Verdict: fit after these queries have run, off the path of others.
    pub fn clean(mut self, queries: Vec<Vec<u8>>) {
        if let Some(pooled) = self.pooled.take() {
            Shard::clean(&self.shard, pooled, queries);
        }
    }

    /// Verdict: to be closed, for this reason.
    pub fn close(mut self, reason: &str) {
        if let Some(pooled) = self.pooled.take() {
            self.shard.close_lent(pooled, reason);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(pooled) = self.pooled.take() {
            self.shard
                .close_lent(pooled, "client disconnect while server was not ready");
        }
    }
}

// A lease contains its server until a verdict, and every verdict consumes the lease.
const HELD: &str = "a lease holds its server until its verdict";

impl Deref for Lease {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.pooled.as_ref().expect(HELD).server
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.pooled.as_mut().expect(HELD).server
    }
}
