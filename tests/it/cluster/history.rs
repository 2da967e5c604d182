//! What was accepted on a channel with history can be had from every node, whatever died in between; what cannot be had
//! is said to be lost.

use super::RECOVERY;
use crate::client::Client;
use crate::node::Node;
use crate::proxy::Proxy;
use crate::redis::{Data, RedisServer};
use crate::request::Call;
use crate::world::{App, World, eventually_within};
use serde_json::{Value, json};
use std::time::Duration;

const CHANNEL: &str = "orders";

/// A subscriber that knows its place, as the helper for pusher-js keeps it.
struct Reader {
    client: Client,
    position: String,
    heard: Vec<String>,
    /// It was told that it has missed something for good.
    has_lost: bool,
}

impl Reader {
    async fn start(node: &Node, app: &App) -> Self {
        Self::connect(node, app, None, Vec::new()).await
    }

    /// On another connection, from where this one is; what it has not read yet is not read any more.
    async fn come_back(self, node: &Node) -> Self {
        let Self {
            client,
            position,
            heard,
            ..
        } = self;
        Self::connect(node, &client.app.clone(), Some(&position), heard).await
    }

    async fn connect(node: &Node, app: &App, position: Option<&str>, heard: Vec<String>) -> Self {
        let mut client = Client::connect_to(node, app).await;
        if let Some(position) = position {
            let asked = json!({ "position": position });
            client.trigger(CHANNEL, "pusher:resume", asked).await;
        }
        client.subscribe(CHANNEL).await;
        let mut reader = Self {
            client,
            position: String::new(),
            heard,
            has_lost: false,
        };
        reader.read_one(RECOVERY).await;
        reader
    }

    /// Takes one message in. Returns whether there was one.
    async fn read_one(&mut self, limit: Duration) -> bool {
        let Some(event) = self.client.next_within(limit).await else {
            return false;
        };
        assert_eq!(event.channel.as_deref(), Some(CHANNEL), "{}", event.raw);
        match event.name.as_str() {
            "pusher_internal:recovered" => {
                let told = event.json();
                self.has_lost |= told["recovered"] == false;
                position_of(&told).clone_into(&mut self.position);
            }
            "pusher_internal:position" => position_of(&event.json()).clone_into(&mut self.position),
            _ => self.heard.push(event.text().to_owned()),
        }
        true
    }

    async fn read_up_to(&mut self, last: &str) {
        while self.heard.last().is_none_or(|heard| heard != last) {
            assert!(
                self.read_one(RECOVERY).await,
                "{last} never came; the last was {:?}",
                self.heard.last()
            );
        }
    }
}

fn position_of(told: &Value) -> &str {
    told["position"]
        .as_str()
        .unwrap_or_else(|| panic!("no position: {told}"))
}

async fn try_publish(node: &Node, app: &App, data: &str) -> bool {
    let body = json!({ "name": "e", "channels": [CHANNEL], "data": data });
    let answer = Call::post(app, "/events", &body).send_to(node.address).await;
    assert!([200, 503].contains(&answer.status), "{}", answer.text());
    answer.status == 200
}

/// Publishes so many, each again and again until it is accepted; which ones were accepted, under which data.
async fn publish(node: &Node, app: &App, what: &str, count: usize) -> Vec<String> {
    let mut accepted = Vec::new();
    for number in 0..count {
        let data = format!("{what}:{number}");
        node.publish(app, CHANNEL, "e", &data).await;
        accepted.push(data);
    }
    accepted
}

/// Insists that all that was accepted was heard, in that order and once; what was refused may have been heard too.
#[track_caller]
fn assert_complete(heard: &[String], accepted: &[String]) {
    let known: Vec<&String> = heard.iter().filter(|data| accepted.contains(data)).collect();
    let missing: Vec<&String> = accepted.iter().filter(|data| !heard.contains(data)).collect();
    assert!(missing.is_empty(), "accepted and never heard: {missing:?}");
    assert!(
        known.iter().copied().eq(accepted),
        "twice or out of order: {known:?} instead of {accepted:?}"
    );
}

