//! Plays a scenario against one pooler and writes down what was seen. The transcript repeats each step as it was written, so that it can
//! be read alone; what came of it stands indented below.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::backend;
use crate::backend::Backend;
use crate::client::{self, Client, End, Options};
use crate::fixture::tls::Authority;
use crate::fixture::{Cluster, Table, free_port, write_file};
use crate::normal::Names;
use crate::proto::{Conn, Frame, Reply, msg, scram};
use crate::render::{self, Selection};
use crate::scenario::{Scenario, Step, head, words};
use crate::subject::{Config, Instance, Subject};

/// How long a step waits for a condition, a start, an end.
const WAIT_LIMIT: Duration = Duration::from_secs(15);
/// The database in the shared cluster that scenarios use unless they ask for one of their own.
pub const SHARED_DATABASE: &str = "compat";
/// Plays end after this time, whatever they wait for.
const PLAY_LIMIT: Duration = Duration::from_secs(90);

/// What was written down so far; it survives a play that fails.
#[derive(Clone, Default)]
struct Transcript(Arc<Mutex<String>>);

impl Transcript {
    fn line(&self, text: &str) {
        let mut all = self.0.lock().unwrap_or_else(|e| e.into_inner());
        all.push_str(text);
        all.push('\n');
    }

    fn take(&self) -> String {
        std::mem::take(&mut self.0.lock().unwrap_or_else(|e| e.into_inner()))
    }
}

/// The transcript of a scenario; a play that breaks down says so in its last line.
pub async fn play(scenario: &Scenario, subject: &Subject) -> String {
    let transcript = Transcript::default();
    let body = {
        let (scenario, subject, transcript) =
            (scenario.clone(), subject.clone(), transcript.clone());
        tokio::spawn(async move {
            let mut player = Player::new(&subject, transcript).await;
            for step in &scenario.steps {
                player.step(step).await;
            }
        })
    };
    let abort = body.abort_handle();
    match tokio::time::timeout(PLAY_LIMIT, body).await {
        Ok(Ok(())) => {}
        Ok(Err(panic)) => {
            let why = panic.try_into_panic().map_or_else(
                |_| "cancelled".to_string(),
                |p| {
                    p.downcast_ref::<String>()
                        .cloned()
                        .or_else(|| p.downcast_ref::<&str>().map(ToString::to_string))
                        .unwrap_or_default()
                },
            );
            transcript.line(&format!("!! broke down: {why}"));
        }
        Err(_) => {
            abort.abort();
            transcript.line(&format!("!! not done after {PLAY_LIMIT:?}"));
        }
    }
    transcript.take()
}

struct Player {
    out: Transcript,
    instance: Instance,
    config: Config,
    names: Names,
    variables: BTreeMap<String, String>,
    clients: BTreeMap<String, Client>,
    console: Client,
    scripts: BTreeMap<String, Backend>,
    own_cluster: Option<Cluster>,
    arguments: Vec<String>,
    log_read: usize,
    clock: Instant,
}

impl Player {
    async fn new(subject: &Subject, out: Transcript) -> Player {
        let cluster = Cluster::shared();
        let instance = Instance::new(subject);
        let database = format!("{} dbname={SHARED_DATABASE}", cluster.address());
        let config = Config::new(&instance.dir, instance.port, &database);
        let mut player = Player {
            out,
            config,
            names: Names::default(),
            variables: BTreeMap::new(),
            clients: BTreeMap::new(),
            console: Client::default(),
            scripts: BTreeMap::new(),
            own_cluster: None,
            arguments: vec![],
            log_read: 0,
            clock: Instant::now(),
            instance,
        };
        let dir = player.instance.dir.display().to_string();
        player.name("DIR", &dir);
        player.name("PORT", &player.instance.port.to_string());
        player.name("CLOSED", &free_port().to_string());
        player.name("PG", &cluster.port.to_string());
        player.name("PGDIR", &cluster.dir.display().to_string());
        player
            .variables
            .insert("DB".to_string(), SHARED_DATABASE.to_string());
        player
    }

    /// A value that is only known now: written `$NAME` in the scenario and in the transcript.
    fn name(&mut self, name: &str, value: &str) {
        self.names.add(name, value);
        self.variables.insert(name.to_string(), value.to_string());
    }

