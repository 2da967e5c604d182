//! What a transport calls: it brings bytes and takes them, and says when the peer is gone.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use dunlin_protocol::pusher::codes::CloseCode;
use dunlin_protocol::pusher::outgoing;

use super::Shard;
use super::connection::Phase;
use crate::presence::ConnectionRef;

/// Messages that may wait for the answer to a join. A socket is not read meanwhile; this bounds a client whose
/// messages arrive by HTTP requests.
const MAX_DEFERRED: usize = 1024;

impl Shard {
    /// Notes the task that serves the connection, and lets it write if the socket was blocked. `Ready`: the
    /// connection is over, and so is the task.
    pub fn poll_write(&mut self, at: ConnectionRef, cx: &mut Context<'_>) -> Poll<()> {
        let Some(connection) = self.connection(at) else {
            return Poll::Ready(());
        };
        if !connection.waker.will_wake(cx.waker()) {
            connection.waker.clone_from(cx.waker());
        }
        while let Some(connection) = self.connection(at) {
            if !connection.armed {
                break;
            }
            match connection.socket.poll_writable(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(_)) => self.remove(at.slot),
                Poll::Ready(Ok(())) => {
                    connection.armed = false;
                    self.flush(at.slot);
                }
            }
        }
        match self.connection(at) {
            Some(_) => Poll::Pending,
            None => Poll::Ready(()),
        }
    }

    /// Reads into `buffer`; 0 is the end of the stream.
    pub fn poll_read(
        &mut self,
        at: ConnectionRef,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let now_s = self.now_s;
        let Some(connection) = self.connection(at) else {
            return Poll::Ready(Ok(0));
        };
        let poll = connection.socket.poll_read(cx, buffer);
        if poll.is_ready() {
            connection.heard(now_s);
        }
        poll
    }

    /// Whether the connection takes messages now; it does not while one of its messages waits for an answer.
    pub fn is_listening(&mut self, at: ConnectionRef) -> bool {
        self.connection(at)
            .is_some_and(|connection| connection.deferred.is_none())
    }

    /// Whether the connection is closing, so that what it still sends is of no interest.
    pub fn is_closing(&mut self, at: ConnectionRef) -> bool {
        self.connection(at).is_none_or(|connection| !connection.is_open())
    }

    /// Takes one message.
    pub fn receive(&mut self, at: ConnectionRef, text: &str) {
        self.counters().received_messages.fetch_add(1, Relaxed);
        let Some(connection) = self.connection(at).filter(|connection| connection.is_open()) else {
            return;
        };
        match &mut connection.deferred {
            None => self.decide(at, text),
            Some(deferred) if deferred.len() < MAX_DEFERRED => deferred.push_back(text.to_owned()),
            Some(_) => self.close(
                at,
                CloseCode::OverCapacity,
                "Too many messages wait for the answer to a subscription",
            ),
        }
    }

    /// Sends a frame, behind everything that is already on its way.
    pub fn send(&mut self, at: ConnectionRef, frame: Bytes) {
        if self.connection(at).is_some() {
            self.append(at.slot, frame);
        }
    }

    /// The peer has sent its close frame, or something that ends the conversation: answers with `frame` unless ours
    /// is out already, and ends once it is written.
    pub fn peer_closed(&mut self, at: ConnectionRef, frame: Bytes) {
        let Some(connection) = self.connection(at) else {
            return;
        };
        if connection.is_open() {
            self.append(at.slot, frame);
        }
        self.end(at.slot, Phase::Closed { since_s: self.now_s });
    }

    /// Says why in a `pusher:error`, then closes. What waits for the connection is still sent.
    pub fn close(&mut self, at: ConnectionRef, code: CloseCode, message: &str) {
        match self.connection(at).map(|connection| connection.phase) {
            Some(Phase::Open { .. } | Phase::Pinged { .. }) => {}
            Some(Phase::Waiting { .. }) => return self.refuse(at, code, message),
            Some(Phase::Closing { .. } | Phase::Failing { .. } | Phase::Closed { .. }) | None => return,
        }
        self.append(at.slot, outgoing::error(Some(code.code()), message));
        self.append(at.slot, outgoing::close_frame(code.code(), message));
        self.end(at.slot, Phase::Closing { since_s: self.now_s });
    }

    /// Closes with this frame and no further word, because what the peer sends is not WebSocket or not for us.
    pub fn fail(&mut self, at: ConnectionRef, frame: Bytes) {
        if self.is_closing(at) {
            return;
        }
        self.append(at.slot, frame);
        self.end(at.slot, Phase::Failing { since_s: self.now_s });
    }

    /// Leaves every channel and goes on to a phase of parting.
    pub(super) fn end(&mut self, slot: u32, phase: Phase) {
        self.leave_everything(slot);
        if let Some(connection) = &mut self.slots[slot as usize].connection {
            connection.phase = phase;
            // Its task may have stopped reading for the sake of a message that waited.
            connection.waker.wake_by_ref();
            self.set_timer(slot);
            self.flush(slot);
        }
    }

    /// Flushes what the connection got during this poll; a transport calls it before it waits.
    pub fn flush_now(&mut self, at: ConnectionRef) {
        if self.connection(at).is_some() {
            self.flush(at.slot);
        }
    }

    /// The transport is gone.
    pub fn gone(&mut self, at: ConnectionRef) {
        if self.connection(at).is_some() {
            self.remove(at.slot);
        }
    }
}
