//! One lookup: the hosts file, the name servers of resolv.conf in their order, or the system's own resolver.
//!
//! Nothing is remembered here but the files last read: they are read again for every lookup, so that a changed resolv.conf counts
//! at once. How long an answer is good is [`super::cache`]'s to say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::cache::{ADDRESSES_MAX, Answer, Failure};
use super::conf::{Conf, in_hosts_file, is_localhost, is_numeric};

/// The system's resolver configuration, used where `resolv_conf` names no other.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The system's hosts file.
const HOSTS: &str = "/etc/hosts";
/// How long a name server may take before the next one is asked, too.
pub const SERVER_PATIENCE: Duration = Duration::from_secs(1);
/// When the addresses of one family are there, how much longer those of the other are waited for.
pub const FAMILY_PATIENCE: Duration = Duration::from_secs(1);

/// Names that one name may be another name for, one through the other.
const CHAIN_MAX: usize = 16;

/// Where names are looked up.
#[derive(Debug)]
pub struct Source {
    /// `resolv_conf`
    path: PathBuf,
    /// What followed from the file when it was read last. Held while it is parsed, never over an `await`.
    upstream: Mutex<Option<(Text, Upstream)>>,
}

/// A file's content, or why it can't be read.
type Text = Result<Vec<u8>, String>;

#[derive(Clone, Debug)]
enum Upstream {
    Servers(Arc<Servers>),
    System,
}

/// Whom to ask: every name server by itself, so that they are asked in the file's order.
#[derive(Debug)]
struct Servers {
    conf: Conf,
    resolvers: Vec<TokioResolver>,
}

/// An answer about one record type.
#[derive(Clone, Debug)]
enum Reply {
    Found(Vec<Record>),
    /// There is no such name, or it has no such records.
    Nothing(Failure),
    Failed(String),
}

impl Source {
    /// Names are looked up as this file says, or `/etc/resolv.conf`.
    pub fn new(resolv_conf: Option<PathBuf>) -> Source {
        Source {
            path: resolv_conf.unwrap_or_else(|| RESOLV_CONF.into()),
            upstream: Mutex::new(None),
        }
    }

    /// Looks up the addresses of a name. Takes as long as it takes: the caller has a limit.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn addresses(&self, host: &str) -> Result<Answer, Failure> {
        if is_numeric(host) {
            return by_system(host).await;
        }
        let (resolv_conf, hosts) = self.files().await;
        let listed = in_hosts_file(&hosts.unwrap_or_default(), host);
        if !listed.is_empty() {
            return Ok(Answer::local(listed));
        }
        if is_localhost(host) {
            return Ok(Answer::local(loopback()));
        }
        match self.upstream(resolv_conf) {
            Upstream::Servers(servers) => servers.addresses(host).await,
            Upstream::System => by_system(host).await,
        }
    }

    /// Looks up a zone's serial; `None` if it can't be had, or this is no zone.
    pub async fn serial(&self, zone: &str) -> Option<u32> {
        let (resolv_conf, _) = self.files().await;
        let Upstream::Servers(servers) = self.upstream(resolv_conf) else {
            return None;
        };
        let name = format!("{}.", zone.trim_end_matches('.'));
        let Reply::Found(records) = servers.ask(&name, RecordType::SOA).await else {
            return None;
        };
        records.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(soa.serial),
            _ => None,
        })
    }

    /// resolv.conf and the hosts file. They may be on a slow disk.
    async fn files(&self) -> (Text, Option<Vec<u8>>) {
        let path = self.path.clone();
        let read = move || {
            let text = |path: &Path| std::fs::read(path).map_err(|error| error.to_string());
            (text(&path), text(Path::new(HOSTS)).ok())
        };
        let unread = || (Err("could not be read".to_owned()), None);
        tokio::task::spawn_blocking(read)
            .await
            .unwrap_or_else(|_| unread())
    }

    /// Whom to ask according to this resolv.conf. What can't be followed is said when it is new.
    fn upstream(&self, text: Text) -> Upstream {
        let mut known = self.upstream.lock();
        if let Some((before, upstream)) = &*known
            && *before == text
        {
            return upstream.clone();
        }
        let parsed = text
            .clone()
            .and_then(|text| Conf::parse(&text))
            .and_then(Servers::new);
        let upstream = match parsed {
            Ok(servers) => Upstream::Servers(Arc::new(servers)),
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(
                    "{path}: {error}; host names are looked up by the system's resolver"
                );
                Upstream::System
            }
        };
        *known = Some((text, upstream.clone()));
        upstream
    }
}

