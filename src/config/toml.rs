//! The TOML file: tables `[pgbouncer]`, `[databases.NAME]`, `[users.NAME]` and `[peers.ID]`.
//!
//! The same settings and keys as in the ini file, with units (`"5min"`, `"64kB"`), booleans and arrays. An entry may
//! also be a connect string: `[databases]`, `app = "host=db1"`. Lines are kept, for messages.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::draft::{Draft, Pair};
use super::problem::{Place, Problem};
use super::source::pairs;
use super::value::Raw;

/// Reads TOML text into the draft; `name` is the file's, for messages.
pub fn read(bytes: &[u8], name: &str, draft: &mut Draft) {
    let text = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let lines = Lines {
                text: &String::from_utf8_lossy(&bytes[..error.valid_up_to()]),
                file: name,
            };
            let place = lines.place(&(error.valid_up_to()..error.valid_up_to()));
            return draft.problem(syntax_error(&place, "not valid UTF-8"));
        }
    };
    let lines = Lines { text, file: name };
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let place = lines.place(&error.span().unwrap_or_default());
        draft.problem(syntax_error(&place, error.message()));
    }
    if errors.is_empty() {
        Reader { lines, draft }.document(document.get_ref());
    }
}

fn syntax_error(place: &Place, why: &str) -> Problem {
    Problem::new(place, "syntax error in configuration").hint(why)
}

/// Finds the line of a position.
struct Lines<'a> {
    text: &'a str,
    file: &'a str,
}

impl Lines<'_> {
    fn place(&self, span: &Range<usize>) -> Place {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        Place::line(
            self.file,
            1 + before.iter().filter(|&&byte| byte == b'\n').count(),
        )
    }
}

struct Reader<'a> {
    lines: Lines<'a>,
    draft: &'a mut Draft,
}

impl Reader<'_> {
    fn document(&mut self, document: &DeTable<'_>) {
        for (name, value) in in_order(document) {
            let place = self.lines.place(&name.span());
            let section = name.get_ref().as_ref();
            if !matches!(section, "pgbouncer" | "databases" | "users" | "peers") {
                let text = format!("invalid section \"{section}\" in configuration");
                self.draft.problem(Problem::new(&place, text));
                continue;
            }
            match value.get_ref() {
                DeValue::Table(table) if section == "pgbouncer" => self.settings(table),
                DeValue::Table(table) => self.entries(section, table),
                other => self.unexpected(section, "a table", other, &place),
            }
        }
    }

    fn settings(&mut self, table: &DeTable<'_>) {
        for (name, value) in in_order(table) {
            let place = self.lines.place(&name.span());
            match raw(value.get_ref()) {
                Some(raw) => self.draft.setting(name.get_ref(), &raw, &place),
                None => self.unexpected(
                    name.get_ref(),
                    "a plain value or a list",
                    value.get_ref(),
                    &place,
                ),
            }
        }
    }

    fn entries(&mut self, section: &str, table: &DeTable<'_>) {
        for (name, value) in in_order(table) {
            let place = self.lines.place(&name.span());
            let name = name.get_ref().as_ref();
            let Some(pairs) = self.entry(name, value, &place) else {
                continue;
            };
            match section {
                "users" => self.draft.user(name, &pairs, &place),
                "peers" => self.draft.peer(name, &pairs, &place),
                _ => self.draft.database(name, &pairs, &place),
            }
        }
    }

    /// The pairs of an entry; `None` when a mistake has been reported instead.
    fn entry(
        &mut self,
        name: &str,
        value: &Spanned<DeValue<'_>>,
        place: &Place,
    ) -> Option<Vec<Pair>> {
        match value.get_ref() {
            DeValue::String(text) => {
                let found = pairs(text, place);
                if found.is_none() {
                    let text = format!("syntax error in connection string of \"{name}\"");
                    self.draft.problem(Problem::new(place, text));
                }
                found
            }
            DeValue::Table(table) => Some(self.table_pairs(table)),
            other => {
                self.unexpected(name, "a table or a connect string", other, place);
                None
            }
        }
    }

    fn table_pairs(&mut self, table: &DeTable<'_>) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for (key, value) in in_order(table) {
            let place = self.lines.place(&key.span());
            match raw(value.get_ref()) {
                Some(value) => pairs.push(Pair {
                    key: key.get_ref().to_string(),
                    value,
                    place,
                }),
                None => self.unexpected(
                    key.get_ref(),
                    "a plain value or a list",
                    value.get_ref(),
                    &place,
                ),
            }
        }
        pairs
    }

    fn unexpected(&mut self, name: &str, expected: &str, found: &DeValue<'_>, place: &Place) {
        let text = format!(
            "{expected} is expected for {name}, not {}",
            found.type_str()
        );
        self.draft.problem(Problem::new(place, text));
    }
}

/// The entries of a table as they stand in the file; the table itself is sorted by name.
fn in_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t Spanned<DeString<'i>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

