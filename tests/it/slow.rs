//! Peers that are slow on purpose cost only themselves.

use crate::client::{Client, QUERY};
use crate::request::{Call, Http};
use crate::websocket::{Seen, Socket, handshake};
use crate::world::{App, DEADLINE, World};
use serde_json::json;
use std::time::{Duration, Instant};

const IMPATIENT: &str = "[server]\nrequest_timeout_ms = 1000";

#[tokio::test]
async fn an_unfinished_handshake_is_dropped() {
    let (world, app) = World::with_config(IMPATIENT);
    let whole = handshake(&format!("/app/{}?{QUERY}", app.key), "");
    for length in [1, 20, whole.len() - 2] {
        let mut http = Http::open(world.address).await;
        http.send(&whole[..length]).await;
        assert!(http.ends_within(DEADLINE).await, "after {length} bytes");
    }
}

#[tokio::test]
async fn an_unfinished_body_is_dropped() {
    let (world, app) = World::with_config(IMPATIENT);
    let event = json!({ "name": "e", "channels": ["pub"], "data": "x" });
    for path in ["/events", "/batch_events", "/users/u/terminate_connections"] {
        let bytes = Call::post(&app, path, &event).bytes();
        let mut http = Http::open(world.address).await;
        http.send(&bytes[..bytes.len() - 5]).await;
        assert!(http.ends_within(DEADLINE).await, "{path}");
    }
    let mut http = Http::open(world.address).await;
    http.send(
        format!(
            "POST /pusher/app/{}/1/abcdefgh/xhr_send HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\n[",
            app.key
        )
        .as_bytes(),
    )
    .await;
    assert!(http.ends_within(DEADLINE).await, "xhr_send");
    world.assert_calm();
}

#[tokio::test]
async fn a_body_that_drips_is_dropped_although_it_never_rests() {
    let (world, app) = World::with_config(IMPATIENT);
    let call = Call::post_bytes(&app, "/events", vec![b' '; 10_000]);
    let bytes = call.bytes();
    let mut http = Http::open(world.address).await;
    let start = Instant::now();
    http.send(&bytes[..bytes.len() - 10_000]).await;
    while http.send(b" ").await {
        if http.ends_within(Duration::from_millis(50)).await {
            break;
        }
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "the drip is still read"
        );
    }
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "the drip is still read"
    );
}

#[tokio::test]
async fn many_unfinished_requests_do_not_slow_the_others() {
    let (world, app) = World::with_config("");
    let mut held = Vec::new();
    for number in 0..400 {
        let mut http = Http::open(world.address).await;
        let piece: &[u8] = if number % 2 == 0 {
            b"GET /app/x HTTP/1.1\r\nHo"
        } else {
            b"P"
        };
        http.send(piece).await;
        held.push(http);
    }
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("pub").await;
    let start = Instant::now();
    for _ in 0..50 {
        world.publish(&app, "pub", "e", "x").await;
        client.expect("e").await;
    }
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_idle_kept_connection_is_not_answered_408() {
    let (world, app) = World::with_config("[server]\nrequest_timeout_ms = 1000\nhttp_keep_alive_ms = 5000");
    let mut http = Http::open(world.address).await;
    http.send(&Call::get(&app, "/channels").bytes()).await;
    http.answer().await.expect("an answer").assert(200, "channels");
    assert!(
        !http.ends_within(Duration::from_millis(1800)).await,
        "ended while it was kept"
    );
    http.send(&Call::get(&app, "/channels").bytes()).await;
    http.answer().await.expect("an answer").assert(200, "channels");
}

/// Publishes until the channel has only `left` subscribers, while `healthy` reads everything in order.
async fn publish_until_cut(world: &World, app: &App, healthy: &mut Client, left: u64) {
    let data = "d".repeat(10_000);
    let start = Instant::now();
    for number in 0_usize.. {
        world.publish(app, "pub", &format!("e{number}"), &data).await;
        loop {
            let event = healthy.next().await;
            if event.name != "pusher_internal:subscription_count" {
                assert_eq!(event.name, format!("e{number}"));
                break;
            }
        }
        if number % 20 == 0 {
            let answer = world
                .get(app, "/channels/pub", &[("info", "subscription_count")])
                .await
                .json();
            if answer["subscription_count"] == left {
                return;
            }
        }
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "the slow ones are never cut"
        );
    }
}

/// A subscriber that will not read, with as little room in the kernel as it gives.
async fn lazy(world: &World, app: &App) -> Socket {
    let mut socket =
        Socket::open_with_small_window(world.seat(app), &format!("/app/{}?{QUERY}", app.key)).await;
    let subscribe = json!({ "event": "pusher:subscribe", "data": { "channel": "pub" } }).to_string();
    socket.send_frame(&crate::websocket::Draft::text(subscribe)).await;
    loop {
        let Seen::Frame(frame) = socket.next().await else {
            panic!("not subscribed")
        };
        if frame.text().contains("subscription_succeeded") {
            return socket;
        }
    }
}

#[tokio::test]
async fn subscribers_that_never_read_are_cut_and_the_others_miss_nothing() {
    let app = App::counting(1);
    let world = World::builder()
        .config("[sockets]\noutbox_bytes = 131072")
        .app(&app)
        .start();
    let mut healthy = Client::connect(&world, &app).await;
    healthy.subscribe("pub").await;
    let mut lazies = Vec::new();
    for _ in 0..10 {
        lazies.push(lazy(&world, &app).await);
    }
    let before = world.resident_kib();
    publish_until_cut(&world, &app, &mut healthy, 1).await;
    let grown = world.resident_kib().saturating_sub(before);
    assert!(grown < 20_000, "grown by {grown} KiB");
    for mut socket in lazies {
        let code = loop {
            match socket.next().await {
                Seen::Frame(frame) if frame.opcode == crate::websocket::CLOSE => {
                    break frame.close().map(|(code, _)| code);
                }
                Seen::Frame(_) => {}
                Seen::End | Seen::Reset => break None,
                Seen::Silence => panic!("neither closed nor ended"),
            }
        };
        if let Some(code) = code {
            let comes_back = code == 1008 || code == 1013 || (4100..4300).contains(&code);
            assert!(comes_back, "clients do not come back after {code}");
        }
    }
    healthy.send(json!({ "event": "pusher:ping" })).await;
    while healthy.next().await.name != "pusher:pong" {}
    world.assert_calm();
}

#[tokio::test]
async fn a_peer_that_accepts_nothing_is_cut_in_time_even_below_the_bound() {
    let app = App::counting(1);
    let world = World::builder()
        .config("[sockets]\noutbox_bytes = 67108864\nwrite_stall_ms = 1000")
        .app(&app)
        .start();
    let mut healthy = Client::connect(&world, &app).await;
    healthy.subscribe("pub").await;
    let _lazy = lazy(&world, &app).await;
    publish_until_cut(&world, &app, &mut healthy, 1).await;
}

#[tokio::test]
async fn a_subscriber_that_reads_slowly_but_reads_gets_everything() {
    let app = App::new(1);
    let world = World::with_app(&app);
    let mut slow = Client::connect(&world, &app).await;
    slow.subscribe("pub").await;
    let data = "d".repeat(5_000);
    for number in 0..100 {
        world.publish(&app, "pub", &format!("e{number}"), &data).await;
    }
    for number in 0..100 {
        slow.expect(&format!("e{number}")).await;
    }
}
