//! Whether the node is alive and wants traffic.

use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::{HttpResponse, web};

use super::readable;

/// Whether the node wants traffic: it serves, does not drain, and is in its cluster, if it has one.
#[derive(Default)]
pub struct Readiness {
    serves: AtomicBool,
    cluster: Option<Box<dyn Fn() -> bool + Send + Sync>>,
}

/// Why a node wants no traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// It has not begun, or it is about to end.
    Draining,
    /// It does not reach what the nodes share, or is not done with telling what it holds.
    CutOff,
}

impl Readiness {
    /// `is_in_cluster` is asked at every question.
    pub fn in_cluster(is_in_cluster: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            serves: AtomicBool::new(false),
            cluster: Some(Box::new(is_in_cluster)),
        }
    }

    pub fn set(&self, serves: bool) {
        self.serves.store(serves, Ordering::Release);
    }

    /// # Errors
    /// What is in the way.
    pub fn check(&self) -> Result<(), NotReady> {
        if !self.serves.load(Ordering::Acquire) {
            return Err(NotReady::Draining);
        }
        match &self.cluster {
            Some(is_in_cluster) if !is_in_cluster() => Err(NotReady::CutOff),
            Some(_) | None => Ok(()),
        }
    }

    pub fn is_ready(&self) -> bool {
        self.check().is_ok()
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
    let (mut response, text) = match api.readiness.check() {
        Ok(()) => (HttpResponse::Ok(), "ready\n"),
        Err(NotReady::Draining) => (HttpResponse::ServiceUnavailable(), "draining\n"),
        Err(NotReady::CutOff) => (HttpResponse::ServiceUnavailable(), "cut off from the cluster\n"),
    };
    response.content_type("text/plain; charset=utf-8").body(text)
}
