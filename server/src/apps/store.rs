//! Where apps come from, and the node's own table of them.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use dunlin_protocol::names::{AppId, AppKey};

use super::app::App;
use crate::answer::Answer;
use crate::config::AppSection;
use crate::storage::keys::AppNum;

/// The source of apps.
///
/// A promise of every implementation: an app that was returned once is returned again with the same id until it is
/// deleted; ids and keys are unique. Reading is safe to repeat.
pub trait AppStore: Send + Sync {
    /// All apps, in the order of their ids.
    fn all(&self) -> Answer<Vec<AppSection>>;
    fn by_id(&self, id: &AppId) -> Answer<Option<AppSection>>;
    fn by_key(&self, key: &AppKey) -> Answer<Option<AppSection>>;
}

/// Apps that were listed in the configuration.
#[derive(Debug)]
pub struct ConfiguredApps {
    apps: Vec<AppSection>,
}

impl ConfiguredApps {
    /// `apps` have distinct ids and keys: the configuration was validated.
    pub fn new(mut apps: Vec<AppSection>) -> Self {
        apps.sort_by(|a, b| a.id.cmp(&b.id));
        Self { apps }
    }
}

impl AppStore for ConfiguredApps {
    fn all(&self) -> Answer<Vec<AppSection>> {
        Answer::ready(self.apps.clone())
    }

    fn by_id(&self, id: &AppId) -> Answer<Option<AppSection>> {
        Answer::ready(self.apps.iter().find(|app| app.id == *id).cloned())
    }

    fn by_key(&self, key: &AppKey) -> Answer<Option<AppSection>> {
        Answer::ready(self.apps.iter().find(|app| app.key == *key).cloned())
    }
}

/// The apps this node knows, for look-ups on every request: a snapshot that is swapped, never locked.
#[derive(Debug, Default)]
pub struct Apps {
    snapshot: ArcSwap<Snapshot>,
}

#[derive(Debug, Default)]
struct Snapshot {
    by_id: HashMap<AppId, Arc<App>>,
    by_key: HashMap<AppKey, Arc<App>>,
}

impl Apps {
    pub async fn load(store: &dyn AppStore) -> Self {
        let mut snapshot = Snapshot::default();
        for (num, section) in (0..).zip(store.all().await) {
            let app = Arc::new(App::new(AppNum(num), &section));
            snapshot.by_id.insert(app.id.clone(), Arc::clone(&app));
            snapshot.by_key.insert(app.key.clone(), app);
        }
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
        }
    }

    pub fn by_id(&self, id: &str) -> Option<Arc<App>> {
        self.snapshot.load().by_id.get(id).cloned()
    }

    pub fn by_key(&self, key: &str) -> Option<Arc<App>> {
        self.snapshot.load().by_key.get(key).cloned()
    }

    /// All apps, for metrics.
    pub fn all(&self) -> Vec<Arc<App>> {
        self.snapshot.load().by_id.values().cloned().collect()
    }
}

/// What every [`AppStore`] must do, whatever is behind it.
#[cfg(test)]
pub(crate) mod contract {
    use super::*;

    /// `store` holds exactly `expected`.
    pub(crate) async fn finds_what_it_holds(store: &dyn AppStore, expected: &[AppSection]) {
        let ids: Vec<_> = store.all().await.into_iter().map(|app| app.id).collect();
        let mut wanted: Vec<_> = expected.iter().map(|app| app.id.clone()).collect();
        wanted.sort();
        assert_eq!(ids, wanted, "all apps, in order");
        for app in expected {
            assert_eq!(
                store.by_id(&app.id).await.map(|found| found.key),
                Some(app.key.clone())
            );
            assert_eq!(
                store.by_key(&app.key).await.map(|found| found.id),
                Some(app.id.clone())
            );
        }
        assert!(store.by_id(&"nobody".parse().unwrap()).await.is_none());
        assert!(store.by_key(&"nobody".parse().unwrap()).await.is_none());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_configured_apps_keep_the_contract() {
        let apps: Vec<_> = ["7", "3"]
            .iter()
            .map(|id| AppSection {
                id: id.parse().unwrap(),
                key: format!("key-{id}").parse().unwrap(),
                ..AppSection::example()
            })
            .collect();
        contract::finds_what_it_holds(&ConfiguredApps::new(apps.clone()), &apps).await;
    }
}
