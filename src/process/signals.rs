//! The signals an operator sends, as a stream. What they mean is decided by whoever reads it.
//! Tested in `tests/process.rs`, since handlers belong to a whole process and cannot be taken back.

use std::io;

use tokio::signal::unix::{Signal as Source, SignalKind, signal};

/// A signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP: reload.
    Hup,
    /// SIGINT: shut down when the servers are released.
    Int,
    /// SIGTERM: shut down when the clients have gone.
    Term,
    /// SIGQUIT: leave at once.
    Quit,
    /// SIGUSR1: pause.
    Usr1,
    /// SIGUSR2: resume.
    Usr2,
}

impl Signal {
    /// Its name, as the log shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Signal::Hup => "SIGHUP",
            Signal::Int => "SIGINT",
            Signal::Term => "SIGTERM",
            Signal::Quit => "SIGQUIT",
            Signal::Usr1 => "SIGUSR1",
            Signal::Usr2 => "SIGUSR2",
        }
    }
}

/// Receives all of [`Signal`]. From [`install`](Self::install) on they no longer end the process, not even after this
/// has been dropped. (SIGPIPE needs nothing: Rust programs ignore it from the start.)
#[derive(Debug)]
pub struct Signals {
    hup: Source,
    int: Source,
    term: Source,
    quit: Source,
    usr1: Source,
    usr2: Source,
}

impl Signals {
    /// Takes the signals over. Needs a tokio runtime with its I/O driver; do it early, since a SIGHUP before it is deadly.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn install() -> io::Result<Signals> {
        Ok(Signals {
            hup: signal(SignalKind::hangup())?,
            int: signal(SignalKind::interrupt())?,
            term: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next signal. Of several that wait, the one that ends the process soonest comes first; equal ones that arrive before
    /// they are looked at are one. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Signal {
        // A source ends only with the runtime, and then nobody polls this. A branch that yields None is switched off.
        tokio::select! {
            biased;
            Some(()) = self.quit.recv() => Signal::Quit,
            Some(()) = self.int.recv() => Signal::Int,
            Some(()) = self.term.recv() => Signal::Term,
            Some(()) = self.hup.recv() => Signal::Hup,
            Some(()) = self.usr1.recv() => Signal::Usr1,
            Some(()) = self.usr2.recv() => Signal::Usr2,
            else => std::future::pending().await,
        }
    }
}
