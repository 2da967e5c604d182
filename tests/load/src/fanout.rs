//! Publications and client events to many subscribers, as fast as the server takes them or at a fixed rate.

use anyhow::{Result, bail};

use crate::gather::{Crowd, Places, gather, left_early, seats};
use crate::histogram::Histogram;
use crate::http::Event;
use crate::ledger::Ledger;
use crate::payload::{self, Finder, PAYLOAD_BYTES, Stamp};
use crate::publishers::{Outcome, Publishers};
use crate::report::{Meter, Report};
use crate::scenario::{ClientEvents, Effort, Fanout, Pace};
use crate::target::Target;
use crate::webhooks::receiver::Receiver;
use crate::wire::{Id, News, Scene, Wire};

/// The one channel of a fan-out; with [`crate::http::EVENT_NAME`] a message has 175 bytes.
pub(crate) const CHANNEL: &str = "fan-out";
/// Client events need a private channel.
const PRIVATE_CHANNEL: &str = "private-load";

/// Where messages come from.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    Http(Box<Publishers<'a>>),
    /// Client events of this connection.
    Client(Id),
}

/// The traffic of a run: sends messages and books what arrives.
#[derive(Debug)]
pub(crate) struct Traffic<'a> {
    pub(crate) source: Source<'a>,
    pub(crate) ledger: Ledger,
    channels: Vec<String>,
    /// From connections to subscribers of the ledger.
    pub(crate) readers: Places,
    finder: Finder,
    pub(crate) latency: Histogram,
    /// From a publish over HTTP to its answer.
    pub(crate) answers: Histogram,
    /// Gets webhooks for what is published over HTTP.
    pub(crate) receiver: Option<Receiver>,
    pub(crate) payload_bytes: usize,
    /// Most messages under way at full speed.
    window: usize,
    patience_ns: u64,
    /// When the next message of a fixed rate is due.
    due: u64,
    sending: Sending,
    last_delivery: u64,
    client_frame: Vec<u8>,
    /// Messages of ours that came back to their sender.
    echoed: u64,
    late: u64,
}

/// What may be sent in the current part of a run.
#[derive(Clone, Copy, Debug)]
struct Sending {
    /// Pause between messages, `None` for full speed.
    interval: Option<u64>,
    until: u64,
    messages: u64,
}

const STOPPED: Sending = Sending {
    interval: None,
    until: 0,
    messages: 0,
};

impl<'a> Traffic<'a> {
    pub(crate) fn new(source: Source<'a>, channels: Vec<String>, window: usize, effort: &Effort) -> Self {
        Self {
            source,
            ledger: Ledger::new(channels.len()),
            channels,
            readers: Places::default(),
            finder: Finder::default(),
            latency: Histogram::default(),
            answers: Histogram::default(),
            receiver: None,
            payload_bytes: PAYLOAD_BYTES,
            window,
            patience_ns: effort.patience_ns(),
            due: 0,
            sending: STOPPED,
            last_delivery: 0,
            client_frame: Vec::new(),
            echoed: 0,
            late: 0,
        }
    }

    /// Books the deliveries to a connection.
    pub(crate) fn watch(&mut self, id: Id, channel: u32) {
        let reader = self.ledger.subscribe(channel);
        self.readers.set(id, reader);
    }

    /// Sends for at most `nanoseconds` and `messages`, then waits until everything has arrived or is lost.
    ///
    /// # Errors
    /// A publish was refused or a client dropped.
    pub(crate) fn run(&mut self, wire: &mut Wire, pace: Pace, nanoseconds: u64, messages: u64) -> Result<()> {
        let now = wire.tick();
        let interval = match pace {
            Pace::FullSpeed => None,
            Pace::PerSecond(rate) => Some(1_000_000_000 / u64::from(rate.max(1))),
        };
        self.due = now;
        self.last_delivery = now;
        self.sending = Sending {
            interval,
            until: now + nanoseconds,
            messages,
        };
        loop {
            self.send_what_is_due(wire)?;
            let now = wire.now();
            if self.is_over(now) {
                let quiet = match &self.source {
                    Source::Http(publishers) => publishers.is_quiet(),
                    Source::Client(_) => true,
                };
                if quiet && self.ledger.unfinished() == 0 {
                    return Ok(());
                }
            }
            if now > self.last_delivery.max(self.due) + self.patience_ns {
                // The ledger knows what is missing; a server that never answers a publish is worse.
                if let Source::Http(publishers) = &self.source
                    && publishers.in_flight() > 0
                {
                    bail!(
                        "the server left {} publishes without an answer",
                        publishers.in_flight()
                    );
                }
                return Ok(());
            }
            let wake_at = match interval {
                Some(_) if !self.is_over(now) => self.due,
                _ => now + self.patience_ns,
            };
            wire.turn(self, wake_at.max(now + 1))?;
        }
    }

