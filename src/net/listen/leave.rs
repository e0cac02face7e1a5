//! Closing a listener without losing anybody who has connected already.
//!
//! A connection is established before it is accepted: the kernel answers the client, and the connection waits in the listener's
//! queue. Closing the listener resets what waits there. With `so_reuseport` the port has other listeners, and the kernel goes on
//! choosing this one, too, as long as it is open; so between the last look into the queue and the close there would always be
//! somebody. [`Listener::refuse_new`] closes that gap: it demands of packets for the listener itself that they have never been
//! routed (`IP_MINTTL` of 255, meant for BGP), which hardly anybody's have. So the kernel drops first packets (SYN), while who has
//! half connected gets through, since the rest of a handshake is not the listener's. (A packet filter that drops SYNs would be
//! plainer, but newer kernels don't let everybody attach one.) Who is new tries again after a second, and by then only the
//! other listeners are left to choose from.
//!
//! What remains: a client that needs longer for its handshake than the listener stays open after that, and one whose packets do
//! arrive with 255. Where even this matters, the kernel (5.14 or later) can hand such clients to the other listeners:
//! `net.ipv4.tcp_migrate_req = 1`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _};

use socket2::Socket;

use super::adopt::accept;
use super::{AcceptError, Accepted, Listener, Nature};
use crate::net::options::TcpOptions;

/// Demands that packets arrive with so many hops left, at least; 0 takes all.
#[cfg(target_os = "linux")]
fn set_hops_left(socket: &impl AsFd, is_ipv6: bool, least: libc::c_int) -> io::Result<()> {
    let (level, option) = match is_ipv6 {
        true => (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
        false => (libc::IPPROTO_IP, libc::IP_MINTTL),
    };
    let len = size_of_val(&least) as libc::socklen_t;
    // SAFETY: the descriptor is open as long as it is borrowed, and the pointer is to an integer of the given length, which lives
    // until the call has returned; the kernel keeps no pointer.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const least).cast(),
            len,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Elsewhere the listener goes on being chosen until it is closed.
#[cfg(not(target_os = "linux"))]
fn set_hops_left(_: &impl AsFd, _: bool, _: libc::c_int) -> io::Result<()> {
    Ok(())
}

/// The most that a packet can have.
const NEVER_ROUTED: libc::c_int = 255;

impl Listener {
    /// Lets no new client begin to connect; who has begun gets through. For TCP; a Unix socket stays as it is.
    ///
    /// # Errors
    /// The system can't.
    pub fn refuse_new(&mut self) -> io::Result<()> {
        if let Some(addr) = self.nature.local_addr {
            self.nature.refuses = true;
            set_hops_left(self.socket.get_ref(), addr.is_ipv6(), NEVER_ROUTED)?;
        }
        Ok(())
    }

    /// The next client that waits already, asked of the kernel itself; `None` if nobody does.
    pub fn accept_waiting(&self, options: &TcpOptions) -> Option<Result<Accepted, AcceptError>> {
        match accept(self.socket.get_ref()) {
            Ok((socket, peer)) => {
                let adopted = self.nature.adopt(socket, &peer, options);
                Some(adopted.map_err(AcceptError::Connection))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => Some(Err(AcceptError::from_accept(error))),
        }
    }
}

impl Nature {
    /// A client's socket is like its listener, which refuses the client's packets.
    pub(super) fn make_usable(&self, socket: &Socket, peer: SocketAddr) -> io::Result<()> {
        match self.refuses {
            true => set_hops_left(socket, peer.is_ipv6(), 0),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ListenOptions, bind_tcp};
    use super::*;
    use crate::net::dial::dial_addr;
    use crate::net::stream::PeerAddr;
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(10);

    fn options() -> ListenOptions {
        let mut options = ListenOptions {
            reuse_port: true,
            ..ListenOptions::default()
        };
        options.tcp.defer_accept = false;
        options
    }

    #[tokio::test]
    async fn who_waits_is_found_and_who_is_new_goes_elsewhere() {
        check("127.0.0.1").await;
        // A machine without IPv6 has nothing to check.
        if std::net::TcpListener::bind("[::1]:0").is_ok() {
            check("::1").await;
        }
    }

    async fn check(address: &str) {
        let options = options();
        let listener = bind_tcp(address, 0, &options).listeners.pop().unwrap();
        let mut listener = listener.attach().unwrap();
        let addr = listener.local_addr().unwrap();
        let mut early = dial_addr(addr, &options.tcp, SOON).await.unwrap();
        listener.refuse_new().unwrap();
        let short = Duration::from_millis(100);
        let refused = dial_addr(addr, &options.tcp, short).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);

        let accepted = listener.accept_waiting(&options.tcp).unwrap().unwrap();
        let (mut stream, peer) = (accepted.stream.attach().unwrap(), accepted.peer);
        assert_eq!(Some(peer), early.local_addr().unwrap().map(PeerAddr::Tcp));
        assert!(listener.accept_waiting(&options.tcp).is_none());
        early.write_all(b"hello").await.unwrap();
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"hello");

        // Whom one listener refuses, the other gets, after the kernel's second try.
        let other = bind_tcp(address, addr.port(), &options).listeners;
        let other = other.into_iter().next().unwrap().attach().unwrap();
        let late: Vec<_> = (0..20)
            .map(|_| {
                let tcp = options.tcp.clone();
                tokio::spawn(async move { dial_addr(addr, &tcp, SOON).await })
            })
            .collect();
        tokio::time::sleep(short).await;
        assert!(listener.accept_waiting(&options.tcp).is_none());
        drop(listener);
        for _ in &late {
            other.accept(&options.tcp).await.unwrap();
        }
        for dialled in late {
            dialled.await.unwrap().unwrap();
        }
    }

    /// Who has half connected, here because data is waited for, gets through, and its data is taken.
    #[tokio::test]
    async fn who_has_half_connected_gets_through() {
        let mut options = options();
        options.tcp.defer_accept = true;
        let listener = bind_tcp("127.0.0.1", 0, &options).listeners.pop().unwrap();
        let mut listener = listener.attach().unwrap();
        let addr = listener.local_addr().unwrap();
        let mut early = dial_addr(addr, &options.tcp, SOON).await.unwrap();
        listener.refuse_new().unwrap();
        assert!(listener.accept_waiting(&options.tcp).is_none());
        early.write_all(b"hello").await.unwrap();
        let accepted = tokio::time::timeout(SOON, listener.accept(&options.tcp)).await;
        let mut stream = accepted.unwrap().unwrap().stream.attach().unwrap();
        early.write_all(b"again").await.unwrap();
        let mut greeting = [0; 10];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"helloagain");
    }

    #[tokio::test]
    async fn on_a_unix_socket_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = crate::net::unix::SocketPath::new(dir.path().to_str().unwrap(), 1);
        let unix = crate::net::unix::UnixOptions {
            mode: 0o700,
            group: String::new(),
            backlog: 8,
        };
        let listener = super::super::bind_unix(dir.path().to_str().unwrap(), 1, &unix).unwrap();
        let mut listener = listener.attach().unwrap();
        listener.refuse_new().unwrap();
        let _early = crate::net::dial::dial_unix(&path, SOON).await.unwrap();
        let waiting = listener.accept_waiting(&TcpOptions::default());
        assert!(waiting.unwrap().unwrap().peer.is_unix());
        assert!(listener.accept_waiting(&TcpOptions::default()).is_none());
    }
}
