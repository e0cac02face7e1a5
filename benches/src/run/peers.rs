//! Who takes part: the programs that are here, and for one workload the poolers that run.

use std::path::{Path, PathBuf};

use super::{Arguments, Result, failed};
use crate::stage::cluster::{PROVING_USER, USER};
use crate::stage::pooler::{Door, Pooler, Program, Surroundings};
use crate::workload::Peer;
use crate::workload::drive::Target;

/// The programs that can take part.
pub struct Programs {
    pub pgweir: PathBuf,
    /// pgweir's further ini lines.
    pub lines: Vec<String>,
    pub pgbouncer: Option<PathBuf>,
    others: Vec<(String, String)>,
}

impl Programs {
    pub fn find(arguments: &Arguments) -> Result<Programs> {
        let pgweir = arguments
            .pgweir
            .clone()
            .or_else(|| std::env::var_os("PGWEIR_BIN").map(PathBuf::from));
        let Some(pgweir) = pgweir.filter(|path| path.is_file()) else {
            return failed("no pgweir: name its release build with --pgweir or PGWEIR_BIN");
        };
        let pgbouncer = match arguments
            .pgbouncer
            .clone()
            .or_else(|| std::env::var_os("PGBOUNCER").map(PathBuf::from))
        {
            Some(path) if path.is_file() => Some(path),
            Some(path) => return failed(format!("no PgBouncer at {}", path.display())),
            None => in_path("pgbouncer"),
        };
        if pgbouncer.is_none() {
            eprintln!(
                "no PgBouncer to compare with, neither in PATH nor by PGBOUNCER: goals cannot be judged"
            );
        }
        let others = arguments
            .other
            .iter()
            .map(|other| name_and_command(other))
            .collect::<Result<_>>()?;
        Ok(Programs {
            pgweir,
            lines: arguments.set.clone(),
            pgbouncer,
            others,
        })
    }

    /// The named programs behind one entry of a workload; none where it is not here.
    fn of(&self, peer: Peer) -> Vec<(String, Option<Program>)> {
        let pgweir = |more: Option<String>, scraped: bool| {
            let lines = self.lines.iter().cloned().chain(more).collect();
            Some(Program::Pgweir {
                path: self.pgweir.clone(),
                lines,
                scraped,
            })
        };
        match peer {
            Peer::Pgweir => vec![("pgweir".to_owned(), pgweir(None, false))],
            Peer::PgweirScraped => vec![("pgweir-scraped".to_owned(), pgweir(None, true))],
            Peer::PgweirWorkers(n) => vec![(
                format!("pgweir-{n}w"),
                pgweir(Some(format!("workers = {n}")), false),
            )],
            Peer::PgBouncer => {
                let program = self
                    .pgbouncer
                    .iter()
                    .map(|path| Some(Program::PgBouncer { path: path.clone() }));
                program
                    .map(|program| ("pgbouncer".to_owned(), program))
                    .collect()
            }
            Peer::Forwarder => vec![("forwarder".to_owned(), Some(Program::Forwarder))],
            #[cfg(feature = "io-uring")]
            Peer::UringForwarder => {
                vec![("uring".to_owned(), Some(Program::UringForwarder))]
            }
            Peer::Direct => vec![("direct".to_owned(), None)],
            Peer::Others => {
                let program = |command: &String| {
                    Some(Program::Other {
                        command: command.clone(),
                    })
                };
                self.others
                    .iter()
                    .map(|(name, command)| (name.clone(), program(command)))
                    .collect()
            }
        }
    }
}

/// One who takes part in a workload.
pub struct Contender {
    pub name: String,
    program: Option<Program>,
    pooler: Option<Pooler>,
}

impl Contender {
    /// All of a workload's peers that are here, none started yet.
    pub fn all(peers: &[Peer], programs: &Programs) -> Vec<Contender> {
        let named = peers.iter().flat_map(|peer| programs.of(*peer));
        named
            .map(|(name, program)| Contender {
                name,
                program,
                pooler: None,
            })
            .collect()
    }

    /// Starts the pooler, anew if it runs.
    pub fn start(&mut self, door: Door, around: &Surroundings<'_>) -> Result<()> {
        self.pooler = None;
        if let Some(program) = &self.program {
            self.pooler = Some(Pooler::start(&self.name, program, door, around)?);
        }
        Ok(())
    }

    /// Fails if the pooler has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        self.pooler.as_mut().map_or(Ok(()), Pooler::check_alive)
    }

    /// Where its clients go: to the pooler, or to the server itself.
    pub fn target(&self, door: Door, server_port: u16) -> Target {
        let asked = matches!(door, Door::Scram | Door::ScramTls);
        let pools = self.program.as_ref().is_some_and(Program::pools);
        match &self.pooler {
            Some(pooler) => Target {
                port: pooler.port,
                pid: Some(pooler.pid()),
                metrics: pooler.metrics,
                pools,
                user: USER,
                door,
            },
            None => {
                let user = if asked { PROVING_USER } else { USER };
                Target {
                    port: server_port,
                    pid: None,
                    metrics: None,
                    pools,
                    user,
                    door,
                }
            }
        }
    }
}

fn name_and_command(other: &str) -> Result<(String, String)> {
    match other.split_once('=') {
        Some((name, command))
            if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') =>
        {
            Ok((name.to_owned(), command.to_owned()))
        }
        _ => failed(format!("--other wants NAME=COMMAND, not {other}")),
    }
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([Path::new("/usr/sbin").to_owned()]);
    folders
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}
