//! From what was written to a typed value, and back to text.
//!
//! [`Raw`] is a value as a file or the environment gave it, [`Kind`] says which notation and range a setting has, and
//! [`Value`] is implemented once for each Rust type that a setting can have. The notation itself is in
//! [`super::number`], the words of enums are in [`super::words`].

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use super::number;

/// Why a value was refused, for people: `one of session, transaction, statement`.
pub type Hint = Cow<'static, str>;

/// The name of the operator's console; no configured database can have it.
pub const CONSOLE_DATABASE: &str = "pgbouncer";

/// A value as it was written. Text is wiped when dropped, since it may be a password; `Debug` does not show it.
#[derive(Clone, PartialEq)]
pub enum Raw {
    /// Text from the ini file or the console, in PgBouncer's notation: no units.
    Plain(Zeroizing<String>),
    /// Text from the environment or a TOML string: units are allowed.
    Free(Zeroizing<String>),
    /// A TOML number, in decimal.
    Number(String),
    /// A TOML boolean.
    Flag(bool),
    /// A TOML array of strings.
    List(Vec<String>),
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain(..)",
            Self::Free(_) => "Free(..)",
            Self::Number(_) => "Number(..)",
            Self::Flag(_) => "Flag(..)",
            Self::List(_) => "List(..)",
        })
    }
}

impl Raw {
    /// Text in PgBouncer's notation.
    pub fn plain(text: &str) -> Self {
        Self::Plain(Zeroizing::new(text.to_owned()))
    }

    /// Text in which units are allowed.
    pub fn free(text: &str) -> Self {
        Self::Free(Zeroizing::new(text.to_owned()))
    }

    /// The value as a message may quote it.
    pub fn shown(&self) -> String {
        match self {
            Self::Plain(text) | Self::Free(text) => text.to_string(),
            Self::Number(text) => text.clone(),
            Self::Flag(on) => on.to_string(),
            Self::List(items) => items.join(","),
        }
    }

    /// The text, of a value that is text.
    pub fn text(&self) -> Result<&str, Hint> {
        match self {
            Self::Plain(text) | Self::Free(text) => Ok(text),
            Self::Number(_) | Self::Flag(_) => Err("text in quotes is expected".into()),
            Self::List(_) => Err("one value is expected, not a list".into()),
        }
    }

    /// An integer in C's notation (`0x20`, `0777`).
    pub fn integer(&self) -> Result<i64, Hint> {
        let read = match self {
            Self::Plain(text) | Self::Free(text) => number::c_integer(text),
            Self::Number(text) => number::decimal_integer(text),
            Self::Flag(_) | Self::List(_) => None,
        };
        read.ok_or(Hint::Borrowed("an integer is expected"))
    }

    /// A decimal integer, as the numbers in `[databases]` and `[users]` entries are written.
    pub fn decimal(&self) -> Result<i64, Hint> {
        let read = match self {
            Self::Plain(text) | Self::Free(text) => number::decimal_integer(text),
            Self::Number(text) => number::decimal_integer(text),
            Self::Flag(_) | Self::List(_) => None,
        };
        read.ok_or(Hint::Borrowed("an integer is expected"))
    }

    /// A time of 0 or more.
    pub fn time(&self) -> Result<Duration, Hint> {
        match self {
            Self::Plain(text) => {
                number::seconds(text).ok_or("a number of seconds without a unit is expected".into())
            }
            Self::Free(text) => number::time_with_unit(text).ok_or(
                "seconds, or a time with one of the units us, ms, s, min, h, d, is expected".into(),
            ),
            Self::Number(text) => {
                number::seconds(text).ok_or("a number of seconds, 0 or more, is expected".into())
            }
            Self::Flag(_) | Self::List(_) => Err("a time is expected".into()),
        }
    }

