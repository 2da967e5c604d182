//! A process full of subscribers is stopped, and whether the others feel it.

use anyhow::Result;

use crate::aftermath::settled;
use crate::fanout::{CHANNEL, Source, Traffic};
use crate::gather::{gather, seats};
use crate::process::{private_kib, sockets_kib};
use crate::publishers::Publishers;
use crate::readers::Readers;
use crate::report::{Meter, Report};
use crate::scenario::{Effort, Pace, Stalled, nanoseconds};
use crate::target::Target;
use crate::wire::{End, Wire};

const LANES: usize = 8;
const WARM_UP_NS: u64 = 1_000_000_000;
/// How often memory is read.
const SLICE_NS: u64 = 500_000_000;
/// A server may keep 1 MiB for each stalled reader, and a fifth more for what that costs it.
const KEPT_KIB: u64 = 1024 + 1024 / 5;

/// Close codes after which a client reconnects by itself (Pusher protocol docs: 4100 to 4299), or no code at all, which
/// a client takes for a lost network.
fn leads_back(end: End) -> bool {
    matches!(end, End::Closed(4100..=4299) | End::Cut)
}

pub(crate) fn stall(wire: &mut Wire, target: &Target, shape: Stalled, effort: &Effort) -> Result<Report> {
    let readers = Readers::start(target, CHANNEL, shape.stalled)?;
    let crowd = gather(wire, target, &seats(target, shape.healthy, |_| CHANNEL.into()))?;
    let publishers = Publishers::open(wire, target, LANES)?;
    let source = Source::Http(Box::new(publishers));
    let mut traffic = Traffic::new(source, vec![CHANNEL.into()], 32, effort);
    traffic.payload_bytes = shape.payload_bytes;
    for id in crowd.ids {
        traffic.watch(id, 0);
    }

    let pace = Pace::PerSecond(shape.per_second);
    traffic.run(wire, pace, WARM_UP_NS, u64::MAX)?;
    traffic.forget_times();
    traffic.run(wire, pace, nanoseconds(shape.before), u64::MAX)?;
    let before = Quantiles::of(&traffic);
    traffic.forget_times();

    let start_kib = private_kib(target)?;
    let mut peak_kib = start_kib;
    let sockets_start_kib = sockets_kib();
    let mut sockets_peak_kib = sockets_start_kib;
    let delivered = traffic.ledger.delivered();
    let meter = Meter::start(wire, target)?;
    readers.stop()?;
    let until = wire.tick() + nanoseconds(shape.during);
    while wire.now() < until {
        traffic.run(wire, pace, SLICE_NS.min(until - wire.now()), u64::MAX)?;
        peak_kib = peak_kib.max(private_kib(target)?);
        sockets_peak_kib = sockets_peak_kib.max(sockets_kib());
    }
    let mut report = meter.finish(wire, target, traffic.ledger.delivered() - delivered, "delivery")?;
    traffic.complete(&mut report);
    let during = Quantiles::of(&traffic);
    report.remarks.push(format!(
        "healthy subscribers: p50 {} µs, p99 {} µs before the stop; p50 {} µs, p99 {} µs during it",
        before.p50_us, before.p99_us, during.p50_us, during.p99_us
    ));

    report.remarks.push(format!(
        "socket buffers of this machine: {sockets_start_kib} KiB before the stop, {sockets_peak_kib} KiB at most during it"
    ));

    readers.resume()?;
    let fates = readers.fates()?;
    for (end, count) in fates.ends {
        let text = format!("{count} stalled readers ended: {end}");
        if leads_back(end) {
            report.remarks.push(text);
        } else {
            report.faults.push(text);
        }
    }
    if fates.open > 0 {
        report
            .faults
            .push(format!("{} stalled readers were not cut", fates.open));
    }
    if let (Some(start), Some(peak)) = (start_kib, peak_kib) {
        let after = settled(wire, start, || Ok(private_kib(target)?.unwrap_or(0)))?;
        let each = (peak - start) / u64::from(shape.stalled.max(1));
        report.remarks.push(format!(
            "private memory: {start} KiB before the stop, {peak} KiB at most during it ({each} KiB for each stalled \
             reader), {after} KiB after the readers ended"
        ));
        if each > KEPT_KIB {
            report.faults.push(format!(
                "{each} KiB were kept for each stalled reader, {KEPT_KIB} KiB are allowed"
            ));
        }
    }
    Ok(report)
}

/// What the healthy saw, in microseconds.
struct Quantiles {
    p50_us: u64,
    p99_us: u64,
}

impl Quantiles {
    fn of(traffic: &Traffic<'_>) -> Self {
        Self {
            p50_us: traffic.latency.quantile(500) / 1_000,
            p99_us: traffic.latency.quantile(990) / 1_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_reconnect_codes_and_a_plain_end_lead_back() {
        for (end, expected) in [
            (End::Closed(4100), true),
            (End::Closed(4200), true),
            (End::Closed(4299), true),
            (End::Cut, true),
            (End::Closed(4009), false),
            (End::Closed(4301), false),
            (End::Closed(1008), false),
            (End::Reset, false),
        ] {
            assert_eq!(leads_back(end), expected, "{end}");
        }
    }
}
