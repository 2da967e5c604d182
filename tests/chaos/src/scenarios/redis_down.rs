//! Redis is away for 10 s under 500 publishes a second: stopped, killed with its data kept, killed with its data lost.
//! And for a moment, and again and again, to meet what is on its way just then.

use std::collections::HashSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use dunlin_load::Target;

use super::Context;
use crate::client::audit::{Audit, accepting_again, answers, arrived};
use crate::client::crew::{crew, ends, names, oddities};
use crate::client::http::Api;
use crate::client::load::{Load, Outcome};
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
/// A little longer than the nodes wait for an answer: they have just given up what Redis is about to execute.
const MOMENT: Duration = Duration::from_secs(2);
const CRASHES: u32 = 20;

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
    let away = context.time(30) / 3;
    let mut report = Report::default();
    for (name, absence, away) in [
        ("stopped", Absence::Paused, away),
        ("stopped for a moment", Absence::Paused, MOMENT),
        ("killed", Absence::Killed(Data::Kept), away),
        ("killed and empty", Absence::Killed(Data::Lost), away),
    ] {
        report.absorb(name, once(context, name, absence, away).await?);
    }
    report.absorb("killed 20 times", again_and_again(context).await?);
    Ok(report)
}

fn plan() -> Plan {
    Plan::cluster(2)
        .persistence(Persistence::AppendOnly)
        .history("kept-*", 100_000, 600)
}

/// Subscribers of both channels at every node.
fn readers(target: &Rc<Target>) -> Vec<Subscriber> {
    let at = |node: &dunlin_load::Node| {
        let visitor = Visitor::at(node.addr).on(PLAIN).on(KEPT);
        (0..READERS)
            .map(|_| visitor.clone().start(target))
            .collect::<Vec<_>>()
    };
    target.nodes.iter().flat_map(at).collect()
}

/// One crash after the other, each in the midst of answers and messages that are on their way.
async fn again_and_again(context: &Context) -> Result<Report> {
    let mut stage = Stage::start(&context.binary, &context.dir.join("killed 20 times"), &plan()).await?;
    let target = Rc::new(stage.target());
    let readers = readers(&target);
    seated(&readers).await?;
    let load = Load::start(&target, &stage.addresses(), &[PLAIN, KEPT], RATE);
    for _ in 0..CRASHES {
        last(MOMENT / 2).await;
        stage.redis()?.kill();
        last(MOMENT / 4).await;
        stage.redis()?.restart(Data::Kept).await?;
    }
    last(MOMENT).await;
    let outcomes = load.stop().await;

    let mut report = Report::default();
    answers(&mut report, &outcomes, ANSWER);
    deliveries(&mut report, &target, &outcomes, &readers).await?;
    report.none("connections that ended", ends(readers.iter()));
    report.none("panics", stage.panics());
    Ok(report)
}

/// Whether every accepted event reached everybody, or is in the history of its channel.
async fn deliveries(
    report: &mut Report,
    target: &Target,
    outcomes: &[Outcome],
    readers: &[Subscriber],
) -> Result<()> {
    let all: Vec<&Subscriber> = readers.iter().collect();
    let history = Api::new(target, target.nodes[0].addr).history(KEPT).await?;
    let kept: HashSet<u32> = history.into_iter().collect();
    for (index, channel, which) in [(0, PLAIN, "without history"), (1, KEPT, "with history")] {
        let audit = Audit {
            outcomes,
            index,
            channel,
        };
        arrived(|| !audit.missing(&all).is_empty()).await;
        let missing = audit.missing(&all);
        let lost = missing
            .iter()
            .filter(|sequence| channel == PLAIN || !kept.contains(*sequence));
        report.none(
            format!("deliveries {which} of accepted events that never came"),
            lost.count(),
        );
        report.none(
            format!("deliveries {which} that came twice"),
            audit.repeated(&all),
        );
        report.figure(format!("accepted {which}"), audit.accepted().count());
    }
    Ok(())
}

async fn once(context: &Context, name: &str, absence: Absence, time_away: Duration) -> Result<Report> {
    let mut stage = Stage::start(&context.binary, &context.dir.join(name), &plan()).await?;
    let target = Rc::new(stage.target());
    let addresses = stage.addresses();

    let readers = readers(&target);
    let mut members: Vec<Subscriber> = Vec::new();
    let mut leavers: Vec<Subscriber> = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        let visitor = Visitor::at(*address);
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

    let calm = context.time(30) / 3;
    let sentry = Sentry::start(&addresses);
    let load = Load::start(&target, &addresses, &[PLAIN, KEPT], RATE);
    last(calm).await;
    let away = Instant::now();
    match absence {
        Absence::Paused => stage.redis()?.pause()?,
        Absence::Killed(_) => stage.redis()?.kill(),
    }
    last(time_away / 2).await;
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
    last(time_away.saturating_sub(away.elapsed())).await;
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
    last(calm.saturating_sub(back.elapsed())).await;
    let outcomes = load.stop().await;
    let later = roll.difference(members.iter(), &everybody).await;

    let mut report = Report::default();
    answers(&mut report, &outcomes, ANSWER);
    let refused = outcomes.iter().filter(|outcome| !outcome.is_accepted()).count();
    report.at_least("publishes refused", 1, refused);
    deliveries(&mut report, &target, &outcomes, &readers).await?;
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
