//! From the store to the endpoints: claims endpoints that have something pending, sends, and stores what became of it.
//!
//! One task looks at everything and decides; what waits are the requests, at most so many at a time. An end is stored before
//! the lane goes on, so that nothing that was read from the store can be sent again after it was taken.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::delivery::{Attempt, Delivery};
use super::egress::Egress;
use super::endpoints::Endpoints;
use super::lanes::{Key, Lanes, Linger, Places};
use super::registry::Watch;
use super::schedule::{Schedules, Verdict};
use super::sign;
use super::stats::{Outcome, Stats};
use super::store::{Claim, Finished, Kept, Next, Store};
use super::work::Work;
use crate::clock::{self, millis};
use crate::config::WebhooksSection;
use crate::storage::sql::Fault;

/// Claims are renewed so many times before they would run out.
const RENEWALS: u32 = 3;

/// How often endpoints are looked for that nobody works on.
const LOOK: Duration = Duration::from_secs(1);

/// Endpoints claimed in one look.
const CLAIMED_AT_ONCE: u32 = 200;

/// Where nobody else stores deliveries, an endpoint that has none left is kept for so long: to give it back and to claim it
/// again are half the price of a delivery.
const LINGER: Duration = Duration::from_millis(500);

/// An endpoint whose next delivery is further away than this is nobody's until then.
const AHEAD: Duration = Duration::from_secs(5);

/// How long to wait when the store is out of reach.
const PAUSE: Duration = Duration::from_millis(500);

/// An attempt that has ended.
struct End {
    key: Key,
    seq: i64,
    finished: Finished,
    verdict: Verdict,
    outcome: Outcome,
}

/// Sends until it is told to end.
pub struct Sender {
    store: Store,
    egress: Egress,
    endpoints: Arc<Endpoints>,
    watch: Arc<Watch>,
    work: Arc<Work>,
    stats: Arc<Stats>,
    schedules: Schedules,
    /// Names this worker in the store.
    worker: String,
    time: Duration,
    /// How long an endpoint is this worker's without a sign of life: if the worker dies, another sends what is pending
    /// after that time.
    claim: Duration,
    /// How long an endpoint may take nothing; zero: for ever.
    disable_after: Duration,
    lanes: Lanes,
    ends: Vec<End>,
    /// To be disabled, and why: not in the lanes any more, and looked for in the store only when that is done.
    doomed: Vec<(Key, &'static str)>,
    renewed_at: Instant,
    looked_at: Option<Instant>,
    /// The [`Endpoints::replacements`] that the lanes know of.
    heeded: u64,
}

impl Sender {
    /// `is_alone`: no other process stores deliveries.
    pub fn new(
        store: Store,
        egress: Egress,
        watch: Arc<Watch>,
        work: Arc<Work>,
        stats: Arc<Stats>,
        section: &WebhooksSection,
        is_alone: bool,
    ) -> Self {
        let linger = Linger(if is_alone { millis(LINGER) } else { 0 });
        let places = Places {
            all: section.max_in_flight,
            of_an_endpoint: section.max_in_flight_per_endpoint,
        };
        Self {
            store,
            egress,
            endpoints: watch.endpoints(),
            watch,
            work,
            stats,
            schedules: Schedules::new(section),
            worker: format!("{:016x}", rand::random::<u64>()),
            time: section.timeout,
            claim: section.claim,
            disable_after: section.disable_after,
            lanes: Lanes::new(places, linger),
            ends: Vec::new(),
            doomed: Vec::new(),
            renewed_at: Instant::now(),
            looked_at: None,
            heeded: 0,
        }
    }

