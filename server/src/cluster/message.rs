//! What nodes tell each other about a channel: a place in its order, and what happened there.

use std::borrow::Cow;
use std::sync::Arc;

use dunlin_protocol::names::{SocketId, UserId};
use dunlin_protocol::position::Position;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::broker::{Origin, Publication};

/// One message of a channel's topic, as the scripts write it: `SERIAL EPOCH BODY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The serial is 0 when Redis has no state of the channel: then it has forgotten it.
    pub(super) position: Position,
    pub(super) body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// `eJSON`
    Event(Arc<Event>),
    /// `+LENGTH:USER INFO`: the user, then a JSON object.
    Added { user_id: UserId, user_info: Box<str> },
    /// `-USER`
    Removed { user_id: UserId },
    /// `#NUMBER`: of a channel's connections, or of a user's.
    Count(u32),
}

/// A publication on its way between nodes, in a history, or remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) name: Arc<str>,
    /// The data as the JSON string literal that was published.
    pub(super) data_literal: Arc<str>,
    pub(super) user_id: Option<UserId>,
    pub(super) except: Option<SocketId>,
    /// Whether a cache channel remembers it.
    pub(super) is_remembered: bool,
}

impl Message {
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(payload).ok()?;
        let (serial, rest) = text.split_once(' ')?;
        let (epoch, body) = rest.split_once(' ')?;
        let position = Position {
            epoch: epoch.parse().ok()?,
            serial: serial.parse().ok()?,
        };
        let mut letters = body.chars();
        let letter = letters.next()?;
        let rest = letters.as_str();
        let body = match letter {
            'e' => Body::Event(Arc::new(Event::parse(rest)?)),
            '+' => {
                let (length, rest) = rest.split_once(':')?;
                let (user_id, user_info) = rest.split_at_checked(length.parse().ok()?)?;
                Body::Added {
                    user_id: user_id.parse().ok()?,
                    user_info: user_info.into(),
                }
            }
            '-' => Body::Removed {
                user_id: rest.parse().ok()?,
            },
            '#' => Body::Count(rest.parse().ok()?),
            _ => return None,
        };
        Some(Self { position, body })
    }
}

impl Event {
    /// The JSON of a publication. Its data are not looked into.
    pub(super) fn write(publication: &Publication<'_>) -> String {
        let name = serde_json::Value::from(publication.event);
        let data = publication.data_literal;
        let mut json = String::with_capacity(data.len() + publication.event.len() + 64);
        json.push_str("{\"n\":");
        json.push_str(&name.to_string());
        if let Some(user_id) = publication.user_id {
            json.push_str(",\"u\":");
            json.push_str(&serde_json::Value::from(user_id.as_str()).to_string());
        }
        if let Some(except) = publication.except {
            json.push_str(",\"x\":\"");
            json.push_str(&except.to_string());
            json.push('"');
        }
        if is_remembered(publication) {
            json.push_str(",\"c\":true");
        }
        json.push_str(",\"d\":");
        json.push_str(data);
        json.push('}');
        json
    }

    pub(super) fn parse(json: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Json<'a> {
            #[serde(borrow)]
            n: Cow<'a, str>,
            #[serde(borrow)]
            d: &'a RawValue,
            #[serde(borrow)]
            u: Option<Cow<'a, str>>,
            #[serde(borrow)]
            x: Option<Cow<'a, str>>,
            #[serde(default)]
            c: bool,
        }
        let json: Json<'_> = serde_json::from_str(json).ok()?;
        Some(Self {
            name: json.n.as_ref().into(),
            data_literal: json.d.get().into(),
            user_id: json.u.map(|id| id.parse()).transpose().ok()?,
            except: json.x.map(|id| id.parse()).transpose().ok()?,
            is_remembered: json.c,
        })
    }
}

/// Whether a cache channel remembers this publication.
pub(super) fn is_remembered(publication: &Publication<'_>) -> bool {
    publication.origin == Origin::Api && publication.channel.kind().is_cache()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_arrives_as_it_was_published() {
        let user_id: UserId = "ü\"1".parse().unwrap();
        for (name, channel, user_id, except, origin) in [
            ("plain", "private-a", None, None, Origin::Api),
            (
                "quo\"ted\n",
                "cache-a",
                None,
                Some(SocketId::new(1, 2)),
                Origin::Api,
            ),
            (
                "client-x",
                "presence-a",
                Some(&user_id),
                Some(SocketId::new(3, 4)),
                Origin::Client,
            ),
        ] {
            let publication = Publication {
                channel: &channel.parse().unwrap(),
                event: name,
                data_literal: r#""a\u00e9 \"b\"""#,
                user_id,
                signed_in: None,
                except,
                origin,
            };
            let payload = format!("8 7 e{}", Event::write(&publication));
            let message = Message::parse(payload.as_bytes()).unwrap();
            assert_eq!(message.position, Position { epoch: 7, serial: 8 });
            let Body::Event(event) = message.body else {
                panic!("not an event")
            };
            assert_eq!(*event.name, *name);
            assert_eq!(*event.data_literal, *publication.data_literal);
            assert_eq!(event.user_id.as_ref(), user_id);
            assert_eq!(event.except, except);
            assert_eq!(event.is_remembered, channel == "cache-a");
        }
    }

    #[test]
    fn changes_are_read_and_rubbish_is_not() {
        let body = |text: &str| Message::parse(text.as_bytes()).map(|message| message.body);
        assert_eq!(body("2 1 #12"), Some(Body::Count(12)));
        let user_id: UserId = "a:b ü".parse().unwrap();
        assert_eq!(
            body("2 1 +6:a:b ü{\"x\":1}"),
            Some(Body::Added {
                user_id: user_id.clone(),
                user_info: "{\"x\":1}".into()
            })
        );
        assert_eq!(body("2 1 -a:b ü"), Some(Body::Removed { user_id }));
        for text in [
            "",
            "1",
            "1 1",
            "1 1 ",
            "x 1 #1",
            "1 1 #",
            "1 1 ?",
            "1 1 +9:a",
            "1 1 +1:ü",
            "1 1 e{}",
            "1 1 -",
        ] {
            assert_eq!(body(text), None, "{text:?}");
        }
    }
}
