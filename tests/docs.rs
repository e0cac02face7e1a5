//! The pages in `docs/` say what the tables in the source say, and their links lead somewhere.
//!
//! A page contains regions between `<!-- begin NAME -->` and `<!-- end NAME -->`; what stands there is made here from the tables of
//! settings and console commands. `PGWEIR_WRITE_DOCS=1 cargo test --test docs` writes them anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use pgweir::admin::command::{self, SHOWS, Show};
use pgweir::admin::http::families::Spec;
use pgweir::admin::http::{pgbouncer, pgweir as own, process};
use pgweir::admin::rights::{Role, may};
use pgweir::admin::show::layout;
use pgweir::admin::table::Type;
use pgweir::config::entry::{DATABASE_KEYS, Key, PEER_KEYS, USER_KEYS};
use pgweir::config::variables::VARIABLES;
use pgweir::config::{Remark, SETTINGS, Scope, Setting};

/// Set to anything: the regions are written instead of compared.
const WRITE: &str = "PGWEIR_WRITE_DOCS";

/// A region: its page, its name, and what stands in it.
type Region = (&'static str, &'static str, fn() -> String);

/// Every region.
const REGIONS: &[Region] = &[
    ("settings.md", "settings", settings),
    ("settings.md", "databases", || keys(DATABASE_KEYS)),
    ("settings.md", "users", || keys(USER_KEYS)),
    ("settings.md", "peers", || keys(PEER_KEYS)),
    ("settings.md", "remarks", remarks),
    ("metrics.md", "pgbouncer", || families(pgbouncer::specs())),
    ("metrics.md", "pgweir", || families(own::specs())),
    ("metrics.md", "process", processes),
    ("console.md", "rights", rights),
    ("console.md", "shows", shows),
    ("container.md", "variables", variables),
];

#[test]
fn generated_regions_are_as_the_tables_say() {
    for (page, name, content) in REGIONS {
        let path = docs().join(page);
        let text = std::fs::read_to_string(&path).unwrap();
        let range = region(&text, name).unwrap_or_else(|| panic!("{page} has no region {name}"));
        let expected = format!("\n{}", content());
        if std::env::var_os(WRITE).is_some() {
            let written = [&text[..range.start], &expected, &text[range.end..]].concat();
            std::fs::write(&path, written).unwrap();
        } else {
            assert!(
                text[range] == expected,
                "docs/{page}: region {name} is out of date; {WRITE}=1 cargo test --test docs writes it anew"
            );
        }
    }
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for target in links(&text) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => page.clone(),
                file => page.parent().unwrap().join(file),
            };
            assert!(file.exists(), "{}: {target}", page.display());
            if !anchor.is_empty() {
                let there = std::fs::read_to_string(&file).unwrap();
                assert!(
                    anchors(&there).contains(anchor),
                    "{}: {target}",
                    page.display()
                );
            }
        }
    }
}

/// Bytes between the markers of a region.
fn region(text: &str, name: &str) -> Option<std::ops::Range<usize>> {
    let begin = format!("<!-- begin {name} -->");
    let start = text.find(&begin)? + begin.len();
    let end = start + text[start..].find(&format!("<!-- end {name} -->"))?;
    Some(start..end)
}

fn settings() -> String {
    let mut out = String::from(
        "| setting | default | value | meaning | changed by |\n|---|---|---|---|---|\n",
    );
    for row in SETTINGS {
        let default = match row.default {
            None => "unset".to_owned(),
            Some("") => "empty".to_owned(),
            Some(text) => code(text),
        };
        let when = if row.changeable { "reload" } else { "restart" };
        let _ = writeln!(
            out,
            "| <a id=\"{0}\"></a>`{0}` | {default} | {1}{2} | {3} | {when} |",
            row.name,
            row.kind.describe(),
            elsewhere(row),
            row.help(),
        );
    }
    out
}

/// Families with what they mean, as the encoder says it.
fn families(specs: impl Iterator<Item = Spec>) -> String {
    let mut out = String::from("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for spec in specs {
        let labels: Vec<String> = spec.labels.iter().map(|label| code(label)).collect();
        let (name, kind) = (spec.name, spec.kind.word());
        let _ = writeln!(
            out,
            "| `{name}` | {kind} | {} | {} |",
            labels.join(", "),
            spec.help
        );
    }
    out
}

/// The families about the process.
fn processes() -> String {
    let collector = prometheus::process_collector::ProcessCollector::for_self();
    let mut out = String::from("| metric | type | meaning |\n|---|---|---|\n");
    for family in process::collect(&collector) {
        let kind = format!("{:?}", family.get_field_type()).to_lowercase();
        let _ = writeln!(out, "| `{}` | {kind} | {} |", family.name(), family.help());
    }
    out
}

/// A word about the entries in which a setting may stand too.
fn elsewhere(row: &Setting) -> &'static str {
    match row.scopes {
        [] => "",
        [Scope::Database] => "; also per database",
        [Scope::User] => "; also per user",
        _ => "; also per database and per user",
    }
}

fn keys<E>(keys: &[Key<E>]) -> String {
    let mut out = String::from("| key | meaning |\n|---|---|\n");
    for key in keys {
        let alias = key
            .alias
            .map_or_else(String::new, |alias| format!(" (also `{alias}`)"));
        let _ = writeln!(out, "| `{}`{alias} | {} |", key.name, key.help);
    }
    out
}

