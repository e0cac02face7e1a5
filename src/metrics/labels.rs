//! The words that things are counted under: short closed lists, so that what is counted is bounded whatever comes.

use std::fmt;
use std::marker::PhantomData;
use std::ops::AddAssign;

/// One of a short closed list of words.
pub trait Label: Copy + PartialEq + fmt::Debug + 'static {
    /// All of them.
    const ALL: &'static [Self];
    /// As metrics and the console say it.
    fn word(self) -> &'static str;
    /// Its place in [`Label::ALL`].
    fn index(self) -> usize;
}

macro_rules! labels {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $variant:ident => $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$what])* $variant,)+ }

        impl $name {
            /// How many there are.
            pub const COUNT: usize = [$($name::$variant),+].len();
        }

        impl Label for $name {
            const ALL: &'static [Self] = &[$($name::$variant),+];

            fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

labels! {
    /// Why a client waits for a server.
    WaitReason {
        /// The pool has as many servers as it may (`pool_size`), and all are in use.
        PoolFull => "pool_full",
        /// The database has as many as it may (`max_db_connections`).
        DatabaseLimit => "database_limit",
        /// The user has as many as it may (`max_user_connections`).
        UserLimit => "user_limit",
        /// PAUSE.
        Paused => "paused",
        /// PostgreSQL can't be reached, or refuses logins.
        ServerDown => "server_down",
        /// A server for it is being connected, logged in to, or tested.
        LoggingIn => "logging_in",
    }
}

labels! {
    /// Why a client kept its server beyond the end of a transaction, in transaction or statement pooling.
    PinReason {
        /// It had sent more already: requests behind the one whose end ended the transaction.
        Pipeline => "pipeline",
        /// It had sent the beginning of a message, or bytes for one of the two could not be passed on yet.
        PartialMessage => "partial_message",
        /// It has prepared or dropped statements by SQL: the server is asked first which it has now.
        SqlPrepared => "sql_prepared",
        /// It replicates, and has its server to itself.
        Replication => "replication",
        /// A cancel request aimed at the server was on its way: until it is finished nobody may use the server.
        Cancel => "cancel",
    }
}

labels! {
    /// A limit that refused a connection.
    Limit {
        /// `pool_size`
        Pool => "pool",
        /// `max_db_connections`
        Database => "database",
        /// `max_user_connections`
        User => "user",
    }
}

labels! {
    /// Where to look first when an error is counted.
    Side {
        /// What a client did.
        Client => "client",
        /// What PostgreSQL, or the way to it, did.
        Server => "server",
        /// What the pooler's own limits and operators did.
        Pooler => "pooler",
    }
}

labels! {
    /// What has gone wrong: one for each connection that ended with an error, or did not come about.
    ErrorKind {
        /// A client could not prove who it is, or no rule lets it in.
        AuthFailed => "auth_failed",
        /// A client asked for what there is not: an unknown database, no TLS where it is required, …
        LoginRefused => "login_refused",
        /// A client took longer than `client_login_timeout` to log in.
        LoginTimeout => "login_timeout",
        /// A client broke the protocol.
        Protocol => "protocol",
        /// A client used what the settings do not allow, or more of it: simple queries, transactions, prepared statements.
        NotAllowed => "not_allowed",
        /// A client vanished without saying good-bye.
        ClientLost => "client_lost",
        /// `client_idle_timeout`
        ClientIdleTimeout => "client_idle_timeout",
        /// `idle_transaction_timeout`
        IdleTransactionTimeout => "idle_transaction_timeout",
        /// `transaction_timeout`
        TransactionTimeout => "transaction_timeout",
        /// `query_timeout`
        QueryTimeout => "query_timeout",
        /// `query_wait_timeout`
        QueryWaitTimeout => "query_wait_timeout",
        /// A client was one too many (`max_client_conn` and the limits per database and user).
        TooManyClients => "too_many_clients",
        /// The database is disabled, or the pooler is about to end.
        Closed => "closed",
        /// The pooler ends.
        PoolerShutdown => "pooler_shutdown",
        /// KILL, KILL_CLIENT, or the database was removed from the configuration.
        Killed => "killed",
        /// The servers are connected differently from now on, and the client kept one of before.
        Reconfigured => "reconfigured",
        /// Something is wrong with the pooler's configuration, or with what it asks others.
        Configuration => "configuration",
        /// The server could not be reached: refused, timed out, no address, no TLS.
        ServerConnectFailed => "server_connect_failed",
        /// The server said no, or the login to it could not go on.
        ServerLoginFailed => "server_login_failed",
        /// A server connection broke.
        ServerLost => "server_lost",
        /// A server broke the protocol.
        ServerProtocol => "server_protocol",
        /// A client was told that there is no server, since the last attempts to connect one have failed.
        ServerUnavailable => "server_unavailable",
    }
}

impl ErrorKind {
    /// Where to look first.
    pub fn side(self) -> Side {
        match self {
            ErrorKind::AuthFailed
            | ErrorKind::LoginRefused
            | ErrorKind::LoginTimeout
            | ErrorKind::Protocol
            | ErrorKind::NotAllowed
            | ErrorKind::ClientLost
            | ErrorKind::ClientIdleTimeout
            | ErrorKind::IdleTransactionTimeout
            | ErrorKind::TransactionTimeout => Side::Client,
            ErrorKind::QueryTimeout
            | ErrorKind::ServerConnectFailed
            | ErrorKind::ServerLoginFailed
            | ErrorKind::ServerLost
            | ErrorKind::ServerProtocol
            | ErrorKind::ServerUnavailable => Side::Server,
            ErrorKind::QueryWaitTimeout
            | ErrorKind::TooManyClients
            | ErrorKind::Closed
            | ErrorKind::PoolerShutdown
            | ErrorKind::Killed
            | ErrorKind::Reconfigured
            | ErrorKind::Configuration => Side::Pooler,
        }
    }
}

/// How often something happened, for each of a list of labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts<L> {
    counts: Vec<u64>,
    of: PhantomData<L>,
}

