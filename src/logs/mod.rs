//! Logging: PgBouncer's line format on tracing's events.
//!
//! [`init`] once, then `tracing::info!` and friends anywhere. Levels: error → ERROR (FATAL with the field `fatal = true`), warn →
//! WARNING, info → LOG, debug → DEBUG, trace → NOISE. The field `who` is the connection prefix, other fields follow the message
//! as ` key=value`. Lines are written by the thread that logs, before it goes on: what the log says is never behind what a
//! client has seen. The price is that a stderr or a file that blocks holds up the thread (as it does in PgBouncer).
//!
//! `line` and `clock` are the pure text, `layer` the filter and the fields, `writer` the shared state, `sink` and `syslog` the
//! places lines go to. Which lines there are (log_connections and so on) is decided by those who write them.

mod clock;
mod layer;
mod line;
mod sink;
mod syslog;
mod writer;

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use tracing::Dispatch;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry;

use layer::{LineLayer, LogBridge};
use sink::{Memory, Sinks, Stderr};
use writer::{Writer, with_scratch};

pub use clock::{Stamp, StampCache};
pub use line::{
    CleanText, MESSAGE_BYTES_MAX, Parts, Severity, format_journal, format_line, format_syslog,
};
pub use syslog::{Facility, SyslogOptions};

/// Where lines go, and which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Nothing to stderr: `-q`, or a daemon.
    pub quiet: bool,
    /// Setting `logfile`: appended to, in addition to stderr. A relative path starts at the working directory.
    pub logfile: Option<PathBuf>,
    /// Setting `verbose`: 0 shows LOG and graver, 1 also DEBUG, 2 and more also NOISE.
    pub verbose: u8,
    /// Settings `syslog`, `syslog_ident`, `syslog_facility`; `None` when `syslog = 0`. Gets LOG and graver.
    pub syslog: Option<SyslogOptions>,
}

/// What can go wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogError {
    /// The log file cannot be opened. At start this is fatal; later the old file stays in use.
    OpenLogfile {
        /// As configured.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// [`init`] was called twice, or another tracing subscriber is installed.
    AlreadyInstalled,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogError::OpenLogfile { path, errno } => {
                write!(
                    f,
                    "Cannot open logfile: '{}': {}",
                    path.display(),
                    errno.desc()
                )
            }
            LogError::AlreadyInstalled => f.write_str("logging is already set up"),
        }
    }
}

impl Error for LogError {}

/// Starts logging for the whole process. Before it (and when it fails) use [`print_fatal`].
///
/// The log file is opened here: switch the user first, or the file will belong to root.
///
/// # Errors
/// The log file cannot be opened, or logging was set up before. Nothing is installed then.
pub fn init(options: LogOptions) -> Result<LogHandle, LogError> {
    let writer = Arc::new(Writer::new(options)?);
    tracing::subscriber::set_global_default(subscriber(&writer))
        .map_err(|_| LogError::AlreadyInstalled)?;
    // Lives as long as the process; a second one is never made, see the line above.
    let bridge: &'static LogBridge = Box::leak(Box::new(LogBridge {
        writer: Arc::clone(&writer),
    }));
    if log::set_logger(bridge).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
    Ok(LogHandle { writer })
}

fn subscriber(writer: &Arc<Writer>) -> impl tracing::Subscriber + Send + Sync + 'static {
    registry().with(LineLayer {
        writer: Arc::clone(writer),
    })
}

/// Writes a FATAL line to stderr, whether or not logging has been set up: for errors before [`init`], or of it.
pub fn print_fatal(message: impl fmt::Display) {
    let sinks = Sinks {
        stderr: Stderr::Lines,
        ..Sinks::default()
    };
    with_scratch(|scratch| {
        let _ = fmt::Write::write_fmt(&mut scratch.parts.message, format_args!("{message}"));
        scratch.write_to(&sinks, Severity::Fatal);
    });
}

/// From now on a panic is a FATAL line of the log: where it was, in which thread, and why as far as that is a text of the program's
/// own. What a panic formats may come from a client's data, or be a secret, and is not shown.
pub fn hook_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let reason = panic.payload().downcast_ref::<&'static str>();
        let reason = reason.copied().unwrap_or("panic");
        match panic.location() {
            Some(at) => {
                let (file, line) = (at.file(), at.line());
                tracing::error!(fatal = true, "@{file}:{line} in thread {name}: {reason}");
            }
            None => tracing::error!(fatal = true, "in thread {name}: {reason}"),
        }
    }));
}

