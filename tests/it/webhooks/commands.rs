//! `dunlin webhooks`: what a person sees of deliveries, and sends again.

use super::numbers::usage;
use super::receiver::{Receiver, Reply};
use super::{endpoint, events, occupied};
use crate::cli::{dunlin, run};
use crate::client::Client;
use crate::world::{App, World, eventually, eventually_within};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// One attempt, and that is all.
const ONE_ATTEMPT: &str = "[webhooks]\nallow_networks = [\"127.0.0.1/32\"]\nretry_schedule_ms = [0]";

/// A node whose one app has one endpoint, `hook`; its deliveries are in the node's own database.
fn scene(receiver: &Receiver) -> (World, App) {
    let app = App::new(1).webhook(&format!("id = \"hook\"\n{}", endpoint(&receiver.url("/hook"))));
    let world = World::builder()
        .config(ONE_ATTEMPT)
        .app(&app)
        .only_one_node("the commands look into the database of one node")
        .start();
    (world, app)
}

/// Exit code, standard output and standard error. Not on the thread that the test's own clients need.
async fn output(mut command: Command) -> (Option<i32>, String, String) {
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

/// The deliveries of the app's endpoint that are in this state.
pub(super) async fn deliveries(world: &World, state: &str) -> Vec<Value> {
    let arguments = [
        "list",
        "--app",
        "1",
        "--endpoint",
        "hook",
        "--state",
        state,
        "--json",
    ];
    let (code, out, _) = webhooks(world, &arguments).await;
    assert_eq!(code, Some(0));
    let lines = out.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("lines of JSON")
}

/// The only delivery in this state, as soon as there is one.
async fn the_one(world: &World, state: &str) -> Value {
    let found = eventually(state, || async {
        let found = deliveries(world, state).await;
        (!found.is_empty()).then_some(found)
    });
    let [one] = <[Value; 1]>::try_from(found.await).expect("one delivery");
    one
}

#[tokio::test]
async fn a_delivery_that_died_is_listed_shown_and_sent_again_the_same() {
    let is_well = Arc::new(AtomicBool::new(false));
    let health = Arc::clone(&is_well);
    let mut receiver =
        Receiver::with(move |_| Reply::status(if health.load(Ordering::Relaxed) { 200 } else { 500 }));
    let (world, app) = scene(&receiver);
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("pub").await;
    let first = receiver.next().await;
    assert_eq!(events(&first), [occupied("pub")]);

    let dead = the_one(&world, "dead").await;
    assert_eq!(dead["id"], first.id());
    assert_eq!((&dead["attempts"], &dead["events"]), (&1.into(), &1.into()));
    let listed = said(&world, &["list"]).await;
    let mut lines = listed.lines();
    assert!(
        lines.next().is_some_and(|head| head.starts_with("ID ")),
        "{listed}"
    );
    let line = lines.next().expect("a line for it");
    assert!(
        line.starts_with(first.id()) && line.contains("dead") && line.ends_with("hook"),
        "{line}"
    );
    assert_eq!(lines.next(), None);

    let shown = said(&world, &["show", first.id()]).await;
    assert!(shown.contains("  500  "), "{shown}");
    assert!(shown.ends_with(&format!("\n\n{}\n", first.text())), "{shown}");
    let shown: Value =
        serde_json::from_str(&said(&world, &["show", first.id(), "--json"]).await).expect("JSON");
    assert_eq!(shown["body"], first.text());
    assert_eq!(shown["history"][0]["status"], 500);

    is_well.store(true, Ordering::Relaxed);
    for replay in [
        &["replay", first.id()][..],
        &["replay", "--app", "1", "--state", "done", "--from", "1h"],
    ] {
        assert_eq!(said(&world, replay).await, "1 delivery will be sent again\n");
        let again = receiver.next().await;
        assert_eq!((again.id(), &again.body), (first.id(), &first.body));
        let done = the_one(&world, "done").await;
        assert_eq!((&done["id"], &done["attempts"]), (&first.id().into(), &1.into()));
    }
    let (code, _, err) = webhooks(&world, &["replay", "--app", "1"]).await;
    assert_eq!(
        (code, err.as_str()),
        (Some(1), "dunlin: nothing matches\n"),
        "nothing is dead"
    );
}

#[tokio::test]
async fn what_waits_for_hours_keeps_nothing_waiting_that_is_replayed() {
    let mut receiver = Receiver::with(|request| {
        let is_refused = request.text().contains("refused");
        Reply::status(if is_refused { 503 } else { 200 }).with("retry-after", "80000")
    });
    let (world, app) = {
        let app = App::new(1).webhook(&format!("id = \"hook\"\n{}", endpoint(&receiver.url("/hook"))));
        let config = ONE_ATTEMPT.replace("[0]", "[0, 0]");
        let builder = World::builder().config(&config).app(&app);
        let builder = builder.only_one_node("the commands look into the database of one node");
        (builder.start(), app)
    };
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("taken").await;
    let taken = receiver.next().await;
    client.subscribe("refused").await;
    let refused = receiver.next().await;
    assert_eq!(the_one(&world, "done").await["id"], taken.id());
    eventually("a second attempt is far away", || async {
        (the_one(&world, "pending").await["attempts"] == 1).then_some(())
    })
    .await;
    for id in [taken.id(), refused.id()] {
        said(&world, &["replay", id]).await;
        assert_eq!(receiver.next().await.id(), id);
    }
}

#[tokio::test]
async fn an_endpoint_that_was_gone_is_enabled_and_told_what_it_missed() {
    let is_back = Arc::new(AtomicBool::new(false));
    let health = Arc::clone(&is_back);
    let mut receiver =
        Receiver::with(move |_| Reply::status(if health.load(Ordering::Relaxed) { 200 } else { 410 }));
    let (world, app) = scene(&receiver);
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("pub").await;
    let first = receiver.next().await;
    let line = eventually("it is disabled", || async {
        let (_, out, _) = webhooks(&world, &["endpoints", "--app", "1"]).await;
        let line = out.lines().nth(1)?.to_owned();
        line.contains("disabled since").then_some(line)
    });
    let line = line.await;
    assert!(line.contains(": it answered 410 Gone "), "why: {line}");
    assert!(line.contains("  410  "), "its latest attempt: {line}");
    let listed: Value = serde_json::from_str(&said(&world, &["endpoints", "--json"]).await).expect("JSON");
    assert_eq!(
        (&listed["app"], &listed["endpoint"]),
        (&"1".into(), &"hook".into())
    );
    assert_eq!(
        (&listed["state"], &listed["why"]),
        (&"disabled".into(), &"it answered 410 Gone".into())
    );
    assert!(
        listed["disabled_at_ms"].is_u64() && listed["failing_since_ms"].is_u64(),
        "{listed}"
    );
    assert_eq!(listed["latest"]["status"], 410);
    let usage = eventually_within(Duration::from_secs(20), || async {
        let usage = usage(&world, &app).await;
        usage["disabled"]["hook"].is_object().then_some(usage)
    });
    let usage = usage.await.expect("the store is asked every few seconds");
    assert_eq!(
        usage["disabled"]["hook"],
        json!({ "since_ms": listed["disabled_at_ms"], "why": "gone" })
    );
    is_back.store(true, Ordering::Relaxed);
    said(&world, &["enable", "1", "hook"]).await;
    let listed = said(&world, &["endpoints"]).await;
    assert!(listed.contains(" well "), "{listed}");
    said(&world, &["replay", "--app", "1", "--endpoint", "hook"]).await;
    assert_eq!(receiver.next().await.id(), first.id());
}

#[tokio::test]
async fn what_cannot_be_is_said_plainly() {
    let receiver = Receiver::start();
    let (world, _) = scene(&receiver);
    let id = "msg_0123456789abcdef0123456789abcdef";
    for (arguments, code, said) in [
        (&["show", id][..], 1, "there is no delivery msg_"),
        (&["replay", id], 1, "there is no delivery msg_"),
        (&["enable", "1", "x"], 1, "app 1 has no endpoint x"),
        (&["listen", "9"], 1, "the configuration has no app 9"),
        (
            &["listen", "1", "--forward", "localhost:3000"],
            2,
            "--forward: the URL must begin with",
        ),
        (&["list"], 0, "nothing matches"),
        (&["list", "--since", "soon"], 2, "must be as 2026-01-31"),
        (&["list", "--state", "lost"], 2, "must be pending, done or dead"),
        (&["show", "msg_1"], 2, "msg_ and 32 hexadecimal digits"),
        (&["replay"], 2, "MSG_ID"),
    ] {
        let (found, out, err) = webhooks(&world, arguments).await;
        assert_eq!((found, out.as_str()), (Some(code), ""), "{arguments:?}: {err}");
        assert!(err.contains(said), "{arguments:?}: {err}");
    }
    let mut elsewhere = world.nodes[0].command(&["webhooks", "list"]);
    elsewhere.env("DUNLIN_DATA_DIR", "/nowhere/at/all");
    let (code, _, err) = output(elsewhere).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("no database at /nowhere/at/all/dunlin.db"), "{err}");
}

