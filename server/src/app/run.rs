//! Start, serve, drain, stop.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_server::ServerHandle;
use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use super::listeners::{self, Parts};
use super::memory::Reclaim;
use super::metrics;
use super::telemetry;
use super::tls::Certificate;
use crate::api::Api;
use crate::api::body::BodyBounds;
use crate::api::demo::Demo;
use crate::api::health::Readiness;
use crate::apps::Apps;
use crate::apps::store::ConfiguredApps;
use crate::broker::idempotency::MemoryIdempotency;
use crate::broker::memory::MemoryBroker;
use crate::cluster::{Cluster, Settings};
use crate::config::{Config, Loaded, ServerSection};
use crate::hub::{Hub, MAX_WORKERS, Services};
use crate::presence::memory::{CountThrottle, MemoryPresence};
use crate::storage::memory::Channels;
use crate::tasks::Tasks;
use crate::transports::fallback::table::Sessions;
use crate::webhooks::outbox::{Feed, MemoryOutbox};
use crate::webhooks::settling::Settling;
use crate::webhooks::stats::Stats;
use crate::webhooks::worker::{self, Worker};

/// Runs a node until it is told to stop. A second signal ends it at once.
///
/// # Errors
/// It could not start; the text names what was in the way.
pub fn serve(loaded: Loaded) -> anyhow::Result<()> {
    let Loaded { config, warnings, .. } = loaded;
    telemetry::start(&config.log);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    actix_rt::System::new().block_on(run(config))
}

async fn run(config: Config) -> anyhow::Result<()> {
    let node = Node::start(config).await?;
    node.announce();
    stop_signal().await?;
    tracing::info!("stopping: no new connections, the present ones are asked to reconnect");
    let stop = tokio::select! {
        () = node.drain() => Stop::WhenIdle,
        again = stop_signal() => again.map(|()| Stop::Now)?,
    };
    node.stop(stop).await?;
    tracing::info!("stopped");
    Ok(())
}

/// How long the cluster may take to learn that this node holds nothing more.
const LEAVE_TIME: Duration = Duration::from_secs(5);

/// Events that wait for the webhook worker on a node without Redis. It takes them at once, unless the database is away.
const OUTBOX_ENTRIES: usize = 100_000;

/// How long the webhook worker may take for what is under way when the node stops.
const WEBHOOK_TIME: Duration = Duration::from_secs(5);

/// The secret of the app that development has when none is configured.
const READY_MADE_SECRET: &str = "app-secret";

/// What becomes of requests that are being answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// They are finished, within `server.shutdown_timeout`.
    WhenIdle,
    /// They are dropped.
    Now,
}

/// A node that serves.
pub struct Node {
    config: Config,
    hub: Arc<Hub>,
    cluster: Option<Arc<Cluster>>,
    worker: Worker,
    settling: Arc<Settling>,
    readiness: Arc<Readiness>,
    tasks: Tasks,
    servers: Vec<(ServerHandle, JoinHandle<io::Result<()>>)>,
    /// Where it listens: other than configured, if a port was 0.
    pub address: SocketAddr,
    pub metrics_address: SocketAddr,
    pub tls_address: Option<SocketAddr>,
}

impl Node {
    /// Binds all ports, then starts to serve.
    ///
    /// # Errors
    /// What was in the way; the text names the option.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let backlog = config.server.listen_backlog;
        let (host, server) = (config.server.host, &config.server);
        let listener = bind(host, server.port, backlog, "server.host, server.port")?;
        let metrics_options = "server.metrics_host, server.metrics_port";
        let metrics_listener = bind(server.metrics_host, server.metrics_port, 64, metrics_options)?;
        let encrypted = if config.tls.port == 0 {
            None
        } else {
            let certificate = Certificate::load(&config.tls).context("cannot serve TLS")?;
            let listener = bind(host, config.tls.port, backlog, "server.host, tls.port")?;
            Some((listener, certificate))
        };
        let (address, metrics_address) = (listener.local_addr()?, metrics_listener.local_addr()?);
        let tls_address = match &encrypted {
            Some((listener, _)) => Some(listener.local_addr()?),
            None => None,
        };

