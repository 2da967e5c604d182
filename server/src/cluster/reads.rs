//! Reading the shared state. What is read is true at some moment during the call.

use std::future::Future;
use std::sync::Arc;

use dunlin_protocol::names::{AppId, ChannelName, UserId};
use dunlin_protocol::position::Position;
use futures_util::future::try_join_all;
use redis::{RedisError, Value, from_redis_value};

use super::Cluster;
use super::held::kept;
use super::message::Event;
use super::request::{number, parse_past};
use crate::answer::{Answer, Unavailable};
use crate::apps::App;
use crate::broker::{HistoryPage, HistoryQuery};
use crate::clock;
use crate::presence::{ChannelPage, Occupancy};
use crate::storage::memory::CachedEvent;
use crate::storage::redis::lane::Lane;
use crate::storage::redis::names::{Kind, Names, PARTITIONS, Partition, Thing};
use crate::storage::redis::scripts::PAST;

/// Channels of one partition in a page of a listing.
const PAGE: usize = 500;

/// Partitions that are asked at the same time.
const AT_ONCE: u16 = 16;

fn channel(app: &App, name: &ChannelName) -> Thing {
    Thing {
        kind: Kind::Channel,
        app: app.id.clone(),
        name: name.as_str().into(),
    }
}

impl Cluster {
    /// Reads on a connection of the pool.
    fn read<T, F>(&self, read: impl FnOnce(Arc<Lane>) -> F + Send + 'static) -> Answer<Result<T, Unavailable>>
    where
        T: Send + 'static,
        F: Future<Output = Result<Option<T>, RedisError>> + Send,
    {
        if self.link.load().is_none() {
            return Answer::ready(Err(Unavailable));
        }
        let pool = self.pool.clone();
        Answer::later(async move {
            let lane = pool.get().await.map_err(|error| {
                tracing::debug!(%error, "no connection to read with");
                Unavailable
            })?;
            match read(Arc::new(lane.clone())).await {
                Ok(Some(answer)) => Ok(answer),
                Ok(None) => {
                    tracing::error!("Redis holds what no version of this program writes");
                    Err(Unavailable)
                }
                Err(error) => {
                    tracing::debug!(%error, "reading failed");
                    Err(Unavailable)
                }
            }
        })
    }

    pub(super) fn read_occupancy(
        &self,
        app: &App,
        name: &ChannelName,
    ) -> Answer<Result<Occupancy, Unavailable>> {
        let thing = channel(app, name);
        let names = self.names.clone();
        self.read(async move |lane: Arc<Lane>| Ok(occupancies(&lane, &names, &[thing]).await?.pop()))
    }

    pub(super) fn read_users(
        &self,
        app: &App,
        name: &ChannelName,
    ) -> Answer<Result<Vec<UserId>, Unavailable>> {
        let members = self.names.members(&channel(app, name));
        self.read(async move |lane: Arc<Lane>| {
            let users: Vec<String> = from_redis_value(lane.call(redis::cmd("HKEYS").arg(members)).await?)?;
            let users: Option<Vec<UserId>> = users.iter().map(|user| user.parse().ok()).collect();
            Ok(users.map(|mut users| {
                users.sort();
                users
            }))
        })
    }

    /// The cursor is `PARTITION` or `PARTITION:CHANNEL`, the last one that was listed.
    pub(super) fn read_channels(
        &self,
        app: &App,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Answer<Result<ChannelPage, Unavailable>> {
        let (partition, after) = match cursor.map(|cursor| cursor.split_once(':').unwrap_or((cursor, ""))) {
            Some((partition, after)) => (partition.parse().unwrap_or(PARTITIONS), after.to_owned()),
            None => (0, String::new()),
        };
        let (names, app, prefix) = (self.names.clone(), app.id.clone(), prefix.to_owned());
        self.read(async move |lane: Arc<Lane>| {
            let end = partition.saturating_add(AT_ONCE).min(PARTITIONS);
            let partitions: Vec<Partition> = (partition..end).filter_map(Partition::from_number).collect();
            let lists = partitions.iter().enumerate().map(|(number, partition)| {
                let after = if number == 0 { after.as_str() } else { "" };
                occupied(&lane, &names, *partition, &app, &prefix, after)
            });
            let lists = try_join_all(lists).await?;
            let mut page = ChannelPage {
                channels: Vec::new(),
                next: (end < PARTITIONS).then(|| end.to_string()),
            };
            for (partition, channels) in partitions.iter().zip(lists) {
                let things: Vec<Thing> = channels
                    .iter()
                    .map(|name| Thing {
                        kind: Kind::Channel,
                        app: app.clone(),
                        name: name.as_str().into(),
                    })
                    .collect();
                let last = channels.last().filter(|_| channels.len() == PAGE).cloned();
                let counts = occupancies(&lane, &names, &things).await?;
                // One that was vacated between the two questions is not listed.
                page.channels.extend(
                    channels
                        .into_iter()
                        .zip(counts)
                        .filter(|(_, count)| count.connections > 0),
                );
                if let Some(last) = last {
                    page.next = Some(format!("{}:{last}", partition.number()));
                    break;
                }
            }
            Ok(Some(page))
        })
    }

    pub(super) fn read_cached(
        &self,
        app: &App,
        name: &ChannelName,
    ) -> Answer<Result<Option<CachedEvent>, Unavailable>> {
        let cached = self.names.cached(&channel(app, name));
        self.read(async move |lane: Arc<Lane>| {
            let mut commands = redis::pipe();
            commands.cmd("GET").arg(&cached).cmd("PTTL").arg(&cached);
            let answers = lane.call_all(&commands).await?;
            let [Value::BulkString(json), lives] = &answers[..] else {
                return Ok(Some(None));
            };
            let event = std::str::from_utf8(json).ok().and_then(Event::parse);
            Ok(event.map(|event| {
                let lives_s = u32::try_from(number(lives).unwrap_or(0).div_ceil(1000)).unwrap_or(u32::MAX);
                Some(CachedEvent {
                    name: event.name,
                    data_literal: event.data_literal,
                    expires_at_s: clock::monotonic_seconds().saturating_add(lives_s),
                })
            }))
        })
    }

    pub(super) fn read_history(
        &self,
        app: &App,
        name: &ChannelName,
        query: HistoryQuery,
    ) -> Answer<Result<HistoryPage, Unavailable>> {
        let kept = kept(app, name);
        let thing = channel(app, name);
        let (state, history) = (self.names.state(&thing), self.names.history(&thing));
        self.read(async move |lane: Arc<Lane>| {
            let end = |serial: Option<u64>, open: &str| {
                serial.map_or_else(|| open.to_owned(), |serial| format!("({serial}-0"))
            };
            let args = [
                kept.size.to_string(),
                kept.age_ms.to_string(),
                end(query.after, "-"),
                end(query.before, "+"),
                query.limit.saturating_add(1).to_string(),
                u8::from(query.newest_first).to_string(),
            ];
            let args: Vec<&[u8]> = args.iter().map(String::as_bytes).collect();
            let value = PAST.run(&lane, &[&state, &history], &args).await?;
            Ok(page(value, &query))
        })
    }
}

fn page(value: Value, query: &HistoryQuery) -> Option<HistoryPage> {
    let Value::Array(parts) = value else {
        return None;
    };
    let [epoch, serial, trimmed, events] = <[Value; 4]>::try_from(parts).ok()?;
    let mut events = parse_past(events)?;
    let has_more = events.len() > query.limit;
    events.truncate(query.limit);
    let position = match (number(&epoch), number(&serial)) {
        (Some(epoch), Some(serial)) => Some(Position { epoch, serial }),
        _ => None,
    };
    let is_complete = position.zip(number(&trimmed)).is_some_and(|(position, trimmed)| {
        (trimmed..=position.serial).contains(&query.after.unwrap_or(position.epoch))
    });
    Some(HistoryPage {
        position,
        events,
        has_more,
        is_complete,
    })
}

/// The occupied channels of an app in one partition, in order.
async fn occupied(
    lane: &Lane,
    names: &Names,
    partition: Partition,
    app: &AppId,
    prefix: &str,
    after: &str,
) -> Result<Vec<ChannelName>, RedisError> {
    let from = if after.is_empty() {
        format!("[{prefix}")
    } else {
        format!("({after}")
    };
    let to = if prefix.is_empty() {
        "+".to_owned()
    } else {
        // The alphabet of names ends far below.
        format!("[{prefix}\u{7f}")
    };
    let mut command = redis::cmd("ZRANGEBYLEX");
    command.arg(names.occupied(partition, app)).arg(from).arg(to);
    command.arg("LIMIT").arg(0).arg(PAGE);
    let listed: Vec<String> = from_redis_value(lane.call(&command).await?)?;
    Ok(listed.iter().filter_map(|name| name.parse().ok()).collect())
}

/// How many are in these channels, all of one partition.
async fn occupancies(lane: &Lane, names: &Names, things: &[Thing]) -> Result<Vec<Occupancy>, RedisError> {
    if things.is_empty() {
        return Ok(Vec::new());
    }
    let mut commands = redis::pipe();
    for thing in things {
        commands.cmd("HGET").arg(names.state(thing)).arg("n");
        commands.cmd("HLEN").arg(names.members(thing));
    }
    let answers = lane.call_all(&commands).await?;
    let count = |value: &Value| u32::try_from(number(value).unwrap_or(0)).unwrap_or(u32::MAX);
    let pairs = answers.chunks_exact(2);
    Ok(pairs
        .map(|pair| Occupancy {
            connections: count(&pair[0]),
            users: count(&pair[1]),
        })
        .collect())
}
