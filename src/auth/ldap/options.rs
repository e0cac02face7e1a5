//! The options of `auth_ldap_options`, and of HBA lines with the method `ldap`: from text to what they mean.
//!
//! Read and checked as a whole when the configuration is loaded; PgBouncer finds mistakes at the first login.

use std::fmt;
use std::net::IpAddr;

use zeroize::Zeroizing;

use super::filter;
use super::message::Scope;
use super::url;

/// The port of `ldap`.
const PORT: u16 = 389;
/// The port of `ldaps`.
const PORT_TLS: u16 = 636;
/// Most servers that are tried in turn.
const HOSTS_MAX: usize = 16;
/// The key whose value is a secret.
const BIND_PASSWORD: &str = "ldapbindpasswd";
/// The attribute that holds the user name, if neither attribute nor filter is given.
const ATTRIBUTE: &str = "uid";
/// What a filter has in place of the user name.
pub(super) const USERNAME: &str = "$username";

/// Whether TLS comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// No TLS, unless StartTLS is asked for.
    Ldap,
    /// TLS from the first byte.
    Ldaps,
}

/// Where the directory is, and how a user is found in it. `Debug` shows no password.
#[derive(Clone, PartialEq, Eq)]
pub struct LdapOptions {
    hosts: Vec<String>,
    port: u16,
    scheme: Scheme,
    start_tls: bool,
    pub(super) mode: Mode,
}

/// How the user's DN is found.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Mode {
    /// It is put together.
    Bind { prefix: String, suffix: String },
    /// It is searched for.
    Search(Search),
}

/// Where and how a user is searched for.
#[derive(Clone, PartialEq, Eq)]
pub struct Search {
    /// `ldapbinddn`, empty for an anonymous search.
    pub bind_dn: String,
    /// `ldapbindpasswd`
    pub bind_password: Zeroizing<String>,
    /// `ldapbasedn`
    pub base: String,
    /// How far below.
    pub scope: Scope,
    /// The filter, with `$username` in it.
    pub(super) filter: String,
}

/// What is wrong with the options. No variant holds a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionError {
    /// Not a key that there is, or no `=` behind it.
    Unknown(String),
    /// The value of this key cannot be used, for this reason.
    Value(&'static str, String),
    /// Neither of the two modes.
    NoMode,
    /// Keys of both modes.
    BothModes,
    /// Both `ldapsearchattribute` and `ldapsearchfilter`.
    AttributeAndFilter,
    /// No server is named.
    NoServer,
    /// `ldaptls` with `ldaps`.
    TlsTwice,
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OptionError::Unknown(key) => return write!(f, "invalid LDAP option: \"{key}\""),
            OptionError::Value(key, reason) => return write!(f, "invalid {key}: {reason}"),
            OptionError::NoMode => {
                "authentication method \"ldap\" requires argument \"ldapbasedn\", \"ldapprefix\", or \"ldapsuffix\" to be set"
            }
            OptionError::BothModes => "cannot mix options for simple bind and search+bind modes",
            OptionError::AttributeAndFilter => {
                "cannot use ldapsearchattribute together with ldapsearchfilter"
            }
            OptionError::NoServer => {
                "LDAP server not specified: name it in ldapserver or ldapurl (it is not looked up in DNS)"
            }
            OptionError::TlsTwice => "cannot use ldaptls together with the scheme ldaps",
        })
    }
}

impl std::error::Error for OptionError {}

impl OptionError {
    /// What is no key may be the rest of a password that should have been in quotes: then it is not shown.
    fn behind(self, last: &str) -> OptionError {
        match self {
            OptionError::Unknown(_) if last == BIND_PASSWORD => {
                OptionError::Value(BIND_PASSWORD, "what follows is no option".into())
            }
            other => other,
        }
    }
}

impl LdapOptions {
    /// Reads and checks `key=value` pairs, separated by blanks or commas; a value in double quotes may contain both, and `""` for a
    /// quote.
    ///
    /// # Errors
    /// The first mistake found.
    pub fn parse(text: &str) -> Result<LdapOptions, OptionError> {
        let mut draft = Draft::default();
        let mut rest = text;
        let mut last = "";
        loop {
            let next = pair(rest).map_err(|error| error.behind(last))?;
            let Some((key, value, after)) = next else {
                break;
            };
            draft.set(key, value).map_err(|error| error.behind(last))?;
            (last, rest) = (key, after);
        }
        draft.finish()
    }

