//! Asking an LDAP server whether a password is right: connections, TLS and deadlines. What is said is in [`crate::auth::ldap`].
//!
//! Every login has a connection of its own, which ends with it. Servers are tried in order: one that cannot be reached, does not
//! answer, or talks nonsense is passed over; one that answers has decided. So many connections exist at once; further logins
//! stand in line, in order, until their own limit ends the waiting.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::warn;

use crate::auth::LdapOptions;
use crate::auth::ldap::ber::{self, BerError};
use crate::auth::ldap::message::{self, Outcome, Reply, ReplyBody};
use crate::auth::ldap::name::RefusedName;
use crate::auth::ldap::options::Search;
use crate::net::dial::{Target, dial};
use crate::net::dns::Resolver;
use crate::net::options::TcpOptions;
use crate::net::stream::Stream;
use crate::net::tls::{self, ServerTls};

/// How long it may take until a server is connected, its name looked up and its TLS agreed on. PgBouncer has the same limit.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a server may take for one answer. PgBouncer waits for ever.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Most connections to LDAP servers at once.
pub const CONNECTIONS_MAX: usize = 64;
/// The largest message that is read: we ask for nothing but DNs.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Bytes that are read at once.
const READ_BYTES: usize = 4096;
/// Most references to other servers that one search may give.
const REFERENCES_MAX: u32 = 100;

/// Why somebody is not let in. For the log.
#[derive(Debug)]
pub enum LdapError {
    /// The user name cannot be used.
    Name(RefusedName),
    /// No server could be asked; what the last one did.
    Unreachable(String, Fault),
    /// We ourselves are not allowed to search.
    SearchBind(String, Outcome, String),
    /// The search went wrong.
    SearchFailed(String, Outcome, String),
    /// The search found nobody.
    NotFound(String, String),
    /// The search found several.
    NotUnique(String, String),
    /// The entry has no name, and a bind without name proves nothing.
    Nameless(String),
    /// The server does not take the password.
    Refused(String, Outcome, String),
    /// The process is ending.
    Closing,
}

impl fmt::Display for LdapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LdapError::Name(error) => error.fmt(f),
            LdapError::Unreachable(host, fault) => {
                write!(f, "could not ask LDAP server \"{host}\": {fault}")
            }
            LdapError::SearchBind(dn, outcome, host) => write!(
                f,
                "could not perform initial LDAP bind for ldapbinddn \"{dn}\" on server \"{host}\": {outcome}"
            ),
            LdapError::SearchFailed(filter, outcome, host) => write!(
                f,
                "could not search LDAP for filter \"{filter}\" on server \"{host}\": {outcome}"
            ),
            LdapError::NotFound(filter, host) => write!(
                f,
                "LDAP user does not exist: search for filter \"{filter}\" on server \"{host}\" returned no entries"
            ),
            LdapError::NotUnique(filter, host) => write!(
                f,
                "LDAP user is not unique: search for filter \"{filter}\" on server \"{host}\" returned several entries"
            ),
            LdapError::Nameless(host) => {
                write!(f, "LDAP server \"{host}\" found an entry without a DN")
            }
            LdapError::Refused(dn, outcome, host) => {
                write!(
                    f,
                    "LDAP login failed for user {dn} on server {host}: {outcome}"
                )
            }
            LdapError::Closing => f.write_str("LDAP is being closed"),
        }
    }
}

impl std::error::Error for LdapError {}

/// Why a server is passed over.
#[derive(Debug)]
pub enum Fault {
    /// The connection.
    Io(io::Error),
    /// No answer in time.
    Silent,
    /// An answer that is none.
    Nonsense,
    /// It cannot do StartTLS, or cannot work now.
    Indisposed(Outcome),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Io(error) => error.fmt(f),
            Fault::Silent => f.write_str("no answer in time"),
            Fault::Nonsense => f.write_str("unexpected or malformed answer"),
            Fault::Indisposed(outcome) => outcome.fmt(f),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Io(error)
    }
}

impl From<BerError> for Fault {
    fn from(_: BerError) -> Fault {
        Fault::Nonsense
    }
}

/// A server that was asked has decided against it, or was no use.
enum Ending {
    Decided(LdapError),
    PassedOver(Fault),
}

impl From<Fault> for Ending {
    fn from(fault: Fault) -> Ending {
        Ending::PassedOver(fault)
    }
}

