//! The outbox: appended to inside the transition that an event speaks of, read by whoever delivers.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::num::ParseIntError;
use std::str::FromStr;
use std::sync::Mutex;
use std::time::Duration;

use dunlin_protocol::names::{AppId, ChannelName};
use futures_util::future::{BoxFuture, FutureExt as _, ready};
use tokio::sync::Notify;

use super::event::ChannelEvent;
use crate::answer::Unavailable;
use crate::clock;
use crate::lock::lock;

/// Where events are left. Appending never waits and never fails: who appends is in the middle of something.
pub trait Outbox: Send + Sync {
    fn append(&self, app: &AppId, channel: &ChannelName, event: ChannelEvent);
}

/// A place in a partition of the outbox, written `1700000000000-3` as in a stream of Redis. Later ones are greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub ms: u64,
    pub number: u64,
}

impl Place {
    /// The next one that can be.
    #[must_use]
    pub fn next(self) -> Self {
        match self.number.checked_add(1) {
            Some(number) => Self { number, ..self },
            None => Self {
                ms: self.ms + 1,
                number: 0,
            },
        }
    }

    /// The one in front of it; the first has none, and is its own.
    #[must_use]
    pub fn before(self) -> Self {
        match (self.ms, self.number.checked_sub(1)) {
            (_, Some(number)) => Self { number, ..self },
            (0, None) => self,
            (ms, None) => Self {
                ms: ms - 1,
                number: u64::MAX,
            },
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.number)
    }
}

impl FromStr for Place {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        let (ms, number) = text.split_once('-').unwrap_or((text, "0"));
        Ok(Self {
            ms: ms.parse()?,
            number: number.parse()?,
        })
    }
}

/// An entry of the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub place: Place,
    pub app: AppId,
    pub channel: ChannelName,
    pub event: ChannelEvent,
    /// Unix milliseconds.
    pub happened_at_ms: u64,
}

/// A part of the outbox. All events of one channel are in the same.
pub type PartitionNumber = u16;

/// The outbox as its reader sees it. Of several readers, each has partitions of its own.
///
/// A promise of every implementation: the entries of a partition are read in the order in which they were appended, and
/// again until they are forgotten.
pub trait Feed: Send + Sync {
    /// The partitions that are this reader's now. Whoever loses one may find out late.
    fn partitions(&self) -> BoxFuture<'_, Result<Vec<PartitionNumber>, Unavailable>>;
    /// Up to `limit` entries of each of these partitions, behind the place given with it.
    fn read<'a>(
        &'a self,
        after: &'a [(PartitionNumber, Place)],
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(PartitionNumber, Entry)>, Unavailable>>;
    /// Forgets every entry up to and including this place. Returns how many made way since the last time before anybody
    /// had read them, because the outbox was full.
    fn forget(&self, partition: PartitionNumber, up_to: Place) -> BoxFuture<'_, Result<u64, Unavailable>>;
    /// This reader has ended: its partitions are free for others at once.
    fn leave(&self) -> BoxFuture<'_, ()>;
    /// How long ago the first entry of these partitions happened that was not forgotten, `None` if there is none.
    fn oldest<'a>(
        &'a self,
        of: &'a [PartitionNumber],
    ) -> BoxFuture<'a, Result<Option<Duration>, Unavailable>>;
    /// Returns when there may be something new, at the latest after a moment.
    fn wait(&self) -> BoxFuture<'_, ()>;
    /// Whether entries outlive this process: then how far they were read is to be remembered with what they became.
    fn is_durable(&self) -> bool;
}

/// The outbox of one node without Redis: in memory, like the connections and channels that its entries speak of. Bounded:
/// the oldest entry makes way and is counted.
#[derive(Debug)]
pub struct MemoryOutbox {
    capacity: usize,
    state: Mutex<State>,
    appended: Notify,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    appended: u64,
    /// How far anybody has read.
    read_to: Place,
    /// Entries that made way unread, and of which nobody was told yet.
    lost: u64,
}

impl MemoryOutbox {
    /// `capacity` 0 keeps nothing: appending costs one check.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            state: Mutex::default(),
            appended: Notify::new(),
        }
    }
}

impl Outbox for MemoryOutbox {
    fn append(&self, app: &AppId, channel: &ChannelName, event: ChannelEvent) {
        if self.capacity == 0 {
            return;
        }
        {
            let mut state = lock(&self.state);
            state.appended += 1;
            let entry = Entry {
                place: Place {
                    ms: 0,
                    number: state.appended,
                },
                app: app.clone(),
                channel: channel.clone(),
                event,
                happened_at_ms: clock::unix_millis(),
            };
            if state.entries.len() == self.capacity
                && let Some(oldest) = state.entries.pop_front()
            {
                state.lost += u64::from(oldest.place > state.read_to);
            }
            state.entries.push_back(entry);
        }
        self.appended.notify_one();
    }
}

