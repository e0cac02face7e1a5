//! [`Stream`]: one connected byte stream, plain or TLS, TCP or Unix, towards a client or a server.
//!
//! It knows bytes, not messages: frames are `wire`'s business, and what is read is read into the
//! caller's buffer. A stream belongs to the runtime it was made in until [`Stream::detach`] takes it out
//! and [`DetachedStream::attach`] puts it into another. Handshakes are in [`super::tls`].

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv, send};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

pub use super::socket::PeerAddr;
use super::socket::{self, Movable, StdSocket};
use super::tls;

/// A connected byte stream of the current runtime. Dropping it closes the socket.
#[derive(Debug)]
pub struct Stream(Transport);

/// A [`Stream`] between two runtimes: it can be sent, not used. Dropping it closes the socket.
#[derive(Debug)]
pub struct DetachedStream(Transport);

#[derive(Debug)]
enum Transport {
    Plain(Movable),
    /// Boxed: a TLS connection is hundreds of bytes, and most streams have none.
    Tls(Box<TlsStream<Movable>>),
}

/// What [`Stream::poll_readable`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable {
    /// At least one byte can be read at once.
    Bytes,
    /// The peer has closed its side: a read gives zero bytes.
    Eof,
}

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        Stream(Transport::Plain(Movable::Tcp(socket)))
    }
}

impl From<UnixStream> for Stream {
    fn from(socket: UnixStream) -> Self {
        Stream(Transport::Plain(Movable::Unix(socket)))
    }
}

// Reading and writing. The `poll_` functions are the query path: no allocation, and on a plain stream
// one system call each.
impl Stream {
    /// Certain that there is nothing to read, without a look at the kernel. False says nothing.
    #[inline]
    pub fn is_silent(&self) -> bool {
        matches!(&self.0, Transport::Plain(socket) if socket.is_silent())
    }

    /// Reads what is there, up to the length of `buf`. Zero means the end of the stream (when `buf` has room).
    ///
    /// A TLS peer that closes its socket without TLS's own farewell has ended the stream as well: messages
    /// carry their length, so a cut-off one is noticed above.
    ///
    /// # Errors
    /// The socket's, or `InvalidData` when a TLS peer breaks the protocol.
    #[inline]
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Transport::Plain(Movable::Local(socket)) = &self.0 {
            return socket.poll_read(cx, buf);
        }
        let mut target = ReadBuf::new(buf);
        match &mut self.0 {
            Transport::Plain(socket) => ready!(Pin::new(socket).poll_read(cx, &mut target))?,
            Transport::Tls(tls) => {
                rude_end_is_end(ready!(Pin::new(&mut **tls).poll_read(cx, &mut target)))?;
            }
        }
        Poll::Ready(Ok(target.filled().len()))
    }

    /// Writes as much of `buf` as is taken without waiting, and says how much that was.
    ///
    /// On TLS some of what was taken may still wait inside as ciphertext: see [`Stream::wants_flush`].
    ///
    /// # Errors
    /// The socket's.
    #[inline]
    pub fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Transport::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Transport::Tls(tls) => Pin::new(&mut **tls).poll_write(cx, buf),
        }
    }

    /// As [`Stream::poll_write`], from several buffers with one system call.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Transport::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Transport::Tls(tls) => Pin::new(&mut **tls).poll_write_vectored(cx, bufs),
        }
    }

    /// Hands the kernel everything that was written. On a plain stream there is never anything to do.
    ///
    /// # Errors
    /// The socket's.
    #[inline]
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Transport::Plain(_) => Poll::Ready(Ok(())),
            Transport::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
        }
    }

    /// Says farewell (TLS `close_notify`, then the end of our half of the connection). The peer may still send.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Transport::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Transport::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
        }
    }

    /// Is there a byte to read, or the end of the stream? Takes no byte away, and makes no system call as
    /// long as the reactor has seen nothing: the check for idle server connections.
    ///
    /// TLS records without content for us (session tickets, key updates) are digested on the way and do
    /// not count.
    ///
    /// # Errors
    /// The connection is broken: a reset, or a TLS alert, or garbage instead of TLS.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Readable>> {
        let found = match &mut self.0 {
            Transport::Plain(socket) => ready!(socket.poll_peek(cx))?.is_some(),
            Transport::Tls(tls) => ready!(poll_peek_tls(tls, cx))?.is_some(),
        };
        Poll::Ready(Ok(if found {
            Readable::Bytes
        } else {
            Readable::Eof
        }))
    }

    /// Is there ciphertext that the kernel has not taken yet? Then [`Stream::poll_flush`] must be polled
    /// until it is done, even though everything written was accepted. Never true on a plain stream.
    #[inline]
    pub fn wants_flush(&self) -> bool {
        match &self.0 {
            Transport::Plain(_) => false,
            Transport::Tls(tls) => tls.get_ref().1.wants_write(),
        }
    }

    /// Input that comes in many small pieces may gather from now on before it is read, for [`NAP`](super::reactor::NAP) and where little
    /// comes for up to `nap_max`, until it pauses or this is taken back by `None`. To be said when everything has just been read; only
    /// streams on a worker's reactor listen to it.
    ///
    /// # Errors
    /// The system's; the connection is of no use then.
    pub fn set_lazy(&self, nap_max: Option<Duration>) -> io::Result<()> {
        self.0.socket().set_lazy(nap_max)
    }

    /// Whether input gathers; ends by itself when nothing comes.
    pub fn is_lazy(&self) -> bool {
        self.0.socket().is_lazy()
    }

    /// Asks the kernel (one system call) whether anything more than what was read so far has already arrived.
    ///
    /// For the moment before TLS starts: after exactly the eight bytes of an SSLRequest, or the single
    /// byte of its answer, nothing may be waiting, or somebody has smuggled plaintext in (CVE-2021-3935).
    /// On a TLS stream: is decrypted data, or anything undecrypted, waiting?
    ///
    /// # Errors
    /// The socket's.
    pub fn input_waiting(&mut self) -> io::Result<bool> {
        match &mut self.0 {
            Transport::Plain(socket) => socket.byte_waiting(),
            Transport::Tls(tls) => Ok(holds_plaintext(tls) || tls.get_ref().0.byte_waiting()?),
        }
    }
}