    /// 0 or 1; with units allowed also `true`, `on`, `yes` and their opposites. Any other number counts as 1, as in C.
    pub fn flag(&self) -> Result<bool, Hint> {
        if let Self::Flag(on) = self {
            return Ok(*on);
        }
        if let Self::Free(text) = self {
            match text.to_ascii_lowercase().as_str() {
                "true" | "on" | "yes" => return Ok(true),
                "false" | "off" | "no" => return Ok(false),
                _ => {}
            }
        }
        self.integer()
            .map(|number| number != 0)
            .map_err(|_| "0 or 1 is expected".into())
    }

    /// The items of a list: of an array, or of text with commas or blanks between them. Empty items are left out.
    pub fn items(&self) -> Result<Vec<String>, Hint> {
        self.items_between(|c| c == ',' || c.is_whitespace())
    }

    /// The items of a list whose text form has other separators.
    pub fn items_between(&self, separator: impl Fn(char) -> bool) -> Result<Vec<String>, Hint> {
        if let Self::List(items) = self {
            return Ok(items
                .iter()
                .filter(|item| !item.is_empty())
                .cloned()
                .collect());
        }
        let words = self.text()?.split(separator).map(str::trim);
        Ok(words
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect())
    }
}

/// The notation and range of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text, as it stands.
    Text,
    /// A database name, which cannot be the console's.
    DatabaseName,
    /// A path; empty means none.
    Path,
    /// A comma-separated list of names.
    List,
    /// 0 or 1.
    Flag,
    /// An integer.
    Int {
        /// The least value.
        min: u32,
        /// The greatest value.
        max: u32,
    },
    /// A time in whole seconds.
    Seconds {
        /// The least value.
        min: u32,
    },
    /// A time in seconds, fractions allowed.
    Time,
    /// A time in whole milliseconds.
    Millis,
    /// A size in bytes.
    Bytes {
        /// The least value.
        min: u32,
        /// The greatest value.
        max: u32,
    },
    /// The mode bits of a file; printed in decimal, as PgBouncer does.
    Mode,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of TLS versions.
    Protocols,
}

impl Kind {
    /// What a value looks like, for help and documentation.
    pub fn describe(self) -> String {
        match self {
            Self::Text => "text".into(),
            Self::DatabaseName => "database name".into(),
            Self::Path => "path".into(),
            Self::List => "comma-separated list".into(),
            Self::Flag => "0 or 1".into(),
            Self::Int { min, max } => format!("integer, {min} to {max}"),
            Self::Seconds { min } => format!("whole seconds, {min} or more"),
            Self::Time => "seconds".into(),
            Self::Millis => "milliseconds".into(),
            Self::Bytes { min, max } => format!("bytes, {min} to {max}"),
            Self::Mode => "octal file mode".into(),
            Self::Word(words) => words.join(", "),
            Self::Protocols => "list of tlsv1.2, tlsv1.3, or secure, all".into(),
        }
    }
}

/// A Rust type that a setting can have. `Default` is what an unset setting holds.
pub trait Value: Default {
    /// Reads a written value of this kind.
    ///
    /// # Errors
    /// A hint that says what was expected.
    fn read(raw: &Raw, kind: Kind) -> Result<Self, Hint>;

    /// The value as SHOW CONFIG prints it; `None` when nothing is set.
    fn write(&self, kind: Kind) -> Option<String>;
}

fn in_range(value: i64, min: u32, max: u32) -> Result<u32, Hint> {
    match u32::try_from(value) {
        Ok(value) if (min..=max).contains(&value) => Ok(value),
        _ => Err(format!("{min} to {max} is expected").into()),
    }
}

/// The greatest mode that `unix_socket_mode` can have: all permissions and the three special bits.
const MODE_MAX: u32 = 0o7777;

