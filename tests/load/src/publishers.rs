//! Keep-alive HTTP connections that each carry one signed publish at a time.

use std::collections::VecDeque;

use anyhow::{Context, Result, bail};

use crate::gather::Places;
use crate::http::{Event, Signer};
use crate::target::Target;
use crate::wire::{Dialect, Id, News, Wire};

#[derive(Debug)]
struct Lane {
    node: usize,
    id: Id,
    /// When the publish under way was sent.
    sent_at: Option<u64>,
}

/// A fixed number of connections; one that the server closes is opened again.
#[derive(Debug)]
pub(crate) struct Publishers<'a> {
    target: &'a Target,
    signer: Signer,
    lanes: Vec<Lane>,
    places: Places,
    /// The one that rests longest goes first: a connection that is never used is closed by the server.
    idle: VecDeque<usize>,
    request: Vec<u8>,
    reopened: u64,
    in_flight: usize,
}

/// What became of the news that [`Publishers::on`] was given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Not about a publishing connection.
    NotOurs,
    /// The publish of a lane was answered with 200, so many nanoseconds after it was sent.
    Accepted {
        lane: usize,
        elapsed: u64,
    },
    /// The lane is ready for its first publish, or for its next after a reopening.
    Ready,
    Nothing,
}

impl<'a> Publishers<'a> {
    /// Opens `lanes` connections, dealt out over the nodes.
    pub(crate) fn open(wire: &mut Wire, target: &'a Target, lanes: usize) -> Result<Self> {
        let mut publishers = Self {
            target,
            signer: Signer::new(target),
            lanes: Vec::new(),
            places: Places::default(),
            idle: VecDeque::new(),
            request: Vec::new(),
            reopened: 0,
            in_flight: 0,
        };
        for lane in 0..lanes {
            let node = lane % target.nodes.len();
            let id = publishers.connect(wire, node, lane)?;
            publishers.lanes.push(Lane {
                node,
                id,
                sent_at: None,
            });
        }
        Ok(publishers)
    }

    fn connect(&mut self, wire: &mut Wire, node: usize, lane: usize) -> Result<Id> {
        let id = wire.connect(self.target.nodes[node].addr, Dialect::Http, None)?;
        self.places.set(id, lane);
        Ok(id)
    }

    /// Drops all connections until [`Publishers::wake`]: no news of them disturbs others meanwhile.
    pub(crate) fn rest(&mut self, wire: &mut Wire) {
        for lane in &self.lanes {
            wire.hang_up(lane.id);
            self.places.clear(lane.id);
        }
        self.idle.clear();
    }

    /// Opens them again.
    pub(crate) fn wake(&mut self, wire: &mut Wire) -> Result<()> {
        for lane in 0..self.lanes.len() {
            self.lanes[lane].id = self.connect(wire, self.lanes[lane].node, lane)?;
        }
        Ok(())
    }

    /// A connection without a publish under way.
    pub(crate) fn idle_lane(&self) -> Option<usize> {
        self.idle.front().copied()
    }

    /// All connections are open and none has a publish under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.idle.len() == self.lanes.len()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How often the server closed a connection that was to be kept.
    pub(crate) fn reopened(&self) -> u64 {
        self.reopened
    }

    /// Publishes on the idle lane: one event by `/events`, several by `/batch_events`.
    pub(crate) fn publish<'e>(
        &mut self,
        wire: &mut Wire,
        mut events: impl ExactSizeIterator<Item = Event<'e>>,
    ) -> Result<()> {
        let lane = self.idle.pop_front().context("no idle lane to publish on")?;
        let mut request = std::mem::take(&mut self.request);
        request.clear();
        match (events.len(), events.next()) {
            (1, Some(event)) => self.signer.push_event(&mut request, event),
            (_, first) => self
                .signer
                .push_batch(&mut request, first.into_iter().chain(events)),
        }
        self.lanes[lane].sent_at = Some(wire.tick());
        self.in_flight += 1;
        let sent = wire.send(self.lanes[lane].id, &request);
        self.request = request;
        sent
    }

    /// Takes news of a publishing connection.
    ///
    /// # Errors
    /// A publish was refused or its connection broke before the answer.
    pub(crate) fn on(&mut self, wire: &mut Wire, id: Id, news: &News<'_>) -> Result<Outcome> {
        let Some(lane) = self.places.get(id) else {
            return Ok(Outcome::NotOurs);
        };
        match news {
            News::Opened => {
                self.idle.push_back(lane);
                Ok(Outcome::Ready)
            }
            News::Answer {
                status: 200, closes, ..
            } => {
                let sent_at = self.lanes[lane]
                    .sent_at
                    .take()
                    .context("an answer that nobody asked for")?;
                self.in_flight -= 1;
                if *closes {
                    wire.hang_up(id);
                    self.reopen(wire, id, lane)?;
                } else {
                    self.idle.push_back(lane);
                }
                Ok(Outcome::Accepted {
                    lane,
                    elapsed: wire.now().saturating_sub(sent_at),
                })
            }
            News::Answer { status, body, .. } => {
                bail!(
                    "a publish was answered with {status}: {}",
                    String::from_utf8_lossy(body)
                )
            }
            News::Ended(end) if self.lanes[lane].sent_at.is_some() => {
                bail!("the server dropped a publish without an answer ({end})")
            }
            News::Ended(end) if !self.idle.contains(&lane) => {
                bail!("cannot open a connection to publish on ({end})")
            }
            News::Ended(_) => {
                self.idle.retain(|idle| *idle != lane);
                self.reopen(wire, id, lane)?;
                Ok(Outcome::Nothing)
            }
            News::Message(_) | News::Request(_) => Ok(Outcome::Nothing),
        }
    }

    fn reopen(&mut self, wire: &mut Wire, old: Id, lane: usize) -> Result<()> {
        self.places.clear(old);
        self.reopened += 1;
        let id = self.connect(wire, self.lanes[lane].node, lane)?;
        self.lanes[lane].id = id;
        Ok(())
    }
}
