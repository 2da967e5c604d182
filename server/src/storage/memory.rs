//! The state of every channel of this process: what Redis is to a cluster, for one node.
//!
//! Plain data under striped locks. `broker::memory` and `presence::memory` put their rules on it; they share it
//! because a transition, its announcement and the answer to whoever caused it must be one step: whoever holds
//! a channel's stripe decides the order of that channel. A lock is held for a microsecond, never across an await.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use dunlin_protocol::names::{ChannelName, UserId};
use dunlin_protocol::pusher::outgoing::MemberFragment;

use super::history::History;
use super::keys::{AppNum, ChannelKey, ChannelMap, KeyRef};

use crate::lock::lock;

/// A power of two, well above the number of workers, so that two of them seldom want the same lock.
const STRIPES: usize = 64;

/// One channel, as long as it is occupied or something of it is kept.
#[derive(Debug, Default)]
pub struct Channel {
    /// Subscribed connections.
    pub connections: u32,
    /// Distinct users of a presence channel, in the order of their ids.
    pub members: BTreeMap<UserId, Member>,
    /// The last event published over the API, on a cache channel.
    pub cached: Option<Remembered>,
    /// When the outside was last told that there is none, in monotonic seconds.
    pub missed_at_s: Option<u32>,
    /// Where the app's configuration wants one.
    pub history: Option<Box<History>>,
    pub count: CountAnnouncement,
}

impl Channel {
    /// The event that a cache channel remembers, if its time is not over.
    pub fn remembered(&self, now_s: u32) -> Option<&CachedEvent> {
        let event = &self.cached.as_ref()?.event;
        (event.expires_at_s > now_s).then_some(event)
    }

    /// Nobody is in it and nothing of it is kept: its entry may go.
    pub fn is_idle(&self) -> bool {
        self.connections == 0 && self.cached.is_none() && self.history.is_none()
    }

    /// Lets the history of a vacated channel go, unless there is room for it to stay.
    pub fn settle_history(&mut self, max_bytes: usize) {
        if self.connections == 0
            && self
                .history
                .as_mut()
                .is_some_and(|history| !history.may_linger(max_bytes))
        {
            self.history = None;
        }
    }
}

/// A user in a presence channel.
#[derive(Debug)]
pub struct Member {
    pub fragment: MemberFragment,
    /// How many connections of this user are in the channel; the user leaves with the last.
    pub connections: u32,
}

/// A remembered event.
#[derive(Clone, Debug)]
pub struct CachedEvent {
    pub name: Arc<str>,
    /// The data as the JSON string literal that was published.
    pub data_literal: Arc<str>,
    /// On the scale of [`crate::clock::monotonic_seconds`].
    pub expires_at_s: u32,
}

/// An event of a channel's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastEvent {
    pub serial: u64,
    /// Unix milliseconds.
    pub published_at_ms: u64,
    pub name: Arc<str>,
    /// The data as the JSON string literal that was published.
    pub data_literal: Arc<str>,
    /// The sender's user, on client events in presence channels.
    pub user_id: Option<UserId>,
}

/// A remembered event and the room it takes in its app's cache.
#[derive(Debug)]
pub struct Remembered {
    pub event: CachedEvent,
    pub room: Reservation,
}

/// How much of something an app holds, in bytes.
#[derive(Debug, Default)]
pub struct Room {
    taken: AtomicUsize,
}

/// A part of a [`Room`]; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    room: Arc<Room>,
    bytes: usize,
}

impl Room {
    /// Takes `bytes`, unless that would make it more than `max`.
    pub fn reserve(self: &Arc<Self>, bytes: usize, max: usize) -> Option<Reservation> {
        let mut reservation = Reservation::none(self);
        reservation.grow(bytes, max).then_some(reservation)
    }

    pub fn taken_bytes(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Reservation {
    pub fn none(room: &Arc<Room>) -> Self {
        Self {
            room: Arc::clone(room),
            bytes: 0,
        }
    }

    /// Takes `bytes` more, unless that would make it more than `max` for the whole room.
    pub fn grow(&mut self, bytes: usize, max: usize) -> bool {
        let take = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= max);
        let taken = self
            .room
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        if taken.is_ok() {
            self.bytes += bytes;
        }
        taken.is_ok()
    }

    /// Gives `bytes` of it back.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.room.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// When the subscribers were last told how many they are.
#[derive(Debug, Default)]
pub struct CountAnnouncement {
    pub sent_at_nanos: u64,
    /// A change has not been announced yet: it waits for the throttle.
    pub owed: bool,
}

/// All channels, by stripe, and an index by app for listings.
#[derive(Debug)]
pub struct Channels {
    stripes: Box<[Mutex<ChannelMap<Channel>>]>,
    occupied: Mutex<BTreeMap<AppNum, BTreeSet<ChannelName>>>,
}

impl Default for Channels {
    fn default() -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            occupied: Mutex::default(),
        }
    }
}

impl Channels {
    /// The stripe that holds the channel, locked.
    pub fn stripe(&self, key: KeyRef<'_>) -> MutexGuard<'_, ChannelMap<Channel>> {
        lock(&self.stripes[key.stripe(STRIPES)])
    }

    /// Visits one stripe after the other, for sweeps; `turn` says which, wrapping around.
    pub fn stripe_number(&self, turn: usize) -> MutexGuard<'_, ChannelMap<Channel>> {
        lock(&self.stripes[turn % STRIPES])
    }

    pub fn stripes(&self) -> usize {
        STRIPES
    }

    pub fn mark_occupied(&self, key: &ChannelKey) {
        lock(&self.occupied)
            .entry(key.app())
            .or_default()
            .insert(key.name().clone());
    }

    pub fn mark_vacated(&self, key: &ChannelKey) {
        let mut occupied = lock(&self.occupied);
        if let Some(names) = occupied.get_mut(&key.app()) {
            names.remove(key.name().as_str());
            if names.is_empty() {
                occupied.remove(&key.app());
            }
        }
    }

    /// Up to `limit` occupied channels of an app that start with `prefix`, in order, after `after`.
    pub fn occupied(&self, app: AppNum, prefix: &str, after: Option<&str>, limit: usize) -> Vec<ChannelName> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let occupied = lock(&self.occupied);
        let Some(names) = occupied.get(&app) else {
            return Vec::new();
        };
        let from = after.map_or(Included(prefix), Excluded);
        names
            .range::<str, _>((from, Unbounded))
            .take_while(|name| name.as_str().starts_with(prefix))
            .take(limit)
            .cloned()
            .collect()
    }

    /// Channels that hold any state. For the gauge that must be back at zero when everybody has left.
    pub fn len(&self) -> usize {
        self.stripes.iter().map(|stripe| lock(stripe).len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listing_is_by_app_prefix_and_page() {
        let channels = Channels::default();
        for (app, name) in [(1, "a1"), (1, "a2"), (1, "a3"), (1, "b1"), (2, "a9")] {
            channels.mark_occupied(&ChannelKey::new(AppNum(app), name.parse().unwrap()));
        }
        let list = |prefix, after, limit| {
            let names = channels.occupied(AppNum(1), prefix, after, limit);
            names.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(list("a", None, 2), ["a1", "a2"]);
        assert_eq!(list("a", Some("a2"), 2), ["a3"]);
        assert_eq!(list("", None, 9), ["a1", "a2", "a3", "b1"]);
        channels.mark_vacated(&ChannelKey::new(AppNum(1), "b1".parse().unwrap()));
        assert_eq!(list("b", None, 9), Vec::<String>::new());
    }
}
