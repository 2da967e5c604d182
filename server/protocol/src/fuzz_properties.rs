//! What must hold for every input, however hostile. The property tests below and the fuzz targets in `tests/fuzz` feed
//! the same functions, so a finding of one can be replayed by the other. Each panics when its property is broken.

use serde_json::Value;

use crate::http::publish::{BatchRequest, PublishLimits, PublishRequest, body_from_query};
use crate::names::{AppId, AppKey, ChannelKind, ChannelName, SocketId, UserId};
use crate::position::{Position, Since};
use crate::pusher::incoming::ClientMessage;
use crate::pusher::outgoing::{self, MemberFragment, Opcode, PresenceList};
use crate::pusher::presence::{PresenceMember, SignedInUser};
use crate::signature::{AuthError, Secret, SignedRequest};

/// The JSON of a frame that must be one whole text frame.
fn parsed(frame: &[u8]) -> Value {
    let mut all = outgoing::frames(frame);
    let first = all.next().expect("a frame");
    assert!(all.next().is_none(), "one frame");
    assert_eq!(first.opcode, Opcode::Text);
    serde_json::from_slice(first.payload).expect("a frame holds JSON")
}

/// The JSON inside the `data` string of a frame.
fn parsed_data(frame: &[u8]) -> Value {
    serde_json::from_str(parsed(frame)["data"].as_str().expect("data is a string")).expect("data holds JSON")
}

/// Messages of clients, and the frames that follow from them.
pub fn client_message(text: &str) {
    match ClientMessage::parse(text) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(ClientMessage::Subscribe {
            channel,
            auth,
            channel_data,
        }) => {
            assert_ne!(auth.as_deref(), Some(""));
            assert_eq!(
                parsed(&outgoing::subscription_succeeded(&channel))["channel"],
                *channel
            );
            if let Some(data) = channel_data {
                presence_texts(&data);
            }
        }
        Ok(ClientMessage::SignIn { user_data, .. }) => {
            presence_texts(&user_data);
            assert_eq!(
                parsed_data(&outgoing::signin_success(&user_data))["user_data"],
                *user_data
            );
        }
        Ok(ClientMessage::ClientEvent { event, channel, data }) => {
            if let Some(data) = data {
                let literal = outgoing::to_string_literal(data);
                let channel = channel.unwrap_or_default();
                let sent = parsed(&outgoing::event(&channel, &event, &literal, Some(&event)));
                assert_eq!(sent["event"], *event);
                assert_eq!(sent["channel"], *channel);
                assert_eq!(sent["user_id"], *event);
                let place = Position { epoch: 1, serial: 2 };
                let both = outgoing::event_at(place, &channel, &event, &literal, Some(&event));
                let alone = outgoing::event(&channel, &event, &literal, Some(&event));
                assert!(both.ends_with(&alone), "the place stands in front of the event");
                assert_eq!(outgoing::frames(&both).count(), 2);
                let sent = sent["data"].as_str().expect("data is a string");
                // A number beyond f64 is legal JSON that only this comparison cannot hold.
                match serde_json::from_str::<Value>(data.get()) {
                    Ok(Value::String(text)) => assert_eq!(sent, text),
                    Ok(value) => {
                        assert_eq!(serde_json::from_str::<Value>(sent).expect("compact JSON"), value);
                    }
                    Err(error) => assert!(serde_json::from_str::<Value>(sent).is_err(), "{error}"),
                }
            }
        }
        Ok(ClientMessage::Resume { channel, since }) => {
            if let Since::After(position) = since {
                let told = parsed_data(&outgoing::skipped(position, &channel));
                assert_eq!(told["position"], position.to_string());
                let told = parsed(&outgoing::recovered(&channel, Some(position), None));
                assert_eq!(told["channel"], *channel);
            }
        }
        Ok(ClientMessage::Unsubscribe { .. } | ClientMessage::Ping | ClientMessage::Pong) => {}
        Ok(ClientMessage::Unsupported { event }) => assert!(!event.starts_with("client-")),
    }
}

