//! A node that Redis cannot reach is not the truth; when it is back, both sides agree.

use super::roster::{Watcher, all_agree, all_list};
use super::{RECOVERY, SHORT_LEASES};
use crate::client::Client;
use crate::proxy::Proxy;
use crate::redis::RedisServer;
use crate::request::Call;
use crate::world::{App, DEADLINE, World, eventually, eventually_within};
use serde_json::json;
use std::time::Duration;

/// Two nodes, of which the first has its Redis behind a wire that can be broken.
fn world_on_a_wire(app: &App) -> (World, Proxy, RedisServer) {
    world_on_a_wire_with(app, SHORT_LEASES)
}

fn world_on_a_wire_with(app: &App, config: &str) -> (World, Proxy, RedisServer) {
    let redis = RedisServer::start();
    let wire = Proxy::to(redis.address());
    let world = World::builder()
        .nodes(2)
        .config(config)
        .redis(&redis.url())
        .node_env(0, "DUNLIN_REDIS_URL", &format!("redis://{}", wire.address))
        .app(app)
        .troubled()
        .start();
    (world, wire, redis)
}

async fn converges_after(break_wire: impl FnOnce(&Proxy)) {
    let app = App::new(1);
    let (world, wire, _redis) = world_on_a_wire(&app);
    let (a, b) = world.pair();
    let mut inside = Watcher::join(a, &app, "presence-a", "inside").await;
    let mut outside = Watcher::join(b, &app, "presence-a", "outside").await;
    let mut clients = Vec::new();
    for (node, user) in [(a, "leaves-a"), (b, "leaves-b"), (a, "both"), (b, "both")] {
        let mut client = Client::connect_to(node, &app).await;
        client.join("presence-a", user).await;
        clients.push(client);
    }
    let all = ["both", "inside", "leaves-a", "leaves-b", "outside"];
    inside.sees(&all, DEADLINE).await;
    outside.sees(&all, DEADLINE).await;

    break_wire(&wire);
    outside.sees(&["both", "leaves-b", "outside"], RECOVERY).await;
    eventually("the node that is cut off says so", || async {
        (!a.is_ready()).then_some(())
    })
    .await;
    let event = json!({ "name": "e", "channels": ["presence-a"], "data": "x" });
    let answer = Call::post(&app, "/events", &event).send_to(a.address).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(b.is_ready(), "the other node is whole");
    // Meanwhile on either side: one leaves; and one comes, on the side where that is possible.
    clients.remove(1).leave().await;
    clients.remove(0).leave().await;
    let mut newcomer = Client::connect_to(b, &app).await;
    newcomer.join("presence-a", "comes-b").await;
    outside.sees(&["both", "comes-b", "outside"], DEADLINE).await;

    wire.heal();
    let truth = ["both", "comes-b", "inside", "outside"];
    let ready = eventually_within(RECOVERY, || async { a.is_ready().then_some(()) }).await;
    assert!(ready.is_some(), "still not ready");
    // Those on the node that was cut off are told what they missed.
    let mut watchers = [inside, outside];
    all_agree(&[a, b], &mut watchers, &truth, RECOVERY).await;
    all_agree(&[b, a], &mut watchers, &truth, RECOVERY).await;
}

#[tokio::test]
async fn both_sides_agree_after_every_packet_was_lost_for_a_while() {
    converges_after(Proxy::stall).await;
}

#[tokio::test]
async fn both_sides_agree_after_no_connection_was_possible_for_a_while() {
    converges_after(Proxy::refuse).await;
}

