//! Logins of users whom `auth_query` finds, or does not.

use parking_lot::Mutex;

use super::super::inquiry::{Answer, Asking, Inquirer, Inquiry};
use super::*;
use crate::error::ClientError;

/// Answers inquiries; remembers them.
#[derive(Default)]
pub struct Directory {
    /// By name: the name that comes back, and the secret.
    users: Vec<(&'static str, &'static str, String)>,
    /// What every client is told instead of an answer.
    refusal: Option<&'static str>,
    /// Nothing is ever answered.
    silent: bool,
    asked: Mutex<Vec<Inquiry>>,
}

impl Directory {
    fn answer(&self, name: &str) -> Answer {
        if let Some(text) = self.refusal {
            return Err(ClientError::new(text));
        }
        let found = self.users.iter().find(|(known, _, _)| *known == name);
        Ok(found.map(|(_, name, secret)| {
            let secret = crate::auth::Secret::parse(secret.as_bytes());
            Arc::new(User::new(name.as_bytes(), secret))
        }))
    }
}

impl Inquirer for Directory {
    fn ask(&self, inquiry: Inquiry) -> Asking<'_> {
        let answer = self.answer(&inquiry.name);
        self.asked.lock().push(inquiry);
        Box::pin(async move {
            if self.silent {
                std::future::pending().await
            }
            // As from another thread: not at once.
            tokio::task::yield_now().await;
            answer
        })
    }
}

impl Setup {
    /// Users are looked up; `eve` is found, with the password.
    fn asking(auth_type: &str) -> Setup {
        let setup = Setup::new(auth_type).set("auth_user", "asker");
        setup.finds("eve", "eve", "pencil")
    }

    fn finds(mut self, asked: &'static str, name: &'static str, secret: &str) -> Setup {
        self.directory.users.push((asked, name, secret.to_owned()));
        self
    }

    /// The names that were asked for.
    fn asked(&self) -> Vec<String> {
        let asked = self.directory.asked.lock();
        asked.iter().map(|inquiry| inquiry.name.clone()).collect()
    }
}

/// Logs in to `app` and tells how that went.
async fn log_in(setup: &Setup, user: &str, password: &[u8]) -> (Result<(), String>, Visit) {
    let mut told = None;
    let visit = setup.tcp(async |mut peer| {
        told = Some(peer.log_in(user, "app", password).await);
    });
    let visit = visit.await;
    (told.unwrap(), visit)
}

#[tokio::test]
async fn who_is_found_proves_the_secret_that_was_found() {
    let stored = [PASSWORD_TEXT.to_owned(), md5_of("eve"), scram_secret()];
    for (secret, methods) in [
        (&stored[0], &["plain", "md5", "scram-sha-256"][..]),
        (&stored[1], &["plain", "md5"]),
        (&stored[2], &["plain", "md5", "scram-sha-256"]),
    ] {
        for method in methods {
            let setup = Setup::new(method).set("auth_user", "asker");
            let setup = setup.finds("eve", "eve", secret);
            let (told, visit) = log_in(&setup, "eve", PASSWORD).await;
            assert_eq!(told, Ok(()), "{method} {secret}");
            let client = visit.client();
            let names = (&client.login_user[..], &client.server_user[..]);
            assert_eq!(names, ("eve", "eve"));
            assert_eq!(client.credentials.name(), b"eve");
            drop(client);
            let (told, _) = log_in(&setup, "eve", b"wrong").await;
            assert!(told.is_err(), "{method} {secret}");
        }
    }
}

const PASSWORD_TEXT: &str = "pencil";

fn md5_of(name: &str) -> String {
    use ::md5::{Digest, Md5};
    let digest = Md5::digest([PASSWORD, name.as_bytes()].concat());
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("md5{digits}")
}

#[tokio::test]
async fn a_proof_leaves_its_keys_with_the_user_that_was_found() {
    let setup = Setup::new("scram-sha-256").set("auth_user", "asker");
    let setup = setup.finds("eve", "eve", &scram_secret());
    let (_, visit) = log_in(&setup, "eve", PASSWORD).await;
    assert!(visit.client().credentials.keys().is_some());
}

#[tokio::test]
async fn who_is_not_found_meets_the_same_exchange() {
    for (method, expected) in [
        ("plain", "password authentication failed"),
        ("md5", "password authentication failed"),
        ("scram-sha-256", "SASL authentication failed"),
        ("trust", "no such user"),
    ] {
        let setup = Setup::asking(method);
        let (told, visit) = match method {
            "trust" => {
                let visit = setup.tcp(async |mut peer| {
                    peer.start("stranger", "app").await;
                    assert_eq!(peer.fatal().await, expected);
                });
                (Err(expected.to_owned()), visit.await)
            }
            _ => log_in(&setup, "stranger", PASSWORD).await,
        };
        assert_eq!(told, Err(expected.to_owned()), "{method}");
        let known = [
            "LOG no such user: stranger",
            "LOG login failed: db=app",
            "LOG login attempt: db=app user=stranger tls=no replication=no",
        ];
        assert_eq!(visit.lines()[..3], known, "{method}");
    }
}

