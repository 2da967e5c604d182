//! Shutting down: everybody is told to come back at once, and the process ends well.

use crate::client::{Client, QUERY};
use crate::request::{Call, Http};
use crate::world::{App, DEADLINE, World};
use rustix::process::Signal;
use serde_json::json;
use std::time::{Duration, Instant};

fn world() -> (World, App) {
    World::with_config("[server]\ndrain_window_ms = 500\nshutdown_timeout_ms = 4000")
}

#[tokio::test]
async fn sigterm_sends_every_socket_away_with_4200_and_exits_0() {
    let (world, app) = world();
    let mut clients = Vec::new();
    for number in 0..40 {
        let mut client = Client::connect(&world, &app).await;
        if number % 2 == 0 {
            client.subscribe("pub").await;
        } else {
            client.join("presence-a", "u").await;
        }
        clients.push(client);
    }
    let start = Instant::now();
    world.signal(Signal::TERM);
    let closing = clients.iter_mut().map(Client::closed);
    for (code, reason, before) in futures_util::future::join_all(closing).await {
        assert_eq!(code, 4200, "{reason}");
        let error = before
            .iter()
            .find(|event| event.name == "pusher:error")
            .expect("an error before the close");
        error.assert_error(Some(4200), "");
    }
    let status = world
        .exit_within(Duration::from_secs(6))
        .await
        .expect("the process ends");
    assert_eq!(status.code(), Some(0), "{}", world.log());
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
}

#[tokio::test]
async fn readiness_ends_at_once() {
    let (world, app) = World::with_config("[server]\ndrain_window_ms = 2000\nshutdown_timeout_ms = 4000");
    let _clients = [
        Client::connect(&world, &app).await,
        Client::connect(&world, &app).await,
    ];
    let mut kept = Http::open(world.address).await;
    kept.send(b"GET /ready HTTP/1.1\r\nHost: t\r\n\r\n").await;
    assert_eq!(kept.answer().await.expect("an answer").status, 200);
    world.signal(Signal::TERM);
    let start = Instant::now();
    loop {
        kept.send(b"GET /ready HTTP/1.1\r\nHost: t\r\n\r\n").await;
        match kept.answer().await {
            Some(answer) if answer.status == 200 => {
                assert!(start.elapsed() < Duration::from_secs(1), "still ready");
            }
            Some(answer) => {
                assert_eq!(answer.status, 503);
                break;
            }
            // A server that no longer answers is not ready either.
            None => break,
        }
    }
}

#[tokio::test]
async fn a_request_in_flight_is_finished() {
    let (world, app) = world();
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("pub").await;
    let bytes = Call::post(
        &app,
        "/events",
        &json!({ "name": "e", "channels": ["pub"], "data": "x" }),
    )
    .bytes();
    let (most, rest) = bytes.split_at(bytes.len() - 3);
    let mut http = Http::open(world.address).await;
    http.send(most).await;
    // The head has been read once the server answers something else that came after it.
    world.get(&app, "/channels", &[]).await.assert(200, "pub");
    world.signal(Signal::TERM);
    http.send(rest).await;
    http.answer()
        .await
        .expect("the request in flight is answered")
        .assert(200, "{}");
    assert_eq!(
        world
            .exit_within(Duration::from_secs(6))
            .await
            .and_then(|status| status.code()),
        Some(0)
    );
}

#[tokio::test]
async fn streams_end_with_a_close_frame() {
    let (world, app) = world();
    let mut http = Http::open(world.address).await;
    let path = format!("/pusher/app/{}/1/drain000/xhr_streaming?{QUERY}", app.key);
    http.send(format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n").as_bytes())
        .await;
    assert_eq!(http.head().await.expect("an answer").status, 200);
    let mut text = String::new();
    while !text.contains("connection_established") {
        text.push_str(&String::from_utf8_lossy(&http.chunk().await.expect("more")));
    }
    world.signal(Signal::TERM);
    while let Some(chunk) = http.chunk().await.filter(|chunk| !chunk.is_empty()) {
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(text.contains("c[4200,"), "{}", &text[2049..]);
}

#[tokio::test]
async fn new_sockets_are_sent_away_while_it_drains() {
    let (world, app) = World::with_config("[server]\ndrain_window_ms = 2000\nshutdown_timeout_ms = 4000");
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(Client::connect(&world, &app).await);
    }
    world.signal(Signal::TERM);
    crate::world::eventually("no new socket is accepted", || async {
        // Refused by the kernel, ended, or sent away in-band: all tell the client to try elsewhere.
        let Some(mut http) = Http::open_if_possible(world.address).await else {
            return Some(());
        };
        http.send(&crate::websocket::handshake(
            &format!("/app/{}?{QUERY}", app.key),
            "",
        ))
        .await;
        match http.head().await {
            None => Some(()),
            Some(answer) if answer.status != 101 => Some(()),
            Some(_) => http.ends_within(Duration::from_millis(300)).await.then_some(()),
        }
    })
    .await;
}

#[tokio::test]
async fn an_interrupt_from_the_keyboard_drains_too() {
    let (world, app) = world();
    let mut client = Client::connect(&world, &app).await;
    world.signal(Signal::INT);
    assert_eq!(client.closed().await.0, 4200);
    assert_eq!(
        world
            .exit_within(Duration::from_secs(6))
            .await
            .and_then(|status| status.code()),
        Some(0)
    );
}

#[tokio::test]
async fn a_second_signal_ends_it_now() {
    let (world, app) = World::with_config("[server]\ndrain_window_ms = 20000\nshutdown_timeout_ms = 30000");
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Client::connect(&world, &app).await);
    }
    world.signal(Signal::TERM);
    // The first close, or at least the refusal of new work, shows that the first signal was taken.
    crate::world::eventually("the drain has begun", || async {
        let mut http = Http::open_if_possible(world.address).await;
        match http.as_mut() {
            None => Some(()),
            Some(http) => {
                http.send(b"GET /ready HTTP/1.1\r\nHost: t\r\n\r\n").await;
                (http.answer().await.map(|answer| answer.status) != Some(200)).then_some(())
            }
        }
    })
    .await;
    world.signal(Signal::TERM);
    assert!(
        world.exit_within(DEADLINE).await.is_some(),
        "still running after the second signal"
    );
}

#[tokio::test]
async fn clients_that_do_not_read_do_not_hold_up_the_end() {
    let (world, app) = World::with_config("[server]\ndrain_window_ms = 300\nshutdown_timeout_ms = 1500");
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(Client::connect(&world, &app).await);
    }
    world.signal(Signal::TERM);
    let status = world
        .exit_within(Duration::from_secs(6))
        .await
        .expect("the process ends");
    assert_eq!(status.code(), Some(0), "{}", world.log());
}
