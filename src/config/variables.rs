//! The names of environment variables from which a configuration can be made without a file ([`super::container`]): ours, and those
//! that images of PgBouncer take.
//!
//! Settings are named here by their names alone (`POOL_MODE`) or behind `PGBOUNCER_`; behind `PGWEIR_` they hold with a file too, and
//! are the business of [`super::environment`].

use super::entry::{DATABASE_KEYS, find_key};
use super::environment::{self, PREFIX, TYPO_MAX, distance};
use super::table::find;

/// What a variable gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// A URL with everything about one database.
    Url,
    /// Several of them.
    Urls,
    /// Where the server is.
    Host,
    /// Its port.
    Port,
    /// Who logs in, to us and to the server.
    User,
    /// His password.
    Password,
    /// The database on the server.
    Dbname,
    /// The name of the database for clients.
    Name,
    /// Whether all server connections belong to the one user.
    ForceUser,
    /// Another key of the database's entry.
    Key(&'static str),
    /// Lines as of an auth_file.
    Userlist,
    /// The password of those in admin_users.
    AdminPassword,
    /// The password of those in stats_users.
    StatsPassword,
    /// A setting.
    Setting(&'static str),
    /// Nothing that is needed here.
    Ignored,
}

/// A variable that is not simply named as a setting.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it gives.
    pub meaning: Meaning,
    /// One line for people.
    pub help: &'static str,
}

const fn row(name: &'static str, meaning: Meaning, help: &'static str) -> Variable {
    Variable {
        name,
        meaning,
        help,
    }
}

/// All of them.
pub static VARIABLES: &[Variable] = &[
    row(
        "DATABASE_URL",
        Meaning::Url,
        "postgres://user:password@host:port/database?sslmode=…",
    ),
    row(
        "DATABASE_URLS",
        Meaning::Urls,
        "Several such URLs, with commas between them.",
    ),
    row(
        "DB_HOST",
        Meaning::Host,
        "Where PostgreSQL is; several hosts with commas.",
    ),
    row("DB_PORT", Meaning::Port, "Its port; 5432 if not given."),
    row(
        "DB_NAME",
        Meaning::Dbname,
        "The database, for clients and on the server; any database if not given.",
    ),
    row(
        "DB_USER",
        Meaning::User,
        "The user who logs in to pgweir, and by whom pgweir logs in to PostgreSQL.",
    ),
    row("DB_PASSWORD", Meaning::Password, "That user's password."),
    row(
        "CLIENT_ENCODING",
        Meaning::Key("client_encoding"),
        "client_encoding of server connections.",
    ),
    row(
        "ADMIN_PASSWORD",
        Meaning::AdminPassword,
        "Password of the users in ADMIN_USERS, for the console.",
    ),
    row(
        "STATS_PASSWORD",
        Meaning::StatsPassword,
        "Password of the users in STATS_USERS, for the console.",
    ),
    row("POSTGRESQL_HOST", Meaning::Host, "As DB_HOST."),
    row("POSTGRESQL_PORT", Meaning::Port, "As DB_PORT."),
    row("POSTGRESQL_USERNAME", Meaning::User, "As DB_USER."),
    row("POSTGRESQL_PASSWORD", Meaning::Password, "As DB_PASSWORD."),
    row("POSTGRESQL_DATABASE", Meaning::Dbname, "As DB_NAME."),
    row(
        "PGBOUNCER_DATABASE",
        Meaning::Name,
        "The name that clients ask for, if it is not the server's.",
    ),
    row(
        "PGBOUNCER_SET_DATABASE_USER",
        Meaning::ForceUser,
        "yes: all server connections are that one user's, whoever the client is.",
    ),
    row(
        "PGBOUNCER_SET_DATABASE_PASSWORD",
        Meaning::Ignored,
        "Not needed: the password is known.",
    ),
    row(
        "PGBOUNCER_CONNECT_QUERY",
        Meaning::Key("connect_query"),
        "connect_query of the database.",
    ),
    row(
        "PGBOUNCER_USERLIST",
        Meaning::Userlist,
        "More users: lines of \"user\" \"password or secret\".",
    ),
    row(
        "PGBOUNCER_PORT",
        Meaning::Setting("listen_port"),
        "As LISTEN_PORT.",
    ),
    row(
        "PGBOUNCER_BIND_ADDRESS",
        Meaning::Setting("listen_addr"),
        "As LISTEN_ADDR.",
    ),
    row(
        "PGBOUNCER_SOCKET_DIR",
        Meaning::Setting("unix_socket_dir"),
        "As UNIX_SOCKET_DIR.",
    ),
    row("PGBOUNCER_EXTRA_FLAGS", Meaning::Ignored, "Not taken."),
    row(
        "PGBOUNCER_FAIL_ON_INVALID_DSN_STRING",
        Meaning::Ignored,
        "Not needed: every mistake is one.",
    ),
    row(
        "PGBOUNCER_INIT_SLEEP_TIME",
        Meaning::Ignored,
        "Not needed: pgweir starts without PostgreSQL and waits for it.",
    ),
    row(
        "PGBOUNCER_INIT_MAX_RETRIES",
        Meaning::Ignored,
        "Not needed: pgweir starts without PostgreSQL and waits for it.",
    ),
];

