//! What a node says of something it holds, and what Redis answers: the two sides of `hold.lua`.

use std::collections::BTreeMap;

use dunlin_protocol::names::UserId;
use dunlin_protocol::position::Position;
use redis::{FromRedisValue as _, Value, from_redis_value};
use serde::Serialize;

use super::message::Event;
use crate::storage::memory::PastEvent;

/// The argument of the script; the script says what the fields mean.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Hold {
    pub(super) node: String,
    pub(super) thing: String,
    pub(super) app: String,
    pub(super) channel: String,
    pub(super) publish: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) topic: Option<String>,
    pub(super) kind: &'static str,
    pub(super) count: u32,
    pub(super) listen: bool,
    pub(super) users: Vec<Said>,
    pub(super) bound: Vec<(UserId, u32)>,
    pub(super) full: bool,
    pub(super) limit: u32,
    pub(super) joins: u32,
    pub(super) counted: bool,
    pub(super) above: u32,
    pub(super) every_us: u64,
    pub(super) settle_ms: u64,
    pub(super) outbox: usize,
    pub(super) cache: bool,
    pub(super) history: Kept,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) past: Option<Past>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) known: Option<Known>,
    pub(super) list: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reap: Option<u32>,
}

/// What is said of a user. The script tells the two by their length.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Said {
    /// Connections of this node, whether the user is new there, and its `user_info`.
    Enters(UserId, u32, bool, Box<str>),
    Leaves((UserId,)),
}

/// What is kept of a channel's past; size 0: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Kept {
    pub(super) size: u32,
    pub(super) age_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Past {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last: Option<u32>,
    pub(super) most: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Known {
    pub(super) epoch: u64,
    pub(super) serial: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// The node was declared dead.
    Fenced,
    /// A dead node holds more users than leave at once.
    More,
    Done(Box<Done>),
}

/// How things stand once the node was heard.
#[derive(Clone, Debug)]
pub(super) struct Done {
    /// Behind what the node changed.
    pub(super) position: Position,
    /// Connections of all nodes.
    pub(super) connections: u32,
    /// Users for whom there was no room.
    pub(super) refused: Vec<UserId>,
    /// Connections for which a quota had no place.
    pub(super) without_place: u32,
    /// Something will have to be told later.
    pub(super) is_due: bool,
    /// The remembered event, and its time to live in milliseconds.
    pub(super) cached: Option<(Event, u64)>,
    pub(super) past: BTreeMap<u64, PastEvent>,
    /// The serial up to which events may be missing in the history.
    pub(super) trimmed: u64,
    /// Users with their `user_info`, if they were asked for.
    pub(super) members: Option<Vec<(UserId, String)>>,
}

impl Answer {
    /// `None`: not what the script answers.
    pub(super) fn parse(value: Value) -> Option<Self> {
        let Value::Array(parts) = value else {
            return None;
        };
        let mut parts = parts.into_iter();
        match String::from_redis_value(parts.next()?).ok()?.as_str() {
            "fenced" => return Some(Self::Fenced),
            "more" => return Some(Self::More),
            "ok" => {}
            _ => return None,
        }
        let mut number = || -> Option<u64> { number(&parts.next()?) };
        let position = Position {
            epoch: number()?,
            serial: number()?,
        };
        let connections = u32::try_from(number()?).ok()?;
        let (refused, without_place) = match parts.next()? {
            list @ Value::Array(_) => {
                let names: Vec<String> = from_redis_value(list).ok()?;
                let users = names.iter().map(|name| name.parse().ok());
                (users.collect::<Option<_>>()?, 0)
            }
            count => (Vec::new(), u32::try_from(self::number(&count)?).ok()?),
        };
        let is_due = self::number(&parts.next()?)? == 1;
        let cached = match parts.next()? {
            Value::BulkString(json) => Some(Event::parse(std::str::from_utf8(&json).ok()?)?),
            _ => None,
        };
        let lives_ms = self::number(&parts.next()?)?;
        let past = parse_past(parts.next()?)?;
        let trimmed = self::number(&parts.next()?)?;
        let members = match parts.next() {
            Some(Value::Nil) | None => None,
            Some(list) => Some(parse_members(list)?),
        };
        Some(Self::Done(Box::new(Done {
            position,
            connections,
            refused,
            without_place,
            is_due,
            cached: cached.map(|event| (event, lives_ms)),
            past: past.into_iter().map(|event| (event.serial, event)).collect(),
            trimmed,
            members,
        })))
    }
}

pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
        Value::SimpleString(digits) => digits.parse().ok(),
        _ => None,
    }
}

/// Entries of a history, in the order in which they were read.
pub(super) fn parse_past(value: Value) -> Option<Vec<PastEvent>> {
    let entries: Vec<(String, Vec<String>)> = from_redis_value(value).ok()?;
    let read = |(id, fields): (String, Vec<String>)| {
        let field = |name: &str| {
            let at = fields.iter().step_by(2).position(|field| field == name)?;
            fields.get(at * 2 + 1)
        };
        let event = Event::parse(field("body")?)?;
        Some(PastEvent {
            serial: id.split('-').next()?.parse().ok()?,
            published_at_ms: field("at")?.parse().ok()?,
            name: event.name,
            data_literal: event.data_literal,
            user_id: event.user_id,
        })
    };
    entries.into_iter().map(read).collect()
}

/// The members of a channel: each is stored as `NODES INFO`.
fn parse_members(value: Value) -> Option<Vec<(UserId, String)>> {
    let pairs: Vec<(String, String)> = from_redis_value(value).ok()?;
    let read = |(user, stored): (String, String)| {
        let (_, info) = stored.split_once(' ')?;
        Some((user.parse().ok()?, info.to_owned()))
    };
    pairs.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn an_answer_is_read_whole_or_not_at_all() {
        let event = Value::Array(vec![
            text("9-0"),
            Value::Array(vec![
                text("at"),
                text("5"),
                text("body"),
                text("{\"n\":\"e\",\"d\":\"\\\"x\\\"\"}"),
            ]),
        ]);
        let whole = vec![
            text("ok"),
            text("7"),
            text("9"),
            Value::Int(3),
            Value::Array(vec![text("u")]),
            Value::Int(1),
            Value::Nil,
            Value::Int(0),
            Value::Array(vec![event]),
            text("7"),
            Value::Array(vec![text("m"), text("2 {\"a\":1}")]),
        ];
        let Some(Answer::Done(done)) = Answer::parse(Value::Array(whole.clone())) else {
            panic!("not read")
        };
        assert_eq!(done.position, Position { epoch: 7, serial: 9 });
        assert_eq!((done.connections, done.is_due, done.trimmed), (3, true, 7));
        assert_eq!(done.refused, ["u".parse().unwrap()]);
        assert_eq!(done.past.keys().collect::<Vec<_>>(), [&9]);
        assert_eq!(
            done.members,
            Some(vec![("m".parse().unwrap(), "{\"a\":1}".to_owned())])
        );
        for cut in 1..whole.len() - 1 {
            assert!(
                Answer::parse(Value::Array(whole[..cut].to_vec())).is_none(),
                "{cut}"
            );
        }
        assert!(matches!(
            Answer::parse(Value::Array(vec![text("fenced")])),
            Some(Answer::Fenced)
        ));
    }
}
