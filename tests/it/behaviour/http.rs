//! Metrics, health and the status page: what they say beside what the console says, and what peers that are slow, hostile or many
//! can do to them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::fixture::*;

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    body: String,
}

/// Sends bytes as they are, and reads until the end. `None`: closed without an answer, or nobody is there.
async fn exchange(port: u16, request: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    // The other side may have heard enough.
    let _ = stream.write_all(request).await;
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer {
        status,
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    })
}

pub(super) async fn try_get(port: u16, path: &str) -> Option<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    exchange(port, request.as_bytes()).await
}

async fn get(port: u16, path: &str) -> Answer {
    let answer = try_get(port, path).await;
    answer.unwrap_or_else(|| panic!("no answer to {path}"))
}

/// Polls until an answer is as wanted.
async fn wait_for(port: u16, path: &str, what: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = try_get(port, path).await;
        match answer {
            Some(answer) if wanted(&answer) => return answer,
            last => assert!(Instant::now() < deadline, "{what}: {last:?}"),
        }
        sleep_ms(20).await;
    }
}

/// A configuration with metrics, and their port.
async fn with_metrics() -> (Ini, u16) {
    let (_, _, mut ini) = setup().await;
    let port = free_port();
    ini.set("metrics_port", port);
    (ini, port)
}

/// Samples by name and labels, as they are written.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a sample");
        (name.to_owned(), value.parse().expect("a number"))
    };
    lines.map(sample).collect()
}