    /// Puts the values of `$NAME`, `{md5:USER:PASSWORD}` and `{scram:PASSWORD}` in place.
    fn expand(&self, text: &str) -> String {
        let mut out = text.to_string();
        // The longest names first: $PGDIR is not $PG with a tail.
        let mut all: Vec<_> = self.variables.iter().collect();
        all.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        for (name, value) in all {
            out = out.replace(&format!("${name}"), value);
        }
        while let Some((before, made, after)) = function(&out) {
            out = format!("{before}{made}{after}");
        }
        out
    }

    fn say(&self, text: &str) {
        for line in text.lines() {
            self.out.line(&format!("  {}", self.names.normal(line)));
        }
    }

    async fn step(&mut self, step: &Step) {
        self.out.line(step.text().trim_end());
        let line = self.expand(&step.line);
        let block: Vec<String> = step.block.iter().map(|l| self.expand(l)).collect();
        let (verb, rest) = head(&line);
        match verb {
            "ini" | "database" | "user" | "peer" | "secret" => self.config.change(verb, rest),
            "config" => self.config.whole = Some(joined(&block)),
            "secrets" => self.config.whole_secrets = Some(joined(&block)),
            "file" => write_file(&self.instance.dir.join(rest), joined(&block)),
            "tls" => self.tls_files(),
            "args" => self.arguments = words(rest),
            "fresh" => self.fresh_database().await,
            "own" => self.take_own_cluster().await,
            "cluster" => self.cluster(rest).await,
            "sql" => self.sql(rest, &block).await,
            "script" => self.script(rest, &block).await,
            "start" => self.start().await,
            "run" => self.run(rest).await,
            "write" => self.config.write(&self.instance.dir),
            "reload" => {
                self.config.write(&self.instance.dir);
                self.console("RELOAD").await;
            }
            ">" => self.console(rest).await,
            "quit" => self.console.drop_connection(),
            "set" => self.set(rest).await,
            "try" => self.try_line(rest).await,
            "wait" => self.wait(rest).await,
            "let" => self.bind(rest).await,
            "signal" => self.signal(rest),
            "exit" => {
                let how = self.instance.wait_end(WAIT_LIMIT).await;
                self.say(&how);
            }
            "log" => self.log(rest),
            "clock" => self.clock = Instant::now(),
            "elapsed" => self.elapsed(rest),
            _ => self.client(verb, rest, &block).await,
        }
    }

    async fn fresh_database(&mut self) {
        let cluster = Cluster::shared();
        let database = cluster.fresh_db().await;
        self.name("DB", &database);
        let entry = format!("p = {} dbname={database}", cluster.address());
        self.config.change("database", &entry);
    }

    async fn take_own_cluster(&mut self) {
        let cluster = tokio::task::spawn_blocking(Cluster::own)
            .await
            .expect("a cluster starts");
        self.name("PG", &cluster.port.to_string());
        self.name("PGDIR", &cluster.dir.display().to_string());
        let entry = format!("p = {} dbname=postgres", cluster.address());
        self.config.change("database", &entry);
        self.variables.insert("DB".into(), "postgres".into());
        self.own_cluster = Some(cluster);
    }

    async fn cluster(&mut self, what: &str) {
        let cluster = self.own_cluster.take().expect("own cluster");
        let what = what.to_string();
        let cluster = tokio::task::spawn_blocking(move || {
            match what.as_str() {
                "stop" => cluster.stop(Signal::SIGINT),
                "kill" => cluster.stop(Signal::SIGQUIT),
                _ => cluster.start(),
            }
            cluster
        });
        self.own_cluster = Some(cluster.await.expect("the cluster obeys"));
    }

    fn the_cluster(&self) -> &Cluster {
        self.own_cluster.as_ref().unwrap_or(Cluster::shared())
    }

    /// `sql TEXT` as superuser in the scenario's database, past the pooler; `sql! TEXT` would show; errors do.
    async fn sql(&mut self, rest: &str, block: &[String]) {
        let text = [rest.to_string(), joined(block)].join("\n");
        let mut conn = self.the_cluster().admin(&self.variables["DB"]).await;
        if let Some(error) = conn.query(text.trim()).await.error_text() {
            self.say(&error);
        }
    }

    async fn script(&mut self, name: &str, block: &[String]) {
        if let Some(name) = name.strip_prefix("stop ") {
            self.scripts.remove(name);
            return;
        }
        if let Some(name) = name.strip_prefix("go ") {
            self.scripts.get(name).expect("a script").go();
            return;
        }
        let script = backend::start(block).await;
        self.name(name, &script.script.port.to_string());
        self.scripts.insert(name.to_string(), script);
    }

