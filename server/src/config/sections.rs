//! The sections as types. Units are in the names of the options (`_ms`, `_s`); here they have become [`Duration`]s.
//!
//! There are no defaults in this file: they are in `default.toml`, and only there.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use dunlin_protocol::names::{AppId, AppKey};
use dunlin_protocol::signature::Secret;
use ipnet::IpNet;
use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::endpoint::EndpointSection;
use crate::storage::{redis, sql};
use crate::webhooks::egress::{Guard, Hosts};

/// The whole configuration. Rooms take their section, never this.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses, threads and time limits of the node.
    pub server: ServerSection,
    /// The port with TLS.
    pub tls: TlsSection,
    /// What is logged, and how.
    pub log: LogSection,
    /// Connections and their bounds.
    pub sockets: SocketsSection,
    /// Transports over plain HTTP.
    pub fallback: FallbackSection,
    /// The memory of cache channels.
    pub cache: CacheSection,
    /// The memory of channels with history.
    pub history: HistorySection,
    /// The memory of answers to publishes with an `Idempotency-Key`.
    pub idempotency: IdempotencySection,
    /// The Redis of a cluster.
    pub redis: RedisSection,
    /// The SQL database.
    pub database: DatabaseSection,
    /// What customers are told.
    pub webhooks: WebhooksSection,
    /// The HTTP API.
    pub api: ApiSection,
    /// The page `/demo`.
    pub demo: DemoSection,
    /// The apps, with `app_defaults` filled in; at least one, ids and keys unique.
    pub apps: Vec<AppSection>,
    /// True when nothing configured an app, so that `apps` holds the well-known `app-id` / `app-key` / `app-secret`,
    /// which has to be announced loudly. Never true in production.
    pub is_default_app: bool,
}

impl Config {
    /// Whether the demo page is served.
    pub fn is_demo_enabled(&self) -> bool {
        match self.demo.enabled {
            Switch::Auto => self.server.env == Environment::Development,
            Switch::On => true,
            Switch::Off => false,
        }
    }

    /// What whoever uses webhooks on several nodes has to hear if they do not share a database.
    pub fn database_warning(&self) -> Option<&'static str> {
        let is_apart = self.redis.url.is_some() && self.database.url.is_none();
        is_apart.then_some(
            "the nodes of this cluster share no database: each keeps and delivers webhooks in a file of its own, and \
             `dunlin webhooks` sees and changes those of one node only. Set DUNLIN_DATABASE_URL on all of them \
             (postgres://user:password@host/database)",
        )
    }

    /// Where webhooks may go: the same for whoever judges a URL and whoever sends to it.
    pub fn guard(&self) -> Guard {
        let ports = [self.server.port, self.server.metrics_port, self.tls.port];
        let own_ports = ports.into_iter().filter(|port| *port != 0);
        let own_ports = own_ports.chain(self.redis_ports()).chain(self.database_port());
        // An address of every machine, and what is refused for what it is, are nobody's in particular.
        let addresses = [self.server.host, self.server.metrics_host];
        let own_hosts = addresses
            .into_iter()
            .filter(|address| Guard::default().allows_address(*address));
        let own_hosts = own_hosts
            .map(Hosts::from)
            .chain(self.webhooks.refused_hosts.iter().cloned());
        let networks = self.webhooks.allow_networks.clone();
        Guard::new(networks, own_ports.collect(), own_hosts.collect())
    }

    /// A URL that is of no use is complained about elsewhere.
    fn redis_ports(&self) -> Vec<u16> {
        let url = self.redis.url.as_ref();
        let target = url.and_then(|url| redis::target::Target::parse(url.expose(), &self.redis.ca_path).ok());
        target.map(|target| target.ports()).unwrap_or_default()
    }

    fn database_port(&self) -> Option<u16> {
        let url = self.database.url.as_ref()?;
        sql::Target::parse(url.expose()).ok()?.port()
    }
}

