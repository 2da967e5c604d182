//! Bodies of `POST …/events` and `POST …/batch_events`, validated whole before anything is delivered.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::{self, Write as _};

use serde::de::{DeserializeSeed, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use smallvec::SmallVec;
use thiserror::Error;

use crate::json;
use crate::names::{self, ChannelName, SocketId};
use crate::signature::QueryParams;

/// What one app may publish at a time. A limit of 0 means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishLimits {
    /// Most bytes of an event's data, decoded, in UTF-8.
    pub payload_bytes: usize,
    /// Most channels that one event goes to.
    pub channels_per_event: usize,
    /// Most events of a batch.
    pub batch_events: usize,
}

impl Default for PublishLimits {
    /// Those of the hosted service (Pusher Channels HTTP API docs).
    fn default() -> Self {
        Self {
            payload_bytes: 10_240,
            channels_per_event: 100,
            batch_events: 10,
        }
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct Refusal {
    /// 400 or 413.
    pub status: u16,
    /// The text of the answer, without a line end.
    pub message: String,
}

impl Refusal {
    fn bad_request(message: impl Into<String>) -> Self {
        Self {
            status: 400,
            message: message.into(),
        }
    }

    fn too_large(limit: usize) -> Self {
        let message = format!(
            "The data content of this event exceeds the allowed maximum ({limit} bytes). See the limits of your app for more info"
        );
        Self { status: 413, message }
    }

    fn in_batch(mut self, index: usize) -> Self {
        write!(self.message, " (batch[{index}])").expect("writing to a String cannot fail");
        self
    }
}

/// Which counts the caller wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InfoFlags {
    pub user_count: bool,
    pub subscription_count: bool,
    /// Only where a single channel is asked about.
    pub cache: bool,
}

/// An attribute that does not exist or does not apply; `Display` is the text of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("info should be a comma separated list of attributes")]
pub struct BadInfo;

impl InfoFlags {
    /// Reads a comma-separated list; empty entries are skipped.
    ///
    /// # Errors
    /// When an attribute is unknown.
    pub fn parse(list: &str) -> Result<Self, BadInfo> {
        let mut flags = Self::default();
        for attribute in list.split(',').map(str::trim) {
            match attribute {
                "" => {}
                "user_count" => flags.user_count = true,
                "subscription_count" => flags.subscription_count = true,
                "cache" => flags.cache = true,
                _ => return Err(BadInfo),
            }
        }
        Ok(flags)
    }

    /// Whether anything is asked at all.
    pub const fn any(self) -> bool {
        self.user_count || self.subscription_count || self.cache
    }
}

/// The channels of an event: nearly always one.
pub type Channels = SmallVec<[ChannelName; 1]>;

/// One event to deliver.
#[derive(Debug, Clone)]
pub struct PublishRequest<'a> {
    /// 1 to 200 characters, not reserved.
    pub name: Cow<'a, str>,
    /// At least one, none twice.
    pub channels: Channels,
    /// The data as the JSON string literal that was sent, with its quotes; never decoded on its way to the clients.
    pub data_literal: &'a str,
    /// Bytes of the data once decoded.
    pub data_bytes: usize,
    /// The connection that is not to get the event. An id that cannot be ours has become `None`.
    pub socket_id: Option<SocketId>,
    pub info: InfoFlags,
}

/// Raw parts, so that a wrong type is answered by the name of the parameter.
#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    channels: Option<&'a RawValue>,
    #[serde(borrow)]
    channel: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    socket_id: Option<&'a RawValue>,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
}

impl<'a> PublishRequest<'a> {
    /// Reads the body of `POST …/events`.
    ///
    /// # Errors
    /// The first rule that is broken: 413 for too much data, else 400.
    pub fn parse(body: &'a [u8], limits: &PublishLimits) -> Result<Self, Refusal> {
        Self::from_text(object_text(body)?, limits)
    }

