//! Metrics, health and the status page: their thread, and their listeners over reloads.
//!
//! Two processes never share this port, whatever `so_reuseport` says: who is asked must be known. So where the pooler's own port is
//! shared, for a restart without a gap, a taken port keeps nobody from starting: the new process takes it when its predecessor lets
//! go of it, which that does when it is asked to end (a drain: when it has ended, which is soon).

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::sleep;

use super::App;
use super::start::LOGIN_NICENESS;
use crate::admin::http::listener::{Crowd, accept};
use crate::admin::http::server::Server;
use crate::config::Settings;
use crate::net::listen::{Bound, BoundListener, ListenError, ListenOptions, bind_tcp};
use crate::net::options::TcpOptions;
use crate::process;

/// How often a port is tried that somebody else has.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    addresses: String,
    /// 0: nowhere.
    port: u16,
    /// A port that is taken is waited for.
    waits: bool,
}

impl Place {
    fn of(settings: &Settings) -> Place {
        Place {
            addresses: settings.metrics_addr.join(","),
            port: settings.metrics_port,
            waits: settings.so_reuseport,
        }
    }

    /// Opens the sockets.
    fn bind(&self) -> Result<Vec<BoundListener>, String> {
        if self.port == 0 {
            return Ok(Vec::new());
        }
        let options = ListenOptions {
            reuse_port: false,
            tcp: TcpOptions::default(),
            ..ListenOptions::default()
        };
        let Bound {
            listeners,
            warnings,
        } = bind_tcp(&self.addresses, self.port, &options);
        let mut texts = warnings.iter().map(ListenError::to_string);
        if listeners.is_empty() {
            let reason = texts
                .next()
                .unwrap_or_else(|| "metrics_addr is empty".to_owned());
            return Err(format!("metrics: {reason}"));
        }
        texts.for_each(|text| tracing::warn!("metrics: {text}"));
        Ok(listeners)
    }
}

/// What the thread is told.
enum Order {
    /// Listen there, and nowhere else.
    Listen(Place),
}

/// The way to the thread, if there is one.
#[derive(Default)]
pub struct Web {
    app: OnceLock<Weak<App>>,
    thread: Mutex<Option<mpsc::UnboundedSender<Order>>>,
}

/// Opens the sockets at the start.
///
/// # Errors
/// There are none to be had, and nobody is expected to let go of them.
pub fn listen(settings: &Settings) -> Result<Vec<BoundListener>, String> {
    let place = Place::of(settings);
    match place.bind() {
        Err(reason) if place.waits => {
            tracing::warn!("{reason}; trying again until it can be had");
            Ok(Vec::new())
        }
        bound => bound,
    }
}

/// Begins to serve on these sockets, if that is wanted.
///
/// # Errors
/// The system has no thread for it.
pub fn begin(app: &Arc<App>, listeners: Vec<BoundListener>) -> std::io::Result<()> {
    let _ = app.web.app.set(Arc::downgrade(app));
    let place = Place::of(&app.config_now().settings);
    if place.port == 0 {
        return Ok(());
    }
    *app.web.thread.lock() = Some(spawn(app.clone(), place, listeners)?);
    Ok(())
}

impl Web {
    /// New settings are in force.
    pub fn follow(&self, settings: &Settings) {
        self.go_to(Place::of(settings));
    }

    /// The end has been asked for: where a successor may wait for the port, it is left.
    pub fn leave(&self, settings: &Settings) {
        let place = Place::of(settings);
        if place.waits {
            self.go_to(Place { port: 0, ..place });
        }
    }

    fn go_to(&self, place: Place) {
        let mut thread = self.thread.lock();
        if let Some(thread) = &*thread {
            let _ = thread.send(Order::Listen(place));
        } else if place.port != 0
            && let Some(app) = self.app.get().and_then(Weak::upgrade)
        {
            match spawn(
                app,
                Place {
                    port: 0,
                    ..place.clone()
                },
                Vec::new(),
            ) {
                Ok(orders) => {
                    let _ = orders.send(Order::Listen(place));
                    *thread = Some(orders);
                }
                Err(error) => tracing::error!("metrics: no thread: {error}"),
            }
        }
    }
}

