//! Lines that say the same again and again: shown some times a second, then counted, and told of once. Pure: it is given times.
//!
//! Two lines are the same if they come from the same place in the code and say the same, whomever they are about. Only warnings
//! and errors are ever held back, and of these none of the program's own start, reloads and console: see
//! [`layer`](super::layer). The table is small, and has no memory of its own but for the texts of what is held back.

use std::time::{Duration, Instant};

use super::line::Severity;

/// So many lines that say the same are shown in [`SECOND`]; what comes beyond is held back.
pub const REPEATS_SHOWN: u32 = 20;
/// The time in which they are counted.
const SECOND: Duration = Duration::from_secs(1);
/// So long is held back what came too often; then it is told how many lines there were, and the next are shown again.
pub const HOLD: Duration = Duration::from_secs(10);
/// So many different lines are counted at a time. For one more, the one that began first is told of and forgotten.
const SLOTS: usize = 64;
/// So much of a line is kept, in bytes, for the telling.
const KEPT_BYTES_MAX: usize = 500;

/// What is to become of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Shown, after what is to be told of other lines, if anything.
    Show(Option<Summary>),
    /// Held back and counted.
    Hold,
}

/// Lines that were held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) severity: Severity,
    /// What they said, without whom they were about.
    pub(super) text: String,
    /// How many.
    pub(super) lines: u64,
    /// In how many seconds, rounded up.
    pub(super) seconds: u64,
}

/// The lines that were seen last.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    /// A hash of the place in the code and the text. It is keyed at random, so that nobody can make two lines look the same.
    key: u64,
    severity: Severity,
    /// When counting began, or holding back.
    since: Instant,
    /// Lines shown since then.
    shown: u32,
    /// Lines held back since then; 0 while all are shown.
    held: u64,
    /// The line, while some are held back.
    text: String,
}

impl Repeats {
    /// Judges a line. `text` writes what it says; it is asked only when the first of its kind is held back.
    pub(super) fn judge(
        &mut self,
        key: u64,
        severity: Severity,
        now: Instant,
        text: impl FnOnce(&mut String),
    ) -> Verdict {
        match self.slots.iter_mut().find(|slot| slot.key == key) {
            Some(slot) => slot.judge(now, text),
            None => Verdict::Show(self.begin(key, severity, now)),
        }
    }

    /// A line that is not known, or not any more.
    fn begin(&mut self, key: u64, severity: Severity, now: Instant) -> Option<Summary> {
        if self.slots.len() < SLOTS {
            self.slots.push(Slot {
                key,
                severity,
                since: now,
                shown: 1,
                held: 0,
                text: String::new(),
            });
            return None;
        }
        // Those of which nothing is to be told go first.
        let oldest = self.slots.iter_mut();
        let oldest = oldest.min_by_key(|slot| (slot.held > 0, slot.since))?;
        let told = oldest.end(now);
        (oldest.key, oldest.severity, oldest.shown) = (key, severity, 1);
        told
    }

    /// What was held back long enough by now; with `all`, what is held back at all. One at a time.
    pub(super) fn due(&mut self, now: Instant, all: bool) -> Option<Summary> {
        let mut slots = self.slots.iter_mut();
        let slot = slots.find(|slot| slot.held > 0 && (all || slot.is_due(now)))?;
        slot.end(now)
    }
}

impl Slot {
    fn judge(&mut self, now: Instant, text: impl FnOnce(&mut String)) -> Verdict {
        if self.held > 0 {
            if self.is_due(now) {
                let told = self.end(now);
                self.shown = 1;
                return Verdict::Show(told);
            }
            self.held += 1;
            return Verdict::Hold;
        }
        if now.saturating_duration_since(self.since) >= SECOND {
            (self.since, self.shown) = (now, 0);
        }
        if self.shown < REPEATS_SHOWN {
            self.shown += 1;
            return Verdict::Show(None);
        }
        (self.since, self.held) = (now, 1);
        text(&mut self.text);
        cut(&mut self.text);
        Verdict::Hold
    }

    fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= HOLD
    }

    /// Begins anew, and says what was held back.
    fn end(&mut self, now: Instant) -> Option<Summary> {
        let elapsed = now.saturating_duration_since(self.since);
        let lines = std::mem::take(&mut self.held);
        (self.since, self.shown) = (now, 0);
        let summary = Summary {
            severity: self.severity,
            text: std::mem::take(&mut self.text),
            lines,
            seconds: (elapsed.as_millis() as u64).div_ceil(1000).max(1),
        };
        (lines > 0).then_some(summary)
    }
}

