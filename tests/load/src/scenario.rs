//! The scenarios by name, with what peers reach in them and what we allow ourselves.

use std::time::Duration;

/// How fast messages are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As fast as the server takes them: 8 publishes in flight and at most 32 messages not yet delivered to all
    /// (16 and 256 with many channels).
    FullSpeed,
    /// So many a second, whatever the server does.
    PerSecond(u32),
}

/// What is done to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Signed publishes of 128 bytes, each to all subscribers of one of the channels in turn. Unit: delivery.
    Fanout(Fanout),
    /// One connection sends client events to the others of its private channel. Unit: delivery.
    ClientEvents(ClientEvents),
    /// Users join one presence channel; at the end each must know exactly who is there. Unit: join.
    Presence(Presence),
    /// Signed publishes to channels without subscribers over keep-alive connections. Unit: request.
    Publish(Publish),
    /// Connections that subscribe to a channel of their own and then do nothing. Unit: connection.
    Idle(Idle),
    /// Idle connections while others come and go, then all leave. Unit: connection (that came and went).
    Churn(Churn),
    /// A process with some of the subscribers is stopped while the others are measured. Unit: delivery to the others.
    Stalled(Stalled),
    /// Broken frames and broken messages while a client of good faith is measured. Unit: input (a frame or message).
    Hostile(Hostile),
    /// Messages of which endpoints are told; the server's configuration has to name them ([`Webhooks::config`]). Unit:
    /// event, but for a fan-out, where it is the delivery to a subscriber.
    Webhooks(Webhooks),
}

/// [`Scenario::Fanout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fanout {
    /// How many channels there are.
    pub channels: u32,
    /// Of each channel; every subscriber is a connection.
    pub subscribers: u32,
    /// Publishes over all channels.
    pub pace: Pace,
}

/// [`Scenario::ClientEvents`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientEvents {
    /// Not counting the sender.
    pub receivers: u32,
    /// Of the one sender; the app must allow it.
    pub pace: Pace,
}

/// [`Scenario::Presence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// All of them different; the app must allow so many.
    pub users: u32,
    /// Joins under way at the same time.
    pub in_flight: u32,
}

/// [`Scenario::Publish`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// One request in flight on each.
    pub connections: u32,
    /// 1 uses `/events`, more use `/batch_events`.
    pub events_per_request: u32,
}

/// [`Scenario::Idle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Each takes one open file here and one in the server.
    pub connections: u32,
    /// How long they are held before memory is read.
    pub hold: Duration,
}

/// [`Scenario::Churn`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Churn {
    /// Held throughout.
    pub idle: u32,
    /// Connections opened each second; as many are closed.
    pub per_second: u32,
    /// Of the coming and going.
    pub duration: Duration,
}

/// [`Scenario::Stalled`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stalled {
    /// Subscribers that keep reading.
    pub healthy: u32,
    /// Subscribers of the process that is stopped.
    pub stalled: u32,
    /// Of each message, at most what the app allows.
    pub payload_bytes: usize,
    /// Messages a second to all of them.
    pub per_second: u32,
    /// Everybody reads.
    pub before: Duration,
    /// The process stands still.
    pub during: Duration,
}

/// [`Scenario::Hostile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hostile {
    /// Broken frames to send.
    pub frames: u32,
    /// Broken messages, in frames that are well formed.
    pub messages: u32,
    /// Of each kind.
    pub per_second: u32,
    /// The same seed breaks the same things in the same way.
    pub seed: u64,
}

/// [`Scenario::Webhooks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Webhooks {
    /// Most events in a request to an endpoint; they wait for each other as long as the server's default says.
    pub batch_size: u32,
    /// What is published.
    pub load: WebhookLoad,
}

/// What is published, and what is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookLoad {
    /// One endpoint is told of everything. At full speed, 20,000 events are on their way to it.
    Steady(Pace),
    /// One endpoint answers nothing until all is published.
    Backlog(Backlog),
    /// One endpoint, alone and then beside those of another app that never answer.
    Fair(Fair),
    /// A fan-out, of an app without an endpoint and of one whose endpoint is told of everything, by turns.
    Fanout(Fanout),
}

/// [`WebhookLoad::Backlog`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// How many queue up.
    pub events: u32,
    /// How fast; more than the server can store would fall out of its outbox.
    pub per_second: u32,
}

/// [`WebhookLoad::Fair`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fair {
    /// Events for the one that answers.
    pub per_second: u32,
    /// Endpoints that never answer.
    pub holes: u32,
    /// Events for each of them.
    pub others_per_second: u32,
    /// Without the others.
    pub alone: Duration,
    /// With them, from their first event on.
    pub beside: Duration,
}

