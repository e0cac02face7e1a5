//! The run: sets the stage, puts every chosen workload on its peers in rounds, and reports. [`rounds`] does one workload.

mod arguments;
mod peers;
mod rounds;

use std::cell::OnceCell;
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub use arguments::Arguments;

use crate::failure::{Failure, Result, failed};
use crate::interrupt;
use crate::proc::calls::Counter;
use crate::report::machine::{self, Machine};
use crate::report::results::Results;
use crate::report::{self, text};
use crate::stage::Folder;
use crate::stage::certificate::Certificate;
use crate::stage::cluster::Cluster;
use crate::stage::pooler::{self, Surroundings};
use crate::workload::Workload;
use crate::workload::drive::Tools;
use crate::workload::table::WORKLOADS;
use peers::Programs;

/// Room for 500 clients whom the forwarder gives a server each.
const SERVER_CONNECTIONS_MAX: u32 = 700;
/// pgbench's: 100,000 rows each.
const SCALE: u32 = 10;
/// Sockets of clients and servers, in one process.
const FILES_MAX: u64 = 20_000;

/// Exit codes: 1 failed, 2 wrong arguments, 130 interrupted.
pub fn main(arguments: &Arguments) -> ExitCode {
    if arguments.list {
        for workload in WORKLOADS {
            println!("{:<16} {}", workload.name, workload.about);
        }
        return ExitCode::SUCCESS;
    }
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Interrupted) => ExitCode::from(130),
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    interrupt::install()?;
    raise_files_limit();
    let chosen = arguments.chosen()?;
    let programs = Programs::find(arguments)?;
    let folder = Folder::create()?;
    let outcomes = on_stage(arguments, &chosen, &programs, &folder);
    if matches!(outcomes, Err(Failure::Failed(_))) {
        keep_logs(&folder);
    }
    let results = outcomes?;
    println!(
        "{}{}",
        report::machine_line(&results),
        text::goals(&results)
    );
    if arguments.write {
        report::write_docs(&results)
    } else {
        Ok(())
    }
}

fn on_stage(
    arguments: &Arguments,
    chosen: &[&'static Workload],
    programs: &Programs,
    folder: &Folder,
) -> Result<Results> {
    let certificate = Certificate::create(folder)?;
    let cluster = Cluster::create(folder, &certificate, SERVER_CONNECTIONS_MAX, SCALE)?;
    let users_file = folder.write_for_servers("users.txt", &cluster.users_file()?)?;
    let around = Surroundings {
        folder,
        cluster: &cluster,
        certificate: &certificate,
        users_file: &users_file,
        clients_max: arguments.idle_clients() + 1000,
    };
    let counter = if arguments.counts_calls() {
        Counter::find()
    } else {
        None
    };
    let tools = Tools {
        folder,
        cluster: &cluster,
        window: arguments.window(),
        counter,
        idle_clients: arguments.idle_clients(),
        capacity: OnceCell::new(),
    };
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let mut results = Results {
        machine: machine(programs, &tools)?,
        command: format!("pgweir-bench {command}"),
        workloads: Vec::new(),
    };
    for workload in chosen {
        let outcome = rounds::play(workload, arguments.rounds(), programs, &around, &tools)?;
        println!("{}", text::workload(&outcome));
        results.workloads.push(outcome);
        // A run that is ended halfway has not been in vain.
        report::write_json(&results, &arguments.json()?)?;
    }
    Ok(results)
}

fn machine(programs: &Programs, tools: &Tools<'_>) -> Result<Machine> {
    let path = tools.folder.path();
    let commit = machine::commit()
        .map(|commit| format!(" ({commit})"))
        .unwrap_or_default();
    Ok(Machine {
        postgresql: tools.cluster.version()?,
        pgweir: pooler::version(&programs.pgweir, path) + &commit,
        pgbouncer: programs
            .pgbouncer
            .as_ref()
            .map(|program| pooler::version(program, path)),
        counter: tools.counter.map(|counter| counter.name().to_owned()),
        ..Machine::look()
    })
}

/// Where the servers' logs are kept when the run failed.
fn keep_logs(folder: &Folder) {
    let kept = std::env::temp_dir().join(format!("pgweir-bench-logs.{}", std::process::id()));
    let copied = std::fs::create_dir_all(&kept).is_ok()
        && std::fs::read_dir(folder.logs())
            .into_iter()
            .flatten()
            .flatten()
            .all(|entry| std::fs::copy(entry.path(), kept.join(entry.file_name())).is_ok());
    if copied {
        eprintln!("the servers' logs are kept in {}", kept.display());
    }
}

/// Thousands of clients need as many files, in the poolers too, which inherit this.
fn raise_files_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < FILES_MAX
        && setrlimit(Resource::RLIMIT_NOFILE, FILES_MAX.min(hard), hard).is_err()
    {
        eprintln!("cannot raise the limit of open files (ulimit -n), which is {soft}");
    }
}
