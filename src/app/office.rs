//! What the operator's side works with: the orders of the console and of signals, carried out, and the rows of every `SHOW`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use super::parts::{self, Constants};
use super::{App, InForce, filewatch};
use crate::admin::error::CommandError;
use crate::admin::operator::{DatabaseState, GlobalState, Operator, SetOutcome, ShutdownMode};
use crate::admin::rows::{
    CertificateRow, DatabaseRow, DnsHostRow, DnsZoneRow, Lists, PeerPoolRow, Reloads, UserRow,
};
use crate::client::admission::{Arriving, Entrance};
use crate::config::{CONSOLE_DATABASE, Config, Database};
use crate::error::ClientError;
use crate::metrics::measures::merge_pools;
use crate::metrics::{self, ErrorKind, Limit, Measures, PoolMeasures};
use crate::net::tls::Expiry;
use crate::process::Signal;
use crate::types::{ConnId, PoolKey};
use crate::worker::mail::{Control, Mail, Scope};
use crate::worker::measures::merge_queues;
use crate::worker::report::{ClientView, PoolRow, QueueView, SocketRow};

/// How often is looked whether what is waited for (no server in use, no server to be closed) has come.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What becomes of TLS when a configuration is put in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    /// Its files are read again: they may be new even if their names are not.
    Reread,
    /// It goes on as it was.
    Keep,
}

/// How long SHUTDOWN waits with its answer for the listeners to close.
const CLOSING_MAX: Duration = Duration::from_secs(2);

impl App {
    fn constants(&self) -> Constants {
        let in_force = self.in_force();
        Constants {
            tracked: in_force.desk.tracked.clone(),
            mock: in_force.desk.mock.clone(),
            dns: in_force.blueprint.dns.clone(),
        }
    }

    /// The configuration in force.
    pub(super) fn config_now(&self) -> Arc<Config> {
        self.in_force().blueprint.config.clone()
    }

    /// Reads the configuration again. A file with any mistake changes nothing.
    pub(super) fn reload_now(&self) -> Result<(), CommandError> {
        let result = self.try_reload();
        self.reloads.lock().note(result.is_ok(), SystemTime::now());
        result
    }

    /// The same for a signal or for files that changed: the service manager is told, and whoever reads the log.
    pub(super) fn reload_as_told(&self) {
        self.notifier.reloading();
        if self.reload_now().is_err() {
            tracing::warn!("the old configuration stays in force");
        }
        self.notifier.ready();
    }

    fn try_reload(&self) -> Result<(), CommandError> {
        let old = self.config_now();
        let path = old
            .settings
            .conffile
            .clone()
            .map_or_else(|| old.path.clone(), PathBuf::from);
        let preview = parts::preview(&path, &self.variables);
        *self.watch.lock() = filewatch::begin(&path, preview.as_ref(), Some(&old.settings));
        let mut config = parts::load(&path, &self.variables).map_err(|_| {
            tracing::warn!("config file loading failed");
            CommandError::ReloadFailed
        })?;
        for name in config.settings.keep_start_only(&old.settings) {
            tracing::warn!("{name} can only be changed by a restart; keeping the old value");
        }
        let logs = parts::log_options(&config.settings, &self.run);
        let result = self.put_in_force(config, Tls::Reread);
        // A log file that was renamed is let go in any case.
        let reopened = match result {
            Ok(()) => self.logs.reconfigure(logs),
            Err(_) => self.logs.reopen(),
        };
        if let Err(error) = reopened {
            tracing::warn!("{error}");
        }
        result.map_err(|_| CommandError::ReloadFailed)
    }

