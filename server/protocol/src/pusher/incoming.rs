//! What clients say. Nothing is decoded that need not be; whatever is wrong becomes the text of a `pusher:error`.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::position::{MAX_LAST, Since};
use crate::{json, names};

/// One message of a client, borrowing from its text where it can.
#[derive(Debug, Clone)]
pub enum ClientMessage<'a> {
    Subscribe {
        channel: Cow<'a, str>,
        /// `KEY:SIGNATURE`. pusher-js sends an empty text for public channels, which is the same as none.
        auth: Option<Cow<'a, str>>,
        /// The exact text that was signed, on whatever kind of channel it comes.
        channel_data: Option<Cow<'a, str>>,
    },
    Unsubscribe {
        channel: Cow<'a, str>,
    },
    /// What of the past the next subscription to this channel is to bring (own addition).
    Resume {
        channel: Cow<'a, str>,
        since: Since,
    },
    Ping,
    Pong,
    SignIn {
        auth: Cow<'a, str>,
        /// The exact text that was signed.
        user_data: Cow<'a, str>,
    },
    /// An event whose name starts with `client-`. Absent parts are for the session to refuse.
    ClientEvent {
        event: Cow<'a, str>,
        channel: Option<Cow<'a, str>>,
        /// Any JSON without lone surrogates and at most 100 levels deep.
        data: Option<&'a RawValue>,
    },
    Unsupported {
        event: Cow<'a, str>,
    },
}

/// Why a text is no message; `Display` is the message of the `pusher:error` in answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadMessage {
    #[error("Invalid JSON")]
    InvalidJson,
    #[error("Missing parameter: {0}")]
    Missing(&'static str),
    #[error("Invalid parameter: {0} must be a string")]
    NotText(&'static str),
    #[error("Invalid parameter: data must be an object")]
    DataNotObject,
    #[error(
        "Invalid resume (data must hold either position, as it was given, or last, from 1 to {MAX_LAST})"
    )]
    BadResume,
    #[error("Invalid client event (data is nested too deeply or not valid Unicode)")]
    UnsoundData,
}

/// Raw parts, so that a wrong type is answered by name instead of as broken JSON.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow)]
    channel: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// Every member that any `pusher:` message may have in its `data`.
#[derive(Deserialize, Default)]
struct RawParameters<'a> {
    #[serde(borrow)]
    channel: Option<&'a RawValue>,
    #[serde(borrow)]
    auth: Option<&'a RawValue>,
    #[serde(borrow)]
    channel_data: Option<&'a RawValue>,
    #[serde(borrow)]
    user_data: Option<&'a RawValue>,
}

impl<'a> ClientMessage<'a> {
    /// Reads one text message. Unknown members are ignored, the order of members does not matter, and a member given
    /// twice is an error.
    ///
    /// # Errors
    /// When it is not a JSON object, or lacks what its event needs. The connection stays open.
    pub fn parse(text: &'a str) -> Result<Self, BadMessage> {
        if !json::opens_object(text) {
            return Err(BadMessage::InvalidJson);
        }
        let envelope: Envelope<'a> = serde_json::from_str(text).map_err(|_| BadMessage::InvalidJson)?;
        let event = required(envelope.event, "event")?;
        match event.as_ref() {
            "pusher:ping" => Ok(Self::Ping),
            "pusher:pong" => Ok(Self::Pong),
            "pusher:subscribe" => Parameters::read(envelope.data)?.subscribe(),
            "pusher:unsubscribe" => Parameters::read(envelope.data)?.unsubscribe(),
            "pusher:signin" => Parameters::read(envelope.data)?.sign_in(),
            "pusher:resume" => Ok(Self::Resume {
                channel: required(envelope.channel, "channel")?,
                since: since(envelope.data).ok_or(BadMessage::BadResume)?,
            }),
            name if names::is_client_event(name) => {
                if envelope.data.is_some_and(|data| !json::is_sound(data)) {
                    return Err(BadMessage::UnsoundData);
                }
                let channel = envelope.channel.and_then(json::as_text);
                Ok(Self::ClientEvent {
                    event,
                    channel,
                    data: envelope.data,
                })
            }
            _ => Ok(Self::Unsupported { event }),
        }
    }
}

/// The members of `data`, decoded and checked to be strings.
struct Parameters<'a> {
    channel: Result<Cow<'a, str>, BadMessage>,
    auth: Result<Cow<'a, str>, BadMessage>,
    channel_data: Result<Cow<'a, str>, BadMessage>,
    user_data: Result<Cow<'a, str>, BadMessage>,
}

