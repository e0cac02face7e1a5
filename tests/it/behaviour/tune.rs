//! `pgweir tune`: the examples in `config/postgres` are what it prints, and PostgreSQL takes them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::fixture::*;

/// The examples, for whom they are, and one value that PostgreSQL must have read from each.
const EXAMPLES: [(&str, &str, &str); 3] = [
    ("small.conf", "--ram 1GB --cpus 1 --disks ssd:1", "256MB"),
    ("medium.conf", "--ram 4GB --cpus 2 --disks ssd:1", "1GB"),
    ("large.conf", "--ram 32GB --cpus 8 --disks ssd:4", "8GB"),
];

fn tune(words: &str) -> Output {
    let mut command = Command::new(pooler_bin());
    become_unprivileged(&mut command)
        .arg("tune")
        .args(words.split(' '));
    command.current_dir("/").output().expect("the program runs")
}

/// What PostgreSQL says that a setting is, or what it has against the file.
fn postgres_says(dir: &Path, setting: &str) -> String {
    let mut command = Command::new(postgres_bin("postgres"));
    become_unprivileged(&mut command)
        .arg("-D")
        .arg(dir)
        .args(["-C", setting]);
    let output = command
        .current_dir("/")
        .output()
        .expect("PostgreSQL is installed");
    // Beside the answer it may have something to say about files that need not be there.
    let said = match output.status.success() {
        true => output.stdout,
        false => output.stderr,
    };
    String::from_utf8_lossy(&said).trim().to_owned()
}

/// A folder with such a `postgresql.conf`.
fn folder(text: &[u8]) -> PathBuf {
    let dir = scratch_dir("tune");
    write_file(&dir.join("postgresql.conf"), text);
    dir
}

#[test]
fn the_examples_are_what_the_command_prints_and_postgresql_takes_them() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/postgres");
    for (name, words, buffers) in EXAMPLES {
        let printed = tune(words);
        assert_eq!(printed.status.code(), Some(0), "{printed:?}");
        let example = std::fs::read(examples.join(name)).expect(name);
        assert!(
            example == printed.stdout,
            "{name}: pgweir tune {words} prints something else"
        );
        let dir = folder(&example);
        let shown = postgres_says(&dir, "shared_buffers");
        let bytes = |text: &str| match text.split_at(text.len() - 2) {
            (number, "GB") => number.parse::<u64>().unwrap() * 1024,
            (number, _) => number.parse().unwrap(),
        };
        // In pages of 8 kB, where PostgreSQL does not write the unit.
        let pages = shown
            .parse::<u64>()
            .unwrap_or_else(|_| panic!("{name}: {shown}"));
        assert_eq!(pages * 8 / 1024, bytes(buffers), "{name}");
        assert_eq!(postgres_says(&dir, "autovacuum_max_workers"), "4", "{name}");
    }
}

#[test]
fn postgresql_takes_every_kind_of_machine() {
    for words in [
        "--ram 256MB --cpus 1 --disks hdd:1 --connections 10",
        "--ram 500000kB --cpus 3 --disks hdd:12",
        "--ram 2048GB --cpus 256 --disks ssd:24 --connections 2000",
        "--ram 8GB --cpus 4 --version 14",
    ] {
        let printed = tune(words);
        assert_eq!(printed.status.code(), Some(0), "{printed:?}");
        let dir = folder(&printed.stdout);
        assert_eq!(postgres_says(&dir, "log_destination"), "csvlog", "{words}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refused = tune("--ram 4GB --cpus 16 --connections 20");
    assert_eq!(refused.status.code(), Some(1));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        told.starts_with("pgweir tune: 20 connections have no room"),
        "{told}"
    );
}
