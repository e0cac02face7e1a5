//! A new connection to PostgreSQL: dialled, encrypted, logged in, ready for its first client. And the delivery of a cancel
//! request, which is a connection too.
//!
//! An ordinary `Send` future for the login runtime; nothing is known here of pools, limits or retries. What the server's
//! messages mean is in [`handshake`], what goes wrong in [`error`], the proofs are [`crate::auth`]'s.

pub mod error;
pub mod handshake;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tracing::{debug, info, warn};

pub use self::error::ConnectError;
use self::error::{CONNECT_FAILED, CONNECT_TIMEOUT, CRASHED, DNS_FAILED, TLS_REFUSED};
use self::handshake::{Action, Handshake, Parameters};
use super::inbox::{Inbox, InboxError};
use crate::auth::{ServerLogin, User};
use crate::net::dns::Site;
use crate::net::tls::{self, ServerTls};
use crate::net::{
    DetachedStream, PeerAddr, Resolver, Stream, Target, TcpOptions, dial_addr, dial_places,
    dial_unix,
};
use crate::types::BackendKey;
use crate::wire::build;
use crate::wire::frame::{HEADER_LEN, Header};
use crate::wire::read;

/// The largest length field of a message that a server may send during login. PostgreSQL's own limit for what clients send
/// at that time is the same.
pub const LOGIN_MESSAGE_MAX: u32 = 65_536;
/// Stands in for a `server_connect_timeout` of zero: without any, one silent server would hold its place in the pool for ever.
pub const TIMEOUT_FALLBACK: Duration = Duration::from_secs(15);
/// All that one connection attempt needs.
#[derive(Clone, Debug)]
pub struct ConnectPlan {
    /// Where the server is.
    pub target: Target,
    /// Who knows the addresses of host names.
    pub dns: Resolver,
    /// Options of the socket.
    pub tcp: TcpOptions,
    /// How to encrypt; `None` for `server_tls_sslmode=disable`. Unix sockets are never encrypted.
    pub tls: Option<Arc<ServerTls>>,
    /// `server_connect_timeout`, for everything together. Zero counts as [`TIMEOUT_FALLBACK`].
    pub timeout: Duration,
    /// Names and values of the StartupMessage, in order.
    pub startup: Vec<(Vec<u8>, Vec<u8>)>,
    /// The user whose secret, or whose keys, log in.
    pub user: Arc<User>,
    /// Query to run before first use.
    pub connect_query: Option<String>,
    /// Log prefix, `S-0x…: db/user@host:port`.
    pub who: String,
    /// Log what succeeds.
    pub log_connections: bool,
    /// Log why a connection was given up.
    pub log_disconnections: bool,
}

/// A connection that can be used at once: logged in, idle, and nothing unread.
#[derive(Debug)]
pub struct Fresh {
    /// The connection, belonging to no runtime.
    pub stream: DetachedStream,
    /// For cancel requests; zero if the server gave none.
    pub key: BackendKey,
    /// ParameterStatus in order; of one that came twice, the later value.
    pub parameters: Parameters,
    /// Its host name's address, where it was found by name.
    pub site: Option<Arc<Site>>,
    /// The server's address, or `unix`.
    pub addr: String,
    /// The server's port, also in the name of a Unix socket.
    pub port: u16,
    /// Our address, or `unix`.
    pub local_addr: String,
    /// Our port; 0 for Unix sockets.
    pub local_port: u16,
    /// Protocol and cipher, e.g. `TLSv1.3/TLS_AES_256_GCM_SHA384`.
    pub tls: Option<&'static str>,
}

/// Connects and logs in. What happened has been logged when this returns. Dropping the future closes the connection.
///
/// # Errors
/// See [`ConnectError`]. The connection is closed.
pub async fn connect(mut plan: ConnectPlan) -> Result<Fresh, ConnectError> {
    let started = Instant::now();
    let limit = or_fallback(plan.timeout);
    let attempt = timeout(limit, establish(&mut plan, limit)).await;
    let connected = attempt.unwrap_or(Err(ConnectError::Network(CONNECT_TIMEOUT)));
    if let Err(error) = &connected {
        log_failure(&plan, error, started.elapsed());
    }
    connected
}

