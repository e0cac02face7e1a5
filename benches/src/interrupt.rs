//! Ctrl-C and its relatives set a flag; whoever waits looks at it and returns, so that everything started here is stopped on the
//! way out as after any other failure.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::failure::{Doing, Failure, Result, failed};

/// How often a wait looks again.
const LOOK_EVERY: Duration = Duration::from_millis(10);

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Takes the signals over. Call it once, first.
pub fn install() -> Result<()> {
    let asked = ASKED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(asked)).doing("cannot handle signals")?;
    }
    Ok(())
}

/// Fails if a signal has asked for the end.
pub fn check() -> Result<()> {
    match ASKED.get() {
        Some(asked) if asked.load(Ordering::Relaxed) => Err(Failure::Interrupted),
        _ => Ok(()),
    }
}

/// Waits until `look` finds something; fails, naming `what`, after `at_most`.
pub fn wait_for<T>(
    what: &str,
    at_most: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + at_most;
    loop {
        check()?;
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return failed(format!("waited {} s in vain for {what}", at_most.as_secs()));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Sleeps, unless a signal asks for the end.
pub fn sleep(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        check()?;
        std::thread::sleep(LOOK_EVERY.min(end.saturating_duration_since(Instant::now())));
    }
    Ok(())
}
