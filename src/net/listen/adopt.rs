//! From a listener's queue to a connection of ours, with as few system calls as possible: a storm of logins pays them for every client.
//!
//! A connection gets its address with `accept4`, is non-blocking from the beginning, and on Linux has its listener's options; our end
//! has the listener's address unless that stands for all.

use std::io;
use std::net::SocketAddr;

use socket2::{SockAddr, SockRef, Socket};

use super::{Accepted, Kind, Nature};
use crate::net::options::TcpOptions;
use crate::net::socket::unix_peer;
use crate::net::stream::{DetachedStream, PeerAddr};

/// The next connection, non-blocking.
#[cfg(target_os = "linux")]
pub(super) fn accept(listener: &Socket) -> io::Result<(Socket, SockAddr)> {
    use std::os::fd::{AsRawFd as _, FromRawFd as _};
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let accept = |storage: *mut socket2::SockAddrStorage, len: *mut libc::socklen_t| {
        // SAFETY: the descriptor is open as long as `listener` is borrowed; the storage and its length are valid for writing, as
        // `try_init` promises.
        match unsafe { libc::accept4(listener.as_raw_fd(), storage.cast(), len, flags) } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: the kernel has just opened it for us, and nobody else knows it.
            fd => Ok(unsafe { Socket::from_raw_fd(fd) }),
        }
    };
    // SAFETY: after a success the kernel has written an address and its length into the storage.
    unsafe { SockAddr::try_init(accept) }
}

/// The next connection, non-blocking.
#[cfg(not(target_os = "linux"))]
pub(super) fn accept(listener: &Socket) -> io::Result<(Socket, SockAddr)> {
    let (socket, peer) = listener.accept()?;
    socket.set_nonblocking(true)?;
    Ok((socket, peer))
}

impl Nature {
    /// Makes a connection with `options` of what was accepted.
    pub(super) fn adopt(
        &self,
        socket: Socket,
        peer: &SockAddr,
        options: &TcpOptions,
    ) -> io::Result<Accepted> {
        if self.kind == Kind::Unix {
            let peer = unix_peer(&socket)?;
            let stream = DetachedStream::from(std::os::unix::net::UnixStream::from(socket));
            let local = None;
            return Ok(Accepted {
                stream,
                peer,
                local,
            });
        }
        let peer = match peer.as_socket() {
            Some(peer) => peer,
            None => return Err(io::ErrorKind::InvalidInput.into()),
        };
        if !self.hands_down(options) {
            options.apply(SockRef::from(&socket))?;
        }
        self.make_usable(&socket, peer)?;
        let local = self.our_end(&socket)?;
        Ok(Accepted {
            stream: DetachedStream::from(std::net::TcpStream::from(socket)),
            peer: PeerAddr::Tcp(peer),
            local: Some(local),
        })
    }

    /// Do connections have these options without our doing? Linux makes a connection's socket a copy of its listener's.
    fn hands_down(&self, options: &TcpOptions) -> bool {
        cfg!(target_os = "linux") && self.options.as_ref() == Some(options)
    }

    fn our_end(&self, socket: &Socket) -> io::Result<SocketAddr> {
        let known = self.local_addr.filter(|addr| !addr.ip().is_unspecified());
        let asked = || socket.local_addr().map(|addr| addr.as_socket());
        match known {
            Some(addr) => Ok(addr),
            None => asked()?.ok_or_else(|| io::ErrorKind::InvalidInput.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{ListenOptions, bind_tcp};
    use super::*;
    use crate::net::dial::dial_addr;

    /// Accepts one connection with `accepted`, by a listener made with `listening`; gives its socket.
    async fn accepted(address: &str, listening: &TcpOptions, options: &TcpOptions) -> Accepted {
        let listen = ListenOptions {
            tcp: listening.clone(),
            ..ListenOptions::default()
        };
        let listener = bind_tcp(address, 0, &listen).listeners.pop().unwrap();
        let listener = listener.attach().unwrap();
        let mut addr = listener.local_addr().unwrap();
        addr.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        let soon = Duration::from_secs(10);
        let mut client = dial_addr(addr, &TcpOptions::default(), soon).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let accepted = listener.accept(options).await.unwrap();
        assert_eq!(accepted.local, Some(addr));
        assert_eq!(
            client.local_addr().unwrap().map(PeerAddr::Tcp),
            Some(accepted.peer)
        );
        accepted
    }

    /// Whether the listener hands its options down or they are set: the connection has them.
    #[tokio::test]
    async fn connections_have_their_options() {
        let wanted = TcpOptions {
            keepalive_count: 4,
            keepalive_idle: Duration::from_secs(77),
            user_timeout: Duration::from_secs(55),
            socket_buffer_bytes: 64 * 1024,
            ..TcpOptions::default()
        };
        for listening in [wanted.clone(), TcpOptions::default()] {
            for address in ["127.0.0.1", "0.0.0.0"] {
                let accepted = accepted(address, &listening, &wanted).await;
                let fd = accepted.stream.plain_fd().unwrap();
                let socket = SockRef::from(&fd);
                assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
                assert!(socket.nonblocking().unwrap());
                assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
                assert_eq!(socket.tcp_keepalive_time().unwrap(), wanted.keepalive_idle);
                let timeout = socket.tcp_user_timeout().unwrap();
                assert_eq!(timeout, Some(wanted.user_timeout));
                assert!(socket.send_buffer_size().unwrap() >= wanted.socket_buffer_bytes);
                assert!(socket.recv_buffer_size().unwrap() >= wanted.socket_buffer_bytes);
            }
        }
    }
}
