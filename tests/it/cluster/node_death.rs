//! A node that dies, or seems to, takes its members with it: soon, once each, and nobody else.

use super::roster::{Watcher, all_list};
use super::{RECOVERY, SHORT_LEASES};
use crate::client::Client;
use crate::node::Node;
use crate::world::{App, DEADLINE, World, eventually_within};
use rustix::process::Signal;
use serde_json::json;
use std::time::Duration;

const COUNT: &str = "pusher_internal:subscription_count";

fn short_leases(app: &App) -> World {
    World::builder()
        .nodes(2)
        .config(SHORT_LEASES)
        .app(app)
        .troubled()
        .start()
}

async fn members(node: &Node, app: &App, users: &[String]) -> Vec<Client> {
    let mut clients = Vec::new();
    for chunk in users.chunks(50) {
        let joining = chunk.iter().map(|user| async move {
            let mut client = Client::connect_to(node, app).await;
            client.join("presence-a", user).await;
            client
        });
        clients.extend(futures_util::future::join_all(joining).await);
    }
    clients
}

#[tokio::test]
async fn the_thousand_members_of_a_killed_node_are_removed_once_each() {
    let app = App::new(1).limit("presence_members = 0");
    // The members read nothing, which is not what this is about.
    let world = World::builder()
        .nodes(2)
        .config("[sockets]\noutbox_bytes = 67108864\nwrite_stall_ms = 600000")
        .app(&app)
        .troubled()
        .start();
    let (a, b) = world.pair();
    let mut watcher = Watcher::join(b, &app, "presence-a", "watcher").await;
    let users: Vec<String> = (0..1000).map(|number| format!("u{number:04}")).collect();
    let _doomed = members(a, &app, &users).await;
    // One of them is on the other node too.
    let mut survivor = Client::connect_to(b, &app).await;
    survivor.join("presence-a", "u0500").await;
    let mut all: Vec<&str> = users.iter().map(String::as_str).chain(["watcher"]).collect();
    all.sort_unstable();
    watcher.sees(&all, DEADLINE * 2).await;
    all_list(&[a, b], &app, "presence-a", &all, DEADLINE).await;
    a.kill();
    let took = watcher.sees(&["u0500", "watcher"], RECOVERY).await;
    assert!(took <= RECOVERY, "{took:?}");
    all_list(&[b], &app, "presence-a", &["u0500", "watcher"], DEADLINE).await;
    watcher.expect_quiet().await;
    survivor.leave().await;
    watcher.sees(&["watcher"], DEADLINE).await;
    watcher.expect_quiet().await;
}

#[tokio::test]
async fn the_channels_and_counts_of_a_killed_node_are_gone() {
    let app = App::counting(1);
    let world = short_leases(&app);
    let (a, b) = world.pair();
    let mut watcher = Client::connect_to(b, &app).await;
    watcher.subscribe("pub").await;
    let mut doomed = Vec::new();
    for number in 0..20 {
        let mut client = Client::connect_to(a, &app).await;
        for channel in ["pub", &format!("own-{number}")] {
            client.ask(channel, None).await;
            while client.next().await.name != "pusher_internal:subscription_succeeded" {}
        }
        doomed.push(client);
    }
    for count in 1..=21 {
        let event = watcher.expect_on("pub", COUNT).await;
        assert_eq!(event.json(), json!({ "subscription_count": count }));
    }
    a.kill();
    let exact = eventually_within(RECOVERY, || async {
        let list = b.get(&app, "/channels", &[("info", "subscription_count")]).await;
        (list.json() == json!({ "channels": { "pub": { "subscription_count": 1 } } })).then_some(())
    })
    .await;
    assert!(exact.is_some(), "{}", b.get(&app, "/channels", &[]).await.text());
    loop {
        let event = watcher.expect_on("pub", COUNT).await;
        if event.json() == json!({ "subscription_count": 1 }) {
            break;
        }
    }
    watcher.expect_quiet().await;
}

#[tokio::test]
async fn a_node_that_is_asked_to_end_takes_everything_with_it_at_once() {
    let app = App::counting(1);
    // Nothing of this is left to the end of the lease.
    let world = World::builder()
        .nodes(2)
        .config("[redis]\nlease_ms = 60000\n[server]\ndrain_window_ms = 200\nshutdown_timeout_ms = 4000")
        .app(&app)
        .start();
    let (a, b) = world.pair();
    let mut watcher = Watcher::join(b, &app, "presence-a", "watcher").await;
    let mut tabs = Vec::new();
    for (node, user) in [(a, "leaves"), (a, "stays"), (b, "stays")] {
        let mut client = Client::connect_to(node, &app).await;
        client.join("presence-a", user).await;
        client.subscribe("private-a").await;
        tabs.push(client);
    }
    watcher.sees(&["leaves", "stays", "watcher"], DEADLINE).await;
    a.signal(Signal::TERM);
    watcher.sees(&["stays", "watcher"], DEADLINE).await;
    let status = a.exit_within(DEADLINE).await.expect("the process ends");
    assert!(status.success(), "{status}");
    all_list(&[b], &app, "presence-a", &["stays", "watcher"], DEADLINE).await;
    let info = [("info", "subscription_count")];
    let answer = b.get(&app, "/channels/private-a", &info).await.json();
    assert_eq!(answer, json!({ "occupied": true, "subscription_count": 1 }));
    watcher.expect_quiet().await;
}