    /// A server certificate for the pooler, its key and the authority that the scenario's clients trust.
    fn tls_files(&mut self) {
        let authority = Authority::shared();
        let pair = authority.server_cert();
        let dir = &self.instance.dir;
        write_file(&dir.join("tls.crt"), &pair.cert_pem);
        write_file(&dir.join("tls.key"), &pair.key_pem);
        write_file(&dir.join("ca.crt"), authority.ca_pem());
        let dir = dir.display();
        for (key, file) in [("cert", "tls.crt"), ("key", "tls.key"), ("ca", "ca.crt")] {
            let line = format!("client_tls_{key}_file = {dir}/{file}");
            self.config.change("ini", &line);
        }
    }

    // --- the process ---------------------------------------------------------------------------------------------------------

    fn ini_path(&self) -> String {
        self.instance.dir.join("pooler.ini").display().to_string()
    }

    async fn start(&mut self) {
        self.config.write(&self.instance.dir);
        let mut arguments = self.arguments.clone();
        arguments.push(self.ini_path());
        self.instance.spawn(&arguments);
        if let Some(how) = self.instance.wait_up(WAIT_LIMIT).await {
            self.say(&how);
            self.log("all");
        }
        self.log_read = self.instance.stderr().len();
    }

    async fn ensure_started(&mut self) {
        if !self.instance.is_started() && self.log_read == 0 {
            self.start().await;
        }
    }

    /// The program with these arguments, until it is up or has ended; its outputs and how it ended.
    async fn run(&mut self, rest: &str) {
        self.config.write(&self.instance.dir);
        let arguments = if rest.is_empty() {
            vec![self.ini_path()]
        } else {
            words(rest)
        };
        self.instance.spawn(&arguments);
        let how = self.instance.wait_up(WAIT_LIMIT).await;
        self.say(how.as_deref().unwrap_or("up"));
        for line in self.instance.stdout().lines() {
            self.say(&format!("out: {line}"));
        }
        self.log_read = 0;
        self.log("all");
        self.instance.kill();
    }

    fn signal(&mut self, name: &str) {
        let signal = match name {
            "HUP" => Signal::SIGHUP,
            "INT" => Signal::SIGINT,
            "TERM" => Signal::SIGTERM,
            "QUIT" => Signal::SIGQUIT,
            "USR1" => Signal::SIGUSR1,
            "USR2" => Signal::SIGUSR2,
            "PIPE" => Signal::SIGPIPE,
            _ => panic!("signal {name}?"),
        };
        if name == "HUP" {
            self.config.write(&self.instance.dir);
        }
        self.instance.signal(signal);
    }

    /// New lines of the log. `sorted` puts them in alphabetical order, `unique` shows a line
    /// that comes again and again once, `all` shows also those of the scenario's own console, and any
    /// other words are pieces of text of which a line must have one; `"…"` keeps blanks.
    fn log(&mut self, rest: &str) {
        let mut pieces = words(rest);
        let mut flag = |name: &str| {
            let before = pieces.len();
            pieces.retain(|p| p != name);
            pieces.len() < before
        };
        let (sorted, all, unique) = (flag("sorted"), flag("all"), flag("unique"));
        let log = self.instance.stderr();
        let complete = log.rfind('\n').map_or(0, |at| at + 1);
        let new = log.get(self.log_read..complete).unwrap_or_default();
        let mut lines: Vec<String> = new
            .lines()
            .map(|l| self.names.normal_log(l))
            .filter(|l| all || !is_our_console(l))
            .filter(|l| pieces.is_empty() || pieces.iter().any(|p| l.contains(p.as_str())))
            .collect();
        self.log_read = complete;
        if sorted {
            lines.sort();
        }
        if unique {
            lines.dedup();
        }
        lines.iter().for_each(|l| self.out.line(&format!("  {l}")));
    }

    fn elapsed(&mut self, rest: &str) {
        let (low, high) = rest
            .split_once("..")
            .expect("elapsed LOW..HIGH, in milliseconds");
        let number = |t: &str| t.trim().parse::<u128>().expect("milliseconds");
        let ms = self.clock.elapsed().as_millis();
        if ms >= number(low) && ms <= number(high) {
            self.say("in time");
        } else {
            self.say(&format!("after {ms} ms"));
        }
    }

    // --- the console ---------------------------------------------------------------------------------------------------------

