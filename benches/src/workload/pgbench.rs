//! pgbench as the load. Its log of every transaction tells afterwards when all clients were at work; what the pooler used, how many
//! transactions passed and how long they took is taken from one window inside that time, so that connecting is not measured.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::drive::{Target, Tools, add_cost};
use super::{Sample, measure};
use crate::failure::{Doing, Result, failed};
use crate::interrupt;
use crate::proc::calls::Counter;
use crate::proc::cpu::Used;
use crate::proc::sampler::{self, Sampler};
use crate::stage::cluster::{DATABASE, PASSWORD};
use crate::stage::process::Running;
use crate::stats::percentile;

/// From the first transaction to the begin of the window, at least: server connections are opened, statements prepared. And every
/// client has been served once.
const WARM_UP: Duration = Duration::from_millis(500);
/// Before the last transaction's end: clients are leaving.
const LEAVING: Duration = Duration::from_millis(30);
/// What a server's first query costs in a fresh connection, roughly: where every client has its own, all pay it at once.
const FIRST_QUERY: Duration = Duration::from_millis(8);
/// What a run may take beyond its time: connecting, and being slow.
const LATE_MAX: Duration = Duration::from_secs(60);
const THREADS: u16 = 2;

/// What each transaction is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Script {
    /// pgbench -S: one row by its key.
    Select,
    TpcB,
    /// 1 MB in 10,000 rows.
    Rows,
    /// 1 MB in one row.
    Row,
}

/// How pgbench is started.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub script: Script,
    pub protocol: &'static str,
    pub clients: u16,
    /// A connection per transaction.
    pub connect_each: bool,
}

impl Script {
    /// Units (of the workload) in one transaction: the last two are counted in megabytes, and are one.
    const fn text(self) -> Option<&'static str> {
        match self {
            Script::Select | Script::TpcB => None,
            Script::Rows => Some("SELECT rpad('', 89, 'x') FROM generate_series(1, 10000);\n"),
            Script::Row => Some("SELECT repeat('x', 1000000);\n"),
        }
    }
}

/// One run.
pub fn run(shape: &Shape, target: &Target, tools: &Tools<'_>) -> Result<Sample> {
    let logs = tempfile::tempdir_in(tools.folder.path()).doing("folder for pgbench's log")?;
    let sampler = target.pid.map(Sampler::start);
    let time = warm_up(shape, target) + tools.window;
    start(shape, target, tools, logs.path(), time)?.finish(time + LATE_MAX)?;
    let readings = sampler.map(Sampler::finish);
    let log = read_logs(logs.path())?;
    let (Some(from), Some(end)) = (
        all_at_work_us(&log),
        log.iter().map(|done| done.ended_us).max(),
    ) else {
        return failed("pgbench logged no transaction");
    };
    let to = (from + micros(tools.window)).min(end.saturating_sub(micros(LEAVING)));
    let mut window = (from, to);
    let mut used = None;
    if let Some(readings) = readings {
        let (first, last) = sampler::within(&readings, window.0, window.1)?;
        window = (first.at_us, last.at_us);
        used = Some(Used::between(&first, &last));
    }
    summary(&log, window, used.as_ref())
}

/// System calls per transaction, from a run in which they are counted for a second.
pub fn calls(
    shape: &Shape,
    target: &Target,
    pid: u32,
    counter: Counter,
    tools: &Tools<'_>,
) -> Result<Option<f64>> {
    let logs = tempfile::tempdir_in(tools.folder.path()).doing("folder for pgbench's log")?;
    let time = warm_up(shape, target) + Duration::from_millis(2500);
    let mut running = start(shape, target, tools, logs.path(), time)?;
    // The log's first lines say that all clients are connected.
    interrupt::wait_for("pgbench to begin", LATE_MAX, || {
        running.printed_so_far()?;
        let sizes = std::fs::read_dir(logs.path())
            .doing("pgbench's log")?
            .flatten();
        Ok(sizes
            .filter_map(|entry| entry.metadata().ok())
            .any(|file| file.len() > 0)
            .then_some(()))
    })?;
    interrupt::sleep(warm_up(shape, target))?;
    let counted = counter.count(pid, tools.folder.path())?;
    running.finish(LATE_MAX)?;
    let Some(counted) = counted else {
        return Ok(None);
    };
    let log = read_logs(logs.path())?;
    let passed = log
        .iter()
        .filter(|done| done.within(counted.from_us, counted.to_us))
        .count();
    // The tool counted for a second of the slightly longer time it took.
    let share = 1e6 / (counted.to_us - counted.from_us).max(1) as f64;
    Ok((passed > 0).then(|| counted.calls / (passed as f64 * share)))
}

fn warm_up(shape: &Shape, target: &Target) -> Duration {
    WARM_UP
        + if target.pools {
            Duration::ZERO
        } else {
            FIRST_QUERY * shape.clients.into()
        }
}

/// When every client has been served once, and some time has passed since the first was.
fn all_at_work_us(log: &[Done]) -> Option<u64> {
    let mut firsts = BTreeMap::new();
    for done in log {
        let first = firsts.entry(done.client).or_insert(done.ended_us);
        *first = done.ended_us.min(*first);
    }
    let begin = log.iter().map(Done::begun_us).min()?;
    Some((begin + micros(WARM_UP)).max(*firsts.values().max()?))
}

