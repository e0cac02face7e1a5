//! For tests: a program to operate that writes down what it is told, and a client that speaks to a console over a pipe.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Notify;

use super::desk::ConsoleUser;
use super::error::CommandError;
use super::operator::{DatabaseState, GlobalState, Operator, SetOutcome, ShutdownMode};
use super::rights::Role;
use super::rows::{
    CertificateRow, DatabaseRow, DnsHostRow, DnsZoneRow, Lists, PeerPoolRow, Reloads, UserRow,
};
use crate::config::Config;
use crate::metrics::{Limit, Measures};
use crate::types::PoolKey;
use crate::wire::frame;
use crate::worker::report::{ClientView, PoolRow, QueueView, SocketRow};

/// The program as the test wants it.
#[derive(Default)]
pub(crate) struct Fake {
    pub config: Mutex<Arc<Config>>,
    pub state: Mutex<GlobalState>,
    pub states: Mutex<BTreeMap<String, DatabaseState>>,
    pub pools: Vec<PoolRow>,
    pub measures: Measures,
    pub views: Vec<ClientView>,
    pub queue: QueueView,
    pub clients: Vec<SocketRow>,
    pub servers: Vec<SocketRow>,
    pub databases: Vec<DatabaseRow>,
    pub users: Vec<UserRow>,
    pub lists: Lists,
    pub peer_pools: Vec<PeerPoolRow>,
    pub dns_hosts: Vec<DnsHostRow>,
    pub dns_zones: Vec<DnsZoneRow>,
    /// PAUSE and WAIT_CLOSE wait for `finish`.
    pub slow: bool,
    pub finish: Notify,
    /// What RELOAD and the like answer instead of success.
    pub failure: Option<CommandError>,
    pub old_tls_kept: bool,
    pub told: Mutex<Vec<String>>,
}

impl Fake {
    /// A program that knows these databases.
    pub(crate) fn with_databases(names: &[&str]) -> Self {
        let fake = Fake::default();
        for name in names {
            fake.states
                .lock()
                .insert((*name).to_owned(), DatabaseState::default());
        }
        fake
    }

    /// What it has been told since the last time.
    pub(crate) fn told(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.lock())
    }

    fn tell(&self, text: String) -> Result<(), CommandError> {
        self.told.lock().push(text);
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn set_paused(&self, database: Option<&str>, paused: bool) {
        match database {
            None => self.state.lock().paused = paused,
            Some(name) => {
                self.states
                    .lock()
                    .entry(name.to_owned())
                    .or_default()
                    .paused = paused;
            }
        }
    }

    async fn finished(&self) {
        if self.slow {
            self.finish.notified().await;
        }
    }
}

