//! Answers that are given again: a publish repeated under the same `Idempotency-Key` is delivered once.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use bytes::Bytes;

use crate::answer::{Answer, Unavailable};
use crate::apps::App;
use crate::clock;
use crate::config::IdempotencySection;
use crate::lock::lock;
use crate::storage::keys::AppNum;

/// MD5 of a request's path and body: the same key with another request is a mistake worth telling.
pub type Digest = [u8; 16];

/// How a request with a key goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Nobody used the key yet: publish, then [`Idempotency::remember`] or [`Idempotency::forget`].
    First,
    /// It was answered with 200 and this body.
    Again(Bytes),
}

/// Why a request with a key does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    #[error("A request with this Idempotency-Key is under way")]
    UnderWay,
    #[error("This Idempotency-Key was used for another request")]
    OtherRequest,
    #[error("More Idempotency-Keys are in use than this app may have")]
    TooMany,
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// The memory of answers.
///
/// A promise of every implementation: of several requests of an app with one key, wherever they arrive, one is the first
/// until it is forgotten or its time is over.
pub trait Idempotency: Send + Sync {
    fn admit(&self, app: &App, key: &str, request: Digest) -> Answer<Result<Admission, NotAdmitted>>;
    /// The request succeeded: a repeat gets this body.
    fn remember(&self, app: &App, key: &str, request: Digest, answer: Bytes) -> Answer<()>;
    /// The request failed: a repeat is a new attempt.
    fn forget(&self, app: &App, key: &str) -> Answer<()>;
    /// Forgets what has expired. Called every second by the node.
    fn tick(&self);
}

/// The memory of a single node, by app, so that no app can push out another's.
#[derive(Debug)]
pub struct MemoryIdempotency {
    ttl_s: u32,
    max_entries: usize,
    apps: Mutex<HashMap<AppNum, Answers>>,
}

#[derive(Debug, Default)]
struct Answers {
    by_key: HashMap<Box<str>, Remembered>,
    /// In the order of their time, which is also that of their end.
    order: VecDeque<(u32, Box<str>)>,
}

#[derive(Debug)]
struct Remembered {
    request: Digest,
    /// `None` while the first request is still being answered.
    answer: Option<Bytes>,
}

impl MemoryIdempotency {
    pub fn new(section: &IdempotencySection) -> Self {
        Self {
            ttl_s: clock::ceil_seconds(section.ttl),
            max_entries: section.max_entries,
            apps: Mutex::default(),
        }
    }

    fn locked<T>(&self, app: AppNum, act: impl FnOnce(&mut Answers) -> T) -> T {
        let mut apps = lock(&self.apps);
        act(apps.entry(app).or_default())
    }

    fn admit_now(&self, app: AppNum, key: &str, request: Digest) -> Result<Admission, NotAdmitted> {
        let now_s = clock::monotonic_seconds();
        self.locked(app, |answers| {
            answers.expire(now_s);
            match answers.by_key.get(key) {
                Some(known) if known.request != request => Err(NotAdmitted::OtherRequest),
                Some(Remembered {
                    answer: Some(answer), ..
                }) => Ok(Admission::Again(answer.clone())),
                Some(Remembered { answer: None, .. }) => Err(NotAdmitted::UnderWay),
                None if answers.by_key.len() >= self.max_entries => Err(NotAdmitted::TooMany),
                None => {
                    let remembered = Remembered {
                        request,
                        answer: None,
                    };
                    answers.by_key.insert(key.into(), remembered);
                    answers.order.push_back((now_s + self.ttl_s, key.into()));
                    Ok(Admission::First)
                }
            }
        })
    }
}

impl Idempotency for MemoryIdempotency {
    fn admit(&self, app: &App, key: &str, request: Digest) -> Answer<Result<Admission, NotAdmitted>> {
        Answer::ready(self.admit_now(app.num, key, request))
    }

    fn remember(&self, app: &App, key: &str, _: Digest, answer: Bytes) -> Answer<()> {
        self.locked(app.num, |answers| {
            if let Some(known) = answers.by_key.get_mut(key) {
                known.answer = Some(answer);
            }
        });
        Answer::ready(())
    }

    fn forget(&self, app: &App, key: &str) -> Answer<()> {
        self.locked(app.num, |answers| {
            if answers.by_key.remove(key).is_some() {
                answers.order.retain(|(_, ordered)| **ordered != *key);
            }
        });
        Answer::ready(())
    }

    fn tick(&self) {
        let now_s = clock::monotonic_seconds();
        let mut apps = lock(&self.apps);
        apps.retain(|_, answers| {
            answers.expire(now_s);
            !answers.by_key.is_empty()
        });
    }
}

impl Answers {
    fn expire(&mut self, now_s: u32) {
        while self.order.front().is_some_and(|(ends_s, _)| *ends_s <= now_s) {
            if let Some((_, key)) = self.order.pop_front() {
                self.by_key.remove(&key);
            }
        }
    }
}

/// What every [`Idempotency`] must do, whatever is behind it.
#[cfg(test)]
pub(crate) mod contract {
    use std::sync::Arc;

    use super::*;

    /// `memory` remembers for a minute at least.
    pub(crate) async fn run(memory: &dyn Idempotency) {
        let (app, other) = (App::fresh(|_| {}), App::fresh(|_| {}));
        let admit = async |app: &Arc<App>, request| memory.admit(app, "k", [request; 16]).await;
        assert_eq!(admit(&app, 1).await, Ok(Admission::First));
        assert_eq!(
            admit(&app, 1).await,
            Err(NotAdmitted::UnderWay),
            "not answered yet"
        );
        assert_eq!(admit(&app, 2).await, Err(NotAdmitted::OtherRequest));
        assert_eq!(admit(&other, 2).await, Ok(Admission::First), "another app");
        let answer = Bytes::from_static(b"{\"a\":\"b:c\"}");
        memory.remember(&app, "k", [1; 16], answer.clone()).await;
        assert_eq!(admit(&app, 1).await, Ok(Admission::Again(answer)));
        assert_eq!(admit(&app, 2).await, Err(NotAdmitted::OtherRequest));
        memory.forget(&other, "k").await;
        assert_eq!(
            admit(&other, 3).await,
            Ok(Admission::First),
            "a failed one may be tried again"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn memory(ttl_s: u64) -> MemoryIdempotency {
        MemoryIdempotency::new(&IdempotencySection {
            ttl: Duration::from_secs(ttl_s),
            max_entries: 2,
        })
    }

    #[tokio::test]
    async fn the_memory_of_a_node_keeps_the_contract() {
        contract::run(&memory(60)).await;
    }

    #[test]
    fn what_has_expired_is_forgotten_without_being_asked_for() {
        let memory = memory(0);
        assert_eq!(memory.admit_now(AppNum(1), "a", [1; 16]), Ok(Admission::First));
        memory.tick();
        assert!(memory.apps.lock().unwrap().is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_ends() {
        let admit = |memory: &MemoryIdempotency, key| memory.admit_now(AppNum(1), key, [1; 16]);
        let full = memory(60);
        assert_eq!(admit(&full, "a"), Ok(Admission::First));
        assert_eq!(admit(&full, "b"), Ok(Admission::First));
        assert_eq!(admit(&full, "c"), Err(NotAdmitted::TooMany));
        let ending = memory(0);
        for key in ["a", "b", "c", "a"] {
            assert_eq!(admit(&ending, key), Ok(Admission::First), "{key}");
        }
    }
}
