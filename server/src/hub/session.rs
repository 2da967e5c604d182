//! One connection's rules: what a message means and what follows from it.
//!
//! A state machine that performs nothing. The shard feeds it messages and carries out the [`Effect`]s, so that every
//! rule can be tested without a socket, a clock or a store.

use std::borrow::Cow;
use std::mem;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dunlin_protocol::names::{BadChannelName, ChannelName, SocketId, UserId, is_event_name};
use dunlin_protocol::pusher::codes::CloseCode;
use dunlin_protocol::pusher::incoming::ClientMessage;
use dunlin_protocol::pusher::outgoing;
use dunlin_protocol::pusher::presence::{PresenceMember, SignedInUser};
use serde_json::value::RawValue;

use super::resumes::{Full, Resumes};
use crate::apps::App;
use crate::apps::limits::LocalRate;
use crate::auth::channel::{self, BadToken};
use crate::presence::{JoinRefusal, Since};

/// Channels whose past one connection may have asked for and not subscribed to, where nothing limits its
/// subscriptions.
const MAX_RESUMES: usize = 1000;

/// What a connection is and remembers.
#[derive(Debug)]
pub struct Session {
    pub app: Arc<App>,
    pub socket_id: SocketId,
    user: Option<Box<SignedIn>>,
    /// Signed in, or in a channel that needs authorization.
    is_authorized: bool,
    client_events: LocalRate,
    resumes: Resumes,
}

/// As whom a connection signed in.
#[derive(Debug)]
struct SignedIn {
    user: SignedInUser,
    watchlist: Arc<[UserId]>,
}

/// How far this connection is with a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// Asked for; the answer is on its way.
    Pending,
    /// In it; on a presence channel, as this user.
    Joined { user_id: Option<UserId> },
}

/// The connection's subscriptions, which the shard keeps.
pub trait Subscriptions {
    fn find(&self, channel: &str) -> Option<Subscription>;
    fn count(&self) -> usize;
}

/// What is to be done.
#[derive(Debug)]
pub enum Effect {
    Nothing,
    /// One or more frames for this connection.
    Reply(Bytes),
    Join {
        channel: ChannelName,
        member: Option<PresenceMember>,
        since: Option<Since>,
    },
    Leave {
        channel: ChannelName,
    },
    Publish {
        channel: ChannelName,
        event: String,
        data_literal: String,
        user_id: Option<UserId>,
    },
    SignIn {
        reply: Bytes,
        user_id: UserId,
        watchlist: Arc<[UserId]>,
    },
    /// The message depends on an answer that is on its way: give it again afterwards.
    Wait,
    Close {
        code: CloseCode,
        message: Cow<'static, str>,
    },
}

fn error(message: &str) -> Effect {
    Effect::Reply(outgoing::error(None, message))
}

fn error_with(code: CloseCode) -> Effect {
    Effect::Reply(outgoing::error(Some(code.code()), code.message()))
}

/// Why a subscription failed, in the two shapes that clients understand: the general error, on which the .NET client
/// acts, then the event on the channel, which pusher-js hands to the application.
fn refused(channel: &str, kind: &str, code: Option<CloseCode>, message: &str, status: u16) -> Bytes {
    let general = outgoing::error(code.map(CloseCode::code), message);
    let specific = outgoing::subscription_error(channel, kind, message, status);
    let mut both = BytesMut::with_capacity(general.len() + specific.len());
    both.extend_from_slice(&general);
    both.extend_from_slice(&specific);
    both.freeze()
}

/// The frames that tell of a refused join.
pub fn join_refused(channel: &ChannelName, refusal: JoinRefusal) -> Bytes {
    match refusal {
        JoinRefusal::Full { .. } => {
            refused(channel.as_str(), "LimitReached", None, &refusal.to_string(), 403)
        }
    }
}

impl Session {
    pub fn new(app: Arc<App>, socket_id: SocketId) -> Self {
        Self {
            app,
            socket_id,
            user: None,
            is_authorized: false,
            client_events: LocalRate::default(),
            resumes: Resumes::default(),
        }
    }

    pub fn is_authorized(&self) -> bool {
        self.is_authorized
    }

    /// Who has signed in.
    pub fn user(&self) -> Option<&SignedInUser> {
        self.user.as_deref().map(|signed_in| &signed_in.user)
    }

