//! The scenarios by name.

mod churn;
mod delivery;
mod flushall;
mod history;
mod mass_drop;
mod node_kill;
mod node_pause;
mod partition;
mod recovery;
mod redis_down;
mod rolling_restart;
mod silent_peer;
mod webhooks_kill;
mod webhooks_moves;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Result;

use crate::model;
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
    /// Of the model check.
    pub(crate) seeds: RangeInclusive<u64>,
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

/// All of them.
pub(crate) const CATALOGUE: &[Scenario] = &[
    Scenario {
        name: "delivery",
        about: "100,000 messages of several publishers reach 100 subscribers on two nodes: once each, in order.",
        works_alone: true,
        play: |context| Box::pin(delivery::play(context)),
    },
    Scenario {
        name: "redis-down",
        about: "Redis is away for 10 s under 500 publishes a second: stopped, killed, killed and empty.",
        works_alone: false,
        play: |context| Box::pin(redis_down::play(context)),
    },
    Scenario {
        name: "history",
        about: "Redis and the nodes are killed in turn, 20 times: what was acknowledged is in the history, and every gap \
                is made up for or told.",
        works_alone: false,
        play: |context| Box::pin(history::play(context)),
    },
    Scenario {
        name: "flushall",
        about: "Redis loses everything, by FLUSHALL and by a crash without a copy on disk.",
        works_alone: false,
        play: |context| Box::pin(flushall::play(context)),
    },
    Scenario {
        name: "model",
        about: "Three nodes, random comings and goings and faults, seed by seed: what they tell is what a model says.",
        works_alone: false,
        play: |context| Box::pin(model::play(&context.dir, context.seeds.clone())),
    },
    Scenario {
        name: "node-kill",
        about: "A node is killed with 1,000 members of a channel that is watched from the other.",
        works_alone: false,
        play: |context| Box::pin(node_kill::play(context)),
    },
    Scenario {
        name: "node-pause",
        about: "A node stops executing for 20 s with all its connections open, and goes on.",
        works_alone: false,
        play: |context| Box::pin(node_pause::play(context)),
    },
    Scenario {
        name: "partition",
        about: "One of two nodes is cut off from Redis for 30 s while members come and go.",
        works_alone: false,
        play: |context| Box::pin(partition::play(context)),
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
    Scenario {
        name: "rolling-restart",
        about: "Two nodes behind nginx are restarted in turn under 2,000 connections and 500 publishes a second.",
        works_alone: false,
        play: |context| Box::pin(rolling_restart::play(context)),
    },
    Scenario {
        name: "recovery",
        about: "Unmodified pusher-js with the helper for recovery, its connections cut at random for ten minutes, gets \
                everything once and in order.",
        works_alone: false,
        play: |context| Box::pin(recovery::play(context)),
    },
    Scenario {
        name: "churn",
        about: "20 visitors a second come and go for ten minutes, and leave nothing in Redis.",
        works_alone: false,
        play: |context| Box::pin(churn::play(context)),
    },
    Scenario {
        name: "webhooks-kill",
        about: "Those who deliver webhooks are killed 200 times at random moments, and Redis ten times, while the \
                customer's server refuses three of ten: everything comes, under one id, in order.",
        works_alone: false,
        play: |context| Box::pin(webhooks_kill::play(context)),
    },
    Scenario {
        name: "webhooks-moves",
        about: "100 visitors a second come and go on two nodes, one of which is killed: a customer is told of each coming \
                and going once.",
        works_alone: false,
        play: |context| Box::pin(webhooks_moves::play(context)),
    },
];
