//! Clients that behave from a script, over real sockets: good ones, bad ones, and those of the known attacks.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use proptest::prelude::*;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Notify;
use tracing::dispatcher::set_default;

use super::*;
use crate::auth::scram::{MockSeed, ScramVerifier};
use crate::auth::{AuthFile, ServerLogin, Step};
use crate::client::admission::Entrance;
use crate::config::{Config, SettingError, UserSettings};
use crate::logs::capture;
use crate::net::testing::{Authority, Leaf, run, soon};
use crate::net::tls::{self, ClientTls, ServerTls, SslMode, TlsSettings};
use crate::server::params::Tracked;
use crate::wire::read;

mod inquiry;

use self::inquiry::Directory;

const PASSWORD: &[u8] = b"pencil";
/// A uid that nobody here has.
const NOBODY: u32 = 12_345;

/// The settings of one test.
struct Setup {
    config: Config,
    users: String,
    tls: Option<ClientTls>,
    console_uid: u32,
    admission: Admission,
    directory: Directory,
}

impl Setup {
    fn new(auth_type: &str) -> Setup {
        let mut config = Config::default();
        for name in ["app", "other"] {
            let entry = Arc::new(Database::new(name));
            config.databases.insert(name.to_owned(), entry);
        }
        let setup = Setup {
            config,
            users: "\"ann\" \"pencil\"\n\"empty\" \"\"\n".to_owned(),
            tls: None,
            console_uid: NOBODY,
            admission: Admission::new(),
            directory: Directory::default(),
        };
        setup.set("auth_type", auth_type)
    }

    fn set(mut self, name: &str, value: &str) -> Setup {
        let done: Result<(), SettingError> = self.config.settings.set_text(name, value);
        done.unwrap();
        self
    }

    /// The secret of user `ann`.
    fn secret(mut self, stored: &str) -> Setup {
        self.users = format!("\"ann\" \"{stored}\"\n");
        self
    }

    fn database(mut self, entry: Database) -> Setup {
        match &entry.name[..] {
            "*" => self.config.autodb = Some(Arc::new(entry)),
            name => {
                self.config
                    .databases
                    .insert(name.to_owned(), Arc::new(entry));
            }
        }
        self
    }

    fn tls(mut self, world: &World, mode: SslMode) -> Setup {
        self.tls = Some(world.pooler(mode));
        self
    }

    fn desk(&self) -> Desk {
        let (users, problems) = AuthFile::parse(self.users.as_bytes());
        assert!(problems.is_empty());
        Desk::new(
            Arc::new(self.config.clone()),
            Arc::new(users),
            self.tls.clone().map(Arc::new),
            Arc::new(Tracked::new(&[])),
            Arc::new(MockSeed::from_bytes([7; 32])),
            self.console_uid,
        )
    }

    /// Receives a client that comes over TCP and does what the script says. Nobody else is there.
    async fn tcp(&self, script: impl AsyncFnOnce(Peer)) -> Visit {
        let visit = self.tcp_beside(script).await;
        if visit.arrival.is_none() {
            assert_eq!(self.admission.sockets(), 0);
        }
        visit
    }

    /// As [`Setup::tcp`], beside others.
    async fn tcp_beside(&self, script: impl AsyncFnOnce(Peer)) -> Visit {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let near = TcpStream::connect(addr).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        self.receive(near.into(), far.into(), script).await
    }

    /// As [`Setup::tcp`], over a Unix socket.
    async fn unix(&self, script: impl AsyncFnOnce(Peer)) -> Visit {
        let (near, far) = UnixStream::pair().unwrap();
        self.receive(near.into(), far.into(), script).await
    }

    async fn receive(&self, near: Stream, far: Stream, script: impl AsyncFnOnce(Peer)) -> Visit {
        let (dispatch, captured) = capture(0);
        let _guard = set_default(&dispatch);
        let desk = self.desk();
        let is_in = Rc::new(Notify::new());
        let peer = Peer {
            stream: near,
            is_in: Rc::clone(&is_in),
        };
        let reception = async {
            let arrival = receive(far, &desk, &self.admission, &self.directory).await;
            if arrival.is_some() {
                is_in.notify_one();
            }
            arrival
        };
        let (arrival, ()) = soon(async { tokio::join!(reception, script(peer)) }).await;
        Visit {
            arrival,
            log: captured.messages(),
        }
    }
}

/// What came of it.
struct Visit {
    arrival: Option<Arrival>,
    log: Vec<String>,
}

impl Visit {
    #[track_caller]
    fn client(self) -> LoggedIn {
        match self.arrival {
            Some(Arrival::Client(client)) => client,
            other => panic!("{other:?}, {:?}", self.log),
        }
    }

    #[track_caller]
    fn console(self) -> ConsoleLogin {
        match self.arrival {
            Some(Arrival::Console(console)) => console,
            other => panic!("{other:?}, {:?}", self.log),
        }
    }

    /// The log without prefixes: level and text.
    fn lines(&self) -> Vec<String> {
        let short = |line: &String| match line.split_once(" C-0x") {
            Some((level, rest)) => {
                let words: Vec<&str> = rest.splitn(3, ' ').collect();
                format!("{level} {}", words[2])
            }
            None => line.clone(),
        };
        self.log.iter().map(short).collect()
    }
}

/// The client's end of the connection.
struct Peer {
    stream: Stream,
    /// Told when the pooler has let the client in: nothing will be sent to it then.
    is_in: Rc<Notify>,
}

impl Peer {
    async fn send(&mut self, bytes: &[u8]) {
        // A pooler that has heard enough may be gone.
        let _ = self.stream.write_all(bytes).await;
    }

    async fn start(&mut self, user: &str, database: &str) {
        self.send(&startup(&[("user", user), ("database", database)]))
            .await;
    }

    async fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    async fn message(&mut self) -> (u8, Vec<u8>) {
        let head = self.read(5).await;
        let len = u32::from_be_bytes(head[1..].try_into().unwrap());
        (head[0], self.read(len as usize - 4).await)
    }

