//! The room as a whole: files and variables in, a [`Config`] or all mistakes out.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::draft::Draft;
use super::table::find;
use super::value::Kind;
use super::*;

const NO_VARIABLES: [(String, String); 0] = [];

/// A directory with a configuration file of this name and text.
fn file(name: &str, text: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    (dir, path)
}

/// Reads ini text; mistakes as lines, with the file called `t.ini`.
fn ini(text: &str) -> Result<Loaded, Vec<String>> {
    let (_dir, path) = file("t.ini", text);
    let named = |problem: &Problem| {
        problem
            .to_string()
            .replace(&path.display().to_string(), "t.ini")
    };
    load(&path, NO_VARIABLES).map_err(|problems| problems.iter().map(named).collect())
}

fn main_section(text: &str) -> Result<Settings, Vec<String>> {
    ini(&format!("[pgbouncer]\n{text}\n")).map(|loaded| loaded.config.settings)
}

fn notes(text: &str) -> Vec<String> {
    ini(text)
        .unwrap()
        .notes
        .into_iter()
        .map(|note| note.text)
        .collect()
}

#[test]
fn a_file_as_for_pgbouncer() {
    let config = ini(
        "; a comment\n[databases]\nbardb = host=localhost dbname=bazdb\nfoodb =\n\
         forcedb = host=localhost port=300 user=baz password=foo client_encoding=UNICODE datestyle=ISO\n\
         'a b' = connect_query='select ''x'''\n* = host=h\n\
         [users]\njoe = pool_mode=session query_timeout=5\n\
         [pgbouncer]\npool_mode = transaction\nlisten_addr = *\nmax_client_conn = 0x20\n",
    )
    .unwrap()
    .config;
    assert_eq!(config.settings.pool_mode, PoolMode::Transaction);
    assert_eq!(
        (config.settings.max_client_conn, config.settings.listen_port),
        (32, 6432)
    );
    assert_eq!(config.databases["bardb"].server_dbname(), "bazdb");
    assert_eq!(*config.databases["foodb"], Database::new("foodb"));
    assert_eq!(config.databases["forcedb"].user.as_deref(), Some("baz"));
    assert_eq!(
        config.databases["a b"].connect_query.as_deref(),
        Some("select 'x'")
    );
    assert_eq!(
        config.user("joe").query_timeout,
        Some(Duration::from_secs(5))
    );
    assert_eq!(
        config.database("any").map(|db| db.hosts.clone()),
        Some(vec!["h".to_owned()])
    );
    assert!(!config.databases.contains_key("*"));
}

#[test]
fn mistakes_in_pgbouncers_words() {
    for (text, expected) in [
        (
            "[pgbouncer]\nfoo = 1",
            "unknown parameter: pgbouncer/foo (t.ini:2)",
        ),
        (
            "[pgbouncer]\npool_mode = session ; c",
            "invalid value \"session ; c\" for parameter pool_mode in configuration (t.ini:2): \
             one of session, transaction, statement",
        ),
        (
            "[pgbouncer]\nquery_timeout = 10s",
            "invalid value \"10s\" for parameter query_timeout in configuration (t.ini:2): \
             a number of seconds without a unit is expected",
        ),
        (
            "[pgbouncer]\nlogfile",
            "syntax error in configuration (t.ini:2): key = value is expected",
        ),
        (
            "[databases]\n",
            "main section missing from config file (t.ini)",
        ),
        ("x = 1\n[pgbouncer]", "value without section: x (t.ini:1)"),
        (
            "[PGBOUNCER]\n[pgbouncer]",
            "invalid section \"PGBOUNCER\" in configuration (t.ini:1)",
        ),
        (
            "[pgbouncer]\n%include /not/there",
            "could not load file \"/not/there\": No such file or directory (t.ini:2)",
        ),
        (
            "[pgbouncer]\n[databases]\npgbouncer = host=x",
            "database name \"pgbouncer\" is reserved (t.ini:3)",
        ),
        (
            "[pgbouncer]\n[databases]\na = host=x foo",
            "syntax error in connection string of \"a\" (t.ini:3)",
        ),
        (
            "[pgbouncer]\n[databases]\na = foo=1",
            "unrecognized connection parameter: foo, for database \"a\" (t.ini:3)",
        ),
        (
            "[pgbouncer]\n[databases]\na = port=0",
            "invalid port: 0, for database \"a\" (t.ini:3): 1 to 65535 is expected",
        ),
        (
            "[pgbouncer]\n[users]\na = min_pool_size=1",
            "unrecognized user parameter: min_pool_size, for user \"a\" (t.ini:3)",
        ),
        (
            "[pgbouncer]\n[peers]\n1 =",
            "host was not provided for peer 1 (t.ini:3)",
        ),
        (
            "[pgbouncer]\n[peers]\nx = host=a",
            "ids of peers must be a number larger than 0 and at most 65535: x (t.ini:3)",
        ),
        (
            "[pgbouncer]\nsuspend_timeout = 1",
            "unknown parameter: pgbouncer/suspend_timeout (t.ini:2): removed in PgBouncer 1.26, with SUSPEND",
        ),
        (
            "[pgbouncer]\nclient_tls_sslmode = require",
            "To allow TLS connections from clients, client_tls_key_file and client_tls_cert_file must be set. \
             (t.ini:2)",
        ),
    ] {
        assert_eq!(ini(text).unwrap_err(), [expected], "{text:?}");
    }
}

