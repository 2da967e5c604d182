//! Who somebody says to be, in texts that the customer's backend has signed: `channel_data` of a presence
//! subscription and `user_data` of a sign-in. Checking the signature comes first and elsewhere.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::json;
use crate::names::{BadUserId, UserId};

/// Most bytes of `user_info` by default (Pusher Channels docs: 1 kB).
pub const MAX_USER_INFO_BYTES: usize = 1024;
/// Most ids of a watchlist that count (Pusher Channels docs).
pub const MAX_WATCHLIST: usize = 100;

/// A member of a presence channel, as the customer signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceMember {
    pub user_id: UserId,
    /// A raw JSON object.
    pub user_info: Option<Box<str>>,
}

/// Why nobody can join with this `channel_data`; `Display` is the message for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadPresence {
    #[error("Invalid JSON in channel_data: it must be an object with a user_id")]
    InvalidJson,
    #[error("Missing parameter: channel_data.user_id")]
    MissingUserId,
    #[error("Invalid user_id: it must be a string or a number of 1 to 128 characters")]
    InvalidUserId,
    #[error("user_info supplied to presence subscription is invalid - if supplied it must be a type of hash")]
    InvalidUserInfo,
    #[error("user_info supplied to presence subscription is too large (at most {0} bytes)")]
    UserInfoTooLarge(usize),
}

#[derive(Deserialize)]
struct ChannelData<'a> {
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
    #[serde(borrow)]
    user_info: Option<&'a RawValue>,
}

impl PresenceMember {
    /// Reads `channel_data`. A numeric `user_id` becomes its text; `user_info` may be absent or null.
    ///
    /// # Errors
    /// When a rule is broken, `user_info` of more than `info_limit` bytes as received included.
    pub fn parse(channel_data: &str, info_limit: usize) -> Result<Self, BadPresence> {
        if !json::opens_object(channel_data) {
            return Err(BadPresence::InvalidJson);
        }
        let data: ChannelData<'_> =
            serde_json::from_str(channel_data).map_err(|_| BadPresence::InvalidJson)?;
        let id =
            id_text(data.user_id.ok_or(BadPresence::MissingUserId)?).ok_or(BadPresence::InvalidUserId)?;
        let user_id = id.parse().map_err(|_: BadUserId| BadPresence::InvalidUserId)?;
        let user_info = data
            .user_info
            .map(|raw| checked_info(raw, info_limit))
            .transpose()?;
        Ok(Self { user_id, user_info })
    }
}

fn checked_info(raw: &RawValue, limit: usize) -> Result<Box<str>, BadPresence> {
    if !raw.get().starts_with('{') || !json::is_sound(raw) {
        return Err(BadPresence::InvalidUserInfo);
    }
    if raw.get().len() > limit {
        return Err(BadPresence::UserInfoTooLarge(limit));
    }
    Ok(raw.get().into())
}

/// The text of an id. Numbers are written as JavaScript would, so that a browser finds itself in the member list;
/// integers beyond 2^53 stay exact, because rounding could make two users one.
fn id_text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text = raw.get();
    match text.as_bytes().first()? {
        b'"' => json::as_text(raw),
        b'-' | b'0'..=b'9' => {
            if let Ok(number) = text.parse::<i64>() {
                return Some(Cow::Owned(number.to_string()));
            }
            if text.bytes().all(|b| b.is_ascii_digit()) {
                return Some(Cow::Borrowed(text));
            }
            let number = text.parse::<f64>().ok().filter(|number| number.is_finite())?;
            Some(Cow::Owned(if number == 0.0 {
                "0".to_owned()
            } else {
                number.to_string()
            }))
        }
        _ => None,
    }
}

/// A user who signs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedInUser {
    /// In the alphabet of channel names.
    pub id: UserId,
    /// A raw JSON object.
    pub user_info: Option<Box<str>>,
    /// Without repetitions, at most [`MAX_WATCHLIST`].
    pub watchlist: Vec<UserId>,
    /// More ids were given than count: the client is told so with 4302.
    pub watchlist_truncated: bool,
}

/// Why nobody can sign in with this `user_data`; `Display` is the message for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadUserData {
    #[error("Invalid JSON in user_data: it must be an object with an id")]
    InvalidJson,
    #[error("Missing parameter: user_data.id")]
    MissingId,
    #[error("Invalid user_data: id must be a string of 1 to 128 letters, digits and _ - = @ , . ;")]
    InvalidId,
    #[error("Invalid user_data: user_info must be an object")]
    InvalidUserInfo,
    #[error("Invalid user_data: watchlist must be an array of user ids")]
    InvalidWatchlist,
}

