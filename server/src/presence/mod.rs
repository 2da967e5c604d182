//! Who is where: connections and users in channels, and users who are signed in.
//!
//! Owns occupancy, membership, the counts and the watchlists. Must never decide by looking at local sockets: the
//! answer to "am I the first" comes from the state that all nodes share.
//!
//! Start at [`Presence`]; [`memory`] and [`users`] are the half for one node.
//!
//! Invariant: an answer to a join is an event in the channel's own order. It reaches the joiner's worker between
//! the publications before it and those after it, so that nothing is missed and nothing comes twice.

pub mod memory;
pub mod users;

use std::sync::Arc;

use dunlin_protocol::names::{ChannelName, UserId};
use dunlin_protocol::position::Position;
pub use dunlin_protocol::position::Since;
use dunlin_protocol::pusher::outgoing::{MemberFragment, PresenceList};
use dunlin_protocol::pusher::presence::PresenceMember;

use crate::answer::{Answer, Unavailable};
use crate::apps::App;
use crate::storage::keys::{AppNum, ChannelKey};
use crate::storage::memory::{CachedEvent, PastEvent};

/// A connection of this node. Slots are reused; the generation tells a connection from its successors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionRef {
    pub worker: u16,
    pub slot: u32,
    pub generation: u32,
}

/// A connection that wants into a channel.
#[derive(Debug)]
pub struct Join {
    pub app: Arc<App>,
    pub channel: Arc<ChannelKey>,
    pub connection: ConnectionRef,
    /// On presence channels.
    pub member: Option<PresenceMember>,
    /// As whom it is bound, where the app's webhooks tell of every subscription.
    pub bound: Option<UserId>,
    /// What of the past the joiner wants, on a channel with history; elsewhere it is answered by "not recovered". At most
    /// [`MAX_RECOVERED`] are given.
    pub since: Option<Since>,
}

/// The most events of its past that a joiner is given. Who missed more has not recovered, and reads the history or loads
/// its state anew.
pub const MAX_RECOVERED: u32 = 5000;

/// What the joiner is told first.
#[derive(Debug)]
pub struct Joined {
    /// Who is there, the joiner included; on presence channels.
    pub members: Option<PresenceList>,
    pub cache: Cache,
    /// The user as whom the connection is in the channel.
    pub user_id: Option<UserId>,
    /// As whom it was told to be bound.
    pub bound: Option<UserId>,
    /// On a channel with history, or if the joiner asked for its past.
    pub recovery: Option<Recovery>,
    /// The number of subscribers, where it was announced so early that the joiner cannot have heard it.
    pub count: Option<u32>,
}

/// The past that a joiner gets, between its confirmation and the first live event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Where the joiner is once it has `events`. `None`: the channel has no history.
    pub position: Option<Position>,
    /// Whether it now has everything it asked for; `None`: it did not ask. Fewer than the last so many are everything
    /// if there were no more in the epoch.
    pub is_complete: Option<bool>,
    /// The oldest first.
    pub events: Vec<PastEvent>,
}

#[derive(Debug)]
pub enum Cache {
    /// Not a cache channel.
    None,
    Miss,
    Hit(CachedEvent),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefusal {
    #[error("The presence channel is full: at most {limit} members")]
    Full { limit: u32 },
}

/// A connection that left a channel.
#[derive(Debug)]
pub struct Leave {
    pub app: Arc<App>,
    pub channel: Arc<ChannelKey>,
    pub user_id: Option<UserId>,
    /// As whom it was told to be bound, if it was; who it is on a presence channel in any case.
    pub bound: Option<UserId>,
}

/// A page of an app's occupied channels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelPage {
    pub channels: Vec<(ChannelName, Occupancy)>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<String>,
}

/// A user's connection that signed in, or whose signing in ends.
#[derive(Debug)]
pub struct SignIn {
    pub app: Arc<App>,
    pub connection: ConnectionRef,
    pub user_id: UserId,
    /// Whose coming and going the connection is told.
    pub watchlist: Arc<[UserId]>,
}

/// One channel, as the HTTP API shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    pub connections: u32,
    pub users: u32,
}

/// Presence.
///
/// A promise of every implementation:
/// - `join` is answered exactly once through [`PresenceEvents::joined`], in the channel's order. A member that was
///   not there is announced to the others in the same step. A refused join leaves nothing behind.
/// - `leave` undoes one `join` that was answered with `Ok`; the last connection of a user announces the removal.
/// - Reads are exact at some moment during the call.
pub trait Presence: Send + Sync {
    fn join(&self, join: Join);
    fn leave(&self, leave: Leave);
    fn sign_in(&self, sign_in: &SignIn);
    fn sign_out(&self, sign_in: &SignIn);
    fn occupancy(&self, app: &App, channel: &ChannelName) -> Answer<Result<Occupancy, Unavailable>>;
    /// Occupied channels that start with `prefix`, some hundred at a time, in any order, each that stays occupied
    /// meanwhile exactly once. `cursor`: the `next` of the page before.
    fn channels(
        &self,
        app: &App,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Answer<Result<ChannelPage, Unavailable>>;
    /// The users of a presence channel, in the order of their ids.
    fn users(&self, app: &App, channel: &ChannelName) -> Answer<Result<Vec<UserId>, Unavailable>>;
    /// Closes every connection that is signed in as this user, wherever it is. `Ok`: all nodes know or will.
    fn terminate_user(&self, app: &App, user_id: &UserId) -> Answer<Result<(), Unavailable>>;
    /// Takes a place in the app's connection quota, answered exactly once through [`PresenceEvents::admitted`]; a
    /// place that was granted is given back by [`Presence::dismiss`].
    fn admit(&self, app: &Arc<App>, connection: ConnectionRef);
    fn dismiss(&self, app: &Arc<App>);
    /// Announces the counts that the throttle held back. Called every second by the node.
    fn tick(&self);
}

/// An in-band announcement to everybody in a channel.
#[derive(Debug)]
pub enum Announcement<'a> {
    MemberAdded(&'a MemberFragment),
    MemberRemoved(&'a UserId),
    SubscriptionCount(u32),
}

/// What presence tells its node. Implemented by the hub.
pub trait PresenceEvents: Send + Sync {
    fn joined(
        &self,
        connection: ConnectionRef,
        channel: &Arc<ChannelKey>,
        app: &Arc<App>,
        answer: Result<Joined, JoinRefusal>,
    );
    fn announce(&self, channel: &ChannelKey, announcement: &Announcement<'_>);
    /// Tells one connection which of the users it watches are there and which are not.
    fn watched(&self, connection: ConnectionRef, online: &[&UserId], offline: &[&UserId]);
    /// Closes every connection of this node that is signed in as this user.
    fn terminate_user(&self, app: AppNum, user_id: &UserId);
    /// Whether the connection has a place in its app's quota.
    fn admitted(&self, connection: ConnectionRef, app: &Arc<App>, granted: bool);
}

#[cfg(test)]
pub(crate) mod contract;
