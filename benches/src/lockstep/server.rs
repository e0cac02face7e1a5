//! The servers: they let everyone in and answer every query with the same bytes, whatever it asks.
//!
//! A thread per connection reads; what asks for rows or ends with Sync goes to the main thread as a [`Request`], which decides when it
//! is answered. Queries of the pooler's own (SET and the like) are answered at once. Nothing is checked, there are no errors, and
//! nothing is remembered.

use std::io::{Read, Result, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::message;

/// A query that begins so is answered with [`LARGE_ROWS`] rows, in all about 1 MB.
pub const LARGE_QUERY: &str = "SELECT large";
const LARGE_ROWS: usize = 8000;
const LARGE_ROW_BYTES: usize = 120;
const READ_BYTES: usize = 65_536;

/// What was asked, in order of arrival.
pub type Servers = Receiver<Request>;

/// A query that has arrived.
pub struct Request {
    to: TcpStream,
    answers: Vec<u8>,
}

impl Request {
    /// Sends its answer.
    pub fn answer(&mut self) -> Result<()> {
        self.to.write_all(&self.answers)
    }
}

/// Listens on a port of 127.0.0.1, for as long as the process runs.
pub fn listen(port: u16) -> Result<Servers> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    let (to, servers) = channel();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let to = to.clone();
            // A connection that breaks is missed by whoever awaits its query.
            std::thread::spawn(move || drop(serve(connection, &to)));
        }
    });
    Ok(servers)
}

fn serve(mut peer: TcpStream, to: &Sender<Request>) -> Result<()> {
    peer.set_nodelay(true)?;
    if !start(&mut peer)? {
        return Ok(());
    }
    let mut scratch = vec![0; READ_BYTES];
    let (mut held, mut answers) = (Vec::new(), Vec::new());
    loop {
        let n = peer.read(&mut scratch)?;
        if n == 0 {
            return Ok(());
        }
        held.extend_from_slice(&scratch[..n]);
        let mut at = 0;
        while let Some((tag, body, end)) = message::split(&held[at..]) {
            at += end;
            answer(tag, body, &mut answers);
            match tag {
                b'Q' if !body.starts_with(b"SELECT") => {
                    peer.write_all(&std::mem::take(&mut answers))?
                }
                b'Q' | b'S' => {
                    let request = Request {
                        to: peer.try_clone()?,
                        answers: std::mem::take(&mut answers),
                    };
                    if to.send(request).is_err() {
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
        held.drain(..at);
    }
}

/// Reads start-up packets until one asks for a session, which is granted; false for a cancel request.
fn start(peer: &mut TcpStream) -> Result<bool> {
    const CANCEL: u32 = 80_877_102;
    const ENCRYPTION: [u32; 2] = [80_877_103, 80_877_104];
    loop {
        let mut head = [0; 8];
        peer.read_exact(&mut head)?;
        let len = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let code = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        peer.read_exact(&mut vec![0; len.saturating_sub(8).min(10_000) as usize])?;
        if code == CANCEL {
            return Ok(false);
        }
        if ENCRYPTION.contains(&code) {
            peer.write_all(b"N")?;
            continue;
        }
        peer.write_all(&welcome())?;
        return Ok(true);
    }
}

fn welcome() -> Vec<u8> {
    let mut out = Vec::new();
    message::push(&mut out, b'R', &[&0u32.to_be_bytes()]);
    for (name, value) in [
        ("server_version", "15.0"),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("application_name", ""),
        ("DateStyle", "ISO, MDY"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "Etc/UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("is_superuser", "off"),
        ("session_authorization", "weir"),
    ] {
        message::push(
            &mut out,
            b'S',
            &[name.as_bytes(), b"\0", value.as_bytes(), b"\0"],
        );
    }
    message::push(&mut out, b'K', &[&[0, 0, 0, 1, 0, 0, 0, 1]]);
    message::push(&mut out, b'Z', &[b"I"]);
    out
}

fn answer(tag: u8, body: &[u8], out: &mut Vec<u8>) {
    match tag {
        b'Q' => query(body, out),
        b'P' => message::push(out, b'1', &[]),
        b'B' => message::push(out, b'2', &[]),
        b'C' => message::push(out, b'3', &[]),
        b'D' => {
            if body.first() == Some(&b'S') {
                message::push(out, b't', &[&[0, 0]]);
            }
            columns(out);
        }
        b'E' => {
            row(out, b"0");
            message::push(out, b'C', &[b"SELECT 1\0"]);
        }
        b'S' => message::push(out, b'Z', &[b"I"]),
        _ => {}
    }
}

fn query(text: &[u8], out: &mut Vec<u8>) {
    if text.starts_with(LARGE_QUERY.as_bytes()) {
        columns(out);
        for _ in 0..LARGE_ROWS {
            row(out, &[b'x'; LARGE_ROW_BYTES]);
        }
        message::push(out, b'C', &[b"SELECT 8000\0"]);
    } else if text.starts_with(b"SELECT") {
        columns(out);
        row(out, b"0");
        message::push(out, b'C', &[b"SELECT 1\0"]);
    } else {
        message::push(out, b'C', &[b"SET\0"]);
    }
    message::push(out, b'Z', &[b"I"]);
}

fn columns(out: &mut Vec<u8>) {
    const OF_INT4: [u8; 18] = [
        0, 0, 64, 6, 0, 3, 0, 0, 0, 23, 0, 4, 255, 255, 255, 255, 0, 0,
    ];
    message::push(out, b'T', &[&[0, 1], b"abalance\0", &OF_INT4]);
}

fn row(out: &mut Vec<u8>, value: &[u8]) {
    // The values are short.
    message::push(
        out,
        b'D',
        &[&[0, 1], &(value.len() as u32).to_be_bytes(), value],
    );
}
