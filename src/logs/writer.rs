//! The shared state behind every line: how verbose, and where to. Changed by a reload, read by every thread.

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};

use super::line::{CleanText, Parts, Severity};
use super::repeats::{Repeats, Summary, Verdict};
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
    /// Warnings and errors of late. Locked when there is one, for as long as it takes to count it.
    repeats: Mutex<Repeats>,
    /// How many of them were held back.
    suppressed: AtomicU64,
    hasher: RandomState,
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
            repeats: Mutex::default(),
            suppressed: AtomicU64::new(0),
            hasher: RandomState::new(),
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

    /// Where lines go at this moment.
    pub(super) fn sinks(&self) -> Arc<Sinks> {
        Arc::clone(&self.sinks.read())
    }

    /// From now on in JSON, or not; until the next `apply`.
    pub(super) fn set_json(&self, json: bool) {
        let mut options = self.options.lock();
        options.json = json;
        // Without a log file, this can't fail; with one, the old one stays open.
        let _ = self.apply_locked(&options);
    }

    /// Writes a message that is no tracing event. `message` is cleaned and cut like any other.
    pub(super) fn write_message(&self, severity: Severity, message: fmt::Arguments<'_>) {
        with_scratch(|scratch| {
            // An error says that the limit was reached; the message is cut there.
            let _ = scratch.parts.message.write_fmt(message);
            scratch.write_to(&self.sinks(), severity);
        });
    }

    /// Writes what the scratch has gathered, unless it has been said too often of late. `place` is where in the code it is said;
    /// `None` if it must be shown however often it comes. The line has been handed to the kernel on return.
    pub(super) fn write(
        &self,
        severity: Severity,
        place: Option<impl Hash>,
        sinks: &Sinks,
        scratch: &mut Scratch,
    ) {
        let is_repeatable = matches!(severity, Severity::Warning | Severity::Error);
        if let Some(place) = place.filter(|_| is_repeatable) {
            match self.judge(severity, place, &scratch.parts) {
                Verdict::Hold => {
                    self.suppressed.fetch_add(1, Relaxed);
                    return;
                }
                Verdict::Show(Some(summary)) => self.tell(&summary),
                Verdict::Show(None) => {}
            }
        }
        scratch.write_to(sinks, severity);
    }

    fn judge(&self, severity: Severity, place: impl Hash, parts: &Parts) -> Verdict {
        let key = self.hasher.hash_one((place, parts.saying()));
        let text = |text: &mut String| text.extend(parts.saying());
        self.repeats
            .lock()
            .judge(key, severity, Instant::now(), text)
    }

    /// Tells of lines that were held back long enough, or of all that were held back.
    pub(super) fn tell_repeats(&self, all: bool) {
        loop {
            // The lock is let go before a line is written.
            let Some(summary) = self.repeats.lock().due(Instant::now(), all) else {
                return;
            };
            self.tell(&summary);
        }
    }

    /// How many lines were held back since the start.
    pub(super) fn suppressed(&self) -> u64 {
        self.suppressed.load(Relaxed)
    }

    fn tell(&self, summary: &Summary) {
        let (lines, seconds) = (summary.lines, summary.seconds);
        let noun = if lines == 1 { "line" } else { "lines" };
        let sinks = self.sinks();
        // Whoever logs is using the thread's own scratch at this moment.
        let mut scratch = Scratch::default();
        let parts = &mut scratch.parts;
        let _ = parts.message.write_str(&summary.text);
        let _ = write!(
            parts.fields,
            " (suppressed {lines} similar {noun} in {seconds} s)"
        );
        parts.typed.push_plain("suppressed", lines);
        parts.typed.push_plain("seconds", seconds);
        scratch.write_to(&sinks, summary.severity);
    }
}

impl Scratch {
    pub(super) fn write_to(&mut self, sinks: &Sinks, severity: Severity) {
        self.parts.join(&mut self.whole);
        sinks.write(
            severity,
            &self.parts,
            self.whole.as_str(),
            &mut self.buffers,
        );
    }
}
