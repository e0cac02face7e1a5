//! Tracked parameters: settings such as `client_encoding` that follow a client from server to server.
//!
//! Pure. [`Tracked`] names them; a [`ParamSet`] holds one value each (or none), never changes, and is shared: a worker interns
//! the sets, so that in the steady state a client and its next server hold the very same set and one pointer comparison says
//! that nothing has to be brought into line.

use std::collections::HashSet;
use std::rc::Rc;

/// Every parameter that PostgreSQL reports and a client may change, in the order in which they are told to clients.
const REPORTED: [&str; 10] = [
    "DateStyle",
    "client_encoding",
    "TimeZone",
    "standard_conforming_strings",
    "application_name",
    "IntervalStyle",
    "default_transaction_read_only",
    "scram_iterations",
    "search_path",
    "session_authorization",
];

/// The most parameters that can be tracked, extra ones included: one bit each in a mask.
pub const TRACKED_MAX: usize = 32;

/// The names of the tracked parameters of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    names: Vec<String>,
}

impl Tracked {
    /// The built-in names and `track_extra_parameters`; beyond [`TRACKED_MAX`] names are left out.
    pub fn new(extra: &[String]) -> Tracked {
        let mut names: Vec<String> = REPORTED.iter().map(|name| (*name).to_owned()).collect();
        for name in extra {
            if names.len() < TRACKED_MAX
                && !names.iter().any(|known| known.eq_ignore_ascii_case(name))
            {
                names.push(name.clone());
            }
        }
        Tracked { names }
    }

    /// The index of a parameter, whose name is not case-sensitive.
    pub fn index(&self, name: &[u8]) -> Option<usize> {
        self.names
            .iter()
            .position(|known| known.as_bytes().eq_ignore_ascii_case(name))
    }

    /// The name at an index.
    pub fn name(&self, index: usize) -> &str {
        &self.names[index]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Never true: some are built in.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// One value, or none, for each tracked parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ParamSet {
    values: Vec<Option<Box<[u8]>>>,
    /// A bit for each index that has a value.
    present: u32,
}

impl ParamSet {
    /// The value at an index.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.values.get(index)?.as_deref()
    }

    /// A bit for each index that has a value.
    pub fn present(&self) -> u32 {
        self.present
    }

    /// Sets or clears the value at an index, which is below [`TRACKED_MAX`].
    pub fn set(&mut self, index: usize, value: Option<&[u8]>) {
        match value {
            Some(_) => self.present |= 1 << index,
            None => self.present &= !(1 << index),
        }
        if self.values.len() <= index {
            if value.is_none() {
                return;
            }
            self.values.resize(index + 1, None);
        }
        self.values[index] = value.map(Box::from);
    }

    /// Takes every value of `other` that is missing here.
    pub fn fill_from(&mut self, other: &ParamSet) {
        for (index, value) in other.values.iter().enumerate() {
            if self.get(index).is_none() {
                self.set(index, value.as_deref());
            }
        }
    }
}

/// The sets in use on one worker, each kept once.
#[derive(Debug, Default)]
pub struct Interner {
    sets: HashSet<Rc<ParamSet>>,
}

impl Interner {
    /// The shared copy of `set`.
    pub fn intern(&mut self, set: ParamSet) -> Rc<ParamSet> {
        if let Some(known) = self.sets.get(&set) {
            return known.clone();
        }
        let shared = Rc::new(set);
        self.sets.insert(shared.clone());
        shared
    }

    /// The shared copy of `set` with one value changed.
    pub fn with(&mut self, set: &Rc<ParamSet>, index: usize, value: &[u8]) -> Rc<ParamSet> {
        if set.get(index) == Some(value) {
            return set.clone();
        }
        let mut changed = ParamSet::clone(set);
        changed.set(index, Some(value));
        self.intern(changed)
    }

    /// Forgets the sets that nobody holds any more.
    pub fn sweep(&mut self) {
        self.sets.retain(|set| Rc::strong_count(set) > 1);
    }
}

/// True if a client can use a server as it is. The usual case costs one pointer comparison.
pub fn agree(client: &Rc<ParamSet>, server: &Rc<ParamSet>, reported: u32) -> bool {
    Rc::ptr_eq(client, server) && client.present & !reported == 0
}

/// The values of both sides once the statement of [`alignment`] has succeeded: the server's own spelling where it reports the
/// parameter, what was asked for where it doesn't. First the client's set, then the server's.
pub fn aligned(
    tracked: &Tracked,
    client: &ParamSet,
    server: &ParamSet,
    reported: u32,
) -> (ParamSet, ParamSet) {
    let (mut client, mut server) = (client.clone(), server.clone());
    for index in 0..tracked.len() {
        if reported & 1 << index == 0 {
            server.set(index, client.get(index));
        } else if server.get(index).is_some() {
            client.set(index, server.get(index));
        }
    }
    (client, server)
}

/// The statement that brings a server's parameters into line with a client's; `None` if they agree.
///
/// `reported` has a bit for each parameter that the server reports. One that it does not report is known only from what was
/// asked for: it is applied on every link, and set back to its default for a client that did not ask for it.
pub fn alignment(
    tracked: &Tracked,
    client: &ParamSet,
    server: &ParamSet,
    reported: u32,
) -> Option<Vec<u8>> {
    let mut sql = Vec::new();
    for index in 0..tracked.len() {
        let is_reported = reported & 1 << index != 0;
        match (client.get(index), server.get(index)) {
            (Some(want), have) if have != Some(want) || !is_reported => {
                set_statement(&mut sql, tracked.name(index), want);
            }
            (None, Some(_)) if !is_reported => {
                sql.extend_from_slice(b"RESET ");
                identifier(&mut sql, tracked.name(index));
                sql.push(b';');
            }
            _ => {}
        }
    }
    (!sql.is_empty()).then_some(sql)
}

