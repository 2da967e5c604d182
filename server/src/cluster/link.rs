//! The connection to Redis: made, lost, made again, without anybody outside this room doing anything.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use dunlin_protocol::names::{AppId, UserId};
use redis::aio::SendError;
use redis::{PushInfo, PushKind, RedisError, Value, from_redis_value};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::message::Message;
use super::{Cluster, new_id};
use crate::answer::{Answer, Unavailable};
use crate::lock::lock;
use crate::storage::redis::lane::Lane;
use crate::storage::redis::scripts::{HOLD, PUBLISH, TELL_ALL};
use crate::storage::redis::target::NoPushes;

/// Pauses between attempts to connect: short, because everybody waits, and bounded, because a Redis that comes back finds
/// all its nodes at the door.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// When Redis has lost everything, the nodes come back one by one: so long none of them publishes, lest it publish to
/// others who are not there yet. Longer than the longest pause.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// The major version of the oldest Redis that will do. Valkey calls itself 7 here.
const OLDEST: u32 = 7;

/// How long what all nodes are told is kept for those that are cut off.
const CONTROL_KEPT_MS: u64 = 600_000;

/// A connection that was lost is heard on until another has taken over what it listened to. One that says nothing for so
/// long has nothing to say.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Lost connections that are heard on. More only if Redis comes and goes before anything is taken over.
const MOST_FORMER: usize = 4;

/// The connections of one time of being connected.
pub struct Link {
    /// What is held, leases, everything that changes state.
    pub(super) holding: Lane,
    pub(super) publishing: Lane,
    pub(super) subscriber: Lane,
    fate: Arc<Fate>,
    /// It has taken over a topic: there is something to hear on it.
    has_listened: AtomicBool,
    /// The subscribers of lost links, as long as they may have something to say that this one has not heard.
    former: Mutex<Vec<Former>>,
}

/// The subscriber of a link that was lost: a command failed, which says nothing of what Redis has sent here already, and
/// counts as received.
#[derive(Clone)]
struct Former {
    lane: Lane,
    fate: Arc<Fate>,
}

/// What has become of a link.
#[derive(Debug, Default)]
struct Fate {
    is_lost: AtomicBool,
    /// Another has taken its place.
    is_former: AtomicBool,
    noticed: Notify,
}

impl Fate {
    fn lose(&self) {
        if !self.is_lost.swap(true, Ordering::AcqRel) {
            self.noticed.notify_one();
        }
    }
}

impl Link {
    /// A command failed. Whatever the reason, how things stand in Redis is in doubt, and a new connection ends the doubt:
    /// it leads to the new master after a failover, and to everything being said again.
    pub(super) fn failed(&self, what: &'static str, error: &RedisError) {
        if !self.fate.is_lost.load(Ordering::Acquire) {
            tracing::warn!(%error, command = what, "Redis did not do what it was asked");
        }
        self.fate.lose();
    }

    /// Listens to topics, all of one partition on a cluster, and ends the listening of those that came before: they have
    /// been heard to the end.
    ///
    /// # Errors
    /// The new subscription failed.
    pub(super) async fn listen(&self, topics: &[&str]) -> Result<(), RedisError> {
        self.subscriber.subscribe(topics).await?;
        self.has_listened.store(true, Ordering::Relaxed);
        let former = lock(&self.former).clone();
        for former in former {
            // Until it has confirmed, or cannot any more.
            let ended = timeout(LAST_WORDS, former.lane.unsubscribe(topics)).await;
            if !matches!(ended, Ok(Ok(()))) {
                lock(&self.former).retain(|other| !Arc::ptr_eq(&other.fate, &former.fate));
            }
        }
        Ok(())
    }

    /// What was sent to this topic before now is heard when this returns.
    ///
    /// # Errors
    /// The connection failed.
    pub(super) async fn hear_out(&self, topic: &str) -> Result<(), RedisError> {
        // A second subscription changes nothing, and its confirmation stands behind whatever was sent before.
        self.subscriber.subscribe(&[topic]).await
    }