    /// Forgets the user; who it was and whom it watched.
    pub fn sign_out(&mut self) -> Option<(UserId, Arc<[UserId]>)> {
        self.user
            .take()
            .map(|signed_in| (signed_in.user.id, signed_in.watchlist))
    }

    /// Decides about one message.
    pub fn on_message(&mut self, text: &str, subscriptions: &impl Subscriptions, now_nanos: u64) -> Effect {
        match ClientMessage::parse(text) {
            Err(bad) => error(&bad.to_string()),
            Ok(ClientMessage::Ping) => Effect::Reply(outgoing::pong()),
            Ok(ClientMessage::Pong) => Effect::Nothing,
            Ok(ClientMessage::Subscribe {
                channel,
                auth,
                channel_data,
            }) => self.subscribe(&channel, auth.as_deref(), channel_data.as_deref(), subscriptions),
            Ok(ClientMessage::Resume { channel, since }) => self.resume(&channel, since, subscriptions),
            Ok(ClientMessage::Unsubscribe { channel }) => unsubscribe(&channel, subscriptions),
            Ok(ClientMessage::SignIn { auth, user_data }) => self.sign_in(&auth, &user_data),
            Ok(ClientMessage::ClientEvent { event, channel, data }) => {
                self.client_event(&event, channel.as_deref(), data, subscriptions, now_nanos)
            }
            Ok(ClientMessage::Unsupported { event }) => {
                let event: String = event.chars().take(200).collect();
                error(&format!("Unsupported event received on socket: {event}"))
            }
        }
    }

    fn subscribe(
        &mut self,
        name: &str,
        auth: Option<&str>,
        data: Option<&str>,
        subscriptions: &impl Subscriptions,
    ) -> Effect {
        let since = self.resumes.take(name);
        let channel = match self.channel_name(name) {
            Ok(channel) => channel,
            Err(message) => {
                let shown: String = name.chars().take(200).collect();
                return Effect::Reply(refused(&shown, "ServerError", None, &message, 400));
            }
        };
        if subscriptions.find(name).is_some() {
            return error(&format!("Existing subscription to channel {name}"));
        }
        let limit = self.app.limits.subscriptions_per_connection;
        if limit != 0 && subscriptions.count() >= limit as usize {
            let message = format!("This connection has as many subscriptions as it may: {limit}");
            return Effect::Reply(refused(name, "LimitReached", None, &message, 403));
        }
        if let Err(refusal) = self.may_join(&channel, auth, data) {
            return Effect::Reply(refusal);
        }
        match self.member(&channel, data) {
            Ok(member) => Effect::Join {
                channel,
                member,
                since,
            },
            Err(message) => Effect::Reply(refused(name, "AuthError", None, &message, 400)),
        }
    }

    /// Notes what of the past the next subscription to the channel is to bring, in place of what was noted before.
    fn resume(&mut self, name: &str, since: Since, subscriptions: &impl Subscriptions) -> Effect {
        let channel = match self.channel_name(name) {
            Ok(channel) => channel,
            Err(message) => return error(&message),
        };
        if subscriptions.find(name).is_some() {
            return error(&format!(
                "Existing subscription to channel {name}: ask for its past before you subscribe"
            ));
        }
        let limit = match self.app.limits.subscriptions_per_connection {
            0 => MAX_RESUMES,
            limit => limit as usize,
        };
        match self.resumes.put(channel, since, limit) {
            Ok(()) => Effect::Nothing,
            Err(Full) => error(&format!(
                "The past of as many channels as may be is asked for already: {limit}"
            )),
        }
    }

    fn channel_name(&self, name: &str) -> Result<ChannelName, String> {
        let limit = self.app.limits.channel_name_length;
        if limit != 0 && name.chars().count() > limit {
            return Err(format!("Invalid channel name: longer than {limit} characters"));
        }
        name.parse()
            .map_err(|error: BadChannelName| format!("Invalid channel name: {error}"))
    }

