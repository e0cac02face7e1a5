//! Processes that are stopped when their handle goes, however that happens: by their end of scope, by a failure, by Ctrl-C. Should
//! this program itself be killed, the kernel sends them the same signal.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::failure::{Doing, Result, failed};
use crate::interrupt;

const STOP_SECONDS_MAX: u64 = 10;

/// A server of ours in the background.
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, which must have come from [`as_server`] to die with us, with its output in `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Process> {
        use std::os::unix::process::CommandExt;
        let file = File::create(log).doing(log.display())?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().doing("log file")?)
            .stderr(file)
            // Ctrl-C reaches us alone; we end it in our own time.
            .process_group(0);
        let child = command.spawn().doing(format!("cannot start {name}"))?;
        Ok(Process {
            child,
            name: name.to_owned(),
            log: log.to_owned(),
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails, with the end of its log, if the process has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait().doing(&self.name)? {
            None => Ok(()),
            Some(status) => failed(format!(
                "{} ended ({status}); its log ends:\n{}",
                self.name,
                tail(&self.log)
            )),
        }
    }
}

impl Drop for Process {
    /// SIGQUIT is the immediate shutdown of PostgreSQL and of poolers; whoever does not heed it is killed.
    fn drop(&mut self) {
        signal(&self.child, Signal::SIGQUIT);
        let deadline = Instant::now() + Duration::from_secs(STOP_SECONDS_MAX);
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A child that has not been waited for keeps its pid, so this can hit nobody else.
fn signal(child: &Child, signal: Signal) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// The last lines of a file, for an error message.
pub fn tail(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// A command that runs as the user who may run servers: root becomes `postgres`, anybody else stays himself. It gets a clean
/// environment and dies with this program.
pub fn as_server(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if Uid::effective().is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
    }
    command.arg(program);
    clean(&mut command, folder);
    command
}

/// A command that runs as ourselves with a clean environment: nobody's own PGHOST leaks into a measurement.
pub fn as_client(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    clean(&mut command, folder);
    command
}

fn clean(command: &mut Command, folder: &Path) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    command
        .env_clear()
        .env("PATH", path)
        .env("HOME", folder)
        .env("LC_ALL", "C.UTF-8")
        .current_dir(folder);
}

/// A program that runs for a while, its output in files; killed if it is still there when its handle goes.
pub struct Running {
    child: Child,
    name: String,
    out: PathBuf,
    err: PathBuf,
}

/// What a program has printed when it ended.
pub struct Printed {
    pub out: String,
}

impl Running {
    /// Starts `command` with its output in `folder`.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Result<Running> {
        let (out, err) = (
            folder.join(format!("{name}.out")),
            folder.join(format!("{name}.err")),
        );
        command.stdout(File::create(&out).doing(out.display())?);
        command.stderr(File::create(&err).doing(err.display())?);
        let child = command.spawn().doing(format!("cannot start {name}"))?;
        Ok(Running {
            child,
            name: name.to_owned(),
            out,
            err,
        })
    }

    /// Its standard input, where the command was given a pipe.
    pub fn stdin(&mut self) -> Option<&mut std::process::ChildStdin> {
        self.child.stdin.as_mut()
    }

    /// Tells it that no more will come.
    pub fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    /// What it has printed so far; fails if it has ended badly.
    pub fn printed_so_far(&mut self) -> Result<String> {
        if let Some(status) = self.child.try_wait().doing(&self.name)? {
            self.verdict(status)?;
        }
        std::fs::read_to_string(&self.out).doing(self.out.display())
    }

    /// Waits for its end; anything but success is a failure that quotes what it said.
    pub fn finish(mut self, at_most: Duration) -> Result<Printed> {
        let name = self.name.clone();
        let status = interrupt::wait_for(&name, at_most, || self.child.try_wait().doing(&name))?;
        self.verdict(status)?;
        Ok(Printed {
            out: std::fs::read_to_string(&self.out).doing(self.out.display())?,
        })
    }

    fn verdict(&self, status: ExitStatus) -> Result<()> {
        interrupt::check()?;
        if status.success() {
            return Ok(());
        }
        failed(format!(
            "{} failed ({status}): {}",
            self.name,
            tail(&self.err)
        ))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
