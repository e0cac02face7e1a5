//! Clients that are not yet anybody's: a worker lets them in by itself, and takes their logins forward among its queries, as patient
//! tasks ([`super::executor`]). What takes long goes aside to the login threads ([`crate::client::login::aside`]).
//!
//! Who comes in this way and stays is served without a single change of threads.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use slab::Slab;
use tokio::sync::{mpsc, watch};

use super::Worker;
use crate::client::login::aside::{self, Login, Step, WayAside};
use crate::net::listen::{AcceptError, Accepted, SharedListener};
use crate::net::options::TcpOptions;
use crate::types::WorkerId;

/// What is done with those who come in. The app is that: a worker knows neither settings of logins nor users.
pub trait Reception: Send + Sync {
    /// The options of their sockets.
    fn tcp_options(&self) -> TcpOptions;

    /// Their login, from the first byte to the hand-over. It is taken forward by this worker.
    fn receive(&self, caller: Accepted, worker: WorkerId) -> Login;
}

/// Lets clients in on a worker, until it is recalled or can't go on.
pub struct Doorman {
    /// Where they come from.
    pub listener: SharedListener,
    /// What is done with them.
    pub reception: Arc<dyn Reception>,
    /// Where those go who take long. While it is full, nobody is let in.
    pub aside: WayAside,
    /// Becomes true, or is closed, when nobody is to be let in any more.
    pub recalled: watch::Receiver<bool>,
    /// Says why it can't go on: the process lacks something. Dropped when the listener's share has been given back.
    pub report: mpsc::UnboundedSender<io::Error>,
}

/// Logins that run here, for those who look at the clock.
#[derive(Default)]
pub(super) struct Arrivals(Slab<Waiting>);

struct Waiting {
    /// When its time is over; `None` for never.
    due: Option<Instant>,
    /// Absent before its first turn.
    waker: Option<Waker>,
}

impl Arrivals {
    /// Wakes those whose time is over: they end by themselves then.
    pub(super) fn wake_due(&self, now: Instant) {
        for (_, waiting) in &self.0 {
            if let (Some(due), Some(waker)) = (waiting.due, &waiting.waker)
                && due <= now
            {
                waker.wake_by_ref();
            }
        }
    }
}

impl Worker {
    /// Begins to let clients in.
    pub(super) fn keep_door(self: &Rc<Self>, doorman: Doorman) {
        let Doorman {
            listener,
            reception,
            aside,
            mut recalled,
            report,
        } = doorman;
        let worker = self.clone();
        let door = async move {
            let mut recalled = pin!(recalled.wait_for(|recalled| *recalled));
            let mut accepting = pin!(worker.let_in(listener, &*reception, &aside));
            let ended = poll_fn(|cx| match recalled.as_mut().poll(cx) {
                Poll::Ready(_) => Poll::Ready(None),
                Poll::Pending => accepting.as_mut().poll(cx).map(Some),
            });
            if let Some(error) = ended.await {
                let _ = report.send(error);
            }
        };
        self.spawner.spawn_patient(Box::pin(door));
    }

    /// Ends when the process lacks something.
    async fn let_in(
        self: &Rc<Self>,
        mut listener: SharedListener,
        reception: &dyn Reception,
        way_aside: &WayAside,
    ) -> io::Error {
        loop {
            let mut watched = match listener.watch() {
                Ok(watched) => watched,
                Err(error) => return error,
            };
            while !way_aside.is_full() {
                let tcp = reception.tcp_options();
                match poll_fn(|cx| watched.poll_accept(cx, &tcp)).await {
                    Ok(caller) => {
                        let login = reception.receive(caller, self.around.worker);
                        self.arrive(login, way_aside.clone());
                    }
                    Err(AcceptError::Connection(_)) => {}
                    Err(AcceptError::Exhausted(error)) => return error,
                }
            }
            // Not watched meanwhile: a listener rings as long as somebody waits there.
            listener = watched.unwatch();
            way_aside.has_room().await;
        }
    }

    fn arrive(self: &Rc<Self>, login: Login, way_aside: WayAside) {
        let limit = self.blueprint.borrow().config.settings.client_login_timeout;
        let due = Instant::now().checked_add(limit);
        let waiting = Waiting {
            due: due.filter(|_| !limit.is_zero()),
            waker: None,
        };
        let place = self.arrivals.borrow_mut().0.insert(waiting);
        self.spawner.spawn_patient(Box::pin(Arriving {
            worker: self.clone(),
            place,
            way_aside,
            login: Some(login),
        }));
    }
}

/// A login that runs here.
struct Arriving {
    worker: Rc<Worker>,
    /// Its place among the [`Arrivals`].
    place: usize,
    way_aside: WayAside,
    /// Until it is over, or goes aside.
    login: Option<Login>,
}

impl Future for Arriving {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(login) = &mut self.login else {
            return Poll::Ready(());
        };
        match aside::step(login, cx) {
            Step::Done => Poll::Ready(()),
            Step::Waits => {
                self.show(cx);
                Poll::Pending
            }
            Step::Aside => {
                if let Some(login) = self.login.take() {
                    self.way_aside.send(login, &self.worker.around.logins);
                }
                Poll::Ready(())
            }
        }
    }
}

impl Arriving {
    fn show(&self, cx: &Context<'_>) {
        let arrivals = &mut self.worker.arrivals.borrow_mut().0;
        if let Some(waiting) = arrivals.get_mut(self.place) {
            // A task's waker is always the same.
            waiting.waker.get_or_insert_with(|| cx.waker().clone());
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.worker.arrivals.borrow_mut().0.try_remove(self.place);
    }
}
