//! The tables on the terminal: one block per workload, as soon as it is known, and at the end the goals.

use std::fmt::Write;

use super::goals;
use super::results::{Outcome, Results};
use crate::workload::measure::{
    CALLS, CORES, CPU_US, MEGABYTES_EMPTY, P50_US, P99_US, P999_US, PER_SECOND, PROPORTIONAL_BYTES,
    QUERIED_BYTES, QUIET_P99_US, RESIDENT_BYTES, SCRAPE_US, SCRAPES, SPREAD, STORM, STORM_LOGINS,
    SWITCHES, SYSTEM_US, USER_US, WAIT,
};

/// All measures that are shown, and their titles.
pub const COLUMNS: &[(&str, &str)] = &[
    (CPU_US, "CPU µs"),
    (USER_US, "user"),
    (SYSTEM_US, "system"),
    (CALLS, "calls"),
    (SWITCHES, "switches"),
    (RESIDENT_BYTES, "bytes"),
    (PROPORTIONAL_BYTES, "proport."),
    (QUERIED_BYTES, "queried"),
    (MEGABYTES_EMPTY, "MB empty"),
    (PER_SECOND, "per s"),
    (P50_US, "p50 µs"),
    (P99_US, "p99"),
    (P999_US, "p99.9"),
    (SPREAD, "p99/p50"),
    (QUIET_P99_US, "p99 quiet"),
    (STORM, "storm/quiet"),
    (STORM_LOGINS, "logins/s"),
    (CORES, "cores"),
    (WAIT, "max/p50 wait"),
    (SCRAPES, "scrapes"),
    (SCRAPE_US, "µs/scrape"),
];

/// Of which ratios are shown.
const RATIOS: &[(&str, &str)] = &[
    (CPU_US, "CPU"),
    (RESIDENT_BYTES, "bytes"),
    (PER_SECOND, "per s"),
    (P50_US, "p50"),
    (P99_US, "p99"),
];

/// The medians of every peer, and how pgweir stands to each other one (paired ratios).
pub fn workload(outcome: &Outcome) -> String {
    let columns: Vec<_> = COLUMNS
        .iter()
        .filter(|(measure, _)| outcome.has(measure))
        .collect();
    let ratios: Vec<_> = RATIOS
        .iter()
        .filter(|(measure, _)| outcome.has(measure))
        .collect();
    let mut text = format!(
        "{}: {}, per {}\n{:<12}",
        outcome.name, outcome.about, outcome.unit, ""
    );
    for (_, title) in &columns {
        let _ = write!(text, "{title:>width$}", width = width(title));
    }
    text.push_str("   pgweir/this:");
    for (_, title) in &ratios {
        let _ = write!(text, "{title:>7}");
    }
    for peer in &outcome.peers {
        let _ = write!(text, "\n{:<12}", peer.name);
        for (measure, title) in &columns {
            let value = outcome
                .median(&peer.name, measure)
                .map(number)
                .unwrap_or_default();
            let _ = write!(text, "{value:>width$}", width = width(title));
        }
        text.push_str("               ");
        for (measure, _) in &ratios {
            let ratio = outcome
                .ratio(measure, "pgweir", &peer.name)
                .filter(|_| peer.name != "pgweir");
            let _ = write!(
                text,
                "{:>7}",
                ratio.map(|ratio| format!("{ratio:.3}")).unwrap_or_default()
            );
        }
    }
    text.lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

/// Every goal of which something was measured.
pub fn goals(results: &Results) -> String {
    let mut text = String::from("goals, against PgBouncer in this run:\n");
    for verdict in goals::judge(results) {
        let met = if verdict.met() { "met" } else { "NOT MET" };
        let names = verdict
            .found
            .iter()
            .map(|(name, ..)| *name)
            .collect::<Vec<_>>()
            .join(", ");
        let (what, bound, measured) = (
            verdict.goal.what,
            verdict.goal.bound_text(),
            verdict.measured_text(),
        );
        let _ = writeln!(
            text,
            "{met:<8} {what:<58} {bound:<8} {measured}   [{names}]"
        );
    }
    text
}

fn width(title: &str) -> usize {
    (title.chars().count() + 2).max(9)
}

/// Three significant digits or all before the point.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
