//! What a subscriber has seen.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use dunlin_load::payload::{Finder, after, position};
use serde_json::Value;

use super::socket::End;

/// Everything that came to one subscriber, over all its connections.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// While it is connected.
    pub(crate) socket_id: Option<String>,
    /// Every end of a connection that it did not end itself.
    pub(crate) ends: Vec<(Instant, End)>,
    /// From each end of a connection until it was subscribed to everything again.
    pub(crate) absences: Vec<Duration>,
    pub(crate) channels: HashMap<String, ChannelRecord>,
    /// Messages that nobody who speaks the protocol sends.
    pub(crate) oddities: Vec<String>,
    finder: Finder,
}

/// What a subscriber has seen of one channel.
#[derive(Debug, Default)]
pub(crate) struct ChannelRecord {
    pub(crate) is_subscribed: bool,
    /// In the order in which it came.
    pub(crate) log: Vec<Seen>,
    /// The members, as the list and the announcements after it say.
    pub(crate) members: BTreeSet<String>,
    /// Announcements of members.
    pub(crate) moves: Vec<Move>,
    /// After the last event, as the server said; only on channels with history.
    pub(crate) position: Option<String>,
    /// Of the event that is to come next. It counts once that event is here.
    announced: Option<String>,
    /// The epochs that it was told of, in their order.
    pub(crate) epochs: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The event with this sequence number.
    Event(u32, Instant),
    /// A new subscription that continues where the last event was.
    Recovered,
    /// A new subscription behind which something may be missing.
    Broken,
}

/// A member came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) at: Instant,
    pub(crate) user: String,
    pub(crate) is_added: bool,
}

impl ChannelRecord {
    /// The sequence numbers in the order in which they came.
    pub(crate) fn sequences(&self) -> impl Iterator<Item = u32> {
        self.log.iter().filter_map(|seen| match seen {
            Seen::Event(sequence, _) => Some(*sequence),
            Seen::Recovered | Seen::Broken => None,
        })
    }

    /// When the first event after `moment` came.
    pub(crate) fn first_after(&self, moment: Instant) -> Option<Instant> {
        self.log.iter().find_map(|seen| match seen {
            Seen::Event(_, at) if *at > moment => Some(*at),
            _ => None,
        })
    }

    /// How often each user was announced as added and as removed, since `moment`.
    pub(crate) fn moves_since(&self, moment: Instant) -> BTreeMap<&str, (u32, u32)> {
        let mut counts: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
        for change in self.moves.iter().filter(|change| change.at > moment) {
            let (added, removed) = counts.entry(&change.user).or_default();
            *if change.is_added { added } else { removed } += 1;
        }
        counts
    }
}

/// What a subscriber has to do about a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    None,
    /// The connection is established: subscribe.
    Subscribe,
    Pong,
}

impl Record {
    pub(crate) fn channel(&self, name: &str) -> Option<&ChannelRecord> {
        self.channels.get(name)
    }

    /// Enters a message.
    pub(crate) fn enter(&mut self, message: &[u8]) -> Duty {
        if let Some(stamp) = self.finder.find(message) {
            let channel = channel_of(message).and_then(|name| self.channels.get_mut(name));
            match channel {
                Some(channel) => {
                    channel.reach_announced();
                    channel.log.push(Seen::Event(stamp.sequence, Instant::now()));
                }
                None => self.odd(message),
            }
            return Duty::None;
        }
        if let Ok(Value::Object(fields)) = serde_json::from_slice(message) {
            return self.enter_system(message, &fields);
        }
        self.odd(message);
        Duty::None
    }

    fn enter_system(&mut self, message: &[u8], fields: &serde_json::Map<String, Value>) -> Duty {
        let event = fields.get("event").and_then(Value::as_str).unwrap_or_default();
        let data: Value = match fields.get("data") {
            Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_default(),
            other => other.cloned().unwrap_or_default(),
        };
        let text = |name: &str| data[name].as_str().map(str::to_owned);
        match event {
            "pusher:connection_established" => {
                self.socket_id = text("socket_id");
                return Duty::Subscribe;
            }
            "pusher:ping" => return Duty::Pong,
            // The close that follows says the same.
            "pusher:pong" | "pusher:error" => return Duty::None,
            _ => {}
        }
        let name = fields.get("channel").and_then(Value::as_str).unwrap_or_default();
        let Some(channel) = self.channels.get_mut(name) else {
            self.odd(message);
            return Duty::None;
        };
        let user = || text("user_id").or_else(|| data["user_id"].as_u64().map(|id| id.to_string()));
        match event {
            "pusher_internal:subscription_succeeded" => {
                channel.is_subscribed = true;
                channel.announced = None;
                if !channel.log.is_empty() && channel.position.is_none() {
                    channel.log.push(Seen::Broken);
                }
                let ids = data["presence"]["ids"].as_array();
                let ids = ids.into_iter().flatten().filter_map(Value::as_str);
                channel.members = ids.map(str::to_owned).collect();
            }
            "pusher_internal:member_added" | "pusher_internal:member_removed" => {
                let (is_added, user) = (event.ends_with("added"), user().unwrap_or_default());
                let is_news = if is_added {
                    channel.members.insert(user.clone())
                } else {
                    channel.members.remove(&user)
                };
                let at = Instant::now();
                channel.moves.push(Move { at, user, is_added });
                if !is_news {
                    self.odd(message);
                }
            }
            "pusher_internal:position" => {
                channel.announced = text("position");
                if data["skipped"] == Value::Bool(true) {
                    channel.reach_announced();
                }
            }
            "pusher_internal:recovered" => {
                // Without an answer to this it had not asked: its first time here, or it does not care what it missed.
                let is_recovered = data["recovered"].as_bool();
                if is_recovered == Some(true) {
                    channel.log.push(Seen::Recovered);
                } else if is_recovered.is_some() || !channel.log.is_empty() {
                    channel.log.push(Seen::Broken);
                }
                channel.announced = text("position");
                channel.reach_announced();
            }
            "pusher_internal:subscription_count" | "pusher:cache_miss" => {}
            _ => self.odd(message),
        }
        Duty::None
    }

