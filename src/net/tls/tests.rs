//! Handshakes over real sockets: every mode on both sides, against good and bad certificates.

use super::*;
use crate::net::stream::Readable;
use crate::net::testing::{Authority, Identity, Leaf, handshake, run, soon, tcp_pair};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use tokio_rustls::rustls::server::ServerSessionMemoryCache;
use tokio_rustls::rustls::{self, AlertDescription, HandshakeKind};

use SslMode::{Allow, Disable, Prefer, Require, VerifyCa, VerifyFull};

/// The name in the good server certificate.
const HOST: &str = "db.example.com";

/// An authority that everybody trusts here, and what it and others have issued.
struct World {
    trusted: Authority,
    stranger: Authority,
    server: Identity,
    client: Identity,
    client_of_stranger: Identity,
    client_expired: Identity,
}

thread_local! {
    // One per test, because each test has a thread; its files go when that ends.
    static WORLD: Rc<World> = Rc::new(World::new());
}

fn world() -> Rc<World> {
    WORLD.with(Rc::clone)
}

impl World {
    fn new() -> Self {
        let (trusted, stranger) = (Authority::new("trusted"), Authority::new("stranger"));
        let alice = Leaf {
            common_name: "alice",
            ..Leaf::default()
        };
        let old_alice = Leaf {
            common_name: "alice",
            is_expired: true,
            ..Leaf::default()
        };
        World {
            server: trusted.issue(&Leaf {
                dns: &[HOST],
                ..Leaf::default()
            }),
            client: trusted.issue(&alice),
            client_of_stranger: stranger.issue(&alice),
            client_expired: trusted.issue(&old_alice),
            trusted,
            stranger,
        }
    }
}

fn load_client(settings: &TlsSettings) -> ClientTls {
    ClientTls::load(settings).unwrap().unwrap()
}

fn load_server(settings: &TlsSettings) -> ServerTls {
    ServerTls::load(settings).unwrap().unwrap()
}

/// TLS towards clients with the good server certificate.
fn facing_clients(mode: SslMode, trusting: bool) -> ClientTls {
    let mut settings = world().server.settings(mode);
    if trusting {
        settings.ca_file = world().trusted.ca_file();
    }
    load_client(&settings)
}

/// TLS towards servers that checks nothing and presents `identity`, if any.
fn unchecking(identity: Option<&Identity>) -> ServerTls {
    let identity = identity.cloned().unwrap_or_default();
    load_server(&identity.settings(Require))
}

/// Shakes hands and says whether the accepting side was content, and whose certificate it got.
async fn accepts(server: &ClientTls, client: &ServerTls) -> Result<Option<String>, String> {
    let (near, far) = handshake(client, server, HOST).await;
    let far = far.map_err(|e| e.to_string())?;
    let mut near = near.expect("the server was content");
    exchange(&mut near, far).await
}

async fn exchange(near: &mut Stream, mut far: Stream) -> Result<Option<String>, String> {
    let mut buf = [0; 4];
    near.write_all(b"ping").await.unwrap();
    far.read_exact(&mut buf).await.unwrap();
    far.write_all(b"pong").await.unwrap();
    near.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"pong");
    let names = far.peer_certificate().map(CertificateNames::parse);
    Ok(names.map(|n| n.unwrap().common_name.unwrap()))
}

#[test]
fn words_of_modes() {
    for mode in [Disable, Allow, Prefer, Require, VerifyCa, VerifyFull] {
        assert_eq!(mode.to_string().parse(), Ok(mode));
        assert_eq!(mode.requires_tls(), mode >= Require);
    }
    assert_eq!("verify".parse::<SslMode>(), Err(UnknownSslMode));
    assert_eq!(VerifyCa.to_string(), "verify-ca");
}

