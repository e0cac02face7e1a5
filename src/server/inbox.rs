//! Reading messages during a login: bytes that have arrived on a [`Stream`] and were not taken yet.
//!
//! Both logins use it, the pooler's at a server and a client's at the pooler. It is not for the query path: it holds whole
//! messages, within a limit that the caller names before anything is allocated, and it owns its stream.

use std::fmt;
use std::io;

use zeroize::Zeroizing;

use crate::net::Stream;
use crate::wire::frame::{BadLength, HEADER_LEN, Header, header};

/// Bytes asked of the socket at once. Memory grows with what has arrived, never with what was announced.
const READ_BYTES: usize = 4096;

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
pub struct Inbox {
    stream: Stream,
    held: Zeroizing<Vec<u8>>,
    /// How many of the held bytes were taken.
    taken: usize,
}

impl Inbox {
    /// An inbox from whose stream nothing was read yet.
    pub fn new(stream: Stream) -> Inbox {
        Inbox {
            stream,
            held: Zeroizing::default(),
            taken: 0,
        }
    }

    /// The stream, for writing and for looking at it.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// The bytes that have arrived and were not taken.
    pub fn held(&self) -> &[u8] {
        &self.held[self.taken..]
    }

    /// The stream, and the bytes that were read from it and not taken.
    pub fn into_parts(self) -> (Stream, Vec<u8>) {
        let rest = self.held().to_vec();
        (self.stream, rest)
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
        let count = self.stream.read_some(&mut room.held[end..]).await?;
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
