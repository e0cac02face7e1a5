//! Whom to ask and how, made once from the command line and shared by all clients.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;

use pgweir::auth::secret::Secret;
use pgweir::auth::user::User;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::error::LoadError;
use super::options::{Peer, Tls};
use super::request::{Request, startup, terminate};
use super::tls;

/// Everything a client must know.
pub struct Target {
    /// Where to connect to.
    pub place: Place,
    /// TLS, and the name to ask for.
    pub tls: Option<(TlsConnector, ServerName<'static>)>,
    /// User and password. Remembers what a SCRAM proof derives from the password and the server's salt, so that a storm of logins
    /// costs the generator that work once.
    pub user: Arc<User>,
    /// The first packet.
    pub startup: Vec<u8>,
    /// The queries.
    pub request: Request,
    /// Terminate
    pub terminate: Vec<u8>,
}

/// Where a server listens.
pub enum Place {
    /// TCP; a name was looked up once, its first address counts.
    Tcp(SocketAddr),
    /// The socket's path.
    Unix(PathBuf),
}

impl Target {
    /// Reads the command line.
    ///
    /// # Errors
    /// A host that can't be found.
    pub fn new(peer: &Peer) -> Result<Target, LoadError> {
        let tls = match peer.tls {
            Tls::Off => None,
            Tls::Require => Some(tls_for(&peer.host)?),
        };
        let secret = Secret::plain(peer.password.as_bytes());
        Ok(Target {
            place: Place::new(&peer.host, peer.port)?,
            tls,
            user: Arc::new(User::new(peer.user.as_bytes(), secret)),
            startup: startup(&peer.user, &peer.database),
            request: Request::new(peer.protocol, &peer.query),
            terminate: terminate(),
        })
    }
}

impl Place {
    fn new(host: &str, port: u16) -> Result<Place, LoadError> {
        if host.starts_with('/') {
            let name = format!(".s.PGSQL.{port}");
            return Ok(Place::Unix(PathBuf::from(host).join(name)));
        }
        let addresses = (host, port).to_socket_addrs();
        let first = addresses.and_then(|mut all| all.next().ok_or(io::ErrorKind::NotFound.into()));
        first
            .map(Place::Tcp)
            .map_err(|error| LoadError::Io("looking up the host", error))
    }
}

fn tls_for(host: &str) -> Result<(TlsConnector, ServerName<'static>), LoadError> {
    let bad = |text: String| LoadError::Options(format!("TLS for {host}: {text}"));
    let name = ServerName::try_from(host.to_owned()).map_err(|error| bad(error.to_string()))?;
    let connector = tls::connector().map_err(|error| bad(error.to_string()))?;
    Ok((connector, name))
}
