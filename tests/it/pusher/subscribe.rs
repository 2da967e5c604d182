//! Subscribing and unsubscribing: the order of the checks, the texts, the two failure frames.

use crate::client::Client;
use crate::sign::{channel_auth, hmac_sha256_hex};
use crate::world::{App, World, shared};
use serde_json::json;

#[tokio::test]
async fn every_kind_but_presence_is_confirmed_with_an_empty_object_as_text() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    for channel in [
        "pub",
        "private-a",
        "private-encrypted-a",
        "privateer",
        "presence",
        "private",
        "a=b@c,d.e;f_g-h",
    ] {
        let event = client.subscribe(channel).await;
        assert_eq!(event.text(), "{}", "{channel}");
    }
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_name_of_200_characters_is_accepted_and_one_of_201_is_not() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.subscribe(&"x".repeat(200)).await;
    client.subscribe(&format!("private-{}", "y".repeat(192))).await;
    let long = "x".repeat(201);
    client.ask(&long, None).await;
    client.expect_refusal(&long, None, "").await;
    client.expect_quiet().await;
}

#[tokio::test]
async fn invalid_names_are_refused() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    for channel in [
        "",
        " ",
        "a b",
        "foo\n",
        "\nfoo",
        "foo\r\n",
        "a/b",
        "a:b",
        "a#b",
        "#",
        "#a",
        "a!b",
        "a*b",
        "a\u{e9}",
        "日本",
        "a\0b",
        "a%20b",
        "a\\b",
        "a\"b",
        "private-a b",
        "presence-#a",
        "a\tb",
        "a\u{feff}",
        "a+b",
        "a?b",
        "a&b",
        "<a>",
        "a'b",
        "$a",
    ] {
        client.ask(channel, None).await;
        client.expect_refusal(channel, None, "").await;
    }
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_missing_channel_is_named_in_the_error() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    for data in [
        json!({}),
        json!({ "auth": "" }),
        json!({ "channel": null }),
        json!({ "channel": 7 }),
        json!({ "channel": [] }),
    ] {
        client
            .send(json!({ "event": "pusher:subscribe", "data": data }))
            .await;
        client.expect_error(None, "Missing parameter: data.channel").await;
    }
    client.expect_quiet().await;
}

#[tokio::test]
async fn the_name_is_checked_before_the_signature() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.ask_with_auth("private-a b", "nonsense").await;
    let failure = client.expect_refusal("private-a b", None, "").await;
    assert!(!failure.to_string().contains("signature"), "{failure}");
}

#[tokio::test]
async fn a_second_subscription_is_an_error_even_with_a_bad_signature() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.subscribe("private-a").await;
    client.ask("private-a", None).await;
    client
        .expect_error(None, "Existing subscription to channel private-a")
        .await;
    skip_subscription_error(&mut client).await;
    client.ask_with_auth("private-a", "bad").await;
    client
        .expect_error(None, "Existing subscription to channel private-a")
        .await;
    skip_subscription_error(&mut client).await;
    world.publish(&app, "private-a", "once", "x").await;
    client.expect_on("private-a", "once").await;
    client.expect_quiet().await;
}

/// For a duplicate the reference asks for the first frame only; the second does no harm.
async fn skip_subscription_error(client: &mut Client) {
    client.send(json!({ "event": "pusher:ping" })).await;
    let event = client.next().await;
    if event.name == "pusher:subscription_error" {
        client.expect("pusher:pong").await;
    } else {
        assert_eq!(event.name, "pusher:pong");
    }
}

#[tokio::test]
async fn a_private_channel_without_auth_is_refused_with_4009() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    for channel in [
        "private-a",
        "private-encrypted-a",
        "private-cache-a",
        "private-encrypted-cache-a",
        "presence-a",
        "presence-cache-a",
    ] {
        client
            .send(json!({ "event": "pusher:subscribe", "data": { "channel": channel } }))
            .await;
        client.expect_refusal(channel, Some(4009), "").await;
        client.ask_with_auth(channel, "").await;
        client.expect_refusal(channel, Some(4009), "").await;
    }
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_foreign_key_is_named_in_the_error() {
    let (world, app) = shared();
    let (_, other) = shared();
    let mut client = Client::connect(world, &app).await;
    let auth = channel_auth(&other, &client.socket_id, "private-a", None);
    client.ask_with_auth("private-a", &auth).await;
    let text = format!("Invalid key in subscription auth data: '{}'", other.key);
    let failure = client.expect_refusal("private-a", None, &text).await;
    assert_eq!(
        (failure["type"].as_str(), failure["status"].as_u64()),
        (Some("AuthError"), Some(401))
    );
}