/// As [`Movable::poll_peek`], of the decrypted stream.
fn poll_peek_tls(
    tls: &mut TlsStream<Movable>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Option<u8>>> {
    let filled = ready!(Pin::new(tls).poll_fill_buf(cx));
    Poll::Ready(rude_end_is_end(
        filled.map(|plaintext| plaintext.first().copied()),
    ))
}

fn holds_plaintext(tls: &mut TlsStream<Movable>) -> bool {
    let first_chunk = match tls {
        TlsStream::Client(tls) => tls.get_mut().1.reader().into_first_chunk(),
        TlsStream::Server(tls) => tls.get_mut().1.reader().into_first_chunk(),
    };
    first_chunk.is_ok_and(|plaintext| !plaintext.is_empty())
}

/// Turns the error "closed without close_notify" into the end of the stream.
fn rude_end_is_end<T: Default>(result: io::Result<T>) -> io::Result<T> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(T::default()),
        other => other,
    }
}

// The same as futures, for logins and other places where a wait is simply a wait.
impl Stream {
    /// Reads at least one byte, or zero at the end of the stream. Dropping the future loses nothing.
    ///
    /// # Errors
    /// As [`Stream::poll_read`].
    pub async fn read_some(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, buf)).await
    }

    /// Fills `buf`. Dropping the future may lose bytes already read into `buf`.
    ///
    /// # Errors
    /// As [`Stream::poll_read`]; `UnexpectedEof` when the stream ends before.
    pub async fn read_exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.read_some(&mut buf[filled..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        Ok(())
    }

    /// Writes all of `bytes` and flushes. Dropping the future may leave a part written.
    ///
    /// # Errors
    /// As [`Stream::poll_write`].
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match poll_fn(|cx| self.poll_write(cx, bytes)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => bytes = &bytes[count..],
            }
        }
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// [`Stream::poll_shutdown`] as a future.
    ///
    /// # Errors
    /// The socket's.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_shutdown(cx)).await
    }

    /// [`Stream::poll_readable`] as a future.
    ///
    /// # Errors
    /// As [`Stream::poll_readable`].
    pub async fn readable(&mut self) -> io::Result<Readable> {
        poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// Waits for the first byte and leaves it where it is; `None` at the end of the stream.
    ///
    /// A start-up packet begins with 0x00, a direct TLS handshake with 0x16, and only the TLS layer may
    /// read the latter.
    ///
    /// # Errors
    /// As [`Stream::poll_readable`].
    pub async fn peek_first_byte(&mut self) -> io::Result<Option<u8>> {
        poll_fn(|cx| match &mut self.0 {
            Transport::Plain(socket) => socket.poll_peek(cx),
            Transport::Tls(tls) => poll_peek_tls(tls, cx),
        })
        .await
    }
}

// Facts about the connection.
impl Stream {
    /// Is the traffic encrypted?
    pub fn is_tls(&self) -> bool {
        matches!(self.0, Transport::Tls(_))
    }

    /// Is this a Unix socket? Those never speak TLS.
    pub fn is_unix(&self) -> bool {
        self.0.socket().is_unix()
    }

