//! TLS: modes, loaded certificates, and the two handshakes.
//!
//! [`ClientTls`] faces clients, [`ServerTls`] faces PostgreSQL. Each is loaded from [`TlsSettings`] as a
//! whole and never changes; a reload loads a new one and replaces the old if that succeeded, so
//! running connections keep what they have. Who asks for TLS, and the plaintext exchange before it, is
//! the login's business.
//!
//! Files: `load` (settings and PEM files into configurations), `protocols` and `ciphers` (OpenSSL's
//! lists), `verify` (judging peers), `names` (what certificates say), `expiry` (until when).

mod ciphers;
mod expiry;
mod load;
mod names;
mod protocols;
mod verify;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, CommonState, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::stream::Stream;
pub use expiry::Expiry;
pub use names::CertificateNames;

/// The first byte of a TLS handshake, where a start-up packet begins with zero: direct TLS.
pub const HANDSHAKE_FIRST_BYTE: u8 = 0x16;

/// What of these settings can't be followed: each cipher, curve or protocol that does not exist here, by its name. No file is read.
pub fn remarks(settings: &TlsSettings) -> Vec<String> {
    load::remarks(settings)
}

/// The only application protocol that clients may name (ALPN).
pub const ALPN_POSTGRESQL: &[u8] = b"postgresql";

/// The words of `client_tls_sslmode` and `server_tls_sslmode`, weakest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SslMode {
    /// No TLS.
    #[default]
    Disable,
    /// As `Prefer`, in PgBouncer and here.
    Allow,
    /// TLS if the other side wants or has it.
    Prefer,
    /// TLS or no connection.
    Require,
    /// And the peer's certificate must come from a trusted authority.
    VerifyCa,
    /// And, of a server, carry its name. For clients the same as `VerifyCa`.
    VerifyFull,
}

impl SslMode {
    const WORDS: [(SslMode, &'static str); 6] = [
        (SslMode::Disable, "disable"),
        (SslMode::Allow, "allow"),
        (SslMode::Prefer, "prefer"),
        (SslMode::Require, "require"),
        (SslMode::VerifyCa, "verify-ca"),
        (SslMode::VerifyFull, "verify-full"),
    ];

    /// Is a connection without TLS refused? (Unix sockets are always exempt.)
    pub fn requires_tls(self) -> bool {
        self >= SslMode::Require
    }

    /// Must the peer have a certificate from a trusted authority?
    pub fn verifies(self) -> bool {
        self >= SslMode::VerifyCa
    }
}

/// The text is none of the six words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownSslMode;

impl fmt::Display for UnknownSslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sslmode must be disable, allow, prefer, require, verify-ca or verify-full")
    }
}

impl std::error::Error for UnknownSslMode {}

impl FromStr for SslMode {
    type Err = UnknownSslMode;

    fn from_str(text: &str) -> Result<Self, UnknownSslMode> {
        let found = Self::WORDS.iter().find(|(_, word)| *word == text);
        found.map(|(mode, _)| *mode).ok_or(UnknownSslMode)
    }
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::WORDS.iter().find(|(mode, _)| mode == self);
        f.write_str(found.map_or("", |(_, word)| word))
    }
}

/// What the settings say about one side: `client_tls_…` or `server_tls_…`, texts as written. Empty means unset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// `…_sslmode`
    pub mode: SslMode,
    /// `…_key_file`: PEM, without passphrase.
    pub key_file: PathBuf,
    /// `…_cert_file`: PEM, own certificate first, then intermediate ones.
    pub cert_file: PathBuf,
    /// `…_ca_file`: PEM, the trusted authorities.
    pub ca_file: PathBuf,
    /// `…_protocols`
    pub protocols: String,
    /// `…_ciphers`: OpenSSL's syntax, TLS 1.2.
    pub ciphers: String,
    /// `…_tls13_ciphers`
    pub tls13_ciphers: String,
    /// `client_tls_ecdhcurve`; servers have no such setting.
    pub ecdh_curve: String,
}

