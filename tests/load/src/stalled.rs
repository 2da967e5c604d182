//! Subscribers that stop reading, and whether the others feel it.

use std::time::Duration;

use anyhow::Result;

use crate::fanout::{CHANNEL, Source, Traffic};
use crate::gather::{Seat, gather};
use crate::process::private_kib;
use crate::publishers::Publishers;
use crate::report::{Meter, Report};
use crate::scenario::{Effort, Pace, nanoseconds};
use crate::target::Target;
use crate::wire::{End, Wire};

/// Small enough that the server soon feels that nobody reads.
const RECEIVE_BUFFER: usize = 64 * 1024;
const LANES: usize = 8;
const SLICE_NS: u64 = 1_000_000_000;
/// How long stalled readers, reading again, are given to reach the end of what was queued for them.
const DRAIN_NS: u64 = 10_000_000_000;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) healthy: u32,
    pub(crate) stalled: u32,
    pub(crate) payload_bytes: usize,
    pub(crate) per_second: u32,
    pub(crate) before: Duration,
    pub(crate) during: Duration,
}

/// Close codes after which a client reconnects by itself (Pusher protocol docs: 4100 to 4299).
fn is_retryable(end: End) -> bool {
    matches!(end, End::Closed(4100..=4299))
}

pub(crate) fn stall(wire: &mut Wire, target: &Target, shape: Shape, effort: &Effort) -> Result<Report> {
    let (healthy, all) = (shape.healthy as usize, (shape.healthy + shape.stalled) as usize);
    let seats: Vec<Seat> = (0..all)
        .map(|place| Seat {
            node: place % target.nodes.len(),
            channel: Some(CHANNEL.into()),
            receive_buffer: (place >= healthy).then_some(RECEIVE_BUFFER),
        })
        .collect();
    let crowd = gather(wire, target, &seats)?;
    let publishers = Publishers::open(wire, target, LANES)?;
    let mut traffic = Traffic::new(
        Source::Http(Box::new(publishers)),
        vec![CHANNEL.into()],
        32,
        effort,
    );
    traffic.payload_bytes = shape.payload_bytes;
    for (place, id) in crowd.ids.iter().enumerate() {
        if place < healthy {
            traffic.watch(*id, 0);
        } else {
            traffic.bystanders.set(*id, place);
        }
    }

    let pace = Pace::PerSecond(shape.per_second);
    traffic.run(wire, pace, SLICE_NS, u64::MAX)?;
    traffic.forget_times();
    traffic.run(wire, pace, nanoseconds(shape.before), u64::MAX)?;
    let p99_before = traffic.latency.quantile(990);
    traffic.forget_times();

    for id in &crowd.ids[healthy..] {
        wire.pause(*id)?;
    }
    let start_kib = private_kib(target)?;
    let mut peak_kib = start_kib;
    let delivered = traffic.ledger.delivered();
    let meter = Meter::start(wire, target)?;
    let until = wire.tick() + nanoseconds(shape.during);
    while wire.now() < until {
        traffic.run(wire, pace, SLICE_NS.min(until - wire.now()), u64::MAX)?;
        peak_kib = peak_kib.max(private_kib(target)?);
    }
    let mut report = meter.finish(wire, target, traffic.ledger.delivered() - delivered, "delivery")?;
    traffic.complete(&mut report);
    let p99_during = traffic.latency.quantile(990);

    for id in &crowd.ids[healthy..] {
        wire.resume(*id)?;
    }
    let end = wire.tick() + DRAIN_NS;
    while wire.now() < end && traffic.bystander_ends.values().sum::<u32>() < shape.stalled {
        wire.turn(&mut traffic, end)?;
    }

    report.remarks.push(format!(
        "p99 of the healthy: {} µs before the stall, {} µs during it",
        p99_before / 1_000,
        p99_during / 1_000
    ));
    if let (Some(start), Some(peak)) = (start_kib, peak_kib) {
        report.remarks.push(format!(
            "private memory: {start} KiB before the stall, {peak} KiB at most during it, {} KiB per stalled reader",
            peak.saturating_sub(start) / u64::from(shape.stalled.max(1))
        ));
    }
    let mut open = shape.stalled;
    for (end, count) in &traffic.bystander_ends {
        open -= count;
        let text = format!("{count} stalled readers ended: {end}");
        if is_retryable(*end) {
            report.remarks.push(text);
        } else {
            report.faults.push(text);
        }
    }
    if open > 0 {
        report
            .faults
            .push(format!("{open} stalled readers were still open at the end"));
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_reconnect_codes_are_retryable() {
        for (end, expected) in [
            (End::Closed(4100), true),
            (End::Closed(4200), true),
            (End::Closed(4299), true),
            (End::Closed(4009), false),
            (End::Closed(4301), false),
            (End::Closed(1008), false),
            (End::Cut, false),
            (End::Reset, false),
        ] {
            assert_eq!(is_retryable(end), expected, "{end}");
        }
    }
}
