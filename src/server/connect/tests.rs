//! Connecting to servers that speak from a script, over real sockets.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tracing::dispatcher::set_default;

use super::*;
use crate::auth::Secret;
use crate::auth::scram::{Nonce, ScramVerifier, ServerExchange, ServerSecret, sasl};
use crate::logs::capture;
use crate::net::testing::{Authority, Leaf, soon};
use crate::net::tls::{ClientTls, SslMode, TlsSettings};
use crate::net::{Readable, SocketPath};
use crate::wire::startup::{FirstPacket, Startup, parse};

const USER: &[u8] = b"ann";
const PASSWORD: &[u8] = b"pencil";
/// The key in [`WELCOME`].
const KEY: BackendKey = BackendKey(*b"12345678");
/// AuthenticationOk, a parameter, the key, ReadyForQuery.
const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x08a\x001\0K\0\0\0\x0c12345678Z\0\0\0\x05I";
const READY: &[u8] = b"Z\0\0\0\x05I";

/// The server's end of the connection.
struct Peer(Stream);

impl Peer {
    async fn send(&mut self, bytes: &[u8]) {
        // A pooler that has heard enough may be gone.
        let _ = self.0.write_all(bytes).await;
    }

    async fn send_message(&mut self, tag: u8, body: &[u8]) {
        let mut out = Vec::new();
        build::message(&mut out, tag, |out| out.extend_from_slice(body));
        self.send(&out).await;
    }

    async fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    /// A packet without a tag.
    async fn first_packet(&mut self) -> FirstPacket {
        let mut packet = self.read(4).await;
        let len = u32::from_be_bytes(packet[..4].try_into().unwrap());
        packet.extend(self.read(len as usize - 4).await);
        parse(&packet).unwrap()
    }

    async fn startup(&mut self) -> Startup {
        match self.first_packet().await {
            FirstPacket::Startup(startup) => startup,
            other => panic!("{other:?}"),
        }
    }

    async fn message(&mut self) -> (u8, Vec<u8>) {
        let head = self.read(5).await;
        let len = u32::from_be_bytes(head[1..].try_into().unwrap());
        (head[0], self.read(len as usize - 4).await)
    }

    async fn password(&mut self) -> Vec<u8> {
        let (tag, body) = self.message().await;
        assert_eq!(tag, b'p');
        body
    }

    /// Waits until the pooler has closed the connection.
    async fn wait_for_end(&mut self) {
        let mut rest = [0; 64];
        while matches!(self.0.read_some(&mut rest).await, Ok(1..)) {}
    }
}

fn user(stored: &[u8]) -> Arc<User> {
    Arc::new(User::new(USER, Secret::parse(stored)))
}

fn plan(target: Target) -> ConnectPlan {
    let startup = [
        ("database", "app"),
        ("client_encoding", "UTF8"),
        ("user", "ann"),
    ];
    ConnectPlan {
        target,
        dns: Default::default(),
        tcp: TcpOptions::default(),
        tls: None,
        timeout: Duration::from_secs(30),
        startup: startup.map(|(k, v)| (k.into(), v.into())).into(),
        user: user(PASSWORD),
        connect_query: None,
        who: "S-0x1: app/ann@127.0.0.1:1".to_owned(),
        log_connections: true,
        log_disconnections: true,
    }
}

/// What came of it: the result and the log.
struct Outcome {
    result: Result<Fresh, ConnectError>,
    log: Vec<String>,
}

impl Outcome {
    #[track_caller]
    fn fresh(self) -> Fresh {
        self.result.unwrap()
    }

    #[track_caller]
    fn error(self) -> ConnectError {
        self.result.unwrap_err()
    }
}

