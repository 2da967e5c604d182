//! Channels with history: every event has a place, who comes back gets what it missed, and what cannot be had is said.

use crate::client::{Client, Event};
use crate::request::Call;
use crate::websocket::Seen;
use crate::world::{App, World, eventually};
use serde_json::{Value, json};

fn app() -> App {
    App::new(1).with(
        r#"history = [
            { channels = "tiny-*", size = 3, age_s = 600 },
            { channels = "brief-*", size = 100, age_s = 1 },
            { channels = "*", size = 1000, age_s = 600 },
        ]"#,
    )
}

/// What a `pusher_internal:recovered` says, which must be the next message.
async fn recovered(client: &mut Client, channel: &str) -> Value {
    client
        .expect_on(channel, "pusher_internal:recovered")
        .await
        .json()
}

async fn subscribe(client: &mut Client, channel: &str) -> String {
    client.subscribe(channel).await;
    let told = recovered(client, channel).await;
    assert_eq!(told["recovered"], Value::Null, "it was not asked for");
    position_of(&told)
}

fn position_of(told: &Value) -> String {
    let position = told["position"].as_str();
    position
        .unwrap_or_else(|| panic!("no position: {told}"))
        .to_owned()
}

/// The next event and its place, which comes right before it.
async fn event(client: &mut Client, channel: &str) -> (Event, String) {
    let told = client.expect_on(channel, "pusher_internal:position").await.json();
    assert_eq!(told.get("skipped"), None, "an event follows");
    let event = client.next().await;
    assert_eq!(event.channel.as_deref(), Some(channel), "{}", event.raw);
    assert!(!event.name.starts_with("pusher"), "{}", event.raw);
    (event, position_of(&told))
}

async fn expect_events(client: &mut Client, channel: &str, names: &[&str]) -> String {
    let mut last = String::new();
    for name in names {
        let (event, position) = event(client, channel).await;
        assert_eq!(event.name, *name);
        last = position;
    }
    last
}

async fn resume(client: &mut Client, channel: &str, data: Value) {
    client.trigger(channel, "pusher:resume", data).await;
}

async fn publish(world: &World, app: &App, channel: &str, names: &[&str]) {
    for name in names {
        world.publish(app, channel, name, "x").await;
    }
}

