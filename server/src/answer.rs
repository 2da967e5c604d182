//! An answer that is usually there at once. A leaf.
//!
//! The traits between rooms have an in-memory half that never waits and a networked half that does. `Answer` lets
//! both sit behind one object-safe trait without the memory half paying for a boxed future.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The state that the nodes share cannot be reached now. Worth trying again in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cluster's state cannot be reached")]
pub struct Unavailable;

/// A value now, or a future of it. Awaiting it twice after it was ready is a bug and panics, as for any future.
pub enum Answer<T> {
    Ready(Option<T>),
    Later(Pin<Box<dyn Future<Output = T> + Send>>),
}

impl<T> Answer<T> {
    pub fn ready(value: T) -> Self {
        Self::Ready(Some(value))
    }

    pub fn later(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self::Later(Box::pin(future))
    }
}

impl<T: Unpin> Future for Answer<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match self.get_mut() {
            Self::Ready(value) => Poll::Ready(value.take().expect("an answer is awaited once")),
            Self::Later(future) => future.as_mut().poll(cx),
        }
    }
}
