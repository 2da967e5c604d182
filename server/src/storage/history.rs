//! The past of one channel, for a node without Redis: its events by serial, bounded by number, age and bytes.
//!
//! What is thrown away is remembered as a serial up to which events may be missing, so that a gap is never taken for
//! an absence of events.

use std::collections::VecDeque;
use std::collections::vec_deque::Iter;
use std::sync::Arc;

use dunlin_protocol::names::UserId;
use dunlin_protocol::position::Position;

use super::memory::{PastEvent, Reservation, Room};

/// What an event takes beside its texts.
const EVENT_BYTES: usize = 128;
/// What a channel takes that nobody is in, its name included.
const CHANNEL_BYTES: usize = 512;

#[derive(Debug)]
pub struct History {
    /// Unix microseconds of its beginning, so that a channel that is forgotten and begins again has a greater one.
    epoch: u64,
    /// Of the last message. Starts at the epoch, so that serials grow over a new beginning, too.
    serial: u64,
    /// Up to this serial events may be missing, those apart that have expired and wait to be thrown away.
    trimmed: u64,
    events: VecDeque<Kept>,
    age_s: u32,
    /// When it was last published to or left by its last subscriber, as [`crate::clock::monotonic_seconds`].
    used_s: u32,
    room: Reservation,
    /// The room for the channel itself is in `room`, so that it may stay when nobody is in it.
    may_linger: bool,
}

#[derive(Debug)]
struct Kept {
    event: PastEvent,
    at_s: u32,
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub size: usize,
    pub age_s: u32,
    /// Of all histories of the app.
    pub max_bytes: usize,
}

/// Events that have expired; they are dropped where no lock is held.
#[derive(Debug, Default)]
pub struct Expired(#[expect(dead_code, reason = "held to be dropped")] Vec<Kept>);

impl History {
    /// Begins at `epoch`, Unix microseconds, in the app's `room`.
    pub fn new(epoch: u64, age_s: u32, now_s: u32, room: &Arc<Room>) -> Self {
        Self {
            epoch,
            serial: epoch,
            trimmed: epoch,
            events: VecDeque::new(),
            age_s,
            used_s: now_s,
            room: Reservation::none(room),
            may_linger: false,
        }
    }

    /// That of the last message.
    pub fn position(&self) -> Position {
        Position {
            epoch: self.epoch,
            serial: self.serial,
        }
    }

    /// That of the next message.
    pub fn next_position(&self) -> Position {
        Position {
            epoch: self.epoch,
            serial: self.serial + 1,
        }
    }

    /// Counts the next message, and keeps it if there is room. The oldest make way.
    pub fn append(&mut self, event: PastEvent, bounds: Bounds, now_s: u32) {
        self.serial = event.serial;
        self.age_s = bounds.age_s;
        self.used_s = now_s;
        while self.events.len() >= bounds.size {
            self.drop_oldest();
        }
        let bytes = bytes_of(&event);
        while !self.room.grow(bytes, bounds.max_bytes) {
            if !self.drop_oldest() {
                self.trimmed = self.serial;
                return;
            }
        }
        self.events.push_back(Kept { event, at_s: now_s });
    }

    fn drop_oldest(&mut self) -> bool {
        let Some(oldest) = self.events.pop_front() else {
            return false;
        };
        self.trimmed = oldest.event.serial;
        self.room.shrink(bytes_of(&oldest.event));
        true
    }

    /// How many of the events have expired and are not seen any more.
    fn expired(&self, now_s: u32) -> usize {
        let is_expired = |kept: &Kept| kept.at_s.saturating_add(self.age_s) < now_s;
        self.events.partition_point(is_expired)
    }

    /// The events between two serials, both left out, from the oldest to the newest.
    pub fn between(&self, after: Option<u64>, before: Option<u64>, now_s: u32) -> Events<'_> {
        let place = |serial: u64| self.events.partition_point(|kept| kept.event.serial < serial);
        let first = after.map_or(0, |after| place(after.saturating_add(1)));
        let first = first.max(self.expired(now_s));
        let end = before.map_or(self.events.len(), place).max(first);
        Events(self.events.range(first..end))
    }

    /// Whether every event behind this serial is still there; with the epoch, whether every event is.
    pub fn is_complete_after(&self, serial: u64, now_s: u32) -> bool {
        let trimmed = match self.expired(now_s) {
            0 => self.trimmed,
            expired => self.events[expired - 1].event.serial,
        };
        (trimmed..=self.serial).contains(&serial)
    }

    /// Takes out what has expired.
    pub fn expire(&mut self, now_s: u32) -> Expired {
        let expired: Vec<_> = self.events.drain(..self.expired(now_s)).collect();
        if let Some(last) = expired.last() {
            self.trimmed = last.event.serial;
        }
        self.room
            .shrink(expired.iter().map(|kept| bytes_of(&kept.event)).sum());
        if self.events.capacity() > 64 && self.events.len() < self.events.capacity() / 4 {
            self.events.shrink_to(self.events.len() * 2);
        }
        Expired(expired)
    }

    /// The last subscriber has left: how long it stays counts from now.
    pub fn vacated(&mut self, now_s: u32) {
        self.used_s = now_s;
    }

    /// Whether it may stay while nobody is in the channel: that takes room, as whoever can name channels could
    /// otherwise fill the memory with empty ones.
    pub fn may_linger(&mut self, max_bytes: usize) -> bool {
        if !self.may_linger {
            self.may_linger = self.room.grow(CHANNEL_BYTES, max_bytes);
        }
        self.may_linger
    }

    /// Whether nobody can have anything to ask of it any more, if nobody is in the channel.
    pub fn is_over(&self, now_s: u32) -> bool {
        self.used_s.saturating_add(self.age_s) < now_s
    }
}

