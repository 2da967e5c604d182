//! The outbox: appended to inside the transition that an event speaks of, read by whoever delivers.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use dunlin_protocol::names::{AppId, ChannelName};

use super::event::ChannelEvent;
use crate::lock::lock;

/// An entry of the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Grows by one with every entry; never reused.
    pub position: u64,
    pub app: AppId,
    pub channel: ChannelName,
    pub event: ChannelEvent,
    /// Unix milliseconds.
    pub happened_at_ms: u64,
}

/// The outbox.
///
/// A promise of every implementation: entries are read in the order in which they were appended, at least once, until
/// they are acknowledged; an acknowledged one is never read again. Appending never waits.
pub trait Outbox: Send + Sync {
    fn append(&self, app: &AppId, channel: &ChannelName, event: ChannelEvent);
    /// Up to `limit` of the oldest entries that are not acknowledged.
    fn read(&self, limit: usize) -> Vec<Entry>;
    /// Forgets every entry up to and including this position.
    fn acknowledge(&self, position: u64);
}

/// An outbox for a node whose apps want no webhooks, and for tests: bounded, the oldest entry makes way and is counted.
#[derive(Debug)]
pub struct MemoryOutbox {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    appended: u64,
    dropped: u64,
}

impl MemoryOutbox {
    /// `capacity` 0 keeps nothing: appending costs one check.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            state: Mutex::default(),
        }
    }

    /// Entries that made way unread.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Outbox for MemoryOutbox {
    fn append(&self, app: &AppId, channel: &ChannelName, event: ChannelEvent) {
        if self.capacity == 0 {
            return;
        }
        let mut state = self.lock();
        state.appended += 1;
        let entry = Entry {
            position: state.appended,
            app: app.clone(),
            channel: channel.clone(),
            event,
            happened_at_ms: crate::clock::unix_millis(),
        };
        if state.entries.len() == self.capacity {
            state.entries.pop_front();
            state.dropped += 1;
        }
        state.entries.push_back(entry);
    }

    fn read(&self, limit: usize) -> Vec<Entry> {
        self.lock().entries.iter().take(limit).cloned().collect()
    }

    fn acknowledge(&self, position: u64) {
        let mut state = self.lock();
        while state
            .entries
            .front()
            .is_some_and(|entry| entry.position <= position)
        {
            state.entries.pop_front();
        }
    }
}

/// What every [`Outbox`] must do, whatever is behind it.
#[cfg(test)]
pub(crate) mod contract {
    use super::*;

    pub(crate) fn keeps_order_until_acknowledged(outbox: &dyn Outbox) {
        let app: AppId = "1".parse().unwrap();
        let channel: ChannelName = "a".parse().unwrap();
        let count = |entry: &Entry| match entry.event {
            ChannelEvent::SubscriptionCount { count } => count,
            _ => panic!("not what was appended"),
        };
        for n in 0..5 {
            outbox.append(&app, &channel, ChannelEvent::SubscriptionCount { count: n });
        }
        let first = outbox.read(2);
        assert_eq!(first.iter().map(count).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(outbox.read(2), first, "again, until acknowledged");
        outbox.acknowledge(first[1].position);
        outbox.acknowledge(first[0].position);
        assert_eq!(outbox.read(9).iter().map(count).collect::<Vec<_>>(), [2, 3, 4]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_outbox_keeps_the_contract() {
        contract::keeps_order_until_acknowledged(&MemoryOutbox::new(10));
    }

    #[test]
    fn the_memory_outbox_is_bounded_and_says_what_it_dropped() {
        let outbox = MemoryOutbox::new(2);
        for _ in 0..5 {
            outbox.append(
                &"1".parse().unwrap(),
                &"a".parse().unwrap(),
                ChannelEvent::Occupied,
            );
        }
        assert_eq!(outbox.read(9).len(), 2);
        assert_eq!(outbox.dropped(), 3);
    }
}
