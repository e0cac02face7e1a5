//! TLS on both sides: modes, certificates, reload, and what must not come before the handshake.

use std::io;
use std::sync::{Arc, Once};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::*;
use crate::fixture::tls::{Authority, Pair};
use crate::fixture::*;
use crate::proto::{Conn, msg};

/// A client's configuration that trusts an authority, perhaps with a certificate of its own and ALPN.
pub(super) fn client_config(
    trusted: &Authority,
    own: Option<&Pair>,
    alpn: &[&str],
) -> Arc<ClientConfig> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(trusted.ca_pem().as_bytes()).expect("our own PEM"))
        .expect("a certificate");
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let cert =
                CertificateDer::from_pem_slice(pair.cert_pem.as_bytes()).expect("our own PEM");
            let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).expect("our own PEM");
            builder
                .with_client_auth_cert(vec![cert], key)
                .expect("they belong together")
        }
    };
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// Asks for TLS and does the handshake.
pub(super) async fn over_tls(pooler: &Pooler, config: Arc<ClientConfig>) -> io::Result<Conn> {
    let mut conn = pooler.raw().await;
    conn.send(&msg::ssl_request()).await;
    assert_eq!(conn.byte().await, Some(b'S'));
    conn.into_tls(config).await
}

/// A configuration with a server certificate for clients, of this authority.
async fn setup_tls(authority: &Authority, mode: &str) -> Ini {
    let (_, _, mut ini) = setup().await;
    use_tls(&mut ini, authority, mode);
    ini
}

pub(super) fn use_tls(ini: &mut Ini, authority: &Authority, mode: &str) {
    let pair = authority.server_cert();
    let (cert, key, ca) = (
        ini.file("c.crt", &pair.cert_pem),
        ini.file("c.key", &pair.key_pem),
        ini.file("ca.crt", authority.ca_pem()),
    );
    ini.set("client_tls_cert_file", cert)
        .set("client_tls_key_file", key)
        .set("client_tls_ca_file", ca);
    ini.set("client_tls_sslmode", mode);
}

#[tokio::test]
async fn without_tls_the_answer_is_no() {
    bounded(60, async {
        let (_, _, ini) = setup().await;
        let pooler = ini.start().await;
        let mut conn = pooler.raw().await;
        for request in [msg::ssl_request(), msg::gss_request(), msg::ssl_request()] {
            conn.send(&request).await;
            assert_eq!(conn.byte().await, Some(b'N'));
        }
        conn.log_in("u_trust", "p", None).await;
        assert_eq!(conn.ok("SELECT 1").await.value(), "1");
    })
    .await;
}

#[tokio::test]
async fn prefer_and_require() {
    bounded(60, async {
        let ca = Authority::new("clients' authority");
        for mode in ["allow", "prefer", "require"] {
            let pooler = setup_tls(&ca, mode).await.start().await;
            let mut conn = over_tls(&pooler, client_config(&ca, None, &[]))
                .await
                .expect("a handshake");
            conn.log_in("u_trust", "p", None).await;
            assert_eq!(
                conn.ok("SELECT repeat('x', 300000)").await.value().len(),
                300_000
            );
            let clients = pooler.show("CLIENTS").await;
            let row = clients.find(&[("user", "u_trust")]).expect("it is listed");
            assert!(
                clients.get(row, "tls").starts_with("TLSv1.3/"),
                "{}",
                clients.get(row, "tls")
            );
            assert!(
                pooler.log().contains("db=p user=u_trust tls=TLSv1.3/"),
                "{}",
                pooler.log()
            );
            conn.close().await;
            let plain = Conn::try_login(pooler.port, "u_trust", "p", None).await;
            match mode {
                "require" => assert_eq!(
                    plain.err().expect("refused").error_text(),
                    "FATAL 08P01 SSL required"
                ),
                _ => drop(plain.expect("allowed")),
            }
            let mut unix = Conn::unix(&pooler.socket()).await;
            unix.send(&msg::ssl_request()).await;
            assert_eq!(unix.byte().await, Some(b'N'));
            unix.log_in("u_trust", "p", None).await;
        }
    })
    .await;
}

