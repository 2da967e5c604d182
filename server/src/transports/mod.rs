//! Bytes in and out: how clients reach a session.
//!
//! Owns the WebSocket upgrade and its frames, and the transports that do without WebSocket. Must never decide what a
//! client may, nor fan out.

pub mod fallback;
mod sockjs;
pub mod ws;
mod xhr;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use dunlin_protocol::pusher::codes::CloseCode;
use dunlin_protocol::signature::SignedRequest;

use crate::apps::{App, Apps};
use crate::config::{FallbackSection, SocketsSection};
use crate::hub::shard::Shard;
use fallback::table::Sessions;

/// What one worker thread needs to take connections in.
pub struct Worker {
    pub shard: Rc<RefCell<Shard>>,
    pub apps: Arc<Apps>,
    pub section: SocketsSection,
    pub fallback: FallbackSection,
    /// All workers' sessions of clients that fetch their messages by HTTP requests.
    pub sessions: Arc<Sessions>,
    /// Time for the body of a request to arrive.
    pub request_timeout: Duration,
    /// What a proxy puts in front of the paths.
    pub path_prefix: String,
    /// Read into by every connection of the worker, one at a time; what is left of a message is kept elsewhere.
    pub read_buffer: RefCell<BytesMut>,
}

/// Among the data of an HTTP connection that came over TLS.
#[derive(Clone, Copy, Debug)]
pub struct Encrypted;

/// Protocol versions spoken; 4 differs from 5 in nothing that a server has to do otherwise.
const PROTOCOLS: std::ops::RangeInclusive<u32> = 4..=7;

/// Finds the app that a client wants to connect to, in the order in which the refusals are documented.
///
/// # Errors
/// Why the connection is refused, to be said in-band: a client that gets an HTTP error cannot tell why.
pub fn wanted_app(
    apps: &Apps,
    path: &str,
    query: &str,
    is_tls: bool,
    origin: Option<&str>,
) -> Result<Arc<App>, (CloseCode, String)> {
    let refusal = |code: CloseCode| (code, code.message().to_owned());
    let key = path
        .strip_prefix("/app/")
        .map(|key| key.strip_suffix('/').unwrap_or(key))
        .unwrap_or_default();
    if key.is_empty() || key.contains('/') {
        return Err(refusal(CloseCode::PathNotFound));
    }
    let params = SignedRequest::new("GET", path, query).params();
    let protocol = params
        .get("protocol")
        .ok_or_else(|| refusal(CloseCode::NoProtocol))?;
    if !protocol.parse().is_ok_and(|version| PROTOCOLS.contains(&version)) {
        return Err(refusal(CloseCode::UnsupportedProtocol));
    }
    let Some(app) = apps.by_key(key) else {
        let key: String = key.chars().take(64).collect();
        let message = format!("App key {key} not in this cluster. Did you forget to specify the cluster?");
        return Err((CloseCode::UnknownApp, message));
    };
    if !app.enabled {
        return Err(refusal(CloseCode::AppDisabled));
    }
    if app.tls_only && !is_tls {
        return Err(refusal(CloseCode::TlsOnly));
    }
    if !app.allows_origin(origin) {
        return Err((CloseCode::Unauthorized, "Origin not allowed".to_owned()));
    }
    Ok(app)
}