#[tokio::test]
async fn a_wrong_signature_is_answered_with_both_frames_and_never_with_the_right_one() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    let id = client.socket_id.clone();
    let right = channel_auth(&app, &id, "private-a", None);
    let right = right.split(':').nth(1).expect("auth is key:signature").to_owned();
    let zeros = "0".repeat(64);
    let foreign = hmac_sha256_hex("another secret", format!("{id}:private-a").as_bytes());
    let other_socket = hmac_sha256_hex(&app.secret, b"1.1:private-a");
    let other_channel = hmac_sha256_hex(&app.secret, format!("{id}:private-b").as_bytes());
    let user = hmac_sha256_hex(&app.secret, format!("{id}::user::private-a").as_bytes());
    let upper = right.to_uppercase();
    let (short, long) = (&right[..63], format!("{right}0"));
    for signature in [
        "abc",
        &zeros,
        &foreign,
        &other_socket,
        &other_channel,
        &user,
        &upper,
        short,
        &long,
        "é",
        " ",
    ] {
        client
            .ask_with_auth("private-a", &format!("{}:{signature}", app.key))
            .await;
        let text = format!(
            "Invalid signature: Expected HMAC SHA256 hex digest of {id}:private-a, but got {signature}"
        );
        let error = client.expect_error(None, &text).await;
        let failure = client.expect_on("private-a", "pusher:subscription_error").await;
        assert_eq!(failure.json()["type"], "AuthError");
        assert_eq!(failure.json()["status"], 401);
        if signature != long {
            assert!(
                !error.raw.contains(&right) && !failure.raw.contains(&right),
                "the digest leaks"
            );
        }
    }
    world.publish(&app, "private-a", "secret", "x").await;
    client.expect_quiet().await;
    client.subscribe("private-a").await;
}

#[tokio::test]
async fn auth_is_split_at_the_first_colon() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client
        .ask_with_auth("private-a", &format!("{}:x:y", app.key))
        .await;
    client.expect_refusal("private-a", None, "but got x:y").await;
    client.ask_with_auth("private-a", "no-colon").await;
    client.expect_refusal("private-a", Some(4009), "").await;
    client.ask_with_auth("private-a", ":").await;
    client
        .expect_refusal("private-a", None, "Invalid key in subscription auth data: ''")
        .await;
}

#[tokio::test]
async fn channel_data_of_a_private_channel_is_part_of_what_is_signed() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    let data = r#"{"any":"text"}"#;
    let plain = channel_auth(&app, &client.socket_id, "private-a", None);
    let unsigned = json!({ "channel": "private-a", "auth": plain, "channel_data": data });
    client
        .send(json!({ "event": "pusher:subscribe", "data": unsigned }))
        .await;
    client
        .expect_refusal("private-a", None, &format!("private-a:{data}, but got"))
        .await;
    client.ask("private-a", Some(data)).await;
    client
        .expect_on("private-a", "pusher_internal:subscription_succeeded")
        .await;
}

#[tokio::test]
async fn a_public_channel_does_not_look_at_auth() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.ask_with_auth("a", "").await;
    client
        .expect_on("a", "pusher_internal:subscription_succeeded")
        .await;
    client.ask_with_auth("b", "whatever").await;
    client
        .expect_on("b", "pusher_internal:subscription_succeeded")
        .await;
    client
        .send(json!({ "event": "pusher:subscribe", "data": { "channel": "c" } }))
        .await;
    client
        .expect_on("c", "pusher_internal:subscription_succeeded")
        .await;
    client
        .send(json!({ "event": "pusher:subscribe", "data": { "channel": "d", "auth": null } }))
        .await;
    client
        .expect_on("d", "pusher_internal:subscription_succeeded")
        .await;
}

#[tokio::test]
async fn an_unsubscribed_channel_is_silent_at_once_and_can_be_joined_again() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.subscribe("pub").await;
    client.subscribe("marker").await;
    client.unsubscribe("pub").await;
    client.expect_quiet().await;
    world.publish(&app, "pub", "unheard", "x").await;
    world.publish(&app, "marker", "heard", "x").await;
    client.expect_on("marker", "heard").await;
    client.subscribe("pub").await;
    world.publish(&app, "pub", "heard", "x").await;
    client.expect_on("pub", "heard").await;
}

#[tokio::test]
async fn a_later_subscription_needs_its_signature_again() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.subscribe("private-a").await;
    client.unsubscribe("private-a").await;
    client.ask_with_auth("private-a", "").await;
    client.expect_refusal("private-a", Some(4009), "").await;
}

#[tokio::test]
async fn unsubscribing_from_nothing_is_an_error() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.unsubscribe("pub").await;
    client
        .expect_error(
            None,
            "No current subscription to channel pub, or subscription in progress",
        )
        .await;
    for data in [json!({}), json!({ "channel": 1 }), json!(null)] {
        client
            .send(json!({ "event": "pusher:unsubscribe", "data": data }))
            .await;
        client.expect_error(None, "").await;
    }
    client.expect_quiet().await;
}

#[tokio::test]
async fn subscriptions_of_one_connection_are_limited() {
    let app = App::new(1).limit("subscriptions_per_connection = 3");
    let world = World::with_app(&app);
    let mut client = Client::connect(&world, &app).await;
    for channel in ["a", "b", "c"] {
        client.subscribe(channel).await;
    }
    client.ask("d", None).await;
    let failure = client.expect_refusal("d", None, "").await;
    assert_eq!(failure["type"], "LimitReached");
    client.unsubscribe("a").await;
    client.subscribe("d").await;
    Client::connect(&world, &app).await.subscribe("e").await;
}

#[tokio::test]
async fn a_refused_subscription_leaves_the_channel_unoccupied() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client
        .ask_with_auth("private-a", &format!("{}:bad", app.key))
        .await;
    client.expect_refusal("private-a", None, "").await;
    assert_eq!(
        world.get(&app, "/channels", &[]).await.json(),
        json!({ "channels": {} })
    );
}