    /// Until `end`; then what is under way is waited for, and the claims are given back.
    pub async fn run(mut self, end: CancellationToken) {
        let mut under_way: FuturesUnordered<BoxFuture<'static, End>> = FuturesUnordered::new();
        loop {
            while let Some(ended) = under_way.next().now_or_never().flatten() {
                self.ends.push(ended);
            }
            if let Err(fault) = self.turn(end.is_cancelled()).await {
                tracing::warn!(%fault, "webhooks wait");
                sleep(PAUSE).await;
            }
            if end.is_cancelled() && under_way.is_empty() {
                self.give_back().await;
                return;
            }
            self.heed();
            let now_ms = clock::unix_millis();
            while !end.is_cancelled()
                && let Some(delivery) = self.lanes.next(now_ms)
            {
                under_way.push(self.attempt(delivery));
            }
            let due_ms = self.lanes.next_due_ms(now_ms).unwrap_or(u64::MAX);
            let longest = Duration::from_millis(due_ms.saturating_sub(now_ms).max(1))
                .min(LOOK)
                .min(self.claim / RENEWALS);
            tokio::select! {
                Some(ended) = under_way.next() => self.ends.push(ended),
                () = self.work.wait() => {}
                () = sleep(longest) => {}
                () = end.cancelled(), if !end.is_cancelled() => {}
            }
        }
    }

    /// Endpoints that were switched off or removed are sent nothing from now on, and those that are on again go on.
    fn heed(&mut self) {
        let replacements = self.endpoints.replacements();
        if self.heeded != replacements {
            self.heeded = replacements;
            let keys: Vec<Key> = self.lanes.keys().cloned().collect();
            for key in keys {
                match self.endpoints.get(&key.0, &key.1) {
                    Some(endpoint) => self.lanes.hold(&key, !endpoint.enabled),
                    // What was removed is disabled as well: the store has nothing more to be sent.
                    None => self.lanes.remove(&key),
                }
            }
        }
    }

    async fn turn(&mut self, is_last: bool) -> Result<(), Fault> {
        self.store_ends().await?;
        if self.renewed_at.elapsed() >= self.claim / RENEWALS {
            self.renew().await?;
        }
        if is_last {
            return Ok(());
        }
        self.look().await?;
        self.load_more().await?;
        self.let_go().await
    }

    /// What the store has kept is over in the lanes as well, before anything else is asked of it: it may fail at any time.
    async fn store_ends(&mut self) -> Result<(), Fault> {
        self.disable_doomed().await?;
        if self.ends.is_empty() {
            return Ok(());
        }
        let now_ms = clock::unix_millis();
        let finished: Vec<Finished> = self.ends.iter().map(|end| end.finished.clone()).collect();
        let kept = self.store.record(&self.worker, now_ms, &finished).await?;
        for (end, kept) in std::mem::take(&mut self.ends).into_iter().zip(kept) {
            self.stats.attempted(end.outcome, end.finished.attempt.took_ms);
            let Some(kept) = kept else {
                self.lanes.remove(&end.key);
                continue;
            };
            self.stats.recorded(&end.key.0, end.finished.next);
            let retry_at_ms = match end.finished.next {
                Next::Retry { at_ms } => Some(at_ms),
                Next::Done | Next::Dead => None,
            };
            let is_ok = end.verdict == Verdict::Taken;
            self.lanes.finished(&end.key, end.seq, is_ok, retry_at_ms, now_ms);
            // What is under way beside may come to the same end: it is said once.
            if let Some(why) = doom(end.verdict, kept, self.disable_after, now_ms)
                && self.lanes.has(&end.key)
            {
                self.lanes.remove(&end.key);
                self.doomed.push((end.key, why));
            }
        }
        self.disable_doomed().await
    }

    /// The one place where somebody could be told of it.
    async fn disable_doomed(&mut self) -> Result<(), Fault> {
        while let Some(((app, endpoint), why)) = self.doomed.last() {
            self.store.disable(app, endpoint, clock::unix_millis()).await?;
            tracing::warn!(
                %app,
                %endpoint,
                why,
                "an endpoint is disabled: it is sent nothing more until \
                 `dunlin webhooks enable {app} {endpoint}`"
            );
            self.stats.disabled.fetch_add(1, Relaxed);
            self.doomed.pop();
        }
        Ok(())
    }