#[tokio::test]
async fn every_event_has_its_place_right_in_front_of_it() {
    let app = app();
    let world = World::with_app(&app);
    let mut client = Client::connect(&world, &app).await;
    let start = subscribe(&mut client, "a").await;
    publish(&world, &app, "a", &["one", "two"]).await;
    let (first, at) = event(&mut client, "a").await;
    assert_eq!((first.name.as_str(), first.text()), ("one", "x"));
    let numbers = |position: &str| {
        let (epoch, serial) = position.split_once(':').expect("epoch:serial");
        let number = |text: &str| text.parse::<u64>().expect("a number");
        (number(epoch), number(serial))
    };
    let (_, after) = event(&mut client, "a").await;
    assert_eq!(numbers(&start).0, numbers(&at).0);
    assert!(numbers(&start) < numbers(&at) && numbers(&at) < numbers(&after));
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_channel_without_history_is_as_it_ever_was() {
    let app = App::new(1).with(r#"history = [{ channels = "kept", size = 9, age_s = 9 }]"#);
    let world = World::with_app(&app);
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("plain").await;
    world.publish(&app, "plain", "one", "x").await;
    client.expect_on("plain", "one").await;
    client.expect_quiet().await;
}

#[tokio::test]
async fn who_comes_back_gets_what_it_missed_and_then_goes_on() {
    let app = app();
    let world = World::with_app(&app);
    for channel in ["a", "private-a", "presence-a", "private-encrypted-a"] {
        let mut client = Client::connect(&world, &app).await;
        if channel == "presence-a" {
            client.join(channel, "u").await;
            recovered(&mut client, channel).await;
        } else {
            subscribe(&mut client, channel).await;
        }
        publish(&world, &app, channel, &["one", "two"]).await;
        expect_events(&mut client, channel, &["one"]).await;
        let (_, position) = event(&mut client, channel).await;
        client.leave().await;
        publish(&world, &app, channel, &["three", "four"]).await;

        let mut client = Client::connect(&world, &app).await;
        resume(&mut client, channel, json!({ "position": position })).await;
        let data = (channel == "presence-a").then_some(r#"{"user_id":"u"}"#);
        client.ask(channel, data).await;
        client
            .expect_on(channel, "pusher_internal:subscription_succeeded")
            .await;
        let told = recovered(&mut client, channel).await;
        assert_eq!(told["recovered"], true);
        let last = expect_events(&mut client, channel, &["three", "four"]).await;
        publish(&world, &app, channel, &["five"]).await;
        expect_events(&mut client, channel, &["five"]).await;

        // The same once more, on the same connection, by way of a text that holds the object.
        client.unsubscribe(channel).await;
        let text = json!({ "position": last }).to_string();
        resume(&mut client, channel, json!(text)).await;
        client.ask(channel, data).await;
        client
            .expect_on(channel, "pusher_internal:subscription_succeeded")
            .await;
        assert_eq!(recovered(&mut client, channel).await["recovered"], true);
        expect_events(&mut client, channel, &["five"]).await;
        client.expect_quiet().await;
    }
}

#[tokio::test]
async fn a_connection_that_ends_amid_the_past_has_lost_nothing() {
    let app = app();
    let world = World::with_app(&app);
    let names: Vec<String> = (0..100).map(|n| format!("e{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut client = Client::connect(&world, &app).await;
    let mut position = subscribe(&mut client, "a").await;
    client.leave().await;
    publish(&world, &app, "a", &names).await;
    // Ten at a time, each time on a connection that is dropped while the rest is on its way.
    for names in names.chunks(10) {
        let mut client = Client::connect(&world, &app).await;
        resume(&mut client, "a", json!({ "position": position })).await;
        client.subscribe("a").await;
        let told = recovered(&mut client, "a").await;
        assert_eq!((&told["recovered"], position_of(&told)), (&json!(true), position));
        position = expect_events(&mut client, "a", names).await;
    }
}

#[tokio::test]
async fn what_is_forgotten_is_said_and_not_hidden() {
    let app = app();
    let world = World::with_app(&app);
    let mut client = Client::connect(&world, &app).await;
    let start = subscribe(&mut client, "tiny-a").await;
    publish(&world, &app, "tiny-a", &["1", "2", "3", "4"]).await;
    let current = expect_events(&mut client, "tiny-a", &["1", "2", "3", "4"]).await;
    let (epoch, serial) = current.split_once(':').expect("epoch:serial");
    let serial: u64 = serial.parse().expect("a number");
    for lost in [
        start,
        format!("1:{serial}"),
        format!("{epoch}:{}", serial + 1),
        format!("{epoch}:{}", u64::MAX),
        format!("{}:{}", u64::MAX, u64::MAX),
        "0:0".to_owned(),
    ] {
        let mut client = Client::connect(&world, &app).await;
        resume(&mut client, "tiny-a", json!({ "position": lost })).await;
        client.subscribe("tiny-a").await;
        let told = recovered(&mut client, "tiny-a").await;
        assert_eq!(told, json!({ "position": current, "recovered": false }), "{lost}");
        client.expect_quiet().await;
    }
}

#[tokio::test]
async fn asking_for_the_past_of_a_channel_that_has_none_is_answered() {
    let app = App::new(1);
    let world = World::with_app(&app);
    for data in [json!({ "position": "7:8" }), json!({ "last": 3 })] {
        let mut client = Client::connect(&world, &app).await;
        resume(&mut client, "a", data).await;
        client.subscribe("a").await;
        assert_eq!(recovered(&mut client, "a").await, json!({ "recovered": false }));
        client.expect_quiet().await;
    }
}

#[tokio::test]
async fn a_newcomer_may_ask_for_the_last_events() {
    let app = app();
    let world = World::with_app(&app);
    publish(&world, &app, "a", &["1", "2", "3", "4"]).await;
    publish(&world, &app, "tiny-a", &["1", "2", "3", "4"]).await;
    for (channel, last, is_complete, expected) in [
        ("a", 2, true, &["3", "4"][..]),
        ("a", 1000, true, &["1", "2", "3", "4"]),
        ("tiny-a", 3, true, &["2", "3", "4"]),
        ("tiny-a", 4, false, &["2", "3", "4"]),
        ("never-heard-of", 4, true, &[]),
    ] {
        let mut client = Client::connect(&world, &app).await;
        resume(&mut client, channel, json!({ "last": last })).await;
        client.subscribe(channel).await;
        let told = recovered(&mut client, channel).await;
        assert_eq!(told["recovered"], is_complete, "{channel} {last}");
        expect_events(&mut client, channel, expected).await;
        client.expect_quiet().await;
    }
}

#[tokio::test]
async fn an_event_is_forgotten_when_it_is_old() {
    let app = app();
    let world = World::with_app(&app);
    let mut client = Client::connect(&world, &app).await;
    let start = subscribe(&mut client, "brief-a").await;
    publish(&world, &app, "brief-a", &["one"]).await;
    eventually("the event is forgotten", || async {
        let page = world.get(&app, "/channels/brief-a/history", &[]).await.json();
        (page["events"] == json!([])).then_some(())
    })
    .await;
    let mut late = Client::connect(&world, &app).await;
    resume(&mut late, "brief-a", json!({ "position": start })).await;
    late.subscribe("brief-a").await;
    assert_eq!(recovered(&mut late, "brief-a").await["recovered"], false);
    late.expect_quiet().await;
}

#[tokio::test]
async fn ones_own_event_is_skipped_and_not_missed() {
    let app = app();
    let world = World::with_app(&app);
    let mut sender = Client::connect(&world, &app).await;
    let mut receiver = Client::connect(&world, &app).await;
    subscribe(&mut sender, "private-a").await;
    subscribe(&mut receiver, "private-a").await;
    sender.trigger("private-a", "client-one", json!({ "k": 1 })).await;
    let (one, position) = event(&mut receiver, "private-a").await;
    assert_eq!((one.name.as_str(), one.text()), ("client-one", r#"{"k":1}"#));
    let skipped = sender
        .expect_on("private-a", "pusher_internal:position")
        .await
        .json();
    assert_eq!(skipped, json!({ "position": position, "skipped": true }));

    let body =
        json!({ "name": "two", "channels": ["private-a"], "data": "x", "socket_id": sender.socket_id });
    Call::post(&app, "/events", &body)
        .send(&world)
        .await
        .assert(200, "{}");
    let (_, position) = event(&mut receiver, "private-a").await;
    let skipped = sender
        .expect_on("private-a", "pusher_internal:position")
        .await
        .json();
    assert_eq!(skipped, json!({ "position": position, "skipped": true }));
    publish(&world, &app, "private-a", &["three"]).await;
    for client in [&mut sender, &mut receiver] {
        expect_events(client, "private-a", &["three"]).await;
        client.expect_quiet().await;
    }
    // Elsewhere an excluded connection is told nothing.
    let mut other = Client::connect(&world, &app).await;
    subscribe(&mut other, "b").await;
    let body = json!({ "name": "four", "channels": ["b"], "data": "x", "socket_id": sender.socket_id });
    Call::post(&app, "/events", &body)
        .send(&world)
        .await
        .assert(200, "{}");
    expect_events(&mut other, "b", &["four"]).await;
    sender.expect_quiet().await;
}

#[tokio::test]
async fn a_client_event_in_a_presence_channel_keeps_its_sender() {
    let app = app();
    let world = World::with_app(&app);
    let mut sender = Client::connect(&world, &app).await;
    sender.join("presence-a", "u").await;
    recovered(&mut sender, "presence-a").await;
    sender.trigger("presence-a", "client-x", json!(1)).await;
    sender.expect_on("presence-a", "pusher_internal:position").await;
    let mut late = Client::connect(&world, &app).await;
    resume(&mut late, "presence-a", json!({ "last": 1 })).await;
    late.join("presence-a", "v").await;
    recovered(&mut late, "presence-a").await;
    let (event, _) = event(&mut late, "presence-a").await;
    assert_eq!(
        (event.name.as_str(), event.user_id.as_deref()),
        ("client-x", Some("u"))
    );
    let page = world.get(&app, "/channels/presence-a/history", &[]).await.json();
    assert_eq!(page["events"][0]["user_id"], "u");
}

#[tokio::test]
async fn who_has_every_event_is_not_given_the_remembered_one_again() {
    let app = app();
    let world = World::with_app(&app);
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("cache-a").await;
    client.expect_on("cache-a", "pusher:cache_miss").await;
    let start = position_of(&recovered(&mut client, "cache-a").await);
    publish(&world, &app, "cache-a", &["one", "two"]).await;
    let current = expect_events(&mut client, "cache-a", &["one", "two"]).await;
    for (asked, expected) in [(&start, &["one", "two"][..]), (&current, &[])] {
        let mut client = Client::connect(&world, &app).await;
        resume(&mut client, "cache-a", json!({ "position": asked })).await;
        client.subscribe("cache-a").await;
        assert_eq!(recovered(&mut client, "cache-a").await["recovered"], true);
        expect_events(&mut client, "cache-a", expected).await;
        client.expect_quiet().await;
    }
    let mut stranger = Client::connect(&world, &app).await;
    stranger.subscribe("cache-a").await;
    stranger.expect_on("cache-a", "two").await;
    assert_eq!(
        recovered(&mut stranger, "cache-a").await["recovered"],
        Value::Null
    );
    stranger.expect_quiet().await;
}

#[tokio::test]
async fn more_than_fits_at_once_is_not_recovered_and_closes_nothing() {
    let app = app();
    // The kernel's buffers would take what these hold back many times over, so that the past is larger still.
    let world = World::builder()
        .config("[sockets]\nmax_message_bytes = 11264\noutbox_bytes = 11264\n")
        .app(&app)
        .start();
    let mut client = Client::connect(&world, &app).await;
    let start = subscribe(&mut client, "a").await;
    client.leave().await;
    let data = "d".repeat(10_000);
    for n in 0..3 {
        world.publish(&app, "a", &n.to_string(), &data).await;
    }
    let mut client = Client::connect(&world, &app).await;
    resume(&mut client, "a", json!({ "position": start })).await;
    client.subscribe("a").await;
    let told = recovered(&mut client, "a").await;
    assert_eq!(told["recovered"], false);
    assert_ne!(position_of(&told), start, "it goes on from now");
    world.publish(&app, "a", "next", "x").await;
    expect_events(&mut client, "a", &["next"]).await;
}

#[tokio::test]
async fn a_resume_that_makes_no_sense_is_answered_by_an_error() {
    let app = app().limit("subscriptions_per_connection = 2");
    let world = World::with_app(&app);
    let mut client = Client::connect(&world, &app).await;
    for (channel, data, text) in [
        ("a", json!({}), "Invalid resume"),
        ("a", json!({ "last": 0 }), "Invalid resume"),
        ("a", json!({ "last": 1001 }), "Invalid resume"),
        ("a", json!({ "position": "x" }), "Invalid resume"),
        ("a", json!({ "position": "1:2", "last": 1 }), "Invalid resume"),
        ("a b", json!({ "last": 1 }), "Invalid channel name"),
    ] {
        resume(&mut client, channel, data).await;
        client.expect_error(None, text).await;
    }
    client
        .send(json!({ "event": "pusher:resume", "data": { "last": 1 } }))
        .await;
    client.expect_error(None, "Missing parameter: channel").await;
    subscribe(&mut client, "a").await;
    resume(&mut client, "a", json!({ "last": 1 })).await;
    client.expect_error(None, "before you subscribe").await;
    for channel in ["b", "c"] {
        resume(&mut client, channel, json!({ "last": 1 })).await;
    }
    resume(&mut client, "d", json!({ "last": 1 })).await;
    client.expect_error(None, "as many channels as may be").await;
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_joiner_amid_publishing_misses_nothing_and_gets_nothing_twice() {
    let app = app();
    let world = World::with_app(&app);
    let mut first = Client::connect(&world, &app).await;
    let start = subscribe(&mut first, "a").await;
    let names: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let publishing = publish(&world, &app, "a", &names);
    let joining = async {
        for _ in 0..5 {
            let mut client = Client::connect(&world, &app).await;
            resume(&mut client, "a", json!({ "position": start })).await;
            client.subscribe("a").await;
            assert_eq!(recovered(&mut client, "a").await["recovered"], true);
            expect_events(&mut client, "a", &names).await;
        }
    };
    tokio::join!(publishing, joining);
    expect_events(&mut first, "a", &names).await;
    first.expect_quiet().await;
}

#[tokio::test]
async fn the_place_and_its_event_arrive_in_one_piece() {
    let app = app();
    let world = World::with_app(&app);
    let mut client = Client::connect(&world, &app).await;
    subscribe(&mut client, "a").await;
    world.publish(&app, "a", "one", "x").await;
    let mut texts = Vec::new();
    for _ in 0..2 {
        if let Seen::Frame(frame) = client.socket.next().await {
            texts.push(frame.text());
        }
    }
    assert!(
        texts[0].starts_with(r#"{"event":"pusher_internal:position","channel":"a","data":"{\"position\":\""#),
        "{}",
        texts[0]
    );
    assert_eq!(texts[1], r#"{"event":"one","channel":"a","data":"x"}"#);
}
