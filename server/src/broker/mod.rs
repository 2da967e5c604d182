//! Publications between whoever publishes and every node that has subscribers.
//!
//! Owns publishing and the cached event of cache channels. Must never know a socket or a dialect: what a
//! publication looks like on the wire is the hub's business.
//!
//! Start at [`Broker`]; [`memory`] is the half for one node.

pub mod idempotency;
pub mod memory;

use std::borrow::Cow;
use std::sync::Arc;

use dunlin_protocol::names::{ChannelName, SocketId, UserId};
use dunlin_protocol::position::Position;

use crate::answer::{Answer, Unavailable};
use crate::apps::App;
use crate::apps::wanted::News;
use crate::storage::keys::KeyRef;
use crate::storage::memory::{CachedEvent, PastEvent};
use crate::webhooks::event::PublishedEvent;

/// Who published, which decides whether the event is remembered on a cache channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Api,
    Client,
}

/// One event for one channel.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    pub channel: &'a ChannelName,
    pub event: &'a str,
    /// The data as a JSON string literal, quotes included; passed through byte for byte.
    pub data_literal: &'a str,
    /// The sender's user, on client events in presence channels.
    pub user_id: Option<&'a UserId>,
    /// As whom the sender is signed in, on client events.
    pub signed_in: Option<&'a UserId>,
    /// A connection that does not get it.
    pub except: Option<SocketId>,
    pub origin: Origin,
}

impl Publication<'_> {
    /// Whether the app's webhooks are about such events.
    pub fn is_wanted(&self, app: &App) -> bool {
        let news = match self.origin {
            Origin::Api => News::MESSAGES,
            Origin::Client => News::MESSAGES.and(News::CLIENT_EVENTS),
        };
        app.wanted.any(news)
    }

    /// The same for the outbox, with the payload as text.
    pub fn to_published(&self) -> PublishedEvent {
        let socket_id = self.except.filter(|_| self.origin == Origin::Client);
        let data: Cow<'_, str> = match serde_json::from_str::<String>(self.data_literal) {
            Ok(text) => text.into(),
            Err(_) => self.data_literal.into(),
        };
        let user_id = self.user_id.or(self.signed_in);
        let uuid = match (user_id, socket_id) {
            (Some(user_id), _) => user_id.to_string(),
            (None, Some(socket_id)) => socket_id.to_string(),
            (None, None) => String::new(),
        };
        PublishedEvent {
            name: self.event.into(),
            data: data.into(),
            socket_id,
            user_id: self.user_id.cloned(),
            uuid: uuid.into(),
        }
    }
}

/// The publication was not accepted. Worth trying again in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPublished {
    /// Nobody got it.
    #[error("too much is waiting to be delivered")]
    Overloaded,
    /// The state that the nodes share cannot be reached, or did not answer in time: then some may have got it.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Some worker has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overloaded;

impl From<Overloaded> for NotPublished {
    fn from(_: Overloaded) -> Self {
        Self::Overloaded
    }
}

/// What of a channel's history is asked for. Between the bounds, both left out themselves, at most `limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Only events behind this serial.
    pub after: Option<u64>,
    /// Only events in front of this serial.
    pub before: Option<u64>,
    pub limit: usize,
    /// The newest first, where the limit cuts off the oldest; else the other way round.
    pub newest_first: bool,
}

/// A part of a channel's history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryPage {
    /// Where the channel stands: the epoch of the events, and the serial of its last message. `None`: nothing is kept,
    /// and nothing is known.
    pub position: Option<Position>,
    pub events: Vec<PastEvent>,
    /// There are more in the direction that was asked for.
    pub has_more: bool,
    /// No event behind `after`, or of the whole epoch, was forgotten. False where nothing is known.
    pub is_complete: bool,
}

/// Publishing.
///
/// A promise of every implementation:
/// - *Delivery*: at most once. `Ok` means every node with subscribers has it or will; a subscriber that is gone or
///   too slow does not get it later, unless it asks for the cached event, or for what it missed on a channel with
///   history.
/// - *History*: on a channel with history, `Ok` means that the event is in it.
/// - *Order*: everybody on a channel, on every worker and node, sees its publications in one order; those of one
///   caller that awaits each answer are in the caller's order.
/// - *Repeats*: a call made twice is two publications.
/// - *Isolation*: an app's publications reach channels of that app only.
pub trait Broker: Send + Sync {
    fn publish(&self, app: &Arc<App>, publication: &Publication<'_>) -> Answer<Result<(), NotPublished>>;

    /// The event remembered on a cache channel, if it has not expired.
    fn cached(&self, app: &App, channel: &ChannelName) -> Answer<Result<Option<CachedEvent>, Unavailable>>;

    /// Events that were published on a channel with history and are kept. Without history: none.
    fn history(
        &self,
        app: &App,
        channel: &ChannelName,
        query: HistoryQuery,
    ) -> Answer<Result<HistoryPage, Unavailable>>;

    /// Forgets what has expired. Called every second by the node.
    fn tick(&self);
}

/// What a broker tells its node. Implemented by the hub.
pub trait BrokerEvents: Send + Sync {
    /// For every local subscriber of the channel. Calls for one channel must not overlap. `position`: the place of the
    /// publication, on a channel with history, whose subscribers are told.
    ///
    /// # Errors
    /// Some worker has no room; then no worker got it.
    fn publication(
        &self,
        key: KeyRef<'_>,
        publication: &Publication<'_>,
        position: Option<Position>,
    ) -> Result<(), Overloaded>;

    /// Local subscribers of a channel with history have missed events that are not to be had any more; they stand at
    /// `position` now. In the channel's order, like a publication.
    fn lost(&self, key: KeyRef<'_>, position: Position);

    /// Whether a publication would find room now. Asked before it is sent to other nodes, where nothing can be taken back.
    fn has_room(&self, key: KeyRef<'_>) -> bool {
        let _ = key;
        true
    }
}

#[cfg(test)]
pub(crate) mod contract;
