//! Endpoints that fail, stall, come back or are beyond help.

use super::receiver::{Receiver, Reply};
use super::{QUICK, endpoint, messages, occupied, scene, world};
use crate::client::Client;
use crate::world::{App, World};
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[tokio::test]
async fn what_an_endpoint_refuses_is_sent_again_the_same() {
    for status in [500, 404, 302, 429] {
        let count = AtomicUsize::new(0);
        let mut receiver = Receiver::with(move |_| match count.fetch_add(1, Ordering::Relaxed) {
            0..3 => Reply::status(status).with("location", "/elsewhere"),
            _ => Reply::status(204),
        });
        let (world, app) = scene(&receiver, "");
        let mut client = Client::connect(&world, &app).await;
        client.subscribe("pub").await;
        let first = receiver.next().await;
        for _ in 0..3 {
            let again = receiver.next().await;
            assert_eq!(
                (again.id(), &again.body, &*again.path),
                (first.id(), &first.body, "/hook")
            );
        }
        assert_eq!(first.events(), [occupied("pub")]);
    }
}

#[tokio::test]
async fn an_endpoint_that_asks_for_time_is_given_it() {
    let count = AtomicUsize::new(0);
    let mut receiver = Receiver::with(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::status(429).with("retry-after", "2"),
        _ => Reply::status(200),
    });
    let (world, app) = scene(&receiver, "");
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("pub").await;
    let first = receiver.next().await;
    let second = receiver.next().await;
    let pause = second.at - first.at;
    assert!(pause >= Duration::from_millis(1900), "{pause:?}");
}

#[tokio::test]
async fn an_endpoint_that_hangs_delays_nobody_else() {
    let hanging = Receiver::with(|_| Reply::never());
    let mut healthy = Receiver::start();
    let app = App::new(1)
        .webhook(&endpoint(&hanging.url("/")))
        .webhook(&endpoint(&healthy.url("/")));
    let world = world(&app);
    let mut client = Client::connect(&world, &app).await;
    for number in 0..30 {
        let channel = format!("c-{number}");
        client.subscribe(&channel).await;
        assert_eq!(healthy.events(1).await, [occupied(&channel)]);
    }
}

#[tokio::test]
async fn every_event_reaches_an_endpoint_that_fails_now_and_then_and_each_channel_keeps_its_order() {
    const CHANNELS: usize = 10;
    const EVENTS: usize = 50;
    let count = AtomicUsize::new(0);
    let mut receiver = Receiver::with(move |_| {
        let turn = count.fetch_add(1, Ordering::Relaxed);
        Reply::status(if turn.wrapping_mul(2_654_435_761) % 10 < 3 {
            500
        } else {
            200
        })
    });
    let lines = messages(&receiver.url("/"), "batch_ms = 20\nbatch_size = 7");
    let app = App::new(1).webhook(&lines);
    let world = world(&app);
    for number in 0..EVENTS {
        for channel in 0..CHANNELS {
            world
                .publish(&app, &format!("c-{channel}"), "e", &number.to_string())
                .await;
        }
    }
    // By channel: the numbers as they were taken. A request that was answered with an error was not.
    let mut bodies: BTreeMap<String, String> = BTreeMap::new();
    let mut first_seen: Vec<String> = Vec::new();
    let mut seen: HashSet<(String, String)> = HashSet::new();
    while seen.len() < CHANNELS * EVENTS {
        let request = receiver.next().await;
        let body = bodies
            .entry(request.id().to_owned())
            .or_insert_with(|| request.text().to_owned());
        assert_eq!(body, request.text(), "one id, one body");
        first_seen.push(request.id().to_owned());
        for item in request.json()["items"]["data"].as_array().expect("a list") {
            let text = |name: &str| item[name].as_str().expect("a text").to_owned();
            seen.insert((text("channel"), text("message")));
        }
    }
    // In the order of the last attempts, which are those that were taken.
    let mut order: Vec<String> = Vec::new();
    for id in first_seen.iter().rev() {
        if !order.contains(id) {
            order.push(id.clone());
        }
    }
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    for id in order.iter().rev() {
        let body: serde_json::Value = serde_json::from_str(&bodies[id]).expect("JSON");
        for item in body["items"]["data"].as_array().expect("a list") {
            let channel = item["channel"].as_str().expect("a text").to_owned();
            let number: usize = item["message"]
                .as_str()
                .and_then(|text| text.parse().ok())
                .expect("a number");
            let expected = last.entry(channel.clone()).or_default();
            assert_eq!(number, *expected, "{channel}");
            *expected += 1;
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_asked_nothing_more() {
    let mut receiver = Receiver::with(|_| Reply::status(410));
    let (world, app) = scene(&receiver, "");
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("pub").await;
    receiver.next().await;
    // What was under way when it said so may still come.
    for number in 0.. {
        assert!(number < 3, "it is asked on");
        client.subscribe(&format!("later-{number}")).await;
        if receiver.next_within(Duration::from_secs(2)).await.is_none() {
            break;
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_has_taken_nothing_for_too_long_is_disabled() {
    let mut receiver = Receiver::with(|_| Reply::status(500));
    let app = App::new(1).webhook(&endpoint(&receiver.url("/")));
    let world = World::builder()
        .config(&format!("{QUICK}\ndisable_after_s = 1"))
        .app(&app)
        .start();
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("pub").await;
    let first = receiver.next().await;
    let mut last = first.at;
    while let Some(request) = receiver.next_within(Duration::from_secs(7)).await {
        last = request.at;
    }
    let tried_for = last - first.at;
    assert!(
        tried_for >= Duration::from_millis(300),
        "given up after {tried_for:?}"
    );
    client.subscribe("later").await;
    assert!(receiver.next_within(Duration::from_secs(2)).await.is_none());
}
