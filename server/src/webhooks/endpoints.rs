//! The endpoints of all apps, as they are now.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use dunlin_protocol::names::AppId;
use tokio::sync::Notify;

use super::delivery::EndpointId;
use super::endpoint::Endpoint;
use crate::apps::Apps;
use crate::apps::wanted::News;

/// Looked at for every event that is read, and replaced as a whole when something changes.
#[derive(Debug, Default)]
pub struct Endpoints {
    by_app: ArcSwap<HashMap<AppId, Arc<[Arc<Endpoint>]>>>,
    replacements: AtomicU64,
    replaced: Notify,
}

impl Endpoints {
    /// Takes these endpoints for all there are, and tells the apps what is wanted of them.
    pub fn replace(&self, endpoints: impl IntoIterator<Item = Arc<Endpoint>>, apps: &Apps) {
        let mut by_app: HashMap<AppId, Vec<Arc<Endpoint>>> = HashMap::new();
        for endpoint in endpoints {
            by_app.entry(endpoint.app.clone()).or_default().push(endpoint);
        }
        for app in apps.all() {
            let endpoints = by_app.get(&app.id).map(Vec::as_slice).unwrap_or_default();
            let news = endpoints
                .iter()
                .fold(News::NONE, |news, endpoint| news.and(endpoint.news()));
            app.wanted.set(news);
        }
        let by_app = by_app.into_iter().map(|(app, endpoints)| (app, endpoints.into()));
        self.by_app.store(Arc::new(by_app.collect()));
        self.replacements.fetch_add(1, Ordering::Release);
        self.replaced.notify_waiters();
    }

    /// Of one app; empty if it has none.
    pub fn of(&self, app: &AppId) -> Arc<[Arc<Endpoint>]> {
        self.by_app.load().get(app).cloned().unwrap_or_default()
    }

    pub fn get(&self, app: &AppId, id: &EndpointId) -> Option<Arc<Endpoint>> {
        self.of(app).iter().find(|endpoint| endpoint.id == *id).cloned()
    }

    /// Grows with each replacement, for whoever draws conclusions from what is here.
    pub fn replacements(&self) -> u64 {
        self.replacements.load(Ordering::Acquire)
    }

    /// Until there is an endpoint.
    pub async fn any(&self) {
        loop {
            let replaced = self.replaced.notified();
            if !self.is_empty() {
                return;
            }
            replaced.await;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.by_app.load().is_empty()
    }
}
