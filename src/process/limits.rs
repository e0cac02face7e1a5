//! File descriptors and priority.

use std::fmt;

use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, rlim_t, setrlimit};
use nix::unistd::gettid;

/// How many files and sockets the process may have open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdLimits {
    /// In force.
    pub soft: rlim_t,
    /// How far an ordinary user may raise it.
    pub hard: rlim_t,
}

impl FdLimits {
    /// Whether `count` descriptors fit.
    pub fn allows(&self, count: u64) -> bool {
        self.soft == RLIM_INFINITY || count <= self.soft
    }

    /// The line that is logged at start. `fd_use_max` is the number of descriptors that the settings can lead to.
    pub fn start_line(&self, max_client_conn: u64, fd_use_max: u64) -> String {
        let (soft, hard) = (Limit(self.soft), Limit(self.hard));
        format!(
            "kernel file descriptor limit: {soft} (hard: {hard}); \
             max_client_conn: {max_client_conn}, max expected fd use: {fd_use_max}"
        )
    }
}

/// "No limit" is -1 for those who read the line, as it is in PgBouncer.
struct Limit(rlim_t);

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == RLIM_INFINITY {
            f.write_str("-1")
        } else {
            self.0.fmt(f)
        }
    }
}

/// The limits as they are.
///
/// # Errors
/// None in practice: the call has nothing to refuse.
pub fn fd_limits() -> Result<FdLimits, Errno> {
    getrlimit(Resource::RLIMIT_NOFILE).map(|(soft, hard)| FdLimits { soft, hard })
}

/// Raises the soft limit to the hard one, and returns what is in force then. The low default of the soft limit protects
/// programs that use `select`, which we do not.
///
/// # Errors
/// As for [`fd_limits`]; that the limit could not be raised shows in the result only, since fewer clients are better than none.
pub fn raise_fd_limit() -> Result<FdLimits, Errno> {
    let FdLimits { soft, hard } = fd_limits()?;
    if soft != hard {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    fd_limits()
}

/// The least favoured niceness there is.
const NICE_MAX: i32 = 19;

/// Makes the calling thread yield to others: adds `nice_delta` to its niceness (at most 19 in the end). Threads started from it
/// inherit that; the other threads of the process keep theirs. There is no way back for an ordinary user.
///
/// # Errors
/// A negative `nice_delta` without the right to it.
pub fn lower_priority(nice_delta: i32) -> Result<(), Errno> {
    let nice = niceness()?.saturating_add(nice_delta).min(NICE_MAX);
    // SAFETY: takes three numbers and touches no memory of ours.
    Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, thread_number(), nice) }).map(drop)
}

/// The niceness of the calling thread. On Linux it belongs to the thread, whatever the name of the call says.
fn niceness() -> Result<i32, Errno> {
    // -1 may be an answer or an error; only errno tells.
    Errno::clear();
    // SAFETY: takes two numbers and touches no memory of ours.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, thread_number()) };
    match Errno::last_raw() {
        0 => Ok(nice),
        raw => Err(Errno::from_raw(raw)),
    }
}

fn thread_number() -> libc::id_t {
    gettid().as_raw().unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_line() {
        let line = |soft, hard| FdLimits { soft, hard }.start_line(100, 132);
        let expected = "kernel file descriptor limit: 1024 (hard: 20000); max_client_conn: 100, max expected fd use: 132";
        assert_eq!(line(1024, 20000), expected);
        assert!(line(1024, RLIM_INFINITY).contains("(hard: -1)"));
    }

    #[test]
    fn what_fits() {
        assert!(FdLimits { soft: 10, hard: 10 }.allows(10));
        assert!(!FdLimits { soft: 10, hard: 20 }.allows(11));
        assert!(
            FdLimits {
                soft: RLIM_INFINITY,
                hard: RLIM_INFINITY
            }
            .allows(u64::MAX)
        );
    }

    #[test]
    fn the_soft_limit_is_raised() {
        let limits = raise_fd_limit().unwrap();
        assert_eq!(limits.soft, limits.hard);
        assert_eq!(fd_limits().unwrap(), limits);
    }

    #[test]
    fn priority_belongs_to_the_thread() {
        let before = niceness().unwrap();
        let lowered = std::thread::spawn(|| {
            lower_priority(5).unwrap();
            let once = niceness().unwrap();
            lower_priority(i32::MAX).unwrap();
            (once, niceness().unwrap())
        });
        assert_eq!(
            lowered.join().unwrap(),
            ((before + 5).min(NICE_MAX), NICE_MAX)
        );
        assert_eq!(niceness().unwrap(), before);
    }
}
