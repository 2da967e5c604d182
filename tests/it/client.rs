//! A Pusher client that speaks protocol 7 the way pusher-js does, and hides nothing it receives.

use crate::node::Node;
use crate::sign::{channel_auth, user_auth};
use crate::websocket::{CLOSE, Draft, PING, PONG, Seen, Socket, TEXT};
use crate::world::{App, DEADLINE, World};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;

/// What pusher-js appends to the path.
pub(crate) const QUERY: &str = "protocol=7&client=js&version=8.6.0&flash=false";

/// One message from the server.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) channel: Option<String>,
    /// As it stands in the message: a string, but for `pusher:error`.
    pub(crate) data: Value,
    pub(crate) user_id: Option<String>,
    pub(crate) raw: String,
}

impl Event {
    #[track_caller]
    fn parse(raw: String) -> Self {
        let Ok(Value::Object(mut message)) = serde_json::from_str::<Value>(&raw) else {
            panic!("not a JSON object: {raw}");
        };
        let mut text = |name: &str| {
            message
                .remove(name)
                .map(|value| value.as_str().map(str::to_owned))
        };
        let name = text("event")
            .flatten()
            .unwrap_or_else(|| panic!("no event name: {raw}"));
        let channel = text("channel").map(|value| value.unwrap_or_else(|| panic!("odd channel: {raw}")));
        let user_id = text("user_id").map(|value| value.unwrap_or_else(|| panic!("odd user_id: {raw}")));
        let data = message
            .remove("data")
            .unwrap_or_else(|| panic!("data is never left out: {raw}"));
        assert_eq!(
            data.is_object(),
            name == "pusher:error",
            "only pusher:error has an object: {raw}"
        );
        assert_eq!(
            data.is_string(),
            name != "pusher:error",
            "all other data is a string: {raw}"
        );
        Self {
            name,
            channel,
            data,
            user_id,
            raw,
        }
    }

    /// The text of `data`.
    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        self.data
            .as_str()
            .unwrap_or_else(|| panic!("no text: {}", self.raw))
    }

    /// `data` parsed as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        match &self.data {
            Value::String(text) => {
                serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {}", self.raw))
            }
            other => other.clone(),
        }
    }

    /// Insists that this is a `pusher:error` of that code whose message holds the text.
    #[track_caller]
    pub(crate) fn assert_error(&self, code: Option<u16>, text: &str) {
        assert_eq!(self.name, "pusher:error", "{}", self.raw);
        assert_eq!(self.data.get("code"), Some(&json!(code)), "{}", self.raw);
        let message = self
            .data
            .get("message")
            .and_then(Value::as_str)
            .unwrap_or_default();
        assert!(message.contains(text), "expected {text:?} in {}", self.raw);
    }
}

/// A connection that has been established.
pub(crate) struct Client {
    pub(crate) socket: Socket,
    pub(crate) socket_id: String,
    pub(crate) app: App,
}

impl Client {
    pub(crate) async fn connect(world: &World, app: &App) -> Self {
        Self::connect_with(world, app, QUERY).await
    }

    pub(crate) async fn connect_with(world: &World, app: &App, query: &str) -> Self {
        Self::connect_at(world.seat(app), app, query).await
    }

    /// Connects to this node and no other.
    pub(crate) async fn connect_to(node: &Node, app: &App) -> Self {
        Self::connect_at(node.address, app, QUERY).await
    }

    pub(crate) async fn connect_at(address: SocketAddr, app: &App, query: &str) -> Self {
        match Self::try_connect_at(address, app, query).await {
            Ok(client) => client,
            Err(refusal) => panic!("the connection was refused: {}", refusal.raw),
        }
    }

    /// # Errors
    /// The server sends the client away; this is what it says.
    pub(crate) async fn try_connect_at(address: SocketAddr, app: &App, query: &str) -> Result<Self, Event> {
        let path = format!("/app/{}?{query}", app.key);
        let mut socket = Socket::open(address, &path).await;
        let Seen::Frame(frame) = socket.next().await else {
            panic!("nothing after the handshake")
        };
        let hello = Event::parse(frame.text());
        if hello.name != "pusher:connection_established" {
            return Err(hello);
        }
        let socket_id = hello.json()["socket_id"]
            .as_str()
            .expect("every connection has an id")
            .to_owned();
        Ok(Self {
            socket,
            socket_id,
            app: app.clone(),
        })
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.socket.send_frame(&Draft::text(text)).await;
    }

    pub(crate) async fn send(&mut self, message: Value) {
        self.send_text(&message.to_string()).await;
    }

    /// The next message, or `None` when none came in time. Answers frame-level pings as a browser does.
    pub(crate) async fn next_within(&mut self, limit: Duration) -> Option<Event> {
        loop {
            match self.socket.next_within(limit).await {
                Seen::Frame(frame) if frame.opcode == TEXT => return Some(Event::parse(frame.text())),
                Seen::Frame(frame) if frame.opcode == PING => {
                    self.socket.send_frame(&Draft::new(PONG, &frame.payload)).await;
                }
                Seen::Silence => return None,
                other => panic!("expected a message, saw {other:?}"),
            }
        }
    }

    pub(crate) async fn next(&mut self) -> Event {
        self.next_within(DEADLINE).await.expect("a message comes in time")
    }

    /// The next message, which must be this event.
    pub(crate) async fn expect(&mut self, name: &str) -> Event {
        match self.next_within(DEADLINE).await {
            Some(event) if event.name == name => event,
            Some(event) => panic!("expected {name}, got {}", event.raw),
            None => panic!("expected {name}, nothing came"),
        }
    }

