//! One workload: all its peers are started, then measured in rounds, in another order each time, so that what the machine does
//! meanwhile meets all of them.

use super::Result;
use super::peers::{Contender, Programs};
use crate::interrupt;
use crate::report::results::{Contestant, Outcome};
use crate::stage::pooler::Surroundings;
use crate::workload::drive::{self, Tools};
use crate::workload::loads;
use crate::workload::{Sample, Workload, measure};

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
    if workload.drive.wants_capacity() && tools.capacity.get().is_none() {
        let of = contenders
            .iter()
            .find(|one| one.name == "pgbouncer")
            .or(contenders.first());
        if let Some(of) = of {
            let _ = tools.capacity.set(loads::capacity(
                &of.target(workload.door, around.cluster.port),
                tools,
            )?);
        }
    }
    let mut samples = vec![Vec::new(); contenders.len()];
    let rounds = workload
        .drive
        .rounds_max()
        .map_or(rounds, |most| rounds.min(most));
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
            last.insert(measure::CALLS.into(), calls);
        }
    }
    let names = contenders.into_iter().map(|contender| contender.name);
    let peers = names
        .zip(samples)
        .map(|(name, rounds)| Contestant { name, rounds });
    Ok(Outcome::new(workload, peers.collect()))
}

fn once(
    workload: &Workload,
    contender: &mut Contender,
    around: &Surroundings<'_>,
    tools: &Tools<'_>,
) -> Result<Sample> {
    interrupt::check()?;
    if workload.drive.wants_fresh_poolers() {
        contender.start(workload.door, around)?;
    }
    contender.check_alive()?;
    let sample = drive::run(
        &workload.drive,
        &contender.target(workload.door, around.cluster.port),
        tools,
    )?;
    contender.check_alive()?;
    Ok(sample)
}
