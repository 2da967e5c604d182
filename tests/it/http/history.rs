//! The past of a channel, in pages.

use crate::client::Client;
use crate::world::{App, World, eventually};
use serde_json::{Value, json};

fn world() -> (World, App) {
    let app = App::new(1).with(
        r#"history = [{ channels = "tiny", size = 2, age_s = 600 }, { channels = "kept-*", size = 1000, age_s = 600 }]"#,
    );
    (World::with_app(&app), app)
}

async fn read(world: &World, app: &App, channel: &str, query: &[(&str, &str)]) -> Value {
    let answer = world
        .get(app, &format!("/channels/{channel}/history"), query)
        .await;
    answer.assert(200, "");
    answer.json()
}

fn names(page: &Value) -> Vec<&str> {
    let events = page["events"].as_array().expect("a page has events");
    events
        .iter()
        .map(|event| event["name"].as_str().expect("an event has a name"))
        .collect()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("no {name}: {value}"))
}

#[tokio::test]
async fn events_are_shown_as_they_were_published() {
    let (world, app) = world();
    let data = r#"{"b": 1,  "a":"é\u00e9"}"#;
    world.publish(&app, "kept-a", "one", data).await;
    world.publish(&app, "kept-a", "two", "x").await;
    let page = read(&world, &app, "kept-a", &[]).await;
    assert_eq!(names(&page), ["two", "one"], "the newest first");
    assert_eq!((&page["complete"], page.get("next")), (&json!(true), None));
    let (two, one) = (&page["events"][0], &page["events"][1]);
    assert_eq!(one["data"], data);
    assert_eq!(one.get("user_id"), None);
    assert_eq!(
        text(two, "position"),
        text(&page, "position"),
        "the channel stands behind the last"
    );
    assert!(one["time_ms"].as_u64() > Some(1_700_000_000_000), "{one}");
    assert!(one["time_ms"].as_u64() <= two["time_ms"].as_u64());
}

#[tokio::test]
async fn a_position_in_an_answer_is_where_a_subscriber_goes_on() {
    let (world, app) = world();
    for name in ["one", "two"] {
        world.publish(&app, "kept-a", name, "x").await;
    }
    let page = read(
        &world,
        &app,
        "kept-a",
        &[("direction", "forwards"), ("limit", "1")],
    )
    .await;
    let mut client = Client::connect(&world, &app).await;
    let asked = json!({ "position": text(&page["events"][0], "position") });
    client.trigger("kept-a", "pusher:resume", asked).await;
    client.subscribe("kept-a").await;
    client.expect("pusher_internal:recovered").await;
    client.expect("pusher_internal:position").await;
    client.expect("two").await;
    client.expect_quiet().await;
}

#[tokio::test]
async fn pages_follow_each_other_both_ways() {
    let (world, app) = world();
    let all: Vec<String> = (0..25).map(|n| n.to_string()).collect();
    for name in &all {
        world.publish(&app, "kept-a", name, "x").await;
    }
    for (direction, bound) in [("forwards", "after"), ("backwards", "before")] {
        let (mut seen, mut next) = (Vec::new(), None::<String>);
        loop {
            let mut query = vec![("direction", direction), ("limit", "10")];
            query.extend(next.as_deref().map(|next| (bound, next)));
            let page = read(&world, &app, "kept-a", &query).await;
            seen.extend(names(&page).into_iter().map(str::to_owned));
            next = page["next"].as_str().map(str::to_owned);
            if next.is_none() {
                break;
            }
        }
        if direction == "backwards" {
            seen.reverse();
        }
        assert_eq!(seen, all, "{direction}");
    }
    let page = read(
        &world,
        &app,
        "kept-a",
        &[("limit", "20"), ("direction", "forwards")],
    )
    .await;
    let (after, before) = (
        text(&page["events"][4], "position"),
        text(&page["events"][8], "position"),
    );
    let between = read(&world, &app, "kept-a", &[("after", after), ("before", before)]).await;
    assert_eq!(names(&between), ["7", "6", "5"], "both ends are left out");
    assert_eq!(between.get("next"), None);
}

#[tokio::test]
async fn what_is_forgotten_is_said() {
    let (world, app) = world();
    for name in ["1", "2", "3"] {
        world.publish(&app, "tiny", name, "x").await;
    }
    let page = read(&world, &app, "tiny", &[("direction", "forwards")]).await;
    assert_eq!((names(&page), &page["complete"]), (vec!["2", "3"], &json!(false)));
    let after = text(&page["events"][0], "position");
    let page = read(&world, &app, "tiny", &[("after", after)]).await;
    assert_eq!((names(&page), &page["complete"]), (vec!["3"], &json!(true)));
}

#[tokio::test]
async fn a_channel_that_nobody_has_heard_of_has_an_empty_history() {
    let (world, app) = world();
    let page = read(&world, &app, "kept-a", &[]).await;
    assert_eq!(page, json!({ "complete": false, "events": [] }));
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("kept-a").await;
    let page = read(&world, &app, "kept-a", &[]).await;
    assert_eq!(
        (names(&page), &page["complete"]),
        (vec![], &json!(true)),
        "now it has begun"
    );
    text(&page, "position");
}

#[tokio::test]
async fn a_question_that_makes_no_sense_is_refused() {
    let (world, app) = world();
    world.publish(&app, "kept-a", "one", "x").await;
    let page = read(&world, &app, "kept-a", &[]).await;
    let (epoch, serial) = text(&page, "position").split_once(':').expect("epoch:serial");
    let elsewhere = format!("1{epoch}:{serial}");
    for (channel, query, status, expected) in [
        (
            "kept-a",
            [("limit", "0")],
            400,
            "Invalid limit: it is a number from 1 to 1000",
        ),
        ("kept-a", [("limit", "1001")], 400, "Invalid limit"),
        ("kept-a", [("limit", "x")], 400, "Invalid limit"),
        ("kept-a", [("direction", "sideways")], 400, "Invalid direction"),
        ("kept-a", [("after", "x")], 400, "Invalid after: not a position"),
        (
            "kept-a",
            [("before", "1:")],
            400,
            "Invalid before: not a position",
        ),
        ("kept-a", [("info", "x")], 400, "extraneous: info"),
        ("kept-a", [("after", &elsewhere)], 410, "has ended"),
        ("kept-a", [("before", &elsewhere)], 410, "has ended"),
        ("kept-b", [("after", &elsewhere)], 410, "has ended"),
        ("elsewhere", [("limit", "1")], 400, "keeps no history"),
        ("kept-%20", [("limit", "1")], 400, "Invalid channel name"),
    ] {
        let answer = world
            .get(&app, &format!("/channels/{channel}/history"), &query)
            .await;
        answer.assert(status, expected);
    }
}

#[tokio::test]
async fn reading_the_past_counts_as_reading() {
    let app = App::new(1)
        .with(r#"history = [{ channels = "*", size = 10, age_s = 600 }]"#)
        .limit("reads_per_second = 1");
    let world = World::with_app(&app);
    eventually("a second read within a second is refused", || async {
        let status = world.get(&app, "/channels/a/history", &[]).await.status;
        (status == 429).then_some(())
    })
    .await;
}
