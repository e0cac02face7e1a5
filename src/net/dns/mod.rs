//! Host names: looked up once for all who want them, remembered for as long as they are good, and watched while servers are
//! connected there.
//!
//! | file | what |
//! |---|---|
//! | [`cache`] | what is known and what is due, pure |
//! | [`conf`] | resolv.conf and the hosts file, pure |
//! | [`query`] | one lookup |
//!
//! Here is the shell: it runs lookups as tasks, wakes those who wait, and says when addresses are gone ([`Resolver::changes`]).
//! The decisions:
//!
//! - An answer is good for `dns_max_ttl` or its records' own time, whichever is shorter. A failure stands for `dns_nxdomain_ttl`.
//! - When nobody answers, the last good answer stays in use. *No such name* is an answer: there is nothing to connect to then, but
//!   servers that are connected stay.
//! - Only an answer with other addresses retires servers, and only those at addresses that it lacks.
//!
//! Nothing here runs on a worker. A server carries its address as a [`Site`]: that tells which names are in use, and the server
//! whether it is still where it should be, however it moved meanwhile.

pub mod cache;
pub mod conf;
pub mod query;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::{interval, timeout};

use self::cache::{Answer, Ask, Cache, Changes, HostRow, ZoneRow};
pub use self::cache::{Failure, Rules, Site};
use self::query::Source;

/// Lookups under way at once; more wait for their turn. Each takes two sockets per name server asked.
pub const LOOKUPS_MAX: usize = 16;
/// How long a lookup may take altogether, its turn included.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// How often is looked whether names in use or zones are due.
const WATCH_PERIOD: Duration = Duration::from_millis(500);

/// Where a server may be: an address, and the [`Site`] that it was found as, if by name.
pub type Place = (SocketAddr, Option<Arc<Site>>);

/// Looks up host names and remembers them. A handle: clones share everything.
#[derive(Clone, Debug)]
pub struct Resolver {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Never held over an `await`.
    cache: Mutex<Cache>,
    source: Source,
    turns: Semaphore,
    /// Wakes those who wait for a lookup.
    ended: watch::Sender<()>,
    /// Tells that addresses have gone.
    changed: watch::Sender<()>,
}

impl Default for Resolver {
    fn default() -> Self {
        Resolver::new(Rules::default(), None)
    }
}

impl Resolver {
    /// Nothing is known yet. `resolv_conf` is read instead of `/etc/resolv.conf`.
    pub fn new(rules: Rules, resolv_conf: Option<PathBuf>) -> Resolver {
        Resolver {
            inner: Arc::new(Inner {
                cache: Mutex::new(Cache::new(rules)),
                source: Source::new(resolv_conf),
                turns: Semaphore::new(LOOKUPS_MAX),
                ended: watch::Sender::new(()),
                changed: watch::Sender::new(()),
            }),
        }
    }

    /// New rules, for what is known already, too.
    pub fn set_rules(&self, rules: Rules) {
        self.inner.cache.lock().set_rules(rules);
    }

    /// The addresses of a name, in the order in which one new connection should try them. To be called on the login runtime, where
    /// the lookup then runs to its end whether or not anybody waits for it.
    ///
    /// # Errors
    /// There are none. It has been logged if this was found out just now.
    pub async fn sites(&self, name: &str) -> Result<Vec<Arc<Site>>, Failure> {
        let mut ended = self.inner.ended.subscribe();
        let mut waited = None;
        loop {
            let ask = self.inner.cache.lock().ask(name, waited, Instant::now());
            let (round, begin, until) = match ask {
                Ask::Ready(sites) => return Ok(sites),
                Ask::Failed(failure) => return Err(failure),
                Ask::Wait {
                    round,
                    begin,
                    until,
                } => (round, begin, until),
            };
            waited.get_or_insert(round);
            if begin {
                self.begin(name.into());
            }
            // The sender lives as long as we do, so this ends with news or not at all.
            let news = async { drop(ended.changed().await) };
            match until {
                Some(until) => drop(tokio::time::timeout_at(until.into(), news).await),
                None => news.await,
            }
        }
    }

