//! `auth_type=hba` and `cert`: rules by where a client comes from, ident maps, certificates, system users, and what happens to
//! files with mistakes.

use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::{Uid, User};

use super::auth::{md5_secret, scram_secret};
use super::tls::{client_config, over_tls, use_tls};
use super::*;
use crate::fixture::tls::Authority;
use crate::fixture::*;
use crate::proto::{Conn, msg};

const NO_METHOD: &str = "FATAL 08P01 no authentication method is found";
const REJECTED: &str = "FATAL 08P01 login rejected";
const PEER_FAILED: &str = "FATAL 08P01 unix socket login rejected";
const CERT_FAILED: &str = "FATAL 08P01 certificate authentication failed";
const PASSWORD_FAILED: &str = "FATAL 08P01 password authentication failed";
const SASL_FAILED: &str = "FATAL 08P01 SASL authentication failed";

/// The rule by which the tests' own console user gets in.
const CONSOLE_RULE: &str = "local pgbouncer admin password\n";

fn write_rules(ini: &Ini, rules: &str) -> String {
    ini.file("hba.conf", format!("{CONSOLE_RULE}{rules}"))
}

/// Databases in which every user is `u_trust` to PostgreSQL, so that only the rules count.
async fn setup_rules(rules: &str) -> Ini {
    let (cluster, db, mut ini) = setup().await;
    let address = format!("{} dbname={db} user=u_trust", cluster.address());
    for name in ["p", "q", "plain"] {
        ini.database(name, &address);
    }
    let path = write_rules(&ini, rules);
    ini.set("auth_type", "hba").set("auth_hba_file", path);
    ini.secret("plain", "secret")
        .secret("hashed", md5_secret("hashed", "secret"))
        .secret("scrammed", scram_secret("secret"));
    ini
}

/// The kind of authentication that was asked for first, as a word, or the error.
async fn asked(mut conn: Conn, user: &str, database: &str) -> String {
    asked_with(&mut conn, &[("user", user), ("database", database)]).await
}

async fn asked_with(conn: &mut Conn, params: &[(&str, &str)]) -> String {
    conn.send(&msg::startup(params)).await;
    let frame = conn.frame().await;
    if frame.is(b'E') {
        return frame.error_text();
    }
    assert!(frame.is(b'R'), "{frame:?}");
    let word = match frame.int() {
        0 => "ok",
        3 => "password",
        5 => "md5",
        10 => "scram",
        _ => "?",
    };
    word.to_owned()
}

/// How a login over TCP ends.
async fn outcome(pooler: &Pooler, user: &str, password: &str) -> String {
    match Conn::try_login(pooler.port, user, "p", Some(password)).await {
        Ok(mut conn) => conn.ok("SELECT 'ok'").await.value(),
        Err(error) => error.error_text(),
    }
}

async fn unix(pooler: &Pooler) -> Conn {
    Conn::unix(&pooler.socket()).await
}

/// The name of the system user that these tests run as.
fn me() -> String {
    let user = User::from_uid(Uid::effective()).expect("we can be looked up");
    user.expect("we are somebody").name
}

#[tokio::test]
async fn each_method() {
    bounded(60, async {
        let rules = "host all u_trust,stranger 127.0.0.1/32 trust\nhost all u_other 127.0.0.1/32 reject\n\
                     host all u_md5,hashed,scrammed 127.0.0.1 255.255.255.255 md5\nhost all u_plain 127.0.0.1/32 password\n\
                     host all plain 127.0.0.0/8 scram-sha-256\n# host all all all trust\n";
        let pooler = setup_rules(rules).await.start().await;
        for (user, expected) in [
            ("u_trust", "ok"),
            ("stranger", "FATAL 08P01 \"trust\" authentication failed"),
            ("u_other", REJECTED),
            ("u_md5", "md5"),
            ("hashed", "md5"),
            ("scrammed", "scram"),
            ("u_plain", "password"),
            ("plain", "scram"),
            ("u_scram", NO_METHOD),
        ] {
            assert_eq!(asked(pooler.raw().await, user, "p").await, expected, "{user}");
        }
        for (user, right, failure) in [
            ("hashed", "secret", PASSWORD_FAILED),
            ("scrammed", "secret", SASL_FAILED),
            ("u_plain", "u_plain_pw", PASSWORD_FAILED),
            ("plain", "secret", SASL_FAILED),
        ] {
            assert_eq!(outcome(&pooler, user, right).await, "ok", "{user}");
            assert_eq!(outcome(&pooler, user, "wrong").await, failure, "{user}");
        }
        let log = pooler.log();
        let attempt = log.find("login attempt: db=p user=u_other tls=no replication=no");
        let refusal = log.find("closing because: login rejected");
        assert!(attempt.is_some() && attempt < refusal, "{log}");
    })
    .await;
}