/// The way to LDAP servers. One for the process: its limit holds over reloads.
#[derive(Debug)]
pub struct Directory {
    /// TLS that checks the server's certificate and name; none if no options want it.
    tls: Option<ServerTls>,
    /// Who looks up their names.
    dns: Resolver,
    /// Places for connections, given in the order in which they were asked for.
    places: Arc<Semaphore>,
}

impl Directory {
    /// A new one, which shares the places of the one before.
    pub fn new(tls: Option<ServerTls>, dns: Resolver, before: Option<&Directory>) -> Directory {
        let places = before.map(|before| before.places.clone());
        Directory {
            tls,
            dns,
            places: places.unwrap_or_else(|| Arc::new(Semaphore::new(CONNECTIONS_MAX))),
        }
    }

    /// Returns when a server has accepted the password for this user's DN, and only then. An empty password is for the caller
    /// to refuse; here it is never sent.
    ///
    /// Dropping the future closes the connection and frees its place.
    ///
    /// # Errors
    /// Anything else has happened.
    pub async fn verify(
        &self,
        options: &LdapOptions,
        name: &str,
        password: &[u8],
    ) -> Result<(), LdapError> {
        // Names are judged before anybody is bothered with them.
        let user = match options.search() {
            None => options
                .bind_dn(name)
                .map(|dn| User::Dn(dn.unwrap_or_default())),
            Some(search) => search
                .filter(name)
                .map(|(text, bytes)| User::ToFind(search, text, bytes)),
        };
        let user = user.map_err(LdapError::Name)?;
        let _place = self
            .places
            .acquire()
            .await
            .map_err(|_| LdapError::Closing)?;
        let mut last = LdapError::Closing;
        for host in options.hosts() {
            match self.ask(options, host, &user, password).await {
                Ok(()) => return Ok(()),
                Err(Ending::Decided(error)) => return Err(error),
                Err(Ending::PassedOver(fault)) => {
                    warn!("LDAP server \"{host}\" is passed over: {fault}");
                    last = LdapError::Unreachable(host.clone(), fault);
                }
            }
        }
        Err(last)
    }

    async fn ask(
        &self,
        options: &LdapOptions,
        host: &str,
        user: &User<'_>,
        password: &[u8],
    ) -> Result<(), Ending> {
        let connected = timeout(CONNECT_TIMEOUT, self.connect(options, host)).await;
        let mut server = connected.map_err(|_| Fault::Silent)??;
        let dn = match user {
            User::Dn(dn) => dn.clone(),
            User::ToFind(search, text, filter) => server.find(search, text, filter).await?,
        };
        if dn.is_empty() || password.is_empty() {
            return Err(Ending::Decided(LdapError::Nameless(host.to_owned())));
        }
        let outcome = server.bind(&dn, password).await?;
        server.farewell().await;
        match outcome.is_success() {
            true => Ok(()),
            false => Err(Ending::Decided(LdapError::Refused(
                dn,
                outcome,
                host.to_owned(),
            ))),
        }
    }

    /// A connection, with TLS if the options want it: never without.
    async fn connect(&self, options: &LdapOptions, host: &str) -> Result<Server, Fault> {
        let target = Target::Tcp {
            host: host.to_owned(),
            port: options.port(),
        };
        let stream = dial(&target, &self.dns, &TcpOptions::default(), CONNECT_TIMEOUT).await?;
        let mut server = Server::new(stream, host);
        if !options.wants_tls() {
            return Ok(server);
        }
        let no_tls = || io::Error::new(io::ErrorKind::Unsupported, "TLS is not set up");
        let tls = self.tls.as_ref().ok_or_else(no_tls)?;
        if options.is_start_tls() {
            server.start_tls().await?;
        }
        server.stream = tls::connect(server.stream, tls, host).await?;
        Ok(server)
    }
}

/// Whom it is about.
enum User<'a> {
    /// This DN.
    Dn(String),
    /// The one entry that this filter, as text and as bytes, finds.
    ToFind(&'a Search, String, Vec<u8>),
}

/// How a search ended.
enum Found {
    None,
    One(String),
    Several,
    Failed(Outcome),
}

/// One connection to a server.
struct Server {
    stream: Stream,
    host: String,
    /// What has arrived and is not read yet.
    held: Vec<u8>,
    /// The number of the last request.
    id: u32,
}

impl Server {
    fn new(stream: Stream, host: &str) -> Server {
        Server {
            stream,
            host: host.to_owned(),
            held: Vec::new(),
            id: 0,
        }
    }

