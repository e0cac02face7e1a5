//! The text of one log line, from its parts: pure, no clock and no output.
//!
//! Makes PgBouncer's line (`YYYY-MM-DD HH:MM:SS.mmm TZ [PID] LEVEL message`), the journal's (`<N>message`) and syslog's.
//! What peers can put into a message is made harmless here: see [`CleanText`].
//! JSON lines are made in [`json`](super::json). The date and time come from [`clock`](super::clock), the parts from [`layer`](super::layer).

use std::fmt::{self, Write as _};
use std::io::Write as _;

use super::clock::Stamp;
use super::json::TypedFields;

/// Longest message in bytes, connection prefix and fields included, time and level not. Whatever is longer is cut, at a
/// character's boundary. A whole line then stays below 4096 bytes, which a pipe takes in one piece.
pub const MESSAGE_BYTES_MAX: usize = 2047;

/// How grave a line is; the most severe first, so `a < b` says that `a` is graver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The process ends. An error event with the field `fatal = true`.
    Fatal,
    /// `tracing::error!`
    Error,
    /// `tracing::warn!`
    Warning,
    /// `tracing::info!`
    Log,
    /// `tracing::debug!`; shown when verbose is at least 1.
    Debug,
    /// `tracing::trace!`; shown when verbose is at least 2.
    Noise,
}

impl Severity {
    /// The word in the line.
    pub const fn word(self) -> &'static str {
        match self {
            Severity::Fatal => "FATAL",
            Severity::Error => "ERROR",
            Severity::Warning => "WARNING",
            Severity::Log => "LOG",
            Severity::Debug => "DEBUG",
            Severity::Noise => "NOISE",
        }
    }

    /// The word in a JSON line: what collectors of logs know.
    pub const fn json_word(self) -> &'static str {
        match self {
            Severity::Fatal => "fatal",
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Log => "info",
            Severity::Debug => "debug",
            Severity::Noise => "trace",
        }
    }

    /// The priority in syslog and in the journal (0 to 7).
    pub const fn syslog_priority(self) -> u8 {
        match self {
            Severity::Fatal => 2,
            Severity::Error => 3,
            Severity::Warning => 4,
            Severity::Log => 6,
            Severity::Debug | Severity::Noise => 7,
        }
    }

    /// Whether the setting `verbose` lets it through.
    pub const fn is_shown_at(self, verbose: u8) -> bool {
        match self {
            Severity::Debug => verbose >= 1,
            Severity::Noise => verbose >= 2,
            _ => true,
        }
    }
}

/// Text that can neither forge a line nor grow without end: a newline is followed by a tab, every other control character
/// (but the tab) is written as `\x1b`, and nothing is kept beyond [`MESSAGE_BYTES_MAX`].
///
/// Writing beyond the limit is answered with [`fmt::Error`], so that the formatting of a huge value stops early.
#[derive(Debug, Default)]
pub struct CleanText {
    text: String,
}

impl CleanText {
    /// Forgets the text, keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
    }

    /// The text so far.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Cuts white space at the end.
    pub fn trim_end(&mut self) {
        self.text.truncate(self.text.trim_end().len());
    }

    /// Appends what has been cleaned before (or needs no cleaning); cut at the limit.
    fn push_clean(&mut self, text: &str) -> fmt::Result {
        let room = MESSAGE_BYTES_MAX - self.text.len();
        if text.len() <= room {
            self.text.push_str(text);
            return Ok(());
        }
        let mut cut = room;
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        self.text.push_str(&text[..cut]);
        Err(fmt::Error)
    }

    fn push_control(&mut self, control: char) -> fmt::Result {
        match control {
            '\n' => self.push_clean("\n\t"),
            '\t' => self.push_clean("\t"),
            other => self.push_clean(&format!("\\x{:02x}", u32::from(other))),
        }
    }
}

impl fmt::Write for CleanText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Nearly all text is plain, and is found to be so many bytes at a time.
        if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return self.push_clean(text);
        }
        let mut rest = text;
        while let Some((at, control)) = rest.char_indices().find(|(_, c)| c.is_control()) {
            self.push_clean(&rest[..at])?;
            self.push_control(control)?;
            rest = &rest[at + control.len_utf8()..];
        }
        self.push_clean(rest)
    }
}

