//! Publications between whoever publishes and every node that has subscribers.
//!
//! Owns publishing and the cached event of cache channels. Must never know a socket or a dialect: what a
//! publication looks like on the wire is the hub's business.
//!
//! Start at [`Broker`]; [`memory`] is the half for one node.

pub mod memory;

use dunlin_protocol::names::{ChannelName, SocketId, UserId};

use crate::answer::Answer;
use crate::apps::App;
use crate::storage::keys::KeyRef;
use crate::storage::memory::CachedEvent;

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
    /// A connection that does not get it.
    pub except: Option<SocketId>,
    pub origin: Origin,
}

/// The publication was not accepted; nobody got it. Worth trying again in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too much is waiting to be delivered")]
pub struct Overloaded;

/// Publishing.
///
/// A promise of every implementation:
/// - *Delivery*: at most once. `Ok` means every node with subscribers has it or will; a subscriber that is gone or
///   too slow does not get it later, unless it asks for the cached event.
/// - *Order*: everybody on a channel, on every worker and node, sees its publications in one order; those of one
///   caller that awaits each answer are in the caller's order.
/// - *Repeats*: a call made twice is two publications.
/// - *Isolation*: an app's publications reach channels of that app only.
pub trait Broker: Send + Sync {
    fn publish(&self, app: &App, publication: &Publication<'_>) -> Answer<Result<(), Overloaded>>;

    /// The event remembered on a cache channel, if it has not expired.
    fn cached(&self, app: &App, channel: &ChannelName) -> Answer<Option<CachedEvent>>;

    /// Forgets what has expired. Called every second by the node.
    fn tick(&self);
}

/// What a broker tells its node. Implemented by the hub.
pub trait BrokerEvents: Send + Sync {
    /// For every local subscriber of the channel. Calls for one channel must not overlap.
    ///
    /// # Errors
    /// Some worker has no room; then no worker got it.
    fn publication(&self, key: KeyRef<'_>, publication: &Publication<'_>) -> Result<(), Overloaded>;
}

#[cfg(test)]
pub(crate) mod contract;
