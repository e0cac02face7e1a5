//! The benchmark of pgweir: what it costs and how fast it is beside PgBouncer, a forwarder that reads nothing, and no pooler.
//!
//! `run` does it all; the other commands are the programs that it starts as processes of their own.

mod answer;
mod ask;
mod load;
mod message;

use clap::Parser;

#[derive(Parser)]
#[command(about)]
enum Command {
    /// Put a load on a server or pooler and print what was seen, as JSON.
    #[command(subcommand)]
    Load(load::Load),
    /// Be a server that answers every query with the same bytes (for counting instructions).
    Answer(answer::Answer),
    /// Ask a number of queries in lockstep (for counting instructions).
    Ask(ask::Ask),
}

fn main() -> std::process::ExitCode {
    match Command::parse() {
        Command::Load(load) => load::main(load),
        Command::Answer(args) => answer::main(args),
        Command::Ask(args) => ask::main(args),
    }
}