/// The parts of a message as they are gathered from an event; reused from line to line.
#[derive(Debug, Default)]
pub struct Parts {
    /// The connection prefix, without the space after it.
    pub who: CleanText,
    /// The message proper.
    pub message: CleanText,
    /// All other fields, each as ` key=value`.
    pub fields: CleanText,
    /// The same for a JSON line; empty where none is wanted.
    pub typed: TypedFields,
    /// `who` is the module of a dependency.
    pub is_foreign: bool,
    /// A value while it is being put into `typed`.
    value: CleanText,
}

impl Parts {
    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.who.clear();
        self.message.clear();
        self.fields.clear();
        self.typed.clear();
        self.is_foreign = false;
    }

    /// Writes ` name=value` behind the message. A value that is too long is cut.
    pub fn push_field(&mut self, name: &str, value: fmt::Arguments<'_>) {
        // An error says that the limit was reached, which is no news: the text is cut there.
        let _ = write!(self.fields, " {name}={value}");
    }

    /// What is said, in pieces, without whom it is about.
    pub fn saying(&self) -> [&str; 2] {
        [self.message.as_str().trim_end(), self.fields.as_str()]
    }

    /// Takes a text for the JSON line. A value that is too long is cut.
    pub fn push_typed_text(&mut self, name: &str, value: fmt::Arguments<'_>) {
        self.value.clear();
        let _ = self.value.write_fmt(value);
        self.typed.push_text(name, self.value.as_str());
    }

    /// Puts the parts together in `whole` (which is cleared first): `who message key=value`.
    pub fn join(&mut self, whole: &mut CleanText) {
        whole.clear();
        self.message.trim_end();
        let _ = self.join_cut(whole);
        whole.trim_end();
    }

    /// Stops with an error where the limit is reached.
    fn join_cut(&self, whole: &mut CleanText) -> fmt::Result {
        whole.push_clean(self.who.as_str())?;
        if !self.who.is_empty() && !self.message.is_empty() {
            whole.push_clean(" ")?;
        }
        whole.push_clean(self.message.as_str())?;
        let fields = self.fields.as_str();
        let starts_line = whole.is_empty();
        whole.push_clean(if starts_line {
            fields.trim_start()
        } else {
            fields
        })
    }
}

/// Appends PgBouncer's line to `out`, newline included.
pub fn format_line(
    stamp: &Stamp<'_>,
    pid: u32,
    severity: Severity,
    message: &str,
    out: &mut Vec<u8>,
) {
    let word = severity.word();
    // Writing to a Vec cannot fail.
    let _ = writeln!(out, "{stamp} [{pid}] {word} {message}");
}

/// Appends the journal's form to `out`: `<N>message`. The journal makes an entry of every line, so the continuation of a
/// message gets its priority too.
pub fn format_journal(severity: Severity, message: &str, out: &mut Vec<u8>) {
    for line in message.split('\n') {
        push_journal_priority(severity, out);
        let _ = writeln!(out, "{line}");
    }
}

/// Appends what tells the journal how grave the rest of the line is: `<N>`.
pub fn push_journal_priority(severity: Severity, out: &mut Vec<u8>) {
    let _ = write!(out, "<{}>", severity.syslog_priority());
}