    /// The pooler's last words, and the end.
    async fn fatal(&mut self) -> String {
        let (tag, body) = self.message().await;
        assert_eq!(tag, b'E', "{body:?}");
        assert!(body.len() < 512);
        let fields = read::error_fields(&body);
        assert_eq!(
            (fields.severity, fields.sqlstate),
            (Some(&b"FATAL"[..]), Some(&b"08P01"[..]))
        );
        self.end().await;
        String::from_utf8(fields.message.unwrap().to_vec()).unwrap()
    }

    /// Nothing more comes.
    async fn end(&mut self) {
        assert_eq!(self.stream.read_some(&mut [0; 16]).await.unwrap(), 0);
    }

    /// Answers what is asked, up to the last answer; the pooler's words if it says no.
    async fn prove(&mut self, login: &mut ServerLogin) -> Result<(), String> {
        loop {
            let (tag, body) = self.message().await;
            if tag == b'E' {
                let text = read::error_fields(&body).message.unwrap();
                return Err(String::from_utf8(text.to_vec()).unwrap());
            }
            assert_eq!(tag, b'R');
            let Step::Send(answer) = login.on_authentication(&body).unwrap() else {
                panic!("asks nothing");
            };
            self.send(&password_message(&answer)).await;
            // All but a SASLInitialResponse is the last answer, after which nothing comes until the greeting.
            if body[..4] != [0, 0, 0, 10] {
                return self.verdict().await;
            }
        }
    }

    async fn log_in(&mut self, user: &str, database: &str, password: &[u8]) -> Result<(), String> {
        self.start(user, database).await;
        self.prove(&mut proofs(user, password)).await
    }

    /// The pooler's last words, or its silence when it has let us in.
    async fn verdict(&mut self) -> Result<(), String> {
        let is_in = Rc::clone(&self.is_in);
        tokio::select! {
            biased;
            text = self.fatal() => Err(text),
            () = is_in.notified() => Ok(()),
        }
    }
}

fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    let pairs = parameters.iter();
    build::startup(
        &mut out,
        pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes())),
    );
    out
}

fn password_message(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    build::message(&mut out, b'p', |out| out.extend_from_slice(body));
    out
}

fn scram_secret() -> String {
    ScramVerifier::derive(PASSWORD, b"some salt", 2).to_string()
}

/// What is stored for `ann` with the password, as PostgreSQL makes it.
fn md5_secret() -> String {
    use ::md5::{Digest, Md5};
    let digest = Md5::digest([PASSWORD, b"ann"].concat());
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("md5{digits}")
}

/// The client's role, with this name and password.
fn proofs(name: &str, password: &[u8]) -> ServerLogin {
    let secret = crate::auth::Secret::plain(password);
    ServerLogin::new(Arc::new(User::new(name.as_bytes(), secret)))
}

/// A client that sends these bytes and is told this.
async fn check_told_later(setup: &Setup, bytes: &[u8], expected: &str) {
    let visit = setup.tcp_beside(async |mut peer| {
        peer.send(bytes).await;
        assert_eq!(peer.fatal().await, expected);
    });
    let lines = visit.await.lines();
    let told = [
        format!("WARNING pooler error: {expected}"),
        format!("LOG closing because: {expected} (age=0s)"),
    ];
    assert_eq!(lines[lines.len() - 2..], told, "{lines:?}");
}

/// As [`check_told_later`], on a runtime of its own.
fn check_told(setup: &Setup, bytes: &[u8], expected: &str) {
    run(check_told_later(setup, bytes, expected));
}

/// A client that sends these bytes and is closed without a word, for this reason.
#[track_caller]
fn check_closed(setup: &Setup, bytes: &[u8], reason: &str) {
    run(async {
        let visit = setup.tcp(async |mut peer| {
            peer.send(bytes).await;
            peer.stream.shutdown().await.unwrap();
            // A reset is as good an end.
            assert!(matches!(
                peer.stream.read_some(&mut [0; 16]).await,
                Ok(0) | Err(_)
            ));
        });
        let expected = format!("LOG closing because: {reason} (age=0s)");
        assert_eq!(visit.await.lines(), [expected]);
    });
}

// The ways in.

#[tokio::test]
async fn trust() {
    let setup = Setup::new("trust");
    let visit = setup
        .tcp(async |mut peer| peer.start("ann", "app").await)
        .await;
    let attempt = "LOG login attempt: db=app user=ann tls=no replication=no";
    assert_eq!(visit.lines(), [attempt]);
    assert!(
        visit.log[0].contains(": app/ann@127.0.0.1:"),
        "{:?}",
        visit.log
    );
    let client = visit.client();
    assert_eq!(
        (&client.login_user[..], &client.server_user[..]),
        ("ann", "ann")
    );
    assert_eq!(client.database.name, "app");
    assert_eq!(client.credentials.name(), b"ann");
    assert!(
        client.guest.leftover.is_empty()
            && client.guest.greeting.is_empty()
            && client.guest.tls.is_none()
    );
    assert_eq!(client.replication, Replication::None);
    let counts = || {
        let admission = &setup.admission;
        (
            admission.sockets(),
            admission.database_clients("app"),
            admission.user_clients("ann"),
        )
    };
    assert_eq!(counts(), (1, 1, 1));
    drop(client);
    assert_eq!(counts(), (0, 0, 0));
}

#[tokio::test]
async fn a_password_by_every_method_for_every_kind_of_secret() {
    const SASL: Result<(), &str> = Err("SASL authentication failed");
    const OTHER: Result<(), &str> = Err("password authentication failed");
    let secrets = ["pencil".to_owned(), md5_secret(), scram_secret()];
    // What the right password comes to, and a wrong one, for each of the secrets.
    for (method, outcomes) in [
        ("plain", [(Ok(()), OTHER), (Ok(()), OTHER), (Ok(()), OTHER)]),
        ("md5", [(Ok(()), OTHER), (Ok(()), OTHER), (Ok(()), SASL)]),
        (
            "scram-sha-256",
            [(Ok(()), SASL), (SASL, SASL), (Ok(()), SASL)],
        ),
    ] {
        for (stored, (right, wrong)) in secrets.iter().zip(outcomes) {
            let setup = Setup::new(method)
                .secret(stored)
                .set("scram_iterations", "2");
            for (password, expected) in [(PASSWORD, right), (b"pen", wrong)] {
                let visit = setup.tcp(async |mut peer| {
                    let got = peer.log_in("ann", "app", password).await;
                    assert_eq!(got, expected.map_err(str::to_owned), "{method} {stored}");
                });
                assert_eq!(visit.await.arrival.is_some(), expected.is_ok());
            }
        }
    }
}

