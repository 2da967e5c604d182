//! Answers that are given again: a publish repeated under the same `Idempotency-Key` is delivered once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use actix_http::StatusCode;
use bytes::Bytes;

use crate::api::error::Refusal;
use crate::clock;
use crate::config::IdempotencySection;
use crate::storage::keys::AppNum;

/// Longest key, in bytes.
const MAX_KEY_BYTES: usize = 255;

/// What is remembered, by app, so that no app can push out another's.
#[derive(Debug)]
pub struct Idempotency {
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
    /// MD5 of path and body: the same key with another request is a mistake worth telling.
    request: [u8; 16],
    /// `None` while the first request is still being answered.
    answer: Option<Bytes>,
}

/// How a request with a key goes on.
#[derive(Debug)]
pub enum Admission {
    /// Nobody used the key yet: publish, then [`Idempotency::remember`] or [`Idempotency::forget`].
    First,
    /// It was answered with 200 and this body.
    Again(Bytes),
}

impl Idempotency {
    pub fn new(section: &IdempotencySection) -> Self {
        Self {
            ttl_s: clock::ceil_seconds(section.ttl),
            max_entries: section.max_entries,
            apps: Mutex::default(),
        }
    }

    fn locked<T>(&self, app: AppNum, act: impl FnOnce(&mut Answers) -> T) -> T {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        act(apps.entry(app).or_default())
    }

    /// # Errors
    /// 400: not a usable key. 409: the first request with this key is still under way. 422: the key was used for
    /// another request. 503: more keys in use than are remembered.
    pub fn admit(&self, app: AppNum, key: &str, request: [u8; 16]) -> Result<Admission, Refusal> {
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Err(Refusal::bad_request(format!(
                "Idempotency-Key must have 1 to {MAX_KEY_BYTES} characters"
            )));
        }
        let now_s = clock::monotonic_seconds();
        self.locked(app, |answers| {
            answers.expire(now_s);
            match answers.by_key.get(key) {
                Some(known) if known.request != request => {
                    let message = "This Idempotency-Key was used for another request";
                    Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, message))
                }
                Some(Remembered {
                    answer: Some(answer), ..
                }) => Ok(Admission::Again(answer.clone())),
                Some(Remembered { answer: None, .. }) => Err(Refusal::new(
                    StatusCode::CONFLICT,
                    "A request with this Idempotency-Key is under way",
                )),
                None if answers.by_key.len() >= self.max_entries => {
                    let message = "More Idempotency-Keys are in use than this app may have";
                    Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message))
                }
                None => {
                    answers.by_key.insert(
                        key.into(),
                        Remembered {
                            request,
                            answer: None,
                        },
                    );
                    answers.order.push_back((now_s + self.ttl_s, key.into()));
                    Ok(Admission::First)
                }
            }
        })
    }

    /// Forgets what has expired. Called every second by the node.
    pub fn tick(&self) {
        let now_s = clock::monotonic_seconds();
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        apps.retain(|_, answers| {
            answers.expire(now_s);
            !answers.by_key.is_empty()
        });
    }

    /// The request succeeded: a repeat gets this body.
    pub fn remember(&self, app: AppNum, key: &str, answer: Bytes) {
        self.locked(app, |answers| {
            if let Some(known) = answers.by_key.get_mut(key) {
                known.answer = Some(answer);
            }
        });
    }

    /// The request failed: a repeat is a new attempt.
    pub fn forget(&self, app: AppNum, key: &str) {
        self.locked(app, |answers| {
            if answers.by_key.remove(key).is_some() {
                answers.order.retain(|(_, ordered)| **ordered != *key);
            }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn memory(ttl_s: u64) -> Idempotency {
        Idempotency::new(&IdempotencySection {
            ttl: Duration::from_secs(ttl_s),
            max_entries: 2,
        })
    }

    fn status(result: Result<Admission, Refusal>) -> u16 {
        result.map_or_else(|refusal| refusal.status.as_u16(), |_| 200)
    }

    const APP: AppNum = AppNum(1);

    #[test]
    fn a_repeat_gets_the_first_answer() {
        let memory = memory(60);
        assert!(matches!(memory.admit(APP, "k", [1; 16]), Ok(Admission::First)));
        assert_eq!(status(memory.admit(APP, "k", [1; 16])), 409, "not answered yet");
        memory.remember(APP, "k", Bytes::from_static(b"{}"));
        assert!(matches!(memory.admit(APP, "k", [1; 16]), Ok(Admission::Again(answer)) if answer == "{}"));
        assert_eq!(status(memory.admit(APP, "k", [2; 16])), 422, "another request");
        assert!(
            matches!(memory.admit(AppNum(2), "k", [2; 16]), Ok(Admission::First)),
            "another app"
        );
    }

    #[test]
    fn a_failed_request_may_be_tried_again() {
        let memory = memory(60);
        assert_eq!(status(memory.admit(APP, "k", [1; 16])), 200);
        memory.forget(APP, "k");
        assert!(matches!(memory.admit(APP, "k", [1; 16]), Ok(Admission::First)));
    }

    #[test]
    fn what_has_expired_is_forgotten_without_being_asked_for() {
        let memory = memory(0);
        assert_eq!(status(memory.admit(APP, "a", [1; 16])), 200);
        memory.tick();
        assert!(memory.apps.lock().unwrap().is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_ends() {
        let full = memory(60);
        assert_eq!(status(full.admit(APP, "a", [1; 16])), 200);
        assert_eq!(status(full.admit(APP, "b", [1; 16])), 200);
        assert_eq!(status(full.admit(APP, "c", [1; 16])), 503);
        let ending = memory(0);
        for key in ["a", "b", "c", "a"] {
            assert_eq!(status(ending.admit(APP, key, [1; 16])), 200, "{key}");
        }
        for key in ["", &"x".repeat(256)] {
            assert_eq!(status(ending.admit(APP, key, [1; 16])), 400);
        }
    }
}