    /// A reply of the console, which is logged in when it is not yet, or no longer.
    async fn ask(&mut self, command: &str) -> Result<Vec<Frame>, String> {
        self.ensure_started().await;
        if !self.console.is_open() {
            let options = Options::parse("console");
            let (port, socket) = (self.instance.port, self.instance.socket());
            let told = self.console.connect(port, &socket, &options, false).await;
            if !told.ends_with("ready") {
                self.console.drop_connection();
                return Err(told);
            }
        }
        self.console.send(&msg::query(command)).await;
        let (frames, end) = self.console.until_ready(1).await;
        match end {
            End::Enough => Ok(frames),
            End::Closed => Err(format!("{} closed", render::frames(&frames))),
            End::Silence => {
                self.console.drop_connection();
                Err(format!("{} (silence)", render::frames(&frames)))
            }
        }
    }

    /// `COMMAND [| COLUMN… where KEY=VALUE… sorted]`
    async fn console(&mut self, text: &str) {
        let (command, selection) = match text.split_once(" | ") {
            Some((command, selection)) => (command, Some(Selection::parse(selection))),
            None => (text, None),
        };
        match self.ask(command).await {
            Ok(frames) => {
                let lines = render::console(&frames, selection.as_ref(), &self.names);
                self.say(&lines.join("\n"));
            }
            Err(why) => self.say(why.trim()),
        }
    }

    /// `set NAME = VALUE`: the console's SET, and what SHOW CONFIG says of it then. A RELOAD takes it back.
    async fn set(&mut self, text: &str) {
        let (name, value) = text.split_once('=').expect("set NAME = VALUE");
        let (name, value) = (name.trim(), value.trim().replace('\'', "''"));
        let told = self.ask_in_a_line(&format!("SET {name} = '{value}'")).await;
        let now = self.setting(name).await;
        self.say(&format!("{told} => {now}"));
        let _ = self.ask("RELOAD").await;
    }

    /// `try NAME = VALUE`: the line in the file, RELOAD, what SHOW CONFIG says of it then, and complaints in the log. Then the file is
    /// as it was.
    async fn try_line(&mut self, line: &str) {
        self.ensure_started().await;
        let before = self.config.clone();
        self.config.change("ini", line);
        self.config.write(&self.instance.dir);
        let name = line.split_once('=').expect("try NAME = VALUE").0.trim();
        let told = self.ask_in_a_line("RELOAD").await;
        let now = self.setting(name).await;
        self.say(&format!("{told} => {now}"));
        self.log("ERROR WARNING FATAL");
        self.config = before;
        self.config.write(&self.instance.dir);
        let _ = self.ask("RELOAD").await;
        self.log("nothing of this");
    }

    async fn ask_in_a_line(&mut self, command: &str) -> String {
        match self.ask(command).await {
            Ok(frames) => render::frames(&frames),
            Err(why) => why,
        }
    }

    async fn setting(&mut self, name: &str) -> String {
        let Some(table) = self.table("CONFIG").await else {
            return "(no answer)".to_string();
        };
        match table.find(&[("key", name)]) {
            Some(row) => row[1].clone().unwrap_or_else(|| "NULL".to_string()),
            None => "(no such setting)".to_string(),
        }
    }

    async fn table(&mut self, what: &str) -> Option<Table> {
        let frames = self.ask(&format!("SHOW {what}")).await.ok()?;
        Some(Table::new(&Reply { frames }))
    }

    /// `TABLE KEY=VALUE… : COLUMN=VALUE…` waits for a row that is so; `: none` for none; `log TEXT` for a line; `end` for the end.
    async fn wait(&mut self, rest: &str) {
        self.ensure_started().await;
        let deadline = Instant::now() + WAIT_LIMIT;
        let mut pause = Duration::from_millis(5);
        loop {
            let seen = match self.holds(rest).await {
                Ok(()) => return,
                Err(seen) => seen,
            };
            if Instant::now() > deadline {
                self.say(&format!("in vain; last seen: {seen}"));
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(60));
        }
    }

