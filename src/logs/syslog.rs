//! The local syslog daemon, over its datagram socket.
//!
//! Done here rather than with the C library's `syslog()`: that one keeps a pointer to the ident in a process-wide state and
//! waits without limit when the daemon stops reading. A line that the daemon does not take is lost; the other places
//! where a line goes are not affected.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use parking_lot::Mutex;

/// Where the system's daemon listens.
pub(super) const SYSLOG_SOCKET: &str = "/dev/log";

/// How long a line may wait for a daemon whose queue is full. After one such wait lines are dropped without waiting until the
/// daemon takes one again.
const SEND_WAIT_MAX: Duration = Duration::from_millis(100);

/// First send, once more after an interrupted call, once more over a fresh connection.
const SEND_ATTEMPTS_MAX: usize = 3;

/// The facility under which lines are filed: setting `syslog_facility`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facility(u8);

impl Default for Facility {
    fn default() -> Facility {
        Facility::from_word("daemon")
    }
}

impl Facility {
    /// Reads the setting's word. An unknown word means `daemon`, as in PgBouncer.
    pub fn from_word(word: &str) -> Facility {
        let number = match word {
            "user" => 1,
            "auth" => 4,
            "authpriv" => 10,
            "local0" => 16,
            "local1" => 17,
            "local2" => 18,
            "local3" => 19,
            "local4" => 20,
            "local5" => 21,
            "local6" => 22,
            "local7" => 23,
            _ => 3,
        };
        Facility(number)
    }

    /// The number, not yet shifted.
    pub fn number(self) -> u8 {
        self.0
    }
}

/// Settings of the syslog output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogOptions {
    /// The program name in every line: `syslog_ident`.
    pub ident: String,
    /// `syslog_facility`
    pub facility: Facility,
    /// The daemon's datagram socket; `/dev/log` unless a test says otherwise.
    pub socket: PathBuf,
}

impl SyslogOptions {
    /// Options for the system's daemon.
    pub fn new(ident: impl Into<String>, facility: Facility) -> SyslogOptions {
        SyslogOptions {
            ident: ident.into(),
            facility,
            socket: SYSLOG_SOCKET.into(),
        }
    }
}

/// The output itself; connects when the first line comes and again when the daemon was restarted.
#[derive(Debug)]
pub(super) struct Syslog {
    pub(super) options: SyslogOptions,
    /// Held while one datagram is sent: a send is bounded by [`SEND_WAIT_MAX`].
    link: Mutex<Link>,
}

#[derive(Debug, Default)]
struct Link {
    socket: Option<UnixDatagram>,
    /// The daemon let us wait last time: the socket is non-blocking until it takes a line.
    is_stalled: bool,
}

impl Syslog {
    pub(super) fn new(options: SyslogOptions) -> Syslog {
        Syslog {
            options,
            link: Mutex::default(),
        }
    }

    /// Sends one datagram, or drops it.
    pub(super) fn send(&self, datagram: &[u8]) {
        let mut link = self.link.lock();
        for _ in 0..SEND_ATTEMPTS_MAX {
            let Some(result) = link.try_send(&self.options, datagram) else {
                return;
            };
            match result.map_err(|e| e.kind()) {
                Ok(_) => return link.set_stalled(false),
                Err(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return link.set_stalled(true);
                }
                Err(io::ErrorKind::Interrupted) => {}
                Err(_) => link.socket = None,
            }
        }
    }
}

impl Link {
    /// `None` when nobody listens.
    fn try_send(&mut self, options: &SyslogOptions, datagram: &[u8]) -> Option<io::Result<usize>> {
        if self.socket.is_none() {
            *self = Link {
                socket: Some(connect(options).ok()?),
                is_stalled: false,
            };
        }
        self.socket.as_ref().map(|socket| socket.send(datagram))
    }

    fn set_stalled(&mut self, is_stalled: bool) {
        let Some(socket) = &self.socket else { return };
        if is_stalled != self.is_stalled && socket.set_nonblocking(is_stalled).is_ok() {
            self.is_stalled = is_stalled;
        }
    }
}

fn connect(options: &SyslogOptions) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(&options.socket)?;
    socket.set_write_timeout(Some(SEND_WAIT_MAX))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn receive(daemon: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        daemon
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let length = daemon.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn options(directory: &tempfile::TempDir) -> SyslogOptions {
        let mut options = SyslogOptions::new("pgbouncer", Facility::from_word("daemon"));
        options.socket = directory.path().join("log");
        options
    }

    #[test]
    fn facility_words() {
        let known = [
            ("auth", 4),
            ("authpriv", 10),
            ("daemon", 3),
            ("user", 1),
            ("local0", 16),
            ("local7", 23),
        ];
        for (word, number) in known {
            assert_eq!(Facility::from_word(word).number(), number);
        }
        assert_eq!(Facility::from_word("mail"), Facility::from_word("daemon"));
    }

    #[test]
    fn a_restarted_daemon_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let options = options(&directory);
        let syslog = Syslog::new(options.clone());
        syslog.send(b"nobody listens");
        let daemon = UnixDatagram::bind(&options.socket).unwrap();
        syslog.send(b"one");
        assert_eq!(receive(&daemon), "one");
        drop(daemon);
        std::fs::remove_file(&options.socket).unwrap();
        syslog.send(b"lost");
        let daemon = UnixDatagram::bind(&options.socket).unwrap();
        syslog.send(b"two");
        assert_eq!(receive(&daemon), "two");
    }

    #[test]
    fn a_stuck_daemon_costs_one_short_wait() {
        let directory = tempfile::tempdir().unwrap();
        let options = options(&directory);
        let daemon = UnixDatagram::bind(&options.socket).unwrap();
        let syslog = Syslog::new(options);
        let started = Instant::now();
        for _ in 0..5000 {
            syslog.send(&[b'x'; 1000]);
        }
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "waited for every line"
        );
        assert!(syslog.link.lock().is_stalled);
        // The daemon reads again: the next lines arrive.
        daemon.set_nonblocking(true).unwrap();
        while daemon.recv(&mut [0; 4096]).is_ok() {}
        daemon.set_nonblocking(false).unwrap();
        syslog.send(b"after");
        assert_eq!(receive(&daemon), "after");
        assert!(!syslog.link.lock().is_stalled);
    }
}
