//! Whole console sessions over a pipe: a client on one side, a program that writes down what it is told on the other.

mod commands;
mod extended;
mod waiting;

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::admin::fake::{Client, Fake, user};
use crate::admin::rights::Role;

/// Bytes that the pipe holds in each direction.
const PIPE: usize = 4096;

/// Runs a session of the console beside a client's script, which begins behind the login burst.
async fn with_console<F: Future<Output = ()>>(
    fake: &Fake,
    desk: &Desk,
    user: ConsoleUser,
    script: impl FnOnce(Client) -> F,
) -> Ending {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let client = async {
        let mut client = Client::new(theirs);
        client.answers().await;
        script(client).await;
    };
    tokio::join!(serve(ours, fake, desk, user), client).0
}

/// What an admin is answered, command by command.
async fn check(fake: &Fake, role: Role, script: &[(&str, &[&str])]) {
    let desk = Desk::new(Instant::now());
    let client = async |mut client: Client| {
        for (command, expected) in script {
            assert_eq!(client.ask(command).await, *expected, "{command}");
        }
        client.send(b'X', b"").await;
    };
    let ending = with_console(fake, &desk, user(role, 1), client).await;
    assert_eq!(ending, Ending::Terminated);
    assert!(desk.is_empty());
}

fn databases() -> Fake {
    Fake::with_databases(&["one", "two"])
}

/// Waits until the program has been told something.
async fn until_told(fake: &Fake) -> Vec<String> {
    loop {
        let told = fake.told();
        if !told.is_empty() {
            return told;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_login_burst() {
    let fake = Fake::default();
    Arc::make_mut(&mut fake.config.lock())
        .settings
        .login_notify_message = "hello there".to_owned();
    let desk = Desk::new(Instant::now());
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let mut client = Client::new(theirs);
    let console = serve(ours, &fake, &desk, user(Role::Admin, b'k'));
    let (ending, ()) = tokio::join!(console, async {
        let expected = [
            "R",
            "S pgbouncer.version 1.26.1",
            "S server_version 1.26.1/bouncer",
            "S client_encoding UTF8",
            "S server_encoding UTF8",
            "S DateStyle ISO",
            "S TimeZone GMT",
            "S standard_conforming_strings on",
            "S is_superuser on",
            "S application_name psql",
            "K kkkkkkkk",
            "N SNOTICE C00000 Mhello there",
        ];
        assert_eq!(client.answers().await, expected);
        drop(client);
    });
    assert_eq!(ending, Ending::Left);
}

fn refused(text: &str) -> String {
    format!("E SERROR C08P01 M{text}")
}

#[tokio::test]
async fn bad_messages_end_the_connection() {
    let cases: [(&[u8], &str); 5] = [
        (
            b"F\0\0\0\x04",
            "unsupported packet type for admin console: 70",
        ),
        (
            b"p\0\0\0\x05\0",
            "unsupported packet type for admin console: 112",
        ),
        (b"Q\0\0\0\x05x", "bad packet"),
        (b"Q\0\x01\0\x01", "bad packet header"),
        (b"Q\0\0\0\x03", "bad packet header"),
    ];
    for (bytes, text) in cases {
        let fake = databases();
        let desk = Desk::new(Instant::now());
        let ending = with_console(&fake, &desk, user(Role::Admin, 1), async |mut client| {
            client.stream.write_all(bytes).await.unwrap();
            assert_eq!(
                client.answers().await,
                [format!("E SFATAL C08P01 M{text}"), "EOF".to_owned()]
            );
        })
        .await;
        assert_eq!(ending, Ending::Fatal(text.to_owned()));
    }
}

#[tokio::test]
async fn a_long_command_is_answered_with_a_short_error() {
    let fake = databases();
    let desk = Desk::new(Instant::now());
    with_console(&fake, &desk, user(Role::Admin, 1), async |mut client| {
        let answers = client.ask(&"x".repeat(MESSAGE_MAX as usize - 5)).await;
        assert_eq!(answers.len(), 1);
        assert!(answers[0].len() < 300, "{answers:?}");
        assert_eq!(client.ask("RELOAD").await, ["C RELOAD"]);
    })
    .await;
}

/// Feeds bytes to a console; returns when it has ended.
fn feed(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let fake = databases();
        let desk = Desk::new(Instant::now());
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let (mut from, mut to) = tokio::io::split(theirs);
        let console = serve(ours, &fake, &desk, user(Role::Admin, 1));
        let send = async {
            // The console may have ended before all is sent.
            let _ = to.write_all(bytes).await;
            let _ = to.shutdown().await;
        };
        let mut answers = Vec::new();
        let receive = from.read_to_end(&mut answers);
        let all = async { tokio::join!(console, send, receive) };
        let (_, (), _) = timeout(Duration::from_secs(20), all)
            .await
            .expect("it ends");
        assert!(desk.is_empty());
    });
}

/// A message of a kind that the console knows, with a body that may fit.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![
        "(show (version|state|stats)|PAUSE one|set a=1|;){0,2}".prop_map(|text| [
            text.as_bytes(),
            b"\0"
        ]
        .concat()),
        prop::collection::vec(
            prop_oneof![Just(0u8), Just(1), Just(b'S'), Just(b'P'), any::<u8>()],
            0..20
        ),
    ];
    (prop::sample::select(b"QPBDECSHX".to_vec()), body).prop_map(|(tag, body)| {
        let len = (body.len() as u32 + 4).to_be_bytes();
        [&[tag], &len[..], &body].concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        feed(&bytes);
    }

    #[test]
    fn any_messages_are_survived(messages in prop::collection::vec(message(), 0..30)) {
        feed(&messages.concat());
    }
}
