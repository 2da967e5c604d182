//! Who watches whom: a connection is first told of all the users on its list at once, then of each change.

use std::sync::{Arc, Mutex};

use dunlin_protocol::names::UserId;

use super::Node;
use crate::lock::lock;
use crate::presence::ConnectionRef;

/// The first sight of a watchlist. What is learned of its users is put together until all are known.
pub(super) struct Sight {
    connection: ConnectionRef,
    users: Arc<[UserId]>,
    /// `None` once it was told.
    seen: Mutex<Option<Vec<Option<bool>>>>,
}

/// One user on a connection's watchlist.
#[derive(Clone)]
pub(super) struct Watcher {
    sight: Arc<Sight>,
    index: usize,
}

impl Sight {
    pub(super) fn new(connection: ConnectionRef, users: Arc<[UserId]>) -> Arc<Self> {
        let seen = Mutex::new(Some(vec![None; users.len()]));
        Arc::new(Self {
            connection,
            users,
            seen,
        })
    }

    /// One watcher for each user.
    pub(super) fn watchers(self: &Arc<Self>) -> impl Iterator<Item = (&UserId, Watcher)> {
        self.users.iter().enumerate().map(|(index, user_id)| {
            let sight = Arc::clone(self);
            (user_id, Watcher { sight, index })
        })
    }
}

impl Watcher {
    pub(super) fn connection(&self) -> ConnectionRef {
        self.sight.connection
    }

    /// How the user is when it is first looked at. Nothing if that was told already.
    pub(super) fn first_seen(&self, is_online: bool, node: &dyn Node) {
        self.note(is_online, node);
    }

    /// The user came or went.
    pub(super) fn changed(&self, is_online: bool, node: &dyn Node) {
        if !self.note(is_online, node) {
            let user = [&self.sight.users[self.index]];
            let (online, offline): (&[_], &[_]) = if is_online { (&user, &[]) } else { (&[], &user) };
            node.watched(self.sight.connection, online, offline);
        }
    }

    /// Adds to the first sight, and tells it when it is whole. Whether it was still to be told.
    fn note(&self, is_online: bool, node: &dyn Node) -> bool {
        let mut seen = lock(&self.sight.seen);
        let Some(known) = seen.as_mut() else {
            return false;
        };
        known[self.index] = Some(is_online);
        if known.iter().all(Option::is_some) {
            let with = |wanted: Option<bool>| {
                let users = self.sight.users.iter().zip(known.iter());
                let users = users.filter(|(_, is_online)| **is_online == wanted);
                users.map(|(user_id, _)| user_id).collect::<Vec<_>>()
            };
            node.watched(self.sight.connection, &with(Some(true)), &with(Some(false)));
            *seen = None;
        }
        true
    }
}
