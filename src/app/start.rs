//! From the command line to a running process, and from an order to end it to its end.

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Instant, SystemTime};

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::LocalSet;

use super::doors::{self, Door, Doors};
use super::drain;
use super::filewatch::{self, Watch};
use super::parts::{self, Constants};
use super::peers::Peers;
use super::{App, Orders};
use crate::admin::console;
use crate::admin::desk::ConsoleUser;
use crate::admin::operator::{Operator, ShutdownMode};
use crate::admin::rights::Role;
use crate::admin::rows::Reloads;
use crate::auth::scram::MockSeed;
use crate::cli::Run;
use crate::client::admission::{Admission, KeyHolder};
use crate::client::login::{ConsoleLogin, ConsoleRole};
use crate::client::who::Who;
use crate::config::{CONSOLE_DATABASE, Config, OnTerm};
use crate::logs::{self, LogHandle};
use crate::net::dns::Resolver;
use crate::net::listen::BoundListener;
use crate::net::prefixed::Prefixed;
use crate::pool::budget::Budget;
use crate::pool::shard::{PoolMail, Post};
use crate::process::systemd::{Manager, Notifier};
use crate::process::{self, Pidfile, Readiness, Signal, Signals};
use crate::server::params::{ParamSet, Tracked};
use crate::server::prepared::StatementCache;
use crate::types::WORKERS_MAX;
use crate::worker::mail::{Control, Mail, Mailbox};
use crate::worker::report::SocketRow;
use crate::worker::{self, Outfit};

/// By how much the threads of logins are nicer than those of queries.
pub(super) const LOGIN_NICENESS: i32 = 5;
/// How long the login threads may take to let go of what they hold.
const LAST_MOMENTS: std::time::Duration = std::time::Duration::from_millis(500);
/// How often pools that nobody uses any more are looked for.
const SWEEP: std::time::Duration = std::time::Duration::from_secs(1);
/// How often is looked whether those who are waited for have gone.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(20);
/// Descriptors that the process needs besides those of clients and servers.
const SPARE_DESCRIPTORS: u64 = 64;

