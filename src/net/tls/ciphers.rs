//! Cipher strings as OpenSSL writes them, mapped to the suites that we have.
//!
//! Pure. All our suites have forward secrecy and authenticated encryption, so old strings often name
//! many that we do not have. Those are reported as remarks, not errors: the rest of the string counts.

use tokio_rustls::rustls::SupportedCipherSuite;
use tokio_rustls::rustls::crypto::ring::cipher_suite as suites;

/// One of our suites, and how OpenSSL's strings may speak of it.
struct Suite {
    /// OpenSSL's name.
    name: &'static str,
    /// Name and protocol version, as in log lines.
    version_text: &'static str,
    suite: SupportedCipherSuite,
    /// Groups that it belongs to, beside [`GROUPS_OF_ALL`].
    groups: &'static [&'static str],
}

static TLS13: [Suite; 3] = [
    Suite {
        name: "TLS_AES_256_GCM_SHA384",
        version_text: "TLSv1.3/TLS_AES_256_GCM_SHA384",
        suite: suites::TLS13_AES_256_GCM_SHA384,
        groups: &[],
    },
    Suite {
        name: "TLS_AES_128_GCM_SHA256",
        version_text: "TLSv1.3/TLS_AES_128_GCM_SHA256",
        suite: suites::TLS13_AES_128_GCM_SHA256,
        groups: &[],
    },
    Suite {
        name: "TLS_CHACHA20_POLY1305_SHA256",
        version_text: "TLSv1.3/TLS_CHACHA20_POLY1305_SHA256",
        suite: suites::TLS13_CHACHA20_POLY1305_SHA256,
        groups: &[],
    },
];

static TLS12: [Suite; 6] = [
    Suite {
        name: "ECDHE-ECDSA-AES256-GCM-SHA384",
        version_text: "TLSv1.2/ECDHE-ECDSA-AES256-GCM-SHA384",
        suite: suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        groups: &["ECDSA", "aECDSA", "AES", "AES256", "AESGCM"],
    },
    Suite {
        name: "ECDHE-ECDSA-AES128-GCM-SHA256",
        version_text: "TLSv1.2/ECDHE-ECDSA-AES128-GCM-SHA256",
        suite: suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        groups: &["ECDSA", "aECDSA", "AES", "AES128", "AESGCM"],
    },
    Suite {
        name: "ECDHE-ECDSA-CHACHA20-POLY1305",
        version_text: "TLSv1.2/ECDHE-ECDSA-CHACHA20-POLY1305",
        suite: suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        groups: &["ECDSA", "aECDSA", "CHACHA20"],
    },
    Suite {
        name: "ECDHE-RSA-AES256-GCM-SHA384",
        version_text: "TLSv1.2/ECDHE-RSA-AES256-GCM-SHA384",
        suite: suites::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        groups: &["aRSA", "AES", "AES256", "AESGCM"],
    },
    Suite {
        name: "ECDHE-RSA-AES128-GCM-SHA256",
        version_text: "TLSv1.2/ECDHE-RSA-AES128-GCM-SHA256",
        suite: suites::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        groups: &["aRSA", "AES", "AES128", "AESGCM"],
    },
    Suite {
        name: "ECDHE-RSA-CHACHA20-POLY1305",
        version_text: "TLSv1.2/ECDHE-RSA-CHACHA20-POLY1305",
        suite: suites::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        groups: &["aRSA", "CHACHA20"],
    },
];

/// Groups that every TLS 1.2 suite of ours belongs to, PgBouncer's own words included.
const GROUPS_OF_ALL: [&str; 13] = [
    "ALL", "DEFAULT", "HIGH", "ECDH", "ECDHE", "EECDH", "kECDHE", "kEECDH", "TLSv1.2",
    // PgBouncer's words:
    "secure", "fast", "normal", "default",
];

impl Suite {
    /// Does this term, perhaps joined from several with `+`, speak of the suite?
    fn is_meant_by(&self, term: &str) -> bool {
        term.split('+').all(|word| {
            let is_word = |name: &&str| word.eq_ignore_ascii_case(name);
            is_word(&self.name)
                || self.suite.suite().as_str() == Some(word)
                || GROUPS_OF_ALL.iter().any(is_word)
                || self.groups.iter().any(is_word)
        })
    }
}

/// The TLS 1.2 suites that an OpenSSL cipher string selects, best first; empty text selects all.
pub(super) fn tls12(text: &str, remarks: &mut Vec<String>) -> Vec<SupportedCipherSuite> {
    let text = if text.trim().is_empty() { "ALL" } else { text };
    let mut selection = Selection::default();
    for term in text.split([':', ',', ' ', ';']).filter(|t| !t.is_empty()) {
        selection.apply(term, remarks);
    }
    selection.chosen.iter().map(|i| TLS12[*i].suite).collect()
}

/// A list under construction. Its members are places in [`TLS12`].
#[derive(Default)]
struct Selection {
    chosen: Vec<usize>,
    /// Never to come back, whatever follows.
    banned: Vec<usize>,
}

