//! `open`: queries that arrive at a constant rate, whether or not earlier ones are answered, as the users of a website do.
//!
//! A latency counts from the moment when the query should have begun. While all connections are busy, queries wait here, and their
//! waiting counts: a stall of the other side makes every query late that came due during it, not only those that were on the way
//! (leaving them out is known as coordinated omission). Those that were never begun count with their age at the end.
//!
//! Each thread has its share of the connections and of the arrivals.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use tokio::task::spawn_local;
use tokio::time::timeout_at;

use super::arrivals::Arrivals;
use super::connection::Connection;
use super::crew::{Gate, SharedTarget, Window, log_in, on_threads};
use super::cycle::DRAIN_SECONDS_MAX;
use super::error::LoadError;
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
    /// Queries per second, of all clients together
    #[arg(long)]
    rate: f64,
}

#[derive(Serialize)]
struct Figures {
    /// What was asked for, per second.
    rate: f64,
    /// Queries answered within the time.
    queries: u64,
    per_second: f64,
    /// Queries due within the time and not answered at its end.
    unfinished: u64,
    /// From when they should have begun.
    latency_us: Percentiles,
    /// From when they began: what remains is time in the other side, without the wait for a free connection and our own delay.
    service_us: Percentiles,
}

/// What the connections of a thread saw, or of all.
#[derive(Default)]
struct Seen {
    latencies: Latencies,
    services: Latencies,
    answered: u64,
    unfinished: u64,
    failures: Failures,
}

/// Runs it.
///
/// # Errors
/// Logins before it, and queries within it, that failed.
pub fn run(options: &Options) -> Result<(), LoadError> {
    let crowd = options.crowd.checked()?;
    check_rate(options.rate)?;
    let target = Arc::new(Target::new(&options.peer)?);
    let gate = Gate::new(&crowd);
    let parts = on_threads(&crowd, |thread| {
        let schedule = Schedule::new(options.rate, thread, crowd.threads);
        one_thread(&target, crowd.share(thread), schedule, &gate)
    })?;
    let mut seen = Seen::default();
    parts.into_iter().for_each(|part| seen.add(part));
    let outcome = Outcome {
        kind: "open",
        clients: crowd.clients,
        threads: crowd.threads,
        seconds: crowd.seconds,
        tls: gate.tls(),
        figures: seen.figures(options.rate, crowd.length()),
        generator_cpu: gate.cpu(),
        failed: 0,
        first_error: None,
    };
    outcome.with(&seen.failures).print("queries")
}

/// Rates that a schedule can be made of.
///
/// # Errors
/// Zero, less, more than one every nanosecond, not a number.
pub fn check_rate(rate: f64) -> Result<(), LoadError> {
    if rate > 0.0 && rate <= 1e9 {
        return Ok(());
    }
    Err(LoadError::Options("--rate must be above zero".into()))
}

impl Seen {
    fn add(&mut self, other: Seen) {
        self.latencies.add(&other.latencies);
        self.services.add(&other.services);
        self.answered += other.answered;
        self.unfinished += other.unfinished;
        self.failures.add(other.failures);
    }

    fn figures(&self, rate: f64, length: Duration) -> Figures {
        Figures {
            rate,
            queries: self.answered,
            per_second: per_second(self.answered, length),
            unfinished: self.unfinished,
            latency_us: self.latencies.percentiles(),
            service_us: self.services.percentiles(),
        }
    }

    fn note_answer(&mut self, intended: Instant, began: Instant, window: Window) {
        let now = Instant::now();
        self.answered += u64::from(window.holds(now));
        if intended >= window.start {
            self.unfinished += u64::from(now > window.end);
            self.latencies.note(now - intended);
            self.services.note(now - began);
        }
    }
}

async fn one_thread(
    target: &Arc<Target>,
    clients: usize,
    schedule: Schedule,
    gate: &Gate<'_>,
) -> Result<Seen, LoadError> {
    let shared = SharedTarget::new(target);
    let mut failures = Failures::default();
    let connections = log_in(&shared, clients, &mut failures).await;
    connections.first().inspect(|first| gate.note_tls(first));
    let window = gate.pass(failures)?;
    let arrivals = Rc::new(Arrivals::new(window, Some(schedule)));
    let seen = Rc::new(RefCell::new(Seen::default()));
    let begin = |connection| {
        let (target, arrivals, seen) = (target.clone(), arrivals.clone(), seen.clone());
        spawn_local(one_client(connection, target, window, arrivals, seen))
    };
    let tasks: Vec<_> = connections.into_iter().map(begin).collect();
    let driven = arrivals.drive(clients).await;
    driven.map_err(|error| LoadError::Io("the clock of the open loop", error))?;
    for task in tasks {
        if let Err(panicked) = task.await {
            seen.borrow_mut().failures.note(&panicked);
        }
    }
    let mut seen = seen.take();
    seen.unfinished += arrivals.left(&mut seen.latencies);
    Ok(seen)
}

async fn one_client(
    mut connection: Connection,
    target: Arc<Target>,
    window: Window,
    arrivals: Rc<Arrivals>,
    seen: Rc<RefCell<Seen>>,
) {
    let limit = window.end + Duration::from_secs(DRAIN_SECONDS_MAX);
    let asking = ask_when_due(&mut connection, &target, window, &arrivals, &seen);
    match timeout_at(limit.into(), asking).await {
        Ok(()) => connection.close(&target).await,
        Err(_) => {
            let late = LoadError::Late("reply after the end", DRAIN_SECONDS_MAX);
            seen.borrow_mut().failures.note(&late);
        }
    }
}

async fn ask_when_due(
    connection: &mut Connection,
    target: &Target,
    window: Window,
    arrivals: &Arrivals,
    seen: &RefCell<Seen>,
) {
    while let Some(intended) = arrivals.next().await {
        let began = Instant::now();
        match connection.ask(&target.request.round).await {
            Ok(()) => seen.borrow_mut().note_answer(intended, began, window),
            Err(error) => {
                seen.borrow_mut().failures.note(&error);
                if error.ends_connection() {
                    return;
                }
            }
        }
    }
}
