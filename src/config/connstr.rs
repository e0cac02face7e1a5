//! Connect strings: `host=x port=5432 password='it''s'`, as the entries of the ini file are written.
//!
//! Only blanks separate pairs (a tab does not), blanks may stand around `=`, values run to the next blank or are in
//! single quotes with `''` for a quote, and none is empty. What the keys mean is in [`super::entry`].

use zeroize::Zeroizing;

/// A connect string that is not a list of `key=value` pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyntaxError;

/// A key and its value; the value may be a password and is wiped when dropped.
pub type Pair<'a> = (&'a str, Zeroizing<String>);

/// Cuts a connect string into pairs, in their order.
///
/// # Errors
/// A key without `=`, an empty key or value, a quote that is not closed, or text right after a closing quote.
pub fn parse(text: &str) -> Result<Vec<Pair<'_>>, SyntaxError> {
    let mut pairs = Vec::new();
    let mut rest = skip_blanks(text);
    while !rest.is_empty() {
        let (key, after) = take_key(rest)?;
        let (value, after) = take_value(after)?;
        pairs.push((key, value));
        rest = skip_blanks(after);
    }
    Ok(pairs)
}

fn skip_blanks(text: &str) -> &str {
    text.trim_start_matches(' ')
}

fn take_key(text: &str) -> Result<(&str, &str), SyntaxError> {
    let end = text.find([' ', '=']).ok_or(SyntaxError)?;
    let rest = skip_blanks(&text[end..])
        .strip_prefix('=')
        .ok_or(SyntaxError)?;
    match end {
        0 => Err(SyntaxError),
        _ => Ok((&text[..end], skip_blanks(rest))),
    }
}

fn take_value(text: &str) -> Result<(Zeroizing<String>, &str), SyntaxError> {
    let (value, rest) = match text.strip_prefix('\'') {
        Some(quoted) => take_quoted(quoted)?,
        None => {
            let end = text.find(' ').unwrap_or(text.len());
            (Zeroizing::new(text[..end].to_owned()), &text[end..])
        }
    };
    match value.is_empty() {
        true => Err(SyntaxError),
        false => Ok((value, rest)),
    }
}

fn take_quoted(text: &str) -> Result<(Zeroizing<String>, &str), SyntaxError> {
    let mut value = Zeroizing::new(String::with_capacity(text.len()));
    let mut rest = text;
    loop {
        let quote = rest.find('\'').ok_or(SyntaxError)?;
        value.push_str(&rest[..quote]);
        rest = &rest[quote + 1..];
        match rest.strip_prefix('\'') {
            Some(after) => {
                value.push('\'');
                rest = after;
            }
            None if rest.is_empty() || rest.starts_with(' ') => return Ok((value, rest)),
            None => return Err(SyntaxError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let pairs = parse(text).unwrap();
        let pairs: Vec<(&str, &str)> = pairs
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
            .collect();
        assert_eq!(pairs, expected, "{text:?}");
    }

    #[test]
    fn pairs() {
        check("", &[]);
        check("  ", &[]);
        check("host=x", &[("host", "x")]);
        check(" host = x  port =5", &[("host", "x"), ("port", "5")]);
        check("host='x y' port=5", &[("host", "x y"), ("port", "5")]);
        check("password='it''s'", &[("password", "it's")]);
        check("host=a'b'c", &[("host", "a'b'c")]);
        check("host=x;", &[("host", "x;")]);
        check("host=x\tport=5", &[("host", "x\tport=5")]);
        check("a==b", &[("a", "=b")]);
        // What follows an empty value is taken for the value, as PgBouncer does.
        check("user= host=x", &[("user", "host=x")]);
    }

    #[test]
    fn syntax_errors() {
        for text in [
            "host",
            "host=x port",
            "=x",
            "user=",
            "host=''",
            "host='x",
            "host='x'port=1",
            "ho st=1",
        ] {
            assert_eq!(parse(text), Err(SyntaxError), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z =']{0,30}|\\PC*") {
            let _ = parse(&text);
        }

        #[test]
        fn quoted_values_read_back(values in proptest::collection::vec("[ -~]{1,10}", 0..5)) {
            let text: String = values.iter().map(|v| format!("key='{}' ", v.replace('\'', "''"))).collect();
            let read: Vec<String> = parse(&text).unwrap().into_iter().map(|(_, v)| v.to_string()).collect();
            prop_assert_eq!(read, values);
        }
    }
}
