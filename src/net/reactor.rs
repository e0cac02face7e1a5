//! A worker's reactor: which of its sockets may be read or written, and whom to wake when that changes.
//!
//! Workers have one of their own because the query path asks it several times per query, and tokio's has to be fit for any thread:
//! here a look is a thread-local one, without a lock or an atomic. Readiness is edge-triggered, so no query costs a call to epoll. The
//! sockets are [`LocalSocket`]s, the bottom of a worker's [`Stream`](super::stream::Stream)s; who polls them is
//! [`worker::executor`](crate::worker::executor)'s business.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use slab::Slab;

use super::socket::StdSocket;

/// How many events are taken at once.
const EVENTS_MAX: usize = 1024;
/// How many reads and writes one task may do in a turn before others get theirs: a peer that never rests shall not have the worker
/// to itself.
pub const OPERATIONS_PER_TURN: u32 = 128;
/// Stands for the worker's waker among the events.
const WAKE: Token = Token(usize::MAX);
/// Stands for the end of [`NAP`].
const NAP_OVER: Token = Token(usize::MAX - 1);
/// Stands for the beat.
const BEAT: Token = Token(usize::MAX - 2);
/// How long a lazy reader lets input gather at least: a server that sends a large result does it 8 kB at a time, and to be woken for
/// each costs more than to pass them on. Where less than half a buffer gathers meanwhile it becomes longer.
pub const NAP: Duration = Duration::from_micros(200);
/// So many looks in a row that find nothing end the laziness.
const EMPTY_LOOKS: u8 = 8;

const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Readable, as far as is known.
const READ: u8 = 1;
/// Writable, as far as is known.
const WRITE: u8 = 2;
/// The peer has closed its side, or the connection is broken: reading will tell.
const CLOSED: u8 = 4;

thread_local! {
    static CURRENT: RefCell<Option<Slots>> = const { RefCell::new(None) };
}

/// What is known of the sockets of this thread.
struct Slots {
    slots: Slab<Slot>,
    registry: mio::Registry,
    /// Runs while somebody naps.
    nap: TimerFd,
    /// How long it was set to run.
    nap_length: Duration,
    /// Who is to be woken when it is over.
    napping: Vec<usize>,
    /// Operations that the task whose turn it is may still do.
    budget: u32,
}

/// When a socket's input is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looks {
    /// When the kernel reports some.
    AtOnce,
    /// When the nap is over; the kernel reports none.
    Later,
    /// Now: the nap is over. If there was nothing, then at once again.
    Now,
}

struct Slot {
    ready: u8,
    looks: Looks,
    gathering: Gathering,
    /// The task that uses the socket. A socket is used by one task at a time.
    waker: Option<Waker>,
}

/// How much a read has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Catch {
    /// Nothing, or it was no read.
    Nothing,
    /// Less than half of what there was room for.
    Little,
    Much,
    /// As much as there was room for; there may be more.
    Full,
}

/// How a lazy reader's input gathers.
#[derive(Clone, Copy, Default)]
struct Gathering {
    /// The present nap, in microseconds.
    nap: u16,
    /// The longest that it may become.
    nap_max: u16,
    /// Looks in a row that may still find nothing.
    patience: u8,
    /// This look has filled a buffer.
    has_filled: bool,
}

impl Gathering {
    fn begin(nap_max: Duration) -> Gathering {
        let mut begun = Gathering {
            nap: micros(NAP),
            patience: EMPTY_LOOKS,
            ..Gathering::default()
        };
        begun.allow(nap_max);
        begun
    }

    fn allow(&mut self, nap_max: Duration) {
        self.nap_max = micros(nap_max.max(NAP));
    }

    /// A look has ended, after reads that have filled their buffers, with one that has not. False if that was one look too many that has
    /// found nothing.
    fn end_look(&mut self, last: Catch) -> bool {
        let has_filled = std::mem::take(&mut self.has_filled);
        if has_filled {
            self.nap = (self.nap / 2).max(micros(NAP));
        } else if last != Catch::Much {
            self.nap = self.nap.saturating_mul(2);
        }
        self.nap = self.nap.min(self.nap_max);
        if has_filled || last != Catch::Nothing {
            self.patience = EMPTY_LOOKS;
            return true;
        }
        self.patience = self.patience.saturating_sub(1);
        self.patience > 0
    }
}

/// As microseconds, up to 65 ms.
fn micros(duration: Duration) -> u16 {
    u16::try_from(duration.as_micros()).unwrap_or(u16::MAX)
}

