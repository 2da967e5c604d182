//! Looks again and again whether nodes are ready.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, spawn_local};
use tokio_util::task::AbortOnDropHandle;

use super::http;
use crate::wait::last;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug)]
struct Sight {
    at: Instant,
    node: usize,
    is_ready: bool,
}

/// Looks until it is dropped.
#[derive(Debug)]
pub(crate) struct Sentry {
    sights: Rc<RefCell<Vec<Sight>>>,
    nodes: usize,
    _looking: AbortOnDropHandle<()>,
}

impl Sentry {
    pub(crate) fn start(nodes: &[SocketAddr]) -> Self {
        let sights = Rc::new(RefCell::new(Vec::new()));
        let mut looking = JoinSet::new();
        for (node, address) in nodes.iter().copied().enumerate() {
            let sights = Rc::clone(&sights);
            looking.spawn_local(async move {
                loop {
                    let is_ready = http::status(address, "/ready").await == Some(200);
                    let at = Instant::now();
                    sights.borrow_mut().push(Sight { at, node, is_ready });
                    last(LOOK).await;
                }
            });
        }
        let looking = spawn_local(async move { while looking.join_next().await.is_some() {} });
        Self {
            sights,
            nodes: nodes.len(),
            _looking: AbortOnDropHandle::new(looking),
        }
    }

    /// How long after `moment` a node was first seen to be ready, or not to be.
    pub(crate) fn first(&self, node: usize, moment: Instant, is_ready: bool) -> Option<Duration> {
        let sights = self.sights.borrow();
        let found = sights
            .iter()
            .find(|sight| sight.node == node && sight.at > moment && sight.is_ready == is_ready);
        found.map(|sight| sight.at - moment)
    }

    /// As [`Sentry::first`], of the node for which it took longest.
    pub(crate) fn all(&self, moment: Instant, is_ready: bool) -> Option<Duration> {
        let of_each = (0..self.nodes).map(|node| self.first(node, moment, is_ready));
        of_each.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// How often a node was seen to be ready, or not to be, between two moments.
    pub(crate) fn count(&self, node: usize, (from, to): (Instant, Instant), is_ready: bool) -> usize {
        let sights = self.sights.borrow();
        let counted = sights.iter().filter(|sight| {
            sight.node == node && sight.at > from && sight.at < to && sight.is_ready == is_ready
        });
        counted.count()
    }
}
