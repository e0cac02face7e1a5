//! Servers that fail in the middle of their work.

use std::time::{Duration, Instant};

use super::*;
use crate::proto::{Frame, backend};

const CRASHED: &str = "FATAL 08P01 server conn crashed?";

/// A server that logs in, waits for the first query, says `bytes` and then closes or hangs. Later connections work.
async fn fails_once(bytes: Vec<u8>, hang: bool) -> Script {
    Script::start(move |mut peer: Peer| {
        let bytes = bytes.clone();
        async move {
            peer.log_in().await?;
            if peer.number > 0 {
                return peer.echo().await;
            }
            peer.query().await?;
            peer.send(bytes).await?;
            if hang { peer.hang().await } else { None }
        }
    })
    .await
}

/// Everything that a client still gets after its query: whole frames, and the bytes of a last one that was cut.
async fn rest(client: &mut Conn) -> (Vec<Frame>, Vec<u8>) {
    client.send(&msg::query("SELECT 'doomed'")).await;
    client.until_closed_anyhow().await
}

fn half_a_result() -> Vec<u8> {
    [
        backend::one_column("v"),
        backend::row("first"),
        backend::row("second"),
    ]
    .concat()
}

#[tokio::test]
async fn dies_before_the_answer() {
    bounded(60, async {
        let stage = Stage::with(fails_once(vec![], false).await, &[]).await;
        let mut client = stage.client().await;
        let (frames, cut) = rest(&mut client).await;
        assert_eq!(
            frames.iter().map(Frame::error_text).collect::<Vec<_>>(),
            [CRASHED]
        );
        assert!(cut.is_empty());
        assert_eq!(stage.client().await.ok("again").await.value(), "again");
        stage.all_well().await;
    })
    .await;
}

#[tokio::test]
async fn dies_between_rows() {
    bounded(60, async {
        let stage = Stage::with(fails_once(half_a_result(), false).await, &[]).await;
        let mut client = stage.client().await;
        let (frames, cut) = rest(&mut client).await;
        let tags: String = frames.iter().map(|f| char::from(f.tag)).collect();
        assert_eq!((tags.as_str(), cut.len()), ("TDDE", 0));
        assert_eq!(frames[3].error_text(), CRASHED);
        stage.all_well().await;
    })
    .await;
}

/// A frame that was begun cannot be followed by an error: the client would read that as the frame's rest.
#[tokio::test]
async fn dies_inside_a_row() {
    not_in_pgbouncer!("it puts its error into the row");
    bounded(60, async {
        for (size, hang) in [(20, false), (200_000, false), (20, true), (200_000, true)] {
            let row = backend::row(&"x".repeat(size));
            let bytes = [&half_a_result()[..], &row[..row.len() - 7]].concat();
            let stage = Stage::with(fails_once(bytes, hang).await, &[("query_timeout", "1")]).await;
            let mut client = stage.client().await;
            let (frames, cut) = rest(&mut client).await;
            let expected = if hang {
                "FATAL 08P01 query timeout"
            } else {
                CRASHED
            };
            if cut.is_empty() {
                assert_eq!(
                    frames.last().map(Frame::error_text).as_deref(),
                    Some(expected),
                    "{size} {hang}"
                );
            } else {
                assert!(
                    row.starts_with(&cut),
                    "something else was put into the row: {} bytes",
                    cut.len()
                );
            }
            assert_eq!(stage.client().await.ok("again").await.value(), "again");
            stage.all_well().await;
        }
    })
    .await;
}

#[tokio::test]
async fn answers_late() {
    bounded(60, async {
        let script = Script::start(async |mut peer: Peer| {
            peer.log_in().await?;
            loop {
                let text = peer.query().await?;
                sleep_ms(1_200).await;
                peer.send(backend::value(&text)).await?;
            }
        })
        .await;
        let stage = Stage::with(script, &[]).await;
        let mut client = stage.client().await;
        assert_eq!(client.ok("patience").await.value(), "patience");
        client.close().await;
        stage.all_well().await;
    })
    .await;
}

#[tokio::test]
async fn never_answers() {
    bounded(60, async {
        let stage = Stage::with(fails_once(vec![], true).await, &[("query_timeout", "1")]).await;
        let mut client = stage.client().await;
        let (frames, _) = rest(&mut client).await;
        assert_eq!(
            frames.last().map(Frame::error_text).as_deref(),
            Some("FATAL 08P01 query timeout")
        );
        stage.all_well().await;
    })
    .await;
}

