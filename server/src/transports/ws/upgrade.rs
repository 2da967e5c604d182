//! The handshake: from an HTTP request to a connection of the shard.
//!
//! Gets the raw socket from the HTTP service once a request asks for WebSocket. Every well-formed handshake is
//! accepted; whoever is then not wanted is told so in-band, because a client that sees an HTTP error learns nothing.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use actix_http::h1::Codec;
use actix_http::header::{HeaderValue, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL};
use actix_http::ws::{HandshakeError, hash_key, verify_handshake};
use actix_http::{HttpMessage as _, Request};
use actix_tls::accept::rustls_0_23::TlsStream;
use bytes::{Bytes, BytesMut};
use dunlin_protocol::pusher::codes::CloseCode;
use dunlin_protocol::pusher::outgoing;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{driver, echo};
use crate::hub::shard::{Accepted, Refused};
use crate::hub::socket::Socket;
use crate::transports::{Worker, wanted_app};

/// What the HTTP service hands over: with `actix_http`'s own buffers, which may hold early frames.
pub type Framed<T> = actix_codec::Framed<T, Codec>;

/// How long a refused peer has to hang up.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// A stream that can carry a connection.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + 'static {
    const IS_TLS: bool;
    fn into_socket(self) -> Socket;
}

impl Stream for TcpStream {
    const IS_TLS: bool = false;

    fn into_socket(self) -> Socket {
        Socket::Plain(self)
    }
}

impl Stream for TlsStream<TcpStream> {
    const IS_TLS: bool = true;

    fn into_socket(self) -> Socket {
        Socket::Tls(Box::new(self))
    }
}

/// Takes over one upgraded connection. Returns at once: the connection lives in its own small task, and the
/// HTTP service's large one ends.
pub fn take_over<T: Stream>(
    worker: &Rc<Worker>,
    request: &Request,
    framed: Framed<T>,
) -> Result<(), Infallible> {
    let parts = framed.into_parts();
    let (io, early) = (parts.io, parts.read_buf);
    if let Err(error) = verify_handshake(request.head()) {
        spawn(refuse_handshake(io, error));
        return Ok(());
    }
    let greeting = greeting(request);
    let path = request.path();
    let path = path.strip_prefix(worker.path_prefix.as_str()).unwrap_or(path);
    if worker.section.test_echo && path == "/echo" {
        spawn(async move { echo::run(io, &greeting, early).await });
        return Ok(());
    }
    let origin = request
        .headers()
        .get(ORIGIN)
        .and_then(|origin| origin.to_str().ok());
    let query = request.uri().query().unwrap_or_default();
    let app = match wanted_app(&worker.apps, path, query, T::IS_TLS, origin) {
        Ok(app) => app,
        Err((code, message)) => {
            spawn(farewell(io, greeting, code, message));
            return Ok(());
        }
    };
    let accepted = Accepted {
        app,
        socket: io.into_socket(),
        greeting,
    };
    match worker.shard.borrow_mut().open(accepted) {
        Ok(at) => driver::start(Rc::clone(worker), at, &early),
        Err(refusal) => {
            let (Refused(code), accepted) = *refusal;
            let message = code.message().to_owned();
            match accepted.socket {
                Socket::Plain(io) => spawn(farewell(io, accepted.greeting, code, message)),
                Socket::Tls(io) => spawn(farewell(io, accepted.greeting, code, message)),
                Socket::Pipe(_) => {}
            }
        }
    }
    Ok(())
}

fn spawn(task: impl Future<Output = io::Result<()>> + 'static) {
    tokio::task::spawn_local(async move {
        if let Err(error) = task.await {
            tracing::trace!(%error, "a connection broke while it was refused");
        }
    });
}

/// The answer to the handshake (RFC 6455 §4.2.2).
fn greeting(request: &Request) -> Bytes {
    let key = request
        .headers()
        .get(SEC_WEBSOCKET_KEY)
        .map_or(&b""[..], HeaderValue::as_bytes);
    let mut greeting = BytesMut::with_capacity(256);
    greeting.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    );
    greeting.extend_from_slice(&hash_key(key));
    // The Swift client offers a subprotocol and expects it back; nobody else offers any.
    let offered = request
        .headers()
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .filter_map(|value| value.to_str().ok());
    let ours = offered
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .find(|name| name.starts_with("pusher-channels-protocol-"));
    if let Some(name) = ours {
        greeting.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        greeting.extend_from_slice(name.as_bytes());
    }
    greeting.extend_from_slice(b"\r\n\r\n");
    greeting.freeze()
}

async fn refuse_handshake(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    error: HandshakeError,
) -> io::Result<()> {
    let (status, header) = match error {
        HandshakeError::GetMethodRequired => ("405 Method Not Allowed", "Allow: GET\r\n"),
        HandshakeError::UnsupportedVersion | HandshakeError::NoVersionHeader => (
            "426 Upgrade Required",
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        ),
        HandshakeError::NoWebsocketUpgrade
        | HandshakeError::NoConnectionUpgrade
        | HandshakeError::BadWebsocketKey => ("400 Bad Request", ""),
    };
    let body = format!("{error}\n");
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\n{header}Connection: close\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    io.write_all(answer.as_bytes()).await?;
    hang_up(io).await
}

/// Tells a peer in-band why it is not wanted, and parts.
async fn farewell(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    greeting: Bytes,
    code: CloseCode,
    message: String,
) -> io::Result<()> {
    let error = outgoing::error(Some(code.code()), &message);
    let close = outgoing::close_frame(code.code(), &message);
    io.write_all(&[greeting, error, close].concat()).await?;
    hang_up(io).await
}

/// Ends our side and waits, for a bounded time, until the peer has ended its own: dropping a socket that still
/// has something to read would reset it, and the peer might never see what we said last.
///
/// # Errors
/// The connection broke.
pub async fn hang_up(mut io: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    io.shutdown().await?;
    let mut rest = [0; 1024];
    let drained = async {
        while io.read(&mut rest).await? > 0 {}
        Ok(())
    };
    tokio::time::timeout(HANG_UP_TIMEOUT, drained)
        .await
        .unwrap_or(Ok(()))
}
