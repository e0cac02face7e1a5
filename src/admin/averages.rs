//! Totals and averages per database, as SHOW STATS and the log have them. Pure: the caller brings the rows and the time.
//!
//! The averages that are shown reach from the last tick but one to now; those of the log cover exactly one period, from tick to
//! tick. Unlike PgBouncer's, totals never go down: what a dropped pool had counted stays with its database.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use crate::metrics::Stats;
use crate::worker::report::PoolRow;

/// Databases without a pool that are remembered. Beyond, all of them are forgotten: with names made up by clients (`*`) the book
/// would grow for ever.
const GONE_DATABASES_MAX: usize = 10_000;

/// What was counted, and how fast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Everything so far.
    pub total: Stats,
    /// Counts and bytes per second, times in µs per query, transaction or assignment.
    pub average: Stats,
}

/// The statistics at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Per database, sorted by name.
    pub databases: Vec<(String, Figures)>,
    /// Over all databases.
    pub all: Figures,
}

/// The statistics of one pool at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolFigures {
    /// Name of the database entry.
    pub database: String,
    /// Server-side user.
    pub user: String,
    /// Everything so far, while the pool has been there.
    pub total: Stats,
    /// What was counted since the last tick but one.
    pub recent: Stats,
    /// The same as [`Figures::average`].
    pub average: Stats,
}

/// Averages over one period, as the log says them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(pub Stats);

/// The totals at one moment.
#[derive(Clone, Debug)]
struct Mark {
    at: Instant,
    totals: BTreeMap<String, Stats>,
    /// The same per pool.
    pools: BTreeMap<PoolKey, Stats>,
}

/// Database and user.
type PoolKey = (String, String);

/// The book of all that was counted.
#[derive(Clone, Debug)]
pub struct Averages {
    /// What each pool had counted when it was last seen.
    seen: BTreeMap<PoolKey, Stats>,
    /// Per database, what pools (or shards of pools) that are gone had counted.
    gone: BTreeMap<String, Stats>,
    last: Mark,
    last_but_one: Mark,
}

impl Averages {
    /// An empty book, begun at `now`.
    pub fn new(now: Instant) -> Self {
        let mark = Mark {
            at: now,
            totals: BTreeMap::new(),
            pools: BTreeMap::new(),
        };
        Averages {
            seen: BTreeMap::new(),
            gone: BTreeMap::new(),
            last: mark.clone(),
            last_but_one: mark,
        }
    }

    /// Ends a period: to be called every stats_period. Returns its averages.
    pub fn tick(&mut self, now: Instant, pools: &[PoolRow]) -> Period {
        let totals = self.observe(pools);
        let period = average(
            sum(&totals),
            sum(&self.last.totals),
            now.saturating_duration_since(self.last.at),
        );
        let pools = self.seen.clone();
        let mark = Mark {
            at: now,
            totals,
            pools,
        };
        self.last_but_one = std::mem::replace(&mut self.last, mark);
        Period(period)
    }

    /// Totals and averages now.
    pub fn report(&mut self, now: Instant, pools: &[PoolRow]) -> Report {
        let totals = self.observe(pools);
        let from = &self.last_but_one;
        let elapsed = now.saturating_duration_since(from.at);
        let figures = |total: Stats, before: Stats| Figures {
            total,
            average: average(total, before, elapsed),
        };
        let all = figures(sum(&totals), sum(&from.totals));
        let database = |(name, total): (String, Stats)| {
            let before = from.totals.get(&name).copied().unwrap_or_default();
            (name, figures(total, before))
        };
        Report {
            databases: totals.into_iter().map(database).collect(),
            all,
        }
    }

    /// Every pool by itself, now.
    pub fn pools(&mut self, now: Instant, pools: &[PoolRow]) -> Vec<PoolFigures> {
        self.observe(pools);
        let from = &self.last_but_one;
        let elapsed = now.saturating_duration_since(from.at);
        let figures = |(key, total): (&PoolKey, &Stats)| {
            let before = from.pools.get(key).copied().unwrap_or_default();
            PoolFigures {
                database: key.0.clone(),
                user: key.1.clone(),
                total: *total,
                recent: minus(*total, before),
                average: average(*total, before, elapsed),
            }
        };
        self.seen.iter().map(figures).collect()
    }

    /// Takes note of the pools' counters; returns the total of each database.
    fn observe(&mut self, pools: &[PoolRow]) -> BTreeMap<String, Stats> {
        let mut now: BTreeMap<PoolKey, Stats> = BTreeMap::new();
        for row in pools {
            *now.entry((row.database.clone(), row.user.clone()))
                .or_default() += row.stats;
        }
        self.keep_what_is_gone(&now);
        let mut totals = self.gone.clone();
        for ((database, _), stats) in &now {
            *totals.entry(database.clone()).or_default() += *stats;
        }
        self.seen = now;
        totals
    }

