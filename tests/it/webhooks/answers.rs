//! What counts as an answer, what as a failure, and when a failure is tried again.

use super::asking::{deliveries, listed, shown, the_one};
use super::receiver::{Receiver, Reply};
use super::{attempts, endpoint, messages, scene};
use crate::certificate;
use crate::client::Client;
use crate::process::{Scratch, free_ports};
use crate::world::{App, World, eventually_within};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// For every attempt of a test to time out.
const PATIENCE: Duration = Duration::from_secs(20);

const HOUR_MS: u64 = 3_600_000;

const LATE: &str = "There was no complete answer within 400ms.";
const BROKEN: &str = "The connection ended before the answer was complete";

/// A reply with this path: the status that is seen, and how its note begins.
type Case = (&'static str, Reply, Option<u16>, &'static str);

fn bytes(text: impl Into<Vec<u8>>) -> Reply {
    Reply::Bytes(text.into())
}

fn failures() -> Vec<Case> {
    let many_headers = ["HTTP/1.1 200 OK\r\n", &"a: b\r\n".repeat(1000), "\r\n"].concat();
    let redirect = |status| Reply::status(status).with("location", "/elsewhere");
    vec![
        ("/301", redirect(301), Some(301), "ok"),
        ("/307", redirect(307), Some(307), "ok"),
        ("/400", Reply::status(400), Some(400), "ok"),
        ("/404", Reply::status(404), Some(404), "ok"),
        ("/429", Reply::status(429), Some(429), "ok"),
        ("/500", Reply::status(500), Some(500), "ok"),
        ("/never", Reply::Never, None, LATE),
        (
            "/late",
            Reply::status(200).after(Duration::from_secs(5)),
            None,
            LATE,
        ),
        ("/drip-head", Reply::Drip("HTTP/1.1 200 OK\r\na: "), None, LATE),
        (
            "/drip-body",
            Reply::Drip("HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n"),
            None,
            LATE,
        ),
        ("/reset", Reply::Reset, None, BROKEN),
        ("/closed", bytes(""), None, BROKEN),
        (
            "/half",
            bytes("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"),
            None,
            BROKEN,
        ),
        ("/headers", bytes(many_headers), None, BROKEN),
        ("/redis", bytes("-ERR unknown command 'POST'\r\n"), None, BROKEN),
    ]
}

/// An app whose endpoints are named as their paths are, without the slash.
fn app_of(receiver: &Receiver, paths: impl IntoIterator<Item = &'static str>) -> App {
    paths.into_iter().fold(App::new(1), |app, path| {
        let lines = messages(&receiver.url(path), "batch_ms = 0");
        app.webhook(&format!("id = \"{}\"\n{lines}", &path[1..]))
    })
}

#[tokio::test]
async fn what_is_no_success_is_tried_again_until_it_is_given_up_and_says_why() {
    let mut receiver = Receiver::with(|request| {
        let reply = failures().into_iter().find(|(path, ..)| *path == request.path);
        reply.map_or(Reply::status(200), |(_, reply, ..)| reply)
    });
    let app = app_of(&receiver, failures().into_iter().map(|(path, ..)| path));
    let [closed] = free_ports();
    let app = ["http", "https"].into_iter().fold(app, |app, scheme| {
        // A port where nobody listens, and TLS where nobody speaks it.
        let port = if scheme == "http" {
            closed.to_string()
        } else {
            receiver.port().to_string()
        };
        let lines = messages(&format!("{scheme}://127.0.0.1:{port}/"), "batch_ms = 0");
        app.webhook(&format!("id = \"{scheme}\"\n{lines}"))
    });
    let world = World::builder()
        .config(&(attempts(&[0, 100]) + "\ntimeout_ms = 400"))
        .app(&app)
        .start();
    world.publish(&app, "pub", "event", "data").await;
    let endpoints = app.webhooks.len();
    let dead = eventually_within(PATIENCE, || async {
        let dead = listed(&world, &["--state", "dead"]).await;
        (dead.len() == endpoints).then_some(dead)
    });
    let dead = dead.await.expect("all of them are given up");

    let others = [
        ("/http", bytes(""), None, "The connection was refused."),
        (
            "/https",
            bytes(""),
            None,
            "The receiver and we could not agree on TLS.",
        ),
    ];
    let requests = receiver.so_far();
    for (path, _, status, note) in failures().into_iter().chain(others) {
        let delivery = dead.iter().find(|one| one["endpoint"] == path[1..]);
        let delivery = shown(&world, delivery.expect(path)["id"].as_str().expect("a text")).await;
        let attempts = delivery["history"].as_array().expect("a list");
        assert_eq!((attempts.len(), &delivery["attempts"]), (2, &2.into()), "{path}");
        for attempt in attempts {
            assert_eq!(attempt["status"].as_u64(), status.map(u64::from), "{path}");
            assert!(
                attempt["note"].as_str().is_some_and(|it| it.starts_with(note)),
                "{attempt}"
            );
        }
        let same: Vec<_> = requests.iter().filter(|request| request.path == path).collect();
        assert!(
            ["/http", "/https"].contains(&path) || same.len() == 2,
            "{path}: {same:?}"
        );
        for request in same {
            assert_eq!(
                (request.id(), request.text()),
                (
                    delivery["id"].as_str().expect("a text"),
                    delivery["body"].as_str().expect("a text")
                )
            );
        }
    }
    assert!(
        requests.iter().all(|request| request.path != "/elsewhere"),
        "no redirect is followed"
    );
}

