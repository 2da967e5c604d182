//! Nothing that was acknowledged is lost where a history is kept: Redis and the nodes are killed in turn, under load.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Context;
use crate::client::audit::Audit;
use crate::client::crew::oddities;
use crate::client::http::Api;
use crate::client::load::{Load, tally};
use crate::client::record::Seen;
use crate::client::subscriber::{Subscriber, Visitor, seated};
use crate::report::Report;
use crate::stage::proxy::Proxy;
use crate::stage::redis::{Data, Persistence};
use crate::stage::{Plan, Stage};
use crate::wait::{last, until};

const CHANNEL: &str = "kept-history";
const RATE: u32 = 100;
/// At each node, and as many more that come back at the other.
const READERS: usize = 5;
const ROUNDS: u64 = 20;
/// About how long a round takes.
const ROUND_S: u64 = 6;
const CALM: Duration = Duration::from_secs(2);
const AWAY: Duration = Duration::from_secs(1);
const ARRIVAL: Duration = Duration::from_secs(10);

pub(super) async fn play(context: &Context) -> Result<Report> {
    let plan = Plan::cluster(2)
        .persistence(Persistence::AppendOnly)
        .history("kept-*", 100_000, 3600);
    let mut stage = Stage::start(&context.binary, &context.dir, &plan).await?;
    let target = Rc::new(stage.target());
    let addresses = stage.addresses();
    let either = Proxy::start(addresses.clone()).await?;
    let mut readers: Vec<Subscriber> = Vec::new();
    for address in addresses.iter().copied().chain([either.address]) {
        let visitor = Visitor::at(address).on(CHANNEL).resumes();
        readers.extend((0..READERS).map(|_| visitor.clone().start(&target)));
    }
    seated(&readers).await?;

    let load = Load::start(&target, &addresses, &[CHANNEL], RATE);
    let rounds = context
        .seconds
        .map_or(ROUNDS, |seconds| (seconds / ROUND_S).max(2));
    for round in 0..rounds {
        last(CALM).await;
        if round % 2 == 0 {
            stage.redis()?.kill();
            last(AWAY).await;
            stage.redis()?.restart(Data::Kept).await?;
        } else {
            let victim = usize::try_from(round / 2)? % stage.nodes.len();
            stage.nodes[victim].kill();
            last(AWAY).await;
            stage.nodes[victim].restart().await?;
        }
        seated(&readers)
            .await
            .with_context(|| format!("in round {}", round + 1))?;
    }
    last(CALM).await;
    let outcomes = load.stop().await;
    let history = Api::new(&target, addresses[0]).history(CHANNEL).await?;

    let mut report = Report::default();
    let audit = Audit {
        outcomes: &outcomes,
        index: 0,
        channel: CHANNEL,
    };
    let places: HashMap<u32, usize> = history
        .iter()
        .enumerate()
        .map(|(place, id)| (*id, place))
        .collect();
    report.none(
        "accepted events that the history lacks",
        audit
            .accepted()
            .filter(|outcome| !places.contains_key(&outcome.sequence))
            .count(),
    );
    report.none("events that the history has twice", history.len() - places.len());
    let newest = history.last().copied();
    let is_up_to_date = |reader: &Subscriber| reader.channel(CHANNEL).sequences().last() == newest;
    until(ARRIVAL, || readers.iter().all(is_up_to_date)).await;
    let mut sum = Findings::default();
    for reader in &readers {
        sum.add(&reader.channel(CHANNEL).log, &places);
    }
    report.none("gaps that a client was not told of", sum.gaps);
    report.none(
        "events that came twice or in another order than that of the history",
        sum.back,
    );
    report.none("events that the history does not have", sum.unknown);
    report.none(
        "clients without the newest event",
        readers.iter().filter(|reader| !is_up_to_date(reader)).count(),
    );
    let odd = oddities(readers.iter());
    report.none("messages that contradict those before", odd.len());
    report.none("panics", stage.panics());
    report.at_least("times that a client had recovered", 1, sum.recovered);
    report.figure("times that a client was told \"not recovered\"", sum.broken);
    report.figure("rounds", rounds);
    report.figure("publishes", tally(&outcomes));
    report.figure("events in the history", history.len());
    odd.into_iter().take(3).for_each(|message| report.detail(message));
    Ok(report)
}

/// What the logs of clients show beside the history.
#[derive(Debug, Default)]
struct Findings {
    gaps: usize,
    back: usize,
    unknown: usize,
    recovered: usize,
    broken: usize,
}

impl Findings {
    fn add(&mut self, log: &[Seen], places: &HashMap<u32, usize>) {
        let mut last: Option<usize> = None;
        let mut may_jump = true;
        for seen in log {
            match seen {
                Seen::Recovered => self.recovered += 1,
                Seen::Broken => {
                    self.broken += 1;
                    may_jump = true;
                }
                Seen::Event(sequence, _) => {
                    let Some(place) = places.get(sequence).copied() else {
                        self.unknown += 1;
                        continue;
                    };
                    match last {
                        Some(last) if place <= last => self.back += 1,
                        Some(last) if place > last + 1 && !may_jump => self.gaps += 1,
                        _ => {}
                    }
                    last = Some(place);
                    may_jump = false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn findings(log: &[Seen]) -> Findings {
        let mut findings = Findings::default();
        findings.add(log, &(0..10).map(|id| (id, id as usize)).collect());
        findings
    }

    #[test]
    fn a_gap_counts_unless_the_client_was_told_of_it() {
        let event = |id| Seen::Event(id, Instant::now());
        assert_eq!(findings(&[event(3), event(4), event(6)]).gaps, 1);
        let told = findings(&[event(3), Seen::Broken, event(6), event(7), event(9)]);
        assert_eq!((told.gaps, told.broken), (1, 1));
        assert_eq!(findings(&[event(3), Seen::Recovered, event(6)]).gaps, 1);
    }

    #[test]
    fn repeats_and_strangers_are_told_apart() {
        let event = |id| Seen::Event(id, Instant::now());
        let seen = findings(&[event(3), event(3), event(2), event(99), event(3)]);
        assert_eq!((seen.back, seen.unknown, seen.gaps), (2, 1, 0));
    }
}