    fn is_over(&self, now: u64) -> bool {
        self.sending.messages == 0 || now >= self.sending.until
    }

    fn send_what_is_due(&mut self, wire: &mut Wire) -> Result<()> {
        while !self.is_over(wire.tick()) {
            let sent_at = match self.sending.interval {
                None if self.ledger.unfinished() >= self.window => break,
                None => wire.now(),
                Some(_) if self.due > wire.now() => break,
                // Counted from when it was due: a server that keeps a publisher waiting does not look faster for it.
                Some(_) => self.due,
            };
            if !self.send_one(wire, sent_at)? {
                self.late += u64::from(self.sending.interval.is_some());
                break;
            }
            self.sending.messages -= 1;
            self.due = self
                .sending
                .interval
                .map_or(wire.now(), |interval| self.due + interval);
        }
        Ok(())
    }

    /// Sends a message unless every lane is busy.
    fn send_one(&mut self, wire: &mut Wire, sent_at: u64) -> Result<bool> {
        let sequence = self.ledger.next_sequence();
        let channel = sequence as usize % self.channels.len();
        let stamp = Stamp { sequence, sent_at };
        let number = u32::try_from(channel)?;
        match &mut self.source {
            Source::Http(publishers) => {
                let Some(lane) = publishers.idle_lane() else {
                    return Ok(false);
                };
                self.ledger.publish(number, u32::try_from(lane)?);
                if let Some(receiver) = &mut self.receiver {
                    receiver.publish(number, u32::try_from(lane)?);
                }
                let event = Event {
                    channel: &self.channels[channel],
                    stamp,
                    payload_bytes: self.payload_bytes,
                };
                publishers.publish(wire, std::iter::once(event))?;
            }
            Source::Client(id) => {
                self.ledger.publish(number, 0);
                self.client_frame.clear();
                self.client_frame
                    .extend_from_slice(b"{\"event\":\"client-load\",\"channel\":\"");
                self.client_frame
                    .extend_from_slice(self.channels[channel].as_bytes());
                self.client_frame.extend_from_slice(b"\",\"data\":\"");
                payload::push(&mut self.client_frame, stamp, self.payload_bytes);
                self.client_frame.extend_from_slice(b"\"}");
                wire.send_text(*id, &self.client_frame)?;
            }
        }
        Ok(true)
    }

    /// Forgets the times of what was sent so far; the ledger remembers all of it.
    pub(crate) fn forget_times(&mut self) {
        self.latency.clear();
        self.answers.clear();
        self.late = 0;
    }

    /// Lets others have the wire until [`Traffic::wake`].
    pub(crate) fn rest(&mut self, wire: &mut Wire) {
        if let Source::Http(publishers) = &mut self.source {
            publishers.rest(wire);
        }
    }

    pub(crate) fn wake(&mut self, wire: &mut Wire) -> Result<()> {
        match &mut self.source {
            Source::Http(publishers) => publishers.wake(wire),
            Source::Client(_) => Ok(()),
        }
    }

    /// Waits until the webhooks for all that was sent have come, or none for so long that those that are missing are
    /// lost.
    pub(crate) fn await_webhooks(&mut self, wire: &mut Wire, patience_ns: u64) -> Result<()> {
        let began = wire.tick();
        while let Some(receiver) = &self.receiver
            && receiver.unfinished() > 0
        {
            let until = receiver.last_at.max(began) + patience_ns;
            if wire.now() >= until {
                break;
            }
            wire.turn(self, until)?;
        }
        Ok(())
    }

    /// What the ledger and the source know goes into the report.
    pub(crate) fn complete(&self, report: &mut Report) {
        report.latency = self.latency.latency();
        report.lost += self.ledger.missing();
        report.duplicated += self.ledger.duplicated();
        report.misordered += self.ledger.misordered();
        if let Some(receiver) = &self.receiver {
            receiver.complete(report);
        }
        if self.ledger.unknown() > 0 {
            report.faults.push(format!(
                "{} deliveries of messages never sent there",
                self.ledger.unknown()
            ));
        }
        if self.echoed > 0 {
            report
                .faults
                .push(format!("{} client events came back to their sender", self.echoed));
        }
        if self.late > 0 {
            report.remarks.push(format!(
                "{} times every publisher was busy when a message was due",
                self.late
            ));
        }
        if let Source::Http(publishers) = &self.source
            && publishers.reopened() > 0
        {
            report.remarks.push(format!(
                "the server closed {} publishing connections",
                publishers.reopened()
            ));
        }
    }

