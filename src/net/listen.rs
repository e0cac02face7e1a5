//! Listening sockets: made once at start ([`bind_tcp`], [`bind_unix`], [`BoundListener::from_fd`]), then
//! attached to the runtime that accepts ([`BoundListener::attach`], [`Listener::accept`]), or watched by workers, each of which takes
//! whom it can ([`BoundListener::share`]).
//!
//! Binding is synchronous because it happens before any runtime exists (and before the process changes its
//! user or goes into the background). Nothing is logged here: texts come back to the caller. The
//! files around Unix sockets are in [`super::unix`]; how a listener closes without losing anybody is in `leave`.

mod adopt;
mod leave;
mod shared;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub use self::shared::{SharedListener, WatchedListener};
use super::options::TcpOptions;
use super::stream::{DetachedStream, PeerAddr};
use super::unix::{self, SocketFiles, UnixOptions};

/// How to create listening TCP sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Length of the kernel's queue (setting `listen_backlog`).
    pub backlog: u32,
    /// Let several processes share the port (`so_reuseport`).
    pub reuse_port: bool,
    /// Options of the sockets.
    pub tcp: TcpOptions,
}

impl Default for ListenOptions {
    fn default() -> Self {
        ListenOptions {
            backlog: 128,
            reuse_port: false,
            tcp: TcpOptions::default(),
        }
    }
}

/// Why an address could not be listened on. The texts are PgBouncer's.
#[derive(Debug)]
pub enum ListenError {
    /// Another process serves this Unix socket.
    UnixPortInUse {
        /// The port number in the socket's name.
        port: u16,
    },
    /// The system refused.
    Failed {
        /// The address, as in log lines: `127.0.0.1:6432`, `unix:/tmp/.s.PGSQL.6432`.
        on: String,
        /// The system call, without parentheses.
        call: &'static str,
        /// Its error.
        error: io::Error,
    },
}

impl ListenError {
    pub(super) fn failed(on: String, call: &'static str, error: io::Error) -> Self {
        ListenError::Failed { on, call, error }
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenError::UnixPortInUse { port } => write!(f, "unix port {port} is in use"),
            ListenError::Failed { on, call, error } => {
                write!(f, "cannot listen on {on}: {call}(): ")?;
                match error.raw_os_error() {
                    // The C library's text, without Rust's "(os error 98)".
                    Some(number) => f.write_str(Errno::from_raw(number).desc()),
                    None => write!(f, "{error}"),
                }
            }
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ListenError::UnixPortInUse { .. } => None,
            ListenError::Failed { error, .. } => Some(error),
        }
    }
}

/// What came of `listen_addr`. Failures only matter if `listeners` is empty.
#[derive(Debug, Default)]
pub struct Bound {
    /// The sockets that listen.
    pub listeners: Vec<BoundListener>,
    /// The addresses that did not work.
    pub warnings: Vec<ListenError>,
}

/// A listening socket that belongs to no runtime yet. Dropping it stops listening and removes its files.
#[derive(Debug)]
pub struct BoundListener {
    /// Before `socket`: as long as the files are there, somebody answers.
    files: Option<SocketFiles>,
    socket: Arc<Socket>,
    kind: Kind,
    name: String,
    is_passed: bool,
    /// The options that were set on it.
    options: Option<TcpOptions>,
}

/// What becomes of the connections of a listener.
#[derive(Clone, Debug)]
struct Nature {
    kind: Kind,
    /// The TCP address that it is bound to.
    local_addr: Option<SocketAddr>,
    /// The options that were set on it, and that its connections have from the beginning.
    options: Option<TcpOptions>,
    /// See [`Listener::refuse_new`].
    refuses: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp,
    Unix,
}

/// Listens on every address of the comma list `addresses`: names, IPv4 and IPv6 addresses, `*` for all.
/// An empty list gives no listener and no warning. Port 0 lets the system choose (for tests).
///
/// Names are looked up with the system's resolver, which may block.
pub fn bind_tcp(addresses: &str, port: u16, options: &ListenOptions) -> Bound {
    let mut bound = Bound::default();
    let mut seen = Vec::new();
    let names = addresses.split(',').map(str::trim);
    for name in names.filter(|name| !name.is_empty()) {
        match addresses_of(name, port) {
            Err(e) => bound.warnings.push(e),
            Ok(found) => {
                for addr in found {
                    // `localhost` beside `127.0.0.1` is not a conflict.
                    if seen.contains(&addr) {
                        continue;
                    }
                    seen.push(addr);
                    match bind_one(addr, options) {
                        Ok(listener) => bound.listeners.push(listener),
                        Err(e) => bound.warnings.push(e),
                    }
                }
            }
        }
    }
    bound
}

