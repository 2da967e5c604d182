use std::sync::Arc;

use super::*;
use crate::webhooks::event::PublishedEvent;

const TIME_MS: u64 = 1_327_078_148_132;

fn published(name: &str, data: &str) -> PublishedEvent {
    PublishedEvent {
        name: name.into(),
        data: data.into(),
        socket_id: None,
        user_id: None,
        uuid: "".into(),
    }
}

/// The body of a single event.
fn body_of(source: Source, channel: &str, happened: &ChannelEvent) -> Option<String> {
    let written = event(source, &channel.parse().unwrap(), happened, TIME_MS)?;
    Some(body(source, &"a-key".parse().unwrap(), TIME_MS, &written))
}

/// The examples of Pusher's documentation ("Webhooks", events), in its spelling and its order of members.
#[test]
fn every_pusher_event_is_written_as_documented() {
    let user_id = || "a_user_id".parse().unwrap();
    let client_event = PublishedEvent {
        socket_id: Some("12.34".parse().unwrap()),
        ..published("client-typing", r#"{"at":7}"#)
    };
    let of_member = PublishedEvent {
        user_id: Some(user_id()),
        ..client_event.clone()
    };
    for (channel, happened, expected) in [
        (
            "my-channel",
            ChannelEvent::Occupied,
            r#"{"name":"channel_occupied","channel":"my-channel"}"#,
        ),
        (
            "my-channel",
            ChannelEvent::Vacated,
            r#"{"name":"channel_vacated","channel":"my-channel"}"#,
        ),
        (
            "presence-your_channel_name",
            ChannelEvent::MemberAdded { user_id: user_id() },
            r#"{"name":"member_added","channel":"presence-your_channel_name","user_id":"a_user_id"}"#,
        ),
        (
            "presence-your_channel_name",
            ChannelEvent::MemberRemoved { user_id: user_id() },
            r#"{"name":"member_removed","channel":"presence-your_channel_name","user_id":"a_user_id"}"#,
        ),
        (
            "cache-a",
            ChannelEvent::CacheMiss,
            r#"{"name":"cache_miss","channel":"cache-a"}"#,
        ),
        (
            "my-channel",
            ChannelEvent::SubscriptionCount { count: 3 },
            r#"{"name":"subscription_count","channel":"my-channel","subscription_count":3}"#,
        ),
        (
            "private-a",
            ChannelEvent::Published(Arc::new(client_event)),
            r#"{"name":"client_event","channel":"private-a","event":"client-typing","data":"{\"at\":7}","socket_id":"12.34"}"#,
        ),
        (
            "presence-a",
            ChannelEvent::Published(Arc::new(of_member)),
            r#"{"name":"client_event","channel":"presence-a","event":"client-typing","data":"{\"at\":7}","socket_id":"12.34","user_id":"a_user_id"}"#,
        ),
    ] {
        let expected = format!(r#"{{"time_ms":1327078148132,"events":[{expected}]}}"#);
        assert_eq!(
            body_of(Source::Events, channel, &happened).as_ref(),
            Some(&expected)
        );
    }
}

#[test]
fn yalgaar_bodies_hold_texts_only_and_seconds() {
    let uuid: Arc<str> = "a-user".into();
    let message = PublishedEvent {
        uuid: "a-user".into(),
        ..published("price", r#"{"eur":7}"#)
    };
    for (source, happened, expected) in [
        (
            Source::Presence,
            ChannelEvent::Bound { uuid: uuid.clone() },
            r#"{"items":{"source":"Presence","clientKey":"a-key","data":[{"channel":"a","uuid":"a-user","timestamp":"1327078148","action":"bind"}]}}"#,
        ),
        (
            Source::Presence,
            ChannelEvent::Unbound { uuid },
            r#"{"items":{"source":"Presence","clientKey":"a-key","data":[{"channel":"a","uuid":"a-user","timestamp":"1327078148","action":"unbind"}]}}"#,
        ),
        (
            Source::Message,
            ChannelEvent::Published(Arc::new(message)),
            r#"{"items":{"source":"Message","clientKey":"a-key","data":[{"channel":"a","uuid":"a-user","timestamp":"1327078148","message":"{\"eur\":7}"}]}}"#,
        ),
        (
            Source::Message,
            ChannelEvent::Published(Arc::new(published("price", "seven"))),
            r#"{"items":{"source":"Message","clientKey":"a-key","data":[{"channel":"a","uuid":"","timestamp":"1327078148","message":"seven"}]}}"#,
        ),
    ] {
        assert_eq!(body_of(source, "a", &happened).as_deref(), Some(expected));
    }
}

#[test]
fn a_test_says_that_it_is_one() {
    for (source, expected) in [
        (
            Source::Events,
            r#"{"time_ms":1327078148132,"events":[{"name":"test","channel":"dunlin-test"}]}"#,
        ),
        (
            Source::Presence,
            r#"{"items":{"source":"Presence","clientKey":"a-key","data":[{"channel":"dunlin-test","uuid":"","timestamp":"1327078148","action":"test"}]}}"#,
        ),
        (
            Source::Message,
            r#"{"items":{"source":"Message","clientKey":"a-key","data":[{"channel":"dunlin-test","uuid":"","timestamp":"1327078148","message":"test"}]}}"#,
        ),
    ] {
        assert_eq!(test_body(source, &"a-key".parse().unwrap(), TIME_MS), expected);
    }
}

#[test]
fn several_events_stand_in_one_list() {
    let channel = "a".parse().unwrap();
    let one = |happened| event(Source::Events, &channel, &happened, 0).unwrap();
    let events = [one(ChannelEvent::Occupied), one(ChannelEvent::Vacated)].join(",");
    assert_eq!(
        body(Source::Events, &"k".parse().unwrap(), 1, &events),
        r#"{"time_ms":1,"events":[{"name":"channel_occupied","channel":"a"},{"name":"channel_vacated","channel":"a"}]}"#
    );
}

#[test]
fn what_a_source_does_not_have_is_not_written() {
    let published = || ChannelEvent::Published(Arc::new(published("a", "b")));
    for (source, happened) in [
        (Source::Events, published()),
        (Source::Events, ChannelEvent::Bound { uuid: "".into() }),
        (Source::Presence, published()),
        (Source::Presence, ChannelEvent::Occupied),
        (Source::Message, ChannelEvent::Bound { uuid: "".into() }),
    ] {
        assert_eq!(body_of(source, "a", &happened), None, "{source:?} {happened:?}");
    }
}

#[test]
fn awkward_text_arrives_as_it_was() {
    for text in [
        "",
        "\"quoted\" and \\ back",
        "🦆 and \u{2028}\u{2029}",
        "\u{0}\u{1f}\u{7f}\r\n\t",
        "</script>",
        r#"{"nested":"{\"deeper\":\"\\ud83e\\udd86\"}"}"#,
    ] {
        let happened = ChannelEvent::Published(Arc::new(PublishedEvent {
            socket_id: Some("1.2".parse().unwrap()),
            uuid: text.into(),
            ..published("client-a", text)
        }));
        let read = |source| {
            let body = body_of(source, "private-a", &happened).expect("it is written");
            serde_json::from_str::<serde_json::Value>(&body).expect("it is JSON")
        };
        assert_eq!(read(Source::Events)["events"][0]["data"], text);
        let data = &read(Source::Message)["items"]["data"][0];
        assert_eq!((&data["message"], &data["uuid"]), (&text.into(), &text.into()));
    }
}
