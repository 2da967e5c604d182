//! A soak: connections come and go beside a crowd that stays, then all leave.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use anyhow::Result;

use crate::aftermath::send_home;
use crate::gather::{Places, Step, gather, step, subscribe};
use crate::histogram::Histogram;
use crate::idle::{Bystander, note_dropped, own_channels};
use crate::process::private_kib;
use crate::report::{Meter, Report};
use crate::scenario::{Churn, nanoseconds};
use crate::target::Target;
use crate::wire::{Dialect, End, Id, News, Scene, Wire};

/// A visitor stays for this long after it was seated.
const VISIT_NS: u64 = 1_000_000_000;
/// Visitors share these channels, so that channels are vacated and occupied again all the time.
const CHANNELS: u64 = 50;
/// Time for the last visitors to be seated and to leave.
const LAST_VISITS_NS: u64 = 5_000_000_000;
/// The small churn before the one that counts.
const WARM_UP_IDLE: u32 = 500;
const WARM_UP: Duration = Duration::from_secs(3);
/// A server gives memory back some seconds after a crowd left; the start is read after that.
const SETTLE_NS: u64 = 4_000_000_000;

struct Visits<'a> {
    target: &'a Target,
    /// From a connection to the number of its visitor.
    visitors: Places,
    began: VecDeque<(u64, u64)>,
    first_kept: u64,
    leaving: VecDeque<(u64, Id)>,
    seated: u64,
    left: u64,
    failed: u64,
    first_failure: Option<String>,
    ends: BTreeMap<End, u32>,
    latency: Histogram,
}

impl Visits<'_> {
    fn fail(&mut self, wire: &mut Wire, id: Id, why: String) {
        self.visitors.clear(id);
        self.failed += 1;
        self.first_failure.get_or_insert(why);
        wire.hang_up(id);
    }

    fn arrive(&mut self, wire: &mut Wire, number: u64) -> Result<()> {
        let node = usize::try_from(number)? % self.target.nodes.len();
        let began = wire.tick();
        let id = wire.connect(
            self.target.nodes[node].addr,
            Dialect::pusher(&self.target.app_key),
            None,
        )?;
        self.visitors.set(id, usize::try_from(number)?);
        self.began.push_back((number, began));
        Ok(())
    }

    /// Lets everybody go whose visit is over; every second one without a close frame.
    fn dismiss(&mut self, wire: &mut Wire) -> Result<()> {
        while let Some((leave_at, id)) = self.leaving.front().copied()
            && leave_at <= wire.now()
        {
            self.leaving.pop_front();
            if self.visitors.get(id).is_none() {
                continue;
            }
            self.visitors.clear(id);
            self.left += 1;
            if self.left.is_multiple_of(2) {
                wire.leave(id)?;
            } else {
                wire.hang_up(id);
            }
        }
        // Starts of visits that are over are not needed any more.
        while self.began.len() > 20_000 {
            self.began.pop_front();
            self.first_kept += 1;
        }
        Ok(())
    }
}

impl Scene for Visits<'_> {
    fn on(&mut self, wire: &mut Wire, id: Id, news: News<'_>) -> Result<()> {
        let visitor = self.visitors.get(id);
        match (news, visitor) {
            (News::Message(message), Some(visitor)) => match step(message) {
                Ok(Step::Established(socket_id)) => {
                    let channel = format!("visit-{}", visitor as u64 % CHANNELS);
                    subscribe(wire, self.target, id, &socket_id, &channel, None)?;
                }
                Ok(Step::Subscribed) => {
                    self.seated += 1;
                    let at = (visitor as u64).checked_sub(self.first_kept).map(usize::try_from);
                    if let Some(Ok(at)) = at
                        && let Some((_, began)) = self.began.get(at)
                    {
                        self.latency.record(wire.now() - began);
                    }
                    self.leaving.push_back((wire.now() + VISIT_NS, id));
                }
                Ok(Step::Other) => {}
                Err(error) => self.fail(wire, id, error.to_string()),
            },
            (News::Ended(end), Some(_)) => self.fail(wire, id, format!("a visitor was dropped ({end})")),
            (News::Ended(end), None) => *self.ends.entry(end).or_default() += 1,
            (News::Opened | News::Answer { .. } | News::Message(_) | News::Request(_), _) => {}
        }
        Ok(())
    }
}

/// A small churn first, then the one that counts; in the end all leave.
pub(crate) fn churn(wire: &mut Wire, target: &Target, shape: Churn) -> Result<Report> {
    // The first crowd makes a server reserve what it keeps for good, whatever comes later.
    let small = Churn {
        idle: shape.idle.min(WARM_UP_IDLE),
        duration: shape.duration.min(WARM_UP),
        ..shape
    };
    visit(wire, target, small)?;
    wire.hang_up_all();
    let known = private_kib(target)?.is_some();
    Bystander::default().watch(wire, if known { SETTLE_NS } else { 0 })?;

    let start_kib = private_kib(target)?;
    let mut report = visit(wire, target, shape)?;
    let held_kib = private_kib(target)?;
    send_home(wire, target, shape.idle, (start_kib, held_kib), &mut report)?;
    Ok(report)
}

/// Seats the idle, then lets visitors come and go beside them.
fn visit(wire: &mut Wire, target: &Target, shape: Churn) -> Result<Report> {
    gather(wire, target, &own_channels(target, shape.idle))?;
    let idle_kib = private_kib(target)?;

    let mut visits = Visits {
        target,
        visitors: Places::default(),
        began: VecDeque::new(),
        first_kept: 0,
        leaving: VecDeque::new(),
        seated: 0,
        left: 0,
        failed: 0,
        first_failure: None,
        ends: BTreeMap::new(),
        latency: Histogram::default(),
    };
    let meter = Meter::start(wire, target)?;
    let pause = 1_000_000_000 / u64::from(shape.per_second.max(1));
    let visitors = u64::from(shape.per_second) * shape.duration.as_secs();
    let started = wire.tick();
    let end = started + nanoseconds(shape.duration) + VISIT_NS + LAST_VISITS_NS;
    let mut arrived = 0;
    while wire.tick() < end {
        while arrived < visitors && started + arrived * pause <= wire.now() {
            visits.arrive(wire, arrived)?;
            arrived += 1;
        }
        visits.dismiss(wire)?;
        if visits.left + visits.failed >= visitors {
            break;
        }
        let next_arrival = if arrived < visitors {
            started + arrived * pause
        } else {
            end
        };
        let next_leave = visits.leaving.front().map_or(end, |(at, _)| *at);
        wire.turn(&mut visits, next_arrival.min(next_leave))?;
    }
    let held_kib = private_kib(target)?;
    let mut report = meter.finish(wire, target, visits.left, "connection")?;
    report.latency = visits.latency.latency();
    if visits.failed > 0 {
        report.faults.push(format!(
            "{} of {visitors} visitors failed, the first: {}",
            visits.failed,
            visits.first_failure.as_deref().unwrap_or("unknown")
        ));
    }
    if visits.left + visits.failed < visitors {
        report.faults.push(format!(
            "only {} of {visitors} visitors came and went in time",
            visits.left
        ));
    }
    note_dropped(&mut report, &visits.ends);
    if let (Some(idle_kib), Some(held_kib)) = (idle_kib, held_kib) {
        report.remarks.push(format!(
            "{idle_kib} KiB with the idle before the visits, {held_kib} KiB after them"
        ));
    }
    Ok(report)
}
