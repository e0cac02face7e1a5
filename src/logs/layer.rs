//! From tracing's events (and the `log` crate's records) to lines: which are shown, and which field is which part.
//!
//! The level is decided where an event is written in the code, by tracing's cached interest: a `debug!` that is not shown costs
//! one relaxed load. Spans are not used; a line says whom it is about with the field `who`.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::line::{Parts, Severity};
use super::writer::{Writer, with_scratch};

/// Events of this crate are shown at all levels, those of others only if something is wrong.
const OWN_CRATE: &str = env!("CARGO_CRATE_NAME");

/// The rooms of this crate whose lines are always shown.
const ALWAYS_SHOWN: [&str; 2] = ["::app", "::admin"];

/// The layer that writes PgBouncer's lines.
pub(super) struct LineLayer {
    pub(super) writer: Arc<Writer>,
}

impl LineLayer {
    fn is_shown(&self, metadata: &Metadata<'_>) -> bool {
        if !metadata.is_event() {
            return false;
        }
        let level = *metadata.level();
        level <= Level::WARN
            || (is_own(metadata.target()) && severity_of(level).is_shown_at(self.writer.verbose()))
    }
}

impl<S: Subscriber> Layer<S> for LineLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.is_shown(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.is_shown(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.writer.verbose() {
            0 => LevelFilter::INFO,
            1 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let sinks = self.writer.sinks();
        with_scratch(|scratch| {
            let mut gather = Gather {
                parts: &mut scratch.parts,
                is_fatal: false,
                json: sinks.json,
            };
            event.record(&mut gather);
            let is_fatal = gather.is_fatal && *metadata.level() == Level::ERROR;
            if !is_own(metadata.target()) {
                name_foreign_source(&mut scratch.parts, metadata.target());
            }
            let severity = if is_fatal {
                Severity::Fatal
            } else {
                severity_of(*metadata.level())
            };
            let place = is_held_back(metadata.target()).then(|| metadata.callsite());
            self.writer.write(severity, place, &sinks, scratch);
        });
    }
}

fn is_own(target: &str) -> bool {
    target
        .strip_prefix(OWN_CRATE)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Whether what is said there may be left out when it has been said often enough. What the start, a reload, an order or the console
/// has to say is always said: it has been asked for.
fn is_held_back(target: &str) -> bool {
    let room = target.strip_prefix(OWN_CRATE).unwrap_or_default();
    !ALWAYS_SHOWN.iter().any(|shown| room.starts_with(shown))
}

fn severity_of(level: Level) -> Severity {
    match level {
        Level::ERROR => Severity::Error,
        Level::WARN => Severity::Warning,
        Level::INFO => Severity::Log,
        Level::DEBUG => Severity::Debug,
        Level::TRACE => Severity::Noise,
    }
}

/// A dependency's message means little without its module.
fn name_foreign_source(parts: &mut Parts, target: &str) {
    parts.who.clear();
    parts.is_foreign = true;
    let _ = write!(parts.who, "{target}:");
}

/// Puts an event's fields where they belong.
struct Gather<'a> {
    parts: &'a mut Parts,
    is_fatal: bool,
    /// The fields are wanted for a JSON line too.
    json: bool,
}

impl Gather<'_> {
    fn put(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        // An error says that the limit was reached; the text is cut there.
        let _ = match field.name() {
            "message" => self.parts.message.write_fmt(value),
            "who" => self.parts.who.write_fmt(value),
            name => {
                self.parts.push_field(name, value);
                if self.json {
                    self.parts.push_typed_text(name, value);
                }
                Ok(())
            }
        };
    }

    /// A value that is JSON as it is printed.
    fn put_plain(&mut self, field: &Field, value: impl fmt::Display) {
        match field.name() {
            "message" | "who" => self.put(field, format_args!("{value}")),
            name => {
                self.parts.push_field(name, format_args!("{value}"));
                if self.json {
                    self.parts.typed.push_plain(name, value);
                }
            }
        }
    }
}

impl Visit for Gather<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field, format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == "fatal" {
            self.is_fatal = value;
        } else {
            self.put_plain(field, value);
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match value.is_finite() {
            true => self.put_plain(field, value),
            false => self.put(field, format_args!("{value}")),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put_plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put_plain(field, value);
    }
}

/// Receives what crates that know only `log` (rustls) have to say, warnings and errors.
pub(super) struct LogBridge {
    pub(super) writer: Arc<Writer>,
}

impl log::Log for LogBridge {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let severity = if record.level() == log::Level::Error {
            Severity::Error
        } else {
            Severity::Warning
        };
        let sinks = self.writer.sinks();
        with_scratch(|scratch| {
            name_foreign_source(&mut scratch.parts, record.target());
            // An error says that the limit was reached; the text is cut there.
            let _ = scratch.parts.message.write_fmt(*record.args());
            let place = Some((record.target(), record.line()));
            self.writer.write(severity, place, &sinks, scratch);
        });
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use log::Log as _;
    use tracing::dispatcher::with_default;
    use tracing::{debug, error, info, trace, warn};

