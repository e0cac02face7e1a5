//! Who gets in, and who may run what: one table, asked once for every command before anything else is looked at.

use super::CONSOLE;
use super::command::Command;
use crate::config::{AuthType, Settings};

/// What a console user is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// In `admin_users`, or the console's own user on the Unix socket.
    Admin,
    /// In `stats_users`: looks, and changes nothing.
    Stats,
}

/// The role of a user who asks for the console: `None` if it is not let in (*not allowed*).
///
/// `is_own_process` says that it comes over a Unix socket from a process of this program's own user, to whom the name `pgbouncer`
/// belongs without any proof. With `auth_type=any` everybody may look, since names prove nothing.
pub fn role_of(settings: &Settings, user: &str, is_own_process: bool) -> Option<Role> {
    let is_in = |list: &[String]| list.iter().any(|name| name == user);
    if is_in(&settings.admin_users) || (is_own_process && user == CONSOLE) {
        return Some(Role::Admin);
    }
    let may_look = is_in(&settings.stats_users) || settings.auth_type == AuthType::Any;
    may_look.then_some(Role::Stats)
}

/// Whether a user of this role may run the command.
pub fn may(role: Role, command: &Command) -> bool {
    match (role, needed(command)) {
        (Role::Admin, _) => true,
        (Role::Stats, needed) => needed == Role::Stats,
    }
}

/// The least role that a command needs. Every command is listed, so that a new one cannot be forgotten.
fn needed(command: &Command) -> Role {
    match command {
        Command::Show(_) => Role::Stats,
        Command::SetIgnored => Role::Stats,
        Command::Set { .. } => Role::Admin,
        Command::Reload => Role::Admin,
        Command::Pause(_) => Role::Admin,
        Command::Resume(_) => Role::Admin,
        Command::Disable(_) => Role::Admin,
        Command::Enable(_) => Role::Admin,
        Command::Reconnect(_) => Role::Admin,
        Command::Kill(_) => Role::Admin,
        Command::KillClient(_) => Role::Admin,
        Command::WaitClose(_) => Role::Admin,
        Command::Shutdown(_) => Role::Admin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::command::{PARAMETERS, SHOWS, parse};

    #[test]
    fn who_gets_in() {
        let mut settings = Settings {
            admin_users: vec!["adm".to_owned(), "both".to_owned()],
            stats_users: vec!["stat".to_owned(), "both".to_owned()],
            ..Settings::default()
        };
        for (user, is_own_process, role) in [
            ("adm", false, Some(Role::Admin)),
            ("both", false, Some(Role::Admin)),
            ("stat", false, Some(Role::Stats)),
            ("stat", true, Some(Role::Stats)),
            ("Adm", false, None),
            ("joe", true, None),
            ("pgbouncer", true, Some(Role::Admin)),
            ("pgbouncer", false, None),
        ] {
            assert_eq!(role_of(&settings, user, is_own_process), role, "{user}");
        }
        settings.auth_type = AuthType::Any;
        assert_eq!(role_of(&settings, "joe", false), Some(Role::Stats));
        assert_eq!(role_of(&settings, "adm", false), Some(Role::Admin));
    }

    fn check(text: &str, stats_may: bool) {
        for command in parse(text).unwrap() {
            assert!(may(Role::Admin, &command), "{text}");
            assert_eq!(may(Role::Stats, &command), stats_may, "{text}");
        }
    }

    #[test]
    fn everybody_may_look() {
        for (name, _) in SHOWS {
            check(&format!("SHOW {name}"), true);
        }
        for (name, _) in PARAMETERS {
            check(&format!("SHOW {name}; SET {name} = 'x'"), true);
        }
    }

    #[test]
    fn only_admins_change_things() {
        for text in [
            "SET query_timeout = 1",
            "RELOAD",
            "PAUSE; PAUSE db",
            "RESUME; RESUME db",
            "DISABLE; DISABLE db",
            "ENABLE; ENABLE db",
            "RECONNECT; RECONNECT db",
            "KILL; KILL db",
            "WAIT_CLOSE; WAIT_CLOSE db",
            "SHUTDOWN; SHUTDOWN WAIT_FOR_SERVERS; SHUTDOWN WAIT_FOR_CLIENTS; SHUTDOWN DRAIN",
        ] {
            check(text, false);
        }
    }

    /// CVE-2026-6667: in PgBouncer KILL_CLIENT once needed no right.
    #[test]
    fn kill_client_needs_an_admin() {
        check("KILL_CLIENT; KILL_CLIENT 1; KILL_CLIENT x", false);
    }
}
