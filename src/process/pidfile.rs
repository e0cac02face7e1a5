//! The pid file: `PID\n`, there while an instance runs.
//!
//! [`remove_stale`] before start, [`Pidfile::create`] once listening; the value removes the file when dropped. Creation is
//! exclusive, so of two instances that start at once only one goes on.

use std::error::Error;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// More than any pid file holds; a longer file is not one.
const PIDFILE_BYTES_MAX: u64 = 64;

/// Everybody may read it.
const PIDFILE_MODE: u32 = 0o644;

/// What can go wrong; each is fatal at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PidfileError {
    /// The file names a living process, or is no pid file at all (which we would not delete).
    Exists(PathBuf),
    /// The file cannot be read, written or removed.
    Os {
        /// What was tried: `open`, `read`, `write`, `remove`.
        step: &'static str,
        /// As configured.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
}

impl PidfileError {
    fn os(step: &'static str, path: &Path, error: &io::Error) -> PidfileError {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
        PidfileError::Os {
            step,
            path: path.to_owned(),
            errno,
        }
    }
}

impl fmt::Display for PidfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PidfileError::Exists(path) => {
                write!(
                    f,
                    "pidfile '{}' exists, another instance running?",
                    path.display()
                )
            }
            PidfileError::Os { step, path, errno } => {
                write!(
                    f,
                    "could not {step} pidfile '{}': {}",
                    path.display(),
                    errno.desc()
                )
            }
        }
    }
}

impl Error for PidfileError {}

/// What the text in a pid file says about its writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    /// Gone: the process that wrote it has ended.
    Dead,
    /// Running, or unknown.
    MayLive,
}

/// Decides from the file's text. `own` is this process: a file that names us was left behind by an earlier process with our
/// number, as happens in containers, where the first process is always 1.
fn judge(text: &str, own: Pid, is_alive: impl FnOnce(Pid) -> bool) -> Writer {
    match parse(text) {
        Some(pid) if pid == own || !is_alive(pid) => Writer::Dead,
        _ => Writer::MayLive,
    }
}

/// The number in a pid file. Zero and negative numbers mean something else to `kill`, and are refused.
fn parse(text: &str) -> Option<Pid> {
    let number: i32 = text.trim().parse().ok()?;
    (number > 0).then(|| Pid::from_raw(number))
}

/// Whether a process exists, also one that we may not signal.
fn is_alive(pid: Pid) -> bool {
    kill(pid, None) != Err(Errno::ESRCH)
}

/// Removes the pid file of a process that has ended. Says whether there was one, for the log (`stale pidfile, removing`).
///
/// # Errors
/// [`PidfileError::Exists`] if the process lives, or the content is not a process id; or the file can't be read or removed.
pub fn remove_stale(path: &Path) -> Result<bool, PidfileError> {
    let text = match read(path) {
        Ok((_, text)) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(PidfileError::os("read", path, &error)),
    };
    match judge(&text, Pid::this(), is_alive) {
        Writer::MayLive => Err(PidfileError::Exists(path.to_owned())),
        Writer::Dead => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(PidfileError::os("remove", path, &error))
            }
            _ => Ok(true),
        },
    }
}

