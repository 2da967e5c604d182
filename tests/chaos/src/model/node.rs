//! A node without its sockets: the cluster's half of it, on a thread of its own, so that it can stand still or die.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use dunlin::apps::store::ConfiguredApps;
use dunlin::apps::wanted::News;
use dunlin::apps::{App, Apps};
use dunlin::broker::{Broker as _, Origin, Publication};
use dunlin::cluster::{Cluster, Settings};
use dunlin::config::{self, CacheSection, RedisSection, WebhooksSection};
use dunlin::presence::memory::CountThrottle;
use dunlin::presence::{ConnectionRef, Join, Leave, Presence, SignIn};
use dunlin::storage::keys::ChannelKey;
use dunlin_protocol::pusher::presence::PresenceMember;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::witness::{EventId, Seat, Witness};
use super::world::bound_as;

/// How long a node may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// What a node is told to do, in order.
#[derive(Debug)]
pub(super) enum Command {
    Join {
        connection: u32,
        channel: String,
        user: Option<String>,
    },
    Leave(u32),
    SignIn {
        connection: u32,
        user: String,
        watchlist: Vec<String>,
    },
    SignOut {
        connection: u32,
        user: String,
        watchlist: Vec<String>,
    },
    Publish {
        channel: String,
        event: EventId,
    },
    /// Nothing is executed for so long, or until it is killed.
    Pause(Duration),
    /// Everybody has left; end in order.
    Goodbye,
}

/// A publication and what became of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Published {
    pub(super) event: EventId,
    pub(super) is_ok: bool,
}

/// A node of one start. Dropping it kills it.
pub(super) struct Node {
    pub(super) cluster: Arc<Cluster>,
    pub(super) witness: Arc<Witness>,
    pub(super) published: Arc<Mutex<Vec<Published>>>,
    pub(super) paused_until: Instant,
    commands: UnboundedSender<Command>,
    kill: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

/// Times of a cluster that lives fast.
pub(super) mod times {
    use std::time::Duration;