/// Connects to a server that does what the script says.
async fn meet(change: impl FnOnce(&mut ConnectPlan), script: impl AsyncFnOnce(Peer)) -> Outcome {
    let (dispatch, captured) = capture(0);
    let _guard = set_default(&dispatch);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let host = "127.0.0.1".to_owned();
    let mut plan = plan(Target::Tcp { host, port });
    change(&mut plan);
    let server = async {
        let (socket, _) = listener.accept().await.unwrap();
        script(Peer(socket.into())).await;
    };
    let result = soon(async {
        let mut server = pin!(server);
        let mut pooler = pin!(connect(plan));
        let mut is_over = false;
        let result = loop {
            tokio::select! {
                result = &mut pooler => break result,
                () = &mut server, if !is_over => is_over = true,
            }
        };
        // A script that waits for the end of a good connection would wait for ever.
        if result.is_err() && !is_over {
            server.await;
        }
        result
    })
    .await;
    Outcome {
        result,
        log: captured.messages(),
    }
}

/// As [`meet`], when the server begins to speak after the StartupMessage.
async fn meet_after_startup(script: impl AsyncFnOnce(&mut Peer)) -> Outcome {
    meet(
        |_| {},
        async |mut peer| {
            peer.startup().await;
            script(&mut peer).await;
            peer.wait_for_end().await;
        },
    )
    .await
}

#[tokio::test]
async fn a_login() {
    let met = meet(
        |_| {},
        async |mut peer| {
            let startup = peer.startup().await;
            let names: Vec<_> = startup
                .parameters
                .iter()
                .map(|(name, _)| &name[..])
                .collect();
            assert_eq!(names, [&b"database"[..], b"client_encoding", b"user"]);
            peer.send(b"N\0\0\0\x05\0").await;
            peer.send(WELCOME).await;
        },
    )
    .await;
    let log = met.log.clone();
    let fresh = met.fresh();
    assert_eq!(fresh.key, KEY);
    assert_eq!(fresh.parameters, [(b"a".to_vec(), b"1".to_vec())]);
    assert_eq!((&fresh.addr[..], fresh.tls), ("127.0.0.1", None));
    let from = format!("{}:{}", fresh.local_addr, fresh.local_port);
    let expected = format!("LOG S-0x1: app/ann@127.0.0.1:1 new connection to server (from {from})");
    assert_eq!(log, [expected]);
}

#[tokio::test]
async fn nothing_is_logged_that_nobody_wants() {
    let quiet = |plan: &mut ConnectPlan| {
        plan.log_connections = false;
        plan.log_disconnections = false;
    };
    let met = meet(quiet, async |mut peer| {
        peer.startup().await;
    });
    assert_eq!(met.await.log, Vec::<String>::new());
}