/// How much of a scenario is done. Full speed ends at whichever comes first.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Length of the measured part, for the scenarios that repeat one thing.
    pub measure: Duration,
    /// Most messages or requests in the measured part.
    pub max_messages: u64,
    /// Rounds of the floor measurement, each of 1,000 sends.
    pub floor_rounds: usize,
    /// What has not come this long after the last arrival is lost, or the server is stuck.
    pub patience: Duration,
}

impl Effort {
    /// For figures to keep.
    pub const FULL: Self = Self {
        measure: Duration::from_secs(6),
        max_messages: 1_000_000,
        floor_rounds: 40,
        patience: Duration::from_secs(5),
    };
    /// For a glance while working.
    pub const QUICK: Self = Self {
        measure: Duration::from_secs(2),
        max_messages: 300_000,
        floor_rounds: 20,
        patience: Duration::from_secs(5),
    };

    pub(crate) fn measure_ns(&self) -> u64 {
        nanoseconds(self.measure)
    }

    pub(crate) fn patience_ns(&self) -> u64 {
        nanoseconds(self.patience)
    }

    /// Long enough for queues and caches to reach their usual size.
    pub(crate) fn warm_up_ns(&self) -> u64 {
        self.measure_ns() / 4
    }
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

/// What a budget limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Server CPU per unit, as a multiple of F1.
    TimesFloor,
    /// Private memory per connection, in KiB.
    KibPerConnection,
}

/// What we allow ourselves, beside what peers took on one machine where F1 was 4.9 µs: µs of CPU per unit, or KiB.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// What is limited.
    pub measure: Measure,
    /// The limit itself.
    pub at_most: f64,
    /// Sockudo 5.0.1 in a lean configuration.
    pub sockudo: Option<f64>,
    /// soketi 1.6.1.
    pub soketi: Option<f64>,
    /// Centrifugo 6.9.1.
    pub centrifugo: Option<f64>,
    /// nats-server 2.15 over WebSocket, a raw fan-out reference.
    pub nats: Option<f64>,
}

/// Where a server keeps what has to outlive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// A file of its own.
    Sqlite,
    /// A PostgreSQL on the same machine.
    Postgres,
}

/// A scenario with its name.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Lower-case words joined by dashes, the group first: `fanout` selects all whose name begins so.
    pub name: &'static str,
    /// Server processes that it needs.
    pub nodes: usize,
    pub database: Database,
    /// What is done.
    pub scenario: Scenario,
    /// Part of a run that names no scenario.
    pub by_default: bool,
    /// May be empty: some scenarios only have to come out clean.
    pub budgets: &'static [Budget],
}

const fn cpu(at_most: f64, peers: [Option<f64>; 4]) -> Budget {
    budget(Measure::TimesFloor, at_most, peers)
}

const fn budget(measure: Measure, at_most: f64, peers: [Option<f64>; 4]) -> Budget {
    let [sockudo, soketi, centrifugo, nats] = peers;
    Budget {
        measure,
        at_most,
        sockudo,
        soketi,
        centrifugo,
        nats,
    }
}

const fn fanout(channels: u32, subscribers: u32, pace: Pace) -> Scenario {
    Scenario::Fanout(Fanout {
        channels,
        subscribers,
        pace,
    })
}

const fn entry(name: &'static str, scenario: Scenario, budgets: &'static [Budget]) -> Entry {
    Entry {
        name,
        nodes: 1,
        database: Database::Sqlite,
        scenario,
        by_default: true,
        budgets,
    }
}

const fn webhooks(name: &'static str, database: Database, batch_size: u32, load: WebhookLoad) -> Entry {
    Entry {
        name,
        nodes: 1,
        database,
        scenario: Scenario::Webhooks(Webhooks { batch_size, load }),
        by_default: false,
        budgets: &[],
    }
}

/// As many events as the server puts into a request by default.
const BATCHED: u32 = 100;
const SINGLE: u32 = 1;

const FULL_SPEED: WebhookLoad = WebhookLoad::Steady(Pace::FullSpeed);
const THOUSAND: WebhookLoad = WebhookLoad::Steady(Pace::PerSecond(1_000));
const BACKLOG: WebhookLoad = WebhookLoad::Backlog(Backlog {
    events: 1_000_000,
    per_second: 20_000,
});
const FAIR: WebhookLoad = WebhookLoad::Fair(Fair {
    per_second: 100,
    holes: 200,
    others_per_second: 1,
    alone: Duration::from_secs(20),
    beside: Duration::from_secs(40),
});