/// Runs the pooler until it is told to stop. Whatever keeps it from starting has been said when this returns.
pub fn run(run: Run) -> ExitCode {
    let mut json = false;
    match try_run(run, &mut json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logs::print_fatal(error, json);
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error>;

/// `json`: how the last words are to be written, as far as that is known by then.
fn try_run(run: Run, json: &mut bool) -> Result<(), Failure> {
    // SAFETY: the program has just begun: it has one thread, has opened no descriptor besides the standard ones, and does this once.
    let manager = unsafe { Manager::from_environment() }?;
    let logs = logs::init(logs::LogOptions {
        quiet: run.quiet,
        verbose: run.verbose,
        ..logs::LogOptions::default()
    })?;
    logs::hook_panics();
    let variables = crate::config::variables().into_iter().collect::<Vec<_>>();
    let preview = parts::preview(&run.file, &variables);
    // What there is to say of the configuration is said as it wants it.
    *json = preview.as_ref().is_some_and(parts::wants_json);
    logs.set_json(*json);
    let watch = filewatch::begin(&run.file, preview.as_ref(), None);
    let config = parts::load(&run.file, &variables).map_err(|_| "cannot load config file")?;
    let settings = &config.settings;
    if let Some(user) = run.user.as_ref().or(settings.user.as_ref()) {
        process::switch_user(user)?;
    }
    process::refuse_root()?;
    let constants = Constants {
        tracked: Arc::new(Tracked::new(&settings.track_extra_parameters)),
        mock: Arc::new(MockSeed::random().map_err(|error| error.to_string())?),
        dns: Resolver::new(parts::dns_rules(settings), settings.resolv_conf.clone()),
    };
    let pidfile = settings.pidfile.clone();
    if let Some(pidfile) = &pidfile
        && process::pidfile::remove_stale(pidfile)?
    {
        tracing::info!("stale pidfile, removing");
    }
    logs.apply(parts::log_options(
        settings,
        &Run {
            daemon: false,
            ..run.clone()
        },
    ))?;
    let in_force = parts::put_together(config, &constants, None, false)?;
    let readiness = if run.daemon {
        process::daemonise(pidfile.as_deref())?
    } else {
        Readiness::foreground()
    };
    logs.apply(parts::log_options(
        &in_force.blueprint.config.settings,
        &run,
    ))?;
    let pidfile = pidfile.map(|path| Pidfile::create(&path)).transpose()?;
    let prepared = Prepared {
        run,
        logs,
        variables,
        in_force,
        watch,
        notifier: manager.notifier,
    };
    let kept = prepared.logs.clone();
    let served = serve(prepared, manager.sockets, readiness);
    kept.tell_all_repeats();
    drop(pidfile);
    served
}

/// What has been made while the process still had one thread.
struct Prepared {
    run: Run,
    logs: LogHandle,
    variables: Vec<(String, String)>,
    in_force: super::InForce,
    watch: Watch,
    notifier: Notifier,
}

fn log_start(config: &Config, listeners: &[BoundListener]) {
    let settings = &config.settings;
    let clients = u64::from(settings.max_client_conn);
    let pools = config.databases.len().max(1) as u64;
    let expected = clients + u64::from(settings.default_pool_size) * pools + SPARE_DESCRIPTORS;
    if let Ok(limits) = process::raise_fd_limit() {
        tracing::info!("{}", limits.start_line(clients, expected));
    }
    for listener in listeners {
        tracing::info!("{}", listener.announcement());
    }
}

/// Starts all threads, and returns when the end has come.
fn serve(prepared: Prepared, passed: Vec<OwnedFd>, readiness: Readiness) -> Result<(), Failure> {
    let config = prepared.in_force.blueprint.config.clone();
    let control = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Whoever can connect may also send a signal: it must be understood by then.
    let signals = {
        let _inside = control.enter();
        Signals::install()?
    };
    // The clients' doors last: whoever has connected shall not be dropped because a port for metrics is taken.
    let web = super::web::listen(&config.settings)?;
    let listeners = doors::listen(&config, passed)?;
    log_start(&config, &listeners);
    let workers = workers(&config);
    let logins = login_threads(workers)?;
    let (lines, mails) = Lines::new(workers);
    let (console_arrivals, arrivals) = mpsc::unbounded_channel();
    let (pings, pinged) = mpsc::unbounded_channel();
    let app = Arc::new(prepared.into_app(&lines, console_arrivals, pings));
    app.peers.renew(&config);
    start_workers(&app, &lines, mails, &logins)?;
    let doors = Doors::open(&app, &logins, listeners)?;
    logins.spawn(watch_names(app.clone()));
    app.ensure_pools();
    super::web::begin(&app, web)?;
    let local = LocalSet::new();
    local.spawn_local(filewatch::run(app.clone(), logins.handle().clone()));
    let ended = local.block_on(
        &control,
        control_loop(app.clone(), signals, arrivals, pinged, doors, readiness),
    );
    app.tell_workers(|| Control::Stop);
    // The listeners go with their tasks, and the Unix socket with its listener.
    logins.shutdown_timeout(LAST_MOMENTS);
    ended
}

fn workers(config: &Config) -> usize {
    let workers = match config.settings.workers as usize {
        0 => process::usable_cores(),
        workers => workers,
    };
    workers.clamp(1, WORKERS_MAX)
}

fn login_threads(number: usize) -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(number)
        .thread_name("login")
        .on_thread_start(|| {
            // Not being nicer is no reason not to start.
            let _ = process::lower_priority(LOGIN_NICENESS);
        })
        .enable_all()
        .build()
}

/// The ways to the workers.
struct Lines {
    mailboxes: Vec<Mailbox>,
    post: Post,
}

/// What a worker reads.
type Mails = mpsc::UnboundedReceiver<Mail>;

impl Lines {
    /// To so many workers, and the other ends.
    fn new(workers: usize) -> (Lines, Vec<Mails>) {
        let (mailboxes, mails): (Vec<Mailbox>, _) =
            (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        let sendable = mailboxes.clone();
        let post: Post =
            Arc::new(move |worker, mail| drop(sendable[worker].send(Mail::Pool(mail))));
        (Lines { mailboxes, post }, mails)
    }
}

impl Prepared {
    fn into_app(
        self,
        lines: &Lines,
        console_arrivals: mpsc::UnboundedSender<Box<ConsoleLogin>>,
        pings: mpsc::UnboundedSender<oneshot::Sender<()>>,
    ) -> App {
        let poke = lines.post.clone();
        App {
            in_force: RwLock::new(Arc::new(self.in_force)),
            variables: self.variables,
            run: self.run,
            budget: Budget::new(
                lines.mailboxes.len(),
                Arc::new(move |worker| poke(worker, PoolMail::Retry)),
            ),
            admission: Arc::new(Admission::new()),
            mailboxes: lines.mailboxes.clone(),
            arriving: AtomicUsize::new(0),
            peers: Peers::default(),
            orders: Mutex::new(Orders::default()),
            orders_changed: watch::Sender::new(0),
            tcp_closed: watch::Sender::new(false),
            autodbs: Mutex::default(),
            acquaintances: Mutex::default(),
            consoles: crate::admin::desk::Desk::new(Instant::now()),
            console_arrivals,
            started: AtomicBool::new(false),
            pings,
            web: super::web::Web::default(),
            hosts: super::vitals::Hosts::default(),
            logs: self.logs,
            reloads: Mutex::new(Reloads::begin(SystemTime::now())),
            watch: Mutex::new(self.watch),
            notifier: self.notifier,
        }
    }
}

fn start_workers(
    app: &App,
    lines: &Lines,
    mails: Vec<Mails>,
    logins: &Runtime,
) -> std::io::Result<()> {
    let in_force = app.in_force();
    let cache = Arc::new(StatementCache::default());
    for (id, mail) in mails.into_iter().enumerate() {
        let outfit = Outfit {
            id,
            workers: lines.mailboxes.len(),
            post: lines.post.clone(),
            logins: logins.handle().clone(),
            tracked: in_force.desk.tracked.clone(),
            cache: cache.clone(),
            blueprint: in_force.blueprint.clone(),
            errors: app.admission.errors().clone(),
        };
        std::thread::Builder::new()
            .name(format!("worker-{id}"))
            .spawn(move || run_worker(outfit, mail))?;
    }
    Ok(())
}

/// A worker that can't go on takes the process with it: half a pooler would hang its clients.
fn run_worker(outfit: Outfit, mail: mpsc::UnboundedReceiver<Mail>) {
    let ended =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker::run(outfit, mail)));
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::error!(fatal = true, "worker ended: {error}");
            std::process::exit(1);
        }
        Err(_) => {
            tracing::error!(fatal = true, "worker ended by a panic");
            std::process::exit(1);
        }
    }
}

