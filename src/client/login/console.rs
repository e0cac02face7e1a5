//! Logging in to the console: who may come in, and as what. What the console does then is [`crate::admin`]'s.

use tracing::info;

use super::gate;
use super::proof::{self, Claim};
use super::request::Request;
use super::visitor::{Ending, Visitor};
use super::{
    Arrival, CONSOLE_USER, ConsoleLogin, ConsoleRole, Guards, Guest, SocketGuard, check_user_name,
    enter_database, enter_user, log_attempt, look_up, lossy,
};
use crate::auth::Method;
use crate::config::{CONSOLE_DATABASE, Database};
use crate::net::PeerAddr;

/// A visitor who wants the console: our own uid gets in at once, everybody else as `admin_users` and `stats_users` say, after a
/// proof as for any database.
pub(super) async fn log_in(
    visitor: &mut Visitor<'_>,
    request: Request,
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
    let is_any = visitor.desk.method() == Method::Any;
    let user = if is_any {
        None
    } else {
        look_up(visitor, &request)
    };
    let role = visitor.desk.console_role(&request.user);
    let guards = enter_console(visitor, &request, role, socket)?;
    log_attempt(visitor, &request)?;
    let role = role.ok_or_else(|| Ending::fatal("not allowed"))?;
    let method = gate::method(visitor, &request).await?;
    let claim = Claim {
        name: &request.user,
        user: user.as_ref(),
        method: &method,
    };
    proof::prove(visitor, claim).await?;
    let name = if is_any {
        CONSOLE_USER.to_owned()
    } else {
        lossy(&request.user)
    };
    let guest = visitor.let_in(request.params, guards)?;
    Ok(arrival(guest, name, role))
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
    request: &Request,
    role: Option<ConsoleRole>,
    socket: SocketGuard,
) -> Result<Guards, Ending> {
    let user = lossy(&request.user);
    let config = &visitor.desk.config;
    let limits = config.client_limits(&Database::new(CONSOLE_DATABASE), &user);
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
        user: Some(enter_user(visitor, &user, user_max)?),
    })
}

fn arrival(guest: Guest, user: String, role: ConsoleRole) -> Arrival {
    Arrival::Console(ConsoleLogin { guest, user, role })
}
