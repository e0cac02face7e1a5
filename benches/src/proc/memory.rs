//! How much memory a process holds.

use crate::failure::{Doing, Result, failed};

/// In bytes: what is in memory, and that with shared pages counted by share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    pub resident: f64,
    pub proportional: f64,
}

/// Reads /proc/PID/smaps_rollup.
pub fn read(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).doing(&path)?;
    match parse(&text) {
        Some(memory) => Ok(memory),
        None => failed(format!("cannot read {path}")),
    }
}

fn parse(text: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_ascii_whitespace().nth(1)?.parse::<f64>().ok()? * 1024.0)
    };
    Some(Memory {
        resident: bytes("Rss:")?,
        proportional: bytes("Pss:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_are_found_among_the_others() {
        let text = "5581-7fff ---p 0 00:00 0 [rollup]\nRss:      12 kB\nPss:       5 kB\nPss_Dirty: 1 kB\n";
        assert_eq!(
            parse(text),
            Some(Memory {
                resident: 12288.0,
                proportional: 5120.0
            })
        );
    }
}
