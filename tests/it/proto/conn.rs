//! A connection: bytes out, frames in, each wait with an end.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use md5::{Digest, Md5};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, UnixStream};

use super::{Frame, Reply, msg, scram};

/// The longest that a test waits for one frame.
pub const FRAME_LIMIT: Duration = Duration::from_secs(30);

pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// One connection, of any kind of stream.
pub struct Conn {
    read: ReadHalf<Box<dyn Io>>,
    write: WriteHalf<Box<dyn Io>>,
    buffer: Vec<u8>,
    start: usize,
    /// What came with the login.
    pub login: Login,
    local: Option<SocketAddr>,
}

/// What a server says between the proof of identity and the first ReadyForQuery.
#[derive(Debug, Default, Clone)]
pub struct Login {
    pub parameters: Vec<(String, String)>,
    pub notices: Vec<Frame>,
    /// The body of BackendKeyData: what a CancelRequest carries.
    pub key: Vec<u8>,
}

impl Login {
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

impl Conn {
    fn over(stream: Box<dyn Io>) -> Conn {
        let (read, write) = tokio::io::split(stream);
        Conn {
            read,
            write,
            buffer: Vec::new(),
            start: 0,
            login: Login::default(),
            local: None,
        }
    }

    pub async fn tcp(port: u16) -> Conn {
        Conn::try_tcp(port).await.expect("somebody listens")
    }

    pub async fn try_tcp(port: u16) -> io::Result<Conn> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let local = stream.local_addr().ok();
        Ok(Conn {
            local,
            ..Conn::over(Box::new(stream))
        })
    }

    /// Over IPv6, which not every machine has.
    pub async fn try_tcp6(port: u16) -> io::Result<Conn> {
        let stream = TcpStream::connect(("::1", port)).await?;
        Ok(Conn::over(Box::new(stream)))
    }

    pub async fn try_unix(path: &Path) -> io::Result<Conn> {
        Ok(Conn::over(Box::new(UnixStream::connect(path).await?)))
    }

    pub async fn unix(path: &Path) -> Conn {
        Conn::try_unix(path)
            .await
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Goes on in TLS, as a client. Whatever was read already is lost, as it should be.
    pub async fn into_tls(self, config: Arc<rustls::ClientConfig>) -> io::Result<Conn> {
        let name = ServerName::try_from("localhost").expect("a valid name");
        let stream = tokio_rustls::TlsConnector::from(config)
            .connect(name, self.read.unsplit(self.write))
            .await?;
        Ok(Conn {
            local: self.local,
            ..Conn::over(Box::new(stream))
        })
    }

    /// This side's address, for TCP.
    pub fn local_port(&self) -> u16 {
        self.local.expect("a TCP connection").port()
    }

    /// Connects over TCP and logs in; panics when that fails.
    pub async fn login(port: u16, user: &str, database: &str, password: Option<&str>) -> Conn {
        let mut conn = Conn::tcp(port).await;
        conn.log_in(user, database, password).await;
        conn
    }

    /// As [`Conn::login`], but gives the error that the other side sends.
    pub async fn try_login(
        port: u16,
        user: &str,
        database: &str,
        password: Option<&str>,
    ) -> Result<Conn, Frame> {
        let mut conn = Conn::tcp(port).await;
        conn.try_log_in(&[("user", user), ("database", database)], password)
            .await?;
        Ok(conn)
    }

    /// Logs in over this connection; panics when that fails.
    pub async fn log_in(&mut self, user: &str, database: &str, password: Option<&str>) {
        self.log_in_with(&[("user", user), ("database", database)], password)
            .await;
    }

    /// Logs in with these start-up parameters; panics when that fails.
    pub async fn log_in_with(&mut self, params: &[(&str, &str)], password: Option<&str>) {
        if let Err(error) = self.try_log_in(params, password).await {
            panic!("login of {params:?} failed: {error:?}");
        }
    }

    /// Sends a StartupMessage, answers what is asked, and reads up to ReadyForQuery or an error.
    pub async fn try_log_in(
        &mut self,
        params: &[(&str, &str)],
        password: Option<&str>,
    ) -> Result<(), Frame> {
        self.send(&msg::startup(params)).await;
        let user = params
            .iter()
            .find(|(k, _)| *k == "user")
            .map_or("", |(_, v)| v);
        self.authenticate(user, password).await?;
        self.welcome().await
    }

    /// Everything from the server's first answer to AuthenticationOk.
    pub async fn authenticate(&mut self, user: &str, password: Option<&str>) -> Result<(), Frame> {
        let secret = |method: &str| {
            password.unwrap_or_else(|| {
                panic!("asked for a password ({method}) that the test does not give")
            })
        };
        loop {
            let frame = self.frame().await;
            match (frame.tag, if frame.is(b'R') { frame.int() } else { 0 }) {
                (b'R', 0) => return Ok(()),
                (b'R', 3) => self.send(&msg::password(secret("plain"))).await,
                (b'R', 5) => {
                    self.send(&msg::password(&md5_answer(
                        user,
                        secret("md5"),
                        &frame.body[4..8],
                    )))
                    .await
                }
                (b'R', 10) => self.scram(secret("SCRAM")).await?,
                (b'v' | b'N', _) => {}
                (b'E', _) => return Err(frame),
                _ => panic!("unexpected in login: {frame:?}"),
            }
        }
    }

    async fn scram(&mut self, password: &str) -> Result<(), Frame> {
        let mut client = scram::Client::new(password);
        self.send(&msg::sasl_initial("SCRAM-SHA-256", &client.first()))
            .await;
        let challenge = self.frame_or_error().await?;
        let proof = client.last(&String::from_utf8_lossy(&challenge.body[4..]));
        self.send(&msg::sasl_response(&proof)).await;
        let outcome = self.frame_or_error().await?;
        assert!(
            client.verifies(&String::from_utf8_lossy(&outcome.body[4..])),
            "the server's signature is wrong"
        );
        Ok(())
    }

    async fn frame_or_error(&mut self) -> Result<Frame, Frame> {
        let frame = self.frame().await;
        if frame.is(b'E') {
            Err(frame)
        } else {
            Ok(frame)
        }
    }

    /// Everything between AuthenticationOk and the first ReadyForQuery.
    pub async fn welcome(&mut self) -> Result<(), Frame> {
        loop {
            let frame = self.frame().await;
            match frame.tag {
                b'S' => self.login.parameters.push(frame.parameter()),
                b'K' => self.login.key.clone_from(&frame.body),
                b'N' => self.login.notices.push(frame),
                b'Z' => return Ok(()),
                b'E' => return Err(frame),
                _ => panic!("unexpected in the welcome: {frame:?}"),
            }
        }
    }

    /// Writes bytes; a connection that the other side has closed takes them in silence, what it said is still to be read.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.try_send(bytes).await;
    }

