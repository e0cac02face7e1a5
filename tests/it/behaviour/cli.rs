//! The command line: by our own name, and by PgBouncer's, whose words are compared with PgBouncer's own where that is installed.

use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use nix::sys::signal::Signal;

use super::*;
use crate::fixture::*;
use crate::proto::Conn;

/// A folder with our program under PgBouncer's name.
fn disguise(ini: &Ini) -> std::path::PathBuf {
    let path = ini.dir().join("pgbouncer");
    symlink(pooler_bin(), &path).unwrap();
    path
}

fn run(program: &std::path::Path, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    become_unprivileged(&mut command)
        .args(args)
        .current_dir("/");
    command.output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn called_pgbouncer_its_words_are_pgbouncers() {
    let ini = Ini::new();
    let ours = disguise(&ini);
    let name = ours.display().to_string();
    let mistake =
        |what: &str| format!("{name}: {what}\nTry \"{name} --help\" for more information.\n");
    for (args, what) in [
        (&[][..], "no configuration file specified"),
        (&["-q"], "no configuration file specified"),
        (&["a", "b"], "no configuration file specified"),
        (&["-z", "x"], "invalid option -- 'z'"),
        (&["-R", "x"], "invalid option -- 'R'"),
        (&["--reboot", "x"], "unrecognized option '--reboot'"),
        (&["x", "-u"], "option requires an argument -- 'u'"),
        (&["x", "--user"], "option '--user' requires an argument"),
        (
            &["--daemon=yes", "x"],
            "option '--daemon' doesn't allow an argument",
        ),
        (
            &["--ver", "x"],
            "option '--ver' is ambiguous; possibilities: '--verbose' '--version'",
        ),
    ] {
        let output = run(&ours, args);
        assert_eq!(text(&output.stderr), mistake(what), "{args:?}");
        assert_eq!(
            (output.status.code(), output.stdout.len()),
            (Some(1), 0),
            "{args:?}"
        );
        if let Some(theirs) = pgbouncer() {
            let output = run(theirs, args);
            // Its name is the path that it was called by, which is not ours.
            let told = text(&output.stderr);
            let (called, _) = told.split_once(": ").unwrap();
            assert_eq!(
                told.replace(called, &name),
                mistake(what),
                "PgBouncer, {args:?}"
            );
            assert_eq!(output.status.code(), Some(1), "PgBouncer, {args:?}");
        }
    }
    let version = run(&ours, &["-V"]);
    assert_eq!(version.status.code(), Some(0));
    assert!(text(&version.stdout).starts_with("PgBouncer 1.26.1\n"));
    if let Some(theirs) = pgbouncer() {
        let lines = |bytes: &[u8]| {
            text(bytes)
                .lines()
                .take(13)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let (ours, theirs) = (run(&ours, &["--help"]), run(theirs, &["--help"]));
        let theirs_named = |line: &String| line.split_once(' ').map(|(_, rest)| rest.to_owned());
        let options = |bytes: &[u8]| lines(bytes).split_off(5);
        assert_eq!(options(&ours.stdout)[..6], options(&theirs.stdout)[..6]);
        assert_eq!(
            theirs_named(&lines(&ours.stdout)[0]),
            theirs_named(&lines(&theirs.stdout)[0])
        );
    }
}

#[test]
fn a_start_that_fails_is_told_as_by_pgbouncer() {
    let ini = Ini::new();
    ini.write();
    let ours = disguise(&ini);
    let file = ini.dir().join("pooler.ini").display().to_string();
    for (args, line) in [
        (&["/nonexistent.ini"][..], "FATAL cannot load config file"),
        (&["-d", &file], "FATAL daemon needs pidfile configured"),
        (&["-u", "nosuchuser", &file], "FATAL "),
    ] {
        for program in [Some(&ours), pgbouncer()].into_iter().flatten() {
            let output = run(program, args);
            assert_eq!(output.status.code(), Some(1), "{program:?} {args:?}");
            let told = text(&output.stderr);
            let last = told.lines().last().unwrap_or_default();
            assert!(last.contains(line), "{program:?} {args:?}: {told}");
        }
    }
}

/// As a service file or a container does it.
#[tokio::test]
async fn called_pgbouncer_it_serves_and_ends() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let program = disguise(&ini);
        ini.program(program);
        let mut pooler = ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        assert_eq!(client.ok("SELECT 1").await.value(), "1");
        client.close().await;
        if nix::unistd::Uid::effective().is_root() {
            // The pooler runs as another user than we do: its own gets in.
            let psql = Command::new("runuser")
                .args(["-u", "postgres", "--", "psql", "-XAtw", "-h"])
                .arg(&pooler.dir)
                .args([
                    "-p",
                    &pooler.port.to_string(),
                    "-U",
                    "pgbouncer",
                    "pgbouncer",
                ])
                .args(["-c", "SHOW VERSION"])
                .current_dir("/")
                .output();
            if let Ok(psql) = psql {
                assert!(
                    text(&psql.stdout).starts_with("PgBouncer 1.26.1"),
                    "{psql:?}"
                );
            }
        } else {
            let mut own = Conn::unix(&pooler.socket()).await;
            own.log_in("pgbouncer", "pgbouncer", None).await;
            own.close().await;
        }
        pooler.signal(Signal::SIGINT);
        assert_eq!(pooler.wait_exit().await, Exit::Code(0));
        assert!(pooler.log().contains("server connections dropped, exiting"));
    })
    .await;
}
