//! docs/benchmark.md, and the part of the README between its two markers. Both are written by the program only.

use std::fmt::Write;

use super::goals::{self, Verdict};
use super::machine::Machine;
use super::results::{Outcome, Results};
use super::text::{COLUMNS, number};
use crate::failure::{Result, failed};
use crate::workload::measure::{CPU_US, PER_SECOND, RESIDENT_BYTES};

pub const BEGIN: &str = "<!-- benchmark: written by `make bench BENCH=--write` -->";
pub const END: &str = "<!-- benchmark ends -->";

/// The whole page.
pub fn page(results: &Results) -> String {
    let mut page = String::from(
        "# The benchmark\n\nWritten by `make bench BENCH=--write`; [benchmark.json](benchmark.json) has every round.\n\n",
    );
    page.push_str(&machine(&results.machine));
    let _ = write!(
        page,
        "\n{METHOD}\n## Goals\n\n{}\n![Ratios to PgBouncer](benchmark.svg)\n",
        goals_table(results)
    );
    page.push_str("\n## Every workload\n");
    for outcome in &results.workloads {
        let _ = write!(
            page,
            "\n### {}\n\n{}, per {}.\n\n{}",
            outcome.name,
            outcome.about,
            outcome.unit,
            workload_table(outcome)
        );
    }
    let _ = write!(page, "\nTaken with `{}`.\n", results.command);
    page
}

const METHOD: &str = "All peers stand in front of one throw-away cluster with the same `pgbouncer.ini` (transaction mode, 20 servers) and are measured in turns, \
in another order each round. A figure is the median of the rounds; a ratio is the median of the ratios within the rounds, so that what the \
machine does meanwhile is in neither. CPU is user and system time of all the pooler's threads per unit, from a window in which all clients \
were connected. The forwarder reads nothing: one thread, two reads and two writes per exchange, one server connection for each client; it \
is the floor. The load shares the machine with everything else, so figures of different machines don't compare; ratios do.\n";

/// A line that says where the figures are from.
pub fn machine(machine: &Machine) -> String {
    let bouncer = machine.pgbouncer.as_deref().unwrap_or("no PgBouncer");
    let counter = machine
        .counter
        .as_deref()
        .map(|name| format!("; system calls counted by {name}"))
        .unwrap_or_default();
    format!(
        "{}, {} cores, {}; PostgreSQL {}; {}; {}; {}{counter}.\n",
        machine.processor,
        machine.cores,
        machine.kernel,
        machine.postgresql,
        machine.pgweir,
        bouncer,
        machine.date
    )
}

/// What the README shows: goals, the picture, the machine.
pub fn summary(results: &Results) -> String {
    format!(
        "![Cost beside PgBouncer](docs/benchmark.svg)\n\n{}\n{}",
        goals_table(results),
        machine(&results.machine)
    )
}

fn goals_table(results: &Results) -> String {
    let mut table = String::from(
        "| against PgBouncer in the same run | goal | measured | |\n|---|---|---|---|\n",
    );
    for verdict in goals::judge(results) {
        let Verdict { goal, .. } = &verdict;
        let protocols = match goal.workloads {
            [one, ..] if verdict.found.len() == 3 && one.starts_with("simple") => {
                "simple, extended, prepared: "
            }
            _ if verdict.found.len() > 1 => &names(&verdict),
            _ => "",
        };
        let met = if verdict.met() { "met" } else { "not met" };
        let _ = writeln!(
            table,
            "| {} | {} | {protocols}{} | {met} |",
            goal.what,
            goal.bound_text(),
            verdict.measured_text()
        );
    }
    table
}

fn names(verdict: &Verdict) -> String {
    verdict
        .found
        .iter()
        .map(|(name, ..)| *name)
        .collect::<Vec<_>>()
        .join(", ")
        + ": "
}

fn workload_table(outcome: &Outcome) -> String {
    let columns: Vec<_> = COLUMNS
        .iter()
        .filter(|(measure, _)| outcome.has(measure))
        .collect();
    let mut table = String::from("| |");
    for (_, title) in &columns {
        let _ = write!(table, " {title} |");
    }
    let ratio_of = [RESIDENT_BYTES, CPU_US, PER_SECOND]
        .into_iter()
        .find(|measure| outcome.has(measure));
    table.push_str(" pgweir / this |\n|---|");
    table.push_str(&"--:|".repeat(columns.len() + 1));
    for peer in &outcome.peers {
        let _ = write!(table, "\n| {} |", peer.name);
        for (measure, _) in &columns {
            let _ = write!(
                table,
                " {} |",
                outcome
                    .median(&peer.name, measure)
                    .map(number)
                    .unwrap_or_default()
            );
        }
        let ratio = ratio_of.and_then(|measure| outcome.ratio(measure, "pgweir", &peer.name));
        let ratio = ratio
            .filter(|_| peer.name != "pgweir")
            .map(|ratio| format!("{ratio:.2}"));
        let _ = write!(table, " {} |", ratio.unwrap_or_default());
    }
    table + "\n"
}

/// The text with what is between the two markers replaced.
pub fn replace(text: &str, part: &str) -> Result<String> {
    let Some((before, rest)) = text.split_once(BEGIN) else {
        return failed(format!("no line {BEGIN}"));
    };
    let Some((_, after)) = rest.split_once(END) else {
        return failed(format!("no line {END}"));
    };
    Ok(format!("{before}{BEGIN}\n{part}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::outcome;
    use super::*;

    fn results() -> Results {
        let peers: &[(&str, &[f64])] = &[
            ("pgweir", &[7.5]),
            ("pgbouncer", &[10.0]),
            ("forwarder", &[8.0]),
        ];
        let workloads = vec![outcome("simple-64", CPU_US, peers)];
        Results {
            machine: Machine::default(),
            command: "run --quick".into(),
            workloads,
        }
    }

    #[test]
    fn the_part_between_the_markers_is_replaced_and_nothing_else() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        assert_eq!(
            replace(&text, "new\n").unwrap(),
            format!("a\n{BEGIN}\nnew\n{END}\nb\n")
        );
        assert!(replace("a", "new").is_err());
    }

    #[test]
    fn goals_and_tables_are_told() {
        let page = page(&results());
        assert!(
            page.contains("| CPU per transaction, 64 clients | ≤ 0.80 | 0.75 | met |"),
            "{page}"
        );
        assert!(page.contains("| pgbouncer | 10.0 | 0.75 |"), "{page}");
    }
}
