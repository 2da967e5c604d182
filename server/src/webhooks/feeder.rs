//! From the outbox to the store: reads what happened, batches it for every endpoint that wants it, and stores what is to be
//! delivered together with how far that endpoint has been read.
//!
//! Nothing is lost and nothing becomes two deliveries, whenever this process ends: what was read and not stored is read
//! again, and what was stored has moved its cursor in the same transaction. Two readers of a partition cannot both move it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use dunlin_protocol::names::AppId;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, Batcher};
use super::delivery::{EndpointId, NewDelivery, Source};
use super::endpoints::Endpoints;
use super::lanes::Key;
use super::outbox::{Entry, Feed, PartitionNumber, Place};
use super::stats::Stats;
use super::store::{CursorMove, Store};
use super::work::Work;
use crate::answer::Unavailable;
use crate::clock;
use crate::storage::sql::Fault;

/// How often the partitions are shared out anew.
const SHARING: Duration = Duration::from_secs(1);

/// How often the outbox is asked what waits in it.
const MEASURING: Duration = Duration::from_secs(2);

/// How long to wait when the outbox or the store is out of reach.
const PAUSE: Duration = Duration::from_millis(500);

/// Entries read at a time, of each partition.
const READ_AT_ONCE: usize = 500;

/// Events that wait in batches. Beyond, nothing is read until some are stored.
const MOST_HELD: usize = 50_000;

/// Deliveries of one transaction.
const STORED_AT_ONCE: usize = 200;

/// An endpoint's part of the events of a partition.
type Lane = (AppId, EndpointId, Source);

