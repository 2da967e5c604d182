//! Which endpoints there are: those of the configuration, and those of the database, which may change at any time.
//!
//! What is in the configuration stays as it is there: an endpoint of the database with the same id is not used.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dunlin_protocol::names::AppId;
use tokio::time::sleep;

use super::delivery::EndpointId;
use super::egress::Guard;
use super::endpoint::{BadOption, Endpoint};
use super::endpoints::Endpoints;
use super::store::{Store, StoredEndpoint};
use crate::apps::Apps;
use crate::config::{AppSection, Config, EndpointSection};
use crate::lock::lock;
use crate::storage::sql::Fault;

/// How often a node looks whether an endpoint of the database has changed.
const LOOK: Duration = Duration::from_secs(1);

/// So long after a change every node knows of it, unless it cannot reach the database.
pub const KNOWN_AFTER: Duration = Duration::from_secs(2);

/// An endpoint, whether it can be used or not.
#[derive(Debug)]
pub struct Registered {
    pub app: AppId,
    pub id: EndpointId,
    /// As the database has it; `None`: it is of the configuration.
    pub stored: Option<StoredEndpoint>,
    /// As it is written down; `None`: that cannot be read.
    pub settings: Option<EndpointSection>,
    pub endpoint: Result<Arc<Endpoint>, NotUsed>,
}

/// Why an endpoint of the database is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUsed {
    #[error("the configuration has no app {0}")]
    NoApp(AppId),
    #[error("the configuration has an endpoint of this id")]
    Configured,
    /// Written by a newer version, perhaps.
    #[error("its settings cannot be read: {0}")]
    Unreadable(String),
    #[error("{}", in_words(.0))]
    Bad(Vec<BadOption>),
}

/// What is wrong with an endpoint, in one line.
pub fn in_words(bad: &[BadOption]) -> String {
    let bad = bad
        .iter()
        .map(|BadOption { option, what }| format!("{option} {what}"));
    bad.collect::<Vec<_>>().join("; ")
}

/// Those of the configuration. What is wrong with one was said when it was read.
pub fn configured<'a>(
    config: &'a Config,
    guard: &'a Guard,
) -> impl Iterator<Item = (Arc<Endpoint>, &'a EndpointSection)> {
    config.apps.iter().flat_map(|app| {
        let endpoints = Endpoint::all_of(app, guard).unwrap_or_default();
        endpoints.into_iter().zip(&app.webhooks)
    })
}

/// Those of the configuration, and behind them those of the database.
pub fn all(config: &Config, stored: Vec<StoredEndpoint>) -> Vec<Registered> {
    let guard = config.guard();
    let configured = configured(config, &guard).map(|(endpoint, section)| Registered {
        app: endpoint.app.clone(),
        id: endpoint.id.clone(),
        stored: None,
        settings: Some(section.clone()),
        endpoint: Ok(endpoint),
    });
    let mut all: Vec<Registered> = configured.collect();
    let count = all.len();
    for stored in stored {
        let is_hidden = all[..count]
            .iter()
            .any(|other| other.app == stored.app && other.id == stored.id);
        let settings = section(&stored);
        let endpoint = match &settings {
            _ if is_hidden => Err(NotUsed::Configured),
            Ok(section) => judge(config, &guard, &stored.app, section).map(Arc::new),
            Err(error) => Err(NotUsed::Unreadable(error.to_string())),
        };
        all.push(Registered {
            app: stored.app.clone(),
            id: stored.id.clone(),
            stored: Some(stored),
            settings: settings.ok(),
            endpoint,
        });
    }
    all
}

fn judge(config: &Config, guard: &Guard, id: &AppId, section: &EndpointSection) -> Result<Endpoint, NotUsed> {
    let app = app(config, id).ok_or_else(|| NotUsed::NoApp(id.clone()))?;
    Endpoint::new(app, section, guard).map_err(NotUsed::Bad)
}

pub fn app<'a>(config: &'a Config, id: &AppId) -> Option<&'a AppSection> {
    config.apps.iter().find(|app| app.id == *id)
}

/// A stored endpoint as it would be written down.
///
/// # Errors
/// Its settings are of another shape than this version knows.
pub fn section(stored: &StoredEndpoint) -> Result<EndpointSection, serde_json::Error> {
    Ok(EndpointSection {
        id: stored.id.to_string(),
        enabled: stored.enabled,
        ..EndpointSection::from_json(&stored.settings)?
    })
}

/// The opposite: id and `enabled` are columns of their own.
pub fn settings(section: &EndpointSection) -> String {
    let section = EndpointSection {
        id: String::new(),
        enabled: true,
        ..section.clone()
    };
    section.to_json()
}