    /// The servers, in the order in which they are tried. Never empty.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// The port of all of them.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// TLS from the first byte.
    pub fn is_ldaps(&self) -> bool {
        self.scheme == Scheme::Ldaps
    }

    /// TLS by StartTLS.
    pub fn is_start_tls(&self) -> bool {
        self.start_tls
    }

    /// TLS in one way or the other.
    pub fn wants_tls(&self) -> bool {
        self.is_ldaps() || self.start_tls
    }

    /// How users are searched for; `None` if their DN is put together from the name.
    pub fn search(&self) -> Option<&Search> {
        match &self.mode {
            Mode::Bind { .. } => None,
            Mode::Search(search) => Some(search),
        }
    }
}

impl fmt::Debug for LdapOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LdapOptions({:?}, {}, ..)", self.hosts, self.port)
    }
}

type Pair<'a> = (&'a str, Zeroizing<String>, &'a str);

/// The next key, its value, and what follows; `None` after the last.
fn pair(text: &str) -> Result<Option<Pair<'_>>, OptionError> {
    let is_between = |c: char| c.is_ascii_whitespace() || c == ',';
    let text = text.trim_start_matches(is_between);
    if text.is_empty() {
        return Ok(None);
    }
    let Some((key, rest)) = text.split_once('=') else {
        return Err(unknown(text));
    };
    if let Some(quoted) = rest.strip_prefix('"') {
        let (value, rest) = unquote(quoted);
        return Ok(Some((key, value, rest)));
    }
    let end = rest.find(is_between).unwrap_or(rest.len());
    let value = Zeroizing::new(rest[..end].to_owned());
    Ok(Some((key, value, &rest[end..])))
}

/// The value up to the closing quote, and what follows. A last quote that is missing is not missed, as in PgBouncer.
fn unquote(text: &str) -> (Zeroizing<String>, &str) {
    let mut value = Zeroizing::new(String::with_capacity(text.len()));
    let mut rest = text;
    loop {
        let Some((part, after)) = rest.split_once('"') else {
            value.push_str(rest);
            return (value, "");
        };
        value.push_str(part);
        match after.strip_prefix('"') {
            Some(after) => {
                value.push('"');
                rest = after;
            }
            None => return (value, after),
        }
    }
}

/// Names what stands in a key's place, up to the first character that no key has: what follows may be a value that
/// nobody should see.
fn unknown(text: &str) -> OptionError {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric());
    OptionError::Unknown(text[..end.unwrap_or(text.len())].to_owned())
}

/// A port number.
pub(super) fn port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok()?;
    (digits && port != 0).then_some(port)
}

/// The options as they are collected. Empty values are as good as none, as in PgBouncer.
#[derive(Default)]
struct Draft {
    hosts: Vec<String>,
    port: Option<u16>,
    scheme: Option<Scheme>,
    start_tls: bool,
    prefix: String,
    suffix: String,
    base: String,
    bind_dn: String,
    bind_password: Zeroizing<String>,
    attribute: String,
    filter: String,
    scope: Option<Scope>,
}

impl Draft {
    fn set(&mut self, key: &str, value: Zeroizing<String>) -> Result<(), OptionError> {
        if value.contains('\0') {
            return Err(OptionError::Value(
                "value",
                "it contains a zero byte".into(),
            ));
        }
        match key {
            "ldapserver" => self.hosts = hosts(&value)?,
            "ldapport" => self.port = Some(port(&value).ok_or_else(|| bad_port(&value))?),
            "ldapscheme" => self.scheme = Some(scheme(&value)?),
            "ldaptls" => self.start_tls = flag(&value)?,
            "ldapurl" => self.set_url(&value)?,
            "ldapprefix" => self.prefix = text(value),
            "ldapsuffix" => self.suffix = text(value),
            "ldapbasedn" => self.base = text(value),
            "ldapbinddn" => self.bind_dn = text(value),
            BIND_PASSWORD => self.bind_password = value,
            "ldapsearchattribute" => self.attribute = text(value),
            "ldapsearchfilter" => self.filter = text(value),
            _ => return Err(unknown(key)),
        }
        Ok(())
    }

