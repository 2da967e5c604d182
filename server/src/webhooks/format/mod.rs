//! The bodies of requests. What is written here is signed, stored and sent as it is.

mod pusher;
mod yalgaar;

use dunlin_protocol::names::{AppKey, ChannelName};
use serde::Serialize;

use super::delivery::Source;
use super::event::ChannelEvent;

/// An event as a body of this source has it; `None` when such bodies have none.
pub fn event(
    source: Source,
    channel: &ChannelName,
    event: &ChannelEvent,
    happened_at_ms: u64,
) -> Option<String> {
    match source {
        Source::Events => pusher::event(channel, event),
        Source::Presence => yalgaar::presence(channel, event, happened_at_ms),
        Source::Message => yalgaar::message(channel, event, happened_at_ms),
    }
}

/// A body around events, which are written one behind the other with commas between.
pub fn body(source: Source, key: &AppKey, time_ms: u64, events: &str) -> String {
    match source {
        Source::Events => pusher::body(time_ms, events),
        Source::Presence => yalgaar::body("Presence", key, events),
        Source::Message => yalgaar::body("Message", key, events),
    }
}

/// A body of this source that tells of nothing, and says so: `test`, on the channel `dunlin-test`.
pub fn test_body(source: Source, key: &AppKey, time_ms: u64) -> String {
    let event = match source {
        Source::Events => pusher::test(TEST_CHANNEL),
        Source::Presence => yalgaar::test_bind(TEST_CHANNEL, time_ms),
        Source::Message => yalgaar::test_message(TEST_CHANNEL, time_ms),
    };
    body(source, key, time_ms, &event)
}

const TEST_CHANNEL: &str = "dunlin-test";

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts and numbers can always be written")
}

#[cfg(test)]
mod tests;
