//! `auth_hba_file`: who may come from where, and how they prove who they are. The first rule that fits counts.
//!
//! Lines `local|host|hostssl|hostnossl DATABASE USER [ADDRESS[/BITS] | ADDRESS MASK | all] METHOD [options]`, as PgBouncer has
//! them. Unlike PgBouncer, which skips a line that it cannot read (and so opens what a mistyped `reject` should close), every
//! such line is a problem, and the caller is expected not to use a file with any. That goes for what PostgreSQL knows and we
//! don't, too: groups, regular expressions, host names, `samehost`, other methods and options.
//!
//! Pure: files are read by the caller, also those that `@file` names. How a rule's method is carried out is not told here: see
//! [`method`](super::method), [`cert`](super::cert), [`ident`](super::ident).

mod address;
mod names;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use address::Addresses;
use names::Names;

use super::ident::{IdentMap, IdentMaps};
use super::ldap::LdapOptions;
use super::method::Method;
use super::rule_file::{Fault, Line, Problems, RuleProblem, Word, shown};

/// The most bytes of all files together.
pub const HBA_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The most files, each as often as it is named.
pub const HBA_FILES_MAX: usize = 10_000;
/// How deep files may name files.
pub const INCLUSION_DEPTH_MAX: usize = 10;

/// Gives the content of a file.
pub type ReadFile<'a> = &'a mut dyn FnMut(&Path) -> io::Result<Vec<u8>>;

/// The rules of one file, in their order.
#[derive(Clone, Debug, Default)]
pub struct Hba {
    rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its line, counted from 1.
    pub line: usize,
    /// How those whom it fits prove who they are.
    pub method: Method,
    /// For `cert` and `peer`: who may be whom. `None`: everybody is who their certificate or system says.
    pub map: Option<Arc<IdentMap>>,
    kind: Kind,
    databases: Names,
    users: Names,
    addresses: Addresses,
}

/// The first word of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Local,
    Host,
    HostSsl,
    HostNoSsl,
}

impl Rule {
    /// Of a rule with the method `ldap`: whom to ask.
    pub fn ldap_options(&self) -> Option<&LdapOptions> {
        match &self.method {
            Method::Ldap(options) => Some(options),
            _ => None,
        }
    }
}

/// Where a client comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A Unix socket.
    Local,
    /// TCP.
    Tcp {
        /// Its address.
        address: IpAddr,
        /// Whether it has TLS.
        tls: bool,
    },
}

/// A client, as far as rules ask about it.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Where it comes from.
    pub origin: Origin,
    /// The database that it has asked for.
    pub database: &'a [u8],
    /// The name that it gives.
    pub user: &'a [u8],
    /// It wants physical replication: only rules with the keyword `replication` fit, whatever its database.
    pub replication: bool,
}

/// `10.0.0.1 without TLS`, for the log.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Local => f.write_str("the Unix socket"),
            Origin::Tcp { address, tls } => {
                write!(f, "{address} {} TLS", if *tls { "with" } else { "without" })
            }
        }
    }
}

impl Hba {
    /// Reads the file at `path` and what it includes. `maps` are those that rules may name; `None` if they could not be read: then
    /// every map is one that lets nobody in.
    ///
    /// # Errors
    /// Every line that cannot be understood, with its place, or why a file cannot be read.
    pub fn load(
        path: &Path,
        maps: Option<&IdentMaps>,
        read: ReadFile<'_>,
    ) -> Result<Hba, Vec<RuleProblem>> {
        let mut source = Source::new(read);
        let mut problems = Problems::default();
        let mut rules = Vec::new();
        let text = source.read(path).unwrap_or_else(|fault| {
            problems.add(path, None, fault);
            Vec::new()
        });
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let mut place = names::Place {
                file: path,
                line: index + 1,
                source: &mut source,
                problems: &mut problems,
            };
            match parse_line(line, maps, &mut place) {
                Ok(rule) => rules.extend(rule),
                Err(fault) => problems.add(path, Some(index + 1), fault),
            }
        }
        problems.or(Hba { rules }, path)
    }

    /// The first rule that fits. `None`: the client is not let in.
    pub fn find(&self, caller: &Caller<'_>) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.fits(caller))
    }

    /// All rules, in their order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

impl Rule {
    fn fits(&self, caller: &Caller<'_>) -> bool {
        self.fits_origin(caller.origin)
            && self.databases.fit_database(caller)
            && self.users.fit_user(caller.user)
    }

    fn fits_origin(&self, origin: Origin) -> bool {
        let (address, tls) = match origin {
            Origin::Local => return self.kind == Kind::Local,
            Origin::Tcp { address, tls } => (address, tls),
        };
        let kind_fits = match self.kind {
            Kind::Local => false,
            Kind::Host => true,
            Kind::HostSsl => tls,
            Kind::HostNoSsl => !tls,
        };
        kind_fits && self.addresses.contain(address)
    }

    /// Is it for Unix sockets?
    pub fn is_local(&self) -> bool {
        self.kind == Kind::Local
    }
}

