//! Ending the connections of a user over the HTTP API.

use crate::client::Client;
use crate::request::Call;
use crate::world::shared;
use serde_json::json;

#[tokio::test]
async fn every_connection_signed_in_as_the_user_is_closed_with_4009() {
    let (world, app) = shared();
    let mut tabs = [
        Client::connect(world, &app).await,
        Client::connect(world, &app).await,
    ];
    for tab in &mut tabs {
        tab.sign_in("u1").await;
    }
    let mut other = Client::connect(world, &app).await;
    other.sign_in("u2").await;
    let mut member = Client::connect(world, &app).await;
    member.join("presence-a", "u1").await;
    let answer = Call::post(&app, "/users/u1/terminate_connections", &json!({}))
        .send(world)
        .await;
    assert_eq!((answer.status, answer.text().trim()), (200, "{}"));
    for tab in &mut tabs {
        let (code, _, before) = tab.closed().await;
        assert_eq!(code, 4009);
        before
            .last()
            .expect("an error first")
            .assert_error(Some(4009), "You got disconnected by the app.");
    }
    other.expect_quiet().await;
    member.expect_quiet().await;
}

#[tokio::test]
async fn a_user_without_connections_is_no_error_and_a_body_is_not_needed() {
    let (world, app) = shared();
    for call in [
        Call::post(&app, "/users/nobody/terminate_connections", &json!({})),
        Call::post_bytes(&app, "/users/nobody/terminate_connections", ""),
    ] {
        let answer = call.send(world).await;
        assert_eq!((answer.status, answer.text().trim()), (200, "{}"));
    }
}

#[tokio::test]
async fn the_user_may_come_back() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.sign_in("u1").await;
    Call::post(&app, "/users/u1/terminate_connections", &json!({}))
        .send(world)
        .await
        .assert(200, "{}");
    client.closed().await;
    Client::connect(world, &app).await.sign_in("u1").await;
}

#[tokio::test]
async fn a_percent_encoded_user_is_decoded() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.sign_in("u@x;1").await;
    Call::post(&app, "/users/u%40x%3B1/terminate_connections", &json!({}))
        .send(world)
        .await
        .assert(200, "{}");
    assert_eq!(client.closed().await.0, 4009);
}
