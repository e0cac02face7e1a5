//! What an operator and an application may rely on, one file per subject, each test against a pooler of its own and real PostgreSQL.

mod auth;
mod auth_query;
mod cancel;
mod cli;
mod console;
mod dns;
mod drain;
mod drain_rolling;
mod fairness;
mod hba;
mod http;
mod ldap;
mod limits;
mod load_balance;
mod logs;
mod measures;
mod modes;
mod operate;
mod pam;
mod parameters;
mod peers;
mod prepared;
mod replication;
mod restart;
mod rolling;
mod settings_effect;
mod signals;
mod sql_prepared;
mod statistics;
mod systemd;
mod timeouts;
mod tls;
mod tune;
mod userlist;
mod watch;

use crate::fixture::{Cluster, Ini};
use crate::proto::Conn;

/// A cluster, a new database in it, and a configuration whose database `p` leads there.
async fn setup() -> (&'static Cluster, String, Ini) {
    let cluster = Cluster::shared();
    let db = cluster.fresh_db().await;
    let ini = Ini::with_database(cluster, &db);
    (cluster, db, ini)
}

/// Opens a transaction, so that a server is held, and gives that server's process number.
async fn hold_server(conn: &mut Conn) -> String {
    conn.ok("BEGIN").await;
    conn.ok("SELECT pg_backend_pid()").await.value()
}

/// The server process that serves the next query.
async fn backend(conn: &mut Conn) -> String {
    conn.ok("SELECT pg_backend_pid()").await.value()
}
