//! Asking `auth_query` who a user is: whether to ask, where, and what comes of the answer. Who asks the pool is somebody else, an
//! [`Inquirer`]: a login has not heard of pools.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tracing::{error, info};

use super::visitor::{Ending, Visitor};
use super::{Desk, Request, lossy};
use crate::auth::method::decide;
use crate::auth::{Exchange, Method, User, text};
use crate::config::{AuthType, CONSOLE_DATABASE, Config, Database};
use crate::error::ClientError;
use crate::metrics::ErrorKind;
use crate::net::PeerAddr;
use crate::types::ConnId;

/// Bytes that a client may send ahead while `auth_query` is asked about it; beyond that nobody looks whether it is still there.
const AHEAD_MAX: usize = 4096;

/// Answers logins that ask who a user is.
pub trait Inquirer: Send + Sync {
    /// Asks the database. Dropping the future means that the client has gone.
    fn ask(&self, inquiry: Inquiry) -> Asking<'_>;
}

/// The user found, under the name that the database gave it; `None` if there is none. An error is what the client is told.
pub type Answer = Result<Option<Arc<User>>, ClientError>;

/// An answer to come.
pub type Asking<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// What is asked, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inquiry {
    /// Where it is asked.
    pub question: Question,
    /// The name that the client gave.
    pub name: String,
    /// The client.
    pub client: Asker,
}

/// Where and how users are looked up that `auth_file` does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Name of the entry whose database is asked.
    pub database: String,
    /// `auth_user`
    pub user: String,
    /// `auth_query`
    pub query: String,
}

/// A client that waits for the answer, for those who look who uses a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Its number.
    pub id: ConnId,
    /// The database that it wants.
    pub database: String,
    /// Its address.
    pub peer: PeerAddr,
    /// Our end of its socket; `None` for a Unix socket.
    pub local: Option<SocketAddr>,
    /// When it connected.
    pub connected: Instant,
    /// The same, by the clock on the wall.
    pub connected_at: SystemTime,
    /// Protocol and cipher.
    pub tls: Option<&'static str>,
}

/// Why nobody can be asked. `Display` is what the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// The console has no users of its own.
    Reserved,
    /// There is no such database.
    NotConfigured(String),
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Misfit::Reserved => write!(
                f,
                "cannot use the reserved \"{CONSOLE_DATABASE}\" database as an auth_dbname"
            ),
            Misfit::NotConfigured(name) => {
                write!(f, "authentication database \"{name}\" is not configured.")
            }
        }
    }
}

impl std::error::Error for Misfit {}

/// What a client wants to get into.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// A database.
    Database(&'a Database),
    /// The console.
    Console,
    /// A database that does not exist: nobody is asked about its clients.
    Unknown,
}

impl<'a> Wanted<'a> {
    fn entry(self) -> Option<&'a Database> {
        match self {
            Wanted::Database(entry) => Some(entry),
            Wanted::Console | Wanted::Unknown => None,
        }
    }

    fn name(self) -> &'a str {
        self.entry().map_or(CONSOLE_DATABASE, |entry| &entry.name)
    }
}

/// Where to ask about a client. `Ok(None)`: nowhere.
///
/// # Errors
/// There is somebody to ask as (`auth_user`), and nowhere to ask.
pub fn question(config: &Config, wanted: Wanted<'_>) -> Result<Option<Question>, Misfit> {
    let settings = &config.settings;
    let database = wanted.entry();
    // Methods that do not look at stored secrets.
    let stored = !matches!(
        settings.auth_type,
        AuthType::Any | AuthType::Pam | AuthType::Ldap
    );
    if !stored || matches!(wanted, Wanted::Unknown) {
        return Ok(None);
    }
    let own = |key: fn(&Database) -> &Option<String>| database.and_then(|entry| key(entry).clone());
    let user = own(|entry| &entry.auth_user).or_else(|| settings.auth_user.clone());
    let Some(user) = user else { return Ok(None) };
    let named = own(|entry| &entry.auth_dbname).or_else(|| settings.auth_dbname.clone());
    let asked = named.or_else(|| database.map(|entry| entry.name.clone()));
    let asked = asked.filter(|name| name != CONSOLE_DATABASE);
    let asked = asked.ok_or(Misfit::Reserved)?;
    if config.database(&asked).is_none() {
        return Err(Misfit::NotConfigured(asked));
    }
    let query = own(|entry| &entry.auth_query);
    Ok(Some(Question {
        database: asked,
        user,
        query: query.unwrap_or_else(|| settings.auth_query.clone()),
    }))
}

/// Who a client says it is, as far as that is known before it has proved anything.
pub struct Introduced {
    /// The name that counts from here on: the one that the database has given, else the client's.
    pub name: String,
    /// The user of that name, with a secret to prove.
    pub user: Option<Arc<User>>,
    /// `auth_query` was asked.
    was_asked: bool,
}

impl Introduced {
    /// Somebody who need not be looked up, or whom `auth_query` was not asked about.
    pub fn known(name: String, user: Option<Arc<User>>) -> Introduced {
        Introduced {
            name,
            user,
            was_asked: false,
        }
    }

