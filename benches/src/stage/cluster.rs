//! The throw-away PostgreSQL cluster: nothing in it survives a crash of the machine (fsync is off). Whoever comes as [`USER`] is
//! trusted, so that poolers log in at no cost; [`PROVING_USER`] proves himself with SCRAM, for logins without a pooler.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::certificate::Certificate;
use super::process::{Process, Running, as_client, as_server};
use super::{Folder, free_port};
use crate::failure::{Doing, Result, failed};
use crate::interrupt;

/// The user of all loads, and his password (for poolers that ask for it).
pub const USER: &str = "weir";
pub const PASSWORD: &str = "weir";
/// Like [`USER`], but PostgreSQL asks him to prove himself.
pub const PROVING_USER: &str = "weir_scram";
pub const DATABASE: &str = "bench";

const START_TIME_MAX: Duration = Duration::from_secs(60);
const COMMAND_TIME_MAX: Duration = Duration::from_secs(180);

pub struct Cluster {
    // Stopped before the folder goes.
    server: Process,
    pub port: u16,
    programs: PathBuf,
    sockets: PathBuf,
    folder: PathBuf,
}

impl Cluster {
    /// Makes and starts it, with the benchmark's users and pgbench's tables at `scale`.
    pub fn create(
        folder: &Folder,
        certificate: &Certificate,
        connections_max: u32,
        scale: u32,
    ) -> Result<Cluster> {
        let programs = programs_folder()?;
        let port = free_port()?;
        let data = folder.path().join("pg");
        initdb(&programs, folder, &data)?;
        configure(folder, port, certificate, connections_max)?;
        let mut command = as_server(&programs.join("postgres"), folder.path());
        command.arg("-D").arg(&data);
        let server = Process::start("PostgreSQL", command, &folder.logs().join("postgresql.log"))?;
        let mut cluster = Cluster {
            server,
            port,
            programs,
            sockets: folder.sockets(),
            folder: folder.path().to_owned(),
        };
        cluster.wait_until_it_answers()?;
        cluster.make_contents(scale)?;
        Ok(cluster)
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        interrupt::wait_for("PostgreSQL to answer", START_TIME_MAX, || {
            self.server.check_alive()?;
            let mut ready = as_client(&self.programs.join("pg_isready"), &self.folder);
            ready
                .args(["-q", "-h"])
                .arg(&self.sockets)
                .args(["-p", &self.port.to_string()]);
            Ok(ready.status().doing("pg_isready")?.success().then_some(()))
        })
    }

    fn make_contents(&self, scale: u32) -> Result<()> {
        self.query(
            "postgres",
            &format!(
                "CREATE USER {USER} PASSWORD '{PASSWORD}'; CREATE USER {PROVING_USER} PASSWORD '{PASSWORD}' IN ROLE {USER};"
            ),
        )?;
        self.query(
            "postgres",
            &format!("CREATE DATABASE {DATABASE} OWNER {USER}"),
        )?;
        let mut pgbench = self.client("pgbench");
        pgbench
            .args(["-i", "-q", "-s", &scale.to_string(), "-h"])
            .arg(&self.sockets);
        pgbench.args(["-p", &self.port.to_string(), "-U", USER, DATABASE]);
        Running::start("pgbench-init", pgbench, &self.folder)?.finish(COMMAND_TIME_MAX)?;
        self.query(DATABASE, "VACUUM ANALYZE; CHECKPOINT").map(drop)
    }

    /// The lines of `users.txt`, PgBouncer's auth_file: the users' SCRAM secrets as the server has them.
    pub fn users_file(&self) -> Result<String> {
        self.query(
            "postgres",
            &format!(
                "SELECT format('\"%s\" \"%s\"', rolname, rolpassword) FROM pg_authid WHERE rolname IN ('{USER}', '{PROVING_USER}')"
            ),
        )
    }

    /// One of PostgreSQL's own programs, in a clean environment.
    pub fn client(&self, program: &str) -> Command {
        as_client(&self.programs.join(program), &self.folder)
    }

    /// Asks as the superuser, past every pooler. Rows come unaligned, one per line. Several statements are several transactions.
    pub fn query(&self, database: &str, statements: &str) -> Result<String> {
        let mut psql = self.client("psql");
        psql.args(["-X", "-qAt", "-v", "ON_ERROR_STOP=1", "-h"])
            .arg(&self.sockets);
        psql.args([
            "-p",
            &self.port.to_string(),
            "-U",
            "postgres",
            "-d",
            database,
        ]);
        for statement in statements.split("; ") {
            psql.args(["-c", statement]);
        }
        Ok(Running::start("psql-direct", psql, &self.folder)?
            .finish(COMMAND_TIME_MAX)?
            .out)
    }

    pub fn version(&self) -> Result<String> {
        Ok(self
            .query("postgres", "SHOW server_version")?
            .trim()
            .to_owned())
    }
}

/// The folder with initdb, pgbench and friends: the newest that Debian has, or wherever PATH finds them.
fn programs_folder() -> Result<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let newest = debian
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse::<f32>().ok()?,
                entry.path().join("bin"),
            ))
        })
        .filter(|(_, bin)| bin.join("initdb").exists())
        .max_by(|a, b| a.0.total_cmp(&b.0));
    if let Some((_, bin)) = newest {
        return Ok(bin);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&path).find(|folder| folder.join("initdb").exists()) {
        Some(folder) => Ok(folder),
        None => failed("PostgreSQL is not installed (no initdb); tests/needs.sh bench installs it"),
    }
}

fn initdb(programs: &Path, folder: &Folder, data: &Path) -> Result<()> {
    let mut command = as_server(&programs.join("initdb"), folder.path());
    command.arg("-D").arg(data).args([
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
    ]);
    Running::start("initdb", command, folder.path())?
        .finish(COMMAND_TIME_MAX)
        .map(drop)
}

fn configure(
    folder: &Folder,
    port: u16,
    certificate: &Certificate,
    connections_max: u32,
) -> Result<()> {
    let settings = format!(
        "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{sockets}'\n\
         max_connections = {connections_max}\nshared_buffers = 256MB\nfsync = off\nsynchronous_commit = off\n\
         full_page_writes = off\nmax_wal_size = 4GB\nautovacuum = off\npassword_encryption = 'scram-sha-256'\n\
         ssl = on\nssl_cert_file = '{certificate}'\nssl_key_file = '{key}'\n",
        sockets = folder.sockets().display(),
        certificate = certificate.certificate.display(),
        key = certificate.key.display(),
    );
    folder.write_for_servers("pg/postgresql.auto.conf", &settings)?;
    let rules = format!(
        "local all all trust\nhost all {PROVING_USER} 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
    );
    folder.write_for_servers("pg/pg_hba.conf", &rules).map(drop)
}