impl<'a> Parameters<'a> {
    fn read(data: Option<&'a RawValue>) -> Result<Self, BadMessage> {
        let Some(data) = data else {
            return Ok(Self::decode(&RawParameters::default()));
        };
        let text = data.get();
        if text.starts_with('"') {
            // Some clients send the object as a string holding JSON.
            let inner = json::as_text(data).ok_or(BadMessage::InvalidJson)?;
            return Ok(Parameters::decode(&raw_parameters(&inner)?).into_owned());
        }
        Ok(Self::decode(&raw_parameters(text)?))
    }

    fn decode(raw: &RawParameters<'a>) -> Self {
        Self {
            channel: required(raw.channel, "data.channel"),
            auth: required(raw.auth, "data.auth"),
            channel_data: required(raw.channel_data, "data.channel_data"),
            user_data: required(raw.user_data, "data.user_data"),
        }
    }

    fn into_owned(self) -> Parameters<'static> {
        fn own(part: Result<Cow<'_, str>, BadMessage>) -> Result<Cow<'static, str>, BadMessage> {
            part.map(|text| Cow::Owned(text.into_owned()))
        }
        Parameters {
            channel: own(self.channel),
            auth: own(self.auth),
            channel_data: own(self.channel_data),
            user_data: own(self.user_data),
        }
    }

    fn subscribe(self) -> Result<ClientMessage<'a>, BadMessage> {
        Ok(ClientMessage::Subscribe {
            channel: channel(self.channel)?,
            auth: optional(self.auth)?.filter(|auth| !auth.is_empty()),
            channel_data: optional(self.channel_data)?,
        })
    }

    fn unsubscribe(self) -> Result<ClientMessage<'a>, BadMessage> {
        Ok(ClientMessage::Unsubscribe {
            channel: channel(self.channel)?,
        })
    }

    fn sign_in(self) -> Result<ClientMessage<'a>, BadMessage> {
        Ok(ClientMessage::SignIn {
            auth: self.auth?,
            user_data: self.user_data?,
        })
    }
}

/// What `data` of a `pusher:resume` asks for: an object, or a text holding one.
fn since(data: Option<&RawValue>) -> Option<Since> {
    #[derive(Deserialize)]
    struct Asked<'a> {
        #[serde(borrow)]
        position: Option<&'a RawValue>,
        #[serde(borrow)]
        last: Option<&'a RawValue>,
    }
    let data = data?;
    let inner = json::as_text(data);
    let text = inner.as_deref().unwrap_or(data.get());
    if !json::opens_object(text) {
        return None;
    }
    match serde_json::from_str(text).ok()? {
        Asked {
            position: Some(position),
            last: None,
        } => json::as_text(position)?.parse().ok().map(Since::After),
        Asked {
            position: None,
            last: Some(last),
        } => {
            let last = last.get().parse().ok()?;
            (1..=MAX_LAST).contains(&last).then_some(Since::Last(last))
        }
        Asked { .. } => None,
    }
}

fn raw_parameters(text: &str) -> Result<RawParameters<'_>, BadMessage> {
    if !json::opens_object(text) {
        return Err(BadMessage::DataNotObject);
    }
    serde_json::from_str(text).map_err(|_| BadMessage::InvalidJson)
}

fn required<'a>(raw: Option<&'a RawValue>, name: &'static str) -> Result<Cow<'a, str>, BadMessage> {
    let raw = raw.ok_or(BadMessage::Missing(name))?;
    json::as_text(raw).ok_or(BadMessage::NotText(name))
}

