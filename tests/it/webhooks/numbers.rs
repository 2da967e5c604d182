//! What operators can count: metrics, usage, and what the log says.

use super::receiver::{Receiver, Reply};
use super::{attempts, endpoint, items, messages, quick, scene};
use crate::client::Client;
use crate::node::Node;
use crate::request::Http;
use crate::world::{App, World, eventually_within};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;

/// The store is asked every few seconds.
const PATIENCE: Duration = Duration::from_secs(20);

async fn ask(address: SocketAddr, path: &str) -> String {
    let mut http = Http::open(address).await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    assert!(http.send(request.as_bytes()).await);
    let answer = http.answer().await.expect("there is an answer");
    assert_eq!(answer.status, 200, "{path}");
    answer.text()
}

/// A metric of webhooks.
async fn metric(node: &Node, name: &str) -> f64 {
    let text = ask(node.metrics, "/metrics").await;
    let wanted = format!("dunlin_webhooks_{name} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&wanted));
    let value = value.unwrap_or_else(|| panic!("there is no {wanted}:\n{text}"));
    value.parse().expect("a number")
}

/// Summed over the nodes: of each delivery, any may be the one that sends it.
async fn total(world: &World, name: &str) -> f64 {
    let mut sum = 0.0;
    for node in &world.nodes {
        sum += metric(node, name).await;
    }
    sum
}

/// The app's numbers of webhooks, on the first node.
pub(super) async fn usage(world: &World, app: &App) -> Value {
    let usage: Value =
        serde_json::from_str(&ask(world.nodes[0].metrics, "/usage").await).expect("it is JSON");
    let apps = usage["apps"].as_array().expect("a list");
    let found = apps.iter().find(|one| one["id"] == *app.id);
    found.expect("the app is there")["webhooks"].clone()
}

async fn until(what: &str, probe: impl AsyncFn() -> bool) {
    let seen = eventually_within(PATIENCE, || async { probe().await.then_some(()) }).await;
    assert!(seen.is_some(), "never: {what}");
}

#[tokio::test]
async fn what_becomes_of_deliveries_is_counted() {
    let mut receiver = Receiver::with(|request| {
        let is_bad = request.text().contains("bad");
        Reply::status(if is_bad { 503 } else { 200 })
    });
    let app = App::new(1).webhook(&endpoint(&receiver.url("/")));
    let world = World::builder().config(&attempts(&[0, 100])).app(&app).start();
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("good").await;
    // Else both might share a request.
    receiver.next().await;
    client.subscribe("bad").await;
    until("one was taken and one given up", async || {
        total(&world, "delivered_total").await >= 1.0 && total(&world, "given_up_total").await >= 1.0
    })
    .await;
    for (name, expected) in [
        ("made_total", 2.0),
        ("delivered_total", 1.0),
        ("failed_attempts_total", 2.0),
        ("retries_total", 1.0),
        ("given_up_total", 1.0),
        ("endpoints_disabled_total", 0.0),
        ("outbox_dropped_total", 0.0),
        ("attempt_duration_seconds_count{outcome=\"taken\"}", 1.0),
        ("attempt_duration_seconds_count{outcome=\"server_error\"}", 2.0),
        ("attempt_duration_seconds_count{outcome=\"timed_out\"}", 0.0),
    ] {
        assert_eq!(
            total(&world, name).await.to_string(),
            expected.to_string(),
            "{name}"
        );
    }
    until("the dead letter is seen in the store", async || {
        usage(&world, &app).await["dead_letters"] == 1
    })
    .await;
    for name in ["queued", "oldest_queued_s", "disabled_endpoints"] {
        assert_eq!(usage(&world, &app).await[name], 0, "{name}");
    }
}

#[tokio::test]
async fn what_waits_is_counted_with_its_age() {
    let receiver = Receiver::with(|_| Reply::status(503).with("retry-after", "80000"));
    let (world, app) = scene(&receiver, "");
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("pub").await;
    until("it waits for its second attempt", async || {
        let usage = usage(&world, &app).await;
        usage["queued"] == 1 && usage["oldest_queued_s"].as_u64() >= Some(1)
    })
    .await;
    assert_eq!(metric(&world.nodes[0], "queued").await.to_string(), "1");
    assert!(metric(&world.nodes[0], "oldest_queued_seconds").await >= 1.0);
    until("all events are deliveries", async || {
        total(&world, "outbox_lag_seconds").await.to_string() == "0"
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_is_disabled_is_counted_and_the_log_says_who_and_why() {
    let mut receiver = Receiver::with(|_| Reply::status(410));
    let app = App::new(1).webhook(&format!("id = \"hook\"\n{}", endpoint(&receiver.url("/"))));
    let world = super::world(&app);
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("pub").await;
    receiver.next().await;
    until("it is counted", async || {
        total(&world, "endpoints_disabled_total").await.to_string() == "1"
    })
    .await;
    let log = world.log();
    let line = log.lines().find(|line| line.contains("an endpoint is disabled"));
    let line = line.expect("the log says it");
    for part in [
        "WARN",
        "app=1",
        "endpoint=hook",
        "410 Gone",
        "dunlin webhooks enable 1 hook",
    ] {
        assert!(line.contains(part), "no {part}: {line}");
    }
    until("the store says it", async || {
        usage(&world, &app).await["disabled_endpoints"] == 1
            && metric(&world.nodes[0], "disabled_endpoints").await.to_string() == "1"
    })
    .await;
}

#[tokio::test]
async fn what_is_no_delivery_yet_is_seen_by_its_age() {
    let receiver = Receiver::start();
    // Longer than the test takes.
    let app = App::new(1).webhook(&endpoint(&receiver.url("/")).replace("batch_ms = 0", "batch_ms = 60000"));
    let world = super::world(&app);
    assert_eq!(total(&world, "outbox_lag_seconds").await.to_string(), "0");
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("pub").await;
    until("the event is a second old", async || {
        total(&world, "outbox_lag_seconds").await >= 1.0
    })
    .await;
    assert_eq!(total(&world, "made_total").await.to_string(), "0");
}

#[tokio::test]
async fn events_that_find_no_room_in_the_outbox_are_counted_and_said_to_be_lost() {
    let mut receiver = Receiver::start();
    let lines = messages(&receiver.url("/"), "batch_ms = 0");
    let app = App::new(1).webhook(&lines);
    let world = World::builder()
        .config(&format!(
            "[redis]\noutbox_entries = 100\nlease_ms = 30000\n{}",
            quick()
        ))
        .app(&app)
        .nodes(2)
        .node_env(1, "DUNLIN_WEBHOOKS__DELIVER", "false")
        .troubled()
        .start();
    let (reader, other) = world.pair();
    other.publish(&app, "a", "e", "first").await;
    receiver.next().await;
    // Then it has left the outbox as well.
    until("it is delivered", async || {
        metric(reader, "delivered_total").await > 0.0
    })
    .await;
    assert_eq!(metric(reader, "outbox_dropped_total").await.to_string(), "0");
    reader.pause();
    for _ in 0..500 {
        other.publish(&app, "a", "e", "more").await;
    }
    reader.resume();
    until("they are counted", async || {
        metric(reader, "outbox_dropped_total").await > 0.0
    })
    .await;
    let dropped = metric(reader, "outbox_dropped_total").await;
    // Redis trims by the hundred, or by a few when they are long.
    assert!((200.0..=400.0).contains(&dropped), "{dropped}");
    let mut received = 0;
    while f64::from(received) < 500.0 - dropped {
        let request = receiver.next().await;
        received += u32::try_from(items(&request).len()).expect("few");
    }
    assert_eq!((500.0 - f64::from(received)).to_string(), dropped.to_string());
    assert!(reader.log().contains("events for webhooks are lost"));
}
