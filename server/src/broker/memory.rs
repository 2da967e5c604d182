//! The broker of a single node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dunlin_protocol::names::ChannelName;

use super::{Broker, BrokerEvents, HistoryPage, HistoryQuery, NotPublished, Origin, Overloaded, Publication};
use crate::answer::{Answer, Unavailable};
use crate::apps::App;
use crate::clock;
use crate::config::CacheSection;
use crate::storage::keys::{ChannelKey, KeyRef};
use crate::storage::memory::{CachedEvent, Channels, Remembered};

pub struct MemoryBroker {
    channels: Arc<Channels>,
    events: Arc<dyn BrokerEvents>,
    ttl_s: u32,
    /// Of the remembered events of one app.
    max_bytes: usize,
    sweep: AtomicUsize,
}

impl MemoryBroker {
    pub fn new(channels: Arc<Channels>, events: Arc<dyn BrokerEvents>, section: &CacheSection) -> Self {
        Self {
            channels,
            events,
            ttl_s: clock::ceil_seconds(section.ttl),
            max_bytes: section.max_bytes,
            sweep: AtomicUsize::new(0),
        }
    }

    /// Remembers and delivers in one step under the channel's lock, so that a subscriber gets the event
    /// exactly once: out of the cache or live.
    fn publish_cached(
        &self,
        app: &App,
        key: KeyRef<'_>,
        publication: &Publication<'_>,
    ) -> Result<(), Overloaded> {
        let mut stripe = self.channels.stripe(key);
        self.events.publication(key, publication, None)?;
        let known = ChannelKey::new(app.num, publication.channel.clone());
        let channel = stripe.get_or_insert_with(&known, Default::default);
        // An old event is never left standing where a newer one finds no room: a miss is true, a stale hit is not.
        channel.cached = None;
        let size = publication.event.len() + publication.data_literal.len();
        channel.cached = app.cached.reserve(size, self.max_bytes).map(|room| {
            let event = CachedEvent {
                name: publication.event.into(),
                data_literal: publication.data_literal.into(),
                expires_at_s: clock::monotonic_seconds() + self.ttl_s,
            };
            Remembered { event, room }
        });
        if channel.cached.is_none() && channel.connections == 0 {
            stripe.remove(key);
        }
        Ok(())
    }
}

impl Broker for MemoryBroker {
    fn publish(&self, app: &Arc<App>, publication: &Publication<'_>) -> Answer<Result<(), NotPublished>> {
        let key = KeyRef::new(app.num, publication.channel.as_str());
        let remembered = publication.origin == Origin::Api && publication.channel.kind().is_cache();
        let published = if remembered {
            self.publish_cached(app, key, publication)
        } else {
            self.events.publication(key, publication, None)
        };
        Answer::ready(published.map_err(NotPublished::from))
    }

    fn cached(&self, app: &App, channel: &ChannelName) -> Answer<Result<Option<CachedEvent>, Unavailable>> {
        let key = KeyRef::new(app.num, channel.as_str());
        let now_s = clock::monotonic_seconds();
        let stripe = self.channels.stripe(key);
        let cached = stripe.get(key).and_then(|channel| channel.cached.as_ref());
        let event = cached
            .map(|cached| cached.event.clone())
            .filter(|event| event.expires_at_s > now_s);
        Answer::ready(Ok(event))
    }

    fn history(&self, _: &App, _: &ChannelName, _: HistoryQuery) -> Answer<Result<HistoryPage, Unavailable>> {
        Answer::ready(Ok(HistoryPage {
            position: None,
            events: Vec::new(),
            has_more: false,
        }))
    }

    fn tick(&self) {
        // One stripe a second: an expired event is invisible at once and its memory is back within about a minute.
        let turn = self.sweep.fetch_add(1, Ordering::Relaxed);
        let now_s = clock::monotonic_seconds();
        self.channels.stripe_number(turn).retain(|_, channel| {
            channel
                .cached
                .take_if(|cached| cached.event.expires_at_s <= now_s);
            channel.connections > 0 || channel.cached.is_some()
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

    const CACHE: CacheSection = CacheSection {
        ttl: Duration::from_mins(30),
        max_bytes: 1000,
    };

    #[tokio::test]
    async fn the_memory_broker_keeps_the_contract() {
        let broker = MemoryBroker::new(Arc::default(), Arc::new(contract::Nobody), &CACHE);
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
    }

    fn event<'a>(channel: &'a ChannelName, event: &'a str, data_literal: &'a str) -> Publication<'a> {
        Publication {
            channel,
            event,
            data_literal,
            user_id: None,
            except: None,
            origin: Origin::Api,
        }
    }

    #[tokio::test]
    async fn only_what_was_accepted_and_fits_is_remembered() {
        let (node, app) = (Arc::new(Node::default()), App::fresh(|_| {}));
        let broker = MemoryBroker::new(Arc::default(), node.clone(), &CACHE);
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
