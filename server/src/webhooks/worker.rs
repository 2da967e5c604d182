//! The worker of a node: opens the store, and runs what looks for endpoints, what reads the outbox and what sends.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use futures_util::FutureExt as _;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::egress::Egress;
use super::endpoints::Endpoints;
use super::feeder::Feeder;
use super::outbox::Feed;
use super::registry::{self, Watch};
use super::sender::Sender;
use super::stats::Stats;
use super::store::Store;
use super::sweep::sweep;
use super::work::Work;
use crate::apps::Apps;
use crate::clock;
use crate::config::{Config, WebhooksSection};
use crate::storage::sql::{Database, Fault, OpenError, Target};

/// How often what is too old is forgotten, and how much of it at a time.
const PRUNING: Duration = Duration::from_mins(1);
const PRUNED_AT_ONCE: u32 = 10_000;

/// How often what is known of endpoints that are gone is forgotten.
const SWEEPING: Duration = Duration::from_hours(1);

/// After a breakdown, or while there is no database.
const RECOVERY: Duration = Duration::from_secs(1);

/// Why there are no webhooks although some are configured.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the database of the webhooks cannot be opened")]
    Database(#[from] OpenError),
    #[error("the endpoints of the database cannot be read")]
    Endpoints(#[from] Fault),
    #[error("no client for webhooks can be made")]
    Client(#[from] reqwest::Error),
    #[error("no thread for webhooks can be started")]
    Thread(#[from] io::Error),
}

/// The endpoints of the configuration, of which the apps know from now on.
pub fn configured(config: &Config, apps: &Apps) -> Arc<Endpoints> {
    let endpoints = Arc::new(Endpoints::default());
    let guard = config.guard();
    endpoints.replace(
        registry::configured(config, &guard).map(|(endpoint, _)| endpoint),
        apps,
    );
    endpoints
}

/// Keeps the node's endpoints up to date, and delivers if it is to, until it is stopped. On a thread of its own: what it
/// does never stands in front of a publish.
pub struct Worker {
    end: CancellationToken,
    ended: oneshot::Receiver<()>,
}

impl Worker {
    /// A node that delivers to endpoints of its configuration needs the database. Any other serves without it, and opens it
    /// as soon as it is there.
    ///
    /// # Errors
    /// The database is needed, and is not there or not ours.
    pub async fn start(
        config: &Config,
        feed: Arc<dyn Feed>,
        endpoints: Arc<Endpoints>,
        apps: Arc<Apps>,
        stats: Arc<Stats>,
    ) -> Result<Self, StartError> {
        let end = CancellationToken::new();
        let (say_started, started) = oneshot::channel();
        let (say_ended, ended) = oneshot::channel();
        let until = end.clone();
        let job = Job {
            config: Arc::new(config.clone()),
            feed,
            endpoints,
            apps,
            stats,
        };
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new()
            .name("webhooks".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let parts = match job.open_at_start().await {
                        Ok(parts) => parts,
                        Err(error) => return drop(say_started.send(Err(error))),
                    };
                    say_started.send(Ok(())).ok();
                    job.keep_running(parts, until).await;
                });
                say_ended.send(()).ok();
            })?;
        match started.await {
            Ok(Ok(())) => Ok(Self { end, ended }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(StartError::Thread(io::Error::other("the thread ended"))),
        }
    }

    /// Stores what was read, waits for what is under way, and gives its claims back; what takes longer than `time` is
    /// left to others, or to the next start.
    pub async fn stop(self, time: Duration) {
        self.end.cancel();
        if timeout(time, self.ended).await.is_err() {
            tracing::warn!("some webhooks were under way: they will be sent again");
        }
    }
}

/// What the thread does.
struct Job {
    config: Arc<Config>,
    feed: Arc<dyn Feed>,
    endpoints: Arc<Endpoints>,
    apps: Arc<Apps>,
    stats: Arc<Stats>,
}

/// What it needs for that.
struct Parts {
    store: Store,
    /// Has looked: the node knows of all endpoints.
    watch: Arc<Watch>,
    /// `None`: nothing is sent yet.
    egress: Option<Egress>,
}

impl Job {
    /// There is an endpoint, and this node delivers.
    fn delivers_now(&self) -> bool {
        self.config.webhooks.deliver && !self.endpoints.is_empty()
    }

    /// What there is already is had before the node serves, so that nothing happens that is not recorded.
    async fn open_at_start(&self) -> Result<Option<Parts>, StartError> {
        if self.delivers_now() {
            return self.open().await.map(Some);
        }
        if self.is_file_missing() {
            return Ok(None);
        }
        // What is wrong is said when it is tried again.
        let opened = timeout(self.config.database.timeout, self.open()).await;
        Ok(opened.ok().and_then(Result::ok))
    }

    /// A file would have to be made. It is waited for instead: a node that nobody has given an endpoint writes nothing, and
    /// runs where nothing can be written.
    fn is_file_missing(&self) -> bool {
        let target = Target::of(&self.config.database, &self.config.server.data_dir);
        target.is_ok_and(|target| target.missing_file().is_some())
    }

    async fn open(&self) -> Result<Parts, StartError> {
        let database = Database::open(&self.config.database, &self.config.server.data_dir).await?;
        let store = Store::new(database);
        let (config, endpoints) = (Arc::clone(&self.config), Arc::clone(&self.endpoints));
        let watch = Watch::new(store.clone(), config, endpoints, Arc::clone(&self.apps));
        watch.look().await?;
        if let Some(warning) = self.config.database_warning() {
            tracing::warn!("{warning}");
        }
        Ok(Parts {
            store,
            watch: Arc::new(watch),
            egress: self.delivers_now().then(|| self.egress()).transpose()?,
        })
    }

    fn egress(&self) -> Result<Egress, StartError> {
        Ok(Egress::new(Arc::new(self.config.guard()), Vec::new())?)
    }

    /// A mistake of ours in one delivery must not be the end of all: what was not stored is read again.
    async fn keep_running(&self, mut parts: Option<Parts>, end: CancellationToken) {
        loop {
            let opened = match parts.take() {
                Some(parts) => parts,
                None => match end.run_until_cancelled(self.open_when_needed()).await {
                    Some(parts) => parts,
                    None => return,
                },
            };
            let run = AssertUnwindSafe(self.run(opened, end.clone())).catch_unwind();
            match run.await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => complain(&error),
                Err(_) => tracing::error!("the webhook worker broke down, and begins again"),
            }
            if end.run_until_cancelled(sleep(RECOVERY)).await.is_none() {
                return;
            }
        }
    }

    /// Tries until the database is there.
    async fn open_when_needed(&self) -> Parts {
        let mut last_error = String::new();
        loop {
            if self.delivers_now() || !self.is_file_missing() {
                match self.open().await {
                    Ok(parts) => return parts,
                    Err(error) => {
                        // Once, not with each try.
                        let text = format!("{error:?}");
                        if text != last_error {
                            complain(&error);
                            last_error = text;
                        }
                    }
                }
            }
            sleep(RECOVERY).await;
        }
    }

    async fn run(&self, parts: Parts, end: CancellationToken) -> Result<(), StartError> {
        let watching = end.run_until_cancelled(parts.watch.run()).map(Ok);
        if !self.config.webhooks.deliver {
            watching.await?;
            return Ok(());
        }
        // Also without an endpoint: there may be deliveries of those that were.
        let pruning = end.run_until_cancelled(prune(&parts.store, &self.endpoints, &self.config.webhooks));
        let tending = end.run_until_cancelled(parts.store.tend());
        let deliver = self.deliver(&parts, end.clone());
        tokio::try_join!(watching, pruning.map(Ok), tending.map(Ok), deliver)?;
        Ok(())
    }

    /// From the first endpoint on: a node without any asks neither the outbox nor the database for work.
    async fn deliver(&self, parts: &Parts, end: CancellationToken) -> Result<(), StartError> {
        let section = &self.config.webhooks;
        if end.run_until_cancelled(self.endpoints.any()).await.is_none() {
            return Ok(());
        }
        let egress = match &parts.egress {
            Some(egress) => egress.clone(),
            None => self.egress()?,
        };
        let (feed, endpoints) = (Arc::clone(&self.feed), Arc::clone(&self.endpoints));
        // An outbox in memory is read by its own process alone.
        let is_alone = !feed.is_durable();
        let (store, watch, work) = (&parts.store, Arc::clone(&parts.watch), Arc::<Work>::default());
        let stats = || Arc::clone(&self.stats);
        let feeder = Feeder::new(feed, store.clone(), endpoints, Arc::clone(&work), stats());
        let counting = end.run_until_cancelled(self.stats.watch(store, &self.endpoints));
        let sender = Sender::new(store.clone(), egress, watch, work, stats(), section, is_alone);
        tokio::join!(feeder.run(end.clone()), sender.run(end.clone()), counting);
        Ok(())
    }
}

fn complain(error: &StartError) {
    let error: &dyn std::error::Error = error;
    tracing::warn!(error, "webhooks wait");
}

async fn prune(store: &Store, endpoints: &Endpoints, section: &WebhooksSection) {
    let mut swept_at: Option<Instant> = None;
    loop {
        let now_ms = clock::unix_millis();
        let before = |time: Duration| now_ms.saturating_sub(clock::millis(time));
        let (done, dead) = (before(section.retain_done), before(section.retain_dead));
        while let Ok(count) = store.prune(now_ms, done, dead, PRUNED_AT_ONCE).await {
            if count < u64::from(PRUNED_AT_ONCE) {
                break;
            }
        }
        if swept_at.is_none_or(|at| at.elapsed() >= SWEEPING) {
            swept_at = Some(Instant::now());
            if let Err(fault) = sweep(store, endpoints, done.min(dead)).await {
                tracing::warn!(%fault, "what is known of endpoints that are gone is not forgotten yet");
            }
        }
        sleep(PRUNING).await;
    }
}
