//! This node as one of many: the networked half of broker and presence, with Redis as the state that all share.
//!
//! Owns what this node holds in Redis (channels, signed-in users, places in quotas), its lease, and its share in reaping
//! the dead. Must never decide who is first or last: the scripts do, and this room tells them what the node holds and
//! brings the answer into the channel's order. Must never wait under a lock.
//!
//! Start at [`held::Held`], the state machine of one channel; [`Cluster`] is the door; [`link`] keeps the connection and
//! is where being cut off begins and ends; [`pump`] carries what is held to Redis and back.
//!
//! Invariants:
//! - A node subscribes in Redis before it holds, and confirms to the client after that.
//! - What a node says is absolute and may be said again. After any doubt it says everything.
//! - Every message of a channel has a serial. One that does not follow makes the node ask how things stand; what was
//!   missed is made up for, or said to be lost.
//! - A node that was declared dead learns it from the first script it calls, and goes on under another id.

mod feed;
mod held;
mod idempotency;
mod lease;
pub mod link;
mod message;
mod publish;
mod pump;
mod reads;
mod reaper;
mod request;
mod settle;
mod table;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use dunlin_protocol::names::{ChannelName, UserId};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::answer::{Answer, Unavailable};
use crate::apps::{App, Apps};
use crate::broker::{Broker, BrokerEvents, HistoryPage, HistoryQuery, NotPublished, Publication};
use crate::clock::millis;
use crate::config::{CacheSection, IdempotencySection, RedisSection, WebhooksSection};
use crate::lock::lock;
use crate::presence::memory::CountThrottle;
use crate::presence::{ChannelPage, ConnectionRef, Join, Leave, Occupancy, Presence, PresenceEvents, SignIn};
use crate::storage::memory::CachedEvent;
use crate::storage::redis::names::{Kind, Names, PARTITIONS, Thing};
use crate::storage::redis::target::{BadTarget, Pool, Target};
use held::{Held, Outcome, Rules, Waiting};
use idempotency::Brought;
use link::Link;
use table::Table;
use watch::Sight;

/// What the cluster tells its node: the hub, or a recorder in tests.
pub trait Node: BrokerEvents + PresenceEvents {}
impl<T: BrokerEvents + PresenceEvents> Node for T {}

/// How the cluster is doing, for the metrics.
#[derive(Debug, Default)]
pub struct ClusterCounters {
    /// Times the connection to Redis was lost.
    pub losses: AtomicU64,
    /// Times this node was declared dead, or Redis forgot it.
    pub rebirths: AtomicU64,
    /// Channels on which a message was missing, made up for or not.
    pub gaps: AtomicU64,
    /// Questions about what is held that Redis has answered.
    pub holds: AtomicU64,
    /// Dead nodes whose remains this node has removed.
    pub reaped: AtomicU64,
}

/// The networked half of `Broker` and `Presence`.
pub struct Cluster {
    target: Target,
    names: Names,
    rules: Rules,
    section: RedisSection,
    cache_ttl: Duration,
    apps: Arc<Apps>,
    node: Arc<dyn Node>,
    /// This node's id, until it is declared dead.
    id: ArcSwap<String>,
    /// Held by whoever gives the node another id.
    rebirth: tokio::sync::Mutex<()>,
    /// Absent while cut off.
    link: ArcSwapOption<Link>,
    /// Publications are taken: connected, and everything held is live.
    is_accepting: AtomicBool,
    /// Has held a lease since the process began.
    had_lease: AtomicBool,
    pool: Pool,
    table: Table,
    /// Those with a next step.
    queue: Mutex<VecDeque<Arc<Held>>>,
    queued: Notify,
    /// Those that nobody wants, to be let go of.
    idle: Mutex<VecDeque<Arc<Held>>>,
    /// Those that Redis had forgotten, and until when the other nodes may tell it of them again.
    doubtful: Mutex<VecDeque<(Instant, Arc<Held>)>>,
    /// Held when the connection came back and not live yet.
    awaited: AtomicUsize,
    arrived: Notify,
    /// Everything held goes through its beginning again.
    restarted: Notify,
    /// Partitions in which something is due to be told.
    due: [AtomicBool; PARTITIONS as usize],
    /// Redis's clock less ours, milliseconds.
    clock_ahead_ms: AtomicI64,
    /// The last entry of the control log that was acted upon.
    control_seen: Mutex<String>,
    brought: Brought,
    /// The node is about to end: nothing lingers.
    is_leaving: AtomicBool,
    /// It has given its lease back.
    has_left: AtomicBool,
    pub counters: ClusterCounters,
}