#[tokio::test]
async fn scram_ends_in_the_greeting_and_leaves_keys() {
    for (stored, has_keys) in [(scram_secret(), true), ("pencil".to_owned(), false)] {
        let setup = Setup::new("scram-sha-256").secret(&stored);
        let mut login = proofs("ann", PASSWORD);
        let visit = setup.tcp(async |mut peer| {
            peer.start("ann", "app").await;
            assert_eq!(peer.prove(&mut login).await, Ok(()));
        });
        let client = visit.await.client();
        assert_eq!(client.guest.greeting[0], b'R');
        assert_eq!(
            login.on_authentication(&client.guest.greeting[5..]),
            Ok(Step::Wait)
        );
        assert_eq!(client.credentials.keys().is_some(), has_keys);
    }
}

#[tokio::test]
async fn what_is_sent_ahead_is_kept() {
    let ahead = b"Q\0\0\0\x0bselect\0";
    let bytes = [
        &startup(&[("user", "ann"), ("database", "app")]),
        &ahead[..],
    ]
    .concat();
    let setup = Setup::new("trust");
    let visit = setup.tcp(async |mut peer| peer.send(&bytes).await);
    assert_eq!(visit.await.client().guest.leftover, ahead);
    let setup = Setup::new("plain");
    let visit = setup.tcp(async |mut peer| {
        peer.start("ann", "app").await;
        peer.message().await;
        peer.send(&[&password_message(b"pencil\0")[..], ahead].concat())
            .await;
    });
    assert_eq!(visit.await.client().guest.leftover, ahead);
}

#[tokio::test]
async fn parameters() {
    let setup = Setup::new("trust")
        .set("application_name_add_host", "1")
        .set("ignore_startup_parameters", "extra_float_digits");
    let asked = [
        ("user", "ann"),
        ("database", "app"),
        ("application_name", "psql"),
        ("extra_float_digits", "2"),
        ("options", "-d 5"),
        ("replication", "database"),
    ];
    let index = Tracked::new(&[]).index(b"application_name").unwrap();
    let visit = setup
        .tcp(async |mut peer| peer.send(&startup(&asked)).await)
        .await;
    assert!(visit.lines()[0].ends_with("replication=database"));
    let client = visit.client();
    let name = format!("psql - {}", client.guest.peer);
    assert_eq!(client.guest.params.get(index), Some(name.as_bytes()));
    assert_eq!(client.replication, Replication::Logical);
    assert_eq!(
        client.startup_options,
        [(b"options".to_vec(), b"-d 5".to_vec())]
    );

    let client = setup
        .unix(async |mut peer| peer.start("ann", "app").await)
        .await
        .client();
    let name = String::from_utf8(client.guest.params.get(index).unwrap().to_vec()).unwrap();
    let pid = std::process::id();
    assert!(
        name.starts_with(&format!("app - unix({pid}@")) && name.ends_with("):6432"),
        "{name}"
    );
}

#[tokio::test]
async fn newer_protocols_are_negotiated_down_once() {
    let mut packet = startup(&[
        ("user", "ann"),
        ("database", "app"),
        ("_pq_.a", "1"),
        ("_pq_.b", ""),
    ]);
    packet[7] = 2;
    let told = b"v\0\0\0\x1a\0\x03\0\0\0\0\0\x02_pq_.a\0_pq_.b\0";
    let setup = Setup::new("trust");
    let visit = setup.tcp(async |mut peer| peer.send(&packet).await);
    assert_eq!(visit.await.client().guest.greeting, told);
    let setup = Setup::new("plain");
    let visit = setup.tcp(async |mut peer| {
        peer.send(&packet).await;
        assert_eq!(peer.read(told.len()).await, told);
        assert_eq!(peer.prove(&mut proofs("ann", PASSWORD)).await, Ok(()));
    });
    assert_eq!(visit.await.client().guest.greeting, b"");
}

#[tokio::test]
async fn the_database_is_the_users_unless_named() {
    let setup = Setup::new("trust").database(Database::new("ann"));
    let visit = setup.tcp(async |mut peer| peer.send(&startup(&[("user", "ann")])).await);
    assert_eq!(visit.await.client().database.name, "ann");
}

#[tokio::test]
async fn a_cancel_request() {
    let world = World::new();
    let setup = Setup::new("md5").tls(&world, SslMode::Require);
    let mut packet = Vec::new();
    build::cancel_request(&mut packet, b"12345678");
    for is_encrypted in [false, true] {
        let visit = setup.tcp(async |mut peer| {
            if is_encrypted {
                peer = peer.ask_for_tls(&world).await;
            }
            peer.send(&packet).await;
        });
        let visit = visit.await;
        let Some(Arrival::Cancel { key, .. }) = visit.arrival else {
            panic!("{:?}", visit.log);
        };
        assert_eq!((key, &visit.log[..]), (CancelKey(*b"12345678"), &[][..]));
    }
}

// Whose secret counts.

#[tokio::test]
async fn unknown_users_meet_the_same_exchange() {
    for (method, expected) in [
        ("plain", "password authentication failed"),
        ("md5", "password authentication failed"),
        ("scram-sha-256", "SASL authentication failed"),
    ] {
        let setup = Setup::new(method);
        // A name that is no UTF-8 must not become somebody else's.
        for name in [&b"eve"[..], b"ann\xff"] {
            let mut packet = Vec::new();
            build::startup(
                &mut packet,
                [(&b"user"[..], name), (b"database", b"app")].into_iter(),
            );
            let visit = setup.tcp(async |mut peer| {
                peer.send(&packet).await;
                let got = peer.prove(&mut proofs("eve", PASSWORD)).await;
                assert_eq!(got, Err(expected.to_owned()));
            });
            let expected = format!("LOG no such user: {}", String::from_utf8_lossy(name));
            assert_eq!(visit.await.lines()[0], expected);
        }
    }
    let asks = startup(&[("user", "eve"), ("database", "app")]);
    check_told_later(
        &Setup::new("trust"),
        &asks,
        "\"trust\" authentication failed",
    )
    .await;
}

