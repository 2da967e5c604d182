//! Whether Redis, the nodes and the outbox agree with the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, cmd, from_redis_value};

use super::node::Node;
use super::witness::{EventId, Seat};
use super::world::{Truth, watchlist};

/// How long a question may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Reads what a world has left in Redis.
pub(super) struct Judge {
    connection: MultiplexedConnection,
    prefix: String,
}

/// An entry of the outbox.
struct Entry {
    serial: u64,
    channel: String,
    event: String,
    user: Option<String>,
}

impl Judge {
    pub(super) async fn new(redis: SocketAddr, prefix: &str) -> Result<Self> {
        let client = redis::Client::open(format!("redis://{redis}"))?;
        // All worlds and their ways to Redis share a thread, which may be busy.
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        Ok(Self {
            connection: client
                .get_multiplexed_async_connection_with_config(&config)
                .await?,
            prefix: prefix.to_owned(),
        })
    }

    async fn ask<T: FromRedisValue>(&mut self, words: &[&str]) -> Result<T> {
        let mut command = cmd(words[0]);
        command.arg(&words[1..]);
        let answer = command.query_async::<redis::Value>(&mut self.connection).await?;
        Ok(from_redis_value(answer)?)
    }

    async fn keys(&mut self, pattern: &str) -> Result<Vec<String>> {
        let pattern = format!("{}:{pattern}", self.prefix);
        self.ask(&["KEYS", &pattern]).await
    }

    pub(super) async fn clean(&mut self) -> Result<()> {
        let keys = self.keys("*").await?;
        let mut command = cmd("UNLINK");
        command.arg(keys);
        Ok(command.query_async::<()>(&mut self.connection).await?)
    }

    /// What is not yet, or not, as it should be.
    pub(super) async fn complaints(&mut self, truth: &Truth, nodes: &[&Node]) -> Result<Vec<String>> {
        let mut complaints = Vec::new();
        self.look_at_redis(truth, &mut complaints).await?;
        for (number, node) in nodes.iter().enumerate() {
            look_at_node(truth, number, node, &mut complaints);
        }
        Ok(complaints)
    }

    async fn look_at_redis(&mut self, truth: &Truth, complaints: &mut Vec<String>) -> Result<()> {
        let keys = self.keys("*").await?;
        let leases = keys.iter().find(|key| key.ends_with(":leases"));
        let alive: BTreeSet<String> = match leases {
            Some(leases) => self.ask(&["ZRANGE", leases, "0", "-1"]).await?,
            None => BTreeSet::new(),
        };
        if alive.len() != truth.nodes {
            complaints.push(format!("{} leases: {alive:?}", alive.len()));
        }
        let (mut connections, mut members, mut signed_in) =
            <(BTreeMap<_, _>, BTreeMap<_, _>, BTreeMap<_, _>)>::default();
        let (mut occupied, mut bound) = (BTreeSet::new(), BTreeMap::new());
        for key in &keys {
            let (_, name) = key.split_once("}:").context("every key has a partition")?;
            let (part, rest) = name.split_once(':').unwrap_or((name, ""));
            match part {
                "state" => {
                    let fields: BTreeMap<String, String> = self.ask(&["HGETALL", key]).await?;
                    let n = check_state(key, &fields, &alive, complaints);
                    if let Some(user) = rest.strip_prefix("u:").and_then(after_app) {
                        if n > 0 {
                            signed_in.insert(user.to_owned(), n);
                        }
                    } else if let Some(channel) = rest.strip_prefix("c:").and_then(after_app)
                        && n > 0
                    {
                        connections.insert(channel.to_owned(), n);
                    }
                }
                "members" => {
                    let users: BTreeSet<String> = self.ask(&["HKEYS", key]).await?;
                    let channel = rest.strip_prefix("c:").and_then(after_app).unwrap_or(rest);
                    members.insert(channel.to_owned(), users);
                }
                "bound" => {
                    let (node, thing) = rest.split_once(':').context("of a node")?;
                    let channel = thing.strip_prefix("c:").and_then(after_app).unwrap_or(thing);
                    let of_channel: &mut BTreeMap<String, usize> =
                        bound.entry(channel.to_owned()).or_default();
                    for (uuid, connections) in self.ask::<BTreeMap<String, usize>>(&["HGETALL", key]).await? {
                        *of_channel.entry(uuid).or_default() += connections;
                    }
                    if !alive.contains(node) {
                        complaints.push(format!("left behind: {key}"));
                    }
                }
                "occupied" => occupied.extend(self.ask::<Vec<String>>(&["ZRANGE", key, "0", "-1"]).await?),
                "held" | "index" => {
                    let node = rest.split(':').next().unwrap_or_default();
                    if !alive.contains(node) {
                        complaints.push(format!("left behind: {key}"));
                    }
                }
                "due" | "fence" | "outbox" | "history" | "cached" | "leases" | "control" => {}
                _ => complaints.push(format!("nobody knows {key}")),
            }
        }
        compare("connections", &truth.connections, &connections, complaints);
        compare("members", &truth.members, &members, complaints);
        compare("bound", &truth.bound, &bound, complaints);
        compare("signed in", &truth.signed_in, &signed_in, complaints);
        let expected: BTreeSet<String> = truth.connections.keys().cloned().collect();
        compare("occupied channels", &expected, &occupied, complaints);
        // Last: whoever left while the others were looked at has left something to be told.
        let due = self.keys("*}:due").await?;
        complaints.extend(due.into_iter().map(|key| format!("still to be told: {key}")));
        Ok(())
    }