#[derive(Deserialize)]
struct UserData<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    user_info: Option<&'a RawValue>,
    #[serde(borrow)]
    watchlist: Option<&'a RawValue>,
}

impl SignedInUser {
    /// Reads `user_data`. The id must be a string, as the official clients demand.
    ///
    /// # Errors
    /// When a rule is broken. Too long a watchlist is not an error: it is cut.
    pub fn parse(user_data: &str) -> Result<Self, BadUserData> {
        if !json::opens_object(user_data) {
            return Err(BadUserData::InvalidJson);
        }
        let data: UserData<'_> = serde_json::from_str(user_data).map_err(|_| BadUserData::InvalidJson)?;
        let id = json::as_text(data.id.ok_or(BadUserData::MissingId)?).ok_or(BadUserData::InvalidId)?;
        let id = UserId::for_sign_in(&id).map_err(|_| BadUserData::InvalidId)?;
        let user_info = match data.user_info {
            None => None,
            Some(raw) if raw.get().starts_with('{') && json::is_sound(raw) => Some(raw.get().into()),
            Some(_) => return Err(BadUserData::InvalidUserInfo),
        };
        let (watchlist, watchlist_truncated) = match data.watchlist {
            None => (Vec::new(), false),
            Some(raw) => {
                let mut text = serde_json::Deserializer::from_str(raw.get());
                Watchlist
                    .deserialize(&mut text)
                    .map_err(|_| BadUserData::InvalidWatchlist)?
            }
        };
        Ok(Self {
            id,
            user_info,
            watchlist,
            watchlist_truncated,
        })
    }

    /// This user as a member of a presence channel, for subscriptions that bring no `channel_data`.
    ///
    /// # Errors
    /// When `user_info` has more than `info_limit` bytes.
    pub fn to_presence_member(&self, info_limit: usize) -> Result<PresenceMember, BadPresence> {
        if self
            .user_info
            .as_ref()
            .is_some_and(|info| info.len() > info_limit)
        {
            return Err(BadPresence::UserInfoTooLarge(info_limit));
        }
        Ok(PresenceMember {
            user_id: self.id.clone(),
            user_info: self.user_info.clone(),
        })
    }
}

/// Reads the first [`MAX_WATCHLIST`] ids and skips the rest, so that a long list costs no memory.
struct Watchlist;