#[tokio::test]
async fn an_empty_secret_matches_nothing() {
    for method in ["plain", "md5", "scram-sha-256"] {
        let setup = Setup::new(method);
        for password in [&b"x"[..], b"empty", b"pencil"] {
            let visit = setup.tcp(async |mut peer| {
                assert!(peer.log_in("empty", "app", password).await.is_err());
            });
            assert!(visit.await.arrival.is_none());
        }
    }
}

#[tokio::test]
async fn an_empty_password_is_refused() {
    for method in ["plain", "md5"] {
        for name in ["ann", "empty", "eve"] {
            let setup = Setup::new(method);
            let visit = setup.tcp(async |mut peer| {
                peer.start(name, "app").await;
                peer.message().await;
                peer.send(&password_message(b"\0")).await;
                assert_eq!(peer.fatal().await, "empty password returned by client");
            });
            visit.await;
        }
    }
}

#[tokio::test]
async fn a_forced_user() {
    let mut entry = Database::new("app");
    entry.user = Some("bob".to_owned());
    let with_password = Database {
        password: Some("secret".into()),
        ..entry.clone()
    };
    let credentials = async |entry: &Database, users: &str| {
        let mut setup = Setup::new("trust").database(entry.clone());
        setup.users.push_str(users);
        let visit = setup
            .tcp(async |mut peer| peer.start("ann", "app").await)
            .await;
        let client = visit.client();
        assert_eq!(
            (&client.login_user[..], &client.server_user[..]),
            ("ann", "bob")
        );
        assert_eq!(client.credentials.name(), b"bob");
        client.credentials
    };
    let is_plain =
        |user: &User, password: &[u8]| user.secret().same_as(&crate::auth::Secret::plain(password));
    let listed = "\"bob\" \"listed\"\n";
    assert!(is_plain(
        &*credentials(&with_password, listed).await,
        b"secret"
    ));
    assert!(is_plain(&*credentials(&entry, listed).await, b"listed"));
    assert!(credentials(&entry, "").await.secret().is_none());
}

#[tokio::test]
async fn a_forced_user_with_the_clients_own_secret_gets_its_keys() {
    let stored = scram_secret();
    let entry = Database {
        user: Some("bob".to_owned()),
        password: Some(stored[..].into()),
        ..Database::new("app")
    };
    let setup = Setup::new("scram-sha-256").secret(&stored).database(entry);
    let visit = setup.tcp(async |mut peer| {
        assert_eq!(peer.log_in("ann", "app", PASSWORD).await, Ok(()));
    });
    assert!(visit.await.client().credentials.keys().is_some());
}

#[tokio::test]
async fn any_lets_everybody_in_as_the_forced_user() {
    let forced = Database {
        user: Some("bob".to_owned()),
        password: Some("secret".into()),
        ..Database::new("*")
    };
    let setup = Setup::new("any").database(forced);
    let visit = setup.tcp(async |mut peer| peer.start("whoever", "made up").await);
    let client = visit.await.client();
    assert_eq!(
        (&client.login_user[..], &client.server_user[..]),
        ("bob", "bob")
    );
    assert!(client.database.auto && client.database.name == "made up");
    assert_eq!(setup.admission.user_clients("bob"), 1);
    let asks = |database| startup(&[("user", "ann"), ("database", database)]);
    check_told_later(&setup, &asks("app"), "bouncer config error").await;
    let setup = Setup::new("any");
    check_told_later(&setup, &asks("nope"), "no such database: nope").await;
}

// Doors and limits.

#[tokio::test]
async fn an_unknown_database_is_told_after_the_proof_only() {
    let setup = Setup::new("plain");
    let visit = setup.tcp(async |mut peer| {
        let got = peer.log_in("ann", "nope", PASSWORD).await;
        assert_eq!(got, Err("no such database: nope".to_owned()));
    });
    let lines = [
        "LOG login attempt: db=nope user=ann tls=no replication=no",
        "LOG login failed: db=nope user=ann",
        "WARNING pooler error: no such database: nope",
        "LOG closing because: no such database: nope (age=0s)",
    ];
    assert_eq!(visit.await.lines(), lines);
    let visit = setup.tcp(async |mut peer| {
        let got = peer.log_in("ann", "nope", b"wrong").await;
        assert_eq!(got, Err("password authentication failed".to_owned()));
    });
    visit.await;
}

#[tokio::test]
async fn closed_doors_are_told_after_the_proof_only() {
    let setup = Setup::new("plain");
    let told = async |password: &[u8]| {
        let mut told = Ok(());
        let visit = setup.tcp(async |mut peer| told = peer.log_in("ann", "app", password).await);
        visit.await;
        told
    };
    setup.admission.set_disabled("app", true);
    assert_eq!(
        told(PASSWORD).await,
        Err("database \"app\" is disabled".to_owned())
    );
    assert_eq!(
        told(b"no").await,
        Err("password authentication failed".to_owned())
    );
    setup.admission.set_disabled("app", false);
    setup.admission.set_entrance(Entrance::Closed);
    assert_eq!(
        told(PASSWORD).await,
        Err("pooler is shutting down".to_owned())
    );
    setup.admission.set_entrance(Entrance::Arrived);
    assert_eq!(told(PASSWORD).await, Ok(()));
}

#[tokio::test]
async fn the_pooler_is_full() {
    let setup = Setup::new("trust").set("max_client_conn", "1");
    let asks = startup(&[("user", "ann"), ("database", "app")]);
    let full = "no more connections allowed (max_client_conn)";
    let first = setup
        .tcp(async |mut peer| peer.send(&asks).await)
        .await
        .client();
    let visit = setup.tcp_beside(async |mut peer| {
        peer.send(&asks).await;
        assert_eq!(peer.fatal().await, full);
    });
    assert!(visit.await.arrival.is_none());
    drop(first);
    setup
        .tcp(async |mut peer| peer.send(&asks).await)
        .await
        .client();
}

#[tokio::test]
async fn a_database_or_a_user_is_full() {
    for (name, expected) in [
        (
            "max_db_client_connections",
            "client connections exceeded (max_db_client_connections)",
        ),
        (
            "max_user_client_connections",
            "client connections exceeded (max_user_client_connections)",
        ),
    ] {
        let setup = Setup::new("plain").set(name, "1");
        let script = async |mut peer: Peer| {
            assert_eq!(peer.log_in("ann", "app", PASSWORD).await, Ok(()));
        };
        let first = setup.tcp(script).await.client();
        // Before any proof.
        let visit = setup.tcp_beside(async |mut peer| {
            peer.start("ann", "app").await;
            assert_eq!(peer.fatal().await, expected);
        });
        assert!(visit.await.arrival.is_none());
        drop(first);
        setup.tcp(script).await.client();
    }
}

