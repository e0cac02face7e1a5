//! pgweir, a connection pooler for PostgreSQL.

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
pub mod types;
pub mod wire;
pub mod worker;