#[test]
fn clients_certificates_in_every_mode() {
    run(async {
        for mode in [Allow, Prefer, Require, VerifyCa, VerifyFull] {
            let server = facing_clients(mode, true);
            let nobody = accepts(&server, &unchecking(None)).await;
            match mode.verifies() {
                true => assert!(nobody.unwrap_err().contains("no certificates"), "{mode}"),
                false => assert_eq!(nobody, Ok(None), "{mode}"),
            }
            let alice = accepts(&server, &unchecking(Some(&world().client))).await;
            assert_eq!(alice, Ok(Some("alice".into())), "{mode}");
            let stranger = unchecking(Some(&world().client_of_stranger));
            let error = accepts(&server, &stranger).await.unwrap_err();
            assert!(error.contains("UnknownIssuer"), "{mode} {error}");
            let expired = unchecking(Some(&world().client_expired));
            let error = accepts(&server, &expired).await.unwrap_err();
            assert!(error.contains("expired"), "{mode} {error}");
        }
    });
}

#[test]
fn without_ca_file_no_certificate_is_asked_for() {
    run(async {
        for mode in [Allow, Prefer, Require] {
            let server = facing_clients(mode, false);
            let stranger = unchecking(Some(&world().client_of_stranger));
            assert_eq!(accepts(&server, &stranger).await, Ok(None), "{mode}");
        }
    });
}

#[test]
fn a_client_certificate_that_is_its_own_authority_is_accepted() {
    run(async {
        let own = world().trusted.self_signed(&Leaf {
            common_name: "bob",
            ..Leaf::default()
        });
        let mut settings = world().server.settings(VerifyFull);
        settings.ca_file = own.cert_file.clone();
        let server = load_client(&settings);
        let bob = accepts(&server, &unchecking(Some(&own))).await;
        assert_eq!(bob, Ok(Some("bob".into())));
        assert!(
            accepts(&server, &unchecking(Some(&world().client)))
                .await
                .is_err()
        );
    });
}

/// How a server certificate fares: connecting to `host` in modes allow, prefer and require, in verify-ca, in
/// verify-full.
async fn check_server(identity: &Identity, host: &str, expected: [bool; 3]) {
    let server = load_client(&identity.settings(Require));
    for mode in [Allow, Prefer, Require, VerifyCa, VerifyFull] {
        let client = load_server(&TlsSettings {
            mode,
            ca_file: world().trusted.ca_file(),
            ..TlsSettings::default()
        });
        let (near, far) = handshake(&client, &server, host).await;
        let expected = match mode {
            VerifyCa => expected[1],
            VerifyFull => expected[2],
            _ => expected[0],
        };
        assert_eq!(near.is_ok(), expected, "{mode} {host} {near:?}");
        if let Ok(mut near) = near {
            exchange(&mut near, far.unwrap()).await.unwrap();
        }
    }
}

#[test]
fn servers_certificates_in_every_mode() {
    run(async {
        let world = world();
        let trusted = &world.trusted;
        let named = Leaf {
            dns: &[HOST],
            ..Leaf::default()
        };
        check_server(&world.server, HOST, [true, true, true]).await;
        check_server(&world.server, "db.example.org", [true, true, false]).await;
        check_server(&world.server, "127.0.0.1", [true, true, false]).await;
        check_server(&world.server, "not a host name", [true, true, false]).await;
        check_server(&world.stranger.issue(&named), HOST, [true, false, false]).await;
        check_server(&trusted.self_signed(&named), HOST, [true, false, false]).await;
        let expired = trusted.issue(&Leaf {
            is_expired: true,
            dns: &[HOST],
            ..Leaf::default()
        });
        check_server(&expired, HOST, [true, false, false]).await;
        let addressed = trusted.issue(&Leaf {
            ip: "127.0.0.1".parse().ok(),
            ..Leaf::default()
        });
        check_server(&addressed, "127.0.0.1", [true, true, true]).await;
        check_server(&addressed, HOST, [true, true, false]).await;
        let wild = trusted.issue(&Leaf {
            dns: &["*.example.com"],
            ..Leaf::default()
        });
        check_server(&wild, HOST, [true, true, true]).await;
    });
}

