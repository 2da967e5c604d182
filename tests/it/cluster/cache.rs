//! What a cache channel remembers belongs to all nodes, and outlives the one that took it.

use super::shared;
use crate::client::Client;
use crate::world::{App, World};
use serde_json::json;

#[tokio::test]
async fn a_joiner_gets_the_event_that_the_other_node_took() {
    let (world, app) = shared();
    let (a, b) = world.pair();
    for channel in ["cache-a", "private-cache-a", "presence-cache-a"] {
        let member = channel.starts_with("presence-").then_some(r#"{"user_id":"u"}"#);
        let mut early = Client::connect_to(b, &app).await;
        early.ask(channel, member).await;
        early.expect("pusher_internal:subscription_succeeded").await;
        early.expect_on(channel, "pusher:cache_miss").await;
        a.publish(&app, channel, "kept", r#"{"b": 1,  "a":"é\u00e9"}"#)
            .await;
        early.expect_on(channel, "kept").await;
        for node in [a, b] {
            let mut late = Client::connect_to(node, &app).await;
            late.ask(channel, member).await;
            late.expect("pusher_internal:subscription_succeeded").await;
            let event = late.expect_on(channel, "kept").await;
            assert_eq!(event.text(), r#"{"b": 1,  "a":"é\u00e9"}"#);
            late.expect_quiet().await;
        }
    }
}

#[tokio::test]
async fn the_last_event_is_the_last_of_all_nodes() {
    let (world, app) = shared();
    let (a, b) = world.pair();
    for (number, node) in [a, b, a, b].into_iter().enumerate() {
        node.publish(&app, "cache-a", "e", &number.to_string()).await;
        for joiner in [a, b] {
            let mut client = Client::connect_to(joiner, &app).await;
            client.subscribe("cache-a").await;
            assert_eq!(client.expect_on("cache-a", "e").await.text(), number.to_string());
        }
        let info = [("info", "cache")];
        let answer = b.get(&app, "/channels/cache-a", &info).await.json();
        assert_eq!(answer["cache"]["data"], json!(number.to_string()));
    }
}

#[tokio::test]
async fn the_event_survives_the_node_that_took_it() {
    let app = App::new(1);
    let world = World::builder().nodes(2).app(&app).start();
    let (a, b) = world.pair();
    a.publish(&app, "cache-a", "kept", "x").await;
    a.kill();
    let mut client = Client::connect_to(b, &app).await;
    client.subscribe("cache-a").await;
    client.expect_on("cache-a", "kept").await;
    a.restart();
    let mut client = Client::connect_to(a, &app).await;
    client.subscribe("cache-a").await;
    client.expect_on("cache-a", "kept").await;
}
