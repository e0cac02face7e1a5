//! From settings and PEM files to configurations of the TLS library.
//!
//! Everything is read and checked here, once, so that a mistake is reported at start or reload with
//! the name of the file, and not at somebody's handshake.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, Error, InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion,
};
use zeroize::Zeroizing;

use super::expiry::Expiry;
use super::verify::{ClientChain, ServerChain, Trust, Unchecked};
use super::{ALPN_POSTGRESQL, ClientTls, ServerTls, SslMode, TlsError, TlsSettings};
use super::{ciphers, protocols};

/// The largest PEM file that is read, in bytes. A system's list of authorities has about 300 KB.
const PEM_FILE_MAX: u64 = 16 * 1024 * 1024;

pub(super) fn client_tls(settings: &TlsSettings) -> Result<Option<ClientTls>, TlsError> {
    if settings.mode == SslMode::Disable {
        return Ok(None);
    }
    if is_empty(&settings.key_file) || is_empty(&settings.cert_file) {
        return Err(TlsError::Missing(
            "client_tls_sslmode requires client_tls_key_file and client_tls_cert_file",
        ));
    }
    if settings.mode == SslMode::VerifyFull && is_empty(&settings.ca_file) {
        return Err(TlsError::Missing(
            "client_tls_sslmode requires client_tls_ca_file",
        ));
    }
    let (mut remarks, mut expiries) = (Vec::new(), Vec::new());
    let (provider, versions) = provider(settings, &mut remarks)?;
    let identity = identity(settings, &provider, &mut remarks, &mut expiries)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(TlsError::Library)?;
    let builder = match client_verifier(settings, &provider, &mut expiries)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(identity));
    config.alpn_protocols = vec![ALPN_POSTGRESQL.to_vec()];
    config.ignore_client_order = true;
    // No session can be resumed: PostgreSQL's clients do not try, and tickets would cost every login.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Some(ClientTls {
        mode: settings.mode,
        config: Arc::new(config),
        remarks,
        expiries,
    }))
}

pub(super) fn server_tls(settings: &TlsSettings) -> Result<Option<ServerTls>, TlsError> {
    if settings.mode == SslMode::Disable {
        return Ok(None);
    }
    if is_empty(&settings.key_file) != is_empty(&settings.cert_file) {
        return Err(TlsError::Missing(
            "server_tls_key_file and server_tls_cert_file need each other",
        ));
    }
    let (mut remarks, mut expiries) = (Vec::new(), Vec::new());
    let (provider, versions) = provider(settings, &mut remarks)?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(TlsError::Library)?
        .dangerous()
        .with_custom_certificate_verifier(server_verifier(settings, &provider, &mut expiries)?);
    let mut config = if is_empty(&settings.cert_file) {
        builder.with_no_client_auth()
    } else {
        let identity = identity(settings, &provider, &mut remarks, &mut expiries)?;
        builder.with_client_cert_resolver(Arc::new(identity))
    };
    config.enable_sni = settings.mode == SslMode::VerifyFull;
    config.resumption = Resumption::disabled();
    Ok(Some(ServerTls {
        mode: settings.mode,
        config: Arc::new(config),
        remarks,
        expiries,
    }))
}

pub(super) fn remarks(settings: &TlsSettings) -> Vec<String> {
    let mut remarks = Vec::new();
    if settings.mode != SslMode::Disable
        && let Err(error) = provider(settings, &mut remarks)
    {
        remarks.push(error.to_string());
    }
    remarks
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

type Versions = Vec<&'static SupportedProtocolVersion>;

/// The cryptography: suites, curves and versions as the settings want them.
fn provider(
    settings: &TlsSettings,
    remarks: &mut Vec<String>,
) -> Result<(Arc<CryptoProvider>, Versions), TlsError> {
    let protocols = protocols::parse(&settings.protocols, remarks)?;
    let mut suites = Vec::new();
    let mut versions: Versions = Vec::new();
    if protocols.tls13 {
        suites.extend(ciphers::tls13(&settings.tls13_ciphers, remarks));
        versions.extend((!suites.is_empty()).then_some(&TLS13));
    }
    if protocols.tls12 {
        let tls12 = ciphers::tls12(&settings.ciphers, remarks);
        versions.extend((!tls12.is_empty()).then_some(&TLS12));
        suites.extend(tls12);
    }
    if suites.is_empty() {
        return Err(TlsError::Ciphers);
    }
    if versions.len() < usize::from(protocols.tls12) + usize::from(protocols.tls13) {
        remarks.push("a TLS protocol is off because none of its ciphers is available".into());
    }
    let provider = CryptoProvider {
        cipher_suites: suites,
        kx_groups: curves(&settings.ecdh_curve, remarks),
        ..ring::default_provider()
    };
    Ok((Arc::new(provider), versions))
}

/// OpenSSL's names of the curves that we have.
fn curves(name: &str, remarks: &mut Vec<String>) -> Vec<&'static dyn SupportedKxGroup> {
    use ring::kx_group::{SECP256R1, SECP384R1, X25519};
    let mut chosen = Vec::new();
    for name in name.split(':').filter(|name| !name.is_empty()) {
        match name.to_ascii_lowercase().as_str() {
            "auto" => chosen.extend(ring::ALL_KX_GROUPS),
            "prime256v1" | "secp256r1" | "p-256" => chosen.push(SECP256R1),
            "secp384r1" | "p-384" => chosen.push(SECP384R1),
            "x25519" => chosen.push(X25519),
            _ => remarks.push(format!("TLS curve {name} is not available and is ignored")),
        }
    }
    if chosen.is_empty() {
        chosen.extend(ring::ALL_KX_GROUPS);
    }
    chosen
}

