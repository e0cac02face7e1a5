//! `pgweir userlist`: an `auth_file` from the roles of a PostgreSQL server.
//!
//! For setups that keep secrets in a file rather than ask for them with auth_query. The file is replaced as a whole or not at all, and
//! nobody else may read it. Roles that could not log in by it are left out, each with a line on stderr. How a connection string is
//! read is in [`super::source`].

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use zeroize::Zeroizing;

use super::source::Source;
use crate::auth::AuthFile;
use crate::cli::Userlist;
use crate::server::connect::{self, ConnectError, LOGIN_MESSAGE_MAX};
use crate::server::inbox::Inbox;
use crate::wire::{build, read};

/// The roles that can log in; with those whose password is no longer valid.
const ROLES_QUERY: &[u8] = b"SELECT rolname, rolpassword, \
    CASE WHEN rolvaliduntil < pg_catalog.now() THEN 'expired' END \
    FROM pg_catalog.pg_authid WHERE rolcanlogin ORDER BY rolname";
/// Permissions of the file.
const FILE_MODE: u32 = 0o600;
/// The most roles that are taken from a server: a limit on memory, not on use.
const ROLES_MAX: usize = 1_000_000;

/// Does what `pgweir userlist` asks for, and says what went wrong.
pub fn run(wanted: &Userlist) -> ExitCode {
    match try_run(wanted) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pgweir userlist: {error}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(wanted: &Userlist) -> Result<(), Box<dyn std::error::Error>> {
    let password = std::env::var("PGPASSWORD").ok().map(Zeroizing::new);
    let source = Source::parse(&wanted.from, password)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let roles = runtime.block_on(fetch(&source))?;
    let list = List::of(&roles, &wanted.roles);
    for remark in &list.remarks {
        eprintln!("pgweir userlist: {remark}");
    }
    match &wanted.output {
        Some(path) => replace(path, &list.text).map_err(|error| {
            let path = path.display();
            format!("could not write {path}: {error}")
        })?,
        None => io::stdout().write_all(&list.text)?,
    }
    Ok(())
}

/// A role that can log in. Names and secrets are bytes in the server's encoding, as in the StartupMessage.
struct Role {
    name: Vec<u8>,
    secret: Option<Zeroizing<Vec<u8>>>,
    is_expired: bool,
}

/// Why there are no roles.
#[derive(Debug)]
enum FetchError {
    Connect(ConnectError),
    Refused(String),
    Protocol,
    Broken(String),
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FetchError::Connect(error) => write!(f, "could not connect: {error}"),
            FetchError::Refused(text) => write!(f, "the server says: {text}"),
            FetchError::Protocol => f.write_str("the server gives no proper answer"),
            FetchError::Broken(text) => write!(f, "the connection broke: {text}"),
        }
    }
}

impl std::error::Error for FetchError {}

async fn fetch(source: &Source) -> Result<Vec<Role>, FetchError> {
    let broken = |error: &dyn fmt::Display| FetchError::Broken(error.to_string());
    let plan = source.plan().map_err(|text| broken(&text))?;
    let answer = tokio::time::timeout(source.patience(), async {
        let fresh = connect::connect(plan).await.map_err(FetchError::Connect)?;
        let mut stream = fresh.stream.attach().map_err(|error| broken(&error))?;
        let mut query = Vec::new();
        build::query(&mut query, ROLES_QUERY);
        stream
            .write_all(&query)
            .await
            .map_err(|error| broken(&error))?;
        let mut inbox = Inbox::new(stream);
        let mut roles = Vec::new();
        loop {
            let message = inbox.message(LOGIN_MESSAGE_MAX).await;
            let (tag, body) = message.map_err(|error| broken(&error))?;
            match tag {
                b'D' if roles.len() < ROLES_MAX => {
                    roles.push(role(&body).ok_or(FetchError::Protocol)?);
                }
                b'Z' => break,
                b'T' | b'C' | b'N' | b'S' => {}
                b'E' => return Err(FetchError::Refused(error_text(&body))),
                _ => return Err(FetchError::Protocol),
            }
        }
        let mut goodbye = Vec::new();
        build::terminate(&mut goodbye);
        let _ = inbox.write_all(&goodbye).await;
        Ok(roles)
    });
    let late = |_| Err(FetchError::Broken("timeout".to_owned()));
    answer.await.unwrap_or_else(late)
}

fn error_text(body: &[u8]) -> String {
    let message = read::error_fields(body).message.unwrap_or_default();
    // It may be a stranger's words on our terminal.
    let text = String::from_utf8_lossy(message);
    text.chars().filter(|c| !c.is_control()).collect()
}

fn role(body: &[u8]) -> Option<Role> {
    let [name, secret, expired] = columns(body)?;
    Some(Role {
        name: name?.to_vec(),
        secret: secret.map(|secret| Zeroizing::new(secret.to_vec())),
        is_expired: expired.is_some(),
    })
}

/// The values of a DataRow with so many columns; `None` for anything else.
fn columns<const N: usize>(body: &[u8]) -> Option<[Option<&[u8]>; N]> {
    let (number, mut rest) = body.split_first_chunk()?;
    if usize::from(u16::from_be_bytes(*number)) != N {
        return None;
    }
    let mut values = [None; N];
    for value in &mut values {
        let (len, after) = rest.split_first_chunk()?;
        rest = after;
        // Minus one is NULL.
        if let Ok(len) = usize::try_from(i32::from_be_bytes(*len)) {
            let (bytes, after) = rest.split_at_checked(len)?;
            *value = Some(bytes);
            rest = after;
        }
    }
    rest.is_empty().then_some(values)
}

