//! Who is let in, and with which code the others are sent away.

use crate::client::{Client, QUERY, refused};
use crate::request::Call;
use crate::websocket::{Seen, Socket, handshake};
use crate::world::{App, World, eventually, shared};

#[track_caller]
fn assert_socket_id(id: &str) {
    let parts: Vec<&str> = id.split('.').collect();
    let digits = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    assert!(parts.len() == 2 && parts.iter().all(digits), "{id}");
}

#[tokio::test]
async fn the_first_message_names_the_socket_and_the_activity_timeout() {
    let (world, app) = shared();
    let mut socket = Socket::open(world.address, &format!("/app/{}?{QUERY}", app.key)).await;
    let Seen::Frame(frame) = socket.next().await else {
        panic!("nothing came")
    };
    let hello: serde_json::Value = serde_json::from_str(&frame.text()).expect("JSON");
    assert_eq!(hello["event"], "pusher:connection_established");
    let data = hello["data"].as_str().expect("data is a string");
    let data: serde_json::Value = serde_json::from_str(data).expect("the string holds JSON");
    assert_eq!(data["activity_timeout"], 120);
    assert_socket_id(data["socket_id"].as_str().expect("socket_id is a string"));
}

#[tokio::test]
async fn socket_ids_are_unique_and_do_not_count_up() {
    let (world, app) = shared();
    let mut ids = Vec::new();
    for _ in 0..30 {
        let client = Client::connect(world, &app).await;
        assert_socket_id(&client.socket_id);
        ids.push(client.socket_id);
    }
    let numbers: Vec<f64> = ids
        .iter()
        .map(|id| id.replace('.', "").parse().expect("digits"))
        .collect();
    let ascending = numbers.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!(
        (3..27).contains(&ascending),
        "ids can be guessed from each other: {ids:?}"
    );
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 30);
}

#[tokio::test]
async fn protocols_5_6_and_7_are_spoken() {
    let (world, app) = shared();
    for query in [
        "protocol=5&client=java-client&version=2.4.4",
        "protocol=6&client=Pysher&version=1.0.8",
        "protocol=7&client=js&version=8.6.0&flash=false",
        "client=js&version=8.6.0&protocol=7",
        "protocol=7",
        "protocol=7&unknown=1&empty=&bare",
    ] {
        let mut client = Client::connect_with(world, &app, query).await;
        client.subscribe("any").await;
    }
}

#[tokio::test]
async fn other_protocols_are_refused_with_4007() {
    let (world, app) = shared();
    for protocol in [
        "8",
        "3",
        "2",
        "1",
        "0",
        "-1",
        "7.0",
        "seven",
        "",
        "77",
        "99999999999999999999",
        "0x7",
        "7a",
    ] {
        let (error, code, _) = refused(
            world,
            &format!("/app/{}?protocol={protocol}&client=js&version=8.6.0", app.key),
        )
        .await;
        error.assert_error(Some(4007), "Unsupported protocol version");
        assert_eq!(code, 4007, "protocol={protocol}");
    }
}

#[tokio::test]
async fn a_missing_protocol_is_refused_with_4008() {
    let (world, app) = shared();
    for query in ["", "?", "?client=js&version=8.6.0"] {
        let (error, code, _) = refused(world, &format!("/app/{}{query}", app.key)).await;
        error.assert_error(Some(4008), "No protocol version supplied");
        assert_eq!(code, 4008, "{query}");
    }
}

#[tokio::test]
async fn an_unknown_key_is_refused_with_4001_after_the_upgrade() {
    let (world, app) = shared();
    for key in [
        "nobody",
        &app.secret,
        &app.id,
        &app.key.to_uppercase(),
        &app.key[1..],
        "%00",
        "a%20b",
    ] {
        let (error, code, reason) = refused(world, &format!("/app/{key}?{QUERY}")).await;
        error.assert_error(Some(4001), "not in this cluster");
        assert_eq!(code, 4001, "{key}");
        assert!(!reason.is_empty());
    }
}

#[tokio::test]
async fn an_unknown_key_is_named_in_the_text_of_the_hosted_service() {
    let (world, _) = shared();
    let (error, ..) = refused(world, &format!("/app/nobody?{QUERY}")).await;
    error.assert_error(
        Some(4001),
        "App key nobody not in this cluster. Did you forget to specify the cluster?",
    );
}

#[tokio::test]
async fn a_disabled_app_is_refused_with_4003() {
    let app = App::new(1).with("enabled = false");
    let world = World::with_app(&app);
    let (error, code, _) = refused(&world, &format!("/app/{}?{QUERY}", app.key)).await;
    error.assert_error(Some(4003), "Application disabled");
    assert_eq!(code, 4003);
}

