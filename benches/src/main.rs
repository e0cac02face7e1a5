//! The benchmark of pgweir: what it costs and how fast it is beside PgBouncer, a forwarder that reads nothing, and no pooler.
//!
//! `run` does it all; the other commands are the programs that it starts as processes of their own.

mod load;

use clap::Parser;

#[derive(Parser)]
#[command(about)]
enum Command {
    /// Put a load on a server or pooler and print what was seen, as JSON.
    #[command(subcommand)]
    Load(load::Load),
}

fn main() -> std::process::ExitCode {
    match Command::parse() {
        Command::Load(load) => load::main(load),
    }
}
