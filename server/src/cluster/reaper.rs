//! Removing what a dead node has left: its members leave, its channels are vacated, its places in quotas are free.

use std::sync::atomic::Ordering;

use futures_util::future::try_join_all;
use redis::{RedisError, Value, from_redis_value};

use super::held::reaped;
use super::link::Link;
use super::pump::{not_understood, run};
use super::request::Answer;
use super::{Cluster, millis};
use crate::storage::redis::names::{Partition, Thing};

/// Users that leave a channel in one script, which nothing else runs beside.
const USERS_AT_ONCE: u32 = 500;

/// Things of a dead node that are seen to at the same time.
const AT_ONCE: usize = 100;

/// How long a node that was declared dead is told so. A command that it had sent before may be as old.
const FENCE_MS: u64 = 600_000;

impl Cluster {
    /// Unless another node is at it.
    pub(super) async fn reap_if_first(&self, link: &Link, dead: &str) -> Result<(), RedisError> {
        let mut claim = redis::cmd("SET");
        claim
            .arg(format!("{}:{dead}", self.names.leases()))
            .arg(self.id.load().as_str());
        claim.arg("NX").arg("PX").arg(millis(self.section.lease));
        if link.holding.call(&claim).await? == Value::Nil {
            return Ok(());
        }
        tracing::warn!(node.id = dead, "a node is dead: its members leave");
        self.counters.reaped.fetch_add(1, Ordering::Relaxed);
        self.reap(link, dead).await?;
        let mut forget = redis::cmd("DEL");
        forget.arg(format!("{}:{dead}", self.names.leases()));
        link.holding.call(&forget).await.map(|_| ())
    }

    /// Can be done by several at once, and again after it was done in part.
    pub(super) async fn reap(&self, link: &Link, dead: &str) -> Result<(), RedisError> {
        // First nothing it says counts any more; then nothing new can come behind the broom.
        try_join_all(Partition::all().map(|partition| self.fence(link, partition, dead))).await?;
        try_join_all(Partition::all().map(|partition| self.reap_partition(link, partition, dead))).await?;
        let mut command = redis::cmd("ZREM");
        command.arg(self.names.leases()).arg(dead);
        link.holding.call(&command).await.map(|_| ())
    }

    async fn fence(&self, link: &Link, partition: Partition, dead: &str) -> Result<(), RedisError> {
        let mut command = redis::cmd("SET");
        command
            .arg(self.names.fence(partition, dead))
            .arg(1)
            .arg("PX")
            .arg(FENCE_MS);
        link.holding.call(&command).await.map(|_| ())
    }

    async fn reap_partition(&self, link: &Link, partition: Partition, dead: &str) -> Result<(), RedisError> {
        loop {
            let mut command = redis::cmd("SRANDMEMBER");
            command.arg(self.names.index(partition, dead)).arg(AT_ONCE);
            let things: Vec<String> = from_redis_value(link.holding.call(&command).await?)?;
            if things.is_empty() {
                return Ok(());
            }
            try_join_all(things.iter().map(|thing| self.reap_thing(link, thing, dead))).await?;
        }
    }

    async fn reap_thing(&self, link: &Link, thing: &str, dead: &str) -> Result<(), RedisError> {
        let Some(thing) = Thing::parse(thing) else {
            return Err(not_understood());
        };
        let topic = self.names.state(&thing);
        let hold = reaped(&thing, &self.apps, topic, dead, USERS_AT_ONCE, &self.rules);
        loop {
            match run(&link.holding, &self.names, &thing, &hold).await? {
                Answer::More => {}
                Answer::Done(done) => {
                    if done.is_due {
                        self.is_due(thing.partition());
                    }
                    return Ok(());
                }
                Answer::Fenced => return Err(not_understood()),
            }
        }
    }
}
