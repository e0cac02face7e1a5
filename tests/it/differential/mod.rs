//! The heart of the suite: random protocol conversations are held with PostgreSQL directly and through the pooler, and every frame after
//! the login must be the same, byte for byte, but for the [one exception](compare).
//!
//! [`generate`] makes a [`conversation`] from a seed, [`player`] plays it, [`compare`] finds the first difference, [`shrink`] makes a
//! failing group of conversations smaller. Several clients share one to three servers while they play.
//!
//! `PGWEIR_SEED` replays: a failure prints the value to use, with `PGWEIR_CONVERSATIONS`, and the test's name. Without it every run
//! holds the same conversations, so that a red run means a change; `PGWEIR_SEED=fresh` looks for new trouble.

mod compare;
mod conversation;
mod generate;
mod player;
mod rng;
mod schema;
mod shrink;
mod sql;

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use self::conversation::{Conversation, Ending, Mode};
use self::player::Event;
use self::rng::Rng;
use crate::fixture::*;
use crate::proto::Conn;

/// Conversations that are held at the same time.
const GROUP: usize = 6;
/// Where the conversations begin when `PGWEIR_SEED` does not say.
const SEED: u64 = 1;
/// Conversations per test when `PGWEIR_CONVERSATIONS` does not say.
const CONVERSATIONS: usize = 1200;
const POOL_SIZES: std::ops::RangeInclusive<usize> = 1..=3;

#[tokio::test]
async fn session_conversations() {
    bounded(900, hold(Mode::Session)).await;
}

#[tokio::test]
async fn transaction_conversations() {
    bounded(900, hold(Mode::Transaction)).await;
}

#[tokio::test]
async fn statement_conversations() {
    bounded(900, hold(Mode::Statement)).await;
}

/// Two direct connections must agree, or nothing that the others find means anything.
#[tokio::test]
async fn conversations_are_deterministic() {
    bounded(300, async {
        let cluster = Cluster::shared();
        for db in ["diff_self_a", "diff_self_b"] {
            schema::clone(cluster, db).await;
        }
        let first = number_from_env("PGWEIR_SEED").unwrap_or(1);
        let count = number_from_env("PGWEIR_CONVERSATIONS").map_or(120, |n| n as usize);
        for group in 0..count.div_ceil(GROUP) {
            let members = make_group(first + (group * GROUP) as u64, Mode::ALL[group % 3], group);
            let once = play_all(&members, cluster.port, "diff_self_a").await;
            let again = play_all(&members, cluster.port, "diff_self_b").await;
            for (member, (once, again)) in members.iter().zip(once.iter().zip(&again)) {
                let complete = once.iter().all(|e| matches!(e, Event::Frame { .. }));
                assert!(
                    complete,
                    "PostgreSQL does not play to the end: {:?}\n{member}",
                    once.last()
                );
                if member.ending != Ending::Vanish {
                    let difference = compare::first_difference(once, again);
                    assert!(
                        difference.is_none(),
                        "{}\n{member}",
                        difference.unwrap_or_default()
                    );
                }
            }
        }
    })
    .await;
}

fn number_from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|v| {
        v.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number"))
    })
}

