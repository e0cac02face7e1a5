//! The TCP options that the settings file can choose, and how they reach a socket.
//!
//! Plain data and `setsockopt` calls. Nothing here waits, and nothing here knows what a setting is
//! called: the caller translates. Unix sockets have none of these options.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// Options of TCP sockets: listeners, accepted connections and outgoing ones alike.
///
/// A zero number or duration leaves the operating system's default alone, as in PgBouncer's
/// `tcp_*` settings. `TCP_NODELAY` is always on and therefore not an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// `SO_KEEPALIVE` (setting `tcp_keepalive`).
    pub keepalive: bool,
    /// Lost probes before the connection counts as dead (`tcp_keepcnt`).
    pub keepalive_count: u32,
    /// Silence before the first probe (`tcp_keepidle`, whole seconds).
    pub keepalive_idle: Duration,
    /// Time between probes (`tcp_keepintvl`, whole seconds).
    pub keepalive_interval: Duration,
    /// `TCP_USER_TIMEOUT`: how long sent data may stay unacknowledged (`tcp_user_timeout`, milliseconds).
    pub user_timeout: Duration,
    /// `SO_SNDBUF` and `SO_RCVBUF` in bytes (`tcp_socket_buffer`).
    pub socket_buffer_bytes: usize,
    /// `TCP_DEFER_ACCEPT` on listeners (`tcp_defer_accept`): wake only when the client has spoken. Linux only.
    pub defer_accept: bool,
}

impl Default for TcpOptions {
    fn default() -> Self {
        TcpOptions {
            keepalive: true,
            keepalive_count: 0,
            keepalive_idle: Duration::ZERO,
            keepalive_interval: Duration::ZERO,
            user_timeout: Duration::ZERO,
            socket_buffer_bytes: 0,
            defer_accept: cfg!(target_os = "linux"),
        }
    }
}

impl TcpOptions {
    /// Sets everything that concerns a connection, accepted or about to connect.
    ///
    /// # Errors
    /// The first `setsockopt` that the system refuses (for example a `tcp_keepcnt` out of its range).
    pub fn apply(&self, socket: SockRef<'_>) -> io::Result<()> {
        socket.set_tcp_nodelay(true)?;
        if self.keepalive {
            self.apply_keepalive(&socket)?;
        }
        #[cfg(target_os = "linux")]
        if !self.user_timeout.is_zero() {
            socket.set_tcp_user_timeout(Some(self.user_timeout))?;
        }
        if self.socket_buffer_bytes > 0 {
            socket.set_send_buffer_size(self.socket_buffer_bytes)?;
            socket.set_recv_buffer_size(self.socket_buffer_bytes)?;
        }
        Ok(())
    }

    /// Sets everything that concerns a TCP listener.
    ///
    /// # Errors
    /// As [`TcpOptions::apply`].
    pub fn apply_to_listener(&self, socket: SockRef<'_>) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if self.defer_accept {
            nix::sys::socket::setsockopt(&*socket, DeferAccept, &DEFER_ACCEPT_SECONDS)?;
        }
        // Set here as well as on each accepted socket: buffer sizes must be known before the
        // handshake to have an influence on the TCP window.
        self.apply(socket)
    }

    fn apply_keepalive(&self, socket: &SockRef<'_>) -> io::Result<()> {
        let mut keepalive = TcpKeepalive::new();
        if !self.keepalive_idle.is_zero() {
            keepalive = keepalive.with_time(self.keepalive_idle);
        }
        if !self.keepalive_interval.is_zero() {
            keepalive = keepalive.with_interval(self.keepalive_interval);
        }
        if self.keepalive_count > 0 {
            keepalive = keepalive.with_retries(self.keepalive_count);
        }
        socket.set_tcp_keepalive(&keepalive)
    }
}

/// The value that PgBouncer gives `TCP_DEFER_ACCEPT`: a client that stays silent longer is accepted anyway.
#[cfg(target_os = "linux")]
const DEFER_ACCEPT_SECONDS: libc::c_int = 1;

#[cfg(target_os = "linux")]
#[derive(Clone)]
struct DeferAccept;

#[cfg(target_os = "linux")]
nix::setsockopt_impl!(
    DeferAccept,
    libc::IPPROTO_TCP,
    libc::TCP_DEFER_ACCEPT,
    libc::c_int,
    nix::sys::socket::sockopt::SetStruct<'_, libc::c_int>
);

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};

    fn socket() -> Socket {
        Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()
    }

    #[test]
    fn everything_reaches_the_socket() {
        let options = TcpOptions {
            keepalive: true,
            keepalive_count: 7,
            keepalive_idle: Duration::from_secs(33),
            keepalive_interval: Duration::from_secs(11),
            user_timeout: Duration::from_millis(12_345),
            socket_buffer_bytes: 32 * 1024,
            defer_accept: true,
        };
        let socket = socket();
        options.apply_to_listener(SockRef::from(&socket)).unwrap();
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 7);
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(33)
        );
        assert_eq!(
            socket.tcp_keepalive_interval().unwrap(),
            Duration::from_secs(11)
        );
        assert_eq!(
            socket.tcp_user_timeout().unwrap(),
            Some(Duration::from_millis(12_345))
        );
        // The kernel doubles what it is given, for its own bookkeeping.
        assert!(socket.send_buffer_size().unwrap() >= 32 * 1024);
        assert!(socket.recv_buffer_size().unwrap() >= 32 * 1024);
    }

    #[test]
    fn zero_leaves_the_defaults_alone() {
        let untouched = socket();
        let socket = socket();
        TcpOptions::default().apply(SockRef::from(&socket)).unwrap();
        assert!(socket.keepalive().unwrap());
        assert_eq!(
            socket.tcp_keepalive_retries().unwrap(),
            untouched.tcp_keepalive_retries().unwrap()
        );
        assert_eq!(
            socket.recv_buffer_size().unwrap(),
            untouched.recv_buffer_size().unwrap()
        );
        let off = TcpOptions {
            keepalive: false,
            ..TcpOptions::default()
        };
        off.apply(SockRef::from(&untouched)).unwrap();
        assert!(!untouched.keepalive().unwrap());
    }
}
