//! The one JSON object that a load prints, and what it cost the generator.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::Serialize;

use super::error::LoadError;
use super::tally::Failures;

/// What all kinds print; the kind's own figures stand beside it, in the same object.
#[derive(Serialize)]
pub struct Outcome<F> {
    /// The subcommand.
    pub kind: &'static str,
    /// Clients.
    pub clients: usize,
    /// Threads.
    pub threads: usize,
    /// Length of what was counted.
    pub seconds: f64,
    /// TLS version and cipher of the first client, if it was TLS.
    pub tls: Option<String>,
    /// The kind's own.
    #[serde(flatten)]
    pub figures: F,
    /// Processor time of the generator itself during the load and its warm-up.
    pub generator_cpu: Cpu,
    /// How many queries, or logins, failed, the warm-up's included.
    pub failed: u64,
    /// What the first of them was.
    pub first_error: Option<String>,
}

/// Processor time of all threads, in seconds.
#[derive(Serialize, Clone, Copy, Debug, Default)]
pub struct Cpu {
    pub user: f64,
    pub system: f64,
}

impl Cpu {
    /// This process' up to now.
    pub fn so_far() -> Cpu {
        let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        getrusage(UsageWho::RUSAGE_SELF).map_or(Cpu::default(), |usage| Cpu {
            user: seconds(usage.user_time()),
            system: seconds(usage.system_time()),
        })
    }

    /// What was used since `earlier`.
    pub fn since(earlier: Cpu) -> Cpu {
        let now = Cpu::so_far();
        let exact = |seconds: f64| (seconds * 1e6).round() / 1e6;
        Cpu {
            user: exact(now.user - earlier.user),
            system: exact(now.system - earlier.system),
        }
    }
}

impl<F: Serialize> Outcome<F> {
    /// Prints it.
    ///
    /// # Errors
    /// When something failed during the load, after printing.
    pub fn print(self, what: &'static str) -> Result<(), LoadError> {
        print_line(&self)?;
        match self.first_error {
            Some(first) if self.failed > 0 => Err(LoadError::Some {
                what,
                failed: self.failed,
                first,
            }),
            _ => Ok(()),
        }
    }

    /// With what failed.
    pub fn with(mut self, failures: &Failures) -> Outcome<F> {
        self.failed = failures.count;
        self.first_error = failures.first().map(str::to_owned);
        self
    }
}

/// Prints one line of JSON, at once.
///
/// # Errors
/// Standard output is gone.
pub fn print_line(value: &impl Serialize) -> Result<(), LoadError> {
    use std::io::Write;
    let failed = |error| LoadError::Io("printing", error);
    let text = serde_json::to_string(value).map_err(|error| failed(error.into()))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").map_err(failed)?;
    out.flush().map_err(failed)
}

/// So many in this time, per second, with one decimal.
pub fn per_second(count: u64, time: Duration) -> f64 {
    (count as f64 / time.as_secs_f64() * 10.0).round() / 10.0
}
