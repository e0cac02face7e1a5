//! All that a run has found, as it stands in the JSON file; several files of one machine can be put together.

use serde::{Deserialize, Serialize};

use super::machine::Machine;
use crate::stats;
use crate::workload::table::WORKLOADS;
use crate::workload::{Sample, Workload};

/// The whole file.
#[derive(Serialize, Deserialize)]
pub struct Results {
    pub machine: Machine,
    /// How the program was called.
    pub command: String,
    pub workloads: Vec<Outcome>,
}

/// What was seen of a workload.
#[derive(Serialize, Deserialize)]
pub struct Outcome {
    pub name: String,
    pub about: String,
    /// What is counted, in the singular.
    pub unit: String,
    /// In the workload's order.
    pub peers: Vec<Contestant>,
}

/// One who took part, with one sample for each round.
#[derive(Serialize, Deserialize)]
pub struct Contestant {
    pub name: String,
    pub rounds: Vec<Sample>,
}

impl Results {
    /// Adds what another run has found; a workload that is in both is taken from `later`. The order becomes the table's.
    pub fn add(&mut self, later: Results) {
        if !self.command.contains(&later.command) {
            self.command += "; ";
            self.command += &later.command;
        }
        self.workloads.retain(|outcome| {
            !later
                .workloads
                .iter()
                .any(|other| other.name == outcome.name)
        });
        self.workloads.extend(later.workloads);
        let place = |outcome: &Outcome| WORKLOADS.iter().position(|one| one.name == outcome.name);
        self.workloads
            .sort_by_key(|outcome| place(outcome).unwrap_or(usize::MAX));
    }

    pub fn workload(&self, name: &str) -> Option<&Outcome> {
        self.workloads.iter().find(|outcome| outcome.name == name)
    }
}

impl Outcome {
    pub fn new(workload: &Workload, mut peers: Vec<Contestant>) -> Outcome {
        let values = peers
            .iter_mut()
            .flat_map(|peer| &mut peer.rounds)
            .flat_map(Sample::values_mut);
        // More digits would say nothing.
        values.for_each(|value| *value = (*value * 1000.0).round() / 1000.0);
        Outcome {
            name: workload.name.to_owned(),
            about: workload.about.to_owned(),
            unit: workload.unit.to_owned(),
            peers,
        }
    }

    /// One measure of one peer, round by round; empty where it has none.
    fn series(&self, peer: &str, measure: &str) -> Vec<f64> {
        let samples = self
            .peers
            .iter()
            .filter(|found| found.name == peer)
            .flat_map(|found| &found.rounds);
        samples
            .filter_map(|sample| sample.get(measure).copied())
            .collect()
    }

    pub fn median(&self, peer: &str, measure: &str) -> Option<f64> {
        stats::median(&self.series(peer, measure))
    }

    /// The median of one peer's measure over another's, round by round.
    pub fn ratio(&self, measure: &str, ours: &str, theirs: &str) -> Option<f64> {
        stats::paired_ratio(&self.series(ours, measure), &self.series(theirs, measure))
    }

    pub fn has(&self, measure: &str) -> bool {
        self.peers.iter().any(|peer| {
            peer.rounds
                .iter()
                .any(|sample| sample.contains_key(measure))
        })
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An outcome with one measure per peer, for the tests of the report.
    pub fn outcome(name: &str, measure: &'static str, peers: &[(&str, &[f64])]) -> Outcome {
        let rounds = |values: &[f64]| {
            values
                .iter()
                .map(|value| Sample::from([(measure.into(), *value)]))
                .collect()
        };
        let peers = peers.iter().map(|(name, values)| Contestant {
            name: (*name).to_owned(),
            rounds: rounds(values),
        });
        Outcome {
            name: name.into(),
            about: format!("{name} <&>"),
            unit: "transaction".into(),
            peers: peers.collect(),
        }
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let outcome = outcome(
            "x",
            "cpu_us",
            &[
                ("pgweir", &[8.0, 16.0, 9.0]),
                ("pgbouncer", &[10.0, 20.0, 9.0]),
            ],
        );
        assert_eq!(outcome.ratio("cpu_us", "pgweir", "pgbouncer"), Some(0.8));
        assert_eq!(outcome.ratio("cpu_us", "pgweir", "forwarder"), None);
        assert_eq!(outcome.median("pgweir", "cpu_us"), Some(9.0));
    }

    #[test]
    fn a_file_can_be_read_again_and_a_later_run_replaces_its_workloads() {
        let results = |value| Results {
            machine: Machine::default(),
            command: "run".into(),
            workloads: vec![outcome("x", "cpu_us", &[("pgweir", &[value])])],
        };
        let text = serde_json::to_string(&results(1.0)).unwrap();
        let mut read: Results = serde_json::from_str(&text).unwrap();
        read.add(results(2.0));
        assert_eq!(read.workloads.len(), 1);
        assert_eq!(
            read.workload("x").unwrap().median("pgweir", "cpu_us"),
            Some(2.0)
        );
    }
}
