//! SHOW EXPLAIN CLIENT: what a client does and since when, why it waits, and what would help. The words are pure; [`run`] gathers
//! what they are made of.

use std::time::Duration;

use crate::admin::command::Show;
use crate::admin::desk::Desk;
use crate::admin::error::CommandError;
use crate::admin::operator::Operator;
use crate::admin::show::layout;
use crate::admin::table::{Formats, Table};
use crate::metrics::{Limit, PoolLimits, WaitReason};
use crate::worker::report::{ClientDoes, ClientView, Holder, QueueView, SocketRow, Waits};

/// Answers SHOW EXPLAIN CLIENT.
///
/// # Errors
/// There is no number, or no client with it.
pub async fn run<O: Operator>(
    id: Option<u64>,
    operator: &O,
    desk: &Desk,
    formats: Formats,
) -> Result<Table, CommandError> {
    let id = id.ok_or(CommandError::ClientIdNeeded)?;
    let mut table = Table::new(layout::columns(Show::ExplainClient(None)), formats);
    let Some(view) = operator.view(id).await else {
        let elsewhere = operator.arrivals().into_iter().chain(desk.rows());
        let row = elsewhere.into_iter().find(|row| row.id == id);
        outsider(&mut table, &row.ok_or(CommandError::NoSuchClient(id))?);
        return Ok(table);
    };
    let limit = view
        .waits
        .map_or(Limit::Pool, |waits| limit_of(waits.reason));
    let queue = operator.queue(&view.pool, limit).await;
    let pools = operator.measures().await.pools;
    let pool = pools
        .iter()
        .find(|pool| pool.database == view.pool.database && pool.user == view.pool.user);
    let around = Around {
        limits: pool.map(|pool| pool.limits).unwrap_or_default(),
        connections: pool.map_or(0, |pool| pool.connections),
        queue: &queue,
    };
    let explained = explain(&view, &around);
    table.push([
        view.id.into(),
        (&view.database).into(),
        (&view.user).into(),
        explained.state.into(),
        u64::try_from(explained.since.as_micros())
            .unwrap_or(u64::MAX)
            .into(),
        explained.place.into(),
        explained.reason.into(),
        explained.hint.into(),
    ]);
    Ok(table)
}

/// A client that no worker has: it logs in, or is a console.
fn outsider(to: &mut Table, row: &SocketRow) {
    let age = row.connect_time.elapsed().unwrap_or_default();
    let (state, reason, hint) = match row.state {
        "login" => (
            "logging in",
            format!(
                "connected {} ago and has not proved who it is yet",
                eyes(age)
            ),
            "client_login_timeout bounds this; with LDAP or PAM look at what answers there",
        ),
        _ => (
            "console",
            "is a console, which needs no server".to_owned(),
            "",
        ),
    };
    to.push([
        row.id.into(),
        (&row.database).into(),
        (&row.user).into(),
        state.into(),
        u64::try_from(age.as_micros()).unwrap_or(u64::MAX).into(),
        0u64.into(),
        reason.into(),
        hint.into(),
    ]);
}

/// What a client competes for.
struct Around<'a> {
    limits: PoolLimits,
    /// Server connections of the pool, on all workers.
    connections: u64,
    queue: &'a QueueView,
}

/// What is said of a client.
#[derive(Debug, PartialEq, Eq)]
struct Explained {
    state: &'static str,
    /// For how long it has been in this state.
    since: Duration,
    /// Its place in the queue, from 1; 0 if it does not wait.
    place: u64,
    reason: String,
    hint: String,
}

/// The limit whose servers are worth a look.
fn limit_of(reason: WaitReason) -> Limit {
    match reason {
        WaitReason::DatabaseLimit => Limit::Database,
        WaitReason::UserLimit => Limit::User,
        WaitReason::PoolFull
        | WaitReason::Paused
        | WaitReason::ServerDown
        | WaitReason::LoggingIn => Limit::Pool,
    }
}