impl Feed for MemoryOutbox {
    fn partitions(&self) -> BoxFuture<'_, Result<Vec<PartitionNumber>, Unavailable>> {
        ready(Ok(vec![0])).boxed()
    }

    fn read<'a>(
        &'a self,
        after: &'a [(PartitionNumber, Place)],
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(PartitionNumber, Entry)>, Unavailable>> {
        let mut state = lock(&self.state);
        let entries = after.iter().flat_map(|(partition, after)| {
            let first = state.entries.partition_point(|entry| entry.place <= *after);
            let entries = state.entries.range(first..).take(limit).cloned();
            entries.map(|entry| (*partition, entry))
        });
        let entries: Vec<_> = entries.collect();
        if let Some((_, last)) = entries.last() {
            state.read_to = state.read_to.max(last.place);
        }
        ready(Ok(entries)).boxed()
    }

    fn forget(&self, _: PartitionNumber, up_to: Place) -> BoxFuture<'_, Result<u64, Unavailable>> {
        let mut state = lock(&self.state);
        let count = state.entries.partition_point(|entry| entry.place <= up_to);
        state.entries.drain(..count);
        ready(Ok(mem::take(&mut state.lost))).boxed()
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }

    fn oldest<'a>(
        &'a self,
        _: &'a [PartitionNumber],
    ) -> BoxFuture<'a, Result<Option<Duration>, Unavailable>> {
        let state = lock(&self.state);
        let age = |entry: &Entry| clock::unix_millis().saturating_sub(entry.happened_at_ms);
        let oldest = state
            .entries
            .front()
            .map(|entry| Duration::from_millis(age(entry)));
        ready(Ok(oldest)).boxed()
    }

    fn wait(&self) -> BoxFuture<'_, ()> {
        self.appended.notified().boxed()
    }

    fn is_durable(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(outbox: &MemoryOutbox, count: u32) {
        outbox.append(
            &"1".parse().unwrap(),
            &"a".parse().unwrap(),
            ChannelEvent::SubscriptionCount { count },
        );
    }

    async fn read(outbox: &MemoryOutbox, after: Place, limit: usize) -> Vec<(Place, u32)> {
        let count = |entry: Entry| match entry.event {
            ChannelEvent::SubscriptionCount { count } => (entry.place, count),
            other => panic!("{other:?} was not appended"),
        };
        let entries = outbox.read(&[(0, after)], limit).await.unwrap();
        entries.into_iter().map(|(_, entry)| count(entry)).collect()
    }

    fn counts(entries: &[(Place, u32)]) -> Vec<u32> {
        entries.iter().map(|(_, count)| *count).collect()
    }

    #[tokio::test]
    async fn entries_keep_their_order_until_they_are_forgotten() {
        let outbox = MemoryOutbox::new(10);
        for count in 0..5 {
            append(&outbox, count);
        }
        let first = read(&outbox, Place::default(), 2).await;
        assert_eq!(counts(&first), [0, 1]);
        assert_eq!(read(&outbox, Place::default(), 2).await, first, "again");
        let place = first[1].0;
        assert_eq!(counts(&read(&outbox, place, 9).await), [2, 3, 4]);
        outbox.forget(0, place).await.unwrap();
        outbox.forget(0, first[0].0).await.unwrap();
        assert_eq!(counts(&read(&outbox, Place::default(), 9).await), [2, 3, 4]);
    }

    #[tokio::test]
    async fn the_outbox_is_bounded_and_says_what_it_dropped() {
        let outbox = MemoryOutbox::new(2);
        for count in 0..5 {
            append(&outbox, count);
        }
        let entries = read(&outbox, Place::default(), 9).await;
        assert_eq!(counts(&entries), [3, 4]);
        assert_eq!(outbox.forget(0, entries[0].0).await, Ok(3));
        assert_eq!(outbox.forget(0, entries[0].0).await, Ok(0), "said once");
        append(&outbox, 5);
        append(&outbox, 6);
        assert_eq!(outbox.forget(0, entries[1].0).await, Ok(0), "it had been read");
        assert!(outbox.oldest(&[0]).await.unwrap().is_some());
        outbox.forget(0, Place { ms: 0, number: 7 }).await.unwrap();
        assert_eq!(outbox.oldest(&[0]).await, Ok(None));
    }

    #[test]
    fn places_are_written_as_redis_writes_them() {
        let place = Place { ms: 17, number: 3 };
        assert_eq!(place.to_string().parse(), Ok(place));
        assert_eq!("17".parse(), Ok(Place { ms: 17, number: 0 }));
        assert!("x-1".parse::<Place>().is_err());
        assert!(Place { ms: 9, number: 9 } < Place { ms: 10, number: 0 });
    }

    #[test]
    fn places_have_neighbours() {
        for text in ["0-1", "1-0", "1700000000000-0", "7-3"] {
            let place: Place = text.parse().unwrap();
            assert!(place.before() < place && place < place.next());
            assert_eq!(place.before().next(), place);
        }
        assert_eq!(Place::default().before(), Place::default());
    }
}