#[tokio::test]
async fn limits_of_one_user_and_one_database() {
    let limited = UserSettings {
        max_user_client_connections: Some(1),
        ..UserSettings::default()
    };
    let mut setup = Setup::new("trust").database(Database {
        max_db_client_connections: Some(1),
        ..Database::new("small")
    });
    setup.config.users.insert("ann".to_owned(), limited);
    setup.users.push_str("\"bob\" \"x\"\n");
    let enter = async |user: &str, database: &str| {
        setup
            .tcp_beside(async |mut peer| peer.start(user, database).await)
            .await
            .arrival
    };
    let first = enter("ann", "app").await;
    assert!(first.is_some());
    assert!(enter("ann", "other").await.is_none());
    drop(first);
    let small = enter("ann", "small").await;
    assert!(small.is_some());
    assert!(enter("bob", "small").await.is_none());
    assert!(enter("bob", "app").await.is_some());
}

// What is told, and what is not.

#[test]
fn refused_first_packets() {
    let setup = Setup::new("trust").set("max_packet_size", "20000");
    let packet = |code: u32, body: &[u8]| {
        let len = 8 + body.len() as u32;
        [&len.to_be_bytes(), &code.to_be_bytes(), body].concat()
    };
    let user = ("user", "ann");
    let long_name = "u".repeat(128);
    let long = format!("unsupported startup parameter: {}", "p".repeat(96));
    for (bytes, expected) in [
        (startup(&[("database", "app")]), "no username supplied"),
        (
            startup(&[user, ("extra_float_digits", "2")]),
            "unsupported startup parameter: extra_float_digits",
        ),
        (startup(&[user, (&"p".repeat(9000), "2")]), &long),
        (
            startup(&[user, ("options", "-c a=1")]),
            "unsupported startup parameter in options: a",
        ),
        (
            startup(&[user, ("options", "-d5")]),
            "unsupported options startup parameter: only '-c config=val' and '--config=val' are allowed",
        ),
        (startup(&[("user", &long_name)]), "username too long"),
        (
            packet(3 << 16, b"user\0ann\0"),
            "invalid startup packet layout: expected terminator as last byte",
        ),
        (
            packet(3 << 16, b"user\0ann"),
            "invalid startup packet layout: expected terminator as last byte",
        ),
        (
            packet(3 << 16, b"user\0\0"),
            "invalid startup packet layout: expected terminator as last byte",
        ),
        (packet(2 << 16, b""), "old V2 protocol not supported"),
        (
            packet(7 << 16, b"\0"),
            "bad packet header: '0000000900070000'",
        ),
        (
            packet(3 << 16, &[0; 30_000]),
            "bad packet header: '0000753800030000'",
        ),
        (
            b"\0\x01\0\0\0\x03\0\0".to_vec(),
            "bad packet header: '0001000000030000'",
        ),
        (b"\0\0\0\x07".to_vec(), "bad packet header: '00000007'"),
        (
            b"\xff\xff\xff\xff\0\x03\0\0".to_vec(),
            "bad packet header: 'ffffffff00030000'",
        ),
        (
            b"\x80\0\0\0\0\x03\0\0".to_vec(),
            "bad packet header: '8000000000030000'",
        ),
        (
            password_message(b"pencil\0"),
            "client password pkt before startup packet",
        ),
    ] {
        check_told(&setup, &bytes, expected);
    }
}

#[test]
fn connections_that_are_closed_without_a_word() {
    let setup = Setup::new("plain");
    let mut bad_cancel = vec![0, 0, 0, 17];
    bad_cancel.extend(build::CANCEL_REQUEST.to_be_bytes());
    bad_cancel.extend(b"123456789");
    check_closed(&setup, &bad_cancel, "bad cancel request");
    check_closed(&setup, b"Q\0\0\0\x05\0", "bad packet");
    check_closed(&setup, b"GET / HTTP/1.1\r\n\r\n", "bad packet");
    check_closed(&setup, b"\0\0", "client unexpected eof");
    check_closed(
        &setup,
        &startup(&[("user", "ann")])[..10],
        "client unexpected eof",
    );
}

#[tokio::test]
async fn who_leaves_without_a_word_is_not_noticed() {
    let setup = Setup::new("plain");
    let visit = setup.tcp(async |peer| drop(peer)).await;
    assert_eq!((visit.arrival.is_none(), &visit.log[..]), (true, &[][..]));
}

#[tokio::test]
async fn who_leaves_in_the_middle_is() {
    for (last, reason) in [
        (&b""[..], "client unexpected eof"),
        (b"X\0\0\0\x04", "client close request"),
        (b"p\0\0\0\x40half", "client unexpected eof"),
    ] {
        let setup = Setup::new("plain");
        let visit = setup.tcp(async |mut peer| {
            peer.start("ann", "app").await;
            peer.message().await;
            peer.send(last).await;
        });
        let lines = visit.await.lines();
        assert_eq!(
            lines[1..],
            [format!("LOG closing because: {reason} (age=0s)")]
        );
    }
}

#[tokio::test]
async fn a_login_that_takes_too_long() {
    let setup = Setup::new("plain").set("client_login_timeout", "0.05");
    let visit = setup.tcp(async |mut peer| assert_eq!(peer.fatal().await, "client_login_timeout"));
    visit.await;
    let visit = setup.tcp(async |mut peer| {
        peer.start("ann", "app").await;
        peer.message().await;
        assert_eq!(peer.fatal().await, "client_login_timeout");
    });
    let lines = visit.await.lines();
    assert_eq!(
        lines[2],
        "LOG closing because: client_login_timeout (age=0s)"
    );
}

#[tokio::test]
async fn logging_is_as_the_settings_say() {
    let setup = Setup::new("plain")
        .set("log_connections", "0")
        .set("log_disconnections", "0")
        .set("log_pooler_errors", "0");
    let visit = setup.tcp(async |mut peer| {
        assert!(peer.log_in("ann", "nope", PASSWORD).await.is_err());
    });
    assert_eq!(visit.await.log, Vec::<String>::new());
}

