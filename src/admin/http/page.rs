//! The status page: one file without dependencies, and the policy under which browsers run it.
//!
//! Names of databases, users and applications come from clients. The page writes them as text only, and the policy would let nothing
//! run but the one script that is part of it, by its hash.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// The page.
pub const PAGE: &str = include_str!("page.html");

/// What the page may load and run: itself, and `/status.json` of the same address.
pub fn policy() -> &'static str {
    static POLICY: OnceLock<String> = OnceLock::new();
    POLICY.get_or_init(|| {
        let [script, style] = ["script", "style"].map(|tag| hash(inside(PAGE, tag)));
        format!(
            "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; connect-src 'self'; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    })
}

/// What stands between a page's only `<tag>` and its end.
fn inside<'a>(page: &'a str, tag: &str) -> &'a str {
    let (_, behind) = page.split_once(&format!("<{tag}>")).unwrap_or_default();
    let (inside, _) = behind.split_once(&format!("</{tag}>")).unwrap_or_default();
    inside
}

fn hash(text: &str) -> String {
    STANDARD.encode(Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nobody_else_and_writes_text_only() {
        for tag in ["script", "style"] {
            assert_eq!(PAGE.matches(&format!("<{tag}")).count(), 1, "{tag}");
            assert!(!inside(PAGE, tag).is_empty());
        }
        for word in [
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
            "http://",
            "https://",
            "style=\"",
            "onclick",
        ] {
            let found = PAGE.replace("http://www.w3.org/2000/svg", "");
            assert!(!found.contains(word), "{word}");
        }
    }
}