    async fn holds(&mut self, condition: &str) -> Result<(), String> {
        if let Some(text) = condition.strip_prefix("log ") {
            let log = self.instance.stderr();
            let new = log.get(self.log_read..).unwrap_or_default();
            return if new.contains(text) {
                Ok(())
            } else {
                Err(new.to_string())
            };
        }
        if let Some(query) = condition.strip_prefix("sql ") {
            let reply = self.the_cluster().sql(&self.variables["DB"], query).await;
            return match reply.value().as_str() {
                "t" => Ok(()),
                other => Err(other.to_string()),
            };
        }
        let (what, wanted) = condition.split_once(':').expect("wait TABLE : CONDITION");
        let mut what = words(what).into_iter();
        let name = what.next().expect("a table");
        let keys: Vec<String> = what.collect();
        let Some(table) = self.table(&name).await else {
            return Err("no answer".to_string());
        };
        let matches = |row: &&Vec<Option<String>>| keys.iter().all(|k| is_so(&table, row, k));
        let rows: Vec<_> = table.rows.iter().filter(matches).collect();
        let wanted = words(wanted);
        let good = match wanted[0].as_str() {
            "none" => rows.is_empty(),
            "count" => rows.len().to_string() == wanted[1],
            _ => rows
                .iter()
                .any(|row| wanted.iter().all(|w| is_so(&table, row, w))),
        };
        if good {
            Ok(())
        } else {
            Err(format!("{rows:?}"))
        }
    }

    /// `NAME = TABLE KEY=VALUE… : COLUMN`, `NAME = sql TEXT` or `NAME = CLIENT: SQL`: keeps a value for later steps.
    async fn bind(&mut self, rest: &str) {
        let (name, source) = rest.split_once(" = ").expect("let NAME = SOURCE");
        let (first, tail) = head(source);
        let value = if first == "sql" {
            let database = self.variables["DB"].clone();
            self.the_cluster().sql(&database, tail).await.value()
        } else if let Some(who) = first.strip_suffix(':') {
            let client = self.clients.entry(who.to_string()).or_default();
            client.send(&msg::query(tail)).await;
            let frames = client.until_ready(1).await.0;
            let rows = Reply { frames }.rows();
            rows.first().and_then(|r| r[0].clone()).unwrap_or_default()
        } else {
            let (table, column) = source.split_once(':').expect("TABLE KEY=VALUE : COLUMN");
            let keys = words(table);
            let table = self.table(&keys[0]).await.expect("a table");
            let row = table
                .rows
                .iter()
                .find(|row| keys[1..].iter().all(|k| is_so(&table, row, k)));
            row.map_or(String::new(), |row| {
                table.get(row, column.trim()).to_string()
            })
        };
        self.variables.insert(name.to_string(), value);
    }

    // --- clients -------------------------------------------------------------------------------------------------------------

    async fn client(&mut self, who: &str, rest: &str, block: &[String]) {
        self.ensure_started().await;
        let (port, socket) = (self.instance.port, self.instance.socket());
        let keys: BTreeMap<String, Vec<u8>> = self
            .clients
            .iter()
            .map(|(name, c)| (name.clone(), c.key.clone()))
            .collect();
        let key_of = |name: &str| keys.get(name).cloned().unwrap_or_default();
        let (name, sql) = match who.strip_suffix(':') {
            Some(name) => (name, Some([&[rest.to_string()], block].concat().join("\n"))),
            None => (who, None),
        };
        let mut client = self.clients.remove(name).unwrap_or_default();
        let told = match sql {
            Some(sql) => query(&mut client, sql.trim(), &self.names).await,
            None => {
                let (verb, rest) = head(rest);
                match verb {
                    "connect" | "connect!" => {
                        let options = Options::parse(rest);
                        client
                            .connect(port, &socket, &options, verb == "connect!")
                            .await
                    }
                    "open" => {
                        let socket = (rest == "unix").then_some(socket.as_path());
                        client.open(port, socket).await.err().unwrap_or_default()
                    }
                    "authenticate" => {
                        let options = Options::parse(rest);
                        let user = &options.parameters[0].1;
                        let password = options.password.as_deref();
                        client.log_in(user, password, false).await
                    }
                    "ext" => extended(&mut client, block, &key_of, &self.names).await,
                    "read" => read(&mut client, rest, &self.names).await,
                    "rest" => client.rest().await,
                    "byte" => client.byte().await,
                    "tls" => client.upgrade(rest).await,
                    "silent" => {
                        let ms = rest.parse().expect("milliseconds");
                        client.silent_for(Duration::from_millis(ms)).await
                    }
                    "close" => {
                        client.send(&msg::terminate()).await;
                        read(&mut client, "end", &self.names).await
                    }
                    "drop" => {
                        client.drop_connection();
                        String::new()
                    }
                    "shut" => {
                        client.shut_down_writing().await;
                        String::new()
                    }
                    "cancel" => cancel(port, &key_of(rest)).await,
                    _ => match client::message(&format!("{verb} {rest}"), &key_of) {
                        Some(bytes) => {
                            client.send(&bytes).await;
                            String::new()
                        }
                        None => panic!("no such step: {who} {verb} {rest}"),
                    },
                }
            }
        };
        self.clients.insert(name.to_string(), client);
        self.say(&told);
    }
}

