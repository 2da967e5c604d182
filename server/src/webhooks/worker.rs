//! The worker of a node: opens the store, and runs what reads the outbox and what sends.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use futures_util::FutureExt as _;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::egress::Egress;
use super::endpoint::Endpoint;
use super::endpoints::Endpoints;
use super::feeder::Feeder;
use super::outbox::Feed;
use super::sender::Sender;
use super::store::Store;
use super::work::Work;
use crate::apps::Apps;
use crate::clock;
use crate::config::{Config, WebhooksSection};
use crate::storage::sql::{Database, OpenError};

/// How often what is too old is forgotten, and how much of it at a time.
const PRUNING: Duration = Duration::from_mins(1);
const PRUNED_AT_ONCE: u32 = 10_000;

/// After a breakdown.
const RECOVERY: Duration = Duration::from_secs(1);

/// Why there are no webhooks although some are configured.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the database of the webhooks cannot be opened")]
    Database(#[from] OpenError),
    #[error("no client for webhooks can be made")]
    Client(#[from] reqwest::Error),
    #[error("no thread for webhooks can be started")]
    Thread(#[from] io::Error),
}

/// The endpoints of the configuration, of which the apps know from now on. What is wrong with one was said when the
/// configuration was read.
pub fn configured(config: &Config, apps: &Apps) -> Arc<Endpoints> {
    let guard = config.guard();
    let of_app = |app| Endpoint::all_of(app, &guard).unwrap_or_default();
    let endpoints = Arc::new(Endpoints::default());
    endpoints.replace(config.apps.iter().flat_map(of_app), apps);
    endpoints
}

/// Delivers until it is stopped, on a thread of its own: what it does never stands in front of a publish.
pub struct Worker {
    end: CancellationToken,
    ended: oneshot::Receiver<()>,
}

impl Worker {
    /// # Errors
    /// The database is not there, or is not ours.
    pub async fn start(
        config: &Config,
        feed: Arc<dyn Feed>,
        endpoints: Arc<Endpoints>,
    ) -> Result<Self, StartError> {
        let end = CancellationToken::new();
        let (say_started, started) = oneshot::channel();
        let (say_ended, ended) = oneshot::channel();
        let (config, until) = (config.clone(), end.clone());
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new()
            .name("webhooks".to_owned())
            .spawn(move || {
                let open = || Parts::open(&config, Arc::clone(&feed), Arc::clone(&endpoints));
                match runtime.block_on(open()) {
                    Ok(parts) => {
                        say_started.send(Ok(())).ok();
                        runtime.block_on(keep_running(parts, open, until));
                    }
                    Err(error) => drop(say_started.send(Err(error))),
                }
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

/// A mistake of ours in one delivery must not be the end of all: what was not stored is read again.
async fn keep_running<F>(parts: Parts, open: impl Fn() -> F, end: CancellationToken)
where
    F: Future<Output = Result<Parts, StartError>>,
{
    let mut parts = Some(parts);
    loop {
        if let Some(parts) = parts.take() {
            let run = AssertUnwindSafe(parts.run(end.clone())).catch_unwind();
            if run.await.is_ok() {
                return;
            }
            tracing::error!("the webhook worker broke down, and begins again");
        }
        if end.run_until_cancelled(sleep(RECOVERY)).await.is_none() {
            return;
        }
        match open().await {
            Ok(opened) => parts = Some(opened),
            Err(error) => tracing::warn!(%error, "webhooks wait"),
        }
    }
}

/// What runs on the thread.
struct Parts {
    feeder: Feeder,
    sender: Sender,
    store: Store,
    section: WebhooksSection,
}

impl Parts {
    async fn open(
        config: &Config,
        feed: Arc<dyn Feed>,
        endpoints: Arc<Endpoints>,
    ) -> Result<Self, StartError> {
        let database = Database::open(&config.database, &config.server.data_dir).await?;
        let egress = Egress::new(Arc::new(config.guard()), Vec::new())?;
        let (store, work) = (Store::new(database), Arc::<Work>::default());
        let section = config.webhooks.clone();
        // An outbox in memory is read by its own process alone.
        let is_alone = !feed.is_durable();
        Ok(Self {
            feeder: Feeder::new(feed, store.clone(), Arc::clone(&endpoints), Arc::clone(&work)),
            sender: Sender::new(store.clone(), egress, endpoints, work, &section, is_alone),
            store,
            section,
        })
    }

    async fn run(self, end: CancellationToken) {
        let pruning = end.run_until_cancelled(prune(self.store, self.section));
        tokio::join!(
            self.feeder.run(end.clone()),
            self.sender.run(end.clone()),
            pruning
        );
    }
}

async fn prune(store: Store, section: WebhooksSection) {
    loop {
        sleep(PRUNING).await;
        let now_ms = clock::unix_millis();
        let before = |time: Duration| now_ms.saturating_sub(clock::millis(time));
        let (done, dead) = (before(section.retain_done), before(section.retain_dead));
        while let Ok(count) = store.prune(now_ms, done, dead, PRUNED_AT_ONCE).await {
            if count < u64::from(PRUNED_AT_ONCE) {
                break;
            }
        }
    }
}
