//! A worker that is killed loses nothing, and makes nothing twice what was once.

use super::receiver::{Receiver, Reply};
use super::{messages, numbered, quick};
use crate::redis::{Data, RedisServer};
use crate::world::{App, DEADLINE, World};
use rustix::process::Signal;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::Semaphore;

const CHANNELS: usize = 5;
const ROUNDS: usize = 4;
const BATCH: usize = 5;
/// Numbers that may be published and not yet received: always something to kill the worker over.
const AHEAD: usize = 40;

#[tokio::test]
async fn a_worker_that_is_killed_again_and_again_delivers_everything_under_one_id_and_in_order() {
    let mut receiver = Receiver::start();
    let lines = messages(
        &receiver.url("/"),
        &format!("batch_ms = 20\nbatch_size = {BATCH}"),
    );
    let app = App::new(1).webhook(&lines);
    let world = World::builder()
        .config(&(quick() + "\nclaim_ms = 1000"))
        .config("[redis]\nlease_ms = 1500\nlease_refresh_ms = 500")
        .app(&app)
        .nodes(2)
        .node_env(0, "DUNLIN_WEBHOOKS__DELIVER", "false")
        .troubled()
        .start();
    let (publisher, worker) = world.pair();
    let published = Cell::new(0);
    let (is_over, allowed) = (Cell::new(false), Semaphore::new(AHEAD));
    let publishing = async {
        while !is_over.get() {
            allowed.acquire().await.expect("it is open").forget();
            let number = published.get();
            for channel in 0..CHANNELS {
                let channel = format!("c-{channel}");
                publisher.publish(&app, &channel, "e", &number.to_string()).await;
            }
            published.set(number + 1);
        }
    };
    let mut requests = Vec::new();
    let killing = async {
        for round in 0..ROUNDS {
            // At another point of its work in each round.
            for _ in 0..=round * 3 {
                requests.push(receiver.next_within(DEADLINE * 2).await.expect("it delivers"));
                allowed.add_permits(BATCH.div_ceil(CHANNELS));
            }
            worker.kill();
            worker.restart();
        }
        is_over.set(true);
        allowed.add_permits(1);
    };
    tokio::join!(publishing, killing);

    let expected = published.get() * CHANNELS;
    // By channel and number: the deliveries in which it came.
    let mut ids: BTreeMap<(String, usize), BTreeSet<String>> = BTreeMap::new();
    let mut next: BTreeMap<String, usize> = BTreeMap::new();
    let start = Instant::now();
    let mut requests = requests.into_iter();
    while ids.len() < expected {
        let left = (DEADLINE * 6).saturating_sub(start.elapsed());
        let request = match requests.next() {
            Some(request) => Some(request),
            None => receiver.next_within(left).await,
        };
        let request = request.unwrap_or_else(|| panic!("{} of {expected} have come", ids.len()));
        for (channel, number) in numbered(&request) {
            let expected = next.entry(channel.clone()).or_default();
            let came_in = ids.entry((channel.clone(), number)).or_default();
            if came_in.is_empty() {
                assert_eq!(number, *expected, "{channel}");
                *expected += 1;
            }
            came_in.insert(request.id().to_owned());
        }
    }
    let doubles: Vec<_> = ids.iter().filter(|(_, ids)| ids.len() > 1).collect();
    assert!(doubles.is_empty(), "one event, several deliveries: {doubles:?}");
}

#[tokio::test]
async fn nothing_is_lost_when_the_worker_is_killed_and_redis_is_restarted() {
    const EVENTS: usize = 30;
    let is_open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&is_open);
    let mut receiver = Receiver::with(move |_| {
        if gate.load(Ordering::Relaxed) {
            Reply::status(200)
        } else {
            Reply::Never
        }
    });
    let lines = messages(&receiver.url("/"), "batch_ms = 20\nbatch_size = 1");
    let app = App::new(1).webhook(&lines);
    let redis = RedisServer::options().durable().start();
    let world = World::builder()
        .config(&(quick() + "\nclaim_ms = 1000"))
        .config("[redis]\nlease_ms = 1500\nlease_refresh_ms = 500")
        .app(&app)
        .redis(&redis.url())
        .nodes(2)
        .node_env(0, "DUNLIN_WEBHOOKS__DELIVER", "false")
        .troubled()
        .start();
    let (publisher, worker) = world.pair();
    for number in 0..EVENTS {
        publisher
            .publish(&app, &format!("c-{}", number % 3), "e", &number.to_string())
            .await;
    }
    // Some of it is under way, most of it waits, in the store or still in the outbox.
    let mut times = BTreeMap::from([(receiver.next().await.id().to_owned(), 1)]);
    worker.kill();
    redis.kill();
    redis.restart(Data::Kept);
    is_open.store(true, Ordering::Relaxed);
    worker.restart();
    let mut told = BTreeMap::new();
    while told.len() < EVENTS {
        let request = receiver.next_within(DEADLINE * 4).await;
        let request = request.unwrap_or_else(|| panic!("{} of {EVENTS} have come", told.len()));
        *times.entry(request.id().to_owned()).or_insert(0) += 1;
        for (_, number) in numbered(&request) {
            let id = told.entry(number).or_insert_with(|| request.id().to_owned());
            assert_eq!(id, request.id(), "one event, one delivery");
        }
    }
    assert!(times.values().all(|times| *times <= 2), "{times:?}");
}

#[tokio::test]
async fn what_a_node_read_is_read_by_another_at_once_when_the_node_stops() {
    let mut receiver = Receiver::start();
    let lines = messages(&receiver.url("/"), "batch_ms = 0");
    let app = App::new(1).webhook(&lines);
    let world = World::builder()
        .config(&quick())
        // Nobody waits for this lease in a test.
        .config("[redis]\nlease_ms = 60000\nlease_refresh_ms = 2000")
        .app(&app)
        .nodes(2)
        .start();
    let (stays, leaves) = world.pair();
    leaves.signal(Signal::TERM);
    let status = leaves.exit_within(DEADLINE).await;
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    // Of so many channels some are in every part of the outbox.
    for channel in 0..200 {
        stays.publish(&app, &format!("c-{channel}"), "e", "0").await;
    }
    let mut channels = BTreeSet::new();
    while channels.len() < 200 {
        let told = numbered(&receiver.next().await);
        channels.extend(told.into_iter().map(|(channel, _)| channel));
    }
}
