//! Clients that do not wait for answers: everything goes out in one segment.

use crate::client::Client;
use crate::sign::{channel_auth, user_auth};
use crate::websocket::Draft;
use crate::world::{eventually, shared};
use serde_json::{Value, json};

/// Sends all of these in one write.
async fn send_together(client: &mut Client, messages: &[Value]) {
    let bytes: Vec<u8> = messages
        .iter()
        .flat_map(|message| Draft::text(message.to_string()).bytes())
        .collect();
    client.socket.send(&bytes).await;
}

fn subscribe(client: &Client, channel: &str, channel_data: Option<&str>) -> Value {
    let auth = channel_auth(&client.app, &client.socket_id, channel, channel_data);
    let mut data = json!({ "channel": channel, "auth": auth });
    if let Some(text) = channel_data {
        data["channel_data"] = json!(text);
    }
    json!({ "event": "pusher:subscribe", "data": data })
}

fn unsubscribe(channel: &str) -> Value {
    json!({ "event": "pusher:unsubscribe", "data": { "channel": channel } })
}

fn sign_in(client: &Client, user_data: &str) -> Value {
    let auth = user_auth(&client.app, &client.socket_id, user_data);
    json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": user_data } })
}

#[tokio::test]
async fn subscribing_leaving_and_subscribing_again_ends_subscribed() {
    let (world, app) = shared();
    for channel in ["pub", "private-a", "presence-a"] {
        let data = channel.starts_with("presence-").then_some(r#"{"user_id":"u"}"#);
        let mut client = Client::connect(world, &app).await;
        let enter = subscribe(&client, channel, data);
        send_together(&mut client, &[enter.clone(), unsubscribe(channel), enter]).await;
        client
            .expect_on(channel, "pusher_internal:subscription_succeeded")
            .await;
        client
            .expect_on(channel, "pusher_internal:subscription_succeeded")
            .await;
        client.expect_quiet().await;
        world.publish(&app, channel, "e", "x").await;
        client.expect_on(channel, "e").await;
        client.expect_quiet().await;
    }
}

#[tokio::test]
async fn two_subscriptions_at_once_are_one_and_an_error() {
    let (world, app) = shared();
    for channel in ["pub", "private-a", "presence-a"] {
        let data = channel.starts_with("presence-").then_some(r#"{"user_id":"u"}"#);
        let mut client = Client::connect(world, &app).await;
        let enter = subscribe(&client, channel, data);
        send_together(&mut client, &[enter.clone(), enter]).await;
        let (mut confirmed, mut refused) = (0, 0);
        for _ in 0..2 {
            let event = client.next().await;
            if event.name == "pusher_internal:subscription_succeeded" {
                confirmed += 1;
            } else {
                event.assert_error(None, &format!("Existing subscription to channel {channel}"));
                refused += 1;
            }
        }
        assert_eq!((confirmed, refused), (1, 1), "{channel}");
        world.publish(&app, channel, "e", "x").await;
        client.expect_on(channel, "e").await;
        client.expect_quiet().await;
    }
}

#[tokio::test]
async fn a_client_event_right_behind_its_subscription_is_sent() {
    let (world, app) = shared();
    for channel in ["private-a", "presence-a"] {
        let data = |user: &str| format!(r#"{{"user_id":"{user}"}}"#);
        let is_presence = channel.starts_with("presence-");
        let mut receiver = Client::connect(world, &app).await;
        receiver
            .ask(channel, is_presence.then_some(data("receiver").as_str()))
            .await;
        receiver.expect("pusher_internal:subscription_succeeded").await;
        let mut sender = Client::connect(world, &app).await;
        let data = data("sender");
        let enter = subscribe(&sender, channel, is_presence.then_some(data.as_str()));
        let event = json!({ "event": "client-x", "channel": channel, "data": 1 });
        send_together(&mut sender, &[enter, event, unsubscribe(channel)]).await;
        if is_presence {
            receiver.expect("pusher_internal:member_added").await;
        }
        let event = receiver.expect_on(channel, "client-x").await;
        assert_eq!(event.user_id.as_deref(), is_presence.then_some("sender"));
        if is_presence {
            receiver.expect("pusher_internal:member_removed").await;
        }
    }
}

#[tokio::test]
async fn a_member_that_comes_and_goes_a_hundred_times_is_added_and_removed_in_turn() {
    let (world, app) = shared();
    let mut watcher = Client::connect(world, &app).await;
    watcher.join("presence-a", "watcher").await;
    let mut restless = Client::connect(world, &app).await;
    let enter = subscribe(&restless, "presence-a", Some(r#"{"user_id":"restless"}"#));
    let turns: Vec<Value> = (0..100)
        .flat_map(|_| [enter.clone(), unsubscribe("presence-a")])
        .collect();
    send_together(&mut restless, &turns).await;
    for _ in 0..100 {
        restless.expect("pusher_internal:subscription_succeeded").await;
    }
    restless.expect_quiet().await;
    for _ in 0..100 {
        watcher.expect("pusher_internal:member_added").await;
        watcher.expect("pusher_internal:member_removed").await;
    }
    watcher.expect_quiet().await;
    let users = world.get(&app, "/channels/presence-a/users", &[]).await.json();
    assert_eq!(users, json!({ "users": [{ "id": "watcher" }] }));
}

#[tokio::test]
async fn a_sign_in_counts_for_what_comes_right_behind_it() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    let messages = [
        sign_in(&client, r#"{"id":"u","user_info":{"n":1}}"#),
        json!({ "event": "pusher:subscribe", "data": { "auth": "", "channel": "#server-to-user-u" } }),
        subscribe(&client, "presence-a", None),
    ];
    send_together(&mut client, &messages).await;
    client.expect("pusher:signin_success").await;
    client
        .expect_on("#server-to-user-u", "pusher_internal:subscription_succeeded")
        .await;
    let event = client
        .expect_on("presence-a", "pusher_internal:subscription_succeeded")
        .await;
    assert_eq!(event.json()["presence"]["hash"], json!({ "u": { "n": 1 } }));
}

#[tokio::test]
async fn a_connection_that_ends_right_behind_its_subscriptions_leaves_nothing() {
    let (world, app) = shared();
    for round in 0..20 {
        let mut client = Client::connect(world, &app).await;
        let user_data = format!(r#"{{"id":"u{round}"}}"#);
        let member = format!(r#"{{"user_id":"u{round}"}}"#);
        let messages = [
            sign_in(&client, &user_data),
            subscribe(&client, "presence-a", Some(&member)),
            subscribe(&client, "private-a", None),
            subscribe(&client, "pub", None),
        ];
        if round % 2 == 0 {
            send_together(&mut client, &messages).await;
            client.socket.abandon();
        } else {
            let mut bytes: Vec<u8> = messages
                .iter()
                .flat_map(|message| Draft::text(message.to_string()).bytes())
                .collect();
            bytes.extend(Draft::close(1000, "").bytes());
            client.socket.send(&bytes).await;
        }
    }
    eventually("all channels are empty", || async {
        let list = world.get(&app, "/channels", &[]).await.json();
        (list == json!({ "channels": {} })).then_some(())
    })
    .await;
    let mut late = Client::connect(world, &app).await;
    assert_eq!(late.join("presence-a", "late").await["count"], 1);
}

#[tokio::test]
async fn every_question_of_a_segment_is_answered_once() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    let ping = json!({ "event": "pusher:ping" });
    let member = r#"{"user_id":"u"}"#;
    let messages = [
        subscribe(&client, "a", None),
        ping.clone(),
        subscribe(&client, "presence-b", Some(member)),
        json!({ "event": "nonsense" }),
        unsubscribe("never"),
        subscribe(&client, "cache-c", None),
        ping,
    ];
    send_together(&mut client, &messages).await;
    let mut heard = Vec::new();
    while heard.len() < 8 {
        heard.push(client.next().await.name);
    }
    let position = |name: &str| heard.iter().position(|heard| heard == name);
    assert_eq!(
        heard
            .iter()
            .filter(|name| *name == "pusher_internal:subscription_succeeded")
            .count(),
        3
    );
    assert_eq!(
        heard.iter().filter(|name| *name == "pusher:error").count(),
        2,
        "{heard:?}"
    );
    assert_eq!(
        heard.iter().filter(|name| *name == "pusher:pong").count(),
        2,
        "{heard:?}"
    );
    assert!(position("pusher:cache_miss") > position("pusher_internal:subscription_succeeded"));
}
