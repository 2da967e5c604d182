//! Users who are signed in on this node, and who watches them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use dunlin_protocol::names::UserId;

use super::{ConnectionRef, PresenceEvents, SignIn};
use crate::lock::lock;
use crate::storage::keys::AppNum;

/// Signed-in users by app. One lock per app: a watchlist spans users, and its first answer must agree with the changes
/// that follow it.
pub struct Users {
    events: Arc<dyn PresenceEvents>,
    apps: Mutex<HashMap<AppNum, Arc<Mutex<Registry>>>>,
}

/// How many users there are on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserCounts {
    pub signed_in: usize,
    /// Signed in or watched.
    pub kept: usize,
}

#[derive(Debug, Default)]
struct Registry {
    users: HashMap<UserId, User>,
}

/// A user who is signed in or watched.
#[derive(Debug, Default)]
struct User {
    connections: u32,
    watchers: Vec<ConnectionRef>,
}

impl Users {
    pub fn new(events: Arc<dyn PresenceEvents>) -> Self {
        Self {
            events,
            apps: Mutex::default(),
        }
    }

    fn registry(&self, app: AppNum) -> Arc<Mutex<Registry>> {
        Arc::clone(lock(&self.apps).entry(app).or_default())
    }

    /// Counts the connection in; tells those who watch the user, and the connection about those it watches.
    pub fn sign_in(&self, sign_in: &SignIn) {
        let registry = self.registry(sign_in.app.num);
        let mut registry = lock(&registry);
        let user = registry.users.entry(sign_in.user_id.clone()).or_default();
        user.connections += 1;
        if user.connections == 1 {
            for watcher in &user.watchers {
                self.events.watched(*watcher, &[&sign_in.user_id], &[]);
            }
        }
        if sign_in.watchlist.is_empty() {
            return;
        }
        for watched in sign_in.watchlist.iter() {
            registry
                .users
                .entry(watched.clone())
                .or_default()
                .watchers
                .push(sign_in.connection);
        }
        let is_online = |id: &&UserId| registry.users.get(*id).is_some_and(|user| user.connections > 0);
        let (online, offline): (Vec<_>, Vec<_>) = sign_in.watchlist.iter().partition(is_online);
        self.events.watched(sign_in.connection, &online, &offline);
    }

    /// Users who are signed in, and all that are kept, those who are only watched among them.
    pub fn counts(&self) -> UserCounts {
        let apps: Vec<_> = lock(&self.apps).values().cloned().collect();
        let mut counts = UserCounts::default();
        for registry in apps {
            let registry = lock(&registry);
            counts.kept += registry.users.len();
            counts.signed_in += registry
                .users
                .values()
                .filter(|user| user.connections > 0)
                .count();
        }
        counts
    }

    /// Undoes [`Users::sign_in`].
    pub fn sign_out(&self, sign_in: &SignIn) {
        let registry = self.registry(sign_in.app.num);
        let mut registry = lock(&registry);
        for watched in sign_in.watchlist.iter() {
            if let Some(user) = registry.users.get_mut(watched) {
                user.watchers.retain(|watcher| *watcher != sign_in.connection);
                registry.forget_if_idle(watched);
            }
        }
        if let Some(user) = registry.users.get_mut(&sign_in.user_id) {
            user.connections = user.connections.saturating_sub(1);
            if user.connections == 0 {
                for watcher in &user.watchers {
                    self.events.watched(*watcher, &[], &[&sign_in.user_id]);
                }
                registry.forget_if_idle(&sign_in.user_id);
            }
        }
    }
}

impl Registry {
    fn forget_if_idle(&mut self, id: &UserId) {
        if self
            .users
            .get(id)
            .is_some_and(|user| user.connections == 0 && user.watchers.is_empty())
        {
            self.users.remove(id);
        }
    }
}
