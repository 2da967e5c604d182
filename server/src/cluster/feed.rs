//! The outbox of the cluster, as the webhook worker of this node reads it. Each partition has one reader at a time, by a
//! lease; two that believe to be it for a moment do no harm, because how far was read is settled where the outcome is
//! stored.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::Object;
use dunlin_protocol::names::ChannelName;
use futures_util::future::{BoxFuture, FutureExt as _, try_join_all};
use redis::{RedisError, Value, from_redis_value};
use tokio::time::sleep;

use super::pump::not_understood;
use super::{Cluster, millis};
use crate::answer::Unavailable;
use crate::lock::lock;
use crate::storage::redis::lane::Lane;
use crate::storage::redis::names::{PARTITIONS, Partition};
use crate::storage::redis::target::Lanes;
use crate::webhooks::event::ChannelEvent;
use crate::webhooks::outbox::{Entry, Feed, PartitionNumber, Place, Waiting};

/// How often a reader looks.
const TICK: Duration = Duration::from_millis(50);

/// What has left the outbox of the partitions that this node reads: because it was read, or because there was no room.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Of each partition: how many had left at the last look, those forgotten since included.
    partitions: HashMap<PartitionNumber, u64>,
    dropped: u64,
}

impl Left {
    /// What is another's, another may forget.
    fn keep(&mut self, owned: &[PartitionNumber]) {
        self.partitions.retain(|partition, _| owned.contains(partition));
    }

    /// `None`: it is not known how many. Then the next look begins anew.
    fn forgot(&mut self, partition: PartitionNumber, count: Option<u64>) {
        match (count, self.partitions.get_mut(&partition)) {
            (Some(count), Some(left)) => *left += count,
            (_, _) => drop(self.partitions.remove(&partition)),
        }
    }

    fn saw(&mut self, partition: PartitionNumber, left: u64) {
        if let Some(known) = self.partitions.insert(partition, left) {
            self.dropped += left.saturating_sub(known);
        }
    }
}

impl Cluster {
    /// A connection to read the outbox with, and whose failure costs nobody else anything.
    async fn reading_lane(&self) -> Result<Object<Lanes>, Unavailable> {
        if self.link.load().is_none() {
            return Err(Unavailable);
        }
        self.pool.get().await.map_err(|_| Unavailable)
    }

    /// Takes and keeps the readership of this node's share of the partitions.
    async fn keep_readership(&self) -> Result<Vec<PartitionNumber>, Unavailable> {
        let lane = self.reading_lane().await?;
        let id = self.id.load_full();
        let lease_ms = millis(self.section.lease).to_string();
        let kept = async {
            let share = PARTITIONS.div_ceil(self.readers(&lane, &id).await?.max(1));
            let readers =
                try_join_all(Partition::all().map(|partition| self.reader(&lane, partition))).await?;
            let mut owned = Vec::new();
            for (partition, reader) in Partition::all().zip(readers) {
                let key = self.names.reader(partition);
                let is_mine = reader.as_deref() == Some(id.as_str());
                let has_room = owned.len() < usize::from(share);
                if is_mine && has_room {
                    let mut keep = redis::cmd("PEXPIRE");
                    lane.call(keep.arg(&key).arg(&lease_ms)).await?;
                    owned.push(partition.number());
                } else if is_mine {
                    lane.call(redis::cmd("DEL").arg(&key)).await?;
                } else if reader.is_none() && has_room {
                    let mut take = redis::cmd("SET");
                    take.arg(&key).arg(id.as_str()).arg("NX").arg("PX").arg(&lease_ms);
                    if lane.call(&take).await? != Value::Nil {
                        owned.push(partition.number());
                    }
                }
            }
            Ok::<_, RedisError>(owned)
        };
        let kept = kept.await.inspect(|owned| lock(&self.left).keep(owned));
        kept.map_err(|error| {
            tracing::debug!(%error, "the readership of the outbox could not be kept");
            Unavailable
        })
    }

