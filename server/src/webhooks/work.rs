//! A bell between whoever stores deliveries and whoever sends them.

use std::collections::HashSet;
use std::sync::Mutex;

use tokio::sync::Notify;

use super::lanes::Key;
use crate::lock::lock;

/// Endpoints for which something was stored here. Bounded by the endpoints there are.
#[derive(Debug, Default)]
pub struct Work {
    endpoints: Mutex<HashSet<Key>>,
    rung: Notify,
}

impl Work {
    /// Something is to be sent to these.
    pub fn is_there(&self, endpoints: impl Iterator<Item = Key>) {
        lock(&self.endpoints).extend(endpoints);
        self.rung.notify_one();
    }

    /// What was stored since this was last asked.
    pub fn take(&self) -> HashSet<Key> {
        std::mem::take(&mut *lock(&self.endpoints))
    }

    pub async fn wait(&self) {
        self.rung.notified().await;
    }
}
