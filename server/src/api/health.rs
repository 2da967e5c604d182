//! Whether the node is alive and wants traffic.

use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::{HttpResponse, web};

/// Set once the node serves, cleared when it drains.
#[derive(Debug, Default)]
pub struct Readiness(AtomicBool);

impl Readiness {
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// `/healthz` and `/live`: the process answers. `/ready` and `/up`: it takes connections.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/healthz", web::get().to(alive))
        .route("/live", web::get().to(alive))
        .route("/ready", web::get().to(ready))
        .route("/up", web::get().to(ready));
}

async fn alive() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .body("ok\n")
}

async fn ready(api: web::Data<super::Api>) -> HttpResponse {
    if api.readiness.is_ready() {
        HttpResponse::Ok()
            .content_type("text/plain; charset=utf-8")
            .body("ready\n")
    } else {
        HttpResponse::ServiceUnavailable()
            .content_type("text/plain; charset=utf-8")
            .body("draining\n")
    }
}