fn explain(view: &ClientView, around: &Around<'_>) -> Explained {
    if let Some(waits) = view.waits {
        return explain_wait(view, waits, around);
    }
    let (state, since, reason, hint) = explain_rest(view);
    Explained {
        state,
        since,
        place: 0,
        reason,
        hint: hint.to_owned(),
    }
}

fn explain_rest(view: &ClientView) -> (&'static str, Duration, String, &'static str) {
    let query = view.query.unwrap_or_default();
    let transaction = view.transaction.unwrap_or_default();
    let (quiet, pid) = (view.quiet, view.server_pid);
    match view.does {
        ClientDoes::Queries => (
            "active",
            query,
            format!("its query runs for {} in server process {pid}", eyes(query)),
            "look for that pid in pg_stat_activity; query_timeout bounds such times",
        ),
        ClientDoes::IdlesInTransaction => (
            "idle in transaction",
            quiet,
            format!(
                "holds server process {pid} in a transaction that began {} ago, and has asked it nothing for {}",
                eyes(transaction),
                eyes(quiet)
            ),
            "the application has not ended its transaction; idle_transaction_timeout bounds such times",
        ),
        ClientDoes::KeepsServer => (
            "linked",
            quiet,
            format!(
                "keeps server process {pid} though no query and no transaction goes on, for {}",
                eyes(quiet)
            ),
            "so it is in session pooling and for replication; with pool_mode = transaction a server serves others meanwhile",
        ),
        ClientDoes::IsAskedAbout => (
            "logging in",
            query,
            format!("auth_query asks about its user since {}", eyes(query)),
            "the answer comes from the pool of auth_dbname or of its own database",
        ),
        ClientDoes::AwaitsGreeting | ClientDoes::Waits => (
            "active",
            Duration::ZERO,
            "has just been given what it waited for".to_owned(),
            "",
        ),
        ClientDoes::Nothing => (
            "idle",
            quiet,
            format!("has asked nothing for {}, and holds no server", eyes(quiet)),
            "",
        ),
    }
}

fn explain_wait(view: &ClientView, waits: Waits, around: &Around<'_>) -> Explained {
    let before = around
        .queue
        .waits
        .iter()
        .filter(|since| **since < waits.since)
        .count() as u64;
    let for_what = match view.does {
        ClientDoes::AwaitsGreeting => " to be greeted, for which a server is needed first",
        _ => "",
    };
    let mut reason = format!(
        "waits {}{for_what}: {}; {}",
        eyes(waits.waited),
        why(view, waits.reason, around),
        before_it(before),
    );
    let oldest = around.queue.oldest.filter(|_| is_limit(waits.reason));
    if let Some(holder) = oldest {
        reason.push_str(&format!("; {}", holds(holder)));
    }
    Explained {
        state: match view.does {
            ClientDoes::AwaitsGreeting => "waiting for its greeting",
            _ => "waiting",
        },
        since: waits.waited,
        place: before + 1,
        reason,
        hint: hint(waits.reason, oldest),
    }
}

fn is_limit(reason: WaitReason) -> bool {
    matches!(
        reason,
        WaitReason::PoolFull | WaitReason::DatabaseLimit | WaitReason::UserLimit
    )
}

fn before_it(before: u64) -> String {
    match before {
        0 => "nobody is before it".to_owned(),
        1 => "1 client is before it".to_owned(),
        several => format!("{several} clients are before it"),
    }
}

fn why(view: &ClientView, reason: WaitReason, around: &Around<'_>) -> String {
    let (pool, limits) = (&view.pool, &around.limits);
    match reason {
        WaitReason::PoolFull => format!(
            "the pool {pool} has all {} of {} servers, and {} of them are in use",
            around.connections, limits.pool, around.queue.in_use
        ),
        WaitReason::DatabaseLimit => format!(
            "the database {} has all {} connections that max_db_connections allows",
            pool.database, limits.database
        ),
        WaitReason::UserLimit => format!(
            "the user {} has all {} connections that max_user_connections allows",
            pool.user, limits.user
        ),
        WaitReason::Paused => format!("the pool {pool} is paused"),
        WaitReason::ServerDown => format!(
            "no server can be connected for the pool {pool}: {}",
            around
                .queue
                .failure
                .as_deref()
                .unwrap_or("the last attempt failed")
        ),
        WaitReason::LoggingIn => {
            "a server is being connected, logged in to or tested for it".to_owned()
        }
    }
}