#[tokio::test]
async fn trust_lets_in_who_is_found() {
    let setup = Setup::asking("trust");
    let visit = setup.tcp(async |mut peer| {
        peer.start("eve", "app").await;
        assert_eq!(peer.verdict().await, Ok(()));
    });
    assert_eq!(visit.await.client().login_user, "eve");
}

#[tokio::test]
async fn only_who_has_no_secret_in_the_file_is_asked_about() {
    let setup = Setup::asking("plain").finds("empty", "empty", "pencil");
    assert_eq!(log_in(&setup, "ann", PASSWORD).await.0, Ok(()));
    assert!(setup.asked().is_empty());
    assert_eq!(log_in(&setup, "empty", PASSWORD).await.0, Ok(()));
    assert_eq!(setup.asked(), ["empty"]);
    let nobody_to_ask = Setup::new("plain").finds("eve", "eve", "pencil");
    assert!(log_in(&nobody_to_ask, "eve", PASSWORD).await.0.is_err());
    assert!(nobody_to_ask.asked().is_empty());
}

#[tokio::test]
async fn a_listed_user_without_a_secret_who_is_not_found_stays_without() {
    let setup = Setup::asking("plain");
    assert!(log_in(&setup, "empty", PASSWORD).await.0.is_err());
    assert_eq!(setup.asked(), ["empty"]);
}

#[tokio::test]
async fn a_secret_that_is_empty_matches_nothing() {
    for method in ["plain", "md5", "scram-sha-256"] {
        let setup = Setup::new(method).set("auth_user", "asker");
        let setup = setup.finds("eve", "eve", "");
        for password in [&b"x"[..], b"pencil"] {
            assert!(log_in(&setup, "eve", password).await.0.is_err(), "{method}");
        }
    }
}

#[tokio::test]
async fn the_name_that_comes_back_is_the_one_that_counts() {
    let stored = [PASSWORD_TEXT.to_owned(), md5_of("bob"), scram_secret()];
    for (method, secret) in [
        ("plain", &stored[0]),
        ("plain", &stored[1]),
        ("md5", &stored[0]),
        ("scram-sha-256", &stored[2]),
    ] {
        let setup = Setup::new(method).set("auth_user", "asker");
        let setup = setup.finds("alias", "bob", secret);
        let (told, visit) = log_in(&setup, "alias", PASSWORD).await;
        assert_eq!(told, Ok(()), "{method} {secret}");
        let attempt = "LOG login attempt: db=app user=bob tls=no replication=no";
        assert_eq!(visit.lines(), [attempt]);
        let client = visit.client();
        let names = (&client.login_user[..], &client.server_user[..]);
        assert_eq!(names, ("bob", "bob"));
        assert_eq!(setup.admission.user_clients("bob"), 1);
        assert_eq!(setup.admission.user_clients("alias"), 0);
    }
}

#[tokio::test]
async fn the_limit_of_the_name_that_comes_back_counts() {
    let setup = Setup::asking("trust").finds("alias", "bob", "x");
    let setup = setup.set("max_user_client_connections", "1");
    let _inside = setup.admission.enter_user("bob", 1).unwrap();
    let told = "client connections exceeded (max_user_client_connections)";
    let bytes = startup(&[("user", "alias"), ("database", "app")]);
    check_told_later(&setup, &bytes, told).await;
    let visit = setup.tcp_beside(async |mut peer| {
        peer.start("eve", "app").await;
        assert_eq!(peer.verdict().await, Ok(()));
    });
    assert_eq!(visit.await.client().login_user, "eve");
}

#[tokio::test]
async fn a_forced_user_is_not_who_proves() {
    let entry = Database {
        user: Some("bob".to_owned()),
        password: Some("bob's".into()),
        ..Database::new("app")
    };
    let setup = Setup::asking("plain").database(entry);
    let (told, visit) = log_in(&setup, "eve", PASSWORD).await;
    assert_eq!(told, Ok(()));
    let client = visit.client();
    let names = (&client.login_user[..], &client.server_user[..]);
    assert_eq!(names, ("eve", "bob"));
    assert_eq!(client.credentials.name(), b"bob");
}

