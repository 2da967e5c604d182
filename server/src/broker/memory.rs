//! The broker of a single node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dunlin_protocol::names::ChannelName;

use super::{Broker, BrokerEvents, HistoryPage, HistoryQuery, NotPublished, Origin, Overloaded, Publication};
use crate::answer::{Answer, Unavailable};
use crate::apps::App;
use crate::apps::history::HistoryRule;
use crate::clock;
use crate::config::{CacheSection, HistorySection};
use crate::storage::history::{Bounds, History};
use crate::storage::keys::{ChannelKey, KeyRef};
use crate::storage::memory::{CachedEvent, Channels, PastEvent, Remembered};
use crate::webhooks::event::ChannelEvent;
use crate::webhooks::outbox::Outbox;

pub struct MemoryBroker {
    channels: Arc<Channels>,
    events: Arc<dyn BrokerEvents>,
    outbox: Arc<dyn Outbox>,
    ttl_s: u32,
    /// Of the remembered events of one app.
    cache_bytes: usize,
    /// Of the past events of one app.
    history_bytes: usize,
    sweep: AtomicUsize,
}

impl MemoryBroker {
    pub fn new(
        channels: Arc<Channels>,
        events: Arc<dyn BrokerEvents>,
        outbox: Arc<dyn Outbox>,
        cache: &CacheSection,
        history: &HistorySection,
    ) -> Self {
        Self {
            channels,
            events,
            outbox,
            ttl_s: clock::ceil_seconds(cache.ttl),
            cache_bytes: cache.max_bytes,
            history_bytes: history.max_bytes,
            sweep: AtomicUsize::new(0),
        }
    }

    /// Keeps and delivers in one step under the channel's lock, so that a subscriber gets the event exactly once: out
    /// of what is kept or live.
    fn publish_and_keep(
        &self,
        app: &App,
        key: KeyRef<'_>,
        publication: &Publication<'_>,
        kept: Kept<'_>,
    ) -> Result<(), Overloaded> {
        let known = ChannelKey::new(app.num, publication.channel.clone());
        let now_s = clock::monotonic_seconds();
        let mut stripe = self.channels.stripe(key);
        let channel = stripe.get_or_insert_with(&known, Default::default);
        let history = kept.history.map(|rule| {
            let begin = || Box::new(History::new(clock::unix_micros(), rule.age_s, now_s, &app.kept));
            (rule, channel.history.get_or_insert_with(begin))
        });
        let position = history.as_ref().map(|(_, history)| history.next_position());
        let published = self.events.publication(key, publication, position);
        if published.is_ok() {
            if kept.is_told {
                let event = ChannelEvent::Published(Arc::new(publication.to_published()));
                self.outbox.append(&app.id, publication.channel, event);
            }
            if let (Some((rule, history)), Some(position)) = (history, position) {
                let bounds = Bounds {
                    size: rule.size,
                    age_s: rule.age_s,
                    max_bytes: self.history_bytes,
                };
                history.append(past_event(publication, position.serial), bounds, now_s);
            }
            if kept.is_cached {
                // An old event is never left standing where a newer one finds no room: a miss is true, a stale hit is
                // not.
                channel.cached = None;
                channel.cached = self.remembered(app, publication, now_s);
            }
        }
        channel.settle_history(self.history_bytes);
        if channel.is_idle() {
            stripe.remove(key);
        }
        published
    }

    fn remembered(&self, app: &App, publication: &Publication<'_>, now_s: u32) -> Option<Remembered> {
        let size = publication.event.len() + publication.data_literal.len();
        app.cached.reserve(size, self.cache_bytes).map(|room| Remembered {
            event: CachedEvent {
                name: publication.event.into(),
                data_literal: publication.data_literal.into(),
                expires_at_s: now_s + self.ttl_s,
            },
            room,
        })
    }
}

/// What of a publication outlives its delivery.
#[derive(Clone, Copy)]
struct Kept<'a> {
    is_cached: bool,
    history: Option<&'a HistoryRule>,
    /// The outside wants to know of it.
    is_told: bool,
}

fn past_event(publication: &Publication<'_>, serial: u64) -> PastEvent {
    PastEvent {
        serial,
        published_at_ms: clock::unix_millis(),
        name: publication.event.into(),
        data_literal: publication.data_literal.into(),
        user_id: publication.user_id.cloned(),
    }
}

impl Broker for MemoryBroker {
    fn publish(&self, app: &Arc<App>, publication: &Publication<'_>) -> Answer<Result<(), NotPublished>> {
        let key = KeyRef::new(app.num, publication.channel.as_str());
        let kept = Kept {
            is_cached: publication.origin == Origin::Api && publication.channel.kind().is_cache(),
            history: app.history_of(publication.channel),
            is_told: publication.is_wanted(app),
        };
        let published = if kept.is_cached || kept.history.is_some() || kept.is_told {
            self.publish_and_keep(app, key, publication, kept)
        } else {
            self.events.publication(key, publication, None)
        };
        Answer::ready(published.map_err(NotPublished::from))
    }