/// Every scenario there is.
pub const CATALOGUE: &[Entry] = &[
    entry(
        "fanout-1000-full",
        fanout(1, 1_000, Pace::FullSpeed),
        &[cpu(0.3, [Some(14.0), Some(14.2), Some(6.1), Some(7.3)])],
    ),
    entry(
        "fanout-1000-calm",
        fanout(1, 1_000, Pace::PerSecond(20)),
        &[cpu(1.8, [Some(22.1), Some(15.5), Some(17.9), Some(20.8)])],
    ),
    entry(
        "fanout-5000-full",
        fanout(1, 5_000, Pace::FullSpeed),
        &[cpu(0.3, [Some(17.7), Some(14.0), Some(11.0), Some(10.1)])],
    ),
    entry(
        "fanout-5000-calm",
        fanout(1, 5_000, Pace::PerSecond(4)),
        &[cpu(1.8, [Some(24.7), Some(16.4), Some(21.9), Some(23.5)])],
    ),
    entry(
        "many-full",
        fanout(1_000, 5, Pace::FullSpeed),
        &[cpu(3.0, [Some(51.0), Some(57.0), Some(43.0), Some(34.0)])],
    ),
    entry(
        "many-calm",
        fanout(1_000, 5, Pace::PerSecond(1_000)),
        &[cpu(6.5, [Some(113.0), Some(98.0), Some(90.0), Some(63.0)])],
    ),
    entry(
        "client-events-full",
        Scenario::ClientEvents(ClientEvents {
            receivers: 999,
            pace: Pace::FullSpeed,
        }),
        &[cpu(0.25, [Some(13.2), Some(14.0), Some(3.0), Some(2.4)])],
    ),
    entry(
        "client-events-calm",
        Scenario::ClientEvents(ClientEvents {
            receivers: 999,
            pace: Pace::PerSecond(20),
        }),
        &[cpu(1.8, [Some(20.1), Some(14.1), Some(20.1), Some(23.6)])],
    ),
    entry(
        "presence-sequential",
        Scenario::Presence(Presence {
            users: 500,
            in_flight: 1,
        }),
        &[cpu(420.0, [Some(4_756.0), Some(3_606.0), Some(3_061.0), None])],
    ),
    entry(
        "presence-concurrent",
        Scenario::Presence(Presence {
            users: 500,
            in_flight: 16,
        }),
        &[cpu(150.0, [Some(3_901.0), Some(3_489.0), Some(1_047.0), None])],
    ),
    entry(
        "http",
        Scenario::Publish(Publish {
            connections: 64,
            events_per_request: 1,
        }),
        &[cpu(4.0, [Some(114.0), Some(91.0), Some(47.0), Some(15.0)])],
    ),
    entry(
        "batch",
        Scenario::Publish(Publish {
            connections: 64,
            events_per_request: 10,
        }),
        &[cpu(8.0, [Some(194.0), Some(197.0), Some(180.0), Some(17.0)])],
    ),
    entry(
        "idle",
        Scenario::Idle(Idle {
            connections: 10_000,
            hold: Duration::from_secs(5),
        }),
        &[
            budget(
                Measure::KibPerConnection,
                2.5,
                [Some(186.0), Some(3.9), Some(51.7), Some(49.7)],
            ),
            cpu(14.0, [Some(333.0), Some(125.0), Some(321.0), Some(280.0)]),
        ],
    ),
    entry(
        "stalled",
        Scenario::Stalled(Stalled {
            healthy: 100,
            stalled: 100,
            payload_bytes: 8_000,
            per_second: 125,
            before: Duration::from_secs(5),
            during: Duration::from_secs(15),
        }),
        &[],
    ),
    Entry {
        name: "churn",
        nodes: 1,
        database: Database::Sqlite,
        scenario: Scenario::Churn(Churn {
            idle: 10_000,
            per_second: 200,
            duration: Duration::from_mins(5),
        }),
        by_default: false,
        budgets: &[],
    },
    Entry {
        name: "hostile",
        nodes: 1,
        database: Database::Sqlite,
        scenario: Scenario::Hostile(Hostile {
            frames: 100_000,
            messages: 100_000,
            per_second: 200,
            seed: 0x0064_756e_6c69_6e21,
        }),
        by_default: false,
        budgets: &[],
    },
    Entry {
        name: "twonode-full",
        nodes: 2,
        database: Database::Sqlite,
        scenario: fanout(1, 1_000, Pace::FullSpeed),
        by_default: false,
        budgets: &[cpu(0.6, [Some(16.0), Some(14.0), Some(5.3), Some(6.8)])],
    },
    Entry {
        name: "twonode-calm",
        nodes: 2,
        database: Database::Sqlite,
        scenario: fanout(1, 1_000, Pace::PerSecond(20)),
        by_default: false,
        budgets: &[cpu(2.0, [Some(21.0), Some(16.5), Some(19.1), Some(21.8)])],
    },
    webhooks("webhooks-full-sqlite", Database::Sqlite, BATCHED, FULL_SPEED),
    webhooks("webhooks-full-postgres", Database::Postgres, BATCHED, FULL_SPEED),
    webhooks("webhooks-single-sqlite", Database::Sqlite, SINGLE, FULL_SPEED),
    webhooks("webhooks-single-postgres", Database::Postgres, SINGLE, FULL_SPEED),
    webhooks("webhooks-lag-sqlite", Database::Sqlite, BATCHED, THOUSAND),
    webhooks("webhooks-lag-postgres", Database::Postgres, BATCHED, THOUSAND),
    webhooks("webhooks-lag-single", Database::Sqlite, SINGLE, THOUSAND),
    webhooks("webhooks-backlog", Database::Sqlite, BATCHED, BACKLOG),
    webhooks("webhooks-fair", Database::Sqlite, BATCHED, FAIR),
    webhooks("webhooks-fair-single", Database::Sqlite, SINGLE, FAIR),
    webhooks(
        "webhooks-fanout-full",
        Database::Sqlite,
        BATCHED,
        WebhookLoad::Fanout(Fanout {
            channels: 1,
            subscribers: 1_000,
            pace: Pace::FullSpeed,
        }),
    ),
    webhooks(
        "webhooks-fanout-many",
        Database::Sqlite,
        BATCHED,
        WebhookLoad::Fanout(Fanout {
            channels: 1_000,
            subscribers: 5,
            pace: Pace::PerSecond(1_000),
        }),
    ),
];