    fn may_join(&self, channel: &ChannelName, auth: Option<&str>, data: Option<&str>) -> Result<(), Bytes> {
        let name = channel.as_str();
        let denied = |code, message: &str| refused(name, "AuthError", code, message, 401);
        if let Some(owner) = channel.server_to_user_id() {
            return match self.user() {
                Some(user) if user.id.as_str() == owner => Ok(()),
                _ => Err(denied(
                    Some(CloseCode::Unauthorized),
                    "Only a connection that signed in as this user may subscribe",
                )),
            };
        }
        if !channel.kind().needs_auth() {
            return Ok(());
        }
        channel::may_join(&self.app, self.socket_id, name, auth, data).map_err(|bad| {
            let code = (bad == BadToken::Missing).then_some(CloseCode::Unauthorized);
            denied(code, &bad.to_string())
        })
    }

    /// As whom the connection will be in a presence channel: the signed data, or else the user who signed in.
    fn member(&self, channel: &ChannelName, data: Option<&str>) -> Result<Option<PresenceMember>, String> {
        if !channel.kind().is_presence() {
            return Ok(None);
        }
        let limit = match self.app.limits.presence_info_bytes {
            0 => usize::MAX,
            limit => limit,
        };
        let member = match (data, self.user()) {
            (Some(data), _) => PresenceMember::parse(data, limit),
            (None, Some(user)) => user.to_presence_member(limit),
            (None, None) => return Err("Missing parameter: data.channel_data".to_owned()),
        };
        member.map(Some).map_err(|bad| bad.to_string())
    }

    /// Notes that the connection got into a channel that it had to be authorized for.
    pub fn joined(&mut self, channel: &ChannelName) {
        self.is_authorized |= channel.kind().needs_auth();
    }

    fn sign_in(&mut self, auth: &str, user_data: &str) -> Effect {
        let denied = |message: String| Effect::Close {
            code: CloseCode::Unauthorized,
            message: message.into(),
        };
        if let Err(bad) = channel::may_sign_in(&self.app, self.socket_id, auth, user_data) {
            return denied(bad.to_string());
        }
        let mut user = match SignedInUser::parse(user_data) {
            Ok(user) => user,
            Err(bad) => return denied(bad.to_string()),
        };
        let success = outgoing::signin_success(user_data);
        match self.user() {
            Some(current) if current.id == user.id => return Effect::Reply(success),
            Some(_) => return error("This connection is signed in as another user already"),
            None => {}
        }
        let limit = match self.app.limits.watchlist {
            0 => usize::MAX,
            limit => limit as usize,
        };
        let watched = if self.app.watchlist {
            mem::take(&mut user.watchlist)
        } else {
            Vec::new()
        };
        let mut reply = BytesMut::from(&success[..]);
        if self.app.watchlist && (user.watchlist_truncated || watched.len() > limit) {
            let kept = limit.min(watched.len());
            let message = format!("Watchlist limit exceeded. Only the first {kept} user IDs are accepted.");
            reply.extend_from_slice(&outgoing::error(Some(CloseCode::WatchlistLimit.code()), &message));
        }
        let watchlist: Arc<[UserId]> = watched.into_iter().take(limit).collect();
        let user_id = user.id.clone();
        self.user = Some(Box::new(SignedIn {
            user,
            watchlist: Arc::clone(&watchlist),
        }));
        self.is_authorized = true;
        Effect::SignIn {
            reply: reply.freeze(),
            user_id,
            watchlist,
        }
    }

    fn client_event(
        &mut self,
        event: &str,
        channel: Option<&str>,
        data: Option<&RawValue>,
        subscriptions: &impl Subscriptions,
        now_nanos: u64,
    ) -> Effect {
        let (Some(name), Some(data)) = (channel, data) else {
            return error("Invalid client event (must contain channel and data)");
        };
        if !self.app.client_events {
            return error(
                "To send client events, you must enable this feature in the Settings page of your dashboard.",
            );
        }
        let Ok(channel) = name.parse::<ChannelName>() else {
            return error("Invalid client event (invalid channel name)");
        };
        if !channel.kind().allows_client_events() {
            return error("Client event rejected - only supported on private and presence channels");
        }
        let user_id = match subscriptions.find(name) {
            Some(Subscription::Joined { user_id }) => user_id,
            Some(Subscription::Pending) => return Effect::Wait,
            None => {
                return error(&format!(
                    "Cannot broadcast client event (connection not subscribed to channel {name})"
                ));
            }
        };
        if !self
            .client_events
            .take(self.app.limits.client_events_per_second, now_nanos)
        {
            return error_with(CloseCode::ClientEventRate);
        }
        let limit = self.app.limits.event_name_length;
        if !is_event_name(event) || (limit != 0 && event.chars().count() > limit) {
            return error(&format!(
                "Invalid client event (the name is longer than {limit} characters)"
            ));
        }
        let data_literal = outgoing::to_string_literal(data);
        let limit = self.app.limits.payload_bytes;
        if limit != 0 && text_bytes(&data_literal) > limit {
            return error(&format!(
                "The data content of this event exceeds the allowed maximum ({limit} bytes)"
            ));
        }
        Effect::Publish {
            channel,
            event: event.to_owned(),
            data_literal: data_literal.into_owned(),
            user_id,
        }
    }
}

