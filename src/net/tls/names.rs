//! What a certificate says about whom it belongs to: [`CertificateNames`].
//!
//! Pure. Reads just the subject and the alternative names; it does not judge whether the certificate
//! may be trusted (that is `verify`'s). The bytes come from a peer: whatever they are, the answer is
//! a value or `None`.

use std::net::IpAddr;

/// The names in a certificate that a host may be compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateNames {
    /// Alternative names of kind DNS.
    pub dns: Vec<String>,
    /// Alternative names of kind IP address.
    pub ips: Vec<IpAddr>,
    /// The first common name of the subject.
    pub common_name: Option<String>,
}

impl CertificateNames {
    /// Reads them from a certificate in DER; `None` if it is not one.
    ///
    /// A name with a zero byte in it is left out: C programs would see only what stands before.
    pub fn parse(certificate: &[u8]) -> Option<Self> {
        let mut outer = Der(certificate).take(SEQUENCE)?;
        let mut body = outer.take(SEQUENCE)?;
        body.skip_if(CONTEXT_0); // version
        body.take(INTEGER)?; // serial number
        body.take(SEQUENCE)?; // signature algorithm
        body.take(SEQUENCE)?; // issuer
        body.take(SEQUENCE)?; // validity
        let subject = body.take(SEQUENCE)?;
        body.take(SEQUENCE)?; // public key
        let mut names = CertificateNames {
            common_name: first_common_name(subject)?,
            ..CertificateNames::default()
        };
        while let Some((tag, mut content)) = body.next() {
            if tag == CONTEXT_3 {
                names.read_extensions(content.take(SEQUENCE)?)?;
            }
        }
        Some(names)
    }

    /// Is the bearer the host `host`? The common name counts only in certificates that have no
    /// alternative names of the kinds DNS and IP address.
    pub fn match_host(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        if self.dns.is_empty() && self.ips.is_empty() {
            return self
                .common_name
                .as_deref()
                .is_some_and(|name| pattern_matches(name, host));
        }
        self.match_alternative(host)
    }

    fn match_alternative(&self, name: &str) -> bool {
        match name.parse::<IpAddr>() {
            Ok(ip) => self.ips.contains(&ip),
            Err(_) => self
                .dns
                .iter()
                .any(|pattern| pattern_matches(pattern, name)),
        }
    }

    fn read_extensions(&mut self, mut extensions: Der<'_>) -> Option<()> {
        while let Some((tag, mut extension)) = extensions.next() {
            if tag == SEQUENCE && extension.take(OBJECT_ID)?.0 == SUBJECT_ALT_NAME {
                extension.skip_if(BOOLEAN); // critical
                let mut value = extension.take(OCTET_STRING)?;
                self.read_alternative_names(value.take(SEQUENCE)?);
            }
        }
        Some(())
    }

    fn read_alternative_names(&mut self, mut names: Der<'_>) {
        while let Some((tag, Der(content))) = names.next() {
            match tag {
                ALT_NAME_DNS => self.dns.extend(clean_text(content)),
                ALT_NAME_IP => self.ips.extend(ip_address(content)),
                _ => {}
            }
        }
    }
}

/// Does `name` match `pattern`, whose leftmost label may be `*`? The wildcard stands for exactly one
/// label and needs at least two labels after it.
fn pattern_matches(pattern: &str, name: &str) -> bool {
    if pattern.is_empty() || name.is_empty() {
        return false;
    }
    if pattern.eq_ignore_ascii_case(name) {
        return true;
    }
    let Some(domain) = pattern.strip_prefix("*.") else {
        return false;
    };
    let is_domain = domain.split('.').count() >= 2 && domain.split('.').all(|l| !l.is_empty());
    match name.split_once('.') {
        Some((label, rest)) => is_domain && !label.is_empty() && rest.eq_ignore_ascii_case(domain),
        None => false,
    }
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

fn clean_text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.contains('\0')).then(|| text.to_owned())
}

/// `None` if this is no name; `Some(None)` if it has no (readable) common name.
fn first_common_name(mut subject: Der<'_>) -> Option<Option<String>> {
    while let Some((tag, mut set)) = subject.next() {
        if tag != SET {
            return None;
        }
        while let Some((tag, mut attribute)) = set.next() {
            if tag == SEQUENCE && attribute.take(OBJECT_ID)?.0 == COMMON_NAME {
                let (kind, Der(value)) = attribute.next()?;
                return Some(match kind {
                    UTF8_STRING | PRINTABLE_STRING | IA5_STRING | TELETEX_STRING => {
                        clean_text(value)
                    }
                    BMP_STRING => bmp_text(value),
                    _ => None,
                });
            }
        }
    }
    Some(None)
}