/// Appends syslog's datagram (the traditional local form) to `out`: `<PRI>Mmm dd hh:mm:ss ident[pid]: message`.
/// `facility` is the facility's number, not yet shifted.
pub fn format_syslog(
    stamp: &Stamp<'_>,
    pid: u32,
    severity: Severity,
    (facility, ident): (u8, &str),
    message: &str,
    out: &mut Vec<u8>,
) {
    let priority = u32::from(facility) * 8 + u32::from(severity.syslog_priority());
    let time = stamp.syslog_time();
    let _ = write!(out, "<{priority}>{time} {ident}[{pid}]: {message}");
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, tz::TimeZone};
    use proptest::prelude::*;

    use super::super::clock::StampCache;
    use super::*;

    fn clean(text: &str) -> String {
        let mut out = CleanText::default();
        let _ = out.write_str(text);
        out.as_str().to_owned()
    }

    fn join(who: &str, message: &str, fields: &[(&str, &str)]) -> String {
        let mut parts = Parts::default();
        let _ = parts.who.write_str(who);
        let _ = parts.message.write_str(message);
        for (name, value) in fields {
            parts.push_field(name, format_args!("{value}"));
        }
        let mut whole = CleanText::default();
        parts.join(&mut whole);
        whole.as_str().to_owned()
    }

    fn with_stamp<T>(use_it: impl FnOnce(&Stamp<'_>) -> T) -> T {
        let now: Timestamp = "2026-11-21T01:58:51.503Z".parse().unwrap();
        use_it(&StampCache::default().at(now, || TimeZone::UTC))
    }

    #[test]
    fn severities_have_pgbouncers_words_and_priorities() {
        let all = [
            (Severity::Fatal, "FATAL", 2, 0),
            (Severity::Error, "ERROR", 3, 0),
            (Severity::Warning, "WARNING", 4, 0),
            (Severity::Log, "LOG", 6, 0),
            (Severity::Debug, "DEBUG", 7, 1),
            (Severity::Noise, "NOISE", 7, 2),
        ];
        for (severity, word, priority, verbose) in all {
            assert_eq!(severity.word(), word);
            assert_eq!(severity.json_word(), severity.json_word().to_lowercase());
            assert_eq!(severity.syslog_priority(), priority);
            assert!(severity.is_shown_at(verbose));
            assert!(verbose == 0 || !severity.is_shown_at(verbose - 1));
        }
        assert!(Severity::Fatal < Severity::Noise);
    }

    #[test]
    fn control_characters_cannot_forge_a_line() {
        assert_eq!(clean("plain"), "plain");
        assert_eq!(clean("a\nb"), "a\n\tb");
        assert_eq!(clean("a\tb"), "a\tb");
        assert_eq!(
            clean("\x1b[2J\0\r\u{7f}\u{9b}é"),
            "\\x1b[2J\\x00\\x0d\\x7f\\x9bé"
        );
    }

    #[test]
    fn messages_are_cut_at_a_character_boundary() {
        assert_eq!(clean(&"x".repeat(5000)).len(), MESSAGE_BYTES_MAX);
        // 2047 is odd, so two-byte characters leave one byte unused.
        assert_eq!(clean(&"é".repeat(5000)).len(), MESSAGE_BYTES_MAX - 1);
        assert_eq!(
            join(&"w".repeat(40), &"m".repeat(5000), &[]).len(),
            MESSAGE_BYTES_MAX
        );
    }

    #[test]
    fn parts_are_joined_in_order() {
        assert_eq!(
            join("C-1: db/u@h:1", "closing", &[]),
            "C-1: db/u@h:1 closing"
        );
        assert_eq!(join("", "m", &[("a", "1"), ("b", "2")]), "m a=1 b=2");
        assert_eq!(join("w", "", &[("a", "1")]), "w a=1");
        assert_eq!(join("", "", &[("a", "1")]), "a=1");
        assert_eq!(join("", "", &[]), "");
    }

    #[test]
    fn trailing_white_space_is_cut() {
        assert_eq!(join("", "m \n\n", &[]), "m");
        assert_eq!(join("", "m\n", &[("a", "1 \n")]), "m a=1");
        assert_eq!(join("", "a\nb\n", &[]), "a\n\tb");
    }

    #[test]
    fn lines_look_like_pgbouncers() {
        let mut out = Vec::new();
        with_stamp(|stamp| {
            format_line(
                stamp,
                7029,
                Severity::Log,
                "listening on 127.0.0.1:7391",
                &mut out,
            )
        });
        let expected = "2026-11-21 01:58:51.503 UTC [7029] LOG listening on 127.0.0.1:7391\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn the_journal_gets_a_priority_for_every_line() {
        let mut out = Vec::new();
        format_journal(Severity::Error, "a\n\tb", &mut out);
        assert_eq!(out, b"<3>a\n<3>\tb\n");
    }

    #[test]
    fn syslog_gets_facility_ident_and_pid() {
        let mut out = Vec::new();
        with_stamp(|stamp| {
            format_syslog(
                stamp,
                42,
                Severity::Warning,
                (3, "pgbouncer"),
                "hello",
                &mut out,
            )
        });
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "<28>Nov 21 01:58:51 pgbouncer[42]: hello"
        );
    }

    proptest! {
        #[test]
        fn any_text_becomes_one_bounded_message(who in ".{0,200}", message in "(?s).{0,3000}", value in "(?s).{0,300}") {
            let whole = join(&who, &message, &[("k", &value)]);
            prop_assert!(whole.len() <= MESSAGE_BYTES_MAX);
            prop_assert_eq!(whole.trim_end(), whole.as_str());
            prop_assert!(whole.chars().all(|c| !c.is_control() || c == '\t' || c == '\n'));
            prop_assert_eq!(whole.matches('\n').count(), whole.matches("\n\t").count());
        }
    }
}
