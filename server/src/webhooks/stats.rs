//! What operators and customers can count: how the deliveries of this node fare, and how those of all nodes stand.
//!
//! The worker writes, and whoever is asked for numbers reads; nobody waits, and no question reaches the database.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::ArcSwap;
use dunlin_protocol::names::AppId;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::{Instant, sleep};

use super::egress::FailureKind;
use super::endpoints::Endpoints;
use super::lanes::Key;
use super::store::{Backlog, Disabled, Fault, Next, Store};
use crate::apps::Apps;
use crate::apps::app::WebhookCounters;
use crate::clock::{self, millis};

/// How often the store is asked how all deliveries stand …
const LOOK: Duration = Duration::from_secs(3);

/// … and how many times as long as the answer took it is left alone at least: counting a long queue takes a while.
const REST: u32 = 20;

/// Seconds. The last one is beyond the default time limit of an attempt.
const BUCKETS: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// How an attempt ended, in few words: each is a time series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Any 2xx.
    Taken,
    /// Any 3xx, which is not followed.
    Redirected,
    /// Any 4xx.
    Refused,
    /// Any other status.
    ServerError,
    TimedOut,
    /// No connection, or none that lasted until the answer was complete.
    Unreachable,
    /// Nothing was sent: the rules do not let it go there, or there is no such endpoint any more.
    NotSent,
}

impl Outcome {
    const ALL: [Self; 7] = [
        Self::Taken,
        Self::Redirected,
        Self::Refused,
        Self::ServerError,
        Self::TimedOut,
        Self::Unreachable,
        Self::NotSent,
    ];

    pub fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Taken,
            300..=399 => Self::Redirected,
            400..=499 => Self::Refused,
            _ => Self::ServerError,
        }
    }

    pub fn of_failure(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Refused => Self::NotSent,
            FailureKind::TimedOut => Self::TimedOut,
            FailureKind::Dns | FailureKind::Connect | FailureKind::Tls | FailureKind::Broken => {
                Self::Unreachable
            }
        }
    }

    fn label(self) -> Label {
        let name = match self {
            Self::Taken => "taken",
            Self::Redirected => "redirected",
            Self::Refused => "refused",
            Self::ServerError => "server_error",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::NotSent => "not_sent",
        };
        [("outcome", name)]
    }
}

type Label = [(&'static str, &'static str); 1];

/// How long attempts took, by [`Outcome`]; in seconds.
pub type Durations = Family<Label, Histogram>;

/// The numbers of this node's worker; all zero on a node that has none.
#[derive(Debug)]
pub struct Stats {
    /// Where each app's own are kept.
    apps: Arc<Apps>,
    /// Of all apps, also of those that are gone.
    pub all: WebhookCounters,
    /// Deliveries that events became.
    pub made: AtomicU64,
    /// Endpoints that were disabled, because they are gone or took nothing for too long.
    pub disabled: AtomicU64,
    /// Events that made way in an outbox that was full.
    pub dropped: AtomicU64,
    pub durations: Durations,
    /// Unix milliseconds of the oldest event that is no delivery yet; 0: there is none.
    outbox_since_ms: AtomicU64,
    standing: ArcSwap<Standing>,
}

/// How things stand in the store, which all nodes share.
#[derive(Debug, Default)]
struct Standing {
    apps: BTreeMap<AppId, Backlog>,
    disabled: HashMap<Key, Disabled>,
}

/// How deliveries of all nodes stand, as it was known a few seconds ago.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Deliveries that wait for an attempt.
    pub pending: u64,
    /// Deliveries that were given up, and are kept.
    pub dead: u64,
    /// Endpoints that are sent nothing until somebody enables them.
    pub disabled_endpoints: u64,
    /// Age of the oldest one that waits; zero if none does.
    pub oldest: Duration,
}

impl Stats {
    pub fn new(apps: Arc<Apps>) -> Self {
        let durations = Durations::new_with_constructor(|| Histogram::new(BUCKETS));
        for outcome in Outcome::ALL {
            drop(durations.get_or_create(&outcome.label()));
        }
        Self {
            apps,
            all: WebhookCounters::default(),
            made: AtomicU64::new(0),
            disabled: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            durations,
            outbox_since_ms: AtomicU64::new(0),
            standing: ArcSwap::default(),
        }
    }

    /// An attempt has ended.
    pub(super) fn attempted(&self, outcome: Outcome, took_ms: u32) {
        let seconds = f64::from(took_ms) / 1000.0;
        self.durations.get_or_create(&outcome.label()).observe(seconds);
    }

    /// What becomes of a delivery after an attempt was stored.
    pub(super) fn recorded(&self, app: &AppId, next: Next) {
        let app = self.apps.by_id(app.as_str());
        let of_app = app.as_ref().map(|app| &app.counters.webhooks);
        for counters in of_app.into_iter().chain([&self.all]) {
            let counted: &[&AtomicU64] = match next {
                Next::Done => &[&counters.delivered],
                Next::Retry { .. } => &[&counters.failed, &counters.retried],
                Next::Dead => &[&counters.failed, &counters.dead],
            };
            for counter in counted {
                counter.fetch_add(1, Relaxed);
            }
        }
    }

    /// The age of the first event in the outbox that is no delivery yet.
    pub(super) fn outbox(&self, oldest: Option<Duration>) {
        let since_ms = oldest.map_or(0, |age| clock::unix_millis().saturating_sub(millis(age)));
        self.outbox_since_ms.store(since_ms, Relaxed);
    }