#[tokio::test]
async fn metrics_say_what_show_says() {
    bounded(120, async {
        let (mut ini, port) = with_metrics().await;
        ini.set("default_pool_size", 2).set_ours("workers", 2);
        ini.set("max_user_connections", 7);
        let pooler = ini.start().await;
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut client = pooler.client("u_trust", "p").await;
            hold_server(&mut client).await;
            held.push(client);
        }
        let mut waiting = pooler.client("u_trust", "p").await;
        waiting.send(&crate::proto::msg::query("SELECT 1")).await;
        let mut idle = pooler.client("u_other", "p").await;
        idle.ok("SELECT 1").await;
        let mut console = pooler.admin().await;
        wait_until("one to wait", || async {
            pooler.pool("p", "u_trust").await.is_some_and(|pool| pool.clients_waiting == 1)
        })
        .await;
        let mut show = async |what: &str| Table::new(&console.query(&format!("SHOW {what}")).await);
        let pools = show("POOLS").await;
        let stats = show("STATS_TOTALS").await;
        let databases = show("DATABASES").await;
        let lists = show("LISTS").await;
        let mut expected = BTreeMap::new();
        for (database, user) in [("p", "u_trust"), ("p", "u_other"), ("pgbouncer", "pgbouncer")] {
            let row = pools.find(&[("database", database), ("user", user)]).expect("a pool");
            for (name, column) in [
                ("client_active_connections", "cl_active"),
                ("client_waiting_connections", "cl_waiting"),
                ("client_active_cancel_connections", "cl_active_cancel_req"),
                ("server_active_connections", "sv_active"),
                ("server_idle_connections", "sv_idle"),
                ("server_used_connections", "sv_used"),
                ("server_testing_connections", "sv_tested"),
                ("server_login_connections", "sv_login"),
            ] {
                let name = format!("pgbouncer_pools_{name}{{database=\"{database}\",user=\"{user}\"}}");
                expected.insert(name, pools.get(row, column).to_owned());
            }
        }
        let row = stats.find(&[("database", "p")]).expect("statistics");
        for prefix in ["pgbouncer_stats_", "pgbouncer_stats_totals_"] {
            for (name, column) in [
                ("queries_pooled_total", "query_count"),
                ("received_bytes_total", "bytes_received"),
                ("sent_bytes_total", "bytes_sent"),
                ("sql_transactions_pooled_total", "xact_count"),
                ("server_assignments_total", "server_assignment_count"),
                ("binds_total", "bind_count"),
            ] {
                let name = format!("{prefix}{name}{{database=\"p\"}}");
                expected.insert(name, stats.get(row, column).to_owned());
            }
        }
        let row = databases.find(&[("name", "p")]).expect("a database");
        let column = |column: &str| databases.get(row, column).to_owned();
        for name in ["pool_size", "max_connections", "current_connections", "paused", "disabled"] {
            let labels = format!(
                "name=\"p\",host=\"{}\",port=\"{}\",database=\"{}\",force_user=\"\",pool_mode=\"\"",
                column("host"), column("port"), column("database"),
            );
            expected.insert(format!("pgbouncer_databases_{name}{{{labels}}}"), column(name));
        }
        for (name, item) in [
            ("databases", "databases"),
            ("users", "users"),
            ("pools", "pools"),
            ("used_clients", "used_clients"),
            ("login_clients", "login_clients"),
            ("used_servers", "used_servers"),
            ("cached_dns_names", "dns_names"),
        ] {
            expected.insert(format!("pgbouncer_{name}"), lists.value("list", item, "items"));
        }
        expected.insert("pgbouncer_config_max_client_connections".into(), "100".into());
        expected.insert("pgbouncer_config_max_user_connections".into(), "7".into());
        expected.insert("pgbouncer_up".into(), "1".into());
        for (name, clients) in [
            ("pgweir_waiting_clients{database=\"p\",user=\"u_trust\",reason=\"pool_full\"}", "1"),
            ("pgweir_pool_connections{database=\"p\",user=\"u_trust\"}", "2"),
            ("pgweir_pool_connections_max{database=\"p\",user=\"u_trust\"}", "2"),
            ("pgweir_query_seconds_count{database=\"p\",user=\"u_other\"}", "1"),
            ("pgweir_ready", "1"),
            ("pgweir_draining", "0"),
            ("pgweir_pools_not_shown", "0"),
            ("pgweir_config_last_reload_successful", "1"),
            ("pgbouncer_client_connections{database=\"p\",user=\"u_trust\",application_name=\"\",state=\"active\"}", "2"),
            ("pgbouncer_client_connections{database=\"p\",user=\"u_trust\",application_name=\"\",state=\"waiting\"}", "1"),
            ("pgbouncer_client_connections{database=\"p\",user=\"u_other\",application_name=\"\",state=\"idle\"}", "1"),
        ] {
            expected.insert(name.into(), clients.into());
        }
        let differences = |text: &str| -> Vec<String> {
            let found = samples(text);
            let expected = expected.iter();
            let different = expected.filter(|(name, value)| found.get(*name) != value.parse().ok().as_ref());
            different.map(|(name, value)| format!("{name}: {value}, not {:?}", found.get(name))).collect()
        };
        let answer = wait_for(port, "/metrics", "metrics as in SHOW", |answer| {
            differences(&answer.body).is_empty()
        })
        .await;
        assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
        let found = samples(&answer.body);
        assert!(found["pgbouncer_pools_client_maxwait_seconds{database=\"p\",user=\"u_trust\"}"] > 0.0);
        assert!(found["process_resident_memory_bytes"] > 1e6 && found["process_cpu_seconds_total"] > 0.0);
        check_with_promtool(&answer.body);
    })
    .await;
}

/// promtool's opinion about names, types and help, where it is installed.
fn check_with_promtool(text: &str) {
    let command = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = command else {
        eprintln!("not checked with promtool: it is not installed");
        return;
    };
    let mut input = promtool.stdin.take().expect("a pipe");
    input.write_all(text.as_bytes()).expect("promtool reads");
    drop(input);
    let output = promtool.wait_with_output().expect("promtool ends");
    assert!(output.status.success(), "{output:?}");
}

