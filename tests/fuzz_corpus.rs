//! Replays the fuzz corpus through the fuzz targets, with the ordinary toolchain.
//!
//! Also sees to it that a target is complete: function, binary, manifest and at least one seed.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

#[path = "../fuzz/targets.rs"]
mod targets;

fn fuzz_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The names in a directory, without extensions.
fn names_in(dir: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(fuzz_dir().join(dir)).expect("the directory exists");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let stem = |path: PathBuf| Some(path.file_stem()?.to_string_lossy().into_owned());
    paths.filter_map(stem).collect()
}

fn target_names() -> BTreeSet<String> {
    let names = targets::ALL.iter().map(|(name, _)| name.to_string());
    names.collect()
}

#[test]
fn every_input_of_the_corpus_is_survived() {
    for (name, target) in targets::ALL {
        for entry in fs::read_dir(fuzz_dir().join("corpus").join(name)).expect("a corpus") {
            let path = entry.expect("an entry").path();
            println!("{}", path.display());
            target(&fs::read(&path).expect("an input"));
        }
    }
}

/// What a few minutes of fuzzing would try first: some bytes changed, some missing.
#[test]
fn the_corpus_slightly_changed_is_survived() {
    const CHANGES: u32 = 200;
    let mut random = 1u32;
    let mut next = move || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) as usize
    };
    for (name, target) in targets::ALL {
        for entry in fs::read_dir(fuzz_dir().join("corpus").join(name)).expect("a corpus") {
            let input = fs::read(entry.expect("an entry").path()).expect("an input");
            for _ in 0..CHANGES {
                let mut changed = input.clone();
                for _ in 0..next() % 4 {
                    let at = next() % changed.len().max(1);
                    changed.splice(at..(at + next() % 3).min(changed.len()), [next() as u8]);
                }
                target(&changed);
            }
        }
    }
}

#[test]
fn every_target_is_complete() {
    let manifest = fs::read_to_string(fuzz_dir().join("Cargo.toml")).expect("a manifest");
    let bins = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("name = "));
    let bins = bins.map(|name| name.trim_matches('"').to_string());
    let bins: BTreeSet<String> = bins.filter(|name| name != "pgweir-fuzz").collect();
    assert_eq!(bins, target_names());
    assert_eq!(names_in("fuzz_targets"), target_names());
    assert_eq!(names_in("corpus"), target_names());
}