/// Exit code and standard output of `dunlin webhooks verify`.
pub(super) fn verified(secret: [&str; 2], headers: &[String], body: &[u8]) -> (Option<i32>, String) {
    let mut command = dunlin(&["webhooks", "verify"]);
    command.args(secret);
    command.args(headers.iter().flat_map(|header| ["-H", header]));
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.expect("the binary can be run");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(body).expect("the command reads its input");
    drop(input);
    let output = child.wait_with_output().expect("the command ends");
    let text = String::from_utf8(output.stdout).expect("output is UTF-8");
    (output.status.code(), text)
}

#[tokio::test]
async fn a_request_is_checked_as_its_receiver_does() {
    let mut receiver = Receiver::start();
    let (world, app) = scene(&receiver);
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("pub").await;
    let request = receiver.next().await;
    let names = [
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
        "X-Pusher-Signature",
    ];
    let headers = names.map(|name| {
        let value = request.header(&name.to_ascii_lowercase()).expect("it is there");
        format!("{name}: {value}")
    });
    let verify = |secret: &str, body: &[u8]| verified(["--app-secret", secret], &headers, body);
    assert_eq!(
        verify(&app.secret, &request.body),
        (
            Some(0),
            "ok      webhook-signature\nok      x-pusher-signature\n".to_owned()
        )
    );
    let (code, text) = verify("another", &request.body);
    assert_eq!((code, text.matches("FAILED").count()), (Some(1), 2), "{text}");
    let (code, text) = verify(&app.secret, &[&request.body, &b"\n"[..]].concat());
    assert_eq!(code, Some(1));
    assert!(text.contains("white space at its end"), "{text}");
}

