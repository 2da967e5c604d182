//! A small client of the socket protocol: what official clients send, and nothing they do not.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::error::CliError;
use super::sign::{channel_auth, escape};
use super::target::{PATIENCE, Target, in_url};

/// How long the server may take to answer our ping (pusher-js waits as long).
const PONG_TIMEOUT: Duration = Duration::from_secs(30);

/// One connection to one app, established.
pub(super) struct Socket<'a> {
    target: &'a Target,
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// As the server gave it; part of every signature.
    pub(super) id: String,
    activity_timeout: Duration,
    last_heard: Instant,
    is_ping_out: bool,
    /// What came while the answer to a subscription was awaited.
    early: VecDeque<Incoming>,
}

/// A message of the server, parsed and as it came.
#[derive(Clone, Debug)]
pub(super) struct Incoming {
    pub(super) event: String,
    pub(super) channel: Option<String>,
    /// A string nearly always; an object in `pusher:error`.
    pub(super) data: Value,
    /// The whole text.
    pub(super) raw: String,
}

impl Incoming {
    fn parse(raw: String) -> Result<Self, CliError> {
        #[derive(Deserialize)]
        struct Envelope {
            event: String,
            channel: Option<String>,
            #[serde(default)]
            data: Value,
        }
        let parsed: Result<Envelope, _> = serde_json::from_str(&raw);
        let envelope = parsed.map_err(|source| CliError::Json {
            what: "a message".to_owned(),
            source,
        })?;
        Ok(Self {
            event: envelope.event,
            channel: envelope.channel,
            data: envelope.data,
            raw,
        })
    }

    /// The data as text: a string as it is, anything else as JSON.
    pub(super) fn data_text(&self) -> String {
        self.data
            .as_str()
            .map_or_else(|| self.data.to_string(), str::to_owned)
    }

    /// The text of a `pusher:error` or `pusher:subscription_error`.
    fn refusal(&self) -> String {
        let data = match self.data.as_str() {
            Some(text) => serde_json::from_str(text).unwrap_or(Value::Null),
            None => self.data.clone(),
        };
        let text = data["message"]
            .as_str()
            .or(data["error"].as_str())
            .unwrap_or("no reason given")
            .to_owned();
        match data["code"].as_u64() {
            Some(code) => format!("{text} (code {code})"),
            None => text,
        }
    }
}

