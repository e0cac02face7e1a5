//! resolv.conf and the hosts file: what is in them, and which names follow from one that was asked for. Pure.
//!
//! `search`, `domain` and `options` are read by the resolver library. `nameserver` lines are read here, because they may carry a
//! port: `nameserver 127.0.0.1:5353`, `nameserver [::1]:5353`. PgBouncer's resolver takes these, too; the system's does not.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::system_conf::parse_resolv_conf;

/// Name servers that are asked; more in the file are not.
pub const NAME_SERVERS_MAX: usize = 8;
/// Search domains that are tried; more in the file are not.
pub const SEARCH_MAX: usize = 16;
/// A name server's usual port.
const DNS_PORT: u16 = 53;

/// What a resolv.conf says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conf {
    /// In the order in which they are asked.
    pub servers: Vec<SocketAddr>,
    /// Domains to complete a name with, in this order.
    pub search: Vec<String>,
    /// A name with fewer dots is first completed, then tried as it is.
    pub ndots: usize,
    /// How long one server may take.
    pub timeout: Duration,
    /// How often it is asked.
    pub attempts: usize,
    /// `options edns0`
    pub edns0: bool,
}

impl Conf {
    /// Reads a resolv.conf.
    ///
    /// # Errors
    /// It names no server that could be asked, or does not make sense.
    pub fn parse(text: &[u8]) -> Result<Conf, String> {
        let text = String::from_utf8_lossy(text);
        let (mut servers, mut rest) = (Vec::new(), String::new());
        for line in text.lines() {
            match name_server(line) {
                Some(server) => servers.push(server),
                None if is_name_server(line) => {
                    tracing::warn!("resolv.conf: not an address: {}", line.trim())
                }
                None => rest.extend([line, "\n"]),
            }
        }
        if servers.is_empty() {
            return Err("no name server in it".to_owned());
        }
        servers.truncate(NAME_SERVERS_MAX);
        // The library insists on a server.
        rest.push_str("nameserver 127.0.0.1\n");
        let (config, options) = parse_resolv_conf(rest).map_err(|error| error.to_string())?;
        let domains = match config.search() {
            [] => config.domain().into_iter().collect::<Vec<_>>(),
            search => search.iter().collect(),
        };
        let names = domains.into_iter().map(ToString::to_string);
        let names = names.map(|name| name.trim_end_matches('.').to_owned());
        Ok(Conf {
            servers,
            search: names
                .filter(|name| !name.is_empty())
                .take(SEARCH_MAX)
                .collect(),
            ndots: options.ndots,
            timeout: options.timeout,
            attempts: options.attempts,
            edns0: options.edns0,
        })
    }

    /// The full names to ask for, in order, each with the dot at its end.
    pub fn candidates(&self, host: &str) -> Vec<String> {
        if host.ends_with('.') {
            return vec![host.to_owned()];
        }
        let as_it_is = format!("{host}.");
        let completed = self.search.iter().map(|domain| format!("{host}.{domain}."));
        let mut candidates: Vec<String> = completed.collect();
        if host.matches('.').count() >= self.ndots {
            candidates.insert(0, as_it_is);
        } else {
            candidates.push(as_it_is);
        }
        candidates
    }
}

fn is_name_server(line: &str) -> bool {
    line.split_whitespace().next() == Some("nameserver")
}

fn name_server(line: &str) -> Option<SocketAddr> {
    let mut words = line.split_whitespace();
    let address = words
        .next()
        .filter(|word| *word == "nameserver")
        .and(words.next())?;
    // The zone of a link-local address would need the interface's number.
    if let Ok(ip) = address.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, DNS_PORT));
    }
    let bracketed = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match bracketed.map(str::parse::<IpAddr>) {
        Some(ip) => Some(SocketAddr::new(ip.ok()?, DNS_PORT)),
        None => unbracketed_v4(address).parse().ok(),
    }
}

/// `[127.0.0.1]:5353` is also written.
fn unbracketed_v4(address: &str) -> String {
    match address
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("]:"))
    {
        Some((ip, port)) if !ip.contains(':') => format!("{ip}:{port}"),
        _ => address.to_owned(),
    }
}

/// The addresses that a hosts file has for this name, in its order.
pub fn in_hosts_file(text: &[u8], host: &str) -> Vec<IpAddr> {
    let (text, host) = (String::from_utf8_lossy(text), host.trim_end_matches('.'));
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(Ok(ip)) = words.next().map(str::parse::<IpAddr>) else {
            continue;
        };
        let named = words.any(|name| name.trim_end_matches('.').eq_ignore_ascii_case(host));
        if named && !found.contains(&ip) {
            found.push(ip);
        }
    }
    found
}

