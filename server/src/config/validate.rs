//! What the types cannot say: ranges, and options that depend on each other.

use std::collections::HashMap;
use std::time::Duration;

use dunlin_protocol::names::{ChannelName, MAX_CHANNEL_NAME, MAX_EVENT_NAME};

use crate::storage::redis::target::{BadTarget, Target};
use crate::storage::sql;
use crate::webhooks::endpoint::{BadEndpoint, Endpoint};

use super::sections::{AppSection, Config, Environment, Switch};

/// Pusher's documentation promises at most half an hour, and clients treat what they get as that fresh.
const MAX_CACHE_TTL: Duration = Duration::from_mins(30);

/// The directory of channels has one bit per worker.
const MAX_WORKERS: usize = 64;

/// The most events that one channel may keep.
const MAX_HISTORY_SIZE: usize = 100_000;

/// A week.
const MAX_HISTORY_AGE: Duration = Duration::from_hours(7 * 24);

/// Attempts to deliver; with pauses of days between them there is no use for more.
const MAX_ATTEMPTS: usize = 32;

/// Requests to endpoints at the same time: each is an open file.
const MAX_IN_FLIGHT: usize = 10_000;

/// What surrounds an event's data in a frame: names, quotes, an excluded socket.
const ENVELOPE_BYTES: usize = 1024;

/// All complaints: the option to change, and why.
pub(super) fn validate(config: &Config) -> Vec<(String, String)> {
    let mut complaints = Complaints(Vec::new());
    server(config, &mut complaints);
    tls(config, &mut complaints);
    log(config, &mut complaints);
    sockets(config, &mut complaints);
    fallback(config, &mut complaints);
    memories(config, &mut complaints);
    redis(config, &mut complaints);
    webhooks(config, &mut complaints);
    database(config, &mut complaints);
    apps(config, &mut complaints);
    complaints.0
}

struct Complaints(Vec<(String, String)>);

impl Complaints {
    fn add(&mut self, option: impl Into<String>, what: impl Into<String>) {
        self.0.push((option.into(), what.into()));
    }

    fn unless(&mut self, holds: bool, option: &str, what: impl Into<String>) {
        if !holds {
            self.add(option, what);
        }
    }
}

fn server(config: &Config, c: &mut Complaints) {
    let server = &config.server;
    c.unless(
        server.workers <= MAX_WORKERS,
        "server.workers",
        format!("must be at most {MAX_WORKERS}"),
    );
    c.unless(
        (1..=65535).contains(&server.listen_backlog),
        "server.listen_backlog",
        "must be between 1 and 65535",
    );
    let second = Duration::from_secs(1);
    c.unless(
        server.request_timeout >= second,
        "server.request_timeout_ms",
        "must be at least 1000",
    );
    c.unless(
        server.http_keep_alive >= second,
        "server.http_keep_alive_ms",
        "must be at least 1000",
    );
    c.unless(
        server.max_body_bytes >= 1024,
        "server.max_body_bytes",
        "must be at least 1024",
    );
    c.unless(
        server.drain_window <= server.shutdown_timeout,
        "server.drain_window_ms",
        "must not be longer than server.shutdown_timeout_ms: the sockets are closed within the shutdown",
    );
    c.unless(
        !server.data_dir.as_os_str().is_empty(),
        "server.data_dir",
        "must not be empty",
    );
    let prefix = &server.path_prefix;
    let is_prefix_sound = prefix.is_empty()
        || (prefix.starts_with('/') && !prefix.ends_with('/') && !prefix.contains(['?', '#', ' ']));
    c.unless(
        is_prefix_sound,
        "server.path_prefix",
        "must be empty, or begin with a slash, not end with one, and hold neither ?, # nor a space",
    );
    let mut taken = HashMap::new();
    for (option, port) in [
        ("server.port", server.port),
        ("server.metrics_port", server.metrics_port),
        ("tls.port", config.tls.port),
    ] {
        if port == 0 {
            continue;
        }
        if let Some(other) = taken.insert(port, option) {
            c.add(option, format!("{port} is the port of {other} already"));
        }
    }
}