/// `DATABASE_URL_<NAME>`: a URL for the database that clients call `<name>`.
const URL_OF: &str = "DATABASE_URL_";
/// `DATABASES_<KEY>`: a key of the one database entry.
const KEY_OF: &str = "DATABASES_";
/// `PGBOUNCER_DSN_<n>`: a line of `[databases]`.
const LINE_OF: &str = "PGBOUNCER_DSN_";
/// `PGBOUNCER_<SETTING>`.
const SETTING_OF: &str = "PGBOUNCER_";
/// The variable holds the name of a file with the value.
pub const FILE_SUFFIX: &str = "_FILE";
/// Settings whose bare names mean something else where programs run: the shell's user, a job of a build server, and the like.
const NOT_BARE: [&str; 5] = ["conffile", "job_name", "resolv_conf", "user", "verbose"];
/// Beginnings by which a name is taken to be meant for us.
const FAMILIES: [&str; 4] = ["DB_", "DATABASE", "POSTGRESQL_", SETTING_OF];

/// What a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// This; `is_file`: the value is in the file that the variable names.
    Value {
        /// What is given.
        meaning: Meaning,
        /// Whether the variable holds the name of a file with the value.
        is_file: bool,
    },
    /// A URL for the database of this name.
    UrlOf {
        /// For clients.
        name: String,
        /// As above.
        is_file: bool,
    },
    /// A line of `[databases]`.
    Line,
    /// A setting for [`super::environment`].
    Ours(&'static str),
    /// Nothing, but perhaps meant to be this.
    Misspelt {
        /// The name that is meant.
        near: String,
        /// Nobody else uses such names, so that it is a mistake.
        is_mistake: bool,
    },
    /// Nothing, though its beginning is PgBouncer's.
    Unknown,
    /// Somebody else's.
    Foreign,
}

/// What a variable of this name means.
pub fn named(name: &str) -> Named {
    if let Some(setting) = name.strip_prefix(PREFIX) {
        let row = find(&setting.to_ascii_lowercase());
        return row.map_or(Named::Foreign, |row| Named::Ours(row.name));
    }
    if let Some(found) = value(name) {
        return found;
    }
    let in_file = name.strip_suffix(FILE_SUFFIX).and_then(value);
    match in_file {
        Some(Named::Value { meaning, .. })
            if !matches!(meaning, Meaning::Setting(_) | Meaning::Ignored) =>
        {
            Named::Value {
                meaning,
                is_file: true,
            }
        }
        Some(Named::UrlOf { name, .. }) => Named::UrlOf {
            name,
            is_file: true,
        },
        _ => misspelt(name),
    }
}

/// A name without [`FILE_SUFFIX`].
fn value(name: &str) -> Option<Named> {
    let value = |meaning| {
        Some(Named::Value {
            meaning,
            is_file: false,
        })
    };
    if let Some(row) = VARIABLES.iter().find(|row| row.name == name) {
        return value(row.meaning);
    }
    if let Some(of) = name.strip_prefix(URL_OF)
        && !of.ends_with(FILE_SUFFIX)
        && of != &FILE_SUFFIX[1..]
        && !of.is_empty()
    {
        let name = of.to_ascii_lowercase();
        return Some(Named::UrlOf {
            name,
            is_file: false,
        });
    }
    if let Some(key) = name.strip_prefix(KEY_OF) {
        return value(
            match find_key(DATABASE_KEYS, &key.to_ascii_lowercase())?.name {
                "host" => Meaning::Host,
                "port" => Meaning::Port,
                "user" => Meaning::User,
                "password" => Meaning::Password,
                "dbname" => Meaning::Dbname,
                key => Meaning::Key(key),
            },
        );
    }
    if let Some(number) = name.strip_prefix(LINE_OF)
        && !number.is_empty()
        && number.bytes().all(|digit| digit.is_ascii_digit())
    {
        return Some(Named::Line);
    }
    let (bare, is_bare) = match name.strip_prefix(SETTING_OF) {
        Some(setting) => (setting, false),
        None => (name, true),
    };
    if bare.bytes().any(|letter| letter.is_ascii_lowercase()) {
        return None;
    }
    let row = find(&bare.to_ascii_lowercase())?;
    match is_bare && NOT_BARE.contains(&row.name) {
        true => None,
        false => value(Meaning::Setting(row.name)),
    }
}

