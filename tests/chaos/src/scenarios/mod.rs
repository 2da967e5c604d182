//! The scenarios by name.

mod delivery;
mod mass_drop;
mod silent_peer;

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Result;

use crate::report::Report;
use crate::stage::Plan;

pub(crate) use mass_drop::crowd;

/// What a scenario is given.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// Of the server.
    pub(crate) binary: PathBuf,
    /// A directory of its own.
    pub(crate) dir: PathBuf,
    /// Instead of the length that belongs to the promise.
    pub(crate) seconds: Option<u64>,
    /// One node in memory, where the promise is also that of one node.
    pub(crate) is_alone: bool,
}

impl Context {
    /// How long the load lasts, unless said otherwise.
    pub(crate) fn time(&self, default_s: u64) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(default_s))
    }

    /// Two nodes, or one in memory.
    pub(crate) fn nodes(&self) -> Plan {
        if self.is_alone {
            Plan::memory()
        } else {
            Plan::cluster(2)
        }
    }
}

type Playing<'a> = Pin<Box<dyn Future<Output = Result<Report>> + 'a>>;

/// A scenario that people can name.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// A sentence.
    pub(crate) about: &'static str,
    /// Whether one node in memory makes the same promise.
    pub(crate) works_alone: bool,
    pub(crate) play: for<'a> fn(&'a Context) -> Playing<'a>,
}

/// All of them, the shortest first.
pub(crate) const CATALOGUE: &[Scenario] = &[
    Scenario {
        name: "delivery",
        about: "100,000 messages of several publishers reach 100 subscribers on two nodes: once each, in order.",
        works_alone: true,
        play: |context| Box::pin(delivery::play(context)),
    },
    Scenario {
        name: "silent-peer",
        about: "Peers whose packets no longer arrive are noticed, and their members removed.",
        works_alone: true,
        play: |context| Box::pin(silent_peer::play(context)),
    },
    Scenario {
        name: "mass-drop",
        about: "10,000 sockets drop at the same moment, and newcomers notice nothing.",
        works_alone: true,
        play: |context| Box::pin(mass_drop::play(context)),
    },
];
