//! What a part of the node was told, in order: for the contract suites, whose subjects may answer now or later.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use crate::lock::lock;

/// How long anything may take. Generous, because a subject may be behind a network and the machine busy.
const DEADLINE: Duration = Duration::from_secs(10);

/// A list that one side appends to and the other takes from.
#[derive(Debug)]
pub(crate) struct Told<T> {
    lines: Mutex<Vec<T>>,
    more: Notify,
}

impl<T> Default for Told<T> {
    fn default() -> Self {
        Self {
            lines: Mutex::default(),
            more: Notify::new(),
        }
    }
}

impl<T: std::fmt::Debug> Told<T> {
    fn lines(&self) -> MutexGuard<'_, Vec<T>> {
        lock(&self.lines)
    }

    pub(crate) fn note(&self, line: T) {
        self.lines().push(line);
        self.more.notify_one();
    }

    /// Takes everything that is there.
    pub(crate) fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.lines())
    }

    /// Waits for the next `count` and takes them.
    pub(crate) async fn next(&self, count: usize) -> Vec<T> {
        self.take_when(|lines| (lines.len() >= count).then_some(count))
            .await
    }

    /// Waits for one that `is_last` and takes it with all before it.
    pub(crate) async fn until(&self, is_last: impl Fn(&T) -> bool) -> Vec<T> {
        self.take_when(|lines| lines.iter().position(&is_last).map(|at| at + 1))
            .await
    }

    async fn take_when(&self, how_many: impl Fn(&[T]) -> Option<usize>) -> Vec<T> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            {
                let mut lines = self.lines();
                if let Some(count) = how_many(&lines) {
                    return lines.drain(..count).collect();
                }
            }
            let waited = timeout_at(deadline, self.more.notified()).await;
            assert!(waited.is_ok(), "nothing more came after {:?}", self.lines());
        }
    }
}

/// Asks again and again until it is so.
pub(crate) async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "never happened: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
