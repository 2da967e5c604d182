//! Reading state: channels, one channel, its users.

use crate::client::Client;
use crate::world::{shared, shared_counting};
use serde_json::json;

#[tokio::test]
async fn only_occupied_channels_are_listed_and_only_what_was_asked_is_told() {
    let (world, app) = shared_counting();
    let mut client = Client::connect(world, &app).await;
    client.ask("a", None).await;
    client.expect("pusher_internal:subscription_succeeded").await;
    client.expect("pusher_internal:subscription_count").await;
    client.join("presence-b", "u").await;
    world.publish(&app, "unoccupied", "e", "x").await;
    let list = async |query: &[(&str, &str)]| world.get(&app, "/channels", query).await.json();
    assert_eq!(
        list(&[]).await,
        json!({ "channels": { "a": {}, "presence-b": {} } })
    );
    assert_eq!(
        list(&[("filter_by_prefix", "presence-")]).await,
        json!({ "channels": { "presence-b": {} } })
    );
    assert_eq!(
        list(&[("filter_by_prefix", "nothing")]).await,
        json!({ "channels": {} })
    );
    assert_eq!(
        list(&[("filter_by_prefix", "")]).await,
        json!({ "channels": { "a": {}, "presence-b": {} } })
    );
    assert_eq!(
        list(&[("filter_by_prefix", "presence-"), ("info", "user_count")]).await,
        json!({ "channels": { "presence-b": { "user_count": 1 } } })
    );
    assert_eq!(
        list(&[
            ("filter_by_prefix", "presence-b"),
            ("info", "user_count,subscription_count")
        ])
        .await,
        json!({ "channels": { "presence-b": { "user_count": 1, "subscription_count": 1 } } })
    );
    assert_eq!(
        list(&[("info", "subscription_count")]).await,
        json!({ "channels": { "a": { "subscription_count": 1 }, "presence-b": { "subscription_count": 1 } } })
    );
    client.leave().await;
    crate::world::eventually("the channels are empty", || async {
        (list(&[]).await == json!({ "channels": {} })).then_some(())
    })
    .await;
}

#[tokio::test]
async fn user_count_without_a_presence_prefix_is_400() {
    let (world, app) = shared();
    for query in [
        vec![("info", "user_count")],
        vec![("info", "user_count"), ("filter_by_prefix", "private-")],
        vec![("info", "user_count"), ("filter_by_prefix", "presence")],
        vec![("info", "user_count"), ("filter_by_prefix", "a-presence-")],
    ] {
        world
            .get(&app, "/channels", &query)
            .await
            .assert(400, "user_count");
    }
    for info in ["x", "user_count,x", "occupied", "USER_COUNT"] {
        let query = [("info", info), ("filter_by_prefix", "presence-")];
        world
            .get(&app, "/channels", &query)
            .await
            .assert(400, "info should be a comma separated list of attributes");
    }
    let query = [("info", "cache"), ("filter_by_prefix", "cache-")];
    world.get(&app, "/channels", &query).await.assert(400, "");
}

#[tokio::test]
async fn one_channel_is_answered_whether_or_not_anybody_is_there() {
    let (world, app) = shared_counting();
    let get = async |channel: &str, info: &str| {
        let query = if info.is_empty() {
            vec![]
        } else {
            vec![("info", info)]
        };
        world.get(&app, &format!("/channels/{channel}"), &query).await
    };
    assert_eq!(get("a", "").await.json(), json!({ "occupied": false }));
    assert_eq!(
        get("a", "subscription_count").await.json(),
        json!({ "occupied": false, "subscription_count": 0 })
    );
    assert_eq!(
        get("presence-a", "user_count,subscription_count").await.json(),
        json!({ "occupied": false, "user_count": 0, "subscription_count": 0 })
    );
    let mut client = Client::connect(world, &app).await;
    client.join("presence-a", "u").await;
    assert_eq!(get("presence-a", "").await.json(), json!({ "occupied": true }));
    assert_eq!(
        get("presence-a", "user_count").await.json(),
        json!({ "occupied": true, "user_count": 1 })
    );
}

#[tokio::test]
async fn an_attribute_that_does_not_apply_is_400() {
    let (world, app) = shared_counting();
    for (channel, info) in [
        ("a", "user_count"),
        ("private-a", "user_count"),
        ("a", "cache"),
        ("presence-a", "cache"),
        ("a", "nonsense"),
        ("a", "subscription_count,nonsense"),
    ] {
        let answer = world
            .get(&app, &format!("/channels/{channel}"), &[("info", info)])
            .await;
        assert_eq!(answer.status, 400, "{channel} {info}: {}", answer.text());
    }
    let (world, app) = shared();
    let answer = world
        .get(&app, "/channels/a", &[("info", "subscription_count")])
        .await;
    assert_eq!(answer.status, 400, "the flag is off: {}", answer.text());
}

#[tokio::test]
async fn an_invalid_name_in_the_path_is_400() {
    let (world, app) = shared();
    let long = "x".repeat(201);
    for name in [
        "a%20b",
        "a%0A",
        "%C3%A9",
        "a%00",
        "%23server",
        "a%2Fb",
        "a%FF",
        &long,
    ] {
        let answer = world.get(&app, &format!("/channels/{name}"), &[]).await;
        assert!(
            [400, 404].contains(&answer.status),
            "{name}: {} {}",
            answer.status,
            answer.text()
        );
        if !name.contains("%2F") {
            assert_eq!(answer.status, 400, "{name}");
        }
    }
}

#[tokio::test]
async fn a_percent_encoded_name_is_the_same_channel() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.join("presence-a@b;c,d=e", "u").await;
    for name in [
        "presence-a@b;c,d=e",
        "presence-a%40b%3Bc%2Cd%3De",
        "presence%2Da%40b;c,d%3de",
    ] {
        let answer = world
            .get(&app, &format!("/channels/{name}"), &[("info", "user_count")])
            .await;
        assert_eq!(
            answer.json(),
            json!({ "occupied": true, "user_count": 1 }),
            "{name}"
        );
        let users = world.get(&app, &format!("/channels/{name}/users"), &[]).await;
        assert_eq!(users.json(), json!({ "users": [{ "id": "u" }] }), "{name}");
    }
}

#[tokio::test]
async fn users_are_listed_once_each_and_only_for_presence_channels() {
    let (world, app) = shared();
    assert_eq!(
        world.get(&app, "/channels/presence-a/users", &[]).await.json(),
        json!({ "users": [] })
    );
    let mut clients = Vec::new();
    for user in ["1", "2", "2"] {
        let mut client = Client::connect(world, &app).await;
        client.join("presence-a", user).await;
        clients.push(client);
    }
    let mut users = world.get(&app, "/channels/presence-a/users", &[]).await.json();
    users["users"]
        .as_array_mut()
        .expect("a list")
        .sort_by_key(ToString::to_string);
    assert_eq!(users, json!({ "users": [{ "id": "1" }, { "id": "2" }] }));
    for channel in ["a", "private-a", "presence", "cache-a"] {
        let answer = world.get(&app, &format!("/channels/{channel}/users"), &[]).await;
        assert_eq!(answer.status, 400, "{channel}: {}", answer.text());
    }
}
