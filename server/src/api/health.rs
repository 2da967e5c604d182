//! Whether the node is alive and wants traffic.

use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::{HttpResponse, web};

use super::readable;

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
    for path in ["/healthz", "/live"] {
        config.service(readable(path, alive));
    }
    for path in ["/ready", "/up"] {
        config.service(readable(path, ready));
    }
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