fn bytes_of(event: &PastEvent) -> usize {
    let user = event.user_id.as_ref().map_or(0, |id: &UserId| id.as_str().len());
    EVENT_BYTES + event.name.len() + event.data_literal.len() + user
}

/// Events in the order of their serials.
#[derive(Debug)]
pub struct Events<'a>(Iter<'a, Kept>);

impl<'a> Iterator for Events<'a> {
    type Item = &'a PastEvent;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|kept| &kept.event)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl DoubleEndedIterator for Events<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back().map(|kept| &kept.event)
    }
}

impl ExactSizeIterator for Events<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        size: 3,
        age_s: 10,
        max_bytes: 100_000,
    };

    fn append(history: &mut History, data: &str, bounds: Bounds, now_s: u32) {
        let event = PastEvent {
            serial: history.next_position().serial,
            published_at_ms: 0,
            name: "e".into(),
            data_literal: data.into(),
            user_id: None,
        };
        history.append(event, bounds, now_s);
    }

    fn filled(count: u32, bounds: Bounds) -> (History, Arc<Room>) {
        let room = Arc::default();
        let mut history = History::new(1000, bounds.age_s, 0, &room);
        for second in 1..=count {
            append(&mut history, "\"x\"", bounds, second);
        }
        (history, room)
    }

    fn serials(events: Events<'_>) -> Vec<u64> {
        events.map(|event| event.serial).collect()
    }

    #[test]
    fn serials_grow_from_the_epoch_and_the_oldest_makes_way() {
        let (history, _) = filled(0, BOUNDS);
        assert_eq!(history.position().to_string(), "1000:1000");
        assert!(
            history.is_complete_after(1000, 0),
            "nothing happened, nothing is missing"
        );
        let (history, _) = filled(5, BOUNDS);
        assert_eq!(history.position().to_string(), "1000:1005");
        assert_eq!(serials(history.between(None, None, 5)), [1003, 1004, 1005]);
        for (serial, is_complete) in [
            (1000, false),
            (1001, false),
            (1002, true),
            (1005, true),
            (1006, false),
        ] {
            assert_eq!(
                history.is_complete_after(serial, 5),
                is_complete,
                "after {serial}"
            );
        }
    }

    #[test]
    fn both_ends_of_a_range_are_left_out() {
        let (history, _) = filled(3, BOUNDS);
        for (after, before, expected) in [
            (None, None, &[1001, 1002, 1003][..]),
            (Some(1001), None, &[1002, 1003]),
            (None, Some(1003), &[1001, 1002]),
            (Some(1001), Some(1003), &[1002]),
            (Some(1003), Some(1001), &[]),
            (Some(u64::MAX), Some(0), &[]),
            (Some(0), Some(u64::MAX), &[1001, 1002, 1003]),
        ] {
            assert_eq!(
                serials(history.between(after, before, 3)),
                expected,
                "{after:?} to {before:?}"
            );
        }
    }

    #[test]
    fn what_has_expired_is_not_seen_though_it_is_still_there() {
        let (mut history, room) = filled(3, BOUNDS);
        let taken = room.taken_bytes();
        assert_eq!(
            serials(history.between(None, None, 12)),
            [1002, 1003],
            "the first is 11 seconds old"
        );
        assert!(!history.is_complete_after(1000, 12) && history.is_complete_after(1001, 12));
        assert_eq!(room.taken_bytes(), taken);
        drop(history.expire(12));
        assert_eq!(room.taken_bytes(), taken / 3 * 2);
        assert_eq!(serials(history.between(None, None, 12)), [1002, 1003]);
        assert!(!history.is_complete_after(1000, 12) && history.is_complete_after(1001, 12));
        assert!(
            !history.is_over(13) && history.is_over(14),
            "10 seconds after the last event"
        );
        history.vacated(20);
        assert!(
            !history.is_over(30) && history.is_over(31),
            "or after the last subscriber"
        );
        drop(history.expire(100));
        assert!(
            history.is_complete_after(1003, 100),
            "whoever saw the last event misses nothing"
        );
        assert_eq!(room.taken_bytes(), 0);
    }

    #[test]
    fn an_event_without_room_pushes_out_the_oldest_of_its_channel() {
        let one = EVENT_BYTES + 1 + 3;
        let bounds = Bounds {
            max_bytes: 2 * one + 10,
            ..BOUNDS
        };
        let (mut history, room) = filled(3, bounds);
        assert_eq!(serials(history.between(None, None, 3)), [1002, 1003]);
        assert!(!history.is_complete_after(1000, 3));
        append(&mut history, &"x".repeat(2 * one), bounds, 4);
        assert_eq!(
            serials(history.between(None, None, 4)),
            [0; 0],
            "it would not even fit alone"
        );
        assert!(history.is_complete_after(1004, 4) && !history.is_complete_after(1003, 4));
        append(&mut history, "\"x\"", bounds, 5);
        assert_eq!(serials(history.between(None, None, 5)), [1005]);
        assert_eq!(room.taken_bytes(), one);
        drop(history);
        assert_eq!(room.taken_bytes(), 0);
    }

    #[test]
    fn an_empty_channel_lingers_only_where_there_is_room() {
        let (mut history, room) = filled(0, BOUNDS);
        assert!(!history.may_linger(CHANNEL_BYTES - 1));
        assert!(history.may_linger(CHANNEL_BYTES) && history.may_linger(0));
        assert_eq!(room.taken_bytes(), CHANNEL_BYTES, "it is taken once");
    }
}
