//! The reviewed list of intended differences, `differences.toml`: which lines may differ, where, and why. The same list is rendered as a
//! page of the documentation.

use std::cell::Cell;

use serde::Deserialize;

/// One intended difference.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// Under which heading of the page.
    pub area: String,
    /// What PgBouncer does, in a sentence.
    pub pgbouncer_does: String,
    /// What pgweir does, in a sentence.
    pub pgweir_does: String,
    pub why: String,
    /// Patterns for names of scenarios, `*` for any text.
    #[serde(rename = "in")]
    pub scenarios: Vec<String>,
    /// Patterns for lines of PgBouncer's transcript that may be missing or other in pgweir's.
    #[serde(default)]
    pub pgbouncer: Vec<String>,
    /// Patterns for the lines that pgweir's transcript may have instead.
    #[serde(default)]
    pub pgweir: Vec<String>,
    /// Not every run shows it: which worker serves whom, or what comes first.
    #[serde(default)]
    sometimes: bool,
    #[serde(skip)]
    used: Cell<bool>,
}

/// The whole list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Differences {
    #[serde(default, rename = "difference")]
    all: Vec<Difference>,
}

impl Differences {
    pub fn parse(text: &str) -> Result<Differences, String> {
        toml::from_str(text).map_err(|e| e.to_string())
    }

    /// The line pairs that differ and that no entry of the list allows.
    pub fn unexplained(&self, scenario: &str, theirs: &str, ours: &str) -> Vec<Change> {
        let changes = changes(theirs, ours);
        let explained = |change: &Change| {
            let here = || {
                self.all
                    .iter()
                    .filter(|d| matches_any(&d.scenarios, scenario))
            };
            let mut users = Vec::new();
            let mut by = |line: &str, side: fn(&Difference) -> &[String]| {
                let found = here().find(|d| matches_any(side(d), line));
                users.extend(found);
                found.is_some()
            };
            let all = change.theirs.iter().all(|l| by(l, |d| &d.pgbouncer))
                && change.ours.iter().all(|l| by(l, |d| &d.pgweir));
            if all {
                users.iter().for_each(|d| d.used.set(true));
            }
            all
        };
        changes.into_iter().filter(|c| !explained(c)).collect()
    }

    /// Entries that have explained nothing so far.
    pub fn unused(&self) -> Vec<&str> {
        self.all
            .iter()
            .filter(|d| !d.used.get() && !d.sometimes)
            .map(|d| d.pgweir_does.as_str())
            .collect()
    }

    /// The page of the documentation.
    pub fn page(&self) -> String {
        let mut page = String::from(PAGE_HEAD);
        let mut areas: Vec<&str> = Vec::new();
        for difference in &self.all {
            if !areas.contains(&difference.area.as_str()) {
                areas.push(&difference.area);
            }
        }
        for area in areas {
            page.push_str(&format!("\n## {area}\n"));
            for d in self.all.iter().filter(|d| d.area == area) {
                page.push_str(&format!(
                    "\n- **PgBouncer:** {}\n  **pgweir:** {}\n  *Why:* {}\n",
                    d.pgbouncer_does.trim(),
                    d.pgweir_does.trim(),
                    d.why.trim()
                ));
            }
        }
        page
    }
}

const PAGE_HEAD: &str = "# Where pgweir differs from PgBouncer\n\n\
<!-- Written by `make differences` from tests/compat/differences.toml. -->\n\n\
Every difference that a client, an operator or a tool could notice and that is intended, as found by running the same scenarios \
against PgBouncer 1.26.1 and pgweir (`make compat`). Whatever differs and is not listed here is a mistake.\n";

/// Lines of one transcript that stand in the place of lines of the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub theirs: Vec<String>,
    pub ours: Vec<String>,
}

impl Change {
    pub fn print(&self) {
        self.theirs.iter().for_each(|l| println!("pgbouncer: {l}"));
        self.ours.iter().for_each(|l| println!("pgweir:    {l}"));
        println!();
    }
}

/// The smallest set of changed lines between two transcripts, neighbours together.
pub fn changes(theirs: &str, ours: &str) -> Vec<Change> {
    let mut out: Vec<Change> = Vec::new();
    let mut open = false;
    for pair in pairs(theirs, ours) {
        match pair {
            (Some(_), Some(_)) => open = false,
            (left, right) => {
                if !open {
                    out.push(Change {
                        theirs: vec![],
                        ours: vec![],
                    });
                }
                open = true;
                let change = out.last_mut().expect("just pushed");
                change.theirs.extend(left.map(ToString::to_string));
                change.ours.extend(right.map(ToString::to_string));
            }
        }
    }
    out
}

/// Both transcripts aligned by their longest common subsequence of lines.
pub fn pairs<'a>(theirs: &'a str, ours: &'a str) -> Vec<(Option<&'a str>, Option<&'a str>)> {
    let a: Vec<&str> = theirs.lines().collect();
    let b: Vec<&str> = ours.lines().collect();
    let mut common = vec![vec![0u32; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i][j] = if a[i] == b[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut out = Vec::new();
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            out.push((Some(a[i]), Some(b[j])));
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || (i < a.len() && common[i + 1][j] >= common[i][j + 1]) {
            out.push((Some(a[i]), None));
            i += 1;
        } else {
            out.push((None, Some(b[j])));
            j += 1;
        }
    }
    out
}

fn matches_any(patterns: &[String], text: &str) -> bool {
    patterns.iter().any(|p| matches(p, text.trim()))
}

/// Does a pattern with `*` for any text fit a whole text?
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else {
        return rest.is_empty();
    };
    for piece in middle {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}