/// Listens on the Unix socket `<dir>/.s.PGSQL.<port>`, or on the abstract name `@…/.s.PGSQL.<port>` if
/// `dir` begins with `@`. A dead predecessor's socket and lock file are replaced.
///
/// # Errors
/// The socket is another process', or the system refuses; PgBouncer does not start then.
pub fn bind_unix(
    dir: &str,
    port: u16,
    options: &UnixOptions,
) -> Result<BoundListener, ListenError> {
    let (socket, path, files) = unix::bind(dir, port, options)?;
    Ok(BoundListener {
        socket: Arc::new(socket),
        kind: Kind::Unix,
        name: format!("unix:{path}"),
        files,
        is_passed: false,
        options: None,
    })
}

fn addresses_of(name: &str, port: u16) -> Result<Vec<SocketAddr>, ListenError> {
    if name == "*" {
        let all: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        return Ok(all.map(|ip| SocketAddr::new(ip, port)).into());
    }
    match (name, port).to_socket_addrs() {
        Ok(found) => Ok(found.collect()),
        Err(e) => Err(ListenError::failed(
            format!("{name}:{port}"),
            "getaddrinfo",
            e,
        )),
    }
}

fn bind_one(addr: SocketAddr, options: &ListenOptions) -> Result<BoundListener, ListenError> {
    let failed = |call| move |error| ListenError::failed(addr.to_string(), call, error);
    let socket =
        Socket::new(Domain::for_address(addr), Type::STREAM, None).map_err(failed("socket"))?;
    let prepare = || {
        socket.set_reuse_address(true)?;
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if addr.is_ipv6() {
            // Else `[::]` would take IPv4 as well, and conflict with `0.0.0.0`.
            socket.set_only_v6(true)?;
        }
        options.tcp.apply_to_listener(SockRef::from(&socket))
    };
    prepare().map_err(failed("setsockopt"))?;
    socket.bind(&addr.into()).map_err(failed("bind"))?;
    let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
    socket.listen(backlog).map_err(failed("listen"))?;
    let bound_to = socket.local_addr().ok().and_then(|a| a.as_socket());
    Ok(BoundListener {
        name: bound_to.unwrap_or(addr).to_string(),
        socket: Arc::new(socket),
        kind: Kind::Tcp,
        files: None,
        is_passed: false,
        options: Some(options.tcp.clone()),
    })
}

impl BoundListener {
    /// Adopts a listening socket that was inherited from the service manager (`LISTEN_FDS`).
    ///
    /// # Errors
    /// It is no listening stream socket of a known kind.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(fd);
        let unusable = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
            return unusable("inherited socket does not listen");
        }
        let addr = socket.local_addr()?;
        let (kind, name) = if let Some(addr) = addr.as_socket() {
            (Kind::Tcp, addr.to_string())
        } else if let Some(path) = addr.as_pathname() {
            (Kind::Unix, format!("unix:{}", path.display()))
        } else if let Some(name) = addr.as_abstract_namespace() {
            (Kind::Unix, format!("unix:@{}", name.escape_ascii()))
        } else {
            return unusable("inherited socket is neither TCP nor Unix");
        };
        Ok(BoundListener {
            socket: Arc::new(socket),
            kind,
            name,
            files: None,
            is_passed: true,
            options: None,
        })
    }

    /// The address as in log lines: `127.0.0.1:6432` or `unix:/tmp/.s.PGSQL.6432`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Is it a Unix socket?
    pub fn is_unix(&self) -> bool {
        self.kind == Kind::Unix
    }

    /// The line that PgBouncer logs: `listening on 127.0.0.1:6432`.
    pub fn announcement(&self) -> String {
        format!("listening on {}", self.name)
    }

    /// Makes the runtime in which this is called accept its connections.
    ///
    /// # Errors
    /// The reactor refuses it.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn attach(self) -> io::Result<Listener> {
        let nature = self.prepare()?;
        // SAFETY: the socket owns its descriptor, which is the same for all its life, and nobody takes it out of the `AsyncFd` or
        // closes it behind its back.
        let socket = unsafe { AsyncFd::register_with_interest(self.socket, Interest::READABLE)? };
        Ok(Listener {
            socket,
            nature,
            name: self.name,
            is_passed: self.is_passed,
            _files: self.files,
        })
    }

    /// Accepting must not block from here on.
    fn prepare(&self) -> io::Result<Nature> {
        self.socket.set_nonblocking(true)?;
        Ok(Nature {
            kind: self.kind,
            local_addr: self.socket.local_addr()?.as_socket(),
            options: self.options.clone(),
            refuses: false,
        })
    }
}

