//! `idle`: many clients that do nothing, for weighing the pooler.
//!
//! Speaks with its parent in lines: prints `{"event":"connected"}` when all are logged in; at the next line from standard input (or its
//! end) each runs one query, then it prints `{"event":"queried"}`; at the next all say goodbye, and it ends. Both events say how many
//! clients there are and how many seconds it took. A client that can't log in or isn't answered ends it with an error.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::connection::Connection;
use super::crew::{LOGINS_AT_ONCE, SharedTarget, log_in, on_threads, wait_for_line};
use super::error::LoadError;
use super::options::{Crowd, Peer};
use super::outcome::print_line;
use super::tally::Failures;
use super::target::Target;

/// Longest time for one query of each.
const QUERY_SECONDS_MAX: u64 = 60;

/// Its command line.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    peer: Peer,
    /// Clients
    #[arg(long, default_value_t = 1000)]
    clients: usize,
}

/// Runs it.
///
/// # Errors
/// Logins and queries that failed.
pub fn run(options: &Options) -> Result<(), LoadError> {
    let target = Arc::new(Target::new(&options.peer)?);
    // Idle clients need no second thread.
    let crowd = Crowd {
        clients: options.clients,
        threads: 1,
        seconds: 0.0,
        warm_up: 0.0,
        announce: false,
    };
    on_threads(&crowd, |_| all(&target, options.clients)).map(drop)
}

async fn all(target: &Arc<Target>, clients: usize) -> Result<(), LoadError> {
    let began = Instant::now();
    let mut failures = Failures::default();
    let connections = log_in(&SharedTarget::new(target), clients, &mut failures).await;
    none(&failures, "logins")?;
    event("connected", clients, began)?;
    wait_for_line()?;
    let began = Instant::now();
    let connections = query_all(connections, target, &mut failures).await;
    none(&failures, "queries")?;
    event("queried", clients, began)?;
    wait_for_line()?;
    for connection in connections {
        connection.close(target).await;
    }
    Ok(())
}

fn event(name: &str, clients: usize, began: Instant) -> Result<(), LoadError> {
    let seconds = began.elapsed().as_secs_f64();
    print_line(&json!({ "event": name, "clients": clients, "seconds": seconds }))
}

fn none(failures: &Failures, what: &'static str) -> Result<(), LoadError> {
    match failures.first() {
        None => Ok(()),
        Some(first) => Err(LoadError::Some {
            what,
            failed: failures.count,
            first: first.into(),
        }),
    }
}

/// As many at a time as logins.
async fn query_all(
    connections: Vec<Connection>,
    target: &Arc<Target>,
    failures: &mut Failures,
) -> Vec<Connection> {
    let at_once = Rc::new(Semaphore::new(LOGINS_AT_ONCE));
    let begin = |mut connection: Connection| {
        let (target, at_once) = (target.clone(), at_once.clone());
        spawn_local(async move {
            let _turn = at_once.acquire().await;
            let asking = connection.ask(&target.request.round);
            let late = |_| LoadError::Late("reply", QUERY_SECONDS_MAX);
            let limit = Duration::from_secs(QUERY_SECONDS_MAX);
            timeout(limit, asking).await.map_err(late)??;
            Ok::<_, LoadError>(connection)
        })
    };
    let tasks: Vec<_> = connections.into_iter().map(begin).collect();
    let mut connections = Vec::with_capacity(tasks.len());
    for task in tasks {
        match task.await {
            Ok(Ok(connection)) => connections.push(connection),
            Ok(Err(error)) => failures.note(&error),
            Err(panicked) => failures.note(&panicked),
        }
    }
    connections
}
