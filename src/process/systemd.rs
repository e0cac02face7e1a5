//! What a service manager is told (`NOTIFY_SOCKET`) and gives (`LISTEN_FDS`): the two small protocols of systemd, which others speak
//! too. That stderr may be its journal is the business of [`crate::logs`].

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::time::{ClockId, clock_gettime};

/// How long the manager may let us wait when its queue is full. It is told no more then, of this one thing.
const SEND_WAIT_MAX: Duration = Duration::from_secs(1);
/// The first passed descriptor.
const LISTEN_FDS_START: RawFd = 3;
/// The most descriptors that are taken over.
const LISTEN_FDS_MAX: RawFd = 64;
/// Longest status line.
const STATUS_BYTES_MAX: usize = 1024;

/// What the environment says about the service manager. Read once, at the start.
#[derive(Debug, Default)]
pub struct Manager {
    /// Tells it how we are.
    pub notifier: Notifier,
    /// Listening sockets that it has opened for us.
    pub sockets: Vec<OwnedFd>,
}

impl Manager {
    /// Takes what the environment has, and removes it from there: nothing of it is meant for other processes.
    ///
    /// # Errors
    /// There should be passed sockets, and are not.
    ///
    /// # Safety
    /// The process has one thread, nobody else owns the descriptors from 3 on that `LISTEN_FDS` counts, and this is called once.
    pub unsafe fn from_environment() -> io::Result<Manager> {
        let take = |name: &str| {
            let value = std::env::var_os(name);
            // SAFETY: there is no other thread that could read or change the environment meanwhile, says our caller.
            unsafe { std::env::remove_var(name) };
            value
        };
        let (pid, count) = (take("LISTEN_PID"), take("LISTEN_FDS"));
        take("LISTEN_FDNAMES");
        let notifier = Notifier::connect(take("NOTIFY_SOCKET"));
        let passed = passed(pid, count)?;
        // SAFETY: the manager opened them for us, and nobody else owns them, says our caller.
        let own = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
        let sockets = (LISTEN_FDS_START..LISTEN_FDS_START + passed).map(own);
        let manager = Manager {
            notifier,
            sockets: sockets.collect(),
        };
        for socket in &manager.sockets {
            fcntl(socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        Ok(manager)
    }
}

/// How many descriptors were passed to this process. What is meant for another (a parent that has started us) is not ours.
fn passed(pid: Option<OsString>, count: Option<OsString>) -> io::Result<RawFd> {
    let own = std::process::id().to_string();
    let (Some(pid), Some(count)) = (pid, count) else {
        return Ok(0);
    };
    if pid != OsStr::new(&own) {
        return Ok(0);
    }
    let number = count.to_str().and_then(|count| count.parse().ok());
    match number {
        Some(number) if (0..=LISTEN_FDS_MAX).contains(&number) => {
            for fd in LISTEN_FDS_START..LISTEN_FDS_START + number {
                is_open(fd)?;
            }
            Ok(number)
        }
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("LISTEN_FDS: {} is no number of sockets", count.display()),
        )),
    }
}

/// An owned descriptor that is not open would later close somebody else's.
fn is_open(fd: RawFd) -> io::Result<()> {
    // SAFETY: the call takes any number, and only tells whether it is a descriptor.
    match unsafe { libc::fcntl(fd, libc::F_GETFD) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Tells the service manager how we are; nobody, if none has asked. Never fails: there is nothing to be done about it.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
}

impl Notifier {
    fn connect(address: Option<OsString>) -> Notifier {
        let address = address.filter(|address| !address.is_empty());
        let socket = address.and_then(|address| connected(&address).ok());
        Notifier { socket }
    }

    /// The start, or a reload, is complete.
    pub fn ready(&self) {
        self.tell(format_args!("READY=1"));
    }

    /// A reload begins; [`ready`](Self::ready) ends it.
    pub fn reloading(&self) {
        match clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from) {
            Ok(now) => self.tell(format_args!(
                "RELOADING=1\nMONOTONIC_USEC={}",
                now.as_micros()
            )),
            Err(_) => self.tell(format_args!("RELOADING=1")),
        }
    }

    /// The end begins.
    pub fn stopping(&self) {
        self.tell(format_args!("STOPPING=1"));
    }

    /// One line about what is going on.
    pub fn status(&self, text: impl fmt::Display) {
        let mut text = text.to_string();
        if let Some(end) = text.find('\n') {
            text.truncate(end);
        }
        text.truncate(text.floor_char_boundary(STATUS_BYTES_MAX));
        self.tell(format_args!("STATUS={text}"));
    }

    fn tell(&self, what: fmt::Arguments<'_>) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(format!("{what}\n").as_bytes());
        }
    }
}

fn connected(address: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match address.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(address)?,
    }
    socket.set_write_timeout(Some(SEND_WAIT_MAX))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let len = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    }

    fn check(address: OsString, manager: UnixDatagram) {
        manager
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let notifier = Notifier::connect(Some(address));
        notifier.ready();
        assert_eq!(heard(&manager), "READY=1\n");
        notifier.reloading();
        let text = heard(&manager);
        let (first, second) = text.trim_end().split_once('\n').unwrap();
        assert_eq!(first, "RELOADING=1");
        let usec: u64 = second
            .strip_prefix("MONOTONIC_USEC=")
            .unwrap()
            .parse()
            .unwrap();
        assert!(usec > 0);
        notifier.stopping();
        assert_eq!(heard(&manager), "STOPPING=1\n");
        notifier.status("one\nREADY=1");
        assert_eq!(heard(&manager), "STATUS=one\n");
        notifier.status("ü".repeat(1000));
        assert_eq!(heard(&manager).len(), "STATUS=\n".len() + STATUS_BYTES_MAX);
        drop(manager);
        notifier.ready(); // nobody hears it, and nobody minds
    }

    #[test]
    fn the_manager_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        check(path.clone().into(), UnixDatagram::bind(path).unwrap());
        let name = format!("pgweir-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        check(
            format!("@{name}").into(),
            UnixDatagram::bind_addr(&address).unwrap(),
        );
    }

    #[test]
    fn without_a_manager_nobody_is_told() {
        for address in [None, Some(""), Some("/nonexistent/notify")] {
            Notifier::connect(address.map(Into::into)).ready();
        }
    }

    #[test]
    fn sockets_for_others_are_not_ours() {
        let own = std::process::id().to_string();
        let count = |pid: Option<&str>, count: Option<&str>| {
            passed(pid.map(Into::into), count.map(Into::into)).ok()
        };
        assert_eq!(count(None, Some("1")), Some(0));
        assert_eq!(count(Some("1"), Some("1")), Some(0));
        assert_eq!(count(Some("x"), Some("x")), Some(0));
        assert_eq!(count(Some(&own), None), Some(0));
        assert_eq!(count(Some(&own), Some("0")), Some(0));
        for wrong in ["x", "-1", "65", "99999999999", ""] {
            assert_eq!(count(Some(&own), Some(wrong)), None, "{wrong}");
        }
    }
}
