//! 100 visitors a second come and go on two nodes, one of which is killed: a customer is told of each coming and going
//! once, in either format.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::RngExt as _;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::Context;
use crate::client::receiver::{Receiver, Taken};
use crate::client::subscriber::Visitor;
use crate::report::Report;
use crate::stage::{Plan, Stage};
use crate::wait::{last, until};

/// Who comes in a second; as many go.
const VISITORS: u32 = 100;
const ROOMS: u64 = 8;
/// How long a visitor stays once it is subscribed, milliseconds.
const STAY: std::ops::Range<u64> = 200..1_500;
const SEATING: Duration = Duration::from_secs(10);
/// The lease of the dead node, the settle window, and room for both.
const AFTERMATH: Duration = Duration::from_mins(1);
/// Long enough for a second telling, if there were one.
const SILENCE: Duration = Duration::from_secs(5);

pub(super) async fn play(context: &Context) -> Result<Report> {
    let receiver = Receiver::start(|| (200, Duration::ZERO));
    let events = r#"["channel_occupied", "channel_vacated", "member_added", "member_removed"]"#;
    let url = receiver.url();
    let endpoints = [
        format!("url = \"{url}\", events = {events}, batch_ms = 100"),
        format!("format = \"yalgaar\", presence_url = \"{url}\", batch_ms = 100"),
    ];
    let plan = Plan::cluster(2)
        .delivered(&endpoints, &context.dir)
        .config("[webhooks]\nallow_networks = [\"127.0.0.1/32\"]");
    let mut stage = Stage::start(&context.binary, &context.dir, &plan).await?;
    let target = Rc::new(stage.target());
    let addresses = stage.addresses();

    let (begin, time) = (Instant::now(), context.time(120));
    let mut turn = tokio::time::interval(Duration::from_secs(1) / VISITORS);
    turn.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut visits = JoinSet::new();
    // When the node is away, everybody comes to the other.
    let away = Rc::new(Cell::new(false));
    let mut killed = None;
    let mut visitors = 0_u64;
    while begin.elapsed() < time {
        turn.tick().await;
        let node = if away.get() {
            0
        } else {
            usize::try_from(visitors % 2)?
        };
        let visitor = Visitor::at(addresses[node])
            .on(&format!("unique-{visitors}"))
            .on_as(&room(visitors), &user(visitors))
            .once();
        let (target, number) = (Rc::clone(&target), visitors);
        visits.spawn_local(async move {
            let visitor = visitor.start(&target);
            let stay = Duration::from_millis(rand::rng().random_range(STAY));
            let is_seated = until(SEATING, || visitor.is_seated()).await.is_some();
            last(stay).await;
            (number, is_seated)
        });
        visitors += 1;
        if killed.is_none() && begin.elapsed() > time / 2 {
            stage.nodes[1].kill();
            away.set(true);
            killed = Some(Instant::now());
        } else if away.get() && killed.is_some_and(|at| at.elapsed() > time / 6) {
            stage.nodes[1].restart().await?;
            away.set(false);
        }
    }
    let visits = visits.join_all().await;
    let seated: BTreeSet<u64> = visits
        .into_iter()
        .filter_map(|(number, is_seated)| is_seated.then_some(number))
        .collect();
    let all = || Told::of(&receiver.taken());
    // Whoever was not seen to be subscribed may have been: what comes has to go as well.
    let is_over = || {
        let told = all();
        told.missing(&seated) == 0 && told.halves().next().is_none()
    };
    let took = until(AFTERMATH, is_over).await;
    last(SILENCE).await;

    let told = all();
    let mut report = Report::default();
    report.within("everything told after the last visitor", AFTERMATH, took);
    report.none(
        "comings and goings of visitors that were not told",
        told.missing(&seated),
    );
    report.none("comings and goings that were told twice", told.twice());
    report.none(
        "comings that were told without a going, or the other way",
        told.halves().count(),
    );
    report.none("goings that were told before their coming", told.reversed);
    report.none("panics", stage.panics());
    report.figure("visitors", visitors);
    report.figure(
        "of these, not subscribed when the node was killed",
        visitors - seated.len() as u64,
    );
    report.figure(
        "events told",
        told.counts.values().map(|count| u64::from(*count)).sum::<u64>(),
    );
    report.figure("deliveries", receiver.count());
    Ok(report)
}

fn room(number: u64) -> String {
    format!("presence-room-{}", number % ROOMS)
}

fn user(number: u64) -> String {
    format!("user-{number}")
}

/// What a customer was told of everybody.
#[derive(Debug, Default)]
struct Told {
    /// By what happened and to whom.
    counts: BTreeMap<(String, String), u32>,
    reversed: usize,
}

