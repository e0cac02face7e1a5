//! One kernel socket, TCP or Unix, that can leave one reactor and enter another: that of a tokio runtime, or of a worker.
//!
//! [`Movable`] is what sits at the bottom of every [`Stream`](super::stream::Stream), also below TLS. It
//! reads and writes with one system call each and keeps no bytes of its own, so nothing can be lost
//! when it moves. Higher layers use [`Stream`](super::stream::Stream), not this.

use std::fmt;
use std::io::{self, IoSlice};
use std::mem;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{MsgFlags, getsockopt, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::reactor::{self, LocalSocket};

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerAddr {
    /// A TCP peer.
    Tcp(SocketAddr),
    /// A process on this machine, as the kernel reports it (`SO_PEERCRED`).
    Unix {
        /// Its process id; absent where the system does not tell.
        pid: Option<i32>,
        /// Its effective user id when it connected.
        uid: u32,
    },
}

impl PeerAddr {
    /// Is this a connection over a Unix socket?
    pub fn is_unix(&self) -> bool {
        matches!(self, PeerAddr::Unix { .. })
    }
}

/// `127.0.0.1:5432`, `[::1]:5432`, `unix(1234)` or `unix`, as in PgBouncer's log lines.
impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerAddr::Tcp(addr) => write!(f, "{addr}"),
            PeerAddr::Unix { pid: Some(pid), .. } => write!(f, "unix({pid})"),
            PeerAddr::Unix { pid: None, .. } => f.write_str("unix"),
        }
    }
}

/// A non-blocking socket: watched by the reactor of the tokio runtime that it is in, or of the worker that it is on, or parked
/// between two.
#[derive(Debug)]
pub(super) enum Movable {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// On a worker.
    Local(LocalSocket),
    /// Belongs to no reactor: reading and writing fail. `None`: a move has failed half-way, and the socket is gone.
    Parked(Option<StdSocket>),
}

/// A socket that no reactor knows.
#[derive(Debug)]
pub(super) enum StdSocket {
    Tcp(std::net::TcpStream),
    Unix(StdUnixStream),
}

impl AsFd for StdSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            StdSocket::Tcp(socket) => socket.as_fd(),
            StdSocket::Unix(socket) => socket.as_fd(),
        }
    }
}

/// Runs `$body` on whichever live socket is inside; a parked one is an error of kind `NotConnected`.
macro_rules! on_live {
    ($self:expr, $socket:ident => $body:expr, local $local:ident => $of_local:expr, else $parked:expr) => {
        match $self {
            Movable::Local($local) => $of_local,
            Movable::Tcp($socket) => $body,
            Movable::Unix($socket) => $body,
            Movable::Parked(_) => $parked,
        }
    };
}

fn not_attached() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotConnected,
        "socket is attached to no runtime",
    )
}

impl Movable {
    /// Leaves the reactor that it is registered with. Must run where that reactor is still alive.
    pub(super) fn park(&mut self) -> io::Result<()> {
        let parked = match mem::replace(self, Movable::Parked(None)) {
            Movable::Tcp(socket) => Some(StdSocket::Tcp(socket.into_std()?)),
            Movable::Unix(socket) => Some(StdSocket::Unix(socket.into_std()?)),
            Movable::Local(socket) => Some(socket.detach()?),
            Movable::Parked(parked) => parked,
        };
        *self = Movable::Parked(parked);
        Ok(())
    }

    /// Enters the reactor of the thread or runtime that it is called in, which then reports anew whatever is already waiting in the
    /// kernel, so no readiness is missed.
    pub(super) fn unpark(&mut self) -> io::Result<()> {
        *self = match mem::replace(self, Movable::Parked(None)) {
            Movable::Parked(Some(socket)) if reactor::is_here() => {
                Movable::Local(LocalSocket::attach(socket)?)
            }
            Movable::Parked(Some(StdSocket::Tcp(socket))) => {
                Movable::Tcp(TcpStream::from_std(socket)?)
            }
            Movable::Parked(Some(StdSocket::Unix(socket))) => {
                Movable::Unix(UnixStream::from_std(socket)?)
            }
            Movable::Parked(None) => return Err(not_attached()),
            live => live,
        };
        Ok(())
    }

    /// Certain that nothing waits to be read, and that the peer has not gone, as far as the reactor has heard. False says nothing.
    #[inline]
    pub(super) fn is_silent(&self) -> bool {
        matches!(self, Movable::Local(socket) if socket.is_silent())
    }

    /// See [`LocalSocket::set_lazy`]; other sockets never are.
    pub(super) fn set_lazy(&self, nap_max: Option<Duration>) -> io::Result<()> {
        match self {
            Movable::Local(socket) => socket.set_lazy(nap_max),
            _ => Ok(()),
        }
    }

    pub(super) fn is_lazy(&self) -> bool {
        matches!(self, Movable::Local(socket) if socket.is_lazy())
    }