    /// How many read, this one included: nodes that deliver, not all there are.
    async fn readers(&self, lane: &Lane, id: &str) -> Result<u16, RedisError> {
        let (key, lease_ms) = (self.names.readers(), millis(self.section.lease));
        let now_ms = self.redis_millis();
        let mut commands = redis::pipe();
        commands.cmd("ZADD").arg(&key).arg(now_ms + lease_ms).arg(id);
        commands.cmd("ZREMRANGEBYSCORE").arg(&key).arg("-inf").arg(now_ms);
        commands.cmd("ZCARD").arg(&key);
        commands.cmd("PEXPIRE").arg(&key).arg(lease_ms * 2);
        let answers = lane.call_all(&commands).await?;
        let count = answers.into_iter().nth(2).ok_or_else(not_understood)?;
        Ok(from_redis_value(count)?)
    }

    async fn reader(&self, lane: &Lane, partition: Partition) -> Result<Option<String>, RedisError> {
        let value = lane
            .call(redis::cmd("GET").arg(self.names.reader(partition)))
            .await?;
        Ok(from_redis_value(value)?)
    }

    async fn read_outbox(
        &self,
        after: &[(PartitionNumber, Place)],
        limit: usize,
    ) -> Result<Vec<(PartitionNumber, Entry)>, Unavailable> {
        let lane = self.reading_lane().await?;
        let streams: Vec<(String, PartitionNumber, Place)> = after
            .iter()
            .filter_map(|(number, place)| {
                let partition = Partition::from_number(*number)?;
                Some((self.names.outbox(partition), *number, *place))
            })
            .collect();
        // One command where one server has all of them.
        let at_once = if self.target.is_cluster() {
            1
        } else {
            streams.len().max(1)
        };
        let reads = streams.chunks(at_once).map(|some| {
            let mut command = redis::cmd("XREAD");
            command.arg("COUNT").arg(limit).arg("STREAMS");
            for (key, ..) in some {
                command.arg(key);
            }
            for (.., place) in some {
                command.arg(place.to_string());
            }
            let lane = &lane;
            async move { lane.call(&command).await }
        });
        let answers = try_join_all(reads).await.map_err(|error| {
            tracing::debug!(%error, "the outbox could not be read");
            Unavailable
        })?;
        let numbers: HashMap<&str, PartitionNumber> = streams
            .iter()
            .map(|(key, number, _)| (key.as_str(), *number))
            .collect();
        let mut entries = Vec::new();
        for answer in answers {
            if answer == Value::Nil {
                continue;
            }
            let read: HashMap<String, Vec<(String, Vec<String>)>> =
                from_redis_value(answer).map_err(|_| Unavailable)?;
            for (key, found) in read {
                let Some(number) = numbers.get(key.as_str()) else {
                    continue;
                };
                for (place, fields) in found {
                    if let Some(entry) = parse(&place, &fields) {
                        entries.push((*number, entry));
                    } else {
                        tracing::error!(
                            key,
                            place,
                            "an entry of the outbox that this version does not know"
                        );
                    }
                }
            }
        }
        Ok(entries)
    }

    async fn forget_outbox(&self, number: PartitionNumber, up_to: Place) -> Result<(), Unavailable> {
        let Some(partition) = Partition::from_number(number) else {
            return Ok(());
        };
        let lane = self.reading_lane().await?;
        let mut trim = redis::cmd("XTRIM");
        trim.arg(self.names.outbox(partition))
            .arg("MINID")
            .arg("=")
            .arg(up_to.next().to_string());
        let trimmed = lane.call(&trim).await;
        let count = trimmed.as_ref().ok().cloned();
        let count = count.and_then(|count| from_redis_value(count).ok());
        lock(&self.left).forgot(number, count);
        trimmed.map(|_| ()).map_err(|_| Unavailable)
    }

    async fn outbox_waiting(&self, of: &[PartitionNumber]) -> Result<Waiting, Unavailable> {
        let lane = self.reading_lane().await?;
        let looks = of.iter().filter_map(|number| {
            let partition = Partition::from_number(*number)?;
            let lane = &lane;
            Some(async move { Ok((*number, self.look_at_outbox(lane, partition).await?)) })
        });
        let looks: Vec<_> = try_join_all(looks).await.map_err(|error: RedisError| {
            tracing::debug!(%error, "the outbox could not be looked at");
            Unavailable
        })?;
        let now_ms = self.redis_millis();
        let mut left = lock(&self.left);
        let mut oldest = None;
        for (number, (gone, first_ms)) in looks {
            left.saw(number, gone);
            let age = first_ms.map(|ms| Duration::from_millis(now_ms.saturating_sub(ms)));
            oldest = oldest.max(age);
        }
        let dropped = left.dropped;
        Ok(Waiting { oldest, dropped })
    }