impl Operator for Fake {
    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.lock())
    }

    fn state(&self) -> GlobalState {
        *self.state.lock()
    }

    fn database(&self, name: &str) -> Option<DatabaseState> {
        self.states.lock().get(name).copied()
    }

    async fn pools(&self) -> Vec<PoolRow> {
        self.pools.clone()
    }

    async fn measures(&self) -> Measures {
        self.measures.clone()
    }

    async fn view(&self, id: u64) -> Option<ClientView> {
        self.views.iter().find(|view| view.id == id).cloned()
    }

    async fn queue(&self, _: &PoolKey, _: Limit) -> QueueView {
        self.queue.clone()
    }

    async fn clients(&self) -> Vec<SocketRow> {
        self.clients.clone()
    }

    fn arrivals(&self) -> Vec<SocketRow> {
        Vec::new()
    }

    async fn servers(&self) -> Vec<SocketRow> {
        self.servers.clone()
    }

    async fn databases(&self) -> Vec<DatabaseRow> {
        self.databases.clone()
    }

    async fn users(&self) -> Vec<UserRow> {
        self.users.clone()
    }

    fn lists(&self, _: &[PoolRow]) -> Lists {
        self.lists
    }

    async fn peer_pools(&self) -> Vec<PeerPoolRow> {
        self.peer_pools.clone()
    }

    async fn dns_hosts(&self) -> Vec<DnsHostRow> {
        self.dns_hosts.clone()
    }

    async fn dns_zones(&self) -> Vec<DnsZoneRow> {
        self.dns_zones.clone()
    }

    fn reloads(&self) -> Reloads {
        Reloads::begin(SystemTime::UNIX_EPOCH)
    }

    fn certificates(&self) -> Vec<CertificateRow> {
        Vec::new()
    }

    fn suppressed_lines(&self) -> u64 {
        0
    }

    async fn reload(&self) -> Result<(), CommandError> {
        self.tell("reload".to_owned())
    }

    async fn set(&self, key: &str, value: &str) -> Result<SetOutcome, CommandError> {
        self.tell(format!("set {key} {value}"))?;
        Ok(match self.old_tls_kept {
            true => SetOutcome::OldTlsKept,
            false => SetOutcome::Applied,
        })
    }

    async fn pause(&self, database: Option<&str>) -> Result<(), CommandError> {
        self.set_paused(database, true);
        self.tell(format!("pause {database:?}"))?;
        self.finished().await;
        Ok(())
    }

    async fn resume(&self, database: Option<&str>) -> Result<(), CommandError> {
        self.set_paused(database, false);
        self.tell(format!("resume {database:?}"))
    }

    async fn disable(&self, database: &str) -> Result<(), CommandError> {
        self.tell(format!("disable {database}"))
    }

    async fn enable(&self, database: &str) -> Result<(), CommandError> {
        self.tell(format!("enable {database}"))
    }

    async fn reconnect(&self, database: Option<&str>) -> Result<(), CommandError> {
        self.tell(format!("reconnect {database:?}"))
    }

    async fn kill(&self, database: Option<&str>) -> Result<(), CommandError> {
        self.tell(format!("kill {database:?}"))
    }

    async fn kill_client(&self, id: u64) -> bool {
        self.told.lock().push(format!("kill_client {id}"));
        self.clients.iter().any(|client| client.id == id)
    }

    async fn wait_close(&self, database: Option<&str>) -> Result<(), CommandError> {
        self.tell(format!("wait_close {database:?}"))?;
        self.finished().await;
        Ok(())
    }

    async fn shutdown(&self, mode: ShutdownMode) {
        self.told.lock().push(format!("shutdown {mode:?}"));
    }
}

/// A connection of this user with this id.
pub(crate) fn socket(user: &str, id: u64) -> SocketRow {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_219_580);
    SocketRow {
        user: user.to_owned(),
        database: super::CONSOLE.to_owned(),
        replication: "none",
        state: "idle",
        addr: "127.0.0.1".to_owned(),
        port: 41964,
        local_addr: "127.0.0.1".to_owned(),
        local_port: 6432,
        connect_time: at,
        request_time: at,
        wait: Duration::ZERO,
        close_needed: false,
        ptr: 0x5555,
        link: None,
        remote_pid: 0,
        tls: String::new(),
        application_name: "psql".to_owned(),
        prepared_statements: 0,
        id,
        held: 0,
        unsent: 0,
    }
}

/// A console user with this id and the key `[id; 8]`.
pub(crate) fn user(role: Role, id: u8) -> ConsoleUser {
    ConsoleUser {
        role,
        who: format!("C-0x{id:x}: pgbouncer/adm@127.0.0.1:41964"),
        key: [id; 8],
        parameters: vec![(b"application_name".to_vec(), b"psql".to_vec())],
        row: socket("adm", id.into()),
    }
}

/// The client's end of a console connection.
pub(crate) struct Client {
    pub stream: DuplexStream,
    input: Vec<u8>,
}

impl Client {
    pub(crate) fn new(stream: DuplexStream) -> Self {
        Client {
            stream,
            input: Vec::new(),
        }
    }