fn tls(config: &Config, c: &mut Complaints) {
    let tls = &config.tls;
    for (option, path) in [("tls.cert_path", &tls.cert_path), ("tls.key_path", &tls.key_path)] {
        let is_empty = path.as_os_str().is_empty();
        if tls.port == 0 {
            c.unless(
                is_empty,
                option,
                "is set, but tls.port is 0: nothing would be encrypted",
            );
        } else if is_empty {
            c.add(option, "is needed when tls.port is set");
        } else if let Err(e) = std::fs::File::open(path) {
            c.add(option, format!("cannot open {}: {e}", path.display()));
        }
    }
    c.unless(
        tls.reload_interval.is_zero() || tls.reload_interval >= Duration::from_millis(100),
        "tls.reload_interval_ms",
        "must be 0 or at least 100",
    );
}

fn log(config: &Config, c: &mut Complaints) {
    if let Err(e) = tracing_subscriber::EnvFilter::builder().parse(&config.log.filter) {
        c.add(
            "log.filter",
            format!("{:?} is not a filter: {e}", config.log.filter),
        );
    }
}

fn sockets(config: &Config, c: &mut Complaints) {
    let sockets = &config.sockets;
    let second = Duration::from_secs(1);
    c.unless(
        sockets.activity_timeout >= second,
        "sockets.activity_timeout_s",
        "must be at least 1: clients refuse a handshake without it",
    );
    c.unless(
        sockets.pong_timeout >= second,
        "sockets.pong_timeout_s",
        "must be at least 1",
    );
    c.unless(
        sockets.max_message_bytes >= 1024,
        "sockets.max_message_bytes",
        "must be at least 1024",
    );
    c.unless(
        sockets.max_fragments >= 1,
        "sockets.max_fragments",
        "must be at least 1",
    );
    c.unless(
        sockets.outbox_bytes >= sockets.max_message_bytes,
        "sockets.outbox_bytes",
        "must be at least sockets.max_message_bytes: one message has to fit",
    );
    c.unless(
        sockets.mailbox_bytes >= sockets.outbox_bytes,
        "sockets.mailbox_bytes",
        "must be at least sockets.outbox_bytes: a worker holds more than one of its connections",
    );
    c.unless(
        sockets.write_stall >= second,
        "sockets.write_stall_ms",
        "must be at least 1000: a network may hesitate for so long",
    );
    c.unless(
        (1..=4096).contains(&sockets.flush_chunk),
        "sockets.flush_chunk",
        "must be between 1 and 4096",
    );
    let is_production = config.server.env == Environment::Production;
    c.unless(
        !(sockets.test_echo && is_production),
        "sockets.test_echo",
        "is refused in production: it is for test suites",
    );
    c.unless(
        !(config.demo.enabled == Switch::On && is_production),
        "demo.enabled",
        "\"on\" is refused in production: the page triggers for whoever opens it",
    );
}

fn fallback(config: &Config, c: &mut Complaints) {
    let fallback = &config.fallback;
    let second = Duration::from_secs(1);
    c.unless(
        fallback.heartbeat >= second,
        "fallback.heartbeat_ms",
        "must be at least 1000",
    );
    c.unless(
        fallback.poll_timeout >= second,
        "fallback.poll_timeout_ms",
        "must be at least 1000",
    );
    c.unless(
        fallback.session_gap >= second,
        "fallback.session_gap_ms",
        "must be at least 1000",
    );
    c.unless(
        fallback.max_send_bytes >= config.sockets.max_message_bytes,
        "fallback.max_send_bytes",
        "must be at least sockets.max_message_bytes: one message has to fit",
    );
}

fn memories(config: &Config, c: &mut Complaints) {
    c.unless(
        config.cache.ttl <= MAX_CACHE_TTL && !config.cache.ttl.is_zero(),
        "cache.ttl_s",
        "must be between 1 and 1800",
    );
    c.unless(
        !config.idempotency.ttl.is_zero(),
        "idempotency.ttl_s",
        "must be at least 1",
    );
    c.unless(
        config.idempotency.max_entries >= 1,
        "idempotency.max_entries",
        "must be at least 1",
    );
}