fn loopback() -> [IpAddr; 2] {
    [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
}

/// `getaddrinfo` does not tell a name that does not exist from one that could not be looked up, at least not here.
async fn by_system(host: &str) -> Result<Answer, Failure> {
    let found = tokio::net::lookup_host((host, 0)).await.map_err(|error| {
        tracing::debug!("{host}: {error}");
        Failure::Unavailable
    })?;
    let mut addresses: Vec<IpAddr> = found.map(|addr| addr.ip()).collect();
    addresses.dedup();
    Ok(Answer::local(addresses))
}

impl Servers {
    fn new(conf: Conf) -> Result<Servers, String> {
        let resolvers = conf.servers.iter().map(|server| resolver(*server, &conf));
        let resolvers = resolvers.collect::<Result<_, NetError>>();
        Ok(Servers {
            resolvers: resolvers.map_err(|error| error.to_string())?,
            conf,
        })
    }

    /// Tries the names that the host's may be short for, one after the other.
    async fn addresses(&self, host: &str) -> Result<Answer, Failure> {
        let (mut failed, mut failure) = (false, Failure::NoName);
        for name in self.conf.candidates(host) {
            let sure = !failed;
            let (v4, v6) = self.ask_both(&name).await;
            for reply in [&v4, &v6] {
                match reply {
                    Reply::Failed(error) => {
                        tracing::debug!("{name}: {error}");
                        failed = true;
                    }
                    Reply::Found(_) | Reply::Nothing(Failure::NoAddress) => {
                        failure = Failure::NoAddress
                    }
                    Reply::Nothing(_) => {}
                }
            }
            let answer = answer(&name, &v4, &v6);
            if answer
                .v4
                .iter()
                .chain(&answer.v6)
                .any(|family| !family.is_empty())
            {
                return Ok(Answer { sure, ..answer });
            }
        }
        Err(if failed {
            Failure::Unavailable
        } else {
            failure
        })
    }

    /// IPv4 and IPv6 at the same time.
    async fn ask_both(&self, name: &str) -> (Reply, Reply) {
        let v4 = self.ask(name, RecordType::A);
        let v6 = self.ask(name, RecordType::AAAA);
        tokio::pin!(v4, v6);
        tokio::select! {
            v4 = &mut v4 => { let v6 = rest(&v4, v6).await; (v4, v6) }
            v6 = &mut v6 => { let v4 = rest(&v6, v4).await; (v4, v6) }
        }
    }

    /// Asks one server after the other until one gives an answer; one that is slow is not waited for.
    async fn ask(&self, name: &str, kind: RecordType) -> Reply {
        let Ok(parsed) = Name::from_str_relaxed(name) else {
            return Reply::Nothing(Failure::NoName);
        };
        let mut resolvers = self.resolvers.iter();
        let mut asked = JoinSet::new();
        let mut last = Reply::Failed("no name server".to_owned());
        loop {
            let next = resolvers.next();
            if let Some(resolver) = next {
                asked.spawn(ask_one(resolver.clone(), parsed.clone(), kind));
            }
            let replied = match next {
                Some(_) => timeout(SERVER_PATIENCE, asked.join_next()).await,
                None => Ok(asked.join_next().await),
            };
            match replied {
                Ok(Some(Ok(Reply::Failed(error)))) => last = Reply::Failed(error),
                Ok(Some(Ok(reply))) => return reply,
                Ok(Some(Err(error))) => last = Reply::Failed(error.to_string()),
                Ok(None) => return last,
                Err(_) => {}
            }
        }
    }
}

/// The other family's reply; not waited for very long if this one has addresses already.
async fn rest(first: &Reply, other: impl Future<Output = Reply>) -> Reply {
    match first {
        Reply::Found(_) => {
            let other = timeout(FAMILY_PATIENCE, other).await;
            other.unwrap_or_else(|_| Reply::Failed("too slow".to_owned()))
        }
        _ => other.await,
    }
}

async fn ask_one(resolver: TokioResolver, name: Name, kind: RecordType) -> Reply {
    // What is remembered, and for how long, is not the library's business.
    resolver.clear_cache();
    match resolver.lookup(name, kind).await {
        Ok(lookup) => Reply::Found(lookup.answers().to_vec()),
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
            ResponseCode::NXDomain => Reply::Nothing(Failure::NoName),
            ResponseCode::NoError => Reply::Nothing(Failure::NoAddress),
            code => Reply::Failed(code.to_string()),
        },
        Err(error) => Reply::Failed(error.to_string()),
    }
}

fn resolver(server: SocketAddr, conf: &Conf) -> Result<TokioResolver, NetError> {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    let server = NameServerConfig::new(server.ip(), true, connections.to_vec());
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let mut options = ResolverOpts::default();
    options.timeout = conf.timeout;
    options.attempts = conf.attempts;
    options.edns0 = conf.edns0;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.with_options(options).build()
}

/// What the replies to both questions say together.
fn answer(name: &str, v4: &Reply, v6: &Reply) -> Answer {
    let (v4, v4_ttl) = family(name, v4, IpAddr::is_ipv4);
    let (v6, v6_ttl) = family(name, v6, IpAddr::is_ipv6);
    Answer {
        v4,
        v6,
        ttl: Some(v4_ttl.min(v6_ttl)),
        sure: true,
    }
}

