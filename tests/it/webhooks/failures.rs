//! Endpoints that fail again and again: what it costs others, and what becomes of them.

use super::asking::{deliveries, said};
use super::receiver::{Receiver, Reply, Request};
use super::{attempts, endpoint, messages, numbered, occupied, quick, world};
use crate::client::Client;
use crate::world::{App, DEADLINE, World, eventually, eventually_within};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[tokio::test]
async fn an_endpoint_that_hangs_delays_nobody_else() {
    let hanging = Receiver::with(|_| Reply::Never);
    let mut healthy = Receiver::start();
    let app = App::new(1)
        .webhook(&messages(&hanging.url("/"), "batch_ms = 0"))
        .webhook(&messages(&healthy.url("/"), "batch_ms = 0"));
    let world = world(&app);
    let mut lags = Vec::new();
    for number in 0..100 {
        let published_at = Instant::now();
        world.publish(&app, &format!("c-{number}"), "event", "0").await;
        let request = healthy.next().await;
        assert_eq!(numbered(&request), [(format!("c-{number}"), 0)]);
        lags.push(request.at - published_at);
    }
    lags.sort();
    assert!(lags[98] < Duration::from_secs(1), "the promise: {lags:?}");
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

/// An app with an endpoint `hook`, and one that is well.
fn app_of(hook: &Receiver, well: &Receiver) -> App {
    let hook = endpoint(&hook.url("/")) + "id = \"hook\"\n";
    App::new(1).webhook(&hook).webhook(&endpoint(&well.url("/")))
}

/// The endpoint `hook` is sent nothing more of what happens.
async fn is_asked_nothing_more(world: &World, client: &mut Client, hook: &mut Receiver, well: &mut Receiver) {
    eventually("it is disabled", || async {
        let list = said(world, &["endpoints"]).await;
        list.contains("disabled since").then_some(())
    })
    .await;
    hook.so_far();
    well.so_far();
    for channel in ["later", "later-still"] {
        client.subscribe(channel).await;
        assert_eq!(well.events(1).await, [occupied(channel)]);
    }
    let waiting = deliveries(world, "hook", "pending").await;
    assert!(
        waiting.iter().all(|delivery| delivery["attempts"] == 0),
        "{waiting:?}"
    );
    assert!(hook.so_far().is_empty());
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_asked_nothing_more() {
    let mut gone = Receiver::with(|_| Reply::status(410));
    let mut well = Receiver::start();
    let app = app_of(&gone, &well);
    let world = world(&app);
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("pub").await;
    gone.next().await;
    is_asked_nothing_more(&world, &mut client, &mut gone, &mut well).await;
}

#[tokio::test]
async fn an_endpoint_that_has_taken_nothing_for_too_long_is_disabled_and_can_be_enabled() {
    let is_well = Arc::new(AtomicBool::new(false));
    let health = Arc::clone(&is_well);
    let mut hook =
        Receiver::with(move |_| Reply::status(if health.load(Ordering::Relaxed) { 200 } else { 500 }));
    let mut well = Receiver::start();
    let app = app_of(&hook, &well);
    let world = World::builder()
        .config(&(attempts(&[0, 600, 600, 600, 600]) + "\ndisable_after_s = 1"))
        .app(&app)
        .start();
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("pub").await;
    let (first, second) = (hook.next().await, hook.next().await);
    assert_eq!(first.id(), second.id(), "not at its first failure");
    is_asked_nothing_more(&world, &mut client, &mut hook, &mut well).await;

    is_well.store(true, Ordering::Relaxed);
    said(&world, &["enable", "1", "hook"]).await;
    said(&world, &["replay", "--app", "1", "--endpoint", "hook"]).await;
    let mut told = hook.events(3).await;
    told.sort_by_key(ToString::to_string);
    assert_eq!(told, ["later", "later-still", "pub"].map(occupied));
}

#[tokio::test]
async fn an_endpoint_is_never_disabled_for_failing_where_that_is_switched_off() {
    let mut receiver = Receiver::with(|_| Reply::status(500));
    let app = App::new(1).webhook(&endpoint(&receiver.url("/")));
    let world = World::builder()
        .config(&(quick() + "\ndisable_after_s = 0"))
        .app(&app)
        .start();
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("pub").await;
    for _ in 0..4 {
        receiver.next().await;
    }
}