/// The text, and the file it was read from. Never waits: a FIFO of that name reads as empty.
fn read(path: &Path) -> io::Result<(FileId, String)> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)?;
    let id = FileId::of(&file)?;
    let mut bytes = Vec::new();
    file.take(PIDFILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok((id, String::from_utf8_lossy(&bytes).into_owned()))
}

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(file: &File) -> io::Result<FileId> {
        let metadata = file.metadata()?;
        Ok(FileId {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

/// Our own pid file; removed when this is dropped, unless it has become somebody else's.
#[derive(Debug)]
#[must_use = "dropping it removes the file"]
pub struct Pidfile {
    path: PathBuf,
    /// A forked child has another one, and must not remove the file.
    owner: Pid,
    id: FileId,
}

impl Pidfile {
    /// Writes the number of this process into a new file. After [`daemonise`](super::daemonise), which changes the number.
    ///
    /// # Errors
    /// [`PidfileError::Exists`] if the file is there (again), or it can't be written.
    pub fn create(path: &Path) -> Result<Pidfile, PidfileError> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut file = match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(PIDFILE_MODE)
            .open(&path)
        {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(PidfileError::Exists(path));
            }
            Err(error) => return Err(PidfileError::os("open", &path, &error)),
        };
        let owner = Pid::this();
        // One write, so that nobody reads half a number.
        let written = file
            .write_all(format!("{owner}\n").as_bytes())
            .and_then(|()| FileId::of(&file));
        match written {
            Ok(id) => Ok(Pidfile { path, owner, id }),
            Err(error) => {
                // Ours for certain: we have just created it. A leftover would be empty and stop the next start.
                let _ = fs::remove_file(&path);
                Err(PidfileError::os("write", &path, &error))
            }
        }
    }

    /// Where it is (absolute).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file now; for callers that leave with `exit`, which runs no destructor.
    pub fn remove(self) {}

    fn is_still_ours(&self) -> bool {
        self.owner == Pid::this()
            && read(&self.path)
                .is_ok_and(|(id, text)| id == self.id && parse(&text) == Some(self.owner))
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        if self.is_still_ours() {
            // The next start finds a file left over by a dead process, and removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with a pid file of this content.
    fn with_content(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pgweir.pid");
        fs::write(&path, text).unwrap();
        (directory, path)
    }

    /// The number of a process that has ended and was waited for.
    fn dead_pid() -> u32 {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    #[test]
    fn judging_content() {
        let own = Pid::from_raw(7);
        let check =
            |text, alive, expected| assert_eq!(judge(text, own, |_| alive), expected, "{text:?}");
        check("12\n", false, Writer::Dead);
        check("12", false, Writer::Dead);
        check("12\n", true, Writer::MayLive);
        check("7\n", true, Writer::Dead);
        for no_pid in ["", "\n", "hello", "0", "-1", "12 13", "99999999999", "1e3"] {
            check(no_pid, false, Writer::MayLive);
        }
    }

    #[test]
    fn a_dead_instances_file_is_removed() {
        let (_directory, path) = with_content(&format!("{}\n", dead_pid()));
        assert_eq!(remove_stale(&path), Ok(true));
        assert!(!path.exists());
        assert_eq!(remove_stale(&path), Ok(false));
    }

    #[test]
    fn a_living_instances_file_is_respected() {
        let (_directory, path) = with_content("1\n");
        let error = remove_stale(&path).unwrap_err();
        assert_eq!(error, PidfileError::Exists(path.clone()));
        assert_eq!(
            error.to_string(),
            format!(
                "pidfile '{}' exists, another instance running?",
                path.display()
            )
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
    }

    #[test]
    fn other_files_are_left_alone() {
        let (_directory, path) = with_content("precious data");
        assert_eq!(remove_stale(&path), Err(PidfileError::Exists(path.clone())));
        assert!(path.exists());
        // Not read to its end, which does not exist.
        assert!(matches!(
            remove_stale(Path::new("/dev/zero")),
            Err(PidfileError::Exists(_))
        ));
        assert!(matches!(
            remove_stale(Path::new("/tmp")),
            Err(PidfileError::Os { step: "read", .. })
        ));
    }

    #[test]
    fn created_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pgweir.pid");
        let pidfile = Pidfile::create(&path).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            format!("{}\n", std::process::id())
        );
        assert_eq!(
            Pidfile::create(&path).unwrap_err(),
            PidfileError::Exists(path.clone())
        );
        assert!(path.exists(), "the failed attempt must not remove it");
        pidfile.remove();
        assert!(!path.exists());
    }

    #[test]
    fn somebody_elses_file_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pgweir.pid");
        // Overwritten in place.
        let pidfile = Pidfile::create(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(pidfile);
        assert!(path.exists());
        // Replaced by a file that says the same (a container's process 1).
        fs::remove_file(&path).unwrap();
        let pidfile = Pidfile::create(&path).unwrap();
        let other = directory.path().join("other");
        fs::write(&other, format!("{}\n", std::process::id())).unwrap();
        fs::rename(&other, &path).unwrap();
        drop(pidfile);
        assert!(path.exists());
        // Gone already.
        fs::remove_file(&path).unwrap();
        let pidfile = Pidfile::create(&path).unwrap();
        fs::remove_file(&path).unwrap();
        drop(pidfile);
    }

    #[test]
    fn an_unwritable_place() {
        let error = Pidfile::create(Path::new("/nonexistent/p.pid")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not open pidfile '/nonexistent/p.pid': No such file or directory"
        );
    }
}
