//! Sessions of clients that fetch their messages by HTTP requests: what `xhr` and `sockjs` share.
//!
//! A session is an ordinary connection of a shard, whose bytes go through a [`Pipe`](crate::hub::pipe::Pipe). Its
//! requests arrive on any worker and find it in [`table::Sessions`]. Start at [`session::Receiver`], the receiving end.
//!
//! Invariants:
//! - At most one request receives; the newest wins, and the one before ends without a word.
//! - The lock of the table and that of a session are never held together.

pub mod body;
pub mod frames;
pub mod session;
pub mod table;

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL, ORIGIN, VARY,
};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use bytes::Bytes;
use dunlin_protocol::pusher::codes::CloseCode;

use super::{Encrypted, Worker};
use crate::apps::App;
use crate::hub::pipe::Pipe;
use crate::hub::shard::{Accepted, Refused};
use crate::hub::socket::Socket;
use crate::presence::ConnectionRef;

/// What may be on its way to the receiving request; the rest waits in the connection's outbox, where it is bounded.
const WINDOW_BYTES: usize = 64 * 1024;
/// The longest number of a server that a client may invent; pusher-js takes up to three digits.
const MAX_SERVER_CHARS: usize = 16;
/// The longest id of a session that a client may invent; pusher-js and `SockJS` take eight characters.
const MAX_SESSION_CHARS: usize = 64;
/// How long a browser may remember the answer to a preflight.
const PREFLIGHT_MAX_AGE_S: &str = "86400";

/// The transports over plain HTTP. The routes need the thread's `Rc<Worker>` as their data.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .configure(super::xhr::routes)
        .configure(super::sockjs::routes);
}

/// The worker of this thread.
pub(super) fn worker(request: &HttpRequest) -> Rc<Worker> {
    let worker = request.app_data::<Rc<Worker>>();
    Rc::clone(worker.expect("the routes are given their worker"))
}

pub(super) fn is_tls(request: &HttpRequest) -> bool {
    request.conn_data::<Encrypted>().is_some()
}

pub(super) fn origin(request: &HttpRequest) -> Option<&str> {
    request
        .headers()
        .get(ORIGIN)
        .and_then(|origin| origin.to_str().ok())
}

