//! Sign-in, events to users, watchlists.

use crate::client::Client;
use crate::sight::Sight;
use crate::sign::{hmac_sha256_hex, user_auth};
use crate::world::{App, World, shared};
use serde_json::{Value, json};

const WATCH: &str = "pusher_internal:watchlist_events";

#[tokio::test]
async fn a_sign_in_returns_the_user_data_as_the_text_that_was_sent() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    let data = r#"{"user_info": {"b":1, "a":2},  "id":"u1"}"#;
    client.ask_sign_in(data).await;
    let event = client.expect("pusher:signin_success").await;
    assert_eq!(event.json()["user_data"], data);
    assert_eq!(event.channel, None);
}

#[tokio::test]
async fn a_second_sign_in_succeeds_only_for_the_same_user() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.sign_in("u1").await;
    client.sign_in("u1").await;
    client.ask_sign_in(r#"{"id":"u2"}"#).await;
    client.expect_error(None, "").await;
    client.ask("#server-to-user-u2", None).await;
    client.expect_refusal("#server-to-user-u2", Some(4009), "").await;
}

#[tokio::test]
async fn a_bad_signature_is_answered_with_4009_and_the_connection_is_closed() {
    let (world, app) = shared();
    let data = r#"{"id":"u1"}"#;
    for attempt in 0..6 {
        let mut client = Client::connect(world, &app).await;
        let id = &client.socket_id;
        let auth = match attempt {
            0 => String::new(),
            1 => "nonsense".to_owned(),
            2 => format!("{}:{}", app.key, "0".repeat(64)),
            // Right, but for another connection.
            3 => user_auth(&app, "1.1", data),
            // A channel signature with the same parts.
            4 => format!(
                "{}:{}",
                app.key,
                hmac_sha256_hex(&app.secret, format!("{id}:user:{data}").as_bytes())
            ),
            _ => format!("other{}", user_auth(&app, id, data)),
        };
        client
            .send(json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": data } }))
            .await;
        let (code, _, before) = client.closed().await;
        assert_eq!(code, 4009, "attempt {attempt}");
        before
            .last()
            .expect("an error before the close")
            .assert_error(Some(4009), "");
    }
}

#[tokio::test]
async fn the_right_signature_is_never_printed() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    let data = r#"{"id":"u1"}"#;
    let right = user_auth(&app, &client.socket_id, data);
    let right = right.split(':').nth(1).expect("auth is key:signature").to_owned();
    let auth = format!("{}:abc", app.key);
    client
        .send(json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": data } }))
        .await;
    let (_, reason, before) = client.closed().await;
    assert!(!reason.contains(&right));
    assert!(before.iter().all(|event| !event.raw.contains(&right)));
}

#[tokio::test]
async fn user_data_must_name_a_user_by_a_text_that_can_stand_in_a_channel_name() {
    let (world, app) = shared();
    let long = json!({ "id": "u".repeat(190) }).to_string();
    for data in [
        "",
        "{",
        "{}",
        "null",
        "[]",
        r#"{"id":""}"#,
        r#"{"id":7}"#,
        r#"{"id":null}"#,
        r#"{"id":"a b"}"#,
        r#"{"id":"a#b"}"#,
        r#"{"id":"é"}"#,
        r#"{"id":"u","user_info":[]}"#,
        r#"{"id":"u","user_info":1}"#,
        r#"{"id":"u","watchlist":{}}"#,
        r#"{"id":"u","watchlist":"a"}"#,
        r#"{"id":"u\n"}"#,
        &long,
    ] {
        let mut client = Client::connect(world, &app).await;
        client.ask_sign_in(data).await;
        let event = client.next().await;
        assert_eq!(event.name, "pusher:error", "{data}: {}", event.raw);
    }
    world.assert_calm();
}

#[tokio::test]
async fn events_to_a_user_reach_each_subscribed_connection_of_that_user() {
    let (world, app) = shared();
    let mut tabs = [
        Client::connect(world, &app).await,
        Client::connect(world, &app).await,
    ];
    for tab in &mut tabs {
        tab.sign_in("u1").await;
        tab.ask("#server-to-user-u1", None).await;
        let event = tab
            .expect_on("#server-to-user-u1", "pusher_internal:subscription_succeeded")
            .await;
        assert_eq!(event.text(), "{}");
    }
    let mut unsubscribed = Client::connect(world, &app).await;
    unsubscribed.sign_in("u1").await;
    let mut other = Client::connect(world, &app).await;
    other.sign_in("u2").await;
    other.subscribe("#server-to-user-u2").await;
    world.publish(&app, "#server-to-user-u1", "hello", "x").await;
    for tab in &mut tabs {
        assert_eq!(tab.expect_on("#server-to-user-u1", "hello").await.text(), "x");
    }
    other.expect_quiet().await;
    unsubscribed.expect_quiet().await;
}

#[tokio::test]
async fn only_the_user_itself_may_subscribe_to_its_channel() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    client.ask("#server-to-user-u1", None).await;
    client.expect_refusal("#server-to-user-u1", Some(4009), "").await;
    client.sign_in("u2").await;
    for channel in ["#server-to-user-u1", "#server-to-user-u2x"] {
        client.ask(channel, None).await;
        client.expect_refusal(channel, Some(4009), "").await;
    }
    for channel in ["#server-to-user-", "#Server-to-user-u2", "#u2"] {
        client.ask(channel, None).await;
        client.expect_refusal(channel, None, "").await;
    }
    client.subscribe("#server-to-user-u2").await;
}

