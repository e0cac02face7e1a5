//! Reading messages during a login: bytes that have arrived on a [`Stream`] and were not taken yet.
//!
//! Both logins use it, the pooler's at a server and a client's at the pooler. It is not for the query path: it holds whole
//! messages, within a limit that the caller names before anything is allocated, and it owns its stream.

use std::fmt;
use std::io;
use std::mem;

use zeroize::Zeroizing;

use crate::net::{DetachedStream, Stream};
use crate::wire::frame::{BadLength, HEADER_LEN, Header, header};

/// Bytes asked of the socket at once. Memory grows with what has arrived, never with what was announced.
const READ_BYTES: usize = 512;

/// Why no message could be read.
#[derive(Debug)]
pub enum InboxError {
    /// The peer has closed its side; `mid_message` when part of a message had come.
    Eof {
        /// Bytes of an unfinished message were left.
        mid_message: bool,
    },
    /// The length field is none that was acceptable here.
    Length(BadLength),
    /// The socket's error, or TLS's.
    Io(io::Error),
}

impl fmt::Display for InboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InboxError::Eof { .. } => f.write_str("unexpected eof"),
            InboxError::Length(bad) => write!(f, "bad message length {}", bad.declared),
            InboxError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for InboxError {}

impl From<io::Error> for InboxError {
    fn from(error: io::Error) -> InboxError {
        InboxError::Io(error)
    }
}

/// A stream and what was read from it ahead. What is held is wiped when dropped: it may contain a password.
///
/// One that begins with a socket that no reactor knows ([`Inbox::arrived`]) tells the reactor of it only when it would have to wait:
/// who has said everything at once costs no look at the reactor.
pub struct Inbox {
    line: Line,
    held: Zeroizing<Vec<u8>>,
    /// How many of the held bytes were taken.
    taken: usize,
}

/// The connection of a client that is logging in.
#[derive(Debug)]
pub enum Line {
    /// Of the reactor of this runtime.
    Live(Stream),
    /// Of none.
    Parked {
        /// The connection.
        stream: DetachedStream,
        /// It was read empty, or it is our turn to speak: what comes next has to be waited for.
        silent: bool,
    },
    /// Attaching has failed.
    Lost,
}

impl Line {
    /// Takes it away from its reactor.
    ///
    /// # Errors
    /// The reactor does not let go; the connection is lost then.
    pub fn park(&mut self) -> io::Result<()> {
        if let Line::Live(_) = self
            && let Line::Live(stream) = mem::replace(self, Line::Lost)
        {
            *self = Line::Parked {
                stream: stream.detach()?,
                silent: false,
            };
        }
        Ok(())
    }

