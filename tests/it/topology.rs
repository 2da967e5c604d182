//! Whether the tests run against one node in memory, or against two nodes that share a Redis.
//!
//! `DUNLIN_TEST_TOPOLOGY=cluster` turns every world whose test does not say otherwise into two nodes: signed requests go
//! to the first, clients to the second and the first in turn, and connections opened by hand to the second, so that what
//! a test publishes and hears crosses nodes although the test knows of one server only. A test that is about a single process says so with
//! [`only_one_node`](crate::world::Builder::only_one_node), and why; it still runs, on one node with Redis.

use std::io::Write as _;
use std::sync::OnceLock;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topology {
    OneNode,
    Cluster,
}

impl Topology {
    /// That of this run.
    pub(crate) fn of_this_run() -> Self {
        static CHOSEN: OnceLock<Topology> = OnceLock::new();
        *CHOSEN.get_or_init(|| match std::env::var("DUNLIN_TEST_TOPOLOGY").as_deref() {
            Err(_) | Ok("") => Self::OneNode,
            Ok("cluster") => Self::Cluster,
            Ok(other) => panic!("DUNLIN_TEST_TOPOLOGY is {other:?}; it can be \"cluster\", or not set"),
        })
    }
}

/// Says past the test harness, which keeps to itself what a test prints, that the running test is not run on two nodes.
pub(crate) fn report_exception(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    drop(writeln!(std::io::stdout().lock(), "one node - {test}: {why}"));
}
