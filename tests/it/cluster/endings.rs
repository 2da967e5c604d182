//! However a connection ends, the others hear of it at once, also on the other node.

use super::roster::{Watcher, all_list};
use super::shared;
use crate::client::{Client, QUERY};
use crate::proxy::Proxy;
use crate::websocket::Draft;
use crate::world::{App, DEADLINE, World};
use std::time::Duration;

/// The bar that is never to be passed. What is usual is far below.
const BAR: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_member_is_removed_on_the_other_node_however_its_connection_ends() {
    let (world, app) = shared();
    let (a, b) = world.pair();
    let mut watcher = Watcher::join(b, &app, "presence-a", "watcher").await;
    for way in [
        "close",
        "fin",
        "rst",
        "half close",
        "protocol error",
        "oversize",
        "unsubscribe",
    ] {
        let mut member = Client::connect_to(a, &app).await;
        member.join("presence-a", way).await;
        let mut both = ["watcher", way];
        both.sort_unstable();
        watcher.sees(&both, DEADLINE).await;
        // Kept to the end of the round, so that only what the way says ends it.
        let kept = match way {
            "close" => {
                member.leave().await;
                None
            }
            "fin" => {
                member.socket.abandon();
                None
            }
            "rst" => {
                member.socket.reset();
                None
            }
            "half close" => {
                member.socket.half_close().await;
                Some(member)
            }
            "protocol error" => {
                member.socket.send(&[0xff; 14]).await;
                Some(member)
            }
            "oversize" => {
                let frame = Draft::text("x".repeat(70_000));
                member.socket.send_frame(&frame).await;
                Some(member)
            }
            _ => {
                member.unsubscribe("presence-a").await;
                Some(member)
            }
        };
        watcher.sees(&["watcher"], BAR).await;
        all_list(&[a, b], &app, "presence-a", &["watcher"], BAR).await;
        drop(kept);
    }
    watcher.expect_quiet().await;
}

#[tokio::test]
async fn a_silent_peer_is_given_up_and_removed_on_the_other_node() {
    let app = App::new(1);
    let world = World::builder()
        .nodes(2)
        .node_env(0, "DUNLIN_SOCKETS__ACTIVITY_TIMEOUT_S", "1")
        .node_env(0, "DUNLIN_SOCKETS__PONG_TIMEOUT_S", "1")
        .app(&app)
        .start();
    let (a, b) = world.pair();
    let mut watcher = Watcher::join(b, &app, "presence-a", "watcher").await;
    let wire = Proxy::to(a.address);
    let mut silent = Client::connect_at(wire.address, &app, QUERY).await;
    silent.join("presence-a", "silent").await;
    watcher.sees(&["silent", "watcher"], DEADLINE).await;
    wire.stall();
    watcher.sees(&["watcher"], Duration::from_secs(15)).await;
    all_list(&[a, b], &app, "presence-a", &["watcher"], DEADLINE).await;
}