/// The data of all events that this node has in the channel's history, the oldest first.
async fn history(node: &Node, app: &App) -> Vec<String> {
    let query = [("direction", "forwards"), ("limit", "1000")];
    let answer = node
        .get(app, &format!("/channels/{CHANNEL}/history"), &query)
        .await;
    answer.assert(200, "");
    answer.json()["events"]
        .as_array()
        .expect("a page has events")
        .iter()
        .map(|event| event["data"].as_str().expect("data is a text").to_owned())
        .collect()
}

#[tokio::test]
async fn every_node_has_the_same_history() {
    let app = App::new(1).history("*");
    let world = World::builder().nodes(2).app(&app).start();
    let (a, b) = world.pair();
    let mut all = publish(a, &app, "a", 5).await;
    all.extend(publish(b, &app, "b", 5).await);
    for node in [a, b] {
        assert_eq!(history(node, &app).await, all);
    }
    a.kill();
    a.restart();
    assert_eq!(history(a, &app).await, all);
}

#[tokio::test]
async fn a_reader_goes_on_at_the_other_node_where_it_was() {
    let app = App::new(1).history("*");
    let world = World::builder().nodes(2).app(&app).start();
    let (a, b) = world.pair();
    let mut reader = Reader::start(a, &app).await;
    let mut all = Vec::new();
    for round in 0..6 {
        let (near, far) = if round % 2 == 0 { (a, b) } else { (b, a) };
        all.extend(publish(far, &app, &format!("{round}-read"), 5).await);
        reader.read_up_to(all.last().expect("some were published")).await;
        all.extend(publish(near, &app, &format!("{round}-missed"), 5).await);
        reader = reader.come_back(far).await;
        assert!(!reader.has_lost, "round {round}");
    }
    reader.read_up_to(all.last().expect("some were published")).await;
    assert_complete(&reader.heard, &all);
    assert_eq!(history(b, &app).await, all);
}

#[tokio::test]
async fn a_reader_loses_nothing_when_its_node_is_killed_amid_publishing() {
    let app = App::new(1).history("*");
    let world = World::builder().nodes(2).app(&app).troubled().start();
    let (a, b) = world.pair();
    for round in 0..3 {
        let mut reader = Reader::start(a, &app).await;
        let what = round.to_string();
        let publishing = publish(b, &app, &what, 200);
        let reading = async {
            reader.read_up_to(&format!("{round}:60")).await;
            a.kill();
            let mut reader = reader.come_back(b).await;
            assert!(!reader.has_lost);
            reader.read_up_to(&format!("{round}:199")).await;
            reader
        };
        let (accepted, reader) = futures_util::future::join(publishing, reading).await;
        assert_complete(&reader.heard, &accepted);
        a.restart();
    }
}

#[tokio::test]
async fn what_a_durable_redis_has_acknowledged_survives_its_death() {
    let app = App::new(1).history("*");
    let redis = RedisServer::options().durable().start();
    let world = World::builder()
        .nodes(2)
        .redis(&redis.url())
        .app(&app)
        .troubled()
        .start();
    let (a, b) = world.pair();
    let mut readers = [Reader::start(a, &app).await, Reader::start(b, &app).await];
    let mut accepted = Vec::new();
    for round in 0..4 {
        for number in 0..60 {
            if number == 30 {
                redis.kill();
                // Both nodes find out for themselves.
                assert!(!try_publish(a, &app, "refused").await);
                assert!(!try_publish(b, &app, "refused").await);
                redis.restart(Data::Kept);
            }
            let data = format!("{round}:{number}");
            let node = [a, b][number % 2];
            if try_publish(node, &app, &data).await {
                accepted.push(data);
            }
        }
        // The last of a round is one that counts.
        let data = format!("{round}:end");
        let end = eventually_within(Duration::from_secs(3), || async {
            try_publish(a, &app, &data).await.then_some(())
        })
        .await;
        assert!(end.is_some(), "still refused");
        for reader in &mut readers {
            reader.read_up_to(&data).await;
        }
        accepted.push(data);
    }
    for reader in readers {
        assert!(!reader.has_lost);
        // One that was refused and made again is there twice.
        let mut heard = reader.heard;
        heard.dedup();
        assert_complete(&heard, &accepted);
    }
    let mut kept = history(b, &app).await;
    kept.dedup();
    assert_complete(&kept, &accepted);
}