/// `[server]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSection {
    /// Development or production.
    pub env: Environment,
    /// Address of the sockets and the HTTP API.
    #[serde(deserialize_with = "address")]
    pub host: IpAddr,
    /// Port of the sockets and the HTTP API; 0 takes any free one.
    pub port: u16,
    /// Address of the metrics.
    #[serde(deserialize_with = "address")]
    pub metrics_host: IpAddr,
    /// Port of the metrics; 0 takes any free one.
    pub metrics_port: u16,
    /// Worker threads, at most 64; 0 means one per core.
    pub workers: usize,
    /// Where files of this node go.
    pub data_dir: PathBuf,
    /// What a proxy puts in front of the paths: empty, or beginning with `/` and not ending with one.
    pub path_prefix: String,
    /// Connections of all apps together; 0 means no limit.
    pub max_connections: usize,
    /// Connections waiting to be accepted, 1 to 65535.
    pub listen_backlog: u32,
    /// Silence allowed between two requests of an HTTP connection.
    #[serde(rename = "http_keep_alive_ms", deserialize_with = "millis")]
    pub http_keep_alive: Duration,
    /// Time for a request's head to arrive, and again for its body.
    #[serde(rename = "request_timeout_ms", deserialize_with = "millis")]
    pub request_timeout: Duration,
    /// Largest body of an HTTP request.
    pub max_body_bytes: usize,
    /// Time over which the sockets are closed at a shutdown.
    #[serde(rename = "drain_window_ms", deserialize_with = "millis")]
    pub drain_window: Duration,
    /// Deadline of the whole shutdown, `drain_window` included.
    #[serde(rename = "shutdown_timeout_ms", deserialize_with = "millis")]
    pub shutdown_timeout: Duration,
}

/// `[tls]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSection {
    /// Port with TLS; 0 means none.
    pub port: u16,
    /// PEM file with the certificate and its chain; empty when `port` is 0.
    pub cert_path: PathBuf,
    /// PEM file with the private key; empty when `port` is 0.
    pub key_path: PathBuf,
    /// Pause between two looks at the files; zero means never.
    #[serde(rename = "reload_interval_ms", deserialize_with = "millis")]
    pub reload_interval: Duration,
}

/// `[log]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSection {
    /// Directives in the syntax of `tracing_subscriber::EnvFilter`, checked.
    pub filter: String,
    /// For people or for machines.
    pub format: LogFormat,
}

/// `[sockets]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketsSection {
    /// Announced to clients in whole seconds, at least one: they refuse a handshake without it (pusher-js source).
    #[serde(rename = "activity_timeout_s", deserialize_with = "seconds")]
    pub activity_timeout: Duration,
    /// Time for the answer to our ping.
    #[serde(rename = "pong_timeout_s", deserialize_with = "seconds")]
    pub pong_timeout: Duration,
    /// Largest message, fragments together.
    pub max_message_bytes: usize,
    /// Most fragments of one message.
    pub max_fragments: usize,
    /// What may wait for one connection.
    pub outbox_bytes: usize,
    /// How long a peer may accept nothing while something waits for it.
    #[serde(rename = "write_stall_ms", deserialize_with = "millis")]
    pub write_stall: Duration,
    /// Wait for the peer's close frame after ours.
    #[serde(rename = "close_linger_ms", deserialize_with = "millis")]
    pub close_linger: Duration,
    /// What may wait for one worker.
    pub mailbox_bytes: usize,
    /// Connections flushed between two looks at the mailbox, at least one.
    pub flush_chunk: usize,
    /// Pause between two announcements of the count in a large channel.
    #[serde(rename = "subscription_count_throttle_ms", deserialize_with = "millis")]
    pub subscription_count_throttle: Duration,
    /// Subscribers above which a channel counts as large.
    pub subscription_count_throttle_above: usize,
    /// Whether `/echo` exists, for RFC 6455 test suites. Never in production.
    pub test_echo: bool,
}

