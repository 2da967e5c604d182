//! Cache channels remember the last event that was published over the HTTP API.

use crate::client::Client;
use crate::request::Call;
use crate::world::{App, World, eventually, shared};
use serde_json::json;

const KINDS: [&str; 4] = [
    "cache-a",
    "private-cache-a",
    "private-encrypted-cache-a",
    "presence-cache-a",
];

async fn enter(client: &mut Client, channel: &str) {
    if channel.starts_with("presence-") {
        client.join(channel, "u").await;
    } else {
        client.subscribe(channel).await;
    }
}

#[tokio::test]
async fn an_empty_cache_is_told_right_after_the_confirmation() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    for channel in KINDS {
        enter(&mut client, channel).await;
        assert_eq!(client.expect_on(channel, "pusher:cache_miss").await.text(), "{}");
    }
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_newcomer_gets_the_last_event_byte_for_byte_and_alone() {
    let (world, app) = shared();
    for channel in KINDS {
        let mut early = Client::connect(world, &app).await;
        enter(&mut early, channel).await;
        early.expect("pusher:cache_miss").await;
        world.publish(&app, channel, "first", "1").await;
        world
            .publish(&app, channel, "last", r#"{"b": 1,  "a":"é\u00e9"}"#)
            .await;
        early.expect("first").await;
        early.expect("last").await;
        let mut late = Client::connect(world, &app).await;
        enter(&mut late, channel).await;
        let event = late.expect_on(channel, "last").await;
        assert_eq!(event.text(), r#"{"b": 1,  "a":"é\u00e9"}"#);
        late.expect_quiet().await;
        early.expect_quiet().await;
    }
}

#[tokio::test]
async fn the_cache_survives_an_empty_channel() {
    let (world, app) = shared();
    world.publish(&app, "cache-a", "stored", "x").await;
    let mut client = Client::connect(world, &app).await;
    client.subscribe("cache-a").await;
    client.expect_on("cache-a", "stored").await;
    client.leave().await;
    let mut client = Client::connect(world, &app).await;
    client.subscribe("cache-a").await;
    client.expect_on("cache-a", "stored").await;
    client.unsubscribe("cache-a").await;
    client.subscribe("cache-a").await;
    client.expect_on("cache-a", "stored").await;
}

#[tokio::test]
async fn an_event_with_an_excluded_socket_is_cached_too() {
    let (world, app) = shared();
    let body = json!({ "name": "kept", "channels": ["cache-a"], "data": "x", "socket_id": "1.1" });
    Call::post(&app, "/events", &body)
        .send(world)
        .await
        .assert(200, "{}");
    let mut client = Client::connect(world, &app).await;
    client.subscribe("cache-a").await;
    client.expect_on("cache-a", "kept").await;
}

#[tokio::test]
async fn client_events_are_not_cached() {
    let (world, app) = shared();
    let mut sender = Client::connect(world, &app).await;
    let mut receiver = Client::connect(world, &app).await;
    for client in [&mut sender, &mut receiver] {
        client.subscribe("private-cache-a").await;
        client.expect("pusher:cache_miss").await;
    }
    sender.trigger("private-cache-a", "client-x", json!({})).await;
    receiver.expect("client-x").await;
    let mut late = Client::connect(world, &app).await;
    late.subscribe("private-cache-a").await;
    late.expect("pusher:cache_miss").await;
}

#[tokio::test]
async fn member_events_and_counts_are_not_cached() {
    let app = App::counting(1);
    let world = World::with_app(&app);
    let mut first = Client::connect(&world, &app).await;
    first.join("presence-cache-a", "1").await;
    first.expect("pusher:cache_miss").await;
    let mut second = Client::connect(&world, &app).await;
    second.join("presence-cache-a", "2").await;
    second.expect("pusher:cache_miss").await;
}

#[tokio::test]
async fn the_http_api_shows_the_cache_and_its_remaining_seconds() {
    let (world, app) = shared();
    let info = [("info", "cache")];
    assert_eq!(
        world.get(&app, "/channels/cache-a", &info).await.json(),
        json!({ "occupied": false, "cache": null })
    );
    world.publish(&app, "cache-a", "e", r#"{"k":1}"#).await;
    let answer = world.get(&app, "/channels/cache-a", &info).await.json();
    assert_eq!(answer["cache"]["data"], r#"{"k":1}"#);
    let ttl = answer["cache"]["ttl"].as_u64().expect("whole seconds");
    assert!((1795..=1800).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn a_cached_event_is_forgotten_after_its_time() {
    let (world, app) = World::with_config("[cache]\nttl_s = 1");
    world.publish(&app, "cache-a", "e", "x").await;
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("cache-a").await;
    client.expect_on("cache-a", "e").await;
    eventually("the cache is empty", || async {
        let answer = world
            .get(&app, "/channels/cache-a", &[("info", "cache")])
            .await
            .json();
        answer["cache"].is_null().then_some(())
    })
    .await;
    client.unsubscribe("cache-a").await;
    client.subscribe("cache-a").await;
    client.expect_on("cache-a", "pusher:cache_miss").await;
}

#[tokio::test]
async fn a_channel_whose_name_only_resembles_a_cache_has_none() {
    let (world, app) = shared();
    for channel in [
        "cache",
        "cached-a",
        "a-cache-b",
        "private-cachea",
        "presencecache-a",
    ] {
        world.publish(&app, channel, "e", "x").await;
        let mut client = Client::connect(world, &app).await;
        client.subscribe(channel).await;
        client.expect_quiet().await;
    }
}
