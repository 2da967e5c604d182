//! The Pusher format: what is told, when, and signed how.

use super::receiver::Receiver;
use super::{endpoint, events, occupied, scene, vacated, world};
use crate::client::Client;
use crate::sign::{hmac_sha256_hex, unix_now};
use crate::world::App;
use serde_json::{Value, json};

fn member(event: &str, channel: &str, user: &str) -> Value {
    json!({ "name": event, "channel": channel, "user_id": user })
}

#[tokio::test]
async fn a_channel_is_occupied_by_the_first_and_vacated_by_the_last() {
    let mut receiver = Receiver::start();
    let (world, app) = scene(&receiver, "");
    let mut clients = [
        Client::connect(&world, &app).await,
        Client::connect(&world, &app).await,
    ];
    for client in &mut clients {
        client.subscribe("pub").await;
    }
    assert_eq!(receiver.events(1).await, [occupied("pub")]);
    for client in clients {
        client.leave().await;
    }
    assert_eq!(receiver.events(1).await, [vacated("pub")]);
    assert!(receiver.so_far().is_empty());
}

#[tokio::test]
async fn a_request_is_signed_and_says_what_it_is() {
    let mut receiver = Receiver::start();
    let (world, app) = scene(&receiver, "headers = { \"x-tenant\" = \"blue\" }\n");
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("pub").await;
    let request = receiver.next().await;
    assert_eq!(request.path, "/hook");
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("x-pusher-key"), Some(app.key.as_str()));
    let signature = hmac_sha256_hex(&app.secret, &request.body);
    assert_eq!(request.header("x-pusher-signature"), Some(signature.as_str()));
    assert_eq!(request.header("x-tenant"), Some("blue"));
    assert!(request.id().starts_with("msg_"));
    let timestamp: i64 = request
        .header("webhook-timestamp")
        .and_then(|text| text.parse().ok())
        .expect("a request says when it was sent");
    assert!((timestamp - unix_now()).abs() < 60);
    assert!(
        request
            .header("webhook-signature")
            .is_some_and(|text| text.starts_with("v1,"))
    );
    let time_ms = request.json()["time_ms"].as_i64().expect("a whole number");
    assert!((time_ms / 1000 - unix_now()).abs() < 60);
    let text = format!(r#"{{"time_ms":{time_ms},"events":[{{"name":"channel_occupied","channel":"pub"}}]}}"#);
    assert_eq!(request.text(), text);
}

#[tokio::test]
async fn members_come_and_go_once_each() {
    let mut receiver = Receiver::start();
    let (world, app) = scene(&receiver, "events = [\"member_added\", \"member_removed\"]\n");
    let mut first = Client::connect(&world, &app).await;
    first.join("presence-a", "ann").await;
    let mut again = Client::connect(&world, &app).await;
    again.join("presence-a", "ann").await;
    let mut other = Client::connect(&world, &app).await;
    other.join("presence-a", "bob").await;
    assert_eq!(
        receiver.events(2).await,
        [
            member("member_added", "presence-a", "ann"),
            member("member_added", "presence-a", "bob")
        ]
    );
    first.leave().await;
    other.leave().await;
    assert_eq!(
        receiver.events(1).await,
        [member("member_removed", "presence-a", "bob")]
    );
    again.leave().await;
    assert_eq!(
        receiver.events(1).await,
        [member("member_removed", "presence-a", "ann")]
    );
}

#[tokio::test]
async fn who_is_back_within_the_settle_window_was_never_away() {
    let mut receiver = Receiver::start();
    let (world, app) = scene(&receiver, "");
    let mut client = Client::connect(&world, &app).await;
    client.join("presence-a", "ann").await;
    receiver.events(2).await;
    for _ in 0..3 {
        client.unsubscribe("presence-a").await;
        client.join("presence-a", "ann").await;
        client.leave().await;
        client = Client::connect(&world, &app).await;
        client.join("presence-a", "ann").await;
    }
    // Behind anything that would have been told of the channel.
    client.subscribe("marker").await;
    assert_eq!(receiver.events(1).await, [occupied("marker")]);
    client.leave().await;
    let mut ends = receiver.events(3).await;
    ends.sort_by_key(ToString::to_string);
    assert_eq!(
        ends,
        [
            vacated("marker"),
            vacated("presence-a"),
            member("member_removed", "presence-a", "ann"),
        ]
    );
}

