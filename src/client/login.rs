//! How a client is received: from its first byte up to and including its password proof.
//!
//! [`receive`] runs on a worker as long as it is quick, else on the login runtime ([`aside`]). What comes out is a client that may go to a worker, a console user, a cancel request,
//! or nothing: then the connection has ended, and client and log have been told. AuthenticationOk is not sent here; it leaves
//! with the rest of the welcome, which only a worker can put together.
//!
//! | file | subject |
//! |---|---|
//! | [`aside`] | where a login runs: on a worker, or aside |
//! | `console` | who wants the console instead of a database |
//! | [`desk`] | the settings as logins see them |
//! | `elsewhere` | proofs that others judge: an LDAP server ([`ldap`]), PAM ([`pam`]) |
//! | [`inquiry`] | who a client is: `auth_file`, `auth_query` |
//! | `knock` | first bytes: TLS, cancel requests, the StartupMessage |
//! | `gate` | by which method a client has to prove who it is |
//! | [`request`] | what a StartupMessage asks for (pure) |
//! | `proof` | the password exchange |
//! | `visitor` | the connection meanwhile, and how it is turned away |

pub mod aside;
mod console;
pub mod desk;
mod elsewhere;
mod gate;
pub mod inquiry;
mod knock;
pub mod ldap;
pub mod pam;
mod proof;
pub mod request;
mod visitor;

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use nix::unistd::gethostname;
use tracing::{error, info};

use self::aside::Deadline;
pub use self::desk::{ConsoleRole, Desk, Referees};
use self::inquiry::{Inquirer, Introduced, Wanted};
use self::knock::Knock;
use self::proof::Claim;
pub use self::request::Replication;
use self::request::{Request, Rules};
pub use self::visitor::Caller;
use self::visitor::{Ending, Visitor};
pub use super::admission::{Admission, Guards};
use super::admission::{DatabaseGuard, Full, SocketGuard, UserGuard};
use crate::auth::user::USER_BYTES_MAX;
use crate::auth::{User, text};
use crate::config::{AuthType, CONSOLE_DATABASE, Database};
use crate::metrics::ErrorKind;
use crate::net::{PeerAddr, Stream};
use crate::server::inbox::Line;
use crate::server::params::ParamSet;
use crate::types::{CancelKey, ConnId};
use crate::wire::build;
use crate::wire::startup::Startup;

/// The user who may get into the console over the Unix socket without a proof, and the name under which
/// `auth_type=any` shows console users.
pub const CONSOLE_USER: &str = "pgbouncer";

/// Who has come.
#[derive(Debug)]
pub enum Arrival {
    /// A client of a database.
    Client(LoggedIn),
    /// A user of the console.
    Console(ConsoleLogin),
    /// Somebody who wants to cancel the query of the client with this key. Nothing is ever sent to it: the connection is
    /// closed when the request has been delivered.
    Cancel {
        /// The key as sent.
        key: CancelKey,
        /// The connection, of this runtime.
        stream: Stream,
    },
}

/// A connection that has been let in, whatever it wants.
#[derive(Debug)]
pub struct Guest {
    /// The connection, of this runtime or of none.
    pub stream: Line,
    /// What the client has sent ahead.
    pub leftover: Vec<u8>,
    /// What must be sent before AuthenticationOk, in the same write: NegotiateProtocolVersion, AuthenticationSASLFinal.
    pub greeting: Vec<u8>,
    /// Its number.
    pub id: ConnId,
    /// When it connected.
    pub connected: Instant,
    /// The same, by the clock on the wall.
    pub connected_at: SystemTime,
    /// Its address.
    pub peer: PeerAddr,
    /// Our end of its socket; `None` for a Unix socket.
    pub local: Option<SocketAddr>,
    /// The tracked parameters that it gave, as sent.
    pub params: ParamSet,
    /// Protocol and cipher, e.g. `TLSv1.3/TLS_AES_256_GCM_SHA384`.
    pub tls: Option<&'static str>,
    /// What it is counted in; to be kept for as long as it is connected.
    pub guards: Guards,
}

