//! Signed requests on kept connections.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use dunlin_load::Target;
use dunlin_load::http::{Event, Signer, head};
use dunlin_load::payload::{Finder, Stamp};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than any answer may take, so that a late one is seen as late and not as none.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Of a look at readiness, which is repeated at once.
const GLANCE: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// It says when to try again.
    pub(crate) has_retry_after: bool,
    pub(crate) body: Vec<u8>,
}

/// One connection at a time to one address, opened when it is needed and kept for the next request.
#[derive(Debug)]
pub(crate) struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    received: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stream: None,
            received: Vec::new(),
        }
    }

    /// Sends one request and waits for its answer.
    ///
    /// # Errors
    /// Nobody listens, or the connection ended, or [`PATIENCE`] did, without an answer.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<Answer> {
        let answer = match timeout(PATIENCE, self.try_exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(anyhow::anyhow!("no answer within {PATIENCE:?}")),
        };
        if answer.is_err() {
            self.stream = None;
        }
        answer
    }

    async fn try_exchange(&mut self, request: &[u8]) -> Result<Answer> {
        let mut stream = if let Some(stream) = self.stream.take() {
            stream
        } else {
            let stream = TcpStream::connect(self.address).await.context("cannot connect")?;
            stream.set_nodelay(true)?;
            stream
        };
        stream.write_all(request).await.context("cannot send")?;
        self.received.clear();
        loop {
            if let Some(head) = head(&self.received)? {
                let length = head.body_length.context("an answer without Content-Length")?;
                if let Some(body) = self.received.get(head.length..head.length + length) {
                    let answer = Answer {
                        status: head.status,
                        has_retry_after: has_field(&self.received[..head.length], "retry-after"),
                        body: body.to_vec(),
                    };
                    if !head.closes {
                        self.stream = Some(stream);
                    }
                    return Ok(answer);
                }
            }
            if stream
                .read_buf(&mut self.received)
                .await
                .context("cannot receive")?
                == 0
            {
                bail!("the connection ended without an answer");
            }
        }
    }
}

fn has_field(head: &[u8], name: &str) -> bool {
    head.split(|byte| *byte == b'\n').any(|line| {
        line.get(..name.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
    })
}

/// The status that `path` is answered with at once; `None`: no answer.
pub(crate) async fn status(address: SocketAddr, path: &str) -> Option<u16> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut connection = Connection::new(address);
    let answer = timeout(GLANCE, connection.exchange(request.as_bytes())).await;
    answer.ok()?.ok().map(|answer| answer.status)
}

/// The HTTP API of an app at one address.
#[derive(Debug)]
pub(crate) struct Api {
    connection: Connection,
    signer: Signer,
    request: Vec<u8>,
}

impl Api {
    pub(crate) fn new(target: &Target, address: SocketAddr) -> Self {
        Self {
            connection: Connection::new(address),
            signer: Signer::new(target),
            request: Vec::new(),
        }
    }

    /// Publishes one event whose payload is no more than its stamp.
    ///
    /// # Errors
    /// As [`Connection::exchange`].
    pub(crate) async fn publish(&mut self, channel: &str, sequence: u32) -> Result<Answer> {
        self.request.clear();
        let event = Event {
            channel,
            stamp: Stamp { sequence, sent_at: 0 },
            payload_bytes: 0,
        };
        self.signer.push_event(&mut self.request, event);
        self.connection.exchange(&self.request).await
    }

    /// Reads below the app's path.
    ///
    /// # Errors
    /// As [`Connection::exchange`], or the answer is not 200, or not JSON.
    pub(crate) async fn read(&mut self, path: &str, query: &[(&str, &str)]) -> Result<Value> {
        self.request.clear();
        self.signer.push_read(&mut self.request, path, query);
        let answer = self.connection.exchange(&self.request).await?;
        if answer.status != 200 {
            bail!(
                "{path} was answered with {}: {}",
                answer.status,
                String::from_utf8_lossy(&answer.body).trim()
            );
        }
        serde_json::from_slice(&answer.body).with_context(|| format!("{path} was not answered with JSON"))
    }

    /// The users of a presence channel, in the order of their ids.
    ///
    /// # Errors
    /// As [`Api::read`].
    pub(crate) async fn users(&mut self, channel: &str) -> Result<Vec<String>> {
        let answer = self.read(&format!("/channels/{channel}/users"), &[]).await?;
        let users = answer["users"].as_array().context("an answer without users")?;
        let ids = users.iter().map(|user| user["id"].as_str().map(str::to_owned));
        let mut ids = ids.collect::<Option<Vec<_>>>().context("a user without id")?;
        ids.sort_unstable();
        Ok(ids)
    }

    /// The sequence numbers of the events in a channel's history, the oldest first.
    ///
    /// # Errors
    /// As [`Api::read`].
    pub(crate) async fn history(&mut self, channel: &str) -> Result<Vec<u32>> {
        let path = format!("/channels/{channel}/history");
        let mut finder = Finder::default();
        let (mut sequences, mut after) = (Vec::new(), None::<String>);
        loop {
            let mut query = vec![("direction", "forwards"), ("limit", "1000")];
            query.extend(after.as_deref().map(|after| ("after", after)));
            let page = self.read(&path, &query).await?;
            let events = page["events"].as_array().context("a page without events")?;
            for event in events {
                let data = event["data"].as_str().context("an event without data")?;
                let stamp = finder
                    .find(data.as_bytes())
                    .context("an event that is not ours")?;
                sequences.push(stamp.sequence);
            }
            match page["next"].as_str() {
                Some(next) => after = Some(next.to_owned()),
                None => return Ok(sequences),
            }
        }
    }
}