#[test]
fn the_common_name_counts_only_without_alternative_names() {
    run(async {
        let plain = world().trusted.issue(&Leaf {
            common_name: HOST,
            ..Leaf::default()
        });
        check_server(&plain, HOST, [true, true, true]).await;
        check_server(&plain, "db2.example.com", [true, true, false]).await;
        let both = world().trusted.issue(&Leaf {
            common_name: HOST,
            dns: &["other.example.com"],
            ..Leaf::default()
        });
        check_server(&both, HOST, [true, true, false]).await;
    });
}

#[test]
fn a_self_signed_server_certificate_can_be_its_own_authority_until_it_expires() {
    run(async {
        for is_expired in [false, true] {
            let own = world().trusted.self_signed(&Leaf {
                dns: &[HOST],
                is_expired,
                ..Leaf::default()
            });
            let server = load_client(&own.settings(Require));
            for mode in [VerifyCa, VerifyFull] {
                let client = load_server(&TlsSettings {
                    mode,
                    ca_file: own.cert_file.clone(),
                    ..TlsSettings::default()
                });
                let (near, _) = handshake(&client, &server, HOST).await;
                assert_eq!(near.is_ok(), !is_expired, "{mode} {near:?}");
            }
        }
    });
}

/// X.509 version 1, as `openssl x509 -req` of OpenSSL before 3.4 makes them by default.
const VERSION_1_CERT: &str = "-----BEGIN CERTIFICATE-----
MIIBMDCB1wIUZs9XDVj7UfCRcSBBwCAyhsdYL60wCgYIKoZIzj0EAwIwGjEYMBYG
A1UEAwwPb2xkLmV4YW1wbGUuY29tMCAXDTI2MTEyMTAyMjQ0MVoYDzIxMjYxMDI4
MDIyNDQxWjAaMRgwFgYDVQQDDA9vbGQuZXhhbXBsZS5jb20wWTATBgcqhkjOPQIB
BggqhkjOPQMBBwNCAATt1ZzLs1Tlcy+FgKo06l23eVqWwkg/DUgTrItvIe+nhKJa
jm9RZVa71IEzCqsQsJ0MUIXgDJ17T2pHDkwVFqQuMAoGCCqGSM49BAMCA0gAMEUC
IQCPALn9lgvyhG/sV+nMlvljAeuvqMF7uNZOXx0swyhywgIgeFJ5PhXsxerdFTBd
JNoX/iVpnzCP3v1BDunbq+uObHA=
-----END CERTIFICATE-----
";

const VERSION_1_KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgM7UdZ7fFViJIrbPD
EK55hXUiUxqjvi3RASHqMG554hShRANCAATt1ZzLs1Tlcy+FgKo06l23eVqWwkg/
DUgTrItvIe+nhKJajm9RZVa71IEzCqsQsJ0MUIXgDJ17T2pHDkwVFqQu
-----END PRIVATE KEY-----
";

#[test]
fn certificates_that_the_library_cannot_read_work_where_nothing_is_checked() {
    run(async {
        let old = Identity {
            cert_file: world().trusted.file(VERSION_1_CERT),
            key_file: world().trusted.file(VERSION_1_KEY),
        };
        assert_eq!(load_client(&old.settings(Require)).remarks().len(), 1);
        for protocols in ["tlsv1.2", "tlsv1.3"] {
            let mut settings = old.settings(Require);
            settings.protocols = protocols.into();
            let accepted = accepts(&load_client(&settings), &unchecking(None)).await;
            assert_eq!(accepted, Ok(None), "{protocols}");
        }
        check_server(&old, "old.example.com", [true, false, false]).await;
    });
}

#[test]
fn versions_and_ciphers_are_negotiated_and_named() {
    run(async {
        for (protocols, ciphers, expected) in [
            ("", "", Some("TLSv1.3/TLS_AES_256_GCM_SHA384")),
            ("tlsv1.3", "", Some("TLSv1.3/TLS_AES_256_GCM_SHA384")),
            ("tlsv1.2", "", Some("TLSv1.2/ECDHE-ECDSA-AES256-GCM-SHA384")),
            (
                "tlsv1.2",
                "CHACHA20",
                Some("TLSv1.2/ECDHE-ECDSA-CHACHA20-POLY1305"),
            ),
            // The server's certificate has no RSA key.
            ("tlsv1.2", "aRSA", None),
        ] {
            let mut settings = world().server.settings(Require);
            settings.protocols = protocols.into();
            settings.ciphers = ciphers.into();
            let server = load_client(&settings);
            let (near, far) = handshake(&unchecking(None), &server, HOST).await;
            let texts = [near, far].map(|s| s.ok().and_then(|s| s.tls_version_text()));
            assert_eq!(texts, [expected; 2], "{protocols} {ciphers}");
        }
    });
}