/// `channel_data` and `user_data`, and the frames that show a member.
pub fn presence_texts(text: &str) {
    let signed_in = SignedInUser::parse(text).ok();
    if let Some(user) = &signed_in {
        assert!(user.watchlist.len() <= 100);
        ChannelName::server_to_user(&user.id).expect("a signed-in user has a channel");
        let frame = outgoing::watchlist_events(&user.watchlist, std::slice::from_ref(&user.id));
        assert!(parsed_data(&frame)["events"].is_array());
    }
    let members = [
        PresenceMember::parse(text, 1024).ok(),
        signed_in.and_then(|user| user.to_presence_member(1024).ok()),
    ];
    for member in members.into_iter().flatten() {
        let fragment = MemberFragment::from(&member);
        // A number beyond f64 is legal JSON that only these comparisons cannot hold.
        let Ok(info) = serde_json::from_str::<Value>(member.user_info.as_deref().unwrap_or("{}")) else {
            continue;
        };
        let added = parsed_data(&outgoing::member_added("presence-a", &fragment));
        assert_eq!(added["user_id"], member.user_id.as_str());
        assert_eq!(added["user_info"], info);
        let removed = parsed_data(&outgoing::member_removed("presence-a", member.user_id.as_str()));
        assert_eq!(removed["user_id"], member.user_id.as_str());
        let list = PresenceList::of([&fragment]);
        let listed = parsed_data(&outgoing::subscription_succeeded_presence("presence-a", &list));
        assert_eq!(listed["presence"]["hash"][member.user_id.as_str()], info);
        assert_eq!(listed["presence"]["count"], 1);
    }
}

/// Bodies of both publish endpoints.
pub fn publish_body(body: &[u8]) {
    let limits = PublishLimits::default();
    if let Ok(request) = PublishRequest::parse(body, &limits) {
        sound_request(&request, &limits);
        // Members that nobody asked for are skipped, not decoded, and may hold what a decoder refuses.
        if let Ok(whole) = serde_json::from_slice::<Value>(body) {
            assert_eq!(whole["name"], *request.name);
        }
    }
    if let Ok(batch) = BatchRequest::parse(body, &limits) {
        assert!(batch.events.len() <= limits.batch_events);
        for event in &batch.events {
            assert_eq!(event.channels.len(), 1);
            sound_request(event, &limits);
        }
    }
}

fn sound_request(request: &PublishRequest<'_>, limits: &PublishLimits) {
    assert!(!request.name.starts_with("pusher"));
    assert!((1..=limits.channels_per_event).contains(&request.channels.len()));
    let data: String = serde_json::from_str(request.data_literal).expect("a literal decodes");
    assert_eq!(data.len(), request.data_bytes);
    assert!(data.len() <= limits.payload_bytes);
    for (at, channel) in request.channels.iter().enumerate() {
        assert!(!request.channels[..at].contains(channel), "no channel twice");
        let sent = parsed(&outgoing::event(
            channel.as_str(),
            &request.name,
            request.data_literal,
            None,
        ));
        assert_eq!(sent["event"], *request.name);
        assert_eq!(sent["channel"], channel.as_str());
        assert_eq!(sent["data"], data);
    }
}

/// Signed requests: nothing unsigned passes, and what is signed in the documented way does.
pub fn signed_request(path: &str, query: &str, body: &[u8]) {
    const NOW: i64 = 1_700_000_000;
    let secret = Secret::new("secret");
    let unsigned = SignedRequest::new("POST", path, query);
    // Only who knows the secret gets through; a fuzzer does not.
    assert!(
        unsigned.verify(&secret, body, NOW).is_err(),
        "verified without a signature"
    );
    if let Some(body) = body_from_query(&unsigned.params()) {
        publish_body(&body);
    }
    // Parameters of our own would otherwise not be the first of their name.
    let lower = query.to_ascii_lowercase();
    if lower.contains("auth") || lower.contains("md5") || query.contains('%') {
        return;
    }
    let digest = hex::encode(<md5::Md5 as md5::Digest>::digest(body));
    let query = format!("{query}&auth_version=1.0&auth_timestamp={NOW}&body_md5={digest}");
    let mut pairs: Vec<(String, &str)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    pairs.sort_by(|one, other| one.0.cmp(&other.0));
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let text = format!("POST\n{path}\n{}", pairs.join("&"));
    let hex = secret.sign_hex(&[text.as_bytes()]);
    let hex = std::str::from_utf8(&hex).expect("hex digits");
    let query = format!("{query}&auth_signature={hex}");
    let signed = SignedRequest::new("POST", path, &query);
    assert_eq!(signed.verify(&secret, body, NOW), Ok(()), "{text}");
    assert!(matches!(
        signed.verify(&Secret::new("other"), body, NOW),
        Err(AuthError::InvalidSignature { .. })
    ));
    let more = [body, b"x"].concat();
    assert_eq!(signed.verify(&secret, &more, NOW), Err(AuthError::InvalidBodyMd5));
}

