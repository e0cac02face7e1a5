//! What a process costs, seen from outside: CPU time, memory, context switches, system calls. From /proc, the process's CPU clock
//! and (for system calls) perf or strace.

pub mod calls;
pub mod cpu;
pub mod memory;
pub mod sampler;

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds of the wall clock, which pgbench's log uses too.
pub fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
        })
}