fn redis(config: &Config, c: &mut Complaints) {
    let redis = &config.redis;
    if let Some(url) = &redis.url
        && let Err(bad) = Target::parse(url.expose(), &redis.ca_path)
    {
        let option = match bad {
            BadTarget::Authority(_) | BadTarget::AuthorityOfCluster => "redis.ca_path",
            BadTarget::Scheme | BadTarget::NoHost | BadTarget::NoMaster | BadTarget::Address(_) => {
                "redis.url"
            }
        };
        c.add(option, bad.to_string());
    }
    c.unless(
        !redis.prefix.is_empty() && !redis.prefix.contains(['{', '}', ' ']),
        "redis.prefix",
        "must not be empty, nor hold braces or spaces",
    );
    let tenth = Duration::from_millis(100);
    for (option, time) in [
        ("redis.lease_refresh_ms", redis.lease_refresh),
        ("redis.command_timeout_ms", redis.command_timeout),
    ] {
        c.unless(time >= tenth, option, "must be at least 100");
    }
    c.unless(
        redis.lease >= redis.lease_refresh * 2,
        "redis.lease_ms",
        "must be at least twice redis.lease_refresh_ms: one sign of life may be lost",
    );
    c.unless(
        redis.resync_interval >= Duration::from_secs(1),
        "redis.resync_interval_s",
        "must be at least 1",
    );
    c.unless(
        (1..=1000).contains(&redis.pool_size),
        "redis.pool_size",
        "must be between 1 and 1000",
    );
    c.unless(
        redis.outbox_entries <= 10_000_000,
        "redis.outbox_entries",
        "must be at most 10000000",
    );
}

fn webhooks(config: &Config, c: &mut Complaints) {
    let webhooks = &config.webhooks;
    c.unless(
        webhooks.settle <= Duration::from_mins(1),
        "webhooks.settle_ms",
        "must be at most 60000",
    );
    c.unless(
        webhooks.allow_networks.is_empty() || config.server.env != Environment::Production,
        "webhooks.allow_networks",
        "is refused in production: customers could reach what is inside",
    );
    c.unless(
        (1..=MAX_ATTEMPTS).contains(&webhooks.retry_schedule.len()),
        "webhooks.retry_schedule_ms",
        format!("must have 1 to {MAX_ATTEMPTS} entries"),
    );
    c.unless(
        (Duration::from_millis(100)..=Duration::from_mins(1)).contains(&webhooks.timeout),
        "webhooks.timeout_ms",
        "must be between 100 and 60000",
    );
    c.unless(
        (Duration::from_secs(1)..=Duration::from_mins(10)).contains(&webhooks.claim),
        "webhooks.claim_ms",
        "must be between 1000 and 600000",
    );
    c.unless(
        (1..=MAX_IN_FLIGHT).contains(&webhooks.max_in_flight),
        "webhooks.max_in_flight",
        format!("must be between 1 and {MAX_IN_FLIGHT}"),
    );
    c.unless(
        (1..=webhooks.max_in_flight).contains(&webhooks.max_in_flight_per_endpoint),
        "webhooks.max_in_flight_per_endpoint",
        "must be between 1 and webhooks.max_in_flight",
    );
}

fn database(config: &Config, c: &mut Complaints) {
    let database = &config.database;
    if let Some(url) = &database.url
        && let Err(bad) = sql::Target::parse(url.expose())
    {
        c.add("database.url", bad.to_string());
    }
    c.unless(
        (1..=1000).contains(&database.pool_size),
        "database.pool_size",
        "must be between 1 and 1000",
    );
    c.unless(
        database.timeout >= Duration::from_millis(100),
        "database.timeout_ms",
        "must be at least 100",
    );
}