/// `[fallback]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FallbackSection {
    /// Whether `xhr_streaming`, `xhr_polling` and `SockJS` are served.
    pub enabled: bool,
    /// Pause between two heartbeats of a silent stream.
    #[serde(rename = "heartbeat_ms", deserialize_with = "millis")]
    pub heartbeat: Duration,
    /// How long a session outlives its last receiving request.
    #[serde(rename = "session_gap_ms", deserialize_with = "millis")]
    pub session_gap: Duration,
    /// How long a poll waits.
    #[serde(rename = "poll_timeout_ms", deserialize_with = "millis")]
    pub poll_timeout: Duration,
    /// Largest body of a sending request.
    pub max_send_bytes: usize,
}

/// `[cache]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheSection {
    /// How long a cache channel remembers its last event, at most 30 minutes (Pusher docs).
    #[serde(rename = "ttl_s", deserialize_with = "seconds")]
    pub ttl: Duration,
    /// Memory for the remembered events of one app.
    pub max_bytes: usize,
}

/// `[history]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistorySection {
    /// Memory for the past events of one app, on a node without Redis.
    pub max_bytes: usize,
}

/// `[idempotency]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdempotencySection {
    /// How long an answer is kept.
    #[serde(rename = "ttl_s", deserialize_with = "seconds")]
    pub ttl: Duration,
    /// Most answers kept for one app.
    pub max_entries: usize,
}

/// `[redis]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisSection {
    /// `None`: one node, everything in memory. A secret, because it may hold a password.
    #[serde(deserialize_with = "secret_or_empty")]
    pub url: Option<ConfigSecret>,
    /// The authority that signed the server's certificate; empty: the system's.
    pub ca_path: PathBuf,
    /// In front of every name.
    pub prefix: String,
    /// How long a node may give no sign of life.
    #[serde(rename = "lease_ms", deserialize_with = "millis")]
    pub lease: Duration,
    /// How often it gives one.
    #[serde(rename = "lease_refresh_ms", deserialize_with = "millis")]
    pub lease_refresh: Duration,
    /// How long one command may take.
    #[serde(rename = "command_timeout_ms", deserialize_with = "millis")]
    pub command_timeout: Duration,
    /// How long a node listens on after its last subscriber.
    #[serde(rename = "linger_ms", deserialize_with = "millis")]
    pub linger: Duration,
    /// How often a node asserts all that it holds.
    #[serde(rename = "resync_interval_s", deserialize_with = "seconds")]
    pub resync_interval: Duration,
    /// Connections for reading.
    pub pool_size: usize,
    /// Entries of the outbox in each partition; 0: none.
    pub outbox_entries: usize,
}

/// `[database]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSection {
    /// `None`: SQLite in the data directory. A secret, because it may hold a password.
    #[serde(deserialize_with = "secret_or_empty")]
    pub url: Option<ConfigSecret>,
    /// Most connections, 1 to 1000.
    pub pool_size: u32,
    /// How long one thing may take, the wait for a connection included.
    #[serde(rename = "timeout_ms", deserialize_with = "millis")]
    pub timeout: Duration,
}

/// `[webhooks]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhooksSection {
    /// Whether this node delivers; another may.
    pub deliver: bool,
    /// How long the end of something waits for its return.
    #[serde(rename = "settle_ms", deserialize_with = "millis")]
    pub settle: Duration,
    /// Where endpoints may be besides the public internet; none in production.
    #[serde(deserialize_with = "networks")]
    pub allow_networks: Vec<IpNet>,
    /// Where they may not be although it is public: the platform's own.
    #[serde(deserialize_with = "hosts")]
    pub refused_hosts: Vec<Hosts>,
    /// Pauses before the attempts, each counted from the end of the attempt before it; 1 to 32.
    #[serde(rename = "retry_schedule_ms", deserialize_with = "list_of_millis")]
    pub retry_schedule: Vec<Duration>,
    /// How long one attempt may take.
    #[serde(rename = "timeout_ms", deserialize_with = "millis")]
    pub timeout: Duration,
    /// How long an endpoint stays with a worker that gives no sign of life.
    #[serde(rename = "claim_ms", deserialize_with = "millis")]
    pub claim: Duration,
    /// How long a delivery is kept that was taken.
    #[serde(rename = "retain_done_s", deserialize_with = "seconds")]
    pub retain_done: Duration,
    /// How long a delivery is kept that was given up.
    #[serde(rename = "retain_dead_s", deserialize_with = "seconds")]
    pub retain_dead: Duration,
    /// How long an endpoint may take nothing before it is disabled; zero: for ever.
    #[serde(rename = "disable_after_s", deserialize_with = "seconds")]
    pub disable_after: Duration,
    /// Requests of this node that are under way at the same time.
    pub max_in_flight: usize,
    /// Of these, to one endpoint.
    pub max_in_flight_per_endpoint: usize,
}

