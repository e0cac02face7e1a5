//! The threads of a load: each has a runtime of its own and its share of the clients; all begin at the same moment.

use std::io;
use std::rc::Rc;
use std::sync::{Arc, Barrier, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Instant;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use super::connection::{Connection, Scratch, scratch};
use super::error::LoadError;
use super::options::Crowd;
use super::outcome::{Cpu, print_line};
use super::tally::Failures;
use super::target::Target;

/// Clients of one thread that log in at the same time before a load.
pub const LOGINS_AT_ONCE: usize = 50;
/// Descriptors for anything but clients.
const OTHER_FILES: u64 = 64;

/// The time that counts.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// When the load begins, warm-up included.
    pub begin: Instant,
    /// When counting begins.
    pub start: Instant,
    /// When nothing new is begun.
    pub end: Instant,
}

impl Window {
    fn new(crowd: &Crowd) -> Window {
        let begin = Instant::now();
        let start = begin + crowd.warm_up();
        Window {
            begin,
            start,
            end: start + crowd.length(),
        }
    }

    /// Whether this moment counts.
    pub fn holds(&self, moment: Instant) -> bool {
        self.start <= moment && moment <= self.end
    }
}

/// Where the threads meet before the load.
pub struct Gate<'a> {
    crowd: &'a Crowd,
    barrier: Barrier,
    failures: Mutex<Failures>,
    window: OnceLock<(Window, Cpu)>,
    tls: OnceLock<String>,
}

impl<'a> Gate<'a> {
    /// For all threads of this crowd.
    pub fn new(crowd: &'a Crowd) -> Gate<'a> {
        Gate {
            crowd,
            barrier: Barrier::new(crowd.threads),
            failures: Mutex::default(),
            window: OnceLock::new(),
            tls: OnceLock::new(),
        }
    }

    /// Notes what TLS came out as, for the first who says so.
    pub fn note_tls(&self, connection: &Connection) {
        if let Some(tls) = connection.tls() {
            let _ = self.tls.set(tls);
        }
    }

    /// What was noted.
    pub fn tls(&self) -> Option<String> {
        self.tls.get().cloned()
    }

    /// Processor time since the load's beginning.
    pub fn cpu(&self) -> Cpu {
        let (_, before) = self.window.get().copied().unzip();
        before.map_or(Cpu::default(), Cpu::since)
    }

    /// Waits for the other threads (each must come here once, whatever it met with before) and, when told to, for a line on standard
    /// input. Nobody's clients do anything meanwhile, so the whole thread is stopped.
    ///
    /// # Errors
    /// When logins failed on any thread.
    pub fn pass(&self, failures: Failures) -> Result<Window, LoadError> {
        self.failures().add(failures);
        if self.barrier.wait().is_leader() && self.failures().count == 0 {
            self.open();
        }
        self.barrier.wait();
        match self.window.get() {
            Some((window, _)) => Ok(*window),
            None => {
                let failures = self.failures();
                Err(LoadError::Some {
                    what: "logins before the load",
                    failed: failures.count,
                    first: failures.first().unwrap_or("see the other thread").into(),
                })
            }
        }
    }

    /// The last to come does this.
    fn open(&self) {
        let announced = match self.crowd.announce {
            true => announce_and_wait("connected", self.crowd.clients),
            false => Ok(()),
        };
        match announced {
            Ok(()) => drop(self.window.set((Window::new(self.crowd), Cpu::so_far()))),
            // The others wait behind the second barrier: they must learn of it, too.
            Err(error) => self.failures().note(&error),
        }
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn announce_and_wait(event: &str, clients: usize) -> Result<(), LoadError> {
    print_line(&json!({ "event": event, "clients": clients }))?;
    wait_for_line()
}

/// Waits for a line on standard input, or its end: a parent that dies lets us go on and end.
///
/// # Errors
/// Standard input is broken.
pub fn wait_for_line() -> Result<(), LoadError> {
    let read = io::stdin().read_line(&mut String::new());
    read.map(drop)
        .map_err(|error| LoadError::Io("waiting for a line", error))
}

/// Runs `work` on as many threads as the crowd has and returns what they return, or the first error.
///
/// # Errors
/// Any thread's, and those of making threads and runtimes.
pub fn on_threads<T, W, F>(crowd: &Crowd, work: W) -> Result<Vec<T>, LoadError>
where
    T: Send,
    W: Fn(usize) -> F + Sync,
    F: Future<Output = Result<T, LoadError>>,
{
    allow_files(crowd.clients as u64)?;
    // Made before the threads: one that failed to begin would leave the others waiting at the gate.
    let runtimes: Result<Vec<_>, _> = (0..crowd.threads).map(|_| runtime()).collect();
    let runtimes = runtimes.map_err(|error| LoadError::Io("making a runtime", error))?;
    thread::scope(|scope| {
        let work = &work;
        let begin = |(thread, runtime): (usize, tokio::runtime::Runtime)| {
            scope.spawn(move || LocalSet::new().block_on(&runtime, work(thread)))
        };
        let threads: Vec<_> = runtimes.into_iter().enumerate().map(begin).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<T, LoadError>>| {
            let panicked = |_| Err(LoadError::Options("a thread panicked".into()));
            thread.join().unwrap_or_else(panicked)
        };
        threads.into_iter().map(join).collect()
    })
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// Makes room for as many descriptors as there will be clients.
fn allow_files(clients: u64) -> Result<(), LoadError> {
    let failed = |error: nix::Error| LoadError::Io("the limit of open files", error.into());
    let needed = clients + OTHER_FILES;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    if soft >= needed {
        return Ok(());
    }
    // Above the hard limit only root gets.
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed)).map_err(|_| {
        LoadError::Options(format!(
            "{clients} clients need {needed} open files, and {hard} are allowed"
        ))
    })
}

/// Logs in this many clients, [`LOGINS_AT_ONCE`] at a time, and prepares their statements. To be called within a [`LocalSet`].
pub async fn log_in(
    target: &Rc<SharedTarget>,
    clients: usize,
    failures: &mut Failures,
) -> Vec<Connection> {
    let at_once = Rc::new(Semaphore::new(LOGINS_AT_ONCE));
    let begin = |_| {
        let (target, at_once) = (target.clone(), at_once.clone());
        spawn_local(async move {
            let _turn = at_once.acquire().await;
            open_prepared(&target).await
        })
    };
    let tasks: Vec<JoinHandle<_>> = (0..clients).map(begin).collect();
    let mut connections = Vec::with_capacity(clients);
    for task in tasks {
        match task.await {
            Ok(Ok(connection)) => connections.push(connection),
            Ok(Err(error)) => failures.note(&error),
            Err(panicked) => failures.note(&panicked),
        }
    }
    connections
}

async fn open_prepared(target: &SharedTarget) -> Result<Connection, LoadError> {
    let mut connection = Connection::open(&target.target, &target.scratch).await?;
    connection.prepare(&target.target).await?;
    Ok(connection)
}

/// What the clients of one thread share.
pub struct SharedTarget {
    /// Whom to ask.
    pub target: Arc<Target>,
    /// Their read buffer.
    pub scratch: Scratch,
}

impl SharedTarget {
    /// For one thread.
    pub fn new(target: &Arc<Target>) -> Rc<SharedTarget> {
        Rc::new(SharedTarget {
            target: target.clone(),
            scratch: scratch(),
        })
    }
}
