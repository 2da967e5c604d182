//! The names that cross every boundary, parsed once: apps, keys, channels, sockets, users, events.
//!
//! A value of these types is legal by construction. Cloning is cheap (a shared string or two integers).

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// Longest app id or key, in characters (own choice: the original service uses up to 20).
pub const MAX_APP_NAME: usize = 128;
/// Longest channel name in characters, prefix included (official server libraries; the docs say 164).
pub const MAX_CHANNEL_NAME: usize = 200;
/// Longest user id in characters (Pusher Channels docs, presence limits).
pub const MAX_USER_ID: usize = 128;
/// Longest event name in characters (Pusher Channels HTTP API docs).
pub const MAX_EVENT_NAME: usize = 200;

const SERVER_TO_USER: &str = "#server-to-user-";

/// Whether clients may send an event of this name to each other (Pusher Channels docs, client events).
pub fn is_client_event(name: &str) -> bool {
    name.starts_with("client-")
}

/// Whether the name belongs to the protocol itself: publishing it would let a customer forge system events.
pub fn is_reserved(name: &str) -> bool {
    name.starts_with("pusher")
}

/// Whether the name has a legal length: 1 to [`MAX_EVENT_NAME`] characters of any kind.
pub fn is_event_name(name: &str) -> bool {
    has_length(name, MAX_EVENT_NAME)
}

fn has_length(text: &str, most: usize) -> bool {
    // A character takes one to four bytes, so most texts need no counting.
    !text.is_empty() && (text.len() <= most || (text.len() <= most * 4 && text.chars().count() <= most))
}

const fn is_channel_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'=' | b'@' | b',' | b'.' | b';')
}

/// Everything a shared-string name can do besides being parsed.
macro_rules! name_traits {
    ($name:ident, $error:ident) => {
        impl FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                Self::parse(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = $error;

            fn try_from(text: &str) -> Result<Self, $error> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(de::Error::custom)
            }
        }
    };
}

/// Identifies an app: 1 to 128 of `A-Z a-z 0-9 _ -`.
///
/// Ids that we make are digits only, because the official Python library and the Go URL constructor accept no others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppId(Arc<str>);

/// Why a text is not an [`AppId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadAppId {
    #[error("an app id has 1 to 128 characters")]
    Length,
    #[error("an app id consists of letters, digits, '_' and '-'")]
    Character,
}

