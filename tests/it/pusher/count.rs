//! The count of subscribers, for apps that ask for it.

use crate::client::Client;
use crate::world::{App, World, shared, shared_counting};
use serde_json::json;
use std::time::Duration;

const COUNT: &str = "pusher_internal:subscription_count";

#[track_caller]
fn count_of(event: &crate::client::Event) -> u64 {
    assert_eq!(event.name, COUNT, "{}", event.raw);
    let count = event.json()["subscription_count"].as_u64().expect("a number");
    assert_eq!(event.json(), json!({ "subscription_count": count }));
    count
}

#[tokio::test]
async fn every_subscriber_hears_the_count_after_each_change() {
    let (world, app) = shared_counting();
    let mut first = Client::connect(world, &app).await;
    let mut second = Client::connect(world, &app).await;
    first.subscribe("pub").await;
    assert_eq!(count_of(&first.expect_on("pub", COUNT).await), 1);
    second.subscribe("pub").await;
    assert_eq!(count_of(&second.expect_on("pub", COUNT).await), 2);
    assert_eq!(count_of(&first.expect_on("pub", COUNT).await), 2);
    second.unsubscribe("pub").await;
    assert_eq!(count_of(&first.expect_on("pub", COUNT).await), 1);
    second.expect_quiet().await;
}

#[tokio::test]
async fn a_lost_connection_changes_the_count() {
    let (world, app) = shared_counting();
    let mut first = Client::connect(world, &app).await;
    let mut second = Client::connect(world, &app).await;
    first.subscribe("private-a").await;
    assert_eq!(count_of(&first.expect(COUNT).await), 1);
    second.subscribe("private-a").await;
    assert_eq!(count_of(&first.expect(COUNT).await), 2);
    second.socket.abandon();
    assert_eq!(count_of(&first.expect(COUNT).await), 1);
}

#[tokio::test]
async fn presence_channels_tell_no_count() {
    let (world, app) = shared_counting();
    let mut client = Client::connect(world, &app).await;
    client.join("presence-a", "u").await;
    client.expect_quiet().await;
}

#[tokio::test]
async fn an_app_with_the_flag_off_tells_no_count() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.subscribe("pub").await;
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_crowded_channel_tells_its_count_only_now_and_then() {
    let app = App::counting(1);
    let world = World::builder()
        .config("[sockets]\nsubscription_count_throttle_above = 5\nsubscription_count_throttle_ms = 400")
        .app(&app)
        .start();
    let mut watcher = Client::connect(&world, &app).await;
    watcher.subscribe("pub").await;
    let mut crowd = Vec::new();
    for _ in 0..29 {
        let mut client = Client::connect(&world, &app).await;
        client.subscribe("pub").await;
        crowd.push(client);
    }
    let mut counts = Vec::new();
    while counts.last() != Some(&30) {
        let event = watcher
            .next_within(Duration::from_secs(3))
            .await
            .expect("the last count comes in the end");
        counts.push(count_of(&event));
    }
    assert_eq!(counts[..5], [1, 2, 3, 4, 5], "the first ones are not held back");
    assert!(counts.len() < 25, "throttled above five: {counts:?}");
    assert!(
        watcher.next_within(Duration::from_millis(900)).await.is_none(),
        "an unchanged count is not repeated"
    );
}

#[tokio::test]
async fn a_count_that_changed_and_changed_back_need_not_but_a_changed_one_must_be_told() {
    let app = App::counting(1);
    let world = World::builder()
        .config("[sockets]\nsubscription_count_throttle_above = 2\nsubscription_count_throttle_ms = 300")
        .app(&app)
        .start();
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = Client::connect(&world, &app).await;
        client.subscribe("pub").await;
        clients.push(client);
    }
    let leaver = clients.pop().expect("there are six");
    leaver.leave().await;
    let watcher = &mut clients[0];
    loop {
        let event = watcher
            .next_within(Duration::from_secs(3))
            .await
            .expect("the count goes down in the end");
        if count_of(&event) == 5 && watcher.next_within(Duration::from_millis(700)).await.is_none() {
            return;
        }
    }
}
