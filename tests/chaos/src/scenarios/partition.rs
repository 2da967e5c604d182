//! One of two nodes is cut off from Redis for 30 s: packets are dropped in both directions.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Context;
use crate::client::audit::{Audit, accepting_again, answers, arrived};
use crate::client::crew::{crew, ends, names, oddities};
use crate::client::load::Load;
use crate::client::roll::Roll;
use crate::client::sentry::Sentry;
use crate::client::subscriber::{Subscriber, Visitor, seated};
use crate::report::{Report, shown};
use crate::stage::{Plan, Stage};
use crate::wait::last;

const PLAIN: &str = "plain";
const KEPT: &str = "kept-partition";
const ROLL: &str = "presence-partition";
const RATE: u32 = 100;
const READERS: usize = 5;
const MEMBERS: usize = 50;
/// Who goes, and who comes, on each node during the partition.
const MOVERS: usize = 10;
/// Users with a connection to either node.
const ON_BOTH: usize = 10;

const ANSWER: Duration = Duration::from_secs(2);
const NOTICE: Duration = Duration::from_secs(3);
const TRAFFIC: Duration = Duration::from_secs(3);
const EXACT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);

const CONNECTED: usize = 0;
const CUT_OFF: usize = 1;

pub(super) async fn play(context: &Context) -> Result<Report> {
    let plan = Plan::cluster(2).proxied(CUT_OFF).history("kept-*", 100_000, 600);
    let stage = Stage::start(&context.binary, &context.dir, &plan).await?;
    let target = Rc::new(stage.target());
    let addresses = stage.addresses();

    let mut readers: Vec<Vec<Subscriber>> = Vec::new();
    let mut members: Vec<Subscriber> = Vec::new();
    let mut leavers: Vec<Subscriber> = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        let visitor = Visitor::at(*address);
        readers.push(
            (0..READERS)
                .map(|_| visitor.clone().on(PLAIN).on(KEPT).start(&target))
                .collect(),
        );
        members.extend(crew(
            &target,
            &visitor,
            ROLL,
            &format!("member-{number}"),
            MEMBERS,
        ));
        members.extend(crew(&target, &visitor, ROLL, "both", ON_BOTH));
        leavers.extend(crew(&target, &visitor, ROLL, &format!("leaver-{number}"), MOVERS));
    }
    for crowd in readers.iter().chain([&members, &leavers]) {
        seated(crowd).await?;
    }

    let sentry = Sentry::start(&addresses);
    let load = Load::start(&target, &addresses, &[PLAIN, KEPT], RATE);
    let partition = context.time(30);
    last(partition / 6).await;
    stage.proxy(CUT_OFF)?.stall();
    let cut = Instant::now();
    last(partition / 2).await;
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
    last(partition.saturating_sub(cut.elapsed())).await;
    stage.proxy(CUT_OFF)?.heal();
    let healed = Instant::now();
    let everybody = names(&[
        ("member-0", MEMBERS),
        ("member-1", MEMBERS),
        ("both", ON_BOTH),
        ("comer-0", MOVERS),
        ("comer-1", MOVERS),
    ]);
    let roll = Roll {
        target: &target,
        channel: ROLL,
        nodes: &addresses,
    };
    let exact = roll.exact(members.iter(), &everybody, PATIENCE).await;
    last(TRAFFIC.saturating_sub(healed.elapsed())).await;
    let outcomes = load.stop().await;
    let later = roll.difference(members.iter(), &everybody).await;

    let mut report = Report::default();
    report.within(
        "both nodes and all who watch agree, once healed",
        EXACT,
        exact.as_ref().ok().copied(),
    );
    report.within(
        "the node that is cut off is not ready",
        NOTICE,
        sentry.first(CUT_OFF, cut, false),
    );
    let unready = sentry.count(CONNECTED, (cut, healed), false);
    report.none("looks at the other node that found it not ready", unready);
    report.within(
        "ready again once healed, both nodes",
        TRAFFIC,
        sentry.all(healed, true),
    );
    report.within(
        "publishes accepted again, both nodes",
        TRAFFIC,
        accepting_again(&outcomes, addresses.len(), healed),
    );
    answers(&mut report, &outcomes, ANSWER);
    let refused =
        |outcome: &&crate::client::load::Outcome| outcome.node == CONNECTED && !outcome.is_accepted();
    report.none(
        "publishes refused by the other node",
        outcomes.iter().filter(refused).count(),
    );
    for (index, channel, which) in [(0, PLAIN, "without"), (1, KEPT, "with")] {
        let audit = Audit {
            outcomes: &outcomes,
            index,
            channel,
        };
        for (node, where_to) in [
            (CONNECTED, "on the other node"),
            (CUT_OFF, "on the node that was cut off"),
        ] {
            let on_node: Vec<&Subscriber> = readers[node].iter().collect();
            arrived(|| !audit.missing(&on_node).is_empty()).await;
            let lost = audit.missing(&on_node).len();
            let what = format!("deliveries {which} history {where_to} that never came");
            if node == CUT_OFF && channel == PLAIN {
                // Nothing is promised without history to those whom the cluster cannot reach.
                report.figure(what, lost);
            } else {
                report.none(what, lost);
            }
            report.none(
                format!("deliveries {which} history {where_to} that came twice"),
                audit.repeated(&on_node),
            );
        }
    }
    let all = || readers.iter().flatten().chain(&members);
    report.none("connections that ended", ends(all()));
    let odd = oddities(all());
    report.none("messages that contradict those before", odd.len());
    report.none("panics", stage.panics());
    report.figure("partition", shown(healed - cut));
    report.none("differences in presence in the end", usize::from(later.is_some()));
    exact
        .err()
        .into_iter()
        .chain(later)
        .for_each(|difference| report.detail(difference));
    odd.into_iter().take(3).for_each(|message| report.detail(message));
    Ok(report)
}
