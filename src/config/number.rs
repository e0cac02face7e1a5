//! Numbers, times and sizes as text: the notation of PgBouncer's ini file, and the one with units that the TOML file
//! and the environment may use.
//!
//! Pure functions from text to values and back; which setting wants which notation is said in [`super::table`], and
//! [`super::value`] joins the two.

use std::time::Duration;

/// The longest time that a setting can hold, about 31 years; longer ones are cut to it. It keeps `now + timeout`
/// far from any overflow.
pub const TIME_MAX: Duration = Duration::from_secs(1_000_000_000);

const MICROS_PER_SECOND: f64 = 1_000_000.0;

/// An integer as C's `strtol` with base 0 reads it: decimal, `0x` hexadecimal, `0b` binary, or octal after a leading
/// `0`, each with an optional sign. `None` for anything else, trailing characters and overflow included.
pub fn c_integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = radix_of(digits);
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    let value = i64::from_str_radix(digits, radix).ok()?;
    Some(if negative { -value } else { value })
}

fn radix_of(digits: &str) -> (u32, &str) {
    for (prefix, radix) in [("0x", 16), ("0X", 16), ("0b", 2), ("0B", 2)] {
        if let Some(rest) = digits.strip_prefix(prefix) {
            return (radix, rest);
        }
    }
    match digits.strip_prefix('0') {
        Some(rest) if !rest.is_empty() => (8, rest),
        _ => (10, digits),
    }
}