#[tokio::test]
async fn tcp_and_unix() {
    bounded(60, async {
        let rules = "local p u_trust trust\nhost p u_plain ::1/128 trust\nhost p u_plain 127.0.0.1/32 reject\n\
                     host p u_md5 0.0.0.0/0 reject\nhost p u_md5 ::/0 password\nhost q all all trust\n";
        let mut ini = setup_rules(rules).await;
        let pooler = ini.set("listen_addr", "127.0.0.1,::1").start().await;
        assert_eq!(asked(unix(&pooler).await, "u_trust", "p").await, "ok");
        assert_eq!(asked(unix(&pooler).await, "u_plain", "p").await, NO_METHOD);
        assert_eq!(asked(unix(&pooler).await, "u_trust", "q").await, NO_METHOD);
        assert_eq!(asked(pooler.raw().await, "u_trust", "p").await, NO_METHOD);
        assert_eq!(asked(pooler.raw().await, "u_trust", "q").await, "ok");
        assert_eq!(asked(pooler.raw().await, "u_plain", "p").await, REJECTED);
        assert_eq!(asked(pooler.raw().await, "u_md5", "p").await, REJECTED);
        let Ok(mut six) = Conn::try_tcp6(pooler.port).await else {
            return; // a machine without IPv6
        };
        let plain = [("user", "u_plain"), ("database", "p")];
        assert_eq!(asked_with(&mut six, &plain).await, "ok");
        let six = Conn::try_tcp6(pooler.port).await.expect("it worked before");
        assert_eq!(asked(six, "u_md5", "p").await, "password");
    })
    .await;
}

#[tokio::test]
async fn with_and_without_tls() {
    bounded(60, async {
        let ca = Authority::new("clients' authority");
        let rules = "hostssl all u_trust all trust\nhostnossl all u_trust all reject\nhostnossl all u_plain all trust\n\
                     hostssl all u_plain all md5\nhost all u_md5 all trust\n";
        let mut ini = setup_rules(rules).await;
        use_tls(&mut ini, &ca, "prefer");
        let pooler = ini.start().await;
        for (user, tls, clear) in [
            ("u_trust", "ok", REJECTED),
            ("u_plain", "md5", "ok"),
            ("u_md5", "ok", "ok"),
        ] {
            assert_eq!(asked(pooler.raw().await, user, "p").await, clear, "{user}");
            let conn = over_tls(&pooler, client_config(&ca, None, &[])).await;
            let conn = conn.expect("a handshake");
            assert_eq!(asked(conn, user, "p").await, tls, "{user}");
        }
    })
    .await;
}

#[tokio::test]
async fn databases_and_users() {
    bounded(60, async {
        let rules = "host sameuser all all md5\nhost q,@dbs @users,u_plain all trust\nhost \"all\" all all reject\n\
                     host nowhere u_trust all password\n";
        let ini = setup_rules(rules).await;
        ini.file("dbs", "x\ny # databases\n@more");
        ini.file("more", "p\n");
        ini.file("users", "u_trust\n");
        let pooler = ini.start().await;
        for (user, database, expected) in [
            ("plain", "plain", "md5"),
            ("plain", "p", NO_METHOD),
            ("u_trust", "p", "ok"),
            ("u_plain", "p", "ok"),
            ("u_plain", "q", "ok"),
            ("u_plain", "plain", NO_METHOD),
            ("u_trust", "nowhere", "password"),
            ("u_trust", "neverland", NO_METHOD),
            ("u_trust", "all", REJECTED),
        ] {
            let asked = asked(pooler.raw().await, user, database).await;
            assert_eq!(asked, expected, "{user} {database}");
        }
    })
    .await;
}

/// `all` is not about physical replication, and `replication` about nothing else.
#[tokio::test]
async fn the_keyword_replication() {
    bounded(60, async {
        let rules = "host replication u_plain all password\nhost all u_plain,u_md5 all md5\nhost p replication all trust\n";
        let mut ini = setup_rules(rules).await;
        let pooler = ini.secret("replication", "").start().await;
        for (user, replication, expected) in [
            ("u_plain", "yes", "password"),
            ("u_plain", "no", "md5"),
            ("u_plain", "database", "md5"),
            ("u_md5", "on", NO_METHOD),
            ("u_md5", "false", "md5"),
        ] {
            let params = [("user", user), ("database", "p"), ("replication", replication)];
            let asked = asked_with(&mut pooler.raw().await, &params).await;
            assert_eq!(asked, expected, "{user} {replication}");
        }
        if like_pgbouncer() {
            return; // there it is a keyword among users, too, by accident
        }
        assert_eq!(asked(pooler.raw().await, "replication", "p").await, "ok");
    })
    .await;
}

