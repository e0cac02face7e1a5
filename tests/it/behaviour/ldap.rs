//! `auth_type=ldap` with a real LDAP server, and with some that are none.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::*;
use crate::fixture::directory::{BASE, Directory};
use crate::fixture::tls::Authority;
use crate::fixture::*;
use crate::proto::{Conn, backend, msg};

const FAILED: &str = "FATAL 08P01 LDAP authentication failed";
const EMPTY: &str = "FATAL 08P01 empty password returned by client";

/// A configuration in which LDAP alone says who may come in: there is no `auth_file`. Database `f` forces a user, so that any name
/// that comes in works there.
async fn asking(options: &str) -> Ini {
    let (cluster, db, mut ini) = setup().await;
    let address = cluster.address();
    ini.database("f", format!("{address} dbname={db} user=u_trust"));
    ini.set("auth_type", "ldap")
        .set("auth_ldap_options", options)
        .unset("auth_file");
    ini
}

fn simple(directory: &Directory) -> String {
    let address = directory.address();
    format!("{address} ldapprefix=\"uid=\" ldapsuffix=\",{BASE}\"")
}

fn search(directory: &Directory, more: &str) -> String {
    format!("{} ldapbasedn=\"{BASE}\" {more}", directory.address())
}

/// The error of a login to a database, or "ok".
async fn outcome_in(pooler: &Pooler, database: &str, user: &str, password: &str) -> String {
    match Conn::try_login(pooler.port, user, database, Some(password)).await {
        Ok(mut conn) => {
            conn.ok("SELECT 1").await;
            "ok".into()
        }
        Err(error) => error.error_text(),
    }
}

async fn outcome(pooler: &Pooler, user: &str, password: &str) -> String {
    outcome_in(pooler, "f", user, password).await
}

#[tokio::test]
async fn simple_bind() {
    bounded(90, async {
        let directory = Directory::start();
        let pooler = asking(&simple(&directory)).await.start().await;
        for user in ["ann", "u_scram", "twin"] {
            let password = format!("{user}_pw");
            assert_eq!(outcome(&pooler, user, &password).await, "ok", "{user}");
            assert_eq!(outcome(&pooler, user, "wrong").await, FAILED, "{user}");
            assert_eq!(outcome(&pooler, user, "").await, EMPTY, "{user}");
        }
        assert_eq!(outcome(&pooler, "stranger", "x").await, FAILED);
        // The password that LDAP has accepted logs in to PostgreSQL, with SCRAM and in clear.
        for user in ["u_scram", "u_plain"] {
            let password = format!("{user}_pw");
            let mut client = Conn::login(pooler.port, user, "p", Some(&password)).await;
            assert_eq!(client.ok("SELECT current_user").await.value(), user);
        }
        let no_database = outcome_in(&pooler, "none", "ann", "ann_pw").await;
        assert_eq!(no_database, "FATAL 08P01 no such database: none");
        assert_eq!(outcome_in(&pooler, "none", "ann", "wrong").await, FAILED);
        pooler
            .wait_log("LDAP login failed for user uid=stranger,dc=example,dc=net on server 127.0.0.1: Invalid credentials")
            .await;
        assert!(!pooler.log().contains("wrong"));
    })
    .await;
}

#[tokio::test]
async fn search_and_bind() {
    bounded(90, async {
        let directory = Directory::start();
        let pooler = asking(&search(&directory, "")).await.start().await;
        assert_eq!(outcome(&pooler, "ann", "ann_pw").await, "ok");
        assert_eq!(outcome(&pooler, "deep", "deep_pw").await, "ok");
        assert_eq!(outcome(&pooler, "com,ma", "comma_pw").await, "ok");
        assert_eq!(outcome(&pooler, "ann", "deep_pw").await, FAILED);
        assert_eq!(outcome(&pooler, "ann", "").await, EMPTY);
        assert_eq!(outcome(&pooler, "stranger", "x").await, FAILED);
        pooler.wait_log("returned no entries").await;
        assert_eq!(outcome(&pooler, "twin", "twin_pw").await, FAILED);
        pooler.wait_log("LDAP user is not unique").await;

        let by_root = format!("ldapbinddn=\"cn=root,{BASE}\" ldapbindpasswd=root_pw");
        for (options, expected) in [
            (search(&directory, &by_root), "ok"),
            (
                search(&directory, &by_root.replace("root_pw", "hush")),
                FAILED,
            ),
            (search(&directory, "ldapsearchattribute=cn"), "ok"),
            (search(&directory, "ldapsearchattribute=mail"), FAILED),
            (
                search(
                    &directory,
                    "ldapsearchfilter=(&(objectClass=inetOrgPerson)(uid=$username))",
                ),
                "ok",
            ),
            (
                search(
                    &directory,
                    "ldapsearchfilter=(&(objectClass=account)(uid=$username))",
                ),
                FAILED,
            ),
            (
                format!(
                    "ldapurl=\"ldap://127.0.0.1:{}/{BASE}?uid?sub\"",
                    directory.port
                ),
                "ok",
            ),
            (
                format!(
                    "ldapurl=\"ldap://127.0.0.1:{}/{BASE}?uid?base\"",
                    directory.port
                ),
                FAILED,
            ),
            (
                format!(
                    "ldapurl=\"ldap://127.0.0.1:{}/{BASE}??sub?(cn=$username)\"",
                    directory.port
                ),
                "ok",
            ),
        ] {
            let pooler = asking(&options).await.start().await;
            assert_eq!(
                outcome(&pooler, "ann", "ann_pw").await,
                expected,
                "{options}"
            );
            assert!(!pooler.log().contains("hush"));
        }
    })
    .await;
}