impl AppId {
    fn parse(text: &str) -> Result<Self, BadAppId> {
        if !has_length(text, MAX_APP_NAME) {
            return Err(BadAppId::Length);
        }
        if !text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        {
            return Err(BadAppId::Character);
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

name_traits!(AppId, BadAppId);

/// The public half of an app's credentials: 1 to 128 visible ASCII characters that mean nothing in a URL path or query
/// and no colon, because `KEY:SIGNATURE` is split at the first one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppKey(Arc<str>);

/// Why a text is not an [`AppKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadAppKey {
    #[error("an app key has 1 to 128 characters")]
    Length,
    #[error("an app key consists of visible ASCII characters other than : / ? # & % + \" \\")]
    Character,
}

impl AppKey {
    fn parse(text: &str) -> Result<Self, BadAppKey> {
        if !has_length(text, MAX_APP_NAME) {
            return Err(BadAppKey::Length);
        }
        if !text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b":/?#&%+\"\\".contains(&b))
        {
            return Err(BadAppKey::Character);
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

name_traits!(AppKey, BadAppKey);

/// What the prefix of a channel name makes of it (Pusher Channels docs, channel types).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChannelKind {
    /// Anybody may subscribe.
    Public,
    /// `cache-`: public, and remembers the last event.
    Cache,
    /// `private-`: needs a signature.
    Private,
    /// `private-cache-`
    PrivateCache,
    /// `private-encrypted-`: the server sees ciphertext only.
    Encrypted,
    /// `private-encrypted-cache-`
    EncryptedCache,
    /// `presence-`: knows its members.
    Presence,
    /// `presence-cache-`
    PresenceCache,
    /// `#server-to-user-`: the connections signed in as one user.
    User,
}

impl ChannelKind {
    /// The kind that a name's prefix says. The name itself is not checked.
    pub fn of(name: &str) -> Self {
        // The hyphen belongs to the prefix: `privateer` and `cache` are public names.
        if let Some(rest) = name.strip_prefix("private-") {
            if let Some(rest) = rest.strip_prefix("encrypted-") {
                if rest.starts_with("cache-") {
                    Self::EncryptedCache
                } else {
                    Self::Encrypted
                }
            } else if rest.starts_with("cache-") {
                Self::PrivateCache
            } else {
                Self::Private
            }
        } else if let Some(rest) = name.strip_prefix("presence-") {
            if rest.starts_with("cache-") {
                Self::PresenceCache
            } else {
                Self::Presence
            }
        } else if name.starts_with("cache-") {
            Self::Cache
        } else if name.starts_with(SERVER_TO_USER) {
            Self::User
        } else {
            Self::Public
        }
    }

    /// Remembers its last published event.
    pub const fn is_cache(self) -> bool {
        matches!(
            self,
            Self::Cache | Self::PrivateCache | Self::EncryptedCache | Self::PresenceCache
        )
    }

    /// Has members.
    pub const fn is_presence(self) -> bool {
        matches!(self, Self::Presence | Self::PresenceCache)
    }

    /// Carries ciphertext.
    pub const fn is_encrypted(self) -> bool {
        matches!(self, Self::Encrypted | Self::EncryptedCache)
    }

    /// Belongs to one signed-in user.
    pub const fn is_user(self) -> bool {
        matches!(self, Self::User)
    }

    /// A subscription needs `KEY:SIGNATURE`. User channels need a sign-in instead.
    pub const fn needs_auth(self) -> bool {
        !matches!(self, Self::Public | Self::Cache | Self::User)
    }

    /// Subscribers may send `client-` events: private and presence channels, but never encrypted ones, whose
    /// receivers could not decrypt them.
    pub const fn allows_client_events(self) -> bool {
        matches!(
            self,
            Self::Private | Self::PrivateCache | Self::Presence | Self::PresenceCache
        )
    }
}

/// A legal channel name together with its kind: 1 to 200 of `A-Z a-z 0-9 _ - = @ , . ;`, or `#server-to-user-` followed
/// by a user id in that alphabet. Equality, order and hash are those of the text.
#[derive(Debug, Clone)]
pub struct ChannelName {
    text: Arc<str>,
    kind: ChannelKind,
}

/// Why a text is not a [`ChannelName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadChannelName {
    #[error("a channel name has 1 to 200 characters")]
    Length,
    #[error("a channel name consists of letters, digits and _ - = @ , . ;")]
    Character,
    #[error("'#' is reserved for #server-to-user- followed by a user id")]
    Reserved,
}

impl ChannelName {
    fn parse(text: &str) -> Result<Self, BadChannelName> {
        if text.is_empty() || text.len() > MAX_CHANNEL_NAME {
            // Legal characters take one byte each, so too many bytes are too many characters or illegal ones.
            return Err(BadChannelName::Length);
        }
        if text.starts_with('#') {
            let id = text
                .strip_prefix(SERVER_TO_USER)
                .ok_or(BadChannelName::Reserved)?;
            if id.is_empty() || id.len() > MAX_USER_ID || !id.bytes().all(is_channel_byte) {
                return Err(BadChannelName::Reserved);
            }
        } else if !text.bytes().all(is_channel_byte) {
            return Err(BadChannelName::Character);
        }
        Ok(Self {
            text: text.into(),
            kind: ChannelKind::of(text),
        })
    }

    /// The channel that reaches every connection signed in as this user.
    ///
    /// # Errors
    /// When the id contains characters that channel names do not have; an id from [`UserId::for_sign_in`] never does.
    pub fn server_to_user(id: &UserId) -> Result<Self, BadChannelName> {
        Self::parse(&format!("{SERVER_TO_USER}{id}"))
    }

    /// The user behind a `#server-to-user-` channel.
    pub fn server_to_user_id(&self) -> Option<&str> {
        self.text.strip_prefix(SERVER_TO_USER)
    }

    pub fn kind(&self) -> ChannelKind {
        self.kind
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The shared text, for callers that keep it without the kind.
    pub fn to_shared(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }
}

// By text alone, so that a map keyed by `ChannelName` can be asked with a `&str`.
impl PartialEq for ChannelName {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for ChannelName {}

impl Hash for ChannelName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl PartialOrd for ChannelName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ChannelName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

name_traits!(ChannelName, BadChannelName);

/// Identifies one connection of an app on the wire as `first.second`, two decimal numbers without leading zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    first: u32,
    second: u64,
}

/// Why a text is not a [`SocketId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadSocketId {
    #[error("a socket id is two numbers joined by a dot")]
    Malformed,
    #[error("the socket id cannot be one of ours")]
    Foreign,
}

/// The text of a [`SocketId`] without an allocation.
#[derive(Clone, Copy)]
pub struct SocketIdText {
    bytes: [u8; Self::CAPACITY],
    length: usize,
}

impl SocketIdText {
    // Ten digits, a dot, twenty digits.
    const CAPACITY: usize = 31;

    pub fn as_str(&self) -> &str {
        // Always digits and a dot; the fallback exists because this crate has no unsafe code.
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl SocketId {
    pub const fn new(first: u32, second: u64) -> Self {
        Self { first, second }
    }

    pub const fn first(self) -> u32 {
        self.first
    }

    pub const fn second(self) -> u64 {
        self.second
    }

    /// Reads `^\d+\.\d+$` (the check of every official library). `Ok(None)` is a well-formed id that we can never have
    /// given out, because it does not fit our integers or has leading zeros: legal to name, equal to no connection.
    ///
    /// # Errors
    /// When the text does not have that form.
    pub fn parse(text: &str) -> Result<Option<Self>, BadSocketId> {
        fn is_number(text: &str) -> bool {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
        }
        fn is_padded(text: &str) -> bool {
            text.len() > 1 && text.starts_with('0')
        }
        let (first, second) = text.split_once('.').ok_or(BadSocketId::Malformed)?;
        if !is_number(first) || !is_number(second) {
            return Err(BadSocketId::Malformed);
        }
        if is_padded(first) || is_padded(second) {
            return Ok(None);
        }
        Ok(first
            .parse()
            .ok()
            .zip(second.parse().ok())
            .map(|(first, second)| Self { first, second }))
    }

    /// The text form, on the stack.
    pub fn to_text(self) -> SocketIdText {
        let mut digits = itoa::Buffer::new();
        let mut text = SocketIdText {
            bytes: [0; SocketIdText::CAPACITY],
            length: 0,
        };
        let mut append = |part: &[u8]| {
            text.bytes[text.length..text.length + part.len()].copy_from_slice(part);
            text.length += part.len();
        };
        append(digits.format(self.first).as_bytes());
        append(b".");
        append(digits.format(self.second).as_bytes());
        text
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.to_text().as_str())
    }
}

impl FromStr for SocketId {
    type Err = BadSocketId;

    fn from_str(text: &str) -> Result<Self, BadSocketId> {
        Self::parse(text)?.ok_or(BadSocketId::Foreign)
    }
}

impl TryFrom<&str> for SocketId {
    type Error = BadSocketId;

    fn try_from(text: &str) -> Result<Self, BadSocketId> {
        text.parse()
    }
}

impl Serialize for SocketId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.to_text().as_str())
    }
}

