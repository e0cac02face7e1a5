//! Streams over real sockets: reading, the end of the stream, and moving between runtimes mid-traffic.

use super::*;
use crate::net::testing::{run, soon, tcp_pair, tls_pair, unix_pair};
use proptest::prelude::*;
use std::sync::mpsc;
use std::thread;

fn poll_once<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    poll(&mut Context::from_waker(std::task::Waker::noop()))
}

/// Waits until the kernel has something for `stream`, whatever the reactor knows of it.
async fn until_input_waits(stream: &mut Stream) {
    soon(async {
        while !stream.input_waiting().unwrap() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[test]
fn a_stream_is_small_and_its_detached_form_can_be_sent() {
    assert!(size_of::<Stream>() <= 64, "{}", size_of::<Stream>());
    fn can_be_sent<T: Send + 'static>() {}
    can_be_sent::<DetachedStream>();
}

async fn pairs() -> [(&'static str, (Stream, Stream)); 3] {
    [
        ("tcp", tcp_pair().await),
        ("unix", unix_pair()),
        ("tls", tls_pair().await),
    ]
}

#[test]
fn readable_sees_bytes_then_nothing_then_the_end() {
    run(async {
        for (kind, (mut near, mut far)) in pairs().await {
            assert!(
                poll_once(|cx| near.poll_readable(cx)).is_pending(),
                "{kind}"
            );
            assert!(!near.input_waiting().unwrap());
            far.write_all(b"four").await.unwrap();
            for _ in 0..3 {
                assert_eq!(near.readable().await.unwrap(), Readable::Bytes, "{kind}");
            }
            assert!(near.input_waiting().unwrap());
            assert_eq!(near.peek_first_byte().await.unwrap(), Some(b'f'), "{kind}");
            // A buffer of exactly the right size: the reactor still believes there is more.
            let mut buf = [0; 4];
            near.read_exact(&mut buf).await.unwrap();
            assert_eq!(&buf, b"four");
            assert!(
                poll_once(|cx| near.poll_readable(cx)).is_pending(),
                "{kind}"
            );
            assert!(!near.input_waiting().unwrap());

            far.write_all(b"last").await.unwrap();
            far.shutdown().await.unwrap();
            assert_eq!(near.readable().await.unwrap(), Readable::Bytes, "{kind}");
            near.read_exact(&mut buf).await.unwrap();
            for _ in 0..3 {
                assert_eq!(near.readable().await.unwrap(), Readable::Eof, "{kind}");
            }
            assert_eq!(near.peek_first_byte().await.unwrap(), None, "{kind}");
            assert_eq!(near.read_some(&mut buf).await.unwrap(), 0, "{kind}");
            // Our half is still open.
            near.write_all(b"bye").await.unwrap();
            far.read_exact(&mut buf[..3]).await.unwrap();
            assert_eq!(&buf[..3], b"bye", "{kind}");
        }
    });
}

#[test]
fn a_waiting_task_is_woken_by_the_peers_end() {
    run(async {
        for (kind, (mut near, far)) in pairs().await {
            let waiting = tokio::spawn(async move { near.readable().await });
            tokio::task::yield_now().await;
            // Dropped without farewell, which on TLS is an end as well.
            drop(far);
            let seen = soon(waiting).await.unwrap().unwrap();
            assert_eq!(seen, Readable::Eof, "{kind}");
        }
    });
}

#[test]
fn a_rude_end_of_tls_reads_as_the_end() {
    run(async {
        let (mut near, mut far) = tls_pair().await;
        far.write_all(b"x").await.unwrap();
        drop(far);
        let mut buf = [0; 8];
        assert_eq!(near.read_some(&mut buf).await.unwrap(), 1);
        for _ in 0..3 {
            assert_eq!(near.read_some(&mut buf).await.unwrap(), 0);
            assert_eq!(near.readable().await.unwrap(), Readable::Eof);
        }
        let error = near.read_exact(&mut buf).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn a_reset_is_an_error() {
    run(async {
        let (mut near, far) = tcp_pair().await;
        let Transport::Plain(Movable::Tcp(socket)) = &far.0 else {
            unreachable!()
        };
        socket2::SockRef::from(socket)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
        drop(far);
        let error = near.readable().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn plaintext_smuggled_in_before_tls_is_noticed() {
    run(async {
        let request = [0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f];
        for (honest, extra) in [(true, &b""[..]), (false, b"Q\0\0\0\x0bSELECT 1")] {
            let (mut near, mut far) = tcp_pair().await;
            let sent = [&request, extra].concat();
            near.write_all(&sent).await.unwrap();
            let mut received = [0; 8];
            far.read_exact(&mut received).await.unwrap();
            assert_eq!(received, request);
            assert_eq!(far.input_waiting().unwrap(), !honest);
        }
    });
}

#[test]
fn the_end_of_the_stream_is_not_waiting_input() {
    run(async {
        let (near, mut far) = tcp_pair().await;
        drop(near);
        assert_eq!(far.readable().await.unwrap(), Readable::Eof);
        assert!(!far.input_waiting().unwrap());
    });
}

#[test]
fn facts_about_a_connection() {
    run(async {
        let (plain, far) = tcp_pair().await;
        assert!(!plain.is_tls() && !plain.is_unix() && !plain.wants_flush());
        assert_eq!(plain.tls_version_text(), None);
        assert_eq!(plain.peer_certificate(), None);
        assert_eq!(
            plain.peer_addr().unwrap(),
            PeerAddr::Tcp(far.local_addr().unwrap().unwrap())
        );
        let (near, far) = tls_pair().await;
        assert!(near.is_tls() && far.is_tls());
        assert!(near.peer_certificate().is_some() && far.peer_certificate().is_none());
        let twice = super::super::tls::accept(far, &any_client_tls()).await;
        assert_eq!(
            twice.unwrap_err().kind(),
            io::ErrorKind::InvalidInput,
            "TLS inside TLS"
        );
    });
}

fn any_client_tls() -> tls::ClientTls {
    use crate::net::testing::{Authority, Leaf};
    let leaf = Authority::new("x");
    let identity = leaf.issue(&Leaf::default());
    let loaded = tls::ClientTls::load(&identity.settings(tls::SslMode::Require));
    loaded.unwrap().unwrap()
}

#[test]
fn vectored_writes_arrive_in_order() {
    run(async {
        for (kind, (mut near, mut far)) in pairs().await {
            let parts = [
                IoSlice::new(b"one"),
                IoSlice::new(b""),
                IoSlice::new(b"two"),
            ];
            let count = poll_fn(|cx| near.poll_write_vectored(cx, &parts)).await;
            assert_eq!(count.unwrap(), 6, "{kind}");
            poll_fn(|cx| near.poll_flush(cx)).await.unwrap();
            let mut buf = [0; 6];
            far.read_exact(&mut buf).await.unwrap();
            assert_eq!(&buf, b"onetwo", "{kind}");
        }
    });
}

#[test]
fn bytes_waiting_in_the_kernel_and_in_tls_survive_a_move() {
    for kind in 0..3 {
        let (detached, mut sent) = run(async move {
            let [a, b, c] = pairs().await;
            let (_, (mut near, mut far)) = [a, b, c].into_iter().nth(kind).unwrap();
            far.write_all(b"abcdef").await.unwrap();
            until_input_waits(&mut near).await;
            let mut first = [0; 2];
            // On TLS the other four are decrypted now, and wait inside.
            near.read_exact(&mut first).await.unwrap();
            assert_eq!(&first, b"ab");
            far.write_all(b"ghi").await.unwrap();
            (near.detach().unwrap(), vec![far.detach().unwrap()])
        });
        run(async move {
            let mut near = detached.attach().unwrap();
            let mut far = sent.pop().unwrap().attach().unwrap();
            let mut rest = [0; 7];
            near.read_exact(&mut rest).await.unwrap();
            assert_eq!(&rest, b"cdefghi");
            near.write_all(b"thanks").await.unwrap();
            far.read_exact(&mut rest[..6]).await.unwrap();
            assert_eq!(&rest[..6], b"thanks");
        });
    }
}

/// The byte at each place of the traffic in one direction.
fn pattern(seed: u64, place: usize) -> u8 {
    (place as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(seed)
        .to_be_bytes()[0]
}

/// One end's view of the traffic: how far it is, in both directions.
struct Traffic {
    seed_out: u64,
    seed_in: u64,
    total: usize,
    sent: usize,
    flushed: bool,
    received: usize,
    random: u64,
}

impl Traffic {
    fn new(seed_out: u64, seed_in: u64, total: usize) -> Self {
        Traffic {
            seed_out,
            seed_in,
            total,
            sent: 0,
            flushed: true,
            received: 0,
            random: seed_out | 1,
        }
    }

    fn random_below(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % limit as u64) as usize
    }

    /// A small or a large chunk, so that buffers end up half full in every way.
    fn random_chunk(&mut self) -> usize {
        let limit = [8, 300, 5_000, 70_000][self.random_below(4)];
        1 + self.random_below(limit)
    }

    fn is_done(&self) -> bool {
        self.sent == self.total && self.flushed && self.received == self.total
    }

    /// Sends and receives a little; ready as soon as anything has moved.
    fn poll_step(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<()> {
        let written = self.poll_send(stream, cx);
        let read = self.poll_receive(stream, cx);
        match written.is_ready() || read.is_ready() || self.is_done() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn poll_send(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<()> {
        if self.sent == self.total {
            if self.flushed {
                return Poll::Pending;
            }
            ready!(stream.poll_flush(cx)).unwrap();
            self.flushed = true;
            return Poll::Ready(());
        }
        let end = self.total.min(self.sent + self.random_chunk());
        let chunk: Vec<u8> = (self.sent..end)
            .map(|place| pattern(self.seed_out, place))
            .collect();
        self.sent += ready!(stream.poll_write(cx, &chunk)).unwrap();
        self.flushed = false;
        Poll::Ready(())
    }

    fn poll_receive(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<()> {
        if self.received == self.total {
            return Poll::Pending;
        }
        let mut buf = vec![0; self.random_chunk()];
        let count = ready!(stream.poll_read(cx, &mut buf)).unwrap();
        assert!(count > 0, "stream ended after {} bytes", self.received);
        for byte in &buf[..count] {
            assert_eq!(*byte, pattern(self.seed_in, self.received));
            self.received += 1;
        }
        Poll::Ready(())
    }
}

type Travelling = (DetachedStream, Traffic);

/// A thread with a runtime that works a little on each stream it is handed, and hands it on.
fn stop(arrivals: mpsc::Receiver<Travelling>, next: mpsc::Sender<Travelling>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for (stream, mut traffic) in arrivals {
        let left = runtime.block_on(soon(async move {
            let mut stream = stream.attach().unwrap();
            for _ in 0..1 + traffic.random_below(6) {
                poll_fn(|cx| traffic.poll_step(&mut stream, cx)).await;
            }
            (stream.detach().unwrap(), traffic)
        }));
        let done = left.1.is_done();
        // The other side has hung up once somebody is done.
        let _ = next.send(left);
        if done {
            return;
        }
    }
}

/// Sends the near end back and forth between two runtimes while the far end, on a third one, keeps
/// sending and receiving.
fn travel(near: DetachedStream, far: DetachedStream, seed: u64, total: usize) {
    let (to_one, one) = mpsc::channel();
    let (to_two, two) = mpsc::channel::<Travelling>();
    to_one
        .send((near, Traffic::new(seed, !seed, total)))
        .unwrap();
    thread::scope(|threads| {
        threads.spawn(move || stop(one, to_two));
        threads.spawn(move || stop(two, to_one));
        run(async move {
            let mut far = far.attach().unwrap();
            let mut traffic = Traffic::new(!seed, seed, total);
            while !traffic.is_done() {
                poll_fn(|cx| traffic.poll_step(&mut far, cx)).await;
            }
        });
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn a_stream_moves_between_runtimes_mid_traffic(seed: u64, total in 1_usize..400_000) {
        for kind in 0..4 {
            let (near, far) = run(async move {
                let (near, far) = match kind {
                    0 => tcp_pair().await,
                    1 => unix_pair(),
                    2 => tls_pair().await,
                    // The mover is the TLS server.
                    _ => {
                        let (client, server) = tls_pair().await;
                        (server, client)
                    }
                };
                (near.detach().unwrap(), far.detach().unwrap())
            });
            travel(near, far, seed, total);
        }
    }
}