impl WebhooksSection {
    /// Every option at its default, for tests.
    #[cfg(test)]
    pub fn example() -> Self {
        let loaded = super::load(&super::Sources::default()).expect("the defaults are valid");
        loaded.config.webhooks
    }
}

/// `[api]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiSection {
    /// Whether browsers of any origin may call the HTTP API.
    pub cors: bool,
}

/// `[demo]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DemoSection {
    /// Ask [`Config::is_demo_enabled`] for the decision.
    pub enabled: Switch,
}

/// One entry of `[[apps]]`, with `[app_defaults]` filled in.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppSection {
    /// In the paths of the HTTP API.
    pub id: AppId,
    /// Public name, in the path of a socket and in signatures.
    pub key: AppKey,
    /// What requests and subscriptions are signed with.
    pub secret: ConfigSecret,
    /// For people; empty means the id.
    pub name: String,
    /// A disabled app refuses connections and requests.
    pub enabled: bool,
    /// Whether events named `client-…` are relayed.
    pub client_events: bool,
    /// Whether subscribers are told their number.
    pub subscription_count: bool,
    /// Whether a signed-in user may watch others.
    pub watchlist: bool,
    /// Time within which a connection must authorize itself somehow.
    #[serde(deserialize_with = "seconds_or_false")]
    pub authorized_connections: Option<Duration>,
    /// Whether sockets without TLS are refused.
    pub tls_only: bool,
    /// Pages that may connect: `scheme://host[:port]`, `host[:port]`, `*.host` or `*`. Empty means all.
    pub allowed_origins: Vec<String>,
    /// Which channels keep their past; the first that covers a channel counts.
    pub history: Vec<HistoryRuleSection>,
    /// Who is told what happens.
    pub webhooks: Vec<EndpointSection>,
    /// Numbers; each of them 0 for "none".
    pub limits: AppLimits,
}

/// An entry of `[[apps.history]]`: channels that keep their past, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryRuleSection {
    /// A channel's name, or the beginning of names with `*` behind it.
    pub channels: String,
    /// Most events of one channel, 1 to 100,000.
    pub size: usize,
    /// How long an event is kept, at most a week.
    #[serde(rename = "age_s", deserialize_with = "seconds")]
    pub age: Duration,
}

impl HistoryRuleSection {
    /// A rule for tests.
    #[cfg(test)]
    pub fn example(channels: &str, size: usize, age_s: u64) -> Self {
        Self {
            channels: channels.to_owned(),
            size,
            age: Duration::from_secs(age_s),
        }
    }
}

impl AppSection {
    /// Whole seconds within which a connection must authorize itself; `None`: it need not.
    pub fn authorized_connections_s(&self) -> Option<u32> {
        let seconds = self.authorized_connections?.as_secs();
        Some(u32::try_from(seconds).expect("times are bounded when they are read"))
    }

    /// An app with every option at its default, for tests.
    #[cfg(test)]
    pub fn example() -> Self {
        let loaded = super::load(&super::Sources::default()).expect("the defaults are valid");
        loaded
            .config
            .apps
            .into_iter()
            .next()
            .expect("development has a ready-made app")
    }
}

