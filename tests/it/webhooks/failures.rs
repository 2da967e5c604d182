//! Endpoints that fail, stall, come back or are beyond help.

use super::receiver::{Receiver, Reply, Request};
use super::{QUICK, endpoint, events, messages, numbered, occupied, scene, world};
use crate::client::Client;
use crate::world::{App, DEADLINE, World, eventually_within};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
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
        assert_eq!(events(&first), [occupied("pub")]);
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
    let hanging = Receiver::with(|_| Reply::Never);
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
    let taken: Arc<Mutex<Vec<Request>>> = Arc::default();
    let (book, count) = (Arc::clone(&taken), AtomicUsize::new(0));
    let mut receiver = Receiver::with(move |request| {
        let turn = count.fetch_add(1, Ordering::Relaxed);
        if turn.wrapping_mul(2_654_435_761) % 10 < 3 {
            return Reply::status(500);
        }
        book.lock().expect("nobody panics with it").push(request.clone());
        Reply::status(200)
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
    let all = eventually_within(DEADLINE * 4, || async {
        let taken = taken.lock().expect("nobody panics with it").clone();
        let all: Vec<_> = taken.iter().flat_map(numbered).collect();
        (all.len() >= CHANNELS * EVENTS).then_some(all)
    });
    let mut next: BTreeMap<String, usize> = BTreeMap::new();
    for (channel, number) in all.await.expect("all of it is taken") {
        let expected = next.entry(channel.clone()).or_default();
        assert_eq!(number, *expected, "{channel}");
        *expected += 1;
    }
    let mut bodies: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let requests = receiver.so_far();
    for request in &requests {
        let body = bodies
            .entry(request.id().to_owned())
            .or_insert_with(|| request.body.clone());
        assert_eq!(*body, request.body, "one id, one body");
    }
    assert!(requests.len() > bodies.len(), "some came again");
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
