//! Servers that misbehave before they are ready.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::proto::backend;

/// The client of a server that fails to log in gets a FATAL error within a bounded time; gives its text.
async fn refused(script: Script) -> String {
    let stage = Stage::with(script, &[]).await;
    let started = Instant::now();
    let error = stage.error_at_login().await;
    assert!(error.starts_with("FATAL "), "{error}");
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "{:?}",
        started.elapsed()
    );
    stage.all_well().await;
    error
}

#[tokio::test]
async fn closes_at_once() {
    bounded(60, async {
        refused(Script::start(async |_peer| None).await).await;
        let after_startup =
            Script::start(async |mut peer: Peer| peer.startup().await.map(drop)).await;
        refused(after_startup).await;
    })
    .await;
}

#[tokio::test]
async fn is_not_hammered() {
    bounded(60, async {
        let script = Script::start(async |mut peer: Peer| peer.startup().await.map(drop)).await;
        let stage = Stage::with(script, &[("server_login_retry", "1")]).await;
        let started = Instant::now();
        let mut crowd = Vec::new();
        for _ in 0..10 {
            let mut client = stage.pooler.raw().await;
            client
                .send(&msg::startup(&[("user", "u_trust"), ("database", "bad")]))
                .await;
            crowd.push(client);
        }
        for client in &mut crowd {
            let error = client.fatal().await;
            assert!(error.starts_with("FATAL "), "{error}");
        }
        let allowed = started.elapsed().as_secs() as usize + 2;
        let made = stage.script.connections();
        assert!(
            (1..=allowed).contains(&made),
            "{made} connections in {:?}",
            started.elapsed()
        );
        stage.all_well().await;
    })
    .await;
}

#[tokio::test]
async fn says_nothing() {
    bounded(60, async {
        let error = refused(Script::start(async |mut peer: Peer| peer.hang().await).await).await;
        assert_eq!(error, "FATAL 08P01 query_wait_timeout");
    })
    .await;
}

#[tokio::test]
async fn dies_in_the_middle_of_the_welcome() {
    bounded(60, async {
        for cut in [1, 9, 30, 200, backend::welcome().len() - 1] {
            let script = Script::start(move |mut peer: Peer| async move {
                peer.startup().await?;
                peer.send(&backend::welcome()[..cut]).await
            })
            .await;
            refused(script).await;
        }
    })
    .await;
}

#[tokio::test]
async fn is_no_postgresql() {
    bounded(90, async {
        let garbage: [&[u8]; 6] = [
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\0\0\0\0\0\0\0\0\0\0\0\0",
            b"R\xff\xff\xff\xff",
            b"R\x00\x00\x00\x03",
            b"R\x7f\xff\xff\xff\0\0\0\0",
        ];
        for bytes in garbage {
            let script = Script::start(move |mut peer: Peer| async move {
                peer.startup().await?;
                peer.send(bytes).await?;
                peer.hang().await
            })
            .await;
            refused(script).await;
        }
    })
    .await;
}

#[tokio::test]
async fn endless_login_messages_cost_bounded_memory() {
    bounded(60, async {
        let script = Script::start(async |mut peer: Peer| {
            peer.startup().await?;
            peer.send(backend::auth_ok()).await?;
            for i in 0..2_000_000 {
                peer.send(backend::parameter(
                    &format!("parameter_{i}"),
                    &"v".repeat(1000),
                ))
                .await?;
            }
            peer.hang().await
        })
        .await;
        let stage = Stage::with(script, &[]).await;
        let before = stage.pooler.resident_bytes();
        let error = stage.error_at_login().await;
        assert!(error.starts_with("FATAL "), "{error}");
        let growth = stage.pooler.resident_bytes().saturating_sub(before);
        if !like_pgbouncer() {
            assert!(
                growth < 64 << 20,
                "{growth} bytes for one server's parameters"
            );
        }
        stage.all_well().await;
    })
    .await;
}

