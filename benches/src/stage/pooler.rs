//! The poolers under test, each started with the same ini file: transaction mode, 20 servers.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::certificate::Certificate;
use super::cluster::Cluster;
use super::process::{Process, as_client, as_server};
use super::{Folder, free_port};
use crate::failure::{Doing, Result};
use crate::interrupt;

/// Servers per pool, for every pooler.
pub const POOL_SIZE: u32 = 20;
const START_TIME_MAX: Duration = Duration::from_secs(20);

/// How clients prove themselves, and whether they may use TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    /// Nobody is asked.
    Trust,
    Scram,
    /// SCRAM, and TLS for who wants it.
    ScramTls,
    /// Nobody is asked, TLS for who wants it.
    TrustTls,
}

impl Door {
    pub fn tls(self) -> bool {
        matches!(self, Door::ScramTls | Door::TrustTls)
    }

    pub fn auth_type(self) -> &'static str {
        match self {
            Door::Trust | Door::TrustTls => "trust",
            Door::Scram | Door::ScramTls => "scram-sha-256",
        }
    }
}

/// A program that can be put in front of the cluster.
#[derive(Clone, Debug)]
pub enum Program {
    /// pgweir, with further lines for its ini file.
    Pgweir {
        path: PathBuf,
        lines: Vec<String>,
        /// Its metrics are to be read.
        scraped: bool,
    },
    PgBouncer {
        path: PathBuf,
    },
    /// Our own forwarder, which pools nothing.
    Forwarder,
    /// The same over io_uring.
    #[cfg(feature = "io-uring")]
    UringForwarder,
    /// A shell command that execs a pooler on 127.0.0.1:$BENCH_PORT for the server at 127.0.0.1:$BENCH_SERVER_PORT.
    Other {
        command: String,
    },
}

impl Program {
    /// It has fewer connections to the server than clients.
    pub fn pools(&self) -> bool {
        match self {
            Program::Pgweir { .. } | Program::PgBouncer { .. } | Program::Other { .. } => true,
            Program::Forwarder => false,
            #[cfg(feature = "io-uring")]
            Program::UringForwarder => false,
        }
    }
}

/// What every pooler of one stage shares.
pub struct Surroundings<'a> {
    pub folder: &'a Folder,
    pub cluster: &'a Cluster,
    pub certificate: &'a Certificate,
    pub users_file: &'a Path,
    pub clients_max: u32,
}

/// A pooler that runs.
pub struct Pooler {
    process: Process,
    pub port: u16,
    /// Where its metrics are, if they are to be read.
    pub metrics: Option<u16>,
}

impl Pooler {
    pub fn start(
        name: &str,
        program: &Program,
        door: Door,
        around: &Surroundings<'_>,
    ) -> Result<Pooler> {
        let port = free_port()?;
        let mut metrics = None;
        if let Program::Pgweir { scraped: true, .. } = program {
            metrics = Some(free_port()?);
        }
        let command = command(name, program, door, (port, metrics), around)?;
        let log = around.folder.logs().join(format!("{name}.log"));
        let mut process = Process::start(name, command, &log)?;
        interrupt::wait_for(&format!("{name} to answer"), START_TIME_MAX, || {
            process.check_alive()?;
            let mut ready = around.cluster.client("pg_isready");
            ready.args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()]);
            Ok(ready.status().doing("pg_isready")?.success().then_some(()))
        })?;
        Ok(Pooler {
            process,
            port,
            metrics,
        })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn check_alive(&mut self) -> Result<()> {
        self.process.check_alive()
    }
}

fn command(
    name: &str,
    program: &Program,
    door: Door,
    (port, metrics): (u16, Option<u16>),
    around: &Surroundings<'_>,
) -> Result<Command> {
    let folder = around.folder.path();
    let server_port = around.cluster.port.to_string();
    Ok(match program {
        Program::Pgweir { path, lines, .. } => {
            let metrics = metrics.map(|port| format!("metrics_port = {port}"));
            let lines: Vec<String> = lines.iter().cloned().chain(metrics).collect();
            on_ini(name, path, &ini(door, port, &lines, around), around.folder)?
        }
        Program::PgBouncer { path } => {
            on_ini(name, path, &ini(door, port, &[], around), around.folder)?
        }
        Program::Forwarder => forwarder(port, &server_port)?,
        #[cfg(feature = "io-uring")]
        Program::UringForwarder => {
            let mut command = forwarder(port, &server_port)?;
            command.arg("--io-uring");
            command
        }
        Program::Other { command } => {
            let mut shell = as_server(Path::new("sh"), folder);
            shell.arg("-c").arg(command);
            shell
                .env("BENCH_PORT", port.to_string())
                .env("BENCH_SERVER_PORT", server_port)
                .env("BENCH_FOLDER", folder);
            shell
        }
    })
}

fn forwarder(port: u16, server_port: &str) -> Result<Command> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]).arg(this_program()?);
    command.args(["forward", &port.to_string(), server_port]);
    Ok(command)
}

/// This very program, for what it runs as a process of its own.
pub fn this_program() -> Result<PathBuf> {
    std::env::current_exe().doing("cannot find this program's own file")
}

/// The program is copied first: the server user may not be able to enter the folder that it was built in.
fn on_ini(name: &str, program: &Path, ini: &str, folder: &Folder) -> Result<Command> {
    let copy = folder.path().join(name);
    if !copy.exists() {
        std::fs::copy(program, &copy).doing(program.display())?;
        std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).doing(copy.display())?;
    }
    let ini = folder.write_for_servers(&format!("{name}.ini"), ini)?;
    let mut command = as_server(&copy, folder.path());
    command.arg(ini);
    Ok(command)
}

fn ini(door: Door, port: u16, more: &[String], around: &Surroundings<'_>) -> String {
    let mut lines = vec![
        "[databases]".to_owned(),
        format!("* = host=127.0.0.1 port={}", around.cluster.port),
        "[pgbouncer]".to_owned(),
        "listen_addr = 127.0.0.1".to_owned(),
        format!("listen_port = {port}"),
        format!("unix_socket_dir = {}", around.folder.sockets().display()),
        format!("auth_type = {}", door.auth_type()),
        format!("auth_file = {}", around.users_file.display()),
        "pool_mode = transaction".to_owned(),
        format!("default_pool_size = {POOL_SIZE}"),
        format!("max_client_conn = {}", around.clients_max),
        "query_wait_notify = 0".to_owned(),
        "server_tls_sslmode = disable".to_owned(),
        "ignore_startup_parameters = extra_float_digits".to_owned(),
    ];
    if door.tls() {
        lines.push("client_tls_sslmode = allow".to_owned());
        lines.push(format!(
            "client_tls_cert_file = {}",
            around.certificate.certificate.display()
        ));
        lines.push(format!(
            "client_tls_key_file = {}",
            around.certificate.key.display()
        ));
    }
    lines.extend_from_slice(more);
    lines.join("\n") + "\n"
}

/// The first line of what `PROGRAM -V` prints.
pub fn version(program: &Path, folder: &Path) -> String {
    let printed = as_client(program, folder).arg("-V").output();
    let text = printed
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}
