//! The Yalgaar format, read as its reference says.

use super::receiver::{Receiver, Reply};
use super::{items, messages, world};
use crate::client::Client;
use crate::request::Call;
use crate::sign::{hmac_sha256_hex, unix_now};
use crate::world::{App, eventually};
use serde_json::{Value, json};

/// The source of a request and its data, without the times, which are looked at here.
fn read(app: &App, request: &super::Request) -> (String, Vec<Value>) {
    let signature = hmac_sha256_hex(&app.secret, &request.body);
    assert_eq!(request.header("x-pusher-signature"), Some(signature.as_str()));
    let mut body = request.json();
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(1));
    let mut items = body["items"].take();
    assert_eq!(items.as_object().map(serde_json::Map::len), Some(3), "{items}");
    assert_eq!(items["clientKey"], app.key.as_str());
    let mut data = items["data"].as_array().expect("a list").clone();
    for item in &mut data {
        let timestamp = item["timestamp"].take();
        let seconds: i64 = timestamp
            .as_str()
            .and_then(|text| text.parse().ok())
            .expect("decimal seconds as a string");
        assert!((seconds - unix_now()).abs() < 60);
        item.as_object_mut().expect("an object").remove("timestamp");
    }
    let source = items["source"].take();
    (source.as_str().expect("a text").to_owned(), data)
}

#[tokio::test]
async fn every_message_is_told_whoever_published_it() {
    let mut receiver = Receiver::start();
    let lines = messages(&receiver.url("/message"), "batch_ms = 0");
    let app = App::new(1).webhook(&lines);
    let world = world(&app);
    let mut client = Client::connect(&world, &app).await;
    client.join("presence-a", "ann").await;
    client.subscribe("private-a").await;
    let envelope = r#"{"nonce":"bm9uY2U=","ciphertext":"Y2lwaGVy"}"#;
    let batch = json!({ "batch": [
        { "name": "e", "channel": "batch-a", "data": "first" },
        { "name": "e", "channel": "batch-b", "data": "second" },
    ] });
    // Nobody's business but the platform's.
    world.publish(&app, "#server-to-user-ann", "e", "own").await;
    world.publish(&app, "news", "e", "{\"n\": 1}").await;
    world.publish(&app, "private-encrypted-a", "e", envelope).await;
    Call::post(&app, "/batch_events", &batch)
        .send(&world)
        .await
        .assert(200, "");
    client.trigger("presence-a", "client-x", json!({ "n": 2 })).await;
    client.trigger("private-a", "client-x", json!("text")).await;
    let mut told = Vec::new();
    while told.len() < 6 {
        let request = receiver.next().await;
        assert_eq!(request.path, "/message");
        let (source, data) = read(&app, &request);
        assert_eq!(source, "Message");
        told.extend(data);
    }
    told.sort_by_key(|item| item["channel"].to_string());
    assert_eq!(
        told,
        [
            json!({ "channel": "batch-a", "uuid": "", "message": "first" }),
            json!({ "channel": "batch-b", "uuid": "", "message": "second" }),
            json!({ "channel": "news", "uuid": "", "message": "{\"n\": 1}" }),
            json!({ "channel": "presence-a", "uuid": "ann", "message": "{\"n\":2}" }),
            json!({ "channel": "private-a", "uuid": client.socket_id, "message": "text" }),
            json!({ "channel": "private-encrypted-a", "uuid": "", "message": envelope }),
        ]
    );
}

#[tokio::test]
async fn every_subscription_is_bound_and_unbound_by_whoever_it_is() {
    let mut receiver = Receiver::start();
    let lines = format!(
        "format = \"yalgaar\"\npresence_url = \"{}\"\nbatch_ms = 0\n",
        receiver.url("/presence")
    );
    let app = App::new(1).webhook(&lines);
    let world = world(&app);
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("news").await;
    client.join("presence-a", "ann").await;
    let mut signed_in = Client::connect(&world, &app).await;
    signed_in.sign_in("bob").await;
    signed_in.subscribe("news").await;
    let socket_id = client.socket_id.clone();
    client.unsubscribe("news").await;
    client.leave().await;
    signed_in.leave().await;
    let mut told = Vec::new();
    while told.len() < 6 {
        let request = receiver.next().await;
        assert_eq!(request.path, "/presence");
        let (source, data) = read(&app, &request);
        assert_eq!(source, "Presence");
        told.extend(data);
    }
    let item = |channel: &str, uuid: &str, action: &str| json!({ "channel": channel, "uuid": uuid, "action": action });
    let mut expected = Vec::new();
    for (channel, uuid) in [("news", &*socket_id), ("presence-a", "ann"), ("news", "bob")] {
        for action in ["bind", "unbind"] {
            expected.push(item(channel, uuid, action));
            // Of one subscription the beginning comes first.
            let place = |action: &str| {
                told.iter()
                    .position(|other| *other == item(channel, uuid, action))
            };
            assert!(
                place("bind").is_some() && place("bind") < place("unbind"),
                "{told:?}"
            );
        }
    }
    told.sort_by_key(ToString::to_string);
    expected.sort_by_key(ToString::to_string);
    assert_eq!(told, expected);
}

#[tokio::test]
async fn who_cannot_be_told_of_presence_is_told_of_messages() {
    let mut receiver = Receiver::with(|request| match &*request.path {
        "/presence" => Reply::Never,
        _ => Reply::status(200),
    });
    let presence = format!("presence_url = \"{}\"\nbatch_ms = 0", receiver.url("/presence"));
    let lines = messages(&receiver.url("/message"), &presence);
    let app = App::new(1).webhook(&lines);
    let world = world(&app);
    let mut client = Client::connect(&world, &app).await;
    let channels: Vec<String> = (0..5).map(|number| format!("channel-{number}")).collect();
    for channel in &channels {
        client.subscribe(channel).await;
    }
    for channel in &channels {
        world.publish(&app, channel, "e", "text").await;
    }
    let (mut told, mut is_asked) = (0, false);
    while told < 5 || !is_asked {
        let request = receiver.next().await;
        if request.path == "/presence" {
            is_asked = true;
        } else {
            told += read(&app, &request).1.len();
        }
    }
}

#[tokio::test]
async fn each_entry_has_the_time_at_which_it_happened() {
    let mut receiver = Receiver::start();
    let lines = messages(&receiver.url("/"), "batch_ms = 60000\nbatch_size = 2");
    let app = App::new(1).webhook(&lines);
    let world = world(&app);
    world.publish(&app, "pub", "event", "first").await;
    let now = unix_now();
    eventually("another second has begun", || async {
        (unix_now() > now).then_some(())
    })
    .await;
    world.publish(&app, "pub", "event", "second").await;
    let items = items(&receiver.next().await);
    let second = |item: &Value| -> i64 {
        item["timestamp"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .expect("seconds as a text")
    };
    assert!(second(&items[0]) <= now && second(&items[1]) > now, "{items:?}");
}
