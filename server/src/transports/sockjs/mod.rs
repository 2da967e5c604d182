//! The transports of `SockJS` 0.3 that pusher-js's client of it has: `eventsource`, `xhr` and `htmlfile` inside a frame,
//! `jsonp` without one.
//!
//! The path names no app: the client's first message does, and until then the session is connected to nothing.

mod address;
mod page;

use actix_web::http::header::HeaderName;
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use dunlin_protocol::signature::SignedRequest;

use super::fallback::body::{self, Streaming};
use super::fallback::session::{Link, Receiver};
use super::fallback::{
    Denied, answer, connect, frames, is_tls, origin, read_body, read_messages, resource, session_key, table,
    worker,
};
use super::wanted_app;
use address::Address;

const JAVASCRIPT: &str = "application/javascript; charset=UTF-8";
/// The longest name of a function that a client may invent; `SockJS` takes about ten characters.
const MAX_CALLBACK_CHARS: usize = 64;
/// What is reflected must not be taken for anything else than it says it is.
const NO_SNIFFING: (&str, &str) = ("X-Content-Type-Options", "nosniff");

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let base = "/pusher/{server}/{session}";
    config
        .service(resource("/pusher/info", Method::GET, info))
        .service(resource("/pusher/iframe.html", Method::GET, iframe))
        .service(resource(&format!("{base}/eventsource"), Method::GET, eventsource))
        .service(resource(&format!("{base}/htmlfile"), Method::GET, htmlfile))
        .service(resource(&format!("{base}/xhr"), Method::POST, xhr))
        .service(resource(&format!("{base}/xhr_send"), Method::POST, xhr_send))
        .service(resource(&format!("{base}/jsonp"), Method::GET, jsonp))
        .service(resource(&format!("{base}/jsonp_send"), Method::POST, jsonp_send));
}

/// Whether the request came by one of the routes above.
pub(super) fn is_ours(request: &HttpRequest) -> bool {
    request.match_info().get("key").is_none()
}

async fn info(request: HttpRequest) -> HttpResponse {
    let entropy: u32 = rand::random();
    answer(&request, StatusCode::OK)
        .content_type("application/json; charset=UTF-8")
        .body(format!(
            r#"{{"websocket":false,"cookie_needed":false,"origins":["*:*"],"entropy":{entropy}}}"#
        ))
}

async fn iframe(request: HttpRequest) -> HttpResponse {
    let Some(script) = parameter(request.query_string(), "js_path").and_then(page::Script::parse) else {
        let text = "js_path must be the address of a script\n";
        return Denied::new(StatusCode::BAD_REQUEST, text).answer(&request);
    };
    let nonce = format!("{:032x}", rand::random::<u128>());
    answer(&request, StatusCode::OK)
        .content_type("text/html; charset=UTF-8")
        .insert_header(NO_SNIFFING)
        .insert_header((
            HeaderName::from_static("content-security-policy"),
            page::policy(&nonce),
        ))
        .body(page::frame(&script, &nonce))
}

/// The decoded parameter of a query or a form.
fn parameter(query: &str, name: &str) -> Option<String> {
    let params = SignedRequest::new("GET", "", query).params();
    params.get(name).map(str::to_owned)
}

/// The session's receiving end; opens the session if it is new.
///
/// # Errors
/// 404 when the name of the session is none, 503 when there are too many.
fn receive(request: &HttpRequest) -> Result<Receiver, Denied> {
    let key = session_key(request, "").ok_or_else(Denied::unknown_session)?;
    let worker = worker(request);
    let sessions = &worker.sessions;
    if let Some(session) = sessions.find(&key) {
        return Ok(session.attach(sessions));
    }
    let Some(place) = sessions.take_unaddressed() else {
        let text = "Too many sessions are being opened\n";
        return Err(Denied::new(StatusCode::SERVICE_UNAVAILABLE, text));
    };
    let session = sessions
        .add(key, Link::Unaddressed(place))
        .unwrap_or_else(|(session, _)| session);
    Ok(session.attach(sessions))
}

/// Takes messages for a session, the first of which connects it.
///
/// # Errors
/// 404: nobody has heard of the session.
fn send(request: &HttpRequest, mut messages: Vec<String>) -> Result<(), Denied> {
    let worker = worker(request);
    let sessions = &worker.sessions;
    let session = session_key(request, "")
        .and_then(|key| sessions.find(&key))
        .ok_or_else(Denied::unknown_session)?;
    session.address(&mut messages, |first| {
        let Address { path, query } = Address::parse(first)?;
        let app = wanted_app(&worker.apps, &path, &query, is_tls(request), origin(request))?;
        let connected = connect(&worker, app).map_err(|code| (code, code.message().to_owned()))?;
        table::drive(&worker, connected.at, &session);
        Ok(connected)
    });
    if session.send(sessions, messages) {
        Ok(())
    } else {
        Err(Denied::unknown_session())
    }
}