    async fn renew(&mut self) -> Result<(), Fault> {
        self.renewed_at = Instant::now();
        let now_ms = clock::unix_millis();
        let ours = self
            .store
            .renew(&self.worker, now_ms + millis(self.claim))
            .await?;
        let ours: HashSet<Key> = ours.into_iter().map(key).collect();
        let lost: Vec<Key> = self
            .lanes
            .keys()
            .filter(|key| !ours.contains(key))
            .cloned()
            .collect();
        for key in lost {
            self.lanes.remove(&key);
        }
        Ok(())
    }

    /// Looks for endpoints to work on: at once for those that something was stored for here, every now and then for others.
    async fn look(&mut self) -> Result<(), Fault> {
        let mut is_any_new = false;
        for key in self.work.take() {
            is_any_new |= !self.lanes.has(&key);
            self.lanes.there_is_more(&key);
        }
        let is_time = self.looked_at.is_none_or(|at| at.elapsed() >= LOOK);
        if !is_any_new && !is_time {
            return Ok(());
        }
        let now_ms = clock::unix_millis();
        let claimed = self
            .store
            .claim(
                &self.worker,
                now_ms,
                now_ms + millis(self.claim),
                now_ms + millis(AHEAD),
                CLAIMED_AT_ONCE,
            )
            .await?;
        for claim in claimed {
            self.load(&key(claim), now_ms).await?;
        }
        if is_time {
            self.looked_at = Some(Instant::now());
            self.look_at_ours(now_ms).await?;
        }
        Ok(())
    }

    /// Nobody rings for what another node has stored or a person has replayed, and an endpoint that is ours because of a
    /// delivery that waits for hours must not keep that waiting. One that was disabled is still ours when it is enabled.
    async fn look_at_ours(&mut self, now_ms: u64) -> Result<(), Fault> {
        for claim in self.store.due(&self.worker, now_ms).await? {
            let key = key(claim);
            if self.lanes.is_idle(&key, now_ms) {
                self.load(&key, now_ms).await?;
            }
        }
        Ok(())
    }

    async fn load_more(&mut self) -> Result<(), Fault> {
        let now_ms = clock::unix_millis();
        let wanting: Vec<Key> = self.lanes.wanting(now_ms).cloned().collect();
        for key in &wanting {
            self.load(key, now_ms).await?;
        }
        Ok(())
    }

    async fn load(&mut self, key: &Key, now_ms: u64) -> Result<(), Fault> {
        let mut endpoint = self.endpoints.get(&key.0, &key.1);
        if endpoint.is_none() {
            // Another node may have stored something for an endpoint that this one is about to hear of.
            self.watch.look().await?;
            endpoint = self.endpoints.get(&key.0, &key.1);
        }
        let limit = self.lanes.appetite(key, now_ms);
        let pending = self.store.pending(&key.0, &key.1, limit).await?;
        self.lanes.offer(key, pending, limit);
        let is_off = endpoint.is_some_and(|endpoint| !endpoint.enabled);
        self.lanes.hold(key, is_off);
        Ok(())
    }

    /// Gives back the claims of those that have nothing left.
    async fn let_go(&mut self) -> Result<(), Fault> {
        let done: Vec<Key> = self.lanes.done(clock::unix_millis()).cloned().collect();
        for key in &done {
            self.lanes.remove(key);
            self.store.release(&self.worker, &key.0, &key.1).await?;
        }
        Ok(())
    }

    async fn give_back(&mut self) {
        let keys: Vec<Key> = self.lanes.keys().cloned().collect();
        for key in keys {
            if let Err(fault) = self.store.release(&self.worker, &key.0, &key.1).await {
                tracing::warn!(%fault, "a claim was not given back: it will run out");
                return;
            }
        }
    }

