//! Where and with what the figures were taken.

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// One line each, as the tools print them.
#[derive(Serialize, Deserialize, Default, Clone)]
pub struct Machine {
    pub date: String,
    pub processor: String,
    pub cores: usize,
    pub kernel: String,
    pub postgresql: String,
    pub pgweir: String,
    pub pgbouncer: Option<String>,
    /// What counted the system calls.
    pub counter: Option<String>,
}

impl Machine {
    /// Asks the machine; the programs' versions are left to the caller.
    pub fn look() -> Machine {
        let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Machine {
            date: printed_by(Command::new("date").args(["-u", "+%F"])).unwrap_or_default(),
            processor: processor(&processors).unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(0, Into::into),
            kernel: format!("Linux {}", kernel.trim()),
            ..Machine::default()
        }
    }
}

/// The source's commit, where the program was built from a clone.
pub fn commit() -> Option<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    printed_by(
        Command::new("git")
            .arg("-C")
            .arg(folder)
            .args(["rev-parse", "--short", "HEAD"]),
    )
}

/// The first line of a program's output; `None` if it fails or prints nothing.
pub fn printed_by(command: &mut Command) -> Option<String> {
    let output = command
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .next()
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty())
}

fn processor(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_found() {
        assert_eq!(
            processor("processor : 0\nmodel name\t: A CPU @ 2 GHz\n").as_deref(),
            Some("A CPU @ 2 GHz")
        );
        assert_eq!(processor("processor : 0\n"), None);
    }
}