    /// Counters only grow, so one that is less than before has lost a shard: the difference is kept.
    fn keep_what_is_gone(&mut self, now: &BTreeMap<PoolKey, Stats>) {
        for (key, before) in &self.seen {
            let lost = minus(*before, now.get(key).copied().unwrap_or_default());
            if lost != Stats::default() || !now.contains_key(key) {
                *self.gone.entry(key.0.clone()).or_default() += lost;
            }
        }
        if self.gone.len() > GONE_DATABASES_MAX {
            let in_use: BTreeSet<&String> = now.keys().map(|(database, _)| database).collect();
            self.gone.retain(|name, _| in_use.contains(name));
        }
    }
}

/// The sum over all databases.
fn sum(totals: &BTreeMap<String, Stats>) -> Stats {
    totals
        .values()
        .fold(Stats::default(), |sum, stats| sum + *stats)
}

/// What was counted between two moments, divided: integers, rounded down.
fn average(now: Stats, before: Stats, elapsed: Duration) -> Stats {
    let counted = minus(now, before);
    let micros = elapsed.as_micros().max(1);
    let per_second = |n: u64| saturated(u128::from(n) * 1_000_000 / micros);
    let each = |time: u64, n: u64| time.checked_div(n).unwrap_or(0);
    Stats {
        xact_time: each(counted.xact_time, counted.xact_count),
        query_time: each(counted.query_time, counted.query_count),
        wait_time: each(counted.wait_time, counted.server_assignment_count),
        ..zip(counted, counted, |n, _| per_second(n))
    }
}

fn minus(a: Stats, b: Stats) -> Stats {
    zip(a, b, u64::saturating_sub)
}

fn saturated(n: u128) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn zip(a: Stats, b: Stats, f: impl Fn(u64, u64) -> u64) -> Stats {
    Stats {
        server_assignment_count: f(a.server_assignment_count, b.server_assignment_count),
        xact_count: f(a.xact_count, b.xact_count),
        query_count: f(a.query_count, b.query_count),
        bytes_received: f(a.bytes_received, b.bytes_received),
        bytes_sent: f(a.bytes_sent, b.bytes_sent),
        xact_time: f(a.xact_time, b.xact_time),
        query_time: f(a.query_time, b.query_time),
        wait_time: f(a.wait_time, b.wait_time),
        client_parse_count: f(a.client_parse_count, b.client_parse_count),
        server_parse_count: f(a.server_parse_count, b.server_parse_count),
        bind_count: f(a.bind_count, b.bind_count),
        client_login_count: f(a.client_login_count, b.client_login_count),
    }
}

