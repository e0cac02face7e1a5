//! What is known of host names: answers, failures, ages, and which addresses are gone. Pure: names, answers and times come in,
//! what to do comes out.
//!
//! It asks nobody: [`super`] carries out the lookups that [`Cache::ask`] and [`Cache::due`] want, and tells [`Cache::answered`].
//! Every name has at most one lookup under way.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A record's own time to live counts where it is shorter than `dns_max_ttl`, but not below this.
pub const RECORD_TTL_MIN: Duration = Duration::from_secs(1);
/// Names in use are looked up again on their own account no more often than this, however short `dns_max_ttl` is.
pub const REFRESH_MIN: Duration = Duration::from_secs(1);
/// How long the last good answer stands in for one that can't be had (no server answers, or with an error). A name that nobody has
/// used for so long is forgotten.
pub const LAST_GOOD_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a new connection waits for a name to be looked up again before it goes by the last good answer.
pub const STALE_PATIENCE: Duration = Duration::from_secs(1);
/// Addresses of a name that are used; the others of a longer answer are not, and such an answer retires no server.
pub const ADDRESSES_MAX: usize = 64;
/// Addresses of a name that are remembered: those of the latest answer, and others that it had before.
pub const SITES_MAX: usize = 4 * ADDRESSES_MAX;
/// An address that could not be connected to is tried after the others for so long.
pub const UNREACHABLE_MEMORY: Duration = Duration::from_secs(10);
/// A name whose addresses come back within this time after they had left its answers is one that gives another choice of them with
/// every answer. The servers at one that is missing are then kept for a while: closing them each time would be a storm.
pub const ROTATION_MEMORY: Duration = Duration::from_secs(600);
/// How long an address of such a name must be missing before servers there are retired.
pub const ROTATION_ABSENCE: Duration = Duration::from_secs(60);

/// An address of a host name. Everybody connected there shares it, which is how one knows that it is in use.
#[derive(Debug)]
pub struct Site {
    /// The name, as it is written in the configuration.
    pub name: Arc<str>,
    /// The address.
    pub ip: IpAddr,
    gone: AtomicBool,
}

impl Site {
    fn new(name: &Arc<str>, ip: IpAddr) -> Arc<Site> {
        Arc::new(Site {
            name: name.clone(),
            ip,
            gone: AtomicBool::new(false),
        })
    }

    /// The name does not have this address any more: connections to it are to be closed as soon as they are free. Never taken back;
    /// an address that returns is a new site.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}

/// How long things are remembered: `dns_max_ttl`, `dns_nxdomain_ttl` and `dns_zone_check_period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// An answer is good for as long as its records say, but no longer than this.
    pub max_ttl: Duration,
    /// After a failure of any kind the name is not looked up for so long.
    pub nxdomain_ttl: Duration,
    /// How often the serials of zones are looked at; zero for never.
    pub zone_check_period: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            max_ttl: Duration::from_secs(15),
            nxdomain_ttl: Duration::from_secs(15),
            zone_check_period: Duration::ZERO,
        }
    }
}

/// What a lookup has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// IPv4 addresses; `None` if that question was not answered.
    pub v4: Option<Vec<IpAddr>>,
    /// IPv6 addresses; `None` if that question was not answered.
    pub v6: Option<Vec<IpAddr>>,
    /// The shortest life among the records; `None` for what does not come from DNS.
    pub ttl: Option<Duration>,
    /// False if another answer might have come had everything worked: then it is no reason to close a connection.
    pub sure: bool,
}

impl Answer {
    /// Both families, not from DNS.
    pub fn local(addresses: impl IntoIterator<Item = IpAddr>) -> Answer {
        let (v4, v6) = addresses.into_iter().partition(IpAddr::is_ipv4);
        Answer {
            v4: Some(v4),
            v6: Some(v6),
            ttl: None,
            sure: true,
        }
    }

    fn family(&self, ip: IpAddr) -> Option<&Vec<IpAddr>> {
        if ip.is_ipv4() { &self.v4 } else { &self.v6 }.as_ref()
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        [&self.v4, &self.v6]
            .into_iter()
            .flatten()
            .flatten()
            .copied()
    }

