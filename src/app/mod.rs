//! Building the parts and joining them: the one room that knows all the others.
//!
//! [`run`] starts everything and waits for the end; `parts` makes TLS, secrets and options out of a configuration, `rules` reads
//! the files about who may come from where, and [`check`] looks all of that over without starting; `doors` listens, `front`
//! accepts connections and hands logged-in clients to workers; `inquiry` asks a pool who a user is; `cancel` follows cancel
//! requests, to `peers` if need be; `office` is what the operator's side works with: reload, pause, shutdown, and the rows of
//! every `SHOW`; `filewatch` has a reload made when files change; `web` serves metrics and health on a thread of its own, and
//! `vitals` tells it how we are. Beside all this, [`healthcheck`] asks another process how it is, [`userlist`] is a command of its
//! own, and `source` reads its connection string.

mod cancel;
mod doors;
mod drain;
mod filewatch;
mod front;
pub mod healthcheck;
mod inquiry;
mod office;
mod parts;
mod peers;
mod rules;
mod source;
mod start;
pub mod userlist;
mod vitals;
mod web;

pub use rules::check;
pub use start::run;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot, watch};

use crate::admin;
use crate::admin::operator::ShutdownMode;
use crate::admin::rows::Reloads;
use crate::auth::Acquaintances;
use crate::client::admission::Admission;
use crate::client::login::{ConsoleLogin, Desk};
use crate::config::Database;
use crate::logs::LogHandle;
use crate::pool::budget::Budget;
use crate::pool::recipe::Blueprint;
use crate::process::systemd::Notifier;
use crate::worker::mail::{Mail, Mailbox};

/// What a configuration has been turned into: replaced as a whole by a reload.
pub struct InForce {
    /// What workers make servers from.
    pub blueprint: Arc<Blueprint>,
    /// What logins go by.
    pub desk: Arc<Desk>,
}

/// What the operator has ordered.
#[derive(Debug, Default)]
pub struct Orders {
    /// Everything is paused.
    pub paused: bool,
    /// Databases paused by name.
    pub paused_databases: Vec<String>,
    /// The end has been asked for.
    pub shutdown: Option<ShutdownMode>,
    /// A signal has asked for it: a second one is not to be waited for.
    pub signalled: bool,
}

/// Everything that the front and the operator's side share.
pub struct App {
    in_force: RwLock<Arc<InForce>>,
    /// The environment's settings, as they were at the start.
    variables: Vec<(String, String)>,
    /// `-q`, `-v` and `-d`, which win over the file.
    run: crate::cli::Run,
    budget: Budget,
    admission: Arc<Admission>,
    mailboxes: Vec<Mailbox>,
    /// Connections that have been accepted and are not yet anybody's: in login, or with a cancel request.
    arriving: AtomicUsize,
    peers: peers::Peers,
    orders: Mutex<Orders>,
    /// Wakes whoever waits for a change of [`App::orders`].
    orders_changed: watch::Sender<u64>,
    /// The TCP listeners are closed, for the end.
    tcp_closed: watch::Sender<bool>,
    /// Databases made from `*`, as far as they are in use.
    autodbs: Mutex<BTreeMap<String, Arc<Database>>>,
    /// Users that `auth_query` has found. Locked when one has been asked about.
    acquaintances: Mutex<Acquaintances>,
    consoles: admin::desk::Desk,
    console_arrivals: mpsc::UnboundedSender<Box<ConsoleLogin>>,
    /// Has begun to serve.
    started: AtomicBool,
    /// To the main thread: whoever it answers knows that it is not stuck.
    pings: mpsc::UnboundedSender<oneshot::Sender<()>>,
    /// Metrics and health over HTTP.
    web: web::Web,
    /// Which servers could be connected to when health was asked for last.
    hosts: vitals::Hosts,
    logs: LogHandle,
    /// How reloads have gone. Locked to note one, and to tell.
    reloads: Mutex<Reloads>,
    /// The files that a reload reads. Locked for as long as it takes to compare; by a reload, to begin anew.
    watch: Mutex<filewatch::Watch>,
    /// Tells the service manager how we are.
    notifier: Notifier,
}

impl App {
    fn in_force(&self) -> Arc<InForce> {
        self.in_force.read().clone()
    }

    fn tell_workers(&self, message: impl Fn() -> crate::worker::mail::Control) {
        for mailbox in &self.mailboxes {
            let _ = mailbox.send(Mail::Control(message()));
        }
    }

    /// Changes what is ordered, and wakes whoever waits for that.
    fn order<T>(&self, change: impl FnOnce(&mut Orders) -> T) -> T {
        let changed = change(&mut self.orders.lock());
        self.orders_changed.send_modify(|count| *count += 1);
        changed
    }
}
