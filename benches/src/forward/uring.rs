//! The forwarder once more, over io_uring: what a pooler could save that asks the kernel for many things in one call. An experiment,
//! behind the feature `io-uring`.
//!
//! Each end of a pair has one chain under way at any time: a read, or the write of what was read to the other end and, linked to it,
//! the next read. Only reads are reported, so an exchange comes to two completions; all that a turn of the loop asks for goes to the
//! kernel with the call that waits for the next turn.

use std::io::{self, ErrorKind};
use std::mem::ManuallyDrop;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::Fd;
use io_uring::{IoUring, opcode};
use slab::Slab;

const ENTRIES: u32 = 4096;
/// What one read takes. Every end has a buffer of its own, which no pooler could afford.
const BUFFER_BYTES: usize = 16 * 1024;
/// The listener's token; those of the pairs are as in [`super::Pairs`].
const LISTENER: u64 = u64::MAX;
/// The token of a write, which is reported only if it fails: the read that is linked to it fails then, too, and says it all.
const WRITE: u64 = u64::MAX - 1;

/// Forwards what comes to the listener, until something fails.
pub(super) fn run(listener: &TcpListener, server: SocketAddr) -> io::Result<()> {
    let mut forwarder = Forwarder {
        ring: IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(ENTRIES)?,
        pairs: ManuallyDrop::new(Slab::new()),
        server,
    };
    forwarder.push(accept(listener))?;
    let mut completed = Vec::new();
    loop {
        match forwarder.ring.submit_and_wait(1) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        };
        let completions = forwarder.ring.completion();
        completed.extend(completions.map(|done| (done.user_data(), done.result())));
        for (token, result) in completed.drain(..) {
            match token {
                WRITE => {}
                LISTENER if result < 0 => {
                    return Err(io::Error::from_raw_os_error(-result));
                }
                LISTENER => {
                    // SAFETY: the kernel has just opened this descriptor for the accept, and told nobody else.
                    let client = unsafe { OwnedFd::from_raw_fd(result) };
                    forwarder.accepted(client.into())?;
                    forwarder.push(accept(listener))?;
                }
                token => forwarder.read(token as usize, result)?,
            }
        }
    }
}

fn accept(listener: &TcpListener) -> Entry {
    let listener = Fd(listener.as_raw_fd());
    opcode::Accept::new(listener, std::ptr::null_mut(), std::ptr::null_mut())
        .build()
        .user_data(LISTENER)
}

struct Forwarder {
    ring: IoUring,
    /// Never dropped as a whole: even when the ring is closed the kernel may still write to a buffer for a while. The process ends then.
    pairs: ManuallyDrop<Slab<Pair>>,
    server: SocketAddr,
}

/// The two ends, client first.
struct Pair {
    ends: [TcpStream; 2],
    /// What was read from each.
    buffers: [Box<[u8]>; 2],
    /// This end's chain has come to its end.
    ended: [bool; 2],
}

impl Forwarder {
    fn accepted(&mut self, client: TcpStream) -> io::Result<()> {
        // Blocking, but to this machine only.
        let server = TcpStream::connect(self.server)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let buffer = || vec![0; BUFFER_BYTES].into_boxed_slice();
        let key = self.pairs.insert(Pair {
            ends: [client, server],
            buffers: [buffer(), buffer()],
            ended: [false; 2],
        });
        for side in 0..2 {
            let read = self.pairs[key].read(key, side);
            self.push(read)?;
        }
        Ok(())
    }

    /// A read of this token has come back with so many bytes, zero at the end, or an error's number below zero.
    fn read(&mut self, token: usize, result: i32) -> io::Result<()> {
        let (key, side) = (token / 2, token % 2);
        let pair = &mut self.pairs[key];
        match u32::try_from(result) {
            Ok(count @ 1..) => {
                let (write, read) = (pair.write(side, count), pair.read(key, side));
                self.push(write)?;
                return self.push(read);
            }
            // It is an error only to be told that the connection has gone already.
            Ok(0) => drop(pair.ends[1 - side].shutdown(Shutdown::Write)),
            Err(_) => pair
                .ends
                .iter()
                .for_each(|end| drop(end.shutdown(Shutdown::Both))),
        }
        pair.ended[side] = true;
        if pair.ended == [true; 2] {
            self.pairs.remove(key);
        }
        Ok(())
    }

    fn push(&mut self, entry: Entry) -> io::Result<()> {
        loop {
            // SAFETY: an entry is an accept without an address, or a read or write of a pair's buffer. Buffers are boxes, which do not
            // move, of pairs that are removed only when both their chains have ended: nothing is under way then that uses them. Of
            // the two chains of a pair each uses one buffer, and the write and the read of a chain, being linked, do so one
            // after the other.
            let pushed = unsafe { self.ring.submission().push(&entry) };
            if pushed.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }
}

impl Pair {
    fn read(&mut self, key: usize, side: usize) -> Entry {
        let buffer = &mut self.buffers[side];
        let (start, len) = (buffer.as_mut_ptr(), buffer.len() as u32);
        opcode::Recv::new(Fd(self.ends[side].as_raw_fd()), start, len)
            .build()
            .user_data((key * 2 + side) as u64)
    }

    /// Writes so many bytes, all of them, that were read from this side to the other.
    fn write(&self, side: usize, count: u32) -> Entry {
        let to = Fd(self.ends[1 - side].as_raw_fd());
        opcode::Send::new(to, self.buffers[side].as_ptr(), count)
            .flags((nix::libc::MSG_WAITALL | nix::libc::MSG_NOSIGNAL) as _)
            .build()
            .flags(Flags::IO_LINK | Flags::SKIP_SUCCESS)
            .user_data(WRITE)
    }
}
