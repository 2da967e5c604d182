//! What a server keeps of a crowd that has left: memory, and whatever its gauges still count.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use crate::http::get;
use crate::idle::Bystander;
use crate::process::private_kib;
use crate::report::{Memory, Report};
use crate::target::Target;
use crate::wire::Wire;

/// How long a server may take to give memory back and to notice that its clients left.
const TIDY_UP_NS: u64 = 15_000_000_000;
/// What stays may exceed the start by this share: caches and arenas that serve the next crowd.
const KEPT_PERCENT: u64 = 10;
const STEP_NS: u64 = 100_000_000;

/// What clients bring along and must take with them (`docs/reference/metrics.md`).
const GAUGES: [&str; 9] = [
    "dunlin_connections",
    "dunlin_local_channels",
    "dunlin_directory_channels",
    "dunlin_channel_states",
    "dunlin_signed_in_users",
    "dunlin_kept_users",
    "dunlin_fallback_sessions",
    "dunlin_mailbox_bytes",
    "dunlin_cache_bytes",
];

/// Private memory with the crowd, to be compared with what follows: start, then crowd, in KiB.
pub(crate) type WithCrowd = (Option<u64>, Option<u64>);

/// Hangs up on everybody and books what the server keeps: a fault for each gauge that is not back at zero, a remark
/// on memory. `connections` is the size of the crowd.
pub(crate) fn send_home(
    wire: &mut Wire,
    target: &Target,
    connections: u32,
    (start_kib, crowd_kib): WithCrowd,
    report: &mut Report,
) -> Result<()> {
    wire.hang_up_all();
    if let (Some(before_kib), Some(held_kib)) = (start_kib, crowd_kib) {
        let after_kib = settled(wire, before_kib, || Ok(private_kib(target)?.unwrap_or(0)))?;
        report.memory = Some(Memory {
            connections: u64::from(connections),
            before_kib,
            held_kib,
            after_kib,
        });
        if after_kib > allowed_after(before_kib) {
            report.remarks.push(format!(
                "{} KiB more than at the start are kept after all clients left",
                after_kib - before_kib
            ));
        }
    }
    check_gauges(wire, target, report)
}

/// Reads until the figure is back near `start`, or the server has had long enough; returns the last reading.
pub(crate) fn settled(wire: &mut Wire, start: u64, read: impl Fn() -> Result<u64>) -> Result<u64> {
    let until = wire.tick() + TIDY_UP_NS;
    let mut scene = Bystander::default();
    loop {
        scene.watch(wire, STEP_NS)?;
        let now = read()?;
        if now <= allowed_after(start) || wire.now() >= until {
            return Ok(now);
        }
    }
}

/// The most that counts as back near `start`.
pub(crate) fn allowed_after(start: u64) -> u64 {
    start + start * KEPT_PERCENT / 100
}

fn check_gauges(wire: &mut Wire, target: &Target, report: &mut Report) -> Result<()> {
    let addrs: Vec<SocketAddr> = target.nodes.iter().filter_map(|node| node.metrics).collect();
    if addrs.is_empty() {
        return Ok(());
    }
    let until = wire.tick() + TIDY_UP_NS;
    let mut scene = Bystander::default();
    loop {
        let mut left = Vec::new();
        for addr in &addrs {
            left.extend(not_at_zero(&get(*addr, "/metrics")?)?);
        }
        if left.is_empty() {
            report
                .remarks
                .push(format!("all {} gauges of clients are back at zero", GAUGES.len()));
            return Ok(());
        }
        if wire.now() >= until {
            let faults = left
                .into_iter()
                .map(|gauge| format!("all have left, but {gauge}"));
            report.faults.extend(faults);
            return Ok(());
        }
        scene.watch(wire, STEP_NS)?;
    }
}

/// The gauges that are not zero, each with its value.
fn not_at_zero(metrics: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for gauge in GAUGES {
        let value: f64 = metrics
            .lines()
            .find_map(|line| line.strip_prefix(gauge)?.strip_prefix(' '))
            .and_then(|value| value.trim().parse().ok())
            .with_context(|| format!("the metrics have no gauge {gauge}"))?;
        if value != 0.0 {
            found.push(format!("{gauge} is {value}"));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(kept_users: &str) -> String {
        let lines = GAUGES.map(|gauge| match gauge {
            "dunlin_kept_users" => format!("{gauge} {kept_users}\n"),
            _ => format!("# TYPE {gauge} gauge\n{gauge} 0\n{gauge}_of_another_name 5\n"),
        });
        lines.concat()
    }

    #[test]
    fn a_gauge_that_is_not_zero_is_named_with_its_value() {
        assert!(not_at_zero(&page("0")).unwrap().is_empty());
        assert_eq!(not_at_zero(&page("3")).unwrap(), ["dunlin_kept_users is 3"]);
    }

    #[test]
    fn a_gauge_that_is_missing_or_no_number_is_an_error() {
        assert!(not_at_zero("").is_err());
        assert!(not_at_zero(&page("many")).is_err());
    }
}
