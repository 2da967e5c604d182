//! A customer's endpoint: takes requests, keeps them, and answers as the test says.

use crate::world::DEADLINE;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) at: Instant,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter().filter(|(other, _)| other == name);
        let (_, value) = all.next()?;
        assert!(all.next().is_none(), "{name} comes twice");
        Some(value)
    }

    /// Its `webhook-id`.
    pub(crate) fn id(&self) -> &str {
        self.header("webhook-id").expect("every request has an id")
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body is UTF-8")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a body is JSON")
    }

    /// Of a body in the Pusher format.
    pub(crate) fn events(&self) -> Vec<serde_json::Value> {
        let events = self.json()["events"].take();
        events.as_array().expect("events are a list").clone()
    }
}

/// What the endpoint answers.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Lines with their ends.
    pub(crate) headers: String,
    /// How long it thinks; `None`: it never answers.
    pub(crate) after: Option<Duration>,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            headers: String::new(),
            after: Some(Duration::ZERO),
        }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers += &[name, ": ", value, "\r\n"].concat();
        self
    }

    pub(crate) fn never() -> Self {
        Self {
            after: None,
            ..Self::status(200)
        }
    }
}

type Manner = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

/// On a thread of its own, until it is dropped.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    requests: mpsc::UnboundedReceiver<Request>,
    _end: mpsc::Sender<()>,
}

impl Receiver {
    /// Says 200 to everything.
    pub(crate) fn start() -> Self {
        Self::with(|_| Reply::status(200))
    }

    pub(crate) fn with(manner: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let (tell, requests) = mpsc::unbounded_channel();
        let (end, ended) = mpsc::channel::<()>(1);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        listener
            .set_nonblocking(true)
            .expect("a listener can be made not to block");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
        std::thread::Builder::new()
            .name("receiver".to_owned())
            .spawn(move || runtime.block_on(serve(listener, Arc::new(manner), tell, ended)))
            .expect("a thread can be started");
        Self {
            address,
            requests,
            _end: end,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn next_within(&mut self, time: Duration) -> Option<Request> {
        timeout(time, self.requests.recv()).await.ok().flatten()
    }

    pub(crate) async fn next(&mut self) -> Request {
        self.next_within(DEADLINE).await.expect("a request comes")
    }

    /// What has come already.
    pub(crate) fn so_far(&mut self) -> Vec<Request> {
        std::iter::from_fn(|| self.requests.try_recv().ok()).collect()
    }
}

async fn serve(
    listener: std::net::TcpListener,
    manner: Manner,
    tell: mpsc::UnboundedSender<Request>,
    mut ended: mpsc::Receiver<()>,
) {
    let listener = TcpListener::from_std(listener).expect("a listener can be watched");
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = ended.recv() => return,
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(converse(stream, Arc::clone(&manner), tell.clone()));
            },
        }
    }
}

/// One connection, request by request.
async fn converse(mut stream: TcpStream, manner: Manner, tell: mpsc::UnboundedSender<Request>) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let request = read(&mut stream, &mut buffer).await?;
        let reply = manner(&request);
        tell.send(request).ok()?;
        sleep(reply.after?.max(Duration::ZERO)).await;
        let answer = format!(
            "HTTP/1.1 {} X\r\n{}content-length: 2\r\n\r\nok",
            reply.status, reply.headers
        );
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer.drain(..head_end + 4).collect()).ok()?;
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .and_then(|(_, value)| value.parse().ok())?;
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
