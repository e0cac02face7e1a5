//! Statements that were prepared by SQL (`PREPARE`), as one server connection has them and as a client expects to find them.
//!
//! Pure. Texts pass to the server untouched, so what a `PREPARE` has come to is not guessed from them: its completion tag only
//! says that something has changed ([`SqlHeld::note_changed`]), and the server is asked what it has ([`list_query`], [`SqlList`]) before
//! anybody else may use it. When a client is linked with a server that has other statements than its own, [`SqlHeld::plan`] says
//! what has to go and what has to be prepared there. Reading SQL is [`super::lexer`]'s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::lexer;
use super::params::ParamSet;
use super::prepared;

/// The most statements that one client may have prepared by SQL.
pub const SQL_NAMES_MAX: usize = 1000;
/// The most bytes of names and texts that one client may have prepared by SQL.
pub const SQL_BYTES_MAX: usize = 1 << 20;
/// The longest text that is listed, in characters; a longer one is cut, and then can't be kept.
pub const SQL_TEXT_MAX: usize = 200_000;

/// The query that asks a server for all its prepared statements. No operator is used, and every function named in full: a client may have put
/// its own in the way.
pub fn list_query() -> String {
    let cut = SQL_TEXT_MAX + 1;
    format!(
        "SELECT name, CASE WHEN from_sql THEN pg_catalog.substr(statement, 1, {cut}) END FROM pg_catalog.pg_prepared_statement()"
    )
}

/// Statements prepared by SQL: names as the server spells them, and a text that prepares each anew. Never changes.
#[derive(Debug, Default, PartialEq)]
pub struct SqlSet {
    /// `None` for one that can't be prepared anew: its text was not understood.
    texts: BTreeMap<Box<[u8]>, Option<Arc<[u8]>>>,
    /// The tracked parameters under which names and texts were read: their encoding above all.
    pub params: ParamSet,
}

impl SqlSet {
    /// Does it contain this name?
    pub fn contains(&self, name: &[u8]) -> bool {
        self.texts.contains_key(name)
    }

    /// The names, sorted.
    #[cfg(test)]
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.texts.keys().map(|name| &name[..])
    }

    /// True if the names are the same in any encoding.
    pub fn is_ascii(&self) -> bool {
        self.texts.keys().all(|name| name.is_ascii())
    }

    fn bytes(&self) -> usize {
        let len = |text: &Option<Arc<[u8]>>| text.as_ref().map_or(0, |text| text.len());
        self.texts
            .iter()
            .map(|(name, text)| name.len() + len(text))
            .sum()
    }
}

/// What a client expects: usually nothing.
pub type SqlNames = Option<Arc<SqlSet>>;

/// How much is known of what a server has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Known {
    /// All.
    #[default]
    All,
    /// A client has prepared or dropped something.
    Changed,
    /// A query of the pooler's own may have prepared something, which is for all clients.
    Shared,
}

/// What one server connection has.
#[derive(Debug, Default)]
pub struct SqlHeld {
    /// Statements of one client, gone when the next client comes.
    of_client: SqlNames,
    /// Of the client's, those that could not be prepared here, and what the server said of each: the body of its ErrorResponse.
    failed: Vec<Fault>,
    /// Names prepared by `connect_query`, which stay.
    shared: Option<Arc<BTreeSet<Box<[u8]>>>>,
    known: Known,
}

impl SqlHeld {
    /// Nobody knows what a query of the pooler's own has prepared.
    pub fn with_shared() -> SqlHeld {
        SqlHeld {
            known: Known::Shared,
            ..SqlHeld::default()
        }
    }

    /// True if a client can use the server as it is. The usual case costs three comparisons with nothing.
    pub fn agrees(&self, client: &SqlNames) -> bool {
        self.is_known()
            && match (&self.of_client, client) {
                (None, None) => true,
                (Some(has), Some(wants)) => Arc::ptr_eq(has, wants),
                _ => false,
            }
    }

    /// True if the server need not be asked what it has.
    pub fn is_known(&self) -> bool {
        self.known == Known::All
    }

