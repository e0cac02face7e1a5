//! A client that has not been let in yet: its connection, what is known of it, and how it is turned away.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use tracing::{info, warn};

use super::Guest;
use super::aside;
use super::desk::Desk;
use super::inquiry::Inquirer;
use crate::client::admission::{Admission, Arriving, Guards, Listed};
use crate::client::farewell::farewell;
use crate::client::who::Who;
use crate::error::ClientError;
use crate::metrics::ErrorKind;
use crate::net::listen::Accepted;
use crate::net::{PeerAddr, Stream};
use crate::server::inbox::{Inbox, InboxError};
use crate::server::params::ParamSet;
use crate::types::ConnId;
use crate::wire::build::{self, Severity};

/// The most bytes of an error's text that a client is shown, as in PgBouncer: some of it may be the client's own words.
pub const ERROR_TEXT_MAX: usize = 127;

/// The reason when a client has closed its side.
pub const CLIENT_EOF: &str = "client unexpected eof";
/// The reason when a client has said good-bye instead of logging in.
pub const CLIENT_GOODBYE: &str = "client close request";
/// The reason when a message is none that may come now.
pub const BAD_PACKET: &str = "bad packet";

/// How a login ends without a client that is in.
#[derive(Debug)]
pub enum Ending {
    /// The client has said nothing, and there is nothing to say about it.
    Unnoticed,
    /// Closed without a word, for this reason.
    Gone(&'static str),
    /// Told why, and closed.
    Fatal(ClientError),
}

impl Ending {
    /// Told this and closed, for what it asked for is not to be had; a long text is cut.
    pub fn fatal(text: impl fmt::Display) -> Ending {
        Ending::counted(ErrorKind::LoginRefused, text)
    }

    /// As [`Ending::fatal`], but counted as this.
    pub fn counted(kind: ErrorKind, text: impl fmt::Display) -> Ending {
        let mut text = text.to_string();
        let mut len = text.len().min(ERROR_TEXT_MAX);
        // At zero at the latest.
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        text.truncate(len);
        Ending::Fatal(ClientError::with(text).as_kind(kind))
    }
}

impl Ending {
    /// What it is counted as.
    fn kind(&self) -> Option<ErrorKind> {
        match self {
            Ending::Unnoticed => None,
            Ending::Gone(CLIENT_EOF | CLIENT_GOODBYE) => Some(ErrorKind::ClientLost),
            Ending::Gone(_) => Some(ErrorKind::Protocol),
            Ending::Fatal(error) => Some(error.kind),
        }
    }
}

/// Who has just connected.
#[derive(Debug)]
pub struct Caller {
    inbox: Inbox,
    peer: PeerAddr,
    local: Option<SocketAddr>,
}

impl From<Accepted> for Caller {
    fn from(accepted: Accepted) -> Caller {
        Caller {
            inbox: Inbox::arrived(accepted.stream),
            peer: accepted.peer,
            local: accepted.local,
        }
    }
}

/// Its addresses are asked of the kernel.
impl TryFrom<Stream> for Caller {
    type Error = io::Error;

    fn try_from(stream: Stream) -> io::Result<Caller> {
        Ok(Caller {
            peer: stream.peer_addr()?,
            local: stream.local_addr()?,
            inbox: Inbox::new(stream),
        })
    }
}

/// A client that is still nobody.
pub struct Visitor<'a> {
    /// The settings that this login began with.
    pub desk: &'a Desk,
    /// Whether there is room.
    pub admission: &'a Admission,
    /// Whom to ask about users that `auth_file` does not know.
    pub inquirer: &'a dyn Inquirer,
    /// Its number.
    pub id: ConnId,
    /// Its address.
    pub peer: PeerAddr,
    /// Our end of its socket; `None` for a Unix socket.
    pub local: Option<SocketAddr>,
    /// When it connected.
    pub connected: Instant,
    /// The same, by the clock on the wall.
    pub connected_at: SystemTime,
    /// What it calls itself, for the log.
    pub user: Option<String>,
    /// The database that it is about to enter, for the log; not before one that exists was asked for.
    pub database: Option<String>,
    /// Goes with the next write.
    pub outgoing: Vec<u8>,
    /// Taken while TLS shakes hands, and by those who let the client in.
    inbox: Option<Inbox>,
    /// So that the operator sees it.
    listed: Listed,
}

