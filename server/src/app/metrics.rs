//! The port of the metrics: what Prometheus reads, and what each app has used.
//!
//! Numbers are collected when they are asked for, from counters that the workers keep for themselves, so that nothing
//! here costs the hot path anything. No metric has a label for a channel, a user or an app: a label is a time series
//! for good, and their number is the customers' choice. What an app has used is at `/usage`.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use actix_web::dev::Server;
use actix_web::{App as Routes, HttpResponse, HttpServer, web};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::api::health::Readiness;
use crate::apps::{App, Apps};
use crate::clock;
use crate::cluster::{Cluster, ClusterCounters};
use crate::hub::{Hub, WorkerCounters};
use crate::presence::memory::MemoryPresence;
use crate::storage::memory::Channels;
use crate::transports::fallback::table::Sessions;
use crate::webhooks::stats::Stats;
use crate::webhooks::store::{Disabled, WhyDisabled};

const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where the numbers are.
#[derive(Clone)]
pub struct Sources {
    pub hub: Arc<Hub>,
    pub apps: Arc<Apps>,
    pub channels: Arc<Channels>,
    pub presence: Arc<MemoryPresence>,
    /// `None` on a node that is alone.
    pub cluster: Option<Arc<Cluster>>,
    pub sessions: Arc<Sessions>,
    pub webhooks: Arc<Stats>,
    pub readiness: Arc<Readiness>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}

/// Serves `/metrics`, `/usage` and `/healthz` on a thread of its own.
///
/// # Errors
/// The listener cannot be used.
pub fn serve(listener: TcpListener, sources: Sources) -> io::Result<Server> {
    let registry = web::Data::new(registry(sources.clone()));
    let sources = web::Data::new(sources);
    let server = HttpServer::new(move || {
        Routes::new()
            .app_data(registry.clone())
            .app_data(sources.clone())
            .route("/metrics", web::get().to(metrics))
            .route("/usage", web::get().to(usage))
            .route("/healthz", web::get().to(async || text("ok\n")))
            .default_service(web::to(async || {
                HttpResponse::NotFound().content_type(TEXT).body("Not found\n")
            }))
    });
    Ok(server
        .workers(1)
        .disable_signals()
        .shutdown_timeout(1)
        .listen(listener)?
        .run())
}

fn text(body: &'static str) -> HttpResponse {
    HttpResponse::Ok().content_type(TEXT).body(body)
}

async fn metrics(registry: web::Data<Registry>) -> HttpResponse {
    let mut body = String::with_capacity(8 * 1024);
    match encode(&mut body, &registry) {
        Ok(()) => HttpResponse::Ok().content_type(OPEN_METRICS).body(body),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            HttpResponse::InternalServerError()
                .content_type(TEXT)
                .body("Internal error\n")
        }
    }
}

/// What an app has used since the process began; `connections` is how many it has now.
#[derive(Debug, Serialize)]
struct AppUsage<'a> {
    id: &'a str,
    connections: u64,
    publishes: u64,
    client_events: u64,
    deliveries: u64,
    rate_limited: u64,
    webhooks: WebhookUsage,
}

/// How the app's webhooks stand, and what became of those that this node sent.
#[derive(Debug, Serialize)]
struct WebhookUsage {
    queued: u64,
    oldest_queued_s: u64,
    dead_letters: u64,
    disabled_endpoints: u64,
    /// By the id of the endpoint.
    disabled: BTreeMap<String, DisabledEndpoint>,
    delivered: u64,
    failed_attempts: u64,
    retries: u64,
    given_up: u64,
}

#[derive(Debug, Serialize)]
struct DisabledEndpoint {
    since_ms: u64,
    why: &'static str,
}

impl From<Disabled> for DisabledEndpoint {
    fn from(disabled: Disabled) -> Self {
        Self {
            since_ms: disabled.since_ms,
            why: match disabled.why {
                WhyDisabled::Gone => "gone",
                WhyDisabled::TookNothing { .. } => "took_nothing",
            },
        }
    }
}