/// Every name parses to what prints the same, or not at all.
pub fn name(text: &str) {
    let in_alphabet = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-=@,.;".contains(&b))
    };
    let user = text.strip_prefix("#server-to-user-");
    let legal = match user {
        Some(id) => (1..=128).contains(&id.len()) && in_alphabet(id),
        None => (1..=200).contains(&text.len()) && in_alphabet(text),
    };
    let channel = text.parse::<ChannelName>();
    assert_eq!(channel.is_ok(), legal);
    if let Ok(channel) = channel {
        assert_eq!(channel.as_str(), text);
        assert_eq!(channel.server_to_user_id(), user);
        assert_eq!(channel.kind(), ChannelKind::of(text));
        let json = serde_json::to_string(&channel).expect("a name is a string");
        assert_eq!(
            serde_json::from_str::<ChannelName>(&json).expect("and back"),
            channel
        );
    }
    if let Ok(id) = UserId::for_sign_in(text) {
        let channel = ChannelName::server_to_user(&id).expect("a signed-in user has a channel");
        assert_eq!(channel.server_to_user_id(), Some(text));
    }
    assert_eq!(
        text.parse::<UserId>().is_ok(),
        (1..=128).contains(&text.chars().count())
    );
    if let Ok(Some(id)) = SocketId::parse(text) {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(id) = text.parse::<AppId>() {
        assert_eq!(id.as_str(), text);
    }
    if let Ok(key) = text.parse::<AppKey>() {
        assert!(!key.as_str().contains(':'));
    }
}