    /// The subscribers that a link after this one goes on hearing.
    fn become_former(&self) -> Vec<Former> {
        let mut all = mem::take(&mut *lock(&self.former));
        // One that was lost before it listened to anything would push out one that did.
        if self.has_listened.load(Ordering::Relaxed) {
            all.push(Former {
                lane: self.subscriber.clone(),
                fate: Arc::clone(&self.fate),
            });
        }
        all.drain(..all.len().saturating_sub(MOST_FORMER));
        all
    }
}

/// Something that all nodes are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// Close every connection of the user. `terminate APP USER`
    Terminate { app: AppId, user_id: UserId },
}

impl Control {
    fn write(&self) -> String {
        match self {
            Self::Terminate { app, user_id } => format!("terminate {app} {user_id}"),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.splitn(3, ' ');
        match words.next()? {
            "terminate" => Some(Self::Terminate {
                app: words.next()?.parse().ok()?,
                user_id: words.next()?.parse().ok()?,
            }),
            _ => None,
        }
    }
}

impl Cluster {
    /// Keeps the node in the cluster until the future is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut pause = FIRST_PAUSE;
        let mut former = Vec::new();
        loop {
            match self.connect().await {
                Ok(link) => {
                    pause = FIRST_PAUSE;
                    *lock(&link.former) = mem::take(&mut former);
                    self.serve(&link).await;
                    self.is_accepting.store(false, Ordering::Release);
                    self.link.store(None);
                    former = link.become_former();
                    self.pool.retain(|_, _| false);
                    self.counters.losses.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!("Redis is out of reach: publishes are refused, sockets stay");
                }
                Err(error) => {
                    tracing::debug!(%error, "Redis cannot be reached");
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            sleep(pause).await;
        }
    }

    async fn connect(self: &Arc<Self>) -> Result<Arc<Link>, RedisError> {
        let fate = Arc::<Fate>::default();
        let time = self.section.command_timeout;
        let pushes = {
            let (cluster, fate) = (Arc::downgrade(self), Arc::clone(&fate));
            move |push: PushInfo| {
                heard(&cluster, &fate, &push);
                Ok::<(), SendError>(())
            }
        };
        let (holding, publishing, subscriber) = tokio::try_join!(
            self.target.connect(time, None::<NoPushes>),
            self.target.connect(time, None::<NoPushes>),
            self.target.connect(time, Some(pushes)),
        )?;
        self.look_at_version(&holding).await?;
        PUBLISH.load(&publishing).await?;
        HOLD.load(&holding).await?;
        Ok(Arc::new(Link {
            holding,
            publishing,
            subscriber,
            fate,
            has_listened: AtomicBool::new(false),
            former: Mutex::default(),
        }))
    }

    /// # Errors
    /// It is a Redis that lacks what the scripts use. On a cluster the first script would say so.
    async fn look_at_version(&self, lane: &Lane) -> Result<(), RedisError> {
        let version = lane.version().await?;
        let major: Option<u32> = version
            .as_deref()
            .and_then(|version| version.split('.').next()?.parse().ok());
        if major.is_some_and(|major| major < OLDEST) {
            tracing::error!(version, "this Redis is too old: at least {OLDEST}.0 is needed");
            return Err(RedisError::from((
                redis::ErrorKind::InvalidClientConfig,
                "Redis is too old",
            )));
        }
        Ok(())
    }

    /// Returns when the connection is lost.
    async fn serve(self: &Arc<Self>, link: &Arc<Link>) {
        let working = async {
            let was_forgotten = self.enter(link).await?;
            self.link.store(Some(Arc::clone(link)));
            self.restart_everything(false);
            for former in lock(&link.former).iter() {
                former.fate.is_former.store(true, Ordering::Release);
            }
            tokio::try_join!(
                self.pump(link),
                self.keep_lease(link),
                self.settle(link),
                self.become_ready(link, was_forgotten),
            )?;
            Ok::<(), RedisError>(())
        };
        tokio::select! {
            ended = working => if let Err(error) = ended {
                tracing::warn!(%error, "the connection to Redis failed");
            },
            () = link.fate.noticed.notified() => {}
        }
    }

    /// Takes or renews the lease, listens to what all nodes are told and catches up on it. Whether Redis had forgotten
    /// this node.
    async fn enter(&self, link: &Link) -> Result<bool, RedisError> {
        let had_lease = self.had_lease.load(Ordering::Relaxed);
        let id = self.id.load_full();
        let lease = self.lease(link, &id, !had_lease).await?;
        let was_forgotten = had_lease && !lease.was_there;
        if was_forgotten {
            self.be_reborn(link, &id).await?;
        }
        self.had_lease.store(true, Ordering::Relaxed);
        self.be_seen(link, &self.id.load()).await?;
        link.subscriber.subscribe(&[&self.names.control()]).await?;
        self.catch_up_on_control(link).await?;
        Ok(was_forgotten)
    }

    /// `old`, this node, was declared dead, or Redis has forgotten it: a new id, under which everything is said again.
    /// What the old one may have left is removed by whoever comes first, this node at the latest. False: the node goes
    /// by another id already.
    pub(super) async fn be_reborn(&self, link: &Link, old: &str) -> Result<bool, RedisError> {
        let _one_at_a_time = self.rebirth.lock().await;
        if **self.id.load() != *old {
            return Ok(false);
        }
        // Before anything is held under the new id, and while the old one may hold something: should this node die over
        // it, the others find both.
        let id = new_id();
        self.lease(link, &id, true).await?;
        self.be_seen(link, &id).await?;
        self.end_lease(link, old).await?;
        tracing::warn!(node.id = %id, old, "this node's lease was gone: it asserts everything again");
        self.id.store(id);
        self.counters.rebirths.fetch_add(1, Ordering::Relaxed);
        self.reap(link, old).await?;
        Ok(true)
    }

    /// As long as the node listens here, it was not killed.
    async fn be_seen(&self, link: &Link, id: &str) -> Result<(), RedisError> {
        let alive = format!("{}{id}", self.names.alive());
        link.subscriber.subscribe(&[&alive]).await
    }

    /// Everything held goes through its beginning again.
    pub(super) fn restart_everything(&self, is_subscribed: bool) {
        self.is_accepting.store(false, Ordering::Release);
        let all = self.table.all();
        self.awaited.store(all.len() + 1, Ordering::Release);
        self.restarted.notify_one();
        for held in all {
            let is_queued = held.restart(is_subscribed, true);
            self.enqueue(held, is_queued);
        }
        // The one more: it is taken away when all have been counted, so that none can be the last too early.
        if self.awaited.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.arrived.notify_one();
        }
    }

