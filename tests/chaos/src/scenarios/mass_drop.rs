//! A crowd is gone at the same moment, as when a mobile network goes down; meanwhile others come.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use dunlin_load::Target;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::Context;
use crate::client::http::Api;
use crate::client::subscriber::{Visitor, seated};
use crate::report::Report;
use crate::stage::Stage;
use crate::stage::process::Process;
use crate::wait::{last, until};

const CROWD: usize = 10_000;
/// Of the crowd in one presence channel, each a user of its own.
const ROOM: usize = 20;
const SEATING: Duration = Duration::from_mins(2);
const NEWCOMERS_PER_SECOND: u32 = 50;
const PATIENCE: Duration = Duration::from_secs(20);
const BOUND: Duration = Duration::from_millis(500);
/// How long the platform may take to know that all are gone.
const FORGETTING: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(200);
/// What the process with the crowd says once everybody is subscribed.
const SEATED: &str = "seated";

pub(super) async fn play(context: &Context) -> Result<Report> {
    let stage = Stage::start(&context.binary, &context.dir, &context.nodes()).await?;
    let target = Rc::new(stage.target());
    let addresses = stage.addresses();
    let mut crowd = start_crowd(context, &target, &addresses).await?;

    let calm = newcomers(&target, &addresses, context.time(10), "calm").await?;
    crowd.kill();
    let (storm, forgotten) = tokio::join!(
        newcomers(&target, &addresses, context.time(10), "storm"),
        forgotten(&target, addresses[0])
    );
    let storm = storm?;

    let mut report = Report::default();
    report.within("connect and subscribe meanwhile, p99", BOUND, storm.quantile(99));
    report.none("newcomers that were not subscribed", storm.failed + calm.failed);
    report.within(
        "nobody of the crowd is left in any channel",
        FORGETTING,
        forgotten,
    );
    report.none("panics", stage.panics());
    report.figure("sockets that dropped", CROWD);
    report.figure("nodes", addresses.len());
    for (what, times) in [("before the drop", &calm), ("after the drop", &storm)] {
        let shown = |percent| {
            times
                .quantile(percent)
                .map_or("never".to_owned(), crate::report::shown)
        };
        report.figure(
            format!(
                "connect and subscribe {what}: median, p99, slowest of {}",
                times.taken.len()
            ),
            format!("{}, {}, {}", shown(50), shown(99), shown(100)),
        );
    }
    Ok(report)
}

/// The crowd is a process of its own, so that one signal ends all its connections.
async fn start_crowd(context: &Context, target: &Target, addresses: &[SocketAddr]) -> Result<Process> {
    let program = std::env::current_exe().context("this program does not know its own file")?;
    let log = context.dir.join("crowd.log");
    let mut crowd = Process::start(&program, &log, |command| {
        command
            .args(["crowd", &target.app_id, &target.app_key, &target.app_secret])
            .args(addresses.iter().map(SocketAddr::to_string));
    })?;
    let seated = until(SEATING, || {
        crowd.log().contains(SEATED) || crowd.status().is_some()
    });
    let seated = seated.await.is_some();
    if !seated || crowd.status().is_some() {
        bail!("the crowd did not find its seats:\n{}", crowd.log_tail());
    }
    Ok(crowd)
}

/// The process with the crowd: seats it, says so, and stays until it is killed.
///
/// # Errors
/// Not everybody finds a seat.
pub(crate) async fn crowd(target: Target, say: impl FnOnce(&str)) -> Result<()> {
    let target = Rc::new(target);
    let mut subscribers = Vec::new();
    for number in 0..CROWD {
        let node = target.nodes[number % target.nodes.len()];
        let room = format!("presence-crowd-{}", number / ROOM);
        let visitor = Visitor::at(node.addr).on_as(&room, &format!("user-{number}"));
        subscribers.push(visitor.on("crowd").start(&target));
        // Few enough at a time for any listen queue.
        if subscribers.len().is_multiple_of(200) {
            seated(&subscribers[subscribers.len() - 200..]).await?;
        }
    }
    seated(&subscribers).await?;
    say(SEATED);
    std::future::pending().await
}

/// How long it takes until no channel of the crowd is occupied. Asks seldom: what is measured meanwhile is something else.
async fn forgotten(target: &Target, address: SocketAddr) -> Option<Duration> {
    let mut api = Api::new(target, address);
    let begin = Instant::now();
    let query = [("filter_by_prefix", "presence-crowd-")];
    while begin.elapsed() < 2 * FORGETTING {
        last(LOOK).await;
        let answer = api.read("/channels", &query).await.ok();
        if answer.is_some_and(|answer| {
            answer["channels"]
                .as_object()
                .is_some_and(serde_json::Map::is_empty)
        }) {
            return Some(begin.elapsed());
        }
    }
    None
}

#[derive(Debug, Default)]
struct Times {
    /// In order.
    taken: Vec<Duration>,
    failed: usize,
}

impl Times {
    fn quantile(&self, percent: usize) -> Option<Duration> {
        let place = (self.taken.len() * percent).div_ceil(100).max(1) - 1;
        self.taken.get(place).copied()
    }
}

/// Newcomers at a fixed rate, each measured from its first packet until it is subscribed.
async fn newcomers(
    target: &Rc<Target>,
    addresses: &[SocketAddr],
    time: Duration,
    name: &str,
) -> Result<Times> {
    let mut turn = tokio::time::interval(Duration::from_secs(1) / NEWCOMERS_PER_SECOND);
    turn.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let begin = Instant::now();
    let mut coming = JoinSet::new();
    let mut number = 0_usize;
    while begin.elapsed() < time {
        turn.tick().await;
        let channel = format!("presence-{name}-{}", number % ROOM);
        let visitor =
            Visitor::at(addresses[number % addresses.len()]).on_as(&channel, &format!("new-{number}"));
        let target = Rc::clone(target);
        coming.spawn_local(async move {
            let begin = Instant::now();
            let newcomer = visitor.once().start(&target);
            until(PATIENCE, || newcomer.is_seated())
                .await
                .map(|_| begin.elapsed())
        });
        number += 1;
    }
    let mut times = Times::default();
    for taken in coming.join_all().await {
        match taken {
            Some(taken) => times.taken.push(taken),
            None => times.failed += 1,
        }
    }
    times.taken.sort_unstable();
    Ok(times)
}