/// Keeps what a node knows of endpoints as it is in the database, about a second behind. Every node of a platform does
/// so, also one that delivers nothing: it is the nodes with the sockets that have to record what is wanted.
pub struct Watch {
    store: Store,
    config: Arc<Config>,
    endpoints: Arc<Endpoints>,
    apps: Arc<Apps>,
    /// What was seen last.
    version: Mutex<Option<i64>>,
}

impl Watch {
    pub fn new(store: Store, config: Arc<Config>, endpoints: Arc<Endpoints>, apps: Arc<Apps>) -> Self {
        Self {
            store,
            config,
            endpoints,
            apps,
            version: Mutex::default(),
        }
    }

    /// What it keeps.
    pub fn endpoints(&self) -> Arc<Endpoints> {
        Arc::clone(&self.endpoints)
    }

    /// For ever. While the database is away, all stays as it was.
    pub async fn run(&self) {
        let mut is_away = false;
        loop {
            match self.look().await {
                Ok(()) => is_away = false,
                Err(fault) if !is_away => {
                    is_away = true;
                    tracing::warn!(%fault, "the endpoints of the database cannot be read: they stay as they are");
                }
                Err(_) => {}
            }
            sleep(LOOK).await;
        }
    }

    /// Takes over what has changed since it looked last. Also for whoever has met an endpoint that is not known here yet.
    ///
    /// # Errors
    /// See [`Fault`]. All stays as it was.
    pub async fn look(&self) -> Result<(), Fault> {
        let current = self.store.endpoints_version().await?;
        if *lock(&self.version) == Some(current) {
            return Ok(());
        }
        let (version, stored) = self.store.endpoints().await?;
        let mut endpoints = Vec::new();
        for Registered {
            app, id, endpoint, ..
        } in all(&self.config, stored)
        {
            match endpoint {
                Ok(endpoint) => endpoints.push(endpoint),
                Err(why) => {
                    tracing::warn!(%app, endpoint = %id, %why, "an endpoint of the database is not used");
                }
            }
        }
        self.endpoints.replace(endpoints, &self.apps);
        *lock(&self.version) = Some(version);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    /// A configuration with an app `1` and its endpoint `a`.
    fn config() -> Config {
        let mut config = load(&Sources::default()).expect("the defaults are valid").config;
        config.apps[0].id = "1".parse().unwrap();
        config.apps[0].webhooks = vec![section_of("a")];
        config
    }

    fn section_of(id: &str) -> EndpointSection {
        EndpointSection {
            id: id.to_owned(),
            url: "https://a.example/".to_owned(),
            ..EndpointSection::default()
        }
    }

    fn stored(app: &str, id: &str, settings: &str) -> StoredEndpoint {
        StoredEndpoint {
            app: app.parse().unwrap(),
            id: EndpointId(id.into()),
            settings: settings.to_owned(),
            enabled: true,
            version: 1,
            created_at_ms: 0,
            updated_at_ms: 0,
        }
    }

    #[test]
    fn those_of_the_file_come_first_and_what_cannot_be_used_says_why() {
        let good = settings(&section_of("b"));
        let all = all(
            &config(),
            vec![
                stored("1", "a", &good),
                stored("1", "b", &good),
                stored("1", "c", r#"{"colour":"green"}"#),
                stored("1", "d", r#"{"url":"http://10.0.0.1/"}"#),
                stored("1", "e", "{}"),
                stored("2", "b", &good),
            ],
        );
        let read: Vec<_> = all
            .iter()
            .map(|one| {
                let why = one.endpoint.as_ref().map_err(ToString::to_string);
                (&*one.id.0, one.stored.is_some(), why.err().unwrap_or_default())
            })
            .collect();
        let mut expected = [
            ("a", false, ""),
            ("a", true, "has an endpoint of this id"),
            ("b", true, ""),
            ("c", true, "unknown field `colour`"),
            ("d", true, "url "),
            ("e", true, "url is missing"),
            ("b", true, "has no app 2"),
        ]
        .into_iter();
        for (id, is_stored, why) in read {
            let (expected_id, expected_stored, part) = expected.next().expect("no more than these");
            assert_eq!((id, is_stored), (expected_id, expected_stored));
            assert!(
                why.contains(part) && why.is_empty() == part.is_empty(),
                "{id}: {why}"
            );
        }
        assert_eq!(expected.next(), None);
    }

    #[test]
    fn what_is_stored_keeps_its_id_when_its_url_changes() {
        let mut stored = stored("1", "ep_0123456789ab", &settings(&section_of("")));
        stored.enabled = false;
        let section = section(&stored).expect("it can be read");
        assert_eq!((&*section.id, section.enabled), ("ep_0123456789ab", false));
        assert_eq!(
            settings(&section),
            stored.settings,
            "both are columns of their own"
        );
    }
}
