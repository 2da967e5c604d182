//! How anything reaches a shard.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dunlin_protocol::names::{SocketId, UserId};
use tokio::sync::Notify;

use crate::apps::App;
use crate::lock::lock;
use crate::presence::{ConnectionRef, JoinRefusal, Joined};
use crate::storage::keys::{AppNum, ChannelKey};

/// Something a shard has to do.
#[derive(Debug)]
pub enum Mail {
    /// A frame for those in the channel.
    Publication {
        channel: Arc<ChannelKey>,
        frame: Bytes,
        audience: Audience<SocketId>,
    },
    /// The answer to a join, at its place in the channel's order.
    Joined {
        to: ConnectionRef,
        channel: Arc<ChannelKey>,
        app: Arc<App>,
        answer: Box<Result<Joined, JoinRefusal>>,
    },
    /// A frame for one connection.
    Direct {
        to: ConnectionRef,
        frame: Bytes,
    },
    /// Messages of a client whose requests arrive on any worker.
    Received {
        from: ConnectionRef,
        messages: Vec<String>,
    },
    /// The client's transport is gone.
    Gone {
        connection: ConnectionRef,
    },
    /// Whether the connection has a place in its app's quota.
    Admitted {
        to: ConnectionRef,
        app: Arc<App>,
        granted: bool,
    },
    TerminateUser {
        app: AppNum,
        user_id: UserId,
    },
    /// Close all connections, spread over this time.
    Drain {
        seconds: u32,
    },
}

/// Who of those in a channel gets a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience<T> {
    All,
    AllBut(T),
    Only(T),
}

impl Mail {
    /// What it carries of other people's content.
    fn content_bytes(&self) -> usize {
        match self {
            Self::Publication { frame, .. } | Self::Direct { frame, .. } => frame.len(),
            Self::Received { messages, .. } => messages.iter().map(String::len).sum(),
            Self::Joined { .. }
            | Self::Admitted { .. }
            | Self::Gone { .. }
            | Self::TerminateUser { .. }
            | Self::Drain { .. } => 0,
        }
    }
}

/// One worker's queue. Bounded by the bytes of the content in it: a publisher is refused, never blocked. Everything
/// else in it is bounded by the connections that cause it.
#[derive(Debug)]
pub struct Mailbox {
    queue: Mutex<Vec<Mail>>,
    bytes: AtomicUsize,
    max_bytes: usize,
    filled: Notify,
}

/// A queue that was larger than this once is given back, not kept.
const KEPT_CAPACITY: usize = 4096;

impl Mailbox {
    pub fn new(max_bytes: usize) -> Self {
        Self {
            queue: Mutex::default(),
            bytes: AtomicUsize::new(0),
            max_bytes,
            filled: Notify::new(),
        }
    }

    /// Wakes the shard only if the mailbox was empty: at most one wake for any number of messages.
    pub fn push(&self, mail: Mail) {
        let bytes = mail.content_bytes();
        let mut queue = lock(&self.queue);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let was_empty = queue.is_empty();
        queue.push(mail);
        drop(queue);
        if was_empty {
            self.filled.notify_one();
        }
    }

    pub fn is_full(&self) -> bool {
        self.bytes() >= self.max_bytes
    }

    /// Bytes of the content that waits.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Swaps everything that waits into `into`, which is empty.
    pub fn drain(&self, into: &mut Vec<Mail>) {
        debug_assert!(into.is_empty());
        if into.capacity() > KEPT_CAPACITY {
            *into = Vec::new();
        }
        let mut queue = lock(&self.queue);
        std::mem::swap(&mut *queue, into);
        self.bytes.store(0, Ordering::Relaxed);
    }

    /// Returns once something was pushed since the last return. Cancel safe.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }
}