    fn from_text(text: &'a str, limits: &PublishLimits) -> Result<Self, Refusal> {
        if !json::opens_object(text) {
            return Err(invalid_json());
        }
        let raw: RawEvent<'a> = serde_json::from_str(text).map_err(|_| invalid_json())?;
        let name = text_of(raw.name, "name")?;
        if names::is_reserved(&name) {
            return Err(Refusal::bad_request(
                "The 'pusher' namespace is reserved for internal usage",
            ));
        }
        if !names::is_event_name(&name) {
            return Err(Refusal::bad_request(
                "The event name must have 1 to 200 characters",
            ));
        }
        let channels = match (raw.channels, raw.channel) {
            (Some(list), _) => channel_list(list, limits.channels_per_event)?,
            (None, Some(_)) => {
                let mut channels = Channels::new();
                channels.push(channel_name(&text_of(raw.channel, "channel")?)?);
                channels
            }
            (None, None) => return Err(Refusal::bad_request("Missing parameter: channels")),
        };
        if channels.len() > 1 && channels.iter().any(|channel| channel.kind().is_encrypted()) {
            return Err(Refusal::bad_request(
                "An event for an encrypted channel cannot go to other channels as well",
            ));
        }
        let (data_literal, data_bytes) = data_literal(raw.data, limits.payload_bytes)?;
        let socket_id = match raw.socket_id {
            None => None,
            Some(_) => SocketId::parse(&text_of(raw.socket_id, "socket_id")?)
                .map_err(|_| Refusal::bad_request("Invalid socket id"))?,
        };
        let info = match raw.info {
            None => InfoFlags::default(),
            Some(_) => InfoFlags::parse(&text_of(raw.info, "info")?)
                .ok()
                .filter(|info| !info.cache)
                .ok_or_else(|| Refusal::bad_request(BadInfo.to_string()))?,
        };
        Ok(Self {
            name,
            channels,
            data_literal,
            data_bytes,
            socket_id,
            info,
        })
    }
}

/// The body that a `POST …/events` without one stands for: the API also takes the parameters from the query string,
/// arrays as `channels[]=`. `None` when the query names no event.
pub fn body_from_query(params: &QueryParams<'_>) -> Option<Vec<u8>> {
    let name = params.get("name")?;
    let mut body = b"{".to_vec();
    append_member(&mut body, "name", name);
    for key in ["channel", "data", "socket_id", "info"] {
        if let Some(value) = params.get(key) {
            body.push(b',');
            append_member(&mut body, key, value);
        }
    }
    let mut opening: &[u8] = b",\"channels\":[";
    for channel in params.all("channels[]").chain(params.all("channels")) {
        body.extend_from_slice(opening);
        append_text(&mut body, channel);
        opening = b",";
    }
    body.extend_from_slice(if opening == b"," { b"]}" } else { b"}" });
    Some(body)
}

fn append_member(body: &mut Vec<u8>, key: &str, value: &str) {
    append_text(body, key);
    body.push(b':');
    append_text(body, value);
}

fn append_text(body: &mut Vec<u8>, text: &str) {
    body.push(b'"');
    json::escape_into(body, text);
    body.push(b'"');
}

/// Several events in one request.
#[derive(Debug, Clone)]
pub struct BatchRequest<'a> {
    /// In the order of the request; each has exactly one channel.
    pub events: Vec<PublishRequest<'a>>,
}

#[derive(Deserialize)]
struct RawBatch<'a> {
    #[serde(borrow)]
    batch: Option<&'a RawValue>,
}