/// What the cluster is built from.
pub struct Settings<'a> {
    pub redis: &'a RedisSection,
    pub webhooks: &'a WebhooksSection,
    pub cache: &'a CacheSection,
    pub idempotency: &'a IdempotencySection,
    pub throttle: CountThrottle,
}

impl Cluster {
    /// Connects to nothing yet: [`Cluster::run`] does.
    ///
    /// # Errors
    /// `redis.url` or `redis.ca_path` is of no use.
    pub fn new(
        settings: &Settings<'_>,
        apps: Arc<Apps>,
        node: Arc<dyn Node>,
    ) -> Result<Arc<Self>, BadTarget> {
        let redis = settings.redis;
        let url = redis.url.as_ref().map_or("", |url| url.expose());
        let target = Target::parse(url, &redis.ca_path)?;
        let rules = Rules {
            publish: if target.is_cluster() {
                "SPUBLISH"
            } else {
                "PUBLISH"
            },
            count_above: settings.throttle.above,
            count_every_us: u64::try_from(settings.throttle.every.as_micros()).unwrap_or(u64::MAX),
            settle_ms: millis(settings.webhooks.settle),
            outbox: redis.outbox_entries,
        };
        Ok(Arc::new(Self {
            pool: target.clone().pool(redis.pool_size, redis.command_timeout),
            target,
            names: Names::new(&redis.prefix),
            rules,
            section: redis.clone(),
            cache_ttl: settings.cache.ttl,
            apps,
            node,
            id: ArcSwap::from(new_id()),
            rebirth: tokio::sync::Mutex::default(),
            link: ArcSwapOption::empty(),
            is_accepting: AtomicBool::new(false),
            had_lease: AtomicBool::new(false),
            table: Table::default(),
            queue: Mutex::default(),
            queued: Notify::new(),
            idle: Mutex::default(),
            doubtful: Mutex::default(),
            awaited: AtomicUsize::new(0),
            arrived: Notify::new(),
            restarted: Notify::new(),
            due: [const { AtomicBool::new(false) }; PARTITIONS as usize],
            clock_ahead_ms: AtomicI64::new(0),
            control_seen: Mutex::default(),
            brought: Brought::new(settings.idempotency),
            is_leaving: AtomicBool::new(false),
            has_left: AtomicBool::new(false),
            counters: ClusterCounters::default(),
        }))
    }

    /// Whether the node should be sent traffic: it reaches Redis, and holds there what it holds here.
    pub fn is_ready(&self) -> bool {
        self.is_accepting.load(Ordering::Acquire)
    }

    /// Things this node holds, for the gauge that must be back at zero when everybody has left.
    pub fn held(&self) -> usize {
        self.table.len()
    }

    /// The held thing, new or old, once `want` has changed it. Runs again if it was let go of at that moment.
    fn change(
        &self,
        thing: &Thing,
        make: impl Fn(Arc<str>) -> Held,
        mut want: impl FnMut(&Held) -> Option<Outcome>,
    ) {
        let topic: Arc<str> = self.names.state(thing).into();
        loop {
            let held = self.table.get_or_insert(&topic, || make(Arc::clone(&topic)));
            if let Some(outcome) = want(&held) {
                return self.act(&held, outcome);
            }
            // It was let go of at this very moment.
            self.table.remove(&held);
        }
    }

    fn enqueue(&self, held: Arc<Held>, is_queued: bool) {
        if is_queued {
            lock(&self.queue).push_back(held);
            self.queued.notify_one();
        }
    }

    /// Acts on what became of something.
    fn act(&self, held: &Arc<Held>, outcome: Outcome) {
        if outcome.is_gone {
            self.table.remove(held);
        }
        if outcome.arrived && self.awaited.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.arrived.notify_one();
        }
        if outcome.had_gap {
            self.counters.gaps.fetch_add(1, Ordering::Relaxed);
        }
        if outcome.begins_to_doubt {
            let until = Instant::now() + self.section.lease_refresh + link::GRACE * 2;
            lock(&self.doubtful).push_back((until, Arc::clone(held)));
        }
        if outcome.rests {
            lock(&self.idle).push_back(Arc::clone(held));
        }
        self.enqueue(Arc::clone(held), outcome.goes_on);
    }

    fn change_user(&self, app: &Arc<App>, user_id: &UserId, want: impl FnMut(&Held) -> Option<Outcome>) {
        let thing = Thing {
            kind: Kind::User,
            app: app.id.clone(),
            name: user_id.as_str().into(),
        };
        self.change(
            &thing,
            |topic| Held::new(thing.clone(), Arc::clone(app), None, topic),
            want,
        );
    }

    fn change_quota(&self, app: &Arc<App>, want: impl FnMut(&Held) -> Option<Outcome>) {
        let thing = Thing {
            kind: Kind::Quota,
            app: app.id.clone(),
            name: "".into(),
        };
        self.change(
            &thing,
            |topic| Held::new(thing.clone(), Arc::clone(app), None, topic),
            want,
        );
    }
}

