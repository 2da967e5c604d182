//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

/// How often a condition is looked at: small against every promise that is measured with it.
const LOOK: Duration = Duration::from_millis(5);

/// Looks until `holds`, for at most `limit`; returns how long it took, or `None` when it never did.
pub(crate) async fn until(limit: Duration, mut holds: impl FnMut() -> bool) -> Option<Duration> {
    until_some(limit, async || holds().then_some(()))
        .await
        .map(|(took, ())| took)
}

/// Asks until there is an answer, for at most `limit`; returns it and how long it took.
pub(crate) async fn until_some<T>(
    limit: Duration,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> Option<(Duration, T)> {
    let begin = Instant::now();
    let mut turn = tokio::time::interval(LOOK);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        if let Some(answer) = ask().await {
            return Some((begin.elapsed(), answer));
        }
        if begin.elapsed() > limit {
            return None;
        }
    }
}

/// Lets a fault last, or the load go on, for so long. Nothing is concluded from the time having passed.
pub(crate) async fn last(time: Duration) {
    tokio::time::sleep(time).await;
}
