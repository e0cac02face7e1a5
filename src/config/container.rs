//! A configuration that nobody has written into a file: in a container, variables may say everything.
//!
//! The file named `env:` is such a configuration, for a start, a reload and `pgweir check` alike. [`variables`](super::variables())
//! knows the names; here they become settings, entries of `[databases]` and lines of an auth_file, which stays in memory. The files
//! that `…_FILE` variables name are read anew with every reload. All mistakes are told together, and no message quotes a secret.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::draft::{Draft, Pair};
use super::entry::DATABASE_KEYS;
use super::problem::{Note, Place, Problem};
use super::secret::Secret;
use super::source;
use super::url;
use super::value::Raw;
use super::variables::{FILE_SUFFIX, Meaning, Named, named};

/// The name of the file that is none.
pub const ENVIRONMENT: &str = "env:";
/// The variable that says that this is a container, whatever the file: others reach it over the network only.
pub const MARK: &str = "PGWEIR_CONTAINER";
/// Where a container's file is looked for, in this order; the last is where an image of PgBouncer has it.
pub const FILES: [&str; 4] = [
    "/etc/pgweir/pgweir.toml",
    "/etc/pgweir/pgbouncer.ini",
    "/etc/pgbouncer/pgbouncer.ini",
    "/bitnami/pgbouncer/conf/pgbouncer.ini",
];
/// Longest file that a `…_FILE` variable names, in bytes.
const VALUE_BYTES_MAX: u64 = 1 << 20;
/// The database that stands for any.
const ANY_DATABASE: &str = "*";
/// What a container listens on if nothing says so, and where it has its Unix socket: nowhere.
const DEFAULTS: [(&str, &str); 2] = [("listen_addr", "*"), ("unix_socket_dir", "")];
/// What holds for a configuration from variables if they do not say otherwise. JDBC's driver sends that parameter at every start.
const ENVIRONMENT_DEFAULTS: [(&str, &str); 1] =
    [("ignore_startup_parameters", "extra_float_digits")];

/// Whether a path stands for the environment.
pub fn is_environment(path: &Path) -> bool {
    path == Path::new(ENVIRONMENT)
}

/// The file of a container: the first that is there, else the environment.
pub fn file(is_there: impl Fn(&Path) -> bool) -> PathBuf {
    let found = FILES.iter().map(Path::new).find(|path| is_there(path));
    found.unwrap_or(Path::new(ENVIRONMENT)).to_owned()
}

/// For a file in a container, if the mark is among the variables: settings that nothing has been said about get what fits there,
/// and of variables that would say something without the file it is said that they do not.
pub fn around_file(variables: &[(String, String)], path: &Path, draft: &mut Draft) {
    let is_marked = |(name, value): &(String, String)| name == MARK && value == "1";
    if !variables.iter().any(is_marked) {
        return;
    }
    for (name, value) in DEFAULTS {
        draft.default_setting(name, &Raw::plain(value));
    }
    let is_given = |(name, value): &&(String, String)| {
        let is_ours = matches!(
            named(name),
            Named::Value { .. } | Named::UrlOf { .. } | Named::Line
        );
        is_ours && !value.is_empty()
    };
    let idle: Vec<&str> = variables
        .iter()
        .filter(is_given)
        .map(|(name, _)| name.as_str())
        .collect();
    if !idle.is_empty() {
        let file = path.display();
        let text = format!("no effect beside the file {file}: {}", idle.join(", "));
        draft.note(Note::warning(&Place::none(), text));
    }
}

/// The files that hold values of these variables.
pub fn files(variables: &[(String, String)]) -> Vec<PathBuf> {
    let given = variables.iter().filter(|(_, value)| !value.is_empty());
    let held = given.filter(|(name, _)| {
        matches!(
            named(name),
            Named::Value { is_file: true, .. } | Named::UrlOf { is_file: true, .. }
        )
    });
    held.map(|(_, value)| PathBuf::from(value)).collect()
}

/// The value of a file that a variable names.
pub fn read_value(path: &Path) -> io::Result<Zeroizing<String>> {
    let bytes = source::read_file(path, VALUE_BYTES_MAX)?;
    let text = std::str::from_utf8(&bytes);
    let text = text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))?;
    Ok(Zeroizing::new(
        text.trim_end_matches(['\r', '\n']).to_owned(),
    ))
}

/// Takes a whole configuration from the variables. `read_file` gives what a file holds.
pub fn read(
    variables: &[(String, String)],
    read_file: impl Fn(&Path) -> io::Result<Zeroizing<String>>,
    draft: &mut Draft,
) {
    let mut given = Given::default();
    for (variable, value) in variables.iter().filter(|(_, value)| !value.is_empty()) {
        given.take(variable, value, &read_file, draft);
    }
    given.databases(draft);
    given.operators(draft);
    given.settings(draft);
    given.users(draft);
}

