//! Start, serve, drain, stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::listeners::{self, Parts};
use super::telemetry;
use crate::api::Api;
use crate::api::health::Readiness;
use crate::api::pusher::idempotency::Idempotency;
use crate::apps::Apps;
use crate::apps::store::ConfiguredApps;
use crate::broker::Broker;
use crate::broker::memory::MemoryBroker;
use crate::config::{Config, Loaded};
use crate::hub::{Hub, MAX_WORKERS, Services};
use crate::presence::Presence;
use crate::presence::memory::{CountThrottle, MemoryPresence};
use crate::storage::memory::Channels;
use crate::tasks::Tasks;
use crate::webhooks::outbox::MemoryOutbox;

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
    let workers = worker_count(&config);
    let apps = Arc::new(Apps::load(&ConfiguredApps::new(config.apps.clone())).await);
    let hub = Arc::new(Hub::new(workers, config.server.max_connections, &config.sockets));
    let channels = Arc::new(Channels::default());
    let throttle = CountThrottle {
        above: u32::try_from(config.sockets.subscription_count_throttle_above).unwrap_or(u32::MAX),
        every: config.sockets.subscription_count_throttle,
    };
    // Nobody reads it until webhooks are delivered, so it keeps nothing.
    let outbox = Arc::new(MemoryOutbox::new(0));
    let broker = Arc::new(MemoryBroker::new(
        Arc::clone(&channels),
        hub.clone(),
        &config.cache,
    ));
    let presence = Arc::new(MemoryPresence::new(channels, hub.clone(), outbox, throttle));
    let services = Services {
        broker: broker.clone(),
        presence: presence.clone(),
    };
    let readiness = Arc::new(Readiness::default());
    let api = Arc::new(Api {
        apps: Arc::clone(&apps),
        services: services.clone(),
        hub: Arc::clone(&hub),
        readiness: Arc::clone(&readiness),
        idempotency: Idempotency::new(&config.idempotency),
        section: config.api.clone(),
        path_prefix: config.server.path_prefix.clone(),
        max_body_bytes: config.server.max_body_bytes,
    });
    let parts = Parts {
        hub: Arc::clone(&hub),
        services,
        apps,
        api,
        server: config.server.clone(),
        sockets: config.sockets.clone(),
    };

    let address = SocketAddr::new(config.server.host, config.server.port);
    let listener = listeners::bind(address, config.server.listen_backlog)
        .with_context(|| format!("cannot listen on {address} (server.host, server.port)"))?;
    let address = listener.local_addr()?;
    let builder = actix_server::Server::build()
        .workers(workers)
        .backlog(config.server.listen_backlog)
        .max_concurrent_connections(usize::MAX >> 1)
        .shutdown_timeout(config.server.shutdown_timeout.as_secs())
        .disable_signals();
    let server = listeners::plain(builder, listener, &parts)?.run();
    let handle = server.handle();
    let serving = actix_rt::spawn(server);

    let tasks = Tasks::default();
    tasks.every("presence and cache", Duration::from_secs(1), move || {
        presence.tick();
        broker.tick();
    });
    readiness.set(true);
    announce(&config, address);

    stop_signal().await?;
    tracing::info!("stopping: no new connections, the present ones are asked to reconnect");
    tokio::select! {
        () = drain(&config, &readiness, &hub) => {}
        again = stop_signal() => again?,
    }
    handle.stop(false).await;
    serving.await.context("the server's task failed")??;
    tasks.stop().await;
    tracing::info!("stopped");
    Ok(())
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

/// Not ready, then the sockets over a window, until all are gone or the window and a little more are over.
async fn drain(config: &Config, readiness: &Readiness, hub: &Hub) {
    readiness.set(false);
    let window = config.server.drain_window;
    hub.drain(u32::try_from(window.as_secs()).unwrap_or(u32::MAX));
    let deadline =
        tokio::time::Instant::now() + window + config.sockets.close_linger + Duration::from_secs(1);
    let deadline = deadline.min(tokio::time::Instant::now() + config.server.shutdown_timeout);
    while hub.open_connections() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn announce(config: &Config, address: SocketAddr) {
    tracing::info!(%address, apps = config.apps.len(), "ready");
    if config.is_default_app {
        tracing::warn!(
            "no app is configured: app-id / app-key / app-secret is open to everybody who can reach this port"
        );
    }
}
