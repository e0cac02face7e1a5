//! `first-row`: what an application waits for when it has no connection yet: the time from connect() to the first row of its query,
//! one client after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use tokio::time::{sleep, timeout};

use super::connection::{Connection, LOGIN_SECONDS_MAX, Scratch, scratch};
use super::crew::{Gate, on_threads};
use super::error::LoadError;
use super::options::{Crowd, Peer};
use super::outcome::Outcome;
use super::reply::Reply;
use super::tally::{Failures, Latencies, Percentiles};
use super::target::Target;

/// Its command line.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    peer: Peer,
    /// How often
    #[arg(long, default_value_t = 100)]
    repeat: u32,
    /// How often before that, uncounted: the pooler opens its server
    #[arg(long, default_value_t = 3)]
    discard: u32,
    /// Milliseconds of rest between two
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
}

#[derive(Serialize)]
struct Figures {
    repeat: u32,
    /// From connect() to the ReadyForQuery after the login.
    login_us: Percentiles,
    /// From connect() to the first row.
    first_row_us: Percentiles,
}

#[derive(Default)]
struct Seen {
    logins: Latencies,
    rows: Latencies,
    failures: Failures,
    tls: Option<String>,
}

/// Runs it.
///
/// # Errors
/// Whatever failed, a query without a row included.
pub fn run(options: &Options) -> Result<(), LoadError> {
    let target = Arc::new(Target::new(&options.peer)?);
    let crowd = Crowd {
        clients: 1,
        threads: 1,
        seconds: 0.0,
        warm_up: 0.0,
        announce: false,
    };
    let gate = Gate::new(&crowd);
    let began = Instant::now();
    let parts = on_threads(&crowd, async |_| {
        gate.pass(Failures::default())?;
        Ok(one_after_the_other(options, &target).await)
    })?;
    let mut seen = Seen::default();
    parts.into_iter().for_each(|part| seen = part);
    let outcome = Outcome {
        kind: "first-row",
        clients: 1,
        threads: 1,
        seconds: began.elapsed().as_secs_f64(),
        tls: seen.tls.clone(),
        figures: Figures {
            repeat: options.repeat,
            login_us: seen.logins.percentiles(),
            first_row_us: seen.rows.percentiles(),
        },
        generator_cpu: gate.cpu(),
        failed: 0,
        first_error: None,
    };
    outcome.with(&seen.failures).print("logins or queries")
}

async fn one_after_the_other(options: &Options, target: &Target) -> Seen {
    let scratch = scratch();
    let mut seen = Seen::default();
    for number in 0..options.discard + options.repeat {
        match one(target, &scratch, &mut seen).await {
            Ok((login, row)) if number >= options.discard => {
                seen.logins.note(login);
                seen.rows.note(row);
            }
            Ok(_) => {}
            Err(error) => seen.failures.note(&error),
        }
        sleep(Duration::from_millis(options.pause_ms)).await;
    }
    seen
}

/// Times to the end of the login and to the first row.
async fn one(
    target: &Target,
    scratch: &Scratch,
    seen: &mut Seen,
) -> Result<(Duration, Duration), LoadError> {
    let began = Instant::now();
    let mut connection = Connection::open(target, scratch).await?;
    let login = began.elapsed();
    connection.prepare(target).await?;
    let mut row = None;
    let note = |reply| {
        if reply == Reply::Row {
            row.get_or_insert_with(|| began.elapsed());
        }
    };
    let asking = connection.ask_noting(&target.request.round, note);
    let late = |_| LoadError::Late("reply", LOGIN_SECONDS_MAX);
    timeout(Duration::from_secs(LOGIN_SECONDS_MAX), asking)
        .await
        .map_err(late)??;
    seen.tls = seen.tls.take().or(connection.tls());
    connection.close(target).await;
    let row = row.ok_or_else(|| LoadError::Query("the query gave no row".into()))?;
    Ok((login, row))
}
