//! A whole node in the test's own process, asked from outside.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::{Client, Method, Response};
use serde_json::json;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use super::run::{Node, Stop};
use crate::config::{Sources, load};

pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// A node on free ports of this machine, with these variables beside.
pub(super) async fn node(options: &[(&str, &str)]) -> Node {
    let ours = [
        ("DUNLIN_HOST", "127.0.0.1"),
        ("DUNLIN_PORT", "0"),
        ("DUNLIN_METRICS_PORT", "0"),
        ("DUNLIN_SERVER__WORKERS", "2"),
    ];
    let env: BTreeMap<_, _> = ours
        .iter()
        .chain(options)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let sources = Sources {
        env,
        ..Sources::default()
    };
    Node::start(load(&sources).unwrap().config).await.unwrap()
}

/// Runs `body` as the program's main thread does, to its end or the deadline.
pub(super) fn run(body: impl Future<Output = ()>) {
    actix_rt::System::new().block_on(async {
        tokio::time::timeout(DEADLINE, body)
            .await
            .expect("within the deadline");
    });
}

async fn ask(node: &Node, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
    let client = Client::builder().no_proxy().build().unwrap();
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = client
        .request(method, format!("http://{}{path}", node.address))
        .body(body.to_owned());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

fn header<'a>(answer: &'a Response, name: &str) -> Option<&'a str> {
    answer.headers().get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn a_known_path_says_which_methods_it_has() {
    run(async {
        let node = node(&[]).await;
        for (method, path, allowed) in [
            ("GET", "/apps/1/events", "POST"),
            ("OPTIONS", "/apps/1/batch_events", "POST"),
            ("POST", "/apps/1/channels", "GET, HEAD"),
            ("DELETE", "/apps/1/channels/a/users", "GET, HEAD"),
            ("GET", "/apps/1/users/u/terminate_connections", "POST"),
            ("GET", "/users/u/terminate_connections", "POST"),
            ("PUT", "/healthz", "GET, HEAD"),
        ] {
            let answer = ask(&node, method, path, &[], "").await;
            assert_eq!(answer.status(), 405, "{method} {path}");
            assert_eq!(header(&answer, "allow"), Some(allowed), "{method} {path}");
        }
        let unknown = ask(&node, "GET", "/nothing", &[], "").await;
        assert_eq!(unknown.status(), 404);
        assert_eq!(
            header(&unknown, "content-type"),
            Some("text/plain; charset=utf-8")
        );
        assert_eq!(ask(&node, "HEAD", "/healthz", &[], "").await.status(), 200);
        node.stop(Stop::Now).await.unwrap();
    });
}

#[test]
fn browsers_of_other_origins_are_let_in_only_where_that_is_wanted() {
    const ALLOWED: &str = "access-control-allow-origin";
    let preflight = [
        ("Origin", "https://a.example"),
        ("Access-Control-Request-Method", "POST"),
    ];
    run(async {
        let open = node(&[("DUNLIN_API__CORS", "true")]).await;
        let answer = ask(&open, "OPTIONS", "/apps/1/events", &preflight, "").await;
        assert_eq!(answer.status(), 204);
        assert_eq!(header(&answer, ALLOWED), Some("*"));
        let refusal = ask(&open, "POST", "/apps/1/events", &preflight[..1], "{}").await;
        assert_eq!(refusal.status(), 401);
        assert_eq!(header(&refusal, ALLOWED), Some("*"), "a page may read why");
        let other = ask(&open, "GET", "/healthz", &preflight[..1], "").await;
        assert_eq!(header(&other, ALLOWED), None, "only the signed API");
        open.stop(Stop::Now).await.unwrap();

        let closed = node(&[]).await;
        let answer = ask(&closed, "OPTIONS", "/apps/1/events", &preflight, "").await;
        assert_eq!(answer.status(), 405);
        assert_eq!(header(&answer, ALLOWED), None);
        closed.stop(Stop::Now).await.unwrap();
    });
}

#[test]
fn the_demo_page_is_for_development_and_triggers_for_itself_only() {
    run(async {
        let node = node(&[]).await;
        let page = ask(&node, "GET", "/demo", &[], "").await;
        assert_eq!(page.status(), 200);
        assert!(
            header(&page, "content-security-policy")
                .unwrap()
                .contains("default-src 'self'")
        );
        for (origin, status) in [
            (format!("http://{}", node.address), 200),
            ("http://a.example".to_owned(), 403),
            ("null".to_owned(), 403),
        ] {
            let event = json!({ "name": "e", "channel": "my-channel", "data": "{}" }).to_string();
            let answer = ask(&node, "POST", "/demo/trigger", &[("Origin", &origin)], &event).await;
            assert_eq!(answer.status(), status, "{origin}");
        }
        node.stop(Stop::Now).await.unwrap();

        let without = super::tests::node(&[("DUNLIN_DEMO__ENABLED", "off")]).await;
        for path in ["/demo", "/demo/app.json", "/demo/trigger"] {
            assert_eq!(ask(&without, "GET", path, &[], "").await.status(), 404, "{path}");
        }
        without.stop(Stop::Now).await.unwrap();
    });
}

/// The samples of some metrics, as they are written.
async fn metrics(node: &Node, names: &[&str]) -> Vec<String> {
    let url = format!("http://{}/metrics", node.metrics_address);
    let client = Client::builder().no_proxy().build().unwrap();
    let text = client.get(url).send().await.unwrap().text().await.unwrap();
    let sample = |name: &&str| {
        let prefix = format!("dunlin_{name} ");
        let line = text.lines().find_map(|line| line.strip_prefix(prefix.as_str()));
        line.unwrap_or_else(|| panic!("{name} is not in {text}"))
            .to_owned()
    };
    names.iter().map(sample).collect()
}

#[test]
fn the_gauges_follow_who_is_there_and_are_back_at_zero_when_everybody_left() {
    let gauges = [
        "connections",
        "local_channels",
        "directory_channels",
        "channel_states",
    ];
    run(async {
        let node = node(&[]).await;
        let url = format!("ws://{}/app/app-key?protocol=7", node.address);
        let (mut client, _) = connect_async(url).await.unwrap();
        for channel in ["a", "b"] {
            let subscribe = json!({ "event": "pusher:subscribe", "data": { "channel": channel } });
            client.send(Message::text(subscribe.to_string())).await.unwrap();
        }
        while metrics(&node, &gauges).await != ["1", "2", "2", "2"] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        client.close(None).await.unwrap();
        while client.next().await.is_some() {}
        while metrics(&node, &gauges).await != ["0", "0", "0", "0"] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        node.stop(Stop::Now).await.unwrap();
    });
}

#[test]
fn a_port_that_is_taken_stops_the_start_and_names_the_option() {
    run(async {
        let first = node(&[]).await;
        let port = first.metrics_address.port().to_string();
        let env = [
            ("DUNLIN_HOST", "127.0.0.1"),
            ("DUNLIN_PORT", "0"),
            ("DUNLIN_METRICS_PORT", &port),
        ];
        let env = env
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let config = load(&Sources {
            env,
            ..Sources::default()
        })
        .unwrap()
        .config;
        let error = Node::start(config).await.err().expect("the port is taken");
        assert!(error.to_string().contains("server.metrics_port"), "{error:#}");
        first.stop(Stop::Now).await.unwrap();
    });
}
