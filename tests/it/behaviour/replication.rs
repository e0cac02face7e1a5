//! Replication through the pooler: PostgreSQL's own tools, and what becomes of the server that a replication client has to itself.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::*;
use crate::fixture::tls::Authority;
use crate::fixture::*;
use crate::proto::{Conn, msg};

/// A configuration whose database `replication` is where tools that ask for no database of their own are led.
async fn setup_replication() -> (&'static Cluster, String, Ini) {
    let (cluster, db, mut ini) = setup().await;
    ini.database("replication", format!("{} dbname={db}", cluster.address()));
    (cluster, db, ini)
}

/// Runs one of PostgreSQL's programs against the pooler, as `postgres`, to its end.
async fn tool(pooler: &Pooler, name: &str, args: &[&str]) -> Output {
    let mut command = Command::new(postgres_bin(name));
    become_unprivileged(&mut command)
        .args(["-h", "127.0.0.1", "-U", "postgres", "-w", "-p"])
        .arg(pooler.port.to_string())
        .args(args)
        .env("PGSSLMODE", "prefer")
        .current_dir(&pooler.dir);
    let run = tokio::task::spawn_blocking(move || run(&mut command, ""));
    run.await.expect("no panic inside")
}

/// As [`tool`], for what must succeed; gives its output.
async fn tool_ok(pooler: &Pooler, name: &str, args: &[&str]) -> String {
    let output = tool(pooler, name, args).await;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {args:?}: {told}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A connection of its own for replication: `kind` is `database` or `true`.
async fn replicate(pooler: &Pooler, kind: &str, more: &[(&str, &str)]) -> Conn {
    let mut conn = pooler.raw().await;
    let mut params = vec![
        ("user", "postgres"),
        ("database", "p"),
        ("replication", kind),
    ];
    params.extend_from_slice(more);
    conn.log_in_with(&params, None).await;
    conn
}

/// Asks for a server without waiting for it.
async fn ask_to_replicate(pooler: &Pooler) -> Conn {
    let mut conn = pooler.raw().await;
    let params = [
        ("user", "postgres"),
        ("database", "p"),
        ("replication", "database"),
    ];
    conn.send(&msg::startup(&params)).await;
    conn
}

async fn wal_position(cluster: &Cluster) -> String {
    cluster
        .sql("postgres", "SELECT pg_current_wal_insert_lsn()")
        .await
        .value()
}

/// Waits until PostgreSQL has no walsender for this pooler's database any more, and the pooler no server.
async fn wait_all_gone(cluster: &Cluster, pooler: &Pooler, db: &str) {
    wait_until("the replication servers to be closed", || async {
        cluster.sessions(db).await == 0 && pooler.show("SERVERS").await.rows.is_empty()
    })
    .await;
}

async fn base_backup(wal: &str) {
    bounded(120, async {
        let (cluster, _, ini) = setup_replication().await;
        let pooler = ini.start().await;
        let dir = backup_dir(&pooler, wal);
        let target = dir.to_str().expect("our own path");
        tool_ok(
            &pooler,
            "pg_basebackup",
            &["-X", wal, "-c", "fast", "-D", target],
        )
        .await;
        verify(&dir);
        wait_all_gone(cluster, &pooler, "").await;
        let pool = pooler.pool("replication", "postgres").await.unwrap();
        assert_eq!(
            (
                pool.clients_active,
                pool.clients_waiting,
                pool.servers_active
            ),
            (0, 0, 0)
        );
    })
    .await;
}

fn backup_dir(pooler: &Pooler, name: &str) -> PathBuf {
    pooler.dir.join(format!("backup-{name}"))
}

/// Every file of a base backup is there, with the right content, and the WAL that belongs to it.
fn verify(dir: &Path) {
    let mut command = Command::new(postgres_bin("pg_verifybackup"));
    let output = run(become_unprivileged(&mut command).arg(dir), "");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pg_verifybackup: {told}");
}

#[tokio::test]
async fn a_base_backup_with_its_wal_streamed() {
    base_backup("stream").await;
}

#[tokio::test]
async fn a_base_backup_with_its_wal_fetched() {
    base_backup("fetch").await;
}

#[tokio::test]
async fn wal_is_received() {
    bounded(60, async {
        let (cluster, db, ini) = setup_replication().await;
        let pooler = ini.start().await;
        let slot = format!("phys_{db}");
        tool_ok(&pooler, "pg_receivewal", &["--create-slot", "-S", &slot]).await;
        cluster
            .sql(&db, "CREATE TABLE t AS SELECT generate_series(1, 1000)")
            .await;
        let end = wal_position(cluster).await;
        let dir = pooler.dir.join("wal");
        std::fs::create_dir(&dir).unwrap();
        give_to_service(&dir);
        let target = dir.to_str().unwrap();
        tool_ok(
            &pooler,
            "pg_receivewal",
            &["-S", &slot, "-D", target, "-E", &end, "-n"],
        )
        .await;
        assert!(std::fs::read_dir(&dir).unwrap().count() > 0);
        tool_ok(&pooler, "pg_receivewal", &["--drop-slot", "-S", &slot]).await;
        wait_all_gone(cluster, &pooler, &db).await;
    })
    .await;
}

/// In a database whose other clients share servers by transactions.
#[tokio::test]
async fn changes_are_decoded() {
    bounded(60, async {
        let (cluster, db, ini) = setup().await;
        let pooler = ini.start().await;
        let slot = format!("log_{db}");
        let common = ["-d", "p", "-S", slot.as_str()];
        let with = |more: &[&'static str]| -> Vec<&str> { [&common[..], more].concat() };
        tool_ok(
            &pooler,
            "pg_recvlogical",
            &with(&["--create-slot", "-P", "test_decoding"]),
        )
        .await;
        cluster.sql(&db, "CREATE TABLE t (a int)").await;
        cluster.sql(&db, "INSERT INTO t VALUES (4711)").await;
        let end = wal_position(cluster).await;
        let mut args = with(&["--start", "-n", "-f", "-", "-E"]);
        args.push(&end);
        let changes = tool_ok(&pooler, "pg_recvlogical", &args).await;
        assert!(
            changes.contains("table public.t: INSERT: a[integer]:4711"),
            "{changes}"
        );
        tool_ok(&pooler, "pg_recvlogical", &with(&["--drop-slot"])).await;
        wait_all_gone(cluster, &pooler, &db).await;
    })
    .await;
}

#[tokio::test]
async fn a_replication_client_has_one_server_to_itself() {
    bounded(30, async {
        let (cluster, db, ini) = setup().await;
        let pooler = ini.start().await;
        let given = [
            ("application_name", "my_replica"),
            ("DateStyle", "German"),
            ("options", "-c work_mem=123kB"),
        ];
        let mut conn = replicate(&pooler, "database", &given).await;
        assert_eq!(conn.login.parameter("DateStyle"), Some("German, DMY"));
        let seen = "SELECT application_name || current_setting('DateStyle') || current_setting('work_mem') \
                    FROM pg_stat_activity WHERE pid = pg_backend_pid()";
        assert_eq!(conn.ok(seen).await.value(), "my_replicaGerman, DMY123kB");
        let own = backend(&mut conn).await;
        let mut other = pooler.client("postgres", "p").await;
        assert_ne!(backend(&mut other).await, own);
        assert_eq!(backend(&mut conn).await, own);
        for (what, kind) in [("CLIENTS", "C"), ("SERVERS", "S")] {
            let table = pooler.show(what).await;
            let row = table.find(&[("type", kind), ("replication", "logical")]);
            let row = row.unwrap_or_else(|| panic!("no such row in {what}"));
            assert_eq!(table.get(row, "application_name"), "my_replica");
            assert_eq!(table.get(row, "state"), "active");
        }
        other.close().await;
        conn.close().await;
        wait_until("the server to be closed", || async { cluster.sessions(&db).await == 1 }).await;
        pooler.wait_log("closing because: replication client was closed").await;
    })
    .await;
}

/// CopyBoth, ended by the client; afterwards the connection is as good as before.
#[tokio::test]
async fn a_stream_is_ended_and_the_connection_goes_on() {
    bounded(30, async {
        let (cluster, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut conn = replicate(&pooler, "true", &[]).await;
        let position = wal_position(cluster).await;
        for _ in 0..3 {
            conn.send(&msg::query(&format!(
                "START_REPLICATION PHYSICAL {position}"
            )))
            .await;
            assert!(conn.frame().await.is(b'W'));
            // A status update: everything up to 0 has been written, flushed and applied; an answer is wanted.
            let mut status = vec![b'r'];
            status.extend([0; 32]);
            status.push(1);
            conn.send(&msg::copy_data(&status)).await;
            while !conn.frame().await.is(b'd') {}
            conn.send(&msg::copy_done()).await;
            let reply = conn.until_ready().await;
            assert_eq!(reply.error_text(), None);
            assert!(reply.tags().contains('c'), "{}", reply.tags());
        }
        assert_eq!(conn.ok("IDENTIFY_SYSTEM").await.rows().len(), 1);
        conn.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_client_that_vanishes_takes_its_server_along() {
    bounded(30, async {
        let (cluster, _, ini) = setup().await;
        let pooler = ini.start().await;
        let name = [("application_name", "vanishing_replica")];
        let mut conn = replicate(&pooler, "true", &name).await;
        let position = wal_position(cluster).await;
        conn.send(&msg::query(&format!(
            "START_REPLICATION PHYSICAL {position}"
        )))
        .await;
        assert!(conn.frame().await.is(b'W'));
        let senders =
            "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'vanishing_replica'";
        assert_eq!(cluster.sql("postgres", senders).await.value(), "1");
        drop(conn);
        wait_until("the walsender to end", || async {
            cluster.sql("postgres", senders).await.value() == "0"
        })
        .await;
        wait_until("the pooler's server to be closed", || async {
            pooler.show("SERVERS").await.rows.is_empty()
        })
        .await;
    })
    .await;
}

/// A client that does not read slows its server down and does not fill our memory.
#[tokio::test]
async fn a_slow_reader_costs_no_memory() {
    bounded(120, async {
        let (cluster, db, ini) = setup().await;
        let pooler = ini.start().await;
        // Some 40 MB in the base folder.
        let sql = "CREATE TABLE large AS SELECT i, repeat('x', 400) AS text FROM generate_series(1, 90000) AS i";
        cluster.sql(&db, sql).await;
        let mut conn = replicate(&pooler, "true", &[]).await;
        let before = pooler.resident_bytes();
        conn.send(&msg::query("BASE_BACKUP (LABEL 'slow', CHECKPOINT 'fast', WAIT false)")).await;
        while !conn.frame().await.is(b'd') {}
        let mut steady = 0;
        let mut last = 0;
        // Until nothing moves any more: all buffers on the way are full.
        wait_until("the stream to stand still", || {
            let now = pooler.resident_bytes();
            steady = if now == last { steady + 1 } else { 0 };
            last = now;
            async move { steady > 20 }
        })
        .await;
        let grown = pooler.resident_bytes().saturating_sub(before);
        assert!(grown < 16 << 20, "{grown} bytes more for a client that does not read");
        let mut data = 0;
        let end = loop {
            let frame = conn.frame().await;
            match frame.tag {
                b'd' => data += frame.body.len(),
                b'Z' | b'E' => break frame,
                _ => {}
            }
        };
        assert!(end.is(b'Z'));
        assert!(data > 30 << 20, "{data} bytes");
        conn.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_resting_server_makes_room() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        ini.set("default_pool_size", 2).set_ours("workers", 2);
        let pooler = ini.start().await;
        // Two servers, wherever their clients live.
        let mut clients = [
            pooler.client("postgres", "p").await,
            pooler.client("postgres", "p").await,
        ];
        for client in &mut clients {
            hold_server(client).await;
        }
        for client in &mut clients {
            client.ok("COMMIT").await;
        }
        assert_eq!(cluster.sessions(&db).await, 2);
        let mut replicas = Vec::new();
        for _ in 0..2 {
            let mut replica = replicate(&pooler, "database", &[]).await;
            backend(&mut replica).await;
            replicas.push(replica);
            wait_until("the limit to be kept", || async {
                cluster.sessions(&db).await <= 2
            })
            .await;
        }
        pooler
            .wait_log("closing because: evicted for pool_size")
            .await;
        // Now nothing is left for the others.
        clients[0].send(&msg::query("SELECT 1")).await;
        wait_until("a client to wait", || async {
            pooler.pool("p", "postgres").await.unwrap().clients_waiting == 1
        })
        .await;
        replicas.pop().expect("two of them").close().await;
        assert_eq!(clients[0].until_ready().await.value(), "1");
    })
    .await;
}

/// The pool is never idle: those who borrow leave room for the one who cannot.
#[tokio::test]
async fn a_busy_pool_makes_room_too() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        ini.set("default_pool_size", 2).set_ours("workers", 2);
        let pooler = ini.start().await;
        let mut busy = Vec::new();
        for _ in 0..6 {
            let mut client = pooler.client("postgres", "p").await;
            busy.push(tokio::spawn(async move {
                for _ in 0..200 {
                    client.ok("SELECT pg_sleep(0.005)").await;
                }
            }));
        }
        wait_until("clients to wait", || async {
            pooler
                .pool("p", "postgres")
                .await
                .is_some_and(|pool| pool.clients_waiting > 0)
        })
        .await;
        let mut replica = replicate(&pooler, "database", &[]).await;
        assert!(
            !busy.iter().all(|task| task.is_finished()),
            "it had to wait for all of them"
        );
        backend(&mut replica).await;
        assert!(cluster.sessions(&db).await <= 2);
        for task in busy {
            task.await.expect("no client has an error");
        }
        replica.close().await;
    })
    .await;
}

/// A replication client that waits for room is not served beyond the limit, and may give up.
#[tokio::test]
async fn it_waits_for_room_and_may_give_up() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        ini.set("default_pool_size", 1).set("query_wait_timeout", 1);
        let pooler = ini.start().await;
        let mut holder = pooler.client("postgres", "p").await;
        hold_server(&mut holder).await;
        not_in_pgbouncer!("it greets before it has a server");
        let mut waiting = ask_to_replicate(&pooler).await;
        assert_eq!(waiting.fatal().await, "FATAL 08P01 query_wait_timeout");
        let gone = ask_to_replicate(&pooler).await;
        drop(gone);
        assert_eq!(cluster.sessions(&db).await, 1);
        holder.ok("COMMIT").await;
        holder.ok("SELECT 1").await;
        let mut replica = replicate(&pooler, "database", &[]).await;
        backend(&mut replica).await;
        wait_until("the limit to be kept", || async {
            cluster.sessions(&db).await == 1
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn reconnect_and_reload_end_it() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        let pooler = ini.start().await;
        let mut conn = replicate(&pooler, "database", &[]).await;
        backend(&mut conn).await;
        pooler.console("RECONNECT p").await;
        assert_eq!(
            conn.fatal().await,
            "FATAL 08P01 database configuration changed"
        );
        let mut conn = replicate(&pooler, "true", &[]).await;
        conn.ok("IDENTIFY_SYSTEM").await;
        ini.database(
            "p",
            format!("{} dbname={db} connect_query='select 1'", cluster.address()),
        );
        ini.write();
        pooler.console("RELOAD").await;
        assert_eq!(
            conn.fatal().await,
            "FATAL 08P01 database configuration changed"
        );
        let mut conn = replicate(&pooler, "true", &[]).await;
        conn.ok("IDENTIFY_SYSTEM").await;
        pooler.console("KILL p").await;
        assert_eq!(conn.fatal().await, "FATAL 08P01 database removed");
        pooler.console("RESUME p").await;
        wait_all_gone(cluster, &pooler, &db).await;
    })
    .await;
}

#[tokio::test]
async fn a_refusal_is_told() {
    bounded(30, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut conn = pooler.raw().await;
        let params = [
            ("user", "u_trust"),
            ("database", "p"),
            ("replication", "database"),
        ];
        conn.send(&msg::startup(&params)).await;
        let told = conn.fatal().await;
        if !like_pgbouncer() {
            assert_eq!(
                told,
                "FATAL 42501 must be superuser or replication role to start walsender"
            );
        }
        // It was that client's own fault: nobody else suffers from it.
        let mut other = pooler.client("u_trust", "p").await;
        other.ok("SELECT 1").await;
    })
    .await;
}

#[tokio::test]
async fn replication_over_tls_on_both_sides() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup_replication().await;
        let pair = Authority::new("replication").server_cert();
        let (cert, key) = (
            ini.file("c.crt", &pair.cert_pem),
            ini.file("c.key", &pair.key_pem),
        );
        ini.set("client_tls_cert_file", cert)
            .set("client_tls_key_file", key)
            .set("client_tls_sslmode", "require")
            .set("server_tls_sslmode", "require");
        let pooler = ini.start().await;
        let slot = format!("tls_{db}");
        tool_ok(
            &pooler,
            "pg_recvlogical",
            &["-d", "p", "-S", &slot, "--create-slot"],
        )
        .await;
        cluster
            .sql(&db, "CREATE TABLE t AS SELECT generate_series(1, 20000)")
            .await;
        let end = wal_position(cluster).await;
        let args = [
            "-d", "p", "-S", &slot, "--start", "-n", "-f", "-", "-E", &end,
        ];
        let changes = tool_ok(&pooler, "pg_recvlogical", &args).await;
        assert_eq!(changes.matches("INSERT").count(), 20000);
        tool_ok(
            &pooler,
            "pg_recvlogical",
            &["-d", "p", "-S", &slot, "--drop-slot"],
        )
        .await;
        wait_all_gone(cluster, &pooler, &db).await;
    })
    .await;
}
