//! The rows that a worker tells about itself.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use super::Worker;
use super::report::{PoolRow, SocketRow};
use crate::client::card::{ClientCard, ClientState};
use crate::net::dial::Target;
use crate::pool::shard::{Dialing, Shard};
use crate::server::conn::{ParamSpace, ServerCard, ServerState};
use crate::server::params::ParamSet;
use crate::types::ConnId;

impl Worker {
    pub(super) fn pool_rows(&self, now: Instant) -> Vec<PoolRow> {
        let mut crowds: HashMap<*const Shard, Crowd> = HashMap::new();
        for (card, shard) in self.roster.borrow().values() {
            crowds
                .entry(Rc::as_ptr(shard))
                .or_default()
                .count(card, now);
        }
        let mut crowd = |shard: &Rc<Shard>| crowds.remove(&Rc::as_ptr(shard)).unwrap_or_default();
        let shards = self.each_shard();
        let crowds: Vec<Crowd> = shards.iter().map(&mut crowd).collect();
        let rows = shards.iter().zip(crowds);
        rows.map(|(shard, crowd)| pool_row(shard, crowd)).collect()
    }

    pub(super) fn client_rows(&self, now: Instant) -> Vec<SocketRow> {
        let port = self.blueprint.borrow().config.settings.listen_port;
        let roster = self.roster.borrow();
        let shown = roster
            .values()
            .filter_map(|(card, _)| Some((card, shown_state(card)?)));
        shown
            .map(|(card, state)| client_row(card, state, port, &self.sessions.space, now))
            .collect()
    }

    pub(super) fn server_rows(&self, now: Instant) -> Vec<SocketRow> {
        let mut rows = Vec::new();
        for shard in self.each_shard() {
            shard.mark_resting();
            rows.extend(
                shard.cards().iter().map(|card| {
                    server_row(card, &shard, self.replication_of(card.linked.get()), now)
                }),
            );
            let dials = shard.dials().into_iter();
            rows.extend(dials.map(|(id, dialing)| {
                let replication = self.replication_of(dialing.dedicated);
                dialing_row(id, &dialing, &shard, replication)
            }));
        }
        rows
    }
}

impl Worker {
    /// A server with `replication` is one that a replication client has to itself.
    fn replication_of(&self, client: Option<ConnId>) -> &'static str {
        let roster = self.roster.borrow();
        let client = client.and_then(|client| roster.get(&client));
        client.map_or("none", |(client, _)| client.replication.word())
    }
}

/// The clients of one pool.
#[derive(Default)]
struct Crowd {
    active: u64,
    waiting: u64,
    maxwait: Duration,
}

impl Crowd {
    fn count(&mut self, card: &ClientCard, now: Instant) {
        match card.state.get() {
            ClientState::Idle | ClientState::Active => self.active += 1,
            ClientState::Waiting | ClientState::Login => self.waiting += 1,
            ClientState::Inquiring => {}
        }
        self.maxwait = self.maxwait.max(card.query_wait(now).unwrap_or_default());
    }
}

fn pool_row(shard: &Shard, crowd: Crowd) -> PoolRow {
    let key = shard.key();
    shard.with_core(|core| PoolRow {
        database: key.database.clone(),
        user: key.user.clone(),
        cl_active: crowd.active,
        cl_waiting: crowd.waiting,
        cl_active_cancel_req: shard.cancels.get() as u64,
        cl_waiting_cancel_req: 0,
        sv_active: core.lent() as u64,
        sv_active_cancel: shard.cancels.get() as u64,
        sv_being_canceled: shard.held_back() as u64,
        sv_idle: core.idle() as u64,
        sv_used: core.used() as u64,
        sv_tested: core.testing() as u64,
        sv_login: core.dialing() as u64,
        maxwait: crowd.maxwait,
        stats: shard.stats(),
    })
}

fn wall_clock(instant: Instant, now: Instant) -> SystemTime {
    SystemTime::now() - now.saturating_duration_since(instant)
}

/// A client's state, as PgBouncer names it. Of those who are logging in, only the ones that wait in a queue are shown, as there.
pub(super) fn shown_state(card: &ClientCard) -> Option<&'static str> {
    match card.state.get() {
        ClientState::Login => card.wait_start.get().map(|_| "waiting"),
        ClientState::Inquiring => None,
        ClientState::Waiting => Some("waiting"),
        ClientState::Idle => Some("idle"),
        ClientState::Active => Some("active"),
    }
}

pub(super) fn application_name(params: &ParamSet, space: &ParamSpace) -> String {
    let index = space.tracked.index(b"application_name");
    let name = index
        .and_then(|index| params.get(index))
        .unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

fn client_row(
    card: &ClientCard,
    state: &'static str,
    listen_port: u16,
    space: &ParamSpace,
    now: Instant,
) -> SocketRow {
    let profile = card.profile();
    SocketRow {
        user: profile.user.clone(),
        database: profile.database.clone(),
        replication: card.replication.word(),
        state,
        request_time: wall_clock(card.request_time.get(), now),
        wait: card.query_wait(now).unwrap_or_default(),
        link: card.linked.get().map(|server| server.id.ptr()),
        tls: profile.tls.unwrap_or_default().to_owned(),
        application_name: application_name(&card.params(), space),
        prepared_statements: card.prepared.get() as u64,
        held: match card.state.get() {
            ClientState::Login | ClientState::Waiting => card.held.get() as u64,
            ClientState::Idle | ClientState::Active | ClientState::Inquiring => 0,
        },
        unsent: card.unsent.get() as u64,
        ..SocketRow::of_client(
            card.id,
            card.connect_time,
            card.peer(),
            profile.local,
            listen_port,
        )
    }
}

/// A server that is being connected, or logged in to.
fn dialing_row(
    id: ConnId,
    dialing: &Dialing,
    shard: &Shard,
    replication: &'static str,
) -> SocketRow {
    let key = shard.key();
    let (addr, port) = match &dialing.target {
        Target::Tcp { host, port } => (host.clone(), *port),
        Target::Unix { .. } => ("unix".to_owned(), shard.recipe().database.port),
    };
    SocketRow {
        user: key.user.clone(),
        database: key.database.clone(),
        replication,
        state: "new",
        addr,
        port,
        ..SocketRow::new(id, dialing.since)
    }
}

fn server_row(
    card: &ServerCard,
    shard: &Shard,
    replication: &'static str,
    now: Instant,
) -> SocketRow {
    let (key, facts) = (shard.key(), &card.facts);
    SocketRow {
        user: key.user.clone(),
        database: key.database.clone(),
        replication,
        state: match card.state.get() {
            ServerState::Active if card.linked.get().is_none() => "idle",
            state => state.word(),
        },
        addr: facts.addr.clone(),
        port: facts.port,
        local_addr: facts.local_addr.clone(),
        local_port: facts.local_port,
        connect_time: facts.connect_time,
        request_time: wall_clock(card.request_time.get(), now),
        wait: Duration::ZERO,
        close_needed: card.close_needed.get(),
        ptr: card.id.ptr(),
        link: card.linked.get().map(|client| client.ptr()),
        remote_pid: facts.key.pid(),
        tls: facts.tls.unwrap_or_default().to_owned(),
        application_name: application_name(&card.params.borrow(), shard.space()),
        prepared_statements: card.prepared.get() as u64,
        id: card.id.0,
        held: 0,
        unsent: 0,
    }
}
