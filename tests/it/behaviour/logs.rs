//! The log as a whole: JSON lines, no secrets in either form, and floods of equal lines.

use nix::sys::signal::Signal;
use serde_json::Value;

use super::*;
use crate::fixture::directory::{BASE, Directory};
use crate::fixture::*;

const FORMATS: [&str; 2] = ["pgbouncer", "json"];

/// Every line of a log as an object.
fn objects(log: &str) -> Vec<Value> {
    let object = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    log.lines().map(object).collect()
}

#[tokio::test]
async fn every_line_is_an_object() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let mut pooler = ini.set("log_format", "json").start().await;
        let mut client = pooler.client("u_trust", "p").await;
        client.ok("SELECT 1").await;
        let port = client.local_port();
        client.close().await;
        pooler.wait_log("client close request").await;
        let strange = "no\n\"such\"\\ \u{1}\u{7f}";
        assert!(
            Conn::try_login(pooler.port, "u_trust", strange, None)
                .await
                .is_err()
        );
        pooler.signal(Signal::SIGTERM);
        pooler.wait_exit().await;
        let lines = objects(&pooler.log());
        let said = |text: &str| {
            let says = |line: &&Value| line["msg"].as_str().unwrap().contains(text);
            lines
                .iter()
                .find(says)
                .unwrap_or_else(|| panic!("no {text} in {lines:?}"))
        };
        let login = said("login attempt: db=p user=u_trust");
        assert_eq!(
            (&login["level"], &login["pid"]),
            (&"info".into(), &pooler.pid().as_raw().into())
        );
        assert_eq!(login["addr"], "127.0.0.1");
        let closing = said("closing because: client close request");
        assert_eq!(
            (&closing["database"], &closing["user"]),
            (&"p".into(), &"u_trust".into())
        );
        assert_eq!(
            (&closing["client"], &closing["port"]),
            (&login["client"], &port.into())
        );
        assert!(said("new connection to server")["server"].is_string());
        assert_eq!(said("no such database")["level"], "warning");
        assert_eq!(said("process up")["level"], "info");
        assert_eq!(said("got SIGTERM").get("client"), None);
    })
    .await;
}

#[tokio::test]
async fn a_start_that_fails_says_so_in_the_form_that_was_asked_for() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        ini.set("log_format", "json")
            .set("auth_type", "md5")
            .set("auth_file", "/nonexistent/users");
        let mut pooler = ini.spawn();
        assert_eq!(pooler.wait_exit().await, Exit::Code(1));
        let lines = objects(&pooler.log());
        assert_eq!(lines.last().unwrap()["level"], "fatal");
    })
    .await;
}

#[tokio::test]
async fn form_and_levels_change_while_it_runs() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        ini.set("auth_type", "scram-sha-256");
        let pooler = ini.start().await;
        let wrong = || Conn::try_login(pooler.port, "u_scram", "p", Some("wrong"));
        let debug = ["DEBUG", "\"level\":\"debug\""];
        let mut seen = [0, 0];
        for (format, verbose, mut expected) in [
            ("pgbouncer", 0, [0, 0]),
            ("pgbouncer", 2, [1, 0]),
            ("json", 2, [0, 1]),
            ("json", 0, [0, 0]),
            ("json", 1, [0, 1]),
            ("pgbouncer", 0, [0, 0]),
        ] {
            for command in [
                format!("SET log_format = '{format}'"),
                format!("SET verbose = {verbose}"),
            ] {
                assert_eq!(
                    pooler.console(&command).await.error_text(),
                    None,
                    "{command}"
                );
            }
            assert!(wrong().await.is_err());
            let log = pooler.log();
            let now = debug.map(|word| {
                log.lines()
                    .filter(|line| line.contains(word) && line.contains("u_scram"))
                    .count()
            });
            for at in 0..2 {
                let fresh = now[at] - seen[at];
                expected[at] = fresh.min(expected[at]);
                assert_eq!(fresh.min(1), expected[at], "{format} {verbose}: {log}");
            }
            seen = now;
        }
    })
    .await;
}

/// Logs in, or fails to, and does something.
async fn visit(pooler: &Pooler, user: &str, password: &str) -> bool {
    match Conn::try_login(pooler.port, user, "p", Some(password)).await {
        Ok(mut client) => {
            client.query("SELECT 'in_a_query_pw'").await;
            client
                .query("ALTER ROLE nobody PASSWORD 'in_a_statement_pw'")
                .await;
            true
        }
        Err(_) => false,
    }
}