/// Changes the logging of the running process; any thread may use it at any time.
#[derive(Clone, Debug)]
pub struct LogHandle {
    writer: Arc<Writer>,
}

impl LogHandle {
    /// Closes and opens the log file (SIGHUP, RELOAD), so that a renamed file is let go. No line is lost: until the new file is
    /// there, lines go to the old one.
    ///
    /// # Errors
    /// The file cannot be opened. The old one stays in use, and a warning has been logged.
    pub fn reopen(&self) -> Result<(), LogError> {
        self.warn_of(self.writer.reopen())
    }

    /// Puts new options into effect, for a reload; reopens the log file too.
    ///
    /// # Errors
    /// The log file cannot be opened. The old one (if any) stays in use, a warning has been logged, and all other options
    /// are in effect.
    pub fn reconfigure(&self, options: LogOptions) -> Result<(), LogError> {
        self.warn_of(self.writer.apply(options))
    }

    /// Like [`reconfigure`](Self::reconfigure) but logs nothing itself: for the start of the process, where the caller makes the
    /// error a fatal one.
    ///
    /// # Errors
    /// As for `reconfigure`.
    pub fn apply(&self, options: LogOptions) -> Result<(), LogError> {
        self.writer.apply(options)
    }

    /// Shows more or less from now on (setting `verbose`), until the next `reconfigure`.
    pub fn set_verbose(&self, verbose: u8) {
        self.writer.set_verbose(verbose);
    }

    /// The setting `verbose` in effect.
    pub fn verbose(&self) -> u8 {
        self.writer.verbose()
    }

    fn warn_of(&self, result: Result<(), LogError>) -> Result<(), LogError> {
        if let Err(error) = &result {
            self.writer.write_message(
                Severity::Warning,
                format_args!("{error}; not changing the log file"),
            );
        }
        result
    }
}

/// For tests: keeps two subscribers alive for the rest of the process, which hear nothing. While there is but one, a line of the
/// program that is met for the first time by a thread without a subscriber is taken for one that nobody will ever want, and tests
/// on other threads miss it.
pub fn keep_callsites_open() {
    static KEPT: OnceLock<[Dispatch; 2]> = OnceLock::new();
    KEPT.get_or_init(|| [(); 2].map(|()| Dispatch::new(tracing_subscriber::registry())));
}

/// For tests: a subscriber that writes to memory, and what it has written. Use the first with
/// `tracing::dispatcher::with_default` or `set_default`; nothing is installed for the process.
pub fn capture(verbose: u8) -> (Dispatch, Captured) {
    keep_callsites_open();
    let memory = Memory::default();
    let sinks = Sinks {
        memory: Some(Arc::clone(&memory)),
        ..Sinks::default()
    };
    let writer = Arc::new(Writer::with_sinks(verbose, sinks));
    let dispatch = Dispatch::new(subscriber(&writer));
    (dispatch, Captured { writer, memory })
}

/// The lines that a [`capture`] subscriber has seen.
#[derive(Clone, Debug)]
pub struct Captured {
    writer: Arc<Writer>,
    memory: Memory,
}

