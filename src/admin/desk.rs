//! What all consoles share: the list of those that are open, and the book of statistics.
//!
//! The app has one. A console takes a [`Seat`] while it is open; through the desk a CancelRequest or KILL_CLIENT finds it. The
//! console is a pool like others in SHOW: [`Desk::pool_row`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::CONSOLE;
use super::averages::{Averages, Period, PoolFigures, Report};
use super::rights::Role;
use crate::metrics::Stats;
use crate::worker::report::{PoolRow, SocketRow};

/// Who has logged in to the console, and from where.
#[derive(Clone, Debug)]
pub struct ConsoleUser {
    /// What it may do.
    pub role: Role,
    /// The connection's prefix in the log, `C-0x…: pgbouncer/user@host:port`.
    pub who: String,
    /// The key it is given for CancelRequests.
    pub key: [u8; 8],
    /// Start-up parameters that are to be reported back to it, such as application_name.
    pub parameters: Vec<(Vec<u8>, Vec<u8>)>,
    /// Its row in SHOW CLIENTS.
    pub row: SocketRow,
}

/// The open consoles and the statistics.
///
/// Locks are held for a moment, never across an `await`, and never two at a time.
#[derive(Debug)]
pub struct Desk {
    /// The open consoles.
    consoles: Mutex<Vec<Console>>,
    /// The book of statistics, this program's and the console's own.
    averages: Mutex<Averages>,
    /// Whose turn it is to ask for rows and enter them in the book.
    turn: tokio::sync::Mutex<()>,
    /// Consoles opened so far.
    logins: AtomicU64,
    /// Those of them that have asked for something.
    used: AtomicU64,
    /// Those that have asked for something and have not got all of the answer.
    answering: AtomicU64,
}

/// A console is being answered until this is dropped.
pub struct Answering<'a>(&'a Desk);

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Console {
    /// It has asked for something.
    used: bool,
    row: SocketRow,
    key: [u8; 8],
    signals: Arc<Signals>,
}

/// How a console is reached from outside.
#[derive(Debug, Default)]
struct Signals {
    /// Wakes only a console that is running a command at that moment.
    cancel: Notify,
    /// Stays until the console has seen it.
    kill: Notify,
}

impl Desk {
    /// A desk without consoles, whose statistics begin at `now`.
    pub fn new(now: Instant) -> Self {
        Desk {
            consoles: Mutex::default(),
            averages: Mutex::new(Averages::new(now)),
            turn: tokio::sync::Mutex::default(),
            logins: AtomicU64::new(0),
            used: AtomicU64::new(0),
            answering: AtomicU64::new(0),
        }
    }

    /// A console begins to be answered.
    pub fn begin_answer(&self) -> Answering<'_> {
        self.answering.fetch_add(1, Ordering::Relaxed);
        Answering(self)
    }

    /// True while a console has not got all of an answer.
    pub fn is_answering(&self) -> bool {
        self.answering.load(Ordering::Relaxed) > 0
    }

    /// Opens a console: it is listed until the seat is dropped.
    pub fn enter(&self, user: &ConsoleUser) -> Seat<'_> {
        self.logins.fetch_add(1, Ordering::Relaxed);
        let signals = Arc::new(Signals::default());
        self.consoles.lock().push(Console {
            used: false,
            row: user.row.clone(),
            key: user.key,
            signals: Arc::clone(&signals),
        });
        Seat {
            desk: self,
            id: user.row.id,
            signals,
        }
    }

    /// The consoles' rows of SHOW CLIENTS.
    pub fn rows(&self) -> Vec<SocketRow> {
        let consoles = self.consoles.lock();
        consoles.iter().map(|console| console.row.clone()).collect()
    }

    /// How many consoles are open.
    pub fn len(&self) -> usize {
        self.consoles.lock().len()
    }

    /// True if no console is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The console's row of SHOW POOLS. As in PgBouncer each console counts as one transaction and one query, from its first one on.
    pub fn pool_row(&self) -> PoolRow {
        let (logins, used) = (&self.logins, &self.used);
        let (logins, used) = (logins.load(Ordering::Relaxed), used.load(Ordering::Relaxed));
        PoolRow {
            database: CONSOLE.to_owned(),
            user: CONSOLE.to_owned(),
            cl_active: self.len() as u64,
            stats: Stats {
                xact_count: used,
                query_count: used,
                client_login_count: logins,
                ..Stats::default()
            },
            ..PoolRow::default()
        }
    }

    /// A CancelRequest: cancels what the console with this key is running, if anything. False if no console has the key.
    pub fn cancel(&self, key: &[u8]) -> bool {
        let consoles = self.consoles.lock();
        let found = consoles.iter().find(|console| console.key == key);
        found
            .inspect(|console| console.signals.cancel.notify_waiters())
            .is_some()
    }

    /// Disconnects the console with this id; false if there is none.
    pub fn kill(&self, id: u64) -> bool {
        let consoles = self.consoles.lock();
        let found = consoles.iter().find(|console| console.row.id == id);
        found
            .inspect(|console| console.signals.kill.notify_one())
            .is_some()
    }

    /// Waits for a turn with the book of statistics. To be had before the rows that are entered are asked for: rows that are older
    /// than those entered before would look like pools that are gone.
    pub async fn turn(&self) -> Turn<'_> {
        Turn {
            desk: self,
            _turn: self.turn.lock().await,
        }
    }

    /// SHOW TOP: every pool but the console's by itself, from the rows of these.
    pub fn top(&self, now: Instant, pools: Vec<PoolRow>) -> Vec<PoolFigures> {
        let pools = self.with_own(pools);
        let mut figures = self.averages.lock().pools(now, &pools);
        figures.retain(|pool| pool.database != CONSOLE);
        figures
    }

    fn with_own(&self, mut pools: Vec<PoolRow>) -> Vec<PoolRow> {
        pools.push(self.pool_row());
        pools
    }
}

