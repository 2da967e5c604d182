//! The cluster's halves on a real Redis: the contracts of the seams, and what is said twice.

mod server;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dunlin_protocol::names::UserId;
use dunlin_protocol::position::Position;
use redis::aio::SendError;
use redis::{PushInfo, PushKind, Value};

use super::held::{Held, Rules, Step, Waiting};
use super::request::{Answer, Hold};
use super::{Cluster, Settings, pump};
use crate::apps::store::ConfiguredApps;
use crate::apps::{App, Apps};
use crate::broker::{self, BrokerEvents, Overloaded, Publication};
use crate::config::{AppSection, CacheSection, IdempotencySection, RedisSection, WebhooksSection};
use crate::hub::{self, Services};
use crate::presence::memory::CountThrottle;
use crate::presence::{self, Announcement, ConnectionRef, JoinRefusal, Joined, PresenceEvents};
use crate::storage::keys::{AppNum, ChannelKey, KeyRef};
use crate::storage::redis::lane::Lane;
use crate::storage::redis::names::{Kind, Names, Thing};
use crate::storage::redis::target::{NoPushes, Target};
use crate::tasks::Tasks;
use crate::told::eventually;
use server::Server;

/// Short times, so that a suite waits for nothing long.
fn section(server: &Server, prefix: &str) -> RedisSection {
    RedisSection {
        url: Some(server.url().as_str().into()),
        ca_path: "".into(),
        prefix: prefix.to_owned(),
        lease: Duration::from_secs(2),
        lease_refresh: Duration::from_millis(500),
        command_timeout: Duration::from_secs(1),
        linger: Duration::from_millis(100),
        resync_interval: Duration::from_secs(1),
        pool_size: 4,
        outbox_entries: 1000,
    }
}

/// A node that is told of publications by one and of presence by the other.
struct Node<B, P> {
    broker: Arc<B>,
    presence: Arc<P>,
}

impl<B: BrokerEvents, P: Send + Sync> BrokerEvents for Node<B, P> {
    fn publication(
        &self,
        key: KeyRef<'_>,
        publication: &Publication<'_>,
        position: Option<Position>,
    ) -> Result<(), Overloaded> {
        self.broker.publication(key, publication, position)
    }

    fn lost(&self, key: KeyRef<'_>, position: Position) {
        self.broker.lost(key, position);
    }
}

impl<B: Send + Sync, P: PresenceEvents> PresenceEvents for Node<B, P> {
    fn joined(
        &self,
        connection: ConnectionRef,
        channel: &Arc<ChannelKey>,
        app: &Arc<App>,
        answer: Result<Joined, JoinRefusal>,
    ) {
        self.presence.joined(connection, channel, app, answer);
    }

    fn announce(&self, channel: &ChannelKey, announcement: &Announcement<'_>) {
        self.presence.announce(channel, announcement);
    }

    fn watched(&self, connection: ConnectionRef, online: &[&UserId], offline: &[&UserId]) {
        self.presence.watched(connection, online, offline);
    }

    fn terminate_user(&self, app: AppNum, user_id: &UserId) {
        self.presence.terminate_user(app, user_id);
    }

    fn admitted(&self, connection: ConnectionRef, app: &Arc<App>, granted: bool) {
        self.presence.admitted(connection, app, granted);
    }
}

/// A cluster of one node that is ready, and the app it knows.
struct Running {
    cluster: Arc<Cluster>,
    app: Arc<App>,
    tasks: Tasks,
    _server: Server,
}

impl Running {
    async fn start<B, P>(broker: Arc<B>, presence: Arc<P>) -> Self
    where
        B: BrokerEvents + 'static,
        P: PresenceEvents + 'static,
    {
        let server = Server::start().await;
        let example = AppSection::example();
        let apps = Arc::new(Apps::load(&ConfiguredApps::new(vec![example.clone()])).await);
        let app = apps.by_id(example.id.as_str()).expect("it was loaded");
        let settings = Settings {
            redis: &section(&server, "contract"),
            webhooks: &WebhooksSection {
                settle: Duration::from_millis(300),
                ..WebhooksSection::example()
            },
            cache: &CacheSection {
                ttl: Duration::from_mins(30),
                max_bytes: 0,
            },
            idempotency: &IdempotencySection {
                ttl: Duration::from_mins(2),
                max_entries: 100,
            },
            throttle: CountThrottle {
                above: 3,
                every: Duration::ZERO,
            },
        };
        let cluster = Cluster::new(&settings, apps, Arc::new(Node { broker, presence })).unwrap();
        let tasks = Tasks::default();
        tasks.spawn("cluster", Arc::clone(&cluster).run());
        eventually("the node is ready", async || cluster.is_ready()).await;
        Self {
            cluster,
            app,
            tasks,
            _server: server,
        }
    }
}

