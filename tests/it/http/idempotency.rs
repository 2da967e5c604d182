//! A publish that is made again with the same key is answered again and not delivered again.

use crate::client::Client;
use crate::request::Call;
use crate::world::{DEADLINE, World, shared, shared_counting};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn event(name: &str) -> Value {
    json!({ "name": name, "channels": ["presence-a"], "data": "x", "info": "subscription_count" })
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer_and_is_not_delivered() {
    let (world, app) = shared_counting();
    let mut client = Client::connect(world, &app).await;
    client.join("presence-a", "u").await;
    let first = Call::post(&app, "/events", &event("once"))
        .header("Idempotency-Key", "key-1")
        .send(world)
        .await;
    first.assert(200, "\"subscription_count\":1");
    client.expect_on("presence-a", "once").await;
    let mut other = Client::connect(world, &app).await;
    other.join("presence-a", "u").await;
    // A repeat is signed anew, with the time of the repeat.
    let repeat = Call::post(&app, "/events", &event("once"))
        .param("auth_timestamp", &(crate::sign::unix_now() + 1).to_string())
        .header("idempotency-key", "key-1")
        .send(world)
        .await;
    assert_eq!(
        (repeat.status, repeat.text()),
        (first.status, first.text()),
        "the count of the first answer"
    );
    client.expect_quiet().await;
    let fresh = Call::post(&app, "/events", &event("twice"))
        .header("Idempotency-Key", "key-2")
        .send(world)
        .await;
    fresh.assert(200, "\"subscription_count\":2");
    client.expect_on("presence-a", "twice").await;
}

#[tokio::test]
async fn the_same_key_with_another_body_is_refused() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.subscribe("pub").await;
    let event = |data: &str| json!({ "name": "e", "channels": ["pub"], "data": data });
    Call::post(&app, "/events", &event("1"))
        .header("Idempotency-Key", "k")
        .send(world)
        .await
        .assert(200, "{}");
    client.expect("e").await;
    let answer = Call::post(&app, "/events", &event("2"))
        .header("Idempotency-Key", "k")
        .send(world)
        .await;
    assert!((400..500).contains(&answer.status), "{}", answer.status);
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_batch_is_not_delivered_again_either() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.subscribe("pub").await;
    let batch = json!({ "batch": [{ "name": "e", "channel": "pub", "data": "x" }] });
    for _ in 0..3 {
        let call = Call::post(&app, "/batch_events", &batch).header("Idempotency-Key", "k");
        call.send(world).await.assert(200, "{}");
    }
    client.expect("e").await;
    client.expect_quiet().await;
}

#[tokio::test]
async fn keys_of_different_apps_do_not_meet() {
    let (world, ours) = shared();
    let (_, theirs) = shared();
    let mut client = Client::connect(world, &theirs).await;
    client.subscribe("pub").await;
    let event = json!({ "name": "e", "channels": ["pub"], "data": "x" });
    for app in [&ours, &theirs] {
        Call::post(app, "/events", &event)
            .header("Idempotency-Key", "k")
            .send(world)
            .await
            .assert(200, "{}");
    }
    client.expect("e").await;
}

#[tokio::test]
async fn requests_without_a_key_are_each_delivered() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.subscribe("pub").await;
    world.publish(&app, "pub", "e", "x").await;
    world.publish(&app, "pub", "e", "x").await;
    client.expect("e").await;
    client.expect("e").await;
}

#[tokio::test]
async fn a_refused_publish_may_be_repaired_under_the_same_key() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.subscribe("pub").await;
    let bad = json!({ "name": "e", "channels": ["a b"], "data": "x" });
    Call::post(&app, "/events", &bad)
        .header("Idempotency-Key", "k")
        .send(world)
        .await
        .assert(400, "");
    let good = json!({ "name": "e", "channels": ["pub"], "data": "x" });
    Call::post(&app, "/events", &good)
        .header("Idempotency-Key", "k")
        .send(world)
        .await
        .assert(200, "{}");
    client.expect("e").await;
}

#[tokio::test]
async fn repeats_at_the_same_time_are_delivered_once() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.subscribe("pub").await;
    let event = json!({ "name": "e", "channels": ["pub"], "data": "x" });
    let calls = (0..10).map(|_| {
        let call = Call::post(&app, "/events", &event).header("Idempotency-Key", "k");
        async move { call.send(world).await.status }
    });
    let statuses = futures_util::future::join_all(calls).await;
    assert!(
        statuses.iter().all(|status| [200, 409].contains(status)),
        "{statuses:?}"
    );
    client.expect("e").await;
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_key_is_forgotten_after_its_time() {
    let (world, app) = World::with_config("[idempotency]\nttl_s = 1");
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("pub").await;
    let event = json!({ "name": "e", "channels": ["pub"], "data": "x" });
    let start = Instant::now();
    let mut deliveries = 0;
    while deliveries < 2 {
        Call::post(&app, "/events", &event)
            .header("Idempotency-Key", "k")
            .send(&world)
            .await
            .assert(200, "{}");
        while client.next_within(Duration::from_millis(50)).await.is_some() {
            deliveries += 1;
        }
        assert!(start.elapsed() < DEADLINE, "never delivered again");
    }
    assert!(
        start.elapsed() > Duration::from_millis(900),
        "delivered again after {:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_key_that_cannot_be_kept_is_refused() {
    let (world, app) = shared();
    let event = json!({ "name": "e", "channels": ["pub"], "data": "x" });
    for key in [String::new(), "k".repeat(256), "k".repeat(5000)] {
        let answer = Call::post(&app, "/events", &event)
            .header("Idempotency-Key", &key)
            .send(world)
            .await;
        assert_eq!(answer.status, 400, "{} characters", key.len());
    }
}
