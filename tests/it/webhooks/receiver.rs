//! A customer's endpoint, whose requests a test looks at one after the other.

use crate::world::DEADLINE;
use rustls::ServerConfig;
use serde_json::Value;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

pub(crate) use dunlin_receiver::{Reply, Request};

pub(crate) struct Receiver {
    server: dunlin_receiver::Receiver,
    scheme: &'static str,
    requests: mpsc::UnboundedReceiver<Request>,
}

impl Receiver {
    /// Says 200 to everything.
    pub(crate) fn start() -> Self {
        Self::with(|_| Reply::status(200))
    }

    pub(crate) fn with(manner: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let (tell, requests) = mpsc::unbounded_channel();
        Self {
            server: dunlin_receiver::Receiver::start(telling(tell, manner)),
            scheme: "http",
            requests,
        }
    }

    /// Says 200 to everything, over TLS.
    pub(crate) fn secure(config: ServerConfig) -> Self {
        let (tell, requests) = mpsc::unbounded_channel();
        let manner = telling(tell, |_| Reply::status(200));
        Self {
            server: dunlin_receiver::Receiver::start_secure(config, manner),
            scheme: "https",
            requests,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.address.port()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.server.address)
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

    /// The next events of the Pusher format, whatever requests they come in.
    pub(crate) async fn events(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(super::events(&self.next().await));
        }
        assert_eq!(events.len(), count, "{events:?}");
        events
    }
}

/// The manner, with every request told before it is answered.
fn telling(
    tell: mpsc::UnboundedSender<Request>,
    manner: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> impl Fn(Request) -> Reply + Send + Sync + 'static {
    move |request| {
        let reply = manner(&request);
        // A test that has ended wants no more of it.
        tell.send(request).ok();
        reply
    }
}