fn optional(part: Result<Cow<'_, str>, BadMessage>) -> Result<Option<Cow<'_, str>>, BadMessage> {
    match part {
        Err(BadMessage::Missing(_)) => Ok(None),
        part => part.map(Some),
    }
}

/// A channel that is not a string counts as missing: that is the text existing servers answer with.
fn channel(part: Result<Cow<'_, str>, BadMessage>) -> Result<Cow<'_, str>, BadMessage> {
    part.map_err(|_| BadMessage::Missing("data.channel"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match ClientMessage::parse(text) {
            Ok(message) => format!("{message:?}"),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn what_pusher_js_sends_is_understood() {
        let cases = [
            (
                r#"{"event":"pusher:subscribe","data":{"auth":"","channel":"pub"}}"#,
                r#"Subscribe { channel: "pub", auth: None, channel_data: None }"#,
            ),
            (
                r#"{"event":"pusher:subscribe","data":{"auth":"KEY:SIG","channel":"private-a"}}"#,
                r#"Subscribe { channel: "private-a", auth: Some("KEY:SIG"), channel_data: None }"#,
            ),
            (
                r#"{"event":"pusher:subscribe","data":{"auth":"K:S","channel_data":"{\"user_id\":7}","channel":"presence-b"}}"#,
                r#"Subscribe { channel: "presence-b", auth: Some("K:S"), channel_data: Some("{\"user_id\":7}") }"#,
            ),
            (
                r#"{"event":"pusher:unsubscribe","data":{"channel":"pub"}}"#,
                r#"Unsubscribe { channel: "pub" }"#,
            ),
            (
                r#"{"event":"client-x","data":{"a":1},"channel":"private-a"}"#,
                r#"ClientEvent { event: "client-x", channel: Some("private-a"), data: Some(RawValue({"a":1})) }"#,
            ),
            (r#"{"event":"pusher:ping","data":{}}"#, "Ping"),
            (r#"{"event":"pusher:pong","data":{}}"#, "Pong"),
            (
                r#"{"event":"pusher:signin","data":{"auth":"KEY:SIG","user_data":"{\"id\":\"u1\"}"}}"#,
                r#"SignIn { auth: "KEY:SIG", user_data: "{\"id\":\"u1\"}" }"#,
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn habits_of_other_clients_are_understood() {
        let cases = [
            (r#"{"event": "pusher:ping"}"#, "Ping"),
            (r#" { "data" : null , "event" : "pusher:pong" } "#, "Pong"),
            (r#"{"event":"pusher:ping","data":"{}"}"#, "Ping"),
            (r#"{"event":"pusher:ping","data":[1]}"#, "Ping"),
            (r#"{"event":"pusher:pin\u0067"}"#, "Ping"),
            (
                r#"{"x":[{"y":1}],"data":{"z":{},"channel":"a"},"event":"pusher:subscribe"}"#,
                r#"Subscribe { channel: "a", auth: None, channel_data: None }"#,
            ),
            (
                r#"{"event":"pusher:subscribe","data":{"channel":"a","auth":null,"channel_data":null}}"#,
                r#"Subscribe { channel: "a", auth: None, channel_data: None }"#,
            ),
            (
                r#"{"event":"pusher:subscribe","data":"{\"channel\":\"a\",\"auth\":\"k:s\",\"channel_data\":\"{\\\"user_id\\\":7}\"}"}"#,
                r#"Subscribe { channel: "a", auth: Some("k:s"), channel_data: Some("{\"user_id\":7}") }"#,
            ),
            (
                r#"{"event":"client-x"}"#,
                r#"ClientEvent { event: "client-x", channel: None, data: None }"#,
            ),
            (
                r#"{"event":"client-x","channel":7,"data":"s"}"#,
                r#"ClientEvent { event: "client-x", channel: None, data: Some(RawValue("s")) }"#,
            ),
            (
                r#"{"event":"pusher:resume","data":{"position":"7:8"},"channel":"a"}"#,
                r#"Resume { channel: "a", since: After(Position { epoch: 7, serial: 8 }) }"#,
            ),
            (
                r#"{"event":"pusher:resume","channel":"a","data":"{\"last\":10,\"x\":[]}"}"#,
                r#"Resume { channel: "a", since: Last(10) }"#,
            ),
            (
                r#"{"event":"pusher:resume","channel":"a","data":{"last":1000,"position":null}}"#,
                r#"Resume { channel: "a", since: Last(1000) }"#,
            ),
            (
                r#"{"event":"pusher:fly"}"#,
                r#"Unsupported { event: "pusher:fly" }"#,
            ),
            (r#"{"event":""}"#, r#"Unsupported { event: "" }"#),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            ("", "Invalid JSON"),
            ("x", "Invalid JSON"),
            ("{", "Invalid JSON"),
            ("[]", "Invalid JSON"),
            (r#"["pusher:ping",null,null]"#, "Invalid JSON"),
            (r#""pusher:ping""#, "Invalid JSON"),
            (r#"{"event":"pusher:ping"} x"#, "Invalid JSON"),
            (r#"{"event":"pusher:ping","event":"pusher:pong"}"#, "Invalid JSON"),
            ("{\"event\":\"pusher:ping\n\"}", "Invalid JSON"),
            ("{}", "Missing parameter: event"),
            (r#"{"event":null}"#, "Missing parameter: event"),
            (r#"{"event":7}"#, "Invalid parameter: event must be a string"),
            (
                r#"{"event":"\ud800"}"#,
                "Invalid parameter: event must be a string",
            ),
            (
                r#"{"event":"pusher:subscribe"}"#,
                "Missing parameter: data.channel",
            ),
            (
                r#"{"event":"pusher:subscribe","data":{}}"#,
                "Missing parameter: data.channel",
            ),
            (
                r#"{"event":"pusher:subscribe","data":{"channel":7}}"#,
                "Missing parameter: data.channel",
            ),
            (
                r#"{"event":"pusher:unsubscribe","data":{"channel":null}}"#,
                "Missing parameter: data.channel",
            ),
            (
                r#"{"event":"pusher:subscribe","data":["a"]}"#,
                "Invalid parameter: data must be an object",
            ),
            (
                r#"{"event":"pusher:subscribe","data":"a"}"#,
                "Invalid parameter: data must be an object",
            ),
            (r#"{"event":"pusher:subscribe","data":"{a"}"#, "Invalid JSON"),
            (
                r#"{"event":"pusher:subscribe","data":{"channel":"a","auth":7}}"#,
                "Invalid parameter: data.auth must be a string",
            ),
            (
                r#"{"event":"pusher:subscribe","data":{"channel":"a","channel_data":{"user_id":1}}}"#,
                "Invalid parameter: data.channel_data must be a string",
            ),
            (
                r#"{"event":"pusher:signin","data":{"user_data":"{}"}}"#,
                "Missing parameter: data.auth",
            ),
            (
                r#"{"event":"pusher:signin","data":{"auth":"k:s"}}"#,
                "Missing parameter: data.user_data",
            ),
            (
                r#"{"event":"client-x","channel":"a","data":"\udc00"}"#,
                "Invalid client event (data is nested too deeply or not valid Unicode)",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), format!("error: {expected}"), "{text}");
        }
    }

    #[test]
    fn a_resume_asks_for_one_thing_within_bounds() {
        for data in [
            "null",
            "7",
            "\"7:8\"",
            "[\"7:8\"]",
            "{}",
            r#"{"position":"7"}"#,
            r#"{"position":78}"#,
            r#"{"position":"7:8","last":1}"#,
            r#"{"position":"7:8","position":"7:9"}"#,
            r#"{"last":0}"#,
            r#"{"last":1001}"#,
            r#"{"last":-1}"#,
            r#"{"last":1.5}"#,
            r#"{"last":"1"}"#,
            r#""{\"last\":""#,
        ] {
            let text = format!(r#"{{"event":"pusher:resume","channel":"a","data":{data}}}"#);
            assert_eq!(
                ClientMessage::parse(&text).unwrap_err(),
                BadMessage::BadResume,
                "{text}"
            );
        }
        for (text, expected) in [
            (
                r#"{"event":"pusher:resume","channel":"a"}"#,
                BadMessage::BadResume,
            ),
            (
                r#"{"event":"pusher:resume","data":{"last":1}}"#,
                BadMessage::Missing("channel"),
            ),
            (
                r#"{"event":"pusher:resume","channel":7,"data":{"last":1}}"#,
                BadMessage::NotText("channel"),
            ),
        ] {
            assert_eq!(ClientMessage::parse(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_or_skipped_without_recursion() {
        let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
        let event = format!(r#"{{"event":"client-x","channel":"private-a","data":{deep}}}"#);
        assert_eq!(ClientMessage::parse(&event).unwrap_err(), BadMessage::UnsoundData);
        let skipped = format!(r#"{{"x":{deep},"event":"pusher:ping","data":{deep}}}"#);
        assert!(matches!(ClientMessage::parse(&skipped), Ok(ClientMessage::Ping)));
        let inside = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"a","x":{deep}}}}}"#);
        assert!(matches!(
            ClientMessage::parse(&inside),
            Ok(ClientMessage::Subscribe { .. })
        ));
        let open = format!(r#"{{"event":"client-x","data":{}"#, "[{\"a\":".repeat(50_000));
        assert_eq!(ClientMessage::parse(&open).unwrap_err(), BadMessage::InvalidJson);
    }

    #[test]
    fn a_plain_message_is_borrowed() {
        let text = r#"{"event":"pusher:subscribe","data":{"auth":"k:s","channel":"private-a"}}"#;
        let Ok(ClientMessage::Subscribe {
            channel: Cow::Borrowed(_),
            auth: Some(Cow::Borrowed(_)),
            ..
        }) = ClientMessage::parse(text)
        else {
            panic!("copied");
        };
    }
}
