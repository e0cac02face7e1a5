//! The benchmark of pgweir: what it costs and how fast it is beside PgBouncer, a forwarder that reads nothing, and no pooler.
//!
//! `run` does it all; the other commands are the programs that it starts as processes of their own.
//!
//! - [`stage`]: a throw-away PostgreSQL cluster and the poolers in front of it;
//! - [`proc`]: what a process costs, from /proc;
//! - [`workload`]: the table of workloads, and how each kind is put on a pooler; [`load`] and pgbench make the load;
//! - [`run`]: rounds, peer by peer in changing order;
//! - [`report`]: ratios, goals, the table, JSON and the picture.

mod failure;
mod forward;
mod interrupt;
mod load;
mod lockstep;
mod proc;
mod report;
mod run;
mod stage;
mod stats;
mod workload;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(about)]
enum Command {
    /// Compare pgweir with its peers.
    Run(run::Arguments),
    Report(report::Report),
    /// Put a load on a server or pooler and print what was seen, as JSON.
    #[command(subcommand)]
    Load(load::Load),
    Forward(forward::Forward),
    /// Be clients and servers of a pooler, in step (for counting instructions).
    Lockstep(lockstep::Lockstep),
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Run(arguments) => run::main(&arguments),
        Command::Report(report) => report::main(&report),
        Command::Load(load) => load::main(load),
        Command::Forward(forward) => forward::main(&forward),
        Command::Lockstep(args) => lockstep::main(args),
    }
}