        let workers = worker_count(&config);
        let apps = Arc::new(Apps::load(&ConfiguredApps::new(config.apps.clone())).await);
        let hub = Arc::new(Hub::new(workers, config.server.max_connections, &config.sockets));
        let channels = Arc::new(Channels::default());
        let throttle = CountThrottle {
            above: u32::try_from(config.sockets.subscription_count_throttle_above).unwrap_or(u32::MAX),
            every: config.sockets.subscription_count_throttle,
        };
        let outbox = Arc::new(MemoryOutbox::new(OUTBOX_ENTRIES));
        let settling = Arc::new(Settling::new(outbox.clone(), config.webhooks.settle));
        let tasks = Tasks::default();
        let cluster = if config.redis.url.is_some() {
            let settings = Settings {
                redis: &config.redis,
                webhooks: &config.webhooks,
                cache: &config.cache,
                idempotency: &config.idempotency,
                throttle,
            };
            let cluster = Cluster::new(&settings, Arc::clone(&apps), hub.clone()).context("redis.url")?;
            tasks.spawn("cluster", Arc::clone(&cluster).run());
            Some(cluster)
        } else {
            None
        };
        let endpoints = worker::configured(&config, &apps);
        let webhooks = Arc::new(Stats::new(Arc::clone(&apps)));
        let feed: Arc<dyn Feed> = match &cluster {
            Some(cluster) => cluster.clone(),
            None => outbox.clone(),
        };
        let worker =
            Worker::start(&config, feed, endpoints, Arc::clone(&apps), Arc::clone(&webhooks)).await?;
        // A node of a cluster keeps these empty.
        let broker = Arc::new(MemoryBroker::new(
            Arc::clone(&channels),
            hub.clone(),
            outbox.clone(),
            &config.cache,
            &config.history,
        ));
        let presence = Arc::new(MemoryPresence::new(
            Arc::clone(&channels),
            hub.clone(),
            settling.clone(),
            throttle,
            &config.history,
        ));
        let services = match &cluster {
            Some(cluster) => Services {
                broker: cluster.clone(),
                presence: cluster.clone(),
            },
            None => Services {
                broker,
                presence: presence.clone(),
            },
        };
        let sessions = Arc::new(Sessions::new(Arc::clone(&hub), config.fallback.session_gap));
        let readiness = Arc::new(match &cluster {
            Some(cluster) => {
                let cluster = Arc::clone(cluster);
                Readiness::in_cluster(move || cluster.is_ready())
            }
            None => Readiness::default(),
        });
        let api = Arc::new(Api {
            apps: Arc::clone(&apps),
            services: services.clone(),
            hub: Arc::clone(&hub),
            readiness: Arc::clone(&readiness),
            idempotency: match &cluster {
                Some(cluster) => cluster.clone(),
                None => Arc::new(MemoryIdempotency::new(&config.idempotency)),
            },
            section: config.api.clone(),
            path_prefix: config.server.path_prefix.clone(),
            body: BodyBounds {
                max_bytes: config.server.max_body_bytes,
                time: config.server.request_timeout,
            },
            demo: demo(&config, &apps),
        });
        let ticking_api = Arc::clone(&api);
        let parts = Parts {
            hub: Arc::clone(&hub),
            services: services.clone(),
            apps: Arc::clone(&apps),
            api,
            server: config.server.clone(),
            sockets: config.sockets.clone(),
            fallback: config.fallback.clone(),
            sessions: Arc::clone(&sessions),
        };