impl<'a> BatchRequest<'a> {
    /// Reads the body of `POST …/batch_events`. One bad event refuses the whole batch; the text names its index.
    ///
    /// # Errors
    /// The first rule that is broken: 413 for too much data, else 400.
    pub fn parse(body: &'a [u8], limits: &PublishLimits) -> Result<Self, Refusal> {
        let text = object_text(body)?;
        let raw: RawBatch<'a> = serde_json::from_str(text).map_err(|_| invalid_json())?;
        let not_an_array = || Refusal::bad_request("Expected batch parameter to be an array");
        let list = raw.batch.ok_or_else(not_an_array)?;
        let (events, count) = elements(list, limits.batch_events).ok_or_else(not_an_array)?;
        if count > events.len() {
            return Err(Refusal::bad_request(format!(
                "Batch too large (> {})",
                limits.batch_events
            )));
        }
        let limits = PublishLimits {
            channels_per_event: 1,
            ..*limits
        };
        let events = events.into_iter().enumerate().map(|(index, event)| {
            PublishRequest::from_text(event.get(), &limits).map_err(|refusal| refusal.in_batch(index))
        });
        Ok(Self {
            events: events.collect::<Result<_, _>>()?,
        })
    }

    /// Whether any event wants counts; if so, all get an entry in the answer.
    pub fn wants_info(&self) -> bool {
        self.events.iter().any(|event| event.info.any())
    }
}

fn invalid_json() -> Refusal {
    Refusal::bad_request("Invalid JSON")
}

fn object_text(body: &[u8]) -> Result<&str, Refusal> {
    let text = std::str::from_utf8(body).map_err(|_| invalid_json())?;
    if json::opens_object(text) {
        Ok(text)
    } else {
        Err(invalid_json())
    }
}

fn text_of<'a>(raw: Option<&'a RawValue>, parameter: &str) -> Result<Cow<'a, str>, Refusal> {
    raw.and_then(json::as_text)
        .ok_or_else(|| Refusal::bad_request(format!("Expected {parameter} parameter to be a string")))
}

fn channel_name(text: &str) -> Result<ChannelName, Refusal> {
    text.parse()
        .map_err(|_| Refusal::bad_request("Invalid channel name"))
}

fn channel_list(list: &RawValue, limit: usize) -> Result<Channels, Refusal> {
    let not_texts = || Refusal::bad_request("Expected channels parameter to be an array of strings");
    let (elements, count) = elements(list, limit).ok_or_else(not_texts)?;
    if count > elements.len() {
        return Err(Refusal::bad_request(format!(
            "An event may go to at most {limit} channels"
        )));
    }
    if elements.is_empty() {
        return Err(Refusal::bad_request("Missing parameter: channels"));
    }
    let mut channels = Channels::with_capacity(elements.len());
    let mut seen = HashSet::new();
    for element in elements {
        let channel = channel_name(&json::as_text(element).ok_or_else(not_texts)?)?;
        // Comparing with each other is quickest for the usual handful; a set keeps a long list linear.
        let is_new = if channels.len() < 16 {
            !channels.contains(&channel)
        } else {
            if seen.is_empty() {
                seen.extend(channels.iter().cloned());
            }
            seen.insert(channel.clone())
        };
        if is_new {
            channels.push(channel);
        }
    }
    Ok(channels)
}

fn data_literal(raw: Option<&RawValue>, limit: usize) -> Result<(&str, usize), Refusal> {
    let not_text = || Refusal::bad_request("Expected data parameter to be a string");
    let literal = raw
        .map(RawValue::get)
        .filter(|raw| raw.starts_with('"'))
        .ok_or_else(not_text)?;
    let bytes = json::walk_literal(literal.as_bytes())
        .ok_or_else(not_text)?
        .decoded_bytes;
    if limit > 0 && bytes > limit {
        return Err(Refusal::too_large(limit));
    }
    Ok((literal, bytes))
}

/// The first `limit` elements of an array (0: all), and how many there are. `None` when it is not an array.
fn elements(raw: &RawValue, limit: usize) -> Option<(SmallVec<[&RawValue; 4]>, usize)> {
    let mut text = serde_json::Deserializer::from_str(raw.get());
    Elements {
        limit: if limit == 0 { usize::MAX } else { limit },
    }
    .deserialize(&mut text)
    .ok()
}

/// Skips what is beyond the limit, so that a hostile list costs no memory.
struct Elements {
    limit: usize,
}

