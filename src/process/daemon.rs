//! Into the background: the option `-d`.
//!
//! Unlike PgBouncer's, the command that was typed returns only when the daemon listens (or has failed), with an exit status that
//! says which. So a script may connect right after it, and systemd's `Type=forking` finds the pid file.

use std::error::Error;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};

/// Why the process could not become a daemon; fatal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaemonError {
    /// Nobody could find, or stop, a daemon without a pid file.
    NoPidfile,
    /// Threads exist already (or it cannot be found out whether): they would not survive.
    Threads,
    /// A system call failed.
    Os {
        /// Which.
        step: &'static str,
        /// Why.
        errno: Errno,
    },
}

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DaemonError::NoPidfile => f.write_str("daemon needs pidfile configured"),
            DaemonError::Threads => {
                f.write_str("cannot become a daemon after threads were started")
            }
            DaemonError::Os { step, errno } => {
                write!(f, "cannot become a daemon: {step}: {}", errno.desc())
            }
        }
    }
}

impl Error for DaemonError {}

/// The command that is waiting in the foreground. Dropped without [`ready`](Self::ready), it learns that the start has failed.
#[derive(Debug)]
#[must_use = "the waiting command takes a drop for a failed start"]
pub struct Readiness {
    waiting: Option<PipeWriter>,
}

impl Readiness {
    /// Nobody waits: the process stays in the foreground.
    pub fn foreground() -> Readiness {
        Readiness { waiting: None }
    }

    /// The daemon is up: the command in the foreground ends with status 0.
    pub fn ready(self) {
        if let Some(mut waiting) = self.waiting {
            // It may have been killed meanwhile, which is no concern of the daemon.
            let _ = waiting.write_all(b"R");
        }
    }
}

/// Goes on in the background: another process, in a session of its own without a terminal, with stdin, stdout and stderr on
/// `/dev/null`. The working directory stays, since configured paths may be relative to it.
///
/// Returns in the daemon only. The calling process waits here for [`Readiness::ready`] and ends: status 0 if the daemon is
/// up, 1 if it has ended before.
///
/// # Errors
/// No pid file is configured, threads have been started, or the system refuses.
pub fn daemonise(pidfile: Option<&Path>) -> Result<Readiness, DaemonError> {
    if pidfile.is_none() {
        return Err(DaemonError::NoPidfile);
    }
    if !is_single_threaded() {
        return Err(DaemonError::Threads);
    }
    // What is buffered would otherwise be written by each of the processes.
    let _ = io::stdout().flush();
    let (reader, writer) = io::pipe().map_err(|e| os("pipe", errno_of(&e)))?;
    if let ForkResult::Parent { child } = fork_alone()? {
        drop(writer);
        // The child ends at once; waiting for it leaves no zombie.
        let _ = waitpid(child, None);
        std::process::exit(wait_until_ready(reader));
    }
    drop(reader);
    setsid().map_err(|errno| os("setsid", errno))?;
    // A second time: who is not the leader of its session can never acquire a terminal.
    if let ForkResult::Parent { .. } = fork_alone()? {
        std::process::exit(0);
    }
    silence_stdio()?;
    Ok(Readiness {
        waiting: Some(writer),
    })
}

fn os(step: &'static str, errno: Errno) -> DaemonError {
    DaemonError::Os { step, errno }
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
}

/// Forks a process that has been found to be single-threaded.
fn fork_alone() -> Result<ForkResult, DaemonError> {
    if !is_single_threaded() {
        return Err(DaemonError::Threads);
    }
    // SAFETY: forking is dangerous when other threads hold locks or are changing memory that the child will find half
    // changed. There are none: the kernel has just listed this thread as the only one of the process, and only this thread
    // could start another.
    unsafe { fork() }.map_err(|errno| os("fork", errno))
}

fn is_single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)
}

/// The exit status of the command in the foreground.
fn wait_until_ready(mut daemon: PipeReader) -> i32 {
    let mut byte = [0];
    match daemon.read_exact(&mut byte) {
        Ok(()) => 0,
        Err(_) => {
            let _ = writeln!(io::stderr(), "the daemon has not started; its log says why");
            1
        }
    }
}

fn silence_stdio() -> Result<(), DaemonError> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    let null = null.map_err(|e| os("/dev/null", errno_of(&e)))?;
    dup2_stdin(&null)
        .and_then(|()| dup2_stdout(&null))
        .and_then(|()| dup2_stderr(&null))
        .map_err(|errno| os("dup2", errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pidfile_is_needed() {
        let error = daemonise(None).unwrap_err();
        assert_eq!(error.to_string(), "daemon needs pidfile configured");
    }

    #[test]
    fn not_with_threads() {
        // The test runner has some.
        assert_eq!(
            daemonise(Some(Path::new("x"))).unwrap_err(),
            DaemonError::Threads
        );
    }

    #[test]
    fn the_foreground_learns_how_it_went() {
        let (reader, writer) = io::pipe().unwrap();
        Readiness {
            waiting: Some(writer),
        }
        .ready();
        assert_eq!(wait_until_ready(reader), 0);
        let (reader, writer) = io::pipe().unwrap();
        drop(Readiness {
            waiting: Some(writer),
        });
        assert_eq!(wait_until_ready(reader), 1);
        Readiness::foreground().ready();
    }
}