fn start(
    shape: &Shape,
    target: &Target,
    tools: &Tools<'_>,
    logs: &Path,
    time: Duration,
) -> Result<Running> {
    let seconds = time.as_secs_f64().ceil();
    let mut pgbench = tools.cluster.client("pgbench");
    pgbench
        .args(["-n", "-l", "--log-prefix"])
        .arg(logs.join("log"));
    pgbench.args(["-T", &seconds.to_string(), "-M", shape.protocol]);
    pgbench.args([
        "-c",
        &shape.clients.to_string(),
        "-j",
        &THREADS.min(shape.clients).to_string(),
    ]);
    match (shape.script, shape.script.text()) {
        (_, Some(text)) => {
            let file = logs.join("script.sql");
            std::fs::write(&file, text).doing("pgbench's script")?;
            pgbench.arg("-f").arg(file);
        }
        (Script::TpcB, _) => drop(pgbench.args(["-b", "tpcb-like"])),
        _ => drop(pgbench.arg("-S")),
    }
    if shape.connect_each {
        pgbench.arg("-C");
    }
    pgbench.args([
        "-h",
        "127.0.0.1",
        "-p",
        &target.port.to_string(),
        "-U",
        target.user,
        DATABASE,
    ]);
    pgbench
        .env("PGPASSWORD", PASSWORD)
        .env("PGGSSENCMODE", "disable");
    pgbench.env(
        "PGSSLMODE",
        if target.door.tls() {
            "require"
        } else {
            "disable"
        },
    );
    Running::start("pgbench", pgbench, tools.folder.path())
}

/// One transaction of the log.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Done {
    client: u16,
    ended_us: u64,
    took_us: u32,
}

impl Done {
    fn begun_us(&self) -> u64 {
        self.ended_us.saturating_sub(self.took_us.into())
    }

    fn within(&self, from_us: u64, to_us: u64) -> bool {
        from_us < self.ended_us && self.ended_us <= to_us
    }
}

/// The logs of all of pgbench's threads, in no order.
fn read_logs(folder: &Path) -> Result<Vec<Done>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).doing("pgbench's log")?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("log.") {
            let text = std::fs::read_to_string(entry.path()).doing("pgbench's log")?;
            all.extend(text.lines().filter_map(parse));
        }
    }
    Ok(all)
}

/// `client transaction microseconds script seconds microseconds`; a transaction that failed has a word instead of its time.
fn parse(line: &str) -> Option<Done> {
    let mut fields = line.split_ascii_whitespace();
    let client = fields.next()?.parse().ok()?;
    let took_us = fields.nth(1)?.parse().ok()?;
    let seconds: u64 = fields.nth(1)?.parse().ok()?;
    let micros: u64 = fields.next()?.parse().ok()?;
    Some(Done {
        client,
        ended_us: seconds * 1_000_000 + micros,
        took_us,
    })
}

fn summary(log: &[Done], (from, to): (u64, u64), used: Option<&Used>) -> Result<Sample> {
    let mut took: Vec<u32> = log
        .iter()
        .filter(|done| done.within(from, to))
        .map(|done| done.took_us)
        .collect();
    took.sort_unstable();
    if took.is_empty() {
        return failed("no transaction ended in the measured time");
    }
    let count = took.len() as f64;
    let mut sample = Sample::from([(
        measure::PER_SECOND.into(),
        count * 1e6 / (to - from).max(1) as f64,
    )]);
    for (name, percent) in [
        (measure::P50_US, 50.0),
        (measure::P99_US, 99.0),
        (measure::P999_US, 99.9),
    ] {
        sample.extend(percentile(&took, percent).map(|value| (name.into(), value)));
    }
    if let (Some(p50), Some(p99)) = (sample.get(measure::P50_US), sample.get(measure::P99_US)) {
        sample.insert(measure::SPREAD.into(), p99 / p50.max(1.0));
    }
    if let Some(used) = used {
        add_cost(&mut sample, used, count);
    }
    Ok(sample)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log() {
        assert_eq!(
            parse("0 199 2241 0 1175850568 995598"),
            Some(Done {
                client: 0,
                ended_us: 1_175_850_568_995_598,
                took_us: 2241
            })
        );
        assert_eq!(parse("1 2 failed 0 1175850568 995598"), None);
        assert_eq!(parse("0 199 22"), None);
    }

    #[test]
    fn the_window_begins_when_the_last_client_has_been_served() {
        let done = |client, ended_us| Done {
            client,
            ended_us,
            took_us: 100,
        };
        let log = [
            done(0, 1_000_100),
            done(1, 1_700_000),
            done(0, 1_900_000),
            done(1, 1_800_000),
        ];
        assert_eq!(all_at_work_us(&log), Some(1_700_000));
        assert_eq!(all_at_work_us(&log[..1]), Some(1_500_000));
        assert_eq!(all_at_work_us(&[]), None);
    }

    #[test]
    fn only_what_ended_in_the_window_counts() {
        let log: Vec<_> = (1..=100)
            .map(|n| Done {
                client: 0,
                ended_us: n * 10_000,
                took_us: u32::try_from(n).unwrap(),
            })
            .collect();
        let used = Used {
            seconds: 0.5,
            user_us: 100.0,
            system_us: 400.0,
            switches: 50.0,
        };
        let sample = summary(&log, (0, 500_000), Some(&used)).unwrap();
        assert_eq!(sample[measure::PER_SECOND], 100.0);
        assert_eq!(sample[measure::CPU_US], 10.0);
        assert_eq!(sample[measure::USER_US], 2.0);
        assert_eq!(sample[measure::P50_US], 25.0);
        assert_eq!(sample[measure::SWITCHES], 1.0);
    }
}