#[tokio::test]
async fn a_node_that_is_killed_and_started_again_is_a_new_one() {
    let app = App::new(1);
    let world = short_leases(&app);
    let (a, b) = world.pair();
    let mut watcher = Watcher::join(b, &app, "presence-a", "watcher").await;
    for round in 0..3 {
        let mut ghost = Client::connect_to(a, &app).await;
        ghost.join("presence-a", "ghost").await;
        watcher.sees(&["ghost", "watcher"], DEADLINE).await;
        a.kill();
        a.restart();
        // Back before the old lease is over: the member on the new node is not taken with the old one.
        let mut back = Client::connect_to(a, &app).await;
        back.join("presence-a", "back").await;
        watcher.sees(&["back", "watcher"], RECOVERY).await;
        all_list(&[a, b], &app, "presence-a", &["back", "watcher"], DEADLINE).await;
        b.publish(&app, "presence-a", "marker", "x").await;
        // The ghost may have gone before its eyes.
        while back.next().await.name != "marker" {}
        watcher.client.expect_on("presence-a", "marker").await;
        back.leave().await;
        watcher.sees(&["watcher"], DEADLINE).await;
        assert!(watcher.present.len() == 1, "round {round}");
    }
    watcher.expect_quiet().await;
}

#[tokio::test]
async fn all_nodes_but_one_may_die_at_once() {
    let app = App::new(1);
    let world = World::builder()
        .nodes(4)
        .config(SHORT_LEASES)
        .app(&app)
        .troubled()
        .start();
    let last = &world.nodes[3];
    let mut watcher = Watcher::join(last, &app, "presence-a", "watcher").await;
    let mut doomed = Vec::new();
    for (number, node) in world.nodes[..3].iter().cycle().take(30).enumerate() {
        let mut client = Client::connect_to(node, &app).await;
        // Each user is on several of the nodes that die.
        client.join("presence-a", &format!("u{}", number % 10)).await;
        doomed.push(client);
    }
    for node in &world.nodes[..3] {
        node.kill();
    }
    let wanted: Vec<String> = (0..10).map(|number| format!("u{number}")).collect();
    let mut all: Vec<&str> = wanted.iter().map(String::as_str).collect();
    all.push("watcher");
    watcher.sees(&all, DEADLINE).await;
    watcher.sees(&["watcher"], RECOVERY).await;
    all_list(&[last], &app, "presence-a", &["watcher"], DEADLINE).await;
    watcher.expect_quiet().await;
}

#[tokio::test]
async fn the_members_of_a_stopped_node_leave_once_and_return_once() {
    let app = App::new(1);
    let world = short_leases(&app);
    let (a, b) = world.pair();
    let mut watcher = Watcher::join(b, &app, "presence-a", "watcher").await;
    let mut frozen = Vec::new();
    for number in 0..20 {
        let mut client = Client::connect_to(a, &app).await;
        client.join("presence-a", &format!("u{number:02}")).await;
        frozen.push(client);
    }
    let mut twin = Client::connect_to(b, &app).await;
    twin.join("presence-a", "u07").await;
    let users: Vec<String> = (0..20).map(|number| format!("u{number:02}")).collect();
    let mut all: Vec<&str> = users.iter().map(String::as_str).collect();
    all.push("watcher");
    watcher.sees(&all, DEADLINE).await;
    a.pause();
    // Longer than the lease.
    watcher.sees(&["u07", "watcher"], RECOVERY).await;
    all_list(&[b], &app, "presence-a", &["u07", "watcher"], DEADLINE).await;
    a.resume();
    watcher.sees(&all, RECOVERY).await;
    all_list(&[a, b], &app, "presence-a", &all, RECOVERY).await;
    watcher.expect_quiet().await;
    // The sockets have stayed, and hear again.
    b.publish(&app, "presence-a", "marker", "x").await;
    for client in &mut frozen {
        while client.next().await.name != "marker" {}
    }
    for client in frozen {
        client.leave().await;
    }
    watcher.client.expect_on("presence-a", "marker").await;
    watcher.sees(&["u07", "watcher"], DEADLINE).await;
    watcher.expect_quiet().await;
}

#[tokio::test]
async fn a_stop_that_is_shorter_than_the_lease_is_not_noticed() {
    let app = App::new(1);
    let world = World::builder().nodes(2).app(&app).start();
    let (a, b) = world.pair();
    let mut watcher = Watcher::join(b, &app, "presence-a", "watcher").await;
    let mut member = Client::connect_to(a, &app).await;
    member.join("presence-a", "member").await;
    watcher.sees(&["member", "watcher"], DEADLINE).await;
    a.pause();
    // The other node keeps working meanwhile; this is about as long as it takes.
    for _ in 0..100 {
        b.publish(&app, "presence-a", "e", "x").await;
        watcher.client.expect("e").await;
    }
    a.resume();
    for _ in 0..100 {
        member.expect("e").await;
    }
    assert!(
        watcher.client.next_within(Duration::from_secs(1)).await.is_none(),
        "something was made of it"
    );
    member.expect_quiet().await;
}