/// Frames with impossible lengths or unknown tags: the server is lost, its client is told, nothing is allocated.
#[tokio::test]
async fn speaks_nonsense() {
    not_in_pgbouncer!("it puts its error into a frame of the server");
    bounded(120, async {
        let nonsense: [&[u8]; 8] = [
            b"D\0\0\0\0",
            b"D\0\0\0\x03",
            b"D\xff\xff\xff\xff",
            b"D\x80\0\0\0",
            b"\0\0\0\0\0\0",
            b"?\0\0\0\x04",
            b"Z\0\0\0\x04",
            b"HTTP/1.1 200 OK\r\n\r\n",
        ];
        for bytes in nonsense {
            let stage = Stage::with(
                fails_once(bytes.to_vec(), true).await,
                &[("query_timeout", "2")],
            )
            .await;
            let before = stage.pooler.resident_bytes();
            let mut client = stage.client().await;
            let started = Instant::now();
            let (frames, cut) = rest(&mut client).await;
            let told = frames.last().is_some_and(|f| f.is(b'E'));
            assert!(
                told || bytes.starts_with(&cut) && !cut.is_empty(),
                "{bytes:?}: {frames:?} {cut:?}"
            );
            assert!(started.elapsed() < Duration::from_secs(10));
            assert!(
                stage.pooler.resident_bytes().saturating_sub(before) < 32 << 20,
                "{bytes:?}"
            );
            assert_eq!(stage.client().await.ok("again").await.value(), "again");
            stage.all_well().await;
        }
    })
    .await;
}

/// The largest frame there is may begin, its bytes are passed on, never kept.
#[tokio::test]
async fn announces_two_gigabytes() {
    bounded(60, async {
        let script = Script::start(async |mut peer: Peer| {
            peer.log_in().await?;
            peer.query().await?;
            peer.send([&backend::one_column("v")[..], b"D\x7f\xff\xff\xff"].concat())
                .await?;
            let chunk = vec![b'x'; 1 << 20];
            for _ in 0..100 {
                peer.send(&chunk).await?;
            }
            None
        })
        .await;
        let stage = Stage::with(script, &[]).await;
        let before = stage.pooler.resident_bytes();
        let mut client = stage.client().await;
        client.send(&msg::query("SELECT 'big'")).await;
        let bytes = client.drain().await;
        let growth = stage.pooler.resident_bytes().saturating_sub(before);
        assert!(
            growth < 32 << 20,
            "{growth} bytes more for a frame of {bytes}"
        );
        stage.all_well().await;
    })
    .await;
}

/// A server that does not read: the client's bytes wait at the client, not in the pooler.
#[tokio::test]
async fn reads_nothing() {
    bounded(60, async {
        let stage = Stage::with(fails_once(vec![], true).await, &[("query_timeout", "4")]).await;
        let before = stage.pooler.resident_bytes();
        let mut client = stage.client().await;
        client.send(&msg::query("SELECT 1")).await;
        // The script has read its one query and reads no more.
        let chunk = msg::query(&"y".repeat(1 << 20));
        let mut most = 0;
        for _ in 0..200 {
            let sent =
                tokio::time::timeout(Duration::from_millis(500), client.try_send(&chunk)).await;
            most = most.max(stage.pooler.resident_bytes().saturating_sub(before));
            if !matches!(sent, Ok(Ok(()))) {
                break;
            }
        }
        assert!(
            most < 32 << 20,
            "the pooler keeps {most} bytes for a server that does not read"
        );
        drop(client);
        stage.all_well().await;
    })
    .await;
}

#[tokio::test]
async fn never_closes() {
    bounded(60, async {
        let script = Script::start(async |mut peer: Peer| {
            peer.log_in().await?;
            while peer.message().await.is_some_and(|m| !m.is(b'X')) {
                peer.send(backend::value("v")).await?;
            }
            peer.hang().await
        })
        .await;
        let stage = Stage::with(script, &[("server_idle_timeout", "1")]).await;
        // Threads and their parts exist only once they have worked.
        stage.all_well().await;
        let before = stage.pooler.open_files();
        for _ in 0..3 {
            let mut client = stage.client().await;
            client.ok("x").await;
            client.send(&msg::query("BEGIN")).await;
            client.until_ready().await;
            drop(client);
        }
        let servers = || async {
            stage
                .pooler
                .show("SERVERS")
                .await
                .find(&[("database", "bad")])
                .is_some()
        };
        wait_until("the servers to be forgotten", || async { !servers().await }).await;
        wait_until("their sockets to be closed", || async {
            stage.pooler.open_files() <= before + 1
        })
        .await;
        stage.all_well().await;
    })
    .await;
}