    /// Gives a setting a value.
    fn set_now(&self, key: &str, value: &str) -> Result<SetOutcome, CommandError> {
        let old = self.config_now();
        let mut config = Config::clone(&old);
        config.settings.set_text(key, value).map_err(|error| {
            tracing::error!("{error}");
            CommandError::SetFailed
        })?;
        let logs = parts::log_options(&config.settings, &self.run);
        if logs != parts::log_options(&old.settings, &self.run)
            && let Err(error) = self.logs.reconfigure(logs)
        {
            tracing::error!("{error}");
            return Err(CommandError::SetFailed);
        }
        if !(key.contains("_tls_") || key.contains("_tls13_")) {
            return self.put_in_force(config, Tls::Keep).map_or_else(
                |_| Err(CommandError::SetFailed),
                |()| Ok(SetOutcome::Applied),
            );
        }
        // Several settings may have to change before they fit together: each is set, and TLS goes on as it was until they do.
        if self.put_in_force(config.clone(), Tls::Reread).is_ok() {
            return Ok(SetOutcome::Applied);
        }
        self.put_in_force(config, Tls::Keep)
            .map(|()| SetOutcome::OldTlsKept)
            .map_err(|_| CommandError::SetFailed)
    }

    /// Puts a configuration in force everywhere.
    fn put_in_force(&self, config: Config, tls: Tls) -> Result<(), String> {
        let before = self.in_force();
        let keep_tls = tls == Tls::Keep;
        let after = parts::put_together(config, &self.constants(), Some(&before), keep_tls)
            .inspect_err(|error| tracing::error!("{error}"))?;
        let after = Arc::new(after);
        let rules = parts::dns_rules(&after.blueprint.config.settings);
        after.blueprint.dns.set_rules(rules);
        *self.in_force.write() = after.clone();
        self.peers.renew(&after.blueprint.config);
        self.renew_pools(&before, &after, tls);
        self.forget_autodbs(&after.blueprint.config);
        self.tell_workers(|| Control::Apply(after.blueprint.clone()));
        self.web.follow(&after.blueprint.config.settings);
        self.ensure_pools();
        Ok(())
    }

    /// New limits for every pool, and a new generation of servers where they would be connected differently.
    fn renew_pools(&self, before: &InForce, after: &InForce, tls: Tls) {
        let (old, new) = (&before.blueprint.config, &after.blueprint.config);
        let tls = tls == Tls::Reread && parts::server_tls_differs(&old.settings, &new.settings);
        for share in self.budget.pools() {
            let Some(database) = new.database(&share.key.database) else {
                tracing::warn!(
                    "dropping database '{}' as it does not exist anymore or inactive auto-database",
                    share.key.database
                );
                self.budget.forget(&share.key);
                continue;
            };
            share.set_limits(&new.pool_settings(&database, &share.key.user));
            // What a client has proved to somebody else counts for more than what the file says.
            if database.user.is_some() || !after.desk.method().is_elsewhere() {
                let users = &after.blueprint.server_users;
                share.offer_credentials(&users.of(&database, &share.key.user));
            }
            let differs = old
                .database(&share.key.database)
                .is_none_or(|was| was.connect_differs(&database));
            if differs || tls {
                share.renew();
            }
        }
    }

    /// Pools that shall have servers before any client comes: those of forced users with a minimum.
    pub(super) fn ensure_pools(&self) {
        let in_force = self.in_force();
        let config = &in_force.blueprint.config;
        for database in config.databases.values() {
            let Some(user) = &database.user else { continue };
            let settings = config.pool_settings(database, user);
            if settings.min_pool_size == 0 {
                continue;
            }
            let key = PoolKey {
                database: database.name.clone(),
                user: user.clone(),
            };
            let share = self.budget.pool(&key, &settings);
            share.offer_credentials(&in_force.blueprint.server_users.of(database, user));
            let recipe = in_force.blueprint.recipe(database);
            if let Some(mailbox) = self.mailboxes.first() {
                let _ = mailbox.send(Mail::Control(Control::Ensure(Box::new((
                    share, settings, recipe,
                )))));
            }
        }
    }

