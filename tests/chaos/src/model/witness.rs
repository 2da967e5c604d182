//! What the subscribers of a node are told, and whether it can be: the stand-in for a node's hub.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dunlin::apps::App;
use dunlin::broker::{BrokerEvents, Overloaded, Publication};
use dunlin::presence::{Announcement, ConnectionRef, JoinRefusal, Joined, PresenceEvents};
use dunlin::storage::keys::{AppNum, ChannelKey, KeyRef};
use dunlin_protocol::names::UserId;
use dunlin_protocol::position::Position;
use dunlin_protocol::pusher::outgoing::{PresenceList, frames, subscription_succeeded_presence};
use tokio::sync::mpsc::UnboundedSender;

use super::node::Command;

/// Of one publisher, the how many-eth of its publications. Its data are the two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EventId {
    pub(super) publisher: u64,
    pub(super) number: u64,
}

impl EventId {
    pub(super) fn literal(self) -> String {
        format!("\"{}.{}\"", self.publisher, self.number)
    }

    fn parse(literal: &str) -> Option<Self> {
        let (publisher, number) = literal.trim_matches('"').split_once('.')?;
        Some(Self {
            publisher: publisher.parse().ok()?,
            number: number.parse().ok()?,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Asking,
    In,
    /// It is to leave as soon as it is in.
    Going,
}

/// A connection in a channel.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) connection: u32,
    pub(super) channel: String,
    pub(super) user: Option<String>,
    phase: Phase,
    /// Of a presence channel, as it was told.
    pub(super) members: BTreeSet<String>,
    pub(super) heard: Vec<EventId>,
}

impl Seat {
    pub(super) fn is_in(&self) -> bool {
        self.phase == Phase::In
    }
}

/// A connection that is signed in and watches others.
#[derive(Clone, Debug)]
pub(super) struct Watcher {
    /// Who is there, as it was told.
    pub(super) sees: BTreeMap<String, bool>,
}

#[derive(Debug, Default)]
struct Seen {
    seats: BTreeMap<u32, Seat>,
    gone: Vec<Seat>,
    watchers: BTreeMap<u32, Watcher>,
    /// What must not have been told.
    wrong: Vec<String>,
}

/// Of one node, for as long as it lives.
#[derive(Debug)]
pub(super) struct Witness {
    seen: Mutex<Seen>,
    commands: UnboundedSender<Command>,
}

impl Witness {
    pub(super) fn new(commands: UnboundedSender<Command>) -> Arc<Self> {
        Arc::new(Self {
            seen: Mutex::default(),
            commands,
        })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection is about to ask.
    pub(super) fn expect(&self, connection: u32, channel: &str, user: Option<&str>) {
        let seat = Seat {
            connection,
            channel: channel.to_owned(),
            user: user.map(str::to_owned),
            phase: Phase::Asking,
            members: BTreeSet::new(),
            heard: Vec::new(),
        };
        self.seen().seats.insert(connection, seat);
    }

    /// A connection wants to leave. The seat, if it is in; else it leaves once it is.
    pub(super) fn stand_up(&self, connection: u32) -> Option<Seat> {
        let mut seen = self.seen();
        let seat = seen.seats.get_mut(&connection)?;
        if seat.phase == Phase::Asking {
            seat.phase = Phase::Going;
            return None;
        }
        let seat = seen.seats.remove(&connection)?;
        seen.gone.push(seat.clone());
        Some(seat)
    }

    pub(super) fn watch(&self, connection: u32) {
        let sees = BTreeMap::new();
        self.seen().watchers.insert(connection, Watcher { sees });
    }

    pub(super) fn look_away(&self, connection: u32) {
        self.seen().watchers.remove(&connection);
    }

    pub(super) fn seats(&self) -> Vec<Seat> {
        self.seen().seats.values().cloned().collect()
    }

    pub(super) fn watchers(&self) -> BTreeMap<u32, Watcher> {
        self.seen().watchers.clone()
    }

    /// All that ever sat here, and what was wrong with what they were told.
    pub(super) fn testimony(&self) -> (Vec<Seat>, Vec<String>) {
        let seen = self.seen();
        let seats = seen.seats.values().chain(&seen.gone).cloned().collect();
        (seats, seen.wrong.clone())
    }

    /// Whether everybody who sits in the channel has heard all of these.
    pub(super) fn all_heard(&self, channel: &str, events: &[EventId]) -> bool {
        let seen = self.seen();
        let mut there = seen
            .seats
            .values()
            .filter(|seat| seat.channel == channel && seat.is_in());
        there.all(|seat| events.iter().all(|event| seat.heard.contains(event)))
    }
}

impl Seen {
    fn those_in<'a>(&'a mut self, channel: &'a str) -> impl Iterator<Item = &'a mut Seat> {
        let seats = self.seats.values_mut();
        seats.filter(move |seat| seat.channel == channel && seat.phase == Phase::In)
    }
}

impl BrokerEvents for Witness {
    fn publication(
        &self,
        _: KeyRef<'_>,
        publication: &Publication<'_>,
        _: Option<Position>,
    ) -> Result<(), Overloaded> {
        let mut seen = self.seen();
        let Some(event) = EventId::parse(publication.data_literal) else {
            let wrong = format!("an event with the data {}", publication.data_literal);
            seen.wrong.push(wrong);
            return Ok(());
        };
        let mut twice = Vec::new();
        for seat in seen.those_in(publication.channel.as_str()) {
            if seat.heard.contains(&event) {
                twice.push(format!("connection {} heard {event:?} twice", seat.connection));
            }
            seat.heard.push(event);
        }
        seen.wrong.append(&mut twice);
        Ok(())
    }

    /// The model's channels have no history, and nobody is told.
    fn lost(&self, _: KeyRef<'_>, _: Position) {}
}

impl PresenceEvents for Witness {
    fn joined(
        &self,
        connection: ConnectionRef,
        channel: &Arc<ChannelKey>,
        _: &Arc<App>,
        answer: Result<Joined, JoinRefusal>,
    ) {
        let (mut seen, connection) = (self.seen(), connection.slot);
        let name = channel.name().as_str();
        let wrong = match (seen.seats.get_mut(&connection), answer) {
            (None, _) => Some("is not there and was answered".to_owned()),
            (_, Err(refusal)) => Some(format!("was refused: {refusal}")),
            (Some(seat), Ok(_)) if seat.phase == Phase::In || seat.channel != name => {
                Some(format!("was answered again or for {name}"))
            }
            (Some(seat), Ok(joined)) => {
                seat.members = joined.members.map(|list| ids(&list)).unwrap_or_default();
                if seat.phase == Phase::Going {
                    drop(self.commands.send(Command::Leave(connection)));
                }
                seat.phase = Phase::In;
                let own = seat.user.clone();
                own.filter(|user| !seat.members.contains(user))
                    .map(|user| format!("is not in its own list: {user}"))
            }
        };
        if let Some(wrong) = wrong {
            seen.wrong.push(format!("connection {connection} {wrong}"));
        }
    }

    fn announce(&self, channel: &ChannelKey, announcement: &Announcement<'_>) {
        let mut seen = self.seen();
        let mut wrong = Vec::new();
        for seat in seen.those_in(channel.name().as_str()) {
            let (fits, what) = match announcement {
                Announcement::MemberAdded(member) => {
                    let user = member.user_id().as_str();
                    (seat.members.insert(user.to_owned()), format!("+{user}"))
                }
                Announcement::MemberRemoved(user) => (seat.members.remove(user.as_str()), format!("-{user}")),
                Announcement::SubscriptionCount(_) => continue,
            };
            if !fits {
                wrong.push(format!(
                    "connection {} was told {what} for nothing",
                    seat.connection
                ));
            }
        }
        seen.wrong.append(&mut wrong);
    }

    fn watched(&self, connection: ConnectionRef, online: &[&UserId], offline: &[&UserId]) {
        let mut seen = self.seen();
        let Some(watcher) = seen.watchers.get_mut(&connection.slot) else {
            let wrong = format!("connection {} watches nobody and was told", connection.slot);
            return seen.wrong.push(wrong);
        };
        for (users, is_online) in [(online, true), (offline, false)] {
            for user in users {
                watcher.sees.insert(user.to_string(), is_online);
            }
        }
    }

    fn terminate_user(&self, _: AppNum, _: &UserId) {}

    fn admitted(&self, _: ConnectionRef, _: &Arc<App>, _: bool) {}
}

/// The users of a list, as a client reads them.
fn ids(list: &PresenceList) -> BTreeSet<String> {
    let bytes = subscription_succeeded_presence("presence-x", list);
    let frame = frames(&bytes).next();
    let value = |json: &[u8]| serde_json::from_slice::<serde_json::Value>(json).ok();
    let read = || -> Option<BTreeSet<String>> {
        let outer = value(frame?.payload)?;
        let data = value(outer["data"].as_str()?.as_bytes())?;
        let ids = data["presence"]["ids"].as_array()?.iter();
        ids.map(|id| id.as_str().map(str::to_owned)).collect()
    };
    read().unwrap_or_default()
}