    /// Protocol and cipher as OpenSSL spells them, e.g. `TLSv1.3/TLS_AES_256_GCM_SHA384`; `None` without TLS.
    pub fn tls_version_text(&self) -> Option<&'static str> {
        match &self.0 {
            Transport::Plain(_) => None,
            Transport::Tls(tls) => tls::version_text(tls.get_ref().1),
        }
    }

    /// The certificate that the peer has presented, in DER; `None` without TLS or without certificate. On
    /// a client's stream it has been checked against the CA.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        match &self.0 {
            Transport::Plain(_) => None,
            Transport::Tls(tls) => Some(tls.get_ref().1.peer_certificates()?.first()?.as_ref()),
        }
    }

    /// Who is at the other end. A system call: keep the answer if it is needed often.
    ///
    /// # Errors
    /// `NotConnected` and the like when the peer is already gone.
    pub fn peer_addr(&self) -> io::Result<PeerAddr> {
        self.0.socket().peer_addr()
    }

    /// The address of our end; `None` for Unix sockets. A system call.
    ///
    /// # Errors
    /// The socket's.
    pub fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.0.socket().local_addr()
    }
}

// Moving between runtimes.
impl Stream {
    /// Takes the stream out of its runtime. No byte is lost: what the kernel holds stays there, and what
    /// the TLS layer holds (decrypted or not, in both directions) travels along.
    ///
    /// Wakers that were waiting on it are forgotten; whoever attaches it polls anew, including
    /// [`Stream::poll_flush`] if [`Stream::wants_flush`].
    ///
    /// # Errors
    /// The reactor refuses to let go; the socket is then closed.
    pub fn detach(mut self) -> io::Result<DetachedStream> {
        self.0.socket_mut().park()?;
        Ok(DetachedStream(self.0))
    }

    /// Splits off the bare socket of a plain stream, for a TLS handshake.
    pub(super) fn into_plain(self) -> io::Result<Movable> {
        match self.0 {
            Transport::Plain(socket) => Ok(socket),
            Transport::Tls(_) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "stream is already encrypted",
            )),
        }
    }

    pub(super) fn from_tls(tls: TlsStream<Movable>) -> Self {
        Stream(Transport::Tls(Box::new(tls)))
    }
}

/// Plain sockets that no reactor knows yet, as they come from the listener: what is there is taken at once, nothing waits. An error of
/// kind `WouldBlock` says that there is nothing now. A TLS stream refuses all of it.
impl DetachedStream {
    /// Looks at the next byte without taking it: `None` at the end of the stream.
    ///
    /// # Errors
    /// The socket's.
    pub fn peek_now(&self) -> io::Result<Option<u8>> {
        socket::peek_now(self.plain_fd()?)
    }

    /// Reads what is there, up to the length of `buf`.
    ///
    /// # Errors
    /// The socket's.
    pub fn read_now(&self, buf: &mut [u8]) -> io::Result<usize> {
        let fd = self.plain_fd()?.as_raw_fd();
        Ok(recv(fd, buf, MsgFlags::MSG_DONTWAIT)?)
    }

    /// Writes as much of `bytes` as the kernel takes.
    ///
    /// # Errors
    /// The socket's.
    pub fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let fd = self.plain_fd()?.as_raw_fd();
        Ok(send(
            fd,
            bytes,
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
        )?)
    }

    pub(super) fn plain_fd(&self) -> io::Result<BorrowedFd<'_>> {
        match &self.0 {
            Transport::Plain(socket) => socket.parked_fd(),
            Transport::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl From<std::net::TcpStream> for DetachedStream {
    /// `socket` must be non-blocking.
    fn from(socket: std::net::TcpStream) -> Self {
        DetachedStream(Transport::Plain(Movable::Parked(Some(StdSocket::Tcp(
            socket,
        )))))
    }
}

impl From<StdUnixStream> for DetachedStream {
    /// `socket` must be non-blocking.
    fn from(socket: StdUnixStream) -> Self {
        DetachedStream(Transport::Plain(Movable::Parked(Some(StdSocket::Unix(
            socket,
        )))))
    }
}

impl DetachedStream {
    /// Makes the stream belong to the runtime in which this is called.
    ///
    /// # Errors
    /// The reactor refuses it (too many watched descriptors); the socket is then closed.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn attach(mut self) -> io::Result<Stream> {
        self.0.socket_mut().unpark()?;
        Ok(Stream(self.0))
    }
}

impl Transport {
    fn socket(&self) -> &Movable {
        match self {
            Transport::Plain(socket) => socket,
            Transport::Tls(tls) => tls.get_ref().0,
        }
    }

    fn socket_mut(&mut self) -> &mut Movable {
        match self {
            Transport::Plain(socket) => socket,
            Transport::Tls(tls) => tls.get_mut().0,
        }
    }
}

#[cfg(test)]
mod tests;
