//! One app's endpoint alone, and beside those of another app that never answer.

use anyhow::Result;

use super::config::other;
use super::stream::{Stream, Traffic};
use crate::histogram::Histogram;
use crate::payload::PAYLOAD_BYTES;
use crate::report::{Meter, Report};
use crate::scenario::{Fair, Pace, nanoseconds};
use crate::target::Target;
use crate::wire::Wire;

const WARM_UP_NS: u64 = 3_000_000_000;
/// Beside the others, its p99 may be so many times what it is alone.
const ALLOWED: u64 = 2;

pub(super) fn fair(wire: &mut Wire, target: &Target, shape: Fair) -> Result<Report> {
    let others = other(target);
    let healthy = Stream::open(wire, target, 1, PAYLOAD_BYTES)?;
    let others = Stream::for_holes(wire, &others, shape.holes, PAYLOAD_BYTES)?;
    let mut traffic = Traffic::new(vec![healthy, others]);

    traffic.streams[0].start(wire, Pace::PerSecond(shape.per_second));
    traffic.run(wire, WARM_UP_NS)?;
    traffic.receiver().lag.clear();
    traffic.run(wire, nanoseconds(shape.alone))?;
    let alone = Quantiles::of(&traffic.receiver().lag);
    traffic.receiver().lag.clear();

    let before = traffic.receiver().received();
    let meter = Meter::start(wire, target)?;
    traffic.streams[1].start(wire, Pace::PerSecond(shape.holes * shape.others_per_second));
    traffic.run(wire, nanoseconds(shape.beside))?;
    let received = traffic.receiver().received() - before;
    let mut report = meter.finish(wire, target, received, "event")?;
    let beside = Quantiles::of(&traffic.receiver().lag);
    report.latency = traffic.receiver().lag.latency();
    let unanswered = traffic.unanswered;
    traffic.finish(wire)?;
    traffic.receiver().complete(&mut report);
    report.remarks.push(format!(
        "lag alone: p50 {} µs, p99 {} µs; beside {} endpoints that never answer: p50 {} µs, p99 {} µs, {:.2} × p99 alone",
        alone.p50_us,
        alone.p99_us,
        shape.holes,
        beside.p50_us,
        beside.p99_us,
        ratio(beside.p99_us, alone.p99_us),
    ));
    report.remarks.push(format!(
        "those others had {} events each, and left {unanswered} requests without an answer",
        traffic.streams[1].published() / u64::from(shape.holes.max(1))
    ));
    if unanswered == 0 {
        report.faults.push("nobody asked the others".into());
    }
    if beside.p99_us >= ALLOWED * alone.p99_us {
        report.faults.push(format!(
            "beside the others the p99 is {ALLOWED} × that alone, or more"
        ));
    }
    Ok(report)
}

struct Quantiles {
    p50_us: u64,
    p99_us: u64,
}

impl Quantiles {
    fn of(lag: &Histogram) -> Self {
        Self {
            p50_us: lag.quantile(500) / 1_000,
            p99_us: lag.quantile(990) / 1_000,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b.max(1) as f64
}
