//! By which method a client has to prove who it is: that of `auth_type`, or of the HBA rule that fits. For `cert` and `peer`, where
//! nothing is asked of the client, the names are compared here.
//!
//! Not here: whether the user is known, and the exchanges (see `proof`).

use nix::unistd::{Uid, User};
use tracing::{debug, error, info, warn};

use super::lossy;
use super::request::{Replication, Request};
use super::visitor::{Ending, Visitor};
use crate::auth::hba::{Caller, Origin};
use crate::auth::ident::IdentMap;
use crate::auth::{Method, cert, text};
use crate::config::AuthType;
use crate::metrics::ErrorKind;
use crate::net::{PeerAddr, Stream};

/// The method for this client. For [`Method::Cert`] and [`Method::Peer`] its names have been compared when this returns.
///
/// # Errors
/// No rule fits, or the certificate or system user is not one that may have the client's name.
pub async fn method(visitor: &mut Visitor<'_>, request: &Request) -> Result<Method, Ending> {
    let desk = visitor.desk;
    if desk.config.settings.auth_type != AuthType::Hba {
        let method = desk.method();
        compare(visitor, request, &method, None).await?;
        return Ok(method);
    }
    let caller = Caller {
        origin: origin(visitor)?,
        database: &request.database,
        user: &request.user,
        replication: request.replication == Replication::Physical,
    };
    let Some(rule) = desk.rules.find(&caller) else {
        info!(who = %visitor.who(), "no hba rule for {}", shown(&caller));
        return Err(Ending::counted(ErrorKind::AuthFailed, text::NO_METHOD));
    };
    let (line, method) = (rule.line, rule.method.clone());
    debug!(who = %visitor.who(), "hba line {line}: {method} for {}", shown(&caller));
    compare(visitor, request, &method, rule.map.as_deref()).await?;
    Ok(method)
}

/// What the rules go by, for the log.
fn shown(caller: &Caller<'_>) -> String {
    let (database, user) = (lossy(caller.database), lossy(caller.user));
    let replication = if caller.replication { "yes" } else { "no" };
    let origin = caller.origin;
    format!("db={database} user={user} from {origin} replication={replication}")
}

fn origin(visitor: &mut Visitor<'_>) -> Result<Origin, Ending> {
    match visitor.peer {
        PeerAddr::Unix { .. } => Ok(Origin::Local),
        PeerAddr::Tcp(address) => Ok(Origin::Tcp {
            address: address.ip(),
            tls: visitor.is_tls()?,
        }),
    }
}

async fn compare(
    visitor: &mut Visitor<'_>,
    request: &Request,
    method: &Method,
    map: Option<&IdentMap>,
) -> Result<(), Ending> {
    match method {
        Method::Cert => compare_certificate(visitor, request, map),
        Method::Peer => compare_peer(visitor, request, map).await,
        _ => Ok(()),
    }
}

/// Only TLS has certificates, and so Unix sockets never do.
fn compare_certificate(
    visitor: &mut Visitor<'_>,
    request: &Request,
    map: Option<&IdentMap>,
) -> Result<(), Ending> {
    let refused = Err(Ending::counted(
        ErrorKind::AuthFailed,
        text::CERTIFICATE_FAILED,
    ));
    // The handshake has verified it, or there would be none.
    let Some(certificate) = visitor.inbox()?.live().and_then(Stream::peer_certificate) else {
        error!(who = %visitor.who(), "TLS client certificate required");
        return refused;
    };
    let names = cert::names(certificate);
    if cert::permits(&names, &request.user, map) {
        return Ok(());
    }
    match map {
        Some(map) => {
            let map = map.name();
            error!(who = %visitor.who(), "ident map: {map} does not have a match for {names:?}");
        }
        None => error!(who = %visitor.who(), "TLS certificate name mismatch: it is for {names:?}"),
    }
    refused
}

async fn compare_peer(
    visitor: &mut Visitor<'_>,
    request: &Request,
    map: Option<&IdentMap>,
) -> Result<(), Ending> {
    let refused = Err(Ending::counted(ErrorKind::AuthFailed, text::PEER_FAILED));
    let PeerAddr::Unix { uid, .. } = visitor.peer else {
        info!(who = %visitor.who(), "peer authentication is for Unix sockets only");
        return refused;
    };
    visitor.step_aside().await?;
    let Some(name) = system_user(visitor, uid).await else {
        return refused;
    };
    let permitted = match map {
        None => name.as_bytes() == request.user,
        Some(map) => map.permits(name.as_bytes(), &request.user),
    };
    if permitted {
        return Ok(());
    }
    match map {
        Some(map) => {
            let map = map.name();
            error!(who = %visitor.who(), "ident map {map} cannot be matched: the system user is {name}");
        }
        None => info!(who = %visitor.who(), "the system user is {name}"),
    }
    refused
}

/// The name of a system user. Whoever knows them may be far away, so no login thread waits for the answer.
async fn system_user(visitor: &Visitor<'_>, uid: u32) -> Option<String> {
    let asked = tokio::task::spawn_blocking(move || User::from_uid(Uid::from_raw(uid)));
    match asked.await {
        // One that is no UTF-8 comes with replacement characters, and so might be anybody's.
        Ok(Ok(Some(user))) if user.name.contains(char::REPLACEMENT_CHARACTER) => {
            warn!(who = %visitor.who(), "the name of uid {uid} is not UTF-8");
        }
        Ok(Ok(Some(user))) => return Some(user.name),
        Ok(Ok(None)) => warn!(who = %visitor.who(), "there is no system user with uid {uid}"),
        Ok(Err(error)) => warn!(who = %visitor.who(), "could not look up uid {uid}: {error}"),
        Err(error) => warn!(who = %visitor.who(), "could not look up uid {uid}: {error}"),
    }
    None
}