impl<'de> DeserializeSeed<'de> for Watchlist {
    type Value = (Vec<UserId>, bool);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Watchlist {
    type Value = (Vec<UserId>, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of user ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut ids: A) -> Result<Self::Value, A::Error> {
        let mut watchlist: Vec<UserId> = Vec::new();
        for _ in 0..MAX_WATCHLIST {
            let Some(raw) = ids.next_element::<&RawValue>()? else {
                return Ok((watchlist, false));
            };
            let id = id_text(raw).and_then(|id| id.parse().ok());
            let id = id.ok_or_else(|| serde::de::Error::custom("not a user id"))?;
            if !watchlist.contains(&id) {
                watchlist.push(id);
            }
        }
        let mut truncated = false;
        while ids.next_element::<IgnoredAny>()?.is_some() {
            truncated = true;
        }
        Ok((watchlist, truncated))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(channel_data: &str) -> Result<(String, Option<String>), String> {
        match PresenceMember::parse(channel_data, 40) {
            Ok(member) => Ok((member.user_id.to_string(), member.user_info.map(String::from))),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn ids_are_strings_whatever_was_signed() {
        for (id, text) in [
            (r#""10""#, "10"),
            ("10", "10"),
            ("-5", "-5"),
            ("-0", "0"),
            ("10.0", "10"),
            ("1.5", "1.5"),
            ("1e3", "1000"),
            ("9007199254740993", "9007199254740993"),
            ("18446744073709551616", "18446744073709551616"),
            (r#""Zo\u00eb""#, "Zoë"),
        ] {
            assert_eq!(
                member(&format!(r#"{{"user_id":{id}}}"#)),
                Ok((text.to_owned(), None)),
                "{id}"
            );
        }
    }

    #[test]
    fn info_is_kept_as_it_was_written() {
        let info = r#"{ "name" : "Mr. X", "n": 1.0 }"#;
        assert_eq!(
            member(&format!(r#"{{"user_info":{info},"user_id":"10","more":[]}}"#)),
            Ok(("10".to_owned(), Some(info.to_owned())))
        );
        assert_eq!(
            member(r#"{"user_id":"1","user_info":null}"#),
            Ok(("1".to_owned(), None))
        );
    }

    #[test]
    fn broken_channel_data_is_refused_with_a_reason() {
        let id = "Invalid user_id: it must be a string or a number of 1 to 128 characters";
        let json = "Invalid JSON in channel_data: it must be an object with a user_id";
        let info =
            "user_info supplied to presence subscription is invalid - if supplied it must be a type of hash";
        let long = format!(r#"{{"user_id":"{}"}}"#, "a".repeat(129));
        let cases = [
            ("", json),
            ("[]", json),
            (r#"["10",{}]"#, json),
            (r#"{"user_id":"1","user_id":"2"}"#, json),
            ("{}", "Missing parameter: channel_data.user_id"),
            (r#"{"user_id":null}"#, "Missing parameter: channel_data.user_id"),
            (r#"{"user_id":""}"#, id),
            (r#"{"user_id":true}"#, id),
            (r#"{"user_id":{}}"#, id),
            (r#"{"user_id":1e999}"#, id),
            (r#"{"user_id":1e200}"#, id),
            (r#"{"user_id":"\ud800"}"#, id),
            (long.as_str(), id),
            (r#"{"user_id":1,"user_info":"x"}"#, info),
            (r#"{"user_id":1,"user_info":[]}"#, info),
            (r#"{"user_id":1,"user_info":{"a":"\ud800"}}"#, info),
            (
                r#"{"user_id":1,"user_info":{"a":"12345678901234567890123456789012345678901234567890"}}"#,
                "user_info supplied to presence subscription is too large (at most 40 bytes)",
            ),
        ];
        for (text, reason) in cases {
            assert_eq!(member(text), Err(reason.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_user_signs_in_with_info_and_watchlist() {
        let user = SignedInUser::parse(
            r#"{"id":"u1","name":"ignored","user_info":{"n":1},"watchlist":["a","b","a",7]}"#,
        )
        .unwrap();
        assert_eq!(user.id.as_str(), "u1");
        assert_eq!(user.user_info.as_deref(), Some(r#"{"n":1}"#));
        assert_eq!(
            user.watchlist.iter().map(UserId::as_str).collect::<Vec<_>>(),
            ["a", "b", "7"]
        );
        assert!(!user.watchlist_truncated);
        let member = user.to_presence_member(10).unwrap();
        assert_eq!(
            (member.user_id.as_str(), member.user_info.as_deref()),
            ("u1", Some(r#"{"n":1}"#))
        );
        assert_eq!(user.to_presence_member(6), Err(BadPresence::UserInfoTooLarge(6)));
    }

    #[test]
    fn a_long_watchlist_is_cut_not_refused() {
        for (given, kept, truncated) in [
            (0, 0, false),
            (100, 100, false),
            (101, 100, true),
            (5_000, 100, true),
        ] {
            let ids: Vec<String> = (0..given).map(|n| format!("\"{n}\"")).collect();
            let user =
                SignedInUser::parse(&format!(r#"{{"id":"u","watchlist":[{}]}}"#, ids.join(","))).unwrap();
            assert_eq!(
                (user.watchlist.len(), user.watchlist_truncated),
                (kept, truncated),
                "{given}"
            );
        }
    }

    #[test]
    fn broken_user_data_is_refused_with_a_reason() {
        use BadUserData::*;
        for (text, reason) in [
            ("x", InvalidJson),
            (r#"["u"]"#, InvalidJson),
            ("{}", MissingId),
            (r#"{"id":7}"#, InvalidId),
            (r#"{"id":""}"#, InvalidId),
            (r#"{"id":"a b"}"#, InvalidId),
            (r#"{"id":"u","user_info":[]}"#, InvalidUserInfo),
            (r#"{"id":"u","watchlist":{}}"#, InvalidWatchlist),
            (r#"{"id":"u","watchlist":"a"}"#, InvalidWatchlist),
            (r#"{"id":"u","watchlist":[""]}"#, InvalidWatchlist),
            (r#"{"id":"u","watchlist":[null]}"#, InvalidWatchlist),
        ] {
            assert_eq!(SignedInUser::parse(text), Err(reason), "{text}");
        }
    }
}