fn or_fallback(limit: Duration) -> Duration {
    if limit.is_zero() {
        TIMEOUT_FALLBACK
    } else {
        limit
    }
}

fn log_failure(plan: &ConnectPlan, error: &ConnectError, age: Duration) {
    if let ConnectError::Refused {
        severity, message, ..
    } = error
    {
        warn!(
            "server login failed: {} {}",
            Lossy(severity),
            Lossy(message)
        );
    }
    if plan.log_disconnections {
        info!(who = %plan.who, "closing because: {error} (age={}s)", age.as_secs());
    }
}

async fn establish(plan: &mut ConnectPlan, limit: Duration) -> Result<Fresh, ConnectError> {
    let (mut stream, site) = open(plan, limit).await?;
    if let (Some(_), Ok(PeerAddr::Tcp(addr))) = (&site, stream.peer_addr()) {
        plan.who = at_address(&plan.who, addr);
    }
    let local = stream.local_addr().map_err(|_| broken())?;
    if plan.log_connections {
        log_connected(plan, local);
    }
    if let Some((tls, host)) = wants_tls(&plan.target, plan.tls.as_deref()) {
        stream = encrypt(stream, tls, host, &plan.who).await?;
        if let (true, Some(version)) = (plan.log_connections, stream.tls_version_text()) {
            info!(who = %plan.who, "SSL established: {version}");
        }
    }
    let remote = remote_end(&stream, &plan.target)?;
    let (stream, key, parameters) = log_in(stream, plan).await?;
    let tls = stream.tls_version_text();
    let (local_addr, local_port) = shown(local, 0);
    let (addr, port) = remote;
    Ok(Fresh {
        stream: stream.detach().map_err(|_| broken())?,
        key,
        parameters,
        site,
        addr,
        port,
        local_addr,
        local_port,
        tls,
    })
}

/// An end of the connection, as SHOW SERVERS has it.
type End = (String, u16);

fn shown(addr: Option<SocketAddr>, unix_port: u16) -> End {
    match addr {
        Some(addr) => (addr.ip().to_string(), addr.port()),
        None => ("unix".to_owned(), unix_port),
    }
}

fn remote_end(stream: &Stream, target: &Target) -> Result<End, ConnectError> {
    let addr = match stream.peer_addr().map_err(|_| broken())? {
        PeerAddr::Tcp(addr) => Some(addr),
        PeerAddr::Unix { .. } => None,
    };
    let port = match target {
        Target::Tcp { port, .. } => *port,
        // `<dir>/.s.PGSQL.<port>`
        Target::Unix { path } => {
            let path = path.to_string();
            let digits = path.rsplit('.').next().unwrap_or_default();
            digits.parse().unwrap_or_default()
        }
    };
    Ok(shown(addr, port))
}

/// A name may have several addresses: from here on the log says which one it is, as PgBouncer does.
fn at_address(who: &str, addr: SocketAddr) -> String {
    let user = who.rsplit_once('@').map_or(who, |(user, _)| user);
    format!("{user}@{addr}")
}

fn log_connected(plan: &ConnectPlan, local: Option<SocketAddr>) {
    match local {
        Some(local) => info!(who = %plan.who, "new connection to server (from {local})"),
        None => info!(who = %plan.who, "new connection to server"),
    }
}

fn broken() -> ConnectError {
    ConnectError::Network(CRASHED)
}

// Getting through.

/// A socket, and where it was found if by name.
type Opened = (Stream, Option<Arc<Site>>);