#[tokio::test]
async fn what_a_receiver_says_besides_its_success_changes_nothing() {
    let replies = || {
        let long = ["HTTP/1.1 200 OK\r\n\r\n", &"a".repeat(200_000)].concat();
        let gzip = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n\u{1f}abc";
        [
            ("/201", Reply::status(201), "ok"),
            ("/204", bytes("HTTP/1.1 204 No Content\r\n\r\n"), ""),
            ("/299", Reply::status(299), "ok"),
            ("/long", bytes(long), "aaa"),
            ("/gzip", bytes(gzip), "(a compressed body)"),
            (
                "/refresh",
                Reply::status(200).with("refresh", "0;url=/elsewhere"),
                "ok",
            ),
        ]
    };
    let mut receiver = Receiver::with(move |request| {
        let reply = replies().into_iter().find(|(path, ..)| *path == request.path);
        reply.expect("there are no other paths").1
    });
    let app = app_of(&receiver, replies().into_iter().map(|(path, ..)| path));
    let world = World::builder().config(&attempts(&[0, 20])).app(&app).start();
    world.publish(&app, "pub", "event", "data").await;
    for (path, _, note) in replies() {
        let done = the_one(&world, &path[1..], "done").await;
        let attempts = shown(&world, done["id"].as_str().expect("a text")).await["history"].take();
        let attempts = attempts.as_array().expect("a list");
        assert_eq!(attempts.len(), 1, "{path}");
        let found = attempts[0]["note"].as_str().expect("a text");
        assert!(found.starts_with(note) && found.len() <= 1024, "{path}: {found}");
    }
    assert_eq!(receiver.so_far().len(), replies().len());
}

#[tokio::test]
async fn an_endpoint_with_tls_is_sent_to_if_the_system_trusts_it() {
    let scratch = Scratch::new();
    let stranger = Scratch::new();
    let [trusted, unknown] = [&scratch, &stranger].map(|scratch| {
        certificate::write_into(scratch);
        let chain = CertificateDer::from_pem_file(scratch.file("cert.pem")).expect("it is a certificate");
        let key = PrivateKeyDer::from_pem_file(scratch.file("key.pem")).expect("it is a key");
        let config = ServerConfig::builder().with_no_client_auth();
        Receiver::secure(config.with_single_cert(vec![chain], key).expect("they fit"))
    });
    let (mut trusted, mut unknown) = (trusted, unknown);
    let app = [("trusted", &trusted), ("unknown", &unknown)].into_iter().fold(
        App::new(1),
        |app, (id, receiver)| {
            app.webhook(&format!(
                "id = \"{id}\"\n{}",
                messages(&receiver.url("/"), "batch_ms = 0")
            ))
        },
    );
    let world = World::builder()
        .config(&attempts(&[0, 20]))
        .app(&app)
        .env("SSL_CERT_FILE", &scratch.file("ca.pem").display().to_string())
        .start();
    world.publish(&app, "pub", "event", "data").await;
    let request = trusted.next().await;
    assert_eq!(super::items(&request)[0]["message"], "data");
    let dead = the_one(&world, "unknown", "dead").await;
    let shown = shown(&world, dead["id"].as_str().expect("a text")).await;
    for attempt in shown["history"].as_array().expect("a list") {
        let note = attempt["note"].as_str().expect("a text");
        assert!(note.contains("from an unknown authority"), "{note}");
    }
    assert!(unknown.so_far().is_empty(), "it is told nothing");
}

