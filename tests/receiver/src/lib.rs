//! A customer's server for webhooks, as tests need one: takes every request, and answers as it is told, also badly.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

/// More than any request has in front of its body.
const HEAD_BYTES: usize = 16 * 1024;

/// Between two bytes of an answer that drips.
const DRIP: Duration = Duration::from_millis(20);

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    /// With names in lower case.
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// When all of it was there.
    pub at: Instant,
}

impl Request {
    /// The value of a header; its name in lower case.
    ///
    /// # Panics
    /// It is there twice.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter().filter(|(other, _)| other == name);
        let (_, value) = all.next()?;
        assert!(all.next().is_none(), "{name} comes twice");
        Some(value)
    }

    /// Its `webhook-id`.
    ///
    /// # Panics
    /// It has none.
    pub fn id(&self) -> &str {
        self.header("webhook-id").expect("every request has an id")
    }

    /// Its body.
    ///
    /// # Panics
    /// The body is not UTF-8.
    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("a body is UTF-8")
    }

    /// Its body.
    ///
    /// # Panics
    /// The body is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a body is JSON")
    }
}

/// What a request is answered with.
#[derive(Clone, Debug)]
pub enum Reply {
    /// An answer; the connection is kept.
    Answer {
        status: u16,
        /// Lines with their ends.
        headers: String,
        /// How long it is thought about.
        after: Duration,
    },
    /// These bytes, and the end of the connection.
    Bytes(Vec<u8>),
    /// This text, and behind it an `a` every few milliseconds, for ever.
    Drip(&'static str),
    /// Nothing, for ever.
    Never,
    /// A reset of the connection.
    Reset,
}

impl Reply {
    /// An answer at once, with `ok` for a body.
    pub fn status(status: u16) -> Self {
        Self::Answer {
            status,
            headers: String::new(),
            after: Duration::ZERO,
        }
    }

    /// The same answer with one more header. Of no other reply than an answer.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            *headers += &[name, ": ", value, "\r\n"].concat();
        }
        self
    }

    /// The same answer, so much later. Of no other reply than an answer.
    #[must_use]
    pub fn after(mut self, time: Duration) -> Self {
        if let Self::Answer { after, .. } = &mut self {
            *after = time;
        }
        self
    }
}

type Manner = Arc<dyn Fn(Request) -> Reply + Send + Sync>;

/// Listens on a thread of its own, so that it answers whatever the test's own thread does, until it is dropped.
#[derive(Debug)]
pub struct Receiver {
    pub address: SocketAddr,
    /// Ends the thread by being dropped.
    _end: oneshot::Sender<()>,
}

impl Receiver {
    /// `manner` is asked once for each request.
    ///
    /// # Panics
    /// No port is free, or no thread.
    pub fn start(manner: impl Fn(Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(None, Arc::new(manner))
    }

    /// The same over TLS.
    ///
    /// # Panics
    /// As [`Receiver::start`].
    pub fn start_secure(
        config: ServerConfig,
        manner: impl Fn(Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Some(TlsAcceptor::from(Arc::new(config))), Arc::new(manner))
    }

    fn listen(tls: Option<TlsAcceptor>, manner: Manner) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        listener
            .set_nonblocking(true)
            .expect("a listener can be made not to block");
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let serving = async move {
            tokio::select! {
                _ = ended => {}
                () = serve(listener, tls, manner) => {}
            }
        };
        std::thread::Builder::new()
            .name("receiver".to_owned())
            .spawn(move || runtime.block_on(serving))
            .expect("a thread can be started");
        Self { address, _end: end }
    }
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, manner: Manner) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener can be watched");
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let (tls, manner) = (tls.clone(), Arc::clone(&manner));
        connections.spawn(async move {
            match tls {
                Some(tls) => {
                    converse(tls.accept(stream).await.ok()?, manner, |stream| {
                        stream.get_ref().0
                    })
                    .await
                }
                None => converse(stream, manner, |stream| stream).await,
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// One connection, request by request; it ends with the other side, or with anything that is no request.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    manner: Manner,
    socket: fn(&S) -> &TcpStream,
) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let request = read(&mut stream, &mut buffer).await?;
        match manner(request) {
            Reply::Answer {
                status,
                headers,
                after,
            } => {
                sleep(after).await;
                let answer = format!("HTTP/1.1 {status} X\r\n{headers}content-length: 2\r\n\r\nok");
                stream.write_all(answer.as_bytes()).await.ok()?;
            }
            Reply::Bytes(bytes) => {
                stream.write_all(&bytes).await.ok()?;
                return stream.shutdown().await.ok();
            }
            Reply::Drip(start) => {
                stream.write_all(start.as_bytes()).await.ok()?;
                loop {
                    stream.write_all(b"a").await.ok()?;
                    sleep(DRIP).await;
                }
            }
            Reply::Never => std::future::pending().await,
            Reply::Reset => return socket(&stream).set_zero_linger().ok(),
        }
    }
}

/// The next request; what is behind it stays in the buffer.
async fn read<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> Option<Request> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        // The beginning of TLS, for one, would have no end.
        let is_other = buffer.first().is_some_and(|byte| !byte.is_ascii_uppercase());
        if is_other || buffer.len() > HEAD_BYTES {
            stream.write_all(b"HTTP/1.1 400 X\r\n\r\n").await.ok()?;
            return None;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer.drain(..head_end).collect()).ok()?;
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.and_then(|(_, value)| value.parse().ok())?;
    while buffer.len() < length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    Some(Request {
        path,
        headers,
        body: buffer.drain(..length).collect(),
        at: Instant::now(),
    })
}