/// The file to be, and what is not in it.
struct List {
    text: Zeroizing<Vec<u8>>,
    remarks: Vec<String>,
}

impl List {
    /// The lines of these roles, or of those among them that are named.
    fn of(roles: &[Role], named: &[String]) -> List {
        let mut list = List {
            text: Zeroizing::default(),
            remarks: Vec::new(),
        };
        let is_wanted =
            |role: &&Role| named.is_empty() || named.iter().any(|n| n.as_bytes() == role.name);
        for role in roles.iter().filter(is_wanted) {
            if let Err(why) = list.add(role) {
                let name = String::from_utf8_lossy(&role.name);
                list.remarks.push(format!("left out: {name:?} {why}"));
            }
        }
        for name in named {
            if !roles.iter().any(|role| role.name == name.as_bytes()) {
                list.remarks
                    .push(format!("there is no role {name:?} that can log in"));
            }
        }
        list
    }

    fn add(&mut self, role: &Role) -> Result<(), &'static str> {
        let secret = role.secret.as_ref().filter(|secret| !secret.is_empty());
        let secret = secret.ok_or("has no password")?;
        if role.is_expired {
            return Err("has a password that is no longer valid");
        }
        let mut line = Zeroizing::new(Vec::with_capacity(role.name.len() + secret.len() + 16));
        quote(&mut line, &role.name);
        line.push(b' ');
        quote(&mut line, secret);
        // The reader has the last word: a name with a newline, or one that is too long, would spoil the whole file.
        let (read_back, problems) = AuthFile::parse(&line);
        if !problems.is_empty() || read_back.len() != 1 || read_back.lookup(&role.name).is_none() {
            return Err("cannot stand in an auth_file");
        }
        self.text.extend_from_slice(&line);
        self.text.push(b'\n');
        Ok(())
    }
}

fn quote(line: &mut Vec<u8>, text: &[u8]) {
    line.push(b'"');
    for byte in text {
        if *byte == b'"' {
            line.push(b'"');
        }
        line.push(*byte);
    }
    line.push(b'"');
}

/// A file that is removed unless it gets its name.
struct Draft {
    path: PathBuf,
    is_done: bool,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_done {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Writes a file of which nobody ever sees a part, readable for its owner only. Who owned the old one owns the new one.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut draft_name = std::ffi::OsString::from(".");
    draft_name.push(name);
    draft_name.push(format!(".{}", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(FILE_MODE);
    let mut draft = Draft {
        path: path.with_file_name(draft_name),
        is_done: false,
    };
    let mut file = options
        .open(&draft.path)
        .inspect_err(|_| draft.is_done = true)?;
    file.write_all(text)?;
    keep_owner(path, &file)?;
    file.sync_all()?;
    std::fs::rename(&draft.path, path)?;
    draft.is_done = true;
    Ok(())
}

fn keep_owner(old: &Path, new: &File) -> io::Result<()> {
    let Ok(old) = std::fs::metadata(old) else {
        return Ok(());
    };
    let made = new.metadata()?;
    if (old.uid(), old.gid()) == (made.uid(), made.gid()) {
        return Ok(());
    }
    std::os::unix::fs::fchown(new, Some(old.uid()), Some(old.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn role(name: &str, secret: Option<&str>) -> Role {
        Role {
            name: name.into(),
            secret: secret.map(|secret| Zeroizing::new(secret.into())),
            is_expired: false,
        }
    }

    #[test]
    fn the_lines_of_a_list() {
        let mut roles = vec![
            role("ann", Some("md5x")),
            role("b\"ob", Some("p\"w")),
            role("cat", None),
            role("dan", Some("")),
            role("e\nve", Some("x")),
            role("fay", Some("x")),
        ];
        roles[5].is_expired = true;
        let list = List::of(&roles, &[]);
        let text = String::from_utf8_lossy(&list.text);
        assert_eq!(text, "\"ann\" \"md5x\"\n\"b\"\"ob\" \"p\"\"w\"\n");
        assert_eq!(list.remarks.len(), 4, "{:?}", list.remarks);
        let list = List::of(&roles, &["ann".into(), "zoe".into()]);
        assert_eq!(&list.text[..], b"\"ann\" \"md5x\"\n");
        assert_eq!(list.remarks, ["there is no role \"zoe\" that can log in"]);
    }

    #[test]
    fn rows() {
        let mut row = Vec::new();
        let values = [Some(&b"a"[..]), None, Some(b"")];
        build::data_row(&mut row, values.into_iter());
        let body = &row[5..];
        assert_eq!(columns(body), Some(values));
        assert_eq!(columns::<2>(body), None);
        for end in 0..body.len() {
            assert_eq!(columns::<3>(&body[..end]), None);
        }
        assert_eq!(columns::<3>(&[body, b"x"].concat()), None);
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.txt");
        std::fs::write(&path, "old").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, FILE_MODE);
        assert!(replace(&dir.path().join("no/such"), b"x").is_err());
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        assert!(replace(&dir.path().join("dir"), b"x").is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(names in proptest::collection::vec("\\PC{1,20}|[\"\\n;']{1,5}", 0..8), secret in "\\PC{1,30}") {
            let roles: Vec<Role> = names.iter().map(|name| role(name, Some(&secret))).collect();
            let list = List::of(&roles, &[]);
            let (read_back, problems) = AuthFile::parse(&list.text);
            prop_assert_eq!(problems, vec![]);
            for name in names.iter().filter(|name| !name.contains('\n')) {
                prop_assert!(read_back.lookup(name).is_some() || list.remarks.iter().any(|r| r.contains("cannot")));
            }
        }

        #[test]
        fn no_row_panics(body: Vec<u8>) {
            let _ = columns::<3>(&body);
        }
    }
}