    fn set_url(&mut self, text: &str) -> Result<(), OptionError> {
        let url = url::parse(text).map_err(|why| OptionError::Value("ldapurl", why.into()))?;
        self.scheme = Some(url.scheme);
        if let Some(host) = url.host {
            self.hosts = hosts(&host)?;
        }
        self.port = url.port.or(self.port);
        self.base = url.base;
        self.scope = Some(url.scope);
        self.attribute = url.attribute.unwrap_or_default();
        self.filter = url.filter.unwrap_or_default();
        Ok(())
    }

    fn finish(self) -> Result<LdapOptions, OptionError> {
        let scheme = self.scheme.unwrap_or(Scheme::Ldap);
        if scheme == Scheme::Ldaps && self.start_tls {
            return Err(OptionError::TlsTwice);
        }
        let usual_port = match scheme {
            Scheme::Ldap => PORT,
            Scheme::Ldaps => PORT_TLS,
        };
        let (hosts, port) = (self.hosts.clone(), self.port.unwrap_or(usual_port));
        let start_tls = self.start_tls;
        let mode = self.mode()?;
        if hosts.is_empty() {
            return Err(OptionError::NoServer);
        }
        Ok(LdapOptions {
            hosts,
            port,
            scheme,
            start_tls,
            mode,
        })
    }

    fn mode(self) -> Result<Mode, OptionError> {
        let searches = [
            &self.base,
            &self.bind_dn,
            &self.attribute,
            &self.filter,
            &self.bind_password,
        ];
        let searches = searches.iter().any(|value| !value.is_empty());
        let binds = !self.prefix.is_empty() || !self.suffix.is_empty();
        match (binds, searches) {
            (true, true) => Err(OptionError::BothModes),
            (true, false) => Ok(Mode::Bind {
                prefix: self.prefix,
                suffix: self.suffix,
            }),
            (false, _) if self.base.is_empty() => Err(OptionError::NoMode),
            (false, _) => Ok(Mode::Search(Search {
                filter: search_filter(&self.attribute, &self.filter)?,
                bind_dn: self.bind_dn,
                bind_password: self.bind_password,
                base: self.base,
                scope: self.scope.unwrap_or(Scope::Subtree),
            })),
        }
    }
}

/// Values that are no secrets need no wiping.
fn text(value: Zeroizing<String>) -> String {
    value.as_str().to_owned()
}

fn search_filter(attribute: &str, filter: &str) -> Result<String, OptionError> {
    let (key, text) = match (attribute, filter) {
        ("", "") => return Ok(format!("({ATTRIBUTE}={USERNAME})")),
        ("", filter) => ("ldapsearchfilter", filter.to_owned()),
        (attribute, "") => ("ldapsearchattribute", format!("({attribute}={USERNAME})")),
        _ => return Err(OptionError::AttributeAndFilter),
    };
    if !text.contains(USERNAME) {
        // It would find the same entry for every name, and its password would be everybody's.
        let why = format!("it does not contain {USERNAME}");
        return Err(OptionError::Value(key, why));
    }
    // With names the filter has to be one too. Whatever they are escaped to, they change nothing about that.
    match filter::encode(&text.replace(USERNAME, "name")) {
        Some(_) => Ok(text),
        None => Err(OptionError::Value(key, "it is no LDAP filter".into())),
    }
}

fn hosts(text: &str) -> Result<Vec<String>, OptionError> {
    let bad = |why: String| OptionError::Value("ldapserver", why);
    let hosts: Result<Vec<String>, OptionError> = text
        .split_ascii_whitespace()
        .map(|host| {
            host_name(host).ok_or_else(|| bad(format!("\"{host}\" is no host name or address")))
        })
        .collect();
    let hosts = hosts?;
    match hosts.len() > HOSTS_MAX {
        true => Err(bad(format!("more than {HOSTS_MAX} servers"))),
        false => Ok(hosts),
    }
}

/// A host without brackets. Not one with a port: PgBouncer takes none here either.
fn host_name(text: &str) -> Option<String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let host = bare.unwrap_or(text);
    let is_address = host.parse::<IpAddr>().is_ok();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    (is_address || bare.is_none() && !host.is_empty() && host.chars().all(fits))
        .then(|| host.to_owned())
}