    /// A client uses a database made from `*`.
    pub(super) fn note_autodb(&self, database: &Arc<Database>) {
        let known = self
            .autodbs
            .lock()
            .insert(database.name.clone(), database.clone());
        if known.is_none() {
            tracing::info!("registered new auto-database: {}", database.name);
        }
    }

    /// Forgets pools that no worker has any more, and with the last of them the databases made from `*`.
    pub(super) fn sweep(&self) {
        for key in self.budget.sweep() {
            let auto = !self.budget.knows_database(&key.database)
                && self.autodbs.lock().remove(&key.database).is_some();
            if auto {
                tracing::warn!(
                    "dropping database '{}' as it does not exist anymore or inactive auto-database",
                    key.database
                );
            }
        }
    }

    fn forget_autodbs(&self, config: &Config) {
        self.autodbs
            .lock()
            .retain(|name, _| config.database(name).is_some_and(|database| database.auto));
    }

    /// Asks every worker, and gathers the answers; a worker that has ended has none.
    pub(super) async fn ask<T>(&self, question: impl Fn(oneshot::Sender<T>) -> Control) -> Vec<T> {
        let mut answers = Vec::new();
        for mailbox in &self.mailboxes {
            let (reply, answer) = oneshot::channel();
            let _ = mailbox.send(Mail::Control(question(reply)));
            answers.push(answer);
        }
        let mut gathered = Vec::new();
        for answer in answers {
            gathered.extend(answer.await);
        }
        gathered
    }

    pub(super) async fn ask_rows<T>(
        &self,
        question: impl Fn(oneshot::Sender<Vec<T>>) -> Control,
    ) -> Vec<T> {
        self.ask(question).await.into_iter().flatten().collect()
    }