impl<'de> Deserialize<'de> for SocketId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A customer's user: 1 to 128 characters of any kind. Numbers have been turned into their text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Arc<str>);

/// Why a text is not a [`UserId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadUserId {
    #[error("a user id has 1 to 128 characters")]
    Length,
    #[error("the id of a user who signs in consists of letters, digits and _ - = @ , . ;")]
    Character,
}

impl UserId {
    fn parse(text: &str) -> Result<Self, BadUserId> {
        if !has_length(text, MAX_USER_ID) {
            return Err(BadUserId::Length);
        }
        Ok(Self(text.into()))
    }

    /// An id that can sign in: in the alphabet of channel names, so that `#server-to-user-ID` is one.
    ///
    /// # Errors
    /// When the length or a character is illegal.
    pub fn for_sign_in(text: &str) -> Result<Self, BadUserId> {
        let id = Self::parse(text)?;
        if !text.bytes().all(is_channel_byte) {
            return Err(BadUserId::Character);
        }
        Ok(id)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

name_traits!(UserId, BadUserId);

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn the_kind_follows_anchored_prefixes_with_their_hyphen() {
        use ChannelKind::*;
        let cases = [
            ("news", Public),
            ("cache-news", Cache),
            ("cache", Public),
            ("cachenews", Public),
            ("private-a", Private),
            ("private", Public),
            ("privateer", Public),
            ("private-", Private),
            ("private-cache-a", PrivateCache),
            ("private-cache", Private),
            ("private-encrypted-a", Encrypted),
            ("private-encrypted", Private),
            ("private-encryptedx", Private),
            ("private--encrypted-x", Private),
            ("private-encrypted-cache-a", EncryptedCache),
            ("private-encrypted-cache", Encrypted),
            ("presence-a", Presence),
            ("presence-cache-a", PresenceCache),
            ("presence-encrypted-a", Presence),
            ("my-private-a", Public),
            ("Private-a", Public),
            ("#server-to-user-7", User),
        ];
        for (name, kind) in cases {
            assert_eq!(ChannelName::try_from(name).unwrap().kind(), kind, "{name}");
        }
    }

    #[test]
    fn each_kind_has_its_rights() {
        use ChannelKind::*;
        // kind, cache, presence, encrypted, user, auth, client events
        let table = [
            (Public, [false, false, false, false, false, false]),
            (Cache, [true, false, false, false, false, false]),
            (Private, [false, false, false, false, true, true]),
            (PrivateCache, [true, false, false, false, true, true]),
            (Encrypted, [false, false, true, false, true, false]),
            (EncryptedCache, [true, false, true, false, true, false]),
            (Presence, [false, true, false, false, true, true]),
            (PresenceCache, [true, true, false, false, true, true]),
            (User, [false, false, false, true, false, false]),
        ];
        for (kind, rights) in table {
            let actual = [
                kind.is_cache(),
                kind.is_presence(),
                kind.is_encrypted(),
                kind.is_user(),
                kind.needs_auth(),
                kind.allows_client_events(),
            ];
            assert_eq!(actual, rights, "{kind:?}");
        }
    }

    #[test]
    fn illegal_channel_names_are_refused_with_their_reason() {
        use BadChannelName::*;
        let long = "a".repeat(201);
        let long_user = format!("#server-to-user-{}", "a".repeat(129));
        let cases = [
            ("", Length),
            (long.as_str(), Length),
            ("foo\n", Character),
            ("foo bar", Character),
            ("foo:bar", Character),
            ("foo#bar", Character),
            ("foo/bar", Character),
            ("é", Character),
            ("a\0", Character),
            ("#", Reserved),
            ("#foo", Reserved),
            ("#server-to-user", Reserved),
            ("#server-to-user-", Reserved),
            ("#server-to-user-a b", Reserved),
            ("#server-to-user-#server-to-user-a", Reserved),
            (long_user.as_str(), Reserved),
        ];
        for (name, reason) in cases {
            assert_eq!(ChannelName::try_from(name).unwrap_err(), reason, "{name}");
        }
        ChannelName::try_from("a".repeat(200).as_str()).unwrap();
        ChannelName::try_from("azAZ09_-=@,.;").unwrap();
    }

    #[test]
    fn a_user_channel_leads_to_its_user_and_back() {
        let id = UserId::for_sign_in("u-1@x").unwrap();
        let channel = ChannelName::server_to_user(&id).unwrap();
        assert_eq!(channel.as_str(), "#server-to-user-u-1@x");
        assert_eq!(channel.server_to_user_id(), Some("u-1@x"));
        assert!(channel.kind().is_user());
        let unfit = UserId::try_from("Zoë").unwrap();
        assert_eq!(ChannelName::server_to_user(&unfit), Err(BadChannelName::Reserved));
        assert_eq!(ChannelName::try_from("u-1").unwrap().server_to_user_id(), None);
    }

    #[test]
    fn a_map_of_names_can_be_asked_with_text() {
        let map = HashMap::from([(ChannelName::try_from("presence-a").unwrap(), 1)]);
        assert_eq!(map.get("presence-a"), Some(&1));
        assert_eq!(map.get("presence-b"), None);
    }

    #[test]
    fn socket_ids_are_ours_foreign_or_malformed() {
        let ours = |first, second| Ok(Some(SocketId::new(first, second)));
        let cases = [
            ("1.2", ours(1, 2)),
            ("0.0", ours(0, 0)),
            ("131160.155806628", ours(131_160, 155_806_628)),
            ("4294967295.18446744073709551615", ours(u32::MAX, u64::MAX)),
            ("4294967296.1", Ok(None)),
            ("1.18446744073709551616", Ok(None)),
            ("99999999999999999999999999.1", Ok(None)),
            ("01.2", Ok(None)),
            ("1.02", Ok(None)),
            ("", Err(BadSocketId::Malformed)),
            (".", Err(BadSocketId::Malformed)),
            ("1", Err(BadSocketId::Malformed)),
            ("1.", Err(BadSocketId::Malformed)),
            (".1", Err(BadSocketId::Malformed)),
            ("1.2.3", Err(BadSocketId::Malformed)),
            ("+1.2", Err(BadSocketId::Malformed)),
            ("1.-2", Err(BadSocketId::Malformed)),
            ("1.2\n", Err(BadSocketId::Malformed)),
            (" 1.2", Err(BadSocketId::Malformed)),
            ("١.٢", Err(BadSocketId::Malformed)),
        ];
        for (text, expected) in cases {
            assert_eq!(SocketId::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn the_longest_socket_id_prints_whole() {
        assert_eq!(
            SocketId::new(u32::MAX, u64::MAX).to_string(),
            "4294967295.18446744073709551615"
        );
        assert_eq!(SocketId::new(0, 7).to_text().as_str(), "0.7");
    }

    #[test]
    fn user_ids_count_characters_not_bytes() {
        UserId::try_from("é".repeat(128).as_str()).unwrap();
        UserId::try_from("🦜".repeat(128).as_str()).unwrap();
        for bad in [String::new(), "é".repeat(129), "a".repeat(129), "🦜".repeat(129)] {
            assert_eq!(UserId::try_from(bad.as_str()), Err(BadUserId::Length), "{bad}");
        }
        assert_eq!(UserId::for_sign_in("é"), Err(BadUserId::Character));
        assert_eq!(UserId::for_sign_in(""), Err(BadUserId::Length));
        assert_eq!(UserId::for_sign_in("a;b").unwrap().as_str(), "a;b");
    }

    #[test]
    fn app_names_refuse_what_a_url_could_not_carry() {
        for id in ["1", "app-id", "A_9"] {
            assert_eq!(AppId::try_from(id).unwrap().as_str(), id);
        }
        for id in ["", "a b", "a/b", "é", "a.b"] {
            AppId::try_from(id).unwrap_err();
        }
        for key in ["278d425bdf160c739803", "app-key", "k=~."] {
            assert_eq!(AppKey::try_from(key).unwrap().as_str(), key);
        }
        for key in ["", "a:b", "a/b", "a b", "a?b", "a&b", "a%b", "é", "\u{7f}"] {
            AppKey::try_from(key).unwrap_err();
        }
        AppId::try_from("1".repeat(129).as_str()).unwrap_err();
        AppKey::try_from("1".repeat(129).as_str()).unwrap_err();
    }

    #[test]
    fn serde_goes_through_the_parsers() {
        fn refuses<T: serde::de::DeserializeOwned>(json: &str) -> bool {
            serde_json::from_str::<T>(json).is_err()
        }
        assert!(refuses::<ChannelName>(r#""a b""#));
        assert!(refuses::<AppId>(r#""""#));
        assert!(refuses::<SocketId>(r#""1""#));
        assert!(refuses::<SocketId>(r#""99999999999.1""#));
        assert!(refuses::<UserId>("7"));
        let name: ChannelName = serde_json::from_str(r#""presence-\u0061""#).unwrap();
        assert!(name.kind().is_presence());
        assert_eq!(serde_json::to_string(&name).unwrap(), r#""presence-a""#);
        assert_eq!(serde_json::to_string(&SocketId::new(1, 2)).unwrap(), r#""1.2""#);
    }

    #[test]
    fn event_names_are_told_apart_by_prefix_and_length() {
        assert!(is_client_event("client-x") && !is_client_event("client") && !is_client_event("my-client-x"));
        assert!(is_reserved("pusher:x") && is_reserved("pusher_internal:x") && is_reserved("pushery"));
        assert!(!is_reserved("my-pusher"));
        assert!(is_event_name(&"é".repeat(200)) && !is_event_name(&"é".repeat(201)) && !is_event_name(""));
    }
}
