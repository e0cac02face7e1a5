//! How many system calls a process makes: counted by perf where it may, else by strace (which slows the process down, so that it
//! finds more to do at each wake-up; the number is then too low), else not at all.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::failure::{Doing, Result};
use crate::proc::now_us;

/// What can count here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Counter {
    Perf,
    Strace,
}

/// Calls, and the wall-clock window in which they were counted.
#[derive(Debug)]
pub struct Counted {
    pub calls: f64,
    pub from_us: u64,
    pub to_us: u64,
}

impl Counter {
    /// Tries what is installed and allowed.
    pub fn find() -> Option<Counter> {
        let works = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            command
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        if works("perf", &["stat", "-e", "raw_syscalls:sys_enter", "true"]) {
            Some(Counter::Perf)
        } else if works("strace", &["-c", "-f", "true"]) {
            Some(Counter::Strace)
        } else {
            None
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Counter::Perf => "perf",
            Counter::Strace => "strace",
        }
    }

    /// Counts the calls of `pid` for a second. `None` if the tool said nothing of use.
    pub fn count(self, pid: u32, folder: &Path) -> Result<Option<Counted>> {
        let out = folder.join("calls.txt");
        let pid = pid.to_string();
        let mut command = match self {
            Counter::Perf => Command::new("perf"),
            Counter::Strace => Command::new("timeout"),
        };
        match self {
            Counter::Perf => {
                command.args([
                    "stat",
                    "-x,",
                    "-e",
                    "raw_syscalls:sys_enter",
                    "-p",
                    &pid,
                    "-o",
                ]);
                command.arg(&out).args(["sleep", "1"])
            }
            Counter::Strace => {
                command.args(["--signal=INT", "1", "strace", "-c", "-f", "-p", &pid, "-o"]);
                command.arg(&out)
            }
        };
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let from_us = now_us();
        command.status().doing(self.name())?;
        let to_us = now_us();
        let text = std::fs::read_to_string(&out).unwrap_or_default();
        let calls = match self {
            Counter::Perf => perf_total(&text),
            Counter::Strace => strace_total(&text),
        };
        Ok(calls.map(|calls| Counted {
            calls,
            from_us,
            to_us,
        }))
    }
}

/// `188312,,raw_syscalls:sys_enter,...`
fn perf_total(text: &str) -> Option<f64> {
    let line = text
        .lines()
        .find(|line| line.contains("raw_syscalls:sys_enter"))?;
    line.split(',').next()?.parse().ok()
}

/// The line `100.00    0.123456    1    54321    12 total`, errors being absent where there were none.
fn strace_total(text: &str) -> Option<f64> {
    let line = text
        .lines()
        .find(|line| line.trim_end().ends_with(" total"))?;
    line.split_ascii_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tools_are_understood() {
        assert_eq!(
            perf_total("# started\n\n188312,,raw_syscalls:sys_enter,1001,100.00,,\n"),
            Some(188_312.0)
        );
        assert_eq!(
            perf_total("<not counted>,,raw_syscalls:sys_enter,0,0.00,,\n"),
            None
        );
        let table = "% time seconds usecs/call calls errors syscall\n 60.00 0.1 1 99 recvfrom\n100.00    0.123456           1     54321        12 total\n";
        assert_eq!(strace_total(table), Some(54_321.0));
        assert_eq!(
            strace_total("100.00    0.123456           1     54321           total\n"),
            Some(54_321.0)
        );
    }
}
