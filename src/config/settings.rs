//! [`Settings`] by name: reading and writing a setting as text, as SET and SHOW CONFIG do.
//!
//! The fields and everything known about them come from [`super::table`].

use std::fmt;

use super::table::{SETTINGS, find};
use super::value::{Hint, Raw};
use super::words::{AuthType, SslMode};

pub use super::table::Settings;

/// Why a setting was not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingError {
    /// There is no setting of this name.
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// The value is not one that the setting can have.
    Invalid {
        /// The setting.
        name: &'static str,
        /// The value given.
        value: String,
        /// What was expected.
        hint: Hint,
    },
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name } => write!(f, "unknown parameter: pgbouncer/{name}"),
            Self::Invalid { name, value, hint } => {
                write!(f, "invalid value \"{value}\" for parameter {name}: {hint}")
            }
        }
    }
}

impl std::error::Error for SettingError {}

/// A setting that cannot be what it is beside the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The setting that asks for the impossible.
    pub setting: &'static str,
    /// What is missing, for people.
    pub text: &'static str,
}

impl Settings {
    /// A setting as SHOW CONFIG prints it: `None` for an unknown name, `Some(None)` for one that is unset.
    pub fn get_text(&self, name: &str) -> Option<Option<String>> {
        find(name).map(|row| row.text(self))
    }

    /// Changes a setting, given in PgBouncer's notation (no units). Whether it takes effect before a restart is
    /// [`Setting::changeable`](super::Setting::changeable).
    ///
    /// # Errors
    /// An unknown name or a bad value; the settings are then as before.
    pub fn set_text(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        let row = find(name).ok_or_else(|| SettingError::Unknown {
            name: name.to_owned(),
        })?;
        row.read(self, &Raw::plain(value))
            .map_err(|hint| SettingError::Invalid {
                name: row.name,
                value: value.to_owned(),
                hint,
            })
    }