    async fn start_tls(&mut self) -> Result<(), Fault> {
        self.id += 1;
        self.send(&message::start_tls(self.id)).await?;
        let ReplyBody::Extended(outcome) = self.answer().await? else {
            return Err(Fault::Nonsense);
        };
        if !outcome.is_success() {
            return Err(Fault::Indisposed(outcome));
        }
        // What comes before TLS and is read after it would pass for something that TLS has protected.
        match self.held.is_empty() && !self.stream.input_waiting()? {
            true => Ok(()),
            false => Err(Fault::Nonsense),
        }
    }

    /// How a simple bind ends. Only the reply to this very bind counts.
    async fn bind(&mut self, dn: &str, password: &[u8]) -> Result<Outcome, Fault> {
        self.id += 1;
        self.send(&message::bind(self.id, dn, password)).await?;
        match self.answer().await? {
            ReplyBody::Bound(outcome) if outcome.is_indisposed() => Err(Fault::Indisposed(outcome)),
            ReplyBody::Bound(outcome) => Ok(outcome),
            _ => Err(Fault::Nonsense),
        }
    }

    /// The DN of the one entry that the filter finds.
    async fn find(&mut self, search: &Search, text: &str, filter: &[u8]) -> Result<String, Ending> {
        let (text, host) = (text.to_owned(), self.host.clone());
        let password = search.bind_password.as_bytes();
        let bound = self.bind(&search.bind_dn, password).await?;
        if !bound.is_success() {
            let dn = search.bind_dn.clone();
            return Err(Ending::Decided(LdapError::SearchBind(dn, bound, host)));
        }
        let searched = timeout(ANSWER_TIMEOUT, self.search(search, filter)).await;
        let found = searched.map_err(|_| Fault::Silent)??;
        Err(Ending::Decided(match found {
            Found::One(dn) => return Ok(dn),
            Found::None => LdapError::NotFound(text, host),
            Found::Several => LdapError::NotUnique(text, host),
            Found::Failed(outcome) => LdapError::SearchFailed(text, outcome, host),
        }))
    }

    async fn search(&mut self, search: &Search, filter: &[u8]) -> Result<Found, Fault> {
        self.id += 1;
        let seconds = ANSWER_TIMEOUT.as_secs() as u32;
        let request = message::search(self.id, &search.base, search.scope, filter, seconds);
        self.send(&request).await?;
        let mut found = Found::None;
        let mut references = 0;
        loop {
            match self.answer().await? {
                ReplyBody::Entry(dn) => match found {
                    Found::None => found = Found::One(dn),
                    _ => return Ok(Found::Several),
                },
                ReplyBody::Reference if references < REFERENCES_MAX => references += 1,
                ReplyBody::SearchDone(outcome) => {
                    if references > 0 {
                        let host = &self.host;
                        warn!("LDAP server \"{host}\" refers to others, which are not asked");
                    }
                    return match outcome {
                        outcome if outcome.is_success() => Ok(found),
                        outcome if outcome.is_indisposed() => Err(Fault::Indisposed(outcome)),
                        outcome => Ok(Found::Failed(outcome)),
                    };
                }
                _ => return Err(Fault::Nonsense),
            }
        }
    }

    /// The server need not wait for the end of the connection to learn of it.
    async fn farewell(&mut self) {
        self.id += 1;
        let _ = self.send(&message::unbind(self.id)).await;
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let sent = timeout(ANSWER_TIMEOUT, self.stream.write_all(bytes)).await;
        Ok(sent.map_err(|_| Fault::Silent)??)
    }

    /// The next answer to the last request.
    async fn answer(&mut self) -> Result<ReplyBody, Fault> {
        let read = timeout(ANSWER_TIMEOUT, self.message()).await;
        let Reply { id, body } = read.map_err(|_| Fault::Silent)??;
        match id == self.id {
            true => Ok(body),
            // Among others a notice that the connection is about to end, which belongs to no request.
            false => Err(Fault::Nonsense),
        }
    }

    async fn message(&mut self) -> Result<Reply, Fault> {
        loop {
            if let Some((_, end)) = ber::extent(&self.held)? {
                if end > MESSAGE_BYTES_MAX {
                    return Err(Fault::Nonsense);
                }
                if self.held.len() >= end {
                    let reply = message::read(&self.held[..end]);
                    self.held.drain(..end);
                    return Ok(reply?);
                }
            }
            let held = self.held.len();
            self.held.resize(held + READ_BYTES, 0);
            let count = self.stream.read_some(&mut self.held[held..]).await;
            self.held.truncate(held + *count.as_ref().unwrap_or(&0));
            if count? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}