    /// Books a message to a reader.
    pub(crate) fn on_message(&mut self, now: u64, id: Id, message: &[u8]) {
        let Some(stamp) = self.finder.find(message) else {
            return;
        };
        let Some(reader) = self.readers.get(id) else {
            self.echoed += u64::from(matches!(self.source, Source::Client(sender) if sender == id));
            return;
        };
        self.ledger.deliver(reader, stamp.sequence);
        self.latency.record(now.saturating_sub(stamp.sent_at));
        self.last_delivery = now;
    }

    /// Takes news of a publishing connection; false when it is about another one.
    pub(crate) fn on_publisher(&mut self, wire: &mut Wire, id: Id, news: &News<'_>) -> Result<bool> {
        let Source::Http(publishers) = &mut self.source else {
            return Ok(false);
        };
        match publishers.on(wire, id, news)? {
            Outcome::NotOurs => return Ok(false),
            Outcome::Accepted { elapsed, .. } => {
                self.answers.record(elapsed);
                self.send_what_is_due(wire)?;
            }
            Outcome::Ready => self.send_what_is_due(wire)?,
            Outcome::Nothing => {}
        }
        Ok(true)
    }
}

impl Scene for Traffic<'_> {
    fn on(&mut self, wire: &mut Wire, id: Id, news: News<'_>) -> Result<()> {
        if let News::Message(message) = news {
            self.on_message(wire.now(), id, message);
            return Ok(());
        }
        if self.on_publisher(wire, id, &news)? {
            return Ok(());
        }
        match news {
            News::Ended(end) => Err(left_early(end)),
            News::Request(request) => match &mut self.receiver {
                Some(receiver) => receiver.take(wire, id, &request),
                None => Ok(()),
            },
            News::Opened | News::Message(_) | News::Answer { .. } => Ok(()),
        }
    }
}

/// Publishes over HTTP to `subscribers` of each of `channels`.
pub(crate) fn publications(
    wire: &mut Wire,
    target: &Target,
    shape: Fanout,
    effort: &Effort,
) -> Result<Report> {
    let mut traffic = publications_of(wire, target, shape, effort)?;
    measure(wire, target, &mut traffic, shape.pace, effort)
}

/// The same before its first message, with everybody subscribed.
pub(crate) fn publications_of<'a>(
    wire: &mut Wire,
    target: &'a Target,
    shape: Fanout,
    effort: &Effort,
) -> Result<Traffic<'a>> {
    // Many small channels need more messages under way to keep the server busy.
    let (lanes, window) = if shape.channels > 1 { (16, 256) } else { (8, 32) };
    let channels: Vec<String> = match shape.channels {
        1 => vec![CHANNEL.into()],
        several => (0..several).map(|number| format!("many-{number:05}")).collect(),
    };
    let seats = seats(target, shape.channels * shape.subscribers, |place| {
        channels[place % channels.len()].clone()
    });
    let crowd = gather(wire, target, &seats)?;
    let publishers = Publishers::open(wire, target, lanes)?;
    let mut traffic = Traffic::new(Source::Http(Box::new(publishers)), channels, window, effort);
    for (place, id) in crowd.ids.iter().enumerate() {
        traffic.watch(*id, u32::try_from(place)? % shape.channels);
    }
    Ok(traffic)
}

/// One member sends client events to the others.
pub(crate) fn client_events(
    wire: &mut Wire,
    target: &Target,
    shape: ClientEvents,
    effort: &Effort,
) -> Result<Report> {
    let seats = seats(target, shape.receivers + 1, |_| PRIVATE_CHANNEL.into());
    let Crowd { ids, .. } = gather(wire, target, &seats)?;
    let mut traffic = Traffic::new(Source::Client(ids[0]), vec![PRIVATE_CHANNEL.into()], 32, effort);
    for id in &ids[1..] {
        traffic.watch(*id, 0);
    }
    measure(wire, target, &mut traffic, shape.pace, effort)
}

fn measure(
    wire: &mut Wire,
    target: &Target,
    traffic: &mut Traffic<'_>,
    pace: Pace,
    effort: &Effort,
) -> Result<Report> {
    traffic.run(wire, pace, effort.warm_up_ns(), u64::MAX)?;
    traffic.forget_times();
    let before = traffic.ledger.delivered();
    let meter = Meter::start(wire, target)?;
    traffic.run(wire, pace, effort.measure_ns(), effort.max_messages)?;
    let mut report = meter.finish(wire, target, traffic.ledger.delivered() - before, "delivery")?;
    traffic.complete(&mut report);
    Ok(report)
}
