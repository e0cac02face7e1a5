//! Whom a client's certificate belongs to, for the method `cert`.
//!
//! Pure. Whether a certificate may be trusted is not judged here: the caller gives the leaf that the TLS handshake has verified,
//! and nothing else. Names are compared byte for byte, as PostgreSQL does. PgBouncer ignores case and lets the bearer of
//! `*.example.com` be any user of that form.

use std::net::IpAddr;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::ident::IdentMap;

/// The names that a certificate gives its bearer: the common name, and alternative names of the kinds DNS and IP address.
/// Empty for what is no certificate.
///
/// Several common names are none: which of them counts would be a matter of taste. Nor does a name count that is empty or holds
/// control characters, a zero byte above all, where C programs would see only what stands before.
pub fn names(certificate: &[u8]) -> Vec<String> {
    let Ok(([], certificate)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let mut names = Vec::new();
    let mut common = certificate.subject().iter_common_name();
    if let (Some(Ok(name)), None) = (common.next().map(|name| name.as_str()), common.next()) {
        names.push(name.to_owned());
    }
    // An error means several extensions of this kind: whoever issued that is not to be believed.
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    for name in alternatives
        .iter()
        .flat_map(|found| &found.value.general_names)
    {
        match name {
            GeneralName::DNSName(name) => names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => names.extend(ip_address(bytes)),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty() && !name.contains(char::is_control));
    names
}

fn ip_address(bytes: &[u8]) -> Option<String> {
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some(address.to_string())
}

/// May who has these names log in as this user? Without a map: as the very same; else as whom the map gives to one of them.
pub fn permits(names: &[String], user: &[u8], map: Option<&IdentMap>) -> bool {
    names.iter().any(|name| match map {
        None => name.as_bytes() == user,
        Some(map) => map.permits(name.as_bytes(), user),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType};

    use super::super::ident::IdentMaps;
    use super::*;

    fn certificate(common_names: &[DnValue], alternatives: &[SanType]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "ann");
        for (index, name) in common_names.iter().enumerate() {
            // A map by kind: a second common name needs another spelling of the same kind.
            let kind = match index {
                0 => DnType::CommonName,
                _ => DnType::CustomDnType(vec![2, 5, 4, 3]),
            };
            params.distinguished_name.push(kind, name.clone());
        }
        params.subject_alt_names = alternatives.to_vec();
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    #[test]
    fn names_are_found() {
        let alternatives = [
            dns("db.example.com"),
            SanType::IpAddress("10.0.0.1".parse().unwrap()),
            SanType::IpAddress("::1".parse().unwrap()),
            SanType::Rfc822Name("ann@example.com".try_into().unwrap()),
        ];
        let found = names(&certificate(&["alice".into()], &alternatives));
        assert_eq!(found, ["alice", "db.example.com", "10.0.0.1", "::1"]);
        assert!(names(&certificate(&[], &[])).is_empty());
        assert!(names(b"").is_empty() && names(b"no certificate").is_empty());
    }

    #[test]
    fn what_follows_a_certificate_spoils_it() {
        let mut der = certificate(&["alice".into()], &[]);
        der.push(0);
        assert!(names(&der).is_empty());
    }

    #[test]
    fn names_are_compared_exactly() {
        let found = names(&certificate(&["Alice".into()], &[dns("*.example.com")]));
        for (user, expected) in [
            ("Alice", true),
            ("alice", false),
            ("Alice ", false),
            ("Alic", false),
            ("a.example.com", false),
            ("*.example.com", true),
            ("ann", false),
            ("", false),
        ] {
            assert_eq!(permits(&found, user.as_bytes(), None), expected, "{user}");
        }
    }

    #[test]
    fn several_common_names_are_none() {
        let two = certificate(&["alice".into(), "bob".into()], &[]);
        assert!(names(&two).is_empty());
    }

    #[test]
    fn a_zero_byte_hides_nothing() {
        for text in ["alice\0", "alice\0.evil.com", "\0alice", "ali\nce", ""] {
            let evil = DnValue::Utf8String(text.into());
            assert!(names(&certificate(&[evil], &[])).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn with_a_map_only_the_map_counts() {
        let text = b"m Alice ann\nm 10.0.0.1 all\nn bob bob\n";
        let maps = IdentMaps::parse(text, Path::new("f")).unwrap();
        let (m, n) = (maps.get(b"m").unwrap(), maps.get(b"n").unwrap());
        let alice = ["Alice".to_owned()];
        assert!(permits(&alice, b"ann", Some(m)) && !permits(&alice, b"Alice", Some(m)));
        assert!(!permits(&alice, b"ann", Some(n)) && !permits(&[], b"ann", Some(m)));
        assert!(permits(&["10.0.0.1".to_owned()], b"whoever", Some(m)));
    }

    proptest! {
        #[test]
        fn garbage_has_no_names(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(names(&bytes).is_empty());
        }

        #[test]
        fn damaged_certificates_do_not_panic(place: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            static DER: std::sync::LazyLock<Vec<u8>> =
                std::sync::LazyLock::new(|| certificate(&["alice".into()], &[dns("a.b.c")]));
            let mut damaged = DER.clone();
            *place.get_mut(&mut damaged) = byte;
            let _ = names(&damaged);
            damaged.truncate(cut.index(DER.len()));
            prop_assert!(names(&damaged).is_empty());
        }
    }
}