/// A TOML value as a written value; `None` for tables, dates and lists of anything but strings.
fn raw(value: &DeValue<'_>) -> Option<Raw> {
    match value {
        DeValue::String(text) => Some(Raw::free(text)),
        DeValue::Boolean(on) => Some(Raw::Flag(*on)),
        DeValue::Float(number) => Some(Raw::Number(number.as_str().to_owned())),
        DeValue::Integer(number) => {
            // A number too large for i64 is too large for every setting, and is refused as it stands.
            let decimal = i64::from_str_radix(number.as_str(), number.radix());
            Some(Raw::Number(decimal.map_or_else(
                |_| number.as_str().to_owned(),
                |n| n.to_string(),
            )))
        }
        DeValue::Array(items) => {
            let items: Option<Vec<String>> = items
                .iter()
                .map(|item| item.get_ref().as_str().map(str::to_owned))
                .collect();
            items.map(Raw::List)
        }
        DeValue::Table(_) | DeValue::Datetime(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::Settings;
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;
    use std::time::Duration;

    use crate::config::Config;

    fn config(text: &str) -> Result<Config, Vec<String>> {
        let mut draft = Draft::default();
        read(text.as_bytes(), "t.toml", &mut draft);
        let finished = draft.finish(Path::new("t.toml"), false);
        finished
            .map(|done| done.config)
            .map_err(|all| all.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_whole_file() {
        let text = r#"
            [pgbouncer]
            listen_addr = ["127.0.0.1", "::1"]
            pool_mode = "transaction"
            query_timeout = "5min"
            server_lifetime = 60
            reserve_pool_timeout = 0.5
            max_packet_size = "1MB"
            log_stats = false
            unix_socket_mode = 0o700
            [databases]
            short = "host=db1 port=5433"
            [databases.app]
            host = ["a", "b"]
            pool_size = 5
            query_wait_timeout = "2s"
            [databases."*"]
            [users.joe]
            pool_mode = "session"
            [peers.1]
            host = "x"
        "#;
        let config = config(text).unwrap();
        let settings = &config.settings;
        assert_eq!(settings.listen_addr, ["127.0.0.1", "::1"]);
        assert_eq!(settings.query_timeout, Duration::from_secs(300));
        assert_eq!(settings.server_lifetime, Duration::from_secs(60));
        assert_eq!(settings.reserve_pool_timeout, Duration::from_millis(500));
        assert_eq!(
            (settings.max_packet_size, settings.unix_socket_mode),
            (1 << 20, 0o700)
        );
        assert!(!settings.log_stats);
        assert_eq!(config.databases["short"].port, 5433);
        assert_eq!(config.databases["app"].hosts, ["a", "b"]);
        assert_eq!(
            config.databases["app"].query_wait_timeout,
            Some(Duration::from_secs(2))
        );
        assert!(config.autodb.is_some() && config.users.contains_key("joe"));
        assert_eq!(config.peers[&1].host, "x");
    }

    #[test]
    fn an_empty_file_is_all_defaults() {
        let settings = Settings {
            conffile: Some("t.toml".into()),
            ..Settings::default()
        };
        assert_eq!(config("").map(|config| config.settings), Ok(settings));
    }

    #[test]
    fn every_mistake_has_its_line() {
        let text = "[pgbouncer]\nverbose = true\nnot_a_setting = 1\n[databases.app]\nport = 0\nhost = 5\n\
                    colour = \"red\"\n[databases.my.app]\nhost = \"x\"\n[extra]\n[databases.pgbouncer]\n";
        let problems = config(text).unwrap_err();
        let starts = [
            "invalid value \"true\" for parameter verbose in configuration (t.toml:2)",
            "unknown parameter: pgbouncer/not_a_setting (t.toml:3)",
            "invalid port: 0, for database \"app\" (t.toml:5)",
            "invalid host: 5, for database \"app\" (t.toml:6)",
            "unrecognized connection parameter: colour, for database \"app\" (t.toml:7)",
            "a plain value or a list is expected for app, not table (t.toml:8)",
            "database name \"pgbouncer\" is reserved (t.toml:11)",
            "invalid section \"extra\" in configuration (t.toml:10)",
        ];
        assert_eq!(problems.len(), starts.len(), "{problems:#?}");
        for start in starts {
            assert!(
                problems.iter().any(|problem| problem.starts_with(start)),
                "{start}: {problems:#?}"
            );
        }
    }

    #[test]
    fn all_syntax_errors_are_told() {
        let problems = config("[pgbouncer]\na = = 1\n\n[oops\n").unwrap_err();
        assert!(
            problems.iter().any(|p| p.contains("(t.toml:2)")),
            "{problems:?}"
        );
        assert!(
            problems.iter().any(|p| p.contains("(t.toml:4)")),
            "{problems:?}"
        );
        let mut draft = Draft::default();
        read(b"a = 1\n\xff", "t.toml", &mut draft);
        let problems = draft.finish(Path::new("t"), false).map(|_| ()).unwrap_err();
        assert_eq!(problems[0].line, Some(2));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, text in "[a-z\\[\\]\"'=.0-9{} \n]{0,60}") {
            read(&bytes, "t.toml", &mut Draft::default());
            read(text.as_bytes(), "t.toml", &mut Draft::default());
        }
    }
}
