//! Malformed requests, each properly signed, each with its exact status.

use crate::client::Client;
use crate::request::{Call, Http};
use crate::world::{App, World, shared};
use serde_json::{Value, json};

/// Sends every body on one connection and reports each that is not answered as expected.
async fn check(world: &World, app: &App, rest: &str, table: Vec<(String, Vec<u8>, u16)>) {
    let mut http = Http::open(world.address).await;
    let mut failures = Vec::new();
    for (what, body, status) in table {
        http.send(&Call::post_bytes(app, rest, body).bytes()).await;
        let Some(answer) = http.answer().await else {
            failures.push(format!("{what}: no answer"));
            http = Http::open(world.address).await;
            continue;
        };
        if answer.status != status {
            failures.push(format!(
                "{what}: {} instead of {status}: {}",
                answer.status,
                answer.text().trim()
            ));
        }
        if answer.status >= 400 && !answer.text().ends_with('\n') {
            failures.push(format!(
                "{what}: the text has no line feed at its end: {:?}",
                answer.text()
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    world.assert_calm();
}

/// Values of every type that a JSON field can have.
fn values() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(1e300),
        json!(""),
        json!("text"),
        json!([]),
        json!([1]),
        json!([null]),
        json!([[]]),
        json!({}),
        json!({ "a": 1 }),
    ]
}

fn invalid_channels() -> Vec<String> {
    let mut names: Vec<String> = [
        "",
        " ",
        "a b",
        "foo\n",
        "\nfoo",
        "a/b",
        "a:b",
        "a#b",
        "#",
        "#private-a",
        "#server-to-user-",
        "#server-to-user-a b",
        "a!b",
        "a*",
        "é",
        "日本",
        "a\0",
        "a%41",
        "a\\b",
        "a\"b",
        "a+b",
        "<b>",
        "a?b",
        "a&b",
        "{a}",
        "a|b",
        "~a",
        "^a",
        "a\u{feff}",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("x".repeat(201));
    names.push(format!("private-{}", "x".repeat(193)));
    names
}

fn good() -> Value {
    json!({ "name": "e", "channels": ["pub"], "data": "x" })
}

fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

fn without(mut body: Value, field: &str) -> Value {
    body.as_object_mut().expect("an object").remove(field);
    body
}

/// Every field of an event with every wrong value; `nest` puts the event into the request.
fn wrong_fields(event: &Value, nest: impl Fn(Value) -> Value) -> Vec<(String, Vec<u8>, u16)> {
    let mut table = Vec::new();
    let mut add = |what: String, event: Value, status: u16| {
        table.push((what, nest(event).to_string().into_bytes(), status));
    };
    for field in ["name", "data"] {
        add(format!("no {field}"), without(event.clone(), field), 400);
        for value in values().into_iter().filter(|value| !value.is_string()) {
            add(
                format!("{field} = {value}"),
                with(event.clone(), field, value),
                400,
            );
        }
    }
    add(
        "empty name".to_owned(),
        with(event.clone(), "name", json!("")),
        400,
    );
    add(
        "name of 201".to_owned(),
        with(event.clone(), "name", json!("n".repeat(201))),
        400,
    );
    add(
        "name of 200".to_owned(),
        with(event.clone(), "name", json!("n".repeat(200))),
        200,
    );
    add(
        "any characters".to_owned(),
        with(event.clone(), "name", json!("App\\Events\\X \u{1} é")),
        200,
    );
    for name in [
        "pusher:x",
        "pusher_internal:x",
        "pusher",
        "pusher:",
        "pusher_internal:subscription_succeeded",
    ] {
        add(
            format!("name {name}"),
            with(event.clone(), "name", json!(name)),
            400,
        );
    }
    add(
        "empty data".to_owned(),
        with(event.clone(), "data", json!("")),
        200,
    );
    add(
        "data of 10240".to_owned(),
        with(event.clone(), "data", json!("d".repeat(10_240))),
        200,
    );
    add(
        "data of 10241".to_owned(),
        with(event.clone(), "data", json!("d".repeat(10_241))),
        413,
    );
    add(
        "data of 5121 times two bytes".to_owned(),
        with(event.clone(), "data", json!("é".repeat(5121))),
        413,
    );
    add(
        "data of 10240 escaped".to_owned(),
        with(event.clone(), "data", json!("\u{1}".repeat(10_240))),
        200,
    );
    for value in values().into_iter().filter(|value| !value.is_null()) {
        add(
            format!("socket_id = {value}"),
            with(event.clone(), "socket_id", value),
            400,
        );
    }
    for id in [
        "1",
        "1.",
        ".1",
        "1.2.3",
        "a.b",
        "1.2\n",
        " 1.2",
        "1,2",
        "-1.2",
        "1.-2",
        "1.2:private-a",
        "１.２",
        "1.2e3",
    ] {
        add(
            format!("socket_id {id:?}"),
            with(event.clone(), "socket_id", json!(id)),
            400,
        );
    }
    for info in [
        "x",
        "user_count,x",
        "users",
        "USER_COUNT",
        "user_count subscription_count",
        "occupied",
    ] {
        add(
            format!("info {info:?}"),
            with(event.clone(), "info", json!(info)),
            400,
        );
    }
    for value in [json!(1), json!(true), json!(["user_count"]), json!({})] {
        add(format!("info = {value}"), with(event.clone(), "info", value), 400);
    }
    table
}

#[tokio::test]
async fn every_wrong_field_of_an_event_is_400_or_413() {
    let (world, app) = shared();
    let mut table = wrong_fields(&good(), |event| event);
    let mut add = |what: String, body: &Value, status: u16| {
        table.push((what, body.to_string().into_bytes(), status));
    };
    add("no channels".to_owned(), &without(good(), "channels"), 400);
    for value in values().into_iter().filter(|value| !value.is_string()) {
        add(
            format!("channels = {value}"),
            &with(good(), "channels", value.clone()),
            400,
        );
        add(
            format!("channel = {value}"),
            &with(without(good(), "channels"), "channel", value),
            400,
        );
    }
    for name in invalid_channels() {
        add(
            format!("channels [{name:?}]"),
            &with(good(), "channels", json!([name])),
            400,
        );
        add(
            format!("channels [ok, {name:?}]"),
            &with(good(), "channels", json!(["ok", name])),
            400,
        );
        add(
            format!("channel {name:?}"),
            &with(without(good(), "channels"), "channel", json!(name)),
            400,
        );
    }
    let names = |count: usize| json!((0..count).map(|number| format!("c{number}")).collect::<Vec<_>>());
    add(
        "100 channels".to_owned(),
        &with(good(), "channels", names(100)),
        200,
    );
    add(
        "101 channels".to_owned(),
        &with(good(), "channels", names(101)),
        400,
    );
    add(
        "two channels, one encrypted".to_owned(),
        &with(good(), "channels", json!(["a", "private-encrypted-a"])),
        400,
    );
    let encrypted = json!(["private-encrypted-a", "private-encrypted-b"]);
    add(
        "two encrypted channels".to_owned(),
        &with(good(), "channels", encrypted),
        400,
    );
    add(
        "one encrypted channel".to_owned(),
        &with(good(), "channels", json!(["private-encrypted-a"])),
        200,
    );
    add(
        "unknown fields".to_owned(),
        &with(good(), "more", json!({ "x": [1] })),
        200,
    );
    assert!(table.len() >= 150, "only {} cases", table.len());
    check(world, &app, "/events", table).await;
}

#[tokio::test]
async fn every_wrong_field_of_a_batch_is_400_or_413() {
    let (world, app) = shared();
    let event = json!({ "name": "e", "channel": "pub", "data": "x" });
    let mut table = wrong_fields(&event, |event| json!({ "batch": [event] }));
    let mut add = |what: String, body: &Value, status: u16| {
        table.push((what, body.to_string().into_bytes(), status));
    };
    add("no batch".to_owned(), &json!({}), 400);
    for value in values().into_iter().filter(|value| *value != json!([])) {
        add(format!("batch = {value}"), &json!({ "batch": value }), 400);
    }
    for value in values() {
        add(
            format!("batch = [good, {value}]"),
            &json!({ "batch": [event, value] }),
            400,
        );
        if !value.is_string() {
            add(
                format!("channel = {value}"),
                &json!({ "batch": [with(event.clone(), "channel", value)] }),
                400,
            );
        }
    }
    for name in invalid_channels() {
        add(
            format!("channel {name:?}"),
            &json!({ "batch": [with(event.clone(), "channel", json!(name))] }),
            400,
        );
    }
    add(
        "ten events".to_owned(),
        &json!({ "batch": vec![event.clone(); 10] }),
        200,
    );
    add(
        "eleven events".to_owned(),
        &json!({ "batch": vec![event.clone(); 11] }),
        400,
    );
    let large = with(event.clone(), "data", json!("d".repeat(10_241)));
    add(
        "the last one too large".to_owned(),
        &json!({ "batch": [event, large] }),
        413,
    );
    assert!(table.len() >= 100, "only {} cases", table.len());
    check(world, &app, "/batch_events", table).await;
}

#[tokio::test]
async fn what_is_not_json_is_400() {
    let (world, app) = shared();
    let nested = |open: &str, depth: usize| open.repeat(depth).into_bytes();
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("a space", b" ".to_vec()),
        ("text", b"hello".to_vec()),
        ("null", b"null".to_vec()),
        ("a number", b"1".to_vec()),
        ("a string", b"\"x\"".to_vec()),
        ("an array", b"[]".to_vec()),
        ("an open brace", b"{".to_vec()),
        ("half an event", br#"{"name":"e","channels":["pub"]"#.to_vec()),
        (
            "a trailing comma",
            br#"{"name":"e","channels":["pub"],"data":"x",}"#.to_vec(),
        ),
        (
            "something after it",
            br#"{"name":"e","channels":["pub"],"data":"x"} x"#.to_vec(),
        ),
        (
            "two values",
            br#"{"name":"e","channels":["pub"],"data":"x"}{}"#.to_vec(),
        ),
        (
            "single quotes",
            b"{'name':'e','channels':['pub'],'data':'x'}".to_vec(),
        ),
        (
            "a comment",
            br#"{/**/"name":"e","channels":["pub"],"data":"x"}"#.to_vec(),
        ),
        (
            "a byte order mark",
            b"\xef\xbb\xbf{\"name\":\"e\",\"channels\":[\"pub\"],\"data\":\"x\"}".to_vec(),
        ),
        (
            "bytes that are not UTF-8",
            b"{\"name\":\"e\",\"channels\":[\"pub\"],\"data\":\"\xff\"}".to_vec(),
        ),
        (
            "an encoded surrogate",
            b"{\"name\":\"e\",\"channels\":[\"pub\"],\"data\":\"\xed\xa0\x80\"}".to_vec(),
        ),
        (
            "a lone surrogate escape",
            br#"{"name":"e","channels":["pub"],"data":"\ud800"}"#.to_vec(),
        ),
        (
            "a bad escape",
            br#"{"name":"e","channels":["pub"],"data":"\x41"}"#.to_vec(),
        ),
        (
            "a raw line feed in a string",
            b"{\"name\":\"e\",\"channels\":[\"pub\"],\"data\":\"a\nb\"}".to_vec(),
        ),
        ("a form", b"name=e&channels[]=pub&data=x".to_vec()),
        ("only zeros", vec![0; 100]),
        ("100000 arrays", nested("[", 100_000)),
        ("100000 objects", nested("{\"a\":", 100_000)),
        ("NaN", br#"{"name":"e","channels":["pub"],"data":NaN}"#.to_vec()),
    ];
    let table: Vec<_> = bodies
        .into_iter()
        .map(|(what, body)| (what.to_owned(), body, 400))
        .collect();
    check(world, &app, "/events", table.clone()).await;
    check(world, &app, "/batch_events", table).await;
}

#[tokio::test]
async fn a_refused_request_delivers_nothing_of_itself() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.subscribe("pub").await;
    let bad_channel = json!({ "name": "bad", "channels": ["pub", "a b"], "data": "x" });
    Call::post(&app, "/events", &bad_channel)
        .send(world)
        .await
        .assert(400, "Invalid channel name");
    let event = |name: &str, channel: &str| json!({ "name": name, "channel": channel, "data": "x" });
    let batch = json!({ "batch": [event("bad", "pub"), event("bad", "a b")] });
    Call::post(&app, "/batch_events", &batch)
        .send(world)
        .await
        .assert(400, "");
    world.publish(&app, "pub", "marker", "x").await;
    client.expect_on("pub", "marker").await;
}

#[tokio::test]
async fn the_texts_are_those_of_the_hosted_service() {
    let (world, app) = shared();
    let post = async |rest: &str, body: Value| Call::post(&app, rest, &body).send(world).await;
    post("/events", without(good(), "name"))
        .await
        .assert(400, "Expected name parameter to be a string\n");
    post("/events", with(good(), "name", json!(1)))
        .await
        .assert(400, "Expected name parameter to be a string\n");
    post("/events", with(good(), "channels", json!(["a b"])))
        .await
        .assert(400, "Invalid channel name");
    let large = with(good(), "data", json!("d".repeat(10_241)));
    post("/events", large).await.assert(
        413,
        "The data content of this event exceeds the allowed maximum (10240 bytes). See ",
    );
    let batch = vec![json!({ "name": "e", "channel": "a", "data": "x" }); 11];
    post("/batch_events", json!({ "batch": batch }))
        .await
        .assert(400, "Batch too large");
    world
        .get(&app, "/channels", &[("info", "nonsense")])
        .await
        .assert(400, "info should be a comma separated list of attributes");
    world
        .get(&app, "/channels/presence-a/users", &[("info", "x")])
        .await
        .assert(400, "The following query string parameters are extraneous: info");
}
