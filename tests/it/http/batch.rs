//! Several events in one request.

use crate::client::Client;
use crate::request::Call;
use crate::world::{shared, shared_counting};
use serde_json::json;

#[tokio::test]
async fn each_event_goes_to_its_channel_in_order() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.subscribe("a").await;
    client.subscribe("b").await;
    let event = |name: &str, channel: &str| json!({ "name": name, "channel": channel, "data": name });
    let batch: Vec<_> = (0..10)
        .map(|n| event(&format!("e{n}"), if n % 2 == 0 { "a" } else { "b" }))
        .collect();
    let answer = Call::post(&app, "/batch_events", &json!({ "batch": batch }))
        .send(world)
        .await;
    assert_eq!((answer.status, answer.text().trim()), (200, "{}"));
    let mut heard = [Vec::new(), Vec::new()];
    for _ in 0..10 {
        let event = client.next().await;
        let channel = usize::from(event.channel.as_deref() == Some("b"));
        heard[channel].push(event.name);
    }
    assert_eq!(heard[0], ["e0", "e2", "e4", "e6", "e8"]);
    assert_eq!(heard[1], ["e1", "e3", "e5", "e7", "e9"]);
}

#[tokio::test]
async fn info_is_answered_index_for_index() {
    let (world, app) = shared_counting();
    let mut client = Client::connect(world, &app).await;
    client.join("presence-a", "u").await;
    let batch = json!({ "batch": [
        { "name": "e", "channel": "pub", "data": "x", "info": "subscription_count" },
        { "name": "e", "channel": "pub", "data": "x" },
        { "name": "e", "channel": "presence-a", "data": "x", "info": "user_count,subscription_count" },
        { "name": "e", "channel": "presence-b", "data": "x", "info": "user_count" },
    ] });
    let answer = Call::post(&app, "/batch_events", &batch).send(world).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({ "batch": [
            { "subscription_count": 0 }, {}, { "user_count": 1, "subscription_count": 1 }, { "user_count": 0 },
        ] })
    );
}

#[tokio::test]
async fn each_event_has_its_own_excluded_socket() {
    let (world, app) = shared();
    let mut one = Client::connect(world, &app).await;
    let mut two = Client::connect(world, &app).await;
    one.subscribe("pub").await;
    two.subscribe("pub").await;
    let batch = json!({ "batch": [
        { "name": "for-two", "channel": "pub", "data": "x", "socket_id": one.socket_id },
        { "name": "for-one", "channel": "pub", "data": "x", "socket_id": two.socket_id },
        { "name": "for-all", "channel": "pub", "data": "x" },
    ] });
    Call::post(&app, "/batch_events", &batch)
        .send(world)
        .await
        .assert(200, "{}");
    one.expect("for-one").await;
    one.expect("for-all").await;
    two.expect("for-two").await;
    two.expect("for-all").await;
}

#[tokio::test]
async fn different_encrypted_channels_may_share_a_batch() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.subscribe("private-encrypted-a").await;
    let event = |channel: &str| json!({ "name": "e", "channel": channel, "data": "{\"nonce\":\"\",\"ciphertext\":\"\"}" });
    let batch =
        json!({ "batch": [event("private-encrypted-a"), event("private-encrypted-b"), event("pub")] });
    Call::post(&app, "/batch_events", &batch)
        .send(world)
        .await
        .assert(200, "{}");
    client.expect_on("private-encrypted-a", "e").await;
}