impl<'a> AppUsage<'a> {
    fn of(app: &'a App, stats: &Stats) -> Self {
        let counters = &app.counters;
        let queue = stats.queue_of(&app.id);
        let disabled = stats.disabled_of(&app.id).into_iter();
        Self {
            id: app.id.as_str(),
            connections: counters.connections.load(Relaxed),
            publishes: counters.publishes.load(Relaxed),
            client_events: counters.client_events.load(Relaxed),
            deliveries: counters.deliveries.load(Relaxed),
            rate_limited: counters.rate_limited.load(Relaxed),
            webhooks: WebhookUsage {
                queued: queue.pending,
                oldest_queued_s: queue.oldest.as_secs(),
                dead_letters: queue.dead,
                disabled_endpoints: queue.disabled_endpoints,
                disabled: disabled.map(|(id, disabled)| (id, disabled.into())).collect(),
                delivered: counters.webhooks.delivered.load(Relaxed),
                failed_attempts: counters.webhooks.failed.load(Relaxed),
                retries: counters.webhooks.retried.load(Relaxed),
                given_up: counters.webhooks.dead.load(Relaxed),
            },
        }
    }
}

async fn usage(sources: web::Data<Sources>) -> HttpResponse {
    #[derive(Serialize)]
    struct Answer<'a> {
        apps: Vec<AppUsage<'a>>,
    }
    let mut apps = sources.apps.all();
    apps.sort_by_key(|app| app.num);
    let apps = apps
        .iter()
        .map(|app| AppUsage::of(app, &sources.webhooks))
        .collect();
    HttpResponse::Ok().json(Answer { apps })
}

fn registry(sources: Sources) -> Registry {
    let mut registry = Registry::with_prefix("dunlin");
    let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The version that runs", build);
    registry.register_collector(Box::new(sources));
    registry
}

/// Writes one metric after the other.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn metric(
        &mut self,
        name: &str,
        unit: Option<&Unit>,
        help: &str,
        value: &impl EncodeMetric,
    ) -> fmt::Result {
        value.encode(self.0.encode_descriptor(name, help, unit, value.metric_type())?)
    }

    fn gauge(&mut self, name: &str, unit: Option<&Unit>, help: &str, value: u64) -> fmt::Result {
        self.metric(name, unit, help, &ConstGauge::new(value))
    }

    fn counter(&mut self, name: &str, unit: Option<&Unit>, help: &str, value: u64) -> fmt::Result {
        self.metric(name, unit, help, &ConstCounter::new(value))
    }
}

impl Sources {
    fn encode_webhooks(&self, w: &mut Writer<'_>) -> fmt::Result {
        let (stats, queue) = (&self.webhooks, self.webhooks.queue());
        let seconds = Some(&Unit::Seconds);
        w.gauge(
            "webhooks_queued",
            None,
            "Deliveries of all nodes that wait for an attempt",
            queue.pending,
        )?;
        let oldest = ConstGauge::new(queue.oldest.as_secs_f64());
        w.metric(
            "webhooks_oldest_queued",
            seconds,
            "Age of the oldest of them",
            &oldest,
        )?;
        w.gauge(
            "webhooks_dead_letters",
            None,
            "Deliveries of all nodes that were given up and are kept",
            queue.dead,
        )?;
        w.gauge(
            "webhooks_disabled_endpoints",
            None,
            "Endpoints that are sent nothing until somebody enables them",
            queue.disabled_endpoints,
        )?;
        let lag = ConstGauge::new(stats.outbox_lag().as_secs_f64());
        w.metric(
            "webhooks_outbox_lag",
            seconds,
            "Age of the oldest event of this node's part of the outbox that is no delivery yet",
            &lag,
        )?;
        for (name, help, counter) in [
            (
                "webhooks_made",
                "Deliveries that this node made of events",
                &stats.made,
            ),
            (
                "webhooks_delivered",
                "Deliveries that were taken",
                &stats.all.delivered,
            ),
            (
                "webhooks_failed_attempts",
                "Attempts that were not taken",
                &stats.all.failed,
            ),
            (
                "webhooks_retries",
                "Of these, those that another attempt follows",
                &stats.all.retried,
            ),
            (
                "webhooks_given_up",
                "Deliveries given up with their last attempt",
                &stats.all.dead,
            ),
            (
                "webhooks_endpoints_disabled",
                "Times this node disabled an endpoint that is gone or took nothing for too long",
                &stats.disabled,
            ),
            (
                "webhooks_outbox_dropped",
                "Events that made way in an outbox that was full",
                &stats.dropped,
            ),
        ] {
            w.counter(name, None, help, counter.load(Relaxed))?;
        }
        w.metric(
            "webhooks_attempt_duration",
            seconds,
            "Time that attempts took, by how they ended",
            &stats.durations,
        )
    }

