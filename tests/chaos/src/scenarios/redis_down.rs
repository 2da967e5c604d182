//! Redis is away for 10 s under 500 publishes a second: stopped, killed with its data kept, killed with its data lost.

use std::collections::HashSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Context;
use crate::client::audit::{Audit, accepting_again, answers, arrived};
use crate::client::crew::{crew, ends, names, oddities};
use crate::client::http::Api;
use crate::client::load::Load;
use crate::client::roll::Roll;
use crate::client::sentry::Sentry;
use crate::client::subscriber::{Subscriber, Visitor, seated};
use crate::report::Report;
use crate::stage::redis::{Data, Persistence};
use crate::stage::{Plan, Stage};
use crate::wait::last;

const PLAIN: &str = "plain";
const KEPT: &str = "kept-down";
const ROLL: &str = "presence-down";
const RATE: u32 = 500;
const READERS: usize = 10;
const MEMBERS: usize = 40;
/// Who goes, and who comes, while Redis is away.
const MOVERS: usize = 20;

const ANSWER: Duration = Duration::from_secs(2);
const NOTICE: Duration = Duration::from_secs(3);
const TRAFFIC: Duration = Duration::from_secs(3);
const EXACT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(20);

/// How Redis goes away, and how it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Absence {
    Paused,
    Killed(Data),
}

pub(super) async fn play(context: &Context) -> Result<Report> {
    let mut report = Report::default();
    for (name, absence) in [
        ("stopped", Absence::Paused),
        ("killed", Absence::Killed(Data::Kept)),
        ("killed and empty", Absence::Killed(Data::Lost)),
    ] {
        let part = once(context, &name.replace(' ', "-"), absence).await?;
        report.absorb(name, part);
    }
    Ok(report)
}

async fn once(context: &Context, name: &str, absence: Absence) -> Result<Report> {
    let plan = Plan::cluster(2)
        .persistence(Persistence::AppendOnly)
        .history("kept-*", 100_000, 600);
    let mut stage = Stage::start(&context.binary, &context.dir.join(name), &plan).await?;
    let target = Rc::new(stage.target());
    let addresses = stage.addresses();

    let mut readers: Vec<Subscriber> = Vec::new();
    let mut members: Vec<Subscriber> = Vec::new();
    let mut leavers: Vec<Subscriber> = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        let visitor = Visitor::at(*address);
        readers.extend((0..READERS).map(|_| visitor.clone().on(PLAIN).on(KEPT).start(&target)));
        members.extend(crew(
            &target,
            &visitor,
            ROLL,
            &format!("member-{number}"),
            MEMBERS,
        ));
        leavers.extend(crew(&target, &visitor, ROLL, &format!("leaver-{number}"), MOVERS));
    }
    for crowd in [&readers, &members, &leavers] {
        seated(crowd).await?;
    }

    let phase = context.time(30) / 3;
    let sentry = Sentry::start(&addresses);
    let load = Load::start(&target, &addresses, &[PLAIN, KEPT], RATE);
    last(phase).await;
    let away = Instant::now();
    match absence {
        Absence::Paused => stage.redis()?.pause()?,
        Absence::Killed(_) => stage.redis()?.kill(),
    }
    last(phase / 2).await;
    leavers.clear();
    for (number, address) in addresses.iter().enumerate() {
        members.extend(crew(
            &target,
            &Visitor::at(*address),
            ROLL,
            &format!("comer-{number}"),
            MOVERS,
        ));
    }
    last(phase.saturating_sub(away.elapsed())).await;
    match absence {
        Absence::Paused => stage.redis()?.resume()?,
        Absence::Killed(data) => stage.redis()?.restart(data).await?,
    }
    let back = Instant::now();
    let everybody = names(&[
        ("member-0", MEMBERS),
        ("member-1", MEMBERS),
        ("comer-0", MOVERS),
        ("comer-1", MOVERS),
    ]);
    let roll = Roll {
        target: &target,
        channel: ROLL,
        nodes: &addresses,
    };
    let exact = roll.exact(members.iter(), &everybody, PATIENCE).await;
    last(phase.saturating_sub(back.elapsed())).await;
    let outcomes = load.stop().await;
    let later = roll.difference(members.iter(), &everybody).await;

    let mut report = Report::default();
    answers(&mut report, &outcomes, ANSWER);
    let refused = outcomes.iter().filter(|outcome| !outcome.is_accepted()).count();
    report.at_least("publishes refused", 1, refused);
    let all: Vec<&Subscriber> = readers.iter().collect();
    for (index, channel) in [PLAIN, KEPT].into_iter().enumerate() {
        let audit = Audit {
            outcomes: &outcomes,
            index,
            channel,
        };
        let lacking = {
            arrived(|| !audit.missing(&all).is_empty()).await;
            audit.missing(&all)
        };
        let kept = if channel == KEPT {
            kept(&mut Api::new(&target, addresses[0])).await?
        } else {
            HashSet::new()
        };
        let lost = lacking
            .iter()
            .filter(|sequence| !kept.contains(*sequence))
            .count();
        let which = if channel == KEPT { "with" } else { "without" };
        let lost_what = if channel == KEPT { "and are not in it" } else { "" };
        report.none(
            format!("deliveries of accepted events {which} history that never came {lost_what}").trim_end(),
            lost,
        );
        report.none(
            format!("deliveries {which} history that came twice"),
            audit.repeated(&all),
        );
        report.figure(format!("accepted {which} history"), audit.accepted().count());
    }
    report.within(
        "not ready after it went, both nodes",
        NOTICE,
        sentry.all(away, false),
    );
    report.within(
        "ready after it came back, both nodes",
        TRAFFIC,
        sentry.all(back, true),
    );
    let ready_while_away: usize = (0..addresses.len())
        .map(|node| sentry.count(node, (away + NOTICE, back), true))
        .sum();
    report.none(
        "looks at a node that said it was ready meanwhile",
        ready_while_away,
    );
    report.within(
        "publishes accepted again, both nodes",
        TRAFFIC,
        accepting_again(&outcomes, addresses.len(), back),
    );
    let heard = readers.iter().map(|reader| {
        let first = reader.channel(PLAIN).first_after(back);
        first.map(|first| first - back)
    });
    let heard = heard
        .collect::<Option<Vec<Duration>>>()
        .and_then(|times| times.into_iter().max());
    report.within("events heard again, everybody", TRAFFIC, heard);
    report.within("presence exact", EXACT, exact.as_ref().ok().copied());
    report.none("connections that ended", ends(readers.iter().chain(&members)));
    let odd = oddities(readers.iter().chain(&members));
    report.none("messages that contradict those before", odd.len());
    report.none("panics", stage.panics());
    report.figure("Redis was away for", crate::report::shown(back - away));
    report.none("differences in presence in the end", usize::from(later.is_some()));
    exact
        .err()
        .into_iter()
        .chain(later)
        .for_each(|difference| report.detail(difference));
    odd.into_iter().take(3).for_each(|message| report.detail(message));
    Ok(report)
}

/// The sequence numbers in the history of the channel that has one.
async fn kept(api: &mut Api) -> Result<HashSet<u32>> {
    Ok(api.history(KEPT).await?.into_iter().collect())
}
