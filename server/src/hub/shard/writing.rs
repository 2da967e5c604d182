//! From the outboxes to the sockets.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use dunlin_protocol::pusher::codes::CloseCode;

use super::Shard;
use super::connection::Phase;
use crate::hub::outbox::Flushed;
use crate::hub::socket::Socket;

/// What a connection that was too slow gets beyond the usual linger, so that a client which was merely suspended
/// learns why it was cut. It costs us one frame.
const CUT_LINGER_S: u32 = 30;

impl Shard {
    /// Puts a frame into the outbox and the connection into the queue of those to flush.
    pub(super) fn append(&mut self, slot: u32, frame: Bytes) {
        let Some(connection) = &mut self.slots[slot as usize].connection else {
            return;
        };
        connection.outbox.push(frame);
        if connection.outbox.bytes() > self.bounds.outbox_bytes && connection.is_open() {
            self.overflowed.push(slot);
        }
        if !connection.dirty && !connection.armed {
            connection.dirty = true;
            self.dirty.push_back(slot);
        }
    }

    pub(super) fn flush(&mut self, slot: u32) {
        let Some(connection) = &mut self.slots[slot as usize].connection else {
            return;
        };
        if connection.armed || connection.outbox.is_empty() {
            self.end_if_done(slot);
            return;
        }
        let mut written = 0;
        let flushed = connection.outbox.flush(
            &mut connection.socket,
            &connection.waker,
            &mut self.scratch,
            &mut written,
        );
        let counters = self.hub.counters(self.worker);
        counters.writes.fetch_add(1, Relaxed);
        counters.written_bytes.fetch_add(written, Relaxed);
        match flushed {
            Ok(Flushed::All) => self.end_if_done(slot),
            Ok(Flushed::Blocked) => {
                connection.armed = true;
                connection.accepted_s = self.now_s;
                connection.waker.wake_by_ref();
                self.set_timer(slot);
            }
            Err(_) => self.remove(slot),
        }
    }

    /// With the last byte of a connection that is parting, the rest of the parting.
    pub(super) fn end_if_done(&mut self, slot: u32) {
        let Some(connection) = &mut self.slots[slot as usize].connection else {
            return;
        };
        if connection.armed || !connection.outbox.is_empty() {
            return;
        }
        match connection.phase {
            Phase::Waiting { .. } | Phase::Open { .. } | Phase::Pinged { .. } => {}
            Phase::Closing { .. } if !matches!(connection.socket, Socket::Pipe(_)) => {}
            Phase::Closing { .. } | Phase::Failing { .. } => connection.socket.end(&connection.waker),
            Phase::Closed { .. } => self.remove(slot),
        }
    }

    /// Closes a connection that cannot keep up. What it missed is not sent any more, only why.
    pub(super) fn cut(&mut self, slot: u32) {
        let Some(connection) = &mut self.slots[slot as usize].connection else {
            return;
        };
        if !connection.is_open() {
            return;
        }
        connection.outbox.keep_only_the_torn_piece();
        self.counters().closed_slow.fetch_add(1, Relaxed);
        let at = self.reference(slot);
        self.close(
            at,
            CloseCode::OverCapacity,
            "Too slow: more is waiting for this connection than may wait",
        );
        let since_s = self.now_s + CUT_LINGER_S;
        if let Some(connection) = self.connection(at) {
            connection.phase = Phase::Closing { since_s };
        }
    }
}
