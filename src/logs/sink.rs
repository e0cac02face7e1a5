//! The places where lines go: stderr, the log file, syslog, and a buffer for tests.
//!
//! A [`Sinks`] never changes: a reload builds another one (see [`writer`](super::writer)), and threads that are still writing to
//! the old one finish there. Every line is one `write(2)` made by the thread that logs, so lines are never mixed, and a line is
//! with the kernel before the thread goes on (and before a client can see what the line is about). Write errors are
//! ignored: there is no place left to report them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use jiff::{Timestamp, tz::TimeZone};
use nix::errno::Errno;
use parking_lot::Mutex;

use super::LogOptions;
use super::clock::StampCache;
use super::json;
use super::line::{self, Parts, Severity};
use super::syslog::Syslog;

/// Permissions of a log file that is created: lines contain user names and addresses.
const LOGFILE_MODE: u32 = 0o640;

/// Lines kept in memory, for tests.
pub(super) type Memory = Arc<Mutex<Vec<u8>>>;

/// Everything that receives lines.
#[derive(Debug, Default)]
pub(super) struct Sinks {
    pub(super) stderr: Stderr,
    /// Shared, since a reload that cannot open the new file keeps the old one.
    pub(super) file: Option<Arc<File>>,
    pub(super) syslog: Option<Syslog>,
    pub(super) memory: Option<Memory>,
    /// All but syslog get JSON.
    pub(super) json: bool,
}

/// What stderr gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stderr {
    #[default]
    Off,
    /// Whole lines.
    Lines,
    /// Only the message with its priority: stderr is the systemd journal, which adds the rest itself.
    Journal,
}

/// Buffers that a thread reuses from line to line.
#[derive(Debug, Default)]
pub(super) struct LineBuffers {
    stamps: StampCache,
    bytes: Vec<u8>,
}

impl Sinks {
    /// The sinks of `options`, with `file` already opened.
    pub(super) fn new(options: &LogOptions, file: Option<Arc<File>>) -> Sinks {
        let stderr = if options.quiet {
            Stderr::Off
        } else {
            Stderr::detect()
        };
        let syslog = options.syslog.clone().map(Syslog::new);
        Sinks {
            stderr,
            file,
            syslog,
            memory: None,
            json: options.json,
        }
    }

    /// Formats and writes one message to all of them: its parts, and what they have been joined to.
    pub(super) fn write(
        &self,
        severity: Severity,
        parts: &Parts,
        message: &str,
        buffers: &mut LineBuffers,
    ) {
        // Asked for anew each time: it changes when the process becomes a daemon.
        let pid = std::process::id();
        self.write_lines(severity, (parts, message), pid, buffers);
        if self.stderr == Stderr::Journal {
            buffers.bytes.clear();
            if self.json {
                let stamp = buffers.stamps.at(Timestamp::now(), TimeZone::system);
                line::push_journal_priority(severity, &mut buffers.bytes);
                json::format_json(&stamp, pid, severity, parts, &mut buffers.bytes);
            } else {
                line::format_journal(severity, message, &mut buffers.bytes);
            }
            write_ignoring_errors(io::stderr().as_fd(), &buffers.bytes);
        }
        if let Some(syslog) = &self.syslog
            && severity <= Severity::Log
        {
            let source = (
                syslog.options.facility.number(),
                syslog.options.ident.as_str(),
            );
            let stamp = buffers.stamps.at(Timestamp::now(), TimeZone::system);
            buffers.bytes.clear();
            line::format_syslog(&stamp, pid, severity, source, message, &mut buffers.bytes);
            syslog.send(&buffers.bytes);
        }
    }

    fn write_lines(
        &self,
        severity: Severity,
        (parts, message): (&Parts, &str),
        pid: u32,
        buffers: &mut LineBuffers,
    ) {
        if self.stderr != Stderr::Lines && self.file.is_none() && self.memory.is_none() {
            return;
        }
        let stamp = buffers.stamps.at(Timestamp::now(), TimeZone::system);
        buffers.bytes.clear();
        if self.json {
            json::format_json(&stamp, pid, severity, parts, &mut buffers.bytes);
        } else {
            line::format_line(&stamp, pid, severity, message, &mut buffers.bytes);
        }
        if self.stderr == Stderr::Lines {
            write_ignoring_errors(io::stderr().as_fd(), &buffers.bytes);
        }
        if let Some(file) = &self.file {
            write_ignoring_errors(file.as_fd(), &buffers.bytes);
        }
        if let Some(memory) = &self.memory {
            memory.lock().extend_from_slice(&buffers.bytes);
        }
    }
}

impl Stderr {
    /// Looks whether stderr is connected to the journal.
    fn detect() -> Stderr {
        let announced = std::env::var("JOURNAL_STREAM").ok();
        let actual = nix::sys::stat::fstat(io::stderr()).ok();
        match (announced, actual) {
            (Some(announced), Some(actual))
                if is_journal(&announced, actual.st_dev, actual.st_ino) =>
            {
                Stderr::Journal
            }
            _ => Stderr::Lines,
        }
    }
}

/// Whether `JOURNAL_STREAM` (`device:inode`, decimal) names the file with these numbers. The variable alone proves nothing: it is
/// inherited by processes whose stderr was redirected since.
fn is_journal(announced: &str, device: u64, inode: u64) -> bool {
    let Some((announced_device, announced_inode)) = announced.split_once(':') else {
        return false;
    };
    announced_device.parse() == Ok(device) && announced_inode.parse() == Ok(inode)
}

/// Opens a log file for appending, creating it if need be.
pub(super) fn open_logfile(path: &Path) -> Result<File, Errno> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(LOGFILE_MODE)
        .open(path)
        .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or_default()))
}

/// One `write(2)`; another only for what a full disk or an interruption left over.
fn write_ignoring_errors(fd: std::os::fd::BorrowedFd<'_>, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        match nix::unistd::write(fd, rest) {
            Ok(0) => return,
            Ok(written) => rest = &rest[written..],
            Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_recognised_by_device_and_inode() {
        assert!(is_journal("8:1234", 8, 1234));
        for other in [
            "8:1235", "9:1234", "", "8", ":", "8:", "8:1234:", "x:1234", "-8:1234",
        ] {
            assert!(!is_journal(other, 8, 1234), "{other}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error() {
        assert_eq!(
            open_logfile(Path::new("/nonexistent/x.log")).unwrap_err(),
            Errno::ENOENT
        );
        assert_eq!(open_logfile(Path::new("/")).unwrap_err(), Errno::EISDIR);
        assert!(open_logfile(Path::new("a\0b")).is_err());
    }

    #[test]
    fn write_errors_are_ignored() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        write_ignoring_errors(writer.as_fd(), b"nobody reads this");
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        write_ignoring_errors(full.as_fd(), b"no room for this");
    }
}