    /// True if the server certainly has a client's statement of this name.
    pub fn holds(&self, name: &[u8]) -> bool {
        let has = self.of_client.as_ref();
        self.is_known() && has.is_some_and(|has| has.contains(name))
    }

    /// Why the server does not have a statement that its client has prepared: the body of an ErrorResponse.
    pub fn fault_of(&self, name: &[u8]) -> Option<&[u8]> {
        let (_, fault) = self.failed.iter().find(|(known, _)| **known == *name)?;
        Some(fault)
    }

    /// What the server has of a client's.
    pub fn of_client(&self) -> Option<&Arc<SqlSet>> {
        self.of_client.as_ref()
    }

    /// A client has prepared or dropped a statement.
    pub fn note_changed(&mut self) {
        if self.is_known() {
            self.known = Known::Changed;
        }
    }

    /// A query of the pooler's own has prepared a statement.
    pub fn note_shared(&mut self) {
        self.known = Known::Shared;
    }

    /// The server has dropped all its statements.
    pub fn clear(&mut self) {
        *self = SqlHeld::default();
    }

    /// The server has told what it has; `client` is what the client expected so far. Afterwards it expects what is returned.
    ///
    /// # Errors
    /// More than a client may have.
    pub fn learn(&mut self, list: SqlList, client: &SqlNames) -> Result<SqlNames, TooMany> {
        let SqlList {
            mut set, is_cut, ..
        } = list;
        if self.known == Known::Shared {
            let mine = self.of_client.take();
            let is_mine = |name: &[u8]| mine.as_ref().is_some_and(|mine| mine.contains(name));
            let shared = set.texts.keys().filter(|name| !is_mine(name));
            self.shared = Some(Arc::new(shared.cloned().collect()));
        }
        if let Some(shared) = &self.shared {
            set.texts.retain(|name, _| !shared.contains(name));
        }
        if is_cut || set.texts.len() > SQL_NAMES_MAX || set.bytes() > SQL_BYTES_MAX {
            return Err(TooMany);
        }
        let expected = self.expected(&set, client);
        self.known = Known::All;
        self.of_client = (!set.texts.is_empty()).then(|| Arc::new(set));
        Ok(match (&self.of_client, expected) {
            (Some(has), Some(expected)) if **has == expected => Some(has.clone()),
            (_, expected) => expected.map(Arc::new),
        })
    }

    /// What the client expects to find: what is there and can be prepared anew, and what could not be prepared on this server.
    fn expected(&self, now: &SqlSet, client: &SqlNames) -> Option<SqlSet> {
        let mut texts = now.texts.clone();
        texts.retain(|_, text| text.is_some());
        let before = |name: &[u8]| {
            self.of_client
                .as_ref()
                .is_some_and(|has| has.contains(name))
        };
        for (name, text) in client.iter().flat_map(|client| &client.texts) {
            if !before(name) && !now.contains(name) {
                texts.insert(name.clone(), text.clone());
            }
        }
        (!texts.is_empty()).then(|| SqlSet {
            texts,
            params: now.params.clone(),
        })
    }

    /// What has to happen so that a client finds exactly its own statements. What the server has must be known.
    pub fn plan(&self, client: &SqlNames) -> Plan {
        let empty = BTreeMap::new();
        let has = self.of_client.as_ref().map_or(&empty, |set| &set.texts);
        let wants = client.as_ref().map_or(&empty, |set| &set.texts);
        let differs = |name: &[u8], text| wants.get(name) != Some(text);
        let drop = has.iter().filter(|(name, text)| differs(name, text));
        let drop = drop.map(|(name, _)| name.clone()).collect();
        let missing = wants
            .iter()
            .filter(|(name, text)| has.get(*name) != Some(text));
        let prepare = missing.filter_map(|(name, text)| Some((name.clone(), text.clone()?)));
        Plan {
            drop,
            prepare: prepare.collect(),
        }
    }

    /// The plan for `client` has been carried out, but for these names, which could not be prepared, with the reason for each.
    pub fn carried_out(&mut self, client: &SqlNames, failed: Vec<Fault>) {
        self.failed = failed;
        self.of_client = match client {
            Some(set) if !self.failed.is_empty() => {
                let mut texts = set.texts.clone();
                texts.retain(|name, _| self.fault_of(name).is_none());
                let params = set.params.clone();
                // Even when it is empty: it is not what the client expects.
                Some(Arc::new(SqlSet { texts, params }))
            }
            _ => client.clone(),
        };
    }
}

