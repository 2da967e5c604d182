//! What `dunlin webhooks` says of a world.

use crate::cli::run;
use crate::world::{World, eventually};
use serde_json::Value;
use std::process::Command;

/// Exit code, standard output and standard error. Not on the thread that the test's own clients need.
pub(super) async fn output(mut command: Command) -> (Option<i32>, String, String) {
    tokio::task::spawn_blocking(move || run(&mut command))
        .await
        .expect("the command was waited for")
}

pub(super) async fn webhooks(world: &World, arguments: &[&str]) -> (Option<i32>, String, String) {
    output(world.nodes[0].command(&[&["webhooks"], arguments].concat())).await
}

/// Standard output of what succeeds.
pub(super) async fn said(world: &World, arguments: &[&str]) -> String {
    let (code, out, err) = webhooks(world, arguments).await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments:?}: {out}");
    out
}

/// The deliveries that the filters of `list` leave, newest first.
pub(super) async fn listed(world: &World, filters: &[&str]) -> Vec<Value> {
    let (code, out, err) = webhooks(world, &[&["list", "--json"], filters].concat()).await;
    assert_eq!(code, Some(0), "{err}");
    let lines = out.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("lines of JSON")
}

/// The deliveries of an endpoint of app 1 that are in this state, newest first.
pub(super) async fn deliveries(world: &World, endpoint: &str, state: &str) -> Vec<Value> {
    listed(world, &["--app", "1", "--endpoint", endpoint, "--state", state]).await
}

/// The only delivery of an endpoint of app 1 in this state, as soon as there is one.
pub(super) async fn the_one(world: &World, endpoint: &str, state: &str) -> Value {
    let found = eventually(state, || async {
        let found = deliveries(world, endpoint, state).await;
        (!found.is_empty()).then_some(found)
    });
    let [one] = <[Value; 1]>::try_from(found.await).expect("one delivery");
    one
}

/// All that is known of a delivery.
pub(super) async fn shown(world: &World, id: &str) -> Value {
    serde_json::from_str(&said(world, &["show", id, "--json"]).await).expect("it is JSON")
}
