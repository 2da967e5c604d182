//! Time, in the three shapes the rooms need. A leaf: it knows nobody.
//!
//! Everything else in the crate asks here, so that one place decides what "now" is.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Seconds since 1970-01-01 UTC. For signatures, which are about the outside world's time.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the system's clock"
)]
pub fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Milliseconds since 1970-01-01 UTC. For stamps on events.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the system's clock"
)]
pub fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    millis(since)
}

/// Microseconds since 1970-01-01 UTC. For names of beginnings, of which a later one has a greater name.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the system's clock"
)]
pub fn unix_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Nanoseconds since the process began; never goes back. For rates and durations.
pub fn monotonic_nanos() -> u64 {
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Seconds since the process began, with their fraction. For people and metrics.
pub fn monotonic_seconds_exact() -> f64 {
    START.elapsed().as_secs_f64()
}

/// Whole seconds since the process began; never goes back. For coarse timers, where a connection
/// keeps several of them and four bytes each are enough.
pub fn monotonic_seconds() -> u32 {
    u32::try_from(START.elapsed().as_secs()).unwrap_or(u32::MAX)
}

/// A duration in whole milliseconds, rounded down.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A duration in whole seconds, rounded up, so that a coarse timer never fires early.
pub fn ceil_seconds(duration: Duration) -> u32 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coarse_seconds_round_up() {
        for (millis, seconds) in [(0, 0), (1, 1), (999, 1), (1000, 1), (1001, 2)] {
            assert_eq!(
                ceil_seconds(Duration::from_millis(millis)),
                seconds,
                "{millis} ms"
            );
        }
    }
}
