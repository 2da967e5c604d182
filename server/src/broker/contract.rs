//! What every [`Broker`] must do by itself, whatever is behind it. What it must do for subscribers is in `hub/contract.rs`,
//! because it takes presence to have any.

use std::sync::Arc;

use dunlin_protocol::position::Position;

use super::{Broker, BrokerEvents, Origin, Overloaded, Publication};
use crate::apps::App;
use crate::storage::keys::KeyRef;

/// A node without subscribers.
pub(crate) struct Nobody;

impl BrokerEvents for Nobody {
    fn publication(&self, _: KeyRef<'_>, _: &Publication<'_>, _: Option<Position>) -> Result<(), Overloaded> {
        Ok(())
    }
}

pub(crate) async fn run(broker: &dyn Broker) {
    the_last_event_of_a_cache_channel_is_remembered(broker).await;
}

async fn publish(broker: &dyn Broker, app: &Arc<App>, channel: &str, event: &str, origin: Origin) {
    let publication = Publication {
        channel: &channel.parse().unwrap(),
        event,
        data_literal: "\"x\"",
        user_id: None,
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