    fn is_too_long(&self) -> bool {
        self.addresses().count() > ADDRESSES_MAX
    }
}

/// Why a name has no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no such name: so says a server that should know.
    NoName,
    /// The name exists, but has no addresses.
    NoAddress,
    /// Nobody could say.
    Unavailable,
}

impl Failure {
    /// The number in PgBouncer's *DNS lookup failed*: what `getaddrinfo` returns in such a case on Linux.
    pub fn code(self) -> i32 {
        match self {
            Failure::NoName => libc::EAI_NONAME,
            Failure::NoAddress => EAI_NODATA,
            Failure::Unavailable => libc::EAI_AGAIN,
        }
    }
}

/// Not in the libc crate for every platform.
const EAI_NODATA: i32 = -5;

impl std::error::Error for Failure {}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Failure::NoName => "no such name",
            Failure::NoAddress => "the name has no address",
            Failure::Unavailable => "no answer from any name server",
        })
    }
}

/// What a new connection is told.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Try these, in this order.
    Ready(Vec<Arc<Site>>),
    /// There are none.
    Failed(Failure),
    /// A lookup is under way.
    Wait {
        /// To be given to the next [`Cache::ask`]: what this lookup finds then counts, whatever its age.
        round: u64,
        /// Begin the lookup: nobody has yet.
        begin: bool,
        /// Ask again at this time at the latest.
        until: Option<Instant>,
    },
}

/// What an answer has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Addresses that have gone while servers were connected there.
    pub retired: Vec<IpAddr>,
    /// It has just been found out that this name's addresses rotate.
    pub rotates: bool,
    /// The last good answer stays in use, since there is no better one.
    pub kept: bool,
}

/// A row of `SHOW DNS_HOSTS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRow {
    /// The name.
    pub name: Arc<str>,
    /// Time until it is due.
    pub ttl: Duration,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// A row of `SHOW DNS_ZONES`: a zone, watched or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneRow {
    /// The zone.
    pub name: Arc<str>,
    /// Its serial; 0 if it is not known.
    pub serial: u32,
    /// How many names are in it.
    pub names: usize,
}

#[derive(Debug)]
struct Known {
    site: Arc<Site>,
    /// In the latest answer.
    present: bool,
    /// When it was in an answer last.
    seen: Instant,
    unreachable: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    sites: Vec<Known>,
    /// The last lookup's.
    failure: Option<Failure>,
    expires: Instant,
    /// When the last lookup ended.
    answered: Option<Instant>,
    /// When the last good one did.
    good: Option<Instant>,
    /// When the lookup under way began.
    in_flight: Option<Instant>,
    /// Lookups that have ended.
    rounds: u64,
    /// Which address is first next time.
    turn: usize,
    used: Instant,
    /// The addresses rotate, as far as is known, until then.
    rotates: Option<Instant>,
    /// It was DNS that knew it, or that there is none: it is in a zone.
    zoned: bool,
}

impl Entry {
    fn new(now: Instant) -> Entry {
        Entry {
            sites: Vec::new(),
            failure: Some(Failure::Unavailable),
            expires: now,
            answered: None,
            good: None,
            in_flight: None,
            rounds: 0,
            turn: 0,
            used: now,
            rotates: None,
            zoned: false,
        }
    }

    fn outcome(&mut self, now: Instant) -> Ask {
        match self.failure {
            Some(failure) if !self.stands_in(now) => Ask::Failed(failure),
            _ => Ask::Ready(self.in_turn(now)),
        }
    }

    /// There are addresses to go by, for the time being.
    fn stands_in(&self, now: Instant) -> bool {
        let young = |good| now.saturating_duration_since(good) < LAST_GOOD_MAX;
        matches!(self.failure, None | Some(Failure::Unavailable)) && self.good.is_some_and(young)
    }