#[tokio::test]
async fn a_connection_over_the_quota_is_refused_with_4004_until_one_leaves() {
    let app = App::new(1).limit("connections = 2");
    let world = World::with_app(&app);
    let path = format!("/app/{}?{QUERY}", app.key);
    let mut first = Client::connect(&world, &app).await;
    let second = Client::connect(&world, &app).await;
    let (error, code, _) = refused(&world, &path).await;
    error.assert_error(Some(4004), "quota");
    assert_eq!(code, 4004);
    first.expect_quiet().await;
    second.leave().await;
    eventually("a place is free again", || async {
        let mut socket = Socket::open(world.address, &path).await;
        let Seen::Frame(frame) = socket.next().await else {
            panic!("nothing came")
        };
        frame.text().contains("connection_established").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_path_that_is_no_app_is_refused_with_4005() {
    let (world, app) = shared();
    for path in [
        "/app/",
        "/app",
        "/foo",
        "/",
        "/apps",
        &format!("/app/{}/extra", app.key),
        &format!("/APP/{}", app.key),
    ] {
        let (error, code, _) = refused(world, &format!("{path}?{QUERY}")).await;
        error.assert_error(Some(4005), "Path not found");
        assert_eq!(code, 4005, "{path}");
    }
}

#[tokio::test]
async fn a_trailing_slash_is_ignored() {
    let (world, app) = shared();
    let mut socket = Socket::open(world.address, &format!("/app/{}/?{QUERY}", app.key)).await;
    let Seen::Frame(frame) = socket.next().await else {
        panic!("nothing came")
    };
    assert!(
        frame.text().contains("connection_established"),
        "{}",
        frame.text()
    );
}

#[tokio::test]
async fn an_app_that_is_for_tls_only_refuses_plain_sockets_with_4000() {
    let app = App::new(1).with("tls_only = true");
    let world = World::with_app(&app);
    let (error, code, _) = refused(&world, &format!("/app/{}?{QUERY}", app.key)).await;
    error.assert_error(
        Some(4000),
        "Application only accepts SSL connections, reconnect using wss://",
    );
    assert_eq!(code, 4000);
}

#[tokio::test]
async fn a_server_that_is_full_refuses_with_4100() {
    let app = App::new(1);
    let world = World::builder()
        .only_one_node("it fills a single process up to its own limit")
        .config("[server]\nmax_connections = 1")
        .app(&app)
        .start();
    let _first = Client::connect(&world, &app).await;
    let (error, code, _) = refused(&world, &format!("/app/{}?{QUERY}", app.key)).await;
    error.assert_error(Some(4100), "Over capacity");
    assert_eq!(code, 4100);
}

#[tokio::test]
async fn a_path_prefix_is_taken_off() {
    let (world, app) = World::with_config("[server]\npath_prefix = \"/realtime\"");
    let mut socket = Socket::open(world.address, &format!("/realtime/app/{}?{QUERY}", app.key)).await;
    let Seen::Frame(frame) = socket.next().await else {
        panic!("nothing came")
    };
    assert!(
        frame.text().contains("connection_established"),
        "{}",
        frame.text()
    );
    // The signature is over the path without it, because the caller knows nothing of the proxy.
    let signed = Call::get(&app, "/channels");
    let sent = Call {
        path: format!("/realtime{}", signed.path),
        ..signed.clone()
    };
    sent.send_forged(&world, Some(&signed.signature()))
        .await
        .assert(200, "channels");
}

#[tokio::test]
async fn only_allowed_origins_may_connect_when_an_app_names_some() {
    let app = App::new(1).with("allowed_origins = [\"https://shop.example\", \"*.shop.example\"]");
    let world = World::with_app(&app);
    let path = format!("/app/{}?{QUERY}", app.key);
    for (origin, allowed) in [
        ("https://shop.example", true),
        ("https://www.shop.example", true),
        ("https://evil.example", false),
        ("http://shop.example", false),
        ("https://shop.example.evil.example", false),
        ("https://notshop.example", false),
        ("null", false),
    ] {
        let extra = format!("Origin: {origin}\r\n");
        let (mut socket, answer) = Socket::shake(world.address, &handshake(&path, &extra)).await;
        assert_eq!(answer.status, 101, "{origin}");
        let Seen::Frame(frame) = socket.next().await else {
            panic!("nothing came")
        };
        let established = frame.text().contains("connection_established");
        assert_eq!(established, allowed, "{origin}: {}", frame.text());
        if !allowed {
            let (code, _) = socket.closed().await;
            assert_eq!(code, 4009, "{origin}");
        }
    }
}
