//! What PgBouncer counts too (`SHOW STATS`), in its words and with its meaning.

use std::ops::{Add, AddAssign};

/// What `SHOW STATS` counts, for one pool or a sum of pools. Times are in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Links of a client with a server.
    pub server_assignment_count: u64,
    /// Transactions, counted when they start.
    pub xact_count: u64,
    /// Query rounds, counted when they start; a pipeline counts once.
    pub query_count: u64,
    /// Bytes of client messages handled after login.
    pub bytes_received: u64,
    /// Bytes of messages received from servers.
    pub bytes_sent: u64,
    /// Time in transactions, µs.
    pub xact_time: u64,
    /// Time from a client's message to the last owed reply, µs; includes waiting for a server.
    pub query_time: u64,
    /// Time clients spent queued for a server, µs.
    pub wait_time: u64,
    /// Named Parse messages from clients.
    pub client_parse_count: u64,
    /// Parse messages for named statements sent to servers.
    pub server_parse_count: u64,
    /// Bind messages for named statements.
    pub bind_count: u64,
    /// Completed client logins.
    pub client_login_count: u64,
}

impl AddAssign for Stats {
    fn add_assign(&mut self, other: Stats) {
        self.server_assignment_count += other.server_assignment_count;
        self.xact_count += other.xact_count;
        self.query_count += other.query_count;
        self.bytes_received += other.bytes_received;
        self.bytes_sent += other.bytes_sent;
        self.xact_time += other.xact_time;
        self.query_time += other.query_time;
        self.wait_time += other.wait_time;
        self.client_parse_count += other.client_parse_count;
        self.server_parse_count += other.server_parse_count;
        self.bind_count += other.bind_count;
        self.client_login_count += other.client_login_count;
    }
}

impl Add for Stats {
    type Output = Stats;

    fn add(mut self, other: Stats) -> Stats {
        self += other;
        self
    }
}
