//! Signed publishes that nobody receives: the price of the HTTP API itself.

use anyhow::{Result, bail};

use crate::histogram::Histogram;
use crate::http::Event;
use crate::payload::{PAYLOAD_BYTES, Stamp};
use crate::publishers::{Outcome, Publishers};
use crate::report::{Meter, Report};
use crate::scenario::{Effort, Publish};
use crate::target::Target;
use crate::wire::{Id, News, Scene, Wire};

/// Names that the publishes go round, so that no cache of a single one flatters the server.
const CHANNELS: usize = 1_000;

struct Requests<'a> {
    publishers: Publishers<'a>,
    channels: Vec<String>,
    events_per_request: usize,
    next: usize,
    until: u64,
    left: u64,
    answered: u64,
    latency: Histogram,
    last_answer: u64,
    patience_ns: u64,
}

impl Requests<'_> {
    fn send(&mut self, wire: &mut Wire) -> Result<()> {
        while self.left > 0 && wire.tick() < self.until && self.publishers.idle_lane().is_some() {
            let (first, sent_at) = (self.next, wire.now());
            self.next += self.events_per_request;
            self.left -= 1;
            let channels = &self.channels;
            let events = (first..self.next).map(|number| Event {
                channel: &channels[number % CHANNELS],
                stamp: Stamp {
                    sequence: u32::try_from(number).unwrap_or(0),
                    sent_at,
                },
                payload_bytes: PAYLOAD_BYTES,
            });
            self.publishers.publish(wire, events)?;
        }
        Ok(())
    }

    fn run(&mut self, wire: &mut Wire, nanoseconds: u64, requests: u64) -> Result<()> {
        self.last_answer = wire.tick();
        self.until = wire.now() + nanoseconds;
        self.left = requests;
        self.send(wire)?;
        while !(self.publishers.is_quiet() && (self.left == 0 || wire.now() >= self.until)) {
            wire.turn(self, wire.now() + self.patience_ns)?;
            if wire.now() > self.last_answer + self.patience_ns {
                bail!(
                    "the server left {} publishes without an answer",
                    self.publishers.in_flight()
                );
            }
        }
        Ok(())
    }
}

impl Scene for Requests<'_> {
    fn on(&mut self, wire: &mut Wire, id: Id, news: News<'_>) -> Result<()> {
        match self.publishers.on(wire, id, &news)? {
            Outcome::Accepted { elapsed, .. } => {
                self.answered += 1;
                self.latency.record(elapsed);
                self.last_answer = wire.now();
                self.send(wire)
            }
            Outcome::Ready => self.send(wire),
            Outcome::NotOurs | Outcome::Nothing => Ok(()),
        }
    }
}

/// Publishes on several connections at once, without a pause.
pub(crate) fn requests(wire: &mut Wire, target: &Target, shape: Publish, effort: &Effort) -> Result<Report> {
    let mut requests = Requests {
        publishers: Publishers::open(wire, target, shape.connections as usize)?,
        channels: (0..CHANNELS).map(|number| format!("empty-{number:04}")).collect(),
        events_per_request: shape.events_per_request.max(1) as usize,
        next: 0,
        until: 0,
        left: 0,
        answered: 0,
        latency: Histogram::default(),
        last_answer: 0,
        patience_ns: effort.patience_ns(),
    };
    requests.run(wire, effort.warm_up_ns(), u64::MAX)?;
    requests.latency.clear();
    let before = requests.answered;
    let meter = Meter::start(wire, target)?;
    requests.run(wire, effort.measure_ns(), effort.max_messages)?;
    let mut report = meter.finish(wire, target, requests.answered - before, "request")?;
    report.latency = requests.latency.latency();
    if requests.publishers.reopened() > 0 {
        report.remarks.push(format!(
            "the server closed {} publishing connections",
            requests.publishers.reopened()
        ));
    }
    Ok(report)
}
