//! What the program is to the operating system: its pid file, user, limits, cores, priority and signals.
//!
//! Nothing here knows the pooler. The order at start, as in PgBouncer: [`switch_user`], [`refuse_root`],
//! [`pidfile::remove_stale`], [`daemonise`], then (listening) [`Pidfile::create`] and [`Readiness::ready`]. Up to `daemonise`
//! no thread may exist; so runtimes come after it. Before all of it, [`systemd::Manager::from_environment`].

pub mod cores;
pub mod daemon;
pub mod limits;
pub mod pidfile;
pub mod signals;
pub mod systemd;
pub mod user;

pub use cores::usable_cores;
pub use daemon::{DaemonError, Readiness, daemonise};
pub use limits::{FdLimits, fd_limits, lower_priority, raise_fd_limit};
pub use pidfile::{Pidfile, PidfileError};
pub use signals::{Signal, Signals};
pub use user::{UserError, refuse_root, switch_user};
