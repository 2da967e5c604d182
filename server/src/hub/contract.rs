//! What the hub relies on from the broker and presence together, whatever is behind them.

use std::sync::Arc;

use dunlin_protocol::names::UserId;
use dunlin_protocol::position::Position;

use super::Services;
use crate::apps::App;
use crate::broker::{BrokerEvents, Origin, Overloaded, Publication};
use crate::presence::{Announcement, ConnectionRef, Join, JoinRefusal, Joined, PresenceEvents, Since};
use crate::storage::keys::{AppNum, ChannelKey, KeyRef};
use crate::told::Told;

/// What the subscribers of the suite's channels see.
#[derive(Debug)]
pub(crate) enum Seen {
    Event {
        name: String,
        position: Option<Position>,
    },
    Joined(u32, Joined),
}

/// A node that writes down what it is told, in order.
#[derive(Default)]
pub(crate) struct Recorder {
    told: Told<Seen>,
}

impl BrokerEvents for Recorder {
    fn publication(
        &self,
        _: KeyRef<'_>,
        publication: &Publication<'_>,
        position: Option<Position>,
    ) -> Result<(), Overloaded> {
        self.told.note(Seen::Event {
            name: publication.event.to_owned(),
            position,
        });
        Ok(())
    }
}

impl PresenceEvents for Recorder {
    fn joined(
        &self,
        to: ConnectionRef,
        _: &Arc<ChannelKey>,
        _: &Arc<App>,
        answer: Result<Joined, JoinRefusal>,
    ) {
        self.told.note(Seen::Joined(
            to.slot,
            answer.expect("no channel of the suite is full"),
        ));
    }

    fn announce(&self, _: &ChannelKey, _: &Announcement<'_>) {}

    fn watched(&self, _: ConnectionRef, _: &[&UserId], _: &[&UserId]) {}

    fn terminate_user(&self, _: AppNum, _: &UserId) {}

    fn admitted(&self, _: ConnectionRef, _: &Arc<App>, _: bool) {}
}

/// `services` tell `node`.
pub(crate) async fn run(services: &Services, node: &Recorder) {
    let suite = Suite {
        services,
        told: &node.told,
    };
    suite.subscribers_see_the_callers_order().await;
}

struct Suite<'a> {
    services: &'a Services,
    told: &'a Told<Seen>,
}

impl Suite<'_> {
    async fn join(&self, app: &Arc<App>, channel: &str, slot: u32, since: Option<Since>) -> Joined {
        self.services.presence.join(Join {
            app: app.clone(),
            channel: ChannelKey::new(app.num, channel.parse().unwrap()),
            connection: ConnectionRef {
                worker: 0,
                slot,
                generation: 0,
            },
            member: None,
            since,
        });
        let is_answer = |seen: &Seen| matches!(seen, Seen::Joined(to, _) if *to == slot);
        match self.told.until(is_answer).await.pop() {
            Some(Seen::Joined(_, joined)) => joined,
            other => panic!("{other:?} is no answer"),
        }
    }

    async fn publish(&self, app: &Arc<App>, channel: &str, event: &str) {
        let publication = Publication {
            channel: &channel.parse().unwrap(),
            event,
            data_literal: "\"x\"",
            user_id: None,
            except: None,
            origin: Origin::Api,
        };
        self.services.broker.publish(app, &publication).await.unwrap();
    }

    /// The next events: the name and the place of each.
    async fn next(&self, count: usize) -> Vec<(String, Option<Position>)> {
        let event = |seen| match seen {
            Seen::Event { name, position } => (name, position),
            Seen::Joined(..) => panic!("{seen:?} is no event"),
        };
        self.told.next(count).await.into_iter().map(event).collect()
    }

    async fn subscribers_see_the_callers_order(&self) {
        let app = App::fresh(|_| {});
        self.join(&app, "a", 1, None).await;
        for n in 0..100 {
            self.publish(&app, "a", &n.to_string()).await;
        }
        let expected: Vec<_> = (0..100).map(|n| (n.to_string(), None)).collect();
        assert_eq!(self.next(100).await, expected);
    }
}

mod tests {
    use std::time::Duration;

    use super::*;
    use crate::broker::memory::MemoryBroker;
    use crate::config::CacheSection;
    use crate::presence::memory::{CountThrottle, MemoryPresence};
    use crate::storage::memory::Channels;
    use crate::webhooks::outbox::MemoryOutbox;

    #[tokio::test]
    async fn the_memory_halves_keep_the_contract() {
        let (node, channels) = (Arc::new(Recorder::default()), Arc::new(Channels::default()));
        let cache = CacheSection {
            ttl: Duration::from_mins(30),
            max_bytes: 1000,
        };
        let throttle = CountThrottle {
            above: 3,
            every: Duration::ZERO,
        };
        let outbox = Arc::new(MemoryOutbox::new(0));
        let services = Services {
            broker: Arc::new(MemoryBroker::new(Arc::clone(&channels), node.clone(), &cache)),
            presence: Arc::new(MemoryPresence::new(channels, node.clone(), outbox, throttle)),
        };
        run(&services, &node).await;
    }
}