#[tokio::test]
async fn its_refusal_is_relayed() {
    bounded(60, async {
        let script = Script::start(async |mut peer: Peer| {
            peer.startup().await?;
            peer.send(backend::error(&[
                (b'S', "FATAL"),
                (b'C', "53300"),
                (b'M', "sorry, too many clients already"),
            ]))
            .await
        })
        .await;
        assert_eq!(
            refused(script).await,
            "FATAL 53300 sorry, too many clients already"
        );
    })
    .await;
}

/// CVE-2026-6666: every field of a server's error is optional.
#[tokio::test]
async fn its_error_lacks_fields() {
    not_in_pgbouncer!("it closes the connection without a word");
    bounded(90, async {
        let fields: [&[(u8, &str)]; 4] = [
            &[(b'S', "FATAL"), (b'M', "no state")],
            &[(b'C', "28000")],
            &[],
            &[(b'M', "only words")],
        ];
        for fields in fields {
            let script = Script::start(move |mut peer: Peer| async move {
                peer.startup().await?;
                peer.send(backend::error(fields)).await
            })
            .await;
            refused(script).await;
        }
        for body in [&b""[..], b"SFATAL", b"SFATAL\0Mno end", b"\0", b"M"] {
            let script = Script::start(move |mut peer: Peer| async move {
                peer.startup().await?;
                peer.send(msg::typed(b'E', body)).await
            })
            .await;
            refused(script).await;
        }
    })
    .await;
}

#[tokio::test]
async fn is_still_starting_up() {
    bounded(60, async {
        let script = Script::start(async |mut peer: Peer| {
            if peer.number < 3 {
                peer.startup().await?;
                let fields = [
                    (b'S', "FATAL"),
                    (b'C', "57P03"),
                    (b'M', "the database system is starting up"),
                ];
                return peer.send(backend::error(&fields)).await;
            }
            peer.log_in().await?;
            peer.echo().await
        })
        .await;
        let stage = Stage::with(script, &[]).await;
        let mut client = stage.client().await;
        assert_eq!(client.ok("hello").await.value(), "hello");
    })
    .await;
}

#[tokio::test]
async fn refuses_a_second_connection_while_the_first_works() {
    bounded(60, async {
        let script = Script::start(async |mut peer: Peer| {
            if peer.number > 0 {
                peer.startup().await?;
                return peer
                    .send(backend::error(&[
                        (b'S', "FATAL"),
                        (b'C', "53300"),
                        (b'M', "too many"),
                    ]))
                    .await;
            }
            peer.log_in().await?;
            loop {
                let text = peer.query().await?;
                sleep_ms(150).await;
                peer.send(backend::value(&text)).await?;
            }
        })
        .await;
        let stage = Stage::with(script, &[]).await;
        let mut clients = Vec::new();
        for i in 0..4 {
            let mut client = stage.client().await;
            client.send(&msg::query(&format!("query {i}"))).await;
            clients.push(client);
        }
        for (i, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.until_ready().await.value(), format!("query {i}"));
        }
    })
    .await;
}

#[tokio::test]
async fn asks_for_what_nobody_offers() {
    bounded(60, async {
        for request in [
            backend::auth(7, b""),
            backend::auth(2, b""),
            backend::auth(99, b"xyz"),
            backend::sasl_mechanisms(&["OAUTHBEARER"]),
        ] {
            let script = Script::start(move |mut peer: Peer| {
                let request = request.clone();
                async move {
                    peer.startup().await?;
                    peer.send(request).await?;
                    peer.hang().await
                }
            })
            .await;
            refused(script).await;
        }
    })
    .await;
}