/// A value, and the variable that gave it.
#[derive(Clone)]
struct Found {
    variable: String,
    value: Zeroizing<String>,
}

impl Found {
    fn place(&self) -> Place {
        Place::whole(&self.variable)
    }
}

/// What the variables give, sorted out.
#[derive(Default)]
struct Given {
    /// What there is one of.
    values: Vec<(Meaning, Found)>,
    /// URLs, each with the name that clients use, if that is not the database's own.
    urls: Vec<(Option<String>, Found)>,
    /// Lines of `[databases]`.
    lines: Vec<Found>,
    /// Settings by name.
    settings: BTreeMap<&'static str, Found>,
    /// Settings that are given behind our prefix, which win.
    ours: BTreeMap<&'static str, String>,
    /// Who can log in, with what.
    users: BTreeMap<String, Found>,
    /// Users from URLs and the like of whom no password is known.
    without_password: Vec<(String, Place)>,
}

/// The fields of a database's entry on the way to it.
#[derive(Default)]
struct Parts {
    name: Option<String>,
    user: Option<String>,
    password: Option<Found>,
    pairs: Vec<Pair>,
}

impl Given {
    /// Sorts one variable in.
    fn take(
        &mut self,
        variable: &str,
        value: &str,
        read_file: impl Fn(&Path) -> io::Result<Zeroizing<String>>,
        draft: &mut Draft,
    ) {
        let place = Place::whole(variable);
        // Kubernetes gives every container such addresses of services, by names that services have.
        if variable.ends_with("_PORT") && value.starts_with("tcp://") {
            return;
        }
        let found = |is_file: bool| -> Result<Found, Problem> {
            let value = match is_file {
                false => Zeroizing::new(value.to_owned()),
                true => read_file(Path::new(value)).map_err(|error| {
                    let reason = source::reason(&error);
                    Problem::new(&place, format!("could not read file \"{value}\": {reason}"))
                })?,
            };
            Ok(Found {
                variable: variable.to_owned(),
                value,
            })
        };
        let outcome = match named(variable) {
            Named::Value { meaning, is_file } => {
                found(is_file).and_then(|found| self.value(meaning, found, draft))
            }
            Named::UrlOf { name, is_file } => {
                found(is_file).map(|found| self.urls.push((Some(name), found)))
            }
            Named::Line => found(false).map(|found| self.lines.push(found)),
            Named::Ours(setting) => {
                self.ours.insert(setting, value.to_owned());
                Ok(())
            }
            Named::Misspelt { near, is_mistake } => {
                let text = format!("{variable} means nothing: did you mean {near}?");
                match is_mistake {
                    true => Err(Problem::new(&place, text)),
                    false => {
                        draft.note(Note::warning(&Place::none(), text));
                        Ok(())
                    }
                }
            }
            Named::Unknown => {
                draft.note(Note::info(&place, format!("{variable} is not a setting")));
                Ok(())
            }
            Named::Foreign => Ok(()),
        };
        if let Err(problem) = outcome {
            draft.problem(problem);
        }
    }

    fn value(&mut self, meaning: Meaning, found: Found, draft: &mut Draft) -> Result<(), Problem> {
        match meaning {
            Meaning::Url => self.urls.push((None, found)),
            Meaning::Urls => {
                let each = split_urls(&found.value);
                self.urls.extend(each.map(|url| {
                    let value = Zeroizing::new(url.to_owned());
                    let variable = found.variable.clone();
                    (None, Found { variable, value })
                }));
            }
            Meaning::Setting(name) => return self.setting(name, found),
            Meaning::Ignored => {
                let text = format!("{} has no effect", found.variable);
                draft.note(Note::info(&Place::none(), text));
            }
            _ => match self.values.iter().find(|(other, _)| *other == meaning) {
                Some((_, other)) if *other.value != *found.value => {
                    return Err(disagree(other, &found));
                }
                Some(_) => {}
                None => self.values.push((meaning, found)),
            },
        }
        Ok(())
    }

    fn setting(&mut self, name: &'static str, found: Found) -> Result<(), Problem> {
        match self.settings.get(name) {
            Some(other) if *other.value != *found.value => Err(disagree(other, &found)),
            _ => {
                self.settings.insert(name, found);
                Ok(())
            }
        }
    }

    fn get(&self, meaning: Meaning) -> Option<Found> {
        let found = self.values.iter().find(|(other, _)| *other == meaning);
        found.map(|(_, found)| found.clone())
    }