#[tokio::test]
async fn client_certificates() {
    bounded(60, async {
        let (ca, stranger) = (
            Authority::new("clients' authority"),
            Authority::new("a stranger"),
        );
        let good = ca.client_cert("u_trust");
        let bad = stranger.client_cert("u_trust");
        for mode in ["verify-ca", "verify-full"] {
            let pooler = setup_tls(&ca, mode).await.start().await;
            let mut conn = over_tls(&pooler, client_config(&ca, Some(&good), &[]))
                .await
                .expect("a handshake");
            conn.log_in("u_trust", "p", None).await;
            for own in [None, Some(&bad)] {
                // In TLS 1.3 the refusal may come only after the client believes that it is done.
                if let Ok(mut conn) = over_tls(&pooler, client_config(&ca, own, &[])).await {
                    conn.send(&msg::startup(&[("user", "u_trust"), ("database", "p")]))
                        .await;
                    assert_eq!(
                        conn.until_closed().await,
                        vec![],
                        "{mode}: no word to a client without a good certificate"
                    );
                }
            }
            pooler.wait_log("TLS handshake error").await;
        }
    })
    .await;
}

#[tokio::test]
async fn direct_tls_needs_its_protocol_name() {
    bounded(60, async {
        let ca = Authority::new("clients' authority");
        let pooler = setup_tls(&ca, "require").await.start().await;
        let mut conn = pooler
            .raw()
            .await
            .into_tls(client_config(&ca, None, &["postgresql"]))
            .await
            .expect("a handshake");
        conn.log_in("u_trust", "p", None).await;
        assert_eq!(conn.ok("SELECT 1").await.value(), "1");
        let wrong = pooler
            .raw()
            .await
            .into_tls(client_config(&ca, None, &["http/1.1"]))
            .await;
        assert!(wrong.is_err(), "another protocol is refused");
        if like_pgbouncer() {
            return; // it waits for the rest of a very long packet
        }
        let off = setup().await.2.start().await;
        assert!(
            off.raw()
                .await
                .into_tls(client_config(&ca, None, &["postgresql"]))
                .await
                .is_err()
        );
        assert_eq!(
            off.client("u_trust", "p")
                .await
                .ok("SELECT 1")
                .await
                .value(),
            "1"
        );
    })
    .await;
}

/// CVE-2021-3935: what comes in clear before the handshake must not count as having come inside.
#[tokio::test]
async fn bytes_before_the_handshake_are_refused() {
    bounded(60, async {
        let ca = Authority::new("clients' authority");
        let pooler = setup_tls(&ca, "prefer").await.start().await;
        let startup = msg::startup(&[("user", "u_trust"), ("database", "p")]);
        let mut ssl = pooler.raw().await;
        ssl.send(&[msg::ssl_request(), startup.clone()].concat())
            .await;
        assert_eq!(
            ssl.fatal().await,
            "FATAL 08P01 received unencrypted data after SSL request"
        );
        let mut gss = pooler.raw().await;
        gss.send(&[msg::gss_request(), startup].concat()).await;
        assert_eq!(
            gss.fatal().await,
            "FATAL 08P01 received unencrypted data after GSSAPI encryption request"
        );
    })
    .await;
}

#[tokio::test]
async fn a_cancel_needs_no_tls_but_may_have_it() {
    bounded(60, async {
        let ca = Authority::new("clients' authority");
        let pooler = setup_tls(&ca, "require").await.start().await;
        let mut target = over_tls(&pooler, client_config(&ca, None, &[]))
            .await
            .expect("a handshake");
        target.log_in("u_trust", "p", None).await;
        let key = target.login.key.clone();
        for tls in [false, true] {
            target.send(&msg::query("SELECT pg_sleep(60)")).await;
            let busy = || async { pooler.pool("p", "u_trust").await.unwrap().servers_active == 1 };
            wait_until("the query to run", busy).await;
            sleep_ms(100).await;
            let mut conn = match tls {
                false => pooler.raw().await,
                true => over_tls(&pooler, client_config(&ca, None, &[]))
                    .await
                    .expect("a handshake"),
            };
            conn.send(&msg::cancel(&key)).await;
            let error = target.until_ready().await.error_text().expect("cancelled");
            assert!(error.starts_with("ERROR 57014"), "{error}");
        }
    })
    .await;
}

