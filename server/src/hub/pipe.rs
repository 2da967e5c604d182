//! The outgoing side of a client that fetches by HTTP requests, which arrive on any worker.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::lock::lock;

/// Frames on their way from a shard to whichever request is waiting for them.
///
/// Holds at most `window` bytes; the rest stays in the connection's outbox, where the bound and the clock for slow
/// readers are. Whoever polls [`Pipe::poll_writable`] is woken when there is room again.
#[derive(Debug)]
pub struct Pipe {
    window: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    /// The shard had more than fitted.
    blocked: bool,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    pub fn new(window: usize) -> Self {
        Self {
            window,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Takes the whole write or nothing. A write may end inside a frame: large backlogs are cut into equal pieces.
    ///
    /// # Errors
    /// `WouldBlock`: full.
    pub fn push(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.lock();
        if state.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if state.bytes >= self.window {
            state.blocked = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.bytes += bytes.len();
        state.chunks.push_back(Bytes::copy_from_slice(bytes));
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
        Ok(bytes.len())
    }

    /// The next chunk of frames; `None` once the connection is closed and everything was taken.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.lock();
        match state.chunks.pop_front() {
            Some(chunk) => {
                state.bytes -= chunk.len();
                if state.blocked {
                    state.blocked = false;
                    if let Some(writer) = state.writer.take() {
                        writer.wake();
                    }
                }
                Poll::Ready(Some(chunk))
            }
            None if state.closed => Poll::Ready(None),
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Ready while there is room.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        if state.bytes < self.window {
            return Poll::Ready(Ok(()));
        }
        state.blocked = true;
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// No more will be pushed.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }
}
