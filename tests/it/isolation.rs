//! Two apps in one process: nothing crosses.

use crate::client::Client;
use crate::request::Call;
use crate::sign::{channel_auth, user_auth};
use crate::world::{App, World, shared, shared_counting};
use serde_json::json;

fn two() -> (&'static World, App, App) {
    let (world, ours) = shared_counting();
    let (_, theirs) = shared_counting();
    (world, ours, theirs)
}

/// A subscriber of each app on the same channel, past its own counts.
async fn two_on(channel: &str) -> (&'static World, Client, Client) {
    let (world, ours) = shared();
    let (_, theirs) = shared();
    let mut us = Client::connect(world, &ours).await;
    let mut them = Client::connect(world, &theirs).await;
    us.subscribe(channel).await;
    them.subscribe(channel).await;
    (world, us, them)
}

#[tokio::test]
async fn a_publication_stays_in_its_app() {
    for channel in ["pub", "private-a", "private-encrypted-a"] {
        let (world, mut us, mut them) = two_on(channel).await;
        world.publish(&us.app, channel, "ours", "x").await;
        us.expect_on(channel, "ours").await;
        world.publish(&them.app, channel, "theirs", "x").await;
        them.expect_on(channel, "theirs").await;
        us.expect_quiet().await;
    }
}

#[tokio::test]
async fn a_batch_stays_in_its_app() {
    let (world, mut us, mut them) = two_on("pub").await;
    let batch = json!({ "batch": [{ "name": "ours", "channel": "pub", "data": "x" }] });
    Call::post(&us.app, "/batch_events", &batch)
        .send(world)
        .await
        .assert(200, "{}");
    us.expect("ours").await;
    them.expect_quiet().await;
}

#[tokio::test]
async fn client_events_stay_in_their_app() {
    let (_, mut us, mut them) = two_on("private-a").await;
    us.trigger("private-a", "client-x", json!({})).await;
    us.expect_quiet().await;
    them.expect_quiet().await;
}

#[tokio::test]
async fn presence_stays_in_its_app() {
    let (world, ours, theirs) = two();
    let mut us = Client::connect(world, &ours).await;
    let mut them = Client::connect(world, &theirs).await;
    us.join("presence-a", "u").await;
    let presence = them.join("presence-a", "u").await;
    assert_eq!(presence["count"], 1);
    us.expect_quiet().await;
    them.leave().await;
    us.expect_quiet().await;
    let users = world.get(&ours, "/channels/presence-a/users", &[]).await.json();
    assert_eq!(users, json!({ "users": [{ "id": "u" }] }));
    let users = world.get(&theirs, "/channels/presence-b/users", &[]).await.json();
    assert_eq!(users, json!({ "users": [] }));
}

#[tokio::test]
async fn lists_and_counts_are_those_of_the_app() {
    let (world, ours, theirs) = two();
    let mut us = Client::connect(world, &ours).await;
    us.subscribe("pub").await;
    us.expect("pusher_internal:subscription_count").await;
    assert_eq!(
        world.get(&theirs, "/channels", &[]).await.json(),
        json!({ "channels": {} })
    );
    let info = [("info", "subscription_count")];
    let answer = world.get(&theirs, "/channels/pub", &info).await.json();
    assert_eq!(answer, json!({ "occupied": false, "subscription_count": 0 }));
    let body = json!({ "name": "e", "channels": ["pub"], "data": "x", "info": "subscription_count" });
    let answer = Call::post(&theirs, "/events", &body).send(world).await.json();
    assert_eq!(
        answer,
        json!({ "channels": { "pub": { "subscription_count": 0 } } })
    );
    us.expect_quiet().await;
}

#[tokio::test]
async fn the_cache_of_one_app_is_not_that_of_another() {
    let (world, ours, theirs) = two();
    world.publish(&ours, "cache-a", "ours", "x").await;
    let mut them = Client::connect(world, &theirs).await;
    them.subscribe("cache-a").await;
    them.expect("pusher:cache_miss").await;
    let answer = world
        .get(&theirs, "/channels/cache-a", &[("info", "cache")])
        .await
        .json();
    assert_eq!(answer["cache"], json!(null));
}

