//! Endpoints in the database: `dunlin webhooks add`, `set`, `remove`, `disable`, `enable` and `test`, while servers run.

use super::asking::{deliveries, said, shown, webhooks};
use super::commands::{heard, listening, standard, verified};
use super::receiver::{Receiver, Reply, Request};
use super::{attempts, endpoint, events, occupied, quick};
use crate::client::Client;
use crate::sign::unix_now;
use crate::topology::Topology;
use crate::world::{App, World, eventually};
use serde_json::Value;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A platform that knows of no endpoint yet.
fn scene() -> (World, App) {
    let app = App::new(1);
    (World::builder().config(&quick()).app(&app).start(), app)
}

async fn add(world: &World, receiver: &Receiver, more: &[&str]) {
    let url = receiver.url("/hook");
    let arguments = ["add", "1", "--id", "hook", "--url", &url, "--batch-ms", "0"];
    let (code, out, err) = webhooks(world, &[&arguments, more].concat()).await;
    assert_eq!(
        (code, &*out),
        (
            Some(0),
            "endpoint hook of app 1 is there: go on with `dunlin webhooks test 1 hook`\n"
        ),
        "{err}"
    );
}

/// Subscribes until the endpoint is told of it: servers know of a change after a moment.
async fn told(world: &World, app: &App, receiver: &mut Receiver) -> Request {
    for n in 0..50 {
        let mut client = Client::connect(world, app).await;
        client.subscribe(&format!("channel-{n}")).await;
        if let Some(request) = receiver.next_within(Duration::from_millis(200)).await {
            return request;
        }
    }
    panic!("the endpoint is told of nothing");
}

/// Who knows of this endpoint knows of all that was changed before it was added.
struct Marker(Receiver);

impl Marker {
    /// Servers know of it.
    async fn add(world: &World, app: &App) -> Self {
        let mut receiver = Receiver::start();
        let url = receiver.url("/marker");
        said(world, &["add", "1", "--url", &url, "--batch-ms", "0"]).await;
        told(world, app, &mut receiver).await;
        Self(receiver)
    }

    /// Something happens, and whoever is told of it is told. Of several servers one may not know of the endpoint yet.
    async fn pass(&mut self, world: &World, app: &App) {
        let mut client = Client::connect(world, app).await;
        for n in 0..50 {
            client.subscribe(&format!("after-all-{n}")).await;
            while let Some(request) = self.0.next_within(Duration::from_millis(200)).await {
                if request.text().contains("after-all") {
                    return;
                }
            }
        }
        panic!("the marker is told of nothing");
    }
}

