//! A node is killed with 1,000 members of a channel that is watched from the other node.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Context;
use crate::client::crew::{crew, ends, names, oddities, wrong_moves};
use crate::client::roll::Roll;
use crate::client::subscriber::{Visitor, seated};
use crate::report::{Report, shown};
use crate::stage::{Plan, Stage};
use crate::wait::{last, until};

const CHANNEL: &str = "presence-kill";
const MEMBERS: usize = 1_000;
/// Users with a connection to either node: they stay.
const ON_BOTH: usize = 50;
const WATCHERS: usize = 3;
const BOUND: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);
/// The settle window of webhooks, and the turn of whoever ends it.
const SETTLING: Duration = Duration::from_secs(10);
/// Long enough for a second announcement, if there were one.
const AFTERMATH: Duration = Duration::from_secs(5);

pub(super) async fn play(context: &Context) -> Result<Report> {
    let plan = Plan::cluster(2).told();
    let mut stage = Stage::start(&context.binary, &context.dir, &plan).await?;
    let target = Rc::new(stage.target());
    let addresses = stage.addresses();
    let (stays, dies) = (Visitor::at(addresses[0]), Visitor::at(addresses[1]).once());

    let mut watchers = crew(&target, &stays, CHANNEL, "watcher", WATCHERS);
    watchers.extend(crew(&target, &stays, CHANNEL, "both", ON_BOTH));
    seated(&watchers).await?;
    let mut members = crew(&target, &dies, CHANNEL, "both", ON_BOTH);
    members.extend(crew(&target, &dies, CHANNEL, "member", MEMBERS));
    seated(&members).await?;
    let roll = Roll {
        target: &target,
        channel: CHANNEL,
        nodes: &addresses[..1],
    };
    let everybody = names(&[("watcher", WATCHERS), ("both", ON_BOTH), ("member", MEMBERS)]);
    roll.exact(watchers.iter(), &everybody, BOUND)
        .await
        .map_err(|difference| anyhow::anyhow!("before anything happened, {difference}"))?;

    stage.nodes[1].kill();
    let killed = Instant::now();
    let remaining = names(&[("watcher", WATCHERS), ("both", ON_BOTH)]);
    let converged = roll.exact(watchers.iter(), &remaining, PATIENCE).await;
    let gone = names(&[("member", MEMBERS)]);
    let redis = stage.redis()?;
    let told = || redis.told(CHANNEL, "member_removed");
    until(SETTLING, || told().is_ok_and(|told| told.len() >= MEMBERS)).await;
    last(AFTERMATH).await;
    let webhooks = told()?;
    let vacated = redis.told(CHANNEL, "channel_vacated")?.len();

    let moments = || {
        let of = |watcher: &_| moments_of(watcher, killed);
        watchers.iter().flat_map(of).collect::<Vec<Duration>>()
    };
    let mut report = Report::default();
    report.within(
        format!("all {MEMBERS} removals told to those who watch"),
        BOUND,
        converged.as_ref().ok().and(moments().into_iter().max()),
    );
    report.within(
        "the users endpoint is right",
        BOUND,
        converged.as_ref().ok().copied(),
    );
    report.none(
        "users not told as removed exactly once, over all who watch",
        wrong_moves(watchers.iter(), CHANNEL, killed, &gone, (0, 1)),
    );
    let wrong = gone.iter().filter(|user| webhooks.get(*user) != Some(&1)).count();
    let others = webhooks.keys().filter(|user| !gone.contains(*user)).count();
    report.none(
        "users not noted as removed exactly once for webhooks",
        wrong + others,
    );
    report.none("times that the channel was noted as vacated", vacated);
    report.none("connections to the other node that ended", ends(watchers.iter()));
    let odd = oddities(watchers.iter());
    report.none("messages that contradict those before", odd.len());
    report.none("panics", stage.panics());
    report.figure(
        "the first removal told after",
        moments().into_iter().min().map_or("–".to_owned(), shown),
    );
    report.figure("users on both nodes, who stayed", ON_BOTH);
    odd.into_iter().take(3).for_each(|message| report.detail(message));
    if let Err(difference) = converged {
        report.detail(difference);
    }
    Ok(report)
}

/// When a watcher was told of a member's coming or going.
fn moments_of(watcher: &crate::client::subscriber::Subscriber, since: Instant) -> Vec<Duration> {
    let channel = watcher.channel(CHANNEL);
    let moves = channel.moves.iter().filter(|change| change.at > since);
    moves.map(|change| change.at - since).collect()
}
