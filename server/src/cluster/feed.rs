//! The outbox of the cluster, as the webhook worker of this node reads it. Each partition has one reader at a time, by a
//! lease; two that believe to be it for a moment do no harm, because how far was read is settled where the outcome is
//! stored.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::Object;
use dunlin_protocol::names::ChannelName;
use futures_util::future::{BoxFuture, FutureExt as _, try_join_all};
use redis::{Cmd, RedisError, Value, from_redis_value};
use tokio::time::sleep;

use super::pump::not_understood;
use super::{Cluster, millis};
use crate::answer::Unavailable;
use crate::storage::redis::lane::Lane;
use crate::storage::redis::names::{PARTITIONS, Partition};
use crate::storage::redis::scripts::FORGET;
use crate::storage::redis::target::Lanes;
use crate::webhooks::event::ChannelEvent;
use crate::webhooks::outbox::{Entry, Feed, PartitionNumber, Place};

/// How often a reader looks.
const TICK: Duration = Duration::from_millis(50);

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
        let kept = async {
            let share = PARTITIONS.div_ceil(self.readers(&lane, &id).await?.max(1));
            let (mut taken, mut commands) = (0, Vec::new());
            for (partition, reader) in self.reader_of_each(&lane).await? {
                let is_mine = reader.as_deref() == Some(id.as_str());
                let command = if taken < share && (is_mine || reader.is_none()) {
                    taken += 1;
                    let mut take = redis::cmd("SET");
                    take.arg(self.names.reader(partition)).arg(id.as_str());
                    take.arg(if is_mine { "XX" } else { "NX" });
                    take.arg("PX").arg(millis(self.section.lease));
                    take
                } else if is_mine {
                    self.resign(partition)
                } else {
                    continue;
                };
                commands.push((partition.number(), command));
            }
            let answers = try_join_all(commands.iter().map(|(_, command)| lane.call(command))).await?;
            let owned = commands.iter().zip(answers);
            let owned = owned.filter(|(_, answer)| *answer == Value::Okay);
            let owned = owned.map(|((number, _), _)| *number).collect();
            Ok::<_, RedisError>(owned)
        };
        kept.await.map_err(|error| {
            tracing::debug!(%error, "the readership of the outbox could not be kept");
            Unavailable
        })
    }

    /// Those whose reader this node is; what cannot be given back runs out.
    async fn give_readership_back(&self) -> Result<(), Unavailable> {
        let lane = self.reading_lane().await?;
        let id = self.id.load_full();
        let given = async {
            let readers = self.reader_of_each(&lane).await?;
            let mine = readers
                .iter()
                .filter(|(_, reader)| reader.as_deref() == Some(id.as_str()));
            let mut commands: Vec<Cmd> = mine.map(|(partition, _)| self.resign(*partition)).collect();
            let mut forget_me = redis::cmd("ZREM");
            forget_me.arg(self.names.readers()).arg(id.as_str());
            commands.push(forget_me);
            try_join_all(commands.iter().map(|command| lane.call(command))).await
        };
        given.await.map(|_| ()).map_err(|_: RedisError| Unavailable)
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

    async fn reader_of_each(&self, lane: &Lane) -> Result<Vec<(Partition, Option<String>)>, RedisError> {
        let asked = Partition::all().map(|partition| async move {
            let mut get = redis::cmd("GET");
            let reader = lane.call(get.arg(self.names.reader(partition))).await?;
            Ok((partition, from_redis_value(reader)?))
        });
        try_join_all(asked).await
    }

    /// Whoever is not the reader any more leaves the partition to others.
    fn resign(&self, partition: Partition) -> Cmd {
        let mut command = redis::cmd("DEL");
        command.arg(self.names.reader(partition));
        command
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

    async fn forget_outbox(&self, partition: PartitionNumber, up_to: Place) -> Result<u64, Unavailable> {
        let Some(partition) = Partition::from_number(partition) else {
            return Ok(0);
        };
        let lane = self.reading_lane().await?;
        let keys = [self.names.outbox(partition), self.names.outbox_gone(partition)];
        let first_kept = up_to.next().to_string();
        let lost = FORGET
            .run(&lane, &[&keys[0], &keys[1]], &[first_kept.as_bytes()])
            .await;
        lost.and_then(|lost| Ok(from_redis_value(lost)?))
            .map_err(|_| Unavailable)
    }

    /// How long ago the first entry came that nobody has forgotten.
    async fn oldest_in_outbox(&self, of: &[PartitionNumber]) -> Result<Option<Duration>, Unavailable> {
        let lane = self.reading_lane().await?;
        let looks = of.iter().filter_map(|number| {
            let mut first = redis::cmd("XRANGE");
            first.arg(self.names.outbox(Partition::from_number(*number)?));
            first.arg("-").arg("+").arg("COUNT").arg(1);
            let lane = &lane;
            Some(async move {
                let entries: Vec<(String, Value)> = from_redis_value(lane.call(&first).await?)?;
                Ok::<_, RedisError>(entries.first().and_then(|(place, _)| place.parse::<Place>().ok()))
            })
        });
        let places = try_join_all(looks).await.map_err(|error| {
            tracing::debug!(%error, "the outbox could not be looked at");
            Unavailable
        })?;
        let now_ms = self.redis_millis();
        let oldest = places.into_iter().flatten().min();
        Ok(oldest.map(|place| Duration::from_millis(now_ms.saturating_sub(place.ms))))
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
        "bind" => ChannelEvent::Bound {
            uuid: field("user")?.into(),
        },
        "unbind" => ChannelEvent::Unbound {
            uuid: field("user")?.into(),
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

    fn forget(&self, partition: PartitionNumber, up_to: Place) -> BoxFuture<'_, Result<u64, Unavailable>> {
        self.forget_outbox(partition, up_to).boxed()
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        // Nobody is left to hear that it failed.
        self.give_readership_back().map(drop).boxed()
    }

    fn oldest<'a>(
        &'a self,
        of: &'a [PartitionNumber],
    ) -> BoxFuture<'a, Result<Option<Duration>, Unavailable>> {
        self.oldest_in_outbox(of).boxed()
    }

    fn wait(&self) -> BoxFuture<'_, ()> {
        sleep(TICK).boxed()
    }

    fn is_durable(&self) -> bool {
        true
    }
}