fn bmp_text(bytes: &[u8]) -> Option<String> {
    let (units, rest) = bytes.as_chunks::<2>();
    let units: Vec<u16> = units.iter().map(|u| u16::from_be_bytes(*u)).collect();
    let text = String::from_utf16(&units).ok()?;
    (rest.is_empty() && !text.contains('\0')).then_some(text)
}

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const TELETEX_STRING: u8 = 0x14;
const IA5_STRING: u8 = 0x16;
const BMP_STRING: u8 = 0x1e;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const CONTEXT_0: u8 = 0xa0;
const CONTEXT_3: u8 = 0xa3;
const ALT_NAME_DNS: u8 = 0x82;
const ALT_NAME_IP: u8 = 0x87;
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 2.5.29.17
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// The rest of a DER encoding; reading takes elements off its front.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element's tag and content; `None` at the end, or where the encoding is broken.
    fn next(&mut self) -> Option<(u8, Der<'a>)> {
        let (&[tag, short], rest) = self.0.split_first_chunk::<2>()?;
        let (length, rest) = match short {
            0..=0x7f => (usize::from(short), rest),
            // The length itself takes up to four bytes; certificates are not larger.
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(short - 0x80))?;
                let length = bytes
                    .iter()
                    .fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte));
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, Der(content)))
    }

    /// The next element's content, if its tag is this one.
    fn take(&mut self, tag: u8) -> Option<Der<'a>> {
        match self.next()? {
            (found, content) if found == tag => Some(content),
            _ => None,
        }
    }

    fn skip_if(&mut self, tag: u8) {
        if self.0.first() == Some(&tag) {
            let _ = self.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType};

    fn certificate(common_names: &[DnValue], alternatives: &[SanType]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "somebody");
        for name in common_names {
            params
                .distinguished_name
                .push(DnType::CommonName, name.clone());
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
        let der = certificate(
            &["alice".into()],
            &[
                dns("db.example.com"),
                dns("*.example.org"),
                SanType::IpAddress("10.0.0.1".parse().unwrap()),
                SanType::IpAddress("::1".parse().unwrap()),
                SanType::Rfc822Name("alice@example.com".try_into().unwrap()),
            ],
        );
        let names = CertificateNames::parse(&der).unwrap();
        assert_eq!(names.common_name.as_deref(), Some("alice"));
        assert_eq!(names.dns, ["db.example.com", "*.example.org"]);
        let ips: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(names.ips, ips);
        assert!(names.match_host("x.example.org.") && names.match_host("::1"));
        assert!(!names.match_host("alice"), "has alternative names");
        assert!(!names.match_host("alice@example.com"));
    }

    #[test]
    fn without_alternative_names_the_common_name_is_the_host() {
        let names = CertificateNames::parse(&certificate(&["db1.local".into()], &[])).unwrap();
        assert!(names.match_host("DB1.local") && !names.match_host("db2.local"));
        let nobody = CertificateNames::parse(&certificate(&[], &[])).unwrap();
        assert_eq!(nobody, CertificateNames::default());
        assert!(!nobody.match_host(""));
    }

    #[test]
    fn all_kinds_of_strings_are_read() {
        let bmp = DnValue::BmpString("jürgen".try_into().unwrap());
        let printable = DnValue::PrintableString("bob".try_into().unwrap());
        let utf8 = DnValue::Utf8String("żaneta".into());
        for (value, text) in [(bmp, "jürgen"), (printable, "bob"), (utf8, "żaneta")] {
            let names = CertificateNames::parse(&certificate(&[value], &[])).unwrap();
            assert_eq!(names.common_name.as_deref(), Some(text));
        }
    }

    #[test]
    fn a_zero_byte_hides_nothing() {
        let evil = DnValue::Utf8String("alice\0.evil.com".into());
        let names = CertificateNames::parse(&certificate(&[evil], &[])).unwrap();
        assert_eq!(names.common_name, None);
    }

    #[test]
    fn wildcards() {
        for (pattern, name, expected) in [
            ("*.x.y", "a.x.y", true),
            ("*.X.y", "A.x.Y", true),
            ("*.x.y", "x.y", false),
            ("*.x.y", "a.b.x.y", false),
            ("*.x.y", ".x.y", false),
            ("*.y", "x.y", false),
            ("*.", "x.", false),
            ("*", "x", false),
            ("*.x..y", "a.x..y", false),
            ("a*.x.y", "ab.x.y", false),
            ("x.*.y", "x.a.y", false),
            ("", "", false),
        ] {
            assert_eq!(pattern_matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn garbage_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = CertificateNames::parse(&bytes);
        }

        #[test]
        fn damaged_certificates_do_not_panic(place in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
            static DER: std::sync::LazyLock<Vec<u8>> =
                std::sync::LazyLock::new(|| certificate(&["alice".into()], &[dns("a.b.c")]));
            let mut damaged = DER.clone();
            *place.get_mut(&mut damaged) = byte;
            let _ = CertificateNames::parse(&damaged);
            damaged.truncate(cut.index(DER.len()));
            let _ = CertificateNames::parse(&damaged);
        }
    }
}
