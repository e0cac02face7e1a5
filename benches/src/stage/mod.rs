//! What a benchmark stands on: one temporary folder, a throw-away PostgreSQL cluster and poolers in front of it, on free ports of
//! 127.0.0.1. All of it goes away with its value; only processes started here are ever signalled.

pub mod certificate;
pub mod cluster;
pub mod pooler;
pub mod process;

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

use nix::unistd::{Uid, User, chown};
use tempfile::TempDir;

use crate::failure::{Doing, Result, failed};

/// Below the ports that outgoing connections are given.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// The temporary folder with its parts.
pub struct Folder {
    root: TempDir,
}

impl Folder {
    pub fn create() -> Result<Folder> {
        let root = tempfile::Builder::new()
            .prefix("pgweir-bench.")
            .tempdir()
            .doing("cannot make a temporary folder")?;
        let folder = Folder { root };
        for part in [folder.path().to_owned(), folder.sockets(), folder.logs()] {
            std::fs::create_dir_all(&part).doing(part.display())?;
            std::fs::set_permissions(&part, PermissionsExt::from_mode(0o755))
                .doing(part.display())?;
            give_to_server_user(&part)?;
        }
        Ok(folder)
    }

    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Where Unix sockets are.
    pub fn sockets(&self) -> PathBuf {
        self.path().join("run")
    }

    pub fn logs(&self) -> PathBuf {
        self.path().join("log")
    }

    /// Writes a file that the servers own and nobody else reads, and returns its path.
    pub fn write_for_servers(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        std::fs::write(&path, text).doing(path.display())?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).doing(path.display())?;
        give_to_server_user(&path)?;
        Ok(path)
    }
}

fn give_to_server_user(path: &Path) -> Result<()> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    match User::from_name("postgres").doing("looking for the user postgres")? {
        Some(user) => chown(path, Some(user.uid), Some(user.gid)).doing(path.display()),
        None => failed("no user postgres, whom root needs to run servers as"),
    }
}

/// A port of 127.0.0.1 on which nobody listens; never the same twice in one run.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = PORTS.end - PORTS.start;
    // Two benchmarks at once start at different places.
    let start = u16::try_from(std::process::id() * 61 % u32::from(span)).unwrap_or(0);
    for _ in 0..span {
        let port = PORTS.start + (start + NEXT.fetch_add(1, Ordering::Relaxed) % span) % span;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    failed("no free port on 127.0.0.1")
}