/// A listening socket of the current runtime. Dropping it stops listening and removes its files.
#[derive(Debug)]
pub struct Listener {
    /// Removes socket and lock file when dropped. Before `socket`: as long as they are there, somebody answers.
    _files: Option<SocketFiles>,
    socket: AsyncFd<Arc<Socket>>,
    nature: Nature,
    name: String,
    is_passed: bool,
}

/// A connection that has been accepted, and that no reactor knows yet.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: DetachedStream,
    /// The other end.
    pub peer: PeerAddr,
    /// Our end; `None` for a Unix socket.
    pub local: Option<SocketAddr>,
}

/// Why [`Listener::accept`] gave no connection.
#[derive(Debug)]
pub enum AcceptError {
    /// The process or the system lacks something (descriptors, memory). Trying again at once would spin:
    /// PgBouncer pauses its listeners for five seconds.
    Exhausted(io::Error),
    /// Only this connection is lost; go on.
    Connection(io::Error),
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AcceptError::Exhausted(e) => write!(f, "accept() failed: {e}"),
            AcceptError::Connection(e) => write!(f, "connection lost while accepting: {e}"),
        }
    }
}

impl std::error::Error for AcceptError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AcceptError::Exhausted(e) | AcceptError::Connection(e) => Some(e),
        }
    }
}

impl Listener {
    /// The next client, with `options` set on its socket if that is TCP. Dropping the future loses no connection.
    ///
    /// # Errors
    /// See [`AcceptError`]: only one of its kinds calls for a pause.
    pub async fn accept(&self, options: &TcpOptions) -> Result<Accepted, AcceptError> {
        let accepted = self
            .socket
            .async_io(Interest::READABLE, |socket| adopt::accept(socket))
            .await;
        let (socket, peer) = accepted.map_err(AcceptError::from_accept)?;
        let adopted = self.nature.adopt(socket, &peer, options);
        adopted.map_err(AcceptError::Connection)
    }

    /// The address as in log lines.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Is it a Unix socket?
    pub fn is_unix(&self) -> bool {
        self.nature.kind == Kind::Unix
    }

    /// Was it passed to us ([`BoundListener::from_fd`])? Then others have it too: what is set on it stays set, and it goes on
    /// listening when we close it.
    pub fn is_passed(&self) -> bool {
        self.is_passed
    }

    /// The TCP address that it listens on; `None` for a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.nature.local_addr
    }
}

