//! A listener that several workers accept from, each in its own reactor, while whoever has opened it keeps it.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use socket2::Socket;

use super::adopt::accept;
use super::{AcceptError, Accepted, BoundListener, Nature};
use crate::net::options::TcpOptions;
use crate::net::reactor::Doorbell;

/// A share of a listener, on its way to a worker.
#[derive(Debug)]
pub struct SharedListener {
    socket: Arc<Socket>,
    nature: Nature,
}

/// A share of a listener, in the reactor of this thread. Dropping it ends this worker's watch, and nobody else's.
#[derive(Debug)]
pub struct WatchedListener {
    doorbell: Doorbell<Arc<Socket>>,
    nature: Nature,
}

impl BoundListener {
    /// A share for a worker. The listener is closed when the last share and this are gone.
    ///
    /// # Errors
    /// The system's.
    pub fn share(&self) -> io::Result<SharedListener> {
        Ok(SharedListener {
            nature: self.prepare()?,
            socket: self.socket.clone(),
        })
    }

    /// Was it passed to us? See [`Listener::is_passed`](super::Listener::is_passed).
    pub fn is_passed(&self) -> bool {
        self.is_passed
    }
}

impl SharedListener {
    /// Has this thread's reactor watch it.
    ///
    /// # Errors
    /// The reactor can't watch more, or there is none.
    pub fn watch(self) -> io::Result<WatchedListener> {
        Ok(WatchedListener {
            doorbell: Doorbell::watch(self.socket)?,
            nature: self.nature,
        })
    }
}

impl WatchedListener {
    /// Ends this thread's watch.
    pub fn unwatch(self) -> SharedListener {
        SharedListener {
            socket: self.doorbell.get_ref().clone(),
            nature: self.nature,
        }
    }

    /// The next client, with `options` set on its socket if that is TCP. At most one for each look at the reactor: who waits behind it
    /// comes after the sockets that have input meanwhile, or goes to another worker.
    ///
    /// # Errors
    /// See [`AcceptError`].
    pub fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
        options: &TcpOptions,
    ) -> Poll<Result<Accepted, AcceptError>> {
        if !self.doorbell.take_ring(cx) {
            return Poll::Pending;
        }
        match accept(self.doorbell.get_ref()) {
            Ok((socket, peer)) => {
                let adopted = self.nature.adopt(socket, &peer, options);
                Poll::Ready(adopted.map_err(AcceptError::Connection))
            }
            // Another worker was faster: the next ring tells.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(AcceptError::from_accept(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::{SocketAddr, TcpStream};
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::sync::mpsc::{Sender, channel};
    use std::task::Waker;
    use std::time::{Duration, Instant};

    use super::super::{ListenOptions, bind_tcp};
    use super::*;
    use crate::net::reactor::Reactor;
    use crate::net::stream::PeerAddr;

    const SOON: Duration = Duration::from_secs(20);

    fn listener() -> (BoundListener, SocketAddr) {
        let mut options = ListenOptions::default();
        options.tcp.defer_accept = false;
        let listener = bind_tcp("127.0.0.1", 0, &options).listeners.pop().unwrap();
        let addr = listener.name().parse().unwrap();
        (listener, addr)
    }

    /// One look at the reactor, and whoever is let in after it.
    fn look(reactor: &mut Reactor, listener: &mut WatchedListener) -> Option<PeerAddr> {
        reactor.wait(Some(Duration::from_millis(10))).unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        match listener.poll_accept(&mut cx, &TcpOptions::default()) {
            Poll::Ready(accepted) => Some(accepted.unwrap().peer),
            Poll::Pending => None,
        }
    }

    /// Lets clients in until told to stop, on a thread of its own.
    fn watcher(
        shared: SharedListener,
        seen: Sender<PeerAddr>,
        stop: Arc<AtomicBool>,
    ) -> impl FnOnce() {
        move || {
            let (mut reactor, _waker) = Reactor::enter().unwrap();
            let mut listener = shared.watch().unwrap();
            while !stop.load(Relaxed) {
                if let Some(peer) = look(&mut reactor, &mut listener) {
                    seen.send(peer).unwrap();
                }
            }
        }
    }

    #[test]
    fn everybody_is_let_in_once_by_somebody() {
        let (listener, addr) = listener();
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, peers) = channel();
        let watchers: Vec<_> = (0..3)
            .map(|_| {
                let shared = listener.share().unwrap();
                std::thread::spawn(watcher(shared, seen.clone(), stop.clone()))
            })
            .collect();
        let clients: Vec<_> = (0..100)
            .map(|_| TcpStream::connect(addr).unwrap())
            .collect();
        let expected: HashSet<_> = clients
            .iter()
            .map(|client| PeerAddr::Tcp(client.local_addr().unwrap()))
            .collect();
        let mut got = HashSet::new();
        while got.len() < expected.len() {
            assert!(got.insert(peers.recv_timeout(SOON).unwrap()), "twice");
        }
        assert_eq!(got, expected);
        stop.store(true, Relaxed);
        watchers
            .into_iter()
            .for_each(|watcher| watcher.join().unwrap());
    }

    #[test]
    fn who_has_stopped_watching_leaves_clients_to_others() {
        let (listener, addr) = listener();
        let (mut reactor, _waker) = Reactor::enter().unwrap();
        let first = listener.share().unwrap().watch().unwrap().unwatch();
        let client = TcpStream::connect(addr).unwrap();
        let mut second = listener.share().unwrap().watch().unwrap();
        let began = Instant::now();
        let found = loop {
            assert!(began.elapsed() < SOON);
            if let Some(peer) = look(&mut reactor, &mut second) {
                break peer;
            }
        };
        assert_eq!(found, PeerAddr::Tcp(client.local_addr().unwrap()));
        // The listener is closed with its last share.
        drop((listener, first));
        let late = TcpStream::connect(addr).unwrap();
        while look(&mut reactor, &mut second).is_none() {
            assert!(began.elapsed() < SOON);
        }
        drop((second, late));
        assert!(TcpStream::connect(addr).is_err());
    }

    #[test]
    fn nothing_is_watched_without_a_reactor() {
        let (listener, _) = listener();
        assert!(listener.share().unwrap().watch().is_err());
    }
}