#[tokio::test]
async fn last_words_survive_input_that_nobody_reads() {
    let flood = [b"\0\0\0\x07".to_vec(), vec![b'x'; 300_000]].concat();
    for _ in 0..20 {
        let setup = Setup::new("plain");
        let visit = setup.tcp(async |mut peer| {
            peer.send(&flood).await;
            assert_eq!(peer.fatal().await, "bad packet header: '0000000778787878'");
        });
        visit.await;
    }
}

// Attacks on the exchange.

#[tokio::test]
async fn cve_2026_107350_a_second_startup_packet_ends_the_login() {
    let again = startup(&[("user", "empty"), ("database", "app")]);
    for method in ["plain", "md5", "scram-sha-256"] {
        for database in ["app", "nope"] {
            let setup = Setup::new(method);
            let visit = setup.tcp(async |mut peer| {
                peer.start("ann", database).await;
                peer.message().await;
                peer.send(&again).await;
                assert_eq!(peer.fatal().await, "client re-sent startup pkt");
            });
            assert!(visit.await.arrival.is_none());
        }
    }
    let setup = Setup::new("scram-sha-256");
    let visit = setup.tcp(async |mut peer| {
        peer.start("ann", "nope").await;
        peer.message().await;
        peer.send(&password_message(&sasl_initial(
            "SCRAM-SHA-256",
            b"n,,n=,r=abc",
        )))
        .await;
        assert_eq!(peer.message().await.0, b'R');
        peer.send(&again).await;
        assert_eq!(peer.fatal().await, "client re-sent startup pkt");
    });
    visit.await;
}

#[tokio::test]
async fn other_messages_than_the_proof_end_the_login() {
    for method in ["plain", "md5", "scram-sha-256"] {
        let setup = Setup::new(method);
        let visit = setup.tcp(async |mut peer| {
            peer.start("ann", "app").await;
            peer.message().await;
            peer.send(b"Q\0\0\0\x0dselect 1\0").await;
            assert_eq!(peer.fatal().await, "bad packet");
        });
        visit.await;
    }
}

fn sasl_initial(mechanism: &str, message: &[u8]) -> Vec<u8> {
    let len = (message.len() as u32).to_be_bytes();
    [mechanism.as_bytes(), b"\0", &len, message].concat()
}

#[tokio::test]
async fn proofs_that_are_none() {
    const SASL: &str = "SASL authentication failed";
    const OTHER: &str = "password authentication failed";
    let huge = |len: u32| [b"p", &len.to_be_bytes()[..]].concat();
    for (method, bytes, expected) in [
        ("plain", huge(0x7fff_ffff), OTHER),
        ("plain", huge(0xffff_ffff), OTHER),
        ("plain", huge(3), OTHER),
        ("plain", huge(65_541), OTHER),
        ("md5", huge(0x8000_0000), OTHER),
        ("scram-sha-256", huge(5000), SASL),
        ("plain", password_message(b"pencil"), OTHER),
        ("plain", password_message(b""), OTHER),
        ("plain", password_message(b"pencil\0pencil\0"), OTHER),
        (
            "plain",
            password_message(&[&[b'x'; 65_535][..], b"\0"].concat()),
            OTHER,
        ),
        ("md5", password_message(b"md5\0"), OTHER),
        ("scram-sha-256", password_message(b""), SASL),
        ("scram-sha-256", password_message(b"SCRAM-SHA-256"), SASL),
        (
            "scram-sha-256",
            password_message(b"SCRAM-SHA-256\0\xff\xff\xff\xff"),
            SASL,
        ),
        (
            "scram-sha-256",
            password_message(b"SCRAM-SHA-256\0\x7f\xff\xff\xffn,,n=,r=abc"),
            SASL,
        ),
        (
            "scram-sha-256",
            password_message(&sasl_initial("SCRAM-SHA-256", b"p=x,,n=,r=abc")),
            SASL,
        ),
        (
            "scram-sha-256",
            password_message(&sasl_initial("SCRAM-SHA-256", b"n,a=bob,n=,r=abc")),
            SASL,
        ),
        (
            "scram-sha-256",
            password_message(&sasl_initial("SCRAM-SHA-256", b"n,,n=")),
            SASL,
        ),
        (
            "scram-sha-256",
            password_message(&sasl_initial("SCRAM-SHA-256-PLUS", b"n,,n=,r=abc")),
            "client selected an invalid SASL authentication mechanism",
        ),
    ] {
        let setup = Setup::new(method);
        for name in ["ann", "eve"] {
            let visit = setup.tcp(async |mut peer| {
                peer.start(name, "app").await;
                peer.message().await;
                peer.send(&bytes).await;
                assert_eq!(peer.fatal().await, expected, "{method} {bytes:?}");
            });
            visit.await;
        }
    }
}

#[tokio::test]
async fn cve_2026_19888_a_final_message_without_nonce() {
    for last in [
        &b"c=biws,p=AAAA"[..],
        b"c=biws",
        b"",
        b"r=",
        b"c=biws,r=,p=",
        b",,,,",
    ] {
        for name in ["ann", "eve"] {
            let setup = Setup::new("scram-sha-256");
            let visit = setup.tcp(async |mut peer| {
                peer.start(name, "app").await;
                peer.message().await;
                let first = sasl_initial("SCRAM-SHA-256", b"n,,n=,r=abc");
                peer.send(&password_message(&first)).await;
                peer.message().await;
                peer.send(&password_message(last)).await;
                assert_eq!(peer.fatal().await, "SASL authentication failed");
            });
            visit.await;
        }
    }
}

#[tokio::test]
async fn the_longest_password() {
    let password = vec![b'x'; 65_535];
    let setup = Setup::new("plain").secret(std::str::from_utf8(&password).unwrap());
    let visit = setup.tcp(async |mut peer| {
        assert_eq!(peer.log_in("ann", "app", &password).await, Ok(()));
    });
    visit.await.client();
}

// TLS.

struct World {
    identity: crate::net::testing::Identity,
    _authority: Authority,
}