    fn cluster(&self, counter: impl Fn(&ClusterCounters) -> &AtomicU64) -> u64 {
        self.cluster
            .as_ref()
            .map_or(0, |cluster| counter(&cluster.counters).load(Relaxed))
    }

    fn workers(&self, counter: impl Fn(&WorkerCounters) -> &AtomicU64) -> u64 {
        let workers = self.hub.all_counters().iter();
        workers.map(|worker| counter(worker).load(Relaxed)).sum()
    }
}

/// The help of each metric is also in `docs/reference/metrics.md`; a test holds the two together.
impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut w = Writer(encoder);
        let bytes = Some(&Unit::Bytes);
        let seconds = Some(&Unit::Seconds);
        let users = self.presence.user_counts();
        let apps = self.apps.all();
        let of_apps = |counter: fn(&App) -> &AtomicU64| -> u64 {
            apps.iter().map(|app| counter(app).load(Relaxed)).sum()
        };
        let cached = apps.iter().map(|app| app.cached.taken_bytes() as u64).sum();
        let kept = apps.iter().map(|app| app.kept.taken_bytes() as u64).sum();

        w.gauge(
            "ready",
            None,
            "1 while the node takes connections",
            u64::from(self.readiness.is_ready()),
        )?;
        w.gauge("apps", None, "Apps this node knows", apps.len() as u64)?;
        w.gauge(
            "connections",
            None,
            "Open connections, all transports",
            self.workers(|of| &of.connections),
        )?;
        w.gauge(
            "local_channels",
            None,
            "Channels with subscribers, counted on each worker they are on",
            self.workers(|of| &of.channels),
        )?;
        w.gauge(
            "directory_channels",
            None,
            "Channels with subscribers on this node",
            self.hub.directory().len() as u64,
        )?;
        w.gauge(
            "channel_states",
            None,
            "Channels that are occupied or remember an event",
            self.channels.len() as u64,
        )?;
        w.gauge(
            "signed_in_users",
            None,
            "Users who are signed in",
            users.signed_in as u64,
        )?;
        w.gauge(
            "kept_users",
            None,
            "Users who are signed in or watched",
            users.kept as u64,
        )?;
        w.gauge(
            "fallback_sessions",
            None,
            "Sessions of clients that fetch by HTTP requests",
            self.sessions.count() as u64,
        )?;
        w.gauge(
            "cluster_held",
            None,
            "What this node holds in Redis: channels, users who are signed in or watched, quotas",
            self.cluster.as_ref().map_or(0, |cluster| cluster.held() as u64),
        )?;
        w.gauge(
            "mailbox",
            bytes,
            "Publications that wait for a worker",
            self.hub.mailbox_bytes() as u64,
        )?;
        w.gauge("cache", bytes, "What cache channels remember", cached)?;
        w.gauge("history", bytes, "What channels with history keep", kept)?;

        w.counter(
            "publishes",
            None,
            "Events accepted over the HTTP API",
            of_apps(|app| &app.counters.publishes),
        )?;
        w.counter(
            "client_events",
            None,
            "Events accepted from clients",
            of_apps(|app| &app.counters.client_events),
        )?;
        w.counter(
            "rate_limited",
            None,
            "Requests and client events refused by a rate limit",
            of_apps(|app| &app.counters.rate_limited),
        )?;
        w.counter(
            "deliveries",
            None,
            "Events put on their way to one connection each",
            self.workers(|of| &of.deliveries),
        )?;
        w.counter(
            "received_messages",
            None,
            "Messages that connections sent",
            self.workers(|of| &of.received_messages),
        )?;
        w.counter(
            "writes",
            None,
            "Writes to connections",
            self.workers(|of| &of.writes),
        )?;
        w.counter(
            "written",
            bytes,
            "What was written to connections",
            self.workers(|of| &of.written_bytes),
        )?;
        w.counter(
            "closed_slow",
            None,
            "Connections closed because they did not take what was sent",
            self.workers(|of| &of.closed_slow),
        )?;
        w.counter(
            "closed_silent",
            None,
            "Connections closed because a ping was not answered",
            self.workers(|of| &of.closed_silent),
        )?;
        w.counter(
            "cluster_holds",
            None,
            "Times Redis was told what this node holds of something",
            self.cluster(|of| &of.holds),
        )?;
        w.counter(
            "cluster_gaps",
            None,
            "Times a message of a channel was missing and had to be asked for",
            self.cluster(|of| &of.gaps),
        )?;
        w.counter(
            "cluster_losses",
            None,
            "Times the connection to Redis was lost",
            self.cluster(|of| &of.losses),
        )?;
        w.counter(
            "cluster_rebirths",
            None,
            "Times this node's lease was gone, so that it began anew under another id",
            self.cluster(|of| &of.rebirths),
        )?;
        w.counter(
            "cluster_reaped",
            None,
            "Dead nodes whose members this node made leave",
            self.cluster(|of| &of.reaped),
        )?;
        self.encode_webhooks(&mut w)?;

        let uptime = ConstGauge::new(clock::monotonic_seconds_exact());
        w.metric("uptime", seconds, "Time since the process began", &uptime)?;
        let cpu = ConstCounter::new(cpu_seconds());
        w.metric(
            "process_cpu",
            seconds,
            "Processor time of the process, user and system",
            &cpu,
        )?;
        w.gauge(
            "process_resident_memory",
            bytes,
            "Memory of the process that is in RAM",
            resident_bytes(),
        )?;
        w.gauge(
            "process_open_fds",
            None,
            "Files and sockets the process has open",
            open_files(),
        )
    }
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds of processor time stay far below 2^53"
    )]
    let whole = time.tv_sec as f64;
    #[expect(
        clippy::cast_precision_loss,
        reason = "nanoseconds of a second are below 2^30"
    )]
    let rest = time.tv_nsec as f64;
    whole + rest / 1e9
}