async fn open(plan: &ConnectPlan, limit: Duration) -> Result<Opened, ConnectError> {
    let deadline = Instant::now() + limit;
    match &plan.target {
        Target::Unix { path } => {
            let dialled = dial_unix(path, limit).await;
            let stream = dialled.map_err(|error| connect_failed(&plan.who, &error))?;
            Ok((stream, None))
        }
        Target::Tcp { host, port } => {
            let places = plan.dns.places(host, *port).await;
            let places = places.map_err(|_| ConnectError::Network(DNS_FAILED))?;
            let note = |site: &Site| plan.dns.note_unreachable(site);
            let opened = dial_places(places, &plan.tcp, deadline, note).await;
            opened.map_err(|error| connect_failed(&plan.who, &error))
        }
    }
}

/// The system's reason is worth a line, but not one that PgBouncer's log parsers would stumble over.
fn connect_failed(who: &str, error: &io::Error) -> ConnectError {
    debug!(who, "connect failed: {error}");
    ConnectError::Network(match error.kind() {
        io::ErrorKind::TimedOut => CONNECT_TIMEOUT,
        _ => CONNECT_FAILED,
    })
}

/// TLS, and the name that a certificate should carry, if this connection is to be encrypted.
fn wants_tls<'a>(
    target: &'a Target,
    tls: Option<&'a ServerTls>,
) -> Option<(&'a ServerTls, &'a str)> {
    match target {
        Target::Tcp { host, .. } => tls.map(|tls| (tls, &host[..])),
        Target::Unix { .. } => None,
    }
}

/// Asks for TLS, and shakes hands if the server has it.
async fn encrypt(
    mut stream: Stream,
    tls: &ServerTls,
    host: &str,
    who: &str,
) -> Result<Stream, ConnectError> {
    let mut request = Vec::new();
    build::ssl_request(&mut request);
    stream.write_all(&request).await.map_err(|_| broken())?;
    let mut answer = [0];
    stream.read_exact(&mut answer).await.map_err(|_| broken())?;
    match answer {
        [b'S'] => shake_hands(stream, tls, host, who).await,
        [b'N'] if tls.mode().requires_tls() => Err(ConnectError::Network(TLS_REFUSED)),
        [b'N'] => Ok(stream),
        // Not encrypted, so where TLS is a must it may be anybody's words: they are not passed on.
        [b'E'] if tls.mode().requires_tls() => Err(ConnectError::Network(TLS_REFUSED)),
        [b'E'] => Err(early_error(stream).await),
        _ => Err(ConnectError::Protocol(
            "unexpected answer to SSLRequest from server",
        )),
    }
}

async fn shake_hands(
    mut stream: Stream,
    tls: &ServerTls,
    host: &str,
    who: &str,
) -> Result<Stream, ConnectError> {
    if stream.input_waiting().map_err(|_| broken())? {
        return Err(ConnectError::Protocol(
            "received unencrypted data after SSL response",
        ));
    }
    tls::connect(stream, tls, host).await.map_err(|error| {
        warn!(who, "TLS handshake error: {error}");
        broken()
    })
}

/// The rest of an error whose tag was the answer to our SSLRequest. A server that could not even start a process sends text
/// and a zero instead of a message.
async fn early_error(stream: Stream) -> ConnectError {
    let mut inbox = Inbox::new(stream);
    if inbox.fill(HEADER_LEN - 1).await.is_err() {
        return broken();
    }
    let held = inbox.held();
    let declared = u32::from_be_bytes([held[0], held[1], held[2], held[3]]);
    if (4..=LOGIN_MESSAGE_MAX).contains(&declared) {
        return match inbox.fill(declared as usize).await {
            Ok(()) => {
                let body = inbox.take(declared as usize);
                ConnectError::refused(read::error_fields(&body[4..]))
            }
            Err(_) => broken(),
        };
    }
    let text = held.split(|byte| matches!(byte, 0 | b'\n')).next();
    ConnectError::refused(read::ErrorFields {
        message: text,
        ..read::ErrorFields::default()
    })
}

// Logging in.

