//! A pooler that plays a scenario: which program, and its files and process.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::fixture::{
    become_unprivileged, free_port, pooler_bin, scratch_dir, unwatch, watch, write_file,
};

/// Who plays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    PgBouncer(PathBuf),
    Pgweir { workers: u32 },
}

impl Subject {
    pub fn name(&self) -> String {
        match self {
            Subject::PgBouncer(_) => "pgbouncer".to_string(),
            Subject::Pgweir { workers } => format!("pgweir with workers = {workers}"),
        }
    }

    fn command(&self) -> Command {
        let mut command = match self {
            Subject::PgBouncer(path) => Command::new(path),
            Subject::Pgweir { .. } => Command::new(pooler_bin()),
        };
        become_unprivileged(&mut command);
        if let Subject::Pgweir { workers } = self {
            // Not in the file, so that lines have the same numbers for all.
            command
                .env("PGWEIR_WORKERS", workers.to_string())
                .env("RUST_BACKTRACE", "0");
        }
        command
    }
}

/// The PgBouncer to compare with: named by `PGBOUNCER`, or found in `PATH`.
pub fn find_pgbouncer() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("PGBOUNCER").filter(|p| !p.is_empty()) {
        return Some(PathBuf::from(path));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join("pgbouncer"))
        .find(|file| file.is_file())
}

/// The version that a PgBouncer gives for itself.
pub fn version_of(program: &Path) -> Option<String> {
    let out = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let first = text.lines().next()?;
    Some(first.strip_prefix("PgBouncer ")?.trim().to_string())
}

/// A configuration in the making, kept by sections.
#[derive(Debug, Clone, Default)]
pub struct Config {
    main: Vec<(String, String)>,
    databases: Vec<(String, String)>,
    users: Vec<(String, String)>,
    peers: Vec<(String, String)>,
    secrets: Vec<(String, String)>,
    /// The whole text, when the scenario writes it itself.
    pub whole: Option<String>,
    /// The whole `auth_file`, when the scenario writes it itself.
    pub whole_secrets: Option<String>,
}

impl Config {
    pub fn new(dir: &Path, port: u16, database: &str) -> Config {
        let mut config = Config::default();
        let dir = dir.display();
        for (key, value) in [
            ("listen_addr", "127.0.0.1".to_string()),
            ("listen_port", port.to_string()),
            ("unix_socket_dir", dir.to_string()),
            ("auth_type", "trust".to_string()),
            ("auth_file", format!("{dir}/users.txt")),
            ("admin_users", "admin".to_string()),
            ("stats_users", "stats".to_string()),
            ("pool_mode", "transaction".to_string()),
            ("server_tls_sslmode", "disable".to_string()),
            ("server_login_retry", "0.1".to_string()),
        ] {
            config.main.push((key.to_string(), value));
        }
        config.databases.push(("p".into(), database.into()));
        config.secrets.push(("postgres".into(), String::new()));
        for user in [
            "admin", "stats", "u_scram", "u_scram2", "u_md5", "u_plain", "u_trust", "u_other",
        ] {
            config.secrets.push((user.into(), format!("{user}_pw")));
        }
        config
    }

    /// `KEY = VALUE` in a section, or `- KEY` to take a line away.
    pub fn change(&mut self, section: &str, text: &str) {
        let lines = match section {
            "ini" => &mut self.main,
            "database" => &mut self.databases,
            "user" => &mut self.users,
            "peer" => &mut self.peers,
            _ => &mut self.secrets,
        };
        if let Some(key) = text.strip_prefix("- ") {
            lines.retain(|(k, _)| k != key.trim());
            return;
        }
        let (key, value) = text.split_once('=').expect("KEY = VALUE");
        let (key, value) = (key.trim(), value.trim());
        match lines.iter_mut().find(|(k, _)| k == key) {
            Some(line) => line.1 = value.to_string(),
            None => lines.push((key.to_string(), value.to_string())),
        }
    }

    fn text(&self) -> String {
        if let Some(whole) = &self.whole {
            return whole.clone();
        }
        let mut text = String::new();
        for (section, lines) in [
            ("databases", &self.databases),
            ("users", &self.users),
            ("peers", &self.peers),
            ("pgbouncer", &self.main),
        ] {
            if section == "peers" && lines.is_empty() {
                continue;
            }
            text.push_str(&format!("[{section}]\n"));
            for (key, value) in lines {
                text.push_str(&format!("{key} = {value}\n"));
            }
        }
        text
    }

    fn secrets_text(&self) -> String {
        if let Some(whole) = &self.whole_secrets {
            return whole.clone();
        }
        let quoted = |t: &str| t.replace('"', "\"\"");
        self.secrets
            .iter()
            .map(|(u, s)| format!("\"{}\" \"{}\"\n", quoted(u), quoted(s)))
            .collect()
    }

    /// Writes the files.
    pub fn write(&self, dir: &Path) {
        write_file(&dir.join("pooler.ini"), self.text());
        write_file(&dir.join("users.txt"), self.secrets_text());
    }
}

/// A folder and a port of its own for one play, and the process once it is started.
pub struct Instance {
    pub subject: Subject,
    pub dir: PathBuf,
    pub port: u16,
    child: Option<Child>,
}

/// How a process ended.
fn ended(status: std::process::ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or_default()),
    }
}

impl Instance {
    pub fn new(subject: &Subject) -> Instance {
        Instance {
            subject: subject.clone(),
            dir: scratch_dir("c"),
            port: free_port(),
            child: None,
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join(format!(".s.PGSQL.{}", self.port))
    }

    /// Starts the program with these arguments; its outputs go to files.
    pub fn spawn(&mut self, arguments: &[String]) {
        let create = |name| std::fs::File::create(self.dir.join(name)).expect("our folder");
        let mut command = self.subject.command();
        command
            .args(arguments)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(create("stdout"))
            .stderr(create("stderr"));
        let child = command.spawn().expect("the pooler's program exists");
        watch(child.id());
        self.child = Some(child);
    }

    /// Waits until the process is up or has ended; `None` means up.
    pub async fn wait_up(&mut self, limit: Duration) -> Option<String> {
        let deadline = Instant::now() + limit;
        loop {
            if self.stderr().contains(" LOG process up: ") {
                return None;
            }
            if let Some(how) = self.has_ended() {
                return Some(how);
            }
            if Instant::now() > deadline {
                return Some("neither up nor ended".to_string());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn has_ended(&mut self) -> Option<String> {
        let child = self.child.as_mut()?;
        let status = child.try_wait().expect("our child")?;
        unwatch(child.id());
        self.child = None;
        Some(ended(status))
    }

    /// Waits for the end of the process.
    pub async fn wait_end(&mut self, limit: Duration) -> String {
        let deadline = Instant::now() + limit;
        while self.child.is_some() {
            if let Some(how) = self.has_ended() {
                return how;
            }
            if Instant::now() > deadline {
                return "still running".to_string();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        "not running".to_string()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        if let Some(child) = &self.child {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal);
        }
    }

    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    fn output(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.join(name)).unwrap_or_default())
            .into_owned()
    }

    pub fn stderr(&self) -> String {
        self.output("stderr")
    }

    pub fn stdout(&self) -> String {
        self.output("stdout")
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            unwatch(child.id());
            let _ = child.wait();
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
