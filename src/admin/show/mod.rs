//! SHOW: gathers rows from the program ([`run`]) and writes them in PgBouncer's layouts.
//!
//! | file | what |
//! |---|---|
//! | [`layout`] | the columns of every SHOW |
//! | [`pools`] | POOLS, PEER_POOLS, and adding up the rows of several workers |
//! | [`entries`] | DATABASES, USERS, PEERS, CONFIG |
//! | [`sockets`] | CLIENTS, SERVERS, SOCKETS, ACTIVE_SOCKETS |
//! | [`mem`] | MEM |
//! | [`stats`] | STATS and its relatives |
//! | [`latency`] | LATENCY, WAITS, COUNTERS, ERRORS, WORKERS, TOP: pgweir's own |
//! | [`explain`] | EXPLAIN CLIENT: what a client does, and why it waits |
//!
//! All but [`run`] is pure.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Instant;

use super::command::{PARAMETERS, Show};
use super::desk::Desk;
use super::operator::{GlobalState, Operator};
use super::rows::{DnsHostRow, DnsZoneRow, Lists};
use super::table::{Cell, Formats, Table};
use super::{COMPATIBLE_VERSION, CONSOLE};
use crate::worker::report::{PoolRow, SocketRow};

pub mod entries;
pub mod explain;
pub mod latency;
pub mod layout;
pub mod mem;
pub mod pools;
pub mod sockets;
pub mod stats;

/// Answers one SHOW.
pub async fn run<O: Operator>(show: Show, operator: &O, desk: &Desk, formats: Formats) -> Table {
    let mut table = Table::new(layout::columns(show), formats);
    let to = &mut table;
    let config = operator.config();
    match show {
        Show::Help => {}
        Show::Version => to.push([format!("PgBouncer {COMPATIBLE_VERSION}").into()]),
        Show::PgweirVersion => to.push([env!("CARGO_PKG_VERSION").into()]),
        Show::Parameter(index) => parameter(to, index),
        Show::Config => entries::config(to, &config.settings),
        Show::State => state(to, operator.state()),
        Show::Lists => lists(to, &counts(operator, desk).await),
        Show::Databases => entries::databases(to, &config, operator.databases().await, desk.len()),
        Show::Users => entries::users(to, &config, operator.users().await, &desk.rows()),
        Show::Pools => pools::pools(to, &config, operator.pools().await, desk.pool_row()),
        Show::Peers => entries::peers(to, &config),
        Show::PeerPools => pools::peer_pools(to, operator.peer_pools().await),
        Show::Clients => sockets::connections(to, 'C', &clients(operator, desk).await),
        Show::Servers => sockets::connections(to, 'S', &operator.servers().await),
        Show::Sockets => {
            sockets::sockets(to, 'C', &client_sockets(operator, desk).await);
            sockets::sockets(to, 'S', &operator.servers().await);
        }
        Show::ActiveSockets => {
            sockets::sockets(to, 'C', &sockets::active(clients(operator, desk).await));
            sockets::sockets(to, 'S', &sockets::active(operator.servers().await));
        }
        Show::Stats | Show::StatsTotals | Show::StatsAverages | Show::Totals => {
            let turn = desk.turn().await;
            let report = turn.stats(Instant::now(), operator.pools().await);
            stats::stats(to, show, &report);
        }
        Show::DnsHosts => dns_hosts(to, operator.dns_hosts().await),
        Show::Mem => {
            let counts = counts(operator, desk).await;
            mem::mem(to, &counts, &operator.servers().await);
        }
        Show::Counters => latency::counters(to, &operator.measures().await.pools),
        Show::Errors => latency::errors(to, &operator.measures().await),
        Show::Latency => latency::latency(to, &operator.measures().await.pools),
        Show::Waits => latency::waits(to, &operator.measures().await.pools),
        Show::Workers => latency::workers(to, &operator.measures().await),
        Show::Top => {
            let top = desk.top(Instant::now(), operator.pools().await);
            latency::top(to, top);
        }
        // Answered by `explain::run`, which may fail.
        Show::ExplainClient(_) => {}
        Show::DnsZones => dns_zones(to, operator.dns_zones().await),
    }
    table
}

