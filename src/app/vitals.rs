//! How the program is, for metrics and health.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::App;
use crate::admin::desk::Desk;
use crate::admin::http::vitals::{Condition, Failure, HostHealth, PoolHealth, Vitals};
use crate::admin::operator::ShutdownMode;
use crate::config::{Config, Database};
use crate::error::ClientError;
use crate::net::dial::{Target, dial};
use crate::pool::budget::PoolShare;
use crate::server::connect::error::{
    CONNECT_FAILED, CONNECT_TIMEOUT, CRASHED, DNS_FAILED, TLS_REFUSED,
};
use crate::worker::mail::{Control, Mail};
use crate::worker::report::CensusRow;

/// Places that are tried at most.
const TARGETS_MAX: usize = 16;
/// How long each may take, its name's lookup included.
const TRY_MAX: Duration = Duration::from_millis(400);
/// How long it is good to know that somebody could be reached, and that nobody could.
const GOOD_FOR: Duration = Duration::from_secs(3);
const BAD_FOR: Duration = Duration::from_millis(500);
/// A failure is recent for that long at least, even where another attempt may be made at once (`server_login_retry`).
const RECENT: Duration = Duration::from_secs(5);

/// What was found when servers were tried last.
#[derive(Default)]
pub struct Hosts(tokio::sync::Mutex<Option<Tried>>);

struct Tried {
    at: Instant,
    /// What it was that was tried.
    config: Arc<Config>,
    hosts: Vec<HostHealth>,
}

impl Vitals for App {
    fn desk(&self) -> &Desk {
        &self.consoles
    }

    fn condition(&self) -> Condition {
        let (shutdown, paused) = {
            let orders = self.orders.lock();
            (orders.shutdown, orders.paused)
        };
        let (config, now) = (self.config_now(), Instant::now());
        let pools = self.budget.pools();
        Condition {
            started: self.started.load(SeqCst),
            shutting_down: shutdown.is_some(),
            draining: shutdown.is_some_and(|mode| mode != ShutdownMode::Immediate),
            paused,
            since: self.budget.start(),
            reloads: *self.reloads.lock(),
            pools: pools
                .iter()
                .map(|share| pool_health(share, &config, now))
                .collect(),
        }
    }

    async fn silent(&self, limit: Duration) -> Vec<String> {
        let deadline = tokio::time::Instant::now() + limit;
        let (reply, answer) = oneshot::channel();
        let _ = self.pings.send(reply);
        let mut answers = vec![("main".to_owned(), answer)];
        for (worker, mailbox) in self.mailboxes.iter().enumerate() {
            let (reply, answer) = oneshot::channel();
            let _ = mailbox.send(Mail::Control(Control::Ping(reply)));
            answers.push((format!("worker-{worker}"), answer));
        }
        let mut silent = Vec::new();
        for (name, answer) in answers {
            if !matches!(timeout_at(deadline, answer).await, Ok(Ok(()))) {
                silent.push(name);
            }
        }
        silent
    }

    async fn census(&self, most: usize) -> Vec<CensusRow> {
        self.ask_rows(|reply| Control::Census(most, reply)).await
    }

    async fn hosts(&self) -> Vec<HostHealth> {
        let mut known = self.hosts.0.lock().await;
        let config = self.config_now();
        if let Some(tried) = known
            .as_ref()
            .filter(|tried| Arc::ptr_eq(&tried.config, &config))
        {
            let is_good = tried.hosts.iter().any(|host| host.error.is_none());
            if tried.at.elapsed() < if is_good { GOOD_FOR } else { BAD_FOR } {
                return tried.hosts.clone();
            }
        }
        let hosts = self.try_hosts().await;
        *known = Some(Tried {
            at: Instant::now(),
            config,
            hosts: hosts.clone(),
        });
        hosts
    }
}

fn pool_health(share: &Arc<PoolShare>, config: &Config, now: Instant) -> PoolHealth {
    let key = &share.key;
    let settings = config
        .database(&key.database)
        .map(|database| config.pool_settings(&database, &key.user));
    let has_servers = share.has_servers();
    let failure = share.last_failure().filter(|_| !has_servers);
    let retry = config.settings.server_login_retry.max(RECENT);
    PoolHealth {
        database: key.database.clone(),
        user: key.user.clone(),
        has_servers,
        failure: failure.map(|(at, error)| Failure {
            is_refusal: is_refusal(&error),
            is_recent: now.saturating_duration_since(at) < retry,
            text: error.to_string(),
        }),
        connections: share.servers() as u64,
        connections_max: settings.map_or(0, |settings| settings.pool_size.into()),
    }
}

/// True for an error that is about this user, this database or its secret, so that others may be served.
fn is_refusal(error: &ClientError) -> bool {
    let network = [
        CONNECT_FAILED,
        CONNECT_TIMEOUT,
        DNS_FAILED,
        TLS_REFUSED,
        CRASHED,
    ];
    let is_network = network
        .iter()
        .any(|text| error.text.as_ref() == text.as_bytes());
    // The server is starting up, shutting down or full.
    let is_unfit = error.sqlstate.starts_with("57P") || error.sqlstate.starts_with("53");
    !is_network && !is_unfit
}

impl App {
    /// Tries to connect to every place that the configuration names, all at once.
    async fn try_hosts(&self) -> Vec<HostHealth> {
        let in_force = self.in_force();
        let blueprint = &in_force.blueprint;
        let config = &blueprint.config;
        let databases = config.databases.values().chain(&config.autodb);
        let places =
            databases.flat_map(|database: &Arc<Database>| blueprint.recipe(database).targets());
        let mut seen = BTreeSet::new();
        let mut attempts = JoinSet::new();
        for target in places {
            let host = shown(&target);
            if seen.len() >= TARGETS_MAX || !seen.insert(host.clone()) {
                continue;
            }
            let (dns, tcp) = (blueprint.dns.clone(), blueprint.tcp.clone());
            attempts.spawn(async move {
                let error = dial(&target, &dns, &tcp, TRY_MAX).await.err();
                let error = error.map(|error| error.to_string());
                HostHealth { host, error }
            });
        }
        let mut hosts = attempts.join_all().await;
        hosts.sort_by(|a, b| a.host.cmp(&b.host));
        hosts
    }
}

fn shown(target: &Target) -> String {
    match target {
        Target::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
        Target::Tcp { host, port } => format!("{host}:{port}"),
        Target::Unix { path } => path.to_string(),
    }
}
