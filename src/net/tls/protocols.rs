//! Protocol lists (`client_tls_protocols`, `server_tls_protocols`) in PgBouncer's syntax.
//!
//! Pure. The list may name versions that our TLS library has not (1.0 and 1.1): they are reported, and
//! it is an error only if nothing is left.

use super::TlsError;

/// Which protocol versions to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protocols {
    pub(super) tls12: bool,
    pub(super) tls13: bool,
}

const V10: u8 = 1;
const V11: u8 = 2;
const V12: u8 = 4;
const V13: u8 = 8;
const ALL: u8 = V10 | V11 | V12 | V13;
const SECURE: u8 = V12 | V13;

/// The words of the list.
const WORDS: [(&str, u8); 9] = [
    ("tlsv1.0", V10),
    ("tlsv1.1", V11),
    ("tlsv1.2", V12),
    ("tlsv1.3", V13),
    ("tlsv1", ALL),
    ("all", ALL),
    // Promised by PgBouncer's manual, although its code refuses the word.
    ("legacy", ALL),
    ("secure", SECURE),
    ("default", SECURE),
];

/// Reads a list such as `secure`, `tlsv1.2, tlsv1.3` or `all:!tlsv1.3`; empty means `secure`. What was
/// asked for and cannot be had is added to `remarks`.
pub(super) fn parse(text: &str, remarks: &mut Vec<String>) -> Result<Protocols, TlsError> {
    let mut chosen = 0;
    for word in text.split([',', ':']).map(str::trim) {
        let (negated, word) = match word.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, word),
        };
        if word.is_empty() && text.trim().is_empty() {
            chosen = SECURE;
            continue;
        }
        let bits = WORDS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(word))
            .map(|(_, bits)| *bits)
            .ok_or_else(|| TlsError::Protocols(text.to_owned()))?;
        match negated {
            // A list that begins with an exception means "all except".
            true if chosen == 0 => chosen = ALL & !bits,
            true => chosen &= !bits,
            false => chosen |= bits,
        }
    }
    report_missing(chosen, remarks);
    match chosen & SECURE {
        0 => Err(TlsError::Protocols(text.to_owned())),
        usable => Ok(Protocols {
            tls12: usable & V12 != 0,
            tls13: usable & V13 != 0,
        }),
    }
}

fn report_missing(chosen: u8, remarks: &mut Vec<String>) {
    for (name, bits) in &WORDS[..2] {
        if chosen & bits != 0 {
            remarks.push(format!(
                "TLS protocol {name} is not supported and stays off"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `expected`: the versions that are on, and how many of the old ones are reported.
    fn check(text: &str, expected: Option<(bool, bool, usize)>) {
        let mut remarks = Vec::new();
        let got = parse(text, &mut remarks).ok();
        let got = got.map(|p| (p.tls12, p.tls13, remarks.len()));
        assert_eq!(got, expected, "{text:?} {remarks:?}");
    }

    #[test]
    fn lists() {
        check("", Some((true, true, 0)));
        check("secure", Some((true, true, 0)));
        check("DEFAULT", Some((true, true, 0)));
        check("tlsv1.2", Some((true, false, 0)));
        check("tlsv1.3", Some((false, true, 0)));
        check(" tlsv1.2 , tlsv1.3", Some((true, true, 0)));
        check("tlsv1.2:tlsv1.3", Some((true, true, 0)));
        check("all", Some((true, true, 2)));
        check("legacy", Some((true, true, 2)));
        check("tlsv1", Some((true, true, 2)));
        check("tlsv1.1,tlsv1.2", Some((true, false, 1)));
        check("all,!tlsv1.3", Some((true, false, 2)));
        check("!tlsv1.3", Some((true, false, 2)));
        check("secure,!tlsv1.2", Some((false, true, 0)));
        check("!tlsv1.0,!tlsv1.1", Some((true, true, 0)));
        check("tlsv1.0", None);
        check("secure,!all", None);
        check("tlsv1.4", None);
        check("secure,", None);
        check("!", None);
    }
}