/// Has names that are in use looked up again in time, and tells the workers when servers are not where they should be.
async fn watch_names(app: Arc<App>) {
    let dns = app.in_force().blueprint.dns.clone();
    let mut changes = dns.changes();
    let tell = async {
        while changes.changed().await.is_ok() {
            app.tell_workers(|| Control::RetireMisplaced);
        }
    };
    tokio::join!(dns.keep_watch(), tell);
}

async fn control_loop(
    app: Arc<App>,
    mut signals: Signals,
    mut arrivals: mpsc::UnboundedReceiver<Box<ConsoleLogin>>,
    mut pinged: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
    doors: Doors,
    readiness: Readiness,
) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(
        "process up: PgBouncer {} (pgweir {version}), tokio (epoll), adns: hickory, tls: rustls",
        crate::COMPATIBLE_VERSION
    );
    app.started.store(true, SeqCst);
    readiness.ready();
    app.notifier.ready();
    let mut changes = app.orders_changed.subscribe();
    let mut stats = Statistics::begin(&app);
    let mut sweeper = tokio::time::interval(SWEEP);
    let mut ending = None;
    let mut drains = false;
    loop {
        tokio::select! {
            Some(console) = arrivals.recv() => drop(tokio::task::spawn_local(serve_console(app.clone(), console))),
            Some(reply) = pinged.recv() => drop(reply.send(())),
            signal = signals.next() => if !obey(&app, signal) { return Ok(()) },
            _ = sweeper.tick() => {
                app.sweep();
                app.logs.tell_repeats();
                stats.follow(&app);
            }
            () = stats.due() => drop(tokio::task::spawn_local(log_stats(app.clone()))),
            _ = changes.changed() => {
                let mode = app.orders.lock().shutdown;
                match mode {
                    Some(ShutdownMode::Immediate) => return Ok(()),
                    // A drain takes the place of a wait that may last for ever.
                    Some(mode) if ending.is_none() || mode == ShutdownMode::Drain && !drains => {
                        drains = mode == ShutdownMode::Drain;
                        ending = Some(Box::pin(wait_for_end(&app, &doors, mode)));
                    }
                    _ => {}
                }
            }
            () = async { match &mut ending { Some(ending) => ending.await, None => std::future::pending().await } } => {
                doors.close_unix();
                answer_consoles(&app).await;
                return Ok(());
            }
        }
    }
}