/// The addresses in a reply and how long they may be used; `None` if the question was not answered.
fn family(
    name: &str,
    reply: &Reply,
    belongs: impl Fn(&IpAddr) -> bool,
) -> (Option<Vec<IpAddr>>, Duration) {
    match reply {
        Reply::Failed(_) => (None, Duration::MAX),
        Reply::Nothing(_) => (Some(Vec::new()), Duration::MAX),
        Reply::Found(records) => {
            let (mut addresses, ttl) = along_the_chain(name, records);
            addresses.retain(belongs);
            (Some(addresses), ttl)
        }
    }
}

/// The addresses of the name itself, or of what it is another name for. Others in the same message are nobody's business.
fn along_the_chain(name: &str, records: &[Record]) -> (Vec<IpAddr>, Duration) {
    let (mut names, mut ttl) = (Vec::new(), u32::MAX);
    names.extend(Name::from_str_relaxed(name));
    for _ in 0..CHAIN_MAX {
        let links = records.iter().filter(|record| names.contains(&record.name));
        let next = links.filter_map(|record| match &record.data {
            RData::CNAME(target) => Some((target.0.clone(), record.ttl)),
            _ => None,
        });
        let Some((target, link_ttl)) = next.into_iter().find(|(target, _)| !names.contains(target))
        else {
            break;
        };
        ttl = ttl.min(link_ttl);
        names.push(target);
    }
    let mut addresses = Vec::new();
    for record in records.iter().filter(|record| names.contains(&record.name)) {
        if let Some(ip) = record.data.ip_addr()
            && !addresses.contains(&ip)
        {
            ttl = ttl.min(record.ttl);
            addresses.push(ip);
        }
    }
    addresses.truncate(ADDRESSES_MAX + 1); // one more than is used, so that the cut is seen
    (addresses, Duration::from_secs(ttl.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::proto::rr::rdata::{A, CNAME};

    fn name(text: &str) -> Name {
        Name::from_str_relaxed(text).unwrap()
    }

    fn address(owner: &str, ttl: u32, last: u8) -> Record {
        Record::from_rdata(name(owner), ttl, RData::A(A::new(10, 0, 0, last)))
    }

    fn alias(owner: &str, ttl: u32, target: &str) -> Record {
        Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
    }

    fn check(records: &[Record], addresses: &[u8], ttl_s: u32) {
        let (found, ttl) = along_the_chain("db.example.", records);
        let expected: Vec<IpAddr> = addresses
            .iter()
            .map(|last| [10, 0, 0, *last].into())
            .collect();
        assert_eq!(found, expected);
        assert_eq!(ttl, Duration::from_secs(ttl_s.into()));
    }

    #[test]
    fn the_shortest_life_along_the_chain_counts() {
        check(
            &[address("db.example.", 60, 1), address("DB.example.", 30, 2)],
            &[1, 2],
            30,
        );
        let chain = [
            address("c.example.", 50, 1),
            alias("b.example.", 7, "c.example."),
            alias("db.example.", 40, "b.example."),
        ];
        check(&chain, &[1], 7);
    }

    #[test]
    fn what_was_not_asked_for_is_left_out() {
        let records = [
            address("evil.example.", 1, 9),
            address("db.example.", 60, 1),
            address("db.example.", 60, 1),
            alias("evil.example.", 1, "db.example."),
        ];
        check(&records, &[1], 60);
    }

    #[test]
    fn chains_that_lead_nowhere_end() {
        let ring = [
            alias("db.example.", 5, "a.example."),
            alias("a.example.", 5, "db.example."),
        ];
        check(&ring, &[], 5);
        let long: Vec<Record> = (0..100)
            .map(|n| {
                alias(
                    &format!("n{n}.example."),
                    5,
                    &format!("n{}.example.", n + 1),
                )
            })
            .chain([
                alias("db.example.", 5, "n0.example."),
                address("n100.example.", 5, 1),
            ])
            .collect();
        check(&long, &[], 5);
    }

    #[test]
    fn a_long_answer_is_cut_so_that_one_can_see_it() {
        let many: Vec<Record> = (0..200).map(|n| address("db.example.", 5, n)).collect();
        assert_eq!(
            along_the_chain("db.example.", &many).0.len(),
            ADDRESSES_MAX + 1
        );
    }

    #[test]
    fn a_question_without_an_answer_is_not_one_without_addresses() {
        let nothing = Reply::Nothing(Failure::NoAddress);
        let failed = Reply::Failed("x".to_owned());
        let found = Reply::Found(vec![address("db.example.", 5, 1)]);
        let both = answer("db.example.", &found, &nothing);
        assert_eq!(
            (both.v4.map(|v4| v4.len()), both.v6),
            (Some(1), Some(vec![]))
        );
        let half = answer("db.example.", &failed, &nothing);
        assert_eq!((half.v4, half.v6), (None, Some(vec![])));
    }
}
