//! On which of this node's workers a channel has connections.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::lock::lock;
use crate::storage::keys::{ChannelKey, ChannelMap, KeyRef};

/// A power of two.
const STRIPES: usize = 64;

/// Asked once per publication: a channel that is nowhere costs one look-up and nothing is encoded.
#[derive(Debug)]
pub struct Directory {
    stripes: Box<[Mutex<ChannelMap<u64>>]>,
}

/// A set of workers, one bit each; iterates over their numbers.
#[derive(Clone, Debug)]
pub struct Workers(u64);

impl Iterator for Workers {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.0 == 0 {
            return None;
        }
        let worker = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        u16::try_from(worker).ok()
    }
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Directory {
    fn stripe(&self, key: KeyRef<'_>) -> MutexGuard<'_, ChannelMap<u64>> {
        lock(&self.stripes[key.stripe(STRIPES)])
    }

    /// The worker has a connection in the channel, or is about to.
    pub fn add(&self, key: &Arc<ChannelKey>, worker: u16) {
        *self.stripe(key.borrowed()).get_or_insert_with(key, || 0) |= 1 << worker;
    }

    pub fn remove(&self, key: &ChannelKey, worker: u16) {
        let mut stripe = self.stripe(key.borrowed());
        if let Some(workers) = stripe.get_mut(key.borrowed()) {
            *workers &= !(1 << worker);
            if *workers == 0 {
                stripe.remove(key.borrowed());
            }
        }
    }

    pub fn contains(&self, key: KeyRef<'_>) -> bool {
        self.stripe(key).get(key).is_some()
    }

    /// Runs `push` with the channel's lock held, if the channel is anywhere: whatever it pushes has one place in the
    /// channel's order, the same on every worker.
    pub fn locked<T>(&self, key: KeyRef<'_>, push: impl FnOnce(&Arc<ChannelKey>, Workers) -> T) -> Option<T> {
        let stripe = self.stripe(key);
        stripe
            .entry(key)
            .map(|(channel, workers)| push(channel, Workers(*workers)))
    }

    /// Channels that are on some worker.
    pub fn len(&self) -> usize {
        self.stripes.iter().map(|stripe| lock(stripe).len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::keys::AppNum;

    #[test]
    fn a_channel_is_where_it_was_added_and_not_removed() {
        let directory = Directory::default();
        let key = ChannelKey::new(AppNum(1), "a".parse().unwrap());
        let workers = || directory.locked(key.borrowed(), |_, workers| workers.collect::<Vec<_>>());
        assert_eq!(workers(), None);
        directory.add(&key, 0);
        directory.add(&key, 63);
        assert_eq!(workers(), Some(vec![0, 63]));
        directory.remove(&key, 0);
        assert_eq!(workers(), Some(vec![63]));
        directory.remove(&key, 63);
        assert_eq!(workers(), None);
        assert!(directory.is_empty());
    }
}