#[tokio::test]
async fn what_fails_at_first_is_sent_until_it_is_taken() {
    let count = AtomicUsize::new(0);
    let mut receiver = Receiver::with(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0..3 => Reply::status(503),
        _ => Reply::status(204),
    });
    let (world, app) = scene(&receiver, "id = \"hook\"\n");
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("pub").await;
    let first = receiver.next().await;
    for _ in 0..3 {
        let again = receiver.next().await;
        assert_eq!((again.id(), &again.body), (first.id(), &first.body));
    }
    let done = the_one(&world, "hook", "done").await;
    assert_eq!((&done["id"], &done["attempts"]), (&first.id().into(), &4.into()));
    assert!(receiver.so_far().is_empty());
}

#[tokio::test]
async fn an_endpoint_that_asks_for_time_is_given_it() {
    let count = AtomicUsize::new(0);
    let mut receiver = Receiver::with(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::status(429).with("retry-after", "2"),
        _ => Reply::status(200),
    });
    let (world, app) = scene(&receiver, "");
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("pub").await;
    let first = receiver.next().await;
    let second = receiver.next().await;
    let pause = second.at - first.at;
    assert!(pause >= Duration::from_millis(1900), "{pause:?}");
    // It is the same delivery, said anew: who refuses what is old takes this one.
    let [before, now] = [&first, &second].map(|request| {
        request
            .header("webhook-timestamp")
            .and_then(|text| text.parse::<u64>().ok())
    });
    assert!(before < now, "{before:?} {now:?}");
    assert_ne!(
        first.header("webhook-signature"),
        second.header("webhook-signature")
    );
    assert_eq!((first.id(), &first.body), (second.id(), &second.body));
}

#[tokio::test]
async fn the_pauses_are_those_of_the_schedule_varied_by_a_fifth() {
    const ENDPOINTS: usize = 10;
    let receiver = Receiver::with(|_| Reply::status(500));
    // More than a few failures in a row would have an endpoint left alone: one each.
    let app = (0..ENDPOINTS).fold(App::new(1), |app, number| {
        app.webhook(&messages(&receiver.url(&format!("/{number}")), "batch_ms = 0"))
    });
    let world = World::builder()
        .config(&attempts(&[0, HOUR_MS]))
        .app(&app)
        .start();
    world.publish(&app, "pub", "event", "data").await;
    let waiting = eventually_within(PATIENCE, || async {
        let mut waiting = listed(&world, &["--state", "pending"]).await;
        waiting.retain(|delivery| delivery["attempts"] == 1);
        (waiting.len() == ENDPOINTS).then_some(waiting)
    });
    let mut pauses = HashSet::new();
    for delivery in waiting.await.expect("each waits for its second attempt") {
        let attempt = shown(&world, delivery["id"].as_str().expect("a text")).await["history"][0].take();
        let number = |value: &serde_json::Value| value.as_u64().expect("a number");
        let ended_at_ms = number(&attempt["at_ms"]) + number(&attempt["took_ms"]);
        let pause_ms = number(&delivery["next_at_ms"]) - ended_at_ms;
        // The minute is for a machine that had other things to do between the two looks at the clock.
        let bounds = HOUR_MS * 4 / 5..=HOUR_MS * 6 / 5 + 60_000;
        assert!(bounds.contains(&pause_ms), "{pause_ms}");
        pauses.insert(pause_ms / 60_000);
    }
    assert!(pauses.len() > 1, "each has its own: {pauses:?}");
}

#[tokio::test]
async fn an_endpoint_may_choose_to_be_tried_for_minutes_only() {
    let mut receiver = Receiver::with(|_| Reply::status(500));
    let short = endpoint(&receiver.url("/short")) + "id = \"short\"\nshort_retries = true\n";
    let long = endpoint(&receiver.url("/long")) + "id = \"long\"\n";
    let app = App::new(1).webhook(&short).webhook(&long);
    let world = World::builder()
        .config(&attempts(&[0, HOUR_MS, HOUR_MS]))
        .app(&app)
        .start();
    let mut client = Client::connect(&world, &app).await;
    client.subscribe("pub").await;
    let mut short = 0;
    while short < 3 {
        short += usize::from(receiver.next().await.path == "/short");
    }
    let [long] = &deliveries(&world, "long", "pending").await[..] else {
        panic!("it waits")
    };
    assert_eq!(long["attempts"], 1);
}