impl Value for u32 {
    fn read(raw: &Raw, kind: Kind) -> Result<Self, Hint> {
        let (value, min, max) = match (kind, raw) {
            (Kind::Bytes { min, max }, Raw::Free(text)) => {
                let bytes = number::bytes_with_unit(text);
                (
                    bytes.ok_or("bytes, or a size such as 64kB, is expected")?,
                    min,
                    max,
                )
            }
            (Kind::Int { min, max } | Kind::Bytes { min, max }, _) => (raw.integer()?, min, max),
            (Kind::Mode, _) => (raw.integer()?, 0, MODE_MAX),
            _ => (raw.integer()?, 0, u32::MAX),
        };
        in_range(value, min, max)
    }

    fn write(&self, _kind: Kind) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for u16 {
    fn read(raw: &Raw, kind: Kind) -> Result<Self, Hint> {
        let value = u32::read(raw, kind)?;
        Self::try_from(value).map_err(|_| "0 to 65535 is expected".into())
    }

    fn write(&self, _kind: Kind) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for bool {
    fn read(raw: &Raw, _kind: Kind) -> Result<Self, Hint> {
        raw.flag()
    }

    fn write(&self, _kind: Kind) -> Option<String> {
        Some(u8::from(*self).to_string())
    }
}

impl Value for Duration {
    fn read(raw: &Raw, kind: Kind) -> Result<Self, Hint> {
        match (kind, raw) {
            (Kind::Seconds { min }, Raw::Plain(_) | Raw::Number(_)) => {
                let seconds = in_range(raw.integer()?, min, u32::MAX)?;
                Ok(Self::from_secs(seconds.into()).min(number::TIME_MAX))
            }
            (Kind::Seconds { min }, _) => match raw.time()? {
                time if time.subsec_nanos() == 0 && time.as_secs() >= min.into() => Ok(time),
                _ => Err(format!("whole seconds, {min} or more, are expected").into()),
            },
            (Kind::Millis, Raw::Free(text)) if !text.ends_with(|c: char| c.is_ascii_digit()) => {
                raw.time()
            }
            (Kind::Millis, _) => {
                let millis = in_range(raw.integer()?, 0, i32::MAX as u32)?;
                Ok(Self::from_millis(millis.into()))
            }
            _ => raw.time(),
        }
    }

    fn write(&self, kind: Kind) -> Option<String> {
        Some(match kind {
            Kind::Seconds { .. } => self.as_secs().to_string(),
            Kind::Millis => self.as_millis().to_string(),
            _ => number::general(self.as_secs_f64()),
        })
    }
}

impl Value for String {
    fn read(raw: &Raw, _kind: Kind) -> Result<Self, Hint> {
        raw.text().map(str::to_owned)
    }

    fn write(&self, _kind: Kind) -> Option<String> {
        Some(self.clone())
    }
}

impl Value for Option<String> {
    fn read(raw: &Raw, kind: Kind) -> Result<Self, Hint> {
        let text = raw.text()?;
        if kind == Kind::DatabaseName && text == CONSOLE_DATABASE {
            return Err(
                format!("cannot use the reserved \"{text}\" database as an auth_dbname").into(),
            );
        }
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }

    fn write(&self, _kind: Kind) -> Option<String> {
        self.clone()
    }
}

impl Value for Option<PathBuf> {
    fn read(raw: &Raw, _kind: Kind) -> Result<Self, Hint> {
        let text = raw.text()?;
        Ok((!text.is_empty()).then(|| PathBuf::from(text)))
    }

    fn write(&self, _kind: Kind) -> Option<String> {
        self.as_ref().map(|path| path.display().to_string())
    }
}

impl Value for Vec<String> {
    fn read(raw: &Raw, _kind: Kind) -> Result<Self, Hint> {
        raw.items()
    }

    fn write(&self, _kind: Kind) -> Option<String> {
        Some(self.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: Kind = Kind::Int { min: 0, max: 100 };
    const SIZE: Kind = Kind::Bytes {
        min: 1,
        max: 1 << 20,
    };
    const WHOLE: Kind = Kind::Seconds { min: 1 };

    fn number(text: &str) -> Raw {
        Raw::Number(text.to_owned())
    }

    #[test]
    fn numbers_keep_to_their_range() {
        assert_eq!(u32::read(&Raw::plain("0x20"), COUNT), Ok(32));
        assert!(u32::read(&Raw::plain("101"), COUNT).is_err());
        assert!(u32::read(&Raw::plain("-1"), COUNT).is_err());
        assert!(u32::read(&number("1.5"), COUNT).is_err());
        assert!(u32::read(&Raw::Flag(true), COUNT).is_err());
    }

    #[test]
    fn units_are_for_toml_and_environment_only() {
        assert_eq!(u32::read(&Raw::free("64kB"), SIZE), Ok(65536));
        assert!(u32::read(&Raw::plain("64kB"), SIZE).is_err());
        assert!(u32::read(&Raw::free("2MB"), SIZE).is_err());
        let half_a_second = Duration::from_millis(500);
        assert_eq!(
            Duration::read(&Raw::free("500ms"), Kind::Time),
            Ok(half_a_second)
        );
        assert_eq!(
            Duration::read(&Raw::plain("0.5"), Kind::Time),
            Ok(half_a_second)
        );
        assert!(Duration::read(&Raw::plain("500ms"), Kind::Time).is_err());
    }

    #[test]
    fn whole_seconds() {
        assert_eq!(
            Duration::read(&Raw::plain("5"), WHOLE),
            Ok(Duration::from_secs(5))
        );
        assert_eq!(
            Duration::read(&Raw::free("2min"), WHOLE),
            Ok(Duration::from_secs(120))
        );
        for bad in [
            Raw::plain("1.5"),
            Raw::free("500ms"),
            Raw::plain("0"),
            number("0"),
        ] {
            assert!(Duration::read(&bad, WHOLE).is_err());
        }
    }

    #[test]
    fn milliseconds() {
        let second = Ok(Duration::from_secs(1));
        for raw in [
            Raw::plain("1000"),
            Raw::free("1000"),
            Raw::free("1s"),
            number("1000"),
        ] {
            assert_eq!(
                Duration::read(&raw, Kind::Millis),
                second,
                "{}",
                raw.shown()
            );
        }
        assert_eq!(
            Duration::from_secs(1).write(Kind::Millis).as_deref(),
            Some("1000")
        );
    }

    #[test]
    fn flags() {
        for (raw, expected) in [
            (Raw::plain("1"), Some(true)),
            (Raw::plain("2"), Some(true)),
            (Raw::plain("on"), None),
            (Raw::free("on"), Some(true)),
            (Raw::free("False"), Some(false)),
            (Raw::free("maybe"), None),
            (Raw::Flag(false), Some(false)),
            (number("1"), Some(true)),
            (Raw::List(vec![]), None),
        ] {
            assert_eq!(
                bool::read(&raw, Kind::Flag).ok(),
                expected,
                "{}",
                raw.shown()
            );
        }
    }

    #[test]
    fn lists() {
        let expected = Ok(vec!["a".to_owned(), "b".to_owned()]);
        for raw in [
            Raw::plain(" a, b,"),
            Raw::plain("a b"),
            Raw::List(vec!["a".into(), "b".into()]),
        ] {
            assert_eq!(Vec::<String>::read(&raw, Kind::List), expected);
        }
    }

    #[test]
    fn text_is_never_a_number_by_accident() {
        assert!(String::read(&number("12345"), Kind::Text).is_err());
        assert_eq!(
            Option::<String>::read(&Raw::plain(""), Kind::Text),
            Ok(None)
        );
        assert!(Option::<String>::read(&Raw::plain("pgbouncer"), Kind::DatabaseName).is_err());
    }

    #[test]
    fn debug_shows_no_value() {
        assert_eq!(format!("{:?}", Raw::plain("secret")), "Plain(..)");
    }
}
