//! SHOW of what is configured: DATABASES, USERS, PEERS, CONFIG.

use crate::admin::CONSOLE;
use crate::admin::rows::{DatabaseRow, UserRow};
use crate::admin::show::yes_no;
use crate::admin::table::{Cell, Table};
use crate::config::{Config, Database, PoolMode, SETTINGS, Settings};
use crate::worker::report::SocketRow;

/// The pool size that PgBouncer shows for its console.
pub(in crate::admin) const CONSOLE_POOL_SIZE: u32 = 2;
/// Width to which SHOW USERS fills up sizes.
const SIZE_WIDTH: usize = 9;

pub(super) fn config(to: &mut Table, settings: &Settings) {
    for row in SETTINGS {
        to.push([
            row.name.into(),
            row.text(settings).into(),
            row.default.into(),
            yes_no(row.changeable),
        ]);
    }
}

/// load_balance_hosts, where there is a choice.
pub(super) fn load_balance_hosts(db: &Database) -> Cell<'static> {
    let has_choice = db.hosts.len() > 1;
    has_choice.then(|| db.load_balance_hosts.as_str()).into()
}

pub(super) fn databases(
    to: &mut Table,
    config: &Config,
    mut rows: Vec<DatabaseRow>,
    consoles: usize,
) {
    rows.sort_by(|a, b| a.entry.name.cmp(&b.entry.name));
    let before = rows.partition_point(|row| row.entry.name.as_str() < CONSOLE);
    let (before, behind) = rows.split_at(before);
    before
        .iter()
        .for_each(|row| database(to, &config.settings, row));
    console_database(to, &config.settings, consoles);
    behind
        .iter()
        .for_each(|row| database(to, &config.settings, row));
}

fn database(to: &mut Table, global: &Settings, row: &DatabaseRow) {
    let db = &row.entry;
    let lifetime = db.server_lifetime.unwrap_or(global.server_lifetime);
    to.push([
        (&db.name).into(),
        (!db.hosts.is_empty()).then(|| db.hosts.join(",")).into(),
        db.port.into(),
        db.server_dbname().into(),
        db.user.as_ref().into(),
        db.pool_size.unwrap_or(global.default_pool_size).into(),
        db.min_pool_size.unwrap_or(global.min_pool_size).into(),
        db.reserve_pool_size
            .unwrap_or(global.reserve_pool_size)
            .into(),
        lifetime.as_secs().into(),
        db.pool_mode.map(PoolMode::as_str).into(),
        load_balance_hosts(db),
        db.max_db_connections
            .unwrap_or(global.max_db_connections)
            .into(),
        row.current_connections.into(),
        db.max_db_client_connections
            .unwrap_or(global.max_db_client_connections)
            .into(),
        row.current_client_connections.into(),
        row.paused.into(),
        row.disabled.into(),
    ]);
}

fn console_database(to: &mut Table, global: &Settings, consoles: usize) {
    to.push([
        CONSOLE.into(),
        Cell::Null,
        global.listen_port.into(),
        CONSOLE.into(),
        CONSOLE.into(),
        CONSOLE_POOL_SIZE.into(),
        0u32.into(),
        0u32.into(),
        global.server_lifetime.as_secs().into(),
        PoolMode::Statement.as_str().into(),
        Cell::Null,
        global.max_db_connections.into(),
        0u32.into(),
        global.max_db_client_connections.into(),
        (consoles as u64).into(),
        false.into(),
        false.into(),
    ]);
}

pub(super) fn users(
    to: &mut Table,
    config: &Config,
    mut rows: Vec<UserRow>,
    consoles: &[SocketRow],
) {
    if rows.iter().all(|row| row.name != CONSOLE) {
        rows.push(UserRow {
            name: CONSOLE.to_owned(),
            ..UserRow::default()
        });
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    for row in &rows {
        let own = consoles
            .iter()
            .filter(|console| console.user == row.name)
            .count();
        user(to, config, row, own as u64);
    }
}

fn user(to: &mut Table, config: &Config, row: &UserRow, consoles: u64) {
    let (user, global) = (config.user(&row.name), &config.settings);
    let clients = user
        .max_user_client_connections
        .unwrap_or(global.max_user_client_connections);
    to.push([
        (&row.name).into(),
        filled_up(user.pool_size),
        filled_up(user.reserve_pool_size),
        user.pool_mode.map(PoolMode::as_str).into(),
        user.max_user_connections
            .unwrap_or(global.max_user_connections)
            .into(),
        row.current_connections.into(),
        clients.into(),
        (row.current_client_connections + consoles).into(),
    ]);
}

/// A size of a user: text, aligned to the right, and empty (not NULL) where there is none.
fn filled_up(size: Option<u32>) -> Cell<'static> {
    let text = size.map(|size| format!("{size:>SIZE_WIDTH$}"));
    text.unwrap_or_default().into()
}

pub(super) fn peers(to: &mut Table, config: &Config) {
    for (id, peer) in &config.peers {
        to.push([
            (*id).into(),
            (&peer.host).into(),
            peer.port.into(),
            peer.pool_size
                .unwrap_or(config.settings.default_pool_size)
                .into(),
        ]);
    }
}
