//! Who gets in, by which method, and how the pooler itself logs in to PostgreSQL.

use super::*;
use crate::fixture::*;
use crate::proto::{Conn, msg, scram};

/// `md5` and the hash of password and user name, as PostgreSQL stores it.
pub(super) fn md5_secret(user: &str, password: &str) -> String {
    use md5::{Digest, Md5};
    let digest = Md5::new()
        .chain_update(password)
        .chain_update(user)
        .finalize();
    let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    format!("md5{hex}")
}

pub(super) fn scram_secret(password: &str) -> String {
    scram::secret(password, b"0123456789abcdef", 4096)
}

/// The error of a login, or "ok".
async fn outcome(pooler: &Pooler, user: &str, password: &str) -> String {
    match Conn::try_login(pooler.port, user, "p", Some(password)).await {
        Ok(mut conn) => {
            conn.ok("SELECT 1").await;
            "ok".into()
        }
        Err(error) => error.error_text(),
    }
}

/// The kind of authentication that is asked for first, and its details.
async fn first_request(pooler: &Pooler, user: &str) -> (i32, Vec<u8>) {
    let mut conn = pooler.raw().await;
    conn.send(&msg::startup(&[("user", user), ("database", "p")]))
        .await;
    let frame = conn.frame().await;
    assert!(frame.is(b'R'), "{frame:?}");
    (frame.int(), frame.body[4..].to_vec())
}

const PASSWORD_FAILED: &str = "FATAL 08P01 password authentication failed";
const SASL_FAILED: &str = "FATAL 08P01 SASL authentication failed";

/// Users of the pooler alone, all of whom reach PostgreSQL as `u_trust`, so that only the pooler's own check counts.
async fn own_users(auth_type: &str) -> Ini {
    let (cluster, db, mut ini) = setup().await;
    ini.database(
        "p",
        format!("{} dbname={db} user=u_trust", cluster.address()),
    )
    .set("auth_type", auth_type);
    ini.secret("plain", "secret")
        .secret("hashed", md5_secret("hashed", "secret"))
        .secret("scrammed", scram_secret("secret"));
    ini.secret("empty", "");
    ini
}

#[tokio::test]
async fn trust() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        assert_eq!(client.ok("SELECT current_user").await.value(), "u_trust");
        let error = Conn::try_login(pooler.port, "stranger", "p", None)
            .await
            .err()
            .expect("refused");
        assert_eq!(
            error.error_text(),
            "FATAL 08P01 \"trust\" authentication failed"
        );
    })
    .await;
}

#[tokio::test]
async fn any() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        ini.database(
            "p",
            format!("{} dbname={db} user=u_trust", cluster.address()),
        );
        let pooler = ini.set("auth_type", "any").start().await;
        for name in ["stranger", "whoever"] {
            let mut client = pooler.client(name, "p").await;
            assert_eq!(client.ok("SELECT current_user").await.value(), "u_trust");
        }
    })
    .await;
}

#[tokio::test]
async fn plain() {
    bounded(60, async {
        let pooler = own_users("plain").await.start().await;
        for user in ["plain", "hashed", "scrammed"] {
            assert_eq!(first_request(&pooler, user).await.0, 3);
            assert_eq!(outcome(&pooler, user, "secret").await, "ok", "{user}");
            assert_eq!(
                outcome(&pooler, user, "wrong").await,
                PASSWORD_FAILED,
                "{user}"
            );
            assert_eq!(
                outcome(&pooler, user, "").await,
                "FATAL 08P01 empty password returned by client",
                "{user}"
            );
        }
        assert_eq!(first_request(&pooler, "stranger").await.0, 3);
        assert_eq!(
            outcome(&pooler, "stranger", "secret").await,
            PASSWORD_FAILED
        );
        assert_eq!(outcome(&pooler, "empty", "x").await, PASSWORD_FAILED);
    })
    .await;
}

#[tokio::test]
async fn md5() {
    bounded(60, async {
        let pooler = own_users("md5").await.start().await;
        for (user, kind) in [
            ("plain", 5),
            ("hashed", 5),
            ("stranger", 5),
            ("scrammed", 10),
        ] {
            assert_eq!(first_request(&pooler, user).await.0, kind, "{user}");
        }
        for user in ["plain", "hashed", "scrammed"] {
            assert_eq!(outcome(&pooler, user, "secret").await, "ok", "{user}");
            let error = if user == "scrammed" {
                SASL_FAILED
            } else {
                PASSWORD_FAILED
            };
            assert_eq!(outcome(&pooler, user, "wrong").await, error, "{user}");
        }
        assert_eq!(
            outcome(&pooler, "stranger", "secret").await,
            PASSWORD_FAILED
        );
        assert_eq!(outcome(&pooler, "empty", "").await, PASSWORD_FAILED);
        let salts = [
            first_request(&pooler, "plain").await.1,
            first_request(&pooler, "plain").await.1,
        ];
        assert_ne!(salts[0], salts[1]);
    })
    .await;
}