/// The reactor of this thread; as long as it lives, streams that are attached here belong to it.
pub struct Reactor {
    poll: mio::Poll,
    events: Events,
    /// Ends a wait every now and then: cheaper than a timeout for each.
    beat: TimerFd,
    every: Duration,
    has_beaten: bool,
}

impl Reactor {
    /// Makes this thread one with a reactor, and a waker that interrupts [`Reactor::wait`]. So does the beat, which comes `every` so
    /// often.
    ///
    /// # Errors
    /// No descriptors are left; `AlreadyExists` if the thread has a reactor.
    pub fn enter(every: Duration) -> io::Result<(Reactor, Arc<mio::Waker>)> {
        let poll = mio::Poll::new()?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), WAKE)?);
        let registry = poll.registry().try_clone()?;
        let nap = watched_timer(&registry, NAP_OVER)?;
        let beat = watched_timer(&registry, BEAT)?;
        start(&beat, every)?;
        CURRENT.with_borrow_mut(|current| {
            if current.is_some() {
                return Err(io::Error::from(io::ErrorKind::AlreadyExists));
            }
            *current = Some(Slots {
                slots: Slab::new(),
                registry,
                nap,
                nap_length: Duration::MAX,
                napping: Vec::new(),
                budget: OPERATIONS_PER_TURN,
            });
            Ok(())
        })?;
        let events = Events::with_capacity(EVENTS_MAX);
        let reactor = Reactor {
            poll,
            events,
            beat,
            every,
            has_beaten: false,
        };
        Ok((reactor, waker))
    }

    /// Looks whether something has happened to a socket, and wakes whom it concerns. If `may_sleep` says so, waits until something
    /// does, the waker is used, or the beat comes.
    ///
    /// # Errors
    /// The system's; being interrupted by a signal is none.
    pub fn wait(&mut self, may_sleep: bool) -> io::Result<()> {
        let timeout = (!may_sleep).then_some(Duration::ZERO);
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            done => done?,
        }
        CURRENT.with_borrow_mut(|current| {
            let Some(current) = current else { return };
            for event in &self.events {
                match event.token() {
                    NAP_OVER => current.wake_napping(),
                    BEAT => self.has_beaten = true,
                    _ => {}
                }
                // An event of a socket that was closed since may hit its successor: one look too many.
                if let Some(slot) = current.slots.get_mut(event.token().0) {
                    slot.ready |= readiness(event);
                    if let Some(waker) = &slot.waker {
                        waker.wake_by_ref();
                    }
                }
            }
        });
        Ok(())
    }

    /// Has the beat come since this was last asked? The next comes as long after this question.
    ///
    /// # Errors
    /// The system's: there would be no further beat.
    pub fn take_beat(&mut self) -> io::Result<bool> {
        if !self.has_beaten {
            return Ok(false);
        }
        self.has_beaten = false;
        start(&self.beat, self.every)?;
        Ok(true)
    }

    /// Another task's turn begins.
    pub fn begin_turn() {
        CURRENT.with_borrow_mut(|current| {
            if let Some(current) = current {
                current.budget = OPERATIONS_PER_TURN;
            }
        });
    }
}

/// Sockets that are left belong to nobody.
impl Drop for Reactor {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}

impl Slots {
    fn wake_napping(&mut self) {
        self.nap_length = Duration::MAX;
        for slot in self.napping.drain(..) {
            // A place may have changed hands: one look too many.
            if let Some(slot) = self.slots.get_mut(slot) {
                slot.ready |= READ;
                if slot.looks == Looks::Later {
                    slot.looks = Looks::Now;
                }
                if let Some(waker) = &slot.waker {
                    waker.wake_by_ref();
                }
            }
        }
    }

    /// The input of this socket, which was just read empty, is looked at after a while. All who nap wake with the first of them.
    fn nap(&mut self, place: usize) {
        let Some(slot) = self.slots.get_mut(place) else {
            return;
        };
        let length = Duration::from_micros(slot.gathering.nap.into());
        let began = if length < self.nap_length {
            start(&self.nap, length)
        } else {
            Ok(())
        };
        if began.is_ok() {
            self.nap_length = self.nap_length.min(length);
            self.napping.push(place);
            slot.looks = Looks::Later;
        } else {
            slot.ready |= READ; // without a timer: now
            if let Some(waker) = &slot.waker {
                waker.wake_by_ref();
            }
        }
    }
}

