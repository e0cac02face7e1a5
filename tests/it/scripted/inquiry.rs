//! Servers that misbehave when `auth_query` is asked of them. The client who logs in hears of it within a bounded time, and the next
//! one is served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::proto::{backend, msg::typed};

/// A row description with so many text columns.
fn columns(count: i16) -> Vec<u8> {
    let one = backend::one_column("c");
    let column = &one[7..];
    let columns: Vec<u8> = std::iter::repeat_n(column, count as usize)
        .flatten()
        .copied()
        .collect();
    typed(b'T', &[&count.to_be_bytes()[..], &columns].concat())
}

fn row(values: &[&[u8]]) -> Vec<u8> {
    let mut body = (values.len() as i16).to_be_bytes().to_vec();
    for value in values {
        body.extend((value.len() as i32).to_be_bytes());
        body.extend(*value);
    }
    typed(b'D', &body)
}

fn begun() -> Vec<u8> {
    [typed(b'1', b""), typed(b'2', b""), columns(2)].concat()
}

fn ended() -> Vec<u8> {
    [backend::complete("SELECT 1"), backend::ready(b'I')].concat()
}

/// Everybody is who they say they are, by this secret.
fn found(name: &str) -> Vec<u8> {
    [begun(), row(&[name.as_bytes(), b"secret"]), ended()].concat()
}

/// Reads a batch up to its Sync; the parameter of its Bind. Queries of the pooler's own are answered on the way.
async fn asked(peer: &mut Peer) -> Option<String> {
    let mut name = None;
    loop {
        let frame = peer.message().await?;
        match frame.tag {
            b'B' => {
                // Two empty names, no formats, one parameter.
                let parameter = frame.body.get(2 + 2 + 2 + 4..frame.body.len() - 2)?;
                name = Some(String::from_utf8_lossy(parameter).into_owned());
            }
            b'S' => return name,
            b'Q' => {
                peer.send([backend::complete("SET"), backend::ready(b'I')].concat())
                    .await?
            }
            b'X' => return None,
            _ => {}
        }
    }
}

/// What the server does with the first question; those after it are answered properly.
#[derive(Clone)]
enum Deed {
    /// Says this, and waits.
    Say(Vec<u8>),
    /// Says this, and closes.
    Leave(Vec<u8>),
    /// Says this for ever.
    Repeat(Vec<u8>),
}

async fn script(deed: Deed) -> Script {
    let done = Arc::new(AtomicBool::new(false));
    Script::start(move |mut peer: Peer| {
        let (deed, done) = (deed.clone(), done.clone());
        async move {
            peer.log_in().await?;
            loop {
                let name = asked(&mut peer).await?;
                if done.swap(true, Ordering::SeqCst) {
                    peer.send(found(&name)).await?;
                    continue;
                }
                match &deed {
                    Deed::Say(bytes) => {
                        peer.send(bytes).await?;
                        peer.hang().await?;
                    }
                    Deed::Leave(bytes) => return peer.send(bytes).await,
                    Deed::Repeat(bytes) => loop {
                        peer.send(bytes).await?;
                    },
                }
            }
        }
    })
    .await
}

/// The first client that logs in is told this; the second gets in, up to its greeting.
async fn check(deed: Deed, told: &str) {
    let script = script(deed).await;
    let entry = format!("{} auth_user=asker", script.entry());
    let settings = [("auth_type", "plain"), ("query_timeout", "1")];
    let stage = Stage::with_entry(script, &entry, &settings).await;
    let started = std::time::Instant::now();
    let login = Conn::try_login(stage.pooler.port, "ann", "bad", Some("secret"));
    let error = login.await.err().expect("refused").error_text();
    assert_eq!(error, format!("FATAL 08P01 {told}"));
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    Conn::login(stage.pooler.port, "ann", "bad", Some("secret")).await;
    stage.pooler.wait_pool_quiet("bad", "asker").await;
    let pool = stage
        .pooler
        .pool("bad", "asker")
        .await
        .expect("it was used");
    assert_eq!(pool.servers_idle, 1, "{pool:?}");
}

