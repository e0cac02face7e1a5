//! What the tests of this folder share: pairs of connected streams, and certificates made on the spot.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, date_time_ymd,
};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::stream::Stream;
use super::tls::{self, ClientTls, ServerTls, SslMode, TlsSettings};

/// Longer than anything here takes on a busy machine: a test that reaches it hangs.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Lets `work` fail instead of hang.
pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(TEST_TIMEOUT, work)
        .await
        .expect("test hangs")
}

/// Runs a test on a runtime of its own, within the time limit.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(soon(test))
}

pub async fn tcp_pair() -> (Stream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (far, _) = listener.accept().await.unwrap();
    (near.into(), far.into())
}

pub fn unix_pair() -> (Stream, Stream) {
    let (near, far) = UnixStream::pair().unwrap();
    (near.into(), far.into())
}

/// Shakes hands over a fresh connection: what the client has, what the server has.
pub async fn handshake(
    client_side: &ServerTls,
    server_side: &ClientTls,
    host: &str,
) -> (std::io::Result<Stream>, std::io::Result<Stream>) {
    let (near, far) = tcp_pair().await;
    soon(async {
        tokio::join!(
            tls::connect(near, client_side, host),
            tls::accept(far, server_side)
        )
    })
    .await
}

/// A pair of encrypted streams without any checks: client, server.
pub async fn tls_pair() -> (Stream, Stream) {
    let authority = Authority::new("some authority");
    let leaf = authority.issue(&Leaf::default());
    let server = ClientTls::load(&leaf.settings(SslMode::Require))
        .unwrap()
        .unwrap();
    let client = ServerTls::load(&TlsSettings {
        mode: SslMode::Require,
        ..TlsSettings::default()
    });
    let (near, far) = handshake(&client.unwrap().unwrap(), &server, "").await;
    (near.unwrap(), far.unwrap())
}

/// A certificate authority in a temporary directory.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

/// What to write into a certificate.
#[derive(Default)]
pub struct Leaf<'a> {
    pub common_name: &'a str,
    pub dns: &'a [&'a str],
    pub ip: Option<IpAddr>,
    pub is_expired: bool,
}

/// A certificate and its key, as files.
#[derive(Clone, Default)]
pub struct Identity {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

impl Leaf<'_> {
    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, self.common_name);
        let dns = self.dns.iter().map(|name| (*name).try_into().unwrap());
        params.subject_alt_names = dns.map(SanType::DnsName).collect();
        params
            .subject_alt_names
            .extend(self.ip.map(SanType::IpAddress));
        if self.is_expired {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        }
        params
    }
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = Leaf {
            common_name: name,
            ..Leaf::default()
        }
        .params();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        std::fs::write(dir.path().join("ca.pem"), pem).unwrap();
        Authority {
            issuer: Issuer::new(params, key),
            dir,
        }
    }

    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub fn issue(&self, leaf: &Leaf<'_>) -> Identity {
        let key = KeyPair::generate().unwrap();
        let cert = leaf.params().signed_by(&key, &self.issuer).unwrap();
        self.store(&cert.pem(), &key)
    }

    /// Not issued by the authority, only stored beside it: signed by itself, and marked as an authority as
    /// OpenSSL does by default.
    pub fn self_signed(&self, leaf: &Leaf<'_>) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = leaf.params();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        self.store(&params.self_signed(&key).unwrap().pem(), &key)
    }

    /// Puts any text into a file that lives as long as the authority.
    pub fn file(&self, text: &str) -> PathBuf {
        let (_, path) = tempfile::NamedTempFile::new_in(self.dir.path())
            .unwrap()
            .keep()
            .unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    fn store(&self, cert_pem: &str, key: &KeyPair) -> Identity {
        Identity {
            cert_file: self.file(cert_pem),
            key_file: self.file(&key.serialize_pem()),
        }
    }
}

impl Identity {
    /// Settings that present this certificate and trust nobody.
    pub fn settings(&self, mode: SslMode) -> TlsSettings {
        TlsSettings {
            mode,
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
            ..TlsSettings::default()
        }
    }
}
