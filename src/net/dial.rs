//! Opening connections: to an address, to a host name, to a Unix socket.
//!
//! No TLS (see [`super::tls`]), no login, no choice between hosts; what is known of names, and whose turn it is among several
//! addresses, is [`super::dns`]'s.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpSocket, UnixStream};
use tokio::time::sleep;

use super::dns::{Place, Resolver, Site};
use super::options::TcpOptions;
use super::stream::Stream;
use super::unix::SocketPath;

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A host name or an address literal (IPv6 without brackets), and a port.
    Tcp {
        /// Name, IPv4 or IPv6 address.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A Unix socket, in the file system or in the abstract name space.
    Unix {
        /// The socket's own path, not its directory: see [`SocketPath::new`].
        path: SocketPath,
    },
}

/// Connects to `target`, trying the addresses of a name one after the other, within `timeout` altogether.
///
/// # Errors
/// `TimedOut`; the name's look-up; otherwise the last address' error.
pub async fn dial(
    target: &Target,
    dns: &Resolver,
    options: &TcpOptions,
    timeout: Duration,
) -> io::Result<Stream> {
    let deadline = Instant::now() + timeout;
    let attempt = async {
        match target {
            Target::Tcp { host, port } => {
                let places = dns.places(host, *port).await.map_err(io::Error::other)?;
                let note = |site: &Site| dns.note_unreachable(site);
                let opened = dial_places(places, options, deadline, note).await;
                opened.map(|(stream, _)| stream)
            }
            Target::Unix { path } => connect_unix(path).await,
        }
    };
    within(timeout, attempt).await
}

/// Tries one address after the other until one takes us in, each for its share of the time, so that one that swallows packets does
/// not hide the others. Which one it was is part of the result; those before it are noted as `unreachable`.
///
/// # Errors
/// The last address' error; `NotFound` without any.
pub async fn dial_places(
    places: Vec<Place>,
    options: &TcpOptions,
    deadline: Instant,
    unreachable: impl Fn(&Site),
) -> io::Result<(Stream, Option<Arc<Site>>)> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    let mut left = u32::try_from(places.len()).unwrap_or(u32::MAX);
    for (addr, site) in places {
        let share = deadline.saturating_duration_since(Instant::now()) / left.max(1);
        left = left.saturating_sub(1);
        match dial_addr(addr, options, share.max(SHARE_MIN)).await {
            Ok(stream) => return Ok((stream, site)),
            Err(error) => last = error,
        }
        if let Some(site) = site {
            unreachable(&site);
        }
    }
    Err(last)
}

/// Connects to one address within `timeout`.
///
/// # Errors
/// `TimedOut`, or the system's.
pub async fn dial_addr(
    addr: SocketAddr,
    options: &TcpOptions,
    timeout: Duration,
) -> io::Result<Stream> {
    within(timeout, connect_tcp(addr, options)).await
}

/// Connects to a Unix socket within `timeout`.
///
/// # Errors
/// `TimedOut` (also when the listener's queue stays full), or the system's.
pub async fn dial_unix(path: &SocketPath, timeout: Duration) -> io::Result<Stream> {
    within(timeout, connect_unix(path)).await
}

/// What each address of a name gets of the time at least, as far as there is any left.
const SHARE_MIN: Duration = Duration::from_millis(500);

/// How soon to try again when a Unix listener's queue is full. Its kernel tells at once instead of waiting.
const UNIX_QUEUE_RETRY: Duration = Duration::from_millis(10);

async fn within<T>(
    timeout: Duration,
    attempt: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match tokio::time::timeout(timeout, attempt).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "connect timeout")),
    }
}

async fn connect_tcp(addr: SocketAddr, options: &TcpOptions) -> io::Result<Stream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // Before connecting: buffer sizes take part in the TCP handshake.
    options.apply(SockRef::from(&socket))?;
    let stream = TcpSocket::from_std_stream(socket.into())
        .connect(addr)
        .await?;
    Ok(Stream::from(stream))
}

async fn connect_unix(path: &SocketPath) -> io::Result<Stream> {
    loop {
        match UnixStream::connect(path.for_kernel()).await {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => sleep(UNIX_QUEUE_RETRY).await,
            Err(e) => return Err(e),
            Ok(stream) => return Ok(Stream::from(stream)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::stream::{PeerAddr, Readable};
    use tokio::net::TcpListener;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_name_and_a_literal_both_arrive() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        for host in ["127.0.0.1", "localhost"] {
            let target = Target::Tcp {
                host: host.into(),
                port: addr.port(),
            };
            let options = TcpOptions::default();
            let dialled = dial(&target, &Resolver::default(), &options, SOON).await;
            let mut near = dialled.unwrap();
            let (far, _) = listener.accept().await.unwrap();
            assert_eq!(near.peer_addr().unwrap(), PeerAddr::Tcp(addr));
            assert_eq!(near.local_addr().unwrap(), Some(far.peer_addr().unwrap()));
            drop(far);
            assert_eq!(near.readable().await.unwrap(), Readable::Eof);
        }
    }

    #[tokio::test]
    async fn a_dead_port_is_refused_and_the_next_address_is_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let live = listener.local_addr().unwrap();
        let dead = {
            let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        let options = TcpOptions::default();
        let refused = dial_addr(dead, &options, SOON).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let places = vec![(dead, None), (live, None)];
        let deadline = Instant::now() + SOON;
        let opened = dial_places(places, &options, deadline, |_| {}).await;
        let (stream, _) = opened.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), PeerAddr::Tcp(live));
    }

    #[tokio::test]
    async fn literals_are_kept_and_unknown_names_reported() {
        let dns = Resolver::default();
        let v6 = dns.places("::1", 5432).await.unwrap();
        assert_eq!(v6[0].0, "[::1]:5432".parse().unwrap());
        assert!(dns.places("no-such-host.invalid", 1).await.is_err());
        assert!(dns.places("", 1).await.is_err());
        assert!(dns.places("::nonsense", 1).await.is_err());
    }

    #[tokio::test]
    async fn a_full_unix_queue_is_waited_for_until_the_timeout() {
        let dir = tempfile::tempdir().unwrap();
        let path = SocketPath::new(dir.path().to_str().unwrap(), 5432);
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket
            .bind(&socket2::SockAddr::unix(path.for_kernel()).unwrap())
            .unwrap();
        socket.listen(0).unwrap();
        let first = dial_unix(&path, SOON).await.unwrap();
        assert!(matches!(
            first.peer_addr().unwrap(),
            PeerAddr::Unix { uid, .. } if uid == nix::unistd::getuid().as_raw()
        ));
        let timed_out = dial_unix(&path, Duration::from_millis(50)).await;
        assert_eq!(timed_out.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (accepted, connected) = tokio::join!(
            tokio::task::spawn_blocking(move || (socket.accept().unwrap(), socket)),
            dial_unix(&path, SOON)
        );
        connected.unwrap();
        drop(accepted);
        drop(first);
    }

    #[tokio::test]
    async fn a_silent_peer_ends_in_a_timeout() {
        let never = std::future::pending::<io::Result<()>>();
        let error = within(Duration::from_millis(1), never).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "connect timeout");
    }
}
