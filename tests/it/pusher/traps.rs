//! What a first implementation gets wrong, one test each, unless another file of this folder has it.

use crate::client::{Client, QUERY, refused};
use crate::request::{Call, exchange};
use crate::sign::{channel_auth, md5_hex};
use crate::websocket::{Seen, Socket};
use crate::world::{App, DEADLINE, World, shared, shared_counting};
use serde_json::json;

#[tokio::test]
async fn an_error_has_an_object_and_every_other_message_a_string_as_data() {
    // `Event::parse` insists on this for each message of every test; here the bytes themselves.
    let (world, app) = shared();
    let mut socket = Socket::open(world.address, &format!("/app/{}?{QUERY}", app.key)).await;
    let Seen::Frame(hello) = socket.next().await else {
        panic!("nothing came")
    };
    assert!(hello.text().contains(r#""data":"{"#), "{}", hello.text());
    socket.send_frame(&crate::websocket::Draft::text("{")).await;
    let Seen::Frame(error) = socket.next().await else {
        panic!("nothing came")
    };
    assert!(error.text().contains(r#""data":{"#), "{}", error.text());
}

#[tokio::test]
async fn the_key_of_an_empty_auth_on_a_public_channel_is_not_looked_at() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client
        .send_text(r#"{"event":"pusher:subscribe","data":{"auth":"","channel":"pub"}}"#)
        .await;
    client
        .expect_on("pub", "pusher_internal:subscription_succeeded")
        .await;
}

#[tokio::test]
async fn a_rate_limited_or_over_long_watcher_is_not_closed() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    let list: Vec<String> = (0..150).map(|number| number.to_string()).collect();
    client
        .ask_sign_in(&json!({ "id": "u", "watchlist": list }).to_string())
        .await;
    client.expect("pusher:signin_success").await;
    client.subscribe_past("private-a").await;
    for _ in 0..40 {
        client.trigger("private-a", "client-x", json!({})).await;
    }
    client.send(json!({ "event": "pusher:ping" })).await;
    while client.next().await.name != "pusher:pong" {}
}

#[tokio::test]
async fn an_unknown_key_is_refused_after_the_upgrade_and_not_by_http() {
    let (world, _) = shared();
    let (error, code, _) = refused(world, &format!("/app/unknown?{QUERY}")).await;
    error.assert_error(Some(4001), "");
    assert_eq!(code, 4001);
}

#[tokio::test]
async fn data_passes_through_byte_for_byte() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.subscribe("pub").await;
    let texts = [
        r#"{"b":1,"a":2.0,"n":1e3,"big":123456789012345678901234567890}"#,
        r#" { "spaced" : [ ] } "#,
        r#""quoted""#,
        "plain",
        "",
        "null",
        "\u{0}\u{1}\t\n\r\"\\/",
        "é 日本 👩‍👩‍👧‍👦 \u{2028}\u{2029}",
        r#"{"nonce":"AAAA","ciphertext":"//+=="}"#,
        "</script>",
        r"\u00e9",
    ];
    for text in texts {
        world.publish(&app, "pub", "e", text).await;
        assert_eq!(client.expect_on("pub", "e").await.text(), text);
    }
}

#[tokio::test]
async fn escapes_in_the_published_json_stay_the_same_text() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.subscribe("pub").await;
    let body =
        r#"{"name":"\u0065\/\ud83d\ude00","channels":["p\u0075b"],"data":"\u00e9\ud83d\ude00\/\u0000"}"#;
    Call::post_bytes(&app, "/events", body)
        .send(world)
        .await
        .assert(200, "{}");
    let event = client.expect_on("pub", "e/😀").await;
    assert_eq!(event.text(), "é😀/\u{0}");
}

#[tokio::test]
async fn body_md5_may_come_with_a_get_and_be_missing_without_a_body() {
    let (world, app) = shared();
    let empty = md5_hex(b"");
    assert_eq!(empty, "d41d8cd98f00b204e9800998ecf8427e");
    Call::get(&app, "/channels")
        .param("body_md5", &empty)
        .send(world)
        .await
        .assert(200, "channels");
    Call::get(&app, "/channels")
        .param("body_md5", &md5_hex(b"x"))
        .send(world)
        .await
        .assert(401, "");
    let bodiless = Call::post_bytes(&app, "/users/u/terminate_connections", "");
    bodiless.send(world).await.assert(200, "{}");
}

#[tokio::test]
async fn a_body_that_is_not_the_one_hashed_is_refused_although_the_signature_is_right() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.subscribe("pub").await;
    let mut call = Call::post(
        &app,
        "/events",
        &json!({ "name": "good", "channels": ["pub"], "data": "x" }),
    );
    call.body = json!({ "name": "evil", "channels": ["pub"], "data": "x" })
        .to_string()
        .into_bytes();
    call.send(world).await.assert(401, "body_md5");
    client.expect_quiet().await;
}

