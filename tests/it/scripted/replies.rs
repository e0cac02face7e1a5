//! Servers that say the right things at the wrong time: nothing of it may reach a client that it is not meant for.

use super::*;
use crate::proto::backend;

/// A server that says `extra` a moment after the answer to its first query; every later query is echoed.
async fn talkative(extra: Vec<u8>) -> Script {
    Script::start(move |mut peer: Peer| {
        let extra = extra.clone();
        async move {
            peer.log_in().await?;
            let text = peer.query().await?;
            peer.send(backend::value(&text)).await?;
            if peer.number == 0 {
                sleep_ms(150).await;
                peer.send(extra).await?;
            }
            peer.echo().await
        }
    })
    .await
}

/// Whatever an idle server says, the next client gets the answer to its own query and nothing else.
#[tokio::test]
async fn while_nobody_asks() {
    bounded(90, async {
        let extras = [
            backend::notice("by the way"),
            backend::parameter("TimeZone", "Asia/Kolkata"),
            backend::value("an answer to nothing"),
            backend::ready(b'I'),
            backend::ready(b'T'),
            backend::row("stray"),
            backend::error(&[(b'S', "ERROR"), (b'C', "XX000"), (b'M', "stray")]),
            backend::error(&[(b'S', "FATAL"), (b'C', "57P01"), (b'M', "leaving")]),
            b"\0\0\0\0\0garbage".to_vec(),
        ];
        for extra in extras {
            let stage = Stage::with(
                talkative(extra.clone()).await,
                &[("default_pool_size", "1")],
            )
            .await;
            let mut first = stage.client().await;
            assert_eq!(first.ok("first").await.value(), "first");
            sleep_ms(400).await;
            let mut second = stage.client().await;
            for client in [&mut second, &mut first] {
                let reply = client.query("mine").await;
                assert_eq!(
                    reply.tags(),
                    "TDCZ",
                    "after {:?}",
                    extra.escape_ascii().to_string()
                );
                assert_eq!(reply.value(), "mine");
            }
            first.close().await;
            second.close().await;
            stage.all_well().await;
        }
    })
    .await;
}

/// More answers than questions, in the same packet: the surplus must not answer the next question.
#[tokio::test]
async fn too_many_answers() {
    bounded(90, async {
        for surplus in [
            backend::ready(b'I'),
            backend::value("surplus"),
            backend::row("surplus"),
        ] {
            let script = Script::start(move |mut peer: Peer| {
                let surplus = surplus.clone();
                async move {
                    peer.log_in().await?;
                    let text = peer.query().await?;
                    peer.send([backend::value(&text), surplus].concat()).await?;
                    peer.echo().await
                }
            })
            .await;
            let stage = Stage::with(script, &[("default_pool_size", "1")]).await;
            let mut first = stage.client().await;
            first.send(&msg::query("first")).await;
            assert_eq!(first.frame().await.tag, b'T');
            first.drop_politely().await;
            let mut second = stage.client().await;
            let reply = second.query("second").await;
            let value = reply.rows().first().and_then(|r| r[0].clone());
            assert!(
                value.is_none() || value.as_deref() == Some("second"),
                "{reply:?}"
            );
        }
    })
    .await;
}

/// Asynchronous messages inside a reply are the client's.
#[tokio::test]
async fn notices_inside_a_reply_are_passed_on() {
    bounded(60, async {
        let script = Script::start(async |mut peer: Peer| {
            peer.log_in().await?;
            loop {
                peer.query().await?;
                let reply = [
                    backend::notice("before"),
                    backend::one_column("v"),
                    backend::parameter("application_name", "changed"),
                    backend::row("x"),
                    backend::notice("between"),
                    backend::complete("SELECT 1"),
                    backend::parameter("some_extension.setting", "42"),
                    backend::ready(b'I'),
                ];
                peer.send(reply.concat()).await?;
            }
        })
        .await;
        let stage = Stage::with(script, &[]).await;
        let mut client = stage.client().await;
        assert_eq!(client.query("SELECT 1").await.tags(), "NTSDNCSZ");
        client.close().await;
        stage.all_well().await;
    })
    .await;
}

/// CVE-2026-6666, in a query: the error goes to the client as it is.
#[tokio::test]
async fn errors_without_fields_are_passed_on() {
    bounded(60, async {
        let script = Script::start(async |mut peer: Peer| {
            peer.log_in().await?;
            peer.query().await?;
            peer.send([backend::error(&[(b'M', "no state")]), backend::ready(b'I')].concat())
                .await?;
            peer.query().await?;
            peer.send([backend::error(&[]), backend::ready(b'I')].concat())
                .await?;
            peer.echo().await
        })
        .await;
        let stage = Stage::with(script, &[]).await;
        let mut client = stage.client().await;
        let reply = client.query("one").await;
        assert_eq!(
            (reply.tags().as_str(), reply.frames[0].body.as_slice()),
            ("EZ", &b"Mno state\0\0"[..])
        );
        let reply = client.query("two").await;
        assert_eq!(
            (reply.tags().as_str(), reply.frames[0].body.as_slice()),
            ("EZ", &b"\0"[..])
        );
        assert_eq!(client.query("three").await.value(), "three");
        client.close().await;
        stage.all_well().await;
    })
    .await;
}

/// A reset query that is answered by an error, late, or never: the next client gets a clean server.
#[tokio::test]
async fn the_reset_fails() {
    bounded(120, async {
        // PgBouncer keeps others waiting for as long as a reset takes, even if that is for ever.
        for how in 0..if like_pgbouncer() { 2 } else { 3 } {
            let script = Script::start(move |mut peer: Peer| async move {
                peer.log_in().await?;
                if peer.number > 0 {
                    return peer.echo().await;
                }
                loop {
                    let message = peer.message().await?;
                    let text = message.texts()[0].clone();
                    let answer = match (text.as_str(), how) {
                        ("RESET ME", 0) => [
                            backend::error(&[(b'S', "ERROR"), (b'C', "XX000"), (b'M', "no")]),
                            backend::ready(b'I'),
                        ]
                        .concat(),
                        ("RESET ME", 1) => return None,
                        ("RESET ME", _) => return peer.hang().await,
                        _ => backend::value(&text),
                    };
                    peer.send(answer).await?;
                }
            })
            .await;
            let settings = [
                ("pool_mode", "session"),
                ("server_reset_query", "RESET ME"),
                ("query_wait_timeout", "45"),
            ];
            let stage = Stage::with(script, &settings).await;
            let mut first = stage.client().await;
            assert_eq!(first.ok("first").await.value(), "first");
            first.close().await;
            let mut second = stage.client().await;
            assert_eq!(second.ok("second").await.value(), "second");
        }
    })
    .await;
}