impl Entry {
    /// Whether `word` names this scenario or its group.
    pub fn answers_to(&self, word: &str) -> bool {
        self.name
            .strip_prefix(word)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    /// The same scenario with less of everything, for a glance while working.
    #[must_use]
    pub fn quick(mut self) -> Self {
        match &mut self.scenario {
            Scenario::Idle(shape) => shape.hold = Duration::from_secs(1),
            Scenario::Churn(shape) => {
                shape.idle = 2_000;
                shape.duration = Duration::from_secs(10);
            }
            Scenario::Stalled(shape) => {
                shape.before = Duration::from_secs(2);
                shape.during = Duration::from_secs(12);
            }
            Scenario::Hostile(shape) => {
                shape.frames = 2_000;
                shape.messages = 2_000;
            }
            Scenario::Webhooks(shape) => match &mut shape.load {
                WebhookLoad::Backlog(shape) => shape.events /= 20,
                WebhookLoad::Fair(shape) => {
                    shape.alone /= 4;
                    shape.beside /= 2;
                }
                WebhookLoad::Steady(_) | WebhookLoad::Fanout(_) => {}
            },
            Scenario::Fanout(_)
            | Scenario::ClientEvents(_)
            | Scenario::Presence(_)
            | Scenario::Publish(_) => {}
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_select_by_group() {
        let mut names: Vec<_> = CATALOGUE.iter().map(|entry| entry.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CATALOGUE.len());
        let group = |word| CATALOGUE.iter().filter(|entry| entry.answers_to(word)).count();
        assert_eq!(
            (group("fanout"), group("fanout-1000"), group("fanout-1000-full")),
            (4, 2, 1)
        );
        assert_eq!(
            (group("fan"), group("http"), group("twonode"), group("")),
            (0, 1, 2, 0)
        );
    }

    #[test]
    fn no_scenario_needs_more_open_files_than_the_machine_allows() {
        for entry in CATALOGUE {
            let connections = match entry.scenario {
                Scenario::Fanout(shape) => shape.channels * shape.subscribers,
                Scenario::ClientEvents(shape) => shape.receivers + 1,
                Scenario::Presence(shape) => shape.users,
                Scenario::Publish(shape) => shape.connections,
                Scenario::Idle(shape) => shape.connections,
                Scenario::Churn(shape) => shape.idle + 2 * shape.per_second,
                Scenario::Stalled(shape) => shape.healthy + shape.stalled,
                Scenario::Hostile(_) => 20,
                Scenario::Webhooks(shape) => match shape.load {
                    // Of both apps.
                    WebhookLoad::Fanout(shape) => 2 * shape.channels * shape.subscribers,
                    // As many as a node has under way.
                    WebhookLoad::Fair(shape) => shape.holes + 256,
                    WebhookLoad::Steady(_) | WebhookLoad::Backlog(_) => 50,
                },
            };
            assert!(connections <= 19_000, "{}", entry.name);
        }
    }
}