/// The line of the endpoint in the list of endpoints, without its URL.
async fn line(world: &World) -> String {
    let list = said(world, &["endpoints", "--app", "1"]).await;
    let line = list
        .lines()
        .find(|line| line.contains(" hook "))
        .unwrap_or_default();
    let words = line.split_whitespace().filter(|word| !word.starts_with("http"));
    words.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn who_listens_is_forwarded_what_an_endpoint_of_the_database_gets() {
    let (mut receiver, mut own) = (Receiver::start(), Receiver::with(|_| Reply::status(202)));
    let (world, app) = scene();
    add(&world, &receiver, &["--header", "X-Shop: 7"]).await;
    let child = listening(&world, &["--count", "1", "--forward", &own.url("/mine")]).await;
    let request = told(&world, &app, &mut receiver).await;
    let forwarded = own.next().await;
    assert_eq!((forwarded.id(), &forwarded.body), (request.id(), &request.body));
    assert_eq!(
        (forwarded.header("x-shop"), &*forwarded.path),
        (Some("7"), "/mine")
    );
    assert!(heard(child).await.contains("forwarded: 202 in "));
}

#[tokio::test]
async fn whatever_is_said_of_a_new_endpoint_is_heeded() {
    let mut receiver = Receiver::start();
    let (world, app) = scene();
    let url = receiver.url("/hook");
    let said_of_it = [
        ["--id", "hook"],
        ["--url", &url],
        ["--events", "channel_occupied,cache_miss"],
        ["--channel-prefix", "told-"],
        ["--channel", "told-*"],
        ["--channel", "!*-secret"],
        ["--header", "X-Shop: 7"],
        // Longer than the test may take: only that there are two sends them.
        ["--batch-ms", "60000"],
        ["--batch-size", "2"],
        ["--secret", "whsec_c2hvcA=="],
        ["--description", "the shop"],
    ];
    let flags = &["add", "1", "--disabled", "--short-retries"];
    let (code, _, err) = webhooks(&world, &[flags, said_of_it.as_flattened()].concat()).await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(line(&world).await, "1 hook database 1 off");
    said(&world, &["enable", "1", "hook"]).await;
    let mut request = None;
    for n in 0..50 {
        let mut client = Client::connect(&world, &app).await;
        for channel in [
            format!("other-{n}"),
            format!("told-{n}-secret"),
            format!("told-{n}"),
        ] {
            client.subscribe(&channel).await;
        }
        request = receiver.next_within(Duration::from_millis(200)).await;
        if request.is_some() {
            break;
        }
    }
    let request = request.expect("the endpoint is told");
    let told_of = events(&request);
    assert_eq!(told_of.len(), 2);
    for event in told_of {
        assert_eq!(event["name"], "channel_occupied");
        let channel = event["channel"].as_str().expect("a name");
        assert!(
            channel.starts_with("told-") && !channel.ends_with("-secret"),
            "{channel}"
        );
    }
    assert_eq!(request.header("x-shop"), Some("7"));
    assert!(is_signed_by("whsec_c2hvcA==", &request));
    let json: Value = serde_json::from_str(&said(&world, &["endpoints", "--json"]).await).expect("JSON");
    let settings = &json["settings"];
    assert_eq!(
        (&settings["description"], &settings["short_retries"]),
        (&"the shop".into(), &true.into())
    );
    assert_eq!(
        (&settings["secret"], &settings["headers"]["x-shop"]),
        (&"[redacted]".into(), &"[redacted]".into())
    );
}

/// Whether the `webhook-signature` of this secret is among those of the request.
fn is_signed_by(secret: &str, request: &Request) -> bool {
    verified("--secret", secret, &standard(request), &request.body).0 == Some(0)
}

#[tokio::test]
async fn a_secret_is_rotated_while_receivers_go_on_with_the_old_one() {
    let mut receiver = Receiver::start();
    let (world, app) = scene();
    add(&world, &receiver, &["--secret", "whsec_b2xk"]).await;
    let request = told(&world, &app, &mut receiver).await;
    assert!(is_signed_by("whsec_b2xk", &request));

    let (code, new, note) = webhooks(&world, &["rotate", "1", "hook"]).await;
    let new = new.trim_end();
    assert_eq!(code, Some(0), "{note}");
    assert!(new.starts_with("whsec_") && new.len() == 50, "{new}");
    assert!(
        note.contains("by the old one as well") && !note.contains(new),
        "{note}"
    );
    let signatures = |request: &Request| {
        let signatures = request.header("webhook-signature").expect("it is signed");
        signatures.split(' ').count()
    };
    let request = loop {
        let request = told(&world, &app, &mut receiver).await;
        if signatures(&request) == 2 {
            break request;
        }
    };
    assert!(is_signed_by(new, &request) && is_signed_by("whsec_b2xk", &request));

    let at_once = [
        "rotate",
        "1",
        "hook",
        "--overlap",
        "0s",
        "--secret",
        "whsec_bmV3ZXN0",
    ];
    let (code, out, note) = webhooks(&world, &at_once).await;
    assert_eq!((code, &*out), (Some(0), ""), "it is known already: {note}");
    let request = loop {
        let request = told(&world, &app, &mut receiver).await;
        if signatures(&request) == 1 {
            break request;
        }
    };
    assert!(is_signed_by("whsec_bmV3ZXN0", &request) && !is_signed_by(new, &request));
}

#[tokio::test]
async fn an_endpoint_can_be_added_changed_and_removed_while_servers_run() {
    let mut receiver = Receiver::start();
    let (world, app) = scene();
    add(&world, &receiver, &["--header", "X-Shop: 7"]).await;
    let request = told(&world, &app, &mut receiver).await;
    assert_eq!((request.header("x-shop"), &*request.path), (Some("7"), "/hook"));
    assert!(line(&world).await.starts_with("1 hook database 1 well"));

    let moved = receiver.url("/moved");
    let set = [
        "set",
        "1",
        "hook",
        "--version",
        "1",
        "--url",
        &moved,
        "--events",
        "channel_occupied",
    ];
    assert_eq!(
        said(&world, &set).await,
        "endpoint hook of app 1 is changed: version 2\n"
    );
    let (code, _, err) = webhooks(&world, &set).await;
    assert_eq!(code, Some(1), "somebody was faster");
    assert!(err.contains("was changed meanwhile"), "{err}");
    let again = ["set", "1", "hook", "--url", &moved];
    assert_eq!(
        said(&world, &again).await,
        "endpoint hook of app 1 is as it was: version 2\n"
    );
    loop {
        let request = told(&world, &app, &mut receiver).await;
        if request.path == "/moved" {
            assert_eq!(request.header("x-shop"), Some("7"), "what was not given stays");
            break;
        }
    }

    assert_eq!(
        said(&world, &["remove", "1", "hook"]).await,
        "endpoint hook of app 1 is removed\n"
    );
    let (_, _, err) = webhooks(&world, &["endpoints", "--app", "1"]).await;
    assert_eq!(err, "nothing matches\n");
    let mut marker = Marker::add(&world, &app).await;
    receiver.so_far();
    marker.pass(&world, &app).await;
    assert!(receiver.so_far().is_empty());
}

#[tokio::test]
async fn what_waits_for_an_endpoint_that_is_off_is_sent_when_it_is_on_again() {
    let is_asked = AtomicBool::new(false);
    let mut receiver = Receiver::with(move |_| {
        let is_second = is_asked.swap(true, Ordering::Relaxed);
        Reply::status(if is_second { 200 } else { 500 })
    });
    let app = App::new(1);
    // Longer than servers take to know of a change.
    let config = attempts(&[0, 3000]);
    let world = World::builder().config(&config).app(&app).start();
    add(&world, &receiver, &[]).await;
    let first = told(&world, &app, &mut receiver).await;
    said(&world, &["disable", "1", "hook"]).await;
    assert!(line(&world).await.starts_with("1 hook database 2 off"));
    let (code, _, err) = webhooks(&world, &["test", "1", "hook"]).await;
    assert_eq!(code, Some(2), "{err}");

    let mut marker = Marker::add(&world, &app).await;
    receiver.so_far();
    let due_ms = shown(&world, first.id()).await["next_at_ms"].as_u64();
    let due_s = due_ms.expect("it waits") / 1000;
    eventually("it would be time", || async {
        (unix_now().unsigned_abs() > due_s).then_some(())
    })
    .await;
    marker.pass(&world, &app).await;
    assert!(receiver.so_far().is_empty());

    said(&world, &["enable", "1", "hook"]).await;
    while receiver.next().await.id() != first.id() {}
}

#[tokio::test]
async fn what_waits_for_an_endpoint_that_is_removed_is_given_up_and_says_why() {
    let mut receiver = Receiver::with(|_| Reply::status(503).with("retry-after", "3600"));
    let (world, app) = scene();
    // That somebody is gone again is news as well, and comes later.
    add(&world, &receiver, &["--events", "channel_occupied"]).await;
    let request = told(&world, &app, &mut receiver).await;
    eventually("it is to be tried again", || async {
        let pending = deliveries(&world, "hook", "pending").await;
        let is_tried = |delivery: &Value| delivery["id"] == request.id() && delivery["attempts"] == 1;
        pending.iter().any(is_tried).then_some(())
    })
    .await;
    said(&world, &["remove", "1", "hook"]).await;
    assert!(deliveries(&world, "hook", "pending").await.is_empty());
    let shown = said(&world, &["show", request.id()]).await;
    assert!(shown.contains("dead since"), "{shown}");
    assert!(
        shown.contains("Given up: the endpoint was disabled, or removed."),
        "{shown}"
    );
    // Another of its name begins well.
    add(&world, &receiver, &["--events", "channel_occupied"]).await;
    assert!(line(&world).await.starts_with("1 hook database 1 well"));
}

#[tokio::test]
async fn a_secret_that_changes_signs_what_waits_beside_the_one_before_it() {
    let [old, new] = ["whsec_b2xkLXNlY3JldA==", "whsec_bmV3LXNlY3JldA=="];
    let first_id = OnceLock::new();
    let is_known = Arc::new(AtomicBool::new(false));
    let both = Arc::clone(&is_known);
    // The first delivery has to wait until the server knows of the new secret.
    let mut receiver = Receiver::with(move |request| {
        let is_first = *first_id.get_or_init(|| request.id().to_owned()) == request.id();
        Reply::status(if is_first && !both.load(Ordering::Relaxed) {
            500
        } else {
            200
        })
    });
    let app = App::new(1);
    let config = attempts(&[0, 1500, 1500, 1500, 1500, 1500]);
    let world = World::builder().config(&config).app(&app).start();
    add(&world, &receiver, &["--secret", old]).await;
    let first = told(&world, &app, &mut receiver).await;
    let is_ok = |secret: &str, request: &Request| {
        verified("--secret", secret, &standard(request), &request.body).0 == Some(0)
    };
    assert!(is_ok(old, &first) && !is_ok(new, &first));
    said(
        &world,
        &["set", "1", "hook", "--secret", new, "--previous-secret", old],
    )
    .await;
    loop {
        let request = receiver.next().await;
        let signatures = request.header("webhook-signature").unwrap_or_default();
        if signatures.split(' ').count() == 2 {
            assert!(is_ok(old, &request) && is_ok(new, &request), "{signatures}");
            break;
        }
    }
    is_known.store(true, Ordering::Relaxed);
    said(&world, &["set", "1", "hook", "--previous-secret", ""]).await;
    loop {
        let request = told(&world, &app, &mut receiver).await;
        if !is_ok(old, &request) {
            assert!(is_ok(new, &request));
            break;
        }
    }
}

#[tokio::test]
async fn a_test_is_sent_once_and_its_answer_is_printed() {
    let status = Arc::new(AtomicBool::new(true));
    let health = Arc::clone(&status);
    let mut receiver =
        Receiver::with(move |_| Reply::status(if health.load(Ordering::Relaxed) { 200 } else { 500 }));
    let (world, _) = scene();
    add(&world, &receiver, &[]).await;
    let out = said(&world, &["test", "1", "hook"]).await;
    let request = receiver.next().await;
    assert!(out.starts_with(request.id()) && out.contains("  200  "), "{out}");
    assert!(out.ends_with("  ok\n"), "the beginning of the answer: {out}");
    let [event] = &events(&request)[..] else {
        panic!("{}", request.text())
    };
    assert_eq!(event["name"], "test");
    assert!(request.header("x-pusher-signature").is_some());

    status.store(false, Ordering::Relaxed);
    let (code, out, err) = webhooks(&world, &["test", "1", "hook"]).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(out.contains("  500  "), "{out}");
    assert_eq!(err, "dunlin: test deliveries that were not taken: 1\n");
    let failed = receiver.next().await;
    let dead = deliveries(&world, "hook", "dead").await;
    assert_eq!(dead[0]["id"], failed.id(), "it is not tried again");

    let (presence, message) = (receiver.url("/p"), receiver.url("/m"));
    // Of which format it is follows from that.
    let pair = ["--presence-url", &presence, "--message-url", &message];
    said(&world, &[&["add", "1", "--id", "pair"], &pair[..]].concat()).await;
    let (_, out, _) = webhooks(&world, &["test", "1", "pair"]).await;
    assert_eq!(out.lines().count(), 2, "{out}");
    let mut paths = [receiver.next().await.path, receiver.next().await.path];
    paths.sort();
    assert_eq!(paths, ["/m", "/p"]);
}

#[tokio::test]
async fn what_cannot_be_is_refused_as_in_the_file() {
    let receiver = Receiver::start();
    let app = App::new(1).webhook(&format!("id = \"own\"\nurl = \"{}\"", receiver.url("/own")));
    let world = World::builder().config(&quick()).app(&app).start();
    let url = receiver.url("/hook");
    let own = format!("http://{}/", world.nodes[0].address);
    add(&world, &receiver, &[]).await;
    for (arguments, code, said) in [
        (
            &["add", "1", "--id", "own", "--url", &url][..],
            1,
            "the configuration has an endpoint own",
        ),
        (
            &["add", "1", "--id", "hook", "--url", &url],
            1,
            "has an endpoint hook already",
        ),
        (&["add", "2", "--url", &url], 1, "the configuration has no app 2"),
        (&["add", "1"], 2, "this is no endpoint:\n  --url is missing"),
        (
            &["add", "1", "--url", &url, "--message-url", &url],
            2,
            "--message-url is for the format \"yalgaar\"",
        ),
        (
            &["add", "1", "--format", "yalgaar"],
            2,
            "--presence-url is missing",
        ),
        (
            &["add", "1", "--url", &url, "--batch-ms", "60001"],
            2,
            "--batch-ms must be at most",
        ),
        (
            &["add", "1", "--url", &url, "--secret", "short"],
            2,
            "--secret must be whsec_",
        ),
        (
            &["add", "1", "--url", &url, "--channel-prefix", "a b"],
            2,
            "--channel-prefix \"a b\" is not",
        ),
        (
            &["add", "1", "--url", &url, "--id", "a b"],
            2,
            "--id must be 1 to 64 letters",
        ),
        (&["rotate", "1", "own"], 2, "is of the configuration"),
        (
            &["rotate", "1", "hook", "--secret", "short"],
            2,
            "--secret must be whsec_",
        ),
        (&["rotate", "1", "hook", "--overlap", "soon"], 2, "must be as 90s"),
        (&["add", "1", "--url", "http://10.0.0.1/"], 2, "private use"),
        (&["add", "1", "--url", "http://127.0.0.2:8080/"], 2, "loopback"),
        (&["add", "1", "--url", "http://0x7f000002:8080/"], 2, "loopback"),
        (&["add", "1", "--url", "http://[::1]:8080/"], 2, "loopback"),
        (&["add", "1", "--url", "http://169.254.169.254/"], 2, "link-local"),
        (
            &["add", "1", "--url", "http://shop.example@127.0.0.1:8080/"],
            2,
            "user name",
        ),
        (
            &["add", "1", "--url", "http://１２７。０。０。１:8080/"],
            2,
            "ASCII",
        ),
        (&["add", "1", "--url", "http://127.0.0.1:22/"], 2, "port 22"),
        (&["add", "1", "--url", &own], 2, "port "),
        (&["add", "1", "--url", "ftp://shop.example/"], 2, "begin with"),
        (
            &["set", "1", "hook", "--url", "http://10.0.0.1/"],
            2,
            "private use",
        ),
        (
            &["add", "1", "--url", &url, "--events", "bind"],
            2,
            "events must be events of the format",
        ),
        (
            &["add", "1", "--url", &url, "--events", "joined"],
            2,
            "[possible values: channel_occupied,",
        ),
        (
            &["add", "1", "--url", &url, "--header", "Host: a"],
            2,
            "is not yours to set",
        ),
        (
            &["set", "1", "own", "--batch-ms", "1"],
            2,
            "is of the configuration",
        ),
        (
            &["set", "1", "hook", "--batch-size", "0"],
            2,
            "--batch-size must be between",
        ),
        (
            &["set", "1", "nobody", "--batch-ms", "1"],
            1,
            "app 1 has no endpoint nobody",
        ),
        (&["disable", "1", "own"], 2, "is of the configuration"),
        (&["remove", "1", "own"], 2, "is of the configuration"),
        (&["remove", "1", "nobody"], 1, "app 1 has no endpoint nobody"),
        (&["test", "1", "nobody"], 1, "app 1 has no endpoint nobody"),
    ] {
        let (found, out, err) = webhooks(&world, arguments).await;
        assert_eq!((found, out.as_str()), (Some(code), ""), "{arguments:?}: {err}");
        assert!(err.contains(said), "{arguments:?}: {err}");
    }
    let json = said(&world, &["endpoints", "--json"]).await;
    let all: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    for (one, (id, from, version)) in all
        .iter()
        .zip([("own", "file", Value::Null), ("hook", "database", 1.into())])
    {
        assert_eq!(
            (&one["endpoint"], &one["from"], &one["version"]),
            (&id.into(), &from.into(), &version)
        );
        assert_eq!(
            (&one["state"], &one["settings"]["format"]),
            (&"well".into(), &"pusher".into())
        );
    }
    assert_eq!((all.len(), &all[1]["settings"]["url"]), (2, &url.as_str().into()));
    let list = said(&world, &["endpoints"]).await;
    let own = list
        .lines()
        .find(|line| line.contains(" own "))
        .unwrap_or_default();
    assert!(
        own.contains(" file ") && own.contains(&receiver.url("/own")),
        "{list}"
    );
}

#[tokio::test]
async fn a_server_that_nobody_gave_an_endpoint_writes_nothing_and_runs_anywhere() {
    let app = App::new(1);
    let builder = World::builder().config(&quick()).app(&app);
    let world = builder.env("DUNLIN_DATA_DIR", "/proc/nobody/writes/here").start();
    world.publish(&app, "pub", "event", "{}").await;

    // Something that is no database keeps nobody from serving.
    let blocked = crate::process::Scratch::new();
    fs::create_dir_all(blocked.file("data/dunlin.db")).expect("the scratch directory can be written");
    let builder = World::builder().config(&quick()).app(&app);
    let builder = builder.only_one_node("the database is in the directory of one node");
    let world = builder
        .env("DUNLIN_DATA_DIR", &blocked.file("data").display().to_string())
        .start();
    world.publish(&app, "pub", "event", "{}").await;
    eventually("it says so", || async {
        world.log().contains("webhooks wait").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_server_that_starts_knows_of_its_endpoints_before_anything_happens() {
    let mut receiver = Receiver::start();
    let (world, app) = scene();
    add(&world, &receiver, &["--events", "channel_occupied"]).await;
    for node in &world.nodes {
        node.kill();
    }
    for node in &world.nodes {
        node.restart();
    }
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("first").await;
    assert_eq!(receiver.events(1).await, [occupied("first")]);
}

#[tokio::test]
async fn a_node_that_delivers_nothing_records_what_others_deliver() {
    let mut receiver = Receiver::start();
    let app = App::new(1);
    let world = World::builder()
        .config(&quick())
        .app(&app)
        .nodes(2)
        .node_env(0, "DUNLIN_WEBHOOKS__DELIVER", "false")
        .start();
    let message = receiver.url("/m");
    let arguments = [
        "add",
        "1",
        "--id",
        "hook",
        "--format",
        "yalgaar",
        "--message-url",
        &message,
    ];
    let arguments = [&arguments[..], &["--batch-ms", "0"]].concat();
    let (code, _, err) = webhooks(&world, &arguments).await;
    assert_eq!(code, Some(0), "{err}");
    for _ in 0..50 {
        world.nodes[0].publish(&app, "pub", "event", "{}").await;
        if receiver.next_within(Duration::from_millis(200)).await.is_some() {
            return;
        }
    }
    panic!("what is published on the first node is not told by the second");
}

#[tokio::test]
async fn nodes_that_share_no_database_say_so_as_soon_as_there_are_webhooks() {
    const WARNING: &str = "the nodes of this cluster share no database";
    let receiver = Receiver::start();
    let with_endpoint = App::new(1).webhook(&endpoint(&receiver.url("/hook")));
    let apart = |app: &App| {
        let builder = World::builder().config(&quick()).app(app).nodes(2);
        let builder = builder.node_env(0, "DUNLIN_DATABASE_URL", "");
        builder.node_env(1, "DUNLIN_DATABASE_URL", "").start()
    };
    let together = World::builder().config(&quick()).app(&with_endpoint);
    assert!(
        !together.nodes(2).start().log().contains(WARNING),
        "they share one"
    );
    let alone = World::builder().config(&quick()).app(&with_endpoint);
    if Topology::of_this_run() == Topology::OneNode {
        assert!(!alone.start().log().contains(WARNING), "there is only one node");
    }
    let world = apart(&with_endpoint);
    for node in &world.nodes {
        assert_eq!(node.log().matches(WARNING).count(), 1, "once");
    }

    // Who has no webhooks need not care; who adds one hears of it.
    let world = apart(&App::new(1));
    assert!(!world.log().contains(WARNING));
    let url = receiver.url("/hook");
    let (code, _, err) = webhooks(&world, &["add", "1", "--url", &url]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(
        err.contains(WARNING) && err.contains("DUNLIN_DATABASE_URL"),
        "{err}"
    );
    eventually("the node says it, too", || async {
        world.nodes[0].log().contains(WARNING).then_some(())
    })
    .await;
}