#[tokio::test]
async fn the_console_has_rules_too() {
    bounded(60, async {
        let rules = "host pgbouncer stats all trust\nhost pgbouncer admin all reject\nhost all all all trust\n";
        let pooler = setup_rules(rules).await.start().await;
        assert_eq!(pooler.console("SHOW VERSION").await.error_text(), None);
        let mut stats = pooler.client("stats", "pgbouncer").await;
        assert_eq!(stats.query("SHOW POOLS").await.error_text(), None);
        assert_eq!(asked(pooler.raw().await, "admin", "pgbouncer").await, REJECTED);
        assert_eq!(
            asked(pooler.raw().await, "u_trust", "pgbouncer").await,
            "FATAL 08P01 not allowed"
        );
    })
    .await;
}

#[tokio::test]
async fn peer() {
    bounded(60, async {
        let me = me();
        let rules = format!(
            "local p u_plain,u_md5 peer map=m\nlocal q all peer map=others\nlocal p \"{me}\",u_trust,stranger peer\nhost p all all peer\n"
        );
        let mut ini = setup_rules(&rules).await;
        let ident = ini.file(
            "ident.conf",
            format!("# who\nm nobody u_md5\nm \"{me}\" u_plain\nm \"{me}\" stranger\nothers \"{me}\" all\n"),
        );
        ini.set("auth_ident_file", ident).secret(&me, "");
        let pooler = ini.start().await;
        for (user, database, expected) in [
            (&*me, "p", "ok"),
            (&me, "q", "ok"),
            ("u_plain", "p", "ok"),
            ("u_md5", "p", PEER_FAILED),
            ("u_trust", "p", PEER_FAILED),
            ("u_md5", "q", "ok"),
            ("stranger", "p", PEER_FAILED),
            ("stranger", "q", PEER_FAILED),
        ] {
            let asked = asked(unix(&pooler).await, user, database).await;
            assert_eq!(asked, expected, "{user} {database}");
        }
        assert_eq!(asked(pooler.raw().await, &me, "p").await, PEER_FAILED);
        pooler.wait_log("ident map m cannot be matched").await;
    })
    .await;
}

#[tokio::test]
async fn certificates_by_rule() {
    bounded(60, async {
        let ca = Authority::new("clients' authority");
        let rules =
            "hostssl p u_plain,u_md5 all cert map=m\nhost all all all cert\nlocal p all cert\n";
        let mut ini = setup_rules(rules).await;
        use_tls(&mut ini, &ca, "prefer");
        let ident = ini.file("ident.conf", "m robot u_plain\nm host.example.com u_md5\n");
        ini.set("auth_ident_file", ident);
        ini.secret("10.0.0.1", "")
            .secret("db.example.com", "")
            .secret("U_TRUST", "");
        let pooler = ini.start().await;
        let trusted = ca.client_cert("u_trust");
        let robot = ca.client_cert_for("robot", &["host.example.com"]);
        let host = ca.client_cert_for("host", &["db.example.com", "10.0.0.1"]);
        let stranger = ca.client_cert("stranger");
        for (pair, user, expected) in [
            (Some(&trusted), "u_trust", "ok"),
            (Some(&trusted), "u_other", CERT_FAILED),
            (Some(&trusted), "u_plain", CERT_FAILED),
            (Some(&robot), "u_plain", "ok"),
            (Some(&robot), "u_md5", "ok"),
            (Some(&robot), "u_trust", CERT_FAILED),
            (Some(&host), "db.example.com", "ok"),
            (Some(&host), "10.0.0.1", "ok"),
            (Some(&stranger), "stranger", CERT_FAILED),
            (None, "u_trust", CERT_FAILED),
        ] {
            let conn = over_tls(&pooler, client_config(&ca, pair, &[])).await;
            let asked = asked(conn.expect("a handshake"), user, "p").await;
            assert_eq!(asked, expected, "{user}");
        }
        for text in [
            "TLS client certificate required",
            "TLS certificate name mismatch",
            "ident map: m does not have a match",
        ] {
            assert!(pooler.log().contains(text), "{text}: {}", pooler.log());
        }
        assert_eq!(asked(pooler.raw().await, "u_trust", "p").await, CERT_FAILED);
        assert_eq!(
            asked(unix(&pooler).await, "u_trust", "p").await,
            CERT_FAILED
        );
    })
    .await;
}

