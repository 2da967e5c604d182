//! Those who deliver webhooks are killed 200 times at random moments, and Redis now and then, while the customer's
//! server refuses three of ten.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use dunlin_load::payload::Finder;
use rand::RngExt as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::client::http::Api;
use crate::client::receiver::{Receiver, Taken};
use crate::report::Report;
use crate::stage::redis::{Data, Persistence};
use crate::stage::{Plan, Stage};
use crate::wait::{last, until};

const ROUNDS: usize = 200;
/// In one of so many rounds both are killed …
const BOTH: usize = 5;
/// … and in one of so many Redis is.
const REDIS: usize = 20;
const CHANNELS: usize = 8;
/// Between two publishes on a channel.
const PACE: Duration = Duration::from_millis(100);
const EVENTS: usize = 10_000;
/// Of ten requests so many are refused.
const REFUSED: u32 = 3;
/// How long the customer thinks, milliseconds: there is always something under way.
const THINKING: std::ops::Range<u64> = 0..30;
/// The moment of a kill, after the first delivery of its round, milliseconds.
const MOMENT: std::ops::Range<u64> = 0..200;
const IN_FLIGHT: usize = 8;
/// Claims, leases and pauses of those who refuse run out in it many times over.
const PATIENCE: Duration = Duration::from_mins(1);
/// What has piled up comes one request after the other, because each speaks of all channels.
const DRAINING: Duration = Duration::from_mins(5);

pub(super) async fn play(context: &Context) -> Result<Report> {
    let receiver = Receiver::start(|| {
        let mut random = rand::rng();
        let is_refused = random.random_ratio(REFUSED, 10);
        let thinking = Duration::from_millis(random.random_range(THINKING));
        (if is_refused { 500 } else { 200 }, thinking)
    });
    let endpoint = format!(
        "format = \"yalgaar\", message_url = \"{}\", batch_ms = 20, batch_size = 20",
        receiver.url()
    );
    let pauses = [0, 20, 50].into_iter().chain([100; 29]).collect::<Vec<_>>();
    let plan = Plan::cluster(3)
        .persistence(Persistence::AppendOnly)
        .delivered(&[endpoint], &context.dir)
        .silent(0)
        .config(&format!(
            "[webhooks]\nallow_networks = [\"127.0.0.1/32\"]\nclaim_ms = 1000\nretry_schedule_ms = {pauses:?}\n\
             max_in_flight_per_endpoint = {IN_FLIGHT}\n[redis]\nlease_ms = 1500\nlease_refresh_ms = 500"
        ));
    let mut stage = Stage::start(&context.binary, &context.dir, &plan).await?;
    let target = Rc::new(stage.target());
    let address = stage.addresses()[0];

    let stop = CancellationToken::new();
    let accepted: Rc<RefCell<Vec<Vec<u32>>>> = Rc::new(RefCell::new(vec![Vec::new(); CHANNELS]));
    let mut publishers = JoinSet::new();
    for channel in 0..CHANNELS {
        let (accepted, stop) = (Rc::clone(&accepted), stop.clone());
        let mut api = Api::new(&target, address);
        publishers.spawn_local(async move {
            let mut turn = tokio::time::interval(PACE);
            for sequence in 0_u32.. {
                turn.tick().await;
                if stop.is_cancelled() {
                    return;
                }
                let answer = api.publish(&format!("c-{channel}"), sequence).await;
                // What was not answered may have happened or not.
                if answer.is_ok_and(|answer| answer.status == 200) {
                    accepted.borrow_mut()[channel].push(sequence);
                }
            }
        });
    }
    let begin = Instant::now();
    let (mut stuck, mut rounds, mut kills) = (0, 0, 0);
    while rounds < ROUNDS && begin.elapsed() < context.time(1800) {
        rounds += 1;
        let before = receiver.count();
        let goes_on = until(PATIENCE, || receiver.count() > before).await;
        stuck += usize::from(goes_on.is_none());
        let moment = rand::rng().random_range(MOMENT);
        last(Duration::from_millis(moment)).await;
        let first = rand::rng().random_range(1..=2);
        let mut dead = vec![first];
        if rounds % BOTH == 0 {
            dead.push(3 - first);
        }
        kills += dead.len();
        for node in &dead {
            stage.nodes[*node].kill();
        }
        if rounds % REDIS == 0 {
            stage.redis()?.kill();
            stage.redis()?.restart(Data::Kept).await?;
        }
        for node in dead {
            stage.nodes[node].restart().await?;
        }
    }
    let published = || accepted.borrow().iter().map(Vec::len).sum::<usize>();
    if context.seconds.is_none() {
        until(DRAINING, || published() >= EVENTS).await;
    }
    stop.cancel();
    publishers.join_all().await;
    let accepted = accepted.take();
    let count = accepted.iter().map(Vec::len).sum::<usize>();
    let all = || Arrival::of(&receiver.taken());
    // Counting everything is work: not at every look.
    let mut seen = 0;
    let drained = until(DRAINING, || {
        let count = receiver.count();
        mem::replace(&mut seen, count) != count && all().lost(&accepted) == 0
    })
    .await;

    let arrival = all();
    let mut report = Report::default();
    if context.seconds.is_none() {
        report.equal("rounds", ROUNDS, rounds);
        report.at_least("events that were answered with 200", EVENTS, count);
    }
    report.none("rounds in which nothing was delivered for a minute", stuck);
    report.within("everything delivered after the last kill", DRAINING, drained);
    report.none("events that never came", arrival.lost(&accepted));
    report.none("events that came with two ids", arrival.doubled());
    report.none(
        "channels in which the first arrivals were out of order",
        arrival.misordered,
    );
    report.at_most(
        "deliveries that came again (bound: as many as may be under way, for each kill)",
        kills * IN_FLIGHT,
        arrival.repeated,
    );
    report.none("panics", stage.panics());
    report.figure("kills", kills);
    report.figure("deliveries taken", receiver.count());
    report.figure("deliveries refused", receiver.refused());
    Ok(report)
}