/// Plays SCRAM with the pooler: `challenge` makes the server-first-message out of the client's nonce.
async fn scram(challenge: impl Fn(&str) -> String + Send + Sync + Clone + 'static) -> Script {
    Script::start(move |mut peer: Peer| {
        let challenge = challenge.clone();
        async move {
            peer.startup().await?;
            peer.send(backend::sasl_mechanisms(&["SCRAM-SHA-256"]))
                .await?;
            let first = peer.message().await?;
            let text = String::from_utf8_lossy(&first.body).into_owned();
            let nonce = text.split("r=").nth(1)?.to_string();
            peer.send(backend::auth(11, challenge(&nonce).as_bytes()))
                .await?;
            // Whatever comes, the proof is declared right, with a signature of nothing.
            peer.message().await?;
            peer.send(backend::auth(
                12,
                format!("v={}", STANDARD.encode([0; 32])).as_bytes(),
            ))
            .await?;
            peer.send(backend::welcome()).await?;
            peer.echo().await
        }
    })
    .await
}

fn salt() -> String {
    STANDARD.encode("0123456789abcdef")
}

/// CVE-2026-6669: a server cannot make the pooler count to a thousand million.
#[tokio::test]
async fn demands_many_scram_iterations() {
    bounded(60, async {
        for iterations in [1_000_000_000u64, 1_000_001, 4_294_967_297] {
            let script =
                scram(move |nonce| format!("r={nonce}x,s={},i={iterations}", salt())).await;
            let stage = Stage::with(script, &[]).await;
            let login = stage.error_at_login();
            let good = async {
                let mut good = stage.pooler.client("u_trust", "good").await;
                for _ in 0..50 {
                    let started = Instant::now();
                    good.ok("SELECT 1").await;
                    assert!(
                        started.elapsed() < Duration::from_secs(2),
                        "others had to wait {:?}",
                        started.elapsed()
                    );
                }
            };
            let started = Instant::now();
            let (error, ()) = tokio::join!(login, good);
            assert!(error.starts_with("FATAL "), "{error}");
            assert!(started.elapsed() < Duration::from_secs(15));
            stage.all_well().await;
        }
    })
    .await;
}

/// CVE-2026-6665 and its neighbours: nonces and challenges that are not what they should be.
#[tokio::test]
async fn sends_a_hostile_challenge() {
    bounded(180, async {
        type Challenge = fn(&str) -> String;
        let challenges: [Challenge; 14] = [
            |nonce| format!("r={nonce}{},s={},i=4096", "x".repeat(100_000), salt()),
            |_| format!("r=not-yours,s={},i=4096", salt()),
            |nonce| format!("r={nonce},s={},i=4096", salt()),
            |nonce| format!("r={nonce}x,s=!!!,i=4096"),
            |nonce| format!("r={nonce}x,s=,i=4096"),
            |nonce| format!("r={nonce}x,s={},i=0", salt()),
            |nonce| format!("r={nonce}x,s={},i=-1", salt()),
            |nonce| format!("r={nonce}x,s={},i=abc", salt()),
            |nonce| format!("r={nonce}x,s={}", salt()),
            |nonce| format!("r={nonce}x"),
            |_| String::new(),
            |_| ",,,,".into(),
            |nonce| format!("m=mandatory,r={nonce}x,s={},i=4096", salt()),
            |nonce| {
                format!(
                    "r={nonce}x,s={},i=4096",
                    STANDARD.encode("s".repeat(100_000))
                )
            },
        ];
        for challenge in challenges {
            refused(scram(challenge).await).await;
        }
    })
    .await;
}

#[tokio::test]
async fn cannot_prove_that_it_knows_the_secret() {
    bounded(60, async {
        let error = refused(scram(|nonce| format!("r={nonce}x,s={},i=4096", salt())).await).await;
        assert!(!error.contains("u_trust_pw"));
    })
    .await;
}

#[tokio::test]
async fn everything_comes_byte_by_byte() {
    bounded(60, async {
        let script = Script::start(async |mut peer: Peer| {
            peer.startup().await?;
            peer.send_slowly(backend::welcome()).await?;
            loop {
                let text = peer.query().await?;
                peer.send_slowly(backend::value(&text)).await?;
            }
        })
        .await;
        let stage = Stage::with(script, &[]).await;
        let mut client = stage.client().await;
        for text in ["one", "two", "three"] {
            assert_eq!(client.ok(text).await.value(), text);
        }
        client.close().await;
        stage.all_well().await;
    })
    .await;
}