    fn attempt(&self, delivery: Delivery) -> BoxFuture<'static, End> {
        let endpoint = self.endpoints.get(&delivery.app, &delivery.endpoint);
        let (egress, time, schedules) = (self.egress.clone(), self.time, self.schedules.clone());
        async move {
            let at_ms = clock::unix_millis();
            let started = Instant::now();
            let target = endpoint
                .as_ref()
                .and_then(|endpoint| Some((endpoint, endpoint.url(delivery.source)?)));
            let (verdict, outcome, status, note) = match target {
                None => (
                    Verdict::Failed { retry_after: None },
                    Outcome::NotSent,
                    None,
                    "The endpoint is not configured any more, or has no URL for this.".to_owned(),
                ),
                Some((endpoint, url)) => {
                    let headers =
                        sign::headers(endpoint, &delivery.id, at_ms / 1000, delivery.body.as_bytes());
                    let body = Bytes::from(delivery.body.clone());
                    match egress.post(url, headers, body, time).await {
                        Ok(received) => (
                            Verdict::of(received.status, received.retry_after),
                            Outcome::of_status(received.status),
                            Some(received.status),
                            received.note,
                        ),
                        Err(failure) => (
                            Verdict::Failed { retry_after: None },
                            Outcome::of_failure(failure.kind),
                            None,
                            failure.note,
                        ),
                    }
                }
            };
            let took_ms = u32::try_from(started.elapsed().as_millis()).unwrap_or(u32::MAX);
            let is_short = endpoint.is_some_and(|endpoint| endpoint.short_retries);
            let next = match verdict {
                // Whoever tests an endpoint wants to know how it does now.
                Verdict::Failed { .. } if delivery.is_test() => Next::Dead,
                verdict => schedules.of(is_short).next(
                    verdict,
                    delivery.attempts + 1,
                    delivery.created_at_ms,
                    clock::unix_millis(),
                    rand::random(),
                ),
            };
            End {
                key: (delivery.app.clone(), delivery.endpoint.clone()),
                seq: delivery.seq,
                verdict,
                outcome,
                finished: Finished {
                    app: delivery.app,
                    endpoint: delivery.endpoint,
                    seq: delivery.seq,
                    attempt: Attempt {
                        at_ms,
                        took_ms,
                        status,
                        note,
                    },
                    next,
                },
            }
        }
        .boxed()
    }
}

/// Why an endpoint is to be disabled after an attempt that ended so, if it is. `disable_after`: how long it may take
/// nothing; zero: for ever.
fn doom(verdict: Verdict, kept: Kept, disable_after: Duration, now_ms: u64) -> Option<&'static str> {
    match verdict {
        Verdict::Taken => None,
        Verdict::Gone => Some("it answered 410 Gone"),
        Verdict::Failed { .. } => {
            let until_ms = kept.failing_since_ms?.saturating_add(millis(disable_after));
            (!disable_after.is_zero() && until_ms <= now_ms)
                .then_some("it has taken nothing for as long as webhooks.disable_after_s allows")
        }
    }
}