    /// Ready once everything held is live, and again whenever everything had to begin anew.
    async fn become_ready(&self, link: &Link, mut was_forgotten: bool) -> Result<(), RedisError> {
        loop {
            let since = Instant::now();
            while self.awaited.load(Ordering::Acquire) > 0 {
                self.arrived.notified().await;
            }
            if was_forgotten {
                sleep_until(since + GRACE).await;
                if self.awaited.load(Ordering::Acquire) > 0 {
                    continue;
                }
            }
            lock(&link.former).clear();
            self.is_accepting.store(true, Ordering::Release);
            tracing::info!(node.id = %self.id.load(), "in the cluster");
            // Not by what is awaited: who holds nothing awaits nothing.
            while self.is_ready() {
                self.restarted.notified().await;
            }
            was_forgotten = true;
        }
    }

    /// Tells all nodes, this one among them.
    pub(super) fn tell_all(&self, control: &Control) -> Answer<Result<(), Unavailable>> {
        let Some(link) = self.link.load_full() else {
            return Answer::ready(Err(Unavailable));
        };
        let (topic, message) = (self.names.control(), control.write());
        let (command, kept_ms) = (self.rules.publish, CONTROL_KEPT_MS.to_string());
        Answer::later(async move {
            let args = [command, &topic, &message, &kept_ms].map(str::as_bytes);
            let told = TELL_ALL.run(&link.holding, &[&topic], &args).await;
            told.map(|_| ()).map_err(|error| {
                link.failed("control", &error);
                Unavailable
            })
        })
    }