/// Lets consoles have the answers that they wait for, above all the one that has ordered the end.
async fn answer_consoles(app: &App) {
    let began = Instant::now();
    while app.consoles.is_answering() && began.elapsed() < LAST_MOMENTS {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Waits until a graceful end is complete.
async fn wait_for_end(app: &App, doors: &Doors, mode: ShutdownMode) {
    match mode {
        ShutdownMode::Immediate => {}
        ShutdownMode::Drain => drain::drain(app, doors).await,
        ShutdownMode::WaitForServers => {
            doors.close_tcp(Door::Closed).await;
            app.tcp_closed.send_replace(true);
            app.quiet(&None).await;
            while app.budget.pools().iter().any(|share| share.servers() > 0) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            tracing::info!("server connections dropped, exiting");
        }
        ShutdownMode::WaitForClients => {
            doors.close_tcp(Door::Closing).await;
            app.tcp_closed.send_replace(true);
            // In this order: whoever has arrived is counted among the sockets before it ceases to arrive.
            while app.arriving.load(SeqCst) > 0 || app.admission.sockets() > 0 {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            tracing::info!("client connections dropped, exiting");
        }
    }
}

/// Does what a signal says, as PgBouncer does; false to end at once.
fn obey(app: &App, signal: Signal) -> bool {
    let state = app.state();
    let drains = app.config_now().settings.shutdown_mode == OnTerm::Drain;
    let signalled = app.note_signal(signal);
    match signal {
        Signal::Hup => {
            tracing::info!("got SIGHUP, re-reading config");
            app.reload_as_told();
        }
        // The first one, after the console has ordered an end (as a preStop hook may): it asks for the same, or for a nearer one.
        Signal::Term if state.shutting_down && (drains || state.draining) && !signalled => {
            tracing::info!("got SIGTERM while shutting down, draining");
            app.begin_shutdown(ShutdownMode::Drain);
        }
        Signal::Term | Signal::Int if state.shutting_down => {
            tracing::info!("got {} while shutting down, fast exit", signal.name());
            return false;
        }
        Signal::Term if drains => {
            tracing::info!("got SIGTERM, shutting down, draining");
            app.begin_shutdown(ShutdownMode::Drain);
        }
        Signal::Term => {
            tracing::info!("got SIGTERM, shutting down, waiting for all clients disconnect");
            app.notifier.stopping();
            app.begin_shutdown(ShutdownMode::WaitForClients);
        }
        Signal::Int => {
            tracing::info!(
                "got SIGINT, shutting down, waiting for all servers connections to be released"
            );
            app.notifier.stopping();
            app.begin_shutdown(ShutdownMode::WaitForServers);
        }
        Signal::Quit => {
            tracing::info!("got SIGQUIT, fast exit");
            return false;
        }
        Signal::Usr1 if state.paused => tracing::info!("got SIGUSR1, but already paused"),
        Signal::Usr1 => {
            // Whoever reads the line may count on it.
            app.begin_pause(None);
            tracing::info!("got SIGUSR1, pausing all activity");
        }
        Signal::Usr2 if state.shutting_down && !state.draining => {
            tracing::info!("got SIGUSR2 while shutting down, ignoring")
        }
        Signal::Usr2 if state.paused => {
            tracing::info!("got SIGUSR2, continuing from PAUSE");
            app.end_pause(None);
        }
        Signal::Usr2 => tracing::info!("got SIGUSR2, but not paused"),
    }
    true
}

/// When the next line of statistics is due. A new `stats_period` holds from the last line on.
struct Statistics {
    last: tokio::time::Instant,
    period: std::time::Duration,
}

impl Statistics {
    fn begin(app: &App) -> Statistics {
        Statistics {
            last: tokio::time::Instant::now(),
            period: app.config_now().settings.stats_period,
        }
    }

    fn follow(&mut self, app: &App) {
        self.period = app.config_now().settings.stats_period;
    }

    async fn due(&mut self) {
        let next = self.last + self.period;
        tokio::time::sleep_until(next).await;
        let now = tokio::time::Instant::now();
        // From line to line, unless the period has just become so much shorter that this one is late.
        self.last = if now > next + self.period { now } else { next };
    }
}

async fn log_stats(app: Arc<App>) {
    let turn = app.consoles.turn().await;
    let pools = app.pools().await;
    let period = turn.tick(Instant::now(), pools);
    drop(turn);
    app.notifier.status(period);
    if app.config_now().settings.log_stats {
        tracing::info!("{period}");
    }
}

async fn serve_console(app: Arc<App>, login: Box<ConsoleLogin>) {
    let ConsoleLogin { guest, user, role } = *login;
    let Ok(mut stream) = guest.stream.attach() else {
        return;
    };
    let listen_port = app.config_now().settings.listen_port;
    let who = Who {
        id: guest.id,
        database: Some(CONSOLE_DATABASE),
        user: Some(&user),
        peer: guest.peer,
        listen_port,
    };
    let key = app.new_key(KeyHolder::Console);
    let local = stream.local_addr().ok().flatten();
    let user = ConsoleUser {
        role: match role {
            ConsoleRole::Admin => Role::Admin,
            ConsoleRole::Stats => Role::Stats,
        },
        who: who.to_string(),
        key: key.0,
        parameters: app.named_parameters(&guest.params),
        row: SocketRow {
            user: user.clone(),
            database: CONSOLE_DATABASE.to_owned(),
            state: "idle",
            tls: guest.tls.unwrap_or_default().to_owned(),
            application_name: app.application_name(&guest.params),
            ..SocketRow::of_client(guest.id, guest.connected_at, guest.peer, local, listen_port)
        },
    };
    if stream.write_all(&guest.greeting).await.is_err() {
        return;
    }
    let stream = Prefixed::new(stream, guest.leftover);
    let ending = console::serve(stream, &*app, &app.consoles, user).await;
    app.admission.forget_key(key);
    if app.config_now().settings.log_disconnections {
        let age = guest.connected.elapsed().as_secs();
        tracing::info!(%who, "closing because: {ending} (age={age}s)");
    }
}

impl App {
    fn application_name(&self, params: &ParamSet) -> String {
        let index = self.in_force().desk.tracked.index(b"application_name");
        let name = index
            .and_then(|index| params.get(index))
            .unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    }

    fn named_parameters(&self, params: &ParamSet) -> Vec<(Vec<u8>, Vec<u8>)> {
        let tracked = self.in_force().desk.tracked.clone();
        let named = (0..tracked.len()).filter_map(|index| {
            let value = params.get(index)?;
            Some((tracked.name(index).as_bytes().to_vec(), value.to_vec()))
        });
        named.collect()
    }
}
