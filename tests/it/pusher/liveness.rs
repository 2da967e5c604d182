//! Pings, pongs, and silent peers.

use crate::client::{Client, QUERY};
use crate::websocket::{Draft, PING, Seen, Socket};
use crate::world::{App, World, shared};
use std::time::{Duration, Instant};

const SHORT: &str = "[sockets]\nactivity_timeout_s = 1\npong_timeout_s = 1";

#[tokio::test]
async fn a_pusher_ping_is_answered_at_once_with_empty_data() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    for ping in [
        r#"{"event":"pusher:ping","data":{}}"#,
        r#"{"event":"pusher:ping"}"#,
        r#"{"event":"pusher:ping","data":"{}"}"#,
        r#"{"event":"pusher:ping","data":null}"#,
        r#"{"data":[],"event":"pusher:ping"}"#,
    ] {
        client.send_text(ping).await;
        let pong = client.expect("pusher:pong").await;
        assert_eq!(pong.text(), "{}", "{ping}");
        assert_eq!(pong.channel, None);
    }
}

#[tokio::test]
async fn a_pusher_pong_is_taken_in_silence() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    for pong in [
        r#"{"event":"pusher:pong","data":{}}"#,
        r#"{"event":"pusher:pong"}"#,
    ] {
        client.send_text(pong).await;
    }
    client.expect_quiet().await;
}

#[tokio::test]
async fn the_configured_activity_timeout_is_told_to_the_client() {
    let (world, app) = World::with_config("[sockets]\nactivity_timeout_s = 17");
    let mut socket = Socket::open(world.address, &format!("/app/{}?{QUERY}", app.key)).await;
    let Seen::Frame(frame) = socket.next().await else {
        panic!("nothing came")
    };
    assert!(
        frame.text().contains(r#"\"activity_timeout\":17"#),
        "{}",
        frame.text()
    );
}

/// Whether this frame asks for a sign of life, by either kind of ping.
fn is_ping(seen: &Seen) -> bool {
    matches!(seen, Seen::Frame(frame) if frame.opcode == PING || frame.text().contains("pusher:ping"))
}

#[tokio::test]
async fn a_silent_client_is_pinged_and_then_closed_with_4201() {
    let (world, app) = World::with_config(SHORT);
    let mut silent = Client::connect(&world, &app).await;
    let start = Instant::now();
    let ping = silent.socket.next_within(Duration::from_secs(6)).await;
    assert!(is_ping(&ping), "{ping:?}");
    assert!(
        start.elapsed() >= Duration::from_millis(900),
        "pinged after {:?}",
        start.elapsed()
    );
    let (code, _) = silent.socket.closed().await;
    assert_eq!(code, 4201);
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "closed only after {:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn any_sign_of_life_keeps_a_connection_open() {
    let (world, app) = World::with_config(SHORT);
    // One client for each way to show that it lives.
    let answers: [Vec<u8>; 4] = [
        Draft::text(r#"{"event":"pusher:pong","data":{}}"#).bytes(),
        Draft::new(0xA, "").bytes(),
        Draft::text(r#"{"event":"pusher:ping","data":{}}"#).bytes(),
        Draft::ping("").bytes(),
    ];
    let live = answers.into_iter().map(|answer| {
        let (world, app) = (&world, &app);
        async move {
            let mut client = Client::connect(world, app).await;
            let mut pings = 0;
            while pings < 3 {
                let seen = client.socket.next_within(Duration::from_secs(6)).await;
                assert!(
                    !matches!(&seen, Seen::End | Seen::Reset | Seen::Silence),
                    "{seen:?}"
                );
                assert!(
                    !matches!(&seen, Seen::Frame(frame) if frame.opcode == 8),
                    "closed: {seen:?}"
                );
                if is_ping(&seen) {
                    pings += 1;
                    client.socket.send(&answer).await;
                }
            }
        }
    });
    futures_util::future::join_all(live).await;
}

#[tokio::test]
async fn a_silent_member_leaves_its_presence_channel() {
    let (world, app) = World::with_config(SHORT);
    let mut watcher = Client::connect(&world, &app).await;
    let mut silent = Client::connect(&world, &app).await;
    watcher.join("presence-a", "watcher").await;
    silent.join("presence-a", "silent").await;
    watcher.expect("pusher_internal:member_added").await;
    let removed = loop {
        let event = watcher
            .next_within(Duration::from_secs(8))
            .await
            .expect("the silent member is removed");
        if event.name == "pusher:ping" {
            watcher.send_text(r#"{"event":"pusher:pong","data":{}}"#).await;
        } else {
            break event;
        }
    };
    assert_eq!(
        (removed.name.as_str(), removed.text()),
        ("pusher_internal:member_removed", r#"{"user_id":"silent"}"#)
    );
}

#[tokio::test]
async fn an_app_of_protocol_5_is_pinged_by_a_message_or_a_frame_that_it_understands() {
    let app = App::new(1);
    let world = World::builder().config(SHORT).app(&app).start();
    let mut client = Client::connect_with(&world, &app, "protocol=5&client=java-client&version=2.4.4").await;
    let ping = client.socket.next_within(Duration::from_secs(6)).await;
    assert!(is_ping(&ping), "{ping:?}");
}