/// As [`clients`], with those that are still logging in.
async fn client_sockets<O: Operator>(operator: &O, desk: &Desk) -> Vec<SocketRow> {
    let mut rows = clients(operator, desk).await;
    let known: HashSet<u64> = rows.iter().map(|row| row.id).collect();
    let arrivals = operator.arrivals().into_iter();
    rows.extend(arrivals.filter(|row| !known.contains(&row.id)));
    rows
}

async fn clients<O: Operator>(operator: &O, desk: &Desk) -> Vec<SocketRow> {
    let mut rows = operator.clients().await;
    rows.extend(desk.rows());
    rows
}

fn parameter(to: &mut Table, index: usize) {
    if let Some((_, value)) = PARAMETERS.get(index) {
        to.push([(*value).into()]);
    }
}

fn yes_no(yes: bool) -> Cell<'static> {
    if yes { "yes" } else { "no" }.into()
}

fn state(to: &mut Table, state: GlobalState) {
    to.push(["active".into(), yes_no(!state.paused)]);
    to.push(["paused".into(), yes_no(state.paused)]);
    if state.draining {
        to.push(["draining".into(), yes_no(true)]);
    }
}

/// What SHOW LISTS counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) databases: usize,
    pub(super) users: usize,
    peers: usize,
    pub(super) pools: usize,
    peer_pools: usize,
    pub(super) dns_names: usize,
    pub(super) dns_zones: usize,
    pub(super) consoles: usize,
    pub(super) lists: Lists,
}

async fn counts<O: Operator>(operator: &O, desk: &Desk) -> Counts {
    count(operator, desk, &operator.pools().await).await
}

/// The same with rows of pools that have been asked for already.
pub(super) async fn count<O: Operator>(operator: &O, desk: &Desk, rows: &[PoolRow]) -> Counts {
    let users = operator.users().await;
    let own_user = usize::from(users.iter().all(|user| user.name != CONSOLE));
    Counts {
        databases: operator.databases().await.len() + 1,
        users: users.len() + own_user,
        peers: operator.config().peers.len(),
        pools: pools::count(rows) + 1,
        peer_pools: operator.peer_pools().await.len(),
        dns_names: operator.dns_hosts().await.len(),
        dns_zones: operator.dns_zones().await.len(),
        consoles: desk.len(),
        lists: operator.lists(rows),
    }
}

fn lists(to: &mut Table, counts: &Counts) {
    let lists = &counts.lists;
    let items = [
        ("databases", counts.databases as u64),
        ("users", counts.users as u64),
        ("peers", counts.peers as u64),
        ("pools", counts.pools as u64),
        ("peer_pools", counts.peer_pools as u64),
        // Connections that ended are not kept for reuse.
        ("free_clients", 0),
        ("used_clients", lists.used_clients + counts.consoles as u64),
        ("login_clients", lists.login_clients),
        ("free_servers", 0),
        ("used_servers", lists.used_servers),
        ("dns_names", counts.dns_names as u64),
        ("dns_zones", counts.dns_zones as u64),
        ("dns_queries", lists.dns_queries),
        ("dns_pending", 0),
    ];
    for (name, count) in items {
        to.push([name.into(), count.into()]);
    }
}

fn dns_hosts(to: &mut Table, mut rows: Vec<DnsHostRow>) {
    rows.sort_by(|a, b| a.hostname.cmp(&b.hostname));
    for row in &rows {
        // PgBouncer prints socket addresses, whose port is not known here.
        let addresses = row.addresses.iter().map(|ip| SocketAddr::new(*ip, 0));
        let addresses: Vec<String> = addresses.map(|addr| addr.to_string()).collect();
        to.push([
            (&row.hostname).into(),
            row.ttl_s.into(),
            addresses.join(",").into(),
        ]);
    }
}

fn dns_zones(to: &mut Table, mut rows: Vec<DnsZoneRow>) {
    rows.sort_by(|a, b| a.zonename.cmp(&b.zonename));
    for row in &rows {
        to.push([
            (&row.zonename).into(),
            u64::from(row.serial).into(),
            row.count.into(),
        ]);
    }
}

#[cfg(test)]
mod tests;
