//! The bodies of receiving requests: an endless stream, or one poll.

use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use tokio::time::{Instant, Sleep, sleep};

use super::frames;
use super::session::Receiver;

/// What pusher-js reads of one response, in UTF-16 units. When it has read more it hangs up and asks again
/// (pusher-js source).
const READ_LIMIT: usize = 256 * 1024;
/// How long we wait for it to do so. Whoever has not done so by then reads on.
const TAKEOVER_WAIT: Duration = Duration::from_secs(3);

/// A response that goes on as long as the session does.
pub struct Streaming {
    receiver: Receiver,
    /// Puts into a transport's clothes what goes out.
    dress: fn(&str) -> String,
    prelude: Option<Bytes>,
    heartbeat: Duration,
    timer: Pin<Box<Sleep>>,
    length: Length,
    is_over: bool,
}

/// How much a client that reads only so much of one response has been given.
///
/// Such a client throws away what is on the way when it hangs up. So nothing is, if it can be helped: past the limit we
/// wait for its next request, which takes over.
enum Length {
    Counted(usize),
    Waiting(Pin<Box<Sleep>>),
    Unlimited,
}

impl Streaming {
    /// `prelude`, which is ASCII and not empty, goes first.
    pub fn new(
        receiver: Receiver,
        prelude: impl Into<Bytes>,
        dress: fn(&str) -> String,
        heartbeat: Duration,
    ) -> Self {
        Self {
            receiver,
            dress,
            prelude: Some(prelude.into()),
            heartbeat,
            timer: Box::pin(sleep(heartbeat)),
            length: Length::Unlimited,
            is_over: false,
        }
    }

    /// For a client that reads only so much of one response.
    #[must_use]
    pub fn limited(mut self) -> Self {
        self.length = Length::Counted(self.prelude.as_ref().map_or(0, Bytes::len));
        self
    }

    fn dressed(&mut self, frames: &[String]) -> Bytes {
        let text: String = frames.iter().map(|frame| (self.dress)(frame)).collect();
        if let Length::Counted(units) = &mut self.length {
            *units += text.encode_utf16().count();
            if *units > READ_LIMIT {
                self.length = Length::Waiting(Box::pin(sleep(TAKEOVER_WAIT)));
            }
        }
        self.timer.as_mut().reset(Instant::now() + self.heartbeat);
        Bytes::from(text)
    }
}

impl Stream for Streaming {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(prelude) = this.prelude.take() {
            return Poll::Ready(Some(Ok(prelude)));
        }
        if this.is_over {
            return Poll::Ready(None);
        }
        if let Length::Waiting(limit) = &mut this.length {
            if this.receiver.poll_replaced(cx).is_ready() {
                this.is_over = true;
                return Poll::Ready(None);
            }
            ready!(limit.as_mut().poll(cx));
            this.length = Length::Unlimited;
        }
        let frames = match this.receiver.poll_next(cx) {
            Poll::Ready(Some(output)) => {
                this.is_over = output.is_last;
                output.frames
            }
            Poll::Ready(None) => {
                this.is_over = true;
                return Poll::Ready(None);
            }
            Poll::Pending => {
                ready!(this.timer.as_mut().poll(cx));
                // The new time has to be asked about, or nobody would be woken for it.
                this.timer.as_mut().reset(Instant::now() + this.heartbeat);
                vec![frames::HEARTBEAT.to_owned()]
            }
        };
        Poll::Ready(Some(Ok(this.dressed(&frames))))
    }
}

/// The frames for one poll: what there is, or else what comes within `timeout`, or else a heartbeat.
pub async fn poll(mut receiver: Receiver, timeout: Duration) -> Vec<String> {
    let output = poll_fn(|cx| receiver.poll_next(cx));
    match tokio::time::timeout(timeout, output).await {
        Ok(Some(output)) => output.frames,
        Ok(None) | Err(_) => vec![frames::HEARTBEAT.to_owned()],
    }
}
