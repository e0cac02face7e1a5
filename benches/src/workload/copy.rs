//! COPY by psql: pgbench's largest table out, or as much in, row by row as psql does it. What the server does with rows that come in is
//! kept small: it parses them and drops them.

use std::fs::File;
use std::path::{Path, PathBuf};
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

const OUT: &str = "COPY (SELECT * FROM pgbench_accounts LIMIT 500000) TO STDOUT";
const IN: &str = "COPY pgbench_accounts FROM STDIN WHERE false";

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Direction {
    Out,
    In,
}

/// That many clients copy at a time, again and again for about the time of the window.
pub fn run(
    direction: Direction,
    clients: u16,
    target: &Target,
    tools: &Tools<'_>,
) -> Result<Sample> {
    let rows = rows(tools)?;
    let each = std::fs::metadata(&rows).doing("rows to copy in")?.len() as f64 / MEGABYTE;
    let before = target.pid.map(cpu::read).transpose()?;
    let began = Instant::now();
    let mut megabytes = 0.0;
    while began.elapsed() < tools.window {
        let all: Vec<_> = (0..clients)
            .map(|client| start(direction, client, &rows, target, tools))
            .collect::<Result<_>>()?;
        for psql in all {
            psql.finish(TIME_MAX)?;
            megabytes += each;
        }
    }
    let per_second = megabytes / began.elapsed().as_secs_f64();
    let mut sample = Sample::from([(measure::PER_SECOND.into(), per_second)]);
    if let (Some(pid), Some(before)) = (target.pid, before) {
        let used = Used::between(&before, &cpu::read(pid)?);
        add_cost(&mut sample, &used, megabytes);
    }
    Ok(sample)
}

/// The file of rows, made by the first who wants it.
fn rows(tools: &Tools<'_>) -> Result<PathBuf> {
    let rows = tools.folder.path().join("rows.txt");
    if !rows.exists() {
        std::fs::write(&rows, tools.cluster.query(DATABASE, OUT)?).doing("rows to copy in")?;
    }
    Ok(rows)
}

fn start(
    direction: Direction,
    client: u16,
    rows: &Path,
    target: &Target,
    tools: &Tools<'_>,
) -> Result<Running> {
    let mut psql = tools.cluster.client("psql");
    psql.args([
        "-X",
        "-q",
        "-h",
        "127.0.0.1",
        "-U",
        target.user,
        "-d",
        DATABASE,
    ]);
    psql.args(["-p", &target.port.to_string(), "-o", "/dev/null"]);
    psql.env("PGSSLMODE", "disable")
        .env("PGGSSENCMODE", "disable");
    match direction {
        Direction::Out => drop(psql.args(["-c", OUT])),
        Direction::In => {
            let rows = File::open(rows).doing("rows to copy in")?;
            psql.args(["-c", IN]).stdin(Stdio::from(rows));
        }
    }
    Running::start(&format!("psql-{client}"), psql, tools.folder.path())
}
