//! Where a login runs: it may begin on a worker, among queries, and goes aside to the login threads before anything that takes long
//! or that a worker has no means for: a TLS handshake, PBKDF2, asking others, last words.
//!
//! A worker takes a login forward with [`step`]. Everywhere else a login is an ordinary future, and going aside is nothing.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Sleep, sleep_until};

/// How many logins of one listener may wait for a login thread to begin with them before nobody more is let in there. Login threads come
/// after the workers, so on a busy machine a flood (of cancel requests, of TLS handshakes) would be let in much faster than they
/// work it off, until no descriptor is left. Who is not let in waits in the listener's queue, which has an end.
pub const WAITING_MAX: u32 = 256;

/// A login under way, wherever it runs.
pub type Login = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    /// Whether the step that is being made wants to end the login's stay here; `None` outside a step.
    static LEAVES: Cell<Option<bool>> = const { Cell::new(None) };
}

/// What has become of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is over.
    Done,
    /// It waits for its client. Its own time limit it does not keep while it is here: it is to be woken when that is over.
    Waits,
    /// It goes on as a task of the login threads. Its connection is of no reactor.
    Aside,
}

/// The way aside for those who come in by one listener. A clone leads to the same place.
#[derive(Clone, Debug)]
pub struct WayAside(Arc<Semaphore>);

impl Default for WayAside {
    fn default() -> WayAside {
        WayAside(Arc::new(Semaphore::new(WAITING_MAX as usize)))
    }
}

impl WayAside {
    /// Do as many wait as may?
    pub fn is_full(&self) -> bool {
        self.0.available_permits() == 0
    }

    /// Waits until half of the room is free.
    pub async fn has_room(&self) {
        // It is never closed.
        let _ = self.0.acquire_many(WAITING_MAX / 2).await;
    }

    /// Has the login threads go on with a login, whether there is room or not.
    pub fn send(&self, login: Login, logins: &Handle) {
        let waiting = self.0.clone().try_acquire_owned().ok();
        logins.spawn(async move {
            drop(waiting);
            login.await;
        });
    }
}

/// Ends the step however it ends.
struct Stepping;

impl Drop for Stepping {
    fn drop(&mut self) {
        LEAVES.set(None);
    }
}

/// Takes a login forward on a worker.
pub fn step(login: &mut Login, cx: &mut Context<'_>) -> Step {
    LEAVES.set(Some(false));
    let _stepping = Stepping;
    match login.as_mut().poll(cx) {
        Poll::Ready(()) => Step::Done,
        Poll::Pending if LEAVES.get() == Some(true) => Step::Aside,
        Poll::Pending => Step::Waits,
    }
}

/// Does the login that asks run on a worker?
pub fn is_on_worker() -> bool {
    LEAVES.get().is_some()
}

/// Goes to the login threads, if the login is not there yet.
pub(super) async fn leave() {
    poll_fn(|_| match LEAVES.get() {
        Some(_) => {
            LEAVES.set(Some(true));
            Poll::Pending
        }
        None => Poll::Ready(()),
    })
    .await;
}

/// A point in time by which a login must be over, wherever it runs.
pub(super) struct Deadline {
    at: Option<Instant>,
    /// Where there are timers.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// In so much time; never, if that is zero or beyond all time.
    pub(super) fn after(limit: Duration) -> Deadline {
        let at = Instant::now().checked_add(limit);
        Deadline {
            at: at.filter(|_| !limit.is_zero()),
            timer: None,
        }
    }

    /// Is it over? On a worker this is only found out when the login is woken for other reasons.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        if is_on_worker() {
            return match Instant::now() >= at {
                true => Poll::Ready(()),
                false => Poll::Pending,
            };
        }
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(at.into())));
        timer.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn a_login_stays_until_it_goes_aside() {
        let mut login: Login = Box::pin(async {
            assert!(is_on_worker());
            tokio::task::yield_now().await;
            leave().await;
            assert!(!is_on_worker());
        });
        assert_eq!(step(&mut login, &mut cx()), Step::Waits);
        assert_eq!(step(&mut login, &mut cx()), Step::Aside);
        assert!(!is_on_worker());
        assert!(login.as_mut().poll(&mut cx()).is_ready());
    }

    #[test]
    fn one_that_needs_nothing_is_done() {
        let mut login: Login = Box::pin(async {});
        assert_eq!(step(&mut login, &mut cx()), Step::Done);
    }

    /// Those whom no login thread has begun with fill the way; those that it has begun with don't, however long they take.
    #[test]
    fn the_way_aside_is_full_until_logins_are_begun_with() {
        let threads = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let way = WayAside::default();
        for _ in 0..2 * WAITING_MAX {
            assert_eq!(way.is_full(), way.0.available_permits() == 0);
            way.send(Box::pin(std::future::pending()), threads.handle());
        }
        assert!(way.is_full());
        let mut room = Box::pin(way.has_room());
        assert!(room.as_mut().poll(&mut cx()).is_pending());
        threads.block_on(room);
        assert!(!way.is_full());
    }

    #[test]
    fn a_panic_ends_the_step() {
        let mut login: Login = Box::pin(async { panic!("a bug") });
        let stepped = std::panic::AssertUnwindSafe(|| step(&mut login, &mut cx()));
        assert!(std::panic::catch_unwind(stepped).is_err());
        assert!(!is_on_worker());
    }

    #[test]
    fn a_deadline_needs_no_timer_on_a_worker() {
        let mut login: Login = Box::pin(async {
            let mut never = Deadline::after(Duration::ZERO);
            assert!(poll_fn(|cx| Poll::Ready(never.poll(cx))).await.is_pending());
            let mut later = Deadline::after(Duration::from_secs(3600));
            assert!(poll_fn(|cx| Poll::Ready(later.poll(cx))).await.is_pending());
            let mut soon = Deadline::after(Duration::from_nanos(1));
            poll_fn(|cx| soon.poll(cx)).await;
        });
        // Without a runtime a timer would panic.
        while step(&mut login, &mut cx()) != Step::Done {}
    }
}
