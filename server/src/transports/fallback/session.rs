//! One client that fetches its messages by HTTP requests.

use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use dunlin_protocol::pusher::codes::CloseCode;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Connected;
use super::frames::{self, Batch, Unwrapper};
use super::table::{Sessions, Unaddressed};
use crate::hub::mailbox::Mail;
use crate::lock::lock;
use crate::presence::ConnectionRef;

/// How long a client may take to say which app it wants.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(30);
/// How long what a connection said last may be fetched after it has ended.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(30);
/// Enough for one response, or one chunk of it. What is more comes with the next.
const BATCH_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub struct Session {
    /// Its name in the table.
    pub(super) key: String,
    state: Mutex<State>,
    /// Told when the session has to be looked at earlier than was planned.
    changed: Notify,
}

/// What a session is connected to.
#[derive(Debug)]
pub enum Link {
    /// To nothing yet: a `SockJS` client says in its first message what it wants.
    Unaddressed(Unaddressed),
    Connected(Connected),
    /// To nothing any more; only the frame that says so is left.
    Closed(String),
}

#[derive(Debug)]
struct State {
    link: Link,
    /// The client was told that the session is open.
    is_open: bool,
    unwrapper: Unwrapper,
    /// The client sent a ping.
    owes_pong: bool,
    /// The number of the newest request that receives.
    receiver: u64,
    waker: Option<Waker>,
    /// Since when nobody receives.
    idle_since: Option<Instant>,
    /// When it is over even if somebody receives.
    ends_at: Option<Instant>,
    /// When its watcher will look again.
    looks_at: Option<Instant>,
    is_over: bool,
}

/// When to look at a session again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Over,
    At(Instant),
    WhenChanged,
}

/// Frames for the client, in order.
#[derive(Debug, PartialEq, Eq)]
pub struct Output {
    pub frames: Vec<String>,
    /// The last of them ends the session.
    pub is_last: bool,
}