const CONFIG_ERROR: &str = "bouncer config error";
const CRASHED: &str = "server conn crashed?";

#[tokio::test]
async fn it_leaves() {
    bounded(90, async {
        let whole = found("ann");
        for cut in [0, 3, 5, 12, 40, whole.len() - 1] {
            check(Deed::Leave(whole[..cut].to_vec()), CRASHED).await;
        }
    })
    .await;
}

#[tokio::test]
async fn it_falls_silent() {
    bounded(90, async {
        let whole = found("ann");
        for cut in [0, 5, 40, whole.len() - 6] {
            check(Deed::Say(whole[..cut].to_vec()), "query timeout").await;
        }
    })
    .await;
}

#[tokio::test]
async fn it_refuses() {
    bounded(90, async {
        let fields: [&[(u8, &str)]; 3] = [
            &[(b'S', "ERROR"), (b'C', "42501"), (b'M', "no")],
            &[(b'M', "no")],
            &[],
        ];
        for fields in fields {
            check(Deed::Say(backend::error(fields)), CONFIG_ERROR).await;
        }
        let late = [begun(), row(&[b"ann", b"secret"]), backend::error(&[])].concat();
        check(Deed::Say(late), CONFIG_ERROR).await;
    })
    .await;
}

#[tokio::test]
async fn it_answers_something_else() {
    bounded(120, async {
        let head = [typed(b'1', b""), typed(b'2', b"")].concat();
        let answers = [
            [&head[..], &columns(1)].concat(),
            [&head[..], &columns(3)].concat(),
            [&head[..], &typed(b'n', b"")].concat(),
            [begun(), row(&[b"ann"])].concat(),
            [begun(), row(&[b"ann", b"secret", b"more"])].concat(),
            [begun(), typed(b'D', b"\0\x02\xff\xff\xff\xfe")].concat(),
            [begun(), typed(b'D', b"")].concat(),
            [begun(), typed(b's', b"")].concat(),
            [begun(), typed(b'H', b"\0\0\0")].concat(),
            [begun(), row(&[&[b'u'; 200], b"secret"])].concat(),
            [
                begun(),
                row(&[b"ann", b"secret"]),
                backend::complete("BEGIN"),
                backend::ready(b'T'),
            ]
            .concat(),
        ];
        for answer in answers {
            check(Deed::Say(answer), CONFIG_ERROR).await;
        }
    })
    .await;
}

#[tokio::test]
async fn it_makes_no_sense() {
    bounded(90, async {
        for bytes in [
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            b"1\0\0\0\x03",
            b"D\x7f\xff\xff\xff",
            b"Z\0\0\0\x05I",
        ] {
            check(Deed::Say(bytes.to_vec()), CRASHED).await;
        }
    })
    .await;
}

#[tokio::test]
async fn it_never_ends() {
    bounded(90, async {
        check(Deed::Repeat(backend::notice("on and on")), CONFIG_ERROR).await;
        let rows = [begun(), row(&[b"ann", b"secret"])].concat();
        check(Deed::Repeat(rows), CRASHED).await;
        // As long as a message may be, and then one more.
        let endless = [begun(), row(&[b"ann", &[b's'; 60_000]]).repeat(8)].concat();
        check(Deed::Say(endless), CONFIG_ERROR).await;
    })
    .await;
}

#[tokio::test]
async fn byte_for_byte() {
    bounded(60, async {
        let script = Script::start(async |mut peer: Peer| {
            peer.log_in().await?;
            loop {
                let name = asked(&mut peer).await?;
                peer.send_slowly(found(&name)).await?;
            }
        })
        .await;
        let entry = format!("{} auth_user=asker", script.entry());
        let stage = Stage::with_entry(script, &entry, &[("auth_type", "plain")]).await;
        for _ in 0..3 {
            Conn::login(stage.pooler.port, "ann", "bad", Some("secret")).await;
        }
        let wrong = Conn::try_login(stage.pooler.port, "ann", "bad", Some("wrong")).await;
        assert!(wrong.is_err());
    })
    .await;
}