/// Who holds a server for longest.
fn holds(holder: Holder) -> String {
    let (client, lasts) = (holder.client, eyes(holder.lasts));
    match holder.does {
        ClientDoes::IdlesInTransaction => format!(
            "the oldest transaction on them lasts {lasts} (client {client}, idle in transaction)"
        ),
        ClientDoes::KeepsServer => {
            format!("client {client} keeps one of them and has asked it nothing for {lasts}")
        }
        _ => format!("the oldest transaction on them lasts {lasts} (client {client}, in a query)"),
    }
}

fn hint(reason: WaitReason, oldest: Option<Holder>) -> String {
    let text = match reason {
        WaitReason::Paused => "RESUME ends the pause",
        WaitReason::ServerDown => {
            "look whether PostgreSQL runs and takes connections; the next attempt comes after server_login_retry"
        }
        WaitReason::LoggingIn => {
            "if this lasts: SHOW LATENCY tells how long connecting takes, server_connect_timeout bounds it; min_pool_size keeps servers ready"
        }
        WaitReason::PoolFull | WaitReason::DatabaseLimit | WaitReason::UserLimit => {
            return hint_for_limit(reason, oldest);
        }
    };
    text.to_owned()
}

fn hint_for_limit(reason: WaitReason, oldest: Option<Holder>) -> String {
    let setting = match reason {
        WaitReason::DatabaseLimit => "max_db_connections",
        WaitReason::UserLimit => "max_user_connections",
        _ => "pool_size",
    };
    let Some(holder) = oldest.filter(|holder| holder.lasts >= LONG) else {
        return format!(
            "servers are held for short times only: if PostgreSQL can take more, raise {setting}; SHOW TOP tells who uses most"
        );
    };
    let client = holder.client;
    match holder.does {
        ClientDoes::IdlesInTransaction => format!(
            "the application leaves transactions open: KILL_CLIENT {client} frees that server, idle_transaction_timeout bounds such times; else raise {setting}"
        ),
        ClientDoes::KeepsServer => format!(
            "KILL_CLIENT {client} frees that server; pool_mode = transaction shares them; else raise {setting}"
        ),
        _ => format!(
            "look at that query (SHOW EXPLAIN CLIENT {client}); query_timeout bounds such times; else raise {setting}"
        ),
    }
}

/// From here on it is worth a word that somebody holds a server.
const LONG: Duration = Duration::from_secs(1);