fn watched_timer(registry: &mio::Registry, token: Token) -> io::Result<TimerFd> {
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
    let fd = timer.as_fd().as_raw_fd();
    registry.register(&mut SourceFd(&fd), token, Interest::READABLE)?;
    Ok(timer)
}

/// The timer goes off once, so long from now.
fn start(timer: &TimerFd, after: Duration) -> io::Result<()> {
    let once = Expiration::OneShot(TimeSpec::from_duration(after));
    Ok(timer.set(once, TimerSetTimeFlags::empty())?)
}

fn readiness(event: &mio::event::Event) -> u8 {
    let mut ready = 0;
    if event.is_readable() {
        ready |= READ;
    }
    if event.is_writable() {
        ready |= WRITE;
    }
    if event.is_read_closed() || event.is_error() {
        ready |= CLOSED;
    }
    if event.is_write_closed() || event.is_error() {
        ready |= WRITE; // the attempt tells what is wrong
    }
    ready
}

/// Is this thread one with a reactor?
pub(super) fn is_here() -> bool {
    CURRENT.with_borrow(Option::is_some)
}

/// A non-blocking socket that this thread's reactor watches. On any other thread it refuses to do anything.
#[derive(Debug)]
pub(super) struct LocalSocket {
    /// Absent only while it is taken apart.
    socket: Option<StdSocket>,
    slot: usize,
}

impl LocalSocket {
    /// Has this thread's reactor watch `socket`. What waits in it already is reported anew.
    ///
    /// # Errors
    /// There is no reactor here, or it can't watch more.
    pub(super) fn attach(socket: StdSocket) -> io::Result<LocalSocket> {
        let slot = with_slots(|current| {
            let entry = current.slots.vacant_entry();
            let slot = entry.key();
            let fd = socket.as_fd().as_raw_fd();
            current
                .registry
                .register(&mut SourceFd(&fd), Token(slot), BOTH)?;
            entry.insert(Slot {
                ready: WRITE,
                looks: Looks::AtOnce,
                gathering: Gathering::default(),
                waker: None,
            });
            Ok(slot)
        })?;
        Ok(LocalSocket {
            socket: Some(socket),
            slot,
        })
    }

    /// Takes it away from the reactor.
    ///
    /// # Errors
    /// The system's; the socket is closed then.
    pub(super) fn detach(mut self) -> io::Result<StdSocket> {
        let socket = self.socket.take().ok_or(io::ErrorKind::NotConnected)?;
        let fd = socket.as_fd().as_raw_fd();
        with_slots(|current| {
            current.slots.try_remove(self.slot);
            current.registry.deregister(&mut SourceFd(&fd))
        })?;
        Ok(socket)
    }

    pub(super) fn socket(&self) -> io::Result<&StdSocket> {
        self.socket
            .as_ref()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Nothing has been heard of it since it was last read empty.
    #[inline]
    pub(super) fn is_silent(&self) -> bool {
        CURRENT.with_borrow(|current| {
            let slot = current
                .as_ref()
                .and_then(|current| current.slots.get(self.slot));
            slot.is_some_and(|slot| {
                slot.ready & (READ | CLOSED) == 0 && slot.looks == Looks::AtOnce
            })
        })
    }

    /// From now on input may gather before it is looked at, for [`NAP`] and where little comes for up to `nap_max`, until there was none
    /// at several looks in a row, or this is taken back by `None`. To be said when it has just been read empty. Costs a system call when
    /// it begins and one when it ends.
    ///
    /// # Errors
    /// The system's; the socket is of no use then.
    pub(super) fn set_lazy(&self, nap_max: Option<Duration>) -> io::Result<()> {
        with_slots(|current| {
            let Some(slot) = current.slots.get_mut(self.slot) else {
                return Err(elsewhere());
            };
            let is_lazy = slot.looks != Looks::AtOnce;
            match nap_max {
                Some(nap_max) if is_lazy => slot.gathering.allow(nap_max),
                Some(nap_max) => {
                    slot.gathering = Gathering::begin(nap_max);
                    self.watch_for(current, Interest::WRITABLE)?;
                    current.nap(self.slot);
                }
                None if is_lazy => self.look_at_once(current)?,
                None => {}
            }
            Ok(())
        })
    }

    /// Input gathers before it is looked at.
    pub(super) fn is_lazy(&self) -> bool {
        CURRENT.with_borrow(|current| {
            let slot = current
                .as_ref()
                .and_then(|current| current.slots.get(self.slot));
            slot.is_some_and(|slot| slot.looks != Looks::AtOnce)
        })
    }

    fn look_at_once(&self, current: &mut Slots) -> io::Result<()> {
        if let Some(slot) = current.slots.get_mut(self.slot) {
            slot.looks = Looks::AtOnce;
        }
        self.watch_for(current, BOTH)
    }

    /// What has happened already is reported anew.
    fn watch_for(&self, current: &Slots, interest: Interest) -> io::Result<()> {
        let fd = self.socket()?.as_fd().as_raw_fd();
        let token = Token(self.slot);
        current
            .registry
            .reregister(&mut SourceFd(&fd), token, interest)
    }

    #[inline]
    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let room = buf.len();
        self.poll_ready(cx, READ | CLOSED, |fd| {
            let count = rustix::net::recv(fd, &mut *buf, RecvFlags::empty())?.0;
            // Fewer bytes than would have fitted: the kernel has no more, and reports the next. (The end is reported for ever.)
            let (forget, catch) = match count {
                0 => (0, Catch::Nothing),
                _ if count == room => (0, Catch::Full),
                _ if count < room / 2 => (READ, Catch::Little),
                _ => (READ, Catch::Much),
            };
            Ok((count, forget, catch))
        })
    }

