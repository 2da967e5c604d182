//! Apps whose connections must show within a time that they are somebody.

use crate::client::Client;
use crate::world::{App, World};
use std::time::{Duration, Instant};

fn strict() -> (World, App) {
    let app = App::new(1).with("authorized_connections = 1");
    (World::with_app(&app), app)
}

#[tokio::test]
async fn a_connection_that_shows_nothing_is_closed_with_4009() {
    let (world, app) = strict();
    let start = Instant::now();
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("pub").await;
    let (code, _, before) = client.closed().await;
    assert_eq!(code, 4009);
    before
        .last()
        .expect("an error first")
        .assert_error(Some(4009), "Connection not authorized within timeout");
    assert!(
        start.elapsed() > Duration::from_millis(900),
        "{:?}",
        start.elapsed()
    );
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[tokio::test]
async fn signing_in_or_joining_a_private_or_presence_channel_is_enough() {
    let (world, app) = strict();
    let mut signed_in = Client::connect(&world, &app).await;
    signed_in.sign_in("u").await;
    let mut private = Client::connect(&world, &app).await;
    private.subscribe("private-a").await;
    let mut presence = Client::connect(&world, &app).await;
    presence.join("presence-a", "u").await;
    // One that shows nothing measures the time for the others.
    let mut idle = Client::connect(&world, &app).await;
    idle.closed().await;
    for client in [&mut signed_in, &mut private, &mut presence] {
        client.expect_quiet().await;
    }
}

#[tokio::test]
async fn an_unauthorized_connection_does_not_count_towards_the_quota() {
    let app = App::new(1)
        .with("authorized_connections = 30")
        .limit("connections = 1");
    let world = World::with_app(&app);
    let _idle = [
        Client::connect(&world, &app).await,
        Client::connect(&world, &app).await,
    ];
    let mut authorized = Client::connect(&world, &app).await;
    authorized.sign_in("u").await;
    authorized.expect_quiet().await;
}
