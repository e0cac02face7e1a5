//! A server as libpq's URLs write it: `postgres://user:password@host:port/database?sslmode=require`.
//!
//! Cut into the pairs that a connect string would hold ([`super::connstr`]), with `%xx` undone; what a key means is for the reader to
//! know. Several hosts (`a:1,b:2`) give one list of hosts and one of ports. No message of this file quotes a URL: there may be a
//! password in any part of one that was written wrong.

use std::fmt;

use zeroize::Zeroizing;

/// What a URL of PostgreSQL begins with.
const SCHEMES: [&str; 2] = ["postgresql://", "postgres://"];

/// A key and its value, which may be a password.
pub type Pair = (String, Zeroizing<String>);

/// Text that is no URL of a PostgreSQL server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyntaxError(&'static str);

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for SyntaxError {}

/// Whether a text is meant as a URL.
pub fn is_url(text: &str) -> bool {
    SCHEMES.iter().any(|scheme| text.starts_with(scheme))
}

/// The parts that are there, in this order: user, password, host, port, dbname, and what stands behind `?`.
///
/// # Errors
/// It is no such URL. Above all a password in which `/`, `?`, `#` or `@` was not written as `%2F`, `%3F`, `%23`, `%40` gives itself
/// away by what it leaves behind.
pub fn parse(text: &str) -> Result<Vec<Pair>, SyntaxError> {
    let rest = SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme));
    let rest = rest.ok_or(SyntaxError("it does not begin with postgres://"))?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, dbname) = rest.split_once('/').unwrap_or((rest, ""));
    if dbname.contains(['/', '@']) || (query.contains('@') && !authority.contains('@')) {
        return Err(SyntaxError(
            "in user and password write % as %25, / as %2F, ? as %3F, @ as %40",
        ));
    }
    let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let (hosts, ports) = addresses(address)?;
    let named = [
        ("user", user),
        ("password", password),
        ("host", &hosts),
        ("port", &ports),
        ("dbname", dbname),
    ];
    let queried = query.split('&').filter(|pair| !pair.is_empty());
    let queried = queried.map(|pair| {
        let no_value = SyntaxError("behind the ? there must be key=value, with & between them");
        pair.split_once('=').ok_or(no_value)
    });
    let mut pairs = Vec::new();
    for pair in named.into_iter().map(Ok).chain(queried) {
        let (key, value) = pair?;
        if !value.is_empty() {
            pairs.push((key.to_owned(), decoded(value)?));
        }
    }
    Ok(pairs)
}

/// The hosts and the ports of `host:port,host:port`, each as a list; no ports if none is written.
fn addresses(text: &str) -> Result<(String, String), SyntaxError> {
    let each = text.split(',').map(host_and_port);
    let each: Vec<(&str, &str)> = each.collect::<Result<_, _>>()?;
    let (hosts, ports): (Vec<&str>, Vec<&str>) = each.into_iter().unzip();
    let ports = match ports.iter().any(|port| !port.is_empty()) {
        true => ports.join(","),
        false => String::new(),
    };
    Ok((hosts.join(","), ports))
}

/// `host:port`, `[::1]:port`, or either without a port.
fn host_and_port(address: &str) -> Result<(&str, &str), SyntaxError> {
    const BRACKETS: SyntaxError = SyntaxError("an IPv6 address is written as [::1]:port");
    let (host, port) = match address.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']').ok_or(BRACKETS)?;
            match after.strip_prefix(':') {
                Some(port) => (host, port),
                None if after.is_empty() => (host, ""),
                None => return Err(BRACKETS),
            }
        }
        None => address.split_once(':').unwrap_or((address, "")),
    };
    match port.bytes().all(|digit| digit.is_ascii_digit()) {
        true => Ok((host, port)),
        false => Err(SyntaxError(
            "the port is no number (in user and password write / as %2F, ? as %3F, @ as %40)",
        )),
    }
}

/// Without `%xx`.
fn decoded(text: &str) -> Result<Zeroizing<String>, SyntaxError> {
    const ESCAPE: SyntaxError = SyntaxError("% must be followed by two hexadecimal digits");
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or(ESCAPE)?;
        let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(ESCAPE);
        // Two hexadecimal digits are a byte.
        bytes.push((digit(digits[0])? * 16 + digit(digits[1])?) as u8);
        rest = after;
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| SyntaxError("it is not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> Option<String> {
        let pairs = parse(text).ok()?;
        let pairs = pairs
            .iter()
            .map(|(key, value)| format!("{key}={}", **value));
        Some(pairs.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn parts() {
        for (text, expected) in [
            ("postgres://", ""),
            ("postgres://h", "host=h"),
            ("postgresql://a@h/d", "user=a host=h dbname=d"),
            (
                "postgres://a%40b:p%3Aw%2f@[::1]:7/d%20e?sslmode=disable&x=",
                "user=a@b password=p:w/ host=::1 port=7 dbname=d e sslmode=disable",
            ),
            ("postgres://a:p@w@h", "user=a password=p@w host=h"),
            ("postgres://a:p:w@h", "user=a password=p:w host=h"),
            (
                "postgres://a@h:1,[::1],k:2/d",
                "user=a host=h,::1,k port=1,,2 dbname=d",
            ),
            ("postgres://h,k", "host=h,k"),
            ("postgres:///d?host=/run/pg", "dbname=d host=/run/pg"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn mistakes() {
        for text in [
            "",
            "mysql://h",
            "h:5432",
            "postgres://h:port",
            "postgres://[::1",
            "postgres://[::1]x",
            "postgres://a%4@h",
            "postgres://a%zz@h",
            "postgres://a%ff@h",
            "postgres://h?sslmode",
            // A password with / or ? in it, of which digits look like a port.
            "postgres://a:12/34@h/d",
            "postgres://a:12?34@h/d",
            "postgres://a:p/w@h/d",
            "postgres://h/d/e",
        ] {
            assert_eq!(shown(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "postgres://\\PC*|\\PC*") {
            let _ = shown(&text);
        }
    }
}