/// Names that clients make up: what they break, how many series they make.
#[tokio::test]
async fn made_up_names_do_no_harm_and_are_bounded() {
    bounded(180, async {
        let (cluster, db, mut ini) = setup().await;
        let port = free_port();
        ini.set("metrics_port", port).set("max_client_conn", 1000);
        ini.database("*", format!("{} dbname={db}", cluster.address()));
        let pooler = ini.start().await;
        let mut clients = Vec::new();
        let evil = "a\"} 1\n# HELP\\";
        for n in 0..300 {
            let mut conn = pooler.raw().await;
            let name = format!("{evil}{n}");
            conn.log_in_with(
                &[
                    ("user", "u_trust"),
                    ("database", "p"),
                    ("application_name", &name),
                ],
                None,
            )
            .await;
            clients.push(conn);
        }
        // Not UTF-8, twice, and shown alike: a series must not be there twice.
        for byte in [0xfe, 0xff] {
            let mut conn = pooler.client("u_trust", "p").await;
            let set = [b"SET application_name = 'x".as_slice(), &[byte], b"'"].concat();
            conn.send(&query_of(&set)).await;
            conn.until_ready().await;
            clients.push(conn);
        }
        let mut other = pooler.client("u_trust", "q\"} 7\nx 8").await;
        other.ok("SELECT 1").await;
        let answer = wait_for(port, "/metrics", "all clients", |answer| {
            let clients = samples(&answer.body).into_iter();
            let clients =
                clients.filter(|(name, _)| name.starts_with("pgbouncer_client_connections"));
            clients.map(|(_, value)| value).sum::<f64>() == 303.0
        })
        .await;
        let series = answer
            .body
            .lines()
            .filter(|line| line.starts_with("pgbouncer_client_connections{"));
        let series = series.count();
        assert!((50..=110).contains(&series), "{series}");
        assert!(
            answer.body.contains(r#"database="q\"} 7\nx 8""#),
            "{}",
            answer.body
        );
        check_with_promtool(&answer.body);
        drop(clients);
    })
    .await;
}

fn query_of(text: &[u8]) -> Vec<u8> {
    let len = u32::try_from(text.len() + 5).expect("a short query");
    [b"Q", &len.to_be_bytes()[..], text, b"\0"].concat()
}

#[tokio::test]
async fn requests_that_are_refused() {
    bounded(60, async {
        let (ini, port) = with_metrics().await;
        let _pooler = ini.start().await;
        let status = async |request: &str| {
            exchange(port, request.as_bytes())
                .await
                .map(|answer| answer.status)
        };
        assert_eq!(
            status("GET /nope HTTP/1.1\r\nHost: x\r\n\r\n").await,
            Some(404)
        );
        assert_eq!(
            status("GET /metrics/../x HTTP/1.1\r\nHost: x\r\n\r\n").await,
            Some(404)
        );
        assert_eq!(
            status("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await,
            Some(405)
        );
        assert_eq!(
            status("DELETE / HTTP/1.1\r\nHost: x\r\n\r\n").await,
            Some(405)
        );
        let body = "GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(status(body).await, Some(413));
        assert_eq!(status("nonsense\r\n\r\n").await, Some(400));
        let many = "X: y\r\n".repeat(1000);
        assert_eq!(
            status(&format!("GET /livez HTTP/1.1\r\n{many}\r\n")).await,
            Some(431)
        );
        let long = "y".repeat(1 << 20);
        let answer = exchange(
            port,
            format!("GET /livez HTTP/1.1\r\nX: {long}\r\n\r\n").as_bytes(),
        )
        .await;
        assert!(answer.is_none_or(|answer| answer.status == 431));
        let head = exchange(port, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        for path in ["/", "/metrics", "/livez", "/nope"] {
            let head = get(port, path).await.head;
            for header in [
                "cache-control: no-store",
                "x-content-type-options: nosniff",
                "content-security-policy: default-src 'none'",
            ] {
                assert!(head.contains(header), "{path}: {head}");
            }
        }
    })
    .await;
}

/// More connections that say nothing, or a little, than there may be: whoever asks is answered all the same, and so are clients.
#[tokio::test]
async fn slow_peers_keep_nobody_out() {
    bounded(120, async {
        let (ini, port) = with_metrics().await;
        let pooler = ini.start().await;
        // Its threads are there, and have opened what they need.
        let mut client = pooler.client("u_trust", "p").await;
        client.ok("SELECT 1").await;
        wait_for(port, "/metrics", "metrics", |answer| answer.status == 200).await;
        let before = pooler.open_files();
        let mut slow = Vec::new();
        for n in 0..200 {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            if n % 2 == 0 {
                stream
                    .write_all(b"GET /metrics HTTP/1.1\r\nX-")
                    .await
                    .unwrap();
            }
            slow.push(stream);
        }
        assert_eq!(get(port, "/livez").await.status, 200);
        assert_eq!(get(port, "/metrics").await.status, 200);
        client.ok("SELECT 1").await;
        let open = pooler.open_files();
        assert!(open <= before + 50, "{before} files were open, now {open}");
        assert_eq!(pooler.console("RELOAD").await.error_text(), None);
        // They read nothing of what they have asked for, and are gone after a while.
        for stream in &mut slow {
            let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
        }
        wait_until_within(40, "the slow ones to be disconnected", || async {
            pooler.open_files() <= before + 8
        })
        .await;
        assert_eq!(get(port, "/readyz").await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn ready_when_a_server_can_be_reached() {
    bounded(120, async {
        let mut ini = Ini::new();
        let (port, server) = (free_port(), free_port());
        ini.set("metrics_port", port);
        ini.database("p", format!("host=127.0.0.1 port={server}"));
        let pooler = ini.start().await;
        assert_eq!(get(port, "/startupz").await.body, "started\n");
        assert_eq!(get(port, "/livez").await.body, "alive\n");
        let answer = get(port, "/readyz").await;
        assert_eq!(answer.status, 503);
        let reason = format!("not ready\nno connection to 127.0.0.1:{server}: ");
        assert!(answer.body.starts_with(&reason), "{}", answer.body);
        let listener = TcpListener::bind(("127.0.0.1", server)).await.unwrap();
        let ready = |answer: &Answer| answer.status == 200;
        wait_for(port, "/readyz", "ready", ready).await;
        drop(listener);
        wait_for(port, "/readyz", "not ready", |answer| answer.status == 503).await;
        // One that is not there is no harm beside one that is.
        let (cluster, db, _) = setup().await;
        ini.database("q", format!("{} dbname={db}", cluster.address()))
            .write();
        assert_eq!(pooler.console("RELOAD").await.error_text(), None);
        wait_for(port, "/readyz", "ready again", ready).await;
        let details = get(port, "/readyz?verbose").await.body;
        assert!(
            details.contains(&format!(
                "host 127.0.0.1:{}: accepts connections\n",
                cluster.port
            )),
            "{details}"
        );
        let mut client = pooler.client("u_trust", "q").await;
        client.ok("SELECT 1").await;
        let details = get(port, "/readyz?verbose").await.body;
        assert!(details.contains("pool q/u_trust: connected\n"), "{details}");
    })
    .await;
}

#[tokio::test]
async fn not_ready_without_a_name_server() {
    bounded(120, async {
        let (cluster, db, mut ini) = setup().await;
        let (names, port) = (NameServer::start().await, free_port());
        let resolv_conf = ini.file("resolv.conf", names.line());
        ini.set("resolv_conf", resolv_conf)
            .set("metrics_port", port)
            .set("dns_nxdomain_ttl", "0.1");
        ini.database(
            "p",
            format!("host=db.test.example port={} dbname={db}", cluster.port),
        );
        names.behave(Manner::Silent);
        let _pooler = ini.start().await;
        let answer = get(port, "/readyz").await;
        assert_eq!(answer.status, 503);
        assert!(
            answer.body.contains("no connection to db.test.example:"),
            "{}",
            answer.body
        );
        // Slow names are nobody else's business.
        assert_eq!(get(port, "/livez").await.status, 200);
        assert_eq!(get(port, "/metrics").await.status, 200);
        names.behave(Manner::Well);
        names.set("db.test.example", "127.0.0.1");
        wait_for(port, "/readyz", "ready", |answer| answer.status == 200).await;
    })
    .await;
}

/// What must not take every instance out of service at once is said, and does not count; an end counts at once.
#[tokio::test]
async fn paused_misconfigured_and_ending() {
    bounded(120, async {
        let (mut ini, port) = with_metrics().await;
        let mut pooler = ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        client.ok("SELECT 1").await;
        assert_eq!(get(port, "/readyz").await.body, "ready\n");
        pooler.console("PAUSE").await;
        let paused = get(port, "/readyz").await;
        assert_eq!(paused.status, 200);
        assert!(
            paused.body.contains("note: everything is paused"),
            "{}",
            paused.body
        );
        pooler.console("RESUME").await;
        ini.set("pool_mode", "nonsense").write();
        pooler.signal(Signal::SIGHUP);
        let refused = |answer: &Answer| {
            answer
                .body
                .contains("note: the last configuration was refused")
        };
        assert_eq!(
            wait_for(port, "/readyz", "the note", refused).await.status,
            200
        );
        let text = wait_for(port, "/metrics", "the refusal", |answer| {
            samples(&answer.body).get("pgweir_config_last_reload_successful") == Some(&0.0)
        });
        let found = samples(&text.await.body);
        assert_eq!(
            found["pgweir_config_reloads_total{result=\"refused\"}"],
            1.0
        );
        ini.set("pool_mode", "transaction").write();
        pooler.signal(Signal::SIGHUP);
        wait_for(port, "/readyz", "no note", |answer| {
            answer.body == "ready\n"
        })
        .await;
        pooler.signal(Signal::SIGTERM);
        let ending = wait_for(port, "/readyz", "the end to be told", |answer| {
            answer.status == 503
        })
        .await;
        assert_eq!(ending.body, "not ready\nshutting down\n");
        assert_eq!(get(port, "/livez").await.status, 200);
        wait_for(port, "/metrics", "draining", |answer| {
            samples(&answer.body).get("pgweir_draining") == Some(&1.0)
        })
        .await;
        client.ok("SELECT 1").await;
        client.close().await;
        assert_eq!(pooler.wait_exit().await, Exit::Code(0));
    })
    .await;
}

#[tokio::test]
async fn a_port_that_is_taken() {
    bounded(120, async {
        let (mut ini, port) = with_metrics().await;
        let taken = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let mut refused = ini.spawn();
        assert_eq!(refused.wait_exit().await, Exit::Code(1));
        let reason =
            format!("metrics: cannot listen on 127.0.0.1:{port}: bind(): Address already in use");
        assert!(
            refused.log().contains(&format!("FATAL {reason}")),
            "{}",
            refused.log()
        );
        // At a reload the old one stays.
        let first = free_port();
        let pooler = ini.set("metrics_port", first).start().await;
        wait_for(first, "/livez", "the first port", |answer| {
            answer.status == 200
        })
        .await;
        ini.set("metrics_port", port).write();
        pooler.console("RELOAD").await;
        pooler
            .wait_log(&format!("{reason}; still on port {first} as before"))
            .await;
        assert_eq!(get(first, "/livez").await.status, 200);
        // The next reload finds it free.
        drop(taken);
        pooler.console("RELOAD").await;
        wait_for(port, "/livez", "the second port", |answer| {
            answer.status == 200
        })
        .await;
        wait_until("the first to be closed", || async {
            try_get(first, "/livez").await.is_none()
        })
        .await;
        // Other addresses of the same port are in each other's way.
        ini.set("metrics_addr", "*").write();
        pooler.console("RELOAD").await;
        pooler
            .wait_log(&format!("listening on 0.0.0.0:{port}"))
            .await;
        assert_eq!(get(port, "/livez").await.status, 200);
        ini.set("metrics_port", 0).write();
        pooler.console("RELOAD").await;
        wait_until("all to be closed", || async {
            try_get(port, "/livez").await.is_none()
        })
        .await;
        pooler.console(&format!("SET metrics_port = {port}")).await;
        wait_for(port, "/livez", "the port by SET", |answer| {
            answer.status == 200
        })
        .await;
    })
    .await;
}

/// Where the pooler's port is shared for a restart without a gap, that of metrics goes from one process to the next.
#[tokio::test]
async fn a_successor_takes_the_port_over() {
    bounded(120, async {
        let (mut ini, port) = with_metrics().await;
        ini.set("so_reuseport", 1);
        let mut first = ini.start().await;
        let mut client = first.client("u_trust", "p").await;
        let mut successor = ini.clone();
        let folder = ini.file("successor", "");
        std::fs::remove_file(&folder).unwrap();
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .unwrap();
        let logfile = format!("{folder}/log");
        successor
            .set("unix_socket_dir", &folder)
            .set("logfile", &logfile);
        let second = successor.spawn_changed(|command| {
            command.stderr(Stdio::null());
        });
        let log = || std::fs::read_to_string(&logfile).unwrap_or_default();
        wait_until("the successor to start", || async {
            log().contains("process up")
        })
        .await;
        assert!(
            log().contains("trying again until it can be had"),
            "{}",
            log()
        );
        first.signal(Signal::SIGTERM);
        wait_until("the port to be taken over", || async {
            log().contains(&format!("metrics: listening on 127.0.0.1:{port}"))
        })
        .await;
        // It is the new one that answers: the old one would say that it ends.
        assert_eq!(get(port, "/readyz").await.status, 200);
        client.ok("SELECT 1").await;
        client.close().await;
        assert_eq!(first.wait_exit().await, Exit::Code(0));
        drop(second);
    })
    .await;
}

fn healthcheck(ini: &Ini, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(pooler_bin());
    become_unprivileged(&mut command)
        .arg("healthcheck")
        .args(args)
        .current_dir(ini.dir());
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("the program runs");
    (
        status.code(),
        String::from_utf8([stdout, stderr].concat()).unwrap(),
    )
}

#[tokio::test]
async fn the_command_asks_where_the_configuration_says() {
    bounded(120, async {
        let (mut ini, port) = with_metrics().await;
        let mut pooler = ini.start().await;
        wait_for(port, "/readyz", "ready", |answer| answer.status == 200).await;
        let file = "pooler.ini";
        let told = |word: &str| (Some(0), format!("{word}\n"));
        assert_eq!(healthcheck(&ini, &[file]), told("ready"));
        assert_eq!(healthcheck(&ini, &["--live", file]), told("alive"));
        assert_eq!(healthcheck(&ini, &[file, "--startup"]), told("started"));
        let url = format!("http://localhost:{port}/livez");
        assert_eq!(healthcheck(&ini, &["--url", &url]), told("alive"));
        let (code, text) = healthcheck(&ini, &["--url", &format!("http://127.0.0.1:{port}/nope")]);
        assert!(code == Some(1) && text.contains("/livez"), "{text}");
        // A file that has got broken is not the process' fault.
        let good = std::fs::read_to_string(ini.dir().join(file)).unwrap();
        ini.file(file, format!("{good}pool_mode = nonsense\n"));
        assert_eq!(healthcheck(&ini, &[file]), told("ready"));
        ini.file(file, good);
        // By the environment alone.
        let mut command = Command::new(pooler_bin());
        become_unprivileged(&mut command)
            .arg("healthcheck")
            .env("PGWEIR_METRICS_PORT", port.to_string());
        assert!(command.output().unwrap().status.success());
        pooler.signal(Signal::SIGQUIT);
        pooler.wait_exit().await;
        let (code, text) = healthcheck(&ini, &[file]);
        assert!(
            code == Some(1) && text.contains("no answer from http://127.0.0.1:"),
            "{text}"
        );
        // Without metrics the pooler itself is asked, by TCP or by its socket.
        ini.set("metrics_port", 0);
        let pooler = ini.start().await;
        let (code, text) = healthcheck(&ini, &[file]);
        assert!(
            code == Some(0) && text.starts_with(&format!("127.0.0.1:{} answers", ini.port)),
            "{text}"
        );
        drop(pooler);
        ini.set("listen_addr", "").write();
        let (code, text) = healthcheck(&ini, &[file]);
        assert!(code == Some(1) && text.contains(".s.PGSQL."), "{text}");
    })
    .await;
}

/// An address that swallows everything: the command gives up within a second.
#[tokio::test]
async fn the_command_never_takes_long() {
    bounded(60, async {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/readyz", silent.local_addr().unwrap());
        let ini = Ini::new();
        let asking = tokio::task::spawn_blocking(move || healthcheck(&ini, &["--url", &url]));
        let (code, text) = asking.await.unwrap();
        assert_eq!(code, Some(1), "{text}");
    })
    .await;
}

/// The page in a browser: it shows who waits, and names that try to be markup are text.
#[tokio::test]
async fn the_page_in_chromium() {
    let Some(chromium) = ["chromium", "chromium-browser"].into_iter().find(|name| {
        Command::new(name)
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success())
    }) else {
        eprintln!("skipped: there is no chromium here (tests/needs.sh test installs it)");
        return;
    };
    bounded(240, async {
        let (cluster, db, mut ini) = setup().await;
        let port = free_port();
        ini.set("metrics_port", port).set("default_pool_size", 1);
        ini.database("*", format!("{} dbname={db}", cluster.address()));
        let pooler = ini.start().await;
        let names = [
            "<script>document.title='owned'</script>",
            "\"><img src=x onerror=\"document.title='owned'\">",
        ];
        let mut clients = Vec::new();
        for name in names {
            let mut first = pooler.client("u_trust", name).await;
            hold_server(&mut first).await;
            let mut second = pooler.client("u_trust", name).await;
            second.send(&crate::proto::msg::query("SELECT 1")).await;
            clients.extend([first, second]);
        }
        wait_for(port, "/status.json", "waiting clients", |answer| {
            answer.body.matches("\"clients_waiting\":1").count() == 2
        })
        .await;
        let profile = tempfile::tempdir().unwrap();
        let profile = profile.path().display().to_string();
        let chromium = chromium.to_owned();
        let dump = tokio::task::spawn_blocking(move || {
            Command::new(chromium)
                .args([
                    "--headless",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--disable-background-networking",
                ])
                .args([
                    "--disable-component-update",
                    "--disable-sync",
                    "--no-first-run",
                    "--disable-dev-shm-usage",
                ])
                .arg(format!("--user-data-dir={profile}"))
                .args(["--virtual-time-budget=4000", "--dump-dom"])
                .arg(format!("http://127.0.0.1:{port}/"))
                .output()
        });
        let output = dump.await.unwrap().unwrap();
        let dom = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            dom.contains("<title>pgweir</title>"),
            "{dom}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(!dom.contains("<img"), "{dom}");
        assert!(
            dom.contains("&lt;script&gt;document.title='owned'&lt;/script&gt;</b>"),
            "{dom}"
        );
        assert!(dom.contains("&lt;img src=x onerror="), "{dom}");
        assert_eq!(dom.matches("<small>pool full</small>").count(), 2, "{dom}");
        assert!(dom.contains("1 of 1"), "{dom}");
        assert!(dom.contains(">ready</span>"), "{dom}");
        drop(clients);
    })
    .await;
}
