//! `{"time_ms":1327078148132,"events":[{"name":"channel_occupied","channel":"my-channel"}]}` (Pusher docs, "Webhooks").

use dunlin_protocol::names::{ChannelName, UserId};
use serde::Serialize;

use super::json;
use crate::webhooks::event::ChannelEvent;

/// Every member that an event may have, in the order in which they are written.
#[derive(Default, Serialize)]
struct Written<'a> {
    name: &'static str,
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    /// A text whatever was published: the official Go library reads nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_count: Option<u32>,
}

pub(super) fn event(channel: &ChannelName, event: &ChannelEvent) -> Option<String> {
    let mut written = Written {
        channel: channel.as_str(),
        ..Written::default()
    };
    match event {
        ChannelEvent::Occupied => written.name = "channel_occupied",
        ChannelEvent::Vacated => written.name = "channel_vacated",
        ChannelEvent::MemberAdded { user_id } => {
            written.name = "member_added";
            written.user_id = Some(user_id.as_str());
        }
        ChannelEvent::MemberRemoved { user_id } => {
            written.name = "member_removed";
            written.user_id = Some(user_id.as_str());
        }
        ChannelEvent::CacheMiss => written.name = "cache_miss",
        ChannelEvent::SubscriptionCount { count } => {
            written.name = "subscription_count";
            written.subscription_count = Some(*count);
        }
        ChannelEvent::Published(published) => {
            written.name = "client_event";
            written.event = Some(&published.name);
            written.data = Some(&published.data);
            written.socket_id = Some(published.socket_id?.to_string());
            written.user_id = published.user_id.as_ref().map(UserId::as_str);
        }
        ChannelEvent::Bound { .. } | ChannelEvent::Unbound { .. } => return None,
    }
    Some(json(&written))
}

/// Of a name that no event has: receivers pass over those that they do not know.
pub(super) fn test(channel: &str) -> String {
    json(&Written {
        name: "test",
        channel,
        ..Written::default()
    })
}

pub(super) fn body(time_ms: u64, events: &str) -> String {
    format!(r#"{{"time_ms":{time_ms},"events":[{events}]}}"#)
}