#[tokio::test]
async fn replies_may_come_in_any_number_of_segments() {
    let met = meet_after_startup(async |peer| {
        for byte in WELCOME {
            peer.send(&[*byte]).await;
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(met.fresh().key, KEY);
}

#[tokio::test]
async fn what_comes_right_behind_the_welcome_is_not_lost() {
    let met = meet_after_startup(async |peer| {
        // The last message comes in two parts.
        let behind = b"S\0\0\0\x08a\x002\0S\0\0\0\x08b";
        peer.send(&[WELCOME, behind].concat()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        peer.send(b"\x003\0").await;
    })
    .await;
    let parameters = [("a", "2"), ("b", "3")].map(|(k, v)| (k.into(), v.into()));
    assert_eq!(met.fresh().parameters, parameters);
}

// Proofs.

#[tokio::test]
async fn a_cleartext_password() {
    let met = meet_after_startup(async |peer| {
        peer.send_message(b'R', &[0, 0, 0, 3]).await;
        assert_eq!(peer.password().await, b"pencil\0");
        peer.send(WELCOME).await;
    });
    met.await.fresh();
}

#[tokio::test]
async fn an_md5_password() {
    let met = meet_after_startup(async |peer| {
        let salt = *b"salt";
        peer.send_message(b'R', &[&[0, 0, 0, 5], &salt[..]].concat())
            .await;
        let answer = peer.password().await;
        let proof = &answer[..answer.len() - 1];
        let secret = Secret::parse(PASSWORD);
        assert!(crate::auth::md5::verify(USER, &secret, salt, proof));
        peer.send(WELCOME).await;
    });
    met.await.fresh();
}

/// SCRAM in the server's role; `spoil` may change the last message.
async fn judge_scram(peer: &mut Peer, verifier: &ScramVerifier, spoil: impl FnOnce(&mut Vec<u8>)) {
    let mut out = Vec::new();
    build::authentication_sasl(&mut out, sasl::MECHANISM);
    peer.send(&out).await;
    let secret = ServerSecret::known(Arc::new(verifier.clone()));
    let exchange = ServerExchange::new(secret, Nonce::random().unwrap());
    let body = peer.password().await;
    let first = sasl::client_first(&body).unwrap();
    let (reply, awaiting) = exchange.on_client_first(first).unwrap();
    let mut out = Vec::new();
    build::authentication_sasl_continue(&mut out, &reply);
    peer.send(&out).await;
    let (mut reply, _) = awaiting.on_client_final(&peer.password().await).unwrap();
    spoil(&mut reply);
    let mut out = Vec::new();
    build::authentication_sasl_final(&mut out, &reply);
    peer.send(&out).await;
    peer.send(WELCOME).await;
}

#[tokio::test]
async fn scram_with_a_password() {
    let verifier = ScramVerifier::derive(PASSWORD, b"salt", 2);
    let met = meet_after_startup(async |peer| judge_scram(peer, &verifier, |_| {}).await);
    met.await.fresh();
}

#[tokio::test]
async fn scram_with_the_keys_of_a_client() {
    let verifier = ScramVerifier::derive(PASSWORD, b"salt", 2);
    let user = user(verifier.to_string().as_bytes());
    user.keep_keys(crate::auth::scram::ScramKeys::derive(PASSWORD, b"salt", 2));
    let met = meet(
        |plan| plan.user = user,
        async |mut peer| {
            peer.startup().await;
            judge_scram(&mut peer, &verifier, |_| {}).await;
        },
    );
    met.await.fresh();
}

#[tokio::test]
async fn a_server_that_does_not_know_the_secret_is_left() {
    let verifier = ScramVerifier::derive(PASSWORD, b"salt", 2);
    // Still base64, but of another signature.
    let spoil = |reply: &mut Vec<u8>| reply[4] = if reply[4] == b'A' { b'B' } else { b'A' };
    let met = meet_after_startup(async |peer| judge_scram(peer, &verifier, spoil).await).await;
    let error = met.error();
    assert!(error.is_relayed());
    assert_eq!(
        error.log_reason(),
        "server login failed: invalid server signature"
    );
}

#[tokio::test]
async fn a_secret_of_the_wrong_kind() {
    let stored = ScramVerifier::derive(PASSWORD, b"salt", 2).to_string();
    let met = meet(
        |plan| plan.user = user(stored.as_bytes()),
        async |mut peer| {
            peer.startup().await;
            peer.send_message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0")
                .await;
            peer.wait_for_end().await;
        },
    )
    .await;
    let who = "S-0x1: app/ann@127.0.0.1:1";
    let why = "cannot do SCRAM authentication: password is SCRAM secret but client authentication did not provide SCRAM keys";
    assert_eq!(
        met.log[1..],
        [
            format!("WARNING {who} {why}"),
            format!("LOG {who} closing because: server login failed: wrong password type (age=0s)"),
        ]
    );
    let told = met.error().client_error();
    assert_eq!(told.to_string(), "server login failed: wrong password type");
}

// Refusals.

#[tokio::test]
async fn a_refusal_is_logged_and_relayed() {
    let met = meet_after_startup(async |peer| {
        peer.send_message(b'E', b"SFATAL\0VFATAL\0C28P01\0Mno way\0\0")
            .await;
    })
    .await;
    assert_eq!(
        met.log[1..],
        [
            "WARNING server login failed: FATAL no way".to_owned(),
            "LOG S-0x1: app/ann@127.0.0.1:1 closing because: no way (age=0s)".to_owned(),
        ]
    );
    let error = met.error();
    assert!(error.is_relayed());
    assert_eq!(error.client_error().sqlstate, "28P01");
}

#[tokio::test]
async fn a_server_that_starts_up_is_to_be_tried_again() {
    let met = meet_after_startup(async |peer| {
        peer.send_message(b'E', b"SFATAL\0C57P03\0Mstarting up\0\0")
            .await;
    });
    let error = met.await.error();
    assert!(!error.is_relayed());
    assert_eq!(error.log_reason(), "starting up");
}

#[tokio::test]
async fn cve_2026_6666_a_refusal_without_sqlstate() {
    for body in [&b"SFATAL\0Mno\0\0"[..], b"\0", b"", b"M"] {
        let met = meet_after_startup(async |peer| peer.send_message(b'E', body).await);
        assert!(matches!(
            met.await.error(),
            ConnectError::Refused { sqlstate: None, .. }
        ));
    }
}

#[tokio::test]
async fn lengths_are_bounded_before_anything_is_allocated() {
    for length in [
        [0x7f, 0xff, 0xff, 0xff],
        [0xff; 4],
        [0, 1, 0, 1],
        [0, 0, 0, 3],
    ] {
        let met = meet_after_startup(async |peer| {
            peer.send(&[b"R", &length[..]].concat()).await;
        });
        let expected = ConnectError::Protocol("bad message length from server");
        assert_eq!(met.await.error(), expected);
    }
}

#[tokio::test]
async fn garbage_is_refused() {
    for garbage in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"Z\0\0\0\x05I",
        b"R\0\0\0\x05\0",
    ] {
        let met = meet_after_startup(async |peer| peer.send(garbage).await);
        assert!(met.await.result.is_err());
    }
}

#[tokio::test]
async fn a_server_that_sends_for_ever_is_cut_off() {
    let met = meet(
        |plan| plan.timeout = Duration::from_millis(200),
        async |mut peer| {
            peer.startup().await;
            while peer.0.write_all(b"N\0\0\0\x05\0").await.is_ok() {}
        },
    );
    assert_eq!(met.await.error(), ConnectError::Network("connect timeout"));
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let met = meet(
        |plan| plan.timeout = Duration::from_millis(50),
        async |mut peer| peer.wait_for_end().await,
    );
    assert_eq!(met.await.error(), ConnectError::Network("connect timeout"));
}

#[tokio::test]
async fn a_server_that_leaves() {
    for part in [0, 1, 5, 9, 20, WELCOME.len() - 1] {
        let met = meet(
            |_| {},
            async |mut peer| {
                peer.startup().await;
                peer.send(&WELCOME[..part]).await;
            },
        );
        let error = met.await.error();
        assert_eq!(
            error,
            ConnectError::Network("server conn crashed?"),
            "{part}"
        );
        assert!(!error.is_relayed());
    }
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let host = "127.0.0.1".to_owned();
    let error = soon(connect(plan(Target::Tcp { host, port })))
        .await
        .unwrap_err();
    assert_eq!(error, ConnectError::Network("connect failed"));
}

#[tokio::test]
async fn a_name_without_an_address() {
    let host = "no-such-host.invalid".to_owned();
    let error = soon(connect(plan(Target::Tcp { host, port: 1 })))
        .await
        .unwrap_err();
    assert_eq!(error, ConnectError::Network("server DNS lookup failed"));
}

// The connect query.

#[tokio::test]
async fn a_connect_query_whose_replies_nobody_reads() {
    let met = meet(
        |plan| plan.connect_query = Some("select 1".to_owned()),
        async |mut peer| {
            peer.startup().await;
            peer.send(WELCOME).await;
            assert_eq!(peer.message().await, (b'Q', b"select 1\0".to_vec()));
            peer.send_message(b'T', b"\0\0").await;
            peer.send_message(b'D', &vec![b'x'; 300_000]).await;
            peer.send_message(b'E', b"SERROR\0C42601\0Moops\0\0").await;
            peer.send_message(b'S', b"a\x009\0").await;
            peer.send(READY).await;
        },
    )
    .await;
    let remark =
        "WARNING S-0x1: app/ann@127.0.0.1:1 error while executing exec_on_query: ERROR: oops";
    assert_eq!(met.log[1..], [remark]);
    assert_eq!(met.fresh().parameters, [(b"a".to_vec(), b"9".to_vec())]);
}

// TLS.

struct World {
    authority: Authority,
    server: ClientTls,
}

impl World {
    fn new() -> World {
        let authority = Authority::new("some authority");
        let leaf = authority.issue(&Leaf {
            dns: &["localhost"],
            ..Leaf::default()
        });
        let server = ClientTls::load(&leaf.settings(SslMode::Require));
        World {
            authority,
            server: server.unwrap().unwrap(),
        }
    }

    fn pooler(&self, mode: SslMode) -> Option<Arc<ServerTls>> {
        let settings = TlsSettings {
            mode,
            ca_file: self.authority.ca_file(),
            ..TlsSettings::default()
        };
        ServerTls::load(&settings).unwrap().map(Arc::new)
    }

    /// A server that answers the SSLRequest with these bytes.
    async fn answer(&self, mode: SslMode, answer: &[u8]) -> Outcome {
        meet(
            |plan| plan.tls = self.pooler(mode),
            async |mut peer| {
                assert_eq!(peer.first_packet().await, FirstPacket::Ssl);
                peer.send(answer).await;
                if answer == b"N" && mode < SslMode::Require {
                    peer.startup().await;
                    peer.send(WELCOME).await;
                } else {
                    peer.wait_for_end().await;
                }
            },
        )
        .await
    }
}

#[tokio::test]
async fn an_encrypted_login() {
    let world = World::new();
    for mode in [SslMode::Prefer, SslMode::Require, SslMode::VerifyCa] {
        let met = meet(
            |plan| plan.tls = world.pooler(mode),
            async |mut peer| {
                assert_eq!(peer.first_packet().await, FirstPacket::Ssl);
                peer.send(b"S").await;
                let mut peer = Peer(tls::accept(peer.0, &world.server).await.unwrap());
                peer.startup().await;
                peer.send(WELCOME).await;
            },
        )
        .await;
        let line = "LOG S-0x1: app/ann@127.0.0.1:1 SSL established: TLSv1.3/";
        assert!(met.log[1].starts_with(line), "{:?}", met.log);
        assert!(
            met.fresh()
                .tls
                .is_some_and(|text| text.starts_with("TLSv1.3/"))
        );
    }
}

#[tokio::test]
async fn a_certificate_for_somebody_else() {
    let world = World::new();
    let met = meet(
        |plan| plan.tls = world.pooler(SslMode::VerifyFull),
        async |mut peer| {
            peer.first_packet().await;
            peer.send(b"S").await;
            assert!(tls::accept(peer.0, &world.server).await.is_err());
        },
    )
    .await;
    assert!(
        met.log[1].contains("TLS handshake error: "),
        "{:?}",
        met.log
    );
    assert_eq!(met.error(), ConnectError::Network("server conn crashed?"));
}

#[tokio::test]
async fn a_server_without_tls() {
    let world = World::new();
    for mode in [SslMode::Allow, SslMode::Prefer] {
        assert_eq!(world.answer(mode, b"N").await.fresh().tls, None);
    }
    for mode in [SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull] {
        let error = world.answer(mode, b"N").await.error();
        assert_eq!(error, ConnectError::Network("server refused SSL"));
    }
}

#[tokio::test]
async fn plaintext_behind_the_consent_to_tls_is_refused() {
    let met = World::new().answer(SslMode::Prefer, b"S\x16\x03").await;
    let text = "received unencrypted data after SSL response";
    assert_eq!(met.error(), ConnectError::Protocol(text));
}

#[tokio::test]
async fn an_error_as_answer_to_the_request_for_tls() {
    let world = World::new();
    let message = b"E\0\0\0\x15SFATAL\0Mtoo many\0\0";
    for (answer, text) in [
        (&message[..], "too many"),
        (b"Efork failed\n\0", "fork failed"),
    ] {
        let error = world.answer(SslMode::Prefer, answer).await.error();
        assert!(error.is_relayed());
        assert_eq!(error.log_reason(), text);
        // Where TLS is a must, these may be anybody's words.
        let error = world.answer(SslMode::Require, answer).await.error();
        assert_eq!(error, ConnectError::Network("server refused SSL"));
    }
}

#[tokio::test]
async fn nonsense_as_answer_to_the_request_for_tls() {
    let error = World::new().answer(SslMode::Prefer, b"H").await.error();
    assert!(matches!(error, ConnectError::Protocol(_)));
}

#[tokio::test]
async fn a_unix_socket_is_never_encrypted() {
    let (dispatch, captured) = capture(0);
    let _guard = set_default(&dispatch);
    let dir = tempfile::tempdir().unwrap();
    let path = SocketPath::new(dir.path().to_str().unwrap(), 5433);
    let listener = UnixListener::bind(path.for_kernel()).unwrap();
    let mut plan = plan(Target::Unix { path });
    plan.tls = World::new().pooler(SslMode::Require);
    let server = async {
        let mut peer = Peer(listener.accept().await.unwrap().0.into());
        peer.startup().await;
        peer.send(WELCOME).await;
    };
    let (fresh, ()) = soon(async { tokio::join!(connect(plan), server) }).await;
    let fresh = fresh.unwrap();
    let ends = (
        &fresh.addr[..],
        fresh.port,
        &fresh.local_addr[..],
        fresh.local_port,
    );
    assert_eq!(ends, ("unix", 5433, "unix", 0));
    let expected = "LOG S-0x1: app/ann@127.0.0.1:1 new connection to server";
    assert_eq!(captured.messages(), [expected]);
}

// Cancelling.

#[tokio::test]
async fn a_cancel_request_is_delivered_and_its_end_awaited() {
    let world = World::new();
    for mode in [SslMode::Disable, SslMode::Require] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let host = "elsewhere.invalid".to_owned();
        let server = async {
            let mut peer = Peer(listener.accept().await.unwrap().0.into());
            if mode == SslMode::Require {
                assert_eq!(peer.first_packet().await, FirstPacket::Ssl);
                peer.send(b"S").await;
                peer = Peer(tls::accept(peer.0, &world.server).await.unwrap());
            }
            assert_eq!(peer.first_packet().await, FirstPacket::Cancel(KEY.0));
            tokio::select! {
                found = peer.0.readable() => assert_ne!(found.unwrap(), Readable::Eof),
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        };
        let limit = Duration::from_secs(30);
        let target = Target::Tcp { host, port };
        // Only the address counts; the name is for the certificate.
        let addr = Some("127.0.0.1".parse().unwrap());
        let delivery = cancel_at(
            target,
            addr,
            TcpOptions::default(),
            world.pooler(mode),
            KEY,
            limit,
        );
        let (delivered, ()) = soon(async { tokio::join!(delivery, server) }).await;
        assert!(delivered.is_ok(), "{delivered:?}");
    }
}

#[tokio::test]
async fn a_cancel_request_that_hangs_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let host = "127.0.0.1".to_owned();
    let limit = Duration::from_millis(50);
    let target = Target::Tcp { host, port };
    let addr = Some("127.0.0.1".parse().unwrap());
    let delivery = cancel_at(target, addr, TcpOptions::default(), None, KEY, limit);
    let error = soon(delivery).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}
