//! Connections that do nothing: what each costs to open and to keep.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::aftermath::send_home;
use crate::gather::{Seat, gather, seats};
use crate::process::private_kib;
use crate::report::{Meter, Report};
use crate::scenario::{Idle, nanoseconds};
use crate::target::Target;
use crate::wire::{End, Id, News, Scene, Wire};

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

/// Seats for connections that subscribe to a channel of their own.
pub(crate) fn own_channels(target: &Target, connections: u32) -> Vec<Seat> {
    seats(target, connections, |place| format!("idle-{place:05}"))
}

/// Idle connections that the server dropped are faults.
pub(crate) fn note_dropped(report: &mut Report, ends: &BTreeMap<End, u32>) {
    for (end, count) in ends {
        report
            .faults
            .push(format!("{count} idle connections ended: {end}"));
    }
}

/// Opens the connections and holds them.
pub(crate) fn hold(wire: &mut Wire, target: &Target, shape: Idle) -> Result<Report> {
    let start_kib = private_kib(target)?;
    let meter = Meter::start(wire, target)?;
    let crowd = gather(wire, target, &own_channels(target, shape.connections))?;
    let mut report = meter.finish(wire, target, u64::from(shape.connections), "connection")?;
    report.latency = crowd.latency.latency();

    let mut scene = Bystander::default();
    scene.watch(wire, nanoseconds(shape.hold))?;
    let held_kib = private_kib(target)?;
    note_dropped(&mut report, &scene.ends);
    send_home(
        wire,
        target,
        shape.connections,
        (start_kib, held_kib),
        &mut report,
    )?;
    Ok(report)
}
