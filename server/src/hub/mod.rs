//! This node's connections and channels, and the fan-out between them.
//!
//! Owns the sockets, one shard per worker thread; the directory that says on which workers a channel lives; the
//! mailboxes by which anything reaches a shard; [`session::Session`], one connection's rules. Must never touch Redis
//! or HTTP, hold a lock while it works, or wait.
//!
//! Start at [`shard::Shard::turn`], where a publication becomes writes.
//!
//! Invariants:
//! - A shard belongs to its thread. Others reach it through its mailbox only.
//! - Whatever concerns one channel reaches every shard in one order: it is pushed under the channel's directory lock.
//! - A connection is in a channel's list only after its confirmation is in its outbox.
//! - Nobody waits for a slow reader: its outbox is bounded, and past the bound it is closed.

#[cfg(test)]
pub(crate) mod contract;
pub mod directory;
pub mod mailbox;
pub mod outbox;
pub mod pipe;
pub mod pump;
pub mod resumes;
pub mod session;
pub mod shard;
pub mod socket;
pub mod wheel;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use dunlin_protocol::names::{SocketId, UserId};
use dunlin_protocol::position::Position;
use dunlin_protocol::pusher::outgoing;

use crate::apps::App;
use crate::broker::{Broker, BrokerEvents, Overloaded, Publication};
use crate::config::SocketsSection;
use crate::presence::{Announcement, ConnectionRef, JoinRefusal, Joined, Presence, PresenceEvents};
use crate::storage::keys::{AppNum, ChannelKey, KeyRef};
use directory::{Directory, Workers};
use mailbox::{Audience, Mail, Mailbox};

/// As many workers as a directory entry has bits.
pub const MAX_WORKERS: usize = 64;

/// The part of the hub that all threads share.
#[derive(Debug)]
pub struct Hub {
    directory: Directory,
    mailboxes: Box<[Mailbox]>,
    counters: Box<[WorkerCounters]>,
    started_workers: AtomicUsize,
    /// 0: no limit.
    max_connections: usize,
}

/// What a worker did since it began; the first two are gauges. Written by one thread, read by any.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    pub connections: AtomicU64,
    pub channels: AtomicU64,
    pub deliveries: AtomicU64,
    pub written_bytes: AtomicU64,
    pub writes: AtomicU64,
    pub received_messages: AtomicU64,
    pub closed_slow: AtomicU64,
    pub closed_silent: AtomicU64,
}

/// What the rules of a connection call upon.
#[derive(Clone)]
pub struct Services {
    pub broker: Arc<dyn Broker>,
    pub presence: Arc<dyn Presence>,
}

impl Hub {
    /// `max_connections` of all apps together, 0 for no limit.
    pub fn new(workers: usize, max_connections: usize, section: &SocketsSection) -> Self {
        assert!(workers <= MAX_WORKERS, "the configuration was validated");
        Self {
            directory: Directory::default(),
            mailboxes: (0..workers)
                .map(|_| Mailbox::new(section.mailbox_bytes))
                .collect(),
            counters: (0..workers).map(|_| WorkerCounters::default()).collect(),
            started_workers: AtomicUsize::new(0),
            max_connections,
        }
    }

    /// The number of the worker that calls; `None` when all are taken.
    pub fn enter_worker(&self) -> Option<u16> {
        let worker = self.started_workers.fetch_add(1, Ordering::Relaxed);
        u16::try_from(worker)
            .ok()
            .filter(|_| worker < self.mailboxes.len())
    }

    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    pub fn mailbox(&self, worker: u16) -> &Mailbox {
        &self.mailboxes[usize::from(worker)]
    }

    /// Bytes of the publications that wait for all workers together.
    pub fn mailbox_bytes(&self) -> usize {
        self.mailboxes.iter().map(Mailbox::bytes).sum()
    }

    pub fn counters(&self, worker: u16) -> &WorkerCounters {
        &self.counters[usize::from(worker)]
    }

    pub fn all_counters(&self) -> &[WorkerCounters] {
        &self.counters
    }

    /// Whether one more connection may be opened on this node. Workers that ask at the same moment may pass the limit
    /// by one each: it protects the machine, the exact quota is the app's.
    pub fn has_room(&self) -> bool {
        self.max_connections == 0 || self.open_connections() < self.max_connections as u64
    }

    pub fn open_connections(&self) -> u64 {
        self.counters
            .iter()
            .map(|worker| worker.connections.load(Ordering::Relaxed))
            .sum()
    }

    /// Puts something into the mailbox of the connection's worker.
    pub fn send(&self, to: ConnectionRef, mail: impl FnOnce(ConnectionRef) -> Mail) {
        self.mailbox(to.worker).push(mail(to));
    }

    /// Asks every worker to close its connections, spread over `seconds`.
    pub fn drain(&self, seconds: u32) {
        for mailbox in &self.mailboxes {
            mailbox.push(Mail::Drain { seconds });
        }
    }