async fn log_in(
    mut stream: Stream,
    plan: &ConnectPlan,
) -> Result<(Stream, BackendKey, Parameters), ConnectError> {
    let mut packet = Vec::new();
    let startup = plan.startup.iter();
    build::startup(
        &mut packet,
        startup.map(|(name, value)| (&name[..], &value[..])),
    );
    stream.write_all(&packet).await.map_err(|_| broken())?;

    let mut inbox = Inbox::new(stream);
    let login = ServerLogin::new(plan.user.clone());
    let mut handshake = Handshake::new(login, plan.connect_query.clone());
    // What was read behind ReadyForQuery must not get lost, so it is looked at here.
    while !handshake.is_ready() || !inbox.held().is_empty() {
        let Some((tag, body)) = next_message(&mut inbox, &handshake).await? else {
            continue;
        };
        match handshake.on_message(tag, &body) {
            Ok(Action::Read | Action::Ready) => {}
            Ok(Action::Remark(text)) => warn!(who = %plan.who, "{text}"),
            Ok(Action::Send(bytes)) => {
                let written = inbox.write_all(&bytes).await;
                written.map_err(|_| broken())?;
            }
            Err(error) => {
                if let Some(reason) = handshake.failed_proof() {
                    warn!(who = %plan.who, "{reason}");
                }
                return Err(error);
            }
        }
    }
    let (stream, _) = inbox.into_parts().map_err(|_| broken())?;
    let (key, parameters) = handshake.into_results();
    Ok((stream, key, parameters))
}

/// The next message, or `None` after one of any length that nobody needs.
async fn next_message(
    inbox: &mut Inbox,
    handshake: &Handshake,
) -> Result<Option<(u8, zeroize::Zeroizing<Vec<u8>>)>, ConnectError> {
    let Header { tag, total } = inbox.peek_header(u32::MAX).await?;
    if handshake.may_skip(tag) && total > u64::from(LOGIN_MESSAGE_MAX) {
        inbox.skip(total).await?;
        return Ok(None);
    }
    Ok(Some(inbox.message(LOGIN_MESSAGE_MAX).await?))
}

impl From<InboxError> for ConnectError {
    fn from(error: InboxError) -> ConnectError {
        match error {
            InboxError::Length(_) => ConnectError::Protocol("bad message length from server"),
            InboxError::Eof { .. } | InboxError::Io(_) => broken(),
        }
    }
}

/// Bytes for people.
struct Lossy<'a>(&'a [u8]);

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.0))
    }
}

// Cancelling.

/// Delivers a cancel request: connects to the very address that the connection to be cancelled went to ([`Fresh::addr`]; with TLS as
/// the pool does), sends it, and waits until the server has closed the connection, which it does once it has passed the request on.
/// No name is looked up: a key means something to one server only.
///
/// # Errors
/// The server was not reached, or did not close in time. Whether there was anything to cancel nobody can know.
pub async fn cancel_at(
    target: Target,
    addr: Option<IpAddr>,
    tcp: TcpOptions,
    tls: Option<Arc<ServerTls>>,
    key: BackendKey,
    limit: Duration,
) -> io::Result<()> {
    let limit = or_fallback(limit);
    let delivered = timeout(limit, async {
        let stream = match (&target, addr) {
            (Target::Unix { path }, _) => dial_unix(path, limit).await?,
            (Target::Tcp { port, .. }, Some(ip)) => {
                dial_addr(SocketAddr::new(ip, *port), &tcp, limit).await?
            }
            (Target::Tcp { .. }, None) => return Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        deliver_cancel(stream, &target, tls.as_deref(), key).await
    });
    let timed_out = || Err(io::ErrorKind::TimedOut.into());
    delivered.await.unwrap_or_else(|_| timed_out())
}

async fn deliver_cancel(
    mut stream: Stream,
    target: &Target,
    tls: Option<&ServerTls>,
    key: BackendKey,
) -> io::Result<()> {
    if let Some((tls, host)) = wants_tls(target, tls) {
        let encrypted = encrypt(stream, tls, host, "cancel").await;
        stream = encrypted.map_err(io::Error::other)?;
    }
    let mut packet = Vec::new();
    build::cancel_request(&mut packet, &key.0);
    stream.write_all(&packet).await?;
    let mut ignored = [0; 256];
    while stream.read_some(&mut ignored).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests;