#[test]
fn the_servers_preference_counts_and_curves_can_be_chosen() {
    run(async {
        let mut settings = world().server.settings(Require);
        settings.tls13_ciphers = "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256".into();
        settings.ecdh_curve = "secp384r1".into();
        let server = load_client(&settings);
        assert!(server.remarks().is_empty());
        let (near, far) = handshake(&unchecking(None), &server, HOST).await;
        assert_eq!(
            near.unwrap().tls_version_text(),
            Some("TLSv1.3/TLS_CHACHA20_POLY1305_SHA256")
        );
        far.unwrap();
        settings.ecdh_curve = "brainpoolP256r1".into();
        assert_eq!(load_client(&settings).remarks().len(), 1);
    });
}

/// A client that offers these application protocols, and what came of its handshake on both sides.
async fn offer_alpn(offered: &[&[u8]]) -> (io::Result<Option<Vec<u8>>>, io::Result<Stream>) {
    let mut config = (*unchecking(None).config).clone();
    config.alpn_protocols = offered.iter().map(|p| p.to_vec()).collect();
    let (near, far) = tcp_pair().await;
    let server = facing_clients(Require, false);
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from(HOST).unwrap();
    let (near, far) = tokio::join!(
        connector.connect(name, near.into_plain().unwrap()),
        accept(far, &server)
    );
    let chosen = near.map(|s| s.get_ref().1.alpn_protocol().map(<[u8]>::to_vec));
    (chosen, far)
}

#[test]
fn only_postgresql_may_be_spoken() {
    run(async {
        let (chosen, accepted) = offer_alpn(&[]).await;
        assert_eq!(chosen.unwrap(), None);
        accepted.unwrap();
        let (chosen, accepted) = offer_alpn(&[b"h2", ALPN_POSTGRESQL]).await;
        assert_eq!(chosen.unwrap().as_deref(), Some(ALPN_POSTGRESQL));
        accepted.unwrap();
        let (chosen, accepted) = offer_alpn(&[b"h2"]).await;
        let alert = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
        assert_eq!(chosen.unwrap_err().to_string(), alert.to_string());
        assert!(accepted.is_err());
    });
}

#[test]
fn sni_is_sent_in_verify_full_only_and_no_alpn_at_all() {
    run(async {
        for (mode, host, expected) in [
            (Require, HOST, None),
            (VerifyCa, HOST, None),
            (VerifyFull, HOST, Some(HOST)),
            (VerifyFull, "127.0.0.1", None),
        ] {
            let client = load_server(&TlsSettings {
                mode,
                ca_file: world().trusted.ca_file(),
                ..TlsSettings::default()
            });
            let (near, far) = tcp_pair().await;
            let connecting = tokio::spawn(async move { connect(near, &client, host).await });
            let hello = tokio_rustls::LazyConfigAcceptor::new(
                rustls::server::Acceptor::default(),
                far.into_plain().unwrap(),
            )
            .await
            .unwrap();
            assert_eq!(
                hello.client_hello().server_name(),
                expected,
                "{mode} {host}"
            );
            assert!(hello.client_hello().alpn().is_none());
            drop(hello);
            assert!(connecting.await.unwrap().is_err());
        }
    });
}

#[test]
fn direct_tls_is_recognised_by_its_first_byte() {
    run(async {
        let (near, mut far) = tcp_pair().await;
        let client = unchecking(None);
        let connecting = tokio::spawn(async move { connect(near, &client, HOST).await });
        let first = soon(far.peek_first_byte()).await.unwrap();
        assert_eq!(first, Some(HANDSHAKE_FIRST_BYTE));
        let far = accept(far, &facing_clients(Require, false)).await.unwrap();
        let mut near = connecting.await.unwrap().unwrap();
        exchange(&mut near, far).await.unwrap();
    });
}

