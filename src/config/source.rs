//! The readers: from a file (ini with its includes, or TOML, by extension) into a [`Draft`].
//!
//! This is the only part of reading that touches the file system. The dialects are in [`super::ini`] and
//! [`super::toml`]; what is done with what they say, in [`super::draft`].

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use zeroize::Zeroizing;

use super::connstr;
use super::container;
use super::draft::{Draft, Pair};
use super::ini::{Statement, statements};
use super::problem::{Place, Problem};
use super::toml;
use super::value::Raw;

/// How deep `%include` may be nested.
const INCLUDE_DEPTH_MAX: usize = 10;
/// How many files `%include` may bring in altogether.
const INCLUDES_MAX: usize = 1000;
/// The longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Whether a file is written in TOML; otherwise it is an ini file.
pub fn is_toml(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("toml"))
}

/// Reads the file at `path`, and what it includes, into the draft.
pub fn read(path: &Path, draft: &mut Draft) {
    let name = path.display().to_string();
    let bytes = match read_file(path, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) => {
            return draft.problem(Problem::new(&Place::none(), cannot_load(&name, &error)));
        }
    };
    match is_toml(path) {
        true => toml::read(&bytes, &name, draft),
        false => IniReader::new(draft).read(&bytes, &name, 0),
    }
}

/// The files that reading `path` takes in: itself and what it includes, whether or not they are there and free of mistakes; for the
/// environment, those that this process's variables name.
pub fn files(path: &Path) -> Vec<PathBuf> {
    if container::is_environment(path) {
        return container::files(&super::environment::variables());
    }
    let mut found = Vec::new();
    gather_files(path, 0, &mut found);
    found
}

fn gather_files(path: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    if depth > INCLUDE_DEPTH_MAX || found.len() > INCLUDES_MAX {
        return;
    }
    found.push(path.to_owned());
    if is_toml(path) {
        return;
    }
    let Ok(bytes) = read_file(path, FILE_BYTES_MAX) else {
        return;
    };
    for (_, statement) in statements(&bytes) {
        if let Statement::Include(included) = statement {
            gather_files(Path::new(included), depth + 1, found);
        }
    }
}

/// Reads ini text without includes: for tests and for text that is no file.
#[cfg(test)]
pub fn read_ini(bytes: &[u8], name: &str, draft: &mut Draft) {
    IniReader::new(draft).read(bytes, name, 0);
}

/// What a file of at most so many bytes holds.
pub fn read_file(path: &Path, bytes_max: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    let expected = file.metadata()?.len().min(bytes_max);
    // Sized at once, so that growing leaves no copies of passwords behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(
        usize::try_from(expected).unwrap_or(0) + 1,
    ));
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > bytes_max {
        true => Err(io::Error::from(io::ErrorKind::FileTooLarge)),
        false => Ok(bytes),
    }
}

fn cannot_load(name: &str, error: &io::Error) -> String {
    format!("could not load file \"{name}\": {}", reason(error))
}

/// The system's words for an error, as C prints them.
pub fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => Errno::from_raw(code).desc().to_owned(),
        None => error.to_string(),
    }
}

/// The section that a line stands in; it outlives the file that opened it.
#[derive(Clone, Copy, PartialEq)]
enum Section {
    None,
    Main,
    Databases,
    Users,
    Peers,
    /// Reported once; what stands in it is skipped.
    Unknown,
}

struct IniReader<'a> {
    draft: &'a mut Draft,
    section: Section,
    includes: usize,
}

impl<'a> IniReader<'a> {
    fn new(draft: &'a mut Draft) -> Self {
        Self {
            draft,
            section: Section::None,
            includes: 0,
        }
    }

    fn read(&mut self, bytes: &[u8], file: &str, depth: usize) {
        for (line, statement) in statements(bytes) {
            let place = Place::line(file, line);
            match statement {
                Statement::Section(name) => self.open(name, &place),
                Statement::Assign { key, value } => self.assign(key, value, &place),
                Statement::Include(path) => self.include(Path::new(path), &place, depth + 1),
                Statement::Wrong(hint) => {
                    let problem = Problem::new(&place, "syntax error in configuration");
                    self.draft.problem(problem.hint(hint));
                }
            }
        }
    }

    fn open(&mut self, name: &str, place: &Place) {
        self.section = match name {
            "pgbouncer" => Section::Main,
            "databases" => Section::Databases,
            "users" => Section::Users,
            "peers" => Section::Peers,
            _ => Section::Unknown,
        };
        match self.section {
            Section::Main => self.draft.main_section(place),
            Section::Unknown => {
                let text = format!("invalid section \"{name}\" in configuration");
                self.draft.problem(Problem::new(place, text));
            }
            _ => {}
        }
    }

    fn assign(&mut self, key: &str, value: &str, place: &Place) {
        match self.section {
            Section::Main => self.draft.setting(key, &Raw::plain(value), place),
            Section::None => {
                self.draft
                    .problem(Problem::new(place, format!("value without section: {key}")));
            }
            Section::Unknown => {}
            section => self.entry(section, key, value, place),
        }
    }

    fn entry(&mut self, section: Section, name: &str, value: &str, place: &Place) {
        let Some(pairs) = pairs(value, place) else {
            let what = match section {
                Section::Users => "user settings",
                _ => "connection string",
            };
            let text = format!("syntax error in {what} of \"{name}\"");
            return self.draft.problem(Problem::new(place, text));
        };
        match section {
            Section::Users => self.draft.user(name, &pairs, place),
            Section::Peers => self.draft.peer(name, &pairs, place),
            _ => self.draft.database(name, &pairs, place),
        }
    }

    fn include(&mut self, path: &Path, place: &Place, depth: usize) {
        self.includes += 1;
        if depth > INCLUDE_DEPTH_MAX {
            return self
                .draft
                .problem(Problem::new(place, "include nesting level too deep"));
        }
        if self.includes > INCLUDES_MAX {
            // Once is enough: every file that is still being read could say it again.
            if self.includes == INCLUDES_MAX + 1 {
                self.draft.problem(Problem::new(
                    place,
                    format!("more than {INCLUDES_MAX} included files"),
                ));
            }
            return;
        }
        let name = path.display().to_string();
        match read_file(path, FILE_BYTES_MAX) {
            Ok(bytes) => self.read(&bytes, &name, depth),
            Err(error) => self
                .draft
                .problem(Problem::new(place, cannot_load(&name, &error))),
        }
    }
}

/// The pairs of a connect string, all at the same place; `None` for a syntax error.
pub fn pairs(text: &str, place: &Place) -> Option<Vec<Pair>> {
    let pairs = connstr::parse(text).ok()?;
    let pair = |(key, value): connstr::Pair<'_>| Pair {
        key: key.to_owned(),
        value: Raw::Plain(value),
        place: place.clone(),
    };
    Some(pairs.into_iter().map(pair).collect())
}