impl Broker for Cluster {
    fn publish(&self, app: &Arc<App>, publication: &Publication<'_>) -> Answer<Result<(), NotPublished>> {
        self.publish_event(app, publication)
    }

    fn cached(&self, app: &App, channel: &ChannelName) -> Answer<Result<Option<CachedEvent>, Unavailable>> {
        self.read_cached(app, channel)
    }

    fn history(
        &self,
        app: &App,
        channel: &ChannelName,
        query: HistoryQuery,
    ) -> Answer<Result<HistoryPage, Unavailable>> {
        self.read_history(app, channel, query)
    }

    fn tick(&self) {}
}

impl Presence for Cluster {
    fn join(&self, join: Join) {
        let thing = Thing {
            kind: Kind::Channel,
            app: join.app.id.clone(),
            name: join.channel.name().as_str().into(),
        };
        let (user_id, user_info) = match join.member {
            Some(member) => (Some(member.user_id), member.user_info),
            None => (None, None),
        };
        let waiting = Waiting {
            connection: join.connection,
            user_id,
            bound: join.bound,
            since: join.since,
        };
        let make = |topic| {
            let (app, key) = (Arc::clone(&join.app), Arc::clone(&join.channel));
            Held::new(thing.clone(), app, Some(key), topic)
        };
        self.change(&thing, make, |held| held.join(waiting.clone(), user_info.clone()));
    }

    fn leave(&self, leave: Leave) {
        let thing = Thing {
            kind: Kind::Channel,
            app: leave.app.id.clone(),
            name: leave.channel.name().as_str().into(),
        };
        // What was joined is held until it is left.
        if let Some(held) = self.table.get(self.names.state(&thing).as_bytes())
            && let Some(outcome) = held.leave(leave.user_id.as_ref(), leave.bound.as_ref())
        {
            self.act(&held, outcome);
        }
    }

    fn sign_in(&self, sign_in: &SignIn) {
        self.change_user(&sign_in.app, &sign_in.user_id, Held::add_connection);
        let sight = Sight::new(sign_in.connection, Arc::clone(&sign_in.watchlist));
        for (user_id, watcher) in sight.watchers() {
            self.change_user(&sign_in.app, user_id, |held| {
                held.watch(watcher.clone(), &*self.node)
            });
        }
    }

    fn sign_out(&self, sign_in: &SignIn) {
        for user_id in sign_in.watchlist.iter() {
            self.change_user(&sign_in.app, user_id, |held| held.unwatch(sign_in.connection));
        }
        self.change_user(&sign_in.app, &sign_in.user_id, |held| held.leave(None, None));
    }

    fn occupancy(&self, app: &App, channel: &ChannelName) -> Answer<Result<Occupancy, Unavailable>> {
        self.read_occupancy(app, channel)
    }

    fn channels(
        &self,
        app: &App,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Answer<Result<ChannelPage, Unavailable>> {
        self.read_channels(app, prefix, cursor)
    }

    fn users(&self, app: &App, channel: &ChannelName) -> Answer<Result<Vec<UserId>, Unavailable>> {
        self.read_users(app, channel)
    }

    fn terminate_user(&self, app: &App, user_id: &UserId) -> Answer<Result<(), Unavailable>> {
        self.tell_all(&link::Control::Terminate {
            app: app.id.clone(),
            user_id: user_id.clone(),
        })
    }

    fn admit(&self, app: &Arc<App>, connection: ConnectionRef) {
        let waiting = Waiting {
            connection,
            user_id: None,
            bound: None,
            since: None,
        };
        self.change_quota(app, |held| held.join(waiting.clone(), None));
    }

    fn dismiss(&self, app: &Arc<App>) {
        self.change_quota(app, |held| held.leave(None, None));
    }

    fn tick(&self) {}
}

/// Random, so that a node that starts again is another.
fn new_id() -> Arc<String> {
    Arc::new(format!("{:016x}", rand::random::<u64>()))
}
