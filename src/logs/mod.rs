//! Logging: PgBouncer's line format, or JSON, on tracing's events.
//!
//! [`init`] once, then `tracing::info!` and friends anywhere. Levels: error → ERROR (FATAL with the field `fatal = true`), warn →
//! WARNING, info → LOG, debug → DEBUG, trace → NOISE. The field `who` is the connection prefix, other fields follow the message
//! as ` key=value`. Lines are written by the thread that logs, before it goes on: what the log says is never behind what a
//! client has seen. The price is that a stderr or a file that blocks holds up the thread (as it does in PgBouncer).
//!
//! `line`, `json` and `clock` are the pure text, `repeats` decides what has been said often enough, `layer` the filter and the fields, `writer` the shared state, `sink` and `syslog` the
//! places lines go to. Which lines there are (log_connections and so on) is decided by those who write them.

mod clock;
mod json;
mod layer;
mod line;
mod repeats;
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
pub use json::{TypedFields, format_json};
pub use line::{
    CleanText, MESSAGE_BYTES_MAX, Parts, Severity, format_journal, format_line, format_syslog,
    push_journal_priority,
};
pub use repeats::{HOLD, REPEATS_SHOWN};
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
    /// Setting `log_format`: lines are JSON objects. Syslog has a form of its own and stays as it is.
    pub json: bool,
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
pub fn print_fatal(message: impl fmt::Display, json: bool) {
    let sinks = Sinks {
        stderr: Stderr::Lines,
        json,
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

    /// Writes JSON from now on, or not (setting `log_format`), until the next `reconfigure`: for the start, which has to tell of the
    /// configuration before all of it is in effect.
    pub fn set_json(&self, json: bool) {
        self.writer.set_json(json);
    }

    /// Tells of lines that were held back as repeats, if their time ([`HOLD`]) is over; to be called about once a second.
    pub fn tell_repeats(&self) {
        self.writer.tell_repeats(false);
    }

    /// Tells of all lines that are held back, for the end of the process.
    pub fn tell_all_repeats(&self) {
        self.writer.tell_repeats(true);
    }

    /// How many lines were held back as repeats since the start.
    pub fn suppressed(&self) -> u64 {
        self.writer.suppressed()
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

    fn in_json() -> LogOptions {
        LogOptions {
            quiet: true,
            verbose: 2,
            json: true,
            ..LogOptions::default()
        }
    }

    /// What `run` logs as JSON.
    fn objects(run: impl FnOnce()) -> Vec<serde_json::Value> {
        let (dispatch, captured) = capture(2);
        captured.handle().apply(in_json()).unwrap();
        with_default(&dispatch, run);
        let text = captured.text();
        let object = |line: &str| serde_json::from_str(line).unwrap();
        text.lines().map(object).collect()
    }

    #[test]
    fn json_lines_have_fields_with_types() {
        let found = objects(|| {
            let who = "C-0x1: db/u@127.0.0.1:5000";
            tracing::warn!(who, waited_ms = 12, ok = true, ratio = 0.5, bad = f64::NAN, pool = %"a/b", "text\nand more");
            tracing::error!(fatal = true, "f");
            tracing::error!(target: "rustls::conn", key = -1, "e");
            tracing::trace!(count = 1);
        });
        let pid = std::process::id();
        let mut expected = [
            serde_json::json!({
                "level": "warning", "pid": pid, "msg": "text\nand more", "client": "0x1", "database": "db", "user": "u",
                "addr": "127.0.0.1", "port": 5000, "waited_ms": 12, "ok": true, "ratio": 0.5, "bad": "NaN", "pool": "a/b",
            }),
            serde_json::json!({"level": "fatal", "pid": pid, "msg": "f"}),
            serde_json::json!({"level": "error", "pid": pid, "msg": "e", "target": "rustls::conn", "key": -1}),
            serde_json::json!({"level": "trace", "pid": pid, "msg": "", "count": 1}),
        ];
        for (found, expected) in found.iter().zip(&mut expected) {
            let time = found["time"].as_str().unwrap();
            assert!(
                time.ends_with('Z') && time.parse::<jiff::Timestamp>().is_ok(),
                "{time}"
            );
            expected["time"] = time.into();
        }
        assert_eq!(found, expected);
    }

    #[test]
    fn the_form_changes_while_running() {
        let (dispatch, captured) = capture(0);
        let handle = captured.handle();
        let options = |json| LogOptions {
            quiet: true,
            json,
            ..LogOptions::default()
        };
        with_default(&dispatch, || {
            info!("one");
            handle.reconfigure(options(true)).unwrap();
            info!("two");
            handle.reconfigure(options(false)).unwrap();
            info!("three");
        });
        let text = captured.text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].ends_with(" LOG one") && lines[2].ends_with(" LOG three"),
            "{text}"
        );
        assert!(
            lines[1].starts_with('{') && lines[1].contains(r#""msg":"two""#),
            "{text}"
        );
    }

    #[test]
    fn warnings_that_repeat_are_held_back_and_told_of() {
        let (dispatch, captured) = capture(0);
        let handle = captured.handle();
        with_default(&dispatch, || {
            for n in 0..1000 {
                // Whom it is about makes no difference; what is said does.
                tracing::warn!(who = %format_args!("C-{n}:"), "the same");
                tracing::error!("number {}", n / 500);
                info!("told always");
            }
            tracing::warn!("the same"); // from another place
        });
        assert_eq!(handle.suppressed(), 3000 - 1000 - 20 - 2 * 20);
        handle.tell_repeats();
        let messages = captured.messages();
        let of = |text: &str| messages.iter().filter(|m| m.ends_with(text)).count();
        assert_eq!((of("the same"), of("told always")), (21, 1000));
        assert_eq!((of("number 0"), of("number 1")), (20, 20));
        assert_eq!(of(")"), 0, "it is not yet time");
        handle.tell_all_repeats();
        let messages = captured.messages();
        assert_eq!(
            messages[messages.len() - 3..],
            [
                "WARNING the same (suppressed 980 similar lines in 1 s)",
                "ERROR number 0 (suppressed 480 similar lines in 1 s)",
                "ERROR number 1 (suppressed 480 similar lines in 1 s)",
            ]
        );
        handle.tell_all_repeats();
        assert_eq!(captured.messages().len(), messages.len());
    }

    #[test]
    fn what_is_told_of_repeats_is_json_too() {
        let found = objects(|| (0..21).for_each(|_| tracing::error!(code = 7, "again")));
        assert_eq!(found.len(), 20);
        let (dispatch, captured) = capture(0);
        captured.handle().apply(in_json()).unwrap();
        with_default(&dispatch, || {
            (0..21).for_each(|_| tracing::error!(code = 7, "again"))
        });
        captured.handle().tell_all_repeats();
        let last: serde_json::Value =
            serde_json::from_str(captured.text().lines().last().unwrap()).unwrap();
        assert_eq!(last["msg"], "again code=7");
        assert_eq!(
            (&last["suppressed"], &last["seconds"]),
            (&1.into(), &1.into())
        );
    }

    #[test]
    fn orders_starts_and_what_is_fatal_are_always_told() {
        let (dispatch, captured) = capture(0);
        with_default(&dispatch, || {
            for _ in 0..100 {
                tracing::error!(target: "pgweir::app::start", "start");
                tracing::warn!(target: "pgweir::admin::console", "order");
                tracing::error!(fatal = true, "end");
            }
        });
        assert_eq!(
            (captured.handle().suppressed(), captured.messages().len()),
            (0, 300)
        );
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
