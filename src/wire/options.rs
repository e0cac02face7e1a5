//! The `options` start-up parameter: command-line switches of which only settings (`-c name=value`, `--name=value`) are
//! understood, as in PgBouncer.

use std::fmt;

/// Other content than `-c name=value` and `--name=value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionsError;

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unsupported options startup parameter: only '-c config=val' and '--config=val' are allowed")
    }
}

impl std::error::Error for OptionsError {}

/// Name and value of a setting.
pub type Pair = (Vec<u8>, Vec<u8>);

/// The settings in the value of `options`, in order. Blanks separate, a backslash keeps the next byte as it is, and a dash in a
/// `--name` stands for an underscore, as PostgreSQL reads it.
pub fn parse(options: &[u8]) -> Result<Vec<Pair>, OptionsError> {
    let mut words = split_words(options).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        if let Some(long) = word.strip_prefix(b"--") {
            let (name, value) = name_and_value(long)?;
            let name = name
                .iter()
                .map(|b| if *b == b'-' { b'_' } else { *b })
                .collect();
            settings.push((name, value.to_vec()));
        } else if let Some(short) = word.strip_prefix(b"-c") {
            let setting = if short.is_empty() {
                words.next().ok_or(OptionsError)?
            } else {
                short.to_vec()
            };
            let (name, value) = name_and_value(&setting)?;
            settings.push((name.to_vec(), value.to_vec()));
        } else {
            return Err(OptionsError);
        }
    }
    Ok(settings)
}

/// Splits at the first `=`; an empty name is refused.
fn name_and_value(setting: &[u8]) -> Result<(&[u8], &[u8]), OptionsError> {
    let at = setting
        .iter()
        .position(|b| *b == b'=')
        .ok_or(OptionsError)?;
    if at == 0 {
        return Err(OptionsError);
    }
    Ok((&setting[..at], &setting[at + 1..]))
}

fn split_words(options: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = options.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => words.extend(word.take()),
            b'\\' => word.get_or_insert_default().extend(bytes.next()),
            other => word.get_or_insert_default().push(*other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(options: &str, expected: &[(&str, &str)]) {
        let want: Vec<_> = expected
            .iter()
            .map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec()))
            .collect();
        assert_eq!(parse(options.as_bytes()), Ok(want));
    }

    #[test]
    fn settings() {
        check("", &[]);
        check(
            "-c a=1 -cb=2  --c-d=3",
            &[("a", "1"), ("b", "2"), ("c_d", "3")],
        );
        check(r"-c search_path=a,\ b\\c", &[("search_path", r"a, b\c")]);
        check("-c a=", &[("a", "")]);
    }

    #[test]
    fn anything_else_is_refused() {
        for options in ["-d 5", "x", "-c", "-c a", "--a", "-c a=1 b"] {
            assert_eq!(parse(options.as_bytes()), Err(OptionsError), "{options}");
        }
    }

    #[test]
    fn cve_2026_107349_an_empty_name_is_an_error() {
        assert_eq!(parse(b"-c="), Err(OptionsError));
        assert_eq!(parse(b"-c =x"), Err(OptionsError));
        assert_eq!(parse(b"--=x"), Err(OptionsError));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
        }
    }
}
