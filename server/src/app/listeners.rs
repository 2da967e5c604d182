//! The ports of sockets and HTTP API, plain and with TLS: what every worker does with a new TCP connection.

use std::cell::{OnceCell, RefCell};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;

use actix_http::{HttpServiceBuilder, KeepAlive, Request, TlsAcceptorConfig};
use actix_server::{GracefulShutdownSignal, ServerBuilder};
use actix_service::{IntoServiceFactory as _, ServiceFactory, fn_factory, fn_service, map_config};
use actix_tls::accept::max_concurrent_tls_connect;
use actix_web::body::BoxBody;
use actix_web::dev::AppConfig;
use actix_web::{App as Routes, HttpResponse, web};
use bytes::BytesMut;
use rustix::net::sockopt::set_tcp_user_timeout;
use rustls::ServerConfig;
use tokio::net::TcpSocket;

use crate::api::{Api, demo, front::Front, health, pusher};
use crate::apps::Apps;
use crate::config::{FallbackSection, ServerSection, SocketsSection};
use crate::hub::shard::Shard;
use crate::hub::{Hub, Services, pump};
use crate::transports::fallback::{self, table::Sessions};
use crate::transports::ws::upgrade;
use crate::transports::{Encrypted, Worker};

/// What every worker is built from.
#[derive(Clone)]
pub struct Parts {
    pub hub: Arc<Hub>,
    pub services: Services,
    pub apps: Arc<Apps>,
    pub api: Arc<Api>,
    pub server: ServerSection,
    pub sockets: SocketsSection,
    pub fallback: FallbackSection,
    pub sessions: Arc<Sessions>,
}

thread_local! {
    /// One worker per thread, however many ports it serves.
    static WORKER: OnceCell<Rc<Worker>> = const { OnceCell::new() };
}

/// The worker of this thread; the first call starts its shard.
fn worker(parts: &Parts) -> Rc<Worker> {
    let start = || {
        let number = parts
            .hub
            .enter_worker()
            .expect("there are as many mailboxes as workers");
        let shard = Shard::new(
            Arc::clone(&parts.hub),
            parts.services.clone(),
            number,
            &parts.sockets,
        );
        let shard = Rc::new(RefCell::new(shard));
        pump::start(&shard);
        Rc::new(Worker {
            shard,
            apps: Arc::clone(&parts.apps),
            section: parts.sockets.clone(),
            fallback: parts.fallback.clone(),
            sessions: Arc::clone(&parts.sessions),
            request_timeout: parts.server.request_timeout,
            path_prefix: parts.server.path_prefix.clone(),
            read_buffer: RefCell::new(BytesMut::new()),
        })
    };
    WORKER.with(|worker| Rc::clone(worker.get_or_init(start)))
}

/// How long the kernel keeps trying to get bytes to a peer. Well above the times after which the shards give up on a
/// socket: it is for answers to HTTP requests, which nobody else watches.
const PEER_TIMEOUT_MS: u32 = 90_000;

/// What the kernel may hold for one peer, beside the connection's outbox. Left alone it grows to four megabytes for each
/// peer that does not read, which no figure of the process shows. At a round trip of 100 ms this is 2.5 MB a second.
const SEND_BUFFER_BYTES: u32 = 256 * 1024;

/// Binds an address, so that a port that is taken is an error before anything has started.
///
/// # Errors
/// The address cannot be bound.
pub fn bind(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    // Connections inherit both. Whoever acknowledges nothing for so long is gone, whatever it was sent and by whom.
    set_tcp_user_timeout(&socket, PEER_TIMEOUT_MS)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(backlog)?.into_std()
}

fn routes(config: &mut web::ServiceConfig) {
    config.configure(health::routes).configure(pusher::routes);
}

/// Adds the plain port to the server.
///
/// # Errors
/// The listener cannot be used.
pub fn plain(builder: ServerBuilder, listener: TcpListener, parts: &Parts) -> io::Result<ServerBuilder> {
    let (parts, stopping) = (parts.clone(), builder.graceful_shutdown_signal());
    builder.listen("sockets", listener, move || {
        http(&parts, &stopping)
            .upgrade(upgrades(parts.clone()))
            .finish(front(parts.clone()))
            .tcp()
    })
}

