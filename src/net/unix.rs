//! Unix sockets in the file system: where they are, whose they are, and who cleans up.
//!
//! A listening socket `<dir>/.s.PGSQL.<port>` is accompanied by `<socket>.lock`, in PostgreSQL's format,
//! so that a PostgreSQL or another pooler does not take the path from under us, and we not from under
//! them. The decision what is stale is a pure function, `is_taken`. Abstract sockets (`@name`)
//! have neither files nor locks. The listener itself is in [`super::listen`].

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::{Gid, Group, Pid, chown};
use socket2::{Domain, SockAddr, Socket, Type};

use super::listen::ListenError;

/// Name of a Unix socket as users write it; a leading `@` stands for the abstract name space.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SocketPath(String);

impl SocketPath {
    /// The socket of PostgreSQL's naming scheme in `dir`: `<dir>/.s.PGSQL.<port>`.
    pub fn new(dir: &str, port: u16) -> Self {
        SocketPath(format!("{dir}/.s.PGSQL.{port}"))
    }

    /// Is it a name without a file?
    pub fn is_abstract(&self) -> bool {
        self.0.starts_with('@')
    }

    /// As `bind` and `connect` want it: an abstract name begins with a zero byte.
    pub fn for_kernel(&self) -> PathBuf {
        match self.0.strip_prefix('@') {
            Some(name) => PathBuf::from(format!("\0{name}")),
            None => PathBuf::from(&self.0),
        }
    }

    fn lock_file(&self) -> PathBuf {
        PathBuf::from(format!("{}.lock", self.0))
    }
}

impl fmt::Display for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How to create a listening Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixOptions {
    /// Permission bits (setting `unix_socket_mode`).
    pub mode: u32,
    /// Group name or number that shall own it (`unix_socket_group`); empty leaves the process' own.
    pub group: String,
    /// Length of the kernel's queue (`listen_backlog`).
    pub backlog: u32,
}

impl Default for UnixOptions {
    fn default() -> Self {
        UnixOptions {
            mode: 0o777,
            group: String::new(),
            backlog: 128,
        }
    }
}

/// The files of a listening socket; dropping it removes them, if they are still ours.
#[derive(Debug)]
pub(super) struct SocketFiles {
    path: SocketPath,
    /// Device and inode of the socket, once it is bound: another process may have replaced it since.
    identity: Option<(u64, u64)>,
    /// The process that created them. A forked child must not remove its parent's files.
    owner_pid: u32,
}

/// Creates a listening socket; see [`super::listen::bind_unix`].
pub(super) fn bind(
    dir: &str,
    port: u16,
    options: &UnixOptions,
) -> Result<(Socket, SocketPath, Option<SocketFiles>), ListenError> {
    let path = SocketPath::new(dir, port);
    let on = || format!("unix:{path}");
    let failed =
        |call| move |error| ListenError::failed(format!("unix:{dir}/.s.PGSQL.{port}"), call, error);
    let mut files = None;
    if !path.is_abstract() {
        files = Some(claim(&path, port)?);
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed("socket"))?;
    let addr = SockAddr::unix(path.for_kernel()).map_err(failed("bind"))?;
    match socket.bind(&addr) {
        Err(e) if path.is_abstract() && e.kind() == io::ErrorKind::AddrInUse => {
            return Err(ListenError::UnixPortInUse { port });
        }
        bound => bound.map_err(failed("bind"))?,
    }
    if let Some(files) = &mut files {
        files.identity = identity(&path);
        // Before `listen`, so that nobody gets in under other permissions than these.
        set_owner_and_mode(&path, options)
            .map_err(|(call, e)| ListenError::failed(on(), call, e))?;
    }
    let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
    socket.listen(backlog).map_err(failed("listen"))?;
    Ok((socket, path, files))
}

/// Rounds of "stale lock removed, try again" before somebody else is evidently faster than us.
const LOCK_ATTEMPTS: usize = 5;