/// `SERVER/SESSION` of the path, below `scope`; `None` when no client would invent such names.
pub(super) fn session_key(request: &HttpRequest, scope: &str) -> Option<String> {
    let is_name = |name: &str, limit| {
        (1..=limit).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    let server = request.match_info().get("server")?;
    let session = request.match_info().get("session")?;
    (is_name(server, MAX_SERVER_CHARS) && is_name(session, MAX_SESSION_CHARS))
        .then(|| format!("{scope}/{server}/{session}"))
}

/// An answer that any page may read, and that nobody keeps.
///
/// `SockJS` asks with credentials, for which browsers want the origin spelt out. No cookie means anything here, so that
/// it gives nothing away.
pub(super) fn answer(request: &HttpRequest, status: StatusCode) -> HttpResponseBuilder {
    let mut answer = HttpResponse::build(status);
    answer.insert_header((CACHE_CONTROL, "no-store, no-transform"));
    match request.headers().get(ORIGIN) {
        Some(origin) if super::sockjs::is_ours(request) => {
            answer
                .insert_header((ACCESS_CONTROL_ALLOW_ORIGIN, origin))
                .insert_header((ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"))
                .insert_header((VARY, "Origin"));
        }
        _ => {
            answer.insert_header((ACCESS_CONTROL_ALLOW_ORIGIN, "*"));
        }
    }
    answer
}

/// Lets a page of any origin send what our clients send.
pub(super) fn preflight(request: &HttpRequest, method: &Method) -> HttpResponse {
    answer(request, StatusCode::NO_CONTENT)
        .insert_header((ACCESS_CONTROL_ALLOW_METHODS, format!("{method}, OPTIONS")))
        .insert_header((ACCESS_CONTROL_ALLOW_HEADERS, "Content-Type"))
        .insert_header((ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE_S))
        .finish()
}

/// A resource with one method, and the preflight that lets a page use it.
pub(super) fn resource<F, Args>(path: &str, method: Method, handler: F) -> actix_web::Resource
where
    F: actix_web::Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: actix_web::Responder + 'static,
{
    let allowed = method.clone();
    web::resource(path)
        .route(web::method(method).to(handler))
        .route(web::method(Method::OPTIONS).to(move |request: HttpRequest| {
            let answer = preflight(&request, &allowed);
            async move { answer }
        }))
}

/// Why a request is answered with an error, for people.
#[derive(Clone, Copy, Debug)]
pub(super) struct Denied {
    status: StatusCode,
    text: &'static str,
}

impl Denied {
    pub(super) fn new(status: StatusCode, text: &'static str) -> Self {
        Self { status, text }
    }

    /// The session is unknown, or its name is not one.
    pub(super) fn unknown_session() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Unknown session\n")
    }

    pub(super) fn answer(self, request: &HttpRequest) -> HttpResponse {
        answer(request, self.status)
            .content_type("text/plain; charset=utf-8")
            .body(self.text)
    }
}

/// Reads the body of a sending request, under the bounds of size and time.
///
/// # Errors
/// 413, 408, or 400 when the body broke off.
pub(super) async fn read_body(request: &HttpRequest, payload: web::Payload) -> Result<Bytes, Denied> {
    let worker = worker(request);
    let limit = worker.fallback.max_send_bytes;
    let (status, text) =
        match tokio::time::timeout(worker.request_timeout, payload.to_bytes_limited(limit)).await {
            Ok(Ok(Ok(body))) => return Ok(body),
            Ok(Ok(Err(_))) => (StatusCode::BAD_REQUEST, "The request body is incomplete\n"),
            Ok(Err(_)) => (StatusCode::PAYLOAD_TOO_LARGE, "The request body is too large\n"),
            Err(_) => (StatusCode::REQUEST_TIMEOUT, "The request body took too long\n"),
        };
    Err(Denied::new(status, text))
}

/// The messages in a sending request.
///
/// # Errors
/// 400 for anything but an array of texts, 413 for messages larger or more than there may be.
pub(super) fn read_messages(request: &HttpRequest, json: &[u8]) -> Result<Vec<String>, Denied> {
    let messages = frames::messages(json)
        .ok_or_else(|| Denied::new(StatusCode::BAD_REQUEST, "Expected an array of texts\n"))?;
    let limit = worker(request).section.max_message_bytes;
    if messages.len() > frames::MAX_MESSAGES || messages.iter().any(|message| message.len() > limit) {
        return Err(Denied::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "Too many messages, or too large a message\n",
        ));
    }
    Ok(messages)
}

/// A connection of a shard, and the end of its pipe.
#[derive(Debug)]
pub struct Connected {
    pub at: ConnectionRef,
    pub pipe: Arc<Pipe>,
}

/// Opens a connection on this worker. What there is to say is in the pipe, or comes when the app was found to have room.
///
/// # Errors
/// The node is full, or parting.
pub(super) fn connect(worker: &Worker, app: Arc<App>) -> Result<Connected, CloseCode> {
    let pipe = Arc::new(Pipe::new(WINDOW_BYTES));
    let accepted = Accepted {
        app,
        socket: Socket::Pipe(Arc::clone(&pipe)),
        greeting: Bytes::new(),
    };
    let mut shard = worker.shard.borrow_mut();
    match shard.open(accepted) {
        Ok(at) => {
            shard.flush_now(at);
            Ok(Connected { at, pipe })
        }
        Err(refusal) => {
            let (Refused(code), _) = *refusal;
            Err(code)
        }
    }
}

/// The same, and waits until the connection was let in.
///
/// # Errors
/// The app or the node is full, or parting.
pub(super) async fn connect_and_wait(worker: &Worker, app: Arc<App>) -> Result<Connected, CloseCode> {
    /// The request may be given up meanwhile: then nobody would know of the connection.
    struct Opening<'a> {
        worker: &'a Worker,
        at: ConnectionRef,
        is_over: bool,
    }
    impl Drop for Opening<'_> {
        fn drop(&mut self) {
            if !self.is_over {
                self.worker.shard.borrow_mut().gone(self.at);
            }
        }
    }
    let connected = connect(worker, app)?;
    let at = connected.at;
    let mut opening = Opening {
        worker,
        at,
        is_over: false,
    };
    poll_fn(|cx| worker.shard.borrow_mut().poll_admitted(at, cx)).await?;
    opening.is_over = true;
    Ok(connected)
}