impl World {
    fn new() -> World {
        let authority = Authority::new("some authority");
        World {
            identity: authority.issue(&Leaf::default()),
            _authority: authority,
        }
    }

    fn pooler(&self, mode: SslMode) -> ClientTls {
        ClientTls::load(&self.identity.settings(mode))
            .unwrap()
            .unwrap()
    }

    fn client(&self) -> ServerTls {
        let settings = TlsSettings {
            mode: SslMode::Require,
            ..TlsSettings::default()
        };
        ServerTls::load(&settings).unwrap().unwrap()
    }
}

impl Peer {
    async fn ask_for_tls(mut self, world: &World) -> Peer {
        self.send(&SSL_REQUEST).await;
        assert_eq!(self.read(1).await, b"S");
        self.shake_hands(world).await
    }

    async fn shake_hands(self, world: &World) -> Peer {
        Peer {
            stream: tls::connect(self.stream, &world.client(), "")
                .await
                .unwrap(),
            is_in: self.is_in,
        }
    }
}

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];

#[tokio::test]
async fn encrypted_logins() {
    let world = World::new();
    for mode in [SslMode::Allow, SslMode::Prefer, SslMode::Require] {
        let setup = Setup::new("plain").tls(&world, mode);
        for is_direct in [false, true] {
            let visit = setup.tcp(async |mut peer| {
                peer = match is_direct {
                    true => peer.shake_hands(&world).await,
                    false => peer.ask_for_tls(&world).await,
                };
                assert_eq!(peer.log_in("ann", "app", PASSWORD).await, Ok(()));
            });
            let visit = visit.await;
            assert!(
                visit.lines()[0].contains(" tls=TLSv1.3/"),
                "{:?}",
                visit.log
            );
            assert!(
                visit
                    .client()
                    .guest
                    .tls
                    .is_some_and(|text| text.starts_with("TLSv1.3/"))
            );
        }
    }
}

#[tokio::test]
async fn who_does_not_encrypt_where_it_is_required() {
    let world = World::new();
    let asks = startup(&[("user", "ann"), ("database", "app")]);
    let required = Setup::new("trust").tls(&world, SslMode::Require);
    check_told_later(&required, &asks, "SSL required").await;
    // A Unix socket is exempt, and never encrypted.
    let visit = required.unix(async |mut peer| {
        peer.send(&SSL_REQUEST).await;
        assert_eq!(peer.read(1).await, b"N");
        peer.send(&asks).await;
    });
    visit.await.client();
    let preferred = Setup::new("trust").tls(&world, SslMode::Prefer);
    preferred
        .tcp(async |mut peer| peer.send(&asks).await)
        .await
        .client();
}

#[tokio::test]
async fn requests_for_encryption_that_cannot_be_met() {
    let setup = Setup::new("trust");
    let visit = setup.tcp(async |mut peer| {
        for request in [GSSENC_REQUEST, SSL_REQUEST, SSL_REQUEST] {
            peer.send(&request).await;
            assert_eq!(peer.read(1).await, b"N");
        }
        peer.start("ann", "app").await;
    });
    visit.await.client();
    let visit = setup.tcp(async |mut peer| {
        for _ in 0..knock::FIRST_PACKETS_MAX {
            peer.send(&SSL_REQUEST).await;
            assert_eq!(peer.read(1).await, b"N");
        }
        peer.end().await;
    });
    assert_eq!(
        visit.await.lines(),
        ["LOG closing because: bad packet (age=0s)"]
    );
    // Direct TLS, which is not on.
    let hello = b"\x16\x03\x01\x02\0\x01\0\x01";
    check_told_later(&setup, hello, "bad packet header: '1603010200010001'").await;
}

#[tokio::test]
async fn plaintext_behind_a_request_for_encryption() {
    let world = World::new();
    let rest = startup(&[("user", "ann"), ("database", "app")]);
    for setup in [
        Setup::new("trust"),
        Setup::new("trust").tls(&world, SslMode::Prefer),
    ] {
        let bytes = [&SSL_REQUEST[..], &rest].concat();
        check_told_later(
            &setup,
            &bytes,
            "received unencrypted data after SSL request",
        )
        .await;
        let bytes = [&GSSENC_REQUEST[..], &rest].concat();
        let text = "received unencrypted data after GSSAPI encryption request";
        check_told_later(&setup, &bytes, text).await;
    }
}

#[tokio::test]
async fn a_request_for_tls_inside_tls() {
    let world = World::new();
    let setup = Setup::new("trust").tls(&world, SslMode::Prefer);
    let visit = setup.tcp(async |peer| {
        let mut peer = peer.ask_for_tls(&world).await;
        peer.send(&SSL_REQUEST).await;
        peer.end().await;
    });
    let expected = "LOG closing because: SSL request inside SSL (age=0s)";
    assert_eq!(visit.await.lines(), [expected]);
}

#[tokio::test]
async fn a_handshake_that_fails() {
    let world = World::new();
    let setup = Setup::new("trust").tls(&world, SslMode::Prefer);
    let visit = setup.tcp(async |mut peer| {
        peer.send(&SSL_REQUEST).await;
        assert_eq!(peer.read(1).await, b"S");
        peer.send(&startup(&[("user", "ann")])).await;
        let _ = peer.stream.read_some(&mut [0; 64]).await;
    });
    let lines = visit.await.lines();
    assert!(
        lines[0].starts_with("WARNING TLS handshake error: "),
        "{lines:?}"
    );
    assert_eq!(
        lines[1],
        "LOG closing because: client unexpected eof (age=0s)"
    );
}

// The console.

#[tokio::test]
async fn console_users() {
    let mut setup = Setup::new("plain")
        .set("admin_users", "ann, boss")
        .set("stats_users", "looker");
    setup
        .users
        .push_str("\"looker\" \"pencil\"\n\"other\" \"pencil\"\n");
    for (user, role) in [("ann", ConsoleRole::Admin), ("looker", ConsoleRole::Stats)] {
        let visit = setup.tcp(async |mut peer| {
            assert_eq!(peer.log_in(user, "pgbouncer", PASSWORD).await, Ok(()));
        });
        let console = visit.await.console();
        assert_eq!((&console.user[..], console.role), (user, role));
        assert_eq!(setup.admission.database_clients("pgbouncer"), 1);
    }
    let visit = setup.tcp(async |mut peer| {
        let got = peer.log_in("ann", "pgbouncer", b"wrong").await;
        assert_eq!(got, Err("password authentication failed".to_owned()));
    });
    visit.await;
    let others = startup(&[("user", "other"), ("database", "pgbouncer")]);
    check_told_later(&setup, &others, "not allowed").await;
    // Listed, but nobody knows its secret.
    let visit = setup.tcp(async |mut peer| {
        assert!(peer.log_in("boss", "pgbouncer", PASSWORD).await.is_err());
    });
    visit.await;
}

