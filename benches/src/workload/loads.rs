//! What pgbench can't do: our own load generator ([`crate::load`]), as a process of its own, whose JSON is read.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::drive::{Target, Tools, add_cost};
use super::scraper::Scraper;
use super::{Sample, measure};
use crate::failure::{Doing, Failure, Result, failed};
use crate::interrupt;
use crate::proc::cpu::Used;
use crate::proc::sampler::{self, Sampler};
use crate::proc::{memory, now_us};
use crate::stage::cluster::{DATABASE, PASSWORD, USER};
use crate::stage::pooler::{Door, this_program};
use crate::stage::process::{Running, as_client};

const WARM_UP: Duration = Duration::from_millis(500);
/// What a load may take beyond its time: logging in, being slow.
const LATE_MAX: Duration = Duration::from_secs(120);
/// One row by its key, as pgbench -S asks for.
const QUERY: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = 4711";
const OPEN_CLIENTS: u32 = 64;
/// Running queries beside a storm: few enough that neither they nor the storm fill the machine by themselves.
const STEADY_PER_SECOND: f64 = 1500.0;
const STEADY_CLIENTS: u32 = 16;
const STORM_CLIENTS: u32 = 32;
/// Logins per second of the two storms.
const STORM_SCRAM: f64 = 800.0;
const STORM_TLS: f64 = 300.0;
/// Who keeps a server busy, past all poolers.
const BUSY_CLIENTS: u32 = 16;
const FAIR_CLIENTS: u32 = 200;
/// Idle clients of a pooler whose metrics are read, where the system lets us have so many.
const SCRAPED_CLIENTS: u32 = 10_000;

/// Queries at a rate that is a share of what PgBouncer can do at most (what pgweir can, without PgBouncer).
pub fn open(percent: u16, target: &Target, tools: &Tools<'_>) -> Result<Sample> {
    let Some(capacity) = tools.capacity.get() else {
        return failed("nobody's capacity was measured");
    };
    let rate = (capacity * f64::from(percent) / 100.0).to_string();
    let clients = OPEN_CLIENTS.to_string();
    let arguments = [
        "--rate",
        &rate,
        "--clients",
        &clients,
        "--threads",
        "1",
        "--query",
        QUERY,
    ];
    let (seen, used) = measured("open", &arguments, target, tools)?;
    let mut sample = latencies(&seen, "latency_us")?;
    let per_second = number(&seen, &["per_second"])?;
    sample.insert(measure::PER_SECOND.into(), per_second);
    if let Some(used) = used {
        add_cost(&mut sample, &used, per_second * used.seconds);
    }
    Ok(sample)
}

/// Queries per second of clients that ask again as soon as they are answered.
pub fn capacity(target: &Target, tools: &Tools<'_>) -> Result<f64> {
    let clients = OPEN_CLIENTS.to_string();
    let (seen, _) = measured(
        "closed",
        &["--clients", &clients, "--threads", "1", "--query", QUERY],
        target,
        tools,
    )?;
    number(&seen, &["per_second"])
}

/// Steady queries, first alone, then while clients log in, ask once and leave.
pub fn storm(target: &Target, tools: &Tools<'_>) -> Result<Sample> {
    let plain = Target {
        door: if target.door.tls() {
            Door::Scram
        } else {
            target.door
        },
        ..*target
    };
    let (rate, clients) = (STEADY_PER_SECOND.to_string(), STEADY_CLIENTS.to_string());
    let steady = ["--rate", &rate, "--clients", &clients, "--query", QUERY];
    let (quiet, _) = measured("open", &steady, &plain, tools)?;
    let logins = if target.door.tls() {
        STORM_TLS
    } else {
        STORM_SCRAM
    }
    .to_string();
    let clients = STORM_CLIENTS.to_string();
    // Longer than the queries that it is to disturb.
    let time = WARM_UP * 4 + tools.window;
    let storm = ["--rate", &logins, "--clients", &clients, "--query", QUERY];
    let storm = Generator::start("storm", &storm, Some(time), target, tools)?;
    let (disturbed, used) = measured("open", &steady, &plain, tools)?;
    let storm = storm.finish(time)?;
    let mut sample = latencies(&disturbed, "latency_us")?;
    let quiet = number(&quiet, &["latency_us", "p99"])?;
    let during = number(&disturbed, &["latency_us", "p99"])?;
    sample.insert(measure::QUIET_P99_US.into(), quiet);
    sample.insert(measure::STORM.into(), during / quiet.max(1.0));
    sample.insert(
        measure::STORM_LOGINS.into(),
        number(&storm, &["logins_per_second"])?,
    );
    if let Some(used) = used {
        let cores = (used.user_us + used.system_us) / 1e6 / used.seconds.max(1e-9);
        sample.insert(measure::CORES.into(), cores);
    }
    Ok(sample)
}