#[tokio::test]
async fn nobody_is_asked_about_an_unknown_database_or_a_name_that_is_no_text() {
    let setup = Setup::asking("plain");
    let visit = setup.tcp(async |mut peer| {
        let told = peer.log_in("eve", "gone", PASSWORD).await;
        assert_eq!(told, Err("password authentication failed".to_owned()));
    });
    visit.await;
    let visit = setup.tcp(async |mut peer| {
        let mut bytes = Vec::new();
        let parameters = [(&b"user"[..], &b"\xff"[..]), (b"database", b"app")];
        build::startup(&mut bytes, parameters.into_iter());
        peer.send(&bytes).await;
        assert_eq!(peer.message().await, (b'R', vec![0, 0, 0, 3]));
    });
    visit.await;
    assert!(setup.asked().is_empty());
}

#[tokio::test]
async fn what_the_pool_says_is_told() {
    let mut setup = Setup::asking("plain");
    setup.directory.refusal = Some("query_wait_timeout");
    let bytes = startup(&[("user", "eve"), ("database", "app")]);
    check_told_later(&setup, &bytes, "query_wait_timeout").await;
}

#[tokio::test]
async fn nowhere_to_ask() {
    let bytes = startup(&[("user", "eve"), ("database", "app")]);
    let setup = Setup::asking("plain").set("auth_dbname", "gone");
    check_told_later(&setup, &bytes, "bouncer config error").await;
    let setup = Setup::asking("plain").set("auth_dbname", "other");
    setup.admission.set_disabled("other", true);
    let told = "authentication database \"other\" is disabled";
    check_told_later(&setup, &bytes, told).await;
    assert!(setup.asked().is_empty());
}

#[tokio::test]
async fn who_leaves_before_the_answer_is_noticed() {
    let mut setup = Setup::asking("plain");
    setup.directory.silent = true;
    let visit = setup.tcp(async |mut peer| peer.start("eve", "app").await);
    let visit = visit.await;
    assert!(visit.arrival.is_none());
    let gone = "LOG closing because: client unexpected eof (age=0s)";
    assert_eq!(visit.lines(), [gone]);
    assert_eq!(setup.admission.database_clients("app"), 0);
}

#[tokio::test]
async fn what_is_sent_before_the_answer_is_kept() {
    let setup = Setup::asking("plain");
    let visit = setup.tcp(async |mut peer| {
        let password = password_message(b"pencil\0");
        let start = startup(&[("user", "eve"), ("database", "app")]);
        peer.send(&[start, password].concat()).await;
        assert_eq!(peer.message().await, (b'R', vec![0, 0, 0, 3]));
    });
    assert_eq!(visit.await.client().login_user, "eve");
}

#[tokio::test]
async fn an_answer_that_takes_too_long() {
    let mut setup = Setup::asking("plain").set("client_login_timeout", "0.05");
    setup.directory.silent = true;
    let bytes = startup(&[("user", "eve"), ("database", "app")]);
    check_told_later(&setup, &bytes, "client_login_timeout (server down)").await;
}

// The console.

#[tokio::test]
async fn the_console_asks_the_database_that_is_set_for_it() {
    let setup = Setup::asking("plain").set("admin_users", "eve");
    let bytes = startup(&[("user", "eve"), ("database", "pgbouncer")]);
    check_told_later(&setup, &bytes, "bouncer config error").await;
    assert!(setup.asked().is_empty());

    let setup = setup.set("auth_dbname", "other");
    let mut told = None;
    let visit = setup.tcp(async |mut peer| {
        told = Some(peer.log_in("eve", "pgbouncer", PASSWORD).await);
    });
    let console = visit.await.console();
    assert_eq!(
        (&console.user[..], console.role),
        ("eve", ConsoleRole::Admin)
    );
    let asked = setup.directory.asked.lock();
    assert_eq!(asked[0].question.database, "other");
    assert_eq!(asked[0].client.database, "pgbouncer");
}

#[tokio::test]
async fn rights_on_the_console_go_with_the_name_that_is_proved() {
    let setup = Setup::asking("plain").set("auth_dbname", "other");
    let setup = setup.set("admin_users", "root").set("stats_users", "bob");
    let setup = setup
        .finds("root", "bob", "pencil")
        .finds("bob", "eve", "pencil");
    let visit = setup.tcp(async |mut peer| {
        assert_eq!(peer.log_in("root", "pgbouncer", PASSWORD).await, Ok(()));
    });
    let console = visit.await.console();
    assert_eq!(
        (&console.user[..], console.role),
        ("bob", ConsoleRole::Stats)
    );
    let bytes = startup(&[("user", "bob"), ("database", "pgbouncer")]);
    check_told_later(&setup, &bytes, "not allowed").await;
}
