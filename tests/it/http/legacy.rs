//! What the first libraries called.

use crate::client::Client;
use crate::request::Call;
use crate::world::shared;
use serde_json::json;

#[tokio::test]
async fn an_event_of_the_first_libraries_is_its_body() {
    let (world, app) = shared();
    let (mut one, mut other) = (
        Client::connect(world, &app).await,
        Client::connect(world, &app).await,
    );
    one.subscribe("pub").await;
    other.subscribe("pub").await;
    let answer = Call::post_bytes(&app, "/channels/pub/events", "not \"JSON\"")
        .param("name", "old")
        .param("socket_id", &other.socket_id)
        .send(world)
        .await;
    assert_eq!((answer.status, answer.text().as_str()), (202, "202 ACCEPTED\n"));
    assert_eq!(one.expect_on("pub", "old").await.data, json!("not \"JSON\""));
    other.expect_quiet().await;
    for (call, text) in [
        (Call::post_bytes(&app, "/channels/pub/events", "x"), "name"),
        (
            Call::post_bytes(&app, "/channels/pub/events", "x").param("name", "pusher:x"),
            "reserved",
        ),
        (
            Call::post_bytes(&app, "/channels/pub/events", [0xff]).param("name", "e"),
            "UTF-8",
        ),
        (
            Call::post_bytes(&app, "/channels/a!b/events", "x").param("name", "e"),
            "channel name",
        ),
    ] {
        call.send(world).await.assert(400, text);
    }
}

#[tokio::test]
async fn the_stats_of_the_first_libraries_are_counts() {
    let (world, app) = shared();
    let (mut one, mut two) = (
        Client::connect(world, &app).await,
        Client::connect(world, &app).await,
    );
    one.join("presence-a", "u").await;
    two.join("presence-a", "u").await;
    let stats = async |channel: &str| {
        Call::get(&app, &format!("/channels/{channel}/stats"))
            .send(world)
            .await
            .json()
    };
    assert_eq!(
        stats("presence-a").await,
        json!({ "occupied": true, "user_count": 1, "connection_count": 2 })
    );
    assert_eq!(
        stats("pub").await,
        json!({ "occupied": false, "connection_count": 0 })
    );
}