/// Makes the path ours: creates the lock file and removes a dead predecessor's socket.
fn claim(path: &SocketPath, port: u16) -> Result<SocketFiles, ListenError> {
    let taken = ListenError::UnixPortInUse { port };
    let failed = |call| move |error| ListenError::failed(format!("unix:{path}"), call, error);
    for _ in 0..LOCK_ATTEMPTS {
        match create_lock(path, port) {
            Ok(files) => {
                // A live owner without a lock (PgBouncer writes none) is still an owner.
                if is_taken(probe(path), Holder::Nobody) {
                    return Err(taken);
                }
                remove_socket(path).map_err(failed("unlink"))?;
                return Ok(files);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                if is_taken(probe(path), lock_holder(path)) {
                    return Err(taken);
                }
                remove_if_there(&path.lock_file()).map_err(failed("unlink"))?;
            }
            Err(e) => return Err(failed("open")(e)),
        }
    }
    Err(taken)
}

/// What happened when somebody knocked at a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knock {
    /// A process accepts connections on it.
    Answered,
    /// The file is there, but no process listens.
    Refused,
    /// There is no such file.
    Absent,
    /// Could not find out, for example for lack of permission.
    Unknown,
}

/// Who stands in a lock file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// There is no lock, it names no process, or a process that is gone, or ourselves: a container that
    /// was killed and started again often has the same process id as before.
    Nobody,
    /// Another process that is alive, although perhaps not the one that wrote the lock.
    Alive,
}

/// Is the socket somebody's? The knock outweighs the lock, because process ids are reused.
fn is_taken(knock: Knock, holder: Holder) -> bool {
    match (knock, holder) {
        (Knock::Answered | Knock::Unknown, _) => true,
        (Knock::Refused, _) => false,
        // The owner may be just about to create its socket.
        (Knock::Absent, holder) => holder == Holder::Alive,
    }
}

fn probe(path: &SocketPath) -> Knock {
    let knock = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // A full queue must not make us wait: it is an answer, too.
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path.for_kernel())?)
    };
    match knock().map_err(|e| e.kind()) {
        Ok(()) | Err(io::ErrorKind::WouldBlock) => Knock::Answered,
        Err(io::ErrorKind::ConnectionRefused) => Knock::Refused,
        Err(io::ErrorKind::NotFound) => Knock::Absent,
        Err(_) => Knock::Unknown,
    }
}

/// The longest lock file that is looked at, in bytes. PostgreSQL's have less than a kilobyte.
const LOCK_FILE_MAX: u64 = 8192;

fn lock_holder(path: &SocketPath) -> Holder {
    match read_lock(path) {
        Some(pid) if pid != Pid::this() && is_alive(pid) => Holder::Alive,
        _ => Holder::Nobody,
    }
}

fn read_lock(path: &SocketPath) -> Option<Pid> {
    let mut text = String::new();
    let file = fs::File::open(path.lock_file()).ok()?;
    file.take(LOCK_FILE_MAX).read_to_string(&mut text).ok()?;
    pid_in_lock(&text)
}

/// The process id in the first line of a lock file. PostgreSQL's single-user mode writes it negative.
fn pid_in_lock(text: &str) -> Option<Pid> {
    let number: i32 = text.lines().next()?.trim().parse().ok()?;
    let pid = number.checked_abs()?;
    (pid > 0).then(|| Pid::from_raw(pid))
}

fn is_alive(pid: Pid) -> bool {
    // `EPERM` means that it exists and belongs to somebody else.
    !matches!(kill(pid, None), Err(Errno::ESRCH))
}

fn create_lock(path: &SocketPath, port: u16) -> io::Result<SocketFiles> {
    let lock = path.lock_file();
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&lock)?;
    let files = SocketFiles {
        path: path.clone(),
        identity: None,
        owner_pid: std::process::id(),
    };
    let started = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let dir = lock.parent().unwrap_or(&lock).display();
    // PostgreSQL's lines: process id, data directory (we have none), start, port, socket directory.
    let pid = files.owner_pid;
    let written = file.write_all(format!("{pid}\n\n{started}\n{port}\n{dir}\n").as_bytes());
    if written.is_err() {
        // The guard would not recognise a half-written one as ours.
        remove_if_there(&lock)?;
    }
    written.map(|()| files)
}

