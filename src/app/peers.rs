//! The other processes of a group, and cancel requests on their way to them.
//!
//! A client behind a load balancer (or a port shared with `so_reuseport`) may send its cancel request to another process than the
//! one that runs its query. The key says which one gave it out ([`CancelKey::peer_id`]), and the request goes on to that one as
//! it came, less one forwarding. PgBouncer does the same with the same keys, so a group may be mixed. As there, peers are
//! spoken to without TLS: where the network is not trusted, a Unix socket directory is the better `host`.
//!
//! Anybody can send requests that bear a peer's number, so everything here is bounded: connections by `pool_size`, requests by
//! [`QUEUE_MAX`], each one's time by `cancel_wait_timeout`. What a key means at home is [`super::cancel`]'s business.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::admin::rows::PeerPoolRow;
use crate::config::{Config, Peer, Settings};
use crate::net::stream::Stream;
use crate::net::unix::SocketPath;
use crate::net::{Resolver, Target, TcpOptions, dial};
use crate::types::{CancelKey, ConnId};
use crate::wire::build;

/// Requests for one peer that may be under way, those that wait for a connection included. More are dropped.
pub const QUEUE_MAX: usize = 1024;
/// Connections to one peer where `pool_size` says "unlimited".
pub const CONNECTIONS_MAX: u32 = 256;
/// Stands in for a `cancel_wait_timeout` of zero: a silent peer would hold its connections for ever.
const PATIENCE_FALLBACK: Duration = Duration::from_secs(30);
/// How soon a peer that can't be reached is tried again, for each request.
const RETRY: Duration = Duration::from_millis(250);

/// Why a request ends that could not be delivered in time.
const TOO_LATE: &str = "cancel_wait_timeout";

/// One peer: how it is reached, and what is on its way to it.
#[derive(Debug)]
pub struct PeerPool {
    id: u16,
    entry: Peer,
    size: u32,
    target: Target,
    connections: Semaphore,
    requests: AtomicUsize,
    dialling: AtomicUsize,
    carrying: AtomicUsize,
}

/// All peers by their numbers. The lock is held for a look-up, never across an `await`.
#[derive(Debug, Default)]
pub struct Peers(Mutex<BTreeMap<u16, Arc<PeerPool>>>);

/// Adds one until dropped.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Counted<'a> {
        count.fetch_add(1, Relaxed);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Peers {
    /// Makes these the peers. One that stays as it was keeps its counts; requests on their way to one that is gone arrive.
    pub fn renew(&self, config: &Config) {
        let mut peers = self.0.lock();
        let mut before = std::mem::take(&mut *peers);
        for (&id, entry) in &config.peers {
            let size = size(entry, &config.settings);
            let same = before
                .remove(&id)
                .filter(|peer| peer.entry == *entry && peer.size == size);
            peers.insert(
                id,
                same.unwrap_or_else(|| Arc::new(PeerPool::new(id, entry, size))),
            );
        }
    }

    /// The peer with this number.
    pub fn get(&self, id: u16) -> Option<Arc<PeerPool>> {
        self.0.lock().get(&id).cloned()
    }

    /// The rows of SHOW PEER_POOLS.
    pub fn rows(&self) -> Vec<PeerPoolRow> {
        self.0.lock().values().map(|peer| peer.row()).collect()
    }
}

fn size(entry: &Peer, settings: &Settings) -> u32 {
    match entry.pool_size.unwrap_or(settings.default_pool_size) {
        0 => CONNECTIONS_MAX,
        size => size.min(CONNECTIONS_MAX),
    }
}

/// What forwarding goes by.
pub struct Terms {
    /// Who knows the addresses of host names.
    pub dns: Resolver,
    /// Options of TCP sockets.
    pub tcp: TcpOptions,
    /// `cancel_wait_timeout`.
    pub patience: Duration,
    /// Log what succeeds.
    pub log_connections: bool,
    /// Log how connections end.
    pub log_disconnections: bool,
}

