//! The whole program, as a black box: `pgweir` is started as a process, real PostgreSQL or a scripted server stands behind it, and raw
//! protocol clients stand in front. Nothing here uses the library's own code, so a mistake cannot hide by being made twice.
//!
//! - [`hostile`]: clients that are hostile, broken or gone.
//! - [`scripted`]: servers that misbehave.
//! - [`fixture`]: throw-away clusters, poolers, ports, certificates; all of it goes away with the test process, however that ends.
//! - [`behaviour`]: what an operator and an application may rely on.
//! - [`differential`]: random conversations, with PostgreSQL directly and through the pooler, compared byte for byte.
//! - [`proto`]: a small protocol client: messages, frames with deadlines, logins.
//!
//! Environment: `PGWEIR_TEST_BIN` runs another binary than the one just built; `PGWEIR_TEST_LIKE=pgbouncer` leaves out what PgBouncer is
//! known to do differently, so that the suite itself can be checked against it.

mod behaviour;
mod differential;
// `tests/compat` has parts of its own use for it.
#[allow(unused_imports, dead_code)]
mod fixture;
mod hostile;
mod proto;
mod scripted;

mod smoke;