fn remove_socket(path: &SocketPath) -> io::Result<()> {
    let file = path.for_kernel();
    match fs::symlink_metadata(&file) {
        Ok(meta) if meta.file_type().is_socket() => remove_if_there(&file),
        // Nothing, or something that is not ours to delete: then `bind` will complain.
        _ => Ok(()),
    }
}

fn remove_if_there(file: &std::path::Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn identity(path: &SocketPath) -> Option<(u64, u64)> {
    let meta = fs::symlink_metadata(path.for_kernel()).ok()?;
    Some((meta.dev(), meta.ino()))
}

fn set_owner_and_mode(
    path: &SocketPath,
    options: &UnixOptions,
) -> Result<(), (&'static str, io::Error)> {
    let file = path.for_kernel();
    if !options.group.is_empty() {
        let group = find_group(&options.group).map_err(|e| ("getgrnam", e))?;
        chown(&file, None, Some(group)).map_err(|e| ("chown", e.into()))?;
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(options.mode)).map_err(|e| ("chmod", e))
}

fn find_group(name_or_number: &str) -> io::Result<Gid> {
    if let Ok(number) = name_or_number.parse() {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(name_or_number)? {
        Some(group) => Ok(group.gid),
        None => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("no such group: {name_or_number}"),
        )),
    }
}

