//! Everything this node holds, by its topic.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};

use super::held::Held;

use crate::lock::lock;

/// A power of two.
pub(super) const STRIPES: usize = 64;

/// Looked at once per message. A stripe's lock is held for a look-up only.
pub(super) struct Table {
    hasher: RandomState,
    stripes: Box<[Mutex<Stripe>]>,
}

type Stripe = HashMap<Topic, Arc<Held>>;

/// A topic that can be looked up by its bytes.
#[derive(PartialEq, Eq, Hash)]
struct Topic(Arc<[u8]>);

impl std::borrow::Borrow<[u8]> for Topic {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl Default for Table {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Table {
    fn stripe(&self, topic: &[u8]) -> &Mutex<Stripe> {
        let hash = usize::try_from(self.hasher.hash_one(topic) >> 40).unwrap_or_default();
        &self.stripes[hash & (STRIPES - 1)]
    }

    pub(super) fn get(&self, topic: &[u8]) -> Option<Arc<Held>> {
        lock(self.stripe(topic)).get(topic).cloned()
    }

    pub(super) fn get_or_insert(&self, topic: &Arc<str>, make: impl FnOnce() -> Held) -> Arc<Held> {
        let mut stripe = lock(self.stripe(topic.as_bytes()));
        if let Some(held) = stripe.get(topic.as_bytes()) {
            return Arc::clone(held);
        }
        let held = Arc::new(make());
        stripe.insert(Topic(topic.as_bytes().into()), Arc::clone(&held));
        held
    }

    /// Takes this very one out, not one that has its place since.
    pub(super) fn remove(&self, held: &Arc<Held>) {
        let topic = held.topic.as_bytes();
        let mut stripe = lock(self.stripe(topic));
        if stripe.get(topic).is_some_and(|there| Arc::ptr_eq(there, held)) {
            stripe.remove(topic);
        }
        if stripe.capacity() > 64 && stripe.len() < stripe.capacity() / 4 {
            stripe.shrink_to_fit();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.stripes.iter().map(|stripe| lock(stripe).len()).sum()
    }

    /// A part of everything: stripe by stripe, for what is done to all of them bit by bit.
    pub(super) fn part(&self, number: usize) -> Vec<Arc<Held>> {
        lock(&self.stripes[number % STRIPES]).values().cloned().collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<Held>> {
        (0..STRIPES).flat_map(|number| self.part(number)).collect()
    }
}
