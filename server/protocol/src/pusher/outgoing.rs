//! What the server says. Every function returns complete, unmasked WebSocket frames (RFC 6455), ready to be written,
//! from one allocation of exactly the right size.
//!
//! Members come in the order `event`, `channel`, `data`, `user_id`. `data` is a string holding JSON everywhere but in
//! `pusher:error`, where it is an object: that is what the hosted service sends and what the .NET client insists on.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::presence::PresenceMember;
use crate::json;
use crate::names::{SocketId, UserId};
use crate::position::Position;

const PONG_JSON: &[u8] = br#"{"event":"pusher:pong","data":"{}"}"#;
const PING_JSON: &[u8] = br#"{"event":"pusher:ping","data":"{}"}"#;
static PONG: [u8; PONG_JSON.len() + 2] = short_text_frame(PONG_JSON);
static PING: [u8; PING_JSON.len() + 2] = short_text_frame(PING_JSON);

const FINAL: u8 = 0x80;
/// Most bytes of a close reason: a control frame carries 125, the code takes two (RFC 6455, 5.5).
const MAX_CLOSE_REASON: usize = 123;

#[expect(
    clippy::cast_possible_truncation,
    reason = "checked by the assertion, at compile time"
)]
const fn short_text_frame<const N: usize>(json: &[u8]) -> [u8; N] {
    assert!(
        json.len() < 126 && json.len() + 2 == N,
        "fits the one-byte length"
    );
    let mut frame = [0; N];
    frame[0] = FINAL | Opcode::Text as u8;
    frame[1] = json.len() as u8;
    let mut at = 0;
    while at < json.len() {
        frame[at + 2] = json[at];
        at += 1;
    }
    frame
}

/// A part of a message.
enum Piece<'a> {
    /// JSON as it is to appear on the wire.
    Raw(&'a str),
    /// Text inside a JSON string.
    Text(&'a str),
    /// Text inside a string of the JSON that the `data` string holds.
    Inner(&'a str),
}

impl Piece<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Raw(text) => text.len(),
            Self::Text(text) => json::escaped_len(text),
            Self::Inner(text) => json::double_escaped_len(text),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Raw(text) => out.extend_from_slice(text.as_bytes()),
            Self::Text(text) => json::escape_into(out, text),
            Self::Inner(text) => json::double_escape_into(out, text),
        }
    }
}

