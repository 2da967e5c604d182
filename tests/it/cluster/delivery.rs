//! Events reach the subscribers of every node, once each and in one order.

use super::shared;
use crate::client::{Client, Event};
use crate::request::{Call, Http};
use crate::world::{App, World};
use serde_json::json;

#[tokio::test]
async fn what_is_published_on_any_of_three_nodes_is_heard_on_all() {
    let app = App::new(1);
    let world = World::builder().nodes(3).app(&app).start();
    let mut clients = Vec::new();
    for node in &world.nodes {
        let mut client = Client::connect_to(node, &app).await;
        client.subscribe("pub").await;
        clients.push(client);
    }
    for (number, node) in world.nodes.iter().enumerate() {
        node.publish(&app, "pub", "e", &format!("from {number}")).await;
        for client in &mut clients {
            assert_eq!(
                client.expect_on("pub", "e").await.text(),
                format!("from {number}")
            );
        }
    }
}

#[tokio::test]
async fn a_thousand_events_of_one_connection_arrive_in_their_order_on_both_nodes() {
    let (world, app) = shared();
    let (a, b) = world.pair();
    let mut clients = [
        Client::connect_to(a, &app).await,
        Client::connect_to(b, &app).await,
    ];
    for client in &mut clients {
        client.subscribe("pub").await;
    }
    let mut http = Http::open(a.address).await;
    for number in 0..1000 {
        let body = json!({ "name": "e", "channels": ["pub"], "data": number.to_string() });
        http.send(&Call::post(&app, "/events", &body).bytes()).await;
        http.answer().await.expect("an answer").assert(200, "{}");
    }
    for client in &mut clients {
        for number in 0..1000 {
            assert_eq!(client.expect("e").await.text(), number.to_string());
        }
        client.expect_quiet().await;
    }
}

#[tokio::test]
async fn publishers_on_both_nodes_are_heard_in_one_order_on_both() {
    let (world, app) = shared();
    let mut clients = Vec::new();
    for node in world.nodes.iter().cycle().take(4) {
        let mut client = Client::connect_to(node, &app).await;
        client.subscribe("pub").await;
        clients.push(client);
    }
    let publishers = world.nodes.iter().cycle().take(6).enumerate().map(|(own, node)| {
        let app = &app;
        async move {
            for number in 0..50 {
                node.publish(app, "pub", "e", &format!("{own}:{number}")).await;
            }
        }
    });
    futures_util::future::join_all(publishers).await;
    let mut orders = Vec::new();
    for client in &mut clients {
        let mut order = Vec::new();
        for _ in 0..300 {
            order.push(client.expect("e").await.text().to_owned());
        }
        client.expect_quiet().await;
        orders.push(order);
    }
    assert!(
        orders.windows(2).all(|pair| pair[0] == pair[1]),
        "subscribers differ about the order"
    );
}

#[tokio::test]
async fn a_subscriber_hears_everything_that_is_published_after_its_confirmation() {
    let (world, app) = shared();
    let (a, b) = world.pair();
    // A channel per round: each is new to the other node.
    for round in 0..50 {
        let channel = format!("pub-{round}");
        let mut client = Client::connect_to(b, &app).await;
        client.subscribe(&channel).await;
        a.publish(&app, &channel, "e", "x").await;
        client.expect_on(&channel, "e").await;
    }
}

#[tokio::test]
async fn a_channel_that_was_left_can_be_entered_again_at_once() {
    let (world, app) = shared();
    let (a, b) = world.pair();
    let mut client = Client::connect_to(b, &app).await;
    for round in 0..30 {
        client.subscribe("pub").await;
        a.publish(&app, "pub", &format!("e{round}"), "x").await;
        client.expect_on("pub", &format!("e{round}")).await;
        client.unsubscribe("pub").await;
        client.expect_quiet().await;
        a.publish(&app, "pub", "not-heard", "x").await;
    }
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_batch_crosses_nodes() {
    let (world, app) = shared();
    let (a, b) = world.pair();
    let mut client = Client::connect_to(b, &app).await;
    client.subscribe("one").await;
    client.subscribe("two").await;
    let batch = json!({ "batch": [
        { "name": "first", "channel": "one", "data": "1" },
        { "name": "second", "channel": "two", "data": "2" },
    ] });
    let answer = Call::post(&app, "/batch_events", &batch).send_to(a.address).await;
    answer.assert(200, "{}");
    let mut heard = [client.next().await, client.next().await];
    heard.sort_by(|left, right| left.name.cmp(&right.name));
    let text = |event: &Event| event.text().to_owned();
    assert_eq!(heard.each_ref().map(text), ["1", "2"]);
}

#[tokio::test]
async fn the_excluded_socket_is_left_out_wherever_it_is() {
    let (world, app) = shared();
    let (a, b) = world.pair();
    let mut excluded = Client::connect_to(b, &app).await;
    let mut others = [
        Client::connect_to(a, &app).await,
        Client::connect_to(b, &app).await,
    ];
    excluded.subscribe("pub").await;
    for client in &mut others {
        client.subscribe("pub").await;
    }
    let body =
        json!({ "name": "to-others", "channels": ["pub"], "data": "x", "socket_id": excluded.socket_id });
    let answer = Call::post(&app, "/events", &body).send_to(a.address).await;
    answer.assert(200, "{}");
    a.publish(&app, "pub", "to-all", "x").await;
    for client in &mut others {
        client.expect_on("pub", "to-others").await;
        client.expect_on("pub", "to-all").await;
    }
    excluded.expect_on("pub", "to-all").await;
}

#[tokio::test]
async fn a_client_event_reaches_everybody_but_its_sender() {
    let (world, app) = shared();
    let (a, b) = world.pair();
    let mut sender = Client::connect_to(a, &app).await;
    let mut others = [
        Client::connect_to(a, &app).await,
        Client::connect_to(b, &app).await,
    ];
    sender.subscribe("private-a").await;
    for client in &mut others {
        client.subscribe("private-a").await;
    }
    sender.trigger("private-a", "client-x", json!({ "n": 1 })).await;
    for client in &mut others {
        assert_eq!(
            client.expect_on("private-a", "client-x").await.text(),
            r#"{"n":1}"#
        );
    }
    // Behind its own event in the channel's order.
    a.publish(&app, "private-a", "marker", "x").await;
    sender.expect_on("private-a", "marker").await;
}

#[tokio::test]
async fn a_client_event_names_its_user_on_the_other_node() {
    let (world, app) = shared();
    let (a, b) = world.pair();
    let mut sender = Client::connect_to(a, &app).await;
    sender.join("presence-a", "sender").await;
    let mut receiver = Client::connect_to(b, &app).await;
    receiver.join("presence-a", "receiver").await;
    sender.expect("pusher_internal:member_added").await;
    sender.trigger("presence-a", "client-x", json!("x")).await;
    let event = receiver.expect_on("presence-a", "client-x").await;
    assert_eq!(event.user_id.as_deref(), Some("sender"));
}

#[tokio::test]
async fn data_crosses_byte_for_byte() {
    let (world, app) = shared();
    let (a, b) = world.pair();
    let mut client = Client::connect_to(b, &app).await;
    client.subscribe("pub").await;
    for data in [
        "",
        r#"{"b": 1,  "a":"é\u00e9"}"#,
        "\u{0}\u{1f600}\"\\\r\n",
        &"d".repeat(10_240),
    ] {
        a.publish(&app, "pub", "e", data).await;
        assert_eq!(client.expect_on("pub", "e").await.text(), data);
    }
}
