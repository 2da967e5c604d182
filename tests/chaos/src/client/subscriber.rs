//! A subscriber that comes back as the official clients do, and resumes as our helper for them does.

use std::cell::{Ref, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use dunlin_load::Target;
use serde_json::json;
use tokio::task::spawn_local;
use tokio_util::task::AbortOnDropHandle;

use super::record::{ChannelRecord, Duty, Record};
use super::socket::{End, Socket};
use crate::report;
use crate::wait::until;

/// How long pusher-js waits before it comes back, unless a code of 4200 to 4299 tells it to come at once.
const PAUSE: Duration = Duration::from_secs(1);
/// Of a subscription on a machine that is busy with many.
const SEATING: Duration = Duration::from_secs(30);

/// Whom a subscriber is, and where it goes.
#[derive(Clone, Debug)]
pub(crate) struct Visitor {
    pub(crate) address: SocketAddr,
    /// The channels, and on presence channels the user.
    pub(crate) seats: Vec<(String, Option<String>)>,
    /// Comes back when the connection ends.
    pub(crate) returns: bool,
    /// Asks for what it missed, where it knows its position.
    pub(crate) resumes: bool,
}

impl Visitor {
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self {
            address,
            seats: Vec::new(),
            returns: true,
            resumes: false,
        }
    }

    pub(crate) fn on(mut self, channel: &str) -> Self {
        self.seats.push((channel.to_owned(), None));
        self
    }

    /// On a presence channel, as this user.
    pub(crate) fn on_as(mut self, channel: &str, user: &str) -> Self {
        self.seats.push((channel.to_owned(), Some(user.to_owned())));
        self
    }

    pub(crate) fn resumes(mut self) -> Self {
        self.resumes = true;
        self
    }

    /// Ends with its first connection.
    pub(crate) fn once(mut self) -> Self {
        self.returns = false;
        self
    }

    /// Connects and goes on by itself.
    pub(crate) fn start(self, target: &Rc<Target>) -> Subscriber {
        let mut record = Record::default();
        for (channel, _) in &self.seats {
            record.channels.insert(channel.clone(), ChannelRecord::default());
        }
        let record = Rc::new(RefCell::new(record));
        let visits = Visits {
            visitor: self,
            target: Rc::clone(target),
            record: Rc::clone(&record),
        };
        Subscriber {
            record,
            _visits: AbortOnDropHandle::new(spawn_local(visits.run())),
        }
    }
}

/// A subscriber at work. Dropping it ends its connection without a word, as a closed tab does.
#[derive(Debug)]
pub(crate) struct Subscriber {
    record: Rc<RefCell<Record>>,
    _visits: AbortOnDropHandle<()>,
}

impl Subscriber {
    pub(crate) fn record(&self) -> Ref<'_, Record> {
        self.record.borrow()
    }

    /// What it has seen of a channel that it was sent to.
    ///
    /// # Panics
    /// It was not.
    pub(crate) fn channel(&self, name: &str) -> Ref<'_, ChannelRecord> {
        Ref::map(self.record(), |record| {
            record
                .channel(name)
                .expect("the scenario names a channel of this subscriber")
        })
    }

    /// Whether it is subscribed to everything now.
    pub(crate) fn is_seated(&self) -> bool {
        self.record()
            .channels
            .values()
            .all(|channel| channel.is_subscribed)
    }
}

/// Waits until every subscriber is subscribed to everything.
///
/// # Errors
/// Some are not in time.
pub(crate) async fn seated(subscribers: &[Subscriber]) -> Result<Duration> {
    if let Some(took) = until(SEATING, || subscribers.iter().all(Subscriber::is_seated)).await {
        return Ok(took);
    }
    let missing: Vec<_> = subscribers.iter().filter(|one| !one.is_seated()).collect();
    let last_end = |one: &&Subscriber| one.record().ends.last().map(|(_, end)| end.to_string());
    bail!(
        "{} of {} subscribers are not subscribed after {SEATING:?}; their connections ended with: {}",
        missing.len(),
        subscribers.len(),
        report::tally(missing.iter().filter_map(last_end))
    )
}

struct Visits {
    visitor: Visitor,
    target: Rc<Target>,
    record: Rc<RefCell<Record>>,
}

impl Visits {
    async fn run(self) {
        let mut left_at = None;
        loop {
            let end = self.visit(left_at).await;
            let at = Instant::now();
            {
                let mut record = self.record.borrow_mut();
                record.socket_id = None;
                // Counted from the first end until it is back, however many attempts that takes.
                if record.channels.values().all(|channel| channel.is_subscribed) {
                    left_at = Some(at);
                }
                for channel in record.channels.values_mut() {
                    channel.is_subscribed = false;
                    channel.members.clear();
                }
                record.ends.push((at, end));
            }
            if !self.visitor.returns {
                return;
            }
            if !matches!(end, End::Closed(4200..=4299)) {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// One connection, up to its end.
    async fn visit(&self, left_at: Option<Instant>) -> End {
        let Ok(mut socket) = Socket::open(self.visitor.address, &self.target.app_key).await else {
            return End::NotOpened;
        };
        let mut is_away = left_at;
        loop {
            let (mut subscribes, mut pongs) = (false, 0);
            let ended = socket
                .turn(&mut |message| match self.record.borrow_mut().enter(message) {
                    Duty::None => {}
                    Duty::Subscribe => subscribes = true,
                    Duty::Pong => pongs += 1,
                })
                .await;
            if let Some(end) = ended {
                return end;
            }
            if subscribes {
                self.subscribe(&mut socket);
            }
            for _ in 0..pongs {
                socket.say(r#"{"event":"pusher:pong","data":{}}"#);
            }
            if let Some(since) = is_away {
                let mut record = self.record.borrow_mut();
                if record.channels.values().all(|channel| channel.is_subscribed) {
                    record.absences.push(since.elapsed());
                    is_away = None;
                }
            }
        }
    }

    fn subscribe(&self, socket: &mut Socket) {
        let record = self.record.borrow();
        let socket_id = record.socket_id.as_deref().unwrap_or_default();
        for (channel, user) in &self.visitor.seats {
            let position = record
                .channels
                .get(channel)
                .and_then(|channel| channel.position.clone());
            if let Some(position) = position.filter(|_| self.visitor.resumes) {
                let resume =
                    json!({ "event": "pusher:resume", "channel": channel, "data": { "position": position } });
                socket.say(&resume.to_string());
            }
            let mut data = json!({ "channel": channel, "auth": "" });
            let channel_data = user.as_ref().map(|user| json!({ "user_id": user }).to_string());
            if channel.starts_with("private-") || channel.starts_with("presence-") {
                data["auth"] = self
                    .target
                    .channel_auth(socket_id, channel, channel_data.as_deref())
                    .into();
            }
            if let Some(text) = channel_data {
                data["channel_data"] = text.into();
            }
            socket.say(&json!({ "event": "pusher:subscribe", "data": data }).to_string());
        }
    }
}
