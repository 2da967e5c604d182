//! Connections that do nothing: what each costs to open and to keep.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use crate::gather::{Seat, gather};
use crate::process::private_kib;
use crate::report::{Memory, Meter, Report};
use crate::scenario::nanoseconds;
use crate::target::Target;
use crate::wire::{End, Id, News, Scene, Wire};

/// How long a server may take to give memory back after its clients left.
const TIDY_UP_NS: u64 = 15_000_000_000;
/// What stays may exceed the start by this share: caches and arenas that serve the next crowd.
const KEPT_PERCENT: u64 = 10;
const STEP_NS: u64 = 100_000_000;

/// Reads along and only notes who was dropped.
#[derive(Debug, Default)]
pub(crate) struct Bystander {
    pub(crate) ends: BTreeMap<End, u32>,
}

impl Scene for Bystander {
    fn on(&mut self, _: &mut Wire, _: Id, news: News<'_>) -> Result<()> {
        if let News::Ended(end) = news {
            *self.ends.entry(end).or_default() += 1;
        }
        Ok(())
    }
}

impl Bystander {
    /// Turns for so long.
    pub(crate) fn watch(&mut self, wire: &mut Wire, nanoseconds: u64) -> Result<()> {
        let until = wire.tick() + nanoseconds;
        while wire.now() < until {
            wire.turn(self, until)?;
        }
        Ok(())
    }
}

/// Waits until the server is back near the memory it started with, or has had long enough.
pub(crate) fn memory_after(wire: &mut Wire, target: &Target, before_kib: u64) -> Result<u64> {
    let until = wire.tick() + TIDY_UP_NS;
    let mut scene = Bystander::default();
    loop {
        scene.watch(wire, STEP_NS)?;
        let now_kib = private_kib(target)?.unwrap_or(0);
        if now_kib <= allowed_after(before_kib) || wire.now() >= until {
            return Ok(now_kib);
        }
    }
}

/// Most memory that a server may keep after its clients left.
pub(crate) fn allowed_after(before_kib: u64) -> u64 {
    before_kib + before_kib * KEPT_PERCENT / 100
}

/// Remarks on memory that was not given back.
pub(crate) fn judge(report: &mut Report) {
    if let Some(memory) = report.memory
        && memory.after_kib > allowed_after(memory.before_kib)
    {
        report.remarks.push(format!(
            "{} KiB more than at the start are kept after all clients left",
            memory.after_kib - memory.before_kib
        ));
    }
}

/// Opens `connections`, each subscribed to a channel of its own, and holds them.
pub(crate) fn hold(wire: &mut Wire, target: &Target, connections: u32, hold: Duration) -> Result<Report> {
    let seats: Vec<Seat> = (0..connections as usize)
        .map(|place| Seat {
            node: place % target.nodes.len(),
            channel: Some(format!("idle-{place:05}")),
            receive_buffer: None,
        })
        .collect();
    let before_kib = private_kib(target)?;
    let meter = Meter::start(wire, target)?;
    let crowd = gather(wire, target, &seats)?;
    let mut report = meter.finish(wire, target, u64::from(connections), "connection")?;
    report.latency = crowd.latency.latency();

    let mut scene = Bystander::default();
    scene.watch(wire, nanoseconds(hold))?;
    let held_kib = private_kib(target)?;
    for (end, count) in &scene.ends {
        report
            .faults
            .push(format!("{count} idle connections ended: {end}"));
    }
    wire.hang_up_all();
    if let (Some(before_kib), Some(held_kib)) = (before_kib, held_kib) {
        let after_kib = memory_after(wire, target, before_kib)?;
        report.memory = Some(Memory {
            connections: u64::from(connections),
            before_kib,
            held_kib,
            after_kib,
        });
        judge(&mut report);
    }
    Ok(report)
}
