//! One seed: three nodes, what happens to them, and what is true meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::judge::Judge;
use super::node::{Command, Node, Published, times};
use super::witness::{EventId, Seat};
use crate::stage::proxy::{Cut, Proxy};
use crate::wait::{last, until};

const NODES: usize = 3;
const CHANNELS: [&str; 5] = ["presence-a", "presence-b", "open", "cache-c", "private-d"];
const USERS: [&str; 4] = ["ann", "bob", "cyd", "dee"];
const OPERATIONS: u32 = 90;
const LONGEST_GAP: Duration = Duration::from_millis(50);

/// How long the nodes may take to agree, once nothing disturbs them any more. What is put off is told by those who
/// have put it off, or at the latest by a sweep of all partitions every five seconds.
const QUIET_DEADLINE: Duration = Duration::from_secs(20);
const CALM_DEADLINE: Duration = Duration::from_secs(15);
const HEARD_DEADLINE: Duration = Duration::from_secs(5);

/// A connection that is open.
#[derive(Clone, Debug)]
pub(super) enum Connection {
    InChannel {
        channel: &'static str,
        user: Option<&'static str>,
    },
    SignedIn {
        user: &'static str,
    },
}

/// A place for a node: it comes and goes, its way to Redis stays.
struct Place {
    proxy: Proxy,
    node: Option<Node>,
    /// What is really open, until the node is killed.
    open: BTreeMap<u32, Connection>,
    starts_at: Option<Instant>,
    heals_at: Option<Instant>,
}

/// What was found of one seed.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) seed: u64,
    pub(super) wrong: Vec<String>,
    pub(super) history: String,
    pub(super) faults: usize,
    pub(super) entries: usize,
    pub(super) events: usize,
    pub(super) quiet_after: Duration,
}

/// What is true of everything that is shared.
#[derive(Clone, Debug, Default)]
pub(super) struct Truth {
    /// Connections in each channel that has some.
    pub(super) connections: BTreeMap<String, usize>,
    pub(super) members: BTreeMap<String, BTreeSet<String>>,
    /// Connections of each who is bound to each channel.
    pub(super) bound: BTreeMap<String, BTreeMap<String, usize>>,
    /// Connections of each user who is signed in.
    pub(super) signed_in: BTreeMap<String, usize>,
    pub(super) nodes: usize,
}

pub(super) struct World {
    seed: u64,
    dice: StdRng,
    redis: SocketAddr,
    prefix: String,
    places: Vec<Place>,
    begin: Instant,
    history: String,
    next_connection: u32,
    next_publisher: u64,
    publishers: Vec<u64>,
    next_number: u64,
    faults: usize,
    wrong: Vec<String>,
    /// Of nodes that are no more.
    seats: Vec<Seat>,
    published: Vec<Published>,
}

impl World {
    /// Plays the seed, with names of its own.
    ///
    /// # Errors
    /// Something is missing on this machine.
    pub(super) async fn play(seed: u64, redis: SocketAddr) -> Result<Verdict> {
        let mut world = Self {
            seed,
            dice: StdRng::seed_from_u64(seed),
            redis,
            prefix: format!("model-{seed}"),
            places: Vec::new(),
            begin: Instant::now(),
            history: String::new(),
            next_connection: 0,
            next_publisher: 0,
            publishers: vec![0; NODES],
            next_number: 0,
            faults: 0,
            wrong: Vec::new(),
            seats: Vec::new(),
            published: Vec::new(),
        };
        for _ in 0..NODES {
            world.places.push(Place {
                proxy: Proxy::start(vec![redis]).await?,
                node: None,
                open: BTreeMap::new(),
                starts_at: Some(Instant::now()),
                heals_at: None,
            });
        }
        world.catch_up().await?;
        for _ in 0..OPERATIONS {
            let gap = world.dice.random_range(Duration::ZERO..LONGEST_GAP);
            last(gap).await;
            world.catch_up().await?;
            world.operate().await?;
        }
        world.end().await
    }

    fn note(&mut self, text: &str) {
        let ms = self.begin.elapsed().as_millis();
        writeln!(self.history, "{ms:>6} ms  {text}").expect("a String takes any text");
    }