    /// Where to connect to for a host and port: addresses of the name, as [`Resolver::sites`] gives them, or an address literal.
    ///
    /// # Errors
    /// There are none, which has been logged.
    pub async fn places(&self, host: &str, port: u16) -> Result<Vec<Place>, Failure> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![(SocketAddr::new(ip, port), None)]);
        }
        // No name has a colon. But an address may have a zone (`fe80::1%eth0`), whose number the system knows.
        if host.contains(':') {
            let found = tokio::net::lookup_host((host, port)).await;
            return match found {
                Ok(addrs) => Ok(addrs.map(|addr| (addr, None)).collect()),
                Err(error) => {
                    tracing::warn!("DNS lookup failed: {host}: {error}");
                    Err(Failure::NoName)
                }
            };
        }
        let sites = self.sites(host).await?.into_iter();
        let places = sites.map(|site| (SocketAddr::new(site.ip, port), Some(site)));
        Ok(places.collect())
    }

    /// The address could not be connected to: others are tried first for a while.
    pub fn note_unreachable(&self, site: &Site) {
        self.inner
            .cache
            .lock()
            .note_unreachable(site, Instant::now());
    }

    /// Says when addresses have gone ([`Site::is_gone`]) while servers were connected there.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.inner.changed.subscribe()
    }

    /// Looks up again, for as long as it is polled, what is in use and has grown old, and looks at the serials of zones.
    pub async fn keep_watch(&self) {
        let mut ticks = interval(WATCH_PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let (names, zones) = {
                let mut cache = self.inner.cache.lock();
                (cache.due(now), cache.zones_due(now))
            };
            names.into_iter().for_each(|name| self.begin(name));
            zones.into_iter().for_each(|zone| self.begin_zone(zone));
        }
    }

    /// The rows of `SHOW DNS_HOSTS`.
    pub fn host_rows(&self) -> Vec<HostRow> {
        self.inner.cache.lock().host_rows(Instant::now())
    }

    /// The rows of `SHOW DNS_ZONES`.
    pub fn zone_rows(&self) -> Vec<ZoneRow> {
        self.inner.cache.lock().zone_rows()
    }

    /// Lookups under way.
    pub fn queries(&self) -> usize {
        self.inner.cache.lock().queries()
    }

    fn begin(&self, name: Arc<str>) {
        let lookup = Lookup {
            resolver: self.clone(),
            name,
            found: Err(Failure::Unavailable),
        };
        tokio::spawn(async move {
            let inner = lookup.resolver.inner.clone();
            let found = timeout(LOOKUP_TIMEOUT, async {
                let _turn = inner.turns.acquire().await;
                inner.source.addresses(&lookup.name).await
            });
            let found = found.await.unwrap_or(Err(Failure::Unavailable));
            lookup.end(found);
        });
    }

    fn begin_zone(&self, zone: Arc<str>) {
        let lookup = ZoneLookup {
            resolver: self.clone(),
            zone,
            serial: None,
        };
        tokio::spawn(async move {
            let inner = lookup.resolver.inner.clone();
            let found = timeout(LOOKUP_TIMEOUT, async {
                let _turn = inner.turns.acquire().await;
                inner.source.serial(&lookup.zone).await
            });
            let serial = found.await.unwrap_or_default();
            lookup.end(serial);
        });
    }

    fn note(&self, name: &str, found: Result<Answer, Failure>) {
        let failure = found.as_ref().err().copied();
        let changes = self
            .inner
            .cache
            .lock()
            .answered(name, found, Instant::now());
        if let Some(failure) = failure {
            tracing::warn!("DNS lookup failed: {name}: result={}", failure.code());
            tracing::debug!("{name}: {failure}");
        }
        log_changes(name, &changes);
        self.inner.ended.send_replace(());
        if !changes.retired.is_empty() {
            self.inner.changed.send_replace(());
        }
    }
}

fn log_changes(name: &str, changes: &Changes) {
    for ip in &changes.retired {
        tracing::info!(
            "DNS: {name} is not at {ip} any more: connections there are closed when they are free"
        );
    }
    if changes.rotates {
        tracing::info!(
            "DNS: every answer for {name} has other addresses: connections are closed when theirs has been missing for {}s",
            cache::ROTATION_ABSENCE.as_secs()
        );
    }
    if changes.kept {
        tracing::debug!("{name}: its last known addresses stay in use");
    }
}

/// A lookup under way. However it ends, the cache hears of it: nobody else looks the name up meanwhile.
struct Lookup {
    resolver: Resolver,
    name: Arc<str>,
    found: Result<Answer, Failure>,
}

impl Lookup {
    fn end(mut self, found: Result<Answer, Failure>) {
        self.found = found;
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        let found = std::mem::replace(&mut self.found, Err(Failure::Unavailable));
        self.resolver.note(&self.name, found);
    }
}

/// The same for a zone's serial.
struct ZoneLookup {
    resolver: Resolver,
    zone: Arc<str>,
    serial: Option<u32>,
}

impl ZoneLookup {
    fn end(mut self, serial: Option<u32>) {
        self.serial = serial;
    }
}

impl Drop for ZoneLookup {
    fn drop(&mut self) {
        let mut cache = self.resolver.inner.cache.lock();
        cache.zone_answered(&self.zone, self.serial, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machine_is_known_without_any_server() {
        let nowhere = PathBuf::from("/nonexistent/resolv.conf");
        let resolver = Resolver::new(Rules::default(), Some(nowhere));
        let ask = || resolver.sites("localhost");
        let (a, b, c) = tokio::join!(ask(), ask(), ask());
        for sites in [a, b, c] {
            assert!(sites.unwrap().iter().all(|site| site.ip.is_loopback()));
        }
        assert_eq!(resolver.host_rows().len(), 1);
        assert_eq!(resolver.queries(), 0);
    }

    #[tokio::test]
    async fn a_lookup_that_is_given_up_is_over() {
        let resolver = Resolver::default();
        let ask = resolver.inner.cache.lock().ask("db", None, Instant::now());
        assert!(matches!(ask, Ask::Wait { begin: true, .. }));
        drop(Lookup {
            resolver: resolver.clone(),
            name: "db".into(),
            found: Err(Failure::Unavailable),
        });
        assert_eq!(resolver.queries(), 0);
        assert_eq!(
            resolver.sites("db").await.unwrap_err(),
            Failure::Unavailable
        );
    }

    #[tokio::test]
    async fn news_is_given_when_servers_are_misplaced() {
        let resolver = Resolver::default();
        let mut changes = resolver.changes();
        let found = |ip: [u8; 4]| Ok(Answer::local([ip.into()]));
        resolver.inner.cache.lock().ask("db", None, Instant::now());
        resolver.note("db", found([10, 0, 0, 1]));
        let server = resolver.sites("db").await.unwrap().remove(0);
        assert!(!changes.has_changed().unwrap());
        resolver.note("db", found([10, 0, 0, 2]));
        assert!(server.is_gone());
        changes.changed().await.unwrap();
    }
}
