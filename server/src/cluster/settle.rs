//! What customers are told later, unless it is undone before: that a member is gone, that a channel is empty; and counts
//! that the throttle held back.

use std::sync::atomic::Ordering;

use redis::{RedisError, from_redis_value};
use tokio::time::{Duration, MissedTickBehavior, interval};

use super::Cluster;
use super::link::Link;
use crate::storage::redis::names::{Kind, Partition, Thing};
use crate::storage::redis::scripts::SETTLE;

/// How often partitions in which this node has put something off are looked at …
const TICK: Duration = Duration::from_millis(250);

/// … and after how many of them all partitions: a node may have died over it.
const SWEEP: u32 = 20;

/// Entries of a partition that are told in one go.
const AT_ONCE: usize = 100;

impl Cluster {
    /// Something is due in this partition, sooner or later.
    pub(super) fn is_due(&self, partition: Partition) {
        self.due[usize::from(partition.number())].store(true, Ordering::Relaxed);
    }

    /// # Errors
    /// The connection failed.
    pub(super) async fn settle(&self, link: &Link) -> Result<(), RedisError> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tick = 0_u32;
        loop {
            ticks.tick().await;
            tick = tick.wrapping_add(1);
            for partition in Partition::all() {
                let flag = &self.due[usize::from(partition.number())];
                if flag.swap(false, Ordering::Relaxed) || tick.is_multiple_of(SWEEP) {
                    let is_more_to_come = self.settle_partition(link, partition).await?;
                    if is_more_to_come {
                        flag.store(true, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    /// Whether something is left, due now or later.
    async fn settle_partition(&self, link: &Link, partition: Partition) -> Result<bool, RedisError> {
        let due = self.names.due(partition);
        let mut command = redis::cmd("ZRANGE");
        command.arg(&due).arg(0).arg(AT_ONCE - 1).arg("WITHSCORES");
        let entries: Vec<(String, f64)> = from_redis_value(link.holding.call(&command).await?)?;
        let now_ms = self.redis_millis();
        let mut is_more_to_come = entries.len() == AT_ONCE;
        for (entry, at_ms) in entries {
            #[expect(clippy::cast_precision_loss, reason = "a time in milliseconds is exact")]
            if at_ms > now_ms as f64 {
                is_more_to_come = true;
                break;
            }
            self.settle_entry(link, partition, &due, &entry).await?;
        }
        Ok(is_more_to_come)
    }

    async fn settle_entry(
        &self,
        link: &Link,
        partition: Partition,
        due: &str,
        entry: &str,
    ) -> Result<(), RedisError> {
        let mut parts = entry.splitn(4, ':').skip(1);
        let (app, channel) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let user = parts.next().unwrap_or_default();
        let Ok(app_id) = app.parse() else {
            return Ok(());
        };
        let thing = Thing {
            kind: Kind::Channel,
            app: app_id,
            name: channel.into(),
        };
        let state = self.names.state(&thing);
        let outbox = self.names.outbox(partition);
        let app_of = self.apps.by_id(app);
        let most = self.rules.outbox_of(app_of.as_deref()).to_string();
        let args = [entry, app, channel, user, &most, self.rules.publish, &state].map(str::as_bytes);
        SETTLE
            .run(&link.holding, &[due, &outbox, &state], &args)
            .await
            .map(|_| ())
    }
}
