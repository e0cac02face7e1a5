//! Pairs of real sockets, one end of each with the reactor.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;
use std::time::Instant;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const EVERY: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A reactor, a socket of its own, the other end, and how often the socket's user was woken.
struct Stage {
    reactor: Reactor,
    near: Option<LocalSocket>,
    far: UnixStream,
    woken: Arc<Counter>,
}

impl Stage {
    fn new() -> Stage {
        let (reactor, _) = Reactor::enter(EVERY).unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let near = LocalSocket::attach(StdSocket::Unix(near)).unwrap();
        Stage {
            reactor,
            near: Some(near),
            far,
            woken: Arc::default(),
        }
    }

    fn near(&self) -> &LocalSocket {
        self.near.as_ref().unwrap()
    }

    fn read(&self, room: usize) -> Poll<io::Result<Vec<u8>>> {
        let mut buf = vec![0; room];
        let waker = Waker::from(self.woken.clone());
        let read = self
            .near()
            .poll_read(&mut Context::from_waker(&waker), &mut buf);
        read.map_ok(|count| buf[..count].to_vec())
    }

    fn write(&self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let waker = Waker::from(self.woken.clone());
        self.near()
            .poll_write(&mut Context::from_waker(&waker), bytes)
    }

    /// Lets the reactor work until `done`.
    fn until(&mut self, mut done: impl FnMut(&Stage) -> bool) {
        let began = Instant::now();
        while !done(self) {
            assert!(began.elapsed() < PATIENCE, "nothing happens");
            wait(&mut self.reactor);
        }
    }

    /// Reads as soon as there is something, or the end.
    fn read_next(&mut self, room: usize) -> Vec<u8> {
        let mut got = Vec::new();
        self.until(|stage| match stage.read(room) {
            Poll::Pending => false,
            read => {
                got = bytes(read);
                true
            }
        });
        got
    }

    fn woken(&self) -> usize {
        self.woken.0.load(Ordering::SeqCst)
    }
}

/// Waits for something, or the beat.
fn wait(reactor: &mut Reactor) -> bool {
    reactor.wait(true).unwrap();
    reactor.take_beat().unwrap()
}

