//! The port of sockets and HTTP API: what every worker does with a new TCP connection.

use std::cell::{OnceCell, RefCell};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;

use actix_http::{HttpService, KeepAlive};
use actix_server::ServerBuilder;
use actix_service::{IntoServiceFactory as _, ServiceFactory as _, fn_factory, fn_service, map_config};
use actix_web::body::BoxBody;
use actix_web::dev::AppConfig;
use actix_web::{App as Routes, HttpResponse, web};
use bytes::BytesMut;
use tokio::net::{TcpSocket, TcpStream};

use crate::api::{Api, front::Front, health, pusher};
use crate::apps::Apps;
use crate::config::{ServerSection, SocketsSection};
use crate::hub::shard::Shard;
use crate::hub::{Hub, Services, pump};
use crate::transports::Worker;
use crate::transports::ws::upgrade;

/// What every worker is built from.
#[derive(Clone)]
pub struct Parts {
    pub hub: Arc<Hub>,
    pub services: Services,
    pub apps: Arc<Apps>,
    pub api: Arc<Api>,
    pub server: ServerSection,
    pub sockets: SocketsSection,
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
            path_prefix: parts.server.path_prefix.clone(),
            read_buffer: RefCell::new(BytesMut::new()),
        })
    };
    WORKER.with(|worker| Rc::clone(worker.get_or_init(start)))
}

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
    let parts = parts.clone();
    builder.listen("sockets", listener, move || {
        let for_upgrades = parts.clone();
        let upgrades = fn_factory(move || {
            let worker = worker(&for_upgrades);
            async move {
                Ok::<_, ()>(fn_service(
                    move |(request, framed): (actix_http::Request, upgrade::Framed<TcpStream>)| {
                        let done = upgrade::take_over(&worker, &request, framed);
                        async move { done.map_err(actix_web::Error::from) }
                    },
                ))
            }
        });
        HttpService::build()
            .client_request_timeout(parts.server.request_timeout)
            .keep_alive(KeepAlive::Timeout(parts.server.http_keep_alive))
            .tcp_nodelay(true)
            .upgrade(upgrades)
            .finish(front(parts.clone()))
            .tcp()
    })
}

/// The HTTP side: publishing by hand, everything else by routes.
fn front(
    parts: Parts,
) -> impl actix_service::ServiceFactory<
    actix_http::Request,
    Config = (),
    Response = actix_http::Response<BoxBody>,
    Error = actix_web::Error,
    InitError = (),
    Service = impl actix_service::Service<
        actix_http::Request,
        Response = actix_http::Response<BoxBody>,
        Error = actix_web::Error,
    >,
> {
    let Parts { api, server, .. } = parts;
    let prefix = server.path_prefix;
    fn_factory(move || {
        let routes = Routes::new()
            .app_data(web::Data::from(Arc::clone(&api)))
            .service(web::scope(&prefix).configure(routes))
            .default_service(web::to(async || {
                HttpResponse::NotFound()
                    .content_type("text/plain; charset=utf-8")
                    .body("Not found\n")
            }));
        let routes = map_config(routes.into_factory(), |()| AppConfig::default()).new_service(());
        let api = Arc::clone(&api);
        async move {
            Ok(Front {
                api,
                routes: routes.await?,
            })
        }
    })
}
