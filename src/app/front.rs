//! The front: connections are accepted, proved and handed to workers, on threads of their own below the workers' priority.

use std::future::Future as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::watch;

use super::App;
use super::cancel::cancel;
use super::doors::Door;
use crate::client::admission::{KeyHolder, Presence};
use crate::client::forward::Rules;
use crate::client::greeting::Greeting;
use crate::client::login::{Arrival, Caller, LoggedIn, Replication, receive};
use crate::config::{PoolMode, PoolSettings, Settings};
use crate::net::listen::{AcceptError, Accepted, Listener};
use crate::types::{CancelKey, PoolKey};
use crate::worker::mail::{Mail, Newcomer};

/// How long accepting pauses when the process has no descriptor left; PgBouncer pauses as long.
const EXHAUSTED_PAUSE: Duration = Duration::from_secs(5);

/// The same pause when there is no time for that one.
const DRAIN_PAUSE: Duration = Duration::from_millis(20);
/// How long a listener that shares its port stays open for those who have begun to connect: longer than nearly all round trips,
/// and much shorter than the second after which those whom it ignores meanwhile try again.
const HANDSHAKES: Duration = Duration::from_millis(250);

/// A connection that is not yet anybody's, counted from accept on: a graceful end waits for it.
struct Arriving(Arc<App>);

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.arriving.fetch_sub(1, SeqCst);
    }
}

/// Accepts connections until this listener's door closes.
pub async fn accept(app: Arc<App>, listener: Listener, mut door: watch::Receiver<Door>) {
    loop {
        let tcp = app.in_force().blueprint.tcp.clone();
        tokio::select! {
            how = shut(&mut door) => match how {
                Door::Closing => return drain(&app, listener).await,
                _ => return,
            },
            accepted = listener.accept(&tcp) => match accepted {
                Err(AcceptError::Exhausted(error)) => {
                    tracing::warn!("accept() failed: {error}");
                    tokio::select! {
                        () = tokio::time::sleep(EXHAUSTED_PAUSE) => {}
                        _ = shut(&mut door) => {}
                    }
                }
                other => let_in(&app, other),
            },
        }
    }
}

/// How the door is, once it is no longer open. (Its owner outlives the runtime that this runs in.)
async fn shut(door: &mut watch::Receiver<Door>) -> Door {
    let changed = door.wait_for(|door| *door != Door::Open).await;
    changed.map_or(Door::Closed, |door| *door)
}

fn let_in(app: &Arc<App>, accepted: Result<Accepted, AcceptError>) {
    if let Ok(caller) = accepted {
        app.arriving.fetch_add(1, SeqCst);
        let arriving = Arriving(app.clone());
        let mut login = Box::pin(arrive(arriving, caller.into()));
        // Most have said who they are by the time they are accepted, and many need not prove it: those are through after one step. What
        // takes computing comes after a wait.
        let mut no_waker = Context::from_waker(Waker::noop());
        let step = catch_unwind(AssertUnwindSafe(|| login.as_mut().poll(&mut no_waker)));
        if let Ok(Poll::Pending) = step {
            tokio::spawn(login);
        }
    }
}

/// Closes a listener so that nobody is lost who has connected to it, or has begun to where others listen on the same port.
async fn drain(app: &Arc<App>, mut listener: Listener) {
    if listener.is_passed() {
        return; // who waits there is served by whoever is started next
    }
    let in_force = app.in_force();
    let tcp = &in_force.blueprint.tcp;
    // In a drain somebody else listens as well, behind a load balancer.
    if in_force.blueprint.config.settings.so_reuseport || app.is_draining() {
        if let Err(error) = listener.refuse_new() {
            tracing::debug!("{} goes on being chosen: {error}", listener.name());
        }
        let half_connected = async {
            loop {
                let accepted = listener.accept(tcp).await;
                if let Err(AcceptError::Exhausted(_)) = accepted {
                    tokio::time::sleep(DRAIN_PAUSE).await;
                }
                let_in(app, accepted);
            }
        };
        let _ = tokio::time::timeout(HANDSHAKES, half_connected).await;
    }
    while let Some(accepted) = listener.accept_waiting(tcp) {
        if let Err(AcceptError::Exhausted(_)) = accepted {
            break;
        }
        let_in(app, accepted);
    }
}

async fn arrive(arriving: Arriving, caller: Caller) {
    let app = &arriving.0;
    let desk = app.in_force().desk.clone();
    match receive(caller, &desk, &app.admission, &**app).await {
        Some(Arrival::Client(client)) => hand_over(app, client),
        Some(Arrival::Console(console)) => drop(app.console_arrivals.send(Box::new(console))),
        Some(Arrival::Cancel { key, stream }) => cancel(app, key, stream).await,
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
    let cancel_key = app.new_key(KeyHolder::Client(worker as u32, guest.id));
    let newcomer = Newcomer {
        leftover: guest.leftover,
        id: guest.id,
        limits: config.client_limits(&client.database, &client.login_user),
        login_user: client.login_user,
        peer: guest.peer,
        local: guest.local,
        connected: guest.connected,
        connect_time: guest.connected_at,
        tls: guest.tls,
        replication: client.replication,
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
        presence: Presence::new(guest.guards, cancel_key),
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
