//! The doors: listening sockets, opened at the start and closed for the end. Whoever comes in is [`super::front`]'s business.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;

use tokio::sync::watch;

use super::{App, front, parts};
use crate::config::{Config, Settings};
use crate::net::listen::{BoundListener, ListenError, bind_tcp, bind_unix};
use crate::net::unix::UnixOptions;

/// How open a listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// For everybody.
    Open,
    /// For those who have begun to connect; then it closes.
    Closing,
    /// For nobody, and at once.
    Closed,
}

/// Why nobody could come in.
#[derive(Debug)]
pub enum NoDoor {
    /// Nothing to listen on, or no address that works.
    Nowhere,
    /// The Unix socket can't be had.
    Unix(ListenError),
    /// A passed socket is none that can be used.
    Passed(RawFd, io::Error),
}

impl fmt::Display for NoDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoDoor::Nowhere => f.write_str("nowhere to listen on"),
            NoDoor::Unix(error) => error.fmt(f),
            NoDoor::Passed(fd, error) => write!(
                f,
                "failed to set up socket passed from service manager (fd {fd}): {error}"
            ),
        }
    }
}

impl std::error::Error for NoDoor {}

/// The listeners that can be told to close: TCP and Unix apart, since the Unix socket stays for the console.
pub struct Doors {
    tcp: watch::Sender<Door>,
    unix: watch::Sender<Door>,
}

/// Opens the listening sockets, or takes those that the service manager has passed. Unix first: whoever gets in by TCP finds everything in place.
///
/// # Errors
/// The Unix socket can't be had, or nothing is left to listen on.
pub fn listen(config: &Config, passed: Vec<OwnedFd>) -> Result<Vec<BoundListener>, NoDoor> {
    let settings = &config.settings;
    if !passed.is_empty() {
        return take_over(settings, passed);
    }
    let mut listeners = Vec::new();
    if let Some(dir) = &settings.unix_socket_dir {
        let options = UnixOptions {
            mode: settings.unix_socket_mode,
            group: settings.unix_socket_group.clone().unwrap_or_default(),
            backlog: settings.listen_backlog,
        };
        let dir = dir.display().to_string();
        let bound = bind_unix(&dir, settings.listen_port, &options);
        listeners.push(bound.map_err(NoDoor::Unix)?);
    }
    let addresses = settings.listen_addr.join(",");
    let bound = bind_tcp(
        &addresses,
        settings.listen_port,
        &parts::listen_options(settings),
    );
    for warning in &bound.warnings {
        tracing::warn!("{warning}");
    }
    listeners.splice(0..0, bound.listeners);
    match listeners.is_empty() {
        true => Err(NoDoor::Nowhere),
        false => Ok(listeners),
    }
}

/// Takes sockets that the service manager has opened. They replace what the configuration says, in PgBouncer's words.
fn take_over(settings: &Settings, passed: Vec<OwnedFd>) -> Result<Vec<BoundListener>, NoDoor> {
    if !settings.listen_addr.is_empty() {
        tracing::warn!("sockets passed from service manager, cf_listen_addr ignored");
    }
    if settings.unix_socket_dir.is_some() {
        tracing::warn!("sockets passed from service manager, cf_unix_socket_dir ignored");
    }
    let take = |fd: OwnedFd| {
        let number = fd.as_raw_fd();
        tracing::info!("socket passed from service manager (fd {number})");
        BoundListener::from_fd(fd).map_err(|error| NoDoor::Passed(number, error))
    };
    passed.into_iter().map(take).collect()
}

impl Doors {
    /// Has the workers begin to accept; tasks of the login threads see to it.
    pub fn open(
        app: &Arc<App>,
        logins: &tokio::runtime::Runtime,
        listeners: Vec<BoundListener>,
    ) -> Doors {
        let doors = Doors {
            tcp: watch::Sender::new(Door::Open),
            unix: watch::Sender::new(Door::Open),
        };
        for listener in listeners {
            let door = if listener.is_unix() {
                doors.unix.subscribe()
            } else {
                doors.tcp.subscribe()
            };
            logins.spawn(front::accept(app.clone(), listener, door));
        }
        doors
    }

    /// Closes the TCP listeners, gently or at once, and returns when that is done: from then on everybody who has got in is counted.
    pub async fn close_tcp(&self, how: Door) {
        self.tcp.send_replace(how);
        // Each listener's task holds a receiver until it has closed.
        self.tcp.closed().await;
    }

    /// Closes the Unix socket.
    pub fn close_unix(&self) {
        self.unix.send_replace(Door::Closed);
    }
}