#[tokio::test]
async fn reload_takes_new_certificates_and_keeps_old_ones_if_they_are_bad() {
    bounded(60, async {
        let (old, new) = (
            Authority::new("old authority"),
            Authority::new("new authority"),
        );
        let ini = setup_tls(&old, "require").await;
        let pooler = ini.start().await;
        let mut before = over_tls(&pooler, client_config(&old, None, &[]))
            .await
            .expect("a handshake");
        before.log_in("u_trust", "p", None).await;
        let pair = new.server_cert();
        ini.file("c.crt", &pair.cert_pem);
        ini.file("c.key", &pair.key_pem);
        assert_eq!(pooler.console("RELOAD").await.error_text(), None);
        assert!(
            over_tls(&pooler, client_config(&old, None, &[]))
                .await
                .is_err(),
            "the old certificate is gone"
        );
        over_tls(&pooler, client_config(&new, None, &[]))
            .await
            .expect("the new one is there");
        assert_eq!(
            before.ok("SELECT 'still connected'").await.value(),
            "still connected"
        );
        ini.file("c.crt", "nonsense");
        pooler.console("RELOAD").await;
        over_tls(&pooler, client_config(&new, None, &[]))
            .await
            .expect("the last good one is kept");
    })
    .await;
}

#[tokio::test]
async fn towards_servers() {
    bounded(90, async {
        let (cluster, db, mut ini) = setup().await;
        let ca = ini.file("server-ca.crt", Authority::shared().ca_pem());
        let stranger = ini.file("stranger.crt", Authority::new("a stranger").ca_pem());
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        for (mode, ca_file, expected) in [
            ("disable", &ca, "f"),
            ("prefer", &ca, "t"),
            ("require", &stranger, "t"),
            ("verify-ca", &ca, "t"),
            ("verify-full", &ca, "t"),
        ] {
            let pooler = ini
                .set("server_tls_sslmode", mode)
                .set("server_tls_ca_file", ca_file)
                .start()
                .await;
            let mut client = pooler.client("u_trust", "p").await;
            assert_eq!(client.ok(sql).await.value(), expected, "{mode}");
            if expected == "t" {
                let servers = pooler.show("SERVERS").await;
                let row = servers.find(&[("database", "p")]).expect("it is listed");
                assert!(servers.get(row, "tls").starts_with("TLSv1."), "{mode}");
            }
        }
        for mode in ["verify-ca", "verify-full"] {
            ini.set("server_tls_sslmode", mode)
                .set("server_tls_ca_file", &stranger)
                .set("query_wait_timeout", 2);
            let pooler = ini.start().await;
            let refused = Conn::try_login(pooler.port, "u_trust", "p", None).await;
            assert!(
                refused.is_err(),
                "{mode}: a server with a stranger's certificate"
            );
            assert_eq!(cluster.sessions(&db).await, 0);
        }
    })
    .await;
}

#[tokio::test]
async fn verify_full_reads_the_name() {
    bounded(90, async {
        let cluster = Cluster::own();
        let pair = Authority::shared().server_cert_for("elsewhere.example");
        cluster.stop(nix::sys::signal::Signal::SIGQUIT);
        cluster.replace_certificate(&pair);
        cluster.start();
        let mut ini = Ini::with_database(&cluster, "postgres");
        let ca = ini.file("server-ca.crt", Authority::shared().ca_pem());
        ini.set("server_tls_ca_file", ca)
            .set("query_wait_timeout", 2);
        for (mode, accepted) in [("verify-ca", true), ("verify-full", false)] {
            let pooler = ini.set("server_tls_sslmode", mode).start().await;
            let login = Conn::try_login(pooler.port, "u_trust", "p", None).await;
            assert_eq!(login.is_ok(), accepted, "{mode}");
        }
    })
    .await;
}

#[tokio::test]
async fn with_a_certificate_towards_servers() {
    bounded(60, async {
        let (cluster, db, mut ini) = setup().await;
        let pair = Authority::shared().client_cert("u_cert");
        let (cert, key, ca) = (
            ini.file("s.crt", &pair.cert_pem),
            ini.file("s.key", &pair.key_pem),
            ini.file("sca.crt", Authority::shared().ca_pem()),
        );
        ini.set("server_tls_sslmode", "verify-full")
            .set("server_tls_ca_file", ca);
        ini.set("server_tls_cert_file", cert)
            .set("server_tls_key_file", key);
        ini.database(
            "p",
            format!("{} dbname={db} user=u_cert", cluster.address()),
        )
        .secret("u_cert", "unused");
        let pooler = ini.start().await;
        let mut client = pooler.client("u_trust", "p").await;
        assert_eq!(client.ok("SELECT current_user").await.value(), "u_cert");
    })
    .await;
}