/// A name that means nothing: perhaps it was to be one that does.
fn misspelt(name: &str) -> Named {
    let family = FAMILIES.iter().find(|family| name.starts_with(**family));
    let letters_per_slip = if family.is_some() { 4 } else { 6 };
    let far = (name.len() / letters_per_slip).clamp(1, TYPO_MAX);
    let distances = VARIABLES
        .iter()
        .map(|row| (distance(row.name, name), row.name));
    if let Some((_, near)) = distances.filter(|&(apart, _)| apart <= far).min() {
        let is_mistake = family == Some(&SETTING_OF);
        let near = near.to_owned();
        return Named::Misspelt { near, is_mistake };
    }
    if let Some(setting) = name.strip_prefix(SETTING_OF) {
        let near = environment::nearest(&setting.to_ascii_lowercase());
        return near.map_or(Named::Unknown, |near| Named::Misspelt {
            near: format!("{SETTING_OF}{}", near.to_ascii_uppercase()),
            is_mistake: true,
        });
    }
    // A bare word that is nearly one of our short ones may be anybody's.
    let near = environment::nearest(&name.to_ascii_lowercase());
    let near =
        near.filter(|near| near.contains('_') && name.contains('_') && !NOT_BARE.contains(near));
    near.map_or(Named::Foreign, |near| Named::Misspelt {
        near: near.to_ascii_uppercase(),
        is_mistake: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(meaning: Meaning) -> Named {
        Named::Value {
            meaning,
            is_file: false,
        }
    }

    fn in_file(meaning: Meaning) -> Named {
        Named::Value {
            meaning,
            is_file: true,
        }
    }

    fn url_of(name: &str, is_file: bool) -> Named {
        Named::UrlOf {
            name: name.to_owned(),
            is_file,
        }
    }

    fn misspelt(near: &str, is_mistake: bool) -> Named {
        Named::Misspelt {
            near: near.to_owned(),
            is_mistake,
        }
    }

    #[test]
    fn names() {
        for (name, expected) in [
            ("DATABASE_URL", given(Meaning::Url)),
            ("DATABASE_URL_FILE", in_file(Meaning::Url)),
            ("DATABASE_URL_REPORTS", url_of("reports", false)),
            ("DATABASE_URL_REPORTS_FILE", url_of("reports", true)),
            ("DATABASE_URLS", given(Meaning::Urls)),
            ("DB_PASSWORD", given(Meaning::Password)),
            ("DB_PASSWORD_FILE", in_file(Meaning::Password)),
            ("POSTGRESQL_USERNAME", given(Meaning::User)),
            ("DATABASES_HOST", given(Meaning::Host)),
            ("DATABASES_PASSWORD_FILE", in_file(Meaning::Password)),
            ("DATABASES_POOL_SIZE", given(Meaning::Key("pool_size"))),
            ("PGBOUNCER_DSN_0", Named::Line),
            ("PGBOUNCER_USERLIST_FILE", in_file(Meaning::Userlist)),
            ("PGBOUNCER_POOL_MODE", given(Meaning::Setting("pool_mode"))),
            ("PGBOUNCER_PORT", given(Meaning::Setting("listen_port"))),
            ("POOL_MODE", given(Meaning::Setting("pool_mode"))),
            ("WORKERS", given(Meaning::Setting("workers"))),
            // These are settings, and their values are paths.
            ("AUTH_FILE", given(Meaning::Setting("auth_file"))),
            (
                "SERVER_TLS_KEY_FILE",
                given(Meaning::Setting("server_tls_key_file")),
            ),
            ("PGWEIR_POOL_MODE", Named::Ours("pool_mode")),
            ("PGWEIR_POLL_MODE", Named::Foreign),
            ("DB_PASSWROD", misspelt("DB_PASSWORD", false)),
            ("DATABSE_URL", misspelt("DATABASE_URL", false)),
            ("PGBOUNCER_POOLMODE", misspelt("PGBOUNCER_POOL_MODE", true)),
            ("PGBOUNCER_DATABSE", misspelt("PGBOUNCER_DATABASE", true)),
            ("PGBOUNCER_SERVICE_HOST", Named::Unknown),
            ("MAX_CLIENT_CON", misspelt("MAX_CLIENT_CONN", false)),
            ("POOL_MODE_FILE", Named::Foreign),
            ("USER", Named::Foreign),
            ("JOB_NAME", Named::Foreign),
            ("HOSTNAME", Named::Foreign),
            ("WORKER", Named::Foreign),
            ("PATH", Named::Foreign),
            ("pool_mode", misspelt("POOL_MODE", false)),
        ] {
            assert_eq!(named(name), expected, "{name}");
        }
    }

    #[test]
    fn help_is_one_line() {
        for row in VARIABLES {
            assert!(
                !row.help.is_empty() && !row.help.contains('\n'),
                "{}",
                row.name
            );
        }
    }
}
