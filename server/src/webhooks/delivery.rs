//! What is sent to a customer's endpoint: one POST, from its first attempt to its last.

use std::fmt;
use std::str::FromStr;

use dunlin_protocol::names::AppId;

use crate::clock;

/// Names an endpoint within its app: from its configuration, or `ep_` and letters that follow from what it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub std::sync::Arc<str>);

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names a delivery: `msg_` and 32 hexadecimal digits, the first twelve of which are the time in milliseconds. It is the
/// `webhook-id` of every attempt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(String);

impl DeliveryId {
    pub fn new() -> Self {
        let random = rand::random::<u128>() >> 48;
        let number = (u128::from(clock::unix_millis()) << 80) | random;
        Self(format!("msg_{number:032x}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for DeliveryId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// It is not of the form that we give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a delivery's id is msg_ and 32 hexadecimal digits")]
pub struct NoDeliveryId;

impl FromStr for DeliveryId {
    type Err = NoDeliveryId;

    fn from_str(text: &str) -> Result<Self, NoDeliveryId> {
        let digits = text.strip_prefix("msg_").ok_or(NoDeliveryId)?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() != 32 || !digits.bytes().all(is_digit) {
            return Err(NoDeliveryId);
        }
        Ok(Self(text.to_owned()))
    }
}

/// Which of an endpoint's URLs a delivery goes to, and what kind of body it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The one URL of the Pusher format.
    Events,
    /// The Yalgaar format's Presence URL.
    Presence,
    /// The Yalgaar format's Message URL.
    Message,
}

impl Source {
    pub const ALL: [Self; 3] = [Self::Events, Self::Presence, Self::Message];

    /// In the store, and for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Presence => "presence",
            Self::Message => "message",
        }
    }
}

/// A delivery that is about to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDelivery {
    pub id: DeliveryId,
    pub app: AppId,
    pub endpoint: EndpointId,
    pub source: Source,
    /// Unix milliseconds, at which the body was made: its `time_ms`, which no retry changes.
    pub created_at_ms: u64,
    /// A bit for each channel in it, by the hash of the name: two deliveries of an endpoint and source that share a bit
    /// are sent one after the other.
    pub lanes: u64,
    /// Events in it; 0: it is a test.
    pub events: u32,
    /// The bytes that are signed and sent, JSON.
    pub body: String,
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// To be attempted, at once or later.
    Pending,
    /// The endpoint has taken it.
    Done,
    /// Given up, and kept for a replay.
    Dead,
}

impl State {
    pub const ALL: [Self; 3] = [Self::Pending, Self::Done, Self::Dead];

    /// In the store, and for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }
}

/// A stored delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Grows with each delivery stored.
    pub seq: i64,
    pub id: DeliveryId,
    pub app: AppId,
    pub endpoint: EndpointId,
    pub source: Source,
    pub created_at_ms: u64,
    pub lanes: u64,
    pub events: u32,
    pub body: String,
    pub state: State,
    /// Attempts so far, of this life: a replay begins again.
    pub attempts: u32,
    /// Not before; Unix milliseconds.
    pub next_at_ms: u64,
    /// When it became done or dead.
    pub finished_at_ms: Option<u64>,
}

impl Delivery {
    /// Nothing has happened: somebody wants to see how the endpoint does. There is one attempt, and no retry.
    pub fn is_test(&self) -> bool {
        self.events == 0
    }
}

/// One try to send a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Unix milliseconds at its beginning.
    pub at_ms: u64,
    pub took_ms: u32,
    /// The status of the answer; `None`: there was none.
    pub status: Option<u16>,
    /// For people: the beginning of the answer's body, or why there was none.
    pub note: String,
}
