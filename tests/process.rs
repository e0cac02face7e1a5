//! What can only be tried in a process of its own: becoming a daemon, switching users, signals, and logging for a whole process.
//!
//! This program is its own test runner, without threads, since a process with threads may not fork: each test starts the program
//! again with `--child NAME`. Every wait is bounded. Tests that need root say so and are skipped without it.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal as Number, kill};
use nix::unistd::{Pid, Uid, User, setuid};
use pgweir::logs::{self, LogError, LogOptions};
use pgweir::process::{
    Pidfile, PidfileError, Readiness, Signal, Signals, daemonise, pidfile, raise_fd_limit,
    refuse_root, switch_user,
};

/// How long anything may take before a test fails.
const WAIT_MAX: Duration = Duration::from_secs(20);

type Test = fn(&Path) -> Outcome;
type Role = fn(&[String]);

enum Outcome {
    Done,
    Skipped(&'static str),
}

const TESTS: &[(&str, Test)] = &[
    (
        "a_daemon_is_detached_and_up_when_the_command_returns",
        daemon_is_detached,
    ),
    ("a_daemon_that_fails_says_so", daemon_fails),
    ("users_are_switched_for_good", users_are_switched),
    ("root_is_refused", root_is_refused),
    (
        "one_of_many_instances_gets_the_pidfile",
        one_gets_the_pidfile,
    ),
    ("a_killed_instances_pidfile_is_stale", killed_instance),
    ("signals_arrive", signals_arrive),
    ("the_soft_fd_limit_is_raised", fd_limit_is_raised),
    ("stderr_gets_lines", stderr_gets_lines),
    ("the_journal_gets_priorities", journal_gets_priorities),
    ("quiet_is_quiet", quiet_is_quiet),
    ("a_closed_stderr_is_no_problem", closed_stderr),
    ("a_logfile_that_cannot_be_opened", unopenable_logfile),
    (
        "a_line_is_written_before_the_process_goes_on",
        written_at_once,
    ),
];

const ROLES: &[(&str, Role)] = &[
    ("daemon", be_daemon),
    ("daemon-fails", be_failing_daemon),
    ("user", be_user),
    ("root", be_root),
    ("pidfile", be_pidfile_holder),
    ("signals", be_signalled),
    ("fd-limit", be_limited),
    ("log", be_logging),
    ("log-to-nobody", be_logging_to_nobody),
    ("log-unopenable", be_unable_to_log),
    ("log-and-abort", be_aborting),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, role, rest @ ..] = arguments.as_slice()
        && flag == "--child"
    {
        let (_, run) = ROLES
            .iter()
            .find(|(name, _)| name == role)
            .expect("a role of the table");
        run(rest);
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|a| a == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    run_tests(
        arguments
            .iter()
            .find(|a| !a.starts_with('-'))
            .map_or("", String::as_str),
    )
}

fn run_tests(filter: &str) -> ExitCode {
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, test) in TESTS.iter().filter(|(name, _)| name.contains(filter)) {
        let directory = tempfile::tempdir().unwrap();
        let verdict = match catch_unwind(AssertUnwindSafe(|| test(directory.path()))) {
            Ok(Outcome::Done) => {
                passed += 1;
                "ok".to_owned()
            }
            Ok(Outcome::Skipped(reason)) => {
                skipped += 1;
                format!("skipped: {reason}")
            }
            Err(_) => {
                failed += 1;
                "FAILED".to_owned()
            }
        };
        println!("test {name} ... {verdict}");
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {passed} passed; {failed} failed; {skipped} ignored");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

// ---- starting and waiting ----

fn child(role: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .arg("--child")
        .arg(role)
        .args(arguments)
        .stdin(Stdio::null());
    command
}

/// Runs a role to its end. Its output is small, so the pipes never fill.
fn run(command: &mut Command) -> Output {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    finish(child)
}

fn finish(mut child: Child) -> Output {
    if !happens(|| child.try_wait().unwrap().is_some()) {
        child.kill().unwrap();
        panic!("the child did not end");
    }
    child.wait_with_output().unwrap()
}

fn happens(mut condition: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while started.elapsed() < WAIT_MAX {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

fn stdout_of(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn is_alive(pid: Pid) -> bool {
    kill(pid, None).is_ok()
}

// ---- daemon ----

fn be_daemon(arguments: &[String]) {
    let path = Path::new(&arguments[0]);
    pidfile::remove_stale(path).unwrap();
    let readiness = daemonise(Some(path)).unwrap();
    // Slow on purpose: the command must wait for this.
    std::thread::sleep(Duration::from_millis(200));
    let pidfile = Pidfile::create(path).unwrap();
    on_runtime(async {
        let mut signals = Signals::install().unwrap();
        readiness.ready();
        let _ = tokio::time::timeout(WAIT_MAX, signals.next()).await;
    });
    drop(pidfile);
}

fn on_runtime(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work);
}

fn daemon_is_detached(directory: &Path) -> Outcome {
    let path = directory.join("pgweir.pid");
    let output = run(child("daemon", &[text(&path)]).current_dir(directory));
    assert_eq!(stdout_of(&output), "");
    let pid: i32 = fs::read_to_string(&path)
        .expect("there when the command returns")
        .trim()
        .parse()
        .unwrap();
    let daemon = Pid::from_raw(pid);
    assert_detached(pid, directory);
    kill(daemon, Number::SIGTERM).unwrap();
    assert!(
        happens(|| !path.exists()),
        "the pid file is removed at the end"
    );
    assert!(
        happens(|| !is_alive(daemon)) || is_zombie(pid),
        "the daemon ends"
    );
    Outcome::Done
}

fn assert_detached(pid: i32, directory: &Path) {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let link = |name: &str| fs::read_link(process.join(name)).unwrap();
    for fd in ["fd/0", "fd/1", "fd/2"] {
        assert_eq!(link(fd), Path::new("/dev/null"));
    }
    assert_eq!(link("cwd"), directory.canonicalize().unwrap());
    let [parent, session, terminal] = [1, 3, 4].map(|field| stat_field(&process, field));
    assert_ne!(parent, i64::from(Pid::this().as_raw()));
    assert_ne!(
        session,
        i64::from(pid),
        "the leader of a session could acquire a terminal"
    );
    assert_ne!(
        Some(session),
        nix::unistd::getsid(None)
            .ok()
            .map(|sid| i64::from(sid.as_raw()))
    );
    assert_eq!(terminal, 0);
}

/// A field of `/proc/PID/stat` after the name: 0 is the state, 1 the parent, 3 the session, 4 the terminal.
fn stat_field(process: &Path, field: usize) -> i64 {
    let stat = fs::read_to_string(process.join("stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').nth(field).unwrap().parse().unwrap()
}

/// In a container whose first process does not look after orphans, they stay as zombies.
fn is_zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

fn be_failing_daemon(_: &[String]) {
    let _readiness = daemonise(Some(Path::new("unused"))).unwrap();
}

fn daemon_fails(_: &Path) -> Outcome {
    let output = run(&mut child("daemon-fails", &[]));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("has not started"));
    Readiness::foreground().ready();
    Outcome::Done
}

// ---- users ----

const NEEDS_ROOT: Outcome = Outcome::Skipped("needs root");

/// Somebody other than root that this machine has.
fn ordinary_user() -> User {
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| User::from_name(name).unwrap())
        .expect("postgres or nobody")
}

fn be_user(arguments: &[String]) {
    let name = &arguments[0];
    switch_user(name).unwrap();
    refuse_root().unwrap();
    switch_user(name).expect("nothing to do");
    assert!(setuid(Uid::from_raw(0)).is_err());
    assert!(fs::read("/etc/shadow").is_err());
    println!("{}", switch_user("daemon").unwrap_err());
    print!("{}", fs::read_to_string("/proc/self/status").unwrap());
}

fn users_are_switched(_: &Path) -> Outcome {
    if !Uid::effective().is_root() {
        return NEEDS_ROOT;
    }
    let user = ordinary_user();
    let output = stdout_of(&run(&mut child("user", &[&user.name])));
    assert!(
        output.starts_with("cannot switch to user 'daemon': setgroups: "),
        "{output}"
    );
    let numbers = |key: &str| -> Vec<u32> {
        let line = output
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap();
        line.split_whitespace()
            .map(|n| n.parse().unwrap())
            .collect()
    };
    assert_eq!(numbers("Uid:"), [user.uid.as_raw(); 4]);
    assert_eq!(numbers("Gid:"), [user.gid.as_raw(); 4]);
    assert!(!numbers("Groups:").contains(&0));
    for set in ["CapPrm:", "CapEff:"] {
        assert_eq!(numbers(set), [0]);
    }
    Outcome::Done
}

fn be_root(_: &[String]) {
    println!("{}", refuse_root().unwrap_err());
    // Asking for root by name does not help.
    switch_user("root").unwrap();
    println!("{}", refuse_root().unwrap_err());
}

fn root_is_refused(_: &Path) -> Outcome {
    if !Uid::effective().is_root() {
        return NEEDS_ROOT;
    }
    let refusal = "pgweir should not run as root\n";
    assert_eq!(stdout_of(&run(&mut child("root", &[]))), refusal.repeat(2));
    Outcome::Done
}

// ---- pid file ----

/// Says what came of it, and holds the file until stdin ends.
fn be_pidfile_holder(arguments: &[String]) {
    let path = Path::new(&arguments[0]);
    let result = pidfile::remove_stale(path).and_then(|_| Pidfile::create(path));
    println!("{}", if result.is_ok() { "mine" } else { "taken" });
    if let Err(error) = &result {
        assert_eq!(error, &PidfileError::Exists(path.to_owned()));
    }
    let _ = io::stdin().read(&mut [0]);
}

fn hold_pidfile(path: &Path) -> (Child, String) {
    let mut command = child("pidfile", &[text(path)]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    (child, line.trim().to_owned())
}

fn one_gets_the_pidfile(directory: &Path) -> Outcome {
    let path = directory.join("pgweir.pid");
    let mut command = child("pidfile", &[text(&path)]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut children: Vec<Child> = (0..8).map(|_| command.spawn().unwrap()).collect();
    let first_line = |child: &mut Child| {
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        line
    };
    let lines: Vec<String> = children.iter_mut().map(first_line).collect();
    assert_eq!(
        lines.iter().filter(|line| *line == "mine\n").count(),
        1,
        "{lines:?}"
    );
    for mut child in children {
        drop(child.stdin.take());
        assert!(finish(child).status.success());
    }
    assert!(!path.exists());
    Outcome::Done
}

fn killed_instance(directory: &Path) -> Outcome {
    let path = directory.join("pgweir.pid");
    let (mut child, line) = hold_pidfile(&path);
    assert_eq!(line, "mine");
    assert_eq!(
        pidfile::remove_stale(&path),
        Err(PidfileError::Exists(path.clone()))
    );
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(path.exists());
    let (mut child, line) = hold_pidfile(&path);
    assert_eq!(line, "mine");
    drop(child.stdin.take());
    finish(child);
    assert!(!path.exists());
    Outcome::Done
}

// ---- signals and limits ----

fn be_signalled(_: &[String]) {
    on_runtime(async {
        let mut signals = Signals::install().unwrap();
        println!("installed");
        loop {
            let signal = tokio::time::timeout(WAIT_MAX, signals.next())
                .await
                .unwrap();
            println!("{}", signal.name());
            // A dropped future takes no signal with it.
            let _ = tokio::time::timeout(Duration::ZERO, std::future::pending::<()>()).await;
            if signal == Signal::Quit {
                return;
            }
        }
    });
}

fn signals_arrive(_: &Path) -> Outcome {
    let mut child = child("signals", &[])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "installed");
    let all = [
        Number::SIGHUP,
        Number::SIGINT,
        Number::SIGTERM,
        Number::SIGUSR1,
        Number::SIGUSR2,
        Number::SIGTERM,
        Number::SIGPIPE,
        Number::SIGQUIT,
    ];
    for number in all {
        kill(pid, number).unwrap();
        if number != Number::SIGPIPE {
            assert_eq!(lines.next().unwrap().unwrap(), number.as_str());
        }
    }
    assert!(finish(child).status.success());
    Outcome::Done
}

fn be_limited(_: &[String]) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
    let limits = raise_fd_limit().unwrap();
    assert_eq!((limits.soft, limits.hard), (hard, hard));
    assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
}

fn fd_limit_is_raised(_: &Path) -> Outcome {
    stdout_of(&run(&mut child("fd-limit", &[])));
    Outcome::Done
}

// ---- logging ----

/// Arguments: `quiet` or `loud`.
fn be_logging(arguments: &[String]) {
    let handle = logs::init(LogOptions {
        quiet: arguments[0] == "quiet",
        ..LogOptions::default()
    })
    .unwrap();
    tracing::info!(target: "pgweir", who = "C-1: db/user@h:1", "two\nlines");
    tracing::debug!(target: "pgweir", "hidden");
    handle.set_verbose(1);
    tracing::debug!(target: "pgweir", "shown");
    log::warn!(target: "rustls", "from log");
    log::info!(target: "rustls", "hidden");
    assert_eq!(
        logs::init(LogOptions::default()).unwrap_err(),
        LogError::AlreadyInstalled
    );
}

/// Without date, zone and process id.
fn messages(output: &[u8]) -> Vec<String> {
    let text = String::from_utf8(output.to_vec()).unwrap();
    text.lines()
        .map(|line| {
            line.split_once("] ")
                .map_or(line, |(_, rest)| rest)
                .to_owned()
        })
        .collect()
}

fn stderr_gets_lines(_: &Path) -> Outcome {
    // A variable left over from another service is not believed.
    let berlin = "CET-1CEST,M3.5.0,M10.5.0/3";
    let output = run(child("log", &["loud"])
        .env("JOURNAL_STREAM", "1:1")
        .env("TZ", berlin));
    assert!(output.status.success(), "{output:?}");
    let expected = [
        "LOG C-1: db/user@h:1 two",
        "\tlines",
        "DEBUG shown",
        "WARNING rustls: from log",
    ];
    assert_eq!(messages(&output.stderr), expected);
    let head = String::from_utf8(output.stderr[.."2026-11-21 01:58:51.503 CET".len() + 1].to_vec())
        .unwrap();
    assert!(head.contains(" CET ") || head.contains(" CEST"), "{head}");
    Outcome::Done
}

fn journal_gets_priorities(directory: &Path) -> Outcome {
    let path = directory.join("journal");
    let file = File::create(&path).unwrap();
    let metadata = file.metadata().unwrap();
    let stream = format!("{}:{}", metadata.dev(), metadata.ino());
    let child = child("log", &["loud"])
        .env("JOURNAL_STREAM", stream)
        .stderr(file)
        .spawn()
        .unwrap();
    assert!(finish(child).status.success());
    let expected = "<6>C-1: db/user@h:1 two\n<6>\tlines\n<7>shown\n<4>rustls: from log\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    Outcome::Done
}

fn quiet_is_quiet(_: &Path) -> Outcome {
    let output = run(&mut child("log", &["quiet"]));
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    Outcome::Done
}

fn be_logging_to_nobody(_: &[String]) {
    logs::init(LogOptions::default()).unwrap();
    // Wait until the reader of stderr has gone.
    let _ = io::stdin().read(&mut [0]);
    (0..100).for_each(|n| tracing::warn!(target: "pgweir", n, "nobody reads this"));
    logs::print_fatal("nor this", false);
    println!("alive");
}

fn closed_stderr(_: &Path) -> Outcome {
    let mut command = child("log-to-nobody", &[]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    drop(child.stdin.take());
    assert_eq!(stdout_of(&finish(child)), "alive\n");
    Outcome::Done
}

fn be_unable_to_log(_: &[String]) {
    let options = LogOptions {
        logfile: Some("/nonexistent/x.log".into()),
        ..LogOptions::default()
    };
    if let Err(error) = logs::init(options.clone()) {
        logs::print_fatal(&error, false);
        // Nothing was installed by the failed attempt.
        let handle = logs::init(LogOptions::default()).unwrap();
        assert_eq!(handle.apply(options).unwrap_err(), error);
        tracing::error!(target: "pgweir", fatal = true, "{error}");
        std::process::exit(1);
    }
}

fn unopenable_logfile(_: &Path) -> Outcome {
    let output = run(&mut child("log-unopenable", &[]));
    assert_eq!(output.status.code(), Some(1));
    let line = "FATAL Cannot open logfile: '/nonexistent/x.log': No such file or directory";
    assert_eq!(messages(&output.stderr), [line, line]);
    Outcome::Done
}

fn be_aborting(arguments: &[String]) {
    let logfile = Some(PathBuf::from(&arguments[0]));
    logs::init(LogOptions {
        quiet: true,
        logfile,
        ..LogOptions::default()
    })
    .unwrap();
    tracing::error!(target: "pgweir", "the last words");
    // What a client would see now.
    io::stdout().write_all(b"error sent\n").unwrap();
    kill(Pid::this(), Number::SIGKILL).unwrap();
}

fn written_at_once(directory: &Path) -> Outcome {
    let path = directory.join("a.log");
    let output = run(&mut child("log-and-abort", &[text(&path)]));
    assert!(!output.status.success());
    assert_eq!(output.stdout, b"error sent\n");
    assert!(
        fs::read_to_string(&path)
            .unwrap()
            .ends_with(" ERROR the last words\n")
    );
    Outcome::Done
}
