//! The load generator: loads that pgbench can't make (open loop, storms of logins, thousands of idle clients, fairness), each one
//! command that prints one JSON object on standard output.
//!
//! It shares the machine with what it measures, so it is cheap: one thread per `--threads`, each with the clients it was given;
//! requests are built once; in the steady state a query allocates nothing and reads the clock once.
//!
//! | file | what it is |
//! |---|---|
//! | [`closed`], [`open`], [`storm`], [`first_row`], [`idle`], [`fair`] | one kind of load each |
//! | [`options`] | what the kinds' command lines have in common |
//! | [`request`], [`reply`] | messages to and from a server, pure |
//! | [`connection`], [`tls`], [`target`] | one client: connect, TLS, log in, ask |
//! | [`crew`] | the threads, the logins before a load, the moment at which all begin |
//! | [`cycle`], [`arrivals`], [`schedule`], [`ticker`] | when the next query begins: at the last one's end, or when it is due |
//! | [`tally`], [`outcome`] | what was seen, and its JSON |
//!
//! Exit status: 0, or 1 with a message on standard error. When some queries or logins failed, the JSON is printed (it says how many
//! and what the first error was), and the status is 1.

mod arrivals;
mod closed;
mod connection;
mod crew;
mod cycle;
mod error;
mod fair;
mod first_row;
mod idle;
mod open;
mod options;
mod outcome;
mod reply;
mod request;
mod schedule;
mod storm;
mod tally;
mod target;
mod ticker;
mod tls;

use std::process::ExitCode;

use clap::Subcommand;

/// One kind of load each.
#[derive(Subcommand)]
pub enum Load {
    /// Clients that each ask again as soon as they are answered.
    Closed(closed::Options),
    /// Queries that arrive at a constant rate, whether or not earlier ones are answered.
    Open(open::Options),
    /// Logins, each followed by one query and the end.
    Storm(storm::Options),
    /// Time from connect() to the first row, one client after the other.
    FirstRow(first_row::Options),
    /// Many clients that do nothing, and one query of each when told to by a line on standard input.
    Idle(idle::Options),
    /// As closed, for more clients than the pool has servers: how evenly they are served.
    Fair(fair::Options),
}

/// Runs one load.
pub fn main(load: Load) -> ExitCode {
    let done = match load {
        Load::Closed(options) => closed::run(&options),
        Load::Open(options) => open::run(&options),
        Load::Storm(options) => storm::run(&options),
        Load::FirstRow(options) => first_row::run(&options),
        Load::Idle(options) => idle::run(&options),
        Load::Fair(options) => fair::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pgweir-bench load: {error}");
            ExitCode::FAILURE
        }
    }
}