/// Nothing of what tests call a password, and no secret made of one.
#[track_caller]
fn check_no_secret(log: &str, format: &str) {
    assert!(
        log.contains(if format == "json" {
            "\"level\":\""
        } else {
            "] LOG "
        }),
        "{log}"
    );
    let md5 = regex_lite::Regex::new("md5[0-9a-f]{32}").unwrap();
    for line in log.lines() {
        assert!(
            !line.contains("_pw") && !line.contains("SCRAM-SHA-256$") && !md5.is_match(line),
            "{line}"
        );
    }
}

#[tokio::test]
async fn no_secret_is_logged() {
    bounded(180, async {
        for format in FORMATS {
            for auth_type in ["plain", "md5", "scram-sha-256"] {
                let (_, _, mut ini) = setup().await;
                ini.set("auth_type", auth_type)
                    .set("log_format", format)
                    .set("verbose", 2)
                    .set("auth_user", "postgres")
                    .no_secret("u_scram2")
                    .secret("hashed", "md50123456789abcdef0123456789abcdef");
                let pooler = ini.start().await;
                // One whom auth_file knows, one whom auth_query finds; with the right password and with a wrong one.
                for user in ["u_scram", "u_scram2"] {
                    let (right, wrong) = (format!("{user}_pw"), format!("{user}_not_pw"));
                    // What is known of the second does not log in to PostgreSQL without an exchange of keys.
                    let expected = user == "u_scram" || auth_type != "plain";
                    let outcome = visit(&pooler, user, &right).await;
                    assert_eq!(outcome, expected, "{auth_type} {user}");
                    assert!(!visit(&pooler, user, &wrong).await, "{auth_type} {user}");
                }
                assert!(!visit(&pooler, "hashed", "guess_pw").await);
                assert!(!visit(&pooler, "stranger", "stranger_pw").await);
                for command in [
                    "SET auth_ldap_options = 'ldapserver=x ldapbindpasswd=bind_pw'",
                    "SET auth_ldap_options = 'nonsense=1 ldapbindpasswd=bind_pw'",
                    "SHOW CONFIG",
                ] {
                    pooler.console(command).await;
                }
                // Mistakes around a secret in the files.
                ini.database(
                    "broken",
                    "host=127.0.0.1 password='in_an_entry_pw' nonsense=1",
                );
                ini.set("auth_ldap_options", "nonsense=1 ldapbindpasswd=bind_pw");
                ini.write();
                assert!(pooler.console("RELOAD").await.error_text().is_some());
                check_no_secret(&pooler.log(), format);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn no_secret_of_a_directory_is_logged() {
    bounded(120, async {
        let directory = Directory::start();
        for format in FORMATS {
            for bind_password in ["root_pw", "not_root_pw"] {
                let (cluster, db, mut ini) = setup().await;
                let address = cluster.address();
                ini.database("p", format!("{address} dbname={db} user=u_trust"));
                let options = format!(
                    "{} ldapbasedn=\"{BASE}\" ldapbinddn=\"cn=root,{BASE}\" ldapbindpasswd={bind_password}",
                    directory.address()
                );
                ini.set("auth_type", "ldap")
                    .set("auth_ldap_options", options)
                    .set("log_format", format)
                    .set("verbose", 2);
                let pooler = ini.start().await;
                assert_eq!(visit(&pooler, "ann", "ann_pw").await, bind_password == "root_pw");
                assert!(!visit(&pooler, "ann", "not_ann_pw").await);
                check_no_secret(&pooler.log(), format);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_equal_warnings_is_told_of() {
    bounded(120, async {
        const WARNING: &str = "WARNING C-";
        let (_, _, ini) = setup().await;
        let mut pooler = ini.start().await;
        let mut attempts = 0;
        let told = |pooler: &Pooler| pooler.log().lines().filter(|line| line.contains(WARNING)).count();
        // More than so many a second; how many come about depends on the machine.
        while told(&pooler) == attempts {
            let refused = (0..50).map(|_| Conn::try_login(pooler.port, "u_trust", "nowhere", None));
            for outcome in futures_util::future::join_all(refused).await {
                assert!(outcome.is_err());
                attempts += 1;
            }
        }
        pooler.signal(Signal::SIGTERM);
        pooler.wait_exit().await;
        let log = pooler.log();
        let suppressed = regex_lite::Regex::new(r"WARNING pooler error: no such database: nowhere \(suppressed (\d+) similar lines? in \d+ s\)").unwrap();
        let numbers = suppressed.captures_iter(&log).map(|found| found[1].parse::<usize>().unwrap());
        assert_eq!(told(&pooler) + numbers.sum::<usize>(), attempts);
        // What each login says of itself stays.
        assert_eq!(log.matches("closing because: no such database: nowhere").count(), attempts);
    })
    .await;
}