fn text_frame_of(pieces: &[Piece<'_>]) -> Bytes {
    text_frames_of(&[pieces])
}

fn text_frames_of(frames: &[&[Piece<'_>]]) -> Bytes {
    let length = |pieces: &[Piece<'_>]| pieces.iter().map(Piece::len).sum();
    let framed = |pieces: &&[Piece<'_>]| {
        let length = length(pieces);
        header_bytes(length) + length
    };
    let mut bytes = Vec::with_capacity(frames.iter().map(framed).sum());
    for pieces in frames {
        start_frame(&mut bytes, Opcode::Text, length(pieces));
        for piece in *pieces {
            piece.write(&mut bytes);
        }
    }
    Bytes::from(bytes)
}

/// What stands in front of a payload of this length.
fn header_bytes(length: usize) -> usize {
    match length {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    }
}

/// Writes the header of a frame.
#[expect(clippy::cast_possible_truncation, reason = "each arm has checked the range")]
fn start_frame(bytes: &mut Vec<u8>, opcode: Opcode, length: usize) {
    let first = FINAL | opcode as u8;
    match length {
        0..=125 => bytes.extend_from_slice(&[first, length as u8]),
        126..=0xFFFF => {
            bytes.extend_from_slice(&[first, 126]);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            bytes.extend_from_slice(&[first, 127]);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// A buffer for exactly one frame, with its header in place.
fn one_frame(opcode: Opcode, length: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(header_bytes(length) + length);
    start_frame(&mut frame, opcode, length);
    frame
}

/// The first message of every connection; pusher-js takes any other for a failed handshake.
/// `activity_timeout_s` must not be 0, or pusher-js gives up.
pub fn connection_established(socket_id: SocketId, activity_timeout_s: u32) -> Bytes {
    text_frame_of(&[
        Piece::Raw(r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\""#),
        Piece::Raw(socket_id.to_text().as_str()),
        Piece::Raw(r#"\",\"activity_timeout\":"#),
        Piece::Raw(itoa::Buffer::new().format(activity_timeout_s)),
        Piece::Raw(r#"}"}"#),
    ])
}

/// The answer to `pusher:ping`.
pub fn pong() -> Bytes {
    Bytes::from_static(&PONG)
}

/// Asks a quiet client for a sign of life; it answers `pusher:pong`.
pub fn ping() -> Bytes {
    Bytes::from_static(&PING)
}

/// `pusher:error`. No code means that it concerns one request, not the connection.
pub fn error(code: Option<u16>, message: &str) -> Bytes {
    let mut digits = itoa::Buffer::new();
    text_frame_of(&[
        Piece::Raw(r#"{"event":"pusher:error","data":{"code":"#),
        Piece::Raw(code.map_or("null", |code| digits.format(code))),
        Piece::Raw(r#","message":""#),
        Piece::Text(message),
        Piece::Raw(r#""}}"#),
    ])
}

/// Confirms a subscription to anything but a presence channel.
pub fn subscription_succeeded(channel: &str) -> Bytes {
    with_empty_data("pusher_internal:subscription_succeeded", channel)
}

/// Confirms a subscription to a presence channel. The list must hold the joiner, or pusher-js has no `members.me`.
pub fn subscription_succeeded_presence(channel: &str, members: &PresenceList) -> Bytes {
    text_frame_of(&[
        Piece::Raw(r#"{"event":"pusher_internal:subscription_succeeded","channel":""#),
        Piece::Text(channel),
        Piece::Raw(r#"","data":"{\"presence\":{\"count\":"#),
        Piece::Raw(itoa::Buffer::new().format(members.count)),
        Piece::Raw(r#",\"ids\":["#),
        Piece::Raw(&members.ids),
        Piece::Raw(r#"],\"hash\":{"#),
        Piece::Raw(&members.hash),
        Piece::Raw(r#"}}}"}"#),
    ])
}

/// A user's first connection has joined; for everybody else in the channel.
pub fn member_added(channel: &str, member: &MemberFragment) -> Bytes {
    text_frame_of(&[
        Piece::Raw(r#"{"event":"pusher_internal:member_added","channel":""#),
        Piece::Text(channel),
        Piece::Raw(r#"","data":"{\"user_id\":"#),
        Piece::Raw(member.id()),
        Piece::Raw(r#",\"user_info\":"#),
        Piece::Raw(member.info()),
        Piece::Raw(r#"}"}"#),
    ])
}

/// A user's last connection has left; for everybody else in the channel.
pub fn member_removed(channel: &str, user_id: &str) -> Bytes {
    text_frame_of(&[
        Piece::Raw(r#"{"event":"pusher_internal:member_removed","channel":""#),
        Piece::Text(channel),
        Piece::Raw(r#"","data":"{\"user_id\":\""#),
        Piece::Inner(user_id),
        Piece::Raw(r#"\"}"}"#),
    ])
}

/// Lets applications bind to a failed subscription. `kind` is `AuthError`, `LimitReached` or `ServerError`
/// (Pusher Channels docs), `status` like an HTTP status.
pub fn subscription_error(channel: &str, kind: &str, error: &str, status: u16) -> Bytes {
    text_frame_of(&[
        Piece::Raw(r#"{"event":"pusher:subscription_error","channel":""#),
        Piece::Text(channel),
        Piece::Raw(r#"","data":"{\"type\":\""#),
        Piece::Inner(kind),
        Piece::Raw(r#"\",\"error\":\""#),
        Piece::Inner(error),
        Piece::Raw(r#"\",\"status\":"#),
        Piece::Raw(itoa::Buffer::new().format(status)),
        Piece::Raw(r#"}"}"#),
    ])
}

/// A cache channel had nothing to give to this new subscriber.
pub fn cache_miss(channel: &str) -> Bytes {
    with_empty_data("pusher:cache_miss", channel)
}

/// How many connections are subscribed; client libraries rename it to `pusher:subscription_count`.
pub fn subscription_count(channel: &str, count: u64) -> Bytes {
    text_frame_of(&[
        Piece::Raw(r#"{"event":"pusher_internal:subscription_count","channel":""#),
        Piece::Text(channel),
        Piece::Raw(r#"","data":"{\"subscription_count\":"#),
        Piece::Raw(itoa::Buffer::new().format(count)),
        Piece::Raw(r#"}"}"#),
    ])
}

/// Confirms a sign-in with the very text the client sent, as a string in a string: clients parse it once more.
pub fn signin_success(user_data: &str) -> Bytes {
    text_frame_of(&[
        Piece::Raw(r#"{"event":"pusher:signin_success","data":"{\"user_data\":\""#),
        Piece::Inner(user_data),
        Piece::Raw(r#"\"}"}"#),
    ])
}

/// Who of a watchlist is or came online and offline. An empty group is left out.
pub fn watchlist_events<Id: AsRef<str>>(online: &[Id], offline: &[Id]) -> Bytes {
    let mut pieces = Vec::with_capacity(8 + 2 * (online.len() + offline.len()));
    pieces.push(Piece::Raw(
        r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":["#,
    ));
    let groups = [
        (r#"{\"name\":\"online\",\"user_ids\":[\""#, online),
        (r#"{\"name\":\"offline\",\"user_ids\":[\""#, offline),
    ];
    let mut separator = "";
    for (opening, ids) in groups {
        let Some((first, others)) = ids.split_first() else {
            continue;
        };
        pieces.extend([
            Piece::Raw(separator),
            Piece::Raw(opening),
            Piece::Inner(first.as_ref()),
        ]);
        for id in others {
            pieces.extend([Piece::Raw(r#"\",\""#), Piece::Inner(id.as_ref())]);
        }
        pieces.push(Piece::Raw(r#"\"]}"#));
        separator = ",";
    }
    pieces.push(Piece::Raw(r#"]}"}"#));
    text_frame_of(&pieces)
}

/// An event on a channel. `event` is the decoded name. `data_literal` is a JSON string literal **with its quotes** and
/// goes out byte for byte, because re-encoding would change what the publisher signed or encrypted. `user_id` is the
/// sender of a client event on a presence channel.
pub fn event(channel: &str, event: &str, data_literal: &str, user_id: Option<&str>) -> Bytes {
    text_frame_of(&event_pieces(channel, event, data_literal, user_id))
}

fn event_pieces<'a>(
    channel: &'a str,
    event: &'a str,
    data_literal: &'a str,
    user_id: Option<&'a str>,
) -> [Piece<'a>; 9] {
    let (user_key, user_id, user_end) = match user_id {
        Some(id) => (r#","user_id":""#, id, "\"}"),
        None => ("", "", "}"),
    };
    [
        Piece::Raw(r#"{"event":""#),
        Piece::Text(event),
        Piece::Raw(r#"","channel":""#),
        Piece::Text(channel),
        Piece::Raw(r#"","data":"#),
        Piece::Raw(data_literal),
        Piece::Raw(user_key),
        Piece::Text(user_id),
        Piece::Raw(user_end),
    ]
}

/// An event on a channel with history: [`event`], and in front of it where it stands in the channel's order. A client
/// that counts has seen the event once it got both (own addition; clients ignore `pusher_internal:` events that they
/// do not know).
pub fn event_at(
    position: Position,
    channel: &str,
    event: &str,
    data_literal: &str,
    user_id: Option<&str>,
) -> Bytes {
    let digits = Digits::of(position);
    text_frames_of(&[
        &[
            Piece::Raw(r#"{"event":"pusher_internal:position","channel":""#),
            Piece::Text(channel),
            Piece::Raw(r#"","data":"{\"position\":\""#),
            Piece::Raw(digits.as_str()),
            Piece::Raw(r#"\"}"}"#),
        ],
        &event_pieces(channel, event, data_literal, user_id),
    ])
}

/// The place of an event that this connection does not get, because it is its own.
pub fn skipped(position: Position, channel: &str) -> Bytes {
    text_frame_of(&[
        Piece::Raw(r#"{"event":"pusher_internal:position","channel":""#),
        Piece::Text(channel),
        Piece::Raw(r#"","data":"{\"position\":\""#),
        Piece::Raw(Digits::of(position).as_str()),
        Piece::Raw(r#"\",\"skipped\":true}"}"#),
    ])
}

/// In front of the past events that a new subscriber gets. `position`: where it stands before them; none without
/// history. `is_complete`: whether they are all that it asked for; none if it did not ask.
pub fn recovered(channel: &str, position: Option<Position>, is_complete: Option<bool>) -> Bytes {
    let digits = position.map(Digits::of);
    let (opening, digits, closing) = match &digits {
        Some(digits) => (r#"\"position\":\""#, digits.as_str(), r#"\","#),
        None => ("", "", ""),
    };
    text_frame_of(&[
        Piece::Raw(r#"{"event":"pusher_internal:recovered","channel":""#),
        Piece::Text(channel),
        Piece::Raw(r#"","data":"{"#),
        Piece::Raw(opening),
        Piece::Raw(digits),
        Piece::Raw(closing),
        Piece::Raw(match is_complete {
            Some(true) => r#"\"recovered\":true}"}"#,
            Some(false) => r#"\"recovered\":false}"}"#,
            None => r#"\"recovered\":null}"}"#,
        }),
    ])
}

/// A position as a text, without allocation.
struct Digits {
    bytes: [u8; Self::MOST],
    length: usize,
}

impl Digits {
    /// Two numbers of twenty digits and a colon.
    const MOST: usize = 41;

    fn of(position: Position) -> Self {
        use std::io::Write as _;
        let mut bytes = [0; Self::MOST];
        let mut rest = &mut bytes[..];
        write!(rest, "{position}").expect("there is room for the longest");
        let length = Self::MOST - rest.len();
        Self { bytes, length }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

fn with_empty_data(event: &str, channel: &str) -> Bytes {
    text_frame_of(&[
        Piece::Raw(r#"{"event":""#),
        Piece::Raw(event),
        Piece::Raw(r#"","channel":""#),
        Piece::Text(channel),
        Piece::Raw(r#"","data":"{}"}"#),
    ])
}

/// A text frame around ready JSON.
pub fn text_frame(json: &[u8]) -> Bytes {
    let mut frame = one_frame(Opcode::Text, json.len());
    frame.extend_from_slice(json);
    Bytes::from(frame)
}

/// A close frame. The reason is cut at a character boundary to the 123 bytes that fit.
pub fn close_frame(code: u16, reason: &str) -> Bytes {
    let reason = &reason[..reason.floor_char_boundary(MAX_CLOSE_REASON)];
    let mut frame = one_frame(Opcode::Close, reason.len() + 2);
    frame.extend_from_slice(&code.to_be_bytes());
    frame.extend_from_slice(reason.as_bytes());
    Bytes::from(frame)
}

/// One member of a presence channel as it appears inside `data` strings, escaped once and for all at the join.
#[derive(Debug, Clone)]
pub struct MemberFragment {
    user_id: UserId,
    // The quoted id, then the info.
    text: Box<str>,
    id_bytes: usize,
}

impl MemberFragment {
    /// `user_info` is a raw JSON object; none is shown as `{}`.
    pub fn new(user_id: UserId, user_info: Option<&str>) -> Self {
        let info = user_info.unwrap_or("{}");
        let id_bytes = json::double_escaped_len(user_id.as_str()) + 4;
        let mut text = Vec::with_capacity(id_bytes + json::escaped_len(info));
        text.extend_from_slice(br#"\""#);
        json::double_escape_into(&mut text, user_id.as_str());
        text.extend_from_slice(br#"\""#);
        json::escape_into(&mut text, info);
        let text = String::from_utf8(text).expect("escaping inserts ASCII between whole characters");
        Self {
            user_id,
            text: text.into_boxed_str(),
            id_bytes,
        }
    }

    pub fn user_id(&self) -> &UserId {
        &self.user_id
    }

    fn id(&self) -> &str {
        &self.text[..self.id_bytes]
    }

    fn info(&self) -> &str {
        &self.text[self.id_bytes..]
    }
}

impl From<&PresenceMember> for MemberFragment {
    fn from(member: &PresenceMember) -> Self {
        Self::new(member.user_id.clone(), member.user_info.as_deref())
    }
}

/// The members of a presence channel, ready to be put into a frame. Building it is concatenation; a caller that keeps
/// one may push further members, but has to build it anew when somebody leaves.
#[derive(Debug, Clone, Default)]
pub struct PresenceList {
    ids: String,
    hash: String,
    count: usize,
}

impl PresenceList {
    pub fn new() -> Self {
        Self::default()
    }

    /// A list of these members; each of its two texts is allocated once.
    pub fn of<'a, I>(members: I) -> Self
    where
        I: IntoIterator<Item = &'a MemberFragment>,
        I::IntoIter: Clone,
    {
        let members = members.into_iter();
        let (mut ids, mut hash) = (0, 0);
        for member in members.clone() {
            ids += member.id().len() + 1;
            hash += member.text.len() + 2;
        }
        let mut list = Self {
            ids: String::with_capacity(ids),
            hash: String::with_capacity(hash),
            count: 0,
        };
        list.extend(members);
        list
    }

    /// Adds a member, whose id must not be in the list yet.
    pub fn push(&mut self, member: &MemberFragment) {
        if self.count > 0 {
            self.ids.push(',');
            self.hash.push(',');
        }
        self.ids.push_str(member.id());
        self.hash.push_str(member.id());
        self.hash.push(':');
        self.hash.push_str(member.info());
        self.count += 1;
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<'a> Extend<&'a MemberFragment> for PresenceList {
    fn extend<I: IntoIterator<Item = &'a MemberFragment>>(&mut self, members: I) {
        for member in members {
            self.push(member);
        }
    }
}

impl<'a> FromIterator<&'a MemberFragment> for PresenceList {
    fn from_iter<I: IntoIterator<Item = &'a MemberFragment>>(members: I) -> Self {
        let mut list = Self::new();
        list.extend(members);
        list
    }
}

/// What a frame is (RFC 6455, 5.2). The server never fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// A frame of the server, found in a row of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerFrame<'a> {
    pub opcode: Opcode,
    pub payload: &'a [u8],
}

impl ServerFrame<'_> {
    /// Code and reason of a close frame; 1005 stands for "no code" (RFC 6455, 7.1.5).
    pub fn close_reason(&self) -> Option<(u16, &str)> {
        if self.opcode != Opcode::Close {
            return None;
        }
        match self.payload {
            [high, low, reason @ ..] => Some((
                u16::from_be_bytes([*high, *low]),
                std::str::from_utf8(reason).unwrap_or_default(),
            )),
            _ => Some((1005, "")),
        }
    }
}

/// Walks frames that this module built and somebody joined, for transports that carry the messages in other clothes.
/// Ends at the first thing that the server does not send: a cut, masked, fragmented or unknown frame.
pub fn frames(bytes: &[u8]) -> impl Iterator<Item = ServerFrame<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (frame, after) = split_frame(rest)?;
        rest = after;
        Some(frame)
    })
}

fn split_frame(bytes: &[u8]) -> Option<(ServerFrame<'_>, &[u8])> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    let opcode = match first {
        0x81 => Opcode::Text,
        0x82 => Opcode::Binary,
        0x88 => Opcode::Close,
        0x89 => Opcode::Ping,
        0x8A => Opcode::Pong,
        _ => return None,
    };
    let (length, rest) = match second {
        0..=125 => (usize::from(second), rest),
        126 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        127 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::try_from(u64::from_be_bytes(*length)).ok()?, rest)
        }
        _ => return None,
    };
    let (payload, rest) = rest.split_at_checked(length)?;
    Some((ServerFrame { opcode, payload }, rest))
}

/// The value as a JSON string literal: a string stays what it is, anything else becomes its compact text as a string.
/// Client libraries expect `data` to be a string, whatever the sending client put there.
pub fn to_string_literal(raw: &RawValue) -> Cow<'_, str> {
    let text = raw.get();
    if text.starts_with('"') {
        return Cow::Borrowed(text);
    }
    let mut literal = String::with_capacity(text.len() + text.len() / 4 + 2);
    literal.push('"');
    let mut in_string = false;
    let mut escaped = false;
    for character in text.chars() {
        match character {
            // Outside strings only white space is dropped; inside, raw control characters cannot occur.
            ' ' | '\t' | '\n' | '\r' if !in_string => continue,
            '"' => {
                in_string ^= !escaped;
                literal.push('\\');
            }
            '\\' => literal.push('\\'),
            _ => {}
        }
        escaped = character == '\\' && !escaped;
        literal.push(character);
    }
    literal.push('"');
    Cow::Owned(literal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json_of(frame: &Bytes) -> String {
        let all: Vec<_> = frames(frame).collect();
        assert_eq!(all.len(), 1, "one whole frame");
        assert_eq!(all[0].opcode, Opcode::Text);
        let text = std::str::from_utf8(all[0].payload).unwrap().to_owned();
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
        text
    }

    fn member(id: &str, info: Option<&str>) -> MemberFragment {
        MemberFragment::new(id.parse().unwrap(), info)
    }

    #[test]
    fn every_message_has_its_exact_text() {
        let socket_id = SocketId::new(123_456, 789_012);
        let position = Position {
            epoch: u64::MAX,
            serial: u64::MAX,
        };
        let cases = [
            (
                connection_established(socket_id, 120),
                r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"123456.789012\",\"activity_timeout\":120}"}"#,
            ),
            (pong(), r#"{"event":"pusher:pong","data":"{}"}"#),
            (ping(), r#"{"event":"pusher:ping","data":"{}"}"#),
            (
                error(None, "Say \"x\"\n"),
                r#"{"event":"pusher:error","data":{"code":null,"message":"Say \"x\"\n"}}"#,
            ),
            (
                error(Some(4009), "No"),
                r#"{"event":"pusher:error","data":{"code":4009,"message":"No"}}"#,
            ),
            (
                subscription_succeeded("pub"),
                r#"{"event":"pusher_internal:subscription_succeeded","channel":"pub","data":"{}"}"#,
            ),
            (
                subscription_succeeded_presence(
                    "presence-b",
                    &PresenceList::of(&[member("10", Some(r#"{"name":"A"}"#)), member("11", None)]),
                ),
                r#"{"event":"pusher_internal:subscription_succeeded","channel":"presence-b","data":"{\"presence\":{\"count\":2,\"ids\":[\"10\",\"11\"],\"hash\":{\"10\":{\"name\":\"A\"},\"11\":{}}}}"}"#,
            ),
            (
                subscription_succeeded_presence("presence-b", &PresenceList::new()),
                r#"{"event":"pusher_internal:subscription_succeeded","channel":"presence-b","data":"{\"presence\":{\"count\":0,\"ids\":[],\"hash\":{}}}"}"#,
            ),
            (
                member_added("presence-b", &member("12", Some(r#"{"name":"C"}"#))),
                r#"{"event":"pusher_internal:member_added","channel":"presence-b","data":"{\"user_id\":\"12\",\"user_info\":{\"name\":\"C\"}}"}"#,
            ),
            (
                member_removed("presence-b", "12"),
                r#"{"event":"pusher_internal:member_removed","channel":"presence-b","data":"{\"user_id\":\"12\"}"}"#,
            ),
            (
                subscription_error("private-a", "AuthError", "no \"key\"", 401),
                r#"{"event":"pusher:subscription_error","channel":"private-a","data":"{\"type\":\"AuthError\",\"error\":\"no \\\"key\\\"\",\"status\":401}"}"#,
            ),
            (
                cache_miss("cache-x"),
                r#"{"event":"pusher:cache_miss","channel":"cache-x","data":"{}"}"#,
            ),
            (
                subscription_count("pub", 42),
                r#"{"event":"pusher_internal:subscription_count","channel":"pub","data":"{\"subscription_count\":42}"}"#,
            ),
            (
                signin_success(r#"{"id":"u1"}"#),
                r#"{"event":"pusher:signin_success","data":"{\"user_data\":\"{\\\"id\\\":\\\"u1\\\"}\"}"}"#,
            ),
            (
                watchlist_events(&["2", "3"], &["4"]),
                r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":[{\"name\":\"online\",\"user_ids\":[\"2\",\"3\"]},{\"name\":\"offline\",\"user_ids\":[\"4\"]}]}"}"#,
            ),
            (
                watchlist_events(&[], &["4", "5"]),
                r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":[{\"name\":\"offline\",\"user_ids\":[\"4\",\"5\"]}]}"}"#,
            ),
            (
                event("my-channel", "my-event", r#""{\"message\":\"hi\"}""#, None),
                r#"{"event":"my-event","channel":"my-channel","data":"{\"message\":\"hi\"}"}"#,
            ),
            (
                event("presence-b", "client-x", r#""\u00e9""#, Some("1\"0")),
                r#"{"event":"client-x","channel":"presence-b","data":"\u00e9","user_id":"1\"0"}"#,
            ),
            (
                skipped(position, "c\"d"),
                r#"{"event":"pusher_internal:position","channel":"c\"d","data":"{\"position\":\"18446744073709551615:18446744073709551615\",\"skipped\":true}"}"#,
            ),
            (
                recovered("c", Some(position), Some(true)),
                r#"{"event":"pusher_internal:recovered","channel":"c","data":"{\"position\":\"18446744073709551615:18446744073709551615\",\"recovered\":true}"}"#,
            ),
            (
                recovered("c", None, Some(false)),
                r#"{"event":"pusher_internal:recovered","channel":"c","data":"{\"recovered\":false}"}"#,
            ),
            (
                recovered("c", None, None),
                r#"{"event":"pusher_internal:recovered","channel":"c","data":"{\"recovered\":null}"}"#,
            ),
            (
                event("c", r"App\Events\X", r#""""#, None),
                r#"{"event":"App\\Events\\X","channel":"c","data":""}"#,
            ),
        ];
        for (frame, expected) in cases {
            assert_eq!(json_of(&frame), expected);
        }
    }

    #[test]
    fn an_event_with_its_place_is_two_frames_in_a_row() {
        let position = Position { epoch: 7, serial: 8 };
        let bytes = event_at(position, "c", "e", r#""x""#, Some("u"));
        let texts: Vec<_> = frames(&bytes)
            .map(|frame| std::str::from_utf8(frame.payload).unwrap())
            .collect();
        let alone = json_of(&event("c", "e", r#""x""#, Some("u")));
        assert_eq!(
            texts,
            [
                r#"{"event":"pusher_internal:position","channel":"c","data":"{\"position\":\"7:8\"}"}"#,
                &alone
            ]
        );
        assert_eq!(
            bytes.len(),
            texts.iter().map(|text| text.len() + 2).sum::<usize>()
        );
    }

    #[test]
    fn awkward_members_survive_both_layers_of_quoting() {
        let ids = ["\"", "\\", "\n\u{1}", "é🦜", "{\"a\":\"b\"}"];
        let info = "{\n \"n\\\"\\u0000\" : [\"\\\\\", 1.0] }";
        let members: Vec<_> = ids.iter().map(|id| member(id, Some(info))).collect();
        let list: PresenceList = members.iter().collect();
        assert_eq!((list.len(), list.is_empty()), (ids.len(), false));
        let envelope: serde_json::Value =
            serde_json::from_str(&json_of(&subscription_succeeded_presence("presence-a", &list))).unwrap();
        let data: serde_json::Value = serde_json::from_str(envelope["data"].as_str().unwrap()).unwrap();
        assert_eq!(data["presence"]["ids"], serde_json::json!(ids));
        for (id, member) in ids.iter().zip(&members) {
            let expected: serde_json::Value = serde_json::from_str(info).unwrap();
            assert_eq!(data["presence"]["hash"][id], expected);
            let added: serde_json::Value =
                serde_json::from_str(&json_of(&member_added("c", member))).unwrap();
            let added: serde_json::Value = serde_json::from_str(added["data"].as_str().unwrap()).unwrap();
            assert_eq!(added, serde_json::json!({"user_id": id, "user_info": expected}));
        }
    }

    #[test]
    fn the_header_says_the_length_in_the_shortest_form() {
        for (length, header) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (0xFFFF, vec![0x81, 126, 0xFF, 0xFF]),
            (0x1_0000, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = text_frame(&vec![b'x'; length]);
            assert_eq!(frame[..header.len()], header);
            assert_eq!(frame.len(), header.len() + length);
            assert_eq!(frames(&frame).next().unwrap().payload.len(), length);
        }
    }

    #[test]
    fn a_close_reason_is_cut_at_a_character() {
        let frame = close_frame(4001, &"é".repeat(100));
        let closed = frames(&frame).next().unwrap();
        assert_eq!(closed.close_reason(), Some((4001, "é".repeat(61).as_str())));
        assert_eq!(close_frame(4200, "x").as_ref(), [0x88, 3, 0x10, 0x68, b'x']);
        assert_eq!(
            frames(&[0x88, 0]).next().unwrap().close_reason(),
            Some((1005, ""))
        );
        assert_eq!(frames(&pong()).next().unwrap().close_reason(), None);
    }

    #[test]
    fn a_row_of_frames_is_walked_to_the_first_that_is_not_ours() {
        let row = [pong(), text_frame(&vec![b'x'; 70_000]), close_frame(4200, "bye")].concat();
        let found: Vec<_> = frames(&row)
            .map(|frame| (frame.opcode, frame.payload.len()))
            .collect();
        assert_eq!(
            found,
            [
                (Opcode::Text, PONG_JSON.len()),
                (Opcode::Text, 70_000),
                (Opcode::Close, 5)
            ]
        );
        for foreign in [
            &[0x81][..],
            &[0x81, 5, 1],
            &[0x81, 126, 0],
            &[0x81, 127, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0x81, 0x80, 0, 0, 0, 0],
            &[0x01, 0],
            &[0xC1, 0],
            &[0x83, 0],
        ] {
            let row = [&pong(), foreign].concat();
            assert_eq!(frames(&row).count(), 1, "{foreign:?}");
        }
    }

    #[test]
    fn any_json_becomes_a_string_literal() {
        for (raw, literal) in [
            (r#""as \u00e9 is""#, r#""as \u00e9 is""#),
            (r#"{ "a" : [ 1.0 , "b c" ] }"#, r#""{\"a\":[1.0,\"b c\"]}""#),
            ("{\n\t\"q\\\" \\\\\" : null\r\n}", r#""{\"q\\\" \\\\\":null}""#),
            ("1e3", "\"1e3\""),
            ("true", "\"true\""),
            (r#"["é\n"]"#, r#""[\"é\\n\"]""#),
        ] {
            let raw: Box<RawValue> = serde_json::from_str(raw).unwrap();
            assert_eq!(to_string_literal(&raw), literal);
        }
    }
}
