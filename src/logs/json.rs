//! One log line as a JSON object, from its parts: pure, no clock and no output.
//!
//! `{"time":"2026-11-21T01:58:51.503Z","level":"info","pid":7029,"msg":"…","client":"0x1","database":"db","user":"u","addr":"127.0.0.1",
//! "port":5000}`: the prefix that says whom a line is about is taken apart ([`Subject`]), and an event's own fields follow. Texts are those
//! of PgBouncer's line, so a control character stands there as `\x1b`; only the tab that continues a line there is left out.

use std::fmt;
use std::io::Write as _;

use super::clock::Stamp;
use super::line::{Parts, Severity};

/// The longest text of a message, in bytes as written, escapes included. With the limits below, a whole line stays below 4096 bytes, which a
/// pipe takes in one piece.
const MESSAGE_MAX: usize = 2047;
/// The longest name, address or value, in bytes as written.
const VALUE_MAX: usize = 256;
/// The most that an event's own fields may take; one that has no room is left out.
const FIELDS_MAX: usize = 800;

/// What every line has, or its prefix gives: an event's own field of such a name gets a `_`.
const RESERVED: [&str; 13] = [
    "time", "level", "pid", "msg", "target", "who", "client", "server", "database", "user", "addr",
    "port", "peer_pid",
];

/// An event's own fields as they stand in a JSON line: `,"name":value`, again and again.
#[derive(Debug, Default)]
pub struct TypedFields {
    text: Vec<u8>,
}

impl TypedFields {
    /// Forgets them, keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
    }

    /// A value that is JSON as it is printed: a number, `true`, `false`.
    pub fn push_plain(&mut self, name: &str, value: impl fmt::Display) {
        self.push(name, |out| {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "{value}");
        });
    }

    /// A text, already clean.
    pub fn push_text(&mut self, name: &str, value: &str) {
        self.push(name, |out| push_string(out, value, VALUE_MAX));
    }

    fn push(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
        let before = self.text.len();
        self.text.push(b',');
        if RESERVED.contains(&name) {
            push_string(&mut self.text, &format!("{name}_"), VALUE_MAX);
        } else {
            push_string(&mut self.text, name, VALUE_MAX);
        }
        self.text.push(b':');
        value(&mut self.text);
        if self.text.len() > FIELDS_MAX {
            self.text.truncate(before);
        }
    }
}

/// Appends the line to `out`, newline included.
pub fn format_json(
    stamp: &Stamp<'_>,
    pid: u32,
    severity: Severity,
    parts: &Parts,
    out: &mut Vec<u8>,
) {
    let (time, level) = (stamp.utc(), severity.json_word());
    // Writing to a Vec cannot fail.
    let _ = write!(
        out,
        r#"{{"time":"{time}","level":"{level}","pid":{pid},"msg":"#
    );
    push_string(out, parts.message.as_str().trim_end(), MESSAGE_MAX);
    push_who(parts, out);
    out.extend_from_slice(&parts.typed.text);
    out.extend_from_slice(b"}\n");
}

fn push_who(parts: &Parts, out: &mut Vec<u8>) {
    let who = parts.who.as_str();
    if who.is_empty() {
        return;
    }
    let mut text = |name: &str, value: &str| {
        let _ = write!(out, r#","{name}":"#);
        push_string(out, value, VALUE_MAX);
    };
    if parts.is_foreign {
        return text("target", who.trim_end_matches(':'));
    }
    let Some(subject) = Subject::parse(who) else {
        return text("who", who);
    };
    text(subject.side, subject.id);
    match subject.names {
        Names::Apart { database, user } => {
            database.into_iter().for_each(|name| text("database", name));
            user.into_iter().for_each(|name| text("user", name));
        }
        Names::Together => text("who", who),
    }
    text("addr", subject.addr);
    let mut number = |name: &str, value: Option<u32>| {
        if let Some(value) = value {
            let _ = write!(out, r#","{name}":{value}"#);
        }
    };
    number("port", subject.port.map(u32::from));
    number("peer_pid", subject.peer_pid);
}

/// Whom a line is about, from a prefix `C-0x1: db/user@host:port`.
#[derive(Debug, PartialEq, Eq)]
struct Subject<'a> {
    /// `client` or `server`
    side: &'static str,
    id: &'a str,
    names: Names<'a>,
    /// The address; `unix` for a Unix socket.
    addr: &'a str,
    port: Option<u16>,
    /// The process at the other end of a Unix socket.
    peer_pid: Option<u32>,
}

/// Database and user of a prefix.
#[derive(Debug, PartialEq, Eq)]
enum Names<'a> {
    /// Each `None` if there is none yet.
    Apart {
        database: Option<&'a str>,
        user: Option<&'a str>,
    },
    /// One of them has a slash in it: nobody can say any more where one ends, and a guess could name the wrong one.
    Together,
}