    /// Sends one message.
    pub(crate) async fn send(&mut self, tag: u8, body: &[u8]) {
        let mut message = vec![tag];
        message.extend((body.len() as u32 + 4).to_be_bytes());
        message.extend(body);
        self.stream.write_all(&message).await.unwrap();
    }

    /// Sends a simple query.
    pub(crate) async fn query(&mut self, text: &str) {
        self.send(b'Q', format!("{text}\0").as_bytes()).await;
    }

    /// The next message, printed; `None` at the end.
    pub(crate) async fn message(&mut self) -> Option<String> {
        loop {
            if let Some(head) = frame::header(&self.input, u32::MAX).unwrap()
                && self.input.len() as u64 >= head.total
            {
                let message: Vec<u8> = self.input.drain(..head.total as usize).collect();
                return Some(print(head.tag, &message[frame::HEADER_LEN..]));
            }
            if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                assert!(self.input.is_empty(), "half a message: {:?}", self.input);
                return None;
            }
        }
    }

    /// Messages up to the next ReadyForQuery (not shown, but it must say idle) or the end (shown as `EOF`).
    pub(crate) async fn answers(&mut self) -> Vec<String> {
        let mut answers = Vec::new();
        loop {
            match self.message().await.as_deref() {
                Some("Z I") => return answers,
                Some(message) => answers.push(message.to_owned()),
                None => {
                    answers.push("EOF".to_owned());
                    return answers;
                }
            }
        }
    }

    /// Sends a simple query and returns the answers.
    pub(crate) async fn ask(&mut self, text: &str) -> Vec<String> {
        self.query(text).await;
        self.answers().await
    }
}

/// A message as one line: rows and columns by `|`, NULL as `~`, zero bytes as spaces.
fn print(tag: u8, body: &[u8]) -> String {
    let text = match tag {
        b'T' => columns(body).join("|"),
        b'D' => values(body).join("|"),
        _ => String::from_utf8_lossy(body)
            .replace('\0', " ")
            .trim_end()
            .to_owned(),
    };
    format!("{} {text}", char::from(tag)).trim_end().to_owned()
}

/// `name:oid`, with `:b` for a binary one.
fn columns(body: &[u8]) -> Vec<String> {
    let mut rest = &body[2..];
    let mut columns = Vec::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|b| *b == 0).unwrap();
        let (name, fields) = (&rest[..end], &rest[end + 1..]);
        let oid = u32::from_be_bytes(fields[6..10].try_into().unwrap());
        let len = i16::from_be_bytes(fields[10..12].try_into().unwrap());
        assert_eq!(
            len,
            [(20, 8), (23, 4)]
                .iter()
                .find(|(o, _)| *o == oid)
                .map_or(-1, |(_, l)| *l)
        );
        assert_eq!(
            (&fields[..6], &fields[12..16]),
            (&[0; 6][..], &[255; 4][..])
        );
        let format = if fields[17] == 1 { ":b" } else { "" };
        columns.push(format!("{}:{oid}{format}", String::from_utf8_lossy(name)));
        rest = &fields[18..];
    }
    assert_eq!(
        usize::from(u16::from_be_bytes([body[0], body[1]])),
        columns.len()
    );
    columns
}

fn values(body: &[u8]) -> Vec<String> {
    let mut rest = &body[2..];
    let mut values = Vec::new();
    while !rest.is_empty() {
        let len = i32::from_be_bytes(rest[..4].try_into().unwrap());
        let len = usize::try_from(len).ok();
        let value = len.map_or("~".into(), |len| String::from_utf8_lossy(&rest[4..4 + len]));
        values.push(value.into_owned());
        rest = &rest[4 + len.unwrap_or(0)..];
    }
    assert_eq!(
        usize::from(u16::from_be_bytes([body[0], body[1]])),
        values.len()
    );
    values
}