#[test]
fn all_mistakes_are_told_together() {
    let problems = ini("[pgbouncer]\na = 1\nb\n[none]\nc = 2\n[databases]\nd = e\n").unwrap_err();
    let lines: Vec<&str> = problems
        .iter()
        .filter_map(|p| p.rsplit_once("t.ini:"))
        .map(|(_, l)| &l[..1])
        .collect();
    assert_eq!(lines, ["2", "3", "4", "7"], "{problems:?}");
}

#[test]
fn a_flood_of_mistakes_is_cut() {
    let problems = ini(&format!("[pgbouncer]\n{}", "x\n".repeat(5000))).unwrap_err();
    assert_eq!(problems.len(), 201);
    assert_eq!(problems[200], "and 4800 more mistakes (t.ini)");
}

#[test]
fn a_missing_file_is_told_as_by_pgbouncer() {
    let problems = load(Path::new("/not/there.ini"), NO_VARIABLES).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "could not load file \"/not/there.ini\": No such file or directory"
    );
    assert_eq!(problems.len(), 1);
}

#[test]
fn a_method_without_what_it_needs_is_refused() {
    for method in ["hba", "cert", "ldap"] {
        let problems = main_section(&format!("auth_type = {method}")).unwrap_err();
        assert!(problems[0].contains("requires"), "{problems:?}");
    }
}

#[test]
fn a_second_main_section_begins_anew_except_for_what_has_no_default() {
    let loaded = ini(
        "[pgbouncer]\npool_mode=statement\nauth_file=/u\n[databases]\n[pgbouncer]\nlisten_port=1\n",
    );
    let loaded = loaded.unwrap();
    let settings = &loaded.config.settings;
    assert_eq!(
        (settings.pool_mode, settings.listen_port),
        (PoolMode::Session, 1)
    );
    assert_eq!(settings.auth_file, Some("/u".into()));
    assert!(
        loaded
            .notes
            .iter()
            .any(|note| note.text.contains("a second [pgbouncer] section"))
    );
}

#[test]
fn a_section_opened_in_an_included_file_stays_open() {
    let (_dir, inner) = file("inner.ini", "listen_port = 7\n[databases]\na =\n");
    let text = format!("[pgbouncer]\n%include {}\nb =\n", inner.display());
    let config = ini(&text).unwrap().config;
    assert_eq!(config.settings.listen_port, 7);
    assert_eq!(config.databases.len(), 2);
}

#[test]
fn includes_have_a_depth() {
    let dir = tempfile::tempdir().unwrap();
    let path = |depth: usize| dir.path().join(format!("{depth}.ini"));
    for depth in 0..=11 {
        let text = format!("[pgbouncer]\n%include {}\n", path(depth + 1).display());
        fs::write(path(depth), text).unwrap();
    }
    let problems = load(&path(0), NO_VARIABLES).unwrap_err();
    assert!(problems[0].text.contains("include nesting level too deep"));
    assert!(problems[0].file.ends_with("/10.ini"), "{problems:?}");
    fs::write(path(10), "[pgbouncer]\n").unwrap();
    assert!(load(&path(0), NO_VARIABLES).is_ok());
}

#[test]
fn a_file_that_includes_itself_again_and_again_comes_to_an_end() {
    let (_dir, path) = file("t.ini", "");
    let line = format!("%include {}\n", path.display());
    fs::write(&path, line.repeat(50)).unwrap();
    assert!(load(&path, NO_VARIABLES).is_err());
    let (_other_dir, other) = file("u.ini", "[pgbouncer]\n");
    fs::write(
        &path,
        format!("%include {}\n", other.display()).repeat(1001),
    )
    .unwrap();
    let problems = load(&path, NO_VARIABLES).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert_eq!(
        (problems[0].text.as_str(), problems[0].line),
        ("more than 1000 included files", Some(1001))
    );
}

