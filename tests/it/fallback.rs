//! The transports over plain HTTP, request by request.

use crate::client::{Client, QUERY};
use crate::request::{Answer, Http, exchange};
use crate::sign::channel_auth;
use crate::world::{App, DEADLINE, World, shared};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A session id as pusher-js invents them.
fn session() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{}/s{number:07}", number % 1000)
}

fn post(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nOrigin: http://page.example\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A response that never ends, read line by line.
struct Stream {
    http: Http,
    buffer: String,
    head: Answer,
}

impl Stream {
    async fn open(world: &World, path: &str) -> Self {
        let mut http = Http::open(world.address).await;
        http.send(&post(path, "")).await;
        let head = http.head().await.expect("the stream is answered");
        assert_eq!(head.status, 200, "{path}");
        Self {
            http,
            buffer: String::new(),
            head,
        }
    }

    async fn line_within(&mut self, limit: Duration) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.find('\n') {
                let line: String = self.buffer.drain(..=end).collect();
                return Some(line.trim_end_matches('\n').to_owned());
            }
            let piece = if self.head.header("transfer-encoding").is_some() {
                self.http.chunk_within(limit).await
            } else {
                self.http.piece_within(limit).await
            };
            let chunk = piece.filter(|piece| !piece.is_empty())?;
            self.buffer
                .push_str(std::str::from_utf8(&chunk).expect("frames are UTF-8"));
        }
    }

    async fn line(&mut self) -> String {
        self.line_within(DEADLINE).await.expect("a frame comes in time")
    }

    /// The messages of the next `a` frame.
    async fn messages(&mut self) -> Vec<Value> {
        messages(&self.line().await)
    }

    async fn ends(&mut self) -> bool {
        self.line_within(DEADLINE).await.is_none()
    }
}

#[track_caller]
fn messages(frame: &str) -> Vec<Value> {
    let list = frame
        .strip_prefix('a')
        .unwrap_or_else(|| panic!("not an array frame: {frame}"));
    let texts: Vec<String> =
        serde_json::from_str(list).unwrap_or_else(|_| panic!("bad array frame: {frame}"));
    texts
        .iter()
        .map(|text| serde_json::from_str(text).expect("a message is JSON"))
        .collect()
}

fn base(app: &App) -> String {
    format!("/pusher/app/{}/{}", app.key, session())
}

fn subscribe(channel: &str) -> String {
    json!({ "event": "pusher:subscribe", "data": { "auth": "", "channel": channel } }).to_string()
}

async fn send(world: &World, base: &str, messages: &[String]) -> Answer {
    let body = serde_json::to_string(messages).expect("texts become JSON");
    exchange(world.address, &post(&format!("{base}/xhr_send?t=1&n=2"), &body)).await
}

/// Opens a stream and reads it up to the socket id.
async fn open_stream(world: &World, app: &App) -> (Stream, String, String) {
    let base = base(app);
    let mut stream = Stream::open(world, &format!("{base}/xhr_streaming?{QUERY}&t=1&n=1")).await;
    assert_eq!(stream.line().await, "h".repeat(2048));
    assert_eq!(stream.line().await, "o");
    let hello = stream.messages().await.remove(0);
    assert_eq!(hello["event"], "pusher:connection_established");
    let data: Value = serde_json::from_str(hello["data"].as_str().expect("a string")).expect("JSON");
    let socket_id = data["socket_id"].as_str().expect("a string").to_owned();
    (stream, base, socket_id)
}

