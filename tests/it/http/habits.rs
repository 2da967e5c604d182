//! How each official server library writes its requests.

use crate::client::Client;
use crate::request::{Call, Encoding, Http, exchange};
use crate::sign::md5_hex;
use crate::world::shared_counting;
use serde_json::json;

#[tokio::test]
async fn go_sends_raw_commas_and_a_content_type_on_get() {
    let (world, app) = shared_counting();
    let call = Call::get(&app, "/channels/presence-a")
        .param("info", "user_count,subscription_count")
        .header("X-Pusher-Library", "pusher-http-go 5.1.1")
        .encoded(Encoding::Raw);
    let bytes = String::from_utf8(call.bytes()).expect("ASCII");
    assert!(bytes.contains("info=user_count,subscription_count"), "{bytes}");
    assert!(bytes.contains("Content-Type: application/json"), "{bytes}");
    assert_eq!(
        call.send(world).await.json(),
        json!({ "occupied": false, "user_count": 0, "subscription_count": 0 })
    );
}

#[tokio::test]
async fn node_sends_its_query_raw() {
    let (world, app) = shared_counting();
    let call = Call::get(&app, "/channels")
        .param("filter_by_prefix", "presence-")
        .encoded(Encoding::Raw);
    call.send(world).await.assert(200, r#"{"channels":{}}"#);
    Call::get(&app, "/channels/a@b;c")
        .encoded(Encoding::Raw)
        .send(world)
        .await
        .assert(200, "occupied");
}

#[tokio::test]
async fn python_sends_body_md5_on_get_and_json_with_spaces() {
    let (world, app) = shared_counting();
    let call = Call::get(&app, "/channels").param("body_md5", &md5_hex(b""));
    assert_eq!(call.send(world).await.json(), json!({ "channels": {} }));
    let body = r#"{"name": "e", "channels": ["pub"], "data": "{\"a\": 1}"}"#;
    assert_eq!(
        Call::post_bytes(&app, "/events", body).send(world).await.json(),
        json!({})
    );
}

#[tokio::test]
async fn python_ends_connections_on_a_path_without_the_app() {
    let (world, app) = shared_counting();
    let mut client = Client::connect(world, &app).await;
    client.sign_in("u").await;
    let call = Call {
        path: "/users/u/terminate_connections".to_owned(),
        ..Call::post(&app, "", &json!({}))
    };
    call.send(world).await.assert(200, "{}");
    assert_eq!(client.closed().await.0, 4009);
}

#[tokio::test]
async fn ruby_percent_encodes_its_query_and_repeats_array_parameters() {
    let (world, app) = shared_counting();
    let call = Call::get(&app, "/channels")
        .param("info", "subscription_count")
        .param("filter_by_prefix", "a@b");
    call.encoded(Encoding::Percent)
        .send(world)
        .await
        .assert(200, "channels");
}

#[tokio::test]
async fn php_sends_an_empty_object_to_end_connections() {
    let (world, app) = shared_counting();
    let call = Call::post_bytes(&app, "/users/u/terminate_connections", "{}");
    assert_eq!(call.send(world).await.json(), json!({}));
}

#[tokio::test]
async fn java_encodes_a_space_as_a_plus_sign() {
    let (world, app) = shared_counting();
    Call::get(&app, "/channels")
        .param("x", "a b")
        .encoded(Encoding::Form)
        .send(world)
        .await
        .assert(200, "channels");
}

#[tokio::test]
async fn a_missing_or_other_content_type_is_fine_when_the_body_is_json() {
    let (world, app) = shared_counting();
    for content_type in [
        None,
        Some("text/plain"),
        Some("application/json; charset=utf-8"),
        Some("application/x-www-form-urlencoded"),
    ] {
        let mut call = Call::post(
            &app,
            "/events",
            &json!({ "name": "e", "channels": ["pub"], "data": "x" }),
        );
        call.headers.clear();
        if let Some(value) = content_type {
            call = call.header("Content-Type", value);
        }
        call.send(world).await.assert(200, "{}");
    }
}

#[tokio::test]
async fn parameters_of_an_event_may_come_in_the_query() {
    let (world, app) = shared_counting();
    let mut client = Client::connect(world, &app).await;
    client.join("presence-a", "u").await;
    let call = Call::post_bytes(&app, "/events", "")
        .param("name", "e")
        .also("channels[]", "presence-a")
        .also("channels[]", "pub")
        .param("data", "x");
    call.send(world).await.assert(200, "{}");
    client.expect_on("presence-a", "e").await;
}

#[tokio::test]
async fn a_chunked_body_is_read() {
    let (world, app) = shared_counting();
    let mut client = Client::connect(world, &app).await;
    client.join("presence-a", "u").await;
    let body = json!({ "name": "e", "channels": ["presence-a"], "data": "x" });
    let mut call = Call::post(&app, "/events", &body).header("Transfer-Encoding", "chunked");
    let plain = std::mem::take(&mut call.body);
    let mut bytes = call.bytes();
    for chunk in plain.chunks(7) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    exchange(world.address, &bytes).await.assert(200, "{}");
    client.expect_on("presence-a", "e").await;
}

#[tokio::test]
async fn many_requests_share_one_connection() {
    let (world, app) = shared_counting();
    let mut http = Http::open(world.address).await;
    for number in 0..100 {
        let call = match number % 5 {
            0 => Call::get(&app, "/channels"),
            1 => Call::post(
                &app,
                "/events",
                &json!({ "name": "e", "channels": ["pub"], "data": "x" }),
            ),
            2 => Call::post(&app, "/events", &json!({})),
            3 => Call::get(&app, "/nothing"),
            _ => Call::get(&app, "/channels").param("auth_version", "9"),
        };
        http.send(&call.bytes()).await;
        let answer = http
            .answer()
            .await
            .unwrap_or_else(|| panic!("request {number} was not answered"));
        assert_eq!(
            answer.status,
            [200, 200, 400, 404, 401][number % 5],
            "{}",
            answer.text()
        );
        assert_ne!(answer.header("connection"), Some("close"), "request {number}");
    }
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order() {
    let (world, app) = shared_counting();
    let mut http = Http::open(world.address).await;
    let calls = [
        Call::get(&app, "/channels/first"),
        Call::post(
            &app,
            "/events",
            &json!({ "name": "e", "channels": ["pub"], "data": "x" }),
        ),
        Call::post(&app, "/events", &json!({})),
        Call::get(&app, "/channels"),
    ];
    let bytes: Vec<u8> = calls.iter().flat_map(Call::bytes).collect();
    http.send(&bytes).await;
    for (status, text) in [(200, "occupied"), (200, "{}"), (400, "name"), (200, "channels")] {
        http.answer().await.expect("an answer").assert(status, text);
    }
}

#[tokio::test]
async fn an_http_1_0_request_is_answered_and_the_connection_ends() {
    let (world, app) = shared_counting();
    let bytes = Call::get(&app, "/channels").bytes();
    let bytes = String::from_utf8(bytes)
        .expect("ASCII")
        .replace("HTTP/1.1", "HTTP/1.0");
    let mut http = Http::open(world.address).await;
    http.send(bytes.as_bytes()).await;
    http.answer().await.expect("an answer").assert(200, "channels");
    assert!(http.ends_within(crate::world::DEADLINE).await);
}