    /// Looks at the next byte without taking it: `None` at the end of the stream.
    ///
    /// Costs no system call as long as the reactor has seen nothing.
    pub(super) fn poll_peek(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<u8>>> {
        loop {
            ready!(on_live!(
                self,
                s => s.poll_read_ready(cx),
                local local => return local.poll_peek(cx),
                else Poll::Ready(Err(not_attached()))
            ))?;
            // `try_io` forgets the readiness when there is nothing after all, as happens after a read
            // that exactly emptied the kernel's buffer. Then the next round registers the waker.
            let peeked = on_live!(
                self,
                s => s.try_io(Interest::READABLE, || peek_now(s.as_fd())),
                local local => peek_now(local.socket()?.as_fd()),
                else Err(not_attached())
            );
            match peeked {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                done => return Poll::Ready(done),
            }
        }
    }

    /// Asks the kernel, not the reactor, whether a byte is waiting. The end of the stream is no byte.
    pub(super) fn byte_waiting(&self) -> io::Result<bool> {
        let peeked = on_live!(
            self,
            s => peek_now(s.as_fd()),
            local local => peek_now(local.socket()?.as_fd()),
            else Err(not_attached())
        );
        match peeked {
            Ok(byte) => Ok(byte.is_some()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The descriptor of a socket that belongs to no reactor.
    ///
    /// # Errors
    /// It belongs to one (`InvalidInput`), or is gone.
    pub(super) fn parked_fd(&self) -> io::Result<BorrowedFd<'_>> {
        match self {
            Movable::Parked(Some(socket)) => Ok(socket.as_fd()),
            Movable::Parked(None) => Err(not_attached()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    pub(super) fn peer_addr(&self) -> io::Result<PeerAddr> {
        match self {
            Movable::Tcp(socket) => Ok(PeerAddr::Tcp(socket.peer_addr()?)),
            Movable::Unix(socket) => unix_peer(socket),
            Movable::Local(local) => match local.socket()? {
                StdSocket::Tcp(socket) => Ok(PeerAddr::Tcp(socket.peer_addr()?)),
                StdSocket::Unix(socket) => unix_peer(socket),
            },
            Movable::Parked(_) => Err(not_attached()),
        }
    }

    /// The own address; `None` for Unix sockets.
    pub(super) fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            Movable::Tcp(socket) => socket.local_addr().map(Some),
            Movable::Unix(_) => Ok(None),
            Movable::Local(local) => match local.socket()? {
                StdSocket::Tcp(socket) => socket.local_addr().map(Some),
                StdSocket::Unix(_) => Ok(None),
            },
            Movable::Parked(_) => Err(not_attached()),
        }
    }

    pub(super) fn is_unix(&self) -> bool {
        match self {
            Movable::Tcp(_) => false,
            Movable::Unix(_) => true,
            Movable::Local(local) => matches!(local.socket(), Ok(StdSocket::Unix(_))),
            Movable::Parked(parked) => matches!(parked, Some(StdSocket::Unix(_))),
        }
    }
}

/// Who connected to, or accepted, this Unix socket.
pub(super) fn unix_peer(socket: &impl AsFd) -> io::Result<PeerAddr> {
    let credentials = getsockopt(socket, PeerCredentials)?;
    Ok(PeerAddr::Unix {
        pid: Some(credentials.pid()).filter(|pid| *pid > 0),
        uid: credentials.uid(),
    })
}

pub(super) fn peek_now(fd: BorrowedFd<'_>) -> io::Result<Option<u8>> {
    let mut byte = [0];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    let count = recv(fd.as_raw_fd(), &mut byte, flags)?;
    Ok((count > 0).then_some(byte[0]))
}

impl AsyncRead for Movable {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_live!(
            self.get_mut(),
            s => Pin::new(s).poll_read(cx, buf),
            local local => {
                let count = ready!(local.poll_read(cx, buf.initialize_unfilled()))?;
                buf.advance(count);
                Poll::Ready(Ok(()))
            },
            else Poll::Ready(Err(not_attached()))
        )
    }
}

impl AsyncWrite for Movable {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_live!(
            self.get_mut(),
            s => Pin::new(s).poll_write(cx, buf),
            local local => local.poll_write(cx, buf),
            else Poll::Ready(Err(not_attached()))
        )
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_live!(
            self.get_mut(),
            s => Pin::new(s).poll_write_vectored(cx, bufs),
            local local => local.poll_write_vectored(cx, bufs),
            else Poll::Ready(Err(not_attached()))
        )
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The kernel is the only buffer below us.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_live!(
            self.get_mut(),
            s => Pin::new(s).poll_shutdown(cx),
            local local => Poll::Ready(match local.socket()? {
                StdSocket::Tcp(socket) => socket.shutdown(Shutdown::Write),
                StdSocket::Unix(socket) => socket.shutdown(Shutdown::Write),
            }),
            else Poll::Ready(Err(not_attached()))
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_print_as_in_log_lines() {
        let v4 = PeerAddr::Tcp("127.0.0.1:6432".parse().unwrap());
        let v6 = PeerAddr::Tcp("[::1]:6432".parse().unwrap());
        assert_eq!(v4.to_string(), "127.0.0.1:6432");
        assert_eq!(v6.to_string(), "[::1]:6432");
        let known = PeerAddr::Unix {
            pid: Some(77),
            uid: 5,
        };
        assert_eq!(known.to_string(), "unix(77)");
        let unknown = PeerAddr::Unix { pid: None, uid: 5 };
        assert_eq!(unknown.to_string(), "unix");
    }

    #[tokio::test]
    async fn a_parked_socket_refuses_traffic_and_comes_back() {
        let (a, mut b) = UnixStream::pair().unwrap();
        let mut movable = Movable::Unix(a);
        movable.park().unwrap();
        movable.park().unwrap();
        assert!(movable.is_unix());
        assert_eq!(
            movable.byte_waiting().unwrap_err().kind(),
            io::ErrorKind::NotConnected
        );
        movable.unpark().unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut b, b"x")
            .await
            .unwrap();
        assert!(movable.byte_waiting().unwrap());
    }
}
