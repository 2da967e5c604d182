//! `xhr_streaming` and `xhr_polling`, as pusher-js speaks them.
//!
//! Every frame ends with a line feed. The client's messages come in requests of their own.

use std::convert::Infallible;
use std::future::ready;

use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use dunlin_protocol::pusher::codes::CloseCode;
use futures_util::stream::once;

use super::fallback::body::{self, Streaming};
use super::fallback::session::{Link, Receiver};
use super::fallback::{
    Denied, answer, connect_and_wait, frames, is_tls, origin, read_body, read_messages, resource,
    session_key, table, worker,
};
use super::wanted_app;

const CONTENT_TYPE: &str = "application/javascript; charset=UTF-8";

/// Old browsers show nothing of a response before so much of it has come: 2048 times `h`, which is harmless.
const PRELUDE: &str = {
    const HEARTBEATS: [u8; 2049] = {
        let mut bytes = [b'h'; 2049];
        bytes[2048] = b'\n';
        bytes
    };
    match std::str::from_utf8(&HEARTBEATS) {
        Ok(text) => text,
        Err(_) => panic!("it is ASCII"),
    }
};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let base = "/pusher/app/{key}/{server}/{session}";
    config
        .service(resource(
            &format!("{base}/xhr_streaming"),
            Method::POST,
            streaming,
        ))
        .service(resource(&format!("{base}/xhr"), Method::POST, polling))
        .service(resource(&format!("{base}/xhr_send"), Method::POST, sending));
}

fn key(request: &HttpRequest) -> Option<String> {
    let app_key = request.match_info().get("key")?;
    session_key(request, &format!("/app/{app_key}"))
}

/// The session's receiving end; opens the session if it is new.
///
/// # Errors
/// Why it is refused, to be said in-band.
async fn receive(request: &HttpRequest, key: String) -> Result<Receiver, (CloseCode, String)> {
    let worker = worker(request);
    let sessions = &worker.sessions;
    if let Some(session) = sessions.find(&key) {
        return Ok(session.attach(sessions));
    }
    let path = format!("/app/{}", request.match_info().get("key").unwrap_or_default());
    let app = wanted_app(
        &worker.apps,
        &path,
        request.query_string(),
        is_tls(request),
        origin(request),
    )?;
    let connected = connect_and_wait(&worker, app)
        .await
        .map_err(|code| (code, code.message().to_owned()))?;
    let at = connected.at;
    let session = match sessions.add(key, Link::Connected(connected)) {
        Ok(session) => {
            table::drive(&worker, at, &session);
            session
        }
        Err((session, _)) => {
            worker.shard.borrow_mut().gone(at);
            session
        }
    };
    Ok(session.attach(sessions))
}

/// A client that gets an HTTP error cannot tell why; one that is let in and thrown out again can.
fn refused((code, reason): (CloseCode, String)) -> String {
    frames::lines(&[frames::OPEN.to_owned(), frames::close(code.code(), &reason)])
}

async fn streaming(request: HttpRequest) -> HttpResponse {
    let Some(key) = key(&request) else {
        return Denied::unknown_session().answer(&request);
    };
    let mut answer = answer(&request, StatusCode::OK);
    answer
        .content_type(CONTENT_TYPE)
        .insert_header(("X-Accel-Buffering", "no"));
    match receive(&request, key).await {
        Ok(receiver) => {
            let heartbeat = worker(&request).fallback.heartbeat;
            answer.streaming(Streaming::new(receiver, PRELUDE, frames::line, heartbeat).limited())
        }
        Err(refusal) => {
            let body = format!("{PRELUDE}{}", refused(refusal));
            answer.streaming(once(ready(Ok::<_, Infallible>(body.into()))))
        }
    }
}

async fn polling(request: HttpRequest) -> HttpResponse {
    let Some(key) = key(&request) else {
        return Denied::unknown_session().answer(&request);
    };
    let body = match receive(&request, key).await {
        Ok(receiver) => frames::lines(&body::poll(receiver, worker(&request).fallback.poll_timeout).await),
        Err(refusal) => refused(refusal),
    };
    answer(&request, StatusCode::OK)
        .content_type(CONTENT_TYPE)
        .body(body)
}

async fn sending(request: HttpRequest, payload: web::Payload) -> HttpResponse {
    match send(&request, payload).await {
        Ok(()) => answer(&request, StatusCode::NO_CONTENT).finish(),
        Err(denied) => denied.answer(&request),
    }
}

async fn send(request: &HttpRequest, payload: web::Payload) -> Result<(), Denied> {
    let sessions = &worker(request).sessions;
    // Before the body is read: nobody's messages are of no interest.
    let session = key(request)
        .and_then(|key| sessions.find(&key))
        .ok_or_else(Denied::unknown_session)?;
    let body = read_body(request, payload).await?;
    let messages = read_messages(request, &body)?;
    if messages.is_empty() {
        session.pong();
    }
    if session.send(sessions, messages) {
        Ok(())
    } else {
        Err(Denied::unknown_session())
    }
}
