//! What a user name becomes: the DN that is bound, or the filter that finds it. No name can become more than a name there.

use std::fmt;

use super::filter;
use super::options::{LdapOptions, Mode, Search, USERNAME};

/// Characters that a user name must not have where it is searched for, as in PgBouncer.
const REFUSED_IN_SEARCH: &[char] = &['*', '(', ')', '\\', '/'];
/// Characters that a user name must not have where it is no part of a DN, as in `DOMAIN\name` or `name@domain`.
const REFUSED_IN_ACCOUNT: &[char] = &[
    '*', '(', ')', '\\', '/', '@', ',', '=', '+', '<', '>', ';', '"', '#',
];

/// The name has characters that might make it another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedName;

impl fmt::Display for RefusedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid character in user name for LDAP authentication")
    }
}

impl std::error::Error for RefusedName {}

impl LdapOptions {
    /// The DN of this user where it is put together; `None` where users are searched for.
    ///
    /// Prefix and suffix that have a `=` between them make a DN, in which the name is escaped (RFC 4514).
    ///
    /// # Errors
    /// The name cannot be used.
    pub fn bind_dn(&self, name: &str) -> Result<Option<String>, RefusedName> {
        let Mode::Bind { prefix, suffix } = &self.mode else {
            return Ok(None);
        };
        check(name, &[])?;
        if prefix.contains('=') || suffix.contains('=') {
            let name = escape(name);
            return Ok(Some(format!("{prefix}{name}{suffix}")));
        }
        check(name, REFUSED_IN_ACCOUNT)?;
        Ok(Some(format!("{prefix}{name}{suffix}")))
    }
}

impl Search {
    /// The filter that finds this user: its text, and its bytes.
    ///
    /// # Errors
    /// The name cannot be used.
    pub fn filter(&self, name: &str) -> Result<(String, Vec<u8>), RefusedName> {
        check(name, REFUSED_IN_SEARCH)?;
        let text = self.filter.replace(USERNAME, &filter::escape(name));
        let bytes = filter::encode(&text).ok_or(RefusedName)?;
        Ok((text, bytes))
    }
}

/// Control characters are in nobody's name.
fn check(name: &str, refused: &[char]) -> Result<(), RefusedName> {
    let is_bad = |c: char| c.is_control() || refused.contains(&c);
    match name.is_empty() || name.contains(is_bad) {
        true => Err(RefusedName),
        false => Ok(()),
    }
}

/// Escapes a value within a DN.
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        let special = matches!(c, '"' | '+' | ',' | ';' | '<' | '=' | '>' | '\\' | '/');
        let at_the_edge = c == ' ' && (at == 0 || at == last) || c == '#' && at == 0;
        match special || at_the_edge {
            // All of these are ASCII.
            true => escaped.push_str(&format!("\\{:02x}", c as u32)),
            false => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(prefix: &str, suffix: &str, name: &str) -> Option<String> {
        let text = format!("ldapserver=h ldapprefix=\"{prefix}\" ldapsuffix=\"{suffix}\"");
        let options = LdapOptions::parse(&text).unwrap();
        options.bind_dn(name).ok().flatten()
    }

    #[test]
    fn a_name_in_a_dn_stays_one_value() {
        for (name, expected) in [
            ("ann", "uid=ann,dc=net"),
            ("a,ou=b", "uid=a\\2cou\\3db,dc=net"),
            ("#a", "uid=\\23a,dc=net"),
            (" a b ", "uid=\\20a b\\20,dc=net"),
            (" ", "uid=\\20,dc=net"),
            ("a+b\\2c", "uid=a\\2bb\\5c2c,dc=net"),
            ("jörg", "uid=jörg,dc=net"),
        ] {
            assert_eq!(bind("uid=", ",dc=net", name).as_deref(), Some(expected));
        }
        assert_eq!(bind("uid=", ",dc=net", "a\nb"), None);
        assert_eq!(bind("uid=", ",dc=net", ""), None);
    }

    #[test]
    fn an_account_name_is_taken_as_it_is_or_not_at_all() {
        assert_eq!(bind("CORP\\", "", "ann").as_deref(), Some("CORP\\ann"));
        assert_eq!(
            bind("", "@corp", "ann.b-c_d").as_deref(),
            Some("ann.b-c_d@corp")
        );
        for name in ["ann@other", "OTHER\\ann", "uid=ann,dc=net", "a\0b", ""] {
            assert_eq!(bind("", "@corp", name), None, "{name}");
        }
    }

    #[test]
    fn a_name_in_a_filter_stays_one_value() {
        let text =
            "ldapserver=h ldapbasedn=net ldapsearchfilter=\"(|(uid=$username)(mail=$username))\"";
        let options = LdapOptions::parse(text).unwrap();
        let search = options.search().unwrap();
        let (text, bytes) = search.filter("ann").unwrap();
        assert_eq!(text, "(|(uid=ann)(mail=ann))");
        assert_eq!(filter::encode(&text), Some(bytes));
        // The place holder is not replaced twice.
        assert_eq!(
            search.filter("$username").unwrap().0,
            "(|(uid=$username)(mail=$username))"
        );
        for name in ["*", "a*", "a)(b=c", "\\2a", "a/b", "a\0", "", "a\rb"] {
            assert_eq!(search.filter(name), Err(RefusedName), "{name}");
        }
        assert_eq!(options.bind_dn("ann"), Ok(None));
    }
}
