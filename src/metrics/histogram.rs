//! How often something took how long: fixed buckets, each a quarter of an octave wide, from 8 µs to a little more than a minute.
//!
//! A bucket's upper end is at most a quarter above its lower one, so a percentile read from it is off by at most that much. One
//! that has counted nothing takes no room for buckets; one that has takes 760 bytes, whatever it counts. Adding is plain arithmetic.

use std::time::Duration;

/// The first bucket holds everything below, in µs: 2 to this power.
const FIRST_BITS: u32 = 3;
/// Buckets per octave: 2 to this power.
const STEP_BITS: u32 = 2;
/// The last bucket holds everything from here on, in µs: 2 to this power (67 s).
const LAST_BITS: u32 = 26;
/// How many buckets there are, the first and the last included.
pub const BUCKETS: usize = ((LAST_BITS - FIRST_BITS) << STEP_BITS) as usize + 2;

/// How often something took how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// `None` before the first.
    buckets: Option<Box<[u64; BUCKETS]>>,
    /// Sum of all times, µs.
    sum: u64,
    /// The longest time, µs.
    max: u64,
}

/// The bucket of a time in µs.
#[inline]
pub fn bucket_of(micros: u64) -> usize {
    if micros < 1 << FIRST_BITS {
        return 0;
    }
    let octave = micros.ilog2();
    if octave >= LAST_BITS {
        return BUCKETS - 1;
    }
    let step = (micros >> (octave - STEP_BITS)) & ((1 << STEP_BITS) - 1);
    (((octave - FIRST_BITS) << STEP_BITS) as u64 + step) as usize + 1
}

/// The smallest time in µs that is beyond this bucket; `None` for the last one.
pub fn bucket_end(bucket: usize) -> Option<u64> {
    if bucket + 1 >= BUCKETS {
        return None;
    }
    let (octave, step) = (bucket as u64 >> STEP_BITS, bucket as u64 & 3);
    Some(((1 << STEP_BITS) + step) << (octave + u64::from(FIRST_BITS - STEP_BITS)))
}

impl Histogram {
    /// Counts one that took so many µs.
    #[inline]
    pub fn record(&mut self, micros: u64) {
        self.record_in(bucket_of(micros), micros);
    }

    /// As [`Histogram::record`], where the bucket is known already.
    #[inline]
    pub fn record_in(&mut self, bucket: usize, micros: u64) {
        let buckets = self.buckets.get_or_insert_with(|| Box::new([0; BUCKETS]));
        if let Some(count) = buckets.get_mut(bucket) {
            *count += 1;
        }
        self.sum += micros;
        if micros > self.max {
            self.max = micros;
        }
    }

    /// Counts so many that took no time.
    pub fn record_none(&mut self, n: u64) {
        if n > 0 {
            self.buckets.get_or_insert_with(|| Box::new([0; BUCKETS]))[0] += n;
        }
    }

    /// Adds what another one has counted.
    pub fn merge(&mut self, other: &Histogram) {
        if let Some(more) = &other.buckets {
            let buckets = self.buckets.get_or_insert_with(|| Box::new([0; BUCKETS]));
            for (sum, more) in buckets.iter_mut().zip(more.iter()) {
                *sum += more;
            }
        }
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets
            .as_ref()
            .map_or(0, |counts| counts.iter().sum())
    }

