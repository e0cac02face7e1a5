//! The arguments of `run`.

use std::path::PathBuf;
use std::time::Duration;

use super::{Result, failed};
use crate::stage::pooler::this_program;
use crate::workload::Workload;
use crate::workload::table::WORKLOADS;

const QUICK_ROUNDS: u32 = 2;
const ROUNDS: u32 = 5;
const QUICK_SECONDS: f64 = 1.0;
const SECONDS: f64 = 2.5;
const QUICK_IDLE_CLIENTS: u32 = 1000;
const IDLE_CLIENTS: u32 = 5000;

#[derive(clap::Args)]
pub struct Arguments {
    /// Fewer and shorter rounds, fewer idle clients, no count of system calls: some minutes instead of more than half an hour
    #[arg(long)]
    quick: bool,
    /// Only these workloads, separated by commas; a part of a name that ends in - takes all that begin so
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Names the workloads and ends
    #[arg(long)]
    pub list: bool,
    #[arg(long)]
    rounds: Option<u32>,
    /// How long each peer is measured in each round
    #[arg(long)]
    seconds: Option<f64>,
    /// How many idle clients are weighed (default 5000)
    #[arg(long)]
    idle_clients: Option<u32>,
    /// pgweir's program (default: $PGWEIR_BIN)
    #[arg(long)]
    pub pgweir: Option<PathBuf>,
    /// PgBouncer's program (default: $PGBOUNCER, or the one in PATH)
    #[arg(long)]
    pub pgbouncer: Option<PathBuf>,
    /// One more line for pgweir's ini file, such as 'workers = 1'
    #[arg(long)]
    pub set: Vec<String>,
    /// Another pooler: a shell command that execs it on 127.0.0.1:$BENCH_PORT, for the server at 127.0.0.1:$BENCH_SERVER_PORT, where
    /// user weir of database bench is trusted; $BENCH_FOLDER is a temporary folder
    #[arg(long, value_name = "NAME=COMMAND")]
    pub other: Vec<String>,
    /// Where to write all that was found (default: benchmark.json beside this program)
    #[arg(long)]
    json: Option<PathBuf>,
    /// Writes docs/benchmark.md, .svg and .json and the README's table
    #[arg(long)]
    pub write: bool,
    /// Does not count system calls
    #[arg(long)]
    no_calls: bool,
}

impl Arguments {
    pub fn rounds(&self) -> u32 {
        self.rounds
            .unwrap_or(if self.quick { QUICK_ROUNDS } else { ROUNDS })
            .max(1)
    }

    pub fn window(&self) -> Duration {
        let seconds = self
            .seconds
            .unwrap_or(if self.quick { QUICK_SECONDS } else { SECONDS });
        Duration::from_secs_f64(seconds.clamp(0.3, 600.0))
    }

    pub fn idle_clients(&self) -> u32 {
        self.idle_clients.unwrap_or(if self.quick {
            QUICK_IDLE_CLIENTS
        } else {
            IDLE_CLIENTS
        })
    }

    /// Whether system calls are counted, which takes runs of their own.
    pub fn counts_calls(&self) -> bool {
        !self.no_calls && !self.quick
    }

    /// The JSON file: beside the program, unless it was named.
    pub fn json(&self) -> Result<PathBuf> {
        match &self.json {
            Some(file) => Ok(file.clone()),
            None => Ok(this_program()?.with_file_name("benchmark.json")),
        }
    }

    /// The workloads to run, in the table's order.
    pub fn chosen(&self) -> Result<Vec<&'static Workload>> {
        let wanted = |workload: &Workload, pattern: &str| {
            workload.name == pattern
                || (pattern.ends_with('-') && workload.name.starts_with(pattern))
        };
        if let Some(unknown) = self
            .only
            .iter()
            .find(|pattern| !WORKLOADS.iter().any(|workload| wanted(workload, pattern)))
        {
            return failed(format!(
                "no workload is called {unknown}; --list names them"
            ));
        }
        let all = self.only.is_empty();
        Ok(WORKLOADS
            .iter()
            .filter(|workload| all || self.only.iter().any(|pattern| wanted(workload, pattern)))
            .collect())
    }
}
