//! COPY by psql: pgbench's largest table out, or as much in, row by row as psql does it. What the server does with rows that come in is
//! kept small: it parses them and drops them.

use std::fs::File;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::drive::{Target, Tools, add_cost};
use super::{Sample, measure};
use crate::failure::{Doing, Result};
use crate::proc::cpu::{self, Used};
use crate::stage::cluster::DATABASE;
use crate::stage::process::Running;

const TIME_MAX: Duration = Duration::from_secs(60);
const MEGABYTE: f64 = 1e6;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Direction {
    Out,
    In,
}

/// Copies again and again for about the time of the window.
pub fn run(direction: Direction, target: &Target, tools: &Tools<'_>) -> Result<Sample> {
    let rows = tools.folder.path().join("rows.txt");
    if !rows.exists() {
        let all = tools.cluster.query(
            DATABASE,
            "COPY (SELECT * FROM pgbench_accounts LIMIT 500000) TO STDOUT",
        )?;
        std::fs::write(&rows, all).doing("rows to copy in")?;
    }
    let each = std::fs::metadata(&rows).doing("rows to copy in")?.len() as f64 / MEGABYTE;
    let before = target.pid.map(cpu::read).transpose()?;
    let began = Instant::now();
    let mut megabytes = 0.0;
    while began.elapsed() < tools.window {
        let mut psql = tools.cluster.client("psql");
        psql.args([
            "-X",
            "-q",
            "-h",
            "127.0.0.1",
            "-p",
            &target.port.to_string(),
            "-U",
            target.user,
            "-d",
            DATABASE,
        ]);
        psql.env("PGSSLMODE", "disable")
            .env("PGGSSENCMODE", "disable");
        match direction {
            Direction::Out => {
                psql.args([
                    "-o",
                    "/dev/null",
                    "-c",
                    "COPY (SELECT * FROM pgbench_accounts LIMIT 500000) TO STDOUT",
                ]);
            }
            Direction::In => {
                psql.args(["-c", "COPY pgbench_accounts FROM STDIN WHERE false"]);
                psql.stdin(Stdio::from(File::open(&rows).doing("rows to copy in")?));
            }
        }
        Running::start("psql", psql, tools.folder.path())?.finish(TIME_MAX)?;
        megabytes += each;
    }
    let mut sample = Sample::from([(
        measure::PER_SECOND.into(),
        megabytes / began.elapsed().as_secs_f64(),
    )]);
    if let (Some(pid), Some(before)) = (target.pid, before) {
        add_cost(
            &mut sample,
            &Used::between(&before, &cpu::read(pid)?),
            megabytes,
        );
    }
    Ok(sample)
}