#[tokio::test]
async fn connections_that_break_are_made_again_and_nobody_notices() {
    let app = App::new(1);
    let (world, wire, _redis) = world_on_a_wire(&app);
    let (a, b) = world.pair();
    let mut inside = Watcher::join(a, &app, "presence-a", "inside").await;
    let mut outside = Watcher::join(b, &app, "presence-a", "outside").await;
    inside.sees(&["inside", "outside"], DEADLINE).await;
    for round in 0..5 {
        wire.cut();
        for node in [a, b] {
            let name = format!("e{round}");
            let body = json!({ "name": name, "channels": ["presence-a"], "data": "x" });
            let accepted = eventually_within(Duration::from_secs(3), || async {
                let answer = Call::post(&app, "/events", &body).send_to(node.address).await;
                (answer.status == 200).then_some(())
            })
            .await;
            assert!(accepted.is_some(), "round {round}: still refused");
            // One whose answer was lost may have been published too: at least once, and nothing else.
            outside.client.expect(&name).await;
            inside.client.expect(&name).await;
        }
        while outside
            .client
            .next_within(Duration::from_millis(100))
            .await
            .is_some()
        {}
        while inside
            .client
            .next_within(Duration::from_millis(100))
            .await
            .is_some()
        {}
    }
    all_list(&[a, b], &app, "presence-a", &["inside", "outside"], RECOVERY).await;
    inside.expect_quiet().await;
    outside.expect_quiet().await;
}

#[tokio::test]
async fn events_that_were_on_their_way_when_the_wire_broke_still_arrive() {
    const EVENTS: usize = 50;
    let app = App::new(1);
    // Its lease outlives the trouble: for Redis the node is there, and what was sent to it counts as received.
    let (world, wire, _redis) = world_on_a_wire_with(&app, "");
    let (a, b) = world.pair();
    let mut clients = [
        Client::connect_to(a, &app).await,
        Client::connect_to(b, &app).await,
    ];
    for client in &mut clients {
        client.subscribe("pub").await;
    }
    for round in 0..2 {
        wire.stall();
        for number in 0..EVENTS {
            b.publish(&app, "pub", "e", &format!("{round}:{number}")).await;
        }
        eventually("the node gives its connections up", || async {
            (!a.is_ready()).then_some(())
        })
        .await;
        wire.heal();
        for client in &mut clients {
            for number in 0..EVENTS {
                assert_eq!(client.expect("e").await.text(), format!("{round}:{number}"));
            }
        }
        eventually("the node is back", || async { a.is_ready().then_some(()) }).await;
    }
    b.publish(&app, "pub", "last", "").await;
    for client in &mut clients {
        client.expect("last").await;
    }
}

#[tokio::test]
async fn a_slow_way_to_redis_changes_nothing_but_the_time() {
    let app = App::new(1);
    let (world, wire, _redis) = world_on_a_wire(&app);
    let (a, b) = world.pair();
    wire.delay(Duration::from_millis(50));
    let mut inside = Watcher::join(a, &app, "presence-a", "inside").await;
    let mut outside = Watcher::join(b, &app, "presence-a", "outside").await;
    let mut clients = Vec::new();
    for number in 0..10 {
        let node = if number % 2 == 0 { a } else { b };
        let mut client = Client::connect_to(node, &app).await;
        client.join("presence-a", &format!("u{number}")).await;
        clients.push(client);
    }
    let users: Vec<String> = (0..10).map(|number| format!("u{number}")).collect();
    let mut all: Vec<&str> = users.iter().map(String::as_str).collect();
    all.extend(["inside", "outside"]);
    all.sort_unstable();
    inside.sees(&all, DEADLINE).await;
    outside.sees(&all, DEADLINE).await;
    for number in 0..20 {
        let node = if number % 2 == 0 { a } else { b };
        node.publish(&app, "presence-a", "e", &number.to_string()).await;
    }
    for watcher in [&mut inside, &mut outside] {
        for number in 0..20 {
            assert_eq!(watcher.client.expect("e").await.text(), number.to_string());
        }
    }
    for client in clients {
        client.leave().await;
    }
    inside.sees(&["inside", "outside"], DEADLINE).await;
    outside.sees(&["inside", "outside"], DEADLINE).await;
    all_list(&[a, b], &app, "presence-a", &["inside", "outside"], DEADLINE).await;
}