/// Reloads as the administrator, whom LDAP knows too; gives the error.
async fn reload(pooler: &Pooler) -> Option<String> {
    pooler.console("RELOAD").await.error_text()
}

#[tokio::test]
async fn no_name_becomes_more_than_a_name() {
    bounded(90, async {
        let directory = Directory::start();
        let mut ini = asking(&simple(&directory)).await;
        let pooler = ini.start().await;
        assert_eq!(outcome(&pooler, "com,ma", "comma_pw").await, "ok");
        for (name, password) in [
            ("deep,ou=guests", "deep_pw"),
            ("ann,dc=example,dc=net\0", "ann_pw"),
            ("ann+cn=ann", "ann_pw"),
            ("ann\\", "ann_pw"),
            ("ann\n", "ann_pw"),
            ("", "ann_pw"),
        ] {
            let name = name.trim_end_matches('\0');
            let outcome = outcome(&pooler, name, password).await;
            assert!(
                outcome == FAILED || name.is_empty() && outcome != "ok",
                "{name:?} {outcome}"
            );
        }
        ini.set("auth_ldap_options", search(&directory, "")).write();
        assert_eq!(reload(&pooler).await, None);
        for name in [
            "*",
            "an*",
            "ann)(uid=*",
            "*)(uid=ann",
            "\\61nn",
            "a/b",
            "ann\u{7f}",
        ] {
            assert_eq!(outcome(&pooler, name, "ann_pw").await, FAILED, "{name:?}");
        }
        // Never asked about, so nobody can have taken them for something else.
        assert!(!directory.log().contains("(uid=*)"), "{}", directory.log());
    })
    .await;
}

#[tokio::test]
async fn tls() {
    bounded(90, async {
        let directory = Directory::start();
        let ca = Authority::shared().ca_pem();
        let ldaps = format!(
            "ldapserver=localhost ldapscheme=ldaps ldapport={} ldapprefix=\"uid=\" ldapsuffix=\",{BASE}\"",
            directory.tls_port
        );
        let start_tls = format!("{} ldaptls=1", simple(&directory));
        let url = format!("ldapurl=\"ldaps://127.0.0.1:{}/{BASE}?uid?sub\"", directory.tls_port);
        let mut ini = asking(&ldaps).await;
        let file = ini.file("ldap-ca.crt", ca);
        ini.variable("LDAPTLS_CACERT", &file);
        let pooler = ini.start().await;
        for options in [ldaps, start_tls, url] {
            ini.set("auth_ldap_options", &options).write();
            assert_eq!(reload(&pooler).await, None, "{options}");
            assert_eq!(outcome(&pooler, "ann", "ann_pw").await, "ok", "{options}");
            assert_eq!(outcome(&pooler, "ann", "wrong").await, FAILED, "{options}");
        }
        let log = directory.log();
        assert!(log.contains("TLS established"), "{log}");
    })
    .await;
}

