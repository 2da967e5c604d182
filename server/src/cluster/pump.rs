//! Carries what is held to Redis, and the answers back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::FuturesUnordered;
use redis::RedisError;

use super::Cluster;
use super::held::{Asked, Held, Step};
use super::link::Link;
use super::request::{Answer, Hold};
use crate::lock::lock;
use crate::storage::redis::lane::Lane;
use crate::storage::redis::names::{Names, Partition, Thing};
use crate::storage::redis::scripts::HOLD;

/// Questions under way at the same time. Each is of one thing, whose next question waits for its answer and speaks for all
/// that has happened meanwhile.
const AT_ONCE: usize = 512;

/// Topics of one command.
const TOPICS_AT_ONCE: usize = 256;

impl Cluster {
    /// # Errors
    /// The connection failed.
    pub(super) async fn pump(&self, link: &Arc<Link>) -> Result<(), RedisError> {
        let mut running: FuturesUnordered<BoxFuture<'_, Result<(), RedisError>>> = FuturesUnordered::new();
        loop {
            let (mut subscribe, mut unsubscribe) = (Vec::new(), Vec::new());
            while running.len() < AT_ONCE {
                let Some(held) = lock(&self.queue).pop_front() else {
                    break;
                };
                match held.step(&self.id.load(), &self.rules) {
                    Step::Nothing => {}
                    Step::Subscribe => subscribe.push(held),
                    Step::Unsubscribe => unsubscribe.push(held),
                    Step::Say(hold, asked) => running.push(self.say(link, held, hold, asked).boxed()),
                }
            }
            for batch in self.batches(subscribe) {
                running.push(self.subscribe(link, batch).boxed());
            }
            for batch in self.batches(unsubscribe) {
                running.push(self.unsubscribe(link, batch).boxed());
            }
            tokio::select! {
                () = self.queued.notified(), if running.len() < AT_ONCE => {}
                Some(done) = running.next() => done?,
            }
        }
    }

    /// Topics that go into one command: on a cluster, those of one partition.
    fn batches(&self, held: Vec<Arc<Held>>) -> Vec<Vec<Arc<Held>>> {
        let mut groups: BTreeMap<Option<Partition>, Vec<Arc<Held>>> = BTreeMap::new();
        for held in held {
            let group = self.target.is_cluster().then(|| held.thing.partition());
            groups.entry(group).or_default().push(held);
        }
        let batches = groups.values().flat_map(|group| group.chunks(TOPICS_AT_ONCE));
        batches.map(<[_]>::to_vec).collect()
    }

    async fn subscribe(&self, link: &Link, batch: Vec<Arc<Held>>) -> Result<(), RedisError> {
        let topics: Vec<&str> = batch.iter().map(|held| &*held.topic).collect();
        let done = link.listen(&topics).await;
        for held in &batch {
            match done {
                Ok(()) => self.act(held, held.subscribed()),
                Err(_) => held.failed(None),
            }
        }
        done
    }

    async fn unsubscribe(&self, link: &Link, batch: Vec<Arc<Held>>) -> Result<(), RedisError> {
        let topics: Vec<&str> = batch.iter().map(|held| &*held.topic).collect();
        let done = link.subscriber.unsubscribe(&topics).await;
        for held in &batch {
            match done {
                Ok(()) => self.act(held, held.unsubscribed()),
                Err(_) => held.failed(None),
            }
        }
        done
    }

    async fn say(
        &self,
        link: &Arc<Link>,
        held: Arc<Held>,
        hold: Box<Hold>,
        asked: Asked,
    ) -> Result<(), RedisError> {
        // Whatever ends this, also the end of the connection, the question does not get lost.
        let asked = Question {
            held: &held,
            asked: Some(asked),
        };
        let answer = run(&link.holding, &self.names, &held.thing, &hold).await?;
        self.counters.holds.fetch_add(1, Ordering::Relaxed);
        match answer {
            Answer::Done(done) => {
                if done.is_due {
                    self.is_due(held.thing.partition());
                }
                if held.is_behind(&done) {
                    link.hear_out(&held.topic).await?;
                }
                let outcome = held.answered(asked.answered(), *done, &*self.node);
                self.act(&held, outcome);
                Ok(())
            }
            Answer::Fenced => {
                drop(asked);
                // Of several that are told the same, one brings about the new id.
                if self.be_reborn(link, &hold.node).await? {
                    self.restart_everything(true);
                } else {
                    let outcome = held.asks_again();
                    self.act(&held, outcome);
                }
                Ok(())
            }
            Answer::More => Err(not_understood()),
        }
    }
}

/// A question on its way. Dropped without an answer, it is asked again later.
struct Question<'a> {
    held: &'a Held,
    asked: Option<Asked>,
}

impl Question<'_> {
    fn answered(mut self) -> Asked {
        self.asked.take().expect("it is answered once")
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        if let Some(asked) = self.asked.take() {
            self.held.failed(Some(asked));
        }
    }
}

/// Says what a node holds of one thing.
///
/// # Errors
/// Redis says no, nothing in time, or what is not understood.
pub(super) async fn run(
    lane: &Lane,
    names: &Names,
    thing: &Thing,
    hold: &Hold,
) -> Result<Answer, RedisError> {
    let partition = thing.partition();
    let keys = [
        names.state(thing),
        names.members(thing),
        names.held(thing, &hold.node),
        names.index(partition, &hold.node),
        names.occupied(partition, &thing.app),
        names.due(partition),
        names.outbox(partition),
        names.fence(partition, &hold.node),
        names.cached(thing),
        names.history(thing),
        names.bound(thing, &hold.node),
    ];
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let json = serde_json::to_vec(hold).map_err(|_| not_understood())?;
    let value = HOLD.run(lane, &keys, &[&json]).await?;
    Answer::parse(value).ok_or_else(not_understood)
}

pub(super) fn not_understood() -> RedisError {
    RedisError::from((
        redis::ErrorKind::UnexpectedReturnType,
        "an answer that no script gives",
    ))
}