fn cut(text: &mut String) {
    let mut end = text.len().min(KEPT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIND: Severity = Severity::Warning;

    fn judge(repeats: &mut Repeats, key: u64, now: Instant) -> Verdict {
        repeats.judge(key, KIND, now, |text| *text = format!("text {key}"))
    }

    fn summary(key: u64, lines: u64, seconds: u64) -> Summary {
        Summary {
            severity: KIND,
            text: format!("text {key}"),
            lines,
            seconds,
        }
    }

    /// How many of so many lines at once are shown.
    fn shown(repeats: &mut Repeats, key: u64, lines: u32, now: Instant) -> usize {
        let verdicts = (0..lines).map(|_| judge(repeats, key, now));
        verdicts.filter(|verdict| *verdict != Verdict::Hold).count()
    }

    #[test]
    fn what_comes_too_often_is_counted_and_told_of() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(shown(&mut repeats, 1, 100, at(0)), 20);
        assert_eq!(shown(&mut repeats, 1, 1000, at(5000)), 0);
        assert_eq!(repeats.due(at(9999), false), None);
        assert_eq!(repeats.due(at(10_000), false), Some(summary(1, 1080, 10)));
        assert_eq!(repeats.due(at(10_000), true), None);
        assert_eq!(shown(&mut repeats, 1, 100, at(10_001)), 20);
        // A line that comes late, with nobody having looked meanwhile.
        assert_eq!(
            judge(&mut repeats, 1, at(25_500)),
            Verdict::Show(Some(summary(1, 80, 16)))
        );
        assert_eq!(shown(&mut repeats, 1, 100, at(25_500)), 19);
        assert_eq!(repeats.due(at(25_600), true), Some(summary(1, 81, 1)));
    }

    #[test]
    fn an_ordinary_rate_is_left_alone() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        for second in 0..100 {
            let now = start + Duration::from_secs(second);
            assert_eq!(shown(&mut repeats, 1, 20, now), 20);
        }
    }

    #[test]
    fn each_line_is_counted_for_itself() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        assert_eq!(shown(&mut repeats, 1, 100, now), 20);
        assert_eq!(shown(&mut repeats, 2, 10, now), 10);
        assert_eq!(shown(&mut repeats, 1, 1, now), 0);
    }

    #[test]
    fn a_full_table_forgets_the_oldest_and_tells_of_it() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        assert_eq!(shown(&mut repeats, 0, 25, start), 20);
        let mut told = Vec::new();
        for key in 1..1000 {
            let now = start + Duration::from_millis(key);
            match judge(&mut repeats, key, now) {
                Verdict::Show(summary) => told.extend(summary),
                Verdict::Hold => panic!("the first of its kind"),
            }
        }
        // Others had nothing to tell and went before it.
        assert_eq!(told, []);
        for key in 1000..1000 + SLOTS as u64 {
            shown(&mut repeats, key, 21, start + Duration::from_secs(2));
        }
        assert_eq!(repeats.slots.len(), SLOTS);
        assert_eq!(repeats.due(start + HOLD, false), None, "told of before");
    }

    #[test]
    fn only_a_part_of_a_long_text_is_kept() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        for _ in 0..=REPEATS_SHOWN {
            repeats.judge(1, KIND, now, |text| *text = "aé".repeat(1000));
        }
        let kept = repeats.due(now, true).unwrap().text;
        // The limit falls into a character.
        assert_eq!(kept.len(), KEPT_BYTES_MAX - 1);
    }

    proptest! {
        /// Every line is shown or told of, and of every kind the first is shown.
        #[test]
        fn nothing_is_lost(lines in prop::collection::vec((0u64..100, 0u64..300), 0..3000)) {
            let (mut repeats, mut now) = (Repeats::default(), Instant::now());
            let (mut seen, mut accounted) = (std::collections::BTreeSet::new(), 0);
            for &(key, pause) in &lines {
                // Many at once, and sometimes a long silence.
                now += if pause > 290 { HOLD } else { Duration::from_millis(pause / 100) };
                let verdict = judge(&mut repeats, key, now);
                prop_assert!(!seen.insert(key) || verdict != Verdict::Hold);
                if let Verdict::Show(summary) = verdict {
                    accounted += 1 + summary.map_or(0, |summary| summary.lines);
                }
            }
            while let Some(summary) = repeats.due(now, true) {
                accounted += summary.lines;
            }
            prop_assert_eq!(accounted, lines.len() as u64);
        }
    }
}
