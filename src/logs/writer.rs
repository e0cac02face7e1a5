//! The shared state behind every line: how verbose, and where to. Changed by a reload, read by every thread.

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use parking_lot::{Mutex, RwLock};

use super::line::{CleanText, Parts, Severity};
use super::sink::{LineBuffers, Sinks, open_logfile};
use super::{LogError, LogOptions};

/// One per process (tests make their own).
#[derive(Debug)]
pub(super) struct Writer {
    /// Setting `verbose`: 0 shows LOG, 1 DEBUG, 2 and more NOISE.
    verbose: AtomicU8,
    /// Guards the choice of sinks, not the writing: whoever logs takes a copy and writes without the lock.
    sinks: RwLock<Arc<Sinks>>,
    /// What was asked for last; held while that is being put into effect, so that two reloads do not mix. Taken before `sinks`.
    options: Mutex<LogOptions>,
}

/// What a thread needs to make a line; kept from line to line.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) parts: Parts,
    whole: CleanText,
    buffers: LineBuffers,
}

thread_local! {
    /// Taken out while in use. A value that logs while it is being printed finds it empty and gets a new one.
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Hands an emptied scratch to `use_it`; works also while the thread is ending.
pub(super) fn with_scratch(use_it: impl FnOnce(&mut Scratch)) {
    let mut scratch = SCRATCH
        .try_with(Cell::take)
        .ok()
        .flatten()
        .unwrap_or_default();
    scratch.parts.clear();
    use_it(&mut scratch);
    let _ = SCRATCH.try_with(|place| place.set(Some(scratch)));
}

impl Writer {
    /// Opens what `options` name.
    pub(super) fn new(options: LogOptions) -> Result<Writer, LogError> {
        let writer = Writer::with_sinks(options.verbose, Sinks::new(&LogOptions::default(), None));
        writer.apply(options)?;
        Ok(writer)
    }

    /// With ready-made sinks, for tests.
    pub(super) fn with_sinks(verbose: u8, sinks: Sinks) -> Writer {
        Writer {
            verbose: AtomicU8::new(verbose),
            sinks: RwLock::new(Arc::new(sinks)),
            options: Mutex::new(LogOptions {
                verbose,
                ..LogOptions::default()
            }),
        }
    }

    pub(super) fn verbose(&self) -> u8 {
        self.verbose.load(Relaxed)
    }

    /// See [`LogHandle::set_verbose`](super::LogHandle::set_verbose).
    pub(super) fn set_verbose(&self, verbose: u8) {
        let mut options = self.options.lock();
        options.verbose = verbose;
        self.change_verbose(verbose);
    }

    /// Every event's place in the code has cached whether it is shown; a change makes them ask again.
    fn change_verbose(&self, verbose: u8) {
        if self.verbose.swap(verbose, Relaxed) != verbose {
            tracing::callsite::rebuild_interest_cache();
        }
    }

    /// Puts `options` into effect and reopens the log file. If that cannot be opened, the old one stays, everything else is
    /// applied all the same, and the error says so.
    pub(super) fn apply(&self, options: LogOptions) -> Result<(), LogError> {
        let mut current = self.options.lock();
        *current = options;
        self.apply_locked(&current)
    }

    /// Opens the log file by its name again.
    pub(super) fn reopen(&self) -> Result<(), LogError> {
        let current = self.options.lock();
        self.apply_locked(&current)
    }

    fn apply_locked(&self, options: &LogOptions) -> Result<(), LogError> {
        let opened = options.logfile.as_deref().map(|path| {
            open_logfile(path).map_err(|errno| LogError::OpenLogfile {
                path: path.to_owned(),
                errno,
            })
        });
        let (file, result) = match opened {
            None => (None, Ok(())),
            Some(Ok(file)) => (Some(Arc::new(file)), Ok(())),
            Some(Err(error)) => (self.sinks.read().file.clone(), Err(error)),
        };
        let memory = self.sinks.read().memory.clone();
        *self.sinks.write() = Arc::new(Sinks {
            memory,
            ..Sinks::new(options, file)
        });
        self.change_verbose(options.verbose);
        result
    }

    /// Writes a message that is no tracing event. `message` is cleaned and cut like any other.
    pub(super) fn write_message(&self, severity: Severity, message: fmt::Arguments<'_>) {
        with_scratch(|scratch| {
            // An error says that the limit was reached; the message is cut there.
            let _ = scratch.parts.message.write_fmt(message);
            self.write(severity, scratch);
        });
    }

    /// Writes what the scratch has gathered. The line has been handed to the kernel on return.
    pub(super) fn write(&self, severity: Severity, scratch: &mut Scratch) {
        let sinks = Arc::clone(&self.sinks.read());
        scratch.write_to(&sinks, severity);
    }
}

impl Scratch {
    pub(super) fn write_to(&mut self, sinks: &Sinks, severity: Severity) {
        self.parts.join(&mut self.whole);
        sinks.write(severity, self.whole.as_str(), &mut self.buffers);
    }
}