impl AcceptError {
    /// Linux hands out the new connection's own network errors through `accept`, too.
    fn from_accept(error: io::Error) -> Self {
        let number = error.raw_os_error().unwrap_or_default();
        match Errno::from_raw(number) {
            Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM => {
                AcceptError::Exhausted(error)
            }
            Errno::ECONNABORTED
            | Errno::EINTR
            | Errno::EPERM
            | Errno::EPROTO
            | Errno::ENETDOWN
            | Errno::ENETUNREACH
            | Errno::EHOSTDOWN
            | Errno::EHOSTUNREACH
            | Errno::ENOPROTOOPT
            | Errno::EOPNOTSUPP
            | Errno::ETIMEDOUT => AcceptError::Connection(error),
            // Unknown: better too slow than a busy loop.
            _ => AcceptError::Exhausted(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::dial::{dial_addr, dial_unix};
    use crate::net::unix::SocketPath;
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(10);

    fn options() -> ListenOptions {
        ListenOptions::default()
    }

    #[tokio::test]
    async fn a_tcp_client_arrives_with_its_options_set() {
        let mut bound = bind_tcp("127.0.0.1", 0, &options());
        assert!(bound.warnings.is_empty());
        let listener = bound.listeners.pop().unwrap();
        let announced = listener.announcement();
        let listener = listener.attach().unwrap();
        let addr = listener.local_addr().unwrap();
        assert_eq!(announced, format!("listening on {addr}"));
        let tcp = TcpOptions {
            keepalive_count: 4,
            ..TcpOptions::default()
        };
        let mut client = dial_addr(addr, &tcp, SOON).await.unwrap();
        // With deferred accepting, the client must speak first.
        client.write_all(b"hello").await.unwrap();
        let accepted = listener.accept(&tcp).await.unwrap();
        assert_eq!(accepted.local, Some(addr));
        let (mut stream, peer) = (accepted.stream.attach().unwrap(), accepted.peer);
        assert_eq!(Some(peer), client.local_addr().unwrap().map(PeerAddr::Tcp));
        assert_eq!(stream.peer_addr().unwrap(), peer);
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"hello");
        assert!(!stream.is_unix() && !listener.is_unix());
    }

    #[tokio::test]
    async fn star_listens_on_both_families_and_doubles_are_dropped() {
        let bound = bind_tcp(" *, 0.0.0.0 ,, ", 0, &options());
        let names: Vec<_> = bound.listeners.iter().map(BoundListener::name).collect();
        assert!(names[0].starts_with("0.0.0.0:"), "{names:?}");
        // A machine without IPv6 gives a warning instead.
        assert_eq!(names.len() + bound.warnings.len(), 2);
        assert!(bind_tcp("", 0, &options()).listeners.is_empty());
    }

    #[tokio::test]
    async fn an_address_that_fails_only_warns() {
        let bound = bind_tcp("192.0.2.1,127.0.0.1,no-such-host.invalid", 0, &options());
        assert_eq!(bound.listeners.len(), 1);
        let texts: Vec<_> = bound.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts[0],
            "cannot listen on 192.0.2.1:0: bind(): Cannot assign requested address"
        );
        assert!(
            texts[1].starts_with("cannot listen on no-such-host.invalid:0: getaddrinfo(): "),
            "{texts:?}"
        );
    }

    #[tokio::test]
    async fn a_port_is_shared_only_with_reuse_port() {
        let shared = ListenOptions {
            reuse_port: true,
            ..options()
        };
        let first = bind_tcp("127.0.0.1", 0, &shared);
        let (_, port) = first.listeners[0].name().rsplit_once(':').unwrap();
        let port = port.parse().unwrap();
        assert_eq!(bind_tcp("127.0.0.1", port, &shared).listeners.len(), 1);
        let refused = bind_tcp("127.0.0.1", port, &options());
        assert_eq!(
            refused.warnings[0].to_string(),
            format!("cannot listen on 127.0.0.1:{port}: bind(): Address already in use")
        );
    }

    #[tokio::test]
    async fn a_unix_client_arrives_with_its_credentials() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().to_str().unwrap();
        let listener = bind_unix(dir, 7000, &UnixOptions::default()).unwrap();
        assert_eq!(
            listener.announcement(),
            format!("listening on unix:{dir}/.s.PGSQL.7000")
        );
        let listener = listener.attach().unwrap();
        let path = SocketPath::new(dir, 7000);
        let client = dial_unix(&path, SOON).await.unwrap();
        let accepted = listener.accept(&TcpOptions::default()).await.unwrap();
        let (stream, peer) = (accepted.stream.attach().unwrap(), accepted.peer);
        let expected = PeerAddr::Unix {
            pid: Some(std::process::id().cast_signed()),
            uid: nix::unistd::getuid().as_raw(),
        };
        assert_eq!(peer, expected);
        assert_eq!(client.peer_addr().unwrap(), expected);
        assert_eq!(stream.local_addr().unwrap(), None);
        assert!(stream.is_unix() && listener.is_unix());
        drop(listener);
        assert!(!path.for_kernel().exists());
    }

    #[tokio::test]
    async fn abstract_sockets_work_both_ways() {
        let dir = format!("@pgweir-listen-{}", std::process::id());
        let listener = bind_unix(&dir, 1, &UnixOptions::default()).unwrap();
        let listener = listener.attach().unwrap();
        let path = SocketPath::new(&dir, 1);
        let _client = dial_unix(&path, SOON).await.unwrap();
        assert!(listener.accept(&TcpOptions::default()).await.is_ok());
    }

    #[tokio::test]
    async fn inherited_sockets_are_adopted_if_they_listen() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = tcp.local_addr().unwrap();
        let adopted = BoundListener::from_fd(tcp.into()).unwrap();
        assert_eq!(adopted.name(), addr.to_string());
        assert_eq!(adopted.attach().unwrap().local_addr(), Some(addr));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let adopted = BoundListener::from_fd(unix.into()).unwrap();
        assert_eq!(adopted.name(), format!("unix:{}", path.display()));
        drop(adopted);
        assert!(path.exists(), "the service manager's file is not ours");
        let deaf = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(BoundListener::from_fd(deaf.into()).is_err());
    }

    #[test]
    fn only_a_shortage_calls_for_a_pause() {
        let classify = |errno: Errno| AcceptError::from_accept(errno.into());
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EBADF] {
            assert!(matches!(classify(errno), AcceptError::Exhausted(_)));
        }
        for errno in [Errno::ECONNABORTED, Errno::EPROTO, Errno::ENETDOWN] {
            assert!(matches!(classify(errno), AcceptError::Connection(_)));
        }
    }
}