    /// What will hold for a setting.
    fn setting_text(&self, name: &str) -> Option<&str> {
        let ours = self.ours.get(name).map(String::as_str);
        ours.or_else(|| self.settings.get(name).map(|found| found.value.as_str()))
    }

    fn databases(&mut self, draft: &mut Draft) {
        let lines = std::mem::take(&mut self.lines);
        let mut urls = std::mem::take(&mut self.urls);
        // The one that the single values complete.
        let main = urls
            .iter()
            .position(|(_, found)| found.variable.trim_end_matches(FILE_SUFFIX) == "DATABASE_URL");
        let main = main.map(|at| urls.remove(at).1);
        let is_main = main.is_some() || self.get(Meaning::Host).is_some();
        if !is_main && urls.is_empty() && lines.is_empty() {
            let files = FILES[..3].join(", ");
            let problem = Problem::new(&Place::none(), "nothing says where PostgreSQL is");
            return draft.problem(
                problem.hint(format!("give DATABASE_URL or DB_HOST, or a file: {files}")),
            );
        }
        if is_main {
            self.main_database(main.as_ref(), draft);
        }
        for (name, url) in &urls {
            let Some(mut parts) = self.url_parts(url, draft) else {
                continue;
            };
            parts.name = name.clone().or(parts.name);
            self.database(parts, &url.place(), draft);
        }
        for line in &lines {
            database_line(line, draft);
        }
    }

    /// The database of `DATABASE_URL`, or of `DB_HOST` and the like; these also complete the URL.
    fn main_database(&mut self, url: Option<&Found>, draft: &mut Draft) {
        let mut parts = Parts::default();
        if let Some(url) = url {
            match self.url_parts(url, draft) {
                Some(said) => parts = said,
                None => return,
            }
        }
        let mut place = url.map(Found::place);
        for (meaning, key) in [
            (Meaning::Host, "host"),
            (Meaning::Port, "port"),
            (Meaning::Dbname, "dbname"),
        ] {
            let Some(found) = self.get(meaning) else {
                continue;
            };
            place.get_or_insert_with(|| found.place());
            let said = parts.pairs.iter().find(|pair| pair.key == key);
            match said.map(|pair| pair.value == raw(&found.value)) {
                Some(true) => {}
                Some(false) => draft.note(no_effect(&found)),
                None => parts.pairs.push(pair(key, &found)),
            }
        }
        let user = self.get(Meaning::User);
        let is_other = |found: &Found| {
            parts
                .user
                .as_ref()
                .is_some_and(|user| **user != *found.value)
        };
        let other_user = user.clone().filter(is_other);
        parts.user = parts
            .user
            .or_else(|| user.map(|found| found.value.to_string()));
        if let Some(found) = self.get(Meaning::Password) {
            // The password is that user's.
            let has_place = other_user.is_none();
            match &parts.password {
                None if has_place => parts.password = Some(found),
                Some(said) if has_place && *said.value == *found.value => {}
                _ => draft.note(no_effect(&found)),
            }
        }
        if let Some(found) = &other_user {
            draft.note(no_effect(found));
        }
        for key in DATABASE_KEYS {
            if let Some(found) = self.get(Meaning::Key(key.name)) {
                parts.pairs.push(pair(key.name, &found));
            }
        }
        let dbname = parts.pairs.iter().find(|pair| pair.key == "dbname");
        let dbname = dbname.and_then(|pair| pair.value.text().ok().map(str::to_owned));
        let name = self.get(Meaning::Name).map(|found| found.value.to_string());
        parts.name = name.or(dbname).or(parts.name);
        if let Some(found) = self.get(Meaning::ForceUser)
            && is_yes(&found, draft)
            && let Some(user) = &parts.user
        {
            let user = Found {
                value: Zeroizing::new(user.clone()),
                ..found
            };
            parts.pairs.push(pair("user", &user));
        }
        let place = place.unwrap_or_default();
        self.database(parts, &place, draft);
    }

    /// Makes an entry, and remembers who logs in to it.
    fn database(&mut self, mut parts: Parts, place: &Place, draft: &mut Draft) {
        if !parts.pairs.iter().any(|pair| pair.key == "host") {
            draft.problem(Problem::new(place, "no host is named"));
        }
        let name = parts.name.as_deref().unwrap_or(ANY_DATABASE);
        if name == ANY_DATABASE {
            parts.pairs.retain(|pair| pair.key != "dbname");
        }
        // Where nobody shows a password, or somebody else checks it, the server gets the one that is known.
        let shows_none = matches!(self.setting_text("auth_type"), Some("any" | "pam"));
        if let (true, Some(user)) = (shows_none, &parts.user) {
            let mut force = |key: &str, value: &str| {
                parts.pairs.push(Pair {
                    key: key.to_owned(),
                    value: raw(value),
                    place: place.clone(),
                });
            };
            force("user", user);
            if let Some(password) = &parts.password {
                force("password", &password.value);
            }
        }
        draft.database(name, &parts.pairs, place);
        match (parts.user, parts.password) {
            (Some(user), Some(password)) => self.user(user, password, draft),
            (Some(user), None) => self.without_password.push((user, place.clone())),
            (None, Some(password)) => {
                draft.problem(Problem::new(&password.place(), "a password, but no user"));
            }
            (None, None) => {}
        }
    }

