//! What a worker has measured, read when somebody asks.

use std::time::{Duration, Instant};

use super::Worker;
use crate::client::card::{ClientCard, ClientState};
use crate::metrics::{PoolMeasures, Trades, WorkerMeasures};
use crate::pool::shard::Shard;

impl Worker {
    /// What was measured here.
    pub(super) fn measures(&self, now: Instant) -> WorkerMeasures {
        let mut measures = WorkerMeasures {
            worker: self.around.worker,
            ..WorkerMeasures::default()
        };
        for (card, _) in self.roster.borrow().values() {
            measures.clients += 1;
            measures.waiting += u64::from(waits(card));
        }
        for shard in self.each_shard() {
            let pool = pool_measures(&shard, now);
            measures.stats += pool.stats;
            measures.trades = Trades {
                given: measures.trades.given + pool.trades.given,
                taken: measures.trades.taken + pool.trades.taken,
            };
            shard.with_core(|core| {
                let at_rest = core.idle() + core.used() + core.testing() + shard.held_back();
                measures.servers += (core.lent() + at_rest) as u64;
                measures.servers_active += core.lent() as u64;
            });
            measures.pools.push(pool);
        }
        measures
    }
}

fn waits(card: &ClientCard) -> bool {
    match card.state.get() {
        ClientState::Waiting => true,
        ClientState::Login => card.wait_start.get().is_some(),
        ClientState::Idle | ClientState::Active | ClientState::Inquiring => false,
    }
}

fn pool_measures(shard: &Shard, now: Instant) -> PoolMeasures {
    let mut measures = shard.measures();
    measures.clients = shard.clients.get() as u64;
    for reason in shard.reasons() {
        measures.waiting.add(reason, 1);
    }
    let oldest = shard.with_core(|core| core.oldest_wait());
    measures.longest_wait =
        oldest.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
    measures
}
