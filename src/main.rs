//! The program: reads the command line and does what it says. See [`pgweir`] for the map.

use std::path::Path;
use std::process::ExitCode;

use pgweir::cli::{self, Command, Run};
use pgweir::{app, config, tune};

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Err(stop) => stop.exit(),
        Ok(cli) => match cli.command {
            Command::Run(run) => app::run(run),
            Command::Container(run) => app::run(Run {
                file: config::container::file(Path::exists),
                ..run
            }),
            Command::Check { file } => check(&file),
            Command::Healthcheck(wanted) => app::healthcheck::run(&wanted),
            Command::Userlist(wanted) => app::userlist::run(&wanted),
            Command::Tune(machine) => tune(&machine),
        },
    }
}

/// Prints the report about a configuration; the exit status says whether it would be loaded.
fn check(file: &Path) -> ExitCode {
    let report = app::check(file, config::variables());
    print!("{report}");
    if report.has_errors() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Prints settings for PostgreSQL.
fn tune(machine: &tune::Machine) -> ExitCode {
    match tune::postgresql_conf(machine) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("pgweir tune: {error}");
            ExitCode::FAILURE
        }
    }
}