    use super::super::capture;
    use super::*;

    /// What `run` logs, without date and process id.
    fn lines(verbose: u8, run: impl FnOnce()) -> Vec<String> {
        let (dispatch, captured) = capture(verbose);
        with_default(&dispatch, run);
        captured.messages()
    }

    #[test]
    fn levels_and_verbosity() {
        let every = || {
            error!(fatal = true, "f");
            error!(fatal = false, "e");
            warn!("w");
            info!("l");
            debug!("d");
            trace!("n");
        };
        let all = [
            "FATAL f",
            "ERROR e",
            "WARNING w",
            "LOG l",
            "DEBUG d",
            "NOISE n",
        ];
        assert_eq!(lines(0, every), all[..4]);
        assert_eq!(lines(1, every), all[..5]);
        assert_eq!(lines(2, every), all);
        assert_eq!(lines(255, every), all);
    }

    #[test]
    fn only_errors_can_be_fatal() {
        assert_eq!(lines(0, || warn!(fatal = true, "w")), ["WARNING w"]);
    }

    #[test]
    fn verbosity_changes_while_running() {
        let (dispatch, captured) = capture(0);
        let writer = Arc::clone(&captured.writer);
        with_default(&dispatch, || {
            for verbose in [0, 1, 2, 0] {
                writer.set_verbose(verbose);
                debug!("at {verbose}");
                trace!("at {verbose}");
            }
        });
        assert_eq!(
            captured.messages(),
            ["DEBUG at 1", "DEBUG at 2", "NOISE at 2"]
        );
    }

    #[test]
    fn fields_become_prefix_and_tail() {
        let who = "C-0x1: db/user@127.0.0.1:5000";
        let reason = std::io::Error::other("broken");
        let run = || {
            info!(who = %who, "closing because: {} (age={}s)", "test", 3);
            info!(who, waited_ms = 12, ok = true, ratio = 0.5, pool = %"a/b", "text");
            warn!(error = &reason as &(dyn Error + 'static), kind = ?Some(1), "failed");
            info!(count = 1);
        };
        let expected = [
            "LOG C-0x1: db/user@127.0.0.1:5000 closing because: test (age=3s)",
            "LOG C-0x1: db/user@127.0.0.1:5000 text waited_ms=12 ok=true ratio=0.5 pool=a/b",
            "WARNING failed error=broken kind=Some(1)",
            "LOG count=1",
        ];
        assert_eq!(lines(0, run), expected);
    }

    #[test]
    fn dependencies_speak_only_of_trouble() {
        let run = || {
            error!(target: "rustls::conn", "e");
            warn!(target: "tokio", key = 1, "w");
            info!(target: "tokio", "i");
            trace!(target: "pgweirdo", "n");
        };
        assert_eq!(
            lines(2, run),
            ["ERROR rustls::conn: e", "WARNING tokio: w key=1"]
        );
    }

    #[test]
    fn records_of_the_log_crate() {
        let (_, captured) = capture(2);
        let bridge = LogBridge {
            writer: Arc::clone(&captured.writer),
        };
        for level in log::Level::iter() {
            let record = log::Record::builder()
                .level(level)
                .target("rustls::x")
                .args(format_args!("m"))
                .build();
            bridge.log(&record);
        }
        assert_eq!(
            captured.messages(),
            ["ERROR rustls::x: m", "WARNING rustls::x: m"]
        );
    }

    #[test]
    fn a_value_that_logs_while_it_is_printed() {
        struct Talks;
        impl fmt::Display for Talks {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                info!("inner");
                f.write_str("talks")
            }
        }
        // tracing drops events raised inside its own callback; what counts is that nothing panics.
        let seen = lines(0, || info!("outer {}", Talks));
        assert_eq!(seen.last().unwrap(), "LOG outer talks");
    }

    #[test]
    fn a_huge_value_is_cut_early() {
        struct Endless;
        impl fmt::Display for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    f.write_str("and so on, ")?;
                }
            }
        }
        let seen = lines(0, || info!(value = %Endless, "m {}", Endless));
        assert_eq!(
            seen[0].len(),
            "LOG ".len() + super::super::line::MESSAGE_BYTES_MAX
        );
    }

    #[test]
    fn threads_do_not_mix_their_lines() {
        let (dispatch, captured) = capture(0);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let dispatch = dispatch.clone();
                scope.spawn(move || {
                    with_default(&dispatch, || {
                        (0..200).for_each(|n| info!("t{thread} n{n} end"))
                    })
                });
            }
        });
        let messages = captured.messages();
        assert_eq!(messages.len(), 8 * 200);
        assert!(
            messages
                .iter()
                .all(|m| m.starts_with("LOG t") && m.ends_with(" end"))
        );
    }
}
