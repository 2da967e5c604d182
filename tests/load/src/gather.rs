//! Brings a crowd of clients to their seats: connected and, if wanted, subscribed.

use anyhow::{Context, Result, bail};

use crate::histogram::Histogram;
use crate::payload::{after, position};
use crate::target::Target;
use crate::wire::{Dialect, End, Id, News, Scene, Wire};

/// Connects under way at the same time: enough to keep the server busy, few enough for any listen queue.
const IN_FLIGHT: usize = 200;
/// Without any progress for this long the server is taken for stuck.
const PATIENCE_NS: u64 = 10_000_000_000;
const NOBODY: usize = usize::MAX;

/// Where a client belongs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seat {
    /// Index into the nodes of the target.
    pub(crate) node: usize,
    /// Subscribed to before the client counts as seated; `None` leaves it connected only.
    pub(crate) channel: Option<String>,
    /// Size of the kernel's receive buffer, the system's choice when left out.
    pub(crate) receive_buffer: Option<usize>,
}

/// So many seats, dealt out over the nodes, with a channel for each place.
pub(crate) fn seats(target: &Target, seats: u32, channel: impl Fn(usize) -> String) -> Vec<Seat> {
    (0..seats as usize)
        .map(|place| Seat {
            node: place % target.nodes.len(),
            channel: Some(channel(place)),
            receive_buffer: None,
        })
        .collect()
}

/// The seated crowd, in the order of the seats.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    pub(crate) ids: Vec<Id>,
    pub(crate) socket_ids: Vec<String>,
    /// From the start of the connect until seated.
    pub(crate) latency: Histogram,
}

impl Crowd {
    /// Table from a connection to its place in the crowd.
    pub(crate) fn places(&self) -> Places {
        let mut places = Places::default();
        for (place, id) in self.ids.iter().enumerate() {
            places.set(*id, place);
        }
        places
    }
}

/// A sparse table from connections to places.
#[derive(Debug, Default)]
pub(crate) struct Places(Vec<usize>);

impl Places {
    pub(crate) fn set(&mut self, id: Id, place: usize) {
        if self.0.len() <= id {
            self.0.resize(id + 1, NOBODY);
        }
        self.0[id] = place;
    }

    pub(crate) fn clear(&mut self, id: Id) {
        if let Some(place) = self.0.get_mut(id) {
            *place = NOBODY;
        }
    }

    pub(crate) fn get(&self, id: Id) -> Option<usize> {
        self.0.get(id).copied().filter(|place| *place != NOBODY)
    }
}

/// How far a message brought a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The handshake message, with the socket id.
    Established(String),
    Subscribed,
    Other,
}

/// Reads a message of a client that is on its way to its seat.
///
/// # Errors
/// The server refused: the error carries its words.
pub(crate) fn step(message: &[u8]) -> Result<Step> {
    if position(message, b"subscription_succeeded").is_some() {
        return Ok(Step::Subscribed);
    }
    if position(message, b"pusher:connection_established").is_some() {
        let rest = after(message, b"socket_id").context("a handshake without socket_id")?;
        let start = rest.iter().position(u8::is_ascii_digit).unwrap_or(rest.len());
        let id: String = rest[start..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit() || **byte == b'.')
            .map(|byte| char::from(*byte))
            .collect();
        return Ok(Step::Established(id));
    }
    if position(message, b"pusher:error").is_some() || position(message, b"subscription_error").is_some() {
        bail!(
            "the server refused a client: {}",
            String::from_utf8_lossy(message)
        );
    }
    Ok(Step::Other)
}

/// Sends the subscription to `channel`, signed when its kind asks for it.
pub(crate) fn subscribe(
    wire: &mut Wire,
    target: &Target,
    id: Id,
    socket_id: &str,
    channel: &str,
    channel_data: Option<&str>,
) -> Result<()> {
    let mut data = serde_json::json!({ "channel": channel });
    if channel.starts_with("private-") || channel.starts_with("presence-") {
        data["auth"] = target.channel_auth(socket_id, channel, channel_data).into();
    }
    if let Some(text) = channel_data {
        data["channel_data"] = text.into();
    }
    let frame = serde_json::json!({ "event": "pusher:subscribe", "data": data });
    wire.send_text(id, frame.to_string().as_bytes())
}

