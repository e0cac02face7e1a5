//! One workload: all its peers are started, then measured in rounds, in another order each time, so that what the machine does
//! meanwhile meets all of them.

use super::Result;
use super::peers::{Contender, Programs};
use crate::interrupt;
use crate::stage::pooler::Surroundings;
use crate::stats;
use crate::workload::drive::{self, Tools};
use crate::workload::{Sample, Workload, measure};

/// What was seen of a workload.
pub struct Outcome {
    pub workload: &'static Workload,
    /// Per peer, in the workload's order, one sample for each round.
    pub peers: Vec<(String, Vec<Sample>)>,
}

impl Outcome {
    /// One measure of one peer, round by round; empty where it has none.
    pub fn series(&self, peer: &str, measure: &str) -> Vec<f64> {
        let samples = self
            .peers
            .iter()
            .filter(|(name, _)| name == peer)
            .flat_map(|(_, samples)| samples);
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
}

pub fn play(
    workload: &'static Workload,
    rounds: u32,
    programs: &Programs,
    around: &Surroundings<'_>,
    tools: &Tools<'_>,
) -> Result<Outcome> {
    let mut contenders = Contender::all(workload.peers, programs);
    for contender in &mut contenders {
        contender.start(workload.door, around)?;
    }
    let mut samples = vec![Vec::new(); contenders.len()];
    for round in 0..rounds as usize {
        for turn in 0..contenders.len() {
            let who = (turn + round) % contenders.len();
            samples[who].push(once(workload, &mut contenders[who], around, tools)?);
        }
    }
    for (contender, samples) in contenders.iter().zip(&mut samples) {
        let target = contender.target(workload.door, around.cluster.port);
        if let (Some(calls), Some(last)) = (
            drive::count_calls(&workload.drive, &target, tools)?,
            samples.last_mut(),
        ) {
            last.insert(measure::CALLS, calls);
        }
    }
    let names = contenders.into_iter().map(|contender| contender.name);
    Ok(Outcome {
        workload,
        peers: names.zip(samples).collect(),
    })
}

fn once(
    workload: &Workload,
    contender: &mut Contender,
    around: &Surroundings<'_>,
    tools: &Tools<'_>,
) -> Result<Sample> {
    interrupt::check()?;
    contender.check_alive()?;
    let sample = drive::run(
        &workload.drive,
        &contender.target(workload.door, around.cluster.port),
        tools,
    )?;
    contender.check_alive()?;
    Ok(sample)
}
