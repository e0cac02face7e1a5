//! The same scenarios, played by PgBouncer and by pgweir with one and with two workers, compared line by line. See README.md beside this
//! file for the language of the scenarios.
//!
//! - [`scenario`] reads scenario files, [`settings`] makes one scenario for each setting.
//! - [`play`] plays one against a [`subject`], with [`client`]s and scripted servers ([`backend`]); [`render`] and [`normal`] write it down.
//! - [`differences`] holds the reviewed list of what may differ; [`recorded`] keeps PgBouncer's transcripts in the repository.
//!
//! `cargo test --test compat [-- WORDS…]` plays the scenarios whose names contain one of the words. With a PgBouncer 1.26 (in the variable
//! `PGBOUNCER` or in `PATH`) it is played too; without one, its recorded transcripts are compared with. `--record` writes them anew,
//! `--page` writes docs/differences.md, `--show` prints every transcript, `--brief` only the lines that differ. `COMPAT_JOBS` plays go on at a time (12).

mod backend;
mod client;
mod differences;
mod normal;
mod play;
mod recorded;
mod render;
mod scenario;
mod settings;
mod subject;

#[allow(dead_code, unused_imports, unused_macros)]
#[path = "../it/fixture/mod.rs"]
mod fixture;
#[allow(dead_code, unused_imports)]
#[path = "../it/proto/mod.rs"]
mod proto;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;

use differences::{Change, Differences};
use fixture::Cluster;
use scenario::Scenario;
use subject::Subject;

/// The PgBouncer whose behaviour is followed.
const VERSION: &str = "1.26.1";

/// Lower-case hexadecimal.
fn proto_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat")
}

#[derive(Debug, Default)]
struct Arguments {
    words: Vec<String>,
    record: bool,
    page: bool,
    show: bool,
    brief: bool,
    list: bool,
}

fn arguments() -> Arguments {
    let mut out = Arguments::default();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--record" => out.record = true,
            "--page" => out.page = true,
            "--show" => out.show = true,
            "--brief" => out.brief = true,
            "--list" => out.list = true,
            // What cargo passes on to every test program.
            flag if flag.starts_with('-') => {}
            word => out.words.push(word.to_string()),
        }
    }
    out
}

fn main() -> ExitCode {
    let arguments = arguments();
    let list = std::fs::read_to_string(here().join("differences.toml")).expect("the list");
    let differences = match Differences::parse(&list) {
        Ok(differences) => differences,
        Err(why) => {
            eprintln!("differences.toml: {why}");
            return ExitCode::FAILURE;
        }
    };
    if arguments.page {
        std::fs::write(page_path(), differences.page()).expect("docs/ is writable");
        return ExitCode::SUCCESS;
    }
    let mut scenarios = scenario::read_all(&here().join("scenarios"));
    scenarios.extend(settings::scenarios(&here().join("settings.txt")));
    assert_names_are_unique(&scenarios);
    let total = scenarios.len();
    let wanted = |s: &Scenario| {
        arguments.words.is_empty() || arguments.words.iter().any(|w| s.name().contains(w))
    };
    scenarios.retain(wanted);
    if arguments.list {
        scenarios.iter().for_each(|s| println!("{}", s.name()));
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let complete = scenarios.len() == total;
    runtime.block_on(run(&arguments, scenarios, &differences, complete))
}

fn page_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/differences.md")
}

fn assert_names_are_unique(scenarios: &[Scenario]) {
    let mut seen = std::collections::HashSet::new();
    for s in scenarios {
        assert!(
            seen.insert(s.name()),
            "two scenarios are called {}",
            s.name()
        );
    }
}

/// PgBouncer, when there is one of the right version; says plainly when there is not.
fn reference() -> Option<Subject> {
    let Some(path) = subject::find_pgbouncer() else {
        eprintln!(
            "compat: PgBouncer itself is SKIPPED: none in PATH or PGBOUNCER; comparing with its recorded transcripts"
        );
        return None;
    };
    match subject::version_of(&path) {
        Some(version) if version == VERSION => Some(Subject::PgBouncer(path)),
        other => {
            let version = other.unwrap_or_else(|| "of no known version".to_string());
            eprintln!(
                "compat: PgBouncer itself is SKIPPED: {} is {version}, not {VERSION}; comparing with its recorded transcripts",
                path.display()
            );
            None
        }
    }
}

/// What the plays of one scenario gave.
struct Outcome {
    scenario: Scenario,
    /// From PgBouncer, played now.
    theirs: Option<String>,
    ours: Vec<(Subject, String)>,
}

async fn run(
    arguments: &Arguments,
    scenarios: Vec<Scenario>,
    differences: &Differences,
    complete: bool,
) -> ExitCode {
    let began = Instant::now();
    let reference = reference();
    if arguments.record && reference.is_none() {
        eprintln!("compat: nothing to record from");
        return ExitCode::FAILURE;
    }
    prepare().await;
    let jobs = std::env::var("COMPAT_JOBS")
        .ok()
        .and_then(|n| n.parse().ok());
    let slots = Arc::new(Semaphore::new(jobs.unwrap_or(12)));
    let mut running = Vec::new();
    for scenario in scenarios {
        let (reference, slots) = (reference.clone(), slots.clone());
        let ours = !arguments.record;
        running.push(tokio::spawn(outcome(scenario, reference, ours, slots)));
    }
    let mut report = Report::default();
    let mut recorder = recorded::Recorder::open(&here().join("recorded"));
    for task in running {
        let outcome = task.await.expect("plays do not panic");
        if arguments.record {
            let text = outcome.theirs.unwrap_or_default();
            if text.contains("\n!! ") || text.contains("in vain; last seen") {
                eprintln!("--- {}\n{text}", outcome.scenario.name());
            }
            recorder.put(&outcome.scenario, &text);
            report.passed += 1;
            continue;
        }
        judge(arguments, outcome, &recorder, differences, &mut report);
    }
    if arguments.record {
        recorder.write(complete);
    } else if complete && report.failed == 0 {
        check_list(differences, &mut report);
    }
    eprintln!("compat: {:.0} s", began.elapsed().as_secs_f64());
    report.finish()
}