impl Session {
    pub(super) fn new(key: String, link: Link) -> Self {
        Self {
            key,
            state: Mutex::new(State {
                link,
                is_open: false,
                unwrapper: Unwrapper::default(),
                owes_pong: false,
                receiver: 0,
                waker: None,
                idle_since: Some(Instant::now()),
                ends_at: None,
                looks_at: None,
                is_over: false,
            }),
            changed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Makes the caller the one who receives. Whoever did so before ends.
    pub fn attach(self: &Arc<Self>, sessions: &Arc<Sessions>) -> Receiver {
        let mut state = self.lock();
        state.receiver += 1;
        state.idle_since = None;
        state.wake();
        // Who asks for messages is alive.
        if let Link::Connected(Connected { at, .. }) = state.link {
            sessions.hub().send(at, |from| Mail::Received {
                from,
                messages: Vec::new(),
            });
        }
        Receiver {
            sessions: Arc::clone(sessions),
            session: Arc::clone(self),
            number: state.receiver,
            takes_one: false,
        }
    }

    /// Connects a session that has no address, by the first of `messages`, which is taken out of them.
    pub fn address(
        &self,
        messages: &mut Vec<String>,
        connect: impl FnOnce(&str) -> Result<Connected, (CloseCode, String)>,
    ) {
        let mut state = self.lock();
        if messages.is_empty() || !matches!(state.link, Link::Unaddressed(_)) {
            return;
        }
        state.link = match connect(&messages.remove(0)) {
            Ok(connected) => Link::Connected(connected),
            Err((code, reason)) => Link::Closed(frames::close(code.code(), &reason)),
        };
        state.wake();
    }

    /// Passes messages of the client on; whether the session still takes any.
    pub fn send(&self, sessions: &Sessions, messages: Vec<String>) -> bool {
        let state = self.lock();
        // With the lock held, so that what was sent one after the other stays so.
        if let Link::Connected(Connected { at, .. }) = state.link {
            sessions.hub().send(at, |from| Mail::Received { from, messages });
        }
        !state.is_over
    }

    /// Answers a client's ping on whatever receives now or next.
    pub fn pong(&self) {
        let mut state = self.lock();
        state.owes_pong = true;
        state.wake();
    }

    /// What is still to be fetched is kept for a while.
    pub(super) fn connection_ended(&self) {
        self.lock().ends_at = Some(Instant::now() + LAST_WORDS_TIMEOUT);
        self.changed.notify_one();
    }

    /// Whether it is over, or when to look again.
    pub(super) fn look(&self, now: Instant, gap: Duration) -> Look {
        let mut state = self.lock();
        if state.is_over {
            return Look::Over;
        }
        let mut deadlines = [state.idle_since.map(|since| since + gap), state.ends_at, None];
        if let Link::Unaddressed(Unaddressed { since, .. }) = &state.link {
            let address_by = *since + ADDRESS_TIMEOUT;
            if address_by <= now {
                let code = CloseCode::Inactive.code();
                state.link = Link::Closed(frames::close(code, "No address was sent"));
                state.ends_at = Some(now + LAST_WORDS_TIMEOUT);
                deadlines[1] = state.ends_at;
                state.wake();
            } else {
                deadlines[2] = Some(address_by);
            }
        }
        state.looks_at = deadlines.into_iter().flatten().min();
        match state.looks_at {
            Some(deadline) if deadline <= now => Look::Over,
            Some(deadline) => Look::At(deadline),
            None => Look::WhenChanged,
        }
    }

    /// Returns when a look is due earlier than was planned. Cancel safe.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// No more is received or sent; the connection to let go of, if there was one.
    pub(super) fn end(&self) -> Option<ConnectionRef> {
        let mut state = self.lock();
        state.is_over = true;
        state.wake();
        self.changed.notify_one();
        match state.link {
            Link::Connected(Connected { at, .. }) => Some(at),
            Link::Unaddressed(_) | Link::Closed(_) => None,
        }
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll_output(&mut self, cx: &mut Context<'_>, takes_one: bool) -> Poll<Output> {
        let word = |frame: &str| Output {
            frames: vec![frame.to_owned()],
            is_last: false,
        };
        if !self.is_open {
            self.is_open = true;
            return Poll::Ready(word(frames::OPEN));
        }
        let mut batch = Batch::default();
        match &self.link {
            Link::Unaddressed(_) => {}
            Link::Closed(frame) => {
                return Poll::Ready(Output {
                    frames: vec![frame.clone()],
                    is_last: true,
                });
            }
            Link::Connected(Connected { pipe, .. }) => {
                while batch.bytes() < BATCH_BYTES && !batch.is_last() {
                    match pipe.poll_next(cx) {
                        Poll::Ready(Some(chunk)) => self.unwrapper.unwrap(&chunk, &mut batch),
                        Poll::Ready(None) => batch.end(),
                        Poll::Pending => break,
                    }
                }
            }
        }
        let mut is_last = batch.is_last();
        let mut frames = batch.into_frames();
        if takes_one
            && let [_, _] = &frames[..]
            && let Some(close) = frames.pop()
        {
            is_last = false;
            self.link = Link::Closed(close);
        }
        let owed_pong = std::mem::take(&mut self.owes_pong);
        if !frames.is_empty() {
            return Poll::Ready(Output { frames, is_last });
        }
        if owed_pong {
            return Poll::Ready(word(frames::NO_MESSAGES));
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The right to receive, until somebody else takes it.
#[derive(Debug)]
pub struct Receiver {
    sessions: Arc<Sessions>,
    session: Arc<Session>,
    number: u64,
    /// Whether it has room for one frame only at a time.
    takes_one: bool,
}

impl Receiver {
    /// Gets one frame at a time.
    #[must_use]
    pub fn one_by_one(mut self) -> Self {
        self.takes_one = true;
        self
    }

    /// The next frames; `None`: somebody else receives, or it is over. What is returned is the session's no more.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Output>> {
        let output = {
            let mut state = self.session.lock();
            if state.is_over || state.receiver != self.number {
                return Poll::Ready(None);
            }
            std::task::ready!(state.poll_output(cx, self.takes_one))
        };
        if output.is_last {
            self.sessions.end(&self.session);
        }
        Poll::Ready(Some(output))
    }

    /// Ready when somebody else receives, or it is over. Takes nothing.
    pub fn poll_replaced(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.session.lock();
        if state.is_over || state.receiver != self.number {
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let mut state = self.session.lock();
        if state.receiver != self.number {
            return;
        }
        let now = Instant::now();
        state.idle_since = Some(now);
        state.waker = None;
        if state
            .looks_at
            .is_none_or(|planned| planned > now + self.sessions.gap())
        {
            self.session.changed.notify_one();
        }
    }
}
