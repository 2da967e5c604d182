//! A customer's server: takes every request at once, and books which events came in it.

use std::collections::HashSet;

use anyhow::Result;

use crate::histogram::Histogram;
use crate::http::{Request, TAKEN};
use crate::ledger::Ledger;
use crate::payload::{Finder, after, number, position};
use crate::report::Report;
use crate::wire::{Id, Wire};

/// In front of a channel's name in a body of the Yalgaar format, which is the one that tells of every message.
const CHANNEL: &[u8] = b"\"channel\":\"";

/// What one endpoint has to be told, and what it was told.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    /// Its subscribers are this receiver, once for each channel.
    ledger: Ledger,
    channels: usize,
    /// The ids of the deliveries that were taken. A repetition with the same id is no duplicate: a customer can tell.
    seen: HashSet<Vec<u8>>,
    requests: u64,
    repeated: u64,
    nonsense: u64,
    /// By sequence number: when the publisher had its answer.
    answered_at: Vec<u64>,
    /// From there until the event came.
    pub(crate) lag: Histogram,
    pub(crate) last_at: u64,
    /// Those that are kept waiting; `None`: nobody is.
    held: Option<Vec<Id>>,
}

impl Receiver {
    /// Of an endpoint that wants all messages on so many channels, whose names end in a dash and their number.
    pub(crate) fn new(channels: usize) -> Self {
        let mut receiver = Self::of_nobody(channels);
        for channel in 0..channels {
            let channel = u32::try_from(channel).unwrap_or(u32::MAX);
            receiver.ledger.subscribe(channel);
        }
        receiver
    }

    /// Numbers the messages on so many channels, and expects none of them.
    pub(crate) fn of_nobody(channels: usize) -> Self {
        Self {
            ledger: Ledger::new(channels),
            channels,
            ..Self::default()
        }
    }

    /// A message of this publisher is about to be published, and its events have to come in this order.
    pub(crate) fn publish(&mut self, channel: u32, publisher: u32) -> u32 {
        self.ledger.publish(channel, publisher)
    }

    /// Its publisher was told that it is published.
    pub(crate) fn answered(&mut self, sequence: u32, now: u64) {
        let sequence = sequence as usize;
        if self.answered_at.len() <= sequence {
            self.answered_at.resize(sequence + 1, 0);
        }
        self.answered_at[sequence] = now;
    }

    /// From now on requests are kept waiting: one that comes is not answered before [`Receiver::let_go`].
    pub(crate) fn hold(&mut self) {
        self.held.get_or_insert_default();
    }

    /// Answers what was kept waiting, and from now on at once.
    pub(crate) fn let_go(&mut self, wire: &mut Wire) -> Result<()> {
        for id in self.held.take().unwrap_or_default() {
            wire.send(id, TAKEN)?;
        }
        Ok(())
    }

    /// Requests that are kept waiting.
    pub(crate) fn held(&self) -> usize {
        self.held.as_ref().map_or(0, Vec::len)
    }

    pub(crate) fn take(&mut self, wire: &mut Wire, id: Id, request: &Request<'_>) -> Result<()> {
        self.book(request, wire.now());
        match &mut self.held {
            Some(held) => held.push(id),
            None => wire.send(id, TAKEN)?,
        }
        Ok(())
    }

    fn book(&mut self, request: &Request<'_>, now: u64) {
        self.requests += 1;
        self.last_at = now;
        if !self.seen.insert(request.webhook_id.to_vec()) {
            self.repeated += 1;
            return;
        }
        let (mut rest, mut finder) = (request.body, Finder::default());
        while let Some(event) = after(rest, CHANNEL) {
            let end = event.iter().position(|byte| *byte == b'"').unwrap_or(event.len());
            let next = position(event, CHANNEL).unwrap_or(event.len());
            match finder.find(&event[..next]) {
                Some(stamp) if self.channel(&event[..end]) < self.channels => {
                    let answered_at = self.answered_at.get(stamp.sequence as usize).copied();
                    let since = answered_at.filter(|at| *at > 0).unwrap_or(now);
                    self.lag.record(now.saturating_sub(since));
                    self.ledger.deliver(self.channel(&event[..end]), stamp.sequence);
                }
                _ => self.nonsense += 1,
            }
            rest = &event[next..];
        }
    }

    /// The number of a channel, which is also its subscriber's; that of the only one has none.
    fn channel(&self, name: &[u8]) -> usize {
        let digits = name.rsplit(|byte| *byte == b'-').next().and_then(number);
        match digits {
            None if self.channels == 1 => 0,
            None => usize::MAX,
            Some(number) => usize::try_from(number).unwrap_or(usize::MAX),
        }
    }