    /// The next message, which must be this channel event.
    pub(crate) async fn expect_on(&mut self, channel: &str, name: &str) -> Event {
        let event = self.expect(name).await;
        assert_eq!(event.channel.as_deref(), Some(channel), "{}", event.raw);
        event
    }

    pub(crate) async fn expect_error(&mut self, code: Option<u16>, text: &str) -> Event {
        let event = self.next().await;
        event.assert_error(code, text);
        event
    }

    /// Insists on both frames of a refused subscription, in their order.
    pub(crate) async fn expect_refusal(&mut self, channel: &str, code: Option<u16>, text: &str) -> Value {
        self.expect_error(code, text).await;
        // Nobody is told more of a name than the longest that is allowed.
        let shown: String = channel.chars().take(200).collect();
        let failure = self.expect_on(&shown, "pusher:subscription_error").await.json();
        assert!(
            failure["error"]
                .as_str()
                .is_some_and(|error| error.contains(text)),
            "{failure}"
        );
        assert!(failure["status"].is_number(), "{failure}");
        assert!(failure["type"].is_string(), "{failure}");
        failure
    }

    /// Insists that nothing is waiting: the answer to a ping is the next thing that comes.
    pub(crate) async fn expect_quiet(&mut self) {
        self.send(json!({ "event": "pusher:ping", "data": {} })).await;
        self.expect("pusher:pong").await;
    }

    /// Asks for a subscription, signed if its kind needs that, and does not wait for the answer.
    pub(crate) async fn ask(&mut self, channel: &str, channel_data: Option<&str>) {
        let closed = channel.starts_with("private-") || channel.starts_with("presence-");
        let auth = if closed {
            channel_auth(&self.app, &self.socket_id, channel, channel_data)
        } else {
            String::new()
        };
        let mut data = json!({ "auth": auth, "channel": channel });
        if let Some(text) = channel_data {
            data["channel_data"] = json!(text);
        }
        self.send(json!({ "event": "pusher:subscribe", "data": data }))
            .await;
    }

    pub(crate) async fn ask_with_auth(&mut self, channel: &str, auth: &str) {
        let data = json!({ "auth": auth, "channel": channel });
        self.send(json!({ "event": "pusher:subscribe", "data": data }))
            .await;
    }

    pub(crate) async fn subscribe(&mut self, channel: &str) -> Event {
        self.ask(channel, None).await;
        self.expect_on(channel, "pusher_internal:subscription_succeeded")
            .await
    }

    /// Joins a presence channel; returns the `presence` object of the confirmation.
    pub(crate) async fn join(&mut self, channel: &str, user_id: &str) -> Value {
        let data = json!({ "user_id": user_id, "user_info": { "name": user_id } }).to_string();
        self.join_as(channel, &data).await
    }

    pub(crate) async fn join_as(&mut self, channel: &str, channel_data: &str) -> Value {
        self.ask(channel, Some(channel_data)).await;
        let event = self
            .expect_on(channel, "pusher_internal:subscription_succeeded")
            .await;
        event.json()["presence"].clone()
    }

    pub(crate) async fn unsubscribe(&mut self, channel: &str) {
        self.send(json!({ "event": "pusher:unsubscribe", "data": { "channel": channel } }))
            .await;
    }

    pub(crate) async fn trigger(&mut self, channel: &str, name: &str, data: Value) {
        self.send(json!({ "event": name, "channel": channel, "data": data }))
            .await;
    }

    /// Sends a sign-in with a right signature and does not wait for the answer.
    pub(crate) async fn ask_sign_in(&mut self, user_data: &str) {
        let auth = user_auth(&self.app, &self.socket_id, user_data);
        let data = json!({ "auth": auth, "user_data": user_data });
        self.send(json!({ "event": "pusher:signin", "data": data })).await;
    }

    pub(crate) async fn sign_in(&mut self, user_id: &str) {
        self.ask_sign_in(&json!({ "id": user_id }).to_string()).await;
        self.expect("pusher:signin_success").await;
    }

    /// Reads up to the close frame; messages before it are returned too.
    pub(crate) async fn closed(&mut self) -> (u16, String, Vec<Event>) {
        let mut before = Vec::new();
        loop {
            match self.socket.next_within(Duration::from_secs(15)).await {
                Seen::Frame(frame) if frame.opcode == TEXT => before.push(Event::parse(frame.text())),
                Seen::Frame(frame) if frame.opcode == PING => {}
                Seen::Frame(frame) if frame.opcode == CLOSE => {
                    let (code, reason) = frame.close().expect("this server always gives a code");
                    self.socket.send_frame(&Draft::new(CLOSE, &frame.payload)).await;
                    assert_eq!(self.socket.next().await, Seen::End);
                    return (code, reason, before);
                }
                other => panic!("expected a close frame, saw {other:?}"),
            }
        }
    }

    /// Ends the connection as a browser does that navigates away.
    pub(crate) async fn leave(mut self) {
        self.socket.send_frame(&Draft::close(1000, "")).await;
        while let Seen::Frame(_) = self.socket.next().await {}
    }
}

/// Connects where the last node is expected to refuse in-band: the error it sends, and the close after it.
pub(crate) async fn refused(world: &World, path: &str) -> (Event, u16, String) {
    let mut socket = Socket::open(world.address, path).await;
    let Seen::Frame(frame) = socket.next().await else {
        panic!("nothing after the handshake")
    };
    let error = Event::parse(frame.text());
    let (code, reason) = socket.closed().await;
    (error, code, reason)
}
