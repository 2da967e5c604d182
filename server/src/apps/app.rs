//! One app.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dunlin_protocol::names::{AppId, AppKey, ChannelName};
use dunlin_protocol::signature::Secret;

use super::history::HistoryRule;
use super::limits::RateLimit;
#[cfg(test)]
use super::wanted::News;
use super::wanted::Wanted;
use crate::config::{AppLimits, AppSection};
use crate::storage::keys::AppNum;
use crate::storage::memory::Room;

/// A tenant as this node holds it: resolved once per connection or request, then held, never looked up again.
#[derive(Debug)]
pub struct App {
    pub id: AppId,
    pub num: AppNum,
    pub key: AppKey,
    pub secret: Secret,
    pub name: String,
    pub enabled: bool,
    pub client_events: bool,
    pub subscription_count: bool,
    pub watchlist: bool,
    /// Seconds within which a connection must sign in or join a private channel; `None`: it need not.
    pub authorized_connections_s: Option<u32>,
    pub tls_only: bool,
    /// Hosts or origins a browser may connect from; empty: any.
    pub allowed_origins: Vec<String>,
    /// Which channels keep their past; most apps have none.
    history: Box<[HistoryRule]>,
    pub limits: AppLimits,
    pub publish_rate: RateLimit,
    pub read_rate: RateLimit,
    /// What its cache channels remember.
    pub cached: Arc<Room>,
    /// What its channels with history keep.
    pub kept: Arc<Room>,
    /// What its webhooks are about.
    pub wanted: Wanted,
    pub counters: AppCounters,
}

impl App {
    pub fn new(num: AppNum, section: &AppSection) -> Self {
        Self {
            id: section.id.clone(),
            num,
            key: section.key.clone(),
            secret: section.secret.to_secret(),
            name: section.name.clone(),
            enabled: section.enabled,
            client_events: section.client_events,
            subscription_count: section.subscription_count,
            watchlist: section.watchlist,
            authorized_connections_s: section.authorized_connections_s(),
            tls_only: section.tls_only,
            allowed_origins: section.allowed_origins.clone(),
            history: section.history.iter().map(HistoryRule::new).collect(),
            limits: section.limits.clone(),
            publish_rate: RateLimit::per_second(section.limits.publishes_per_second),
            read_rate: RateLimit::per_second(section.limits.reads_per_second),
            cached: Arc::default(),
            kept: Arc::default(),
            wanted: Wanted::default(),
            counters: AppCounters::default(),
        }
    }

    /// An app that nobody else uses, not even in another run against the same store.
    #[cfg(test)]
    pub(crate) fn fresh(edit: impl FnOnce(&mut AppSection)) -> Arc<Self> {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
        let mut section = AppSection::example();
        section.id = rand::random::<u64>()
            .to_string()
            .parse()
            .expect("digits are an id");
        edit(&mut section);
        let app = Self::new(AppNum(NEXT.fetch_add(1, Ordering::Relaxed)), &section);
        app.wanted.set(News::STATE);
        Arc::new(app)
    }

    /// Whether a browser page of this origin may connect. Clients outside browsers send no origin and are let in:
    /// the list keeps other people's pages out, it authenticates nobody.
    pub fn allows_origin(&self, origin: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        if self.allowed_origins.is_empty() {
            return true;
        }
        let host = origin.split_once("://").map_or(origin, |(_, host)| host);
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        self.allowed_origins
            .iter()
            .any(|allowed| match allowed.strip_prefix("*.") {
                Some(parent) => name.strip_suffix(parent).is_some_and(|sub| sub.ends_with('.')),
                None => allowed == "*" || allowed == origin || allowed == host || allowed == name,
            })
    }

    /// How much of its past the channel keeps, if any: the first rule that covers it counts.
    pub fn history_of(&self, channel: &ChannelName) -> Option<&HistoryRule> {
        self.history.iter().find(|rule| rule.covers(channel))
    }

    /// Takes a place in the connection quota.
    ///
    /// # Errors
    /// The app is full; nothing was taken.
    pub fn take_connection(&self) -> Result<(), QuotaExceeded> {
        let limit = u64::from(self.limits.connections);
        let taken = self
            .counters
            .connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
                (limit == 0 || open < limit).then_some(open + 1)
            });
        taken.map(|_| ()).map_err(|_| QuotaExceeded)
    }

    pub fn give_connection_back(&self) {
        self.counters.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the app's connection quota is used up")]
pub struct QuotaExceeded;

/// What happened in an app since the process began. `connections` is a gauge, the rest only grow.
#[derive(Debug, Default)]
pub struct AppCounters {
    pub connections: AtomicU64,
    pub publishes: AtomicU64,
    pub client_events: AtomicU64,
    pub deliveries: AtomicU64,
    pub rate_limited: AtomicU64,
    pub webhooks: WebhookCounters,
}

/// What became of webhooks that this node sent. They only grow.
#[derive(Debug, Default)]
pub struct WebhookCounters {
    /// Deliveries that were taken.
    pub delivered: AtomicU64,
    /// Attempts that were not.
    pub failed: AtomicU64,
    /// Of these, those that another attempt follows.
    pub retried: AtomicU64,
    /// Deliveries given up with their last attempt.
    pub dead: AtomicU64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(edit: impl FnOnce(&mut AppSection)) -> App {
        let mut section = AppSection::example();
        edit(&mut section);
        App::new(AppNum(0), &section)
    }

    #[test]
    fn origins_match_by_origin_host_name_or_wildcard() {
        let app = app(|section| {
            section.allowed_origins = ["https://a.example", "b.example", "*.c.example", "d.example:8080"]
                .map(String::from)
                .into();
        });
        for (origin, allowed) in [
            (None, true),
            (Some("https://a.example"), true),
            (Some("http://a.example"), false),
            (Some("http://b.example"), true),
            (Some("http://b.example:3000"), true),
            (Some("https://x.c.example"), true),
            (Some("https://c.example"), false),
            (Some("https://xc.example"), false),
            (Some("http://d.example:8080"), true),
            (Some("http://d.example:8081"), false),
            (Some("null"), false),
        ] {
            assert_eq!(app.allows_origin(origin), allowed, "{origin:?}");
        }
    }

    #[test]
    fn the_connection_quota_is_exact() {
        let app = app(|section| section.limits.connections = 2);
        assert_eq!(app.take_connection(), Ok(()));
        assert_eq!(app.take_connection(), Ok(()));
        assert_eq!(app.take_connection(), Err(QuotaExceeded));
        app.give_connection_back();
        assert_eq!(app.take_connection(), Ok(()));
    }
}