/// Files, as many and as large as they may be.
struct Source<'a> {
    read: ReadFile<'a>,
    bytes_left: usize,
    files_left: usize,
}

impl<'a> Source<'a> {
    fn new(read: ReadFile<'a>) -> Source<'a> {
        Source {
            read,
            bytes_left: HBA_BYTES_MAX,
            files_left: HBA_FILES_MAX,
        }
    }

    fn read(&mut self, path: &Path) -> Result<Vec<u8>, Fault> {
        let files = self.files_left.checked_sub(1);
        self.files_left = files.ok_or("too many files are included")?;
        let bytes = (self.read)(path)
            .map_err(|error| format!("could not open {}: {error}", path.display()))?;
        let left = self.bytes_left.checked_sub(bytes.len());
        self.bytes_left = left.ok_or("the file and what it includes are too large")?;
        Ok(bytes)
    }
}

fn parse_line(
    line: &[u8],
    maps: Option<&IdentMaps>,
    place: &mut names::Place<'_, '_>,
) -> Result<Option<Rule>, Fault> {
    let mut line = Line::new(line)?;
    let Some(kind) = line.single()? else {
        return Ok(None);
    };
    let kind = parse_kind(&kind)?;
    let databases = line.list()?.ok_or("a database is missing")?;
    let databases = names::databases(&databases, place)?;
    let users = line.list()?.ok_or("a user is missing")?;
    let users = names::users(&users, place)?;
    let addresses = match kind {
        Kind::Local => Addresses::All,
        _ => address::parse(&mut line)?,
    };
    let method = line
        .single()?
        .ok_or("an authentication method is missing")?;
    let (method, map) = parse_method(&method, line, maps)?;
    Ok(Some(Rule {
        line: place.line,
        method,
        map,
        kind,
        databases,
        users,
        addresses,
    }))
}

fn parse_kind(word: &Word) -> Result<Kind, Fault> {
    const KINDS: [(&str, Kind); 4] = [
        ("local", Kind::Local),
        ("host", Kind::Host),
        ("hostssl", Kind::HostSsl),
        ("hostnossl", Kind::HostNoSsl),
    ];
    let found = KINDS.iter().find(|(name, _)| word.is(name));
    found.map(|(_, kind)| *kind).ok_or_else(|| {
        const UNSUPPORTED: [&str; 5] = [
            "hostgssenc",
            "hostnogssenc",
            "include",
            "include_if_exists",
            "include_dir",
        ];
        let what = match UNSUPPORTED.iter().any(|name| word.is(name)) {
            true => "is not supported",
            false => "is not one of local, host, hostssl, hostnossl",
        };
        format!("{} {what}", word.shown()).into()
    })
}

/// The method, and the map that its options name.
fn parse_method(
    word: &Word,
    options: Line<'_>,
    maps: Option<&IdentMaps>,
) -> Result<(Method, Option<Arc<IdentMap>>), Fault> {
    let method = match () {
        _ if word.is("ldap") => return Ok((Method::Ldap(ldap_options(options)?), None)),
        _ if word.is("cert") => return Ok((Method::Cert, map_option(options, maps)?)),
        _ if word.is("peer") => return Ok((Method::Peer, map_option(options, maps)?)),
        _ if word.is("trust") => Method::Trust,
        _ if word.is("reject") => Method::Reject,
        _ if word.is("md5") => Method::Md5,
        _ if word.is("password") => Method::Plain,
        _ if word.is("scram-sha-256") => Method::ScramSha256,
        _ => return Err(format!("unsupported method: {}", word.shown()).into()),
    };
    match options.is_empty() {
        true => Ok((method, None)),
        false => Err(format!("{} takes no options", word.shown()).into()),
    }
}

fn ldap_options(options: Line<'_>) -> Result<Arc<LdapOptions>, Fault> {
    let text = std::str::from_utf8(options.tail());
    let text = text.map_err(|_| "the options are not UTF-8")?;
    let options = LdapOptions::parse(text).map_err(|error| error.to_string())?;
    Ok(Arc::new(options))
}

/// `map=NAME`, or nothing.
fn map_option(
    mut options: Line<'_>,
    maps: Option<&IdentMaps>,
) -> Result<Option<Arc<IdentMap>>, Fault> {
    let Some(word) = options.single()? else {
        return Ok(None);
    };
    if !options.is_empty() {
        return Err("map=NAME is the only option".into());
    }
    let Some(name) = word.text.strip_prefix(b"map=") else {
        let name = word.text.split(|byte| *byte == b'=').next();
        return Err(format!("unsupported option: {}", shown(name.unwrap_or_default())).into());
    };
    let Some(maps) = maps else {
        return Ok(Some(Arc::default()));
    };
    let map = maps.get(name);
    let map = map.ok_or_else(|| format!("there is no ident map {}", shown(name)))?;
    Ok(Some(map.clone()))
}

#[cfg(test)]
mod tests;