    /// From here on the request is that of the user who was found. Returns the name that the client gave.
    pub fn rename(&self, request: &mut Request) -> Vec<u8> {
        match &self.user {
            Some(user) if self.was_asked => {
                std::mem::replace(&mut request.user, user.name().to_vec())
            }
            _ => request.user.clone(),
        }
    }

    /// The same, with the secret that was shown to somebody who knows better than `auth_file`.
    pub fn with(self, shown: Option<Arc<User>>) -> Introduced {
        Introduced {
            user: shown.or(self.user),
            ..self
        }
    }
}

/// Looks the client's user up: in `auth_file`, else by `auth_query`.
///
/// # Errors
/// The client has gone, or is to be told that it was not possible to look.
pub async fn introduce(
    visitor: &mut Visitor<'_>,
    request: &Request,
    wanted: Wanted<'_>,
) -> Result<Introduced, Ending> {
    if visitor.desk.method().is_elsewhere() {
        return Ok(Introduced::known(lossy(&request.user), None));
    }
    // A name that is no UTF-8 is nobody's: names go on as texts from here, and two of them must not become the same.
    let name = std::str::from_utf8(&request.user).ok();
    let listed = name.and_then(|name| visitor.desk.users.lookup(name).cloned());
    if let (Some(name), None) = (name, listed.as_ref().filter(|user| has_secret(user)))
        && let Some(question) = question_for(visitor, wanted)?
    {
        return ask(visitor, question, name, listed, wanted.name()).await;
    }
    if listed.is_none() {
        info!(who = %visitor.who(), "no such user: {}", lossy(&request.user));
    }
    Ok(Introduced::known(lossy(&request.user), listed))
}

fn has_secret(user: &User) -> bool {
    !user.secret().is_none()
}

fn question_for(visitor: &Visitor<'_>, wanted: Wanted<'_>) -> Result<Option<Question>, Ending> {
    let desk: &Desk = visitor.desk;
    let question = question(&desk.config, wanted).map_err(|misfit| {
        error!(who = %visitor.who(), "{misfit}");
        Ending::counted(ErrorKind::Configuration, "bouncer config error")
    })?;
    if let Some(Question { database: name, .. }) = &question
        && visitor.admission.is_disabled(name)
    {
        return Err(Ending::counted(
            ErrorKind::Closed,
            format_args!("authentication database \"{name}\" is disabled"),
        ));
    }
    Ok(question)
}

async fn ask(
    visitor: &mut Visitor<'_>,
    question: Question,
    name: &str,
    listed: Option<Arc<User>>,
    wanted: &str,
) -> Result<Introduced, Ending> {
    visitor.step_aside().await?;
    let inquiry = Inquiry {
        question,
        name: name.to_owned(),
        client: asker(visitor, wanted)?,
    };
    let found = answer(visitor, inquiry).await?;
    let found = found.filter(|user| std::str::from_utf8(user.name()).is_ok());
    if found.is_none() && listed.is_none() {
        info!(who = %visitor.who(), "no such user: {name}");
        if visitor.desk.config.settings.log_connections {
            info!(who = %visitor.who(), "login failed: db={wanted}");
        }
    }
    // A user whom auth_file lists without a secret is known all the same; nothing matches the secret that is not there.
    let user = found.or(listed);
    let introduced = Introduced {
        name: user
            .as_ref()
            .map_or_else(|| name.to_owned(), |user| user.display_name().into_owned()),
        was_asked: true,
        user,
    };
    visitor.user = Some(introduced.name.clone());
    visitor.show();
    Ok(introduced)
}

fn asker(visitor: &mut Visitor<'_>, database: &str) -> Result<Asker, Ending> {
    Ok(Asker {
        id: visitor.id,
        database: database.to_owned(),
        peer: visitor.peer,
        local: visitor.local,
        connected: visitor.connected,
        connected_at: visitor.connected_at,
        tls: visitor.tls_version_text()?,
    })
}

/// Waits for the answer, for no longer than a login may take, or until the client has gone.
async fn answer(visitor: &mut Visitor<'_>, inquiry: Inquiry) -> Result<Option<Arc<User>>, Ending> {
    let limit = visitor.desk.config.settings.client_login_timeout;
    // A limit beyond all time is none either.
    let until = visitor
        .connected
        .checked_add(limit)
        .filter(|_| !limit.is_zero());
    let asking = visitor.inquirer.ask(inquiry);
    let answered = beside_client(visitor, asking);
    let Some(until) = until else {
        return answered.await;
    };
    let answered = tokio::time::timeout_at(until.into(), answered).await;
    answered.unwrap_or_else(|_| {
        Err(Ending::counted(
            ErrorKind::ServerUnavailable,
            "client_login_timeout (server down)",
        ))
    })
}

/// Looks meanwhile whether the client is still there: a database that is slow shall not be asked for those who have gone.
async fn beside_client(
    visitor: &mut Visitor<'_>,
    mut asking: Asking<'_>,
) -> Result<Option<Arc<User>>, Ending> {
    let inbox = visitor.inbox()?;
    loop {
        let held = inbox.held().len();
        if held >= AHEAD_MAX {
            return asking.await.map_err(Ending::Fatal);
        }
        tokio::select! {
            biased;
            answer = &mut asking => return answer.map_err(Ending::Fatal),
            more = inbox.fill(held + 1) => more?,
        }
    }
}

