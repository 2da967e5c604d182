//! Visitors come and go, for long: nothing of them may stay in Redis.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::RngExt as _;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::Context;
use crate::client::subscriber::Visitor;
use crate::report::Report;
use crate::stage::redis::Redis;
use crate::stage::{Plan, Stage};
use crate::wait::{last, until};

/// Who comes in a second; as many go.
const VISITORS: u32 = 20;
const ROOMS: u64 = 8;
/// How long a visitor stays once it is subscribed, milliseconds.
const STAY: std::ops::Range<u64> = 200..2_000;
/// In one of so many visits there is no subscription: the connection ends before it is confirmed.
const HASTY: u64 = 10;
const SEATING: Duration = Duration::from_secs(10);
const SAMPLE: Duration = Duration::from_secs(1);
/// The linger on a channel that nobody wants any more, the settle window, and room for both.
const AFTERMATH: Duration = Duration::from_secs(30);
/// There may be so much more in the last third than in the middle one, as a part of it; the first is the way up.
const GROWTH: u64 = 10;

pub(super) async fn play(context: &Context) -> Result<Report> {
    let mut stage = Stage::start(&context.binary, &context.dir, &Plan::cluster(2)).await?;
    let target = Rc::new(stage.target());
    let addresses = stage.addresses();
    let before = Sample::take(stage.redis()?)?;

    let begin = Instant::now();
    let time = context.time(600);
    let mut turn = tokio::time::interval(Duration::from_secs(1) / VISITORS);
    turn.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut visits = JoinSet::new();
    let mut samples = Vec::new();
    let mut visitors = 0_u64;
    while begin.elapsed() < time {
        turn.tick().await;
        let visitor = Visitor::at(addresses[usize::try_from(visitors)? % addresses.len()])
            .on("churn")
            .on(&format!("unique-{visitors}"))
            .on_as(
                &format!("presence-churn-{}", visitors % ROOMS),
                &format!("user-{visitors}"),
            )
            .once();
        let target = Rc::clone(&target);
        let hasty = visitors.is_multiple_of(HASTY);
        visits.spawn_local(async move {
            let visitor = visitor.start(&target);
            let stay = Duration::from_millis(rand::rng().random_range(STAY));
            if hasty {
                last(stay / 100).await;
                return true;
            }
            let is_seated = until(SEATING, || visitor.is_seated()).await.is_some();
            last(stay).await;
            is_seated
        });
        visitors += 1;
        if begin.elapsed() > SAMPLE * u32::try_from(samples.len() + 1)? {
            samples.push(Sample::take(stage.redis()?)?);
        }
    }
    let unseated = visits
        .join_all()
        .await
        .into_iter()
        .filter(|seated| !seated)
        .count();
    let redis = stage.redis()?;
    let empty = until(AFTERMATH, || {
        Sample::take(redis).is_ok_and(|now| now.passing() == before.passing() && now.topics == before.topics)
    })
    .await;
    let after = Sample::take(redis)?;

    let mut report = Report::default();
    for (what, of) in [
        ("keys", Sample::passing as fn(&Sample) -> u64),
        ("topics that a node listens to", |sample| sample.topics),
    ] {
        let third = samples.len() / 3;
        let mean = |part: &[Sample]| {
            let sum: u64 = part.iter().map(of).sum();
            sum / part.len().max(1) as u64
        };
        let (middle, late) = (mean(&samples[third..2 * third]), mean(&samples[2 * third..]));
        let bound = middle + middle / GROWTH;
        report.at_most(
            format!("{what} on average in the last third (bound: the middle third + 10 %)"),
            bound,
            late,
        );
        report.equal(
            format!("{what} at the end, as at the start"),
            of(&before),
            of(&after),
        );
    }
    report.within("everything gone after the last visitor", AFTERMATH, empty);
    report.none("visitors that were not subscribed", unseated);
    report.none("panics", stage.panics());
    report.figure("visitors", visitors);
    report.figure("keys at the end, by kind", shown(&after));
    report.detail(format!("keys at the start: {}", shown(&before)));
    Ok(report)
}

/// What there is in Redis at a moment.
#[derive(Debug)]
struct Sample {
    /// Keys by the kind that their name tells.
    kinds: BTreeMap<String, u64>,
    topics: u64,
}

impl Sample {
    fn take(redis: &Redis) -> Result<Self> {
        let mut kinds = BTreeMap::new();
        for name in redis.names()? {
            // PREFIX:{PARTITION}:KIND…
            let kind = name.split(':').nth(2).unwrap_or(&name);
            *kinds.entry(kind.to_owned()).or_default() += 1;
        }
        Ok(Self {
            kinds,
            topics: u64::try_from(redis.channels()?)?,
        })
    }

    /// All keys but those that are there for good: one outbox for each partition, trimmed by itself.
    fn passing(&self) -> u64 {
        let passing = self.kinds.iter().filter(|(kind, _)| *kind != "outbox");
        passing.map(|(_, count)| count).sum()
    }
}

fn shown(sample: &Sample) -> String {
    let kinds = sample.kinds.iter().map(|(kind, count)| format!("{count} {kind}"));
    kinds.collect::<Vec<_>>().join(", ")
}