/// A time as people say it.
fn eyes(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..10 => format!("{:.1} s", time.as_secs_f64()),
        10..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;
    use std::time::Instant;

    use super::*;
    use crate::types::PoolKey;

    /// A moment that all times here are counted from.
    fn now() -> Instant {
        static NOW: OnceLock<Instant> = OnceLock::new();
        *NOW.get_or_init(|| Instant::now() + Duration::from_secs(60))
    }

    fn client(does: ClientDoes, waits: Option<(u64, WaitReason)>) -> ClientView {
        ClientView {
            id: 7,
            pool: PoolKey {
                database: "app".to_owned(),
                user: "weir".to_owned(),
            },
            database: "app".to_owned(),
            user: "joe".to_owned(),
            does,
            waits: waits.map(|(ms, reason)| Waits {
                since: now() - Duration::from_millis(ms),
                waited: Duration::from_millis(ms),
                reason,
            }),
            query: Some(Duration::from_secs(34)),
            transaction: Some(Duration::from_secs(300)),
            quiet: Duration::from_millis(1500),
            server_pid: 4711,
        }
    }

    /// Behind 13 others, and before one.
    fn queue(oldest: Option<(ClientDoes, u64)>) -> QueueView {
        let waited_ms = [[2000; 13].as_slice(), &[1200, 900]].concat();
        let since = |ms| now() - Duration::from_millis(ms);
        let waits = waited_ms.into_iter().map(since).collect();
        QueueView {
            waits,
            in_use: 20,
            failure: Some("connect failed".to_owned()),
            oldest: oldest.map(|(does, seconds)| Holder {
                client: 812,
                does,
                lasts: Duration::from_secs(seconds),
            }),
        }
    }

    fn explained(view: &ClientView, queue: &QueueView) -> Explained {
        let limits = PoolLimits {
            pool: 20,
            reserve: 0,
            database: 30,
            user: 40,
        };
        let connections = 20;
        explain(
            view,
            &Around {
                limits,
                connections,
                queue,
            },
        )
    }

    #[track_caller]
    fn check_wait(reason: WaitReason, oldest: Option<(ClientDoes, u64)>, text: &str, hint: &str) {
        let got = explained(
            &client(ClientDoes::Waits, Some((1200, reason))),
            &queue(oldest),
        );
        assert_eq!((got.state, got.place), ("waiting", 14));
        assert_eq!(got.reason, text);
        assert!(got.hint.contains(hint), "{}", got.hint);
    }

    #[test]
    fn a_full_pool_and_who_fills_it() {
        check_wait(
            WaitReason::PoolFull,
            Some((ClientDoes::IdlesInTransaction, 34)),
            "waits 1.2 s: the pool app/weir has all 20 of 20 servers, and 20 of them are in use; 13 clients are before it; \
             the oldest transaction on them lasts 34 s (client 812, idle in transaction)",
            "KILL_CLIENT 812",
        );
        check_wait(
            WaitReason::DatabaseLimit,
            Some((ClientDoes::Queries, 125)),
            "waits 1.2 s: the database app has all 30 connections that max_db_connections allows; 13 clients are before it; \
             the oldest transaction on them lasts 2 min (client 812, in a query)",
            "SHOW EXPLAIN CLIENT 812",
        );
        check_wait(
            WaitReason::UserLimit,
            Some((ClientDoes::KeepsServer, 0)),
            "waits 1.2 s: the user weir has all 40 connections that max_user_connections allows; 13 clients are before it; \
             client 812 keeps one of them and has asked it nothing for 0 ms",
            "raise max_user_connections",
        );
    }

    #[test]
    fn reasons_that_are_no_limit() {
        let holder = Some((ClientDoes::Queries, 9));
        check_wait(
            WaitReason::Paused,
            holder,
            "waits 1.2 s: the pool app/weir is paused; 13 clients are before it",
            "RESUME",
        );
        check_wait(
            WaitReason::ServerDown,
            holder,
            "waits 1.2 s: no server can be connected for the pool app/weir: connect failed; 13 clients are before it",
            "server_login_retry",
        );
        check_wait(
            WaitReason::LoggingIn,
            holder,
            "waits 1.2 s: a server is being connected, logged in to or tested for it; 13 clients are before it",
            "server_connect_timeout",
        );
    }

    #[test]
    fn clients_that_do_not_wait() {
        for (does, state, since_ms, text) in [
            (
                ClientDoes::Nothing,
                "idle",
                1500,
                "has asked nothing for 1.5 s, and holds no server",
            ),
            (
                ClientDoes::Queries,
                "active",
                34_000,
                "its query runs for 34 s in server process 4711",
            ),
            (
                ClientDoes::IdlesInTransaction,
                "idle in transaction",
                1500,
                "holds server process 4711 in a transaction that began 5 min ago, and has asked it nothing for 1.5 s",
            ),
        ] {
            let got = explained(&client(does, None), &queue(None));
            assert_eq!((got.state, got.place, &*got.reason), (state, 0, text));
            assert_eq!(got.since, Duration::from_millis(since_ms));
        }
    }

    #[test]
    fn the_first_in_the_queue() {
        let waits = Some((5000, WaitReason::PoolFull));
        let got = explained(&client(ClientDoes::AwaitsGreeting, waits), &queue(None));
        assert_eq!((got.state, got.place), ("waiting for its greeting", 1));
        assert!(got.reason.contains("to be greeted"), "{}", got.reason);
        assert!(
            got.reason.ends_with("; nobody is before it"),
            "{}",
            got.reason
        );
    }
}
