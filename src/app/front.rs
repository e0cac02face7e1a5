//! The front: connections are accepted, proved and handed to workers, on threads of their own below the workers' priority.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::{App, KeyHolder};
use crate::client::forward::Rules;
use crate::client::greeting::Greeting;
use crate::client::login::{Arrival, LoggedIn, Replication, receive};
use crate::client::who::Who;
use crate::config::{PoolMode, PoolSettings, Settings};
use crate::net::listen::{AcceptError, Listener};
use crate::net::stream::Stream;
use crate::server::connect;
use crate::types::{CancelKey, ConnId, PoolKey};
use crate::worker::mail::{CancelAim, CancelAnswer, Mail, Newcomer};

/// How long accepting pauses when the process has no descriptor left; PgBouncer pauses as long.
const EXHAUSTED_PAUSE: Duration = Duration::from_secs(5);
/// How often a cancel request that finds too many others on their way tries again.
const CANCEL_RETRY: Duration = Duration::from_millis(50);

/// How long a client that has asked for a cancellation may take to hear that its connection ends.
const CANCEL_GOODBYE: Duration = Duration::from_secs(2);

/// What is given back when a client has gone.
struct Guards {
    _admission: crate::client::login::Guards,
    _key: KeyGuard,
}

struct KeyGuard {
    app: Arc<App>,
    key: CancelKey,
}

impl Drop for KeyGuard {
    fn drop(&mut self) {
        self.app.cancel_keys.lock().remove(&self.key);
    }
}

/// Accepts connections until `closing` says that this listener is to be closed.
pub async fn accept(app: Arc<App>, listener: Listener, mut closing: watch::Receiver<bool>) {
    loop {
        let tcp = app.in_force().blueprint.tcp.clone();
        tokio::select! {
            () = closed(&mut closing) => return,
            accepted = listener.accept(&tcp) => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(arrive(app.clone(), stream))),
                Err(AcceptError::Exhausted(error)) => {
                    tracing::warn!("accept() failed: {error}");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
                Err(AcceptError::Connection(_)) => {}
            },
        }
    }
}

async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

fn replication_word(replication: Replication) -> &'static str {
    match replication {
        Replication::None => "none",
        Replication::Logical => "logical",
        Replication::Physical => "physical",
    }
}

async fn arrive(app: Arc<App>, stream: Stream) {
    let desk = app.in_force().desk.clone();
    match receive(stream, &desk, &app.admission, &*app).await {
        Some(Arrival::Client(client)) => hand_over(&app, client),
        Some(Arrival::Console(console)) => drop(app.console_arrivals.send(Box::new(console))),
        Some(Arrival::Cancel { key, stream }) => cancel(&app, key, stream).await,
        None => {}
    }
}

/// A client has proved its identity: it goes to the worker that has fewest of its pool.
fn hand_over(app: &Arc<App>, client: LoggedIn) {
    let guest = client.guest;
    let in_force = app.in_force();
    let config = &in_force.blueprint.config;
    if client.database.auto {
        app.note_autodb(&client.database);
    }
    let key = PoolKey {
        database: client.database.name.clone(),
        user: client.server_user.clone(),
    };
    let settings = config.pool_settings(&client.database, &key.user);
    let share = app.budget.pool(&key, &settings);
    share.show_credentials(&client.credentials);
    let (worker, seat) = share.seat();
    let cancel_key = app.new_key(KeyHolder::Client(worker, guest.id));
    let newcomer = Newcomer {
        leftover: guest.leftover,
        id: guest.id,
        limits: config.client_limits(&client.database, &client.login_user),
        login_user: client.login_user,
        peer: guest.peer,
        connected: guest.connected,
        connect_time: guest.connected_at,
        tls: guest.tls,
        replication: replication_word(client.replication),
        params: guest.params,
        rules: rules(&config.settings, &settings, client.replication),
        greeting: greeting(
            guest.greeting,
            cancel_key,
            &settings,
            &config.settings,
            client.replication,
            client.startup_options,
        ),
        recipe: in_force.blueprint.recipe(&client.database),
        share,
        settings,
        guards: Box::new(Guards {
            _admission: guest.guards,
            _key: KeyGuard {
                app: app.clone(),
                key: cancel_key,
            },
        }),
        seat,
        stream: guest.stream,
    };
    // A worker that is gone takes the client with it: the process is ending.
    let _ = app.mailboxes[worker].send(Mail::Client(Box::new(newcomer)));
}

fn rules(settings: &Settings, pool: &PoolSettings, replication: Replication) -> Rules {
    let pooled = pool.pool_mode != PoolMode::Session && replication == Replication::None;
    Rules {
        rewrite: pooled && pool.max_prepared_statements > 0,
        max_prepared: pool.max_prepared_statements as usize,
        max_packet_size: settings.max_packet_size,
        refuse_simple: settings.disable_pqexec,
    }
}

fn greeting(
    prefix: Vec<u8>,
    key: CancelKey,
    pool: &PoolSettings,
    settings: &Settings,
    replication: Replication,
    startup: Vec<(Vec<u8>, Vec<u8>)>,
) -> Greeting {
    let replication = match replication {
        Replication::None => None,
        Replication::Logical => Some(b"database".to_vec()),
        Replication::Physical => Some(b"yes".to_vec()),
    };
    Greeting {
        prefix,
        key,
        pool_mode: pool.pool_mode.to_string(),
        max_prepared: pool.max_prepared_statements,
        notice: settings.login_notify_message.clone(),
        replication: replication.map(|word| {
            let mut startup = startup;
            startup.push((b"replication".to_vec(), word));
            startup
        }),
    }
}

impl App {
    /// A new cancel key: random, the sign bit of its first byte clear.
    pub(super) fn new_key(&self, holder: KeyHolder) -> CancelKey {
        loop {
            let mut bytes = [0; 8];
            if getrandom::fill(&mut bytes).is_err() {
                // Without randomness a key could be guessed: one that nobody is told apart by is never entered.
                return CancelKey(bytes);
            }
            bytes[0] &= 0x7f;
            let key = CancelKey(bytes);
            let mut keys = self.cancel_keys.lock();
            if let std::collections::hash_map::Entry::Vacant(free) = keys.entry(key) {
                free.insert(holder);
                return key;
            }
        }
    }
}

/// Delivers a cancel request and closes the connection that brought it, without a word.
async fn cancel(app: &Arc<App>, key: CancelKey, mut stream: Stream) {
    let holder = app.cancel_keys.lock().get(&key).copied();
    let reason = match holder {
        Some(KeyHolder::Client(worker, client)) => cancel_query(app, worker, client).await,
        Some(KeyHolder::Console) if app.consoles.cancel(&key.0) => {
            "successfully sent cancel request"
        }
        _ => "failed cancel request",
    };
    let settings = &app.in_force().blueprint.config.settings;
    if settings.log_disconnections
        && let Ok(peer) = stream.peer_addr()
    {
        let who = Who {
            id: ConnId::next(),
            database: None,
            user: None,
            peer,
            listen_port: settings.listen_port,
        };
        tracing::info!(%who, "closing because: {reason} (age=0s)");
    }
    // Over TLS the client wants to be told properly that this is the end. One that does not listen is not waited for.
    let _ = tokio::time::timeout(CANCEL_GOODBYE, stream.shutdown()).await;
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
                tokio::time::sleep(CANCEL_RETRY).await
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