/// `dunlin webhooks listen`, once it does.
pub(super) async fn listening(world: &World, arguments: &[&str]) -> Child {
    let mut command = world.nodes[0].command(&[&["webhooks", "listen", "1"], arguments].concat());
    let begin = move || {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the binary can be run");
        let mut line = String::new();
        let notes = child.stderr.as_mut().expect("it is piped");
        BufReader::new(notes)
            .read_line(&mut line)
            .expect("the command says something");
        assert!(line.contains("listening"), "{line}");
        child
    };
    tokio::task::spawn_blocking(begin)
        .await
        .expect("it was waited for")
}

/// What it has printed when it has ended by itself.
pub(super) async fn heard(child: Child) -> String {
    let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await;
    let output = output.expect("it was waited for").expect("the command ends");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).expect("output is UTF-8")
}

#[tokio::test]
async fn who_listens_sees_attempts_as_they_are_made_and_nothing_is_different_for_it() {
    let mut receiver = Receiver::with(|request| {
        let is_bad = request.text().contains("bad");
        Reply::status(if is_bad { 500 } else { 200 })
    });
    let (world, app) = scene(&receiver);
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("before").await;
    receiver.next().await;
    the_one(&world, "done").await;
    let in_words = listening(&world, &["--count", "2", "--endpoint", "hook"]).await;
    let in_json = listening(&world, &["--count", "2", "--json"]).await;
    client.subscribe("good").await;
    let good = receiver.next().await;
    client.subscribe("bad").await;
    let bad = receiver.next().await;
    let said = heard(in_words).await;
    let lines: Vec<&str> = said.lines().collect();
    for (line, (status, id, event)) in lines.iter().zip([
        ("  200  ", good.id(), "channel_occupied good"),
        ("  500  ", bad.id(), "channel_occupied bad"),
    ]) {
        for part in [status, " attempt 1 ", " hook ", id, event] {
            assert!(line.contains(part), "no {part:?}: {line}");
        }
    }
    assert_eq!(lines.len(), 2, "{said}");
    let said = heard(in_json).await;
    let last: Value = serde_json::from_str(said.lines().last().expect("two lines")).expect("JSON");
    assert_eq!((&last["id"], &last["attempt"]), (&bad.id().into(), &1.into()));
    assert_eq!(
        (&last["status"], &last["events"][0]),
        (&500.into(), &"channel_occupied bad".into())
    );
    assert!(receiver.so_far().is_empty());
}