#[tokio::test]
async fn empty_maps_are_objects_and_ids_of_users_are_texts() {
    let (world, app) = shared();
    assert_eq!(
        world.get(&app, "/channels", &[]).await.text().trim(),
        r#"{"channels":{}}"#
    );
    let mut client = Client::connect(world, &app).await;
    client.join_as("presence-a", r#"{"user_id":42}"#).await;
    let users = world.get(&app, "/channels/presence-a/users", &[]).await;
    assert_eq!(users.text().trim(), r#"{"users":[{"id":"42"}]}"#);
}

#[tokio::test]
async fn users_are_counted_and_not_their_connections() {
    let (world, app) = shared_counting();
    let mut tabs = Vec::new();
    for _ in 0..3 {
        let mut tab = Client::connect(world, &app).await;
        tab.join("presence-a", "u").await;
        tabs.push(tab);
    }
    let info = [("info", "user_count,subscription_count")];
    let answer = world.get(&app, "/channels/presence-a", &info).await.json();
    assert_eq!(
        answer,
        json!({ "occupied": true, "user_count": 1, "subscription_count": 3 })
    );
}

#[tokio::test]
async fn no_live_event_overtakes_the_confirmation() {
    let (world, app) = shared();
    let publishing = async {
        for number in 0..200 {
            world.publish(&app, "pub", "live", &number.to_string()).await;
        }
    };
    let joining = async {
        for round in 0..40 {
            let mut client = Client::connect(world, &app).await;
            client.ask("pub", None).await;
            let first = client.next_within(DEADLINE).await;
            let first = first.unwrap_or_else(|| panic!("join {round} is not answered"));
            assert_eq!(
                first.name, "pusher_internal:subscription_succeeded",
                "{}",
                first.raw
            );
            let mut last = None;
            while let Some(event) = client.next_within(std::time::Duration::from_millis(20)).await {
                let number: i64 = event.text().parse().expect("a number");
                assert!(
                    last.is_none_or(|last| number == last + 1),
                    "a gap after {last:?}: {number}"
                );
                last = Some(number);
            }
        }
    };
    futures_util::future::join(publishing, joining).await;
}

#[tokio::test]
async fn user_channels_are_in_no_list() {
    let (world, app) = shared_counting();
    let mut client = Client::connect(world, &app).await;
    client.sign_in("u1").await;
    client.ask("#server-to-user-u1", None).await;
    client.expect("pusher_internal:subscription_succeeded").await;
    for query in [
        vec![],
        vec![("filter_by_prefix", "#")],
        vec![("filter_by_prefix", "#server-to-user-")],
    ] {
        assert_eq!(
            world.get(&app, "/channels", &query).await.json(),
            json!({ "channels": {} })
        );
    }
}

#[tokio::test]
async fn prefixes_count_only_at_the_start_and_with_their_hyphen() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    for public in [
        "privatea",
        "presencea",
        "cachea",
        "a-private-b",
        "a-presence-b",
        "Private-a",
        "PRESENCE-a",
    ] {
        client.ask_with_auth(public, "").await;
        client
            .expect_on(public, "pusher_internal:subscription_succeeded")
            .await;
    }
    for private in [
        "private--encrypted-x",
        "private-encryptedx",
        "private-presence-x",
        "private-cachex",
    ] {
        client.ask_with_auth(private, "").await;
        client.expect_refusal(private, Some(4009), "").await;
        client.subscribe(private).await;
    }
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_name_with_a_line_break_at_its_end_is_invalid_everywhere() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.ask("foo\n", None).await;
    client.expect_refusal("foo\n", None, "").await;
    let body = json!({ "name": "e", "channels": ["foo\n"], "data": "x" });
    Call::post(&app, "/events", &body)
        .send(world)
        .await
        .assert(400, "Invalid channel name");
    world.get(&app, "/channels/foo%0A", &[]).await.assert(400, "");
}

#[tokio::test]
async fn nobody_publishes_events_of_the_protocol_itself() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.subscribe("pub").await;
    for name in [
        "pusher:x",
        "pusher_internal:member_added",
        "pusher:error",
        "pusher",
        "pusher_internal:",
    ] {
        let body = json!({ "name": name, "channels": ["pub"], "data": "{}" });
        let answer = Call::post(&app, "/events", &body).send(world).await;
        answer.assert(400, "The 'pusher' namespace is reserved for internal usage");
        let batch = json!({ "batch": [{ "name": name, "channel": "pub", "data": "{}" }] });
        Call::post(&app, "/batch_events", &batch)
            .send(world)
            .await
            .assert(400, "");
    }
    client.expect_quiet().await;
}

