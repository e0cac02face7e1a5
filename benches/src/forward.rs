//! The floor: a forwarder that reads nothing of the protocol. One thread, one epoll instance, one server connection per client, and
//! for each exchange two reads and two writes. It pools nothing; what it costs is what any pooler must pay at least.
//!
//! Sockets are registered once, edge-triggered. A read that does not fill the buffer has emptied the socket, so no second one follows.

#[cfg(feature = "io-uring")]
mod uring;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::process::ExitCode;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

const LISTENER: Token = Token(usize::MAX);
const BUFFER_BYTES: usize = 64 * 1024;
const EVENTS_MAX: usize = 1024;

/// Forward connections to 127.0.0.1:LISTEN on to 127.0.0.1:SERVER.
#[derive(clap::Args)]
pub struct Forward {
    listen: u16,
    server: u16,
    /// Over io_uring instead of epoll.
    #[cfg(feature = "io-uring")]
    #[arg(long)]
    io_uring: bool,
}

/// Runs until it is killed.
pub fn main(forward: &Forward) -> ExitCode {
    match run(forward) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forward: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(forward: &Forward) -> io::Result<()> {
    #[cfg(feature = "io-uring")]
    if forward.io_uring {
        let listener = std::net::TcpListener::bind(loopback(forward.listen))?;
        return uring::run(&listener, loopback(forward.server));
    }
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(loopback(forward.listen))?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(EVENTS_MAX);
    let mut pairs = Pairs {
        slab: Slab::new(),
        scratch: vec![0; BUFFER_BYTES],
        server: loopback(forward.server),
    };
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            match event.token() {
                LISTENER => pairs.accept_all(&listener, &poll)?,
                Token(token) => pairs.move_bytes(token, event.is_writable()),
            }
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// All connections; the client's token of pair `n` is `2n`, the server's `2n + 1`.
struct Pairs {
    slab: Slab<Pair>,
    scratch: Vec<u8>,
    server: SocketAddr,
}

/// The two ends, client first, and for each what its socket would not take yet.
struct Pair {
    ends: [TcpStream; 2],
    unsent: [Vec<u8>; 2],
    /// This end will send no more.
    ended: [bool; 2],
}

impl Pairs {
    fn accept_all(&mut self, listener: &TcpListener, poll: &Poll) -> io::Result<()> {
        loop {
            match listener.accept() {
                Ok((client, _)) => self.accept(client, poll)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn accept(&mut self, client: TcpStream, poll: &Poll) -> io::Result<()> {
        // Blocking, but to this machine only.
        let server = std::net::TcpStream::connect(self.server)?;
        server.set_nonblocking(true)?;
        let entry = self.slab.vacant_entry();
        let key = entry.key();
        let mut ends = [client, TcpStream::from_std(server)];
        for (side, end) in ends.iter_mut().enumerate() {
            end.set_nodelay(true)?;
            poll.registry().register(
                end,
                Token(key * 2 + side),
                Interest::READABLE | Interest::WRITABLE,
            )?;
        }
        entry.insert(Pair {
            ends,
            unsent: Default::default(),
            ended: [false; 2],
        });
        Ok(())
    }

    fn move_bytes(&mut self, token: usize, writable: bool) {
        let (key, side) = (token / 2, token % 2);
        // The other end's failure may have removed the pair while this event was on its way.
        let Some(pair) = self.slab.get_mut(key) else {
            return;
        };
        let result = pair.serve(side, writable, &mut self.scratch);
        if result.is_err() || pair.ended == [true; 2] {
            self.slab.remove(key);
        }
    }
}

impl Pair {
    fn serve(&mut self, side: usize, writable: bool, scratch: &mut [u8]) -> io::Result<()> {
        let other = 1 - side;
        if writable && !self.unsent[side].is_empty() {
            self.flush(side)?;
            // What had to wait for this end can be read now.
            if self.unsent[side].is_empty() {
                self.pump(other, scratch)?;
            }
        }
        self.pump(side, scratch)
    }

    /// Reads from one end what is there and writes it to the other, as long as that takes it.
    fn pump(&mut self, from: usize, scratch: &mut [u8]) -> io::Result<()> {
        let to = 1 - from;
        while self.unsent[to].is_empty() && !self.ended[from] {
            let read = match self.ends[from].read(scratch) {
                Ok(0) => {
                    self.ended[from] = true;
                    return self.ends[to].shutdown(Shutdown::Write);
                }
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            self.unsent[to] = self.write(to, &scratch[..read])?;
            if read < scratch.len() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn flush(&mut self, to: usize) -> io::Result<()> {
        let unsent = std::mem::take(&mut self.unsent[to]);
        self.unsent[to] = self.write(to, &unsent)?;
        Ok(())
    }

    /// Writes and returns the rest that the socket would not take; in the ordinary case that is empty and costs nothing.
    fn write(&mut self, to: usize, mut bytes: &[u8]) -> io::Result<Vec<u8>> {
        while !bytes.is_empty() {
            match self.ends[to].write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(bytes.to_vec())
    }
}