impl<'a> Subject<'a> {
    fn parse(who: &'a str) -> Option<Subject<'a>> {
        let (side, rest) = match who.split_at_checked(2)? {
            ("C-", rest) => ("client", rest),
            ("S-", rest) => ("server", rest),
            _ => return None,
        };
        let (id, rest) = rest.split_once(": ")?;
        // Names may contain anything; an address has no `@`.
        let (names, place) = rest.rsplit_once('@')?;
        let (addr, port) = match place.rsplit_once(':') {
            Some((addr, port)) => (addr, port.parse().ok()),
            None => (place, None),
        };
        let bracketed = addr
            .strip_prefix('[')
            .and_then(|addr| addr.strip_suffix(']'));
        let peer = addr
            .strip_prefix("unix(")
            .and_then(|pid| pid.strip_suffix(')'));
        Some(Subject {
            side,
            id,
            names: Names::parse(names),
            addr: if peer.is_some() {
                "unix"
            } else {
                bracketed.unwrap_or(addr)
            },
            port,
            peer_pid: peer.and_then(|pid| pid.parse().ok()),
        })
    }
}

impl<'a> Names<'a> {
    fn parse(names: &'a str) -> Names<'a> {
        match names.split_once('/') {
            Some((database, user)) if !user.contains('/') => Names::Apart {
                database: Some(database).filter(|name| *name != "(nodb)"),
                user: Some(user).filter(|name| *name != "(nouser)"),
            },
            _ => Names::Together,
        }
    }
}

/// Appends a clean text as a JSON string, cut where it would become longer than `max` bytes, quotes not counted.
fn push_string(out: &mut Vec<u8>, text: &str, max: usize) {
    out.push(b'"');
    let end = out.len() + max;
    let mut buffer = [0; 6];
    let mut before = '\0';
    for character in text.chars() {
        let escaped = match character {
            // What marks a continued line elsewhere.
            '\t' if before == '\n' => "",
            '"' => "\\\"",
            '\\' => "\\\\",
            '\n' => "\\n",
            '\t' => "\\t",
            '\0'..='\x1f' => {
                let code = u32::from(character);
                let _ = write!(&mut buffer[..], "\\u{code:04x}");
                std::str::from_utf8(&buffer).unwrap_or_default()
            }
            other => other.encode_utf8(&mut buffer),
        };
        if out.len() + escaped.len() > end {
            break;
        }
        out.extend_from_slice(escaped.as_bytes());
        // A second tab is the message's own.
        before = if escaped.is_empty() { '\0' } else { character };
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use jiff::{Timestamp, tz::TimeZone};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::clock::StampCache;
    use super::*;

    fn line(parts: &Parts) -> (usize, Value) {
        let now: Timestamp = "2026-11-21T01:58:51.503Z".parse().unwrap();
        let zone = TimeZone::posix("CET-1").unwrap();
        let mut out = Vec::new();
        let mut cache = StampCache::default();
        format_json(
            &cache.at(now, || zone),
            7029,
            Severity::Log,
            parts,
            &mut out,
        );
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(out.last(), Some(&b'\n'));
        (out.len(), serde_json::from_slice(&out).unwrap())
    }

    fn parts(who: &str, message: &str) -> Parts {
        let mut parts = Parts::default();
        let _ = parts.who.write_str(who);
        let _ = parts.message.write_str(message);
        parts
    }

    #[track_caller]
    fn check(parts: &Parts, rest: Value) {
        let mut expected = json!({
            "time": "2026-11-21T01:58:51.503Z", "level": "info", "pid": 7029, "msg": "m",
        });
        let rest = rest.as_object().unwrap().clone();
        expected.as_object_mut().unwrap().extend(rest);
        assert_eq!(line(parts).1, expected);
    }

    #[test]
    fn the_prefix_is_taken_apart() {
        for (who, expected) in [
            ("", json!({})),
            (
                "C-0x1: db/u@127.0.0.1:5",
                json!({"client": "0x1", "database": "db", "user": "u", "addr": "127.0.0.1", "port": 5}),
            ),
            (
                "S-0x2: db/u@[::1]:5432",
                json!({"server": "0x2", "database": "db", "user": "u", "addr": "::1", "port": 5432}),
            ),
            (
                "C-0x1: (nodb)/(nouser)@unix(12):6432",
                json!({"client": "0x1", "addr": "unix", "port": 6432, "peer_pid": 12}),
            ),
            (
                "S-0x2: db/u@unix:5432",
                json!({"server": "0x2", "database": "db", "user": "u", "addr": "unix", "port": 5432}),
            ),
            (
                "C-0x1: db/u@9.9.9.9:1@127.0.0.1:5",
                json!({"client": "0x1", "database": "db", "user": "u@9.9.9.9:1", "addr": "127.0.0.1", "port": 5}),
            ),
            (
                "C-0x1: a/b/c@127.0.0.1:5",
                json!({"client": "0x1", "who": "C-0x1: a/b/c@127.0.0.1:5", "addr": "127.0.0.1", "port": 5}),
            ),
            ("db/user", json!({"who": "db/user"})),
            ("C-", json!({"who": "C-"})),
        ] {
            check(&parts(who, "m"), expected);
        }
    }

    #[test]
    fn who_speaks_is_a_module() {
        let mut parts = parts("rustls::conn:", "m");
        parts.is_foreign = true;
        check(&parts, json!({"target": "rustls::conn"}));
    }

    #[test]
    fn fields_keep_their_types_and_no_name_stands_twice() {
        let mut parts = parts("", "m");
        parts.typed.push_plain("n", 12);
        parts.typed.push_plain("ok", true);
        parts.typed.push_text("quote", "a\"b");
        parts.typed.push_text("time", "t");
        check(
            &parts,
            json!({"n": 12, "ok": true, "quote": "a\"b", "time_": "t"}),
        );
    }

    #[test]
    fn texts_are_whole_again() {
        let message = |text: &str| line(&parts("", text)).1["msg"].as_str().unwrap().to_owned();
        assert_eq!(message("a\nb\n\tc\td"), "a\nb\n\tc\td");
        assert_eq!(message("\x1b[2J\0é\u{2028}x"), "\\x1b[2J\\x00é\u{2028}x");
        assert_eq!(message("end \n"), "end");
    }

    proptest! {
        #[test]
        fn any_text_becomes_one_bounded_object(who in "(?s).{0,300}", user in "(?s).{0,300}", message in "(?s).{0,3000}",
                                               value in "(?s).{0,600}", prefixed: bool) {
            let who = if prefixed { format!("C-0x1: d/{user}@127.0.0.1:5") } else { who };
            let mut parts = parts(&who, &message);
            for name in ["a", "b", "c", "d"] {
                parts.typed.push_text(name, &value);
            }
            let (length, _) = line(&parts);
            prop_assert!(length < 4096, "{length}");
        }

        #[test]
        fn the_worst_text_is_bounded_too(character in prop::sample::select(vec!['"', '\\', '\n', '\u{1}', '\u{10ffff}'])) {
            let text: String = std::iter::repeat_n(character, 3000).collect();
            let mut parts = parts(&format!("S-{text}: {text}/{text}@{text}:1"), &text);
            parts.typed.push_text("a", &text);
            let (length, _) = line(&parts);
            prop_assert!(length < 4096, "{length}");
        }
    }
}
