//! Rates, counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SECOND_NANOS: u64 = 1_000_000_000;

/// At most `per_second` units a second on average, with one second's worth at once: the generic cell rate algorithm,
/// which keeps one number, the time at which the bucket would be full again. 0 means no limit.
#[derive(Debug)]
pub struct RateLimit {
    per_second: u64,
    full_again_at: AtomicU64,
}

impl RateLimit {
    pub fn per_second(per_second: u32) -> Self {
        Self {
            per_second: u64::from(per_second),
            full_again_at: AtomicU64::new(0),
        }
    }

    /// Takes `units`, which may exceed what is left: a batch is let in whole and paid for by those behind it, since
    /// otherwise a batch larger than the bucket could never pass.
    ///
    /// # Errors
    /// The bucket is empty: how long until the next unit.
    pub fn take(&self, units: u64, now_nanos: u64) -> Result<(), Duration> {
        if self.per_second == 0 {
            return Ok(());
        }
        let cost = SECOND_NANOS / self.per_second;
        let take = |full_again_at: u64| {
            let from = full_again_at.max(now_nanos);
            let spent = from - now_nanos;
            (spent + cost <= SECOND_NANOS.max(cost)).then(|| from + cost * units)
        };
        match self
            .full_again_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
        {
            Ok(_) => Ok(()),
            Err(full_again_at) => {
                let wait = (full_again_at + cost).saturating_sub(now_nanos + SECOND_NANOS.max(cost));
                Err(Duration::from_nanos(wait.max(1)))
            }
        }
    }
}

/// The same for a single owner, in eight bytes: one per connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalRate {
    full_again_at: u64,
}

impl LocalRate {
    /// Whether one more unit fits; it is taken if so.
    pub fn take(&mut self, per_second: u32, now_nanos: u64) -> bool {
        if per_second == 0 {
            return true;
        }
        let cost = SECOND_NANOS / u64::from(per_second);
        let from = self.full_again_at.max(now_nanos);
        let fits = from - now_nanos + cost <= SECOND_NANOS;
        if fits {
            self.full_again_at = from + cost;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_units_at_once_then_at_the_rate() {
        let limit = RateLimit::per_second(10);
        let mut local = LocalRate::default();
        for _ in 0..10 {
            assert!(limit.take(1, 5).is_ok());
            assert!(local.take(10, 5));
        }
        assert_eq!(limit.take(1, 5), Err(Duration::from_millis(100)));
        assert!(!local.take(10, 5));
        assert!(limit.take(1, 5 + SECOND_NANOS / 10).is_ok());
        assert!(local.take(10, 5 + SECOND_NANOS / 10));
    }

    #[test]
    fn a_batch_larger_than_the_bucket_passes_and_is_paid_for() {
        let limit = RateLimit::per_second(5);
        assert!(limit.take(10, 0).is_ok());
        assert!(limit.take(1, SECOND_NANOS).is_err());
        assert!(limit.take(1, 2 * SECOND_NANOS).is_ok());
    }

    #[test]
    fn zero_is_no_limit() {
        assert!(RateLimit::per_second(0).take(u64::MAX, 0).is_ok());
        assert!(LocalRate::default().take(0, 0));
    }
}
