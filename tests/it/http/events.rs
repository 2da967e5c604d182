//! Publishing to one channel, to many, to all but one.

use crate::client::Client;
use crate::request::Call;
use crate::world::{shared, shared_counting};
use serde_json::json;

#[tokio::test]
async fn an_event_reaches_every_subscriber_as_a_string() {
    let (world, app) = shared();
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(world, &app).await;
        client.subscribe("pub").await;
        clients.push(client);
    }
    let answer = Call::post(
        &app,
        "/events",
        &json!({ "name": "my-event", "channels": ["pub"], "data": "{\"a\":1}" }),
    )
    .send(world)
    .await;
    assert_eq!((answer.status, answer.text().trim()), (200, "{}"));
    assert!(
        answer
            .header("content-type")
            .is_some_and(|value| value.starts_with("application/json"))
    );
    for client in &mut clients {
        let event = client.expect_on("pub", "my-event").await;
        assert_eq!((event.text(), event.user_id.as_deref()), ("{\"a\":1}", None));
    }
}

#[tokio::test]
async fn one_name_may_come_as_channel() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.subscribe("pub").await;
    let body = json!({ "name": "e", "channel": "pub", "data": "x" });
    Call::post(&app, "/events", &body)
        .send(world)
        .await
        .assert(200, "{}");
    client.expect_on("pub", "e").await;
}

#[tokio::test]
async fn a_name_given_twice_is_delivered_once() {
    let (world, app) = shared_counting();
    let mut client = Client::connect(world, &app).await;
    client.join("presence-a", "u").await;
    let body = json!({ "name": "e", "channels": ["presence-a", "presence-a"], "data": "x", "info": "subscription_count" });
    let answer = Call::post(&app, "/events", &body).send(world).await.json();
    assert_eq!(
        answer,
        json!({ "channels": { "presence-a": { "subscription_count": 1 } } })
    );
    client.expect_on("presence-a", "e").await;
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_hundred_channels_each_get_it() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    let channels: Vec<String> = (0..100).map(|number| format!("c{number}")).collect();
    for channel in &channels {
        client.subscribe(channel).await;
    }
    let body = json!({ "name": "e", "channels": channels, "data": "x" });
    Call::post(&app, "/events", &body)
        .send(world)
        .await
        .assert(200, "{}");
    let mut heard = Vec::new();
    for _ in &channels {
        heard.push(client.expect("e").await.channel.expect("a channel event"));
    }
    heard.sort();
    let mut expected = channels;
    expected.sort();
    assert_eq!(heard, expected);
}

#[tokio::test]
async fn the_excluded_socket_does_not_get_it_and_an_unknown_one_is_fine() {
    let (world, app) = shared();
    let mut excluded = Client::connect(world, &app).await;
    let mut other = Client::connect(world, &app).await;
    excluded.subscribe("pub").await;
    other.subscribe("pub").await;
    for (name, socket_id) in [
        ("e", excluded.socket_id.as_str()),
        ("to-all", "987654321.123456789"),
    ] {
        let body = json!({ "name": name, "channels": ["pub"], "data": "x", "socket_id": socket_id });
        Call::post(&app, "/events", &body)
            .send(world)
            .await
            .assert(200, "{}");
    }
    other.expect("e").await;
    other.expect("to-all").await;
    excluded.expect("to-all").await;
}

#[tokio::test]
async fn a_null_socket_id_or_info_counts_as_absent() {
    let (world, app) = shared();
    let body = json!({ "name": "e", "channels": ["pub"], "data": "x", "socket_id": null });
    Call::post(&app, "/events", &body)
        .send(world)
        .await
        .assert(200, "{}");
}

#[tokio::test]
async fn info_has_one_entry_per_channel_also_for_empty_ones() {
    let (world, app) = shared_counting();
    let mut client = Client::connect(world, &app).await;
    client.join("presence-a", "u").await;
    let body = json!({
        "name": "e", "channels": ["presence-a", "pub", "presence-b"], "data": "x", "info": "user_count,subscription_count",
    });
    let answer = Call::post(&app, "/events", &body).send(world).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({ "channels": {
            "presence-a": { "user_count": 1, "subscription_count": 1 },
            "pub": { "subscription_count": 0 },
            "presence-b": { "user_count": 0, "subscription_count": 0 },
        } })
    );
    let body = json!({ "name": "e", "channels": ["pub"], "data": "x", "info": "user_count" });
    let answer = Call::post(&app, "/events", &body).send(world).await.json();
    assert_eq!(answer, json!({ "channels": { "pub": {} } }));
}

#[tokio::test]
async fn events_of_one_connection_arrive_in_their_order() {
    let (world, app) = shared();
    let mut clients = [
        Client::connect(world, &app).await,
        Client::connect(world, &app).await,
    ];
    for client in &mut clients {
        client.subscribe("pub").await;
    }
    let mut http = crate::request::Http::open(world.address).await;
    for number in 0..200 {
        let body = json!({ "name": "e", "channels": ["pub"], "data": number.to_string() });
        http.send(&Call::post(&app, "/events", &body).bytes()).await;
        http.answer().await.expect("an answer").assert(200, "{}");
    }
    for client in &mut clients {
        for number in 0..200 {
            assert_eq!(client.expect("e").await.text(), number.to_string());
        }
    }
}

#[tokio::test]
async fn all_subscribers_see_the_events_of_many_publishers_in_one_order() {
    let (world, app) = shared();
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = Client::connect(world, &app).await;
        client.subscribe("pub").await;
        clients.push(client);
    }
    let publishers = (0..5).map(|publisher| {
        let app = &app;
        async move {
            for number in 0..40 {
                world
                    .publish(app, "pub", "e", &format!("{publisher}:{number}"))
                    .await;
            }
        }
    });
    futures_util::future::join_all(publishers).await;
    let mut orders = Vec::new();
    for client in &mut clients {
        let mut order = Vec::new();
        for _ in 0..200 {
            order.push(client.expect("e").await.text().to_owned());
        }
        orders.push(order);
    }
    assert!(
        orders.windows(2).all(|pair| pair[0] == pair[1]),
        "subscribers differ about the order"
    );
}

#[tokio::test]
async fn channel_events_carry_no_more_than_the_three_members() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.subscribe("pub").await;
    world.publish(&app, "pub", "e", "x").await;
    let event = client.expect("e").await;
    let raw: serde_json::Value = serde_json::from_str(&event.raw).expect("JSON");
    assert_eq!(raw, json!({ "event": "e", "channel": "pub", "data": "x" }));
}
