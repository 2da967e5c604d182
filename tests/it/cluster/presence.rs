//! Members and counts are those of all nodes together.

use super::roster::{Watcher, all_list};
use super::{shared, shared_counting};
use crate::client::Client;
use crate::world::DEADLINE;
use serde_json::json;

const COUNT: &str = "pusher_internal:subscription_count";

#[tokio::test]
async fn a_member_of_one_node_is_seen_on_the_other() {
    let (world, app) = shared();
    let (a, b) = world.pair();
    let mut watcher = Watcher::join(b, &app, "presence-a", "watcher").await;
    let mut member = Client::connect_to(a, &app).await;
    let presence = member.join("presence-a", "member").await;
    assert_eq!(presence["count"], 2);
    assert_eq!(
        presence["hash"],
        json!({ "watcher": { "name": "watcher" }, "member": { "name": "member" } })
    );
    watcher.sees(&["member", "watcher"], DEADLINE).await;
    all_list(&[a, b], &app, "presence-a", &["member", "watcher"], DEADLINE).await;
    member.leave().await;
    watcher.sees(&["watcher"], DEADLINE).await;
    all_list(&[a, b], &app, "presence-a", &["watcher"], DEADLINE).await;
    watcher.expect_quiet().await;
}

#[tokio::test]
async fn a_user_on_two_nodes_is_one_member_until_its_last_connection_goes() {
    let (world, app) = shared();
    let (a, b) = world.pair();
    let mut watchers = [
        Watcher::join(a, &app, "presence-a", "watcher-a").await,
        Watcher::join(b, &app, "presence-a", "watcher-b").await,
    ];
    watchers[0].sees(&["watcher-a", "watcher-b"], DEADLINE).await;
    let mut tab = Client::connect_to(a, &app).await;
    let mut other_tab = Client::connect_to(b, &app).await;
    tab.join("presence-a", "u").await;
    assert_eq!(other_tab.join("presence-a", "u").await["count"], 3);
    for watcher in &mut watchers {
        watcher.sees(&["u", "watcher-a", "watcher-b"], DEADLINE).await;
        watcher.expect_quiet().await;
    }
    tab.leave().await;
    // A later event of the channel: had the user been removed, that would have come first.
    a.publish(&app, "presence-a", "marker", "x").await;
    for watcher in &mut watchers {
        watcher.client.expect_on("presence-a", "marker").await;
    }
    all_list(
        &[a, b],
        &app,
        "presence-a",
        &["u", "watcher-a", "watcher-b"],
        DEADLINE,
    )
    .await;
    other_tab.leave().await;
    for watcher in &mut watchers {
        watcher.sees(&["watcher-a", "watcher-b"], DEADLINE).await;
        watcher.expect_quiet().await;
    }
}

#[tokio::test]
async fn a_full_channel_is_full_on_every_node() {
    let (world, app) = shared();
    let mut members = Vec::new();
    for (number, node) in world.nodes.iter().cycle().take(100).enumerate() {
        let mut client = Client::connect_to(node, &app).await;
        client.join("presence-a", &format!("u{number}")).await;
        members.push(client);
    }
    for node in &world.nodes {
        let mut late = Client::connect_to(node, &app).await;
        late.ask("presence-a", Some(r#"{"user_id":"late"}"#)).await;
        let failure = late.expect_refusal("presence-a", None, "").await;
        assert_eq!(failure["type"], "LimitReached");
        let presence = late.join("presence-a", "u7").await;
        assert_eq!(presence["count"], 100);
    }
}

#[tokio::test]
async fn members_stay_exact_while_many_come_and_go_on_both_nodes() {
    let (world, app) = shared();
    let (a, b) = world.pair();
    let mut watcher = Watcher::join(a, &app, "presence-a", "watcher").await;
    let rounds = (0..60).map(|number| {
        let (app, node) = (&app, if number % 2 == 0 { a } else { b });
        async move {
            let mut client = Client::connect_to(node, app).await;
            let data = format!(r#"{{"user_id":"u{}"}}"#, number / 3);
            client.ask("presence-a", Some(&data)).await;
            while client.next().await.name != "pusher_internal:subscription_succeeded" {}
            client
        }
    });
    let clients = futures_util::future::join_all(rounds).await;
    let users: Vec<String> = (0..20).map(|number| format!("u{number}")).collect();
    let mut all: Vec<&str> = users.iter().map(String::as_str).chain(["watcher"]).collect();
    all.sort_unstable();
    watcher.sees(&all, DEADLINE).await;
    all_list(&[a, b], &app, "presence-a", &all, DEADLINE).await;
    for client in clients {
        client.socket.abandon();
    }
    watcher.sees(&["watcher"], DEADLINE).await;
    all_list(&[a, b], &app, "presence-a", &["watcher"], DEADLINE).await;
    watcher.expect_quiet().await;
}

#[tokio::test]
async fn a_member_that_changes_nodes_a_hundred_times_is_added_and_removed_in_turn() {
    let (world, app) = shared();
    let (a, b) = world.pair();
    let mut watcher = Watcher::join(b, &app, "presence-a", "watcher").await;
    let mut seats = [
        Client::connect_to(a, &app).await,
        Client::connect_to(b, &app).await,
    ];
    for turn in 0..100 {
        let client = &mut seats[turn % 2];
        client.join("presence-a", "restless").await;
        watcher.sees(&["restless", "watcher"], DEADLINE).await;
        client.unsubscribe("presence-a").await;
        watcher.sees(&["watcher"], DEADLINE).await;
    }
    watcher.expect_quiet().await;
}

#[tokio::test]
async fn the_subscription_count_is_that_of_all_nodes() {
    let (world, app) = shared_counting();
    let mut clients: Vec<Client> = Vec::new();
    for (number, node) in world.nodes.iter().cycle().take(6).enumerate() {
        let mut client = Client::connect_to(node, &app).await;
        client.subscribe("pub").await;
        clients.push(client);
        for (early, client) in clients.iter_mut().enumerate() {
            let event = client.next_within(DEADLINE).await;
            let event = event.unwrap_or_else(|| panic!("{early} does not hear of {number}"));
            assert_eq!(event.name, COUNT, "{}", event.raw);
            assert_eq!(event.json(), json!({ "subscription_count": number + 1 }));
        }
    }
    let info = [("info", "subscription_count")];
    for node in &world.nodes {
        let answer = node.get(&app, "/channels/pub", &info).await.json();
        assert_eq!(answer, json!({ "occupied": true, "subscription_count": 6 }));
    }
    while let Some(client) = clients.pop() {
        client.leave().await;
        for client in &mut clients.iter_mut() {
            client.expect_on("pub", COUNT).await;
        }
        if let Some(client) = clients.first_mut() {
            client.expect_quiet().await;
        }
    }
}