#[test]
fn garbage_instead_of_a_handshake_is_an_error_on_both_sides() {
    run(async {
        let (mut near, far) = tcp_pair().await;
        near.write_all(b"\x16\x03\x01\x00\x05hello").await.unwrap();
        let error = accept(far, &facing_clients(Require, false)).await;
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (near, mut far) = tcp_pair().await;
        far.write_all(b"E\0\0\0\x10SFATAL\0").await.unwrap();
        let error = connect(near, &unchecking(None), HOST).await;
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (near, far) = tcp_pair().await;
        drop(far);
        let error = connect(near, &unchecking(None), HOST).await.unwrap_err();
        assert!(matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
        ));
    });
}

#[test]
fn session_tickets_are_no_input() {
    run(async {
        let mut server = facing_clients(Require, false);
        let mut config = (*server.config).clone();
        config.session_storage = ServerSessionMemoryCache::new(4);
        config.send_tls13_tickets = 4;
        server.config = Arc::new(config);
        let (near, far) = handshake(&unchecking(None), &server, HOST).await;
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        let arrived = async {
            while !near.input_waiting().unwrap() {
                tokio::task::yield_now().await;
            }
        };
        soon(arrived).await;
        let mut cx = Context::from_waker(Waker::noop());
        let digested = async {
            while near.input_waiting().unwrap() {
                assert!(near.poll_readable(&mut cx).is_pending());
                tokio::task::yield_now().await;
            }
        };
        soon(digested).await;
        assert!(near.poll_readable(&mut cx).is_pending());
        far.write_all(b"x").await.unwrap();
        assert_eq!(soon(near.readable()).await.unwrap(), Readable::Bytes);
    });
}

#[test]
fn sessions_are_not_resumed() {
    run(async {
        let (server, client) = (facing_clients(Require, false), unchecking(None));
        for _ in 0..2 {
            let (near, far) = tcp_pair().await;
            let connector = TlsConnector::from(Arc::clone(&client.config));
            let name = ServerName::try_from(HOST).unwrap();
            let (near, far) = tokio::join!(
                connector.connect(name, near.into_plain().unwrap()),
                accept(far, &server)
            );
            far.unwrap();
            let kind = near.unwrap().get_ref().1.handshake_kind();
            assert_eq!(kind, Some(HandshakeKind::Full));
        }
    });
}

#[test]
fn a_slow_reader_leaves_ciphertext_to_flush() {
    run(async {
        let server = facing_clients(Require, false);
        let (near, far) = handshake(&unchecking(None), &server, HOST).await;
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        let chunk = vec![7; 100_000];
        let mut sent = 0;
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(count) = near.poll_write(&mut cx, &chunk) {
            sent += count.unwrap();
        }
        assert!(near.wants_flush());
        let flushing = tokio::spawn(async move {
            std::future::poll_fn(|cx| near.poll_flush(cx))
                .await
                .unwrap();
            assert!(!near.wants_flush());
            near
        });
        let mut received = vec![0; sent];
        soon(far.read_exact(&mut received)).await.unwrap();
        assert!(received.iter().all(|b| *b == 7));
        soon(flushing).await.unwrap();
    });
}

#[test]
fn off_touches_no_file() {
    let settings = TlsSettings {
        key_file: "/nonexistent".into(),
        cert_file: "/nonexistent".into(),
        protocols: "nonsense".into(),
        ..TlsSettings::default()
    };
    assert!(ClientTls::load(&settings).unwrap().is_none());
    assert!(ServerTls::load(&settings).unwrap().is_none());
}

fn error_of(change: impl FnOnce(&mut TlsSettings)) -> String {
    let mut settings = world().server.settings(VerifyCa);
    settings.ca_file = world().trusted.ca_file();
    change(&mut settings);
    let error = ClientTls::load(&settings).unwrap_err().to_string();
    // What both sides need is checked alike on both.
    if settings.key_file.as_os_str().is_empty() == settings.cert_file.as_os_str().is_empty() {
        assert_eq!(ServerTls::load(&settings).unwrap_err().to_string(), error);
    }
    error
}