#[tokio::test]
async fn our_own_uid_needs_no_proof_on_the_unix_socket() {
    let mut setup = Setup::new("plain").set("max_client_conn", "0");
    setup.console_uid = nix::unistd::geteuid().as_raw();
    setup.admission.set_entrance(Entrance::Closed);
    let visit = setup
        .unix(async |mut peer| peer.start("pgbouncer", "pgbouncer").await)
        .await;
    assert_eq!(visit.lines(), ["LOG pgbouncer access from unix socket"]);
    let who = format!("(nodb)/pgbouncer@unix({}):6432", std::process::id());
    assert!(visit.log[0].contains(&who), "{:?}", visit.log);
    let console = visit.console();
    assert_eq!(
        (&console.user[..], console.role),
        ("pgbouncer", ConsoleRole::Admin)
    );
    drop(console);

    // Another name, another uid, another way in.
    let own = startup(&[("user", "pgbouncer"), ("database", "pgbouncer")]);
    check_told_later(&setup, &own, "not allowed").await;
    for (user, uid) in [("ann", setup.console_uid), ("pgbouncer", NOBODY)] {
        setup.console_uid = uid;
        let visit = setup.unix(async |mut peer| {
            peer.start(user, "pgbouncer").await;
            assert_eq!(peer.fatal().await, "not allowed");
        });
        visit.await;
    }
}

#[tokio::test]
async fn the_console_under_any() {
    let setup = Setup::new("any").set("admin_users", "ann");
    for (user, role) in [("ann", ConsoleRole::Admin), ("whoever", ConsoleRole::Stats)] {
        let visit = setup.tcp(async |mut peer| peer.start(user, "pgbouncer").await);
        let console = visit.await.console();
        assert_eq!((&console.user[..], console.role), ("pgbouncer", role));
    }
}

#[tokio::test]
async fn limits_hold_for_those_who_look_but_not_for_administrators() {
    let mut setup = Setup::new("trust")
        .set("admin_users", "ann")
        .set("stats_users", "looker")
        .set("max_db_client_connections", "1")
        .set("max_client_conn", "1");
    setup.users.push_str("\"looker\" \"x\"\n");
    let enter = async |user: &str| {
        setup
            .tcp_beside(async |mut peer| peer.start(user, "pgbouncer").await)
            .await
            .arrival
    };
    let looker = enter("looker").await;
    assert!(looker.is_some());
    assert!(enter("looker").await.is_none());
    let administrators = (enter("ann").await, enter("ann").await);
    assert!(administrators.0.is_some() && administrators.1.is_some());
}

// Whatever happens.

/// Drops the reception of a client after any number of steps: every count is what it was.
#[tokio::test]
async fn nothing_is_left_of_a_reception_that_is_dropped() {
    let setup = Setup::new("scram-sha-256").set("scram_iterations", "2");
    let desk = setup.desk();
    let mut is_over = false;
    for steps_max in 0..1000 {
        if is_over {
            break;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let far = Stream::from(listener.accept().await.unwrap().0);
        let script = tokio::spawn(async move {
            let mut near = Stream::from(near);
            for byte in startup(&[("user", "ann"), ("database", "app")]) {
                let _ = near.write_all(&[byte]).await;
                tokio::task::yield_now().await;
            }
            let _ = soon(near.readable()).await;
            let first = password_message(&sasl_initial("SCRAM-SHA-256", b"n,,n=,r=abc"));
            for byte in first.into_iter().chain(password_message(b"nonsense")) {
                let _ = near.write_all(&[byte]).await;
                tokio::task::yield_now().await;
            }
            // Stays for the farewell.
            let mut rest = [0; 256];
            while matches!(soon(near.read_some(&mut rest)).await, Ok(1..)) {}
        });
        is_over = steps(
            receive(far, &desk, &setup.admission, &setup.directory),
            steps_max,
        )
        .await;
        let admission = &setup.admission;
        let counts = (
            admission.database_clients("app"),
            admission.user_clients("ann"),
        );
        assert_eq!(
            (admission.sockets(), counts),
            (0, (0, 0)),
            "after {steps_max}"
        );
        script.await.unwrap();
    }
    assert!(is_over);
}

/// Polls a future this often, then drops it; true if it has ended.
async fn steps<T>(future: impl Future<Output = T>, max: usize) -> bool {
    let mut future = pin!(future);
    let mut polled = 0;
    poll_fn(|cx| {
        if polled == max {
            return Poll::Ready(false);
        }
        polled += 1;
        future.as_mut().poll(cx).map(|_| true)
    })
    .await
}

/// Logins may run on any thread.
#[test]
fn the_future_can_be_sent() {
    fn is_send(_: &impl Send) {}
    run(async {
        let (near, _far) = crate::net::testing::tcp_pair().await;
        let (desk, admission) = (Setup::new("trust").desk(), Admission::new());
        is_send(&receive(near, &desk, &admission, &Directory::default()));
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever a client sends, before its start-up packet or behind it: it does not get in, and nothing is left of it.
    #[test]
    fn any_bytes_are_survived(
        is_started: bool,
        method in 0usize..3,
        tag in prop::sample::select(vec![None, Some(b'p'), Some(0), Some(0x16)]),
        bytes in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let setup = Setup::new(["plain", "md5", "scram-sha-256"][method]).set("scram_iterations", "2");
        let visit = run(setup.tcp(async |mut peer| {
            if is_started {
                peer.start("ann", "app").await;
            }
            peer.send(&[tag.as_slice(), &bytes].concat()).await;
            let _ = peer.stream.shutdown().await;
            let mut rest = [0; 256];
            while matches!(peer.stream.read_some(&mut rest).await, Ok(1..)) {}
        }));
        prop_assert!(visit.arrival.is_none());
    }
}
