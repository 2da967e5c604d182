//! What a client may send as a message, whatever it means.

use crate::client::Client;
use crate::world::shared;
use serde_json::json;

#[tokio::test]
async fn data_of_a_command_may_be_a_string_that_holds_json() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client
        .send_text(r#"{"event":"pusher:subscribe","data":"{\"channel\":\"pub\",\"auth\":\"\"}"}"#)
        .await;
    client
        .expect_on("pub", "pusher_internal:subscription_succeeded")
        .await;
}

#[tokio::test]
async fn any_order_of_keys_and_unknown_keys_are_accepted() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client
        .send_text(r#" { "x": [1, {"y": null}], "data": {"z": 1.5e300, "channel": "pub"}, "event": "pusher:subscribe" } "#)
        .await;
    client
        .expect_on("pub", "pusher_internal:subscription_succeeded")
        .await;
}

#[tokio::test]
async fn escapes_in_names_mean_what_they_mean_in_json() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client
        .send_text(r#"{"\u0065vent":"pusher\u003asubscribe","data":{"ch\u0061nnel":"\u0070ub"}}"#)
        .await;
    client
        .expect_on("pub", "pusher_internal:subscription_succeeded")
        .await;
}

#[tokio::test]
async fn what_is_not_json_is_answered_with_an_error_and_the_connection_stays() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    for text in [
        "",
        " ",
        "{",
        "}",
        "hello",
        "{\"event\":}",
        "{'event':'x'}",
        "\u{feff}{}",
        "{\"event\":\"x\"} x",
        "[",
        "\0",
    ] {
        client.send_text(text).await;
        client.expect_error(None, "Invalid JSON").await;
    }
    client.expect_quiet().await;
}

#[tokio::test]
async fn json_that_is_no_message_is_answered_with_an_error_and_the_connection_stays() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    for text in [
        "null",
        "1",
        "true",
        "\"text\"",
        "[]",
        "{}",
        "{\"event\":1}",
        "{\"event\":null}",
        "{\"event\":{}}",
        "{\"data\":{}}",
    ] {
        client.send_text(text).await;
        client.expect_error(None, "").await;
    }
    client.expect_quiet().await;
}

#[tokio::test]
async fn an_unknown_event_is_named_in_the_error() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    for name in [
        "foo",
        "pusher:foo",
        "pusher_internal:subscription_succeeded",
        "client",
        "Client-x",
        "",
        "message",
    ] {
        client
            .send(json!({ "event": name, "channel": "pub", "data": {} }))
            .await;
        client
            .expect_error(None, &format!("Unsupported event received on socket: {name}"))
            .await;
    }
}
