//! One journey through everything that crosses nodes, on each kind of Redis.

use super::RECOVERY;
use super::roster::{Watcher, all_agree, all_list};
use crate::client::{Client, QUERY};
use crate::redis::{RedisCluster, RedisServer, Sentinel};
use crate::request::Call;
use crate::world::{App, Builder, DEADLINE, World, eventually_within};
use serde_json::json;
use std::time::Duration;

fn app() -> App {
    App::new(1).limit("connections = 40")
}

fn two_nodes(url: &str) -> Builder {
    World::builder().nodes(2).redis(url).app(&app())
}

/// Every step on channels enough to lie all over the slots of a Redis Cluster.
async fn journey(world: &World) {
    let app = app();
    let (a, b) = world.pair();
    let mut on_a = Client::connect_to(a, &app).await;
    let mut on_b = Client::connect_to(b, &app).await;
    for number in 0..30 {
        let channel = format!("pub-{number}");
        on_b.subscribe(&channel).await;
        a.publish(&app, &channel, "e", "x").await;
        on_b.expect_on(&channel, "e").await;
    }
    let channels: Vec<String> = (0..30).map(|number| format!("pub-{number}")).collect();
    let body = json!({ "name": "to-all", "channels": channels, "data": "x" });
    Call::post(&app, "/events", &body)
        .send_to(a.address)
        .await
        .assert(200, "{}");
    for _ in &channels {
        on_b.expect("to-all").await;
    }
    for number in 0..10 {
        let channel = format!("private-cache-{number}");
        a.publish(&app, &channel, "kept", "x").await;
        for client in [&mut on_a, &mut on_b] {
            client.subscribe(&channel).await;
            client.expect_on(&channel, "kept").await;
        }
        on_a.trigger(&channel, "client-x", json!(number)).await;
        on_b.expect_on(&channel, "client-x").await;
    }
    let list = b.get(&app, "/channels", &[]).await.json();
    assert_eq!(list["channels"].as_object().map(serde_json::Map::len), Some(40));
    for number in 0..10 {
        let channel = format!("presence-{number}");
        let mut watcher = Watcher::join(b, &app, &channel, "watcher").await;
        let mut tab = Client::connect_to(a, &app).await;
        tab.join(&channel, "u").await;
        watcher.sees(&["u", "watcher"], DEADLINE).await;
        let mut other_tab = Client::connect_to(b, &app).await;
        assert_eq!(other_tab.join(&channel, "u").await["count"], 2);
        all_list(&[a, b], &app, &channel, &["u", "watcher"], DEADLINE).await;
        tab.leave().await;
        other_tab.leave().await;
        watcher.sees(&["watcher"], DEADLINE).await;
        watcher.expect_quiet().await;
        watcher.client.leave().await;
    }
    on_b.sign_in("u1").await;
    on_b.subscribe("#server-to-user-u1").await;
    a.publish(&app, "#server-to-user-u1", "hello", "x").await;
    on_b.expect_on("#server-to-user-u1", "hello").await;
    // Whoever left has given back its place: two are there, and 38 more have room.
    let mut crowd = Vec::new();
    while crowd.len() < 38 {
        let node = [a, b][crowd.len() % 2];
        let place = eventually_within(DEADLINE, || async {
            Client::try_connect_at(node.address, &app, QUERY).await.ok()
        });
        crowd.push(place.await.expect("there is a place"));
    }
    let refusal = Client::try_connect_at(a.address, &app, QUERY).await;
    refusal
        .err()
        .expect("a 41st is too many")
        .assert_error(Some(4004), "");
    Call::post(&app, "/users/u1/terminate_connections", &json!({}))
        .send_to(a.address)
        .await
        .assert(200, "{}");
    assert_eq!(on_b.closed().await.0, 4009);
    on_a.leave().await;
}

#[tokio::test]
async fn on_one_redis() {
    journey(&two_nodes(&RedisServer::shared().url()).start()).await;
}

#[tokio::test]
async fn on_a_redis_cluster_of_three_masters() {
    let cluster = RedisCluster::start();
    let world = two_nodes(&cluster.url()).start();
    journey(&world).await;
    let used = cluster
        .masters
        .iter()
        .filter(|master| !master.keys(&world.prefix).is_empty());
    assert_eq!(
        used.count(),
        3,
        "the state lies on all masters: {:?}",
        cluster.keys("")
    );
}

#[tokio::test]
async fn on_a_master_with_sentinels() {
    let sentinel = Sentinel::start();
    journey(&two_nodes(&sentinel.url()).start()).await;
}

#[tokio::test]
async fn over_tls_with_an_authority_of_ones_own() {
    let redis = RedisServer::options().tls().start();
    let ca = redis.ca_path().display().to_string();
    let world = two_nodes(&redis.tls_url())
        .env("DUNLIN_REDIS__CA_PATH", &ca)
        .start();
    journey(&world).await;
}

#[tokio::test]
async fn a_failover_is_survived_without_a_restart_and_without_a_ghost() {
    let sentinel = Sentinel::start();
    let world = two_nodes(&sentinel.url()).troubled().start();
    let app = app();
    let (a, b) = world.pair();
    let mut subscriber = Client::connect_to(b, &app).await;
    subscriber.subscribe("pub").await;
    let mut watchers = [
        Watcher::join(a, &app, "presence-a", "on-a").await,
        Watcher::join(b, &app, "presence-a", "on-b").await,
    ];
    let mut leaver = Client::connect_to(a, &app).await;
    leaver.join("presence-a", "leaver").await;
    for watcher in &mut watchers {
        watcher.sees(&["leaver", "on-a", "on-b"], DEADLINE).await;
    }
    sentinel.fail_over();
    leaver.leave().await;
    let body = json!({ "name": "after", "channels": ["pub"], "data": "x" });
    let accepted = eventually_within(Duration::from_secs(3), || async {
        let answer = Call::post(&app, "/events", &body).send_to(a.address).await;
        (answer.status == 200).then_some(())
    })
    .await;
    assert!(accepted.is_some(), "publishes are still refused");
    subscriber.expect_on("pub", "after").await;
    all_agree(&[a, b], &mut watchers, &["on-a", "on-b"], RECOVERY).await;
    subscriber.leave().await;
    for watcher in watchers {
        watcher.client.leave().await;
    }
    all_list(&[a, b], &app, "presence-a", &[], DEADLINE).await;
    journey(&world).await;
}

#[tokio::test]
async fn a_master_of_a_cluster_that_comes_back_with_nothing_is_filled_again() {
    let cluster = RedisCluster::start();
    let world = two_nodes(&cluster.url()).troubled().start();
    let app = app();
    let (a, b) = world.pair();
    let mut watchers = Vec::new();
    for number in 0..12 {
        let channel = format!("presence-{number}");
        watchers.push([
            Watcher::join(a, &app, &channel, "on-a").await,
            Watcher::join(b, &app, &channel, "on-b").await,
        ]);
    }
    cluster.masters[1].ask::<()>("FLUSHALL");
    for pair in &mut watchers {
        all_agree(&[a, b], pair, &["on-a", "on-b"], RECOVERY).await;
    }
}
