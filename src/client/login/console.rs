//! Logging in to the console: who may come in, and as what. What the console does then is [`crate::admin`]'s.

use tracing::info;

use super::gate;
use super::inquiry::{self, Introduced, Wanted};
use super::proof::{self, Claim};
use super::request::Request;
use super::visitor::{Ending, Visitor};
use super::{
    Arrival, CONSOLE_USER, ConsoleLogin, ConsoleRole, Guards, Guest, SocketGuard, check_user_name,
    enter_database, enter_user, log_attempt, lossy,
};
use crate::auth::Method;
use crate::config::{CONSOLE_DATABASE, Database};
use crate::metrics::ErrorKind;
use crate::net::PeerAddr;

/// A visitor who wants the console: our own uid gets in at once, everybody else as `admin_users` and `stats_users` say, after a
/// proof as for any database.
pub(super) async fn log_in(
    visitor: &mut Visitor<'_>,
    mut request: Request,
    socket: SocketGuard,
) -> Result<Arrival, Ending> {
    if is_own_console(visitor, &request) {
        if visitor.desk.config.settings.log_connections {
            info!(who = %visitor.who(), "pgbouncer access from unix socket");
        }
        let guards = Guards {
            socket,
            database: None,
            user: None,
        };
        let user = CONSOLE_USER.to_owned();
        let guest = visitor.let_in(request.params, guards)?;
        return Ok(arrival(guest, user, ConsoleRole::Admin));
    }
    check_user_name(visitor, &request)?;
    let introduced = introduce(visitor, &request).await?;
    let given = introduced.rename(&mut request);
    // What the user may do goes with the name that is proved: `auth_query` may have given another one.
    let name = introduced.name.clone();
    let role = visitor.desk.console_role(name.as_bytes());
    let guards = enter_console(visitor, &name, role, socket)?;
    log_attempt(visitor, &request)?;
    let role = role.ok_or_else(|| Ending::counted(ErrorKind::AuthFailed, "not allowed"))?;
    let method = gate::method(visitor, &request).await?;
    inquiry::refuse_unknown(&introduced, &method)?;
    let claim = Claim {
        given: &given,
        name: &request.user,
        user: introduced.user.as_ref(),
        method: &method,
    };
    proof::prove(visitor, claim).await?;
    let name = match is_any(visitor) {
        true => CONSOLE_USER.to_owned(),
        false => name,
    };
    let guest = visitor.let_in(request.params, guards)?;
    Ok(arrival(guest, name, role))
}

fn is_any(visitor: &Visitor<'_>) -> bool {
    visitor.desk.method() == Method::Any
}

async fn introduce(visitor: &mut Visitor<'_>, request: &Request) -> Result<Introduced, Ending> {
    if is_any(visitor) {
        return Ok(Introduced::known(lossy(&request.user), None));
    }
    inquiry::introduce(visitor, request, Wanted::Console).await
}

/// Our own uid at the other end of a Unix socket could do worse than look at the console.
fn is_own_console(visitor: &Visitor<'_>, request: &Request) -> bool {
    let own_uid = visitor.desk.console_uid;
    let is_own = matches!(visitor.peer, PeerAddr::Unix { uid, .. } if uid == own_uid);
    is_own && request.user == CONSOLE_USER.as_bytes()
}

/// Counts a console user. Administrators get in whatever the limits say.
fn enter_console(
    visitor: &Visitor<'_>,
    user: &str,
    role: Option<ConsoleRole>,
    socket: SocketGuard,
) -> Result<Guards, Ending> {
    let config = &visitor.desk.config;
    let limits = config.client_limits(&Database::new(CONSOLE_DATABASE), user);
    let limited = |max: u32| {
        if role == Some(ConsoleRole::Admin) {
            0
        } else {
            max
        }
    };
    let database_max = limited(limits.max_db_client_connections);
    let user_max = limited(limits.max_user_client_connections);
    Ok(Guards {
        socket,
        database: Some(enter_database(visitor, CONSOLE_DATABASE, database_max)?),
        user: Some(enter_user(visitor, user, user_max)?),
    })
}

fn arrival(guest: Guest, user: String, role: ConsoleRole) -> Arrival {
    Arrival::Console(ConsoleLogin { guest, user, role })
}
