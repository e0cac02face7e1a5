//! The clients: logging in, what they ask, and the end of an answer.

use std::io::{Error, Read, Result, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use super::{message, server};

const QUERY: &[u8] = b"SELECT abalance FROM pgbench_accounts WHERE aid = 12345;\0";
const STATEMENT: &[u8] = b"SELECT abalance FROM pgbench_accounts WHERE aid = $1;\0";
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 65_536;

/// The messages of one query; as libpq sends them.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Query
    Simple,
    /// Parse (unnamed), Bind, Describe, Execute, Sync
    Extended,
    /// Bind (of a statement named once), Describe, Execute, Sync
    Prepared,
    /// Query, answered with 1 MB of rows
    Large,
}

/// Connects and logs in.
pub fn log_in(port: u16) -> Result<TcpStream> {
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
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
    await_ready(&mut client)?;
    Ok(client)
}

/// Names the statement of [`Kind::Prepared`].
pub fn parse() -> Vec<u8> {
    let mut out = Vec::new();
    message::push(&mut out, b'P', &[b"P_0\0", STATEMENT, &[0, 0]]);
    message::push(&mut out, b'S', &[]);
    out
}

/// One query.
pub fn query(kind: Kind) -> Vec<u8> {
    let mut out = Vec::new();
    match kind {
        Kind::Simple => message::push(&mut out, b'Q', &[QUERY]),
        Kind::Large => message::push(
            &mut out,
            b'Q',
            &[server::LARGE_QUERY.as_bytes(), b" FROM t\0"],
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
pub fn await_ready(client: &mut TcpStream) -> Result<()> {
    let mut scratch = [0; READ_BYTES];
    let mut held = Vec::new();
    loop {
        let n = client.read(&mut scratch)?;
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