    pub(in super::super) const LEASE: Duration = Duration::from_millis(600);
    pub(in super::super) const REFRESH: Duration = Duration::from_millis(200);
    pub(super) const COMMAND: Duration = Duration::from_millis(150);
    pub(super) const LINGER: Duration = Duration::from_millis(200);
    pub(super) const SETTLE: Duration = Duration::from_millis(300);
    pub(super) const RESYNC: Duration = Duration::from_secs(1);
}

impl Node {
    /// A new node of the deployment `prefix`.
    ///
    /// # Errors
    /// No thread, or the defaults are not valid.
    pub(super) async fn start(redis: SocketAddr, prefix: &str) -> Result<Self> {
        let config = config::load(&config::Sources::default())
            .map_err(|error| anyhow::anyhow!("{error}"))?
            .config;
        let section = RedisSection {
            url: Some(format!("redis://{redis}").as_str().into()),
            prefix: prefix.to_owned(),
            lease: times::LEASE,
            lease_refresh: times::REFRESH,
            command_timeout: times::COMMAND,
            linger: times::LINGER,
            resync_interval: times::RESYNC,
            outbox_entries: 100_000,
            ..config.redis
        };
        let app = config.apps.first().context("there is an app")?.clone();
        let apps = Arc::new(Apps::load(&ConfiguredApps::new(vec![app.clone()])).await);
        let app = apps.by_id(app.id.as_str()).context("it was loaded")?;
        app.wanted.set(News::STATE.and(News::BINDS));
        let settings = Settings {
            redis: &section,
            webhooks: &WebhooksSection {
                settle: times::SETTLE,
                ..config.webhooks
            },
            cache: &CacheSection {
                ttl: Duration::from_mins(1),
                ..config.cache
            },
            idempotency: &config.idempotency,
            throttle: CountThrottle {
                above: 100,
                every: Duration::from_secs(1),
            },
        };
        let (commands, mailbox) = unbounded_channel();
        let witness = Witness::new(commands.clone());
        let cluster = Cluster::new(&settings, apps, witness.clone())?;
        let published = Arc::<Mutex<Vec<Published>>>::default();
        let (kill, killed) = channel();
        let life = Life {
            cluster: Arc::clone(&cluster),
            app,
            witness: Arc::clone(&witness),
            published: Arc::clone(&published),
            killed,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new().spawn(move || runtime.block_on(life.live(mailbox)))?;
        Ok(Self {
            cluster,
            witness,
            published,
            paused_until: Instant::now(),
            commands,
            kill,
            thread: Some(thread),
        })
    }

    pub(super) fn tell(&self, command: Command) {
        // A node that has ended hears nothing.
        self.commands.send(command).ok();
    }

    pub(super) fn pause(&mut self, time: Duration) {
        self.paused_until = self.paused_until.max(Instant::now()) + time;
        self.tell(Command::Pause(time));
    }

    pub(super) fn is_paused(&self) -> bool {
        Instant::now() < self.paused_until
    }

    pub(super) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Those whose answer has come.
    pub(super) fn published(&self) -> Vec<Published> {
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill.send(()).ok();
        // Wakes it, if it waits for something to do.
        self.tell(Command::Pause(Duration::ZERO));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// What runs on the node's thread.
struct Life {
    cluster: Arc<Cluster>,
    app: Arc<App>,
    witness: Arc<Witness>,
    published: Arc<Mutex<Vec<Published>>>,
    killed: Receiver<()>,
}

impl Life {
    /// Until it is killed: then everything it has open is closed by the end of the runtime.
    async fn live(self, mut mailbox: UnboundedReceiver<Command>) {
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&self.cluster).run());
        let (publish, publishing) = unbounded_channel();
        tasks.spawn(self.publisher(publishing));
        while let Some(command) = mailbox.recv().await {
            match command {
                Command::Pause(time) => {
                    if !time.is_zero() {
                        // The whole runtime stands still.
                        if self.killed.recv_timeout(time).is_ok() {
                            return;
                        }
                    } else if self.killed.try_recv().is_ok() {
                        return;
                    }
                }
                Command::Publish { channel, event } => drop(publish.send((channel, event))),
                Command::Goodbye => {
                    self.cluster.leave(GOODBYE).await;
                    return;
                }
                command => self.obey(command),
            }
        }
    }

    fn obey(&self, command: Command) {
        match command {
            Command::Join {
                connection,
                channel,
                user,
            } => {
                self.witness.expect(connection, &channel, user.as_deref());
                let bound = bound_as(connection, user.as_deref());
                let member = user.map(|user| PresenceMember {
                    user_id: user.parse().expect("the model's users have good names"),
                    user_info: None,
                });
                self.cluster.join(Join {
                    app: Arc::clone(&self.app),
                    channel: self.key(&channel),
                    connection: reference(connection),
                    member,
                    bound: bound.parse().ok(),
                    since: None,
                });
            }
            Command::Leave(connection) => {
                if let Some(seat) = self.witness.stand_up(connection) {
                    self.leave(&seat);
                }
            }
            Command::SignIn {
                connection,
                user,
                watchlist,
            } => {
                self.witness.watch(connection);
                self.cluster.sign_in(&self.sign_in(connection, &user, &watchlist));
            }
            Command::SignOut {
                connection,
                user,
                watchlist,
            } => {
                self.cluster
                    .sign_out(&self.sign_in(connection, &user, &watchlist));
                self.witness.look_away(connection);
            }
            Command::Publish { .. } | Command::Pause(_) | Command::Goodbye => {}
        }
    }

    fn key(&self, channel: &str) -> Arc<ChannelKey> {
        let name = channel.parse().expect("the model's channels have good names");
        ChannelKey::new(self.app.num, name)
    }

    fn leave(&self, seat: &Seat) {
        let user = seat.user.as_ref();
        Presence::leave(
            &*self.cluster,
            Leave {
                app: Arc::clone(&self.app),
                channel: self.key(&seat.channel),
                user_id: user.map(|user| user.parse().expect("it came in under this name")),
                bound: bound_as(seat.connection, user.map(String::as_str)).parse().ok(),
            },
        );
    }

    fn sign_in(&self, connection: u32, user: &str, watchlist: &[String]) -> SignIn {
        let parse = |user: &str| user.parse().expect("the model's users have good names");
        SignIn {
            app: Arc::clone(&self.app),
            connection: reference(connection),
            user_id: parse(user),
            watchlist: watchlist.iter().map(|user| parse(user)).collect(),
        }
    }

    /// Publishes one after the other, each when the one before was answered.
    fn publisher(
        &self,
        mut queue: UnboundedReceiver<(String, EventId)>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (cluster, app) = (Arc::clone(&self.cluster), Arc::clone(&self.app));
        let published = Arc::clone(&self.published);
        async move {
            while let Some((channel, event)) = queue.recv().await {
                let channel = channel.parse().expect("the model's channels have good names");
                let literal = event.literal();
                let publication = Publication {
                    channel: &channel,
                    event: "e",
                    data_literal: &literal,
                    user_id: None,
                    signed_in: None,
                    except: None,
                    origin: Origin::Api,
                };
                let is_ok = cluster.publish(&app, &publication).await.is_ok();
                published
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(Published { event, is_ok });
            }
        }
    }
}

fn reference(connection: u32) -> ConnectionRef {
    ConnectionRef {
        worker: 0,
        slot: connection,
        generation: 0,
    }
}

/// Users that came back in the testimony of several.
pub(super) fn acknowledged<'a>(published: impl Iterator<Item = &'a Published>) -> BTreeSet<EventId> {
    published
        .filter(|published| published.is_ok)
        .map(|published| published.event)
        .collect()
}
