//! The connection quota of an app is one for all nodes.

use super::{RECOVERY, SHORT_LEASES};
use crate::client::{Client, QUERY};
use crate::node::Node;
use crate::world::{App, World, eventually, eventually_within};

async fn is_full(node: &Node, app: &App) -> bool {
    match Client::try_connect_at(node.address, app, QUERY).await {
        Ok(client) => {
            client.leave().await;
            false
        }
        Err(refusal) => {
            refusal.assert_error(Some(4004), "");
            true
        }
    }
}

/// Connects as soon as there is a place.
async fn next_free(node: &Node, app: &App) -> Client {
    eventually("a place becomes free", || async {
        Client::try_connect_at(node.address, app, QUERY).await.ok()
    })
    .await
}

#[tokio::test]
async fn places_are_counted_over_all_nodes_and_freed_ones_can_be_taken_anywhere() {
    let app = App::new(1).limit("connections = 3");
    let world = World::builder().nodes(2).app(&app).start();
    let (a, b) = world.pair();
    let mut clients = Vec::new();
    for node in [a, b, a] {
        clients.push(Client::connect_to(node, &app).await);
    }
    for round in 0..10 {
        assert!(is_full(a, &app).await && is_full(b, &app).await, "round {round}");
        // From either node in turn, with and without a goodbye, to the other one.
        let leaver = clients.remove(0);
        if round % 3 == 0 {
            leaver.socket.abandon();
        } else {
            leaver.leave().await;
        }
        let node = if round % 2 == 0 { b } else { a };
        clients.push(next_free(node, &app).await);
    }
    for client in &mut clients {
        client.expect_quiet().await;
    }
}

#[tokio::test]
async fn a_crowd_on_both_nodes_gets_exactly_the_places_there_are() {
    let app = App::new(1).limit("connections = 20");
    let world = World::builder().nodes(2).app(&app).start();
    let attempts = (0..60).map(|number| {
        let node = &world.nodes[number % 2];
        Client::try_connect_at(node.address, &app, QUERY)
    });
    let (granted, refused): (Vec<_>, Vec<_>) = futures_util::future::join_all(attempts)
        .await
        .into_iter()
        .partition(Result::is_ok);
    assert_eq!((granted.len(), refused.len()), (20, 40));
    for refusal in refused.into_iter().filter_map(Result::err) {
        refusal.assert_error(Some(4004), "");
    }
}

#[tokio::test]
async fn the_places_of_a_dead_node_come_back() {
    let app = App::new(1).limit("connections = 3");
    let world = World::builder()
        .nodes(2)
        .config(SHORT_LEASES)
        .app(&app)
        .troubled()
        .start();
    let (a, b) = world.pair();
    let mut held = Vec::new();
    for node in [a, b, a] {
        held.push(Client::connect_to(node, &app).await);
    }
    assert!(is_full(b, &app).await);
    a.kill();
    // Two of the three were the dead node's.
    for _ in 0..2 {
        let taken = eventually_within(RECOVERY, || async {
            Client::try_connect_at(b.address, &app, QUERY).await.ok()
        })
        .await;
        held.push(taken.expect("the places come back"));
    }
    assert!(is_full(b, &app).await);
    a.restart();
    assert!(is_full(a, &app).await && is_full(b, &app).await);
    held.pop().expect("some are held").leave().await;
    next_free(a, &app).await.leave().await;
}
