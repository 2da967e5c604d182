//! Client events: each rule in its order.

use crate::client::Client;
use crate::world::{App, DEADLINE, World, shared};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

async fn pair(world: &World, app: &App, channel: &str) -> (Client, Client) {
    let mut sender = Client::connect(world, app).await;
    let mut receiver = Client::connect(world, app).await;
    sender.subscribe(channel).await;
    receiver.subscribe(channel).await;
    (sender, receiver)
}

#[tokio::test]
async fn a_client_event_reaches_every_other_subscriber_and_not_its_sender() {
    let (world, app) = shared();
    let (mut sender, mut receiver) = pair(world, &app, "private-a").await;
    let mut stranger = Client::connect(world, &app).await;
    stranger.subscribe("private-b").await;
    sender.trigger("private-a", "client-x", json!({ "a": 1 })).await;
    let event = receiver.expect_on("private-a", "client-x").await;
    assert_eq!((event.text(), event.user_id.as_deref()), (r#"{"a":1}"#, None));
    sender.expect_quiet().await;
    stranger.expect_quiet().await;
}

#[tokio::test]
async fn data_is_relayed_as_text_and_a_string_as_itself() {
    let (world, app) = shared();
    let (mut sender, mut receiver) = pair(world, &app, "private-a").await;
    for (sent, received) in [
        (r#""plain""#, "plain"),
        (r#""{\"a\":1}""#, r#"{"a":1}"#),
        (r#""""#, ""),
        ("[1,2]", "[1,2]"),
        ("42", "42"),
        (r#"{"b":1,"a":2}"#, r#"{"b":1,"a":2}"#),
        ("true", "true"),
    ] {
        sender
            .send_text(&format!(
                r#"{{"event":"client-x","channel":"private-a","data":{sent}}}"#
            ))
            .await;
        assert_eq!(receiver.expect("client-x").await.text(), received, "{sent}");
    }
}

#[tokio::test]
async fn the_user_id_on_presence_channels_is_that_of_the_subscription() {
    let (world, app) = shared();
    let mut sender = Client::connect(world, &app).await;
    let mut receiver = Client::connect(world, &app).await;
    receiver.join("presence-a", "receiver").await;
    sender.join("presence-a", "sender").await;
    receiver.expect("pusher_internal:member_added").await;
    sender
        .send(json!({ "event": "client-x", "channel": "presence-a", "data": {}, "user_id": "somebody else" }))
        .await;
    let event = receiver.expect_on("presence-a", "client-x").await;
    assert_eq!(event.user_id.as_deref(), Some("sender"));
}

#[tokio::test]
async fn a_user_id_put_into_a_private_event_is_dropped() {
    let (world, app) = shared();
    let (mut sender, mut receiver) = pair(world, &app, "private-a").await;
    sender
        .send(json!({ "event": "client-x", "channel": "private-a", "data": {}, "user_id": "admin" }))
        .await;
    assert_eq!(receiver.expect("client-x").await.user_id, None);
}

#[tokio::test]
async fn channel_and_data_must_be_there() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.subscribe("private-a").await;
    for message in [
        json!({ "event": "client-x" }),
        json!({ "event": "client-x", "channel": "private-a" }),
        json!({ "event": "client-x", "data": {} }),
        json!({ "event": "client-x", "channel": 1, "data": {} }),
        json!({ "event": "client-x", "channel": null, "data": {} }),
    ] {
        client.send(message).await;
        client
            .expect_error(None, "Invalid client event (must contain channel and data)")
            .await;
    }
}

#[tokio::test]
async fn an_app_without_client_events_says_so() {
    let app = App::new(1).with("client_events = false");
    let world = World::with_app(&app);
    let (mut sender, mut receiver) = pair(&world, &app, "private-a").await;
    sender.trigger("private-a", "client-x", json!({})).await;
    let text = "To send client events, you must enable this feature in the Settings page of your dashboard.";
    sender.expect_error(None, text).await;
    receiver.expect_quiet().await;
}

#[tokio::test]
async fn only_private_and_presence_channels_take_client_events() {
    let (world, app) = shared();
    for channel in ["pub", "cache-a", "privateer", "presence"] {
        let (mut sender, mut receiver) = pair(world, &app, channel).await;
        while receiver.next_within(Duration::from_millis(50)).await.is_some() {}
        while sender.next_within(Duration::from_millis(50)).await.is_some() {}
        sender.trigger(channel, "client-x", json!({})).await;
        sender
            .expect_error(
                None,
                "Client event rejected - only supported on private and presence channels",
            )
            .await;
        receiver.expect_quiet().await;
    }
}

#[tokio::test]
async fn encrypted_channels_take_no_client_events() {
    let (world, app) = shared();
    for channel in ["private-encrypted-a", "private-encrypted-cache-a"] {
        let (mut sender, mut receiver) = pair(world, &app, channel).await;
        while receiver.next_within(Duration::from_millis(50)).await.is_some() {}
        while sender.next_within(Duration::from_millis(50)).await.is_some() {}
        sender.trigger(channel, "client-x", json!({})).await;
        sender.expect_error(None, "").await;
        receiver.expect_quiet().await;
    }
}

#[tokio::test]
async fn only_a_subscriber_may_send() {
    let (world, app) = shared();
    let (_sender, mut receiver) = pair(world, &app, "private-a").await;
    let mut stranger = Client::connect(world, &app).await;
    stranger.trigger("private-a", "client-x", json!({})).await;
    let text = "Cannot broadcast client event (connection not subscribed to channel private-a)";
    stranger.expect_error(None, text).await;
    receiver.expect_quiet().await;
}

#[tokio::test]
async fn the_name_and_the_data_are_limited() {
    let (world, app) = shared();
    let (mut sender, mut receiver) = pair(world, &app, "private-a").await;
    let name = |length: usize| format!("client-{}", "n".repeat(length - 7));
    sender.trigger("private-a", &name(200), json!("x")).await;
    receiver.expect(&name(200)).await;
    sender.trigger("private-a", &name(201), json!("x")).await;
    sender.expect_error(None, "").await;
    sender
        .trigger("private-a", "client-x", json!("d".repeat(10_240)))
        .await;
    receiver.expect("client-x").await;
    sender
        .trigger("private-a", "client-x", json!("d".repeat(10_241)))
        .await;
    sender.expect_error(None, "").await;
    let large: Value = json!({ "d": "d".repeat(10_240) });
    sender.trigger("private-a", "client-x", large).await;
    sender.expect_error(None, "").await;
    receiver.expect_quiet().await;
}

#[tokio::test]
async fn the_eleventh_event_within_a_second_is_refused_with_4301_and_the_connection_stays() {
    let (world, app) = shared();
    let (mut sender, mut receiver) = pair(world, &app, "private-a").await;
    for number in 0..30 {
        sender.trigger("private-a", "client-x", json!(number)).await;
    }
    for _ in 0..10 {
        receiver.expect("client-x").await;
    }
    for _ in 0..15 {
        sender
            .expect_error(Some(4301), "Client event rejected due to rate limit")
            .await;
    }
    // After a second there is room again. The last refusals may still be on their way.
    let start = Instant::now();
    while start.elapsed() < DEADLINE {
        sender.trigger("private-a", "client-again", json!(1)).await;
        while let Some(event) = receiver.next_within(Duration::from_millis(300)).await {
            if event.name == "client-again" {
                return;
            }
        }
    }
    panic!("the limit lets nothing through again");
}
