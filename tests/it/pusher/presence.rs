//! Presence counts users, not connections.

use crate::client::Client;
use crate::world::{App, World, shared};
use serde_json::json;

const ADDED: &str = "pusher_internal:member_added";
const REMOVED: &str = "pusher_internal:member_removed";

#[tokio::test]
async fn the_joiner_finds_itself_in_the_list() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    let presence = client
        .join_as("presence-a", r#"{"user_id":"10","user_info":{"name":"Mr. X"}}"#)
        .await;
    assert_eq!(
        presence,
        json!({ "count": 1, "ids": ["10"], "hash": { "10": { "name": "Mr. X" } } })
    );
    client.expect_quiet().await;
}

#[tokio::test]
async fn others_hear_of_a_new_user_and_the_newcomer_sees_all() {
    let (world, app) = shared();
    let mut first = Client::connect(world, &app).await;
    let mut second = Client::connect(world, &app).await;
    first.join("presence-a", "1").await;
    let mut presence = second
        .join_as("presence-a", r#"{"user_id":"2","user_info":{"b":1}}"#)
        .await;
    if let Some(ids) = presence["ids"].as_array_mut() {
        ids.sort_by_key(ToString::to_string);
    }
    assert_eq!(
        presence,
        json!({ "count": 2, "ids": ["1", "2"], "hash": { "1": { "name": "1" }, "2": { "b": 1 } } })
    );
    let added = first.expect_on("presence-a", ADDED).await;
    assert_eq!(added.json(), json!({ "user_id": "2", "user_info": { "b": 1 } }));
    first.expect_quiet().await;
    second.expect_quiet().await;
}

#[tokio::test]
async fn a_second_connection_of_a_user_is_the_same_member() {
    let (world, app) = shared();
    let mut watcher = Client::connect(world, &app).await;
    let mut tab = Client::connect(world, &app).await;
    let mut other_tab = Client::connect(world, &app).await;
    watcher.join("presence-a", "watcher").await;
    tab.join("presence-a", "u").await;
    watcher.expect_on("presence-a", ADDED).await;
    let presence = other_tab.join("presence-a", "u").await;
    assert_eq!(presence["count"], 2);
    watcher.expect_quiet().await;
    tab.expect_quiet().await;
    tab.unsubscribe("presence-a").await;
    tab.expect_quiet().await;
    watcher.expect_quiet().await;
    other_tab.unsubscribe("presence-a").await;
    let removed = watcher.expect_on("presence-a", REMOVED).await;
    assert_eq!(removed.text(), r#"{"user_id":"u"}"#);
    other_tab.expect_quiet().await;
}

#[tokio::test]
async fn a_member_is_removed_however_its_connection_ends() {
    let (world, app) = shared();
    let mut watcher = Client::connect(world, &app).await;
    watcher.join("presence-a", "watcher").await;
    for way in ["close", "fin", "protocol error"] {
        let mut member = Client::connect(world, &app).await;
        member.join("presence-a", way).await;
        watcher.expect_on("presence-a", ADDED).await;
        match way {
            "close" => member.leave().await,
            "fin" => member.socket.abandon(),
            _ => {
                member.socket.send(&[0xff; 14]).await;
                member.socket.closed().await;
            }
        }
        let removed = watcher.expect_on("presence-a", REMOVED).await;
        assert_eq!(removed.json(), json!({ "user_id": way }));
    }
}

#[tokio::test]
async fn the_info_of_the_first_connection_stays_until_the_user_leaves() {
    let (world, app) = shared();
    let mut first = Client::connect(world, &app).await;
    let mut second = Client::connect(world, &app).await;
    first
        .join_as("presence-a", r#"{"user_id":"u","user_info":{"n":1}}"#)
        .await;
    let presence = second
        .join_as("presence-a", r#"{"user_id":"u","user_info":{"n":2}}"#)
        .await;
    assert_eq!(presence["hash"]["u"], json!({ "n": 1 }));
}

#[tokio::test]
async fn a_numeric_user_id_becomes_text_everywhere() {
    let (world, app) = shared();
    let mut first = Client::connect(world, &app).await;
    let mut second = Client::connect(world, &app).await;
    first.join("presence-a", "first").await;
    let presence = second.join_as("presence-a", r#"{"user_id":7}"#).await;
    assert_eq!(presence["hash"]["7"], json!({}));
    assert!(presence["ids"].as_array().expect("a list").contains(&json!("7")));
    assert_eq!(
        first.expect(ADDED).await.json(),
        json!({ "user_id": "7", "user_info": {} })
    );
    let mut third = Client::connect(world, &app).await;
    let presence = third.join_as("presence-a", r#"{"user_id":"7"}"#).await;
    assert_eq!(presence["count"], 2, "7 and \"7\" are one user");
    let users = world.get(&app, "/channels/presence-a/users", &[]).await.json();
    assert!(
        users["users"]
            .as_array()
            .expect("a list")
            .contains(&json!({ "id": "7" })),
        "{users}"
    );
    second.leave().await;
    third.leave().await;
    assert_eq!(first.expect(REMOVED).await.json(), json!({ "user_id": "7" }));
}

#[tokio::test]
async fn a_missing_user_info_is_an_empty_object() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    let presence = client.join_as("presence-a", r#"{"user_id":"a"}"#).await;
    assert_eq!(presence, json!({ "count": 1, "ids": ["a"], "hash": { "a": {} } }));
}

#[tokio::test]
async fn channel_data_is_refused_unless_it_names_a_user() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    let long = format!(r#"{{"user_id":"{}"}}"#, "u".repeat(129));
    for data in [
        "",
        "{",
        "{}",
        "[]",
        "null",
        "7",
        "\"u\"",
        r#"{"user_id":null}"#,
        r#"{"user_id":""}"#,
        r#"{"user_id":true}"#,
        r#"{"user_id":[]}"#,
        r#"{"user_id":{}}"#,
        r#"{"user_info":{}}"#,
        r#"{"USER_ID":"a"}"#,
        &long,
    ] {
        client.ask("presence-a", Some(data)).await;
        client.expect_refusal("presence-a", None, "").await;
    }
    client.ask("presence-a", None).await;
    client.expect_refusal("presence-a", None, "").await;
    let presence = client.join("presence-a", &"u".repeat(128)).await;
    assert_eq!(presence["count"], 1);
}

#[tokio::test]
async fn user_info_must_be_an_object_of_at_most_1_kb() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    for info in ["1", "\"text\"", "[]", "true"] {
        client
            .ask(
                "presence-a",
                Some(&format!(r#"{{"user_id":"u","user_info":{info}}}"#)),
            )
            .await;
        let text =
            "user_info supplied to presence subscription is invalid - if supplied it must be a type of hash";
        client.expect_refusal("presence-a", None, text).await;
    }
    let info = |size: usize| {
        format!(
            r#"{{"user_id":"u","user_info":{{"x":"{}"}}}}"#,
            "y".repeat(size - 8)
        )
    };
    client.ask("presence-a", Some(&info(1025))).await;
    client.expect_refusal("presence-a", None, "").await;
    client.join_as("presence-a", &info(1024)).await;
}

#[tokio::test]
async fn a_full_channel_still_takes_further_connections_of_its_members() {
    let app = App::new(1).limit("presence_members = 2");
    let world = World::with_app(&app);
    let mut members = Vec::new();
    for user in ["1", "2", "1"] {
        let mut client = Client::connect(&world, &app).await;
        client.join("presence-a", user).await;
        members.push(client);
    }
    let mut late = Client::connect(&world, &app).await;
    late.ask("presence-a", Some(r#"{"user_id":"3"}"#)).await;
    let failure = late.expect_refusal("presence-a", None, "").await;
    assert_eq!(failure["type"], "LimitReached");
    late.join("presence-b", "3").await;
    members.remove(1).leave().await;
    members[0].expect(ADDED).await;
    members[0].expect(REMOVED).await;
    late.join("presence-a", "3").await;
}

#[tokio::test]
async fn a_hundred_users_fit_by_default_and_the_next_does_not() {
    let (world, app) = shared();
    let mut members = Vec::new();
    for number in 0..100 {
        let mut client = Client::connect(world, &app).await;
        client
            .join_as("presence-a", &format!(r#"{{"user_id":"{number}"}}"#))
            .await;
        members.push(client);
    }
    let mut late = Client::connect(world, &app).await;
    late.ask("presence-a", Some(r#"{"user_id":"100"}"#)).await;
    late.expect_refusal("presence-a", None, "").await;
    let presence = late.join_as("presence-a", r#"{"user_id":"99"}"#).await;
    assert_eq!(presence["count"], 100);
}

#[tokio::test]
async fn a_signed_in_connection_may_join_without_channel_data() {
    let (world, app) = shared();
    let mut watcher = Client::connect(world, &app).await;
    watcher.join("presence-a", "watcher").await;
    let mut client = Client::connect(world, &app).await;
    client
        .ask_sign_in(r#"{"id":"u1","user_info":{"name":"Ada"}}"#)
        .await;
    client.expect("pusher:signin_success").await;
    let event = client.subscribe("presence-a").await;
    assert_eq!(event.json()["presence"]["hash"]["u1"], json!({ "name": "Ada" }));
    assert_eq!(
        watcher.expect(ADDED).await.json(),
        json!({ "user_id": "u1", "user_info": { "name": "Ada" } })
    );
}

#[tokio::test]
async fn members_stay_exact_when_many_join_and_leave_at_once() {
    let (world, app) = shared();
    let mut watcher = Client::connect(world, &app).await;
    watcher.join("presence-a", "watcher").await;
    let rounds = (0..40).map(|number| {
        let app = &app;
        async move {
            let mut client = Client::connect(world, app).await;
            client
                .ask("presence-a", Some(&format!(r#"{{"user_id":"{}"}}"#, number % 20)))
                .await;
            loop {
                if client.next().await.name == "pusher_internal:subscription_succeeded" {
                    break client;
                }
            }
        }
    });
    let clients = futures_util::future::join_all(rounds).await;
    let answer = world
        .get(&app, "/channels/presence-a", &[("info", "user_count")])
        .await
        .json();
    assert_eq!(answer, json!({ "occupied": true, "user_count": 21 }));
    for client in clients {
        client.socket.abandon();
    }
    let mut present = std::collections::HashSet::new();
    let mut removed = 0;
    while removed < 20 {
        let event = watcher.next().await;
        let user = event.json()["user_id"].as_str().expect("a user").to_owned();
        match event.name.as_str() {
            ADDED => assert!(present.insert(user), "added twice"),
            REMOVED => {
                assert!(present.remove(&user), "removed twice");
                removed += 1;
            }
            other => panic!("{other}"),
        }
    }
    watcher.expect_quiet().await;
}
