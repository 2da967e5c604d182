//! Durations counted in buckets of at most 1 % width, so that millions of them cost a few kilobytes.

use serde::Serialize;

/// Values below this have a bucket each; above, every doubling is cut into this many buckets.
const STEPS: u64 = 128;
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// How long something took, as percentiles in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half were not slower than this.
    pub p50_us: f64,
    /// 99 of 100 were not slower than this.
    pub p99_us: f64,
    /// 999 of 1,000 were not slower than this.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
}

/// Counts durations given in nanoseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        let bucket = bucket_of(nanoseconds);
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.max = self.max.max(nanoseconds);
    }

    pub(crate) fn clear(&mut self) {
        self.buckets.clear();
        self.count = 0;
        self.max = 0;
    }

    /// The value that `per_mille` of 1,000 do not exceed, in nanoseconds; 0 when nothing was recorded.
    pub(crate) fn quantile(&self, per_mille: u64) -> u64 {
        let wanted = (self.count * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_end(bucket).min(self.max);
            }
        }
        self.max
    }

    /// The percentiles that a report shows; `None` when nothing was recorded.
    pub(crate) fn latency(&self) -> Option<Latency> {
        (self.count > 0).then(|| Latency {
            p50_us: microseconds(self.quantile(500)),
            p99_us: microseconds(self.quantile(990)),
            p999_us: microseconds(self.quantile(999)),
            max_us: microseconds(self.max),
        })
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a figure for people; 53 bits of nanoseconds are 104 days"
)]
fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

fn bucket_of(value: u64) -> usize {
    let doublings = (u64::BITS - value.leading_zeros()).saturating_sub(STEP_BITS + 1);
    let step = value >> doublings;
    usize::try_from(u64::from(doublings) * STEPS + step).unwrap_or(usize::MAX)
}

fn upper_end(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * STEPS {
        return bucket;
    }
    let doublings = bucket / STEPS - 1;
    let step = bucket - doublings * STEPS;
    ((step + 1) << doublings) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_within_one_per_cent() {
        for value in (0..100_000).chain([1 << 20, (1 << 30) + 17, 10_000_000_000]) {
            let bucket = bucket_of(value);
            let end = upper_end(bucket);
            assert!(end >= value, "{value} over the end {end} of its bucket");
            assert!(end - value <= value / 100, "{value} far below {end}");
            assert_eq!(bucket_of(end), bucket);
        }
    }

    #[test]
    fn percentiles_of_a_ramp_are_its_ranks() {
        let mut histogram = Histogram::default();
        for value in 1..=100 {
            histogram.record(value);
        }
        assert_eq!(histogram.quantile(500), 50);
        assert_eq!(histogram.quantile(990), 99);
        assert_eq!(histogram.quantile(999), 100);
        assert_eq!(histogram.quantile(0), 1);
    }

    #[test]
    fn one_slow_value_shows_in_the_maximum_and_not_in_the_median() {
        let mut histogram = Histogram::default();
        for _ in 0..999 {
            histogram.record(1_000);
        }
        histogram.record(5_000_000);
        let latency = histogram.latency().unwrap();
        assert!((latency.p50_us - 1.0).abs() < 0.02);
        assert!((latency.max_us - 5_000.0).abs() < 0.1);
    }

    #[test]
    fn nothing_recorded_has_no_latency() {
        assert_eq!(Histogram::default().latency(), None);
        assert_eq!(Histogram::default().quantile(990), 0);
    }
}