async fn poll(world: &World, base: &str) -> String {
    let answer = exchange(world.address, &post(&format!("{base}/xhr?{QUERY}&t=1&n=1"), "")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

#[tokio::test]
async fn a_stream_opens_with_its_prelude_and_the_handshake() {
    let (world, app) = shared();
    let (stream, ..) = open_stream(world, &app).await;
    let head = &stream.head;
    assert_eq!(
        head.header("content-type"),
        Some("application/javascript; charset=UTF-8")
    );
    assert_eq!(head.header("cache-control"), Some("no-store, no-transform"));
    assert_eq!(head.header("x-accel-buffering"), Some("no"));
    assert_eq!(head.header("access-control-allow-origin"), Some("*"));
    assert_eq!(head.header("content-encoding"), None);
}

#[tokio::test]
async fn messages_go_out_by_post_and_come_in_on_the_stream() {
    let (world, app) = shared();
    let (mut stream, base, _) = open_stream(world, &app).await;
    let answer = send(world, &base, &[subscribe("pub")]).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(
        stream.messages().await[0]["event"],
        "pusher_internal:subscription_succeeded"
    );
    world.publish(&app, "pub", "e", r#"{"quoted":"\"é\u0001"}"#).await;
    let event = stream.messages().await.remove(0);
    assert_eq!(
        event,
        json!({ "event": "e", "channel": "pub", "data": r#"{"quoted":"\"é\u0001"}"# })
    );
}

#[tokio::test]
async fn several_messages_of_one_post_are_taken_in_order() {
    let (world, app) = shared();
    let (mut stream, base, _) = open_stream(world, &app).await;
    send(world, &base, &["a", "b", "c"].map(subscribe)).await;
    let mut channels = Vec::new();
    while channels.len() < 3 {
        channels.extend(
            stream
                .messages()
                .await
                .into_iter()
                .map(|message| message["channel"].clone()),
        );
    }
    assert_eq!(channels, ["a", "b", "c"]);
}

#[tokio::test]
async fn an_empty_array_is_answered_with_an_empty_array() {
    let (world, app) = shared();
    let (mut stream, base, _) = open_stream(world, &app).await;
    assert_eq!(send(world, &base, &[]).await.status, 204);
    assert_eq!(stream.line().await, "a[]");
}

#[tokio::test]
async fn private_channels_and_client_events_work_over_http_too() {
    let (world, app) = shared();
    let (mut stream, base, socket_id) = open_stream(world, &app).await;
    let auth = channel_auth(&app, &socket_id, "private-a", None);
    let message = json!({ "event": "pusher:subscribe", "data": { "auth": auth, "channel": "private-a" } });
    send(world, &base, &[message.to_string()]).await;
    assert_eq!(
        stream.messages().await[0]["event"],
        "pusher_internal:subscription_succeeded"
    );
    let mut client = Client::connect(world, &app).await;
    client.subscribe("private-a").await;
    let message = json!({ "event": "client-x", "channel": "private-a", "data": { "from": "http" } });
    send(world, &base, &[message.to_string()]).await;
    assert_eq!(client.expect("client-x").await.text(), r#"{"from":"http"}"#);
    client.trigger("private-a", "client-y", json!("hi")).await;
    assert_eq!(stream.messages().await[0]["event"], "client-y");
}

#[tokio::test]
async fn a_second_stream_takes_over_without_opening_again() {
    let (world, app) = shared();
    let (mut first, base, _) = open_stream(world, &app).await;
    send(world, &base, &[subscribe("pub")]).await;
    first.messages().await;
    let mut second = Stream::open(world, &format!("{base}/xhr_streaming?{QUERY}&t=2&n=3")).await;
    world.publish(&app, "pub", "e", "x").await;
    let line = loop {
        let line = second.line().await;
        if !line.starts_with('h') {
            break line;
        }
    };
    assert_eq!(messages(&line)[0]["event"], "e", "no o, no c in front");
    if let Some(line) = first.line_within(Duration::from_millis(200)).await {
        assert!(
            !line.starts_with('c') && !line.contains("\"e\""),
            "the old stream got {line}"
        );
    }
}

#[tokio::test]
async fn what_is_published_between_two_polls_is_kept() {
    let (world, app) = shared();
    let base = base(&app);
    poll(world, &base).await;
    poll(world, &base).await;
    send(world, &base, &[subscribe("pub")]).await;
    poll(world, &base).await;
    for number in 0..5 {
        world.publish(&app, "pub", "e", &number.to_string()).await;
    }
    let mut heard = Vec::new();
    while heard.len() < 5 {
        for frame in poll(world, &base).await.lines() {
            heard.extend(messages(frame).into_iter().map(|message| message["data"].clone()));
        }
    }
    assert_eq!(heard, ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_long_stream_is_not_ended_for_its_size() {
    let (world, app) = shared();
    let (mut stream, base, _) = open_stream(world, &app).await;
    send(world, &base, &[subscribe("pub")]).await;
    stream.messages().await;
    let data = "d".repeat(10_000);
    let mut received = 0;
    for _ in 0..60 {
        world.publish(&app, "pub", "e", &data).await;
        received += stream.messages().await.len();
    }
    assert_eq!(received, 60, "600 kB over one response");
}

#[tokio::test]
async fn a_session_without_a_receiver_ends_after_its_gap() {
    let (world, app) = World::with_config("[fallback]\nsession_gap_ms = 1000\nheartbeat_ms = 1000");
    let mut watcher = Client::connect(&world, &app).await;
    watcher.join("presence-a", "watcher").await;
    let (mut stream, base, socket_id) = open_stream(&world, &app).await;
    let data = r#"{"user_id":"u"}"#;
    let auth = channel_auth(&app, &socket_id, "presence-a", Some(data));
    let message = json!({
        "event": "pusher:subscribe", "data": { "auth": auth, "channel": "presence-a", "channel_data": data },
    });
    send(&world, &base, &[message.to_string()]).await;
    stream.messages().await;
    watcher.expect("pusher_internal:member_added").await;
    drop(stream);
    // The end of the stream may show only when the next heartbeat is written to it.
    let event = watcher
        .next_within(Duration::from_secs(10))
        .await
        .expect("the member is removed");
    assert_eq!(event.name, "pusher_internal:member_removed");
    assert_eq!(send(&world, &base, &[]).await.status, 404);
}

#[tokio::test]
async fn a_heartbeat_comes_when_there_is_nothing_to_say() {
    let (world, app) = World::with_config("[fallback]\nheartbeat_ms = 1000\npoll_timeout_ms = 1000");
    let (mut stream, ..) = open_stream(&world, &app).await;
    assert_eq!(stream.line().await, "h");
    assert_eq!(stream.line().await, "h");
    let base = base(&app);
    poll(&world, &base).await;
    poll(&world, &base).await;
    assert_eq!(poll(&world, &base).await, "h\n");
}

#[tokio::test]
async fn polling_opens_then_greets_then_waits() {
    let (world, app) = shared();
    let base = base(&app);
    assert_eq!(poll(world, &base).await, "o\n");
    assert_eq!(
        messages(poll(world, &base).await.trim_end())[0]["event"],
        "pusher:connection_established"
    );
    assert_eq!(send(world, &base, &[subscribe("pub")]).await.status, 204);
    assert_eq!(
        messages(poll(world, &base).await.trim_end())[0]["event"],
        "pusher_internal:subscription_succeeded"
    );
    let start = Instant::now();
    let waiting = poll(world, &base);
    let publishing = async {
        tokio::task::yield_now().await;
        world.publish(&app, "pub", "e", "x").await;
    };
    let (frame, ()) = futures_util::future::join(waiting, publishing).await;
    assert_eq!(messages(frame.trim_end())[0]["event"], "e");
    assert!(start.elapsed() < Duration::from_secs(4));
    // A ping wakes a waiting poll; which of the two arrives first is not ours to say.
    let mut waiting = std::pin::pin!(poll(world, &base));
    let frame = loop {
        tokio::select! {
            frame = &mut waiting => break frame,
            answer = send(world, &base, &[]) => assert_eq!(answer.status, 204),
        }
    };
    assert!(frame.starts_with("a[]\n"), "{frame}");
}

#[tokio::test]
async fn polls_share_one_kept_connection() {
    let (world, app) = shared();
    let base = base(&app);
    let mut http = Http::open(world.address).await;
    for start in ["o", "a["] {
        http.send(&post(&format!("{base}/xhr?{QUERY}"), "")).await;
        let answer = http.answer().await.expect("an answer");
        assert!(answer.text().starts_with(start), "{}", answer.text());
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
}

#[tokio::test]
async fn refusals_are_close_frames() {
    let (world, app) = shared();
    for (path, code) in [
        (
            format!("/pusher/app/nobody/{}/xhr_streaming?{QUERY}", session()),
            4001,
        ),
        (
            format!("/pusher/app/{}/{}/xhr_streaming?protocol=3", app.key, session()),
            4007,
        ),
        (
            format!("/pusher/app/{}/{}/xhr_streaming", app.key, session()),
            4008,
        ),
    ] {
        let mut stream = Stream::open(world, &path).await;
        let frame = loop {
            let line = stream.line().await;
            if line.starts_with('c') {
                break line;
            }
            assert!(
                line == "o" || line.starts_with('h') || line.contains("pusher:error"),
                "{path}: {line}"
            );
        };
        let close: Value = serde_json::from_str(&frame[1..]).expect("a close frame holds JSON");
        assert_eq!(close[0], code, "{path}");
        assert!(close[1].is_string());
        assert!(stream.ends().await, "{path}");
    }
}

#[tokio::test]
async fn a_refused_poll_gets_its_close_frame_too() {
    let (world, _) = shared();
    let base = format!("/pusher/app/nobody/{}", session());
    let mut text = poll(world, &base).await;
    if text == "o\n" {
        text = poll(world, &base).await;
        if text.starts_with('a') && !text.contains("\nc[") {
            text = poll(world, &base).await;
        }
    }
    assert!(text.contains("c[4001,"), "{text}");
}

#[tokio::test]
async fn an_unknown_session_is_404() {
    let (world, app) = shared();
    let answer = send(world, &base(&app), &[subscribe("pub")]).await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn a_session_belongs_to_its_app() {
    let (world, app) = shared();
    let (_, other) = shared();
    let (mut stream, base, _) = open_stream(world, &app).await;
    let foreign = base.replace(&app.key, &other.key);
    assert_eq!(send(world, &foreign, &[subscribe("pub")]).await.status, 404);
    send(world, &base, &[]).await;
    assert_eq!(
        stream.line().await,
        "a[]",
        "nothing of the foreign request arrived"
    );
}

#[tokio::test]
async fn a_preflight_is_answered_for_every_path() {
    let (world, app) = shared();
    let base = base(&app);
    for path in [
        format!("{base}/xhr_streaming?{QUERY}"),
        format!("{base}/xhr"),
        format!("{base}/xhr_send?t=1&n=1"),
    ] {
        let request = format!(
            "OPTIONS {path} HTTP/1.1\r\nHost: t\r\nOrigin: http://page.example\r\n\
             Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n\r\n"
        );
        let answer = exchange(world.address, request.as_bytes()).await;
        assert_eq!(answer.status, 204, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        let methods = answer.header("access-control-allow-methods").unwrap_or_default();
        assert!(
            methods.contains("POST") && methods.contains("OPTIONS"),
            "{methods}"
        );
        assert!(
            answer
                .header("access-control-allow-headers")
                .is_some_and(|value| value.eq_ignore_ascii_case("content-type"))
        );
        assert_eq!(answer.header("access-control-max-age"), Some("86400"));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
}

#[tokio::test]
async fn bad_bodies_are_refused_and_the_session_lives_on() {
    let (world, app) = shared();
    let (mut stream, base, _) = open_stream(world, &app).await;
    for body in [
        "", "{", "null", "\"x\"", "{}", "[1]", "[null]", "[[]]", "[\"x\"", "['x']",
    ] {
        let answer = exchange(world.address, &post(&format!("{base}/xhr_send"), body)).await;
        assert!((400..500).contains(&answer.status), "{body}: {}", answer.status);
    }
    let answer = exchange(
        world.address,
        &post(&format!("{base}/xhr_send"), &" ".repeat(262_145)),
    )
    .await;
    assert_eq!(answer.status, 413);
    send(world, &base, &[]).await;
    assert_eq!(stream.line().await, "a[]");
    world.assert_calm();
}

#[tokio::test]
async fn a_message_that_is_not_json_is_answered_as_on_a_socket() {
    let (world, app) = shared();
    let (mut stream, base, _) = open_stream(world, &app).await;
    send(world, &base, &["{".to_owned()]).await;
    let error = stream.messages().await.remove(0);
    assert_eq!(
        (&error["event"], &error["data"]["message"]),
        (&json!("pusher:error"), &json!("Invalid JSON"))
    );
}

#[tokio::test]
async fn ending_a_user_ends_its_stream_with_a_close_frame() {
    let (world, app) = shared();
    let (mut stream, base, socket_id) = open_stream(world, &app).await;
    let data = r#"{"id":"u"}"#;
    let auth = crate::sign::user_auth(&app, &socket_id, data);
    let message = json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": data } });
    send(world, &base, &[message.to_string()]).await;
    assert_eq!(stream.messages().await[0]["event"], "pusher:signin_success");
    crate::request::Call::post(&app, "/users/u/terminate_connections", &json!({}))
        .send(world)
        .await
        .assert(200, "{}");
    let error = stream.messages().await.remove(0);
    assert_eq!(error["data"]["code"], 4009);
    let close = stream.line().await;
    assert!(close.starts_with("c[4009,"), "{close}");
    assert!(stream.ends().await);
}

async fn get(world: &World, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: t\r\nOrigin: http://page.example\r\n\r\n");
    exchange(world.address, request.as_bytes()).await
}

#[tokio::test]
async fn sockjs_info_says_what_is_spoken() {
    let (world, _) = shared();
    let answer = get(world, "/pusher/info").await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("access-control-allow-origin").is_some());
    assert!(
        answer
            .header("cache-control")
            .is_some_and(|value| value.contains("no-store"))
    );
    let info = answer.json();
    assert_eq!(
        (&info["websocket"], &info["cookie_needed"], &info["origins"]),
        (&json!(false), &json!(false), &json!(["*:*"]))
    );
    assert!(info["entropy"].is_u64());
}

#[tokio::test]
async fn the_sockjs_frame_page_loads_only_what_looks_like_a_script() {
    let (world, _) = shared();
    let page = get(
        world,
        "/pusher/iframe.html?js_path=http%3A%2F%2Flocalhost%2Fsockjs.min.js",
    )
    .await;
    assert_eq!(page.status, 200);
    assert!(
        page.header("content-type")
            .is_some_and(|value| value.starts_with("text/html"))
    );
    assert!(
        page.text().contains("http://localhost/sockjs.min.js") && page.text().contains("bootstrap_iframe")
    );
    for evil in [
        "javascript%3Aalert(1)",
        "%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E",
        "data%3Atext%2Fjavascript%2Calert(1)",
        "",
    ] {
        let page = get(world, &format!("/pusher/iframe.html?js_path={evil}")).await;
        assert!(
            page.status == 400
                || !(page.text().contains("javascript:") || page.text().contains("<script>alert")),
            "{evil}: {}",
            page.text()
        );
    }
}

#[tokio::test]
async fn sockjs_polling_takes_the_address_as_its_first_message() {
    let (world, app) = shared();
    let base = format!("/pusher/{}", session());
    assert_eq!(poll(world, &base).await, "o\n");
    let path = json!({ "path": format!("/app/{}?{QUERY}", app.key) }).to_string();
    assert_eq!(send(world, &base, &[path]).await.status, 204);
    assert_eq!(
        messages(poll(world, &base).await.trim_end())[0]["event"],
        "pusher:connection_established"
    );
    send(world, &base, &[subscribe("pub")]).await;
    assert_eq!(
        messages(poll(world, &base).await.trim_end())[0]["event"],
        "pusher_internal:subscription_succeeded"
    );
}

#[tokio::test]
async fn a_bad_first_message_of_sockjs_is_refused_with_a_code() {
    let (world, _) = shared();
    for (first, code) in [
        (format!(r#"{{"path":"/app/nobody?{QUERY}"}}"#), "c[4001,"),
        (format!(r#"{{"path":"/nothing?{QUERY}"}}"#), "c[4005,"),
    ] {
        let base = format!("/pusher/{}", session());
        assert_eq!(poll(world, &base).await, "o\n");
        assert_eq!(send(world, &base, std::slice::from_ref(&first)).await.status, 204);
        let mut text = poll(world, &base).await;
        if text.starts_with('a') && !text.contains("\nc[") {
            text = poll(world, &base).await;
        }
        assert!(text.contains(code), "{first}: {text}");
    }
    for first in ["{", "{}", "hello", "null", r#"{"path":1}"#] {
        let base = format!("/pusher/{}", session());
        poll(world, &base).await;
        send(world, &base, &[first.to_owned()]).await;
        let text = poll(world, &base).await;
        assert!(
            text.contains("pusher:error") || text.contains("c["),
            "{first}: {text}"
        );
    }
    world.assert_calm();
}

#[tokio::test]
async fn sockjs_jsonp_calls_back_and_refuses_odd_callbacks() {
    let (world, app) = shared();
    let base = format!("/pusher/{}", session());
    let answer = get(world, &format!("{base}/jsonp?c=_jp.aabc")).await;
    assert!(
        answer
            .header("content-type")
            .is_some_and(|value| value.starts_with("application/javascript"))
    );
    assert!(answer.text().contains(r#"_jp.aabc("o");"#), "{}", answer.text());
    let message = json!([json!({ "path": format!("/app/{}?{QUERY}", app.key) }).to_string()]).to_string();
    let body = format!("d={}", crate::request::percent_encode(&message));
    let request = format!(
        "POST {base}/jsonp_send?i=x HTTP/1.1\r\nHost: t\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    exchange(world.address, request.as_bytes())
        .await
        .assert(200, "ok");
    let answer = get(world, &format!("{base}/jsonp?c=_jp.aabd")).await;
    assert!(
        answer.text().contains("connection_established"),
        "{}",
        answer.text()
    );
    for callback in [
        "",
        "a%28b",
        "%3Cscript%3E",
        "a%20b",
        "alert%28document.cookie%29%2F%2F",
    ] {
        let answer = get(world, &format!("/pusher/{}/jsonp?c={callback}", session())).await;
        assert!(
            (400..=500).contains(&answer.status),
            "{callback}: {}",
            answer.status
        );
        assert!(
            !answer.text().contains("<script>") && !answer.text().contains("alert("),
            "{}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn sockjs_eventsource_speaks_server_sent_events() {
    let (world, app) = shared();
    let base = format!("/pusher/{}", session());
    let mut http = Http::open(world.address).await;
    http.send(format!("GET {base}/eventsource HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes())
        .await;
    let head = http.head().await.expect("an answer");
    assert_eq!(head.status, 200);
    assert!(
        head.header("content-type")
            .is_some_and(|value| value.starts_with("text/event-stream"))
    );
    let mut text = String::new();
    while !text.contains("data: o\r\n\r\n") {
        text.push_str(std::str::from_utf8(&http.chunk().await.expect("more")).expect("UTF-8"));
    }
    assert!(text.starts_with("\r\n"), "{text:?}");
    let path = json!({ "path": format!("/app/{}?{QUERY}", app.key) }).to_string();
    send(world, &base, &[path]).await;
    while !text.contains("connection_established") {
        text.push_str(std::str::from_utf8(&http.chunk().await.expect("more")).expect("UTF-8"));
    }
    send(world, &base, &[subscribe("pub")]).await;
    while !text.contains("subscription_succeeded") {
        text.push_str(std::str::from_utf8(&http.chunk().await.expect("more")).expect("UTF-8"));
    }
    world.publish(&app, "pub", "e", "100%\r\n").await;
    while !text.contains(r#"\"event\":\"e\""#) {
        text.push_str(std::str::from_utf8(&http.chunk().await.expect("more")).expect("UTF-8"));
    }
    assert!(
        text.contains("100%25"),
        "a per cent sign is encoded, because the client decodes: {text:?}"
    );
}

#[tokio::test]
async fn fallbacks_can_be_switched_off() {
    let (world, app) = World::with_config("[fallback]\nenabled = false");
    for path in [
        format!("{}/xhr?{QUERY}", base(&app)),
        format!("/pusher/{}/xhr", session()),
    ] {
        assert_eq!(
            exchange(world.address, &post(&path, "")).await.status,
            404,
            "{path}"
        );
    }
}
