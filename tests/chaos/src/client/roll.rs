//! Whether everybody agrees on who is in a presence channel.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dunlin_load::Target;

use super::http::Api;
use super::subscriber::Subscriber;
use crate::wait::last;

/// Between two readings of the nodes.
const LOOK: Duration = Duration::from_millis(50);
/// Names that are shown of a difference.
const SHOWN: usize = 3;

/// A presence channel, and the nodes that are asked about it.
#[derive(Clone, Debug)]
pub(crate) struct Roll<'a> {
    pub(crate) target: &'a Rc<Target>,
    pub(crate) channel: &'a str,
    pub(crate) nodes: &'a [SocketAddr],
}

impl Roll<'_> {
    /// Waits until every node and every one of `watchers` names exactly `expected`; returns how long that took.
    ///
    /// # Errors
    /// It did not happen in time: the last difference.
    pub(crate) async fn exact<'w>(
        &self,
        watchers: impl Iterator<Item = &'w Subscriber> + Clone,
        expected: &BTreeSet<String>,
        limit: Duration,
    ) -> Result<Duration, String> {
        let begin = Instant::now();
        loop {
            let difference = self.difference(watchers.clone(), expected).await;
            match difference {
                None => return Ok(begin.elapsed()),
                Some(difference) if begin.elapsed() > limit => return Err(difference),
                Some(_) => last(LOOK).await,
            }
        }
    }

    /// What is not exact right now, if anything is: what was right once must stay so.
    pub(crate) async fn difference<'w>(
        &self,
        watchers: impl Iterator<Item = &'w Subscriber>,
        expected: &BTreeSet<String>,
    ) -> Option<String> {
        for (number, watcher) in watchers.enumerate() {
            let channel = watcher.channel(self.channel);
            if !channel.is_subscribed {
                return Some(format!("watcher {number} is not subscribed"));
            }
            if channel.members != *expected {
                return Some(format!(
                    "watcher {number} {}",
                    differing(&channel.members, expected)
                ));
            }
        }
        for (number, address) in self.nodes.iter().enumerate() {
            match Api::new(self.target, *address).users(self.channel).await {
                Err(error) => return Some(format!("node {}: {error:#}", number + 1)),
                Ok(users) => {
                    let users: BTreeSet<String> = users.into_iter().collect();
                    if users != *expected {
                        return Some(format!("node {} {}", number + 1, differing(&users, expected)));
                    }
                }
            }
        }
        None
    }
}

fn differing(seen: &BTreeSet<String>, expected: &BTreeSet<String>) -> String {
    let some = |names: Vec<&String>| format!("{} {:?}", names.len(), &names[..names.len().min(SHOWN)]);
    let ghosts = some(seen.difference(expected).collect());
    let missing = some(expected.difference(seen).collect());
    format!("has {ghosts} too many and misses {missing}")
}
