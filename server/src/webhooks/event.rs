//! What customers can be told of.

use std::sync::Arc;

use dunlin_protocol::names::{SocketId, UserId};
use serde::{Deserialize, Serialize};

/// Something that happened in an app's channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelEvent {
    /// The first subscriber has come.
    Occupied,
    /// The last one has left, and nobody came back within the settle window.
    Vacated,
    /// The first connection of a user has come.
    MemberAdded { user_id: UserId },
    /// The last one has left, and none came back within the settle window.
    MemberRemoved { user_id: UserId },
    /// Somebody subscribed to a cache channel that remembers nothing.
    CacheMiss,
    /// The number of subscribers changed; as often as they are told themselves.
    SubscriptionCount { count: u32 },
    /// A connection subscribed. `uuid`: the member's user, else the signed-in user, else the socket id.
    Bound { uuid: Arc<str> },
    /// A subscription ended.
    Unbound { uuid: Arc<str> },
    /// An event was published.
    Published(Arc<PublishedEvent>),
}

/// An event that was published, over the HTTP API or by a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedEvent {
    #[serde(rename = "n")]
    pub name: Box<str>,
    /// The payload as text: itself if it was a string, else its JSON.
    #[serde(rename = "d")]
    pub data: Box<str>,
    /// The connection that sent it: then it is a client event.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub socket_id: Option<SocketId>,
    /// Its user, on a presence channel.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// As for [`ChannelEvent::Bound`]; empty for what came over the HTTP API.
    #[serde(rename = "i", default, skip_serializing_if = "str::is_empty")]
    pub uuid: Box<str>,
}
