//! `pgweir tune`: settings for a PostgreSQL server behind the pooler, from what the machine has. A pure function from numbers to the
//! text of a `postgresql.conf`.
//!
//! The rules are the usual ones, and each line is one of them: a start that is right in its order of magnitude, to be measured from.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use clap::Parser;

use crate::config::number::bytes_with_unit;

const KB: u64 = 1024;
const MB: u64 = 1024 * KB;
const GB: u64 = 1024 * MB;

/// With less, PostgreSQL's own defaults serve better than shares of it.
const RAM_MIN: u64 = 256 * MB;
/// More than any machine has.
const RAM_MAX: u64 = 64 * 1024 * GB;
/// What PostgreSQL keeps for superusers unless told otherwise.
const SUPERUSER_RESERVED: u32 = 3;
/// How many clients of an ordinary size of pool, and how many tools beside it, a server should let in.
const CONNECTIONS: u32 = 100;
/// PostgreSQL's own limit.
const CONNECTIONS_MAX: i64 = 262_143;
/// The least `work_mem` that PostgreSQL takes.
const WORK_MEM_MIN: u64 = 64 * KB;

/// The machine, and what is wanted of it.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(name = "pgweir tune", disable_version_flag = true)]
pub struct Machine {
    /// Memory for PostgreSQL: 4GB, 512MB.
    #[arg(long, value_name = "SIZE", value_parser = ram)]
    pub ram: u64,
    /// Cores.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub cpus: u32,
    /// Kind and number of the disks with the data: ssd:1, hdd:4.
    #[arg(long, value_name = "KIND:NUMBER", default_value = "ssd:1")]
    pub disks: Disks,
    /// max_connections.
    #[arg(long, value_name = "NUMBER", default_value_t = CONNECTIONS, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    pub connections: u32,
    /// Major version of PostgreSQL.
    #[arg(long, value_name = "NUMBER", default_value_t = 17, value_parser = clap::value_parser!(u32).range(14..=18))]
    pub version: u32,
}

/// The disks with the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disks {
    /// Not turning ones.
    pub solid: bool,
    /// How many there are.
    pub number: u32,
}

impl FromStr for Disks {
    type Err = String;

    fn from_str(text: &str) -> Result<Disks, String> {
        let wrong = || "ssd:NUMBER or hdd:NUMBER, of 1 to 1000 disks".to_owned();
        let (kind, number) = text.split_once(':').unwrap_or((text, "1"));
        let solid = match kind {
            "ssd" => true,
            "hdd" => false,
            _ => return Err(wrong()),
        };
        let number = number.parse().map_err(|_| wrong())?;
        match number {
            1..=1000 => Ok(Disks { solid, number }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Disks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.solid { "ssd" } else { "hdd" };
        write!(f, "{kind}:{}", self.number)
    }
}

fn ram(text: &str) -> Result<u64, String> {
    let bytes = bytes_with_unit(text).and_then(|bytes| u64::try_from(bytes).ok());
    match bytes {
        Some(bytes @ RAM_MIN..=RAM_MAX) => Ok(bytes),
        _ => Err("a size of 256MB to 65536GB: 4GB, 512MB".to_owned()),
    }
}

/// The pool of the size that is wanted does not fit into `max_connections`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// `max_connections`
    connections: u32,
    /// The size of one pool.
    pool: u32,
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} connections have no room for a pool of {} (cores × 2 + disks) and {SUPERUSER_RESERVED} superusers",
            self.connections, self.pool
        )
    }
}

impl std::error::Error for NoRoom {}

impl Machine {
    /// The size of a pool that keeps the machine busy: cores × 2 + disks.
    pub fn pool_size(&self) -> u32 {
        self.cpus * 2 + self.disks.number
    }

    fn work_mem(&self) -> u64 {
        (self.ram / 4 / (u64::from(self.connections) * 2)).max(WORK_MEM_MIN)
    }

    /// A vacuum before version 17 can't use more than 1 GB.
    fn maintenance_work_mem(&self) -> u64 {
        let most = if self.version < 17 { GB } else { 2 * GB };
        (self.ram / 16).min(most)
    }

    fn max_wal_size(&self) -> u64 {
        self.ram.clamp(GB, 16 * GB)
    }
}

