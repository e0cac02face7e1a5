//! What a worker adds to while it works: one for each of its shards. Cells, since nobody else looks at them; rare things by one
//! call each, what happens with every query by as few additions as can be.

use std::cell::{Cell, RefCell};

use super::histogram::{Histogram, bucket_of};
use super::labels::{Counts, Label, Limit, PinReason, WaitReason};
use super::measures::{PoolMeasures, Trades};

/// What one worker measures of one pool, beside its [`super::Stats`].
#[derive(Debug, Default)]
pub struct PoolGauges {
    times: RefCell<Times>,
    waits: [Cell<u64>; WaitReason::COUNT],
    pins: [Cell<u64>; PinReason::COUNT],
    denied: [Cell<u64>; Limit::COUNT],
    /// Waits that ended with a server.
    served: Cell<u64>,
    client_out: Cell<u64>,
    server_out: Cell<u64>,
    prepared_hits: Cell<u64>,
    given: Cell<u64>,
    taken: Cell<u64>,
}

/// The histograms.
#[derive(Debug, Default)]
struct Times {
    wait: Histogram,
    query: Histogram,
    transaction: Histogram,
    login: Histogram,
    server_connect: Histogram,
}

#[inline]
fn add(cell: &Cell<u64>, n: u64) {
    cell.set(cell.get() + n);
}

impl PoolGauges {
    /// A wait has begun, for this reason.
    pub fn wait_began(&self, reason: WaitReason) {
        add(&self.waits[reason.index()], 1);
    }

    /// A client that wanted to be served has waited so many µs, and has got a server, or not.
    pub fn waited(&self, micros: u64, served: bool) {
        self.times.borrow_mut().wait.record(micros);
        add(&self.served, u64::from(served));
    }

    /// A query round has ended after so many µs, and with it its transaction of so many µs, or none.
    #[inline]
    pub fn query_ended(&self, query: u64, transaction: Option<u64>) {
        let times = &mut *self.times.borrow_mut();
        let bucket = bucket_of(query);
        times.query.record_in(bucket, query);
        match transaction {
            // Most transactions are one query.
            Some(micros) if micros == query => times.transaction.record_in(bucket, micros),
            Some(micros) => times.transaction.record(micros),
            None => {}
        }
    }

    /// A transaction has ended without a query round of its own.
    pub fn transaction_ended(&self, micros: u64) {
        self.times.borrow_mut().transaction.record(micros);
    }

    /// A client was greeted so many µs after it connected.
    pub fn logged_in(&self, micros: u64) {
        self.times.borrow_mut().login.record(micros);
    }

    /// A server was connected within so many µs.
    pub fn connected(&self, micros: u64) {
        self.times.borrow_mut().server_connect.record(micros);
    }

    /// A server was kept beyond the end of a transaction.
    pub fn pinned(&self, reason: PinReason) {
        add(&self.pins[reason.index()], 1);
    }

    /// A connection that was wanted was refused.
    pub fn was_denied(&self, limit: Limit) {
        add(&self.denied[limit.index()], 1);
    }

    /// Bytes went to a client.
    #[inline]
    pub fn to_client(&self, bytes: u64) {
        add(&self.client_out, bytes);
    }

    /// Bytes went to a server.
    #[inline]
    pub fn to_server(&self, bytes: u64) {
        add(&self.server_out, bytes);
    }

    /// So many uses of prepared statements met a server that had them.
    #[inline]
    pub fn prepared_hits(&self, n: u64) {
        add(&self.prepared_hits, n);
    }

    /// A server went to another worker.
    pub fn gave(&self) {
        add(&self.given, 1);
    }

    /// A server came from another worker.
    pub fn took(&self) {
        add(&self.taken, 1);
    }

    /// Servers traded so far.
    pub fn trades(&self) -> Trades {
        Trades {
            given: self.given.get(),
            taken: self.taken.get(),
        }
    }

    /// Writes what was counted into `measures`, whose `stats` are in place already.
    pub fn read(&self, measures: &mut PoolMeasures) {
        let times = self.times.borrow();
        measures.wait = times.wait.clone();
        // Everybody who has got a server without waiting.
        let granted = measures.stats.server_assignment_count;
        measures
            .wait
            .record_none(granted.saturating_sub(self.served.get()));
        measures.query = times.query.clone();
        measures.transaction = times.transaction.clone();
        measures.login = times.login.clone();
        measures.server_connect = times.server_connect.clone();
        measures.waits = counts(&self.waits);
        measures.pins = counts(&self.pins);
        measures.denied = counts(&self.denied);
        measures.bytes.client_in = measures.stats.bytes_received;
        measures.bytes.client_out = self.client_out.get();
        measures.bytes.server_in = measures.stats.bytes_sent;
        measures.bytes.server_out = self.server_out.get();
        measures.prepared_hits = self.prepared_hits.get();
        measures.prepared_misses = measures.stats.server_parse_count;
        measures.trades = self.trades();
    }
}

fn counts<L: Label>(cells: &[Cell<u64>]) -> Counts<L> {
    Counts::new(cells.iter().map(Cell::get))
}