/// The groups of a watchlist message, each with its users sorted.
fn groups(event: &crate::client::Event) -> Vec<(String, Vec<String>)> {
    assert_eq!(event.channel, None, "{}", event.raw);
    let texts = |value: &Value| -> Vec<String> {
        let mut list: Vec<String> = value.as_array().expect("a list").iter().map(text).collect();
        list.sort();
        list
    };
    let events = event.json()["events"]
        .as_array()
        .expect("a list of events")
        .clone();
    events
        .iter()
        .map(|entry| (text(&entry["name"]), texts(&entry["user_ids"])))
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn group(name: &str, users: &[&str]) -> (String, Vec<String>) {
    (
        name.to_owned(),
        users.iter().map(|user| (*user).to_owned()).collect(),
    )
}

async fn watch(world: &World, app: &App, id: &str, list: &[&str]) -> Client {
    let mut client = Client::connect(world, app).await;
    client
        .ask_sign_in(&json!({ "id": id, "watchlist": list }).to_string())
        .await;
    client.expect("pusher:signin_success").await;
    client
}

#[tokio::test]
async fn a_watcher_learns_the_state_of_the_whole_list_first() {
    let (world, app) = shared();
    let mut two = Client::connect(world, &app).await;
    two.sign_in("2").await;
    let mut three = Client::connect(world, &app).await;
    three.sign_in("3").await;
    // Two nodes take a moment to know what one knows at once.
    let mut first = Sight::open(Client::connect(world, &app).await, "0", &["2", "3"]).await;
    first.sees(&["2", "3"]).await;
    let mut watcher = watch(world, &app, "1", &["2", "3", "4"]).await;
    let event = watcher.expect(WATCH).await;
    assert_eq!(
        groups(&event),
        [group("online", &["2", "3"]), group("offline", &["4"])]
    );
    let mut watcher = watch(world, &app, "5", &["2"]).await;
    assert_eq!(groups(&watcher.expect(WATCH).await), [group("online", &["2"])]);
    let mut watcher = watch(world, &app, "6", &["nobody"]).await;
    assert_eq!(
        groups(&watcher.expect(WATCH).await),
        [group("offline", &["nobody"])]
    );
}

#[tokio::test]
async fn a_watcher_hears_the_first_sign_in_and_the_last_goodbye() {
    let (world, app) = shared();
    let mut watcher = watch(world, &app, "1", &["2"]).await;
    watcher.expect(WATCH).await;
    let mut tab = Client::connect(world, &app).await;
    tab.sign_in("2").await;
    assert_eq!(groups(&watcher.expect(WATCH).await), [group("online", &["2"])]);
    let mut other_tab = Client::connect(world, &app).await;
    other_tab.sign_in("2").await;
    // Once this is confirmed, also the other node knows of the sign-in before it.
    other_tab.subscribe("#server-to-user-2").await;
    watcher.expect_quiet().await;
    tab.leave().await;
    watcher.expect_quiet().await;
    other_tab.socket.abandon();
    assert_eq!(groups(&watcher.expect(WATCH).await), [group("offline", &["2"])]);
}

#[tokio::test]
async fn watching_goes_one_way() {
    let (world, app) = shared();
    let mut watched = watch(world, &app, "2", &["nobody"]).await;
    watched.expect(WATCH).await;
    let mut watcher = watch(world, &app, "1", &["2"]).await;
    watcher.expect(WATCH).await;
    watched.expect_quiet().await;
}

#[tokio::test]
async fn a_list_of_more_than_a_hundred_is_cut_with_a_word() {
    let (world, app) = shared();
    let ids: Vec<String> = (0..101).map(|number| format!("w{number}")).collect();
    let list: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut watcher = watch(world, &app, "1", &list).await;
    let mut offline = 0;
    for _ in 0..2 {
        let event = watcher.next().await;
        if event.name == "pusher:error" {
            event.assert_error(
                Some(4302),
                "Watchlist limit exceeded. Only the first 100 user IDs are accepted.",
            );
        } else {
            offline = groups(&event)[0].1.len();
        }
    }
    assert_eq!(offline, 100);
    let mut last = Client::connect(world, &app).await;
    last.sign_in("w100").await;
    watcher.expect_quiet().await;
}

#[tokio::test]
async fn an_app_with_the_flag_off_watches_nobody() {
    let app = App::new(1).with("watchlist = false");
    let world = World::with_app(&app);
    let mut watcher = watch(&world, &app, "1", &["2"]).await;
    Client::connect(&world, &app).await.sign_in("2").await;
    watcher.expect_quiet().await;
}