#[tokio::test]
async fn certificates_are_compared_exactly() {
    not_in_pgbouncer!("it ignores case and understands wildcards");
    bounded(60, async {
        let ca = Authority::new("clients' authority");
        let mut ini = setup_rules("hostssl all all all cert\n").await;
        use_tls(&mut ini, &ca, "prefer");
        ini.secret("a.example.com", "")
            .secret("U_TRUST", "")
            .secret("*.example.com", "");
        let pooler = ini.start().await;
        let wild = ca.client_cert_for("*.example.com", &["*.example.com"]);
        let lower = ca.client_cert("u_trust");
        let evil = ca.client_cert("u_trust\0.example.com");
        for (pair, user, expected) in [
            (&wild, "a.example.com", CERT_FAILED),
            (&wild, "*.example.com", "ok"),
            (&lower, "U_TRUST", CERT_FAILED),
            (&lower, "u_trust", "ok"),
            (&evil, "u_trust", CERT_FAILED),
        ] {
            let conn = over_tls(&pooler, client_config(&ca, Some(pair), &[])).await;
            let asked = asked(conn.expect("a handshake"), user, "p").await;
            assert_eq!(asked, expected, "{user}");
        }
    })
    .await;
}

/// A certificate of an unknown authority never gets as far as the rules.
#[tokio::test]
async fn a_strangers_certificate_says_nothing() {
    bounded(60, async {
        let ca = Authority::new("clients' authority");
        let mut ini = setup_rules("host all all all cert\n").await;
        use_tls(&mut ini, &ca, "prefer");
        let pooler = ini.start().await;
        let forged = Authority::new("clients' authority").client_cert("u_trust");
        if let Ok(mut conn) = over_tls(&pooler, client_config(&ca, Some(&forged), &[])).await {
            conn.send(&msg::startup(&[("user", "u_trust"), ("database", "p")]))
                .await;
            assert_eq!(conn.until_closed().await, vec![]);
        }
        assert!(!pooler.log().contains("login attempt"), "{}", pooler.log());
    })
    .await;
}

#[tokio::test]
async fn auth_type_cert() {
    bounded(60, async {
        let ca = Authority::new("clients' authority");
        let (_, _, mut ini) = setup().await;
        use_tls(&mut ini, &ca, "verify-full");
        let pooler = ini
            .set("auth_type", "cert")
            .secret("wanted", "")
            .start()
            .await;
        for (name, user, expected) in [
            ("u_trust", "u_trust", "ok"),
            ("u_trust", "u_plain", CERT_FAILED),
            ("unwanted", "unwanted", CERT_FAILED),
        ] {
            let pair = ca.client_cert(name);
            let conn = over_tls(&pooler, client_config(&ca, Some(&pair), &[])).await;
            let asked = asked(conn.expect("a handshake"), user, "p").await;
            assert_eq!(asked, expected, "{name} as {user}");
        }
        for (user, database) in [("u_trust", "p"), ("admin", "pgbouncer")] {
            let asked = asked(unix(&pooler).await, user, database).await;
            assert_eq!(
                asked, CERT_FAILED,
                "{user}: no certificates over Unix sockets"
            );
        }
        let admin = ca.client_cert("admin");
        let conn = over_tls(&pooler, client_config(&ca, Some(&admin), &[])).await;
        let mut conn = conn.expect("a handshake");
        conn.log_in("admin", "pgbouncer", None).await;
        assert_eq!(conn.query("SHOW POOLS").await.error_text(), None);
        // What it needs it must have, also after a reload.
        ini.set("client_tls_sslmode", "verify-ca").write();
        assert!(conn.query("RELOAD").await.error_text().is_some());
        pooler
            .wait_log("auth_type=cert requires client_tls_sslmode=SSLMODE_VERIFY_FULL")
            .await;
    })
    .await;
}

