//! The ini file, in PgBouncer's dialect: bytes in, lines with their meaning out.
//!
//! Comments begin a line with `;` or `#`; keys are bare or in single quotes; a value is the rest of the line; there
//! are no continuation lines. Unlike PgBouncer this reader goes on after a mistake, so that all of them can be told
//! at once. Files and `%include` are the business of [`super::source`], the meaning of keys that of [`super::draft`].

/// What one line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement<'a> {
    /// `[name]`
    Section(&'a str),
    /// `key = value`; the value has no surrounding blanks.
    Assign {
        /// Without quotes.
        key: &'a str,
        /// As it stands.
        value: &'a str,
    },
    /// `%include path`
    Include(&'a str),
    /// Something else; what is wrong with it.
    Wrong(&'static str),
}

/// The statements of a file, each with its line number, counted from 1.
pub fn statements(bytes: &[u8]) -> Vec<(usize, Statement<'_>)> {
    let mut found = Vec::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        read_line(line, |statement| found.push((index + 1, statement)));
    }
    found
}

/// A line is empty, a comment or a statement; what follows `[section]` counts as a line of its own.
fn read_line<'a>(line: &'a [u8], mut yield_: impl FnMut(Statement<'a>)) {
    let mut line = line.trim_ascii();
    loop {
        // Comments need not be UTF-8.
        if line.is_empty() || matches!(line.first(), Some(b';' | b'#')) {
            return;
        }
        let Ok(text) = str::from_utf8(line) else {
            return yield_(Statement::Wrong("not valid UTF-8"));
        };
        if text.contains('\0') {
            return yield_(Statement::Wrong("a zero byte"));
        }
        let Some(bracketed) = text.strip_prefix('[') else {
            return yield_(read_statement(text));
        };
        let Some((name, rest)) = bracketed.split_once(']') else {
            return yield_(Statement::Wrong("no ] after the name of a section"));
        };
        yield_(Statement::Section(name));
        line = rest.as_bytes().trim_ascii();
    }
}

fn read_statement(text: &str) -> Statement<'_> {
    match text.strip_prefix('%') {
        Some(directive) => read_directive(directive),
        None => read_assignment(text).unwrap_or_else(Statement::Wrong),
    }
}

fn read_directive(text: &str) -> Statement<'_> {
    match text.strip_prefix("include") {
        Some(path) if path.starts_with([' ', '\t']) => Statement::Include(path.trim()),
        _ => Statement::Wrong("%include FILE is the only directive"),
    }
}

fn read_assignment(text: &str) -> Result<Statement<'_>, &'static str> {
    let (key, rest) = match text.strip_prefix('\'') {
        Some(quoted) => quoted.split_once('\'').ok_or("no ' after a quoted key")?,
        None => text.split_at(text.find(|c| !is_key_character(c)).unwrap_or(text.len())),
    };
    let value = rest
        .trim_start()
        .strip_prefix('=')
        .ok_or("key = value is expected")?;
    match key {
        "" => Err("an empty key"),
        _ => Ok(Statement::Assign {
            key,
            value: value.trim(),
        }),
    }
}

fn is_key_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '*')
}

#[cfg(test)]
mod tests {
    use super::Statement::*;
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: &[Statement<'_>]) {
        let found: Vec<Statement<'_>> = statements(text.as_bytes())
            .into_iter()
            .map(|(_, s)| s)
            .collect();
        let blur = |s: &Statement<'_>| matches!(s, Wrong(_));
        assert_eq!(found.len(), expected.len(), "{text:?}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                found == expected || blur(found) && blur(expected),
                "{text:?}: {found:?}"
            );
        }
    }

    fn assign<'a>(key: &'a str, value: &'a str) -> Statement<'a> {
        Assign { key, value }
    }

    #[test]
    fn lines() {
        check("", &[]);
        check("\n ; c\n\t# c\n", &[]);
        check("[pgbouncer]", &[Section("pgbouncer")]);
        check(" [pgbouncer] ; c", &[Section("pgbouncer")]);
        check("[a]b=1", &[Section("a"), assign("b", "1")]);
        check("[a ]", &[Section("a ")]);
        check(
            "\tpool_mode\t=\tsession  \r",
            &[assign("pool_mode", "session")],
        );
        check("a = b ; c", &[assign("a", "b ; c")]);
        check("a =", &[assign("a", "")]);
        check("a = 'b'", &[assign("a", "'b'")]);
        check("'a b' = c", &[assign("a b", "c")]);
        check("* = host=x", &[assign("*", "host=x")]);
        check("a.b-c_d* = x", &[assign("a.b-c_d*", "x")]);
        check("%include a b.ini ", &[Include("a b.ini")]);
    }

    #[test]
    fn mistakes() {
        for text in [
            "logfile",
            "= x",
            "''=x",
            "\"a\"=x",
            "'a'b=x",
            "'a''b'=x",
            "a b=x",
            "é=x",
            "'a",
            "[a",
            "%include",
            "%includefoo",
            "%foo x",
            "a\0=b",
        ] {
            check(text, &[Wrong("")]);
        }
        assert_eq!(statements(b"a=\xff"), [(1, Wrong("not valid UTF-8"))]);
        assert_eq!(statements(b"# \xff\na=1"), [(2, assign("a", "1"))]);
    }

    #[test]
    fn reading_goes_on_after_a_mistake() {
        let found = statements(b"[a]\nfoo\n\nb=1\n'c\nd=2");
        let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 2, 4, 5, 6]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            statements(&bytes);
        }

        #[test]
        fn no_likely_text_panics(text in "[\\[\\]a'=%;# \n]{0,40}") {
            statements(text.as_bytes());
        }

        #[test]
        fn assignments_read_back(key in "[a-z_.*-]{1,8}", value in "[!-~]([ -~]{0,10}[!-~])?") {
            let text = format!("{key} = {value}");
            prop_assert_eq!(statements(text.as_bytes()), [(1, assign(&key, &value))]);
        }
    }
}