fn bad_port(text: &str) -> OptionError {
    OptionError::Value("ldapport", format!("invalid LDAP port number: \"{text}\""))
}

fn scheme(text: &str) -> Result<Scheme, OptionError> {
    match text {
        "ldap" => Ok(Scheme::Ldap),
        "ldaps" => Ok(Scheme::Ldaps),
        _ => Err(OptionError::Value(
            "ldapscheme",
            format!("\"{text}\" is neither ldap nor ldaps"),
        )),
    }
}

/// Anything else than 1 is off in PgBouncer. Who writes `yes` wants TLS, and must not get a connection without it.
fn flag(text: &str) -> Result<bool, OptionError> {
    match text {
        "1" => Ok(true),
        "0" | "" => Ok(false),
        _ => Err(OptionError::Value(
            "ldaptls",
            "it is neither 0 nor 1".into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SERVER: &str = "ldapserver=h ";

    fn parse(text: &str) -> LdapOptions {
        LdapOptions::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn error(text: &str) -> String {
        LdapOptions::parse(text).unwrap_err().to_string()
    }

    fn filter_of(text: &str) -> String {
        let options = parse(&format!("{SERVER}{text}"));
        options.search().unwrap().filter.clone()
    }

    #[test]
    fn a_simple_bind() {
        let options = parse(
            "ldapserver=\"a b\",ldapprefix=\"uid=\" ldapsuffix=\",dc=example,dc=\"\"net\"\"\"",
        );
        assert_eq!(options.hosts(), ["a", "b"]);
        assert_eq!(options.port(), 389);
        assert!(!options.wants_tls());
        let Mode::Bind { prefix, suffix } = &options.mode else {
            panic!("a bind")
        };
        assert_eq!(
            (prefix.as_str(), suffix.as_str()),
            ("uid=", ",dc=example,dc=\"net\"")
        );
    }

    #[test]
    fn a_search() {
        let options = parse(
            "ldapserver=h ldapscheme=ldaps ldapbasedn=\"dc=net\" ldapbinddn=\"cn=x\" ldapbindpasswd=\"s\"\"e cret\"",
        );
        assert_eq!((options.port(), options.is_ldaps()), (636, true));
        let search = options.search().unwrap();
        assert_eq!(
            (search.base.as_str(), search.bind_dn.as_str()),
            ("dc=net", "cn=x")
        );
        assert_eq!(search.bind_password.as_str(), "s\"e cret");
        assert_eq!(search.scope, Scope::Subtree);
        assert_eq!(search.filter, "(uid=$username)");
        assert!(!format!("{options:?}").contains("cret"));
    }

    #[test]
    fn filters() {
        assert_eq!(
            filter_of("ldapbasedn=net ldapsearchattribute=mail"),
            "(mail=$username)"
        );
        assert_eq!(
            filter_of("ldapbasedn=net ldapsearchfilter=(cn=$username)"),
            "(cn=$username)"
        );
        assert_eq!(
            filter_of("ldapbasedn=net ldapsearchfilter=\"cn=$username\""),
            "cn=$username"
        );
    }

    #[test]
    fn urls() {
        let options = parse("ldapurl=\"ldap://h:12345/dc=example,dc=net?uid?sub\" ldaptls=1");
        assert_eq!(
            (options.hosts(), options.port()),
            (&["h".to_owned()][..], 12345)
        );
        assert!(options.is_start_tls());
        let search = options.search().unwrap();
        assert_eq!(
            (search.base.as_str(), search.scope),
            ("dc=example,dc=net", Scope::Subtree)
        );
        // As the standard has it, and unlike the separate keys.
        let options = parse("ldapurl=\"ldaps://h/dc=net?uid\"");
        assert_eq!(
            (options.port(), options.search().unwrap().scope),
            (636, Scope::Base)
        );
        let options = parse("ldapurl=\"ldap:///dc=net\" ldapserver=\"[::1] 127.0.0.1\"");
        assert_eq!(options.hosts(), ["::1", "127.0.0.1"]);
    }

    #[test]
    fn mistakes() {
        for (text, expected) in [
            ("", "authentication method \"ldap\" requires argument"),
            (SERVER, "authentication method \"ldap\" requires argument"),
            (
                "ldapserver=h ldapbasedn=\"\"",
                "authentication method \"ldap\" requires argument",
            ),
            (
                "ldapserver=h ldapbinddn=x",
                "authentication method \"ldap\" requires argument",
            ),
            ("ldapbasedn=\"dc=net\"", "LDAP server not specified"),
            ("ldapserver=\"\" ldapprefix=x", "LDAP server not specified"),
            (
                "ldapserver=h ldapbasedn=dc=example,dc=net",
                "invalid LDAP option: \"dc\"",
            ),
            ("ldapserver=h foo=bar", "invalid LDAP option: \"foo\""),
            (
                "ldapserver=h LDAPprefix=x",
                "invalid LDAP option: \"LDAPprefix\"",
            ),
            (
                "ldapserver=h ldapport ldapbasedn=x",
                "invalid LDAP option: \"ldapport\"",
            ),
            (
                "ldapserver=h ldapprefix",
                "invalid LDAP option: \"ldapprefix\"",
            ),
            (
                "ldapserver=h ldapsuffix= \",dc=net\" ldapprefix=x",
                "invalid LDAP option: \"\"",
            ),
            ("ldapserver=h:1 ldapprefix=x", "invalid ldapserver"),
            ("ldapserver=ldap://h ldapprefix=x", "invalid ldapserver"),
            ("ldapserver=h ldapport=0 ldapprefix=x", "invalid ldapport"),
            ("ldapserver=h ldapport=+1 ldapprefix=x", "invalid ldapport"),
            (
                "ldapserver=h ldapport=65536 ldapprefix=x",
                "invalid ldapport",
            ),
            (
                "ldapserver=h ldapscheme=http ldapprefix=x",
                "invalid ldapscheme",
            ),
            ("ldapserver=h ldaptls=yes ldapprefix=x", "invalid ldaptls"),
            (
                "ldapserver=h ldaptls=1 ldapscheme=ldaps ldapprefix=x",
                "cannot use ldaptls together",
            ),
            (
                "ldapserver=h ldapprefix=x ldapbasedn=y",
                "cannot mix options",
            ),
            (
                "ldapserver=h ldapprefix=x ldapbindpasswd=y",
                "cannot mix options",
            ),
            (
                "ldapserver=h ldapbasedn=y ldapsearchattribute=a ldapsearchfilter=(a=$username)",
                "cannot use ldapsearchattribute",
            ),
            (
                "ldapserver=h ldapbasedn=y ldapsearchattribute=a)(b",
                "invalid ldapsearchattribute",
            ),
            (
                "ldapserver=h ldapbasedn=y ldapsearchfilter=(uid=ann)",
                "invalid ldapsearchfilter: it does not contain",
            ),
            (
                "ldapserver=h ldapbasedn=y ldapsearchfilter=((uid=$username)",
                "invalid ldapsearchfilter: it is no LDAP filter",
            ),
            (
                "ldapurl=\"ldap://h/b?uid?sub?(objectClass=*)\"",
                "cannot use ldapsearchattribute",
            ),
            (
                "ldapurl=\"ldapx://h/b\"",
                "invalid ldapurl: unsupported LDAP URL scheme",
            ),
        ] {
            assert!(error(text).starts_with(expected), "{text}: {}", error(text));
        }
    }

    #[test]
    fn a_password_is_not_in_any_error() {
        for text in [
            "ldapserver=h ldapbindpasswd=\"hush hush\"hush ldapbasedn=x",
            "ldapserver=h ldapbindpasswd =hush",
            "ldapserver=h ldapbindpasswd:hush",
            "ldapserver=h ldapbindpasswd \"hush\"",
            "ldapserver=h ldapbindpasswd=a,hush,b ldapbasedn=x",
            "ldapserver=h ldapbindpasswd=a hush=b ldapbasedn=x",
        ] {
            assert!(!error(text).contains("hush"), "{}", error(text));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(ldap(server|url|basedn|prefix)|=|\"|,| |\\PC){0,12}") {
            let _ = LdapOptions::parse(&text);
        }
    }
}