/// A name, and what the server said when it could not prepare it: the body of an ErrorResponse.
pub type Fault = (Box<[u8]>, Box<[u8]>);

/// A name and the text that prepares it.
pub type NamedText = (Box<[u8]>, Arc<[u8]>);

/// What brings a server into line with a client.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Names to drop.
    pub drop: Vec<Box<[u8]>>,
    /// Names and texts to prepare.
    pub prepare: Vec<NamedText>,
}

/// More statements prepared by SQL than one client may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

impl std::fmt::Display for TooMany {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "too many statements prepared with PREPARE: a client may have {SQL_NAMES_MAX} of them, and {SQL_BYTES_MAX} bytes of \
             text (use DEALLOCATE, or pool_mode=session)"
        )
    }
}

impl std::error::Error for TooMany {}

/// The answer to [`list_query`], row by row.
#[derive(Debug)]
pub struct SqlList {
    set: SqlSet,
    bytes: usize,
    /// There is more than anybody may have.
    is_cut: bool,
}

impl SqlList {
    /// An empty list that is read under these tracked parameters.
    pub fn new(params: ParamSet) -> SqlList {
        SqlList {
            set: SqlSet {
                params,
                ..SqlSet::default()
            },
            bytes: 0,
            is_cut: false,
        }
    }

    /// A row: the name, and the text if it was prepared by SQL. Gives the number of one of the pooler's own statements.
    pub fn row(&mut self, body: &[u8], backslashes: bool) -> Option<u64> {
        let (name, text) = two_columns(body)?;
        let Some(text) = text else {
            return prepared::id_of(name);
        };
        self.bytes += name.len() + text.len();
        // Statements shared by all clients are in the list too, so there is some room above the limits of one client.
        self.is_cut |= self.set.texts.len() >= 2 * SQL_NAMES_MAX
            || self.bytes > 2 * SQL_BYTES_MAX
            || text.len() > SQL_TEXT_MAX;
        if self.is_cut {
            return None;
        }
        let one = lexer::prepare_of(text, name, backslashes);
        self.set.texts.insert(name.into(), one.map(Arc::from));
        None
    }
}

/// The two columns of a DataRow, the second perhaps NULL; `None` if it is anything else.
fn two_columns(body: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let (count, rest) = body.split_first_chunk::<2>()?;
    let (name, rest) = column(rest)?;
    let (text, rest) = column(rest)?;
    (u16::from_be_bytes(*count) == 2 && rest.is_empty()).then_some((name?, text))
}