/// `[apps.limits]`: 0 means "no limit" in every field.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppLimits {
    /// Connections at the same time.
    pub connections: u32,
    /// Events published over the HTTP API per second.
    pub publishes_per_second: u32,
    /// Other requests to the HTTP API per second.
    pub reads_per_second: u32,
    /// Client events per second of one connection.
    pub client_events_per_second: u32,
    /// Bytes of one event's data.
    pub payload_bytes: usize,
    /// Channels in one publish.
    pub channels_per_event: usize,
    /// Events in one batch.
    pub batch_events: usize,
    /// Different users in one presence channel.
    pub presence_members: u32,
    /// Bytes of one member's `user_info`, as JSON.
    pub presence_info_bytes: usize,
    /// Channels that one connection is in.
    pub subscriptions_per_connection: u32,
    /// Characters of a channel name, at most 200 (all official libraries enforce that).
    pub channel_name_length: usize,
    /// Characters of an event name, at most 200 (Pusher docs).
    pub event_name_length: usize,
    /// Users on one watchlist.
    pub watchlist: u32,
}

/// Where the node believes it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// A developer's machine: convenience is allowed.
    Development,
    /// Facing customers: convenience that would be a hole is refused.
    Production,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// On, off, or what suits the environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    /// The environment decides.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// What is shown in the place of a secret.
pub(super) const REDACTED: &str = "[redacted]";

/// A secret as it was configured. Its `Debug` shows nothing of it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigSecret(String);

impl ConfigSecret {
    /// The text itself, for signing. Never log it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The same as the key of an HMAC.
    pub fn to_secret(&self) -> Secret {
        Secret::new(&self.0)
    }
}

impl From<&str> for ConfigSecret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for ConfigSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl<'de> Deserialize<'de> for ConfigSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Serde's own message would quote the value.
        let text = String::deserialize(deserializer).map_err(|_| de::Error::custom("must be a text"))?;
        if text.is_empty() {
            return Err(de::Error::custom("must not be empty: anybody could sign with it"));
        }
        Ok(Self(text))
    }
}

pub(super) fn secret_or_empty<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<ConfigSecret>, D::Error> {
    let text = String::deserialize(deserializer).map_err(|_| de::Error::custom("must be a text"))?;
    Ok((!text.is_empty()).then_some(ConfigSecret(text)))
}

/// Longer times than a year are a slip of the unit, and would overflow arithmetic with instants.
const MAX_TIME: Duration = Duration::from_hours(365 * 24);

fn bounded<E: de::Error>(time: Duration) -> Result<Duration, E> {
    if time > MAX_TIME {
        return Err(E::custom("must not be longer than a year"));
    }
    Ok(time)
}

pub(super) fn millis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    bounded(Duration::from_millis(u64::deserialize(deserializer)?))
}

fn list_of_millis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
    let times = Vec::<u64>::deserialize(deserializer)?;
    times
        .into_iter()
        .map(|time| bounded(Duration::from_millis(time)))
        .collect()
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    bounded(Duration::from_secs(u64::deserialize(deserializer)?))
}

fn seconds_or_false<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Flag(bool),
        Seconds(u64),
    }
    match Given::deserialize(deserializer) {
        Ok(Given::Flag(false)) => Ok(None),
        Ok(Given::Seconds(seconds @ 1..)) => bounded(Duration::from_secs(seconds)).map(Some),
        Ok(Given::Flag(true) | Given::Seconds(0)) | Err(_) => Err(de::Error::custom(
            "must be false or a number of seconds, at least 1",
        )),
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == "localhost" {
        return Ok(IpAddr::from([127, 0, 0, 1]));
    }
    text.parse()
        .map_err(|_| de::Error::custom(format!("{text:?} is neither an IP address nor \"localhost\"")))
}

fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let parse = |text: String| {
        let error = || {
            de::Error::custom(format!(
                "{text:?} is no network: write an address, a slash and the number of its fixed bits, as in 127.0.0.0/8"
            ))
        };
        text.parse().map_err(|_| error())
    };
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.into_iter().map(parse).collect()
}

fn hosts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Hosts>, D::Error> {
    let parse = |text: String| {
        let hosts = text.parse();
        hosts.map_err(|why| de::Error::custom(format!("{text:?} is no host: {why}")))
    };
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.into_iter().map(parse).collect()
}