#[tokio::test]
async fn client_events_are_told_with_their_sender_and_published_ones_are_not() {
    let mut receiver = Receiver::start();
    let (world, app) = scene(&receiver, "events = [\"client_event\"]\n");
    let mut client = Client::connect(&world, &app).await;
    client.join("presence-a", "ann").await;
    client.subscribe("private-a").await;
    world.publish(&app, "private-a", "not-told", "x").await;
    client
        .trigger("presence-a", "client-object", json!({ "n": 1 }))
        .await;
    client.trigger("private-a", "client-text", json!("é \"x\"")).await;
    let socket_id = client.socket_id.clone();
    let mut events = receiver.events(2).await;
    events.sort_by_key(|event| event["channel"].to_string());
    assert_eq!(
        events,
        [
            json!({ "name": "client_event", "channel": "presence-a", "event": "client-object", "data": "{\"n\":1}",
                    "socket_id": socket_id, "user_id": "ann" }),
            json!({ "name": "client_event", "channel": "private-a", "event": "client-text", "data": "é \"x\"",
                    "socket_id": socket_id }),
        ]
    );
}

#[tokio::test]
async fn a_miss_of_the_cache_and_the_number_of_subscribers_are_told() {
    let mut receiver = Receiver::start();
    let lines = endpoint(&receiver.url("/")) + "events = [\"cache_miss\", \"subscription_count\"]\n";
    let app = App::counting(1).webhook(&lines);
    let world = world(&app);
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("cache-a").await;
    let mut events = receiver.events(2).await;
    events.sort_by_key(ToString::to_string);
    assert_eq!(
        events,
        [
            json!({ "name": "cache_miss", "channel": "cache-a" }),
            json!({ "name": "subscription_count", "channel": "cache-a", "subscription_count": 1 }),
        ]
    );
}

#[tokio::test]
async fn a_cache_that_stays_empty_is_told_once_whoever_misses_it() {
    let mut receiver = Receiver::start();
    let (world, app) = scene(&receiver, "events = [\"cache_miss\"]\n");
    let missed = |channel: &str| json!({ "name": "cache_miss", "channel": channel });
    let mut clients = Vec::new();
    for channel in ["cache-a", "cache-a", "cache-a", "cache-b"] {
        let mut client = Client::connect(&world, &app).await;
        client.subscribe(channel).await;
        clients.push(client);
    }
    let mut told = receiver.events(2).await;
    told.sort_by_key(ToString::to_string);
    assert_eq!(told, ["cache-a", "cache-b"].map(missed));
    world.publish(&app, "cache-b", "e", "filled").await;
    let mut late = Client::connect(&world, &app).await;
    for channel in ["cache-b", "cache-c"] {
        late.subscribe(channel).await;
        if channel == "cache-b" {
            late.expect("e").await;
        }
    }
    assert_eq!(receiver.events(1).await, [missed("cache-c")]);
}

#[tokio::test]
async fn an_endpoint_hears_of_its_channels_and_events_only() {
    let mut orders = Receiver::start();
    let mut all = Receiver::start();
    let lines =
        endpoint(&orders.url("/")) + "channel_prefix = \"orders-\"\nevents = [\"channel_occupied\"]\n";
    let app = App::new(1).webhook(&lines).webhook(&endpoint(&all.url("/")));
    let world = world(&app);
    let mut client = Client::connect(&world, &app).await;
    for channel in ["news", "orders-1"] {
        client.subscribe(channel).await;
    }
    client.leave().await;
    assert_eq!(all.events(4).await.len(), 4);
    assert_eq!(orders.events(1).await, [occupied("orders-1")]);
    assert!(orders.so_far().is_empty());
}

#[tokio::test]
async fn events_of_a_window_share_a_request_in_their_order() {
    let mut receiver = Receiver::start();
    let lines = format!(
        "url = \"{}\"\nformat = \"pusher\"\nbatch_ms = 500\nevents = [\"channel_occupied\"]\n",
        receiver.url("/")
    );
    let app = App::new(1).webhook(&lines);
    let world = world(&app);
    let mut client = Client::connect(&world, &app).await;
    let channels: Vec<String> = (0..20).map(|number| format!("c-{number}")).collect();
    for channel in &channels {
        client.subscribe(channel).await;
    }
    let mut told = Vec::new();
    let mut requests = 0;
    while told.len() < channels.len() {
        told.extend(events(&receiver.next().await));
        requests += 1;
    }
    assert!(requests <= 5, "{requests} requests for twenty events");
    // On one node everything has one order; several are read side by side, and only a channel keeps its own.
    told.sort_by_key(|event| event["channel"].to_string());
    let mut expected: Vec<Value> = channels.iter().map(|channel| occupied(channel)).collect();
    expected.sort_by_key(|event| event["channel"].to_string());
    assert_eq!(told, expected);
}