impl<'a> Socket<'a> {
    /// Connects and waits for the socket id.
    pub(super) async fn open(target: &'a Target) -> Result<Self, CliError> {
        let scheme = if target.tls { "wss" } else { "ws" };
        let host = in_url(&target.socket_host);
        // The version is a statement about the client; servers only log it.
        let url = format!(
            "{scheme}://{host}:{}/app/{}?protocol=7&client=dunlin-cli&version={}",
            target.port,
            escape(target.key()?),
            env!("CARGO_PKG_VERSION")
        );
        let deadline = Instant::now() + PATIENCE;
        let shown = format!("{scheme}://{host}:{}", target.port);
        let connecting = tokio_tungstenite::connect_async(&url);
        let (stream, _) = match timeout_at(deadline, Box::pin(connecting)).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(e)) => {
                return Err(CliError::Connect {
                    url: shown,
                    source: Box::new(e),
                });
            }
            Err(_) => {
                return Err(CliError::TimedOut(format!(
                    "{shown} did not answer within {PATIENCE:?}"
                )));
            }
        };
        let mut socket = Self {
            target,
            stream,
            id: String::new(),
            activity_timeout: Duration::from_mins(2),
            last_heard: Instant::now(),
            is_ping_out: false,
            early: VecDeque::new(),
        };
        let first = match timeout_at(deadline, socket.next()).await {
            Ok(first) => first?,
            Err(_) => return Err(CliError::TimedOut("the server did not say who we are".to_owned())),
        };
        socket.establish(&first)?;
        Ok(socket)
    }

    fn establish(&mut self, first: &Incoming) -> Result<(), CliError> {
        #[derive(Deserialize)]
        struct Established {
            socket_id: String,
            activity_timeout: u64,
        }
        if first.event != "pusher:connection_established" {
            return Err(CliError::Refused(first.refusal()));
        }
        let established: Result<Established, _> = serde_json::from_str(&first.data_text());
        let established = established.map_err(|source| CliError::Json {
            what: first.event.clone(),
            source,
        })?;
        self.id = established.socket_id;
        self.activity_timeout = Duration::from_secs(established.activity_timeout.max(1));
        Ok(())
    }

    /// Asks for a channel; the answer comes as a message. Signs for channels that need it.
    pub(super) async fn subscribe(
        &mut self,
        channel: &str,
        channel_data: Option<&str>,
    ) -> Result<(), CliError> {
        let data = if channel.starts_with("private-") || channel.starts_with("presence-") {
            let credentials = (self.target.key()?, &self.target.secret()?);
            let auth = channel_auth(credentials, &self.id, channel, channel_data);
            match channel_data {
                Some(channel_data) => json!({"channel": channel, "auth": auth, "channel_data": channel_data}),
                None => json!({"channel": channel, "auth": auth}),
            }
        } else {
            json!({"channel": channel, "auth": ""})
        };
        self.send(&json!({"event": "pusher:subscribe", "data": data}))
            .await
    }

    /// Subscribes and waits until the server confirms.
    ///
    /// # Errors
    /// A refusal, which the hosted service says without naming the channel: so no two may be under way at once.
    pub(super) async fn join(
        &mut self,
        channel: &str,
        channel_data: Option<&str>,
    ) -> Result<Incoming, CliError> {
        self.subscribe(channel, channel_data).await?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Ok(message) = timeout_at(deadline, self.receive()).await else {
                let what = format!("no answer to the subscription to {channel} within {PATIENCE:?}");
                return Err(CliError::TimedOut(what));
            };
            let message = message?;
            match message.event.as_str() {
                "pusher_internal:subscription_succeeded" if message.channel.as_deref() == Some(channel) => {
                    return Ok(message);
                }
                "pusher:error" | "pusher:subscription_error" => {
                    return Err(CliError::Refused(message.refusal()));
                }
                _ => self.early.push_back(message),
            }
        }
    }

    /// The next message that is not a ping or a pong; those are dealt with here.
    ///
    /// Safe to drop while it waits: what was read is either returned or still in the stream.
    pub(super) async fn next(&mut self) -> Result<Incoming, CliError> {
        match self.early.pop_front() {
            Some(message) => Ok(message),
            None => self.receive().await,
        }
    }

    async fn receive(&mut self) -> Result<Incoming, CliError> {
        loop {
            let patience = if self.is_ping_out {
                PONG_TIMEOUT
            } else {
                self.activity_timeout
            };
            let message = match timeout_at(self.last_heard + patience, self.stream.next()).await {
                Ok(Some(message)) => message.map_err(|e| CliError::Broken(Box::new(e)))?,
                Ok(None) => return Err(CliError::Broken(Box::new(WsError::ConnectionClosed))),
                Err(_) if self.is_ping_out => {
                    return Err(CliError::TimedOut("the server has fallen silent".to_owned()));
                }
                Err(_) => {
                    self.is_ping_out = true;
                    self.last_heard = Instant::now();
                    self.send(&json!({"event": "pusher:ping", "data": {}})).await?;
                    continue;
                }
            };
            self.last_heard = Instant::now();
            self.is_ping_out = false;
            match message {
                Message::Text(text) => {
                    let incoming = Incoming::parse(text.as_str().to_owned())?;
                    match incoming.event.as_str() {
                        "pusher:ping" => self.send(&json!({"event": "pusher:pong", "data": {}})).await?,
                        "pusher:pong" => {}
                        _ => return Ok(incoming),
                    }
                }
                Message::Close(frame) => {
                    let (code, reason) = frame.map_or((1005, String::new()), |frame| {
                        (frame.code.into(), frame.reason.as_str().to_owned())
                    });
                    return Err(CliError::Closed { code, reason });
                }
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    async fn send(&mut self, message: &Value) -> Result<(), CliError> {
        let text = Message::text(message.to_string());
        self.stream
            .send(text)
            .await
            .map_err(|e| CliError::Broken(Box::new(e)))
    }

    /// Says goodbye; a server that does not answer is none of our concern any more.
    pub(super) async fn close(mut self) {
        drop(self.stream.close(None).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_from_both_of_its_shapes() {
        for (raw, text) in [
            (
                r#"{"event":"pusher:error","data":{"code":4001,"message":"no"}}"#,
                "no (code 4001)",
            ),
            (
                r#"{"event":"pusher:error","data":{"code":null,"message":"no"}}"#,
                "no",
            ),
            (
                r#"{"event":"pusher:subscription_error","channel":"c","data":"{\"error\":\"no\",\"status\":401}"}"#,
                "no",
            ),
            (r#"{"event":"pusher:error"}"#, "no reason given"),
        ] {
            assert_eq!(Incoming::parse(raw.to_owned()).unwrap().refusal(), text);
        }
    }

    #[test]
    fn data_is_shown_as_the_publisher_wrote_it() {
        let message = |raw: &str| Incoming::parse(raw.to_owned()).unwrap();
        assert_eq!(
            message(r#"{"event":"e","channel":"c","data":"{\"a\": 1}"}"#).data_text(),
            r#"{"a": 1}"#
        );
        assert_eq!(
            message(r#"{"event":"e","data":{"a":1}}"#).data_text(),
            r#"{"a":1}"#
        );
        assert!(Incoming::parse("[]".to_owned()).is_err());
    }
}
