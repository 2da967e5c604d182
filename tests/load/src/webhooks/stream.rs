//! Messages of one app, whose endpoints are told of each.

use anyhow::{Result, bail};

use super::config::prefix_of_hole;
use super::receiver::Receiver;
use crate::http::Event;
use crate::payload::Stamp;
use crate::publishers::{Outcome, Publishers};
use crate::scenario::Pace;
use crate::target::Target;
use crate::wire::{Id, News, Scene, Wire};

/// Published and not received, at most, at full speed: enough to keep the worker busy, and a fifth of what the outbox of
/// a node without Redis holds, so that nothing falls out of it.
const WINDOW: usize = 20_000;
const LANES: usize = 8;
/// Names that the messages go round.
const CHANNELS_OF_A_LANE: usize = 125;
const CHANNELS: usize = LANES * CHANNELS_OF_A_LANE;
/// What has not come so long after the last request is lost.
pub(super) const PATIENCE_NS: u64 = 20_000_000_000;

/// Each lane has channels of its own and one publish under way: of two messages on one channel, the second is sent after
/// the first was answered, so that there is one right order.
#[derive(Debug)]
pub(super) struct Stream<'a> {
    publishers: Publishers<'a>,
    pub(super) receiver: Receiver,
    channels: Vec<String>,
    lanes: Vec<Lane>,
    events_per_request: usize,
    payload_bytes: usize,
    sending: Sending,
    /// When the next publish of a fixed rate is due.
    due: u64,
    published: u64,
}

#[derive(Debug, Default)]
struct Lane {
    turn: usize,
    under_way: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Nothing,
    FullSpeed,
    /// Nanoseconds between publishes.
    Every(u64),
}

impl<'a> Stream<'a> {
    /// All of it goes to our receiver.
    pub(super) fn open(
        wire: &mut Wire,
        target: &'a Target,
        events_per_request: usize,
        payload_bytes: usize,
    ) -> Result<Self> {
        let names = (0..CHANNELS).map(|number| format!("hook-{number:04}"));
        let publishers = Publishers::open(wire, target, LANES)?;
        let mut stream = Self::of_nobody(publishers, names.collect(), payload_bytes);
        stream.receiver = Receiver::new(CHANNELS);
        stream.events_per_request = events_per_request;
        Ok(stream)
    }

    /// A message for each of so many endpoints that never answer, in turn; nobody waits for it.
    pub(super) fn for_holes(
        wire: &mut Wire,
        target: &'a Target,
        holes: u32,
        payload_bytes: usize,
    ) -> Result<Self> {
        let names = (0..CHANNELS)
            .zip((0..holes).cycle())
            .map(|(number, hole)| format!("{}{number:04}", prefix_of_hole(hole)));
        let publishers = Publishers::open(wire, target, LANES)?;
        Ok(Self::of_nobody(publishers, names.collect(), payload_bytes))
    }

    fn of_nobody(publishers: Publishers<'a>, channels: Vec<String>, payload_bytes: usize) -> Self {
        Self {
            publishers,
            receiver: Receiver::of_nobody(CHANNELS),
            channels,
            lanes: (0..LANES).map(|_| Lane::default()).collect(),
            events_per_request: 1,
            payload_bytes,
            sending: Sending::Nothing,
            due: 0,
            published: 0,
        }
    }

    /// From now on, until [`Stream::stop`]. The rate counts messages.
    pub(super) fn start(&mut self, wire: &mut Wire, pace: Pace) {
        self.due = wire.tick();
        self.sending = match pace {
            Pace::FullSpeed => Sending::FullSpeed,
            Pace::PerSecond(rate) => {
                Sending::Every(1_000_000_000 * self.events_per_request as u64 / u64::from(rate.max(1)))
            }
        };
    }

    pub(super) fn stop(&mut self) {
        self.sending = Sending::Nothing;
    }

    /// Messages that were sent.
    pub(super) fn published(&self) -> u64 {
        self.published
    }

    fn next_due(&self) -> Option<u64> {
        matches!(self.sending, Sending::Every(_))
            .then_some(self.due)
            .filter(|_| self.publishers.idle_lane().is_some())
    }