        let mut builder = actix_server::Server::build()
            .workers(workers)
            .backlog(backlog)
            .max_concurrent_connections(usize::MAX >> 1)
            .shutdown_timeout(time_after_drain(&config.server).as_secs())
            .disable_signals();
        builder = listeners::plain(builder, listener, &parts)?;
        if let Some((listener, certificate)) = encrypted {
            builder = listeners::tls(builder, listener, &parts, &certificate.server_config()?)?;
            if !config.tls.reload_interval.is_zero() {
                tasks.every("certificate", config.tls.reload_interval, move || {
                    certificate.look();
                });
            }
        }
        let sources = metrics::Sources {
            hub: Arc::clone(&hub),
            apps,
            channels,
            presence,
            cluster: cluster.clone(),
            sessions,
            webhooks,
            readiness: Arc::clone(&readiness),
        };
        let servers = [builder.run(), metrics::serve(metrics_listener, sources)?];
        let servers = servers
            .into_iter()
            .map(|server| (server.handle(), actix_rt::spawn(server)))
            .collect();
        let (crowd, things) = (Arc::clone(&hub), cluster.clone());
        let mut reclaim = Reclaim::new(move || {
            // Channels of a cluster outlive their last connection by the time they linger.
            let held = things.as_ref().map_or(0, |cluster| cluster.held() as u64);
            crowd.open_connections() + held
        });
        tasks.every("reclaim memory", Duration::from_secs(1), move || reclaim.tick());
        let ends = Arc::clone(&settling);
        tasks.every("what settles", Duration::from_millis(100), move || ends.tick());
        tasks.every("what expires", Duration::from_secs(1), move || {
            services.presence.tick();
            services.broker.tick();
            ticking_api.idempotency.tick();
        });
        readiness.set(true);
        Ok(Self {
            config,
            hub,
            cluster,
            worker,
            settling,
            readiness,
            tasks,
            servers,
            address,
            metrics_address,
            tls_address,
        })
    }

    fn announce(&self) {
        let Self { config, address, .. } = self;
        tracing::info!(%address, apps = config.apps.len(), "ready");
        if let Some(address) = self.tls_address {
            tracing::info!(%address, "ready with TLS");
        }
        tracing::info!("Metrics: http://{}/metrics", self.metrics_address);
        if config.is_default_app {
            tracing::warn!(
                "no app is configured: app-id / app-key / app-secret is open to everybody who can reach this port"
            );
        }
        if config.is_demo_enabled() {
            let host = match address.ip() {
                ip if ip.is_loopback() || ip.is_unspecified() => "localhost".to_owned(),
                IpAddr::V6(ip) => format!("[{ip}]"),
                IpAddr::V4(ip) => ip.to_string(),
            };
            let (port, prefix) = (address.port(), &config.server.path_prefix);
            tracing::info!("Demo: http://{host}:{port}{prefix}/demo");
        }
    }

    /// Not ready, then the sockets over a window, until all are gone or the window and a little more are over.
    async fn drain(&self) {
        self.readiness.set(false);
        let window = self.config.server.drain_window;
        self.hub
            .drain(u32::try_from(window.as_secs()).unwrap_or(u32::MAX));
        let now = tokio::time::Instant::now();
        let deadline = now + window + self.config.sockets.close_linger + Duration::from_secs(1);
        let deadline = deadline.min(now + self.config.server.shutdown_timeout);
        while self.hub.open_connections() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if let Some(cluster) = &self.cluster {
            cluster.leave(LEAVE_TIME).await;
        }
    }

    /// What the connections of all workers have taken so far.
    #[cfg(test)]
    pub(super) fn written_bytes(&self) -> u64 {
        let workers = self.hub.all_counters().iter();
        workers
            .map(|worker| worker.written_bytes.load(std::sync::atomic::Ordering::Relaxed))
            .sum()
    }

    /// Ends everything.
    ///
    /// # Errors
    /// A server broke while it served.
    pub async fn stop(mut self, stop: Stop) -> anyhow::Result<()> {
        self.readiness.set(false);
        for (handle, serving) in self.servers.drain(..) {
            handle.stop(stop == Stop::WhenIdle).await;
            serving.await.context("the server's task failed")??;
        }
        // What has ended has ended: nobody comes back to a node that is gone.
        self.settling.finish();
        self.worker.stop(WEBHOOK_TIME).await;
        self.tasks.stop().await;
        Ok(())
    }
}

/// What the demo page is about: the first app that is not disabled.
fn demo(config: &Config, apps: &Apps) -> Option<Demo> {
    if !config.is_demo_enabled() {
        return None;
    }
    let section = config.apps.iter().find(|app| app.enabled)?;
    Some(Demo {
        app: apps.by_id(section.id.as_str())?,
        secret: (section.secret.expose() == READY_MADE_SECRET).then_some(READY_MADE_SECRET),
    })
}

fn bind(host: IpAddr, port: u16, backlog: u32, options: &str) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(host, port);
    listeners::bind(address, backlog).with_context(|| format!("cannot listen on {address} ({options})"))
}

/// What is left of the whole shutdown for requests that are being answered.
fn time_after_drain(server: &ServerSection) -> Duration {
    server
        .shutdown_timeout
        .saturating_sub(server.drain_window)
        .max(Duration::from_secs(1))
}

fn worker_count(config: &Config) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let wanted = if config.server.workers == 0 {
        cores
    } else {
        config.server.workers
    };
    wanted.clamp(1, MAX_WORKERS)
}

/// Waits for SIGTERM or SIGINT.
async fn stop_signal() -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