/// What happens to a visitor, each pair in its order.
const PAIRS: [[&str; 2]; 4] = [
    ["member_added", "member_removed"],
    ["channel_occupied", "channel_vacated"],
    // To the channel that is the visitor's own, and to the room.
    ["bind alone", "unbind alone"],
    ["bind", "unbind"],
];

/// Of an event in either format: its name here, and whose it is. None of a room's own.
fn read(event: &Value) -> Option<(String, String)> {
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    let visitor = text("channel")
        .strip_prefix("unique-")
        .map(|number| format!("user-{number}"));
    match (text("action"), visitor) {
        ("", Some(visitor)) => Some((text("name").to_owned(), visitor)),
        ("", None) => {
            let user = event["user_id"].as_str()?;
            Some((text("name").to_owned(), user.to_owned()))
        }
        (action, Some(visitor)) => Some((format!("{action} alone"), visitor)),
        (action, None) => Some((action.to_owned(), text("uuid").to_owned())),
    }
}

impl Told {
    fn of(taken: &[Taken]) -> Self {
        let mut told = Self::default();
        let mut ids = BTreeSet::new();
        for delivery in taken.iter().filter(|delivery| ids.insert(&delivery.id)) {
            let events = delivery.body["events"].as_array();
            let binds = delivery.body["items"]["data"].as_array();
            let all = events.into_iter().chain(binds).flatten();
            for (name, whom) in all.filter_map(read) {
                let coming = PAIRS
                    .iter()
                    .find(|[_, going]| *going == name)
                    .map(|[coming, _]| *coming);
                if coming.is_some_and(|coming| told.count(coming, &whom) == 0) {
                    told.reversed += 1;
                }
                *told.counts.entry((name, whom)).or_default() += 1;
            }
        }
        told
    }

    fn count(&self, name: &str, whom: &str) -> u32 {
        let key = (name.to_owned(), whom.to_owned());
        self.counts.get(&key).copied().unwrap_or_default()
    }

    fn missing(&self, seated: &BTreeSet<u64>) -> usize {
        let names = PAIRS.as_flattened();
        let of = |number: &u64| {
            names
                .iter()
                .filter(|name| self.count(name, &user(*number)) == 0)
                .count()
        };
        seated.iter().map(of).sum()
    }

    fn twice(&self) -> usize {
        self.counts.values().filter(|count| **count > 1).count()
    }

    fn halves(&self) -> impl Iterator<Item = &str> {
        let is_alone = move |((name, whom), count): &(&(String, String), &u32)| {
            let pair = PAIRS.iter().find(|pair| pair.contains(&name.as_str()));
            pair.is_some_and(|pair| pair.iter().any(|other| self.count(other, whom) < **count))
        };
        self.counts
            .iter()
            .filter(is_alone)
            .map(|((name, _), _)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(names: &[&str]) -> Told {
        let event = |name: &&str| match *name {
            "channel_occupied" | "channel_vacated" => json!({ "name": name, "channel": "unique-7" }),
            "bind" | "unbind" => json!({ "channel": "presence-room-7", "uuid": "user-7", "action": name }),
            "bind alone" => json!({ "channel": "unique-7", "uuid": "1.1", "action": "bind" }),
            "unbind alone" => json!({ "channel": "unique-7", "uuid": "1.1", "action": "unbind" }),
            _ => json!({ "name": name, "channel": "presence-room-7", "user_id": "user-7" }),
        };
        let events: Vec<_> = names.iter().map(event).collect();
        Told::of(&[Taken {
            id: "a".to_owned(),
            body: json!({ "events": events }),
        }])
    }

    #[test]
    fn what_is_missing_twice_half_or_reversed_is_seen() {
        let seated = BTreeSet::from([7]);
        let all = [
            "member_added",
            "channel_occupied",
            "member_removed",
            "channel_vacated",
            "bind",
            "bind alone",
            "unbind alone",
            "unbind",
        ];
        for (names, expected) in [
            (&all[..], (0, 0, 0, 0)),
            (&all[..2], (6, 0, 2, 0)),
            (
                &["member_added", "member_removed", "member_removed"][..],
                (6, 1, 1, 0),
            ),
            (&["member_removed", "member_added"][..], (6, 0, 0, 1)),
            (&["unbind", "bind", "bind alone"][..], (5, 0, 1, 1)),
        ] {
            let told = told(names);
            let found = (
                told.missing(&seated),
                told.twice(),
                told.halves().count(),
                told.reversed,
            );
            assert_eq!(found, expected, "{names:?}");
        }
    }
}
