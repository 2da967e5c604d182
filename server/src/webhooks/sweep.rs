//! Forgets what the store knows of endpoints that are gone.

use std::collections::HashSet;

use super::endpoints::Endpoints;
use super::feeder::owner_of;
use super::lanes::Key;
use super::outbox::Place;
use super::store::{Claim, Fault, Store};

/// Rows that are looked at in one step.
const PAGE: u32 = 500;

/// Forgets how endpoints did, and how far they were read, if there has been no such endpoint and no sign of one since
/// `before_ms`. Whoever removes an endpoint by mistake, or has a node with an older configuration, has until then.
///
/// What is pending for nobody is given a row again, so that no mistake here, however unlikely, keeps a delivery from
/// being sent for longer than until the next time.
pub(super) async fn sweep(store: &Store, endpoints: &Endpoints, before_ms: u64) -> Result<(), Fault> {
    store.adopt().await?;
    // Of all that are stored, also those that this node cannot use.
    let (_, stored) = store.endpoints().await?;
    let stored: HashSet<Key> = stored.into_iter().map(|one| (one.app, one.id)).collect();
    let is_there = |key: &Key| stored.contains(key) || endpoints.get(&key.0, &key.1).is_some();
    forget_states(store, is_there, before_ms).await?;
    forget_cursors(store, is_there, before_ms).await
}

async fn forget_states(store: &Store, is_there: impl Fn(&Key) -> bool, before_ms: u64) -> Result<(), Fault> {
    let mut last: Option<Claim> = None;
    loop {
        let page = store.idle_endpoints(before_ms, last.as_ref(), PAGE).await?;
        for Claim { app, endpoint } in &page {
            if !is_there(&(app.clone(), endpoint.clone())) {
                store.forget_endpoint(app, endpoint, before_ms).await?;
            }
        }
        if page.len() < PAGE as usize {
            return Ok(());
        }
        last = page.into_iter().last();
    }
}

async fn forget_cursors(store: &Store, is_there: impl Fn(&Key) -> bool, before_ms: u64) -> Result<(), Fault> {
    // A cursor has no time but that of the entry it stands at.
    let is_old = |position: &str| position.parse().is_ok_and(|place: Place| place.ms < before_ms);
    let mut last = String::new();
    loop {
        let page = store.cursors(&last, PAGE).await?;
        for (name, position) in &page {
            if is_old(position) && owner_of(name).is_some_and(|owner| !is_there(&owner)) {
                store.forget_cursor(name, position).await?;
            }
        }
        let Some((name, _)) = page.last().filter(|_| page.len() == PAGE as usize) else {
            return Ok(());
        };
        last.clone_from(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::Apps;
    use crate::config::{AppSection, EndpointSection};
    use crate::storage::sql::scratch::Scratch;
    use crate::webhooks::delivery::EndpointId;
    use crate::webhooks::egress::Guard;
    use crate::webhooks::endpoint::Endpoint;
    use crate::webhooks::store::{CursorMove, EndpointChange};

    const NOW: u64 = 1_800_000_000_000;

    #[tokio::test]
    async fn only_endpoints_that_are_gone_for_long_are_forgotten() {
        let scratch = Scratch::sqlite();
        let store = Store::new(scratch.open().await);
        let app = AppSection {
            id: "1".parse().unwrap(),
            ..AppSection::example()
        };
        let section = EndpointSection {
            id: "configured".to_owned(),
            url: "https://a.example/".to_owned(),
            ..EndpointSection::default()
        };
        let configured = Endpoint::new(&app, &section, &Guard::default()).expect("it is sound");
        let endpoints = Endpoints::default();
        endpoints.replace([configured.into()], &Apps::default());
        let change = EndpointChange {
            app: app.id.clone(),
            id: EndpointId("stored".into()),
            settings: "{}".to_owned(),
            enabled: true,
            replaces: None,
        };
        store
            .put_endpoint(&change, NOW)
            .await
            .unwrap()
            .expect("it is new");
        for (endpoint, at_ms) in [
            ("configured", NOW),
            ("stored", NOW),
            ("gone", NOW),
            ("gone-of-late", NOW + 5),
        ] {
            let endpoint = EndpointId(endpoint.into());
            store.disable(&app.id, &endpoint, at_ms).await.unwrap();
            let cursor = CursorMove {
                partition: format!("7/1/{endpoint}/Events"),
                from: None,
                to: format!("{at_ms}-0"),
            };
            assert!(store.add(&[], NOW, &[cursor]).await.unwrap());
        }
        sweep(&store, &endpoints, NOW + 5).await.unwrap();
        let mut left: Vec<String> = store
            .disabled()
            .await
            .unwrap()
            .into_iter()
            .map(|(key, _)| key.1.to_string())
            .collect();
        left.sort();
        assert_eq!(left, ["configured", "gone-of-late", "stored"]);
        let cursors = store.cursors("", 99).await.unwrap();
        let left: Vec<&str> = cursors.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            left,
            [
                "7/1/configured/Events",
                "7/1/gone-of-late/Events",
                "7/1/stored/Events"
            ]
        );
    }
}
