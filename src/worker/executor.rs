//! A worker's executor: which of its tasks can go on, and their turns.
//!
//! Tasks never leave the thread, so running one costs no lock, and waking one from the same thread, as the reactor and other tasks
//! do, costs one atomic exchange. Only who wakes a task from elsewhere (mail from other threads, a timer of the login runtime) takes
//! a lock, and interrupts the worker's sleep if it sleeps. A task that panics ends; the others go on.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use slab::Slab;

use crate::net::reactor::Reactor;
use crate::types::LocalTask;

/// It waits to be woken.
const ASLEEP: u8 = 0;
/// It stands in a queue, and needs not be woken again.
const QUEUED: u8 = 1;

thread_local! {
    static HERE: Here = const { Here { home: Cell::new(std::ptr::null()), queue: RefCell::new(VecDeque::new()) } };
}

/// What this thread's wakers need: whose thread it is, and the tasks that can go on.
struct Here {
    /// Only compared, never followed.
    home: Cell<*const Home>,
    queue: RefCell<VecDeque<Arc<Handle>>>,
}

/// What other threads know of an executor.
struct Home {
    /// Tasks woken from elsewhere.
    woken: Mutex<Vec<Arc<Handle>>>,
    /// There are such tasks.
    any_woken: AtomicBool,
    /// The worker sleeps, or is about to, and has to be interrupted.
    sleeps: AtomicBool,
    alarm: Arc<mio::Waker>,
}

/// What wakers of a task point to.
struct Handle {
    home: Arc<Home>,
    /// Its place; another task may have it once this one has ended.
    place: usize,
    state: AtomicU8,
}

struct Task {
    /// Absent while it has its turn.
    work: Option<LocalTask>,
    waker: Waker,
}

/// The tasks of one thread.
pub struct Executor {
    tasks: Rc<RefCell<Slab<Task>>>,
    home: Arc<Home>,
    reactor: Reactor,
    /// Becomes the queue while the queue is worked off.
    spare: VecDeque<Arc<Handle>>,
}

/// The way to start more tasks; of no effect once the executor has ended.
#[derive(Clone)]
pub struct Spawner {
    tasks: Rc<RefCell<Slab<Task>>>,
    home: Arc<Home>,
}

impl Executor {
    /// Makes this thread one that runs tasks, with a reactor for their sockets, and a beat that comes `every` so often.
    ///
    /// # Errors
    /// As [`Reactor::enter`].
    pub fn enter(every: Duration) -> io::Result<Executor> {
        let (reactor, alarm) = Reactor::enter(every)?;
        let home = Arc::new(Home {
            woken: Mutex::default(),
            any_woken: AtomicBool::new(false),
            sleeps: AtomicBool::new(false),
            alarm,
        });
        HERE.with(|here| {
            here.home.set(Arc::as_ptr(&home));
            here.queue.borrow_mut().clear();
        });
        Ok(Executor {
            tasks: Rc::default(),
            home,
            reactor,
            spare: VecDeque::new(),
        })
    }

    /// The way to start tasks.
    pub fn spawner(&self) -> Spawner {
        Spawner {
            tasks: self.tasks.clone(),
            home: self.home.clone(),
        }
    }

    /// Runs tasks until `end` says so. It is asked after every round, and told whether the beat has come meanwhile.
    ///
    /// # Errors
    /// The reactor's.
    pub fn run(&mut self, mut end: impl FnMut(bool) -> bool) -> io::Result<()> {
        loop {
            self.take_woken();
            self.round();
            if end(self.reactor.take_beat()?) {
                return Ok(());
            }
            self.rest()?;
        }
    }

    /// One turn for each task that can go on now; those that are woken meanwhile come next time, after the sockets.
    fn round(&mut self) {
        let mut ready = std::mem::take(&mut self.spare);
        HERE.with(|here| std::mem::swap(&mut ready, &mut *here.queue.borrow_mut()));
        while let Some(handle) = ready.pop_front() {
            self.turn(&handle);
        }
        self.spare = ready;
    }