/// From connect() to the first row, one client after the other, while the server has nothing or much to do.
pub fn first_row(busy: bool, target: &Target, tools: &Tools<'_>) -> Result<Sample> {
    let others = if busy { Some(keep_busy(tools)?) } else { None };
    let repeat = format!("{:.0}", (tools.window.as_secs_f64() * 50.0).max(20.0));
    let arguments = ["--repeat", &repeat, "--pause-ms", "5", "--query", QUERY];
    let seen = Generator::start("first-row", &arguments, None, target, tools)?.finish(LATE_MAX)?;
    drop(others);
    latencies(&seen, "first_row_us")
}

/// Clients that keep the server itself busy, until they are dropped.
fn keep_busy(tools: &Tools<'_>) -> Result<Generator> {
    let port = tools.cluster.port;
    let server = Target {
        port,
        pid: None,
        metrics: None,
        pools: false,
        user: USER,
        door: Door::Trust,
    };
    let clients = BUSY_CLIENTS.to_string();
    let mut load = Generator::start(
        "closed",
        &["--clients", &clients, "--query", QUERY, "--announce"],
        Some(Duration::from_secs(3600)),
        &server,
        tools,
    )?;
    load.wait_for("connected")?;
    load.go()?;
    interrupt::sleep(WARM_UP)?;
    Ok(load)
}

/// More clients than servers, all alike: the longest wait of one of them over the median.
pub fn fair(target: &Target, tools: &Tools<'_>) -> Result<Sample> {
    let clients = FAIR_CLIENTS.to_string();
    let arguments = ["--clients", &clients, "--query", "SELECT pg_sleep(0.005)"];
    let (seen, _) = measured("fair", &arguments, target, tools)?;
    let mut sample = latencies(&seen, "latency_us")?;
    sample.insert(measure::PER_SECOND.into(), number(&seen, &["per_second"])?);
    sample.insert(
        measure::WAIT.into(),
        number(&seen, &["longest_over_median"])?,
    );
    Ok(sample)
}

/// Steady queries beside many clients that do nothing, while somebody reads the metrics, or nobody does.
pub fn scraped(target: &Target, tools: &Tools<'_>) -> Result<Sample> {
    let idle = tools.idle_clients.min(SCRAPED_CLIENTS).to_string();
    let idle = ["--clients", &idle, "--query", "SELECT 1"];
    let mut crowd = Generator::start("idle", &idle, None, target, tools)?;
    crowd.wait_for("connected")?;
    let scraper = target.metrics.map(Scraper::start);
    let (rate, clients) = (STEADY_PER_SECOND.to_string(), STEADY_CLIENTS.to_string());
    let steady = ["--rate", &rate, "--clients", &clients, "--query", QUERY];
    let (seen, used) = measured("open", &steady, target, tools)?;
    let scrapes = scraper.map(Scraper::finish).transpose()?;
    drop(crowd);
    let mut sample = latencies(&seen, "latency_us")?;
    let per_second = number(&seen, &["per_second"])?;
    sample.insert(measure::PER_SECOND.into(), per_second);
    if let Some(used) = used {
        add_cost(&mut sample, &used, per_second * used.seconds);
    }
    if let Some((scrapes, each_us)) = scrapes {
        sample.insert(measure::SCRAPES.into(), scrapes);
        sample.insert(measure::SCRAPE_US.into(), each_us);
    }
    Ok(sample)
}

/// What a pooler that was just started weighs with many clients that do nothing.
pub fn idle(target: &Target, tools: &Tools<'_>) -> Result<Sample> {
    let Some(pid) = target.pid else {
        return failed("only a pooler can be weighed");
    };
    // What the first client makes it allocate is not counted.
    let once = ["--repeat", "50", "--query", "SELECT 1"];
    Generator::start("first-row", &once, None, target, tools)?.finish(LATE_MAX)?;
    let empty = memory::read(pid)?;
    let clients = tools.idle_clients.to_string();
    let mut load = Generator::start(
        "idle",
        &["--clients", &clients, "--query", "SELECT 1"],
        None,
        target,
        tools,
    )?;
    load.wait_for("connected")?;
    let connected = memory::read(pid)?;
    load.go()?;
    load.wait_for("queried")?;
    let queried = memory::read(pid)?;
    load.finish(LATE_MAX)?;
    let each = |bytes: f64, before: f64| (bytes - before) / f64::from(tools.idle_clients);
    Ok(Sample::from([
        (
            measure::RESIDENT_BYTES.into(),
            each(connected.resident, empty.resident),
        ),
        (
            measure::PROPORTIONAL_BYTES.into(),
            each(connected.proportional, empty.proportional),
        ),
        (
            measure::QUERIED_BYTES.into(),
            each(queried.resident, empty.resident),
        ),
        (measure::MEGABYTES_EMPTY.into(), empty.resident / 1e6),
    ]))
}

