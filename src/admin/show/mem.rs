//! SHOW MEM: how many there are of what costs memory, and what each takes.
//!
//! The names are those of PgBouncer's caches. Here nothing is kept for reuse, so that none is ever free, and what has no cache here
//! (outstanding requests, parameter lists) is counted with those that own it. Buffers and texts that things hold come on top.

use std::mem::size_of;

use super::Counts;
use crate::admin::table::Table;
use crate::auth::User;
use crate::client::card::ClientCard;
use crate::client::session::{SCRATCH_LEN, Session};
use crate::config::{Database, Peer};
use crate::pool::budget::PoolShare;
use crate::server::conn::Server;
use crate::worker::report::SocketRow;

/// What a prepared statement takes on a server: its entry in the list, without its text.
const STATEMENT_SIZE: usize = 72;

pub(super) fn mem(to: &mut Table, counts: &Counts, servers: &[SocketRow]) {
    let lists = &counts.lists;
    let clients = lists.used_clients + lists.login_clients + counts.consoles as u64;
    let statements = servers.iter().map(|row| row.prepared_statements).sum();
    let caches = [
        ("user_cache", size_of::<User>(), counts.users as u64),
        ("credentials_cache", size_of::<User>(), counts.pools as u64),
        ("db_cache", size_of::<Database>(), counts.databases as u64),
        ("peer_cache", size_of::<Peer>(), counts.peers as u64),
        (
            "peer_pool_cache",
            size_of::<PoolShare>(),
            counts.peer_pools as u64,
        ),
        ("pool_cache", size_of::<PoolShare>(), counts.pools as u64),
        ("outstanding_request_cache", 0, 0),
        ("server_cache", size_of::<Server>(), lists.used_servers),
        (
            "client_cache",
            size_of::<Session>() + size_of::<ClientCard>(),
            clients,
        ),
        ("iobuf_cache", SCRATCH_LEN, lists.workers),
        ("var_list_cache", 0, 0),
        (
            "server_prepared_statement_cache",
            STATEMENT_SIZE,
            statements,
        ),
    ];
    for (name, size, used) in caches {
        to.push([
            name.into(),
            (size as u64).into(),
            used.into(),
            0u32.into(),
            (size as u64 * used).into(),
        ]);
    }
}