    /// Acts on what all nodes were told while this one was not listening. A node that has just started has missed
    /// nothing.
    pub(super) async fn catch_up_on_control(&self, link: &Link) -> Result<(), RedisError> {
        let mut last = redis::cmd("XREVRANGE");
        last.arg(self.names.control())
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(1);
        let seen = lock(&self.control_seen).clone();
        let mut command = redis::cmd("XRANGE");
        let command = if seen.is_empty() {
            &last
        } else {
            command.arg(self.names.control()).arg(format!("({seen}")).arg("+")
        };
        let entries: Vec<(String, Vec<String>)> = from_redis_value(link.holding.call(command).await?)?;
        if seen.is_empty() {
            let newest = entries
                .into_iter()
                .next()
                .map_or_else(|| "0-0".to_owned(), |(id, _)| id);
            *lock(&self.control_seen) = newest;
            return Ok(());
        }
        for (id, fields) in entries {
            if let Some(message) = fields.get(1) {
                self.obey(&id, message);
            }
        }
        Ok(())
    }

    /// Once for each entry, whichever way it came first.
    fn obey(&self, id: &str, message: &str) {
        {
            let mut seen = lock(&self.control_seen);
            if !is_newer(id, &seen) {
                return;
            }
            id.clone_into(&mut seen);
        }
        match Control::parse(message) {
            Some(Control::Terminate { app, user_id }) => {
                if let Some(app) = self.apps.by_id(app.as_str()) {
                    self.node.terminate_user(app.num, &user_id);
                }
            }
            // Of a newer version, which knows more.
            None => tracing::debug!("a control message that this version does not know"),
        }
    }

    fn heard(&self, topic: &[u8], payload: &[u8], is_former: bool) {
        if let Some(held) = self.table.get(topic) {
            if let Some(message) = Message::parse(payload) {
                let outcome = held.heard(message, is_former, &*self.node);
                self.act(&held, outcome);
            }
        } else if topic == self.names.control().as_bytes()
            && let Some((id, message)) = std::str::from_utf8(payload)
                .ok()
                .and_then(|text| text.split_once(' '))
        {
            self.obey(id, message);
        }
    }

    /// Lets go of everything that nobody wants, at once, and gives the lease back when Redis knows that this node holds
    /// nothing more. What takes longer than `time` is left to the others.
    pub async fn leave(&self, time: Duration) {
        self.is_leaving.store(true, Ordering::Release);
        let empty = async {
            while self.table.len() > 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let is_empty = timeout(time, empty).await.is_ok();
        let Some(link) = self.link.load_full() else {
            return;
        };
        if let Err(error) = self.give_lease_back(&link, is_empty).await {
            tracing::warn!(%error, "the lease could not be given back: it will run out");
        }
    }
}

/// A push of the connection that subscribes. Called on its task, in the order in which Redis has sent; what it does is
/// short and waits for nothing, so there is no queue: when the node is busy, Redis waits.
fn heard(cluster: &Weak<Cluster>, fate: &Fate, push: &PushInfo) {
    match push.kind {
        PushKind::Message | PushKind::SMessage => {
            if let [Value::BulkString(topic), Value::BulkString(payload)] = &push.data[..]
                && let Some(cluster) = cluster.upgrade()
            {
                cluster.heard(topic, payload, fate.is_former.load(Ordering::Acquire));
            }
        }
        PushKind::Disconnection => fate.lose(),
        _ => {}
    }
}

/// Of two ids of a stream.
fn is_newer(id: &str, other: &str) -> bool {
    let numbers = |id: &str| {
        let (ms, sequence) = id.split_once('-').unwrap_or((id, "0"));
        (
            ms.parse::<u64>().unwrap_or(0),
            sequence.parse::<u64>().unwrap_or(0),
        )
    };
    numbers(id) > numbers(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages_survive_their_text() {
        let control = Control::Terminate {
            app: "1".parse().unwrap(),
            user_id: "a b".parse().unwrap(),
        };
        assert_eq!(Control::parse(&control.write()), Some(control));
        assert_eq!(Control::parse("explode 1"), None);
    }

    #[test]
    fn ids_of_a_stream_are_compared_as_numbers() {
        for (id, other, newer) in [
            ("10-0", "9-5", true),
            ("9-10", "9-9", true),
            ("9-9", "9-9", false),
            ("1-0", "", true),
        ] {
            assert_eq!(is_newer(id, other), newer, "{id} {other}");
        }
    }
}
