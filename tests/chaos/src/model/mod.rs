//! The model check: what nodes have told Redis and each other, under random faults, against what was really open.
//!
//! Nodes are the cluster's half of the server in this process ([`node`]), each on a thread of its own and with a way
//! to Redis that can be stalled or cut; a [`witness`] stands in for the hub. A [`world`] is one seed: it rolls what
//! happens, and knows the truth. When everything has healed, the [`judge`] compares. The same seed rolls the same
//! operations, but the machine decides how they interleave.

mod judge;
mod node;
mod witness;
mod world;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;

use self::world::{Verdict, World};
use crate::report::Report;
use crate::stage::free_ports;
use crate::stage::redis::{Persistence, Redis};

/// Seeds that are played at the same time. They share a Redis, and a thread for all ways to it.
const AT_ONCE: usize = 24;

/// Seeds whose history is shown if they fail.
const SHOWN: usize = 3;

/// Plays these seeds.
///
/// # Errors
/// Something is missing on this machine.
pub(crate) async fn play(dir: &Path, seeds: RangeInclusive<u64>) -> Result<Report> {
    let redis = Redis::start(dir, free_ports(&[], 1)?[0], Persistence::None).await?;
    let verdicts = verdicts(redis.address(), seeds).await?;
    let sum = |of: fn(&Verdict) -> usize| verdicts.iter().map(of).sum::<usize>();
    let mut report = Report::default();
    let wrong: Vec<&Verdict> = verdicts
        .iter()
        .filter(|verdict| !verdict.wrong.is_empty())
        .collect();
    report.none("seeds in which anything was not as in the model", wrong.len());
    report.figure("seeds", verdicts.len());
    report.figure(
        "nodes killed, paused, stalled or cut",
        sum(|verdict| verdict.faults),
    );
    report.figure("entries of the outbox", sum(|verdict| verdict.entries));
    report.figure("events acknowledged", sum(|verdict| verdict.events));
    let slowest = verdicts.iter().map(|verdict| verdict.quiet_after).max();
    report.figure(
        "longest until all agreed",
        crate::report::shown(slowest.unwrap_or(Duration::ZERO)),
    );
    for (number, verdict) in wrong.iter().enumerate() {
        report.detail(format!(
            "seed {}:\n  {}",
            verdict.seed,
            verdict.wrong.join("\n  ")
        ));
        if number < SHOWN {
            report.detail(verdict.history.clone());
        }
    }
    Ok(report)
}

async fn verdicts(redis: SocketAddr, mut seeds: RangeInclusive<u64>) -> Result<Vec<Verdict>> {
    let mut verdicts = Vec::new();
    let mut worlds = JoinSet::new();
    loop {
        while worlds.len() < AT_ONCE
            && let Some(seed) = seeds.next()
        {
            worlds.spawn_local(World::play(seed, redis));
        }
        let Some(done) = worlds.join_next().await else {
            return Ok(verdicts);
        };
        verdicts.push(done??);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Scratch;

    #[test]
    fn twenty_seeds_end_as_the_model_says() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let local = tokio::task::LocalSet::new();
        let report = local.block_on(&runtime, async {
            let scratch = Scratch::new("model", false).unwrap();
            play(scratch.path(), 1..=20).await.unwrap()
        });
        assert!(report.is_good(), "{}", report.text());
    }
}
