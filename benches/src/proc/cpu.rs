//! CPU time and context switches of all threads of one process.

use std::path::Path;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use super::now_us;
use crate::failure::{Doing, Result, failed};

/// Both counters of a process at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    pub at_us: u64,
    /// User and system time of all its threads, ended ones too, to the nanosecond.
    pub total_ns: u64,
    /// In clock ticks: too coarse for the sum, good enough to say how it is divided.
    user_ticks: u64,
    system_ticks: u64,
    pub switches: u64,
}

/// What was used between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Used {
    pub seconds: f64,
    pub user_us: f64,
    pub system_us: f64,
    pub switches: f64,
}

/// Reads the counters of `pid` now.
pub fn read(pid: u32) -> Result<Reading> {
    let raw = i32::try_from(pid).doing("pid")?;
    let clock =
        clock_getcpuclockid(Pid::from_raw(raw)).doing(format!("CPU clock of process {pid}"))?;
    let time = clock_gettime(clock).doing(format!("CPU clock of process {pid}"))?;
    let stat =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).doing(format!("/proc/{pid}/stat"))?;
    let Some((user_ticks, system_ticks)) = ticks(&stat) else {
        return failed(format!("cannot read /proc/{pid}/stat: {stat}"));
    };
    Ok(Reading {
        at_us: now_us(),
        total_ns: u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000_000
            + u64::try_from(time.tv_nsec()).unwrap_or(0),
        user_ticks,
        system_ticks,
        switches: switches(pid),
    })
}

impl Used {
    pub fn between(before: &Reading, after: &Reading) -> Used {
        let total_us = after.total_ns.saturating_sub(before.total_ns) as f64 / 1e3;
        let user = after.user_ticks.saturating_sub(before.user_ticks) as f64;
        let system = after.system_ticks.saturating_sub(before.system_ticks) as f64;
        let share = if user + system > 0.0 {
            user / (user + system)
        } else {
            0.0
        };
        Used {
            seconds: after.at_us.saturating_sub(before.at_us) as f64 / 1e6,
            user_us: total_us * share,
            system_us: total_us * (1.0 - share),
            switches: after.switches.saturating_sub(before.switches) as f64,
        }
    }
}

/// utime and stime of /proc/PID/stat. What precedes the state, the name in parentheses, may hold anything.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat.rsplit_once(") ")?.1.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Of all threads that are there; 0 where that cannot be read.
fn switches(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    tasks.map(|task| switches_of(&task.path())).sum()
}

fn switches_of(task: &Path) -> u64 {
    let status = std::fs::read_to_string(task.join("status")).unwrap_or_default();
    status
        .lines()
        .filter(|line| line.contains("ctxt_switches:"))
        .filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_blanks_does_not_confuse() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 31 42 0 0 20 0 1 0 5 1 1 1";
        assert_eq!(ticks(stat), Some((31, 42)));
    }

    #[test]
    fn the_exact_sum_is_divided_as_the_ticks_say() {
        let before = Reading {
            at_us: 0,
            total_ns: 1_000_000,
            user_ticks: 10,
            system_ticks: 20,
            switches: 5,
        };
        let after = Reading {
            at_us: 2_000_000,
            total_ns: 41_000_000,
            user_ticks: 11,
            system_ticks: 23,
            switches: 9,
        };
        let used = Used::between(&before, &after);
        assert_eq!(
            used,
            Used {
                seconds: 2.0,
                user_us: 10_000.0,
                system_us: 30_000.0,
                switches: 4.0
            }
        );
    }

    #[test]
    fn our_own_process_can_be_read() {
        let reading = read(std::process::id()).unwrap();
        assert!(reading.total_ns > 0 && reading.at_us > 0);
    }
}
