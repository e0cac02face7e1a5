//! The load generator: loads that pgbench can't make (open loop, storms of logins, thousands of idle clients, fairness), each one
//! command that prints one JSON object.

use clap::Subcommand;

/// One kind of load each.
#[derive(Subcommand)]
pub enum Load {}

/// Runs one load.
pub fn main(load: Load) -> std::process::ExitCode {
    match load {}
}