fn key(claim: Claim) -> Key {
    (claim.app, claim.endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::Apps;
    use crate::apps::store::ConfiguredApps;
    use crate::config::{Sources, load};
    use crate::storage::sql::scratch::Scratch;
    use crate::webhooks::delivery::{DeliveryId, EndpointId, NewDelivery, Source};
    use crate::webhooks::egress::Guard;

    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn an_endpoint_is_disabled_when_it_says_so_or_has_taken_nothing_for_too_long() {
        let day_ms = millis(DAY);
        let failed = Verdict::Failed { retry_after: None };
        for (verdict, failing_since_ms, disable_after, is_doomed) in [
            (Verdict::Taken, None, DAY, false),
            (Verdict::Taken, Some(0), DAY, false),
            (Verdict::Gone, Some(day_ms), DAY, true),
            (Verdict::Gone, Some(day_ms), Duration::ZERO, true),
            (failed, Some(0), DAY, true),
            (failed, Some(1), DAY, false),
            (failed, None, DAY, false),
            (failed, Some(0), Duration::ZERO, false),
        ] {
            let why = doom(verdict, Kept { failing_since_ms }, disable_after, day_ms);
            let case = (verdict, failing_since_ms, disable_after);
            assert_eq!(why.is_some(), is_doomed, "{case:?}");
        }
    }

    async fn sender(store: &Store) -> Sender {
        let config = load(&Sources::default()).expect("the defaults are valid").config;
        let apps = Arc::new(Apps::load(&ConfiguredApps::new(config.apps.clone())).await);
        let stats = Arc::new(Stats::new(Arc::clone(&apps)));
        let section = config.webhooks.clone();
        let watch = Watch::new(store.clone(), Arc::new(config), Arc::default(), apps);
        let egress = Egress::new(Arc::new(Guard::default()), Vec::new()).expect("it has no wishes");
        let (watch, work) = (Arc::new(watch), Arc::default());
        Sender::new(store.clone(), egress, watch, work, stats, &section, true)
    }

    fn end(delivery: &Delivery, verdict: Verdict, next: Next) -> End {
        End {
            key: (delivery.app.clone(), delivery.endpoint.clone()),
            seq: delivery.seq,
            finished: Finished {
                app: delivery.app.clone(),
                endpoint: delivery.endpoint.clone(),
                seq: delivery.seq,
                attempt: Attempt {
                    at_ms: 1,
                    took_ms: 1,
                    status: None,
                    note: String::new(),
                },
                next,
            },
            verdict,
            outcome: Outcome::Refused,
        }
    }

    #[tokio::test]
    async fn a_store_that_fails_over_a_disabled_endpoint_keeps_no_other_under_way() {
        let scratch = Scratch::sqlite();
        let database = scratch.open().await;
        let change = async |sql: &'static str| {
            let mut transaction = database.begin().await.unwrap();
            sqlx::query(sql).execute(&mut *transaction).await.unwrap();
            transaction.commit().await.unwrap();
        };
        let store = Store::new(database.clone());
        let app = || "1".parse().unwrap();
        let deliveries = ["gone", "gone too", "well"].map(|endpoint| NewDelivery {
            id: DeliveryId::new(),
            app: app(),
            endpoint: EndpointId(endpoint.into()),
            source: Source::Events,
            created_at_ms: 1,
            lanes: 1,
            events: 1,
            body: "{}".to_owned(),
        });
        store.add(&deliveries, 1, &[]).await.unwrap();
        let mut sender = sender(&store).await;
        sender.look().await.unwrap();
        let now_ms = clock::unix_millis();
        while let Some(delivery) = sender.lanes.next(now_ms) {
            let end = match &*delivery.endpoint.0 {
                "well" => end(&delivery, Verdict::Taken, Next::Done),
                _ => end(&delivery, Verdict::Gone, Next::Dead),
            };
            sender.ends.push(end);
        }
        assert_eq!(sender.lanes.under_way(), 3);

        change(
            "CREATE TRIGGER fails BEFORE UPDATE OF disabled_at_ms ON webhook_endpoint_states \
             BEGIN SELECT RAISE(ABORT, 'it fails'); END",
        )
        .await;
        assert!(sender.turn(false).await.is_err());
        assert_eq!(sender.lanes.under_way(), 0);
        assert!(sender.turn(false).await.is_err(), "it is tried again");
        assert_eq!(store.disabled().await.unwrap(), []);

        change("DROP TRIGGER fails").await;
        sender.turn(false).await.unwrap();
        let disabled = store.disabled().await.unwrap().into_iter();
        let mut disabled: Vec<Key> = disabled.map(|(key, _)| key).collect();
        disabled.sort();
        let expected = ["gone", "gone too"].map(|endpoint| (app(), EndpointId(endpoint.into())));
        assert_eq!(disabled, expected);
        assert_eq!(sender.stats.disabled.load(Relaxed), 2);
    }
}
