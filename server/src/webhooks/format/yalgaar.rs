//! `{"items":{"source":"Presence","clientKey":"…","data":[{"channel":"…","uuid":"…","timestamp":"…","action":"bind"}]}}`.
//!
//! `items` is one object in spite of its name, and everything in it is a text, also the time, which is in seconds.

use dunlin_protocol::names::{AppKey, ChannelName};
use serde::Serialize;

use super::json;
use crate::webhooks::event::ChannelEvent;

#[derive(Serialize)]
struct Bind<'a> {
    channel: &'a str,
    uuid: &'a str,
    timestamp: String,
    action: &'static str,
}

#[derive(Serialize)]
struct Publication<'a> {
    channel: &'a str,
    uuid: &'a str,
    timestamp: String,
    message: &'a str,
}

pub(super) fn presence(channel: &ChannelName, event: &ChannelEvent, happened_at_ms: u64) -> Option<String> {
    let (uuid, action) = match event {
        ChannelEvent::Bound { uuid } => (uuid, "bind"),
        ChannelEvent::Unbound { uuid } => (uuid, "unbind"),
        _ => return None,
    };
    Some(json(&Bind {
        channel: channel.as_str(),
        uuid,
        timestamp: seconds(happened_at_ms),
        action,
    }))
}

pub(super) fn message(channel: &ChannelName, event: &ChannelEvent, happened_at_ms: u64) -> Option<String> {
    let ChannelEvent::Published(published) = event else {
        return None;
    };
    Some(json(&Publication {
        channel: channel.as_str(),
        uuid: &published.uuid,
        timestamp: seconds(happened_at_ms),
        message: &published.data,
    }))
}

/// Neither bind nor unbind.
pub(super) fn test_bind(channel: &str, at_ms: u64) -> String {
    json(&Bind {
        channel,
        uuid: "",
        timestamp: seconds(at_ms),
        action: "test",
    })
}

pub(super) fn test_message(channel: &str, at_ms: u64) -> String {
    json(&Publication {
        channel,
        uuid: "",
        timestamp: seconds(at_ms),
        message: "test",
    })
}

pub(super) fn body(source: &str, key: &AppKey, data: &str) -> String {
    let key = json(key);
    format!(r#"{{"items":{{"source":"{source}","clientKey":{key},"data":[{data}]}}}}"#)
}

fn seconds(ms: u64) -> String {
    (ms / 1000).to_string()
}