impl Selection {
    fn apply(&mut self, term: &str, remarks: &mut Vec<String>) {
        match term.split_at_checked(1) {
            Some(("!", name)) => {
                let meant = Self::meant_by(name);
                self.chosen.retain(|i| !meant.contains(i));
                self.banned.extend(meant);
            }
            Some(("-", name)) => {
                let meant = Self::meant_by(name);
                self.chosen.retain(|i| !meant.contains(i));
            }
            Some(("+", name)) => {
                // Moves to the end what was chosen already.
                let meant = Self::meant_by(name);
                self.chosen.sort_by_key(|i| meant.contains(i));
            }
            // Commands about order and key sizes; our few suites need neither.
            Some(("@", _)) => {}
            _ => self.add(term, remarks),
        }
    }

    fn add(&mut self, name: &str, remarks: &mut Vec<String>) {
        let meant = Self::meant_by(name);
        if meant.is_empty() {
            remarks.push(not_available(name));
        }
        for i in meant {
            if !self.chosen.contains(&i) && !self.banned.contains(&i) {
                self.chosen.push(i);
            }
        }
    }

    fn meant_by(name: &str) -> Vec<usize> {
        (0..TLS12.len())
            .filter(|i| TLS12[*i].is_meant_by(name))
            .collect()
    }
}

/// The TLS 1.3 suites of a list such as `TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256`; empty text means all.
pub(super) fn tls13(text: &str, remarks: &mut Vec<String>) -> Vec<SupportedCipherSuite> {
    if text.trim().is_empty() {
        return TLS13.iter().map(|s| s.suite).collect();
    }
    let mut chosen = Vec::new();
    for name in text.split([':', ',', ' ']).filter(|t| !t.is_empty()) {
        match TLS13.iter().find(|s| s.name.eq_ignore_ascii_case(name)) {
            Some(found) if chosen.contains(&found.suite) => {}
            Some(found) => chosen.push(found.suite),
            None => remarks.push(not_available(name)),
        }
    }
    chosen
}

/// Protocol and cipher as in PgBouncer's log lines, e.g. `TLSv1.3/TLS_AES_256_GCM_SHA384`.
pub(super) fn version_text(suite: SupportedCipherSuite) -> Option<&'static str> {
    let mut all = TLS13.iter().chain(&TLS12);
    Some(all.find(|s| s.suite == suite)?.version_text)
}

fn not_available(name: &str) -> String {
    format!("TLS cipher {name} is not available and is ignored")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio_rustls::rustls::crypto::ring::ALL_CIPHER_SUITES;

    const ALL12: [&str; 6] = [
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-CHACHA20-POLY1305",
    ];

    fn names(chosen: &[SupportedCipherSuite]) -> Vec<&'static str> {
        let text = |s: &SupportedCipherSuite| version_text(*s).unwrap();
        chosen
            .iter()
            .map(|s| text(s).split_once('/').unwrap().1)
            .collect()
    }

    fn check(text: &str, expected: &[&str], remarks_expected: usize) {
        let mut remarks = Vec::new();
        let chosen = tls12(text, &mut remarks);
        assert_eq!(names(&chosen), expected, "{text:?}");
        assert_eq!(remarks.len(), remarks_expected, "{text:?} {remarks:?}");
    }

    #[test]
    fn strings_from_old_files() {
        for all in [
            "",
            "default",
            "secure",
            "fast",
            "normal",
            "all",
            "HIGH:!aNULL:!MD5",
        ] {
            check(all, &ALL12, 0);
        }
        check("HIGH:MEDIUM:+3DES:!aNULL", &ALL12, 1);
        check("HIGH:!RSA:!aNULL:@STRENGTH", &ALL12, 0);
        check(
            "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:AES128-SHA",
            &[ALL12[4], ALL12[3]],
            1,
        );
        check("EECDH+AESGCM+aRSA", &[ALL12[3], ALL12[4]], 0);
        check(
            "AES256,AES128",
            &[ALL12[0], ALL12[3], ALL12[1], ALL12[4]],
            0,
        );
        check("ALL:!AES:!aECDSA", &[ALL12[5]], 0);
        check("!AES:ALL", &[ALL12[2], ALL12[5]], 0);
        check("CHACHA20:-aRSA:aRSA+CHACHA20", &[ALL12[2], ALL12[5]], 0);
        check("CHACHA20:+aECDSA", &[ALL12[5], ALL12[2]], 0);
        check("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", &[ALL12[3]], 0);
        check("RC4-SHA:DES-CBC3-SHA", &[], 2);
    }

    #[test]
    fn tls13_lists() {
        let mut remarks = Vec::new();
        assert_eq!(tls13("", &mut remarks).len(), 3);
        let text = "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_CCM_SHA256:TLS_AES_128_GCM_SHA256";
        let chosen = tls13(text, &mut remarks);
        assert_eq!(
            names(&chosen),
            ["TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"]
        );
        assert_eq!(
            remarks,
            ["TLS cipher TLS_AES_128_CCM_SHA256 is not available and is ignored"]
        );
    }

    #[test]
    fn the_tables_name_all_suites_of_the_library() {
        for suite in ALL_CIPHER_SUITES {
            assert!(version_text(*suite).is_some(), "{suite:?}");
        }
        assert_eq!(TLS12.len() + TLS13.len(), ALL_CIPHER_SUITES.len());
    }

    proptest! {
        #[test]
        fn no_string_panics(text in "[-+!@:, A-Za-z0-9é]{0,60}") {
            let mut remarks = Vec::new();
            let chosen = tls12(&text, &mut remarks);
            prop_assert!(chosen.len() <= TLS12.len());
            tls13(&text, &mut remarks);
        }
    }
}