/// The shared cluster and its database, before the first play needs it.
async fn prepare() {
    let cluster = tokio::task::spawn_blocking(Cluster::shared)
        .await
        .expect("PostgreSQL starts");
    let sql = format!(
        "CREATE DATABASE {} TEMPLATE open_template",
        play::SHARED_DATABASE
    );
    cluster.sql("postgres", &sql).await;
}

async fn outcome(
    scenario: Scenario,
    reference: Option<Subject>,
    with_ours: bool,
    slots: Arc<Semaphore>,
) -> Outcome {
    let mut subjects: Vec<Subject> = reference.into_iter().collect();
    if with_ours {
        subjects.extend([1, 2].map(|workers| Subject::Pgweir { workers }));
    }
    let mut plays = tokio::task::JoinSet::new();
    for (at, subject) in subjects.into_iter().enumerate() {
        let (scenario, slots) = (scenario.clone(), slots.clone());
        plays.spawn(async move {
            let _slot = slots.acquire_owned().await.expect("never closed");
            let transcript = play::play(&scenario, &subject).await;
            (at, subject, transcript)
        });
    }
    let mut done = plays.join_all().await;
    done.sort_by_key(|(at, ..)| *at);
    let mut theirs = None;
    let mut ours = Vec::new();
    for (_, subject, transcript) in done {
        match subject {
            Subject::PgBouncer(_) => theirs = Some(transcript),
            subject => ours.push((subject, transcript)),
        }
    }
    Outcome {
        scenario,
        theirs,
        ours,
    }
}

#[derive(Default)]
struct Report {
    passed: usize,
    failed: usize,
}

impl Report {
    fn fail(&mut self, text: &str) {
        self.failed += 1;
        println!("{text}");
    }

    fn finish(self) -> ExitCode {
        let word = if self.failed == 0 { "ok" } else { "FAILED" };
        println!(
            "test result: {word}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out",
            self.passed, self.failed
        );
        ExitCode::from(u8::from(self.failed > 0))
    }
}

fn judge(
    arguments: &Arguments,
    outcome: Outcome,
    recorder: &recorded::Recorder,
    differences: &Differences,
    report: &mut Report,
) {
    let name = outcome.scenario.name();
    let kept = recorder.get(&outcome.scenario);
    let Some(theirs) = outcome.theirs.as_deref().or(kept) else {
        report.fail(&format!(
            "--- {name}: no recorded transcript of PgBouncer (make compat-record)"
        ));
        return;
    };
    let mut good = true;
    let mut told: Vec<Vec<Change>> = Vec::new();
    for (subject, ours) in &outcome.ours {
        if arguments.show {
            println!(
                "--- {name}, {}\n{}",
                subject.name(),
                side_by_side(theirs, ours)
            );
        }
        let changes = differences.unexplained(&name, theirs, ours);
        if changes.is_empty() {
            continue;
        }
        good = false;
        println!("--- {name}: pgbouncer | {}", subject.name());
        if told.contains(&changes) {
            println!("the same");
            continue;
        }
        if !arguments.brief {
            println!("{}", side_by_side(theirs, ours));
        }
        changes.iter().for_each(Change::print);
        told.push(changes);
    }
    if outcome.theirs.is_some() && kept != Some(theirs) {
        good = false;
        println!(
            "--- {name}: recorded | pgbouncer; if PgBouncer is steady here: make compat-record\n{}",
            side_by_side(kept.unwrap_or("(not recorded)"), theirs)
        );
    }
    if good {
        report.passed += 1;
    } else {
        report.failed += 1;
    }
}

/// After a complete run: is every entry of the list needed, and is the page up to date?
fn check_list(differences: &Differences, report: &mut Report) {
    for entry in differences.unused() {
        report.fail(&format!(
            "--- differences.toml: nothing needs the entry: {entry}"
        ));
    }
    if std::fs::read_to_string(page_path()).unwrap_or_default() != differences.page() {
        report.fail("--- docs/differences.md is not what the list says: make differences");
    }
}

/// Two transcripts beside each other, `|` between lines that agree, `*` between others.
fn side_by_side(theirs: &str, ours: &str) -> String {
    const WIDTH: usize = 88;
    let fit = |line: Option<&str>| {
        let line = line.unwrap_or("");
        let mut cut: String = line.chars().take(WIDTH).collect();
        if line.chars().count() > WIDTH {
            cut.pop();
            cut.push('…');
        }
        cut
    };
    let mut out = String::new();
    for (left, right) in differences::pairs(theirs, ours) {
        let sign = if left == right { '|' } else { '*' };
        let line = format!("{:WIDTH$} {sign} {}", fit(left), fit(right));
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
