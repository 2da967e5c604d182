//! A node stops executing for 20 s with all its connections open, and goes on: a machine that swaps, or is moved.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Context;
use crate::client::crew::{crew, ends, names, oddities, wrong_moves};
use crate::client::roll::Roll;
use crate::client::subscriber::{Visitor, seated};
use crate::report::Report;
use crate::stage::{Plan, Stage};
use crate::wait::last;

const CHANNEL: &str = "presence-pause";
const MEMBERS: usize = 200;
/// Users with a connection to either node: they stay.
const ON_BOTH: usize = 20;
const WATCHERS: usize = 3;
const BOUND: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than the settle window of webhooks.
const AFTERMATH: Duration = Duration::from_secs(6);

pub(super) async fn play(context: &Context) -> Result<Report> {
    let plan = Plan::cluster(2).told();
    let mut stage = Stage::start(&context.binary, &context.dir, &plan).await?;
    let target = Rc::new(stage.target());
    let addresses = stage.addresses();
    let (stays, pauses) = (Visitor::at(addresses[0]), Visitor::at(addresses[1]));

    let mut watchers = crew(&target, &stays, CHANNEL, "watcher", WATCHERS);
    watchers.extend(crew(&target, &stays, CHANNEL, "both", ON_BOTH));
    let mut members = crew(&target, &pauses, CHANNEL, "both", ON_BOTH);
    members.extend(crew(&target, &pauses, CHANNEL, "member", MEMBERS));
    seated(&watchers).await?;
    seated(&members).await?;
    let everybody = names(&[("watcher", WATCHERS), ("both", ON_BOTH), ("member", MEMBERS)]);
    let (here, everywhere) = (&addresses[..1], &addresses[..]);
    let roll = |nodes| Roll {
        target: &target,
        channel: CHANNEL,
        nodes,
    };
    roll(everywhere)
        .exact(watchers.iter().chain(&members), &everybody, BOUND)
        .await
        .map_err(|difference| anyhow::anyhow!("before anything happened, {difference}"))?;

    let pause = context.time(20);
    let paused = Instant::now();
    stage.nodes[1].pause()?;
    let remaining = names(&[("watcher", WATCHERS), ("both", ON_BOTH)]);
    let gone = roll(here).exact(watchers.iter(), &remaining, pause).await;
    last(pause.saturating_sub(paused.elapsed())).await;
    let resumed = Instant::now();
    stage.nodes[1].resume()?;
    let back = roll(everywhere)
        .exact(watchers.iter().chain(&members), &everybody, PATIENCE)
        .await;
    last(AFTERMATH).await;
    let later = roll(everywhere)
        .difference(watchers.iter().chain(&members), &everybody)
        .await;

    let absent = names(&[("member", MEMBERS)]);
    let redis = stage.redis()?;
    let mut report = Report::default();
    report.within(
        "members of the paused node gone",
        BOUND,
        gone.as_ref().ok().copied(),
    );
    report.within(
        "everybody agrees again once it goes on",
        BOUND,
        back.as_ref().ok().copied(),
    );
    report.none(
        "users not told as removed once and added once, over all who watch",
        wrong_moves(watchers.iter(), CHANNEL, paused, &absent, (1, 1)),
    );
    for (event, times) in [("member_removed", 1), ("member_added", 2)] {
        let told = redis.told(CHANNEL, event)?;
        let wrong = absent
            .iter()
            .filter(|user| told.get(*user) != Some(&times))
            .count();
        report.none(format!("users without {times} × {event} for webhooks"), wrong);
    }
    let odd = oddities(watchers.iter().chain(&members));
    report.none("messages that contradict those before", odd.len());
    report.none("connections to the other node that ended", ends(watchers.iter()));
    report.none("connections to the paused node that ended", ends(members.iter()));
    report.none("panics", stage.panics());
    report.figure("pause", crate::report::shown(resumed - paused));
    report.figure("users on both nodes, who stayed", ON_BOTH);
    report.none("differences in presence in the end", usize::from(later.is_some()));
    let differences = [gone, back].into_iter().filter_map(Result::err).chain(later);
    differences.for_each(|difference| report.detail(difference));
    odd.into_iter().take(3).for_each(|message| report.detail(message));
    Ok(report)
}