    /// How many entries have ever left a partition, and when its first one came.
    async fn look_at_outbox(
        &self,
        lane: &Lane,
        partition: Partition,
    ) -> Result<(u64, Option<u64>), RedisError> {
        let mut look = redis::cmd("XINFO");
        look.arg("STREAM").arg(self.names.outbox(partition));
        let answer = match lane.call(&look).await {
            // Nothing was ever written there.
            Err(error) if error.code() == Some("ERR") => return Ok((0, None)),
            answer => answer?,
        };
        let facts: HashMap<String, Value> = from_redis_value(answer)?;
        let number = |name| {
            let value = facts.get(name).cloned().ok_or_else(not_understood)?;
            Ok::<u64, RedisError>(from_redis_value(value)?)
        };
        let gone = number("entries-added")?.saturating_sub(number("length")?);
        let first: Option<(String, Value)> = match facts.get("first-entry") {
            Some(entry) => from_redis_value(entry.clone())?,
            None => None,
        };
        let first: Option<Place> = first.and_then(|(place, _)| place.parse().ok());
        Ok((gone, first.map(|place| place.ms)))
    }
}

fn parse(place: &str, fields: &[String]) -> Option<Entry> {
    let field = |name: &str| {
        let mut pairs = fields.chunks_exact(2);
        pairs.find(|pair| pair[0] == name).map(|pair| pair[1].as_str())
    };
    let channel: ChannelName = field("channel")?.parse().ok()?;
    let event = match field("event")? {
        "channel_occupied" => ChannelEvent::Occupied,
        "channel_vacated" => ChannelEvent::Vacated,
        "member_added" => ChannelEvent::MemberAdded {
            user_id: field("user")?.parse().ok()?,
        },
        "member_removed" => ChannelEvent::MemberRemoved {
            user_id: field("user")?.parse().ok()?,
        },
        "cache_miss" => ChannelEvent::CacheMiss,
        "subscription_count" => ChannelEvent::SubscriptionCount {
            count: field("count")?.parse().ok()?,
        },
        "published" => ChannelEvent::Published(Arc::new(serde_json::from_str(field("data")?).ok()?)),
        _ => return None,
    };
    Some(Entry {
        place: place.parse().ok()?,
        app: field("app")?.parse().ok()?,
        channel,
        event,
        happened_at_ms: field("at")?.parse().ok()?,
    })
}

impl Feed for Cluster {
    fn partitions(&self) -> BoxFuture<'_, Result<Vec<PartitionNumber>, Unavailable>> {
        self.keep_readership().boxed()
    }

    fn read<'a>(
        &'a self,
        after: &'a [(PartitionNumber, Place)],
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(PartitionNumber, Entry)>, Unavailable>> {
        self.read_outbox(after, limit).boxed()
    }

    fn forget(&self, partition: PartitionNumber, up_to: Place) -> BoxFuture<'_, Result<(), Unavailable>> {
        self.forget_outbox(partition, up_to).boxed()
    }

    fn waiting<'a>(&'a self, of: &'a [PartitionNumber]) -> BoxFuture<'a, Result<Waiting, Unavailable>> {
        self.outbox_waiting(of).boxed()
    }

    fn wait(&self) -> BoxFuture<'_, ()> {
        sleep(TICK).boxed()
    }

    fn is_durable(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_left_the_outbox_and_was_not_forgotten_was_dropped() {
        let mut left = Left::default();
        // What left before the first look is nobody's business here.
        left.saw(1, 500);
        left.forgot(1, Some(40));
        left.saw(1, 540);
        assert_eq!(left.dropped, 0);
        left.forgot(1, Some(10));
        left.saw(1, 557);
        assert_eq!(left.dropped, 7);
        // Another read it meanwhile, then nobody knows how many were forgotten, then Redis was emptied.
        left.keep(&[2]);
        left.saw(1, 900);
        left.forgot(1, None);
        left.saw(1, 950);
        left.saw(1, 0);
        left.forgot(3, Some(5));
        left.saw(3, 5);
        assert_eq!(left.dropped, 7);
    }
}
