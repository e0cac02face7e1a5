//! One client: connect, TLS, log in, ask, go.
//!
//! What is read goes through one scratch buffer per thread, borrowed only while a read is polled; a client has no buffer of its own
//! (with TLS, rustls has).

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pgweir::auth::server_login::{ServerLogin, Step};
use pgweir::wire::build;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::error::LoadError;
use super::reply::{Replies, Reply, error_text};
use super::target::{Place, Target};

/// Longest time from connect() to the first ReadyForQuery.
pub const LOGIN_SECONDS_MAX: u64 = 60;
const SCRATCH_BYTES: usize = 32 * 1024;
/// What a server answers to an SSLRequest when it has TLS.
const SSL_ACCEPTED: u8 = b'S';

/// The read buffer that the clients of one thread share.
pub type Scratch = Rc<RefCell<Box<[u8]>>>;

/// A new one.
pub fn scratch() -> Scratch {
    Rc::new(RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()))
}

/// One client, logged in.
pub struct Connection {
    stream: Stream,
    replies: Replies,
    scratch: Scratch,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// Connects and logs in, to the first ReadyForQuery; statements are not prepared yet.
    ///
    /// # Errors
    /// Whatever goes wrong, and [`LOGIN_SECONDS_MAX`].
    pub async fn open(target: &Target, scratch: &Scratch) -> Result<Connection, LoadError> {
        let limit = Duration::from_secs(LOGIN_SECONDS_MAX);
        let late = |_| LoadError::Late("login", LOGIN_SECONDS_MAX);
        timeout(limit, Connection::open_unlimited(target, scratch))
            .await
            .map_err(late)?
    }

    async fn open_unlimited(target: &Target, scratch: &Scratch) -> Result<Connection, LoadError> {
        let mut connection = Connection {
            stream: connect(target).await?,
            replies: Replies::default(),
            scratch: scratch.clone(),
        };
        connection.log_in(target).await?;
        Ok(connection)
    }

    async fn log_in(&mut self, target: &Target) -> Result<(), LoadError> {
        let mut login = ServerLogin::new(target.user.clone());
        self.send(&target.startup).await?;
        loop {
            let mut step = Ok(Step::Wait);
            let mut refused = None;
            let ready = self
                .receive(|reply, body| match reply {
                    Reply::Authentication if step.is_ok() => step = login.on_authentication(body),
                    Reply::Error => refused = Some(error_text(body)),
                    _ => {}
                })
                .await?;
            if let Some(text) = refused {
                return Err(LoadError::Refused(text));
            }
            if let Step::Send(body) = step? {
                let mut message = Vec::with_capacity(body.len() + 5);
                build::sasl_response(&mut message, &body);
                self.send(&message).await?;
            }
            if ready {
                return Ok(());
            }
        }
    }

    /// Sends what comes once after the login, if anything does.
    ///
    /// # Errors
    /// As [`ask`](Connection::ask).
    pub async fn prepare(&mut self, target: &Target) -> Result<(), LoadError> {
        if target.request.preparation.is_empty() {
            return Ok(());
        }
        self.ask(&target.request.preparation).await
    }

    /// Sends a request and waits for its ReadyForQuery.
    ///
    /// # Errors
    /// [`LoadError::Query`] when the query failed; others end the connection.
    pub async fn ask(&mut self, request: &[u8]) -> Result<(), LoadError> {
        self.ask_noting(request, |_| ()).await
    }

    /// As [`ask`](Connection::ask), and `note` is told of each reply when its last byte is here.
    ///
    /// # Errors
    /// As [`ask`](Connection::ask).
    pub async fn ask_noting(
        &mut self,
        request: &[u8],
        mut note: impl FnMut(Reply),
    ) -> Result<(), LoadError> {
        self.send(request).await?;
        let mut failed = None;
        loop {
            let ready = self
                .receive(|reply, body| {
                    note(reply);
                    if reply == Reply::Error {
                        failed = Some(error_text(body));
                    }
                })
                .await;
            match (ready, failed.take()) {
                (Ok(true), None) => return Ok(()),
                (Ok(true), Some(text)) => return Err(LoadError::Query(text)),
                (Ok(false), text) => failed = text,
                (Err(LoadError::Closed | LoadError::Io(..)), Some(text)) => {
                    return Err(LoadError::Refused(text));
                }
                (Err(error), _) => return Err(error),
            }
        }
    }

