//! `ldapurl`: `ldap://host:port/base?attribute?scope?filter` (RFC 4516), as far as a password check uses it.

use super::message::Scope;
use super::options::Scheme;

/// The parts of a URL; what it does not say is `None`.
#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    pub scheme: Scheme,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub base: String,
    /// The first of those listed.
    pub attribute: Option<String>,
    pub scope: Scope,
    pub filter: Option<String>,
}

/// Why a text is no URL of ours.
pub type Reason = &'static str;

/// Reads a URL.
pub fn parse(text: &str) -> Result<Url, Reason> {
    let (scheme, rest) = scheme(text)?;
    let (authority, rest) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (host, port) = authority_parts(authority)?;
    let rest = match rest.strip_prefix('/') {
        Some(rest) => rest,
        None if rest.is_empty() => rest,
        None => return Err("no / before the ?"),
    };
    let mut parts = rest.split('?');
    let base = decode(parts.next().unwrap_or_default())?;
    let attributes = decode(parts.next().unwrap_or_default())?;
    let scope = match decode(parts.next().unwrap_or_default())?.as_str() {
        "" | "base" => Scope::Base,
        "one" | "onelevel" => Scope::One,
        "sub" | "subtree" => Scope::Subtree,
        _ => return Err("the scope is none of base, one and sub"),
    };
    let filter = decode(parts.next().unwrap_or_default())?;
    let extensions = parts.next().unwrap_or_default();
    // Only those that must not be passed over begin so.
    if extensions.split(',').any(|one| one.starts_with('!')) {
        return Err("critical extensions are not supported");
    }
    if parts.next().is_some() {
        return Err("too many parts");
    }
    let attribute = attributes.split(',').next().unwrap_or_default();
    Ok(Url {
        scheme,
        host,
        port,
        base,
        attribute: non_empty(attribute),
        scope,
        filter: non_empty(&filter),
    })
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn scheme(text: &str) -> Result<(Scheme, &str), Reason> {
    let (scheme, rest) = text.split_once("://").ok_or("no scheme")?;
    match scheme.to_ascii_lowercase().as_str() {
        "ldap" => Ok((Scheme::Ldap, rest)),
        "ldaps" => Ok((Scheme::Ldaps, rest)),
        _ => Err("unsupported LDAP URL scheme"),
    }
}

fn authority_parts(text: &str) -> Result<(Option<String>, Option<u16>), Reason> {
    const BROKEN: Reason = "broken host";
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(BROKEN)?;
            (host.to_owned(), port)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            (decode(&text[..end])?, &text[end..])
        }
    };
    let port = match port {
        "" => None,
        port => {
            let port = port.strip_prefix(':').ok_or(BROKEN)?;
            Some(super::options::port(port).ok_or("invalid LDAP port number")?)
        }
    };
    if host.contains(char::is_whitespace) {
        return Err("one URL has one host; several go into ldapserver");
    }
    Ok((non_empty(&host), port))
}

fn decode(text: &str) -> Result<String, Reason> {
    const BROKEN: Reason = "broken % escape";
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit().ok_or(BROKEN)?, digit().ok_or(BROKEN)?);
                // Two digits of four bits.
                (high << 4 | low) as u8
            }
            _ => byte,
        });
    }
    match String::from_utf8(out) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(BROKEN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_url() {
        let url =
            parse("ldaps://ldap.example.net:1636/dc=example,dc=net?uid,cn?sub?(a=%28b)").unwrap();
        let expected = Url {
            scheme: Scheme::Ldaps,
            host: Some("ldap.example.net".into()),
            port: Some(1636),
            base: "dc=example,dc=net".into(),
            attribute: Some("uid".into()),
            scope: Scope::Subtree,
            filter: Some("(a=(b)".into()),
        };
        assert_eq!(url, expected);
    }

    #[test]
    fn what_may_be_missing() {
        let url = parse("LDAP://h").unwrap();
        assert_eq!((url.host.as_deref(), url.port), (Some("h"), None));
        assert_eq!((url.base.as_str(), url.scope), ("", Scope::Base));
        assert_eq!((url.attribute, url.filter), (None, None));
        let url = parse("ldap:///dc=net??one").unwrap();
        assert_eq!(
            (url.host, url.base.as_str(), url.scope),
            (None, "dc=net", Scope::One)
        );
        let url = parse("ldap://[::1]:5/a%20b????bindname=x").unwrap();
        assert_eq!((url.host.as_deref(), url.port), (Some("::1"), Some(5)));
        assert_eq!(url.base, "a b");
    }

    #[test]
    fn no_urls() {
        for text in [
            "",
            "h",
            "ldap:h",
            "ldapi://x",
            "http://h/",
            "ldap://h:0/",
            "ldap://h:x/",
            "ldap://h:65536/",
            "ldap://[::1/",
            "ldap://[::1]x/",
            "ldap://h?uid",
            "ldap://h/b?a?deep",
            "ldap://h/b????!x",
            "ldap://h/b?a?sub?f?x?y",
            "ldap://h/%zz",
            "ldap://h/%ff",
            "ldap://h/%00",
            "ldap://h/%4",
            "ldap://a ldap://b/",
            "ldap://a b/",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