/// Our own certificate and key.
fn identity(
    settings: &TlsSettings,
    provider: &CryptoProvider,
    remarks: &mut Vec<String>,
    expiries: &mut Vec<Expiry>,
) -> Result<SingleCertAndKey, TlsError> {
    let chain = certificates(&settings.cert_file)?;
    expiries.extend(Expiry::of_chain(&settings.cert_file, &chain));
    let key = private_key(&settings.key_file)?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|e| content(&settings.key_file, format!("unusable private key: {e}")))?;
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            return Err(TlsError::Mismatch {
                cert_file: settings.cert_file.clone(),
                key_file: settings.key_file.clone(),
            });
        }
        // We need not understand a certificate in order to present it.
        Err(Error::InvalidCertificate(why)) => remarks.push(format!(
            "{}: cannot check the certificate: {why}",
            settings.cert_file.display()
        )),
        _ => {}
    }
    Ok(SingleCertAndKey::from(identity))
}

/// Clients' certificates are asked for if there is something to check them against.
fn client_verifier(
    settings: &TlsSettings,
    provider: &Arc<CryptoProvider>,
    expiries: &mut Vec<Expiry>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let mandatory = settings.mode.verifies();
    if is_empty(&settings.ca_file) && !mandatory {
        return Ok(None);
    }
    let trust = trust(&settings.ca_file, provider, expiries)?;
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&trust.roots), Arc::clone(provider));
    if trust.pinned.is_empty() {
        // The system's authorities are too many to send all their names to every client.
        builder = builder.clear_root_hint_subjects();
    }
    // Whether a certificate is mandatory is `ClientChain`'s decision.
    let library = builder
        .allow_unauthenticated()
        .build()
        .map_err(|e| content(&settings.ca_file, e.to_string()))?;
    Ok(Some(Arc::new(ClientChain {
        trust,
        library,
        mandatory,
    })))
}

fn server_verifier(
    settings: &TlsSettings,
    provider: &CryptoProvider,
    expiries: &mut Vec<Expiry>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    if !settings.mode.verifies() {
        return Ok(Arc::new(Unchecked {
            algorithms: provider.signature_verification_algorithms,
        }));
    }
    Ok(Arc::new(ServerChain {
        trust: trust(&settings.ca_file, provider, expiries)?,
        check_name: settings.mode == SslMode::VerifyFull,
    }))
}

/// The authorities of a CA file, or the system's if there is no file.
fn trust(
    ca_file: &Path,
    provider: &CryptoProvider,
    expiries: &mut Vec<Expiry>,
) -> Result<Trust, TlsError> {
    let mut roots = RootCertStore::empty();
    let mut pinned = Vec::new();
    if is_empty(ca_file) {
        add_system_roots(&mut roots)?;
    } else {
        pinned = certificates(ca_file)?;
        expiries.extend(Expiry::of_authorities(ca_file, &pinned));
        for cert in &pinned {
            roots
                .add(cert.clone())
                .map_err(|e| content(ca_file, format!("unusable certificate: {e}")))?;
        }
    }
    Ok(Trust {
        roots: Arc::new(roots),
        pinned,
        algorithms: provider.signature_verification_algorithms,
    })
}

fn add_system_roots(roots: &mut RootCertStore) -> Result<(), TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map(ToString::to_string);
        return Err(TlsError::NoSystemRoots(
            why.unwrap_or_else(|| "nothing found".into()),
        ));
    }
    Ok(())
}

fn content(file: &Path, what: impl Into<String>) -> TlsError {
    TlsError::Content(file.to_owned(), what.into())
}

fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let failed = |e| TlsError::Read(file.to_owned(), e);
    let opened = File::open(file).map_err(failed)?;
    // One allocation of the right size, so that no copy of a key stays behind.
    let size = opened.metadata().map_err(failed)?.len().min(PEM_FILE_MAX);
    let mut bytes = Zeroizing::new(Vec::with_capacity(size as usize + 1));
    opened
        .take(PEM_FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > PEM_FILE_MAX {
        return Err(failed(io::Error::from(io::ErrorKind::FileTooLarge)));
    }
    Ok(bytes)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(file)?;
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|e| content(file, format!("broken PEM: {e}")))?;
    if found.is_empty() {
        return Err(content(file, "no certificate found"));
    }
    Ok(found)
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(file)?;
    let contains = |mark: &[u8]| bytes.windows(mark.len()).any(|w| w == mark);
    match PrivateKeyDer::from_pem_slice(&bytes) {
        // The older of the two forms keeps the name of a plain key: look before trusting the content.
        _ if contains(b"BEGIN ENCRYPTED PRIVATE KEY") || contains(b"Proc-Type: 4,ENCRYPTED") => {
            Err(content(file, "private key needs a passphrase"))
        }
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => Err(content(file, "no private key found")),
        Err(e) => Err(content(file, format!("broken PEM: {e}"))),
    }
}
