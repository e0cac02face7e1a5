//! Draining: an end that loses nothing, for restarts behind a load balancer.
//!
//! At once nobody is told to come any more (`/readyz`, the service manager), but everybody who does is served, for
//! `drain_lame_duck`: a load balancer takes a moment to notice. Only when it has, and the listeners are closed, are clients asked to
//! leave: those who left before would come back to us. They are asked by their workers, a few at a time ([`crate::worker::drain`]).
//! `drain_deadline` ends it.

use std::fmt;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::App;
use super::doors::{Door, Doors};
use crate::client::admission::Entrance;
use crate::client::farewell::FAREWELL_TIMEOUT;
use crate::config::Settings;
use crate::error::ClientError;
use crate::worker::drain::{Attendance, DrainPlan};
use crate::worker::mail::Control;

/// How often is looked who is left.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Time between two lines of the log about who is left.
const PROGRESS: Duration = Duration::from_secs(1);
/// The time that clients are spread over where there is no deadline.
const NO_HURRY: Duration = Duration::from_secs(20);

/// When a drain does what.
struct Timetable {
    began: Instant,
    /// The listeners close.
    closing: Instant,
    /// Nobody is waited for any longer; `None` to wait for ever.
    deadline: Option<Instant>,
}

impl Timetable {
    fn new(settings: &Settings, is_open: bool) -> Timetable {
        let began = Instant::now();
        let lame_duck = if is_open {
            settings.drain_lame_duck
        } else {
            Duration::ZERO
        };
        let limit = settings.drain_deadline;
        let deadline = (!limit.is_zero()).then(|| began + limit);
        let closing = began + lame_duck;
        Timetable {
            began,
            closing: deadline.map_or(closing, |deadline| closing.min(deadline)),
            deadline,
        }
    }

    /// For the clients, once the listeners have closed.
    fn plan(&self) -> DrainPlan {
        let now = Instant::now();
        let left = |deadline: Instant| deadline.saturating_duration_since(now);
        DrainPlan::new(now.into_std(), self.deadline.map_or(NO_HURRY, left))
    }
}

/// Drains, and returns when the process may end.
pub async fn drain(app: &App, doors: &Doors) {
    let is_open = !*app.tcp_closed.borrow();
    let settings = app.config_now().settings.clone();
    let timetable = Timetable::new(&settings, is_open);
    log_start(&settings, is_open);
    sleep_until(timetable.closing).await;
    // In this order: whoever has arrived by TCP is let in.
    app.admission.set_entrance(Entrance::Arrived);
    doors.close_tcp(Door::Closing).await;
    app.tcp_closed.send_replace(true);
    tracing::info!(
        "draining: not listening any more, {}",
        Left(attendance(app).await)
    );
    let plan = timetable.plan();
    app.tell_workers(|| Control::Drain(plan));
    let all_left = match timetable.deadline {
        Some(deadline) => timeout_at(deadline, all_leave(app)).await.is_ok(),
        None => {
            all_leave(app).await;
            true
        }
    };
    if !all_left {
        cut(app).await;
    }
    let took = timetable.began.elapsed().as_secs_f64();
    tracing::info!("drained in {took:.1}s, exiting");
}

fn log_start(settings: &Settings, is_open: bool) {
    let lame_duck = match is_open {
        true => format!("listening for {:?} more", settings.drain_lame_duck),
        false => "not listening any more".to_owned(),
    };
    match settings.drain_deadline {
        Duration::ZERO => tracing::info!("draining: {lame_duck}, without a deadline"),
        limit => tracing::info!("draining: {lame_duck}, ending after {limit:?} at the latest"),
    }
}

/// Waits until nobody is there any more, and tells how it goes.
async fn all_leave(app: &App) {
    let mut last_told = Instant::now();
    let mut told = None;
    loop {
        // In this order: whoever is handed to a worker ceases to arrive after it has been.
        let arriving = app.arriving.load(SeqCst);
        let left = attendance(app).await;
        if arriving + left.clients + left.partings == 0 {
            return;
        }
        if told != Some(left) && left.clients > 0 && last_told.elapsed() >= PROGRESS {
            tracing::info!("draining: {}", Left(left));
            (last_told, told) = (Instant::now(), Some(left));
        }
        sleep(LOOK_AGAIN).await;
    }
}

async fn attendance(app: &App) -> Attendance {
    app.ask(Control::Attendance).await.into_iter().sum()
}

/// The deadline has come: whoever is left is told so, and hears that before the process ends.
async fn cut(app: &App) {
    let left = attendance(app).await;
    if left.clients > 0 {
        tracing::warn!("draining: drain_deadline is over, closing {}", Left(left));
    }
    app.admission.set_entrance(Entrance::Closed);
    app.tell_workers(|| Control::Kill(None, ClientError::shutdown()));
    let heard = async {
        loop {
            let left = attendance(app).await;
            if left.clients + left.partings == 0 {
                return;
            }
            sleep(LOOK_AGAIN).await;
        }
    };
    let _ = timeout(FAREWELL_TIMEOUT, heard).await;
}

/// As the log says it.
struct Left(Attendance);

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Attendance {
            clients,
            active,
            waiting,
            ..
        } = self.0;
        let s = if clients == 1 { "" } else { "s" };
        write!(f, "{clients} client{s} left")?;
        if active + waiting > 0 {
            write!(f, " ({active} with a server, {waiting} waiting for one)")?;
        }
        Ok(())
    }
}
