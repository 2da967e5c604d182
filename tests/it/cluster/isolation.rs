//! Nothing crosses between two apps, or between two deployments that use one Redis.

use super::shared;
use crate::client::{Client, QUERY};
use crate::redis::RedisServer;
use crate::request::Call;
use crate::world::{App, World};
use serde_json::json;

#[tokio::test]
async fn two_apps_share_nodes_and_nothing_else() {
    let (world, ours) = shared();
    let (_, theirs) = shared();
    let (a, b) = world.pair();
    let mut us = Client::connect_to(a, &ours).await;
    let mut them = Client::connect_to(b, &theirs).await;
    for channel in ["pub", "private-a", "private-encrypted-a", "cache-a"] {
        us.subscribe(channel).await;
        them.subscribe(channel).await;
        if channel == "cache-a" {
            us.expect("pusher:cache_miss").await;
            them.expect("pusher:cache_miss").await;
        }
        a.publish(&theirs, channel, "theirs", "x").await;
        b.publish(&ours, channel, "ours", "x").await;
        us.expect_on(channel, "ours").await;
        them.expect_on(channel, "theirs").await;
    }
    us.trigger("private-a", "client-x", json!(1)).await;
    assert_eq!(us.join("presence-a", "u").await["count"], 1);
    assert_eq!(them.join("presence-a", "u").await["count"], 1);
    let users = b.get(&ours, "/channels/presence-b/users", &[]).await.json();
    assert_eq!(users, json!({ "users": [] }));
    us.sign_in("u").await;
    them.sign_in("u").await;
    Call::post(&ours, "/users/u/terminate_connections", &json!({}))
        .send_to(b.address)
        .await
        .assert(200, "{}");
    assert_eq!(us.closed().await.0, 4009);
    them.expect_quiet().await;
}

#[tokio::test]
async fn two_deployments_with_different_prefixes_share_a_redis_and_nothing_else() {
    let redis = RedisServer::start();
    let app = App::new(1).limit("connections = 2");
    // One prefix is the beginning of the other: it must not be taken for it.
    let deployment = |prefix: &str| {
        let builder = World::builder().nodes(2).redis(&redis.url());
        builder.prefix(prefix).app(&app).start()
    };
    let (one, other) = (deployment("shop"), deployment("shop-2"));
    let mut us = Client::connect_to(&one.nodes[1], &app).await;
    let mut them = Client::connect_to(&other.nodes[1], &app).await;
    for (client, world) in [(&mut us, &one), (&mut them, &other)] {
        client.subscribe("pub").await;
        client.subscribe("cache-a").await;
        client.expect("pusher:cache_miss").await;
        assert_eq!(client.join("presence-a", "u").await["count"], 1);
        client.sign_in("u").await;
        let list = world.get(&app, "/channels", &[]).await.json();
        assert_eq!(list["channels"].as_object().map(serde_json::Map::len), Some(3));
    }
    one.publish(&app, "pub", "e", "x").await;
    us.expect_on("pub", "e").await;
    one.publish(&app, "cache-a", "kept", "x").await;
    us.expect_on("cache-a", "kept").await;
    them.unsubscribe("cache-a").await;
    them.subscribe("cache-a").await;
    them.expect("pusher:cache_miss").await;
    // The second place of each, and no third.
    for world in [&one, &other] {
        let second = Client::connect_to(&world.nodes[0], &app).await;
        let third = Client::try_connect_at(world.nodes[1].address, &app, QUERY).await;
        third
            .err()
            .expect("a third is too many")
            .assert_error(Some(4004), "");
        second.leave().await;
    }
    Call::post(&app, "/users/u/terminate_connections", &json!({}))
        .send(&one)
        .await
        .assert(200, "{}");
    assert_eq!(us.closed().await.0, 4009);
    them.expect_quiet().await;
    let all = redis.keys("");
    let strangers: Vec<_> = all.iter().filter(|key| !key.starts_with("shop")).collect();
    assert!(!all.is_empty() && strangers.is_empty(), "{strangers:?}");
}