/// The bytes of the text that a JSON string literal stands for.
fn text_bytes(literal: &str) -> usize {
    serde_json::from_str::<Cow<'_, str>>(literal).map_or(literal.len(), |text| text.len())
}

fn unsubscribe(name: &str, subscriptions: &impl Subscriptions) -> Effect {
    match (subscriptions.find(name), name.parse()) {
        (Some(Subscription::Joined { .. }), Ok(channel)) => Effect::Leave { channel },
        (Some(Subscription::Pending), Ok(_)) => Effect::Wait,
        _ => {
            let name: String = name.chars().take(200).collect();
            error(&format!(
                "No current subscription to channel {name}, or subscription in progress"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use dunlin_protocol::pusher::outgoing::frames;

    use super::*;
    use crate::config::AppSection;
    use crate::storage::keys::AppNum;

    const SOCKET: SocketId = SocketId::new(1, 2);

    /// Subscriptions as a table.
    #[derive(Default)]
    struct Table(HashMap<&'static str, Subscription>);

    impl Subscriptions for Table {
        fn find(&self, channel: &str) -> Option<Subscription> {
            self.0.get(channel).cloned()
        }

        fn count(&self) -> usize {
            self.0.len()
        }
    }

    fn joined(channel: &'static str, user: Option<&str>) -> Table {
        let user_id = user.map(|id| id.parse().unwrap());
        Table(HashMap::from([(channel, Subscription::Joined { user_id })]))
    }

    fn session(edit: impl FnOnce(&mut AppSection)) -> Session {
        let mut section = AppSection::example();
        edit(&mut section);
        Session::new(Arc::new(App::new(AppNum(0), &section)), SOCKET)
    }

    fn auth(session: &Session, signed: &str) -> String {
        let digest = session.app.secret.sign_hex(&[signed.as_bytes()]);
        format!("{}:{}", session.app.key, std::str::from_utf8(&digest).unwrap())
    }

    fn subscribe(channel: &str, auth: &str, data: Option<&str>) -> String {
        let data = data.map_or(String::new(), |data| {
            format!(",\"channel_data\":{}", serde_json::json!(data))
        });
        format!(
            "{{\"event\":\"pusher:subscribe\",\"data\":{{\"channel\":\"{channel}\",\"auth\":\"{auth}\"{data}}}}}"
        )
    }

    fn client_event(channel: &str, name: &str, data: &str) -> String {
        format!("{{\"event\":\"{name}\",\"channel\":\"{channel}\",\"data\":{data}}}")
    }

    /// What follows from a message, in a few words.
    fn outcome(session: &mut Session, subscriptions: &Table, message: &str) -> String {
        match session.on_message(message, subscriptions, 1) {
            Effect::Nothing => "nothing".to_owned(),
            Effect::Reply(bytes) => frames(&bytes)
                .map(|frame| String::from_utf8_lossy(frame.payload).into_owned())
                .collect::<Vec<_>>()
                .join(" then "),
            Effect::Join {
                channel,
                member,
                since,
            } => {
                let user_id = member.map(|member| member.user_id.to_string());
                let since = since.map_or(String::new(), |since| format!(" since {since:?}"));
                format!("join {channel} as {user_id:?}{since}")
            }
            Effect::Leave { channel } => format!("leave {channel}"),
            Effect::Publish {
                channel,
                event,
                data_literal,
                user_id,
            } => {
                format!(
                    "publish {event} to {channel}: {data_literal} by {:?}",
                    user_id.map(|id| id.to_string())
                )
            }
            Effect::SignIn {
                user_id, watchlist, ..
            } => format!("sign in {user_id} watching {}", watchlist.len()),
            Effect::Wait => "wait".to_owned(),
            Effect::Close { code, message } => format!("close {}: {message}", code.code()),
        }
    }

    #[test]
    fn a_subscription_passes_the_checks_in_order() {
        let mut it = session(|section| section.limits.subscriptions_per_connection = 1);
        let good = auth(&it, "1.2:private-a");
        let member = "{\"user_id\":7}";
        let presence = auth(&it, &format!("1.2:presence-a:{member}"));
        let nowhere = Table::default();
        for (message, expected) in [
            (subscribe("a", "", None), "join a as None"),
            (subscribe("private-a", &good, None), "join private-a as None"),
            (
                subscribe("presence-a", &presence, Some(member)),
                "join presence-a as Some(\"7\")",
            ),
            (subscribe("private-a", &good, Some("{}")), "Invalid signature"),
            (subscribe("private-b", &good, None), "Invalid signature"),
            (
                subscribe("private-a", "other:00", None),
                "Invalid key in subscription auth data: 'other'",
            ),
            (subscribe("private-a", "", None), "\"code\":4009"),
            (subscribe("a b", "", None), "Invalid channel name"),
            (subscribe("#server-to-user-7", "", None), "signed in as this user"),
        ] {
            let outcome = outcome(&mut it, &nowhere, &message);
            assert!(outcome.contains(expected), "{message}: {outcome}");
        }
        let elsewhere = joined("b", None);
        assert!(
            outcome(&mut it, &elsewhere, &subscribe("b", "", None))
                .contains("Existing subscription to channel b")
        );
        assert!(outcome(&mut it, &elsewhere, &subscribe("a", "", None)).contains("LimitReached"));
    }

    #[test]
    fn a_resume_is_for_the_next_subscription_of_its_channel() {
        let mut it = session(|section| section.limits.subscriptions_per_connection = 2);
        let resume = |channel: &str, data: &str| {
            format!("{{\"event\":\"pusher:resume\",\"channel\":\"{channel}\",\"data\":{data}}}")
        };
        let nowhere = Table::default();
        for (message, expected) in [
            (resume("a", "{\"last\":3}"), "nothing"),
            (resume("b", "{\"position\":\"7:8\"}"), "nothing"),
            (resume("c", "{\"last\":3}"), "as many channels as may be"),
            (resume("a", "{\"last\":2}"), "nothing"),
            (resume("a b", "{\"last\":2}"), "Invalid channel name"),
            (resume("a", "{\"last\":0}"), "Invalid resume"),
            (subscribe("a", "", None), "join a as None since Last(2)"),
            (subscribe("a", "", None), "join a as None"),
            (
                subscribe("b", "", None),
                "since After(Position { epoch: 7, serial: 8 })",
            ),
            (resume("private-a", "{\"last\":3}"), "nothing"),
            (subscribe("private-a", "", None), "\"code\":4009"),
            (resume("a", "{\"last\":3}"), "nothing"),
            (resume("b", "{\"last\":3}"), "nothing"),
        ] {
            let outcome = outcome(&mut it, &nowhere, &message);
            assert!(outcome.contains(expected), "{message}: {outcome}");
        }
        for there in [
            joined("x", None),
            Table(HashMap::from([("x", Subscription::Pending)])),
        ] {
            let outcome = outcome(&mut it, &there, &resume("x", "{\"last\":3}"));
            assert!(outcome.contains("before you subscribe"), "{outcome}");
        }
    }

    #[test]
    fn a_refusal_never_shows_the_expected_signature() {
        let mut it = session(|_| {});
        let expected = auth(&it, "1.2:private-a");
        let (key, digest) = expected.split_once(':').unwrap();
        let outcome = outcome(
            &mut it,
            &Table::default(),
            &subscribe("private-a", &format!("{key}:abc"), None),
        );
        assert!(
            outcome.contains("but got abc") && !outcome.contains(digest),
            "{outcome}"
        );
        let (first, second) = outcome.split_once(" then ").unwrap();
        assert!(
            first.contains("pusher:error") && second.contains("pusher:subscription_error"),
            "{outcome}"
        );
    }

    #[test]
    fn client_events_pass_the_checks_in_order() {
        let mut it = session(|section| section.limits.payload_bytes = 10);
        let there = joined("presence-a", Some("7"));
        for (message, expected) in [
            (
                client_event("presence-a", "client-x", "{\"a\": 1}"),
                "publish client-x to presence-a: \"{\\\"a\\\":1}\" by Some(\"7\")",
            ),
            (
                client_event("presence-a", "client-x", "\"text\""),
                "publish client-x to presence-a: \"text\" by Some(\"7\")",
            ),
            (
                client_event("presence-a", "x", "1"),
                "Unsupported event received on socket: x",
            ),
            (
                "{\"event\":\"client-x\",\"data\":1}".to_owned(),
                "must contain channel and data",
            ),
            (
                client_event("a", "client-x", "1"),
                "only supported on private and presence channels",
            ),
            (
                client_event("private-encrypted-a", "client-x", "1"),
                "only supported on private and presence channels",
            ),
            (
                client_event("private-b", "client-x", "1"),
                "connection not subscribed to channel private-b",
            ),
            (
                client_event("presence-a", "client-x", "\"12345678901\""),
                "exceeds the allowed maximum (10 bytes)",
            ),
        ] {
            let outcome = outcome(&mut it, &there, &message);
            assert!(outcome.contains(expected), "{message}: {outcome}");
        }
        let mut off = session(|section| section.client_events = false);
        let message = client_event("presence-a", "client-x", "1");
        assert!(outcome(&mut off, &there, &message).contains("you must enable this feature"));
        let waiting = Table(HashMap::from([("private-a", Subscription::Pending)]));
        assert_eq!(
            outcome(
                &mut off,
                &waiting,
                "{\"event\":\"pusher:unsubscribe\",\"data\":{\"channel\":\"private-a\"}}"
            ),
            "wait"
        );
    }

    #[test]
    fn a_connection_may_send_as_many_client_events_as_its_app_allows() {
        let mut it = session(|section| section.limits.client_events_per_second = 3);
        let there = joined("private-a", None);
        let message = client_event("private-a", "client-x", "1");
        let published = |outcome: &String| outcome.starts_with("publish");
        let outcomes: Vec<_> = (0..5).map(|_| outcome(&mut it, &there, &message)).collect();
        assert_eq!(outcomes.iter().filter(|outcome| published(outcome)).count(), 3);
        assert!(outcomes[4].contains("\"code\":4301"), "{}", outcomes[4]);
    }

    #[test]
    fn a_user_signs_in_once_and_as_one() {
        let mut it = session(|_| {});
        let sign_in = |it: &Session, user_data: &str, signed: &str| {
            let auth = auth(it, &format!("1.2::user::{signed}"));
            format!(
                "{{\"event\":\"pusher:signin\",\"data\":{{\"auth\":\"{auth}\",\"user_data\":{}}}}}",
                serde_json::json!(user_data)
            )
        };
        let (u1, u2) = ("{\"id\":\"u1\",\"watchlist\":[\"u2\"]}", "{\"id\":\"u2\"}");
        let nowhere = Table::default();
        let forged = sign_in(&it, u1, u2);
        assert!(outcome(&mut it, &nowhere, &forged).starts_with("close 4009: Invalid signature"));
        let first = sign_in(&it, u1, u1);
        assert_eq!(outcome(&mut it, &nowhere, &first), "sign in u1 watching 1");
        assert!(it.is_authorized());
        assert!(
            outcome(&mut it, &nowhere, &first).contains("pusher:signin_success"),
            "again as the same"
        );
        let other = sign_in(&it, u2, u2);
        assert!(outcome(&mut it, &nowhere, &other).contains("signed in as another user"));
        assert_eq!(
            outcome(&mut it, &nowhere, &subscribe("#server-to-user-u1", "", None)),
            "join #server-to-user-u1 as None"
        );
        let presence = auth(&it, "1.2:presence-a");
        assert_eq!(
            outcome(&mut it, &nowhere, &subscribe("presence-a", &presence, None)),
            "join presence-a as Some(\"u1\")"
        );
    }
}