#[tokio::test]
async fn scram_sha_256() {
    bounded(60, async {
        let pooler = own_users("scram-sha-256").await.start().await;
        assert_eq!(
            first_request(&pooler, "plain").await,
            (10, b"SCRAM-SHA-256\0\0".to_vec())
        );
        for user in ["plain", "scrammed"] {
            assert_eq!(outcome(&pooler, user, "secret").await, "ok", "{user}");
            assert_eq!(
                outcome(&pooler, user, "secret").await,
                "ok",
                "{user}, the second time"
            );
            assert_eq!(outcome(&pooler, user, "wrong").await, SASL_FAILED, "{user}");
        }
        for user in ["hashed", "stranger"] {
            assert_eq!(
                outcome(&pooler, user, "secret").await,
                SASL_FAILED,
                "{user}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn an_empty_secret_matches_nothing() {
    not_in_pgbouncer!("SCRAM accepts an empty password for an empty secret");
    bounded(60, async {
        for method in ["plain", "md5", "scram-sha-256"] {
            let pooler = own_users(method).await.start().await;
            for password in ["", "x"] {
                assert!(
                    outcome(&pooler, "empty", password)
                        .await
                        .starts_with("FATAL 08P01"),
                    "{method} {password:?}"
                );
            }
        }
    })
    .await;
}

/// A stranger meets an exchange of the same shape as a user: same kind of salt, the same one each time, the usual iterations.
#[tokio::test]
async fn strangers_cannot_be_told_from_users() {
    bounded(60, async {
        let pooler = own_users("scram-sha-256").await.start().await;
        let mut challenges = Vec::new();
        for user in ["stranger", "stranger", "another", "plain"] {
            let mut conn = pooler.raw().await;
            conn.send(&msg::startup(&[("user", user), ("database", "p")]))
                .await;
            conn.frame().await;
            conn.send(&msg::sasl_initial(
                "SCRAM-SHA-256",
                &scram::Client::new("x").first(),
            ))
            .await;
            let frame = conn.frame().await;
            let text = String::from_utf8_lossy(&frame.body[4..]).into_owned();
            let salt_and_rounds = text.split_once(",s=").expect("a challenge").1.to_string();
            challenges.push(salt_and_rounds);
        }
        assert_eq!(challenges[0], challenges[1]);
        assert_ne!(challenges[0], challenges[2]);
        assert_eq!(challenges[0].len(), challenges[3].len());
        assert!(
            challenges.iter().all(|c| c.ends_with(",i=4096")),
            "{challenges:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn databases_are_only_named_after_the_proof() {
    bounded(60, async {
        let (cluster, _, mut ini) = setup().await;
        ini.database(
            "gone",
            format!("{} dbname=does_not_exist", cluster.address()),
        );
        let pooler = ini.set("auth_type", "plain").start().await;
        let try_db = |db: &'static str, password: &'static str| {
            let port = pooler.port;
            async move {
                Conn::try_login(port, "u_plain", db, Some(password))
                    .await
                    .err()
                    .expect("refused")
                    .error_text()
            }
        };
        assert_eq!(try_db("nowhere", "wrong").await, PASSWORD_FAILED);
        assert_eq!(
            try_db("nowhere", "u_plain_pw").await,
            "FATAL 08P01 no such database: nowhere"
        );
        assert_eq!(
            try_db("gone", "u_plain_pw").await,
            "FATAL 3D000 database \"does_not_exist\" does not exist"
        );
    })
    .await;
}

#[tokio::test]
async fn the_pooler_logs_in_by_every_method() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini
            .set("auth_type", "plain")
            .secret("u_md5", md5_secret("u_md5", "u_md5_pw"))
            .start()
            .await;
        for user in ["u_scram", "u_md5", "u_plain"] {
            let mut client = Conn::login(pooler.port, user, "p", Some(&format!("{user}_pw"))).await;
            assert_eq!(client.ok("SELECT current_user").await.value(), user);
        }
    })
    .await;
}

#[tokio::test]
async fn a_wrong_password_for_the_server_is_the_clients_to_see() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        for user in ["u_scram", "u_md5", "u_plain"] {
            ini.database(
                "p",
                format!(
                    "{} dbname={db} user={user} password=wrong",
                    cluster.address()
                ),
            );
            let pooler = ini.start().await;
            let error = Conn::try_login(pooler.port, "u_trust", "p", None)
                .await
                .err()
                .expect("refused");
            assert_eq!(
                error.error_text(),
                format!("FATAL 28P01 password authentication failed for user \"{user}\"")
            );
            assert!(
                pooler
                    .log()
                    .contains("server login failed: FATAL password authentication failed"),
                "{}",
                pooler.log()
            );
        }
    })
    .await;
}

/// The secret in the auth_file is the one of PostgreSQL; no password is written anywhere.
#[tokio::test]
async fn scram_keys_pass_through_to_the_server() {
    bounded(60, async {
        let (cluster, _, mut ini) = setup().await;
        let stored = cluster
            .sql(
                "postgres",
                "SELECT rolpassword FROM pg_authid WHERE rolname = 'u_scram'",
            )
            .await
            .value();
        assert!(stored.starts_with("SCRAM-SHA-256$"));
        let pooler = ini
            .set("auth_type", "scram-sha-256")
            .secret("u_scram", &stored)
            .start()
            .await;
        for _ in 0..2 {
            let mut client = Conn::login(pooler.port, "u_scram", "p", Some("u_scram_pw")).await;
            assert_eq!(client.ok("SELECT current_user").await.value(), "u_scram");
            assert_eq!(pooler.console("RECONNECT").await.error_text(), None);
            assert_eq!(
                client.ok("SELECT current_user").await.value(),
                "u_scram",
                "a new server, with the keys kept"
            );
        }
        assert_eq!(outcome(&pooler, "u_scram", "wrong").await, SASL_FAILED);
    })
    .await;
}

#[tokio::test]
async fn a_secret_of_another_account_cannot_log_in() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini
            .set("auth_type", "scram-sha-256")
            .secret("u_scram", scram_secret("u_scram_pw"))
            .start()
            .await;
        let error = outcome(&pooler, "u_scram", "u_scram_pw").await;
        assert_ne!(
            error, "ok",
            "other salt, other keys: PostgreSQL cannot accept them"
        );
    })
    .await;
}