/// The text of a `postgresql.conf`, or of a file that one includes.
///
/// # Errors
/// A pool has no room in `max_connections`.
pub fn postgresql_conf(machine: &Machine) -> Result<String, NoRoom> {
    let Machine {
        cpus,
        disks,
        connections,
        version,
        ..
    } = *machine;
    let pool = machine.pool_size();
    let free = connections.saturating_sub(SUPERUSER_RESERVED);
    if free < pool {
        return Err(NoRoom { connections, pool });
    }
    let mut out = String::new();
    let mut line = |text: fmt::Arguments<'_>| {
        // A String takes all.
        let _ = writeln!(out, "{text}");
    };
    let size = |bytes| Size(bytes);
    let ram = machine.ram;
    line(format_args!(
        "# pgweir tune --ram {} --cpus {cpus} --disks {disks} --connections {connections} --version {version}",
        size(ram)
    ));
    line(format_args!(
        "# A pool of cores × 2 + disks keeps this machine busy; {} of them fit into max_connections. In pgweir's configuration:",
        free / pool
    ));
    line(format_args!("#   default_pool_size = {pool}"));
    line(format_args!("#   max_db_connections = {free}"));
    line(format_args!("\n# Memory"));
    line(format_args!("max_connections = {connections}"));
    line(format_args!(
        "superuser_reserved_connections = {SUPERUSER_RESERVED}"
    ));
    line(format_args!("shared_buffers = {}", size(ram / 4)));
    line(format_args!("effective_cache_size = {}", size(ram / 4 * 3)));
    line(format_args!("work_mem = {}", size(machine.work_mem())));
    line(format_args!(
        "maintenance_work_mem = {}",
        size(machine.maintenance_work_mem())
    ));
    line(format_args!("\n# Write-ahead log"));
    line(format_args!("checkpoint_completion_target = 0.9"));
    line(format_args!("checkpoint_timeout = 15min"));
    line(format_args!(
        "min_wal_size = {}",
        size(machine.max_wal_size() / 4)
    ));
    line(format_args!(
        "max_wal_size = {}",
        size(machine.max_wal_size())
    ));
    line(format_args!("\n# Disks"));
    let (cost, concurrency) = if disks.solid {
        ("1.1", 200)
    } else {
        ("4.0", 2 * disks.number)
    };
    line(format_args!("random_page_cost = {cost}"));
    line(format_args!("effective_io_concurrency = {concurrency}"));
    line(format_args!("\n# Cores"));
    line(format_args!("max_worker_processes = {}", cpus.max(8)));
    line(format_args!("max_parallel_workers = {cpus}"));
    line(format_args!(
        "max_parallel_workers_per_gather = {}",
        (cpus / 2).min(4)
    ));
    line(format_args!(
        "max_parallel_maintenance_workers = {}",
        (cpus / 2).min(4)
    ));
    out.push_str(SAME_FOR_ALL);
    Ok(out)
}

/// What does not depend on the machine.
const SAME_FOR_ALL: &str = "
# Vacuum
autovacuum_max_workers = 4
autovacuum_vacuum_scale_factor = 0.05
autovacuum_analyze_scale_factor = 0.02

# Log
logging_collector = on
log_destination = 'csvlog'
log_min_duration_statement = 1s
log_checkpoints = on
log_lock_waits = on

# Statistics of statements; in each database that is to show them: CREATE EXTENSION pg_stat_statements
shared_preload_libraries = 'pg_stat_statements'
pg_stat_statements.track = top
";