    /// The addresses, each time beginning with another one; those that could not be connected to come last.
    fn in_turn(&mut self, now: Instant) -> Vec<Arc<Site>> {
        let mut present: Vec<_> = self.sites.iter().filter(|known| known.present).collect();
        let first = self.turn % present.len().max(1);
        present.rotate_left(first);
        present.sort_by_key(|known| known.is_unreachable(now));
        let sites = present.iter().map(|known| known.site.clone()).collect();
        self.turn = self.turn.wrapping_add(1);
        sites
    }

    /// Somebody is connected there, or about to be.
    fn is_in_use(&self) -> bool {
        let mut sites = self.sites.iter();
        sites.any(|known| known.is_in_use() && !known.site.is_gone())
    }

    fn rotates(&self, now: Instant) -> bool {
        self.rotates.is_some_and(|until| now < until)
    }

    /// Takes an answer in; false if nothing can be done with it.
    fn take(
        &mut self,
        name: &Arc<str>,
        answer: &Answer,
        now: Instant,
        changes: &mut Changes,
    ) -> bool {
        let kept = |known: &Known| known.present && answer.family(known.site.ip).is_none();
        if answer.addresses().next().is_none() && !self.sites.iter().any(kept) {
            return false;
        }
        let present = self.sites.iter().filter(|known| known.present);
        let before: Vec<IpAddr> = present.map(|known| known.site.ip).collect();
        for known in &mut self.sites {
            known.present = kept(known);
        }
        let mut came_back = false;
        for ip in answer.addresses().take(ADDRESSES_MAX) {
            let known = self.see(name, ip, now);
            came_back |= known && !before.contains(&ip);
        }
        if came_back {
            changes.rotates = !self.rotates(now);
            self.rotates = Some(now + ROTATION_MEMORY);
        }
        if answer.sure && !answer.is_too_long() {
            self.retire(answer, now, changes);
        }
        self.prune(now, changes);
        true
    }

    /// The answer has this address; true if it is remembered from an earlier one.
    fn see(&mut self, name: &Arc<str>, ip: IpAddr, now: Instant) -> bool {
        let Some(at) = self.sites.iter().position(|known| known.site.ip == ip) else {
            self.sites.push(Known::new(Site::new(name, ip), now));
            return false;
        };
        let known = &mut self.sites[at];
        if known.site.is_gone() {
            *known = Known::new(Site::new(name, ip), now);
        }
        known.present = true;
        known.seen = now;
        true
    }

    fn retire(&mut self, answer: &Answer, now: Instant, changes: &mut Changes) {
        let patience = if self.rotates(now) {
            ROTATION_ABSENCE
        } else {
            Duration::ZERO
        };
        for known in &self.sites {
            let missing = !known.present && answer.family(known.site.ip).is_some();
            if missing && now.saturating_duration_since(known.seen) >= patience {
                known.retire(changes);
            }
        }
    }

    /// Forgets addresses that have gone long ago; if there are too many, those first that nobody is connected to, and
    /// that have been missing longest.
    fn prune(&mut self, now: Instant, changes: &mut Changes) {
        let recent = |known: &Known| now.saturating_duration_since(known.seen) < ROTATION_MEMORY;
        self.sites
            .retain(|known| known.present || !known.site.is_gone() || recent(known));
        while self.sites.len() > SITES_MAX {
            let missing = self
                .sites
                .iter()
                .enumerate()
                .filter(|(_, known)| !known.present);
            let Some((at, _)) = missing.min_by_key(|(_, known)| (known.is_in_use(), known.seen))
            else {
                break;
            };
            self.sites.remove(at).retire(changes);
        }
    }
}

impl Known {
    fn new(site: Arc<Site>, now: Instant) -> Known {
        Known {
            site,
            present: true,
            seen: now,
            unreachable: None,
        }
    }

    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.site) > 1
    }

    fn is_unreachable(&self, now: Instant) -> bool {
        let recent = |since| now.saturating_duration_since(since) < UNREACHABLE_MEMORY;
        self.unreachable.is_some_and(recent)
    }

    fn retire(&self, changes: &mut Changes) {
        let was_gone = self.site.gone.swap(true, Ordering::AcqRel);
        if !was_gone && self.is_in_use() {
            changes.retired.push(self.site.ip);
        }
    }
}

