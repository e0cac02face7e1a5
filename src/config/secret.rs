//! A password from the configuration: wiped when dropped, and kept out of logs and of SHOW CONFIG.

use std::fmt;

use zeroize::Zeroizing;

use super::value::{Hint, Kind, Raw, Value};

/// A password as it stands in a `[databases]` entry. `Debug` hides it and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes over the text.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The password itself: for a proof to a server, never for a message.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The text of `auth_ldap_options`, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LdapText(Secret);

/// The option whose value nobody sees, and what is shown instead of it and of all behind it: where a value ends is not for this
/// file to know.
const HIDDEN_FROM: &str = "ldapbindpasswd";

impl LdapText {
    /// The whole text.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// Whether there seems to be a password in it.
    pub fn has_password(&self) -> bool {
        self.expose().contains(HIDDEN_FROM)
    }

    fn shown(&self) -> String {
        match self.expose().split_once(HIDDEN_FROM) {
            Some((before, _)) => format!("{before}{HIDDEN_FROM}=..."),
            None => self.expose().to_owned(),
        }
    }
}

impl Value for Option<LdapText> {
    fn read(raw: &Raw, _kind: Kind) -> Result<Self, Hint> {
        let text = raw.text()?;
        Ok((!text.is_empty()).then(|| LdapText(Secret::from(text))))
    }

    fn write(&self, _kind: Kind) -> Option<String> {
        self.as_ref().map(LdapText::shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn show_config_hides_a_bind_password() {
        let shown = |text: &str| {
            let read = Option::<LdapText>::read(&Raw::plain(text), Kind::Text).unwrap();
            assert_eq!(read.as_ref().map_or("", LdapText::expose), text);
            read.write(Kind::Text)
        };
        assert_eq!(shown(""), None);
        assert_eq!(shown("ldapserver=h").as_deref(), Some("ldapserver=h"));
        let hidden = shown("ldapserver=h ldapbindpasswd=\"hu sh\" ldapbasedn=x");
        assert_eq!(hidden.as_deref(), Some("ldapserver=h ldapbindpasswd=..."));
    }

    #[test]
    fn debug_hides_it() {
        assert_eq!(
            format!("{:?}", Some(Secret::from("hush"))),
            "Some(Secret(..))"
        );
    }
}
