//! The front: who comes in, proves who it is and is handed to a worker. Workers let clients in and take their logins forward
//! ([`crate::worker::arrivals`]); what takes long goes aside to threads below the workers' priority.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::App;
use super::cancel::cancel;
use super::doors::Door;
use crate::client::admission::{KeyHolder, Presence};
use crate::client::forward::Rules;
use crate::client::greeting::Greeting;
use crate::client::login::aside::{self, Login, WayAside};
use crate::client::login::{Arrival, Caller, ConsoleLogin, LoggedIn, Replication, receive};
use crate::config::{PoolMode, PoolSettings, Settings};
use crate::net::listen::{AcceptError, Accepted, BoundListener};
use crate::net::options::TcpOptions;
use crate::types::{CancelKey, PoolKey, WorkerId};
use crate::worker::arrivals::{Doorman, Reception};
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

impl Arriving {
    fn new(app: &Arc<App>) -> Arriving {
        app.arriving.fetch_add(1, SeqCst);
        Arriving(app.clone())
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.arriving.fetch_sub(1, SeqCst);
    }
}

/// Has the workers let clients in until this listener's door closes.
pub async fn accept(app: Arc<App>, listener: BoundListener, mut door: watch::Receiver<Door>) {
    loop {
        match by_workers(&app, &listener, &mut door).await {
            Ended::Shut(Door::Closing) => return drain(&app, listener).await,
            Ended::Shut(_) => return,
            Ended::Exhausted(error) => {
                if let Some(error) = error {
                    tracing::warn!("accept() failed: {error}");
                }
                tokio::select! {
                    () = tokio::time::sleep(EXHAUSTED_PAUSE) => {}
                    _ = shut(&mut door) => {}
                }
            }
        }
    }
}

/// Why nobody lets clients in any more.
enum Ended {
    /// The door is like this now.
    Shut(Door),
    /// The process lacks something; `None`: the workers have gone.
    Exhausted(Option<io::Error>),
}

/// Lets clients in, on every worker at once. When this returns no worker does, and everybody whom they have let in is counted.
async fn by_workers(
    app: &Arc<App>,
    listener: &BoundListener,
    door: &mut watch::Receiver<Door>,
) -> Ended {
    let recall = watch::Sender::new(false);
    let aside = WayAside::default();
    let (report, mut reports) = mpsc::unbounded_channel();
    for mailbox in &app.mailboxes {
        let doorman = match listener.share() {
            Ok(listener) => Doorman {
                listener,
                reception: Arc::new(Porch(app.clone())),
                aside: aside.clone(),
                recalled: recall.subscribe(),
                report: report.clone(),
            },
            Err(error) => {
                let _ = report.send(error);
                continue;
            }
        };
        // A worker that is gone lets nobody in: the process is ending.
        let _ = mailbox.send(Mail::Doorman(Box::new(doorman)));
    }
    drop(report);
    let ended = tokio::select! {
        how = shut(door) => Ended::Shut(how),
        error = reports.recv() => Ended::Exhausted(error),
    };
    recall.send_replace(true);
    while reports.recv().await.is_some() {}
    ended
}

/// Where workers leave those whom they have let in.
struct Porch(Arc<App>);

impl Reception for Porch {
    fn tcp_options(&self) -> TcpOptions {
        self.0.in_force().blueprint.tcp.clone()
    }

    fn receive(&self, caller: Accepted, worker: WorkerId) -> Login {
        let arriving = Arriving::new(&self.0);
        Box::pin(arrive(arriving, caller.into(), Some(worker)))
    }
}

/// How the door is, once it is no longer open. (Its owner outlives the runtime that this runs in.)
async fn shut(door: &mut watch::Receiver<Door>) -> Door {
    let changed = door.wait_for(|door| *door != Door::Open).await;
    changed.map_or(Door::Closed, |door| *door)
}

fn let_in(app: &Arc<App>, accepted: Result<Accepted, AcceptError>) {
    if let Ok(caller) = accepted {
        tokio::spawn(arrive(Arriving::new(app), caller.into(), None));
    }
}

/// Closes a listener so that nobody is lost who has connected to it, or has begun to where others listen on the same port.
async fn drain(app: &Arc<App>, listener: BoundListener) {
    if listener.is_passed() {
        return; // who waits there is served by whoever is started next
    }
    let mut listener = match listener.attach() {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!("nobody more is let in: {error}"),
    };
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

/// A login from its first byte to the hand-over, begun on a worker or on a login thread (`None`).
async fn arrive(arriving: Arriving, caller: Caller, worker: Option<WorkerId>) {
    let app = &arriving.0;
    let desk = app.in_force().desk.clone();
    match receive(caller, &desk, &app.admission, &**app).await {
        Some(Arrival::Client(client)) => {
            hand_over(app, client, worker.filter(|_| aside::is_on_worker()));
        }
        Some(Arrival::Console(console)) => show_in(app, console),
        Some(Arrival::Cancel { key, stream }) => cancel(app, key, stream).await,
        None => {}
    }
}

/// A console user goes to the main thread.
fn show_in(app: &App, mut console: ConsoleLogin) {
    if console.guest.stream.park().is_ok() {
        let _ = app.console_arrivals.send(Box::new(console));
    }
}

/// A client has proved its identity: it goes to the worker that has fewest of its pool. The one that it is on already is preferred
/// among equals.
fn hand_over(app: &Arc<App>, client: LoggedIn, here: Option<WorkerId>) {
    let mut guest = client.guest;
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
    let (worker, seat) = share.seat_near(here);
    if here != Some(worker) && guest.stream.park().is_err() {
        return; // it is not there any more
    }
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