impl<'de> DeserializeSeed<'de> for Elements {
    type Value = (SmallVec<[&'de RawValue; 4]>, usize);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements {
    type Value = (SmallVec<[&'de RawValue; 4]>, usize);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut elements = SmallVec::new();
        while elements.len() < self.limit
            && let Some(element) = sequence.next_element()?
        {
            elements.push(element);
        }
        let mut count = elements.len();
        while sequence.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok((elements, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::SignedRequest;

    fn parse(body: &str) -> Result<PublishRequest<'_>, Refusal> {
        PublishRequest::parse(body.as_bytes(), &PublishLimits::default())
    }

    fn names(request: &PublishRequest<'_>) -> Vec<String> {
        request.channels.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_publish_is_read_without_touching_its_data() {
        let body = r#"{"name":"my-event","channels":["a","presence-b","a"],"data":"{\"k\":1,\"e\":\"\u00e9\"}","socket_id":"123.456","info":"subscription_count,user_count","extra":{"x":[]}}"#;
        let request = parse(body).unwrap();
        assert_eq!(request.name, "my-event");
        assert_eq!(names(&request), ["a", "presence-b"]);
        assert_eq!(request.data_literal, r#""{\"k\":1,\"e\":\"\u00e9\"}""#);
        assert_eq!(request.data_bytes, r#"{"k":1,"e":"é"}"#.len());
        assert_eq!(request.socket_id, Some(SocketId::new(123, 456)));
        assert_eq!(
            request.info,
            InfoFlags {
                user_count: true,
                subscription_count: true,
                cache: false
            }
        );
    }

    #[test]
    fn older_and_sloppier_requests_are_read_too() {
        let request = parse(r#" { "data" : "" , "channel" : "a", "name" : "App\\Events\\X" , "socket_id": null, "info": null } "#)
            .unwrap();
        assert_eq!(request.name, r"App\Events\X");
        assert_eq!(names(&request), ["a"]);
        assert_eq!((request.data_literal, request.data_bytes), (r#""""#, 0));
        assert_eq!((request.socket_id, request.info.any()), (None, false));
        let foreign =
            parse(r#"{"name":"e","channel":"a","data":"","socket_id":"1.99999999999999999999999"}"#).unwrap();
        assert_eq!(foreign.socket_id, None);
        let user = parse(r##"{"name":"e","channels":["#server-to-user-u1"],"data":""}"##).unwrap();
        assert_eq!(user.channels[0].server_to_user_id(), Some("u1"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let long_name = format!(r#"{{"name":"{}","channel":"a","data":""}}"#, "é".repeat(201));
        let many: Vec<String> = (0..101).map(|n| format!("\"c{n}\"")).collect();
        let many = format!(r#"{{"name":"e","channels":[{}],"data":""}}"#, many.join(","));
        let name = "Expected name parameter to be a string";
        let data = "Expected data parameter to be a string";
        let list = "Expected channels parameter to be an array of strings";
        let cases = [
            ("", "Invalid JSON"),
            ("[]", "Invalid JSON"),
            (r#"["e",["a"],null,"d",null,null]"#, "Invalid JSON"),
            (r#"{"name":"e","channel":"a","data":"""#, "Invalid JSON"),
            (
                r#"{"name":"e","name":"e","channel":"a","data":""}"#,
                "Invalid JSON",
            ),
            (
                "{\"name\":\"e\",\"channel\":\"a\",\"data\":\"\n\"}",
                "Invalid JSON",
            ),
            ("{}", name),
            (r#"{"name":7,"channel":"a","data":""}"#, name),
            (r#"{"name":"\ud800","channel":"a","data":""}"#, name),
            (
                r#"{"name":"","channel":"a","data":""}"#,
                "The event name must have 1 to 200 characters",
            ),
            (long_name.as_str(), "The event name must have 1 to 200 characters"),
            (
                r#"{"name":"pusher:x","channel":"a","data":""}"#,
                "The 'pusher' namespace is reserved for internal usage",
            ),
            (
                r#"{"name":"p\u0075sher_internal:x","channel":"a","data":""}"#,
                "The 'pusher' namespace is reserved for internal usage",
            ),
            (r#"{"name":"e","data":""}"#, "Missing parameter: channels"),
            (
                r#"{"name":"e","channels":[],"data":""}"#,
                "Missing parameter: channels",
            ),
            (r#"{"name":"e","channels":"a","data":""}"#, list),
            (r#"{"name":"e","channels":[7],"data":""}"#, list),
            (
                r#"{"name":"e","channel":7,"data":""}"#,
                "Expected channel parameter to be a string",
            ),
            (
                r#"{"name":"e","channels":["a","b c"],"data":""}"#,
                "Invalid channel name",
            ),
            (r#"{"name":"e","channel":"","data":""}"#, "Invalid channel name"),
            (many.as_str(), "An event may go to at most 100 channels"),
            (
                r#"{"name":"e","channels":["a","private-encrypted-b"],"data":""}"#,
                "An event for an encrypted channel cannot go to other channels as well",
            ),
            (r#"{"name":"e","channel":"a"}"#, data),
            (r#"{"name":"e","channel":"a","data":{"a":1}}"#, data),
            (r#"{"name":"e","channel":"a","data":"\ud800"}"#, data),
            (
                r#"{"name":"e","channel":"a","data":"","socket_id":"1"}"#,
                "Invalid socket id",
            ),
            (
                r#"{"name":"e","channel":"a","data":"","socket_id":1.2}"#,
                "Expected socket_id parameter to be a string",
            ),
            (
                r#"{"name":"e","channel":"a","data":"","info":"user_count,x"}"#,
                "info should be a comma separated list of attributes",
            ),
            (
                r#"{"name":"e","channel":"a","data":"","info":"cache"}"#,
                "info should be a comma separated list of attributes",
            ),
        ];
        for (body, message) in cases {
            let refusal = parse(body).unwrap_err();
            assert_eq!(
                (refusal.status, refusal.message.as_str()),
                (400, message),
                "{body}"
            );
        }
        assert_eq!(
            PublishRequest::parse(b"{\"name\":\"\xff\"}", &PublishLimits::default())
                .unwrap_err()
                .status,
            400
        );
    }

    #[test]
    fn data_is_measured_decoded() {
        let body = |data: &str| format!(r#"{{"name":"e","channel":"a","data":"{data}"}}"#);
        for (data, fits) in [
            ("x".repeat(10_240), true),
            ("x".repeat(10_241), false),
            (r#"\""#.repeat(10_240), true),
            (r"\u0041".repeat(10_240), true),
            ("é".repeat(5_120), true),
            ("é".repeat(5_121), false),
            (r"\ud83e\udd9c".repeat(2_560), true),
            (r"\ud83e\udd9c".repeat(2_561), false),
        ] {
            let body = body(&data);
            let result = parse(&body);
            assert_eq!(result.is_ok(), fits);
            if let Err(refusal) = result {
                assert_eq!(refusal.status, 413);
                assert!(refusal.message.starts_with(
                    "The data content of this event exceeds the allowed maximum (10240 bytes). See "
                ));
            }
        }
        let unlimited = PublishLimits {
            payload_bytes: 0,
            ..PublishLimits::default()
        };
        PublishRequest::parse(body(&"x".repeat(100_000)).as_bytes(), &unlimited).unwrap();
    }

    #[test]
    fn many_channels_collapse_to_the_distinct_ones_in_order() {
        let many: Vec<String> = (0..100).map(|n| format!("\"c{}\"", n % 40)).collect();
        let body = format!(r#"{{"name":"e","channels":[{}],"data":""}}"#, many.join(","));
        let expected: Vec<String> = (0..40).map(|n| format!("c{n}")).collect();
        assert_eq!(names(&parse(&body).unwrap()), expected);
        let unlimited = PublishLimits {
            channels_per_event: 0,
            ..PublishLimits::default()
        };
        let many: Vec<String> = (0..1_000).map(|n| format!("\"c{n}\"")).collect();
        let body = format!(r#"{{"name":"e","channels":[{}],"data":""}}"#, many.join(","));
        assert_eq!(
            PublishRequest::parse(body.as_bytes(), &unlimited)
                .unwrap()
                .channels
                .len(),
            1_000
        );
    }

    #[test]
    fn a_query_stands_in_for_a_body() {
        let query =
            "name=my+event&data=%7B%22a%22%3A1%7D%0A&channels[]=a&channels[]=b&socket_id=1.2&info=user_count";
        let body = body_from_query(&SignedRequest::new("POST", "/", query).params()).unwrap();
        let request = PublishRequest::parse(&body, &PublishLimits::default()).unwrap();
        assert_eq!(request.name, "my event");
        assert_eq!(names(&request), ["a", "b"]);
        assert_eq!(request.data_literal, r#""{\"a\":1}\n""#);
        assert_eq!(request.socket_id, Some(SocketId::new(1, 2)));
        assert!(request.info.user_count);
        let one = SignedRequest::new("POST", "/", "name=e&channel=a&data=").params();
        assert_eq!(
            body_from_query(&one).unwrap(),
            br#"{"name":"e","channel":"a","data":""}"#
        );
        assert_eq!(body_from_query(&QueryParams::default()), None);
    }

    fn parse_batch(body: &str) -> Result<BatchRequest<'_>, Refusal> {
        BatchRequest::parse(body.as_bytes(), &PublishLimits::default())
    }

    #[test]
    fn a_batch_keeps_its_order_and_knows_who_asks() {
        let batch = parse_batch(
            r#"{"batch":[{"name":"e1","channel":"a","data":"x","socket_id":"1.2","info":"subscription_count"},{"name":"e2","channel":"private-encrypted-b","data":"y"}]}"#,
        )
        .unwrap();
        assert_eq!(
            batch
                .events
                .iter()
                .map(|event| event.name.as_ref())
                .collect::<Vec<_>>(),
            ["e1", "e2"]
        );
        assert!(batch.wants_info());
        let empty = parse_batch(r#"{"batch":[]}"#).unwrap();
        assert!(empty.events.is_empty() && !empty.wants_info());
    }

    #[test]
    fn one_bad_event_refuses_the_batch_and_is_named() {
        let good = r#"{"name":"e","channel":"a","data":"x"}"#;
        let large = format!(r#"{{"name":"e","channel":"a","data":"{}"}}"#, "x".repeat(10_241));
        let batch = |bad: &str| format!(r#"{{"batch":[{good},{bad}]}}"#);
        let eleven = format!(r#"{{"batch":[{}]}}"#, [good; 11].join(","));
        let cases = [
            ("{}".to_owned(), 400, "Expected batch parameter to be an array"),
            (
                r#"{"batch":{}}"#.to_owned(),
                400,
                "Expected batch parameter to be an array",
            ),
            ("[[]]".to_owned(), 400, "Invalid JSON"),
            (eleven, 400, "Batch too large (> 10)"),
            (batch("7"), 400, "Invalid JSON (batch[1])"),
            (
                batch(r#"["e",null,"a","x",null,null]"#),
                400,
                "Invalid JSON (batch[1])",
            ),
            (
                batch(r#"{"name":"e","channel":"a b","data":""}"#),
                400,
                "Invalid channel name (batch[1])",
            ),
            (
                batch(r#"{"channel":"a","data":""}"#),
                400,
                "Expected name parameter to be a string (batch[1])",
            ),
        ];
        for (body, status, message) in cases {
            let refusal = parse_batch(&body).unwrap_err();
            assert_eq!(
                (refusal.status, refusal.message.as_str()),
                (status, message),
                "{body}"
            );
        }
        let refusal = BatchRequest::parse(batch(&large).as_bytes(), &PublishLimits::default()).unwrap_err();
        assert_eq!(refusal.status, 413);
        assert!(refusal.message.ends_with("(batch[1])"));
    }
}
