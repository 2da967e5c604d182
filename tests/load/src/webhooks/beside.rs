//! A fan-out of an app without endpoints, and the same of an app whose endpoint is told of every message.

use anyhow::Result;

use super::config::other;
use super::receiver::Receiver;
use super::stream::PATIENCE_NS;
use crate::fanout::{Traffic, publications_of};
use crate::report::{Meter, Report};
use crate::scenario::{Effort, Fanout};
use crate::target::Target;
use crate::wire::Wire;

/// The two take turns, so that a slow minute of the machine is slow for both.
const TURNS: u32 = 4;

pub(super) fn beside(wire: &mut Wire, target: &Target, shape: Fanout, effort: &Effort) -> Result<Report> {
    let others = other(target);
    let mut without = publications_of(wire, target, shape, effort)?;
    without.rest(wire);
    let mut with = publications_of(wire, &others, shape, effort)?;
    with.rest(wire);
    with.receiver = Some(Receiver::new(shape.channels as usize));
    for traffic in [&mut without, &mut with] {
        turn(wire, target, traffic, shape, effort)?;
        traffic.forget_times();
    }
    let (mut alone, mut told) = (Side::default(), Side::default());
    for _ in 0..TURNS {
        alone.add(&turn(wire, target, &mut without, shape, effort)?);
        told.add(&turn(wire, target, &mut with, shape, effort)?);
    }
    let mut report = told.report;
    without.complete(&mut report);
    let p99_alone = without.latency.quantile(990);
    let answer_alone = without.answers.quantile(990);
    with.complete(&mut report);
    let (p99, answer) = (with.latency.quantile(990), with.answers.quantile(990));
    if let (Some(cpu), Some(alone)) = (report.cpu_us_per_unit, alone.report.cpu_us_per_unit) {
        report.remarks.push(format!(
            "server CPU for a delivery: {alone:.2} µs without webhooks, {cpu:.2} µs with, {:.2} times as much",
            cpu / alone
        ));
    }
    report.remarks.push(format!(
        "deliveries a second: {:.0} without webhooks, {:.0} with",
        alone.report.per_second, report.per_second
    ));
    for (what, without, with) in [
        ("until delivered", p99_alone, p99),
        ("until the publish is answered", answer_alone, answer),
    ] {
        report.remarks.push(format!(
            "p99 {what}: {} µs without webhooks, {} µs with",
            without / 1_000,
            with / 1_000
        ));
    }
    Ok(report)
}

/// Part of a run: publishes for a while, then waits for what endpoints are told of it, which is part of the price.
fn turn(
    wire: &mut Wire,
    target: &Target,
    traffic: &mut Traffic<'_>,
    shape: Fanout,
    effort: &Effort,
) -> Result<Report> {
    traffic.wake(wire)?;
    let before = traffic.ledger.delivered();
    let meter = Meter::start(wire, target)?;
    let (nanoseconds, messages) = (effort.measure_ns() / u64::from(TURNS), effort.max_messages);
    traffic.run(wire, shape.pace, nanoseconds, messages)?;
    let delivered = traffic.ledger.delivered() - before;
    let report = meter.finish(wire, target, delivered, "delivery")?;
    traffic.rest(wire);
    traffic.await_webhooks(wire, PATIENCE_NS)?;
    let whole = meter.finish(wire, target, delivered, "delivery")?;
    Ok(Report {
        cpu_us_per_unit: whole.cpu_us_per_unit,
        ..report
    })
}

/// All turns of one of the two.
#[derive(Default)]
struct Side {
    report: Report,
}

impl Side {
    #[expect(clippy::cast_precision_loss, reason = "figures for people, far below 2^53")]
    fn add(&mut self, turn: &Report) {
        let sum = &mut self.report;
        let (units, seconds) = (sum.units + turn.units, sum.seconds + turn.seconds);
        let cpu = |report: &Report| report.cpu_us_per_unit.unwrap_or(0.0) * report.units as f64;
        let cpu_us = cpu(sum) + cpu(turn);
        let own = sum.generator_load * sum.seconds + turn.generator_load * turn.seconds;
        *sum = Report {
            unit: turn.unit,
            units,
            seconds,
            per_second: units as f64 / seconds,
            cpu_us_per_unit: turn.cpu_us_per_unit.map(|_| cpu_us / units.max(1) as f64),
            generator_load: own / seconds,
            ..Report::default()
        };
    }
}
