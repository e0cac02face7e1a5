//! Until when the certificates of a file are good: [`Expiry`]. Pure, but for the bytes it is given.

use std::path::{Path, PathBuf};

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// A file of certificates, and the end of its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// As configured.
    pub file: PathBuf,
    /// In seconds since the epoch, UTC.
    pub not_after: i64,
}

impl Expiry {
    /// Of our own certificate and its chain: the first to expire counts. An authority at the end of the chain does not: peers
    /// have their own copy, or do not trust it anyway. `None` if our own certificate can't be understood.
    pub(super) fn of_chain(file: &Path, chain: &[CertificateDer<'_>]) -> Option<Expiry> {
        let (own, rest) = chain.split_first()?;
        let rest = rest.iter().filter_map(|der| parsed(der));
        let between = rest.filter(|cert| cert.subject() != cert.issuer());
        let ends = between.map(|cert| not_after(&cert));
        let own = not_after(&parsed(own)?);
        Some(Expiry {
            file: file.to_owned(),
            not_after: ends.fold(own, i64::min),
        })
    }

    /// Of trusted authorities: the last to expire counts, for old ones are left in such files until nobody needs them.
    pub(super) fn of_authorities(
        file: &Path,
        authorities: &[CertificateDer<'_>],
    ) -> Option<Expiry> {
        let ends = authorities.iter().filter_map(|der| parsed(der));
        Some(Expiry {
            file: file.to_owned(),
            not_after: ends.map(|cert| not_after(&cert)).max()?,
        })
    }
}

fn parsed<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der).ok().map(|(_, cert)| cert)
}

fn not_after(cert: &X509Certificate<'_>) -> i64 {
    cert.validity().not_after.timestamp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd,
    };

    /// Noon of no particular day: what [`date_time_ymd`] gives, as the answer is expected.
    fn end(year: i32) -> i64 {
        date_time_ymd(year, 1, 1).unix_timestamp()
    }

    fn params(name: &str, year: i32) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = date_time_ymd(year, 1, 1);
        params
    }

    fn authority(name: &str, year: i32) -> (CertificateDer<'static>, Issuer<'static, KeyPair>) {
        let mut params = params(name, year);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        (der, Issuer::new(params, key))
    }

    fn signed(name: &str, year: i32, by: &Issuer<'_, KeyPair>) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let cert = params(name, year).signed_by(&key, by).unwrap();
        cert.der().clone()
    }

    #[test]
    fn the_first_of_a_chain_and_the_last_of_the_authorities() {
        let (root, by_root) = authority("root", 2030);
        let (old, _) = authority("old", 2020);
        let (own, between) = (
            signed("own", 2050, &by_root),
            signed("between", 2040, &by_root),
        );
        let file = Path::new("f");
        let chain =
            |chain: &[CertificateDer<'static>]| Expiry::of_chain(file, chain).map(|e| e.not_after);
        assert_eq!(chain(std::slice::from_ref(&own)), Some(end(2050)));
        assert_eq!(
            chain(&[own.clone(), between.clone(), root.clone()]),
            Some(end(2040))
        );
        assert_eq!(chain(std::slice::from_ref(&root)), Some(end(2030)));
        assert_eq!(chain(&[]), None);
        assert_eq!(chain(&[CertificateDer::from(vec![1, 2, 3]), own]), None);
        let authorities = Expiry::of_authorities(file, &[old, root]).unwrap();
        assert_eq!(
            (authorities.not_after, &*authorities.file),
            (end(2030), file)
        );
    }
}
