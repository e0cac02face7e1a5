//! The operator's view: the console (database `pgbouncer`) and what it shows.
//!
//! | file | what |
//! |---|---|
//! | [`command`] | the console's language: text to [`command::Command`], pure |
//! | [`rights`] | who may run what: one table |
//! | [`request`], [`extended`] | the client's messages, and prepared statements and portals, pure |
//! | [`console`] | one console connection after its login: reads, runs, answers |
//! | [`execute`] | one command: its checks, its line in the log, its effect |
//! | [`operator`] | what the console asks of the rest of the program |
//! | [`desk`] | the open consoles and the statistics book, shared by all consoles |
//! | [`http`] | metrics, health and the status page |
//! | [`averages`] | totals and averages per database, pure |
//! | [`rows`], [`show`], [`table`] | what `SHOW` is told, its layouts, and how rows are encoded |
//!
//! Nothing here knows a pool or a socket: rows come in by [`operator::Operator`], bytes by a stream.

pub mod averages;
pub mod command;
pub mod console;
pub mod desk;
pub mod error;
pub mod execute;
pub mod extended;
pub mod http;
pub mod operator;
pub mod request;
pub mod rights;
pub mod rows;
pub mod show;
pub mod table;

/// Name of the console's database, and of its pool's user.
pub const CONSOLE: &str = crate::config::CONSOLE_DATABASE;

pub use crate::COMPATIBLE_VERSION;

#[cfg(test)]
pub(crate) mod fake;
