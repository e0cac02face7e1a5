//! What is counted, by the rules of PgBouncer, in SHOW STATS_TOTALS and the averages. With one worker: then the same servers serve
//! the same clients.

use std::collections::BTreeMap;

use super::*;
use crate::fixture::*;
use crate::proto::{Conn, msg};

/// The counters of `p`; counting begins with the first look.
struct Book<'a> {
    pooler: &'a Pooler,
    admin: Conn,
    last: BTreeMap<String, i64>,
}

/// What is not exactly the same in every run is counted in tenths of a second.
const TENTH_US: i64 = 100_000;

impl Book<'_> {
    async fn open(pooler: &Pooler) -> Book<'_> {
        let admin = pooler.admin().await;
        let last = BTreeMap::new();
        Book {
            pooler,
            admin,
            last,
        }
    }

    async fn look(&mut self) -> BTreeMap<String, i64> {
        let table = Table::new(&self.admin.query("SHOW STATS_TOTALS").await);
        let Some(row) = table.find(&[("database", "p")]) else {
            return BTreeMap::new();
        };
        let columns = table.columns.iter().skip(1).map(|(name, _)| name);
        let number = |name: &String| {
            (
                name.clone(),
                table.get(row, name).parse().expect("a number"),
            )
        };
        columns.map(number).collect()
    }

    /// Waits until what has been added since the last check is this, in the form `name=number …`; names that are missing have not
    /// changed.
    async fn check(&mut self, expected: &str) {
        let words = expected
            .split_whitespace()
            .map(|word| word.split_once('=').expect("name=number"));
        let expected: BTreeMap<String, i64> = words
            .map(|(k, v)| (k.into(), v.parse().expect("a number")))
            .collect();
        let mut added = BTreeMap::new();
        // The reply may be faster than the count of its last byte.
        for _ in 0..50 {
            let now = self.look().await;
            let before = |name: &String| self.last.get(name).copied().unwrap_or_default();
            let tenths = |name: &String, n: i64| {
                if name.ends_with("_time") {
                    n / TENTH_US
                } else {
                    n
                }
            };
            added = now
                .iter()
                .map(|(k, v)| (k.clone(), tenths(k, v - before(k))))
                .filter(|(_, v)| *v != 0)
                .collect();
            if added == expected {
                self.last = now;
                return;
            }
            sleep_ms(10).await;
        }
        panic!(
            "expected {expected:?}, counted {added:?}\n{:?}",
            self.pooler.show("STATS").await
        );
    }
}

fn parse_bind_execute(name: &str, sql: &str) -> Vec<u8> {
    [
        msg::parse(name, sql, &[]),
        msg::bind("", name, &[]),
        msg::execute("", 0),
        msg::sync(),
    ]
    .concat()
}

#[tokio::test]
async fn queries_transactions_and_bytes() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set_ours("workers", 1).start().await;
        let mut book = Book::open(&pooler).await;
        let mut a = pooler.client("u_trust", "p").await;
        book.check("client_login_count=1").await;
        let one = "server_assignment_count=1 xact_count=1 query_count=1";
        a.ok("SELECT 1").await;
        book.check(&format!("{one} bytes_received=14 bytes_sent=66"))
            .await;
        a.ok("SELECT 1; SELECT 2").await;
        book.check(&format!("{one} bytes_received=24 bytes_sent=126"))
            .await;
        a.ok("").await;
        book.check(&format!("{one} bytes_received=6 bytes_sent=11"))
            .await;
        a.ok("BEGIN").await;
        book.check(&format!("{one} bytes_received=11 bytes_sent=17"))
            .await;
        a.ok("SELECT 1").await;
        book.check("query_count=1 bytes_received=14 bytes_sent=66")
            .await;
        sleep_ms(320).await;
        a.ok("COMMIT").await;
        book.check("query_count=1 bytes_received=12 bytes_sent=18 xact_time=3")
            .await;
        a.ok("SELECT pg_sleep(0.22)").await;
        book.check(&format!(
            "{one} bytes_received=27 bytes_sent=65 xact_time=2 query_time=2"
        ))
        .await;
        // A pipeline is one query.
        let three = [
            parse_bind_execute("", "SELECT 1"),
            msg::query("SELECT 1"),
            msg::query("SELECT 2"),
        ];
        let sent = three.concat();
        a.send(&sent).await;
        for _ in 0..3 {
            a.until_ready().await;
        }
        // ParseComplete, BindComplete, a row, CommandComplete, ReadyForQuery; then two whole answers.
        let got = 5 + 5 + 12 + 14 + 6 + 2 * 66;
        book.check(&format!(
            "{one} bytes_received={} bytes_sent={got}",
            sent.len()
        ))
        .await;
    })
    .await;
}

