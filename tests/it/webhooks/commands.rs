//! `dunlin webhooks`: what a person sees of deliveries, and sends again.

use super::asking::{listed, output, said, shown, the_one, webhooks};
use super::numbers::usage;
use super::receiver::{Receiver, Reply, Request};
use super::{attempts, endpoint, events, occupied};
use crate::cli::dunlin;
use crate::client::Client;
use crate::world::{App, World, eventually, eventually_within};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A world whose one app has one endpoint, `hook`, which has one attempt for everything.
fn scene(receiver: &Receiver) -> (World, App) {
    let app = App::new(1).webhook(&format!("id = \"hook\"\n{}", endpoint(&receiver.url("/hook"))));
    (World::builder().config(&attempts(&[0])).app(&app).start(), app)
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

    let dead = the_one(&world, "hook", "dead").await;
    assert_eq!(dead["id"], first.id());
    assert_eq!((&dead["attempts"], &dead["events"]), (&1.into(), &1.into()));
    let list = said(&world, &["list"]).await;
    let mut lines = list.lines();
    assert!(lines.next().is_some_and(|head| head.starts_with("ID ")), "{list}");
    let line = lines.next().expect("a line for it");
    assert!(
        line.starts_with(first.id()) && line.contains("dead") && line.ends_with("hook"),
        "{line}"
    );
    assert_eq!(lines.next(), None);

    let in_words = said(&world, &["show", first.id()]).await;
    assert!(in_words.contains("  500  "), "{in_words}");
    assert!(
        in_words.ends_with(&format!("\n\n{}\n", first.text())),
        "{in_words}"
    );
    let in_json = shown(&world, first.id()).await;
    assert_eq!(in_json["body"], first.text());
    assert_eq!(in_json["history"][0]["status"], 500);

    is_well.store(true, Ordering::Relaxed);
    for replay in [
        &["replay", first.id()][..],
        &["replay", "--app", "1", "--state", "done", "--from", "1h"],
    ] {
        assert_eq!(said(&world, replay).await, "1 delivery will be sent again\n");
        let again = receiver.next().await;
        assert_eq!((again.id(), &again.body), (first.id(), &first.body));
        let done = the_one(&world, "hook", "done").await;
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
async fn what_is_listed_and_replayed_can_be_narrowed_down() {
    let mut receiver = Receiver::with(|_| Reply::status(500));
    let named = |id: &str| format!("id = \"{id}\"\n{}", endpoint(&receiver.url(&format!("/{id}"))));
    let app = App::new(1).webhook(&named("hook")).webhook(&named("other"));
    let world = World::builder().config(&attempts(&[0])).app(&app).start();
    let mut client = Client::connect(&world, &app).await;
    // Of each of three events, the second in which it was told, as people write it.
    let mut times = Vec::new();
    for count in 1..=3 {
        client.subscribe(&format!("channel-{count}")).await;
        let dead = eventually("both endpoints have refused it", || async {
            let dead = listed(&world, &["--state", "dead"]).await;
            (dead.len() == 2 * count).then_some(dead)
        });
        let mut both = dead.await;
        both.truncate(2);
        let at_ms = |delivery: &Value| delivery["created_at_ms"].as_u64().expect("a time");
        both.sort_by_key(at_ms);
        let shown = said(&world, &["show", both[0]["id"].as_str().expect("a text")]).await;
        let made = shown.lines().find_map(|line| line.strip_prefix("made"));
        times.push(format!("{}Z", &made.expect("it was made").trim()[..19]));
        eventually("another second has begun", || async {
            let last_s = at_ms(&both[1]) / 1000;
            (crate::sign::unix_now().unsigned_abs() > last_s).then_some(())
        })
        .await;
    }
    receiver.so_far();
    let count = async |filters: &[&str]| listed(&world, filters).await.len();
    assert_eq!(count(&["--since", &times[1]]).await, 4);
    assert_eq!(count(&["--since", &times[1], "--endpoint", "other"]).await, 2);
    assert_eq!(count(&["--app", "2"]).await, 0);
    let (_, list, more) = webhooks(&world, &["list", "--limit", "5"]).await;
    assert_eq!(list.lines().count(), 1 + 5, "{list}");
    assert!(more.contains("there are more, see --limit"), "{more}");

    let range = [
        "replay",
        "--app",
        "1",
        "--endpoint",
        "other",
        "--from",
        &times[1],
        "--to",
        &times[2],
    ];
    assert_eq!(said(&world, &range).await, "1 delivery will be sent again\n");
    let again = receiver.next().await;
    assert_eq!(
        (&*again.path, events(&again)),
        ("/other", vec![occupied("channel-2")])
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
        (World::builder().config(&attempts(&[0, 0])).app(&app).start(), app)
    };
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("taken").await;
    let taken = receiver.next().await;
    client.subscribe("refused").await;
    let refused = receiver.next().await;
    assert_eq!(the_one(&world, "hook", "done").await["id"], taken.id());
    eventually("a second attempt is far away", || async {
        (the_one(&world, "hook", "pending").await["attempts"] == 1).then_some(())
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
    let endpoint: Value = serde_json::from_str(&said(&world, &["endpoints", "--json"]).await).expect("JSON");
    assert_eq!(
        (&endpoint["app"], &endpoint["endpoint"]),
        (&"1".into(), &"hook".into())
    );
    assert_eq!(
        (&endpoint["state"], &endpoint["why"]),
        (&"disabled".into(), &"it answered 410 Gone".into())
    );
    assert!(
        endpoint["disabled_at_ms"].is_u64() && endpoint["failing_since_ms"].is_u64(),
        "{endpoint}"
    );
    assert_eq!(endpoint["latest"]["status"], 410);
    let usage = eventually_within(Duration::from_secs(20), || async {
        let usage = usage(&world, &app).await;
        usage["disabled"]["hook"].is_object().then_some(usage)
    });
    let usage = usage.await.expect("the store is asked every few seconds");
    assert_eq!(
        usage["disabled"]["hook"],
        json!({ "since_ms": endpoint["disabled_at_ms"], "why": "gone" })
    );
    is_back.store(true, Ordering::Relaxed);
    said(&world, &["enable", "1", "hook"]).await;
    let list = said(&world, &["endpoints"]).await;
    assert!(list.contains(" well "), "{list}");
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
    elsewhere.env_remove("DUNLIN_DATABASE_URL");
    elsewhere.env("DUNLIN_DATA_DIR", "/nowhere/at/all");
    let (code, _, err) = output(elsewhere).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("no database at /nowhere/at/all/dunlin.db"), "{err}");
    // What is no endpoint is judged before a database is made for it, which could not be here.
    for (arguments, said) in [
        (
            ["webhooks", "add", "2", "--url", "https://shop.example/"],
            "no app 2",
        ),
        (
            ["webhooks", "add", "1", "--url", "http://10.0.0.1/"],
            "private use",
        ),
    ] {
        let mut elsewhere = world.nodes[0].command(&arguments);
        elsewhere.env_remove("DUNLIN_DATABASE_URL");
        elsewhere.env("DUNLIN_DATA_DIR", "/proc/nobody/writes/here");
        let (_, out, err) = output(elsewhere).await;
        assert!(out.is_empty() && err.contains(said), "{arguments:?}: {err}");
    }
}

/// Exit code and standard output of `dunlin webhooks verify`; `option` says whose the secret is.
pub(super) fn verified(option: &str, secret: &str, headers: &[String], body: &[u8]) -> (Option<i32>, String) {
    let mut command = dunlin(&["webhooks", "verify", option, secret]);
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

/// The headers of Standard Webhooks, as `verify` takes them.
pub(super) fn standard(request: &Request) -> Vec<String> {
    headers(request, &["webhook-id", "webhook-timestamp", "webhook-signature"])
}

fn headers(request: &Request, names: &[&str]) -> Vec<String> {
    let line = |name: &&str| {
        let value = request.header(&name.to_ascii_lowercase()).expect("it is there");
        format!("{name}: {value}")
    };
    names.iter().map(line).collect()
}

#[tokio::test]
async fn a_request_is_checked_as_its_receiver_does() {
    let mut receiver = Receiver::start();
    let (world, app) = scene(&receiver);
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("pub").await;
    let request = receiver.next().await;
    let mut both = standard(&request);
    both.extend(headers(&request, &["X-Pusher-Signature"]));
    let verify = |secret: &str, body: &[u8]| verified("--app-secret", secret, &both, body);
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
    the_one(&world, "hook", "done").await;
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
    let verdict = verified(
        "--app-secret",
        &app.secret,
        &standard(&forwarded),
        &forwarded.body,
    );
    assert_eq!(verdict.0, Some(0));
    // A replay is another attempt, and is seen as well.
    the_one(&world, "hook", "dead").await;
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
            .config(&format!("{}\n{option} = 1", attempts(&[0])))
            .app(&app)
            .start();
        let mut client = Client::connect(&world, &app).await;
        for channel in ["good", "bad"] {
            client.subscribe(channel).await;
            receiver.next().await;
        }
        let (done, dead) = (
            the_one(&world, "hook", "done").await,
            the_one(&world, "hook", "dead").await,
        );
        let finished_at_ms = [done, dead].map(|one| one["finished_at_ms"].as_u64().expect("a time"));
        eventually("a second has passed", || async {
            let now_ms = std::time::UNIX_EPOCH.elapsed().expect("it is later").as_millis();
            let is_old = |at_ms: &u64| now_ms > u128::from(*at_ms) + 1000;
            finished_at_ms.iter().all(is_old).then_some(())
        })
        .await;
        // What a node does every minute, it begins with.
        for node in &world.nodes {
            node.kill();
            node.restart();
        }
        let kept = eventually("one is forgotten", || async {
            <[Value; 1]>::try_from(listed(&world, &[]).await).ok()
        });
        let [kept] = kept.await;
        assert_eq!(kept["state"], left, "{option}");
    }
}