/// A size in the largest unit that gives a whole number; what is left of a kB is dropped.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes % GB == 0 => write!(f, "{}GB", bytes / GB),
            bytes if bytes % MB == 0 => write!(f, "{}MB", bytes / MB),
            bytes => write!(f, "{}kB", bytes / KB),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn machine(words: &str) -> Result<Machine, String> {
        let words = std::iter::once("tune").chain(words.split_whitespace());
        Machine::try_parse_from(words).map_err(|error| error.to_string())
    }

    /// Asks for a setting's value.
    #[track_caller]
    fn check(words: &str, expected: &[(&str, &str)]) {
        let text = postgresql_conf(&machine(words).unwrap()).unwrap();
        for (name, value) in expected {
            let line = format!("{name} = {value}");
            assert!(
                text.lines().any(|found| found == line),
                "{words}: no {line} in\n{text}"
            );
        }
    }

    #[test]
    fn a_table_of_machines() {
        check(
            "--ram 4GB --cpus 2 --disks ssd:1",
            &[
                ("#   default_pool_size", "5"),
                ("#   max_db_connections", "97"),
                ("max_connections", "100"),
                ("shared_buffers", "1GB"),
                ("effective_cache_size", "3GB"),
                ("work_mem", "5242kB"),
                ("maintenance_work_mem", "256MB"),
                ("checkpoint_completion_target", "0.9"),
                ("min_wal_size", "1GB"),
                ("max_wal_size", "4GB"),
                ("random_page_cost", "1.1"),
                ("effective_io_concurrency", "200"),
                ("max_parallel_workers_per_gather", "1"),
                ("autovacuum_max_workers", "4"),
                ("autovacuum_vacuum_scale_factor", "0.05"),
                ("autovacuum_analyze_scale_factor", "0.02"),
                ("log_min_duration_statement", "1s"),
                ("shared_preload_libraries", "'pg_stat_statements'"),
            ],
        );
        check(
            "--ram 256MB --cpus 1 --disks hdd:2 --connections 20 --version 14",
            &[
                ("#   default_pool_size", "4"),
                ("shared_buffers", "64MB"),
                ("work_mem", "1638kB"),
                ("maintenance_work_mem", "16MB"),
                ("max_wal_size", "1GB"),
                ("random_page_cost", "4.0"),
                ("effective_io_concurrency", "4"),
                ("max_parallel_workers_per_gather", "0"),
            ],
        );
        check(
            "--ram 256GB --cpus 64 --disks ssd:8 --connections 500",
            &[
                ("#   default_pool_size", "136"),
                ("shared_buffers", "64GB"),
                ("work_mem", "67108kB"),
                ("maintenance_work_mem", "2GB"),
                ("max_wal_size", "16GB"),
                ("max_worker_processes", "64"),
                ("max_parallel_workers_per_gather", "4"),
            ],
        );
        check(
            "--ram 64GB --cpus 4 --version 16",
            &[("maintenance_work_mem", "1GB")],
        );
        check(
            "--ram 256MB --cpus 1 --connections 9000",
            &[("work_mem", "64kB")],
        );
    }

    #[test]
    fn a_pool_must_fit() {
        let small = |connections: u32| {
            let machine = machine(&format!("--ram 4GB --cpus 2 --connections {connections}"));
            postgresql_conf(&machine.unwrap()).map_err(|error| error.to_string())
        };
        assert!(small(8).unwrap().contains("; 1 of them fit"));
        assert_eq!(
            small(7).unwrap_err(),
            "7 connections have no room for a pool of 5 (cores × 2 + disks) and 3 superusers"
        );
    }

    #[test]
    fn mistakes() {
        for words in [
            "",
            "--ram 4GB",
            "--ram 4 --cpus 2",
            "--ram 4XB --cpus 2",
            "--ram 4GB --cpus 0",
            "--ram 4GB --cpus 2 --disks floppy:1",
            "--ram 4GB --cpus 2 --disks ssd:0",
            "--ram 4GB --cpus 2 --version 9",
            "--ram 4GB --cpus 2 more",
        ] {
            assert!(machine(words).is_err(), "{words}");
        }
        assert!(machine("--help").unwrap_err().contains("--ram <SIZE>"));
    }

    proptest! {
        /// The memory that is promised is there, whatever the machine: a quarter for buffers, a quarter for two sorts of everybody.
        #[test]
        fn memory_is_not_promised_twice(ram in RAM_MIN..=RAM_MAX, cpus in 1u32..=1024, number in 1u32..=1000, connections in 4u32..10_000) {
            let machine = Machine { ram, cpus, disks: Disks { solid: true, number }, connections, version: 17 };
            let sorts = machine.work_mem() * u64::from(connections) * 2;
            prop_assert!(sorts <= ram / 4 || machine.work_mem() == WORK_MEM_MIN);
            prop_assert!(machine.maintenance_work_mem() * 4 <= ram / 4);
            let fits = machine.pool_size() + SUPERUSER_RESERVED <= connections;
            prop_assert_eq!(postgresql_conf(&machine).is_ok(), fits);
        }
    }
}