#[tokio::test]
async fn the_clusters_broker_keeps_the_contract() {
    let (nobody, recorder) = (
        Arc::new(broker::contract::Nobody),
        Arc::new(presence::contract::Recorder::default()),
    );
    let running = Running::start(nobody, recorder).await;
    broker::contract::run(&*running.cluster).await;
    broker::idempotency::contract::run(&*running.cluster).await;
    running.tasks.stop().await;
}

#[tokio::test]
async fn the_clusters_presence_keeps_the_contract() {
    let recorder = Arc::new(presence::contract::Recorder::default());
    let running = Running::start(Arc::new(broker::contract::Nobody), Arc::clone(&recorder)).await;
    presence::contract::run(&*running.cluster, &recorder, &running.app).await;
    running.tasks.stop().await;
}

#[tokio::test]
async fn the_clusters_halves_keep_the_contract_together() {
    let recorder = Arc::new(hub::contract::Recorder::default());
    let running = Running::start(Arc::clone(&recorder), Arc::clone(&recorder)).await;
    let services = Services {
        broker: running.cluster.clone(),
        presence: running.cluster.clone(),
    };
    hub::contract::run(&services, &recorder).await;
    running.tasks.stop().await;
}

/// As whom a connection is bound.
fn bound(user: Option<&str>) -> UserId {
    user.unwrap_or("1.1").parse().unwrap()
}

/// A node's side of one thing, without the node: what it would say is said here, as often as a test likes.
struct Speaker {
    lane: Lane,
    names: Names,
    held: Held,
    rules: Rules,
    /// What was told on the topic.
    heard: Arc<Mutex<Vec<String>>>,
    _listening: Lane,
    _server: Server,
}

impl Speaker {
    async fn about(kind: Kind, name: &str, edit: impl FnOnce(&mut AppSection)) -> Self {
        let server = Server::start().await;
        let target = Target::parse(&server.url(), "".as_ref()).unwrap();
        let names = Names::new("twice");
        let app = App::fresh(edit);
        let thing = Thing {
            kind,
            app: app.id.clone(),
            name: name.into(),
        };
        let topic: Arc<str> = names.state(&thing).into();
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let noting = Arc::clone(&heard);
        let note = move |push: PushInfo| {
            if let (PushKind::Message, [_, Value::BulkString(payload)]) = (push.kind, &push.data[..]) {
                let text = String::from_utf8_lossy(payload);
                // Without its place.
                let body = text.splitn(3, ' ').nth(2).unwrap_or(&text).to_owned();
                noting.lock().unwrap().push(body);
            }
            Ok::<(), SendError>(())
        };
        let time = Duration::from_secs(1);
        let lane = target.connect(time, None::<NoPushes>).await.unwrap();
        let listening = target.connect(time, Some(note)).await.unwrap();
        listening.subscribe(&[&topic]).await.unwrap();
        let key = (kind == Kind::Channel).then(|| ChannelKey::new(app.num, name.parse().unwrap()));
        Self {
            lane,
            names,
            held: Held::new(thing, app, key, topic),
            rules: Rules {
                publish: "PUBLISH",
                count_above: 3,
                count_every_us: 0,
                settle_ms: 0,
                outbox: 1000,
            },
            heard,
            _listening: listening,
            _server: server,
        }
    }

    fn join(&self, slot: u32, user: Option<&str>) {
        let connection = ConnectionRef {
            worker: 0,
            slot,
            generation: 0,
        };
        let waiting = Waiting {
            connection,
            user_id: user.map(|user| user.parse().unwrap()),
            bound: Some(bound(user)),
            since: None,
        };
        self.held.join(waiting, None).expect("it is not gone");
    }

    /// What the node says next. It never hears an answer, so the next time it says everything.
    fn next(&self) -> Hold {
        loop {
            match self.held.step("n", &self.rules) {
                Step::Subscribe => drop(self.held.subscribed()),
                Step::Say(hold, asked) => {
                    self.held.failed(Some(asked));
                    return *hold;
                }
                Step::Unsubscribe | Step::Nothing => panic!("there is something to be said"),
            }
        }
    }