#[derive(Debug)]
struct Zone {
    serial: Option<u32>,
    due: Instant,
    in_flight: bool,
}

/// What is known of host names.
#[derive(Debug, Default)]
pub struct Cache {
    rules: Rules,
    hosts: BTreeMap<Arc<str>, Entry>,
    zones: BTreeMap<Arc<str>, Zone>,
}

impl Cache {
    /// Nothing is known.
    pub fn new(rules: Rules) -> Cache {
        Cache {
            rules,
            ..Cache::default()
        }
    }

    /// New rules. What is known already grows old by the new ones where they are stricter.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
        for entry in self.hosts.values_mut() {
            if let Some(answered) = entry.answered {
                let longest = if entry.failure.is_none() {
                    rules.max_ttl
                } else {
                    rules.nxdomain_ttl
                };
                entry.expires = entry.expires.min(answered + longest);
            }
        }
    }

    /// A new connection to this name is wanted. `waited` is the round it has waited for, if any.
    pub fn ask(&mut self, name: &str, waited: Option<u64>, now: Instant) -> Ask {
        let known = self.hosts.contains_key(name);
        if !known {
            self.hosts.insert(name.into(), Entry::new(now));
        }
        let Some(entry) = self.hosts.get_mut(name) else {
            return Ask::Failed(Failure::Unavailable); // it has just been entered
        };
        entry.used = now;
        let waited_enough = waited.is_some_and(|round| entry.rounds != round);
        if known && (waited_enough || now < entry.expires) {
            return entry.outcome(now);
        }
        let begin = entry.in_flight.is_none();
        let since = *entry.in_flight.get_or_insert(now);
        let until = entry.stands_in(now).then_some(since + STALE_PATIENCE);
        match until {
            Some(until) if until <= now => entry.outcome(now),
            _ => Ask::Wait {
                round: entry.rounds,
                begin,
                until,
            },
        }
    }

    /// A lookup has ended.
    pub fn answered(
        &mut self,
        name: &str,
        found: Result<Answer, Failure>,
        now: Instant,
    ) -> Changes {
        let mut changes = Changes::default();
        let Some((name, mut entry)) = self.hosts.remove_entry(name) else {
            return changes;
        };
        let taken = match &found {
            Ok(answer) if entry.take(&name, answer, now, &mut changes) => Ok(answer.ttl),
            Ok(_) => Err(Failure::Unavailable),
            Err(failure) => Err(*failure),
        };
        match taken {
            Ok(ttl) => {
                entry.failure = None;
                entry.good = Some(now);
                entry.zoned = ttl.is_some();
                entry.expires = now + self.life(ttl);
            }
            Err(failure) => {
                entry.zoned |= failure != Failure::Unavailable;
                entry.failure = Some(failure);
                entry.expires = now + self.rules.nxdomain_ttl;
                changes.kept = entry.stands_in(now);
            }
        }
        entry.in_flight = None;
        entry.answered = Some(now);
        entry.rounds += 1;
        self.hosts.insert(name, entry);
        changes
    }

    fn life(&self, ttl: Option<Duration>) -> Duration {
        let longest = self.rules.max_ttl;
        ttl.map_or(longest, |ttl| ttl.max(RECORD_TTL_MIN).min(longest))
    }

    /// This address could not be connected to.
    pub fn note_unreachable(&mut self, site: &Site, now: Instant) {
        let entry = self.hosts.get_mut(&site.name);
        let mut sites = entry.into_iter().flat_map(|entry| &mut entry.sites);
        if let Some(known) = sites.find(|known| known.site.ip == site.ip) {
            known.unreachable = Some(now);
        }
    }

    /// Names that are in use and whose time is over: each is to be looked up now. What nobody uses any more is forgotten.
    pub fn due(&mut self, now: Instant) -> Vec<Arc<str>> {
        let mut due = Vec::new();
        self.hosts.retain(|name, entry| {
            if entry.is_in_use() {
                entry.used = now;
                let earliest = entry.answered.map(|answered| answered + REFRESH_MIN);
                let is_due =
                    now >= entry.expires && earliest.is_none_or(|earliest| now >= earliest);
                if is_due && entry.in_flight.is_none() {
                    entry.in_flight = Some(now);
                    due.push(name.clone());
                }
            }
            entry.in_flight.is_some() || now.saturating_duration_since(entry.used) < LAST_GOOD_MAX
        });
        due
    }

    /// Zones whose serials are to be looked at now.
    pub fn zones_due(&mut self, now: Instant) -> Vec<Arc<str>> {
        let period = self.rules.zone_check_period;
        if period.is_zero() {
            self.zones.clear();
            return Vec::new();
        }
        let wanted: Vec<Arc<str>> = self.zoned().map(|(zone, _)| zone.into()).collect();
        self.zones.retain(|zone, _| wanted.contains(zone));
        for zone in wanted {
            // Not at once: the names have just been looked up.
            let due = now + period;
            self.zones
                .entry(zone)
                .or_insert(Zone {
                    serial: None,
                    due: now,
                    in_flight: false,
                })
                .due_by(due);
        }
        let due = self
            .zones
            .iter_mut()
            .filter(|(_, zone)| !zone.in_flight && now >= zone.due);
        due.map(|(name, zone)| {
            zone.in_flight = true;
            name.clone()
        })
        .collect()
    }

    fn zoned(&self) -> impl Iterator<Item = (&str, &str)> {
        let zoned = self.hosts.iter().filter(|(_, entry)| entry.zoned);
        zoned.filter_map(|(name, _)| Some((zone_of(name)?, &**name)))
    }

    /// A zone's serial, or that it can't be had. If it has changed, the names of the zone are due at once.
    pub fn zone_answered(&mut self, zone: &str, serial: Option<u32>, now: Instant) {
        let period = self.rules.zone_check_period;
        let Some(known) = self.zones.get_mut(zone) else {
            return;
        };
        known.in_flight = false;
        known.due = now + period;
        let Some(serial) = serial else { return };
        let before = known.serial.replace(serial);
        if before.is_some_and(|before| before != serial) {
            let names = self
                .hosts
                .iter_mut()
                .filter(|(name, _)| zone_of(name) == Some(zone));
            names.for_each(|(_, entry)| entry.expires = now);
        }
    }

    /// Every name.
    pub fn host_rows(&self, now: Instant) -> Vec<HostRow> {
        let row = |(name, entry): (&Arc<str>, &Entry)| HostRow {
            name: name.clone(),
            ttl: entry.expires.saturating_duration_since(now),
            addresses: if entry.failure.is_none() || entry.stands_in(now) {
                let present = entry.sites.iter().filter(|known| known.present);
                present.map(|known| known.site.ip).collect()
            } else {
                Vec::new()
            },
        };
        self.hosts.iter().map(row).collect()
    }

    /// Every zone that names are in, with the serial seen last if it is watched.
    pub fn zone_rows(&self) -> Vec<ZoneRow> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (zone, _) in self.zoned() {
            *counts.entry(zone).or_default() += 1;
        }
        let serial = |zone: &str| self.zones.get(zone).and_then(|known| known.serial);
        let row = |(zone, names): (&str, usize)| ZoneRow {
            name: zone.into(),
            serial: serial(zone).unwrap_or(0),
            names,
        };
        counts.into_iter().map(row).collect()
    }

    /// Lookups under way.
    pub fn queries(&self) -> usize {
        let hosts = self
            .hosts
            .values()
            .filter(|entry| entry.in_flight.is_some());
        hosts.count() + self.zones.values().filter(|zone| zone.in_flight).count()
    }
}

impl Zone {
    /// A shorter period counts at once.
    fn due_by(&mut self, latest: Instant) {
        self.due = self.due.min(latest);
    }
}

/// The part after the first dot.
fn zone_of(name: &str) -> Option<&str> {
    let (_, zone) = name.trim_end_matches('.').split_once('.')?;
    (!zone.is_empty()).then_some(zone)
}

#[cfg(test)]
mod tests;
