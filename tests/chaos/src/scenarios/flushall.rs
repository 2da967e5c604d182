//! Redis loses everything: by `FLUSHALL`, and by a crash without a copy on disk.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Context;
use crate::client::crew::{crew, ends, names, oddities};
use crate::client::load::Load;
use crate::client::record::Seen;
use crate::client::roll::Roll;
use crate::client::subscriber::{Subscriber, Visitor, seated};
use crate::report::Report;
use crate::stage::proxy::{Cut, Proxy};
use crate::stage::redis::Data;
use crate::stage::{Plan, Stage};
use crate::wait::{last, until};

const KEPT: &str = "kept-flushed";
const ROLL: &str = "presence-flushed";
const MEMBERS: usize = 100;
const READERS: usize = 5;
const RATE: u32 = 50;
const EXACT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(20);
/// From the loss until everybody on a channel has heard an event of the new epoch.
const TOLD: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Flushed,
    Crashed,
}

pub(super) async fn play(context: &Context) -> Result<Report> {
    let mut report = Report::default();
    for (name, loss) in [("flushed", Loss::Flushed), ("crashed", Loss::Crashed)] {
        report.absorb(name, once(context, name, loss).await?);
    }
    Ok(report)
}

async fn once(context: &Context, name: &str, loss: Loss) -> Result<Report> {
    let plan = Plan::cluster(2).history("kept-*", 1000, 120);
    let mut stage = Stage::start(&context.binary, &context.dir.join(name), &plan).await?;
    let target = Rc::new(stage.target());
    let addresses = stage.addresses();
    // Those who come back with a position of before the loss.
    let proxy = Proxy::start(addresses.clone()).await?;
    let resuming: Vec<Subscriber> = (0..READERS)
        .map(|_| Visitor::at(proxy.address).on(KEPT).resumes().start(&target))
        .collect();
    let mut readers: Vec<Subscriber> = Vec::new();
    let mut members: Vec<Subscriber> = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        let visitor = Visitor::at(*address);
        readers.extend((0..READERS).map(|_| visitor.clone().on(KEPT).start(&target)));
        members.extend(crew(
            &target,
            &visitor,
            ROLL,
            &format!("member-{number}"),
            MEMBERS,
        ));
    }
    for crowd in [&resuming, &readers, &members] {
        seated(crowd).await?;
    }
    let load = Load::start(&target, &addresses, &[KEPT], RATE);
    last(context.time(6) / 2).await;

    proxy.stall();
    let lost = Instant::now();
    match loss {
        Loss::Flushed => stage.redis()?.ask::<()>(&["FLUSHALL"])?,
        Loss::Crashed => {
            stage.redis()?.kill();
            stage.redis()?.restart(Data::Lost).await?;
        }
    }
    let everybody = names(&[("member-0", MEMBERS), ("member-1", MEMBERS)]);
    let roll = Roll {
        target: &target,
        channel: ROLL,
        nodes: &addresses,
    };
    let exact = roll.exact(members.iter(), &everybody, PATIENCE).await;
    let knows = |reader: &Subscriber| reader.channel(KEPT).epochs.len() > 1;
    let told = until(PATIENCE, || readers.iter().all(knows))
        .await
        .map(|_| lost.elapsed());
    // In this order: what waits in the proxy tells of the new epoch.
    proxy.cut(Cut::Reset);
    proxy.heal();
    let broken = |reader: &Subscriber| reader.channel(KEPT).log.contains(&Seen::Broken);
    until(PATIENCE, || resuming.iter().all(broken)).await;
    last(context.time(6) / 2).await;
    let outcomes = load.stop().await;
    let later = roll.difference(members.iter(), &everybody).await;

    let mut report = Report::default();
    report.within("presence exact", EXACT, exact.as_ref().ok().copied());
    report.within("everybody on the channel told of the new epoch", TOLD, told);
    report.none(
        "clients with a position of before that were not told \"not recovered\"",
        resuming.iter().filter(|one| !broken(one)).count(),
    );
    let recovered = |one: &&Subscriber| one.channel(KEPT).log.contains(&Seen::Recovered);
    report.none(
        "clients that were told \"recovered\"",
        resuming.iter().filter(recovered).count(),
    );
    report.none("connections that ended", ends(readers.iter().chain(&members)));
    let odd = oddities(readers.iter().chain(&members).chain(&resuming));
    report.none("messages that contradict those before", odd.len());
    report.none("panics", stage.panics());
    report.figure("publishes", crate::client::load::tally(&outcomes));
    report.none("differences in presence in the end", usize::from(later.is_some()));
    exact
        .err()
        .into_iter()
        .chain(later)
        .for_each(|difference| report.detail(difference));
    odd.into_iter().take(3).for_each(|message| report.detail(message));
    Ok(report)
}