/// Holds conversations of one mode, in that mode and in every more patient one.
async fn hold(mode: Mode) {
    let fresh = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_millis() as u64;
    let first = match std::env::var("PGWEIR_SEED").as_deref() {
        Ok("fresh") => fresh,
        _ => number_from_env("PGWEIR_SEED").unwrap_or(SEED),
    };
    let count = number_from_env("PGWEIR_CONVERSATIONS").map_or(CONVERSATIONS, |n| n as usize);
    let stage = Stage::build(mode).await;
    let started = Instant::now();
    let mut frames = 0;
    for group in 0..count.div_ceil(GROUP) {
        let seed = first + (group * GROUP) as u64;
        let members = make_group(seed, mode, group);
        let scene = stage.scene(seed);
        let Some(direct) = stage.direct(&members).await else {
            let shown: String = members.iter().map(ToString::to_string).collect();
            panic!("seed {seed}: the generator waits for what PostgreSQL never says:\n{shown}");
        };
        frames += direct.iter().map(Vec::len).sum::<usize>();
        if let Some(difference) = stage.difference(&members, &scene, &direct).await {
            stage.fail(seed, members, scene, difference).await;
        }
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    println!(
        "{count} {} conversations from seed {first}, {frames} direct frames, {rate:.0}/s",
        mode.word()
    );
    stage.all_quiet().await;
}

fn make_group(seed: u64, mode: Mode, group: usize) -> Vec<Conversation> {
    let make = |i: usize| {
        generate::conversation(
            seed + i as u64,
            mode,
            (group * GROUP + i) % schema::SLOTS,
            like_pgbouncer(),
        )
    };
    (0..GROUP).map(make).collect()
}

/// Where a group is played: which pooler, and how many servers it may use.
struct Scene {
    pooler: usize,
    pool_size: usize,
}

/// The databases and poolers of one test.
struct Stage {
    mode: Mode,
    direct_db: String,
    poolers: Vec<Pooler>,
}

impl Stage {
    async fn build(mode: Mode) -> Stage {
        let cluster = Cluster::shared();
        let database = |side: &str| format!("diff_{}_{side}", mode.word());
        schema::clone(cluster, &database("direct")).await;
        let mut poolers = Vec::new();
        for (number, (prepared, workers)) in [(200, 2), (2, 1)].into_iter().enumerate() {
            let mut ini = Ini::new();
            ini.set("query_wait_notify", 0)
                .set("max_prepared_statements", prepared)
                .set("max_client_conn", 1000)
                .set_ours("workers", workers);
            for played in modes_for(mode) {
                let dbname = database(&format!("{}{number}", played.word()));
                schema::clone(cluster, &dbname).await;
                for size in POOL_SIZES {
                    let settings = format!(
                        "dbname={dbname} pool_mode={} pool_size={size}",
                        played.word()
                    );
                    ini.database(
                        &entry(played, size),
                        format!("{} {settings}", cluster.address()),
                    );
                }
            }
            poolers.push(ini.start().await);
        }
        Stage {
            mode,
            direct_db: database("direct"),
            poolers,
        }
    }

    fn scene(&self, seed: u64) -> Scene {
        let mut rng = Rng::new(seed);
        Scene {
            pooler: rng.below(self.poolers.len()),
            pool_size: rng.between(*POOL_SIZES.start(), *POOL_SIZES.end()),
        }
    }

    /// Plays the group directly. Nothing if PostgreSQL itself does not play to the end, which is the generator's fault.
    async fn direct(&self, group: &[Conversation]) -> Option<Vec<Vec<Event>>> {
        let direct = play_all(group, Cluster::shared().port, &self.direct_db).await;
        let complete = direct
            .iter()
            .flatten()
            .all(|e| matches!(e, Event::Frame { .. }));
        complete.then_some(direct)
    }

    /// Plays the group through the pooler, in each mode; gives the first difference.
    async fn difference(
        &self,
        group: &[Conversation],
        scene: &Scene,
        direct: &[Vec<Event>],
    ) -> Option<Difference> {
        for mode in modes_for(self.mode) {
            let pooled = play_all(
                group,
                self.poolers[scene.pooler].port,
                &entry(mode, scene.pool_size),
            )
            .await;
            for (member, (direct, pooled)) in direct.iter().zip(&pooled).enumerate() {
                let compared = group[member].ending != Ending::Vanish;
                if let Some(text) = compared
                    .then(|| compare::first_difference(direct, pooled))
                    .flatten()
                {
                    return Some(Difference { member, mode, text });
                }
            }
        }
        None
    }

    /// Makes the failing group smaller, then reports it.
    async fn fail(
        &self,
        seed: u64,
        group: Vec<Conversation>,
        scene: Scene,
        difference: Difference,
    ) -> ! {
        println!("seed {seed} differs, shrinking: {}", difference.text);
        let check = async |group: &[Conversation]| {
            let direct = self.direct(group).await?;
            self.difference(group, &scene, &direct).await
        };
        let (group, difference) = shrink::shrink(group, difference, check).await;
        let others: String = group.iter().map(ToString::to_string).collect();
        panic!(
            "replies differ in {} mode, pool_size {}, pooler {}: conversation {}\n{}\nreplay the whole group with PGWEIR_SEED={seed} \
             PGWEIR_CONVERSATIONS={GROUP} and this test; smallest group that still fails:\n{others}",
            difference.mode.word(),
            scene.pool_size,
            scene.pooler,
            group[difference.member].seed,
            difference.text,
        );
    }

    /// When all have left, no pool has anything in use.
    async fn all_quiet(&self) {
        for pooler in &self.poolers {
            for mode in modes_for(self.mode) {
                for size in POOL_SIZES {
                    pooler.wait_pool_quiet(&entry(mode, size), "u_trust").await;
                }
            }
        }
    }
}

/// What differed, and for whom.
struct Difference {
    member: usize,
    mode: Mode,
    text: String,
}

fn modes_for(mode: Mode) -> impl Iterator<Item = Mode> {
    Mode::ALL.into_iter().filter(move |m| *m <= mode)
}

fn entry(mode: Mode, size: usize) -> String {
    format!("{}{size}", mode.word())
}

async fn play_all(group: &[Conversation], port: u16, database: &str) -> Vec<Vec<Event>> {
    let tasks: Vec<_> = group
        .iter()
        .map(|conversation| {
            let conversation = Arc::new(conversation.clone());
            let database = database.to_string();
            tokio::spawn(async move {
                let mut conn = Conn::tcp(port).await;
                let mut params = vec![("user", "u_trust"), ("database", database.as_str())];
                params.extend(conversation.startup.iter().map(|(k, v)| (*k, v.as_str())));
                conn.log_in_with(&params, None).await;
                player::play(&conversation, conn).await
            })
        })
        .collect();
    let mut recordings = Vec::new();
    for task in tasks {
        recordings.push(task.await.expect("a player does not panic"));
    }
    recordings
}
