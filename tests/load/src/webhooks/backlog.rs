//! Events that queue up while their receiver does not answer, and what the server holds of them.

use anyhow::Result;

use super::stream::{PATIENCE_NS, Stream, Traffic};
use crate::process::resident_kib;
use crate::report::{Meter, Report};
use crate::scenario::{Backlog, Pace};
use crate::target::Target;
use crate::wire::Wire;

/// Messages of a publish.
const AT_ONCE: usize = 10;
/// Nothing but the stamp.
const PAYLOAD_BYTES: usize = 0;
/// How often memory is read.
const SLICE_NS: u64 = 250_000_000;
/// After the last publish: the longest wait in a batch, and time to store it.
const SETTLE_NS: u64 = 3_000_000_000;
/// While the backlog is sent, memory may grow by this share of what it was before.
const GROWTH_PERCENT: u64 = 25;

pub(super) fn backlog(wire: &mut Wire, target: &Target, shape: Backlog) -> Result<Report> {
    let stream = Stream::open(wire, target, AT_ONCE, PAYLOAD_BYTES)?;
    let mut traffic = Traffic::new(vec![stream]);
    traffic.receiver().hold();
    let start_kib = resident_kib(target)?;
    let mut filling = Peak::default();
    traffic.streams[0].start(wire, Pace::PerSecond(shape.per_second));
    while traffic.streams[0].published() < u64::from(shape.events) {
        traffic.run(wire, SLICE_NS)?;
        filling.see(target)?;
    }
    traffic.streams[0].stop();
    traffic.run(wire, SETTLE_NS)?;
    filling.see(target)?;
    let queued_kib = resident_kib(target)?;
    let held = traffic.receiver().held();
    let waiting = traffic.receiver().unfinished();

    let before = traffic.receiver().received();
    let meter = Meter::start(wire, target)?;
    traffic.receiver().let_go(wire)?;
    let mut draining = Peak::default();
    let mut seen_at = wire.now();
    while traffic.receiver().unfinished() > 0 && wire.now() < seen_at + PATIENCE_NS {
        traffic.run(wire, SLICE_NS)?;
        draining.see(target)?;
        seen_at = seen_at.max(traffic.receiver().last_at);
    }
    let received = traffic.receiver().received() - before;
    let mut report = meter.finish(wire, target, received, "event")?;
    traffic.finish(wire)?;
    traffic.receiver().complete(&mut report);
    report.remarks.push(format!(
        "{waiting} events waited, with {held} requests kept without an answer meanwhile"
    ));
    if let (Some(start), Some(queued), Some(end)) = (start_kib, queued_kib, resident_kib(target)?) {
        report.remarks.push(format!(
            "memory in RAM: {start} KiB at the start, {} KiB at most while they queued up, {queued} KiB when all did, \
             {} KiB at most while they were sent, {end} KiB at the end",
            filling.kib, draining.kib
        ));
        if draining.kib > queued + queued * GROWTH_PERCENT / 100 {
            report
                .faults
                .push("the memory grew while the backlog was sent".into());
        }
    }
    Ok(report)
}

/// The most memory that was seen.
#[derive(Default)]
struct Peak {
    kib: u64,
}

impl Peak {
    fn see(&mut self, target: &Target) -> Result<()> {
        self.kib = self.kib.max(resident_kib(target)?.unwrap_or(0));
        Ok(())
    }
}