fn spawn(
    app: Arc<App>,
    place: Place,
    listeners: Vec<BoundListener>,
) -> std::io::Result<mpsc::UnboundedSender<Order>> {
    let (orders, ordered) = mpsc::unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let body = move || {
        // Not being nicer is no reason not to serve.
        let _ = process::lower_priority(LOGIN_NICENESS);
        let house = House::new(app, place);
        LocalSet::new().block_on(&runtime, house.keep(listeners, ordered));
    };
    std::thread::Builder::new()
        .name("http".to_owned())
        .spawn(body)?;
    Ok(orders)
}

/// The thread's own: where it is to listen, and where it does.
struct House {
    server: std::rc::Rc<Server<App>>,
    crowd: std::rc::Rc<Crowd>,
    wanted: Place,
    /// Where it listens; its port is 0 if nowhere.
    at: Place,
    doors: JoinSet<()>,
}

impl House {
    fn new(app: Arc<App>, wanted: Place) -> House {
        House {
            server: std::rc::Rc::new(Server::new(app)),
            crowd: std::rc::Rc::default(),
            at: Place {
                port: 0,
                ..wanted.clone()
            },
            wanted,
            doors: JoinSet::new(),
        }
    }

    async fn keep(
        mut self,
        listeners: Vec<BoundListener>,
        mut ordered: mpsc::UnboundedReceiver<Order>,
    ) {
        if !listeners.is_empty() {
            self.open(listeners);
        }
        loop {
            let is_waiting = self.wanted.waits && self.at != self.wanted;
            tokio::select! {
                order = ordered.recv() => match order {
                    Some(Order::Listen(place)) => self.go_to(place).await,
                    None => return,
                },
                () = sleep(TRY_AGAIN), if is_waiting => {
                    if let Ok(listeners) = self.wanted.bind() {
                        self.open(listeners);
                    }
                }
            }
        }
    }

    /// Listens somewhere else from now on. Where that cannot be, everything stays as it was.
    async fn go_to(&mut self, place: Place) {
        if place == self.wanted && place == self.at {
            return;
        }
        self.wanted = place.clone();
        if place.port == 0 {
            return self.close().await;
        }
        // An address of ours may be in the way of the new ones.
        let before = (self.at.port == place.port && self.at != place).then(|| self.at.clone());
        if before.is_some() {
            self.doors.shutdown().await;
        }
        match place.bind() {
            Ok(listeners) => {
                self.doors.shutdown().await;
                self.open(listeners);
            }
            Err(reason) => {
                let stays = match self.at.port {
                    0 => String::new(),
                    port => format!("; still on port {port} as before"),
                };
                tracing::error!("{reason}{stays}");
                match before.map(|before| before.bind()) {
                    None => {}
                    Some(Ok(listeners)) => self.attach(listeners),
                    Some(Err(reason)) => {
                        tracing::error!("{reason}");
                        self.at.port = 0;
                    }
                }
            }
        }
    }

    async fn close(&mut self) {
        self.doors.shutdown().await;
        self.at = self.wanted.clone();
    }

    fn open(&mut self, listeners: Vec<BoundListener>) {
        for listener in &listeners {
            tracing::info!("metrics: {}", listener.announcement());
        }
        self.at = self.wanted.clone();
        self.attach(listeners);
    }

    fn attach(&mut self, listeners: Vec<BoundListener>) {
        for listener in listeners {
            match listener.attach() {
                Ok(listener) => {
                    let (server, crowd) = (self.server.clone(), self.crowd.clone());
                    let answer = move |request| {
                        let server = server.clone();
                        async move { server.answer(request).await }
                    };
                    self.doors.spawn_local(accept(listener, crowd, answer));
                }
                Err(error) => tracing::error!("metrics: {error}"),
            }
        }
    }
}
