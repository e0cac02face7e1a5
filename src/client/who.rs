//! The log prefix of a client, `C-0x…: db/user@host:port`, put together only when a line is really written.

use std::fmt;

use crate::net::PeerAddr;
use crate::types::ConnId;

/// Whom a log line is about: give it to the field `who` with `%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who<'a> {
    /// The connection.
    pub id: ConnId,
    /// Name of the database entry, once the client has a pool; before, and when its login fails, `(nodb)`.
    pub database: Option<&'a str>,
    /// Name of the user, once told; before `(nouser)`.
    pub user: Option<&'a str>,
    /// The client's address.
    pub peer: PeerAddr,
    /// `listen_port`, which stands for the port that a Unix socket's client does not have.
    pub listen_port: u16,
}

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = self.database.unwrap_or("(nodb)");
        let user = self.user.unwrap_or("(nouser)");
        write!(f, "C-{}: {database}/{user}@{}", self.id, self.peer)?;
        match self.peer {
            PeerAddr::Tcp(_) => Ok(()),
            PeerAddr::Unix { .. } => write!(f, ":{}", self.listen_port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(database: Option<&str>, user: Option<&str>, peer: PeerAddr, expected: &str) {
        let who = Who {
            id: ConnId(1),
            database,
            user,
            peer,
            listen_port: 6432,
        };
        assert_eq!(who.to_string(), format!("C-{}: {expected}", ConnId(1)));
    }

    #[test]
    fn prefixes() {
        let tcp = |text: &str| PeerAddr::Tcp(text.parse().unwrap());
        let unix = |pid| PeerAddr::Unix { pid, uid: 0 };
        check(
            Some("db"),
            Some("u"),
            tcp("127.0.0.1:5"),
            "db/u@127.0.0.1:5",
        );
        check(None, Some("u"), tcp("[::1]:5"), "(nodb)/u@[::1]:5");
        check(None, None, unix(Some(12)), "(nodb)/(nouser)@unix(12):6432");
        check(None, None, unix(None), "(nodb)/(nouser)@unix:6432");
        assert!(ConnId(1).to_string().starts_with("0x"));
    }
}
