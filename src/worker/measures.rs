//! What a worker has measured, and what it knows of one client: read when somebody asks.

use std::rc::Rc;
use std::time::Instant;

use super::Worker;
use super::report::{ClientDoes, ClientView, Holder, QueueView, Waits};
use crate::client::card::{ClientCard, ClientState};
use crate::metrics::{Limit, PoolMeasures, WaitReason, WorkerMeasures};
use crate::pool::shard::Shard;
use crate::types::{ConnId, PoolKey, TxStatus};

impl Worker {
    /// What was measured here. Takes as long as there are pools and waiting clients: those who do nothing are not looked at.
    pub(super) fn measures(&self, now: Instant) -> WorkerMeasures {
        let (stats, trades) = self.around.gone.get();
        let mut measures = WorkerMeasures {
            worker: self.around.worker,
            clients: self.roster.borrow().len() as u64,
            stats,
            trades,
            ..WorkerMeasures::default()
        };
        for shard in self.each_shard() {
            let pool = self.pool_measures(&shard, now);
            measures.stats += pool.stats;
            measures.trades += pool.trades;
            measures.waiting += pool.waiting.total();
            shard.with_core(|core| {
                let at_rest = core.idle() + core.used() + core.testing() + shard.held_back();
                measures.servers += (core.lent() + at_rest) as u64;
                measures.servers_active += core.lent() as u64;
            });
            measures.pools.push(pool);
        }
        measures
    }

    fn pool_measures(&self, shard: &Shard, now: Instant) -> PoolMeasures {
        let mut measures = shard.measures();
        measures.clients = shard.clients.get() as u64;
        let mut note = |since: Instant, reason: WaitReason| {
            measures.waiting.add(reason, 1);
            let waited = now.saturating_duration_since(since).as_micros() as u64;
            let longest = measures.longest.get(reason);
            measures.longest.add(reason, waited.saturating_sub(longest));
        };
        for (_, since, reason) in shard.queue() {
            note(since, reason);
        }
        for client in shard.waiting_dedicated() {
            let since = self.card_of(client).and_then(|card| card.wait_start.get());
            note(since.unwrap_or(now), shard.why_dedicated(client));
        }
        measures
    }

    fn card_of(&self, client: ConnId) -> Option<Rc<ClientCard>> {
        let roster = self.roster.borrow();
        roster.get(&client).map(|(card, _)| card.clone())
    }
}

fn waits(card: &ClientCard) -> bool {
    match card.state.get() {
        ClientState::Waiting => true,
        ClientState::Login => card.wait_start.get().is_some(),
        ClientState::Idle | ClientState::Active | ClientState::Inquiring => false,
    }
}

// One client, and those it competes with.
impl Worker {
    /// What is known of a client here.
    pub(super) fn view(&self, client: ConnId, now: Instant) -> Option<ClientView> {
        let (card, shard) = self.roster.borrow().get(&client).cloned()?;
        let age = |since: Option<Instant>| since.map(|since| now.saturating_duration_since(since));
        let profile = card.profile();
        let waits_since = card.wait_start.get().filter(|_| waits(&card));
        let linked = card.linked.get();
        Some(ClientView {
            id: client.0,
            pool: shard.key().clone(),
            database: profile.database.clone(),
            user: profile.user.clone(),
            does: does(&card),
            waits: waits_since.map(|since| Waits {
                since,
                waited: now.saturating_duration_since(since),
                reason: self.why(client, &shard),
            }),
            query: age(card.query_start.get()),
            transaction: age(card.xact_start.get()),
            quiet: age(Some(card.last_reply.get().max(card.last_input.get()))).unwrap_or_default(),
            server_pid: linked.map_or(0, |server| server.facts.key.pid()),
        })
    }

    fn why(&self, client: ConnId, shard: &Shard) -> WaitReason {
        if shard.waiting_dedicated().contains(&client) {
            return shard.why_dedicated(client);
        }
        let queue = shard.queue();
        let place = queue.iter().position(|(who, ..)| *who == Some(client));
        // One that has been handed a server this very moment is in no queue any more.
        place.map_or(WaitReason::LoggingIn, |place| queue[place].2)
    }

    /// Who waits here for servers of this pool, and whose transaction has lasted longest of those that count against this limit.
    pub(super) fn queue_view(&self, pool: &PoolKey, limit: Limit, now: Instant) -> QueueView {
        let mut view = QueueView::default();
        if let Some(shard) = self.shards.borrow().get(pool) {
            let queue = shard.queue().into_iter();
            view.waits.extend(queue.map(|(_, since, _)| since));
            view.in_use = shard.with_core(|core| core.lent()) as u64;
            view.failure = shard
                .share()
                .last_failure()
                .map(|(_, error)| error.to_string());
        }
        let counts = |key: &PoolKey| match limit {
            Limit::Pool => key == pool,
            Limit::Database => key.database == pool.database,
            Limit::User => key.user == pool.user,
        };
        let roster = self.roster.borrow();
        let theirs = roster.values().filter(|(_, shard)| counts(shard.key()));
        let holders = theirs.filter_map(|(card, _)| holder(card, now));
        view.oldest = holders.max_by_key(|holder| holder.lasts);
        view
    }
}

fn does(card: &ClientCard) -> ClientDoes {
    match card.state.get() {
        ClientState::Login => ClientDoes::AwaitsGreeting,
        ClientState::Inquiring => ClientDoes::IsAskedAbout,
        ClientState::Idle => ClientDoes::Nothing,
        ClientState::Waiting => ClientDoes::Waits,
        ClientState::Active if card.query_start.get().is_some() => ClientDoes::Queries,
        ClientState::Active if card.status.get() != TxStatus::Idle => {
            ClientDoes::IdlesInTransaction
        }
        ClientState::Active => ClientDoes::KeepsServer,
    }
}

/// For how long a client that holds a server has held it, as far as is known: since its transaction began, or since it was last
/// heard of if it is in none.
fn holder(card: &ClientCard, now: Instant) -> Option<Holder> {
    let does = does(card);
    let since = match does {
        ClientDoes::Queries | ClientDoes::IdlesInTransaction => card.xact_start.get(),
        ClientDoes::KeepsServer => Some(card.last_input.get()),
        ClientDoes::IsAskedAbout => card.query_start.get(),
        ClientDoes::AwaitsGreeting | ClientDoes::Nothing | ClientDoes::Waits => None,
    };
    Some(Holder {
        client: card.id.0,
        does,
        lasts: since.map(|since| now.saturating_duration_since(since))?,
    })
}

/// Those of all workers as one.
pub fn merge_queues(views: Vec<QueueView>) -> QueueView {
    let mut sum = QueueView::default();
    for view in views {
        sum.waits.extend(view.waits);
        sum.in_use += view.in_use;
        sum.failure = sum.failure.or(view.failure);
        let longer = |holder: &Holder| holder.lasts;
        sum.oldest = sum.oldest.into_iter().chain(view.oldest).max_by_key(longer);
    }
    sum
}
