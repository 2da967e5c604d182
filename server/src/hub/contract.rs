//! What the hub relies on from the broker and presence together, whatever is behind them.

use std::sync::Arc;

use dunlin_protocol::names::UserId;
use dunlin_protocol::position::Position;

use super::Services;
use crate::apps::App;
use crate::broker::{BrokerEvents, Origin, Overloaded, Publication};
use crate::config::HistoryRuleSection;
use crate::presence::{
    Announcement, ConnectionRef, Join, JoinRefusal, Joined, Leave, PresenceEvents, Recovery, Since,
};
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

    fn lost(&self, _: KeyRef<'_>, _: Position) {}
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
    suite.every_event_of_a_channel_with_history_has_its_place().await;
    suite.who_comes_back_gets_what_it_missed().await;
    suite.what_cannot_be_recovered_is_said().await;
    suite.who_asks_for_the_last_gets_the_last().await;
    suite
        .a_joiner_amid_publishing_misses_nothing_and_gets_nothing_twice()
        .await;
}

struct Suite<'a> {
    services: &'a Services,
    told: &'a Told<Seen>,
}

impl Suite<'_> {
    fn ask(&self, app: &Arc<App>, channel: &str, slot: u32, since: Option<Since>) {
        self.services.presence.join(Join {
            app: app.clone(),
            channel: ChannelKey::new(app.num, channel.parse().unwrap()),
            connection: ConnectionRef {
                worker: 0,
                slot,
                generation: 0,
            },
            member: None,
            bound: None,
            since,
        });
    }

    async fn join(&self, app: &Arc<App>, channel: &str, slot: u32, since: Option<Since>) -> Joined {
        self.ask(app, channel, slot, since);
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
            signed_in: None,
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

    fn leave(&self, app: &Arc<App>, channel: &str) {
        self.services.presence.leave(Leave {
            app: app.clone(),
            channel: ChannelKey::new(app.num, channel.parse().unwrap()),
            user_id: None,
            bound: None,
        });
    }

    async fn every_event_of_a_channel_with_history_has_its_place(&self) {
        let app = keeping(100);
        let joined = self.join(&app, "kept", 1, None).await;
        let recovery = joined.recovery.expect("the channel has history");
        assert_eq!(
            (recovery.is_complete, recovery.events.len()),
            (None, 0),
            "it did not ask"
        );
        let mut last = recovery.position.expect("the channel has history");
        for n in 0..10 {
            self.publish(&app, "kept", &n.to_string()).await;
        }
        for (_, position) in self.next(10).await {
            let position = position.expect("the channel has history");
            assert!(
                position.epoch == last.epoch && position.serial > last.serial,
                "{last}, then {position}"
            );
            last = position;
        }
        let again = self.join(&app, "kept", 2, None).await.recovery;
        assert_eq!(
            again.and_then(|recovery| recovery.position),
            Some(last),
            "a joiner stands behind the last"
        );
    }

    async fn who_comes_back_gets_what_it_missed(&self) {
        let app = keeping(100);
        let joined = self.join(&app, "kept", 1, None).await;
        let before = joined.recovery.and_then(|recovery| recovery.position).unwrap();
        // The last that leaves does not take the channel's past with it.
        self.leave(&app, "kept");
        for name in ["one", "two", "three"] {
            self.publish(&app, "kept", name).await;
        }
        let mut slot = 1;
        let mut since = async |position| {
            slot += 1;
            let joined = self.join(&app, "kept", slot, Some(Since::After(position))).await;
            let recovery = joined.recovery.expect("it asked");
            assert_eq!(recovery.is_complete, Some(true), "{position}");
            recovery
        };
        let all = since(before).await;
        assert_eq!(names(&all), ["one", "two", "three"]);
        let after = |n: usize| Position {
            serial: all.events[n].serial,
            ..before
        };
        assert_eq!(names(&since(after(0)).await), ["two", "three"]);
        assert_eq!(names(&since(after(2)).await), [""; 0]);
        assert_eq!(since(after(2)).await.position, all.position);
        // What was published while nobody was there, if it is told of at all, has been.
        self.publish(&app, "kept", "four").await;
        self.told
            .until(|seen| matches!(seen, Seen::Event { name, .. } if name == "four"))
            .await;
    }

    async fn what_cannot_be_recovered_is_said(&self) {
        let app = keeping(3);
        let joined = self.join(&app, "kept", 1, None).await;
        let first = joined.recovery.and_then(|recovery| recovery.position).unwrap();
        for n in 0..5 {
            self.publish(&app, "kept", &n.to_string()).await;
        }
        let current = self
            .next(5)
            .await
            .pop()
            .and_then(|(_, position)| position)
            .unwrap();
        for lost in [
            first,
            Position {
                epoch: current.epoch - 1,
                ..current
            },
            Position {
                epoch: current.epoch + 1,
                ..current
            },
            Position {
                serial: current.serial + 1,
                ..current
            },
            Position {
                serial: u64::MAX,
                ..current
            },
            Position { epoch: 0, serial: 0 },
        ] {
            let joined = self.join(&app, "kept", 2, Some(Since::After(lost))).await;
            let expected = Recovery {
                position: Some(current),
                is_complete: Some(false),
                events: Vec::new(),
            };
            assert_eq!(joined.recovery, Some(expected), "{lost}");
        }
        for since in [Since::After(current), Since::Last(1)] {
            let joined = self.join(&app, "elsewhere", 3, Some(since)).await;
            let expected = Recovery {
                position: None,
                is_complete: Some(false),
                events: Vec::new(),
            };
            assert_eq!(joined.recovery, Some(expected), "without history, {since:?}");
        }
        assert_eq!(self.join(&app, "elsewhere", 4, None).await.recovery, None);
    }

    async fn who_asks_for_the_last_gets_the_last(&self) {
        let app = keeping(3);
        let last = async |count| {
            let joined = self.join(&app, "kept", count, Some(Since::Last(count))).await;
            let recovery = joined.recovery.expect("it asked");
            (names(&recovery), recovery.is_complete)
        };
        let given = |names: &[&str], is_complete| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            (names, Some(is_complete))
        };
        assert_eq!(last(2).await, given(&[], true), "there were never any");
        for n in 1..=3 {
            self.publish(&app, "kept", &n.to_string()).await;
        }
        self.next(3).await;
        assert_eq!(last(2).await, given(&["2", "3"], true));
        assert_eq!(last(5).await, given(&["1", "2", "3"], true), "there were no more");
        self.publish(&app, "kept", "4").await;
        self.next(1).await;
        assert_eq!(last(3).await, given(&["2", "3", "4"], true));
        assert_eq!(
            last(5).await,
            given(&["2", "3", "4"], false),
            "the first is forgotten"
        );
    }

    async fn a_joiner_amid_publishing_misses_nothing_and_gets_nothing_twice(&self) {
        const EVENTS: usize = 300;
        let app = keeping(EVENTS);
        let joined = self.join(&app, "kept", 0, None).await;
        let first = joined.recovery.and_then(|recovery| recovery.position).unwrap();
        let publishing = async {
            for n in 0..EVENTS {
                self.publish(&app, "kept", &n.to_string()).await;
                tokio::task::yield_now().await;
            }
        };
        let joining = async {
            for slot in 1..=20 {
                self.ask(&app, "kept", slot, Some(Since::After(first)));
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(publishing, joining);
        let (mut live, mut joiners) = (0, 0);
        while live < EVENTS || joiners < 20 {
            match self.told.next(1).await.pop() {
                Some(Seen::Event { name, .. }) => {
                    assert_eq!(name, live.to_string());
                    live += 1;
                }
                Some(Seen::Joined(slot, joined)) => {
                    let recovery = joined.recovery.expect("it asked");
                    assert_eq!(recovery.is_complete, Some(true));
                    let expected: Vec<_> = (0..live).map(|n| n.to_string()).collect();
                    assert_eq!(names(&recovery), expected, "{slot}: all before, and none after");
                    joiners += 1;
                }
                None => unreachable!("it was waited for"),
            }
        }
    }
}

/// An app whose channel `kept` keeps so many events.
fn keeping(size: usize) -> Arc<App> {
    App::fresh(|section| {
        section.history = vec![HistoryRuleSection::example("kept", size, 100)];
        // A count may have a place of its own among the events.
        section.subscription_count = false;
    })
}

fn names(recovery: &Recovery) -> Vec<String> {
    recovery
        .events
        .iter()
        .map(|event| event.name.to_string())
        .collect()
}

mod tests {
    use std::time::Duration;

    use super::*;
    use crate::broker::memory::MemoryBroker;
    use crate::config::{CacheSection, HistorySection};
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
        let history = HistorySection {
            max_bytes: 10_000_000,
        };
        let throttle = CountThrottle {
            above: 3,
            every: Duration::ZERO,
        };
        let outbox = Arc::new(MemoryOutbox::new(0));
        let services = Services {
            broker: Arc::new(MemoryBroker::new(
                Arc::clone(&channels),
                node.clone(),
                outbox.clone(),
                &cache,
                &history,
            )),
            presence: Arc::new(MemoryPresence::new(
                channels,
                node.clone(),
                outbox,
                throttle,
                &history,
            )),
        };
        run(&services, &node).await;
    }
}
