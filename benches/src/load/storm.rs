//! `storm`: logins, each followed by one query and the end, as an application without a pool of its own makes them.
//!
//! Either as fast as `--clients` can one after the other, or `--rate` of them per second, at most `--clients` at the same time; then
//! a login's time counts from the moment when it should have begun. With `--tls require` each makes a full handshake.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout_at};

use super::arrivals::Arrivals;
use super::connection::Connection;
use super::crew::{Gate, SharedTarget, Window, on_threads};
use super::cycle::{DRAIN_SECONDS_MAX, FAILURE_REST};
use super::error::LoadError;
use super::open::check_rate;
use super::options::{Crowd, Peer};
use super::outcome::{Outcome, per_second};
use super::schedule::Schedule;
use super::tally::{Failures, Latencies, Percentiles};
use super::target::Target;

/// Its command line.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    peer: Peer,
    #[command(flatten)]
    crowd: Crowd,
    /// Logins per second; without it, as fast as the clients can
    #[arg(long)]
    rate: Option<f64>,
}

#[derive(Serialize)]
struct Figures {
    /// What was asked for, per second.
    rate: Option<f64>,
    /// Logins done within the time.
    logins: u64,
    logins_per_second: f64,
    /// Logins due within the time that were not begun at its end.
    unfinished: u64,
    /// From connect(), or from when it was due, to the ReadyForQuery after the login.
    login_us: Percentiles,
    /// The same to the ReadyForQuery after the query.
    session_us: Percentiles,
}

/// What a thread saw, or all.
#[derive(Default)]
struct Seen {
    logins: Latencies,
    sessions: Latencies,
    done: u64,
    unfinished: u64,
    failures: Failures,
    tls: Option<String>,
}

/// What the tasks of a thread share.
struct Shared {
    to: Rc<SharedTarget>,
    window: Window,
    arrivals: Arrivals,
    seen: RefCell<Seen>,
}

/// Runs it.
///
/// # Errors
/// Logins and queries that failed.
pub fn run(options: &Options) -> Result<(), LoadError> {
    let crowd = options.crowd.checked()?;
    options.rate.map_or(Ok(()), check_rate)?;
    let target = Arc::new(Target::new(&options.peer)?);
    let gate = Gate::new(&crowd);
    let parts = on_threads(&crowd, |thread| {
        let schedule = options
            .rate
            .map(|rate| Schedule::new(rate, thread, crowd.threads));
        one_thread(&target, crowd.share(thread), schedule, &gate)
    })?;
    let mut seen = Seen::default();
    parts.into_iter().for_each(|part| seen.add(part));
    let outcome = Outcome {
        kind: "storm",
        clients: crowd.clients,
        threads: crowd.threads,
        seconds: crowd.seconds,
        tls: seen.tls.clone(),
        figures: seen.figures(options.rate, crowd.length()),
        generator_cpu: gate.cpu(),
        failed: 0,
        first_error: None,
    };
    outcome.with(&seen.failures).print("logins or queries")
}

impl Seen {
    fn add(&mut self, other: Seen) {
        self.logins.add(&other.logins);
        self.sessions.add(&other.sessions);
        self.done += other.done;
        self.unfinished += other.unfinished;
        self.failures.add(other.failures);
        self.tls = self.tls.take().or(other.tls);
    }

    fn figures(&self, rate: Option<f64>, length: Duration) -> Figures {
        Figures {
            rate,
            logins: self.done,
            logins_per_second: per_second(self.done, length),
            unfinished: self.unfinished,
            login_us: self.logins.percentiles(),
            session_us: self.sessions.percentiles(),
        }
    }
}

async fn one_thread(
    target: &Arc<Target>,
    clients: usize,
    schedule: Option<Schedule>,
    gate: &Gate<'_>,
) -> Result<Seen, LoadError> {
    // Nobody logs in before the storm.
    let window = gate.pass(Failures::default())?;
    let shared = Rc::new(Shared {
        to: SharedTarget::new(target),
        window,
        arrivals: Arrivals::new(window, schedule),
        seen: RefCell::default(),
    });
    let tasks: Vec<_> = (0..clients)
        .map(|_| spawn_local(one_task(shared.clone())))
        .collect();
    let driven = shared.arrivals.drive(clients).await;
    driven.map_err(|error| LoadError::Io("the clock of the storm", error))?;
    for task in tasks {
        if let Err(panicked) = task.await {
            shared.seen.borrow_mut().failures.note(&panicked);
        }
    }
    let mut seen = shared.seen.take();
    seen.unfinished = shared.arrivals.left(&mut seen.logins);
    Ok(seen)
}

/// Logs in again and again, until the end.
async fn one_task(shared: Rc<Shared>) {
    let limit = shared.window.end + Duration::from_secs(DRAIN_SECONDS_MAX);
    while let Some(intended) = shared.arrivals.next().await {
        let done = timeout_at(limit.into(), one_session(&shared, intended)).await;
        let late = |_| Err(LoadError::Late("reply after the end", DRAIN_SECONDS_MAX));
        if let Err(error) = done.unwrap_or_else(late) {
            shared.seen.borrow_mut().failures.note(&error);
            sleep(FAILURE_REST).await;
        }
    }
}

async fn one_session(shared: &Shared, intended: Instant) -> Result<(), LoadError> {
    let target = &shared.to.target;
    let mut connection = Connection::open(target, &shared.to.scratch).await?;
    let logged_in = Instant::now();
    connection.prepare(target).await?;
    connection.ask(&target.request.round).await?;
    let answered = Instant::now();
    shared.note(intended, logged_in, answered, &connection);
    connection.close(target).await;
    Ok(())
}

impl Shared {
    fn note(&self, intended: Instant, logged_in: Instant, answered: Instant, one: &Connection) {
        let mut seen = self.seen.borrow_mut();
        seen.done += u64::from(self.window.holds(logged_in));
        if intended >= self.window.start {
            seen.logins.note(logged_in - intended);
            seen.sessions.note(answered - intended);
        }
        if seen.tls.is_none() {
            seen.tls = one.tls();
        }
    }
}
