//! HTTP. One folder per face; here is what they share.
//!
//! Owns routes, extraction and the shape of answers. Must never contain a rule that a socket also needs.

pub mod error;
pub mod front;
pub mod health;
pub mod pusher;

use std::sync::Arc;

use crate::apps::Apps;
use crate::config::ApiSection;
use crate::hub::{Hub, Services};
use health::Readiness;
use pusher::idempotency::Idempotency;

/// What every handler works with; one per process.
pub struct Api {
    pub apps: Arc<Apps>,
    pub services: Services,
    pub hub: Arc<Hub>,
    pub readiness: Arc<Readiness>,
    pub idempotency: Idempotency,
    pub section: ApiSection,
    /// What a proxy puts in front of the paths.
    pub path_prefix: String,
    pub max_body_bytes: usize,
}