/// A load of `window`, from whose counted part the pooler's use is taken too.
fn measured(
    kind: &str,
    arguments: &[&str],
    target: &Target,
    tools: &Tools<'_>,
) -> Result<(Value, Option<Used>)> {
    let arguments: Vec<_> = arguments.iter().copied().chain(["--announce"]).collect();
    let mut load = Generator::start(kind, &arguments, Some(tools.window), target, tools)?;
    load.wait_for("connected")?;
    let sampler = target.pid.map(Sampler::start);
    load.go()?;
    let from = now_us() + micros(WARM_UP);
    let seen = load.finish(WARM_UP + tools.window)?;
    let Some(readings) = sampler.map(Sampler::finish) else {
        return Ok((seen, None));
    };
    let (first, last) = sampler::within(&readings, from, from + micros(tools.window))?;
    Ok((seen, Some(Used::between(&first, &last))))
}

/// The generator at work.
struct Generator {
    running: Running,
}

impl Generator {
    fn start(
        kind: &str,
        arguments: &[&str],
        time: Option<Duration>,
        target: &Target,
        tools: &Tools<'_>,
    ) -> Result<Generator> {
        let mut command = as_client(&this_program()?, tools.folder.path());
        command.args([
            "load",
            kind,
            "--host",
            "127.0.0.1",
            "--port",
            &target.port.to_string(),
        ]);
        command.args([
            "--user",
            target.user,
            "--password",
            PASSWORD,
            "--database",
            DATABASE,
        ]);
        command.args(["--tls", if target.door.tls() { "require" } else { "off" }]);
        if let Some(time) = time {
            let warm_up = WARM_UP.as_secs_f64();
            command.args([
                "--seconds",
                &time.as_secs_f64().to_string(),
                "--warm-up",
                &warm_up.to_string(),
            ]);
        }
        command.args(arguments).stdin(Stdio::piped());
        let running = Running::start(&format!("load-{kind}"), command, tools.folder.path())?;
        Ok(Generator { running })
    }

    /// Waits until it has told of that event.
    fn wait_for(&mut self, event: &str) -> Result<()> {
        let words = format!("\"{event}\"");
        interrupt::wait_for(event, LATE_MAX, || {
            Ok(self
                .running
                .printed_so_far()?
                .contains(&words)
                .then_some(()))
        })
    }

    /// Lets it go on.
    fn go(&mut self) -> Result<()> {
        let Some(input) = self.running.stdin() else {
            return Ok(());
        };
        input
            .write_all(b"\n")
            .and_then(|()| input.flush())
            .doing("telling the load to begin")
    }

    /// Its end, `time` being what it was told to take, and the last object that it printed.
    fn finish(mut self, time: Duration) -> Result<Value> {
        self.running.close_stdin();
        let printed = self.running.finish(time + LATE_MAX)?;
        let last = printed.out.lines().next_back().unwrap_or_default();
        serde_json::from_str(last)
            .map_err(|error| Failure::Failed(format!("the load printed {last:?}: {error}")))
    }
}

fn latencies(seen: &Value, name: &str) -> Result<Sample> {
    let mut sample = Sample::new();
    for (measure, field) in [
        (measure::P50_US, "p50"),
        (measure::P99_US, "p99"),
        (measure::P999_US, "p999"),
    ] {
        sample.insert(measure.into(), number(seen, &[name, field])?);
    }
    Ok(sample)
}

fn number(seen: &Value, path: &[&str]) -> Result<f64> {
    let found = path
        .iter()
        .try_fold(seen, |value, name| value.get(name))
        .and_then(Value::as_f64);
    match found {
        Some(number) => Ok(number),
        None => failed(format!("the load did not print {}: {seen}", path.join("."))),
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_their_path() {
        let seen = serde_json::json!({"latency_us": {"p50": 1.5, "p99": 2, "p999": 3}});
        let sample = latencies(&seen, "latency_us").unwrap();
        assert_eq!(
            (sample[measure::P50_US], sample[measure::P999_US]),
            (1.5, 3.0)
        );
        assert!(number(&seen, &["latency_us", "p42"]).is_err());
    }
}