fn bytes(read: Poll<io::Result<Vec<u8>>>) -> Vec<u8> {
    match read {
        Poll::Ready(Ok(bytes)) => bytes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reader_is_woken_and_a_short_read_ends_the_readiness() {
    let mut stage = Stage::new();
    assert!(stage.near().is_silent());
    assert!(stage.read(16).is_pending());
    stage.far.write_all(b"abc").unwrap();
    stage.until(|stage| stage.woken() > 0);
    assert!(!stage.near().is_silent());
    assert_eq!(bytes(stage.read(16)), b"abc");
    assert!(stage.near().is_silent());
    assert!(stage.read(16).is_pending());
}

#[test]
fn a_full_read_may_be_followed_by_more() {
    let mut stage = Stage::new();
    stage.far.write_all(b"abcdef").unwrap();
    stage.until(|stage| !stage.near().is_silent());
    assert_eq!(bytes(stage.read(4)), b"abcd");
    assert!(!stage.near().is_silent());
    assert_eq!(bytes(stage.read(2)), b"ef");
    assert!(stage.read(2).is_pending());
    assert!(stage.near().is_silent());
}

#[test]
fn the_end_comes_behind_the_last_bytes_and_stays() {
    let mut stage = Stage::new();
    stage.far.write_all(b"bye").unwrap();
    stage.far.shutdown(std::net::Shutdown::Both).unwrap();
    stage.until(|stage| !stage.near().is_silent());
    assert_eq!(bytes(stage.read(16)), b"bye");
    for _ in 0..3 {
        stage.until(|stage| !stage.near().is_silent());
        assert_eq!(bytes(stage.read(16)), b"");
    }
}

#[test]
fn an_end_after_the_last_bytes_were_read_is_noticed() {
    let mut stage = Stage::new();
    stage.far.write_all(b"bye").unwrap();
    stage.until(|stage| !stage.near().is_silent());
    assert_eq!(bytes(stage.read(16)), b"bye");
    assert!(stage.read(16).is_pending());
    let before = stage.woken();
    stage.far.shutdown(std::net::Shutdown::Both).unwrap();
    stage.until(|stage| stage.woken() > before);
    assert_eq!(bytes(stage.read(16)), b"");
}

#[test]
fn peeking_takes_nothing() {
    let mut stage = Stage::new();
    let peek = |stage: &Stage| {
        let mut cx = Context::from_waker(Waker::noop());
        stage.near().poll_peek(&mut cx)
    };
    assert!(peek(&stage).is_pending());
    stage.far.write_all(b"xy").unwrap();
    stage.until(|stage| !stage.near().is_silent());
    assert!(matches!(peek(&stage), Poll::Ready(Ok(Some(b'x')))));
    assert_eq!(bytes(stage.read(16)), b"xy");
    assert!(peek(&stage).is_pending());
    stage.far.shutdown(std::net::Shutdown::Both).unwrap();
    stage.until(|stage| !stage.near().is_silent());
    assert!(matches!(peek(&stage), Poll::Ready(Ok(None))));
}

#[test]
fn a_writer_waits_until_the_other_side_reads() {
    let mut stage = Stage::new();
    let chunk = vec![7; 64 << 10];
    let mut written = 0;
    loop {
        Reactor::begin_turn();
        match stage.write(&chunk) {
            Poll::Ready(Ok(count)) => written += count,
            Poll::Ready(Err(error)) => panic!("{error}"),
            Poll::Pending => break,
        }
    }
    let before = stage.woken();
    let mut far = stage.far.try_clone().unwrap();
    let reader = std::thread::spawn(move || far.read_exact(&mut vec![0; written]));
    stage.until(|stage| stage.woken() > before);
    assert!(stage.write(b"more").is_ready());
    reader.join().unwrap().unwrap();
}

#[test]
fn a_task_that_has_done_enough_gives_way_and_is_woken() {
    let mut stage = Stage::new();
    stage.far.write_all(&[1; 1000]).unwrap();
    stage.until(|stage| !stage.near().is_silent());
    Reactor::begin_turn();
    for _ in 0..OPERATIONS_PER_TURN {
        assert_eq!(bytes(stage.read(1)).len(), 1);
    }
    let before = stage.woken();
    assert!(stage.read(1).is_pending());
    assert_eq!(stage.woken(), before + 1);
    Reactor::begin_turn();
    assert_eq!(bytes(stage.read(1)).len(), 1);
}

#[test]
fn a_lazy_socket_is_looked_at_later_until_nothing_comes() {
    let mut stage = Stage::new();
    stage.near().set_lazy(Some(NAP)).unwrap();
    for round in 0..3 {
        assert!(stage.near().is_lazy() && !stage.near().is_silent());
        assert!(stage.read(16).is_pending(), "round {round}");
        stage.far.write_all(b"abc").unwrap();
        assert_eq!(stage.read_next(16), b"abc");
    }
    // Some naps without input, and the kernel reports again.
    stage.until(|stage| stage.read(16).is_pending() && !stage.near().is_lazy());
    assert!(stage.near().is_silent());
    let before = stage.woken();
    stage.far.write_all(b"d").unwrap();
    stage.until(|stage| stage.woken() > before);
    assert_eq!(stage.read_next(16), b"d");
}

#[test]
fn naps_become_longer_where_little_comes_and_shorter_where_much_does() {
    let mut gathering = Gathering::begin(4 * NAP);
    let shortest = micros(NAP);
    assert_eq!(gathering.nap, shortest);
    assert!(gathering.end_look(Catch::Much));
    assert_eq!(gathering.nap, shortest);
    for expected in [2 * shortest, 4 * shortest, 4 * shortest] {
        assert!(gathering.end_look(Catch::Little));
        assert_eq!(gathering.nap, expected);
    }
    for expected in [2 * shortest, shortest, shortest] {
        gathering.has_filled = true;
        assert!(gathering.end_look(Catch::Nothing));
        assert_eq!(gathering.nap, expected);
    }
    // What was allowed may be taken back, but no nap is shorter than the shortest.
    assert!(gathering.end_look(Catch::Little) && gathering.end_look(Catch::Little));
    gathering.allow(NAP / 2);
    assert!(gathering.end_look(Catch::Little));
    assert_eq!(gathering.nap, shortest);
}

#[test]
fn looks_that_find_nothing_come_to_an_end() {
    let mut gathering = Gathering::begin(NAP);
    for _ in 0..3 {
        for _ in 1..EMPTY_LOOKS {
            assert!(gathering.end_look(Catch::Nothing));
        }
        // Any input at all, and patience is as it was.
        assert!(gathering.end_look(Catch::Little));
    }
    for _ in 1..EMPTY_LOOKS {
        assert!(gathering.end_look(Catch::Nothing));
    }
    assert!(!gathering.end_look(Catch::Nothing));
    assert!(!gathering.end_look(Catch::Nothing));
}

#[test]
fn who_may_nap_for_long_wakes_with_who_may_not() {
    let mut stage = Stage::new();
    let (socket, mut far) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    let patient = LocalSocket::attach(StdSocket::Unix(socket)).unwrap();
    patient.set_lazy(Some(NAP)).unwrap();
    CURRENT.with_borrow_mut(|current| {
        let current = current.as_mut().unwrap();
        current.wake_napping();
        current.slots[patient.slot].gathering.nap = u16::MAX;
        current.nap(patient.slot);
        assert!(current.nap_length > NAP);
    });
    far.write_all(b"abc").unwrap();
    stage.near().set_lazy(Some(NAP)).unwrap();
    let looks = |socket: &LocalSocket| {
        CURRENT.with_borrow(|current| current.as_ref().unwrap().slots[socket.slot].looks)
    };
    stage.until(|stage| looks(stage.near()) == Looks::Now);
    assert_eq!(looks(&patient), Looks::Now);
    let (mut cx, mut buf) = (Context::from_waker(Waker::noop()), [0; 16]);
    assert!(matches!(
        patient.poll_read(&mut cx, &mut buf),
        Poll::Ready(Ok(3))
    ));
}

#[test]
fn what_came_during_a_nap_is_reported_when_it_is_called_off() {
    let mut stage = Stage::new();
    stage.near().set_lazy(Some(NAP)).unwrap();
    stage.far.write_all(b"abc").unwrap();
    stage.near().set_lazy(None).unwrap();
    stage.until(|stage| !stage.near().is_silent());
    assert_eq!(bytes(stage.read(16)), b"abc");
    // The nap that was called off ends without harm.
    stage.far.write_all(b"d").unwrap();
    stage.until(|stage| !stage.near().is_silent());
    assert_eq!(bytes(stage.read(16)), b"d");
}

#[test]
fn a_lazy_reader_sees_the_end() {
    let mut stage = Stage::new();
    stage.near().set_lazy(Some(NAP)).unwrap();
    stage.far.write_all(b"abc").unwrap();
    stage.far.shutdown(std::net::Shutdown::Both).unwrap();
    assert!(stage.read(2).is_pending());
    assert_eq!(stage.read_next(2), b"ab");
    assert_eq!(stage.read_next(2), b"c");
    assert_eq!(stage.read_next(2), b"");
}

#[test]
fn what_was_not_read_travels_along() {
    let mut stage = Stage::new();
    stage.far.write_all(b"left").unwrap();
    stage.until(|stage| !stage.near().is_silent());
    let socket = stage.near.take().unwrap().detach().unwrap();
    let again = std::thread::spawn(move || {
        let (mut reactor, _) = Reactor::enter(EVERY).unwrap();
        let near = LocalSocket::attach(socket).unwrap();
        let began = Instant::now();
        while near.is_silent() {
            assert!(began.elapsed() < PATIENCE);
            wait(&mut reactor);
        }
        let mut buf = [0; 8];
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(count)) = near.poll_read(&mut cx, &mut buf) else {
            panic!("nothing to read");
        };
        buf[..count].to_vec()
    });
    assert_eq!(again.join().unwrap(), b"left");
}

#[test]
fn on_another_thread_a_socket_refuses_everything() {
    let mut stage = Stage::new();
    let near = stage.near.take().unwrap();
    let refused = std::thread::spawn(move || {
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Err(read)) = near.poll_read(&mut cx, &mut [0; 4]) else {
            panic!("it reads");
        };
        assert!(!near.is_silent());
        (read.kind(), near.detach().map(drop).unwrap_err().kind())
    });
    let kinds = refused.join().unwrap();
    assert_eq!(
        kinds,
        (io::ErrorKind::NotConnected, io::ErrorKind::NotConnected)
    );
}