#[tokio::test]
async fn reload_takes_new_rules() {
    bounded(60, async {
        let ini = setup_rules("host all u_trust all trust\n").await;
        let pooler = ini.start().await;
        let mut before = pooler.client("u_trust", "p").await;
        write_rules(&ini, "host all u_trust all reject\n");
        assert_eq!(
            asked(pooler.raw().await, "u_trust", "p").await,
            "ok",
            "not yet"
        );
        assert_eq!(pooler.console("RELOAD").await.error_text(), None);
        assert_eq!(asked(pooler.raw().await, "u_trust", "p").await, REJECTED);
        assert_eq!(before.ok("SELECT 'still in'").await.value(), "still in");
        write_rules(&ini, "host all u_trust all password\n");
        pooler.signal(Signal::SIGHUP);
        wait_until("SIGHUP to be obeyed", || async {
            asked(pooler.raw().await, "u_trust", "p").await == "password"
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_broken_file_changes_nothing() {
    not_in_pgbouncer!("a broken line is skipped, which may open what it should close");
    bounded(60, async {
        let mut ini = setup_rules("host all u_trust all reject\nhost all all all trust\n").await;
        let pooler = ini.start().await;
        let broken = "host all u_trust all rejct\nhost all all all trust\nlocl all all trust\n";
        write_rules(&ini, broken);
        let error = pooler.console("RELOAD").await.error_text();
        assert!(error.is_some_and(|text| text.contains("RELOAD failed")));
        let path = ini.dir().join("hba.conf").display().to_string();
        for (text, line) in [
            ("unsupported method: \"rejct\"", 2),
            ("\"locl\" is not one of", 4),
        ] {
            let log = pooler.log();
            let found = log.lines().find(|found| found.contains(text));
            assert!(
                found.is_some_and(|found| found.contains(&format!("({path}:{line})"))),
                "{log}"
            );
        }
        assert_eq!(
            asked(pooler.raw().await, "u_trust", "p").await,
            REJECTED,
            "the old rules"
        );
        pooler.signal(Signal::SIGHUP);
        pooler
            .wait_log("the old configuration stays in force")
            .await;
        assert_eq!(asked(pooler.raw().await, "u_trust", "p").await, REJECTED);
        std::fs::remove_file(ini.dir().join("hba.conf")).expect("it is there");
        assert!(pooler.console("RELOAD").await.error_text().is_some());
        assert_eq!(asked(pooler.raw().await, "u_trust", "p").await, REJECTED);
        // A broken map is the same.
        write_rules(&ini, "host all u_trust all trust\n");
        let ident = ini.file("ident.conf", "m a b\nm /^a b\n");
        ini.set("auth_ident_file", ident).write();
        assert!(pooler.console("RELOAD").await.error_text().is_some());
        pooler
            .wait_log("regular expressions are not supported")
            .await;
        assert_eq!(asked(pooler.raw().await, "u_trust", "p").await, REJECTED);
        ini.file("ident.conf", "m a b\n");
        assert_eq!(pooler.console("RELOAD").await.error_text(), None);
        assert_eq!(asked(pooler.raw().await, "u_trust", "p").await, "ok");
    })
    .await;
}

#[tokio::test]
async fn without_good_rules_there_is_no_start() {
    not_in_pgbouncer!("it starts, and lets in whom the other lines let in");
    bounded(60, async {
        for (rules, text) in [
            (
                Some("local all all trsut\n"),
                "unsupported method: \"trsut\"",
            ),
            (None, "could not open"),
        ] {
            let ini = setup_rules(rules.unwrap_or_default()).await;
            if rules.is_none() {
                std::fs::remove_file(ini.dir().join("hba.conf")).expect("it is there");
            }
            let mut pooler = ini.spawn();
            assert_eq!(pooler.wait_exit().await, Exit::Code(1));
            assert!(pooler.log().contains(text), "{}", pooler.log());
        }
        let mut ini = setup_rules("").await;
        let mut pooler = ini.unset("auth_hba_file").spawn();
        assert_eq!(pooler.wait_exit().await, Exit::Code(1));
        pooler
            .wait_log("auth_type=hba requires auth_hba_file")
            .await;
    })
    .await;
}

#[tokio::test]
async fn check_reads_the_rules() {
    not_in_pgbouncer!("it has no such command");
    bounded(60, async {
        let report = |ini: &Ini| {
            ini.write();
            let mut command = Command::new(pooler_bin());
            let file = ini.dir().join("pooler.ini");
            let output = command.arg("check").arg(file).output().expect("it runs");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            (output.status.success(), text)
        };
        let mut ini = setup_rules("host all all all md5\nhost all all all peer\n").await;
        let ident = ini.file("ident.conf", "m a b\n");
        ini.set("auth_ident_file", ident);
        let (usable, text) = report(&ini);
        assert!(usable, "{text}");
        assert!(text.contains("warning: peer is for Unix sockets"), "{text}");
        assert!(text.contains("hba.conf:3)"), "{text}");
        write_rules(&ini, "host all all all md6\n");
        let (usable, text) = report(&ini);
        assert!(
            !usable && text.contains("error: unsupported method: \"md6\""),
            "{text}"
        );
        assert!(text.contains("hba.conf:2)"), "{text}");
        ini.file("ident.conf", "m a\n");
        let (usable, text) = report(&ini);
        assert!(!usable && text.contains("ident.conf:1)"), "{text}");
    })
    .await;
}
