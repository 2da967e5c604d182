//! Several nodes that share a Redis are one platform: what is done on one is heard, counted and listed on all, and
//! stays true when a node or Redis dies.
//!
//! Tests that harm nothing share two nodes and take an app each ([`shared`]); the others start their own. By theme:
//! `delivery`, `presence`, `queries`, `cache`, `users`, `quota` and `isolation` are about what crosses nodes; `endings`
//! about connections, `node_death`, `partition`, `redis_away`, `amnesia` and `history` about parts that fail, `growth`
//! about what is left behind. `backends` goes one journey on every kind of Redis, and `parts` tests what these tests are
//! made of.

mod amnesia;
mod backends;
mod cache;
mod delivery;
mod endings;
mod growth;
mod history;
mod isolation;
mod node_death;
mod partition;
mod parts;
mod presence;
mod queries;
mod quota;
mod redis_away;
mod roster;
mod users;

use crate::world::{App, World};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// So soon presence is exact again, whatever happened.
const RECOVERY: Duration = Duration::from_secs(10);

/// Leases that run out in a moment, for tests that wait for it.
const SHORT_LEASES: &str = "[redis]\nlease_ms = 1500\nlease_refresh_ms = 500";

/// Two nodes that nobody may harm, and an app that no other test uses.
fn shared() -> (&'static World, App) {
    let (world, number) = shared_place();
    (world, App::new(number))
}

/// As `shared`, but the app has `subscription_count` on.
fn shared_counting() -> (&'static World, App) {
    let (world, number) = shared_place();
    (world, App::counting(POOL + number))
}

const POOL: usize = 100;

fn shared_place() -> (&'static World, usize) {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    static SHARED: OnceLock<World> = OnceLock::new();
    let world = SHARED.get_or_init(|| {
        let apps = (1..POOL).flat_map(|number| [App::new(number), App::counting(POOL + number)]);
        let builder = World::builder().nodes(2);
        apps.fold(builder, |builder, app| builder.app(&app)).start()
    });
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(number < POOL, "raise POOL: more tests than shared apps");
    (world, number)
}
