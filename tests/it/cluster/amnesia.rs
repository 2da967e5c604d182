//! A Redis that forgets everything is taught again by the nodes: nobody is missing, and nobody is there who is not.

use super::RECOVERY;
use super::roster::{Watcher, all_agree};
use crate::client::{Client, QUERY};
use crate::redis::RedisServer;
use crate::world::{App, DEADLINE, World, eventually_within};
use serde_json::json;

const COUNT: &str = "pusher_internal:subscription_count";

#[tokio::test]
async fn after_a_flush_presence_is_that_of_the_live_sockets() {
    let app = App::new(1);
    let redis = RedisServer::start();
    let world = World::builder()
        .nodes(2)
        .redis(&redis.url())
        .app(&app)
        .troubled()
        .start();
    let (a, b) = world.pair();
    let mut watchers = [
        Watcher::join(a, &app, "presence-a", "on-a").await,
        Watcher::join(b, &app, "presence-a", "on-b").await,
    ];
    let mut members = Vec::new();
    for (node, user) in [(a, "both"), (b, "both"), (a, "gone"), (b, "here")] {
        let mut client = Client::connect_to(node, &app).await;
        client.join("presence-a", user).await;
        members.push((user, client));
    }
    let all = ["both", "gone", "here", "on-a", "on-b"];
    for watcher in &mut watchers {
        watcher.sees(&all, DEADLINE).await;
    }
    redis.ask::<()>("FLUSHALL");
    // One leaves at the very moment.
    let (_, gone) = members.remove(2);
    gone.leave().await;
    let rest = ["both", "here", "on-a", "on-b"];
    all_agree(&[a, b], &mut watchers, &rest, RECOVERY).await;
    // What was forgotten and learnt again is undone as usual.
    for (_, client) in members {
        client.leave().await;
    }
    all_agree(&[a, b], &mut watchers, &["on-a", "on-b"], DEADLINE).await;
}

#[tokio::test]
async fn after_a_flush_counts_lists_and_the_quota_are_exact() {
    let app = App::counting(1).limit("connections = 5");
    let redis = RedisServer::start();
    let world = World::builder()
        .nodes(2)
        .redis(&redis.url())
        .app(&app)
        .troubled()
        .start();
    let (a, b) = world.pair();
    let mut clients = Vec::new();
    for (number, node) in [a, b, a, b, a].into_iter().enumerate() {
        let mut client = Client::connect_to(node, &app).await;
        for channel in ["pub", &format!("own-{number}")] {
            client.ask(channel, None).await;
            while client.next().await.name != "pusher_internal:subscription_succeeded" {}
        }
        clients.push(client);
    }
    redis.ask::<()>("FLUSHALL");
    let exact = eventually_within(RECOVERY, || async {
        for node in [a, b] {
            let list = node
                .get(&app, "/channels", &[("info", "subscription_count")])
                .await;
            let wanted = json!({ "channels": {
                "pub": { "subscription_count": 5 },
                "own-0": { "subscription_count": 1 }, "own-1": { "subscription_count": 1 },
                "own-2": { "subscription_count": 1 }, "own-3": { "subscription_count": 1 },
                "own-4": { "subscription_count": 1 },
            } });
            if list.status != 200 || list.json() != wanted {
                return None;
            }
        }
        Some(())
    })
    .await;
    assert!(exact.is_some(), "{}", a.get(&app, "/channels", &[]).await.text());
    for node in [a, b] {
        let sixth = Client::try_connect_at(node.address, &app, QUERY).await;
        sixth
            .err()
            .expect("a sixth is too many")
            .assert_error(Some(4004), "");
    }
    clients.pop().expect("there are five").leave().await;
    // Whatever counts were told in between, the last one is right.
    for client in &mut clients {
        let mut last = 0;
        while last != 4 {
            let event = client.next().await;
            if event.name == COUNT && event.channel.as_deref() == Some("pub") {
                last = event.json()["subscription_count"].as_u64().expect("a number");
            }
        }
    }
}
