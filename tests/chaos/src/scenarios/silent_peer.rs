//! Peers fall silent without an end: their packets are dropped in both directions.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;

use super::Context;
use crate::client::roll::Roll;
use crate::client::subscriber::{Subscriber, Visitor, seated};
use crate::report::Report;
use crate::stage::Stage;
use crate::stage::proxy::Proxy;

const CHANNEL: &str = "presence-silent";
const SILENT: usize = 200;
const ACTIVITY_S: u64 = 5;
const PONG_S: u64 = 5;
/// What is promised for these timeouts.
const BOUND: Duration = Duration::from_secs(15);

pub(super) async fn play(context: &Context) -> Result<Report> {
    let plan = context.nodes().config(&format!(
        "[sockets]\nactivity_timeout_s = {ACTIVITY_S}\npong_timeout_s = {PONG_S}"
    ));
    let stage = Stage::start(&context.binary, &context.dir, &plan).await?;
    let target = Rc::new(stage.target());
    let addresses = stage.addresses();
    // The silent ones are on the last node, those who watch on all.
    let proxy = Proxy::start(vec![addresses[addresses.len() - 1]]).await?;
    let silent: Vec<Subscriber> = (0..SILENT)
        .map(|number| {
            let visitor = Visitor::at(proxy.address).on_as(CHANNEL, &format!("silent-{number:03}"));
            visitor.once().start(&target)
        })
        .collect();
    let names: BTreeSet<String> = (0..addresses.len())
        .map(|number| format!("watcher-{number}"))
        .collect();
    let watchers: Vec<Subscriber> = names
        .iter()
        .zip(&addresses)
        .map(|(name, address)| Visitor::at(*address).on_as(CHANNEL, name).start(&target))
        .collect();
    seated(&silent).await?;
    seated(&watchers).await?;

    proxy.stall();
    let roll = Roll {
        target: &target,
        channel: CHANNEL,
        nodes: &addresses,
    };
    let gone = roll
        .exact(watchers.iter(), &names, BOUND + Duration::from_secs(5))
        .await;

    let mut report = Report::default();
    let took = gone.as_ref().ok().copied();
    report.within(format!("{SILENT} silent members removed everywhere"), BOUND, took);
    let ends: usize = watchers.iter().map(|one| one.record().ends.len()).sum();
    report.none("connections of the others that ended", ends);
    let odd: usize = watchers.iter().map(|one| one.record().oddities.len()).sum();
    report.none("announcements that contradict those before", odd);
    report.none("panics", stage.panics());
    report.figure(
        "activity timeout + pong timeout",
        format!("{ACTIVITY_S} s + {PONG_S} s"),
    );
    report.figure("nodes", addresses.len());
    if let Err(difference) = gone {
        report.detail(difference);
    }
    Ok(report)
}