/// How far a partition was read.
#[derive(Debug, Default)]
struct Reading {
    read_to: Place,
    forgotten_to: Place,
    /// By endpoint and source: how far it is stored.
    stored_to: HashMap<Lane, Option<Place>>,
    /// Batches that are not stored, by the place of their first entry here.
    open: BTreeMap<Place, usize>,
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Outbox(#[from] Unavailable),
    #[error(transparent)]
    Store(#[from] Fault),
}

/// Reads the outbox until it is told to end.
pub struct Feeder {
    feed: Arc<dyn Feed>,
    store: Store,
    endpoints: Arc<Endpoints>,
    work: Arc<Work>,
    stats: Arc<Stats>,
    batcher: Batcher,
    readings: BTreeMap<PartitionNumber, Reading>,
    shared_at: Option<Instant>,
    measured_at: Option<Instant>,
    /// Closed, and not stored yet.
    closed: Vec<Batch>,
}

impl Feeder {
    pub fn new(
        feed: Arc<dyn Feed>,
        store: Store,
        endpoints: Arc<Endpoints>,
        work: Arc<Work>,
        stats: Arc<Stats>,
    ) -> Self {
        Self {
            feed,
            store,
            endpoints,
            work,
            stats,
            batcher: Batcher::default(),
            readings: BTreeMap::new(),
            shared_at: None,
            measured_at: None,
            closed: Vec::new(),
        }
    }

    /// Until `end`; then what is batched is stored, without waiting for its window.
    pub async fn run(mut self, end: CancellationToken) {
        loop {
            match self.turn(end.is_cancelled()).await {
                Ok(()) if end.is_cancelled() => break,
                Ok(()) => self.rest(&end).await,
                Err(trouble) => {
                    if end.is_cancelled() {
                        break;
                    }
                    tracing::warn!(%trouble, "webhooks wait");
                    sleep(PAUSE).await;
                }
            }
        }
        self.feed.leave().await;
    }

    /// Until there may be something to do.
    async fn rest(&self, end: &CancellationToken) {
        let due_in = self
            .batcher
            .next_due_ms()
            .map(|due_ms| Duration::from_millis(due_ms.saturating_sub(clock::unix_millis())));
        let longest = due_in.unwrap_or(SHARING).min(SHARING);
        tokio::select! {
            () = self.feed.wait() => {}
            () = sleep(longest) => {}
            () = end.cancelled() => {}
        }
    }

    async fn turn(&mut self, is_last: bool) -> Result<(), Trouble> {
        self.share().await?;
        self.measure().await?;
        let is_full = self.batcher.held() + self.closed.len() > MOST_HELD;
        if !is_full {
            self.read().await?;
        }
        let closed = if is_last {
            self.batcher.take_all(clock::unix_millis())
        } else {
            self.batcher.take_due(clock::unix_millis())
        };
        self.closed.extend(closed);
        self.store_closed().await?;
        self.forget().await?;
        Ok(())
    }

    /// Looks which partitions are this reader's.
    async fn share(&mut self) -> Result<(), Trouble> {
        if self.shared_at.is_some_and(|at| at.elapsed() < SHARING) {
            return Ok(());
        }
        let owned = self.feed.partitions().await?;
        self.shared_at = Some(Instant::now());
        if self.readings.keys().any(|partition| !owned.contains(partition)) {
            // Batches may hold some of what is another's now.
            self.begin_anew();
        }
        for partition in owned {
            self.readings.entry(partition).or_default();
        }
        Ok(())
    }

    /// In front of what may fail: while the store is away, the outbox grows.
    async fn measure(&mut self) -> Result<(), Trouble> {
        if self.measured_at.is_some_and(|at| at.elapsed() < MEASURING) {
            return Ok(());
        }
        self.measured_at = Some(Instant::now());
        let ours: Vec<PartitionNumber> = self.readings.keys().copied().collect();
        self.stats.outbox(self.feed.oldest(&ours).await?);
        Ok(())
    }

    /// Forgets all that was read and not stored: it is read again by whoever it belongs to.
    fn begin_anew(&mut self) {
        self.batcher = Batcher::default();
        self.readings.clear();
        self.closed.clear();
        self.shared_at = None;
    }

    async fn read(&mut self) -> Result<(), Trouble> {
        let after: Vec<(PartitionNumber, Place)> = self
            .readings
            .iter()
            .map(|(partition, reading)| (*partition, reading.read_to))
            .collect();
        if after.is_empty() {
            return Ok(());
        }
        let entries = self.feed.read(&after, READ_AT_ONCE).await?;
        for (partition, entry) in entries {
            self.take(partition, &entry).await?;
        }
        Ok(())
    }

    async fn take(&mut self, partition: PartitionNumber, entry: &Entry) -> Result<(), Trouble> {
        let endpoints = self.endpoints.of(&entry.app);
        // All of them are known, or the entry is read again: no endpoint may have it twice because of another.
        let mut wanting = Vec::new();
        for endpoint in endpoints.iter() {
            let Some(source) = endpoint.source_of(&entry.channel, &entry.event) else {
                continue;
            };
            let lane = (entry.app.clone(), endpoint.id.clone(), source);
            if self.stored_to(partition, &lane).await? < Some(entry.place) {
                wanting.push((endpoint, source));
            }
        }
        for (endpoint, source) in wanting {
            let begins = self
                .batcher
                .push(endpoint, source, entry, partition, clock::unix_millis());
            if let (Some(first), Some(reading)) = (begins, self.readings.get_mut(&partition)) {
                *reading.open.entry(first).or_default() += 1;
            }
        }
        if let Some(reading) = self.readings.get_mut(&partition) {
            reading.read_to = reading.read_to.max(entry.place);
        }
        Ok(())
    }

    /// How far an endpoint has been stored, which the store knows if it was before our time.
    async fn stored_to(&mut self, partition: PartitionNumber, lane: &Lane) -> Result<Option<Place>, Trouble> {
        let Some(reading) = self.readings.get_mut(&partition) else {
            return Ok(None);
        };
        if let Some(place) = reading.stored_to.get(lane) {
            return Ok(*place);
        }
        let place = if self.feed.is_durable() {
            let text = self.store.cursor(&cursor(partition, lane)).await?;
            text.and_then(|text| text.parse().ok())
        } else {
            None
        };
        reading.stored_to.insert(lane.clone(), place);
        Ok(place)
    }

    async fn store_closed(&mut self) -> Result<(), Trouble> {
        while !self.closed.is_empty() {
            let count = self.closed.len().min(STORED_AT_ONCE);
            let some = &self.closed[..count];
            let deliveries: Vec<NewDelivery> = some.iter().map(|batch| batch.delivery.clone()).collect();
            let moves = self.moves(some);
            let is_stored = self.store.add(&deliveries, clock::unix_millis(), &moves).await?;
            if !is_stored {
                tracing::info!("another worker has read these events: they are left to it");
                self.begin_anew();
                return Ok(());
            }
            let some: Vec<Batch> = self.closed.drain(..count).collect();
            for batch in &some {
                let lane = lane(&batch.delivery);
                for (partition, span) in &batch.read {
                    let Some(reading) = self.readings.get_mut(partition) else {
                        continue;
                    };
                    reading.stored_to.insert(lane.clone(), Some(span.last));
                    if let Some(batches) = reading.open.get_mut(&span.first) {
                        *batches -= 1;
                        if *batches == 0 {
                            reading.open.remove(&span.first);
                        }
                    }
                }
            }
            self.stats.made.fetch_add(some.len() as u64, Relaxed);
            self.work.is_there(some.iter().map(|batch| {
                let delivery = &batch.delivery;
                (delivery.app.clone(), delivery.endpoint.clone())
            }));
        }
        Ok(())
    }

    /// Several batches of one endpoint are one move.
    fn moves(&self, batches: &[Batch]) -> Vec<CursorMove> {
        if !self.feed.is_durable() {
            return Vec::new();
        }
        let mut moves: BTreeMap<String, CursorMove> = BTreeMap::new();
        for batch in batches {
            let lane = lane(&batch.delivery);
            for (partition, span) in &batch.read {
                let from = || {
                    let reading = self.readings.get(partition)?;
                    reading.stored_to.get(&lane)?.map(|place| place.to_string())
                };
                let name = cursor(*partition, &lane);
                let moved = moves.entry(name.clone()).or_insert_with(|| CursorMove {
                    partition: name,
                    from: from(),
                    to: String::new(),
                });
                moved.to = span.last.to_string();
            }
        }
        moves.into_values().collect()
    }

    /// Lets the outbox go of what is stored, or nobody wants.
    async fn forget(&mut self) -> Result<(), Trouble> {
        let (feed, stats) = (&self.feed, &self.stats);
        let forgetting = self.readings.iter_mut().filter_map(|(partition, reading)| {
            let up_to = match reading.open.first_key_value() {
                Some((first, _)) => first.before(),
                None => reading.read_to,
            };
            let is_news = up_to > reading.forgotten_to;
            is_news.then_some(async move {
                let lost = feed.forget(*partition, up_to).await?;
                reading.forgotten_to = up_to;
                if lost > 0 {
                    stats.dropped.fetch_add(lost, Relaxed);
                    tracing::error!(
                        lost,
                        partition,
                        "events for webhooks are lost: the outbox was full before they were read"
                    );
                }
                Ok(())
            })
        });
        // Not given up when one fails: what the others have lost is told only once.
        join_all(forgetting).await.into_iter().collect()
    }
}

fn lane(delivery: &NewDelivery) -> Lane {
    (delivery.app.clone(), delivery.endpoint.clone(), delivery.source)
}

/// Whose cursor it is.
pub(super) fn owner_of(cursor: &str) -> Option<Key> {
    let mut parts = cursor.split('/').skip(1);
    let (app, endpoint) = (parts.next()?, parts.next()?);
    Some((app.parse().ok()?, EndpointId(endpoint.into())))
}

/// What the store calls the cursor of an endpoint and source in a partition.
fn cursor(partition: PartitionNumber, (app, endpoint, source): &Lane) -> String {
    format!("{partition}/{app}/{endpoint}/{source:?}")
}