impl<L: Label> Counts<L> {
    /// Counts in the order of [`Label::ALL`].
    pub fn new(counts: impl IntoIterator<Item = u64>) -> Counts<L> {
        let mut counts: Vec<u64> = counts.into_iter().collect();
        counts.resize(L::ALL.len(), 0);
        Counts {
            counts,
            of: PhantomData,
        }
    }

    /// How often for this label.
    pub fn get(&self, label: L) -> u64 {
        self.counts[label.index()]
    }

    /// Adds to this label's count.
    pub fn add(&mut self, label: L, n: u64) {
        self.counts[label.index()] += n;
    }

    /// For each label the larger of both.
    pub fn raise(&mut self, other: &Counts<L>) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = (*count).max(*more);
        }
    }

    /// How often for all labels together.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Every label with its count, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (L, u64)> {
        L::ALL.iter().copied().zip(self.counts.iter().copied())
    }
}

impl<L: Label> Default for Counts<L> {
    fn default() -> Self {
        Counts::new([])
    }
}

impl<L: Label> AddAssign<&Counts<L>> for Counts<L> {
    fn add_assign(&mut self, other: &Counts<L>) {
        for (sum, more) in self.counts.iter_mut().zip(&other.counts) {
            *sum += more;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn check<L: Label>() {
        let words: HashSet<&str> = L::ALL.iter().map(|label| label.word()).collect();
        assert_eq!(words.len(), L::ALL.len());
        let is_plain = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        assert!(words.iter().all(is_plain));
        for (at, label) in L::ALL.iter().enumerate() {
            assert_eq!(label.index(), at);
        }
    }

    #[test]
    fn every_label_has_a_word_and_a_place_of_its_own() {
        check::<WaitReason>();
        check::<PinReason>();
        check::<Limit>();
        check::<Side>();
        check::<ErrorKind>();
    }

    #[test]
    fn counts_add_up() {
        let mut one = Counts::<Limit>::new([1, 2]);
        one.add(Limit::User, 5);
        one += &Counts::new([10, 0, 1]);
        assert_eq!(one, Counts::new([11, 2, 6]));
        assert_eq!((one.total(), one.get(Limit::Database)), (19, 2));
    }
}
