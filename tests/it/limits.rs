//! Each limit of an app at its edge: what is just within it works, the next is refused as the protocol says.

use crate::client::Client;
use crate::request::Call;
use crate::world::{App, World};
use serde_json::{Value, json};

fn world_of(limit: &str) -> (World, App) {
    let app = App::new(1).limit(limit);
    (World::with_app(&app), app)
}

fn event(channels: &[&str], data: &str) -> Value {
    json!({ "name": "e", "channels": channels, "data": data })
}

#[tokio::test]
async fn channels_per_event() {
    let (world, app) = world_of("channels_per_event = 2");
    Call::post(&app, "/events", &event(&["a", "b"], "x"))
        .send(&world)
        .await
        .assert(200, "{}");
    Call::post(&app, "/events", &event(&["a", "b", "c"], "x"))
        .send(&world)
        .await
        .assert(400, "");
}

#[tokio::test]
async fn batch_events() {
    let (world, app) = world_of("batch_events = 2");
    let batch =
        |count: usize| json!({ "batch": vec![json!({ "name": "e", "channel": "a", "data": "x" }); count] });
    Call::post(&app, "/batch_events", &batch(2))
        .send(&world)
        .await
        .assert(200, "{}");
    Call::post(&app, "/batch_events", &batch(3))
        .send(&world)
        .await
        .assert(400, "Batch too large");
}

#[tokio::test]
async fn payload_bytes_count_bytes_and_hold_for_client_events() {
    let (world, app) = world_of("payload_bytes = 10");
    Call::post(&app, "/events", &event(&["a"], "ééééé"))
        .send(&world)
        .await
        .assert(200, "{}");
    Call::post(&app, "/events", &event(&["a"], "éééééx"))
        .send(&world)
        .await
        .assert(413, "");
    let mut sender = Client::connect(&world, &app).await;
    let mut receiver = Client::connect(&world, &app).await;
    sender.subscribe("private-a").await;
    receiver.subscribe("private-a").await;
    sender.trigger("private-a", "client-x", json!("ééééé")).await;
    receiver.expect("client-x").await;
    sender.trigger("private-a", "client-x", json!("éééééx")).await;
    sender.expect_error(None, "").await;
    receiver.expect_quiet().await;
}

#[tokio::test]
async fn a_payload_limit_above_the_default_holds_on_both_ways() {
    let (world, app) = world_of("payload_bytes = 40000");
    let mut sender = Client::connect(&world, &app).await;
    let mut receiver = Client::connect(&world, &app).await;
    sender.subscribe("private-a").await;
    receiver.subscribe("private-a").await;
    let data = "d".repeat(40_000);
    Call::post(&app, "/events", &event(&["private-a"], &data))
        .send(&world)
        .await
        .assert(200, "{}");
    assert_eq!(receiver.expect("e").await.text(), data);
    sender.expect("e").await;
    sender.trigger("private-a", "client-x", json!(data)).await;
    assert_eq!(receiver.expect("client-x").await.text(), data);
}

#[tokio::test]
async fn client_events_per_second() {
    let (world, app) = world_of("client_events_per_second = 2");
    let mut sender = Client::connect(&world, &app).await;
    let mut receiver = Client::connect(&world, &app).await;
    sender.subscribe("private-a").await;
    receiver.subscribe("private-a").await;
    for _ in 0..6 {
        sender.trigger("private-a", "client-x", json!(1)).await;
    }
    sender
        .expect_error(Some(4301), "Client event rejected due to rate limit")
        .await;
    receiver.expect("client-x").await;
    receiver.expect("client-x").await;
    // The limit is one of a connection, not of the app.
    receiver.trigger("private-a", "client-y", json!(1)).await;
    while sender.next().await.name != "client-y" {}
}

