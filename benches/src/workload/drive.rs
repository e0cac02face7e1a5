//! Puts one workload on one target, once.

use std::time::Duration;

use std::cell::OnceCell;

use super::copy::{self, Direction};
use super::loads;
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
    /// By that many clients at a time.
    Copy(Direction, u16),
    /// At this percentage of capacity.
    Open(u16),
    /// Of logins, by the workload's door.
    Storm,
    FirstRow {
        busy: bool,
    },
    Idle,
    Fair,
    /// With many idle clients, and somebody who reads the metrics of those that are to be scraped.
    Scraped,
}

impl Drive {
    /// Whether each round wants poolers that nobody has used yet.
    pub fn wants_fresh_poolers(&self) -> bool {
        matches!(self, Drive::Idle)
    }

    /// More rounds would show the same.
    pub fn rounds_max(&self) -> Option<u32> {
        matches!(self, Drive::Idle).then_some(3)
    }

    /// Whether it is a share of what somebody can do at most.
    pub fn wants_capacity(&self) -> bool {
        matches!(self, Drive::Open(_))
    }
}

/// Where a load goes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub port: u16,
    /// The pooler's process; `None` without one.
    pub pid: Option<u32>,
    /// Where its metrics are, if they are to be read.
    pub metrics: Option<u16>,
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
    pub idle_clients: u32,
    /// Queries per second at most, once that was measured.
    pub capacity: OnceCell<f64>,
}

/// Runs it and tells what was seen.
pub fn run(drive: &Drive, target: &Target, tools: &Tools<'_>) -> Result<Sample> {
    match drive {
        Drive::Pgbench(shape) => pgbench::run(shape, target, tools),
        Drive::Copy(direction, clients) => copy::run(*direction, *clients, target, tools),
        Drive::Open(percent) => loads::open(*percent, target, tools),
        Drive::Storm => loads::storm(target, tools),
        Drive::FirstRow { busy } => loads::first_row(*busy, target, tools),
        Drive::Idle => loads::idle(target, tools),
        Drive::Fair => loads::fair(target, tools),
        Drive::Scraped => loads::scraped(target, tools),
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
    sample.insert(
        measure::CPU_US.into(),
        (used.user_us + used.system_us) / units,
    );
    sample.insert(measure::USER_US.into(), used.user_us / units);
    sample.insert(measure::SYSTEM_US.into(), used.system_us / units);
    sample.insert(measure::SWITCHES.into(), used.switches / units);
}