    fn turn(&self, handle: &Arc<Handle>) {
        // From here on it may be woken again: it will look at everything.
        handle.state.store(ASLEEP, Ordering::Release);
        let Some((mut work, waker)) = self.begin_turn(handle) else {
            return;
        };
        Reactor::begin_turn();
        let mut cx = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut cx)));
        if matches!(polled, Ok(Poll::Pending)) {
            if let Some(task) = self.tasks.borrow_mut().get_mut(handle.place) {
                task.work = Some(work);
                task.waker = waker;
            }
            return;
        }
        drop(self.tasks.borrow_mut().try_remove(handle.place));
        // What it owned may wake, spawn or panic.
        drop_quietly(work);
    }

    /// Takes the work out of its place; `None` if the handle is of a task that has ended.
    fn begin_turn(&self, handle: &Arc<Handle>) -> Option<(LocalTask, Waker)> {
        let mut tasks = self.tasks.borrow_mut();
        let task = tasks.get_mut(handle.place)?;
        if task.waker.data() != Arc::as_ptr(handle).cast() {
            return None;
        }
        let work = task.work.take()?;
        Some((
            work,
            std::mem::replace(&mut task.waker, Waker::noop().clone()),
        ))
    }

    /// Who was woken from elsewhere comes first: what the operator has said before a client spoke is heard before it.
    fn take_woken(&self) {
        if self.home.any_woken.swap(false, Ordering::SeqCst) {
            let woken = std::mem::take(&mut *self.home.woken.lock());
            HERE.with(|here| {
                let mut queue = here.queue.borrow_mut();
                woken
                    .into_iter()
                    .rev()
                    .for_each(|handle| queue.push_front(handle));
            });
        }
    }

    /// Looks after the sockets; sleeps if no task can go on.
    fn rest(&mut self) -> io::Result<()> {
        if HERE.with(|here| !here.queue.borrow().is_empty()) {
            return self.reactor.wait(false);
        }
        self.home.sleeps.store(true, Ordering::SeqCst);
        // Whoever has woken a task before that has not interrupted anybody.
        let hurry = self.home.any_woken.load(Ordering::SeqCst);
        let waited = self.reactor.wait(!hurry);
        self.home.sleeps.store(false, Ordering::SeqCst);
        waited
    }
}

/// Tasks that have not ended are dropped.
impl Drop for Executor {
    fn drop(&mut self) {
        HERE.with(|here| here.home.set(std::ptr::null()));
        let left: Vec<Task> = self.tasks.borrow_mut().drain().collect();
        for task in left {
            if let Some(work) = task.work {
                drop_quietly(work);
            }
        }
        HERE.with(|here| here.queue.borrow_mut().clear());
    }
}

impl Spawner {
    /// Starts a task.
    pub fn spawn(&self, work: LocalTask) {
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        let handle = Arc::new(Handle {
            home: self.home.clone(),
            place: entry.key(),
            state: AtomicU8::new(ASLEEP),
        });
        let waker = Waker::from(handle);
        entry.insert(Task {
            work: Some(work),
            waker: waker.clone(),
        });
        drop(tasks);
        waker.wake();
    }
}

impl Wake for Handle {
    fn wake(self: Arc<Self>) {
        if self.queue_up() {
            Handle::push(self);
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queue_up() {
            Handle::push(self.clone());
        }
    }
}

impl Handle {
    /// True if it has to be put into a queue, because it stands in none.
    fn queue_up(&self) -> bool {
        self.state.swap(QUEUED, Ordering::AcqRel) == ASLEEP
    }

    fn push(self: Arc<Self>) {
        let mut woken = Some(self);
        // A thread that ends has no queue any more, and none of its own to wake.
        let _ = HERE.try_with(|here| {
            let is_mine = |handle: &mut Arc<Handle>| Arc::as_ptr(&handle.home) == here.home.get();
            if let Some(handle) = woken.take_if(is_mine) {
                here.queue.borrow_mut().push_back(handle);
            }
        });
        if let Some(handle) = woken {
            handle.push_from_elsewhere();
        }
    }

    fn push_from_elsewhere(self: Arc<Self>) {
        let home = self.home.clone();
        home.woken.lock().push(self);
        home.any_woken.store(true, Ordering::SeqCst);
        if home.sleeps.swap(false, Ordering::SeqCst) {
            // Should that fail, it wakes at the next beat.
            let _ = home.alarm.wake();
        }
    }
}

/// A destructor that panics ends nobody else.
fn drop_quietly(value: impl Any) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
}

#[cfg(test)]
mod tests;