/// Adds the port with TLS. It serves what the plain one does, on the same workers.
///
/// # Errors
/// The listener cannot be used.
pub fn tls(
    builder: ServerBuilder,
    listener: TcpListener,
    parts: &Parts,
    config: &ServerConfig,
) -> io::Result<ServerBuilder> {
    // A worker with this many handshakes under way would accept nothing more, on the plain port neither. Each has its
    // own deadline, and open files are the bound.
    max_concurrent_tls_connect(usize::MAX >> 1);
    let (parts, config, stopping) = (parts.clone(), config.clone(), builder.graceful_shutdown_signal());
    builder.listen("sockets with TLS", listener, move || {
        let acceptor = TlsAcceptorConfig::default().handshake_timeout(parts.server.request_timeout);
        http(&parts, &stopping)
            .on_connect_ext(|_, data| {
                data.insert(Encrypted);
            })
            .upgrade(upgrades(parts.clone()))
            .finish(front(parts.clone()))
            .rustls_0_23_with_config(config.clone(), acceptor)
    })
}

/// How HTTP is spoken on every port. A server that is `stopping` finishes the requests it has and takes no more on
/// the connections that wait for one.
fn http<T, S>(parts: &Parts, stopping: &GracefulShutdownSignal) -> HttpServiceBuilder<T, S>
where
    S: ServiceFactory<Request, Config = ()>,
    S::Error: Into<actix_http::Response<BoxBody>> + 'static,
    S::InitError: std::fmt::Debug,
    <S::Service as actix_service::Service<Request>>::Future: 'static,
{
    let stopping = stopping.clone();
    HttpServiceBuilder::default()
        .graceful_shutdown_signal(move || {
            let stopping = stopping.clone();
            async move { stopping.notified().await }
        })
        .client_request_timeout(parts.server.request_timeout)
        .keep_alive(KeepAlive::Timeout(parts.server.http_keep_alive))
        .tcp_nodelay(true)
        // Whoever hangs up receives no more: a stream would otherwise hold on to it until the next heartbeat.
        .h1_allow_half_closed(false)
}

/// What takes WebSocket connections over from the HTTP service.
fn upgrades<T: upgrade::Stream>(
    parts: Parts,
) -> impl ServiceFactory<
    (Request, upgrade::Framed<T>),
    Config = (),
    Response = (),
    Error = actix_web::Error,
    InitError = (),
    Future: 'static,
> {
    fn_factory(move || {
        let worker = worker(&parts);
        async move {
            Ok::<_, ()>(fn_service(
                move |(request, framed): (Request, upgrade::Framed<T>)| {
                    let done = upgrade::take_over(&worker, &request, framed);
                    async move { done.map_err(actix_web::Error::from) }
                },
            ))
        }
    })
}

/// The HTTP side: publishing by hand, everything else by routes.
fn front(
    parts: Parts,
) -> impl ServiceFactory<
    Request,
    Config = (),
    Response = actix_http::Response<BoxBody>,
    Error = actix_web::Error,
    InitError = (),
    Service = impl actix_service::Service<
        Request,
        Response = actix_http::Response<BoxBody>,
        Error = actix_web::Error,
    >,
> {
    fn_factory(move || {
        let api = Arc::clone(&parts.api);
        let (has_fallback, has_demo) = (parts.fallback.enabled, api.demo.is_some());
        let all_routes = move |config: &mut web::ServiceConfig| {
            config.configure(routes);
            if has_fallback {
                config.configure(fallback::routes);
            }
            if has_demo {
                config.configure(demo::routes);
            }
        };
        // Behind a proxy that adds a prefix, probes and neighbours still come to the port without it.
        let prefix = parts.server.path_prefix.as_str();
        let mut routes = Routes::new();
        if !prefix.is_empty() {
            routes = routes.service(web::scope(prefix).configure(all_routes));
        }
        let routes = routes
            .app_data(web::Data::from(Arc::clone(&api)))
            .app_data(worker(&parts))
            .configure(all_routes)
            .default_service(web::to(async || {
                HttpResponse::NotFound()
                    .content_type("text/plain; charset=utf-8")
                    .body("Not found\n")
            }));
        let routes = map_config(routes.into_factory(), |()| AppConfig::default()).new_service(());
        async move {
            Ok(Front {
                api,
                routes: routes.await?,
            })
        }
    })
}