    fn odd(&mut self, message: &[u8]) {
        self.oddities.push(String::from_utf8_lossy(message).into_owned());
    }
}

impl ChannelRecord {
    /// What was announced is here.
    fn reach_announced(&mut self) {
        let Some(position) = self.announced.take() else {
            return;
        };
        let epoch = position.split_once(':').map_or("", |(epoch, _)| epoch);
        if self.epochs.last().is_none_or(|last| last != epoch) {
            // What lies between two epochs is unknown, and this is how it is said to those who stay connected.
            if !self.epochs.is_empty() {
                self.log.push(Seen::Broken);
            }
            self.epochs.push(epoch.to_owned());
        }
        self.position = Some(position);
    }
}

/// The channel of a publication, found by looking: our channels' names are never escaped.
fn channel_of(message: &[u8]) -> Option<&str> {
    let rest = after(message, b"\"channel\":\"")?;
    std::str::from_utf8(&rest[..position(rest, b"\"")?]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_load::payload::{Stamp, push};

    fn record() -> Record {
        let mut record = Record::default();
        record
            .channels
            .insert("kept".to_owned(), ChannelRecord::default());
        record
    }

    fn event(sequence: u32) -> Vec<u8> {
        let mut message = br#"{"event":"bench","channel":"kept","data":""#.to_vec();
        push(&mut message, Stamp { sequence, sent_at: 0 }, 0);
        message.extend_from_slice(b"\"}");
        message
    }

    fn internal(name: &str, data: &str) -> Vec<u8> {
        let message = serde_json::json!({ "event": format!("pusher_internal:{name}"), "channel": "kept", "data": data });
        message.to_string().into_bytes()
    }

    #[test]
    fn a_position_counts_once_its_event_is_here() {
        let mut record = record();
        record.enter(&internal("subscription_succeeded", "{}"));
        record.enter(&internal("recovered", r#"{"position":"7:1","recovered":null}"#));
        record.enter(&internal("position", r#"{"position":"7:2"}"#));
        assert_eq!(record.channels["kept"].position.as_deref(), Some("7:1"));
        record.enter(&event(5));
        assert_eq!(record.channels["kept"].position.as_deref(), Some("7:2"));
        record.enter(&internal("position", r#"{"position":"7:3","skipped":true}"#));
        assert_eq!(record.channels["kept"].position.as_deref(), Some("7:3"));
        assert_eq!(record.channels["kept"].sequences().collect::<Vec<_>>(), [5]);
        assert!(record.oddities.is_empty());
    }

    #[test]
    fn what_was_not_recovered_breaks_the_log_and_a_new_epoch_is_noted() {
        let mut record = record();
        record.enter(&internal("subscription_succeeded", "{}"));
        record.enter(&internal("position", r#"{"position":"7:2"}"#));
        record.enter(&event(5));
        record.enter(&internal("subscription_succeeded", "{}"));
        record.enter(&internal("recovered", r#"{"position":"8:1","recovered":false}"#));
        let channel = &record.channels["kept"];
        assert_eq!(channel.log.last(), Some(&Seen::Broken));
        assert_eq!(channel.epochs, ["7", "8"]);
    }

    #[test]
    fn a_member_that_comes_twice_or_goes_unseen_is_odd() {
        let mut record = record();
        let presence = r#"{"presence":{"ids":["a"],"hash":{},"count":1}}"#;
        record.enter(&internal("subscription_succeeded", presence));
        record.enter(&internal("member_added", r#"{"user_id":"b"}"#));
        record.enter(&internal("member_removed", r#"{"user_id":"a"}"#));
        assert!(record.oddities.is_empty());
        record.enter(&internal("member_added", r#"{"user_id":"b"}"#));
        record.enter(&internal("member_removed", r#"{"user_id":"a"}"#));
        assert_eq!(record.oddities.len(), 2);
        assert!(record.channels["kept"].members.iter().eq(["b"]));
    }
}
