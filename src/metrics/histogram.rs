//! How long the turns of one loop took: fixed buckets on a log scale. Written by the loop, read by `/metrics`
//! and `/stats`.

use super::counters::Counter;

/// Upper bounds of the buckets: nanoseconds, and seconds as Prometheus writes them. What is above the last one
/// is in a bucket without a bound.
pub const TURN_BOUNDS: [(u64, &str); 12] = [
    (10_000, "0.00001"),
    (30_000, "0.00003"),
    (100_000, "0.0001"),
    (300_000, "0.0003"),
    (1_000_000, "0.001"),
    (3_000_000, "0.003"),
    (10_000_000, "0.01"),
    (30_000_000, "0.03"),
    (100_000_000, "0.1"),
    (300_000_000, "0.3"),
    (1_000_000_000, "1"),
    (3_000_000_000, "3"),
];

/// Durations of turns.
#[derive(Debug, Default)]
pub struct TurnTimes {
    /// Not cumulative; the last one has no bound.
    buckets: [Counter; TURN_BOUNDS.len() + 1],
    sum_ns: Counter,
}

/// One reading, consistent in itself.
#[derive(Clone, Debug, PartialEq)]
pub struct TurnReading {
    /// Turns that took at most the bound of the same index; cumulative.
    pub at_most: [u64; TURN_BOUNDS.len()],
    /// All turns.
    pub count: u64,
    /// Seconds spent in all of them.
    pub sum_seconds: f64,
}

impl TurnTimes {
    /// A turn took `ns` nanoseconds. Called by the loop only.
    pub fn observe(&self, ns: u64) {
        // Most turns end in the first two buckets, so that walking beats computing a logarithm.
        let index = TURN_BOUNDS.iter().position(|(bound, _)| ns <= *bound).unwrap_or(TURN_BOUNDS.len());
        if let Some(bucket) = self.buckets.get(index) {
            bucket.add(1);
        }
        self.sum_ns.add(ns);
    }

    /// What was observed so far.
    #[must_use]
    pub fn reading(&self) -> TurnReading {
        let sum_seconds = self.sum_ns.value() as f64 / 1e9;
        let mut count = 0;
        let mut at_most = [0; TURN_BOUNDS.len()];
        for (index, bucket) in self.buckets.iter().enumerate() {
            count += bucket.value();
            if let Some(place) = at_most.get_mut(index) {
                *place = count;
            }
        }
        TurnReading { at_most, count, sum_seconds }
    }
}

impl TurnReading {
    /// The bound, in seconds as text, under which `percent` of the turns stayed; `None` without turns, or when
    /// it is above the last bound.
    #[must_use]
    pub fn percentile_bound(&self, percent: u64) -> Option<&'static str> {
        let wanted = (self.count.saturating_mul(percent)).div_ceil(100);
        let index = self.at_most.iter().position(|at_most| *at_most >= wanted)?;
        (self.count > 0).then(|| TURN_BOUNDS.get(index).map(|(_, text)| *text)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_grow_and_their_texts_are_the_same_numbers() {
        assert!(TURN_BOUNDS.is_sorted());
        for (ns, text) in TURN_BOUNDS {
            let seconds: f64 = text.parse().unwrap();
            assert!((seconds * 1e9 - ns as f64).abs() < 1e-3, "{text}");
        }
    }

    #[test]
    fn turns_fall_into_the_bucket_of_their_bound() {
        let times = TurnTimes::default();
        for ns in [0, 10_000, 10_001, 2_999_999_999, 3_000_000_001] {
            times.observe(ns);
        }
        let reading = times.reading();
        assert_eq!((reading.at_most[0], reading.at_most[1], reading.at_most[10]), (2, 3, 3));
        assert_eq!((reading.at_most[11], reading.count), (4, 5));
        assert!((reading.sum_seconds - 6.000_020_001).abs() < 1e-6);
    }

    #[test]
    fn percentiles_are_bounds() {
        let times = TurnTimes::default();
        assert_eq!(times.reading().percentile_bound(50), None);
        for _ in 0..98 {
            times.observe(50_000);
        }
        times.observe(2_000_000);
        times.observe(u64::MAX / 2);
        let reading = times.reading();
        assert_eq!(reading.percentile_bound(50), Some("0.0001"));
        assert_eq!(reading.percentile_bound(99), Some("0.003"));
        assert_eq!(reading.percentile_bound(100), None);
    }
}