    /// Age of the oldest event of this node's part of the outbox that is no delivery yet; zero if all are.
    pub fn outbox_lag(&self) -> Duration {
        match self.outbox_since_ms.load(Relaxed) {
            0 => Duration::ZERO,
            since_ms => age(since_ms),
        }
    }

    /// Of all apps, also of those that are gone.
    pub fn queue(&self) -> Queue {
        let standing = self.standing.load();
        standing.queue(standing.apps.values(), |_| true)
    }

    /// The app's endpoints that are sent nothing until somebody enables them, by their ids.
    pub fn disabled_of(&self, app: &AppId) -> BTreeMap<String, Disabled> {
        let standing = self.standing.load();
        let of_app = standing.disabled.iter().filter(|((of, _), _)| of == app);
        let of_app = of_app.map(|((_, endpoint), disabled)| (endpoint.to_string(), *disabled));
        of_app.collect()
    }

    /// Of one app.
    pub fn queue_of(&self, app: &AppId) -> Queue {
        let standing = self.standing.load();
        standing.queue(standing.apps.get(app), |(of, _)| of == app)
    }

    /// Keeps asking the store how things stand.
    pub(super) async fn watch(&self, store: &Store, endpoints: &Endpoints) {
        loop {
            let asked_at = Instant::now();
            if let Err(fault) = self.look(store, endpoints).await {
                tracing::debug!(%fault, "how deliveries stand is not known");
            }
            sleep(LOOK.max(asked_at.elapsed() * REST)).await;
        }
    }

    async fn look(&self, store: &Store, endpoints: &Endpoints) -> Result<(), Fault> {
        let apps = store.backlog().await?;
        let disabled = store.disabled().await?;
        let is_there = |(key, _): &(Key, Disabled)| endpoints.get(&key.0, &key.1).is_some();
        self.standing.store(Arc::new(Standing {
            apps: apps.into_iter().map(|app| (app.app.clone(), app)).collect(),
            disabled: disabled.into_iter().filter(is_there).collect(),
        }));
        Ok(())
    }
}

impl Standing {
    fn queue<'a>(
        &self,
        apps: impl IntoIterator<Item = &'a Backlog>,
        is_counted: impl Fn(&Key) -> bool,
    ) -> Queue {
        let mut queue = Queue::default();
        for app in apps {
            queue.pending += app.pending;
            queue.dead += app.dead;
            queue.oldest = queue
                .oldest
                .max(app.oldest_pending_ms.map_or(Duration::ZERO, age));
        }
        queue.disabled_endpoints = self.disabled.keys().filter(|key| is_counted(key)).count() as u64;
        queue
    }
}

fn age(since_ms: u64) -> Duration {
    Duration::from_millis(clock::unix_millis().saturating_sub(since_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::store::ConfiguredApps;
    use crate::config::AppSection;
    use crate::webhooks::delivery::EndpointId;
    use crate::webhooks::store::WhyDisabled;

    async fn stats() -> Stats {
        let app = AppSection {
            id: "1".parse().unwrap(),
            ..AppSection::example()
        };
        Stats::new(Arc::new(Apps::load(&ConfiguredApps::new(vec![app])).await))
    }

    fn read(counters: &WebhookCounters) -> [u64; 4] {
        [
            &counters.delivered,
            &counters.failed,
            &counters.retried,
            &counters.dead,
        ]
        .map(|counter| counter.load(Relaxed))
    }

    #[tokio::test]
    async fn what_becomes_of_deliveries_is_counted_for_all_and_for_each_app() {
        let stats = stats().await;
        for (app, next) in [
            ("1", Next::Retry { at_ms: 0 }),
            ("1", Next::Done),
            ("gone", Next::Dead),
        ] {
            stats.recorded(&app.parse().unwrap(), next);
        }
        assert_eq!(read(&stats.all), [1, 2, 1, 1]);
        let app = stats.apps.by_id("1").expect("it is there");
        assert_eq!(read(&app.counters.webhooks), [1, 1, 1, 0]);
    }

    #[tokio::test]
    async fn each_app_has_its_part_of_what_stands_in_the_store() {
        let stats = stats().await;
        let backlog = |app: &str, pending, oldest_pending_ms| {
            let app: AppId = app.parse().unwrap();
            let backlog = Backlog {
                app: app.clone(),
                pending,
                dead: 1,
                oldest_pending_ms,
            };
            (app, backlog)
        };
        let now_ms = clock::unix_millis();
        let key = ("2".parse().unwrap(), EndpointId("a".into()));
        let disabled = Disabled {
            since_ms: 1,
            why: WhyDisabled::Gone,
        };
        stats.standing.store(Arc::new(Standing {
            apps: [backlog("1", 3, Some(now_ms - 60_000)), backlog("2", 0, None)].into(),
            disabled: [(key, disabled)].into(),
        }));
        let (one, two, all) = (
            stats.queue_of(&"1".parse().unwrap()),
            stats.queue_of(&"2".parse().unwrap()),
            stats.queue(),
        );
        assert_eq!((one.pending, one.dead, one.disabled_endpoints), (3, 1, 0));
        assert!(one.oldest >= Duration::from_mins(1), "{one:?}");
        assert_eq!((two.pending, two.dead, two.disabled_endpoints), (0, 1, 1));
        assert_eq!(two.oldest, Duration::ZERO);
        assert_eq!((all.pending, all.dead, all.disabled_endpoints), (3, 2, 1));
        assert_eq!(stats.queue_of(&"3".parse().unwrap()), Queue::default());
        assert_eq!(
            stats.disabled_of(&"2".parse().unwrap()),
            [("a".to_owned(), disabled)].into()
        );
        assert!(stats.disabled_of(&"1".parse().unwrap()).is_empty());
    }
}