/// A client that has proved who it is.
#[derive(Debug)]
pub struct LoggedIn {
    /// Its connection.
    pub guest: Guest,
    /// Its database.
    pub database: Arc<Database>,
    /// Who it is; under `auth_type=any` the forced user.
    pub login_user: String,
    /// The user of its servers: the forced user, else the login user.
    pub server_user: String,
    /// That user with its secret, for logging into servers.
    pub credentials: Arc<User>,
    /// Whether it replicates.
    pub replication: Replication,
    /// Parameters of a replicating client that go into its server's StartupMessage as they are: `options`, if given.
    pub startup_options: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A console user who has got in.
#[derive(Debug)]
pub struct ConsoleLogin {
    /// Its connection.
    pub guest: Guest,
    /// Its name; under `auth_type=any` always [`CONSOLE_USER`].
    pub user: String,
    /// What it may do.
    pub role: ConsoleRole,
}

/// Receives a client that has just connected. `None`: the connection has ended, and everybody who should know has been told.
///
/// Takes as long as the client does, at most `client_login_timeout` and a farewell. Dropping the future closes the connection
/// and leaves every count as it was. Some steps compute for a millisecond or more (SCRAM for plain stored passwords, cleartext
/// for SCRAM secrets): before those it goes aside to threads where nobody's query waits.
pub async fn receive(
    caller: impl TryInto<Caller>,
    desk: &Desk,
    admission: &Admission,
    inquirer: &dyn Inquirer,
) -> Option<Arrival> {
    let socket = admission.enter_socket();
    let mut visitor = Visitor::new(caller.try_into().ok()?, desk, admission, inquirer);
    let limit = desk.config.settings.client_login_timeout;
    // The guards are the future's, so they are dropped before the farewell, which may take a while.
    match within(limit, log_in(&mut visitor, socket)).await {
        Ok(arrival) => Some(arrival),
        Err(ending) => {
            visitor.turn_away(ending).await;
            None
        }
    }
}

/// A limit of zero is none.
async fn within<T>(
    limit: Duration,
    login: impl Future<Output = Result<T, Ending>>,
) -> Result<T, Ending> {
    let mut login = pin!(login);
    let mut deadline = Deadline::after(limit);
    poll_fn(|cx| match login.as_mut().poll(cx) {
        Poll::Ready(ended) => Poll::Ready(ended),
        Poll::Pending => deadline.poll(cx).map(|()| {
            Err(Ending::counted(
                ErrorKind::LoginTimeout,
                "client_login_timeout",
            ))
        }),
    })
    .await
}

async fn log_in(visitor: &mut Visitor<'_>, socket: SocketGuard) -> Result<Arrival, Ending> {
    let startup = match knock::answer(visitor).await? {
        Knock::Login(startup) => startup,
        Knock::Cancel(key) => {
            // It takes nobody's place, however long it has to wait.
            drop(socket);
            visitor.step_aside().await?;
            let (stream, _) = visitor.take_inbox()?.into_parts()?;
            return Ok(Arrival::Cancel { key, stream });
        }
    };
    let request = read_request(visitor, &startup)?;
    let wants_console = request.database == CONSOLE_DATABASE.as_bytes();
    if !wants_console {
        check_room(visitor)?;
    }
    if startup.needs_negotiation() {
        let unknown: Vec<&[u8]> = startup
            .protocol_options
            .iter()
            .map(|name| &name[..])
            .collect();
        build::negotiate_protocol_version(&mut visitor.outgoing, &unknown);
    }
    match wants_console {
        true => console::log_in(visitor, request, socket).await,
        false => log_in_client(visitor, request, socket).await,
    }
}

// Reading the request.

fn read_request(visitor: &mut Visitor<'_>, startup: &Startup) -> Result<Request, Ending> {
    let user = startup.get(b"user").filter(|name| !name.is_empty());
    visitor.user = user.map(lossy);
    visitor.show();
    let settings = &visitor.desk.config.settings;
    let address = settings
        .application_name_add_host
        .then(|| host_and_port(visitor.peer, settings.listen_port));
    let rules = Rules {
        tracked: &visitor.desk.tracked,
        ignored: &settings.ignore_startup_parameters,
        address: address.as_deref(),
    };
    request::read(startup, rules).map_err(Ending::fatal)
}

/// The client's address as `application_name_add_host` shows it.
fn host_and_port(peer: PeerAddr, listen_port: u16) -> String {
    match peer {
        PeerAddr::Tcp(addr) => addr.to_string(),
        PeerAddr::Unix { pid, .. } => {
            let pid = pid.map(|pid| pid.to_string()).unwrap_or_default();
            let host = gethostname().unwrap_or_default();
            format!("unix({pid}@{}):{listen_port}", host.to_string_lossy())
        }
    }
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Every socket counts, this one included.
fn check_room(visitor: &Visitor<'_>) -> Result<(), Ending> {
    let max = visitor.desk.config.settings.max_client_conn as usize;
    match visitor.admission.sockets() > max {
        true => Err(Ending::counted(
            ErrorKind::TooManyClients,
            "no more connections allowed (max_client_conn)",
        )),
        false => Ok(()),
    }
}

fn check_user_name(visitor: &Visitor<'_>, request: &Request) -> Result<(), Ending> {
    if request.user.len() > USER_BYTES_MAX {
        log_failed(visitor, request);
        return Err(Ending::fatal(text::USER_TOO_LONG));
    }
    Ok(())
}

/// From here on the log's lines about this client name its database.
fn log_attempt(visitor: &mut Visitor<'_>, request: &Request) -> Result<(), Ending> {
    let database = std::str::from_utf8(&request.database).ok();
    let exists =
        |name: &&str| *name == CONSOLE_DATABASE || visitor.desk.config.database(name).is_some();
    visitor.database = database.filter(exists).map(str::to_owned);
    visitor.show();
    if visitor.desk.config.settings.log_connections {
        let tls = visitor.tls_version_text()?;
        info!(
            who = %visitor.who(),
            "login attempt: db={} user={} tls={} replication={}",
            lossy(&request.database),
            visitor.user.as_deref().unwrap_or_default(),
            tls.unwrap_or("no"),
            request.replication,
        );
    }
    Ok(())
}

fn log_failed(visitor: &Visitor<'_>, request: &Request) {
    if visitor.desk.config.settings.log_connections {
        let (database, user) = (lossy(&request.database), lossy(&request.user));
        info!(who = %visitor.who(), "login failed: db={database} user={user}");
    }
}

// Clients of databases.

/// The database that a client has asked for. One that does not exist is only told after the proof, so that names cannot be
/// found out by trying.
enum Destination {
    Known(Arc<Database>),
    Unknown(String),
}

impl Destination {
    fn find(visitor: &Visitor<'_>, request: &Request) -> Destination {
        let name = std::str::from_utf8(&request.database).ok();
        match name.and_then(|name| visitor.desk.config.database(name)) {
            Some(database) => Destination::Known(database),
            None => Destination::Unknown(lossy(&request.database)),
        }
    }

    fn into_known(self) -> Result<Arc<Database>, Ending> {
        match self {
            Destination::Known(database) => Ok(database),
            Destination::Unknown(name) => {
                Err(Ending::fatal(format_args!("no such database: {name}")))
            }
        }
    }
}

async fn log_in_client(
    visitor: &mut Visitor<'_>,
    mut request: Request,
    socket: SocketGuard,
) -> Result<Arrival, Ending> {
    let destination = Destination::find(visitor, &request);
    check_user_name(visitor, &request)?;
    let database_guard = enter_destination(visitor, &destination)?;
    // Who a client is, from here on. Nothing that it sends later changes it.
    let identity = identify(visitor, &request, &destination).await?;
    let given = identity.rename(&mut request);
    let guards = Guards {
        socket,
        database: database_guard,
        user: Some(enter_as(visitor, &destination, &identity.name)?),
    };
    log_attempt(visitor, &request)?;
    let method = gate::method(visitor, &request).await?;
    inquiry::refuse_unknown(&identity, &method)?;
    let claim = Claim {
        given: &given,
        name: &request.user,
        user: identity.user.as_ref(),
        method: &method,
    };
    let shown = proof::prove(visitor, claim).await?;
    let identity = identity.with(shown);

    if let Destination::Unknown(_) = destination {
        log_failed(visitor, &request);
    }
    let database = destination.into_known()?;
    check_open(visitor, &database)?;
    let credentials = credentials(visitor, &database, identity.user.as_ref())?;
    let server_user = database.user.clone();
    Ok(Arrival::Client(LoggedIn {
        guest: visitor.let_in(request.params, guards)?,
        server_user: server_user.unwrap_or_else(|| identity.name.clone()),
        login_user: identity.name,
        credentials,
        database,
        replication: request.replication,
        startup_options: request.startup_options,
    }))
}

/// The client's user, or the forced one under `auth_type=any`.
async fn identify(
    visitor: &mut Visitor<'_>,
    request: &Request,
    destination: &Destination,
) -> Result<Introduced, Ending> {
    if visitor.desk.config.settings.auth_type != AuthType::Any {
        elsewhere::check_database(visitor, destination)?;
        let wanted = match destination {
            Destination::Known(database) => Wanted::Database(database),
            Destination::Unknown(_) => Wanted::Unknown,
        };
        return inquiry::introduce(visitor, request, wanted).await;
    }
    let Destination::Known(database) = destination else {
        // Nobody proves anything here, so there is nothing to wait for.
        log_failed(visitor, request);
        let name = lossy(&request.database);
        return Err(Ending::fatal(format_args!("no such database: {name}")));
    };
    let forced = visitor.desk.server_users.forced(database);
    match (&database.user, forced) {
        (Some(name), user @ Some(_)) => Ok(Introduced::known(name.clone(), user)),
        _ => {
            error!(who = %visitor.who(), "auth_type=any requires forced user");
            Err(Ending::counted(
                ErrorKind::Configuration,
                "bouncer config error",
            ))
        }
    }
}

fn enter_destination(
    visitor: &Visitor<'_>,
    destination: &Destination,
) -> Result<Option<DatabaseGuard>, Ending> {
    let Destination::Known(database) = destination else {
        return Ok(None);
    };
    // This limit is the same for all users.
    let limits = visitor.desk.config.client_limits(database, "");
    let max = limits.max_db_client_connections;
    enter_database(visitor, &database.name, max).map(Some)
}

fn enter_as(
    visitor: &Visitor<'_>,
    destination: &Destination,
    user: &str,
) -> Result<UserGuard, Ending> {
    let config = &visitor.desk.config;
    let limits = match destination {
        Destination::Known(database) => config.client_limits(database, user),
        Destination::Unknown(name) => config.client_limits(&Database::new(name), user),
    };
    enter_user(visitor, user, limits.max_user_client_connections)
}

fn enter_database(visitor: &Visitor<'_>, name: &str, max: u32) -> Result<DatabaseGuard, Ending> {
    let entered = visitor.admission.enter_database(name, max);
    entered.map_err(full)
}

fn enter_user(visitor: &Visitor<'_>, name: &str, max: u32) -> Result<UserGuard, Ending> {
    visitor.admission.enter_user(name, max).map_err(full)
}

fn full(limit: Full) -> Ending {
    Ending::counted(ErrorKind::TooManyClients, limit)
}

/// The doors that an operator may have closed; who is turned away here has proved who it is.
fn check_open(visitor: &Visitor<'_>, database: &Database) -> Result<(), Ending> {
    if visitor.admission.is_disabled(&database.name) {
        let name = &database.name;
        return Err(Ending::counted(
            ErrorKind::Closed,
            format_args!("database \"{name}\" is disabled"),
        ));
    }
    if !visitor.admission.lets_in(visitor.peer.is_unix()) {
        return Err(Ending::counted(
            ErrorKind::Closed,
            "pooler is shutting down",
        ));
    }
    Ok(())
}

/// As whom, and with which secret, its servers log in.
fn credentials(
    visitor: &Visitor<'_>,
    database: &Database,
    own: Option<&Arc<User>>,
) -> Result<Arc<User>, Ending> {
    let forced = visitor.desk.server_users.forced(database);
    // Keys that this client has proved are of use for a forced user with the very same secret.
    if let (Some(forced), Some(keys)) = (&forced, own.and_then(|user| user.keys())) {
        forced.keep_keys(keys.clone());
    }
    // Every method but `any`, which has a forced user, lets only known users through.
    forced
        .or_else(|| own.cloned())
        .ok_or_else(|| Ending::counted(ErrorKind::Configuration, "bouncer config error"))
}

#[cfg(test)]
mod tests;
