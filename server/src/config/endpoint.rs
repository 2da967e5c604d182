//! A webhook endpoint as it is written down: an entry of `[[apps.webhooks]]`, or JSON of the same shape.
//!
//! Only its shape. Whether it can be delivered to is judged by whoever will do so, `webhooks/endpoint.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::{self, Deserializer};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::sections::{ConfigSecret, REDACTED, millis, secret_or_empty};

/// An endpoint. What an entry leaves out is as in [`EndpointSection::default`]; the page about options holds the same
/// values, and a test compares them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct EndpointSection {
    /// A name of 1 to 64 letters, digits, `_` and `-`, its own within the app; empty: one that follows from format and
    /// URLs.
    pub id: String,
    /// Off: nothing is sent, and events do not wait for it.
    pub enabled: bool,
    /// For people.
    pub description: String,
    /// What its bodies look like.
    pub format: BodyFormat,
    /// Where bodies of the Pusher format go.
    pub url: String,
    /// Where binds and unbinds go in the Yalgaar format; empty: nowhere.
    pub presence_url: String,
    /// Where messages go in the Yalgaar format; empty: nowhere.
    pub message_url: String,
    /// What it is told of; empty: all that its format has.
    pub events: Vec<EventType>,
    /// Only channels whose name begins so; empty: all.
    pub channel_prefix: String,
    /// Only channels of these names, in which `*` stands for anything; those with `!` in front of them are left out. Empty:
    /// all.
    pub channels: Vec<String>,
    /// Sent with every request, by name. Secrets, because they often are.
    #[serde(deserialize_with = "headers", serialize_with = "exposed_headers")]
    pub headers: BTreeMap<String, ConfigSecret>,
    /// What the Standard Webhooks headers are signed with: `whsec_` and base64. `None`: the app's secret.
    #[serde(deserialize_with = "secret_or_empty", serialize_with = "exposed")]
    pub secret: Option<ConfigSecret>,
    /// Signs as well, until every receiver has learnt the new one.
    #[serde(deserialize_with = "secret_or_empty", serialize_with = "exposed")]
    pub previous_secret: Option<ConfigSecret>,
    /// When it ceases to, Unix milliseconds; zero: when it is taken away.
    pub previous_secret_until_ms: u64,
    /// How long events wait for others to share their request.
    #[serde(
        rename = "batch_ms",
        deserialize_with = "millis",
        serialize_with = "in_millis"
    )]
    pub batch: Duration,
    /// Most events in a request.
    pub batch_size: usize,
    /// Give up after five minutes, not after days.
    pub short_retries: bool,
}

impl Default for EndpointSection {
    fn default() -> Self {
        Self {
            id: String::new(),
            enabled: true,
            description: String::new(),
            format: BodyFormat::Pusher,
            url: String::new(),
            presence_url: String::new(),
            message_url: String::new(),
            events: Vec::new(),
            channel_prefix: String::new(),
            channels: Vec::new(),
            headers: BTreeMap::new(),
            secret: None,
            previous_secret: None,
            previous_secret_until_ms: 0,
            batch: Duration::from_secs(1),
            batch_size: 100,
            short_retries: false,
        }
    }
}

impl EndpointSection {
    /// # Errors
    /// It is not of this shape; the text quotes no secret.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Every option by its name but the id, for people and programs: secrets are replaced, and empty where there are none.
    pub fn shown(&self) -> Value {
        let redacted = || ConfigSecret::from(REDACTED);
        let redact = |secret: &Option<ConfigSecret>| secret.as_ref().map(|_| redacted());
        let shown = Self {
            headers: self
                .headers
                .keys()
                .map(|name| (name.clone(), redacted()))
                .collect(),
            secret: redact(&self.secret),
            previous_secret: redact(&self.previous_secret),
            ..self.clone()
        };
        let mut shown = shown.written();
        if let Value::Object(options) = &mut shown {
            options.remove("id");
        }
        shown
    }

    fn written(&self) -> Value {
        serde_json::to_value(self).expect("texts and numbers can always be written")
    }

    /// What [`EndpointSection::from_json`] reads, with all secrets. What is as by default is left out, as one would in a
    /// file, so that an older version can read whatever does not ask for more than it knows.
    pub fn to_json(&self) -> String {
        let (mut own, default) = (self.written(), Self::default().written());
        if let Value::Object(options) = &mut own {
            options.retain(|name, value| default.get(name) != Some(value));
        }
        own.to_string()
    }
}

/// What a request's body looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyFormat {
    /// `{"time_ms":…,"events":[…]}`
    Pusher,
    /// `{"items":{"source":…,"clientKey":…,"data":[…]}}`, presence and messages apart.
    Yalgaar,
}

impl BodyFormat {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pusher => "pusher",
            Self::Yalgaar => "yalgaar",
        }
    }
}

/// What an endpoint can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    ChannelOccupied,
    ChannelVacated,
    MemberAdded,
    MemberRemoved,
    ClientEvent,
    CacheMiss,
    SubscriptionCount,
    Bind,
    Unbind,
    Message,
}

impl EventType {
    pub const ALL: [Self; 10] = [
        Self::ChannelOccupied,
        Self::ChannelVacated,
        Self::MemberAdded,
        Self::MemberRemoved,
        Self::ClientEvent,
        Self::CacheMiss,
        Self::SubscriptionCount,
        Self::Bind,
        Self::Unbind,
        Self::Message,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChannelOccupied => "channel_occupied",
            Self::ChannelVacated => "channel_vacated",
            Self::MemberAdded => "member_added",
            Self::MemberRemoved => "member_removed",
            Self::ClientEvent => "client_event",
            Self::CacheMiss => "cache_miss",
            Self::SubscriptionCount => "subscription_count",
            Self::Bind => "bind",
            Self::Unbind => "unbind",
            Self::Message => "message",
        }
    }

    /// The format that has it.
    pub const fn format(self) -> BodyFormat {
        match self {
            Self::ChannelOccupied
            | Self::ChannelVacated
            | Self::MemberAdded
            | Self::MemberRemoved
            | Self::ClientEvent
            | Self::CacheMiss
            | Self::SubscriptionCount => BodyFormat::Pusher,
            Self::Bind | Self::Unbind | Self::Message => BodyFormat::Yalgaar,
        }
    }
}

/// Serde's own message about a value of another type would quote it.
fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, ConfigSecret>, D::Error> {
    let headers = BTreeMap::<String, String>::deserialize(deserializer)
        .map_err(|_| de::Error::custom("headers must be a table of texts"))?;
    Ok(headers
        .into_iter()
        .map(|(name, value)| (name, ConfigSecret::from(value.as_str())))
        .collect())
}

// Secrets are written here and nowhere else: a `Serialize` of their own would write them wherever somebody forgets.

#[expect(clippy::ref_option, reason = "serde calls it with the field")]
fn exposed<S: Serializer>(secret: &Option<ConfigSecret>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.as_ref().map_or("", ConfigSecret::expose))
}

fn exposed_headers<S: Serializer>(
    headers: &BTreeMap<String, ConfigSecret>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(headers.iter().map(|(name, value)| (name, value.expose())))
}

fn in_millis<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
