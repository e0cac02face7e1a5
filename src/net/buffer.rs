//! [`Backlog`]: bytes that a socket would not take yet.
//!
//! Most connections never need one, so it costs a pointer while empty, and its memory goes back as
//! soon as the last byte has left. It is not a general write buffer: what can be written at once is
//! written from where it was read.

use std::fmt;
use std::io;
use std::task::{Context, Poll, ready};

use super::stream::Stream;

/// Output waiting for a slow peer. Eight bytes when empty.
#[derive(Debug, Default)]
pub struct Backlog(Option<Box<Waiting>>);

#[derive(Debug)]
struct Waiting {
    bytes: Vec<u8>,
    /// How many of `bytes` the socket has taken.
    sent: usize,
}

/// The bytes do not fit under the limit; none of them was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BacklogFull {
    /// The limit that the caller had named, in bytes.
    pub limit: usize,
}

impl fmt::Display for BacklogFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "more than {} bytes wait for a peer that does not read",
            self.limit
        )
    }
}

impl std::error::Error for BacklogFull {}

impl Backlog {
    /// An empty one; allocates nothing.
    pub const fn new() -> Self {
        Backlog(None)
    }

    /// Is nothing waiting?
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// How many bytes are waiting.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// The waiting bytes, oldest first.
    pub fn as_slice(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |w| &w.bytes[w.sent..])
    }

    /// Appends `bytes`, as long as no more than `limit` bytes wait afterwards.
    ///
    /// # Errors
    /// [`BacklogFull`]; then nothing was appended.
    pub fn push(&mut self, bytes: &[u8], limit: usize) -> Result<(), BacklogFull> {
        if bytes.is_empty() {
            return Ok(());
        }
        if bytes.len() > limit.saturating_sub(self.len()) {
            return Err(BacklogFull { limit });
        }
        let waiting = self.0.get_or_insert_with(|| {
            Box::new(Waiting {
                bytes: Vec::new(),
                sent: 0,
            })
        });
        waiting.forget_sent();
        waiting.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Notes that the first `count` waiting bytes have left, and frees the memory after the last one.
    ///
    /// More than [`Backlog::len`] counts as all of them.
    pub fn advance(&mut self, count: usize) {
        if let Some(waiting) = &mut self.0 {
            waiting.sent = waiting.sent.saturating_add(count);
            if waiting.sent >= waiting.bytes.len() {
                self.0 = None;
            }
        }
    }

    /// Writes to `stream` until nothing waits, neither here nor inside its TLS layer.
    ///
    /// # Errors
    /// The stream's; `WriteZero` if it takes nothing without saying why.
    pub fn poll_flush(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            match ready!(stream.poll_write(cx, self.as_slice()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.advance(count),
            }
        }
        stream.poll_flush(cx)
    }
}

impl Waiting {
    /// Moves the unsent rest to the front, once that is no more work than what was already sent.
    fn forget_sent(&mut self) {
        if self.sent > 0 && self.sent >= self.bytes.len() - self.sent {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn an_empty_one_is_a_null_pointer() {
        assert_eq!(size_of::<Backlog>(), 8);
        let mut backlog = Backlog::new();
        backlog.push(b"", 0).unwrap();
        assert!(backlog.is_empty());
        backlog.advance(3);
        assert_eq!(backlog.len(), 0);
    }

    #[test]
    fn the_limit_refuses_whole_pushes() {
        let mut backlog = Backlog::new();
        backlog.push(b"abc", 5).unwrap();
        assert_eq!(backlog.push(b"def", 5), Err(BacklogFull { limit: 5 }));
        assert_eq!(backlog.as_slice(), b"abc");
        backlog.advance(1);
        backlog.push(b"def", 5).unwrap();
        assert_eq!(backlog.as_slice(), b"bcdef");
        // A limit that was lowered in between refuses, too.
        assert!(backlog.push(b"x", 2).is_err());
        backlog.advance(usize::MAX);
        assert!(backlog.is_empty());
    }

    #[tokio::test]
    async fn flush_waits_for_a_slow_reader_and_frees() {
        let (near, far) = tokio::net::UnixStream::pair().unwrap();
        let (mut near, mut far) = (Stream::from(near), Stream::from(far));
        let sent: Vec<u8> = (0..4_000_000_u32).map(|n| n as u8).collect();
        let mut backlog = Backlog::new();
        backlog.push(&sent, usize::MAX).unwrap();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(backlog.poll_flush(&mut near, &mut cx).is_pending());
        assert!(!backlog.is_empty());
        let mut received = vec![0; sent.len()];
        let (wrote, read) = tokio::join!(
            std::future::poll_fn(|cx| backlog.poll_flush(&mut near, cx)),
            far.read_exact(&mut received)
        );
        wrote.unwrap();
        read.unwrap();
        assert!(backlog.is_empty() && received == sent);
    }

    proptest! {
        #[test]
        fn behaves_like_a_queue(steps in proptest::collection::vec((any::<bool>(), 0_usize..40), 0..200)) {
            let mut backlog = Backlog::new();
            let mut model = VecDeque::new();
            for (n, (push, count)) in steps.into_iter().enumerate() {
                if push {
                    let bytes = vec![n as u8; count];
                    let fits = model.len() + count <= 100;
                    prop_assert_eq!(backlog.push(&bytes, 100).is_ok(), fits);
                    if fits {
                        model.extend(bytes);
                    }
                } else {
                    backlog.advance(count);
                    model.drain(..count.min(model.len()));
                }
                prop_assert_eq!(backlog.as_slice(), model.make_contiguous() as &[u8]);
                prop_assert_eq!(backlog.is_empty(), model.is_empty());
            }
        }
    }
}
