//! How peers' certificates are judged, one verifier per meaning of an sslmode.
//!
//! | side | modes | verifier |
//! |---|---|---|
//! | server | allow, prefer, require | [`Unchecked`] |
//! | server | verify-ca, verify-full | [`ServerChain`] |
//! | client | all, if there are trusted authorities | [`ClientChain`] |
//!
//! The cryptography is the library's. What is added here: skipping the name check, the common name of
//! certificates without alternative names, and self-signed certificates that are their own authority.

use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use tokio_rustls::rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};

use super::names::CertificateNames;

/// The certificates that are trusted, and with which algorithms.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    /// Certificate authorities.
    pub(super) roots: Arc<RootCertStore>,
    /// The same certificates as they are in the CA file. Empty for the system's authorities.
    pub(super) pinned: Vec<CertificateDer<'static>>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl Trust {
    /// A certificate that stands in the CA file itself is trusted even though it is marked as an authority,
    /// which the library does not accept of a peer. Such are most self-signed ones:
    /// `openssl req -x509` marks them so. Everything else that is wrong with it, for example its
    /// age, has its own error and stays wrong.
    fn forgive_pinned<T>(
        &self,
        presented: &CertificateDer<'_>,
        checked: Result<T, Error>,
        trusted: impl FnOnce() -> T,
    ) -> Result<T, Error> {
        match checked {
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if self.pinned.iter().any(|cert| cert == presented) =>
            {
                Ok(trusted())
            }
            checked => checked,
        }
    }
}

/// Accepts every server: encryption without knowing with whom.
///
/// Signatures are not checked either: without a checked certificate they prove nothing, and checking
/// would refuse certificates of kinds that the library cannot read (X.509 version 1, P-521 keys).
#[derive(Debug)]
pub(super) struct Unchecked {
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.algorithms.supported_schemes();
        schemes.extend([
            SignatureScheme::ECDSA_NISTP521_SHA512,
            SignatureScheme::ED448,
        ]);
        schemes
    }
}

/// Checks a server's chain of certificates and, for verify-full, its name.
#[derive(Debug)]
pub(super) struct ServerChain {
    pub(super) trust: Trust,
    pub(super) check_name: bool,
}

impl ServerChain {
    fn check_name(
        &self,
        cert: &ParsedCertificate<'_>,
        der: &CertificateDer<'_>,
        name: &ServerName<'_>,
    ) -> Result<(), Error> {
        let checked = verify_server_name(cert, name);
        if checked.is_ok() {
            return checked;
        }
        // The library looks at alternative names only.
        let names = CertificateNames::parse(der);
        match names {
            Some(names) if names.match_host(&name.to_str()) => Ok(()),
            _ => checked,
        }
    }
}

impl ServerCertVerifier for ServerChain {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let cert = ParsedCertificate::try_from(end_entity)?;
        let checked = verify_server_cert_signed_by_trust_anchor(
            &cert,
            &self.trust.roots,
            intermediates,
            now,
            self.trust.algorithms.all,
        );
        self.trust.forgive_pinned(end_entity, checked, || ())?;
        if self.check_name {
            self.check_name(&cert, end_entity, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.trust.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.trust.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.algorithms.supported_schemes()
    }
}

/// Checks a client's certificate if it presents one, and insists on one if `mandatory`.
#[derive(Debug)]
pub(super) struct ClientChain {
    pub(super) trust: Trust,
    /// The library's verifier, over the same authorities.
    pub(super) library: Arc<dyn ClientCertVerifier>,
    pub(super) mandatory: bool,
}

impl ClientCertVerifier for ClientChain {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.library.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let checked = self
            .library
            .verify_client_cert(end_entity, intermediates, now);
        self.trust
            .forgive_pinned(end_entity, checked, ClientCertVerified::assertion)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.trust.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.trust.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.algorithms.supported_schemes()
    }
}
