//! Real clients: unmodified pusher-js with our helper for recovery, whose connections are cut at random.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use dunlin_load::Target;
use rand::RngExt as _;
use serde_json::Value;
use tokio::time::MissedTickBehavior;

use super::Context;
use crate::client::http::Api;
use crate::report::Report;
use crate::stage::process::Process;
use crate::stage::proxy::{Cut, Proxy};
use crate::stage::{Plan, Stage};
use crate::wait::{last, until};

const PROGRAM: &str = "tests/clients/node/recovery.js";
const CLIENTS: usize = 4;
const CHANNELS: [&str; 2] = ["kept-recovery", "private-kept-recovery"];
/// Over all channels.
const RATE: u32 = 50;
/// Between two cuts, milliseconds. Some are shorter than a client takes to be back.
const CALM: std::ops::Range<u64> = 300..8_000;
/// How long a stall lasts before the cut, milliseconds.
const STALL: std::ops::Range<u64> = 200..3_000;
const SEATING: Duration = Duration::from_secs(30);
const ARRIVAL: Duration = Duration::from_secs(30);

pub(super) async fn play(context: &Context) -> Result<Report> {
    let plan = Plan::cluster(2).history("*", 1000, 120);
    let stage = Stage::start(&context.binary, &context.dir, &plan).await?;
    let target = Rc::new(stage.target());
    let proxy = Proxy::start(stage.addresses()).await?;
    let clients = start_clients(context, &target, &proxy)?;
    let seats = CLIENTS * CHANNELS.len();
    if until(SEATING, || Log::read(&clients).subscriptions >= seats)
        .await
        .is_none()
    {
        bail!(
            "pusher-js did not subscribe; its log ends:\n{}",
            clients.log_tail()
        );
    }

    let time = context.time(600);
    let (published, cuts) = tokio::join!(publish(&target, time), cut(&proxy, time));
    let published = published?;
    let is_complete = |log: &Log| {
        let all = (0..CLIENTS).flat_map(|client| CHANNELS.map(|channel| (client, channel.to_owned())));
        all.into_iter()
            .all(|seat| log.received.get(&seat).and_then(|ids| ids.last()) == published[&seat.1].last())
    };
    until(ARRIVAL, || is_complete(&Log::read(&clients))).await;
    let log = Log::read(&clients);

    let (mut missing, mut repeated, mut misplaced) = (0, 0, 0);
    for client in 0..CLIENTS {
        for channel in CHANNELS {
            let sent = &published[channel];
            let received = log
                .received
                .get(&(client, channel.to_owned()))
                .cloned()
                .unwrap_or_default();
            let mut sorted = received.clone();
            sorted.sort_unstable();
            sorted.dedup();
            missing += sent.iter().filter(|id| sorted.binary_search(id).is_err()).count();
            repeated += received.len() - sorted.len();
            misplaced += received.windows(2).filter(|pair| pair[1] < pair[0]).count();
        }
    }
    let mut report = Report::default();
    let total: usize = published.values().map(Vec::len).sum();
    report.none("events that a client never got", missing);
    report.none("events that a client got twice", repeated);
    report.none("events out of order", misplaced);
    report.none("times that a client was told \"not recovered\"", log.lost);
    report.none("complaints of the clients", log.complaints.len());
    report.at_least(
        "new connections after a cut",
        cuts.max(1),
        log.connections - CLIENTS,
    );
    report.none("panics", stage.panics());
    report.figure(
        "clients",
        format!(
            "{CLIENTS} × pusher-js {}, {} channels each",
            log.version,
            CHANNELS.len()
        ),
    );
    report.figure("events published", total);
    report.figure("cuts", cuts);
    report.figure("times that a client recovered", log.recovered);
    log.complaints
        .into_iter()
        .take(3)
        .for_each(|complaint| report.detail(complaint));
    Ok(report)
}

fn start_clients(context: &Context, target: &Target, proxy: &Proxy) -> Result<Process> {
    let log = context.dir.join("clients.log");
    Process::start(Path::new("node"), &log, |command| {
        command
            .arg(PROGRAM)
            .env("DUNLIN_TEST_HOST", proxy.address.ip().to_string())
            .env("DUNLIN_TEST_PORT", proxy.address.port().to_string())
            .env("DUNLIN_TEST_APP_ID", &target.app_id)
            .env("DUNLIN_TEST_APP_KEY", &target.app_key)
            .env("DUNLIN_TEST_APP_SECRET", &target.app_secret)
            .env("DUNLIN_TEST_CLIENTS", CLIENTS.to_string())
            .env("DUNLIN_TEST_CHANNELS", CHANNELS.join(","));
    })
    .context("is node installed?")
}

/// What the clients print: one JSON object per line.
#[derive(Debug, Default)]
struct Log {
    version: String,
    connections: usize,
    subscriptions: usize,
    recovered: usize,
    lost: usize,
    /// By client and channel.
    received: BTreeMap<(usize, String), Vec<u32>>,
    complaints: Vec<String>,
}

impl Log {
    fn read(clients: &Process) -> Self {
        let mut log = Self::default();
        let text = clients.log();
        // The last line may be on its way.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            if log.enter(line).is_none() {
                log.complaints.push(line.to_owned());
            }
        }
        log
    }

    fn enter(&mut self, line: &str) -> Option<()> {
        let said: Value = serde_json::from_str(line).ok()?;
        match said["what"].as_str()? {
            "version" => said["version"].as_str()?.clone_into(&mut self.version),
            "connected" => self.connections += 1,
            "subscribed" => self.subscriptions += 1,
            "recovered" => self.recovered += 1,
            "lost" => self.lost += 1,
            "event" => {
                let client = usize::try_from(said["client"].as_u64()?).ok()?;
                let id = u32::try_from(said["id"].as_u64()?).ok()?;
                let channel = said["channel"].as_str()?.to_owned();
                self.received.entry((client, channel)).or_default().push(id);
            }
            _ => return None,
        }
        Some(())
    }
}

/// Publishes one event after the other, to both nodes in turn; returns the ids by channel, in their order.
async fn publish(target: &Target, time: Duration) -> Result<BTreeMap<String, Vec<u32>>> {
    let mut apis: Vec<Api> = target
        .nodes
        .iter()
        .map(|node| Api::new(target, node.addr))
        .collect();
    let mut published: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    let mut turn = tokio::time::interval(Duration::from_secs(1) / RATE);
    turn.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let begin = Instant::now();
    for id in 0_u32.. {
        turn.tick().await;
        if begin.elapsed() > time {
            break;
        }
        let number = usize::try_from(id)?;
        let channel = CHANNELS[number / apis.len() % CHANNELS.len()];
        let node = number % apis.len();
        let answer = apis[node].publish(channel, id).await?;
        if answer.status != 200 {
            bail!("a publish was answered with {}", answer.status);
        }
        published.entry(channel.to_owned()).or_default().push(id);
    }
    Ok(published)
}

/// Cuts all connections now and then, in one of three ways; returns how often.
async fn cut(proxy: &Proxy, time: Duration) -> usize {
    let begin = Instant::now();
    let mut cuts = 0;
    loop {
        let pause = Duration::from_millis(rand::rng().random_range(CALM));
        if begin.elapsed() + pause > time {
            return cuts;
        }
        last(pause).await;
        match rand::rng().random_range(0..3) {
            0 => proxy.cut(Cut::End),
            1 => proxy.cut(Cut::Reset),
            _ => {
                proxy.stall();
                last(Duration::from_millis(rand::rng().random_range(STALL))).await;
                proxy.cut(Cut::Reset);
                proxy.heal();
            }
        }
        cuts += 1;
    }
}
