//! What every [`Broker`] must do, whatever is behind it.

use std::sync::{Arc, Mutex};

use dunlin_protocol::position::Position;

use super::{Broker, BrokerEvents, NotPublished, Origin, Overloaded, Publication};
use crate::apps::App;
use crate::config::AppSection;
use crate::storage::keys::{AppNum, KeyRef};

/// A node that writes down what it is told, and can be full.
#[derive(Default)]
struct Recorder {
    seen: Mutex<Vec<String>>,
    full: Mutex<bool>,
}

impl BrokerEvents for Recorder {
    fn publication(
        &self,
        _: KeyRef<'_>,
        publication: &Publication<'_>,
        _: Option<Position>,
    ) -> Result<(), Overloaded> {
        if *self.full.lock().unwrap() {
            return Err(Overloaded);
        }
        self.seen
            .lock()
            .unwrap()
            .push(format!("{} {}", publication.channel, publication.event));
        Ok(())
    }
}

pub(crate) async fn run(broker: impl Fn(Arc<dyn BrokerEvents>) -> Arc<dyn Broker>) {
    let app = Arc::new(App::new(AppNum(1), &AppSection::example()));
    let other = Arc::new(App::new(AppNum(2), &AppSection::example()));
    let recorder = Arc::new(Recorder::default());
    let broker = broker(recorder.clone());
    let publish = async |app: &Arc<App>, channel: &str, event: &str, data: &str, origin: Origin| {
        let channel = channel.parse().unwrap();
        let publication = Publication {
            channel: &channel,
            event,
            data_literal: data,
            user_id: None,
            except: None,
            origin,
        };
        broker.publish(app, &publication).await
    };
    let cached = async |app: &App, channel: &str| {
        broker
            .cached(app, &channel.parse().unwrap())
            .await
            .unwrap()
            .map(|event| event.name.to_string())
    };

    for n in 0..100 {
        publish(&app, "a", &n.to_string(), "\"x\"", Origin::Api)
            .await
            .unwrap();
    }
    let expected: Vec<_> = (0..100).map(|n| format!("a {n}")).collect();
    assert_eq!(*recorder.seen.lock().unwrap(), expected, "in the caller's order");

    assert_eq!(cached(&app, "cache-a").await, None);
    publish(&app, "cache-a", "one", "\"1\"", Origin::Api)
        .await
        .unwrap();
    publish(&app, "cache-a", "two", "\"2\"", Origin::Api)
        .await
        .unwrap();
    publish(&app, "private-cache-b", "client-x", "\"3\"", Origin::Client)
        .await
        .unwrap();
    assert_eq!(
        cached(&app, "cache-a").await.as_deref(),
        Some("two"),
        "the last event is remembered"
    );
    assert_eq!(cached(&other, "cache-a").await, None, "by app");
    assert_eq!(
        cached(&app, "private-cache-b").await,
        None,
        "client events are not remembered"
    );
    assert_eq!(cached(&app, "a").await, None, "nor events on other channels");

    *recorder.full.lock().unwrap() = true;
    assert_eq!(
        publish(&app, "cache-a", "three", "\"3\"", Origin::Api).await,
        Err(NotPublished::Overloaded)
    );
    assert_eq!(
        cached(&app, "cache-a").await.as_deref(),
        Some("two"),
        "a refused event is not remembered"
    );
    *recorder.full.lock().unwrap() = false;

    let large = format!("\"{}\"", "x".repeat(2000));
    publish(&app, "cache-a", "large", &large, Origin::Api)
        .await
        .unwrap();
    assert_eq!(
        cached(&app, "cache-a").await,
        None,
        "what does not fit replaces what is stale by nothing"
    );
    publish(&app, "cache-a", "small", "\"1\"", Origin::Api)
        .await
        .unwrap();
    assert_eq!(cached(&app, "cache-a").await.as_deref(), Some("small"));
}
