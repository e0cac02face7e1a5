//! The operator's view over HTTP: metrics, health, and a status page, on an address of its own (`metrics_addr`, `metrics_port`).
//!
//! | path | what | file |
//! |---|---|---|
//! | `/metrics` | for Prometheus | [`snapshot`], [`pgbouncer`], [`pgweir`], [`families`], [`chosen`] |
//! | `/livez`, `/readyz`, `/startupz` | for whoever starts us, and for balancers | [`health`] |
//! | `/`, `/status.json` | for people | [`page`], [`status`], [`recent`] |
//!
//! [`server`] answers requests, [`listener`] accepts connections; [`vitals`] is what all this asks of the rest of the program besides
//! what the console asks.
//!
//! All of it runs on one thread of its own, nicer than the workers. It asks the workers by message, as `SHOW` does, and no more than
//! a few times a second, however many ask: a peer that is slow, hostile or numerous costs the queries nothing.

pub mod chosen;
pub mod families;
pub mod health;
pub mod listener;
pub mod page;
pub mod pgbouncer;
pub mod pgweir;
pub mod process;
pub mod recent;
pub mod server;
pub mod snapshot;
pub mod status;
pub mod vitals;

#[cfg(test)]
mod tests;
