//! The database and user fields of a rule: names, keywords, and files of names.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Caller, INCLUSION_DEPTH_MAX, Source};
use crate::auth::rule_file::{Fault, Line, Problems, Word};

/// Whom a field means.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    all: bool,
    /// The database that is named as the user.
    same_user: bool,
    /// Physical replication.
    replication: bool,
    names: HashSet<Box<[u8]>>,
}

impl Names {
    pub(super) fn fit_database(&self, caller: &Caller<'_>) -> bool {
        if caller.replication {
            return self.replication;
        }
        self.all
            || (self.same_user && caller.database == caller.user)
            || self.names.contains(caller.database)
    }

    pub(super) fn fit_user(&self, user: &[u8]) -> bool {
        self.all || self.names.contains(user)
    }
}

/// Where a field stands, and where to go on from there.
pub(super) struct Place<'a, 's> {
    pub(super) file: &'a Path,
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) source: &'a mut Source<'s>,
    /// For mistakes in other files; those of the line itself are its reader's to tell.
    pub(super) problems: &'a mut Problems,
}

/// Which field it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Databases,
    Users,
}

/// The words with a meaning in databases, and those that PostgreSQL gives one.
const DATABASE_KEYWORDS: &[&str] = &["all", "sameuser", "replication", "samerole", "samegroup"];
/// The same of users. `sameuser` is a keyword for PgBouncer and a name for PostgreSQL: it must be made clear.
const USER_KEYWORDS: &[&str] = &["all", "sameuser", "samerole", "samegroup"];

pub(super) fn databases(words: &[Word], place: &mut Place<'_, '_>) -> Result<Names, Fault> {
    collect(Field::Databases, words, place)
}

pub(super) fn users(words: &[Word], place: &mut Place<'_, '_>) -> Result<Names, Fault> {
    collect(Field::Users, words, place)
}

fn collect(field: Field, words: &[Word], place: &mut Place<'_, '_>) -> Result<Names, Fault> {
    let mut names = Names::default();
    for word in words {
        match included(word, place.file)? {
            Some(file) => names.include(field, &file, 1, place)?,
            None => names.add(field, word)?,
        }
    }
    Ok(names)
}

/// The file that `@file` means: relative to the folder of the file in which it stands.
fn included(word: &Word, file: &Path) -> Result<Option<PathBuf>, Fault> {
    if !word.begins_with(b'@') {
        return Ok(None);
    }
    let name = Path::new(OsStr::from_bytes(&word.text[1..]));
    match name.as_os_str().is_empty() {
        true => Err("@ without a file name".into()),
        false => Ok(Some(file.parent().unwrap_or(Path::new("")).join(name))),
    }
}

impl Names {
    fn add(&mut self, field: Field, word: &Word) -> Result<(), Fault> {
        let is_database = field == Field::Databases;
        match () {
            _ if word.is("all") => self.all = true,
            _ if is_database && word.is("sameuser") => self.same_user = true,
            _ if is_database && word.is("replication") => self.replication = true,
            _ => {
                let name = plain_name(field, word)?;
                self.names.insert(name.into());
            }
        }
        Ok(())
    }

    /// Takes the names in a file: the same words, any number in a line, with blanks or commas between them.
    ///
    /// Fails if the file can't be had at all, which is a mistake of the line that names it.
    fn include(
        &mut self,
        field: Field,
        file: &Path,
        depth: usize,
        place: &mut Place<'_, '_>,
    ) -> Result<(), Fault> {
        if depth > INCLUSION_DEPTH_MAX {
            return Err(format!("{}: included too deeply", file.display()).into());
        }
        let text = place.source.read(file)?;
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            if let Err(fault) = self.include_line(field, file, line, depth, place) {
                place.problems.add(file, Some(index + 1), fault);
            }
        }
        Ok(())
    }

    fn include_line(
        &mut self,
        field: Field,
        file: &Path,
        line: &[u8],
        depth: usize,
        place: &mut Place<'_, '_>,
    ) -> Result<(), Fault> {
        let mut line = Line::new(line)?;
        while let Some(words) = line.list()? {
            for word in &words {
                match included(word, file)? {
                    Some(next) => self.include(field, &next, depth + 1, place)?,
                    None => self.add(field, word)?,
                }
            }
        }
        Ok(())
    }
}

/// A name, not one of the things that PostgreSQL would understand.
fn plain_name(field: Field, word: &Word) -> Result<&[u8], Fault> {
    let unsupported = match () {
        _ if word.begins_with(b'/') => Some("regular expressions are"),
        _ if word.begins_with(b'+') => Some("groups are"),
        _ if word.is("samerole") || word.is("samegroup") => Some("samerole and samegroup are"),
        _ => None,
    };
    if let Some(what) = unsupported {
        return Err(format!("{what} not supported: {}", word.shown()).into());
    }
    if field == Field::Users && word.is("sameuser") {
        return Err(
            "sameuser is for databases; a user of this name is to be written in quotes".into(),
        );
    }
    word.name(match field {
        Field::Databases => DATABASE_KEYWORDS,
        Field::Users => USER_KEYWORDS,
    })
}