    /// Says goodbye and closes. What goes wrong here doesn't matter.
    pub async fn close(mut self, target: &Target) {
        if self.send(&target.terminate).await.is_ok() {
            let _ = self.stream.shutdown().await;
        }
    }

    /// Protocol version and cipher, when it is TLS.
    pub fn tls(&self) -> Option<String> {
        let Stream::Tls(stream) = &self.stream else {
            return None;
        };
        let session = stream.get_ref().1;
        let version = session.protocol_version()?;
        let cipher = session.negotiated_cipher_suite()?.suite();
        Some(format!("{version:?} {cipher:?}"))
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        let sent = self.stream.send(bytes).await;
        // Why the other side closed may still lie in the socket: the next read finds it, or the end.
        match sent {
            Err(error) if !is_hang_up(&error) => Err(LoadError::Io("send", error)),
            _ => Ok(()),
        }
    }

    /// Reads once and shows what came to `see`; returns whether a ReadyForQuery was among it.
    ///
    /// An error that is followed by the end of the connection before a ReadyForQuery is for the caller to put together, except
    /// when both come in one read.
    async fn receive(&mut self, mut see: impl FnMut(Reply, &[u8])) -> Result<bool, LoadError> {
        let (stream, replies) = (&mut self.stream, &mut self.replies);
        let scratch = &self.scratch;
        poll_fn(|cx| {
            let mut scratch = scratch.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(stream.poll_read(cx, &mut buffer));
            read.map_err(|error| LoadError::Io("receive", error))?;
            let mut input = buffer.filled();
            if input.is_empty() {
                return Poll::Ready(Err(LoadError::Closed));
            }
            let mut ready = false;
            while let Some(reply) = replies.next(&mut input)? {
                ready |= reply == Reply::Ready;
                see(reply, replies.body());
            }
            Poll::Ready(Ok(ready))
        })
        .await
    }
}

fn is_hang_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset)
}

async fn connect(target: &Target) -> Result<Stream, LoadError> {
    let failed = |error| LoadError::Io("connect", error);
    match (&target.place, &target.tls) {
        (Place::Unix(path), None) => {
            let stream = UnixStream::connect(path).await.map_err(failed)?;
            Ok(Stream::Unix(stream))
        }
        (Place::Unix(_), Some(_)) => Err(LoadError::NoTls),
        (Place::Tcp(address), tls) => {
            let stream = TcpStream::connect(address).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            match tls {
                None => Ok(Stream::Tcp(stream)),
                Some((connector, name)) => {
                    let stream = request_tls(stream).await?;
                    let handshake = connector.connect(name.clone(), stream).await;
                    let stream = handshake.map_err(|e| LoadError::Io("TLS handshake", e))?;
                    Ok(Stream::Tls(Box::new(stream)))
                }
            }
        }
    }
}

async fn request_tls(mut stream: TcpStream) -> Result<TcpStream, LoadError> {
    let failed = |error| LoadError::Io("asking for TLS", error);
    let mut message = Vec::new();
    build::ssl_request(&mut message);
    stream.write_all(&message).await.map_err(failed)?;
    match stream.read_u8().await.map_err(failed)? {
        SSL_ACCEPTED => Ok(stream),
        _ => Err(LoadError::NoTls),
    }
}

impl Stream {
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.write_all(bytes).await,
            Stream::Unix(stream) => stream.write_all(bytes).await,
            Stream::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown().await,
            Stream::Unix(stream) => stream.shutdown().await,
            Stream::Tls(stream) => stream.shutdown().await,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, into),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, into),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}