impl<'a> Visitor<'a> {
    /// A client that has just connected.
    pub fn new(
        caller: Caller,
        desk: &'a Desk,
        admission: &'a Admission,
        inquirer: &'a dyn Inquirer,
    ) -> Visitor<'a> {
        let Caller { inbox, peer, local } = caller;
        let (id, connected_at) = (ConnId::next(), SystemTime::now());
        let arriving = Arriving {
            user: None,
            database: None,
            peer,
            local,
            connected_at,
        };
        Visitor {
            desk,
            admission,
            inquirer,
            id,
            peer,
            local,
            connected: Instant::now(),
            connected_at,
            listed: admission.list(id, arriving),
            user: None,
            database: None,
            outgoing: Vec::new(),
            inbox: Some(inbox),
        }
    }

    /// The log prefix.
    pub fn who(&self) -> Who<'_> {
        Who {
            id: self.id,
            database: self.database.as_deref(),
            user: self.user.as_deref(),
            peer: self.peer,
            listen_port: self.desk.config.settings.listen_port,
        }
    }

    /// More is known about who it is: `user` or `database` has changed.
    pub fn show(&self) {
        let (user, database) = (self.user.as_deref(), self.database.as_deref());
        self.listed.name(user, database);
    }

    /// What has arrived.
    pub fn inbox(&mut self) -> Result<&mut Inbox, Ending> {
        self.inbox.as_mut().ok_or(Ending::Gone(CLIENT_EOF))
    }

    /// Is its connection encrypted?
    pub fn is_tls(&mut self) -> Result<bool, Ending> {
        Ok(self.inbox()?.live().is_some_and(Stream::is_tls))
    }

    /// See [`Stream::tls_version_text`].
    pub fn tls_version_text(&mut self) -> Result<Option<&'static str>, Ending> {
        let stream = self.inbox()?.live();
        Ok(stream.and_then(Stream::tls_version_text))
    }

    /// Takes the connection away.
    pub fn take_inbox(&mut self) -> Result<Inbox, Ending> {
        self.inbox.take().ok_or(Ending::Gone(CLIENT_EOF))
    }

    /// Puts another connection, of which nothing was read, in place of the one taken away.
    pub fn put_stream(&mut self, stream: Stream) {
        self.inbox = Some(Inbox::new(stream));
    }

    /// Sends what is to go out.
    pub async fn flush(&mut self) -> Result<(), Ending> {
        if !self.outgoing.is_empty() {
            let bytes = std::mem::take(&mut self.outgoing);
            self.inbox()?.write_all(&bytes).await?;
        }
        Ok(())
    }

    /// What comes next takes long, or needs more than a worker has: from here on the login runs on the login threads.
    pub async fn step_aside(&mut self) -> Result<(), Ending> {
        if aside::is_on_worker() {
            self.inbox()?.park()?;
            aside::leave().await;
        }
        Ok(())
    }

    /// Lets the client in: from here on its connection is somebody else's.
    pub fn let_in(&mut self, params: ParamSet, guards: Guards) -> Result<Guest, Ending> {
        let tls = self.tls_version_text()?;
        let (stream, leftover) = self.take_inbox()?.into_line();
        Ok(Guest {
            tls,
            stream,
            leftover,
            greeting: std::mem::take(&mut self.outgoing),
            id: self.id,
            connected: self.connected,
            connected_at: self.connected_at,
            peer: self.peer,
            local: self.local,
            params,
            guards,
        })
    }

    /// Turns the client away: first the counts and the log, then the client.
    pub async fn turn_away(mut self, ending: Ending) {
        if let Some(kind) = ending.kind() {
            self.admission.errors().count(kind);
        }
        match ending {
            Ending::Unnoticed => {}
            Ending::Gone(reason) => self.log_closing(&reason),
            Ending::Fatal(error) => {
                if self.desk.config.settings.log_pooler_errors {
                    warn!(who = %self.who(), "pooler error: {error}");
                }
                self.log_closing(&error);
                self.say_farewell(&error).await;
            }
        }
    }

    fn log_closing(&self, reason: &dyn fmt::Display) {
        if self.desk.config.settings.log_disconnections {
            let age = self.connected.elapsed().as_secs();
            info!(who = %self.who(), "closing because: {reason} (age={age}s)");
        }
    }

    async fn say_farewell(&mut self, error: &ClientError) {
        if self.step_aside().await.is_err() {
            return; // it is not there any more
        }
        if let Some(Ok((stream, _))) = self.inbox.take().map(Inbox::into_parts) {
            let mut bytes = std::mem::take(&mut self.outgoing);
            build::error(&mut bytes, Severity::Fatal, &error.sqlstate, &error.text);
            farewell(stream, &bytes).await;
        }
    }
}

impl From<InboxError> for Ending {
    fn from(error: InboxError) -> Ending {
        match error {
            InboxError::Length(_) => Ending::Gone(BAD_PACKET),
            InboxError::Eof { .. } | InboxError::Io(_) => Ending::Gone(CLIENT_EOF),
        }
    }
}

impl From<io::Error> for Ending {
    fn from(_: io::Error) -> Ending {
        Ending::Gone(CLIENT_EOF)
    }
}
