//! What a new subscriber gets of its channel's past.

use bytes::{Bytes, BytesMut};
use dunlin_protocol::names::UserId;
use dunlin_protocol::position::Position;
use dunlin_protocol::pusher::outgoing;

use super::Shard;
use crate::presence::Recovery;

impl Shard {
    /// Puts the past events into the outbox, or, if they are more than may wait for the connection, that they are not
    /// to be had: cut off for its slowness, the client would come back and ask for the same again.
    pub(super) fn recover(&mut self, slot: u32, name: &str, recovery: &Recovery) {
        let frames = encode(name, recovery);
        if frames.len() > self.room(slot) {
            // What the socket takes now makes room. If it is broken, so is the connection, and nothing is appended.
            self.flush(slot);
        }
        if frames.len() <= self.room(slot) {
            self.append(slot, frames);
        } else {
            let lost = outgoing::recovered(name, recovery.position, Some(false));
            self.append(slot, lost);
        }
    }

    /// How much more may wait for the connection.
    fn room(&self, slot: u32) -> usize {
        self.slots[slot as usize]
            .connection
            .as_ref()
            .map_or(0, |connection| {
                self.bounds.outbox_bytes.saturating_sub(connection.outbox.bytes())
            })
    }
}

/// Where the subscriber stands, then the past events, each with its place as a live one has it: a connection that ends
/// in their midst has lost nothing.
fn encode(name: &str, recovery: &Recovery) -> Bytes {
    let before_first = recovery.position.zip(recovery.events.first());
    let start = match before_first {
        Some((position, first)) => Some(Position {
            serial: first.serial - 1,
            ..position
        }),
        None => recovery.position,
    };
    let opening = outgoing::recovered(name, start, recovery.is_complete);
    let Some(Position { epoch, .. }) = recovery.position.filter(|_| !recovery.events.is_empty()) else {
        return opening;
    };
    let mut frames = BytesMut::from(&opening[..]);
    for event in &recovery.events {
        let position = Position {
            epoch,
            serial: event.serial,
        };
        let user_id = event.user_id.as_ref().map(UserId::as_str);
        frames.extend_from_slice(&outgoing::event_at(
            position,
            name,
            &event.name,
            &event.data_literal,
            user_id,
        ));
    }
    frames.freeze()
}