/// Before, value and after of the first `{function:argument}`.
fn function(text: &str) -> Option<(String, String, String)> {
    let (before, rest) = text
        .split_once("{md5:")
        .or_else(|| text.split_once("{scram:"))?;
    let (inner, after) = rest.split_once('}')?;
    let made = if text[before.len()..].starts_with("{md5:") {
        let (user, password) = inner.split_once(':').expect("{md5:USER:PASSWORD}");
        client::md5_secret(user, password)
    } else {
        scram::secret(inner, b"0123456789abcdef", 4096)
    };
    Some((before.to_string(), made, after.to_string()))
}

fn joined(block: &[String]) -> String {
    block.iter().map(|l| format!("{l}\n")).collect()
}

/// Lines about the console over the Unix socket, through which the scenario itself looks in.
fn is_our_console(line: &str) -> bool {
    line.contains("/admin@unix") || line.contains("C: (nodb)/(nouser)@unix")
}

/// `COLUMN=VALUE`, `COLUMN>=NUMBER` or `COLUMN<=NUMBER` in a row.
fn is_so(table: &Table, row: &[Option<String>], condition: &str) -> bool {
    let number = |t: &str| t.parse::<i64>().unwrap_or(i64::MIN);
    if let Some((column, value)) = condition.split_once(">=") {
        number(table.get(row, column)) >= number(value)
    } else if let Some((column, value)) = condition.split_once("<=") {
        number(table.get(row, column)) <= number(value)
    } else {
        let (column, value) = condition.split_once('=').expect("COLUMN=VALUE");
        table.get(row, column) == value
    }
}

fn reply(client: &Client, frames: &[Frame], end: End, names: &Names) -> String {
    let text = if client.console {
        render::console(frames, None, names).join("\n")
    } else {
        render::frames(frames)
    };
    match end {
        End::Enough => text,
        End::Closed => format!("{text} closed").trim().to_string(),
        End::Silence => format!("{text} (silence)").trim().to_string(),
    }
}

async fn query(client: &mut Client, sql: &str, names: &Names) -> String {
    client.send(&msg::query(sql)).await;
    let (frames, end) = client.until_ready(1).await;
    reply(client, &frames, end, names)
}

/// Messages in one write, and as many replies as there are Syncs and Queries.
async fn extended(
    client: &mut Client,
    block: &[String],
    key_of: &(dyn Fn(&str) -> Vec<u8> + Sync),
    names: &Names,
) -> String {
    let bytes: Vec<u8> = block
        .iter()
        .flat_map(|m| client::message(m, key_of).unwrap_or_else(|| panic!("no message {m}")))
        .collect();
    let asks = |m: &&String| m.starts_with("Sync") || m.starts_with("Query");
    let times = block.iter().filter(asks).count();
    client.send(&bytes).await;
    if times == 0 {
        return String::new();
    }
    let (frames, end) = client.until_ready(times).await;
    reply(client, &frames, end, names)
}

/// `read` up to ReadyForQuery; `read end` up to the end; `read TAG` up to a message; `read 3` three messages.
async fn read(client: &mut Client, what: &str, names: &Names) -> String {
    let mut count = 0;
    let (frames, end) = match what {
        "" => client.until_ready(1).await,
        "end" => client.read(|_| false).await,
        _ => match what.parse::<usize>() {
            Ok(wanted) => {
                client
                    .read(|_| {
                        count += 1;
                        count == wanted
                    })
                    .await
            }
            Err(_) => client.read(|f| f.is(what.as_bytes()[0])).await,
        },
    };
    reply(client, &frames, end, names)
}

/// A CancelRequest on a connection of its own, until the pooler closes it.
async fn cancel(port: u16, key: &[u8]) -> String {
    let mut conn = Conn::tcp(port).await;
    conn.send(&msg::cancel(key)).await;
    match tokio::time::timeout(client::PATIENCE, conn.until_closed()).await {
        Ok(frames) => format!("{} closed", render::frames(&frames))
            .trim()
            .to_string(),
        Err(_) => "(silence)".to_string(),
    }
}