/// Why settings and files cannot be turned into a working TLS.
#[derive(Debug)]
pub enum TlsError {
    /// A setting that the mode needs is empty. The text says which.
    Missing(&'static str),
    /// A file cannot be read.
    Read(PathBuf, io::Error),
    /// A file contains no certificate or key, or something that only looks like one. The text says what.
    Content(PathBuf, String),
    /// The private key is not that of the certificate.
    Mismatch {
        /// The file with the certificate.
        cert_file: PathBuf,
        /// The file with the key.
        key_file: PathBuf,
    },
    /// The system has no list of trusted authorities. The text says what went wrong.
    NoSystemRoots(String),
    /// An unknown word in a protocol list, or nothing left of it.
    Protocols(String),
    /// None of the ciphers in the lists is available.
    Ciphers,
    /// The TLS library refuses the combination.
    Library(tokio_rustls::rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Missing(what) => f.write_str(what),
            TlsError::Read(file, error) => write!(f, "cannot read {}: {error}", file.display()),
            TlsError::Content(file, what) => write!(f, "{}: {what}", file.display()),
            TlsError::Mismatch {
                cert_file,
                key_file,
            } => write!(
                f,
                "private key {} does not belong to certificate {}",
                key_file.display(),
                cert_file.display()
            ),
            TlsError::NoSystemRoots(why) => {
                write!(f, "no certificate authorities found on this system: {why}")
            }
            TlsError::Protocols(list) => write!(f, "no usable TLS protocol in \"{list}\""),
            TlsError::Ciphers => f.write_str("no usable TLS cipher"),
            TlsError::Library(error) => write!(f, "TLS: {error}"),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TlsError::Read(_, error) => Some(error),
            TlsError::Library(error) => Some(error),
            _ => None,
        }
    }
}

/// TLS towards clients, ready to use.
#[derive(Clone, Debug)]
pub struct ClientTls {
    mode: SslMode,
    config: Arc<ServerConfig>,
    remarks: Vec<String>,
    expiries: Vec<Expiry>,
}

impl ClientTls {
    /// Reads the files. `None` if the mode is `disable`; then no file is touched.
    ///
    /// # Errors
    /// See [`TlsError`]; it names the file.
    pub fn load(settings: &TlsSettings) -> Result<Option<Self>, TlsError> {
        load::client_tls(settings)
    }

    /// The mode it was loaded with.
    pub fn mode(&self) -> SslMode {
        self.mode
    }

    /// What was asked for in the settings but cannot be had. To be logged as warnings.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Until when the files of certificates that were read are good.
    pub fn expiries(&self) -> &[Expiry] {
        &self.expiries
    }
}

/// TLS towards PostgreSQL servers, ready to use.
#[derive(Clone, Debug)]
pub struct ServerTls {
    mode: SslMode,
    config: Arc<ClientConfig>,
    remarks: Vec<String>,
    expiries: Vec<Expiry>,
}

impl ServerTls {
    /// Reads the files. `None` if the mode is `disable`; then no file is touched.
    ///
    /// # Errors
    /// See [`TlsError`]; it names the file.
    pub fn load(settings: &TlsSettings) -> Result<Option<Self>, TlsError> {
        load::server_tls(settings)
    }

    /// The mode it was loaded with.
    pub fn mode(&self) -> SslMode {
        self.mode
    }

    /// What was asked for in the settings but cannot be had. To be logged as warnings.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Until when the files of certificates that were read are good.
    pub fn expiries(&self) -> &[Expiry] {
        &self.expiries
    }
}

/// Shakes hands with a client. Nothing of its handshake may have been read yet: for direct TLS, look at
/// the first byte with [`Stream::peek_first_byte`].
///
/// No deadline of its own: the caller's login timeout covers it.
///
/// # Errors
/// The handshake failed (`InvalidData`, with the reason), or the socket did. The client has been sent an
/// alert where possible; the connection is closed.
pub async fn accept(stream: Stream, tls: &ClientTls) -> io::Result<Stream> {
    let socket = stream.into_plain()?;
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
    let accepted = acceptor.accept(socket).await?;
    Ok(Stream::from_tls(TlsStream::Server(accepted)))
}

/// Shakes hands with the PostgreSQL server `host`, after it has agreed to TLS.
///
/// `host` is the name or address as configured. It is sent (SNI) and compared with the server's
/// certificate in mode verify-full only.
///
/// # Errors
/// The handshake failed (`InvalidData`, with the reason), or the socket did, or `host` is not a name that a
/// certificate could have (`InvalidInput`). The connection is closed.
pub async fn connect(stream: Stream, tls: &ServerTls, host: &str) -> io::Result<Stream> {
    let name = match tls.mode {
        SslMode::VerifyFull => ServerName::try_from(host.to_owned())
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?,
        // Neither sent nor compared, but the library wants one.
        _ => ServerName::from(IpAddr::from(Ipv4Addr::UNSPECIFIED)),
    };
    let socket = stream.into_plain()?;
    let connector = TlsConnector::from(Arc::clone(&tls.config));
    let connected = connector.connect(name, socket).await?;
    Ok(Stream::from_tls(TlsStream::Client(connected)))
}

/// See [`Stream::tls_version_text`].
pub(super) fn version_text(session: &CommonState) -> Option<&'static str> {
    ciphers::version_text(session.negotiated_cipher_suite()?)
}