/// Users whom `auth_query` did not find meet the same exchange as others, and fail it. Where there is none to meet, they are told
/// at once.
///
/// # Errors
/// They are told.
pub fn refuse_unknown(introduced: &Introduced, method: &Method) -> Result<(), Ending> {
    let not_found = introduced.was_asked && introduced.user.is_none();
    let exchange = decide(method, introduced.user.as_deref());
    let at_once = matches!(exchange, Exchange::Reject(_)) && *method != Method::Reject;
    match not_found && at_once {
        true => Err(Ending::counted(ErrorKind::AuthFailed, text::NO_SUCH_USER)),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(auth_type: AuthType, entries: &[Database]) -> Config {
        let mut config = Config::default();
        config.settings.auth_type = auth_type;
        config.settings.auth_query = "global query".to_owned();
        for entry in entries {
            let entry = Arc::new(entry.clone());
            config.databases.insert(entry.name.clone(), entry);
        }
        config
    }

    fn entry(name: &str, keys: [Option<&str>; 3]) -> Database {
        let [auth_user, auth_dbname, auth_query] = keys.map(|key| key.map(str::to_owned));
        Database {
            auth_user,
            auth_dbname,
            auth_query,
            ..Database::new(name)
        }
    }

    /// Entry, global user and database → database, user, query; or what the log says.
    #[track_caller]
    fn check(
        keys: Option<[Option<&str>; 3]>,
        global: [Option<&str>; 2],
        expected: Result<Option<[&str; 3]>, &str>,
    ) {
        let db = keys.map(|keys| entry("db", keys));
        let entries = [db.clone(), Some(entry("other", [None; 3]))];
        let entries: Vec<Database> = entries.into_iter().flatten().collect();
        let mut config = config(AuthType::ScramSha256, &entries);
        [config.settings.auth_user, config.settings.auth_dbname] =
            global.map(|setting| setting.map(str::to_owned));
        let wanted = db.as_ref().map_or(Wanted::Console, Wanted::Database);
        let got = question(&config, wanted);
        let got = got.map_err(|misfit| misfit.to_string());
        let expected = expected.map(|question| {
            question.map(|[database, user, query]| Question {
                database: database.to_owned(),
                user: user.to_owned(),
                query: query.to_owned(),
            })
        });
        assert_eq!(got, expected.map_err(str::to_owned));
    }

    #[test]
    fn without_auth_user_nobody_is_asked() {
        check(Some([None; 3]), [None, Some("other")], Ok(None));
        check(None, [None, Some("other")], Ok(None));
    }

    #[test]
    fn an_entrys_keys_win_over_the_settings() {
        let global = [Some("asker"), None];
        check(
            Some([None; 3]),
            global,
            Ok(Some(["db", "asker", "global query"])),
        );
        let own = [Some("own"), Some("other"), Some("own query")];
        check(Some(own), global, Ok(Some(["other", "own", "own query"])));
        let global = [Some("asker"), Some("other")];
        check(
            Some([None; 3]),
            global,
            Ok(Some(["other", "asker", "global query"])),
        );
        check(
            Some([Some("own"), None, None]),
            [None; 2],
            Ok(Some(["db", "own", "global query"])),
        );
    }

    #[test]
    fn the_console_needs_a_database_to_ask() {
        let reserved = "cannot use the reserved \"pgbouncer\" database as an auth_dbname";
        check(None, [Some("asker"), None], Err(reserved));
        check(
            None,
            [Some("asker"), Some("other")],
            Ok(Some(["other", "asker", "global query"])),
        );
        check(
            Some([None, Some("pgbouncer"), None]),
            [Some("asker"), None],
            Err(reserved),
        );
    }

    #[test]
    fn a_database_that_does_not_exist() {
        let text = "authentication database \"gone\" is not configured.";
        check(
            Some([None, Some("gone"), None]),
            [Some("asker"), None],
            Err(text),
        );
    }

    #[test]
    fn methods_without_stored_secrets_ask_nobody() {
        let db = entry("db", [Some("asker"), None, None]);
        for auth_type in [AuthType::Any, AuthType::Pam, AuthType::Ldap] {
            let config = config(auth_type, std::slice::from_ref(&db));
            assert_eq!(question(&config, Wanted::Database(&db)), Ok(None));
        }
        let trust = config(AuthType::Trust, std::slice::from_ref(&db));
        assert_eq!(question(&trust, Wanted::Unknown), Ok(None));
        for auth_type in [
            AuthType::Trust,
            AuthType::Cert,
            AuthType::Hba,
            AuthType::Plain,
            AuthType::Md5,
            AuthType::ScramSha256,
        ] {
            let config = config(auth_type, std::slice::from_ref(&db));
            assert!(question(&config, Wanted::Database(&db)).unwrap().is_some());
        }
    }
}