    pub async fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match tokio::time::timeout(FRAME_LIMIT, self.write.write_all(bytes)).await {
            Ok(result) => result,
            Err(_) => panic!("the other side takes no bytes"),
        }
    }

    /// Waits until something has come, or the end. Nothing is lost when the future is dropped.
    pub async fn has_input(&mut self) {
        if self.start == self.buffer.len() {
            self.read_more().await;
        }
    }

    /// The next frame; panics at the end of the stream.
    pub async fn frame(&mut self) -> Frame {
        self.next_frame()
            .await
            .expect("a frame, but the connection was closed")
    }

    /// The next frame, or `None` when the other side has closed.
    pub async fn next_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take_frame() {
                return Some(frame);
            }
            if self.read_more().await == 0 {
                assert!(
                    self.buffer.len() == self.start,
                    "closed inside a frame: {:?}",
                    &self.buffer[self.start..]
                );
                return None;
            }
        }
    }

    /// One raw byte, as the answer to an SSLRequest; `None` when closed.
    pub async fn byte(&mut self) -> Option<u8> {
        while self.start == self.buffer.len() {
            if self.read_more().await == 0 {
                return None;
            }
        }
        self.start += 1;
        Some(self.buffer[self.start - 1])
    }

    /// Reads once into the buffer; zero at the end of the stream. A reset counts as an end.
    async fn read_more(&mut self) -> usize {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.reserve(64 * 1024);
        match tokio::time::timeout(FRAME_LIMIT, self.read.read_buf(&mut self.buffer)).await {
            Ok(result) => result.unwrap_or(0),
            Err(_) => panic!("waited {FRAME_LIMIT:?} for a frame in vain"),
        }
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let bytes = &self.buffer[self.start..];
        let header = bytes.get(..5)?;
        let len = u32::from_be_bytes(header[1..5].try_into().expect("four bytes")) as usize;
        let body = bytes.get(5..1 + len)?;
        let frame = Frame {
            tag: header[0],
            body: body.to_vec(),
        };
        self.start += 1 + len;
        Some(frame)
    }

    /// Frames up to and including ReadyForQuery; panics when the connection ends before.
    pub async fn until_ready(&mut self) -> Reply {
        let mut frames = Vec::new();
        loop {
            match self.next_frame().await {
                Some(frame) => frames.push(frame),
                None => panic!("closed before ReadyForQuery, after {frames:?}"),
            }
            if frames.last().is_some_and(|f| f.is(b'Z')) {
                return Reply { frames };
            }
        }
    }

    /// A simple query and its whole reply.
    pub async fn query(&mut self, sql: &str) -> Reply {
        self.send(&msg::query(sql)).await;
        self.until_ready().await
    }

    /// A simple query that must succeed.
    pub async fn ok(&mut self, sql: &str) -> Reply {
        let reply = self.query(sql).await;
        assert_eq!(reply.error_text(), None, "{sql}");
        reply
    }

    /// Everything up to the end of the stream.
    pub async fn until_closed(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next_frame().await {
            frames.push(frame);
        }
        frames
    }

    /// As [`Conn::until_closed`], with the bytes of a last frame that was cut.
    pub async fn until_closed_anyhow(&mut self) -> (Vec<Frame>, Vec<u8>) {
        let mut frames = Vec::new();
        loop {
            while let Some(frame) = self.take_frame() {
                frames.push(frame);
            }
            if self.read_more().await == 0 {
                return (frames, self.buffer[self.start..].to_vec());
            }
        }
    }

    /// Reads and forgets everything up to the end; gives the number of bytes.
    pub async fn drain(&mut self) -> usize {
        let mut total = self.buffer.len() - self.start;
        loop {
            self.start = self.buffer.len();
            match self.read_more().await {
                0 => return total,
                n => total += n,
            }
        }
    }

    /// Says goodbye without waiting for what is still to come.
    pub async fn drop_politely(mut self) {
        self.send(&msg::terminate()).await;
    }

    /// The error that ends this connection: frames up to the end, of which the last is an ErrorResponse.
    pub async fn fatal(&mut self) -> String {
        let frames = self.until_closed().await;
        match frames.last() {
            Some(last) if last.is(b'E') => last.error_text(),
            _ => panic!("closed without an error, after {frames:?}"),
        }
    }

    /// Says goodbye and waits for the other side to close.
    pub async fn close(mut self) {
        self.send(&msg::terminate()).await;
        self.until_closed().await;
    }

    /// Closes this side's writing direction only.
    pub async fn shut_down_writing(&mut self) {
        let _ = self.write.shutdown().await;
    }

    /// Bytes that came but were not asked for yet.
    pub fn unread(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Both directions at once: writes the chunks while frames are collected until `enough` says so and all is written. With `already`
    /// set, no frame is needed.
    pub async fn exchange(
        &mut self,
        chunks: &[&[u8]],
        already: bool,
        mut enough: impl FnMut(&Frame) -> bool,
    ) -> (Vec<Frame>, Exchange) {
        let mut frames = Vec::new();
        let (mut next, mut written, mut done) = (0, 0, already);
        loop {
            while let Some(frame) = self.take_frame() {
                done = enough(&frame);
                frames.push(frame);
            }
            if done && next == chunks.len() {
                return (frames, Exchange::Enough);
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            self.buffer.reserve(64 * 1024);
            let reading = tokio::time::timeout(FRAME_LIMIT, self.read.read_buf(&mut self.buffer));
            tokio::select! {
                biased;
                n = async { self.write.write(&chunks[next][written..]).await }, if next < chunks.len() => {
                    // A closed connection takes everything in silence: what it said last is still to be read.
                    written += n.unwrap_or(chunks[next].len() - written);
                    if written == chunks[next].len() {
                        (next, written) = (next + 1, 0);
                        tokio::task::yield_now().await;
                    }
                }
                n = reading => match n {
                    Ok(Ok(n)) if n > 0 => {}
                    Ok(_) => return (frames, Exchange::Closed),
                    Err(_) => return (frames, Exchange::Silence),
                },
            }
        }
    }
}

/// How an [exchange](Conn::exchange) ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchange {
    Enough,
    Closed,
    /// No byte came for [`FRAME_LIMIT`].
    Silence,
}

fn md5_answer(user: &str, password: &str, salt: &[u8]) -> String {
    let inner = hex(&Md5::new()
        .chain_update(password)
        .chain_update(user)
        .finalize());
    format!(
        "md5{}",
        hex(&Md5::new().chain_update(inner).chain_update(salt).finalize())
    )
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