    /// The sum of all times.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum)
    }

    /// The longest time.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max)
    }

    /// The time that a share of all (0.99: ninety-nine of a hundred) does not exceed: at least the true one, and at most a quarter
    /// more. Zero if nothing was counted.
    pub fn percentile(&self, share: f64) -> Duration {
        let Some(buckets) = &self.buckets else {
            return Duration::ZERO;
        };
        let wanted = (share * self.count() as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                let end = bucket_end(bucket).map_or(self.max, |end| end - 1);
                return Duration::from_micros(end.min(self.max));
            }
        }
        self.max()
    }

    /// For each of these bounds, ascending, how many took less or as long: what a Prometheus histogram shows. A bound that lies
    /// inside a bucket counts only the buckets wholly below it; [`Histogram::bounds`] has those that lie on an edge.
    pub fn cumulative<'a>(&'a self, bounds: &'a [Duration]) -> impl Iterator<Item = u64> + 'a {
        let (mut bucket, mut seen) = (0, 0);
        bounds.iter().map(move |bound| {
            let bound = bound.as_micros() as u64;
            while let Some(end) = bucket_end(bucket).filter(|end| *end <= bound) {
                seen += self.buckets.as_ref().map_or(0, |counts| counts[bucket]);
                debug_assert!(end <= bound);
                bucket += 1;
            }
            seen
        })
    }

    /// Edges of buckets that are `octaves` octaves apart, ascending, the first at 16 µs: bounds at which [`Histogram::cumulative`]
    /// is exact (but for times of exactly that many µs, which count as longer).
    pub fn bounds(octaves: u32) -> Vec<Duration> {
        let edges = (FIRST_BITS + 1..=LAST_BITS).step_by(octaves.max(1) as usize);
        edges.map(|bits| Duration::from_micros(1 << bits)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(times: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        times.iter().for_each(|time| histogram.record(*time));
        histogram
    }

    #[test]
    fn nothing_counted_is_nothing_shown() {
        let empty = Histogram::default();
        assert_eq!((empty.count(), empty.percentile(0.5)), (0, Duration::ZERO));
        assert_eq!(empty.cumulative(&Histogram::bounds(2)).sum::<u64>(), 0);
    }

    #[test]
    fn buckets_touch_and_cover_everything() {
        assert_eq!((bucket_of(0), bucket_of(7), bucket_of(8)), (0, 0, 1));
        for bucket in 0..BUCKETS - 1 {
            let end = bucket_end(bucket).unwrap();
            assert_eq!((bucket_of(end - 1), bucket_of(end)), (bucket, bucket + 1));
        }
        assert_eq!(
            (bucket_of(u64::MAX), bucket_end(BUCKETS - 1)),
            (BUCKETS - 1, None)
        );
        // The span that is promised.
        assert!(bucket_end(0).unwrap() <= 10 && bucket_end(BUCKETS - 2).unwrap() > 60_000_000);
    }

    #[test]
    fn bounds_are_edges() {
        let bounds = Histogram::bounds(2);
        assert_eq!(bounds[0], Duration::from_micros(16));
        assert_eq!(bounds.len(), 12);
        let one = of(&[10, 16, 17, 1_000_000, 100_000_000]);
        let seen: Vec<u64> = one.cumulative(&bounds).collect();
        assert_eq!((seen[0], seen[1], seen[11]), (1, 3, 4));
    }

    proptest! {
        /// A percentile is the true one or up to a quarter more, and a merged histogram is that of all times together.
        #[test]
        fn percentiles_are_within_a_bucket(
            one in prop::collection::vec(0u64..100_000_000, 1..200),
            other in prop::collection::vec((0u32..27, any::<u64>()), 0..200),
            share in 0.0f64..=1.0,
        ) {
            let other: Vec<u64> = other.iter().map(|(bits, n)| n & ((1 << bits) - 1)).collect();
            let mut merged = of(&one);
            merged.merge(&of(&other));
            let mut all = [one, other].concat();
            prop_assert_eq!(&merged, &of(&all));
            all.sort_unstable();
            prop_assert_eq!(merged.count(), all.len() as u64);
            prop_assert_eq!(merged.sum(), Duration::from_micros(all.iter().sum()));
            prop_assert_eq!(merged.max(), Duration::from_micros(all[all.len() - 1]));
            let rank = ((share * all.len() as f64).ceil() as usize).clamp(1, all.len());
            let (truth, shown) = (all[rank - 1], merged.percentile(share).as_micros() as u64);
            prop_assert!(shown >= truth, "{} < {}", shown, truth);
            let within_range = truth < 1 << LAST_BITS;
            prop_assert!(!within_range || shown <= (truth + truth / 4).max(8), "{} > {}", shown, truth);
        }
    }
}