/// A turn with the book of statistics; the next one's begins when it is dropped.
pub struct Turn<'a> {
    desk: &'a Desk,
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

impl Turn<'_> {
    /// Ends a period of the statistics; to be called every stats_period with the rows of all pools but the console's. What is
    /// returned prints as the line of the log.
    pub fn tick(&self, now: Instant, pools: Vec<PoolRow>) -> Period {
        let pools = self.desk.with_own(pools);
        self.desk.averages.lock().tick(now, &pools)
    }

    /// SHOW STATS: totals and averages per database, from the rows of all pools but the console's.
    pub fn stats(&self, now: Instant, pools: Vec<PoolRow>) -> Report {
        let pools = self.desk.with_own(pools);
        self.desk.averages.lock().report(now, &pools)
    }
}

/// The place of one open console; it leaves the list when dropped.
#[derive(Debug)]
pub struct Seat<'a> {
    desk: &'a Desk,
    id: u64,
    signals: Arc<Signals>,
}

impl Seat<'_> {
    /// Notes that a request came in.
    pub fn touch(&self, now: SystemTime) {
        let mut consoles = self.desk.consoles.lock();
        if let Some(console) = consoles
            .iter_mut()
            .find(|console| console.row.id == self.id)
        {
            console.row.request_time = now;
            if !std::mem::replace(&mut console.used, true) {
                self.desk.used.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Resolves when a CancelRequest comes, from the first poll on.
    pub async fn canceled(&self) {
        self.signals.cancel.notified().await;
    }

    /// Resolves when the console is to be disconnected.
    pub async fn killed(&self) {
        self.signals.kill.notified().await;
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.desk
            .consoles
            .lock()
            .retain(|console| console.row.id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fake::user;
    use std::time::Duration;

    #[test]
    fn consoles_are_listed_while_their_seats_are_taken() {
        let start = Instant::now();
        let desk = Desk::new(start);
        let seats = [1, 2].map(|id| desk.enter(&user(Role::Admin, id)));
        let later = SystemTime::now();
        seats[1].touch(later);
        seats[1].touch(later);
        let ids = |desk: &Desk| desk.rows().iter().map(|row| row.id).collect::<Vec<_>>();
        assert_eq!(
            (ids(&desk), desk.rows()[1].request_time),
            (vec![1, 2], later)
        );
        assert_eq!(
            (desk.pool_row().cl_active, desk.pool_row().stats.xact_count),
            (2, 1)
        );
        let [first, _second] = seats;
        drop(first);
        assert_eq!(
            (ids(&desk), desk.kill(1), desk.cancel(&[1; 8])),
            (vec![2], false, false)
        );
        // Logins are not forgotten.
        assert_eq!(
            (desk.pool_row().cl_active, desk.pool_row().stats.xact_count),
            (1, 1)
        );
    }

    #[tokio::test]
    async fn the_consoles_own_logins_are_in_the_statistics() {
        let start = Instant::now();
        let desk = Desk::new(start);
        let seat = desk.enter(&user(Role::Admin, 1));
        seat.touch(SystemTime::now());
        let turn = desk.turn().await;
        let line = turn
            .tick(start + Duration::from_secs(1), Vec::new())
            .to_string();
        assert!(
            line.starts_with("stats: 1 xacts/s, 1 queries/s, ")
                && line.contains(", 1 client logins/s, ")
        );
        let report = turn.stats(start + Duration::from_secs(1), Vec::new());
        assert_eq!(report.databases[0].0, CONSOLE);
    }
}