    /// Folds the outbox; returns how many entries it has.
    pub(super) async fn entries(&mut self, truth: &Truth, wrong: &mut Vec<String>) -> Result<usize> {
        let keys = self.keys("*}:outbox").await?;
        let mut entries = Vec::new();
        for key in keys {
            let stream: Vec<(String, Vec<String>)> = self.ask(&["XRANGE", &key, "-", "+"]).await?;
            for (_, fields) in stream {
                let field = |name: &str| {
                    let pair = fields.chunks_exact(2).find(|pair| pair[0] == name);
                    pair.map(|pair| pair[1].clone())
                };
                entries.push(Entry {
                    serial: field("serial").context("an entry has a serial")?.parse()?,
                    channel: field("channel").context("an entry has a channel")?,
                    event: field("event").context("an entry has an event")?,
                    user: field("user"),
                });
            }
        }
        entries.sort_by(|a, b| (&a.channel, a.serial).cmp(&(&b.channel, b.serial)));
        fold(&entries, truth, wrong);
        Ok(entries.len())
    }
}

fn compare<T: PartialEq + std::fmt::Debug>(
    what: &str,
    expected: &T,
    found: &T,
    complaints: &mut Vec<String>,
) {
    if expected != found {
        complaints.push(format!("{what} in Redis: {found:?}; in truth: {expected:?}"));
    }
}

/// `APP:NAME`
fn after_app(text: &str) -> Option<&str> {
    text.split_once(':').map(|(_, name)| name)
}

/// Its number of connections, of which each must belong to a node that lives.
fn check_state(
    key: &str,
    fields: &BTreeMap<String, String>,
    alive: &BTreeSet<String>,
    complaints: &mut Vec<String>,
) -> usize {
    let number = |name: &str| {
        fields
            .get(name)
            .and_then(|text| text.parse::<usize>().ok())
            .unwrap_or(0)
    };
    let (mut sum, mut nodes) = (0, 0);
    for (field, count) in fields {
        if let Some(node) = field.strip_prefix("c:") {
            nodes += 1;
            sum += count.parse::<usize>().unwrap_or(0);
            if !alive.contains(node) {
                complaints.push(format!("{key} still counts {node}"));
            }
        }
    }
    if (sum, nodes) != (number("n"), number("nodes")) {
        complaints.push(format!("{key} does not add up: {fields:?}"));
    }
    number("n")
}

