//! Whoever came and went leaves nothing behind in Redis.

use crate::client::Client;
use crate::redis::RedisServer;
use crate::world::{App, World, eventually_within};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

/// Connections come, do a little of everything, and go, on channels whose names are the same in every round.
async fn churn(world: &World, app: &App, rounds: usize) {
    for round in 0..rounds {
        let visits = (0..20).map(|number| async move {
            let node = &world.nodes[number % world.nodes.len()];
            let mut client = Client::connect_to(node, app).await;
            client.sign_in(&format!("u{number}")).await;
            for channel in [
                format!("c-{number}"),
                "shared".to_owned(),
                format!("private-{number}"),
            ] {
                client.ask(&channel, None).await;
            }
            client.ask("presence-a", None).await;
            let mut confirmed = 0;
            while confirmed < 4 {
                let event = client.next().await;
                confirmed += usize::from(event.name == "pusher_internal:subscription_succeeded");
            }
            node.publish(app, &format!("c-{number}"), "e", "x").await;
            client
                .trigger(&format!("private-{number}"), "client-x", json!(1))
                .await;
            while client.next().await.name != "e" {}
            if (round + number) % 2 == 0 {
                client.socket.abandon();
            } else {
                // There may still be something for it to read.
                client.socket.reset();
            }
        });
        futures_util::future::join_all(visits).await;
    }
}

fn left_behind(redis: &RedisServer, world: &World) -> BTreeSet<String> {
    redis.keys(&world.prefix).into_iter().collect()
}

fn subscriptions(redis: &RedisServer, world: &World) -> BTreeSet<String> {
    let pattern = format!("{}*", world.prefix);
    let plain: Vec<String> = redis.ask(&format!("PUBSUB CHANNELS {pattern}"));
    let sharded: Vec<String> = redis.ask(&format!("PUBSUB SHARDCHANNELS {pattern}"));
    plain.into_iter().chain(sharded).collect()
}

#[tokio::test]
async fn keys_and_subscriptions_are_the_same_after_much_coming_and_going() {
    let app = App::new(1);
    let redis = RedisServer::start();
    let world = World::builder()
        .nodes(2)
        .redis(&redis.url())
        .config("[redis]\nlinger_ms = 500\n[webhooks]\nsettle_ms = 500")
        .app(&app)
        .start();
    let at_first = subscriptions(&redis, &world);
    // What stays for good, such as the webhooks' streams, is there after the first round.
    churn(&world, &app, 1).await;
    let settled = eventually_within(Duration::from_secs(10), || async {
        (subscriptions(&redis, &world) == at_first
            && !left_behind(&redis, &world).iter().any(|key| is_of_a_visit(key)))
        .then_some(())
    })
    .await;
    assert!(
        settled.is_some(),
        "keys: {:#?}\nsubscriptions: {:#?}",
        left_behind(&redis, &world),
        &subscriptions(&redis, &world) - &at_first
    );
    let steady = left_behind(&redis, &world);
    churn(&world, &app, 20).await;
    let no_more = eventually_within(Duration::from_secs(10), || async {
        let keys = left_behind(&redis, &world);
        (keys.is_subset(&steady) && subscriptions(&redis, &world) == at_first).then_some(())
    })
    .await;
    assert!(
        no_more.is_some(),
        "keys: {:#?}\nsubscriptions: {:#?}",
        &left_behind(&redis, &world) - &steady,
        &subscriptions(&redis, &world) - &at_first
    );
}

/// Whether the key's name holds the name of a channel or a user of the visitors.
fn is_of_a_visit(key: &str) -> bool {
    ["c-", "shared", "private-", "presence-"]
        .iter()
        .any(|name| key.contains(name))
}