    /// Makes it one of the reactor of this runtime.
    ///
    /// # Errors
    /// The reactor refuses it.
    pub fn attach(mut self) -> io::Result<Stream> {
        self.attached()?;
        match self {
            Line::Live(stream) => Ok(stream),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn attached(&mut self) -> io::Result<&mut Stream> {
        if let Line::Parked { .. } = self
            && let Line::Parked { stream, .. } = mem::replace(self, Line::Lost)
        {
            *self = Line::Live(stream.attach()?);
        }
        match self {
            Line::Live(stream) => Ok(stream),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    async fn read_some(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Line::Parked { stream, silent } = self
            && !*silent
        {
            *silent = true;
            match stream.read_now(buf) {
                Err(error) if is_to_wait(&error) => {}
                done => return done,
            }
        }
        self.attached()?.read_some(buf).await
    }
}

/// Nothing is wrong: there is nothing now, or a signal came between.
fn is_to_wait(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted)
}

impl Inbox {
    /// An inbox from whose stream nothing was read yet.
    pub fn new(stream: Stream) -> Inbox {
        Inbox::of(Line::Live(stream))
    }

    /// An inbox of a plain socket that no reactor knows yet, and from which nothing was read.
    pub fn arrived(stream: DetachedStream) -> Inbox {
        Inbox::of(Line::Parked {
            stream,
            silent: false,
        })
    }

    fn of(line: Line) -> Inbox {
        Inbox {
            line,
            held: Zeroizing::default(),
            taken: 0,
        }
    }

    /// The stream, for looking at it. From here on it is its runtime's.
    ///
    /// # Errors
    /// The reactor refuses it.
    pub fn stream(&mut self) -> io::Result<&mut Stream> {
        self.line.attached()
    }

    /// The stream, if it is its runtime's; what is not yet, is plain.
    pub fn live(&self) -> Option<&Stream> {
        match &self.line {
            Line::Live(stream) => Some(stream),
            _ => None,
        }
    }

    /// Looks at the first byte of a stream from which nothing was read, as [`Stream::peek_first_byte`].
    ///
    /// # Errors
    /// The socket's.
    pub async fn peek_first_byte(&mut self) -> io::Result<Option<u8>> {
        if let Line::Parked { stream, .. } = &self.line {
            match stream.peek_now() {
                Err(error) if is_to_wait(&error) => {}
                done => return done,
            }
        }
        self.stream()?.peek_first_byte().await
    }

    /// Has anything arrived behind what is held? See [`Stream::input_waiting`].
    ///
    /// # Errors
    /// The socket's.
    pub fn input_waiting(&mut self) -> io::Result<bool> {
        match &self.line {
            Line::Parked { stream, .. } => match stream.peek_now() {
                Ok(byte) => Ok(byte.is_some()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
                Err(error) => Err(error),
            },
            _ => self.stream()?.input_waiting(),
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// The socket's.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if let Line::Parked { stream, silent } = &mut self.line {
            *silent = true;
            match stream.write_now(bytes) {
                Ok(count) if count == bytes.len() => return Ok(()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if is_to_wait(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self.stream()?.write_all(bytes).await
    }

    /// The bytes that have arrived and were not taken.
    pub fn held(&self) -> &[u8] {
        &self.held[self.taken..]
    }

    /// The stream, and the bytes that were read from it and not taken.
    ///
    /// # Errors
    /// The reactor refuses the stream.
    pub fn into_parts(self) -> io::Result<(Stream, Vec<u8>)> {
        let (line, rest) = self.into_line();
        Ok((line.attach()?, rest))
    }

    /// As [`Inbox::into_parts`], with the stream wherever it is.
    pub fn into_line(self) -> (Line, Vec<u8>) {
        let rest = self.held().to_vec();
        (self.line, rest)
    }

    /// Takes the stream away from its reactor until it is next waited for.
    ///
    /// # Errors
    /// The reactor does not let go.
    pub fn park(&mut self) -> io::Result<()> {
        self.line.park()
    }

    /// As [`Inbox::into_parts`], with the stream out of its runtime.
    ///
    /// # Errors
    /// The reactor does not let go.
    pub fn into_detached(self) -> io::Result<(DetachedStream, Vec<u8>)> {
        let rest = self.held().to_vec();
        match self.line {
            Line::Live(stream) => Ok((stream.detach()?, rest)),
            Line::Parked { stream, .. } => Ok((stream, rest)),
            Line::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Waits until at least `len` bytes are held. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The end of the stream before that, or the socket's error.
    pub async fn fill(&mut self, len: usize) -> Result<(), InboxError> {
        while self.held().len() < len {
            if self.read_more().await? == 0 {
                let mid_message = !self.held().is_empty();
                return Err(InboxError::Eof { mid_message });
            }
        }
        Ok(())
    }

    /// Takes `len` bytes, which must be held.
    pub fn take(&mut self, len: usize) -> Zeroizing<Vec<u8>> {
        let bytes = Zeroizing::new(self.held()[..len].to_vec());
        self.taken += len;
        bytes
    }

    /// Drops `len` bytes of what is still to come, without holding more than one read of them.
    ///
    /// # Errors
    /// As [`Inbox::fill`].
    pub async fn skip(&mut self, mut len: u64) -> Result<(), InboxError> {
        while len > 0 {
            self.fill(1).await?;
            // At most what is held, which is a usize.
            let step = len.min(self.held().len() as u64);
            self.taken += step as usize;
            len -= step;
        }
        Ok(())
    }

    /// The header of the next message, which stays where it is.
    ///
    /// # Errors
    /// As [`Inbox::fill`]; [`InboxError::Length`] when the length field is below four or above `limit`.
    pub async fn peek_header(&mut self, limit: u32) -> Result<Header, InboxError> {
        self.fill(HEADER_LEN).await?;
        match header(self.held(), limit) {
            Ok(Some(header)) => Ok(header),
            Ok(None) => Err(InboxError::Eof { mid_message: true }),
            Err(bad) => Err(InboxError::Length(bad)),
        }
    }

    /// Takes the next message: its tag and its body, whose length field is at most `limit`.
    ///
    /// # Errors
    /// As [`Inbox::peek_header`].
    pub async fn message(&mut self, limit: u32) -> Result<(u8, Zeroizing<Vec<u8>>), InboxError> {
        let header = self.peek_header(limit).await?;
        // `limit` is a u32, so this fits any usize that we run on.
        let body = header.body_len() as usize;
        self.fill(HEADER_LEN + body).await?;
        self.taken += HEADER_LEN;
        Ok((header.tag, self.take(body)))
    }

    async fn read_more(&mut self) -> io::Result<usize> {
        self.forget_taken();
        let end = self.held.len();
        self.held.resize(end + READ_BYTES, 0);
        let mut room = ReadInto {
            held: &mut self.held,
            end,
        };
        let count = self.line.read_some(&mut room.held[end..]).await?;
        room.end += count;
        Ok(count)
    }

    fn forget_taken(&mut self) {
        self.held.drain(..self.taken);
        self.taken = 0;
    }
}

/// Cuts the buffer back to what was read, also when the read fails or its future is dropped.
struct ReadInto<'a> {
    held: &'a mut Vec<u8>,
    end: usize,
}

impl Drop for ReadInto<'_> {
    fn drop(&mut self) {
        self.held.truncate(self.end);
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inbox({} bytes held)", self.held().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{run, soon, tcp_pair};

    /// Who has said enough before it is looked at never meets the reactor.
    #[test]
    fn what_is_there_is_taken_without_the_reactor() {
        run(async {
            let (mut near, mut far) = tcp_pair().await;
            near.write_all(b"hello").await.unwrap();
            soon(far.readable()).await.unwrap();
            let mut inbox = Inbox::arrived(far.detach().unwrap());
            assert_eq!(inbox.peek_first_byte().await.unwrap(), Some(b'h'));
            assert!(inbox.input_waiting().unwrap());
            inbox.fill(3).await.unwrap();
            assert_eq!(inbox.take(3)[..], *b"hel");
            assert!(!inbox.input_waiting().unwrap());
            inbox.write_all(b"yes").await.unwrap();
            assert!(inbox.live().is_none());
            let (_far, rest) = inbox.into_detached().unwrap();
            assert_eq!(rest, b"lo");
            let mut answer = [0; 3];
            soon(near.read_exact(&mut answer)).await.unwrap();
            assert_eq!(&answer, b"yes");
        });
    }

    /// Whether it comes late, in pieces, or has gone: the reactor tells.
    #[test]
    fn what_is_missing_is_waited_for() {
        run(async {
            let (mut near, far) = tcp_pair().await;
            let mut inbox = Inbox::arrived(far.detach().unwrap());
            for piece in [&b"he"[..], b"ll", b"o"] {
                let missing = inbox.held().len() + piece.len();
                let (filled, written) = soon(async {
                    tokio::join!(inbox.fill(missing), async {
                        tokio::task::yield_now().await;
                        near.write_all(piece).await
                    })
                })
                .await;
                filled.unwrap();
                written.unwrap();
                assert!(inbox.live().is_some());
            }
            assert_eq!(inbox.held(), b"hello");
            drop(near);
            let ended = soon(inbox.fill(6)).await;
            assert!(matches!(ended, Err(InboxError::Eof { mid_message: true })));
        });
    }

    #[test]
    fn a_client_that_went_without_a_word_is_noticed() {
        run(async {
            let (near, mut far) = tcp_pair().await;
            drop(near);
            soon(far.readable()).await.unwrap();
            let mut inbox = Inbox::arrived(far.detach().unwrap());
            assert_eq!(inbox.peek_first_byte().await.unwrap(), None);
            let ended = inbox.fill(1).await;
            assert!(matches!(ended, Err(InboxError::Eof { mid_message: false })));
        });
    }
}
