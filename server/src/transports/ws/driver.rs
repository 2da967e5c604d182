//! The task of one WebSocket connection: reads, and writes when the socket was blocked.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use dunlin_protocol::pusher::outgoing;

use super::frames::{FrameReader, Incoming, Violation};
use crate::hub::shard::Shard;
use crate::presence::ConnectionRef;
use crate::transports::Worker;

/// Room for one read. Shared by the worker's connections, so it may be generous.
const READ_BYTES: usize = 64 * 1024;
/// Room for a read into a connection's own buffer, which exists while a message is incomplete.
const OWN_READ_BYTES: usize = 4 * 1024;
/// Reads in one go; then it is the others' turn.
const READS_PER_POLL: usize = 2;
/// An answer to a ping carries its payload, at most this much (RFC 6455 §5.5).
const PONG: u8 = 0x8a;

struct Driver {
    worker: Rc<Worker>,
    at: ConnectionRef,
    frames: FrameReader,
    /// The beginning of a message; empty between messages.
    partial: BytesMut,
    /// The peer broke the protocol: what comes is thrown away.
    is_deaf: bool,
}

/// Serves the connection until it is over. `early` was read together with the upgrade request.
pub fn start(worker: Rc<Worker>, at: ConnectionRef, early: &[u8]) {
    let frames = FrameReader::new(worker.section.max_message_bytes, worker.section.max_fragments);
    let mut driver = Driver {
        worker,
        at,
        frames,
        partial: BytesMut::from(early),
        is_deaf: false,
    };
    tokio::task::spawn_local(poll_fn(move |cx| driver.poll(cx)));
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let worker = Rc::clone(&self.worker);
        let mut shard = worker.shard.borrow_mut();
        if shard.poll_write(self.at, cx).is_ready() {
            return Poll::Ready(());
        }
        let mut shared = worker.read_buffer.borrow_mut();
        let mut reads = 0;
        loop {
            if !self.partial.is_empty() {
                let mut partial = std::mem::take(&mut self.partial);
                self.take_messages(&mut shard, &mut partial);
                if !partial.is_empty() {
                    self.partial = partial;
                }
            }
            if !shard.is_listening(self.at) {
                break;
            }
            if reads == READS_PER_POLL {
                cx.waker().wake_by_ref();
                break;
            }
            reads += 1;
            let own = !self.partial.is_empty();
            let buffer = if own { &mut self.partial } else { &mut *shared };
            buffer.reserve(if own { OWN_READ_BYTES } else { READ_BYTES });
            match shard.poll_read(self.at, cx, buffer) {
                Poll::Pending => break,
                Poll::Ready(Ok(0) | Err(_)) => {
                    shard.gone(self.at);
                    return Poll::Ready(());
                }
                Poll::Ready(Ok(_)) if own => {}
                Poll::Ready(Ok(_)) => {
                    self.take_messages(&mut shard, &mut shared);
                    if !shared.is_empty() {
                        self.partial = BytesMut::from(&shared[..]);
                        shared.clear();
                    }
                }
            }
        }
        shard.flush_now(self.at);
        // The last byte of a parting connection may have gone with this flush.
        shard.poll_write(self.at, cx)
    }

    /// Takes whole messages off the front of `bytes`, as long as the connection listens.
    fn take_messages(&mut self, shard: &mut Shard, bytes: &mut BytesMut) {
        while !self.is_deaf && shard.is_listening(self.at) {
            match self.frames.next(bytes) {
                Ok(None) => break,
                Ok(Some(message)) => self.take(shard, message),
                Err(violation) => self.fail(shard, violation),
            }
        }
        if self.is_deaf {
            bytes.clear();
        }
    }

    fn take(&mut self, shard: &mut Shard, message: Incoming) {
        match message {
            Incoming::Text(text) => shard.receive(self.at, &text),
            Incoming::Pong => {}
            Incoming::Ping(payload) => {
                if !shard.is_closing(self.at) {
                    let mut pong = BytesMut::with_capacity(2 + payload.len());
                    // The codec lets no control frame of more than 125 bytes through.
                    pong.extend_from_slice(&[PONG, u8::try_from(payload.len()).unwrap_or(0)]);
                    pong.extend_from_slice(&payload);
                    shard.send(self.at, pong.freeze());
                }
            }
            Incoming::Binary(_) => {
                self.fail(
                    shard,
                    Violation {
                        code: 1003,
                        reason: "Binary messages are not supported",
                    },
                );
            }
            Incoming::Close(code) => {
                self.is_deaf = true;
                shard.peer_closed(self.at, close_answer(code));
            }
        }
    }

    fn fail(&mut self, shard: &mut Shard, violation: Violation) {
        self.is_deaf = true;
        shard.fail(self.at, outgoing::close_frame(violation.code, violation.reason));
    }
}

/// A close frame is answered with its own code, an empty one with an empty one (RFC 6455 §5.5.1).
pub fn close_answer(code: Option<u16>) -> bytes::Bytes {
    match code {
        Some(code) => outgoing::close_frame(code, ""),
        None => bytes::Bytes::from_static(&[0x88, 0]),
    }
}