#[tokio::test]
async fn no_limit_on_client_events() {
    let (world, app) = world_of("client_events_per_second = 0");
    let mut sender = Client::connect(&world, &app).await;
    let mut receiver = Client::connect(&world, &app).await;
    sender.subscribe("private-a").await;
    receiver.subscribe("private-a").await;
    for _ in 0..200 {
        sender.trigger("private-a", "client-x", json!(1)).await;
    }
    for _ in 0..200 {
        receiver.expect("client-x").await;
    }
    sender.expect_quiet().await;
}

#[tokio::test]
async fn names_may_be_limited_further() {
    let app = App::new(1)
        .limit("channel_name_length = 10")
        .limit("event_name_length = 10");
    let world = World::with_app(&app);
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("0123456789").await;
    client.ask("0123456789x", None).await;
    client.expect_refusal("0123456789x", None, "").await;
    Call::post(&app, "/events", &event(&["0123456789x"], "x"))
        .send(&world)
        .await
        .assert(400, "");
    let named = |name: &str| json!({ "name": name, "channels": ["a"], "data": "x" });
    Call::post(&app, "/events", &named("0123456789"))
        .send(&world)
        .await
        .assert(200, "{}");
    Call::post(&app, "/events", &named("0123456789x"))
        .send(&world)
        .await
        .assert(400, "");
}

#[tokio::test]
async fn presence_info_bytes() {
    let (world, app) = world_of("presence_info_bytes = 20");
    let mut client = Client::connect(&world, &app).await;
    let data = |size: usize| {
        format!(
            r#"{{"user_id":"u","user_info":{{"x":"{}"}}}}"#,
            "y".repeat(size - 8)
        )
    };
    client.ask("presence-a", Some(&data(21))).await;
    client.expect_refusal("presence-a", None, "").await;
    client.join_as("presence-a", &data(20)).await;
}

#[tokio::test]
async fn the_watchlist() {
    let (world, app) = world_of("watchlist = 2");
    let mut client = Client::connect(&world, &app).await;
    client
        .ask_sign_in(r#"{"id":"u","watchlist":["a","b","c"]}"#)
        .await;
    client.expect("pusher:signin_success").await;
    let (mut warned, mut watched) = (false, false);
    for _ in 0..2 {
        let event = client.next().await;
        if event.name == "pusher:error" {
            event.assert_error(Some(4302), "Watchlist limit exceeded.");
            warned = true;
        } else {
            assert_eq!(
                event.json(),
                json!({ "events": [{ "name": "offline", "user_ids": ["a", "b"] }] })
            );
            watched = true;
        }
    }
    assert!(warned && watched);
}

#[tokio::test]
async fn a_limit_is_that_of_its_app_and_not_of_its_neighbour() {
    let small = App::new(1)
        .limit("payload_bytes = 10")
        .limit("subscriptions_per_connection = 1");
    let plain = App::new(2);
    let world = World::builder().app(&small).app(&plain).start();
    Call::post(&plain, "/events", &event(&["a"], &"d".repeat(10_240)))
        .send(&world)
        .await
        .assert(200, "{}");
    let mut client = Client::connect(&world, &plain).await;
    client.subscribe("a").await;
    client.subscribe("b").await;
}

#[tokio::test]
async fn the_defaults_of_all_apps_can_be_changed() {
    let (world, app) = World::with_config("[app_defaults.limits]\npayload_bytes = 10");
    Call::post(&app, "/events", &event(&["a"], "0123456789x"))
        .send(&world)
        .await
        .assert(413, "(10 bytes)");
}

#[tokio::test]
async fn a_thousand_subscriptions_are_the_default() {
    let (world, app) = crate::world::shared();
    let mut client = Client::connect(world, &app).await;
    for number in 0..1000 {
        client.ask(&format!("c{number}"), None).await;
    }
    for _ in 0..1000 {
        client.expect("pusher_internal:subscription_succeeded").await;
    }
    client.ask("one-more", None).await;
    let failure = client.expect_refusal("one-more", None, "").await;
    assert_eq!(failure["type"], "LimitReached");
}