    /// Gives the settings that only a restart can change the values they have in `running`. Returns the names of
    /// those that had been given another value in vain.
    pub fn keep_start_only(&mut self, running: &Self) -> Vec<&'static str> {
        let mut in_vain = Vec::new();
        for row in SETTINGS.iter().filter(|row| !row.changeable) {
            if !row.same(self, running) {
                row.copy(self, running);
                in_vain.push(row.name);
            }
        }
        in_vain
    }

    /// Settings that cannot work together. A configuration with any is not loaded.
    pub fn contradictions(&self) -> Vec<Contradiction> {
        let mut found = Vec::new();
        let mode = self.client_tls_sslmode;
        let has_certificate =
            self.client_tls_key_file.is_some() && self.client_tls_cert_file.is_some();
        if mode != SslMode::Disable && !has_certificate {
            found.push(Contradiction {
                setting: "client_tls_sslmode",
                text: "To allow TLS connections from clients, client_tls_key_file and client_tls_cert_file must be set.",
            });
        }
        if mode == SslMode::VerifyFull && self.client_tls_ca_file.is_none() {
            let text = "client_tls_sslmode requires client_tls_ca_file";
            found.push(Contradiction {
                setting: "client_tls_sslmode",
                text,
            });
        }
        found.extend(self.auth_contradictions());
        found
    }

    fn auth_contradictions(&self) -> Vec<Contradiction> {
        let lacks = |lacking: bool, text| {
            lacking.then_some(Contradiction {
                setting: "auth_type",
                text,
            })
        };
        let is_verifying = self.client_tls_sslmode == SslMode::VerifyFull;
        let found = match self.auth_type {
            AuthType::Cert => [
                lacks(
                    !is_verifying,
                    "auth_type=cert requires client_tls_sslmode=SSLMODE_VERIFY_FULL",
                ),
                lacks(
                    self.client_tls_ca_file.is_none(),
                    "auth_type=cert requires client_tls_ca_file",
                ),
            ],
            AuthType::Hba => [
                lacks(
                    self.auth_hba_file.is_none(),
                    "auth_type=hba requires auth_hba_file",
                ),
                None,
            ],
            AuthType::Ldap => [
                lacks(
                    self.auth_ldap_options.is_none(),
                    "auth_type=ldap requires auth_ldap_options",
                ),
                None,
            ],
            _ => [None, None],
        };
        found.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn settings_are_read_and_written_by_name() {
        let mut settings = Settings::default();
        assert_eq!(settings.set_text("query_timeout", "1.5"), Ok(()));
        assert_eq!(settings.query_timeout, Duration::from_millis(1500));
        assert_eq!(
            settings.get_text("query_timeout"),
            Some(Some("1.5".to_owned()))
        );
        assert_eq!(settings.get_text("auth_user"), Some(None));
        assert_eq!(settings.get_text("no_such"), None);
    }

    #[test]
    fn a_refused_value_changes_nothing() {
        let mut settings = Settings::default();
        let refused = settings
            .set_text("query_timeout", "10s")
            .map_err(|e| e.to_string());
        let expected = "invalid value \"10s\" for parameter query_timeout: \
                        a number of seconds without a unit is expected";
        assert_eq!(refused, Err(expected.to_owned()));
        let unknown = settings
            .set_text("Pool_mode", "x")
            .map_err(|e| e.to_string());
        assert_eq!(
            unknown,
            Err("unknown parameter: pgbouncer/Pool_mode".to_owned())
        );
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn a_reload_keeps_what_only_a_restart_can_change() {
        let running = Settings {
            listen_port: 1,
            ..Settings::default()
        };
        let mut new = Settings {
            listen_port: 2,
            max_client_conn: 7,
            ..Settings::default()
        };
        assert_eq!(new.keep_start_only(&running), vec!["listen_port"]);
        assert_eq!((new.listen_port, new.max_client_conn), (1, 7));
        assert!(new.keep_start_only(&running).is_empty());
    }

    #[test]
    fn tls_needs_its_files() {
        let mut settings = Settings {
            client_tls_sslmode: SslMode::VerifyFull,
            ..Settings::default()
        };
        assert_eq!(settings.contradictions().len(), 2);
        settings.client_tls_key_file = Some("k".into());
        settings.client_tls_cert_file = Some("c".into());
        assert_eq!(settings.contradictions().len(), 1);
        settings.client_tls_ca_file = Some("a".into());
        assert_eq!(settings.contradictions(), vec![]);
    }

    #[test]
    fn methods_need_what_they_go_by() {
        let texts = |settings: &Settings| -> Vec<_> {
            settings
                .contradictions()
                .iter()
                .map(|found| found.text)
                .collect()
        };
        let mut settings = Settings {
            auth_type: AuthType::Cert,
            client_tls_key_file: Some("k".into()),
            client_tls_cert_file: Some("c".into()),
            ..Settings::default()
        };
        let expected = [
            "auth_type=cert requires client_tls_sslmode=SSLMODE_VERIFY_FULL",
            "auth_type=cert requires client_tls_ca_file",
        ];
        assert_eq!(texts(&settings), expected);
        settings.client_tls_sslmode = SslMode::VerifyCa;
        settings.client_tls_ca_file = Some("a".into());
        assert_eq!(texts(&settings), expected[..1]);
        settings.client_tls_sslmode = SslMode::VerifyFull;
        assert!(texts(&settings).is_empty());
        settings.auth_type = AuthType::Hba;
        assert_eq!(texts(&settings), ["auth_type=hba requires auth_hba_file"]);
        settings.auth_hba_file = Some("hba".into());
        assert!(texts(&settings).is_empty());
    }

    proptest! {
        /// Whatever text a setting accepts, the text it then shows means the same.
        #[test]
        fn accepted_text_round_trips(row in 0..SETTINGS.len(), text in "[ -~]{0,12}|[0-9]{1,5}|[a-z]{3,9}") {
            let name = SETTINGS[row].name;
            let mut first = Settings::default();
            if first.set_text(name, &text).is_ok() {
                let shown = first.get_text(name).flatten();
                let mut second = Settings::default();
                if let Some(shown) = &shown {
                    prop_assert_eq!(second.set_text(name, shown), Ok(()));
                }
                prop_assert_eq!(second.get_text(name).flatten(), shown);
            }
        }
    }
}