/// 0 where `/proc` is not there.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

fn open_files() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::apps::store::ConfiguredApps;
    use crate::config::{Sources as ConfigSources, load};
    use crate::presence::memory::CountThrottle;
    use crate::webhooks::outbox::MemoryOutbox;

    const PAGE: &str = include_str!("../../../docs/reference/metrics.md");

    async fn scrape() -> String {
        let config = load(&ConfigSources::default()).unwrap().config;
        let hub = Arc::new(Hub::new(2, 0, &config.sockets));
        let channels = Arc::new(Channels::default());
        let throttle = CountThrottle {
            above: 100,
            every: Duration::from_secs(5),
        };
        let outbox = Arc::new(MemoryOutbox::new(0));
        let presence = Arc::new(MemoryPresence::new(
            channels.clone(),
            hub.clone(),
            outbox,
            throttle,
            &config.history,
        ));
        let apps = Arc::new(Apps::load(&ConfiguredApps::new(config.apps)).await);
        let sessions = Arc::new(Sessions::new(Arc::clone(&hub), Duration::from_secs(1)));
        let webhooks = Arc::new(Stats::new(Arc::clone(&apps)));
        let readiness = Arc::new(Readiness::default());
        let registry = registry(Sources {
            hub,
            apps,
            channels,
            presence,
            cluster: None,
            sessions,
            webhooks,
            readiness,
        });
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[tokio::test]
    async fn the_page_about_metrics_has_every_metric_with_its_kind_and_meaning() {
        let text = scrape().await;
        let (mut kinds, mut expected) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines() {
            if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                kinds.insert(name, kind);
            }
        }
        for line in text.lines() {
            if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
                let sample = match kinds[name] {
                    "counter" => format!("{name}_total"),
                    "info" => format!("{name}_info"),
                    _ => name.to_owned(),
                };
                expected.insert(sample, (kinds[name], help.trim_end_matches('.')));
            }
        }
        assert!(expected.len() > 20, "{text}");
        let mut found = BTreeMap::new();
        for line in PAGE.lines() {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            if let [_, name, kind, meaning, _] = cells[..]
                && let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`'))
                && name.starts_with("dunlin_")
            {
                found.insert(name.to_owned(), (kind, meaning));
            }
        }
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn the_process_knows_its_own_size() {
        let text = scrape().await;
        for name in [
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_cpu_seconds_total",
        ] {
            let prefix = format!("dunlin_{name} ");
            let value = text.lines().find_map(|line| line.strip_prefix(prefix.as_str()));
            assert!(
                value.is_some_and(|value| value.parse::<f64>().unwrap() > 0.0),
                "{name}: {value:?}"
            );
        }
    }
}
