//! The console's end of the connection: the stream, what was read and not handled, what is to be sent.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Ending, MESSAGE_MAX};

/// Bytes read ahead while a command waits. A client that sends more is not read until then, and its leaving not noticed.
const READ_AHEAD_MAX: usize = 2 * MESSAGE_MAX as usize;

/// The stream and its buffers.
pub(super) struct Link<S> {
    stream: S,
    /// What was read.
    input: Vec<u8>,
    /// Bytes of it that are handled.
    handled: usize,
    /// Answers not sent yet: whole messages.
    pub(super) out: Vec<u8>,
    /// Part of a message may have been sent: nothing that is sent now would be understood.
    pub(super) is_sending: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    pub(super) fn new(stream: S) -> Self {
        Link {
            stream,
            input: Vec::new(),
            handled: 0,
            out: Vec::new(),
            is_sending: false,
        }
    }

    /// What was read and not handled yet.
    pub(super) fn unhandled(&self) -> &[u8] {
        &self.input[self.handled..]
    }

    /// Notes that as many bytes of these are handled.
    pub(super) fn consume(&mut self, n: usize) {
        self.handled += n;
        debug_assert!(self.handled <= self.input.len());
    }

    /// Reads more, behind what is unhandled. Nothing is lost when the future is dropped.
    pub(super) async fn read(&mut self) -> Result<(), Ending> {
        self.input.drain(..self.handled);
        self.handled = 0;
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) | Err(_) => Err(Ending::Left),
            Ok(_) => Ok(()),
        }
    }

    /// Reads ahead until the client leaves.
    pub(super) async fn until_left(&mut self) -> Ending {
        while self.unhandled().len() < READ_AHEAD_MAX {
            if let Err(ending) = self.read().await {
                return ending;
            }
        }
        std::future::pending().await
    }

    /// Sends all answers.
    pub(super) async fn send(&mut self) -> Result<(), Ending> {
        self.is_sending = true;
        let sent = async {
            self.stream.write_all(&self.out).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|_| Ending::Left)?;
        self.is_sending = false;
        self.out.clear();
        Ok(())
    }
}