/// A decimal integer with an optional sign, as the numbers inside `[databases]` and `[users]` entries are written.
/// Unlike PgBouncer, which takes garbage for 0, anything else is `None`.
pub fn decimal_integer(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// A time in seconds without a unit, as in the ini file: `15`, `0.5`, `1e3`. Negative numbers, words and units are
/// `None`; times over [`TIME_MAX`] become it; a positive time below a microsecond becomes one microsecond, because 0
/// means something else.
pub fn seconds(text: &str) -> Option<Duration> {
    let number = match c_integer(text) {
        Some(value) if text.contains(['x', 'X']) => value as f64,
        _ => text.parse().ok()?,
    };
    duration(number, MICROS_PER_SECOND)
}

/// A time with a unit (`250ms`, `30s`, `5min`, `1.5h`, `2d`), or without one, when it is in seconds.
pub fn time_with_unit(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let micros_per_unit = match unit {
        "us" | "µs" => 1.0,
        "ms" => 1_000.0,
        "" | "s" => MICROS_PER_SECOND,
        "min" => 60.0 * MICROS_PER_SECOND,
        "h" => 3_600.0 * MICROS_PER_SECOND,
        "d" => 86_400.0 * MICROS_PER_SECOND,
        _ => return None,
    };
    duration(number, micros_per_unit)
}

/// A size in bytes with a unit (`512B`, `64kB`, `1MB`, `2GiB`; factors of 1024, upper and lower case alike), or
/// without one, when it is in bytes.
pub fn bytes_with_unit(text: &str) -> Option<i64> {
    let (number, unit) = split_unit(text)?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" | "kib" => 1024.0,
        "m" | "mb" | "mib" => 1024.0 * 1024.0,
        "g" | "gb" | "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let bytes = (number * factor).round();
    // i64::MAX itself is not a float; anything near it is out of every setting's range.
    (bytes.is_finite() && bytes.abs() < 1e18).then_some(bytes as i64)
}

/// Cuts `1.5 h` into `1.5` and `h`.
fn split_unit(text: &str) -> Option<(f64, &str)> {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

fn duration(number: f64, micros_per_unit: f64) -> Option<Duration> {
    if !number.is_finite() || number < 0.0 {
        return None;
    }
    if number == 0.0 {
        return Some(Duration::ZERO);
    }
    let micros = (number * micros_per_unit).round().max(1.0);
    if micros >= TIME_MAX.as_micros() as f64 {
        return Some(TIME_MAX);
    }
    Some(Duration::from_micros(micros as u64))
}

/// A number as C's `%g` prints it: six significant digits, no trailing zeroes, an exponent only where it is short of
/// one (`0.5`, `3600`, `1e+06`, `1e-05`). SHOW CONFIG prints times this way.
pub fn general(number: f64) -> String {
    if number == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{number:.5e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        let decimals = usize::try_from(5 - exponent).unwrap_or(0);
        return strip_zeroes(&format!("{number:.decimals$}")).to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", strip_zeroes(mantissa), exponent.abs())
}

fn strip_zeroes(decimal: &str) -> &str {
    match decimal.contains('.') {
        true => decimal.trim_end_matches('0').trim_end_matches('.'),
        false => decimal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers_are_read_as_by_c() {
        for (text, expected) in [
            ("100", Some(100)),
            ("0", Some(0)),
            ("-0", Some(0)),
            ("+5", Some(5)),
            ("-1", Some(-1)),
            ("0x20", Some(32)),
            ("0777", Some(511)),
            ("0b1", Some(1)),
            ("08", None),
            ("1k", None),
            ("0x", None),
            ("", None),
            ("-", None),
            ("--1", None),
            ("0x-1", None),
            ("+-1", None),
            ("1 ", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(c_integer(text), expected, "{text:?}");
        }
    }

    #[test]
    fn times_without_unit() {
        for (text, micros) in [
            ("15", Some(15_000_000)),
            ("1.5", Some(1_500_000)),
            (".5", Some(500_000)),
            ("1e3", Some(1_000_000_000)),
            ("0x10", Some(16_000_000)),
            ("010", Some(10_000_000)),
            ("-0", Some(0)),
            ("1e-7", Some(1)),
            ("1e300", Some(1_000_000_000_000_000)),
            ("-1", None),
            ("10s", None),
            ("inf", None),
            ("nan", None),
            ("", None),
        ] {
            assert_eq!(seconds(text), micros.map(Duration::from_micros), "{text:?}");
        }
    }

    #[test]
    fn times_with_unit() {
        for (text, millis) in [
            ("250ms", Some(250)),
            ("30s", Some(30_000)),
            ("30", Some(30_000)),
            ("5min", Some(300_000)),
            ("5 min", Some(300_000)),
            ("1.5h", Some(5_400_000)),
            ("1d", Some(86_400_000)),
            ("2000us", Some(2)),
            ("5m", None),
            ("5M", None),
            ("s", None),
            ("-1s", None),
            ("1.2.3s", None),
        ] {
            assert_eq!(
                time_with_unit(text),
                millis.map(Duration::from_millis),
                "{text:?}"
            );
        }
    }

    #[test]
    fn sizes_with_unit() {
        for (text, bytes) in [
            ("64kB", Some(65_536)),
            ("1MB", Some(1 << 20)),
            ("1 GiB", Some(1 << 30)),
            ("0.5k", Some(512)),
            ("4096", Some(4096)),
            ("12B", Some(12)),
            ("12x", None),
            ("999999999999GB", None),
        ] {
            assert_eq!(bytes_with_unit(text), bytes, "{text:?}");
        }
    }

    #[test]
    fn numbers_are_printed_as_by_c() {
        for (number, expected) in [
            (0.0, "0"),
            (3600.0, "3600"),
            (0.5, "0.5"),
            (1.25, "1.25"),
            (999_999.0, "999999"),
            (1_000_000.0, "1e+06"),
            (1_234_567.0, "1.23457e+06"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (0.333_333_3, "0.333333"),
            (1e9, "1e+09"),
            (999_999.9, "1e+06"),
        ] {
            assert_eq!(general(number), expected);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = (c_integer(&text), seconds(&text), time_with_unit(&text), bytes_with_unit(&text));
        }

        #[test]
        fn printed_integers_read_back(value: i64) {
            prop_assume!(value != i64::MIN);
            prop_assert_eq!(c_integer(&value.to_string()), Some(value));
        }

        #[test]
        fn printed_milliseconds_read_back(millis in 0u64..1_000_000) {
            let time = Duration::from_millis(millis);
            prop_assert_eq!(seconds(&general(time.as_secs_f64())), Some(time));
        }
    }
}
