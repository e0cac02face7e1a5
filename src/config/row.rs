//! What a row of the table of settings says, and the macro that turns the rows into [`super::Settings`].
//!
//! The rows themselves are in [`super::table`].

use std::fmt;

use super::settings::Settings;
use super::value::{Hint, Kind, Raw};

/// Where a setting may stand besides the main section, under the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In a `[databases]` entry.
    Database,
    /// In a `[users]` entry.
    User,
}

/// What this program does otherwise than PgBouncer with a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remark {
    /// The setting is read and has no effect; why.
    Ignored(&'static str),
    /// The setting has another effect; which.
    Differs(&'static str),
    /// What it asks for does not exist in this version; what happens instead.
    Missing(&'static str),
}

/// One setting of the main section.
pub struct Setting {
    /// The name, in lower case, as it is written in files.
    pub name: &'static str,
    /// Notation and range.
    pub kind: Kind,
    /// The default as PgBouncer writes it; `None` is PgBouncer's "unset".
    pub default: Option<&'static str>,
    /// Whether a reload or SET changes it; otherwise only a restart does.
    pub changeable: bool,
    /// Where else it may stand.
    pub scopes: &'static [Scope],
    /// What is to be known about it when coming from PgBouncer.
    pub remark: Option<Remark>,
    pub(super) help: &'static str,
    pub(super) get: fn(&Settings, Kind) -> Option<String>,
    pub(super) set: fn(&mut Settings, &Raw, Kind) -> Result<(), Hint>,
    pub(super) copy: fn(&mut Settings, &Settings),
    pub(super) same: fn(&Settings, &Settings) -> bool,
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Setting({})", self.name)
    }
}

impl Setting {
    /// One line for people.
    pub fn help(&self) -> &'static str {
        self.help.trim()
    }

    /// The value as SHOW CONFIG prints it; `None` (NULL) when it is unset.
    pub fn text(&self, settings: &Settings) -> Option<String> {
        let empty_unless_unset = || self.default.map(|_| String::new());
        (self.get)(settings, self.kind).or_else(empty_unless_unset)
    }

    /// Reads a written value into the settings, which stay as they were when it is refused.
    pub fn read(&self, settings: &mut Settings, raw: &Raw) -> Result<(), Hint> {
        (self.set)(settings, raw, self.kind)
    }

    /// Gives `to` the value that this setting has in `from`.
    pub fn copy(&self, to: &mut Settings, from: &Settings) {
        (self.copy)(to, from);
    }

    /// Whether this setting has the same value in both.
    pub fn same(&self, one: &Settings, other: &Settings) -> bool {
        (self.same)(one, other)
    }

    /// The environment variable that overrides it, `PGWEIR_` and the name in upper case.
    pub fn variable(&self) -> String {
        format!(
            "{}{}",
            super::environment::PREFIX,
            self.name.to_ascii_uppercase()
        )
    }
}

/// Writes the struct of settings, its `Default`, and the table, from rows of the form
///
/// ```text
/// /// help
/// name: Type, Kind, default or `unset`, `live` or `start` [, in [scopes]] [, remark Kind("text")];
/// ```
macro_rules! settings {
    ($(#[$meta:meta])* $struct:ident, $(#[$table_meta:meta])* $table:ident: $(
        $(#[doc = $help:literal])+
        $name:ident: $type:ty, $kind:expr, $default:tt, $when:ident
        $(, in [$($scope:ident),+])? $(, remark $remark:ident($text:literal))?;
    )+) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $struct { $($(#[doc = $help])+ pub $name: $type,)+ }

        impl Default for $struct {
            fn default() -> Self {
                Self { $($name: $crate::config::row::initial(settings!(@default $default), $kind),)+ }
            }
        }

        $(#[$table_meta])*
        pub static $table: &[Setting] = &[$(Setting {
            name: stringify!($name),
            kind: $kind,
            default: settings!(@default $default),
            changeable: settings!(@when $when),
            scopes: &[$($(Scope::$scope),+)?],
            remark: settings!(@remark $($remark($text))?),
            help: concat!($($help),+),
            get: |settings, kind| Value::write(&settings.$name, kind),
            set: |settings, raw, kind| { settings.$name = Value::read(raw, kind)?; Ok(()) },
            copy: |to, from| to.$name.clone_from(&from.$name),
            same: |one, other| one.$name == other.$name,
        },)+];
    };
    (@default unset) => { None };
    (@default $default:expr) => { Some($default) };
    (@when live) => { true };
    (@when start) => { false };
    (@remark) => { None };
    (@remark $remark:ident($text:literal)) => { Some(Remark::$remark($text)) };
}
pub(super) use settings;

/// The value of a fresh setting. A default that does not read would be the type's own; a test sees to it that
/// there is none.
pub(super) fn initial<T: super::value::Value>(default: Option<&str>, kind: Kind) -> T {
    default
        .and_then(|text| T::read(&Raw::plain(text), kind).ok())
        .unwrap_or_default()
}