#[tokio::test]
async fn a_redis_that_forgot_is_said_to_have_forgotten() {
    let app = App::new(1).history("*");
    let redis = RedisServer::start();
    let world = World::builder()
        .nodes(2)
        .redis(&redis.url())
        .app(&app)
        .troubled()
        .start();
    let (a, b) = world.pair();
    let mut reader = Reader::start(a, &app).await;
    let first = publish(a, &app, "before", 5).await;
    reader.read_up_to(&first[2]).await;
    let position = reader.position.clone();
    redis.ask::<()>("FLUSHALL");
    let flows = eventually_within(Duration::from_secs(3), || async {
        try_publish(a, &app, "after").await.then_some(())
    });
    assert!(flows.await.is_some(), "still refused");
    for node in [a, b] {
        let late = Reader::connect(node, &app, Some(&position), Vec::new()).await;
        assert!(late.has_lost, "from {position} to {}", late.position);
        assert!(late.heard.is_empty(), "{:?}", late.heard);
        assert_ne!(epoch(&late.position), epoch(&position));
    }
    // Who stayed hears the rest, and sees from its place that what lies between is not known.
    reader.read_up_to("after").await;
    assert_ne!(epoch(&reader.position), epoch(&position));
}

fn epoch(position: &str) -> &str {
    position.split(':').next().unwrap_or_default()
}

/// Two nodes, of which the second has its Redis behind a wire that can be broken.
fn world_on_a_wire(app: &App) -> (World, Proxy) {
    let redis = RedisServer::shared();
    let wire = Proxy::to(redis.address());
    let world = World::builder()
        .nodes(2)
        .node_env(1, "DUNLIN_REDIS_URL", &format!("redis://{}", wire.address))
        .app(app)
        .troubled()
        .start();
    (world, wire)
}

#[tokio::test]
async fn a_node_that_was_cut_off_makes_up_for_what_its_readers_missed() {
    let app = App::new(1).history("*");
    let (world, wire) = world_on_a_wire(&app);
    let (a, b) = world.pair();
    let mut reader = Reader::start(b, &app).await;
    let mut all = Vec::new();
    let ways: [fn(&Proxy); 3] = [Proxy::cut, Proxy::refuse, Proxy::stall];
    for (round, break_wire) in ways.into_iter().enumerate() {
        all.extend(publish(a, &app, &format!("{round}-before"), 20).await);
        break_wire(&wire);
        all.extend(publish(a, &app, &format!("{round}-during"), 100).await);
        wire.heal();
        all.extend(publish(a, &app, &format!("{round}-after"), 20).await);
        reader.read_up_to(all.last().expect("some were published")).await;
        assert!(!reader.has_lost, "round {round}");
        assert_complete(&reader.heard, &all);
    }
}

#[tokio::test]
async fn readers_are_told_what_cannot_be_made_up_for() {
    let app = App::new(1).with("history = [{ channels = \"*\", size = 5, age_s = 120 }]");
    let (world, wire) = world_on_a_wire(&app);
    let (a, b) = world.pair();
    let mut reader = Reader::start(b, &app).await;
    let before = publish(a, &app, "before", 3).await;
    reader.read_up_to(&before[2]).await;
    wire.refuse();
    // More than is kept.
    let during = publish(a, &app, "during", 40).await;
    wire.heal();
    reader.read_up_to(&during[39]).await;
    assert!(
        reader.heard.len() == 43 || reader.has_lost,
        "a silent gap: {:?}",
        reader.heard
    );
}
