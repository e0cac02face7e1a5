//! Puts one workload on one target, once.

use std::time::Duration;

use super::copy::{self, Direction};
use super::pgbench::{self, Shape};
use super::{Sample, measure};
use crate::failure::Result;
use crate::proc::calls::Counter;
use crate::proc::cpu::Used;
use crate::stage::Folder;
use crate::stage::cluster::Cluster;
use crate::stage::pooler::Door;

/// The kinds of load.
#[derive(Clone, Copy, Debug)]
pub enum Drive {
    Pgbench(Shape),
    Copy(Direction),
}

/// Where a load goes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub port: u16,
    /// The pooler's process; `None` without one.
    pub pid: Option<u32>,
    /// Whether clients share servers there.
    pub pools: bool,
    pub user: &'static str,
    pub door: Door,
}

/// What every load needs.
pub struct Tools<'a> {
    pub folder: &'a Folder,
    pub cluster: &'a Cluster,
    /// How long a measured window is.
    pub window: Duration,
    pub counter: Option<Counter>,
}

/// Runs it and tells what was seen.
pub fn run(drive: &Drive, target: &Target, tools: &Tools<'_>) -> Result<Sample> {
    match drive {
        Drive::Pgbench(shape) => pgbench::run(shape, target, tools),
        Drive::Copy(direction) => copy::run(*direction, target, tools),
    }
}

/// System calls per unit, in a run of its own; `None` where nothing can count them.
pub fn count_calls(drive: &Drive, target: &Target, tools: &Tools<'_>) -> Result<Option<f64>> {
    match (drive, target.pid, tools.counter) {
        (Drive::Pgbench(shape), Some(pid), Some(counter)) => {
            pgbench::calls(shape, target, pid, counter, tools)
        }
        _ => Ok(None),
    }
}

/// Adds what the pooler used for that many units.
pub fn add_cost(sample: &mut Sample, used: &Used, units: f64) {
    sample.insert(measure::CPU_US, (used.user_us + used.system_us) / units);
    sample.insert(measure::USER_US, used.user_us / units);
    sample.insert(measure::SYSTEM_US, used.system_us / units);
    sample.insert(measure::SWITCHES, used.switches / units);
}