fn variables() -> String {
    let mut out = String::from("| variable | meaning |\n|---|---|\n");
    for row in VARIABLES {
        let _ = writeln!(out, "| `{}` | {} |", row.name, row.help);
    }
    out
}

fn remarks() -> String {
    let mut out = String::from("| setting | |\n|---|---|\n");
    for row in SETTINGS {
        let text = match row.remark {
            None => continue,
            Some(Remark::Ignored(why)) => format!("without effect: {why}"),
            Some(Remark::Differs(how) | Remark::Missing(how)) => how.to_owned(),
        };
        let _ = writeln!(out, "| `{}` | {text} |", row.name);
    }
    out
}

/// One command line per kind of command; whether `stats_users` may run it is asked of the table of rights.
const COMMANDS: &[(&str, &str, &str)] = &[
    ("SHOW name", "SHOW state", "see below"),
    (
        "SHOW EXPLAIN CLIENT id",
        "SHOW EXPLAIN CLIENT 1",
        "what a client does, and why it waits; `id` is the last column of `SHOW CLIENTS`",
    ),
    (
        "SHOW HELP",
        "SHOW help",
        "the list of commands, as a notice",
    ),
    (
        "SET name = value",
        "SET verbose = 0",
        "changes a setting until the next reload; `name TO value` works too",
    ),
    (
        "RELOAD",
        "RELOAD",
        "reads the configuration and the files it names again; a file with a mistake changes nothing",
    ),
    (
        "PAUSE [database]",
        "PAUSE",
        "answers when no server is in use any more; queries wait until `RESUME`",
    ),
    ("RESUME [database]", "RESUME", "ends a pause"),
    (
        "DISABLE database",
        "DISABLE a",
        "refuses new clients; those that are in go on",
    ),
    ("ENABLE database", "ENABLE a", "lets clients in again"),
    (
        "RECONNECT [database]",
        "RECONNECT",
        "closes every server connection as soon as it is not in use",
    ),
    (
        "WAIT_CLOSE [database]",
        "WAIT_CLOSE",
        "answers when the connections marked by `RECONNECT` or a reload are gone",
    ),
    (
        "KILL [database]",
        "KILL",
        "closes all clients and servers at once and leaves the database paused",
    ),
    (
        "KILL_CLIENT id",
        "KILL_CLIENT 1",
        "closes one client; `id` is the last column of `SHOW CLIENTS`",
    ),
    ("SHUTDOWN", "SHUTDOWN", "ends the process at once"),
    (
        "SHUTDOWN WAIT_FOR_SERVERS",
        "SHUTDOWN WAIT_FOR_SERVERS",
        "ends it when running transactions have ended, as SIGINT does",
    ),
    (
        "SHUTDOWN WAIT_FOR_CLIENTS",
        "SHUTDOWN WAIT_FOR_CLIENTS",
        "ends it when all clients have left, as SIGTERM does",
    ),
    (
        "SHUTDOWN DRAIN",
        "SHUTDOWN DRAIN",
        "ends it when all clients have been closed where they lose nothing, or at `drain_deadline`; see [operation](operation.md#draining)",
    ),
];

fn rights() -> String {
    let mut out = String::from("| command | who | effect |\n|---|---|---|\n");
    for (usage, example, effect) in COMMANDS {
        let commands = command::parse(example).unwrap();
        let everybody = commands.iter().all(|command| may(Role::Stats, command));
        let who = if everybody { "everybody" } else { "admin" };
        let _ = writeln!(out, "| `{usage}` | {who} | {effect} |");
    }
    out
}

fn shows() -> String {
    let mut out = String::new();
    let explain = ("explain client", Show::ExplainClient(None));
    let mut shown: Vec<(&str, Show)> = SHOWS.into_iter().chain([explain]).collect();
    shown.retain(|(_, show)| *show != Show::Help);
    shown.sort_by_key(|(name, _)| *name);
    for (name, show) in shown {
        let columns: Vec<String> = layout::columns(show)
            .iter()
            .map(|column| format!("`{}` {}", column.name, type_name(column.kind)))
            .collect();
        let _ = writeln!(
            out,
            "- **SHOW {}**: {}",
            name.to_uppercase(),
            columns.join(", ")
        );
    }
    out
}

fn type_name(kind: Type) -> &'static str {
    match kind {
        Type::Int8 => "int8",
        Type::Int4 => "int4",
        Type::Text => "text",
        Type::Numeric => "numeric",
    }
}

fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|"))
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// Every page, the README included.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = ["README.md", "CHANGELOG.md", "docker/README.md"]
        .map(|page| root.join(page))
        .to_vec();
    for entry in std::fs::read_dir(docs()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    pages
}

/// What `[text](target)` links to, other places on the web left out.
fn links(text: &str) -> Vec<&str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target)
        .filter(|target| !target.starts_with("http"))
        .collect()
}

/// The anchors of a page: its headings, as they are made into anchors on the web, and explicit ones.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let headings = headings.map(|line| {
        line.trim_start_matches('#')
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    });
    let explicit = text.split("<a id=\"").skip(1);
    let explicit = explicit.filter_map(|rest| rest.split_once('"').map(|(id, _)| id.to_owned()));
    headings.chain(explicit).collect()
}