    /// Pushes a frame to these workers; the caller holds the channel's directory lock.
    fn push(&self, channel: &Arc<ChannelKey>, workers: Workers, frame: &Bytes, audience: Audience<SocketId>) {
        for worker in workers {
            let (channel, frame) = (Arc::clone(channel), frame.clone());
            self.mailbox(worker).push(Mail::Publication {
                channel,
                frame,
                audience,
            });
        }
    }

    /// The same for a frame of which others know nothing. The caller holds the channel's directory lock.
    fn push_to_one(&self, channel: &Arc<ChannelKey>, mut workers: Workers, frame: &Bytes, to: SocketId) {
        if let Some(worker) = workers.find(|worker| shard::is_on(to, *worker)) {
            self.mailbox(worker).push(Mail::Publication {
                channel: Arc::clone(channel),
                frame: frame.clone(),
                audience: Audience::Only(to),
            });
        }
    }
}

impl BrokerEvents for Hub {
    fn publication(
        &self,
        key: KeyRef<'_>,
        publication: &Publication<'_>,
        position: Option<Position>,
    ) -> Result<(), Overloaded> {
        if !self.directory.contains(key) {
            return Ok(());
        }
        let (channel, event, data) = (
            publication.channel.as_str(),
            publication.event,
            publication.data_literal,
        );
        let user_id = publication.user_id.map(UserId::as_str);
        let frame = match position {
            None => outgoing::event(channel, event, data, user_id),
            Some(position) => outgoing::event_at(position, channel, event, data, user_id),
        };
        // Who does not get an event has to know that it misses nothing.
        let skipped = position
            .zip(publication.except)
            .map(|(position, except)| (outgoing::skipped(position, channel), except));
        let audience = publication.except.map_or(Audience::All, Audience::AllBut);
        self.directory
            .locked(key, |channel, workers| {
                // All or nobody: an event that only some workers had room for would be half delivered.
                if workers.clone().any(|worker| self.mailbox(worker).is_full()) {
                    return Err(Overloaded);
                }
                self.push(channel, workers.clone(), &frame, audience);
                if let Some((frame, to)) = &skipped {
                    self.push_to_one(channel, workers, frame, *to);
                }
                Ok(())
            })
            .unwrap_or(Ok(()))
    }

    fn lost(&self, key: KeyRef<'_>, position: Position) {
        // To be told however full the mailbox: it comes once for each gap.
        self.directory.locked(key, |channel, workers| {
            let frame = outgoing::recovered(channel.name().as_str(), Some(position), Some(false));
            self.push(channel, workers, &frame, Audience::All);
        });
    }

    fn has_room(&self, key: KeyRef<'_>) -> bool {
        let is_full = |workers: Workers| workers.into_iter().any(|worker| self.mailbox(worker).is_full());
        let workers = self.directory.locked(key, |_, workers| workers);
        workers.is_none_or(|workers| !is_full(workers))
    }
}

impl PresenceEvents for Hub {
    fn joined(
        &self,
        to: ConnectionRef,
        channel: &Arc<ChannelKey>,
        app: &Arc<App>,
        answer: Result<Joined, JoinRefusal>,
    ) {
        let (channel, app) = (Arc::clone(channel), Arc::clone(app));
        self.send(to, |to| Mail::Joined {
            to,
            channel,
            app,
            answer: Box::new(answer),
        });
    }

    fn announce(&self, channel: &ChannelKey, announcement: &Announcement<'_>) {
        let key = channel.borrowed();
        if !self.directory.contains(key) {
            return;
        }
        let name = channel.name().as_str();
        let frame = match announcement {
            Announcement::MemberAdded(member) => outgoing::member_added(name, member),
            Announcement::MemberRemoved(user_id) => outgoing::member_removed(name, user_id.as_str()),
            Announcement::SubscriptionCount(count) => outgoing::subscription_count(name, u64::from(*count)),
        };
        // A membership that changed has to be told, however full the mailbox: what fills it is bounded elsewhere.
        self.directory.locked(key, |channel, workers| {
            self.push(channel, workers, &frame, Audience::All);
        });
    }

    fn watched(&self, to: ConnectionRef, online: &[&UserId], offline: &[&UserId]) {
        let frame = outgoing::watchlist_events(online, offline);
        self.send(to, |to| Mail::Direct { to, frame });
    }

    fn terminate_user(&self, app: AppNum, user_id: &UserId) {
        for mailbox in &self.mailboxes {
            mailbox.push(Mail::TerminateUser {
                app,
                user_id: user_id.clone(),
            });
        }
    }

    fn admitted(&self, to: ConnectionRef, app: &Arc<App>, granted: bool) {
        let app = Arc::clone(app);
        self.send(to, |to| Mail::Admitted { to, app, granted });
    }
}
