//! The table on the terminal, one block per workload, as soon as it is known.

use std::fmt::Write;

use crate::run::Outcome;
use crate::workload::measure::{
    CALLS, CPU_US, P50_US, P99_US, P999_US, PER_SECOND, SWITCHES, SYSTEM_US, USER_US,
};

const COLUMNS: &[(&str, &str)] = &[
    (CPU_US, "CPU µs"),
    (USER_US, "user"),
    (SYSTEM_US, "system"),
    (CALLS, "calls"),
    (SWITCHES, "switches"),
    (PER_SECOND, "per s"),
    (P50_US, "p50 µs"),
    (P99_US, "p99"),
    (P999_US, "p99.9"),
];

/// The medians of every peer, and for CPU and throughput how pgweir stands to each other one (paired ratios).
pub fn workload(outcome: &Outcome) -> String {
    let mut text = format!(
        "{}: {}, per {}\n{:<12}",
        outcome.workload.name, outcome.workload.about, outcome.workload.unit, ""
    );
    for (_, title) in COLUMNS {
        let _ = write!(text, "{title:>9}");
    }
    text.push_str("   pgweir/this: CPU  per s    p50    p99\n");
    for (name, _) in &outcome.peers {
        let _ = write!(text, "{name:<12}");
        for (measure, _) in COLUMNS {
            let _ = write!(
                text,
                "{:>9}",
                outcome
                    .median(name, measure)
                    .map(number)
                    .unwrap_or_default()
            );
        }
        let ratio = |measure| {
            outcome
                .ratio(measure, "pgweir", name)
                .filter(|_| name != "pgweir")
        };
        let ratio = |measure| {
            ratio(measure)
                .map(|ratio| format!("{ratio:.3}"))
                .unwrap_or_default()
        };
        let _ = writeln!(
            text,
            "{:>19}{:>7}{:>7}{:>7}",
            ratio(CPU_US),
            ratio(PER_SECOND),
            ratio(P50_US),
            ratio(P99_US)
        );
    }
    text
}

/// Three significant digits or all before the point.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