/// The walk over frames ends, stays inside, and finds again what was put in.
pub fn server_frames(bytes: &[u8]) {
    let walked: usize = outgoing::frames(bytes).map(|frame| frame.payload.len() + 2).sum();
    assert!(walked <= bytes.len());
    let reason = String::from_utf8_lossy(bytes);
    let row = [
        outgoing::text_frame(bytes),
        outgoing::error(None, &reason),
        outgoing::close_frame(4200, &reason),
    ];
    let joined = row.concat();
    let mut frames = outgoing::frames(&joined);
    assert_eq!(frames.next().expect("the first").payload, bytes);
    assert_eq!(parsed(&row[1])["data"]["message"], *reason);
    assert_eq!(frames.next().map(|frame| frame.opcode), Some(Opcode::Text));
    let close = frames.next().expect("the third");
    let (code, cut) = close.close_reason().expect("a close frame");
    assert!(code == 4200 && reason.starts_with(cut) && close.payload.len() <= 125);
    assert!(frames.next().is_none());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// JSON that is mostly what clients send, with awkward texts in every place.
    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn member(names: &'static [&'static str]) -> impl Strategy<Value = (&'static str, Value)> {
        (prop::sample::select(names), json_value())
    }

    fn object(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
        prop::collection::vec(member(names), 0..6)
            .prop_map(|members| {
                members
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect()
            })
            .prop_map(Value::Object)
    }

    fn message() -> impl Strategy<Value = String> {
        let event = prop_oneof![
            "client-[ -~é\"]{0,9}",
            Just("pusher:subscribe".to_owned()),
            Just("pusher:unsubscribe".to_owned()),
            Just("pusher:signin".to_owned()),
            Just("pusher:resume".to_owned()),
            Just("pusher:ping".to_owned()),
            any::<String>(),
        ];
        let channel = prop_oneof![
            "(private-|presence-)?[a-z]{0,9}".prop_map(Value::from),
            json_value()
        ];
        let data = prop_oneof![
            object(&["channel", "auth", "channel_data", "user_data", "x"]),
            object(&["position", "last"]),
            any::<(u64, u64)>()
                .prop_map(|(epoch, serial)| serde_json::json!({"position": format!("{epoch}:{serial}")})),
            (0..2000u32).prop_map(|last| serde_json::json!({"last": last})),
            json_value()
        ];
        (event, channel, data, any::<bool>(), any::<bool>()).prop_map(
            |(event, channel, mut data, quoted, pretty)| {
                if quoted {
                    data = Value::String(data.to_string());
                }
                let value = serde_json::json!({"event": event, "channel": channel, "data": data});
                if pretty {
                    format!("{value:#}")
                } else {
                    value.to_string()
                }
            },
        )
    }

    fn publish() -> impl Strategy<Value = String> {
        let names = prop::collection::vec("(private-encrypted-|presence-)?[a-d]{1,2}", 1..20);
        let data = prop_oneof![any::<String>().prop_map(Value::from), json_value()];
        let socket_id = prop_oneof![
            Just(Value::Null),
            "[0-9]{1,12}\\.[0-9]{1,22}".prop_map(Value::from)
        ];
        let info = prop_oneof![
            Just(Value::Null),
            "(user_count|subscription_count|,| ){0,4}".prop_map(Value::from)
        ];
        (any::<String>(), names, data, socket_id, info, any::<bool>()).prop_map(
            |(name, channels, data, socket_id, info, batched)| {
                if batched {
                    let event = serde_json::json!({
                        "name": name, "channel": channels[0], "data": data, "socket_id": socket_id, "info": info
                    });
                    serde_json::json!({"batch": [event.clone(), event]}).to_string()
                } else {
                    serde_json::json!({
                        "name": name, "channels": channels, "data": data, "socket_id": socket_id, "info": info
                    })
                    .to_string()
                }
            },
        )
    }

    proptest! {
        #[test]
        fn client_messages_hold(text in message()) {
            client_message(&text);
        }

        #[test]
        fn arbitrary_text_from_clients_holds(text in any::<String>()) {
            client_message(&text);
            presence_texts(&text);
        }

        #[test]
        fn presence_texts_hold(value in object(&["user_id", "id", "user_info", "watchlist"])) {
            presence_texts(&value.to_string());
        }

        #[test]
        fn members_hold(id in any::<String>(), info in object(&["name", "é\"\\"])) {
            presence_texts(&serde_json::json!({"user_id": id, "user_info": info}).to_string());
            presence_texts(&serde_json::json!({"id": "u", "user_info": info, "watchlist": [id]}).to_string());
        }

        #[test]
        fn publish_bodies_hold(body in publish()) {
            publish_body(body.as_bytes());
        }

        #[test]
        fn arbitrary_bodies_hold(body in any::<Vec<u8>>()) {
            publish_body(&body);
        }

        #[test]
        fn cut_bodies_hold(body in publish(), cut in any::<prop::sample::Index>()) {
            publish_body(&body.as_bytes()[..cut.index(body.len())]);
        }

        #[test]
        fn signed_requests_hold(
            path in "/[a-z0-9/@%]{0,20}",
            query in "([a-zA-Z+;,.]{0,4}(=[a-z0-9=+,é]{0,6})?&){0,6}",
            body in any::<Vec<u8>>(),
        ) {
            signed_request(&path, &query, &body);
        }

        #[test]
        fn arbitrary_requests_hold(path in any::<String>(), query in any::<String>(), body in any::<Vec<u8>>()) {
            signed_request(&path, &query, &body);
        }

        #[test]
        fn names_hold(text in prop_oneof![
            any::<String>(),
            "(#server-to-user-|private-|presence-)?[a-zA-Z0-9_=@,.;-]{0,210}",
            "[0-9]{0,12}\\.[0-9]{0,22}",
        ]) {
            name(&text);
        }

        #[test]
        fn frames_hold(bytes in any::<Vec<u8>>()) {
            server_frames(&bytes);
        }

        #[test]
        fn long_frames_hold(length in 0_usize..70_000, byte in any::<u8>()) {
            server_frames(&vec![byte; length]);
        }
    }
}
