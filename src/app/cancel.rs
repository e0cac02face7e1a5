//! Cancel keys and cancel requests: a request's key leads to one of our own clients, to a console, or to a peer ([`super::peers`]).
//!
//! Nothing is ever said to whom a request comes from; its connection is closed when the request has come to its end.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::App;
use super::peers::Terms;
use crate::client::admission::KeyHolder;
use crate::client::who::Who;
use crate::config::Settings;
use crate::net::stream::{PeerAddr, Stream};
use crate::pool::recipe::Blueprint;
use crate::server::connect;
use crate::types::{CancelKey, ConnId};
use crate::worker::mail::{CancelAim, CancelAnswer, Mail};

/// How often a cancel request that finds too many others on their way tries again.
const RETRY: Duration = Duration::from_millis(50);
/// How long a client that has asked for a cancellation may take to hear that its connection ends.
const GOODBYE: Duration = Duration::from_secs(2);

impl App {
    /// A new cancel key: random, and of this process in its group.
    pub(super) fn new_key(&self, holder: KeyHolder) -> CancelKey {
        let peer_id = self.in_force().blueprint.config.settings.peer_id;
        loop {
            let mut random = [0; 8];
            if getrandom::fill(&mut random).is_err() {
                // Without randomness a key could be guessed: one that nobody is told apart by is never entered.
                return CancelKey(random);
            }
            let key = CancelKey::new(random, peer_id);
            if self.admission.enter_key(key, holder) {
                return key;
            }
        }
    }

    /// Whom a key belongs to, and the key as that one was given it. A peer that has forwarded a request has changed the key by that; and keys given out under another
    /// `peer_id`, or under none, stay good as long as their clients do.
    fn holder(&self, key: CancelKey) -> Option<(CancelKey, KeyHolder)> {
        let mut candidates = [key, key.as_given_out()].into_iter();
        candidates.find_map(|key| Some((key, self.admission.key_holder(key)?)))
    }
}

/// Deals with a cancel request, and closes the connection that brought it, without a word.
pub async fn cancel(app: &Arc<App>, key: CancelKey, mut stream: Stream) {
    let came = Instant::now();
    let (peer_id, reason) = follow(app, key).await;
    log_end(app, &stream, peer_id, reason, came);
    // Over TLS the client wants to be told properly that this is the end. One that does not listen is not waited for.
    let _ = tokio::time::timeout(GOODBYE, stream.shutdown()).await;
}

/// Takes a request to where its key leads. Gives the peer, if that is another process, and what has become of the request.
async fn follow(app: &Arc<App>, key: CancelKey) -> (Option<u16>, &'static str) {
    let reason = match app.holder(key) {
        Some((_, KeyHolder::Client(worker, client))) => {
            cancel_query(app, worker as usize, client).await
        }
        Some((key, KeyHolder::Console)) if app.consoles.cancel(&key.0) => {
            "successfully sent cancel request"
        }
        Some((_, KeyHolder::Console)) => "failed cancel request",
        None => return forward(app, key).await,
    };
    (None, reason)
}

/// Sends a request on to the process of the group that gave the key out.
async fn forward(app: &App, key: CancelKey) -> (Option<u16>, &'static str) {
    let in_force = app.in_force();
    let settings = &in_force.blueprint.config.settings;
    if settings.peer_id == 0 || settings.peer_id == key.peer_id() {
        return (None, "failed cancel request");
    }
    let Some(key) = key.forwarded() else {
        let reason = "failed to forward cancel request because its TTL was exhausted";
        return (None, reason);
    };
    let Some(peer) = app.peers.get(key.peer_id()) else {
        return (None, "could not find peer to forward request to");
    };
    let terms = terms(settings, &in_force.blueprint);
    (Some(key.peer_id()), peer.forward(key, &terms).await)
}

fn terms(settings: &Settings, blueprint: &Blueprint) -> Terms {
    Terms {
        dns: blueprint.dns.clone(),
        tcp: blueprint.tcp.clone(),
        patience: settings.cancel_wait_timeout,
        log_connections: settings.log_connections,
        log_disconnections: settings.log_disconnections,
    }
}

async fn cancel_query(app: &Arc<App>, worker: usize, client: ConnId) -> &'static str {
    let patience = app.in_force().blueprint.config.settings.cancel_wait_timeout;
    let began = Instant::now();
    loop {
        let (reply, answer) = oneshot::channel();
        if app.mailboxes[worker]
            .send(Mail::Cancel(client, reply))
            .is_err()
        {
            return "failed cancel request";
        }
        match answer.await {
            Ok(CancelAnswer::Aim(aim)) => return deliver(aim).await,
            Ok(CancelAnswer::Busy) if patience.is_zero() || began.elapsed() < patience => {
                tokio::time::sleep(RETRY).await
            }
            Ok(CancelAnswer::Busy) => return "cancel_wait_timeout",
            Ok(CancelAnswer::Nothing) | Err(_) => return "cancel request for idle client",
        }
    }
}

async fn deliver(aim: CancelAim) -> &'static str {
    let sent =
        connect::cancel_at(aim.target, aim.addr, aim.tcp, aim.tls, aim.key, aim.timeout).await;
    drop(aim.guard); // from here on the server may serve others
    if sent.is_ok() {
        "successfully sent cancel request"
    } else {
        "failed cancel request"
    }
}

fn log_end(app: &App, stream: &Stream, peer_id: Option<u16>, reason: &str, came: Instant) {
    let in_force = app.in_force();
    let settings = &in_force.blueprint.config.settings;
    let (true, Ok(peer)) = (settings.log_disconnections, stream.peer_addr()) else {
        return;
    };
    let who = Who {
        id: ConnId::next(),
        database: None,
        user: None,
        peer,
        listen_port: settings.listen_port,
    };
    let who = Asker { who, peer_id };
    let age = came.elapsed().as_secs();
    tracing::info!(%who, "closing because: {reason} (age={age}s)");
}

/// The log prefix of whoever asks: `C-0x…: peer-2@host:port` when the request went on to a peer, else that of any client.
struct Asker<'a> {
    who: Who<'a>,
    peer_id: Option<u16>,
}

impl fmt::Display for Asker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(peer_id) = self.peer_id else {
            return self.who.fmt(f);
        };
        let Who { id, peer, .. } = self.who;
        write!(f, "C-{id}: peer-{peer_id}@{peer}")?;
        match peer {
            PeerAddr::Tcp(_) => Ok(()),
            PeerAddr::Unix { .. } => write!(f, ":{}", self.who.listen_port),
        }
    }
}