    /// Events that have not come.
    pub(crate) fn unfinished(&self) -> usize {
        self.ledger.unfinished()
    }

    /// Events that came, each counted once.
    pub(crate) fn received(&self) -> u64 {
        self.ledger.delivered()
    }

    /// What came, or did not, goes into the report.
    pub(crate) fn complete(&self, report: &mut Report) {
        report.lost += self.ledger.missing();
        report.duplicated += self.ledger.duplicated();
        report.misordered += self.ledger.misordered();
        let unknown = self.ledger.unknown() + self.nonsense;
        if unknown > 0 {
            report.faults.push(format!(
                "{unknown} events of messages never published on that channel"
            ));
        }
        if self.seen.contains(&b""[..]) {
            report.faults.push("a request without a webhook-id".into());
        }
        let each = self.received() / self.requests.max(1);
        report.remarks.push(format!(
            "{} requests to the receiver, of {each} events on average; {} were repetitions with the same id",
            self.requests, self.repeated
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{PAYLOAD_BYTES, Stamp, push};

    fn body(events: &[(&str, u32)]) -> Vec<u8> {
        let items: Vec<String> = events
            .iter()
            .map(|(channel, sequence)| {
                let mut data = Vec::new();
                let (sequence, sent_at) = (*sequence, 1);
                push(&mut data, Stamp { sequence, sent_at }, PAYLOAD_BYTES);
                let data = String::from_utf8(data).unwrap();
                format!(r#"{{"channel":"{channel}","uuid":"","timestamp":"1","message":"{data}"}}"#)
            })
            .collect();
        let items = items.join(",");
        format!(r#"{{"items":{{"source":"Message","clientKey":"k","data":[{items}]}}}}"#).into_bytes()
    }

    /// What requests with these ids and events lead to, after two messages on each of two channels: lost, duplicated,
    /// misordered, faults.
    fn findings(requests: &[(&str, &[(&str, u32)])]) -> (u64, u64, u64, usize) {
        let mut receiver = Receiver::new(2);
        for _ in 0..2 {
            for channel in 0..2 {
                let sequence = receiver.publish(channel, 0);
                receiver.answered(sequence, 1);
            }
        }
        for (id, events) in requests {
            let request = Request {
                path: b"/",
                webhook_id: id.as_bytes(),
                body: &body(events),
            };
            receiver.book(&request, 2);
        }
        let mut report = Report::default();
        receiver.complete(&mut report);
        (
            report.lost,
            report.duplicated,
            report.misordered,
            report.faults.len(),
        )
    }

    #[test]
    fn all_events_in_the_order_of_their_channels_are_right() {
        let all = [("hook-1", 1), ("hook-0", 0), ("hook-0", 2), ("hook-1", 3)];
        assert_eq!(findings(&[("a", &all)]), (0, 0, 0, 0));
        assert_eq!(findings(&[("a", &all[..3]), ("b", &all[3..])]), (0, 0, 0, 0));
    }

    #[test]
    fn a_repetition_is_right_with_the_same_id_and_a_duplicate_with_another() {
        let all = [("hook-0", 0), ("hook-1", 1), ("hook-0", 2), ("hook-1", 3)];
        assert_eq!(findings(&[("a", &all), ("a", &all)]), (0, 0, 0, 0));
        assert_eq!(findings(&[("a", &all), ("b", &all[2..])]), (0, 2, 0, 0));
    }

    #[test]
    fn what_is_missing_misordered_misplaced_or_nameless_is_seen() {
        assert_eq!(findings(&[("a", &[("hook-0", 0), ("hook-1", 1)])]), (2, 0, 0, 0));
        let swapped = [("hook-0", 2), ("hook-0", 0), ("hook-1", 1), ("hook-1", 3)];
        assert_eq!(findings(&[("a", &swapped)]), (0, 0, 1, 0));
        let misplaced = [("hook-1", 0), ("hook-7", 1), ("hook-0", 2), ("hook-1", 3)];
        assert_eq!(findings(&[("a", &misplaced)]), (2, 0, 0, 1));
        let all = [("hook-0", 0), ("hook-1", 1), ("hook-0", 2), ("hook-1", 3)];
        assert_eq!(findings(&[("", &all)]), (0, 0, 0, 1));
    }

    #[test]
    fn the_lag_begins_with_the_answer_to_the_publish() {
        let mut receiver = Receiver::new(1);
        let sequence = receiver.publish(0, 0);
        receiver.answered(sequence, 1_000);
        let request = Request {
            path: b"/",
            webhook_id: b"a",
            body: &body(&[("fan-out", sequence)]),
        };
        receiver.book(&request, 4_000);
        assert_eq!(receiver.lag.quantile(500), 3_000);
    }
}