impl Drop for SocketFiles {
    fn drop(&mut self) {
        if self.owner_pid != std::process::id() {
            return;
        }
        if self.identity.is_some() && self.identity == identity(&self.path) {
            let _ = fs::remove_file(self.path.for_kernel());
        }
        if read_lock(&self.path) == Some(Pid::this()) {
            let _ = fs::remove_file(self.path.lock_file());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    struct Dir(tempfile::TempDir);

    impl Dir {
        fn new() -> Self {
            Dir(tempfile::tempdir().unwrap())
        }
        fn name(&self) -> &str {
            self.0.path().to_str().unwrap()
        }
        fn socket(&self) -> PathBuf {
            self.0.path().join(".s.PGSQL.6432")
        }
        fn lock(&self) -> PathBuf {
            self.0.path().join(".s.PGSQL.6432.lock")
        }
        fn bind(&self) -> Result<(Socket, SocketPath, Option<SocketFiles>), ListenError> {
            bind(self.name(), 6432, &UnixOptions::default())
        }
        fn is_refused(&self) -> bool {
            matches!(self.bind(), Err(ListenError::UnixPortInUse { port: 6432 }))
        }
    }

    /// A process id that is certainly not in use: its process has been waited for.
    fn dead_pid() -> u32 {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    #[test]
    fn mode_group_and_lock_are_as_asked_and_everything_is_removed() {
        let dir = Dir::new();
        let gid = nix::unistd::getgid();
        let options = UnixOptions {
            mode: 0o750,
            group: gid.to_string(),
            backlog: 5,
        };
        let bound = bind(dir.name(), 6432, &options).unwrap();
        let meta = fs::symlink_metadata(dir.socket()).unwrap();
        assert_eq!(meta.permissions().mode() & 0o7777, 0o750);
        assert_eq!(meta.gid(), gid.as_raw());
        let lock = fs::read_to_string(dir.lock()).unwrap();
        assert_eq!(pid_in_lock(&lock), Some(Pid::this()));
        let lines: Vec<_> = lock.lines().collect();
        assert_eq!((lines.len(), lines[3], lines[4]), (5, "6432", dir.name()));
        drop(bound);
        assert!(!dir.socket().exists() && !dir.lock().exists());
    }

    #[test]
    fn groups_are_found_by_name_and_unknown_ones_are_an_error_that_leaves_nothing_behind() {
        let own = Group::from_gid(nix::unistd::getgid()).unwrap().unwrap();
        assert_eq!(find_group(&own.name).unwrap(), own.gid);
        let dir = Dir::new();
        let options = UnixOptions {
            group: "no such group".into(),
            ..UnixOptions::default()
        };
        let error = bind(dir.name(), 6432, &options).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot listen on unix:{}: getgrnam(): no such group: no such group",
                dir.socket().display()
            )
        );
        assert!(!dir.socket().exists() && !dir.lock().exists());
    }

    #[test]
    fn a_live_socket_is_left_alone_with_and_without_lock() {
        let dir = Dir::new();
        let live = UnixListener::bind(dir.socket()).unwrap();
        assert!(dir.is_refused());
        assert!(!dir.lock().exists(), "our own attempt left its lock");
        // Even if the lock names a dead process: the socket answers.
        fs::write(dir.lock(), format!("{}\n", dead_pid())).unwrap();
        assert!(dir.is_refused());
        assert!(dir.socket().exists() && dir.lock().exists());
        drop(live);
    }

    #[test]
    fn a_dead_socket_and_its_lock_are_replaced() {
        let dir = Dir::new();
        drop(UnixListener::bind(dir.socket()).unwrap());
        assert!(dir.bind().is_ok(), "no lock");
        drop(UnixListener::bind(dir.socket()).unwrap());
        fs::write(dir.lock(), format!("{}\n", dead_pid())).unwrap();
        assert!(dir.bind().is_ok(), "lock of a dead process");
        drop(UnixListener::bind(dir.socket()).unwrap());
        fs::write(dir.lock(), "1\n").unwrap();
        assert!(dir.bind().is_ok(), "lock names a recycled process id");
        fs::write(dir.lock(), "no number").unwrap();
        assert!(dir.bind().is_ok(), "unreadable lock and no socket");
    }

    #[test]
    fn a_lock_of_a_live_process_without_socket_is_respected() {
        let dir = Dir::new();
        fs::write(dir.lock(), "1\n/data\n").unwrap();
        assert!(dir.is_refused());
        fs::write(dir.lock(), format!("{}\n", std::process::id())).unwrap();
        assert!(dir.bind().is_ok(), "our own process id, from a former life");
    }

    #[test]
    fn a_file_that_is_no_socket_is_not_deleted() {
        let dir = Dir::new();
        fs::write(dir.socket(), "precious").unwrap();
        let error = dir.bind().unwrap_err().to_string();
        assert!(error.ends_with("bind(): Address already in use"), "{error}");
        assert_eq!(fs::read_to_string(dir.socket()).unwrap(), "precious");
        assert!(!dir.lock().exists());
    }

    #[test]
    fn a_successors_socket_survives_our_end() {
        let dir = Dir::new();
        let bound = dir.bind().unwrap();
        fs::remove_file(dir.socket()).unwrap();
        let _successor = UnixListener::bind(dir.socket()).unwrap();
        fs::write(dir.lock(), "1\n").unwrap();
        drop(bound);
        assert!(dir.socket().exists() && dir.lock().exists());
    }

    #[test]
    fn abstract_names_need_no_files() {
        let name = format!("@pgweir-test-{}", std::process::id());
        let options = UnixOptions::default();
        let (_socket, path, files) = bind(&name, 6432, &options).unwrap();
        assert!(path.is_abstract() && files.is_none());
        assert_eq!(path.to_string(), format!("{name}/.s.PGSQL.6432"));
        assert_eq!(probe(&path), Knock::Answered);
        let second = bind(&name, 6432, &options).unwrap_err();
        assert_eq!(second.to_string(), "unix port 6432 is in use");
    }

    #[test]
    fn a_missing_directory_and_a_long_name_are_reported() {
        let error = bind("/nonexistent/pgweir", 1, &UnixOptions::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot listen on unix:/nonexistent/pgweir/.s.PGSQL.1: open(): No such file or directory"
        );
        let dir = Dir::new();
        let long = format!("{}/{}", dir.name(), "x".repeat(120));
        fs::create_dir(&long).unwrap();
        assert!(bind(&long, 1, &UnixOptions::default()).is_err());
        assert_eq!(fs::read_dir(&long).unwrap().count(), 0);
    }

    #[test]
    fn process_ids_in_locks() {
        for (text, pid) in [
            ("12\n", Some(12)),
            (" 12 ", Some(12)),
            ("-12\n", Some(12)),
            ("0\n", None),
            ("", None),
            ("-2147483648", None),
            ("99999999999", None),
        ] {
            assert_eq!(pid_in_lock(text), pid.map(Pid::from_raw), "{text:?}");
        }
    }
}