#[tokio::test]
async fn reload_adds_changes_and_removes_users() {
    not_in_pgbouncer!("a removed user stays known until restart");
    bounded(60, async {
        for method in ["plain", "md5", "scram-sha-256"] {
            let mut ini = own_users(method).await;
            let pooler = ini.start().await;
            assert_eq!(outcome(&pooler, "plain", "secret").await, "ok");
            assert_eq!(outcome(&pooler, "scrammed", "secret").await, "ok");
            ini.secret("newcomer", "fresh")
                .secret("plain", "changed")
                .no_secret("scrammed")
                .write();
            assert_eq!(pooler.console("RELOAD").await.error_text(), None);
            assert_eq!(
                outcome(&pooler, "newcomer", "fresh").await,
                "ok",
                "{method}"
            );
            assert_eq!(outcome(&pooler, "plain", "changed").await, "ok", "{method}");
            assert_ne!(outcome(&pooler, "plain", "secret").await, "ok", "{method}");
            for password in ["secret", ""] {
                assert_ne!(
                    outcome(&pooler, "scrammed", password).await,
                    "ok",
                    "{method}: removed, password {password:?}"
                );
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_removed_user_is_no_longer_trusted() {
    not_in_pgbouncer!("a removed user stays trusted until restart");
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.start().await;
        pooler.client("u_trust", "p").await.close().await;
        ini.no_secret("u_trust").write();
        assert_eq!(pooler.console("RELOAD").await.error_text(), None);
        let error = Conn::try_login(pooler.port, "u_trust", "p", None)
            .await
            .err()
            .expect("refused");
        assert_eq!(
            error.error_text(),
            "FATAL 08P01 \"trust\" authentication failed"
        );
    })
    .await;
}

#[tokio::test]
async fn long_passwords() {
    bounded(60, async {
        let long = "x".repeat(60_000);
        let mut ini = own_users("plain").await;
        let pooler = ini.secret("long", &long).start().await;
        assert_eq!(outcome(&pooler, "long", &long).await, "ok");
        assert_eq!(outcome(&pooler, "long", &long[1..]).await, PASSWORD_FAILED);
    })
    .await;
}

#[tokio::test]
async fn the_console_is_for_admins_and_watchers() {
    bounded(60, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("auth_type", "plain").start().await;
        let port = pooler.port;
        let mut stats = Conn::login(port, "stats", "pgbouncer", Some("stats_pw")).await;
        assert_eq!(stats.query("SHOW POOLS").await.error_text(), None);
        for command in [
            "RELOAD",
            "PAUSE",
            "KILL p",
            "KILL_CLIENT 1",
            "SHUTDOWN",
            "SET query_timeout = 1",
            "DISABLE p",
            "RECONNECT",
            "RESUME",
        ] {
            let error = stats.query(command).await.error_text();
            assert_eq!(
                error.as_deref(),
                Some("ERROR 08P01 admin access needed"),
                "{command}"
            );
        }
        let error = Conn::try_login(port, "u_plain", "pgbouncer", Some("u_plain_pw"))
            .await
            .err()
            .expect("refused");
        assert_eq!(error.error_text(), "FATAL 08P01 not allowed");
        let error = Conn::try_login(port, "admin", "pgbouncer", Some("wrong"))
            .await
            .err()
            .expect("refused");
        assert_eq!(error.error_text(), PASSWORD_FAILED);
        assert_eq!(pooler.console("RELOAD").await.error_text(), None);
    })
    .await;
}