#[tokio::test]
async fn a_certificate_of_a_stranger_or_for_another_name_is_not_trusted() {
    bounded(90, async {
        let mut stranger = Directory::with_certificate(&Authority::new("stranger").server_cert());
        let mut misnamed =
            Directory::with_certificate(&Authority::shared().server_cert_for("elsewhere.example"));
        for directory in [&mut stranger, &mut misnamed] {
            let start_tls = format!("{} ldaptls=1", simple(directory));
            let ldaps = format!(
                "ldapurl=\"ldaps://localhost:{}/{BASE}?uid?sub\"",
                directory.tls_port
            );
            for options in [start_tls, ldaps] {
                let mut ini = asking(&options).await;
                let file = ini.file("ldap-ca.crt", Authority::shared().ca_pem());
                ini.variable("LDAPTLS_CACERT", &file);
                let pooler = ini.start().await;
                assert_eq!(outcome(&pooler, "ann", "ann_pw").await, FAILED, "{options}");
                pooler.wait_log("certificate").await;
            }
            // The password has not left us.
            assert!(!directory.log().contains("BIND"), "{}", directory.log());
            directory.stop();
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_down_lets_nobody_in_and_the_next_one_is_asked() {
    bounded(90, async {
        let mut directory = Directory::start();
        let both = simple(&directory).replace("127.0.0.1", "\"127.0.0.2 127.0.0.1\"");
        let pooler = asking(&both).await.start().await;
        assert_eq!(outcome(&pooler, "ann", "ann_pw").await, "ok");
        assert_eq!(outcome(&pooler, "ann", "wrong").await, FAILED);
        pooler
            .wait_log("LDAP server \"127.0.0.2\" is passed over")
            .await;
        directory.stop();
        assert_eq!(outcome(&pooler, "ann", "ann_pw").await, FAILED);
        pooler
            .wait_log("could not ask LDAP server \"127.0.0.1\"")
            .await;
    })
    .await;
}

/// One LDAP message: those of a bind are short.
async fn request(peer: &mut Peer) -> Option<Vec<u8>> {
    let head = peer.bytes(2).await?;
    let body = peer.bytes(usize::from(head[1])).await?;
    Some([head, body].concat())
}

/// A result, as reply of this kind to the request with this number.
fn result(id: u8, kind: u8, code: u8) -> Vec<u8> {
    vec![0x30, 12, 2, 1, id, kind, 7, 10, 1, code, 4, 0, 4, 0]
}

#[tokio::test]
async fn only_the_reply_to_the_bind_lets_in() {
    bounded(90, async {
        // A sequence in a sequence in a sequence: 16 KiB of them.
        let nested = (0..4096u32).fold(vec![], |inner: Vec<u8>, _| {
            let length = (inner.len() as u16).to_be_bytes();
            [&[0x30, 0x82, length[0], length[1]], &inner[..]].concat()
        });
        let replies = vec![
            result(1, 0x61, 0), // the honest one, first
            result(2, 0x61, 0),
            result(0, 0x61, 0),
            result(1, 0x78, 0),
            result(1, 0x65, 0),
            result(1, 0x79, 0),
            result(1, 0x61, 14),
            result(1, 0x61, 10),
            vec![0x30, 5, 2, 1, 1, 0x61, 0],
            vec![0x30, 8, 2, 1, 1, 0x61, 3, 10, 1, 0],
            vec![0x30, 0x80, 0, 0],
            vec![0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 2, 1, 1],
            nested,
            b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
            vec![],
        ];
        let count = replies.len();
        let server = Script::start(move |mut peer| {
            let reply = replies[peer.number % replies.len()].clone();
            async move {
                request(&mut peer).await?;
                peer.send_slowly(&reply).await
            }
        })
        .await;
        let options = format!("ldapserver=127.0.0.1 ldapport={} ldapprefix=x", server.port);
        let pooler = asking(&options).await.start().await;
        assert_eq!(outcome(&pooler, "ann", "ann_pw").await, "ok");
        for number in 1..count {
            assert_eq!(
                outcome(&pooler, "ann", "ann_pw").await,
                FAILED,
                "reply {number}"
            );
        }
        assert_eq!(outcome(&pooler, "ann", "ann_pw").await, "ok");
        assert_eq!(server.connections(), count + 1);
    })
    .await;
}

#[tokio::test]
async fn an_entry_without_a_name_is_not_bound() {
    bounded(60, async {
        let binds = Arc::new(Mutex::new(0));
        let counted = binds.clone();
        let server = Script::start(move |mut peer| {
            let binds = counted.clone();
            async move {
                request(&mut peer).await?;
                peer.send(result(1, 0x61, 0)).await?;
                request(&mut peer).await?;
                // An entry with the empty DN, and the end of the search.
                peer.send([0x30, 9, 2, 1, 2, 0x64, 4, 4, 0, 0x30, 0])
                    .await?;
                peer.send(result(2, 0x65, 0)).await?;
                request(&mut peer).await?;
                *binds.lock().unwrap() += 1;
                peer.send(result(3, 0x61, 0)).await
            }
        })
        .await;
        let options = format!("ldapserver=127.0.0.1 ldapport={} ldapbasedn=x", server.port);
        let pooler = asking(&options).await.start().await;
        assert_eq!(outcome(&pooler, "ann", "ann_pw").await, FAILED);
        assert_eq!(*binds.lock().unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn plaintext_behind_the_answer_to_start_tls_is_refused() {
    bounded(60, async {
        let server = Script::start(move |mut peer| async move {
            request(&mut peer).await?;
            // What a man in the middle would like to be read as the reply to the bind inside of TLS.
            peer.send([result(1, 0x78, 0), result(2, 0x61, 0)].concat())
                .await?;
            peer.hang().await
        })
        .await;
        let options = format!(
            "ldapserver=127.0.0.1 ldapport={} ldaptls=1 ldapprefix=x",
            server.port
        );
        let mut ini = asking(&options).await;
        let file = ini.file("ldap-ca.crt", Authority::shared().ca_pem());
        let pooler = ini.variable("LDAPTLS_CACERT", &file).start().await;
        assert_eq!(outcome(&pooler, "ann", "ann_pw").await, FAILED);
        pooler.wait_log("unexpected or malformed answer").await;
    })
    .await;
}

#[tokio::test]
async fn servers_that_hang_stop_nobody_else() {
    bounded(90, async {
        // The first connection is honest, so that somebody is in.
        let server = Script::start(move |mut peer| async move {
            request(&mut peer).await?;
            if peer.number > 0 {
                peer.hang().await?;
            }
            peer.send(result(1, 0x61, 0)).await
        })
        .await;
        let options = format!("ldapserver=127.0.0.1 ldapport={} ldapprefix=x", server.port);
        let mut ini = asking(&options).await;
        let pooler = ini.set("client_login_timeout", 3).start().await;
        let mut inside = Conn::login(pooler.port, "ann", "f", Some("ann_pw")).await;
        let began = Instant::now();
        // More than may ask at once: the rest stand in line.
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..80 {
            let port = pooler.port;
            waiting.spawn(async move {
                let ended = Conn::try_login(port, "ann", "f", Some("ann_pw")).await;
                ended.err().expect("nobody gets in").error_text()
            });
        }
        wait_until("64 questions", || async { server.connections() == 65 }).await;
        inside.ok("SELECT 1").await;
        while let Some(ended) = waiting.join_next().await {
            assert_eq!(ended.unwrap(), "FATAL 08P01 client_login_timeout");
            inside.ok("SELECT 1").await;
        }
        assert!(began.elapsed() < Duration::from_secs(60));
    })
    .await;
}

#[tokio::test]
async fn who_hangs_up_frees_the_place() {
    bounded(60, async {
        let server = Script::start(move |mut peer| async move {
            request(&mut peer).await?;
            // Ends when the pooler closes the connection.
            peer.bytes(1).await.map(drop)
        })
        .await;
        let options = format!("ldapserver=127.0.0.1 ldapport={} ldapprefix=x", server.port);
        let pooler = asking(&options).await.start().await;
        let mut client = pooler.raw().await;
        client
            .send(&msg::startup(&[("user", "ann"), ("database", "f")]))
            .await;
        assert!(client.frame().await.is(b'R'));
        client.send(&msg::password("ann_pw")).await;
        wait_until("the question", || async { server.connections() == 1 }).await;
        drop(client);
        pooler
            .wait_log("closing because: client unexpected eof")
            .await;
    })
    .await;
}

/// A PostgreSQL that asks for passwords in clear, and notes them.
async fn noting(passwords: Arc<Mutex<Vec<String>>>) -> Script {
    Script::start(move |mut peer| {
        let passwords = passwords.clone();
        async move {
            peer.startup().await?;
            peer.send(msg::typed(b'R', &3u32.to_be_bytes())).await?;
            let password = peer.message().await?.texts()[0].clone();
            passwords.lock().unwrap().push(password);
            peer.send(backend::welcome()).await?;
            peer.echo().await
        }
    })
    .await
}

#[tokio::test]
async fn the_newest_password_logs_in_to_servers() {
    bounded(90, async {
        let directory = Directory::start();
        let passwords = Arc::new(Mutex::new(vec![]));
        let server = noting(passwords.clone()).await;
        let (_, _, mut ini) = setup().await;
        ini.database("p", server.entry())
            .set("auth_type", "ldap")
            .set("auth_ldap_options", simple(&directory));
        // What the file says about this user is not asked for, and not used.
        let pooler = ini.secret("ann", "of_the_file").start().await;
        assert_eq!(outcome_in(&pooler, "p", "ann", "of_the_file").await, FAILED);
        assert_eq!(outcome_in(&pooler, "p", "ann", "ann_pw").await, "ok");
        assert_eq!(reload(&pooler).await, None);
        directory.set_password("ann", "newer");
        assert_eq!(outcome_in(&pooler, "p", "ann", "ann_pw").await, FAILED);
        pooler.console("RECONNECT p").await;
        assert_eq!(outcome_in(&pooler, "p", "ann", "newer").await, "ok");
        assert_eq!(*passwords.lock().unwrap(), ["ann_pw", "newer"]);
    })
    .await;
}

#[tokio::test]
async fn options_with_a_mistake_are_refused_when_they_are_read() {
    bounded(60, async {
        let directory = Directory::start();
        let mut ini = asking(&simple(&directory)).await;
        let pooler = ini.start().await;
        for (options, expected) in [
            ("", "auth_type=ldap requires auth_ldap_options"),
            ("ldapserver=h", "requires argument"),
            ("ldapbasedn=x", "LDAP server not specified"),
            (
                "ldapserver=h ldapbasedn=x ldapbindpasswd=hush,hush",
                "what follows is no option",
            ),
        ] {
            match options {
                "" => ini.unset("auth_ldap_options").write(),
                _ => ini.set("auth_ldap_options", options).write(),
            }
            assert!(reload(&pooler).await.is_some(), "{options}");
            pooler.wait_log(expected).await;
            assert_eq!(outcome(&pooler, "ann", "ann_pw").await, "ok", "{options}");
        }
        assert!(!pooler.log().contains("hush"));
    })
    .await;
}

#[tokio::test]
async fn show_config_keeps_the_bind_password() {
    bounded(60, async {
        let directory = Directory::start();
        let options = format!("ldapbinddn=\"cn=root,{BASE}\" ldapbindpasswd=root_pw");
        let pooler = asking(&search(&directory, &options)).await.start().await;
        let config = pooler.show("CONFIG").await;
        let shown = config.value("key", "auth_ldap_options", "value");
        assert!(shown.ends_with("ldapbindpasswd=..."), "{shown}");
        assert!(!format!("{config:?}").contains("root_pw"));
    })
    .await;
}

#[tokio::test]
async fn a_database_with_an_auth_user_cannot_be_used() {
    bounded(60, async {
        let directory = Directory::start();
        let (cluster, db, mut ini) = setup().await;
        let address = cluster.address();
        ini.database(
            "f",
            format!("{address} dbname={db} user=u_trust auth_user=u_other"),
        )
        .set("auth_type", "ldap")
        .set("auth_ldap_options", simple(&directory));
        let pooler = ini.start().await;
        assert_eq!(
            outcome(&pooler, "ann", "ann_pw").await,
            "FATAL 08P01 bouncer config error"
        );
        pooler
            .wait_log("LDAP can't be used together with database authentication")
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_line_of_an_hba_file() {
    bounded(60, async {
        let directory = Directory::start();
        let mut ini = asking("").await;
        let line = |options: &str| {
            format!("host f ann all ldap {options} # a directory\nhost all u_plain all password\nlocal all all password\n")
        };
        let rules = ini.file("hba.conf", line(&simple(&directory)));
        let users = ini.dir().join("users.txt");
        ini.unset("auth_ldap_options")
            .set("auth_type", "hba")
            .set("auth_hba_file", &rules)
            .set("auth_file", users.display());
        let pooler = ini.start().await;
        assert_eq!(outcome(&pooler, "ann", "ann_pw").await, "ok");
        assert_eq!(outcome(&pooler, "ann", "wrong").await, FAILED);
        assert_eq!(outcome_in(&pooler, "p", "u_plain", "u_plain_pw").await, "ok");
        ini.file("hba.conf", line("ldapserver=h"));
        assert!(reload(&pooler).await.is_some());
        pooler.wait_log("requires argument").await;
        assert_eq!(outcome(&pooler, "ann", "ann_pw").await, "ok");
    })
    .await;
}
