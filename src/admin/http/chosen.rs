//! Which names get series of their own. Databases, users and application names may be made up by clients, and every name that was
//! ever shown stays in Prometheus for as long as that keeps anything: so there is a bound, and whoever comes later is counted
//! together with the others. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Up to so many keys, first come, first served. A key keeps its place until it has been away for a while.
#[derive(Clone, Debug)]
pub struct Chosen<K> {
    /// When each was there last.
    seen: BTreeMap<K, Instant>,
    most: usize,
    stay: Duration,
}

impl<K: Ord + Clone> Chosen<K> {
    /// Nobody yet. A key that is away keeps its place for `stay`.
    pub fn new(most: usize, stay: Duration) -> Chosen<K> {
        Chosen {
            seen: BTreeMap::new(),
            most,
            stay,
        }
    }

    /// These are there now; those who come first are chosen first.
    pub fn renew<'a>(&mut self, present: impl IntoIterator<Item = &'a K>, now: Instant)
    where
        K: 'a,
    {
        let (most, stay) = (self.most, self.stay);
        self.seen
            .retain(|_, seen| now.saturating_duration_since(*seen) < stay);
        for key in present {
            if let Some(seen) = self.seen.get_mut(key) {
                *seen = now;
            } else if self.seen.len() < most {
                self.seen.insert(key.clone(), now);
            }
        }
    }

    /// Has it a place?
    pub fn contains(&self, key: &K) -> bool {
        self.seen.contains_key(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn places_are_kept_given_up_and_taken() {
        let start = Instant::now();
        let mut chosen = Chosen::new(2, MINUTE);
        chosen.renew(&["a", "b", "c"], start);
        let has = |chosen: &Chosen<&str>| ["a", "b", "c"].map(|key| chosen.contains(&key));
        assert_eq!(has(&chosen), [true, true, false]);
        chosen.renew(&["c", "b"], start + MINUTE / 2);
        assert_eq!(has(&chosen), [true, true, false]);
        chosen.renew(&["c", "b"], start + MINUTE);
        assert_eq!(has(&chosen), [false, true, true]);
    }

    #[test]
    fn made_up_names_are_bounded_in_time() {
        let start = Instant::now();
        let mut chosen = Chosen::new(10, MINUTE);
        let mut ever = std::collections::BTreeSet::new();
        for n in 0..600u64 {
            let now = start + Duration::from_secs(n);
            let names = [4 * n, 4 * n + 1, 4 * n + 2, 4 * n + 3];
            chosen.renew(&names, now);
            ever.extend(names.into_iter().filter(|name| chosen.contains(name)));
        }
        // Ten minutes, ten a minute.
        assert!(ever.len() <= 110, "{}", ever.len());
    }
}
