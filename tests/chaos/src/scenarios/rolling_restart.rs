//! Two nodes behind nginx are restarted one after the other, under 2,000 connections and 500 publishes a second.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Context;
use crate::client::audit::{Audit, arrived};
use crate::client::crew::oddities;
use crate::client::load::{Load, tally};
use crate::client::record::Seen;
use crate::client::sentry::Sentry;
use crate::client::subscriber::{Subscriber, Visitor, seated};
use crate::report::{Report, shown};
use crate::stage::nginx::Nginx;
use crate::stage::{Plan, Stage, free_ports};
use crate::wait::last;

const CONNECTIONS: usize = 2_000;
/// With history; every channel has several subscribers, and they resume.
const CHANNELS: usize = 500;
const RATE: u32 = 500;
/// As many at a time as find room in any listen queue.
const COMING: usize = 200;

const NOTICE: Duration = Duration::from_secs(1);
const BACK: Duration = Duration::from_secs(5);
/// `server.drain_window_ms` and some seconds for what is under way.
const END: Duration = Duration::from_secs(30);

pub(super) async fn play(context: &Context) -> Result<Report> {
    let plan = Plan::cluster(2).history("kept-*", 1000, 120);
    let mut stage = Stage::start(&context.binary, &context.dir, &plan).await?;
    let target = Rc::new(stage.target());
    let port = free_ports(&[], 1)?[0];
    let nginx = Nginx::start(&context.dir, port, &stage.addresses()).await?;

    let names: Vec<String> = (0..CHANNELS).map(|number| format!("kept-{number}")).collect();
    let mut subscribers: Vec<Subscriber> = Vec::new();
    for number in 0..CONNECTIONS {
        let visitor = Visitor::at(nginx.address).on(&names[number % CHANNELS]).resumes();
        subscribers.push(visitor.start(&target));
        if subscribers.len().is_multiple_of(COMING) {
            seated(&subscribers[subscribers.len() - COMING..]).await?;
        }
    }
    let channels: Vec<&str> = names.iter().map(String::as_str).collect();
    let sentry = Sentry::start(&stage.addresses());
    let load = Load::start(&target, &[nginx.address], &channels, RATE);
    let calm = context.time(30) / 6;
    last(calm).await;

    let mut report = Report::default();
    for number in 0..stage.nodes.len() {
        let node = &mut stage.nodes[number];
        let name = node.name.clone();
        node.terminate()?;
        let told = Instant::now();
        let ended = node.ended_within(END).await;
        report.within(
            format!("{name} not ready once told to stop"),
            NOTICE,
            sentry.first(number, told, false),
        );
        report.within(format!("{name} ended"), END, ended.map(|(took, _)| took));
        let code = ended.and_then(|(_, status)| status.code());
        report.equal(format!("{name}: exit code"), 0, code.unwrap_or(-1));
        last(calm).await;
        stage.nodes[number].restart().await?;
        last(calm).await;
    }
    seated(&subscribers).await?;
    let outcomes = load.stop().await;

    let errors = outcomes.iter().filter(|outcome| !outcome.is_accepted()).count();
    report.none("publishes with another answer than 200", errors);
    report.figure("publishes", tally(&outcomes));
    let slowest = outcomes.iter().map(crate::client::load::Outcome::took).max();
    report.figure(
        "the longest that a publisher waited",
        slowest.map_or("–".to_owned(), shown),
    );
    let absences: Vec<Duration> = subscribers
        .iter()
        .flat_map(|one| one.record().absences.clone())
        .collect();
    report.at_least(
        "connections that were sent away and came back",
        CONNECTIONS / 2,
        absences.len(),
    );
    report.within(
        "each of them subscribed again",
        BACK,
        absences.iter().max().copied(),
    );
    let audits = || {
        channels.iter().enumerate().map(|(index, channel)| {
            let audit = Audit {
                outcomes: &outcomes,
                index,
                channel,
            };
            let on_channel: Vec<&Subscriber> = subscribers.iter().skip(index).step_by(CHANNELS).collect();
            (audit, on_channel)
        })
    };
    arrived(|| audits().any(|(audit, readers)| !audit.missing(&readers).is_empty())).await;
    let lost: usize = audits()
        .map(|(audit, readers)| audit.missing(&readers).len())
        .sum();
    let repeated: usize = audits().map(|(audit, readers)| audit.repeated(&readers)).sum();
    report.none("deliveries that never came", lost);
    report.none("deliveries that came twice", repeated);
    let broken = |one: &&Subscriber| {
        one.record()
            .channels
            .values()
            .any(|it| it.log.contains(&Seen::Broken))
    };
    report.none(
        "clients that were told \"not recovered\"",
        subscribers.iter().filter(broken).count(),
    );
    let odd = oddities(subscribers.iter());
    report.none("messages that contradict those before", odd.len());
    report.none("panics", stage.panics());
    let ends: Vec<String> = subscribers
        .iter()
        .flat_map(|one| {
            one.record()
                .ends
                .iter()
                .map(|(_, end)| end.to_string())
                .collect::<Vec<_>>()
        })
        .collect();
    report.figure("how connections ended", crate::report::tally(ends));
    odd.into_iter().take(3).for_each(|message| report.detail(message));
    if errors > 0 {
        report.detail(nginx.log_tail());
    }
    Ok(report)
}
