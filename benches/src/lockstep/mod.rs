//! `lockstep`: clients and servers of a pooler in one process, in step, so that the pooler does the same work in the same order
//! every time. For counting its instructions; nothing is measured here.
//!
//! All clients ask; as many queries as there are servers are awaited; then all of these are answered at once, and so on until each
//! client has its answer. That is a pooler under load in its purest form: when it looks, everybody has something for it.

mod client;
mod message;
mod server;

use std::io::{Error, Result, Write};
use std::process::ExitCode;
use std::time::Duration;

use client::Kind;
use server::Servers;

/// So long a pooler may take to send on what it was sent.
const SENT_ON_SECONDS_MAX: Duration = Duration::from_secs(60);

/// What to ask, and how often.
#[derive(clap::Args)]
pub struct Lockstep {
    /// Port of 127.0.0.1 where the pooler listens.
    #[arg(long)]
    pooler: u16,
    /// Port of 127.0.0.1 where the pooler expects its server.
    #[arg(long)]
    server: u16,
    /// Connections that the pooler opens to the server if that many clients wait.
    #[arg(long, default_value_t = 20)]
    pool_size: u32,
    #[arg(long, default_value_t = 1)]
    clients: u32,
    /// Queries of all clients together, a multiple of their number.
    #[arg(long)]
    queries: u32,
    #[arg(long)]
    kind: Kind,
}

/// Asks and answers it all; fails at the first thing that is not as it should be.
pub fn main(args: Lockstep) -> ExitCode {
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Lockstep) -> Result<()> {
    let servers = server::listen(args.server)?;
    let mut clients = Vec::new();
    for _ in 0..args.clients {
        clients.push(client::log_in(args.pooler)?);
    }
    if args.kind == Kind::Prepared {
        let parse = client::parse();
        for client in &mut clients {
            client.write_all(&parse)?;
            answer(&servers, 1, 1)?;
            client::await_ready(client)?;
        }
    }
    let query = client::query(args.kind);
    for _ in 0..args.queries / args.clients {
        for client in &mut clients {
            client.write_all(&query)?;
        }
        // The answers are short, or there is one client: all of them find room in the sockets while nobody reads.
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| clients.iter_mut().try_for_each(client::await_ready));
            answer(&servers, args.clients, args.pool_size)?;
            reader
                .join()
                .unwrap_or_else(|_| Err(Error::other("reader panicked")))
        })?;
    }
    Ok(())
}

/// Answers so many queries, as many at a time as there are servers.
fn answer(servers: &Servers, queries: u32, pool_size: u32) -> Result<()> {
    let mut left = queries;
    while left > 0 {
        let wave = left.min(pool_size);
        let mut asked = Vec::new();
        for _ in 0..wave {
            asked.push(
                servers
                    .recv_timeout(SENT_ON_SECONDS_MAX)
                    .map_err(|_| Error::other(format!("{left} queries never arrived")))?,
            );
        }
        for mut request in asked {
            request.answer()?;
        }
        left -= wave;
    }
    Ok(())
}