impl PeerPool {
    fn new(id: u16, entry: &Peer, size: u32) -> PeerPool {
        let host = &entry.host;
        let target = if host.starts_with(['/', '@']) {
            let path = SocketPath::new(host, entry.port);
            Target::Unix { path }
        } else {
            let (host, port) = (host.clone(), entry.port);
            Target::Tcp { host, port }
        };
        PeerPool {
            id,
            entry: entry.clone(),
            size,
            target,
            connections: Semaphore::new(size as usize),
            requests: AtomicUsize::new(0),
            dialling: AtomicUsize::new(0),
            carrying: AtomicUsize::new(0),
        }
    }

    fn row(&self) -> PeerPoolRow {
        let carrying = self.carrying.load(Relaxed) as u64;
        let requests = self.requests.load(Relaxed) as u64;
        PeerPoolRow {
            peer_id: self.id,
            cl_active_cancel_req: carrying,
            cl_waiting_cancel_req: requests.saturating_sub(carrying),
            sv_active_cancel: carrying,
            sv_login: self.dialling.load(Relaxed) as u64,
        }
    }

    /// Takes a request to the peer, and says how that ended: the reason for which its client's connection is closed.
    pub async fn forward(&self, key: CancelKey, terms: &Terms) -> &'static str {
        let request = Counted::new(&self.requests);
        if self.requests.load(Relaxed) > QUEUE_MAX {
            return "failed cancel request";
        }
        let patience = match terms.patience {
            Duration::ZERO => PATIENCE_FALLBACK,
            patience => patience,
        };
        let deadline = Instant::now() + patience;
        let Ok(connected) = timeout_at(deadline, self.reach(terms)).await else {
            return TOO_LATE;
        };
        let Some((stream, _place, who)) = connected else {
            return "failed cancel request";
        };
        let _carrying = Counted::new(&self.carrying);
        let delivered = timeout_at(deadline, deliver(stream, key)).await;
        let reason = match delivered {
            Ok(Ok(())) => "successfully sent cancel request",
            Ok(Err(_)) => "failed cancel request",
            Err(_) => TOO_LATE,
        };
        if terms.log_disconnections {
            tracing::info!(%who, "closing because: {reason} (age={}s)", who.age());
        }
        drop(request);
        reason
    }

    /// A connection to the peer, as soon as there is a place and it can be reached. Ends only with the caller's patience.
    async fn reach(&self, terms: &Terms) -> Option<(Stream, SemaphorePermit<'_>, Carrier<'_>)> {
        loop {
            // Only ever closed when dropped.
            let place = self.connections.acquire().await.ok()?;
            let who = Carrier {
                id: ConnId::next(),
                peer: self,
                since: Instant::now(),
            };
            let dialled = {
                let _dialling = Counted::new(&self.dialling);
                dial(&self.target, &terms.dns, &terms.tcp, PATIENCE_FALLBACK).await
            };
            match dialled {
                Ok(stream) => {
                    log_connected(&stream, &who, terms);
                    return Some((stream, place, who));
                }
                Err(error) => {
                    drop(place);
                    tracing::debug!(%who, "connect failed: {error}");
                    if terms.log_disconnections {
                        tracing::info!(%who, "closing because: connect failed (age={}s)", who.age());
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

fn log_connected(stream: &Stream, who: &Carrier<'_>, terms: &Terms) {
    if !terms.log_connections {
        return;
    }
    match stream.local_addr().ok().flatten() {
        Some(local) => tracing::info!(%who, "new connection to server (from {local})"),
        None => tracing::info!(%who, "new connection to server"),
    }
}

/// Sends the request and waits until the peer closes, which it does when the request has come to its end there. Whatever it
/// says meanwhile means nothing.
async fn deliver(mut stream: Stream, key: CancelKey) -> std::io::Result<()> {
    let mut packet = Vec::new();
    build::cancel_request(&mut packet, &key.0);
    stream.write_all(&packet).await?;
    let mut ignored = [0; 256];
    while stream.read_some(&mut ignored).await? > 0 {}
    Ok(())
}

/// The log prefix of a connection to a peer: `S-0x…: peer-2@127.0.0.1:6432`.
struct Carrier<'a> {
    id: ConnId,
    peer: &'a PeerPool,
    since: Instant,
}

impl Carrier<'_> {
    fn age(&self) -> u64 {
        self.since.elapsed().as_secs()
    }
}

impl fmt::Display for Carrier<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S-{}: peer-{}@", self.id, self.peer.id)?;
        match &self.peer.target {
            Target::Unix { .. } => write!(f, "unix:{}", self.peer.entry.port),
            Target::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Target::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn pool(host: &str, port: u16, size: u32) -> PeerPool {
        let entry = Peer {
            host: host.to_owned(),
            port,
            pool_size: None,
        };
        PeerPool::new(2, &entry, size)
    }

    fn terms(patience_ms: u64) -> Terms {
        Terms {
            dns: Resolver::default(),
            tcp: TcpOptions::default(),
            patience: Duration::from_millis(patience_ms),
            log_connections: true,
            log_disconnections: true,
        }
    }

    #[test]
    fn a_reload_keeps_what_has_not_changed() {
        let mut config = Config::default();
        let entry = |host: &str| Peer {
            host: host.to_owned(),
            ..Peer::new()
        };
        config.peers = [(1, entry("a")), (2, entry("b")), (3, entry("c"))].into();
        let peers = Peers::default();
        peers.renew(&config);
        let (first, second) = (peers.get(1).unwrap(), peers.get(2).unwrap());
        config.peers.remove(&3);
        config.peers.insert(2, entry("B"));
        peers.renew(&config);
        assert!(Arc::ptr_eq(&first, &peers.get(1).unwrap()));
        assert!(!Arc::ptr_eq(&second, &peers.get(2).unwrap()));
        assert!(peers.get(3).is_none());
        assert_eq!(peers.rows().len(), 2);
    }

    #[test]
    fn names_in_the_log() {
        let shown = |host: &str| {
            let peer = pool(host, 6432, 1);
            let carrier = Carrier {
                id: ConnId(1),
                peer: &peer,
                since: Instant::now(),
            };
            let text = carrier.to_string();
            text.split_once(": ").map(|(_, rest)| rest.to_owned())
        };
        assert_eq!(shown("h").as_deref(), Some("peer-2@h:6432"));
        assert_eq!(shown("::1").as_deref(), Some("peer-2@[::1]:6432"));
        assert_eq!(shown("/tmp").as_deref(), Some("peer-2@unix:6432"));
    }

    #[tokio::test]
    async fn connections_and_requests_are_bounded_and_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let peer = Arc::new(pool("127.0.0.1", port, 2));
        let key = CancelKey([1; 8]);
        let mut sent = tokio::task::JoinSet::new();
        for _ in 0..QUEUE_MAX + 5 {
            let peer = peer.clone();
            sent.spawn(async move { peer.forward(key, &terms(600)).await });
        }
        // The peer takes connections and never closes them.
        let mut held = Vec::new();
        for _ in 0..2 {
            held.push(listener.accept().await.unwrap());
        }
        let mut packet = [0; 16];
        held[0].0.read_exact(&mut packet).await.unwrap();
        assert_eq!(packet[8..], key.0);
        let row = peer.row();
        assert_eq!((row.sv_active_cancel, row.sv_login), (2, 0), "{row:?}");
        assert_eq!(row.cl_waiting_cancel_req, QUEUE_MAX as u64 - 2);
        let reasons = sent.join_all().await;
        let count = |reason| reasons.iter().filter(|r| **r == reason).count();
        assert_eq!(count("failed cancel request"), 5);
        assert_eq!(count(TOO_LATE), QUEUE_MAX);
        let idle = PeerPoolRow {
            peer_id: 2,
            ..PeerPoolRow::default()
        };
        assert_eq!(peer.row(), idle);
    }

    #[tokio::test]
    async fn a_peer_that_comes_late_or_babbles_is_no_matter() {
        let reserved = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = reserved.local_addr().unwrap().port();
        drop(reserved);
        let peer = pool("127.0.0.1", port, 1);
        let terms = terms(20_000);
        let late = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 16]).await.unwrap();
            stream.write_all(&[b'x'; 1000]).await.unwrap();
        };
        let (reason, ()) = tokio::join!(peer.forward(CancelKey([1; 8]), &terms), late);
        assert_eq!(reason, "successfully sent cancel request");
    }
}
