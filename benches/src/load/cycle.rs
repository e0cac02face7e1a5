//! Clients that each ask again as soon as they are answered: what `closed` and `fair` share.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout_at};

use super::connection::Connection;
use super::crew::{Gate, SharedTarget, Window, log_in, on_threads};
use super::error::LoadError;
use super::options::{Crowd, Peer};
use super::outcome::Outcome;
use super::tally::{Failures, Latencies};
use super::target::Target;

/// How long replies are waited for after a load's end.
pub const DRAIN_SECONDS_MAX: u64 = 30;
/// A client whose query has failed rests, lest a load that fails at once is a storm of its own.
pub const FAILURE_REST: Duration = Duration::from_millis(10);

/// What the clients of a thread saw, or of all.
#[derive(Default)]
pub struct Seen {
    /// Of the queries that began within the window, those answered after its end included.
    pub latencies: Latencies,
    /// For each client, how many queries were answered within the window.
    pub answered: Vec<u64>,
    /// What failed, from the load's beginning.
    pub failures: Failures,
}

impl Seen {
    /// Adds another thread's.
    pub fn add(&mut self, other: Seen) {
        self.latencies.add(&other.latencies);
        self.answered.extend(other.answered);
        self.failures.add(other.failures);
    }
}

/// Runs the load; `figures` makes the kind's own out of what was seen and the length of the window.
///
/// # Errors
/// When logins fail before the load.
pub fn run<F: Serialize>(
    kind: &'static str,
    peer: &Peer,
    crowd: &Crowd,
    figures: impl FnOnce(&Seen, Duration) -> F,
) -> Result<Outcome<F>, LoadError> {
    let crowd = crowd.checked()?;
    let target = Arc::new(Target::new(peer)?);
    let gate = Gate::new(&crowd);
    let parts = on_threads(&crowd, |thread| {
        one_thread(&target, crowd.share(thread), &gate)
    })?;
    let mut seen = Seen::default();
    parts.into_iter().for_each(|part| seen.add(part));
    let outcome = Outcome {
        kind,
        clients: crowd.clients,
        threads: crowd.threads,
        seconds: crowd.seconds,
        tls: gate.tls(),
        figures: figures(&seen, crowd.length()),
        generator_cpu: gate.cpu(),
        failed: 0,
        first_error: None,
    };
    Ok(outcome.with(&seen.failures))
}

async fn one_thread(
    target: &Arc<Target>,
    clients: usize,
    gate: &Gate<'_>,
) -> Result<Seen, LoadError> {
    let shared = SharedTarget::new(target);
    let mut failures = Failures::default();
    let connections = log_in(&shared, clients, &mut failures).await;
    connections.first().inspect(|first| gate.note_tls(first));
    let window = gate.pass(failures)?;
    let seen = Rc::new(RefCell::new(Seen::default()));
    let begin =
        |connection| spawn_local(one_client(connection, target.clone(), window, seen.clone()));
    let tasks: Vec<_> = connections.into_iter().map(begin).collect();
    for task in tasks {
        if let Err(panicked) = task.await {
            seen.borrow_mut().failures.note(&panicked);
        }
    }
    Ok(seen.take())
}

async fn one_client(
    mut connection: Connection,
    target: Arc<Target>,
    window: Window,
    seen: Rc<RefCell<Seen>>,
) {
    let mut answered = 0;
    let limit = window.end + Duration::from_secs(DRAIN_SECONDS_MAX);
    let asking = ask_on(&mut connection, &target, window, &seen, &mut answered);
    match timeout_at(limit.into(), asking).await {
        Ok(()) => connection.close(&target).await,
        Err(_) => {
            let late = LoadError::Late("reply after the end", DRAIN_SECONDS_MAX);
            seen.borrow_mut().failures.note(&late);
        }
    }
    seen.borrow_mut().answered.push(answered);
}

/// Asks until the window's end or the connection's. One reading of the clock ends a query and begins the next.
async fn ask_on(
    connection: &mut Connection,
    target: &Target,
    window: Window,
    seen: &RefCell<Seen>,
    answered: &mut u64,
) {
    let mut began = window.begin;
    while began < window.end {
        let result = connection.ask(&target.request.round).await;
        let mut now = Instant::now();
        match result {
            Ok(()) => {
                *answered += u64::from(window.holds(now));
                if began >= window.start {
                    seen.borrow_mut().latencies.note(now - began);
                }
            }
            Err(error) => {
                seen.borrow_mut().failures.note(&error);
                if error.ends_connection() {
                    return;
                }
                sleep(FAILURE_REST).await;
                now = Instant::now();
            }
        }
        began = now;
    }
}
