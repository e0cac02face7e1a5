//! pgweir, a connection pooler for PostgreSQL: it lends few server connections to many clients, and is a drop-in for PgBouncer.
//!
//! # The rooms
//!
//! | room | what it is for |
//! |---|---|
//! | [`wire`] | bytes to messages and back, pure |
//! | [`net`] | sockets: listeners, TLS, dialling, moving a stream between runtimes |
//! | [`auth`] | proofs and rules, pure: SCRAM, md5, secrets, HBA, ident maps |
//! | [`server`] | one connection to PostgreSQL: login, owed replies, parameters, prepared statements |
//! | [`pool`] | who gets which server, and when: a pure core, the budget all workers share, shards, leases |
//! | [`client`] | one connected client: login, greeting, session, prepared statements |
//! | [`worker`] | a thread that is a small, complete pooler |
//! | [`admin`] | the operator's console: commands and `SHOW`; metrics, health and the status page |
//! | [`app`] | building the parts and joining them: start, reload, shutdown |
//! | [`config`] | what was written (ini, TOML, environment) and what it means; one table of settings |
//! | [`logs`], [`process`] | log lines and where they go; pid file, user, signals, cores |
//! | [`cli`], [`error`], [`types`], [`metrics`] | the command line; what clients are told; small shared types; counters |
//! | [`tune`] | settings for the PostgreSQL behind the pooler, pure |
//!
//! Who knows whom: `main → app → admin → worker → client → pool → server → net → wire`, and `auth → wire`. An arrow also allows all
//! to its right; `error`, `types`, `metrics` and plain configuration data may be used by anyone. The absences matter most:
//!
//! - [`wire`], [`auth`], [`server::owed`], [`server::params`], [`server::prepared`], [`pool::core`], [`client::forward`],
//!   [`client::deliver`], [`client::statements`] and [`admin::command`] hold no `await`, no lock and no clock: they are given bytes,
//!   events and times, and give back values.
//! - [`config`] knows nobody: it yields an immutable value; a reload makes a new one and publishes it.
//! - [`auth`] and [`client::login`] have not heard of pools: a login asks an [`client::login::inquiry::Inquirer`], which [`app`] is.
//! - There is no global pool map, configuration or metric; what a function needs, it is handed.
//!
//! Words: *client* and *server* are the two ends. A *shard* is one worker's part of a pool. A *lease* is a server connection on loan
//! to a client. *Owed* are the replies PostgreSQL has still to send; *settled* means none. The *verdict* ends a lease: given back,
//! cleaned first, or closed.
//!
//! # The threads
//!
//! Every [`worker`] has an executor ([`worker::executor`]) and a reactor ([`net::reactor`]) of its own, and owns its clients and its
//! [`pool::shard::Shard`]s; nothing in it is locked. All workers let clients in ([`worker::arrivals`]), and take their logins forward
//! between queries, a few steps at a time; what takes long (TLS handshakes, PBKDF2, asking others) goes aside to the login threads
//! ([`client::login::aside`]), as does logging in to servers. Those are nicer than the workers. So
//! a storm of logins does not delay running queries. Signals, the configuration and the console live on the main thread and speak to
//! the workers by message ([`worker::mail`]); so does HTTP ([`admin::http`]), on a thread of its own that is there if it is wanted. All that workers share is the [`pool::budget`] (atomic counters; limits hold exactly over
//! all workers) and the [`server::prepared::StatementCache`], which is locked when a statement is named, never when it is used.
//! Workers trade servers: one with nobody waiting, or whose clients have waited less by [`pool::shard::TRADE_SLACK`], sends a server
//! that comes free to the worker whose client has waited longest.
//!
//! # The life of a query
//!
//! 1. [`net::listen`] accepts; [`client::login::receive`] reads the first packet: TLS, direct TLS, a cancel request, or start-up
//!    parameters; a user whom
//!    `auth_file` does not know is looked up by a query over a pool ([`client::login::inquiry`], [`worker::inquiry`]); then the rule
//!    that fits is found ([`auth::hba`]) and proofs are exchanged ([`auth::method`]).
//! 2. The client is handed to the worker with the fewest of its pool (the one that has let it in, among equals), and becomes a [`client::session::Session`]; its
//!    [`client::greeting`] leaves in one write.
//! 3. Bytes arrive. They are read into the worker's scratch buffer; an idle client has no buffer of its own.
//! 4. [`pool::shard::Shard::checkout`] grants a [`pool::lease::Lease`], or the client stands in the queue with its
//!    [`pool::ticket::Ticket`] while connections are opened within the budget.
//! 5. If the tracked parameters differ ([`server::params::agree`]) they are brought into line. Then [`client::forward`] walks over the
//!    client's bytes and they leave in one write, straight from the buffer they were read into ([`wire::splice`]).
//! 6. The ledger of [`server::owed`] knows which reply is whose; [`client::deliver`] walks over the server's bytes.
//! 7. ReadyForQuery says idle, and nothing is owed: the lease goes home, perhaps straight to the client that has waited longest.
//! 8. A client that vanishes inside a transaction leaves a server that is rolled back off the path of others, or closed if a query
//!    runs. A server that vanishes leaves its client a proper ErrorResponse. A cancel request holds back the server that it aims at
//!    until it is finished, so that it can't hit the next client; one whose key another process of the group gave out goes on to
//!    that process.
//!
//! # Decisions that differ from the usual
//!
//! - Messages are built and read by hand in [`wire`] instead of with a message crate: names, values and texts are bytes in whatever
//!   encoding the client chose, and the crates at hand decode them as UTF-8, lossily.
//! - Servers are dialled and logged in to on the login threads, not on the worker that wants them: a SCRAM proof costs milliseconds.
//! - Workers accept by themselves: a login that changes threads twice costs two sleeps and two wakes more, which is most of what a
//!   short-lived client costs. Queries go first, and what takes long does not happen there.
//! - Workers run their tasks and watch their sockets without tokio, which was two fifths of what a query cost in user mode: its tasks,
//!   timers and readiness are fit for any thread, and a worker's never leave theirs. The other threads are tokio's.

// The map leads into private rooms too: it is for readers of the source.
#![allow(rustdoc::private_intra_doc_links)]

/// The PgBouncer version whose behaviour is followed, as `SHOW VERSION` and the login tell it.
pub const COMPATIBLE_VERSION: &str = "1.26.1";

pub mod admin;
pub mod app;
pub mod auth;
pub mod cli;
pub mod client;
pub mod config;
pub mod error;
pub mod logs;
pub mod metrics;
pub mod net;
pub mod pool;
pub mod process;
pub mod server;
pub mod tune;
pub mod types;
pub mod wire;
pub mod worker;