    /// Looks at the next byte without taking it: `None` at the end of the stream.
    pub(super) fn poll_peek(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<u8>>> {
        self.poll_ready(cx, READ | CLOSED, |fd| {
            let mut byte = [0];
            let count = rustix::net::recv(fd, &mut byte, RecvFlags::PEEK)?.0;
            Ok(((count > 0).then_some(byte[0]), 0, Catch::Nothing))
        })
    }

    #[inline]
    pub(super) fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_ready(cx, WRITE, |fd| {
            let count = rustix::net::send(fd, buf, SendFlags::NOSIGNAL)?;
            let forget = if count < buf.len() { WRITE } else { 0 };
            Ok((count, forget, Catch::Nothing))
        })
    }

    pub(super) fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_ready(cx, WRITE, |fd| {
            Ok((rustix::io::writev(fd, bufs)?, 0, Catch::Nothing))
        })
    }

    /// Tries `attempt` while the socket may be ready for it; its second result is the readiness that is used up with it, the third what
    /// it has read. Otherwise the task is woken when something has changed.
    #[inline]
    fn poll_ready<T>(
        &self,
        cx: &mut Context<'_>,
        wanted: u8,
        mut attempt: impl FnMut(BorrowedFd<'_>) -> Result<(T, u8, Catch), Errno>,
    ) -> Poll<io::Result<T>> {
        let tried = with_slots(|current| {
            loop {
                let Some(slot) = current.slots.get_mut(self.slot) else {
                    return Err(elsewhere());
                };
                if slot.ready & wanted == 0 {
                    slot.watch(cx.waker());
                    if slot.looks == Looks::Now && wanted & READ != 0 {
                        if slot.gathering.end_look(Catch::Nothing) {
                            current.nap(self.slot);
                        } else {
                            self.look_at_once(current)?;
                        }
                    }
                    return Ok(None);
                }
                if current.budget == 0 {
                    cx.waker().wake_by_ref();
                    return Ok(None);
                }
                current.budget -= 1;
                match attempt(self.socket()?.as_fd()) {
                    Ok((done, forget, catch)) => {
                        slot.ready &= !forget;
                        if slot.looks == Looks::Now {
                            slot.gathering.has_filled |= catch == Catch::Full;
                            if forget & READ != 0 && slot.gathering.end_look(catch) {
                                current.nap(self.slot);
                            }
                        }
                        return Ok(Some(done));
                    }
                    Err(Errno::WOULDBLOCK) => slot.ready &= !wanted,
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        });
        match tried {
            Ok(Some(done)) => Poll::Ready(Ok(done)),
            Ok(None) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

/// Closing a descriptor takes it away from epoll as well.
impl Drop for LocalSocket {
    fn drop(&mut self) {
        if self.socket.is_some() {
            // No reactor here any more: nothing to tell.
            let _ = with_slots(|current| {
                current.slots.try_remove(self.slot);
                Ok(())
            });
        }
    }
}

impl Slot {
    #[inline]
    fn watch(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }
}

#[inline]
fn with_slots<T>(work: impl FnOnce(&mut Slots) -> io::Result<T>) -> io::Result<T> {
    CURRENT.with_borrow_mut(|current| match current {
        Some(current) => work(current),
        None => Err(elsewhere()),
    })
}

fn elsewhere() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotConnected,
        "socket is attached to another thread",
    )
}

#[cfg(test)]
mod tests;