fn set_statement(sql: &mut Vec<u8>, name: &str, value: &[u8]) {
    if name.eq_ignore_ascii_case("search_path") {
        // Reported as a list whose names are quoted where they need it: in SET it could not be quoted as a whole, and it may be
        // anything that its client has chosen. The function takes exactly what was reported.
        sql.extend_from_slice(b"SELECT pg_catalog.set_config('search_path',");
        literal(sql, value);
        sql.extend_from_slice(b",false);");
        return;
    }
    sql.extend_from_slice(b"SET ");
    identifier(sql, name);
    sql.push(b'=');
    if value == b"\"\"" {
        sql.extend_from_slice(b"''");
    } else {
        literal(sql, value);
    }
    sql.push(b';');
}

/// A parameter's name as it stands in SET; extension parameters have a dot in theirs.
fn identifier(sql: &mut Vec<u8>, name: &str) {
    for (nth, part) in name.split('.').enumerate() {
        if nth > 0 {
            sql.push(b'.');
        }
        let plain =
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if plain {
            sql.extend_from_slice(part.as_bytes());
        } else {
            sql.push(b'"');
            sql.extend_from_slice(part.replace('"', "\"\"").as_bytes());
            sql.push(b'"');
        }
    }
}

/// A text literal that reads the same whatever `standard_conforming_strings` says.
fn literal(sql: &mut Vec<u8>, value: &[u8]) {
    if value.contains(&b'\\') {
        sql.push(b'E');
    }
    sql.push(b'\'');
    for byte in value {
        if matches!(byte, b'\'' | b'\\') {
            sql.push(*byte);
        }
        sql.push(*byte);
    }
    sql.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(tracked: &Tracked, values: &[(&str, &str)]) -> ParamSet {
        let mut set = ParamSet::default();
        for (name, value) in values {
            set.set(
                tracked.index(name.as_bytes()).unwrap(),
                Some(value.as_bytes()),
            );
        }
        set
    }

    #[track_caller]
    fn check(
        client: &[(&str, &str)],
        server: &[(&str, &str)],
        reported: u32,
        expected: Option<&str>,
    ) {
        let tracked = Tracked::new(&["my.extra".to_owned()]);
        let got = alignment(
            &tracked,
            &set(&tracked, client),
            &set(&tracked, server),
            reported,
        );
        assert_eq!(
            got.map(|sql| String::from_utf8(sql).unwrap()).as_deref(),
            expected
        );
    }

    #[test]
    fn only_differences_are_set() {
        check(&[("timezone", "UTC")], &[("TimeZone", "UTC")], !0, None);
        check(
            &[("TimeZone", "UTC")],
            &[("TimeZone", "GMT")],
            !0,
            Some("SET TimeZone='UTC';"),
        );
        check(&[], &[("TimeZone", "GMT")], !0, None);
    }

    #[test]
    fn case_and_length_matter() {
        check(
            &[("application_name", "App")],
            &[("application_name", "app")],
            !0,
            Some("SET application_name='App';"),
        );
        let long = "x".repeat(500);
        let want = format!("SET application_name='{long}';");
        check(
            &[("application_name", &long)],
            &[("application_name", "app")],
            !0,
            Some(&want),
        );
    }

    #[test]
    fn quoting() {
        check(
            &[("application_name", r"a'b\")],
            &[("application_name", "")],
            !0,
            Some(r"SET application_name=E'a''b\\';"),
        );
        check(
            &[("search_path", "\"$user\", public")],
            &[("search_path", "x")],
            !0,
            Some("SELECT pg_catalog.set_config('search_path','\"$user\", public',false);"),
        );
        check(
            &[("search_path", "a;DROP/**/TABLE/**/t")],
            &[("search_path", "x")],
            !0,
            Some("SELECT pg_catalog.set_config('search_path','a;DROP/**/TABLE/**/t',false);"),
        );
        check(
            &[("search_path", "\"\"")],
            &[("search_path", "x")],
            !0,
            Some("SELECT pg_catalog.set_config('search_path','\"\"',false);"),
        );
        check(
            &[("TimeZone", "\"\"")],
            &[("TimeZone", "x")],
            !0,
            Some("SET TimeZone='';"),
        );
    }

    #[test]
    fn what_is_not_reported_is_always_applied_and_taken_back() {
        check(&[("my.extra", "1")], &[], 0, Some("SET my.extra='1';"));
        check(
            &[("my.extra", "1")],
            &[("my.extra", "1")],
            0,
            Some("SET my.extra='1';"),
        );
        check(&[], &[("my.extra", "1")], 0, Some("RESET my.extra;"));
    }

    #[test]
    fn equal_sets_are_shared() {
        let tracked = Tracked::new(&[]);
        let mut interner = Interner::default();
        let one = interner.intern(set(&tracked, &[("TimeZone", "UTC")]));
        let two = interner.intern(set(&tracked, &[("TimeZone", "UTC")]));
        assert!(Rc::ptr_eq(&one, &two));
        let index = tracked.index(b"timezone").unwrap();
        let other = interner.with(&one, index, b"GMT");
        assert!(!Rc::ptr_eq(&one, &other));
        assert!(Rc::ptr_eq(&interner.with(&other, index, b"UTC"), &one));
        drop((one, two, other));
        interner.sweep();
        assert!(interner.sets.is_empty());
    }
}