    /// A user who can log in.
    fn user(&mut self, user: String, password: Found, draft: &mut Draft) {
        if password.value.contains(['\n', '\0']) {
            draft.problem(Problem::new(
                &password.place(),
                "a password of several lines",
            ));
            return;
        }
        if let Some(other) = self.users.get(&user)
            && *other.value != *password.value
        {
            let text = format!(
                "two passwords for \"{user}\": {} has another",
                other.variable
            );
            draft.problem(Problem::new(&password.place(), text));
            return;
        }
        self.users.insert(user, password);
    }

    /// What a URL says; settings in it go to the settings.
    fn url_parts(&mut self, url: &Found, draft: &mut Draft) -> Option<Parts> {
        let mut parts = Parts::default();
        let pairs = match url::parse(&url.value) {
            Ok(pairs) => pairs,
            Err(error) => {
                draft.problem(
                    Problem::new(&url.place(), "not a URL of PostgreSQL").hint(error.to_string()),
                );
                return None;
            }
        };
        for (key, value) in pairs {
            let found = Found {
                variable: url.variable.clone(),
                value,
            };
            match key.as_str() {
                "user" => parts.user = Some(found.value.to_string()),
                "password" => parts.password = Some(found),
                "dbname" => {
                    parts.name = Some(found.value.to_string());
                    parts.pairs.push(pair("dbname", &found));
                }
                "port" => match one_port(&found) {
                    Some(port) => parts.pairs.push(pair("port", &port)),
                    None => {
                        let text = "all hosts of a URL must have the same port";
                        draft.problem(Problem::new(&found.place(), text));
                    }
                },
                "host" | "application_name" | "client_encoding" => {
                    parts.pairs.push(pair(&key, &found));
                }
                _ => self.url_setting(&key, found, draft),
            }
        }
        Some(parts)
    }

    fn url_setting(&mut self, key: &str, found: Found, draft: &mut Draft) {
        let setting = match key {
            "sslmode" => "server_tls_sslmode",
            // The system's authorities are the ones that are used without the setting.
            "sslrootcert" if *found.value == "system" => return,
            "sslrootcert" => "server_tls_ca_file",
            "sslcert" => "server_tls_cert_file",
            "sslkey" => "server_tls_key_file",
            "connect_timeout" => "server_connect_timeout",
            // These say what holds anyway.
            "channel_binding" if matches!(found.value.as_str(), "prefer" | "disable") => return,
            "gssencmode" if matches!(found.value.as_str(), "prefer" | "disable") => return,
            "target_session_attrs" if *found.value == "any" => return,
            _ => {
                let text = format!("the URL has a key that means nothing here: {key}");
                return draft.problem(Problem::new(&found.place(), text));
            }
        };
        if let Err(problem) = self.setting(setting, found) {
            draft.problem(problem);
        }
    }

    /// Passwords of the console's users.
    fn operators(&mut self, draft: &mut Draft) {
        for (meaning, setting) in [
            (Meaning::AdminPassword, "admin_users"),
            (Meaning::StatsPassword, "stats_users"),
        ] {
            let Some(password) = self.get(meaning) else {
                continue;
            };
            let names = Raw::free(self.setting_text(setting).unwrap_or_default()).items();
            let names = names.unwrap_or_default();
            if names.is_empty() {
                let variable = setting.to_ascii_uppercase();
                let text = format!("a password for {setting}, but {variable} is not given");
                draft.problem(Problem::new(&password.place(), text));
            }
            for name in names {
                if !self.users.contains_key(&name) {
                    self.user(name, password.clone(), draft);
                }
            }
        }
    }

    fn settings(&mut self, draft: &mut Draft) {
        let is_md5 = |found: &Found| found.value.len() == 35 && found.value.starts_with("md5");
        // A client that knows only the md5 of a password can't be asked for SCRAM.
        let auth_type = match self.users.values().any(is_md5) {
            true => "md5",
            false => "scram-sha-256",
        };
        draft.default_setting("auth_type", &Raw::plain(auth_type));
        for (name, value) in DEFAULTS.into_iter().chain(ENVIRONMENT_DEFAULTS) {
            draft.default_setting(name, &Raw::plain(value));
        }
        // With a query for passwords, the one user that is known may run it.
        if self.setting_text("auth_query").is_some()
            && self.setting_text("auth_user").is_none()
            && let Some(user) = self.users.keys().next()
        {
            draft.default_setting("auth_user", &Raw::plain(user));
        }
        for (name, found) in &self.settings {
            draft.setting(name, &raw(&found.value), &found.place());
        }
    }

