//! Reads a process's counters many times while a load runs, so that the measured window can be chosen afterwards, when the load's own
//! log has told when all its clients were connected.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::cpu::{self, Reading};
use crate::failure::{Result, failed};

const EVERY: Duration = Duration::from_millis(25);

/// A thread that reads.
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Reading>>>,
}

impl Sampler {
    pub fn start(pid: u32) -> Sampler {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut readings = Vec::new();
            while !asked.load(Ordering::Relaxed) {
                readings.extend(cpu::read(pid));
                std::thread::sleep(EVERY);
            }
            readings
        });
        Sampler {
            stop,
            thread: Some(thread),
        }
    }

    /// All readings; none where the process was gone.
    pub fn finish(mut self) -> Vec<Reading> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .and_then(|thread| thread.join().ok())
            .unwrap_or_default()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The first and the last reading within a window of the wall clock.
pub fn within(readings: &[Reading], from_us: u64, to_us: u64) -> Result<(Reading, Reading)> {
    let mut inside = readings
        .iter()
        .filter(|reading| (from_us..=to_us).contains(&reading.at_us));
    match (inside.next(), inside.next_back()) {
        (Some(first), Some(last)) => Ok((*first, *last)),
        _ => failed("the pooler was not seen at work: the run was too short, or it ended"),
    }
}
