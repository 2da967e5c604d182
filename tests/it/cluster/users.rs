//! Users who signed in are known on every node.

use super::{SHORT_LEASES, shared};
use crate::client::{Client, Event};
use crate::request::Call;
use crate::world::{App, World};
use serde_json::{Value, json};
use std::time::Duration;

const WATCH: &str = "pusher_internal:watchlist_events";

async fn watch(client: &mut Client, id: &str, list: &[&str]) -> Value {
    client
        .ask_sign_in(&json!({ "id": id, "watchlist": list }).to_string())
        .await;
    client.expect("pusher:signin_success").await;
    events(&client.expect(WATCH).await)
}

fn events(event: &Event) -> Value {
    event.json()["events"].clone()
}

#[tokio::test]
async fn events_to_a_user_reach_its_connections_on_every_node() {
    let (world, app) = shared();
    let (a, b) = world.pair();
    let mut tabs = [
        Client::connect_to(a, &app).await,
        Client::connect_to(b, &app).await,
    ];
    for tab in &mut tabs {
        tab.sign_in("u1").await;
        tab.subscribe("#server-to-user-u1").await;
    }
    let mut other = Client::connect_to(b, &app).await;
    other.sign_in("u2").await;
    other.subscribe("#server-to-user-u2").await;
    for node in [a, b] {
        node.publish(&app, "#server-to-user-u1", "hello", "x").await;
        for tab in &mut tabs {
            tab.expect_on("#server-to-user-u1", "hello").await;
        }
    }
    other.expect_quiet().await;
}

#[tokio::test]
async fn terminating_a_user_closes_its_connections_on_every_node() {
    let (world, app) = shared();
    let (a, b) = world.pair();
    for asked in [a, b] {
        let mut tabs = [
            Client::connect_to(a, &app).await,
            Client::connect_to(b, &app).await,
            Client::connect_to(b, &app).await,
        ];
        for tab in &mut tabs {
            tab.sign_in("u1").await;
        }
        let mut others = [
            Client::connect_to(a, &app).await,
            Client::connect_to(b, &app).await,
        ];
        others[0].sign_in("u2").await;
        Call::post(&app, "/users/u1/terminate_connections", &json!({}))
            .send_to(asked.address)
            .await
            .assert(200, "{}");
        for tab in &mut tabs {
            assert_eq!(tab.closed().await.0, 4009);
        }
        for other in &mut others {
            other.expect_quiet().await;
        }
    }
}

#[tokio::test]
async fn a_watcher_is_told_of_users_on_the_other_node() {
    let (world, app) = shared();
    let (a, b) = world.pair();
    let mut early = Client::connect_to(b, &app).await;
    early.sign_in("2").await;
    let mut watcher = Client::connect_to(a, &app).await;
    let first = watch(&mut watcher, "1", &["2", "3"]).await;
    assert_eq!(
        first,
        json!([{ "name": "online", "user_ids": ["2"] }, { "name": "offline", "user_ids": ["3"] }])
    );
    let mut tab = Client::connect_to(b, &app).await;
    tab.sign_in("3").await;
    assert_eq!(
        events(&watcher.expect(WATCH).await),
        json!([{ "name": "online", "user_ids": ["3"] }])
    );
    // The same user on the watcher's own node is no news, neither coming nor, as long as the other is there, going.
    let mut other_tab = Client::connect_to(a, &app).await;
    other_tab.sign_in("3").await;
    tab.leave().await;
    watcher.expect_quiet().await;
    other_tab.leave().await;
    assert_eq!(
        events(&watcher.expect(WATCH).await),
        json!([{ "name": "offline", "user_ids": ["3"] }])
    );
    watcher.expect_quiet().await;
}

#[tokio::test]
async fn the_users_of_a_dead_node_go_offline() {
    let app = App::new(1);
    let world = World::builder()
        .nodes(2)
        .config(SHORT_LEASES)
        .app(&app)
        .troubled()
        .start();
    let (a, b) = world.pair();
    let mut lost = Client::connect_to(a, &app).await;
    lost.sign_in("lost").await;
    let mut kept = [
        Client::connect_to(a, &app).await,
        Client::connect_to(b, &app).await,
    ];
    for client in &mut kept {
        client.sign_in("kept").await;
    }
    let mut watcher = Client::connect_to(b, &app).await;
    watch(&mut watcher, "w", &["lost", "kept"]).await;
    a.kill();
    let event = watcher
        .next_within(Duration::from_secs(6))
        .await
        .expect("the watcher is told");
    assert_eq!(
        events(&event),
        json!([{ "name": "offline", "user_ids": ["lost"] }])
    );
    watcher.expect_quiet().await;
}
