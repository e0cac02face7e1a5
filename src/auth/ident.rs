//! `auth_ident_file`: which system users, and which certificates, may log in as which database users.
//!
//! Lines `map system-user database-user`; a map may have several. The database user may be the keyword `all`. Pure. There are
//! no regular expressions and no inclusions, as in PgBouncer; lines that look like it are refused, as is every other line that
//! cannot be understood: the caller is expected not to use a file with any.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::rule_file::{Fault, Line, Problems, RuleProblem, Word};

/// The maps of one file.
#[derive(Clone, Debug, Default)]
pub struct IdentMaps {
    maps: HashMap<Box<[u8]>, Arc<IdentMap>>,
}

/// One map.
#[derive(Clone, Debug, Default)]
pub struct IdentMap {
    /// As rules name it.
    name: String,
    /// By system user.
    users: HashMap<Box<[u8]>, DatabaseUsers>,
}

/// Who a system user may be.
#[derive(Clone, Debug, Default)]
struct DatabaseUsers {
    all: bool,
    names: HashSet<Box<[u8]>>,
}

impl IdentMaps {
    /// Reads a file.
    ///
    /// # Errors
    /// Every line that cannot be understood; `path` is for telling where.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<IdentMaps, Vec<RuleProblem>> {
        let mut maps: HashMap<Box<[u8]>, IdentMap> = HashMap::new();
        let mut problems = Problems::default();
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            match parse_line(line) {
                Ok(Some(entry)) => enter(&mut maps, entry),
                Ok(None) => {}
                Err(fault) => problems.add(path, Some(index + 1), fault),
            }
        }
        let shared = maps.into_iter().map(|(name, map)| (name, Arc::new(map)));
        let maps = shared.collect();
        problems.or(IdentMaps { maps }, path)
    }

    /// The map of this name.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<IdentMap>> {
        self.maps.get(name)
    }
}

impl IdentMap {
    /// Its name, for the log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// May this system user log in as this database user?
    pub fn permits(&self, system_user: &[u8], database_user: &[u8]) -> bool {
        let users = self.users.get(system_user);
        users.is_some_and(|users| users.all || users.names.contains(database_user))
    }
}

/// One line.
struct Entry {
    map: Vec<u8>,
    system_user: Box<[u8]>,
    /// `None` for all.
    database_user: Option<Box<[u8]>>,
}

fn enter(maps: &mut HashMap<Box<[u8]>, IdentMap>, entry: Entry) {
    let name = String::from_utf8_lossy(&entry.map).into_owned();
    let map = maps.entry(entry.map.into()).or_default();
    map.name = name;
    let users = map.users.entry(entry.system_user).or_default();
    match entry.database_user {
        None => users.all = true,
        Some(name) => drop(users.names.insert(name)),
    }
}

fn parse_line(line: &[u8]) -> Result<Option<Entry>, Fault> {
    let mut line = Line::new(line)?;
    if line.is_empty() {
        return Ok(None);
    }
    let mut field = || line.single();
    let (Some(map), Some(system_user), Some(database_user), None) =
        (field()?, field()?, field()?, field()?)
    else {
        return Err("a map name, a system user and a database user are expected".into());
    };
    let database_user = match database_user.is(ALL) {
        true => None,
        false => Some(plain_name(&database_user, &[ALL])?.into()),
    };
    Ok(Some(Entry {
        map: plain_name(&map, &[])?.to_vec(),
        system_user: plain_name(&system_user, &[])?.into(),
        database_user,
    }))
}

const ALL: &str = "all";

/// A name, not one of the things that PostgreSQL would understand.
fn plain_name<'a>(word: &'a Word, keywords: &[&str]) -> Result<&'a [u8], Fault> {
    let what = match () {
        _ if word.begins_with(b'/') => "regular expressions",
        _ if word.begins_with(b'+') => "groups",
        _ if word.begins_with(b'@') => "inclusions",
        _ => return word.name(keywords),
    };
    Err(format!("{what} are not supported: {}", word.shown()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<IdentMaps, Vec<String>> {
        let parsed = IdentMaps::parse(text.as_bytes(), Path::new("ident"));
        parsed.map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[track_caller]
    fn check(text: &str, map: &str, system: &str, database: &str, expected: bool) {
        let maps = parse(text).unwrap();
        let map = maps.get(map.as_bytes());
        let permits = map.is_some_and(|m| m.permits(system.as_bytes(), database.as_bytes()));
        assert_eq!(permits, expected, "{system} {database}");
    }

    #[test]
    fn a_system_user_may_be_several_database_users() {
        let text = "# maps\nm os1 ann\nm os1 bob # too\nm os2 eve\n\nn os3 all\r\n\"o p\" \"a \"\"b\" \"all\"\n";
        for (map, system, database, expected) in [
            ("m", "os1", "ann", true),
            ("m", "os1", "bob", true),
            ("m", "os1", "eve", false),
            ("m", "os2", "eve", true),
            ("m", "os1", "os1", false),
            ("n", "os3", "whoever", true),
            ("n", "os1", "ann", false),
            ("o p", "a \"b", "all", true),
            ("o p", "a \"b", "bob", false),
            ("M", "os1", "ann", false),
            ("m", "OS1", "ann", false),
        ] {
            check(text, map, system, database, expected);
        }
        assert_eq!(parse(text).unwrap().get(b"o p").unwrap().name(), "o p");
    }

    #[test]
    fn every_broken_line_is_named() {
        let fields = "a map name, a system user and a database user are expected";
        let expected = [
            format!("{fields} (ident:2)"),
            format!("{fields} (ident:3)"),
            "regular expressions are not supported: \"/^(.*)$\" (ident:4)".to_owned(),
            "groups are not supported: \"+g\" (ident:5)".to_owned(),
            "\"ALL\": write the keyword as all, or a name in quotes (ident:6)".to_owned(),
            "a list cannot stand here: \"b\", ... (ident:7)".to_owned(),
            "empty name (ident:8)".to_owned(),
            "quotes are not closed on the same line (ident:9)".to_owned(),
        ];
        let text = "m a b\ninclude other\nm a b c\nm /^(.*)$ \\1\nm a +g\nm a ALL\nm a b,c\n\"\" a b\nm \"a b\n";
        assert_eq!(parse(text).unwrap_err(), expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = IdentMaps::parse(&bytes, Path::new("f"));
        }

        #[test]
        fn a_map_permits_what_its_lines_say(lines in prop::collection::vec((0..3u8, 0..3u8, 0..4u8), 0..8), ask: (u8, u8, u8)) {
            let text: String = lines.iter().map(|(map, system, database)| match database {
                0 => format!("m{map} s{system} all\n"),
                _ => format!("m{map} s{system} d{database}\n"),
            }).collect();
            let (map, system, database) = (ask.0 % 3, ask.1 % 3, ask.2 % 4);
            let expected = lines.iter().any(|(m, s, d)| *m == map && *s == system && (*d == 0 || *d == database));
            check(&text, &format!("m{map}"), &format!("s{system}"), &format!("d{database}"), expected);
        }
    }
}
