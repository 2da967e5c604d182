//! Users who signed in are known on every node.

use super::{RECOVERY, SHORT_LEASES, shared};
use crate::client::Client;
use crate::request::Call;
use crate::sight::Sight;
use crate::world::{App, World};
use serde_json::json;

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
    let mut watcher = Sight::open(Client::connect_to(a, &app).await, "1", &["2", "3"]).await;
    watcher.sees(&["2"]).await;
    let mut tab = Client::connect_to(b, &app).await;
    tab.sign_in("3").await;
    watcher.sees(&["2", "3"]).await;
    // The same user on the watcher's own node is no news, neither coming nor, as long as the other is there, going.
    let mut other_tab = Client::connect_to(a, &app).await;
    other_tab.sign_in("3").await;
    other_tab.leave().await;
    early.leave().await;
    watcher.sees(&["3"]).await;
    tab.leave().await;
    watcher.sees(&[]).await;
    watcher.client.expect_quiet().await;
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
    let mut watcher = Sight::open(Client::connect_to(b, &app).await, "w", &["kept", "lost"]).await;
    watcher.sees(&["kept", "lost"]).await;
    a.kill();
    watcher.sees_within(RECOVERY, &["kept"]).await;
    watcher.client.expect_quiet().await;
}
