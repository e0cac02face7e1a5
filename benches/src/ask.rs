//! `ask`: a given number of queries, in lockstep: all clients ask, then all answers are awaited, and so on.
//!
//! It goes with [`crate::answer`] when instructions are counted: the same bytes in the same order every time. It measures nothing
//! and fails at the first thing that is not as it should be.

use std::io::{Error, Read, Result, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use crate::{answer, message};

const QUERY: &[u8] = b"SELECT abalance FROM pgbench_accounts WHERE aid = 12345;\0";
const STATEMENT: &[u8] = b"SELECT abalance FROM pgbench_accounts WHERE aid = $1;\0";
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 262_144;

/// What to ask, and how often.
#[derive(clap::Args)]
pub struct Ask {
    /// Port of 127.0.0.1 to connect to.
    #[arg(long)]
    port: u16,
    #[arg(long, default_value_t = 1)]
    clients: u32,
    /// Queries of all clients together, a multiple of their number.
    #[arg(long)]
    queries: u32,
    #[arg(long)]
    kind: Kind,
}

/// The messages of one query; as libpq sends them.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Query
    Simple,
    /// Parse (unnamed), Bind, Describe, Execute, Sync
    Extended,
    /// Bind (of a statement named once), Describe, Execute, Sync
    Prepared,
    /// Query, answered with 1 MB of rows
    Large,
}

/// Asks it all.
pub fn main(args: Ask) -> ExitCode {
    match ask_all(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ask_all(args: &Ask) -> Result<()> {
    let mut scratch = vec![0; READ_BYTES];
    let mut clients = Vec::new();
    for _ in 0..args.clients {
        clients.push(connect(args, &mut scratch)?);
    }
    let batch = batch(args.kind);
    for _ in 0..args.queries / args.clients {
        for client in &mut clients {
            client.write_all(&batch)?;
        }
        for client in &mut clients {
            await_ready(client, &mut scratch)?;
        }
    }
    Ok(())
}

fn connect(args: &Ask, scratch: &mut [u8]) -> Result<TcpStream> {
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, args.port))?;
    client.set_nodelay(true)?;
    client.set_read_timeout(Some(ANSWER_TIME_MAX))?;
    let mut start = Vec::new();
    message::push(
        &mut start,
        0,
        &[&[0, 3, 0, 0], b"user\0weir\0database\0bench\0\0"],
    );
    // The first packet has no tag.
    client.write_all(&start[1..])?;
    await_ready(&mut client, scratch)?;
    if args.kind == Kind::Prepared {
        let mut parse = Vec::new();
        message::push(&mut parse, b'P', &[b"P_0\0", STATEMENT, &[0, 0]]);
        message::push(&mut parse, b'S', &[]);
        client.write_all(&parse)?;
        await_ready(&mut client, scratch)?;
    }
    Ok(client)
}

fn batch(kind: Kind) -> Vec<u8> {
    let mut out = Vec::new();
    match kind {
        Kind::Simple => message::push(&mut out, b'Q', &[QUERY]),
        Kind::Large => message::push(
            &mut out,
            b'Q',
            &[answer::LARGE_QUERY.as_bytes(), b" FROM t\0"],
        ),
        Kind::Extended => {
            message::push(&mut out, b'P', &[b"\0", STATEMENT, &[0, 0]]);
            run(&mut out, b"\0");
        }
        Kind::Prepared => run(&mut out, b"P_0\0"),
    }
    out
}

fn run(out: &mut Vec<u8>, statement: &[u8]) {
    const ONE_TEXT_VALUE: &[u8] = &[
        0, 0, 0, 1, 0, 0, 0, 5, b'1', b'2', b'3', b'4', b'5', 0, 1, 0, 0,
    ];
    message::push(out, b'B', &[b"\0", statement, ONE_TEXT_VALUE]);
    message::push(out, b'D', &[b"P\0"]);
    message::push(out, b'E', &[b"\0", &[0; 4]]);
    message::push(out, b'S', &[]);
}

/// Reads up to ReadyForQuery, which must be the last thing there.
fn await_ready(client: &mut TcpStream, scratch: &mut [u8]) -> Result<()> {
    let mut held = Vec::new();
    loop {
        let n = client.read(scratch)?;
        if n == 0 {
            return Err(Error::other("the connection was closed"));
        }
        held.extend_from_slice(&scratch[..n]);
        let mut at = 0;
        while let Some((tag, body, end)) = message::split(&held[at..]) {
            at += end;
            match tag {
                b'E' => return Err(Error::other(String::from_utf8_lossy(body).into_owned())),
                b'Z' if at == held.len() => return Ok(()),
                b'Z' => return Err(Error::other("more was answered than was asked")),
                _ => {}
            }
        }
        held.drain(..at);
    }
}
