//! HTTP. One folder per face; here is what they share.
//!
//! Owns routes, extraction and the shape of answers. Must never contain a rule that a socket also needs.

pub mod body;
pub mod demo;
pub mod error;
pub mod front;
pub mod health;
pub mod pusher;

use std::sync::Arc;

use actix_web::{FromRequest, Handler, Resource, Responder, web};

use crate::apps::Apps;
use crate::broker::idempotency::Idempotency;
use crate::config::ApiSection;
use crate::hub::{Hub, Services};
use body::BodyBounds;
use demo::Demo;
use health::Readiness;

/// What every handler works with; one per process.
pub struct Api {
    pub apps: Arc<Apps>,
    pub services: Services,
    pub hub: Arc<Hub>,
    pub readiness: Arc<Readiness>,
    pub idempotency: Arc<dyn Idempotency>,
    pub section: ApiSection,
    /// What a proxy puts in front of the paths.
    pub path_prefix: String,
    pub body: BodyBounds,
    /// `None`: the page is not served.
    pub demo: Option<Demo>,
}

impl Api {
    /// The path as a client signed it: without what a proxy put in front, if it did.
    pub fn signed_path<'a>(&self, path: &'a str) -> &'a str {
        path.strip_prefix(self.path_prefix.as_str()).unwrap_or(path)
    }
}

/// A path that can be read; with another method it answers 405 and says which it has.
fn readable<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    web::resource(path)
        .route(web::get().to(handler.clone()))
        .route(web::head().to(handler))
}
