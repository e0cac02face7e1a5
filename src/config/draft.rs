//! A configuration in the making: takes what the readers find, in their order, and collects every mistake.
//!
//! The ini reader, the TOML reader and the environment all end up here, so that a setting means the same wherever it
//! was written. Nothing of a draft is used before [`Draft::finish`] has found it free of mistakes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::effective::Config;
use super::entry::{
    DATABASE_KEYS, Database, Key, PEER_KEYS, Peer, USER_KEYS, USER_NAME_MAX, UserSettings,
    check_database_name, find_key,
};
use super::problem::{Note, Place, Problem};
use super::row::Remark;
use super::secret::Secret;
use super::settings::Settings;
use super::table::{RETIRED, SETTINGS, find};
use super::value::Raw;

/// The name of the fallback entry in `[databases]`.
const FALLBACK: &str = "*";
/// After this many mistakes the rest is only counted.
const PROBLEMS_MAX: usize = 200;

/// A key of an entry, its value and its place.
pub struct Pair {
    /// As it was written.
    pub key: String,
    /// As it was written.
    pub value: Raw,
    /// Where.
    pub place: Place,
}

/// Where everything was written last.
#[derive(Debug, Default)]
pub struct Places {
    /// Settings of the main section.
    pub settings: BTreeMap<&'static str, Place>,
    /// Database entries, `*` included.
    pub databases: BTreeMap<String, Place>,
    /// User entries.
    pub users: BTreeMap<String, Place>,
}

impl Places {
    /// Where a setting was written; nowhere, if it has its default.
    pub fn setting(&self, name: &str) -> Place {
        self.settings.get(name).cloned().unwrap_or_default()
    }

    /// Where a database entry was written.
    pub fn database(&self, name: &str) -> Place {
        self.databases.get(name).cloned().unwrap_or_default()
    }

    /// Where a user entry was written.
    pub fn user(&self, name: &str) -> Place {
        self.users.get(name).cloned().unwrap_or_default()
    }
}

/// A configuration in the making.
#[derive(Default)]
pub struct Draft {
    config: Config,
    places: Places,
    main_section: Option<Place>,
    problems: Vec<Problem>,
    problems_dropped: usize,
    notes: Vec<Note>,
}

/// A draft that turned out well.
pub struct Finished {
    /// The configuration.
    pub config: Config,
    /// Where everything was written.
    pub places: Places,
    /// What is worth knowing.
    pub notes: Vec<Note>,
}

impl Draft {
    /// The settings as far as they could be read, mistakes or not.
    pub fn into_settings(self) -> Settings {
        self.config.settings
    }

    /// Adds a mistake.
    pub fn problem(&mut self, problem: Problem) {
        match self.problems.len() < PROBLEMS_MAX {
            true => self.problems.push(problem),
            false => self.problems_dropped += 1,
        }
    }

    /// Adds something worth knowing.
    pub fn note(&mut self, note: Note) {
        self.notes.push(note);
    }

    /// Begins the main section. As in PgBouncer, each such heading gives every setting that has a default this
    /// default back.
    pub fn main_section(&mut self, place: &Place) {
        if let Some(first) = self.main_section.replace(place.clone()) {
            let text = format!(
                "a second [pgbouncer] section: the settings of the first{first} are forgotten"
            );
            self.note(Note::warning(place, text));
        }
        let fresh = Settings::default();
        for row in SETTINGS.iter().filter(|row| row.default.is_some()) {
            row.copy(&mut self.config.settings, &fresh);
            self.places.settings.remove(row.name);
        }
    }

