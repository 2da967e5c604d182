//! Whether what was answered with 200 was kept as a promise.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::load::{Outcome, Verdict};
use super::subscriber::Subscriber;
use crate::report::Report;
use crate::wait::until;

/// How long accepted events may be on their way once nothing is wrong any more.
const ARRIVAL: Duration = Duration::from_secs(10);

/// The book of a load beside the subscribers of one of its channels.
pub(crate) struct Audit<'a> {
    pub(crate) outcomes: &'a [Outcome],
    /// Index into the channels of the load.
    pub(crate) index: usize,
    pub(crate) channel: &'a str,
}

impl<'a> Audit<'a> {
    pub(crate) fn accepted(&self) -> impl Iterator<Item = &'a Outcome> {
        let index = self.index;
        let of_channel = self
            .outcomes
            .iter()
            .filter(move |outcome| outcome.channel == index);
        of_channel.filter(|outcome| outcome.is_accepted())
    }

    /// The accepted events that one of them lacks, once for each who lacks it.
    pub(crate) fn missing(&self, subscribers: &[&Subscriber]) -> Vec<u32> {
        let mut missing = Vec::new();
        for subscriber in subscribers {
            let counts = counts(subscriber, self.channel);
            let accepted = self.accepted().map(|outcome| outcome.sequence);
            missing.extend(accepted.filter(|sequence| !counts.contains_key(sequence)));
        }
        missing
    }

    /// Deliveries beyond the first, over all of them.
    pub(crate) fn repeated(&self, subscribers: &[&Subscriber]) -> usize {
        let of = |subscriber: &&Subscriber| {
            let counts = counts(subscriber, self.channel);
            counts.values().map(|count| count - 1).sum::<usize>()
        };
        subscribers.iter().map(of).sum()
    }
}

/// Waits until nobody lacks anything, as long as that may take.
pub(crate) async fn arrived(mut is_missing: impl FnMut() -> bool) {
    until(ARRIVAL, || !is_missing()).await;
}

fn counts(subscriber: &Subscriber, channel: &str) -> HashMap<u32, usize> {
    let mut counts = HashMap::new();
    for sequence in subscriber.channel(channel).sequences() {
        *counts.entry(sequence).or_default() += 1;
    }
    counts
}

/// What the answers themselves have to be while Redis may be away: 200, or 503 that says when to try again, in time.
pub(crate) fn answers(report: &mut Report, outcomes: &[Outcome], limit: Duration) {
    let is_other = |outcome: &&Outcome| !matches!(outcome.verdict, Verdict::Accepted | Verdict::TryLater);
    report.none(
        "publishes answered with neither 200 nor 503 and Retry-After",
        outcomes.iter().filter(is_other).count(),
    );
    let slowest = outcomes.iter().map(Outcome::took).max();
    report.within("the longest that a publisher waited", limit, slowest);
    report.figure("publishes", super::load::tally(outcomes));
}

/// From `moment` until every node has accepted a publish that was sent after it; `None`: one did not.
pub(crate) fn accepting_again(outcomes: &[Outcome], nodes: usize, moment: Instant) -> Option<Duration> {
    let of = |node| {
        let later = outcomes
            .iter()
            .filter(|outcome| outcome.node == node && outcome.sent > moment);
        later
            .filter(|outcome| outcome.is_accepted())
            .map(|outcome| outcome.answered - moment)
            .min()
    };
    (0..nodes).map(of).collect::<Option<Vec<_>>>()?.into_iter().max()
}