#[tokio::test]
async fn an_excluded_socket_is_skipped_on_every_channel_of_the_request() {
    let (world, app) = shared();
    let mut excluded = Client::connect(world, &app).await;
    let mut other = Client::connect(world, &app).await;
    for channel in ["a", "b", "c"] {
        excluded.subscribe(channel).await;
        other.subscribe(channel).await;
    }
    let body = json!({ "name": "e", "channels": ["a", "b"], "data": "x", "socket_id": excluded.socket_id });
    Call::post(&app, "/events", &body)
        .send(world)
        .await
        .assert(200, "{}");
    other.expect_on("a", "e").await;
    other.expect_on("b", "e").await;
    world.publish(&app, "c", "marker", "x").await;
    excluded.expect_on("c", "marker").await;
}

#[tokio::test]
async fn an_app_id_need_not_be_a_number() {
    let app = App {
        id: "shop-1".to_owned(),
        ..App::new(1)
    };
    let world = World::with_app(&app);
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("pub").await;
    world.publish(&app, "pub", "e", "x").await;
    client.expect_on("pub", "e").await;
}

#[tokio::test]
async fn an_upgrade_to_h2c_is_an_ordinary_request() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.subscribe("pub").await;
    let headers = |call: Call| {
        call.header("Connection", "Upgrade, HTTP2-Settings")
            .header("Upgrade", "h2c")
            .header("HTTP2-Settings", "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA")
    };
    let get = headers(Call::get(&app, "/channels"));
    exchange(world.address, &get.bytes()).await.assert(200, "pub");
    let post = headers(Call::post(
        &app,
        "/events",
        &json!({ "name": "e", "channels": ["pub"], "data": "x" }),
    ));
    exchange(world.address, &post.bytes()).await.assert(200, "{}");
    client.expect_on("pub", "e").await;
    let health = "GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    exchange(world.address, health.as_bytes()).await.assert(200, "");
}

#[tokio::test]
async fn a_signature_for_one_socket_does_not_open_the_channel_for_another() {
    let (world, app) = shared();
    let first = Client::connect(world, &app).await;
    let mut second = Client::connect(world, &app).await;
    let auth = channel_auth(&app, &first.socket_id, "private-a", None);
    second.ask_with_auth("private-a", &auth).await;
    second
        .expect_refusal("private-a", None, "Invalid signature")
        .await;
}

impl Client {
    /// Subscribes while messages of other kinds are still on their way.
    async fn subscribe_past(&mut self, channel: &str) {
        self.ask(channel, None).await;
        while self.next().await.name != "pusher_internal:subscription_succeeded" {}
    }
}
