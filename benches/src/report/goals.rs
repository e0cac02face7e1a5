//! What pgweir promises, and whether a run shows it. One declaration per goal; what is measured is the median of paired ratios, or,
//! where a goal is about pgweir alone, a median.

use super::results::Results;
use crate::workload::measure::{
    CPU_US, P50_US, P99_US, PER_SECOND, RESIDENT_BYTES, SPREAD, STORM, WAIT,
};

/// One promise.
pub struct Goal {
    pub what: &'static str,
    /// Every one of these must keep it.
    pub workloads: &'static [&'static str],
    pub value: Value,
    pub bound: Bound,
}

/// What is compared with the bound.
#[derive(Clone, Copy)]
pub enum Value {
    /// pgweir's measure over another's.
    Ratio {
        measure: &'static str,
        ours: &'static str,
        theirs: &'static str,
    },
    /// pgweir's own; PgBouncer's is shown beside it.
    Own { measure: &'static str },
}

#[derive(Clone, Copy)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

const fn of(
    what: &'static str,
    workloads: &'static [&'static str],
    value: Value,
    bound: Bound,
) -> Goal {
    Goal {
        what,
        workloads,
        value,
        bound,
    }
}

const fn to_pgbouncer(measure: &'static str) -> Value {
    Value::Ratio {
        measure,
        ours: "pgweir",
        theirs: "pgbouncer",
    }
}

const TO_FORWARDER: Value = Value::Ratio {
    measure: CPU_US,
    ours: "pgweir",
    theirs: "forwarder",
};
const TWO_WORKERS: Value = Value::Ratio {
    measure: PER_SECOND,
    ours: "pgweir-2w",
    theirs: "pgbouncer",
};

const SCRAPED: Value = Value::Ratio {
    measure: P99_US,
    ours: "pgweir-scraped",
    theirs: "pgweir",
};

use Bound::{AtLeast, AtMost};

#[rustfmt::skip]
pub const GOALS: &[Goal] = &[
    of("CPU per transaction, 64 clients", &["simple-64", "extended-64", "prepared-64"], to_pgbouncer(CPU_US), AtMost(0.80)),
    of("CPU per transaction, 8 clients", &["simple-8", "extended-8", "prepared-8"], to_pgbouncer(CPU_US), AtMost(0.85)),
    of("CPU per transaction, 500 clients", &["simple-500", "extended-500", "prepared-500"], to_pgbouncer(CPU_US), AtMost(0.85)),
    of("CPU per transaction, 1 client", &["simple-1", "extended-1", "prepared-1"], to_pgbouncer(CPU_US), AtMost(0.95)),
    of("latency (p50), 1 client", &["simple-1", "extended-1", "prepared-1"], to_pgbouncer(P50_US), AtMost(1.0)),
    of("CPU against the forwarder, 64 clients", &["simple-64", "extended-64", "prepared-64"], TO_FORWARDER, AtMost(1.05)),
    of("CPU per MB: 1 MB results, COPY", &["big-result", "big-row", "copy-out", "copy-out-1", "copy-in", "copy-in-1"], to_pgbouncer(CPU_US), AtMost(0.55)),
    of("CPU per transaction, 64 TLS clients", &["tls-64"], to_pgbouncer(CPU_US), AtMost(0.85)),
    of("CPU per login: SCRAM, SCRAM over TLS", &["login-scram", "login-tls"], to_pgbouncer(CPU_US), AtMost(0.90)),
    of("resident bytes per idle client", &["idle"], Value::Own { measure: RESIDENT_BYTES }, AtMost(2000.0)),
    of("resident bytes per idle TLS client", &["idle-tls"], to_pgbouncer(RESIDENT_BYTES), AtMost(1.0)),
    of("throughput, 64 clients, 2 workers", &["workers-64"], TWO_WORKERS, AtLeast(1.25)),
    of("p99 during a storm of logins / without: SCRAM, TLS", &["storm-scram", "storm-tls"], Value::Own { measure: STORM }, AtMost(1.5)),
    of("p99 / p50, 500 clients", &["simple-500", "extended-500", "prepared-500"], to_pgbouncer(SPREAD), AtMost(1.0)),
    of("longest / median wait, 200 clients, 20 servers, 2 workers", &["fairness"], Value::Own { measure: WAIT }, AtMost(3.0)),
    of("p99 with a scrape of metrics a second / without, up to 10,000 idle clients", &["scraped"], SCRAPED, AtMost(1.05)),
    of("from connect() to the first row on a busy server (µs)", &["first-row-busy"], Value::Own { measure: P50_US }, AtMost(1000.0)),
];