fn with_variables(pairs: &[(&str, &str)]) -> Result<Loaded, Vec<Problem>> {
    let (_dir, path) = file(
        "t.ini",
        "[pgbouncer]\npool_mode = session\nlisten_port = 5\n[databases]\na =\n",
    );
    load(
        &path,
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    )
}

#[test]
fn the_environment_has_the_last_word() {
    let config = with_variables(&[
        ("PGWEIR_POOL_MODE", "transaction"),
        ("PGWEIR_QUERY_TIMEOUT", "5min"),
        ("PGWEIR_LOG_STATS", "off"),
        ("PGWEIR_MAX_PACKET_SIZE", "64kB"),
        ("HOME", "/root"),
    ]);
    let settings = config.unwrap().config.settings;
    assert_eq!(
        (settings.pool_mode, settings.listen_port),
        (PoolMode::Transaction, 5)
    );
    assert_eq!(settings.query_timeout, Duration::from_secs(300));
    assert_eq!(
        (settings.log_stats, settings.max_packet_size),
        (false, 65536)
    );
}

#[test]
fn mistakes_in_the_environment() {
    let problem = |name, value| {
        let problems = with_variables(&[(name, value)]).map(|_| ()).unwrap_err();
        problems[0].to_string()
    };
    let bad = problem("PGWEIR_POOL_MODE", "x");
    let expected =
        "invalid value \"x\" for parameter pool_mode in configuration (PGWEIR_POOL_MODE): ";
    assert!(bad.starts_with(expected), "{bad}");
    assert_eq!(
        problem("PGWEIR_POOL_MOD", "session"),
        "unknown parameter: pool_mod (PGWEIR_POOL_MOD): did you mean PGWEIR_POOL_MODE?"
    );
    assert_eq!(
        problem("PGWEIR_POOL_SIZE", "5"),
        "unknown parameter: pool_size (PGWEIR_POOL_SIZE)"
    );
}

#[test]
fn variables_that_are_no_settings_are_mentioned() {
    let kubernetes = [
        ("PGWEIR_CONFIG", "x"),
        ("PGWEIR_SERVICE_HOST", "x"),
        ("PGWEIR_PORT", "tcp://x"),
    ];
    let notes = with_variables(&kubernetes).unwrap().notes;
    assert_eq!(
        notes
            .iter()
            .filter(|note| note.text.ends_with("is not a setting"))
            .count(),
        3
    );
}

#[test]
fn what_has_no_effect_is_told() {
    let told = notes(
        "[pgbouncer]\npkt_buf = 8192\nsbuf_loopcnt = 5\nauth_user = joe\nclient_tls_protocols = all\n\
         [databases]\na = auth_user=x\n",
    );
    let told_of = |what: &str| told.iter().any(|note| note.contains(what));
    assert!(told_of("pkt_buf has no effect"));
    assert!(!told_of("sbuf_loopcnt"), "given its default");
    assert!(!told_of("auth_user"), "it has an effect");
    assert!(told_of("TLS 1.0 and 1.1 are not available"));
}

#[test]
fn things_written_twice_are_told() {
    let told = notes(
        "[pgbouncer]\nverbose=1\nverbose=2\n[databases]\na =\na = port=5\n[users]\nu =\nu =\n",
    );
    let count = told
        .iter()
        .filter(|note| note.contains("has no effect"))
        .count();
    assert_eq!(count, 3, "{told:?}");
}

#[test]
fn a_swallowed_key_is_told() {
    let told =
        notes("[pgbouncer]\n[databases]\na = user= host=x\nb = host=x\tport=5\nc = user=x=y\n");
    let count = told
        .iter()
        .filter(|note| note.contains("swallowed"))
        .count();
    assert_eq!(count, 2, "{told:?}");
}

#[test]
fn no_message_shows_a_password() {
    for entry in [
        "a = password=hush=",
        "a = password='hush",
        "a = host=x password=hush foo",
        "a = password=hush x=1",
    ] {
        let text = format!("[pgbouncer]\n[databases]\n{entry}\n");
        let shown = format!("{:?}", ini(&text));
        assert!(!shown.contains("hush"), "{shown}");
    }
    let (_dir, path) = file(
        "t.toml",
        "[databases.a]\npassword = [\"hush\"]\n[databases]\nb.password = 5\n",
    );
    let shown = format!("{:?}", load(&path, NO_VARIABLES));
    assert!(shown.contains("***") && !shown.contains("hush"), "{shown}");
}

#[test]
fn the_path_is_shown_as_conffile() {
    let (_dir, path) = file("t.ini", "[pgbouncer]\n");
    let config = load(&path, NO_VARIABLES).unwrap().config;
    assert_eq!(
        config.settings.get_text("conffile"),
        Some(Some(path.display().to_string()))
    );
    assert_eq!(config.path, path);
}

