//! Proofs that others judge: the client gives its password, and an LDAP server or PAM says whether it is right.
//!
//! The waiting ends with the login's own limit, or when the client goes. Whatever is wrong, the client hears one sentence;
//! the log hears why.

use std::future::{Future, pending};
use std::sync::Arc;

use tracing::{error, warn};

use super::Destination;
use super::proof::{self, Claim};
use super::visitor::{CLIENT_EOF, Ending, Visitor};
use crate::auth::{LdapOptions, Method, Secret, User, cleartext, text};
use crate::metrics::ErrorKind;
use crate::net::PeerAddr;
use crate::net::stream::Readable;
use crate::wire::build;

/// What PAM is told about where a client of the Unix socket comes from; PgBouncer says the same.
const UNIX_PEER: &str = "unix";

/// A database whose users are looked up by a query cannot be used with methods that know the users themselves.
pub fn check_database(visitor: &Visitor<'_>, destination: &Destination) -> Result<(), Ending> {
    let what = match visitor.desk.method() {
        Method::Ldap(_) => "LDAP",
        Method::Pam => "PAM",
        _ => return Ok(()),
    };
    match destination {
        Destination::Known(database) if database.auth_user.is_some() => {
            error!(who = %visitor.who(), "{what} can't be used together with database authentication");
            Err(Ending::counted(
                ErrorKind::Configuration,
                "bouncer config error",
            ))
        }
        _ => Ok(()),
    }
}

/// Asks for the password, and asks others about it. Gives the user with that password.
pub async fn prove(visitor: &mut Visitor<'_>, claim: Claim<'_>) -> Result<Arc<User>, Ending> {
    visitor.step_aside().await?;
    build::authentication_cleartext(&mut visitor.outgoing);
    let failure = match claim.method {
        Method::Ldap(_) => text::LDAP_FAILED,
        _ => text::PAM_FAILED,
    };
    let body = proof::answer(visitor, proof::PASSWORD_MESSAGE_MAX, failure).await?;
    // An empty password is an error here: many an LDAP server takes it for "nobody in particular", and says yes.
    let password = match cleartext::password(&body) {
        Err(cleartext::PasswordError::Malformed) => {
            return Err(Ending::counted(ErrorKind::AuthFailed, failure));
        }
        password => {
            password.map_err(|error| Ending::counted(ErrorKind::AuthFailed, error.client_text()))?
        }
    };
    // Names go on as texts from here, and two of them must not become the same.
    let Ok(name) = std::str::from_utf8(claim.name) else {
        warn!(who = %visitor.who(), "user name is not UTF-8");
        return Err(Ending::counted(ErrorKind::AuthFailed, failure));
    };
    let judged = match claim.method {
        Method::Ldap(options) => ask_ldap(visitor, options, name, password).await?,
        _ => ask_pam(visitor, name, password).await?,
    };
    judged.map_err(|why| {
        warn!(who = %visitor.who(), "{why}");
        Ending::counted(ErrorKind::AuthFailed, failure)
    })?;
    Ok(Arc::new(User::new(claim.name, Secret::plain(password))))
}

type Judged = Result<(), String>;

async fn ask_ldap(
    visitor: &mut Visitor<'_>,
    options: &LdapOptions,
    name: &str,
    password: &[u8],
) -> Result<Judged, Ending> {
    let Some(directory) = visitor.desk.referees.directory.clone() else {
        return Ok(Err("LDAP is not set up".to_owned()));
    };
    let judged = async {
        let judged = directory.verify(options, name, password).await;
        judged.map_err(|error| error.to_string())
    };
    unless_gone(visitor, judged).await
}

async fn ask_pam(visitor: &mut Visitor<'_>, name: &str, password: &[u8]) -> Result<Judged, Ending> {
    let Some(pam) = visitor.desk.referees.pam.clone() else {
        return Ok(Err("PAM is not set up".to_owned()));
    };
    let from = match visitor.peer {
        PeerAddr::Tcp(addr) => addr.ip().to_string(),
        PeerAddr::Unix { .. } => UNIX_PEER.to_owned(),
    };
    let judged = async {
        let judged = pam.verify(name, password, &from).await;
        judged.map_err(|error| error.to_string())
    };
    unless_gone(visitor, judged).await
}

/// Waits, but not for a client that has hung up: others wait for its place.
async fn unless_gone<T>(
    visitor: &mut Visitor<'_>,
    judged: impl Future<Output = T>,
) -> Result<T, Ending> {
    tokio::select! {
        biased;
        judged = judged => Ok(judged),
        () = gone(visitor) => Err(Ending::Gone(CLIENT_EOF)),
    }
}

/// Ends when the client hangs up. One that sends something now is not looked at any more.
async fn gone(visitor: &mut Visitor<'_>) {
    let Ok(inbox) = visitor.inbox() else { return };
    let Ok(stream) = inbox.stream() else { return };
    if let Ok(Readable::Bytes) = stream.readable().await {
        pending().await
    }
}
