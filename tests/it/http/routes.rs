//! What is served, what is not, and what everybody may ask.

use crate::request::{Call, exchange, plain};
use crate::world::shared;
use serde_json::json;

#[tokio::test]
async fn the_health_paths_answer_200() {
    let (world, _) = shared();
    for path in ["/healthz", "/ready", "/live", "/up"] {
        plain(world, "GET", path).await.assert(200, "");
    }
}

#[tokio::test]
async fn the_metrics_are_on_their_own_port_only() {
    let (world, _) = shared();
    let answer = exchange(
        world.nodes[0].metrics,
        b"GET /metrics HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
    )
    .await;
    answer.assert(200, "# TYPE ");
    assert_eq!(plain(world, "GET", "/metrics").await.status, 404);
}

#[tokio::test]
async fn an_unknown_route_is_404() {
    let (world, app) = shared();
    for path in [
        "/nothing",
        "/apps",
        "/apps/",
        "/favicon.ico",
        "/..%2f",
        "/app/x/y/z",
        "//",
        "/apps//events",
    ] {
        let answer = plain(world, "GET", path).await;
        assert!(
            [400, 401, 404].contains(&answer.status),
            "{path}: {}",
            answer.status
        );
    }
    for rest in [
        "",
        "/",
        "/nothing",
        "/events/more",
        "/channels/a/users/more",
        "/channels/a/nothing",
        "/users/u",
    ] {
        let answer = Call::get(&app, rest).send(world).await;
        assert_eq!(answer.status, 404, "{rest}: {}", answer.text());
    }
}

#[tokio::test]
async fn another_method_on_a_known_route_is_405_or_404() {
    let (world, app) = shared();
    for (method, rest) in [
        ("GET", "/events"),
        ("PUT", "/events"),
        ("DELETE", "/events"),
        ("PATCH", "/events"),
        ("GET", "/batch_events"),
        ("POST", "/channels"),
        ("DELETE", "/channels/a"),
        ("POST", "/channels/presence-a/users"),
        ("GET", "/users/u/terminate_connections"),
        ("OPTIONS", "/events"),
        ("TRACE", "/channels"),
        ("FOO", "/channels"),
    ] {
        let call = Call {
            method: method.to_owned(),
            ..Call::post_bytes(&app, rest, "")
        };
        let answer = call.send(world).await;
        assert!(
            [404, 405].contains(&answer.status),
            "{method} {rest}: {} {}",
            answer.status,
            answer.text()
        );
    }
}

#[tokio::test]
async fn head_of_a_query_is_answered_without_a_body() {
    let (world, app) = shared();
    let call = Call {
        method: "HEAD".to_owned(),
        ..Call::get(&app, "/channels")
    };
    let answer = call.send(world).await;
    assert!([200, 404, 405].contains(&answer.status), "{}", answer.status);
    assert!(answer.body.is_empty());
    world.assert_calm();
}

#[tokio::test]
async fn the_signed_api_lets_no_browser_read_it() {
    let (world, app) = shared();
    let call = Call::get(&app, "/channels").header("Origin", "https://evil.example");
    let answer = call.send(world).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), None);
    let preflight = format!(
        "OPTIONS {} HTTP/1.1\r\nHost: t\r\nOrigin: https://evil.example\r\n\
         Access-Control-Request-Method: POST\r\n\r\n",
        app.path("/events")
    );
    let answer = exchange(world.address, preflight.as_bytes()).await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
    assert_ne!(answer.status, 204);
}

#[tokio::test]
async fn no_answer_names_a_secret() {
    let (world, app) = shared();
    for call in [
        Call::get(&app, "/channels").param("auth_key", "x"),
        Call::get(&app, "/channels").param("auth_version", "x"),
        Call::get(&app, "/channels").param("auth_timestamp", "1"),
        Call::get(&app, "/channels").signed_with("x"),
        Call::get(&app, "/nothing"),
        Call::post(&app, "/events", &json!({ "name": 1 })),
    ] {
        let answer = call.send(world).await;
        assert!(answer.status >= 400);
        assert!(!answer.text().contains(&app.secret), "{}", answer.text());
    }
    assert!(!world.log().contains(&app.secret), "the log holds a secret");
}