fn apps(config: &Config, c: &mut Complaints) {
    if config.apps.is_empty() && config.server.env == Environment::Production {
        c.add(
            "apps",
            "none is configured, and the ready-made one (app-id / app-key / app-secret) is refused in production: \
             add [[apps]] to the file, or set DUNLIN_DEFAULT_APP_ID, DUNLIN_DEFAULT_APP_KEY and DUNLIN_DEFAULT_APP_SECRET",
        );
    }
    let (mut ids, mut keys, guard) = (HashMap::new(), HashMap::new(), config.guard());
    for (i, app) in config.apps.iter().enumerate() {
        let here = format!("apps[{i}]");
        if let Some(first) = ids.insert(app.id.as_str(), i) {
            c.add(
                format!("{here}.id"),
                format!("{:?} is the id of apps[{first}] already", app.id.as_str()),
            );
        }
        if let Some(first) = keys.insert(app.key.as_str(), i) {
            c.add(
                format!("{here}.key"),
                format!("{:?} is the key of apps[{first}] already", app.key.as_str()),
            );
        }
        if app.secret.expose() == "app-secret" && config.server.env == Environment::Production {
            c.add(
                format!("{here}.secret"),
                "is the ready-made one, which everybody knows: refused in production",
            );
        }
        for origin in &app.allowed_origins {
            if !is_origin(origin) {
                let what = format!(
                    "{origin:?} is no origin: write scheme://host, scheme://host:port, a host, *.host, or *"
                );
                c.add(format!("{here}.allowed_origins"), what);
            }
        }
        history(app, &here, c);
        for BadEndpoint { index, bad } in Endpoint::all_of(app, &guard).err().unwrap_or_default() {
            c.add(format!("{here}.webhooks[{index}].{}", bad.option), bad.what);
        }
        limits(config, app, &here, c);
    }
}

fn history(app: &AppSection, here: &str, c: &mut Complaints) {
    for (i, rule) in app.history.iter().enumerate() {
        let here = format!("{here}.history[{i}]");
        let is_pattern = match rule.channels.strip_suffix('*') {
            Some(prefix) => prefix.is_empty() || is_start_of_a_name(prefix),
            None => rule.channels.parse::<ChannelName>().is_ok(),
        };
        let what = format!(
            "{:?} is no pattern: write a channel's name, the beginning of names with * behind it, or *",
            rule.channels
        );
        c.unless(is_pattern, &format!("{here}.channels"), what);
        c.unless(
            (1..=MAX_HISTORY_SIZE).contains(&rule.size),
            &format!("{here}.size"),
            format!("must be between 1 and {MAX_HISTORY_SIZE}"),
        );
        c.unless(
            !rule.age.is_zero() && rule.age <= MAX_HISTORY_AGE,
            &format!("{here}.age_s"),
            format!(
                "must be between 1 and {}, which is a week",
                MAX_HISTORY_AGE.as_secs()
            ),
        );
    }
}

/// Whether a channel's name may begin so.
fn is_start_of_a_name(prefix: &str) -> bool {
    "#server-to-user-".starts_with(prefix) || prefix.parse::<ChannelName>().is_ok()
}

fn limits(config: &Config, app: &AppSection, here: &str, c: &mut Complaints) {
    let limits = &app.limits;
    for (key, length, most) in [
        (
            "channel_name_length",
            limits.channel_name_length,
            MAX_CHANNEL_NAME,
        ),
        ("event_name_length", limits.event_name_length, MAX_EVENT_NAME),
    ] {
        let what = format!("must be at most {most}: the libraries refuse longer names");
        c.unless(length <= most, &format!("{here}.limits.{key}"), what);
    }
    let payload = limits.payload_bytes.saturating_add(ENVELOPE_BYTES);
    for (option, bound) in [
        ("server.max_body_bytes", config.server.max_body_bytes),
        ("sockets.outbox_bytes", config.sockets.outbox_bytes),
        ("cache.max_bytes", config.cache.max_bytes),
        ("history.max_bytes", config.history.max_bytes),
    ] {
        let what = format!("must be smaller than {option} less {ENVELOPE_BYTES}: one event has to fit");
        c.unless(payload <= bound, &format!("{here}.limits.payload_bytes"), what);
    }
}

/// An origin as browsers send it (`scheme://host[:port]`), its part after the scheme, a bare host, `*.` and the parent of
/// many hosts, or `*`. Anything else would never match.
fn is_origin(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    if let Some(parent) = text.strip_prefix("*.") {
        return is_host(parent);
    }
    let authority = match text.split_once("://") {
        Some((scheme, authority)) if is_scheme(scheme) => authority,
        Some(_) => return false,
        None => text,
    };
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => is_host(host) && port.parse::<u16>().is_ok(),
        _ => is_host(authority),
    }
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

fn is_host(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-._[]:".contains(c))
}
