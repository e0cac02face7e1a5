//! One scenario for each setting, made from the list of settings.

use std::path::Path;

use crate::scenario::{self, Scenario};

/// Values that every setting is tried with; most are wrong for most.
const VALUES: [&str; 9] = ["1", "0", "-1", "1.5", "abc", "", "10s", "0x10", "true"];

/// One scenario per line of the list: `NAME [VALUE…]`, the values being good ones of its own.
pub fn scenarios(list: &Path) -> Vec<Scenario> {
    let text = std::fs::read_to_string(list).expect("the list of settings");
    text.lines()
        .filter(|l| !l.trim().is_empty() && !l.starts_with('#'))
        .flat_map(|line| {
            let (name, own) = scenario::head(line);
            [set(name, own), reload(name, own)]
        })
        .flatten()
        .collect()
}

fn values(own: &str) -> Vec<String> {
    let own = scenario::words(own);
    own.into_iter().chain(VALUES.map(String::from)).collect()
}

/// The console's SET with each value.
fn set(name: &str, own: &str) -> Vec<Scenario> {
    let mut text = format!("== SET {name}\n> SHOW CONFIG | * where key={name}\n");
    for value in values(own) {
        text.push_str(&format!("set {name} = {value}\n"));
    }
    scenario::parse("settings/set", &text)
}

/// The same values from the file, on RELOAD.
fn reload(name: &str, own: &str) -> Vec<Scenario> {
    let mut text = format!("== {name} in the file\nstart\n");
    for value in values(own) {
        text.push_str(&format!("try {name} = {value}\n"));
    }
    scenario::parse("settings/file", &text)
}