fn column(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    match usize::try_from(i32::from_be_bytes(*len)) {
        Err(_) => Some((None, rest)),
        Ok(len) => rest
            .split_at_checked(len)
            .map(|(value, rest)| (Some(value), rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The server lists these; each text prepares its name.
    fn list(names: &[&str]) -> SqlList {
        let mut list = SqlList::new(ParamSet::default());
        for name in names {
            let text = format!("PREPARE {name} AS SELECT 1");
            assert_eq!(list.row(&row(name, Some(&text)), false), None);
        }
        list
    }

    fn row(name: &str, text: Option<&str>) -> Vec<u8> {
        let mut out = Vec::new();
        let columns = [Some(name.as_bytes()), text.map(str::as_bytes)];
        crate::wire::build::data_row(&mut out, columns.into_iter());
        out.split_off(crate::wire::frame::HEADER_LEN)
    }

    fn names(set: &SqlNames) -> Vec<&str> {
        let names = set.iter().flat_map(|set| set.names());
        names
            .map(|name| std::str::from_utf8(name).unwrap())
            .collect()
    }

    fn plan(held: &SqlHeld, client: &SqlNames) -> (Vec<String>, Vec<String>) {
        let plan = held.plan(client);
        let show = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
        let prepare = plan.prepare.iter().map(|(name, _)| show(name));
        (
            plan.drop.iter().map(|name| show(name)).collect(),
            prepare.collect(),
        )
    }

    /// A server on which a client has prepared these.
    fn prepared(names: &[&str], client: &SqlNames) -> (SqlHeld, SqlNames) {
        let mut held = SqlHeld::default();
        held.note_changed();
        assert!(!held.is_known());
        let expects = held.learn(list(names), client).unwrap();
        (held, expects)
    }

    #[test]
    fn the_owner_agrees_and_others_do_not() {
        let (mut held, owner) = prepared(&["a", "b"], &None);
        assert!(held.agrees(&owner) && !held.agrees(&None));
        assert!(held.holds(b"a") && !held.holds(b"c"));
        let gone = ["a".to_owned(), "b".to_owned()].to_vec();
        assert_eq!(plan(&held, &None), (gone.clone(), vec![]));
        held.carried_out(&None, vec![]);
        assert!(held.agrees(&None) && !held.agrees(&owner));
        assert_eq!(plan(&held, &owner), (vec![], gone));
        held.carried_out(&owner, vec![]);
        assert!(held.agrees(&owner));
    }

    #[test]
    fn what_could_not_be_prepared_is_tried_again_and_not_forgotten() {
        let (mut held, owner) = prepared(&["a", "b"], &None);
        held.clear();
        held.carried_out(&owner, vec![((*b"a").into(), (*b"why").into())]);
        assert_eq!(held.fault_of(b"a"), Some(&b"why"[..]));
        assert!(!held.agrees(&owner) && !held.agrees(&None));
        assert_eq!(plan(&held, &owner), (vec![], vec!["a".to_owned()]));
        held.note_changed();
        let owner = held.learn(list(&["b", "c"]), &owner).unwrap();
        assert_eq!(names(&owner), ["a", "b", "c"]);
        held.note_changed();
        let owner = held.learn(list(&["c"]), &owner).unwrap();
        assert_eq!(names(&owner), ["a", "c"], "b has been dropped");
    }

    #[test]
    fn shared_statements_belong_to_nobody() {
        let mut held = SqlHeld::with_shared();
        assert!(!held.agrees(&None));
        assert_eq!(held.learn(list(&["all"]), &None), Ok(None));
        assert!(held.agrees(&None));
        held.note_changed();
        let owner = held.learn(list(&["all", "mine"]), &None).unwrap();
        assert_eq!(names(&owner), ["mine"]);
        assert_eq!(plan(&held, &None), (vec!["mine".to_owned()], vec![]));
    }

    #[test]
    fn what_is_not_understood_goes() {
        let mut held = SqlHeld::default();
        held.note_changed();
        let mut list = SqlList::new(ParamSet::default());
        list.row(
            &row(
                "odd",
                Some("PREPARE odd AS SELECT 1; PREPARE odd AS SELECT 2"),
            ),
            false,
        );
        assert_eq!(list.row(&row("PGWEIR_7", None), false), Some(7));
        assert_eq!(list.row(&row("foreign", None), false), None);
        assert_eq!(list.row(b"\0\x02\0", false), None);
        assert_eq!(held.learn(list, &None), Ok(None));
        assert_eq!(plan(&held, &None), (vec!["odd".to_owned()], vec![]));
    }

    #[test]
    fn there_are_limits() {
        let mut held = SqlHeld::default();
        let many: Vec<String> = (0..=SQL_NAMES_MAX).map(|n| format!("q{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(held.learn(list(&many[1..]), &None).is_ok());
        assert_eq!(held.learn(list(&many), &None), Err(TooMany));
        for (texts, fits) in [(5, true), (6, false)] {
            let mut list = SqlList::new(ParamSet::default());
            for n in 0..texts {
                let long = format!("PREPARE q{n} AS SELECT '{}'", "x".repeat(SQL_TEXT_MAX - 30));
                list.row(&row(&format!("q{n}"), Some(&long)), false);
            }
            assert_eq!(held.learn(list, &None).is_ok(), fits);
        }
        let mut list = SqlList::new(ParamSet::default());
        list.row(&row("q", Some(&"x".repeat(SQL_TEXT_MAX + 1))), false);
        assert_eq!(
            held.learn(list, &None),
            Err(TooMany),
            "perhaps it is longer still"
        );
    }
}