#[test]
fn a_place_is_free_again_when_its_socket_is_closed_or_leaves() {
    let mut stage = Stage::new();
    let places = || CURRENT.with_borrow(|current| current.as_ref().map(|slots| slots.slots.len()));
    assert_eq!(places(), Some(1));
    drop(stage.near.take());
    assert_eq!(places(), Some(0));
    let (near, _far) = UnixStream::pair().unwrap();
    let near = LocalSocket::attach(StdSocket::Unix(near)).unwrap();
    assert_eq!(places(), Some(1));
    near.detach().unwrap();
    assert_eq!(places(), Some(0));
    drop(stage);
    assert_eq!(places(), None);
}

#[test]
fn a_thread_has_one_reactor() {
    let _stage = Stage::new();
    let second = Reactor::enter(EVERY).map(drop);
    assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn the_beat_ends_a_wait_and_comes_again() {
    let (mut reactor, waker) = Reactor::enter(EVERY).unwrap();
    let began = Instant::now();
    let mut beats = 0;
    while beats < 3 {
        assert!(began.elapsed() < PATIENCE, "no beat comes");
        beats += u32::from(wait(&mut reactor));
    }
    assert!(began.elapsed() >= 3 * EVERY, "too soon");
    waker.wake().unwrap();
    assert!(!wait(&mut reactor), "no beat, but the waker");
}