fn look_at_node(truth: &Truth, number: usize, node: &Node, complaints: &mut Vec<String>) {
    let mut complain = |text: String| complaints.push(format!("node {number}: {text}"));
    if node.is_paused() || !node.cluster.is_ready() {
        complain("is not ready".to_owned());
    }
    for seat in node.witness.seats() {
        let Seat {
            connection, channel, ..
        } = &seat;
        if !seat.is_in() {
            complain(format!("{connection} still waits to join {channel}, or to leave"));
        } else if channel.starts_with("presence-") && truth.members.get(channel) != Some(&seat.members) {
            complain(format!(
                "{connection} sees {:?} in {channel}; in truth: {:?}",
                seat.members,
                truth.members.get(channel)
            ));
        }
    }
    let expected: BTreeMap<String, bool> = watchlist()
        .into_iter()
        .map(|user| {
            let is_there = truth.signed_in.contains_key(&user);
            (user, is_there)
        })
        .collect();
    for (connection, watcher) in node.witness.watchers() {
        if watcher.sees != expected {
            complain(format!(
                "{connection} watches and sees {:?}; in truth: {expected:?}",
                watcher.sees
            ));
        }
    }
}

/// Every event must turn over what was, and in the end it must be as it is in truth.
fn fold(entries: &[Entry], truth: &Truth, wrong: &mut Vec<String>) {
    let mut occupied: BTreeSet<String> = BTreeSet::new();
    let mut members: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut bound: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for pair in entries.windows(2) {
        if (&pair[0].channel, pair[0].serial) == (&pair[1].channel, pair[1].serial) {
            wrong.push(format!(
                "two entries of {} are {}",
                pair[0].channel, pair[0].serial
            ));
        }
    }
    for entry in entries {
        let Entry {
            serial,
            channel,
            event,
            user,
        } = entry;
        let user = user.clone().unwrap_or_default();
        let there = members.entry(channel.clone()).or_default();
        let turns = match event.as_str() {
            "channel_occupied" => occupied.insert(channel.clone()),
            "channel_vacated" => occupied.remove(channel),
            "member_added" => there.insert(user.clone()),
            "member_removed" => there.remove(&user),
            // As many times as there are connections.
            "bind" => {
                let bound = bound.entry(channel.clone()).or_default();
                *bound.entry(user.clone()).or_default() += 1;
                true
            }
            "unbind" => bound
                .get_mut(channel)
                .and_then(|bound| unbind(bound, &user))
                .is_some(),
            _ => true,
        };
        if !turns {
            wrong.push(format!("{event} {user} on {channel} comes twice, at {serial}"));
        }
    }
    members.retain(|_, users| !users.is_empty());
    let mut differ = Vec::new();
    compare(
        "members by the outbox, not",
        &truth.members,
        &members,
        &mut differ,
    );
    bound.retain(|_, bound| !bound.is_empty());
    compare("bound by the outbox, not", &truth.bound, &bound, &mut differ);
    let expected = truth.connections.keys().cloned().collect();
    compare("channels by the outbox, not", &expected, &occupied, &mut differ);
    wrong.append(&mut differ);
}

fn unbind(bound: &mut BTreeMap<String, usize>, uuid: &str) -> Option<()> {
    let connections = bound.get_mut(uuid)?;
    *connections -= 1;
    if *connections == 0 {
        bound.remove(uuid);
    }
    Some(())
}

/// What was acknowledged comes in the order in which its publisher has published it.
pub(super) fn out_of_order(seat: &Seat, acknowledged: &BTreeSet<EventId>) -> Option<String> {
    let mut latest: BTreeMap<u64, u64> = BTreeMap::new();
    for event in seat.heard.iter().filter(|event| acknowledged.contains(event)) {
        let latest = latest.entry(event.publisher).or_default();
        if event.number <= *latest {
            return Some(format!("{} heard {event:?} behind {latest}", seat.connection));
        }
        *latest = event.number;
    }
    None
}
