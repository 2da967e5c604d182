//! Each node answers for all.

use super::{shared, shared_counting};
use crate::client::Client;
use crate::node::Node;
use crate::request::Call;
use crate::world::{App, DEADLINE, eventually};
use serde_json::{Value, json};

async fn channels(node: &Node, app: &App, query: &[(&str, &str)]) -> Value {
    let answer = node.get(app, "/channels", query).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["channels"].clone()
}

#[tokio::test]
async fn channels_of_both_nodes_are_listed_by_both() {
    let (world, app) = shared_counting();
    let (a, b) = world.pair();
    let mut on_a = Client::connect_to(a, &app).await;
    let mut on_b = Client::connect_to(b, &app).await;
    on_a.join("presence-a", "1").await;
    on_a.join("presence-both", "1").await;
    on_b.join("presence-both", "2").await;
    on_b.subscribe("private-b").await;
    for node in [a, b] {
        assert_eq!(
            channels(node, &app, &[]).await,
            json!({ "presence-both": {}, "presence-a": {}, "private-b": {} })
        );
        let query = [
            ("filter_by_prefix", "presence-"),
            ("info", "user_count,subscription_count"),
        ];
        assert_eq!(
            channels(node, &app, &query).await,
            json!({
                "presence-both": { "user_count": 2, "subscription_count": 2 },
                "presence-a": { "user_count": 1, "subscription_count": 1 },
            })
        );
    }
    on_b.leave().await;
    for node in [a, b] {
        eventually("what only the other node had is gone", || async {
            (channels(node, &app, &[]).await == json!({ "presence-both": {}, "presence-a": {} }))
                .then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn two_thousand_channels_are_listed_once_each() {
    let (world, app) = shared_counting();
    let mut clients = Vec::new();
    for (number, node) in world.nodes.iter().cycle().take(4).enumerate() {
        let mut client = Client::connect_to(node, &app).await;
        for channel in 0..500 {
            client.ask(&format!("c-{}", number * 500 + channel), None).await;
        }
        clients.push(client);
    }
    for client in &mut clients {
        // A confirmation and a count for each.
        for _ in 0..1000 {
            client.next().await;
        }
    }
    let mut shared = Client::connect_to(&world.nodes[0], &app).await;
    shared.subscribe("c-1999").await;
    let info = [("info", "subscription_count")];
    for node in &world.nodes {
        let list = channels(node, &app, &info).await;
        let list = list.as_object().expect("an object");
        assert_eq!(list.len(), 2000);
        for number in 0..2000 {
            let count = if number == 1999 { 2 } else { 1 };
            assert_eq!(
                list.get(&format!("c-{number}")),
                Some(&json!({ "subscription_count": count })),
                "c-{number}"
            );
        }
        let some = channels(node, &app, &[("filter_by_prefix", "c-19")]).await;
        assert_eq!(some.as_object().map(serde_json::Map::len), Some(111));
    }
    for client in clients {
        client.leave().await;
    }
    for node in &world.nodes {
        eventually("only one channel is left", || async {
            (channels(node, &app, &[]).await == json!({ "c-1999": {} })).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn the_list_holds_every_steady_channel_once_while_others_come_and_go() {
    let (world, app) = shared();
    let (a, b) = world.pair();
    let mut steady = Client::connect_to(b, &app).await;
    for number in 0..200 {
        steady.ask(&format!("steady-{number}"), None).await;
    }
    for _ in 0..200 {
        steady.expect("pusher_internal:subscription_succeeded").await;
    }
    let mut restless = Client::connect_to(a, &app).await;
    for round in 0..20 {
        for number in 0..20 {
            restless.ask(&format!("restless-{round}-{number}"), None).await;
        }
        let list = channels(b, &app, &[("filter_by_prefix", "steady-")]).await;
        assert_eq!(
            list.as_object().map(serde_json::Map::len),
            Some(200),
            "round {round}"
        );
        for number in 0..20 {
            restless.expect("pusher_internal:subscription_succeeded").await;
            restless.unsubscribe(&format!("restless-{round}-{number}")).await;
        }
    }
    for node in [a, b] {
        eventually("nothing of the restless is left", || async {
            let list = channels(node, &app, &[]).await;
            (list.as_object().map(serde_json::Map::len) == Some(200)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn the_answer_to_a_publish_counts_the_subscribers_of_all_nodes() {
    let (world, app) = shared_counting();
    let (a, b) = world.pair();
    let mut clients = [
        Client::connect_to(a, &app).await,
        Client::connect_to(b, &app).await,
    ];
    clients[0].join("presence-a", "1").await;
    clients[1].join("presence-a", "2").await;
    let body = json!({
        "name": "e", "channels": ["presence-a"], "data": "x", "info": "user_count,subscription_count",
    });
    for node in [a, b] {
        let answer = Call::post(&app, "/events", &body).send_to(node.address).await;
        assert_eq!(
            answer.json(),
            json!({ "channels": { "presence-a": { "user_count": 2, "subscription_count": 2 } } })
        );
    }
}

#[tokio::test]
async fn users_are_listed_once_however_many_nodes_they_are_on() {
    let (world, app) = shared();
    let (a, b) = world.pair();
    let mut clients = Vec::new();
    for (node, user) in [(a, "1"), (b, "1"), (b, "2"), (a, "3"), (b, "3")] {
        let mut client = Client::connect_to(node, &app).await;
        client.join("presence-a", user).await;
        clients.push(client);
    }
    super::roster::all_list(&[a, b], &app, "presence-a", &["1", "2", "3"], DEADLINE).await;
}