#[test]
fn the_example_files_load_and_say_the_same() {
    let example = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("config")
            .join(name);
        let loaded = load(&path, NO_VARIABLES).unwrap();
        assert!(
            loaded
                .notes
                .iter()
                .all(|note| note.severity > Severity::Warning),
            "{:?}",
            loaded.notes
        );
        Config {
            path: PathBuf::new(),
            settings: Settings {
                conffile: None,
                ..loaded.config.settings
            },
            ..loaded.config
        }
    };
    let ini = example("pgbouncer.ini");
    assert_eq!(ini, example("pgweir.toml"));
    assert!(!ini.databases.is_empty() && !ini.users.is_empty());
}

/// Text that a setting of this kind accepts, and that it shows again as it is.
fn text_for(kind: Kind) -> BoxedStrategy<String> {
    match kind {
        Kind::Text | Kind::Path => "[a-zA-Z0-9/;#'\"][a-zA-Z0-9 =/;#'\"]{0,8}[a-z]".boxed(),
        Kind::DatabaseName => "[a-f]{1,9}".boxed(),
        Kind::List => "[a-z*]{1,5}(,[a-z.]{1,5}){0,2}".boxed(),
        Kind::Flag => "[01]".boxed(),
        Kind::Int { min, max } | Kind::Bytes { min, max } => {
            (min..=max).prop_map(|n| n.to_string()).boxed()
        }
        Kind::Seconds { min } => (min..1_000_000).prop_map(|n| n.to_string()).boxed(),
        Kind::Time => (0u32..1_000_000)
            .prop_map(|n| number::general(f64::from(n) / 1000.0))
            .boxed(),
        Kind::Millis => (0u32..1_000_000).prop_map(|n| n.to_string()).boxed(),
        Kind::Mode => (0u32..0o7777).prop_map(|n| n.to_string()).boxed(),
        Kind::Word(words) => {
            let available: Vec<_> = words
                .iter()
                .filter(|word| !matches!(**word, "hba" | "cert" | "ldap"))
                .collect();
            proptest::sample::select(available)
                .prop_map(|word| (*word).to_owned())
                .boxed()
        }
        Kind::Protocols => "(secure|all|tlsv1\\.2|tlsv1\\.0,tlsv1\\.3)".boxed(),
    }
}

/// Some settings, each with a text.
fn some_settings() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let rows: Vec<_> = SETTINGS
        .iter()
        .filter(|row| row.name != "client_tls_sslmode")
        .collect();
    proptest::sample::subsequence(rows, 0..20).prop_flat_map(|rows| {
        rows.into_iter()
            .map(|row| text_for(row.kind).prop_map(move |text| (row.name, text)))
            .collect::<Vec<_>>()
    })
}

/// A string in TOML; numbers, too, may be written as strings.
fn toml_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let mut draft = Draft::default();
        source::read_ini(&bytes, "t.ini", &mut draft);
        let _ = draft.finish(Path::new("t.ini"), true);
    }

    #[test]
    fn no_likely_file_panics(
        lines in proptest::collection::vec(
            "\\[(pgbouncer|databases|users|peers|x)\\]|(a|\\*|1|pool_mode|query_timeout) ?=[a-z0-9_=' ,.-]{0,20}",
            0..12,
        )
    ) {
        let mut draft = Draft::default();
        source::read_ini(lines.join("\n").as_bytes(), "t.ini", &mut draft);
        let _ = draft.finish(Path::new("t.ini"), true);
    }

    #[test]
    fn a_rendered_configuration_reads_back_equal(values in some_settings()) {
        let mut expected = Settings::default();
        let mut ini_text = "[pgbouncer]\n".to_owned();
        let mut toml_text = ini_text.clone();
        for (name, text) in &values {
            prop_assert_eq!(expected.set_text(name, text), Ok(()), "{} = {}", name, text);
            let shown = find(name).and_then(|row| row.text(&expected)).unwrap();
            let _ = writeln!(ini_text, "{name} = {shown}");
            let _ = writeln!(toml_text, "{name} = {}", toml_string(&shown));
        }
        let mut from_ini = Draft::default();
        source::read_ini(ini_text.as_bytes(), "t", &mut from_ini);
        let mut from_toml = Draft::default();
        toml::read(toml_text.as_bytes(), "t", &mut from_toml);
        expected.conffile.get_or_insert(PathBuf::from("t"));
        for draft in [from_ini, from_toml] {
            match draft.finish(Path::new("t"), false) {
                Ok(done) => prop_assert_eq!(&done.config.settings, &expected),
                Err(problems) => prop_assert!(false, "{:?}", problems),
            }
        }
    }
}