    /// Takes a setting of the main section.
    pub fn setting(&mut self, name: &str, raw: &Raw, place: &Place) {
        let Some(row) = find(name) else {
            let problem = Problem::new(place, format!("unknown parameter: pgbouncer/{name}"));
            let retired = RETIRED.iter().find(|(retired, _)| *retired == name);
            let hint = retired
                .map(|(_, why)| (*why).to_owned())
                .or_else(|| did_you_mean(name));
            return self.problem(Problem { hint, ..problem });
        };
        if let Err(hint) = row.read(&mut self.config.settings, raw) {
            let text = format!(
                "invalid value \"{}\" for parameter {name} in configuration",
                raw.shown()
            );
            return self.problem(Problem::new(place, text).hint(hint));
        }
        if let Some(first) = self.places.settings.insert(row.name, place.clone())
            && first.file == place.file
        {
            self.note(Note::warning(
                place,
                format!("{name} is set again, the first{first} has no effect"),
            ));
        }
    }

    /// Gives a setting a value that holds if nothing is said about it, before or after.
    pub fn default_setting(&mut self, name: &str, raw: &Raw) {
        if let Some(row) = find(name)
            && !self.places.settings.contains_key(row.name)
            && let Err(hint) = row.read(&mut self.config.settings, raw)
        {
            let text = format!("invalid value \"{}\" for parameter {name}", raw.shown());
            self.problem(Problem::new(&Place::none(), text).hint(hint));
        }
    }

    /// Takes lines as of an auth_file.
    pub fn userlist(&mut self, lines: Secret) {
        self.config.userlist = (!lines.expose().is_empty()).then_some(lines);
    }

    /// Takes an entry of `[databases]`.
    pub fn database(&mut self, name: &str, pairs: &[Pair], place: &Place) {
        if let Err(text) = check_database_name(name) {
            return self.problem(Problem::new(place, text));
        }
        let mut entry = Database::new(name);
        self.pairs(
            &mut entry,
            DATABASE_KEYS,
            pairs,
            "connection",
            &format!("database \"{name}\""),
        );
        if let Some(first) = self.places.databases.insert(name.to_owned(), place.clone()) {
            let text =
                format!("database \"{name}\" is defined again, the first{first} has no effect");
            self.note(Note::warning(place, text));
        }
        let entry = Arc::new(entry);
        match name {
            FALLBACK => self.config.autodb = Some(entry),
            _ => drop(self.config.databases.insert(name.to_owned(), entry)),
        }
    }

    /// Takes an entry of `[users]`.
    pub fn user(&mut self, name: &str, pairs: &[Pair], place: &Place) {
        if name.is_empty() || name.len() > USER_NAME_MAX {
            let text = format!("user name must have 1 to {USER_NAME_MAX} bytes: {name}");
            return self.problem(Problem::new(place, text));
        }
        let mut entry = UserSettings::default();
        self.pairs(
            &mut entry,
            USER_KEYS,
            pairs,
            "user",
            &format!("user \"{name}\""),
        );
        if let Some(first) = self.places.users.insert(name.to_owned(), place.clone()) {
            let text = format!("user \"{name}\" is defined again, the first{first} has no effect");
            self.note(Note::warning(place, text));
        }
        self.config.users.insert(name.to_owned(), entry);
    }

    /// Takes an entry of `[peers]`.
    pub fn peer(&mut self, id: &str, pairs: &[Pair], place: &Place) {
        let number = match id.parse() {
            Ok(number) if number > 0 => number,
            _ => {
                let text =
                    format!("ids of peers must be a number larger than 0 and at most 65535: {id}");
                return self.problem(Problem::new(place, text));
            }
        };
        let mut entry = Peer::new();
        self.pairs(
            &mut entry,
            PEER_KEYS,
            pairs,
            "connection",
            &format!("peer {id}"),
        );
        if !pairs.iter().any(|pair| pair.key == "host") {
            self.problem(Problem::new(
                place,
                format!("host was not provided for peer {id}"),
            ));
        }
        self.config.peers.insert(number, entry);
    }