    /// Nodes that are to come back do, and ways to Redis that are to heal.
    async fn catch_up(&mut self) -> Result<()> {
        let now = Instant::now();
        for number in 0..self.places.len() {
            let place = &mut self.places[number];
            if place.heals_at.is_some_and(|at| at <= now) {
                place.heals_at = None;
                place.proxy.heal();
                self.note(&format!("node {number}: the way to Redis is open again"));
            }
            let place = &mut self.places[number];
            if place.starts_at.is_some_and(|at| at <= now) {
                place.starts_at = None;
                place.node = Some(Node::start(place.proxy.address, &self.prefix).await?);
                self.next_publisher += 1;
                self.publishers[number] = self.next_publisher;
                self.note(&format!("node {number} starts"));
            }
        }
        Ok(())
    }

    async fn operate(&mut self) -> Result<()> {
        let number = self.dice.random_range(0..NODES);
        let what = self.dice.random_range(0..100);
        if self.places[number].node.is_none() {
            return Ok(());
        }
        match what {
            0..34 => self.join(number),
            34..55 => self.leave(number),
            55..60 => self.sign_in(number),
            60..64 => self.sign_out(number),
            64..82 => {
                let channel = CHANNELS.choose(&mut self.dice).copied().unwrap_or_default();
                self.publish(number, channel);
            }
            82..85 => self.publish_in_calm().await?,
            85..89 => self.pause(number),
            89..93 => self.stall(number),
            93..96 => self.cut(number),
            96..99 => self.kill(number),
            _ => self.say_goodbye(number).await,
        }
        Ok(())
    }

    fn tell(&self, number: usize, command: Command) {
        if let Some(node) = &self.places[number].node {
            node.tell(command);
        }
    }

    fn join(&mut self, number: usize) {
        let channel = CHANNELS.choose(&mut self.dice).copied().unwrap_or_default();
        let user = USERS.choose(&mut self.dice).copied();
        let user = user.filter(|_| channel.starts_with("presence-"));
        let connection = self.next_connection;
        self.next_connection += 1;
        self.places[number]
            .open
            .insert(connection, Connection::InChannel { channel, user });
        let command = Command::Join {
            connection,
            channel: channel.to_owned(),
            user: user.map(str::to_owned),
        };
        self.tell(number, command);
        let who = user.unwrap_or("somebody");
        self.note(&format!("node {number}: {connection} joins {channel} as {who}"));
    }

    fn leave(&mut self, number: usize) {
        let open = self.places[number].open.iter();
        let in_channels = open.filter(|(_, open)| matches!(open, Connection::InChannel { .. }));
        let connections: Vec<u32> = in_channels.map(|(connection, _)| *connection).collect();
        if let Some(connection) = connections.choose(&mut self.dice).copied() {
            self.places[number].open.remove(&connection);
            self.tell(number, Command::Leave(connection));
            self.note(&format!("node {number}: {connection} leaves"));
        }
    }

    fn sign_in(&mut self, number: usize) {
        let user = USERS.choose(&mut self.dice).copied().unwrap_or_default();
        let connection = self.next_connection;
        self.next_connection += 1;
        self.places[number]
            .open
            .insert(connection, Connection::SignedIn { user });
        let command = Command::SignIn {
            connection,
            user: user.to_owned(),
            watchlist: watchlist(),
        };
        self.tell(number, command);
        self.note(&format!("node {number}: {connection} signs in as {user}"));
    }