    fn send_what_is_due(&mut self, wire: &mut Wire) -> Result<()> {
        while let Some(lane) = self.publishers.idle_lane() {
            match self.sending {
                Sending::FullSpeed if self.receiver.unfinished() < WINDOW => {}
                Sending::Every(interval) if self.due <= wire.tick() => self.due += interval,
                Sending::Nothing | Sending::FullSpeed | Sending::Every(_) => break,
            }
            self.send(wire, lane)?;
        }
        Ok(())
    }

    fn send(&mut self, wire: &mut Wire, lane: usize) -> Result<()> {
        let (first, sent_at) = (self.lanes[lane].turn, wire.tick());
        self.lanes[lane].turn += self.events_per_request;
        let mut events = Vec::with_capacity(self.events_per_request);
        for turn in first..first + self.events_per_request {
            let channel = lane * CHANNELS_OF_A_LANE + turn % CHANNELS_OF_A_LANE;
            let sequence = self.receiver.publish(u32::try_from(channel)?, 0);
            self.lanes[lane].under_way.push(sequence);
            events.push(Event {
                channel: &self.channels[channel],
                stamp: Stamp { sequence, sent_at },
                payload_bytes: self.payload_bytes,
            });
        }
        self.published += events.len() as u64;
        self.publishers.publish(wire, events.into_iter())
    }

    /// Whether the news was about this stream.
    fn on(&mut self, wire: &mut Wire, id: Id, news: &News<'_>) -> Result<bool> {
        match self.publishers.on(wire, id, news)? {
            Outcome::NotOurs => return Ok(false),
            Outcome::Accepted { lane, .. } => {
                for sequence in self.lanes[lane].under_way.drain(..) {
                    self.receiver.answered(sequence, wire.now());
                }
            }
            Outcome::Ready | Outcome::Nothing => {}
        }
        Ok(true)
    }
}

/// All that goes on: the streams, of which the first has the receiver, and the endpoints that answer nobody.
#[derive(Debug)]
pub(super) struct Traffic<'a> {
    pub(super) streams: Vec<Stream<'a>>,
    /// Requests that were left without an answer.
    pub(super) unanswered: u64,
}

impl<'a> Traffic<'a> {
    pub(super) fn new(streams: Vec<Stream<'a>>) -> Self {
        Self {
            streams,
            unanswered: 0,
        }
    }

    pub(super) fn receiver(&mut self) -> &mut Receiver {
        &mut self.streams[0].receiver
    }

    /// Lets all go on for so long.
    pub(super) fn run(&mut self, wire: &mut Wire, nanoseconds: u64) -> Result<()> {
        let until = wire.tick() + nanoseconds;
        while wire.now() < until {
            self.turn(wire, until)?;
        }
        Ok(())
    }

    fn turn(&mut self, wire: &mut Wire, until: u64) -> Result<()> {
        for stream in &mut self.streams {
            stream.send_what_is_due(wire)?;
        }
        let due = self.streams.iter().filter_map(Stream::next_due).min();
        let wake_at = due.unwrap_or(until).min(until);
        wire.turn(self, wake_at.max(wire.now() + 1))
    }

    /// Waits until each event has come, or none for so long that those that are missing are lost. Sends nothing more.
    pub(super) fn finish(&mut self, wire: &mut Wire) -> Result<()> {
        for stream in &mut self.streams {
            stream.stop();
        }
        let began = wire.tick();
        loop {
            let are_quiet = self.streams.iter().all(|stream| stream.publishers.is_quiet());
            if are_quiet && self.receiver().unfinished() == 0 {
                return Ok(());
            }
            let until = self.receiver().last_at.max(began) + PATIENCE_NS;
            if wire.now() >= until {
                let in_flight: usize = self
                    .streams
                    .iter()
                    .map(|stream| stream.publishers.in_flight())
                    .sum();
                if in_flight > 0 {
                    bail!("the server left {in_flight} publishes without an answer");
                }
                return Ok(());
            }
            self.turn(wire, until)?;
        }
    }
}

impl Scene for Traffic<'_> {
    fn on(&mut self, wire: &mut Wire, id: Id, news: News<'_>) -> Result<()> {
        if let News::Request(request) = &news {
            if request.path == super::PATH.as_bytes() {
                return self.streams[0].receiver.take(wire, id, request);
            }
            self.unanswered += 1;
            return Ok(());
        }
        for stream in &mut self.streams {
            if stream.on(wire, id, &news)? {
                break;
            }
        }
        Ok(())
    }
}