fn stream(
    request: &HttpRequest,
    content_type: &str,
    prelude: impl Into<bytes::Bytes>,
    dress: fn(&str) -> String,
) -> HttpResponse {
    let receiver = match receive(request) {
        Ok(receiver) => receiver,
        Err(denied) => return denied.answer(request),
    };
    let heartbeat = worker(request).fallback.heartbeat;
    answer(request, StatusCode::OK)
        .content_type(content_type)
        .insert_header(("X-Accel-Buffering", "no"))
        .insert_header(NO_SNIFFING)
        .streaming(Streaming::new(receiver, prelude, dress, heartbeat))
}

async fn poll(
    request: &HttpRequest,
    receiver: Receiver,
    dress: impl Fn(&[String]) -> String,
) -> HttpResponse {
    let frames = body::poll(receiver, worker(request).fallback.poll_timeout).await;
    answer(request, StatusCode::OK)
        .content_type(JAVASCRIPT)
        .insert_header(NO_SNIFFING)
        .body(dress(&frames))
}

async fn eventsource(request: HttpRequest) -> HttpResponse {
    stream(&request, "text/event-stream; charset=UTF-8", "\r\n", event)
}

/// The client decodes per cent escapes, because a line end cannot be sent as it is (`SockJS` client source).
fn event(frame: &str) -> String {
    let mut event = String::with_capacity(frame.len() + 16);
    event.push_str("data: ");
    for c in frame.chars() {
        match c {
            '%' => event.push_str("%25"),
            '\r' => event.push_str("%0D"),
            '\n' => event.push_str("%0A"),
            '\0' => event.push_str("%00"),
            c => event.push(c),
        }
    }
    event.push_str("\r\n\r\n");
    event
}

async fn htmlfile(request: HttpRequest) -> HttpResponse {
    match callback(&request) {
        Ok(callback) => stream(
            &request,
            "text/html; charset=UTF-8",
            page::htmlfile(&callback),
            page::call,
        ),
        Err(denied) => denied.answer(&request),
    }
}

async fn xhr(request: HttpRequest) -> HttpResponse {
    let receiver = match receive(&request) {
        Ok(receiver) => receiver,
        Err(denied) => return denied.answer(&request),
    };
    poll(&request, receiver, frames::lines).await
}

async fn jsonp(request: HttpRequest) -> HttpResponse {
    let (callback, receiver) = match callback(&request).and_then(|name| Ok((name, receive(&request)?))) {
        Ok(both) => both,
        Err(denied) => return denied.answer(&request),
    };
    // One call per response: the client removes its function after the first.
    poll(&request, receiver.one_by_one(), |frames| {
        jsonp_calls(&callback, frames)
    })
    .await
}

/// The empty comment keeps the text from beginning with what was reflected.
fn jsonp_calls(callback: &str, frames: &[String]) -> String {
    let call = |frame: &String| format!("/**/{callback}({});\r\n", frames::quoted_for_script(frame));
    frames.iter().map(call).collect()
}

/// The name of the function to call. It is reflected into a script: nothing but a name may pass.
fn callback(request: &HttpRequest) -> Result<String, Denied> {
    parameter(request.query_string(), "c")
        .filter(|name| is_callback(name))
        .ok_or_else(|| Denied::new(StatusCode::BAD_REQUEST, "c must be the name of a function\n"))
}

fn is_callback(name: &str) -> bool {
    (1..=MAX_CALLBACK_CHARS).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte))
}

async fn xhr_send(request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let taken = async {
        let body = read_body(&request, payload).await?;
        send(&request, read_messages(&request, &body)?)
    };
    match taken.await {
        Ok(()) => answer(&request, StatusCode::NO_CONTENT).finish(),
        Err(denied) => denied.answer(&request),
    }
}

async fn jsonp_send(request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let taken = async {
        let body = read_body(&request, payload).await?;
        let form = std::str::from_utf8(&body).unwrap_or_default();
        let json = parameter(form, "d").unwrap_or_default();
        send(&request, read_messages(&request, json.as_bytes())?)
    };
    match taken.await {
        Ok(()) => answer(&request, StatusCode::OK)
            .content_type("text/plain; charset=UTF-8")
            .body("ok"),
        Err(denied) => denied.answer(&request),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        assert_eq!(
            event("a[\"100%\"]\r\n\0é"),
            "data: a[\"100%25\"]%0D%0A%00é\r\n\r\n"
        );
    }

    #[test]
    fn only_names_are_called() {
        for good in ["_jp.aabc", "a", "A_9.b"] {
            assert!(is_callback(good), "{good}");
        }
        for bad in [
            "",
            "a(b",
            "a b",
            "<script>",
            "a;b",
            "é",
            "a-b",
            "a\n",
            &"a".repeat(65),
        ] {
            assert!(!is_callback(bad), "{bad}");
        }
    }

    #[test]
    fn frames_are_quoted_into_the_call() {
        assert_eq!(
            jsonp_calls("_jp.a", &["a[\"</script>\"]".to_owned()]),
            "/**/_jp.a(\"a[\\\"\\u003c/script\\u003e\\\"]\");\r\n"
        );
    }
}