impl Captured {
    /// Everything, as it would stand in a file.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.memory.lock()).into_owned()
    }

    /// The lines without date and process id: `LOG message`. Continuation lines are joined to theirs.
    pub fn messages(&self) -> Vec<String> {
        let text = self.text().replace("\n\t", "\u{0}");
        let without_head = |line: &str| {
            line.split_once("] ")
                .map_or(line, |(_, rest)| rest)
                .replace('\u{0}', "\n\t")
        };
        text.lines().map(without_head).collect()
    }

    /// A handle, to change verbosity or options.
    pub fn handle(&self) -> LogHandle {
        LogHandle {
            writer: Arc::clone(&self.writer),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::time::Duration;

    use tracing::dispatcher::with_default;
    use tracing::{debug, info};

    use super::*;

    fn to_file(path: &Path) -> LogOptions {
        LogOptions {
            quiet: true,
            logfile: Some(path.to_owned()),
            ..LogOptions::default()
        }
    }

    #[test]
    fn a_whole_line() {
        let (dispatch, captured) = capture(0);
        with_default(&dispatch, || info!("two\nlines"));
        let text = captured.text();
        let (stamp, rest) = text.split_at("2026-11-21 01:58:51.503 ".len());
        let shape: String = stamp
            .chars()
            .map(|c| if c.is_ascii_digit() { '9' } else { c })
            .collect();
        assert_eq!(shape, "9999-99-99 99:99:99.999 ");
        let (_zone, rest) = rest.split_once(' ').unwrap();
        assert_eq!(rest, format!("[{}] LOG two\n\tlines\n", std::process::id()));
    }

    #[test]
    fn a_logfile_is_appended_to_and_reopened() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (
            directory.path().join("a.log"),
            directory.path().join("a.log.1"),
        );
        fs::write(&path, "old\n").unwrap();
        let (dispatch, captured) = capture(0);
        let handle = captured.handle();
        with_default(&dispatch, || {
            handle.apply(to_file(&path)).unwrap();
            info!("one");
            fs::rename(&path, &moved).unwrap();
            info!("two");
            handle.reopen().unwrap();
            info!("three");
        });
        let old = fs::read_to_string(&moved).unwrap();
        assert!(
            old.starts_with("old\n") && old.contains("LOG one\n") && old.ends_with("LOG two\n")
        );
        let new = fs::read_to_string(&path).unwrap();
        assert!(new.ends_with("LOG three\n") && new.lines().count() == 1);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0);
    }

    #[test]
    fn a_failed_reload_keeps_the_old_file_and_warns() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let (dispatch, captured) = capture(0);
        let handle = captured.handle();
        handle.apply(to_file(&path)).unwrap();
        let bad = LogOptions {
            verbose: 1,
            ..to_file(Path::new("/nonexistent/x.log"))
        };
        let error = handle.reconfigure(bad).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Cannot open logfile: '/nonexistent/x.log': No such file or directory"
        );
        with_default(&dispatch, || debug!("still here"));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("WARNING Cannot open logfile: '/nonexistent/x.log'"));
        assert!(text.ends_with("DEBUG still here\n"));
        assert_eq!(handle.verbose(), 1);
    }

    #[test]
    fn no_logfile_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let (dispatch, captured) = capture(0);
        captured.handle().apply(to_file(&path)).unwrap();
        captured
            .handle()
            .apply(LogOptions {
                quiet: true,
                ..LogOptions::default()
            })
            .unwrap();
        with_default(&dispatch, || info!("not in the file"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }

    /// Threads write while the file is renamed and reopened all the time: each line is whole, and in one of the files.
    #[test]
    fn rotation_loses_no_line() {
        const THREADS: usize = 4;
        const LINES: usize = 500;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let (dispatch, captured) = capture(0);
        let handle = captured.handle();
        handle.apply(to_file(&path)).unwrap();
        let done = AtomicBool::new(false);
        let rotations = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..THREADS)
                .map(|_| {
                    scope.spawn(|| {
                        with_default(&dispatch, || (0..LINES).for_each(|n| info!("line {n} end")))
                    })
                })
                .collect();
            let rotator = scope.spawn(|| rotate_until(&done, &path, &handle));
            writers.into_iter().for_each(|w| w.join().unwrap());
            done.store(true, Relaxed);
            rotator.join().unwrap()
        });
        let files = fs::read_dir(directory.path())
            .unwrap()
            .map(|f| fs::read_to_string(f.unwrap().path()).unwrap());
        let lines: Vec<String> = files
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        assert_eq!(lines.len(), THREADS * LINES, "after {rotations} rotations");
        assert!(
            lines
                .iter()
                .all(|line| line.ends_with(" end") && line.matches(" LOG line ").count() == 1)
        );
    }

    fn rotate_until(done: &AtomicBool, path: &Path, handle: &LogHandle) -> usize {
        let mut rotations = 0;
        while !done.load(Relaxed) {
            rotations += 1;
            fs::rename(path, path.with_extension(rotations.to_string())).unwrap();
            handle.reopen().unwrap();
        }
        rotations
    }

    #[test]
    fn syslog_gets_messages_from_log_upwards() {
        let directory = tempfile::tempdir().unwrap();
        let mut syslog = SyslogOptions::new("pooler", Facility::from_word("local3"));
        syslog.socket = directory.path().join("log");
        let daemon = UnixDatagram::bind(&syslog.socket).unwrap();
        daemon
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let (dispatch, captured) = capture(0);
        let options = LogOptions {
            quiet: true,
            verbose: 1,
            syslog: Some(syslog),
            ..LogOptions::default()
        };
        captured.handle().apply(options).unwrap();
        with_default(&dispatch, || {
            debug!("not sent");
            info!(who = "C-1:", "sent");
        });
        let mut buffer = [0; 4096];
        let length = daemon.recv(&mut buffer).unwrap();
        let datagram = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert!(datagram.starts_with("<158>"), "{datagram}");
        assert!(
            datagram.ends_with(&format!(" pooler[{}]: C-1: sent", std::process::id())),
            "{datagram}"
        );
    }
}