    /// The lines of an auth_file, and who has none though he would need one.
    fn users(&mut self, draft: &mut Draft) {
        let mut lines = String::new();
        if let Some(userlist) = self.get(Meaning::Userlist) {
            lines.push_str(&userlist.value);
            lines.push('\n');
        }
        let mut tellers = ["auth_file", "auth_query", "auth_user"].into_iter();
        let others_tell =
            tellers.any(|name| self.setting_text(name).is_some()) || !lines.is_empty();
        let auth_type = self.setting_text("auth_type").unwrap_or("scram-sha-256");
        let needs_password = matches!(auth_type, "plain" | "md5" | "scram-sha-256");
        for (user, place) in &self.without_password {
            if self.users.contains_key(user) {
                continue;
            }
            if needs_password && !others_tell {
                let text = format!("no password for the user \"{user}\"");
                draft.problem(
                    Problem::new(place, text).hint("give DB_PASSWORD or DB_PASSWORD_FILE"),
                );
            }
            if !others_tell {
                lines.push_str(&line(user, ""));
            }
        }
        for (user, password) in &self.users {
            lines.push_str(&line(user, &password.value));
        }
        draft.userlist(Secret::new(lines));
    }
}

/// A line of an auth_file.
fn line(user: &str, secret: &str) -> String {
    let doubled = |text: &str| text.replace('"', "\"\"");
    format!("\"{}\" \"{}\"\n", doubled(user), doubled(secret))
}

/// `name=host=… port=…`, as it would stand under `[databases]`.
fn database_line(line: &Found, draft: &mut Draft) {
    let place = line.place();
    let named = line.value.split_once('=');
    let read =
        named.and_then(|(name, rest)| Some((name.trim(), source::pairs(rest.trim(), &place)?)));
    match read {
        Some((name, pairs)) => draft.database(name, &pairs, &place),
        None => draft.problem(
            Problem::new(&place, "syntax error in connection string").hint("name=host=… port=…"),
        ),
    }
}

fn raw(value: &str) -> Raw {
    Raw::free(value)
}

fn pair(key: &str, found: &Found) -> Pair {
    Pair {
        key: key.to_owned(),
        value: raw(&found.value),
        place: found.place(),
    }
}

/// The port of every host, if there is one such.
fn one_port(ports: &Found) -> Option<Found> {
    let mut each = ports.value.split(',');
    let first = each.next()?;
    each.all(|port| port == first).then(|| Found {
        value: Zeroizing::new(first.to_owned()),
        ..ports.clone()
    })
}

/// URLs with commas between them; within a URL a comma stands between hosts.
fn split_urls(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let next = text
            .match_indices(',')
            .find(|(at, _)| url::is_url(text[at + 1..].trim_start()));
        let (first, after) = match next {
            Some((at, _)) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        rest = after;
        Some(first.trim())
    })
}

fn is_yes(found: &Found, draft: &mut Draft) -> bool {
    raw(&found.value).flag().unwrap_or_else(|_| {
        draft.problem(Problem::new(&found.place(), "yes or no is expected"));
        false
    })
}

/// Two variables for the same thing.
fn disagree(one: &Found, other: &Found) -> Problem {
    let text = format!("{} says otherwise than {}", other.variable, one.variable);
    Problem::new(&other.place(), text)
}