    fn sign_out(&mut self, number: usize) {
        let open = self.places[number].open.iter();
        let signed_in: Vec<(u32, &'static str)> = open
            .filter_map(|(connection, open)| match open {
                Connection::SignedIn { user } => Some((*connection, *user)),
                Connection::InChannel { .. } => None,
            })
            .collect();
        if let Some((connection, user)) = signed_in.choose(&mut self.dice).copied() {
            self.places[number].open.remove(&connection);
            let command = Command::SignOut {
                connection,
                user: user.to_owned(),
                watchlist: watchlist(),
            };
            self.tell(number, command);
            self.note(&format!("node {number}: {connection} signs out"));
        }
    }

    fn publish(&mut self, number: usize, channel: &str) -> EventId {
        self.next_number += 1;
        let event = EventId {
            publisher: self.publishers[number],
            number: self.next_number,
        };
        let command = Command::Publish {
            channel: channel.to_owned(),
            event,
        };
        self.tell(number, command);
        self.note(&format!("node {number} publishes {event:?} on {channel}"));
        event
    }

    /// While nothing disturbs, everybody hears everything that was acknowledged.
    async fn publish_in_calm(&mut self) -> Result<()> {
        let channel = CHANNELS.choose(&mut self.dice).copied().unwrap_or_default();
        if !self.calm_down().await? {
            return Ok(());
        }
        let disturbances = self.disturbances();
        let mut events = Vec::new();
        for _ in 0..10 {
            let number = self.dice.random_range(0..NODES);
            events.push(self.publish(number, channel));
        }
        let nodes = || self.places.iter().filter_map(|place| place.node.as_ref());
        let answers = || -> Vec<Published> {
            let all = nodes().flat_map(Node::published);
            all.filter(|published| events.contains(&published.event))
                .collect()
        };
        let answered = until(HEARD_DEADLINE, || answers().len() == events.len()).await;
        let ok: Vec<EventId> = answers()
            .iter()
            .filter(|published| published.is_ok)
            .map(|published| published.event)
            .collect();
        let all_heard = || nodes().all(|node| node.witness.all_heard(channel, &ok));
        let heard = until(HEARD_DEADLINE, all_heard).await;
        if self.disturbances() != disturbances {
            // The machine was so busy that a node has lost sight of Redis.
            self.note("it was no calm");
            return Ok(());
        }
        if answered.is_none() || ok.len() < events.len() {
            self.wrong.push(format!(
                "a publication on {channel} was refused or not answered in the calm"
            ));
        }
        if heard.is_none() {
            let text = format!("not everybody on {channel} has heard all of {ok:?}, in the calm");
            self.note(&text);
            self.wrong.push(text);
        }
        Ok(())
    }

    /// How often nodes have lost Redis or their lease, for whatever reason.
    fn disturbances(&self) -> u64 {
        let nodes = self.places.iter().filter_map(|place| place.node.as_ref());
        let counts = nodes.map(|node| {
            let counters = &node.cluster.counters;
            counters.losses.load(Ordering::Relaxed) + counters.rebirths.load(Ordering::Relaxed)
        });
        counts.sum()
    }

    /// Waits until all faults are over and everybody is in who wants in, and that for long enough for a node to learn
    /// what had become of it.
    async fn calm_down(&mut self) -> Result<bool> {
        let deadline = Instant::now() + CALM_DEADLINE;
        let mut calm_since = (Instant::now(), self.disturbances());
        loop {
            self.catch_up().await?;
            let unrest: Vec<String> = (0..NODES).filter_map(|number| self.unrest(number)).collect();
            let disturbances = self.disturbances();
            if !unrest.is_empty() || disturbances != calm_since.1 {
                calm_since = (Instant::now(), disturbances);
            } else if calm_since.0.elapsed() > times::REFRESH * 2 {
                self.note("calm");
                return Ok(true);
            }
            if Instant::now() > deadline {
                self.note("no calm");
                self.wrong.push(format!("no calm in time: {}", unrest.join(", ")));
                return Ok(false);
            }
            last(Duration::from_millis(10)).await;
        }
    }

    /// Why the node is not at rest, if it is not.
    fn unrest(&self, number: usize) -> Option<String> {
        let place = &self.places[number];
        let Some(node) = &place.node else {
            return Some(format!("node {number} is not there"));
        };
        if place.heals_at.is_some() || node.is_paused() {
            return Some(format!("node {number} is disturbed"));
        }
        if !node.cluster.is_ready() {
            return Some(format!("node {number} is not ready: {:?}", node.cluster.counters));
        }
        let is_in_channel = |open: &&Connection| matches!(open, Connection::InChannel { .. });
        let (seats, open) = (
            node.witness.seats(),
            place.open.values().filter(is_in_channel).count(),
        );
        let asking = seats.iter().filter(|seat| !seat.is_in()).count();
        (asking > 0 || seats.len() != open).then(|| {
            format!(
                "node {number}: of {open} wait {asking}, {} are there",
                seats.len()
            )
        })
    }

    fn pause(&mut self, number: usize) {
        let time = self.some_time();
        if let Some(node) = &mut self.places[number].node {
            node.pause(time);
            self.faults += 1;
            self.note(&format!("node {number} stands still for {time:?}"));
        }
    }

    /// Shorter than anybody notices, or longer than a lease.
    fn some_time(&mut self) -> Duration {
        let longest = if self.dice.random_bool(0.5) {
            times::LEASE / 2
        } else {
            times::LEASE * 3
        };
        self.dice.random_range(Duration::from_millis(20)..longest)
    }

    fn stall(&mut self, number: usize) {
        let time = self.some_time();
        let place = &mut self.places[number];
        place.proxy.stall();
        place.heals_at = Some(Instant::now() + time);
        self.faults += 1;
        self.note(&format!("node {number}: nothing reaches Redis for {time:?}"));
    }

    fn cut(&mut self, number: usize) {
        let how = if self.dice.random_bool(0.5) {
            Cut::End
        } else {
            Cut::Reset
        };
        self.places[number].proxy.cut(how);
        self.faults += 1;
        self.note(&format!(
            "node {number}: its connections to Redis are cut ({how:?})"
        ));
    }

    fn kill(&mut self, number: usize) {
        let time = self.some_time();
        let place = &mut self.places[number];
        if let Some(node) = place.node.take() {
            let (witness, published) = (node.witness.clone(), node.published.clone());
            drop(node);
            let (seats, mut wrong) = witness.testimony();
            self.seats.extend(seats);
            self.wrong.append(&mut wrong);
            let published = published
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            self.published.extend(published.iter().copied());
        }
        place.open.clear();
        place.starts_at = Some(Instant::now() + time);
        self.faults += 1;
        self.note(&format!("node {number} is killed, and back after {time:?}"));
    }

    /// Ends a node in order: its connections leave, then it does.
    async fn say_goodbye(&mut self, number: usize) {
        self.note(&format!("node {number} says goodbye"));
        let open = std::mem::take(&mut self.places[number].open);
        for (connection, open) in open {
            match open {
                Connection::InChannel { .. } => self.tell(number, Command::Leave(connection)),
                Connection::SignedIn { user } => {
                    let command = Command::SignOut {
                        connection,
                        user: user.to_owned(),
                        watchlist: watchlist(),
                    };
                    self.tell(number, command);
                }
            }
        }
        if let Some(node) = &self.places[number].node {
            until(Duration::from_secs(1), || node.witness.seats().is_empty()).await;
            node.tell(Command::Goodbye);
            until(Duration::from_secs(5), || node.has_ended()).await;
        }
        self.kill(number);
    }

    /// What is open on nodes that are alive.
    fn truth(&self) -> Truth {
        let mut truth = Truth {
            nodes: NODES,
            ..Truth::default()
        };
        for (number, connection) in self.places.iter().flat_map(|place| &place.open) {
            match connection {
                Connection::InChannel { channel, user } => {
                    let bound = truth.bound.entry((*channel).to_owned()).or_default();
                    *bound.entry(bound_as(*number, *user)).or_default() += 1;
                    *truth.connections.entry((*channel).to_owned()).or_default() += 1;
                    if let Some(user) = user {
                        let members = truth.members.entry((*channel).to_owned()).or_default();
                        members.insert((*user).to_owned());
                    }
                }
                Connection::SignedIn { user } => {
                    *truth.signed_in.entry((*user).to_owned()).or_default() += 1;
                }
            }
        }
        truth
    }

    /// Nothing disturbs any more: all must become as it should be, and stay so.
    async fn end(mut self) -> Result<Verdict> {
        self.note("the end: everything heals");
        for place in &mut self.places {
            if place.heals_at.take().is_some() {
                place.proxy.heal();
            }
        }
        while self.places.iter().any(|place| place.node.is_none()) {
            self.catch_up().await?;
            last(Duration::from_millis(10)).await;
        }
        self.note("all nodes are there");
        let truth = self.truth();
        let mut judge = Judge::new(self.redis, &self.prefix).await?;
        let begin = Instant::now();
        let mut complaints;
        loop {
            let nodes: Vec<&Node> = self
                .places
                .iter()
                .filter_map(|place| place.node.as_ref())
                .collect();
            complaints = judge.complaints(&truth, &nodes).await?;
            if complaints.is_empty() || begin.elapsed() > QUIET_DEADLINE {
                break;
            }
            last(Duration::from_millis(100)).await;
        }
        let quiet_after = begin.elapsed();
        self.wrong.append(&mut complaints);
        let entries = judge.entries(&truth, &mut self.wrong).await?;
        for number in 0..NODES {
            self.kill(number);
        }
        let acknowledged = super::node::acknowledged(self.published.iter());
        for seat in &self.seats {
            self.wrong.extend(super::judge::out_of_order(seat, &acknowledged));
        }
        judge.clean().await?;
        Ok(Verdict {
            seed: self.seed,
            wrong: self.wrong,
            history: self.history,
            faults: self.faults - NODES,
            entries,
            events: acknowledged.len(),
            quiet_after,
        })
    }
}

/// As whom a connection is bound: a member as itself, of the others some are signed in.
pub(super) fn bound_as(connection: u32, member: Option<&str>) -> String {
    let signed_in = USERS.get(connection as usize % (USERS.len() * 2)).copied();
    member
        .or(signed_in)
        .map_or_else(|| connection.to_string(), str::to_owned)
}

pub(super) fn watchlist() -> Vec<String> {
    USERS.iter().map(|user| (*user).to_owned()).collect()
}