/// A goal beside what a run shows.
pub struct Verdict {
    pub goal: &'static Goal,
    /// For each workload that was run: its name, pgweir's value, and PgBouncer's own where the goal is about values.
    pub found: Vec<(&'static str, f64, Option<f64>)>,
}

/// All goals of which something was measured.
pub fn judge(results: &Results) -> Vec<Verdict> {
    let verdicts = GOALS.iter().map(|goal| Verdict {
        goal,
        found: goal.found(results),
    });
    verdicts
        .filter(|verdict| !verdict.found.is_empty())
        .collect()
}

impl Goal {
    fn found(&self, results: &Results) -> Vec<(&'static str, f64, Option<f64>)> {
        let value = |name: &&'static str| {
            let outcome = results.workload(name)?;
            let (ours, theirs) = match self.value {
                Value::Ratio {
                    measure,
                    ours,
                    theirs,
                } => (outcome.ratio(measure, ours, theirs)?, None),
                Value::Own { measure } => {
                    let ours = outcome
                        .peers
                        .iter()
                        .find(|peer| peer.name.starts_with("pgweir"))?;
                    (
                        outcome.median(&ours.name, measure)?,
                        outcome.median("pgbouncer", measure),
                    )
                }
            };
            Some((*name, ours, theirs))
        };
        self.workloads.iter().filter_map(value).collect()
    }

    /// `≤ 0.80`
    pub fn bound_text(&self) -> String {
        match self.bound {
            AtMost(limit) => format!("≤ {}", number(limit)),
            AtLeast(limit) => format!("≥ {}", number(limit)),
        }
    }
}

impl Verdict {
    /// Whether all that was measured keeps the goal, as far as the shown digits tell.
    pub fn met(&self) -> bool {
        self.found
            .iter()
            .all(|(_, value, _)| match self.goal.bound {
                AtMost(limit) => rounded(*value) <= limit,
                AtLeast(limit) => rounded(*value) >= limit,
            })
    }

    /// `0.79, 0.81`, with PgBouncer's own in parentheses.
    pub fn measured_text(&self) -> String {
        let one = |(_, ours, theirs): &(&str, f64, Option<f64>)| match theirs {
            Some(theirs) => format!("{} (PgBouncer {})", number(*ours), number(*theirs)),
            None => number(*ours),
        };
        self.found.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

/// Two digits after the point, as shown; what is larger, as a whole number.
fn rounded(value: f64) -> f64 {
    if value.abs() >= 100.0 {
        value.round()
    } else {
        (value * 100.0).round() / 100.0
    }
}

fn number(value: f64) -> String {
    if value.abs() >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// The measure that a picture shows of a workload: what is rarer is looked for first.
pub fn headline(outcome: &super::results::Outcome) -> Option<&'static str> {
    [RESIDENT_BYTES, CPU_US]
        .into_iter()
        .find(|measure| outcome.has(measure))
}

#[cfg(test)]
mod tests {
    use super::super::machine::Machine;
    use super::super::results::tests::outcome;
    use super::*;
    use crate::workload::table::WORKLOADS;

    fn results(ours: f64) -> Results {
        let peers: &[(&str, &[f64])] = &[
            ("pgweir", &[ours]),
            ("pgbouncer", &[10.0]),
            ("forwarder", &[8.0]),
        ];
        let workloads = vec![outcome("simple-64", CPU_US, peers)];
        Results {
            machine: Machine::default(),
            command: String::new(),
            workloads,
        }
    }

    #[test]
    fn every_goal_names_workloads_that_exist() {
        for name in GOALS.iter().flat_map(|goal| goal.workloads) {
            assert!(
                WORKLOADS.iter().any(|workload| workload.name == *name),
                "{name}"
            );
        }
    }

    #[test]
    fn a_goal_is_met_by_what_it_shows() {
        let met = |ours| {
            judge(&results(ours))
                .iter()
                .map(Verdict::met)
                .collect::<Vec<_>>()
        };
        assert_eq!(met(8.0), [true, true]);
        assert_eq!(met(8.04), [true, true], "0.804 is shown as 0.80");
        assert_eq!(met(8.5), [false, false]);
        assert_eq!(judge(&results(8.5))[0].measured_text(), "0.85");
    }

    #[test]
    fn what_was_not_measured_is_not_judged() {
        assert_eq!(judge(&results(8.0)).len(), 2);
    }
}