#[tokio::test]
async fn a_socket_id_of_another_app_excludes_nobody() {
    let (world, mut us, mut them) = two_on("pub").await;
    let body = json!({ "name": "e", "channels": ["pub"], "data": "x", "socket_id": them.socket_id });
    Call::post(&us.app, "/events", &body)
        .send(world)
        .await
        .assert(200, "{}");
    us.expect("e").await;
    world.publish(&them.app, "pub", "marker", "x").await;
    them.expect("marker").await;
}

#[tokio::test]
async fn users_of_the_same_name_are_different_users() {
    let (world, ours) = shared();
    let (_, theirs) = shared();
    let mut us = Client::connect(world, &ours).await;
    let mut them = Client::connect(world, &theirs).await;
    for client in [&mut us, &mut them] {
        client.sign_in("u").await;
        client.subscribe("#server-to-user-u").await;
    }
    world.publish(&ours, "#server-to-user-u", "hello", "x").await;
    us.expect("hello").await;
    them.expect_quiet().await;
    Call::post(&ours, "/users/u/terminate_connections", &json!({}))
        .send(world)
        .await
        .assert(200, "{}");
    assert_eq!(us.closed().await.0, 4009);
    them.expect_quiet().await;
}

#[tokio::test]
async fn watchlists_end_at_the_app() {
    let (world, ours) = shared();
    let (_, theirs) = shared();
    let mut us = Client::connect(world, &ours).await;
    us.ask_sign_in(r#"{"id":"1","watchlist":["2"]}"#).await;
    us.expect("pusher:signin_success").await;
    us.expect("pusher_internal:watchlist_events").await;
    Client::connect(world, &theirs).await.sign_in("2").await;
    us.expect_quiet().await;
}

#[tokio::test]
async fn the_signatures_of_one_app_open_nothing_of_another() {
    let (world, ours) = shared();
    let (_, theirs) = shared();
    let mut them = Client::connect(world, &theirs).await;
    let foreign = channel_auth(&ours, &them.socket_id, "private-a", None);
    them.ask_with_auth("private-a", &foreign).await;
    them.expect_refusal("private-a", None, "Invalid key").await;
    // Their public key with our signature.
    let digest = foreign.split(':').nth(1).expect("auth is key:signature");
    them.ask_with_auth("private-a", &format!("{}:{digest}", theirs.key))
        .await;
    them.expect_refusal("private-a", None, "Invalid signature").await;
    let data = r#"{"id":"u"}"#;
    let auth = user_auth(&ours, &them.socket_id, data);
    them.send(json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": data } }))
        .await;
    assert_eq!(them.closed().await.0, 4009);
}

#[tokio::test]
async fn a_key_works_only_on_the_paths_of_its_own_app() {
    let (world, us, mut them) = two_on("pub").await;
    let (ours, theirs) = (us.app.clone(), them.app.clone());
    let event = json!({ "name": "e", "channels": ["pub"], "data": "x" });
    let batch = json!({ "batch": [{ "name": "e", "channel": "pub", "data": "x" }] });
    let mut calls = vec![
        Call::post(&ours, "/events", &event),
        Call::post(&ours, "/batch_events", &batch),
        Call::post(&ours, "/users/u/terminate_connections", &json!({})),
        Call::get(&ours, "/channels"),
        Call::get(&ours, "/channels/pub"),
        Call::get(&ours, "/channels/presence-a/users"),
    ];
    for call in &mut calls {
        call.path = call.path.replace(&ours.path(""), &theirs.path(""));
        let answer = call.send(world).await;
        assert_eq!(answer.status, 401, "{}: {}", call.path, answer.text());
        assert!(answer.text().contains("Unknown auth_key"), "{}", answer.text());
        // The key of the other app with our secret.
        let forged = call.clone().param("auth_key", &theirs.key);
        assert_eq!(forged.send(world).await.status, 401, "{}", call.path);
    }
    them.expect_quiet().await;
}

#[tokio::test]
async fn the_quota_of_one_app_is_not_used_up_by_another() {
    let ours = App::new(1)
        .limit("connections = 1")
        .limit("publishes_per_second = 1");
    let theirs = App::new(2)
        .limit("connections = 1")
        .limit("publishes_per_second = 1");
    let world = World::builder().app(&ours).app(&theirs).start();
    let mut us = Client::connect(&world, &ours).await;
    let mut them = Client::connect(&world, &theirs).await;
    us.expect_quiet().await;
    them.expect_quiet().await;
    world.publish(&ours, "pub", "e", "x").await;
    world.publish(&theirs, "pub", "e", "x").await;
}