#[tokio::test]
async fn prepared_statements() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set_ours("workers", 1).start().await;
        let mut book = Book::open(&pooler).await;
        let mut a = pooler.client("u_trust", "p").await;
        let mut b = pooler.client("u_trust", "p").await;
        book.check("client_login_count=2").await;
        let counts = |more: &str, sent: usize, got: usize| {
            format!(
                "server_assignment_count=1 xact_count=1 query_count=1 bytes_received={sent} bytes_sent={got} {more}"
            )
        };
        // Unnamed ones are not counted.
        let text = parse_bind_execute("", "SELECT 1");
        a.send(&text).await;
        a.until_ready().await;
        book.check(&counts("", text.len(), 42)).await;
        let text = parse_bind_execute("s1", "SELECT 1");
        a.send(&text).await;
        a.until_ready().await;
        book.check(&counts("client_parse_count=1 server_parse_count=1 bind_count=1", text.len(), 42)).await;
        // The server knows it already; its answer to Parse is missing.
        let text = parse_bind_execute("other", "SELECT 1");
        b.send(&text).await;
        b.until_ready().await;
        book.check(&counts("client_parse_count=1 bind_count=1", text.len(), 37)).await;
        let text = [msg::bind("", "s1", &[]), msg::execute("", 0), msg::sync()].concat();
        a.send(&text).await;
        a.until_ready().await;
        book.check(&counts("bind_count=1", text.len(), 37)).await;
    })
    .await;
}

#[tokio::test]
async fn waiting() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 1).set_ours("workers", 1).start().await;
        let mut book = Book::open(&pooler).await;
        let mut a = pooler.client("u_trust", "p").await;
        let mut b = pooler.client("u_trust", "p").await;
        a.ok("BEGIN").await;
        book.check("client_login_count=2 server_assignment_count=1 xact_count=1 query_count=1 bytes_received=11 bytes_sent=17").await;
        b.send(&msg::query("SELECT 1")).await;
        // Counted when it begins, though nothing has been forwarded.
        book.check("xact_count=1 query_count=1").await;
        sleep_ms(330).await;
        a.ok("COMMIT").await;
        b.until_ready().await;
        let now = book.look().await;
        let more = |name: &str| (now[name] - book.last[name]) / TENTH_US;
        assert!((3..6).contains(&more("wait_time")), "{now:?}");
        // The wait is part of the query.
        assert!((3..6).contains(&more("query_time")), "{now:?}");
        assert_eq!(now["server_assignment_count"] - book.last["server_assignment_count"], 1);
    })
    .await;
}

/// Averages per second and per query, over one period in the log.
#[tokio::test]
async fn averages() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("stats_period", 2).start().await;
        let mut client = pooler.client("u_trust", "p").await;
        // Several periods full of them.
        let mut best = 0;
        for _ in 0..60 {
            client.ok("SELECT pg_sleep(0.1)").await;
            let table = pooler.show("STATS").await;
            let row = table.find(&[("database", "p")]).expect("in use");
            let (rate, time): (u64, u64) = (
                table.get(row, "avg_query_count").parse().unwrap(),
                table.get(row, "avg_query_time").parse().unwrap(),
            );
            best = best.max(rate);
            assert!(rate <= 10, "{rate} a second");
            assert!(
                rate == 0 || (95_000..400_000).contains(&time),
                "{time} µs each"
            );
        }
        assert!(best >= 3, "{best} a second");
        let log = pooler.log();
        let rates = log.lines().filter_map(|line| {
            let rest = line.split_once("LOG stats: ")?.1;
            let queries = rest.split(", ").nth(1)?.strip_suffix(" queries/s")?;
            queries.parse::<u64>().ok()
        });
        // The console of each look counts too.
        assert!((3..=25).contains(&rates.max().unwrap_or_default()), "{log}");
    })
    .await;
}

/// Several workers make one sum.
#[tokio::test]
async fn workers_are_added_up() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set_ours("workers", 2).start().await;
        let mut book = Book::open(&pooler).await;
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(pooler.client("u_trust", "p").await);
        }
        for client in &mut clients {
            for _ in 0..5 {
                client.ok("SELECT 1").await;
            }
        }
        book.check("client_login_count=4 server_assignment_count=20 xact_count=20 query_count=20 bytes_received=280 bytes_sent=1320").await;
    })
    .await;
}