    fn pairs<E>(
        &mut self,
        entry: &mut E,
        keys: &'static [Key<E>],
        pairs: &[Pair],
        what: &str,
        whose: &str,
    ) {
        for Pair {
            key: name,
            value,
            place,
        } in pairs
        {
            let Some(key) = find_key(keys, name) else {
                let text = format!("unrecognized {what} parameter: {name}, for {whose}");
                self.problem(Problem::new(place, text));
                continue;
            };
            if let Err(hint) = (key.set)(entry, value) {
                // Not a word about the value of a password.
                let shown = if name == "password" {
                    "***".to_owned()
                } else {
                    value.shown()
                };
                let text = format!(
                    "invalid {}: {shown}, for {whose}",
                    name.replace("pool_mode", "pool mode")
                );
                self.problem(Problem::new(place, text).hint(hint));
                continue;
            }
            if let Some(remark) = key.remark {
                self.note(remark_note(&format!("{name} of {whose}"), remark, place));
            }
            self.suspicious_value(name, value, whose, place);
        }
    }

    /// `user= host=x` is read as the user `host=x`, as in PgBouncer: hardly ever what was meant.
    fn suspicious_value(&mut self, key: &str, value: &Raw, whose: &str, place: &Place) {
        let Raw::Plain(text) = value else { return };
        let swallowed = text.split_once('=').is_some_and(|(first, _)| {
            find_key(DATABASE_KEYS, first).is_some() || find_key(USER_KEYS, first).is_some()
        });
        if matches!(key, "host" | "user" | "dbname" | "password")
            && (swallowed || text.contains('\t'))
        {
            let text = format!("{key} of {whose} looks as if it had swallowed the next key");
            self.note(Note::warning(place, text));
        }
    }

    /// Checks the whole, for the file at `path`.
    ///
    /// # Errors
    /// All mistakes, in the order in which they were met.
    pub fn finish(
        mut self,
        path: &Path,
        main_section_needed: bool,
    ) -> Result<Finished, Vec<Problem>> {
        let file = path.display().to_string();
        // Of a file that could not be read at all, that is all there is to say.
        let was_read = self.problems.iter().all(|p| !p.file.is_empty());
        if main_section_needed && self.main_section.is_none() && was_read {
            self.problem(Problem::new(
                &Place::whole(&file),
                "main section missing from config file",
            ));
        }
        for contradiction in self.config.settings.contradictions() {
            let place = self.places.setting(contradiction.setting);
            self.problem(Problem::new(&place, contradiction.text));
        }
        if self.problems_dropped > 0 {
            let text = format!("and {} more mistakes", self.problems_dropped);
            self.problems.push(Problem::new(&Place::whole(&file), text));
        }
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        self.remarks();
        self.config.path = path.to_owned();
        if self.config.settings.conffile.is_none() {
            self.config.settings.conffile = Some(path.to_owned());
        }
        Ok(Finished {
            config: self.config,
            places: self.places,
            notes: self.notes,
        })
    }

    /// A note for each setting that was given a value of its own and that we treat in our own way.
    fn remarks(&mut self) {
        let fresh = Settings::default();
        for row in SETTINGS {
            if let Some(remark) = row.remark
                && let Some(place) = self.places.settings.get(row.name)
                && !row.same(&self.config.settings, &fresh)
            {
                self.notes.push(remark_note(row.name, remark, place));
            }
        }
        for (name, protocols) in [
            (
                "client_tls_protocols",
                self.config.settings.client_tls_protocols,
            ),
            (
                "server_tls_protocols",
                self.config.settings.server_tls_protocols,
            ),
        ] {
            if protocols.has_old() {
                let text =
                    format!("{name}: TLS 1.0 and 1.1 are not available, only 1.2 and 1.3 are used");
                self.notes
                    .push(Note::warning(&self.places.setting(name), text));
            }
        }
    }
}

fn remark_note(name: &str, remark: Remark, place: &Place) -> Note {
    match remark {
        Remark::Ignored(why) => Note::info(place, format!("{name} has no effect: {why}")),
        Remark::Differs(how) => Note::info(place, format!("{name}: {how}")),
        Remark::Missing(what) => Note::warning(place, format!("{name}: {what}")),
    }
}

fn did_you_mean(name: &str) -> Option<String> {
    super::environment::nearest(name).map(|near| format!("did you mean {near}?"))
}
