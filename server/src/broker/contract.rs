//! What every [`Broker`] must do by itself, whatever is behind it. What it must do for subscribers is in `hub/contract.rs`,
//! because it takes presence to have any.

use std::sync::Arc;

use dunlin_protocol::position::Position;

use super::{Broker, BrokerEvents, HistoryPage, HistoryQuery, Origin, Overloaded, Publication};
use crate::apps::App;
use crate::config::HistoryRuleSection;
use crate::storage::keys::KeyRef;
use crate::told::eventually;

/// A node without subscribers.
pub(crate) struct Nobody;

impl BrokerEvents for Nobody {
    fn publication(&self, _: KeyRef<'_>, _: &Publication<'_>, _: Option<Position>) -> Result<(), Overloaded> {
        Ok(())
    }

    fn lost(&self, _: KeyRef<'_>, _: Position) {}
}

pub(crate) async fn run(broker: &dyn Broker) {
    the_last_event_of_a_cache_channel_is_remembered(broker).await;
    a_history_holds_every_event_of_its_channel(broker).await;
    a_history_is_read_in_pages(broker).await;
    a_history_forgets_by_number_and_by_age_and_says_so(broker).await;
}

async fn publish(broker: &dyn Broker, app: &Arc<App>, channel: &str, event: &str, origin: Origin) {
    let publication = Publication {
        channel: &channel.parse().unwrap(),
        event,
        data_literal: "\"x\"",
        user_id: None,
        signed_in: None,
        except: None,
        origin,
    };
    broker.publish(app, &publication).await.unwrap();
}

async fn the_last_event_of_a_cache_channel_is_remembered(broker: &dyn Broker) {
    let (app, other) = (App::fresh(|_| {}), App::fresh(|_| {}));
    let cached = async |app: &App, channel: &str| {
        let event = broker.cached(app, &channel.parse().unwrap()).await.unwrap();
        event.map(|event| event.name.to_string())
    };
    assert_eq!(cached(&app, "cache-a").await, None);
    publish(broker, &app, "cache-a", "one", Origin::Api).await;
    publish(broker, &app, "cache-a", "two", Origin::Api).await;
    publish(broker, &app, "private-cache-b", "client-x", Origin::Client).await;
    publish(broker, &app, "a", "one", Origin::Api).await;
    assert_eq!(cached(&app, "cache-a").await.as_deref(), Some("two"));
    assert_eq!(cached(&other, "cache-a").await, None, "by app");
    assert_eq!(
        cached(&app, "private-cache-b").await,
        None,
        "client events are not remembered"
    );
    assert_eq!(cached(&app, "a").await, None, "nor events on other channels");
}

/// An app whose channels keep so many events for so long.
fn keeping(channels: &str, size: usize, age_s: u64) -> Arc<App> {
    App::fresh(|section| section.history = vec![HistoryRuleSection::example(channels, size, age_s)])
}

async fn read(broker: &dyn Broker, app: &App, channel: &str, query: HistoryQuery) -> HistoryPage {
    let channel = channel.parse().unwrap();
    broker.history(app, &channel, query).await.unwrap()
}

const FORWARDS: HistoryQuery = HistoryQuery {
    after: None,
    before: None,
    limit: 100,
    newest_first: false,
};

fn names(page: &HistoryPage) -> Vec<&str> {
    page.events.iter().map(|event| &*event.name).collect()
}

async fn a_history_holds_every_event_of_its_channel(broker: &dyn Broker) {
    let (app, other) = (keeping("kept-*", 100, 100), keeping("kept-*", 100, 100));
    let nothing = read(broker, &app, "kept-a", FORWARDS).await;
    assert!(nothing.events.is_empty() && !nothing.has_more);
    publish(broker, &app, "kept-a", "one", Origin::Api).await;
    publish(broker, &app, "kept-a", "client-two", Origin::Client).await;
    publish(broker, &app, "elsewhere", "three", Origin::Api).await;
    let page = read(broker, &app, "kept-a", FORWARDS).await;
    assert_eq!(names(&page), ["one", "client-two"], "those of clients, too");
    assert!(page.is_complete && !page.has_more);
    let position = page.position.expect("the channel has history");
    let serials: Vec<_> = page.events.iter().map(|event| event.serial).collect();
    assert!(
        serials[0] < serials[1] && serials[1] == position.serial,
        "{serials:?}, {position}"
    );
    for event in &page.events {
        assert_eq!(&*event.data_literal, "\"x\"", "as it was published");
        assert!(event.published_at_ms > 1_700_000_000_000, "Unix milliseconds");
    }
    let without_rule = read(broker, &app, "elsewhere", FORWARDS).await;
    assert_eq!(without_rule, HistoryPage::default());
    let theirs = read(broker, &other, "kept-a", FORWARDS).await;
    assert!(theirs.events.is_empty(), "by app");
}

async fn a_history_is_read_in_pages(broker: &dyn Broker) {
    let app = keeping("a", 100, 100);
    for n in 0..5 {
        publish(broker, &app, "a", &n.to_string(), Origin::Api).await;
    }
    let backwards = HistoryQuery {
        newest_first: true,
        limit: 2,
        ..FORWARDS
    };
    let all = read(broker, &app, "a", FORWARDS).await;
    let serial = |n: usize| Some(all.events[n].serial);
    for (query, expected, has_more) in [
        (
            HistoryQuery { limit: 5, ..FORWARDS },
            &["0", "1", "2", "3", "4"][..],
            false,
        ),
        (HistoryQuery { limit: 4, ..FORWARDS }, &["0", "1", "2", "3"], true),
        (
            HistoryQuery {
                after: serial(2),
                ..FORWARDS
            },
            &["3", "4"],
            false,
        ),
        (
            HistoryQuery {
                after: serial(4),
                ..FORWARDS
            },
            &[],
            false,
        ),
        (
            HistoryQuery {
                after: serial(0),
                before: serial(4),
                limit: 2,
                ..FORWARDS
            },
            &["1", "2"],
            true,
        ),
        (backwards, &["4", "3"], true),
        (
            HistoryQuery {
                before: serial(3),
                ..backwards
            },
            &["2", "1"],
            true,
        ),
        (
            HistoryQuery {
                before: serial(1),
                ..backwards
            },
            &["0"],
            false,
        ),
        (
            HistoryQuery {
                after: serial(2),
                ..backwards
            },
            &["4", "3"],
            false,
        ),
    ] {
        let page = read(broker, &app, "a", query).await;
        assert_eq!(
            (names(&page), page.has_more),
            (expected.to_vec(), has_more),
            "{query:?}"
        );
        assert_eq!(
            page.position, all.position,
            "where the channel stands, whatever is read of it"
        );
        assert!(page.is_complete, "{query:?}");
    }
}

async fn a_history_forgets_by_number_and_by_age_and_says_so(broker: &dyn Broker) {
    let app = keeping("a", 2, 100);
    for n in 0..5 {
        publish(broker, &app, "a", &n.to_string(), Origin::Api).await;
    }
    let page = read(broker, &app, "a", FORWARDS).await;
    assert_eq!(names(&page), ["3", "4"]);
    assert!(
        !page.is_complete,
        "of the whole epoch the first three are missing"
    );
    let after = HistoryQuery {
        after: Some(page.events[0].serial),
        ..FORWARDS
    };
    assert!(
        read(broker, &app, "a", after).await.is_complete,
        "behind the fourth nothing is"
    );

    let app = keeping("a", 100, 1);
    publish(broker, &app, "a", "old", Origin::Api).await;
    let is_forgotten = async || {
        let page = read(broker, &app, "a", FORWARDS).await;
        page.events.is_empty() && !page.is_complete
    };
    eventually("it is older than a second", is_forgotten).await;
}