fn no_effect(found: &Found) -> Note {
    let text = format!(
        "{} has no effect: DATABASE_URL says otherwise",
        found.variable
    );
    Note::warning(&found.place(), text)
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Loaded, load};
    use super::*;
    use proptest::prelude::*;

    const HOST: &[(&str, &str)] = &[("DB_HOST", "h")];

    fn loaded(variables: &[(&str, &str)]) -> Result<Loaded, Vec<String>> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let loaded = load(Path::new(ENVIRONMENT), variables.iter().map(own));
        loaded.map_err(|problems| problems.iter().map(Problem::to_string).collect())
    }

    /// Every database as `name: user@host:port/dbname`, and the lines of users.
    fn shown(config: &Config) -> String {
        let databases = config.databases.values().chain(&config.autodb);
        let databases = databases.map(|db| {
            let user = db.user.as_deref().unwrap_or("?");
            let (host, dbname) = (db.hosts.join("+"), db.server_dbname());
            format!("{}: {user}@{host}:{}/{dbname}\n", db.name, db.port)
        });
        let users = config.userlist.as_ref().map_or("", Secret::expose);
        databases.collect::<String>() + users
    }

    #[track_caller]
    fn check(variables: &[(&str, &str)], expected: &str) {
        match loaded(variables) {
            Ok(loaded) => assert_eq!(shown(&loaded.config).trim_end(), expected, "{variables:?}"),
            Err(problems) => panic!("{variables:?}: {problems:?}"),
        }
    }

    #[track_caller]
    fn check_mistakes(variables: &[(&str, &str)], expected: &[&str]) {
        let problems = loaded(variables).map(|_| ()).unwrap_err();
        assert_eq!(problems, expected, "{variables:?}");
    }

    #[test]
    fn urls() {
        check(
            &[(
                "DATABASE_URL",
                "postgres://app:s%40%22t@db.example:5433/shop",
            )],
            "shop: ?@db.example:5433/shop\n\"app\" \"s@\"\"t\"",
        );
        check(
            &[("DATABASE_URL", "postgres://a:p@h")],
            "*: ?@h:5432/*\n\"a\" \"p\"",
        );
        check(
            &[
                ("DATABASE_URL", "postgres://a:p@h,k/d"),
                ("DATABASE_URL_REPORTS", "postgres://r:q@k:6/warehouse"),
            ],
            "d: ?@h+k:5432/d\nreports: ?@k:6/warehouse\n\"a\" \"p\"\n\"r\" \"q\"",
        );
        check(
            &[(
                "DATABASE_URLS",
                "postgres://a:p@h:1,k:1/d, postgresql://b:q@k/e",
            )],
            "d: ?@h+k:1/d\ne: ?@k:5432/e\n\"a\" \"p\"\n\"b\" \"q\"",
        );
        // What a URL does not say, other variables may.
        check(
            &[("DATABASE_URL", "postgres://a@h/d"), ("DB_PASSWORD", "p")],
            "d: ?@h:5432/d\n\"a\" \"p\"",
        );
    }

    #[test]
    fn names_of_other_images() {
        for prefixed in [
            ["DB_HOST", "DB_PORT", "DB_USER", "DB_PASSWORD", "DB_NAME"],
            [
                "POSTGRESQL_HOST",
                "POSTGRESQL_PORT",
                "POSTGRESQL_USERNAME",
                "POSTGRESQL_PASSWORD",
                "POSTGRESQL_DATABASE",
            ],
            [
                "DATABASES_HOST",
                "DATABASES_PORT",
                "DATABASES_USER",
                "DATABASES_PASSWORD",
                "DATABASES_DBNAME",
            ],
        ] {
            let values = ["h", "5433", "u", "p", "d"];
            let given: Vec<(&str, &str)> = prefixed.into_iter().zip(values).collect();
            check(&given, "d: ?@h:5433/d\n\"u\" \"p\"");
        }
        check(
            &[
                ("PGBOUNCER_DATABASE", "front"),
                ("POSTGRESQL_DATABASE", "d"),
                ("POSTGRESQL_HOST", "h"),
                ("POSTGRESQL_USERNAME", "u"),
                ("POSTGRESQL_PASSWORD", "p"),
                ("PGBOUNCER_SET_DATABASE_USER", "yes"),
                ("PGBOUNCER_USERLIST", "\"x\" \"y\""),
                ("PGBOUNCER_DSN_0", "more=host=k port=7"),
            ],
            "front: u@h:5432/d\nmore: ?@k:7/more\n\"x\" \"y\"\n\"u\" \"p\"",
        );
        // Kubernetes' addresses of services called db and pgbouncer.
        check(
            &[
                ("DB_HOST", "h"),
                ("DB_PORT", "tcp://10.0.0.1:5432"),
                ("PGBOUNCER_PORT", "tcp://10.0.0.2:6432"),
                ("PGBOUNCER_SERVICE_HOST", "10.0.0.2"),
            ],
            "*: ?@h:5432/*",
        );
    }

    #[test]
    fn settings_and_who_wins() {
        let settings =
            |more: &[(&str, &str)]| loaded(&[HOST, more].concat()).unwrap().config.settings;
        let plain = settings(&[]);
        assert_eq!(plain.listen_addr, ["*"]);
        assert_eq!(plain.unix_socket_dir, None);
        assert_eq!(plain.ignore_startup_parameters, ["extra_float_digits"]);
        assert_eq!(plain.auth_type.to_string(), "scram-sha-256");
        let given = settings(&[
            ("LISTEN_ADDR", "127.0.0.1"),
            ("LISTEN_PORT", "5432"),
            ("POOL_MODE", "transaction"),
            ("MAX_CLIENT_CONN", "1000"),
            ("PGBOUNCER_DEFAULT_POOL_SIZE", "7"),
            ("AUTH_TYPE", "md5"),
            ("QUERY_WAIT_TIMEOUT", "5s"),
            ("POOL_SIZE", "9"),
            ("USER", "root"),
            ("PGWEIR_MAX_CLIENT_CONN", "2000"),
        ]);
        assert_eq!(given.listen_addr, ["127.0.0.1"]);
        assert_eq!(given.listen_port, 5432);
        assert_eq!(given.pool_mode.to_string(), "transaction");
        assert_eq!(given.max_client_conn, 2000);
        assert_eq!(given.default_pool_size, 7);
        assert_eq!(given.auth_type.to_string(), "md5");
        assert_eq!(given.query_wait_timeout.as_secs(), 5);
        assert_eq!(given.user, None);
        let url = loaded(&[(
            "DATABASE_URL",
            "postgres://a:p@h/d?sslmode=verify-full&sslrootcert=/ca.crt&channel_binding=prefer",
        )]);
        let url = url.unwrap().config.settings;
        assert_eq!(url.server_tls_sslmode.to_string(), "verify-full");
        assert_eq!(url.server_tls_ca_file, Some("/ca.crt".into()));
    }

    #[test]
    fn operators_and_hashes() {
        let admin = [
            ("DB_HOST", "h"),
            ("ADMIN_USERS", "ops, dba"),
            ("ADMIN_PASSWORD", "x"),
        ];
        check(&admin, "*: ?@h:5432/*\n\"dba\" \"x\"\n\"ops\" \"x\"");
        let hash = "md50123456789abcdef0123456789abcdef";
        let hashed = [("DB_HOST", "h"), ("DB_USER", "u"), ("DB_PASSWORD", hash)];
        let config = loaded(&hashed).unwrap().config;
        assert_eq!(config.settings.auth_type.to_string(), "md5");
        let trusted = [("DB_HOST", "h"), ("DB_USER", "u"), ("AUTH_TYPE", "trust")];
        check(&trusted, "*: ?@h:5432/*\n\"u\" \"\"");
        let any = [
            ("DB_HOST", "h"),
            ("DB_USER", "u"),
            ("DB_PASSWORD", "p"),
            ("AUTH_TYPE", "any"),
        ];
        check(&any, "*: u@h:5432/*\n\"u\" \"p\"");
        let asked = [
            ("DATABASE_URL", "postgres://u:p@h/d"),
            ("AUTH_QUERY", "SELECT 1"),
        ];
        let config = loaded(&asked).unwrap().config;
        assert_eq!(config.settings.auth_user.as_deref(), Some("u"));
    }

    #[test]
    fn every_mistake_is_told_and_no_secret() {
        check_mistakes(
            &[],
            &[
                "nothing says where PostgreSQL is: give DATABASE_URL or DB_HOST, or a file: \
               /etc/pgweir/pgweir.toml, /etc/pgweir/pgbouncer.ini, /etc/pgbouncer/pgbouncer.ini",
            ],
        );
        check_mistakes(
            &[
                ("DB_HOST", "h"),
                ("DB_PORT", "many"),
                ("DB_USER", "u"),
                ("POOL_MODE", "both"),
                ("PGBOUNCER_POOL_MODE", "none"),
                ("PGBOUNCER_MAX_CLIENT_CON", "5"),
                ("ADMIN_PASSWORD", "hush"),
                ("PGWEIR_POOLMODE", "session"),
            ],
            &[
                "PGBOUNCER_POOL_MODE says otherwise than POOL_MODE (PGBOUNCER_POOL_MODE)",
                "PGBOUNCER_MAX_CLIENT_CON means nothing: did you mean PGBOUNCER_MAX_CLIENT_CONN? (PGBOUNCER_MAX_CLIENT_CON)",
                "invalid port: many, for database \"*\" (DB_PORT): 1 to 65535 is expected",
                "a password for admin_users, but ADMIN_USERS is not given (ADMIN_PASSWORD)",
                "invalid value \"both\" for parameter pool_mode in configuration (POOL_MODE): one of session, transaction, statement",
                "no password for the user \"u\" (DB_HOST): give DB_PASSWORD or DB_PASSWORD_FILE",
                "unknown parameter: poolmode (PGWEIR_POOLMODE): did you mean PGWEIR_POOL_MODE?",
            ],
        );
        for url in [
            "postgres://u:hu/sh@h/d",
            "postgres://u:hu?sh@h/d",
            "postgres://u:hush@h:x/d",
            "postgres://u:hush@h/d?hush",
            "postgres://u:hush@/d",
            "postgres://u:hush@h:1,k:2/d",
            "postgres://u:hush@h/d?sslmode=all",
            "postgres://u:hush@h/pgbouncer",
            "postgres://u:hush@h/d?schema=public",
            "postgres://:hush@h/d",
            "mysql://u:hush@h/d",
        ] {
            let problems = loaded(&[("DATABASE_URL", url)]).map(|_| ()).unwrap_err();
            let text = problems.join("\n");
            assert!(
                !text.contains("hu") && !text.contains("sh@"),
                "{url}: {text}"
            );
            assert!(text.contains("DATABASE_URL"), "{url}: {text}");
        }
        check_mistakes(
            &[
                ("DATABASE_URL", "postgres://u:p@h/d"),
                ("DATABASE_URL_E", "postgres://u:q@h/e?sslmode=require"),
                ("SERVER_TLS_SSLMODE", "disable"),
            ],
            &[
                "DATABASE_URL_E says otherwise than SERVER_TLS_SSLMODE (DATABASE_URL_E)",
                "two passwords for \"u\": DATABASE_URL has another (DATABASE_URL_E)",
            ],
        );
    }

    #[test]
    fn what_has_no_effect_is_said() {
        let notes = |variables: &[(&str, &str)]| {
            let notes = loaded(variables).unwrap().notes.into_iter();
            notes.map(|note| note.to_string()).collect::<Vec<_>>()
        };
        let said = notes(&[
            ("DATABASE_URL", "postgres://u:p@h/d"),
            ("DB_HOST", "k"),
            ("DB_NAME", "d"),
            ("DB_PASSWROD", "hush"),
            ("PGBOUNCER_EXTRA_FLAGS", "-v"),
        ]);
        for text in [
            "DB_HOST has no effect: DATABASE_URL says otherwise (DB_HOST)",
            "DB_PASSWROD means nothing: did you mean DB_PASSWORD?",
            "PGBOUNCER_EXTRA_FLAGS has no effect",
        ] {
            assert!(said.iter().any(|note| note == text), "{said:?}");
        }
        assert!(
            !said.iter().any(|note| note.contains("DB_NAME")),
            "{said:?}"
        );
    }

    #[test]
    fn files_with_values() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "p w\n").unwrap();
        let path = secret.to_str().unwrap();
        check(
            &[
                ("DB_HOST", "h"),
                ("DB_USER", "u"),
                ("DB_PASSWORD_FILE", path),
            ],
            "*: ?@h:5432/*\n\"u\" \"p w\"",
        );
        let variables = [
            ("DB_PASSWORD_FILE", "/a"),
            ("DATABASE_URL_X_FILE", "/b"),
            ("AUTH_FILE", "/c"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(files(&variables), ["/a", "/b"].map(PathBuf::from));
        check_mistakes(
            &[("DB_HOST", "h"), ("DB_USER_FILE", "/nowhere")],
            &["could not read file \"/nowhere\": No such file or directory (DB_USER_FILE)"],
        );
        check_mistakes(
            &[
                ("DB_HOST", "h"),
                ("DB_USER", "u"),
                ("DB_PASSWORD", "x"),
                ("DB_PASSWORD_FILE", path),
            ],
            &["DB_PASSWORD_FILE says otherwise than DB_PASSWORD (DB_PASSWORD_FILE)"],
        );
    }

    #[test]
    fn beside_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgweir.ini");
        std::fs::write(&path, "[pgbouncer]\nunix_socket_dir = /run/x\n").unwrap();
        let variables = [(MARK, "1"), ("DB_HOST", "h"), ("PGWEIR_WORKERS", "2")];
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let Loaded { config, notes } = load(&path, variables.map(own)).unwrap();
        assert_eq!(config.settings.listen_addr, ["*"]);
        assert_eq!(config.settings.unix_socket_dir, Some("/run/x".into()));
        assert_eq!(config.settings.workers, 2);
        let text = format!("no effect beside the file {}: DB_HOST", path.display());
        assert!(notes.iter().any(|note| note.text == text), "{notes:?}");
        let config = load(&path, [("DB_HOST".to_owned(), "h".to_owned())])
            .unwrap()
            .config;
        assert!(config.settings.listen_addr.is_empty());
    }

    #[test]
    fn the_file_of_a_container() {
        assert_eq!(file(|_| false), Path::new(ENVIRONMENT));
        assert_eq!(
            file(|path| path == Path::new(FILES[2])),
            Path::new(FILES[2])
        );
        assert_eq!(file(|_| true), Path::new(FILES[0]));
    }

    proptest! {
        #[test]
        fn no_values_panic(url in "postgres://\\PC*", user in "\\PC*", password in "\\PC*") {
            let given = [("DATABASE_URL", &url[..]), ("DB_USER", &user), ("DB_PASSWORD", &password)];
            let _ = loaded(&given);
        }
    }
}