struct Gathering<'a> {
    target: &'a Target,
    seats: &'a [Seat],
    places: Places,
    began: Vec<u64>,
    seated: usize,
    crowd: Crowd,
    last_progress: u64,
}

impl Scene for Gathering<'_> {
    fn on(&mut self, wire: &mut Wire, id: Id, news: News<'_>) -> Result<()> {
        let Some(place) = self.places.get(id) else {
            return Ok(());
        };
        match news {
            News::Message(message) => match step(message)? {
                Step::Established(socket_id) => {
                    match &self.seats[place].channel {
                        Some(channel) => subscribe(wire, self.target, id, &socket_id, channel, None)?,
                        None => self.seat(wire, place),
                    }
                    self.crowd.socket_ids[place] = socket_id;
                }
                Step::Subscribed => self.seat(wire, place),
                Step::Other => {}
            },
            News::Ended(end) => return Err(left_early(end)),
            News::Opened | News::Answer { .. } | News::Request(_) => {}
        }
        Ok(())
    }
}

/// A connection that should have stayed has ended.
pub(crate) fn left_early(end: End) -> anyhow::Error {
    anyhow::anyhow!("the server dropped a client that should have stayed ({end})")
}

impl Gathering<'_> {
    fn seat(&mut self, wire: &Wire, place: usize) {
        self.seated += 1;
        self.last_progress = wire.now();
        self.crowd.latency.record(wire.now() - self.began[place]);
    }
}

/// Brings one client to each seat.
///
/// # Errors
/// The server refuses or drops a client, or nothing moves for ten seconds.
pub(crate) fn gather(wire: &mut Wire, target: &Target, seats: &[Seat]) -> Result<Crowd> {
    let mut scene = Gathering {
        target,
        seats,
        places: Places::default(),
        began: Vec::with_capacity(seats.len()),
        seated: 0,
        crowd: Crowd {
            socket_ids: vec![String::new(); seats.len()],
            ..Crowd::default()
        },
        last_progress: wire.tick(),
    };
    while scene.seated < seats.len() {
        while scene.began.len() < seats.len() && scene.began.len() < scene.seated + IN_FLIGHT {
            let place = scene.began.len();
            let seat = &seats[place];
            let addr = target.nodes[seat.node].addr;
            scene.began.push(wire.tick());
            let id = wire.connect(addr, Dialect::pusher(&target.app_key), seat.receive_buffer)?;
            scene.places.set(id, place);
            scene.crowd.ids.push(id);
        }
        wire.turn(&mut scene, wire.now() + PATIENCE_NS)?;
        if wire.now() > scene.last_progress + PATIENCE_NS {
            bail!(
                "{} of {} clients were seated, then nothing happened for ten seconds",
                scene.seated,
                seats.len()
            );
        }
    }
    Ok(scene.crowd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_on_the_way_to_a_seat_are_told_apart() {
        let established = br#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"123.456\",\"activity_timeout\":120}"}"#;
        assert_eq!(step(established).unwrap(), Step::Established("123.456".into()));
        let spaced = br#"{"event": "pusher:connection_established", "data": "{\"socket_id\": \"9.8\"}"}"#;
        assert_eq!(step(spaced).unwrap(), Step::Established("9.8".into()));
        let subscribed = br#"{"event":"pusher_internal:subscription_succeeded","channel":"a","data":"{}"}"#;
        assert_eq!(step(subscribed).unwrap(), Step::Subscribed);
        let count = br#"{"event":"pusher_internal:subscription_count","channel":"a","data":"{}"}"#;
        assert_eq!(step(count).unwrap(), Step::Other);
        let error =
            br#"{"event":"pusher:error","data":{"code":4001,"message":"Application does not exist"}}"#;
        assert!(
            step(error)
                .unwrap_err()
                .to_string()
                .contains("Application does not exist")
        );
    }

    #[test]
    fn places_forget_what_is_cleared() {
        let mut places = Places::default();
        places.set(3, 7);
        assert_eq!(
            (places.get(3), places.get(0), places.get(99)),
            (Some(7), None, None)
        );
        places.clear(3);
        assert_eq!(places.get(3), None);
    }
}