/// What came, from the customer's side.
#[derive(Debug, Default)]
struct Arrival {
    /// By channel and number: the ids under which it came.
    events: BTreeMap<(String, u32), BTreeSet<String>>,
    /// Channels of which an event came for the first time after a later one.
    misordered: usize,
    /// Deliveries that were taken before.
    repeated: usize,
}

impl Arrival {
    fn of(taken: &[Taken]) -> Self {
        let mut arrival = Self::default();
        let (mut ids, mut latest, mut wrong) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
        for delivery in taken {
            if !ids.insert(&delivery.id) {
                arrival.repeated += 1;
                continue;
            }
            let items = delivery.body["items"]["data"].as_array();
            for item in items.into_iter().flatten() {
                let text = |name: &str| item[name].as_str().unwrap_or_default();
                let Some(stamp) = Finder::default().find(text("message").as_bytes()) else {
                    continue;
                };
                let channel = text("channel").to_owned();
                let came_as = arrival
                    .events
                    .entry((channel.clone(), stamp.sequence))
                    .or_default();
                came_as.insert(delivery.id.clone());
                let latest = latest.entry(channel.clone()).or_insert(stamp.sequence);
                if came_as.len() == 1 && stamp.sequence < *latest {
                    wrong.insert(channel);
                }
                *latest = stamp.sequence.max(*latest);
            }
        }
        arrival.misordered = wrong.len();
        arrival
    }

    /// Of those that were accepted, by channel.
    fn lost(&self, accepted: &[Vec<u32>]) -> usize {
        let of_channel = |(channel, sequences): (usize, &Vec<u32>)| {
            let name = format!("c-{channel}");
            let came = |sequence: &&u32| self.events.contains_key(&(name.clone(), **sequence));
            sequences.len() - sequences.iter().filter(came).count()
        };
        accepted.iter().enumerate().map(of_channel).sum()
    }

    fn doubled(&self) -> usize {
        self.events.values().filter(|ids| ids.len() > 1).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_load::payload::{Stamp, push};
    use serde_json::json;

    fn delivery(id: &str, events: &[(usize, u32)]) -> Taken {
        let item = |(channel, sequence): &(usize, u32)| {
            let (mut message, sequence) = (Vec::new(), *sequence);
            push(&mut message, Stamp { sequence, sent_at: 0 }, 0);
            json!({ "channel": format!("c-{channel}"), "message": String::from_utf8(message).unwrap() })
        };
        Taken {
            id: id.to_owned(),
            body: json!({ "items": { "data": events.iter().map(item).collect::<Vec<_>>() } }),
        }
    }

    #[test]
    fn what_is_lost_doubled_repeated_or_out_of_order_is_seen() {
        let accepted = [vec![0, 1, 2], vec![0]];
        for (taken, expected) in [
            (
                vec![delivery("a", &[(0, 0), (1, 0), (0, 1)]), delivery("b", &[(0, 2)])],
                (0, 0, 0, 0),
            ),
            (vec![delivery("a", &[(0, 0), (0, 1)])], (2, 0, 0, 0)),
            (
                vec![delivery("a", &[(0, 0), (0, 1)]), delivery("a", &[(0, 0), (0, 1)])],
                (2, 0, 0, 1),
            ),
            (
                vec![delivery("a", &[(0, 0), (0, 1)]), delivery("b", &[(0, 1)])],
                (2, 1, 0, 0),
            ),
            (
                vec![delivery("a", &[(0, 0), (0, 2)]), delivery("b", &[(0, 1), (1, 0)])],
                (0, 0, 1, 0),
            ),
        ] {
            let arrival = Arrival::of(&taken);
            let found = (
                arrival.lost(&accepted),
                arrival.doubled(),
                arrival.misordered,
                arrival.repeated,
            );
            assert_eq!(found, expected, "{taken:?}");
        }
    }
}