#[tokio::test]
async fn what_is_forwarded_is_what_the_endpoint_gets_signed_alike() {
    let mut receiver = Receiver::with(|_| Reply::status(500));
    let mut own = Receiver::with(|_| Reply::status(202));
    let (world, app) = scene(&receiver);
    let child = listening(&world, &["--count", "2", "--forward", &own.url("/mine")]).await;
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("pub").await;
    let first = receiver.next().await;
    let forwarded = own.next().await;
    assert_eq!((forwarded.path.as_str(), &forwarded.body), ("/mine", &first.body));
    for name in [
        "webhook-id",
        "x-pusher-key",
        "x-pusher-signature",
        "content-type",
        "user-agent",
    ] {
        assert_eq!(forwarded.header(name), first.header(name), "{name}");
    }
    let headers = ["webhook-id", "webhook-timestamp", "webhook-signature"].map(|name| {
        let value = forwarded.header(name).expect("it is there");
        format!("{name}: {value}")
    });
    assert_eq!(
        verified(["--app-secret", &app.secret], &headers, &forwarded.body).0,
        Some(0)
    );
    // A replay is another attempt, and is seen as well.
    the_one(&world, "dead").await;
    said(&world, &["replay", first.id()]).await;
    assert_eq!(own.next().await.id(), first.id());
    let said = heard(child).await;
    assert_eq!(said.matches("    forwarded: 202 in ").count(), 2, "{said}");
    assert!(said.contains(" attempt 2 "), "{said}");
}

#[tokio::test]
async fn what_was_kept_long_enough_is_forgotten_and_what_was_given_up_is_kept_for_a_time_of_its_own() {
    for (option, left) in [("retain_done_s", "dead"), ("retain_dead_s", "done")] {
        let mut receiver = Receiver::with(|request| {
            let is_bad = request.text().contains("bad");
            Reply::status(if is_bad { 500 } else { 200 })
        });
        let app = App::new(1).webhook(&format!("id = \"hook\"\n{}", endpoint(&receiver.url("/hook"))));
        let world = World::builder()
            .config(&format!("{ONE_ATTEMPT}\n{option} = 1"))
            .app(&app)
            .only_one_node("the commands look into the database of one node")
            .start();
        let mut client = Client::connect(&world, &app).await;
        for channel in ["good", "bad"] {
            client.subscribe(channel).await;
            receiver.next().await;
        }
        let (done, dead) = (the_one(&world, "done").await, the_one(&world, "dead").await);
        let finished_at_ms = [done, dead].map(|one| one["finished_at_ms"].as_u64().expect("a time"));
        eventually("a second has passed", || async {
            let now_ms = std::time::UNIX_EPOCH.elapsed().expect("it is later").as_millis();
            let is_old = |at_ms: &u64| now_ms > u128::from(*at_ms) + 1000;
            finished_at_ms.iter().all(is_old).then_some(())
        })
        .await;
        // What a node does every minute, it begins with.
        world.nodes[0].kill();
        world.nodes[0].restart();
        let listed = eventually("one is forgotten", || async {
            let (_, out, _) = webhooks(&world, &["list", "--json"]).await;
            (out.lines().count() == 1).then_some(out)
        });
        let listed: Value = serde_json::from_str(&listed.await).expect("one line of JSON");
        assert_eq!(listed["state"], left, "{option}");
    }
}
