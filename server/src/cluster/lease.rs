//! The node's lease, and whatever else has to be done every now and then.

use std::sync::atomic::Ordering;

use redis::{RedisError, Value, from_redis_value};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};

use super::held::LetGo;
use super::link::Link;
use super::pump::not_understood;
use super::request::number;
use super::table::STRIPES;
use super::{Cluster, millis};
use crate::clock;
use crate::lock::lock;
use crate::storage::redis::scripts::LEASE;

/// How often those that nobody wants are looked at.
const TICK: Duration = Duration::from_millis(250);

/// What Redis says to a sign of life.
pub(super) struct Lease {
    pub(super) was_there: bool,
    /// Nodes whose time is over.
    dead: Vec<String>,
}

impl Cluster {
    /// # Errors
    /// The connection failed.
    pub(super) async fn keep_lease(&self, link: &Link) -> Result<(), RedisError> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renewed = Instant::now();
        let mut part = 0_usize;
        let mut asserted = Instant::now();
        loop {
            ticks.tick().await;
            self.let_go();
            self.end_doubts();
            if renewed.elapsed() >= self.section.lease_refresh {
                renewed = Instant::now();
                self.renew(link).await?;
            }
            let pause = self.section.resync_interval / u32::try_from(STRIPES).unwrap_or(1);
            while asserted.elapsed() >= pause {
                asserted += pause;
                for held in self.table.part(part) {
                    let is_queued = held.assert_again();
                    self.enqueue(held, is_queued);
                }
                part = part.wrapping_add(1);
            }
        }
    }

    async fn renew(&self, link: &Link) -> Result<(), RedisError> {
        if self.has_left.load(Ordering::Acquire) {
            return Ok(());
        }
        let id = self.id.load_full();
        let lease = self.lease(link, &id, false).await?;
        if !lease.was_there && self.be_reborn(link, &id).await? {
            self.restart_everything(true);
        }
        for dead in &lease.dead {
            self.reap_if_first(link, dead).await?;
        }
        self.catch_up_on_control(link).await
    }

    /// Gives a sign of life of the node `id`. `may_begin`: a lease that is not there is taken anew.
    pub(super) async fn lease(&self, link: &Link, id: &str, may_begin: bool) -> Result<Lease, RedisError> {
        let numsub = if self.target.is_cluster() {
            "SHARDNUMSUB"
        } else {
            "NUMSUB"
        };
        let alive = self.names.alive();
        let lease_ms = millis(self.section.lease).to_string();
        // One sign of life and a half: less would be a node that is merely late.
        let silence_ms = millis(self.section.lease_refresh * 3 / 2).to_string();
        let begins = if may_begin { "1" } else { "0" };
        let args = [id, &lease_ms, numsub, &alive, &silence_ms, begins].map(str::as_bytes);
        let before_ms = clock::unix_millis();
        let value = LEASE.run(&link.holding, &[&self.names.leases()], &args).await?;
        let Value::Array(parts) = value else {
            return Err(not_understood());
        };
        let [was_there, now_ms, dead] = <[Value; 3]>::try_from(parts).map_err(|_| not_understood())?;
        let now_ms = number(&now_ms).ok_or_else(not_understood)?;
        self.clock_ahead_ms
            .store(now_ms.cast_signed() - before_ms.cast_signed(), Ordering::Relaxed);
        Ok(Lease {
            was_there: number(&was_there) == Some(1),
            dead: from_redis_value(dead)?,
        })
    }

    /// Redis's clock, as far as the last lease knows it: Unix milliseconds.
    pub(super) fn redis_millis(&self) -> u64 {
        clock::unix_millis().saturating_add_signed(self.clock_ahead_ms.load(Ordering::Relaxed))
    }

    /// `is_empty`: nothing is left behind. Otherwise the lease ends now, and whoever sees it sees to the rest.
    pub(super) async fn give_lease_back(&self, link: &Link, is_empty: bool) -> Result<(), RedisError> {
        self.has_left.store(true, Ordering::Release);
        let id = self.id.load_full();
        if !is_empty {
            return self.end_lease(link, &id).await;
        }
        let mut command = redis::cmd("ZREM");
        command.arg(self.names.leases()).arg(id.as_str());
        link.holding.call(&command).await.map(|_| ())
    }

    /// As of now, the node `id` is dead.
    pub(super) async fn end_lease(&self, link: &Link, id: &str) -> Result<(), RedisError> {
        let mut command = redis::cmd("ZADD");
        command.arg(self.names.leases()).arg(0).arg(id);
        link.holding.call(&command).await.map(|_| ())
    }

    /// Looks again at what Redis had forgotten, now that everybody has had time to tell it.
    fn end_doubts(&self) {
        let now = Instant::now();
        let due: Vec<_> = {
            let mut doubtful = lock(&self.doubtful);
            let is_due = |(until, _): &(Instant, _)| *until <= now;
            let count = doubtful.iter().take_while(|entry| is_due(entry)).count();
            doubtful.drain(..count).collect()
        };
        for (_, held) in due {
            let outcome = held.end_doubt();
            self.act(&held, outcome);
        }
    }

    /// Lets go of what nobody has wanted for a while.
    fn let_go(&self) {
        let now_s = clock::monotonic_seconds();
        let linger_s = if self.is_leaving.load(Ordering::Acquire) {
            0
        } else {
            clock::ceil_seconds(self.section.linger)
        };
        let resting = std::mem::take(&mut *lock(&self.idle));
        for held in resting {
            match held.let_go(now_s, linger_s) {
                LetGo::No => {}
                LetGo::Later => lock(&self.idle).push_back(held),
                LetGo::Queue => self.enqueue(held, true),
            }
        }
    }
}
