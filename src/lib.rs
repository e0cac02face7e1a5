//! pgweir, a connection pooler for PostgreSQL.

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
