//! How many events a second, at what price, and how late.

use anyhow::Result;

use super::stream::{Stream, Traffic};
use crate::payload::PAYLOAD_BYTES;
use crate::process::ThreadTimes;
use crate::report::{Meter, Report};
use crate::scenario::{Effort, Pace};
use crate::target::Target;
use crate::wire::Wire;

/// Messages of a publish at full speed: what is measured is the way behind the outbox, not the HTTP API.
const AT_ONCE: usize = 10;

pub(super) fn steady(wire: &mut Wire, target: &Target, pace: Pace, effort: &Effort) -> Result<Report> {
    let at_once = match pace {
        Pace::FullSpeed => AT_ONCE,
        Pace::PerSecond(_) => 1,
    };
    let stream = Stream::open(wire, target, at_once, PAYLOAD_BYTES)?;
    let mut traffic = Traffic::new(vec![stream]);
    traffic.streams[0].start(wire, pace);
    // Until the first deliveries have found their way, connections included.
    traffic.run(wire, effort.warm_up_ns().max(2_000_000_000))?;
    traffic.receiver().lag.clear();
    let before = traffic.receiver().received();
    let threads = ThreadTimes::take(target);
    let meter = Meter::start(wire, target)?;
    traffic.run(wire, 2 * effort.measure_ns())?;
    let received = traffic.receiver().received() - before;
    let mut report = meter.finish(wire, target, received, "event")?;
    report.remarks.extend(threads.since(target, received, "event"));
    report.latency = traffic.receiver().lag.latency();
    traffic.finish(wire)?;
    traffic.receiver().complete(&mut report);
    Ok(report)
}
