//! The local date and time at the start of a line, made anew once a second.
//!
//! Looking up the zone's offset and printing six numbers costs more than the rest of a line, so each thread keeps the text of
//! the second it wrote last. The current time is handed in; only the caller knows a clock.

use std::fmt::{self, Write as _};

use jiff::{Timestamp, tz::TimeZone};

/// The last second that was printed, as text.
#[derive(Debug, Default)]
pub struct StampCache {
    /// Seconds since the epoch; `None` before the first use.
    second: Option<i64>,
    /// `2026-11-21 01:58:51`
    date_time: String,
    /// The zone's abbreviation at that time, daylight saving included.
    zone: String,
    /// `Nov 21 01:58:51`
    syslog_time: String,
    /// `2026-11-21T01:58:51`, UTC
    utc: String,
}

impl StampCache {
    /// The stamp of `now`. `zone` is asked for once per second.
    pub fn at(&mut self, now: Timestamp, zone: impl FnOnce() -> TimeZone) -> Stamp<'_> {
        if self.second != Some(now.as_second()) {
            self.refresh(now, zone());
        }
        Stamp {
            cache: self,
            millisecond: now.subsec_millisecond().unsigned_abs(),
        }
    }

    fn refresh(&mut self, now: Timestamp, zone: TimeZone) {
        // A machine without zone data runs on UTC; that zone has no name of its own in jiff.
        let zone = if zone.is_unknown() {
            TimeZone::UTC
        } else {
            zone
        };
        let local = now.to_zoned(zone);
        self.second = Some(now.as_second());
        self.date_time.clear();
        self.zone.clear();
        self.syslog_time.clear();
        self.utc.clear();
        // The formats are valid and the target is memory: no error is possible.
        let _ = write!(self.date_time, "{}", local.strftime("%Y-%m-%d %H:%M:%S"));
        let _ = write!(self.zone, "{}", local.strftime("%Z"));
        let _ = write!(self.syslog_time, "{}", local.strftime("%b %e %H:%M:%S"));
        let _ = write!(self.utc, "{}", now.strftime("%Y-%m-%dT%H:%M:%S"));
    }
}

/// A point in local time, ready to be printed: `2026-11-21 01:58:51.503 UTC`.
#[derive(Debug)]
pub struct Stamp<'a> {
    cache: &'a StampCache,
    millisecond: u32,
}

impl Stamp<'_> {
    /// The form that syslog uses, without year and zone.
    pub fn syslog_time(&self) -> &str {
        &self.cache.syslog_time
    }

    /// The form of RFC 3339, in UTC: `2026-11-21T01:58:51.503Z`.
    pub fn utc(&self) -> impl fmt::Display + '_ {
        Utc(self)
    }
}

impl fmt::Display for Stamp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:03} {}",
            self.cache.date_time, self.millisecond, self.cache.zone
        )
    }
}

struct Utc<'a>(&'a Stamp<'a>);

impl fmt::Display for Utc<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}Z", self.0.cache.utc, self.0.millisecond)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(now: &str, posix_zone: &str, expected: &str) {
        let zone = TimeZone::posix(posix_zone).unwrap();
        let stamp = StampCache::default()
            .at(now.parse().unwrap(), || zone)
            .to_string();
        assert_eq!(stamp, expected);
    }

    #[test]
    fn local_time_and_abbreviation() {
        let berlin = "CET-1CEST,M3.5.0,M10.5.0/3";
        check(
            "2026-11-21T01:58:51.503Z",
            "UTC0",
            "2026-11-21 01:58:51.503 UTC",
        );
        check(
            "2026-07-01T22:30:00.007Z",
            berlin,
            "2026-07-02 00:30:00.007 CEST",
        );
        check(
            "2026-12-31T23:30:00Z",
            berlin,
            "2027-01-01 00:30:00.000 CET",
        );
        check(
            "2026-01-01T00:00:00Z",
            "<-03>3",
            "2025-12-31 21:00:00.000 -03",
        );
    }

    #[test]
    fn universal_time_knows_no_zone() {
        let now = "2026-07-01T22:30:00.007Z".parse().unwrap();
        let mut cache = StampCache::default();
        let stamp = cache.at(now, || TimeZone::posix("CET-2").unwrap());
        assert_eq!(stamp.utc().to_string(), "2026-07-01T22:30:00.007Z");
    }

    #[test]
    fn an_unknown_zone_is_utc() {
        let now = "2026-11-21T01:58:51.503Z".parse().unwrap();
        let mut cache = StampCache::default();
        let stamp = cache.at(now, TimeZone::unknown);
        assert_eq!(stamp.to_string(), "2026-11-21 01:58:51.503 UTC");
    }

    #[test]
    fn syslog_pads_the_day_with_a_space() {
        let mut cache = StampCache::default();
        let stamp = cache.at("2026-02-03T04:05:06Z".parse().unwrap(), || TimeZone::UTC);
        assert_eq!(stamp.syslog_time(), "Feb  3 04:05:06");
    }

    #[test]
    fn the_zone_is_asked_for_once_a_second() {
        let mut cache = StampCache::default();
        let mut asked = 0;
        for now in ["00.001", "00.999", "01.000", "00.500"] {
            let now = format!("2026-11-21T00:00:{now}Z").parse().unwrap();
            cache.at(now, || {
                asked += 1;
                TimeZone::UTC
            });
        }
        assert_eq!(asked, 3);
    }
}