#[test]
fn mistakes_are_reported_with_the_name_of_the_file() {
    let key = std::fs::read_to_string(&world().server.key_file).unwrap();
    let cert = std::fs::read_to_string(&world().server.cert_file).unwrap();
    let file = |text: &str| world().trusted.file(text);
    let named = |path: &std::path::Path, what: &str| format!("{}: {what}", path.display());

    assert_eq!(
        error_of(|s| s.ca_file = "/nonexistent/ca.pem".into()),
        "cannot read /nonexistent/ca.pem: No such file or directory (os error 2)"
    );
    let empty = file("");
    assert_eq!(
        error_of(|s| s.cert_file = empty.clone()),
        named(&empty, "no certificate found")
    );
    assert_eq!(
        error_of(|s| s.ca_file = empty.clone()),
        named(&empty, "no certificate found")
    );
    let no_key = file(&cert);
    assert_eq!(
        error_of(|s| s.key_file = no_key.clone()),
        named(&no_key, "no private key found")
    );
    let locked = file(&key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"));
    assert_eq!(
        error_of(|s| s.key_file = locked.clone()),
        named(&locked, "private key needs a passphrase")
    );
    let cut = file(&cert[..cert.len() / 2]);
    assert!(error_of(|s| s.cert_file = cut.clone()).starts_with(&named(&cut, "broken PEM: ")));
    let hollow = file("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let unusable = named(&hollow, "unusable certificate: ");
    assert!(error_of(|s| s.ca_file = hollow.clone()).starts_with(&unusable));
    let other = world().client.key_file.clone();
    assert_eq!(
        error_of(|s| s.key_file = other.clone()),
        format!(
            "private key {} does not belong to certificate {}",
            other.display(),
            world().server.cert_file.display()
        )
    );
    assert_eq!(
        error_of(|s| s.protocols = "tlsv1.1".into()),
        "no usable TLS protocol in \"tlsv1.1\""
    );
    let old_only = |s: &mut TlsSettings| {
        s.protocols = "tlsv1.2".into();
        s.ciphers = "AES128-SHA".into();
    };
    assert_eq!(error_of(old_only), "no usable TLS cipher");
}

#[test]
fn what_a_mode_needs_must_be_set() {
    let mut settings = TlsSettings {
        mode: Prefer,
        ..TlsSettings::default()
    };
    assert_eq!(
        ClientTls::load(&settings).unwrap_err().to_string(),
        "client_tls_sslmode requires client_tls_key_file and client_tls_cert_file"
    );
    assert!(ServerTls::load(&settings).is_ok());
    settings.key_file = world().client.key_file.clone();
    assert!(matches!(
        ServerTls::load(&settings),
        Err(TlsError::Missing(_))
    ));
    assert_eq!(
        ClientTls::load(&world().server.settings(VerifyFull))
            .unwrap_err()
            .to_string(),
        "client_tls_sslmode requires client_tls_ca_file"
    );
}

#[test]
fn what_cannot_be_had_is_remarked() {
    let mut settings = world().server.settings(Require);
    settings.protocols = "all".into();
    settings.ciphers = "AES128-SHA".into();
    let loaded = load_client(&settings);
    assert_eq!(
        loaded.remarks(),
        [
            "TLS protocol tlsv1.0 is not supported and stays off",
            "TLS protocol tlsv1.1 is not supported and stays off",
            "TLS cipher AES128-SHA is not available and is ignored",
            "a TLS protocol is off because none of its ciphers is available",
        ]
    );
    assert_eq!(loaded.mode(), Require);
}

#[test]
fn the_systems_authorities_are_used_or_their_absence_is_said() {
    let settings = TlsSettings {
        mode: VerifyFull,
        ..TlsSettings::default()
    };
    match ServerTls::load(&settings) {
        Ok(loaded) => assert!(loaded.is_some()),
        Err(error) => assert!(matches!(error, TlsError::NoSystemRoots(_))),
    }
}