    fn cached(&self, app: &App, channel: &ChannelName) -> Answer<Result<Option<CachedEvent>, Unavailable>> {
        let key = KeyRef::new(app.num, channel.as_str());
        let now_s = clock::monotonic_seconds();
        let stripe = self.channels.stripe(key);
        let event = stripe.get(key).and_then(|channel| channel.remembered(now_s));
        Answer::ready(Ok(event.cloned()))
    }

    fn history(
        &self,
        app: &App,
        channel: &ChannelName,
        query: HistoryQuery,
    ) -> Answer<Result<HistoryPage, Unavailable>> {
        let key = KeyRef::new(app.num, channel.as_str());
        let now_s = clock::monotonic_seconds();
        let stripe = self.channels.stripe(key);
        let history = stripe.get(key).and_then(|channel| channel.history.as_deref());
        Answer::ready(Ok(history.map_or_else(HistoryPage::default, |history| {
            let range = history.between(query.after, query.before, now_s);
            let position = history.position();
            HistoryPage {
                position: Some(position),
                has_more: range.len() > query.limit,
                is_complete: history.is_complete_after(query.after.unwrap_or(position.epoch), now_s),
                events: if query.newest_first {
                    range.rev().take(query.limit).cloned().collect()
                } else {
                    range.take(query.limit).cloned().collect()
                },
            }
        })))
    }

    fn tick(&self) {
        // One stripe a second: what has expired is invisible at once and its memory is back within about a minute.
        let turn = self.sweep.fetch_add(1, Ordering::Relaxed);
        let now_s = clock::monotonic_seconds();
        // Dropped once the lock is free again: there may be many.
        let mut expired = Vec::new();
        self.channels.stripe_number(turn).retain(|_, channel| {
            channel
                .cached
                .take_if(|cached| cached.event.expires_at_s <= now_s);
            if let Some(history) = &mut channel.history {
                expired.push(history.expire(now_s));
                if channel.connections == 0 && history.is_over(now_s) {
                    channel.history = None;
                }
            }
            !channel.is_idle()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use dunlin_protocol::position::Position;

    use super::super::contract;
    use super::*;
    use crate::webhooks::outbox::MemoryOutbox;

    const CACHE: CacheSection = CacheSection {
        ttl: Duration::from_mins(30),
        max_bytes: 1000,
    };
    const HISTORY: HistorySection = HistorySection { max_bytes: 10_000 };

    #[tokio::test]
    async fn the_memory_broker_keeps_the_contract() {
        let broker = MemoryBroker::new(
            Arc::default(),
            Arc::new(contract::Nobody),
            Arc::new(MemoryOutbox::new(0)),
            &CACHE,
            &HISTORY,
        );
        contract::run(&broker).await;
    }

    /// A node that can be full.
    #[derive(Default)]
    struct Node {
        is_full: Mutex<bool>,
    }

    impl BrokerEvents for Node {
        fn publication(
            &self,
            _: KeyRef<'_>,
            _: &Publication<'_>,
            _: Option<Position>,
        ) -> Result<(), Overloaded> {
            if *self.is_full.lock().unwrap() {
                return Err(Overloaded);
            }
            Ok(())
        }

        fn lost(&self, _: KeyRef<'_>, _: Position) {}
    }

    fn event<'a>(channel: &'a ChannelName, event: &'a str, data_literal: &'a str) -> Publication<'a> {
        Publication {
            channel,
            event,
            data_literal,
            user_id: None,
            signed_in: None,
            except: None,
            origin: Origin::Api,
        }
    }

    #[tokio::test]
    async fn only_what_was_accepted_and_fits_is_remembered() {
        let (node, app) = (Arc::new(Node::default()), App::fresh(|_| {}));
        let broker = MemoryBroker::new(
            Arc::default(),
            node.clone(),
            Arc::new(MemoryOutbox::new(0)),
            &CACHE,
            &HISTORY,
        );
        let channel: ChannelName = "cache-a".parse().unwrap();
        let cached = async || {
            let event = broker.cached(&app, &channel).await.unwrap();
            event.map(|event| event.name.to_string())
        };
        let publish = async |name: &str, data: &str| broker.publish(&app, &event(&channel, name, data)).await;
        publish("one", "\"1\"").await.unwrap();
        *node.is_full.lock().unwrap() = true;
        assert_eq!(publish("two", "\"2\"").await, Err(NotPublished::Overloaded));
        assert_eq!(
            cached().await.as_deref(),
            Some("one"),
            "a refused event is not remembered"
        );
        *node.is_full.lock().unwrap() = false;
        publish("large", &format!("\"{}\"", "x".repeat(2000)))
            .await
            .unwrap();
        assert_eq!(
            cached().await,
            None,
            "what does not fit replaces what is stale by nothing"
        );
        publish("small", "\"1\"").await.unwrap();
        assert_eq!(cached().await.as_deref(), Some("small"));
    }
}