impl fmt::Display for Period {
    /// The line of the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.0;
        write!(
            f,
            "stats: {} xacts/s, {} queries/s, {} client parses/s, {} server parses/s, {} binds/s, {} client logins/s, \
             in {} B/s, out {} B/s, xact {} us, query {} us, wait {} us",
            s.xact_count,
            s.query_count,
            s.client_parse_count,
            s.server_parse_count,
            s.bind_count,
            s.client_login_count,
            s.bytes_received,
            s.bytes_sent,
            s.xact_time,
            s.query_time,
            s.wait_time
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pool(database: &str, user: &str, queries: u64) -> PoolRow {
        PoolRow {
            database: database.to_owned(),
            user: user.to_owned(),
            stats: Stats {
                query_count: queries,
                query_time: queries * 70,
                ..Stats::default()
            },
            ..PoolRow::default()
        }
    }

    /// (database, total queries, queries per second) of every row.
    fn queries(book: &mut Averages, now: Instant, pools: &[PoolRow]) -> Vec<(String, u64, u64)> {
        let databases = book.report(now, pools).databases.into_iter();
        databases
            .map(|(name, f)| (name, f.total.query_count, f.average.query_count))
            .collect()
    }

    fn row(database: &str, total: u64, average: u64) -> (String, u64, u64) {
        (database.to_owned(), total, average)
    }

    #[test]
    fn shown_averages_reach_back_to_the_last_tick_but_one() {
        let start = Instant::now();
        let mut book = Averages::new(start);
        let at = |s: u32| start + s * SECOND;
        assert_eq!(
            queries(&mut book, at(2), &[pool("a", "u", 10)]),
            [row("a", 10, 5)]
        );
        book.tick(at(60), &[pool("a", "u", 600)]);
        assert_eq!(
            queries(&mut book, at(100), &[pool("a", "u", 1000)]),
            [row("a", 1000, 10)]
        );
        book.tick(at(120), &[pool("a", "u", 6600)]);
        // From here 60 s and 600 queries are what came before.
        assert_eq!(
            queries(&mut book, at(160), &[pool("a", "u", 10_600)]),
            [row("a", 10_600, 100)]
        );
    }

    #[test]
    fn pools_have_figures_of_their_own() {
        let start = Instant::now();
        let mut book = Averages::new(start);
        book.tick(start + 60 * SECOND, &[pool("a", "u", 600)]);
        book.tick(start + 120 * SECOND, &[pool("a", "u", 660)]);
        let now = start + 160 * SECOND;
        let pools = book.pools(now, &[pool("a", "u", 760), pool("a", "v", 300)]);
        let shown: Vec<(&str, u64, u64, u64)> = pools
            .iter()
            .map(|pool| {
                let (recent, average) = (pool.recent.query_count, pool.average.query_count);
                (&*pool.user, pool.total.query_count, recent, average)
            })
            .collect();
        assert_eq!(shown, [("u", 760, 160, 1), ("v", 300, 300, 3)]);
    }

    #[test]
    fn the_log_covers_one_period() {
        let start = Instant::now();
        let mut book = Averages::new(start);
        book.tick(start + 60 * SECOND, &[pool("a", "u", 600)]);
        let second = book.tick(
            start + 120 * SECOND,
            &[pool("a", "u", 660), pool("b", "u", 60)],
        );
        assert_eq!(
            second.to_string(),
            "stats: 0 xacts/s, 2 queries/s, 0 client parses/s, 0 server parses/s, 0 binds/s, 0 client logins/s, \
             in 0 B/s, out 0 B/s, xact 0 us, query 70 us, wait 0 us"
        );
    }

    #[test]
    fn times_are_per_thing_and_counts_per_second() {
        let all_ten = zip(Stats::default(), Stats::default(), |_, _| 10);
        let counted = Stats {
            query_time: 45,
            wait_time: 25,
            server_assignment_count: 5,
            ..all_ten
        };
        let got = average(counted, Stats::default(), 2 * SECOND);
        let all_five = zip(Stats::default(), Stats::default(), |_, _| 5);
        let expected = Stats {
            xact_time: 1,
            query_time: 4,
            wait_time: 5,
            server_assignment_count: 2,
            ..all_five
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn users_and_workers_are_added_up() {
        let now = Instant::now();
        let mut book = Averages::new(now);
        let pools = [
            pool("b", "u", 1),
            pool("a", "u", 2),
            pool("b", "v", 3),
            pool("b", "u", 4),
        ];
        assert_eq!(
            queries(&mut book, now + SECOND, &pools),
            [row("a", 2, 2), row("b", 8, 8)]
        );
    }

    #[test]
    fn all_databases_together_have_their_own_averages() {
        let start = Instant::now();
        let mut book = Averages::new(start);
        // Rates below one per second must not make times vanish.
        let all = book
            .report(
                start + 60 * SECOND,
                &[pool("a", "u", 20), pool("b", "u", 41)],
            )
            .all;
        assert_eq!((all.total.query_count, all.total.query_time), (61, 61 * 70));
        assert_eq!((all.average.query_count, all.average.query_time), (1, 70));
    }

    #[test]
    fn what_a_dropped_pool_counted_stays() {
        let start = Instant::now();
        let mut book = Averages::new(start);
        book.tick(start, &[pool("a", "u", 100), pool("a", "v", 7)]);
        book.tick(start, &[pool("a", "v", 7)]);
        assert_eq!(queries(&mut book, start + SECOND, &[]), [row("a", 107, 0)]);
        let again = [pool("a", "u", 5)];
        assert_eq!(
            queries(&mut book, start + SECOND, &again),
            [row("a", 112, 5)]
        );
    }

    #[test]
    fn forgotten_databases_are_those_without_a_pool() {
        let start = Instant::now();
        let mut book = Averages::new(start);
        let many: Vec<PoolRow> = (0..=GONE_DATABASES_MAX)
            .map(|n| pool(&n.to_string(), "u", 1))
            .collect();
        book.tick(start, &many);
        assert_eq!(
            queries(&mut book, start, &[pool("0", "v", 1)]),
            [row("0", 2, 2_000_000)]
        );
    }

    proptest! {
        /// Whatever pools come, go and come back, no total ever goes down.
        #[test]
        fn totals_never_go_down(steps in prop::collection::vec((prop::collection::vec((0u8..3, 0u8..2, 0u64..50), 0..6), any::<bool>()), 1..30)) {
            let start = Instant::now();
            let mut book = Averages::new(start);
            let mut before: BTreeMap<String, u64> = BTreeMap::new();
            for (n, (pools, ticks)) in steps.iter().enumerate() {
                let now = start + SECOND * n as u32;
                let pools: Vec<PoolRow> = pools.iter().map(|(db, user, n)| pool(&db.to_string(), &user.to_string(), *n)).collect();
                if *ticks { book.tick(now, &pools); }
                let rows: BTreeMap<String, u64> = book.report(now, &pools).databases.into_iter().map(|(name, f)| (name, f.total.query_count)).collect();
                for (database, queries) in &before {
                    prop_assert!(rows.get(database).is_some_and(|now| now >= queries));
                }
                before = rows;
            }
        }
    }
}