    /// Says it so often, and returns the events in the outbox and what was told, since the beginning.
    async fn say(&self, hold: &Hold, times: usize) -> (Vec<String>, Vec<String>) {
        for _ in 0..times {
            let answer = pump::run(&self.lane, &self.names, &self.held.thing, hold).await;
            assert!(matches!(answer, Ok(Answer::Done(_))), "{answer:?}");
        }
        let mut publish = redis::cmd("PUBLISH");
        self.lane
            .call(publish.arg(&*self.held.topic).arg("the end"))
            .await
            .unwrap();
        let is_end = |body: &String| body == "the end";
        eventually("all is heard", async || {
            self.heard.lock().unwrap().iter().any(is_end)
        })
        .await;
        self.heard.lock().unwrap().retain(|body| !is_end(body));
        let mut read = redis::cmd("XRANGE");
        read.arg(self.names.outbox(self.held.thing.partition()))
            .arg("-")
            .arg("+");
        let entries: Vec<(String, Vec<String>)> =
            redis::from_redis_value(self.lane.call(&read).await.unwrap()).unwrap();
        let events = entries.into_iter().map(|(_, fields)| {
            let at = fields.iter().position(|field| field == "event").unwrap();
            fields[at + 1].clone()
        });
        (events.collect(), self.heard.lock().unwrap().clone())
    }
}

#[tokio::test]
async fn what_was_said_and_not_answered_is_said_again_without_effect() {
    for (channel, user, events, told) in [
        (
            "presence-a",
            Some("u"),
            &["channel_occupied", "member_added", "bind"][..],
            &["+1:u{}"][..],
        ),
        (
            "a",
            None,
            &["channel_occupied", "bind", "subscription_count"],
            &["#1"],
        ),
        (
            "cache-a",
            None,
            &["channel_occupied", "bind", "subscription_count", "cache_miss"],
            &["#1"],
        ),
    ] {
        let speaker = Speaker::about(Kind::Channel, channel, |_| {}).await;
        speaker.join(1, user);
        let hold = speaker.next();
        let (once, thrice) = (speaker.say(&hold, 1).await, speaker.say(&hold, 2).await);
        assert_eq!(once, thrice, "{channel}");
        assert_eq!(
            (&once.0[..], &once.1[..]),
            (&strings(events)[..], &strings(told)[..])
        );

        let user_id: Option<UserId> = user.map(|user| user.parse().unwrap());
        speaker.held.leave(user_id.as_ref(), Some(&bound(user)));
        let hold = speaker.next();
        let (once, thrice) = (speaker.say(&hold, 1).await, speaker.say(&hold, 2).await);
        assert_eq!(once, thrice, "{channel}");
        let gone = user.map(|user| format!("-{user}"));
        assert_eq!(once.1[told.len()..], gone.into_iter().collect::<Vec<_>>());
        assert_eq!(once.0[events.len()..], ["unbind"]);
        // The rest is put off, as entries that can be there once only.
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[tokio::test]
async fn a_place_is_taken_once_however_often_it_is_asked_for() {
    let speaker = Speaker::about(Kind::Quota, "", |app| app.limits.connections = 1).await;
    speaker.join(1, None);
    speaker.join(2, None);
    let hold = speaker.next();
    for _ in 0..3 {
        let answer = pump::run(&speaker.lane, &speaker.names, &speaker.held.thing, &hold).await;
        let Ok(Answer::Done(done)) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!((done.connections, done.without_place), (1, 1));
    }
}

#[tokio::test]
async fn whoever_is_refused_is_not_bound_and_whoever_is_not_said_any_more_is_unbound() {
    let speaker = Speaker::about(Kind::Channel, "presence-a", |app| {
        app.limits.presence_members = 1;
    })
    .await;
    speaker.join(1, Some("first"));
    speaker.join(2, Some("second"));
    let mut hold = speaker.next();
    hold.users.sort_by_key(|said| format!("{said:?}"));
    let (events, _) = speaker.say(&hold, 1).await;
    assert_eq!(events, ["channel_occupied", "member_added", "bind"]);

    (hold.users, hold.bound) = (Vec::new(), Vec::new());
    let (events, _) = speaker.say(&hold, 2).await;
    assert_eq!(events[3..], ["unbind"]);
}