/// `localhost` and what is below it are this machine, whatever a name server says.
pub fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    let last = host.rsplit('.').next().unwrap_or(host);
    last.eq_ignore_ascii_case("localhost")
}

/// An address in one of the many ways in which C libraries take them (`127.1`, `0x7f000001`): no name ends with a number.
pub fn is_numeric(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or(host);
    let hexadecimal = last.strip_prefix("0x").or(last.strip_prefix("0X"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(last) || hexadecimal.is_some_and(|hex| u32::from_str_radix(hex, 16).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> Conf {
        Conf::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn name_servers_with_and_without_a_port() {
        let check = |line: &str, expected: Option<&str>| {
            let expected = expected.map(|server| server.parse().unwrap());
            assert_eq!(name_server(line), expected, "{line}");
        };
        check("nameserver 10.0.0.1", Some("10.0.0.1:53"));
        check(" nameserver\t10.0.0.1 # first", Some("10.0.0.1:53"));
        check("nameserver fd00::1", Some("[fd00::1]:53"));
        check("nameserver 127.0.0.1:5353", Some("127.0.0.1:5353"));
        check("nameserver [127.0.0.1]:5353", Some("127.0.0.1:5353"));
        check("nameserver [::1]:5353", Some("[::1]:5353"));
        check("nameserver [::1]", Some("[::1]:53"));
        check("nameserver", None);
        check("nameserver dns.example", None);
        check("#nameserver 10.0.0.1", None);
        check("nameservers 10.0.0.1", None);
    }

    #[test]
    fn a_kubernetes_file() {
        let conf = conf(
            "search ns.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n",
        );
        assert_eq!(conf.servers, ["10.96.0.10:53".parse().unwrap()]);
        assert_eq!(conf.ndots, 5);
        let expected = [
            "db.ns.svc.cluster.local.",
            "db.svc.cluster.local.",
            "db.cluster.local.",
            "db.",
        ];
        assert_eq!(conf.candidates("db"), expected);
        assert_eq!(
            conf.candidates("db.prod.example.com.")[0],
            "db.prod.example.com."
        );
        assert_eq!(conf.candidates("db.prod.example.com.").len(), 1);
    }

    #[test]
    fn names_with_enough_dots_are_tried_as_they_are_first() {
        let conf = conf("nameserver 10.0.0.1\nsearch a.example b.example\n");
        let expected = ["db.x.", "db.x.a.example.", "db.x.b.example."];
        assert_eq!(conf.candidates("db.x"), expected);
    }

    #[test]
    fn options_and_limits() {
        let many: String = (0..20)
            .map(|n| format!("nameserver 10.0.0.{n}\n"))
            .collect();
        let conf = conf(&format!(
            "{many}options timeout:1 attempts:3 edns0\ngarbage here\n"
        ));
        assert_eq!(conf.servers.len(), NAME_SERVERS_MAX);
        assert_eq!((conf.timeout, conf.attempts), (Duration::from_secs(1), 3));
        assert!(conf.edns0);
    }

    #[test]
    fn a_file_without_a_usable_server_is_none() {
        for text in [
            "",
            "search a.example\n",
            "nameserver dns.example\n",
            "\u{0}\u{1}",
        ] {
            assert!(Conf::parse(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(Conf::parse(b"\xff\xfe nameserver\nnameserver 10.0.0.1").is_ok());
    }

    #[test]
    fn the_hosts_file() {
        let text = b"# comment 1.2.3.4 db\n127.0.0.1 localhost\n::1 localhost ip6-localhost\n10.0.0.7\tdb db.example.com # x\n\
            10.0.0.8 DB\n10.0.0.7 db\nnonsense db\n\xff\xff\n10.0.0.9";
        let check = |host: &str, expected: &[&str]| {
            let found = in_hosts_file(text, host);
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{host}");
        };
        check("db", &["10.0.0.7", "10.0.0.8"]);
        check("Db.Example.com.", &["10.0.0.7"]);
        check("localhost", &["127.0.0.1", "::1"]);
        check("x", &[]);
        check("", &[]);
    }

    #[test]
    fn what_is_no_name() {
        for host in ["127.1", "10.0.0", "0x7f000001", "2130706433", "10.0.0.0x1"] {
            assert!(is_numeric(host), "{host}");
        }
        for host in ["db", "db1", "1db", "db.0xg", "10.example", "0x"] {
            assert!(!is_numeric(host), "{host}");
        }
        assert!(is_localhost("localhost") && is_localhost("Foo.LocalHost."));
        assert!(!is_localhost("localhost.example") && !is_localhost("notlocalhost"));
    }
}