    /// Waits until no server of these databases is in use.
    pub(super) async fn quiet(&self, scope: &Scope) {
        while !self
            .ask(|reply| Control::IsQuiet(scope.clone(), reply))
            .await
            .into_iter()
            .all(|quiet| quiet)
        {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Begins a pause; false if everything is paused already.
    pub(super) fn begin_pause(&self, scope: Scope) -> bool {
        let begun = self.order(|orders| match &scope {
            _ if orders.paused => false,
            None => {
                orders.paused = true;
                true
            }
            Some(name) => {
                orders.paused_databases.retain(|known| known != name);
                orders.paused_databases.push(name.clone());
                true
            }
        });
        if begun {
            self.tell_workers(|| Control::Pause(scope.clone(), true));
        }
        begun
    }

    /// Ends a pause.
    pub(super) fn end_pause(&self, scope: Scope) {
        self.order(|orders| match &scope {
            None => orders.paused = false,
            Some(name) => orders.paused_databases.retain(|known| known != name),
        });
        self.tell_workers(|| Control::Pause(scope.clone(), false));
    }

    fn is_paused(&self, scope: &Scope) -> bool {
        let orders = self.orders.lock();
        match scope {
            None => orders.paused,
            Some(name) => orders.paused || orders.paused_databases.contains(name),
        }
    }

    /// A new generation of servers for one database, or for all.
    fn renew_database(&self, database: Option<&str>) {
        for share in self.budget.pools() {
            if database.is_none_or(|name| share.key.database == name) {
                share.renew();
            }
        }
    }

    /// Begins the end of the process; [`super::start`] waits for it.
    pub(super) fn begin_shutdown(&self, mode: ShutdownMode) {
        if self.is_draining() && mode != ShutdownMode::Immediate {
            return; // which comes to an end by itself, and soon
        }
        match mode {
            // Closes its doors later.
            ShutdownMode::Drain => self.notifier.stopping(),
            ShutdownMode::WaitForClients => self.admission.set_entrance(Entrance::Arrived),
            ShutdownMode::WaitForServers | ShutdownMode::Immediate => {
                self.admission.set_entrance(Entrance::Closed)
            }
        }
        self.order(|orders| orders.shutdown = Some(mode));
        if mode != ShutdownMode::Drain {
            // A drain is over soon, and tells balancers so meanwhile.
            self.web.leave(&self.config_now().settings);
        }
        if mode == ShutdownMode::WaitForServers {
            self.begin_pause(None);
            self.tell_workers(|| {
                Control::RefuseWaiting(
                    ClientError::new("server shutting down").as_kind(ErrorKind::PoolerShutdown),
                )
            });
        }
    }

    /// A signal has come; whether one has asked for the end before.
    pub(super) fn note_signal(&self, signal: Signal) -> bool {
        let mut orders = self.orders.lock();
        let before = orders.signalled;
        orders.signalled |= matches!(signal, Signal::Term | Signal::Int);
        before
    }

    /// The end that has been asked for is a drain.
    pub(super) fn is_draining(&self) -> bool {
        self.orders.lock().shutdown == Some(ShutdownMode::Drain)
    }

    /// Every database, configured or in use, without the console's own.
    fn all_databases(&self) -> Vec<Arc<Database>> {
        let config = self.config_now();
        let autodbs = self.autodbs.lock();
        config
            .databases
            .values()
            .chain(autodbs.values())
            .cloned()
            .collect()
    }
}

fn scope(database: Option<&str>) -> Scope {
    database.map(str::to_owned)
}

impl Operator for App {
    fn config(&self) -> Arc<Config> {
        self.config_now()
    }

    fn state(&self) -> GlobalState {
        let orders = self.orders.lock();
        GlobalState {
            paused: orders.paused,
            shutting_down: orders.shutdown.is_some(),
            draining: orders.shutdown == Some(ShutdownMode::Drain),
        }
    }

    fn database(&self, name: &str) -> Option<DatabaseState> {
        self.config_now().database(name)?;
        let paused = self
            .orders
            .lock()
            .paused_databases
            .iter()
            .any(|known| known == name);
        Some(DatabaseState {
            paused,
            disabled: self.admission.is_disabled(name),
        })
    }

    async fn pools(&self) -> Vec<PoolRow> {
        self.ask_rows(Control::Pools).await
    }

    async fn measures(&self) -> Measures {
        let mut workers = self.ask(Control::Measures).await;
        workers.sort_by_key(|worker| worker.worker);
        let mut parts: Vec<PoolMeasures> = Vec::new();
        for worker in &mut workers {
            parts.append(&mut worker.pools);
        }
        let shares = self.budget.pools();
        parts.extend(shares.iter().map(|share| share.retired()));
        let mut pools = merge_pools(parts);
        let of_process: HashMap<_, _> = shares
            .iter()
            .map(|share| {
                let key = &share.key;
                ((key.database.as_str(), key.user.as_str()), share)
            })
            .collect();
        for pool in &mut pools {
            if let Some(share) = of_process.get(&(pool.database.as_str(), pool.user.as_str())) {
                pool.connections = share.servers() as u64;
                pool.limits = share.limits();
            }
        }
        Measures {
            pools,
            workers,
            errors: self.admission.errors().read(),
            threads: metrics::threads::read(),
        }
    }

    async fn view(&self, id: u64) -> Option<ClientView> {
        let views = self.ask(|reply| Control::View(ConnId(id), reply)).await;
        views.into_iter().flatten().next()
    }

    async fn queue(&self, pool: &PoolKey, limit: Limit) -> QueueView {
        let queues = self.ask(|reply| Control::Queue(pool.clone(), limit, reply));
        merge_queues(queues.await)
    }

    async fn clients(&self) -> Vec<SocketRow> {
        self.ask_rows(Control::Clients).await
    }

    fn arrivals(&self) -> Vec<SocketRow> {
        let port = self.config_now().settings.listen_port;
        let arrivals = self.admission.arrivals().into_iter();
        arrivals
            .map(|(id, arriving)| arrival_row(id, arriving, port))
            .collect()
    }

    async fn servers(&self) -> Vec<SocketRow> {
        self.ask_rows(Control::Servers).await
    }

    async fn databases(&self) -> Vec<DatabaseRow> {
        let row = |entry: Arc<Database>| {
            let state = self.database(&entry.name).unwrap_or_default();
            DatabaseRow {
                current_connections: self.budget.servers_of(&entry.name, "").0 as u64,
                current_client_connections: u64::from(self.admission.database_clients(&entry.name)),
                paused: state.paused,
                disabled: state.disabled,
                entry,
            }
        };
        self.all_databases().into_iter().map(row).collect()
    }

    async fn users(&self) -> Vec<UserRow> {
        let in_force = self.in_force();
        let config = &in_force.blueprint.config;
        let listed = in_force
            .blueprint
            .users
            .users()
            .map(|user| user.display_name().into_owned());
        let forced = config
            .databases
            .values()
            .filter_map(|database| database.user.clone());
        let pooled = self
            .budget
            .pools()
            .into_iter()
            .map(|share| share.key.user.clone());
        let found: Vec<String> = self.acquaintances.lock().names().collect();
        let mut names: Vec<String> = listed
            .chain(forced)
            .chain(config.users.keys().cloned())
            .chain(pooled)
            .chain(found)
            .collect();
        names.sort();
        names.dedup();
        names.retain(|name| name != CONSOLE_DATABASE);
        let consoles = self.consoles.rows();
        let row = |name: String| UserRow {
            current_connections: self.budget.servers_of("", &name).1 as u64,
            current_client_connections: u64::from(self.admission.user_clients(&name))
                .saturating_sub(consoles.iter().filter(|row| row.user == name).count() as u64),
            name,
        };
        names.into_iter().map(row).collect()
    }

    fn lists(&self, pools: &[PoolRow]) -> Lists {
        let clients: u64 = pools
            .iter()
            .map(|pool| pool.cl_active + pool.cl_waiting)
            .sum();
        let known = clients + self.consoles.len() as u64;
        let sockets = self.admission.sockets() as u64;
        let servers: usize = self
            .budget
            .pools()
            .iter()
            .map(|share| share.servers())
            .sum();
        Lists {
            used_clients: sockets.saturating_sub(self.consoles.len() as u64),
            login_clients: sockets.saturating_sub(known),
            used_servers: servers as u64,
            dns_queries: self.in_force().blueprint.dns.queries() as u64,
            workers: self.mailboxes.len() as u64,
        }
    }

    async fn peer_pools(&self) -> Vec<PeerPoolRow> {
        self.peers.rows()
    }

    async fn dns_hosts(&self) -> Vec<DnsHostRow> {
        let rows = self.in_force().blueprint.dns.host_rows().into_iter();
        let rows = rows.map(|row| DnsHostRow {
            hostname: row.name.to_string(),
            ttl_s: row.ttl.as_secs(),
            addresses: row.addresses,
        });
        rows.collect()
    }

    async fn dns_zones(&self) -> Vec<DnsZoneRow> {
        let rows = self.in_force().blueprint.dns.zone_rows().into_iter();
        let rows = rows.map(|row| DnsZoneRow {
            zonename: row.name.to_string(),
            serial: row.serial,
            count: row.names as u64,
        });
        rows.collect()
    }

    fn reloads(&self) -> Reloads {
        *self.reloads.lock()
    }

    fn certificates(&self) -> Vec<CertificateRow> {
        let in_force = self.in_force();
        let client = in_force.desk.tls.iter();
        let client = client.flat_map(|tls| certificate_rows("client", tls.expiries()));
        let server = in_force.blueprint.tls.iter();
        let server = server.flat_map(|tls| certificate_rows("server", tls.expiries()));
        client.chain(server).collect()
    }

    fn suppressed_lines(&self) -> u64 {
        self.logs.suppressed()
    }

    async fn reload(&self) -> Result<(), CommandError> {
        self.reload_now()
    }

    async fn set(&self, key: &str, value: &str) -> Result<SetOutcome, CommandError> {
        let result = self.set_now(key, value);
        self.watch_also();
        result
    }

    async fn pause(&self, database: Option<&str>) -> Result<(), CommandError> {
        let scope = scope(database);
        let mut changes = self.orders_changed.subscribe();
        if !self.begin_pause(scope.clone()) {
            return Err(CommandError::AlreadyPaused);
        }
        let resumed = async {
            while self.is_paused(&scope) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = self.quiet(&scope) => Ok(()),
            () = resumed => Err(CommandError::PauseEnded),
        }
    }

    async fn resume(&self, database: Option<&str>) -> Result<(), CommandError> {
        self.end_pause(scope(database));
        Ok(())
    }

    async fn disable(&self, database: &str) -> Result<(), CommandError> {
        self.admission.set_disabled(database, true);
        Ok(())
    }

    async fn enable(&self, database: &str) -> Result<(), CommandError> {
        self.admission.set_disabled(database, false);
        Ok(())
    }

    async fn reconnect(&self, database: Option<&str>) -> Result<(), CommandError> {
        self.renew_database(database);
        self.tell_workers(|| Control::Renew(scope(database)));
        Ok(())
    }

    async fn kill(&self, database: Option<&str>) -> Result<(), CommandError> {
        let names = match database {
            Some(name) => vec![name.to_owned()],
            None => self
                .all_databases()
                .iter()
                .map(|database| database.name.clone())
                .collect(),
        };
        for name in names {
            self.begin_pause(Some(name.clone()));
            // Nobody is greeted before RESUME: what was known of the servers went with them.
            self.renew_database(Some(&name));
            self.tell_workers(|| {
                Control::Kill(
                    Some(name.clone()),
                    ClientError::new("database removed").as_kind(ErrorKind::Killed),
                )
            });
        }
        Ok(())
    }

    async fn kill_client(&self, id: u64) -> bool {
        let error = ClientError::new("admin forced disconnect").as_kind(ErrorKind::Killed);
        let found = self
            .ask(|reply| Control::KillClient(ConnId(id), error.clone(), reply))
            .await;
        found.into_iter().any(|found| found)
    }

    async fn wait_close(&self, database: Option<&str>) -> Result<(), CommandError> {
        let scope = scope(database);
        while self
            .ask(|reply| Control::Closing(scope.clone(), reply))
            .await
            .into_iter()
            .sum::<usize>()
            > 0
        {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    async fn shutdown(&self, mode: ShutdownMode) {
        self.begin_shutdown(mode);
        if matches!(
            mode,
            ShutdownMode::WaitForServers | ShutdownMode::WaitForClients
        ) {
            // Whoever is told that the end has begun finds the port closed.
            let mut closed = self.tcp_closed.subscribe();
            let closed = closed.wait_for(|closed| *closed);
            let _ = tokio::time::timeout(CLOSING_MAX, closed).await;
        }
    }
}

fn certificate_rows<'a>(
    side: &'static str,
    expiries: &'a [Expiry],
) -> impl Iterator<Item = CertificateRow> + 'a {
    expiries.iter().map(move |expiry| CertificateRow {
        side,
        file: expiry.file.clone(),
        not_after: expiry.not_after,
    })
}

/// A client that is logging in, as PgBouncer shows it.
fn arrival_row(id: ConnId, arriving: Arriving, listen_port: u16) -> SocketRow {
    let (peer, local) = (arriving.peer, arriving.local);
    SocketRow {
        user: arriving.user.unwrap_or_else(|| "(nouser)".to_owned()),
        database: arriving.database.unwrap_or_else(|| "(nodb)".to_owned()),
        state: "login",
        ..SocketRow::of_client(id, arriving.connected_at, peer, local, listen_port)
    }
}
